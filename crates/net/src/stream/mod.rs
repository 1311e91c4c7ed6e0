//! The stream lane: one exchange at a time on a connection of its own, for bodies of any length.
//!
//! After the lane's first byte and its answer: a request frame whose tag is the length of the body, exactly so
//! many raw bytes, a reply frame of the same kind, exactly so many raw bytes, and so on. A connection is
//! used again only after a whole exchange; whoever drops one half-way closes it. No state says whether a
//! connection is in use: whoever holds it uses it.

pub(crate) mod client;
pub(crate) mod pool;
pub(crate) mod server;

use std::time::Duration;

use crate::{conn::Conn, error::Error, stats::add, sys::Instant};

/// Reads body bytes, no more than are left.
async fn read_body(conn: &mut Conn, out: &mut [u8], left: &mut u64, by: Instant) -> Result<usize, Error> {
    let most = usize::try_from(*left).unwrap_or(usize::MAX).min(out.len());
    if most == 0 {
        return Ok(0);
    }
    let read = conn.read_some(&mut out[..most], by).await?;
    add(&conn.counters().stream_in, read);
    *left -= read as u64;
    Ok(read)
}

/// Writes body bytes, no more than are left of what was announced.
async fn write_body(
    conn: &mut Conn,
    bytes: &[u8],
    left: &mut u64,
    stall: Duration,
    by: Instant,
) -> Result<(), Error> {
    conn.write_all(bytes, stall, by).await?;
    add(&conn.counters().stream_out, bytes.len());
    *left -= bytes.len() as u64;
    Ok(())
}

/// A body that ends elsewhere than its header said: a bug of who announced it.
fn check_length(announced: u64, left: u64, more: u64) -> Result<(), Error> {
    if more <= left { Ok(()) } else { Err(Error::BodyLength { announced, given: announced - left + more }) }
}
