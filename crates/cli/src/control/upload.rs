//! Sending a put's content: a thread reads the source, buffers go round, frames go out.

use std::{
    io::{self, Read},
    time::Duration,
};

use tokio::{io::AsyncWriteExt as _, net::unix::WriteHalf, sync::mpsc, time::timeout};

use super::{
    client::PATIENCE,
    frame::{MAX_FRAME, STILL_HERE},
};

/// How often a put whose source is slow tells the node that it is still here.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);
/// Buffers of an upload: one being read, one on its way, one between.
const BUFFERS: usize = 3;

/// Why an upload ended early.
pub(super) enum Upload {
    Source(io::Error),
    Socket(io::Error),
    Stalled,
}

/// A buffer that becomes a data frame: room for the header, then the data.
struct Buffer {
    bytes: Box<[u8]>,
    length: usize,
}

/// Sends the source to its end, with the end mark. A thread reads, because a source may block for ever.
pub(super) async fn upload(
    writer: &mut WriteHalf<'_>,
    source: impl Read + Send + 'static,
    mut sent: impl FnMut(usize),
) -> Result<(), Upload> {
    let (full, mut to_send) = mpsc::channel(BUFFERS);
    let (empty, to_fill) = mpsc::channel(BUFFERS);
    for _ in 0..BUFFERS {
        let buffer = Buffer { bytes: vec![0; 4 + MAX_FRAME].into(), length: 0 };
        empty.try_send(buffer).unwrap_or_else(|_| unreachable!("there is room for all of them"));
    }
    std::thread::spawn(move || read_source(source, to_fill, full));
    loop {
        let Ok(next) = timeout(SIGN_OF_LIFE, to_send.recv()).await else {
            write(writer, &STILL_HERE.to_le_bytes()).await?;
            continue;
        };
        let Some(buffer) = next else {
            return Err(Upload::Source(io::Error::other("the reading thread died")));
        };
        let buffer: Buffer = buffer.map_err(Upload::Source)?;
        // At the end of the source the length is zero, which is the end mark.
        write(writer, &buffer.bytes[..4 + buffer.length]).await?;
        if buffer.length == 0 {
            return Ok(());
        }
        sent(buffer.length);
        // The thread is gone only after an end, which is on its way to us.
        let _ = empty.send(buffer).await;
    }
}

async fn write(writer: &mut WriteHalf<'_>, bytes: &[u8]) -> Result<(), Upload> {
    match timeout(PATIENCE, writer.write_all(bytes)).await {
        Ok(written) => written.map_err(Upload::Socket),
        Err(_) => Err(Upload::Stalled),
    }
}

fn read_source(
    mut source: impl Read,
    mut to_fill: mpsc::Receiver<Buffer>,
    full: mpsc::Sender<io::Result<Buffer>>,
) {
    while let Some(mut buffer) = to_fill.blocking_recv() {
        let read = loop {
            match source.read(&mut buffer.bytes[4..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let last = !matches!(read, Ok(1..));
        let next = read.map(|length| {
            buffer.length = length;
            buffer.bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
            buffer
        });
        if full.blocking_send(next).is_err() || last {
            return;
        }
    }
}
