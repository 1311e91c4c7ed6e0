//! What is put and must come back: bytes that don't compress, in which no two chunks are equal, so that nothing is
//! stored only once. Making and checking them costs little more than a copy.

use std::{
    io::{self, Read},
    sync::Arc,
};

use anyhow::ensure;

/// Bytes that repeat from chunk to chunk: more than caches hold, so that reading them costs what reading a file does.
const BLOCK: usize = 64 << 20;
/// What a chunk of Pando's holds. Each begins with a stamp.
const CHUNK: u64 = 4 << 20;
const STAMP: usize = 16;

/// Where contents come from.
#[derive(Clone)]
pub(crate) struct Noise(Arc<[u8]>);

/// One content.
#[derive(Clone)]
pub(crate) struct Content {
    noise: Noise,
    pub(crate) number: u64,
    pub(crate) size: u64,
}

impl Noise {
    pub(crate) fn new() -> Self {
        let mut block = vec![0; BLOCK];
        fill(&mut block);
        Self(block.into())
    }

    /// The first bytes alone.
    pub(crate) fn start<const N: usize>() -> [u8; N] {
        let mut start = [0; N];
        fill(&mut start);
        start
    }

    /// Some of the bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Content number so and so; contents with different numbers share no chunk.
    pub(crate) fn content(&self, number: u64, size: u64) -> Content {
        Content { noise: self.clone(), number, size }
    }
}

fn fill(bytes: &mut [u8]) {
    blake3::Hasher::new().update(b"pando-bench").finalize_xof().fill(bytes);
}

impl Content {
    /// A reader of all of it.
    pub(crate) fn reader(&self) -> Reader {
        Reader { content: self.clone(), at: 0 }
    }

    /// The longest row of bytes that lies in one place from `at` on, as `(bytes, stamp)`.
    fn piece<'a>(&'a self, at: u64, stamp: &'a mut [u8; STAMP]) -> &'a [u8] {
        let (chunk, within) = (at / CHUNK, (at % CHUNK) as usize);
        let left = self.size.saturating_sub(at).min(CHUNK - at % CHUNK) as usize;
        let piece = if within < STAMP {
            stamp[..8].copy_from_slice(&self.number.to_le_bytes());
            stamp[8..].copy_from_slice(&chunk.to_le_bytes());
            &stamp[within..]
        } else {
            &self.noise.0[(at % BLOCK as u64) as usize..]
        };
        &piece[..left.min(piece.len())]
    }

    /// Checks bytes that came from `at` on. Whole comparison costs reading them; `whole: false` looks at stamps only.
    pub(crate) fn check(&self, mut at: u64, mut got: &[u8], whole: bool) -> anyhow::Result<()> {
        ensure!(at + got.len() as u64 <= self.size, "more bytes came than were put");
        while !got.is_empty() {
            let mut stamp = [0; STAMP];
            let is_stamp = at % CHUNK < STAMP as u64;
            let expected = self.piece(at, &mut stamp);
            let length = expected.len().min(got.len());
            let same = !(whole || is_stamp) || got[..length] == expected[..length];
            ensure!(same, "the bytes at {at} are not what was put");
            at += length as u64;
            got = &got[length..];
        }
        Ok(())
    }
}

/// See [`Content::reader`].
pub(crate) struct Reader {
    content: Content,
    at: u64,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let mut stamp = [0; STAMP];
            let piece = self.content.piece(self.at, &mut stamp);
            let length = piece.len().min(buffer.len() - filled);
            if length == 0 {
                break;
            }
            buffer[filled..filled + length].copy_from_slice(&piece[..length]);
            filled += length;
            self.at += length as u64;
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_is_checked() {
        let noise = Noise::new();
        let content = noise.content(7, 2 * CHUNK + 1000);
        let mut bytes = Vec::new();
        content.reader().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, content.size);
        content.check(0, &bytes, true).unwrap();
        content.check(3, &bytes[3..CHUNK as usize + 7], true).unwrap();

        let other = noise.content(8, content.size);
        assert!(other.check(0, &bytes, false).is_err(), "another number is another content");
        assert!(content.check(CHUNK, &bytes[..100], false).is_err(), "another chunk");
        assert!(content.check(1, &bytes, false).is_err(), "too many bytes");
        bytes[CHUNK as usize + 500] ^= 1;
        assert!(content.check(0, &bytes, true).is_err());
    }

    #[test]
    fn no_two_chunks_are_equal() {
        let content = Noise::new().content(1, BLOCK as u64 + 2 * CHUNK);
        let mut bytes = Vec::new();
        content.reader().read_to_end(&mut bytes).unwrap();
        let mut chunks: Vec<_> = bytes.chunks(CHUNK as usize).map(blake3::hash).collect();
        let count = chunks.len();
        chunks.sort_by_key(|hash| *hash.as_bytes());
        chunks.dedup();
        assert_eq!(chunks.len(), count);
    }
}
