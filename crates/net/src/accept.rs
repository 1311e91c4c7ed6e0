//! The way in: accepts TCP, does the TLS handshake, and hands each connection to what serves it.
//!
//! Until a peer is admitted and has named its lane, its connection holds one of a bounded number of places,
//! for a bounded time.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use crate::{
    conn::{BUSY, Conn, RPC, STREAM, TLS_BUFFER},
    context::Context,
    error::{Error, describe},
    inbound::Inbound,
    join, rpc,
    service::Service,
    socket::Socket,
    stats::{Counters, add},
    stream,
    sys::{Instant, TcpListener, TcpStream, sleep, timeout_at},
    tasks::TaskId,
    tls::{JOIN, MEMBERS, peer_of},
};

/// When accepting fails (no file descriptor left, most likely), this long passes before the next try.
const BREATH: Duration = Duration::from_millis(50);

/// How long, and for how many bytes, a refused connection is read before it is closed: enough for the alert
/// to arrive, which closing with bytes unread might prevent.
const LINGER: (Duration, usize) = (Duration::from_secs(1), 16 << 10);

/// What accepting needs. Cheap to clone.
pub(crate) struct Door<S> {
    pub(crate) context: Arc<Context>,
    pub(crate) service: Arc<S>,
    pub(crate) inbound: Inbound,
    places: Arc<Semaphore>,
    joins: Arc<Semaphore>,
}

impl<S> Clone for Door<S> {
    fn clone(&self) -> Self {
        Self {
            context: Arc::clone(&self.context),
            service: Arc::clone(&self.service),
            inbound: self.inbound.clone(),
            places: Arc::clone(&self.places),
            joins: Arc::clone(&self.joins),
        }
    }
}

impl<S: Service> Door<S> {
    pub(crate) fn new(context: Arc<Context>, service: Arc<S>, inbound: Inbound) -> Self {
        let places = Arc::new(Semaphore::new(context.limits.unauthenticated));
        let joins = Arc::new(Semaphore::new(context.limits.joins));
        Self { context, service, inbound, places, joins }
    }

    /// Accepts until the endpoint stops.
    pub(crate) async fn run(self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.context.stopping() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((tcp, remote)) => self.admit(tcp, remote),
                Err(error) => {
                    tracing::warn!(%error, "can't accept a connection");
                    sleep(BREATH).await;
                }
            }
        }
    }

    fn admit(&self, tcp: TcpStream, remote: SocketAddr) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            add(&self.context.counters.turned_away, 1);
            tracing::warn!(%remote, "closed a new connection: too many that are not admitted");
            return;
        };
        let place = Place::new(&self.context.counters, place);
        let door = self.clone();
        self.context.tasks.spawn(|task| async move {
            if let Err(why) = door.serve(tcp, remote, place, task).await {
                add(&door.context.counters.turned_away, 1);
                match why {
                    Error::Closed { .. } => tracing::debug!(%remote, %why, "turned a connection away"),
                    _ => tracing::warn!(%remote, %why, "turned a connection away"),
                }
            }
        });
    }

    /// From the first byte to the last. An error turned the connection away before a lane was taken.
    async fn serve(
        &self,
        tcp: TcpStream,
        remote: SocketAddr,
        place: Place,
        task: TaskId,
    ) -> Result<(), Error> {
        let context = &self.context;
        let by = Instant::now() + context.limits.handshake;
        let ready = timeout_at(by, self.service.ready()).await;
        ready.map_err(|_| Error::timeout("this node to be ready"))?;
        let tls = timeout_at(by, self.handshake(tcp)).await;
        let tls = tls.unwrap_or(Err(Error::timeout("a TLS handshake")))?;
        let (_, session) = tls.get_ref();
        let peer = peer_of(session.peer_certificates()).ok_or_else(|| Error::malformed("no key"))?;
        let protocol = session.alpn_protocol().map(<[u8]>::to_vec);
        let mut conn = Conn::new(tls.into(), peer, remote, &context.counters);
        match protocol.as_deref() {
            Some(JOIN) => return join::serve(context, &self.service, &self.joins, conn, by).await,
            Some(MEMBERS) => {}
            _ => return Err(Error::malformed("no protocol")),
        }
        let mut lane = [0];
        conn.read_some(&mut lane, by).await?;
        let [lane] = lane;
        if lane != RPC && lane != STREAM {
            return Err(Error::malformed(format!("no lane has the number {lane:#x}")));
        }
        let Some(_entered) = self.inbound.enter(peer, task, context.limits.connections_per_peer) else {
            conn.write_byte(BUSY, by).await?;
            conn.say_goodbye(by).await;
            return Err(Error::Busy { peer });
        };
        conn.write_byte(lane, by).await?;
        drop(place);
        add(&context.counters.accepted, 1);
        if lane == RPC {
            rpc::server::serve(context, &self.service, conn).await;
        } else {
            stream::server::serve(context, &self.service, conn).await;
        }
        Ok(())
    }

    async fn handshake(&self, tcp: TcpStream) -> Result<TlsStream<Socket>, Error> {
        let socket = Socket::new(tcp).map_err(|error| Error::broken(&error))?;
        let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), socket).await;
        let hello = hello.map_err(|error| refused(&error))?;
        let config = self.context.tls.server(hello.client_hello().alpn().into_iter().flatten());
        let config = config.ok_or_else(|| Error::malformed("TLS for no protocol of ours"))?;
        let accepting = hello.into_stream_with(config, |tls| tls.set_buffer_limit(Some(TLS_BUFFER)));
        match accepting.into_fallible().await {
            Ok(tls) => Ok(tls),
            Err((error, socket)) => {
                linger(socket).await;
                Err(refused(&error))
            }
        }
    }
}

/// Why a handshake failed: the other side's fault (`Malformed`), or it just went away (`Closed`).
fn refused(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData => Error::malformed(format!("TLS handshake: {}", describe(error))),
        _ => Error::broken(error),
    }
}

async fn linger(mut socket: Socket) {
    let (time, mut left) = LINGER;
    let by = Instant::now() + time;
    let mut waste = [0; 1024];
    let read = async {
        socket.shutdown().await?;
        while left > 0 {
            match socket.read(&mut waste).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        Ok::<(), io::Error>(())
    };
    // However it ends, the socket is closed now.
    let _ = timeout_at(by, read).await;
}

/// A place among the connections that are not admitted, counted.
struct Place {
    counters: Arc<Counters>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    fn new(counters: &Arc<Counters>, permit: OwnedSemaphorePermit) -> Self {
        add(&counters.unauthenticated, 1);
        Self { counters: Arc::clone(counters), _permit: permit }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counters.unauthenticated.fetch_sub(1, Relaxed);
    }
}
