//! Bytes that rot.

use std::{fs, path::Path};

use pando_node::{ByteRange, Consistency, Error};

use crate::grove::{Grove, content, eventually, files_below, get, get_range, put};

const CHUNK: usize = 4 << 20;

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = at % bytes.len();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn is_whole(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_str().unwrap();
    fs::read(path).is_ok_and(|bytes| blake3::hash(&bytes).to_hex().as_str() == name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_copy_is_put_aside_and_replaced() {
    let grove = Grove::of(3).await;
    let bytes = content(1, 3 * CHUNK);
    put(grove.node(0), "a", &bytes).await.unwrap();
    for (number, at) in [(0, 0), (1, 70_000), (2, CHUNK - 1)] {
        for file in grove.chunk_files(number) {
            flip(&file, at);
            assert!(!is_whole(&file));
            assert!(get(grove.node(number), "a").await.unwrap() == bytes, "the get is right");
            eventually("the copy is replaced", || async { is_whole(&file) }).await;
        }
        assert_eq!(files_below(&grove.data(number).join("quarantine")).len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_copy_on_a_peer_is_replaced_too() {
    let grove = Grove::of(4).await;
    let bytes = content(2, CHUNK);
    put(grove.node(0), "a", &bytes).await.unwrap();
    let holders: Vec<usize> = (0..4).filter(|node| !grove.chunk_files(*node).is_empty()).collect();
    let reader = (0..4).find(|node| !holders.contains(node)).expect("three of four hold it");
    let damaged: Vec<_> = holders[..2].iter().map(|holder| grove.chunk_files(*holder)[0].clone()).collect();
    for file in &damaged {
        flip(file, 100_000);
    }
    assert!(get(grove.node(reader), "a").await.unwrap() == bytes);
    // Whoever was asked and was wrong has been told; ask until both were.
    for holder in &holders[..2] {
        assert!(get(grove.node(*holder), "a").await.unwrap() == bytes);
    }
    for file in damaged {
        eventually("the copy is replaced", || async { is_whole(&file) }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_all_copies_damaged_not_one_wrong_byte_is_delivered() {
    let grove = Grove::of(3).await;
    let bytes = content(3, 2 * CHUNK);
    put(grove.node(0), "a", &bytes).await.unwrap();
    // The same segment of the same chunk, on every node. Which of the two it is differs from run to run.
    let damaged = {
        let mut files = grove.chunk_files(0);
        files.sort();
        files[0].file_name().unwrap().to_owned()
    };
    for node in 0..3 {
        let file =
            grove.chunk_files(node).into_iter().find(|file| file.file_name() == Some(&damaged)).unwrap();
        flip(&file, 10 * 65_552 + 5);
    }
    let mut object = grove.node(1).get("default", "a", None, Consistency::Linearizable).await.unwrap();
    let mut got = Vec::new();
    let error = loop {
        match object.next().await.expect("it ends with an error") {
            Ok(piece) => got.extend_from_slice(&piece),
            Err(error) => break error,
        }
    };
    assert!(bytes.starts_with(&got), "what came before the error is right");
    let Error::ChunkUnavailable { chunk, .. } = &error else { panic!("{error:?}") };
    assert_eq!(chunk.to_string().as_str(), damaged.to_str().unwrap());
    assert!(error.to_string().contains(damaged.to_str().unwrap()), "{error}");
    assert!(object.next().await.is_none(), "after an error nothing follows");
    // The other chunk can still be had.
    let (start, end) = if got.len() < CHUNK { (CHUNK, 2 * CHUNK - 1) } else { (0, CHUNK - 1) };
    let range = ByteRange::Inclusive(start as u64, end as u64);
    assert!(get_range(grove.node(2), "a", range).await.unwrap() == bytes[start..=end]);
}
