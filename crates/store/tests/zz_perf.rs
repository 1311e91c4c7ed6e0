use bytes::Bytes;
use pando_core::{id::*, name::RegisterName, register::*};
use pando_store::*;
use std::time::Instant;
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn perf() {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let store = Store::open(dir.path(), Options { node: NodeId([1; 32]), capacity: None }).await.unwrap();
    let l = LayoutVersion(0);
    for flight in [1usize, 32, 256] {
        let n = if flight == 1 { 500 } else { 20000 };
        let t = Instant::now();
        let mut tasks = Vec::new();
        for f in 0..flight {
            let store = store.clone();
            tasks.push(tokio::spawn(async move {
                for i in 0..n / flight {
                    let name = RegisterName::object("default", &format!("{flight}-{f}-{i}")).unwrap();
                    let value =
                        Value::after(None, WriteId([1; 16]), State::Present(Bytes::from(vec![7; 400])));
                    store
                        .accept(
                            l,
                            name,
                            Accepted { ballot: Ballot { layout: l, counter: 10, session: 1 }, value },
                        )
                        .await
                        .unwrap();
                }
            }));
        }
        for t in tasks {
            t.await.unwrap();
        }
        eprintln!("accept x{flight}: {:.0}/s", n as f64 / t.elapsed().as_secs_f64());
    }
    let t = Instant::now();
    for i in 0..5000 {
        store.read(l, RegisterName::object("default", &format!("32-1-{}", i % 600)).unwrap()).await.unwrap();
    }
    eprintln!("read x1: {:.0}/s", 5000f64 / t.elapsed().as_secs_f64());
    for flight in [1usize, 8] {
        let n = 128usize;
        let bodies: Vec<Bytes> = (0..n)
            .map(|i| {
                let mut v = vec![(i % 251) as u8; 4 << 20];
                v[0] = flight as u8;
                v[1] = i as u8;
                v.into()
            })
            .collect();
        let ids: Vec<ChunkId> = bodies.iter().map(|b| ChunkId(*blake3::hash(b).as_bytes())).collect();
        let t = Instant::now();
        let mut tasks = Vec::new();
        for f in 0..flight {
            let store = store.clone();
            let bodies = bodies.clone();
            let ids = ids.clone();
            tasks.push(tokio::spawn(async move {
                for i in (f..n).step_by(flight) {
                    store
                        .write_chunk(
                            ids[i],
                            bodies[i].clone(),
                            WriteId([flight as u8; 16]),
                            RegisterName::object("default", "x").unwrap(),
                            10,
                        )
                        .await
                        .unwrap();
                }
            }));
        }
        for t in tasks {
            t.await.unwrap();
        }
        eprintln!("write_chunk x{flight}: {:.0} MiB/s", (n * 4) as f64 / t.elapsed().as_secs_f64());
        let t = Instant::now();
        let mut bytes = 0u64;
        for id in &ids {
            let r = store.read_stream(*id).await.unwrap().unwrap();
            let mut at = 0;
            while at < r.len() {
                at += r.read_at(at, 1 << 20).await.unwrap().len() as u64;
            }
            bytes += at;
        }
        eprintln!("read_stream: {:.0} MiB/s", bytes as f64 / 1048576.0 / t.elapsed().as_secs_f64());
        let t = Instant::now();
        let all: Vec<ChunkId> = ids.iter().copied().cycle().take(4096).collect();
        store
            .claim(WriteId([99; 16]), RegisterName::object("default", "y").unwrap(), &all, 10)
            .await
            .unwrap();
        eprintln!("claim 4096: {:?}", t.elapsed());
        let t = Instant::now();
        store.release(WriteId([99; 16])).await.unwrap();
        eprintln!("release (shared): {:?}", t.elapsed());
        let t = Instant::now();
        let r = store.release(WriteId([flight as u8; 16])).await.unwrap();
        eprintln!("release {:?}: {:?}", r, t.elapsed());
    }
    store.close().await.unwrap();
}
