//! Bodies of requests and answers: bounded in memory and in time, whatever the other side does.
//!
//! A body that comes in is read up to its declared length, hashed on the way, and fails if it ends early or is too
//! long; that it comes in time is up to `meter.rs`. Of a long one only the head is taken until the node has a place for
//! it: who waits for one costs that head, and no thread. A body that goes out holds the node's resources only while it flows: a client that
//! stops reading costs a socket, not one of the few places for gets.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use futures_util::{Stream, StreamExt as _};
use pando_core::record::Digests;
use pando_node::Object;
use s3s::{
    StdError,
    dto::StreamingBlob,
    stream::{ByteStream, RemainingLength},
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::{Notify, mpsc, oneshot},
    time::timeout,
};

use crate::{
    digest::{Algorithm, Hasher},
    metrics::Metrics,
    s3::Face,
    sse::Cipher,
    waiters::{Leave, Waiters},
};

/// A body up to this length is read and hashed in one go.
const SMALL: usize = 64 << 10;
/// Pieces between the connection and the node: each is what one read of a connection gives, some 64 KiB.
const PIECES: usize = 4;
/// Pieces of 64 KiB between the node and the connection.
const OUTGOING: usize = 4;
/// A client that takes nothing for so long gives its place to others, and gets it back when it goes on: the kernel's
/// buffers keep its connection busy meanwhile.
const STALLED: Duration = Duration::from_millis(250);
/// Pieces are slices of what the node read in one go, half a mebibyte. Those of a longer download are copied, or a client
/// that takes nothing would keep all of it for the few that wait for it.
const READ_AT_ONCE: u64 = 512 << 10;
/// Clients that take nothing, at once: each holds some 400 KiB. Of more, who took nothing for longest is ended.
const PAUSED: usize = 128;
/// A client that takes nothing for so long is gone.
const GONE: Duration = Duration::from_secs(300);

/// Why the body of a request was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body ended after {0} bytes, before its declared length")]
    TooShort(u64),
    #[error("the body is longer than declared")]
    TooLong,
    #[error("the connection failed: {0}")]
    Connection(StdError),
    #[error("the body was given up before its end")]
    GivenUp,
    #[error("the body's SHA-256 is not the one that was signed (x-amz-content-sha256)")]
    Sha256,
    #[error("a chunk's or the trailer's signature is wrong")]
    Signature,
    #[error("the body is not in the aws-chunked format that its headers declare")]
    Format,
    #[error("the {0} is not the one declared")]
    Digest(&'static str),
    #[error("{0}")]
    Trailer(String),
    #[error("the file has more than {0} bytes, the most that the form's policy allows")]
    TooLarge(u64),
    #[error("the file has less than {0} bytes, the least that the form's policy allows")]
    TooSmall(u64),
}

impl BodyError {
    pub(crate) fn into_io(self) -> io::Error {
        io::Error::other(self)
    }

    /// What `s3s` reports of a stream that it verifies. Its error types are private: their names are all there is.
    fn of_stream(error: StdError) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(ours) => return *ours,
            Err(other) => other,
        };
        let text = error.to_string();
        let is = |what: &str| text.contains(what);
        if is("Sha256Mismatch") {
            BodyError::Sha256
        } else if is("SignatureMismatch") {
            BodyError::Signature
        } else if is("LengthMismatch") {
            BodyError::TooLong
        } else if is("StreamError: Incomplete") {
            BodyError::TooShort(0)
        } else if is("AwsChunkedStreamError") && !is("Underlying") {
            BodyError::Format
        } else {
            BodyError::Connection(error)
        }
    }
}

/// A request's body on its way in.
pub(crate) struct Incoming {
    /// The bytes, for the node.
    pub(crate) reader: Pieces,
    /// The hashes, once all was read.
    pub(crate) digests: Pending,
}

/// Hashes that are known, or come when the reader is through.
pub(crate) enum Pending {
    Known(Digests),
    Beside(oneshot::Receiver<Digests>),
}

impl Pending {
    pub(crate) async fn get(self) -> io::Result<Digests> {
        match self {
            Pending::Known(digests) => Ok(digests),
            Pending::Beside(digests) => {
                digests.await.map_err(|_| io::Error::other("the body was not read to its end"))
            }
        }
    }
}

/// A piece of a body; `None` is its end, which must be said.
type Piece = Result<Option<Bytes>, BodyError>;

/// Where bytes come from, piece by piece.
pub(crate) struct Pieces {
    at_hand: Bytes,
    more: Option<mpsc::Receiver<Piece>>,
    /// Told when the first piece after the head is wanted.
    wanted: Option<oneshot::Sender<()>>,
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.at_hand.is_empty() {
            if let Some(wanted) = self.wanted.take() {
                // If nobody listens, the next line tells.
                let _ = wanted.send(());
            }
            let Some(more) = &mut self.more else { return Poll::Ready(Ok(())) };
            match std::task::ready!(more.poll_recv(context)) {
                Some(Ok(Some(piece))) => self.at_hand = piece,
                Some(Ok(None)) => self.more = None,
                Some(Err(error)) => return Poll::Ready(Err(error.into_io())),
                None => return Poll::Ready(Err(BodyError::GivenUp.into_io())),
            }
        }
        let count = self.at_hand.len().min(into.remaining());
        into.put_slice(&self.at_hand[..count]);
        self.at_hand.advance(count);
        Poll::Ready(Ok(()))
    }
}

/// Takes a body of `length` bytes (if that is known), hashes it, and then encrypts it if there is a cipher.
pub(crate) async fn take(
    body: Option<StreamingBlob>,
    length: Option<u64>,
    algorithm: Algorithm,
    mut cipher: Option<Cipher>,
    metrics: &Arc<Metrics>,
) -> Result<Incoming, BodyError> {
    let mut source = Source { body, length, read: 0 };
    let mut head = Vec::new();
    let mut hasher = Hasher::new(algorithm);
    while head.len() <= SMALL {
        match source.next().await? {
            Some(piece) => {
                hasher.update(&piece);
                head.extend_from_slice(&piece);
            }
            None => {
                metrics.bytes_in(head.len() as u64);
                if let Some(cipher) = &mut cipher {
                    cipher.apply(0, &mut head);
                }
                return Ok(Incoming {
                    reader: Pieces { at_hand: head.into(), more: None, wanted: None },
                    digests: Pending::Known(hasher.finish()),
                });
            }
        }
    }
    metrics.bytes_in(head.len() as u64);
    let at = head.len() as u64;
    if let Some(cipher) = &mut cipher {
        cipher.apply(0, &mut head);
    }
    let (done, digests) = oneshot::channel();
    let (sender, more) = mpsc::channel(PIECES);
    let (wanted, begin) = oneshot::channel();
    let pump = Pump { source, cipher, at, metrics: Arc::clone(metrics), to_node: sender };
    // Ends when the body does, or when the node has dropped the reader.
    tokio::spawn(async move {
        // The node reads past the head once it has one of its few places: a thread before that would be one of those
        // that all of the node shares, for as long as others take.
        if begin.await.is_ok() {
            pump.run(hasher.beside(done)).await;
        }
    });
    Ok(Incoming {
        reader: Pieces { at_hand: head.into(), more: Some(more), wanted: Some(wanted) },
        digests: Pending::Beside(digests),
    })
}

/// Carries what follows the head of a body to who hashes it, and, encrypted if there is a cipher, to the node.
struct Pump {
    source: Source,
    cipher: Option<Cipher>,
    /// Where in the body the next piece starts.
    at: u64,
    metrics: Arc<Metrics>,
    to_node: mpsc::Sender<Piece>,
}

impl Pump {
    async fn run(mut self, hashing: mpsc::Sender<Bytes>) {
        loop {
            let piece = match self.source.next().await {
                Ok(Some(piece)) => piece,
                end => {
                    let _ = self.to_node.send(end).await;
                    return;
                }
            };
            self.metrics.bytes_in(piece.len() as u64);
            if hashing.send(piece.clone()).await.is_err() {
                return;
            }
            let len = piece.len() as u64;
            let piece = match &mut self.cipher {
                Some(cipher) => cipher.applied(self.at, piece),
                None => piece,
            };
            self.at += len;
            if self.to_node.send(Ok(Some(piece))).await.is_err() {
                return;
            }
        }
    }
}

struct Source {
    body: Option<StreamingBlob>,
    length: Option<u64>,
    read: u64,
}

impl Source {
    async fn next(&mut self) -> Piece {
        let Some(body) = &mut self.body else { return self.end() };
        match body.next().await {
            Some(Ok(piece)) => {
                self.read += piece.len() as u64;
                if self.length.is_some_and(|length| self.read > length) {
                    return Err(BodyError::TooLong);
                }
                Ok(Some(piece))
            }
            Some(Err(error)) => Err(BodyError::of_stream(error)),
            None => self.end(),
        }
    }

    fn end(&self) -> Piece {
        match self.length {
            Some(length) if length != self.read => Err(BodyError::TooShort(self.read)),
            _ => Ok(None),
        }
    }
}

/// An object's bytes on their way out.
pub(crate) struct Outgoing {
    pieces: mpsc::Receiver<Result<Bytes, StdError>>,
    left: u64,
}

impl Outgoing {
    /// Starts delivering, decrypted if there is a cipher. `leave` ends the connection that this goes to, if it does.
    pub(crate) fn start(
        face: &Face,
        object: Object,
        cipher: Option<Cipher>,
        leave: Option<Leave>,
    ) -> StreamingBlob {
        let left = object.range.end - object.range.start;
        let (sender, pieces) = mpsc::channel(OUTGOING);
        let (metrics, paused) = (face.metrics.clone(), face.paused.clone());
        let line = (paused, leave.map(|Leave(leave)| leave));
        tokio::spawn(async move {
            if let Err(error) = deliver(object, cipher, &sender, &metrics, &line).await {
                tracing::info!(%error, "a download ends early");
                let _ = timeout(STALLED, sender.send(Err(error))).await;
            }
        });
        StreamingBlob::new(Self { pieces, left })
    }
}

async fn deliver(
    mut object: Object,
    mut cipher: Option<Cipher>,
    sender: &mpsc::Sender<Result<Bytes, StdError>>,
    metrics: &Metrics,
    line: &Line,
) -> Result<(), StdError> {
    let is_long = object.range.end - object.range.start > READ_AT_ONCE;
    let mut at = object.range.start;
    while let Some(piece) = object.next().await {
        let mut piece = if is_long { Bytes::copy_from_slice(&piece?) } else { piece? };
        let len = piece.len() as u64;
        if let Some(cipher) = &mut cipher {
            piece = cipher.applied(at, piece);
        }
        at += len;
        let place = match timeout(STALLED, sender.reserve()).await {
            Ok(place) => place,
            Err(_) => {
                object.pause();
                pause(sender, line).await?
            }
        };
        // Nobody reads any more: not an error of ours.
        let Ok(place) = place else { return Ok(()) };
        metrics.bytes_out(piece.len() as u64);
        place.send(Ok(piece));
    }
    Ok(())
}

/// Those who take nothing, and what ends the connection of this one.
type Line = (Arc<Waiters>, Option<Arc<Notify>>);

/// What a client that takes nothing is waited for with.
type Place<'a> = Result<mpsc::Permit<'a, Result<Bytes, StdError>>, mpsc::error::SendError<()>>;

/// Waits until the client goes on, or it is its turn to make room.
async fn pause<'a>(
    sender: &'a mpsc::Sender<Result<Bytes, StdError>>,
    (paused, connection): &Line,
) -> Result<Place<'a>, StdError> {
    // Whoever has no connection of its own, as a copy, is told here. The other end of a connection must be told itself:
    // while it writes what it has, it asks for nothing and would not hear of it.
    let leave = Arc::new(Notify::new());
    let _waiter = paused.enter(connection.as_ref().unwrap_or(&leave).clone());
    if paused.len() > PAUSED {
        paused.dismiss_longest();
    }
    tokio::select! {
        place = timeout(GONE, sender.reserve()) => place.map_err(|_| "the client stopped reading".into()),
        () = leave.notified() => Err("too many that don't read, and this one for longest".into()),
    }
}

impl Stream for Outgoing {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = std::task::ready!(self.pieces.poll_recv(context));
        if let Some(Ok(piece)) = &next {
            self.left -= (piece.len() as u64).min(self.left);
        }
        Poll::Ready(match next {
            // The task ended before it delivered everything: the connection must not look well.
            None if self.left > 0 => Some(Err("the object could not be delivered to its end".into())),
            next => next,
        })
    }
}

impl ByteStream for Outgoing {
    fn remaining_length(&self) -> RemainingLength {
        usize::try_from(self.left).map_or_else(|_| RemainingLength::unknown(), RemainingLength::new_exact)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// A body of so many pieces of 64 KiB.
    fn body(pieces: usize) -> Option<StreamingBlob> {
        let pieces = (0..pieces).map(|_| Ok::<_, io::Error>(Bytes::from(vec![1; 64 << 10])));
        Some(StreamingBlob::wrap(stream::iter(pieces)))
    }

    async fn taken(pieces: usize) -> Incoming {
        take(body(pieces), None, Algorithm::Crc32, None, &Arc::default()).await.unwrap()
    }

    #[test]
    fn who_waits_for_a_place_takes_no_thread() {
        // With a single one for all that blocks: who took it would be noticed at once.
        let one = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build();
        one.unwrap().block_on(async {
            let mut waiting = Vec::new();
            for _ in 0..20 {
                let mut incoming = taken(10).await;
                // What the node reads before it has a place.
                incoming.reader.read_exact(&mut [0; 20_000]).await.unwrap();
                // What runs beside has its turn.
                tokio::task::yield_now().await;
                waiting.push(incoming);
            }
            let other = timeout(Duration::from_secs(10), tokio::task::spawn_blocking(|| ()));
            other.await.expect("a thread is free").unwrap();
            // One after the other gets its place, and its hashes.
            for Incoming { mut reader, digests } in waiting {
                let mut bytes = Vec::new();
                reader.read_to_end(&mut bytes).await.unwrap();
                assert_eq!(bytes.len(), 640 * 1024 - 20_000);
                let mut hasher = Hasher::new(Algorithm::Crc32);
                hasher.update(&vec![1; 640 << 10]);
                assert_eq!(digests.get().await.unwrap(), hasher.finish());
            }
        });
    }

    #[tokio::test]
    async fn an_end_that_was_not_said_is_none() {
        let (sender, more) = mpsc::channel(PIECES);
        sender.send(Ok(Some(Bytes::from_static(b"half")))).await.unwrap();
        drop(sender);
        let mut reader = Pieces { at_hand: Bytes::new(), more: Some(more), wanted: None };
        let mut bytes = Vec::new();
        assert!(reader.read_to_end(&mut bytes).await.is_err());
        assert_eq!(bytes, b"half");
    }
}
