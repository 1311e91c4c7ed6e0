//! Dialing a node: its addresses in order, each a little after the one before (RFC 8305), until one leads to
//! the node itself. A dial is done when the peer has taken the lane: what fails before was never sent.

use std::{io, net::SocketAddr, sync::Arc};

use pando_core::id::NodeId;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::{
    conn::{BUSY, Conn, TLS_BUFFER},
    context::Context,
    error::{Error, describe},
    socket::Socket,
    stats::add,
    sys::{Instant, TcpStream, timeout, timeout_at},
    tls::{JOIN, MEMBERS, no_name, peer_of},
};

/// What the connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A lane between members, with its first byte.
    Lane(u8),
    /// One join.
    Join,
}

/// Reaches `peer` at one of `addresses`. Fails as soon as the last address has failed.
pub(crate) async fn dial(
    context: &Arc<Context>,
    peer: NodeId,
    addresses: &[SocketAddr],
    purpose: Purpose,
) -> Result<Conn, Error> {
    if context.is_stopping() {
        return Err(Error::ShutDown);
    }
    if addresses.is_empty() {
        return Err(Error::UnknownAddress { peer });
    }
    let mut left = addresses.iter();
    let mut attempts = JoinSet::new();
    let mut failures = Vec::new();
    loop {
        if let Some(&address) = left.next() {
            let context = Arc::clone(context);
            attempts.spawn(async move {
                let tried = timeout(context.limits.dial, attempt(&context, peer, address, purpose)).await;
                let tried = tried.unwrap_or(Err(Error::Timeout { what: "an answer", sent: false }));
                tried.map_err(|error| (address, error.unsent()))
            });
        }
        // The last attempt is waited for to its end; it has a deadline of its own.
        let patience = if left.len() > 0 { context.limits.dial_stagger } else { 2 * context.limits.dial };
        match timeout(patience, attempts.join_next()).await {
            Ok(Some(Ok(Ok(conn)))) => {
                add(&context.counters.dialed, 1);
                return Ok(conn);
            }
            Ok(Some(Ok(Err(failure)))) => failures.push(failure),
            Ok(Some(Err(broken))) => tracing::error!(%broken, "a dial ended badly"),
            Ok(None) | Err(_) => {}
        }
        if attempts.is_empty() && left.len() == 0 {
            return Err(conclude(peer, failures));
        }
    }
}

/// One failure out of those at each address: the most telling one.
fn conclude(peer: NodeId, failures: Vec<(SocketAddr, Error)>) -> Error {
    let telling = |error: &Error| matches!(error, Error::Refused { .. } | Error::Busy { .. });
    if let Some((_, error)) = failures.iter().find(|(_, error)| telling(error)) {
        return error.clone();
    }
    match failures.as_slice() {
        [(_, error @ Error::WrongKey { .. })] => error.clone(),
        _ => {
            let why: Vec<String> = failures.iter().map(|(at, error)| format!("{at}: {error}")).collect();
            Error::Unreachable { peer, why: why.join("; ") }
        }
    }
}

async fn attempt(
    context: &Context,
    peer: NodeId,
    address: SocketAddr,
    purpose: Purpose,
) -> Result<Conn, Error> {
    let by = Instant::now() + context.limits.dial;
    let failed = |error: &io::Error| Error::Closed { why: describe(error), sent: false };
    let protocol = if purpose == Purpose::Join { JOIN } else { MEMBERS };
    let config = context.tls.client(peer, protocol)?;
    let tcp = TcpStream::connect(address).await.map_err(|error| failed(&error))?;
    let socket = Socket::new(tcp).map_err(|error| failed(&error))?;
    let connecting = TlsConnector::from(config)
        .connect_with(no_name(), socket, |tls| tls.set_buffer_limit(Some(TLS_BUFFER)));
    let connected = timeout_at(by, connecting).await;
    let connected = connected.map_err(|_| Error::Timeout { what: "a TLS handshake", sent: false })?;
    let tls = connected.map_err(|error| match refusal(&error) {
        Some(Refusal::ByUs) => Error::WrongKey { peer, address },
        Some(Refusal::ByThem) => Error::Refused { peer },
        None => failed(&error),
    })?;
    let (_, session) = tls.get_ref();
    if session.alpn_protocol() != Some(protocol) || peer_of(session.peer_certificates()) != Some(peer) {
        return Err(Error::malformed("TLS without this protocol's name and key"));
    }
    let mut conn = Conn::new(tls.into(), peer, address, &context.counters);
    if let Purpose::Lane(lane) = purpose {
        name_lane(&mut conn, lane, by).await?;
    }
    Ok(conn)
}

/// Says which lane this is, and hears that the peer takes it. In TLS 1.3 the client is done before the
/// server has looked at its key: a refusal shows here, before any request was sent.
async fn name_lane(conn: &mut Conn, lane: u8, by: Instant) -> Result<(), Error> {
    let mut answer = [0];
    // A server that refused has closed already, and its alert can still be read when writing fails.
    let written = conn.write_byte(lane, by).await;
    match conn.read_raw(&mut answer, by).await {
        Ok(1) if answer[0] == lane => written,
        Ok(1) if answer[0] == BUSY => Err(Error::Busy { peer: conn.peer }),
        Ok(0) => Err(Error::closed("the other side closed it")),
        Ok(_) => Err(Error::malformed("an answer to something else than this lane's first byte")),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(Error::timeout("the lane to be taken")),
        Err(error) => match refusal(&error) {
            Some(_) => Err(Error::Refused { peer: conn.peer }),
            None => Err(Error::broken(&error)),
        },
    }
}

enum Refusal {
    /// Our verifier did not accept their key.
    ByUs,
    /// Theirs did not accept ours, or they don't speak this protocol.
    ByThem,
}

fn refusal(error: &io::Error) -> Option<Refusal> {
    use rustls::{AlertDescription as Alert, Error as Tls};
    match error.get_ref()?.downcast_ref::<Tls>()? {
        Tls::InvalidCertificate(_) => Some(Refusal::ByUs),
        Tls::AlertReceived(Alert::AccessDenied | Alert::NoApplicationProtocol) => Some(Refusal::ByThem),
        _ => None,
    }
}
