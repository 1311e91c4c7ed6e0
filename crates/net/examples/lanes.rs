//! What the lanes move on this machine: one stream against plain TCP, and small calls alone and many at once.
//! Both ends run in this process, over loopback. Run with `--release`; `lanes 8` moves 8 GiB (default 4).
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for people, which stops at the first surprise"
)]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use pando_net::{Endpoint, Identity, Incoming, Limits, NodeId, Service};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const GIB: u64 = 1 << 30;
const PIECE: usize = 512 << 10;

/// Echoes calls, and sends as many bytes as it is asked for.
struct Echo;

impl Service for Echo {
    fn admits(&self, _: &NodeId) -> bool {
        true
    }

    async fn call(&self, _: NodeId, request: Bytes) -> Bytes {
        request
    }

    async fn stream(&self, _: NodeId, request: Bytes, exchange: Incoming) {
        let mut left = u64::from_le_bytes(request[..].try_into().unwrap());
        let mut out = exchange.reply(Bytes::new(), left).await.unwrap();
        let piece = vec![7; PIECE];
        while left > 0 {
            let amount = left.min(PIECE as u64);
            out.write_all(&piece[..amount as usize]).await.unwrap();
            left -= amount;
        }
        out.finish().await.unwrap();
    }

    async fn join(&self, _: NodeId, _: SocketAddr, request: Bytes) -> Bytes {
        request
    }
}

/// CPU time of this process so far: user and system, all threads.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<u64> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse().unwrap())
        .collect();
    Duration::from_millis(10 * fields.iter().sum::<u64>())
}

fn report(what: &str, bytes: u64, since: Instant, cpu_before: Duration) {
    let rate = bytes as f64 / since.elapsed().as_secs_f64() / 1e9;
    let cost = (cpu() - cpu_before).as_secs_f64() / (bytes as f64 / GIB as f64);
    println!("{what:<28} {rate:>6.2} GB/s   {cost:>5.2} CPU-s/GiB (both ends)");
}

async fn tcp(total: u64) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (since, before) = (Instant::now(), cpu());
    let sender = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let piece = vec![7; PIECE];
        for _ in 0..total / PIECE as u64 {
            tcp.write_all(&piece).await.unwrap();
        }
    });
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let (mut buffer, mut left) = (vec![0; PIECE], total);
    while left > 0 {
        left -= tcp.read(&mut buffer).await.unwrap() as u64;
    }
    sender.await.unwrap();
    report("plain TCP", total, since, before);
}

async fn stream(client: &Endpoint, peer: NodeId, total: u64, at_once: u64) {
    let (since, before) = (Instant::now(), cpu());
    let readers: Vec<_> = (0..at_once)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let len = total / at_once;
                let request = Bytes::copy_from_slice(&len.to_le_bytes());
                let exchange = client.open(peer, request, 0, far()).await.unwrap();
                let (_, mut body) = exchange.finish().await.unwrap();
                let mut buffer = vec![0; PIECE];
                while body.remaining() > 0 {
                    body.read(&mut buffer).await.unwrap();
                }
            })
        })
        .collect();
    for reader in readers {
        reader.await.unwrap();
    }
    report(&format!("stream lane, {at_once} at once"), total, since, before);
}

async fn chunks(client: &Endpoint, peer: NodeId, total: u64) {
    let (since, before) = (Instant::now(), cpu());
    let len = 4u64 << 20;
    let mut buffer = vec![0; len as usize];
    for _ in 0..total / len {
        let request = Bytes::copy_from_slice(&len.to_le_bytes());
        let (_, mut body) = client.open(peer, request, 0, far()).await.unwrap().finish().await.unwrap();
        body.read_exact(&mut buffer).await.unwrap();
    }
    report("4 MiB bodies, one by one", total, since, before);
}

fn far() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(600)
}

async fn latency(client: &Endpoint, peer: NodeId) {
    let request = Bytes::from_static(&[1; 64]);
    let mut times = Vec::new();
    for _ in 0..40_000 {
        let since = Instant::now();
        client.call(peer, request.clone(), far()).await.unwrap();
        times.push(since.elapsed());
    }
    times.sort();
    let at = |part: usize| times[times.len() * part / 100];
    println!("a call of 64 bytes, alone      p50 {:?}, p99 {:?}", at(50), at(99));
}

async fn rate(client: &Endpoint, peer: NodeId, at_once: u64) {
    let (total, since, before) = (400_000 / at_once * at_once, Instant::now(), cpu());
    let callers: Vec<_> = (0..at_once)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let request = Bytes::from_static(&[1; 64]);
                for _ in 0..total / at_once {
                    client.call(peer, request.clone(), far()).await.unwrap();
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let rate = total as f64 / since.elapsed().as_secs_f64();
    let cost = (cpu() - before).as_secs_f64() * 1e6 / total as f64;
    println!("calls of 64 bytes, {at_once:>3} at once {rate:>7.0}/s   {cost:.1} CPU-µs each (both ends)");
}

#[tokio::main]
async fn main() {
    let gib = std::env::args().nth(1).map_or(4, |arg| arg.parse().unwrap());
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let bind = || Endpoint::bind(Arc::new(Identity::generate()), anywhere, Limits::default(), Arc::new(Echo));
    let (client, server) = (bind().await.unwrap(), bind().await.unwrap());
    let peer = server.node_id();
    client.set_addresses(peer, vec![server.local_addr()]);
    let run = tokio::spawn(async move {
        tcp(gib * GIB).await;
        stream(&client, peer, gib * GIB, 1).await;
        stream(&client, peer, gib * GIB, 2).await;
        stream(&client, peer, gib * GIB, 4).await;
        chunks(&client, peer, gib * GIB).await;
        latency(&client, peer).await;
        for at_once in [1, 8, 64, 256] {
            rate(&client, peer, at_once).await;
        }
        client.shutdown().await;
    });
    run.await.unwrap();
    server.shutdown().await;
}
