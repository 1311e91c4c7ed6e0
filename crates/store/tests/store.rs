//! A store on a real folder, through its public face.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use bytes::Bytes;
use futures_util::future::join_all;
use pando_core::{
    id::{ChunkId, NodeId, WriteId},
    name::RegisterName,
    register::{Accepted, Ballot, LayoutVersion, State, Value},
    seal::SEALED_CHUNK,
};
use pando_store::{
    Accept, ChunkState, Error, Learn, MAX_BATCH, MAX_VALUE, NameRange, Options, Paged, Prepare, ReadReply,
    Released, Store,
};

const ME: NodeId = NodeId([7; 32]);
const ONE: WriteId = WriteId([1; 16]);
const TWO: WriteId = WriteId([2; 16]);
const V1: LayoutVersion = LayoutVersion(1);
const V2: LayoutVersion = LayoutVersion(2);

async fn open(dir: &Path) -> Store {
    Store::open(dir, Options { node: ME, capacity: None }).await.expect("a folder that opens")
}

fn name(key: &str) -> RegisterName {
    RegisterName::object("default", key).expect("a good name")
}

fn chunk(text: &str) -> (ChunkId, Bytes) {
    big_chunk(text, text.len())
}

/// `text` over and over, `len` bytes of it.
fn big_chunk(text: &str, len: usize) -> (ChunkId, Bytes) {
    let bytes: Bytes = text.bytes().cycle().take(len).collect();
    (ChunkId(*blake3::hash(&bytes).as_bytes()), bytes)
}

fn file_of(dir: &Path, id: &ChunkId) -> std::path::PathBuf {
    let hex = id.to_string();
    dir.join("chunks").join(&hex[..2]).join(&hex[2..4]).join(hex)
}

fn accepted(layout: LayoutVersion, counter: u64, bytes: &[u8]) -> Accepted {
    let value = Value::after(None, ONE, State::Present(Bytes::copy_from_slice(bytes)));
    Accepted { ballot: Ballot { layout, counter, session: 5 }, value }
}

#[tokio::test]
async fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("made/on/demand");
    let store = open(&data).await;
    assert_eq!(fs::metadata(data.join("chunks")).unwrap().permissions().mode() & 0o777, 0o700);
    let second = Store::open(&data, Options { node: ME, capacity: None }).await;
    assert!(matches!(&second, Err(Error::Locked { dir }) if *dir == data), "{second:?}");
    store.close().await.unwrap();
    assert!(matches!(store.has(chunk("a").0).await, Err(Error::Closed)));
    assert!(matches!(store.meta_put("a", None).await, Err(Error::Closed)));
    open(&data).await.close().await.unwrap();
}

#[tokio::test]
async fn a_chunk_is_written_read_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let (id, bytes) = big_chunk("pando ", SEALED_CHUNK);
    assert!(!store.has(id).await.unwrap());
    assert!(store.read_stream(id, 0, 9, Vec::new()).await.unwrap().is_none());
    store.write_stream(id, bytes.len() as u64, &bytes[..], ONE, name("a"), 10).await.unwrap();
    store.write_chunk(id, bytes.clone(), ONE, name("a"), 10).await.unwrap();
    assert_eq!((store.used_bytes(), store.chunk_count().await.unwrap()), (bytes.len() as u64, 1));
    assert!(file_of(dir.path(), &id).is_file());
    store.close().await.unwrap();

    fs::write(dir.path().join("tmp/left-over"), "x").unwrap();
    let store = open(dir.path()).await;
    assert!(!dir.path().join("tmp/left-over").exists());
    assert!(store.has(id).await.unwrap());
    assert_eq!(store.used_bytes(), bytes.len() as u64);
    let (reader, first) = store.read_stream(id, 7, 20, Vec::new()).await.unwrap().unwrap();
    assert_eq!((reader.len(), &first[..]), (bytes.len() as u64, &bytes[7..27]));
    let read = async |offset, len| reader.read_into(offset, len, vec![9; 3000]).await.unwrap();
    assert_eq!(read(1000, 500).await, bytes[1000..1500]);
    assert_eq!(read(reader.len() - 3, 500).await, bytes[bytes.len() - 3..]);
    assert!(read(reader.len() + 3, 500).await.is_empty());
    assert_eq!(store.read_verified(id).await.unwrap().unwrap(), bytes);

    store.delete(id).await.unwrap();
    assert!(!store.has(id).await.unwrap());
    assert!(!file_of(dir.path(), &id).exists());
    assert_eq!((store.used_bytes(), store.chunk_count().await.unwrap()), (0, 0));
    assert!(store.references(id).await.unwrap().is_empty());
    assert!(store.due(u64::MAX, 10).await.unwrap().is_empty(), "a version without chunks is forgotten");
    // Who opened it before still reads it.
    assert_eq!(reader.read_into(0, 5, Vec::new()).await.unwrap(), b"pando"[..]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn the_index_and_its_log_belong_together() {
    for missing in ["index.redb", "index.log"] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        store.meta_put("a", Some("1".into())).await.unwrap();
        store.close().await.unwrap();
        fs::rename(dir.path().join(missing), dir.path().join("aside")).unwrap();
        let refused = Store::open(dir.path(), Options { node: ME, capacity: None }).await.map(drop);
        assert!(matches!(&refused, Err(Error::Corrupt { .. })), "{missing}: {refused:?}");
        fs::rename(dir.path().join("aside"), dir.path().join(missing)).unwrap();
        let store = open(dir.path()).await;
        assert_eq!(store.meta_get("a").await.unwrap().unwrap(), "1");
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_not_the_chunk_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let (id, _) = chunk("a");
    let wrong = store.write_chunk(id, Bytes::from_static(b"b"), ONE, name("a"), 10).await;
    assert!(
        matches!(&wrong, Err(Error::Corrupt { expected, .. }) if *expected == id.to_string()),
        "{wrong:?}"
    );
    let short = store.write_stream(id, 5, &b"a"[..], ONE, name("a"), 10).await;
    assert!(matches!(short, Err(Error::Corrupt { .. })), "{short:?}");
    let empty = store.write_chunk(id, Bytes::new(), ONE, name("a"), 10).await;
    assert!(matches!(empty, Err(Error::Malformed { .. })), "{empty:?}");
    let huge = store.write_stream(id, SEALED_CHUNK as u64 + 1, &b"a"[..], ONE, name("a"), 10).await;
    assert!(matches!(huge, Err(Error::TooMany { .. })), "{huge:?}");
    let many = store.claim(ONE, name("a"), &vec![id; MAX_BATCH + 1], 10).await;
    assert!(matches!(many, Err(Error::TooMany { .. })), "{many:?}");
    assert!(!store.has(id).await.unwrap());
    assert_eq!(store.chunk_count().await.unwrap(), 0);
    // Only as many bytes are read as were announced.
    let mut body = &b"a and what follows"[..];
    store.write_stream(id, 1, &mut body, ONE, name("a"), 10).await.unwrap();
    assert_eq!(body, b" and what follows");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_flipped_byte_is_found_and_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let (id, bytes) = big_chunk("rot", 100_000);
    store.write_chunk(id, bytes.clone(), ONE, name("a"), 10).await.unwrap();
    assert_eq!(store.verify(id).await.unwrap(), ChunkState::Good);
    let mut rotten = bytes.to_vec();
    rotten[77_777] ^= 1;
    fs::write(file_of(dir.path(), &id), rotten).unwrap();
    assert_eq!(store.verify(id).await.unwrap(), ChunkState::Bad);
    assert!(matches!(store.read_verified(id).await, Err(Error::Corrupt { .. })));

    assert_eq!(store.quarantine(id).await.unwrap(), ChunkState::Bad);
    assert!(dir.path().join("quarantine").join(id.to_string()).is_file());
    assert!(!store.has(id).await.unwrap());
    assert_eq!(store.verify(id).await.unwrap(), ChunkState::Missing);
    assert_eq!(store.used_bytes(), 0);
    assert_eq!(store.references(id).await.unwrap(), [(ONE, name("a"))], "so it can be fetched again");
    assert_eq!(store.owed(Some(ME), None, 10).await.unwrap(), [(ME, id)]);
    assert_eq!(store.quarantine(id).await.unwrap(), ChunkState::Missing, "nothing is left to put aside");
    // A debt is not settled while the chunk is needed and not here, whatever someone believes to have seen.
    store.settle(&[(ME, id)]).await.unwrap();
    assert_eq!(store.owed_count().await.unwrap(), 1);

    store.write_chunk(id, bytes, ONE, name("a"), 10).await.unwrap();
    assert_eq!(store.verify(id).await.unwrap(), ChunkState::Good);
    assert_eq!(store.owed_count().await.unwrap(), 0, "it is here again");
    assert_eq!(store.quarantine(id).await.unwrap(), ChunkState::Good, "what is good stays");
    assert!(store.has(id).await.unwrap());
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_file_that_someone_removed_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let (id, bytes) = chunk("a");
    store.write_chunk(id, bytes, ONE, name("a"), 10).await.unwrap();
    fs::remove_file(file_of(dir.path(), &id)).unwrap();
    assert_eq!(store.verify(id).await.unwrap(), ChunkState::Missing);
    assert_eq!(store.quarantine(id).await.unwrap(), ChunkState::Missing);
    assert!(!store.has(id).await.unwrap());
    assert_eq!(store.owed(None, None, 10).await.unwrap(), [(ME, id)]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn quarantine_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for number in 0..70 {
        let (id, bytes) = chunk(&format!("chunk {number}"));
        store.write_chunk(id, bytes, ONE, name("a"), 10).await.unwrap();
        fs::write(file_of(dir.path(), &id), "rotten").unwrap();
        assert_eq!(store.quarantine(id).await.unwrap(), ChunkState::Bad);
    }
    assert_eq!(fs::read_dir(dir.path().join("quarantine")).unwrap().count(), 64);
    store.close().await.unwrap();
}

#[tokio::test]
async fn sixteen_at_once_store_one_chunk_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let (id, bytes) = big_chunk("zeros", 1 << 20);
    let writes = (0..16u8).map(|number| {
        let (store, bytes) = (store.clone(), bytes.clone());
        tokio::spawn(async move { store.write_chunk(id, bytes, WriteId([number; 16]), name("a"), 10).await })
    });
    for written in join_all(writes).await {
        written.unwrap().unwrap();
    }
    assert_eq!(store.verify(id).await.unwrap(), ChunkState::Good);
    assert_eq!((store.used_bytes(), store.chunk_count().await.unwrap()), (bytes.len() as u64, 1));
    assert_eq!(store.references(id).await.unwrap().len(), 16);
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_full_store_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options { node: ME, capacity: Some(150) }).await.unwrap();
    let (a, a_bytes) = big_chunk("a", 100);
    let (b, b_bytes) = big_chunk("b", 100);
    store.write_chunk(a, a_bytes, ONE, name("a"), 10).await.unwrap();
    let full = store.write_chunk(b, b_bytes.clone(), TWO, name("b"), 10).await;
    assert!(matches!(full, Err(Error::NoSpace { needed: 100, free: 50 })), "{full:?}");
    assert!(!store.has(b).await.unwrap());
    assert_eq!(store.claim(TWO, name("b"), &[a], 10).await.unwrap(), [true], "what is here needs no space");
    assert_eq!(store.release(ONE, u64::MAX).await.unwrap(), Some(Released::default()));
    assert_eq!(store.release(TWO, u64::MAX).await.unwrap(), Some(Released { chunks: 1, bytes: 100 }));
    store.write_chunk(b, b_bytes, TWO, name("b"), 10).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn versions_are_due_confirmed_rechecked_and_released() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let ((a, a_bytes), (b, b_bytes), (c, _)) = (chunk("a"), chunk("bb"), chunk("c"));
    store.write_chunk(a, a_bytes, ONE, name("one"), 100).await.unwrap();
    store.write_chunk(b, b_bytes, ONE, name("one"), 50).await.unwrap();
    assert_eq!(store.claim(TWO, name("two"), &[a, c, a], 70).await.unwrap(), [true, false, true]);
    assert!(store.due(69, 10).await.unwrap().is_empty());
    assert_eq!(store.due(70, 10).await.unwrap(), [(TWO, name("two"))]);
    assert_eq!(
        store.due(100, 10).await.unwrap(),
        [(TWO, name("two")), (ONE, name("one"))],
        "the later time holds"
    );
    assert_eq!(store.due(100, 1).await.unwrap().len(), 1);
    let other = store.claim(ONE, name("two"), &[a], 10).await;
    assert!(matches!(other, Err(Error::Malformed { .. })), "{other:?}");

    assert_eq!(store.hasten(100, 80).await.unwrap(), 0);
    assert_eq!(store.hasten(80, 90).await.unwrap(), 1);
    assert_eq!(store.due(80, 10).await.unwrap(), [(TWO, name("two")), (ONE, name("one"))]);

    store.confirm(ONE).await.unwrap();
    assert_eq!(store.due(u64::MAX, 10).await.unwrap(), [(TWO, name("two"))]);
    store.recheck(ONE, 30).await.unwrap();
    store.recheck(WriteId([9; 16]), 30).await.unwrap();
    for (due, found) in [(40, 30), (20, 20)] {
        store.recheck_by(ONE, due).await.unwrap();
        assert!(store.due(found - 1, 10).await.unwrap().is_empty(), "the earlier time holds");
        assert_eq!(store.due(found, 10).await.unwrap(), [(ONE, name("one"))]);
    }
    for (due, found) in [(10, 20), (30, 30)] {
        store.postpone(ONE, due).await.unwrap();
        assert!(store.due(found - 1, 10).await.unwrap().is_empty(), "the later time holds");
        assert_eq!(store.due(found, 10).await.unwrap(), [(ONE, name("one"))]);
    }
    store.close().await.unwrap();
    let store = open(dir.path()).await;
    assert_eq!(store.due(30, 10).await.unwrap(), [(ONE, name("one"))]);

    assert_eq!(store.release(ONE, u64::MAX).await.unwrap(), Some(Released { chunks: 1, bytes: 2 }));
    assert!(store.has(a).await.unwrap() && !store.has(b).await.unwrap());
    assert_eq!(store.references(a).await.unwrap(), [(TWO, name("two"))]);
    assert_eq!(store.release(ONE, u64::MAX).await.unwrap(), Some(Released::default()));
    assert_eq!(store.release(TWO, u64::MAX).await.unwrap(), Some(Released { chunks: 1, bytes: 1 }));
    assert!(store.due(u64::MAX, 10).await.unwrap().is_empty());
    assert_eq!((store.used_bytes(), store.chunk_count().await.unwrap()), (0, 0));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_version_of_many_chunks_is_released_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let chunks: Vec<_> = (0..100).map(|number| chunk(&format!("{number:03}"))).collect();
    let writes = chunks.iter().map(|(id, bytes)| store.write_chunk(*id, bytes.clone(), ONE, name("a"), 10));
    join_all(writes).await.into_iter().for_each(Result::unwrap);
    assert_eq!(store.release(ONE, u64::MAX).await.unwrap(), Some(Released { chunks: 100, bytes: 300 }));
    assert_eq!(store.chunk_count().await.unwrap(), 0);
    for (id, _) in &chunks {
        assert!(!file_of(dir.path(), id).exists());
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_register_is_prepared_accepted_learned_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    assert!(store.install_layout(V1, Bytes::from_static(b"one"), |_| Vec::new()).await.unwrap());
    let first = accepted(V1, 10, b"first");
    let empty = ReadReply::Value { accepted: None, height: 0 };
    assert_eq!(store.read(V1, name("a")).await.unwrap(), empty);
    assert_eq!(store.prepare(V1, name("a"), first.ballot).await.unwrap(), Prepare::Promised(None));
    assert_eq!(store.accept(V1, name("a"), first.clone()).await.unwrap(), Accept::Accepted);
    assert!(
        matches!(store.prepare(V1, name("a"), first.ballot).await.unwrap(), Prepare::Refused(r) if r.above == 10)
    );
    let low = store.accept(V1, name("a"), accepted(V1, 9, b"low")).await.unwrap();
    assert!(matches!(low, Accept::Refused(refusal) if refusal.above == 10), "{low:?}");
    let later = accepted(V1, 20, b"later");
    assert_eq!(store.learn(V1, name("a"), later.clone()).await.unwrap(), Learn::Learned);
    assert_eq!(store.learn(V1, name("a"), first).await.unwrap(), Learn::Learned, "it holds something later");
    let held = ReadReply::Value { accepted: Some(later.clone()), height: 20 };
    assert_eq!(store.read(V1, name("a")).await.unwrap(), held);
    store.close().await.unwrap();

    let store = open(dir.path()).await;
    assert_eq!(store.peek(name("a")).await.unwrap(), Some(later));
    let ReadReply::Value { height, .. } = store.read(V1, name("b")).await.unwrap() else { panic!() };
    assert!(height >= 20, "a restart remembers that it promised up to here: {height}");
    store.close().await.unwrap();
}

#[tokio::test]
async fn registers_are_checked_before_they_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let none = LayoutVersion(0);
    let huge = store.accept(none, name("a"), accepted(none, 1, &vec![0; MAX_VALUE + 1])).await;
    assert!(matches!(huge, Err(Error::TooMany { .. })), "{huge:?}");
    let mut empty = accepted(none, 1, b"");
    empty.value.recent.clear();
    let learned = store.learn(none, name("a"), empty).await;
    assert!(matches!(learned, Err(Error::Malformed { .. })), "{learned:?}");
    let foreign = store.prepare(none, name("a"), accepted(V1, 1, b"").ballot).await;
    assert!(matches!(foreign, Err(Error::Malformed { .. })), "{foreign:?}");
    assert_eq!(
        store.accept(none, name("a"), accepted(none, 1, &vec![0; MAX_VALUE])).await.unwrap(),
        Accept::Accepted
    );
    store.close().await.unwrap();
}

#[tokio::test]
async fn another_layout_version_is_fenced_off() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    assert_eq!(store.layout().await.unwrap(), None);
    assert!(store.install_layout(V2, Bytes::from_static(b"two"), |_| Vec::new()).await.unwrap());
    assert!(!store.install_layout(V1, Bytes::from_static(b"one"), |_| Vec::new()).await.unwrap());
    assert!(!store.install_layout(V2, Bytes::from_static(b"other"), |_| Vec::new()).await.unwrap());
    let value = accepted(V1, 10, b"x");
    assert_eq!(store.prepare(V1, name("a"), value.ballot).await.unwrap(), Prepare::Fenced(V2));
    assert_eq!(store.accept(V1, name("a"), value.clone()).await.unwrap(), Accept::Fenced(V2));
    assert_eq!(store.learn(V1, name("a"), value.clone()).await.unwrap(), Learn::Fenced(V2));
    assert_eq!(store.read(V1, name("a")).await.unwrap(), ReadReply::Fenced(V2));
    assert_eq!(store.page(Some(V1), NameRange::default(), 9, 999).await.unwrap(), Paged::Fenced(V2));
    let (partition, bucket) = (name("a").partition(), name("a").bucket_number());
    assert_eq!(store.page_of_bucket(Some(V1), partition, bucket, None, 9).await.unwrap(), Paged::Fenced(V2));
    // What was chosen under an older layout may be learned under this one.
    assert_eq!(store.learn(V2, name("a"), value.clone()).await.unwrap(), Learn::Learned);
    let Paged::Page { entries, more: false } = store.page(None, NameRange::default(), 9, 999).await.unwrap()
    else {
        panic!("without a layout nothing is fenced off")
    };
    assert_eq!((&entries[0].name, entries[0].ballot, entries.len()), (&name("a"), value.ballot, 1));
    let why = entries[0].summary.as_ref().expect_err("x is no record");
    assert!(why.starts_with("object record has format 120"), "{why}");
    let page = Paged::Page { entries: vec![(name("a"), value.ballot)], more: false };
    assert_eq!(store.page_of_bucket(Some(V2), partition, bucket, None, 9).await.unwrap(), page);
    store.close().await.unwrap();
    let store = open(dir.path()).await;
    assert_eq!(store.layout().await.unwrap(), Some((V2, Bytes::from_static(b"two"))));
    store.close().await.unwrap();
}

#[tokio::test]
async fn settings_and_debts_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    store.meta_put("name", Some(Bytes::from_static(b"aspen"))).await.unwrap();
    store.meta_put("gone", Some(Bytes::new())).await.unwrap();
    store.meta_put("gone", None).await.unwrap();
    let long = store.meta_put(&"k".repeat(65), None).await;
    assert!(matches!(long, Err(Error::TooMany { .. })), "{long:?}");
    let (low, high) = (NodeId([1; 32]), NodeId([2; 32]));
    let ids: Vec<_> = (0..4u8).map(|number| ChunkId([number; 32])).collect();
    let all: Vec<_> = [low, high].iter().flat_map(|node| ids.iter().map(|id| (*node, *id))).collect();
    store.owe(&all).await.unwrap();
    store.owe(&all[..2]).await.unwrap();
    store.close().await.unwrap();

    let store = open(dir.path()).await;
    assert_eq!(store.meta_get("name").await.unwrap(), Some(Bytes::from_static(b"aspen")));
    assert_eq!(store.meta_get("gone").await.unwrap(), None);
    assert_eq!(store.owed_count().await.unwrap(), 8);
    assert_eq!(store.owed(None, None, 100).await.unwrap(), all);
    assert_eq!(store.owed(None, Some(all[2]), 3).await.unwrap(), all[3..6]);
    assert_eq!(store.owed(Some(high), None, 100).await.unwrap(), all[4..]);
    assert_eq!(store.owed(Some(low), Some(all[1]), 100).await.unwrap(), all[2..4]);
    assert!(store.owed(Some(low), Some(all[5]), 100).await.unwrap().is_empty());
    assert_eq!(store.owed(Some(high), Some(all[1]), 100).await.unwrap(), all[4..]);
    store.settle(&all[1..]).await.unwrap();
    assert_eq!(store.owed(None, None, 100).await.unwrap(), all[..1]);
    store.close().await.unwrap();
}
