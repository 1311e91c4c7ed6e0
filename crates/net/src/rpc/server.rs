//! The accepting end of an RPC lane: each request is a task of its own, so that a slow one delays no other.
//!
//! A request once begun runs to its end even if the lane breaks (only a shutdown's grace cuts it short); its
//! reply is then dropped. The lane keeps its place among the peer's connections until they are all done.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use pando_core::id::NodeId;
use tokio::{
    sync::{Notify, Semaphore, mpsc},
    task::JoinSet,
};

use super::{Outgoing, PING, Progress, READ_AHEAD, Reader, TICK, Watch, write_loop};
use crate::{
    conn::Conn,
    context::Context,
    error::Error,
    limits::Limits,
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
    let mut requests = Requests::new(peer, service, limits, queue);
    let shared = Arc::clone(&requests.shared);
    let mut reader = Reader::new(reading, limits.frame, &progress);
    let mut write = Box::pin(write_loop(writing, &mut queued, limits.frame, &progress, counters));
    let ended = tokio::select! {
        biased;
        read = read_requests(&mut reader, counters, &mut requests) => read.map(|()| false),
        written = &mut write => written.map(|()| false),
        why = watch(context, &progress) => Err(why),
        why = panicked(&shared) => Err(why),
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
    shared: Arc<Shared<S>>,
    running: JoinSet<()>,
    queue: mpsc::Sender<Outgoing>,
}

/// What each of them needs.
struct Shared<S> {
    peer: NodeId,
    service: Arc<S>,
    places: Semaphore,
    panicked: Notify,
}

/// A request's place among those in flight.
struct Place<S>(Arc<Shared<S>>);

impl<S> Drop for Place<S> {
    fn drop(&mut self) {
        self.0.places.add_permits(1);
        if std::thread::panicking() {
            self.0.panicked.notify_one();
        }
    }
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
    fn new(peer: NodeId, service: &Arc<S>, limits: &Limits, queue: mpsc::Sender<Outgoing>) -> Self {
        let (service, places) = (Arc::clone(service), Semaphore::new(limits.calls));
        let shared = Arc::new(Shared { peer, service, places, panicked: Notify::new() });
        Self { shared, running: JoinSet::new(), queue }
    }

    async fn begin(&mut self, id: u64, request: Bytes) -> Result<(), Error> {
        while self.running.try_join_next().is_some() {}
        if id == PING {
            if !request.is_empty() {
                return Err(Error::malformed("a ping with a payload"));
            }
            // If the queue is full, the peer hears from us anyway.
            let _ = self.queue.try_send(Outgoing { tag: PING, payload: Bytes::new() });
            return Ok(());
        }
        let place = self.place().await?;
        let queue = self.queue.clone();
        self.running.spawn(async move {
            let payload = place.0.service.call(place.0.peer, request).await;
            // If the lane is gone, so is who asked.
            let _ = queue.send(Outgoing { tag: id, payload }).await;
        });
        Ok(())
    }

    /// Waits for a place among the requests in flight; meanwhile nothing is read.
    async fn place(&self) -> Result<Place<S>, Error> {
        let permit = self.shared.places.acquire().await;
        permit.map_err(|_| Error::closed("the lane ended"))?.forget();
        Ok(Place(Arc::clone(&self.shared)))
    }
}

/// A request that panicked has no reply: its caller learns that from the end of the lane.
async fn panicked<S>(shared: &Shared<S>) -> Error {
    shared.panicked.notified().await;
    tracing::error!(peer = %shared.peer.short(), "the service panicked in a request");
    Error::closed("the service panicked in a request")
}

/// Says when the peer neither reads nor speaks any more.
async fn watch(context: &Context, progress: &Progress) -> Error {
    let limits = &context.limits;
    let mut ticks = interval(limits.ping.max(TICK));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut watch = Watch::new(limits.ping.max(TICK));
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
