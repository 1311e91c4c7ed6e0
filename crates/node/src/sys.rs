//! The operating system as this crate sees it: clock, randomness, tasks, the node's own small files.

#[cfg(not(feature = "sim"))]
mod real;
#[cfg(feature = "sim")]
pub(crate) mod simulated;

use std::time::Duration;

pub(crate) use tokio::{
    spawn,
    time::{Instant, sleep, timeout, timeout_at},
};

#[cfg(not(feature = "sim"))]
pub(crate) use real::{blocking, files, interfaces, random, since_epoch};
#[cfg(feature = "sim")]
pub(crate) use simulated::{blocking, files, interfaces, random, since_epoch};

/// Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    since_epoch().as_millis() as u64
}

/// Unix microseconds.
pub(crate) fn now_us() -> u64 {
    since_epoch().as_micros() as u64
}

/// A random duration below `most`.
pub(crate) fn jitter(most: Duration) -> Duration {
    let fraction = f64::from(u32::from_le_bytes(random())) / f64::from(u32::MAX);
    most.mul_f64(fraction)
}
