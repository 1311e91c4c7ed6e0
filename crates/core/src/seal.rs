//! Sealing: how 4 MiB of a file become a chunk that strangers can keep but not read.
//!
//! Owns the geometry (chunk, segment, tag) and the cryptography of chunks and record bodies. The key of
//! a chunk is a keyed BLAKE3 hash of its plaintext under the network key: the same content is the same
//! chunk within a network, and unrelated outside it. A chunk is sealed as 64 KiB segments with
//! AES-256-GCM (NIST SP 800-38D); the nonce is the segment's number, which is safe because a key is
//! used for one content only. The chunk's id is the BLAKE3 hash of all sealed bytes.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use blake3::hazmat::{ChainingValue, HasherExt};
use serde::{Deserialize, Serialize};

use crate::id::{ChunkId, NodeId, WriteId};

/// Plaintext bytes of a full chunk: 4 MiB, a power of two so that chunks are subtrees of BLAKE3's tree.
pub const CHUNK: usize = 4 << 20;
/// Plaintext bytes of a full segment: the unit that is read and verified alone.
pub const SEGMENT: usize = 64 << 10;
/// Bytes that sealing adds to each segment: the GCM tag.
pub const TAG: usize = 16;
/// Sealed bytes of a full segment.
pub const SEALED_SEGMENT: usize = SEGMENT + TAG;
/// Sealed bytes of a full chunk, and the most a chunk may have.
pub const SEALED_CHUNK: usize = CHUNK + CHUNK / SEGMENT * TAG;

/// How many segments a chunk of `plain` plaintext bytes has.
pub fn segments(plain: usize) -> usize {
    plain.div_ceil(SEGMENT)
}

/// Sealed bytes of `plain` plaintext bytes, cut into segments.
pub fn sealed_len(plain: usize) -> usize {
    plain + segments(plain) * TAG
}

/// The secret that all members of a network share.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkKey(pub [u8; 32]);

impl NetworkKey {
    /// What `node` shows to prove that it holds this key, without telling it. Good for no other node; who it is
    /// says the connection.
    pub fn proof_of(&self, node: &NodeId) -> [u8; 32] {
        let key = blake3::derive_key("pando 1 proof of membership", &self.0);
        *blake3::keyed_hash(&key, &node.0).as_bytes()
    }
}

impl fmt::Debug for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkKey(…)")
    }
}

/// The key of one chunk. Whoever holds it can read that content and nothing else.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContentKey(pub [u8; 32]);

impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentKey(…)")
    }
}

/// A segment whose tag does not match: the bytes are not what was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("segment {segment} does not match its authentication tag")]
pub struct Corrupt {
    /// The segment's number in its chunk.
    pub segment: u32,
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("AES-256 takes 32 bytes"))
}

fn nonce(segment: u32) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&segment.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// What sealing a chunk yields besides the sealed bytes.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The chunk's name.
    pub id: ChunkId,
    /// What opens it.
    pub key: ContentKey,
    /// The plaintext's place in the whole file's BLAKE3 tree.
    pub subtree: Subtree,
}

/// The BLAKE3 of one chunk of plaintext as a subtree of its file, and as if it were the whole file.
#[derive(Clone, Debug)]
pub struct Subtree {
    inner: ChainingValue,
    alone: blake3::Hash,
}

/// Seals `plain` (1 byte to [`CHUNK`]) into `out`, which is cleared first. `index` is the chunk's number
/// in its file; it matters to the subtree hash only.
pub fn seal(network: &NetworkKey, plain: &[u8], index: u64, out: &mut Vec<u8>) -> Sealed {
    assert!(!plain.is_empty() && plain.len() <= CHUNK, "a chunk has 1 to {CHUNK} bytes, not {}", plain.len());
    let mut keyed = blake3::Hasher::new_keyed(&network.0);
    let mut tree = blake3::Hasher::new();
    tree.set_input_offset(index * CHUNK as u64);
    for segment in plain.chunks(SEGMENT) {
        keyed.update(segment);
        tree.update(segment);
    }
    let key = ContentKey(*keyed.finalize().as_bytes());
    let alone = if index == 0 { tree.finalize() } else { blake3::Hash::from_bytes([0; 32]) };
    let subtree = Subtree { inner: tree.finalize_non_root(), alone };

    let cipher = cipher(&key.0);
    let mut hasher = blake3::Hasher::new();
    out.clear();
    out.reserve(sealed_len(plain.len()));
    for (number, segment) in plain.chunks(SEGMENT).enumerate() {
        let start = out.len();
        out.extend_from_slice(segment);
        let tag = cipher
            .seal_in_place_separate_tag(nonce(number as u32), Aad::empty(), &mut out[start..])
            .expect("a segment is far below GCM's limit");
        out.extend_from_slice(tag.as_ref());
        hasher.update(&out[start..]);
    }
    Sealed { id: ChunkId(*hasher.finalize().as_bytes()), key, subtree }
}

/// Opens the segments of one chunk.
pub struct Opener(LessSafeKey);

impl Opener {
    /// For the chunk that `key` sealed.
    pub fn new(key: &ContentKey) -> Self {
        Self(cipher(&key.0))
    }

    /// Opens segment number `segment` in place and returns its plaintext. Nothing is returned that does
    /// not match its tag.
    pub fn open<'a>(&self, segment: u32, sealed: &'a mut [u8]) -> Result<&'a mut [u8], Corrupt> {
        if crate::mutant("serve-unverified") {
            return Ok(self.decipher(segment, sealed));
        }
        self.0.open_in_place(nonce(segment), Aad::empty(), sealed).map_err(|_| Corrupt { segment })
    }

    /// Opens without looking at the tag, for the mutant: in counter mode sealing twice is opening.
    fn decipher<'a>(&self, segment: u32, sealed: &'a mut [u8]) -> &'a mut [u8] {
        let plain = sealed.len().saturating_sub(TAG);
        let again = self.0.seal_in_place_separate_tag(nonce(segment), Aad::empty(), &mut sealed[..plain]);
        let _tag = again.expect("a segment is far below GCM's limit");
        &mut sealed[..plain]
    }
}

/// The name of sealed bytes.
pub fn chunk_id(sealed: &[u8]) -> ChunkId {
    ChunkId(*blake3::hash(sealed).as_bytes())
}

/// The key under which the body of one version's record is sealed: unique to the name and version, so
/// that a fixed nonce is safe.
fn record_key(network: &NetworkKey, name: &[u8], version: &WriteId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(&network.0);
    hasher.update(b"pando record body 1\0").update(version.as_bytes()).update(name);
    *hasher.finalize().as_bytes()
}

/// Seals a record's body for the version `version` of the register `name`.
pub fn seal_body(network: &NetworkKey, name: &[u8], version: &WriteId, mut plain: Vec<u8>) -> Vec<u8> {
    cipher(&record_key(network, name, version))
        .seal_in_place_append_tag(nonce(0), Aad::empty(), &mut plain)
        .expect("a record is far below GCM's limit");
    plain
}

/// Opens what [`seal_body`] sealed.
pub fn open_body(
    network: &NetworkKey,
    name: &[u8],
    version: &WriteId,
    sealed: &[u8],
) -> Result<Vec<u8>, Corrupt> {
    let mut bytes = sealed.to_vec();
    let plain = cipher(&record_key(network, name, version))
        .open_in_place(nonce(0), Aad::empty(), &mut bytes)
        .map_err(|_| Corrupt { segment: 0 })?
        .len();
    bytes.truncate(plain);
    Ok(bytes)
}

/// Merges the subtrees of a file's chunks, in order, into the BLAKE3 of the whole file: the number that
/// `b3sum` prints. (BLAKE3 specification, section 5.1.2: the stack of chaining values.)
#[derive(Clone, Debug, Default)]
pub struct TreeHash {
    stack: Vec<ChainingValue>,
    count: u64,
    last: Option<Subtree>,
}

impl TreeHash {
    /// Adds the next chunk. All chunks but the last must be full.
    pub fn push(&mut self, subtree: Subtree) {
        let Some(previous) = self.last.replace(subtree) else { return };
        self.count += 1;
        let mut value = previous.inner;
        let mut count = self.count;
        while count & 1 == 0 {
            let left = self.stack.pop().expect("as many values as bits set in the count");
            value = blake3::hazmat::merge_subtrees_non_root(&left, &value, blake3::hazmat::Mode::Hash);
            count >>= 1;
        }
        self.stack.push(value);
    }

    /// The file's hash.
    pub fn finish(mut self) -> [u8; 32] {
        let Some(last) = self.last else { return *blake3::hash(b"").as_bytes() };
        if self.stack.is_empty() {
            return *last.alone.as_bytes();
        }
        let mut value = last.inner;
        while self.stack.len() > 1 {
            let left = self.stack.pop().expect("more than one");
            value = blake3::hazmat::merge_subtrees_non_root(&left, &value, blake3::hazmat::Mode::Hash);
        }
        *blake3::hazmat::merge_subtrees_root(&self.stack[0], &value, blake3::hazmat::Mode::Hash).as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: NetworkKey = NetworkKey([7; 32]);

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n * 31 % 251) as u8).collect()
    }

    fn open_all(key: &ContentKey, sealed: &mut [u8]) -> Result<Vec<u8>, Corrupt> {
        let opener = Opener::new(key);
        let mut plain = Vec::new();
        for (number, segment) in sealed.chunks_mut(SEALED_SEGMENT).enumerate() {
            plain.extend_from_slice(opener.open(number as u32, segment)?);
        }
        Ok(plain)
    }

    #[test]
    fn seals_and_opens_at_every_edge() {
        for len in [1, 15, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT, CHUNK - 1, CHUNK] {
            let plain = content(len);
            let mut sealed = Vec::new();
            let done = seal(&KEY, &plain, 0, &mut sealed);
            assert_eq!(sealed.len(), sealed_len(len));
            assert_eq!(chunk_id(&sealed), done.id);
            assert_eq!(open_all(&done.key, &mut sealed).unwrap(), plain);
        }
    }

    #[test]
    fn the_same_content_is_the_same_chunk_only_within_a_network() {
        let plain = content(100_000);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        let first = seal(&KEY, &plain, 0, &mut a);
        let elsewhere = seal(&KEY, &plain, 9, &mut b);
        assert_eq!((first.id, &a), (elsewhere.id, &b), "also at another place of a file");
        assert_ne!(seal(&NetworkKey([8; 32]), &plain, 0, &mut b).id, first.id);
    }

    #[test]
    fn one_wrong_bit_never_passes() {
        let plain = content(2 * SEGMENT + 5);
        let mut sealed = Vec::new();
        let done = seal(&KEY, &plain, 0, &mut sealed);
        for at in [0, SEGMENT, SEGMENT + TAG, sealed.len() - 1] {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            let segment = (at / SEALED_SEGMENT) as u32;
            assert_eq!(open_all(&done.key, &mut bad), Err(Corrupt { segment }));
        }
        sealed.rotate_left(SEALED_SEGMENT);
        assert!(open_all(&done.key, &mut sealed).is_err(), "segments can't change places");
    }

    #[test]
    fn chunks_merge_into_the_blake3_of_the_file() {
        for (chunks, tail) in [(0, 1), (0, CHUNK), (1, 1), (1, CHUNK), (2, 77), (4, CHUNK), (6, 1 << 20)] {
            let plain = content(chunks * CHUNK + tail);
            let mut tree = TreeHash::default();
            let mut sealed = Vec::new();
            for (index, chunk) in plain.chunks(CHUNK).enumerate() {
                tree.push(seal(&KEY, chunk, index as u64, &mut sealed).subtree);
            }
            assert_eq!(tree.finish(), *blake3::hash(&plain).as_bytes(), "{chunks} chunks and {tail}");
        }
        assert_eq!(TreeHash::default().finish(), *blake3::hash(b"").as_bytes());
    }

    #[test]
    fn record_bodies_are_bound_to_name_and_version() {
        let version = WriteId([1; 16]);
        let sealed = seal_body(&KEY, b"o/a", &version, b"hello".to_vec());
        assert_eq!(open_body(&KEY, b"o/a", &version, &sealed).unwrap(), b"hello");
        assert!(open_body(&KEY, b"o/b", &version, &sealed).is_err());
        assert!(open_body(&KEY, b"o/a", &WriteId([2; 16]), &sealed).is_err());
    }
}
