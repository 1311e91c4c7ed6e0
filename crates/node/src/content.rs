//! Where an object's content is: its chunks in order, whatever the shape of its body.
//!
//! An object put in one piece is one part. Everything that walks an object's chunks (get, copy, check) walks here;
//! the arithmetic is in [`pando_core::parts`].

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use pando_core::{
    manifest::{ChunkRef, ChunkTree, Geometry},
    parts::{BadParts, Parts},
    record::{Body, RecordError},
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
    parts: Parts,
    /// The chunk that lists the parts, and how long the list is.
    list: Option<(ChunkRef, usize)>,
    /// The manifest of the part that was used last.
    manifest: Option<(usize, Manifest)>,
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
    pub(crate) async fn open(inner: &Arc<Inner>, body: Body, size: u64) -> Result<Option<Self>, Error> {
        let (parts, list) = match body {
            Body::Inline(_) => return Ok(None),
            Body::Chunks(tree) => (Parts::one(size, tree).map_err(unusable)?, None),
            Body::Parts(parts) => (Parts::new(parts).map_err(unusable)?, None),
            Body::PartsIn(chunk, len) => {
                let bytes = fetch_whole(inner, chunk.clone(), len as usize).await?;
                (Parts::decode(&bytes).map_err(unusable)?, Some((chunk, len as usize)))
            }
        };
        if parts.size() != size {
            return Err(unusable(BadParts("its parts are not as long as the whole")));
        }
        Ok(Some(Self { list, ..Self::of_parts(parts) }))
    }

    /// Of parts that are known.
    pub(crate) fn of_parts(parts: Parts) -> Self {
        Self { parts, list: None, manifest: None }
    }

    /// The parts.
    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The chunk that lists the parts, if one does, and the length of the list.
    pub(crate) fn list(&self) -> Option<&(ChunkRef, usize)> {
        self.list.as_ref()
    }

    /// The chunk that holds a byte of the content; `None` past its end. `visit` sees the manifest nodes that are read
    /// on the way, with their lengths: who goes through the content in order sees each once.
    pub(crate) async fn chunk_at(
        &mut self,
        inner: &Arc<Inner>,
        byte: u64,
        visit: impl FnMut(&ChunkRef, usize),
    ) -> Result<Option<Found>, Error> {
        let Some(place) = self.parts.chunk_at(byte) else { return Ok(None) };
        let manifest = match &mut self.manifest {
            Some((of, manifest)) if *of == place.part => manifest,
            other => {
                let part = &self.parts.as_slice()[place.part];
                &mut other.insert((place.part, Manifest::new(part.tree.clone(), part.size))).1
            }
        };
        let chunk = manifest.chunk(inner, place.index, visit).await?;
        Ok(Some(Found { chunk, range: place.range }))
    }
}

/// A list of parts that is none.
pub(crate) fn unusable(BadParts(why): BadParts) -> Error {
    RecordError::Malformed { what: "list of parts", why: why.to_owned() }.into()
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
            let known = &mut self.nodes[usize::from(level)];
            if known.as_ref().is_none_or(|(from, _)| *from != entry) {
                let plain = self.geometry.node_len(level, index);
                visit(&entry, plain);
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
