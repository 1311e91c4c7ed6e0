//! What can go wrong with an operation, in variants that a caller can act on. The texts are for people:
//! what, why, and what to do.

use crate::api::VersionId;
use pando_core::{
    id::{ChunkId, WriteId},
    name::NameError,
    record::RecordError,
    wire::WireError,
};

/// Why an operation of a node failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such object.
    #[error("there is no object {bucket}/{key}{}", describe_marker(.marker))]
    NotFound {
        /// Its bucket.
        bucket: String,
        /// Its key.
        key: String,
        /// The delete marker that is current, or that was asked for.
        marker: Option<VersionId>,
    },
    /// No such version.
    #[error("there is no version {version} of {bucket}/{key}")]
    NoSuchVersion {
        /// Its bucket.
        bucket: String,
        /// Its key.
        key: String,
        /// Its id.
        version: VersionId,
    },
    /// No such bucket.
    #[error("there is no bucket {0:?}: create it with `pando bucket create {0}`")]
    NoSuchBucket(String),
    /// The bucket is there already.
    #[error("bucket {0:?} exists already")]
    BucketExists(String),
    /// The bucket holds objects.
    #[error("bucket {0:?} is not empty: remove its objects first, all versions and delete markers included")]
    BucketNotEmpty(String),
    /// No such access key.
    #[error("there is no access key {0:?}: `pando key ls` lists them")]
    NoSuchKey(String),
    /// No such upload.
    #[error("there is no upload {0}: it was completed, aborted or forgotten, or never began")]
    NoSuchUpload(WriteId),
    /// An upload has no such part, or another one of this number.
    #[error("part {0} was not put, or another one under its number since")]
    NoSuchPart(u16),
    /// The parts are not in order.
    #[error("parts are completed in ascending order, each once")]
    PartOrder,
    /// A condition of the write does not hold. Nothing was changed.
    #[error("precondition failed: {}", describe_current(.current))]
    Precondition {
        /// The ETag of what is there now.
        current: Option<WriteId>,
    },
    /// Too few owners answered. Nothing was acknowledged.
    #[error(
        "not enough nodes: {what} needs {needed} of its {owners} owners, {reachable} answered; start the others or wait for them ({missing})"
    )]
    NotEnoughNodes {
        /// What was attempted.
        what: String,
        /// How many are enough.
        needed: usize,
        /// Of how many.
        owners: usize,
        /// How many answered.
        reachable: usize,
        /// Who did not, and why.
        missing: String,
    },
    /// The owners have no room.
    #[error("no space left: {0}; free some, or raise --capacity on a node")]
    NoSpace(String),
    /// No good copy of a chunk could be had. Nothing wrong was delivered.
    #[error("chunk {chunk} can't be had: {why}")]
    ChunkUnavailable {
        /// Which.
        chunk: ChunkId,
        /// What each source answered.
        why: String,
    },
    /// The write may or may not have taken effect.
    #[error("the outcome is unknown: {0}; look with `pando stat` before you repeat it")]
    Unknown(String),
    /// It took too long.
    #[error("{0} took longer than its deadline")]
    Timeout(String),
    /// Too much at once.
    #[error("busy: {0}; try again in a moment")]
    Busy(String),
    /// The range asked for lies outside the object.
    #[error("range {start}-{end} lies outside an object of {size} bytes")]
    Range {
        /// First byte wanted.
        start: u64,
        /// Last byte wanted.
        end: u64,
        /// What there is.
        size: u64,
    },
    /// A name that can't be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A record that can't be written or read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The bytes to put could not be read to their end. Nothing was changed.
    #[error("reading the data to put failed: {0}")]
    Source(#[source] std::io::Error),
    /// Joining was refused.
    #[error("join refused: {0}")]
    JoinRefused(String),
    /// It is not known whether joining took effect: the network could not decide in time, and may decide yet.
    #[error(
        "joining is undecided: {0}; start this node again with the same ticket and data folder, it may be a member already"
    )]
    JoinUndecided(String),
    /// A change of the membership was refused.
    #[error("{0}")]
    Membership(String),
    /// The node can't start like this.
    #[error("{0}")]
    Setup(String),
    /// This node's disk or index failed.
    #[error("this node's store failed: {0}")]
    Store(#[from] pando_store::Error),
    /// The transport failed where no other node could help.
    #[error("network: {0}")]
    Net(#[from] pando_net::Error),
    /// A peer said something that makes no sense.
    #[error("a peer answered nonsense: {0}")]
    Wire(#[from] WireError),
    /// The node is stopping.
    #[error("this node is stopping")]
    Stopping,
}

/// Why a change was declined.
#[derive(Debug)]
pub(crate) enum Why<R> {
    /// Something failed.
    Error(Error),
    /// For a reason that whoever made it acts on.
    Refused(R),
}

impl<R> From<Error> for Why<R> {
    fn from(error: Error) -> Self {
        Why::Error(error)
    }
}

impl<R> From<RecordError> for Why<R> {
    fn from(error: RecordError) -> Self {
        Why::Error(error.into())
    }
}

fn describe_marker(marker: &Option<VersionId>) -> String {
    marker.map_or_else(String::new, |marker| format!(": it was removed, by the delete marker {marker}"))
}

fn describe_current(current: &Option<WriteId>) -> String {
    match current {
        Some(etag) => format!("the object's ETag is {etag}"),
        None => "the object does not exist".to_owned(),
    }
}
