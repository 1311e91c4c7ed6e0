//! Bytes that go from one program to another on this machine: through a Unix socket, and from `cat` through a pipe.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Instant,
};

use anyhow::{Context as _, ensure};

use super::{PIECE, Rate, pieces};
use crate::{cluster::Process, content::Noise, process::thread_cpu};

/// Through a Unix socket: what the sending and what the receiving end costs.
pub(super) fn socket(noise: &Noise, bytes: u64) -> anyhow::Result<(Rate, Rate)> {
    let (mut sender, mut receiver) = UnixStream::pair().context("can't make a pair of sockets")?;
    let noise = noise.clone();
    let began = Instant::now();
    let sending = thread::spawn(move || {
        let before = thread_cpu();
        let mut sent = 0;
        for piece in pieces(&noise, PIECE, bytes) {
            sender.write_all(piece)?;
            sent += piece.len() as u64;
        }
        std::io::Result::Ok((sent, thread_cpu() - before))
    });
    let before = thread_cpu();
    let mut buffer = vec![0; PIECE];
    while receiver.read(&mut buffer)? > 0 {}
    let (received, wall) = (thread_cpu() - before, began.elapsed());
    let (bytes, sent) = sending.join().map_err(|_| anyhow::anyhow!("the sending thread died"))??;
    Ok((Rate::new(bytes, wall, sent), Rate::new(bytes, wall, received)))
}

/// `cat FILE | (read and forget)`, of a file in memory. The cost is not measured.
pub(super) fn cat(noise: &Noise, folder: &Path, size: u64, rounds: usize) -> anyhow::Result<Rate> {
    let path = folder.join("cat");
    let mut reader = noise.content(0, size).reader();
    let mut file = std::fs::File::create(&path).context("can't make a file")?;
    std::io::copy(&mut reader, &mut file).context("can't write the file for `cat`")?;
    let mut best = Rate::default();
    let mut buffer = vec![0; PIECE];
    for _ in 0..rounds {
        let began = Instant::now();
        let child = Command::new("cat").arg(&path).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut cat = Process(child.context("can't run `cat`")?);
        let mut pipe = cat.0.stdout.take().context("stdout is no pipe")?;
        let mut got = 0;
        loop {
            match pipe.read(&mut buffer).context("can't read from `cat`")? {
                0 => break,
                count => got += count as u64,
            }
        }
        ensure!(got == size, "`cat` gave {got} bytes of {size}");
        best.rate = best.rate.max(Rate::new(size, began.elapsed(), Default::default()).rate);
    }
    std::fs::remove_file(&path).context("can't remove a file")?;
    Ok(best)
}
