//! Races, held open at the moment that matters.

use std::sync::{Arc, Mutex, mpsc};

use pando_core::id::WriteId;

use super::{CrashDisk, chunk, name, open_on};
use crate::{
    ChunkState,
    folder::{Probe, Step},
};

const ONE: WriteId = WriteId([1; 16]);
const TWO: WriteId = WriteId([2; 16]);

/// Stops whoever comes to `step` first: says so, then waits to be let go. Keeps a diary of all steps.
struct Gate {
    came: tokio::sync::mpsc::Receiver<()>,
    go: mpsc::Sender<()>,
    diary: Arc<Mutex<Vec<Step>>>,
}

fn gate(step: Step) -> (Gate, Probe) {
    let (say, came) = tokio::sync::mpsc::channel(1);
    let (go, wait) = mpsc::channel();
    let diary = Arc::new(Mutex::new(Vec::new()));
    let (wait, steps) = (Mutex::new(Some(wait)), diary.clone());
    let probe: Probe = Arc::new(move |found, _| {
        if found == step
            && let Some(wait) = wait.lock().unwrap().take()
        {
            say.blocking_send(()).unwrap();
            wait.recv().unwrap();
        }
        steps.lock().unwrap().push(found);
        Ok(())
    });
    (Gate { came, go, diary }, probe)
}

#[tokio::test]
async fn while_a_released_chunk_goes_it_is_not_held_and_a_write_waits() {
    let dir = tempfile::tempdir().unwrap();
    let (mut gate, probe) = gate(Step::Unlink);
    let store = open_on(dir.path(), &CrashDisk::default(), Some(probe)).unwrap();
    let (id, bytes) = chunk("a");
    store.write_chunk(id, bytes.clone(), ONE, name("one"), 10).await.unwrap();
    gate.diary.lock().unwrap().clear();

    let releasing = tokio::spawn({
        let store = store.clone();
        async move { store.release(ONE, u64::MAX).await }
    });
    gate.came.recv().await.unwrap();
    // The file is still there; its row is not.
    assert_eq!(store.claim(TWO, name("two"), &[id], 10).await.unwrap(), [false]);
    assert!(!store.has(id).await.unwrap());
    let writing = tokio::spawn({
        let store = store.clone();
        async move { store.write_chunk(id, bytes, TWO, name("two"), 10).await }
    });
    // The writer serves others meanwhile.
    store.meta_put("a", None).await.unwrap();
    gate.go.send(()).unwrap();
    assert_eq!(releasing.await.unwrap().unwrap().unwrap().chunks, 1);
    writing.await.unwrap().unwrap();

    let order = [Step::Unlink, Step::SyncFolder, Step::Stage, Step::SyncFile, Step::Place, Step::SyncFolder];
    assert_eq!(*gate.diary.lock().unwrap(), order);
    assert_eq!(store.verify(id).await.unwrap(), ChunkState::Good);
    assert_eq!(store.references(id).await.unwrap(), [(TWO, name("two"))]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_claim_that_comes_first_keeps_the_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_on(dir.path(), &CrashDisk::default(), None).unwrap();
    let (id, bytes) = chunk("a");
    store.write_chunk(id, bytes, ONE, name("one"), 10).await.unwrap();
    let ids = [id];
    let (held, released) =
        tokio::join!(store.claim(TWO, name("two"), &ids, 10), store.release(ONE, u64::MAX));
    assert_eq!(held.unwrap(), [true]);
    assert_eq!(released.unwrap().unwrap().chunks, 0);
    assert_eq!(store.verify(id).await.unwrap(), ChunkState::Good);
    assert_eq!(store.references(id).await.unwrap(), [(TWO, name("two"))]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_chunk_on_its_way_in_is_not_held_until_it_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let (mut gate, probe) = gate(Step::SyncFolder);
    let store = open_on(dir.path(), &CrashDisk::default(), Some(probe)).unwrap();
    let (id, bytes) = chunk("a");
    let writing = tokio::spawn({
        let (store, bytes) = (store.clone(), bytes.clone());
        async move { store.write_chunk(id, bytes, ONE, name("one"), 10).await }
    });
    gate.came.recv().await.unwrap();
    // Renamed, but a power cut could take that back.
    assert!(!store.has(id).await.unwrap());
    assert_eq!(store.claim(TWO, name("two"), &[id], 10).await.unwrap(), [false]);
    // A release and a close that come now wait until the chunk arrived.
    let releasing = tokio::spawn({
        let store = store.clone();
        async move { store.release(ONE, u64::MAX).await }
    });
    gate.go.send(()).unwrap();
    writing.await.unwrap().unwrap();
    assert_eq!(releasing.await.unwrap().unwrap().unwrap().bytes, bytes.len() as u64);
    assert_eq!(store.verify(id).await.unwrap(), ChunkState::Missing);
    assert_eq!(store.used_bytes(), 0);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_write_whose_caller_left_is_finished_and_closing_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk = CrashDisk::default();
    let (mut gate, probe) = gate(Step::Place);
    let store = open_on(dir.path(), &disk, Some(probe)).unwrap();
    let (id, bytes) = chunk("a");
    let mut writing = Box::pin(store.write_chunk(id, bytes, ONE, name("one"), 10));
    tokio::select! {
        biased;
        _ = &mut writing => panic!("it is held at the gate"),
        came = gate.came.recv() => came.unwrap(),
    }
    drop(writing);
    let closing = tokio::spawn({
        let store = store.clone();
        async move { store.close().await }
    });
    gate.go.send(()).unwrap();
    closing.await.unwrap().unwrap();
    assert!(matches!(store.has(id).await, Err(crate::Error::Closed)));

    let store = open_on(dir.path(), &disk, None).unwrap();
    assert_eq!(store.verify(id).await.unwrap(), ChunkState::Good);
    assert!(store.has(id).await.unwrap());
    store.close().await.unwrap();
}
