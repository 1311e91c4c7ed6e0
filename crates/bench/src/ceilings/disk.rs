//! Files: written and read in memory, written to a disk and synced, and how long a small sync takes.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::fs::{FallocateFlags, fallocate, fdatasync};
use serde::Serialize;

use super::{Rate, alone, pieces};
use crate::{
    content::Noise,
    stats::{Latency, ratio},
};

/// What is written at once, and a file's size where many are: a chunk of Pando's.
const CHUNK: usize = 4 << 20;
/// A small write.
const SMALL: usize = 4 << 10;
/// Places of the file in which small writes go round.
const PLACES: usize = 4096;

/// Writing in sequence, and one sync at the end.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Write {
    /// MiB a second.
    pub(crate) rate: f64,
}

/// Writing 4 KiB and syncing, one thread, again and again.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sync {
    pub(crate) per_second: f64,
    #[serde(flatten)]
    pub(crate) latency: Latency,
}

/// New files in memory, of a chunk each: what writing and then reading them costs.
pub(super) fn memory(noise: &Noise, folder: &Path, bytes: u64) -> anyhow::Result<(Rate, Rate)> {
    let folder = folder.join("files");
    fs::create_dir(&folder).context("can't make a folder")?;
    let chunks: Vec<_> = pieces(noise, CHUNK, bytes).enumerate().collect();
    let path = |number: usize| folder.join(number.to_string());
    let bytes = (chunks.len() * CHUNK) as u64;
    let (mut written, mut read) = (Ok(()), Ok(()));
    let writing = alone(bytes, || {
        written = chunks.iter().try_for_each(|(number, chunk)| fs::write(path(*number), chunk));
    });
    let mut buffer = vec![0; CHUNK];
    let reading = alone(bytes, || {
        let mut one = |number: usize| File::open(path(number))?.read_exact_at(&mut buffer, 0);
        read = chunks.iter().try_for_each(|(number, _)| one(*number));
    });
    written.and(read).context("can't use files in memory")?;
    fs::remove_dir_all(&folder).context("can't remove a folder")?;
    Ok((writing, reading))
}

/// Writes a file of this size in sequence, its space allocated before, and syncs it.
pub(crate) fn write_synced(noise: &Noise, folder: &Path, size: u64) -> anyhow::Result<Write> {
    let file =
        tempfile::tempfile_in(folder).with_context(|| format!("can't write to {}", folder.display()))?;
    let began = Instant::now();
    let mut at = 0;
    // Not every file system can; those that can't write as they do.
    let _ = fallocate(&file, FallocateFlags::empty(), 0, size);
    for chunk in pieces(noise, CHUNK, size.max(CHUNK as u64)) {
        file.write_all_at(chunk, at).context("can't write")?;
        at += chunk.len() as u64;
    }
    fdatasync(&file).context("can't sync")?;
    Ok(Write { rate: Rate::new(at, began.elapsed(), Duration::ZERO).rate })
}

/// Writes 4 KiB and syncs for this long. The file's blocks are there already: nothing but the data has to be written.
pub(crate) fn sync_latency(noise: &Noise, folder: &Path, long: Duration) -> anyhow::Result<Sync> {
    let file =
        tempfile::tempfile_in(folder).with_context(|| format!("can't write to {}", folder.display()))?;
    file.write_all_at(&noise.bytes()[..SMALL * PLACES], 0).context("can't write")?;
    file.sync_all().context("can't sync")?;
    let (began, mut samples) = (Instant::now(), Vec::new());
    while samples.is_empty() || began.elapsed() < long {
        let since = Instant::now();
        let place = samples.len() % PLACES * SMALL;
        let data = &noise.bytes()[PLACES * SMALL - place..][..SMALL];
        file.write_all_at(data, place as u64).context("can't write")?;
        fdatasync(&file).context("can't sync")?;
        samples.push(since.elapsed());
    }
    let per_second = ratio(samples.len() as f64, began.elapsed().as_secs_f64());
    let latency = Latency::of(samples).context("no samples")?;
    Ok(Sync { per_second, latency })
}
