//! Making a network and joining it.

use std::time::Duration;

use pando_node::{
    Error, Node, Started,
    core::{layout::Replicas, ticket::Ticket},
};

use crate::grove::{Grove, config, get, put};

const HOUR: Duration = Duration::from_secs(3600);

async fn refusal(grove: &Grove, number: usize, ticket: Ticket) -> String {
    let mut config = grove.config(number);
    config.join = Some(ticket);
    match Node::start(config).await {
        Ok(_) => panic!("joined"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn seven_nodes_form_a_network() {
    let grove = Grove::of(7).await;
    let status = grove.node(6).status().await.unwrap();
    assert_eq!(status.nodes.len(), 7);
    put(grove.node(6), "a", b"x").await.unwrap();
    assert_eq!(get(grove.node(3), "a").await.unwrap(), b"x");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_join_at_the_same_time() {
    let mut grove = Grove::of(1).await;
    let join = async |grove: &Grove, number| {
        let mut config = grove.config(number);
        config.join = Some(grove.node(0).invite(HOUR).await.unwrap());
        Node::start(config).await.unwrap()
    };
    let (a, b) = tokio::join!(join(&grove, 1), join(&grove, 2));
    grove.nodes.extend([Some(a), Some(b)]);
    grove.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_works_once_and_in_time_and_for_this_network() {
    let grove = Grove::of(1).await;
    let ticket = grove.node(0).invite(HOUR).await.unwrap();
    let mut config = grove.config(1);
    config.join = Some(ticket.clone());
    let joined = Node::start(config.clone()).await.unwrap();
    assert_eq!(joined.started_as(), Started::Joined);
    assert!(refusal(&grove, 2, ticket.clone()).await.contains("used already"));

    let expired = Ticket { expires: 1, ..grove.node(0).invite(Duration::ZERO).await.unwrap() };
    assert!(refusal(&grove, 2, expired.clone()).await.contains("expired"));
    // One who lies about the expiry is refused by the network.
    let late = Ticket { expires: u64::MAX, ..grove.node(0).invite(Duration::ZERO).await.unwrap() };
    assert!(refusal(&grove, 2, late).await.contains("expired"));
    let invented = Ticket { secret: [9; 32], ..grove.node(0).invite(HOUR).await.unwrap() };
    assert!(refusal(&grove, 2, invented).await.contains("no such ticket"));
    let other_key = Ticket { inviter: joined.id(), ..grove.node(0).invite(HOUR).await.unwrap() };
    assert!(refusal(&grove, 2, other_key).await.contains("can't be reached"));

    // The one who used it is a member: the same line typed again just starts it.
    joined.stop().await;
    let again = Node::start(config).await.unwrap();
    assert_eq!(again.started_as(), Started::Resumed);
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_belongs_to_one_process_and_one_network() {
    let grove = Grove::of(1).await;
    let second = Node::start(grove.config(0)).await;
    assert!(second.is_err_and(|error| error.to_string().contains("another process")));
    let other = Grove::of(1).await;
    let ticket = other.node(0).invite(HOUR).await.unwrap();
    grove.node(0).stop().await;
    assert!(refusal(&grove, 0, ticket).await.contains("another network"));
    let mut changed = grove.config(0);
    changed.replicas = Some(Replicas::All);
    assert!(matches!(Node::start(changed).await, Err(Error::Setup(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_nothing_is_a_stranger() {
    let grove = Grove::of(1).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = Node::start(config(elsewhere.path().join("data"))).await.unwrap();
    assert_ne!(stranger.network(), grove.node(0).network());
    // It knows the address and the key, and gets no further than the handshake.
    let identity = std::sync::Arc::new(pando_net::Identity::generate());
    let stranger_id = identity.node_id();
    let client = client(identity).await;
    client.set_addresses(grove.node(0).id(), grove.node(0).advertised());
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let answer = client.call(grove.node(0).id(), bytes::Bytes::from_static(b"\x01\x01"), deadline).await;
    assert!(answer.is_err(), "{stranger_id} was let in");
    assert!(put(grove.node(0), "a", b"x").await.is_ok(), "nothing else is disturbed");
}

struct Deaf;

impl pando_net::Service for Deaf {
    fn admits(&self, _: &pando_node::core::id::NodeId) -> bool {
        false
    }
    async fn call(&self, _: pando_node::core::id::NodeId, _: bytes::Bytes) -> bytes::Bytes {
        bytes::Bytes::new()
    }
    async fn stream(&self, _: pando_node::core::id::NodeId, _: bytes::Bytes, _: pando_net::Incoming) {}
    async fn join(
        &self,
        _: pando_node::core::id::NodeId,
        _: std::net::SocketAddr,
        _: bytes::Bytes,
    ) -> bytes::Bytes {
        bytes::Bytes::new()
    }
}

async fn client(identity: std::sync::Arc<pando_net::Identity>) -> pando_net::Endpoint {
    let listen = "127.0.0.1:0".parse().unwrap();
    pando_net::Endpoint::bind(identity, listen, pando_net::Limits::default(), std::sync::Arc::new(Deaf))
        .await
        .unwrap()
}
