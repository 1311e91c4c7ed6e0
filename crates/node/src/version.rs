//! Versions: finding the current one, or another one, of an object.

use std::sync::Arc;

use pando_core::{
    bucket::Versioning, id::WriteId, mark::Mark, name::RegisterName, record::Record, register::State,
};

use crate::{
    api::{Consistency, ObjectInfo, VersionId},
    error::{Error, Why},
    inner::{Inner, object_of},
    register::Outcome,
    sys,
};

/// How often it is looked for a null version that others move meanwhile.
const ATTEMPTS: usize = 8;

/// The name of the object, a version of it, and which it is: what its body is sealed under.
pub(crate) type Found = (RegisterName, Record, WriteId);

/// Where a version is.
pub(crate) enum Located {
    /// It is current.
    Current(Record, WriteId),
    /// It is not, and has a register of its own.
    Aside(Record, WriteId),
}

/// The version's id, as it is shown where versions are kept.
pub(crate) fn version_id(mark_is_null: bool, version: WriteId) -> VersionId {
    if mark_is_null { VersionId::Null } else { VersionId::Id(version) }
}

fn is(wanted: VersionId, record: &Record, version: WriteId) -> bool {
    match wanted {
        VersionId::Null => record.mark.null,
        VersionId::Id(id) => id == version,
    }
}

/// Whether a null version in a register of its own counts, given what is current; others always do.
pub(crate) fn counts(null: bool, version: WriteId, null_at: Option<WriteId>) -> bool {
    !null || null_at == Some(version)
}

impl Inner {
    /// The object as it is now.
    pub(crate) async fn find(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        consistency: Consistency,
    ) -> Result<Found, Error> {
        let name = RegisterName::object(bucket, key)?;
        let found = match consistency {
            Consistency::Linearizable => self.read(&name).await?,
            Consistency::Stale => self.store.peek(name.clone()).await?,
        };
        match object_of(found.as_ref().map(|accepted| &accepted.value))? {
            Some((record, version)) => no_marker((name, record, version)),
            None => {
                if consistency == Consistency::Linearizable {
                    self.check_bucket(bucket).await?;
                }
                Err(Error::NotFound { bucket: bucket.to_owned(), key: key.to_owned(), marker: None })
            }
        }
    }

    /// The object as it is now, or one of its versions.
    pub(crate) async fn find_version(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        wanted: Option<VersionId>,
    ) -> Result<Found, Error> {
        let Some(wanted) = wanted else { return self.find(bucket, key, Consistency::Linearizable).await };
        let name = RegisterName::object(bucket, key)?;
        match self.locate(&name, wanted).await? {
            Some(Located::Current(record, version) | Located::Aside(record, version)) => {
                no_marker((name, record, version))
            }
            None => {
                self.check_bucket(bucket).await?;
                Err(no_such_version(bucket, key, wanted))
            }
        }
    }

    /// A version of an object, or a delete marker.
    ///
    /// The object's register is read before the version's own. A null version that it names, and that then has no register
    /// of its own, was replaced or removed for good since. If it was replaced, the register never names it
    /// again; so if the register names it still when it is read again, it was removed for good, and there is no null version.
    pub(crate) async fn locate(
        self: &Arc<Self>,
        name: &RegisterName,
        wanted: VersionId,
    ) -> Result<Option<Located>, Error> {
        let mut missed = None;
        for _ in 0..ATTEMPTS {
            let found = self.read(name).await?;
            let null_at = match object_of(found.as_ref().map(|accepted| &accepted.value))? {
                Some((record, version)) if is(wanted, &record, version) => {
                    return Ok(Some(Located::Current(record, version)));
                }
                current => current.and_then(|(record, _)| record.mark.null_at),
            };
            let id = match (wanted, null_at) {
                (VersionId::Id(id), _) | (VersionId::Null, Some(id)) => id,
                (VersionId::Null, None) => return Ok(None),
            };
            if missed == Some(id) {
                return Ok(None);
            }
            let aside = self.read_aside(name, &id).await?;
            if let Some(record) = aside.filter(|record| counts(record.mark.null, id, null_at)) {
                return Ok(Some(Located::Aside(record, id)));
            }
            if wanted != VersionId::Null {
                return Ok(None);
            }
            missed = Some(id);
        }
        Err(Error::Busy(format!("the null version of {name} is replaced all the time")))
    }

    /// What the register of a version that is not current holds.
    pub(crate) async fn read_aside(
        self: &Arc<Self>,
        name: &RegisterName,
        id: &WriteId,
    ) -> Result<Option<Record>, Error> {
        let Some(aside) = name.aside(id) else { return Ok(None) };
        let found = self.read(&aside).await?;
        let held = object_of(found.as_ref().map(|accepted| &accepted.value))?;
        Ok(held.map(|(record, _)| record))
    }

    /// Writes the current version of an object again, as it is, after another version of it, `changed`, was changed or
    /// removed. Who meanwhile makes a version current by what it saw before finds that the object changed, and looks
    /// again. `false`: it is the changed version that is current now.
    pub(crate) async fn renew(
        self: &Arc<Self>,
        name: &RegisterName,
        changed: WriteId,
        is_gone: bool,
    ) -> Result<bool, Error> {
        enum Not {
            There,
            Another,
        }
        if pando_core::mutant("remove-without-renewing") {
            return Ok(true);
        }
        let renewed = self.change(name, WriteId(sys::random()), |found| match object_of(found)? {
            None => Err(Why::Refused(Not::There)),
            Some((_, version)) if version == changed => Err(Why::Refused(Not::Another)),
            Some((mut record, version)) => {
                let null_at = record.mark.null_at.filter(|id| !(is_gone && *id == changed));
                record.mark = Mark { null_at, ..record.mark.of_version(version) };
                Ok(State::Present(record.encode()?))
            }
        });
        match renewed.await? {
            Outcome::Written(_) | Outcome::Declined(Why::Refused(Not::There), _) => Ok(true),
            Outcome::Declined(Why::Refused(Not::Another), _) => Ok(false),
            Outcome::Declined(Why::Error(why), _) => Err(why),
        }
    }

    /// What is told of a version that was found.
    pub(crate) async fn info(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        (_, record, version): &Found,
        consistency: Consistency,
    ) -> ObjectInfo {
        let is_shown =
            !record.mark.null || self.versioning_lately(bucket, consistency).await != Versioning::Never;
        ObjectInfo {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            size: record.size,
            hash: record.hash,
            etag: *version,
            version: is_shown.then(|| version_id(record.mark.null, *version)),
            modified: record.modified,
            meta: record.meta.clone(),
            headers: record.headers.clone(),
            digests: record.digests.clone(),
            tags: record.tags.clone(),
        }
    }
}

/// A delete marker is no object.
fn no_marker(found: Found) -> Result<Found, Error> {
    let (name, record, version) = &found;
    if !record.mark.deleted {
        return Ok(found);
    }
    let (bucket, key) = name.object_parts().unwrap_or_default();
    let marker = Some(version_id(record.mark.null, *version));
    Err(Error::NotFound { bucket: bucket.to_owned(), key: key.to_owned(), marker })
}

pub(crate) fn no_such_version(bucket: &str, key: &str, version: VersionId) -> Error {
    Error::NoSuchVersion { bucket: bucket.to_owned(), key: key.to_owned(), version }
}
