//! The command as scripts use it: real processes, real sockets, real folders.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;
mod keys;
mod members;
mod network;
mod objects;
mod process;
mod share;
mod socket;
