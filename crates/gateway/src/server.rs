//! Connections: taken, counted, given their time, and ended.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    front::Front,
    metrics::Metrics,
    sse::Channel,
    waiters::{Leave, Waiter, Waiters},
    wire::Patient,
};

/// Connections at once: an idle one costs some 20 KiB and a file descriptor. For one more, the one is ended that has
/// waited for a request for longest.
const CONNECTIONS: usize = 4096;
/// How long that may take, which is told at once.
const DISMISSAL: Duration = Duration::from_secs(1);
/// How long a connection may take to show its next request's head, idle time included.
const HEAD: Duration = Duration::from_secs(30);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Most bytes of a request's head, whoever sends it: four times S3's own limit for headers, since keys and tags may be
/// escaped.
const HEAD_BYTES: usize = 32 << 10;
/// Most bytes that are read of a body at once.
const READ_BYTES: usize = 64 << 10;
/// Most headers of a request.
const HEADERS: usize = 100;
/// How long requests may go on when the gateway stops.
const LAST_REQUESTS: Duration = Duration::from_secs(5);

/// One listening socket and its connections.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) fn start(
        listener: TcpListener,
        front: Front,
        tls: Option<TlsAcceptor>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let address = listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
        let (stop, stopping) = watch::channel(false);
        let task = tokio::spawn(accept(listener, Arc::new(front), tls, metrics, stopping));
        Self { address, stop, task }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        // It ends by itself, in bounded time; a panic in it was reported already.
        let _ = self.task.await;
    }
}

async fn accept(
    listener: TcpListener,
    front: Arc<Front>,
    tls: Option<TlsAcceptor>,
    metrics: Arc<Metrics>,
    mut stopping: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let idle = Arc::new(Waiters::default());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = told_to(&mut stopping) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, or a connection that ended before it was taken.
                tracing::debug!(%error, "a connection was not taken");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let place = match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => Some(place),
            Err(_) => {
                metrics.refused();
                make_room(&places, &idle).await
            }
        };
        let Some(place) = place else { continue };
        let channel = Channel { tls: tls.is_some(), local: peer.ip().to_canonical().is_loopback() };
        let (front, tls, connected, stopping) =
            (front.clone(), tls.clone(), metrics.connected(), stopping.clone());
        let seat = Seat::new(Arc::clone(&idle));
        connections.spawn(async move {
            tokio::select! {
                () = serve(stream, channel, front, tls, Arc::clone(&seat), stopping) => {}
                () = seat.leave.notified() => tracing::debug!("a connection that idled or was not read made room"),
            }
            drop((connected, place));
        });
    }
    drop(listener);
    let ended = timeout(LAST_REQUESTS, async { while connections.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        connections.shutdown().await;
    }
}

/// A place that one who idles leaves, if there is one.
async fn make_room(places: &Arc<Semaphore>, idle: &Waiters) -> Option<OwnedSemaphorePermit> {
    if !idle.dismiss_longest() {
        return None;
    }
    timeout(DISMISSAL, Arc::clone(places).acquire_owned()).await.ok()?.ok()
}

/// A connection among those that wait for a request, unless it is at work.
struct Seat {
    idle: Arc<Waiters>,
    leave: Arc<Notify>,
    waiter: Mutex<Option<Waiter>>,
}

impl Seat {
    /// Waits from the start.
    fn new(idle: Arc<Waiters>) -> Arc<Self> {
        let seat = Self { idle, leave: Arc::new(Notify::new()), waiter: Mutex::default() };
        seat.rest();
        Arc::new(seat)
    }

    fn rest(&self) {
        let waiter = self.idle.enter(Arc::clone(&self.leave));
        *self.waiter.lock().unwrap_or_else(PoisonError::into_inner) = Some(waiter);
    }

    fn work(self: &Arc<Self>) -> AtWork {
        *self.waiter.lock().unwrap_or_else(PoisonError::into_inner) = None;
        AtWork(Arc::clone(self))
    }
}

/// From a request's head to the end of its answer.
struct AtWork(Arc<Seat>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.rest();
    }
}

/// The body of an answer, with whose end the work is done.
struct Answer {
    body: s3s::Body,
    _work: AtWork,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = s3s::StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, s3s::StdError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Waits until the server is told to stop, or is no more.
async fn told_to(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

async fn serve(
    stream: TcpStream,
    channel: Channel,
    front: Arc<Front>,
    tls: Option<TlsAcceptor>,
    seat: Arc<Seat>,
    stopping: watch::Receiver<bool>,
) {
    // Without it a small answer waits for the delayed acknowledgement of the one before, 40 ms.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let stream = Patient::new(stream);
    match tls {
        None => talk(stream, channel, front, seat, stopping).await,
        Some(tls) => match timeout(HANDSHAKE, tls.accept(stream)).await {
            Ok(Ok(stream)) => talk(stream, channel, front, seat, stopping).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        },
    }
}

async fn talk<S>(
    stream: S,
    channel: Channel,
    front: Arc<Front>,
    seat: Arc<Seat>,
    mut stopping: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (front, work) = (Arc::clone(&front), seat.work());
        request.extensions_mut().insert(channel);
        request.extensions_mut().insert(Leave(Arc::clone(&seat.leave)));
        async move { Ok::<_, Infallible>(front.answer(request).await?.map(|body| Answer { body, _work: work })) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(READ_BYTES)
        .max_header_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told_to(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
