//! One group of changes to the index: a transaction with every table open, and the rows' bookkeeping.
//!
//! Operations (in `registers.rs`, `versions.rs`, `chunks.rs`, …) get a [`Group`] from the writer and
//! change rows through it. The group remembers whether anything was written, and how durable it must be.

use pando_core::{
    id::{ChunkId, NodeId, WriteId},
    name::RegisterName,
    register::{Accepted, LayoutVersion},
};
use redb::{ReadableTable, Table, WriteTransaction};

use crate::{
    error::Error,
    index::{
        ARRIVING, BY_PARTITION, BY_VERSION, CHUNKS, DUE, LEAVING, META, REFS, REGISTERS, RESYNC, SETTINGS,
        UNSETTLED, VERSIONS,
    },
    rows::{self, Version},
    shared::Shared,
};

/// What a group's changes ask of the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wrote {
    /// Nothing was written: no commit.
    Nothing,
    /// Only what recovery can work out again: visible at once, durable with the next durable group.
    Lazily,
    /// Something that a reply rests on.
    Durably,
}

/// See the module's text.
pub(crate) struct Group<'a> {
    pub(crate) registers: Table<'a, &'static [u8], &'static [u8]>,
    pub(crate) by_partition: Table<'a, (u16, &'static [u8]), (u64, u64, u64)>,
    pub(crate) chunks: Table<'a, &'static [u8; 32], u64>,
    unsettled: Table<'a, &'static [u8; 32], u8>,
    pub(crate) refs: Table<'a, (&'static [u8; 32], &'static [u8; 16]), ()>,
    pub(crate) by_version: Table<'a, (&'static [u8; 16], &'static [u8; 32]), ()>,
    versions: Table<'a, &'static [u8; 16], &'static [u8]>,
    due: Table<'a, (u64, &'static [u8; 16]), ()>,
    resync: Table<'a, (&'static [u8; 32], &'static [u8; 32]), ()>,
    pub(crate) settings: Table<'a, &'static str, &'static [u8]>,
    meta: Table<'a, &'static str, &'static [u8]>,
    pub(crate) shared: &'a Shared,
    wrote: Wrote,
    /// Whether there is room on the disk; asked until it is known, once a group.
    room: bool,
    used_changed: bool,
}

impl<'a> Group<'a> {
    pub(crate) fn open(txn: &'a WriteTransaction, shared: &'a Shared) -> Result<Self, Error> {
        Ok(Self {
            registers: txn.open_table(REGISTERS)?,
            by_partition: txn.open_table(BY_PARTITION)?,
            chunks: txn.open_table(CHUNKS)?,
            unsettled: txn.open_table(UNSETTLED)?,
            refs: txn.open_table(REFS)?,
            by_version: txn.open_table(BY_VERSION)?,
            versions: txn.open_table(VERSIONS)?,
            due: txn.open_table(DUE)?,
            resync: txn.open_table(RESYNC)?,
            settings: txn.open_table(SETTINGS)?,
            meta: txn.open_table(META)?,
            shared,
            wrote: Wrote::Nothing,
            room: false,
            used_changed: false,
        })
    }

    /// Writes what is kept once a group, and says how to commit.
    pub(crate) fn finish(mut self) -> Result<Wrote, Error> {
        if self.used_changed {
            self.meta.insert("used", self.shared.used().to_le_bytes().as_slice())?;
        }
        Ok(self.wrote)
    }

    /// The caller writes something that a reply rests on.
    pub(crate) fn durably(&mut self) {
        self.wrote = Wrote::Durably;
    }

    /// The caller writes something that recovery could work out again.
    pub(crate) fn lazily(&mut self) {
        self.wrote = self.wrote.max(Wrote::Lazily);
    }

    /// Refuses when the disk is nearly full, which the index itself can't survive. To be asked before
    /// anything changes that makes it grow.
    pub(crate) fn check_room(&mut self) -> Result<(), Error> {
        if !self.room {
            self.shared.check_index_room()?;
            self.room = true;
        }
        Ok(())
    }

    /// The caller is about to make the index grow, durably.
    pub(crate) fn grow(&mut self) -> Result<(), Error> {
        self.check_room()?;
        self.durably();
        Ok(())
    }

    // --- registers and facts

    pub(crate) fn accepted(&self, name: &RegisterName) -> Result<Option<Accepted>, Error> {
        let row = self.registers.get(name.as_bytes())?;
        row.map(|row| rows::decode_accepted(name.as_bytes(), row.value())).transpose()
    }

    pub(crate) fn put_accepted(&mut self, name: &RegisterName, accepted: &Accepted) -> Result<(), Error> {
        self.durably();
        self.registers.insert(name.as_bytes(), rows::encode_accepted(accepted).as_slice())?;
        let key = (name.partition().number(), name.as_bytes());
        self.by_partition.insert(key, rows::ballot_row(accepted.ballot))?;
        Ok(())
    }

    pub(crate) fn put_ceiling(&mut self, ceiling: u64) -> Result<(), Error> {
        self.durably();
        self.meta.insert("ceiling", ceiling.to_le_bytes().as_slice())?;
        Ok(())
    }

    pub(crate) fn put_layout(&mut self, version: LayoutVersion, bytes: &[u8]) -> Result<(), Error> {
        self.durably();
        self.meta.insert("layout_version", version.0.to_le_bytes().as_slice())?;
        self.meta.insert("layout", bytes)?;
        self.shared.set_known_layout(version);
        Ok(())
    }

    // --- chunks

    pub(crate) fn chunk_len(&self, id: &ChunkId) -> Result<Option<u64>, Error> {
        Ok(self.chunks.get(&id.0)?.map(|len| len.value()))
    }

    /// The chunk's file may show up in its place from now on. Durable before the rename.
    pub(crate) fn arriving(&mut self, id: &ChunkId) -> Result<(), Error> {
        self.durably();
        self.unsettled.insert(&id.0, ARRIVING)?;
        Ok(())
    }

    /// The chunk's file is durable in its place, so [`Group::arriving`] is fulfilled. Lazily: after a
    /// crash, recovery finds the file and concludes the same.
    pub(crate) fn arrived(&mut self, id: &ChunkId, len: u64) -> Result<(), Error> {
        self.lazily();
        let replaced = self.chunks.insert(&id.0, len)?.map(|len| len.value()).unwrap_or(0);
        self.used_changed = true;
        self.shared.change_used(|used| used.saturating_sub(replaced) + len);
        self.unsettled.remove(&id.0)?;
        let node = self.shared.node;
        self.resync.remove((&node.0, &id.0))?;
        Ok(())
    }

    /// The chunk no longer counts as held, and its file is going. Durable before the file goes. Returns
    /// its length if it was held.
    pub(crate) fn leaving(&mut self, id: &ChunkId) -> Result<Option<u64>, Error> {
        self.durably();
        let len = self.chunks.remove(&id.0)?.map(|len| len.value());
        if let Some(len) = len {
            self.used_changed = true;
            self.shared.change_used(|used| used.saturating_sub(len));
        }
        self.unsettled.insert(&id.0, LEAVING)?;
        Ok(len)
    }

    /// The chunk's file is gone (or never came). Lazily: recovery finds nothing and concludes the same.
    pub(crate) fn left(&mut self, id: &ChunkId) -> Result<(), Error> {
        self.lazily();
        self.unsettled.remove(&id.0)?;
        Ok(())
    }

    /// The chunks on their way in or out, for recovery.
    pub(crate) fn unsettled(&self) -> Result<Vec<(ChunkId, u8)>, Error> {
        let mut all = Vec::new();
        for entry in self.unsettled.iter()? {
            let (id, way) = entry?;
            all.push((ChunkId(*id.value()), way.value()));
        }
        Ok(all)
    }

    // --- references

    pub(crate) fn add_reference(&mut self, id: &ChunkId, version: WriteId) -> Result<(), Error> {
        self.durably();
        self.refs.insert((&id.0, &version.0), ())?;
        self.by_version.insert((&version.0, &id.0), ())?;
        Ok(())
    }

    pub(crate) fn drop_reference(&mut self, id: &ChunkId, version: WriteId) -> Result<(), Error> {
        self.durably();
        self.refs.remove((&id.0, &version.0))?;
        self.by_version.remove((&version.0, &id.0))?;
        Ok(())
    }

    /// Up to `limit` versions that refer to a chunk.
    pub(crate) fn references(&self, id: &ChunkId, limit: usize) -> Result<Vec<WriteId>, Error> {
        let range = (&id.0, &[0; 16])..=(&id.0, &[0xff; 16]);
        let entries = self.refs.range(range)?.take(limit);
        entries.map(|entry| Ok(WriteId(*entry?.0.value().1))).collect()
    }

    /// Up to `limit` chunks that a version refers to.
    pub(crate) fn chunks_of(&self, version: WriteId, limit: usize) -> Result<Vec<ChunkId>, Error> {
        let range = (&version.0, &[0; 32])..=(&version.0, &[0xff; 32]);
        let entries = self.by_version.range(range)?.take(limit);
        entries.map(|entry| Ok(ChunkId(*entry?.0.value().1))).collect()
    }

    // --- versions

    pub(crate) fn version(&self, id: WriteId) -> Result<Option<Version>, Error> {
        let row = self.versions.get(&id.0)?;
        row.map(|row| rows::decode_version(id, row.value())).transpose()
    }

    /// Writes a version's row and keeps the due queue in step.
    pub(crate) fn put_version(&mut self, id: WriteId, version: &Version) -> Result<(), Error> {
        let old = self.version(id)?;
        if old.as_ref() == Some(version) {
            return Ok(());
        }
        self.durably();
        if let Some(due) = old.and_then(|old| old.due) {
            self.due.remove((due, &id.0))?;
        }
        if let Some(due) = version.due {
            self.due.insert((due, &id.0), ())?;
        }
        self.versions.insert(&id.0, rows::encode_version(version).as_slice())?;
        Ok(())
    }

    pub(crate) fn drop_version(&mut self, id: WriteId) -> Result<(), Error> {
        let Some(old) = self.version(id)? else { return Ok(()) };
        self.durably();
        if let Some(due) = old.due {
            self.due.remove((due, &id.0))?;
        }
        self.versions.remove(&id.0)?;
        Ok(())
    }

    // --- the resync queue

    pub(crate) fn owe(&mut self, node: NodeId, id: &ChunkId) -> Result<(), Error> {
        self.durably();
        self.resync.insert((&node.0, &id.0), ())?;
        Ok(())
    }

    pub(crate) fn settle(&mut self, node: NodeId, id: &ChunkId) -> Result<(), Error> {
        if self.resync.remove((&node.0, &id.0))?.is_some() {
            self.durably();
        }
        Ok(())
    }
}
