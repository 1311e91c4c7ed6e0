//! What registers hold: object records, upload records, invite records. Buckets: [`crate::bucket`]; access keys:
//! [`crate::access`].
//!
//! Owns their encoding (a format-version byte, then postcard) and their bounds, checked before writing
//! and after reading. An object's body (inline bytes, or the chunks and their keys) is sealed inside the
//! record, so that a register's owner or a stolen disk shows sizes and names, not content.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    id::{NodeId, WriteId},
    manifest::{ChunkRef, ChunkTree},
    mark::Mark,
    name::RegisterName,
    parts::{BadParts, Part, Parts},
    seal::{self, CHUNK, NetworkKey},
};

mod former;

/// Largest body that stands in the record itself.
pub const MAX_INLINE: usize = 16 << 10;
/// Most bytes of user metadata, content type and headers together, names included.
pub const MAX_META: usize = 8 << 10;
/// Most entries of user metadata.
pub const MAX_META_ENTRIES: usize = 128;
/// Most tags of an object, and the longest name and value of one, in characters: what S3 allows.
pub const MAX_TAGS: (usize, usize, usize) = (10, 128, 256);
/// Most bytes of a list of parts that is a chunk.
const MAX_LIST: u32 = CHUNK as u32;
/// Most bytes of a register's value: an inline body, metadata and overhead fit with room to spare.
pub const MAX_VALUE: usize = 64 << 10;

/// The format of object records; 1 had neither headers nor digests, 2 had no mark, and both are still read.
const OBJECT_FORMAT: u8 = 3;
/// The format of all other records.
pub(crate) const FORMAT: u8 = 1;

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
    #[error("{what} has format {found}, and this version of pando reads up to {newest}: upgrade this node")]
    TooNew {
        /// Which record.
        what: &'static str,
        /// The newest format that is known here.
        newest: u8,
        /// Its format.
        found: u8,
    },
    /// The user's metadata, or a bucket's settings, are too much.
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
    /// Checks the bounds; `headers` count as well.
    pub fn check(&self, headers: &Headers) -> Result<(), RecordError> {
        if self.entries.len() > MAX_META_ENTRIES {
            return Err(RecordError::MetaTooLarge { found: self.entries.len(), most: MAX_META_ENTRIES });
        }
        let found = self.content_type.as_ref().map_or(0, String::len)
            + headers.len()
            + self.entries.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if found > MAX_META {
            return Err(RecordError::MetaTooLarge { found, most: MAX_META });
        }
        Ok(())
    }
}

/// How an object is to be delivered over HTTP, as whoever put it said; kept and returned, never looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headers {
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `Expires`, as it was written.
    pub expires: Option<String>,
}

impl Headers {
    fn len(&self) -> usize {
        let Self { cache_control, content_disposition, content_encoding, content_language, expires } = self;
        [cache_control, content_disposition, content_encoding, content_language, expires]
            .into_iter()
            .map(|value| value.as_ref().map_or(0, String::len))
            .sum()
    }
}

/// Hashes of the content that clients ask for again, beside the BLAKE3 that Pando itself relies on. Whoever took
/// the object computed them over all of its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests {
    /// MD5 of the content, or, for an object of several parts, of their MD5s: what S3 clients expect as ETag.
    pub md5: Option<[u8; 16]>,
    /// Of how many parts the object was put together; `None`: it was put in one piece.
    pub parts: Option<u16>,
    /// The checksum of the algorithm that the client chose.
    pub checksum: Option<Checksum>,
    /// Whether the checksum is that of the parts' checksums rather than of the content.
    pub composite: bool,
}

/// A checksum of the content, big-endian where it is a number, as S3 writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Checksum {
    /// CRC-32 (ISO-HDLC).
    Crc32([u8; 4]),
    /// CRC-32C (Castagnoli).
    Crc32c([u8; 4]),
    /// CRC-64/NVME.
    Crc64Nvme([u8; 8]),
    /// SHA-1.
    Sha1([u8; 20]),
    /// SHA-256.
    Sha256([u8; 32]),
}

/// One version of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Bytes of content.
    pub size: u64,
    /// BLAKE3 of the whole content; that of an object that was uploaded in parts is not known.
    pub hash: Option<[u8; 32]>,
    /// When it was put, in Unix milliseconds by the clock of the node that took it.
    pub modified: u64,
    /// What the user said about it.
    pub meta: UserMeta,
    /// Which network key sealed the body; the first key is epoch 1.
    pub epoch: u32,
    /// The sealed [`Body`]; see [`Record::set_body`].
    pub body: Bytes,
    /// How to deliver it.
    pub headers: Headers,
    /// Its other hashes.
    pub digests: Digests,
    /// Names and values by which users sort their objects.
    pub tags: Vec<(String, String)>,
    /// What the body was sealed with in the place of the version's id, if the version was named before it was known
    /// what it is: an upload in parts may be completed several times, with other parts, and no key may seal two
    /// things.
    pub salt: Option<WriteId>,
    /// Which version it is, and its place among the versions of its key.
    pub mark: Mark,
}

/// Where an object's content is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Here.
    Inline(Bytes),
    /// In these chunks, or in the chunks that these manifest nodes list (`depth` levels down).
    Chunks(ChunkTree),
    /// In these parts, one after the other: see [`Parts`].
    Parts(Vec<Part>),
    /// In parts whose list is this chunk, of that many bytes: see [`Parts::decode`].
    PartsIn(ChunkRef, u32),
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
    /// See [`Record::hash`]; `None` for what is no object.
    pub hash: Option<[u8; 32]>,
    /// See [`Digests::md5`].
    pub md5: Option<[u8; 16]>,
    /// See [`Digests::parts`].
    pub parts: Option<u16>,
    /// See [`Mark::place`].
    pub place: u64,
    /// See [`Mark::null`].
    pub null: bool,
    /// See [`Mark::deleted`].
    pub deleted: bool,
    /// See [`Mark::null_at`].
    pub null_at: Option<WriteId>,
}

/// An upload of several parts: what was said when it began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadRecord {
    /// When it began, in Unix milliseconds.
    pub created: u64,
    /// What the user says about the object.
    pub meta: UserMeta,
    /// How to deliver it.
    pub headers: Headers,
    /// By what the user sorts it.
    pub tags: Vec<(String, String)>,
    /// The checksum that the client wants, by S3's name; empty: none in particular.
    pub checksum: String,
    /// Whether that is to be one of the parts' checksums.
    pub composite: bool,
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
    /// Seals it for one version of one object. The version must have no other body, ever; where that can't be known,
    /// a random salt takes its place, and stands in [`Record::salt`].
    pub fn seal(&self, network: &NetworkKey, name: &RegisterName, version: &WriteId) -> Bytes {
        let plain = postcard::to_stdvec(self).expect("a body is plain data");
        seal::seal_body(network, name.as_bytes(), version, plain).into()
    }
}

impl Record {
    /// The record's bytes.
    pub fn encode(&self) -> Result<Bytes, RecordError> {
        self.check()?;
        let bytes = encode(OBJECT_FORMAT, self);
        if bytes.len() > MAX_VALUE {
            return Err(RecordError::MetaTooLarge { found: bytes.len(), most: MAX_VALUE });
        }
        Ok(bytes)
    }

    /// A record from the disk or the wire.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let record: Record = match bytes.first() {
            Some(1) => decode::<former::FirstRecord>("object record", 1, bytes)?.into(),
            Some(2) => decode::<former::SecondRecord>("object record", 2, bytes)?.into(),
            _ => decode("object record", OBJECT_FORMAT, bytes)?,
        };
        record.check()?;
        Ok(record)
    }

    fn check(&self) -> Result<(), RecordError> {
        self.meta.check(&self.headers)?;
        check_tags(&self.tags)
    }

    /// Gives the record of the version `version` of the register `name` its body.
    pub fn set_body(&mut self, body: &Body, network: &NetworkKey, name: &RegisterName, version: &WriteId) {
        (self.body, self.salt) = (body.seal(network, name, version), None);
    }

    /// Opens the body, and checks that it can be the body of this size.
    pub fn open(
        &self,
        network: &NetworkKey,
        name: &RegisterName,
        version: &WriteId,
    ) -> Result<Body, RecordError> {
        let sealed_with = self.salt.as_ref().unwrap_or(version);
        let plain = seal::open_body(network, name.as_bytes(), sealed_with, &self.body)
            .map_err(|_| RecordError::Sealed)?;
        let malformed = |why: String| RecordError::Malformed { what: "object body", why };
        let body: Body = postcard::from_bytes(&plain).map_err(|why| malformed(why.to_string()))?;
        self.check_body(&body).map_err(|why| malformed(why.to_owned()))?;
        Ok(body)
    }

    fn check_body(&self, body: &Body) -> Result<(), &'static str> {
        let checked = match body {
            Body::Inline(bytes) if bytes.len() as u64 == self.size => return Ok(()),
            Body::Inline(_) => return Err("its length is not the size"),
            Body::PartsIn(_, 1..=MAX_LIST) => return Ok(()),
            Body::PartsIn(..) => return Err("its list of parts is no chunk"),
            Body::Chunks(tree) => Parts::one(self.size, tree.clone()),
            Body::Parts(parts) => Parts::new(parts.clone()),
        };
        let parts = checked.map_err(|BadParts(why)| why)?;
        if parts.size() == self.size { Ok(()) } else { Err("its parts are not as long as the whole") }
    }

    /// Whether the content may be in chunks: it is too long to stand here, or was put together of parts.
    pub fn may_have_chunks(&self) -> bool {
        !self.mark.deleted && (self.size > MAX_INLINE as u64 || self.hash.is_none())
    }

    /// What a listing shows.
    pub fn summary(&self, etag: WriteId) -> Summary {
        let Digests { md5, parts, .. } = self.digests;
        let Mark { place, null, deleted, null_at, .. } = self.mark;
        let (size, modified, hash) = (self.size, self.modified, self.hash);
        Summary { size, modified, etag, hash, md5, parts, place, null, deleted, null_at }
    }

    /// The record of a delete marker: where one is current, there is no object.
    pub fn marker(modified: u64) -> Self {
        Self {
            size: 0,
            hash: None,
            modified,
            meta: UserMeta::default(),
            epoch: 1,
            body: Bytes::new(),
            headers: Headers::default(),
            digests: Digests::default(),
            tags: Vec::new(),
            salt: None,
            mark: Mark { deleted: true, ..Mark::default() },
        }
    }
}

impl Summary {
    /// What a listing shows of a register that holds no object.
    pub fn of_other(modified: u64, etag: WriteId) -> Self {
        Self { deleted: false, ..Record::marker(modified).summary(etag) }
    }
}

impl UploadRecord {
    /// The record's bytes.
    pub fn encode(&self) -> Result<Bytes, RecordError> {
        self.check()?;
        Ok(encode(FORMAT, self))
    }

    /// A record from the disk or the wire.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let record: Self = decode("upload record", FORMAT, bytes)?;
        record.check()?;
        Ok(record)
    }

    fn check(&self) -> Result<(), RecordError> {
        if self.checksum.len() > 16 {
            return Err(RecordError::MetaTooLarge { found: self.checksum.len(), most: 16 });
        }
        self.meta.check(&self.headers)?;
        check_tags(&self.tags)
    }
}

impl InviteRecord {
    /// The record's bytes.
    pub fn encode(&self) -> Bytes {
        encode(FORMAT, self)
    }

    /// A record from the disk or the wire.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        decode("invite record", FORMAT, bytes)
    }
}

/// Checks the bounds of an object's tags.
pub fn check_tags(tags: &[(String, String)]) -> Result<(), RecordError> {
    let (most, name_len, value_len) = MAX_TAGS;
    if tags.len() > most {
        return Err(RecordError::MetaTooLarge { found: tags.len(), most });
    }
    let too_long = |text: &str, most| {
        Some(text.chars().count()).filter(|found| *found > most).map(|found| (found, most))
    };
    match tags.iter().find_map(|(name, value)| too_long(name, name_len).or(too_long(value, value_len))) {
        Some((found, most)) => Err(RecordError::MetaTooLarge { found, most }),
        None => Ok(()),
    }
}

pub(crate) fn encode<T: Serialize>(format: u8, record: &T) -> Bytes {
    postcard::to_extend(record, vec![format]).expect("a record is plain data").into()
}

/// Reads what has exactly this format.
pub(crate) fn decode<T: DeserializeOwned>(
    what: &'static str,
    format: u8,
    bytes: &[u8],
) -> Result<T, RecordError> {
    let malformed = |why: String| RecordError::Malformed { what, why };
    match bytes.split_first() {
        None => Err(malformed("empty".to_owned())),
        Some((found, rest)) if *found == format && rest.len() <= MAX_VALUE => {
            postcard::from_bytes(rest).map_err(|why| malformed(why.to_string()))
        }
        Some((found, rest)) if *found == format => Err(malformed(format!("{} bytes", rest.len()))),
        Some((&found, _)) => Err(RecordError::TooNew { what, newest: format, found }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{id::ChunkId, seal::ContentKey};

    const KEY: NetworkKey = NetworkKey([3; 32]);

    fn record(size: u64, body: &Body) -> (Record, RegisterName, WriteId) {
        let name = RegisterName::object("default", "a").unwrap();
        let (version, salt) = (WriteId([9; 16]), WriteId([4; 16]));
        let record = Record {
            size,
            hash: Some([1; 32]),
            modified: 1_700_000_000_000,
            meta: UserMeta {
                content_type: Some("text/plain".into()),
                entries: vec![("a".into(), "b".into())],
            },
            epoch: 1,
            body: body.seal(&KEY, &name, &salt),
            headers: Headers { cache_control: Some("no-store".into()), ..Headers::default() },
            digests: Digests {
                md5: Some([7; 16]),
                parts: Some(300),
                checksum: Some(Checksum::Crc32([1, 2, 3, 4])),
                composite: true,
            },
            tags: vec![("color".into(), "red".into())],
            salt: Some(salt),
            mark: Mark {
                version: Some(WriteId([5; 16])),
                place: 1_700_000_000_001,
                null: false,
                deleted: false,
                null_at: Some(WriteId([6; 16])),
                before: Some(WriteId([8; 16])),
                revision: 300,
            },
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
    fn parts_must_fit_the_whole() {
        let chunk = |number| ChunkRef { id: ChunkId([number; 32]), key: ContentKey([number; 32]) };
        let part = |size, count: u8| Part {
            size,
            tree: ChunkTree { depth: 0, roots: (0..count).map(chunk).collect() },
        };
        let open = |size, body: &Body| {
            let (record, name, version) = record(size, body);
            record.open(&KEY, &name, &version)
        };
        let good = Body::Parts(vec![part(CHUNK as u64 + 1, 2), part(0, 0), part(5, 1)]);
        assert_eq!(open(CHUNK as u64 + 6, &good).as_ref(), Ok(&good));
        assert!(open(CHUNK as u64 + 7, &good).is_err());
        assert!(open(5, &Body::Parts(vec![part(5, 2)])).is_err());
        assert!(open(u64::MAX, &Body::Parts(vec![part(u64::MAX, 1), part(u64::MAX, 1)])).is_err());
        assert!(open(5, &Body::PartsIn(chunk(1), 0)).is_err());
        assert!(open(5, &Body::PartsIn(chunk(1), CHUNK as u32 + 1)).is_err());
        assert!(open(5, &Body::PartsIn(chunk(1), CHUNK as u32)).is_ok());
    }

    #[test]
    fn of_one_version_no_two_bodies_are_sealed_alike() {
        let (mut record, name, version) = record(5, &Body::Inline(Bytes::from_static(b"hello")));
        let other = Body::Inline(Bytes::from_static(b"HELLO"));
        let salts = [WriteId([1; 16]), WriteId([2; 16])];
        let sealed = salts.map(|salt| {
            (record.body, record.salt) = (other.seal(&KEY, &name, &salt), Some(salt));
            assert_eq!(record.open(&KEY, &name, &version).as_ref(), Ok(&other));
            record.body.clone()
        });
        assert_ne!(sealed[0], sealed[1]);
        record.salt = Some(salts[0]);
        assert_eq!(record.open(&KEY, &name, &version), Err(RecordError::Sealed));
        record.set_body(&other, &KEY, &name, &version);
        assert_eq!(record.open(&KEY, &name, &version), Ok(other));
        assert_eq!(
            record.open(&KEY, &name, &salts[0]),
            Err(RecordError::Sealed),
            "bound to the version again"
        );
    }

    #[test]
    fn the_format_of_version_1_still_reads() {
        let old = "0105010101010101010101010101010101010101010101010101010101010101010180d0a4a2bb31010a746578742f706c61696e0101610162010568656c6c6f";
        let bytes = data_encoding::HEXLOWER.decode(old.as_bytes()).unwrap();
        let read = Record::decode(&bytes).unwrap();
        assert_eq!((read.size, read.modified, read.epoch), (5, 1_699_536_775_168, 1));
        assert_eq!(read.meta.content_type.as_deref(), Some("text/plain"));
        assert_eq!(read.body.as_ref(), b"hello");
        assert_eq!((read.headers, read.digests, read.tags, read.salt), Default::default());
        assert_eq!(read.mark, Mark::null_at(1_699_536_775_168));
    }

    #[test]
    fn the_format_of_version_2_still_reads() {
        let old = "020501010101010101010101010101010101010101010101010101010101010101010180d095ffbc31010a746578742f706c61696e0101610162010568656c6c6f01086e6f2d73746f726500000000010707070707070707070707070707070701ac02010001020304010105636f6c6f72037265640104040404040404040404040404040404";
        let bytes = data_encoding::HEXLOWER.decode(old.as_bytes()).unwrap();
        let (mut record, ..) = record(5, &Body::Inline(Bytes::new()));
        record.body = Bytes::from_static(b"hello");
        record.mark = Mark::null_at(record.modified);
        assert_eq!(Record::decode(&bytes), Ok(record));
    }

    #[test]
    fn the_format_of_version_3_still_reads() {
        let old = "030501010101010101010101010101010101010101010101010101010101010101010180d095ffbc31010a746578742f706c61696e0101610162010568656c6c6f01086e6f2d73746f726500000000010707070707070707070707070707070701ac02010001020304010105636f6c6f720372656401040404040404040404040404040404040105050505050505050505050505050505";
        let old = [
            old,
            "81d095ffbc310000",
            "0106060606060606060606060606060606",
            "0108080808080808080808080808080808",
            "ac02",
        ]
        .concat();
        let bytes = data_encoding::HEXLOWER.decode(old.as_bytes()).unwrap();
        let (mut record, ..) = record(5, &Body::Inline(Bytes::new()));
        record.body = Bytes::from_static(b"hello");
        assert_eq!(Record::decode(&bytes).as_ref(), Ok(&record));
        assert_eq!(record.encode().unwrap(), bytes, "and writes the same bytes");
    }

    #[test]
    fn headers_count_as_metadata() {
        let (mut record, ..) = record(0, &Body::Inline(Bytes::new()));
        record.headers.expires = Some("x".repeat(MAX_META - 22));
        assert!(record.encode().is_ok(), "10 of the type, 2 of the entry, 8 and 2 short of it");
        record.headers.expires = Some("x".repeat(MAX_META));
        assert!(matches!(record.encode(), Err(RecordError::MetaTooLarge { most: MAX_META, .. })));
    }

    #[test]
    fn newer_formats_say_upgrade() {
        assert_eq!(
            Record::decode(&[4, 0]),
            Err(RecordError::TooNew { what: "object record", newest: 3, found: 4 })
        );
    }

    proptest! {
        #[test]
        fn bytes_from_the_wire_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::decode(&bytes);
            let _ = InviteRecord::decode(&bytes);
        }
    }
}
