//! Chunks that no object needs any more are freed; those that one needs are not.

use std::time::Duration;

use pando_node::PutOptions;
use tokio::io::AsyncWriteExt as _;

use crate::grove::{Grove, content, eventually, get, put};

const CHUNK: usize = 4 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_upload_leaves_nothing_behind() {
    let grove = Grove::with(3, None, Duration::from_secs(2)).await;
    let kept = content(1, CHUNK);
    put(grove.node(0), "kept", &kept).await.unwrap();
    // The client dies after three chunks: the reader fails, as the control socket's does.
    let (mut writer, reader) = tokio::io::duplex(1 << 20);
    let node = grove.node(0).clone();
    let putting =
        tokio::spawn(async move { node.put("default", "kept", reader, PutOptions::default()).await });
    writer.write_all(&content(2, 6 * CHUNK)).await.unwrap();
    eventually("chunks of the upload are there", || async { grove.chunk_files(1).len() > 1 }).await;
    putting.abort();
    assert!(putting.await.unwrap_err().is_cancelled());
    for node in 0..3 {
        eventually("the strays are gone", || async { grove.chunk_files(node).len() == 1 }).await;
    }
    assert!(get(grove.node(2), "kept").await.unwrap() == kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_and_replaced_content_is_freed_but_not_what_is_shared() {
    let grove = Grove::with(3, None, Duration::from_secs(1)).await;
    let shared = content(1, CHUNK);
    let own = content(2, CHUNK);
    put(grove.node(0), "a", &[shared.clone(), own].concat()).await.unwrap();
    put(grove.node(0), "b", &shared).await.unwrap();
    put(grove.node(0), "c", &content(3, CHUNK)).await.unwrap();
    assert_eq!(grove.chunk_files(0).len(), 3);
    grove.node(1).remove("default", "a").await.unwrap();
    put(grove.node(1), "c", b"small now").await.unwrap();
    for node in 0..3 {
        eventually("only what is needed is left", || async { grove.chunk_files(node).len() == 1 }).await;
    }
    assert!(get(grove.node(2), "b").await.unwrap() == shared);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_may_take_longer_than_the_grace_time() {
    let grove = Grove::with(3, None, Duration::from_secs(2)).await;
    let slow = content(1, 2 * CHUNK + 5);
    let (mut writer, reader) = tokio::io::duplex(1 << 20);
    let node = grove.node(0).clone();
    let putting =
        tokio::spawn(async move { node.put("default", "slow", reader, PutOptions::default()).await });
    writer.write_all(&slow[..2 * CHUNK]).await.unwrap();
    eventually("its chunks are there", || async { grove.chunk_files(1).len() == 2 }).await;
    // Each round takes a grace time: what is removed is freed, what is on its way stays.
    for round in 2..5 {
        put(grove.node(1), "quick", &content(round, CHUNK)).await.unwrap();
        grove.node(1).remove("default", "quick").await.unwrap();
        for node in 0..3 {
            eventually("what was removed is gone", || async { grove.chunk_files(node).len() <= 2 }).await;
            assert_eq!(grove.chunk_files(node).len(), 2);
        }
    }
    writer.write_all(&slow[2 * CHUNK..]).await.unwrap();
    drop(writer);
    putting.await.unwrap().unwrap();
    assert!(get(grove.node(2), "slow").await.unwrap() == slow);
}
