//! What an endpoint asks of its owner.

use std::{future::Future, net::SocketAddr};

use bytes::Bytes;
use pando_core::id::NodeId;

use crate::stream::server::Incoming;

/// What the owner of an endpoint does with what comes in. Payloads are its own affair: opaque bytes here.
///
/// A future given to the endpoint is run to its end, also if the peer is gone; only [`shutdown`] drops
/// those that outlast its grace, and [`disconnect`] those of that peer.
///
/// [`shutdown`]: crate::Endpoint::shutdown
/// [`disconnect`]: crate::Endpoint::disconnect
pub trait Service: Send + Sync + 'static {
    /// Waited for before a handshake, as part of it: until the owner knows whom to admit. Connections that
    /// come before that wait instead of being refused.
    fn ready(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Whether this node may come in as a member. Asked in the TLS handshake, once its signature was
    /// verified, for each new connection; it must answer at once.
    fn admits(&self, peer: &NodeId) -> bool;

    /// One exchange on the RPC lane: the reply to this request. Many run beside each other. A reply longer
    /// than [`crate::Limits::frame`] can't be sent and closes the lane.
    fn call(&self, peer: NodeId, request: Bytes) -> impl Future<Output = Bytes> + Send;

    /// One exchange on the stream lane. `exchange` holds the request's body and takes the reply; dropped
    /// before its end, it closes the connection, which tells the peer.
    fn stream(&self, peer: NodeId, request: Bytes, exchange: Incoming) -> impl Future<Output = ()> + Send;

    /// One exchange with a node that is not (yet) a member. `peer` is proven; whether it may join is to be
    /// found in the request. Dropped after [`crate::Limits::join`].
    fn join(&self, peer: NodeId, from: SocketAddr, request: Bytes) -> impl Future<Output = Bytes> + Send;
}
