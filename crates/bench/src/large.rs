//! A large object: put, got from the node that holds it and from one that does not, ranges of it, its first byte.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use pando_cli::Remote;
use tokio::time::timeout;

use crate::{
    bench::{Bench, size},
    ceilings::{Cat, Rate, tls_stream, write_synced},
    cluster::{BUCKET, Cluster, Cost, Shape},
    content::Content,
    report::Line,
    s3,
    stats::Latency,
};

const MEMORY: &str = "large, in memory";
const DISK: &str = "large, on disk";
/// What is read to see its first byte: enough that as much is fetched ahead as for a whole object.
const FIRST: u64 = 32 << 20;
/// What a stream moves that a get is compared with.
const TLS: u64 = 512 << 20;
/// How long one transfer may take.
const TRANSFER: Duration = Duration::from_secs(300);
/// What is put and read before anything counts.
const WARM: u64 = 32 << 20;

/// In memory, so that no disk is measured.
pub(crate) async fn in_memory(bench: &mut Bench) -> anyhow::Result<()> {
    one_copy(bench).await?;
    let mut cluster = bench.in_memory(Shape { replicas: 3, owners: 3, reader: true }).await?;
    let reader = cluster.nodes.len() - 1;
    warm(bench, &mut cluster, reader).await?;
    let (large, floors) = (bench.amounts.large, bench.report.floors);
    let name = size(large);

    let line = put(bench, &mut cluster, MEMORY, &format!("put {name}, 3 copies")).await?;
    let line = line.against(Some(floors.put_three), None);
    bench.report.figures.put_three = Some(line.clone());
    bench.report.push(line)?;

    let file = Cat::new(&bench.noise, &bench.memory, large)?;
    let what = format!("get {name}, local (of `cat`)");
    let (line, cat) = get(bench, &mut cluster, MEMORY, 0, &what, || file.run()).await?;
    drop(file);
    let line = line.against(Some(floors.get_local), Some(cat.rate));
    bench.report.figures.get_local = Some((line.clone(), cat));
    bench.report.push(line)?;

    let (noise, what) = (bench.noise.clone(), format!("get {name}, from peers (of TLS)"));
    let (line, tls) = get(bench, &mut cluster, MEMORY, reader, &what, || tls_stream(&noise, TLS)).await?;
    let line = line.against(Some(floors.get_peer), Some(tls.rate));
    bench.report.figures.get_peer = Some((line.clone(), tls));
    bench.report.push(line)?;

    by_s3(bench, &mut cluster).await?;
    let content = bench.noise.content(1, large);
    let first = first_byte(bench, &mut cluster, reader, &content, Some(FIRST.min(large))).await?;
    bench.report.figures.first_byte = Some(first);
    bench.report.push(Line::latency(MEMORY, format!("first byte of {name}, from peers"), first))?;
    let first = first_byte(bench, &mut cluster, reader, &content, None).await?;
    bench.report.push(Line::latency(MEMORY, "first byte after a get that was broken off", first))?;
    for length in [64 << 10, 1 << 20] {
        ranges(bench, &mut cluster, reader, &content, length).await?;
    }
    Ok(())
}

async fn one_copy(bench: &mut Bench) -> anyhow::Result<()> {
    let mut cluster = bench.in_memory(Shape { replicas: 1, owners: 1, reader: false }).await?;
    warm(bench, &mut cluster, 0).await?;
    let what = format!("put {}, 1 copy", size(bench.amounts.large));
    let line = put(bench, &mut cluster, MEMORY, &what).await?;
    let floor = bench.report.floors.put_one;
    bench.report.push(line.against(Some(floor), None))?;
    Ok(())
}

/// On disk, with the disk's own rate measured before, between and after, because it changes.
pub(crate) async fn on_disk(bench: &mut Bench) -> anyhow::Result<()> {
    let mut cluster = bench.on_disk(Shape { replicas: 3, owners: 3, reader: false }).await?;
    warm(bench, &mut cluster, 2).await?;
    let (large, name) = (bench.amounts.large, size(bench.amounts.large));
    let mut best: Option<Line> = None;
    let mut disk = write_synced(&bench.noise, &bench.disk, large)?;
    for number in 1..=bench.amounts.rounds {
        let content = bench.noise.content(number, large);
        let line =
            put_once(&mut cluster, DISK, &format!("put {name}, 3 copies (of disk / 3)"), &content).await?;
        best = Some(best.map_or(line.clone(), |best| best.or_better(line)));
        let again = write_synced(&bench.noise, &bench.disk, large)?;
        disk.rate = disk.rate.max(again.rate);
    }
    let line = best.context("no round was measured")?;
    let line = line.against(Some(bench.report.floors.put_three), Some(disk.rate / 3.0));
    bench.report.disk_write = Some(disk);
    bench.report.figures.put_disk = Some((line.clone(), disk));
    bench.report.push(Line::value(DISK, "sequential write, synced", disk.rate, line.unit))?;
    bench.report.push(line)?;
    let (what, cat) = (format!("get {name}, local, cached (of `cat`)"), bench.report.ceilings.cat);
    let (line, _) = get(bench, &mut cluster, DISK, 0, &what, || Ok(cat)).await?;
    bench.report.push(line.against(Some(bench.report.floors.get_local), Some(cat.rate)))?;
    Ok(())
}

/// Connections are made, code is paged in; and everything that comes back is compared, once.
async fn warm(bench: &Bench, cluster: &mut Cluster, reader: usize) -> anyhow::Result<()> {
    let content = bench.noise.content(0, WARM.min(bench.amounts.large));
    let remote = cluster.remote(0).await?;
    send(remote, "warm", &content).await?;
    for node in [0, reader] {
        receive(cluster.remote(node).await?, "warm", &content, true).await?;
    }
    Ok(())
}

async fn put(bench: &Bench, cluster: &mut Cluster, part: &'static str, what: &str) -> anyhow::Result<Line> {
    let mut best: Option<Line> = None;
    for number in 1..=bench.amounts.rounds {
        let content = bench.noise.content(number, bench.amounts.large);
        let line = put_once(cluster, part, what, &content).await?;
        best = Some(best.map_or(line.clone(), |best| best.or_better(line)));
    }
    best.context("no round was measured")
}

/// Puts a content under the key `large`; the last one stays.
async fn put_once(
    cluster: &mut Cluster,
    part: &'static str,
    what: &str,
    content: &Content,
) -> anyhow::Result<Line> {
    let remote = cluster.remote(0).await?;
    let key = key(content);
    let ((), cost) = cluster.measure(send(remote, &key, content)).await?;
    Ok(Line::transfer(part, what, content.size, cost))
}

/// Gets the whole object some times, each time after its ceiling was measured: the two are a pair, and both are the best
/// of all rounds.
async fn get(
    bench: &Bench,
    cluster: &mut Cluster,
    part: &'static str,
    node: usize,
    what: &str,
    ceiling: impl Fn() -> anyhow::Result<Rate>,
) -> anyhow::Result<(Line, Rate)> {
    let content = bench.noise.content(1, bench.amounts.large);
    let mut best: Option<(Line, Rate)> = None;
    for _ in 0..=bench.amounts.rounds {
        cluster.quiet().await?;
        let rate = tokio::task::block_in_place(&ceiling)?;
        let remote = cluster.remote(node).await?;
        let ((), cost) = cluster.measure(receive(remote, &key(&content), &content, false)).await?;
        let line = Line::transfer(part, what, content.size, cost);
        best = Some(match best {
            Some((before, ceiling)) => (before.or_better(line), ceiling.or_better(rate)),
            None => (line, rate),
        });
    }
    best.context("no round was measured")
}

fn key(content: &Content) -> String {
    format!("large-{}", content.number)
}

pub(crate) async fn send(remote: Remote, key: &str, content: &Content) -> anyhow::Result<()> {
    let put = timeout(TRANSFER, remote.put(BUCKET, key, content.reader())).await;
    let (copies, wanted) = put.context("a put took too long")??;
    // On a busy machine an acknowledgement may come before the last copy; measuring waits until the nodes are quiet.
    ensure!(copies > wanted / 2, "only {copies} of {wanted} copies were made");
    Ok(())
}

/// Reads all of an object and checks it: every byte if `whole`.
pub(crate) async fn receive(
    mut remote: Remote,
    key: &str,
    content: &Content,
    whole: bool,
) -> anyhow::Result<()> {
    let mut at = 0;
    let get = remote.get(BUCKET, key, None, |piece| {
        content.check(at, piece, whole)?;
        at += piece.len() as u64;
        Ok(())
    });
    let got = timeout(TRANSFER, get).await.context("a get took too long")??;
    ensure!(got == content.size, "{got} bytes came, not {}", content.size);
    Ok(())
}

/// Once, and smaller: MD5 bounds a put by S3, which the table of ceilings shows.
async fn by_s3(bench: &mut Bench, cluster: &mut Cluster) -> anyhow::Result<()> {
    let content = bench.noise.content(100, bench.amounts.medium());
    let (name, path) = (size(content.size), format!("/{BUCKET}/by-s3"));
    let mut client = s3::Client::connect(cluster.s3(0)).await?;
    let ((), cost) = cluster.measure(client.put_content(&path, &content)).await?;
    let md5 = bench.report.ceilings.md5.rate;
    let line = Line::transfer(MEMORY, format!("put {name} by S3, 3 copies (of MD5)"), content.size, cost);
    bench.report.push(line.against(Some(bench.report.floors.put_three), Some(md5)))?;
    let ((), cost) = cluster.measure(client.get_content(&path, &content)).await?;
    let line = Line::transfer(MEMORY, format!("get {name} by S3, local (of `cat`)"), content.size, cost);
    let (floor, cat) = (bench.report.floors.get_local, bench.report.ceilings.cat.rate);
    bench.report.push(line.against(Some(floor), Some(cat)))?;
    Ok(())
}

/// How long the first byte of an object takes. With `most`, so many bytes are read after it, all that were asked for;
/// without, all are asked for and the get is broken off, which ends its connections between the nodes, too.
async fn first_byte(
    bench: &Bench,
    cluster: &mut Cluster,
    node: usize,
    content: &Content,
    most: Option<u64>,
) -> anyhow::Result<Latency> {
    let (key, mut samples) = (key(content), Vec::new());
    for _ in 0..=bench.amounts.samples {
        let mut remote = cluster.remote(node).await?;
        if most.is_none() {
            cluster.quiet().await?;
        }
        let (began, mut first, mut at) = (Instant::now(), None, 0);
        let got = remote.get(BUCKET, &key, most.map(|most| 0..most), |piece| {
            first.get_or_insert(began.elapsed());
            content.check(at, piece, false)?;
            at += piece.len() as u64;
            ensure!(most.is_some(), "that is enough");
            Ok(())
        });
        let got = timeout(TRANSFER, got).await.context("a get took too long")?;
        samples.push(first.with_context(|| format!("no first byte came: {got:?}"))?);
    }
    // The first one makes the connections that the others use.
    Latency::of(samples.split_off(1)).context("no samples")
}

/// Ranges at places that are all over the object, one after the other.
async fn ranges(
    bench: &mut Bench,
    cluster: &mut Cluster,
    node: usize,
    content: &Content,
    length: u64,
) -> anyhow::Result<()> {
    let (window, key) = (bench.amounts.window, key(content));
    let length = length.min(content.size);
    let mut remote = cluster.remote(node).await?;
    let reading = async {
        let (began, mut samples) = (Instant::now(), Vec::new());
        while samples.is_empty() || began.elapsed() < window {
            let since = Instant::now();
            let start = place(samples.len() as u64, content.size - length + 1);
            let mut at = start;
            let get = remote.get(BUCKET, &key, Some(start..start + length), |piece| {
                content.check(at, piece, true)?;
                at += piece.len() as u64;
                Ok(())
            });
            let got = timeout(TRANSFER, get).await.context("a range took too long")??;
            ensure!(got == length, "{got} bytes came, not {length}");
            samples.push(since.elapsed());
        }
        anyhow::Ok((samples, began.elapsed()))
    };
    let ((samples, wall), cost) = cluster.measure(reading).await?;
    let bytes = samples.len() as u64 * length;
    let what = format!("ranges of {}, from peers, one at a time", size(length));
    let line = Line::transfer(MEMORY, what, bytes, Cost { wall, ..cost });
    bench.report.push(Line { latency: Latency::of(samples), ..line })?;
    Ok(())
}

/// Places that look random and are the same in each run (the finaliser of splitmix64).
fn place(number: u64, places: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % places
}
