//! The load generator: so many clients, each with a connection of its own and one small operation at a time, over the
//! control socket or S3. The same for nodes and for the bare server that they are compared with.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use pando_cli::Remote;
use tokio::task::JoinSet;

use crate::{cluster::BUCKET, content::Noise, s3};

/// A client's connection.
pub(crate) enum Face {
    Native(Remote),
    S3(s3::Client),
}

/// What is done again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Put,
    /// Only if there is no such object; there is none.
    PutIfAbsent,
    Get,
    Delete,
}

impl Op {
    /// Whether each number may come only once.
    fn is_once(self) -> bool {
        self != Op::Get
    }
}

/// What is to be done, until time is over or the numbers have run out.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) op: Op,
    /// What the keys begin with.
    pub(crate) prefix: String,
    /// How many keys there are, or may be made.
    pub(crate) keys: u64,
    pub(crate) contents: Contents,
    pub(crate) window: Duration,
}

/// What small objects hold: each key something else.
#[derive(Clone)]
pub(crate) struct Contents {
    pub(crate) noise: Noise,
    pub(crate) size: usize,
}

/// What came of it.
pub(crate) struct Load {
    pub(crate) count: u64,
    pub(crate) wall: Duration,
    pub(crate) samples: Vec<Duration>,
}

impl Contents {
    fn of(&self, number: u64) -> Bytes {
        let all = self.noise.bytes();
        let place = number as usize % (all.len() / self.size) * self.size;
        Bytes::copy_from_slice(&all[place..place + self.size])
    }

    fn check(&self, number: u64, got: &[u8]) -> anyhow::Result<()> {
        ensure!(got == self.of(number), "object {number} is not what was put");
        Ok(())
    }
}

/// The key of a number.
pub(crate) fn key(prefix: &str, number: u64) -> String {
    format!("{prefix}/{number:08}")
}

/// Lets all clients do the job; gives them back.
pub(crate) async fn run(faces: Vec<Face>, job: &Job) -> anyhow::Result<(Vec<Face>, Load)> {
    let next = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for face in faces {
        clients.spawn(client(face, job.clone(), Arc::clone(&next), began));
    }
    let (mut faces, mut samples) = (Vec::new(), Vec::new());
    while let Some(ended) = clients.join_next().await {
        let (face, mut taken) = ended.context("a client died")??;
        faces.push(face);
        samples.append(&mut taken);
    }
    Ok((faces, Load { count: samples.len() as u64, wall: began.elapsed(), samples }))
}

async fn client(
    mut face: Face,
    job: Job,
    next: Arc<AtomicU64>,
    began: Instant,
) -> anyhow::Result<(Face, Vec<Duration>)> {
    let mut samples = Vec::new();
    while began.elapsed() < job.window {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if job.op.is_once() && number >= job.keys {
            break;
        }
        let number = number % job.keys;
        let since = Instant::now();
        face.act(&job, number).await.with_context(|| format!("{:?} number {number}", job.op))?;
        samples.push(since.elapsed());
    }
    Ok((face, samples))
}

impl Face {
    async fn act(&mut self, job: &Job, number: u64) -> anyhow::Result<()> {
        let key = key(&job.prefix, number);
        match self {
            Face::Native(remote) => native(remote, job, &key, number).await,
            Face::S3(client) => by_s3(client, job, &format!("/{BUCKET}/{key}"), number).await,
        }
    }
}

async fn native(remote: &mut Remote, job: &Job, key: &str, number: u64) -> anyhow::Result<()> {
    match job.op {
        Op::Put => remote.put_bytes(BUCKET, key, &job.contents.of(number), false).await,
        Op::PutIfAbsent => remote.put_bytes(BUCKET, key, &job.contents.of(number), true).await,
        Op::Delete => remote.remove(BUCKET, key).await,
        Op::Get => {
            let mut got = Vec::with_capacity(job.contents.size);
            let append = |piece: &[u8]| {
                got.extend_from_slice(piece);
                Ok(())
            };
            remote.get(BUCKET, key, None, append).await?;
            job.contents.check(number, &got)
        }
    }
}

async fn by_s3(client: &mut s3::Client, job: &Job, path: &str, number: u64) -> anyhow::Result<()> {
    match job.op {
        Op::Put => client.put(path, job.contents.of(number), false).await,
        Op::PutIfAbsent => client.put(path, job.contents.of(number), true).await,
        Op::Delete => client.remove(path).await,
        Op::Get => job.contents.check(number, &client.get(path).await?),
    }
}
