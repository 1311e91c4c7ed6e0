//! Both lanes between nodes that mean well.

use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use pando_net::{Error, Limits};

use crate::world::{pair, pattern, soon, until};

#[tokio::test]
async fn a_call_is_answered() {
    let (client, server) = pair(Limits::default()).await;
    assert_eq!(client.call(server.id(), "hello").await.unwrap(), "hello");
    assert_eq!(client.call(server.id(), "").await.unwrap(), "");
    assert_eq!(&client.call(server.id(), "who").await.unwrap()[..], client.id().as_bytes());
    let large = Bytes::from(pattern(1 << 20));
    assert_eq!(client.endpoint.call(server.id(), large.clone(), soon()).await.unwrap(), large);
    let stats = client.endpoint.stats();
    assert_eq!((stats.dialed, stats.connections), (1, 1));
    assert_eq!((stats.rpc_out, stats.rpc_in), (8 + large.len() as u64, 37 + large.len() as u64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_are_in_flight_on_one_dial() {
    let (client, server) = pair(Limits::default()).await;
    let calls: Vec<_> = (0..500usize)
        .map(|number| {
            let (endpoint, peer) = (client.endpoint.clone(), server.id());
            tokio::spawn(async move {
                let request = Bytes::from(pattern(number * 100));
                (endpoint.call(peer, request.clone(), soon()).await.unwrap(), request)
            })
        })
        .collect();
    for call in calls {
        let (reply, request) = call.await.unwrap();
        assert_eq!(reply, request);
    }
    assert_eq!(client.endpoint.stats().dialed, 1);
    assert_eq!(server.endpoint.stats().accepted, 1);
}

#[tokio::test]
async fn a_slow_request_delays_no_other() {
    let (client, server) = pair(Limits::default()).await;
    let slow = {
        let (endpoint, peer) = (client.endpoint.clone(), server.id());
        tokio::spawn(async move { endpoint.call(peer, "wait".into(), soon()).await })
    };
    until("the slow request runs", || server.service.waiting.load(SeqCst) == 1).await;
    assert_eq!(client.call(server.id(), "quick").await.unwrap(), "quick");
    assert!(!slow.is_finished());
    server.service.go.add_permits(1);
    assert_eq!(slow.await.unwrap().unwrap(), "wait");
}

#[tokio::test]
async fn requests_in_flight_are_bounded() {
    let (client, server) = pair(Limits { calls: 4, ..Limits::default() }).await;
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let (endpoint, peer) = (client.endpoint.clone(), server.id());
            tokio::spawn(async move { endpoint.call(peer, "wait".into(), soon()).await })
        })
        .collect();
    until("four run", || server.service.waiting.load(SeqCst) == 4).await;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_millis(20);
    let error = client.endpoint.call(server.id(), "one more".into(), deadline).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { sent: false, .. }), "{error:?}");
    assert_eq!(server.service.waiting.load(SeqCst), 4);
    server.service.go.add_permits(10);
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn bodies_of_all_lengths_make_the_round_trip() {
    let (client, server) = pair(Limits::default()).await;
    for len in [0, 1, 16 << 10, (16 << 10) + 1, 100_000, 5 << 20] {
        let body = pattern(len);
        let (header, back) = client.exchange(server.id(), "echo", &body).await.unwrap();
        assert_eq!(header, "echo");
        assert!(back == body, "{len} bytes changed on their way");
    }
    assert_eq!(client.endpoint.stats().dialed, 1, "each exchange gives the connection to the next");
    assert_eq!(client.endpoint.stats().idle_streams, 1);
}

#[tokio::test]
async fn the_pool_gets_a_connection_at_the_end_of_its_body() {
    let (client, server) = pair(Limits::default()).await;
    let mut exchange = client.endpoint.open(server.id(), "source".into(), 4, soon()).await.unwrap();
    exchange.write_all(b"1000").await.unwrap();
    let (_, mut body) = exchange.finish().await.unwrap();
    let mut bytes = [0; 999];
    body.read_exact(&mut bytes).await.unwrap();
    assert_eq!(client.endpoint.stats().idle_streams, 0);
    assert_eq!(body.read(&mut bytes).await.unwrap(), 1);
    assert_eq!(client.endpoint.stats().idle_streams, 1);
    assert_eq!(body.read(&mut bytes).await.unwrap(), 0);
    drop(body);
    client.exchange(server.id(), "echo", b"x").await.unwrap();
    assert_eq!(client.endpoint.stats().dialed, 1);
}

#[tokio::test]
async fn exchanges_side_by_side_have_a_connection_each() {
    let (client, server) = pair(Limits { idle_streams: 2, ..Limits::default() }).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut exchange = client.endpoint.open(server.id(), "count".into(), 10, soon()).await.unwrap();
        exchange.write_all(b"12345").await.unwrap();
        open.push(exchange);
    }
    assert_eq!(client.endpoint.stats().dialed, 4);
    for mut exchange in open {
        exchange.write_all(b"67890").await.unwrap();
        assert_eq!(exchange.finish().await.unwrap().0, "10");
    }
    assert_eq!(client.endpoint.stats().idle_streams, 2, "the pool keeps so many and no more");
    until("the rest is closed", || server.endpoint.stats().connections == 2).await;
}

#[tokio::test]
async fn exchanges_with_one_peer_are_bounded() {
    let (client, server) = pair(Limits { streams_per_peer: 1, ..Limits::default() }).await;
    let first = client.endpoint.open(server.id(), "count".into(), 0, soon()).await.unwrap();
    let now = tokio::time::Instant::now();
    let second = client.endpoint.open(server.id(), "count".into(), 0, now).await;
    assert!(matches!(&second, Err(Error::Timeout { sent: false, .. })), "{second:?}");
    first.finish().await.unwrap();
    client.exchange(server.id(), "count", b"").await.unwrap();
}

#[tokio::test]
async fn a_body_dropped_half_read_closes_its_connection() {
    let (client, server) = pair(Limits::default()).await;
    let mut exchange = client.endpoint.open(server.id(), "source".into(), 8, soon()).await.unwrap();
    exchange.write_all(b"10000000").await.unwrap();
    let (_, mut body) = exchange.finish().await.unwrap();
    let mut some = [0; 1000];
    body.read_exact(&mut some).await.unwrap();
    assert_eq!(some[..], pattern(1000));
    drop(body);
    assert_eq!(client.endpoint.stats().connections, 0);
    assert_eq!(client.endpoint.stats().idle_streams, 0);
    until("the server gave up too", || server.endpoint.stats().connections == 0).await;
    client.exchange(server.id(), "echo", b"again").await.unwrap();
    assert_eq!(client.endpoint.stats().dialed, 2);
}

#[tokio::test]
async fn a_request_dropped_half_written_ends_at_the_server() {
    let (client, server) = pair(Limits::default()).await;
    let mut exchange = client.endpoint.open(server.id(), "count".into(), 1000, soon()).await.unwrap();
    exchange.write_all(&[0; 500]).await.unwrap();
    drop(exchange);
    server.service.dropped.notified().await;
    until("the connection is gone", || server.endpoint.stats().connections == 0).await;
}

#[tokio::test]
async fn an_exchange_dropped_by_the_service_fails() {
    let (client, server) = pair(Limits::default()).await;
    let dropped = client.exchange(server.id(), "drop", b"").await.unwrap_err();
    assert!(matches!(dropped, Error::Closed { .. }) && dropped.maybe_delivered(), "{dropped:?}");
    let short = client.exchange(server.id(), "short", b"").await.unwrap_err();
    assert!(matches!(short, Error::Closed { .. }), "{short:?}");
    client.exchange(server.id(), "echo", b"fine").await.unwrap();
}

#[tokio::test]
async fn an_early_reply_arrives() {
    let (client, server) = pair(Limits { drain: 3 << 20, ..Limits::default() }).await;
    // The rest of the body is thrown away, and the connection goes on.
    let (header, _) = client.exchange(server.id(), "early", &pattern(3 << 20)).await.unwrap();
    assert_eq!(header, "early");
    let (header, _) = client.exchange(server.id(), "early", b"short").await.unwrap();
    assert_eq!(header, "early");
    assert_eq!(client.endpoint.stats().dialed, 1);
    // Too much to throw away: the connection closes, and the reply is heard all the same.
    let (header, _) = client.exchange(server.id(), "early", &pattern(40 << 20)).await.unwrap();
    assert_eq!(header, "early");
    client.exchange(server.id(), "echo", b"next").await.unwrap();
}

#[tokio::test]
async fn bulk_never_delays_a_call() {
    let (client, server) = pair(Limits::default()).await;
    // A body that nobody reads: its connection is full to the brim.
    let mut stuck = client.endpoint.open(server.id(), "wait".into(), 1 << 30, soon()).await.unwrap();
    let piece = pattern(1 << 20);
    let full = async {
        loop {
            stuck.write_all(&piece).await.unwrap();
        }
    };
    let calls = async {
        until("the exchange runs", || server.service.waiting.load(SeqCst) == 1).await;
        for _ in 0..100 {
            client.call(server.id(), "quick").await.unwrap();
        }
    };
    tokio::select! {
        () = full => unreachable!(),
        () = calls => {}
    }
    assert_eq!(client.endpoint.stats().dialed, 2, "a connection for the body, and one for the calls");
}

#[tokio::test]
async fn a_wrong_length_is_told_to_the_caller() {
    let (client, server) = pair(Limits::default()).await;
    let mut exchange = client.endpoint.open(server.id(), "count".into(), 5, soon()).await.unwrap();
    let wrong = exchange.write_all(b"123456").await.unwrap_err();
    assert_eq!(wrong, Error::BodyLength { announced: 5, given: 6 });
    exchange.write_all(b"1234").await.unwrap();
    let wrong = exchange.finish().await.unwrap_err();
    assert_eq!(wrong, Error::BodyLength { announced: 5, given: 4 });
    let huge = client.endpoint.open(server.id(), "count".into(), u64::MAX, soon()).await.unwrap_err();
    assert!(matches!(huge, Error::BodyLength { .. }));
}

#[tokio::test]
async fn a_frame_too_large_is_not_sent() {
    let (client, server) = pair(Limits::default()).await;
    let large = Bytes::from(vec![0; (1 << 20) + 1]);
    let error = client.endpoint.call(server.id(), large.clone(), soon()).await.unwrap_err();
    assert!(matches!(error, Error::FrameTooLarge { .. }) && !error.maybe_delivered(), "{error:?}");
    let error = client.endpoint.open(server.id(), large, 0, soon()).await.unwrap_err();
    assert!(matches!(error, Error::FrameTooLarge { .. }) && !error.maybe_delivered(), "{error:?}");
}

#[tokio::test]
async fn a_reply_that_cannot_be_sent_fails_its_call() {
    let (client, server) = pair(Limits::default()).await;
    let error = client.call(server.id(), "huge").await.unwrap_err();
    assert!(matches!(error, Error::Closed { sent: true, .. }), "{error:?}");
    assert_eq!(client.call(server.id(), "next").await.unwrap(), "next");
}

#[tokio::test]
async fn a_service_that_panics_fails_its_call() {
    let (client, server) = pair(Limits::default()).await;
    let calls = async {
        // The panic is noticed at once, not with the next request.
        client.call(server.id(), "panic").await.unwrap_err()
    };
    let error = calls.await;
    assert!(matches!(error, Error::Closed { sent: true, .. }), "{error:?}");
    assert_eq!(client.call(server.id(), "next").await.unwrap(), "next");
}
