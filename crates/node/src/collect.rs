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
//! Where versions are kept, one that is not current is needed if it has a register of its own. It had that before it
//! was replaced: so whoever first sees it replaced, and then finds no such register, knows that it was not to be kept,
//! or was removed for good. Another trap here: a version whose register is a tombstone may just be made current again,
//! by who saw it before; so it is given up only when all that began before is over.
//!
//! That holds only for what was proposed before. Whoever uploads does not propose it (again) once the grace time
//! could be over: see `Upload::commit` in `put.rs`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::stream::{self, StreamExt as _};
use pando_core::{
    id::WriteId,
    name::RegisterName,
    register::{State, Value},
};

use crate::{
    error::Error,
    inner::{Inner, PATIENCE, object_of},
    register::{How, Outcome},
    sys::{self, Instant},
};

/// After how many times the grace period a version that was current is looked at again: who replaces it tells all,
/// but once only, and not everyone may hear it. By default a week; one look at a time, so a short grace period
/// costs no more than one small question under way.
const AGAIN: u32 = 7;
/// How many versions are looked at in one go.
const BATCH: usize = 64;
/// How many at once: one whose register can't be read now takes seconds to say so.
const PARALLEL: usize = 8;
/// After so long nobody makes a version current any more that saw it before it was removed for good: see `remove_top`.
const OVER: Duration = PATIENCE.saturating_mul(2);
/// Most versions that are remembered as removed for good at a time: a hundred thousand bytes.
const CONDEMNED: usize = 4096;
/// How long they are: longer than the longest pause, after which they are looked at again.
const REMEMBERED: Duration = Duration::from_secs(3600);
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
    let again = match need_of(inner, version, name).await {
        Ok(Need::Some) if !pando_core::mutant("release-current") => {
            inner.grace * AGAIN + sys::jitter(inner.grace)
        }
        Ok(Need::NotKnownFor(time)) => time,
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

/// Whether a version is needed.
enum Need {
    Some,
    None,
    /// It is to be asked again after so long.
    NotKnownFor(Duration),
}

/// Whether a version is, or could still become, what its register holds, or is kept beside it.
async fn need_of(inner: &Arc<Inner>, version: WriteId, name: &RegisterName) -> Result<Need, Error> {
    let standing = match stands(inner, version, name).await? {
        Standing::Lives => return Ok(Need::Some),
        Standing::Condemned => return Ok(inner.condemned.see(version, Instant::now())),
        Standing::Replaced => return Ok(Need::None),
        Standing::NoTrace => settle(inner, version, name).await?,
    };
    if standing {
        return Ok(Need::Some);
    }
    // It may have been archived and replaced before it was made impossible.
    Ok(match beside(inner, version, name).await? {
        Beside::Lives => Need::Some,
        Beside::Condemned => inner.condemned.see(version, Instant::now()),
        Beside::Nothing => Need::None,
    })
}

/// Makes a version that left no trace impossible. Whether it turned out to be current.
async fn settle(inner: &Arc<Inner>, version: WriteId, name: &RegisterName) -> Result<bool, Error> {
    enum Not {
        Written(Option<bool>),
        Error(Error),
    }
    let id = WriteId(sys::random());
    let settled = inner
        .change_as(name, id, How { rewrite: true, ..How::default() }, |found| {
            match standing(version, found) {
                // Never written at all: there is nothing to write again but a tombstone.
                Ok(None) if found.is_none() => Ok(State::Absent),
                Ok(standing) => Err(Not::Written(standing)),
                Err(error) => Err(Not::Error(error)),
            }
        })
        .await?;
    match settled {
        Outcome::Written(_) => Ok(false),
        Outcome::Declined(Not::Written(standing), _) => Ok(standing.unwrap_or(false)),
        Outcome::Declined(Not::Error(error), _) => Err(error),
    }
}

/// What becomes of a version, as far as it can be told without writing.
pub(crate) enum Standing {
    /// It is current, or kept beside what is.
    Lives,
    /// It was replaced, and not kept.
    Replaced,
    /// It was removed for good, or is being removed.
    Condemned,
    /// It is on its way, or dead for so long that nothing remembers it.
    NoTrace,
}

/// See [`Standing`]. The object's register is read before the version's own: see the module's text.
pub(crate) async fn stands(
    inner: &Arc<Inner>,
    version: WriteId,
    name: &RegisterName,
) -> Result<Standing, Error> {
    let found = inner.read(name).await?;
    let standing = standing(version, found.as_ref().map(|accepted| &accepted.value))?;
    if standing == Some(true) {
        return Ok(Standing::Lives);
    }
    Ok(match (beside(inner, version, name).await?, standing) {
        (Beside::Lives, _) => Standing::Lives,
        (Beside::Condemned, _) => Standing::Condemned,
        (Beside::Nothing, Some(_)) => Standing::Replaced,
        (Beside::Nothing, None) => Standing::NoTrace,
    })
}

/// What a version's own register says of it.
enum Beside {
    Lives,
    Condemned,
    Nothing,
}

async fn beside(inner: &Arc<Inner>, version: WriteId, name: &RegisterName) -> Result<Beside, Error> {
    let Some(aside) = name.aside(&version) else { return Ok(Beside::Nothing) };
    let Some(found) = inner.read(&aside).await? else { return Ok(Beside::Nothing) };
    Ok(match object_of(Some(&found.value))? {
        None => Beside::Condemned,
        // Whether a null version counts says the object's register, and it says it does not.
        Some((record, _)) if record.mark.null => Beside::Nothing,
        Some(_) => Beside::Lives,
    })
}

/// Whether a version is current or the null version that is kept (`Some(true)`), was replaced (`Some(false)`), or has
/// left no trace.
fn standing(version: WriteId, found: Option<&Value>) -> Result<Option<bool>, Error> {
    let Some(value) = found else { return Ok(None) };
    if let Some((record, current)) = object_of(found)?
        && (current == version || record.mark.null_at == Some(version))
    {
        return Ok(Some(true));
    }
    Ok(value.recent.contains(&version).then_some(false))
}

/// Versions that were seen removed for good, and since when: for [`OVER`] they may become current again.
#[derive(Default)]
pub(crate) struct Condemned(Mutex<BTreeMap<WriteId, Instant>>);

impl Condemned {
    /// Sees that a version's own register is a tombstone and that it is not current.
    fn see(&self, version: WriteId, now: Instant) -> Need {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|other, since| *other == version || now.saturating_duration_since(*since) < REMEMBERED);
        match seen.get(&version).map(|since| now.saturating_duration_since(*since)) {
            Some(time) if time >= OVER => {
                seen.remove(&version);
                Need::None
            }
            Some(time) => Need::NotKnownFor(OVER - time),
            // Its turn comes when others had theirs.
            None if seen.len() >= CONDEMNED => Need::NotKnownFor(OVER),
            None => {
                seen.insert(version, now);
                Need::NotKnownFor(OVER)
            }
        }
    }
}
