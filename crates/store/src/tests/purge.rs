//! Forgetting: purges, void partitions, evictions, and the derived tables that must follow, with the power going
//! at every sync.

use std::collections::BTreeMap;

use bytes::Bytes;
use pando_core::{
    fingerprint::{Fingerprint, Item},
    id::{ChunkId, NodeId, Partition, WriteId},
    name::RegisterName,
    register::{Accepted, LayoutVersion, State, Value},
};
use proptest::prelude::*;
use redb::{Builder, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::{CrashDisk, ME, NO_LAYOUT, accepted, ballot, chunk, crash_disk::Cut, name, open_on};
use crate::{
    Accept, Error, Learn, Paged, Prepare, Purge, ReadReply, Store,
    group::Group,
    index::{self, BY_PARTITION, LISTED, META, OWED, PRINTS, PURGED, REFS, REGISTERS, TOMBS, VOID},
    listed,
    purge::clear,
    registers::fence,
    rows,
};

const V1: LayoutVersion = LayoutVersion(1);

fn tombstone(counter: u64) -> Accepted {
    Accepted {
        ballot: ballot(counter),
        value: Value::after(None, WriteId([counter as u8; 16]), State::Absent),
    }
}

type Prints = BTreeMap<Partition, (Fingerprint, Fingerprint)>;

/// The fingerprints that the rows should have.
async fn recomputed(store: &Store) -> Prints {
    let look = |_: &crate::shared::Shared, txn: &redb::ReadTransaction| {
        let mut prints = Prints::new();
        for row in txn.open_table(REGISTERS)?.iter()? {
            let (key, row) = row?;
            let name = rows::decode_name(key.value())?;
            if name.layout_version().is_none() {
                let held = rows::decode_accepted(key.value(), row.value())?;
                prints.entry(name.partition()).or_default().0.add(Item::register(&name, held.ballot));
            }
        }
        for row in txn.open_table(REFS)?.iter()? {
            let key = row?.0;
            let (chunk, version) = (ChunkId(*key.value().0), WriteId(*key.value().1));
            prints.entry(Partition::of_chunk(&chunk)).or_default().1.add(Item::reference(&chunk, &version));
        }
        Ok(prints)
    };
    store.look(look).await.unwrap()
}

async fn check_prints(store: &Store) {
    let Paged::Page { entries, .. } = store.fingerprints(None).await.unwrap() else { panic!("not fenced") };
    let kept: Prints = entries.into_iter().map(|(partition, a, b)| (partition, (a, b))).collect();
    assert_eq!(kept, recomputed(store).await);
    let tombs = store.tombs(u64::MAX, None, 4096).await.unwrap();
    for (name, ballot) in &tombs {
        let held = store.peek(name.clone()).await.unwrap().expect("a tombstone's row");
        assert_eq!((held.ballot, held.value.state), (*ballot, State::Absent));
    }
    let listed = |_: &crate::shared::Shared, txn: &redb::ReadTransaction| {
        let (mut kept, mut wanted) = (BTreeMap::new(), BTreeMap::new());
        for row in txn.open_table(LISTED)?.iter()? {
            let (key, row) = row?;
            kept.insert(key.value().to_vec(), row.value().to_vec());
        }
        for row in txn.open_table(REGISTERS)?.iter()? {
            let (key, row) = row?;
            let name = rows::decode_name(key.value())?;
            if name.layout_version().is_none() {
                let held = rows::decode_accepted(key.value(), row.value())?;
                wanted.insert(key.value().to_vec(), listed::encode(&name, &held));
            }
        }
        Ok((kept, wanted))
    };
    let (kept, wanted) = store.look(listed).await.unwrap();
    assert_eq!(kept, wanted);
    let owed = store.owed(None, None, 4096).await.unwrap().len() as u64;
    assert_eq!(store.owed_counts().await.unwrap().iter().map(|(_, count)| count).sum::<u64>(), owed);
}

#[tokio::test]
async fn a_purged_tombstone_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_on(dir.path(), &CrashDisk::default(), None).unwrap();
    let a = name("a");
    assert_eq!(store.accept(NO_LAYOUT, a.clone(), accepted(5, "x")).await.unwrap(), Accept::Accepted);
    assert_eq!(store.purge(NO_LAYOUT, a.clone(), ballot(5)).await.unwrap(), Purge::Differs, "it lives");
    store.accept(NO_LAYOUT, a.clone(), tombstone(7)).await.unwrap();
    assert_eq!(store.tombs(8, None, 9).await.unwrap(), [(a.clone(), ballot(7))]);
    assert!(store.tombs(7, None, 9).await.unwrap().is_empty());
    assert_eq!(store.purge(NO_LAYOUT, a.clone(), ballot(6)).await.unwrap(), Purge::Differs);
    assert_eq!(store.purge(V1, a.clone(), ballot(7)).await.unwrap(), Purge::Fenced(NO_LAYOUT));
    for _ in 0..2 {
        assert_eq!(store.purge(NO_LAYOUT, a.clone(), ballot(7)).await.unwrap(), Purge::Purged);
    }
    assert_eq!(store.peek(a.clone()).await.unwrap(), None);
    assert_eq!(store.purge_floor(a.partition()).await.unwrap(), Some(ballot(7)));
    let late = store.learn(NO_LAYOUT, a.clone(), accepted(5, "x")).await.unwrap();
    assert!(matches!(late, Learn::Refused(refusal) if refusal.above >= 7), "{late:?}");
    assert!(matches!(
        store.accept(NO_LAYOUT, a.clone(), accepted(7, "x")).await.unwrap(),
        Accept::Refused(_)
    ));
    assert!(matches!(store.prepare(NO_LAYOUT, a.clone(), ballot(6)).await.unwrap(), Prepare::Refused(_)));
    let read = store.read(NO_LAYOUT, a.clone()).await.unwrap();
    assert!(matches!(read, ReadReply::Value { accepted: None, height } if height >= 7), "{read:?}");
    assert_eq!(store.accept(NO_LAYOUT, a, accepted(8, "new")).await.unwrap(), Accept::Accepted);
    check_prints(&store).await;
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_a_layout_takes_away_is_gone_when_it_is_installed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_on(dir.path(), &CrashDisk::default(), None).unwrap();
    let names: Vec<RegisterName> = (0..40).map(|key| name(&key.to_string())).collect();
    for name in &names {
        store.accept(NO_LAYOUT, name.clone(), accepted(1, "x")).await.unwrap();
    }
    let layout = RegisterName::layout(V1);
    store.accept(NO_LAYOUT, layout.clone(), accepted(1, "layout")).await.unwrap();
    let kept = names[0].partition();
    let void = move |known| {
        assert_eq!(known, NO_LAYOUT);
        Partition::all().filter(|partition| *partition != kept).collect()
    };
    assert!(store.install_layout(V1, Bytes::from_static(b"one"), void).await.unwrap());
    for name in &names {
        let held = store.peek(name.clone()).await.unwrap();
        assert_eq!(held.is_some(), name.partition() == kept, "{name}");
    }
    assert!(store.peek(layout).await.unwrap().is_some(), "a layout's register belongs to no partition");
    assert!(store.prepare(V1, names[1].clone(), ballot(9)).await.is_err(), "a ballot of another layout");
    check_prints(&store).await;
    store.close().await.unwrap();
}

/// What is told rests on one snapshot: not on whether the partition is void by now.
#[tokio::test]
async fn a_void_partition_is_silent_until_a_snapshot_shows_that_it_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_on(dir.path(), &CrashDisk::default(), None).unwrap();
    let partition = name("a").partition();
    let ask = move |txn: &redb::ReadTransaction| fence(txn, NO_LAYOUT, Some(partition));
    store.accept(NO_LAYOUT, name("a"), accepted(1, "x")).await.unwrap();
    store.submit(1, move |group| group.set_void(partition, true)).await.unwrap();
    let before = store.shared.snapshot().unwrap();
    assert!(matches!(ask(&before), Err(Error::Settling)));
    assert!(matches!(store.read(NO_LAYOUT, name("a")).await, Err(Error::Settling)));
    assert!(matches!(store.prepare(NO_LAYOUT, name("a"), ballot(2)).await, Err(Error::Settling)));
    let in_one_group = move |group: &mut Group<'_>| {
        while clear(group)? {}
        let uncommitted = group.shared.snapshot()?;
        assert!(matches!(ask(&uncommitted), Err(Error::Settling)));
        Ok(())
    };
    store.submit(1, in_one_group).await.unwrap();
    assert!(matches!(ask(&before), Err(Error::Settling)), "it still shows the old rows");
    assert!(matches!(ask(&store.shared.snapshot().unwrap()), Ok(None)));
    let read = store.read(NO_LAYOUT, name("a")).await.unwrap();
    assert!(matches!(read, ReadReply::Value { accepted: None, .. }), "{read:?}");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_chunk_is_dropped_only_if_all_that_need_it_are_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_on(dir.path(), &CrashDisk::default(), None).unwrap();
    let (id, bytes) = chunk("content");
    let versions = [WriteId([1; 16]), WriteId([2; 16])];
    for version in versions {
        store.write_chunk(id, bytes.clone(), version, name("a"), 0).await.unwrap();
    }
    check_prints(&store).await;
    assert!(!store.evict(id, &versions[..1]).await.unwrap());
    assert!(store.has(id).await.unwrap());
    check_prints(&store).await;
    assert_eq!(
        store.version_names(&versions).await.unwrap(),
        [None, Some(name("a"))],
        "what was confirmed went"
    );
    let (page, more) =
        store.references_page(Partition::of_chunk(&id), id.bucket_number(), None, 9).await.unwrap();
    assert_eq!((page.len(), page[0].version, page[0].len, more), (1, versions[1], 7, false));
    let asked = [(id, versions[1]), (id, WriteId([9; 16]))];
    assert_eq!(store.lacking(&asked).await.unwrap(), [false, true]);
    assert_eq!(store.chunks_page(Some(Partition::of_chunk(&id)), None, 9).await.unwrap(), [(id, 7)]);
    assert!(store.evict(id, &versions).await.unwrap());
    assert!(!store.has(id).await.unwrap() && store.used_bytes() == 0);
    assert_eq!(store.version_names(&versions).await.unwrap(), [None, None]);
    assert!(!store.evict(id, &versions).await.unwrap(), "it is gone");
    check_prints(&store).await;
    store.close().await.unwrap();
}

/// Accepts, deletes, purges, and takes half of the partitions away; says how far it came.
async fn work(store: &Store, done: &mut Vec<&'static str>) -> Result<(), Error> {
    for key in 0..6u64 {
        let name = name(&key.to_string());
        store.accept(NO_LAYOUT, name.clone(), accepted(10 + key, "x")).await?;
        if key % 2 == 0 {
            store.accept(NO_LAYOUT, name, tombstone(20 + key)).await?;
        }
    }
    done.push("written");
    assert_eq!(store.purge(NO_LAYOUT, name("0"), ballot(20)).await?, Purge::Purged);
    done.push("purged");
    store.owe(&[(ME, ChunkId([1; 32])), (NodeId([1; 32]), ChunkId([1; 32]))]).await?;
    store.settle(&[(ME, ChunkId([1; 32]))]).await?;
    let taken = name("3").partition();
    let void = move |_| vec![taken];
    assert!(store.install_layout(V1, Bytes::from_static(b"one"), void).await?);
    done.push("installed");
    Ok(())
}

#[tokio::test]
async fn a_crash_at_any_sync_leaves_before_or_after() {
    let mut crashes = 0;
    for fuel in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let disk = CrashDisk::default();
        open_on(dir.path(), &disk, None).unwrap().close().await.unwrap();
        disk.set_fuel(fuel);
        let mut done = Vec::new();
        if let Ok(store) = open_on(dir.path(), &disk, None) {
            let outcome = work(&store, &mut done).await;
            let _ = store.close().await;
            assert!(outcome.is_ok() || disk.is_dead());
        }
        for cut in Cut::ALL {
            after_crash(&open_on(dir.path(), &disk.after(cut), None).unwrap(), &done).await;
        }
        if !disk.is_dead() {
            break;
        }
        crashes += 1;
    }
    assert!(crashes > 8, "only {crashes} crashes: the loop tests less than it says");
}

async fn after_crash(store: &Store, done: &[&str]) {
    check_prints(store).await;
    if done.contains(&"written") {
        let floor = store.purge_floor(name("0").partition()).await.unwrap();
        let is_there = store.peek(name("0")).await.unwrap().is_some();
        assert!(is_there || floor == Some(ballot(20)), "gone, and nothing keeps it from coming back");
        assert!(!is_there || !done.contains(&"purged"));
    }
    let installed = store.layout().await.unwrap().is_some();
    assert!(installed || !done.contains(&"installed"));
    let void_is_there = store.peek(name("3")).await.unwrap().is_some();
    assert!(!(installed && void_is_there), "void, and still there");
    assert!(installed || void_is_there || !done.contains(&"written"), "taken away before its time");
    store.close().await.unwrap();
}

/// The index as format 1 had it: without what format 2 derives.
fn back_to_format_1(path: &std::path::Path) {
    const OLD: TableDefinition<'static, (u16, &[u8]), (u64, u64, u64)> = TableDefinition::new("by_partition");
    let database = Builder::new().open(path).unwrap();
    let txn = database.begin_write().unwrap();
    txn.delete_table(BY_PARTITION).unwrap();
    txn.delete_table(TOMBS).unwrap();
    txn.delete_table(PURGED).unwrap();
    txn.delete_table(VOID).unwrap();
    txn.delete_table(PRINTS).unwrap();
    txn.delete_table(OWED).unwrap();
    txn.delete_table(LISTED).unwrap();
    txn.open_table(OLD).unwrap().insert((1, [7].as_slice()), (1, 2, 3)).unwrap();
    txn.open_table(META).unwrap().insert("format", 1u64.to_le_bytes().as_slice()).unwrap();
    txn.commit().unwrap();
}

/// The index as format 2 had it.
fn back_to_format_2(path: &std::path::Path) {
    let database = Builder::new().open(path).unwrap();
    let txn = database.begin_write().unwrap();
    assert!(txn.delete_table(LISTED).unwrap());
    txn.open_table(META).unwrap().insert("format", 2u64.to_le_bytes().as_slice()).unwrap();
    txn.commit().unwrap();
}

/// As format 3 was left by who used it: without a log.
#[tokio::test]
async fn an_index_that_had_no_log_gets_one() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::open(dir.path(), super::options());
    let (index, log) = (dir.path().join("index.redb"), dir.path().join("index.log"));
    let store = open().await.unwrap();
    store.accept(NO_LAYOUT, name("a"), accepted(5, "x")).await.unwrap();
    store.close().await.unwrap();
    // The second time the upgrade was cut off after the log was made.
    for left in [false, true] {
        let database = Builder::new().open(&index).unwrap();
        let txn = database.begin_write().unwrap();
        txn.open_table(META).unwrap().insert("format", 3u64.to_le_bytes().as_slice()).unwrap();
        txn.commit().unwrap();
        drop(database);
        std::fs::remove_file(&log).unwrap();
        if left {
            std::fs::write(&log, "").unwrap();
        }
        let store = open().await.unwrap();
        assert_eq!(store.peek(name("a")).await.unwrap(), Some(accepted(5, "x")));
        // Whoever does not know of the log must find in the file itself that it may not open it.
        let alone = dir.path().join("alone");
        std::fs::copy(&index, &alone).unwrap();
        let format = Builder::new().open(&alone).unwrap().begin_read().unwrap().open_table(META).unwrap();
        assert_eq!(format.get("format").unwrap().unwrap().value(), 4u64.to_le_bytes());
        store.accept(NO_LAYOUT, name("b"), accepted(6, "y")).await.unwrap();
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn an_index_of_an_older_format_becomes_one_of_todays() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::open(dir.path(), super::options());
    let store = open().await.unwrap();
    store.accept(NO_LAYOUT, name("a"), accepted(5, "x")).await.unwrap();
    store.accept(NO_LAYOUT, name("b"), tombstone(6)).await.unwrap();
    let (id, bytes) = chunk("content");
    store.write_chunk(id, bytes, WriteId([1; 16]), name("a"), 0).await.unwrap();
    store.owe(&[(NodeId([1; 32]), id)]).await.unwrap();
    let prints = recomputed(&store).await;
    store.close().await.unwrap();
    let index = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut index = index.into_iter();
    let index = index.find(|path| path.extension().is_some_and(|e| e == "redb" || e == "db"));
    let index = index.expect("the index's file");
    back_to_format_2(&index);
    let store = open().await.unwrap();
    check_prints(&store).await;
    store.close().await.unwrap();
    back_to_format_1(&index);
    let store = open().await.unwrap();
    check_prints(&store).await;
    assert_eq!(recomputed(&store).await, prints);
    assert_eq!(store.tombs(99, None, 9).await.unwrap(), [(name("b"), ballot(6))]);
    let (partition, bucket) = (name("a").partition(), name("a").bucket_number());
    let page = store.page_of_bucket(None, partition, bucket, None, 9).await.unwrap();
    assert_eq!(page, Paged::Page { entries: vec![(name("a"), ballot(5))], more: false });
    store.close().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn derived_tables_follow_whatever_happens(steps in proptest::collection::vec((0u8..6, 0u8..5, 1u8..5), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let store = open_on(dir.path(), &CrashDisk::default(), None).unwrap();
            for (number, (what, key, version)) in steps.into_iter().enumerate() {
                let (name, counter) = (name(&key.to_string()), number as u64 + 1);
                let (id, bytes) = chunk(&key.to_string());
                let version = WriteId([version; 16]);
                match what {
                    0 => drop(store.accept(NO_LAYOUT, name, accepted(counter, "x")).await.unwrap()),
                    1 => drop(store.learn(NO_LAYOUT, name, tombstone(counter)).await.unwrap()),
                    2 => if let Some(held) = store.peek(name.clone()).await.unwrap() {
                        store.purge(NO_LAYOUT, name, held.ballot).await.unwrap();
                    },
                    // A version is a write to one register.
                    3 => store.write_chunk(id, bytes, version, super::name("v"), 1).await.unwrap(),
                    4 => drop(store.release(version, u64::MAX).await.unwrap()),
                    _ => drop(store.evict(id, &[version]).await.unwrap()),
                }
            }
            check_prints(&store).await;
            store.close().await.unwrap();
        });
    }
}

#[test]
fn the_names_of_the_tables_are_kept() {
    // What is on people's disks.
    let names = [
        TOMBS.to_string(),
        PURGED.to_string(),
        VOID.to_string(),
        PRINTS.to_string(),
        OWED.to_string(),
        LISTED.to_string(),
    ];
    let starts = ["tombs", "purged", "void", "prints", "owed", "listed"];
    assert!(names.iter().zip(starts).all(|(name, start)| name.starts_with(start)), "{names:?}");
    assert_eq!(index::FORMAT, 4);
}
