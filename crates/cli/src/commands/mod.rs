//! The commands, one file each, named as the operation is named on every floor below.

pub(crate) mod bucket;
pub(crate) mod check;
mod content_type;
mod destination;
pub(crate) mod drain;
pub(crate) mod get;
pub(crate) mod invite;
pub(crate) mod key;
pub(crate) mod list;
pub(crate) mod plan;
mod progress;
pub(crate) mod put;
pub(crate) mod remove;
pub(crate) mod remove_node;
pub(crate) mod scrub;
pub(crate) mod share;
pub(crate) mod stat;
pub(crate) mod status;
mod table;
pub(crate) mod transfer;
pub(crate) mod up;

/// Says that an answer may be old.
fn note_stale(stale: bool) {
    if stale {
        crate::output::note("pando: --stale: this is what the local node holds; it may be old or incomplete");
    }
}

/// The value of an answer that may be old, which says so.
fn marked_stale(mut value: serde_json::Value, stale: bool) -> serde_json::Value {
    if stale {
        value["stale"] = true.into();
    }
    value
}
