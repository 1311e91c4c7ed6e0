//! A write-ahead log under the index's file.
//!
//! A commit of the index changes pages all over its file, and each is a request of its own to the disk: that, more than
//! the sync, is what a small commit costs. So what a sync has to make durable is written in one piece to the end of a
//! log, and the log is synced. When the log is full, the pages go to the file (a *checkpoint*): each once, however often
//! it was written, in the order of their places.
//!
//! Owns the log's format and the order of writes and syncs. Knows nothing of the index: it is a [`StorageBackend`] over
//! two others. One thread writes; any number may read.
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
//! 4. A transaction too large for the log goes to the file directly, after a checkpoint, as it would without a log: the
//!    index writes to unused pages only before it syncs.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use redb::StorageBackend;

/// The unit of what is logged: the index's smallest page, and what disks write whole.
const BLOCK: usize = 4096;
/// How a record begins.
const MAGIC: &[u8; 8] = b"pandowal";
/// Before the numbers of the blocks: magic, hash of the record before, hash of this one, length of the file, count.
const HEADER: usize = 8 + 32 + 32 + 8 + 4;
/// Most bytes written to the file at once.
const RUN: usize = 1 << 20;

type Block = Arc<[u8; BLOCK]>;
type Blocks = BTreeMap<u64, Block>;

/// A file whose syncs go to a log.
#[derive(Debug)]
pub(crate) struct Logged<B> {
    file: B,
    log: B,
    /// Bytes of records that the log may hold; and about as many of blocks that memory may.
    limit: u64,
    blocks: RwLock<Newer>,
    end: Mutex<End>,
    /// What is being written goes to the file: see 4 above.
    is_direct: AtomicBool,
}

/// Blocks that are newer than the file.
#[derive(Debug, Default)]
struct Newer {
    /// Synced in the log.
    logged: Blocks,
    /// Not synced.
    pending: Blocks,
}

impl Newer {
    fn get(&self, number: u64) -> Option<&Block> {
        self.pending.get(&number).or_else(|| self.logged.get(&number))
    }
}

/// Where the next record goes, and what it continues.
#[derive(Debug, Default)]
struct End {
    at: u64,
    hash: [u8; 32],
}

/// One record, as it stands in the log.
struct Record {
    bytes: Vec<u8>,
    hash: [u8; 32],
}

impl Record {
    fn new(before: &[u8; 32], len: u64, blocks: &Blocks) -> Self {
        let head = head_len(blocks.len());
        let mut bytes = Vec::with_capacity(head + blocks.len() * BLOCK);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(before);
        bytes.extend_from_slice(&[0; 32]);
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&(blocks.len() as u32).to_le_bytes());
        for number in blocks.keys() {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.resize(head, 0);
        for block in blocks.values() {
            bytes.extend_from_slice(&block[..]);
        }
        let hash = hash(&bytes);
        bytes[40..72].copy_from_slice(&hash);
        Self { bytes, hash }
    }
}

/// Bytes of a record before its blocks.
fn head_len(blocks: usize) -> usize {
    (HEADER + blocks * 8).next_multiple_of(BLOCK)
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
    pub(crate) fn open(file: B, log: B, limit: u64) -> io::Result<Self> {
        let logged = Self {
            file,
            log,
            limit,
            blocks: RwLock::default(),
            end: Mutex::default(),
            is_direct: AtomicBool::new(false),
        };
        if logged.replay()? {
            logged.checkpoint()?;
        }
        Ok(logged)
    }

    fn newer(&self) -> RwLockReadGuard<'_, Newer> {
        self.blocks.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn newer_mut(&self) -> RwLockWriteGuard<'_, Newer> {
        self.blocks.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) -> MutexGuard<'_, End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the records of the log in; whether there are any. Each was durable, or is whole by luck.
    fn replay(&self) -> io::Result<bool> {
        let log_len = self.log.len()?;
        let mut end = self.end();
        let mut newer = self.newer_mut();
        while let Some(record) = self.record_at(end.at, log_len, (end.at > 0).then_some(&end.hash))? {
            let (bytes, hash) = (record.bytes, record.hash);
            let len = number(&bytes, 72);
            let count = u32::from_le_bytes(bytes[80..84].try_into().expect("four bytes")) as usize;
            for (place, block) in bytes[head_len(count)..].chunks_exact(BLOCK).enumerate() {
                let block: [u8; BLOCK] = block.try_into().expect("a whole block");
                newer.logged.insert(number(&bytes, HEADER + 8 * place), Arc::new(block));
            }
            if self.file.len()? != len {
                self.file.set_len(len)?;
            }
            *end = End { at: end.at + bytes.len() as u64, hash };
        }
        // What a later record cut off.
        let blocks = self.file.len()?.div_ceil(BLOCK as u64);
        newer.logged.retain(|number, _| *number < blocks);
        Ok(end.at > 0)
    }

    /// The record at a place in the log, if there is a whole one that continues `before` (anything, for the first).
    fn record_at(&self, at: u64, log_len: u64, before: Option<&[u8; 32]>) -> io::Result<Option<Record>> {
        let mut bytes = vec![0; BLOCK];
        if at + BLOCK as u64 > log_len {
            return Ok(None);
        }
        self.log.read(at, &mut bytes)?;
        let continues = before.is_none_or(|before| bytes[8..40] == before[..]);
        let count = u32::from_le_bytes(bytes[80..84].try_into().expect("four bytes")) as usize;
        // No block comes without its own room in the log: a wrong count claims no memory.
        let fits = count as u64 <= (log_len - at) / BLOCK as u64;
        if bytes[..8] != MAGIC[..] || !continues || !fits {
            return Ok(None);
        }
        let len = head_len(count) + count * BLOCK;
        if at + len as u64 > log_len {
            return Ok(None);
        }
        bytes.resize(len, 0);
        self.log.read(at + BLOCK as u64, &mut bytes[BLOCK..])?;
        let hash = hash(&bytes);
        Ok((bytes[40..72] == hash).then_some(Record { bytes, hash }))
    }

    /// Makes the file what it is with the log, durably, and empties the log. What is pending stays so.
    fn checkpoint(&self) -> io::Result<()> {
        let mut end = self.end();
        if end.at == 0 {
            return Ok(());
        }
        let logged = self.newer().logged.clone();
        self.write_out(&logged)?;
        self.file.sync_data()?;
        self.log.write(0, &[0; BLOCK])?;
        self.log.sync_data()?;
        // The chain goes on, so that what is left of this round never continues the next.
        end.at = 0;
        // Not before: until here a reader takes these for the file's.
        self.newer_mut().logged.clear();
        Ok(())
    }

    /// Writes blocks to the file, what is side by side at once.
    fn write_out(&self, blocks: &Blocks) -> io::Result<()> {
        let len = self.file.len()?;
        let (mut run, mut start, mut next) = (Vec::new(), 0, 0);
        for (number, block) in blocks {
            if *number != next || run.len() >= RUN {
                self.write_run(start, &run, len)?;
                run.clear();
                start = *number;
            }
            run.extend_from_slice(&block[..]);
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

    /// What does not fit in the log goes to the file.
    fn go_direct(&self) -> io::Result<()> {
        self.checkpoint()?;
        let pending = self.newer().pending.clone();
        self.write_out(&pending)?;
        self.newer_mut().pending.clear();
        self.is_direct.store(true, Ordering::Release);
        Ok(())
    }

    /// The bytes of a block before a part of it is written.
    fn base(&self, newer: &Newer, number: u64) -> io::Result<[u8; BLOCK]> {
        if let Some(block) = newer.get(number) {
            return Ok(**block);
        }
        let (mut base, at) = ([0; BLOCK], number * BLOCK as u64);
        let there = self.file.len()?.saturating_sub(at).min(BLOCK as u64) as usize;
        if there > 0 {
            self.file.read(at, &mut base[..there])?;
        }
        Ok(base)
    }
}

/// The parts of a range of bytes, block by block: the block's number, where in it the part starts, and where in the range.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
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
        let newer = self.newer();
        let whole = parts(offset, out.len()).all(|(number, ..)| newer.get(number).is_some());
        if !whole {
            self.file.read(offset, out)?;
        }
        for (number, within, range) in parts(offset, out.len()) {
            if let Some(block) = newer.get(number) {
                let to = within + range.len();
                out[range].copy_from_slice(&block[within..to]);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if len < self.file.len()? {
            self.checkpoint()?;
            let blocks = len.div_ceil(BLOCK as u64);
            let mut newer = self.newer_mut();
            newer.pending.retain(|number, _| *number < blocks);
            // What is beyond the end is zero if the file grows again.
            let within = (len % BLOCK as u64) as usize;
            if within > 0
                && let Some(last) = newer.pending.get_mut(&(blocks - 1))
            {
                Arc::make_mut(last)[within..].fill(0);
            }
        }
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.is_direct.swap(false, Ordering::AcqRel) {
            return self.file.sync_data();
        }
        let len = self.file.len()?;
        let before = self.end().hash;
        let record = Record::new(&before, len, &self.newer().pending);
        let size = record.bytes.len() as u64;
        if self.end().at + size > self.limit {
            self.checkpoint()?;
        }
        let mut end = self.end();
        self.log.write(end.at, &record.bytes)?;
        self.log.sync_data()?;
        *end = End { at: end.at + size, hash: record.hash };
        let mut newer = self.newer_mut();
        let pending = std::mem::take(&mut newer.pending);
        newer.logged.extend(pending);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.is_direct.load(Ordering::Acquire) {
            return self.file.write(offset, data);
        }
        let mut newer = self.newer_mut();
        for (number, within, range) in parts(offset, data.len()) {
            let block = match <[u8; BLOCK]>::try_from(&data[range.clone()]) {
                Ok(whole) => whole,
                Err(_) => {
                    let mut block = self.base(&newer, number)?;
                    block[within..within + range.len()].copy_from_slice(&data[range]);
                    block
                }
            };
            newer.pending.insert(number, Arc::new(block));
        }
        let is_much = (newer.pending.len() * BLOCK) as u64 > self.limit / 2;
        drop(newer);
        if is_much { self.go_direct() } else { Ok(()) }
    }

    fn close(&self) -> io::Result<()> {
        // What is pending was not synced, and need not be; the log goes on being there, empty.
        self.checkpoint()?;
        self.log.close()?;
        self.file.close()
    }
}

#[cfg(test)]
#[path = "tests/wal.rs"]
mod tests;
