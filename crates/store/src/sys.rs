//! The one seam to the operating system's files and threads.
//!
//! Everything in this crate that blocks goes through [`blocking`], and files through the names exported
//! here, so that a simulator can run the former in place and put its own in place of the latter.

#[cfg(not(feature = "sim"))]
mod real;
#[cfg(feature = "sim")]
pub mod simulated;

#[cfg(not(feature = "sim"))]
pub(crate) use real::{
    Brief, CACHE, DirBuilder, DirBuilderExt, File, FileExt, LOG, OpenOptions, OpenOptionsExt, backend,
    blocking, disk_free, exists, read_dir, remove_file, rename, reserve,
};
#[cfg(feature = "sim")]
pub(crate) use simulated::{
    Brief, CACHE, DirBuilder, DirBuilderExt, File, FileExt, LOG, OpenOptions, OpenOptionsExt, backend,
    blocking, disk_free, exists, read_dir, remove_file, rename, reserve,
};

use crate::error::Error;

/// Runs `work` to its end, even if the caller stops waiting for it.
pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    tokio::spawn(work).await.map_err(from_join)?
}

pub(crate) fn from_join(error: tokio::task::JoinError) -> Error {
    if error.is_panic() { Error::Failed { why: format!("a task panicked: {error}") } } else { Error::Closed }
}
