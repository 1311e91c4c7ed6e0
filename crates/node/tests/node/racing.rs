//! Versions of one key, put and removed through several nodes at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use pando_node::{Condition, Error, Node, VersionId, core::bucket::Versioning};
use tokio::task::JoinHandle;

use crate::{
    grove::{Grove, get, put},
    versions::{clean, get_version, keep_versions, list},
};

/// Content that was put, by the version that it became; what is not known to have been put.
#[derive(Default)]
struct Puts {
    done: BTreeMap<(&'static str, VersionId), [u8; 2]>,
    unknown: BTreeSet<[u8; 2]>,
}

impl Puts {
    /// Puts through a node until it is acknowledged, however busy the key is, or may have been done.
    async fn put(&mut self, node: &Node, key: &'static str, bytes: [u8; 2]) {
        loop {
            match put(node, key, &bytes).await {
                Ok(stored) => {
                    self.done.insert((key, stored.version.unwrap()), bytes);
                    return;
                }
                Err(Error::Busy(_) | Error::Timeout(_)) => {}
                Err(Error::Unknown(_)) => {
                    self.unknown.insert(bytes);
                    return;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn of(workers: Vec<JoinHandle<Puts>>) -> Puts {
        let mut all = Puts::default();
        for worker in workers {
            let Puts { done, unknown } = worker.await.unwrap();
            all.done.extend(done);
            all.unknown.extend(unknown);
        }
        all
    }

    /// What a key's list shows is right: each version once, those that were put and not removed, each with its
    /// content, the newest one current.
    async fn check(&self, grove: &Grove, key: &'static str, removed: &BTreeSet<(&'static str, VersionId)>) {
        let entries = list(grove.node(0), key, 7).await;
        let mut listed = BTreeSet::new();
        for (number, entry) in entries.iter().enumerate() {
            assert_eq!(entry.is_latest, number == 0, "{entries:#?}");
            let version = entry.info.version.unwrap();
            assert!(listed.insert((key, version)), "listed twice");
            let bytes = get_version(grove.node(1), key, version).await.unwrap();
            match self.done.get(&(key, version)) {
                Some(put) => assert_eq!(bytes, put),
                None => assert!(self.unknown.contains(bytes.as_slice()), "{version} was not put"),
            }
            if number == 0 {
                assert_eq!(get(grove.node(2), key).await.unwrap(), bytes);
            }
        }
        let kept = self.done.keys().filter(|(of, version)| {
            *of == key && *version != VersionId::Null && !removed.contains(&(key, *version))
        });
        for version in kept {
            assert!(listed.contains(version), "{version:?} is lost");
        }
        for (_, version) in removed.iter().filter(|(of, _)| *of == key) {
            assert!(!listed.contains(&(key, *version)), "{version} is back");
            let gone = get_version(grove.node(1), key, *version).await;
            assert!(matches!(gone, Err(Error::NoSuchVersion { .. })), "{gone:?}");
        }
    }
}

async fn remove_somehow(node: &Node, key: &str, version: VersionId) {
    loop {
        match node.remove_version("default", key, Some(version), Condition::None).await {
            Ok(_) => return,
            Err(Error::Busy(_) | Error::Timeout(_) | Error::Unknown(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_puts_at_once_each_is_a_version() {
    let grove = Grove::of(3).await;
    keep_versions(grove.node(0), Versioning::Enabled).await;
    let workers = (0..32u8).map(|worker| {
        let node = grove.node(usize::from(worker) % 3).clone();
        tokio::spawn(async move {
            let mut puts = Puts::default();
            puts.put(&node, "a", [worker, 0]).await;
            puts
        })
    });
    let puts = Puts::of(workers.collect()).await;
    assert_eq!(puts.done.len() + puts.unknown.len(), 32);
    assert!(puts.done.len() > 16, "most are acknowledged: {}", puts.done.len());
    puts.check(&grove, "a", &BTreeSet::new()).await;
    clean(&grove).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_at_once_with_puts_stays_removed_and_nothing_else_goes() {
    const KEYS: [&str; 3] = ["a", "b", "c"];
    let grove = Grove::of(3).await;
    keep_versions(grove.node(0), Versioning::Enabled).await;
    let removed = Arc::new(Mutex::new(BTreeSet::new()));
    let workers = (0..9u8).map(|worker| {
        let node = grove.node(usize::from(worker) % 3).clone();
        let (key, removed) = (KEYS[usize::from(worker) / 3], Arc::clone(&removed));
        tokio::spawn(async move {
            let mut puts = Puts::default();
            for round in 0..12 {
                puts.put(&node, key, [worker, round]).await;
                // The newest (often someone else's, put just now), and one in the middle.
                let victim = match round % 3 {
                    0 => list(&node, key, 2).await.first().map(|entry| entry.info.version.unwrap()),
                    1 => list(&node, key, 50).await.get(2).map(|entry| entry.info.version.unwrap()),
                    _ => None,
                };
                if let Some(victim) = victim {
                    remove_somehow(&node, key, victim).await;
                    removed.lock().unwrap().insert((key, victim));
                }
            }
            puts
        })
    });
    let puts = Puts::of(workers.collect()).await;
    let removed = removed.lock().unwrap().clone();
    assert!(removed.len() > 30, "{}", removed.len());
    for key in KEYS {
        puts.check(&grove, key, &removed).await;
    }
    clean(&grove).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_versioning_flips_no_version_with_an_id_is_lost() {
    let grove = Grove::of(3).await;
    keep_versions(grove.node(0), Versioning::Enabled).await;
    let settings = grove.node(0).clone();
    let flips = tokio::spawn(async move {
        for round in 0..20 {
            let versioning = if round % 2 == 0 { Versioning::Suspended } else { Versioning::Enabled };
            keep_versions(&settings, versioning).await;
        }
    });
    let workers = (0..6u8).map(|worker| {
        let node = grove.node(usize::from(worker) % 3).clone();
        tokio::spawn(async move {
            let mut puts = Puts::default();
            for round in 0..15 {
                puts.put(&node, "a", [worker, round]).await;
            }
            puts
        })
    });
    let mut puts = Puts::of(workers.collect()).await;
    flips.await.unwrap();
    // Of the null versions the last one is left, if any.
    let listed = list(grove.node(0), "a", 9).await;
    let nulls = listed.iter().filter(|entry| entry.info.version == Some(VersionId::Null)).count();
    assert!(nulls <= 1, "{nulls} null versions");
    if let Some(bytes) = puts.done.remove(&("a", VersionId::Null)) {
        assert_eq!(nulls, 1);
        puts.unknown.insert(bytes);
    }
    if nulls == 1 {
        let bytes = get_version(grove.node(2), "a", VersionId::Null).await.unwrap();
        puts.unknown.insert([bytes[0], bytes[1]]);
    }
    puts.check(&grove, "a", &BTreeSet::new()).await;
    clean(&grove).await;
}
