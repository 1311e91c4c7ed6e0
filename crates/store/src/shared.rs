//! What the handles and the writer task share: the folder, the database, and what the writer publishes.
//!
//! The writer alone changes the known layout and the space in use, and the acceptor but for promises that change
//! nothing on the disk (see `registers.rs`); everyone may look. Locks here are held for a few instructions (the
//! acceptor's also while a few rows of one snapshot are read) and never across a wait, but for the chunk locks, which are
//! made for that.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use pando_core::{
    id::{ChunkId, NodeId},
    name::RegisterName,
    register::{Acceptor, LayoutVersion},
};
use redb::{Database, ReadTransaction, ReadableDatabase, WriteTransaction};

use crate::{error::Error, folder::Folder, index::Facts, sys};

/// How many locks chunks share. Two chunks on one lock only wait for each other; with 1024 and some dozens
/// of chunks in flight that is rare, and the table is 64 KiB.
const LOCKS: usize = 1024;

/// Room on the disk that chunks must leave, so that the index never meets a full disk (which it could
/// only answer by failing).
const CHUNK_RESERVE: u64 = 64 << 20;
/// Room on the disk below which the index takes nothing that makes it grow.
const INDEX_RESERVE: u64 = 16 << 20;

/// Space that chunks take.
#[derive(Debug, Default)]
struct Space {
    /// By chunks stored.
    used: u64,
    /// By chunks on their way in.
    reserved: u64,
}

/// See the module's text. Fields are dropped in order: the database before the folder's lock.
pub(crate) struct Shared {
    database: RwLock<Option<Database>>,
    pub(crate) acceptor: Mutex<Acceptor<RegisterName>>,
    /// The ceiling that is on the disk for certain; the acceptor's own may be on its way there.
    ceiling: AtomicU64,
    /// Registers that something is on its way to, and how much: as many as there are calls under way, which the callers'
    /// connections bound.
    changing: Mutex<HashMap<RegisterName, u32>>,
    known_layout: AtomicU64,
    space: Mutex<Space>,
    /// Where short looks at the index are run.
    pub(crate) brief: sys::Brief,
    failed: OnceLock<String>,
    closing: AtomicBool,
    locks: Box<[tokio::sync::Mutex<()>]>,
    pub(crate) node: NodeId,
    /// `u64::MAX`: what the disk has.
    capacity: AtomicU64,
    pub(crate) folder: Folder,
}

/// Space kept for a chunk on its way in; given back when dropped.
pub(crate) struct Reservation {
    shared: Arc<Shared>,
    len: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        lock(&self.shared.space).reserved -= self.len;
    }
}

/// Says that something is on its way to a register, until dropped.
pub(crate) struct Changing {
    shared: Arc<Shared>,
    name: RegisterName,
}

impl Drop for Changing {
    fn drop(&mut self) {
        let mut changing = lock(&self.shared.changing);
        if let Some(count) = changing.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                changing.remove(&self.name);
            }
        }
    }
}

/// Takes a lock whose holders leave the data whole even if they panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(
        folder: Folder,
        database: Database,
        facts: Facts,
        node: NodeId,
        capacity: Option<u64>,
    ) -> Self {
        let ceiling = if pando_core::mutant("promises-forgotten") { 0 } else { facts.ceiling };
        Self {
            database: RwLock::new(Some(database)),
            acceptor: Mutex::new(Acceptor::restarted(ceiling)),
            ceiling: AtomicU64::new(ceiling),
            changing: Mutex::default(),
            known_layout: AtomicU64::new(facts.layout),
            space: Mutex::new(Space { used: facts.used, reserved: 0 }),
            brief: sys::Brief::default(),
            failed: OnceLock::new(),
            closing: AtomicBool::new(false),
            locks: (0..LOCKS).map(|_| tokio::sync::Mutex::new(())).collect(),
            node,
            capacity: AtomicU64::new(capacity.unwrap_or(u64::MAX)),
            folder,
        }
    }

    /// What is committed now. Not after a failure: what a failed commit left behind is nobody's business.
    pub(crate) fn snapshot(&self) -> Result<ReadTransaction, Error> {
        if self.failed.get().is_some() {
            return Err(self.gone());
        }
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        Ok(database.as_ref().ok_or(Error::Closed)?.begin_read()?)
    }

    /// A transaction, for the writer.
    pub(crate) fn begin_write(&self) -> Result<WriteTransaction, Error> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        Ok(database.as_ref().ok_or(Error::Closed)?.begin_write()?)
    }

    /// To be called, and the answer kept until after the commit, before a change of a register is queued.
    pub(crate) fn mark_changing(self: &Arc<Self>, name: &RegisterName) -> Changing {
        *lock(&self.changing).entry(name.clone()).or_default() += 1;
        Changing { shared: self.clone(), name: name.clone() }
    }

    /// Whether something is on its way to a register.
    pub(crate) fn is_changing(&self, name: &RegisterName) -> bool {
        lock(&self.changing).contains_key(name)
    }

    /// A ceiling was committed.
    pub(crate) fn ceiling_is_durable(&self, ceiling: u64) {
        self.ceiling.fetch_max(ceiling, Ordering::AcqRel);
    }

    /// Whether a promise of this counter rests on a ceiling that is durable.
    pub(crate) fn is_below_ceiling(&self, counter: u64) -> bool {
        counter < self.ceiling.load(Ordering::Acquire)
    }

    /// The layout version that the writer knows.
    pub(crate) fn known_layout(&self) -> LayoutVersion {
        LayoutVersion(self.known_layout.load(Ordering::Acquire))
    }

    /// For the writer.
    pub(crate) fn set_known_layout(&self, version: LayoutVersion) {
        self.known_layout.store(version.0, Ordering::Release);
    }

    /// Changes the most bytes of chunks to keep.
    pub(crate) fn set_capacity(&self, capacity: u64) {
        self.capacity.store(capacity, Ordering::Relaxed);
    }

    /// Bytes of chunks stored.
    pub(crate) fn used(&self) -> u64 {
        lock(&self.space).used
    }

    /// For the writer: a chunk came or went.
    pub(crate) fn change_used(&self, change: impl FnOnce(u64) -> u64) -> u64 {
        let mut space = lock(&self.space);
        space.used = change(space.used);
        space.used
    }

    /// Keeps `len` bytes for a chunk, if there is room.
    pub(crate) fn reserve(self: &Arc<Self>, len: u64) -> Result<Reservation, Error> {
        let disk = self.folder.disk_free()?.saturating_sub(CHUNK_RESERVE);
        let mut space = lock(&self.space);
        let taken = space.used.saturating_add(space.reserved);
        let free = self.capacity.load(Ordering::Relaxed).saturating_sub(taken).min(disk);
        if free < len {
            return Err(Error::NoSpace { needed: len, free });
        }
        space.reserved += len;
        Ok(Reservation { shared: self.clone(), len })
    }

    /// Whether the index may grow.
    pub(crate) fn check_index_room(&self) -> Result<(), Error> {
        let free = self.folder.disk_free()?;
        if free < INDEX_RESERVE { Err(Error::NoSpace { needed: INDEX_RESERVE, free }) } else { Ok(()) }
    }

    /// The lock of a chunk's file.
    pub(crate) async fn lock_chunk(&self, id: &ChunkId) -> tokio::sync::MutexGuard<'_, ()> {
        self.locks[shard(id)].lock().await
    }

    /// The locks of several chunks' files. Taken in one order by everyone, so nobody waits in a circle.
    pub(crate) async fn lock_chunks(&self, ids: &[ChunkId]) -> Vec<tokio::sync::MutexGuard<'_, ()>> {
        let mut shards: Vec<_> = ids.iter().map(shard).collect();
        shards.sort_unstable();
        shards.dedup();
        let mut guards = Vec::with_capacity(shards.len());
        for shard in shards {
            guards.push(self.locks[shard].lock().await);
        }
        guards
    }

    /// From here on nothing is acknowledged.
    pub(crate) fn fail(&self, why: String) {
        if self.failed.set(why.clone()).is_ok() {
            tracing::error!(why, "the store failed and must be reopened");
        }
    }

    /// The first failure.
    pub(crate) fn failed(&self) -> Option<String> {
        self.failed.get().cloned()
    }

    /// Why the writer does not answer.
    pub(crate) fn gone(&self) -> Error {
        self.failed().map_or(Error::Closed, |why| Error::Failed { why })
    }

    /// Whether the store works.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.failed.get().is_some() || self.closing.load(Ordering::Acquire) {
            return Err(self.gone());
        }
        Ok(())
    }

    /// New calls are turned away.
    pub(crate) fn start_closing(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Closes the database, then lets go of the folder.
    pub(crate) fn close(&self) -> Result<(), Error> {
        let database = self.database.write().unwrap_or_else(PoisonError::into_inner).take();
        let closed = database.map_or(Ok(()), Database::close);
        self.folder.unlock()?;
        Ok(closed?)
    }
}

fn shard(id: &ChunkId) -> usize {
    // Not the first bytes: those are a partition's, and a node owns whole partitions.
    usize::from(u16::from_le_bytes([id.0[30], id.0[31]])) % LOCKS
}
