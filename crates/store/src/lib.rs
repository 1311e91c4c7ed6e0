//! One node's disk: chunk files and the index database.
//!
//! Owns a data folder: its lock, the index (registers, chunk references, queues), the chunk files, and
//! the order in which each becomes durable. Leaves to others: who may ask, which version is live, where
//! a chunk belongs, keys and identities. Formats are described in `FORMAT.md`.
//!
//! [`Store`] is a cheap handle. One writer task owns every change to the index and commits in groups;
//! reads use snapshots of what is committed; a chunk's file is touched only under that chunk's lock.
//! Under the index's file is a write-ahead log.

mod chunks;
mod error;
mod folder;
mod group;
mod index;
mod listed;
mod migrate;
mod owed;
mod pages;
mod path;
mod purge;
mod recover;
mod registers;
mod rows;
mod settings;
mod shared;
mod store;
mod sys;
mod versions;
mod wal;
mod writer;

#[cfg(test)]
mod tests;

pub use chunks::{ChunkReader, ChunkState};
pub use error::Error;
pub use listed::{NameRange, Shown};
pub use pages::Reference;
pub use purge::Purge;
pub use registers::{Accept, Learn, Paged, Prepare, ReadReply};
pub use rows::MAX_VALUE;
pub use settings::{MAX_LAYOUT, MAX_SETTING};
pub use store::{Options, Store};
pub use versions::{MAX_BATCH, Released};

/// The simulator's disks.
#[cfg(feature = "sim")]
pub use sys::simulated;
