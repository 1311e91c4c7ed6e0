//! A write-ahead log under the index's file.
//!
//! A commit of the index changes pages all over its file, and each is a request of its own to the disk: that, more than
//! the sync, is what a small commit costs. So what a sync has to make durable is written in one piece to the end of a
//! log, and the log is synced. When the log is full, the pages go to the file (a *checkpoint*): each once, however often
//! it was written, in the order of their places.
//!
//! Owns the log's format and the order of writes and syncs. Knows nothing of the index: it is a [`StorageBackend`] over
//! two others. Any number of threads read; one at a time writes or syncs. (It is not always the same: a read of the
//! index that needs memory writes pages that were changed and not synced.)
//!
//! **Why nothing is lost, and nothing comes back.**
//!
//! 1. A sync succeeds once its *record* is durable, after all records before it. Until a checkpoint is durable, the file
//!    has not changed but in its length, and the log has all that did.
//! 2. Records are a chain: each carries a hash of what it says and of the hash before it. Opening replays them up to the
//!    first that is not whole or does not continue the chain, which is what was not synced. Replaying twice does no harm,
//!    since within one round of the log the file only grows.
//! 3. After a checkpoint the first block of the log is overwritten and synced before anything else is written: otherwise
//!    a torn new record might leave a part of the old chain to be replayed over newer pages. A record is a whole number of
//!    blocks, so that a torn write never reaches back into one that was synced.
//! 4. What is too much for one record goes to the file directly, after a checkpoint, as it would without a log: the index
//!    writes to unused pages only before it syncs.
//! 5. After a failure nothing is written or synced any more: what is on the disk is unknown. The index can't be trusted to
//!    see to that, since it does not mind if a write fails that it did for a read.
//!
//! Memory holds the log as it is on the disk, and where in it each block is: a block is copied there once, and not
//! allocated by itself.

use std::{
    collections::BTreeMap,
    io,
    ops::{Bound, Range},
    sync::{
        Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use redb::{BackendError, StorageBackend};

/// The unit of what is logged: the index's smallest page, and what disks write whole.
const BLOCK: usize = 4096;
/// How a record begins.
const MAGIC: &[u8; 8] = b"pandowal";
/// Before the numbers of the blocks: magic, hash of the record before, hash of this one, length of the file, count.
const HEADER: usize = 8 + 32 + 32 + 8 + 4;
/// Blocks of a record, at most: as many as its first block can name, 2 MiB.
const MOST: usize = (BLOCK - HEADER) / 8;
/// Most bytes written to the file at once.
const RUN: usize = 1 << 20;

/// Where in the log each of some blocks of the file is.
type Places = BTreeMap<u64, usize>;

/// A file whose syncs go to a log.
#[derive(Debug)]
pub(crate) struct Logged<B> {
    file: B,
    log: B,
    /// Bytes of records that the log may hold.
    limit: usize,
    state: RwLock<State>,
    /// Held by who writes or syncs, from the beginning to the end. Whoever holds it waits for nothing but the disk.
    changing: Mutex<()>,
    failed: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// The log as it is on the disk, and after its end the record that is being made: room for its first block, then
    /// blocks.
    image: Vec<u8>,
    /// Where the next record starts.
    end: usize,
    /// The hash of the record before it.
    before: [u8; 32],
    /// Blocks that are newer than the file, and synced in the log.
    logged: Places,
    /// Blocks of the record that is being made.
    pending: Places,
    /// What is written goes to the file until it is synced: see 4 above.
    is_direct: bool,
}

impl State {
    /// The newest of a block, if it is newer than the file.
    fn get(&self, number: u64) -> Option<&[u8]> {
        let place = *self.pending.get(&number).or_else(|| self.logged.get(&number))?;
        Some(&self.image[place..place + BLOCK])
    }

    /// Puts a block into the record that is being made. There is room.
    fn put(&mut self, number: u64, block: &[u8; BLOCK]) {
        match self.pending.get(&number) {
            Some(place) => self.image[*place..place + BLOCK].copy_from_slice(block),
            None => {
                if self.pending.is_empty() {
                    self.image.truncate(self.end);
                    self.image.resize(self.end + BLOCK, 0);
                }
                self.pending.insert(number, self.image.len());
                self.image.extend_from_slice(block);
            }
        }
    }

    /// Whether the record that is being made can take so many blocks more.
    fn has_room(&self, blocks: usize, limit: usize) -> bool {
        self.pending.len() + blocks <= MOST && self.end + (1 + self.pending.len() + blocks) * BLOCK <= limit
    }

    /// Finishes the record: where it is in the log.
    fn finish(&mut self, len: u64) -> Range<usize> {
        let start = self.end;
        if self.pending.is_empty() {
            self.image.truncate(start);
            self.image.resize(start + BLOCK, 0);
        }
        assert!(self.pending.len() <= MOST, "there was room for each");
        // In the order of their places in the record.
        let mut numbers: Vec<(usize, u64)> =
            self.pending.iter().map(|(number, place)| (*place, *number)).collect();
        numbers.sort_unstable();
        let head = &mut self.image[start..start + BLOCK];
        head.fill(0);
        head[..8].copy_from_slice(MAGIC);
        head[8..40].copy_from_slice(&self.before);
        head[72..80].copy_from_slice(&len.to_le_bytes());
        head[80..84].copy_from_slice(&(numbers.len() as u32).to_le_bytes());
        for (slot, (_, number)) in head[HEADER..].chunks_exact_mut(8).zip(&numbers) {
            slot.copy_from_slice(&number.to_le_bytes());
        }
        let range = start..self.image.len();
        let hash = hash(&self.image[range.clone()]);
        self.image[start + 40..start + 72].copy_from_slice(&hash);
        range
    }

    /// The record in a range of the log, the last one, is durable.
    fn logged(&mut self, record: Range<usize>) {
        self.before.copy_from_slice(&self.image[record.start + 40..record.start + 72]);
        self.end = record.end;
        let pending = std::mem::take(&mut self.pending);
        self.logged.extend(pending);
    }

    /// Begins the log anew, with the record that is being made.
    fn restart(&mut self) {
        let end = std::mem::take(&mut self.end);
        self.image.drain(..end);
        for place in self.pending.values_mut() {
            *place -= end;
        }
        self.logged.clear();
    }
}

/// The hash of a record, of all but the place where it stands.
fn hash(record: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(&record[..40]).update(&record[72..]).finalize().as_bytes()
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl<B: StorageBackend> Logged<B> {
    /// Opens a file and its log, and replays what the log has.
    pub(crate) fn open(file: B, log: B, limit: usize) -> io::Result<Self> {
        let state = State { image: Vec::with_capacity(limit), ..State::default() };
        let logged = Self {
            file,
            log,
            limit,
            state: RwLock::new(state),
            changing: Mutex::default(),
            failed: AtomicBool::new(false),
        };
        if logged.replay()? {
            logged.checkpoint()?;
        }
        Ok(logged)
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something, alone; nothing after a failure.
    fn change<T>(&self, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.failed.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier write to the index failed"));
        }
        let changed = change();
        if changed.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        changed
    }

    /// Takes the records of the log in; whether there are any. Each was durable, or is whole by luck.
    fn replay(&self) -> io::Result<bool> {
        let log_len = self.log.len()?;
        let mut state = self.state_mut();
        while let Some(record) = self.record_at(&state, log_len)? {
            let count = (record.len() - BLOCK) / BLOCK;
            let start = state.end;
            for place in 0..count {
                let block = number(&record, HEADER + 8 * place);
                state.logged.insert(block, start + (1 + place) * BLOCK);
            }
            let len = number(&record, 72);
            if self.file.len()? != len {
                self.file.set_len(len)?;
            }
            state.image.extend_from_slice(&record);
            state.logged(start..start + record.len());
        }
        Ok(state.end > 0)
    }

    /// The record at the end of what is known of the log, if there is a whole one that continues it.
    fn record_at(&self, state: &State, log_len: u64) -> io::Result<Option<Vec<u8>>> {
        let at = state.end as u64;
        if at + BLOCK as u64 > log_len {
            return Ok(None);
        }
        let mut record = vec![0; BLOCK];
        self.log.read(at, &mut record)?;
        // The first continues what is forgotten.
        let continues = at == 0 || record[8..40] == state.before;
        let count = u32::from_le_bytes(record[80..84].try_into().expect("four bytes")) as usize;
        if record[..8] != MAGIC[..] || !continues || count > MOST {
            return Ok(None);
        }
        let len = (1 + count) * BLOCK;
        if at + len as u64 > log_len {
            return Ok(None);
        }
        record.resize(len, 0);
        self.log.read(at + BLOCK as u64, &mut record[BLOCK..])?;
        Ok((record[40..72] == hash(&record)).then_some(record))
    }

    /// Makes the file what it is with the log, durably, and empties the log. What is pending stays so.
    fn checkpoint(&self) -> io::Result<()> {
        let state = self.state();
        if state.end == 0 {
            return Ok(());
        }
        self.write_out(&state, &state.logged)?;
        // Readers may go on: for them nothing changes until the end.
        drop(state);
        self.file.sync_data()?;
        // The chain goes on in what comes after this, so that what is left of this round never continues the next.
        self.log.write(0, &[0; BLOCK])?;
        self.log.sync_data()?;
        self.state_mut().restart();
        Ok(())
    }

    /// Writes blocks to the file, what is side by side at once.
    fn write_out(&self, state: &State, blocks: &Places) -> io::Result<()> {
        let len = self.file.len()?;
        let (mut run, mut start, mut next) = (Vec::new(), 0, 0);
        for (number, place) in blocks {
            if *number != next || run.len() >= RUN {
                self.write_run(start, &run, len)?;
                run.clear();
                start = *number;
            }
            run.extend_from_slice(&state.image[*place..place + BLOCK]);
            next = number + 1;
        }
        self.write_run(start, &run, len)
    }

    fn write_run(&self, first: u64, run: &[u8], len: u64) -> io::Result<()> {
        let at = first * BLOCK as u64;
        // The file may end within its last block.
        let run = &run[..run.len().min(len.saturating_sub(at) as usize)];
        if run.is_empty() { Ok(()) } else { self.file.write(at, run) }
    }

    /// What does not fit in a record goes to the file.
    fn go_direct(&self) -> io::Result<()> {
        self.checkpoint()?;
        let mut state = self.state_mut();
        self.write_out(&state, &state.pending)?;
        state.pending.clear();
        state.is_direct = true;
        Ok(())
    }

    fn set_len_alone(&self, len: u64) -> io::Result<()> {
        if len < self.file.len()? {
            self.checkpoint()?;
            let blocks = len.div_ceil(BLOCK as u64);
            let within = (len % BLOCK as u64) as usize;
            let mut state = self.state_mut();
            let State { image, pending, .. } = &mut *state;
            for (number, place) in &*pending {
                // What is beyond the end is zero if the file grows again. The block stays in the record.
                if *number >= blocks {
                    image[*place..place + BLOCK].fill(0);
                } else if within > 0 && *number == blocks - 1 {
                    image[place + within..place + BLOCK].fill(0);
                }
            }
        }
        self.file.set_len(len)
    }

    fn sync_alone(&self) -> io::Result<()> {
        if std::mem::take(&mut self.state_mut().is_direct) {
            return self.file.sync_data();
        }
        if !self.state().has_room(0, self.limit) {
            self.checkpoint()?;
        }
        let record = self.state_mut().finish(self.file.len()?);
        let state = self.state();
        self.log.write(record.start as u64, &state.image[record.clone()])?;
        drop(state);
        self.log.sync_data()?;
        self.state_mut().logged(record);
        Ok(())
    }

    fn write_alone(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        for (number, within, range) in parts(offset, data.len()) {
            if !self.state().has_room(1, self.limit) {
                self.checkpoint()?;
                if !self.state().has_room(1, self.limit) {
                    self.go_direct()?;
                }
            }
            let mut state = self.state_mut();
            if state.is_direct {
                return self.file.write(offset + range.start as u64, &data[range.start..]);
            }
            match <&[u8; BLOCK]>::try_from(&data[range.clone()]) {
                Ok(whole) => state.put(number, whole),
                Err(_) => {
                    let mut block = self.base(&state, number)?;
                    block[within..within + range.len()].copy_from_slice(&data[range]);
                    state.put(number, &block);
                }
            }
        }
        Ok(())
    }

    /// A block before a part of it is written.
    fn base(&self, state: &State, number: u64) -> io::Result<[u8; BLOCK]> {
        let (mut base, at) = ([0; BLOCK], number * BLOCK as u64);
        match state.get(number) {
            Some(block) => base.copy_from_slice(block),
            None => {
                let there = self.file.len()?.saturating_sub(at).min(BLOCK as u64) as usize;
                if there > 0 {
                    self.file.read(at, &mut base[..there])?;
                }
            }
        }
        Ok(base)
    }
}

/// The parts of a range of bytes, block by block: the block's number, where in it the part starts, and where in the range.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % BLOCK as u64) as usize;
        let range = done..len.min(done + BLOCK - within);
        done = range.end;
        Some((at / BLOCK as u64, within, range))
    })
}

impl<B: StorageBackend> StorageBackend for Logged<B> {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        // Held to the end: a checkpoint takes blocks away only when nobody reads.
        let state = self.state();
        let whole = parts(offset, out.len()).all(|(number, ..)| state.get(number).is_some());
        if !whole {
            self.file.read(offset, out)?;
        }
        for (number, within, range) in parts(offset, out.len()) {
            if let Some(block) = state.get(number) {
                let to = within + range.len();
                out[range].copy_from_slice(&block[within..to]);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|| self.set_len_alone(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(|| self.sync_alone())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(|| self.write_alone(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        // What is pending was not synced, and need not be; the log goes on being there, empty.
        let emptied = self.change(|| self.checkpoint());
        let closed = self.log.close().and(self.file.close());
        emptied.and(closed)
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
#[path = "tests/wal.rs"]
mod tests;
