//! Health, metrics, host names, and clients that misbehave.

use std::time::Duration;

use pando_gateway::{Gateway, Options};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::client::{Site, answer, call};

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics() {
    let site = Site::new().await;
    let client = &site.client;
    client.send(call("PUT", "/default/a").body("hello")).await.ok();
    client.send(call("GET", "/default/a")).await.ok();
    let health = client.send_as_is(call("GET", "/health")).await;
    assert_eq!((health.status, health.text().as_str()), (200, "ok\n"));
    let page = client.send_as_is(call("GET", "/metrics")).await.ok().text();
    for line in [
        "pando_http_requests_total{operation=\"PutObject\",status=\"200\"} 1",
        "pando_http_request_duration_seconds_count{operation=\"GetObject\"} 1",
        "pando_http_received_bytes_total 5",
        "pando_member_up{node=",
        "pando_healing_lacking_chunks 0",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    // With a page of its own, S3 has none.
    let options = Options {
        s3: Some(([127, 0, 0, 1], 0).into()),
        http: Some(([127, 0, 0, 1], 0).into()),
        ..Options::default()
    };
    let gateway = Gateway::start(site.node.clone(), options).await.unwrap();
    let mut there = client.clone();
    there.address = gateway.http_addr().unwrap();
    assert_eq!(there.send_as_is(call("GET", "/health")).await.status, 200);
    assert_eq!(there.send(call("GET", "/default/a")).await.status, 404);
    there.address = gateway.s3_addr().unwrap();
    assert_eq!(there.send_as_is(call("GET", "/health")).await.status, 403);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_body_that_was_asked_about_ends_the_connection() {
    let site = Site::new().await;
    let mut answers = Vec::new();
    for more in ["", "expect: 100-continue\r\n"] {
        let mut stream = TcpStream::connect(site.client.address).await.unwrap();
        let host = site.client.address;
        let head = format!("PUT /default/a HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\n{more}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut bytes = vec![0; 4096];
        let count = stream.read(&mut bytes).await.unwrap();
        answers.push(answer(&bytes[..count]));
    }
    let [kept, ended] = answers.try_into().unwrap();
    assert_eq!((kept.status, kept.header("connection")), (403, ""));
    assert_eq!((ended.status, ended.header("connection")), (403, "close"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_may_stand_in_the_host_name() {
    let site = Site::new().await;
    site.client.send(call("PUT", "/default/a").body("hello")).await.ok();
    let got = site.client.send(call("GET", "/a").header("host", "default.s3.example")).await.ok();
    assert_eq!(got.text(), "hello");
    let list = site.client.send(call("GET", "/").header("host", "default.s3.example")).await.ok();
    assert_eq!(list.elements("Key"), ["a"]);
    // On any port, and any other name of this machine leaves the bucket to the path.
    let got = site.client.send(call("GET", "/a").header("host", "Default.S3.example:9000")).await.ok();
    assert_eq!(got.text(), "hello");
    for host in ["localhost:9000", "node.lan", "s3.example"] {
        let got = site.client.send(call("GET", "/default/a").header("host", host)).await.ok();
        assert_eq!(got.text(), "hello", "{host}");
    }
    // What would be a page elsewhere is a key there.
    let page = site.client.send_as_is(call("GET", "/health").header("host", "default.s3.example")).await;
    assert_eq!(page.outcome(), (403, "AccessDenied".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_and_idlers_don_t_matter() {
    let site = Site::new().await;
    let address = site.client.address;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    for head in [
        format!("GET / HTTP/1.1\r\nhost: x\r\nbomb: {}\r\n\r\n", "b".repeat(1 << 20)),
        format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(10_000)),
        "\u{0}\u{1}\u{2}\r\n\r\n".to_owned(),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(head.as_bytes()).await;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        if !bytes.is_empty() {
            assert!([400, 431].contains(&answer(&bytes).status));
        }
    }
    // Uploads that stop in the middle hold nobody up, however many.
    let mut stuck = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let url = site.client.presign(&call("PUT", "/default/stuck"), "60");
        let put = url.unsigned("content-length", "1000000").body(vec![0; 1000]);
        let client = site.client.clone();
        stream.write_all(b"").await.unwrap();
        stuck.push(tokio::spawn(async move { client.send_as_is(put).await }));
    }
    tokio::time::timeout(Duration::from_secs(20), async {
        for number in 0..20 {
            let path = format!("/default/{number}");
            site.client.send(call("PUT", &path).body(vec![1; 100_000])).await.ok();
            assert_eq!(site.client.send(call("GET", &path)).await.ok().body.len(), 100_000);
        }
    })
    .await
    .expect("others go on");
    for upload in stuck {
        upload.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_stop_hold_nobody_up() {
    let site = Site::new().await;
    let address = site.client.address;
    // More than the kernel buffers for one connection.
    let film: Vec<u8> = (0..6 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    site.client.send(call("PUT", "/default/film").body(film.clone())).await.ok();
    site.client.send(call("PUT", "/default/other").body(vec![1; 100_000])).await.ok();
    let url = site.client.presign(&call("GET", "/default/film"), "600");
    // If each kept its place among the 16 gets for five seconds, this would take thirty-five.
    let mut paused = tokio::time::timeout(Duration::from_secs(32), async {
        let mut paused = Vec::new();
        for _ in 0..128 {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            let mut stream = socket.connect(address).await.unwrap();
            stream.write_all(site.client.head_of(&url).0.as_bytes()).await.unwrap();
            // It is being answered.
            stream.readable().await.unwrap();
            paused.push(stream);
        }
        for _ in 0..20 {
            assert_eq!(site.client.send(call("GET", "/default/other")).await.ok().body.len(), 100_000);
        }
        paused
    })
    .await
    .expect("others go on");
    // Who goes on gets all of it.
    let mut bytes = Vec::new();
    paused[0].read_to_end(&mut bytes).await.unwrap();
    assert!(answer(&bytes).body == film, "the film is whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_too_many_who_stop_reading_the_first_are_dropped() {
    let site = Site::new().await;
    site.client.send(call("PUT", "/default/film").body(vec![1; 6 << 20])).await.ok();
    let url = site.client.presign(&call("GET", "/default/film"), "600");
    let mut stopped = Vec::new();
    for _ in 0..140 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(site.client.address).await.unwrap();
        stream.write_all(site.client.head_of(&url).0.as_bytes()).await.unwrap();
        stream.readable().await.unwrap();
        stopped.push(stream);
    }
    // Theirs are closed, not only told that nothing more comes. The one that asks is open, too.
    let open = async || {
        let page = site.client.send_as_is(call("GET", "/metrics")).await.ok().text();
        let line = page.lines().find_map(|line| line.strip_prefix("pando_http_connections "));
        line.and_then(|count| count.parse::<f64>().ok()).unwrap()
    };
    tokio::time::timeout(Duration::from_secs(30), async { while open().await > 129.0 {} })
        .await
        .expect("128 may stop reading");
    let mut bytes = Vec::new();
    let _ = stopped[0].read_to_end(&mut bytes).await;
    assert!(bytes.len() < 6 << 20, "the first is cut off");
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_have_room_for_all_that_s3_lets_one_say() {
    let site = Site::new().await;
    let meta = "m".repeat(2000);
    let tags: Vec<String> =
        (0..10).map(|at| format!("{at}{}={}", "%C3%BC".repeat(127), "%C3%A4".repeat(256))).collect();
    let put = call("PUT", &format!("/default/{}", "ü".repeat(510)))
        .header("x-amz-meta-one", &meta)
        .header("x-amz-tagging", &tags[..5].join("&"))
        .body("x");
    site.client.send(put).await.ok();
    let put = call("PUT", "/default/a").unsigned("bomb", &"b".repeat(33 << 10));
    assert_eq!(site.client.send_as_is(put).await.status, 431);
}
