//! One group of changes to the index: a transaction with every table open, and the rows' bookkeeping.
//!
//! Operations (in `registers.rs`, `versions.rs`, `chunks.rs`, …) get a [`Group`] from the writer and
//! change rows through it. The group remembers whether anything was written, and how durable it must be.

use pando_core::{
    fingerprint::Item,
    id::{ChunkId, NodeId, Partition, WriteId},
    name::RegisterName,
    register::{Accepted, Ballot, LayoutVersion, State, Stored},
};
use redb::{ReadableTable, ReadableTableMetadata as _, Table, WriteTransaction};

use crate::{
    error::Error,
    index::{
        ANY_VOID, ARRIVING, BY_PARTITION, BY_VERSION, BallotRow, CHUNKS, DUE, LEAVING, LISTED, META,
        OF_REFERENCES, OF_REGISTERS, OWED, PRINTS, PURGED, PlaceKey, REFS, REGISTERS, RESYNC, SETTINGS,
        TOMBS, UNSETTLED, VERSIONS, VOID,
    },
    listed, migrate,
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
    listed: Table<'a, &'static [u8], &'static [u8]>,
    pub(crate) by_partition: Table<'a, PlaceKey, BallotRow>,
    tombs: Table<'a, (u64, &'static [u8]), (u64, u64)>,
    purged: Table<'a, u16, BallotRow>,
    void: Table<'a, u16, ()>,
    prints: Table<'a, (u16, u8, u8), (&'static [u8; 16], u64)>,
    owed: Table<'a, &'static [u8; 32], u64>,
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
            listed: txn.open_table(LISTED)?,
            by_partition: txn.open_table(BY_PARTITION)?,
            tombs: txn.open_table(TOMBS)?,
            purged: txn.open_table(PURGED)?,
            void: txn.open_table(VOID)?,
            prints: txn.open_table(PRINTS)?,
            owed: txn.open_table(OWED)?,
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
        self.wrote = if pando_core::mutant("ack-before-sync") { Wrote::Lazily } else { Wrote::Durably };
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
        if name.layout_version().is_some() {
            return Ok(());
        }
        self.listed.insert(name.as_bytes(), listed::encode(name, accepted).as_slice())?;
        let (partition, bucket, ballot) = (name.partition(), name.bucket_number(), accepted.ballot);
        let key = (partition.number(), bucket, name.as_bytes());
        let old = self.by_partition.insert(key, rows::ballot_row(ballot))?;
        let old = old.map(|old| rows::row_ballot(old.value()));
        if let Some(old) = old {
            self.tombs.remove((old.counter, name.as_bytes()))?;
        }
        if accepted.value.state == State::Absent {
            self.tombs.insert((ballot.counter, name.as_bytes()), (ballot.layout.0, ballot.session))?;
        }
        migrate::update(&mut self.prints, (partition, bucket, OF_REGISTERS), |print| {
            if let Some(old) = old {
                print.remove(Item::register(name, old));
            }
            print.add(Item::register(name, ballot));
        })
    }

    /// What decisions about a register rest on.
    pub(crate) fn stored(&self, name: &RegisterName) -> Result<(Option<Accepted>, Stored), Error> {
        let accepted = self.accepted(name)?;
        let stored = match &accepted {
            Some(accepted) => Stored::Value(accepted.ballot),
            None => Stored::Absent { purged: self.purge_floor(name.partition())? },
        };
        Ok((accepted, stored))
    }

    /// Forgets a register.
    pub(crate) fn remove_register(&mut self, name: &RegisterName) -> Result<(), Error> {
        self.durably();
        self.registers.remove(name.as_bytes())?;
        self.listed.remove(name.as_bytes())?;
        let (partition, bucket) = (name.partition(), name.bucket_number());
        let old = self.by_partition.remove((partition.number(), bucket, name.as_bytes()))?;
        let Some(old) = old.map(|old| rows::row_ballot(old.value())) else { return Ok(()) };
        self.tombs.remove((old.counter, name.as_bytes()))?;
        migrate::update(&mut self.prints, (partition, bucket, OF_REGISTERS), |print| {
            print.remove(Item::register(name, old));
        })
    }

    /// Up to `limit` registers of a partition.
    pub(crate) fn registers_of(
        &self,
        partition: Partition,
        limit: usize,
    ) -> Result<Vec<RegisterName>, Error> {
        let number = partition.number();
        let range = (number, 0, [].as_slice())..(number + 1, 0, [].as_slice());
        let rows = self.by_partition.range(range)?.take(limit);
        rows.map(|row| rows::decode_name(row?.0.value().2)).collect()
    }

    pub(crate) fn purge_floor(&self, partition: Partition) -> Result<Option<Ballot>, Error> {
        Ok(self.purged.get(partition.number())?.map(|row| rows::row_ballot(row.value())))
    }

    /// Raises a partition's purge floor to `ballot`, if it is below.
    pub(crate) fn raise_purge_floor(&mut self, partition: Partition, ballot: Ballot) -> Result<(), Error> {
        if self.purge_floor(partition)? < Some(ballot) {
            self.grow()?;
            self.purged.insert(partition.number(), rows::ballot_row(ballot))?;
        }
        Ok(())
    }

    /// The partition's registers must go before anything is answered of them.
    pub(crate) fn set_void(&mut self, partition: Partition, void: bool) -> Result<(), Error> {
        self.durably();
        if void {
            self.void.insert(partition.number(), ())?;
        } else {
            self.void.remove(partition.number())?;
        }
        // So that who looks need not open a table that is nearly always empty.
        if self.void.is_empty()? {
            self.meta.remove(ANY_VOID)?;
        } else {
            self.meta.insert(ANY_VOID, [].as_slice())?;
        }
        Ok(())
    }

    /// Refuses to answer anything of registers that are on their way out.
    pub(crate) fn check_void(&self, partition: Partition) -> Result<(), Error> {
        if self.void.get(partition.number())?.is_some() { Err(Error::Settling) } else { Ok(()) }
    }

    /// Partitions whose registers must go.
    pub(crate) fn void(&self) -> Result<Vec<Partition>, Error> {
        let numbers = self.void.iter()?.map(|row| Ok(row?.0.value()));
        let numbers: Vec<u16> = numbers.collect::<Result<_, Error>>()?;
        Ok(numbers.into_iter().filter_map(Partition::new).collect())
    }

    pub(crate) fn put_ceiling(&mut self, ceiling: u64) -> Result<(), Error> {
        self.durably();
        self.meta.insert("ceiling", ceiling.to_le_bytes().as_slice())?;
        Ok(())
    }

    pub(crate) fn put_layout(&mut self, version: LayoutVersion, bytes: &[u8]) -> Result<(), Error> {
        self.durably();
        let old_version = self.meta.insert("layout_version", version.0.to_le_bytes().as_slice())?;
        let old_version = old_version.map(|row| row.value().to_vec());
        let old = self.meta.insert("layout", bytes)?.map(|row| row.value().to_vec());
        if let (true, Some(old), Some(old_version)) =
            (pando_core::mutant("layout-not-durable"), old, old_version)
        {
            self.meta.insert("layout_before", old.as_slice())?;
            self.meta.insert("layout_version_before", old_version.as_slice())?;
        }
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
        self.pay(node, id)?;
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
        if self.refs.insert((&id.0, &version.0), ())?.is_some() {
            return Ok(());
        }
        self.by_version.insert((&version.0, &id.0), ())?;
        let place = (Partition::of_chunk(id), id.bucket_number(), OF_REFERENCES);
        migrate::update(&mut self.prints, place, |print| print.add(Item::reference(id, &version)))
    }

    pub(crate) fn drop_reference(&mut self, id: &ChunkId, version: WriteId) -> Result<(), Error> {
        self.durably();
        if self.refs.remove((&id.0, &version.0))?.is_none() {
            return Ok(());
        }
        self.by_version.remove((&version.0, &id.0))?;
        let place = (Partition::of_chunk(id), id.bucket_number(), OF_REFERENCES);
        migrate::update(&mut self.prints, place, |print| print.remove(Item::reference(id, &version)))
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

    /// Some versions that are to be checked after `latest`.
    pub(crate) fn due_after(&self, latest: u64, limit: usize) -> Result<Vec<WriteId>, Error> {
        let late = self.due.range((latest.saturating_add(1), &[0; 16])..)?.take(limit);
        late.map(|row| Ok(WriteId(*row?.0.value().1))).collect()
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

    /// Puts a debt into the queue; says whether it is new.
    pub(crate) fn owe(&mut self, node: NodeId, id: &ChunkId) -> Result<bool, Error> {
        let is_new = self.resync.insert((&node.0, &id.0), ())?.is_none();
        if is_new {
            self.durably();
            let count = self.owed.get(&node.0)?.map_or(0, |count| count.value());
            self.owed.insert(&node.0, count + 1)?;
        }
        Ok(is_new)
    }

    /// Takes a debt out of the queue; says whether it was there.
    fn pay(&mut self, node: NodeId, id: &ChunkId) -> Result<bool, Error> {
        let was_there = self.resync.remove((&node.0, &id.0))?.is_some();
        if was_there {
            let count = self.owed.get(&node.0)?.map_or(0, |count| count.value());
            match count.saturating_sub(1) {
                0 => self.owed.remove(&node.0)?,
                left => self.owed.insert(&node.0, left)?,
            };
        }
        Ok(was_there)
    }

    /// Takes a debt out of the queue that was paid or is void. One to this node itself stays as long as the chunk
    /// is needed and not held, whatever whoever settles it saw a moment ago: nothing else would bring it here.
    pub(crate) fn settle(&mut self, node: NodeId, id: &ChunkId) -> Result<(), Error> {
        if node == self.shared.node && self.chunk_len(id)?.is_none() && !self.references(id, 1)?.is_empty() {
            return Ok(());
        }
        if self.pay(node, id)? {
            self.durably();
        }
        Ok(())
    }
}
