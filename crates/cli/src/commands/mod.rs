//! The commands, one file each, named as the operation is named on every floor below.

pub(crate) mod bucket;
mod content_type;
mod destination;
pub(crate) mod get;
pub(crate) mod invite;
pub(crate) mod list;
pub(crate) mod put;
pub(crate) mod remove;
pub(crate) mod stat;
pub(crate) mod status;
pub(crate) mod transfer;
pub(crate) mod up;

/// Says that an answer may be old.
fn note_stale(stale: bool) {
    if stale {
        crate::output::note("pando: --stale: this is what the local node holds; it may be old or incomplete");
    }
}
