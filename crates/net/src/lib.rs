//! How nodes talk: TCP, TLS 1.3 with raw Ed25519 keys on both sides, and two lanes.
//!
//! An [`Endpoint`] accepts from peers and dials them by [`NodeId`]. Small exchanges share one connection per
//! peer and direction (the RPC lane, [`Endpoint::call`]); a bulk body has a connection to itself (the stream
//! lane, [`Endpoint::open`]), so bulk never delays the small. Strangers get no further than the handshake,
//! except for one exchange to join ([`Endpoint::join`]). What comes in goes to the owner's [`Service`].
//!
//! This crate knows bytes, not messages: payloads are opaque, and nothing here decides who is a member.
//! Every wait has a deadline, every queue and every length a bound ([`Limits`]).

mod accept;
mod conn;
mod context;
mod dial;
mod endpoint;
mod error;
mod frame;
mod identity;
mod inbound;
mod join;
mod limits;
mod peer;
mod rpc;
mod service;
mod socket;
mod stats;
mod stream;
mod sys;
mod tasks;
mod tls;

pub use pando_core::id::NodeId;

pub use crate::{
    endpoint::Endpoint,
    error::Error,
    identity::Identity,
    limits::Limits,
    service::Service,
    stats::Stats,
    stream::{
        client::{Body, Exchange},
        server::{Incoming, Outgoing},
    },
};
