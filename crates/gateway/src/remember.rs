//! What was looked up in the network and is good for a moment: no request waits for a look-up of its own, and
//! what changed there counts here soon.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use pando_node::Error;
use s3s::{S3ErrorCode, S3Result};
use tokio::{sync::Semaphore, time::timeout};

use crate::error::{of_node, refuse};

/// For how long something is good: so long may a removed key go on, or a bucket stay public.
const FRESH: Duration = Duration::from_secs(5);
/// Things that are remembered of a kind.
const REMEMBERED: usize = 1024;
/// Look-ups of a kind at once: each asks owners of a register, and anyone may invent names.
const LOOKUPS: usize = 16;
/// How long one may wait for its turn to look up: a look-up takes milliseconds, so whoever waits longer is behind many
/// that find nobody.
const PATIENCE: Duration = Duration::from_secs(2);

/// Things of one kind, by name, that were met lately.
pub(crate) struct Memory<T> {
    known: Mutex<Known<T>>,
    lookups: Semaphore,
}

struct Known<T> {
    things: HashMap<String, (Instant, T)>,
    /// How often something was forgotten: what was looked up meanwhile may be what it was before.
    forgotten: u64,
}

impl<T> Known<T> {
    fn insert(&mut self, name: &str, thing: (Instant, T)) {
        if self.things.len() >= REMEMBERED {
            self.things.retain(|_, (since, _)| since.elapsed() < FRESH);
        }
        if self.things.len() >= REMEMBERED && !self.things.contains_key(name) {
            let oldest = self.things.iter().min_by_key(|(_, (since, _))| *since);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.things.remove(&oldest);
            }
        }
        self.things.insert(name.to_owned(), thing);
    }
}

impl<T> Default for Memory<T> {
    fn default() -> Self {
        let known = Known { things: HashMap::new(), forgotten: 0 };
        Self { known: Mutex::new(known), lookups: Semaphore::new(LOOKUPS) }
    }
}

impl<T: Clone> Memory<T> {
    fn known(&self) -> MutexGuard<'_, Known<T>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thing of this name, if it was looked up at most [`FRESH`] ago.
    pub(crate) fn remembered(&self, name: &str) -> Option<T> {
        let known = self.known();
        let thing = known.things.get(name).filter(|(since, _)| since.elapsed() < FRESH);
        thing.map(|(_, thing)| thing.clone())
    }

    /// The thing of this name, as it was at most [`FRESH`] ago.
    pub(crate) async fn get(&self, name: &str, look_up: impl Future<Output = S3Result<T>>) -> S3Result<T> {
        if let Some(thing) = self.remembered(name) {
            return Ok(thing);
        }
        let place = timeout(PATIENCE, self.lookups.acquire()).await.map_err(|_| {
            refuse(S3ErrorCode::SlowDown, "too many access keys or buckets are being looked up: try again")
        })?;
        let _place = place.map_err(|_| of_node(Error::Stopping))?;
        if let Some(thing) = self.remembered(name) {
            return Ok(thing);
        }
        let (looked_up, forgotten) = (Instant::now(), self.known().forgotten);
        let thing = look_up.await?;
        let mut known = self.known();
        if known.forgotten == forgotten {
            known.insert(name, (looked_up, thing.clone()));
        }
        Ok(thing)
    }

    /// Looks the thing of this name up the next time.
    pub(crate) fn forget(&self, name: &str) {
        let mut known = self.known();
        known.forgotten += 1;
        known.things.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thing_is_looked_up_once_until_it_is_forgotten() {
        let memory = Memory::default();
        assert_eq!(memory.get("a", async { Ok(1) }).await.ok(), Some(1));
        assert_eq!(memory.get("a", async { Ok(2) }).await.ok(), Some(1));
        memory.forget("a");
        assert_eq!(memory.get("a", async { Ok(3) }).await.ok(), Some(3));
        assert!(memory.get("b", async { Err(of_node(Error::Stopping)) }).await.is_err());
        assert_eq!(memory.get("b", async { Ok(4) }).await.ok(), Some(4), "failures are not remembered");
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded() {
        let memory = Memory::default();
        for name in 0..REMEMBERED + 10 {
            assert_eq!(memory.get(&name.to_string(), async { Ok(name) }).await.ok(), Some(name));
        }
        assert_eq!(memory.known().things.len(), REMEMBERED);
        assert_eq!(memory.remembered("9"), None, "the oldest made room");
        let last = REMEMBERED + 9;
        assert_eq!(memory.remembered(&last.to_string()), Some(last));
    }

    #[tokio::test]
    async fn what_was_forgotten_meanwhile_is_not_remembered() {
        let memory = Memory::default();
        let before = async {
            memory.forget("a");
            Ok(1)
        };
        assert_eq!(memory.get("a", before).await.ok(), Some(1));
        assert_eq!(memory.get("a", async { Ok(2) }).await.ok(), Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_others_look_ups_for_ever() {
        let memory = Memory::<u32>::default();
        let places = memory.lookups.acquire_many(LOOKUPS as u32).await.unwrap();
        let refused = memory.get("a", async { Ok(1) }).await.err();
        assert_eq!(refused.map(|error| error.code().clone()), Some(S3ErrorCode::SlowDown));
        drop(places);
        assert_eq!(memory.get("a", async { Ok(1) }).await.ok(), Some(1));
    }
}
