//! Put: read, seal, send to the owners, and then, all chunks being durable, change the record.
//!
//! Memory is bounded by the chunks in flight; nothing holds a file. A put that ends early, for whatever
//! reason, leaves the object as it was; its chunks carry a reference to a version that never came to be,
//! and go when the grace period is over (see [`crate::collect`]).

use std::{
    collections::VecDeque,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::stream::{self, StreamExt as _};
use pando_core::{
    bucket::Versioning,
    id::{NodeId, WriteId},
    manifest::{Builder, ChunkRef, Finish, Tree},
    mark::Mark,
    name::RegisterName,
    parts::MAX_PART_ROOTS,
    record::{Body, Digests, MAX_INLINE, Record, check_tags},
    seal::{self, CHUNK, Sealed, TreeHash},
    wire::{Reply, Request},
};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::{
    api::{Condition, PutOptions, Stored},
    buffers::Buffer,
    commit::{Committed, Terms},
    error::Error,
    holders::{Answer, Holders},
    inner::{Inner, Message, object_of, permit},
    keep::Kept,
    sys::{self, Instant},
};

/// Chunks of one put that are being sealed and sent at the same time: enough to keep disk and wire busy
/// while the next is read.
const AHEAD: usize = 4;
/// How long a put waits for its turn among the others.
pub(crate) const QUEUE_PATIENCE: Duration = Duration::from_secs(60);
/// How old an answer may be by which a put replaces what is there, or puts itself on top. A put takes effect at some
/// moment of its call; but what it replaces is gone, also if its body came slowly and its bucket was told meanwhile to
/// keep everything. So it goes by an answer that is no older, when it begins to change the object, than a change may
/// take anyway. Bodies that are there at once cost no second read.
const LATELY: Duration = Duration::from_secs(1);
/// How many members are told at once that a put goes on.
const TOUCHES: usize = 32;

impl Inner {
    /// See [`crate::Node::put`].
    pub(crate) async fn put<R: AsyncRead + Unpin + Send>(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        mut reader: R,
        options: PutOptions,
        digests: impl Future<Output = io::Result<Digests>>,
    ) -> Result<Stored, Error> {
        let name = RegisterName::object(bucket, key)?;
        options.meta.check(&options.headers)?;
        check_tags(&options.tags)?;
        let (mut head, asked) = (Vec::new(), Instant::now());
        // What can be known to fail fails before the data is read.
        let (end, settled, ()) = tokio::try_join!(
            fill(&mut reader, &mut head, MAX_INLINE + 1),
            self.bucket(bucket),
            self.check_condition(&name, options.condition),
        )?;
        let (version, versioning) = (WriteId(sys::random()), settled.settings.versioning);
        let target = Target { name, version, versioning, asked, inline: MAX_INLINE };
        self.put_at(target, Source { reader, head, end }, options, digests).await
    }

    /// Puts under a register's name what a source gives.
    pub(crate) async fn put_at<R: AsyncRead + Unpin + Send>(
        self: &Arc<Self>,
        target: Target,
        source: Source<R>,
        options: PutOptions,
        digests: impl Future<Output = io::Result<Digests>>,
    ) -> Result<Stored, Error> {
        let Target { name, version, mut versioning, asked, inline } = target;
        let Source { reader, head, end } = source;
        let key = self.key()?;
        let record = |body: Body, size, hash, digests| Record {
            size,
            hash: Some(hash),
            modified: sys::now_ms(),
            meta: options.meta,
            epoch: 1,
            body: body.seal(key, &name, &version),
            headers: options.headers,
            digests,
            tags: options.tags,
            salt: None,
            mark: Mark::default(),
        };
        if end && head.len() <= inline {
            let (hash, size) = (*blake3::hash(&head).as_bytes(), head.len() as u64);
            let digests = digests.await.map_err(Error::Source)?;
            let record = record(Body::Inline(head.into()), size, hash, digests);
            if asked.elapsed() > LATELY {
                versioning = self.versioning_of(&name).await?;
            }
            let terms = Terms { condition: options.condition, versioning, by: None };
            return Ok(self.commit(&name, version, &record, terms).await?.stored);
        }
        // Not before the first bytes came: who sends none holds no place.
        let _transfer = permit(&self.limits.puts, QUEUE_PATIENCE, "too many puts at once").await?;
        let mut upload = Upload::new(self, name.clone(), version);
        if name.part_parts().is_some() {
            upload.manifest = Builder::with_roots(MAX_PART_ROOTS);
        }
        upload.read(reader, head).await?;
        let (tree, size, hash) = upload.finish().await?;
        let digests = digests.await.map_err(Error::Source)?;
        let record = record(Body::Chunks(tree.into()), size, hash, digests);
        Ok(upload.commit(&record, options.condition).await?.stored)
    }

    /// Fails early when a condition does not hold. The change of the record checks it again, atomically.
    pub(crate) async fn check_condition(
        self: &Arc<Self>,
        name: &RegisterName,
        condition: Condition,
    ) -> Result<(), Error> {
        if condition == Condition::None {
            return Ok(());
        }
        let found = self.read(name).await?;
        check(condition, object_of(found.as_ref().map(|accepted| &accepted.value))?.as_ref())
    }

    /// A version was replaced or removed: whoever holds its chunks should look again, after the grace
    /// period. Who does not hear this finds out by itself, later.
    pub(crate) fn forget_version(self: &Arc<Self>, record: &Record, version: WriteId) {
        if record.may_have_chunks() {
            self.forget(version);
        }
    }

    /// As [`Inner::forget_version`], of a version that has chunks.
    pub(crate) fn forget(self: &Arc<Self>, version: WriteId) {
        self.tell_all(Request::Recheck(vec![version]));
    }
}

/// Where to put.
pub(crate) struct Target {
    pub(crate) name: RegisterName,
    pub(crate) version: WriteId,
    /// Whether the bucket keeps what is replaced.
    pub(crate) versioning: Versioning,
    /// When that was asked.
    pub(crate) asked: Instant,
    /// What is not longer stands in the record.
    pub(crate) inline: usize,
}

/// Bytes to put: what was read of them already, and whether that is all.
pub(crate) struct Source<R> {
    pub(crate) reader: R,
    pub(crate) head: Vec<u8>,
    pub(crate) end: bool,
}

impl Stored {
    /// No more copies are there than of the chunk with the fewest.
    fn with(mut self, fewest: Fewest) -> Self {
        self.wanted = self.wanted.min(fewest.wanted);
        self.copies = self.copies.min(fewest.copies);
        self
    }
}

/// Whether a condition holds for what is `current`. A delete marker is no object.
pub(crate) fn check(condition: Condition, current: Option<&(Record, WriteId)>) -> Result<(), Error> {
    let current = current.filter(|(record, _)| !record.mark.deleted);
    let version = current.map(|(_, version)| *version);
    let holds = match condition {
        Condition::None => true,
        Condition::Absent => current.is_none(),
        Condition::Exists => current.is_some(),
        Condition::Match(wanted) => version == Some(wanted),
        Condition::Md5(wanted) => current.is_some_and(|(record, _)| record.digests.md5 == Some(wanted)),
    };
    if holds { Ok(()) } else { Err(Error::Precondition { current: version }) }
}

/// Reads until `buffer` holds `most` bytes or the reader ends; returns whether it ended.
pub(crate) async fn fill<R: AsyncRead + Unpin>(
    reader: &mut R,
    buffer: &mut Vec<u8>,
    most: usize,
) -> Result<bool, Error> {
    while buffer.len() < most {
        let left = (most - buffer.len()) as u64;
        if reader.take(left).read_buf(buffer).await.map_err(Error::Source)? == 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A task that ends when its handle is dropped.
struct Task<T>(tokio::task::JoinHandle<T>);

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match Pin::new(&mut self.0).poll(context) {
            Poll::Ready(Ok(value)) => Poll::Ready(value),
            Poll::Ready(Err(failed)) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
            // Still running; or cancelled with the whole runtime, and then nobody waits for it.
            Poll::Pending | Poll::Ready(Err(_)) => Poll::Pending,
        }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The fewest copies of any chunk so far.
#[derive(Clone, Copy, Debug)]
struct Fewest {
    copies: usize,
    wanted: usize,
}

/// One file on its way in.
pub(crate) struct Upload<'a> {
    pub(crate) inner: &'a Arc<Inner>,
    pub(crate) name: RegisterName,
    pub(crate) version: WriteId,
    size: u64,
    chunks: u64,
    tree: TreeHash,
    manifest: Builder,
    in_flight: VecDeque<Task<Result<(Sealed, Kept), Error>>>,
    fewest: Fewest,
    holders: Holders,
    /// When enough of the holders last knew that it goes on.
    touched: Instant,
}

impl<'a> Upload<'a> {
    pub(crate) fn new(inner: &'a Arc<Inner>, name: RegisterName, version: WriteId) -> Self {
        Self {
            inner,
            name,
            version,
            size: 0,
            chunks: 0,
            tree: TreeHash::default(),
            manifest: Builder::default(),
            in_flight: VecDeque::new(),
            fewest: Fewest { copies: usize::MAX, wanted: usize::MAX },
            holders: Holders::new(Instant::now(), inner.grace),
            touched: Instant::now(),
        }
    }

    /// Cuts, seals and sends everything that the reader gives, after `head`.
    async fn read<R: AsyncRead + Unpin>(&mut self, mut reader: R, head: Vec<u8>) -> Result<(), Error> {
        let mut head = head;
        loop {
            let mut buffer = self.inner.buffers.take();
            buffer.clear();
            buffer.append(&mut head);
            let end = self.fill(&mut reader, &mut buffer).await?;
            if !buffer.is_empty() {
                self.send(buffer).await?;
            }
            if end {
                break;
            }
        }
        while !self.in_flight.is_empty() {
            self.absorb().await?;
        }
        Ok(())
    }

    /// Starts sealing and sending one chunk, having waited for a place.
    async fn send(&mut self, plain: Buffer) -> Result<(), Error> {
        while self.in_flight.len() >= AHEAD {
            self.absorb().await?;
        }
        let index = self.chunks;
        self.chunks += 1;
        self.size += plain.len() as u64;
        let place =
            permit(&self.inner.limits.chunks_out, QUEUE_PATIENCE, "too many chunks in flight").await?;
        let (inner, name, version) = (Arc::clone(self.inner), self.name.clone(), self.version);
        self.in_flight.push_back(Task(sys::spawn(async move {
            let done = seal_and_keep(&inner, &name, version, plain, index).await;
            drop(place);
            done
        })));
        Ok(())
    }

    /// Waits for the oldest chunk in flight and enters it.
    async fn absorb(&mut self) -> Result<(), Error> {
        let Some(mut oldest) = self.in_flight.pop_front() else { return Ok(()) };
        let (sealed, kept) = loop {
            match sys::timeout(self.inner.grace / 4, &mut oldest).await {
                Ok(done) => break done?,
                Err(_elapsed) => self.stay_alive().await?,
            }
        };
        self.enter(kept)?;
        self.tree.push(sealed.subtree);
        self.list(0, ChunkRef { id: sealed.id, key: sealed.key }).await
    }

    /// Notes who holds a chunk.
    pub(crate) fn enter(&mut self, kept: Kept) -> Result<(), Error> {
        self.fewest.copies = self.fewest.copies.min(kept.holders.len());
        self.fewest.wanted = self.fewest.wanted.min(kept.wanted);
        if self.holders.placed(&kept.holders, kept.needed) { Ok(()) } else { Err(let_go()) }
    }

    /// Enters a chunk in the manifest; nodes that are full become chunks themselves.
    async fn list(&mut self, mut level: usize, mut entry: ChunkRef) -> Result<(), Error> {
        while let Some(node) = self.manifest.push(level, entry) {
            entry = self.keep_node(node).await?;
            level += 1;
        }
        Ok(())
    }

    pub(crate) async fn keep_node(&mut self, node: Vec<u8>) -> Result<ChunkRef, Error> {
        let mut plain = self.inner.buffers.take();
        plain.clear();
        plain.extend_from_slice(&node);
        let (sealed, kept) = seal_and_keep(self.inner, &self.name, self.version, plain, 0).await?;
        self.enter(kept)?;
        Ok(ChunkRef { id: sealed.id, key: sealed.key })
    }

    /// Makes the version current, if of each chunk enough holders hold on. It is not proposed any more once they may
    /// have let go: the collector makes sure that nothing proposed before can still be chosen, not what is proposed
    /// after it looked. A quarter of the grace time is left for clocks that differ and for messages on their way.
    pub(crate) async fn commit(mut self, record: &Record, condition: Condition) -> Result<Committed, Error> {
        let (inner, name) = (self.inner, self.name.clone());
        // However long all that took: what is committed must be there, and committed as the bucket wants it now.
        let ((), versioning) = tokio::try_join!(self.stay_alive(), inner.versioning_of(&name))?;
        let by = Some(self.touched + self.inner.grace / 4 * 3);
        let terms = Terms { condition, versioning, by };
        let done = self.inner.commit(&self.name, self.version, record, terms).await?;
        Ok(Committed { stored: done.stored.with(self.fewest), ..done })
    }

    /// Reads until `buffer` holds a chunk or the reader ends; returns whether it ended. However slow the reader
    /// is, the upload stays alive.
    async fn fill<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut R,
        buffer: &mut Vec<u8>,
    ) -> Result<bool, Error> {
        let mut filled = pin!(fill(reader, buffer, CHUNK));
        loop {
            match sys::timeout(self.inner.grace / 4, &mut filled).await {
                Ok(filled) => {
                    self.stay_alive().await?;
                    return filled;
                }
                Err(_elapsed) => self.stay_alive().await?,
            }
        }
    }

    /// Tells all members now and then that the upload goes on, so that nobody takes its chunks for strays. It fails
    /// if, of some chunk, so few holders heard it in time that the others may have freed it: what is committed must
    /// be there.
    pub(crate) async fn stay_alive(&mut self) -> Result<(), Error> {
        if self.touched.elapsed() <= self.inner.grace / 4 {
            return Ok(());
        }
        let began = Instant::now();
        let layout = self.inner.layout()?;
        let message = &Message::from(Request::Touch(self.version));
        let inner = self.inner;
        let members: Vec<NodeId> = layout.present().map(|member| member.id).collect();
        let touches = members.into_iter().map(|member| async move {
            let answer = match inner.ask(member, message).await {
                Ok(Reply::Held(held)) if held.first() == Some(&true) => Answer::Holds,
                Ok(Reply::Held(_)) => Answer::HoldsNothing,
                _ => Answer::Silent,
            };
            (member, answer)
        });
        let answers: Vec<(NodeId, Answer)> = stream::iter(touches).buffer_unordered(TOUCHES).collect().await;
        for (member, answer) in answers {
            self.holders.answered(member, began, answer);
        }
        if !self.holders.enough_hold() {
            return Err(let_go());
        }
        if self.holders.enough_heard(began) {
            self.touched = began;
        } else if self.touched.elapsed() > self.inner.grace / 2 {
            return Err(let_go());
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(Tree, u64, [u8; 32]), Error> {
        let tree = loop {
            match self.manifest.finish() {
                Finish::Tree(tree) => break tree,
                Finish::Node { level, bytes } => {
                    let entry = self.keep_node(bytes).await?;
                    self.list(level, entry).await?;
                }
            }
        };
        Ok((tree, self.size, std::mem::take(&mut self.tree).finish()))
    }
}

/// Too few of a chunk's holders are known to hold on.
fn let_go() -> Error {
    let why = "too few nodes could be told in time that this upload goes on; put it again";
    Error::Timeout(why.into())
}

pub(crate) async fn seal_and_keep(
    inner: &Arc<Inner>,
    name: &RegisterName,
    version: WriteId,
    plain: Buffer,
    index: u64,
) -> Result<(Sealed, Kept), Error> {
    let key = inner.key()?.clone();
    let mut out = inner.buffers.take();
    let (sealed, bytes) = sys::blocking(move || {
        let sealed = seal::seal(&key, &plain, index, &mut out);
        (sealed, out.freeze())
    })
    .await;
    let kept = inner.keep_chunk(name, version, sealed.id, bytes).await?;
    Ok((sealed, kept))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        VersionsQuery,
        stray::tests::{keep_versions, node},
    };

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_put_slowly_goes_by_what_its_bucket_wants_in_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(&folder).await;
        node.put("default", "a", &b"old"[..], PutOptions::default()).await.unwrap();
        // The body's last byte comes after the bucket began to keep versions, long after the put began.
        let digests = async {
            keep_versions(&node, Versioning::Enabled).await;
            Ok(Digests::default())
        };
        let target = Target {
            name: RegisterName::object("default", "a").unwrap(),
            version: WriteId(sys::random()),
            versioning: Versioning::Never,
            asked: Instant::now().checked_sub(LATELY * 2).unwrap(),
            inline: MAX_INLINE,
        };
        let source = Source { reader: tokio::io::empty(), head: b"new".to_vec(), end: true };
        let stored = node.inner.put_at(target, source, PutOptions::default(), digests).await.unwrap();
        assert!(stored.version.is_some());
        let page = node.list_versions("default", VersionsQuery::default()).await.unwrap();
        assert_eq!(page.entries.len(), 2, "what it was put on top of is kept");
        node.stop().await;
    }
}
