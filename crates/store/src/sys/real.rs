//! Files and threads of the operating system.

pub(crate) use std::{
    fs::{DirBuilder, File, OpenOptions, read_dir, remove_file, rename},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
};
use std::{io, path::Path};

use redb::backends::FileBackend;
use rustix::fs::FallocateFlags;

use super::from_join;
use crate::error::Error;

/// Memory for pages of the index. Small beside the process, large enough for the upper levels of every
/// table and the registers in use.
pub(crate) const CACHE: usize = 32 << 20;

/// Runs `work` where it may block. A panic in it becomes [`Error::Failed`]; a runtime that shuts down
/// becomes [`Error::Closed`].
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(from_join)
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
