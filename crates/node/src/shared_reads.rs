//! Reads of registers that several callers share.
//!
//! Every put asks what its bucket wants. A read that began before a caller came may miss what was acknowledged before
//! the call, so its result is not for that caller; but all who come while one is under way can share the next. However
//! many ask, there is one read of a register at a time, and each caller's lies within its call. Who would have to wait
//! long for others, or whose shared read fails, reads by itself.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pando_core::{name::RegisterName, register::Accepted};
use tokio::sync::oneshot;

use crate::{error::Error, inner::Inner, sys};

/// How long a caller waits for others' reads: a few exchanges with a node that is not far.
const PATIENCE: Duration = Duration::from_millis(250);

type Found = Option<Accepted>;

/// Who waits for the next read, for each register that is being read. As many as there are callers that wait.
type Waiting = BTreeMap<RegisterName, Vec<oneshot::Sender<Found>>>;

/// See the module's text.
#[derive(Default)]
pub(crate) struct SharedReads(Mutex<Waiting>);

impl SharedReads {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a caller among those who wait. Whether it is the first, and nobody reads.
    fn wait(&self, name: &RegisterName, caller: oneshot::Sender<Found>) -> bool {
        let mut all = self.lock();
        match all.get_mut(name) {
            Some(waiting) => {
                // In an outage one read may last for long, and callers come and give up.
                waiting.retain(|caller| !caller.is_closed());
                waiting.push(caller);
                false
            }
            None => {
                all.insert(name.clone(), vec![caller]);
                true
            }
        }
    }

    /// Those who wait now; `None`, and nobody reads any more, if there are none.
    fn next(&self, name: &RegisterName) -> Option<Vec<oneshot::Sender<Found>>> {
        let mut all = self.lock();
        let waiting = std::mem::take(all.get_mut(name)?);
        if waiting.is_empty() {
            all.remove(name);
            return None;
        }
        Some(waiting)
    }
}

impl Inner {
    /// As [`Inner::read`], together with others who want to know the same.
    pub(crate) async fn read_shared(
        self: &Arc<Self>,
        name: &RegisterName,
    ) -> Result<Option<Accepted>, Error> {
        let (caller, found) = oneshot::channel();
        if self.shared_reads.wait(name, caller) {
            let rounds = Rounds { inner: Arc::clone(self), name: name.clone(), over: false };
            self.spawn_until_stopped(rounds.run());
        }
        match sys::timeout(PATIENCE, found).await {
            Ok(Ok(found)) => Ok(found),
            _ => self.read(name).await,
        }
    }
}

/// One read after the other, as long as someone waits. If it is dropped before its end, so are those who wait.
struct Rounds {
    inner: Arc<Inner>,
    name: RegisterName,
    over: bool,
}

impl Rounds {
    async fn run(mut self) {
        while let Some(waiting) = self.inner.shared_reads.next(&self.name) {
            let Ok(found) = self.inner.read(&self.name).await else { continue };
            for caller in waiting {
                // Some have stopped waiting.
                let _ = caller.send(found.clone());
            }
        }
        self.over = true;
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        if !self.over {
            self.inner.shared_reads.lock().remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_while_one_reads_is_in_the_next_round() {
        let (reads, name) = (SharedReads::default(), RegisterName::bucket("default").unwrap());
        let mut callers = Vec::new();
        let mut caller = || {
            let (caller, found) = oneshot::channel();
            callers.push(found);
            caller
        };
        assert!(reads.wait(&name, caller()), "the first reads");
        assert_eq!(reads.next(&name).map(|round| round.len()), Some(1));
        assert!(!reads.wait(&name, oneshot::channel().0), "one that gave up");
        assert!(!reads.wait(&name, caller()));
        assert!(!reads.wait(&name, caller()));
        assert_eq!(reads.next(&name).map(|round| round.len()), Some(2));
        assert!(reads.next(&name).is_none(), "nobody waits");
        assert!(reads.lock().is_empty());
        assert!(reads.wait(&name, caller()), "and the next one reads again");
    }
}
