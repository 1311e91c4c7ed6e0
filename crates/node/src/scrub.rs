//! Scrub: reading and verifying every chunk, slowly, again and again; what is damaged is put aside and
//! fetched again. Copies that a reader complained about come first.
//!
//! Where a pass is, and what it found, is kept in the store: a restart goes on from there.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use pando_core::id::ChunkId;
use pando_store::ChunkState;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::{
    api::Scrub,
    error::Error,
    inner::Inner,
    sys::{self, Instant},
};

/// How long one pass over everything takes, when nobody is in a hurry.
const PASS: Duration = Duration::from_secs(30 * 24 * 3600);
/// Chunks between two notes of where the pass is.
const PAGE: usize = 64;
/// Complaints that are remembered; of more, the scrub itself finds those that are right.
const SUSPECTS: usize = 1024;
/// How long to wait after the store failed to answer.
const AGAIN: Duration = Duration::from_secs(10);
/// Where the pass is kept in the store.
const KEPT: &str = "scrub";

/// How the verification of all chunks goes; shared by who does it and who asks.
#[derive(Debug, Default)]
pub(crate) struct ScrubState {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    suspects: BTreeSet<ChunkId>,
    now: bool,
    /// How many times someone asked to begin anew.
    begun: u64,
    pass: Pass,
}

/// The part that a restart remembers.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Pass {
    /// The last chunk verified.
    after: Option<ChunkId>,
    verified: u64,
    damaged: u64,
    /// When the last whole pass ended, in Unix milliseconds.
    finished: Option<u64>,
}

impl ScrubState {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn next_suspect(&self) -> Option<ChunkId> {
        self.with(|state| state.suspects.pop_first())
    }
}

impl Inner {
    /// See [`crate::Node::scrub_now`].
    pub(crate) fn scrub_now(&self) {
        self.scrub.with(|state| {
            state.now = true;
            state.begun += 1;
            state.pass = Pass { finished: state.pass.finished, ..Pass::default() };
        });
        self.scrub.wake.notify_one();
    }

    /// Has the own copy of a chunk looked at soon: someone found it bad.
    pub(crate) fn suspect_here(&self, chunk: ChunkId) {
        self.scrub.with(|state| {
            if state.suspects.len() < SUSPECTS {
                state.suspects.insert(chunk);
            }
        });
        self.scrub.wake.notify_one();
    }

    /// How the scrub goes, with `total` chunks here.
    pub(crate) fn scrub_status(&self, total: u64) -> Scrub {
        self.scrub.with(|state| Scrub {
            now: state.now,
            verified: state.pass.verified,
            total,
            damaged: state.pass.damaged,
            finished: state.pass.finished,
        })
    }

    /// Looks at the own copy of a chunk. If it is bad it is put aside; if it is bad or missing, and needed here,
    /// another is fetched. Returns whether it is good.
    pub(crate) async fn check_chunk(&self, chunk: ChunkId) -> bool {
        if matches!(self.store.verify(chunk).await, Ok(ChunkState::Good)) {
            return true;
        }
        match self.store.quarantine(chunk).await {
            Ok(ChunkState::Good) => return true,
            Ok(ChunkState::Bad) => {
                tracing::warn!(%chunk, "a chunk is damaged: put aside, a good copy will be fetched");
            }
            Ok(ChunkState::Missing) => {}
            Err(error) => tracing::warn!(%chunk, %error, "a chunk could not be verified"),
        }
        self.healing.notify_one();
        false
    }
}

/// Verifies everything, again and again, until the node stops.
pub(crate) async fn scrub(inner: Arc<Inner>) {
    let kept = inner.store.meta_get(KEPT).await.ok().flatten();
    if let Some(pass) = kept.and_then(|bytes| postcard::from_bytes(&bytes).ok()) {
        inner.scrub.with(|state| state.pass = pass);
    }
    loop {
        if let Err(error) = page(&inner).await {
            tracing::warn!(%error, "scrubbing goes on later");
            rest(&inner, AGAIN).await;
        }
    }
}

/// Verifies the next few chunks, or ends the pass and waits for the next.
async fn page(inner: &Arc<Inner>) -> Result<(), Error> {
    let (after, begun) = inner.scrub.with(|state| (state.pass.after, state.begun));
    let chunks = inner.store.chunks_page(None, after, PAGE).await?;
    if chunks.is_empty() {
        let began = after.is_some();
        let ended = inner.scrub.with(|state| {
            // Unless someone asked to begin anew meanwhile.
            let same = state.begun == begun;
            if same {
                state.now = false;
                state.pass.after = None;
                state.pass.finished = Some(sys::now_ms());
            }
            same
        });
        if !ended {
            return Ok(());
        }
        if began {
            keep(inner).await?;
        }
        rest(inner, PASS / 30).await;
        // What the pass found is shown until the next one begins.
        inner.scrub.with(|state| {
            if !state.now {
                state.pass = Pass { finished: state.pass.finished, ..Pass::default() };
            }
        });
        return Ok(());
    }
    for (chunk, len) in chunks {
        pause(inner, len).await;
        if inner.scrub.with(|state| state.begun != begun) {
            return Ok(());
        }
        inner.pace.take(len).await;
        let is_good = inner.check_chunk(chunk).await;
        inner.scrub.with(|state| {
            if state.begun == begun {
                state.pass.after = Some(chunk);
                state.pass.verified += 1;
                state.pass.damaged += u64::from(!is_good);
            }
        });
    }
    keep(inner).await
}

async fn keep(inner: &Inner) -> Result<(), Error> {
    let pass = inner.scrub.with(|state| state.pass);
    let bytes = postcard::to_stdvec(&pass).expect("plain data");
    Ok(inner.store.meta_put(KEPT, Some(bytes.into())).await?)
}

/// Waits as long as a chunk of `len` bytes may take of a slow pass.
async fn pause(inner: &Arc<Inner>, len: u64) {
    let used = inner.store.used_bytes().max(len).max(1);
    rest(inner, PASS.mul_f64(len as f64 / used as f64)).await;
}

/// Waits, unless someone is in a hurry; looks at suspects meanwhile.
async fn rest(inner: &Arc<Inner>, time: Duration) {
    let end = Instant::now() + time;
    loop {
        while let Some(chunk) = inner.scrub.next_suspect() {
            inner.check_chunk(chunk).await;
        }
        if inner.scrub.with(|state| state.now) {
            return;
        }
        if sys::timeout_at(end, inner.scrub.wake.notified()).await.is_err() {
            return;
        }
    }
}
