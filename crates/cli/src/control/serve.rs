//! Answers the requests of one control connection.

use std::{io, sync::Arc, time::Duration};

use pando_core::{customer::Lock, layout::change::Force};
use pando_node::{Error, ListQuery, Node, PlanQuery};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        UnixStream,
        unix::{ReadHalf, WriteHalf},
    },
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    frame::{self, Body, DataFrame, END, FAILED},
    keys, members,
    message::{Bucket, ListRequest, Object, Put, PutRequest, Reply, Request, VERSION, consistency},
    places::Places,
    report::{Check, Problem},
    share::{self, S3At},
};
use crate::exit::{Failure, Kind};

/// A client that asks nothing for so long is dropped; the commands ask at once.
const IDLE: Duration = Duration::from_secs(60);
/// A put from which nothing comes is dropped. A client whose own source is slow says so every ten seconds.
const SILENCE: Duration = Duration::from_secs(60);
/// A client that takes nothing for so long is dropped. Long, because a person may pause a pager or a
/// player; it is there so that a stopped process does not hold its transfer for ever.
const STALL: Duration = Duration::from_secs(3600);
/// A reply is small, so a living client takes it at once.
const REPLY: Duration = Duration::from_secs(30);
/// After a put was refused: how long what the client still sends is thrown away, so that it can read why.
const DRAIN: Duration = Duration::from_secs(10);
/// Content is sent on in frames of about this size, or smaller ones rather than wait.
const GATHER: usize = 512 << 10;
/// Entries of a page: at most 600 KB with the longest keys, so that it fits a frame.
const PAGE: usize = 500;
/// Buckets of a reply, for the same reason.
const BUCKETS: usize = 4096;
/// Problems of a reply, for the same reason.
const PROBLEMS: usize = 256;
/// How often a check says how far it is.
const PROGRESS: Duration = Duration::from_millis(200);

/// What all connections share.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) node: Node,
    pub(super) places: Arc<Places>,
    pub(super) s3: S3At,
    /// Whether the node stops.
    pub(super) stopping: watch::Receiver<bool>,
}

impl Service {
    /// What comes of something that may wait for long and loses nothing when it is given up; `None` if the
    /// node stops first.
    async fn unless_stopping<T>(&self, waiting: impl Future<Output = T>) -> Option<T> {
        let mut stopping = self.stopping.clone();
        tokio::select! {
            biased;
            () = async { drop(stopping.wait_for(|stopping| *stopping).await) } => None,
            done = waiting => Some(done),
        }
    }

    /// A place for a request that may last.
    async fn place(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Failure> {
        match self.unless_stopping(self.places.transfer()).await {
            Some(place) => place,
            None => Err(Error::Stopping.into()),
        }
    }
}

fn timed_out(_: tokio::time::error::Elapsed) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client does not answer")
}

/// Serves one client until it closes, errs or falls silent, or until the node stops while it asks nothing.
pub(super) async fn connection(service: Service, mut stream: UnixStream) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let Some(version) = service.unless_stopping(timeout(IDLE, reader.read_u8())).await else { return Ok(()) };
    let version = version.map_err(timed_out)??;
    if version != VERSION {
        let why = format!(
            "the running node speaks control version {VERSION}, this command speaks {version}: \
             use the same pando, or restart the node"
        );
        return reply(&mut writer, &Reply::Failed(Failure::new(crate::exit::Kind::Failed, why))).await;
    }
    loop {
        let next = service.unless_stopping(timeout(IDLE, frame::read_message(&mut reader))).await;
        let Some(next) = next else { return Ok(()) };
        let Some(request) = next.map_err(timed_out)?? else { return Ok(()) };
        if !serve(&service, request, &mut reader, &mut writer).await? {
            return Ok(());
        }
    }
}

/// Serves one request; the answer is false if the connection can't be used any more.
async fn serve(
    service: &Service,
    request: Request,
    reader: &mut ReadHalf<'_>,
    writer: &mut WriteHalf<'_>,
) -> io::Result<bool> {
    let node = &service.node;
    match request {
        Request::Put(request) => return put(service, request, reader, writer).await,
        Request::Get { bucket, key, range, stale } => {
            let _place = match service.place().await {
                Ok(place) => place,
                Err(failure) => return reply(writer, &Reply::Failed(failure)).await.map(|()| true),
            };
            get(node.get(&bucket, &key, range.map(Into::into), consistency(stale)).await, writer).await?;
        }
        Request::Check { deep } => return check(service, deep, reader, writer).await,
        Request::ListBuckets { stale } => list_buckets(node, stale, writer).await?,
        Request::ListKeys => keys::list(node, writer).await?,
        small => {
            let answer = answer(service, small).await.unwrap_or_else(Reply::Failed);
            reply(writer, &answer).await?;
        }
    }
    Ok(true)
}

pub(super) async fn reply(writer: &mut WriteHalf<'_>, reply: &Reply) -> io::Result<()> {
    timeout(REPLY, frame::write_message(writer, reply)).await.map_err(timed_out)?
}

/// The requests that are one message each way.
async fn answer(service: &Service, request: Request) -> Result<Reply, Failure> {
    let node = &service.node;
    Ok(match request {
        Request::Invite { valid_ms } => {
            Reply::Ticket(node.invite(Duration::from_millis(valid_ms)).await?.to_string())
        }
        Request::Stat { bucket, key, stale } => {
            Reply::Object(node.stat(&bucket, &key, consistency(stale)).await?.into())
        }
        Request::Remove { bucket, key } => done(node.remove(&bucket, &key).await?),
        Request::List(request) => list(node, request).await?,
        Request::CreateBucket { name } => done(node.create_bucket(&name).await?),
        Request::RemoveBucket { name } => done(node.remove_bucket(&name).await?),
        Request::Status => Reply::Status(node.status().await?.into()),
        Request::Drain { node: text, force } => Reply::Member(members::drain(node, &text, force).await?),
        Request::Stay { node: text } => Reply::Member(members::stay(node, &text).await?),
        Request::RemoveNode { node: text, force, accept_loss } => {
            let force = match (accept_loss, force) {
                (true, _) => Force::EvenLost,
                (false, true) => Force::EvenUp,
                (false, false) => Force::None,
            };
            Reply::Member(members::remove(node, &text, force).await?)
        }
        Request::Plan { without, with } => {
            let without = without.iter().map(|text| members::find(node, text));
            let query = PlanQuery { without: without.collect::<Result<_, _>>()?, with };
            Reply::Plan(node.plan(&query)?.into())
        }
        Request::Scrub => {
            node.scrub_now();
            Reply::Done
        }
        Request::CreateKey { name, grants } => keys::create(node, &name, grants).await?,
        Request::RemoveKey { id } => done(node.remove_key(&id).await?),
        Request::Share { bucket, key, valid_secs, address } => {
            let valid = Duration::from_secs(valid_secs);
            share::share(node, &service.s3, (&bucket, &key), valid, address.as_deref()).await?
        }
        Request::Put(_)
        | Request::Get { .. }
        | Request::ListBuckets { .. }
        | Request::ListKeys
        | Request::Check { .. } => {
            unreachable!("these are more than one message")
        }
    })
}

fn done((): ()) -> Reply {
    Reply::Done
}

async fn list(node: &Node, request: ListRequest) -> Result<Reply, Failure> {
    let query = ListQuery {
        prefix: request.prefix,
        delimiter: request.delimiter,
        after: request.after,
        limit: PAGE,
        consistency: consistency(request.stale),
    };
    Ok(Reply::Page(node.list(&request.bucket, query).await?.into()))
}

async fn list_buckets(node: &Node, stale: bool, writer: &mut WriteHalf<'_>) -> io::Result<()> {
    let mut buckets: Vec<Bucket> = match node.list_buckets(consistency(stale)).await {
        Ok(buckets) => buckets.into_iter().map(Bucket::from).collect(),
        Err(error) => return reply(writer, &Reply::Failed(error.into())).await,
    };
    loop {
        let rest = buckets.split_off(buckets.len().min(BUCKETS));
        let more = !rest.is_empty();
        reply(writer, &Reply::Buckets { buckets, more }).await?;
        if !more {
            return Ok(());
        }
        buckets = rest;
    }
}

/// Checks everything and says several times a second how far it is. A client that goes away, or says
/// anything, ends the check.
async fn check(
    service: &Service,
    deep: bool,
    reader: &mut ReadHalf<'_>,
    writer: &mut WriteHalf<'_>,
) -> io::Result<bool> {
    let (progress, seen) = watch::channel(pando_node::CheckProgress::default());
    let checking = async {
        let _place = service.place().await?;
        match service.unless_stopping(service.node.check(deep, &progress)).await {
            Some(report) => report.map_err(Failure::from),
            None => Err(Error::Stopping.into()),
        }
    };
    let mut checking = std::pin::pin!(checking);
    let mut ticks = interval(PROGRESS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let report = loop {
        tokio::select! {
            report = checking.as_mut() => break report,
            _ = reader.read_u8() => return Ok(false),
            // Also when nothing went on: it shows the client that the node is alive.
            _ = ticks.tick() => {
                let progress = Reply::Progress((*seen.borrow()).into());
                reply(writer, &progress).await?;
            }
        }
    };
    let report = match report {
        Ok(report) => report,
        Err(failure) => return reply(writer, &Reply::Failed(failure)).await.map(|()| true),
    };
    let checked = Check::from(&report);
    let mut problems = report.problems.into_iter().map(Problem::from).peekable();
    while problems.peek().is_some() {
        reply(writer, &Reply::Problems(problems.by_ref().take(PROBLEMS).collect())).await?;
    }
    reply(writer, &Reply::Checked(checked)).await.map(|()| true)
}

/// Stores what the client sends. A refusal is sent at once, while the client still uploads; the answer
/// is false if the connection can't be used any more.
async fn put(
    service: &Service,
    request: PutRequest,
    reader: &mut ReadHalf<'_>,
    writer: &mut WriteHalf<'_>,
) -> io::Result<bool> {
    let mut body = Body::new(reader, SILENCE);
    let outcome = async {
        let options = request.options()?;
        let _place = service.place().await?;
        Ok(service.node.put(&request.bucket, &request.key, &mut body, options).await?)
    };
    let outcome: Result<_, Failure> = outcome.await;
    let answer = match outcome {
        Ok(stored) => Reply::Stored(Put::from(stored)),
        Err(failure) => Reply::Failed(failure),
    };
    reply(writer, &answer).await?;
    if !body.ended() {
        // Closing on a client that still sends could cost it the reply.
        writer.shutdown().await?;
        let _ = service.unless_stopping(timeout(DRAIN, throw_away(&mut body))).await;
    }
    Ok(body.ended())
}

async fn throw_away<R: AsyncRead + Unpin>(reader: &mut R) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    while reader.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// Sends an object's content as it comes: what is ready goes into one write, and nothing waits for more.
async fn get(
    object: Result<pando_node::Object, pando_node::Error>,
    writer: &mut WriteHalf<'_>,
) -> io::Result<()> {
    let mut object = match object {
        Ok(object) => object,
        Err(error) => return reply(writer, &Reply::Failed(error.into())).await,
    };
    if Lock::of(&object.info.meta).is_some() {
        let why =
            "an S3 client encrypted this object with a key of its own (SSE-C): get it by S3, with that key";
        return reply(writer, &Reply::Failed(Failure::new(Kind::Precondition, why))).await;
    }
    let (start, end) = (object.range.start, object.range.end);
    let content = Reply::Content { object: Object::from(object.info.clone()), start, end };
    reply(writer, &content).await?;
    let mut frame = DataFrame::default();
    let failed = loop {
        let mut next = std::pin::pin!(object.next());
        let piece = match futures_util::poll!(next.as_mut()) {
            std::task::Poll::Ready(piece) => piece,
            std::task::Poll::Pending => {
                send(&mut frame, writer).await?;
                next.await
            }
        };
        match piece {
            Some(Ok(piece)) => {
                if frame.len() + piece.len() > GATHER {
                    send(&mut frame, writer).await?;
                }
                frame.push(piece);
            }
            Some(Err(error)) => break Some(Failure::from(error)),
            None => break None,
        }
    };
    send(&mut frame, writer).await?;
    match failed {
        None => header(END, writer).await,
        Some(failure) => {
            header(FAILED, writer).await?;
            timeout(REPLY, frame::write_message(writer, &failure)).await.map_err(timed_out)?
        }
    }
}

async fn header(header: u32, writer: &mut WriteHalf<'_>) -> io::Result<()> {
    timeout(STALL, writer.write_all(&header.to_le_bytes())).await.map_err(timed_out)?
}

async fn send(frame: &mut DataFrame, writer: &mut WriteHalf<'_>) -> io::Result<()> {
    timeout(STALL, frame.write(writer)).await.map_err(timed_out)?
}
