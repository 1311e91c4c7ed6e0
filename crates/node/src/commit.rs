//! Commit: a new version becomes current, and what was current is kept if it must be.
//!
//! The register of an object holds its current version; one that is not current has a register of its own. So what is
//! current is *archived* before it is replaced: first its record is written to its own register, then the object's
//! register changes, if it still holds just what was archived. Whoever sees a version replaced finds its copy
//! there, or it was removed for good. A crash in between leaves a copy of what is current, which nobody minds.
//!
//! The register of a version that was removed for good is a tombstone, before the version stops being current. Whoever
//! wants to archive such a version finds it condemned, and replaces it without.

use std::{sync::Arc, time::Duration};

use pando_core::{
    bucket::Versioning,
    id::WriteId,
    mark::Mark,
    name::RegisterName,
    record::Record,
    register::{State, Value},
    wire::Request,
};

use crate::{
    api::{Condition, Stored, VersionId},
    error::{Error, Why},
    inner::{EXCHANGE, Inner, PATIENCE, object_of},
    put::check,
    register::{How, Outcome, Written},
    sys::{self, Instant},
};

/// How long an acknowledgement waits for owners beyond the majority, so that the count of copies is right.
const LAST_COPY: Duration = Duration::from_millis(100);
/// How long, after a version was seen to be current, its archiving may go on: with the exchange in which it was seen,
/// [`PATIENCE`]. The tombstone of a version that was removed for good is not forgotten sooner than twice that
/// after it stopped being current, see [`crate::purge`], so that an archiver that is late finds it.
const ARCHIVING: Duration = PATIENCE.saturating_sub(EXCHANGE);

/// On what terms a version becomes current.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// What must hold.
    pub(crate) condition: Condition,
    /// Whether the bucket keeps what is replaced.
    pub(crate) versioning: Versioning,
    /// Nothing is proposed after this, if the version has chunks of its own: see `Upload::commit`.
    pub(crate) by: Option<Instant>,
}

/// What is there must be archived before a version may become current.
struct Archive;

/// Why a version's register was not written.
enum NotArchived {
    /// It was removed for good.
    Condemned,
    /// It was archived before.
    There,
}

/// A version that became current.
pub(crate) struct Committed {
    pub(crate) stored: Stored,
    /// Whether it was found to be so already: perhaps with another record, see [`Written`].
    pub(crate) already: bool,
}

/// What a new version was put on top of.
pub(crate) struct Replaced {
    record: Record,
    version: WriteId,
    kept: bool,
}

impl Inner {
    /// Makes a version current.
    pub(crate) async fn commit(
        self: &Arc<Self>,
        name: &RegisterName,
        version: WriteId,
        record: &Record,
        terms: Terms,
    ) -> Result<Committed, Error> {
        let (written, replaced) = self.put_on_top(name, version, record, terms).await?;
        let already = written.already;
        if let Some(replaced) = replaced {
            self.let_go(name, &replaced, terms.versioning);
        }
        let wanted = self.layout()?.owners(name.partition()).len();
        let copies = written.copies.settle(LAST_COPY).await.min(wanted);
        let (size, hash) = (record.size, record.hash);
        let shown = match terms.versioning {
            Versioning::Never => None,
            Versioning::Enabled => Some(VersionId::Id(version)),
            Versioning::Suspended => Some(VersionId::Null),
        };
        let stored = Stored { size, hash, etag: version, version: shown, copies, wanted };
        Ok(Committed { stored, already })
    }

    /// Changes the register, having archived what is there if it must be. One of a node's changes to a register at a
    /// time: otherwise each would archive what another one is about to replace.
    async fn put_on_top(
        self: &Arc<Self>,
        name: &RegisterName,
        version: WriteId,
        record: &Record,
        terms: Terms,
    ) -> Result<(Written, Option<Replaced>), Error> {
        let _turn = self.turn(name).await?;
        let until = Instant::now() + PATIENCE;
        let mut record = record.clone();
        // Which write's value may be replaced, and whether it is kept.
        let mut free: Option<(Option<WriteId>, bool)> = None;
        loop {
            let (mut replaced, mut seen) = (None, Instant::now());
            let how = How { by: terms.by, ..How::default() };
            let changed = self.change_in_turn(name, version, how, |found| {
                seen = Instant::now();
                let current = object_of(found)?;
                check(terms.condition, current.as_ref())?;
                let written_by = found.and_then(Value::write_id);
                let stays = current.as_ref().is_some_and(|(there, _)| there.mark.stays(terms.versioning))
                    && !pando_core::mutant("replace-unarchived");
                let kept = match free.filter(|(write, _)| stays && *write == written_by) {
                    Some((_, kept)) => kept,
                    None if stays => return Err(Why::Refused(Archive)),
                    None => false,
                };
                let on = current.as_ref().map(|(there, version)| (&there.mark, *version));
                let deleted = record.mark.deleted;
                record.mark = Mark::on_top_of(on, kept, terms.versioning, deleted, sys::now_ms());
                replaced = current.map(|(record, version)| Replaced { record, version, kept });
                Ok(State::Present(record.encode()?))
            });
            let found = match changed.await? {
                Outcome::Written(written) => return Ok((written, replaced)),
                Outcome::Declined(Why::Error(why), _) => return Err(why),
                Outcome::Declined(Why::Refused(Archive), found) => found.map(|accepted| accepted.value),
            };
            if Instant::now() >= until {
                return Err(Error::Timeout(format!("a change of {name} (others change it all the time)")));
            }
            if let Some((record, version)) = object_of(found.as_ref())? {
                let by = terms.by.into_iter().fold(seen + ARCHIVING, Instant::min);
                let kept = self.archive(name, &record, version, by).await?;
                free = Some((found.as_ref().and_then(Value::write_id), kept));
            }
        }
    }

    /// Writes what is current to a register of its own. `false`: it was removed for good, and need not be kept.
    ///
    /// Of two copies with the same number of changes the current one is right: the other was changed while the version was
    /// just made current as it was before, by someone who has not been told yet that this succeeded (`tag.rs` looks
    /// again before it says so). An archiver that is late, when the version is not current any more, overwrites nothing newer:
    /// who replaced it had archived it with as many changes as it had when it was current, or more, and alike if as
    /// many; each change since counts one more.
    pub(crate) async fn archive(
        self: &Arc<Self>,
        name: &RegisterName,
        record: &Record,
        version: WriteId,
        by: Instant,
    ) -> Result<bool, Error> {
        let Some(aside) = name.aside(&version) else { return Ok(false) };
        let mark = Mark { null_at: None, ..record.mark.of_version(version) };
        let bytes = Record { mark, ..record.clone() }.encode()?;
        let how = How { by: Some(by), ..How::default() };
        // The turn is that of the object.
        let archived = self.change_in_turn(&aside, WriteId(sys::random()), how, |found| {
            match (found, object_of(found)?) {
                (None, _) => Ok(State::Present(bytes.clone())),
                (Some(_), None) if !pando_core::mutant("archive-condemned") => {
                    Err(Why::Refused(NotArchived::Condemned))
                }
                (Some(_), None) => Ok(State::Present(bytes.clone())),
                // What is current was changed in place since; or its copy was, by someone who was late: see below.
                (Some(value), Some((there, _)))
                    if there.mark.revision <= record.mark.revision && value.present() != Some(&bytes) =>
                {
                    Ok(State::Present(bytes.clone()))
                }
                (Some(_), Some(_)) => Err(Why::Refused(NotArchived::There)),
            }
        });
        match archived.await {
            Ok(Outcome::Written(_) | Outcome::Declined(Why::Refused(NotArchived::There), _)) => Ok(true),
            Ok(Outcome::Declined(Why::Refused(NotArchived::Condemned), _)) => Ok(false),
            Ok(Outcome::Declined(Why::Error(why), _)) => Err(why),
            // Whether it is archived may be unknown; that nothing was replaced is not.
            Err(Error::Unknown(why)) => Err(Error::Timeout(why)),
            Err(why) => Err(why),
        }
    }

    /// Of what is not kept, the chunks go in time. A null version that a null version replaced has no register any more
    /// either, if it had one; who is cut off here leaves a stray, see [`crate::stray`].
    fn let_go(self: &Arc<Self>, name: &RegisterName, replaced: &Replaced, versioning: Versioning) {
        let Replaced { record, version, kept } = replaced;
        match name.part_parts() {
            // However short, a part has chunks.
            Some(_) => self.forget(*version),
            None if !kept => self.forget_version(record, *version),
            None => {}
        }
        let gone = match record.mark.null {
            _ if versioning == Versioning::Enabled => None,
            true => {
                Some(*version).filter(|_| versioning != Versioning::Never || record.mark.version.is_some())
            }
            false => record.mark.null_at,
        };
        let Some((aside, id)) = gone.and_then(|id| Some((name.aside(&id)?, id))) else { return };
        let inner = Arc::clone(self);
        self.spawn_until_stopped(async move {
            match inner.drop_aside(&aside).await {
                Ok(()) => inner.tell_all(Request::Recheck(vec![id])),
                Err(error) => tracing::debug!(%aside, %error, "a null version that was replaced goes later"),
            }
        });
    }

    /// Makes the register of a version a tombstone, if it holds anything.
    pub(crate) async fn drop_aside(self: &Arc<Self>, aside: &RegisterName) -> Result<(), Error> {
        let dropped = self.change(aside, WriteId(sys::random()), |found| {
            match found.is_some_and(|value| value.present().is_some()) {
                true => Ok(State::Absent),
                false => Err(()),
            }
        });
        dropped.await.map(drop)
    }
}
