//! Fingerprints: whether two nodes hold the same set, told in a few bytes and kept up to date item by item.
//!
//! A fingerprint is the sum, modulo 2^128, of a hash of each item, and the number of items. A sum (unlike an
//! exclusive or) does not lose an item that was entered twice by mistake. Nodes of one network trust each
//! other not to make collisions on purpose: a wrong fingerprint delays healing, it never loses data.

use serde::{Deserialize, Serialize};

use crate::{
    id::{ChunkId, WriteId},
    name::RegisterName,
    register::Ballot,
};

/// Into how many buckets each partition is divided: what differs is found among a 64th of its entries.
pub const BUCKETS: u8 = 64;

/// See the module's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    sum: [u8; 16],
    count: u64,
}

impl Fingerprint {
    /// How many items there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// From what [`Fingerprint::parts`] gave.
    pub fn from_parts(sum: [u8; 16], count: u64) -> Self {
        Self { sum, count }
    }

    /// The sum and the count.
    pub fn parts(&self) -> ([u8; 16], u64) {
        (self.sum, self.count)
    }

    /// Enters an item.
    pub fn add(&mut self, item: Item) {
        self.sum = u128::from_le_bytes(self.sum).wrapping_add(item.0).to_le_bytes();
        self.count = self.count.wrapping_add(1);
    }

    /// Takes out an item that was entered.
    pub fn remove(&mut self, item: Item) {
        self.sum = u128::from_le_bytes(self.sum).wrapping_sub(item.0).to_le_bytes();
        self.count = self.count.wrapping_sub(1);
    }

    /// The fingerprint of both sets together.
    pub fn merge(&mut self, other: &Fingerprint) {
        self.sum = u128::from_le_bytes(self.sum).wrapping_add(u128::from_le_bytes(other.sum)).to_le_bytes();
        self.count = self.count.wrapping_add(other.count);
    }
}

/// The hash of one item of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item(u128);

impl Item {
    /// A register, held at a ballot.
    pub fn register(name: &RegisterName, ballot: Ballot) -> Self {
        let numbers = [ballot.layout.0, ballot.counter, ballot.session].map(u64::to_le_bytes).concat();
        Self::hash(&[numbers.as_slice(), name.as_bytes()])
    }

    /// A version's reference to a chunk.
    pub fn reference(chunk: &ChunkId, version: &WriteId) -> Self {
        Self::hash(&[&chunk.0, &version.0])
    }

    fn hash(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(part);
        }
        Self(u128::from_le_bytes(hasher.finalize().as_bytes()[..16].try_into().expect("16 bytes")))
    }
}

/// The bucket of what hashes to `hash`: the six bits after the ten that give the partition.
fn bucket_of(hash: &[u8; 32]) -> u8 {
    hash[1] & 0x3f
}

impl RegisterName {
    /// In which of its partition's buckets this register is.
    pub fn bucket_number(&self) -> u8 {
        bucket_of(blake3::hash(self.as_bytes()).as_bytes())
    }
}

impl ChunkId {
    /// In which of its partition's buckets this chunk is.
    pub fn bucket_number(&self) -> u8 {
        bucket_of(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{id::Partition, register::LayoutVersion};

    fn item(number: u8) -> Item {
        Item::reference(&ChunkId([number; 32]), &WriteId([number; 16]))
    }

    #[test]
    fn order_does_not_matter_and_what_is_taken_out_is_gone() {
        let of = |numbers: &[u8]| {
            let mut print = Fingerprint::default();
            numbers.iter().for_each(|number| print.add(item(*number)));
            print
        };
        assert_eq!(of(&[1, 2, 3]), of(&[3, 1, 2]));
        assert_ne!(of(&[1, 1]), of(&[2, 2]));
        assert_ne!(of(&[1, 1, 2]), of(&[2]), "a pair does not cancel");
        let mut print = of(&[1, 2, 3]);
        print.remove(item(2));
        assert_eq!((print, print.count()), (of(&[1, 3]), 2));
        let mut both = of(&[1]);
        both.merge(&of(&[3]));
        assert_eq!(both, print);
    }

    #[test]
    fn ballots_and_names_count() {
        let ballot = |counter| Ballot { layout: LayoutVersion(1), counter, session: 1 };
        let name = |key| RegisterName::object("default", key).unwrap();
        assert_ne!(Item::register(&name("a"), ballot(1)), Item::register(&name("a"), ballot(2)));
        assert_ne!(Item::register(&name("a"), ballot(1)), Item::register(&name("b"), ballot(1)));
    }

    #[test]
    fn a_bucket_is_a_contiguous_slice_of_a_partition() {
        // Chunk ids in order go through the buckets of a partition in order.
        let id = |first: u8, second: u8| {
            ChunkId([&[first, second], [7; 30].as_slice()].concat().try_into().unwrap())
        };
        let mut last = None;
        for second in 0..=255u8 {
            let place = (Partition::of_chunk(&id(9, second)).number(), id(9, second).bucket_number());
            assert!(last.is_none_or(|last| last <= place), "{last:?} {place:?}");
            last = Some(place);
        }
    }
}
