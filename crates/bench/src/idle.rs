//! A node's start, and a node that nobody asks for anything.

use std::time::{Duration, Instant};

use crate::{
    bench::Bench,
    ceilings::MIB,
    cluster::Shape,
    process,
    report::{Line, Unit},
    stats::{millis, ratio},
};

const PART: &str = "starting, and doing nothing";

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let mut cluster = bench.in_memory(Shape { replicas: 3, owners: 3, reader: false }).await?;
    let started = |node: usize| millis(cluster.nodes[node].startup);
    let (made, joined) = (started(0), started(1).max(started(2)));
    bench.report.push(Line::value(PART, "a network made, until it serves", made, Unit::Millis))?;
    bench.report.push(Line::value(PART, "joined, until it serves", joined, Unit::Millis))?;
    let again = cluster.restart(&bench.pando, 2).await?;
    bench.report.push(Line::value(PART, "started again, until it serves", millis(again), Unit::Millis))?;
    cluster.settle().await?;
    cluster.quiet().await?;

    let cpu = |cluster: &crate::cluster::Cluster| -> anyhow::Result<Vec<Duration>> {
        cluster.nodes.iter().map(|node| process::cpu(node.pid())).collect()
    };
    let (before, began) = (cpu(&cluster)?, Instant::now());
    tokio::time::sleep(bench.amounts.idle).await;
    let (after, wall) = (cpu(&cluster)?, began.elapsed());
    let worst = before.iter().zip(&after).map(|(before, after)| after.saturating_sub(*before)).max();
    let percent = 100.0 * ratio(worst.unwrap_or_default().as_secs_f64(), wall.as_secs_f64());
    let mut memory = 0;
    for node in &cluster.nodes {
        memory = memory.max(process::memory(node.pid())?.0);
    }
    let memory = memory as f64 / MIB;
    bench.report.push(Line::value(PART, "memory of one of 3 idle nodes", memory, Unit::Mib))?;
    bench.report.push(Line::value(PART, "CPU of one of 3 idle nodes", percent, Unit::Percent))?;
    bench.report.figures.idle = Some((memory, percent));
    Ok(())
}
