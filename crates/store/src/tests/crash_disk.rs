//! A disk in memory, of two files, that can lose power: what was not synced is lost, kept, or torn.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, mpsc},
};

use redb::StorageBackend;

/// What a power cut does to what was written and not synced.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// None of it survives.
    Lost,
    /// All of it survives, but for the second half of the last write to each file.
    LastTorn,
    /// All of it survives, but for the first half of the last write to each file.
    LastHeadless,
    /// Every other write survives, starting with the first.
    Even,
    /// Every other write survives, starting with the second.
    Odd,
}

impl Cut {
    pub(crate) const ALL: [Cut; 5] = [Cut::Lost, Cut::LastTorn, Cut::LastHeadless, Cut::Even, Cut::Odd];
}

#[derive(Clone, Debug)]
enum Unsynced {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

/// One file.
#[derive(Clone, Debug, Default)]
struct Content {
    synced: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Unsynced>,
}

#[derive(Debug, Default)]
struct Inner {
    files: [Content; 2],
    syncs: u64,
    /// How many more steps (syncs, and file steps that ask) may be done; `None`: any number.
    fuel: Option<u64>,
    dead: bool,
    /// Where the next sync says that it came, and waits to be let go.
    hold: Option<(tokio::sync::mpsc::Sender<()>, mpsc::Receiver<()>)>,
}

/// The other end of a sync that is held.
pub(crate) struct Held {
    pub(crate) came: tokio::sync::mpsc::Receiver<()>,
    pub(crate) go: mpsc::Sender<()>,
}

/// The disk; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct CrashDisk(Arc<Mutex<Inner>>);

fn dead() -> io::Error {
    io::Error::other("the disk has no power")
}

impl CrashDisk {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// After `steps` more steps the power goes.
    pub(crate) fn set_fuel(&self, steps: u64) {
        self.inner().fuel = Some(steps);
    }

    /// Uses up one step.
    pub(crate) fn step(&self) -> io::Result<()> {
        let mut inner = self.inner();
        if inner.dead {
            return Err(dead());
        }
        match &mut inner.fuel {
            None => {}
            Some(0) => {
                inner.dead = true;
                return Err(dead());
            }
            Some(left) => *left -= 1,
        }
        Ok(())
    }

    /// The next sync stops until it is let go.
    pub(crate) fn hold_next_sync(&self) -> Held {
        let (say, came) = tokio::sync::mpsc::channel(1);
        let (go, wait) = mpsc::channel();
        self.inner().hold = Some((say, wait));
        Held { came, go }
    }

    /// The power is back, and nothing was lost: a failure that was none for long.
    pub(crate) fn revive(&self) {
        let mut inner = self.inner();
        (inner.dead, inner.fuel) = (false, None);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.inner().dead
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.inner().syncs
    }

    /// One of its files.
    pub(crate) fn file(&self, number: usize) -> CrashFile {
        CrashFile { disk: self.clone(), number }
    }

    /// Bytes of its files.
    pub(crate) fn lens(&self) -> [usize; 2] {
        self.inner().files.each_ref().map(|file| file.current.len())
    }

    /// The disk after power came back.
    pub(crate) fn after(&self, cut: Cut) -> CrashDisk {
        let files = self.inner().files.each_ref().map(|file| file.after(cut));
        CrashDisk(Arc::new(Mutex::new(Inner { files, ..Inner::default() })))
    }
}

impl Content {
    fn after(&self, cut: Cut) -> Content {
        let mut bytes = self.synced.clone();
        let last = self.unsynced.len().saturating_sub(1);
        for (number, change) in self.unsynced.iter().enumerate() {
            match change {
                Unsynced::SetLen(len) => {
                    // Growth survives; shrinking could lose what is synced only if it was allowed to.
                    bytes.resize(bytes.len().max(*len), 0);
                }
                Unsynced::Write(at, data) => {
                    let (half, whole) = (data.len() / 2, data.len());
                    let keep = match cut {
                        Cut::Lost => 0..0,
                        Cut::LastTorn if number == last => 0..half,
                        Cut::LastHeadless if number == last => half..whole,
                        Cut::LastTorn | Cut::LastHeadless => 0..whole,
                        Cut::Even => 0..whole * usize::from(number % 2 == 0),
                        Cut::Odd => 0..whole * usize::from(number % 2 == 1),
                    };
                    if !keep.is_empty() {
                        bytes.resize(bytes.len().max(at + keep.end), 0);
                        bytes[at + keep.start..at + keep.end].copy_from_slice(&data[keep]);
                    }
                }
            }
        }
        Content { synced: bytes.clone(), current: bytes, unsynced: Vec::new() }
    }
}

/// A file of a disk.
#[derive(Clone, Debug)]
pub(crate) struct CrashFile {
    disk: CrashDisk,
    number: usize,
}

impl CrashFile {
    fn with<T>(&self, change: impl FnOnce(&mut Content) -> T) -> T {
        change(&mut self.disk.inner().files[self.number])
    }

    fn check(&self) -> io::Result<()> {
        if self.disk.is_dead() { Err(dead()) } else { Ok(()) }
    }
}

impl StorageBackend for CrashFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|file| file.current.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let from = offset as usize;
        self.with(|file| {
            let bytes = file.current.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.with(|file| {
            file.current.resize(len as usize, 0);
            file.unsynced.push(Unsynced::SetLen(len as usize));
        });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.step()?;
        let hold = self.disk.inner().hold.take();
        if let Some((say, wait)) = hold {
            say.blocking_send(()).unwrap();
            wait.recv().unwrap();
        }
        self.disk.inner().syncs += 1;
        self.with(|file| {
            file.synced = file.current.clone();
            file.unsynced.clear();
        });
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        let at = offset as usize;
        let end = at + data.len();
        self.with(|file| {
            let len = file.current.len().max(end);
            file.current.resize(len, 0);
            file.current[at..end].copy_from_slice(data);
            file.unsynced.push(Unsynced::Write(at, data.to_vec()));
        });
        Ok(())
    }
}
