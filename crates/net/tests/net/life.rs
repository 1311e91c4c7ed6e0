//! Death and time: peers that vanish, deadlines, shutdown.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use pando_net::{Error, Identity, Limits};
use tokio::{net::TcpListener, time::Instant};

use crate::world::{Node, Proxy, Wire, anywhere, pair, soon, until};

/// An address where nobody listens.
async fn nowhere() -> std::net::SocketAddr {
    TcpListener::bind(anywhere()).await.unwrap().local_addr().unwrap()
}

/// A pair with a proxy between.
async fn proxied(limits: Limits) -> (Node, Node, Proxy) {
    let (client, server) = pair(limits).await;
    let proxy = Proxy::to(server.endpoint.local_addr()).await;
    client.endpoint.set_addresses(server.id(), vec![proxy.address]);
    (client, server, proxy)
}

#[tokio::test]
async fn a_dead_connection_fails_its_calls_and_the_next_call_dials() {
    let (client, server, proxy) = proxied(Limits::default()).await;
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let (endpoint, peer) = (client.endpoint.clone(), server.id());
            tokio::spawn(async move { endpoint.call(peer, "wait".into(), soon()).await })
        })
        .collect();
    until("all wait", || server.service.waiting.load(SeqCst) == 10).await;
    proxy.wire.send_replace(Wire::Cut);
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Closed { sent: true, .. }) && error.maybe_delivered(), "{error:?}");
    }
    proxy.wire.send_replace(Wire::Whole);
    assert_eq!(client.call(server.id(), "again").await.unwrap(), "again");
    assert_eq!(client.endpoint.stats().dialed, 2);
    // What was begun runs to its end all the same.
    server.service.go.add_permits(10);
    until("the dead lane's requests are done", || server.endpoint.stats().connections == 1).await;
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_noticed() {
    let ping = Duration::from_millis(20);
    let limits = Limits { ping, silence: 3 * ping, ..Limits::default() };
    let (client, server, proxy) = proxied(limits).await;
    let waiting = {
        let (endpoint, peer) = (client.endpoint.clone(), server.id());
        tokio::spawn(async move { endpoint.call(peer, "wait".into(), soon()).await })
    };
    until("it waits", || server.service.waiting.load(SeqCst) == 1).await;
    // Slow is not silent: while pings are answered, a call may take its time.
    for _ in 0..10 {
        client.call(server.id(), "tick").await.unwrap();
        tokio::time::sleep(ping).await;
    }
    assert!(!waiting.is_finished());
    proxy.wire.send_replace(Wire::Silent);
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Timeout { sent: true, .. }), "{error:?}");
}

#[tokio::test]
async fn pings_keep_a_slow_call_alive() {
    let ping = Duration::from_millis(10);
    let (client, server) = pair(Limits { ping, silence: 3 * ping, ..Limits::default() }).await;
    let waiting = {
        let (endpoint, peer) = (client.endpoint.clone(), server.id());
        tokio::spawn(async move { endpoint.call(peer, "wait".into(), soon()).await })
    };
    until("it waits", || server.service.waiting.load(SeqCst) == 1).await;
    let since = Instant::now();
    until("ten times the silence has passed", || since.elapsed() > 30 * ping).await;
    server.service.go.add_permits(1);
    assert_eq!(waiting.await.unwrap().unwrap(), "wait");
    assert_eq!(client.endpoint.stats().dialed, 1);
}

#[tokio::test]
async fn a_deadline_is_kept_and_a_late_reply_is_dropped() {
    let (client, server) = pair(Limits::default()).await;
    client.call(server.id(), "hello").await.unwrap();
    let deadline = Instant::now() + Duration::from_millis(30);
    let error = client.endpoint.call(server.id(), "wait".into(), deadline).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { sent: true, .. }) && Instant::now() >= deadline, "{error:?}");
    server.service.go.add_permits(1);
    until("the late reply was sent", || server.endpoint.stats().rpc_out == 9).await;
    assert_eq!(client.call(server.id(), "hello").await.unwrap(), "hello");
    assert_eq!(client.endpoint.stats().dialed, 1);
    let deadline = Instant::now() + Duration::from_millis(30);
    let exchange = client.endpoint.open(server.id(), "wait".into(), 0, deadline).await.unwrap();
    let error = exchange.finish().await.unwrap_err();
    assert!(matches!(error, Error::Timeout { sent: true, .. }) && Instant::now() >= deadline, "{error:?}");
}

#[tokio::test]
async fn a_body_that_stalls_is_given_up() {
    let limits = Limits { stall: Duration::from_millis(50), ..Limits::default() };
    let (client, server, proxy) = proxied(limits).await;
    let mut exchange = client.endpoint.open(server.id(), "source".into(), 9, soon()).await.unwrap();
    exchange.write_all(b"100000000").await.unwrap();
    let (_, mut body) = exchange.finish().await.unwrap();
    proxy.wire.send_replace(Wire::Silent);
    let mut buffer = vec![0; 1 << 20];
    let error = loop {
        match body.read(&mut buffer).await {
            Ok(read) => assert!(read > 0),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    assert!(body.read(&mut buffer).await.is_err());
    until("the server gave up too", || server.endpoint.stats().connections == 0).await;
}

#[tokio::test]
async fn an_address_where_nobody_is_fails_at_once() {
    let client = Node::start(Limits::default()).await;
    let peer = Identity::generate().node_id();
    assert_eq!(client.call(peer, "hello").await.unwrap_err(), Error::UnknownAddress { peer });
    client.endpoint.set_addresses(peer, vec![nowhere().await, nowhere().await]);
    let far = Instant::now() + Duration::from_secs(3600);
    for error in [
        client.endpoint.call(peer, "hello".into(), far).await.unwrap_err(),
        client.endpoint.open(peer, "hello".into(), 0, far).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::Unreachable { .. }) && !error.maybe_delivered(), "{error:?}");
    }
    client.endpoint.set_addresses(peer, Vec::new());
    assert_eq!(client.call(peer, "hello").await.unwrap_err(), Error::UnknownAddress { peer });
}

#[tokio::test]
async fn an_address_that_leads_nowhere_does_not_stop_the_next() {
    let (client, server) = pair(Limits { dial_stagger: Duration::from_millis(5), ..Limits::default() }).await;
    let mute = TcpListener::bind(anywhere()).await.unwrap();
    let other = Node::start(Limits::default()).await;
    let addresses = [mute.local_addr().unwrap(), nowhere().await, other.endpoint.local_addr()];
    client.endpoint.set_addresses(server.id(), [&addresses[..], &[server.endpoint.local_addr()]].concat());
    assert_eq!(client.call(server.id(), "hello").await.unwrap(), "hello");
    client.exchange(server.id(), "echo", b"hello").await.unwrap();
}

#[tokio::test]
async fn a_dial_that_leads_nowhere_meets_the_deadline() {
    let limits = Limits { dial: Duration::from_millis(50), ..Limits::default() };
    let client = Node::start(limits).await;
    let (mute, peer) = (TcpListener::bind(anywhere()).await.unwrap(), Identity::generate().node_id());
    client.endpoint.set_addresses(peer, vec![mute.local_addr().unwrap()]);
    let late = client.endpoint.call(peer, "hello".into(), Instant::now()).await.unwrap_err();
    assert!(matches!(late, Error::Timeout { sent: false, .. }), "{late:?}");
    let error = client.call(peer, "hello").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_peer_that_came_back_is_found_again() {
    let seed = Identity::generate().to_bytes();
    let identity = || Identity::from_bytes(&seed).unwrap();
    let client = Node::start(Limits::default()).await;
    let server = Node::start_as(identity(), anywhere(), Limits::default()).await;
    let address = server.endpoint.local_addr();
    server.admit(client.id());
    client.knows(&server);
    client.call(server.id(), "hello").await.unwrap();
    client.exchange(server.id(), "echo", b"hello").await.unwrap();
    server.endpoint.shutdown().await;
    let server = Node::start_as(identity(), address, Limits::default()).await;
    server.admit(client.id());
    until("the lane's end is seen", || client.endpoint.stats().connections == 1).await;
    client.call(server.id(), "hello").await.unwrap();
    client.exchange(server.id(), "echo", b"hello").await.unwrap();
    assert_eq!(client.endpoint.stats().dialed, 4);
}

#[tokio::test]
async fn unused_connections_are_let_go_by_who_dialed_them() {
    let limits = Limits {
        idle: Duration::from_millis(60),
        ping: Duration::from_millis(20),
        silence: Duration::from_secs(20),
        ..Limits::default()
    };
    let (client, server) = pair(limits).await;
    client.call(server.id(), "hello").await.unwrap();
    client.exchange(server.id(), "echo", b"hello").await.unwrap();
    until("all are gone", || server.endpoint.stats().connections == 0).await;
    assert_eq!(client.endpoint.stats().connections, 0);
    assert_eq!(client.call(server.id(), "hello").await.unwrap(), "hello");
}

#[tokio::test]
async fn a_shutdown_ends_every_task_and_answers_what_was_begun() {
    let (client, server) = pair(Limits::default()).await;
    client.exchange(server.id(), "echo", b"hello").await.unwrap();
    let waiting = {
        let (endpoint, peer) = (client.endpoint.clone(), server.id());
        tokio::spawn(async move { endpoint.call(peer, "wait".into(), soon()).await })
    };
    until("it waits", || server.service.waiting.load(SeqCst) == 1).await;
    let shutdown = {
        let endpoint = server.endpoint.clone();
        tokio::spawn(async move { endpoint.shutdown().await })
    };
    until("new ones are not accepted", || server.endpoint.stats().tasks == 1).await;
    assert!(!shutdown.is_finished());
    server.service.go.add_permits(1);
    assert_eq!(waiting.await.unwrap().unwrap(), "wait");
    shutdown.await.unwrap();
    let stats = server.endpoint.stats();
    assert_eq!((stats.tasks, stats.connections), (0, 0));
    assert_eq!(server.call(client.id(), "x").await.unwrap_err(), Error::ShutDown);
    let error = client.call(server.id(), "hello").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    client.endpoint.shutdown().await;
    client.endpoint.shutdown().await;
    assert_eq!(client.endpoint.stats().tasks, 0);
}

#[tokio::test]
async fn a_shutdown_fails_the_calls_that_wait_and_does_not_wait_for_ever() {
    let (client, server) = pair(Limits { grace: Duration::from_millis(30), ..Limits::default() }).await;
    let waiting = {
        let (endpoint, peer) = (client.endpoint.clone(), server.id());
        tokio::spawn(async move { endpoint.call(peer, "wait".into(), soon()).await })
    };
    until("it waits", || server.service.waiting.load(SeqCst) == 1).await;
    client.endpoint.shutdown().await;
    let error = waiting.await.unwrap().unwrap_err();
    assert!(error.maybe_delivered(), "{error:?}");
    // Its request is never answered, and dropped when the grace is over.
    server.endpoint.shutdown().await;
    let stats = server.endpoint.stats();
    assert_eq!((stats.tasks, stats.connections), (0, 0));
}

#[tokio::test]
async fn dropping_an_endpoint_ends_its_tasks() {
    let (client, server) = pair(Limits::default()).await;
    client.call(server.id(), "hello").await.unwrap();
    let (peer, address) = (server.id(), server.endpoint.local_addr());
    drop(server);
    until("its lane is closed", || client.endpoint.stats().connections == 0).await;
    until("nobody listens", || std::net::TcpStream::connect(address).is_err()).await;
    assert!(client.call(peer, "hello").await.is_err());
}
