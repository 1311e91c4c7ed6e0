//! A disk in memory that can lose power: what was not synced is lost, kept, or torn.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, mpsc},
};

use redb::StorageBackend;

/// What a power cut does to what was written and not synced.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    /// None of it survives.
    Lost,
    /// All of it survives, but for the second half of the last write.
    LastTorn,
    /// Every other write survives, starting with the first.
    Even,
    /// Every other write survives, starting with the second.
    Odd,
}

impl Cut {
    pub(super) const ALL: [Cut; 4] = [Cut::Lost, Cut::LastTorn, Cut::Even, Cut::Odd];
}

#[derive(Clone, Debug)]
enum Unsynced {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

#[derive(Debug, Default)]
struct Inner {
    synced: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Unsynced>,
    syncs: u64,
    /// How many more steps (syncs, and file steps that ask) may be done; `None`: any number.
    fuel: Option<u64>,
    dead: bool,
    /// Where the next sync says that it came, and waits to be let go.
    hold: Option<(tokio::sync::mpsc::Sender<()>, mpsc::Receiver<()>)>,
}

/// The other end of a sync that is held.
pub(super) struct Held {
    pub(super) came: tokio::sync::mpsc::Receiver<()>,
    pub(super) go: mpsc::Sender<()>,
}

/// The disk; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(super) struct CrashDisk(Arc<Mutex<Inner>>);

fn dead() -> io::Error {
    io::Error::other("the disk has no power")
}

impl CrashDisk {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// After `steps` more steps the power goes.
    pub(super) fn set_fuel(&self, steps: u64) {
        self.inner().fuel = Some(steps);
    }

    /// Uses up one step.
    pub(super) fn step(&self) -> io::Result<()> {
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
    pub(super) fn hold_next_sync(&self) -> Held {
        let (say, came) = tokio::sync::mpsc::channel(1);
        let (go, wait) = mpsc::channel();
        self.inner().hold = Some((say, wait));
        Held { came, go }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.inner().dead
    }

    pub(super) fn syncs(&self) -> u64 {
        self.inner().syncs
    }

    /// The disk after power came back.
    pub(super) fn after(&self, cut: Cut) -> CrashDisk {
        let inner = self.inner();
        let mut bytes = inner.synced.clone();
        let last = inner.unsynced.len().saturating_sub(1);
        for (number, change) in inner.unsynced.iter().enumerate() {
            match change {
                Unsynced::SetLen(len) => {
                    // Growth survives; shrinking could lose what is synced only if it was allowed to.
                    bytes.resize(bytes.len().max(*len), 0);
                }
                Unsynced::Write(at, data) => {
                    let keep = match cut {
                        Cut::Lost => 0,
                        Cut::LastTorn if number == last => data.len() / 2,
                        Cut::LastTorn => data.len(),
                        Cut::Even => data.len() * usize::from(number % 2 == 0),
                        Cut::Odd => data.len() * usize::from(number % 2 == 1),
                    };
                    if keep > 0 {
                        bytes.resize(bytes.len().max(at + keep), 0);
                        bytes[*at..at + keep].copy_from_slice(&data[..keep]);
                    }
                }
            }
        }
        let inner = Inner { synced: bytes.clone(), current: bytes, ..Inner::default() };
        CrashDisk(Arc::new(Mutex::new(inner)))
    }
}

impl StorageBackend for CrashDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inner().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.inner();
        let from = offset as usize;
        let bytes = inner.current.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.inner();
        if inner.dead {
            return Err(dead());
        }
        inner.current.resize(len as usize, 0);
        inner.unsynced.push(Unsynced::SetLen(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.step()?;
        let hold = self.inner().hold.take();
        if let Some((say, wait)) = hold {
            say.blocking_send(()).unwrap();
            wait.recv().unwrap();
        }
        let mut inner = self.inner();
        inner.syncs += 1;
        inner.synced = inner.current.clone();
        inner.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.inner();
        if inner.dead {
            return Err(dead());
        }
        let at = offset as usize;
        let end = at + data.len();
        let len = inner.current.len().max(end);
        inner.current.resize(len, 0);
        inner.current[at..end].copy_from_slice(data);
        inner.unsynced.push(Unsynced::Write(at, data.to_vec()));
        Ok(())
    }
}
