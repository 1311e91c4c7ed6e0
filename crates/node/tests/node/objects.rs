//! Put, get, stat, remove, conditions.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use pando_node::{
    ByteRange, Condition, Consistency, Error, PutOptions,
    core::{layout::Replicas, record::UserMeta},
};
use tokio::io::{AsyncRead, ReadBuf};

use crate::grove::{Grove, content, get, get_range, put};

const CHUNK: usize = 4 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn every_size_comes_back_from_every_node() {
    let grove = Grove::of(3).await;
    let sizes = [
        0,
        1,
        16 << 10,
        (16 << 10) + 1,
        64 << 10,
        (64 << 10) + 1,
        CHUNK - 1,
        CHUNK,
        CHUNK + 1,
        9 * CHUNK + 77,
    ];
    for (number, len) in sizes.into_iter().enumerate() {
        let bytes = content(number as u8, len);
        let key = format!("size-{len}");
        let stored = put(grove.node(number % 3), &key, &bytes).await.unwrap();
        assert_eq!(stored.size, len as u64);
        assert_eq!(stored.hash, Some(*blake3::hash(&bytes).as_bytes()));
        assert_eq!((stored.copies, stored.wanted), (3, 3), "{len}");
        for node in 0..3 {
            assert!(get(grove.node(node), &key).await.unwrap() == bytes, "{len} bytes from node {node}");
            let info = grove.node(node).stat("default", &key, Consistency::Linearizable).await.unwrap();
            assert_eq!((info.size, info.hash, info.etag), (stored.size, stored.hash, stored.etag));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_exact() {
    let grove = Grove::of(2).await;
    let bytes = content(1, 2 * CHUNK + 100_000);
    put(grove.node(0), "a", &bytes).await.unwrap();
    let last = bytes.len() as u64 - 1;
    let edges = [0, 1, 65_535, 65_536, CHUNK as u64 - 1, CHUNK as u64, CHUNK as u64 + 1, last];
    for start in edges {
        for end in edges.into_iter().filter(|end| *end >= start) {
            let got = get_range(grove.node(1), "a", ByteRange::Inclusive(start, end)).await.unwrap();
            assert!(got == bytes[start as usize..=end as usize], "{start}-{end}");
        }
    }
    assert_eq!(get_range(grove.node(1), "a", ByteRange::Last(10)).await.unwrap(), &bytes[bytes.len() - 10..]);
    let beyond = get_range(grove.node(1), "a", ByteRange::From(last + 1)).await;
    assert!(matches!(beyond, Err(Error::Range { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_content_is_stored_once() {
    let grove = Grove::of(1).await;
    let bytes = content(1, CHUNK + 5);
    put(grove.node(0), "a", &bytes).await.unwrap();
    let before = grove.chunk_files(0).len();
    put(grove.node(0), "b", &bytes).await.unwrap();
    assert_eq!((before, grove.chunk_files(0).len()), (2, 2));
    for file in grove.chunk_files(0) {
        let on_disk = std::fs::read(file).unwrap();
        assert!(!bytes.windows(16).any(|window| on_disk[..16] == *window), "what is on disk is sealed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_kept_and_bounded() {
    let grove = Grove::of(1).await;
    let meta =
        UserMeta { content_type: Some("text/plain".into()), entries: vec![("who".into(), "me".into())] };
    let options = PutOptions { meta: meta.clone(), ..PutOptions::default() };
    grove.node(0).put("default", "a", &b"x"[..], options).await.unwrap();
    let info = grove.node(0).stat("default", "a", Consistency::Linearizable).await.unwrap();
    assert_eq!(info.meta, meta);
    let entries = vec![("k".into(), "v".repeat(9000))];
    let options = PutOptions { meta: UserMeta { content_type: None, entries }, ..PutOptions::default() };
    let refused = grove.node(0).put("default", "a", &b"x"[..], options).await;
    assert!(matches!(refused, Err(Error::Record(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_is_gone_and_can_be_put_again() {
    let grove = Grove::of(3).await;
    put(grove.node(0), "a", b"one").await.unwrap();
    grove.node(1).remove("default", "a").await.unwrap();
    for node in 0..3 {
        assert!(matches!(get(grove.node(node), "a").await, Err(Error::NotFound { .. })));
    }
    assert!(matches!(grove.node(2).remove("default", "a").await, Err(Error::NotFound { .. })));
    put(grove.node(2), "a", b"two").await.unwrap();
    assert_eq!(get(grove.node(0), "a").await.unwrap(), b"two");
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_exist_by_being_created() {
    let grove = Grove::of(1).await;
    let node = grove.node(0);
    let into = |bucket: &'static str| node.put(bucket, "a", &b"x"[..], PutOptions::default());
    assert!(matches!(into("photos").await, Err(Error::NoSuchBucket(_))));
    node.create_bucket("photos").await.unwrap();
    assert!(matches!(node.create_bucket("photos").await, Err(Error::BucketExists(_))));
    into("photos").await.unwrap();
    assert!(matches!(node.remove_bucket("photos").await, Err(Error::BucketNotEmpty(_))));
    node.remove("photos", "a").await.unwrap();
    node.remove_bucket("photos").await.unwrap();
    let names: Vec<_> =
        node.list_buckets(Consistency::Linearizable).await.unwrap().into_iter().map(|b| b.name).collect();
    assert_eq!(names, ["default"]);
    assert!(matches!(into("NO").await, Err(Error::Name(_))));
}

fn only(condition: Condition) -> PutOptions {
    PutOptions { condition, ..PutOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_conditional_puts_one_wins() {
    let grove = Grove::of(3).await;
    for round in 0..30 {
        let key = format!("round-{round}");
        let put = |node: usize| grove.node(node).put("default", &key, &b"x"[..], only(Condition::Absent));
        let (a, b, c) = tokio::join!(put(0), put(1), put(2));
        let (won, lost): (Vec<_>, Vec<_>) = [a, b, c].into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1, "round {round}: {lost:?}");
        let etag = won[0].as_ref().unwrap().etag;
        for lost in lost {
            let Err(Error::Precondition { current }) = lost else { panic!("{lost:?}") };
            assert_eq!(current, Some(etag));
        }
        let put =
            |node: usize| grove.node(node).put("default", &key, &b"y"[..], only(Condition::Match(etag)));
        let (a, b, c) = tokio::join!(put(0), put(1), put(2));
        assert_eq!([&a, &b, &c].iter().filter(|put| put.is_ok()).count(), 1, "{a:?} {b:?} {c:?}");
    }
}

/// A source that fails, or ends, after some bytes.
struct Broken(usize);

impl AsyncRead for Broken {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0 == 0 {
            return Poll::Ready(Err(io::Error::other("the source broke")));
        }
        let len = self.0.min(buffer.remaining()).min(100_000);
        buffer.put_slice(&vec![7; len]);
        self.0 -= len;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_breaks_leaves_the_old_object() {
    let grove = Grove::of(3).await;
    let bytes = content(1, CHUNK + 1);
    put(grove.node(0), "a", &bytes).await.unwrap();
    for after in [10, 100_000, 3 * CHUNK] {
        let broken = grove.node(1).put("default", "a", Broken(after), PutOptions::default()).await;
        assert!(matches!(broken, Err(Error::Source(_))), "{broken:?}");
    }
    assert!(get(grove.node(2), "a").await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_all_puts_a_copy_on_every_node() {
    let grove = Grove::with(4, Some(Replicas::All), pando_node::DEFAULT_GRACE).await;
    let stored = put(grove.node(3), "a", &content(1, CHUNK)).await.unwrap();
    assert_eq!((stored.copies, stored.wanted), (4, 4));
    for node in 0..4 {
        assert_eq!(grove.chunk_files(node).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gets_that_pause_hold_nobody_up_and_go_on_with_what_they_began() {
    let grove = Grove::of(3).await;
    let bytes = content(7, 2 * CHUNK + 1000);
    put(grove.node(0), "a", &bytes).await.unwrap();
    // More than may be read at once.
    let mut paused = Vec::new();
    for taken in 0..40 {
        let mut object = grove.node(1).get("default", "a", None, Consistency::Linearizable).await.unwrap();
        let mut got = Vec::new();
        for _ in 0..taken {
            got.extend_from_slice(&object.next().await.unwrap().unwrap());
        }
        object.pause();
        paused.push((object, got));
    }
    put(grove.node(2), "a", b"something else").await.unwrap();
    for (mut object, mut got) in paused {
        while let Some(piece) = object.next().await {
            got.extend_from_slice(&piece.unwrap());
            // Some stop again and again, amid chunks and between them.
            if got.len().is_multiple_of(7 << 16) {
                object.pause();
            }
        }
        assert!(got == bytes);
    }
    assert_eq!(get(grove.node(1), "a").await.unwrap(), b"something else");
}
