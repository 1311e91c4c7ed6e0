//! Get and stat: read the record, then deliver its content in order, verified, from wherever it can be had.
//!
//! The first bytes leave as soon as the first segment is there; some chunks are fetched ahead, from several
//! owners at once. See [`crate::fetch`] for one chunk.

use std::{collections::VecDeque, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use pando_core::{record::Body, seal::SEGMENT};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::{
    api::{ByteRange, Consistency, ObjectInfo, VersionId},
    content::{Content, Found as FoundChunk},
    error::Error,
    fetch::{Piece, fetch},
    inner::{Inner, permit},
    version::Found,
};

/// Chunks of one get that are being fetched at the same time.
const AHEAD: usize = 4;
/// Segments of one chunk that wait for the reader: 2 MiB.
const BUFFERED: usize = 32;
/// How long a get waits for its turn among the others.
const QUEUE_PATIENCE: Duration = Duration::from_secs(60);

/// An object being read.
pub struct Object {
    /// What is known of it.
    pub info: ObjectInfo,
    /// The bytes that will come, from the first to the one after the last.
    pub range: Range<u64>,
    source: Source,
}

enum Source {
    Inline(Bytes),
    Chunks(Box<Chunks>),
}

impl Object {
    /// The next bytes, at most 64 KiB; `None` at the end of the range. After an error nothing follows.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        match &mut self.source {
            Source::Inline(bytes) if bytes.is_empty() => None,
            Source::Inline(bytes) => Some(Ok(std::mem::take(bytes))),
            Source::Chunks(chunks) => chunks.next().await.transpose(),
        }
    }

    /// Gives its place to others, and what was read ahead up, since nobody takes what comes. The next [`Object::next`]
    /// waits for its turn again, and goes on where this one was, whatever became of the object meanwhile.
    pub fn pause(&mut self) {
        if let Source::Chunks(chunks) = &mut self.source {
            chunks.pause();
        }
    }
}

impl Inner {
    /// See [`crate::Node::stat`].
    pub(crate) async fn stat(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        consistency: Consistency,
    ) -> Result<ObjectInfo, Error> {
        let found = self.find(bucket, key, consistency).await?;
        Ok(self.info(bucket, key, &found, consistency).await)
    }

    /// See [`crate::Node::stat_version`].
    pub(crate) async fn stat_version(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        version: Option<VersionId>,
    ) -> Result<ObjectInfo, Error> {
        let found = self.find_version(bucket, key, version).await?;
        Ok(self.info(bucket, key, &found, Consistency::Linearizable).await)
    }

    /// See [`crate::Node::get`].
    pub(crate) async fn get(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        range: Option<ByteRange>,
        consistency: Consistency,
    ) -> Result<Object, Error> {
        let found = self.find(bucket, key, consistency).await?;
        let info = self.info(bucket, key, &found, consistency).await;
        self.deliver(found, info, range).await
    }

    /// See [`crate::Node::get_version`].
    pub(crate) async fn get_version(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        version: Option<VersionId>,
        range: Option<ByteRange>,
    ) -> Result<Object, Error> {
        let found = self.find_version(bucket, key, version).await?;
        let info = self.info(bucket, key, &found, Consistency::Linearizable).await;
        self.deliver(found, info, range).await
    }

    async fn deliver(
        self: &Arc<Self>,
        (name, record, version): Found,
        info: ObjectInfo,
        range: Option<ByteRange>,
    ) -> Result<Object, Error> {
        let range = range.map_or(Ok(0..record.size), |range| range.of(record.size))?;
        let source = match record.open(self.key()?, &name, &version)? {
            Body::Inline(bytes) => Source::Inline(bytes.slice(range.start as usize..range.end as usize)),
            _ if range.is_empty() => Source::Inline(Bytes::new()),
            body => {
                let place = permit(&self.limits.gets, QUEUE_PATIENCE, "too many gets at once").await?;
                match Content::open(self, body, record.size).await? {
                    Some(content) => {
                        Source::Chunks(Box::new(Chunks::new(Arc::clone(self), content, range.clone(), place)))
                    }
                    None => unreachable!("an inline body was opened above"),
                }
            }
        };
        Ok(Object { info, range, source })
    }
}

impl ByteRange {
    /// The bytes that it means for an object of `size` bytes (RFC 9110, section 14.1.2); [`Error::Range`] if none.
    pub fn of(self, size: u64) -> Result<Range<u64>, Error> {
        let outside = |start, end| Err(Error::Range { start, end, size });
        match self {
            ByteRange::Inclusive(start, end) if start > end || start >= size => outside(start, end),
            ByteRange::Inclusive(start, end) => Ok(start..size.min(end.saturating_add(1))),
            ByteRange::From(start) if start >= size => outside(start, size),
            ByteRange::From(start) => Ok(start..size),
            ByteRange::Last(0) => outside(size, size),
            ByteRange::Last(count) => Ok(size.saturating_sub(count)..size),
        }
    }
}

/// Delivers a range of a chunked object in order.
struct Chunks {
    inner: Arc<Inner>,
    content: Content,
    range: Range<u64>,
    /// Where the next bytes to deliver start.
    at: u64,
    /// Where the next chunk to start fetching is.
    next_chunk: u64,
    queue: VecDeque<Fetching>,
    failed: bool,
    /// How many chunks may be fetched at the same time: fewer for who paused, until it has taken some at once.
    ahead: usize,
    /// A place among the gets; none while it pauses.
    place: Option<OwnedSemaphorePermit>,
}

struct Fetching {
    pieces: mpsc::Receiver<Result<Bytes, Error>>,
    task: tokio::task::JoinHandle<()>,
    /// Where in the object the next segment starts.
    start: u64,
    /// How many segments are still to come.
    left: u32,
    /// Given back when the chunk is through; the chunk being delivered has none.
    _ahead: Option<OwnedSemaphorePermit>,
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Chunks {
    fn new(inner: Arc<Inner>, content: Content, range: Range<u64>, place: OwnedSemaphorePermit) -> Self {
        Self {
            inner,
            content,
            at: range.start,
            next_chunk: range.start,
            range,
            queue: VecDeque::new(),
            failed: false,
            ahead: 1,
            place: Some(place),
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.failed || self.at >= self.range.end {
            return Ok(None);
        }
        if self.place.is_none() {
            let place = permit(&self.inner.limits.gets, QUEUE_PATIENCE, "too many gets at once").await;
            self.failed = place.is_err();
            self.place = Some(place?);
        }
        let next = self.next_segment().await;
        self.failed = next.is_err();
        let (start, segment) = next?;
        // The first and the last segment may be wanted in part only.
        let skip = (self.at - start) as usize;
        let end = segment.len().min((self.range.end - start) as usize);
        self.at = start + end as u64;
        Ok(Some(segment.slice(skip..end)))
    }

    fn pause(&mut self) {
        self.queue.clear();
        self.next_chunk = self.at;
        self.ahead = 1;
        self.place = None;
    }

    /// The next segment, and where in the object it starts.
    async fn next_segment(&mut self) -> Result<(u64, Bytes), Error> {
        loop {
            self.start_ahead().await?;
            let current = self.queue.front_mut().expect("a chunk is being fetched while bytes are missing");
            if current.left == 0 {
                self.queue.pop_front();
                self.ahead = AHEAD.min(self.ahead + 1);
                continue;
            }
            current.left -= 1;
            let start = current.start;
            let segment = current.pieces.recv().await.unwrap_or(Err(Error::Stopping))?;
            current.start += segment.len() as u64;
            if self.at == self.range.start {
                // Until now nothing competed with the first bytes.
                self.ahead = AHEAD;
            }
            return Ok((start, segment));
        }
    }

    /// Fetches ahead as far as there is room; the chunk that is needed next never waits for room.
    async fn start_ahead(&mut self) -> Result<(), Error> {
        while self.queue.len() < self.ahead && self.next_chunk < self.range.end {
            let ahead = match self.queue.is_empty() {
                true => None,
                false => match Arc::clone(&self.inner.limits.chunks_ahead).try_acquire_owned() {
                    Ok(permit) => Some(permit),
                    Err(_) => return Ok(()),
                },
            };
            let found = self.content.chunk_at(&self.inner, self.next_chunk, |_, _| {}).await?;
            let FoundChunk { chunk, range } = found.expect("the content is as long as its record says");
            let plain = (range.end - range.start) as usize;
            let from = self.at.max(range.start) - range.start;
            let to = self.range.end.min(range.end) - range.start;
            let segments = (from / SEGMENT as u64) as u32..to.div_ceil(SEGMENT as u64) as u32;
            let start = range.start + u64::from(segments.start) * SEGMENT as u64;
            let piece = Piece { chunk, plain, segments: segments.clone() };
            let (sender, pieces) = mpsc::channel(BUFFERED);
            let task = crate::sys::spawn(fetch(Arc::clone(&self.inner), piece, sender));
            self.queue.push_back(Fetching {
                pieces,
                task,
                start,
                left: segments.len() as u32,
                _ahead: ahead,
            });
            self.next_chunk = range.end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_mean_what_http_means() {
        let resolve = |range: ByteRange, size| range.of(size).ok();
        assert_eq!(resolve(ByteRange::Inclusive(0, 9), 100), Some(0..10));
        assert_eq!(resolve(ByteRange::Inclusive(90, 500), 100), Some(90..100));
        assert_eq!(resolve(ByteRange::Inclusive(5, u64::MAX), 100), Some(5..100));
        assert_eq!(resolve(ByteRange::Inclusive(100, 100), 100), None);
        assert_eq!(resolve(ByteRange::Inclusive(7, 3), 100), None);
        assert_eq!(resolve(ByteRange::From(99), 100), Some(99..100));
        assert_eq!(resolve(ByteRange::Last(30), 100), Some(70..100));
        assert_eq!(resolve(ByteRange::Last(300), 100), Some(0..100));
        assert_eq!(resolve(ByteRange::Last(0), 100), None);
        assert_eq!(resolve(ByteRange::From(0), 0), None);
    }
}
