//! Marks: which version of its key a record is, and its place among them.
//!
//! The register of an object holds its *current* version. A version that is not current has a register of its own
//! ([`RegisterName::version`]), with the same record. Owns what both must say, and the rules by which a new version
//! takes its place; who may write which register when is decided in the node.
//!
//! [`RegisterName::version`]: crate::name::RegisterName::version

use serde::{Deserialize, Serialize};

use crate::{
    bucket::Versioning,
    id::WriteId,
    record::{Record, RecordError},
    register::Value,
};

/// Which version of its key a record is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The version's id, if it is not the id of the write that made the register's value: a version keeps its id when
    /// it is moved to another register, or changed in place.
    pub version: Option<WriteId>,
    /// Its place among the versions of its key: higher is newer, no two are equal. It follows the clock
    /// (milliseconds), so that versions that were put while the bucket kept none have theirs, too.
    pub place: u64,
    /// Whether it is the null version, of which a key has one at most: what is put while the bucket does not keep
    /// versions.
    pub null: bool,
    /// Whether it is a delete marker: as long as it is current, there is no object.
    pub deleted: bool,
    /// Of what is current: the id of the null version, if that is not current and is kept. A null version in a register
    /// of its own that this does not name is of no account.
    pub null_at: Option<WriteId>,
    /// The version that it was put on top of, if that was kept. If it is there still, it is the next older one.
    pub before: Option<WriteId>,
    /// How often it was changed in place (its tags): of two copies, the one with more is the right one.
    pub revision: u32,
}

impl Mark {
    /// Of what was put while there were no versions.
    pub fn null_at(modified: u64) -> Self {
        Self { place: modified, null: true, ..Self::default() }
    }

    /// Whether what this marks must be kept when a version is put on top of it. A null version makes room for another
    /// null version only; all others stay until they are removed by their id.
    pub fn stays(&self, versioning: Versioning) -> bool {
        !self.null || versioning == Versioning::Enabled
    }

    /// The mark of a new version that is put on top of `found`, if anything is there; `kept`: whether that has a
    /// register of its own from now on.
    pub fn on_top_of(
        found: Option<(&Mark, WriteId)>,
        kept: bool,
        versioning: Versioning,
        deleted: bool,
        now_ms: u64,
    ) -> Self {
        let null = versioning != Versioning::Enabled;
        let place = found.map_or(now_ms, |(mark, _)| now_ms.max(mark.place.saturating_add(1)));
        let (mut before, mut null_at) = (None, None);
        if let Some((mark, version)) = found {
            before = if kept { Some(version) } else { mark.before };
            null_at = if kept && mark.null { Some(version) } else { mark.null_at };
        }
        Self { place, null, deleted, null_at: null_at.filter(|_| !null), before, ..Self::default() }
    }

    /// The mark of the same version in another register, or changed in place.
    pub fn of_version(&self, version: WriteId) -> Self {
        Self { version: Some(version), ..self.clone() }
    }
}

/// The record that a register's value holds, and which version it is. Of parts of uploads, too.
pub fn version_in(value: Option<&Value>) -> Result<Option<(Record, WriteId)>, RecordError> {
    let Some((bytes, written_by)) = value.and_then(|value| Some((value.present()?, value.write_id()?)))
    else {
        return Ok(None);
    };
    let record = Record::decode(bytes)?;
    let version = record.mark.version.unwrap_or(written_by);
    Ok(Some((record, version)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: WriteId = WriteId([1; 16]);
    const B: WriteId = WriteId([2; 16]);

    #[test]
    fn a_new_version_is_above_what_it_found_whatever_the_clock_says() {
        let first = Mark::on_top_of(None, false, Versioning::Enabled, false, 1000);
        assert_eq!((first.place, first.null, first.before), (1000, false, None));
        let second = Mark::on_top_of(Some((&first, A)), true, Versioning::Enabled, true, 5);
        assert_eq!((second.place, second.deleted, second.before), (1001, true, Some(A)));
        let third = Mark::on_top_of(Some((&second, B)), true, Versioning::Enabled, false, 2000);
        assert_eq!((third.place, third.before), (2000, Some(B)));
    }

    #[test]
    fn there_is_one_null_version_at_most() {
        let null = Mark::null_at(1000);
        assert!(null.stays(Versioning::Enabled) && !null.stays(Versioning::Suspended));
        let own = Mark::on_top_of(Some((&null, A)), true, Versioning::Enabled, false, 2000);
        assert_eq!((own.null, own.null_at), (false, Some(A)), "it is known where the null version went");
        assert!(own.stays(Versioning::Suspended) && own.stays(Versioning::Never));
        let other = Mark::on_top_of(Some((&own, B)), true, Versioning::Enabled, false, 3000);
        assert_eq!(other.null_at, Some(A));
        let replaced = Mark::on_top_of(Some((&other, B)), true, Versioning::Suspended, false, 4000);
        assert_eq!((replaced.null, replaced.null_at, replaced.before), (true, None, Some(B)));
        let again = Mark::on_top_of(Some((&replaced, A)), false, Versioning::Suspended, false, 5000);
        assert_eq!(
            (again.null_at, again.before),
            (None, Some(B)),
            "what is below the one replaced is below it"
        );
    }

    #[test]
    fn what_was_not_kept_is_not_looked_for() {
        let null = Mark::null_at(1000);
        let own = Mark::on_top_of(Some((&null, A)), false, Versioning::Enabled, false, 2000);
        assert_eq!((own.null_at, own.before), (None, None));
    }
}
