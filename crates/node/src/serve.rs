//! The other side of every exchange: what this node does when a peer asks.
//!
//! Owns the mapping from messages to the store and back. Decisions are made in `pando_core` (acceptor) and
//! `pando_store`; nothing here waits for other nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use pando_core::{
    id::{ChunkId, NodeId, Partition, WriteId},
    layout::Layout,
    name::{MAX_NAME, RegisterName},
    record::Summary,
    register::{Accepted, LayoutVersion, Refusal},
    seal::{SEALED_CHUNK, SEALED_SEGMENT},
    wire::{
        self, Failure, ListRequest, Listed, MAX_PAGE, MAX_PAGE_BYTES, ReferencesRequest, Reply, Request,
        StreamReply, StreamRequest, SyncRequest,
    },
};
use pando_net::{Incoming, Service};
use pando_store::{Accept, Learn, NameRange, Paged, Prepare, ReadReply, Shown};

use crate::{
    buffers::PIECE_SEGMENTS,
    error::Error,
    inner::{EXCHANGE, Inner, failure, permit},
    join, pulse, purge, sys,
};

/// How long a peer's chunk waits for a place among those being received.
const CHUNK_PATIENCE: Duration = Duration::from_secs(20);
/// How long a whole chunk may take to come in or go out: what its sender allows it.
const CHUNK_BODY: Duration = Duration::from_secs(60);
/// Bytes that are read from disk and sent at once.
const PIECE: usize = PIECE_SEGMENTS * SEALED_SEGMENT;

/// The handler that the endpoint calls.
pub(crate) struct Handler(pub(crate) Arc<Inner>);

impl Service for Handler {
    fn admits(&self, peer: &NodeId) -> bool {
        self.0.layout_now().is_some_and(|layout| layout.member(peer).is_some())
    }

    async fn ready(&self) {
        // While it joins, others know of the newcomer before it knows of them.
        let _ = self.0.layouts().wait_for(Option::is_some).await;
    }

    async fn call(&self, peer: NodeId, request: Bytes) -> Bytes {
        let reply = match wire::decode(&request) {
            Ok(request) => answer(&self.0, peer, request).await,
            Err(why) => {
                tracing::warn!(peer = %peer.short(), %why, "refused a request");
                Reply::Failed(Failure::Malformed(why.to_string()))
            }
        };
        wire::encode(&reply)
    }

    async fn stream(&self, peer: NodeId, request: Bytes, exchange: Incoming) {
        let served = match wire::decode(&request) {
            Ok(StreamRequest::Store { chunk, version, name }) => {
                store_chunk(&self.0, chunk, version, name, exchange).await
            }
            Ok(StreamRequest::Fetch { chunk, from, count }) => {
                send_segments(&self.0, chunk, from, count, exchange).await
            }
            Ok(StreamRequest::Copy(chunk)) => send_copy(&self.0, chunk, exchange).await,
            Err(why) => {
                tracing::warn!(peer = %peer.short(), %why, "refused a request on the stream lane");
                reply(exchange, Failure::Malformed(why.to_string())).await
            }
        };
        if let Err(error) = served {
            tracing::debug!(peer = %peer.short(), %error, "an exchange on the stream lane broke");
        }
    }

    async fn join(&self, peer: NodeId, from: SocketAddr, request: Bytes) -> Bytes {
        wire::encode(&join::answer(&self.0, peer, from, &request).await)
    }
}

/// Answers one request of a member, itself included.
pub(crate) async fn answer(inner: &Arc<Inner>, peer: NodeId, request: Request) -> Reply {
    match try_answer(inner, peer, request).await {
        Ok(reply) => reply,
        Err(Error::Store(error)) => Reply::Failed(failure(error)),
        Err(error) => Reply::Failed(Failure::Other(error.to_string())),
    }
}

async fn try_answer(inner: &Arc<Inner>, peer: NodeId, request: Request) -> Result<Reply, Error> {
    let store = &inner.store;
    Ok(match request {
        Request::Pulse(pulse) => match pulse::exchange(inner, peer, pulse).await {
            Some(pulse) => Reply::Pulse(pulse),
            None => Reply::Failed(Failure::Other("too much gossip at once".into())),
        },
        Request::Gossip(packet) => {
            inner.gossip.take_in(pulse::Word::Packet(peer, packet));
            Reply::Ok
        }
        Request::GetLayout => Reply::Layout(inner.layout()?.encode()),
        Request::PutLayout(bytes) => match Layout::decode(&bytes) {
            Ok(layout) => {
                inner.install_layout(layout).await?;
                Reply::Ok
            }
            Err(why) => Reply::Failed(Failure::Malformed(why.to_string())),
        },
        Request::Prepare(layout, name, ballot) => match store.prepare(layout, name, ballot).await? {
            Prepare::Promised(accepted) => Reply::Promised(accepted),
            Prepare::Refused(Refusal { above }) => Reply::Refused(Refusal { above }),
            Prepare::Fenced(known) => Reply::Fenced(known),
        },
        Request::Accept(layout, name, accepted) => match store.accept(layout, name, accepted).await? {
            Accept::Accepted => Reply::Accepted,
            Accept::Refused(refusal) => Reply::Refused(refusal),
            Accept::Fenced(known) => Reply::Fenced(known),
        },
        Request::Learn(layout, name, accepted) => learn(inner, layout, name, accepted).await?,
        Request::Read(layout, name) => match store.read(layout, name).await? {
            ReadReply::Value { accepted, height } => Reply::Value(accepted, height),
            ReadReply::Fenced(known) => Reply::Fenced(known),
        },
        Request::List(request) => list(inner, request).await?,
        Request::SyncPage(request) => sync_page(inner, request).await?,
        Request::Prints(layout) => prints(inner, layout).await?,
        Request::Buckets(layout, partition) => buckets(inner, layout, partition).await?,
        Request::References(request) => references(inner, request).await?,
        Request::Tombs { layout, tombs, purge } => purge::serve(inner, layout, tombs, purge).await?,
        Request::Offer(offer) => {
            let due = inner.after_grace();
            Reply::Held(store.claim(offer.version, offer.name, &offer.chunks, due).await?)
        }
        Request::Owe(entries) => {
            store.owe(&entries).await?;
            inner.healing.notify_one();
            Reply::Ok
        }
        Request::Recheck(versions) => {
            let due = inner.after_grace();
            for version in versions {
                store.recheck_by(version, due).await?;
            }
            Reply::Ok
        }
        Request::Touch(version) => Reply::Held(vec![store.postpone(version, inner.after_grace()).await?]),
        Request::Suspect(chunk) => {
            inner.suspect_here(chunk);
            Reply::Ok
        }
        Request::Have { chunks, verify } => Reply::Held(have(inner, chunks, verify).await?),
    })
}

async fn have(inner: &Arc<Inner>, chunks: Vec<ChunkId>, verify: bool) -> Result<Vec<bool>, Error> {
    let mut held = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        held.push(match verify {
            false => inner.store.has(chunk).await?,
            true => inner.check_chunk(chunk).await,
        });
    }
    Ok(held)
}

async fn learn(
    inner: &Arc<Inner>,
    layout: LayoutVersion,
    name: RegisterName,
    accepted: Accepted,
) -> Result<Reply, Error> {
    Ok(match inner.store.learn(layout, name, accepted).await? {
        Learn::Learned => Reply::Ok,
        Learn::Refused(refusal) => Reply::Refused(refusal),
        Learn::Fenced(known) => Reply::Fenced(known),
    })
}

async fn list(inner: &Arc<Inner>, request: ListRequest) -> Result<Reply, Error> {
    let range =
        NameRange { prefix: request.prefix.to_vec(), after: request.after.map(|after| after.to_vec()) };
    let limit = (request.limit as usize).clamp(1, MAX_PAGE);
    let page = inner.store.page(Some(request.layout), range, limit, MAX_PAGE_BYTES).await?;
    let (rows, mut more) = match page {
        Paged::Page { entries, more } => (entries, more),
        Paged::Fenced(known) => return Ok(Reply::Fenced(known)),
    };
    let mut entries = Vec::with_capacity(rows.len());
    let mut bytes = 0;
    for Shown { name, ballot, summary } in rows {
        // A summary and a ballot take less than 160 bytes.
        bytes += name.as_bytes().len() + 160;
        if bytes > MAX_PAGE_BYTES {
            more = true;
            break;
        }
        entries.push(Listed { summary: readable(&name, summary)?, name, ballot });
    }
    Ok(Reply::Listed { entries, more })
}

/// What is listed of a register, if its record reads.
pub(crate) fn readable(
    name: &RegisterName,
    summary: Result<Option<Summary>, String>,
) -> Result<Option<Summary>, Error> {
    summary.map_err(|found| {
        let (what, expected) = (format!("the record of {name}"), "one that this version reads".to_owned());
        Error::Store(pando_store::Error::Corrupt { what, expected, found })
    })
}

async fn sync_page(inner: &Arc<Inner>, request: SyncRequest) -> Result<Reply, Error> {
    // A ballot takes less than 48 bytes.
    let limit = MAX_PAGE_BYTES / (MAX_NAME + 48);
    let SyncRequest { layout, partition, bucket, after } = request;
    let page = inner.store.page_of_bucket(Some(layout), partition, bucket, after, limit).await?;
    Ok(match page {
        Paged::Page { entries, more } => Reply::Ballots { entries, more },
        Paged::Fenced(known) => Reply::Fenced(known),
    })
}

async fn prints(inner: &Arc<Inner>, layout: LayoutVersion) -> Result<Reply, Error> {
    Ok(match inner.store.fingerprints(Some(layout)).await? {
        Paged::Page { entries, .. } => Reply::Prints(entries),
        Paged::Fenced(known) => Reply::Fenced(known),
    })
}

async fn buckets(inner: &Arc<Inner>, layout: LayoutVersion, partition: Partition) -> Result<Reply, Error> {
    Ok(match inner.store.bucket_fingerprints(Some(layout), partition).await? {
        // The floor after the rows: a row seen then was not purged before, and what is purged in between
        // only raises the floor.
        Paged::Page { entries, .. } => {
            Reply::Buckets { purged: inner.store.purge_floor(partition).await?, buckets: entries }
        }
        Paged::Fenced(known) => Reply::Fenced(known),
    })
}

async fn references(inner: &Arc<Inner>, request: ReferencesRequest) -> Result<Reply, Error> {
    let known = inner.layout()?.version;
    if known != request.layout {
        return Ok(Reply::Fenced(known));
    }
    let ReferencesRequest { partition, bucket, after, .. } = request;
    let (page, mut more) = inner.store.references_page(partition, bucket, after, MAX_PAGE / 4).await?;
    let versions: BTreeSet<WriteId> = page.iter().map(|reference| reference.version).collect();
    let versions: Vec<WriteId> = versions.into_iter().collect();
    let names = inner.store.version_names(&versions).await?;
    let names: BTreeMap<WriteId, RegisterName> =
        versions.into_iter().zip(names).filter_map(|(version, name)| Some((version, name?))).collect();
    let (mut entries, mut shown, mut bytes) = (Vec::new(), BTreeMap::new(), 0);
    for reference in page {
        bytes += 64;
        if let (Some(name), false) = (names.get(&reference.version), shown.contains_key(&reference.version)) {
            bytes += name.as_bytes().len() + 24;
            shown.insert(reference.version, name.clone());
        }
        entries.push((reference.chunk, reference.len, reference.version));
        if bytes > MAX_PAGE_BYTES {
            more = true;
            break;
        }
    }
    Ok(Reply::References { entries, names: shown.into_iter().collect(), more })
}

async fn reply(exchange: Incoming, failure: Failure) -> Result<(), pando_net::Error> {
    exchange.reply(wire::encode(&StreamReply::Failed(failure)), 0).await?.finish().await
}

async fn store_chunk(
    inner: &Arc<Inner>,
    chunk: ChunkId,
    version: WriteId,
    name: RegisterName,
    mut exchange: Incoming,
) -> Result<(), pando_net::Error> {
    let len = exchange.body_len();
    if len == 0 || len > SEALED_CHUNK as u64 {
        return reply(exchange, Failure::Malformed(format!("a chunk of {len} bytes"))).await;
    }
    let Ok(_place) = permit(&inner.limits.chunks_in, CHUNK_PATIENCE, "too many chunks at once").await else {
        return reply(exchange, Failure::Other("too many chunks at once".into())).await;
    };
    let mut sealed = inner.buffers.take();
    sealed.resize(len as usize, 0);
    // A peer that trickles must not keep the place; dropping the exchange closes its connection.
    let Ok(read) = sys::timeout(CHUNK_BODY, exchange.read_exact(&mut sealed)).await else { return Ok(()) };
    read?;
    let due = inner.after_grace();
    let stored = inner.store.write_chunk(chunk, sealed.freeze(), version, name, due).await;
    let answer = match stored {
        Ok(()) => StreamReply::Stored,
        Err(error) => StreamReply::Failed(failure(error)),
    };
    exchange.reply(wire::encode(&answer), 0).await?.finish().await
}

async fn send_segments(
    inner: &Arc<Inner>,
    chunk: ChunkId,
    from: u32,
    count: u32,
    exchange: Incoming,
) -> Result<(), pando_net::Error> {
    let start = u64::from(from) * SEALED_SEGMENT as u64;
    // The first segment by itself: someone may wait for the first byte.
    let first = SEALED_SEGMENT * count.min(1) as usize;
    let (reader, first) = match inner.store.read_stream(chunk, start, first, inner.pieces.take()).await {
        Ok(Some(opened)) => opened,
        Ok(None) => return reply(exchange, Failure::Missing).await,
        Err(error) => return reply(exchange, failure(error)).await,
    };
    let end = (u64::from(from) + u64::from(count)) * SEALED_SEGMENT as u64;
    let end = end.min(reader.len());
    if start >= end {
        return reply(exchange, Failure::Malformed("segments beyond the chunk's end".into())).await;
    }
    let head = wire::encode(&StreamReply::Sending(Vec::new()));
    let mut outgoing = exchange.reply_with(head, end - start, &first).await?;
    let mut at = start + first.len() as u64;
    let mut buffer = first;
    while at < end {
        let piece = (end - at).min(PIECE as u64) as usize;
        buffer = match reader.read_into(at, piece, buffer).await {
            Ok(buffer) => buffer,
            Err(_) => {
                // Dropping the exchange half-way tells the reader to go elsewhere.
                inner.suspect_here(chunk);
                return Ok(());
            }
        };
        outgoing.write_all(&buffer).await?;
        at += piece as u64;
    }
    outgoing.finish().await
}

async fn send_copy(inner: &Arc<Inner>, chunk: ChunkId, exchange: Incoming) -> Result<(), pando_net::Error> {
    let Ok(_place) = permit(&inner.limits.chunks_in, EXCHANGE, "too many chunks at once").await else {
        return reply(exchange, Failure::Other("too many chunks at once".into())).await;
    };
    let versions = inner.store.references(chunk).await.unwrap_or_default();
    match inner.store.read_verified(chunk).await {
        Ok(Some(sealed)) => {
            let head = wire::encode(&StreamReply::Sending(versions));
            let mut outgoing = exchange.reply(head, sealed.len() as u64).await?;
            let sent = async {
                outgoing.write_all(&sealed).await?;
                outgoing.finish().await
            };
            sys::timeout(CHUNK_BODY, sent).await.unwrap_or(Ok(()))
        }
        Ok(None) => reply(exchange, Failure::Missing).await,
        Err(error) => {
            inner.suspect_here(chunk);
            reply(exchange, failure(error)).await
        }
    }
}
