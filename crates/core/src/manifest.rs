//! Manifests: the list of a file's chunks, as a tree whose nodes are chunks themselves.
//!
//! Owns the arithmetic of the tree (which node lists which chunks, how long each node is) and the
//! building of it, level by level, in bounded memory. Leaves sealing and storing of nodes to the caller.
//! A node is a plain concatenation of 64-byte entries (chunk id, content key); level 0 lists the file's
//! chunks, level n lists nodes of level n - 1.

use serde::{Deserialize, Serialize};

use crate::{
    id::ChunkId,
    seal::{CHUNK, ContentKey},
};

/// Bytes of one entry.
pub const ENTRY: usize = 64;
/// Entries in a full node: one chunk of them, so one node lists 256 GiB of file.
pub const FANOUT: u64 = (CHUNK / ENTRY) as u64;
/// Most entries that stand in a record itself.
pub const MAX_ROOTS: usize = 64;
/// Most levels of nodes: three list 10^19 bytes and more, all that a size in 64 bits can say.
pub const MAX_DEPTH: u8 = 3;

/// A chunk and what opens it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChunkRef {
    /// The chunk's name.
    pub id: ChunkId,
    /// Its key.
    pub key: ContentKey,
}

/// A node that is not what the arithmetic says it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a manifest node has {found} bytes instead of {expected}")]
pub struct BadNode {
    expected: usize,
    found: usize,
}

/// Collects the chunks of a file, in order. Memory: at most one node per level.
#[derive(Debug)]
pub struct Builder {
    fanout: usize,
    max_roots: usize,
    /// The entries of the node being filled at each level.
    levels: Vec<Vec<ChunkRef>>,
}

/// What a finished list looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Levels of nodes between `roots` and the file's chunks; 0 when `roots` are the file's chunks.
    pub depth: u8,
    /// The topmost entries, at most [`MAX_ROOTS`].
    pub roots: Vec<ChunkRef>,
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

impl ChunkTree {
    /// The node that lists its entries, to be stored as a chunk.
    pub fn node(&self) -> Vec<u8> {
        encode(&self.roots)
    }

    /// The same tree under that node, which is the chunk `node`.
    pub fn under(self, node: ChunkRef) -> Self {
        Self { depth: self.depth + 1, roots: vec![node] }
    }
}

/// What finishing needs next.
#[derive(Debug)]
pub enum Finish {
    /// Seal and store this node, then [`Builder::push`] its reference at `level` and call again.
    Node {
        /// The level to push the node's reference at.
        level: usize,
        /// The node's bytes.
        bytes: Vec<u8>,
    },
    /// The tree is complete.
    Tree(Tree),
}

impl Default for Builder {
    fn default() -> Self {
        Self::with_fanout(FANOUT as usize)
    }
}

impl Builder {
    /// A builder of smaller nodes than [`FANOUT`], to test the arithmetic without terabytes.
    pub fn with_fanout(fanout: usize) -> Self {
        Self { fanout, max_roots: MAX_ROOTS, levels: vec![Vec::new()] }
    }

    /// A builder of trees with at most so many entries at the top.
    pub fn with_roots(max_roots: usize) -> Self {
        Self { max_roots, ..Self::default() }
    }

    /// Adds the next entry at `level` (0: a chunk of the file). A node's bytes come back when it is
    /// full: seal and store it, and push its reference at `level + 1`.
    #[must_use = "a full node must be stored"]
    pub fn push(&mut self, level: usize, entry: ChunkRef) -> Option<Vec<u8>> {
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, Vec::new);
        }
        let entries = &mut self.levels[level];
        entries.push(entry);
        (entries.len() == self.fanout).then(|| encode(&std::mem::take(entries)))
    }

    /// Call until it returns the tree.
    pub fn finish(&mut self) -> Finish {
        let top = self.levels.len() - 1;
        for level in 0..top {
            if !self.levels[level].is_empty() {
                let bytes = encode(&std::mem::take(&mut self.levels[level]));
                return Finish::Node { level: level + 1, bytes };
            }
        }
        if self.levels[top].len() > self.max_roots {
            let bytes = encode(&std::mem::take(&mut self.levels[top]));
            return Finish::Node { level: top + 1, bytes };
        }
        Finish::Tree(Tree { depth: top as u8, roots: std::mem::take(&mut self.levels[top]) })
    }
}

fn encode(entries: &[ChunkRef]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY);
    for entry in entries {
        bytes.extend_from_slice(&entry.id.0);
        bytes.extend_from_slice(&entry.key.0);
    }
    bytes
}

/// The arithmetic of one file's tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    fanout: u64,
    chunks: u64,
    depth: u8,
}

impl Geometry {
    /// Of a file of `size` bytes listed with `depth` levels of nodes.
    pub fn of_size(size: u64, depth: u8) -> Self {
        Self::new(FANOUT, size.div_ceil(CHUNK as u64), depth)
    }

    /// Of a file of `chunks` chunks.
    pub fn new(fanout: u64, chunks: u64, depth: u8) -> Self {
        Self { fanout, chunks, depth }
    }

    /// How many chunks of the file one entry at `level` stands for, if full.
    fn span(&self, level: u8) -> u64 {
        self.fanout.saturating_pow(u32::from(level))
    }

    /// How many entries the record must hold.
    pub fn roots(&self) -> u64 {
        self.chunks.div_ceil(self.span(self.depth))
    }

    /// Which entry of the record leads to chunk `index`.
    pub fn root_of(&self, index: u64) -> usize {
        (index / self.span(self.depth)) as usize
    }

    /// Which entry of a node whose own level is `level` (1: lists chunks) leads to chunk `index`.
    pub fn entry_of(&self, level: u8, index: u64) -> usize {
        (index / self.span(level - 1) % self.fanout) as usize
    }

    /// Bytes of the node of level `level` that leads to chunk `index`.
    pub fn node_len(&self, level: u8, index: u64) -> usize {
        let first = index / self.span(level) * self.span(level);
        let covered = self.span(level).min(self.chunks - first);
        covered.div_ceil(self.span(level - 1)) as usize * ENTRY
    }

    /// Splits a node's bytes into entries, having checked that they have the length they must have.
    pub fn decode(&self, level: u8, index: u64, bytes: &[u8]) -> Result<Vec<ChunkRef>, BadNode> {
        let expected = self.node_len(level, index);
        if bytes.len() != expected {
            return Err(BadNode { expected, found: bytes.len() });
        }
        let half = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).expect("half an entry");
        Ok(bytes
            .chunks_exact(ENTRY)
            .map(|entry| ChunkRef { id: ChunkId(half(&entry[..32])), key: ContentKey(half(&entry[32..])) })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn chunk(number: u64) -> ChunkRef {
        let hash = *blake3::hash(&number.to_le_bytes()).as_bytes();
        ChunkRef { id: ChunkId(hash), key: ContentKey([number as u8; 32]) }
    }

    /// Builds the tree of `count` chunks, keeping nodes in a map by reference.
    fn build(fanout: usize, count: u64) -> (Tree, HashMap<ChunkId, Vec<u8>>) {
        let mut nodes = HashMap::new();
        let mut builder = Builder::with_fanout(fanout);
        let mut store = |bytes: Vec<u8>| {
            let id = ChunkId(*blake3::hash(&bytes).as_bytes());
            nodes.insert(id, bytes);
            ChunkRef { id, key: ContentKey([0; 32]) }
        };
        let mut push = |builder: &mut Builder, mut level: usize, entry: ChunkRef| {
            let mut next = builder.push(level, entry);
            while let Some(bytes) = next {
                level += 1;
                next = builder.push(level, store(bytes));
            }
        };
        for number in 0..count {
            push(&mut builder, 0, chunk(number));
        }
        loop {
            match builder.finish() {
                Finish::Tree(tree) => break (tree, nodes),
                Finish::Node { level, bytes } => {
                    let id = ChunkId(*blake3::hash(&bytes).as_bytes());
                    nodes.insert(id, bytes);
                    let full = builder.push(level, ChunkRef { id, key: ContentKey([0; 32]) });
                    if let Some(bytes) = full {
                        let id = ChunkId(*blake3::hash(&bytes).as_bytes());
                        nodes.insert(id, bytes);
                        assert!(builder.push(level + 1, ChunkRef { id, key: ContentKey([0; 32]) }).is_none());
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_chunk_is_found_again(count in 0u64..3000, fanout in 65usize..80) {
            let (tree, nodes) = build(fanout, count);
            prop_assert!(tree.roots.len() <= MAX_ROOTS);
            let geometry = Geometry::new(fanout as u64, count, tree.depth);
            prop_assert_eq!(geometry.roots(), tree.roots.len() as u64);
            for index in (0..count).step_by(7).chain(count.checked_sub(1)) {
                let mut entry = tree.roots[geometry.root_of(index)].clone();
                for level in (1..=tree.depth).rev() {
                    let node = geometry.decode(level, index, &nodes[&entry.id]).unwrap();
                    entry = node[geometry.entry_of(level, index)].clone();
                }
                prop_assert_eq!(entry, chunk(index));
            }
        }
    }

    #[test]
    fn a_tree_goes_under_one_node() {
        for (count, depth) in [(5, 0), (64, 0), (64 * FANOUT, 1), (30 * FANOUT - 7, 1)] {
            let roots = Geometry::new(FANOUT, count, depth).roots();
            let tree = ChunkTree { depth, roots: (0..roots).map(chunk).collect() };
            let (wide, node) = (tree.roots.clone(), tree.node());
            let under = tree.under(chunk(0));
            let geometry = Geometry::new(FANOUT, count, under.depth);
            assert_eq!((geometry.roots(), under.roots.len()), (1, 1));
            assert_eq!(geometry.decode(under.depth, count - 1, &node), Ok(wide));
        }
    }

    #[test]
    fn small_files_have_no_nodes() {
        let (tree, nodes) = build(100, 64);
        assert_eq!((tree.depth, tree.roots.len(), nodes.len()), (0, 64, 0));
        assert_eq!(build(100, 65).0.depth, 1);
    }

    #[test]
    fn ten_terabytes_fit_a_record() {
        let geometry = Geometry::of_size(10 << 40, 1);
        assert!(geometry.roots() <= MAX_ROOTS as u64);
        assert_eq!(geometry.node_len(1, 0), CHUNK);
    }

    #[test]
    fn a_node_of_the_wrong_length_is_refused() {
        let geometry = Geometry::new(100, 150, 1);
        assert!(geometry.decode(1, 0, &[0; 99 * ENTRY]).is_err());
        assert!(geometry.decode(1, 100, &[0; 50 * ENTRY]).is_ok());
    }
}
