//! Names for things: nodes, chunks, writes, partitions. Newtypes, so that they can't be mixed up.
//!
//! All are plain bytes with a hexadecimal text form; what the bytes mean is said on each type.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER_PERMISSIVE;
use serde::{Deserialize, Serialize};

/// A text form that did not parse: wrong length or not hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {expected} hexadecimal digits, got {found:?}")]
pub struct ParseIdError {
    what: &'static str,
    expected: usize,
    found: String,
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The bytes.
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The first ten hexadecimal digits: enough for a person to tell two apart.
            pub fn short(&self) -> String {
                HEXLOWER_PERMISSIVE.encode(&self.0[..5])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER_PERMISSIVE.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let bad = || ParseIdError { what: $what, expected: $len * 2, found: text.chars().take(80).collect() };
                let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| bad())?;
                Ok($name(bytes.try_into().map_err(|_| bad())?))
            }
        }
    };
}

byte_id!(
    /// A node: the 32 bytes of its Ed25519 public key.
    NodeId, 32, "a node id"
);
byte_id!(
    /// A chunk: the BLAKE3 hash of its sealed bytes, so that a holder without any key can verify it.
    ChunkId, 32, "a chunk id"
);
byte_id!(
    /// One write to a register: random, chosen by the writer, kept through retries. The id of the
    /// write that made an object's current version is that version's id, and its ETag.
    WriteId, 16, "a write id"
);
byte_id!(
    /// A network: random, chosen when the first node makes it.
    NetworkId, 16, "a network id"
);

/// How many slices the hash space has. A fixed power of two: placement is per partition, so this
/// bounds the layout's size (and with it the size of every layout message), and with 1024 a few
/// hundred nodes still get several partitions each.
pub const PARTITIONS: u16 = 1024;

/// One of [`PARTITIONS`] slices of the hash space; keys and chunks fall into partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition(u16);

impl Partition {
    /// The partition with this number, if there is one.
    pub fn new(number: u16) -> Option<Self> {
        (number < PARTITIONS).then_some(Self(number))
    }

    /// The partition of a 32-byte hash: its first ten bits.
    pub fn of_hash(hash: &[u8; 32]) -> Self {
        Self(u16::from_be_bytes([hash[0], hash[1]]) >> 6)
    }

    /// The partition of a chunk.
    pub fn of_chunk(chunk: &ChunkId) -> Self {
        Self::of_hash(&chunk.0)
    }

    /// Its number, below [`PARTITIONS`].
    pub fn number(self) -> u16 {
        self.0
    }

    /// All partitions in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..PARTITIONS).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_and_parse() {
        let id = ChunkId(*blake3::hash(b"x").as_bytes());
        assert_eq!(id.to_string().parse::<ChunkId>().unwrap(), id);
        assert!("abc".parse::<ChunkId>().unwrap_err().to_string().contains("64 hexadecimal"));
        assert!("zz".repeat(32).parse::<NodeId>().is_err());
    }

    #[test]
    fn partitions_cover_the_hash_space() {
        assert_eq!(Partition::of_hash(&[0; 32]).number(), 0);
        assert_eq!(Partition::of_hash(&[0xff; 32]).number(), PARTITIONS - 1);
        assert_eq!(Partition::all().count(), usize::from(PARTITIONS));
        assert!(Partition::new(PARTITIONS).is_none());
    }
}
