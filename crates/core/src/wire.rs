//! What nodes say to each other: requests and replies of both lanes, and of joining.
//!
//! Owns the messages, their encoding (a protocol-version byte, then postcard) and the checks of every
//! count and name before it is believed. Lengths are bounded by the transport's frame.

use std::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use crate::gossip::AddressEntry;
use crate::{
    fingerprint::{BUCKETS, Fingerprint},
    gossip::{MAX_PACKET, News, Rumour},
    id::{ChunkId, NodeId, PARTITIONS, Partition, WriteId},
    layout::{MAX_ADDRESSES, MAX_MEMBERS, MAX_ZONE},
    name::{MAX_NAME, RegisterName},
    record::{MAX_VALUE, Summary},
    register::{Accepted, Ballot, LayoutVersion, Refusal},
    seal::NetworkKey,
};

/// The version of this protocol. A node refuses messages of another.
pub const PROTOCOL: u8 = 1;
/// Most chunks in one offer: 16 GiB of file, 128 KiB of message.
pub const MAX_OFFER: usize = 4096;
/// Most registers in one page of a listing or a sync.
pub const MAX_PAGE: usize = 2000;
/// Most bytes of one page, well below a frame of 1 MiB.
pub const MAX_PAGE_BYTES: usize = 512 << 10;

/// Most tombstones in one question: with the longest names well below a frame.
pub const MAX_TOMBS: usize = 256;

/// A message that can't be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Another protocol version.
    #[error("the peer speaks protocol {0}, this node speaks {PROTOCOL}: upgrade the older one")]
    Protocol(u8),
    /// Not a message.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// Too many of something, or too long.
    #[error("message out of bounds: {0}")]
    Bounds(&'static str),
}

/// All that a node knows of everyone, for a full exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulse {
    /// Who is alive; at most [`MAX_MEMBERS`] entries, as are the others.
    pub rumours: Vec<Rumour>,
    /// What everyone says about itself.
    pub news: Vec<News>,
    /// Where those are whose news don't tell.
    pub book: Vec<AddressEntry>,
}

/// A request on the RPC lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// This is what I know of everyone. Answered by the same.
    Pulse(Pulse),
    /// Which layout do you know?
    GetLayout,
    /// Here is a layout that was decided.
    PutLayout(Bytes),
    /// Register protocol, phase 1.
    Prepare(LayoutVersion, RegisterName, Ballot),
    /// Register protocol, phase 2.
    Accept(LayoutVersion, RegisterName, Accepted),
    /// This value was chosen.
    Learn(LayoutVersion, RegisterName, Accepted),
    /// What did you accept?
    Read(LayoutVersion, RegisterName),
    /// Which registers do you hold whose names start so, after this one?
    List(ListRequest),
    /// Which registers of this bucket do you hold, and at which ballots?
    SyncPage(SyncRequest),
    /// What are the fingerprints of the partitions of which you hold anything?
    Prints(LayoutVersion),
    /// What are the fingerprints of this partition's buckets?
    Buckets(LayoutVersion, Partition),
    /// Which versions refer to which chunks that you hold in this bucket?
    References(ReferencesRequest),
    /// A version is being put that uses these chunks: which do you hold? Those held are kept for it.
    Offer(Offer),
    /// These nodes lack these chunks: bring them there when you can.
    Owe(Vec<(NodeId, ChunkId)>),
    /// These versions may be dead: look again after the grace period.
    Recheck(Vec<WriteId>),
    /// A reader found bad bytes in your copy.
    Suspect(ChunkId),
    /// Which of these chunks do you hold? Changes nothing.
    Have {
        /// Which; at most [`MAX_OFFER`].
        chunks: Vec<ChunkId>,
        /// Only those whose bytes, read now, are right.
        verify: bool,
    },
    /// Which of these registers do you hold as tombstones, at exactly these ballots? (At most [`MAX_TOMBS`].)
    Tombs {
        /// Of which layout.
        layout: LayoutVersion,
        /// Which.
        tombs: Vec<(RegisterName, Ballot)>,
        /// All owners hold them and their time is over: forget them.
        purge: bool,
    },
    /// A packet of the failure detector (see [`crate::gossip`]), at most [`MAX_PACKET`] bytes; an empty one
    /// asks only whether the other is there. Answered by [`Reply::Ok`].
    Gossip(Bytes),
    /// This version is being put still: its chunks are no strays for another grace period.
    Touch(WriteId),
}

/// See [`Request::List`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListRequest {
    /// The layout under which the answers will be counted.
    pub layout: LayoutVersion,
    /// Start of the names.
    pub prefix: Bytes,
    /// Names above this one, if given.
    pub after: Option<Bytes>,
    /// At most so many.
    pub limit: u32,
}

/// See [`Request::SyncPage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncRequest {
    /// The layout of the transition.
    pub layout: LayoutVersion,
    /// Of which partition.
    pub partition: Partition,
    /// Of which of its [`BUCKETS`].
    pub bucket: u8,
    /// Names above this one, if given.
    pub after: Option<RegisterName>,
}

/// See [`Request::References`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferencesRequest {
    /// The layout known to who asks.
    pub layout: LayoutVersion,
    /// Of which partition.
    pub partition: Partition,
    /// Of which of its [`BUCKETS`].
    pub bucket: u8,
    /// References above this one, if given.
    pub after: Option<(ChunkId, WriteId)>,
}

/// See [`Request::Offer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The version being put.
    pub version: WriteId,
    /// Of which object.
    pub name: RegisterName,
    /// Its chunks; at most [`MAX_OFFER`].
    pub chunks: Vec<ChunkId>,
}

/// One register in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its name.
    pub name: RegisterName,
    /// What this owner accepted last.
    pub ballot: Ballot,
    /// What it shows; `None` for a tombstone.
    pub summary: Option<Summary>,
}

/// The reply to a request on the RPC lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Done.
    Ok,
    /// To [`Request::Pulse`].
    Pulse(Pulse),
    /// To [`Request::GetLayout`]: the layout's bytes.
    Layout(Bytes),
    /// To [`Request::Prepare`].
    Promised(Option<Accepted>),
    /// To [`Request::Prepare`] and [`Request::Accept`].
    Refused(Refusal),
    /// To [`Request::Accept`].
    Accepted,
    /// To [`Request::Read`]: what is accepted, and how high a settling ballot must go.
    Value(Option<Accepted>, u64),
    /// To [`Request::List`]; `more` says that names above the last one were cut off.
    Listed {
        /// In order of names.
        entries: Vec<Listed>,
        /// Whether there are more.
        more: bool,
    },
    /// To [`Request::SyncPage`].
    Ballots {
        /// In order of names.
        entries: Vec<(RegisterName, Ballot)>,
        /// Whether there are more.
        more: bool,
    },
    /// To [`Request::Prints`]: for each partition that holds anything, of its registers and of the references
    /// to its chunks.
    Prints(Vec<(Partition, Fingerprint, Fingerprint)>),
    /// To [`Request::Buckets`].
    Buckets {
        /// The partition's purge floor.
        purged: Option<Ballot>,
        /// For each of the [`BUCKETS`], of its registers and of the references to its chunks.
        buckets: Vec<(Fingerprint, Fingerprint)>,
    },
    /// To [`Request::References`].
    References {
        /// Chunk, its bytes, and a version that needs it; in order.
        entries: Vec<(ChunkId, u64, WriteId)>,
        /// What these versions are writes to.
        names: Vec<(WriteId, RegisterName)>,
        /// Whether there are more.
        more: bool,
    },
    /// To [`Request::Offer`]: for each chunk, whether it is held (and now kept for the version); to
    /// [`Request::Have`] and [`Request::Tombs`]: for each, whether it is so.
    Held(Vec<bool>),
    /// The request's layout is not the one this node knows, which is this.
    Fenced(LayoutVersion),
    /// It could not be done.
    Failed(Failure),
}

/// Why a peer could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Failure {
    /// Its disk is full.
    #[error("no space left")]
    NoSpace,
    /// It does not hold that.
    #[error("not held")]
    Missing,
    /// The request made no sense to it.
    #[error("malformed request: {0}")]
    Malformed(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// A request on the stream lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamRequest {
    /// The body is this chunk, sealed: keep it for this version.
    Store {
        /// The chunk.
        chunk: ChunkId,
        /// Who needs it.
        version: WriteId,
        /// Of which object.
        name: RegisterName,
    },
    /// Send this chunk's sealed bytes from segment `from` to the end.
    Fetch {
        /// The chunk.
        chunk: ChunkId,
        /// First segment wanted.
        from: u32,
        /// How many segments.
        count: u32,
    },
    /// Send this chunk whole, and verified: it is for keeping.
    Copy(ChunkId),
}

/// The reply to a request on the stream lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamReply {
    /// The chunk is durable.
    Stored,
    /// The bytes follow as the reply's body, with the versions that need the chunk (for a copy).
    Sending(Vec<(WriteId, RegisterName)>),
    /// It could not be done.
    Failed(Failure),
}

/// What somebody says who is not admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Knock {
    /// Let me in.
    Join(JoinRequest),
    /// I was a member under this layout: am I still?
    Former {
        /// The newest layout that it knows.
        known: LayoutVersion,
        /// See [`NetworkKey::proof_of`]: strangers are told nothing.
        proof: [u8; 32],
    },
}

/// What a newcomer says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The secret of the ticket.
    pub secret: [u8; 32],
    /// Where it will be.
    pub addresses: Vec<SocketAddr>,
    /// Its zone.
    pub zone: String,
    /// Bytes it offers.
    pub capacity: u64,
}

/// What a newcomer hears.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinReply {
    /// Welcome.
    Welcome {
        /// The network's key.
        key: NetworkKey,
        /// A layout that lists the newcomer.
        layout: Bytes,
        /// Where the others are.
        book: Vec<AddressEntry>,
    },
    /// No, and why.
    Refused(String),
    /// To [`Knock::Former`]: not a member any more, under this layout, which is newer than the one it knows.
    Removed(LayoutVersion),
    /// Neither yes nor no, and why: the newcomer may be a member already, or become one. It is to ask again, with the same
    /// ticket.
    Undecided(String),
}

/// A message that has bounds beyond its encoding.
pub trait Message: Serialize + DeserializeOwned {
    /// Checks what came from the wire.
    fn check(&self) -> Result<(), WireError>;
}

/// A message's bytes.
pub fn encode<M: Message>(message: &M) -> Bytes {
    postcard::to_extend(message, vec![PROTOCOL]).expect("messages are plain data").into()
}

/// A message from the wire, checked.
pub fn decode<M: Message>(bytes: &[u8]) -> Result<M, WireError> {
    let message: M = match bytes.split_first() {
        Some((&PROTOCOL, rest)) => {
            postcard::from_bytes(rest).map_err(|why| WireError::Malformed(why.to_string()))?
        }
        Some((other, _)) => return Err(WireError::Protocol(*other)),
        None => return Err(WireError::Malformed("empty".into())),
    };
    message.check()?;
    Ok(message)
}

fn within(good: bool, what: &'static str) -> Result<(), WireError> {
    if good { Ok(()) } else { Err(WireError::Bounds(what)) }
}

fn check_name(name: &RegisterName) -> Result<(), WireError> {
    name.check().map_err(|_| WireError::Bounds("register name"))
}

fn check_bucket(partition: Partition, bucket: u8) -> Result<(), WireError> {
    within(Partition::new(partition.number()).is_some() && bucket < BUCKETS, "partition or bucket")
}

fn check_accepted(accepted: &Accepted) -> Result<(), WireError> {
    let small = accepted.value.present().is_none_or(|bytes| bytes.len() <= MAX_VALUE);
    within(small && accepted.value.is_well_formed(), "register value")
}

fn check_book(book: &[AddressEntry]) -> Result<(), WireError> {
    let good = book.len() <= MAX_MEMBERS && book.iter().all(|entry| entry.addresses.len() <= MAX_ADDRESSES);
    within(good, "address book")
}

fn check_pulse(pulse: &Pulse) -> Result<(), WireError> {
    within(pulse.rumours.len() <= MAX_MEMBERS && pulse.news.len() <= MAX_MEMBERS, "table of a pulse")?;
    within(pulse.news.iter().all(News::is_bounded), "news")?;
    check_book(&pulse.book)
}

impl Message for Request {
    fn check(&self) -> Result<(), WireError> {
        match self {
            Request::Pulse(pulse) => check_pulse(pulse),
            Request::Gossip(packet) => within(packet.len() <= MAX_PACKET, "packet"),
            Request::GetLayout | Request::PutLayout(_) | Request::Suspect(_) | Request::Touch(_) => Ok(()),
            Request::Prepare(_, name, _) | Request::Read(_, name) => check_name(name),
            Request::Accept(_, name, accepted) | Request::Learn(_, name, accepted) => {
                check_name(name)?;
                check_accepted(accepted)
            }
            Request::List(list) => {
                let after = list.after.as_ref().is_none_or(|after| after.len() <= MAX_NAME + 1);
                within(list.prefix.len() <= MAX_NAME && after, "list range")
            }
            Request::Prints(_) => Ok(()),
            Request::Buckets(_, partition) => check_bucket(*partition, 0),
            Request::References(request) => check_bucket(request.partition, request.bucket),
            Request::SyncPage(sync) => {
                check_bucket(sync.partition, sync.bucket)?;
                sync.after.as_ref().map_or(Ok(()), check_name)
            }
            Request::Offer(offer) => {
                check_name(&offer.name)?;
                within(offer.chunks.len() <= MAX_OFFER, "chunks in an offer")
            }
            Request::Owe(entries) => within(entries.len() <= MAX_OFFER, "chunks owed"),
            Request::Have { chunks, .. } => within(chunks.len() <= MAX_OFFER, "chunks asked for"),
            Request::Tombs { tombs, .. } => {
                within(tombs.len() <= MAX_TOMBS, "tombstones")?;
                tombs.iter().try_for_each(|(name, _)| check_name(name))
            }
            Request::Recheck(versions) => within(versions.len() <= MAX_OFFER, "versions to check"),
        }
    }
}

impl Message for Reply {
    fn check(&self) -> Result<(), WireError> {
        match self {
            Reply::Pulse(pulse) => check_pulse(pulse),
            Reply::Promised(Some(accepted)) | Reply::Value(Some(accepted), _) => check_accepted(accepted),
            Reply::Listed { entries, more } => {
                within(!(*more && entries.is_empty()), "a cut listing without entries")?;
                within(entries.len() <= MAX_PAGE, "entries in a listing")?;
                within(entries.windows(2).all(|pair| pair[0].name < pair[1].name), "order of a listing")?;
                entries.iter().try_for_each(|entry| check_name(&entry.name))
            }
            Reply::Ballots { entries, more } => {
                within(!(*more && entries.is_empty()), "a cut sync page without entries")?;
                within(entries.len() <= MAX_PAGE, "entries in a sync page")?;
                within(entries.windows(2).all(|pair| pair[0].0 < pair[1].0), "order of a sync page")?;
                entries.iter().try_for_each(|(name, _)| check_name(name))
            }
            Reply::Prints(prints) => {
                within(prints.len() <= usize::from(PARTITIONS), "fingerprints")?;
                prints.iter().try_for_each(|(partition, ..)| check_bucket(*partition, 0))
            }
            Reply::Buckets { buckets, .. } => within(buckets.len() == usize::from(BUCKETS), "buckets"),
            Reply::References { entries, names, more } => {
                within(!(*more && entries.is_empty()), "a cut page of references without entries")?;
                within(entries.len() <= MAX_PAGE && names.len() <= entries.len(), "references")?;
                let key = |entry: &(ChunkId, u64, WriteId)| (entry.0, entry.2);
                within(entries.windows(2).all(|pair| key(&pair[0]) < key(&pair[1])), "order of references")?;
                names.iter().try_for_each(|(_, name)| check_name(name))
            }
            Reply::Held(held) => within(held.len() <= MAX_OFFER, "answers to an offer"),
            _ => Ok(()),
        }
    }
}

impl Message for StreamRequest {
    fn check(&self) -> Result<(), WireError> {
        match self {
            StreamRequest::Store { name, .. } => check_name(name),
            StreamRequest::Fetch { .. } | StreamRequest::Copy(_) => Ok(()),
        }
    }
}

impl Message for StreamReply {
    fn check(&self) -> Result<(), WireError> {
        match self {
            StreamReply::Sending(versions) => {
                within(versions.len() <= 64, "versions of a chunk")?;
                versions.iter().try_for_each(|(_, name)| check_name(name))
            }
            _ => Ok(()),
        }
    }
}

impl Message for Knock {
    fn check(&self) -> Result<(), WireError> {
        match self {
            Knock::Join(JoinRequest { addresses, zone, .. }) => {
                within(addresses.len() <= MAX_ADDRESSES && zone.len() <= MAX_ZONE, "join request")
            }
            Knock::Former { .. } => Ok(()),
        }
    }
}

impl Message for JoinReply {
    fn check(&self) -> Result<(), WireError> {
        match self {
            JoinReply::Welcome { book, .. } => check_book(book),
            JoinReply::Refused(_) | JoinReply::Removed(_) | JoinReply::Undecided(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_round_trip() {
        let name = RegisterName::object("default", "a").unwrap();
        let request =
            Request::Offer(Offer { version: WriteId([1; 16]), name, chunks: vec![ChunkId([2; 32]); 3] });
        assert_eq!(decode::<Request>(&encode(&request)).unwrap(), request);
        let reply = Reply::Held(vec![true, false]);
        assert_eq!(decode::<Reply>(&encode(&reply)).unwrap(), reply);
    }

    #[test]
    fn the_bytes_of_protocol_1_still_read() {
        let name = RegisterName::object("default", "a").unwrap();
        let ballot = Ballot { layout: LayoutVersion(3), counter: 300, session: 5 };
        let prepare = Request::Prepare(LayoutVersion(3), name, ballot);
        let old = "010303 0a6f64656661756c740061 03ac0205".replace(' ', "");
        let old = data_encoding::HEXLOWER.decode(old.as_bytes()).unwrap();
        assert_eq!(encode(&prepare), old);
        assert_eq!(decode::<Request>(&old).unwrap(), prepare);
    }

    #[test]
    fn out_of_bounds_is_refused() {
        let name = RegisterName::object("default", "a").unwrap();
        let offer = Offer { version: WriteId([1; 16]), name, chunks: vec![ChunkId([2; 32]); MAX_OFFER + 1] };
        assert!(matches!(decode::<Request>(&encode(&Request::Offer(offer))), Err(WireError::Bounds(_))));
        assert_eq!(decode::<Request>(&[7, 0]), Err(WireError::Protocol(7)));
        // A length of 2^60 elements in a frame of a few bytes.
        let absurd = [PROTOCOL, 10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(matches!(decode::<Request>(&absurd), Err(WireError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() { *first = PROTOCOL; }
            let _ = decode::<Request>(&bytes);
            let _ = decode::<Reply>(&bytes);
            let _ = decode::<StreamRequest>(&bytes);
            let _ = decode::<StreamReply>(&bytes);
            let _ = decode::<Knock>(&bytes);
            let _ = decode::<JoinReply>(&bytes);
        }
    }
}
