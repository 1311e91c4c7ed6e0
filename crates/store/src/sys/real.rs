//! Files and threads of the operating system.

pub(crate) use std::{
    fs::{DirBuilder, File, OpenOptions, read_dir, remove_file, rename},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
};
use std::{
    io,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use redb::backends::FileBackend;
use rustix::fs::FallocateFlags;

use super::from_join;
use crate::error::Error;

/// Memory for pages of the index. Small beside the process, large enough for the upper levels of every
/// table and the registers in use.
pub(crate) const CACHE: usize = 32 << 20;

/// Bytes of the index's log: some hundred groups of changes, and so much memory at the most; replayed in a moment.
pub(crate) const LOG: usize = 8 << 20;

/// Runs `work` where it may block. A panic in it becomes [`Error::Failed`]; a runtime that shuts down
/// becomes [`Error::Closed`].
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(from_join)
}

/// A piece of work in place that took longer than this had to wait for a disk (or for a processor).
const LONG: Duration = Duration::from_millis(2);
/// After one that took long, the others go where they may block for so long: on a disk that is slow or busy each
/// would stop a thread that serves everything else.
const AWAY: Duration = Duration::from_millis(200);

/// Runs what touches a few pages of the index. These are nearly always in memory, and a thread that may block would
/// take longer to wake up than to look: so it is done in place, until it turns out to take long (because of a slow
/// disk, or because the index's file grows, which nothing else may look at meanwhile).
#[derive(Debug)]
pub(crate) struct Brief {
    since: Instant,
    /// Microseconds after `since`.
    away_until: AtomicU64,
}

impl Default for Brief {
    fn default() -> Self {
        Self { since: Instant::now(), away_until: AtomicU64::new(0) }
    }
}

impl Brief {
    /// As [`blocking`], but that a panic in it is the caller's.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let micros = |time: Duration| time.as_micros() as u64;
        let began = self.since.elapsed();
        if micros(began) < self.away_until.load(Ordering::Relaxed) {
            return blocking(work).await;
        }
        let done = work();
        let ended = self.since.elapsed();
        if ended.saturating_sub(began) > LONG {
            self.away_until.store(micros(ended + AWAY), Ordering::Relaxed);
        }
        Ok(done)
    }
}

/// The index database over its file.
pub(crate) fn backend(file: File) -> Result<FileBackend, Error> {
    Ok(FileBackend::new(file)?)
}

/// Whether there is anything at `path`.
pub(crate) fn exists(path: &Path) -> io::Result<bool> {
    path.try_exists()
}

/// Reserves `len` bytes for `file`, where the file system can.
pub(crate) fn reserve(file: &File, len: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => Ok(()),
        other => Ok(other?),
    }
}

/// Bytes that this process may still write to the file system of `path`.
pub(crate) fn disk_free(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
