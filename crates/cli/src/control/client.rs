//! The asking end of the control socket.

use std::{
    io::{self, Read},
    ops::Range,
    path::Path,
    time::Duration,
};

#[cfg(target_os = "linux")]
use std::os::fd::BorrowedFd;

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt as _},
    net::{UnixStream, unix::WriteHalf},
    sync::mpsc,
    time::timeout,
};

use super::{
    frame::{self, END, FAILED, MAX_FRAME, STILL_HERE},
    message::{Bucket, Object, Page, Put, PutRequest, Reply, Request, Status, VERSION},
    path::{ShortPath, socket_path},
};
use crate::exit::{Failure, Kind};
#[cfg(target_os = "linux")]
use crate::output::stdout_failed;

/// How long a reply or the next piece of content may take. The node's own deadlines are shorter, so that
/// this ends only what a stopped or stuck node would let hang.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a put whose source is slow tells the node that it is still here.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);
/// After the node closed in mid-upload: how long its reason may take to be read.
const REASON: Duration = Duration::from_secs(2);
/// Buffers of an upload: one being read, one on its way, one between.
const BUFFERS: usize = 3;
/// Bytes read from the socket at once.
const RECEIVE: usize = 512 << 10;

/// A connection to the running node.
pub(crate) struct Client {
    stream: UnixStream,
}

fn slow(_: tokio::time::error::Elapsed) -> Failure {
    Failure::new(
        Kind::NotEnough,
        format!("the node did not answer for {} s; look at it with `pando status`", PATIENCE.as_secs()),
    )
}

fn gone() -> Failure {
    Failure::new(Kind::Failed, "the node stopped before it answered")
}

fn confused(reply: Reply) -> anyhow::Error {
    match reply {
        Reply::Failed(failure) => failure.into(),
        _ => anyhow::anyhow!("the node gave an answer that does not belong to the question"),
    }
}

impl Client {
    /// Connects to the node of a data folder.
    pub(crate) async fn connect(data: &Path) -> anyhow::Result<Self> {
        let path = socket_path(data);
        let connected = async {
            let short = ShortPath::new(&path)?;
            let mut stream = UnixStream::connect(short.as_path()).await?;
            stream.write_all(&[VERSION]).await?;
            Ok(stream)
        };
        let result: io::Result<UnixStream> = timeout(PATIENCE, connected).await.map_err(slow)?;
        match result {
            Ok(stream) => Ok(Self { stream }),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe => {
                    bail!("no node is running for {}: start one with `pando up`", data.display())
                }
                _ => Err(error).with_context(|| format!("can't reach the node at {}", path.display())),
            },
        }
    }

    async fn send(&mut self, request: &Request) -> anyhow::Result<()> {
        match timeout(PATIENCE, frame::write_message(&mut self.stream, request)).await.map_err(slow)? {
            // The node closed: what it said before that is worth more than that it did.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.context("can't ask the node"),
        }
    }

    async fn receive(&mut self) -> anyhow::Result<Reply> {
        let reply = timeout(PATIENCE, frame::read_message(&mut self.stream)).await.map_err(slow)?;
        match reply {
            Ok(Some(Reply::Failed(failure))) => Err(failure.into()),
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => Err(gone().into()),
            Err(error) if is_disconnect(&error) => Err(gone().into()),
            Err(error) => Err(error).context("can't read the node's answer"),
        }
    }

    async fn ask(&mut self, request: &Request) -> anyhow::Result<Reply> {
        self.send(request).await?;
        self.receive().await
    }

    /// Asks for what is answered with a plain yes.
    pub(crate) async fn command(&mut self, request: &Request) -> anyhow::Result<()> {
        match self.ask(request).await? {
            Reply::Done => Ok(()),
            other => Err(confused(other)),
        }
    }

    /// A ticket.
    pub(crate) async fn invite(&mut self, valid: Duration) -> anyhow::Result<String> {
        let valid_ms = u64::try_from(valid.as_millis()).unwrap_or(u64::MAX);
        match self.ask(&Request::Invite { valid_ms }).await? {
            Reply::Ticket(ticket) => Ok(ticket),
            other => Err(confused(other)),
        }
    }

    /// What is known of an object.
    pub(crate) async fn stat(&mut self, bucket: &str, key: &str, stale: bool) -> anyhow::Result<Object> {
        match self.ask(&Request::Stat { bucket: bucket.into(), key: key.into(), stale }).await? {
            Reply::Object(object) => Ok(object),
            other => Err(confused(other)),
        }
    }

    /// One page of a listing.
    pub(crate) async fn list(&mut self, request: &Request) -> anyhow::Result<Page> {
        match self.ask(request).await? {
            Reply::Page(page) => Ok(page),
            other => Err(confused(other)),
        }
    }

    /// All buckets.
    pub(crate) async fn list_buckets(&mut self, stale: bool) -> anyhow::Result<Vec<Bucket>> {
        self.send(&Request::ListBuckets { stale }).await?;
        let mut all = Vec::new();
        loop {
            match self.receive().await? {
                Reply::Buckets { buckets, more } => {
                    all.extend(buckets);
                    if !more {
                        return Ok(all);
                    }
                }
                other => return Err(confused(other)),
            }
        }
    }

    /// The network at a glance.
    pub(crate) async fn status(&mut self) -> anyhow::Result<Status> {
        match self.ask(&Request::Status).await? {
            Reply::Status(status) => Ok(status),
            other => Err(confused(other)),
        }
    }

    /// Puts what the source gives until its end. `sent` is told how much went out, each time. A refusal
    /// ends the upload at once.
    pub(crate) async fn put(
        mut self,
        request: PutRequest,
        source: impl Read + Send + 'static,
        sent: impl FnMut(usize),
    ) -> anyhow::Result<Put> {
        self.send(&Request::Put(request)).await?;
        let (mut reader, mut writer) = self.stream.split();
        let mut reply = std::pin::pin!(frame::read_message::<_, Reply>(&mut reader));
        let uploaded = tokio::select! {
            biased;
            early = reply.as_mut() => return stored(early, false),
            uploaded = upload(&mut writer, source, sent) => uploaded,
        };
        match uploaded {
            Ok(()) => match timeout(PATIENCE, reply).await {
                Ok(reply) => stored(reply, true),
                Err(_) => Err(unknown("the node did not answer in time").into()),
            },
            // Dropped without an end: the node throws away what it got.
            Err(Upload::Source(error)) => Err(error).context("can't read the data to put"),
            Err(Upload::Stalled) => Err(slow_upload().into()),
            Err(Upload::Socket(error)) => match timeout(REASON, reply).await {
                Ok(reply) => stored(reply, false),
                Err(_) => Err(error).context("the node went away in mid-upload; nothing was changed"),
            },
        }
    }

    /// Asks for an object's content: what it is and which bytes will come.
    pub(crate) async fn get(&mut self, request: &Request) -> anyhow::Result<(Object, Range<u64>)> {
        match self.ask(request).await? {
            Reply::Content { object, start, end } if start <= end => Ok((object, start..end)),
            other => Err(confused(other)),
        }
    }

    /// Hands on the content that was asked for, `length` bytes or an error.
    pub(crate) async fn content(
        &mut self,
        length: u64,
        mut sink: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut got: u64 = 0;
        let mut buffer = vec![0; RECEIVE];
        let mut filled = 0..0;
        loop {
            let header = self.header(&mut buffer, &mut filled).await?;
            let mut left = match Next::of(header, got, length)? {
                Next::Data(size) => size,
                Next::End => return Ok(()),
                Next::Failure => return Err(self.failure(&buffer[filled]).await),
            };
            got += left as u64;
            while left > 0 {
                if filled.is_empty() {
                    filled = 0..self.fill(&mut buffer).await?;
                }
                let piece = left.min(filled.len());
                sink(&buffer[filled.start..filled.start + piece])?;
                filled.start += piece;
                left -= piece;
            }
        }
    }

    /// As [`Client::content`], into a pipe and without a copy: the system moves the pages.
    #[cfg(target_os = "linux")]
    pub(crate) async fn content_to_pipe(
        &mut self,
        length: u64,
        pipe: BorrowedFd<'_>,
        mut moved: impl FnMut(usize),
    ) -> anyhow::Result<()> {
        let mut got: u64 = 0;
        loop {
            let (mut header, mut filled) = ([0; 4], 0..0);
            let header = self.header(&mut header, &mut filled).await?;
            let mut left = match Next::of(header, got, length)? {
                Next::Data(size) => size,
                Next::End => return Ok(()),
                Next::Failure => return Err(self.failure(&[]).await),
            };
            got += left as u64;
            while left > 0 {
                let count = self.splice(pipe, left).await?;
                left -= count;
                moved(count);
            }
        }
    }

    /// Moves at least one byte from the socket to the pipe. May wait for the pipe's reader.
    #[cfg(target_os = "linux")]
    async fn splice(&self, pipe: BorrowedFd<'_>, most: usize) -> anyhow::Result<usize> {
        use rustix::{io::Errno, pipe::SpliceFlags};

        let mut to_pipe = || {
            let moved = rustix::pipe::splice(&self.stream, None, pipe, None, most, SpliceFlags::MOVE);
            moved.map_err(io::Error::from)
        };
        let splicing = self.stream.async_io(tokio::io::Interest::READABLE, &mut to_pipe);
        match timeout(PATIENCE, splicing).await.map_err(slow)? {
            Ok(0) => Err(gone_in_transfer().into()),
            Err(error) if error.raw_os_error() == Some(Errno::PIPE.raw_os_error()) => {
                Err(stdout_failed(error))
            }
            other => other.context("can't pass the content on"),
        }
    }

    async fn header(&mut self, buffer: &mut [u8], filled: &mut Range<usize>) -> anyhow::Result<u32> {
        while filled.len() < 4 {
            buffer.copy_within(filled.clone(), 0);
            *filled = 0..filled.len();
            filled.end += self.fill(&mut buffer[filled.end..]).await?;
        }
        let header = buffer[filled.start..].first_chunk().expect("four bytes are there");
        filled.start += 4;
        Ok(u32::from_le_bytes(*header))
    }

    /// Reads at least one byte.
    async fn fill(&mut self, buffer: &mut [u8]) -> anyhow::Result<usize> {
        match timeout(PATIENCE, self.stream.read(buffer)).await.map_err(slow)? {
            Ok(0) => Err(gone_in_transfer().into()),
            Ok(count) => Ok(count),
            Err(error) => Err(error).context("the node went away in mid-transfer"),
        }
    }

    /// The failure that follows, of which a part may have been read already.
    async fn failure(&mut self, start: &[u8]) -> anyhow::Error {
        let mut rest = AsyncReadExt::chain(start, &mut self.stream);
        match timeout(PATIENCE, frame::read_message::<_, Failure>(&mut rest)).await {
            Ok(Ok(Some(failure))) => failure.into(),
            _ => Failure::new(Kind::Failed, "the node failed in mid-transfer and did not say why").into(),
        }
    }
}

/// What a data frame's header announces.
enum Next {
    Data(usize),
    End,
    Failure,
}

impl Next {
    /// Reads a header, when so many of the bytes that are to come were there before it.
    fn of(header: u32, got: u64, length: u64) -> anyhow::Result<Self> {
        let wrong = |what: &str| Failure::new(Kind::Damaged, format!("{what} after {got} of {length} bytes"));
        match header {
            END if got == length => Ok(Next::End),
            END => Err(wrong("the content ended").into()),
            FAILED => Ok(Next::Failure),
            STILL_HERE => Ok(Next::Data(0)),
            size if size as usize > MAX_FRAME => bail!("the node sent a malformed frame ({size:#x})"),
            size if u64::from(size) > length - got => Err(wrong("more content than announced came").into()),
            size => Ok(Next::Data(size as usize)),
        }
    }
}

fn gone_in_transfer() -> Failure {
    Failure::new(Kind::Failed, "the node went away in mid-transfer")
}

fn is_disconnect(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn unknown(why: &str) -> Failure {
    Failure::new(
        Kind::Unknown,
        format!("the outcome is unknown: {why}; look with `pando stat` before you repeat it"),
    )
}

fn slow_upload() -> Failure {
    let seconds = PATIENCE.as_secs();
    Failure::new(Kind::NotEnough, format!("the node took no data for {seconds} s; nothing was changed"))
}

/// The answer to a put; without one it matters whether all of the content was sent.
fn stored(reply: io::Result<Option<Reply>>, complete: bool) -> anyhow::Result<Put> {
    match reply {
        Ok(Some(Reply::Stored(put))) => Ok(put),
        Ok(Some(other)) => Err(confused(other)),
        Ok(None) | Err(_) if complete => Err(unknown("the node stopped before it answered").into()),
        Ok(None) => Err(gone_in_upload().into()),
        Err(error) if is_disconnect(&error) => Err(gone_in_upload().into()),
        Err(error) => Err(error).context("can't read the node's answer"),
    }
}

fn gone_in_upload() -> Failure {
    Failure::new(Kind::Failed, "the node went away in mid-upload; nothing was changed")
}

/// Why an upload ended early.
enum Upload {
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
async fn upload(
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
