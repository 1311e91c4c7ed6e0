//! Those who wait and cost something meanwhile, in the order in which they began. Where there is no room for another,
//! who waited longest is asked to leave: a newcomer is more likely to be of use.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

/// In the extensions of a request: ends the connection that it came on.
#[derive(Clone, Debug)]
pub(crate) struct Leave(pub(crate) Arc<Notify>);

/// A line of those who wait. Who may be in it at once is up to who lets them in.
#[derive(Debug, Default)]
pub(crate) struct Waiters(Mutex<Line>);

#[derive(Debug, Default)]
struct Line {
    next: u64,
    waiting: BTreeMap<u64, Arc<Notify>>,
}

/// A place in the line, left when this is dropped.
#[derive(Debug)]
pub(crate) struct Waiter {
    number: u64,
    line: Arc<Waiters>,
}

impl Waiters {
    /// Stands in line, at its end; `leave` is notified if it should go.
    pub(crate) fn enter(self: &Arc<Self>, leave: Arc<Notify>) -> Waiter {
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = line.next;
        line.next += 1;
        line.waiting.insert(number, leave);
        Waiter { number, line: Arc::clone(self) }
    }

    /// Asks who waited longest to leave; `false` if nobody waits.
    pub(crate) fn dismiss_longest(&self) -> bool {
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, leave)) = line.waiting.pop_first() else { return false };
        leave.notify_one();
        true
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).waiting.len()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.line.0.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waited_longest_leaves() {
        let line = Arc::new(Waiters::default());
        assert!(!line.dismiss_longest());
        let leaves: Vec<_> = (0..3).map(|_| Arc::new(Notify::new())).collect();
        let mut places: Vec<_> = leaves.iter().map(|leave| line.enter(leave.clone())).collect();
        // The first goes by itself, and comes back behind the others.
        places.remove(0);
        places.push(line.enter(leaves[0].clone()));
        assert_eq!(line.len(), 3);
        for expected in [1, 2, 0] {
            assert!(line.dismiss_longest());
            leaves[expected].notified().await;
        }
        assert_eq!(line.len(), 0);
        assert!(!line.dismiss_longest());
    }
}
