//! Chunks: the power goes at every step, of the index and of the files; what was acknowledged holds, and
//! index and files agree afterwards.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use pando_core::id::{ChunkId, WriteId};

use super::{CrashDisk, ME, chunk, crash_disk::Cut, name, open_on};
use crate::{
    ChunkState, Error, Store,
    folder::{Probe, Step},
    path::ChunkPath,
};

const ONE: WriteId = WriteId([1; 16]);
const TWO: WriteId = WriteId([2; 16]);

/// What was acknowledged of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Stored, for these versions at least.
    Held(&'static [WriteId]),
    /// An operation that takes it away was asked for and not answered, or answered.
    Unsure,
    /// As that, and its file was damaged before.
    Damaged,
}

/// Stores, claims, releases, quarantines and deletes, until the power goes.
async fn work(dir: &Path, store: &Store, known: &Mutex<Vec<(ChunkId, Known)>>) -> Result<(), Error> {
    let say = |id: ChunkId, state: Known| {
        let mut known = known.lock().unwrap();
        known.retain(|(other, _)| *other != id);
        known.push((id, state));
    };
    let ((a, a_bytes), (b, b_bytes), (c, c_bytes)) = (chunk("a"), chunk("b"), chunk("c"));
    store.write_chunk(a, a_bytes.clone(), ONE, name("one"), 10).await?;
    say(a, Known::Held(&[ONE]));
    // One after the other: were both under way at once, it would be chance which of them a crash meets.
    store.write_chunk(b, b_bytes, ONE, name("one"), 10).await?;
    say(b, Known::Held(&[ONE]));
    store.write_chunk(c, c_bytes.clone(), TWO, name("two"), 10).await?;
    say(c, Known::Held(&[TWO]));
    assert_eq!(store.claim(TWO, name("two"), &[a], 20).await?, [true]);
    say(a, Known::Held(&[ONE, TWO]));
    // `a` has another reference, `b` has none.
    say(a, Known::Held(&[TWO]));
    say(b, Known::Unsure);
    let released = store.release(ONE, u64::MAX).await?;
    assert_eq!(released.map(|released| released.chunks), Some(1));
    say(a, Known::Damaged);
    fs::write(ChunkPath::of(&a).file(&dir.join("chunks")), "rotten").unwrap();
    assert_eq!(store.quarantine(a).await?, ChunkState::Bad);
    store.write_chunk(a, a_bytes, TWO, name("two"), 30).await?;
    say(a, Known::Held(&[TWO]));
    say(c, Known::Unsure);
    store.delete(c).await?;
    store.write_chunk(c, c_bytes, TWO, name("two"), 30).await?;
    say(c, Known::Held(&[TWO]));
    Ok(())
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

async fn check(dir: &Path, store: &Store, known: &[(ChunkId, Known)]) {
    for (id, _) in known.iter().filter(|(_, state)| *state == Known::Damaged) {
        store.quarantine(*id).await.unwrap();
    }
    for (id, state) in known {
        let Known::Held(versions) = state else { continue };
        assert!(store.has(*id).await.unwrap(), "{id:?} was acknowledged");
        let references = store.references(*id).await.unwrap();
        for version in *versions {
            assert!(references.iter().any(|(found, _)| found == version), "{id:?} lost {version:?}");
        }
    }
    let mut held = 0;
    for text in ["a", "b", "c"] {
        let (id, bytes) = chunk(text);
        let state = store.verify(id).await.unwrap();
        if store.has(id).await.unwrap() {
            assert_eq!(state, ChunkState::Good, "a row means a file");
            assert!(!store.references(id).await.unwrap().is_empty(), "{text} would never be collected");
            held += bytes.len() as u64;
        } else {
            assert_eq!(state, ChunkState::Missing, "no row means no file");
            let owed = store.owed(Some(ME), None, 10).await.unwrap().contains(&(ME, id));
            let wanted = !store.references(id).await.unwrap().is_empty();
            assert_eq!(owed, wanted, "{text} is missing and referred to: it must be fetched");
        }
    }
    assert_eq!(store.used_bytes(), held);
    assert_eq!(files(&dir.join("chunks")).len() as u64, store.chunk_count().await.unwrap());
    assert!(files(&dir.join("tmp")).is_empty());
}

/// What a power cut may do to a chunk's file: undo the last step, if its folder was not synced since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Undo {
    Rename,
    Removal,
}

type Undos = Arc<Mutex<HashMap<ChunkId, Undo>>>;

/// Lets steps happen until the power goes, and remembers what is not synced.
fn probe(disk: &CrashDisk, undos: &Undos) -> Probe {
    let (disk, undos) = (disk.clone(), undos.clone());
    Arc::new(move |step, id| {
        disk.step()?;
        let mut undos = undos.lock().unwrap();
        match step {
            Step::Stage | Step::SyncFile => {}
            Step::Place => drop(undos.insert(*id, Undo::Rename)),
            Step::Unlink | Step::Quarantine => drop(undos.insert(*id, Undo::Removal)),
            Step::SyncFolder => drop(undos.remove(id)),
        }
        Ok(())
    })
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[tokio::test]
async fn index_and_files_agree_after_a_crash_at_every_step() {
    let (mut crashes, mut undone) = (0, HashSet::new());
    for fuel in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let disk = CrashDisk::default();
        // The index is there: it is made aside, and shows up whole.
        open_on(dir.path(), &disk, None).unwrap().close().await.unwrap();
        disk.set_fuel(fuel);
        let undos = Undos::default();
        let known = Mutex::default();
        let mut outcome = Ok(());
        if let Ok(store) = open_on(dir.path(), &disk, Some(probe(&disk, &undos))) {
            outcome = work(dir.path(), &store, &known).await;
            let _ = store.close().await;
        }
        let known = known.into_inner().unwrap();
        let undos = undos.lock().unwrap().clone();
        for cut in Cut::ALL {
            for undo in [false, true] {
                let copied = tempfile::tempdir().unwrap();
                copy(dir.path(), copied.path());
                if undo {
                    undone.extend(undos.clone());
                    undos.iter().for_each(|(id, undo)| take_back(copied.path(), id, *undo));
                }
                let store = open_on(copied.path(), &disk.after(cut), None).unwrap();
                check(copied.path(), &store, &known).await;
                store.close().await.unwrap();
            }
        }
        if !disk.is_dead() {
            outcome.unwrap();
            assert!(undos.is_empty(), "something was never synced: {undos:?}");
            break;
        }
        crashes += 1;
    }
    assert!(crashes > 25, "only {crashes} crashes: the loop tests less than it says");
    for text in ["a", "b", "c"] {
        for undo in [Undo::Rename, Undo::Removal] {
            assert!(undone.contains(&(chunk(text).0, undo)), "no {undo:?} of {text} was undone");
        }
    }
}

fn take_back(dir: &Path, id: &ChunkId, undo: Undo) {
    let path = ChunkPath::of(id).file(&dir.join("chunks"));
    match undo {
        Undo::Rename => fs::remove_file(path).unwrap(),
        Undo::Removal => {
            let text = ["a", "b", "c"].into_iter().find(|text| chunk(text).0 == *id).unwrap();
            fs::write(path, text).unwrap();
        }
    }
}

#[tokio::test]
async fn a_step_that_fails_fails_that_chunk_only() {
    for broken in [Step::Stage, Step::SyncFile, Step::Place, Step::SyncFolder] {
        let dir = tempfile::tempdir().unwrap();
        let disk = CrashDisk::default();
        let failures = Arc::new(Mutex::new(1));
        let left = failures.clone();
        let probe: Probe = Arc::new(move |step, _| {
            let mut left = left.lock().unwrap();
            if step == broken && *left > 0 {
                *left -= 1;
                return Err(io::Error::other("the disk said no"));
            }
            Ok(())
        });
        let store = open_on(dir.path(), &disk, Some(probe)).unwrap();
        let (id, bytes) = chunk("a");
        let failed = store.write_chunk(id, bytes.clone(), ONE, name("one"), 10).await;
        assert!(matches!(failed, Err(Error::Io { .. })), "{broken:?}: {failed:?}");
        assert!(!store.has(id).await.unwrap(), "{broken:?}");
        assert_eq!(store.claim(TWO, name("two"), &[id], 10).await.unwrap(), [false], "{broken:?}");
        assert!(files(&dir.path().join("chunks")).is_empty(), "{broken:?}");
        assert!(files(&dir.path().join("tmp")).is_empty(), "{broken:?}");
        assert_eq!((store.used_bytes(), store.failed()), (0, None));
        let owed = store.owed(Some(ME), None, 10).await.unwrap().contains(&(ME, id));
        let is_needed = !store.references(id).await.unwrap().is_empty();
        assert_eq!(owed, is_needed, "{broken:?}: what is needed and missing must be fetched");
        store.write_chunk(id, bytes, ONE, name("one"), 10).await.unwrap();
        assert_eq!(store.verify(id).await.unwrap(), ChunkState::Good);
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_file_that_could_not_be_removed_goes_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let disk = CrashDisk::default();
    let probe: Probe = Arc::new(|step, _| match step {
        Step::Unlink => Err(io::Error::other("the disk said no")),
        _ => Ok(()),
    });
    let store = open_on(dir.path(), &disk, Some(probe)).unwrap();
    let (id, bytes) = chunk("a");
    store.write_chunk(id, bytes, ONE, name("one"), 10).await.unwrap();
    assert_eq!(store.release(ONE, u64::MAX).await.unwrap().unwrap().chunks, 1);
    assert!(!store.has(id).await.unwrap());
    assert_eq!(files(&dir.path().join("chunks")).len(), 1);
    store.close().await.unwrap();

    let store = open_on(dir.path(), &disk, None).unwrap();
    assert!(files(&dir.path().join("chunks")).is_empty());
    store.close().await.unwrap();
}
