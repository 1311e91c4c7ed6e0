//! What can go wrong between two nodes, sorted by what a caller does about it.

use std::{io, net::SocketAddr};

use pando_core::id::NodeId;

/// Why an exchange, a dial or a bind failed.
///
/// Cloneable, because callers that shared a dial share its failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nobody said where this peer is: see [`crate::Endpoint::set_addresses`].
    #[error("no address is known for node {}", peer.short())]
    UnknownAddress {
        /// Who was wanted.
        peer: NodeId,
    },
    /// No address of the peer led to it.
    #[error("node {} is unreachable: {why}", peer.short())]
    Unreachable {
        /// Who was wanted.
        peer: NodeId,
        /// What happened at each address.
        why: String,
    },
    /// The peer answered and does not admit this node.
    #[error("node {} does not admit this node", peer.short())]
    Refused {
        /// Who refused.
        peer: NodeId,
    },
    /// Somebody else answered at the peer's address: its key is not the pinned one.
    #[error("who answered at {address} is not node {}", peer.short())]
    WrongKey {
        /// Who was wanted.
        peer: NodeId,
        /// Where somebody else is.
        address: SocketAddr,
    },
    /// The peer has as many connections from this node as it takes.
    #[error("node {} takes no more connections from this node", peer.short())]
    Busy {
        /// Who is busy.
        peer: NodeId,
    },
    /// Something took longer than it may.
    #[error("timed out: {what}")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// Whether the request may have reached the peer.
        sent: bool,
    },
    /// The connection ended before the exchange did.
    #[error("connection lost: {why}")]
    Closed {
        /// What ended it.
        why: String,
        /// Whether the request may have reached the peer.
        sent: bool,
    },
    /// A frame is longer than frames may be. Ours if the request was never sent, else the peer's.
    #[error("a frame of {len} bytes; at most {max} are allowed")]
    FrameTooLarge {
        /// What it would take.
        len: u64,
        /// The limit.
        max: u64,
        /// Whether the request may have reached the peer.
        sent: bool,
    },
    /// The peer said something that is not this protocol.
    #[error("malformed: {why}")]
    Malformed {
        /// What was wrong with it.
        why: String,
    },
    /// The caller announced a body of another length than it gave or asked for, or one above the limit.
    #[error("a body of {announced} bytes was announced, and {given} were given or asked for")]
    BodyLength {
        /// What the header said (or the limit, if that is what was exceeded).
        announced: u64,
        /// What the caller did.
        given: u64,
    },
    /// This endpoint was shut down.
    #[error("this endpoint is shut down")]
    ShutDown,
    /// The listening socket could not be had.
    #[error("can't listen on {address}: {why}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What kind of failure it was: `AddrInUse` is the one worth another try elsewhere.
        kind: io::ErrorKind,
        /// What the system said.
        why: String,
    },
    /// Bytes that are not an identity.
    #[error("not an Ed25519 identity: {0}")]
    Identity(String),
}

impl Error {
    /// Whether the peer may have received the request, and so may have acted on it. `false` is certain: the
    /// request was never sent, and trying again (there or elsewhere) can't do anything twice.
    pub fn maybe_delivered(&self) -> bool {
        match self {
            Self::Timeout { sent, .. } | Self::Closed { sent, .. } | Self::FrameTooLarge { sent, .. } => {
                *sent
            }
            Self::Malformed { .. } | Self::BodyLength { .. } => true,
            Self::UnknownAddress { .. }
            | Self::Unreachable { .. }
            | Self::Refused { .. }
            | Self::WrongKey { .. }
            | Self::Busy { .. }
            | Self::ShutDown
            | Self::Bind { .. }
            | Self::Identity(_) => false,
        }
    }

    /// The same failure, of a request that is known not to have been sent.
    pub(crate) fn unsent(mut self) -> Self {
        match &mut self {
            Self::Timeout { sent, .. } | Self::Closed { sent, .. } | Self::FrameTooLarge { sent, .. } => {
                *sent = false;
            }
            Self::Malformed { why } => return Self::Closed { why: std::mem::take(why), sent: false },
            _ => {}
        }
        self
    }

    /// A connection that broke with this failure, after a request may have been sent on it.
    pub(crate) fn broken(error: &io::Error) -> Self {
        Self::closed(describe(error))
    }

    /// A connection that ended for this reason, after a request may have been sent on it.
    pub(crate) fn closed(why: impl Into<String>) -> Self {
        Self::Closed { why: why.into(), sent: true }
    }

    /// A wait that was over before what was waited for, after a request may have been sent.
    pub(crate) fn timeout(what: &'static str) -> Self {
        Self::Timeout { what, sent: true }
    }

    /// The peer's frame made no sense.
    pub(crate) fn malformed(why: impl Into<String>) -> Self {
        Self::Malformed { why: why.into() }
    }
}

/// An I/O failure in words that fit a log line.
pub(crate) fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the other side closed it".to_owned(),
        _ => error.to_string(),
    }
}
