//! Links to objects over the control socket, and where this node serves S3.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use pando_gateway::{Address, Gateway};
use pando_node::Node;
use serde::{Deserialize, Serialize};

use super::message::Reply;
use crate::exit::{Failure, Kind};

/// A link to an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Link {
    pub(crate) url: String,
    /// Unix seconds; `None` if the object is public.
    pub(crate) until: Option<u64>,
    /// Whether nobody else reaches where it leads to.
    pub(crate) here_only: bool,
}

/// Where this node serves S3, once it does.
#[derive(Clone, Default)]
pub(crate) struct S3At(Arc<OnceLock<(SocketAddr, bool)>>);

impl S3At {
    /// Notes where, if the gateway serves S3 at all.
    pub(crate) fn set(&self, gateway: &Gateway) {
        if let Some((address, url)) = gateway.s3_addr().zip(gateway.s3_url()) {
            // Told once, when the node starts.
            let _ = self.0.set((address, url.starts_with("https:")));
        }
    }
}

pub(super) async fn share(
    node: &Node,
    s3: &S3At,
    (bucket, key): (&str, &str),
    valid: Duration,
    address: Option<&str>,
) -> Result<Reply, Failure> {
    let Some((mut served, tls)) = s3.0.get().copied() else {
        let why = "this node serves no S3, which links lead to: start it with `pando up --s3 IP:PORT`";
        return Err(Failure::new(Kind::Precondition, why));
    };
    if served.ip().is_unspecified()
        && let Some(advertised) = node.advertised().first()
    {
        served.set_ip(advertised.ip());
    }
    let here_only = address.is_none() && served.ip().is_loopback();
    let served = served.to_string();
    let address = Address::parse(address.unwrap_or(&served), tls).map_err(Failure::usage)?;
    let link = pando_gateway::share(node, (bucket, key), valid, &address).await?;
    Ok(Reply::Link(Link { url: link.url, until: link.until, here_only }))
}
