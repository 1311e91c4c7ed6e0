//! Resync: bringing chunks to the nodes that are owed them, fetching what this node itself lacks, and
//! replacing bad copies.
//!
//! Debts are durable in the store's resync queue, so a restart goes on where it was. One loop, a few chunks
//! at a time; a node that does not answer is left for the next round.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use pando_core::{
    id::{ChunkId, NodeId, WriteId},
    name::RegisterName,
    seal::{self, SEALED_CHUNK},
    wire::{self, Failure, StreamReply, StreamRequest},
};
use pando_store::ChunkState;

use crate::{
    error::Error,
    inner::{Inner, permit},
    peers::Liveness,
    sys::{self, Instant},
};

/// How many chunks are healed at once: enough to keep a disk busy, few enough not to be in the way.
const PARALLEL: usize = 2;
/// How many debts are looked at in one go.
const BATCH: usize = 64;
/// How often the queue is looked at when nobody wakes the loop.
const PERIOD: Duration = Duration::from_secs(30);
/// The least pause between two rounds.
const PAUSE: Duration = Duration::from_millis(500);
/// How long copying one chunk may take.
const COPY: Duration = Duration::from_secs(60);

type Copied = (Bytes, Vec<(WriteId, RegisterName)>);

/// Why a node gave no copy.
enum NoCopy {
    /// It has none, and says so.
    NotHeld,
    /// Anything else: it may have one.
    Failed(Error),
}

impl<E: Into<Error>> From<E> for NoCopy {
    fn from(error: E) -> Self {
        NoCopy::Failed(error.into())
    }
}

/// What became of a debt.
enum Settled {
    /// It is paid, or void.
    Done,
    /// Not now.
    Owed,
    /// Not now, nor any other to that node: it is full or silent.
    Unusable,
}

/// Works the queue off until the node stops.
pub(crate) async fn resync(inner: Arc<Inner>) {
    loop {
        if let Err(error) = round(&inner).await {
            tracing::warn!(%error, "healing goes on later");
        }
        sys::sleep(PAUSE).await;
        let _ = sys::timeout(PERIOD, inner.healing.notified()).await;
    }
}

/// One look at every debt.
async fn round(inner: &Arc<Inner>) -> Result<(), Error> {
    let mut after: Option<(NodeId, ChunkId)> = None;
    let mut away: BTreeSet<NodeId> = BTreeSet::new();
    loop {
        let entries = inner.store.owed(None, after, BATCH).await?;
        let Some(last) = entries.last() else { return Ok(()) };
        after = Some(*last);
        let (gone, present): (Vec<_>, Vec<_>) = entries
            .into_iter()
            .filter(|(node, _)| !away.contains(node))
            .partition(|(node, _)| inner.layout_now().is_some_and(|layout| layout.member(node).is_none()));
        let reachable = present.into_iter().filter(|(node, _)| {
            let up = *node == inner.id || inner.peers.liveness(node) == Liveness::Up;
            if !up {
                away.insert(*node);
            }
            up
        });
        let work: Vec<_> = reachable.collect();
        let (mut work, mut running) = (work.into_iter(), FuturesUnordered::new());
        let mut settled = gone;
        loop {
            while running.len() < PARALLEL {
                let Some((node, chunk)) = work.by_ref().find(|(node, _)| !away.contains(node)) else { break };
                running.push(async move { (node, chunk, settle(inner, node, chunk).await) });
            }
            match running.next().await {
                None => break,
                Some((node, chunk, Settled::Done)) => settled.push((node, chunk)),
                Some((_, _, Settled::Owed)) => {}
                // Its other debts would end the same way, and those of others wait for them.
                Some((node, _, Settled::Unusable)) => {
                    away.insert(node);
                }
            }
        }
        if !settled.is_empty() {
            inner.store.settle(&settled).await?;
        }
        // Who is away is away for all its debts: go on behind them.
        if let Some((node, _)) = after.filter(|(node, _)| away.contains(node)) {
            after = Some((node, ChunkId([0xff; 32])));
        }
    }
}

/// Pays a debt, if that can be.
async fn settle(inner: &Arc<Inner>, node: NodeId, chunk: ChunkId) -> Settled {
    let settled = match node == inner.id {
        true => inner.fetch_copy(chunk).await,
        false => inner.bring(node, chunk).await.map(|_| ()),
    };
    let Err(error) = settled else { return Settled::Done };
    tracing::debug!(node = %node.short(), chunk = %chunk.short(), %error, "a copy is still owed");
    let is_usable = node == inner.id
        || inner.peers.liveness(&node) == Liveness::Up && !matches!(error, Error::NoSpace(_));
    if is_usable { Settled::Owed } else { Settled::Unusable }
}

impl Inner {
    /// Fetches a whole, verified copy of a chunk that this node should have.
    async fn fetch_copy(self: &Arc<Self>, chunk: ChunkId) -> Result<(), Error> {
        let mut versions = self.store.references(chunk).await?;
        if self.store.has(chunk).await? && self.store.verify(chunk).await? == ChunkState::Good {
            return Ok(());
        }
        let _place = permit(&self.limits.chunks_in, COPY, "too many chunks at once").await?;
        let (mut why, mut silent) = (Vec::new(), false);
        for source in self.sources(&chunk).into_iter().filter(|source| *source != self.id) {
            match sys::timeout(COPY, self.copy_from(source, chunk)).await {
                Ok(Ok((sealed, theirs))) => {
                    versions.extend(theirs);
                    self.pace.take(sealed.len() as u64).await;
                    let due = self.after_grace();
                    for (version, name) in versions {
                        self.store.write_chunk(chunk, sealed.clone(), version, name, due).await?;
                    }
                    tracing::info!(%chunk, source = %source.short(), "a copy was fetched");
                    return Ok(());
                }
                Ok(Err(NoCopy::NotHeld)) => why.push(format!("{}: not held", source.short())),
                Ok(Err(NoCopy::Failed(error))) => {
                    silent = true;
                    why.push(format!("{}: {error}", source.short()));
                }
                Err(_elapsed) => {
                    silent = true;
                    why.push(format!("{}: too slow", source.short()));
                }
            }
        }
        if versions.is_empty() && !silent {
            // Nothing needs it any more.
            return Ok(());
        }
        Err(Error::ChunkUnavailable { chunk, why: why.join("; ") })
    }

    async fn copy_from(self: &Arc<Self>, source: NodeId, chunk: ChunkId) -> Result<Copied, NoCopy> {
        let unusable = |why: &str| Error::ChunkUnavailable { chunk, why: why.to_owned() };
        let request = wire::encode(&StreamRequest::Copy(chunk));
        let exchange = self.endpoint().open(source, request, 0, Instant::now() + COPY).await?;
        let (reply, mut body) = exchange.finish().await?;
        let versions = match wire::decode(&reply).map_err(Error::from)? {
            StreamReply::Sending(versions) => versions,
            StreamReply::Failed(Failure::Missing) => return Err(NoCopy::NotHeld),
            StreamReply::Failed(why) => return Err(unusable(&why.to_string()).into()),
            StreamReply::Stored => return Err(unusable("an answer to something else").into()),
        };
        if body.len() > SEALED_CHUNK as u64 {
            return Err(unusable("too long for a chunk").into());
        }
        let mut sealed = self.buffers.take();
        sealed.resize(body.len() as usize, 0);
        body.read_exact(&mut sealed).await?;
        let checked = sys::blocking(move || (seal::chunk_id(&sealed) == chunk).then_some(sealed)).await;
        match checked {
            Some(sealed) => Ok((sealed.freeze(), versions)),
            None => Err(unusable("wrong bytes").into()),
        }
    }
}
