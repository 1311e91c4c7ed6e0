//! The dialer's end of an RPC lane: numbers requests, and gives each reply to who waits for it.
//!
//! One task owns the connection. Callers hold a [`Lane`]: a bounded queue to that task, and the table of
//! calls that wait, bounded by the number of calls allowed in flight.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use pando_core::id::NodeId;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{Outgoing, PING, Progress, READ_AHEAD, Reader, TICK, Watch, write_loop};
use crate::{
    conn::Conn,
    context::Context,
    error::Error,
    stats::{Counters, add},
    sys::{Instant, MissedTickBehavior, interval, timeout_at},
    tasks::{TaskId, Tasks},
};

/// A live RPC lane to one peer.
pub(crate) struct Lane {
    queue: mpsc::Sender<Outgoing>,
    calls: Mutex<Calls>,
    next: AtomicU64,
    places: Semaphore,
    task: OnceLock<TaskId>,
    tasks: Tasks,
    frame: usize,
}

#[derive(Default)]
struct Calls {
    waiting: BTreeMap<u64, oneshot::Sender<Result<Bytes, Error>>>,
    /// Why the lane takes no more calls.
    over: Option<Error>,
}

impl Lane {
    /// Starts the lane's task on a connection that the peer has taken as an RPC lane.
    pub(crate) fn start(context: &Arc<Context>, conn: Conn) -> Arc<Self> {
        let (queue, queued) = mpsc::channel(context.limits.queue);
        let lane = Arc::new(Self {
            queue,
            calls: Mutex::default(),
            next: AtomicU64::new(PING + 1),
            places: Semaphore::new(context.limits.calls),
            task: OnceLock::new(),
            tasks: context.tasks.clone(),
            frame: context.limits.frame,
        });
        let (owned, shared) = (Arc::clone(&lane), Arc::clone(context));
        let task = context.tasks.spawn(|_| async move { run(&shared, &owned, conn, queued).await });
        // Set once, here.
        let _ = lane.task.set(task);
        lane
    }

    /// One exchange. An error that says [`Error::maybe_delivered`] `false` can go to another lane.
    pub(crate) async fn call(&self, request: Bytes, by: Instant) -> Result<Bytes, Error> {
        if request.len() > self.frame {
            let (len, max) = (request.len() as u64, self.frame as u64);
            return Err(Error::FrameTooLarge { len, max, sent: false });
        }
        let late = |what| Error::Timeout { what, sent: false };
        let place = timeout_at(by, self.places.acquire()).await;
        let Ok(_place) = place.map_err(|_| late("a place among the calls in flight"))? else {
            return Err(self.over());
        };
        let (tell, told) = oneshot::channel();
        let waiting = self.register(tell)?;
        let frame = Outgoing { tag: waiting.id, payload: request };
        match timeout_at(by, self.queue.send(frame)).await {
            Err(_) => return Err(late("a place in the lane's queue")),
            Ok(Err(_)) => return Err(self.over()),
            Ok(Ok(())) => {}
        }
        match timeout_at(by, told).await {
            Err(_) => Err(Error::timeout("a reply")),
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => Err(Error::closed("the lane ended")),
        }
    }

    /// Ends the lane: all that waits fails with `why`.
    pub(crate) fn close(&self, why: &Error) {
        self.end(why);
        if let Some(task) = self.task.get() {
            self.tasks.abort(*task);
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.calls().over.is_some()
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a call could not even begin.
    fn over(&self) -> Error {
        let over = self.calls().over.clone();
        over.unwrap_or_else(|| Error::closed("the lane ended")).unsent()
    }

    fn register(&self, tell: oneshot::Sender<Result<Bytes, Error>>) -> Result<Waiting<'_>, Error> {
        let mut calls = self.calls();
        if let Some(over) = &calls.over {
            return Err(over.clone().unsent());
        }
        let id = self.next.fetch_add(1, Relaxed);
        calls.waiting.insert(id, tell);
        Ok(Waiting { lane: self, id })
    }

    fn end(&self, why: &Error) {
        let waiting = {
            let mut calls = self.calls();
            calls.over.get_or_insert_with(|| why.clone());
            std::mem::take(&mut calls.waiting)
        };
        self.places.close();
        for (_, tell) in waiting {
            // Whoever does not listen any more has met its deadline.
            let _ = tell.send(Err(why.clone()));
        }
    }

    /// Ends the lane if nothing waits on it.
    fn end_if_idle(&self, why: &Error) -> bool {
        let mut calls = self.calls();
        let idle = calls.waiting.is_empty();
        if idle {
            calls.over.get_or_insert_with(|| why.clone());
        }
        idle
    }
}

/// Ends the lane with its task, however that ends.
struct Ending<'a>(&'a Lane);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end(&Error::closed("the lane's task ended"));
    }
}

/// A call's place in the table, given up with it.
struct Waiting<'a> {
    lane: &'a Lane,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.lane.calls().waiting.remove(&self.id);
    }
}

async fn run(context: &Context, lane: &Lane, mut conn: Conn, mut queued: mpsc::Receiver<Outgoing>) {
    let _ending = Ending(lane);
    let (peer, remote) = (conn.peer, conn.remote);
    conn.read_ahead(READ_AHEAD);
    let (tls, live) = conn.into_parts();
    let (reading, writing) = tokio::io::split(tls);
    let (progress, counters, frame) = (Progress::default(), live.counters(), context.limits.frame);
    let mut reader = Reader::new(reading, frame, &progress);
    let ended = tokio::select! {
        biased;
        read = read_replies(lane, &mut reader, counters) => read,
        written = write_loop(writing, &mut queued, frame, &progress, counters) => written,
        why = watch(context, lane, &progress) => Err(why),
    };
    let why = ended.err().unwrap_or_else(|| Error::closed("the lane ended"));
    log(peer, &remote, &why);
    lane.end(&why);
}

/// Gives replies to who waits, until the connection ends.
async fn read_replies(lane: &Lane, reader: &mut Reader<'_>, counters: &Counters) -> Result<(), Error> {
    while let Some((id, reply)) = reader.next().await? {
        add(&counters.rpc_in, reply.len());
        // No one waits: the answer to a ping, or a reply after its caller's deadline.
        if let Some(tell) = lane.calls().waiting.remove(&id) {
            let _ = tell.send(Ok(reply));
        }
    }
    Err(Error::closed("the other side closed it"))
}

fn log(peer: NodeId, remote: &std::net::SocketAddr, why: &Error) {
    match why {
        Error::Malformed { .. } | Error::FrameTooLarge { .. } => {
            tracing::warn!(peer = %peer.short(), %remote, %why, "closed an RPC lane");
        }
        _ => tracing::debug!(peer = %peer.short(), %remote, %why, "an RPC lane ended"),
    }
}

/// Pings a silent peer while calls wait, and says when the lane is dead or not needed any more.
async fn watch(context: &Context, lane: &Lane, progress: &Progress) -> Error {
    let limits = &context.limits;
    let mut ticks = interval(limits.ping.max(TICK));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut watch = Watch::new(limits.ping.max(TICK));
    // Silence while nobody waited is no sign of death.
    let mut waited = std::time::Duration::ZERO;
    loop {
        ticks.tick().await;
        let silence = watch.look(progress);
        if silence.write >= limits.stall {
            return Error::timeout("the peer to take requests");
        }
        let unused = Error::Closed { why: "unused".to_owned(), sent: false };
        if silence.heard >= limits.idle && lane.end_if_idle(&unused) {
            return unused;
        }
        let waits = !lane.calls().waiting.is_empty();
        waited =
            if waits && silence.heard >= limits.ping { waited + limits.ping } else { Default::default() };
        if waited >= limits.silence {
            return Error::timeout("any sign of life from the peer");
        }
        if !waited.is_zero() {
            // A full queue is written from, or stalls: either is noticed.
            let _ = lane.queue.try_send(Outgoing { tag: PING, payload: Bytes::new() });
        }
    }
}
