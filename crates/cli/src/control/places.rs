//! Who may do what at the same time: requests that last (puts, gets, checks) never take all the places, so
//! that `pando status` is answered however many of them wait for their sources or their readers.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::exit::{Failure, Kind};

/// Most clients at a time; others wait in the listener's queue. Far more than scripts run in parallel, and
/// far fewer than file descriptors.
const CLIENTS: usize = 256;
/// Of these, requests that last and run: more than the node itself does at once, and few enough that their
/// buffers (about 1 MiB each) stay small.
const LASTING: usize = 64;
/// Of these, requests that last and wait for their turn. The rest, a quarter, is for small ones.
const QUEUED: usize = 128;
/// How long such a request waits. With what the node itself lets it wait, less than a client's patience.
const QUEUE: Duration = Duration::from_secs(30);

/// The places of a control socket.
pub(super) struct Places {
    clients: Arc<Semaphore>,
    lasting: Arc<Semaphore>,
    queue: Semaphore,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            clients: Arc::new(Semaphore::new(CLIENTS)),
            lasting: Arc::new(Semaphore::new(LASTING)),
            queue: Semaphore::new(QUEUED),
        }
    }
}

impl Places {
    /// A place for a client.
    pub(super) async fn client(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.clients).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// A place for a request that may last.
    pub(super) async fn transfer(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let lasting = || Arc::clone(&self.lasting);
        if let Ok(place) = lasting().try_acquire_owned() {
            return Ok(place);
        }
        let busy = || {
            let why = format!("busy: {LASTING} transfers are under way here; try again when some are done");
            Failure::new(Kind::NotEnough, why)
        };
        let _waiting = self.queue.try_acquire().map_err(|_| busy())?;
        match timeout(QUEUE, lasting().acquire_owned()).await {
            Ok(place) => Ok(place.expect("the semaphore is never closed")),
            Err(_elapsed) => Err(busy()),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_that_last_leave_a_quarter_for_the_small_ones() {
        let places = Places::default();
        let held: Vec<_> = join_all((0..LASTING).map(|_| places.transfer())).await;
        assert!(held.iter().all(Result::is_ok));
        let waiting = join_all((0..CLIENTS).map(|_| places.transfer()));
        let mut waiting = std::pin::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        assert_eq!(places.queue.available_permits(), 0);
        assert_eq!((CLIENTS - LASTING - QUEUED) * 4, CLIENTS);
        drop(held);
        let granted = waiting.await;
        let first: Vec<_> = granted.iter().take(LASTING).collect();
        assert!(first.iter().all(|place| place.is_ok()), "those that waited");
        assert!(granted.iter().skip(QUEUED).all(Result::is_err), "those for whom no place to wait was left");
    }
}
