//! The RPC lane: many small exchanges on one connection per peer and direction.
//!
//! After the lane's first byte and its answer, each side sends frames whose tag is the request's number; the
//! reply carries the number of its request. Number 0 is a ping, empty, and is answered with an empty 0.
//! One task per lane owns the connection and runs three loops beside each other: reading, writing, watching.

pub(crate) mod client;
pub(crate) mod server;

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::mpsc,
};
use tokio_rustls::TlsStream;

use crate::{
    conn::is_close,
    error::Error,
    frame::{self, Decoder},
    socket::Socket,
    stats::{Counters, add},
};

/// The number of a ping and of its answer.
const PING: u64 = 0;

/// Bytes read from the socket at once.
const READ_AHEAD: usize = 32 << 10;

/// Frames taken from the queue for one write.
const BATCH: usize = 256;

/// A batch is written once it is this long: some TLS records, below what one write to the socket takes.
const WRITE: usize = 128 << 10;

/// Payloads from this length on are written from where they are, not copied into the batch first.
const LARGE: usize = 32 << 10;

/// The watching loop looks no more often than this, whatever the limits say.
const TICK: Duration = Duration::from_millis(1);

/// A frame on its way out.
struct Outgoing {
    tag: u64,
    payload: Bytes,
}

/// What the reading and writing loops show to the watching one.
#[derive(Default)]
struct Progress {
    heard: AtomicU64,
    wrote: AtomicU64,
    writing: AtomicBool,
}

/// What a watch found at a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Silence {
    /// Nothing was heard for so long.
    heard: Duration,
    /// A write has made no progress for so long.
    write: Duration,
}

/// Turns progress into silence, tick by tick.
struct Watch {
    tick: Duration,
    heard: (u64, Duration),
    wrote: (u64, Duration),
}

impl Watch {
    fn new(tick: Duration) -> Self {
        Self { tick, heard: (0, Duration::ZERO), wrote: (0, Duration::ZERO) }
    }

    /// One tick has passed.
    fn look(&mut self, progress: &Progress) -> Silence {
        let heard = progress.heard.load(Relaxed);
        let (last, silent) = self.heard;
        self.heard = (heard, if heard == last { silent + self.tick } else { Duration::ZERO });
        let wrote = progress.wrote.load(Relaxed);
        let (last, stuck) = self.wrote;
        let is_stuck = wrote == last && progress.writing.load(Relaxed);
        self.wrote = (wrote, if is_stuck { stuck + self.tick } else { Duration::ZERO });
        Silence { heard: self.heard.1, write: self.wrote.1 }
    }
}

/// The reading loop's end of a lane.
struct Reader<'a> {
    half: ReadHalf<TlsStream<Socket>>,
    decoder: Decoder,
    max: usize,
    progress: &'a Progress,
}

impl<'a> Reader<'a> {
    fn new(half: ReadHalf<TlsStream<Socket>>, max: usize, progress: &'a Progress) -> Self {
        Self { half, decoder: Decoder::new(max), max, progress }
    }

    /// The next frame; `None` when the connection has ended.
    async fn next(&mut self) -> Result<Option<(u64, Bytes)>, Error> {
        let max = self.max as u64;
        loop {
            let next = self.decoder.next();
            let next = next.map_err(|large| Error::FrameTooLarge { len: large.len, max, sent: true })?;
            if next.is_some() {
                return Ok(next);
            }
            match self.half.read_buf(self.decoder.room()).await {
                Ok(0) if self.decoder.is_amid() => {
                    return Err(Error::malformed("the lane ended in the middle of a frame"));
                }
                Ok(0) => return Ok(None),
                Ok(_) => {
                    self.progress.heard.fetch_add(1, Relaxed);
                }
                Err(error) if is_close(&error) => return Ok(None),
                Err(error) => return Err(Error::broken(&error)),
            }
        }
    }
}

/// Writes what is queued, all that is there at once, until nobody can queue any more (`Ok`) or it breaks.
async fn write_loop(
    mut half: WriteHalf<TlsStream<Socket>>,
    queue: &mut mpsc::Receiver<Outgoing>,
    max: usize,
    progress: &Progress,
    counters: &Counters,
) -> Result<(), Error> {
    let mut batch = Vec::with_capacity(BATCH);
    let mut out = BytesMut::with_capacity(WRITE);
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        // Whoever is ready to run may have something to send in the same write; nobody waits for who is not.
        tokio::task::yield_now().await;
        while batch.len() < BATCH
            && let Ok(more) = queue.try_recv()
        {
            batch.push(more);
        }
        progress.writing.store(true, Relaxed);
        for Outgoing { tag, payload } in batch.drain(..) {
            add(&counters.rpc_out, payload.len());
            if payload.len() < LARGE {
                frame::append(&mut out, tag, &payload, max)
            } else {
                frame::header(tag, &payload, max).map(|header| out.extend_from_slice(&header))
            }
            .map_err(|large| Error::FrameTooLarge {
                len: large.len,
                max: max as u64,
                sent: true,
            })?;
            if out.len() >= WRITE || payload.len() >= LARGE {
                write_all(&mut half, &out, progress).await?;
                out.clear();
            }
            if payload.len() >= LARGE {
                write_all(&mut half, &payload, progress).await?;
            }
        }
        write_all(&mut half, &out, progress).await?;
        out.clear();
        half.flush().await.map_err(|error| Error::broken(&error))?;
        progress.writing.store(false, Relaxed);
    }
    // A failure to say goodbye means that the peer is gone already.
    let _ = half.shutdown().await;
    Ok(())
}

async fn write_all(
    half: &mut WriteHalf<TlsStream<Socket>>,
    mut bytes: &[u8],
    progress: &Progress,
) -> Result<(), Error> {
    while !bytes.is_empty() {
        match half.write(bytes).await {
            Ok(0) => return Err(Error::closed("the socket takes no more")),
            Ok(written) => bytes = &bytes[written..],
            Err(error) => return Err(Error::broken(&error)),
        }
        progress.wrote.fetch_add(1, Relaxed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_counts_silence() {
        let tick = Duration::from_secs(5);
        let (mut watch, progress) = (Watch::new(tick), Progress::default());
        assert_eq!(watch.look(&progress), Silence { heard: tick, write: Duration::ZERO });
        progress.writing.store(true, Relaxed);
        assert_eq!(watch.look(&progress), Silence { heard: 2 * tick, write: tick });
        progress.heard.fetch_add(1, Relaxed);
        progress.wrote.fetch_add(1, Relaxed);
        assert_eq!(watch.look(&progress), Silence { heard: Duration::ZERO, write: Duration::ZERO });
    }
}
