//! The one seam to the operating system's files and threads.
//!
//! Everything in this crate that blocks goes through [`blocking`], and files through the names exported
//! here, so that a simulator can run the former in place and put its own in place of the latter.

pub(crate) use std::{
    fs::{DirBuilder, File, OpenOptions, read_dir, remove_file, rename},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
};
use std::{io, path::Path};

use rustix::fs::FallocateFlags;

use crate::error::Error;

/// Runs `work` where it may block. A panic in it becomes [`Error::Failed`]; a runtime that shuts down
/// becomes [`Error::Closed`].
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(from_join)
}

/// Runs `work` to its end, even if the caller stops waiting for it.
pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    tokio::spawn(work).await.map_err(from_join)?
}

fn from_join(error: tokio::task::JoinError) -> Error {
    if error.is_panic() { Error::Failed { why: format!("a task panicked: {error}") } } else { Error::Closed }
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
