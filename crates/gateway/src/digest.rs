//! Hashes that S3 clients send and ask for: MD5 and one checksum of five kinds.
//!
//! They are slow beside Pando's own (MD5 0.65 GB/s), so they run beside the transfer: a large body is hashed in a
//! thread of its own, fed through a bounded queue; a small one in line, since a thread would cost more.

use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use data_encoding::BASE64;
use md5::{Digest as _, Md5};
use pando_core::record::{Checksum, Digests};
use tokio::sync::{mpsc, oneshot};

/// Pieces that wait to be hashed: as a piece is what one read of a connection gives (some 64 KiB), about half a MiB.
const QUEUE: usize = 8;

/// The kinds of checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

/// All of them.
pub(crate) const ALGORITHMS: [Algorithm; 5] =
    [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme, Algorithm::Sha1, Algorithm::Sha256];

impl Algorithm {
    /// What S3 calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "CRC32",
            Algorithm::Crc32c => "CRC32C",
            Algorithm::Crc64Nvme => "CRC64NVME",
            Algorithm::Sha1 => "SHA1",
            Algorithm::Sha256 => "SHA256",
        }
    }

    /// The algorithm that S3 calls so, in whatever case.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        ALGORITHMS.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    /// The algorithm of a header `x-amz-checksum-…`.
    pub(crate) fn of_header(header: &str) -> Option<Self> {
        Self::of_name(
            header
                .get(..15)
                .filter(|start| start.eq_ignore_ascii_case("x-amz-checksum-"))
                .map(|_| &header[15..])?,
        )
    }

    /// The algorithm of a checksum.
    pub(crate) fn of(checksum: &Checksum) -> Self {
        match checksum {
            Checksum::Crc32(_) => Algorithm::Crc32,
            Checksum::Crc32c(_) => Algorithm::Crc32c,
            Checksum::Crc64Nvme(_) => Algorithm::Crc64Nvme,
            Checksum::Sha1(_) => Algorithm::Sha1,
            Checksum::Sha256(_) => Algorithm::Sha256,
        }
    }

    /// Whether checksums of pieces can be joined to that of the whole.
    pub(crate) fn joins(self) -> bool {
        self.crc().is_some()
    }

    fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Algorithm::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Algorithm::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Algorithm::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Algorithm::Sha1 | Algorithm::Sha256 => None,
        }
    }

    fn of_number(self, number: u64) -> Option<Checksum> {
        let bytes = number.to_be_bytes();
        let low = || [bytes[4], bytes[5], bytes[6], bytes[7]];
        match self {
            Algorithm::Crc32 => Some(Checksum::Crc32(low())),
            Algorithm::Crc32c => Some(Checksum::Crc32c(low())),
            Algorithm::Crc64Nvme => Some(Checksum::Crc64Nvme(bytes)),
            Algorithm::Sha1 | Algorithm::Sha256 => None,
        }
    }

    fn of_bytes(self, bytes: &[u8]) -> Option<Checksum> {
        match self {
            Algorithm::Crc32 => bytes.try_into().ok().map(Checksum::Crc32),
            Algorithm::Crc32c => bytes.try_into().ok().map(Checksum::Crc32c),
            Algorithm::Crc64Nvme => bytes.try_into().ok().map(Checksum::Crc64Nvme),
            Algorithm::Sha1 => bytes.try_into().ok().map(Checksum::Sha1),
            Algorithm::Sha256 => bytes.try_into().ok().map(Checksum::Sha256),
        }
    }

    /// Reads the form that S3 writes: base64.
    pub(crate) fn parse(self, text: &str) -> Option<Checksum> {
        self.of_bytes(&BASE64.decode(text.as_bytes()).ok()?)
    }

    /// The checksum of all of `bytes`.
    pub(crate) fn of_all(self, bytes: &[u8]) -> Checksum {
        let mut sum = Sum::new(self);
        sum.update(bytes);
        sum.finish()
    }

    /// The checksum of two pieces that follow each other, if this algorithm can tell.
    pub(crate) fn join(self, first: &Checksum, second: &Checksum, second_len: u64) -> Option<Checksum> {
        let joined = crc_fast::checksum_combine(self.crc()?, number(first)?, number(second)?, second_len);
        self.of_number(joined)
    }
}

/// The bytes of a checksum.
pub(crate) fn bytes_of(checksum: &Checksum) -> &[u8] {
    match checksum {
        Checksum::Crc32(bytes) | Checksum::Crc32c(bytes) => bytes,
        Checksum::Crc64Nvme(bytes) => bytes,
        Checksum::Sha1(bytes) => bytes,
        Checksum::Sha256(bytes) => bytes,
    }
}

/// A checksum as S3 writes it.
pub(crate) fn text_of(checksum: &Checksum) -> String {
    BASE64.encode(bytes_of(checksum))
}

fn number(checksum: &Checksum) -> Option<u64> {
    match checksum {
        Checksum::Crc32(bytes) | Checksum::Crc32c(bytes) => Some(u32::from_be_bytes(*bytes).into()),
        Checksum::Crc64Nvme(bytes) => Some(u64::from_be_bytes(*bytes)),
        Checksum::Sha1(_) | Checksum::Sha256(_) => None,
    }
}

enum Sum {
    Crc(Algorithm, Box<crc_fast::Digest>),
    Sha(Algorithm, aws_lc_rs::digest::Context),
}

impl Sum {
    fn new(algorithm: Algorithm) -> Self {
        use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
        match (algorithm.crc(), algorithm) {
            (Some(crc), _) => Sum::Crc(algorithm, Box::new(crc_fast::Digest::new(crc))),
            (None, Algorithm::Sha1) => Sum::Sha(algorithm, Context::new(&SHA1_FOR_LEGACY_USE_ONLY)),
            (None, _) => Sum::Sha(algorithm, Context::new(&SHA256)),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Sum::Crc(_, digest) => digest.update(bytes),
            Sum::Sha(_, context) => context.update(bytes),
        }
    }

    fn finish(self) -> Checksum {
        match self {
            Sum::Crc(algorithm, digest) => algorithm.of_number(digest.finalize()),
            Sum::Sha(algorithm, context) => algorithm.of_bytes(context.finish().as_ref()),
        }
        .expect("a digest has its algorithm's length")
    }
}

/// Computes the MD5 and one checksum.
pub(crate) struct Hasher {
    md5: Md5,
    sum: Sum,
}

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        Self { md5: Md5::new(), sum: Sum::new(algorithm) }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        self.sum.update(bytes);
    }

    pub(crate) fn finish(self) -> Digests {
        Digests {
            md5: Some(self.md5.finalize().into()),
            checksum: Some(self.sum.finish()),
            ..Digests::default()
        }
    }

    /// Goes on in a thread of its own. The hashes are told when the sender is dropped.
    pub(crate) fn beside(mut self, done: oneshot::Sender<Digests>) -> mpsc::Sender<Bytes> {
        let (pieces, mut queue) = mpsc::channel::<Bytes>(QUEUE);
        tokio::task::spawn_blocking(move || {
            while let Some(piece) = queue.blocking_recv() {
                self.update(&piece);
            }
            // Whoever asked may have given up.
            let _ = done.send(self.finish());
        });
        pieces
    }
}

/// The MD5 of some bytes.
pub(crate) fn md5_of(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // The check values of the CRC catalogue, RFC 3174 and FIPS 180-2 for "123456789" and "abc".
        let hex = |checksum: Checksum| data_encoding::HEXLOWER.encode(bytes_of(&checksum));
        assert_eq!(hex(Algorithm::Crc32.of_all(b"123456789")), "cbf43926");
        assert_eq!(hex(Algorithm::Crc32c.of_all(b"123456789")), "e3069283");
        assert_eq!(hex(Algorithm::Crc64Nvme.of_all(b"123456789")), "ae8b14860a799888");
        assert_eq!(hex(Algorithm::Sha1.of_all(b"abc")), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert!(hex(Algorithm::Sha256.of_all(b"abc")).starts_with("ba7816bf8f01cfea414140de5dae2223"));
        assert_eq!(data_encoding::HEXLOWER.encode(&md5_of(b"abc")), "900150983cd24fb0d6963f7d28e17f72");
    }

    #[test]
    fn pieces_join() {
        for algorithm in ALGORITHMS {
            let (first, second) = (algorithm.of_all(b"some bytes, "), algorithm.of_all(b"and more"));
            let joined = algorithm.join(&first, &second, 8);
            let whole = Some(algorithm.of_all(b"some bytes, and more")).filter(|_| algorithm.joins());
            assert_eq!(joined, whole, "{}", algorithm.name());
        }
    }

    #[test]
    fn texts_and_names_are_read_back() {
        for algorithm in ALGORITHMS {
            let sum = algorithm.of_all(b"x");
            assert_eq!(algorithm.parse(&text_of(&sum)), Some(sum));
            assert_eq!(Algorithm::of(&sum), algorithm);
            assert_eq!(algorithm.parse("AA"), None);
            let header = format!("x-amz-checksum-{}", algorithm.name().to_lowercase());
            assert_eq!(Algorithm::of_header(&header), Some(algorithm));
        }
        assert_eq!(Algorithm::of_header("x-amz-checksum-md5"), None);
        assert_eq!(Algorithm::of_header("x-amz"), None);
    }

    #[tokio::test]
    async fn beside_is_the_same() {
        let (done, digests) = oneshot::channel();
        let pieces = Hasher::new(Algorithm::Crc32).beside(done);
        for piece in [&b"123"[..], b"456", b"789"] {
            pieces.send(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        drop(pieces);
        let mut hasher = Hasher::new(Algorithm::Crc32);
        hasher.update(b"123456789");
        assert_eq!(digests.await.unwrap(), hasher.finish());
    }
}
