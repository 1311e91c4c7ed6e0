//! What this machine allows: the primitives that no storage system gets around, each alone and as cheap as it can be.
//!
//! Rates are the best of several rounds, as noise only ever slows down; costs are CPU time, which noise touches less.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use md5::{Digest as _, Md5};
use serde::Serialize;

use crate::{content::Noise, process::thread_cpu, stats::ratio};

mod disk;
mod rpc;
mod stream;
mod tls;

pub(crate) use disk::{Sync, Write, sync_latency, write_synced};
pub(crate) use rpc::{ECHO, main as echo, round_trip};
pub(crate) use stream::Cat;
pub(crate) use tls::stream as tls_stream;

pub(crate) const GIB: f64 = (1u64 << 30) as f64;
pub(crate) const MIB: f64 = (1 << 20) as f64;
/// Bytes hashed or sealed at once: a segment of Pando's chunks. Large enough for every algorithm, small enough for caches.
const SEGMENT: usize = 64 << 10;
/// Bytes moved by one system call.
const PIECE: usize = 512 << 10;
const ROUNDS: usize = 3;

/// What something moves, and what that costs.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Rate {
    /// MiB a second.
    pub(crate) rate: f64,
    /// CPU seconds a GiB, of all that take part.
    pub(crate) cpu: f64,
}

/// The machine's own figures.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Ceilings {
    pub(crate) memcpy: Rate,
    pub(crate) blake3: Rate,
    pub(crate) aes: Rate,
    pub(crate) md5: Rate,
    /// One stream over loopback, both ends.
    pub(crate) tls: Rate,
    /// A Unix socket, the sending end.
    pub(crate) socket_send: Rate,
    /// A Unix socket, the receiving end.
    pub(crate) socket_receive: Rate,
    /// Writing files in memory.
    pub(crate) memory_write: Rate,
    /// Reading files in memory.
    pub(crate) memory_read: Rate,
    /// `cat` of a file in memory through a pipe.
    pub(crate) cat: Rate,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amount {
    /// Bytes that one round moves through a primitive.
    pub(crate) bytes: u64,
    /// Bytes of the file that `cat` reads.
    pub(crate) file: u64,
}

impl Ceilings {
    /// Measures all of them, with files in an empty folder in memory; takes seconds, and blocks.
    pub(crate) fn measure(noise: &Noise, folder: &Path, amount: Amount) -> anyhow::Result<Self> {
        let bytes = amount.bytes;
        let cat = Cat::new(noise, folder, amount.file)?;
        let (socket_send, socket_receive) = best_pair(|| stream::socket(noise, bytes))?;
        let (memory_write, memory_read) = best_pair(|| disk::memory(noise, folder, bytes))?;
        Ok(Self {
            memcpy: best(|| Ok(copy(noise, bytes)))?,
            blake3: best(|| Ok(blake3(noise, bytes)))?,
            aes: best(|| aes(noise, bytes))?,
            md5: best(|| Ok(md5(noise, bytes / 8)))?,
            tls: best(|| tls::stream(noise, bytes))?,
            socket_send,
            socket_receive,
            memory_write,
            memory_read,
            cat: best(|| cat.run())?,
        })
    }
}

impl Rate {
    pub(crate) fn new(bytes: u64, wall: Duration, cpu: Duration) -> Self {
        Self {
            rate: ratio(bytes as f64 / MIB, wall.as_secs_f64()),
            cpu: ratio(cpu.as_secs_f64(), bytes as f64 / GIB),
        }
    }

    /// The better of two, each figure for itself.
    pub(crate) fn or_better(self, other: Self) -> Self {
        Self { rate: self.rate.max(other.rate), cpu: self.cpu.min(other.cpu) }
    }
}

/// The best of some rounds.
fn best(mut round: impl FnMut() -> anyhow::Result<Rate>) -> anyhow::Result<Rate> {
    best_pair(|| round().map(|rate| (rate, rate))).map(|(rate, _)| rate)
}

fn best_pair(mut round: impl FnMut() -> anyhow::Result<(Rate, Rate)>) -> anyhow::Result<(Rate, Rate)> {
    let mut best = round()?;
    for _ in 1..ROUNDS {
        let (one, other) = round()?;
        best = (best.0.or_better(one), best.1.or_better(other));
    }
    Ok(best)
}

/// Runs something in this thread on so many bytes.
fn alone(bytes: u64, work: impl FnOnce()) -> Rate {
    let (began, before) = (Instant::now(), thread_cpu());
    work();
    Rate::new(bytes, began.elapsed(), thread_cpu() - before)
}

/// Pieces of the noise, one after the other and over again, that come to this many bytes.
fn pieces(noise: &Noise, size: usize, bytes: u64) -> impl Iterator<Item = &[u8]> {
    noise.bytes().chunks_exact(size).cycle().take((bytes / size as u64) as usize)
}

fn copy(noise: &Noise, bytes: u64) -> Rate {
    let mut target = vec![1; noise.bytes().len()];
    let places = target.len() / PIECE;
    alone(bytes, || {
        for (number, piece) in pieces(noise, PIECE, bytes).enumerate() {
            let start = number % places * PIECE;
            target[start..start + PIECE].copy_from_slice(piece);
            std::hint::black_box(&mut target);
        }
    })
}

fn blake3(noise: &Noise, bytes: u64) -> Rate {
    alone(bytes, || {
        let mut hasher = blake3::Hasher::new();
        pieces(noise, SEGMENT, bytes).for_each(|piece| {
            hasher.update(piece);
        });
        std::hint::black_box(hasher.finalize());
    })
}

fn md5(noise: &Noise, bytes: u64) -> Rate {
    alone(bytes, || {
        let mut hasher = Md5::new();
        pieces(noise, SEGMENT, bytes).for_each(|piece| hasher.update(piece));
        std::hint::black_box(hasher.finalize());
    })
}

/// Sealing; opening costs the same.
fn aes(noise: &Noise, bytes: u64) -> anyhow::Result<Rate> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).context("a key")?);
    let mut buffer = noise.bytes()[..16 * SEGMENT].to_vec();
    let mut sealed = Ok(());
    let rate = alone(bytes, || {
        for number in 0..bytes / SEGMENT as u64 {
            let start = number as usize % 16 * SEGMENT;
            let mut nonce = [0; 12];
            nonce[..8].copy_from_slice(&number.to_le_bytes());
            let nonce = Nonce::assume_unique_for_key(nonce);
            let segment = &mut buffer[start..start + SEGMENT];
            sealed = sealed.and(key.seal_in_place_separate_tag(nonce, Aad::empty(), segment).map(drop));
        }
    });
    sealed.context("sealing")?;
    Ok(rate)
}
