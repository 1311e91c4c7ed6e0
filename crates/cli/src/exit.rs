//! How a command ends: the kinds of failure, their exit codes, and the one place that maps a node's
//! errors to them. A [`Failure`] is also what crosses the control socket.

use std::{fmt, process::ExitCode};

use pando_core::record::RecordError;
use pando_node::Error;
use serde::{Deserialize, Serialize};

/// The table of exit codes, for `--help`.
pub(crate) const TABLE: &str = "\
Exit codes:
  0  done
  1  failed, or no node is running
  2  bad usage: an argument, a name, a range
  3  not found: no such object, bucket or node
  4  refused: a precondition failed, exists already, not empty, or unsafe; nothing was changed
  5  not enough nodes, busy, or too slow
  6  no space left on the nodes
  7  data unavailable or damaged
  8  outcome unknown: the change may or may not have taken effect
  9  not in order: `check` or `scrub --now` found something";

/// What kind of failure; each has its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// Anything else, and no node running.
    Failed,
    /// The request makes no sense.
    Usage,
    /// No such object or bucket.
    NotFound,
    /// It was refused: it exists already, changed meanwhile, is not empty, would cost copies.
    Precondition,
    /// Too few nodes answered, or not in time.
    NotEnough,
    /// The nodes are full.
    NoSpace,
    /// No good copy of the data could be had.
    Damaged,
    /// The change may or may not have taken effect.
    Unknown,
    /// Copies are missing, outdated or damaged.
    NotClean,
}

impl Kind {
    /// The exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::NotFound => 3,
            Kind::Precondition => 4,
            Kind::NotEnough => 5,
            Kind::NoSpace => 6,
            Kind::Damaged => 7,
            Kind::Unknown => 8,
            Kind::NotClean => 9,
        }
    }
}

impl From<Kind> for ExitCode {
    fn from(kind: Kind) -> Self {
        ExitCode::from(kind.code())
    }
}

/// A failure with its kind and a text for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// Which exit code.
    pub(crate) kind: Kind,
    /// What happened, why, and what to do.
    pub(crate) message: String,
}

impl Failure {
    /// A failure of this kind.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// Bad usage.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::NotFound { .. }
            | Error::NoSuchVersion { .. }
            | Error::NoSuchBucket(_)
            | Error::NoSuchKey(_)
            | Error::NoSuchUpload(_)
            | Error::NoSuchPart(_) => Kind::NotFound,
            Error::BucketExists(_)
            | Error::BucketNotEmpty(_)
            | Error::Precondition { .. }
            | Error::Membership(_) => Kind::Precondition,
            Error::NotEnoughNodes { .. } | Error::Timeout(_) | Error::Busy(_) => Kind::NotEnough,
            Error::NoSpace(_) => Kind::NoSpace,
            Error::ChunkUnavailable { .. } => Kind::Damaged,
            Error::Unknown(_) | Error::JoinUndecided(_) => Kind::Unknown,
            Error::Range { .. } | Error::Name(_) | Error::PartOrder => Kind::Usage,
            Error::Setup(why) if is_about_an_option(why) => Kind::Usage,
            Error::Record(RecordError::MetaTooLarge { .. }) => Kind::Usage,
            Error::Record(_) => Kind::Damaged,
            Error::Store(pando_node::StoreError::NoSpace { .. }) => Kind::NoSpace,
            Error::Source(_)
            | Error::JoinRefused(_)
            | Error::Setup(_)
            | Error::Store(_)
            | Error::Net(_)
            | Error::Wire(_)
            | Error::Stopping => Kind::Failed,
        };
        Self { kind, message: error.to_string() }
    }
}

/// Whether the node can't start with an option that was given, rather than that something failed. Its error
/// has one variant for both; these texts begin with the option, or with the ticket's mismatch.
fn is_about_an_option(why: &str) -> bool {
    why.starts_with("--") || why.starts_with("this data folder belongs to another network than the ticket")
}

/// The kind of an error: that of the failure in it, if there is one.
pub(crate) fn kind_of(error: &anyhow::Error) -> Kind {
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Failure>())
        .map_or(Kind::Failed, |failure| failure.kind)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_kind_is_found_below_its_context() {
        let error = anyhow::Error::new(Failure::new(Kind::NoSpace, "full")).context("put x");
        assert_eq!(kind_of(&error), Kind::NoSpace);
        assert_eq!(format!("{error:#}"), "put x: full");
        let other = Err::<(), _>(std::io::Error::other("no")).context("read").unwrap_err();
        assert_eq!(kind_of(&other), Kind::Failed);
    }

    #[test]
    fn every_code_is_in_the_table_once() {
        use Kind::*;
        for kind in [Failed, Usage, NotFound, Precondition, NotEnough, NoSpace, Damaged, Unknown, NotClean] {
            assert_eq!(TABLE.matches(&format!("\n  {}  ", kind.code())).count(), 1, "{kind:?}");
        }
    }
}
