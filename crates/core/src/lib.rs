//! Decisions without I/O.
//!
//! Everything here is a pure function or a pure state machine: no runtime, no files, no clock, no
//! random source. Time, randomness and stored state are arguments. The crates above perform what
//! is decided here.

pub mod access;
pub mod bucket;
pub mod customer;
pub mod fingerprint;
pub mod gossip;
pub mod id;
pub mod layout;
pub mod manifest;
pub mod mark;
pub mod name;
pub mod parts;
pub mod record;
pub mod register;
pub mod seal;
#[cfg(feature = "sim")]
pub mod simulated;
pub mod summary;
pub mod ticket;
pub mod wire;

/// Whether a rule is broken on purpose: never, but in the simulator's worlds that check the checker.
#[cfg(not(feature = "sim"))]
#[inline(always)]
pub fn mutant(_name: &str) -> bool {
    false
}

#[cfg(feature = "sim")]
pub use simulated::mutant;
