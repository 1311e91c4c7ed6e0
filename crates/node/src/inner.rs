//! What all parts of a node share: its store, its endpoint, the layout it knows, and the way to ask a peer.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use pando_core::{
    id::{NodeId, Partition, WriteId},
    layout::Layout,
    mark,
    name::RegisterName,
    record::Record,
    register::{Ballot, COUNTER_LIMIT, LayoutVersion, Value},
    seal::NetworkKey,
    wire::{self, Failure, Reply, Request},
};
use pando_net::Endpoint;
use pando_store::Store;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use crate::{
    bucket::Lately,
    buffers::Buffers,
    collect::Condemned,
    cover::Covers,
    error::Error,
    join,
    pace::Pace,
    peers::Peers,
    pulse::Mailbox,
    scrub::ScrubState,
    serve,
    shared_reads::SharedReads,
    sys::{self, Instant},
};

/// How long one exchange of small messages may take before the peer counts as lost for it.
pub(crate) const EXCHANGE: Duration = Duration::from_secs(3);
/// How long an operation on a register tries before it fails: long enough for a node that restarts, short
/// enough for a person who waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);
/// How many changes to different registers may take turns at once. Changes to one register that start
/// on one node queue up instead of defeating each other's ballots.
const TURNS: usize = 1024;
/// How many puts (and, apart, gets) run at once; more wait. Each holds a 4 MiB chunk or less besides those
/// in flight, so this bounds memory.
const TRANSFERS: usize = 16;
/// How many chunks are being sealed and sent at once by the whole process. Each holds two buffers of
/// 4 MiB, so this bounds puts to 64 MiB.
const CHUNKS_OUT: usize = 8;
/// How many writes that were acknowledged are followed until their last owner has answered: with values of 16 KiB,
/// 16 MiB while an owner is silent.
const FOLLOWING: usize = 1024;
/// How many chunks are being received at once for keeping, 4 MiB each.
const CHUNKS_IN: usize = 8;
/// How many chunks are being read ahead by all gets together, 2 MiB of buffer each.
const CHUNKS_AHEAD: usize = 12;

/// Where it is kept that this node is no member any more, though its layout still says so.
pub(crate) const REMOVED: &str = "removed";
/// How long between questions whether this node was removed, while peers turn it away.
const KNOCK_PAUSE: Duration = Duration::from_secs(5);

/// The state of one node.
pub(crate) struct Inner {
    pub(crate) id: NodeId,
    pub(crate) store: Store,
    pub(crate) capacity: u64,
    pub(crate) grace: Duration,
    /// How fast healing may move bytes.
    pub(crate) pace: Pace,
    pub(crate) peers: Peers,
    pub(crate) limits: Limits,
    /// For whole chunks.
    pub(crate) buffers: Buffers,
    /// For pieces of chunks.
    pub(crate) pieces: Buffers,
    pub(crate) scrub: ScrubState,
    /// How buckets behaved lately.
    pub(crate) lately: Lately,
    /// Reads that many callers want at once.
    pub(crate) shared_reads: SharedReads,
    /// Versions that were seen removed for good.
    pub(crate) condemned: Condemned,
    /// Wakes the resync loop.
    pub(crate) healing: Notify,
    /// Makes the comparison with the peers hurry.
    pub(crate) reconciling: Notify,
    /// Has this node say now what it knows.
    pub(crate) beat: Notify,
    /// Where gossip goes that came in.
    pub(crate) gossip: Mailbox,
    /// Wakes whoever follows a transition: another node has synced.
    pub(crate) transition: Notify,
    /// The newest layout for which all own partitions are synced.
    pub(crate) synced: AtomicU64,
    /// Held by whoever asks whether this node was removed, and for a while after.
    knocking: Arc<Semaphore>,
    removed: AtomicBool,
    key: OnceLock<NetworkKey>,
    endpoint: OnceLock<Endpoint>,
    layout: watch::Sender<Option<Arc<Layout>>>,
    /// Whose answers speak for every partition of it.
    pub(crate) covers: Covers,
    stopping: watch::Sender<bool>,
    /// When this process started, by the clock on the wall and by the one that never jumps.
    started: (u64, Instant),
    session: u64,
    counter: AtomicU64,
    turns: Vec<Arc<Semaphore>>,
}

/// What bounds the work in progress.
pub(crate) struct Limits {
    pub(crate) puts: Arc<Semaphore>,
    pub(crate) gets: Arc<Semaphore>,
    pub(crate) chunks_out: Arc<Semaphore>,
    pub(crate) chunks_in: Arc<Semaphore>,
    pub(crate) chunks_ahead: Arc<Semaphore>,
    pub(crate) following: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self {
            puts: semaphore(TRANSFERS),
            gets: semaphore(TRANSFERS),
            chunks_out: semaphore(CHUNKS_OUT),
            chunks_in: semaphore(CHUNKS_IN),
            chunks_ahead: semaphore(CHUNKS_AHEAD),
            following: semaphore(FOLLOWING),
        }
    }
}

/// A request and its bytes, encoded once for however many peers.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    request: Request,
    bytes: Bytes,
}

impl From<Request> for Message {
    fn from(request: Request) -> Self {
        Self { bytes: wire::encode(&request), request }
    }
}

/// Why a peer gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// It can't be reached, or did not answer in time.
    #[error("{0}")]
    Lost(String),
    /// Its disk is full.
    #[error("full")]
    NoSpace,
    /// It knows a newer layout, which this node now knows too: start again.
    #[error("the layout changed")]
    NewLayout,
}

impl Inner {
    /// Unix milliseconds of a clock that never jumps while the process runs. What is due is told by it: a wall clock
    /// that is put right would free in a moment what was to be kept for a day.
    pub(crate) fn steady_ms(&self) -> u64 {
        let (wall, since) = self.started;
        wall + since.elapsed().as_millis() as u64
    }

    /// When the grace time of what happens now is over, by [`Inner::steady_ms`].
    pub(crate) fn after_grace(&self) -> u64 {
        self.steady_ms().saturating_add(self.grace.as_millis() as u64)
    }

    pub(crate) fn new(id: NodeId, store: Store, capacity: u64, grace: Duration, pace: Pace) -> Self {
        Self {
            id,
            store,
            capacity,
            grace,
            pace,
            peers: Peers::default(),
            limits: Limits::default(),
            buffers: Buffers::for_chunks(),
            pieces: Buffers::for_pieces(),
            scrub: ScrubState::default(),
            lately: Lately::default(),
            shared_reads: SharedReads::default(),
            condemned: Condemned::default(),
            healing: Notify::new(),
            reconciling: Notify::new(),
            beat: Notify::new(),
            gossip: Mailbox::default(),
            transition: Notify::new(),
            synced: AtomicU64::new(0),
            knocking: Arc::new(Semaphore::new(1)),
            removed: AtomicBool::new(false),
            key: OnceLock::new(),
            endpoint: OnceLock::new(),
            layout: watch::Sender::new(None),
            covers: Covers::default(),
            stopping: watch::Sender::new(false),
            started: (sys::now_ms(), Instant::now()),
            session: u64::from_le_bytes(sys::random()),
            counter: AtomicU64::new(0),
            turns: (0..TURNS).map(|_| Arc::new(Semaphore::new(1))).collect(),
        }
    }

    // ---- what is set once, while the node starts

    pub(crate) fn set_key(&self, key: NetworkKey) {
        // Set twice only to the same key: a node never changes networks.
        let _ = self.key.set(key);
    }

    pub(crate) fn key(&self) -> Result<&NetworkKey, Error> {
        self.key.get().ok_or_else(|| Error::Setup("this node is not a member of a network yet".into()))
    }

    pub(crate) fn set_endpoint(&self, endpoint: Endpoint) {
        let _ = self.endpoint.set(endpoint);
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        self.endpoint.get().expect("the endpoint is set before anything is asked of the node")
    }

    // ---- stopping

    /// Asks every task of the node to end.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Ends when the node stops.
    pub(crate) async fn stopped(&self) {
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// Runs `task` until it ends or the node stops.
    pub(crate) fn spawn_until_stopped(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let inner = Arc::clone(self);
        sys::spawn(async move {
            tokio::select! {
                biased;
                () = inner.stopped() => {}
                () = task => {}
            }
        });
    }

    // ---- the layout

    /// The layout this node knows, if it is a member of a network.
    pub(crate) fn layout_now(&self) -> Option<Arc<Layout>> {
        self.layout.borrow().clone()
    }

    /// The layout this node knows.
    pub(crate) fn layout(&self) -> Result<Arc<Layout>, Error> {
        self.layout_now().ok_or_else(|| Error::Setup("this node is not a member of a network yet".into()))
    }

    /// A member has told that this node is none any more, under a layout that this node will not get.
    pub(crate) async fn set_removed(&self) {
        if let Err(error) = self.store.meta_put(REMOVED, Some(Bytes::new())).await {
            tracing::warn!(%error, "that this node was removed was not kept");
        }
        self.removed.store(true, Ordering::SeqCst);
    }

    /// Whether [`Inner::set_removed`] was called since this process started.
    pub(crate) fn was_removed(&self) -> bool {
        self.removed.load(Ordering::SeqCst)
    }

    /// To wait for layouts.
    pub(crate) fn layouts(&self) -> watch::Receiver<Option<Arc<Layout>>> {
        self.layout.subscribe()
    }

    /// Takes in a layout that was decided: durable first, then known.
    pub(crate) async fn install_layout(&self, layout: Layout) -> Result<(), Error> {
        if self.layout_now().is_some_and(|known| known.network != layout.network) {
            return Err(Error::Setup("a layout of another network".into()));
        }
        let layout = Arc::new(layout);
        let (rules, me) = (Arc::clone(&layout), self.id);
        let void = move |known| {
            Partition::all().filter(|partition| !rules.keeps_registers(*partition, &me, known)).collect()
        };
        self.store.install_layout(layout.version, layout.encode(), void).await?;
        for member in layout.present().filter(|member| member.id != self.id) {
            let addresses = self.peers.addresses(&member.id).unwrap_or_else(|| member.addresses.clone());
            self.endpoint().set_addresses(member.id, addresses);
        }
        let before = self.layout_now();
        let is_newer = self.layout.send_if_modified(|known| {
            let newer = known.as_ref().is_none_or(|known| known.version < layout.version);
            if newer {
                tracing::info!(version = layout.version.0, members = layout.present().count(), "layout");
                *known = Some(Arc::clone(&layout));
            }
            newer
        });
        if is_newer {
            // Debts to who is gone are void.
            self.healing.notify_one();
        }
        // Nobody admits who is no member any more; what it opened before must end too.
        for former in before.iter().filter(|_| is_newer).flat_map(|before| before.present()) {
            if layout.member(&former.id).is_none() {
                self.endpoint().disconnect(former.id);
            }
        }
        Ok(())
    }

    // ---- ballots and turns

    /// A ballot under `layout` that this process never used before, with a counter above `above`.
    pub(crate) fn next_ballot(&self, layout: LayoutVersion, above: u64) -> Ballot {
        let least = above.saturating_add(1).max(sys::now_us()).min(COUNTER_LIMIT - 1);
        let next = |last: u64| least.max(last + 1);
        let before = self
            .counter
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(next(last)))
            .expect("the update always gives a number");
        Ballot { layout, counter: next(before), session: self.session }
    }

    /// Waits for this node's turn to change a register.
    pub(crate) async fn turn(&self, name: &RegisterName) -> Result<OwnedSemaphorePermit, Error> {
        let hash = blake3::hash(name.as_bytes());
        let stripe = usize::from(u16::from_le_bytes([hash.as_bytes()[2], hash.as_bytes()[3]])) % TURNS;
        permit(&self.turns[stripe], PATIENCE, "changes of this object queue up").await
    }

    // ---- asking

    /// One exchange on the RPC lane; with itself, a node speaks without a wire.
    pub(crate) async fn ask(self: &Arc<Self>, peer: NodeId, message: &Message) -> Result<Reply, Unanswered> {
        if peer == self.id {
            return Ok(serve::answer(self, self.id, message.request.clone()).await);
        }
        let deadline = Instant::now() + EXCHANGE;
        match self.endpoint().call(peer, message.bytes.clone(), deadline).await {
            Ok(bytes) => wire::decode(&bytes).map_err(|why| Unanswered::Lost(why.to_string())),
            Err(error) => {
                self.peers.failed(peer);
                if matches!(error, pando_net::Error::Refused { .. }) {
                    self.turned_away(peer);
                }
                Err(Unanswered::Lost(error.to_string()))
            }
        }
    }

    /// A peer does not admit this node. Perhaps it has not heard of it yet; perhaps this node was removed.
    fn turned_away(self: &Arc<Self>, peer: NodeId) {
        let Ok(place) = Arc::clone(&self.knocking).try_acquire_owned() else { return };
        let inner = Arc::clone(self);
        self.spawn_until_stopped(async move {
            join::ask_whether_removed(&inner, peer).await;
            sys::sleep(KNOCK_PAUSE).await;
            drop(place);
        });
    }

    /// As [`Inner::ask`], for requests that carry a layout version. A peer that is behind is brought up to
    /// it; if this node is behind, it learns the newer layout and the caller starts again.
    pub(crate) async fn ask_owner(
        self: &Arc<Self>,
        layout: &Layout,
        peer: NodeId,
        message: &Message,
    ) -> Result<Reply, Unanswered> {
        for _ in 0..2 {
            match self.ask(peer, message).await? {
                Reply::Fenced(known) if known > layout.version => {
                    self.fetch_layout(peer).await;
                    return Err(Unanswered::NewLayout);
                }
                Reply::Fenced(_) => {
                    self.ask(peer, &Request::PutLayout(layout.encode()).into()).await?;
                }
                Reply::Failed(Failure::NoSpace) => return Err(Unanswered::NoSpace),
                Reply::Failed(failure) => return Err(Unanswered::Lost(failure.to_string())),
                reply => return Ok(reply),
            }
        }
        Err(Unanswered::Lost("it does not take the layout".into()))
    }

    /// Learns the layout that a peer knows.
    pub(crate) async fn fetch_layout(self: &Arc<Self>, peer: NodeId) {
        if let Ok(Reply::Layout(bytes)) = self.ask(peer, &Request::GetLayout.into()).await {
            let installed = match Layout::decode(&bytes) {
                Ok(layout) => self.install_layout(layout).await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(why) = installed {
                tracing::warn!(peer = %peer.short(), why, "a layout from a peer was not taken");
            }
        }
    }

    /// Sends the same request to all other members, for whoever hears it; waits for none.
    pub(crate) fn tell_all(self: &Arc<Self>, request: Request) {
        let Some(layout) = self.layout_now() else { return };
        let message = Message::from(request);
        for member in layout.present() {
            let (inner, message, peer) = (Arc::clone(self), message.clone(), member.id);
            self.spawn_until_stopped(async move {
                let _ = inner.ask(peer, &message).await;
            });
        }
    }
}

/// Waits for a permit, but not for ever.
pub(crate) async fn permit(
    semaphore: &Arc<Semaphore>,
    patience: Duration,
    what: &str,
) -> Result<OwnedSemaphorePermit, Error> {
    match sys::timeout(patience, Arc::clone(semaphore).acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_closed)) => Err(Error::Stopping),
        Err(_elapsed) => Err(Error::Busy(what.to_owned())),
    }
}

/// The object, or the delete marker, that a register's value holds, and its version.
pub(crate) fn object_of(value: Option<&Value>) -> Result<Option<(Record, WriteId)>, Error> {
    Ok(mark::version_in(value)?)
}

/// The failure to tell a peer of.
pub(crate) fn failure(error: pando_store::Error) -> Failure {
    match error {
        pando_store::Error::NoSpace { .. } => Failure::NoSpace,
        other => Failure::Other(other.to_string()),
    }
}
