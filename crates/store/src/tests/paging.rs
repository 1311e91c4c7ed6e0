//! Paging against a model: an ordered map.

use std::collections::BTreeMap;

use pando_core::{fingerprint::BUCKETS, id::Partition, name::RegisterName};
use proptest::prelude::*;

use super::{CrashDisk, NO_LAYOUT, accepted, name, open_on};
use crate::{NameRange, Paged, Store};

async fn all_pages(store: &Store, prefix: &[u8], limit: usize, max_bytes: usize) -> Vec<RegisterName> {
    let mut range = NameRange { prefix: prefix.to_vec(), after: None };
    let mut names = Vec::new();
    loop {
        let page = store.page(Some(NO_LAYOUT), range.clone(), limit, max_bytes).await.unwrap();
        let Paged::Page { entries, more } = page else { panic!("the layout is known") };
        assert!(entries.len() <= limit);
        assert!(!entries.is_empty() || !more, "no progress");
        names.extend(entries.into_iter().map(|shown| shown.name));
        if !more {
            return names;
        }
        range.after = names.last().map(|name| name.as_bytes().to_vec());
    }
}

async fn all_of_partition(store: &Store, partition: Partition, limit: usize) -> Vec<RegisterName> {
    let mut names: Vec<RegisterName> = Vec::new();
    for bucket in 0..BUCKETS {
        let mut after = None;
        loop {
            let page = store.page_of_bucket(Some(NO_LAYOUT), partition, bucket, after, limit).await.unwrap();
            let Paged::Page { entries, more } = page else { panic!("the layout is known") };
            assert!(entries.iter().all(|(name, _)| name.bucket_number() == bucket));
            after = entries.last().map(|(name, _)| name.clone());
            names.extend(entries.into_iter().map(|(name, _)| name));
            if !more {
                break;
            }
        }
    }
    names.sort();
    names
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn pages_are_slices_of_the_whole(
        keys in proptest::collection::btree_set("[ab\u{0}\u{7f}é]{1,5}", 0..40),
        prefix in "[ab]{0,2}",
        limit in 1usize..8,
        max_bytes in prop_oneof![Just(1usize), Just(120), Just(usize::MAX)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let store = open_on(dir.path(), &CrashDisk::default(), None).unwrap();
            let mut model = BTreeMap::new();
            for key in &keys {
                store.accept(NO_LAYOUT, name(key), accepted(1, key)).await.unwrap();
                model.insert(name(key).as_bytes().to_vec(), name(key));
            }
            // Neighbours that must not show up.
            for other in [RegisterName::bucket("default").unwrap(), RegisterName::object("defaulu", "a").unwrap()] {
                store.accept(NO_LAYOUT, other, accepted(1, "")).await.unwrap();
            }
            let wanted = RegisterName::object_prefix("default", &prefix).unwrap();
            let expected: Vec<_> =
                model.values().filter(|name| name.as_bytes().starts_with(&wanted)).cloned().collect();
            assert_eq!(all_pages(&store, &wanted, limit, max_bytes).await, expected);
            assert_eq!(store.count(wanted).await.unwrap(), expected.len() as u64);
            for partition in model.values().map(RegisterName::partition) {
                let expected: Vec<_> =
                    model.values().filter(|name| name.partition() == partition).cloned().collect();
                let found = all_of_partition(&store, partition, limit).await;
                let found: Vec<_> = found.into_iter().filter(|name| model.contains_key(name.as_bytes())).collect();
                assert_eq!(found, expected);
            }
            store.close().await.unwrap();
        });
    }
}
