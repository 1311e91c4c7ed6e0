//! One node of the demo: a child process with a data folder of its own, killed when dropped.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::ChildStdout,
    time::timeout,
};

use crate::control::Client;

/// How long a node may take until it is ready.
const READY: Duration = Duration::from_secs(20);
/// Longest line that a node prints when it is ready.
const MAX_LINE: u64 = 64 << 10;
/// Lines of a node's log that are shown when something went wrong.
const LOG_LINES: usize = 10;

/// What `pando up --json` prints.
#[derive(Debug, Deserialize)]
pub(super) struct Ready {
    pub(super) listen: String,
    pub(super) ticket: Option<String>,
}

/// A running (or killed) node.
pub(super) struct Child {
    /// As people call it.
    pub(super) name: String,
    pub(super) ready: Ready,
    data: PathBuf,
    log: PathBuf,
    process: Process,
    /// Open, so that the node never writes to a closed pipe.
    _stdout: BufReader<ChildStdout>,
}

impl Child {
    /// Starts a node and waits until it is ready.
    pub(super) async fn start(folder: &Path, number: usize, arguments: &[&str]) -> anyhow::Result<Self> {
        let name = format!("node {number}");
        let (data, log) = (folder.join(number.to_string()), folder.join(format!("{number}.log")));
        let errors = File::options().create(true).append(true).open(&log).context("can't make a log file")?;
        let own = std::env::current_exe().context("can't find the pando executable")?;
        let mut process = Command::new(own)
            .args(["up", "--json", "--s3", "none", "--data"])
            .arg(&data)
            .args(arguments)
            .env_remove("PANDO_DATA")
            .env_remove("PANDO_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .with_context(|| format!("can't start {name}"))?;
        let stdout = process.stdout.take().expect("stdout is a pipe");
        let process = Process(process);
        let mut stdout = BufReader::new(ChildStdout::from_std(stdout)?);
        let mut line = String::new();
        let read = timeout(READY, (&mut stdout).take(MAX_LINE).read_line(&mut line)).await;
        let ready = match read {
            Ok(Ok(1..)) => serde_json::from_str(&line).with_context(|| format!("{name} said {line:?}")),
            Ok(_) => Err(anyhow!("{name} did not start")),
            Err(_) => Err(anyhow!("{name} was not ready after {} s", READY.as_secs())),
        };
        // An error is one line; what the node said of it comes before.
        let ready = ready.inspect_err(|_| tail(&name, &log).lines().for_each(crate::output::note))?;
        Ok(Self { name, ready, data, log, process, _stdout: stdout })
    }

    /// A connection to it.
    pub(super) async fn client(&self) -> anyhow::Result<Client> {
        Client::connect(&self.data).await.with_context(|| format!("{} does not answer", self.name))
    }

    /// Kills it as a power failure would: SIGKILL.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        self.process.0.kill().and_then(|()| self.process.0.wait()).map(drop).context("can't kill a node")
    }

    /// An error if it ended by itself.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        match self.process.0.try_wait().context("can't look after a node")? {
            Some(status) => bail!("{} ended by itself ({status})", self.name),
            None => Ok(()),
        }
    }

    /// The end of its log, for a failure's text; empty if it logged nothing.
    pub(super) fn tail(&self) -> String {
        tail(&self.name, &self.log)
    }
}

/// A process that does not outlive its owner.
struct Process(std::process::Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn tail(name: &str, log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
    last.iter().map(|line| format!("  {name}: {line}\n")).collect()
}
