//! Copy: a new record for chunks that are there already.
//!
//! No byte of content moves. Every chunk is claimed for the new version, durably, at a majority of its owners; where
//! too few hold it, it is fetched and kept as in a put. Only then the record is written.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::stream::{self, StreamExt as _};
use pando_core::{
    id::{ChunkId, NodeId, Partition, WriteId},
    manifest::ChunkRef,
    name::RegisterName,
    parts::Part,
    record::{Body, check_tags},
    wire::{MAX_OFFER, Offer, Reply, Request},
};

use crate::{
    api::{Consistency, CopyOptions, ObjectInfo, Stored},
    commit::Terms,
    content::{Content, Found, fetch_whole},
    error::Error,
    inner::{Inner, Message, permit},
    keep::Kept,
    peers::Liveness,
    put::{QUEUE_PATIENCE, Upload, seal_and_keep},
    sys::{self, Instant},
};

/// Chunks that are claimed in one go: a few exchanges for each 2 GiB.
const BATCH: usize = 512;
/// Owners that are asked at once.
const PARALLEL: usize = 16;
/// Chunks that too few hold, fetched and kept at once.
const FETCHES: usize = 4;

impl Inner {
    /// See [`crate::Node::copy`].
    pub(crate) async fn copy(
        self: &Arc<Self>,
        from: (&str, &str),
        to: (&str, &str),
        options: CopyOptions,
    ) -> Result<(Stored, ObjectInfo), Error> {
        let (source, mut record, old) = self.find_version(from.0, from.1, options.source_version).await?;
        if options.source.is_some_and(|wanted| wanted != old) {
            return Err(Error::Precondition { current: Some(old) });
        }
        let name = RegisterName::object(to.0, to.1)?;
        let versioning = self.bucket(to.0).await?.settings.versioning;
        self.check_condition(&name, options.condition).await?;
        if let Some((meta, headers)) = options.replace {
            meta.check(&headers)?;
            (record.meta, record.headers) = (meta, headers);
        }
        if let Some(tags) = options.tags {
            check_tags(&tags)?;
            record.tags = tags;
        }
        record.modified = sys::now_ms();
        let body = record.open(self.key()?, &source, &old)?;
        let version = WriteId(sys::random());
        record.set_body(&body, self.key()?, &name, &version);
        let stored = match Content::open(self, body, record.size).await? {
            None => {
                let terms = Terms { condition: options.condition, versioning, by: None };
                self.commit(&name, version, &record, terms).await?.stored
            }
            Some(mut content) => {
                let _transfer = permit(&self.limits.puts, QUEUE_PATIENCE, "too many puts at once").await?;
                let mut upload = Upload::new(self, name.clone(), version);
                upload.adopt(&mut content).await?;
                upload.commit(&record, options.condition).await?.stored
            }
        };
        let info = self.info(to.0, to.1, &(name, record, version), Consistency::Linearizable).await;
        Ok((stored.clone(), ObjectInfo { version: stored.version, ..info }))
    }
}

/// A chunk to claim, and how long its content is, in case it must be fetched.
type Wanted = (ChunkRef, usize);

impl Upload<'_> {
    /// Claims all chunks of a content, its manifest's and its list's included.
    pub(crate) async fn adopt(&mut self, content: &mut Content) -> Result<(), Error> {
        let mut batch: Vec<Wanted> = content.list().cloned().into_iter().collect();
        let mut at = 0;
        loop {
            let found =
                content.chunk_at(self.inner, at, |node, plain| batch.push((node.clone(), plain))).await?;
            let end = found.is_none();
            if let Some(Found { chunk, range }) = found {
                batch.push((chunk, (range.end - range.start) as usize));
                at = range.end;
            }
            if end || batch.len() >= BATCH {
                self.claim(std::mem::take(&mut batch)).await?;
                self.stay_alive().await?;
            }
            if end {
                return Ok(());
            }
        }
    }

    /// Makes the owners of chunks hold them for this version.
    async fn claim(&mut self, batch: Vec<Wanted>) -> Result<(), Error> {
        let wanted: BTreeMap<ChunkId, Wanted> =
            batch.into_iter().map(|wanted| (wanted.0.id, wanted)).collect();
        let layout = self.inner.layout()?;
        let owners_of = |chunk: &ChunkId| layout.owners(Partition::of_chunk(chunk));
        let mut holders = self.offer_all(wanted.keys().map(|chunk| (*chunk, owners_of(chunk)))).await;
        // By who holds them, since holders must note durably who is owed what they hold.
        let mut owed: BTreeMap<Vec<NodeId>, Vec<(NodeId, ChunkId)>> = BTreeMap::new();
        let mut scarce: Vec<Wanted> = Vec::new();
        for (id, chunk) in wanted {
            let owners = owners_of(&id);
            let holders = holders.remove(&id).unwrap_or_default();
            let needed = owners.len() / 2 + 1;
            if holders.len() < needed {
                scarce.push(chunk);
                continue;
            }
            let who: Vec<NodeId> = holders.iter().map(|(node, _)| *node).collect();
            let missing = owners.iter().filter(|owner| !who.contains(owner)).map(|owner| (*owner, id));
            let missing: Vec<_> = missing.collect();
            if !missing.is_empty() {
                owed.entry(who).or_default().extend(missing);
            }
            self.enter(Kept { holders, needed, wanted: owners.len() })?;
        }
        for (holders, owed) in owed {
            for owed in owed.chunks(MAX_OFFER) {
                self.inner.note_owed(&holders, owed.to_vec()).await?;
            }
        }
        let (inner, name, version) = (self.inner, self.name.clone(), self.version);
        let fetches =
            scarce.into_iter().map(|(chunk, plain)| fetch_and_keep(inner, &name, version, chunk, plain));
        let mut fetches = stream::iter(fetches).buffer_unordered(FETCHES);
        while let Some(kept) = fetches.next().await {
            self.enter(kept?)?;
            self.stay_alive().await?;
        }
        Ok(())
    }

    /// Offers chunks to their owners, but for those that are down; who holds each, since when at least.
    async fn offer_all(
        &self,
        chunks: impl Iterator<Item = (ChunkId, Vec<NodeId>)>,
    ) -> BTreeMap<ChunkId, Vec<(NodeId, Instant)>> {
        let mut asked: BTreeMap<NodeId, Vec<ChunkId>> = BTreeMap::new();
        for (chunk, owners) in chunks {
            for owner in owners {
                asked.entry(owner).or_default().push(chunk);
            }
        }
        let inner = self.inner;
        // Each batch would wait for who is down. What is held by too few without it is kept as in a put, which asks it
        // if it takes that.
        asked.retain(|owner, _| *owner == inner.id || inner.peers.liveness(owner) != Liveness::Down);
        let began = Instant::now();
        let (version, name) = (self.version, &self.name);
        let offers = asked.into_iter().map(|(owner, chunks)| async move {
            let offer = Offer { version, name: name.clone(), chunks: chunks.clone() };
            match inner.ask(owner, &Message::from(Request::Offer(offer))).await {
                Ok(Reply::Held(held)) if held.len() == chunks.len() => {
                    let held = chunks.into_iter().zip(held).filter(|(_, held)| *held);
                    (owner, held.map(|(chunk, _)| chunk).collect())
                }
                _ => (owner, Vec::new()),
            }
        });
        let answers: Vec<(NodeId, Vec<ChunkId>)> =
            stream::iter(offers).buffer_unordered(PARALLEL).collect().await;
        let mut holders: BTreeMap<ChunkId, Vec<(NodeId, Instant)>> = BTreeMap::new();
        for (owner, chunks) in answers {
            for chunk in chunks {
                holders.entry(chunk).or_default().push((owner, began));
            }
        }
        holders
    }
}

/// Brings a chunk that too few of its owners hold to them.
async fn fetch_and_keep(
    inner: &Arc<Inner>,
    name: &RegisterName,
    version: WriteId,
    chunk: ChunkRef,
    plain: usize,
) -> Result<Kept, Error> {
    let _place = permit(&inner.limits.chunks_out, QUEUE_PATIENCE, "too many chunks in flight").await?;
    let content = fetch_whole(inner, chunk.clone(), plain).await?;
    let mut buffer = inner.buffers.take();
    buffer.clear();
    buffer.extend_from_slice(&content);
    drop(content);
    let (sealed, kept) = seal_and_keep(inner, name, version, buffer, 0).await?;
    if sealed.id != chunk.id {
        let why = "what it opened to seals to another chunk".to_owned();
        return Err(Error::ChunkUnavailable { chunk: chunk.id, why });
    }
    Ok(kept)
}

/// The part that a body can be by itself, if it is one tree of chunks.
pub(crate) fn part_of(size: u64, body: Body) -> Option<Part> {
    match body {
        Body::Chunks(tree) => Some(Part { size, tree }),
        Body::Inline(_) | Body::Parts(_) | Body::PartsIn(..) => None,
    }
}
