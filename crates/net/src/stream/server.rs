//! The accepting end of a stream lane: one exchange after the other, each owned by the service while it
//! lasts. [`Incoming`] is the request's body, [`Outgoing`] the reply's.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use pando_core::id::NodeId;
use tokio::sync::oneshot;

use super::{check_length, read_body, write_body};
use crate::{
    conn::Conn, context::Context, error::Error, limits::Limits, service::Service, stats::add, sys::Instant,
};

/// Bytes thrown away at once when a body was not wanted.
const DRAIN: usize = 64 << 10;

/// What an exchange needs of the limits.
#[derive(Clone, Copy)]
struct Bounds {
    frame: usize,
    body: u64,
    stall: Duration,
}

/// A connection after a reply, and how much of the request's body was left unread.
type Finished = (Conn, u64);

/// Serves a stream lane to its end.
pub(crate) async fn serve<S: Service>(context: &Context, service: &Arc<S>, conn: Conn) {
    let (peer, remote) = (conn.peer, conn.remote);
    match exchanges(context, service, conn).await {
        Ok(()) => tracing::trace!(peer = %peer.short(), %remote, "a stream lane ended"),
        Err(why @ (Error::Malformed { .. } | Error::FrameTooLarge { .. })) => {
            tracing::warn!(peer = %peer.short(), %remote, %why, "closed a stream lane");
        }
        Err(why) => tracing::debug!(peer = %peer.short(), %remote, %why, "a stream lane broke"),
    }
}

async fn exchanges<S: Service>(context: &Context, service: &Arc<S>, mut conn: Conn) -> Result<(), Error> {
    let Limits { frame, body, stall, idle, drain, .. } = context.limits;
    let bounds = Bounds { frame, body, stall };
    loop {
        // Twice the time that the dialer keeps it: the dialer lets go first.
        let by = Instant::now() + 2 * idle;
        let request = tokio::select! {
            biased;
            request = conn.read_frame(frame, stall, by) => request?,
            () = context.stopping() => None,
        };
        let Some((len, request)) = request else { return Ok(()) };
        if len > body {
            return Err(Error::malformed(format!("a body of {len} bytes")));
        }
        let peer = conn.peer;
        conn.expect_body(len);
        let (give_back, given_back) = oneshot::channel();
        let incoming = Incoming { conn, give_back, len, left: len, bounds };
        service.stream(peer, request, incoming).await;
        // The service may have handed the exchange on, so it is the exchange that is waited for.
        let Ok((next, unread)) = given_back.await else {
            return Err(Error::closed("the exchange was dropped before its end"));
        };
        conn = next;
        if unread > drain {
            conn.say_goodbye(Instant::now() + stall).await;
            throw_away(&mut conn, drain, stall).await?;
            return Ok(());
        }
        throw_away(&mut conn, unread, stall).await?;
        conn.read_ahead(0);
    }
}

/// Reads and forgets: closing a socket with bytes unread would reset it, and the reply might not arrive.
async fn throw_away(conn: &mut Conn, mut left: u64, stall: Duration) -> Result<(), Error> {
    if left > 0 {
        let mut waste = vec![0; DRAIN];
        while left > 0 {
            read_body(conn, &mut waste, &mut left, Instant::now() + stall).await?;
        }
    }
    Ok(())
}

/// A request on the stream lane: its body to read, then [`reply`](Incoming::reply). Dropping it closes the
/// connection, which is how the peer learns that nothing comes.
pub struct Incoming {
    conn: Conn,
    give_back: oneshot::Sender<Finished>,
    len: u64,
    left: u64,
    bounds: Bounds,
}

impl Incoming {
    /// Who asks.
    pub fn peer(&self) -> NodeId {
        self.conn.peer
    }

    /// The whole body's length in bytes, as the peer announced it: not above [`Limits::body`], and no reason
    /// to allocate it.
    pub fn body_len(&self) -> u64 {
        self.len
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> u64 {
        self.left
    }

    /// Reads some of the next bytes; 0 only at the body's end, or for an empty buffer.
    ///
    /// # Errors
    /// [`Error::Closed`] if the connection ends before the body, [`Error::Timeout`] if nothing comes for
    /// [`Limits::stall`].
    pub async fn read(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        read_body(&mut self.conn, out, &mut self.left, Instant::now() + self.bounds.stall).await
    }

    /// Fills the buffer.
    ///
    /// # Errors
    /// As [`Incoming::read`]; [`Error::BodyLength`] if the body has not as many bytes left.
    pub async fn read_exact(&mut self, out: &mut [u8]) -> Result<(), Error> {
        check_length(self.len, self.left, out.len() as u64)?;
        let mut have = 0;
        while have < out.len() {
            have += self.read(&mut out[have..]).await?;
        }
        Ok(())
    }

    /// Sends the reply's header; its body follows through [`Outgoing`]. What was not read of the request's
    /// body is thrown away afterwards, up to [`Limits::drain`]; a longer rest closes the connection.
    ///
    /// # Errors
    /// [`Error::FrameTooLarge`], [`Error::BodyLength`] above the limits; what broke the connection otherwise.
    pub async fn reply(self, header: Bytes, body_len: u64) -> Result<Outgoing, Error> {
        self.reply_with(header, body_len, &[]).await
    }

    /// As [`reply`](Incoming::reply), with the first bytes of the body, few enough to be copied: they go out in the same
    /// write.
    ///
    /// # Errors
    /// As [`Incoming::reply`]; [`Error::BodyLength`] for more than the body has.
    pub async fn reply_with(mut self, header: Bytes, body_len: u64, first: &[u8]) -> Result<Outgoing, Error> {
        let Bounds { frame, body, stall } = self.bounds;
        if body_len > body {
            return Err(Error::BodyLength { announced: body, given: body_len });
        }
        check_length(body_len, body_len, first.len() as u64)?;
        let by = Instant::now() + stall;
        self.conn.write_frame_and(body_len, &header, first, frame, stall, by).await?;
        add(&self.conn.counters().stream_out, first.len());
        let Self { conn, give_back, left: unread, .. } = self;
        Ok(Outgoing { conn, give_back, unread, len: body_len, left: body_len - first.len() as u64, stall })
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Incoming");
        shown.field("peer", &self.conn.peer).field("body_len", &self.len).field("remaining", &self.left);
        shown.finish_non_exhaustive()
    }
}

/// A reply whose header was sent. Write its body, then [`finish`](Outgoing::finish). Dropping it closes the
/// connection, which tells the peer that the body is not whole.
pub struct Outgoing {
    conn: Conn,
    give_back: oneshot::Sender<Finished>,
    unread: u64,
    len: u64,
    left: u64,
    stall: Duration,
}

impl Outgoing {
    /// Sends the next bytes of the body. If the future is dropped before its end, drop the exchange too: some
    /// of the bytes are gone.
    ///
    /// # Errors
    /// [`Error::BodyLength`] for more than was announced; [`Error::Timeout`] if the peer takes nothing for
    /// [`Limits::stall`]; what broke the connection otherwise.
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), Error> {
        check_length(self.len, self.left, bytes.len() as u64)?;
        // As long as it progresses, a body may take any time.
        let never = Instant::now() + FOREVER;
        write_body(&mut self.conn, bytes, &mut self.left, self.stall, never).await
    }

    /// Ends the reply: the connection is ready for the next exchange.
    ///
    /// # Errors
    /// [`Error::BodyLength`] if less was written than announced; what broke the connection otherwise.
    pub async fn finish(mut self) -> Result<(), Error> {
        if self.left > 0 {
            return Err(Error::BodyLength { announced: self.len, given: self.len - self.left });
        }
        self.conn.flush(self.stall, Instant::now() + self.stall).await?;
        // If the lane's task is gone, the endpoint is shutting down.
        let _ = self.give_back.send((self.conn, self.unread));
        Ok(())
    }
}

/// Longer than any body takes, short enough to add to a clock: a year.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Outgoing");
        shown.field("peer", &self.conn.peer).field("body_len", &self.len).field("left", &self.left);
        shown.finish_non_exhaustive()
    }
}
