//! The endpoint: what a node holds of its transport. Everything here hands on to the part that does it.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use pando_core::id::NodeId;

use crate::{
    accept::Door,
    context::Context,
    dial::{Purpose, dial},
    error::Error,
    identity::Identity,
    inbound::Inbound,
    join,
    limits::Limits,
    peer::Peer,
    service::Service,
    stats::Stats,
    stream::client::Exchange,
    sys::{Instant, MissedTickBehavior, TcpListener, interval, timeout, timeout_at},
    tls::Tls,
};

/// One node's transport: accepts from others, dials others. A cheap clone around shared state; when the last
/// clone is dropped without [`Endpoint::shutdown`], all its tasks are ended at once.
#[derive(Clone)]
pub struct Endpoint(Arc<Owner>);

struct Owner {
    context: Arc<Context>,
    local: SocketAddr,
    peers: Arc<Peers>,
    inbound: Inbound,
}

/// The peers that have addresses: as many as the owner sets.
type Peers = Mutex<BTreeMap<NodeId, Arc<Peer>>>;

fn lock(peers: &Peers) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Peer>>> {
    peers.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.context.stop();
        self.context.tasks.abort_all();
    }
}

impl Endpoint {
    /// Listens on `listen` (port 0: any free one, see [`Endpoint::local_addr`]) and accepts at once.
    ///
    /// # Errors
    /// [`Error::Bind`] if the address can't be had.
    pub async fn bind<S: Service>(
        identity: Arc<Identity>,
        listen: SocketAddr,
        limits: Limits,
        service: Arc<S>,
    ) -> Result<Self, Error> {
        let failed = |error: std::io::Error| Error::Bind {
            address: listen,
            kind: error.kind(),
            why: error.to_string(),
        };
        // Weak: a service mostly holds its endpoint, and the door holds the service while it is open.
        let asked = Arc::downgrade(&service);
        let admits = move |peer: &NodeId| asked.upgrade().is_some_and(|service| service.admits(peer));
        let tls = Tls::new(identity, Arc::new(admits))?;
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        let context = Arc::new(Context::new(limits, tls));
        let (inbound, peers) = (Inbound::default(), Arc::<Peers>::default());
        let door = Door::new(Arc::clone(&context), service, inbound.clone());
        context.tasks.spawn(|_| door.run(listener));
        context.tasks.spawn(|_| sweep(Arc::clone(&context), Arc::clone(&peers)));
        Ok(Self(Arc::new(Owner { context, local, peers, inbound })))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local
    }

    /// Who it is.
    pub fn node_id(&self) -> NodeId {
        self.0.context.tls.node_id()
    }

    /// Says where a peer is, in order of preference; the first [`Limits::addresses`] are kept. What is open
    /// stays open. With none, the peer is forgotten: what was dialed is closed, and nothing more is.
    pub fn set_addresses(&self, peer: NodeId, mut addresses: Vec<SocketAddr>) {
        addresses.truncate(self.0.context.limits.addresses);
        let mut peers = lock(&self.0.peers);
        if addresses.is_empty() {
            let forgotten = peers.remove(&peer);
            drop(peers);
            if let Some(forgotten) = forgotten {
                forgotten.disconnect(&Error::closed("the peer's addresses were taken away"));
            }
        } else {
            let known = peers.entry(peer).or_insert_with(|| Arc::new(Peer::new(&self.0.context, peer)));
            known.set_addresses(addresses);
        }
    }

    /// One exchange on the RPC lane: sends `request`, returns the reply. Dials if need be; calls that need
    /// the same dial share it. Dropping the future gives the call up.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::maybe_delivered`] tells whether the peer may have acted on the request.
    pub async fn call(&self, peer: NodeId, request: Bytes, deadline: Instant) -> Result<Bytes, Error> {
        self.peer(peer)?.call(&self.0.context, request, deadline).await
    }

    /// Begins an exchange on the stream lane: sends the header of a request whose body has `body_len` bytes,
    /// on an unused connection or a fresh one. `deadline` is for all until the reply's header is there.
    ///
    /// An unused connection that the peer has closed is noticed and replaced. What remains: a peer that died
    /// so lately that this machine does not know it yet; then the exchange fails later, with
    /// [`Error::Closed`], as it would have if the peer had died a moment after.
    ///
    /// # Errors
    /// See [`Error`]. Whatever fails here, the peer has not got the request.
    pub async fn open(
        &self,
        peer: NodeId,
        request: Bytes,
        body_len: u64,
        deadline: Instant,
    ) -> Result<Exchange, Error> {
        let most = self.0.context.limits.body;
        if body_len > most {
            return Err(Error::BodyLength { announced: most, given: body_len });
        }
        self.peer(peer)?.open(&self.0.context, &request, body_len, deadline).await
    }

    /// One exchange with a node that need not know this one, at `addr` and with the key `expected`.
    ///
    /// # Errors
    /// [`Error::WrongKey`] if somebody else is there; otherwise as [`Endpoint::call`].
    pub async fn join(
        &self,
        addr: SocketAddr,
        expected: NodeId,
        request: Bytes,
        deadline: Instant,
    ) -> Result<Bytes, Error> {
        let context = &self.0.context;
        let addresses = [addr];
        let dialing = dial(context, expected, &addresses, Purpose::Join);
        let late = Error::Timeout { what: "a connection to the peer", sent: false };
        let conn = timeout_at(deadline, dialing).await.unwrap_or(Err(late))?;
        join::ask(&context.limits, conn, &request, deadline).await
    }

    /// Ends all lanes with a peer, in both directions: calls that wait fail, requests of the peer that are
    /// being served are dropped. Exchanges that this side began on the stream lane run to their end. The
    /// peer's addresses stay known, and nothing keeps it from coming back but [`Service::admits`].
    pub fn disconnect(&self, peer: NodeId) {
        let known = lock(&self.0.peers).get(&peer).cloned();
        if let Some(known) = known {
            known.disconnect(&Error::closed("disconnected"));
        }
        for task in self.0.inbound.of(&peer) {
            self.0.context.tasks.abort(task);
        }
    }

    /// Stops: accepts and dials no more, fails the calls that wait, lets requests being served end within
    /// [`Limits::grace`], and returns when every task has ended.
    pub async fn shutdown(&self) {
        let context = &self.0.context;
        context.stop();
        let peers = std::mem::take(&mut *lock(&self.0.peers));
        for (_, peer) in peers {
            peer.pool().close();
            peer.disconnect(&Error::closed("this endpoint is shut down"));
        }
        if timeout(context.limits.grace, context.tasks.empty()).await.is_err() {
            tracing::debug!(tasks = context.tasks.len(), "ending what outlasted the grace of a shutdown");
        }
        context.tasks.abort_all();
        context.tasks.empty().await;
    }

    /// What it is doing and has done.
    pub fn stats(&self) -> Stats {
        let idle = lock(&self.0.peers).values().map(|peer| peer.pool().len() as u64).sum();
        self.0.context.counters.read(idle, self.0.context.tasks.len() as u64)
    }

    fn peer(&self, peer: NodeId) -> Result<Arc<Peer>, Error> {
        if self.0.context.is_stopping() {
            return Err(Error::ShutDown);
        }
        lock(&self.0.peers).get(&peer).cloned().ok_or(Error::UnknownAddress { peer })
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("id", &self.node_id())
            .field("local", &self.0.local)
            .finish_non_exhaustive()
    }
}

/// Sweeping more often than this would be work for nothing, whatever the limits say.
const SHORTEST_SWEEP: Duration = Duration::from_millis(10);

/// Closes connections that nobody has used for a while.
async fn sweep(context: Arc<Context>, peers: Arc<Peers>) {
    let mut ticks = interval((context.limits.idle / 2).max(SHORTEST_SWEEP));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = context.stopping() => return,
            _ = ticks.tick() => {}
        }
        let all: Vec<_> = lock(&peers).values().cloned().collect();
        all.iter().for_each(|peer| peer.pool().sweep());
    }
}
