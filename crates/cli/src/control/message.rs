//! What goes over the control socket: requests and replies. Ids and hashes travel as the text that
//! people see; conversions from the node's types are here and nowhere else.

use pando_core::{access::Grants, customer::is_reserved};
use pando_node::{BucketInfo, ByteRange, Condition, Consistency, ObjectInfo, PutOptions, Stored};
use serde::{Deserialize, Serialize};

use super::keys::Key;
use super::report::{Check, CheckProgress, Member, Plan, Problem, Status};
use super::share::Link;
use crate::{exit::Failure, units};

/// The first byte of a connection. A node answers another version with a refusal.
pub(super) const VERSION: u8 = 5;

/// What a command asks of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// A ticket that is good for so many milliseconds. → `Ticket`
    Invite { valid_ms: u64 },
    /// Content follows as data frames. → `Stored`, or `Failed` as soon as it is known
    Put(PutRequest),
    /// → `Content`, then data frames
    Get { bucket: String, key: String, range: Option<Range>, stale: bool },
    /// → `Object`
    Stat { bucket: String, key: String, stale: bool },
    /// → `Done`
    Remove { bucket: String, key: String },
    /// → `Page`
    List(ListRequest),
    /// → `Done`
    CreateBucket { name: String },
    /// → `Buckets`, as many as it takes
    ListBuckets { stale: bool },
    /// → `Done`
    RemoveBucket { name: String },
    /// → `Status`
    Status,
    /// Lets a node give up what it owns; a node is named by the start of its id. → `Member`
    Drain { node: String, force: bool },
    /// Lets a draining node stay. → `Member`
    Stay { node: String },
    /// Removes a node that is gone. → `Member`
    RemoveNode { node: String, force: bool, accept_loss: bool },
    /// What it would move if these nodes left, and nodes of this size and zone joined. → `Plan`
    Plan { without: Vec<String>, with: Vec<(u64, String)> },
    /// → `Progress` again and again, `Problems` as many as it takes, `Checked`; ends when the client goes
    Check { deep: bool },
    /// Verifies all chunks of this node; `Status` tells how far it is. → `Done`
    Scrub,
    /// Makes an access key. → `NewKey`
    CreateKey { name: String, grants: Grants },
    /// → `Keys`, as many as it takes
    ListKeys,
    /// → `Done`
    RemoveKey { id: String },
    /// A link to an object, for people who reach S3 at that address, or where the node serves it. → `Link`
    Share { bucket: String, key: String, valid_secs: u64, address: Option<String> },
}

/// What to put where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PutRequest {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) if_absent: bool,
    /// An ETag.
    pub(crate) if_match: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) meta: Vec<(String, String)>,
}

/// What to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListRequest {
    pub(crate) bucket: String,
    pub(crate) prefix: String,
    pub(crate) delimiter: Option<String>,
    pub(crate) after: Option<String>,
    pub(crate) stale: bool,
}

/// Which bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Range {
    /// Both included.
    Inclusive(u64, u64),
    /// To the end.
    From(u64),
    /// The last so many.
    Last(u64),
}

impl From<Range> for ByteRange {
    fn from(range: Range) -> Self {
        match range {
            Range::Inclusive(first, last) => ByteRange::Inclusive(first, last),
            Range::From(first) => ByteRange::From(first),
            Range::Last(count) => ByteRange::Last(count),
        }
    }
}

/// What the node answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// It did not work.
    Failed(Failure),
    Done,
    Ticket(String),
    Stored(Put),
    Object(Object),
    /// Bytes `start..end` of the object follow.
    Content {
        object: Object,
        start: u64,
        end: u64,
    },
    Page(Page),
    /// Some buckets; `more` if another such reply follows.
    Buckets {
        buckets: Vec<Bucket>,
        more: bool,
    },
    Status(Status),
    /// The node that was meant.
    Member(Member),
    Plan(Plan),
    /// How far a check is.
    Progress(CheckProgress),
    /// Some of what a check found.
    Problems(Vec<Problem>),
    /// A check's end.
    Checked(Check),
    /// An access key that was made, and its secret.
    NewKey {
        key: Key,
        secret: String,
    },
    /// Some access keys; `more` if another such reply follows.
    Keys {
        keys: Vec<Key>,
        more: bool,
    },
    Link(Link),
}

/// What was put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Put {
    pub(crate) size: u64,
    pub(crate) blake3: Option<String>,
    pub(crate) etag: String,
    pub(crate) copies: u64,
    pub(crate) wanted: u64,
}

/// An object, or a line of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Object {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) size: u64,
    pub(crate) blake3: Option<String>,
    pub(crate) etag: String,
    /// Unix milliseconds.
    pub(crate) modified: u64,
    pub(crate) content_type: Option<String>,
    pub(crate) meta: Vec<(String, String)>,
}

/// A page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Page {
    pub(crate) objects: Vec<Object>,
    pub(crate) prefixes: Vec<String>,
    pub(crate) next: Option<String>,
}

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bucket {
    pub(crate) name: String,
    /// Unix milliseconds.
    pub(crate) created: u64,
}

/// How sure the answer must be.
pub(super) fn consistency(stale: bool) -> Consistency {
    if stale { Consistency::Stale } else { Consistency::Linearizable }
}

impl PutRequest {
    /// The node's options for this put.
    pub(super) fn options(&self) -> Result<PutOptions, Failure> {
        let condition = match (&self.if_match, self.if_absent) {
            (Some(_), true) => return Err(Failure::usage("both --if-absent and --if-match can't hold")),
            (Some(etag), false) => Condition::Match(
                etag.parse().map_err(|_| Failure::usage(format!("{etag:?} is not an ETag")))?,
            ),
            (None, true) => Condition::Absent,
            (None, false) => Condition::None,
        };
        let meta = pando_core::record::UserMeta {
            content_type: self.content_type.clone(),
            entries: self.meta.clone(),
        };
        Ok(PutOptions { condition, meta, ..PutOptions::default() })
    }
}

impl From<Stored> for Put {
    fn from(stored: Stored) -> Self {
        Self {
            size: stored.size,
            blake3: stored.hash.map(|hash| units::hex(&hash)),
            etag: stored.etag.to_string(),
            copies: stored.copies as u64,
            wanted: stored.wanted as u64,
        }
    }
}

impl From<ObjectInfo> for Object {
    fn from(info: ObjectInfo) -> Self {
        Self {
            bucket: info.bucket,
            key: info.key,
            size: info.size,
            blake3: info.hash.map(|hash| units::hex(&hash)),
            etag: info.etag.to_string(),
            modified: info.modified,
            content_type: info.meta.content_type,
            meta: info.meta.entries.into_iter().filter(|(name, _)| !is_reserved(name)).collect(),
        }
    }
}

impl From<BucketInfo> for Bucket {
    fn from(info: BucketInfo) -> Self {
        Self { name: info.name, created: info.created }
    }
}

impl From<pando_node::ListPage> for Page {
    fn from(page: pando_node::ListPage) -> Self {
        Self {
            objects: page.objects.into_iter().map(Object::from).collect(),
            prefixes: page.prefixes,
            next: page.next,
        }
    }
}
