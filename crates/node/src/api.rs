//! The shapes that a node's operations take and give: options, answers, status.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use pando_core::{
    access::{Grants, Secret},
    customer::Lock,
    id::{ChunkId, NetworkId, NodeId, ParseIdError, WriteId},
    layout::{MemberState, Replicas},
    record::{Digests, Headers, UserMeta},
    ticket::Ticket,
};

/// How a node starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's data folder; made if it is not there.
    pub data: PathBuf,
    /// Where to listen; if not given, where it listened last time, or the default port, or any port.
    pub listen: Option<SocketAddr>,
    /// Where others reach it, if that is not where it listens.
    pub advertise: Option<SocketAddr>,
    /// Its zone; if not given, what it was, or "default".
    pub zone: Option<String>,
    /// Bytes that it offers; if not given, what it offered, or the free space of its disk.
    pub capacity: Option<u64>,
    /// Copies of everything; may be given only when the network is made.
    pub replicas: Option<Replicas>,
    /// A ticket to join with, if it is not a member yet.
    pub join: Option<Ticket>,
    /// How long chunks that no object needs are kept (dead uploads, removed and replaced objects).
    pub grace: Duration,
    /// How long a member must have been unreachable to be replaced by itself; `None`: never.
    pub dead_after: Option<Duration>,
    /// Most bytes a second that healing (copies, scrub) may move on this node; `None`: as fast as it goes.
    pub heal_rate: Option<u64>,
}

/// The default for [`Config::dead_after`]: longer than a restart or an update takes, short against the time
/// in which a second disk dies.
pub const DEFAULT_DEAD_AFTER: Duration = Duration::from_secs(3600);

/// The default for [`Config::grace`]: a day, so that an upload that is slow or was interrupted overnight
/// can go on without sending again what is there.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(24 * 3600);

/// Why a running node can't go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its disk failed; the reason.
    DiskFailed(String),
    /// It was drained, holds nothing any more and has left the network.
    Left,
    /// It was removed from the network.
    Removed,
}

/// What must hold for a write to take effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    #[default]
    None,
    /// There is no such object.
    Absent,
    /// There is such an object, whichever version.
    Exists,
    /// The object is this version.
    Match(WriteId),
    /// The object was put with this MD5, see [`Digests`].
    Md5([u8; 16]),
}

/// One of the versions of an object. Its text is `null`, or the id's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VersionId {
    /// The one that was put while its bucket did not keep versions.
    Null,
    /// The one with this id.
    Id(WriteId),
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VersionId::Null => f.write_str("null"),
            VersionId::Id(id) => id.fmt(f),
        }
    }
}

impl FromStr for VersionId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        match text {
            "null" => Ok(VersionId::Null),
            id => id.parse().map(VersionId::Id),
        }
    }
}

/// A version at which a page of versions ends. Its text is the version's, and, after a dot, its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionMark {
    /// Which version of the key.
    pub version: VersionId,
    /// Its place among them (see [`pando_core::mark::Mark`]), if it is known: by that the next page goes on below it,
    /// also if it is gone by then.
    pub place: Option<u64>,
}

impl From<VersionId> for VersionMark {
    fn from(version: VersionId) -> Self {
        Self { version, place: None }
    }
}

impl fmt::Display for VersionMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.version.fmt(f)?;
        self.place.map_or(Ok(()), |place| write!(f, ".{place}"))
    }
}

impl FromStr for VersionMark {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        match text.split_once('.').and_then(|(version, place)| Some((version, place.parse().ok()?))) {
            Some((version, place)) => Ok(Self { version: version.parse()?, place: Some(place) }),
            None => text.parse().map(VersionId::into),
        }
    }
}

/// How to put.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// What must hold.
    pub condition: Condition,
    /// What the user says about it.
    pub meta: UserMeta,
    /// How to deliver it.
    pub headers: Headers,
    /// By what the user sorts it.
    pub tags: Vec<(String, String)>,
}

/// What was put.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Bytes of content.
    pub size: u64,
    /// BLAKE3 of the content, if it is known: that of an object of several parts is not.
    pub hash: Option<[u8; 32]>,
    /// The version.
    pub etag: WriteId,
    /// By which version id it can be had from now on; `None`: its bucket never kept versions.
    pub version: Option<VersionId>,
    /// Durable copies when it was acknowledged (of the chunk or record with the fewest).
    pub copies: usize,
    /// Copies that there will be once every owner is back.
    pub wanted: usize,
}

/// How to copy.
#[derive(Clone, Debug, Default)]
pub struct CopyOptions {
    /// Which version of the source; `None`: the current one.
    pub source_version: Option<VersionId>,
    /// The ETag that the source must have, if it matters.
    pub source: Option<WriteId>,
    /// What must hold of the target.
    pub condition: Condition,
    /// What the user says about the copy; `None`: what was said about the source.
    pub replace: Option<(UserMeta, Headers)>,
    /// The copy's tags; `None`: the source's.
    pub tags: Option<Vec<(String, String)>>,
}

/// How an upload in parts begins.
#[derive(Clone, Debug, Default)]
pub struct UploadOptions {
    /// What the user says about the object.
    pub meta: UserMeta,
    /// How to deliver it.
    pub headers: Headers,
    /// By what the user sorts it.
    pub tags: Vec<(String, String)>,
    /// The name of the checksum that the client wants; kept, not looked at.
    pub checksum: String,
    /// Whether that is to be one of the parts' checksums.
    pub composite: bool,
}

/// An upload in parts that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadInfo {
    /// Its id.
    pub id: WriteId,
    /// The key of the object that it is to be.
    pub key: String,
    /// When it began, in Unix milliseconds.
    pub created: u64,
    /// See [`UploadOptions::checksum`]; empty in listings.
    pub checksum: String,
    /// See [`UploadOptions::composite`]; `false` in listings.
    pub composite: bool,
    /// What the user says about the object; empty in listings.
    pub meta: UserMeta,
}

/// A page of uploads, in order of key.
#[derive(Clone, Debug, Default)]
pub struct UploadPage {
    /// The uploads.
    pub uploads: Vec<UploadInfo>,
    /// Whether there are more, after the last of these.
    pub more: bool,
}

/// A part to put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewPart {
    /// Its number.
    pub number: u16,
    /// What its content is encrypted with, if that is a client's key.
    pub lock: Option<Lock>,
}

impl From<u16> for NewPart {
    fn from(number: u16) -> Self {
        Self { number, lock: None }
    }
}

/// A part that was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartInfo {
    /// Its number.
    pub number: u16,
    /// Its bytes.
    pub size: u64,
    /// When it was put, in Unix milliseconds.
    pub modified: u64,
    /// Its version.
    pub etag: WriteId,
    /// Its hashes.
    pub digests: Digests,
}

/// A page of parts, in order of number.
#[derive(Clone, Debug, Default)]
pub struct PartPage {
    /// The parts.
    pub parts: Vec<PartInfo>,
    /// The last number of this page, if more follow.
    pub next: Option<u16>,
}

/// A part that an object is to consist of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedPart {
    /// Its number.
    pub number: u16,
    /// Its MD5, if it matters.
    pub md5: Option<[u8; 16]>,
}

/// What is known of an object.
#[derive(Clone, Debug)]
pub struct ObjectInfo {
    /// Its bucket.
    pub bucket: String,
    /// Its key.
    pub key: String,
    /// Bytes of content.
    pub size: u64,
    /// BLAKE3 of the content, if it is known: that of an object of several parts is not.
    pub hash: Option<[u8; 32]>,
    /// The version.
    pub etag: WriteId,
    /// Its version id; `None`: its bucket never kept versions. (Of the null version this may be so for some seconds
    /// after the bucket began to.)
    pub version: Option<VersionId>,
    /// When it was put, in Unix milliseconds.
    pub modified: u64,
    /// What the user said; empty in listings.
    pub meta: UserMeta,
    /// How to deliver it; empty in listings.
    pub headers: Headers,
    /// Its other hashes; without the checksum in listings.
    pub digests: Digests,
    /// By what the user sorts it; empty in listings.
    pub tags: Vec<(String, String)>,
}

/// The pieces that an object was put in, in order.
#[derive(Clone, Debug)]
pub struct ObjectParts {
    /// What is known of the object.
    pub info: ObjectInfo,
    /// The bytes of each.
    pub sizes: Vec<u64>,
    /// The salt of each, if it was uploaded in parts that are encrypted with a client's key; else empty.
    pub salts: Vec<WriteId>,
}

/// How sure an answer must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// A majority of owners agrees: the last acknowledged write.
    #[default]
    Linearizable,
    /// What this node holds, without asking anyone: may be old, or not there.
    Stale,
}

/// Which bytes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// From the first to the last byte, both included; the last is cut to the object's end.
    Inclusive(u64, u64),
    /// From this byte to the end.
    From(u64),
    /// The last so many bytes.
    Last(u64),
}

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// Keys that start so.
    pub prefix: String,
    /// Roll up what follows the prefix up to this, as folders ("/").
    pub delimiter: Option<String>,
    /// Keys and common prefixes above this one: the `next` of the page before.
    pub after: Option<String>,
    /// Most entries of the page; 0 means as many as a page may have.
    pub limit: usize,
    /// How sure.
    pub consistency: Consistency,
}

/// A page of a listing.
#[derive(Clone, Debug, Default)]
pub struct ListPage {
    /// Objects, in order of key (bytes).
    pub objects: Vec<ObjectInfo>,
    /// Common prefixes, in order, if a delimiter was given.
    pub prefixes: Vec<String>,
    /// Where the next page starts, if there is one.
    pub next: Option<String>,
}

/// What a removal did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The delete marker that was made, or the version that was removed for good; `None`: the object of a bucket that
    /// never kept versions.
    pub version: Option<VersionId>,
    /// Whether that is a delete marker.
    pub marker: bool,
}

/// Which versions to list.
#[derive(Clone, Debug, Default)]
pub struct VersionsQuery {
    /// Of keys that start so.
    pub prefix: String,
    /// Roll up what follows the prefix up to this, as folders ("/").
    pub delimiter: Option<String>,
    /// The `next` of the page before: what follows this key or common prefix, or this version of the key. If that
    /// version was removed since, and its place is not given, all that is left of the key is listed (again).
    pub after: Option<(String, Option<VersionMark>)>,
    /// Most entries of the page; 0 means as many as a page may have.
    pub limit: usize,
}

/// A page of versions.
#[derive(Clone, Debug, Default)]
pub struct VersionPage {
    /// Versions and delete markers, in order of key (bytes), those of one key from the newest on.
    pub entries: Vec<VersionEntry>,
    /// Common prefixes, in order, if a delimiter was given.
    pub prefixes: Vec<String>,
    /// Where the next page starts, if there is one. It goes on there whatever is removed meanwhile.
    pub next: Option<(String, Option<VersionMark>)>,
}

/// One version in a listing.
#[derive(Clone, Debug)]
pub struct VersionEntry {
    /// What is known of it; its `version` is always there.
    pub info: ObjectInfo,
    /// Whether it is current.
    pub is_latest: bool,
    /// Whether it is a delete marker.
    pub marker: bool,
}

/// A bucket.
#[derive(Clone, Debug)]
pub struct BucketInfo {
    /// Its name.
    pub name: String,
    /// When it was made, in Unix milliseconds.
    pub created: u64,
}

/// An access key, but for its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its id.
    pub id: String,
    /// What people call it; may be empty.
    pub name: String,
    /// When it was made, in Unix milliseconds.
    pub created: u64,
    /// What it is good for.
    pub grants: Grants,
}

/// An access key with its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessKey {
    /// What is known of it.
    pub info: KeyInfo,
    /// What proves that someone holds it.
    pub secret: Secret,
}

/// One member, as this node sees it.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// Who.
    pub id: NodeId,
    /// What it does.
    pub state: MemberState,
    /// Its zone.
    pub zone: String,
    /// Where it was last known to be.
    pub addresses: Vec<SocketAddr>,
    /// Whether it answered within the last seconds.
    pub up: bool,
    /// Whether it is the node that was asked.
    pub me: bool,
    /// Bytes of chunks it holds, if it said so.
    pub used: Option<u64>,
    /// Bytes it offers.
    pub capacity: u64,
    /// Chunks it has still to send or fetch, if it said so.
    pub owed: Option<u64>,
    /// For how long it has been unreachable, as far as the node that was asked can tell.
    pub down_for: Option<Duration>,
}

/// The network at a glance.
#[derive(Clone, Debug)]
pub struct Status {
    /// The network.
    pub network: NetworkId,
    /// Its layout version.
    pub layout: u64,
    /// Whether a layout change is under way.
    pub in_transition: bool,
    /// How many copies.
    pub replicas: Replicas,
    /// Its members.
    pub nodes: Vec<NodeStatus>,
    /// Objects, if they could be counted.
    pub objects: Option<ObjectCount>,
    /// What the node that was asked does to mend things.
    pub healing: Healing,
}

/// What one node does to mend things.
#[derive(Clone, Copy, Debug, Default)]
pub struct Healing {
    /// Chunks that it should hold and does not yet.
    pub lacking: u64,
    /// Chunks that others should hold and it knows do not yet.
    pub owing: u64,
    /// Copies that it holds for others (one for each version of an object that needs it), to be dropped when
    /// these have them.
    pub misplaced: u64,
    /// Bytes a second that it moved lately.
    pub rate: u64,
    /// When it should be done, at this rate; `None` if nothing is to do or nothing moves.
    pub done_in: Option<Duration>,
    /// How the verification of all chunks goes.
    pub scrub: Scrub,
}

/// How reading and verifying everything goes on one node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scrub {
    /// Whether it runs as fast as it may, because someone asked for it.
    pub now: bool,
    /// Chunks verified in this pass.
    pub verified: u64,
    /// Chunks there are, about.
    pub total: u64,
    /// Damaged chunks found in this pass (each is put aside and fetched again).
    pub damaged: u64,
    /// When the last whole pass ended, in Unix milliseconds.
    pub finished: Option<u64>,
}

/// Changes of the membership to look at before they are made.
#[derive(Clone, Debug, Default)]
pub struct PlanQuery {
    /// Members that would drain or be removed.
    pub without: Vec<NodeId>,
    /// Nodes that would join: how much they offer, and their zone.
    pub with: Vec<(u64, String)>,
}

/// What a change of the membership would move.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Each member, and each that would join (without an id).
    pub members: Vec<PlannedMember>,
    /// Copies of partitions that would move.
    pub moved: u64,
    /// Copies of partitions there would be.
    pub slots: u64,
    /// Bytes that would move, about.
    pub bytes: u64,
    /// Copies of everything there would be.
    pub copies: usize,
}

/// One member in a [`Plan`].
#[derive(Clone, Debug)]
pub struct PlannedMember {
    /// Who; `None` for one that would join.
    pub id: Option<NodeId>,
    /// Its zone.
    pub zone: String,
    /// Bytes it offers.
    pub capacity: u64,
    /// Copies of partitions it holds now.
    pub slots_before: u64,
    /// Copies of partitions it would hold.
    pub slots_after: u64,
    /// Bytes it would fetch, about.
    pub bytes_in: u64,
}

/// How far [`crate::Node::check`] is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckProgress {
    /// Objects looked at.
    pub objects: u64,
    /// Copies of chunks asked for.
    pub copies: u64,
    /// Problems found.
    pub problems: u64,
}

/// What [`crate::Node::check`] found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Objects looked at.
    pub objects: u64,
    /// Their chunks (the same chunk of two objects counts twice).
    pub chunks: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Problems found in all.
    pub problem_count: u64,
    /// The first of them.
    pub problems: Vec<CheckProblem>,
    /// Members that did not answer: nothing is known of what they hold.
    pub unreachable: Vec<NodeId>,
    /// Whether a layout change was under way.
    pub in_transition: bool,
}

impl CheckReport {
    /// Whether every object's record and every chunk is on every owner.
    pub fn is_clean(&self) -> bool {
        self.problem_count == 0 && self.unreachable.is_empty() && !self.in_transition
    }
}

/// One copy that is missing, outdated or damaged.
#[derive(Clone, Debug)]
pub struct CheckProblem {
    /// Which object, as BUCKET/KEY.
    pub object: String,
    /// Which of its chunks; `None`: its record.
    pub chunk: Option<ChunkId>,
    /// On which owner.
    pub node: NodeId,
    /// What is wrong.
    pub what: String,
}

/// How many objects there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectCount {
    /// Counted so far.
    pub at_least: u64,
    /// Whether that is all.
    pub exact: bool,
}
