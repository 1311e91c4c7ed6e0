//! The tables of the index and how it is opened.
//!
//! Owns the schema; `rows.rs` owns what the rows look like, `group.rs` how they are changed.

use std::path::Path;

use redb::{Builder, Database, ReadableDatabase, StorageBackend, TableDefinition};

use crate::{
    error::Error,
    migrate,
    rows::decode_number,
    sys::{self, OpenOptionsExt},
    wal::Logged,
};

/// The format of the index, raised when an older version could no longer read it.
pub(crate) const FORMAT: u64 = 4;

/// The first format with a log.
const FORMAT_WITH_LOG: u64 = 4;

/// Registers by name: the row of what was accepted.
pub(crate) const REGISTERS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("registers");
/// What a listing shows of registers, by name; not of those of layouts. Rows: `listed.rs`.
pub(crate) const LISTED: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("listed");
/// Partition, bucket and name of a register.
pub(crate) type PlaceKey = (u16, u8, &'static [u8]);
/// A ballot, as `rows.rs` takes it apart.
pub(crate) type BallotRow = (u64, u64, u64);
/// Registers by (partition, bucket, name): the ballot accepted. Without the layouts, which belong to councils.
pub(crate) const BY_PARTITION: TableDefinition<'static, PlaceKey, BallotRow> =
    TableDefinition::new("by_bucket");
/// Tombstones by (counter, name): the rest of their ballots, layout and session.
pub(crate) const TOMBS: TableDefinition<'static, (u64, &[u8]), (u64, u64)> = TableDefinition::new("tombs");
/// The purge floor of each partition in which tombstones were forgotten.
pub(crate) const PURGED: TableDefinition<'static, u16, (u64, u64, u64)> = TableDefinition::new("purged");
/// Partitions whose registers must go before anything is answered of them.
pub(crate) const VOID: TableDefinition<'static, u16, ()> = TableDefinition::new("void");
/// Fingerprints by (partition, bucket, kind): sum and count.
pub(crate) const PRINTS: TableDefinition<'static, (u16, u8, u8), (&[u8; 16], u64)> =
    TableDefinition::new("prints");
/// How many chunks are owed, by node.
pub(crate) const OWED: TableDefinition<'static, &[u8; 32], u64> = TableDefinition::new("owed");

/// In [`PRINTS`]: of registers.
pub(crate) const OF_REGISTERS: u8 = 0;
/// In [`PRINTS`]: of references to chunks.
pub(crate) const OF_REFERENCES: u8 = 1;

/// Chunks whose file is durable in its place: its length.
pub(crate) const CHUNKS: TableDefinition<'static, &[u8; 32], u64> = TableDefinition::new("chunks");
/// Chunks whose file is on its way in ([`ARRIVING`]) or out ([`LEAVING`]).
pub(crate) const UNSETTLED: TableDefinition<'static, &[u8; 32], u8> = TableDefinition::new("unsettled");
/// References, by chunk then version.
pub(crate) const REFS: TableDefinition<'static, (&[u8; 32], &[u8; 16]), ()> = TableDefinition::new("refs");
/// References, by version then chunk.
pub(crate) const BY_VERSION: TableDefinition<'static, (&[u8; 16], &[u8; 32]), ()> =
    TableDefinition::new("by_version");
/// Versions that have references here.
pub(crate) const VERSIONS: TableDefinition<'static, &[u8; 16], &[u8]> = TableDefinition::new("versions");
/// Versions to check, by time.
pub(crate) const DUE: TableDefinition<'static, (u64, &[u8; 16]), ()> = TableDefinition::new("due");
/// Chunks owed, by node.
pub(crate) const RESYNC: TableDefinition<'static, (&[u8; 32], &[u8; 32]), ()> =
    TableDefinition::new("resync");
/// The store's own facts: `format`, `ceiling`, `layout`, `layout_version`, `used`, `void`.
pub(crate) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
/// In [`META`], while there is anything in [`VOID`].
pub(crate) const ANY_VOID: &str = "void";
/// Small settings of the layers above.
pub(crate) const SETTINGS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("settings");

/// In [`UNSETTLED`]: the file was synced in `tmp` and may be in its place.
pub(crate) const ARRIVING: u8 = 0;
/// In [`UNSETTLED`]: the file may still be in its place and must go.
pub(crate) const LEAVING: u8 = 1;

/// The facts that the store starts from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) ceiling: u64,
    pub(crate) layout: u64,
    pub(crate) used: u64,
}

/// The backend over the index's file.
fn file_backend(path: &Path) -> Result<impl StorageBackend + use<>, Error> {
    let file = sys::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| Error::io(format!("open {}", path.display()), error))?;
    sys::backend(file)
}

/// The backend over the index's file and its log.
pub(crate) fn logged_backend(path: &Path, log: &Path) -> Result<impl StorageBackend + use<>, Error> {
    logged(file_backend(path)?, file_backend(log)?, sys::LOG)
}

/// A backend over a file and its log.
pub(crate) fn logged<B: StorageBackend>(file: B, log: B, limit: usize) -> Result<Logged<B>, Error> {
    Logged::open(file, log, limit).map_err(|error| Error::io("replay the index's log", error))
}

/// Makes a new index in the file at `path`, or brings the one there to today's format, durably.
pub(crate) fn make(path: &Path) -> Result<(), Error> {
    let (database, _) = open(file_backend(path)?)?;
    Ok(database.close()?)
}

/// Whether the index in the file at `path` is of a format that had no log.
pub(crate) fn needs_no_log(path: &Path) -> Result<bool, Error> {
    let database = Builder::new().set_cache_size(sys::CACHE).create_with_backend(file_backend(path)?)?;
    let old = !has_format(&database)? || number(&database, "format")? < FORMAT_WITH_LOG;
    database.close()?;
    Ok(old)
}

/// Opens the index, with all of its tables, and reads the facts.
pub(crate) fn open(backend: impl StorageBackend) -> Result<(Database, Facts), Error> {
    let database = Builder::new().set_cache_size(sys::CACHE).create_with_backend(backend)?;
    if !has_format(&database)? {
        let txn = database.begin_write()?;
        txn.open_table(REGISTERS)?;
        txn.open_table(LISTED)?;
        txn.open_table(BY_PARTITION)?;
        txn.open_table(CHUNKS)?;
        txn.open_table(UNSETTLED)?;
        txn.open_table(REFS)?;
        txn.open_table(BY_VERSION)?;
        txn.open_table(VERSIONS)?;
        txn.open_table(DUE)?;
        txn.open_table(RESYNC)?;
        txn.open_table(SETTINGS)?;
        migrate::open_tables(&txn)?;
        txn.open_table(META)?.insert("format", FORMAT.to_le_bytes().as_slice())?;
        txn.commit()?;
    }
    if number(&database, "format")? == 1 {
        migrate::from_1(&database)?;
    }
    if number(&database, "format")? == 2 {
        migrate::from_2(&database)?;
    }
    if number(&database, "format")? == 3 {
        migrate::from_3(&database)?;
    }
    if pando_core::mutant("layout-not-durable") {
        forget_layout(&database)?;
    }
    let number = |key: &str| number(&database, key);
    let found = number("format")?;
    if found != FORMAT {
        return Err(Error::Format { found: u32::try_from(found).unwrap_or(u32::MAX), known: FORMAT as u32 });
    }
    let facts =
        Facts { ceiling: number("ceiling")?, layout: number("layout_version")?, used: number("used")? };
    Ok((database, facts))
}

/// For the mutant: the layout that came last was not durable.
fn forget_layout(database: &Database) -> Result<(), Error> {
    let txn = database.begin_write()?;
    {
        let mut meta = txn.open_table(META)?;
        for (key, before) in [("layout", "layout_before"), ("layout_version", "layout_version_before")] {
            let old = meta.remove(before)?.map(|row| row.value().to_vec());
            if let Some(old) = old {
                meta.insert(key, old.as_slice())?;
            }
        }
    }
    Ok(txn.commit()?)
}

fn number(database: &Database, key: &str) -> Result<u64, Error> {
    let meta = database.begin_read()?.open_table(META)?;
    meta.get(key)?.map_or(Ok(0), |row| decode_number(key, row.value()))
}

fn has_format(database: &Database) -> Result<bool, Error> {
    match database.begin_read()?.open_table(META) {
        Ok(meta) => Ok(meta.get("format")?.is_some()),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
