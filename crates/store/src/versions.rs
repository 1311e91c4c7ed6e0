//! Versions and their references: which object versions need which chunks, and when to check a version.
//!
//! A version is a write to a register (its [`WriteId`]); as long as one refers to a chunk, the chunk
//! stays. The store does not know which versions live. It keeps a queue of those to check, and is told:
//! [`Store::confirm`], [`Store::recheck`], [`Store::release`].
//!
//! **Why nothing that is referred to is ever lost.** References change in the writer only, one operation
//! after the other; a file changes only under its chunk's lock. [`Store::release`] takes the locks of a
//! batch of chunks, then in *one* operation of the writer drops the references and, of chunks that have
//! none left, the rows. Then it removes the files, then it lets go of the locks. A claim comes either
//! before that operation, and its reference keeps the chunk; or after it, finds no row, and
//! answers "not held". A write of the same chunk waits for the lock, so it stores the chunk anew after the
//! old file went. A crash between the commit and the removal leaves a file that the table of unsettled
//! chunks names, and the next start removes it.

use pando_core::{
    id::{ChunkId, WriteId},
    name::RegisterName,
};

use crate::{
    error::Error,
    group::Group,
    index::{DUE, REFS, VERSIONS},
    rows::{self, Version},
    store::Store,
    sys,
};

/// Most entries in one call that takes or gives many.
pub const MAX_BATCH: usize = 4096;

/// How many chunks are let go of at once: a few milliseconds of unlinking, during which writes of chunks
/// that share their locks wait.
const RELEASE_BATCH: usize = 32;

/// When a version is due that is being released.
const DOOMED: u64 = 0;

/// How many references are shown.
const SHOWN: usize = 16;

/// What releasing a version freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Chunks that nothing refers to any more.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Store {
    /// Says which of `chunks` (at most [`MAX_BATCH`]) are held here, and makes `version`, a write to
    /// `name`, refer to those, durably before it answers. The version is to be checked at `due` (ms since
    /// 1970) or when it was to be checked already, whichever is later.
    pub async fn claim(
        &self,
        version: WriteId,
        name: RegisterName,
        chunks: &[ChunkId],
        due: u64,
    ) -> Result<Vec<bool>, Error> {
        check_batch("chunks in a claim", chunks.len())?;
        rows::check_name(&name)?;
        let chunks = chunks.to_vec();
        self.change(2 * chunks.len(), move |group| claim(group, version, &name, &chunks, due)).await
    }

    /// Up to `limit` versions whose check is due at `now_ms`, the longest due first.
    pub async fn due(&self, now_ms: u64, limit: usize) -> Result<Vec<(WriteId, RegisterName)>, Error> {
        self.look(move |_, txn| {
            let versions = txn.open_table(VERSIONS)?;
            let mut due = Vec::new();
            for entry in txn.open_table(DUE)?.range(..=(now_ms, &[0xff; 16]))?.take(limit.min(MAX_BATCH)) {
                let id = WriteId(*entry?.0.value().1);
                if let Some(row) = versions.get(&id.0)? {
                    due.push((id, rows::decode_version(id, row.value())?.name));
                }
            }
            Ok(due)
        })
        .await
    }

    /// The version is live: it need not be checked any more, until [`Store::recheck`].
    pub async fn confirm(&self, version: WriteId) -> Result<(), Error> {
        self.requeue(version, None).await
    }

    /// The version may be dead now: it is to be checked at `due`. Nothing happens if it is unknown here.
    pub async fn recheck(&self, version: WriteId, due: u64) -> Result<(), Error> {
        self.requeue(version, Some(due)).await
    }

    /// As [`Store::recheck`], but one that is to be checked earlier stays so: this may be asked for again and
    /// again.
    pub async fn recheck_by(&self, version: WriteId, due: u64) -> Result<(), Error> {
        self.change(2, move |group| match group.version(version)? {
            Some(known) if known.due.is_none_or(|known| known > due) => {
                group.put_version(version, &Version { due: Some(due), ..known })
            }
            _ => Ok(()),
        })
        .await
    }

    /// The version is being written still: it is not to be checked before `due`. `false`: nothing is held for it
    /// here, or not for long.
    pub async fn postpone(&self, version: WriteId, due: u64) -> Result<bool, Error> {
        self.change(2, move |group| match group.version(version)? {
            None | Some(Version { due: Some(DOOMED), .. }) => Ok(false),
            Some(known) => {
                if known.due.is_some_and(|known| known < due) {
                    group.put_version(version, &Version { due: Some(due), ..known })?;
                }
                Ok(true)
            }
        })
        .await
    }

    /// Versions that are to be checked after `latest` are to be checked at `due` instead, which is not after it. How many
    /// there were.
    pub async fn hasten(&self, latest: u64, due: u64) -> Result<usize, Error> {
        let (due, mut all) = (due.min(latest), 0);
        loop {
            let hastened = self.change(2 * MAX_BATCH, move |group| {
                let mut hastened = 0;
                for version in group.due_after(latest, MAX_BATCH)? {
                    if let Some(known) = group.version(version)? {
                        group.put_version(version, &Version { due: Some(due), ..known })?;
                        hastened += 1;
                    }
                }
                Ok(hastened)
            });
            let hastened = hastened.await?;
            all += hastened;
            if hastened < MAX_BATCH {
                return Ok(all);
            }
        }
    }

    async fn requeue(&self, version: WriteId, due: Option<u64>) -> Result<(), Error> {
        self.change(2, move |group| match group.version(version)? {
            Some(known) => group.put_version(version, &Version { due, ..known }),
            None => Ok(()),
        })
        .await
    }

    /// The version is dead: drops its references, and deletes chunks that have none left. `None`: it is not due at
    /// `now_ms`, since someone postponed it after it was found dead, and nothing changed.
    pub async fn release(&self, version: WriteId, now_ms: u64) -> Result<Option<Released>, Error> {
        self.to_the_end(move |store| async move {
            // From here on nobody is told that something is held for it, and nothing more is taken for it.
            let doomed = store.submit(2, move |group| match group.version(version)? {
                Some(known) if known.due.is_none_or(|due| due > now_ms) => Ok(false),
                Some(known) => {
                    group.put_version(version, &Version { due: Some(DOOMED), ..known })?;
                    Ok(true)
                }
                None => Ok(true),
            });
            if !doomed.await? {
                return Ok(None);
            }
            let mut released = Released::default();
            while store.release_batch(version, &mut released).await? {}
            Ok(Some(released))
        })
        .await
    }

    /// One step of [`Store::release`]; see the module's text. `false`: that was the last.
    async fn release_batch(&self, version: WriteId, released: &mut Released) -> Result<bool, Error> {
        let batch = self.submit(1, move |group| group.chunks_of(version, RELEASE_BATCH)).await?;
        let guards = self.shared.lock_chunks(&batch).await;
        let dropped = batch.clone();
        let (freed, more) = self
            .submit(4 * batch.len(), move |group| {
                let mut freed = Vec::new();
                for id in &dropped {
                    group.drop_reference(id, version)?;
                    if group.references(id, 1)?.is_empty()
                        && group.chunk_len(id)?.is_some()
                        && let Some(len) = group.leaving(id)?
                    {
                        freed.push((*id, len));
                    }
                }
                let more = !group.chunks_of(version, 1)?.is_empty();
                if !more {
                    group.drop_version(version)?;
                }
                Ok((freed, more))
            })
            .await?;
        released.chunks += freed.len() as u64;
        released.bytes += freed.iter().map(|(_, len)| len).sum::<u64>();
        self.unlink(freed.into_iter().map(|(id, _)| id).collect()).await?;
        drop(guards);
        Ok(more)
    }

    /// Drops a chunk that is held elsewhere for the versions `confirmed`: these references go, and, if no other
    /// version needs it, its row and its file. `false`: another does, and it stays.
    pub async fn evict(&self, id: ChunkId, confirmed: &[WriteId]) -> Result<bool, Error> {
        check_batch("versions", confirmed.len())?;
        let confirmed = confirmed.to_vec();
        self.to_the_end(|store| async move {
            let guard = store.shared.lock_chunk(&id).await;
            let evicted = store
                .submit(4 * confirmed.len() + 2, move |group| {
                    let needed = group.references(&id, confirmed.len() + 1)?;
                    if group.chunk_len(&id)?.is_none() {
                        return Ok(false);
                    }
                    let (gone, others): (Vec<_>, Vec<_>) =
                        needed.into_iter().partition(|version| confirmed.contains(version));
                    for version in gone {
                        group.drop_reference(&id, version)?;
                        if group.chunks_of(version, 1)?.is_empty() {
                            group.drop_version(version)?;
                        }
                    }
                    if others.is_empty() {
                        group.leaving(&id)?;
                    }
                    Ok(others.is_empty())
                })
                .await?;
            if evicted {
                store.unlink(vec![id]).await?;
            }
            drop(guard);
            Ok(evicted)
        })
        .await
    }

    /// Removes the files of chunks that are leaving. The caller holds their locks.
    pub(crate) async fn unlink(&self, ids: Vec<ChunkId>) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        let shared = self.shared.clone();
        // What can't be removed stays noted as leaving; the next start tries again.
        let gone = sys::blocking(move || shared.folder.unlink(&ids)).await?;
        self.submit(gone.len(), move |group| gone.iter().try_for_each(|id| group.left(id))).await
    }

    /// Some of the versions that refer to a chunk, and what they are writes to.
    pub async fn references(&self, chunk: ChunkId) -> Result<Vec<(WriteId, RegisterName)>, Error> {
        self.all_references(chunk, SHOWN).await
    }

    /// As [`Store::references`], at most `limit`.
    pub async fn all_references(
        &self,
        chunk: ChunkId,
        limit: usize,
    ) -> Result<Vec<(WriteId, RegisterName)>, Error> {
        self.look(move |_, txn| {
            let versions = txn.open_table(VERSIONS)?;
            let range = (&chunk.0, &[0; 16])..=(&chunk.0, &[0xff; 16]);
            let mut references = Vec::new();
            for entry in txn.open_table(REFS)?.range(range)?.take(limit.min(MAX_BATCH)) {
                let id = WriteId(*entry?.0.value().1);
                if let Some(row) = versions.get(&id.0)? {
                    references.push((id, rows::decode_version(id, row.value())?.name));
                }
            }
            Ok(references)
        })
        .await
    }
}

/// Makes `version` refer to those of `chunks` that are held; says which.
pub(crate) fn claim(
    group: &mut Group<'_>,
    version: WriteId,
    name: &RegisterName,
    chunks: &[ChunkId],
    due: u64,
) -> Result<Vec<bool>, Error> {
    let held: Vec<bool> =
        chunks.iter().map(|id| Ok(group.chunk_len(id)?.is_some())).collect::<Result<_, Error>>()?;
    if held.contains(&true) {
        register(group, version, name, due)?;
        for (id, _) in chunks.iter().zip(&held).filter(|(_, held)| **held) {
            group.add_reference(id, version)?;
        }
    }
    Ok(held)
}

/// Makes a version known, to be checked at `due` or later.
pub(crate) fn register(
    group: &mut Group<'_>,
    version: WriteId,
    name: &RegisterName,
    due: u64,
) -> Result<(), Error> {
    let known = group.version(version)?;
    if known.as_ref().is_some_and(|known| known.name != *name) {
        return Err(Error::Malformed { what: "a version that is a write to another register" });
    }
    group.grow()?;
    if known.as_ref().is_some_and(|known| known.due == Some(DOOMED)) {
        return Err(Error::Malformed { what: "a version that was given up" });
    }
    let due = known.and_then(|known| known.due).unwrap_or(0).max(due);
    group.put_version(version, &Version { due: Some(due), name: name.clone() })
}

pub(crate) fn check_batch(what: &'static str, got: usize) -> Result<(), Error> {
    if got > MAX_BATCH { Err(Error::TooMany { what, limit: MAX_BATCH, got }) } else { Ok(()) }
}
