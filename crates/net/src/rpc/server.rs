//! The accepting end of an RPC lane: each request is a task of its own, so that a slow one delays no other.
//!
//! A request once begun runs to its end even if the lane breaks (only a shutdown's grace cuts it short); its
//! reply is then dropped. The lane keeps its place among the peer's connections until they are all done.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use pando_core::id::NodeId;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{JoinError, JoinSet},
};

use super::{Outgoing, PING, Progress, READ_AHEAD, Reader, Watch, write_loop};
use crate::{
    conn::Conn,
    context::Context,
    error::Error,
    service::Service,
    stats::{Counters, add},
    sys::{MissedTickBehavior, interval, timeout},
};

/// Serves an RPC lane to its end.
pub(crate) async fn serve<S: Service>(context: &Context, service: &Arc<S>, mut conn: Conn) {
    let (peer, remote) = (conn.peer, conn.remote);
    conn.read_ahead(READ_AHEAD);
    let (tls, live) = conn.into_parts();
    let (reading, writing) = tokio::io::split(tls);
    let (progress, counters, limits) = (Progress::default(), live.counters(), &context.limits);
    let (queue, mut queued) = mpsc::channel(limits.queue);
    let mut requests = Requests {
        peer,
        service: Arc::clone(service),
        places: Arc::new(Semaphore::new(limits.calls)),
        running: JoinSet::new(),
        queue,
    };
    let mut reader = Reader::new(reading, limits.frame, &progress);
    let mut write = Box::pin(write_loop(writing, &mut queued, limits.frame, &progress, counters));
    let ended = tokio::select! {
        biased;
        read = read_requests(&mut reader, counters, &mut requests) => read.map(|()| false),
        written = &mut write => written.map(|()| false),
        why = watch(context, &progress) => Err(why),
        () = context.stopping() => Ok(true),
    };
    let Requests { mut running, queue, .. } = requests;
    drop(queue);
    match ended {
        // Stopping: what was begun is answered, as long as the grace lasts.
        Ok(true) => {
            let finish = async { while running.join_next().await.is_some() {} };
            let _ = timeout(limits.grace, async { tokio::join!(finish, &mut write) }).await;
        }
        Ok(false) => tracing::debug!(peer = %peer.short(), %remote, "an RPC lane was closed by the peer"),
        Err(why @ (Error::Malformed { .. } | Error::FrameTooLarge { .. })) => {
            tracing::warn!(peer = %peer.short(), %remote, %why, "closed an RPC lane");
        }
        Err(why) => tracing::debug!(peer = %peer.short(), %remote, %why, "an RPC lane ended"),
    }
    drop((write, reader));
    while running.join_next().await.is_some() {}
}

/// What runs for one lane.
struct Requests<S> {
    peer: NodeId,
    service: Arc<S>,
    places: Arc<Semaphore>,
    running: JoinSet<()>,
    queue: mpsc::Sender<Outgoing>,
}

/// Begins what is asked, until the connection ends.
async fn read_requests<S: Service>(
    reader: &mut Reader<'_>,
    counters: &Counters,
    requests: &mut Requests<S>,
) -> Result<(), Error> {
    while let Some((id, request)) = reader.next().await? {
        add(&counters.rpc_in, request.len());
        requests.begin(id, request).await?;
    }
    Ok(())
}

impl<S: Service> Requests<S> {
    async fn begin(&mut self, id: u64, request: Bytes) -> Result<(), Error> {
        while let Some(ended) = self.running.try_join_next() {
            survived(ended)?;
        }
        if id == PING {
            if !request.is_empty() {
                return Err(Error::malformed("a ping with a payload"));
            }
            // If the queue is full, the peer hears from us anyway.
            let _ = self.queue.try_send(Outgoing { tag: PING, payload: Bytes::new() });
            return Ok(());
        }
        let place = self.place().await?;
        let (service, peer, queue) = (Arc::clone(&self.service), self.peer, self.queue.clone());
        self.running.spawn(async move {
            let payload = service.call(peer, request).await;
            // If the lane is gone, so is who asked.
            let _ = queue.send(Outgoing { tag: id, payload }).await;
            drop(place);
        });
        Ok(())
    }

    /// Waits for a place among the requests in flight; meanwhile nothing is read.
    async fn place(&mut self) -> Result<OwnedSemaphorePermit, Error> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        place.map_err(|_| Error::closed("the lane ended"))
    }
}

/// A request that panicked has no reply; its caller learns that from the end of the lane.
fn survived(ended: Result<(), JoinError>) -> Result<(), Error> {
    ended.map_err(|error| {
        tracing::error!(%error, "a request was not served to its end");
        Error::closed("a request failed inside the service")
    })
}

/// Says when the peer neither reads nor speaks any more.
async fn watch(context: &Context, progress: &Progress) -> Error {
    let limits = &context.limits;
    let mut ticks = interval(limits.ping);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut watch = Watch::new(limits.ping);
    loop {
        ticks.tick().await;
        let silence = watch.look(progress);
        if silence.write >= limits.stall {
            return Error::timeout("the peer to take replies");
        }
        if silence.heard >= accepted_idle(limits.idle) {
            return Error::timeout("any request from the peer");
        }
    }
}

/// See [`crate::Limits::idle`].
fn accepted_idle(idle: Duration) -> Duration {
    2 * idle
}
