//! Where an object's content is: its chunks in order, whatever the shape of its body.
//!
//! An object put in one piece is one part. Everything that walks an object's chunks (get, copy, check) walks here.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use pando_core::{
    manifest::{ChunkRef, Geometry},
    record::{Body, ChunkTree, Part},
    seal::CHUNK,
};
use tokio::sync::mpsc;

use crate::{
    error::Error,
    fetch::{Piece, fetch},
    inner::Inner,
};

/// Pieces of 64 KiB of a manifest node that wait to be put together.
const BUFFERED: usize = 32;

/// The chunks of an object that is not inline.
pub(crate) struct Content {
    parts: Vec<Part>,
    /// Where each part starts.
    starts: Vec<u64>,
    /// The chunk that lists the parts, and how long the list is.
    list: Option<(ChunkRef, usize)>,
    /// The manifest of the part that was used last.
    manifest: Option<(usize, Manifest)>,
}

/// A place between two chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    part: usize,
    /// Of the chunk in the part.
    index: u64,
}

/// A chunk of content.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) chunk: ChunkRef,
    /// Where in the object its bytes are.
    pub(crate) range: Range<u64>,
}

impl Content {
    /// Of a body; `None` if it is inline.
    pub(crate) async fn open(inner: &Arc<Inner>, body: &Body, size: u64) -> Result<Option<Self>, Error> {
        let (parts, list) = match body {
            Body::Inline(_) => return Ok(None),
            Body::Chunks(tree) => (vec![Part { size, tree: tree.clone() }], None),
            Body::Parts(parts) => (parts.clone(), None),
            Body::PartsIn(chunk, len) => {
                let len = *len as usize;
                let bytes = fetch_whole(inner, chunk.clone(), len).await?;
                (Part::decode_list(&bytes, size)?, Some((chunk.clone(), len)))
            }
        };
        Ok(Some(Self::of_parts(parts, list)))
    }

    /// Of parts that are known.
    pub(crate) fn of_parts(parts: Vec<Part>, list: Option<(ChunkRef, usize)>) -> Self {
        let mut at = 0;
        let starts = parts
            .iter()
            .map(|part| {
                let start = at;
                at += part.size;
                start
            })
            .collect();
        Self { parts, starts, list, manifest: None }
    }

    /// The chunk that lists the parts, if one does, and the length of the list.
    pub(crate) fn list(&self) -> Option<&(ChunkRef, usize)> {
        self.list.as_ref()
    }

    /// Before the chunk that holds this byte.
    pub(crate) fn cursor_at(&self, byte: u64) -> Cursor {
        // The last part that starts there or before; of empty ones the last, which is not empty if the byte exists.
        let part = self.starts.partition_point(|start| *start <= byte).saturating_sub(1);
        let start = self.starts.get(part).copied().unwrap_or(0);
        Cursor { part, index: (byte - start) / CHUNK as u64 }
    }

    /// The next chunk, if there is one; `visit` sees the manifest nodes on the way, with the lengths of their contents.
    pub(crate) async fn next(
        &mut self,
        inner: &Arc<Inner>,
        cursor: &mut Cursor,
        visit: impl FnMut(&ChunkRef, usize),
    ) -> Result<Option<Found>, Error> {
        let (part, size) = loop {
            let Some(part) = self.parts.get(cursor.part) else { return Ok(None) };
            if cursor.index * (CHUNK as u64) < part.size {
                break (part, part.size);
            }
            *cursor = Cursor { part: cursor.part + 1, index: 0 };
        };
        let manifest = match &mut self.manifest {
            Some((of, manifest)) if *of == cursor.part => manifest,
            other => {
                let new = (cursor.part, Manifest::new(part.tree.clone(), size));
                &mut other.insert(new).1
            }
        };
        let chunk = manifest.chunk(inner, cursor.index, visit).await?;
        let start = cursor.index * CHUNK as u64;
        let base = self.starts[cursor.part];
        let range = base + start..base + size.min(start + CHUNK as u64);
        cursor.index += 1;
        Ok(Some(Found { chunk, range }))
    }
}

/// Finds the chunks of a part through its manifest, keeping the last node of each level.
struct Manifest {
    tree: ChunkTree,
    geometry: Geometry,
    /// For each level above 0: the node last used, and the reference it came from.
    nodes: Vec<Option<(ChunkRef, Vec<ChunkRef>)>>,
}

impl Manifest {
    fn new(tree: ChunkTree, size: u64) -> Self {
        let geometry = Geometry::of_size(size, tree.depth);
        Self { nodes: vec![None; usize::from(tree.depth) + 1], tree, geometry }
    }

    async fn chunk(
        &mut self,
        inner: &Arc<Inner>,
        index: u64,
        mut visit: impl FnMut(&ChunkRef, usize),
    ) -> Result<ChunkRef, Error> {
        let mut entry = self.tree.roots[self.geometry.root_of(index)].clone();
        for level in (1..=self.tree.depth).rev() {
            let plain = self.geometry.node_len(level, index);
            visit(&entry, plain);
            let known = &mut self.nodes[usize::from(level)];
            if known.as_ref().is_none_or(|(from, _)| *from != entry) {
                let bytes = fetch_whole(inner, entry.clone(), plain).await?;
                let entries = self
                    .geometry
                    .decode(level, index, &bytes)
                    .map_err(|why| Error::ChunkUnavailable { chunk: entry.id, why: why.to_string() })?;
                *known = Some((entry.clone(), entries));
            }
            let (_, entries) = known.as_ref().expect("just filled in");
            entry = entries[self.geometry.entry_of(level, index)].clone();
        }
        Ok(entry)
    }
}

/// The whole plaintext of one chunk.
pub(crate) async fn fetch_whole(inner: &Arc<Inner>, chunk: ChunkRef, plain: usize) -> Result<Vec<u8>, Error> {
    let segments = 0..pando_core::seal::segments(plain) as u32;
    let (sender, mut pieces) = mpsc::channel(BUFFERED);
    let piece = Piece { chunk, plain, segments };
    let mut bytes = Vec::with_capacity(plain);
    let collect = async {
        while let Some(piece) = pieces.recv().await {
            let piece: Bytes = piece?;
            bytes.extend_from_slice(&piece);
        }
        Ok::<(), Error>(())
    };
    let ((), collected) = tokio::join!(fetch(Arc::clone(inner), piece, sender), collect);
    collected.map(|()| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_find_the_part_and_its_chunk() {
        let chunk = CHUNK as u64;
        let part = |size| Part { size, tree: ChunkTree { depth: 0, roots: Vec::new() } };
        let content = Content::of_parts([chunk + 7, 0, 5, 3 * chunk].map(part).into(), None);
        let at = |byte| {
            let Cursor { part, index } = content.cursor_at(byte);
            (part, index)
        };
        assert_eq!(at(0), (0, 0));
        assert_eq!(at(chunk), (0, 1));
        assert_eq!(at(chunk + 6), (0, 1));
        assert_eq!(at(chunk + 7), (2, 0), "an empty part holds no byte");
        assert_eq!(at(chunk + 11), (2, 0));
        assert_eq!(at(chunk + 12), (3, 0));
        assert_eq!(at(3 * chunk + 12), (3, 2));
    }
}
