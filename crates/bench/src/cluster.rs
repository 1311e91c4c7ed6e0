//! Networks of real nodes: child processes on this machine, killed and cleaned up when dropped, and what they cost.

use std::{
    fs::File,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use pando_cli::{Network, Remote};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::ChildStdout,
    time::{sleep, timeout},
};

use crate::{
    helper::Process,
    process,
    s3::{Account, Endpoint},
};

/// The bucket that is there from the start.
pub(crate) const BUCKET: &str = "default";
/// What this program is called by when it is to be `pando`.
pub(crate) const PANDO: &str = "pando";

/// How long a node may take until it is ready, and a network until all know each other: a busy machine's.
const READY: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Longest line that a node prints when it is ready.
const MAX_LINE: u64 = 64 << 10;
/// Lines of a node's log that are shown when something went wrong.
const LOG_LINES: usize = 5;
/// Nodes are quiet when all of them together used less than a tenth of a core for so long.
const QUIET: Duration = Duration::from_millis(100);
/// How long that is waited for at most: the rest of their work is then not counted, which is little.
const QUIET_PATIENCE: Duration = Duration::from_secs(3);
/// What an owner offers, and a reader, which owns nothing: less than one slot's worth of the owners'.
const OWNER_CAPACITY: &str = "100G";
const READER_CAPACITY: &str = "1";

/// What a network is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Copies of everything.
    pub(crate) replicas: usize,
    /// Nodes that hold copies.
    pub(crate) owners: usize,
    /// Whether there is one more that holds none, so that all it reads comes from peers.
    pub(crate) reader: bool,
}

/// What something cost: all nodes together, but for the peak of memory, which is that of the worst.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Until it was done; not until the nodes were quiet again.
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    pub(crate) peak: u64,
}

/// What `pando up --json` prints.
#[derive(Debug, Deserialize)]
struct Ready {
    s3: S3,
}

#[derive(Debug, Deserialize)]
struct S3 {
    endpoint: String,
    access_key: Option<String>,
    secret_key: Option<String>,
}

/// A node that runs.
pub(crate) struct Node {
    data: PathBuf,
    log: PathBuf,
    /// Where it serves S3, HOST:PORT.
    s3: String,
    /// From its start until it served.
    pub(crate) startup: Duration,
    process: Process,
    /// Open, so that the node never writes to a closed pipe.
    _stdout: BufReader<ChildStdout>,
}

/// Nodes that form a network. The reader, if there is one, is the last.
pub(crate) struct Cluster {
    // Before the folder: the nodes end first.
    pub(crate) nodes: Vec<Node>,
    account: Account,
    folder: TempDir,
}

impl Cluster {
    /// Starts nodes with data folders below `place` and waits until all know each other.
    pub(crate) async fn start(pando: &Path, place: &Path, shape: Shape) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("pando-bench-").tempdir_in(place);
        let folder = folder.with_context(|| format!("can't make a folder in {}", place.display()))?;
        let replicas = shape.replicas.to_string();
        let first = ["--capacity", OWNER_CAPACITY, "--replicas", &replicas];
        let (node, ready) = Node::start(pando, folder.path(), 1, &first).await?;
        let (Some(id), Some(secret)) = (ready.s3.access_key, ready.s3.secret_key) else {
            bail!("the node that made the network made no access key");
        };
        let mut cluster = Self { nodes: vec![node], account: Account::new(id, secret), folder };
        for number in 2..=shape.owners + usize::from(shape.reader) {
            let capacity = if number > shape.owners { READER_CAPACITY } else { OWNER_CAPACITY };
            let ticket = cluster.remote(0).await?.invite(READY).await?;
            let arguments = ["--capacity", capacity, "--join", &ticket];
            let (node, _) = Node::start(pando, cluster.folder.path(), number, &arguments).await?;
            cluster.nodes.push(node);
        }
        cluster.settle().await?;
        Ok(cluster)
    }

    /// Kills a node and starts it again; how long it took until it served.
    pub(crate) async fn restart(&mut self, pando: &Path, node: usize) -> anyhow::Result<Duration> {
        let Process(process) = &mut self.nodes[node].process;
        process.kill().and_then(|()| process.wait()).context("can't kill a node")?;
        let (again, _) = Node::start(pando, self.folder.path(), node + 1, &[]).await?;
        let startup = again.startup;
        self.nodes[node] = again;
        Ok(startup)
    }

    /// A connection to a node's control socket.
    pub(crate) async fn remote(&self, node: usize) -> anyhow::Result<Remote> {
        let node = &self.nodes[node];
        Remote::connect(&node.data).await.with_context(|| node.tail())
    }

    /// Where a node serves S3, and as whom to ask.
    pub(crate) fn s3(&self, node: usize) -> Endpoint {
        Endpoint { address: self.nodes[node].s3.clone(), account: self.account.clone() }
    }

    /// Runs something and measures what it cost. What the nodes still do when it is done, and what they did before, are
    /// waited for, so that the cost is whole and no one else's.
    pub(crate) async fn measure<T>(
        &mut self,
        doing: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<(T, Cost)> {
        self.quiet().await?;
        self.nodes.iter().for_each(|node| process::reset_peak(node.pid()));
        let (before, began) = (self.cpu()?, Instant::now());
        let done = doing.await.map_err(|error| error.context(self.tails()))?;
        let wall = began.elapsed();
        self.quiet().await?;
        let cpu = self.cpu()?.saturating_sub(before);
        let mut peak = 0;
        for node in &self.nodes {
            peak = peak.max(process::memory(node.pid())?.1);
        }
        Ok((done, Cost { wall, cpu, peak }))
    }

    /// CPU time of all nodes.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        self.nodes.iter().map(|node| process::cpu(node.pid())).sum()
    }

    /// Waits until the nodes do next to nothing.
    pub(crate) async fn quiet(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            for node in &mut self.nodes {
                node.check()?;
            }
            let before = self.cpu()?;
            sleep(QUIET).await;
            if self.cpu()?.saturating_sub(before) <= QUIET / 10 || began.elapsed() > QUIET_PATIENCE {
                return Ok(());
            }
        }
    }

    /// Waits until every node knows all others, and none owes another anything.
    pub(crate) async fn settle(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        let wanted =
            Network { members: self.nodes.len(), up: self.nodes.len(), in_transition: false, owed: Some(0) };
        for node in 0..self.nodes.len() {
            let mut remote = self.remote(node).await?;
            loop {
                self.nodes[node].check()?;
                let network = remote.network().await.with_context(|| self.tails())?;
                if network == wanted {
                    break;
                }
                ensure!(
                    began.elapsed() < READY,
                    "the network did not settle: {network:?}, not {wanted:?}\n{}",
                    self.tails()
                );
                sleep(LOOK).await;
            }
        }
        Ok(())
    }

    fn tails(&self) -> String {
        let tails: Vec<String> = self.nodes.iter().map(Node::tail).collect();
        tails.join("\n")
    }
}

impl Node {
    /// Starts a node and waits until it serves.
    async fn start(
        pando: &Path,
        folder: &Path,
        number: usize,
        arguments: &[&str],
    ) -> anyhow::Result<(Self, Ready)> {
        let (data, log) = (folder.join(number.to_string()), folder.join(format!("{number}.log")));
        let errors = File::create(&log).context("can't make a log file")?;
        let began = Instant::now();
        let mut process = Command::new(pando)
            .arg0(PANDO)
            .args(["up", "--json", "--listen", "127.0.0.1:0", "--s3", "127.0.0.1:0", "--data"])
            .arg(&data)
            .args(arguments)
            .env_remove("PANDO_DATA")
            .env_remove("PANDO_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .with_context(|| format!("can't start {}", pando.display()))?;
        let stdout = process.stdout.take().context("stdout is no pipe")?;
        let process = Process(process);
        let mut stdout = BufReader::new(ChildStdout::from_std(stdout)?);
        let mut line = String::new();
        let read = timeout(READY, (&mut stdout).take(MAX_LINE).read_line(&mut line)).await;
        let startup = began.elapsed();
        match read {
            Ok(Ok(1..)) => {}
            Ok(_) => bail!("node {number} did not start\n{}", tail(&log)),
            Err(_) => bail!("node {number} was not ready after {} s\n{}", READY.as_secs(), tail(&log)),
        }
        let ready: Ready =
            serde_json::from_str(&line).with_context(|| format!("node {number} said {line:?}"))?;
        let s3 = ready.s3.endpoint.trim_start_matches("http://").to_owned();
        Ok((Self { data, log, s3, startup, process, _stdout: stdout }, ready))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// An error if it ended by itself.
    fn check(&mut self) -> anyhow::Result<()> {
        match self.process.0.try_wait().context("can't look after a node")? {
            Some(status) => bail!("a node ended by itself ({status})\n{}", self.tail()),
            None => Ok(()),
        }
    }

    fn tail(&self) -> String {
        tail(&self.log)
    }
}

/// The last that a node logged.
fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
    format!("{} says {last:?}", log.display())
}
