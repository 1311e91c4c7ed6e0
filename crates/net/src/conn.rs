//! One authenticated connection: bytes and frames with a deadline on every wait.
//!
//! Owns the socket, and counts it while it lives. Knows no lane; what is said on it is its owner's.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context as Poller, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use pando_core::id::NodeId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio_rustls::TlsStream;

use crate::{
    error::Error,
    frame::{self, HEADER, Header},
    socket::Socket,
    stats::{Counters, Live},
    sys::{Instant, timeout_at},
};

/// First byte of a connection that is an RPC lane, and the answer that takes it.
pub(crate) const RPC: u8 = 0x1;
/// First byte of a connection that is a stream lane, and the answer that takes it.
pub(crate) const STREAM: u8 = 0x2;
/// The answer to either when the peer has too many connections.
pub(crate) const BUSY: u8 = 0x0;

/// What rustls may hold encrypted and unsent, in bytes: what one write to the socket carries.
pub(crate) const TLS_BUFFER: usize = 256 << 10;

/// Bytes read from the socket at once while a body runs.
const BULK_READ: usize = 128 << 10;

/// Bytes read from the socket at once while a reply is awaited: its frame, and what comes with it of its body.
pub(crate) const REPLY_READ: usize = 32 << 10;

/// A frame's payload grows by at most this much before its bytes arrive.
const PIECE: usize = 64 << 10;

/// See the file's header.
pub(crate) struct Conn {
    tls: TlsStream<Socket>,
    pub(crate) peer: NodeId,
    pub(crate) remote: SocketAddr,
    live: Live,
}

impl Conn {
    pub(crate) fn new(
        tls: TlsStream<Socket>,
        peer: NodeId,
        remote: SocketAddr,
        counters: &Arc<Counters>,
    ) -> Self {
        Self { tls, peer, remote, live: Live::new(counters) }
    }

    pub(crate) fn counters(&self) -> &Counters {
        self.live.counters()
    }

    /// Bytes to read from the socket at once from now on.
    pub(crate) fn read_ahead(&mut self, bytes: usize) {
        match &mut self.tls {
            TlsStream::Client(tls) => tls.get_mut().0.read_ahead(bytes),
            TlsStream::Server(tls) => tls.get_mut().0.read_ahead(bytes),
        }
    }

    /// A body of this length comes next (or has ended, with 0).
    pub(crate) fn expect_body(&mut self, len: u64) {
        self.read_ahead(if len > BULK_READ as u64 / 4 { BULK_READ } else { 0 });
    }

    /// Gives up the framing: for a lane that reads and writes at once. The second part counts the connection.
    pub(crate) fn into_parts(self) -> (TlsStream<Socket>, Live) {
        (self.tls, self.live)
    }

    /// Whether the connection is as an idle one must be: open, with nothing to read. A cheap look without
    /// waiting: the peer's close is seen as soon as this machine's network stack and runtime have seen it.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut byte = ReadBuf::new(&mut byte);
        let mut poller = Poller::from_waker(Waker::noop());
        Pin::new(&mut self.tls).poll_read(&mut poller, &mut byte).is_pending()
    }

    /// Reads some bytes, at least one.
    pub(crate) async fn read_some(&mut self, out: &mut [u8], by: Instant) -> Result<usize, Error> {
        match timeout_at(by, self.tls.read(out)).await {
            Err(_) => Err(Error::timeout("bytes from the peer")),
            Ok(Ok(0)) => Err(Error::closed("the other side closed it")),
            Ok(Ok(read)) => Ok(read),
            Ok(Err(error)) => Err(Error::broken(&error)),
        }
    }

    /// Writes everything; between two signs of progress `stall` may pass, and nothing passes `by`.
    pub(crate) async fn write_all(
        &mut self,
        mut bytes: &[u8],
        stall: Duration,
        by: Instant,
    ) -> Result<(), Error> {
        while !bytes.is_empty() {
            let until = by.min(Instant::now() + stall);
            match timeout_at(until, self.tls.write(bytes)).await {
                Err(_) => return Err(Error::timeout("the peer to take bytes")),
                Ok(Ok(0)) => return Err(Error::broken(&io::ErrorKind::WriteZero.into())),
                Ok(Ok(written)) => bytes = &bytes[written..],
                Ok(Err(error)) => return Err(Error::broken(&error)),
            }
        }
        Ok(())
    }

    /// Hands everything written to the socket.
    pub(crate) async fn flush(&mut self, stall: Duration, by: Instant) -> Result<(), Error> {
        match timeout_at(by.min(Instant::now() + stall), self.tls.flush()).await {
            Err(_) => Err(Error::timeout("the peer to take bytes")),
            Ok(flushed) => flushed.map_err(|error| Error::broken(&error)),
        }
    }

    /// Reads a frame. Its first byte may take until `by`, and from then on `stall` may pass between two
    /// signs of progress. `None`: the peer closed before the first byte.
    pub(crate) async fn read_frame(
        &mut self,
        max: usize,
        stall: Duration,
        by: Instant,
    ) -> Result<Option<(u64, Bytes)>, Error> {
        let mut header = [0; HEADER];
        let mut have = match timeout_at(by, self.tls.read(&mut header)).await {
            Err(_) => return Err(Error::timeout("a frame from the peer")),
            Ok(Ok(0)) => return Ok(None),
            Ok(Err(error)) if is_close(&error) => return Ok(None),
            Ok(Err(error)) => return Err(Error::broken(&error)),
            Ok(Ok(read)) => read,
        };
        while have < HEADER {
            have += self.read_some(&mut header[have..], Instant::now() + stall).await?;
        }
        let too_large = |len| Error::FrameTooLarge { len, max: max as u64, sent: true };
        let Header { len, tag } = Header::decode(&header, max).map_err(|large| too_large(large.len))?;
        let mut payload = BytesMut::with_capacity(len.min(PIECE));
        while payload.len() < len {
            let start = payload.len();
            payload.resize(len.min(start + PIECE), 0);
            let read = self.read_some(&mut payload[start..], Instant::now() + stall).await?;
            payload.truncate(start + read);
        }
        Ok(Some((tag, payload.freeze())))
    }

    /// Writes and flushes a frame, and what follows it in the same write. A failure means that the peer can't have
    /// got it whole.
    pub(crate) async fn write_frame_and(
        &mut self,
        tag: u64,
        payload: &[u8],
        after: &[u8],
        max: usize,
        stall: Duration,
        by: Instant,
    ) -> Result<(), Error> {
        let mut out = BytesMut::new();
        frame::append(&mut out, tag, payload, max).map_err(|large| Error::FrameTooLarge {
            len: large.len,
            max: max as u64,
            sent: false,
        })?;
        out.extend_from_slice(after);
        self.write_all(&out, stall, by).await?;
        self.flush(stall, by).await
    }

    /// As [`Conn::write_frame_and`], with nothing after it.
    pub(crate) async fn write_frame(
        &mut self,
        tag: u64,
        payload: &[u8],
        max: usize,
        stall: Duration,
        by: Instant,
    ) -> Result<(), Error> {
        self.write_frame_and(tag, payload, &[], max, stall, by).await
    }

    /// Writes and flushes the byte that names or takes a lane.
    pub(crate) async fn write_byte(&mut self, byte: u8, by: Instant) -> Result<(), Error> {
        let stall = by.saturating_duration_since(Instant::now());
        self.write_all(&[byte], stall, by).await?;
        self.flush(stall, by).await
    }

    /// Reads once, with the failure as the system or TLS said it.
    pub(crate) async fn read_raw(&mut self, out: &mut [u8], by: Instant) -> io::Result<usize> {
        timeout_at(by, self.tls.read(out)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Ends the sending side, so that the peer reads to the end of what was said.
    pub(crate) async fn say_goodbye(&mut self, by: Instant) {
        // A failure means that the peer is gone already, which is as good.
        let _ = timeout_at(by, self.tls.shutdown()).await;
    }
}

/// The peer is gone, in one way or another, as opposed to having said something wrong.
pub(crate) fn is_close(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}
