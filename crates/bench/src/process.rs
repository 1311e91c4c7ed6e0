//! What the system says of processes: CPU time and memory (proc(5)), and the clocks of this process.

use std::{fs, time::Duration};

use anyhow::{Context as _, anyhow};
use rustix::time::{ClockId, clock_gettime};

/// CPU time is counted in these, on every Linux (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// User and system time of a process so far, all of its threads.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("can't read {path}"))?;
    cpu_of_stat(&text).ok_or_else(|| anyhow!("{path} says {text:?}"))
}

/// Fields 14 and 15. The name before them is in parentheses and may hold anything.
fn cpu_of_stat(text: &str) -> Option<Duration> {
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * user.checked_add(system)?)
}

/// Resident memory of a process now, and its peak since [`reset_peak`], in bytes.
pub(crate) fn memory(pid: u32) -> anyhow::Result<(u64, u64)> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("can't read {path}"))?;
    let field = |name| memory_of_status(&text, name).ok_or_else(|| anyhow!("{path} lacks {name}"));
    Ok((field("VmRSS:")?, field("VmHWM:")?))
}

fn memory_of_status(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Lets the peak start anew. Where the system does not allow that, the peak is that of the whole life of the
/// process, which is never less.
pub(crate) fn reset_peak(pid: u32) {
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// CPU time of this thread.
pub(crate) fn thread_cpu() -> Duration {
    clock(ClockId::ThreadCPUTime)
}

fn clock(id: ClockId) -> Duration {
    let now = clock_gettime(id);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_is_read_right() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 4 0 123";
        assert_eq!(cpu_of_stat(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu_of_stat("42 (a) S 1"), None);
        let status = "Name:\tpando\nVmHWM:\t   2048 kB\nVmRSS:\t 1024 kB\n";
        assert_eq!(memory_of_status(status, "VmHWM:"), Some(2 << 20));
        assert_eq!(memory_of_status(status, "VmRSS:"), Some(1 << 20));
        assert_eq!(memory_of_status(status, "VmSwap:"), None);
    }

    #[test]
    fn this_process_has_used_something() {
        let own = std::process::id();
        let (now, peak) = memory(own).unwrap();
        assert!(0 < now && now <= peak + (1 << 20));
        reset_peak(own);
        let before = thread_cpu();
        let mut hash = blake3::hash(b"x");
        while thread_cpu() - before < 2 * TICK {
            hash = blake3::hash(hash.as_bytes());
        }
        assert!(cpu(own).unwrap() >= TICK);
    }
}
