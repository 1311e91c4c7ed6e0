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
//! by who saw it before; so it is given up only when all that began before is over, and then made impossible, too: what
//! a minority accepted does not end with who proposed it.
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
    error::{Error, Why},
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
    // A clock that was put back while this node was down must not keep for long what would be due by now: nothing is put
    // off further than this.
    let latest = (inner.steady_ms()).saturating_add((inner.grace * (AGAIN + 1)).as_millis() as u64);
    match inner.store.hasten(latest, inner.after_grace()).await {
        Ok(0) => {}
        Ok(versions) => {
            tracing::info!(versions, "looked at sooner: the clock was ahead when they were put off");
        }
        Err(error) => tracing::warn!(%error, "what was put off while the clock was ahead stays so"),
    }
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
    let standing = stands(inner, version, name).await?;
    match standing {
        Standing::Lives => return Ok(Need::Some),
        Standing::Replaced => return Ok(Need::None),
        Standing::NoTrace => {}
        Standing::Condemned => match inner.condemned.see(version, Instant::now()) {
            // Whoever was about to make it current has ended, but may have been heard by a minority.
            Need::None => {}
            need => return Ok(need),
        },
    }
    if settle(inner, version, name).await? {
        return Ok(Need::Some);
    }
    // It may have been archived and replaced before it was made impossible.
    Ok(match (own(inner, version, name).await?, standing) {
        (Own::Lives, _) => Need::Some,
        (Own::Condemned, Standing::NoTrace) => inner.condemned.see(version, Instant::now()),
        (Own::Condemned | Own::Null | Own::Nothing, _) => Need::None,
    })
}

/// Makes a version impossible that is not current, as far as its register shows. Whether it turned out to be current, or
/// the null version that is kept. If it is named as that and gone, it is not any more.
async fn settle(inner: &Arc<Inner>, version: WriteId, name: &RegisterName) -> Result<bool, Error> {
    let id = WriteId(sys::random());
    let settled = inner
        .change_as(name, id, How { rewrite: true, ..How::default() }, |found| match trace(version, found)? {
            // Never written at all: there is nothing to write again but a tombstone.
            Trace::None if found.is_none() => Ok(State::Absent),
            trace => Err(Why::Refused(trace)),
        })
        .await?;
    match settled {
        Outcome::Written(_) => Ok(false),
        Outcome::Declined(Why::Refused(Trace::Current), _) => Ok(true),
        Outcome::Declined(Why::Refused(Trace::Named), _) => match own(inner, version, name).await? {
            Own::Lives | Own::Null => Ok(true),
            Own::Condemned | Own::Nothing => Ok(!inner.renew(name, version, true).await?),
        },
        Outcome::Declined(Why::Refused(Trace::Replaced | Trace::None), _) => Ok(false),
        Outcome::Declined(Why::Error(error), _) => Err(error),
    }
}

/// What becomes of a version, as far as it can be told without writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    let trace = trace(version, found.as_ref().map(|accepted| &accepted.value))?;
    if trace == Trace::Current {
        return Ok(Standing::Lives);
    }
    Ok(match (own(inner, version, name).await?, trace) {
        (Own::Lives, _) | (Own::Null, Trace::Named) => Standing::Lives,
        (Own::Condemned, _) => Standing::Condemned,
        // It had a register of its own when it was named, so it was removed for good since.
        (Own::Nothing, Trace::Named) => Standing::Condemned,
        (Own::Nothing | Own::Null, Trace::None) => Standing::NoTrace,
        (Own::Nothing | Own::Null, _) => Standing::Replaced,
    })
}

/// What a version's own register says of it.
enum Own {
    /// It is kept.
    Lives,
    /// It is a null version: whether that counts says the object's register.
    Null,
    Condemned,
    Nothing,
}

async fn own(inner: &Arc<Inner>, version: WriteId, name: &RegisterName) -> Result<Own, Error> {
    let Some(aside) = name.aside(&version) else { return Ok(Own::Nothing) };
    let Some(found) = inner.read(&aside).await? else { return Ok(Own::Nothing) };
    Ok(match object_of(Some(&found.value))? {
        None => Own::Condemned,
        Some((record, _)) if record.mark.null => Own::Null,
        Some(_) => Own::Lives,
    })
}

/// What an object's register says of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trace {
    Current,
    /// It is the null version that is not current.
    Named,
    /// It was current once.
    Replaced,
    /// Nothing.
    None,
}

fn trace(version: WriteId, found: Option<&Value>) -> Result<Trace, Error> {
    let Some(value) = found else { return Ok(Trace::None) };
    Ok(match object_of(found)? {
        Some((_, current)) if current == version => Trace::Current,
        Some((record, _)) if record.mark.null_at == Some(version) => Trace::Named,
        _ if value.recent.contains(&version) => Trace::Replaced,
        _ => Trace::None,
    })
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

#[cfg(test)]
mod tests {
    use pando_core::{bucket::Versioning, mark::Mark};

    use super::*;
    use crate::{
        Node, PutOptions, VersionId,
        stray::tests::{keep_versions, node},
    };

    async fn put(node: &Node) -> WriteId {
        node.put("default", "a", &b"x"[..], PutOptions::default()).await.unwrap().etag
    }

    /// Looks at a version that was seen condemned long ago.
    async fn need_of_late(node: &Node, version: WriteId, name: &RegisterName) -> Need {
        let long_ago = Instant::now().checked_sub(OVER).unwrap();
        node.inner.condemned.0.lock().unwrap().insert(version, long_ago);
        need_of(&node.inner, version, name).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_given_up_is_made_impossible_first() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(&folder).await;
        let inner = &node.inner;
        let name = RegisterName::object("default", "a").unwrap();
        keep_versions(&node, Versioning::Enabled).await;
        let (one, two) = (put(&node).await, put(&node).await);
        inner.condemn(&name, &one, Instant::now() + PATIENCE).await.unwrap();
        assert!(matches!(need_of(inner, one, &name).await.unwrap(), Need::NotKnownFor(_)));
        let before = inner.read(&name).await.unwrap().unwrap();
        assert!(matches!(need_of_late(&node, one, &name).await, Need::None));
        let after = inner.read(&name).await.unwrap().unwrap();
        assert!(after.ballot > before.ballot, "what a minority accepted before can't be chosen any more");
        assert_eq!(after.value, before.value);
        assert!(matches!(need_of(inner, two, &name).await.unwrap(), Need::Some));
        node.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_null_version_that_is_named_and_gone_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(&folder).await;
        let inner = &node.inner;
        let name = RegisterName::object("default", "a").unwrap();
        let null = put(&node).await;
        keep_versions(&node, Versioning::Enabled).await;
        put(&node).await;
        assert!(matches!(need_of(inner, null, &name).await.unwrap(), Need::Some));
        // Whoever removes it is cut off before the object's register is written again; its tombstone is there, or is
        // forgotten by now.
        let forgotten = WriteId([7; 16]);
        for gone in [null, forgotten] {
            let named = inner.change(&name, WriteId(sys::random()), |found| {
                let (mut record, version) = object_of(found).unwrap().unwrap();
                record.mark = Mark { null_at: Some(gone), ..record.mark.of_version(version) };
                Ok::<_, ()>(State::Present(record.encode().unwrap()))
            });
            named.await.unwrap();
            if gone == null {
                inner.condemn(&name, &gone, Instant::now() + PATIENCE).await.unwrap();
            }
            let missing = node.stat_version("default", "a", Some(VersionId::Null)).await;
            assert!(matches!(missing, Err(Error::NoSuchVersion { .. })), "{missing:?}");
            assert!(matches!(need_of(inner, gone, &name).await.unwrap(), Need::NotKnownFor(_)));
            assert!(matches!(need_of_late(&node, gone, &name).await, Need::None));
            let found = inner.read(&name).await.unwrap().unwrap();
            assert_eq!(object_of(Some(&found.value)).unwrap().unwrap().0.mark.null_at, None);
        }
        node.stop().await;
    }
}
