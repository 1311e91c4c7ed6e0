//! Remove: an object, or one of its versions for good.
//!
//! Where no versions are kept the object's register becomes a tombstone. Where they are, a delete marker is put on top
//! like any version. Chunks that nothing needs any more go after the grace period.
//!
//! **A version for good.** Its own register becomes a tombstone first, even if it is current and has none: whoever
//! is about to archive it finds it condemned. If it is current, the next older version is then made current, under the
//! condition that the object's register has not changed since: so that version is still the next older one, and there.
//! If it is not current, the object's register is written again as it is, so that this condition fails for whoever
//! wanted to make just this version current.
//!
//! *The next older version* is looked for before the current one is condemned, and as long as that takes: all versions of
//! a key may have to be listed. That needs no deadline, since whatever is put, and whatever is removed, before the object's
//! register changes, changes that register itself, and the condition fails. Only what follows has one: from the last
//! look at the version that was found, in which its register is written again as it is, to the change, which is
//! [`PATIENCE`]. Collecting relies on it (a version that was removed for good is made current at most so long after), and
//! so does whoever archives the current version late (it was condemned for no longer).
//!
//! **Only if it is not current** ([`Inner::remove_older`]): what others remove by what they saw earlier may be current again
//! by now. (1) The version's own register is read, then (2) the object's is written again as it is, unless it holds this
//! version; then (3) the version's own becomes a tombstone, if it was not written since (1). Who makes the version current
//! reads the object's register, (a) writes the version's own again, and (b) changes the object's if that was not
//! written since. If that reading was before (2), (b) fails. If it was after, so was (a), and thus after (1): if (a) is
//! before (3), (3) fails, and if it is after, (a) finds a tombstone and there is no (b). So whatever (3) removes is not
//! current, nor becomes so.
//!
//! **A null version** that is not current is one that the object's record names. Whoever removed it and was cut off
//! before that record was written again leaves a name without a version. It stands for nothing (see [`Inner::locate`]), and goes
//! when it is removed once more, or collected.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use pando_core::{
    bucket::Versioning,
    id::WriteId,
    mark::Mark,
    name::RegisterName,
    record::Record,
    register::{State, Value},
};

use crate::{
    api::{Condition, Consistency, Removed, VersionId},
    commit::Terms,
    error::{Error, Why},
    inner::{Inner, PATIENCE, object_of},
    put,
    register::{How, Outcome},
    sys::{self, Instant},
    version::counts,
};

/// How long a version is tried to be removed while the object changes.
const TRYING: Duration = PATIENCE.saturating_mul(2);
/// How often it is looked for the next older version while those that are found go.
const ATTEMPTS: usize = 8;

/// What becomes current when the current version is removed.
pub(crate) struct Next {
    /// Nothing, if there is no other version.
    pub(crate) next: Option<(Record, WriteId)>,
    /// Until when the change may be made.
    pub(crate) by: Instant,
}

/// What a version is that was not current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Older {
    /// It was removed for good.
    Gone,
    /// It is current.
    Current,
    /// It is not, and its own register was written by this.
    Version(WriteId),
}

/// Why nothing was removed.
enum Not {
    /// There was nothing to remove: never, or not since it was forgotten.
    Known,
    /// It was removed before.
    AnyMore,
    /// The object is not what it was, or is none of a bucket without versions.
    AsExpected,
}

fn missing(bucket: &str, key: &str) -> Error {
    Error::NotFound { bucket: bucket.to_owned(), key: key.to_owned(), marker: None }
}

/// To S3, what isn't there is removed; unless something must hold of it.
fn nothing_removed(wanted: VersionId, condition: Condition) -> Result<Removed, Error> {
    put::check(condition, None)?;
    Ok(Removed { version: Some(wanted), marker: false })
}

impl Inner {
    /// See [`crate::Node::remove_if`].
    pub(crate) async fn remove_if(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        condition: Condition,
    ) -> Result<(), Error> {
        let must_exist = if condition == Condition::None { Condition::Exists } else { condition };
        match self.remove_current(bucket, key, must_exist).await {
            Err(Error::Precondition { current: None }) => Err(missing(bucket, key)),
            removed => removed.map(drop),
        }
    }

    /// See [`crate::Node::remove_version`].
    pub(crate) async fn remove_version(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        version: Option<VersionId>,
        condition: Condition,
    ) -> Result<Removed, Error> {
        match version {
            None => self.remove_current(bucket, key, condition).await,
            Some(version) => self.remove_for_good(bucket, key, version, condition).await,
        }
    }

    async fn remove_current(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        condition: Condition,
    ) -> Result<Removed, Error> {
        let name = RegisterName::object(bucket, key)?;
        let versioning = self.bucket(bucket).await?.settings.versioning;
        if versioning == Versioning::Never
            && let Some(removed) = self.remove_unversioned(&name, (bucket, key), condition).await?
        {
            return Ok(removed);
        }
        let terms = Terms { condition, versioning, by: None };
        let marker = Record::marker(sys::now_ms());
        let made = self.commit(&name, WriteId(sys::random()), &marker, terms).await?.stored;
        let version = made.version.or(Some(VersionId::Null));
        Ok(Removed { version, marker: true })
    }

    /// Removes the object of a bucket that keeps no versions. `None`: it is one that must be kept, from when its bucket
    /// was another one, or just before it began to keep versions.
    async fn remove_unversioned(
        self: &Arc<Self>,
        name: &RegisterName,
        (bucket, key): (&str, &str),
        condition: Condition,
    ) -> Result<Option<Removed>, Error> {
        let mut removed = None;
        let changed = self.change(name, WriteId(sys::random()), |found| {
            if found.is_none_or(|value| value.present().is_none()) {
                return Err(Why::Refused(Not::Known));
            }
            // A record that can't be read can still be removed.
            removed = object_of(found).unwrap_or_default();
            if removed.is_some() || !matches!(condition, Condition::None | Condition::Exists) {
                put::check(condition, removed.as_ref())?;
            }
            match &removed {
                Some((record, _)) if !record.mark.null || record.mark.null_at.is_some() => {
                    Err(Why::Refused(Not::AsExpected))
                }
                _ => Ok(State::Absent),
            }
        });
        match changed.await? {
            Outcome::Written(_) => {}
            Outcome::Declined(Why::Error(why), _) => return Err(why),
            Outcome::Declined(Why::Refused(Not::AsExpected), _) => return Ok(None),
            Outcome::Declined(Why::Refused(Not::Known | Not::AnyMore), _) => {
                return Err(missing(bucket, key));
            }
        }
        if let Some((record, version)) = removed {
            self.forget_version(&record, version);
        }
        Ok(Some(Removed { version: None, marker: false }))
    }

    async fn remove_for_good(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        wanted: VersionId,
        condition: Condition,
    ) -> Result<Removed, Error> {
        let name = RegisterName::object(bucket, key)?;
        self.check_bucket(bucket).await?;
        let until = Instant::now() + TRYING;
        // Of the null version, that which was the null version first.
        let mut meant = None;
        let mut marker = false;
        while Instant::now() < until {
            let found = self.read(&name).await?.map(|accepted| accepted.value);
            let current = object_of(found.as_ref())?;
            let null = current.as_ref().and_then(|(record, version)| match record.mark.null {
                true => Some(*version),
                false => record.mark.null_at,
            });
            let id = match wanted {
                VersionId::Id(id) => Some(id),
                VersionId::Null => meant.or(null),
            };
            let Some(id) = id else { return nothing_removed(wanted, condition) };
            meant = Some(id);
            let gone = match &current {
                Some((record, version)) if *version == id => {
                    put::check(condition, current.as_ref())?;
                    marker = record.mark.deleted;
                    self.remove_top(&name, found.as_ref(), record, id).await?
                }
                _ => {
                    let is_named = current.is_some_and(|(record, _)| record.mark.null_at == Some(id));
                    self.remove_below(&name, id, is_named, condition, &mut marker).await?
                }
            };
            if gone {
                return Ok(Removed { version: Some(wanted), marker });
            }
        }
        Err(Error::Timeout(format!("removing a version of {name} (it changes all the time)")))
    }

    /// Removes the current version, and makes the next older one current. `false`: it is not what was found any more.
    pub(crate) async fn remove_top(
        self: &Arc<Self>,
        name: &RegisterName,
        found: Option<&Value>,
        record: &Record,
        version: WriteId,
    ) -> Result<bool, Error> {
        let next = self.next_older(name, &record.mark, version).await?;
        self.replace_top(name, found, record, version, next).await
    }

    /// Replaces the current version by the next older one, if the object is still what was found when that was not yet
    /// looked for.
    pub(crate) async fn replace_top(
        self: &Arc<Self>,
        name: &RegisterName,
        found: Option<&Value>,
        record: &Record,
        version: WriteId,
        Next { next, by }: Next,
    ) -> Result<bool, Error> {
        // The tombstone must not be forgotten before the object's register has changed: see `commit.rs`.
        self.condemn(name, &version, by).await?;
        let null_at = record.mark.null_at;
        let written_by = found.and_then(Value::write_id);
        let how = How { by: Some(by), ..How::default() };
        let changed = self.change_as(name, WriteId(sys::random()), how, |found| {
            if found.and_then(Value::write_id) != written_by && !pando_core::mutant("promote-over-anything") {
                return Err(Why::Refused(Not::AsExpected));
            }
            let Some((record, version)) = &next else { return Ok(State::Absent) };
            let null_at = null_at.filter(|_| !record.mark.null);
            let mark = Mark { null_at, ..record.mark.of_version(*version) };
            Ok(State::Present(Record { mark, ..record.clone() }.encode()?))
        });
        match changed.await? {
            Outcome::Written(_) => {
                self.forget_version(record, version);
                Ok(true)
            }
            Outcome::Declined(Why::Error(why), _) => Err(why),
            Outcome::Declined(Why::Refused(_), _) => Ok(false),
        }
    }

    /// Makes the register of a version a tombstone, also if it was none: the version is gone for good from when it is
    /// not current any more.
    pub(crate) async fn condemn(
        self: &Arc<Self>,
        name: &RegisterName,
        version: &WriteId,
        by: Instant,
    ) -> Result<(), Error> {
        let Some(aside) = name.aside(version) else { return Ok(()) };
        let how = How { by: Some(by), ..How::default() };
        let condemned = self.change_as(&aside, WriteId(sys::random()), how, |_| Ok::<_, ()>(State::Absent));
        condemned.await.map(drop)
    }

    /// The newest version below the current one, `above`.
    pub(crate) async fn next_older(
        self: &Arc<Self>,
        name: &RegisterName,
        mark: &Mark,
        above: WriteId,
    ) -> Result<Next, Error> {
        let by = Instant::now() + PATIENCE;
        if let Some(before) = mark.before
            && let Some(record) = self.hold(name, before, by).await?
            && counts(record.mark.null, before, mark.null_at)
        {
            return Ok(Next { next: Some((record, before)), by });
        }
        for _ in 0..ATTEMPTS {
            let newest = self.newest_aside(name, mark, above).await?;
            let by = Instant::now() + PATIENCE;
            let Some(id) = newest else { return Ok(Next { next: None, by }) };
            // If it went meanwhile, another one is the newest.
            if let Some(record) = self.hold(name, id, by).await? {
                return Ok(Next { next: Some((record, id)), by });
            }
        }
        Err(Error::Busy(format!("the versions of {name} are removed all the time")))
    }

    /// The newest version of all that have a register of their own, but for the current one, `above`.
    async fn newest_aside(
        self: &Arc<Self>,
        name: &RegisterName,
        mark: &Mark,
        above: WriteId,
    ) -> Result<Option<WriteId>, Error> {
        let Some((bucket, key)) = name.object_parts() else { return Ok(None) };
        let prefix = Bytes::from(RegisterName::versions_of(bucket, key)?);
        let (mut newest, mut after) = (None, None);
        loop {
            let page = self.page(prefix.clone(), after, usize::MAX, Consistency::Linearizable).await?;
            let others = page
                .entries
                .iter()
                .filter(|(_, shown)| shown.etag != above && counts(shown.null, shown.etag, mark.null_at));
            newest = others.map(|(_, shown)| (shown.place, shown.etag)).max().max(newest);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(newest.map(|(_, id)| id)),
            }
        }
    }

    /// Writes the register of a version again, as it is, if it holds that; see the module's text. What it holds.
    async fn hold(
        self: &Arc<Self>,
        name: &RegisterName,
        id: WriteId,
        by: Instant,
    ) -> Result<Option<Record>, Error> {
        let Some(aside) = name.aside(&id) else { return Ok(None) };
        let mut held = None;
        let how = How { by: Some(by), ..How::default() };
        let written = self.change_as(&aside, WriteId(sys::random()), how, |found| {
            let Some(bytes) = found.and_then(Value::present) else { return Err(Why::Refused(Not::Known)) };
            held = object_of(found)?.map(|(record, _)| record);
            Ok(State::Present(bytes.clone()))
        });
        match written.await? {
            Outcome::Written(_) => Ok(held),
            Outcome::Declined(Why::Error(why), _) => Err(why),
            Outcome::Declined(Why::Refused(_), _) => Ok(None),
        }
    }

    /// Removes a version that is not current. `false`: it may be current by now.
    async fn remove_below(
        self: &Arc<Self>,
        name: &RegisterName,
        id: WriteId,
        is_named: bool,
        condition: Condition,
        marker: &mut bool,
    ) -> Result<bool, Error> {
        let Some(aside) = name.aside(&id) else { return Ok(true) };
        let mut was = None;
        let changed = self.change(&aside, WriteId(sys::random()), |found| match found {
            None => Err(Why::Refused(Not::Known)),
            Some(value) if value.present().is_none() => Err(Why::Refused(Not::AnyMore)),
            found => {
                // A record that can't be read can still be removed.
                was = object_of(found).unwrap_or_default();
                if condition != Condition::None {
                    put::check(condition, was.as_ref())?;
                }
                Ok(State::Absent)
            }
        });
        match changed.await? {
            Outcome::Written(_) => {}
            Outcome::Declined(Why::Error(why), _) => return Err(why),
            // Who removed it may not have come to the end.
            Outcome::Declined(Why::Refused(Not::AnyMore), _) => {}
            Outcome::Declined(Why::Refused(Not::Known | Not::AsExpected), _) => {
                put::check(condition, None)?;
                // Who removed it so long ago has come to the end, unless it is still named.
                if !is_named {
                    return Ok(true);
                }
            }
        }
        if !self.renew(name, id, true).await? {
            return Ok(false);
        }
        match was {
            Some((record, _)) => {
                *marker = record.mark.deleted;
                self.forget_version(&record, id);
            }
            None => self.forget(id),
        }
        Ok(true)
    }

    /// Removes a version for good if it is not current, see the module's text. `false`: it is.
    pub(crate) async fn remove_older(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        id: WriteId,
    ) -> Result<bool, Error> {
        let name = RegisterName::object(bucket, key)?;
        let until = Instant::now() + TRYING;
        while Instant::now() < until {
            match self.look_at_older(&name, id).await? {
                Older::Gone => return Ok(true),
                Older::Current => return Ok(false),
                Older::Version(written_by) => {
                    if self.remove_unless_written(&name, id, written_by).await? {
                        return Ok(true);
                    }
                }
            }
        }
        Err(Error::Timeout(format!("removing a version of {name} (it changes all the time)")))
    }

    /// The first two steps of [`Inner::remove_older`].
    pub(crate) async fn look_at_older(
        self: &Arc<Self>,
        name: &RegisterName,
        id: WriteId,
    ) -> Result<Older, Error> {
        let Some(aside) = name.aside(&id) else { return Ok(Older::Gone) };
        let found = self.read(&aside).await?.map(|accepted| accepted.value);
        let Some(written_by) = found.filter(|value| value.present().is_some()).and_then(|v| v.write_id())
        else {
            return Ok(Older::Gone);
        };
        match self.renew(name, id, false).await? {
            true => Ok(Older::Version(written_by)),
            false => Ok(Older::Current),
        }
    }

    /// The third step. `false`: its register was written since.
    pub(crate) async fn remove_unless_written(
        self: &Arc<Self>,
        name: &RegisterName,
        id: WriteId,
        written_by: WriteId,
    ) -> Result<bool, Error> {
        let Some(aside) = name.aside(&id) else { return Ok(true) };
        let mut was = None;
        let changed = self.change(&aside, WriteId(sys::random()), |found| {
            if found.and_then(Value::write_id) != Some(written_by) {
                return Err(());
            }
            was = object_of(found).unwrap_or_default();
            Ok(State::Absent)
        });
        if let Outcome::Declined(..) = changed.await? {
            return Ok(false);
        }
        match was {
            Some((record, _)) => {
                if record.mark.null {
                    self.renew(name, id, true).await?;
                }
                self.forget_version(&record, id);
            }
            None => self.forget(id),
        }
        Ok(true)
    }
}
