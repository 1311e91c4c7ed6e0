//! A few nodes on loopback in temporary folders, and what tests do with them.

use std::{
    future::Future,
    path::{Path, PathBuf},
    time::Duration,
};

use pando_node::{
    ByteRange, Config, Consistency, DEFAULT_GRACE, Error, Node, Object, PutOptions, Stored,
    core::layout::Replicas,
};

/// How long a condition may take to come true before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Grove {
    folder: tempfile::TempDir,
    pub(crate) nodes: Vec<Option<Node>>,
    grace: Duration,
}

pub(crate) fn config(data: PathBuf) -> Config {
    Config {
        data,
        listen: Some("127.0.0.1:0".parse().unwrap()),
        advertise: None,
        zone: None,
        capacity: Some(1 << 40),
        replicas: None,
        join: None,
        grace: DEFAULT_GRACE,
        dead_after: None,
        heal_rate: None,
    }
}

impl Grove {
    pub(crate) async fn of(count: usize) -> Grove {
        Self::with(count, None, DEFAULT_GRACE).await
    }

    pub(crate) async fn with(count: usize, replicas: Option<Replicas>, grace: Duration) -> Grove {
        let folder = tempfile::tempdir().unwrap();
        let mut grove = Grove { folder, nodes: Vec::new(), grace };
        for number in 0..count {
            let mut config = grove.config(number);
            match number {
                0 => config.replicas = replicas,
                _ => config.join = Some(grove.node(0).invite(Duration::from_secs(60)).await.unwrap()),
            }
            let node = Node::start(config).await.unwrap();
            grove.nodes.push(Some(node));
        }
        grove.settled().await;
        grove
    }

    pub(crate) fn data(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("node-{number}"))
    }

    pub(crate) fn config(&self, number: usize) -> Config {
        Config { grace: self.grace, ..config(self.data(number)) }
    }

    pub(crate) fn node(&self, number: usize) -> &Node {
        self.nodes[number].as_ref().expect("the node runs")
    }

    /// Waits until every running node knows a layout of all, not in transition, and sees the others up.
    pub(crate) async fn settled(&self) {
        let running: Vec<&Node> = self.nodes.iter().flatten().collect();
        eventually("the nodes know each other", || async {
            for node in &running {
                let status = node.status().await.unwrap();
                let up = status.nodes.iter().filter(|node| node.up).count();
                if status.in_transition || status.nodes.len() != self.nodes.len() || up != running.len() {
                    return false;
                }
            }
            true
        })
        .await;
    }

    pub(crate) async fn stop(&mut self, number: usize) {
        self.nodes[number].take().expect("the node runs").stop().await;
    }

    /// Starts a node again; it gets another port, as if it had moved.
    pub(crate) async fn restart(&mut self, number: usize) {
        self.nodes[number] = Some(Node::start(self.config(number)).await.unwrap());
    }

    /// All chunk files of a node.
    pub(crate) fn chunk_files(&self, number: usize) -> Vec<PathBuf> {
        files_below(&self.data(number).join("chunks"))
    }
}

pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// Waits for a condition.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Bytes that look random and are the same every time.
pub(crate) fn content(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

pub(crate) async fn put(node: &Node, key: &str, bytes: &[u8]) -> Result<Stored, Error> {
    node.put("default", key, bytes, PutOptions::default()).await
}

pub(crate) async fn get(node: &Node, key: &str) -> Result<Vec<u8>, Error> {
    read_all(node.get("default", key, None, Consistency::Linearizable).await?).await
}

pub(crate) async fn get_range(node: &Node, key: &str, range: ByteRange) -> Result<Vec<u8>, Error> {
    read_all(node.get("default", key, Some(range), Consistency::Linearizable).await?).await
}

pub(crate) async fn read_all(mut object: Object) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = object.next().await {
        let piece = piece?;
        assert!(!piece.is_empty() && piece.len() <= 64 << 10);
        bytes.extend_from_slice(&piece);
    }
    assert_eq!(bytes.len() as u64, object.range.end - object.range.start);
    Ok(bytes)
}
