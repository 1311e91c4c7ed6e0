//! What a client vouches for of a body that is XML (Content-MD5, `x-amz-checksum-…`): hashed as it passes, compared at its
//! end, before anybody acts on it. Of bodies that are stored, `s3/object.rs` does the same.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use s3s::{S3Error, S3ErrorCode, S3Result};

use crate::{
    auth::Operation,
    digest::{ALGORITHMS, Hasher},
    error::{of_body, refuse},
    meter::is_xml,
    s3::{Promised, Sums},
};

/// Why a body was refused, for who answers the request: `s3s` does not hand on what a body fails with.
#[derive(Clone, Default)]
pub(crate) struct Verdict(Arc<Mutex<Option<S3Error>>>);

impl Verdict {
    pub(crate) fn take(&self) -> Option<S3Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What the head of a request says of its body.
struct Said {
    md5: Option<String>,
    sums: Sums,
    /// Whether the body is in chunks of `aws-chunked`: what passes here is not what was hashed then.
    framed: bool,
}

impl Said {
    fn of(head: &HeaderMap) -> Option<Self> {
        let text =
            |name: &str| head.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let sum = |algorithm: &str| text(&format!("x-amz-checksum-{algorithm}"));
        let kind = head.get("x-amz-content-sha256").map(|value| value.as_bytes());
        let framed = kind.is_some_and(|kind| kind.starts_with(b"STREAMING-"));
        let names = ALGORITHMS.map(|algorithm| algorithm.name().to_ascii_lowercase());
        let says = head.contains_key("content-md5")
            || (framed && head.contains_key("x-amz-trailer"))
            || names.iter().any(|name| head.contains_key(format!("x-amz-checksum-{name}")));
        says.then(|| Self {
            md5: text("content-md5"),
            sums: Sums {
                crc32: sum("crc32"),
                crc32c: sum("crc32c"),
                crc64nvme: sum("crc64nvme"),
                sha1: sum("sha1"),
                sha256: sum("sha256"),
                kind: None,
            },
            framed,
        })
    }

    fn promised(self, operation: &Operation) -> S3Result<Promised> {
        if self.framed {
            let why =
                "checksums of bodies that are XML are not looked at in aws-chunked: send them without chunks";
            return Err(refuse(S3ErrorCode::NotImplemented, why));
        }
        // There, they are those of the object.
        let is_of_object = operation.get() == Some("CompleteMultipartUpload");
        let sums = if is_of_object { Sums::default() } else { self.sums };
        Promised::of(self.md5.as_deref(), &sums, None, &HeaderMap::new(), None)
    }
}

/// A body that fails at its end if it is not what was vouched for.
pub(crate) struct Vouched<B> {
    inner: B,
    operation: Operation,
    said: Option<Said>,
    hashing: Option<(Promised, Hasher)>,
    verdict: Verdict,
}

impl<B> Vouched<B> {
    pub(crate) fn new(inner: B, head: &HeaderMap, operation: Operation) -> (Self, Verdict) {
        let verdict = Verdict::default();
        let said = Said::of(head);
        (Self { inner, operation, said, hashing: None, verdict: verdict.clone() }, verdict)
    }

    /// Known to be XML once access was checked, before which nothing reads a body.
    fn begin(&mut self) -> S3Result<()> {
        if self.said.is_some() && is_xml(&self.operation) {
            let promised = self.said.take().map(|said| said.promised(&self.operation)).transpose()?;
            self.hashing = promised.map(|promised| {
                let hasher = Hasher::new(promised.algorithm());
                (promised, hasher)
            });
        }
        Ok(())
    }

    fn end(&mut self) -> S3Result<()> {
        let Some((promised, hasher)) = self.hashing.take() else { return Ok(()) };
        promised.check(&hasher.finish()).map_err(|error| of_body(&error))
    }

    fn judged(&self, outcome: S3Result<()>) -> io::Result<()> {
        outcome.map_err(|error| {
            *self.verdict.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            io::Error::other("the body is not what was vouched for")
        })
    }
}

impl<B> Body for Vouched<B>
where
    B: Body<Data = Bytes, Error = io::Error> + Unpin,
{
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let begun = self.begin();
        if let Err(error) = self.judged(begun) {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            Some(Ok(frame)) => Some(frame),
            None => None,
        };
        if let (Some((_, hasher)), Some(bytes)) =
            (&mut self.hashing, frame.as_ref().and_then(Frame::data_ref))
        {
            hasher.update(bytes);
        }
        // Whoever knows the length does not ask for what follows the last frame.
        if frame.is_none() || self.inner.is_end_stream() {
            let ended = self.end();
            if let Err(error) = self.judged(ended) {
                return Poll::Ready(Some(Err(error)));
            }
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.hashing.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
