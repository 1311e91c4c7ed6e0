//! Files of a simulated machine: what was not synced is lost when its power goes, folder entries too.
//!
//! A path's first component names the machine (`/n3/chunks/ab`), each with a disk of its own. The disks are the
//! thread's, as the simulated world is. `turmoil` has a file system of its own; this one is used because it
//! loses folder entries apart from contents, tears and misdirects writes, and keeps redb's files as plain
//! buffers, which makes a world ten times faster.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pando_core::simulated;
use redb::StorageBackend;

use self::content::Content;
use crate::error::Error;

mod content;

/// Memory for pages of the index: a simulated one is small.
pub(crate) const CACHE: usize = 1 << 20;

/// Bytes of the index's log: so few that it is full now and then.
pub(crate) const LOG: usize = 512 << 10;

thread_local! {
    static DISKS: RefCell<BTreeMap<String, Disk>> = const { RefCell::new(BTreeMap::new()) };
}

/// One machine's disk; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Raised when the power goes: files opened before are of no use any more.
    power: u64,
    on: bool,
    next: u64,
    files: BTreeMap<u64, Content>,
    entries: BTreeMap<PathBuf, Entry>,
    /// The entries that are on the disk for good.
    synced: BTreeMap<PathBuf, Entry>,
    faults: Faults,
    capacity: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            power: 0,
            on: true,
            next: 0,
            files: BTreeMap::new(),
            entries: BTreeMap::new(),
            synced: BTreeMap::new(),
            faults: Faults::default(),
            capacity: 1 << 32,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Folder,
    File(u64),
}

/// What goes wrong on a disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Of a hundred reads of chunks, so many fail.
    pub read_errors: u8,
    /// The next sync fails, and what it should have synced is lost.
    pub sync_fails: bool,
    /// There is no room.
    pub full: bool,
}

fn off() -> io::Error {
    io::Error::other("the power is off")
}

impl Disk {
    /// The disk of a machine; made when first asked for.
    pub fn of(machine: &str) -> Disk {
        DISKS.with_borrow_mut(|disks| disks.entry(machine.to_owned()).or_default().clone())
    }

    /// Forgets all disks: a new world begins.
    pub fn reset_all() {
        DISKS.with_borrow_mut(BTreeMap::clear);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// What goes wrong now.
    pub fn faults(&self) -> Faults {
        self.lock().faults
    }

    /// The power goes: nothing can be read or written until [`Disk::power_on`].
    pub fn power_off(&self) {
        let mut disk = self.lock();
        disk.on = false;
        disk.power += 1;
    }

    /// The power comes back: what was not synced is lost. With `tear`, some of it survives all the same: any of
    /// a file's writes, in whatever order they were made, and any of a folder's changes.
    pub fn power_on(&self, tear: bool) {
        let mut disk = self.lock();
        disk.on = true;
        disk.faults = Faults::default();
        if tear {
            disk.keep_some_entries();
        }
        // An entry counts if all folders that lead to it do.
        let synced = disk.synced.clone();
        let leads = |path: &Path| {
            path.ancestors()
                .skip(1)
                .all(|folder| folder.components().count() <= 2 || synced.get(folder) == Some(&Entry::Folder))
        };
        disk.entries = synced.iter().filter(|(path, _)| leads(path)).map(|(p, e)| (p.clone(), *e)).collect();
        disk.synced = disk.entries.clone();
        let named: BTreeSet<u64> = disk.entries.values().filter_map(Entry::file).collect();
        disk.files.retain(|number, _| named.contains(number));
        for content in disk.files.values_mut() {
            if tear {
                content.lose_some(simulated::next);
            } else {
                content.lose();
            }
        }
    }

    /// Empties the disk.
    pub fn wipe(&self) {
        let mut disk = self.lock();
        let power = disk.power + 1;
        *disk = State { power, ..State::default() };
    }

    /// The paths of all files whose path holds `part`.
    pub fn files(&self, part: &str) -> Vec<PathBuf> {
        let disk = self.lock();
        let is_file = |(path, entry): &(&PathBuf, &Entry)| {
            entry.file().is_some() && path.to_string_lossy().contains(part)
        };
        disk.entries.iter().filter(is_file).map(|(path, _)| path.clone()).collect()
    }

    /// Flips a bit of a file, where it is for good.
    pub fn flip(&self, path: &Path) {
        self.change(path, |bytes| {
            if !bytes.is_empty() {
                let at = simulated::next() as usize % bytes.len();
                bytes[at] ^= 1 << (simulated::next() % 8);
            }
        });
    }

    /// Puts the bytes of another file over those of `path`, as a write that went astray would.
    pub fn misdirect(&self, path: &Path, from: &Path) {
        let other = {
            let disk = self.lock();
            let number = disk.entries.get(from).and_then(Entry::file);
            number.and_then(|number| disk.files.get(&number)).map(|content| content.bytes().to_vec())
        };
        if let Some(other) = other {
            self.change(path, |bytes| bytes.clone_from(&other));
        }
    }

    fn change(&self, path: &Path, change: impl Fn(&mut Vec<u8>)) {
        let mut disk = self.lock();
        let Some(number) = disk.entries.get(path).and_then(Entry::file) else { return };
        if let Some(content) = disk.files.get_mut(&number) {
            let mut bytes = content.bytes().to_vec();
            change(&mut bytes);
            content.replace(bytes);
        }
    }
}

impl Entry {
    fn file(&self) -> Option<u64> {
        match self {
            Entry::File(number) => Some(*number),
            Entry::Folder => None,
        }
    }
}

/// The disk that a path is on.
fn disk_of(path: &Path) -> Disk {
    let machine = path.components().nth(1).map(|name| name.as_os_str().to_string_lossy().into_owned());
    Disk::of(&machine.unwrap_or_default())
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, path.display().to_string())
}

impl State {
    fn check(&self) -> io::Result<()> {
        if self.on { Ok(()) } else { Err(off()) }
    }

    fn used(&self) -> u64 {
        self.files.values().map(|content| content.bytes().len() as u64).sum()
    }

    fn check_room(&self) -> io::Result<()> {
        if self.faults.full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync_fails(&mut self) -> bool {
        std::mem::take(&mut self.faults.sync_fails)
    }

    /// Of the entries that came, went or changed since their folder was synced, about half are as they are now.
    fn keep_some_entries(&mut self) {
        let paths: BTreeSet<&PathBuf> = self.entries.keys().chain(self.synced.keys()).collect();
        let changed: Vec<PathBuf> = paths
            .into_iter()
            .filter(|path| self.entries.get(*path) != self.synced.get(*path))
            .cloned()
            .collect();
        for path in changed {
            if simulated::next().is_multiple_of(2) {
                continue;
            }
            match self.entries.get(&path).copied() {
                Some(entry) => self.synced.insert(path, entry),
                None => self.synced.remove(&path),
            };
        }
    }
}

/// An open file, or folder.
#[derive(Debug)]
pub struct File {
    disk: Disk,
    power: u64,
    number: Option<u64>,
    path: PathBuf,
    at: usize,
}

impl File {
    /// Opens a file or folder for reading.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::default().open(path)
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut disk = self.disk.lock();
        if disk.power != self.power {
            return Err(off());
        }
        disk.check()?;
        work(&mut disk)
    }

    fn content<T>(&self, work: impl FnOnce(&mut Content) -> io::Result<T>) -> io::Result<T> {
        let number = self.number.ok_or(io::ErrorKind::IsADirectory)?;
        self.with(|disk| work(disk.files.get_mut(&number).ok_or_else(|| missing(&self.path))?))
    }

    /// Its length.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.content(|content| Ok(Metadata { len: content.bytes().len() as u64, order: 0 }))
    }

    /// Makes what was written durable; of a folder, its entries.
    pub fn sync_all(&self) -> io::Result<()> {
        let Some(number) = self.number else { return self.sync_entries() };
        self.with(|disk| {
            let fails = disk.sync_fails();
            let content = disk.files.get_mut(&number).ok_or_else(|| missing(&self.path))?;
            if fails {
                // The pages are dropped and count as clean: a second try would report success.
                content.lose();
                if simulated::mutant("failed-fsync-goes-on") {
                    return Ok(());
                }
                return Err(io::Error::other("the disk failed to sync"));
            }
            content.sync();
            Ok(())
        })
    }

    /// As [`File::sync_all`].
    pub fn sync_data(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn sync_entries(&self) -> io::Result<()> {
        let here = |path: &Path| path.parent() == Some(self.path.as_path());
        self.with(|disk| {
            if disk.sync_fails() {
                return Err(io::Error::other("the disk failed to sync"));
            }
            disk.synced.retain(|path, _| !here(path));
            let now: Vec<(PathBuf, Entry)> =
                disk.entries.iter().filter(|(path, _)| here(path)).map(|(p, e)| (p.clone(), *e)).collect();
            disk.synced.extend(now);
            Ok(())
        })
    }

    /// There is one process to a simulated machine.
    pub fn try_lock(&self) -> Result<(), std::fs::TryLockError> {
        Ok(())
    }

    /// See [`File::try_lock`].
    pub fn unlock(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|disk| disk.check_room())?;
        let at = self.at;
        self.content(|content| {
            content.write(at, bytes);
            Ok(())
        })?;
        self.at += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As `std::os::unix::fs::FileExt`.
pub trait FileExt {
    /// Fills `out` from `at`.
    fn read_exact_at(&self, out: &mut [u8], at: u64) -> io::Result<()>;
}

impl FileExt for File {
    fn read_exact_at(&self, out: &mut [u8], at: u64) -> io::Result<()> {
        let errors = self.with(|disk| Ok(disk.faults.read_errors))?;
        if errors > 0 && simulated::next() % 100 < u64::from(errors) {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()));
        }
        self.content(|content| copy(content, at, out))
    }
}

fn copy(content: &Content, at: u64, out: &mut [u8]) -> io::Result<()> {
    let at = at as usize;
    out.copy_from_slice(content.bytes().get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
    Ok(())
}

impl StorageBackend for File {
    fn len(&self) -> io::Result<u64> {
        self.content(|content| Ok(content.bytes().len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.content(|content| copy(content, offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.content(|content| {
            content.resize(len as usize);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.content(|content| {
            content.write(offset as usize, data);
            Ok(())
        })
    }
}

/// What is known of a file.
#[derive(Debug)]
pub struct Metadata {
    len: u64,
    order: u64,
}

impl Metadata {
    /// Its bytes.
    #[expect(clippy::len_without_is_empty, reason = "as std's")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Something that grows with each file made.
    pub fn modified(&self) -> io::Result<u64> {
        Ok(self.order)
    }
}

/// As `std::fs::OpenOptions`, as far as it is used.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    write: bool,
    create: bool,
    create_new: bool,
    truncate: bool,
}

impl OpenOptions {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reading is always possible.
    pub fn read(&mut self, _read: bool) -> &mut Self {
        self
    }

    /// For writing.
    pub fn write(&mut self, write: bool) -> &mut Self {
        self.write = write;
        self
    }

    /// Make it if it is not there.
    pub fn create(&mut self, create: bool) -> &mut Self {
        self.create = create;
        self
    }

    /// Make it; it must not be there.
    pub fn create_new(&mut self, create_new: bool) -> &mut Self {
        self.create_new = create_new;
        self
    }

    /// Empty it.
    pub fn truncate(&mut self, truncate: bool) -> &mut Self {
        self.truncate = truncate;
        self
    }

    /// Opens it.
    pub fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let path = path.as_ref();
        let shared = disk_of(path);
        let mut disk = shared.lock();
        disk.check()?;
        let number = match disk.entries.get(path).copied() {
            Some(_) if self.create_new => return Err(io::ErrorKind::AlreadyExists.into()),
            Some(Entry::Folder) => None,
            Some(Entry::File(number)) => {
                if self.truncate
                    && let Some(content) = disk.files.get_mut(&number)
                {
                    content.resize(0);
                }
                Some(number)
            }
            // A machine's root is always there.
            None if path.components().count() <= 2 => None,
            None if self.create || self.create_new => {
                disk.check_room()?;
                disk.next += 1;
                let number = disk.next;
                disk.files.insert(number, Content::default());
                disk.entries.insert(path.to_owned(), Entry::File(number));
                Some(number)
            }
            None => return Err(missing(path)),
        };
        let power = disk.power;
        drop(disk);
        Ok(File { disk: shared, power, number, path: path.to_owned(), at: 0 })
    }
}

/// As `std::os::unix::fs::OpenOptionsExt`.
pub trait OpenOptionsExt {
    /// Rights are not simulated.
    fn mode(&mut self, mode: u32) -> &mut Self;
}

impl OpenOptionsExt for OpenOptions {
    fn mode(&mut self, _mode: u32) -> &mut Self {
        self
    }
}

/// As `std::fs::DirBuilder`: always recursive.
#[derive(Debug, Default)]
pub struct DirBuilder;

impl DirBuilder {
    /// One.
    pub fn new() -> Self {
        Self
    }

    /// Always so.
    pub fn recursive(&mut self, _recursive: bool) -> &mut Self {
        self
    }

    /// Makes a folder and all that lead to it.
    pub fn create(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        let disk = disk_of(path);
        let mut disk = disk.lock();
        disk.check()?;
        for folder in path.ancestors().filter(|folder| folder.components().count() > 2) {
            disk.entries.entry(folder.to_owned()).or_insert(Entry::Folder);
        }
        Ok(())
    }
}

/// As `std::os::unix::fs::DirBuilderExt`.
pub trait DirBuilderExt {
    /// Rights are not simulated.
    fn mode(&mut self, mode: u32) -> &mut Self;
}

impl DirBuilderExt for DirBuilder {
    fn mode(&mut self, _mode: u32) -> &mut Self {
        self
    }
}

/// An entry of a folder.
#[derive(Debug)]
pub struct DirEntry {
    path: PathBuf,
    order: u64,
}

impl DirEntry {
    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// What is known of it.
    pub fn metadata(&self) -> io::Result<Metadata> {
        Ok(Metadata { len: 0, order: self.order })
    }
}

/// The entries of a folder, in order.
pub fn read_dir(path: impl AsRef<Path>) -> io::Result<std::vec::IntoIter<io::Result<DirEntry>>> {
    let path = path.as_ref();
    let disk = disk_of(path);
    let disk = disk.lock();
    disk.check()?;
    let here = disk.entries.iter().filter(|(entry, _)| entry.parent() == Some(path));
    let entry = |(path, entry): (&PathBuf, &Entry)| {
        Ok(DirEntry { path: path.clone(), order: entry.file().unwrap_or(0) })
    };
    Ok(here.map(entry).collect::<Vec<_>>().into_iter())
}

/// Removes a file; its contents stay for who has it open.
pub fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    let disk = disk_of(path);
    let mut disk = disk.lock();
    disk.check()?;
    disk.entries.remove(path).map(|_| ()).ok_or_else(|| missing(path))
}

/// Renames a file.
pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let disk = disk_of(from);
    let mut disk = disk.lock();
    disk.check()?;
    let entry = disk.entries.remove(from).ok_or_else(|| missing(from))?;
    disk.entries.insert(to.to_owned(), entry);
    Ok(())
}

/// All of a file's bytes.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    File::open(path)?.content(|content| Ok(content.bytes().to_vec()))
}

/// Whether there is anything at `path`.
pub(crate) fn exists(path: &Path) -> io::Result<bool> {
    let disk = disk_of(path);
    let disk = disk.lock();
    disk.check()?;
    Ok(disk.entries.contains_key(path))
}

/// Simulated files need no reservation, but room.
pub(crate) fn reserve(file: &File, _len: u64) -> io::Result<()> {
    file.with(|disk| disk.check_room())
}

/// Bytes left.
pub(crate) fn disk_free(path: &Path) -> io::Result<u64> {
    let disk = disk_of(path);
    let disk = disk.lock();
    Ok(if disk.faults.full { 0 } else { disk.capacity.saturating_sub(disk.used()) })
}

/// The index database over its file.
pub(crate) fn backend(file: File) -> Result<File, Error> {
    Ok(file)
}

/// Runs `work` in place, as everything is.
#[derive(Debug, Default)]
pub(crate) struct Brief;

impl Brief {
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        blocking(work).await
    }
}

/// Runs `work` in place: there are no other threads.
#[expect(clippy::unused_async, reason = "as the real one")]
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    Ok(work())
}
