//! A small exchange between two endpoints of `pando-net` on this machine, one at a time.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use pando_net::{Endpoint, Identity, Incoming, Limits, NodeId, Service};

use crate::stats::Latency;

/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Calls before the first that counts: the connection is made, and all is warm.
const WARM: usize = 50;

/// Answers with what it is asked.
struct Echo;

impl Service for Echo {
    fn admits(&self, _: &NodeId) -> bool {
        true
    }

    async fn call(&self, _: NodeId, request: Bytes) -> Bytes {
        request
    }

    async fn stream(&self, _: NodeId, _: Bytes, exchange: Incoming) {
        drop(exchange);
    }

    async fn join(&self, _: NodeId, _: SocketAddr, request: Bytes) -> Bytes {
        request
    }
}

/// How long a call of 64 bytes takes when nothing else goes on.
pub(crate) async fn round_trip(calls: usize) -> anyhow::Result<Latency> {
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let bind = || Endpoint::bind(Arc::new(Identity::generate()), anywhere, Limits::default(), Arc::new(Echo));
    let (client, server) = (bind().await?, bind().await?);
    client.set_addresses(server.node_id(), vec![server.local_addr()]);
    let calling = {
        let (client, peer) = (client.clone(), server.node_id());
        // In a task, as those of nodes are.
        tokio::spawn(async move {
            let request = Bytes::from_static(&[1; 64]);
            let mut samples = Vec::new();
            for call in 0..WARM + calls {
                let since = Instant::now();
                client.call(peer, request.clone(), tokio::time::Instant::now() + PATIENCE).await?;
                if call >= WARM {
                    samples.push(since.elapsed());
                }
            }
            anyhow::Ok(samples)
        })
    };
    let samples = calling.await.context("the caller died")?;
    tokio::join!(client.shutdown(), server.shutdown());
    Latency::of(samples?).context("no samples")
}
