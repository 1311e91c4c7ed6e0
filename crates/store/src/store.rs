//! The handle: opening, closing, and how an operation reaches the writer or a snapshot.

use std::{path::Path, sync::Arc};

use pando_core::id::NodeId;
use redb::{ReadTransaction, StorageBackend};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::{
    error::Error,
    folder::Folder,
    group::Group,
    index, recover,
    shared::Shared,
    sys,
    writer::{self, Applied, Job, Message, Release},
};

/// How many operations on chunk files run at once: enough to keep a disk's queue full many times
/// over, and below the threads that the runtime has for blocking work.
const FILE_OPERATIONS: usize = 256;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// This node: in the resync queue, what it owes itself is what it must fetch.
    pub node: NodeId,
    /// Most bytes of chunks to keep; `None`: what the disk has.
    pub capacity: Option<u64>,
}

/// A handle on one node's disk; cheap to clone.
///
/// All operations may be called from any tokio task. An operation whose future is dropped may still take
/// effect. When the last handle is gone the store closes by itself, some time later; [`Store::close`]
/// waits for it.
#[derive(Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    queue: mpsc::Sender<Message>,
    files: Arc<Semaphore>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("node", &self.shared.node).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the data folder `dir`, making it if it is missing, and recovers from a crash if there was one.
    /// [`Error::Locked`] if another process uses it.
    pub async fn open(dir: &Path, options: Options) -> Result<Self, Error> {
        let dir = dir.to_owned();
        let shared = sys::blocking(move || {
            let folder = Folder::open(&dir)?;
            let (path, log) = folder.prepare_index(index::needs_no_log, index::make)?;
            open_shared(folder, index::logged_backend(&path, &log)?, &options)
        })
        .await??;
        Ok(Self::start(shared))
    }

    /// Starts the writer of a store that was opened and recovered.
    pub(crate) fn start(shared: Shared) -> Self {
        let shared = Arc::new(shared);
        let (queue, jobs) = mpsc::channel(writer::QUEUE);
        tokio::spawn(writer::run(shared.clone(), jobs));
        Self { shared, queue, files: Arc::new(Semaphore::new(FILE_OPERATIONS)) }
    }

    /// How many operations wait for the writer.
    #[cfg(test)]
    pub(crate) fn queued(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Ends what is under way, closes the index and lets go of the folder. Later calls on any handle
    /// answer [`Error::Closed`].
    pub async fn close(&self) -> Result<(), Error> {
        self.shared.start_closing();
        // Operations on files hold a permit to their end; each may still need the writer.
        let all = self.files.acquire_many(FILE_OPERATIONS as u32).await.map_err(|_| Error::Closed)?;
        self.files.close();
        all.forget();
        let (done, closed) = oneshot::channel();
        self.queue.send(Message::Close(done)).await.map_err(|_| Error::Closed)?;
        closed.await.map_err(|_| Error::Closed)?
    }

    /// Why the store no longer acknowledges anything, if so. Only opening it again helps.
    pub fn failed(&self) -> Option<String> {
        self.shared.failed()
    }

    /// Bytes of chunks stored.
    pub fn used_bytes(&self) -> u64 {
        self.shared.used()
    }

    /// Changes the most bytes of chunks to keep. What is stored above it stays.
    pub fn set_capacity(&self, capacity: u64) {
        self.shared.set_capacity(capacity);
    }

    /// Bytes free on the disk, whatever the capacity.
    pub fn disk_free(&self) -> Result<u64, Error> {
        self.shared.folder.disk_free()
    }

    /// Has the writer run `op`, which touches about `rows` rows; answers after the commit.
    pub(crate) async fn submit<T: Send + 'static>(
        &self,
        rows: usize,
        op: impl FnOnce(&mut Group<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        if let Some(why) = self.shared.failed() {
            return Err(Error::Failed { why });
        }
        let (reply, answer) = oneshot::channel();
        let apply = move |group: &mut Group<'_>| {
            let outcome = op(group);
            let broken = match &outcome {
                Err(error @ Error::Index(source)) => Some(format!("{error}: {source}")),
                _ => None,
            };
            // The caller may have stopped waiting; what was done is done.
            let release: Release = Box::new(move |committed| drop(reply.send(committed.and(outcome))));
            Applied { release, broken }
        };
        let message = Message::Job(Job { rows: rows.max(1), apply: Box::new(apply) });
        self.queue.send(message).await.map_err(|_| self.shared.gone())?;
        answer.await.unwrap_or_else(|_| Err(self.shared.gone()))
    }

    /// As [`Store::submit`], for callers from outside: not once closing began.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        rows: usize,
        op: impl FnOnce(&mut Group<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.shared.check()?;
        self.submit(rows, op).await
    }

    /// Runs `look` on a snapshot of what is committed.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Shared, &ReadTransaction) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.shared.check()?;
        let shared = self.shared.clone();
        sys::blocking(move || look(&shared, &shared.snapshot()?)).await?
    }

    /// As [`Store::look`], for what touches a few rows only.
    pub(crate) async fn glance<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Shared, &ReadTransaction) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.shared.check()?;
        let shared = self.shared.clone();
        self.shared.brief.run(move || look(&shared, &shared.snapshot()?)).await?
    }

    /// Runs an operation on chunk files to its end, even if the caller stops waiting: half of it must not
    /// be all of it. Closing waits for it.
    pub(crate) async fn to_the_end<T, F>(&self, work: impl FnOnce(Store) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        self.shared.check()?;
        let permit = self.files.clone().acquire_owned().await.map_err(|_| Error::Closed)?;
        let work = work(self.clone());
        sys::detached(async move {
            let done = work.await;
            drop(permit);
            done
        })
        .await
    }
}

/// Opens the index over `backend` and recovers.
pub(crate) fn open_shared(
    folder: Folder,
    backend: impl StorageBackend,
    options: &Options,
) -> Result<Shared, Error> {
    let (database, facts) = index::open(backend)?;
    let shared = Shared::new(folder, database, facts, options.node, options.capacity);
    recover::run(&shared)?;
    Ok(shared)
}
