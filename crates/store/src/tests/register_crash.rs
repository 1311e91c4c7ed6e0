//! Registers: the power goes at every sync; whatever was acknowledged holds afterwards.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::future::join_all;
use pando_core::{
    name::RegisterName,
    register::{Accepted, LayoutVersion},
};

use super::{CrashDisk, NO_LAYOUT, accepted, ballot, crash_disk::Cut, name, open_on};
use crate::{Accept, Error, Learn, Prepare, ReadReply, Store};

/// What the store acknowledged.
#[derive(Default, Debug)]
struct Acknowledged {
    /// The highest accepted or learned value of each register.
    stored: BTreeMap<RegisterName, Accepted>,
    /// The highest counter promised for each register.
    promised: BTreeMap<RegisterName, u64>,
    setting: Option<Bytes>,
    layout: Option<LayoutVersion>,
}

/// Some rounds of changes, several registers at once, until the power goes.
async fn work(store: &Store, done: &mut Acknowledged) -> Result<(), Error> {
    // Each round jumps past the ceiling, so that promises raise it.
    for round in 1..=5u64 {
        let counter = round * 3_000_000;
        let names: Vec<_> = (0..4).map(|key| name(&format!("{key}"))).collect();
        let promises = names.iter().map(|name| store.prepare(NO_LAYOUT, name.clone(), ballot(counter)));
        let promises = join_all(promises).await;
        for (name, promise) in names.iter().zip(promises) {
            assert!(matches!(promise?, Prepare::Promised(_)));
            done.promised.insert(name.clone(), counter);
        }
        // The last register's promise is left open.
        let values: Vec<_> =
            names[..3].iter().map(|name| (name, accepted(counter, &format!("{name} {round}")))).collect();
        let accepts =
            values.iter().map(|(name, value)| store.accept(NO_LAYOUT, (*name).clone(), value.clone()));
        let accepts = join_all(accepts).await;
        for ((name, value), accept) in values.into_iter().zip(accepts) {
            assert_eq!(accept?, Accept::Accepted);
            done.stored.insert(name.clone(), value);
        }
        // Below the ceiling by now: a promise that is given beside the writer.
        let promise = store.prepare(NO_LAYOUT, names[3].clone(), ballot(counter + 1)).await?;
        assert!(matches!(promise, Prepare::Promised(_)));
        done.promised.insert(names[3].clone(), counter + 1);
        let learned = accepted(counter + 1, "learned");
        assert_eq!(store.learn(NO_LAYOUT, name("learned"), learned.clone()).await?, Learn::Learned);
        done.stored.insert(name("learned"), learned);
        let setting = Bytes::from(vec![round as u8; 100]);
        store.meta_put("setting", Some(setting.clone())).await?;
        done.setting = Some(setting);
    }
    assert!(store.install_layout(LayoutVersion(1), Bytes::from_static(b"layout"), |_| Vec::new()).await?);
    done.layout = Some(LayoutVersion(1));
    Ok(())
}

async fn check(store: &Store, done: &Acknowledged) {
    let known = store.layout().await.unwrap().map_or(NO_LAYOUT, |(version, _)| version);
    assert!(Some(known) >= done.layout);
    for (name, wanted) in &done.stored {
        let found = store.peek(name.clone()).await.unwrap().expect("acknowledged, so it is there");
        assert!(found.ballot >= wanted.ballot, "{name}: {found:?} is older than {wanted:?}");
        assert!(found.ballot > wanted.ballot || found == *wanted, "{name}");
    }
    for (name, promised) in &done.promised {
        let ReadReply::Value { height, .. } = store.read(known, name.clone()).await.unwrap() else {
            panic!("asked under the known layout");
        };
        assert!(height >= *promised, "{name}: promised {promised}, now {height}");
    }
    if let Some(setting) = &done.setting {
        assert!(store.meta_get("setting").await.unwrap().unwrap()[0] >= setting[0]);
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_crash_at_every_sync() {
    let mut crashes = 0;
    for fuel in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let disk = CrashDisk::default();
        // The index is there: it is made aside, and shows up whole.
        open_on(dir.path(), &disk, None).unwrap().close().await.unwrap();
        disk.set_fuel(fuel);
        let mut done = Acknowledged::default();
        let outcome = match open_on(dir.path(), &disk, None) {
            Ok(store) => {
                let outcome = work(&store, &mut done).await;
                // Its last syncs may be what fails.
                let _ = store.close().await;
                outcome
            }
            Err(error) => Err(error),
        };
        for cut in Cut::ALL {
            let store = open_on(dir.path(), &disk.after(cut), None).unwrap();
            check(&store, &done).await;
            store.close().await.unwrap();
        }
        if !disk.is_dead() {
            outcome.unwrap();
            break;
        }
        crashes += 1;
    }
    assert!(crashes > 15, "only {crashes} crashes: the loop tests less than it says");
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let disk = CrashDisk::default();
    let store = open_on(dir.path(), &disk, None).unwrap();
    store.accept(NO_LAYOUT, name("a"), accepted(1, "one")).await.unwrap();
    disk.set_fuel(0);
    let failed = store.accept(NO_LAYOUT, name("a"), accepted(2, "two")).await;
    assert!(matches!(failed, Err(Error::Failed { .. })), "{failed:?}");
    assert!(store.failed().unwrap().contains("no power"), "{:?}", store.failed());
    // A refusal needs no commit; still it would rest on state that nobody knows.
    let refused = store.prepare(NO_LAYOUT, name("a"), ballot(1)).await;
    assert!(matches!(refused, Err(Error::Failed { .. })), "{refused:?}");
    let read = store.read(NO_LAYOUT, name("a")).await;
    assert!(matches!(read, Err(Error::Failed { .. })), "{read:?}");
    let put = store.meta_put("a", None).await;
    assert!(matches!(put, Err(Error::Failed { .. })), "{put:?}");
    let _ = store.close().await;
}

#[tokio::test]
async fn concurrent_changes_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let disk = CrashDisk::default();
    let store = open_on(dir.path(), &disk, None).unwrap();
    let before = disk.syncs();
    let mut held = disk.hold_next_sync();
    let accept = |key: u32| store.accept(NO_LAYOUT, name(&key.to_string()), accepted(9, "value"));
    let others = async {
        held.came.recv().await.unwrap();
        let all = join_all((1..500).map(accept));
        let let_go = async {
            while store.queued() < 499 {
                tokio::task::yield_now().await;
            }
            held.go.send(()).unwrap();
        };
        tokio::join!(all, let_go).0
    };
    let (first, others) = tokio::join!(accept(0), others);
    assert!([first].into_iter().chain(others).all(|accept| accept.unwrap() == Accept::Accepted));
    let syncs = disk.syncs() - before;
    // Two groups: the first, and all that waited. Each is one sync, and two more when the file grows.
    assert!((2..=6).contains(&syncs), "500 accepts took {syncs} syncs");
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_changes_nothing_costs_no_sync() {
    let dir = tempfile::tempdir().unwrap();
    let disk = CrashDisk::default();
    let store = open_on(dir.path(), &disk, None).unwrap();
    store.prepare(NO_LAYOUT, name("a"), ballot(10)).await.unwrap();
    store.accept(NO_LAYOUT, name("a"), accepted(10, "value")).await.unwrap();
    let before = (disk.syncs(), disk.lens());
    // Under the ceiling, a promise is a matter of memory.
    assert!(matches!(store.prepare(NO_LAYOUT, name("a"), ballot(11)).await, Ok(Prepare::Promised(Some(_)))));
    assert!(matches!(store.prepare(NO_LAYOUT, name("a"), ballot(9)).await, Ok(Prepare::Refused(_))));
    assert_eq!(store.accept(NO_LAYOUT, name("a"), accepted(10, "value")).await.unwrap(), Accept::Accepted);
    assert_eq!(store.learn(NO_LAYOUT, name("a"), accepted(10, "value")).await.unwrap(), Learn::Learned);
    assert_eq!((disk.syncs(), disk.lens()), before);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_promise_waits_for_what_is_on_its_way_to_the_same_register_only() {
    let dir = tempfile::tempdir().unwrap();
    let disk = CrashDisk::default();
    let store = open_on(dir.path(), &disk, None).unwrap();
    // From here on the ceiling is above what follows.
    store.prepare(NO_LAYOUT, name("other"), ballot(1)).await.unwrap();
    // And there are free pages: while its file grows, the index lets nobody look.
    let filler = "x".repeat(60_000);
    for (counter, text) in [(1, filler.as_str()), (2, ""), (3, ""), (4, "")] {
        store.accept(NO_LAYOUT, name("filler"), accepted(counter, text)).await.unwrap();
    }
    let mut held = disk.hold_next_sync();
    let accepting = tokio::spawn({
        let store = store.clone();
        async move { store.accept(NO_LAYOUT, name("a"), accepted(20, "value")).await }
    });
    held.came.recv().await.unwrap();
    assert_eq!(store.prepare(NO_LAYOUT, name("b"), ballot(21)).await.unwrap(), Prepare::Promised(None));
    let mut promising = Box::pin(store.prepare(NO_LAYOUT, name("a"), ballot(22)));
    tokio::select! {
        biased;
        early = &mut promising => panic!("before what was accepted is durable: {early:?}"),
        () = async { while store.queued() == 0 { tokio::task::yield_now().await; } } => {}
    }
    // It is in the queue, behind the group that is being synced.
    held.go.send(()).unwrap();
    assert_eq!(promising.await.unwrap(), Prepare::Promised(Some(accepted(20, "value"))));
    assert_eq!(accepting.await.unwrap().unwrap(), Accept::Accepted);
    // A promise that was given beside the writer binds it.
    let late = store.accept(NO_LAYOUT, name("b"), accepted(20, "late")).await.unwrap();
    assert!(matches!(late, Accept::Refused(_)), "{late:?}");
    // And once the accept is through, nothing is on its way any more.
    let mut held = disk.hold_next_sync();
    let accepting = tokio::spawn({
        let store = store.clone();
        async move { store.accept(NO_LAYOUT, name("b"), accepted(21, "value")).await }
    });
    held.came.recv().await.unwrap();
    let promised = store.prepare(NO_LAYOUT, name("a"), ballot(23)).await.unwrap();
    assert_eq!(promised, Prepare::Promised(Some(accepted(20, "value"))));
    held.go.send(()).unwrap();
    accepting.await.unwrap().unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_is_not_committed_is_not_seen() {
    let dir = tempfile::tempdir().unwrap();
    let disk = CrashDisk::default();
    let store = open_on(dir.path(), &disk, None).unwrap();
    let (one, two) = (accepted(1, "one"), accepted(2, "two"));
    store.accept(NO_LAYOUT, name("a"), one.clone()).await.unwrap();
    let mut held = disk.hold_next_sync();
    let accepting = tokio::spawn({
        let (store, two) = (store.clone(), two.clone());
        async move { store.accept(NO_LAYOUT, name("a"), two).await }
    });
    held.came.recv().await.unwrap();
    assert_eq!(store.peek(name("a")).await.unwrap(), Some(one));
    assert!(!accepting.is_finished());
    held.go.send(()).unwrap();
    assert_eq!(accepting.await.unwrap().unwrap(), Accept::Accepted);
    assert_eq!(store.peek(name("a")).await.unwrap(), Some(two));
    store.close().await.unwrap();
}
