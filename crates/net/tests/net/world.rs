//! What the tests share: a service with known answers, pairs of endpoints, waiting for a condition, and a
//! proxy that can fall silent or break.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use pando_net::{Endpoint, Identity, Incoming, Limits, NodeId, Service};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore, watch},
    time::Instant,
};

/// A loopback address with any free port.
pub(crate) fn anywhere() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Far enough that only a broken test meets it.
pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), met)
        .await
        .unwrap_or_else(|_| panic!("never happened: {what}"));
}

/// Bytes that are not all alike.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

/// Known answers, told by the first word of the request.
pub(crate) struct Known {
    pub(crate) members: Mutex<HashSet<NodeId>>,
    /// `wait` requests that have begun.
    pub(crate) waiting: AtomicU64,
    /// `wait` requests go on with a permit of this.
    pub(crate) go: Semaphore,
    pub(crate) streams: AtomicU64,
    pub(crate) joins: AtomicU64,
    pub(crate) dropped: Notify,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            members: Mutex::default(),
            waiting: AtomicU64::new(0),
            go: Semaphore::new(0),
            streams: AtomicU64::new(0),
            joins: AtomicU64::new(0),
            dropped: Notify::new(),
        }
    }
}

impl Known {
    async fn wait(&self) {
        self.waiting.fetch_add(1, SeqCst);
        self.go.acquire().await.unwrap().forget();
    }
}

impl Service for Known {
    fn admits(&self, peer: &NodeId) -> bool {
        self.members.lock().unwrap().contains(peer)
    }

    async fn call(&self, peer: NodeId, request: Bytes) -> Bytes {
        match &request[..] {
            b"wait" => self.wait().await,
            b"who" => return Bytes::copy_from_slice(peer.as_bytes()),
            b"huge" => return vec![0; 2 << 20].into(),
            b"panic" => panic!("the test asked for it"),
            _ => {}
        }
        request
    }

    async fn stream(&self, _peer: NodeId, request: Bytes, mut exchange: Incoming) {
        self.streams.fetch_add(1, SeqCst);
        let len = exchange.body_len();
        // Failures are the peer's to see.
        let _ = async {
            match &request[..] {
                b"echo" => {
                    let mut body = vec![0; len as usize];
                    exchange.read_exact(&mut body).await?;
                    let (first, rest) = body.split_at(body.len().min(60_000));
                    let mut out = exchange.reply_with(request, len, first).await?;
                    for piece in rest.chunks(100_000) {
                        out.write_all(piece).await?;
                    }
                    out.finish().await
                }
                b"early" => exchange.reply("early".into(), 0).await?.finish().await,
                b"short" => {
                    let mut out = exchange.reply(request, 1000).await?;
                    out.write_all(&[1; 10]).await?;
                    assert!(out.finish().await.is_err());
                    Ok(())
                }
                b"wait" => {
                    self.wait().await;
                    exchange.reply(request, 0).await?.finish().await
                }
                b"drop" => Ok(()),
                b"count" => {
                    let (mut buffer, mut count) = (vec![0; 70_000], 0);
                    let read = loop {
                        match exchange.read(&mut buffer).await {
                            Ok(0) => break Ok(()),
                            Ok(read) => count += read as u64,
                            Err(error) => break Err(error),
                        }
                    };
                    if read.is_err() {
                        self.dropped.notify_one();
                    }
                    read?;
                    exchange.reply(count.to_string().into(), 0).await?.finish().await
                }
                // "source": as many bytes as the request's body says.
                _ => {
                    let mut digits = vec![0; len as usize];
                    exchange.read_exact(&mut digits).await?;
                    let len = String::from_utf8(digits).unwrap().parse::<u64>().unwrap();
                    let mut out = exchange.reply(request, len).await?;
                    let (piece, mut left) = (pattern(251 * 500), len);
                    while left > 0 {
                        let amount = left.min(piece.len() as u64);
                        out.write_all(&piece[..amount as usize]).await?;
                        left -= amount;
                    }
                    out.finish().await
                }
            }
        }
        .await;
    }

    async fn join(&self, peer: NodeId, from: SocketAddr, request: Bytes) -> Bytes {
        self.joins.fetch_add(1, SeqCst);
        assert!(from.ip().is_loopback());
        [b"welcome ", &peer.as_bytes()[..], b" ", &request[..]].concat().into()
    }
}

/// A node: an endpoint and its service.
pub(crate) struct Node {
    pub(crate) endpoint: Endpoint,
    pub(crate) service: Arc<Known>,
}

impl Node {
    pub(crate) async fn start(limits: Limits) -> Self {
        Self::start_as(Identity::generate(), anywhere(), limits).await
    }

    pub(crate) async fn start_as(identity: Identity, listen: SocketAddr, limits: Limits) -> Self {
        let service = Arc::new(Known::default());
        let endpoint =
            Endpoint::bind(Arc::new(identity), listen, limits, Arc::clone(&service)).await.unwrap();
        Self { endpoint, service }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.endpoint.node_id()
    }

    pub(crate) fn admit(&self, other: NodeId) {
        self.service.members.lock().unwrap().insert(other);
    }

    pub(crate) fn knows(&self, other: &Self) {
        self.endpoint.set_addresses(other.id(), vec![other.endpoint.local_addr()]);
    }

    pub(crate) async fn call(&self, other: NodeId, request: &'static str) -> Result<Bytes, pando_net::Error> {
        self.endpoint.call(other, request.into(), soon()).await
    }

    /// A whole exchange on the stream lane.
    pub(crate) async fn exchange(
        &self,
        other: NodeId,
        request: &'static str,
        body: &[u8],
    ) -> Result<(Bytes, Vec<u8>), pando_net::Error> {
        let mut exchange = self.endpoint.open(other, request.into(), body.len() as u64, soon()).await?;
        exchange.write_all(body).await?;
        let (header, mut body) = exchange.finish().await?;
        let mut bytes = vec![0; body.len() as usize];
        body.read_exact(&mut bytes).await?;
        assert_eq!(body.remaining(), 0);
        Ok((header, bytes))
    }
}

/// Two nodes that admit each other; the first knows where the second is.
pub(crate) async fn pair(limits: Limits) -> (Node, Node) {
    let (client, server) = (Node::start(limits.clone()).await, Node::start(limits).await);
    client.admit(server.id());
    server.admit(client.id());
    client.knows(&server);
    (client, server)
}

/// What a proxy does with its connections.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    Whole,
    /// Nothing passes, nothing closes.
    Silent,
    Cut,
}

/// A wire that can be damaged.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    pub(crate) wire: watch::Sender<Wire>,
}

impl Proxy {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(anywhere()).await.unwrap();
        let (address, wire) = (listener.local_addr().unwrap(), watch::Sender::new(Wire::Whole));
        let state = wire.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut state = state.subscribe();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(target).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = state.wait_for(|state| *state != Wire::Whole) => {}
                    }
                    let _ = state.wait_for(|state| *state == Wire::Cut).await;
                });
            }
        });
        Self { address, wire }
    }
}
