//! What can go wrong on one node's disk, in the variants that a caller can act on.

use std::{io, path::PathBuf};

/// Why an operation on the store did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process uses the folder.
    #[error("{} is in use by another process; stop it, or choose another data folder", dir.display())]
    Locked {
        /// The data folder.
        dir: PathBuf,
    },
    /// The store was closed, or the runtime is shutting down.
    #[error("the store is closed")]
    Closed,
    /// No room for what should be stored. Nothing was changed.
    #[error("no space: {needed} bytes needed, {free} free")]
    NoSpace {
        /// Bytes wanted.
        needed: u64,
        /// Bytes left, of the capacity or of the disk, whichever is less.
        free: u64,
    },
    /// Bytes that are not what they must be: on the disk, or handed in to be stored.
    #[error("{what} is corrupt: expected {expected}, found {found}")]
    Corrupt {
        /// Which row, file or body.
        what: String,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The store stopped acknowledging: a sync or commit failed, so what is on the disk is unknown until
    /// it is opened again.
    #[error("the store failed and must be reopened: {why}")]
    Failed {
        /// The first failure.
        why: String,
    },
    /// Asked of a partition whose old registers are being cleared away, after a layout change: in a moment.
    #[error("registers are being cleared away after a layout change")]
    Settling,
    /// A file operation failed; it concerns that file only.
    #[error("could not {what}")]
    Io {
        /// What was attempted.
        what: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The index database failed.
    #[error("the index failed")]
    Index(#[source] Box<redb::Error>),
    /// The folder was written by a version of this software that this one does not know.
    #[error("the data folder has format {found}; this version reads format {known}")]
    Format {
        /// The format found.
        found: u32,
        /// The format known.
        known: u32,
    },
    /// More was asked for than one call may.
    #[error("{what}: {got} given, at most {limit} allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: usize,
        /// What was given.
        got: usize,
    },
    /// An argument that no honest peer sends.
    #[error("malformed: {what}")]
    Malformed {
        /// Which.
        what: &'static str,
    },
}

impl Error {
    /// An [`Error::Io`], or [`Error::NoSpace`] where the system says that the disk is full.
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::NoSpace { needed: 0, free: 0 }
            }
            _ => Error::Io { what: what.into(), source },
        }
    }
}

macro_rules! from_redb {
    ($($kind:ident),*) => {
        $(impl From<redb::$kind> for Error {
            fn from(error: redb::$kind) -> Self {
                Error::Index(Box::new(error.into()))
            }
        })*
    };
}

from_redb!(StorageError, TableError, DatabaseError, TransactionError, CommitError, SetDurabilityError);
