//! A small exchange between two processes on this machine over the RPC lane of `pando-net`, one at a time.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use pando_net::{Endpoint, Identity, Incoming, Limits, NodeId, Service};

use crate::{helper, stats::Latency};

/// What this program is called by when it is to be the other end.
pub(crate) const ECHO: &str = "pando-bench-echo";

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

/// The other end itself.
pub(crate) fn main() -> ExitCode {
    helper::serve(async {
        let endpoint = bind().await?;
        let id = HEXLOWER.encode(endpoint.node_id().as_bytes());
        writeln!(std::io::stdout(), "{id} {}", endpoint.local_addr())?;
        std::future::pending().await
    })
}

async fn bind() -> anyhow::Result<Endpoint> {
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let identity = Arc::new(Identity::generate());
    Ok(Endpoint::bind(identity, anywhere, Limits::default(), Arc::new(Echo)).await?)
}

/// How long a call of 64 bytes takes when nothing else goes on.
pub(crate) async fn round_trip(calls: usize) -> anyhow::Result<Latency> {
    let (_process, line) = helper::start(ECHO)?;
    let (id, address) = line.split_once(' ').context("a line of another kind")?;
    let id: [u8; 32] = HEXLOWER.decode(id.as_bytes())?.try_into().ok().context("an id of another length")?;
    let (client, peer) = (bind().await?, NodeId(id));
    client.set_addresses(peer, vec![address.parse()?]);
    let calling = {
        let client = client.clone();
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
    client.shutdown().await;
    Latency::of(samples?).context("no samples")
}
