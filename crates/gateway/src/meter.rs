//! What the bodies of requests may cost others: a least pace, few places for slow uploads, little memory for XML.
//!
//! The node takes few uploads at once, and each holds its place until its body has come; what `s3s` parses as XML, it
//! holds in memory first. So neither may go on for as long as a client likes. Time in which nobody reads the body does
//! not count: that is the node's pace, not the client's.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use s3s::{S3Error, S3ErrorCode};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};

use crate::{auth::Operation, error::refuse};

/// How often a client's pace is looked at.
const TICK: Duration = Duration::from_secs(5);
/// In so many ticks, half a minute …
const SPAN: u32 = 6;
/// … at least so many bytes must come: a modem does better.
const LEAST: u64 = 16 << 10;
/// Who sends less in a tick (64 KiB a second) is slow …
const QUICK: u64 = 320 << 10;
/// … and so many uploads may be: half of the places that a node has. Others need not wait for them.
const SLOW: usize = 8;
/// A body up to this length takes no place of the node's before it is there.
const SMALL: u64 = 64 << 10;
/// Bytes of XML at once: one that is as long as can be, or eighty multi-deletes of a thousand usual names. Parsed it may
/// take thirty times that, if somebody means it to.
const XML: usize = 8 << 20;
/// In so many ticks, a minute, a body that is XML must be there.
const XML_TICKS: u32 = 12;

/// Whose bodies are not XML.
const STREAMED: [&str; 3] = ["PutObject", "UploadPart", "PostObject"];

/// Whether an operation's body is XML (or another text that is parsed): known once access was checked, before which nothing
/// reads a body.
pub(crate) fn is_xml(operation: &Operation) -> bool {
    operation.get().is_some_and(|name| !STREAMED.contains(&name))
}

/// What all requests share.
pub(crate) struct Limits {
    slow: Arc<Semaphore>,
    xml: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { slow: Arc::new(Semaphore::new(SLOW)), xml: Arc::new(Semaphore::new(XML)) }
    }
}

/// Why a body was not taken to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Excess {
    #[error("less than {} KiB of the body came within {} s", LEAST >> 10, TICK.as_secs() * u64::from(SPAN))]
    Pace,
    #[error("this upload is slow, and so are too many others at this node: try again, or another node")]
    SlowUploads,
    #[error("too much XML at once at this node: try again")]
    Xml,
}

impl From<Excess> for S3Error {
    fn from(excess: Excess) -> Self {
        let code = match excess {
            Excess::Pace => S3ErrorCode::RequestTimeout,
            Excess::SlowUploads | Excess::Xml => S3ErrorCode::SlowDown,
        };
        refuse(code, excess.to_string())
    }
}

/// What is known of a request's body beside the body; who answers the request keeps it until then.
#[derive(Default)]
pub(crate) struct Account {
    excess: OnceLock<Excess>,
    /// Memory that XML takes: longer than the body, which is parsed once it is there.
    xml: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Account {
    /// Why the body failed, if it was for its cost: what others make of its end is of no interest then.
    pub(crate) fn excess(&self) -> Option<Excess> {
        self.excess.get().copied()
    }
}

/// A request's body, metered.
pub(crate) struct Metered<B> {
    inner: B,
    operation: Operation,
    limits: Arc<Limits>,
    account: Arc<Account>,
    tick: Pin<Box<Sleep>>,
    ticks: u32,
    total: u64,
    in_tick: u64,
    in_span: u64,
    slow: Option<OwnedSemaphorePermit>,
    /// Since when whoever reads the body has something to do.
    given: Option<Instant>,
}

impl<B> Metered<B> {
    pub(crate) fn new(inner: B, operation: Operation, limits: Arc<Limits>) -> (Self, Arc<Account>) {
        let account = Arc::new(Account::default());
        let metered = Self {
            inner,
            operation,
            limits,
            account: Arc::clone(&account),
            tick: Box::pin(sleep(TICK)),
            ticks: 0,
            total: 0,
            in_tick: 0,
            in_span: 0,
            slow: None,
            given: None,
        };
        (metered, account)
    }

    fn is_xml(&self) -> bool {
        is_xml(&self.operation)
    }

    fn count(&mut self, len: usize) -> Result<(), Excess> {
        self.total += len as u64;
        self.in_tick += len as u64;
        self.in_span += len as u64;
        if !self.is_xml() {
            return Ok(());
        }
        let more = u32::try_from(len).map_err(|_| Excess::Xml)?;
        let more = Arc::clone(&self.limits.xml).try_acquire_many_owned(more);
        let more = more.map_err(|_| Excess::Xml)?;
        let mut held = self.account.xml.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }

    /// Looks at the pace of a tick that is over.
    fn judge(&mut self) -> Result<(), Excess> {
        self.ticks += 1;
        let is_slow = std::mem::take(&mut self.in_tick) < QUICK;
        if self.ticks.is_multiple_of(SPAN) && std::mem::take(&mut self.in_span) < LEAST {
            return Err(Excess::Pace);
        }
        if self.is_xml() {
            return if self.ticks < XML_TICKS { Ok(()) } else { Err(Excess::Pace) };
        }
        if !is_slow {
            self.slow = None;
        } else if self.slow.is_none() && self.total > SMALL {
            let place = Arc::clone(&self.limits.slow).try_acquire_owned();
            self.slow = Some(place.map_err(|_| Excess::SlowUploads)?);
        }
        Ok(())
    }

    fn fail<T>(&self, excess: Excess) -> Poll<Option<Result<T, io::Error>>> {
        // The first is the reason.
        let _ = self.account.excess.set(excess);
        Poll::Ready(Some(Err(io::Error::other(excess))))
    }
}

impl<B> Body for Metered<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(given) = self.given.take() {
            let later = self.tick.deadline() + given.elapsed();
            self.tick.as_mut().reset(later);
        }
        loop {
            if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
                self.given = Some(Instant::now());
                let Some(Ok(frame)) = frame else {
                    return Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)));
                };
                let len = frame.data_ref().map_or(0, Bytes::len);
                return match self.count(len) {
                    Ok(()) => Poll::Ready(Some(Ok(frame))),
                    Err(excess) => self.fail(excess),
                };
            }
            // Where bytes come without content, as of a chunk's length of nothing but zeros, this poll has used up the
            // task's budget: the timer would not tell any more that its time has come.
            if Instant::now() < self.tick.deadline() {
                ready!(self.tick.as_mut().poll(context));
            }
            if let Err(excess) = self.judge() {
                return self.fail(excess);
            }
            self.tick.as_mut().reset(Instant::now() + TICK);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    /// A body that begins with `head` and goes on with `step` in each `pause`, metered.
    fn body(
        name: &str,
        limits: &Arc<Limits>,
        head: usize,
        step: usize,
        pause: Duration,
    ) -> (Metered<impl Body<Data = Bytes, Error = io::Error> + Unpin + use<>>, Arc<Account>) {
        let frame = |len| Ok::<_, io::Error>(Frame::data(Bytes::from(vec![0; len])));
        let rest = stream::unfold((), move |()| async move {
            sleep(pause).await;
            Some((frame(step), ()))
        });
        let stream = futures_util::StreamExt::chain(stream::iter([frame(head)]), rest);
        let operation = Operation::default();
        operation.set(name);
        Metered::new(StreamBody::new(Box::pin(stream)), operation, Arc::clone(limits))
    }

    /// Reads for so long at most; returns for how long it came.
    async fn read(
        body: &mut (impl Body<Data = Bytes, Error = io::Error> + Unpin),
        most: Duration,
    ) -> Duration {
        let began = Instant::now();
        let all = async { while let Some(Ok(_)) = body.frame().await {} };
        let _ = tokio::time::timeout(most, all).await;
        began.elapsed()
    }

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn who_trickles_is_dropped() {
        let limits = Arc::default();
        let (mut trickling, account) = body("PutObject", &limits, 1000, 100, SECOND);
        assert_eq!(read(&mut trickling, HOUR).await, 30 * SECOND);
        assert_eq!(account.excess(), Some(Excess::Pace));
        // What comes first does not count for ever.
        let (mut stopping, account) = body("PutObject", &limits, 1 << 20, 1, HOUR);
        assert_eq!(read(&mut stopping, HOUR).await, 60 * SECOND);
        assert_eq!(account.excess(), Some(Excess::Pace));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_slow_but_not_that_slow_goes_on() {
        let limits = Arc::default();
        let (mut slow, account) = body("PutObject", &limits, 1 << 20, 1000, SECOND);
        assert_eq!(read(&mut slow, HOUR).await, HOUR);
        assert_eq!(account.excess(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_reader_s_pace_is_not_the_client_s() {
        let limits = Arc::default();
        let (mut quick, account) = body("PutObject", &limits, 1 << 20, 1 << 20, SECOND);
        for _ in 0..20 {
            quick.frame().await.unwrap().unwrap();
            sleep(100 * SECOND).await;
        }
        assert_eq!(account.excess(), None);
        assert_eq!(limits.slow.available_permits(), SLOW);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_uploads_leave_room_for_others() {
        let limits = Arc::default();
        let slow = || body("PutObject", &limits, 1 << 20, 1000, SECOND);
        let mut bodies: Vec<_> = (0..SLOW).map(|_| slow()).collect();
        for (body, account) in &mut bodies {
            read(body, 20 * SECOND).await;
            assert_eq!(account.excess(), None);
        }
        let (mut another, account) = slow();
        // The first tick, with a mebibyte in it, was quick.
        assert_eq!(read(&mut another, HOUR).await, 10 * SECOND);
        assert_eq!(account.excess(), Some(Excess::SlowUploads));
        let (mut quick, account) = body("PutObject", &limits, 1 << 20, 100_000, SECOND);
        read(&mut quick, HOUR).await;
        assert_eq!(account.excess(), None);
        // Neither takes a place from the others: one that is short, and one that took the place of another.
        let (mut short, account) = body("PutObject", &limits, 1000, 1000, SECOND);
        read(&mut short, 40 * SECOND).await;
        assert_eq!(account.excess(), None);
        bodies.pop();
        let (mut another, account) = slow();
        read(&mut another, HOUR).await;
        assert_eq!(account.excess(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn xml_has_little_memory_and_a_minute() {
        let limits = Arc::default();
        let (mut long, account) = body("DeleteObjects", &limits, XML, 1, 100 * SECOND);
        read(&mut long, SECOND).await;
        let (mut another, refused) = body("DeleteObjects", &limits, 1, 1, SECOND);
        read(&mut another, SECOND).await;
        assert_eq!(refused.excess(), Some(Excess::Xml));
        // Not when it was read, but when it was answered.
        drop(long);
        assert_eq!(limits.xml.available_permits(), 0);
        drop(account);
        let (mut slow, account) = body("DeleteObjects", &limits, 1, 1000, SECOND);
        assert_eq!(read(&mut slow, HOUR).await, 60 * SECOND);
        assert_eq!(account.excess(), Some(Excess::Pace));
        drop((slow, account));
        assert_eq!(limits.xml.available_permits(), XML);
    }
}
