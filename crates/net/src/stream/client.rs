//! The dialer's end of a stream exchange: [`Exchange`] sends the request's body, [`Body`] reads the reply's.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::{check_length, pool::Pool, read_body, write_body};
use crate::{
    conn::{Conn, REPLY_READ},
    error::Error,
    limits::Limits,
    sys::Instant,
};

/// Where a connection came from and goes back to, with a place among the peer's exchanges.
pub(crate) struct Origin {
    pub(crate) pool: Arc<Pool>,
    pub(crate) generation: u64,
    pub(crate) place: OwnedSemaphorePermit,
}

/// A request whose header was sent. Write its body, then [`finish`](Exchange::finish). Dropping it closes
/// the connection, which ends the exchange at the peer too.
pub struct Exchange {
    conn: Conn,
    origin: Origin,
    body_len: u64,
    left: u64,
    deadline: Instant,
    stall: Duration,
    frame: usize,
    max_body: u64,
    /// The peer stopped reading. It may have said why: [`Exchange::finish`] looks.
    broken: Option<Error>,
}

impl Exchange {
    /// Sends the request's header on `conn`. A failure means that the peer can't have got it whole.
    pub(crate) async fn begin(
        mut conn: Conn,
        origin: Origin,
        request: &Bytes,
        body_len: u64,
        deadline: Instant,
        limits: &Limits,
    ) -> Result<Self, (Error, Origin)> {
        let sent = conn.write_frame(body_len, request, limits.frame, limits.stall, deadline).await;
        if let Err(error) = sent {
            return Err((error.unsent(), origin));
        }
        Ok(Self {
            conn,
            origin,
            body_len,
            left: body_len,
            deadline,
            stall: limits.stall,
            frame: limits.frame,
            max_body: limits.body,
            broken: None,
        })
    }

    /// Sends the next bytes of the body. A peer that has stopped reading is not an error here: it may have
    /// replied early, so the rest is skipped and [`finish`](Exchange::finish) tells what it said.
    ///
    /// If the future is dropped before its end, drop the exchange too: some of the bytes are gone.
    ///
    /// # Errors
    /// [`Error::BodyLength`] for more than was announced; [`Error::Timeout`] at the deadline, or if the peer
    /// takes nothing for [`Limits::stall`].
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), Error> {
        check_length(self.body_len, self.left, bytes.len() as u64)?;
        if self.broken.is_some() {
            self.left -= bytes.len() as u64;
            return Ok(());
        }
        let before = self.left;
        match write_body(&mut self.conn, bytes, &mut self.left, self.stall, self.deadline).await {
            Err(error @ Error::Closed { .. }) => {
                self.left = before - bytes.len() as u64;
                self.broken = Some(error);
                Ok(())
            }
            other => other,
        }
    }

    /// Ends the request and waits for the reply: its header, and its body to be read. If that is empty, the
    /// connection is free for the next exchange already.
    ///
    /// # Errors
    /// [`Error::BodyLength`] if less was written than announced; [`Error::Timeout`] at the deadline; what
    /// broke the connection otherwise.
    pub async fn finish(mut self) -> Result<(Bytes, Body), Error> {
        if self.left > 0 {
            return Err(Error::BodyLength { announced: self.body_len, given: self.body_len - self.left });
        }
        if self.broken.is_none() {
            match self.conn.flush(self.stall, self.deadline).await {
                Err(error @ Error::Closed { .. }) => self.broken = Some(error),
                flushed => flushed?,
            }
        }
        self.conn.read_ahead(REPLY_READ);
        let reply = self.conn.read_frame(self.frame, self.stall, self.deadline).await;
        let (len, header) = match (reply, self.broken.take()) {
            (Ok(Some(reply)), _) => reply,
            (_, Some(broken)) => return Err(broken),
            (Ok(None), None) => return Err(Error::closed("the other side closed it before the reply")),
            (Err(error), None) => return Err(error),
        };
        if len > self.max_body {
            return Err(Error::malformed(format!("a body of {len} bytes")));
        }
        self.conn.expect_body(len);
        let mut body = Body { open: Some((self.conn, self.origin)), len, left: len, stall: self.stall };
        body.give_back_at_end();
        Ok((header, body))
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Exchange");
        shown.field("peer", &self.conn.peer).field("body_len", &self.body_len).field("left", &self.left);
        shown.finish_non_exhaustive()
    }
}

/// The body of a reply. Read to its end, it gives the connection back for the next exchange; dropped before,
/// it closes it. Each read waits for [`Limits::stall`] at most; the exchange's deadline was for the reply.
pub struct Body {
    /// `None` once the end was read.
    open: Option<(Conn, Origin)>,
    len: u64,
    left: u64,
    stall: Duration,
}

impl Body {
    /// The whole body's length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> u64 {
        self.left
    }

    /// Reads some of the next bytes; 0 only at the body's end, or for an empty buffer.
    ///
    /// # Errors
    /// [`Error::Closed`] if the connection ends before the body, [`Error::Timeout`] if nothing comes for
    /// [`Limits::stall`]. After an error the rest is lost.
    pub async fn read(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        let Some((conn, _)) = &mut self.open else {
            return if self.left == 0 { Ok(0) } else { Err(Error::closed("the body broke off before")) };
        };
        match read_body(conn, out, &mut self.left, Instant::now() + self.stall).await {
            Ok(read) => {
                self.give_back_at_end();
                Ok(read)
            }
            Err(error) => {
                self.open = None;
                Err(error)
            }
        }
    }

    /// Fills the buffer.
    ///
    /// # Errors
    /// As [`Body::read`]; [`Error::BodyLength`] if the body has not as many bytes left.
    pub async fn read_exact(&mut self, out: &mut [u8]) -> Result<(), Error> {
        check_length(self.len, self.left, out.len() as u64)?;
        let mut have = 0;
        while have < out.len() {
            have += self.read(&mut out[have..]).await?;
        }
        Ok(())
    }

    fn give_back_at_end(&mut self) {
        if self.left == 0
            && let Some((conn, origin)) = self.open.take()
        {
            origin.pool.put(conn, origin.generation);
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("len", &self.len).field("left", &self.left).finish_non_exhaustive()
    }
}
