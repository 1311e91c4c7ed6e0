//! Answers the requests of one control connection.

use std::{io, time::Duration};

use pando_node::{ListQuery, Node};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        UnixStream,
        unix::{ReadHalf, WriteHalf},
    },
    time::timeout,
};

use super::{
    frame::{self, Body, DataFrame, END, FAILED},
    message::{Bucket, ListRequest, Object, Put, PutRequest, Reply, Request, VERSION, consistency},
};
use crate::exit::Failure;

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

fn timed_out(_: tokio::time::error::Elapsed) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client does not answer")
}

/// Serves one client until it closes, errs or falls silent.
pub(super) async fn connection(node: Node, mut stream: UnixStream) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let version = timeout(IDLE, reader.read_u8()).await.map_err(timed_out)??;
    if version != VERSION {
        let why = format!(
            "the running node speaks control version {VERSION}, this command speaks {version}: \
             use the same pando, or restart the node"
        );
        return reply(&mut writer, &Reply::Failed(Failure::new(crate::exit::Kind::Failed, why))).await;
    }
    loop {
        let next = timeout(IDLE, frame::read_message(&mut reader)).await.map_err(timed_out)?;
        let Some(request) = next? else { return Ok(()) };
        match request {
            Request::Put(request) => {
                if !put(&node, request, &mut reader, &mut writer).await? {
                    return Ok(());
                }
            }
            Request::Get { bucket, key, range, stale } => {
                let object = node.get(&bucket, &key, range.map(Into::into), consistency(stale)).await;
                get(object, &mut writer).await?;
            }
            Request::ListBuckets { stale } => list_buckets(&node, stale, &mut writer).await?,
            small => {
                let answer = answer(&node, small).await.unwrap_or_else(Reply::Failed);
                reply(&mut writer, &answer).await?;
            }
        }
    }
}

async fn reply(writer: &mut WriteHalf<'_>, reply: &Reply) -> io::Result<()> {
    timeout(REPLY, frame::write_message(writer, reply)).await.map_err(timed_out)?
}

/// The requests that are one message each way.
async fn answer(node: &Node, request: Request) -> Result<Reply, Failure> {
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
        Request::Put(_) | Request::Get { .. } | Request::ListBuckets { .. } => {
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

/// Stores what the client sends. A refusal is sent at once, while the client still uploads; the answer
/// is false if the connection can't be used any more.
async fn put(
    node: &Node,
    request: PutRequest,
    reader: &mut ReadHalf<'_>,
    writer: &mut WriteHalf<'_>,
) -> io::Result<bool> {
    let mut body = Body::new(reader, SILENCE);
    let outcome = match request.options() {
        Ok(options) => {
            node.put(&request.bucket, &request.key, &mut body, options).await.map_err(Failure::from)
        }
        Err(refused) => Err(refused),
    };
    let answer = match outcome {
        Ok(stored) => Reply::Stored(Put::from(stored)),
        Err(failure) => Reply::Failed(failure),
    };
    reply(writer, &answer).await?;
    if !body.ended() {
        // Closing on a client that still sends could cost it the reply.
        writer.shutdown().await?;
        let _ = timeout(DRAIN, throw_away(&mut body)).await;
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
