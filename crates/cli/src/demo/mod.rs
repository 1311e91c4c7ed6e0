//! `pando demo`: three nodes as child processes on this machine, driven through their control sockets. It
//! stores data, kills a node, reads everything back and compares it with a BLAKE3 of its own making.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::json;

use self::{child::Child, source::Source};
use crate::{
    args,
    control::{
        message::{PutRequest, Request},
        report::Status,
    },
    exit::{Failure, Kind},
    output::{Output, StdoutClosed},
    signals::Signals,
    units,
};

mod child;
mod source;

/// The loopback address with a port that is free.
const LISTEN: [&str; 2] = ["--listen", "127.0.0.1:0"];
/// How long nodes may take to agree on who is there, or to catch up.
const SETTLE: Duration = Duration::from_secs(20);
/// How long moving a file may take: this, and its size at a rate that any machine reaches.
const TRANSFER: Duration = Duration::from_secs(20);
const SLOWEST: u64 = 20 << 20;
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// The second file is at most this large: it shows that a put works without a node, not how fast.
const SECOND: u64 = 64 << 20;
const BUCKET: &str = "default";

pub(crate) async fn run(demo: args::Demo, out: &mut Output) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    tokio::select! {
        done = story(demo, out) => done,
        _ = signals.next() => Err(Failure::new(Kind::Failed, "interrupted").into()),
    }
}

/// A file to store, and what must come back.
struct Sample {
    key: &'static str,
    source: Source,
    size: u64,
    hash: blake3::Hash,
}

impl Sample {
    async fn new(key: &'static str, source: Source) -> anyhow::Result<Self> {
        let measured = source.clone();
        let (size, hash) = tokio::task::spawn_blocking(move || measured.measure()).await??;
        Ok(Self { key, source, size, hash })
    }

    /// What moves this sample, or an error when that takes too long.
    async fn in_time<T>(&self, moving: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let limit = TRANSFER + Duration::from_secs(self.size / SLOWEST);
        match tokio::time::timeout(limit, moving).await {
            Ok(moved) => moved,
            Err(_) => bail!("not done after {} s", limit.as_secs()),
        }
    }
}

async fn story(demo: args::Demo, out: &mut Output) -> anyhow::Result<()> {
    let begun = Instant::now();
    let folder = tempfile::Builder::new().prefix("pando-demo-").tempdir().context("can't make a folder")?;
    let source = match demo.file {
        Some(path) => Source::File(path),
        None => Source::generate(demo.size),
    };
    let first = Sample::new("first", source).await?;
    let second = Sample::new("second", Source::generate(first.size.min(SECOND))).await?;
    let mut grove = Grove { nodes: Vec::new(), report: Report { out } };
    let about = format!("three nodes in {}, {} to store", folder.path().display(), units::size(first.size));
    grove.report.line(&about).map_err(unheard)?;
    let told = grove.play(folder.path(), &first, &second).await;
    let logs: String = grove.nodes.iter().map(Child::tail).collect();
    if let Err(error) = told {
        crate::output::note("the demo failed; the last that its nodes logged:");
        logs.lines().filter(|line| !line.is_empty()).for_each(crate::output::note);
        return Err(unheard(error).context("demo"));
    }
    grove.report.end(begun.elapsed()).map_err(unheard)
}

/// A reader that went away ends other commands quietly, with success. The demo's success is a claim: it
/// must not be made of what was not done.
fn unheard(error: anyhow::Error) -> anyhow::Error {
    match error.is::<StdoutClosed>() {
        true => Failure::new(Kind::Failed, "stdout was closed before the end").into(),
        false => error,
    }
}

/// The three nodes.
struct Grove<'a> {
    nodes: Vec<Child>,
    report: Report<'a>,
}

impl Grove<'_> {
    async fn play(&mut self, folder: &Path, first: &Sample, second: &Sample) -> anyhow::Result<()> {
        self.gather(folder).await.context("forming the network")?;
        self.put(0, first).await?;
        self.get(2, first).await?;

        self.nodes[1].kill()?;
        self.report.step("node 2 killed (SIGKILL)", None, 0, "")?;
        self.put(0, second).await?;
        for reader in [2, 0] {
            self.get(reader, first).await?;
            self.get(reader, second).await?;
        }

        let began = Instant::now();
        let again = Child::start(folder, 2, &[]).await?;
        let detail = format!("listening at {}", again.ready.listen);
        self.nodes[1] = again;
        self.report.step("node 2 started again", Some(began.elapsed()), 0, &detail)?;
        self.settle("node 2 has caught up", caught_up).await?;
        self.get(1, first).await?;
        self.get(1, second).await
    }

    /// A network of one, and two that join it.
    async fn gather(&mut self, folder: &Path) -> anyhow::Result<()> {
        for number in 1..=3 {
            let began = Instant::now();
            let ticket = match self.nodes.first() {
                Some(inviter) => Some(inviter.client().await?.invite(SETTLE).await?),
                None => None,
            };
            let mut arguments = LISTEN.to_vec();
            arguments.extend(ticket.iter().flat_map(|ticket| ["--join", ticket.as_str()]));
            let node = Child::start(folder, number, &arguments).await?;
            let did = if ticket.is_some() { "joined" } else { "made a network" };
            let detail = format!("listening at {}", node.ready.listen);
            ensure!(ticket.is_some() || node.ready.ticket.is_some(), "the first node made no ticket");
            self.report.step(&format!("node {number} {did}"), Some(began.elapsed()), 0, &detail)?;
            self.nodes.push(node);
        }
        self.settle("all three know each other", formed).await
    }

    /// Waits until a condition holds as every node sees it.
    async fn settle(&mut self, what: &str, holds: fn(&Status) -> bool) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let mut last = None;
            for node in &mut self.nodes {
                node.check()?;
                let status = node.client().await?.status().await;
                let status = status.with_context(|| format!("the status of {}", node.name))?;
                if !holds(&status) {
                    last = Some((node.name.clone(), crate::commands::status::health(&status)));
                    break;
                }
            }
            let Some((name, (health, summary))) = last else {
                return self.report.step(what, Some(began.elapsed()), 0, "");
            };
            if began.elapsed() > SETTLE {
                let waited = SETTLE.as_secs();
                bail!("{what}: not so after {waited} s; {name} says {health}: {summary}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn put(&mut self, on: usize, sample: &Sample) -> anyhow::Result<()> {
        let what = format!("put \"{}\" on {}", sample.key, self.nodes[on].name);
        let client = self.nodes[on].client().await?;
        let request = PutRequest { bucket: BUCKET.into(), key: sample.key.into(), ..PutRequest::default() };
        let began = Instant::now();
        let put = client.put(request, sample.source.open()?, |_| ());
        let put = sample.in_time(put).await.with_context(|| what.clone())?;
        let took = began.elapsed();
        let expected = sample.hash.to_hex();
        if put.size != sample.size || put.blake3.as_deref() != Some(expected.as_str()) {
            let found = put.blake3.as_deref().unwrap_or("unknown");
            let why = format!("{what}: stored {} bytes with BLAKE3 {found}, not {expected}", put.size);
            return Err(Failure::new(Kind::Damaged, why).into());
        }
        // A majority is enough for an acknowledgement, and never less.
        ensure!(put.copies >= 2, "{what}: only {} of {} copies", put.copies, put.wanted);
        let detail = format!("{} of {} copies", put.copies, put.wanted);
        self.report.step(&what, Some(took), sample.size, &detail)
    }

    async fn get(&mut self, on: usize, sample: &Sample) -> anyhow::Result<()> {
        let what = format!("read \"{}\" on {}", sample.key, self.nodes[on].name);
        let mut client = self.nodes[on].client().await?;
        let (bucket, key) = (BUCKET.to_owned(), sample.key.to_owned());
        let began = Instant::now();
        let request = Request::Get { bucket, key, range: None, stale: false };
        let mut hasher = blake3::Hasher::new();
        let mut first = None;
        let received = async {
            let (_, range) = client.get(&request).await?;
            let read = client.content(range.end - range.start, |piece| {
                first.get_or_insert_with(|| began.elapsed());
                hasher.update(piece);
                Ok(())
            });
            read.await
        };
        sample.in_time(received).await.with_context(|| what.clone())?;
        let took = began.elapsed();
        if hasher.count() != sample.size || hasher.finalize() != sample.hash {
            let why = format!("{what}: {} bytes came, and they differ from what was put", hasher.count());
            return Err(Failure::new(Kind::Damaged, why).into());
        }
        let detail = format!("verified, first byte after {}", units::took(first.unwrap_or(took)));
        self.report.step(&what, Some(took), sample.size, &detail)
    }
}

/// Three members, all up, and no layout change under way.
fn formed(status: &Status) -> bool {
    status.nodes.len() == 3 && status.nodes.iter().all(|node| node.up) && !status.in_transition
}

/// As before, and no node owes another anything.
fn caught_up(status: &Status) -> bool {
    formed(status) && status.nodes.iter().all(|node| node.owed == Some(0))
}

/// A line for each step.
struct Report<'a> {
    out: &'a mut Output,
}

impl Report<'_> {
    fn line(&mut self, line: &str) -> anyhow::Result<()> {
        if !self.out.json {
            self.out.line(line)?;
        }
        self.out.flush()
    }

    fn step(&mut self, what: &str, took: Option<Duration>, bytes: u64, detail: &str) -> anyhow::Result<()> {
        let seconds = took.map(|took| took.as_secs_f64());
        let time = took.map(units::took).unwrap_or_default();
        let rate = match took {
            Some(took) if bytes > 0 => units::rate(bytes, took),
            _ => String::new(),
        };
        let line = format!("  {what:30} {time:>8} {rate:>12}  {detail}");
        self.out.either(&json!({ "step": what, "seconds": seconds, "bytes": bytes }), line.trim_end())?;
        self.out.flush()
    }

    fn end(&mut self, took: Duration) -> anyhow::Result<()> {
        let line = format!("all of it held: every byte read was the byte put ({})", units::took(took));
        self.out.either(&json!({ "ok": true, "seconds": took.as_secs_f64() }), line)
    }
}
