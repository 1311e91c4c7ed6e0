//! Chunk files: write, read, verify, quarantine, delete.
//!
//! **The order of a write**, under the chunk's lock: check the hash; write and sync a file in `tmp`; commit
//! the reference and a note that the chunk is *arriving*; rename the file to its place and sync the
//! folder; note, without waiting for a sync, that it *arrived*; answer.
//!
//! So a row in the table of chunks means that the file is durable in its place, and a claim need not look
//! at the disk. A crash before the commit leaves a file in `tmp`, emptied at the next start. A crash after it
//! leaves a note, and the next start looks: the file is there, and is made to count, or it is not, and
//! nobody was told that it was. What was acknowledged has its reference, its note or row, and its file,
//! all durable. See `recover.rs`.
//!
//! A failed sync means that the file is *not* stored: it is removed, and the caller told.

use std::sync::Arc;

use bytes::Bytes;
use pando_core::{
    id::{ChunkId, WriteId},
    name::RegisterName,
    seal::SEALED_CHUNK,
};
use redb::ReadableTableMetadata as _;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::{
    error::Error,
    folder::Staged,
    index::CHUNKS,
    rows,
    shared::{Reservation, Shared},
    store::Store,
    sys::{self, File, FileExt},
    versions,
};

/// How many references are dropped at once when a chunk is deleted.
const DELETE_BATCH: usize = 1024;

/// What a chunk's file turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkState {
    /// Its bytes are what its name says.
    Good,
    /// They are not, or can't be read.
    Bad,
    /// There is no file.
    Missing,
}

/// A chunk's file, open for reading. It stays readable even if the chunk is deleted meanwhile.
#[derive(Clone, Debug)]
pub struct ChunkReader {
    id: ChunkId,
    file: Arc<File>,
    len: u64,
}

impl ChunkReader {
    /// Sealed bytes.
    #[expect(clippy::len_without_is_empty, reason = "no chunk is empty")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Fills `out`, which it gives back, with `len` bytes from `offset`, or fewer at the end. Not verified: whoever has
    /// the key opens segments by their tags, and whoever has all bytes can hash them. Each call is a trip to a
    /// blocking thread, so ask for some hundred KiB at a time.
    pub async fn read_into<B>(&self, offset: u64, len: usize, mut out: B) -> Result<B, Error>
    where
        B: AsMut<Vec<u8>> + Send + 'static,
    {
        let reader = self.clone();
        sys::blocking(move || {
            reader.fill(offset, len, out.as_mut())?;
            Ok(out)
        })
        .await?
    }

    fn fill(&self, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        out.resize(self.len.saturating_sub(offset).min(len as u64) as usize, 0);
        let read = self.file.read_exact_at(out, offset);
        read.map_err(|error| Error::io(format!("read chunk {}", self.id), error))
    }
}

/// One chunk to be stored, and who needs it.
struct Arrival {
    id: ChunkId,
    bytes: Bytes,
    version: WriteId,
    name: RegisterName,
    due: u64,
}

impl Store {
    /// Stores a chunk and makes `version`, a write to `name`, refer to it; see [`Store::claim`]. `bytes` are
    /// all of its sealed bytes. When this returns, both are durable. Storing it again does no harm.
    pub async fn write_chunk(
        &self,
        id: ChunkId,
        bytes: Bytes,
        version: WriteId,
        name: RegisterName,
        due: u64,
    ) -> Result<(), Error> {
        check_len(bytes.len() as u64)?;
        rows::check_name(&name)?;
        let arrival = Arc::new(Arrival { id, bytes, version, name, due });
        self.to_the_end(|store| async move {
            let guard = store.shared.lock_chunk(&id).await;
            let stored = store.store(arrival).await;
            drop(guard);
            stored
        })
        .await
    }

    /// As [`Store::write_chunk`], with the `len` bytes read from `reader`, and no more than those.
    pub async fn write_stream(
        &self,
        id: ChunkId,
        len: u64,
        reader: impl AsyncRead + Unpin,
        version: WriteId,
        name: RegisterName,
        due: u64,
    ) -> Result<(), Error> {
        check_len(len)?;
        let mut bytes = Vec::new();
        let mut reader = reader.take(len);
        let read = reader.read_to_end(&mut bytes).await;
        read.map_err(|error| Error::io(format!("receive chunk {id}"), error))?;
        if (bytes.len() as u64) < len {
            let found = format!("{} bytes", bytes.len());
            return Err(Error::Corrupt {
                what: format!("chunk {id}"),
                expected: format!("{len} bytes"),
                found,
            });
        }
        self.write_chunk(id, bytes.into(), version, name, due).await
    }

    /// See the module's text. The caller holds the chunk's lock.
    async fn store(&self, arrival: Arc<Arrival>) -> Result<(), Error> {
        let id = arrival.id;
        let (shared, staging) = (self.shared.clone(), arrival.clone());
        let staged = sys::blocking(move || stage(&shared, &staging)).await??;
        let Some((staged, reservation)) = staged else {
            // Held, and its file can't go while the lock is ours: only the reference is new.
            let claimed = self
                .submit(2, move |group| {
                    let Arrival { version, name, due, .. } = &*arrival;
                    versions::claim(group, *version, name, &[id], *due)
                })
                .await?;
            assert!(claimed == [true], "a chunk's row goes only under its lock");
            return Ok(());
        };
        let len = arrival.bytes.len() as u64;
        self.submit(4, move |group| {
            versions::register(group, arrival.version, &arrival.name, arrival.due)?;
            group.add_reference(&id, arrival.version)?;
            group.arriving(&id)
        })
        .await?;
        let shared = self.shared.clone();
        let placed = sys::blocking(move || shared.folder.place(&id, staged)).await?;
        if let Err(error) = placed {
            // It may be in its place, but not durably: it must not count. The reference stays, and with it
            // the debt, as for any chunk that is missing here.
            self.submit(3, move |group| {
                let node = group.shared.node;
                group.owe(node, &id)?;
                group.leaving(&id)
            })
            .await?;
            self.unlink(vec![id]).await?;
            return Err(error);
        }
        self.submit(2, move |group| group.arrived(&id, len)).await?;
        drop(reservation);
        Ok(())
    }

    /// Whether the chunk is held, durably and in its place.
    pub async fn has(&self, id: ChunkId) -> Result<bool, Error> {
        self.glance(move |_, txn| Ok(txn.open_table(CHUNKS)?.get(&id.0)?.is_some())).await
    }

    /// The chunk's file, open for reading, and in `out` its first bytes that are wanted: as by
    /// [`ChunkReader::read_into`]. `None` if it is not held.
    pub async fn read_stream<B>(
        &self,
        id: ChunkId,
        offset: u64,
        len: usize,
        mut out: B,
    ) -> Result<Option<(ChunkReader, B)>, Error>
    where
        B: AsMut<Vec<u8>> + Send + 'static,
    {
        // Most that are not held are asked of who reads from others: the index tells without a trip.
        if !self.has(id).await? {
            return Ok(None);
        }
        let shared = self.shared.clone();
        sys::blocking(move || {
            let Some((file, file_len)) = open(&shared, &id)? else { return Ok(None) };
            check_file_len(&id, file_len)?;
            let reader = ChunkReader { id, file: Arc::new(file), len: file_len };
            reader.fill(offset, len, out.as_mut())?;
            Ok(Some((reader, out)))
        })
        .await?
    }

    /// All of the chunk's bytes, verified; [`Error::Corrupt`] if they are not what they must be.
    pub async fn read_verified(&self, id: ChunkId) -> Result<Option<Bytes>, Error> {
        self.shared.check()?;
        let shared = self.shared.clone();
        sys::blocking(move || {
            let Some((file, len)) = open(&shared, &id)? else { return Ok(None) };
            let bytes = read_all(&id, &file, len)?;
            check_hash(&id, &bytes)?;
            Ok(Some(bytes.into()))
        })
        .await?
    }

    /// Reads the chunk's file again and hashes it.
    pub async fn verify(&self, id: ChunkId) -> Result<ChunkState, Error> {
        match self.read_verified(id).await {
            Ok(Some(_)) => Ok(ChunkState::Good),
            Ok(None) => Ok(ChunkState::Missing),
            Err(Error::Corrupt { .. }) => Ok(ChunkState::Bad),
            // A sector that can't be read is as bad as one that reads wrong.
            Err(Error::Io { source, .. }) if is_media_error(&source) => Ok(ChunkState::Bad),
            Err(error) => Err(error),
        }
    }

    /// Verifies the chunk while nobody can change it. If it is bad or missing it is no longer held, keeps its
    /// references, and is owed to this node itself; a bad file is put aside. Returns what it was.
    pub async fn quarantine(&self, id: ChunkId) -> Result<ChunkState, Error> {
        self.to_the_end(|store| async move {
            let guard = store.shared.lock_chunk(&id).await;
            let state = store.verify(id).await?;
            if state == ChunkState::Good {
                return Ok(state);
            }
            let is_leaving = store
                .submit(3, move |group| {
                    let (held, needed) = (group.chunk_len(&id)?, !group.references(&id, 1)?.is_empty());
                    if needed {
                        let node = group.shared.node;
                        let is_new = group.owe(node, &id)?;
                        // The simulator is told of a hole that this mends.
                        #[cfg(feature = "sim")]
                        assert!(held.is_some() || !is_new, "{id}: needed, not held, and nobody knew");
                        #[cfg(not(feature = "sim"))]
                        let _ = is_new;
                    }
                    if held.is_some() || state == ChunkState::Bad {
                        group.leaving(&id)?;
                        return Ok(true);
                    }
                    Ok(false)
                })
                .await?;
            if is_leaving {
                let shared = store.shared.clone();
                sys::blocking(move || shared.folder.quarantine(&id)).await??;
                store.submit(1, move |group| group.left(&id)).await?;
            }
            drop(guard);
            Ok(state)
        })
        .await
    }

    /// Deletes the chunk and every reference to it.
    pub async fn delete(&self, id: ChunkId) -> Result<(), Error> {
        self.to_the_end(|store| async move {
            let guard = store.shared.lock_chunk(&id).await;
            while store.submit(2 * DELETE_BATCH, move |group| drop_references(group, &id)).await? {}
            store.unlink(vec![id]).await?;
            drop(guard);
            Ok(())
        })
        .await
    }

    /// How many chunks are held.
    pub async fn chunk_count(&self) -> Result<u64, Error> {
        self.look(|_, txn| Ok(txn.open_table(CHUNKS)?.len()?)).await
    }
}

/// Checks the bytes, and writes them to `tmp` unless the chunk is held.
fn stage(shared: &Arc<Shared>, arrival: &Arrival) -> Result<Option<(Staged, Reservation)>, Error> {
    check_hash(&arrival.id, &arrival.bytes)?;
    if shared.snapshot()?.open_table(CHUNKS)?.get(&arrival.id.0)?.is_some() {
        return Ok(None);
    }
    let len = arrival.bytes.len() as u64;
    let reservation = shared.reserve(len)?;
    let staged = shared.folder.stage(&arrival.id, &arrival.bytes).map_err(|error| match error {
        Error::NoSpace { .. } => Error::NoSpace { needed: len, free: shared.folder.disk_free().unwrap_or(0) },
        error => error,
    })?;
    Ok(Some((staged, reservation)))
}

/// Drops a batch of references. `false`: the last are gone, the row as well, and the file may go.
fn drop_references(group: &mut crate::group::Group<'_>, id: &ChunkId) -> Result<bool, Error> {
    for version in group.references(id, DELETE_BATCH)? {
        group.drop_reference(id, version)?;
        if group.chunks_of(version, 1)?.is_empty() {
            group.drop_version(version)?;
        }
    }
    let more = !group.references(id, 1)?.is_empty();
    if !more {
        group.leaving(id)?;
    }
    Ok(more)
}

fn open(shared: &Shared, id: &ChunkId) -> Result<Option<(File, u64)>, Error> {
    let Some(file) = shared.folder.read(id)? else { return Ok(None) };
    let len = file.metadata().map_err(|error| Error::io(format!("measure chunk {id}"), error))?.len();
    Ok(Some((file, len)))
}

fn read_all(id: &ChunkId, file: &File, len: u64) -> Result<Vec<u8>, Error> {
    check_file_len(id, len)?;
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0).map_err(|error| Error::io(format!("read chunk {id}"), error))?;
    Ok(bytes)
}

fn check_hash(id: &ChunkId, bytes: &[u8]) -> Result<(), Error> {
    let found = ChunkId(*blake3::hash(bytes).as_bytes());
    if found == *id {
        return Ok(());
    }
    Err(Error::Corrupt {
        what: format!("chunk {}", id.short()),
        expected: id.to_string(),
        found: found.to_string(),
    })
}

fn check_len(len: u64) -> Result<(), Error> {
    if len == 0 {
        return Err(Error::Malformed { what: "an empty chunk" });
    }
    if len > SEALED_CHUNK as u64 {
        return Err(Error::TooMany { what: "bytes in a chunk", limit: SEALED_CHUNK, got: len as usize });
    }
    Ok(())
}

fn check_file_len(id: &ChunkId, len: u64) -> Result<(), Error> {
    check_len(len).map_err(|_| Error::Corrupt {
        what: format!("the file of chunk {id}"),
        expected: format!("1 to {SEALED_CHUNK} bytes"),
        found: format!("{len} bytes"),
    })
}

fn is_media_error(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::UnexpectedEof
        || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}
