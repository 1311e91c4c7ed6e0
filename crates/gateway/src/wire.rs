//! What bytes travel on: TLS from files, and streams and bodies that don't wait for ever.

use std::{
    io,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        version::TLS13,
    },
};

use crate::StartError;

/// A client that takes nothing for so long is gone.
const WRITE: Duration = Duration::from_secs(300);
/// A client that sends nothing for so long in mid-request is gone.
const READ: Duration = Duration::from_secs(60);
/// While so long was waited for a body …
const SPAN: Duration = Duration::from_secs(30);
/// … so many bytes of it must come. Bodies of objects are held to the same by `body.rs`, which can say so better.
const LEAST: usize = 16 << 10;

/// TLS with a certificate chain and key from PEM files.
pub(crate) fn tls(chain: &Path, key: &Path) -> Result<TlsAcceptor, StartError> {
    let fail = |path: &Path, why: String| StartError::Tls { path: path.to_owned(), why };
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| fail(chain, error.to_string()))?;
    if certificates.is_empty() {
        return Err(fail(chain, "there is no certificate in this file".to_owned()));
    }
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| fail(key, error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| fail(chain, error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(certificates, key_der)
        .map_err(|error| fail(chain, error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A stream whose writes fail when the other side takes nothing for too long.
pub(crate) struct Patient<S> {
    inner: S,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, deadline: None }
    }

    fn waited<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.deadline = None;
            return outcome;
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(WRITE)));
        match deadline.as_mut().poll(context) {
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads nothing")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.waited(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(context, bytes);
        self.waited(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(context);
        self.waited(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_shutdown(context);
        self.waited(context, outcome)
    }
}

/// How fast a body comes, counting only the time in which it was waited for.
#[derive(Default)]
struct Pace {
    waited: Duration,
    bytes: usize,
}

impl Pace {
    /// Notes what came and how long it was waited for; whether that is fast enough.
    fn is_kept(&mut self, waited: Duration, bytes: usize) -> bool {
        self.waited += waited;
        self.bytes += bytes;
        if self.waited < SPAN {
            return true;
        }
        let kept = self.bytes >= LEAST;
        *self = Self::default();
        kept
    }
}

/// A request's body that fails when nothing comes for too long, or too little.
pub(crate) struct PatientBody {
    inner: Incoming,
    deadline: Pin<Box<Sleep>>,
    pace: Pace,
    /// Since when it is waited for, if it is.
    waiting: Option<Instant>,
    too_slow: Arc<AtomicBool>,
}

impl PatientBody {
    /// `too_slow` is told if it fails for that.
    pub(crate) fn new(inner: Incoming, too_slow: Arc<AtomicBool>) -> Self {
        let deadline = Box::pin(sleep(READ));
        Self { inner, deadline, pace: Pace::default(), waiting: None, too_slow }
    }

    fn slow(&self) -> io::Error {
        self.too_slow.store(true, Ordering::Relaxed);
        io::Error::new(io::ErrorKind::TimedOut, "the client sends too slowly, or nothing")
    }
}

impl Body for PatientBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Ready(frame) => {
                let now = Instant::now();
                self.deadline.as_mut().reset(now + READ);
                let waited = self.waiting.take().map_or(Duration::ZERO, |since| now - since);
                let bytes = match &frame {
                    Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
                    _ => LEAST,
                };
                if !self.pace.is_kept(waited, bytes) {
                    return Poll::Ready(Some(Err(self.slow())));
                }
                Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)))
            }
            Poll::Pending => {
                self.waiting.get_or_insert_with(Instant::now);
                match self.deadline.as_mut().poll(context) {
                    Poll::Ready(()) => Poll::Ready(Some(Err(self.slow()))),
                    Poll::Pending => Poll::Pending,
                }
            }
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
    use super::*;

    #[test]
    fn who_trickles_is_too_slow_and_who_was_not_waited_for_is_not() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::default();
        assert!((0..29).all(|_| pace.is_kept(second, 1)));
        assert!(!pace.is_kept(second, 1), "30 bytes in 30 s");
        let mut pace = Pace::default();
        assert!((0..300).all(|_| pace.is_kept(second, 1000)), "30,000 bytes in each 30 s");
        let mut pace = Pace::default();
        assert!((0..1000).all(|_| pace.is_kept(Duration::ZERO, 1)), "the node's own pace");
    }
}
