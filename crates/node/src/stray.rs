//! Strays: null versions that are kept nowhere by anyone.
//!
//! A null version in a register of its own counts only if the object's register names it. Who is cut off between
//! archiving it and replacing it, or between replacing it and removing its copy, leaves one that does not. Nothing
//! shows it or needs it, and it can't come to count again. [`sweep`] removes it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use pando_core::{id::WriteId, name::RegisterName, record::Record};

use crate::{
    api::Consistency,
    error::Error,
    inner::{Inner, object_of},
    sys,
    version::counts,
};

/// How long between two looks for strays: they cost a register each, and are rare.
const SWEEP: Duration = Duration::from_secs(3600);

/// What a record in a register of its own is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// A version that is not current.
    Version,
    /// A copy of what is current.
    Copy,
    /// Nothing to anyone.
    Stray,
}

impl Inner {
    /// What a version is that was found in a register of its own.
    pub(crate) async fn beside(
        self: &Arc<Self>,
        name: &RegisterName,
        record: &Record,
        version: WriteId,
    ) -> Result<Beside, Error> {
        let found = self.read(name).await?;
        let current = object_of(found.as_ref().map(|accepted| &accepted.value))?;
        let null_at = current.as_ref().and_then(|(current, _)| current.mark.null_at);
        Ok(match current {
            Some((_, id)) if id == version => Beside::Copy,
            _ if counts(record.mark.null, version, null_at) => Beside::Version,
            _ => Beside::Stray,
        })
    }
}

/// Removes strays until the node stops. Each node looks at those of which it is the first owner.
pub(crate) async fn sweep(inner: Arc<Inner>) {
    loop {
        sys::sleep(SWEEP + sys::jitter(SWEEP / 4)).await;
        if let Err(error) = sweep_once(&inner).await {
            tracing::debug!(%error, "sweeping strays goes on later");
        }
    }
}

/// One look at all versions that are not current.
pub(crate) async fn sweep_once(inner: &Arc<Inner>) -> Result<(), Error> {
    let prefix = Bytes::from(RegisterName::all_versions_prefix());
    let mut after = None;
    loop {
        let page = inner.page(prefix.clone(), after, usize::MAX, Consistency::Stale).await?;
        for (aside, summary) in page.entries {
            let is_mine = inner.layout()?.owners(aside.partition()).first() == Some(&inner.id);
            if !is_mine || !summary.null {
                continue;
            }
            // What can't be read now is not in the way of the rest.
            if let Err(error) = look_at(inner, &aside).await {
                tracing::debug!(%aside, %error, "it is swept later");
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

async fn look_at(inner: &Arc<Inner>, aside: &RegisterName) -> Result<(), Error> {
    let Some((bucket, key, id)) = aside.version_parts() else { return Ok(()) };
    let name = RegisterName::object(bucket, &key)?;
    let Some(record) = inner.read_aside(&name, &id).await? else { return Ok(()) };
    if inner.beside(&name, &record, id).await? == Beside::Stray {
        tracing::info!(version = %aside, "a null version that was replaced is removed");
        inner.drop_aside(aside).await?;
        inner.forget_version(&record, id);
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use pando_core::{
        bucket::Versioning,
        mark::Mark,
        register::{State, Value},
    };

    use super::*;
    use crate::{
        Condition, Config, Node, PutOptions, VersionId, VersionsQuery, inner::PATIENCE, remove::Older,
        sys::Instant,
    };

    pub(crate) async fn node(folder: &tempfile::TempDir) -> Node {
        let config = Config {
            data: folder.path().to_owned(),
            listen: Some("127.0.0.1:0".parse().unwrap()),
            advertise: None,
            zone: None,
            capacity: Some(1 << 30),
            replicas: None,
            join: None,
            grace: Duration::from_secs(3600),
            dead_after: None,
            heal_rate: None,
        };
        Node::start(config).await.unwrap()
    }

    pub(crate) async fn keep_versions(node: &Node, versioning: Versioning) {
        let change = |settings: &mut pando_core::bucket::Settings| {
            settings.versioning = versioning;
            Ok(())
        };
        node.change_bucket("default", change).await.unwrap();
    }

    async fn put(node: &Node, bytes: &[u8]) -> WriteId {
        node.put("default", "a", bytes, PutOptions::default()).await.unwrap().etag
    }

    async fn remove(node: &Node, version: VersionId) {
        node.remove_version("default", "a", Some(version), Condition::None).await.unwrap();
    }

    async fn listed(node: &Node) -> Vec<WriteId> {
        let page = node.list_versions("default", VersionsQuery::default()).await.unwrap();
        page.entries.into_iter().map(|entry| entry.info.etag).collect()
    }

    async fn current(node: &Node) -> WriteId {
        node.stat("default", "a", Consistency::Linearizable).await.unwrap().etag
    }

    /// Registers of versions, tombstones left out.
    async fn asides(node: &Node) -> usize {
        let prefix = RegisterName::all_versions_prefix();
        let page = node.inner.page(prefix.into(), None, usize::MAX, Consistency::Linearizable).await;
        page.unwrap().entries.len()
    }

    fn name() -> RegisterName {
        RegisterName::object("default", "a").unwrap()
    }

    /// Archives what is current, as whoever is about to replace it.
    async fn archive(node: &Node) -> bool {
        let (name, record, version) =
            node.inner.find("default", "a", Consistency::Linearizable).await.unwrap();
        node.inner.archive(&name, &record, version, Instant::now() + PATIENCE).await.unwrap()
    }

    async fn condemn(node: &Node, version: WriteId) {
        node.inner.condemn(&name(), &version, Instant::now() + PATIENCE).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_is_cut_off_after_archiving_leaves_nothing_that_shows() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(&folder).await;
        keep_versions(&node, Versioning::Enabled).await;
        let one = put(&node, b"one").await;
        assert!(archive(&node).await);
        assert_eq!((listed(&node).await, current(&node).await), (vec![one], one));
        let two = put(&node, b"two").await;
        assert_eq!(listed(&node).await, [two, one]);
        assert!(archive(&node).await);
        remove(&node, VersionId::Id(two)).await;
        assert_eq!(
            (listed(&node).await, current(&node).await),
            (vec![one], one),
            "its copy is no older version"
        );
        remove(&node, VersionId::Id(one)).await;
        assert_eq!((listed(&node).await, asides(&node).await), (vec![], 0));
        node.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_is_cut_off_after_condemning_leaves_it_current() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(&folder).await;
        keep_versions(&node, Versioning::Enabled).await;
        let one = put(&node, b"one").await;
        let two = put(&node, b"two").await;
        condemn(&node, two).await;
        assert_eq!((listed(&node).await, current(&node).await), (vec![two, one], two));
        assert!(!archive(&node).await, "an archiver that is late finds it condemned");
        // Whoever comes next finishes it: by replacing it,
        let three = put(&node, b"three").await;
        assert_eq!(listed(&node).await, [three, one]);
        // or by removing it again.
        condemn(&node, three).await;
        remove(&node, VersionId::Id(three)).await;
        assert_eq!((listed(&node).await, current(&node).await), (vec![one], one));
        node.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_saw_a_version_before_it_was_removed_does_not_bring_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(&folder).await;
        let inner = &node.inner;
        keep_versions(&node, Versioning::Enabled).await;
        let versions = [put(&node, b"0").await, put(&node, b"1").await, put(&node, b"2").await];
        // One removes the current version, and has seen the next older one.
        let found = inner.read(&name()).await.unwrap().unwrap().value;
        let (record, current_id) = object_of(Some(&found)).unwrap().unwrap();
        let next = inner.next_older(&name(), &record.mark, current_id).await.unwrap();
        assert_eq!(next.next.as_ref().unwrap().1, versions[1]);
        // The other removes just that.
        remove(&node, VersionId::Id(versions[1])).await;
        let mut again = inner.replace_top(&name(), Some(&found), &record, current_id, next).await.unwrap();
        assert!(!again, "the object was written again");
        let found = inner.read(&name()).await.unwrap().unwrap().value;
        assert_eq!(object_of(Some(&found)).unwrap().unwrap().1, versions[2], "as it was");
        again = inner.remove_top(&name(), Some(&found), &record, current_id).await.unwrap();
        assert!(again);
        assert_eq!((listed(&node).await, current(&node).await), (vec![versions[0]], versions[0]));
        node.stop().await;
    }

    /// What is current: the value, the record, which version it is.
    async fn top(node: &Node) -> (Value, Record, WriteId) {
        let found = node.inner.read(&name()).await.unwrap().unwrap().value;
        let (record, version) = object_of(Some(&found)).unwrap().unwrap();
        (found, record, version)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_goes_only_if_it_is_not_current_does_not_go_in_between() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(&folder).await;
        let inner = &node.inner;
        keep_versions(&node, Versioning::Enabled).await;
        let one = put(&node, b"1").await;
        let two = put(&node, b"2").await;
        // It became current between the look and the removal.
        let Older::Version(write) = inner.look_at_older(&name(), one).await.unwrap() else { panic!() };
        let (found, record, version) = top(&node).await;
        assert!(inner.remove_top(&name(), Some(&found), &record, version).await.unwrap());
        assert!(!inner.remove_unless_written(&name(), one, write).await.unwrap());
        assert_eq!(inner.look_at_older(&name(), one).await.unwrap(), Older::Current);
        assert_eq!((listed(&node).await, current(&node).await), (vec![one], one));
        assert!(archive(&node).await, "and will be kept");
        let three = put(&node, b"3").await;
        // Who was about to make it current looked before, or before it went.
        for looks_first in [true, false] {
            let (found, record, version) = top(&node).await;
            let early = match looks_first {
                true => Some(inner.next_older(&name(), &record.mark, version).await.unwrap()),
                false => None,
            };
            let Older::Version(write) = inner.look_at_older(&name(), one).await.unwrap() else { panic!() };
            if let Some(next) = early {
                assert!(!inner.replace_top(&name(), Some(&found), &record, version, next).await.unwrap());
                continue;
            }
            let (found, record, version) = top(&node).await;
            let next = inner.next_older(&name(), &record.mark, version).await.unwrap();
            assert!(!inner.remove_unless_written(&name(), one, write).await.unwrap());
            assert!(inner.replace_top(&name(), Some(&found), &record, version, next).await.unwrap());
        }
        assert_eq!((listed(&node).await, current(&node).await), (vec![one], one));
        let four = put(&node, b"4").await;
        assert!(inner.remove_older("default", "a", one).await.unwrap());
        assert!(inner.remove_older("default", "a", two).await.unwrap(), "it is gone already");
        assert!(inner.remove_older("default", "a", three).await.unwrap());
        assert_eq!((listed(&node).await, current(&node).await), (vec![four], four));
        node.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_null_version_that_is_named_and_gone_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(&folder).await;
        let inner = &node.inner;
        put(&node, b"zero").await;
        keep_versions(&node, Versioning::Enabled).await;
        let one = put(&node, b"one").await;
        // A removal so long ago that it was forgotten, and that was cut off in the middle.
        let (gone, name) = (WriteId([7; 16]), name());
        let named = inner.change(&name, WriteId(sys::random()), |found| {
            let (mut record, version) = object_of(found).unwrap().unwrap();
            record.mark = Mark { null_at: Some(gone), ..record.mark.of_version(version) };
            Ok::<_, ()>(State::Present(record.encode().unwrap()))
        });
        named.await.unwrap();
        let missing = node.stat_version("default", "a", Some(VersionId::Null)).await;
        assert!(matches!(missing, Err(Error::NoSuchVersion { .. })), "{missing:?}");
        remove(&node, VersionId::Null).await;
        assert_eq!((top(&node).await.1.mark.null_at, current(&node).await), (None, one));
        node.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_two_copies_that_were_changed_as_often_the_current_one_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(&folder).await;
        let inner = &node.inner;
        let color = |color: &str| vec![("color".to_owned(), color.to_owned())];
        keep_versions(&node, Versioning::Enabled).await;
        let one = put(&node, b"1").await;
        assert!(archive(&node).await);
        // Who changes its tags believes that it is not current, and is cut off.
        let late = inner.tag(&name().aside(&one).unwrap(), one, &color("red")).await.unwrap().unwrap();
        node.set_tags("default", "a", color("blue"), None).await.unwrap();
        let (found, record, _) = top(&node).await;
        assert_eq!(record.mark.revision, late.mark.revision);
        put(&node, b"2").await;
        let tags = async || node.stat_version("default", "a", Some(VersionId::Id(one))).await.unwrap().tags;
        assert_eq!(tags().await, color("blue"));
        // Who archives it late does not undo what came since.
        node.set_tags("default", "a", color("green"), Some(VersionId::Id(one))).await.unwrap();
        let by = Instant::now() + PATIENCE;
        let (record, _) = object_of(Some(&found)).unwrap().unwrap();
        assert!(inner.archive(&name(), &record, one, by).await.unwrap());
        assert_eq!(tags().await, color("green"));
        node.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn strays_show_nowhere_and_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(&folder).await;
        put(&node, b"zero").await;
        keep_versions(&node, Versioning::Enabled).await;
        // Archived by one who believes that versions are kept, replaced by one who believes that they are not.
        assert!(archive(&node).await);
        keep_versions(&node, Versioning::Suspended).await;
        let aside = name().aside(&current(&node).await).unwrap();
        let stray = node.inner.read(&aside).await.unwrap().unwrap();
        let null = put(&node, b"null").await;
        // Whoever replaced it removes it, and may be cut off before that.
        sys::timeout(PATIENCE, async { while asides(&node).await > 0 {} }).await.unwrap();
        let bytes = stray.value.present().unwrap().clone();
        let left =
            node.inner.change(&aside, WriteId(sys::random()), |_| Ok::<_, ()>(State::Present(bytes.clone())));
        left.await.unwrap();
        assert_eq!((listed(&node).await, asides(&node).await), (vec![null], 1));
        let (_, _, id) = aside.version_parts().unwrap();
        let hidden = node.stat_version("default", "a", Some(VersionId::Id(id))).await;
        assert!(hidden.is_err(), "{hidden:?}");
        let progress = tokio::sync::watch::Sender::default();
        assert!(node.check(true, &progress).await.unwrap().is_clean());
        keep_versions(&node, Versioning::Enabled).await;
        let own = put(&node, b"own").await;
        sweep_once(&node.inner).await.unwrap();
        assert_eq!(
            (listed(&node).await, asides(&node).await),
            (vec![own, null], 1),
            "the null version that counts stays"
        );
        remove(&node, VersionId::Id(own)).await;
        assert_eq!(current(&node).await, null);
        node.stop().await;
    }
}
