//! A join: one exchange with somebody who is not a member, on a connection that is nothing else. A frame each
//! way, tag 0.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::{
    conn::Conn,
    context::Context,
    error::Error,
    limits::Limits,
    service::Service,
    sys::{Instant, timeout, timeout_at},
};

/// Asks on a connection dialed for this.
pub(crate) async fn ask(
    limits: &Limits,
    mut conn: Conn,
    request: &Bytes,
    by: Instant,
) -> Result<Bytes, Error> {
    let sent = conn.write_frame(0, request, limits.frame, limits.stall, by).await;
    // A server that refused has closed already; its alert can still be read when writing fails.
    let reply = conn.read_frame(limits.frame, limits.stall, by).await;
    sent.map_err(Error::unsent)?;
    match reply? {
        Some((0, reply)) => Ok(reply),
        Some(_) => Err(Error::malformed("a join's reply with a number")),
        None => Err(Error::closed("the other side closed it before the reply")),
    }
}

/// Serves the one request of a stranger. The request itself must be there by `by`.
pub(crate) async fn serve<S: Service>(
    context: &Context,
    service: &Arc<S>,
    places: &Semaphore,
    mut conn: Conn,
    by: Instant,
) -> Result<(), Error> {
    let Limits { frame, stall, join, .. } = context.limits;
    let read = timeout_at(by, conn.read_frame(frame, stall, by)).await;
    let request = match read.unwrap_or(Err(Error::timeout("a join's request")))? {
        Some((0, request)) => request,
        Some(_) => return Err(Error::malformed("a join's request with a number")),
        None => return Ok(()),
    };
    // Only who has asked takes a place: strangers that say nothing are bounded elsewhere, and don't keep
    // an honest one out.
    let Ok(_place) = places.try_acquire() else { return Err(Error::closed("too many joins at once")) };
    let reply = timeout(join, service.join(conn.peer, conn.remote, request)).await;
    let reply = reply.map_err(|_| Error::timeout("the service to decide on a join"))?;
    let by = Instant::now() + stall;
    conn.write_frame(0, &reply, frame, stall, by).await?;
    conn.say_goodbye(by).await;
    Ok(())
}
