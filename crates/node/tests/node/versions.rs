//! Versions: kept, found, listed, removed; delete markers; the null version.

use std::{future::ready, time::Duration};

use pando_node::{
    Condition, Consistency, CopyOptions, Error, ListQuery, Node, PutOptions, UploadOptions, VersionEntry,
    VersionId, VersionsQuery, WantedPart,
    core::{bucket::Versioning, record::Digests, seal::CHUNK},
};

use crate::grove::{Grove, content, eventually, get, put, read_all};

pub(crate) async fn keep_versions(node: &Node, versioning: Versioning) {
    let change = |settings: &mut pando_node::core::bucket::Settings| {
        settings.versioning = versioning;
        Ok(())
    };
    node.change_bucket("default", change).await.unwrap();
}

pub(crate) async fn put_version(node: &Node, key: &str, bytes: &[u8]) -> VersionId {
    put(node, key, bytes).await.unwrap().version.unwrap()
}

pub(crate) async fn get_version(node: &Node, key: &str, version: VersionId) -> Result<Vec<u8>, Error> {
    read_all(node.get_version("default", key, Some(version), None).await?).await
}

/// All versions of keys that start so, in pages of `limit`.
pub(crate) async fn list(node: &Node, prefix: &str, limit: usize) -> Vec<VersionEntry> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let query = VersionsQuery { prefix: prefix.into(), after, limit, ..VersionsQuery::default() };
        let page = node.list_versions("default", query).await.unwrap();
        assert!(page.entries.len() <= limit && page.prefixes.is_empty());
        all.extend(page.entries);
        match page.next {
            Some(next) => after = Some(next),
            None => return all,
        }
    }
}

/// What a listing shows of a key: version, whether it is current, whether it is a marker.
async fn shown(node: &Node, key: &str) -> Vec<(VersionId, bool, bool)> {
    let entries = list(node, key, 1000).await.into_iter();
    entries.map(|entry| (entry.info.version.unwrap(), entry.is_latest, entry.marker)).collect()
}

async fn remove(node: &Node, key: &str, version: Option<VersionId>) -> pando_node::Removed {
    node.remove_version("default", key, version, Condition::None).await.unwrap()
}

fn marker_of<T: std::fmt::Debug>(result: Result<T, Error>) -> Option<VersionId> {
    match result {
        Err(Error::NotFound { marker, .. }) => marker,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn clean(grove: &Grove) {
    let progress = tokio::sync::watch::Sender::default();
    eventually("a deep check is clean", || async {
        grove.node(0).check(true, &progress).await.unwrap().is_clean()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_put_is_a_version() {
    let grove = Grove::of(3).await;
    let node = grove.node(0);
    let before = put(node, "a", b"zero").await.unwrap();
    assert_eq!(before.version, None, "the bucket never kept versions");
    let stat = node.stat("default", "a", Consistency::Linearizable).await.unwrap();
    assert_eq!(stat.version, None);
    keep_versions(node, Versioning::Enabled).await;
    let long = content(1, CHUNK + 9);
    let one = put_version(grove.node(1), "a", &long).await;
    let two = put_version(grove.node(2), "a", b"two").await;
    assert_eq!(
        shown(node, "a").await,
        [(two, true, false), (one, false, false), (VersionId::Null, false, false)]
    );
    for node in 0..3 {
        let node = grove.node(node);
        assert_eq!(get(node, "a").await.unwrap(), b"two");
        assert!(get_version(node, "a", one).await.unwrap() == long);
        assert_eq!(get_version(node, "a", two).await.unwrap(), b"two");
        assert_eq!(get_version(node, "a", VersionId::Null).await.unwrap(), b"zero");
        let info = node.stat_version("default", "a", Some(one)).await.unwrap();
        assert_eq!((info.version, info.size), (Some(one), long.len() as u64));
        let info = node.stat_version("default", "a", Some(VersionId::Null)).await.unwrap();
        assert_eq!((info.version, info.etag), (Some(VersionId::Null), before.etag));
    }
    let strange = VersionId::Id(pando_node::core::id::WriteId([9; 16]));
    let missing = node.stat_version("default", "a", Some(strange)).await;
    assert!(matches!(missing, Err(Error::NoSuchVersion { version, .. }) if version == strange));
    assert_eq!(node.status().await.unwrap().objects.unwrap().at_least, 1);
    clean(&grove).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_puts_a_marker_on_top() {
    let grove = Grove::of(3).await;
    let node = grove.node(0);
    keep_versions(node, Versioning::Enabled).await;
    let one = put_version(node, "a", b"one").await;
    let removed = remove(grove.node(1), "a", None).await;
    assert!(removed.marker);
    let marker = removed.version.unwrap();
    assert_eq!(marker_of(get(grove.node(2), "a").await), Some(marker));
    assert_eq!(marker_of(get_version(node, "a", marker).await), Some(marker));
    assert_eq!(marker_of(node.remove("default", "a").await), None, "there is nothing to remove");
    assert!(node.list("default", ListQuery::default()).await.unwrap().objects.is_empty());
    assert_eq!(shown(node, "a").await, [(marker, true, true), (one, false, false)]);
    assert_eq!(node.status().await.unwrap().objects.unwrap().at_least, 0);
    let full = node.remove_bucket("default").await;
    assert!(matches!(full, Err(Error::BucketNotEmpty(_))), "{full:?}");

    // Without the marker it is there again, as it was.
    let removed = remove(node, "a", Some(marker)).await;
    assert_eq!((removed.version, removed.marker), (Some(marker), true));
    let back = grove.node(1).stat("default", "a", Consistency::Linearizable).await.unwrap();
    assert_eq!((back.version, back.size), (Some(one), 3));
    assert_eq!(shown(node, "a").await, [(one, true, false)]);

    // To a condition, a marker is no object.
    let marker = remove(node, "a", None).await.version.unwrap();
    let only = |condition| PutOptions { condition, ..PutOptions::default() };
    let exists = node.put("default", "a", &b"x"[..], only(Condition::Exists)).await;
    assert!(matches!(exists, Err(Error::Precondition { current: None })), "{exists:?}");
    let two = node.put("default", "a", &b"two"[..], only(Condition::Absent)).await.unwrap().version.unwrap();
    let second = remove(node, "b", None).await;
    assert!(second.marker, "also where there never was an object");
    let third = remove(node, "b", None).await;
    assert_ne!(third.version, second.version);
    assert_eq!(
        shown(node, "").await.into_iter().map(|(version, ..)| version).collect::<Vec<_>>(),
        [two, marker, one, third.version.unwrap(), second.version.unwrap()]
    );
    for (key, version) in [("a", two), ("a", one), ("a", marker)] {
        remove(grove.node(2), key, Some(version)).await;
    }
    for version in [second.version, third.version] {
        remove(node, "b", version).await;
    }
    assert!(shown(node, "").await.is_empty());
    node.remove_bucket("default").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn suspended_there_is_one_null_version() {
    let grove = Grove::of(3).await;
    let node = grove.node(0);
    put(node, "a", b"zero").await.unwrap();
    keep_versions(node, Versioning::Enabled).await;
    let one = put_version(node, "a", b"one").await;
    keep_versions(node, Versioning::Suspended).await;
    assert_eq!(put_version(grove.node(1), "a", b"null").await, VersionId::Null);
    assert_eq!(
        shown(node, "a").await,
        [(VersionId::Null, true, false), (one, false, false)],
        "zero is replaced"
    );
    assert_eq!(put_version(grove.node(2), "a", b"null again").await, VersionId::Null);
    assert_eq!(shown(node, "a").await, [(VersionId::Null, true, false), (one, false, false)]);
    assert_eq!(get_version(node, "a", VersionId::Null).await.unwrap(), b"null again");
    keep_versions(node, Versioning::Enabled).await;
    let two = put_version(node, "a", b"two").await;
    let order = [(two, true, false), (VersionId::Null, false, false), (one, false, false)];
    assert_eq!(shown(node, "a").await, order);
    keep_versions(node, Versioning::Suspended).await;
    let removed = remove(node, "a", None).await;
    assert_eq!((removed.version, removed.marker), (Some(VersionId::Null), true));
    let order = [(VersionId::Null, true, true), (two, false, false), (one, false, false)];
    assert_eq!(shown(node, "a").await, order, "the null version makes room for the marker");
    assert_eq!(marker_of(get(node, "a").await), Some(VersionId::Null));
    remove(node, "a", Some(VersionId::Null)).await;
    assert_eq!(get(node, "a").await.unwrap(), b"two");
    assert!(!remove(node, "a", Some(VersionId::Null)).await.marker, "there is none");
    assert_eq!(shown(node, "a").await, [(two, true, false), (one, false, false)]);
    // Who kept versions once does not forget them.
    keep_versions(node, Versioning::Never).await;
    let settings = node.bucket("default").await.unwrap().settings;
    assert_eq!(settings.versioning, Versioning::Suspended);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_removed_for_good() {
    let grove = Grove::of(3).await;
    let node = grove.node(0);
    put(node, "a", b"zero").await.unwrap();
    keep_versions(node, Versioning::Enabled).await;
    let mut versions = vec![VersionId::Null];
    for number in 1..6u8 {
        versions.push(put_version(grove.node(usize::from(number) % 3), "a", &[number]).await);
    }
    let wrong = Condition::Md5([0; 16]);
    for version in [versions[5], versions[2]] {
        let refused = node.remove_version("default", "a", Some(version), wrong).await;
        assert!(matches!(refused, Err(Error::Precondition { .. })), "{refused:?}");
    }
    // In the middle, the current one, and what became current by that.
    for (removed, current) in [(2, 5), (5, 4), (4, 3), (1, 3), (3, 0)] {
        assert!(!remove(grove.node(removed % 3), "a", Some(versions[removed])).await.marker);
        let gone = get_version(node, "a", versions[removed]).await;
        assert!(matches!(gone, Err(Error::NoSuchVersion { .. })), "{gone:?}");
        let info = node.stat("default", "a", Consistency::Linearizable).await.unwrap();
        assert_eq!(info.version, Some(versions[current]), "after {removed} went");
        let again = remove(node, "a", Some(versions[removed])).await;
        assert_eq!(again.version, Some(versions[removed]), "to say it again does no harm");
    }
    assert_eq!(get(node, "a").await.unwrap(), b"zero");
    assert_eq!(shown(node, "a").await, [(VersionId::Null, true, false)]);
    let six = put_version(node, "a", b"six").await;
    assert_eq!(shown(node, "a").await, [(six, true, false), (VersionId::Null, false, false)]);
    remove(node, "a", Some(VersionId::Null)).await;
    remove(node, "a", Some(six)).await;
    assert_eq!(marker_of(get(node, "a").await), None);
    assert!(shown(node, "a").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_of_a_version_and_change_in_place() {
    let grove = Grove::of(3).await;
    let node = grove.node(0);
    let color = |color: &str| vec![("color".to_owned(), color.to_owned())];
    let plain = put(node, "plain", &content(3, 20_000)).await.unwrap();
    let tagged = node.set_tags("default", "plain", color("red"), None).await.unwrap();
    assert_eq!((tagged.etag, tagged.version, &tagged.tags), (plain.etag, None, &color("red")));
    assert!(get(grove.node(1), "plain").await.unwrap() == content(3, 20_000), "it opens still");

    keep_versions(node, Versioning::Enabled).await;
    let one = put_version(node, "a", b"one").await;
    node.set_tags("default", "a", color("red"), None).await.unwrap();
    let two = put_version(node, "a", b"two").await;
    let tags = async |version| node.stat_version("default", "a", Some(version)).await.unwrap().tags;
    assert_eq!((tags(one).await, tags(two).await), (color("red"), vec![]));
    let tagged = grove.node(1).set_tags("default", "a", color("blue"), Some(one)).await.unwrap();
    assert_eq!((tagged.version, tagged.tags), (Some(one), color("blue")));
    assert_eq!((tags(one).await, tags(two).await), (color("blue"), vec![]));
    // Current again, tagged, archived again: the last tags hold.
    remove(node, "a", Some(two)).await;
    assert_eq!(tags(one).await, color("blue"));
    node.set_tags("default", "a", color("green"), Some(one)).await.unwrap();
    let three = put_version(node, "a", b"three").await;
    assert_eq!(tags(one).await, color("green"));
    assert_eq!(shown(node, "a").await, [(three, true, false), (one, false, false)]);
    assert_eq!(get_version(node, "a", one).await.unwrap(), b"one");
    let marker = remove(node, "a", None).await.version;
    let refused = node.set_tags("default", "a", color("red"), marker).await;
    assert_eq!(marker_of(refused), marker);
    let refused = node.set_tags("default", "a", color("red"), Some(two)).await;
    assert!(matches!(refused, Err(Error::NoSuchVersion { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_copied_and_becomes_a_part() {
    let grove = Grove::of(3).await;
    let node = grove.node(0);
    keep_versions(node, Versioning::Enabled).await;
    let bytes = content(1, CHUNK + 5);
    let old = put(node, "a", &bytes).await.unwrap();
    put(node, "a", b"newer").await.unwrap();
    let options = CopyOptions { source_version: old.version, ..CopyOptions::default() };
    let (stored, info) = grove.node(1).copy(("default", "a"), ("default", "a"), options).await.unwrap();
    assert_eq!((info.version, stored.version), (stored.version, Some(VersionId::Id(stored.etag))));
    assert!(get(node, "a").await.unwrap() == bytes, "an old version is restored by copying it");
    assert_eq!(shown(node, "a").await.len(), 3);

    let id = node.create_upload("default", "whole", UploadOptions::default()).await.unwrap();
    let from = ("default", "a", old.etag);
    grove.node(2).copy_part(from, "default", "whole", &id, 1).await.unwrap().unwrap();
    let parts = [WantedPart { number: 1, md5: None }];
    let digests = |_: &[_]| Ok(Digests::default());
    let place = ("default", "whole");
    let complete = async |node: &Node| {
        node.complete_upload(place.0, place.1, &id, &parts, Condition::None, digests).await
    };
    let (stored, _) = complete(node).await.unwrap();
    assert_eq!(stored.version, Some(VersionId::Id(id)));
    // Completed again after it was replaced: it is found among the versions, also after many of them.
    for _ in 0..20 {
        put(node, "whole", b"newer").await.unwrap();
    }
    let (again, _) = complete(grove.node(1)).await.unwrap();
    assert_eq!((again.etag, again.version), (id, Some(VersionId::Id(id))));
    assert!(get_version(node, "whole", VersionId::Id(id)).await.unwrap() == bytes);
    assert_eq!(get(node, "whole").await.unwrap(), b"newer");
    node.put_part("default", "whole", &id, 2, &b"x"[..], ready(Ok(Digests::default()))).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chunks_of_a_version_live_as_long_as_it() {
    let grove = Grove::with(3, None, Duration::from_secs(1)).await;
    let node = grove.node(0);
    let null = content(9, CHUNK);
    put(node, "a", &null).await.unwrap();
    keep_versions(node, Versioning::Enabled).await;
    let mut versions = Vec::new();
    for number in 1..4 {
        versions.push(put_version(node, "a", &content(number, CHUNK)).await);
    }
    remove(node, "a", None).await;
    // When something else is freed that died later, all were looked at.
    let swept = async |files: usize| {
        put(node, "other", &content(100, CHUNK + 7)).await.unwrap();
        for entry in list(node, "other", 1000).await {
            remove(node, "other", entry.info.version).await;
        }
        eventually("what nobody needs is gone", || async { grove.chunk_files(0).len() == files }).await;
    };
    swept(4).await;
    for (number, version) in (1..4).zip(&versions) {
        assert!(get_version(grove.node(1), "a", *version).await.unwrap() == content(number, CHUNK));
    }
    assert!(get_version(node, "a", VersionId::Null).await.unwrap() == null);
    clean(&grove).await;
    remove(node, "a", Some(versions[1])).await;
    remove(node, "a", Some(VersionId::Null)).await;
    eventually("theirs are freed", || async { (0..3).all(|node| grove.chunk_files(node).len() == 2) }).await;
    assert!(get_version(grove.node(2), "a", versions[0]).await.unwrap() == content(1, CHUNK));
    for entry in list(node, "a", 1000).await {
        remove(node, "a", entry.info.version).await;
    }
    eventually("nothing is left", || async { (0..3).all(|node| grove.chunk_files(node).is_empty()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_null_version_that_is_replaced_is_freed() {
    let grove = Grove::with(3, None, Duration::from_secs(1)).await;
    let node = grove.node(0);
    put(node, "a", &content(1, CHUNK)).await.unwrap();
    keep_versions(node, Versioning::Enabled).await;
    put(node, "a", b"small").await.unwrap();
    keep_versions(node, Versioning::Suspended).await;
    put(node, "a", &content(2, CHUNK)).await.unwrap();
    put(node, "a", b"small").await.unwrap();
    eventually("nothing is left", || async { (0..3).all(|node| grove.chunk_files(node).is_empty()) }).await;
    assert_eq!(shown(node, "a").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_versions_pages_anywhere() {
    let grove = Grove::of(3).await;
    let node = grove.node(0);
    for key in ["a", "f/1", "only-null"] {
        put(node, key, b"null").await.unwrap();
    }
    keep_versions(node, Versioning::Enabled).await;
    for round in 0..3 {
        for key in ["a", "a\u{1}", "a!", "f/1", "f/2", "g/x", "z"] {
            put(grove.node(round), key, b"x").await.unwrap();
        }
    }
    remove(node, "z", None).await;
    let whole = list(node, "", 1000).await;
    let of = |entries: &[VersionEntry]| -> Vec<(String, Option<VersionId>, bool)> {
        entries.iter().map(|e| (e.info.key.clone(), e.info.version, e.is_latest)).collect()
    };
    assert_eq!(whole.len(), 7 * 3 + 3 + 1);
    assert!(whole.windows(2).all(|pair| pair[0].info.key <= pair[1].info.key));
    for limit in [1, 2, 3, 7, 25] {
        assert_eq!(of(&list(grove.node(1), "", limit).await), of(&whole), "pages of {limit}");
    }
    assert_eq!(list(node, "f/", 2).await.len(), 7);
    // Folders.
    for limit in [1, 2, 5, 100] {
        let (mut keys, mut folders, mut after) = (Vec::new(), Vec::new(), None);
        loop {
            let delimiter = Some("/".to_owned());
            let query = VersionsQuery { delimiter, after, limit, ..VersionsQuery::default() };
            let page = node.list_versions("default", query).await.unwrap();
            assert!(page.entries.len() + page.prefixes.len() <= limit);
            keys.extend(page.entries.into_iter().map(|entry| entry.info.key));
            folders.extend(page.prefixes);
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(folders, ["f/", "g/"], "pages of {limit}");
        assert_eq!(keys.len(), 4 + 3 + 3 + 1 + 4, "pages of {limit}");
    }
    // Past all versions of a key.
    let after = Some(("a".to_owned(), None));
    let page =
        node.list_versions("default", VersionsQuery { after, ..VersionsQuery::default() }).await.unwrap();
    assert_eq!((page.entries.len(), page.entries[0].info.key.as_str()), (21, "a\u{1}"));
    // Who removes what a page showed sees the rest next.
    let mut after = None;
    loop {
        let query = VersionsQuery { after, limit: 4, ..VersionsQuery::default() };
        let page = node.list_versions("default", query).await.unwrap();
        for entry in page.entries {
            remove(node, &entry.info.key, entry.info.version).await;
        }
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert!(list(node, "", 1000).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_goes_on_below_a_version_that_is_gone() {
    let grove = Grove::of(1).await;
    let node = grove.node(0);
    keep_versions(node, Versioning::Enabled).await;
    let mut versions = Vec::new();
    for number in 0..5u8 {
        versions.push(put_version(node, "a", &[number]).await);
    }
    let query = VersionsQuery { limit: 2, ..VersionsQuery::default() };
    let first = node.list_versions("default", query).await.unwrap();
    let newer = put_version(node, "a", b"newer").await;
    remove(node, "a", Some(versions[3])).await;
    let ids = |entries: Vec<VersionEntry>| -> Vec<VersionId> {
        entries.into_iter().map(|entry| entry.info.version.unwrap()).collect()
    };
    assert_eq!(ids(first.entries), [versions[4], versions[3]]);
    // The marker as text, as clients give it back.
    let told = first.next.map(|(key, mark)| (key, mark.map(|mark| mark.to_string().parse().unwrap())));
    let rest = VersionsQuery { after: told, ..VersionsQuery::default() };
    let rest = ids(node.list_versions("default", rest).await.unwrap().entries);
    assert_eq!(rest, [versions[2], versions[1], versions[0]]);
    // Without its place nobody knows where it was.
    let again = Some(("a".to_owned(), Some(versions[3].into())));
    let again = VersionsQuery { after: again, ..VersionsQuery::default() };
    let again = ids(node.list_versions("default", again).await.unwrap().entries);
    assert_eq!(again, [newer, versions[4], versions[2], versions[1], versions[0]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_two_thousand_versions_pages() {
    const MANY: usize = 2000;
    let grove = Grove::of(1).await;
    let node = grove.node(0);
    keep_versions(node, Versioning::Enabled).await;
    let mut put_order = Vec::new();
    for number in 0..MANY {
        put_order.push(put_version(node, "many", &(number as u32).to_le_bytes()).await);
    }
    let listed: Vec<VersionId> =
        list(node, "", 700).await.into_iter().map(|entry| entry.info.version.unwrap()).collect();
    put_order.reverse();
    assert_eq!(listed, put_order, "from the newest on");
    let oldest = get_version(node, "many", put_order[MANY - 1]).await.unwrap();
    assert_eq!(oldest, 0u32.to_le_bytes());
    remove(node, "many", Some(put_order[0])).await;
    let current = node.stat("default", "many", Consistency::Linearizable).await.unwrap();
    assert_eq!(current.version, Some(put_order[1]));
}
