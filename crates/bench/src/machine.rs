//! Where a run was.

use std::{
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};
use serde::Serialize;

use crate::{
    ceilings::{GIB, MIB},
    sigv4,
};

/// See the module's text.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// TCP's congestion control, which loopback obeys too.
    pub(crate) congestion: String,
    /// Processes that wanted to run in the minute before: what else was going on.
    pub(crate) load: String,
    pub(crate) memory_mib: f64,
    pub(crate) optimised: bool,
}

impl Machine {
    /// This one, now.
    pub(crate) fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let first = |path: &str| read(path).split_whitespace().next().unwrap_or("?").to_owned();
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.map(|line| line.trim_matches([' ', '\t', ':']).to_owned()).unwrap_or_else(|| "?".to_owned())
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (year, month, day) = sigv4::date(since / 86_400);
        Self {
            date: format!("{year:04}-{month:02}-{day:02}"),
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            kernel: first("/proc/sys/kernel/osrelease"),
            congestion: first("/proc/sys/net/ipv4/tcp_congestion_control"),
            load: first("/proc/loadavg"),
            memory_mib: available() as f64 / MIB,
            optimised: !cfg!(debug_assertions),
        }
    }
}

/// Bytes of memory that can still be used.
fn available() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map_or(u64::MAX, |kib| kib * 1024)
}

/// An error unless a folder has room for so many bytes; if it is in memory, memory has to have it too.
pub(crate) fn check_room(folder: &Path, bytes: u64, in_memory: bool) -> anyhow::Result<()> {
    let at = || folder.display();
    let system = rustix::fs::statvfs(folder).with_context(|| format!("can't use {}", at()))?;
    let mut free = system.f_bavail.saturating_mul(system.f_frsize);
    if in_memory {
        free = free.min(available());
    }
    let gib = |bytes: u64| bytes as f64 / GIB;
    ensure!(
        bytes <= free,
        "{} has room for {:.1} GiB, and {:.1} GiB are needed: choose a smaller --size, or another folder",
        at(),
        gib(free),
        gib(bytes)
    );
    Ok(())
}
