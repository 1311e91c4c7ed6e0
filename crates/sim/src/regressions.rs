//! Seeds that once found a defect, with what it was. Each is run again in `tests/regressions.rs`.
//!
//! A seed means its world only as long as the drawing stays as it is: when [`crate::schedule`] or
//! [`crate::client`] change, an old seed still runs, but is another world.

/// A name that says what went wrong, and the seed.
pub const REGRESSIONS: &[(&str, u64)] = &[];
