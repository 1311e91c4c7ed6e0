//! Keeping a chunk: bringing it to its owners until a majority has it durably, and noting who is owed a copy.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use pando_core::{
    id::{ChunkId, NodeId, Partition, WriteId},
    layout::MemberState,
    name::RegisterName,
    wire::{self, Failure, Offer, Reply, Request, StreamReply, StreamRequest},
};

use crate::{
    error::Error,
    inner::{Inner, Message, failure},
    peers::Liveness,
    sys::{self, Instant},
};

/// How long a chunk may take to reach one owner.
const CHUNK_DEADLINE: Duration = Duration::from_secs(60);
/// How long, once a majority has a chunk, the other owners may still take before they are owed it.
const STRAGGLER: Duration = Duration::from_secs(3);

/// A chunk that is kept.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Who holds it durably; stored then or later.
    pub(crate) holders: Vec<(NodeId, Instant)>,
    /// How many of them must go on.
    pub(crate) needed: usize,
    /// How many will hold it.
    pub(crate) wanted: usize,
}

/// Why one owner did not take a chunk.
enum Refused {
    NoSpace,
    Lost(String),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NoSpace => Refused::NoSpace,
            other => Refused::Lost(other.to_string()),
        }
    }
}

impl Inner {
    /// Brings a sealed chunk to its owners; returns when as many nodes as make a majority of them have it
    /// durably, and the others too, or are owed it. Other members stand in for owners that are down or full.
    pub(crate) async fn keep_chunk(
        self: &Arc<Self>,
        name: &RegisterName,
        version: WriteId,
        chunk: ChunkId,
        sealed: Bytes,
    ) -> Result<Kept, Error> {
        let owners = self.layout()?.owners(Partition::of_chunk(&chunk));
        let needed = owners.len() / 2 + 1;
        let is_down = |node: &NodeId| *node != self.id && self.peers.liveness(node) == Liveness::Down;
        // Who is down is not waited for, unless it takes them to reach a majority.
        let skip_down = owners.iter().filter(|node| !is_down(node)).count() >= needed;
        let mut sends: FuturesUnordered<_> = owners
            .iter()
            .filter(|node| !(skip_down && is_down(node)))
            .map(|node| async {
                let began = Instant::now();
                (*node, self.place(*node, name, version, chunk, &sealed).await.map(|()| began))
            })
            .collect();
        let mut holders = Vec::new();
        let mut refused = Vec::new();
        let mut deadline = Instant::now() + CHUNK_DEADLINE;
        while let Ok(Some((node, placed))) = sys::timeout_at(deadline, sends.next()).await {
            match placed {
                Ok(began) => holders.push((node, began)),
                Err(why) => refused.push((node, why)),
            }
            if holders.len() == needed {
                deadline = deadline.min(Instant::now() + STRAGGLER);
            }
        }
        drop(sends);
        let holds = |node: &NodeId| holders.iter().any(|(holder, _)| holder == node);
        let missing: Vec<NodeId> = owners.iter().filter(|node| !holds(node)).copied().collect();
        if missing.is_empty() {
            return Ok(Kept { holders, needed, wanted: owners.len() });
        }
        for node in missing.iter().filter(|node| !refused.iter().any(|(other, _)| other == *node)) {
            self.peers.failed(*node);
        }
        let mut candidates = self.candidates(&chunk, &owners).into_iter();
        let place = async |node: NodeId| {
            let began = Instant::now();
            (node, self.place(node, name, version, chunk, &sealed).await.map(|()| began))
        };
        let mut asked: FuturesUnordered<_> = candidates.by_ref().take(missing.len()).map(place).collect();
        let deadline = Instant::now() + CHUNK_DEADLINE;
        while let Ok(Some((node, placed))) = sys::timeout_at(deadline, asked.next()).await {
            match placed {
                Ok(began) => holders.push((node, began)),
                Err(why) => {
                    refused.push((node, why));
                    asked.extend(candidates.next().map(place));
                }
            }
        }
        drop(asked);
        if holders.len() < needed {
            return Err(too_few_holders(chunk, needed, owners.len(), holders.len(), refused));
        }
        let owed = missing.into_iter().map(|node| (node, chunk)).collect();
        self.note_owed(&holders.iter().map(|(node, _)| *node).collect::<Vec<_>>(), owed).await?;
        Ok(Kept { holders, needed, wanted: owners.len() })
    }

    /// Members that may hold a chunk for owners that are down or full, the first one first. Each chunk has
    /// its own order, so that one node's load falls on all the others.
    fn candidates(&self, chunk: &ChunkId, owners: &[NodeId]) -> Vec<NodeId> {
        let Some(layout) = self.layout_now() else { return Vec::new() };
        let answers = |node: &NodeId| *node == self.id || self.peers.liveness(node) == Liveness::Up;
        let active = layout.present().filter(|member| member.state == MemberState::Active);
        let mut nodes: Vec<NodeId> =
            active.map(|member| member.id).filter(|node| !owners.contains(node) && answers(node)).collect();
        nodes.sort_by_cached_key(|node| *blake3::hash(&[chunk.0, node.0].concat()).as_bytes());
        nodes
    }

    /// Makes the holders of chunks remember, durably, who else should have them.
    pub(crate) async fn note_owed(
        self: &Arc<Self>,
        holders: &[NodeId],
        owed: Vec<(NodeId, ChunkId)>,
    ) -> Result<(), Error> {
        let message = &Message::from(Request::Owe(owed));
        let tell = |holder: &NodeId| {
            let holder = *holder;
            async move { matches!(self.ask(holder, message).await, Ok(Reply::Ok)) }
        };
        let noted: Vec<bool> = holders.iter().map(tell).collect::<FuturesUnordered<_>>().collect().await;
        if noted.contains(&true) {
            Ok(())
        } else {
            Err(Error::Timeout("noting which nodes are owed a copy".into()))
        }
    }

    /// Brings a chunk to one node, unless it has it.
    async fn place(
        self: &Arc<Self>,
        node: NodeId,
        name: &RegisterName,
        version: WriteId,
        chunk: ChunkId,
        sealed: &Bytes,
    ) -> Result<(), Refused> {
        if self.offer(node, name, version, chunk).await? {
            return Ok(());
        }
        self.send_chunk(node, name, version, chunk, sealed).await
    }

    /// Whether a node holds a chunk; if so it keeps it for the version from now on.
    async fn offer(
        self: &Arc<Self>,
        node: NodeId,
        name: &RegisterName,
        version: WriteId,
        chunk: ChunkId,
    ) -> Result<bool, Refused> {
        let offer = Offer { version, name: name.clone(), chunks: vec![chunk] };
        match self.ask(node, &Request::Offer(offer).into()).await {
            Ok(Reply::Held(held)) => Ok(held.first() == Some(&true)),
            Ok(Reply::Failed(failure)) => Err(failure.into()),
            Ok(_) => Err(Refused::Lost("an answer to something else".into())),
            Err(error) => Err(Refused::Lost(error.to_string())),
        }
    }

    async fn send_chunk(
        self: &Arc<Self>,
        node: NodeId,
        name: &RegisterName,
        version: WriteId,
        chunk: ChunkId,
        sealed: &Bytes,
    ) -> Result<(), Refused> {
        if node == self.id {
            let due = self.after_grace();
            let stored = self.store.write_chunk(chunk, sealed.clone(), version, name.clone(), due).await;
            return stored.map_err(|error| failure(error).into());
        }
        let lost = |error: pando_net::Error| Refused::Lost(error.to_string());
        let request = wire::encode(&StreamRequest::Store { chunk, version, name: name.clone() });
        let deadline = Instant::now() + CHUNK_DEADLINE;
        let mut exchange =
            self.endpoint().open(node, request, sealed.len() as u64, deadline).await.map_err(|error| {
                self.peers.failed(node);
                lost(error)
            })?;
        exchange.write_all(sealed).await.map_err(lost)?;
        let (reply, _body) = exchange.finish().await.map_err(lost)?;
        match wire::decode(&reply) {
            Ok(StreamReply::Stored) => Ok(()),
            Ok(StreamReply::Failed(failure)) => Err(failure.into()),
            Ok(StreamReply::Sending(_)) => Err(Refused::Lost("an answer to something else".into())),
            Err(error) => Err(Refused::Lost(error.to_string())),
        }
    }

    /// Brings a chunk that this node holds to another one, with all versions that need it. `Ok(false)`: this
    /// node does not hold it (any more), or nothing needs it.
    pub(crate) async fn bring(self: &Arc<Self>, node: NodeId, chunk: ChunkId) -> Result<bool, Error> {
        let lost = |refused| match refused {
            Refused::NoSpace => Error::NoSpace(format!("{} is full", node.short())),
            Refused::Lost(why) => Error::Timeout(format!("bringing a chunk to {}: {why}", node.short())),
        };
        let mut sealed = None;
        for (version, name) in self.store.references(chunk).await? {
            if self.offer(node, &name, version, chunk).await.map_err(lost)? {
                continue;
            }
            if sealed.is_none() {
                sealed = self.store.read_verified(chunk).await?;
            }
            let Some(sealed) = &sealed else { return Ok(false) };
            self.pace.take(sealed.len() as u64).await;
            self.send_chunk(node, &name, version, chunk, sealed).await.map_err(lost)?;
        }
        Ok(true)
    }
}

fn too_few_holders(
    chunk: ChunkId,
    needed: usize,
    owners: usize,
    holders: usize,
    refused: Vec<(NodeId, Refused)>,
) -> Error {
    let full = refused.iter().filter(|(_, why)| matches!(why, Refused::NoSpace)).count();
    if holders + full >= needed {
        let who: Vec<String> = refused.iter().map(|(node, _)| node.short()).collect();
        return Error::NoSpace(format!("the owners of a chunk are full ({})", who.join(", ")));
    }
    let why = |(node, why): (NodeId, Refused)| match why {
        Refused::NoSpace => format!("{}: full", node.short()),
        Refused::Lost(why) => format!("{}: {why}", node.short()),
    };
    Error::NotEnoughNodes {
        what: format!("chunk {}", chunk.short()),
        needed,
        owners,
        reachable: holders,
        missing: refused.into_iter().map(why).collect::<Vec<_>>().join("; "),
    }
}
