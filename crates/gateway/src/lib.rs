//! The HTTP faces of a node: S3, health, metrics.
//!
//! Owns connections, authentication and shapes; what happens is up to [`pando_node`]. A request walks
//! `server.rs` (connection) → `front.rs` (pages, and what is refused before anything else) → `s3s` (parsing,
//! signatures) → `auth.rs` (rights) → `s3/…` (one function for each operation).

mod auth;
mod body;
mod buckets;
mod chunked;
mod cors;
mod digest;
mod error;
mod front;
mod hosts;
mod link;
mod meter;
mod metrics;
mod post;
mod remember;
mod s3;
mod server;
mod signed;
mod sse;
mod vouched;
mod waiters;
mod wire;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use pando_node::Node;
use tokio::net::TcpListener;

pub use link::{Address, LONGEST_LINK, Link, share};

use crate::{front::Front, metrics::Metrics, server::Server};

/// Where S3 listens if nobody says otherwise: this machine only, since it is not encrypted there.
pub const DEFAULT_S3: &str = "127.0.0.1:9000";

/// How to serve.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where S3 listens.
    pub s3: Option<SocketAddr>,
    /// Where `/health` and `/metrics` are served instead of on S3's port.
    pub http: Option<SocketAddr>,
    /// A certificate chain and its key, as PEM files: S3 and pages then speak TLS only.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Domains under which a bucket's name may stand in the host name (virtual-host style).
    pub domains: Vec<String>,
}

/// Why the gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address that can't be listened on.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A certificate or key that can't be used.
    #[error("{path}: {why}")]
    Tls {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A domain that can't be one.
    #[error("{0:?} is not a domain")]
    Domain(String),
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    s3: Option<Server>,
    http: Option<Server>,
    tls: bool,
}

impl Gateway {
    /// Starts to serve a node.
    pub async fn start(node: Node, options: Options) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::default());
        let tls = options.tls.as_ref().map(|(chain, key)| wire::tls(chain, key)).transpose()?;
        let listen = |address: SocketAddr| async move {
            TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
        };
        // Both before either serves: what fails, fails whole.
        let (s3, http) = match (options.s3, options.http) {
            (Some(s3), Some(http)) => (Some(listen(s3).await?), Some(listen(http).await?)),
            (Some(s3), None) => (Some(listen(s3).await?), None),
            (None, Some(http)) => (None, Some(listen(http).await?)),
            (None, None) => (None, None),
        };
        let (s3_pages, is_tls) = (http.is_none(), tls.is_some());
        let s3 = match s3 {
            Some(listener) => {
                let front = Front::with_s3(node.clone(), metrics.clone(), s3_pages, &options.domains)?;
                Some(Server::start(listener, front, tls.clone(), metrics.clone()))
            }
            None => None,
        };
        let http = http
            .map(|listener| Server::start(listener, Front::pages_only(node, metrics.clone()), tls, metrics));
        Ok(Self { s3, http, tls: is_tls })
    }

    /// Where S3 listens.
    pub fn s3_addr(&self) -> Option<SocketAddr> {
        self.s3.as_ref().map(Server::address)
    }

    /// What clients call S3: `http://ADDRESS`, or https.
    pub fn s3_url(&self) -> Option<String> {
        let scheme = if self.tls { "https" } else { "http" };
        self.s3_addr().map(|address| format!("{scheme}://{address}"))
    }

    /// Where health and metrics are, if on a port of their own.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(Server::address)
    }

    /// Takes no connections any more, lets requests under way end for a few seconds, and ends the others.
    pub async fn stop(self) {
        let stop = |server: Option<Server>| async {
            if let Some(server) = server {
                server.stop().await;
            }
        };
        tokio::join!(stop(self.s3), stop(self.http));
    }
}
