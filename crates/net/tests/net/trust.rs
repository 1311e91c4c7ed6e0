//! Who gets in, how far, and what happens to those who speak something else.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use bytes::Bytes;
use pando_net::{Error, Identity, Limits};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    raw,
    world::{Node, pair, soon, until},
};

const MEMBERS: Option<&[u8]> = Some(b"pando/1");
const JOIN: Option<&[u8]> = Some(b"pando-join/1");

/// A frame header that says `len` and `tag`.
fn header(len: u32, tag: u64) -> Vec<u8> {
    [&len.to_le_bytes()[..], &tag.to_le_bytes()].concat()
}

/// A server and the identity of a member that is made by hand.
async fn server_and_member(limits: Limits) -> (Node, Identity) {
    let (server, member) = (Node::start(limits).await, Identity::generate());
    server.admit(member.node_id());
    (server, member)
}

#[tokio::test]
async fn a_stranger_is_refused() {
    let (server, stranger) = (Node::start(Limits::default()).await, Node::start(Limits::default()).await);
    stranger.knows(&server);
    let refused = Error::Refused { peer: server.id() };
    assert_eq!(stranger.call(server.id(), "hello").await.unwrap_err(), refused);
    assert_eq!(stranger.exchange(server.id(), "echo", b"x").await.unwrap_err(), refused);
    assert!(!refused.maybe_delivered());
    until("nothing is left of it", || server.endpoint.stats().connections == 0).await;
    assert_eq!(server.endpoint.stats().accepted, 0);
    // Once it is a member, the same node gets in.
    server.admit(stranger.id());
    stranger.call(server.id(), "hello").await.unwrap();
}

#[tokio::test]
async fn another_node_at_the_address_is_not_taken_for_the_peer() {
    let (client, server) = pair(Limits::default()).await;
    let wanted = Identity::generate().node_id();
    let address = server.endpoint.local_addr();
    client.endpoint.set_addresses(wanted, vec![address]);
    let wrong = Error::WrongKey { peer: wanted, address };
    assert_eq!(client.call(wanted, "secret").await.unwrap_err(), wrong);
    assert_eq!(client.exchange(wanted, "echo", b"secret").await.unwrap_err(), wrong);
    let joined = client.endpoint.join(address, wanted, "secret".into(), soon()).await;
    assert_eq!(joined.unwrap_err(), wrong);
    assert_eq!(server.service.joins.load(SeqCst), 0);
}

#[tokio::test]
async fn a_stranger_may_ask_to_join() {
    let (server, stranger) = (Node::start(Limits::default()).await, Node::start(Limits::default()).await);
    let address = server.endpoint.local_addr();
    let reply = stranger.endpoint.join(address, server.id(), "please".into(), soon()).await.unwrap();
    assert_eq!(reply, [b"welcome ", &stranger.id().as_bytes()[..], b" please"].concat());
    until("the connection is closed", || server.endpoint.stats().connections == 0).await;
    assert_eq!(server.endpoint.stats().accepted, 0);
}

#[tokio::test]
async fn a_join_is_nothing_but_a_join() {
    let limits = Limits { handshake: Duration::from_millis(500), ..Limits::default() };
    let (server, member) = server_and_member(limits).await;
    let mut tls = raw::dial(&member, server.endpoint.local_addr(), JOIN).await.unwrap();
    // A lane's first byte and a call.
    tls.write_all(&[&[1][..], &header(5, 1), b"hello"].concat()).await.unwrap();
    assert_eq!(raw::rest(&mut tls).await, b"");
    // Two joins on one connection: one is answered.
    let mut tls = raw::dial(&member, server.endpoint.local_addr(), JOIN).await.unwrap();
    tls.write_all(&[header(1, 0), b"a".to_vec(), header(1, 0), b"b".to_vec()].concat()).await.unwrap();
    raw::rest(&mut tls).await;
    assert_eq!(server.service.joins.load(SeqCst), 1);
    assert_eq!(server.service.streams.load(SeqCst), 0);
}

#[tokio::test]
async fn other_protocols_are_refused() {
    let (server, member) = server_and_member(Limits::default()).await;
    for protocol in [None, Some(&b"h2"[..]), Some(b"pando/0")] {
        let mut dialed = raw::dial(&member, server.endpoint.local_addr(), protocol).await;
        if let Ok(tls) = &mut dialed {
            assert_eq!(raw::rest(tls).await, b"");
        }
    }
    until("all are turned away", || server.endpoint.stats().turned_away == 3).await;
}

#[tokio::test]
async fn random_bytes_are_turned_away() {
    let server = Node::start(Limits::default()).await;
    let mut bytes = vec![0u8; 10_000];
    for seed in 1..20u64 {
        let mut state = seed;
        for byte in &mut bytes {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            *byte = (state >> 56) as u8;
        }
        // Half of them look like TLS for a while.
        if seed % 2 == 0 {
            bytes[..5].copy_from_slice(&[0x16, 3, 1, 1, 0]);
        }
        let mut tcp = TcpStream::connect(server.endpoint.local_addr()).await.unwrap();
        let _ = tcp.write_all(&bytes).await;
        raw::rest(&mut tcp).await;
    }
    until("all are turned away", || server.endpoint.stats().turned_away == 19).await;
    assert_eq!(server.endpoint.stats().unauthenticated, 0);
}

#[tokio::test]
async fn a_lane_nobody_knows_is_closed() {
    let (server, member) = server_and_member(Limits::default()).await;
    for lane in [0u8, 3, 0xff] {
        let mut tls = raw::dial(&member, server.endpoint.local_addr(), MEMBERS).await.unwrap();
        tls.write_all(&[lane]).await.unwrap();
        assert_eq!(raw::rest(&mut tls).await, b"");
    }
    assert_eq!(server.endpoint.stats().accepted, 0);
}

#[tokio::test]
async fn malformed_frames_close_the_lane() {
    let (server, member) = server_and_member(Limits::default()).await;
    let address = server.endpoint.local_addr();
    let too_large = header((1 << 20) + 1, 1);
    let loaded_ping = [header(3, 0), b"abc".to_vec()].concat();
    for (lane, bytes) in [
        (1, too_large.clone()),
        (1, header(u32::MAX, u64::MAX)),
        (1, loaded_ping),
        (2, too_large),
        (2, [header(4, (1 << 40) + 1), b"echo".to_vec()].concat()),
        (2, vec![0xff; 4096]),
    ] {
        let mut tls = raw::lane(&member, address, lane).await;
        tls.write_all(&bytes).await.unwrap();
        assert_eq!(raw::rest(&mut tls).await, b"", "lane {lane}");
    }
    assert_eq!(server.service.streams.load(SeqCst), 0);
    until("nothing is left", || server.endpoint.stats().connections == 0).await;
}

#[tokio::test]
async fn frames_cut_short_end_the_lane() {
    let (server, member) = server_and_member(Limits::default()).await;
    for lane in [1, 2] {
        for bytes in [&header(10, 1)[..5], &[&header(10, 1)[..], b"half"].concat()] {
            let mut tls = raw::lane(&member, server.endpoint.local_addr(), lane).await;
            tls.write_all(bytes).await.unwrap();
            tls.shutdown().await.unwrap();
            assert_eq!(raw::rest(&mut tls).await, b"");
        }
    }
    until("nothing is left", || server.endpoint.stats().connections == 0).await;
}

#[tokio::test]
async fn a_ping_is_answered_and_calls_have_numbers() {
    let (server, member) = server_and_member(Limits::default()).await;
    let mut tls = raw::lane(&member, server.endpoint.local_addr(), 1).await;
    tls.write_all(&header(0, 0)).await.unwrap();
    let mut reply = [0; 12];
    tls.read_exact(&mut reply).await.unwrap();
    assert_eq!(reply[..], header(0, 0));
    tls.write_all(&[header(2, 0x1234), b"hi".to_vec()].concat()).await.unwrap();
    let mut reply = [0; 14];
    tls.read_exact(&mut reply).await.unwrap();
    assert_eq!(reply[..], [header(2, 0x1234), b"hi".to_vec()].concat());
}

#[tokio::test]
async fn a_server_that_speaks_nonsense_fails_the_call() {
    let client = Node::start(Limits::default()).await;
    let liar = Identity::generate();
    let peer = liar.node_id();
    let address = raw::server(liar, header(u32::MAX, 1)).await;
    client.endpoint.set_addresses(peer, vec![address]);
    let error = client.call(peer, "hello").await.unwrap_err();
    assert!(matches!(error, Error::FrameTooLarge { .. }) && error.maybe_delivered(), "{error:?}");
    let error = client.exchange(peer, "echo", b"hello").await.unwrap_err();
    assert!(matches!(error, Error::FrameTooLarge { .. }) && error.maybe_delivered(), "{error:?}");
    until("nothing is left", || client.endpoint.stats().connections == 0).await;
}

#[tokio::test]
async fn a_reply_to_nothing_is_ignored() {
    let client = Node::start(Limits::default()).await;
    let odd = Identity::generate();
    let peer = odd.node_id();
    let says = [header(1, 77), b"?".to_vec(), header(2, 1), b"ok".to_vec()].concat();
    let address = raw::server(odd, says).await;
    client.endpoint.set_addresses(peer, vec![address]);
    assert_eq!(client.call(peer, "hello").await.unwrap(), "ok");
}

#[tokio::test]
async fn who_says_nothing_is_dropped() {
    let limits = Limits { handshake: Duration::from_millis(50), ..Limits::default() };
    let (server, member) = server_and_member(limits).await;
    let address = server.endpoint.local_addr();
    let mut silent = TcpStream::connect(address).await.unwrap();
    assert_eq!(raw::rest(&mut silent).await, b"");
    // A member that names no lane, and a join without a request, are no different.
    for protocol in [MEMBERS, JOIN] {
        if let Ok(mut tls) = raw::dial(&member, address, protocol).await {
            assert_eq!(raw::rest(&mut tls).await, b"");
        }
    }
    until("all are gone", || {
        let stats = server.endpoint.stats();
        (stats.turned_away, stats.connections, stats.unauthenticated) == (3, 0, 0)
    })
    .await;
}

#[tokio::test]
async fn connections_not_admitted_are_bounded() {
    let (client, server) = pair(Limits { unauthenticated: 2, ..Limits::default() }).await;
    let address = server.endpoint.local_addr();
    let mut open = Vec::new();
    for count in 1..=2 {
        open.push(TcpStream::connect(address).await.unwrap());
        until("it is counted", || server.endpoint.stats().unauthenticated == count).await;
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    assert_eq!(raw::rest(&mut third).await, b"");
    let error = client.call(server.id(), "hello").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    open.pop();
    until("a place is free", || server.endpoint.stats().unauthenticated == 1).await;
    client.call(server.id(), "hello").await.unwrap();
    // The admitted lane gave its place back.
    assert_eq!(server.endpoint.stats().unauthenticated, 1);
}

#[tokio::test]
async fn connections_of_one_peer_are_bounded() {
    let (client, server) = pair(Limits { connections_per_peer: 2, ..Limits::default() }).await;
    let first = client.endpoint.open(server.id(), "count".into(), 0, soon()).await.unwrap();
    let second = client.endpoint.open(server.id(), "count".into(), 0, soon()).await.unwrap();
    let busy = Error::Busy { peer: server.id() };
    assert_eq!(client.call(server.id(), "hello").await.unwrap_err(), busy);
    assert!(!busy.maybe_delivered());
    drop(first);
    until("one is closed", || server.endpoint.stats().connections == 1).await;
    client.call(server.id(), "hello").await.unwrap();
    drop(second);
}

#[tokio::test]
async fn who_is_disconnected_has_to_come_in_again() {
    let (client, server) = pair(Limits::default()).await;
    client.call(server.id(), "hello").await.unwrap();
    client.exchange(server.id(), "echo", b"x").await.unwrap();
    server.service.members.lock().unwrap().clear();
    client.call(server.id(), "admitted is admitted").await.unwrap();
    server.endpoint.disconnect(client.id());
    until("the lanes are closed", || server.endpoint.stats().connections == 0).await;
    until("and seen to be", || client.endpoint.stats().connections == client.endpoint.stats().idle_streams)
        .await;
    let refused = Error::Refused { peer: server.id() };
    let error = client.endpoint.call(server.id(), Bytes::from_static(b"hello"), soon()).await.unwrap_err();
    assert_eq!(error, refused);
    assert_eq!(client.exchange(server.id(), "echo", b"x").await.unwrap_err(), refused);
}
