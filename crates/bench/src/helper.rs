//! Processes that this program becomes for a while, so that what they cost is theirs alone: the nodes, the bare server, the
//! other end of the RPC lane.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

/// A process that does not outlive its owner.
pub(crate) struct Process(pub(crate) std::process::Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

/// Starts this program under another name, and waits for the line by which it says that it is ready.
pub(crate) fn start(name: &str) -> anyhow::Result<(Process, String)> {
    let own = std::env::current_exe().context("can't find this program")?;
    let child = Command::new(own).arg0(name).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut process = Process(child.with_context(|| format!("can't start {name}"))?);
    let stdout = process.0.stdout.take().context("stdout is no pipe")?;
    // It says one line or ends.
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).with_context(|| format!("{name} says nothing"))?;
    ensure!(line.ends_with('\n'), "{name} did not start");
    Ok((process, line.trim().to_owned()))
}

/// Lets the system end this process when the one that started it ends, however that ends.
pub(crate) fn end_with_parent() {
    let signal = Some(rustix::process::Signal::KILL);
    // Without it, only a bench that was killed leaves something behind.
    let _ = rustix::process::set_parent_process_death_signal(signal);
}

/// Runs such a process: a runtime, and what it does until it is killed.
pub(crate) fn serve(serving: impl Future<Output = anyhow::Result<()>>) -> std::process::ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let served = runtime.context("no runtime").and_then(|runtime| runtime.block_on(serving));
    if served.is_ok() { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}
