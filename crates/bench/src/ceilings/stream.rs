//! Bytes that go from one program to another on this machine: through a Unix socket, and from `cat` through a pipe.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tempfile::NamedTempFile;

use super::{PIECE, Rate, pieces};
use crate::{content::Noise, helper::Process, process::thread_cpu};

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

/// A file in memory to be read by `cat`; removed when dropped.
pub(crate) struct Cat {
    file: NamedTempFile,
    size: u64,
}

impl Cat {
    pub(crate) fn new(noise: &Noise, folder: &Path, size: u64) -> anyhow::Result<Self> {
        let mut file = NamedTempFile::new_in(folder).context("can't make a file")?;
        std::io::copy(&mut noise.content(0, size).reader(), &mut file).context("can't write a file")?;
        Ok(Self { file, size })
    }

    /// `cat FILE | (read and forget)`. The cost is not measured.
    pub(crate) fn run(&self) -> anyhow::Result<Rate> {
        let mut buffer = vec![0; PIECE];
        let began = Instant::now();
        let mut command = Command::new("cat");
        let command = command.arg(self.file.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut cat = Process(command.spawn().context("can't run `cat`")?);
        let mut pipe = cat.0.stdout.take().context("stdout is no pipe")?;
        let mut got = 0;
        loop {
            match pipe.read(&mut buffer).context("can't read from `cat`")? {
                0 => break,
                count => got += count as u64,
            }
        }
        ensure!(got == self.size, "`cat` gave {got} bytes of {}", self.size);
        Ok(Rate::new(got, began.elapsed(), Duration::ZERO))
    }
}
