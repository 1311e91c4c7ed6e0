//! Every number that bounds this crate, with the reason for its value.

use std::time::Duration;

/// What an endpoint allows, of itself and of others. [`Limits::default`] suits a node; tests use less.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest frame payload in bytes, sent or received. A frame is held in memory whole, so this times the
    /// frames in flight is what a peer can make a node hold; 1 MiB fits a page of a listing.
    pub frame: usize,
    /// Longest body in bytes. Nothing is allocated by it; it keeps nonsense from looking like work. 1 TiB is
    /// far above a chunk, and far below where arithmetic on lengths could overflow.
    pub body: u64,
    /// TLS handshake and the byte that names the lane, on the accepting side. Two round trips and two
    /// signatures: 10 s is generous on any link, and short for who holds a place by saying nothing.
    pub handshake: Duration,
    /// One address: TCP connect, TLS, lane accepted. A healthy peer takes four round trips; a dead address
    /// must not hold up an operation that has other owners to ask.
    pub dial: Duration,
    /// How long one address is tried alone before the next one is tried beside it (RFC 8305 says 250 ms).
    pub dial_stagger: Duration,
    /// Addresses kept per peer. A node listens on few interfaces; more is a mistake or an attack.
    pub addresses: usize,
    /// A body, or a frame begun, must progress within this. Long enough for a disk that syncs or a link
    /// that recovers; also the longest that a stopped peer holds a connection.
    pub stall: Duration,
    /// How long the dialer keeps an unused connection of either lane. The accepting side keeps it for twice
    /// as long, so it is always the dialer that lets go, and a request never meets a closing door.
    pub idle: Duration,
    /// An RPC lane that heard nothing for this long while calls wait sends a ping.
    pub ping: Duration,
    /// An RPC lane whose calls wait and that heard nothing for this long (pings included) is dead: three
    /// pings lost, where TCP itself would take minutes to notice.
    pub silence: Duration,
    /// Connections accepted and not yet admitted, strangers' joins included. Each costs a socket, some 20 KiB
    /// and one handshake; above this, new ones are closed at once.
    pub unauthenticated: usize,
    /// Connections taken from one peer, both lanes. One RPC lane, `streams_per_peer` exchanges and
    /// `idle_streams` fit, with room for those that a peer has given up and this side has not noticed.
    pub connections_per_peer: usize,
    /// Exchanges on the stream lane open to one peer at once; more wait. Two to four connections fill any
    /// link; the rest allows for exchanges that wait for the peer's disk.
    pub streams_per_peer: usize,
    /// Unused stream connections kept per peer: as many as are commonly busy at once.
    pub idle_streams: usize,
    /// Calls in flight on one RPC lane. The caller's side waits at this number, and the serving side stops
    /// reading, so the socket tells the caller. 1024 calls hide any latency.
    pub calls: usize,
    /// Frames queued to be written on one RPC lane; whoever adds to a full queue waits. Enough that one
    /// write takes a good batch, few enough that large frames don't pile up.
    pub queue: usize,
    /// Joins served at once. Each may change the layout, which is rare and slow.
    pub joins: usize,
    /// One join, served: it may decide a new layout, which takes some rounds among the council.
    pub join: Duration,
    /// Bytes of an unread request body that are read and thrown away after an early reply, so that the
    /// reply arrives and the connection can be used again. More than a chunk; past it the connection closes.
    pub drain: u64,
    /// How long a shutdown waits for requests being served before it drops them.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame: 1 << 20,
            body: 1 << 40,
            handshake: Duration::from_secs(10),
            dial: Duration::from_secs(5),
            dial_stagger: Duration::from_millis(250),
            addresses: 16,
            stall: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            ping: Duration::from_secs(5),
            silence: Duration::from_secs(15),
            unauthenticated: 128,
            connections_per_peer: 64,
            streams_per_peer: 32,
            idle_streams: 8,
            calls: 1024,
            queue: 256,
            joins: 8,
            join: Duration::from_secs(60),
            drain: 8 << 20,
            grace: Duration::from_secs(5),
        }
    }
}
