//! The data folder: its lock, its sub-folders, and the file operations on chunks.
//!
//! Owns every path and every file sync. Leaves to `chunks.rs` the order of these steps relative to the
//! index, and to the locks in `shared.rs` that two tasks never move the same chunk's file at once.
//!
//! A file is durable when it *and* the folder entries that lead to it are synced. Sub-folders are made on
//! demand; an entry that exists may have been made a moment ago by another task, or by a process that was
//! killed, and not be synced yet. So each sub-folder's parent is synced once per process before
//! anything in it counts ([`Folder::durable_inner`]).

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use pando_core::id::ChunkId;

use crate::{
    error::Error,
    path::ChunkPath,
    sys::{self, DirBuilderExt, OpenOptionsExt},
};

/// How many quarantined files are kept for a person to look at: enough to see a pattern, at most 256 MiB.
pub(crate) const QUARANTINE: usize = 64;

/// One step on the disk, named so that tests can fail or crash at each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// The bytes go to a file in `tmp`.
    Stage,
    /// That file is synced.
    SyncFile,
    /// It is renamed to its place.
    Place,
    /// The folder of its place is synced, after a file came or went.
    SyncFolder,
    /// A chunk's file is removed.
    Unlink,
    /// A chunk's file is moved to `quarantine`.
    Quarantine,
}

/// What tests put in the way of a step.
#[cfg(test)]
pub(crate) type Probe = std::sync::Arc<dyn Fn(Step, &ChunkId) -> io::Result<()> + Send + Sync>;

/// An open, locked data folder.
pub(crate) struct Folder {
    root: PathBuf,
    chunks: PathBuf,
    tmp: PathBuf,
    quarantine: PathBuf,
    /// Numbers temporary files, so that no two share a name.
    serial: AtomicU64,
    /// Sub-folders of `chunks` whose entries are durable, by the first two bytes of their chunks' ids.
    durable: Mutex<BTreeSet<[u8; 2]>>,
    #[cfg(test)]
    pub(crate) probe: Option<Probe>,
    /// Held for as long as the folder is in use; the kernel lets go of it when the process dies.
    lock: sys::File,
}

/// A chunk's bytes, synced, in `tmp`. Removed when dropped, unless it was placed.
pub(crate) struct Staged {
    path: PathBuf,
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Already renamed, or a leftover that the next start removes.
        let _ = sys::remove_file(&self.path);
    }
}

impl Folder {
    /// Locks `dir`, makes what is missing, empties `tmp`.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let made = !sys::exists(dir).unwrap_or(false);
        make(dir)?;
        let lock_path = dir.join("lock");
        let lock = sys::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|error| Error::io(format!("open {}", lock_path.display()), error))?;
        lock.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => Error::Locked { dir: dir.to_owned() },
            std::fs::TryLockError::Error(error) => Error::io(format!("lock {}", lock_path.display()), error),
        })?;
        let folder = Self {
            root: dir.to_owned(),
            chunks: dir.join("chunks"),
            tmp: dir.join("tmp"),
            quarantine: dir.join("quarantine"),
            serial: AtomicU64::new(0),
            durable: Mutex::default(),
            #[cfg(test)]
            probe: None,
            lock,
        };
        for sub in [&folder.chunks, &folder.tmp, &folder.quarantine] {
            make(sub)?;
        }
        folder.empty_tmp()?;
        folder.sync_root()?;
        if made && let Some(parent) = dir.parent() {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            sync_folder(parent).map_err(|error| Error::io(format!("sync {}", parent.display()), error))?;
        }
        Ok(folder)
    }

    /// Lets another process have the folder.
    pub(crate) fn unlock(&self) -> Result<(), Error> {
        self.lock.unlock().map_err(|error| Error::io(format!("unlock {}", self.root.display()), error))
    }

    /// Makes the entries of the data folder itself durable.
    fn sync_root(&self) -> Result<(), Error> {
        sync_folder(&self.root).map_err(|error| Error::io(format!("sync {}", self.root.display()), error))
    }

    /// The files of the index and of its log. If there is no index, `make` makes it in `tmp` first, so that a crash never
    /// leaves half of one in its place; it also brings one to today's format whose log was never written to. The two
    /// belong together: neither is opened without the other, but for an index that `needs_no_log`.
    pub(crate) fn prepare_index(
        &self,
        needs_no_log: impl FnOnce(&Path) -> Result<bool, Error>,
        make: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<(PathBuf, PathBuf), Error> {
        let (path, log) = (self.root.join("index.redb"), self.root.join("index.log"));
        let (index_len, log_len) = (file_len(&path)?, file_len(&log)?);
        let alone = |what: &Path, other: &str| Error::Corrupt {
            what: what.display().to_string(),
            expected: format!("{other} beside it: the two belong together"),
            found: "none; put it back, or use another data folder".into(),
        };
        match (index_len, log_len) {
            (None, Some(1..)) => return Err(alone(&log, "index.redb")),
            (Some(_), None) if !needs_no_log(&path)? => return Err(alone(&path, "index.log")),
            _ => {}
        }
        if log_len.is_none() {
            let mut options = sys::OpenOptions::new();
            let made = options.create(true).truncate(false).write(true).mode(0o600).open(&log);
            made.map_err(|error| Error::io(format!("make {}", log.display()), error))?;
            // There before anything says that it must be.
            self.sync_root()?;
        }
        match index_len {
            None => {
                let made = self.tmp.join("index.redb");
                make(&made)?;
                sys::rename(&made, &path)
                    .map_err(|error| Error::io(format!("put {} in its place", path.display()), error))?;
            }
            Some(_) if log_len.unwrap_or(0) == 0 => make(&path)?,
            Some(_) => {}
        }
        // Even if they were there: whoever made them may have been killed before this.
        self.sync_root()?;
        Ok((path, log))
    }

    /// Bytes left on the disk.
    pub(crate) fn disk_free(&self) -> Result<u64, Error> {
        sys::disk_free(&self.root)
            .map_err(|error| Error::io(format!("ask for room on {}", self.root.display()), error))
    }

    /// The file of a chunk, open for reading; `None` if there is none.
    pub(crate) fn read(&self, id: &ChunkId) -> Result<Option<sys::File>, Error> {
        match sys::File::open(ChunkPath::of(id).file(&self.chunks)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format!("open chunk {id}"), error)),
        }
    }

    /// Writes `bytes` to a file in `tmp` and syncs it.
    pub(crate) fn stage(&self, id: &ChunkId, bytes: &[u8]) -> Result<Staged, Error> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let staged = Staged { path: self.tmp.join(format!("{}-{serial}", ChunkPath::of(id).hex())) };
        let write = || -> io::Result<()> {
            let mut file =
                sys::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged.path)?;
            self.step(Step::Stage, id)?;
            sys::reserve(&file, bytes.len() as u64)?;
            file.write_all(bytes)?;
            self.step(Step::SyncFile, id)?;
            file.sync_data()
        };
        write().map_err(|error| Error::io(format!("write chunk {id}"), error))?;
        Ok(staged)
    }

    /// Renames a staged chunk to its place; when this returns, it is durable there.
    pub(crate) fn place(&self, id: &ChunkId, staged: Staged) -> Result<(), Error> {
        let path = ChunkPath::of(id);
        let place = || -> io::Result<()> {
            self.durable_inner(id, &path)?;
            self.step(Step::Place, id)?;
            sys::rename(&staged.path, path.file(&self.chunks))?;
            self.sync_inner(id)
        };
        place().map_err(|error| Error::io(format!("put chunk {id} in its place"), error))
    }

    /// Makes a chunk's file, which is there, durable in its place.
    pub(crate) fn sync_placed(&self, id: &ChunkId) -> Result<(), Error> {
        let sync = || -> io::Result<()> {
            self.durable_inner(id, &ChunkPath::of(id))?;
            self.sync_inner(id)
        };
        sync().map_err(|error| Error::io(format!("sync chunk {id}"), error))
    }

    /// Removes chunks' files, none there is fine; returns those that are gone, durably.
    pub(crate) fn unlink(&self, ids: &[ChunkId]) -> Vec<ChunkId> {
        let unlink = |id: &ChunkId| -> io::Result<()> {
            self.step(Step::Unlink, id)?;
            match sys::remove_file(ChunkPath::of(id).file(&self.chunks)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        };
        // All removals first: a journaling file system then writes them out at the first sync.
        let removed: Vec<_> = ids.iter().map(|id| (id, unlink(id))).collect();
        let mut gone = Vec::with_capacity(ids.len());
        for (id, removed) in removed {
            match removed.and_then(|()| self.sync_inner(id)) {
                Ok(()) => gone.push(*id),
                Err(error) => tracing::warn!(%id, %error, "could not remove a chunk's file"),
            }
        }
        gone
    }

    /// Moves a chunk's file out of its place, durably, to be looked at by a person. `false`: there was
    /// none.
    pub(crate) fn quarantine(&self, id: &ChunkId) -> Result<bool, Error> {
        let path = ChunkPath::of(id);
        let quarantine = || -> io::Result<bool> {
            self.step(Step::Quarantine, id)?;
            match sys::rename(path.file(&self.chunks), self.quarantine.join(path.hex())) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                renamed => renamed?,
            }
            self.sync_inner(id)?;
            Ok(true)
        };
        let moved = quarantine().map_err(|error| Error::io(format!("quarantine chunk {id}"), error))?;
        if moved && let Err(error) = self.trim_quarantine() {
            tracing::warn!(%error, "could not remove old files from quarantine");
        }
        Ok(moved)
    }

    fn trim_quarantine(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in sys::read_dir(&self.quarantine)? {
            let entry = entry?;
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
        files.sort();
        for (_, path) in files.iter().take(files.len().saturating_sub(QUARANTINE)) {
            sys::remove_file(path)?;
        }
        Ok(())
    }

    /// Syncs the folder of a chunk's place; nothing to do if there is none.
    fn sync_inner(&self, id: &ChunkId) -> io::Result<()> {
        self.step(Step::SyncFolder, id)?;
        if pando_core::mutant("folder-not-synced") {
            return Ok(());
        }
        match sync_folder(&ChunkPath::of(id).inner(&self.chunks)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            synced => synced,
        }
    }

    /// Makes `ab/cd` if needed, and its entries durable: see the module's text.
    fn durable_inner(&self, id: &ChunkId, path: &ChunkPath) -> io::Result<()> {
        let key = [id.0[0], id.0[1]];
        let durable = || self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if durable().contains(&key) {
            return Ok(());
        }
        sys::DirBuilder::new().recursive(true).mode(0o700).create(path.inner(&self.chunks))?;
        sync_folder(&self.chunks)?;
        sync_folder(&path.outer(&self.chunks))?;
        durable().insert(key);
        Ok(())
    }

    fn empty_tmp(&self) -> Result<(), Error> {
        let empty = || -> io::Result<()> {
            for entry in sys::read_dir(&self.tmp)? {
                sys::remove_file(entry?.path())?;
            }
            Ok(())
        };
        empty().map_err(|error| Error::io(format!("empty {}", self.tmp.display()), error))
    }

    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "tests look in here"))]
    fn step(&self, step: Step, id: &ChunkId) -> io::Result<()> {
        #[cfg(test)]
        if let Some(probe) = &self.probe {
            return probe(step, id);
        }
        let _ = (step, id);
        Ok(())
    }
}

fn make(dir: &Path) -> Result<(), Error> {
    sys::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| Error::io(format!("make folder {}", dir.display()), error))
}

/// Bytes of a file; `None` if there is none.
fn file_len(path: &Path) -> Result<Option<u64>, Error> {
    let look = || -> io::Result<Option<u64>> {
        Ok(if sys::exists(path)? { Some(sys::File::open(path)?.metadata()?.len()) } else { None })
    };
    look().map_err(|error| Error::io(format!("look for {}", path.display()), error))
}

fn sync_folder(dir: &Path) -> io::Result<()> {
    sys::File::open(dir)?.sync_all()
}
