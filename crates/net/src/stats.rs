//! Counters of one endpoint. Payload bytes only: TLS and frame headers are not in them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// What an endpoint is doing and has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections open now, dialed and accepted, both lanes, idle ones included.
    pub connections: u64,
    /// Of these, accepted and not (yet) admitted: handshakes and joins.
    pub unauthenticated: u64,
    /// Stream connections dialed and unused now.
    pub idle_streams: u64,
    /// Connections dialed with success so far.
    pub dialed: u64,
    /// Lanes taken from admitted peers so far.
    pub accepted: u64,
    /// Connections turned away so far: strangers, other protocols, over a cap, too slow.
    pub turned_away: u64,
    /// Tasks alive now.
    pub tasks: u64,
    /// Payload bytes received on RPC lanes.
    pub rpc_in: u64,
    /// Payload bytes sent on RPC lanes.
    pub rpc_out: u64,
    /// Body bytes received on stream lanes.
    pub stream_in: u64,
    /// Body bytes sent on stream lanes.
    pub stream_out: u64,
}

/// The counters behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) unauthenticated: AtomicU64,
    pub(crate) dialed: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) turned_away: AtomicU64,
    pub(crate) rpc_in: AtomicU64,
    pub(crate) rpc_out: AtomicU64,
    pub(crate) stream_in: AtomicU64,
    pub(crate) stream_out: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self, idle_streams: u64, tasks: u64) -> Stats {
        Stats {
            connections: self.connections.load(Relaxed),
            unauthenticated: self.unauthenticated.load(Relaxed),
            idle_streams,
            dialed: self.dialed.load(Relaxed),
            accepted: self.accepted.load(Relaxed),
            turned_away: self.turned_away.load(Relaxed),
            tasks,
            rpc_in: self.rpc_in.load(Relaxed),
            rpc_out: self.rpc_out.load(Relaxed),
            stream_in: self.stream_in.load(Relaxed),
            stream_out: self.stream_out.load(Relaxed),
        }
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(amount as u64, Relaxed);
}

/// Counts one connection for as long as it lives.
pub(crate) struct Live(Arc<Counters>);

impl Live {
    pub(crate) fn new(counters: &Arc<Counters>) -> Self {
        add(&counters.connections, 1);
        Self(Arc::clone(counters))
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.0
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}
