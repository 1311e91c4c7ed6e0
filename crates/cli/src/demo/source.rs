//! The demo's data: a file, or random-looking bytes generated on the fly, the same each time they are read.

use std::{
    fs::File,
    hash::{BuildHasher as _, RandomState},
    io::{self, Read},
    path::PathBuf,
};

use anyhow::Context as _;

/// Where bytes come from; may be read any number of times.
#[derive(Clone, Debug)]
pub(super) enum Source {
    File(PathBuf),
    Generated { seed: u64, size: u64 },
}

impl Source {
    /// New data of this size, other data each time.
    pub(super) fn generate(size: u64) -> Self {
        Self::Generated { seed: RandomState::new().hash_one("pando demo"), size }
    }

    /// A reader of all of it.
    pub(super) fn open(&self) -> anyhow::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Self::File(path) => {
                Box::new(File::open(path).with_context(|| format!("can't read {}", path.display()))?)
            }
            Self::Generated { seed, size } => Box::new(Generator { state: *seed, left: *size }),
        })
    }

    /// Its size and BLAKE3, by reading it.
    pub(super) fn measure(&self) -> anyhow::Result<(u64, blake3::Hash)> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(self.open()?).context("can't read the demo's data")?;
        Ok((hasher.count(), hasher.finalize()))
    }
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
struct Generator {
    state: u64,
    left: u64,
}

impl Generator {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Read for Generator {
    /// Whole words until the last: a reader with another buffer gets the same bytes only if its buffers
    /// are multiples of eight, as all of ours are; others get an error rather than other bytes.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.left.min(buffer.len() as u64) as usize;
        if !length.is_multiple_of(8) && length as u64 != self.left {
            return Err(io::Error::other("the demo's data is read in pieces of eight bytes"));
        }
        for word in buffer[..length].chunks_mut(8) {
            word.copy_from_slice(&self.next().to_le_bytes()[..word.len()]);
        }
        self.left -= length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_source_gives_the_same_bytes() {
        let source = Source::generate(100_003);
        let (size, hash) = source.measure().unwrap();
        let mut bytes = Vec::new();
        let mut reader = source.open().unwrap();
        let mut buffer = [0; 64];
        while let count @ 1.. = reader.read(&mut buffer).unwrap() {
            bytes.extend_from_slice(&buffer[..count]);
        }
        assert_eq!((size, hash), (100_003, blake3::hash(&bytes)));
        assert_ne!(Source::generate(100_003).measure().unwrap().1, hash);
        assert!(source.open().unwrap().read(&mut [0; 3]).is_err());
    }
}
