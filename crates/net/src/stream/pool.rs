//! Unused stream connections to one peer. Owns them while nobody else does.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{conn::Conn, sys::Instant};

/// Last in, first out: the rest grow old and are closed.
pub(crate) struct Pool {
    idle: Duration,
    most: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Rises when the pool is emptied; connections taken before don't come back.
    generation: u64,
    closed: bool,
    conns: Vec<(Conn, Instant)>,
}

impl Pool {
    /// A pool of at most `most` connections, each kept unused for `idle`.
    pub(crate) fn new(idle: Duration, most: usize) -> Self {
        Self { idle, most, inner: Mutex::default() }
    }

    /// An unused connection that looks alive, and the generation to give it back with.
    pub(crate) fn take(&self) -> (Option<Conn>, u64) {
        let mut inner = self.lock();
        let generation = inner.generation;
        while let Some((mut conn, since)) = inner.conns.pop() {
            if since.elapsed() < self.idle && conn.is_quiet() {
                return (Some(conn), generation);
            }
        }
        (None, generation)
    }

    /// Takes back a connection after a whole exchange.
    pub(crate) fn put(&self, mut conn: Conn, generation: u64) {
        conn.read_ahead(0);
        let mut inner = self.lock();
        if inner.generation == generation && !inner.closed && inner.conns.len() < self.most {
            inner.conns.push((conn, Instant::now()));
        }
    }

    /// Closes those unused for too long, or closed by the peer.
    pub(crate) fn sweep(&self) {
        self.lock().conns.retain_mut(|(conn, since)| since.elapsed() < self.idle && conn.is_quiet());
    }

    /// Closes all, and those taken once they are given back.
    pub(crate) fn clear(&self) {
        let mut inner = self.lock();
        inner.generation += 1;
        inner.conns.clear();
    }

    /// As [`Pool::clear`], for good.
    pub(crate) fn close(&self) {
        self.clear();
        self.lock().closed = true;
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().conns.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
