//! Many: readers of one object at once, and nodes.

use futures_util::future::try_join_all;

use crate::{
    bench::{Bench, size},
    cluster::Shape,
    large::{receive, send},
    report::Line,
};

const PART: &str = "many, in memory";
const READERS: [usize; 4] = [1, 2, 4, 8];

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    readers(bench).await?;
    for nodes in bench.amounts.networks {
        networks(bench, *nodes).await?;
    }
    Ok(())
}

/// All of them read by one node, which has to get everything from its peers.
async fn readers(bench: &mut Bench) -> anyhow::Result<()> {
    let mut cluster = bench.in_memory(Shape { replicas: 3, owners: 3, reader: true }).await?;
    let node = cluster.nodes.len() - 1;
    let content = bench.noise.content(1, bench.amounts.medium());
    send(cluster.remote(0).await?, "many", &content).await?;
    for count in READERS {
        let mut remotes = Vec::new();
        for _ in 0..count {
            remotes.push(cluster.remote(node).await?);
        }
        let reading = remotes.into_iter().map(|remote| receive(remote, "many", &content, false));
        let (_, cost) = cluster.measure(try_join_all(reading)).await?;
        let what = format!("{count} readers of {} at once, from peers (of TLS)", size(content.size));
        let line = Line::transfer(PART, what, content.size * count as u64, cost);
        let (floor, tls) = (bench.report.floors.get_peer, bench.report.ceilings.tls.rate);
        bench.report.push(line.against(Some(floor), Some(tls)))?;
    }
    Ok(())
}

/// A network of so many nodes, three copies.
async fn networks(bench: &mut Bench, nodes: usize) -> anyhow::Result<()> {
    let mut cluster = bench.in_memory(Shape { replicas: 3, owners: nodes, reader: false }).await?;
    let content = bench.noise.content(2, bench.amounts.medium());
    let name = size(content.size);
    let remote = cluster.remote(0).await?;
    let ((), cost) = cluster.measure(send(remote, "many", &content)).await?;
    bench.report.push(Line::transfer(PART, format!("put {name}, {nodes} nodes"), content.size, cost))?;
    let remote = cluster.remote(nodes - 1).await?;
    let ((), cost) = cluster.measure(receive(remote, "many", &content, false)).await?;
    bench.report.push(Line::transfer(PART, format!("get {name}, {nodes} nodes"), content.size, cost))?;
    Ok(())
}
