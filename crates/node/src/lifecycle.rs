//! Lifecycle: what goes by itself, by the rules of its bucket.
//!
//! Once a day each bucket that has rules is gone through, by the first of its owners that is up. Everything is removed
//! as a user would remove it, and only if it is still the version that was looked at; so two nodes that go through the
//! same bucket do no harm, and what fails is tried again the next day.

use std::{sync::Arc, time::Duration};

use futures_util::stream::{self, StreamExt as _};
use pando_core::{
    bucket::{Expire, LifecycleRule, Noncurrent},
    name::RegisterName,
};

use crate::{
    api::{Condition, Consistency, ObjectInfo, VersionEntry, VersionId, VersionsQuery},
    error::Error,
    inner::Inner,
    peers::Liveness,
    sys,
};

/// How long between two looks: days are what rules count in.
const LOOK: Duration = Duration::from_secs(24 * 3600);
/// How long after its start a node looks first: who is restarted each night must look, too, and has more urgent things
/// to do at first.
const FIRST: Duration = Duration::from_secs(600);
/// Removals at once: beside what users do.
const PARALLEL: usize = 8;
/// Uploads in one page.
const UPLOADS: usize = 1000;
const DAY_MS: u64 = 24 * 3600 * 1000;

/// Looks until the node stops.
pub(crate) async fn follow_rules(inner: Arc<Inner>) {
    let mut pause = FIRST;
    loop {
        sys::sleep(pause + sys::jitter(pause / 4)).await;
        pause = LOOK;
        if let Err(error) = look(&inner, inner.steady_ms()).await {
            tracing::warn!(%error, "lifecycle rules are followed later");
        }
    }
}

/// One look at all buckets that are this node's to look at, at the time `now_ms`.
pub(crate) async fn look(inner: &Arc<Inner>, now_ms: u64) -> Result<(), Error> {
    for bucket in inner.list_buckets(Consistency::Linearizable).await? {
        if !is_mine(inner, &bucket.name)? {
            continue;
        }
        if let Err(error) = look_at(inner, &bucket.name, now_ms).await {
            tracing::warn!(bucket = bucket.name, %error, "its lifecycle rules are followed later");
        }
    }
    Ok(())
}

fn is_mine(inner: &Inner, bucket: &str) -> Result<bool, Error> {
    let owners = inner.layout()?.owners(RegisterName::bucket(bucket)?.partition());
    let is_up =
        |node: &pando_core::id::NodeId| *node == inner.id || inner.peers.liveness(node) == Liveness::Up;
    Ok(owners.into_iter().find(is_up) == Some(inner.id))
}

/// Follows the rules of one bucket, at the time `now_ms`.
pub(crate) async fn look_at(inner: &Arc<Inner>, bucket: &str, now_ms: u64) -> Result<(), Error> {
    let settings = inner.bucket(bucket).await?.settings;
    let rules: Vec<LifecycleRule> = settings.lifecycle.into_iter().filter(|rule| rule.enabled).collect();
    for rule in rules.iter().filter(|rule| rule.abort_uploads_days.is_some()) {
        abort_uploads(inner, bucket, rule, now_ms).await?;
    }
    // Rules for other prefixes seldom overlap; what two rules are for is looked at twice.
    for rule in
        rules.iter().filter(|rule| rule.expire.is_some() || rule.expire_markers || rule.noncurrent.is_some())
    {
        versions(inner, bucket, rule, now_ms, 0).await?;
    }
    Ok(())
}

/// Follows a rule for versions, in pages of `limit` (0: as long as they may be). What is due of a page is removed before
/// the next one is asked for.
async fn versions(
    inner: &Arc<Inner>,
    bucket: &str,
    rule: &LifecycleRule,
    now_ms: u64,
    limit: usize,
) -> Result<(), Error> {
    let mut walk = Walk { rule, now_ms, last: None, older: 0, marker: None };
    let mut after = None;
    loop {
        let query = VersionsQuery { prefix: rule.prefix.clone(), after, limit, ..VersionsQuery::default() };
        let page = inner.list_versions(bucket, query).await?;
        let mut due: Vec<Due> = page.entries.into_iter().flat_map(|entry| walk.next(entry)).collect();
        if page.next.is_none() {
            due.extend(walk.marker.take().map(Due::Marker));
        }
        let goes = due.into_iter().map(|due| async move {
            let key = due.info().key.clone();
            if let Err(error) = remove(inner, bucket, rule, due).await {
                tracing::info!(bucket, key, %error, "it expires later");
            }
        });
        stream::iter(goes).buffer_unordered(PARALLEL).collect::<()>().await;
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

/// What a rule wants to go.
enum Due {
    /// The object, if it is still this one.
    Current(ObjectInfo),
    /// This delete marker, for good.
    Marker(ObjectInfo),
    /// This version, for good, if it is not current (again).
    Older(ObjectInfo),
}

impl Due {
    fn info(&self) -> &ObjectInfo {
        match self {
            Due::Current(info) | Due::Marker(info) | Due::Older(info) => info,
        }
    }
}

/// Going through versions in order: those of a key one after the other, the newest first.
struct Walk<'a> {
    rule: &'a LifecycleRule,
    now_ms: u64,
    /// The key of the version before, and when that was put.
    last: Option<(String, u64)>,
    /// How many versions of the key came that are not current.
    older: u32,
    /// A current delete marker of which no older version was seen yet.
    marker: Option<ObjectInfo>,
}

impl Walk<'_> {
    fn next(&mut self, entry: VersionEntry) -> Vec<Due> {
        let VersionEntry { info, is_latest, marker } = entry;
        let replaced = self.last.take().filter(|(key, _)| *key == info.key).map(|(_, modified)| modified);
        // What came before is a marker without anything below it if another key begins.
        let lone = self.marker.take().filter(|_| replaced.is_none());
        if replaced.is_none() || is_latest {
            self.older = 0;
        }
        self.last = Some((info.key.clone(), info.modified));
        let mut due: Vec<Due> = lone.map(Due::Marker).into_iter().collect();
        if !is_latest {
            self.older += 1;
            if let (Some(noncurrent), Some(replaced)) = (self.rule.noncurrent, replaced)
                && self.older > noncurrent.keep
                && is_past(replaced, noncurrent, self.now_ms)
                && (marker || self.fits(info.size))
            {
                due.push(Due::Older(info));
            }
        } else if marker {
            self.marker = Some(info).filter(|_| self.rule.expire_markers);
        } else if self.fits(info.size) && self.expires(info.modified) {
            due.push(Due::Current(info));
        }
        due
    }

    fn expires(&self, modified: u64) -> bool {
        match self.rule.expire {
            None => false,
            Some(Expire::Days(days)) => modified.saturating_add(u64::from(days) * DAY_MS) <= self.now_ms,
            Some(Expire::At(time)) => time <= self.now_ms,
        }
    }

    fn fits(&self, size: u64) -> bool {
        self.rule.larger_than.is_none_or(|than| size > than)
            && self.rule.smaller_than.is_none_or(|than| size < than)
    }
}

fn is_past(replaced: u64, noncurrent: Noncurrent, now_ms: u64) -> bool {
    replaced.saturating_add(u64::from(noncurrent.days) * DAY_MS) <= now_ms
}

async fn remove(inner: &Arc<Inner>, bucket: &str, rule: &LifecycleRule, due: Due) -> Result<(), Error> {
    let info = due.info();
    // By its own id also if it is the null version: another one may be that by now.
    let id = Some(VersionId::Id(info.etag));
    if !rule.tags.is_empty() {
        let found = match inner.find_version(bucket, &info.key, id).await {
            // A delete marker has no tags, or it is gone.
            Err(Error::NotFound { .. } | Error::NoSuchVersion { .. }) => return Ok(()),
            found => found?,
        };
        if !rule.tags.iter().all(|tag| found.1.tags.contains(tag)) {
            return Ok(());
        }
    }
    let removed = match &due {
        Due::Current(info) => {
            let condition = Condition::Match(info.etag);
            inner.remove_version(bucket, &info.key, None, condition).await.map(drop)
        }
        Due::Marker(info) => inner.remove_version(bucket, &info.key, id, Condition::None).await.map(drop),
        Due::Older(info) => inner.remove_older(bucket, &info.key, info.etag).await.map(drop),
    };
    match removed {
        // Someone was faster.
        Ok(()) | Err(Error::Precondition { .. } | Error::NotFound { .. }) => Ok(()),
        Err(why) => Err(why),
    }
}

async fn abort_uploads(
    inner: &Arc<Inner>,
    bucket: &str,
    rule: &LifecycleRule,
    now_ms: u64,
) -> Result<(), Error> {
    let Some(days) = rule.abort_uploads_days else { return Ok(()) };
    let mut last: Option<(String, pando_core::id::WriteId)> = None;
    loop {
        let after = last.as_ref().map(|(key, id)| (key.as_str(), Some(*id)));
        let page = inner.list_uploads(bucket, &rule.prefix, after, UPLOADS).await?;
        last = page.uploads.last().map(|upload| (upload.key.clone(), upload.id));
        let due = page
            .uploads
            .into_iter()
            .filter(|upload| upload.created.saturating_add(u64::from(days) * DAY_MS) <= now_ms);
        let goes = due.map(|upload| async move {
            match inner.abort_upload(bucket, &upload.key, &upload.id).await {
                Ok(()) | Err(Error::NoSuchUpload(_)) => {}
                Err(error) => tracing::info!(bucket, key = upload.key, %error, "it is aborted later"),
            }
        });
        stream::iter(goes).buffer_unordered(PARALLEL).collect::<()>().await;
        if !page.more {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use pando_core::{
        bucket::{Settings, Versioning},
        id::WriteId,
    };

    use super::*;
    use crate::{Node, PutOptions, UploadOptions, stray::tests::node};

    async fn rules(node: &Node, versioning: Versioning, lifecycle: &[LifecycleRule]) {
        let change = |settings: &mut Settings| {
            (settings.versioning, settings.lifecycle) = (versioning, lifecycle.to_vec());
            Ok(())
        };
        node.change_bucket("default", change).await.unwrap();
    }

    fn rule(prefix: &str) -> LifecycleRule {
        LifecycleRule { enabled: true, prefix: prefix.into(), ..LifecycleRule::default() }
    }

    async fn put(node: &Node, key: &str, bytes: &[u8], tags: &[(&str, &str)]) {
        let tags = tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let options = PutOptions { tags, ..PutOptions::default() };
        node.put("default", key, bytes, options).await.unwrap();
    }

    /// Key, whether it is current, whether it is a marker.
    async fn left(node: &Node) -> Vec<(String, bool, bool)> {
        let page = node.list_versions("default", VersionsQuery::default()).await.unwrap();
        let shown = page.entries.into_iter().map(|entry| (entry.info.key, entry.is_latest, entry.marker));
        shown.collect()
    }

    fn current(key: &str) -> (String, bool, bool) {
        (key.to_owned(), true, false)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn objects_expire_that_a_rule_is_for() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(&folder).await;
        let by_tag = LifecycleRule {
            tags: vec![("kind".into(), "log".into())],
            expire: Some(Expire::Days(3)),
            ..rule("tagged/")
        };
        let by_size = LifecycleRule {
            larger_than: Some(3),
            smaller_than: Some(6),
            expire: Some(Expire::Days(0)),
            ..rule("sized/")
        };
        let off = LifecycleRule { enabled: false, expire: Some(Expire::Days(0)), ..rule("") };
        rules(&node, Versioning::Never, &[by_tag, by_size, off]).await;
        put(&node, "tagged/a", b"x", &[("kind", "log"), ("other", "x")]).await;
        put(&node, "tagged/b", b"x", &[("kind", "other")]).await;
        put(&node, "tagged/c", b"x", &[]).await;
        for size in [3, 4, 5, 6] {
            put(&node, &format!("sized/{size}"), &vec![0; size], &[]).await;
        }
        put(&node, "untouched", b"x", &[("kind", "log")]).await;
        let now = sys::now_ms();
        look(&node.inner, now).await.unwrap();
        let kept = ["sized/3", "sized/6", "tagged/a", "tagged/b", "tagged/c", "untouched"];
        assert_eq!(left(&node).await, kept.map(current), "a day has not passed");
        look(&node.inner, now + 3 * DAY_MS).await.unwrap();
        assert_eq!(
            left(&node).await,
            ["sized/3", "sized/6", "tagged/b", "tagged/c", "untouched"].map(current)
        );
        node.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn versions_go_when_they_were_replaced_long_ago() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(&folder).await;
        let all = LifecycleRule {
            expire: Some(Expire::Days(10)),
            expire_markers: true,
            noncurrent: Some(Noncurrent { days: 5, keep: 2 }),
            ..rule("")
        };
        put(&node, "a", b"null", &[]).await;
        rules(&node, Versioning::Enabled, std::slice::from_ref(&all)).await;
        for _ in 0..4 {
            put(&node, "a", b"x", &[]).await;
        }
        put(&node, "b", b"x", &[]).await;
        let now = sys::now_ms();
        look(&node.inner, now + 4 * DAY_MS).await.unwrap();
        assert_eq!(left(&node).await.len(), 6, "too early");
        look(&node.inner, now + 6 * DAY_MS).await.unwrap();
        let old = |key: &str| (key.to_owned(), false, false);
        assert_eq!(left(&node).await, [current("a"), old("a"), old("a"), current("b")]);
        look(&node.inner, now + 11 * DAY_MS).await.unwrap();
        let marker = |key: &str| (key.to_owned(), true, true);
        assert_eq!(left(&node).await, [marker("a"), old("a"), old("a"), old("a"), marker("b"), old("b")]);
        rules(
            &node,
            Versioning::Enabled,
            &[LifecycleRule { noncurrent: Some(Noncurrent { days: 5, keep: 0 }), ..all }],
        )
        .await;
        look(&node.inner, now + 30 * DAY_MS).await.unwrap();
        assert_eq!(left(&node).await, [marker("a"), marker("b")]);
        look(&node.inner, now + 30 * DAY_MS).await.unwrap();
        assert!(left(&node).await.is_empty(), "a marker goes when nothing is below it");
        node.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_kept_does_not_depend_on_where_pages_end() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(&folder).await;
        rules(&node, Versioning::Enabled, &[]).await;
        for limit in 1..=7 {
            let key = format!("{limit}/a");
            for _ in 0..8 {
                put(&node, &key, b"x", &[]).await;
            }
            put(&node, &format!("{limit}/b"), b"x", &[]).await;
            let rule = LifecycleRule {
                noncurrent: Some(Noncurrent { days: 5, keep: 2 }),
                ..rule(&format!("{limit}/"))
            };
            let before = all(&node, &key).await;
            let late = sys::now_ms() + 6 * DAY_MS;
            versions(&node.inner, "default", &rule, late, limit).await.unwrap();
            assert_eq!(all(&node, &key).await, before[..3], "pages of {limit}");
            assert_eq!(all(&node, &rule.prefix).await.len(), 4, "pages of {limit}");
        }
        node.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_version_that_became_current_again_stays() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(&folder).await;
        let inner = &node.inner;
        rules(&node, Versioning::Enabled, &[]).await;
        for _ in 0..3 {
            put(&node, "a", b"x", &[]).await;
        }
        let entries = node.list_versions("default", VersionsQuery::default()).await.unwrap().entries;
        let infos: Vec<ObjectInfo> = entries.into_iter().map(|entry| entry.info).collect();
        // Between the list and the removal a user removes the current version.
        node.remove_version("default", "a", infos[0].version, Condition::None).await.unwrap();
        remove(inner, "default", &rule(""), Due::Older(infos[1].clone())).await.unwrap();
        assert_eq!(all(&node, "a").await, [infos[1].etag, infos[2].etag]);
        assert!(!inner.remove_older("default", "a", infos[1].etag).await.unwrap());
        // It is kept when it is replaced, and goes then.
        put(&node, "a", b"x", &[]).await;
        assert_eq!(all(&node, "a").await[1..], [infos[1].etag, infos[2].etag]);
        remove(inner, "default", &rule(""), Due::Older(infos[1].clone())).await.unwrap();
        assert_eq!(all(&node, "a").await[1..], [infos[2].etag]);
        node.stop().await;
    }

    /// The versions below a prefix.
    async fn all(node: &Node, prefix: &str) -> Vec<WriteId> {
        let query = VersionsQuery { prefix: prefix.into(), ..VersionsQuery::default() };
        let page = node.list_versions("default", query).await.unwrap();
        page.entries.into_iter().map(|entry| entry.info.etag).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn uploads_are_aborted_that_nobody_completes() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(&folder).await;
        rules(&node, Versioning::Never, &[LifecycleRule { abort_uploads_days: Some(2), ..rule("a") }]).await;
        let a = node.create_upload("default", "a", UploadOptions::default()).await.unwrap();
        let b = node.create_upload("default", "b", UploadOptions::default()).await.unwrap();
        let now = sys::now_ms();
        look(&node.inner, now + DAY_MS).await.unwrap();
        assert!(node.upload("default", "a", &a).await.is_ok());
        look(&node.inner, now + 3 * DAY_MS).await.unwrap();
        assert!(matches!(node.upload("default", "a", &a).await, Err(Error::NoSuchUpload(_))));
        assert!(node.upload("default", "b", &b).await.is_ok());
        node.stop().await;
    }
}
