//! The tasks of one endpoint: every task it starts is here until it ends, so that a shutdown can wait for
//! them all, and one can be stopped by its number.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, task::AbortHandle};

use crate::sys;

/// A task's number: never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TaskId(u64);

/// Cloneable handle; bounded by the connections, which are bounded.
#[derive(Clone, Default)]
pub(crate) struct Tasks(Arc<Shared>);

#[derive(Default)]
struct Shared {
    running: Mutex<Running>,
    empty: Notify,
}

#[derive(Default)]
struct Running {
    next: u64,
    stopped: bool,
    tasks: BTreeMap<TaskId, AbortHandle>,
}

impl Tasks {
    /// Starts the task that `make` makes, told its number. After [`Tasks::abort_all`] nothing starts.
    pub(crate) fn spawn<F>(&self, make: impl FnOnce(TaskId) -> F) -> TaskId
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // The lock is held until the handle is in the map, so that a task which ends at once finds itself.
        let mut running = self.lock();
        let id = TaskId(running.next);
        running.next += 1;
        if !running.stopped {
            let (guard, task) = (Guard { tasks: self.clone(), id }, make(id));
            let handle = sys::spawn(async move {
                let _guard = guard;
                task.await;
            });
            running.tasks.insert(id, handle.abort_handle());
        }
        id
    }

    /// Ends one task at its next await.
    pub(crate) fn abort(&self, id: TaskId) {
        if let Some(task) = self.lock().tasks.get(&id) {
            task.abort();
        }
    }

    /// Ends all tasks at their next await, and starts no more.
    pub(crate) fn abort_all(&self) {
        let mut running = self.lock();
        running.stopped = true;
        running.tasks.values().for_each(AbortHandle::abort);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.lock().tasks.len()
    }

    /// Waits until there are none.
    pub(crate) async fn empty(&self) {
        loop {
            let empty = self.0.empty.notified();
            tokio::pin!(empty);
            empty.as_mut().enable();
            if self.len() == 0 {
                return;
            }
            empty.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Guard {
    tasks: Tasks,
    id: TaskId,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut running = self.tasks.lock();
        running.tasks.remove(&self.id);
        if running.tasks.is_empty() {
            self.tasks.0.empty.notify_waiters();
        }
    }
}
