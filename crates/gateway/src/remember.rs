//! What was looked up in the network and is good for a moment: no request waits for a look-up of its own, and
//! what changed there counts here soon.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use pando_node::Error;
use s3s::S3Result;
use tokio::sync::Semaphore;

use crate::error::of_node;

/// For how long something is good: so long may a removed key go on, or a bucket stay public.
const FRESH: Duration = Duration::from_secs(5);
/// Things that are remembered of a kind.
const REMEMBERED: usize = 1024;
/// Look-ups of a kind at once: each asks owners of a register, and anyone may invent names.
const LOOKUPS: usize = 16;

/// Things of one kind, by name, that were met lately.
pub(crate) struct Memory<T> {
    known: Mutex<HashMap<String, (Instant, T)>>,
    lookups: Semaphore,
}

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self { known: Mutex::default(), lookups: Semaphore::new(LOOKUPS) }
    }
}

impl<T: Clone> Memory<T> {
    fn known(&self) -> MutexGuard<'_, HashMap<String, (Instant, T)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thing of this name, if it was looked up at most [`FRESH`] ago.
    pub(crate) fn remembered(&self, name: &str) -> Option<T> {
        self.known().get(name).filter(|(since, _)| since.elapsed() < FRESH).map(|(_, thing)| thing.clone())
    }

    /// The thing of this name, as it was at most [`FRESH`] ago.
    pub(crate) async fn get(&self, name: &str, look_up: impl Future<Output = S3Result<T>>) -> S3Result<T> {
        if let Some(thing) = self.remembered(name) {
            return Ok(thing);
        }
        let _place = self.lookups.acquire().await.map_err(|_| of_node(Error::Stopping))?;
        if let Some(thing) = self.remembered(name) {
            return Ok(thing);
        }
        let looked_up = Instant::now();
        let thing = look_up.await?;
        let mut known = self.known();
        if known.len() >= REMEMBERED {
            known.retain(|_, (since, _)| since.elapsed() < FRESH);
        }
        if known.len() < REMEMBERED {
            known.insert(name.to_owned(), (looked_up, thing.clone()));
        }
        Ok(thing)
    }

    /// Looks the thing of this name up the next time.
    pub(crate) fn forget(&self, name: &str) {
        self.known().remove(name);
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
        assert_eq!(memory.known().len(), REMEMBERED);
    }
}
