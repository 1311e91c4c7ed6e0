//! The writer: the one task that changes the index.
//!
//! It takes what is queued, runs it as one *group* in one transaction, commits once, and only then lets
//! the group's replies go: refusals and promises included, so that no reply ever reveals what a crash
//! could take back. A group that wrote nothing is not committed. After a commit that failed nothing is
//! acknowledged any more: what is on the disk is unknown until the store is opened again.

use std::sync::Arc;

use redb::Durability;
use tokio::sync::{mpsc, oneshot};

use crate::{
    error::Error,
    group::{Group, Wrote},
    shared::Shared,
    sys,
};

/// How many operations may wait for the writer. While one group is synced (0.2 to 10 ms) the next
/// gathers here: at 50,000 operations a second and a slow disk that is some hundreds. More would
/// add memory and waiting, not throughput; callers beyond it wait to be queued.
pub(crate) const QUEUE: usize = 1024;

/// How many rows one group may touch, by its operations' own count: bounds a transaction's memory, and
/// how long the first of the group waits for the last.
const GROUP_ROWS: usize = 8192;

/// Lets a reply go, once the group is committed, or tells it why it won't be.
pub(crate) type Release = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// One operation.
pub(crate) struct Job {
    /// Rows that it may touch, roughly.
    pub(crate) rows: usize,
    /// Does it. An [`Error::Index`] is reported to the group's owner beside the caller.
    pub(crate) apply: Box<dyn FnOnce(&mut Group<'_>) -> Applied + Send>,
}

/// The outcome of one operation inside its group.
pub(crate) struct Applied {
    /// The reply, waiting for the commit.
    pub(crate) release: Release,
    /// The index failed under it: the whole group fails.
    pub(crate) broken: Option<String>,
}

/// What is sent to the writer.
pub(crate) enum Message {
    /// An operation.
    Job(Job),
    /// Do what is queued, then end.
    Close(oneshot::Sender<Result<(), Error>>),
}

/// The writer's life. Ends when told to close, or when every handle is gone.
pub(crate) async fn run(shared: Arc<Shared>, mut queue: mpsc::Receiver<Message>) {
    let mut jobs = Vec::new();
    while let Some(first) = queue.recv().await {
        // Whoever is ready to run may have something to add; nobody waits for who is not.
        tokio::task::yield_now().await;
        let mut rows = 0;
        let mut next = Some(first);
        let mut close = None;
        while let Some(message) = next {
            match message {
                Message::Job(job) => {
                    rows += job.rows;
                    jobs.push(job);
                }
                Message::Close(done) => close = Some(done),
            }
            let full = rows >= GROUP_ROWS || close.is_some();
            next = if full { None } else { queue.try_recv().ok() };
        }
        let group = std::mem::take(&mut jobs);
        let owner = shared.clone();
        match sys::blocking(move || commit(&owner, group)).await {
            // Here, since tasks wake each other more cheaply than a thread wakes them.
            Ok((releases, outcome)) => {
                for release in releases {
                    release(outcome.clone().map_err(|why| Error::Failed { why }));
                }
            }
            Err(error) => shared.fail(format!("the writer stopped: {error}")),
        }
        if let Some(done) = close {
            queue.close();
            let owner = shared.clone();
            let closed = sys::blocking(move || owner.close()).await.unwrap_or_else(Err);
            // The caller may have stopped waiting; it is closed all the same.
            let _ = done.send(closed);
            return;
        }
    }
}

/// Runs one group to its end: replies to let go, and with what outcome. If it failed, the store was marked as failed.
fn commit(shared: &Shared, jobs: Vec<Job>) -> (Vec<Release>, Result<(), String>) {
    if jobs.is_empty() {
        return (Vec::new(), Ok(()));
    }
    let mut releases = Vec::with_capacity(jobs.len());
    let outcome = match shared.failed() {
        Some(why) => Err(why),
        None => try_commit(shared, jobs, &mut releases),
    };
    if let Err(why) = &outcome {
        shared.fail(why.clone());
    }
    (releases, outcome)
}

fn try_commit(shared: &Shared, jobs: Vec<Job>, releases: &mut Vec<Release>) -> Result<(), String> {
    let failed = |error: Error| {
        let mut why = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            why = format!("{why}: {error}");
            cause = error.source();
        }
        why
    };
    let mut txn = shared.begin_write().map_err(failed)?;
    let mut group = Group::open(&txn, shared).map_err(failed)?;
    for job in jobs {
        let applied = (job.apply)(&mut group);
        releases.push(applied.release);
        if let Some(why) = applied.broken {
            return Err(why);
        }
    }
    match group.finish().map_err(failed)? {
        Wrote::Nothing => txn.abort().map_err(|error| failed(error.into())),
        Wrote::Lazily => {
            txn.set_durability(Durability::None).map_err(|error| failed(error.into()))?;
            txn.commit().map_err(|error| failed(error.into()))
        }
        // The default durability: synced when commit returns.
        Wrote::Durably => txn.commit().map_err(|error| failed(error.into())),
    }
}
