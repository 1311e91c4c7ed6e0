//! Small objects on disk, three copies: put, get, conditional put and delete, over the control socket and by S3, with
//! few and many in flight. The disk's own syncs and a bare server are measured beside them.

use std::time::Duration;

use anyhow::Context as _;

use crate::{
    bare::{ANSWER, Bare},
    bench::Bench,
    ceilings::sync_latency,
    cluster::{Cluster, Shape},
    load::{self, Contents, Face, Job, Op},
    process,
    report::{Line, Unit},
    s3,
    stats::{Latency, millis, ratio},
};

const PART: &str = "4 KiB objects, 3 copies, on disk";
/// In flight at a time, over all nodes.
const AT_ONCE: [usize; 3] = [1, 32, 256];
/// What the goals are about.
const GOAL: usize = 32;
/// More keys than can be put in the time.
const MANY: u64 = 10_000_000;

/// By which way clients come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Native,
    S3,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Native => "native",
            Way::S3 => "S3",
        }
    }
}

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let mut cluster = bench.on_disk(Shape { replicas: 3, owners: 3, reader: false }).await?;
    let long = bench.amounts.window;
    let sync = sync_latency(&bench.noise, &bench.disk, long)?;
    bench.report.disk_sync = Some(sync);
    let line = Line::value(PART, "4 KiB written and synced, one thread", sync.per_second, Unit::PerSecond);
    bench.report.push(Line { latency: Some(sync.latency), ..line })?;
    for way in [Way::Native, Way::S3] {
        for at_once in AT_ONCE {
            all_operations(bench, &mut cluster, way, at_once).await?;
        }
    }
    Ok(())
}

/// Connections that are spread over all nodes.
async fn faces(cluster: &Cluster, way: Way, count: usize) -> anyhow::Result<Vec<Face>> {
    let mut faces = Vec::new();
    for number in 0..count {
        let node = number % cluster.nodes.len();
        faces.push(match way {
            Way::Native => Face::Native(cluster.remote(node).await?),
            Way::S3 => Face::S3(s3::Client::connect(cluster.s3(node)).await?),
        });
    }
    Ok(faces)
}

async fn all_operations(
    bench: &mut Bench,
    cluster: &mut Cluster,
    way: Way,
    at_once: usize,
) -> anyhow::Result<()> {
    let mut faces = faces(cluster, way, at_once).await?;
    let contents = Contents { noise: bench.noise.clone(), size: ANSWER };
    let is_goal = at_once == GOAL;
    let mut put = 0;
    for (op, name) in
        [(Op::Put, "put"), (Op::Get, "get"), (Op::PutIfAbsent, "put if absent"), (Op::Delete, "delete")]
    {
        let kind = if op == Op::PutIfAbsent { "absent" } else { "put" };
        let job = Job {
            op,
            prefix: format!("{kind}-{}-{at_once}", way.name()),
            keys: if matches!(op, Op::Get | Op::Delete) { put } else { MANY },
            contents: contents.clone(),
            window: bench.amounts.window,
        };
        let ((back, load), cost) = cluster.measure(load::run(faces, &job)).await?;
        faces = back;
        if op == Op::Put {
            put = load.count;
        }
        let what = format!("{name}, {}, {at_once} at once", way.name());
        let mut line = Line::operations(PART, what, load.count, load.wall, cost);
        line.latency = Latency::of(load.samples);
        match (op, way) {
            (Op::Put | Op::PutIfAbsent | Op::Delete, _) => {
                line = line.against(None, bench.report.disk_sync.map(|sync| sync.per_second));
            }
            (Op::Get, Way::S3) if is_goal => {
                let bare = bare(&contents, bench.amounts.window, at_once).await?;
                bench.report.figures.small_get = line.cpu.zip(bare.cpu);
                bench.report.push(bare)?;
            }
            (Op::Get, _) => {}
        }
        if is_goal && (op, way) == (Op::Put, Way::Native) {
            bench.report.figures.small_put = Some(line.clone()).zip(bench.report.disk_sync);
        }
        bench.report.push(line)?;
    }
    Ok(())
}

/// The same gets, of a server that does nothing else.
async fn bare(contents: &Contents, window: Duration, at_once: usize) -> anyhow::Result<Line> {
    let bare = Bare::start()?;
    let mut faces = Vec::new();
    for _ in 0..at_once {
        faces.push(Face::S3(s3::Client::connect(bare.endpoint()).await?));
    }
    // It has one answer: that of the first key.
    let (prefix, contents) = ("bare".to_owned(), contents.clone());
    let job = Job { op: Op::Get, prefix, keys: 1, contents, window };
    let (faces, _warm) = load::run(faces, &Job { window: window / 4, ..job.clone() }).await?;
    let before = process::cpu(bare.pid())?;
    let (_, load) = load::run(faces, &job).await.context("the bare server")?;
    let cpu = process::cpu(bare.pid())?.saturating_sub(before);
    let rate = ratio(load.count as f64, load.wall.as_secs_f64());
    let line = Line::value(PART, format!("get, bare hyper, {at_once} at once"), rate, Unit::PerSecond);
    let cpu = Some(ratio(millis(cpu), load.count as f64));
    Ok(Line { latency: Latency::of(load.samples), cpu, ..line })
}
