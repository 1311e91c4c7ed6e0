//! Content in parts: an object that was uploaded in pieces keeps the chunks of each, and these need not be full.
//!
//! Owns the list of parts, its encoding and its checks, and the arithmetic of where in the content each chunk is. An
//! object that was put in one piece is one part. Finding a chunk in its part's tree: [`crate::manifest`].

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{
    id::WriteId,
    manifest::{ChunkTree, Geometry, MAX_DEPTH, MAX_ROOTS},
    name::MAX_PARTS,
    seal::CHUNK,
};

/// Most entries of the tree of one part, so that the list of ten thousand parts fits one chunk.
pub const MAX_PART_ROOTS: usize = 4;

/// A list of parts that can't be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadParts(pub &'static str);

/// A piece of content with chunks of its own; its length need not be a multiple of a chunk's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its bytes.
    pub size: u64,
    /// Where they are.
    pub tree: ChunkTree,
}

impl Part {
    fn check(&self, most_roots: usize) -> Result<(), BadParts> {
        if self.tree.depth > MAX_DEPTH || self.tree.roots.len() > most_roots {
            return Err(BadParts("too many levels or entries"));
        }
        if Geometry::of_size(self.size, self.tree.depth).roots() != self.tree.roots.len() as u64 {
            return Err(BadParts("its number of entries does not fit the size"));
        }
        Ok(())
    }
}

/// A content as its parts, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    parts: Vec<Part>,
    /// Where each part ends, exclusive.
    ends: Vec<u64>,
    /// The salt of each part, if they are encrypted with a client's key, see [`crate::customer`]; else empty.
    salts: Vec<WriteId>,
}

/// Where a chunk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The number of its part, from 0.
    pub part: usize,
    /// Its number in that part, from 0.
    pub index: u64,
    /// Its bytes in the whole content; never empty.
    pub range: Range<u64>,
}

impl Parts {
    /// The content that these parts make; empty ones hold nothing.
    pub fn new(parts: Vec<Part>) -> Result<Self, BadParts> {
        Self::checked(parts, MAX_PART_ROOTS)
    }

    /// A content that was put in one piece.
    pub fn one(size: u64, tree: ChunkTree) -> Result<Self, BadParts> {
        Self::checked(vec![Part { size, tree }], MAX_ROOTS)
    }

    fn checked(parts: Vec<Part>, most_roots: usize) -> Result<Self, BadParts> {
        if parts.len() > usize::from(MAX_PARTS) {
            return Err(BadParts("too many parts"));
        }
        let mut end = 0u64;
        let mut ends = Vec::with_capacity(parts.len());
        for part in &parts {
            part.check(most_roots)?;
            end = end.checked_add(part.size).ok_or(BadParts("too long"))?;
            ends.push(end);
        }
        Ok(Self { parts, ends, salts: Vec::new() })
    }

    /// The same parts with the salt of each, or with none at all.
    pub fn with_salts(self, salts: Vec<WriteId>) -> Result<Self, BadParts> {
        if !salts.is_empty() && salts.len() != self.parts.len() {
            return Err(BadParts("some of its parts are encrypted with a client's key, and others are not"));
        }
        Ok(Self { salts, ..self })
    }

    /// The list as it stands in a chunk: postcard of `Vec<Part>`, then, if there are salts, of these. It fits one,
    /// however many parts there are.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = postcard::to_stdvec(&self.parts).expect("parts are plain data");
        if !self.salts.is_empty() {
            bytes.extend(postcard::to_stdvec(&self.salts).expect("salts are plain data"));
        }
        bytes
    }

    /// A list out of a chunk.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadParts> {
        // Nothing is read because of a count that can't be right.
        let (count, _) = postcard::take_from_bytes::<u32>(bytes).map_err(|_| BadParts("no list"))?;
        if count > u32::from(MAX_PARTS) {
            return Err(BadParts("too many parts"));
        }
        let (parts, rest) = postcard::take_from_bytes(bytes).map_err(|_| BadParts("no list"))?;
        let salts = match rest {
            [] => Vec::new(),
            rest => postcard::from_bytes(rest).map_err(|_| BadParts("no list of salts"))?,
        };
        Self::new(parts)?.with_salts(salts)
    }

    /// The salt of each part, if they are encrypted with a client's key; else empty.
    pub fn salts(&self) -> &[WriteId] {
        &self.salts
    }

    /// Bytes of the whole content.
    pub fn size(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// All parts, in order.
    pub fn as_slice(&self) -> &[Part] {
        &self.parts
    }

    /// The chunk that holds a byte of the content; `None` past its end.
    pub fn chunk_at(&self, byte: u64) -> Option<Place> {
        // Empty parts end where the one before does, and are passed over with it.
        let part = self.ends.partition_point(|end| *end <= byte);
        let (end, size) = (*self.ends.get(part)?, self.parts[part].size);
        let start = end - size;
        let index = (byte - start) / CHUNK as u64;
        let first = start + index * CHUNK as u64;
        Some(Place { part, index, range: first..end.min(first.saturating_add(CHUNK as u64)) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{id::ChunkId, manifest::ChunkRef, seal::ContentKey};

    /// A part of this size; its chunks are named by `number`.
    fn part(number: u8, size: u64) -> Part {
        let roots = |depth| Geometry::of_size(size, depth).roots();
        let depth = (0..).find(|depth| roots(*depth) <= MAX_PART_ROOTS as u64).unwrap();
        let count = roots(depth) as usize;
        let root = ChunkRef { id: ChunkId([number; 32]), key: ContentKey([number; 32]) };
        Part { size, tree: ChunkTree { depth, roots: vec![root; count] } }
    }

    #[test]
    fn lists_round_trip_and_must_add_up() {
        let parts = Parts::new(vec![part(1, CHUNK as u64 + 1), part(2, 0), part(3, 5)]).unwrap();
        assert_eq!(parts.size(), CHUNK as u64 + 6);
        assert_eq!(Parts::decode(&parts.encode()).as_ref(), Ok(&parts));
        let salted =
            parts.clone().with_salts(vec![WriteId([7; 16]), WriteId([8; 16]), WriteId([9; 16])]).unwrap();
        assert_eq!(Parts::decode(&salted.encode()), Ok(salted));
        assert!(parts.clone().with_salts(vec![WriteId([7; 16])]).is_err(), "each has one, or none");
        let cut = [&parts.encode()[..], &[3, 1]].concat();
        assert_eq!(Parts::decode(&cut), Err(BadParts("no list of salts")));
        let wrong = |parts: &[Part]| Parts::new(parts.to_vec()).is_err();
        assert!(wrong(&[Part { size: 5, ..part(1, CHUNK as u64 + 1) }]), "an entry too many");
        assert!(wrong(&[part(1, u64::MAX), part(1, 1)]), "longer than a number can say");
        assert!(wrong(&vec![part(1, 1); usize::from(MAX_PARTS) + 1]));
        let wide = ChunkTree { depth: 0, roots: vec![part(1, 1).tree.roots[0].clone(); 5] };
        assert!(wrong(&[Part { size: 5 * CHUNK as u64, tree: wide.clone() }]), "too wide for a part");
        assert!(Parts::one(5 * CHUNK as u64, wide).is_ok(), "but not for all of an object");
        assert_eq!(Parts::decode(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Err(BadParts("too many parts")));
        assert_eq!(Parts::new(Vec::new()).unwrap().chunk_at(0), None);
    }

    #[test]
    fn the_longest_list_fits_a_chunk() {
        let roots = vec![part(1, 1).tree.roots[0].clone(); MAX_PART_ROOTS];
        let longest = Part { size: u64::MAX, tree: ChunkTree { depth: MAX_DEPTH, roots } };
        let mut bytes = postcard::to_stdvec(&vec![longest; usize::from(MAX_PARTS)]).unwrap();
        bytes.extend(postcard::to_stdvec(&vec![WriteId([1; 16]); usize::from(MAX_PARTS)]).unwrap());
        assert!(bytes.len() <= CHUNK, "{}", bytes.len());
    }

    proptest! {
        #[test]
        fn every_byte_is_in_one_chunk(sizes in proptest::collection::vec(prop_oneof![
            Just(0), 1..100u64, CHUNK as u64 - 2..CHUNK as u64 + 3, 0..20 * CHUNK as u64,
        ], 0..12)) {
            let list: Vec<Part> = (0u8..).zip(&sizes).map(|(number, size)| part(number, *size)).collect();
            let parts = Parts::new(list).unwrap();
            prop_assert_eq!(parts.size(), sizes.iter().sum::<u64>());
            // What cutting each part by itself gives, one after the other.
            let mut expected = Vec::new();
            let mut start = 0;
            for (part, size) in sizes.iter().enumerate() {
                for (index, at) in (0..*size).step_by(CHUNK).enumerate() {
                    let end = start + size.min(&(at + CHUNK as u64));
                    expected.push(Place { part, index: index as u64, range: start + at..end });
                }
                start += size;
            }
            let mut at = 0;
            for place in &expected {
                for byte in [at, at + (place.range.end - at) / 2, place.range.end - 1] {
                    let found = parts.chunk_at(byte);
                    prop_assert_eq!(found.as_ref(), Some(place));
                }
                at = place.range.end;
            }
            prop_assert_eq!((at, parts.chunk_at(at), parts.chunk_at(u64::MAX)), (parts.size(), None, None));
        }

        #[test]
        fn bytes_from_the_wire_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), at in any::<u64>()
        ) {
            if let Ok(parts) = Parts::decode(&bytes) {
                let _ = parts.chunk_at(at);
            }
        }
    }
}
