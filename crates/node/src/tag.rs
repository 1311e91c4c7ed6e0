//! Tags: an object's, or a version's, are changed in place. It stays the version that it is, with its time.

use std::sync::Arc;

use pando_core::{
    id::WriteId,
    name::RegisterName,
    record::{Record, check_tags},
    register::State,
};

use crate::{
    api::{Consistency, ObjectInfo, VersionId},
    error::{Error, Why},
    inner::{Inner, object_of},
    register::Outcome,
    sys,
    version::no_such_version,
};

/// How often it starts again because the version moved meanwhile.
const ATTEMPTS: usize = 8;

/// Why tags were not changed.
enum Not {
    /// The register does not hold the version.
    Here,
}

impl Inner {
    /// See [`crate::Node::set_tags`].
    pub(crate) async fn set_tags(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        tags: Vec<(String, String)>,
        wanted: Option<VersionId>,
    ) -> Result<ObjectInfo, Error> {
        check_tags(&tags)?;
        for _ in 0..ATTEMPTS {
            let (name, _, version) = self.find_version(bucket, key, wanted).await?;
            let mut tagged = self.tag(&name, version, &tags).await?;
            if let (None, Some(_), Some(aside)) = (&tagged, wanted, name.aside(&version)) {
                tagged = self.tag(&aside, version, &tags).await?;
                // Who makes it current by what it was before must look again; who has done so is made up for.
                if tagged.is_some() && !self.renew(&name, version, false).await? {
                    tagged = self.tag(&name, version, &tags).await?;
                }
            }
            if let Some(record) = tagged {
                let found = (name, record, version);
                return Ok(self.info(bucket, key, &found, Consistency::Linearizable).await);
            }
        }
        match wanted {
            Some(wanted) => Err(no_such_version(bucket, key, wanted)),
            None => Err(Error::Busy(format!("{bucket}/{key} is replaced all the time"))),
        }
    }

    /// Changes the tags of a version in a register, if that holds it.
    pub(crate) async fn tag(
        self: &Arc<Self>,
        register: &RegisterName,
        version: WriteId,
        tags: &[(String, String)],
    ) -> Result<Option<Record>, Error> {
        let mut tagged = None;
        let changed = self.change(register, WriteId(sys::random()), |found| match object_of(found)? {
            Some((mut record, there)) if there == version && !record.mark.deleted => {
                record.mark = record.mark.of_version(version);
                record.mark.revision = record.mark.revision.saturating_add(1);
                record.tags = tags.to_vec();
                let bytes = record.encode()?;
                tagged = Some(record);
                Ok(State::Present(bytes))
            }
            _ => Err(Why::Refused(Not::Here)),
        });
        match changed.await? {
            Outcome::Written(_) => Ok(tagged),
            Outcome::Declined(Why::Refused(Not::Here), _) => Ok(None),
            Outcome::Declined(Why::Error(why), _) => Err(why),
        }
    }
}
