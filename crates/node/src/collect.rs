//! Collecting what no object needs: chunks of dead uploads, and of removed and replaced versions.
//!
//! A chunk is kept for versions (the write that made, or would have made, an object's record). When a
//! version is due, its register is asked. If the version is current it stays, and is asked again much later
//! (so that a removal that this node never heard of is found out in the end). If it is not, its chunks lose
//! their reference, and those without any are deleted.
//!
//! One trap: a version that is not current may still *become* current. Its record may have been accepted
//! by a minority whose proposer never finished, and be chosen when that minority is heard again. So before
//! a version is given up it must either be known to have been replaced (the register remembers it among
//! the recent writes) or be made impossible: the register's value is written again at a higher ballot.
//!
//! That holds only for what was proposed before. Whoever uploads does not propose it (again) once the grace time
//! could be over: see `Upload::commit` in `put.rs`.

use std::{sync::Arc, time::Duration};

use futures_util::stream::{self, StreamExt as _};
use pando_core::{
    id::WriteId,
    name::RegisterName,
    register::{State, Value},
};

use crate::{
    error::Error,
    inner::Inner,
    register::{How, Outcome},
    sys,
};

/// After how many times the grace period a version that was current is looked at again: who replaces it tells all,
/// but once only, and not everyone may hear it. By default a week; one look at a time, so a short grace period
/// costs no more than one small question under way.
const AGAIN: u32 = 7;
/// How many versions are looked at in one go.
const BATCH: usize = 64;
/// How many at once: one whose register can't be read now takes seconds to say so.
const PARALLEL: usize = 8;
/// Bounds of the pause between two looks at the queue.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(600));

/// Works the queue off until the node stops.
pub(crate) async fn collect(inner: Arc<Inner>) {
    let pause = (inner.grace / 10).clamp(PAUSE.0, PAUSE.1);
    loop {
        match inner.store.due(inner.steady_ms(), BATCH).await {
            Ok(due) => {
                let full = due.len() == BATCH;
                let looks = due.into_iter().map(|(version, name)| {
                    let inner = &inner;
                    async move { look_at(inner, version, &name).await }
                });
                stream::iter(looks).buffer_unordered(PARALLEL).collect::<()>().await;
                if full {
                    continue;
                }
            }
            Err(error) => tracing::warn!(%error, "collecting goes on later"),
        }
        sys::sleep(pause).await;
    }
}

async fn look_at(inner: &Arc<Inner>, version: WriteId, name: &RegisterName) {
    let again = match is_needed(inner, version, name).await {
        Ok(true) if !pando_core::mutant("release-current") => inner.grace * AGAIN + sys::jitter(inner.grace),
        Ok(_) => {
            match inner.store.release(version, inner.steady_ms()).await {
                Ok(Some(released)) => {
                    tracing::info!(object = %name, chunks = released.chunks, bytes = released.bytes, "freed");
                }
                Ok(None) => tracing::debug!(object = %name, "not freed: its upload goes on after all"),
                Err(error) => tracing::warn!(%error, "freeing goes on later"),
            }
            return;
        }
        // The register can't be read now: later.
        Err(error) => {
            tracing::debug!(object = %name, %error, "a version could not be looked at");
            (inner.grace / 2).max(PAUSE.0)
        }
    };
    let due = inner.steady_ms() + again.as_millis() as u64;
    if let Err(error) = inner.store.recheck(version, due).await {
        tracing::warn!(%error, "a version will be looked at again too early");
    }
}

/// Whether a version is, or could still become, what its register holds.
async fn is_needed(inner: &Arc<Inner>, version: WriteId, name: &RegisterName) -> Result<bool, Error> {
    if let Some(answer) = standing_now(inner, version, name).await? {
        return Ok(answer);
    }
    let is_absent = |value: Option<&Value>| value.is_none();
    let id = WriteId(sys::random());
    let settled = inner
        .change_as(name, id, How { rewrite: true, ..How::default() }, |found| {
            match standing(version, found) {
                // Never written at all: there is nothing to write again but a tombstone.
                None if is_absent(found) => Ok(State::Absent),
                standing => Err(standing),
            }
        })
        .await?;
    match settled {
        Outcome::Written(_) => Ok(false),
        Outcome::Declined(standing, _) => Ok(standing.unwrap_or(false)),
    }
}

/// See [`standing`], for what the register holds now.
pub(crate) async fn standing_now(
    inner: &Arc<Inner>,
    version: WriteId,
    name: &RegisterName,
) -> Result<Option<bool>, Error> {
    let found = inner.read(name).await?;
    Ok(standing(version, found.as_ref().map(|accepted| &accepted.value)))
}

/// Whether a version is current (`Some(true)`), was replaced (`Some(false)`), or has left no trace.
fn standing(version: WriteId, found: Option<&Value>) -> Option<bool> {
    let value = found?;
    if value.write_id() == Some(version) {
        return Some(true);
    }
    value.recent.contains(&version).then_some(false)
}
