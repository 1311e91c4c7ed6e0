//! Versions of one key, put and removed through several nodes at once.

use std::collections::BTreeSet;

use pando_node::{Condition, Error, Node, VersionId, core::bucket::Versioning};

use crate::{
    grove::{Grove, get, put},
    versions::{clean, get_version, keep_versions, list},
};

/// Puts through a node until it is acknowledged, however busy the key is.
async fn put_somehow(node: &Node, key: &str, bytes: &[u8]) -> Option<VersionId> {
    loop {
        match put(node, key, bytes).await {
            Ok(stored) => return stored.version,
            Err(Error::Busy(_) | Error::Timeout(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_puts_at_once_each_is_a_version() {
    let grove = Grove::of(3).await;
    keep_versions(grove.node(0), Versioning::Enabled).await;
    let puts = (0..32u8).map(|number| {
        let node = grove.node(usize::from(number) % 3).clone();
        tokio::spawn(async move { (put_somehow(&node, "a", &[number]).await.unwrap(), number) })
    });
    let puts: Vec<_> = puts.collect();
    let mut acknowledged = BTreeSet::new();
    for put in puts {
        acknowledged.insert(put.await.unwrap());
    }
    let entries = list(grove.node(1), "a", 5).await;
    let listed: BTreeSet<VersionId> = entries.iter().map(|entry| entry.info.version.unwrap()).collect();
    assert_eq!((entries.len(), listed.len()), (32, 32), "each once");
    assert_eq!(listed, acknowledged.iter().map(|(version, _)| *version).collect());
    for (version, number) in &acknowledged {
        assert_eq!(get_version(grove.node(2), "a", *version).await.unwrap(), [*number]);
    }
    assert!(entries[0].is_latest && entries[1..].iter().all(|entry| !entry.is_latest));
    let newest = get_version(grove.node(0), "a", entries[0].info.version.unwrap()).await.unwrap();
    assert_eq!(get(grove.node(2), "a").await.unwrap(), newest);
    clean(&grove).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_at_once_with_puts_stays_removed_and_nothing_else_goes() {
    const KEYS: [&str; 3] = ["a", "b", "c"];
    let grove = Grove::of(3).await;
    keep_versions(grove.node(0), Versioning::Enabled).await;
    let workers = (0..9u8).map(|worker| {
        let node = grove.node(usize::from(worker) % 3).clone();
        let key = KEYS[usize::from(worker) / 3];
        tokio::spawn(async move {
            let (mut put, mut removed) = (BTreeSet::new(), BTreeSet::new());
            for round in 0..12u8 {
                let mine = put_somehow(&node, key, &[worker, round]).await.unwrap();
                put.insert(mine);
                // The newest (often someone else's, put just now), and one in the middle.
                let victim = match round % 3 {
                    0 => list(&node, key, 2).await.first().map(|entry| entry.info.version.unwrap()),
                    1 => list(&node, key, 50).await.get(2).map(|entry| entry.info.version.unwrap()),
                    _ => None,
                };
                let Some(victim) = victim else { continue };
                loop {
                    match node.remove_version("default", key, Some(victim), Condition::None).await {
                        Ok(_) => break,
                        Err(Error::Busy(_) | Error::Timeout(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                removed.insert(victim);
            }
            (key, put, removed)
        })
    });
    let workers: Vec<_> = workers.collect();
    let (mut put, mut removed) = (BTreeSet::new(), BTreeSet::new());
    for worker in workers {
        let (key, of_put, of_removed) = worker.await.unwrap();
        put.extend(of_put.into_iter().map(|version| (key, version)));
        removed.extend(of_removed.into_iter().map(|version| (key, version)));
    }
    assert!(removed.len() > 30, "{}", removed.len());
    let expected: BTreeSet<_> = put.difference(&removed).copied().collect();
    let mut listed = BTreeSet::new();
    for key in KEYS {
        let entries = list(grove.node(0), key, 7).await;
        assert!(entries[0].is_latest && entries[1..].iter().all(|entry| !entry.is_latest), "{entries:#?}");
        for entry in &entries {
            assert!(listed.insert((key, entry.info.version.unwrap())), "listed twice");
        }
        let newest = get_version(grove.node(1), key, entries[0].info.version.unwrap()).await.unwrap();
        assert_eq!(get(grove.node(2), key).await.unwrap(), newest);
    }
    assert_eq!(listed, expected);
    for (key, version) in removed {
        let gone = get_version(grove.node(1), key, version).await;
        assert!(matches!(gone, Err(Error::NoSuchVersion { .. })), "{gone:?}");
    }
    clean(&grove).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_versioning_flips_no_version_with_an_id_is_lost() {
    let grove = Grove::of(3).await;
    let settings = grove.node(0).clone();
    let flips = tokio::spawn(async move {
        for round in 0..20 {
            let versioning = if round % 2 == 0 { Versioning::Enabled } else { Versioning::Suspended };
            keep_versions(&settings, versioning).await;
        }
    });
    let workers = (0..6u8).map(|worker| {
        let node = grove.node(usize::from(worker) % 3).clone();
        tokio::spawn(async move {
            let mut put = Vec::new();
            for round in 0..15u8 {
                if let Some(VersionId::Id(id)) = put_somehow(&node, "a", &[worker, round]).await {
                    put.push((VersionId::Id(id), [worker, round]));
                }
            }
            put
        })
    });
    let workers: Vec<_> = workers.collect();
    let mut put = Vec::new();
    for worker in workers {
        put.extend(worker.await.unwrap());
    }
    flips.await.unwrap();
    let entries = list(grove.node(0), "a", 9).await;
    let nulls = entries.iter().filter(|entry| entry.info.version == Some(VersionId::Null)).count();
    assert!(nulls <= 1, "{nulls} null versions");
    assert_eq!(entries.len() - nulls, put.len());
    for (version, bytes) in put {
        assert_eq!(get_version(grove.node(1), "a", version).await.unwrap(), bytes);
    }
    if nulls == 1 {
        get_version(grove.node(2), "a", VersionId::Null).await.unwrap();
    }
    clean(&grove).await;
}
