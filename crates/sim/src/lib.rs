//! The deterministic simulator: whole networks in one process, faults drawn from a seed, and a judge.
//!
//! A seed decides everything: [`schedule`] draws the plan of a world and [`client`] what its users do,
//! [`world`] runs it, [`history`] holds what the clients saw and [`linearizable`] judges that. [`runner`]
//! runs many seeds in worker processes. This crate owns no rule of the storage system itself.

pub mod client;
pub mod history;
pub mod linearizable;
pub mod mutants;
pub mod regressions;
pub mod report;
pub mod rng;
pub mod runner;
pub mod schedule;
mod users;
mod versions;
pub mod worker;
pub mod world;
