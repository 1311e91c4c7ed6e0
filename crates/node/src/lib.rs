//! A Pando node: put, get, list, remove, join, heal.
//!
//! [`Node`] is a cheap handle to a running node; whatever face it wears (command line, HTTP) is built on
//! this. The same operation has the same file name on each floor: `put.rs` here calls `keep.rs`, which talks
//! to the peer's `serve.rs`, which calls the store.

mod access;
mod api;
mod bucket;
mod buffers;
mod check;
mod collect;
mod commit;
mod content;
mod copy;
mod cover;
mod error;
mod evacuate;
mod fetch;
mod files;
mod get;
mod heal;
mod holders;
mod inner;
mod join;
mod keep;
mod lifecycle;
mod list;
mod list_versions;
mod members;
mod multipart;
mod pace;
mod parts;
mod peers;
mod pulse;
mod purge;
mod put;
mod reconcile;
mod register;
mod remove;
mod replace;
mod scrub;
mod serve;
mod shared_reads;
mod start;
mod status;
mod stray;
mod sync;
mod sys;
mod tag;
mod version;

pub use api::{
    AccessKey, BucketInfo, ByteRange, CheckProblem, CheckProgress, CheckReport, Condition, Config,
    Consistency, CopyOptions, DEFAULT_DEAD_AFTER, DEFAULT_GRACE, Ended, Healing, KeyInfo, ListPage,
    ListQuery, NewPart, NodeStatus, ObjectCount, ObjectInfo, ObjectParts, PartInfo, PartPage, Plan,
    PlanQuery, PlannedMember, PutOptions, Removed, Scrub, Status, Stored, UploadInfo, UploadOptions,
    UploadPage, VersionEntry, VersionId, VersionMark, VersionPage, VersionsQuery, WantedPart,
};
pub use error::Error;
pub use get::Object;
pub use pando_core as core;
pub use pando_store::Error as StoreError;
pub use start::{DEFAULT_PORT, FIRST_BUCKET, Node, Started};

/// The simulator's clocks and disks.
#[cfg(feature = "sim")]
pub mod simulated {
    pub use pando_core::simulated::{next, seed, set_mutant};
    pub use pando_store::simulated::{Disk, Faults};

    pub use crate::sys::simulated::{reset_clocks, set_clock};
}
