//! Long listings, three nodes, in memory: a page after the other, as one client asks for them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use pando_cli::Remote;
use tokio::time::timeout;

use crate::{
    bench::Bench,
    cluster::{BUCKET, Cluster, Cost, Shape},
    load::{self, Contents, Face, Job, Op},
    report::Line,
    s3,
    stats::Latency,
};

const PART: &str = "lists, 3 nodes, in memory";
const PREFIX: &str = "list";
/// Clients that put the keys, over all nodes.
const FILLING: usize = 96;
/// What an object holds: as little as may be, for the keys are what counts.
const SIZE: usize = 16;
/// How long filling, and listing, may take.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let mut cluster = bench.in_memory(Shape { replicas: 3, owners: 3, reader: false }).await?;
    let all = bench.amounts.keys;
    for (prefix, keys) in [("short", all / 10), (PREFIX, all)] {
        let (cost, count) = fill(bench, &mut cluster, prefix, keys).await?;
        if keys == all {
            let what = format!("put of {SIZE} bytes, native, {FILLING} at once");
            bench.report.push(Line::operations(PART, what, count, cost.wall, cost))?;
        }
        let mut best: Option<Line> = None;
        for _ in 0..=bench.amounts.rounds {
            let remote = cluster.remote(0).await?;
            let (pages, cost) = cluster.measure(list(remote, prefix, keys)).await?;
            let what = format!("list {keys} keys, native");
            let mut line = Line::operations(PART, what, keys, cost.wall, cost);
            line.latency = Latency::of(pages);
            best = Some(best.map_or(line.clone(), |best| best.or_better(line)));
        }
        let line = best.context("no round was measured")?;
        if keys == all {
            bench.report.figures.list = Some(line.value);
        }
        bench.report.push(line)?;
        let client = s3::Client::connect(cluster.s3(0)).await?;
        let (pages, cost) = cluster.measure(list_by_s3(client, prefix, keys)).await?;
        let line = Line::operations(PART, format!("list {keys} keys, S3"), keys, cost.wall, cost);
        bench.report.push(Line { latency: Latency::of(pages), ..line })?;
    }
    Ok(())
}

async fn fill(bench: &Bench, cluster: &mut Cluster, prefix: &str, keys: u64) -> anyhow::Result<(Cost, u64)> {
    let mut faces = Vec::new();
    for number in 0..FILLING {
        faces.push(Face::Native(cluster.remote(number % cluster.nodes.len()).await?));
    }
    let contents = Contents { noise: bench.noise.clone(), size: SIZE };
    let job = Job { op: Op::Put, prefix: prefix.to_owned(), keys, contents, window: PATIENCE };
    let ((_, load), cost) = cluster.measure(load::run(faces, &job)).await?;
    ensure!(load.count == keys, "only {} of {keys} keys were put in time", load.count);
    Ok((cost, load.count))
}

/// Lists all, checks them, and says how long each page took to come after the one before.
async fn list(remote: Remote, prefix: &str, keys: u64) -> anyhow::Result<Vec<Duration>> {
    let (mut seen, mut samples) = (Seen::new(prefix), Vec::new());
    let mut pages = remote.list(BUCKET, &format!("{prefix}/"));
    loop {
        let began = Instant::now();
        let page = timeout(PATIENCE, pages.next()).await;
        let Some(found) = page.context("a page took too long")?? else { break };
        samples.push(began.elapsed());
        seen.page(&found)?;
    }
    seen.end(keys).map(|()| samples)
}

/// As [`list`], by S3.
async fn list_by_s3(mut client: s3::Client, prefix: &str, keys: u64) -> anyhow::Result<Vec<Duration>> {
    let (mut after, mut seen, mut samples) = (String::new(), Seen::new(prefix), Vec::new());
    loop {
        let began = Instant::now();
        let found = client.list(BUCKET, prefix, &after).await?;
        samples.push(began.elapsed());
        seen.page(&found)?;
        match found.last() {
            Some(last) => after.clone_from(last),
            None => return seen.end(keys).map(|()| samples),
        }
    }
}

/// Checks that all keys are listed, in order.
struct Seen<'a> {
    prefix: &'a str,
    count: u64,
}

impl<'a> Seen<'a> {
    fn new(prefix: &'a str) -> Self {
        Self { prefix, count: 0 }
    }

    fn page(&mut self, found: &[String]) -> anyhow::Result<()> {
        for key in found {
            let number = self.count;
            ensure!(*key == load::key(self.prefix, number), "{key} is listed as number {number}");
            self.count += 1;
        }
        Ok(())
    }

    fn end(self, keys: u64) -> anyhow::Result<()> {
        ensure!(self.count == keys, "{} keys are listed, not {keys}", self.count);
        Ok(())
    }
}
