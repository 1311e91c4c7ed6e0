//! The operating system as this crate sees it: clock, randomness, tasks. A simulator replaces this file.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use tokio::{
    spawn,
    time::{Instant, sleep, timeout, timeout_at},
};

/// Unix time.
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    since_epoch().as_millis() as u64
}

/// Unix microseconds.
pub(crate) fn now_us() -> u64 {
    since_epoch().as_micros() as u64
}

/// Random bytes, fit for secrets.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// A random duration below `most`.
pub(crate) fn jitter(most: Duration) -> Duration {
    let fraction = f64::from(u32::from_le_bytes(random())) / f64::from(u32::MAX);
    most.mul_f64(fraction)
}

/// Runs what computes for long, or blocks, where it delays no one.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
        // The runtime is shutting down, and this task with it.
        Err(_cancelled) => std::future::pending().await,
    }
}
