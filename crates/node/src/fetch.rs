//! Fetching one chunk: its segments in order, each verified before it is passed on, from the local copy,
//! an owner, a previous owner or anyone. A source that fails in the middle is left at that segment and the
//! next one goes on from there; one that delivered wrong bytes is told so.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use pando_core::{
    id::{ChunkId, NodeId, Partition},
    manifest::ChunkRef,
    seal::{self, Opener, SEALED_SEGMENT},
    wire::{self, Request, StreamReply, StreamRequest},
};
use tokio::sync::mpsc;

use crate::{
    buffers::{Buffer, PIECE_SEGMENTS},
    error::Error,
    inner::Inner,
    sys::{self, Instant},
};

/// How long a source may take until its first bytes come, before the next one is asked.
const FIRST: Duration = Duration::from_secs(3);
/// How long a source may pause in the middle.
const STALL: Duration = Duration::from_secs(5);
/// Segments that are read at once, after the first.
const BATCH: u32 = PIECE_SEGMENTS as u32;

/// Which part of which chunk.
pub(crate) struct Piece {
    pub(crate) chunk: ChunkRef,
    /// Bytes of the whole chunk's plaintext.
    pub(crate) plain: usize,
    pub(crate) segments: Range<u32>,
}

impl Piece {
    /// Where a segment starts in the sealed chunk.
    fn sealed_start(&self, segment: u32) -> u64 {
        u64::from(segment) * SEALED_SEGMENT as u64
    }

    /// Sealed bytes of a range of segments.
    fn sealed_len(&self, segments: &Range<u32>) -> usize {
        let whole = seal::sealed_len(self.plain) as u64;
        (self.sealed_start(segments.end).min(whole) - self.sealed_start(segments.start)) as usize
    }
}

/// Why a source did not deliver to the end.
enum Broken {
    /// The one who wanted the bytes is gone.
    Unwanted,
    /// It does not have the chunk, or stopped sending it.
    Lost(String),
    /// It sent bytes that are not what was sealed.
    Corrupt(u32),
}

/// Sends the piece's segments, opened, to `sink`; an error, if any, comes last.
pub(crate) async fn fetch(inner: Arc<Inner>, piece: Piece, sink: mpsc::Sender<Result<Bytes, Error>>) {
    let mut delivery = Delivery { next: piece.segments.start, opener: Opener::new(&piece.chunk.key), sink };
    let mut sources = inner.sources(&piece.chunk.id);
    let (mut damaged, mut lost) = (Vec::new(), Vec::new());
    let mut round_start = delivery.next;
    let mut place = 0;
    while let Some(source) = sources.get(place).copied() {
        let broken = match source == inner.id {
            true => from_here(&inner, &piece, &mut delivery).await,
            false => from_peer(&inner, source, &piece, &mut delivery).await,
        };
        match broken {
            Ok(()) | Err(Broken::Unwanted) => return,
            Err(Broken::Lost(reason)) => {
                lost.push(format!("{}: {reason}", source.short()));
                place += 1;
            }
            Err(Broken::Corrupt(segment)) => {
                tracing::warn!(chunk = %piece.chunk.id, segment, source = %source.short(), "wrong bytes");
                damaged.push(format!("{}: segment {segment} is damaged", source.short()));
                inner.report_suspect(source, piece.chunk.id);
                sources.remove(place);
            }
        }
        // A source that broke off because the reader paused is good for the rest: as long as a round over
        // all of them brings the next segment, another follows.
        if place == sources.len() && delivery.next > round_start {
            (place, round_start) = (0, delivery.next);
            lost.clear();
        }
    }
    damaged.append(&mut lost);
    let error = Error::ChunkUnavailable { chunk: piece.chunk.id, why: damaged.join("; ") };
    let _ = delivery.sink.send(Err(error)).await;
}

/// What has been passed on so far, and how.
struct Delivery {
    next: u32,
    opener: Opener,
    sink: mpsc::Sender<Result<Bytes, Error>>,
}

impl Delivery {
    /// Opens and passes on the segments in `sealed`, which starts at the next one.
    async fn pass_on(&mut self, mut sealed: Buffer) -> Result<(), Broken> {
        let (mut plain, mut number, mut start, mut corrupt) = (Vec::new(), self.next, 0, None);
        for segment in sealed.chunks_mut(SEALED_SEGMENT) {
            match self.opener.open(number, segment) {
                Ok(opened) => plain.push(start..start + opened.len()),
                Err(_) => {
                    corrupt = Some(Broken::Corrupt(number));
                    break;
                }
            }
            start += segment.len();
            number += 1;
        }
        let bytes = sealed.freeze();
        for range in plain {
            self.sink.send(Ok(bytes.slice(range))).await.map_err(|_| Broken::Unwanted)?;
            self.next += 1;
        }
        corrupt.map_or(Ok(()), Err)
    }

    /// The next segments to read: one first, so that the first byte is early, then several at once.
    fn batch(&self, piece: &Piece) -> Range<u32> {
        let count = if self.next == piece.segments.start { 1 } else { BATCH };
        self.next..piece.segments.end.min(self.next + count)
    }
}

async fn from_here(inner: &Inner, piece: &Piece, delivery: &mut Delivery) -> Result<(), Broken> {
    let lost = |why: pando_store::Error| Broken::Lost(why.to_string());
    let place = |batch: &Range<u32>| (piece.sealed_start(batch.start), piece.sealed_len(batch));
    let (offset, len) = place(&delivery.batch(piece));
    let opened = inner.store.read_stream(piece.chunk.id, offset, len, inner.pieces.take()).await;
    let (reader, mut sealed) = opened.map_err(lost)?.ok_or_else(|| Broken::Lost("not held".into()))?;
    if reader.len() != seal::sealed_len(piece.plain) as u64 {
        return Err(Broken::Corrupt(delivery.next));
    }
    loop {
        delivery.pass_on(sealed).await?;
        if delivery.next >= piece.segments.end {
            return Ok(());
        }
        let (offset, len) = place(&delivery.batch(piece));
        sealed = reader.read_into(offset, len, inner.pieces.take()).await.map_err(lost)?;
    }
}

async fn from_peer(
    inner: &Inner,
    source: NodeId,
    piece: &Piece,
    delivery: &mut Delivery,
) -> Result<(), Broken> {
    let lost = |why: pando_net::Error| Broken::Lost(why.to_string());
    let left = delivery.next..piece.segments.end;
    let request = StreamRequest::Fetch { chunk: piece.chunk.id, from: left.start, count: left.len() as u32 };
    let opening = async {
        let deadline = Instant::now() + FIRST;
        let exchange = inner.endpoint().open(source, wire::encode(&request), 0, deadline).await?;
        exchange.finish().await
    };
    let (reply, mut body) = match sys::timeout(FIRST, opening).await {
        Ok(opened) => opened.map_err(lost)?,
        Err(_elapsed) => return Err(Broken::Lost("no answer in time".into())),
    };
    match wire::decode(&reply).map_err(|why| Broken::Lost(why.to_string()))? {
        StreamReply::Sending(_) => {}
        StreamReply::Failed(why) => return Err(Broken::Lost(why.to_string())),
        StreamReply::Stored => return Err(Broken::Lost("an answer to something else".into())),
    }
    if body.len() != piece.sealed_len(&left) as u64 {
        return Err(Broken::Corrupt(delivery.next));
    }
    while delivery.next < piece.segments.end {
        let batch = delivery.batch(piece);
        let mut sealed = inner.pieces.take();
        sealed.resize(piece.sealed_len(&batch), 0);
        match sys::timeout(STALL, body.read_exact(&mut sealed)).await {
            Ok(read) => read.map_err(lost)?,
            Err(_elapsed) => return Err(Broken::Lost("stopped sending".into())),
        }
        delivery.pass_on(sealed).await?;
    }
    Ok(())
}

impl Inner {
    /// Whom to ask for a chunk, best first: this node, the owners (those that answer, fastest first), the
    /// previous owners, everyone else.
    pub(crate) fn sources(&self, chunk: &ChunkId) -> Vec<NodeId> {
        let Some(layout) = self.layout_now() else { return vec![self.id] };
        let partition = Partition::of_chunk(chunk);
        let by_speed = |mut nodes: Vec<NodeId>| {
            nodes.sort_by_key(|node| (self.peers.liveness(node), self.peers.round_trip(node)));
            nodes
        };
        let everyone = layout.present().map(|member| member.id).collect();
        let mut sources = vec![self.id];
        for group in [layout.owners(partition), layout.previous_owners(partition), everyone] {
            for node in by_speed(group) {
                if !sources.contains(&node) {
                    sources.push(node);
                }
            }
        }
        sources
    }

    /// Tells whoever delivered wrong bytes to look at its copy.
    fn report_suspect(self: &Arc<Self>, source: NodeId, chunk: ChunkId) {
        let inner = Arc::clone(self);
        self.spawn_until_stopped(async move {
            let _ = inner.ask(source, &Request::Suspect(chunk).into()).await;
        });
    }
}
