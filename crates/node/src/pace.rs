//! Pace: how fast healing may move bytes, and how fast it did lately.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::sys::{self, Instant};

/// Over how long the rate is measured.
const WINDOW: Duration = Duration::from_secs(10);
/// How finely: one entry each half second, so that the window has a bounded length.
const STEP: Duration = Duration::from_millis(500);

/// A limit of bytes a second, shared by all healing of a node.
#[derive(Debug)]
pub(crate) struct Pace {
    limit: Option<u64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the next bytes may move.
    free: Option<Instant>,
    /// What moved lately: since when, and how much.
    moved: VecDeque<(Instant, u64)>,
}

impl Pace {
    /// At most `limit` bytes a second.
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self { limit, state: Mutex::default() }
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until `bytes` more may move, and counts them.
    pub(crate) async fn take(&self, bytes: u64) {
        let now = Instant::now();
        let start = self.with(|state| {
            state.count(now, bytes);
            let start = state.free.unwrap_or(now).max(now);
            if let Some(limit) = self.limit {
                state.free = Some(start + Duration::from_secs_f64(bytes as f64 / limit.max(1) as f64));
            }
            start
        });
        if start > now {
            sys::sleep(start - now).await;
        }
    }

    /// Bytes a second lately.
    pub(crate) fn rate(&self) -> u64 {
        let now = Instant::now();
        self.with(|state| {
            state.forget(now);
            let bytes: u64 = state.moved.iter().map(|(_, bytes)| bytes).sum();
            let Some((first, _)) = state.moved.front() else { return 0 };
            let seconds = (now - *first).max(Duration::from_secs(1)).as_secs_f64();
            (bytes as f64 / seconds) as u64
        })
    }
}

impl State {
    fn count(&mut self, now: Instant, bytes: u64) {
        self.forget(now);
        match self.moved.back_mut() {
            Some((since, moved)) if now - *since < STEP => *moved += bytes,
            _ => self.moved.push_back((now, bytes)),
        }
    }

    fn forget(&mut self, now: Instant) {
        while self.moved.front().is_some_and(|(since, _)| now - *since > WINDOW) {
            self.moved.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_limit_holds_and_the_rate_is_told() {
        let pace = Pace::new(Some(1000));
        let start = Instant::now();
        for _ in 0..5 {
            pace.take(1000).await;
        }
        assert!(start.elapsed() >= Duration::from_secs(4));
        assert!((1000..=1300).contains(&pace.rate()), "{}", pace.rate());
        sys::sleep(WINDOW * 2).await;
        assert_eq!(pace.rate(), 0);
        let free = Pace::new(None);
        let start = Instant::now();
        free.take(u64::MAX / 2).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
