//! What registers hold: object records, bucket records, invite records.
//!
//! Owns their encoding (a format-version byte, then postcard) and their bounds, checked before writing
//! and after reading. An object's body (inline bytes, or the chunks and their keys) is sealed inside the
//! record, so that a register's owner or a stolen disk shows sizes and names, not content.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    id::{NodeId, WriteId},
    manifest::{ChunkRef, Geometry, MAX_DEPTH, MAX_ROOTS, Tree},
    name::RegisterName,
    seal::{self, CHUNK, NetworkKey},
};

/// Largest body that stands in the record itself.
pub const MAX_INLINE: usize = 16 << 10;
/// Most bytes of user metadata and content type together, names included.
pub const MAX_META: usize = 8 << 10;
/// Most entries of user metadata.
pub const MAX_META_ENTRIES: usize = 128;
/// Most bytes of a register's value: an inline body, metadata and overhead fit with room to spare.
pub const MAX_VALUE: usize = 64 << 10;

const FORMAT: u8 = 1;

/// A record that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes are not a record.
    #[error("malformed {what}: {why}")]
    Malformed {
        /// Which record.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A newer version of Pando wrote it.
    #[error("{what} has format {found}, and this version of pando reads up to {FORMAT}: upgrade this node")]
    TooNew {
        /// Which record.
        what: &'static str,
        /// Its format.
        found: u8,
    },
    /// The user's metadata is too much.
    #[error("metadata has {found} bytes or entries, the most is {most}")]
    MetaTooLarge {
        /// What was given.
        found: usize,
        /// What is allowed.
        most: usize,
    },
    /// The sealed body does not open.
    #[error("the sealed body of the record does not open: damaged, or of another network")]
    Sealed,
}

/// What users say about an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserMeta {
    /// The media type (RFC 6838), if given.
    pub content_type: Option<String>,
    /// Names and values, in the order given.
    pub entries: Vec<(String, String)>,
}

impl UserMeta {
    /// Checks the bounds.
    pub fn check(&self) -> Result<(), RecordError> {
        if self.entries.len() > MAX_META_ENTRIES {
            return Err(RecordError::MetaTooLarge { found: self.entries.len(), most: MAX_META_ENTRIES });
        }
        let found = self.content_type.as_ref().map_or(0, String::len)
            + self.entries.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if found > MAX_META {
            return Err(RecordError::MetaTooLarge { found, most: MAX_META });
        }
        Ok(())
    }
}

/// One version of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Bytes of content.
    pub size: u64,
    /// BLAKE3 of the whole content.
    pub hash: [u8; 32],
    /// When it was put, in Unix milliseconds by the clock of the node that took it.
    pub modified: u64,
    /// What the user said about it.
    pub meta: UserMeta,
    /// Which network key sealed the body; the first key is epoch 1.
    pub epoch: u32,
    /// The sealed [`Body`].
    pub body: Bytes,
}

/// Where an object's content is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Here.
    Inline(Bytes),
    /// In these chunks, or in the chunks that these manifest nodes list (`depth` levels down).
    Chunks(ChunkTree),
}

/// The serialised form of a [`Tree`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkTree {
    /// Levels of manifest nodes; 0 when `roots` are the file's chunks.
    pub depth: u8,
    /// Topmost entries.
    pub roots: Vec<ChunkRef>,
}

impl From<Tree> for ChunkTree {
    fn from(tree: Tree) -> Self {
        Self { depth: tree.depth, roots: tree.roots }
    }
}

/// What a listing shows of a register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Bytes of content; 0 for a bucket.
    pub size: u64,
    /// When it was put or made, in Unix milliseconds.
    pub modified: u64,
    /// The version.
    pub etag: WriteId,
    /// BLAKE3 of the content; zeros for a bucket.
    pub hash: [u8; 32],
}

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketRecord {
    /// When it was made, in Unix milliseconds.
    pub created: u64,
}

/// An invite: made once, used once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteRecord {
    /// Unix milliseconds after which it is worthless.
    pub expires: u64,
    /// Who used it.
    pub used_by: Option<NodeId>,
}

impl Body {
    /// Seals it for one version of one object.
    pub fn seal(&self, network: &NetworkKey, name: &RegisterName, version: &WriteId) -> Bytes {
        let plain = postcard::to_stdvec(self).expect("a body is plain data");
        seal::seal_body(network, name.as_bytes(), version, plain).into()
    }
}

impl Record {
    /// The record's bytes.
    pub fn encode(&self) -> Result<Bytes, RecordError> {
        self.meta.check()?;
        let bytes = encode(self);
        if bytes.len() > MAX_VALUE {
            return Err(RecordError::MetaTooLarge { found: bytes.len(), most: MAX_VALUE });
        }
        Ok(bytes)
    }

    /// A record from the disk or the wire.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let record: Record = decode("object record", bytes)?;
        record.meta.check()?;
        Ok(record)
    }

    /// Opens the body, and checks that it can be the body of this size.
    pub fn open(
        &self,
        network: &NetworkKey,
        name: &RegisterName,
        version: &WriteId,
    ) -> Result<Body, RecordError> {
        let plain = seal::open_body(network, name.as_bytes(), version, &self.body)
            .map_err(|_| RecordError::Sealed)?;
        let body = postcard::from_bytes(&plain)
            .map_err(|why| RecordError::Malformed { what: "object body", why: why.to_string() })?;
        let wrong = |why: &str| Err(RecordError::Malformed { what: "object body", why: why.to_owned() });
        match &body {
            Body::Inline(bytes) if bytes.len() as u64 != self.size => wrong("its length is not the size"),
            Body::Chunks(tree) if tree.depth > MAX_DEPTH || tree.roots.len() > MAX_ROOTS => {
                wrong("too many levels or entries")
            }
            Body::Chunks(tree)
                if Geometry::of_size(self.size, tree.depth).roots() != tree.roots.len() as u64 =>
            {
                wrong("its number of entries does not fit the size")
            }
            _ => Ok(body),
        }
    }

    /// How many chunks of content the object has, if it is not inline.
    pub fn chunk_count(&self) -> u64 {
        self.size.div_ceil(CHUNK as u64)
    }

    /// What a listing shows.
    pub fn summary(&self, etag: WriteId) -> Summary {
        Summary { size: self.size, modified: self.modified, etag, hash: self.hash }
    }
}

impl BucketRecord {
    /// The record's bytes.
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// A record from the disk or the wire.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        decode("bucket record", bytes)
    }
}

impl InviteRecord {
    /// The record's bytes.
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// A record from the disk or the wire.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        decode("invite record", bytes)
    }
}

fn encode<T: Serialize>(record: &T) -> Bytes {
    postcard::to_extend(record, vec![FORMAT]).expect("a record is plain data").into()
}

fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, RecordError> {
    let malformed = |why: String| RecordError::Malformed { what, why };
    match bytes.split_first() {
        None => Err(malformed("empty".to_owned())),
        Some((&FORMAT, rest)) if rest.len() <= MAX_VALUE => {
            postcard::from_bytes(rest).map_err(|why| malformed(why.to_string()))
        }
        Some((&FORMAT, rest)) => Err(malformed(format!("{} bytes", rest.len()))),
        Some((&found, _)) => Err(RecordError::TooNew { what, found }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: NetworkKey = NetworkKey([3; 32]);

    fn record(size: u64, body: &Body) -> (Record, RegisterName, WriteId) {
        let name = RegisterName::object("default", "a").unwrap();
        let version = WriteId([9; 16]);
        let record = Record {
            size,
            hash: [1; 32],
            modified: 1_700_000_000_000,
            meta: UserMeta {
                content_type: Some("text/plain".into()),
                entries: vec![("a".into(), "b".into())],
            },
            epoch: 1,
            body: body.seal(&KEY, &name, &version),
        };
        (record, name, version)
    }

    #[test]
    fn records_round_trip() {
        let body = Body::Inline(Bytes::from_static(b"hello"));
        let (record, name, version) = record(5, &body);
        let read = Record::decode(&record.encode().unwrap()).unwrap();
        assert_eq!(read, record);
        assert_eq!(read.open(&KEY, &name, &version).unwrap(), body);
    }

    #[test]
    fn a_body_that_does_not_fit_its_size_is_refused() {
        let body = Body::Inline(Bytes::from_static(b"hello"));
        let (bad, name, version) = record(6, &body);
        assert!(bad.open(&KEY, &name, &version).is_err());
        let (bad, name, version) = record(CHUNK as u64, &Body::Chunks(ChunkTree { depth: 0, roots: vec![] }));
        assert!(bad.open(&KEY, &name, &version).is_err());
    }

    #[test]
    fn the_format_of_version_1_still_reads() {
        let old = "0105010101010101010101010101010101010101010101010101010101010101010180d0a4a2bb31010a746578742f706c61696e0101610162010568656c6c6f";
        let bytes = data_encoding::HEXLOWER.decode(old.as_bytes()).unwrap();
        let read = Record::decode(&bytes).unwrap();
        assert_eq!((read.size, read.modified, read.epoch), (5, 1_699_536_775_168, 1));
        assert_eq!(read.meta.content_type.as_deref(), Some("text/plain"));
        assert_eq!(read.body.as_ref(), b"hello");
        assert_eq!(read.encode().unwrap(), bytes, "and writes the same bytes");
    }

    #[test]
    fn newer_formats_say_upgrade() {
        assert_eq!(
            BucketRecord::decode(&[2, 0]),
            Err(RecordError::TooNew { what: "bucket record", found: 2 })
        );
    }

    proptest! {
        #[test]
        fn bytes_from_the_wire_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::decode(&bytes);
            let _ = BucketRecord::decode(&bytes);
            let _ = InviteRecord::decode(&bytes);
        }
    }
}
