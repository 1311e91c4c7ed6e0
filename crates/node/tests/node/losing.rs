//! Nodes that go away and come back.

use std::time::Duration;

use pando_node::{Consistency, Error, PutOptions};

use crate::grove::{Grove, content, eventually, get, put, read_all};

const CHUNK: usize = 4 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn with_one_of_three_gone_everything_goes_on_and_it_catches_up() {
    let mut grove = Grove::of(3).await;
    let before = content(1, 2 * CHUNK);
    put(grove.node(0), "before", &before).await.unwrap();
    grove.stop(1).await;
    assert!(get(grove.node(2), "before").await.unwrap() == before);
    let meanwhile = content(2, 3 * CHUNK + 1);
    let stored = put(grove.node(0), "meanwhile", &meanwhile).await.unwrap();
    assert_eq!((stored.copies, stored.wanted), (2, 3));
    put(grove.node(2), "small", b"written while it was away").await.unwrap();
    grove.node(2).remove("default", "before").await.unwrap();

    // It comes back at another port, and is brought the chunks that it missed.
    grove.restart(1).await;
    grove.settled().await;
    let chunks = grove.chunk_files(0).len();
    eventually("the node is brought what it missed", || async { grove.chunk_files(1).len() == chunks }).await;
    assert!(get(grove.node(1), "meanwhile").await.unwrap() == meanwhile);
    assert_eq!(get(grove.node(1), "small").await.unwrap(), b"written while it was away");
    assert!(matches!(get(grove.node(1), "before").await, Err(Error::NotFound { .. })));

    // What was read is now here, without asking anyone.
    eventually("a key that was read is caught up", || async {
        let stale = grove.node(1).get("default", "small", None, Consistency::Stale).await;
        stale.is_ok()
    })
    .await;
    grove.stop(0).await;
    grove.stop(2).await;
    let stale = grove.node(1).get("default", "meanwhile", None, Consistency::Stale).await.unwrap();
    assert!(read_all(stale).await.unwrap() == meanwhile);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_two_of_three_gone_it_says_so_and_recovers() {
    let mut grove = Grove::of(3).await;
    put(grove.node(0), "a", b"old").await.unwrap();
    grove.stop(1).await;
    grove.stop(2).await;
    let read = get(grove.node(0), "a").await.unwrap_err();
    assert!(matches!(read, Error::NotEnoughNodes { .. }), "{read:?}");
    let write = put(grove.node(0), "a", b"new").await.unwrap_err();
    assert!(matches!(write, Error::NotEnoughNodes { .. }), "{write:?}");
    grove.restart(2).await;
    eventually("reads work again", || async { get(grove.node(0), "a").await.is_ok() }).await;
    put(grove.node(2), "a", b"new").await.unwrap();
    assert_eq!(get(grove.node(0), "a").await.unwrap(), b"new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_all_forgets_nothing() {
    let mut grove = Grove::of(3).await;
    let bytes = content(3, CHUNK + 9);
    put(grove.node(0), "a", &bytes).await.unwrap();
    for node in 0..3 {
        grove.stop(node).await;
    }
    // They come up one after the other, each at another port: those that are up tell where they are.
    for node in 0..3 {
        let mut config = grove.config(node);
        config.listen = None;
        grove.nodes[node] = Some(pando_node::Node::start(config).await.unwrap());
    }
    grove.settled().await;
    assert!(get(grove.node(2), "a").await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_lost_in_mid_get_is_not_noticed() {
    let mut grove = Grove::of(4).await;
    let bytes = content(4, 12 * CHUNK);
    put(grove.node(0), "a", &bytes).await.unwrap();
    let mut object = grove.node(3).get("default", "a", None, Consistency::Linearizable).await.unwrap();
    let mut got = Vec::new();
    while let Some(piece) = object.next().await {
        got.extend_from_slice(&piece.unwrap());
        if got.len() == 3 << 20 {
            grove.stop(1).await;
        }
    }
    assert!(got == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_lost_in_mid_put_is_not_noticed() {
    let mut grove = Grove::of(3).await;
    let bytes = content(5, 10 * CHUNK);
    let (mut writer, reader) = tokio::io::duplex(1 << 20);
    let node = grove.node(0).clone();
    let putting = tokio::spawn(async move { node.put("default", "a", reader, PutOptions::default()).await });
    let halves = bytes.split_at(5 * CHUNK);
    tokio::io::AsyncWriteExt::write_all(&mut writer, halves.0).await.unwrap();
    grove.stop(2).await;
    tokio::io::AsyncWriteExt::write_all(&mut writer, halves.1).await.unwrap();
    drop(writer);
    let stored = tokio::time::timeout(Duration::from_secs(60), putting).await.unwrap().unwrap().unwrap();
    assert_eq!(stored.copies, 2);
    assert!(get(grove.node(1), "a").await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_know_of_a_death_and_of_a_return_in_seconds() {
    let mut grove = Grove::of(5).await;
    put(grove.node(0), "a", &content(6, 2 * CHUNK)).await.unwrap();
    let gone = grove.node(2).id();
    grove.stop(2).await;
    let since = tokio::time::Instant::now();
    let all_see = async |grove: &Grove, up: bool| {
        for node in grove.nodes.iter().flatten().filter(|node| node.id() != gone) {
            let status = node.status().await.unwrap();
            if status
                .nodes
                .iter()
                .any(|node| (node.id == gone && node.up != up) || (node.id != gone && !node.up))
            {
                return false;
            }
        }
        true
    };
    eventually("it is down", || all_see(&grove, false)).await;
    // Six seconds if nothing but pings finds out; a loaded machine takes longer.
    assert!(since.elapsed() < Duration::from_secs(20), "it took {:?}", since.elapsed());
    grove.restart(2).await;
    eventually("it is up", || all_see(&grove, true)).await;
    // What each one holds has spread to all.
    eventually("figures spread", || async {
        let mut used = Vec::new();
        for node in grove.nodes.iter().flatten() {
            used.push(
                node.status().await.unwrap().nodes.into_iter().map(|n| (n.id, n.used)).collect::<Vec<_>>(),
            );
        }
        used.iter().all(|seen| *seen == used[0]) && used[0].iter().any(|(_, used)| *used > Some(0))
    })
    .await;
}
