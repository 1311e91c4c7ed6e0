//! The asking end of the control socket.

use std::{
    io::{self, Read},
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

#[cfg(target_os = "linux")]
use std::os::fd::BorrowedFd;

use anyhow::{Context as _, bail};
use pando_core::access::Grants;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};

use super::{
    frame::{self, END, FAILED, MAX_FRAME, STILL_HERE},
    keys::Key,
    message::{Bucket, Object, Page, Put, PutRequest, Reply, Request, VERSION},
    path::{ShortPath, socket_path},
    report::{Check, CheckProgress, Member, Plan, Problem, Status},
    share::Link,
    upload::{Upload, upload},
};
use crate::exit::{Failure, Kind};
#[cfg(target_os = "linux")]
use crate::output::stdout_failed;

/// How long a reply or the next piece of content may take. The node's own deadlines are shorter, so that
/// this ends only what a stopped or stuck node would let hang.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// After the node closed in mid-upload: how long its reason may take to be read.
const REASON: Duration = Duration::from_secs(2);
/// Bytes read from the socket at once.
const RECEIVE: usize = 512 << 10;

/// A connection to the running node.
pub(crate) struct Client {
    stream: UnixStream,
    /// The node's data folder.
    data: PathBuf,
    /// Whether an answer failed to come: the connection is of no more use.
    lost: bool,
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
            Ok(stream) => Ok(Self { stream, data: data.to_owned(), lost: false }),
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

    /// Another connection to the same node.
    pub(super) async fn again(&self) -> anyhow::Result<Self> {
        Self::connect(&self.data).await
    }

    pub(super) async fn send(&mut self, request: &Request) -> anyhow::Result<()> {
        match timeout(PATIENCE, frame::write_message(&mut self.stream, request)).await.map_err(slow)? {
            // The node closed: what it said before that is worth more than that it did.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.context("can't ask the node"),
        }
    }

    async fn receive(&mut self) -> anyhow::Result<Reply> {
        // Until it comes: who gives up waiting must not take a late answer for that to the next question.
        self.lost = true;
        let reply = timeout(PATIENCE, frame::read_message(&mut self.stream)).await.map_err(slow)?;
        let reply = match reply {
            Ok(Some(reply)) => reply,
            Ok(None) => return Err(gone().into()),
            Err(error) if is_disconnect(&error) => return Err(gone().into()),
            Err(error) => return Err(error).context("can't read the node's answer"),
        };
        self.lost = false;
        match reply {
            Reply::Failed(failure) => Err(failure.into()),
            reply => Ok(reply),
        }
    }

    async fn ask(&mut self, request: &Request) -> anyhow::Result<Reply> {
        self.send(request).await?;
        self.receive().await
    }

    /// Whether the node went away or fell silent, rather than said no.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost
    }

    /// As [`Client::ask`], for what changes something: without an answer it may have changed or not, which
    /// `look` shows.
    async fn change(&mut self, request: &Request, look: &str) -> anyhow::Result<Reply> {
        let answered = self.ask(request).await;
        match answered {
            Err(error) if self.lost => {
                let why =
                    format!("the outcome is unknown: {error:#}; look with `{look}` before you repeat it");
                Err(Failure::new(Kind::Unknown, why).into())
            }
            other => other,
        }
    }

    /// Asks for a change that is answered with a plain yes.
    pub(crate) async fn command(&mut self, request: &Request, look: &str) -> anyhow::Result<()> {
        match self.change(request, look).await? {
            Reply::Done => Ok(()),
            other => Err(confused(other)),
        }
    }

    /// Asks for a change of a member, and is told which one it was.
    pub(crate) async fn membership(&mut self, request: &Request) -> anyhow::Result<Member> {
        match self.change(request, "pando status").await? {
            Reply::Member(member) => Ok(member),
            other => Err(confused(other)),
        }
    }

    /// What a change of the membership would move.
    pub(crate) async fn plan(&mut self, request: &Request) -> anyhow::Result<Plan> {
        match self.ask(request).await? {
            Reply::Plan(plan) => Ok(plan),
            other => Err(confused(other)),
        }
    }

    /// Checks everything; `show` is told how far it is. Dropped, the node stops checking.
    pub(crate) async fn check(
        &mut self,
        deep: bool,
        mut show: impl FnMut(CheckProgress),
    ) -> anyhow::Result<(Check, Vec<Problem>)> {
        self.send(&Request::Check { deep }).await?;
        let mut found = Vec::new();
        loop {
            match self.receive().await? {
                Reply::Progress(progress) => show(progress),
                Reply::Problems(problems) => found.extend(problems),
                Reply::Checked(check) => return Ok((check, found)),
                other => return Err(confused(other)),
            }
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

    /// The page of a listing that was asked for.
    pub(super) async fn page(&mut self) -> anyhow::Result<Page> {
        match self.receive().await? {
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

    /// Makes an access key; its secret comes with it. If the answer is lost, so is the secret: the key, if it was
    /// made, is to be removed.
    pub(crate) async fn create_key(&mut self, name: String, grants: Grants) -> anyhow::Result<(Key, String)> {
        match self.change(&Request::CreateKey { name, grants }, "pando key ls").await? {
            Reply::NewKey { key, secret } => Ok((key, secret)),
            other => Err(confused(other)),
        }
    }

    /// All access keys.
    pub(crate) async fn list_keys(&mut self) -> anyhow::Result<Vec<Key>> {
        self.send(&Request::ListKeys).await?;
        let mut all = Vec::new();
        loop {
            match self.receive().await? {
                Reply::Keys { keys, more } => {
                    all.extend(keys);
                    if !more {
                        return Ok(all);
                    }
                }
                other => return Err(confused(other)),
            }
        }
    }

    /// A link to an object. If the answer is lost, at most a key that signs links was made.
    pub(crate) async fn share(&mut self, request: &Request) -> anyhow::Result<Link> {
        match self.ask(request).await? {
            Reply::Link(link) => Ok(link),
            other => Err(confused(other)),
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

    /// As [`Client::put`], of content that is all there and small; the connection can be used again.
    pub(crate) async fn put_bytes(&mut self, request: PutRequest, content: &[u8]) -> anyhow::Result<Put> {
        let mut bytes = Vec::with_capacity(content.len() + 1024);
        frame::write_message(&mut bytes, &Request::Put(request)).await?;
        for piece in content.chunks(MAX_FRAME) {
            bytes.extend_from_slice(&(piece.len() as u32).to_le_bytes());
            bytes.extend_from_slice(piece);
        }
        bytes.extend_from_slice(&END.to_le_bytes());
        timeout(PATIENCE, self.stream.write_all(&bytes))
            .await
            .map_err(slow)?
            .context("can't ask the node")?;
        match self.receive().await? {
            Reply::Stored(put) => Ok(put),
            other => Err(confused(other)),
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
        // Small content comes in one frame, with two headers.
        let size = length.saturating_add(16).min(RECEIVE as u64);
        let mut buffer = vec![0; size as usize];
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

    /// As [`Client::content`], into a pipe and without a copy: the system moves the pages. Where it can't
    /// (an old system, a sandbox), they are copied after all.
    #[cfg(target_os = "linux")]
    pub(crate) async fn content_to_pipe(
        &mut self,
        length: u64,
        pipe: BorrowedFd<'_>,
        mut moved: impl FnMut(usize),
    ) -> anyhow::Result<()> {
        let mut got: u64 = 0;
        let mut copy: Option<Vec<u8>> = None;
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
                let count = match &mut copy {
                    Some(buffer) => self.copy(pipe, left, buffer).await?,
                    None => match self.splice(pipe, left).await? {
                        Some(count) => count,
                        None => {
                            copy = Some(vec![0; RECEIVE]);
                            continue;
                        }
                    },
                };
                left -= count;
                moved(count);
            }
        }
    }

    /// Moves at least one byte from the socket to the pipe. May wait for the pipe's reader. `None`: the
    /// system does not do that here.
    #[cfg(target_os = "linux")]
    async fn splice(&self, pipe: BorrowedFd<'_>, most: usize) -> anyhow::Result<Option<usize>> {
        use rustix::{io::Errno, pipe::SpliceFlags};

        let mut to_pipe = || {
            let moved = rustix::pipe::splice(&self.stream, None, pipe, None, most, SpliceFlags::MOVE);
            moved.map_err(io::Error::from)
        };
        let splicing = self.stream.async_io(tokio::io::Interest::READABLE, &mut to_pipe);
        match timeout(PATIENCE, splicing).await.map_err(slow)? {
            Ok(0) => Err(gone_in_transfer().into()),
            Ok(count) => Ok(Some(count)),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::INVAL | Errno::NOSYS) => Ok(None),
                Some(Errno::PIPE) => Err(stdout_failed(error)),
                _ => Err(error).context("can't pass the content on"),
            },
        }
    }

    /// As [`Client::splice`], through a buffer.
    #[cfg(target_os = "linux")]
    async fn copy(&mut self, pipe: BorrowedFd<'_>, most: usize, buffer: &mut [u8]) -> anyhow::Result<usize> {
        let most = most.min(buffer.len());
        let count = self.fill(&mut buffer[..most]).await?;
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(pipe, rest));
            rest = &rest[written.map_err(|error| stdout_failed(error.into()))?..];
        }
        Ok(count)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Content in two frames, to a client.
    #[cfg(target_os = "linux")]
    async fn sending(content: &[u8]) -> (Client, UnixStream) {
        let (stream, mut node) = UnixStream::pair().unwrap();
        for piece in content.chunks(content.len() / 2) {
            node.write_all(&(piece.len() as u32).to_le_bytes()).await.unwrap();
            node.write_all(piece).await.unwrap();
        }
        node.write_all(&END.to_le_bytes()).await.unwrap();
        (Client { stream, data: PathBuf::new(), lost: false }, node)
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn content_goes_into_a_pipe_and_where_splice_is_refused() {
        use std::os::fd::AsFd as _;

        let content: Vec<u8> = (0..30_000u32).map(|number| number as u8).collect();
        let length = content.len() as u64;
        let (mut client, _node) = sending(&content).await;
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut counted = 0;
        client.content_to_pipe(length, writer.as_fd(), |count| counted += count).await.unwrap();
        drop(writer);
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        assert!(got == content && counted == content.len());

        // Neither end is a pipe: EINVAL.
        let (mut client, _node) = sending(&content).await;
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut counted = 0;
        client.content_to_pipe(length, file.as_fd(), |count| counted += count).await.unwrap();
        assert!(std::fs::read(file.path()).unwrap() == content && counted == content.len());
    }

    #[tokio::test]
    async fn a_change_without_an_answer_has_an_unknown_outcome() {
        let request = Request::RemoveBucket { name: "photos".into() };
        let (stream, node) = UnixStream::pair().unwrap();
        drop(node);
        let mut client = Client { stream, data: PathBuf::new(), lost: false };
        let error = client.command(&request, "pando ls").await.unwrap_err();
        assert!(client.is_lost() && crate::exit::kind_of(&error) == Kind::Unknown);
        assert!(error.to_string().contains("`pando ls`"), "{error}");

        let (stream, mut node) = UnixStream::pair().unwrap();
        let refusal = Reply::Failed(Failure::new(Kind::NotFound, "no"));
        frame::write_message(&mut node, &refusal).await.unwrap();
        let mut client = Client { stream, data: PathBuf::new(), lost: false };
        let error = client.command(&request, "pando ls").await.unwrap_err();
        assert!(!client.is_lost() && crate::exit::kind_of(&error) == Kind::NotFound);
    }
}
