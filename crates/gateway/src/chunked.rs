//! Bounds for bodies in S3's own framing (`aws-chunked`).
//!
//! `s3s` holds each chunk of such a body in memory before it hands it on, up to 4 GiB, and some clients send a whole
//! file as one chunk. Chunks without signatures are cut into pieces here, as they come; with a signature a chunk is
//! what was signed, and one that is too large is refused. Everything else is checked by `s3s`.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Request;
use hyper::body::{Body as HttpBody, Frame};
use s3s::Body;

/// Most bytes of a chunk with a signature: clients send 64 KiB to 1 MiB.
const SIGNED: u64 = 4 << 20;
/// Most bytes of a chunk's head: its size, and a signature of 64 digits.
const HEAD: usize = 1024;
/// Most digits of a chunk's size.
const DIGITS: usize = 16;
/// As many as `s3s` reads of a size; it would take another one for what is longer.
const SIGNED_DIGITS: usize = 8;

/// The body of a request as `s3s` may have it.
pub(crate) fn bounded<B>(request: Request<B>) -> Request<Body>
where
    B: HttpBody<Data = Bytes, Error = io::Error> + Send + Unpin + 'static,
{
    let declared = request.headers().get("x-amz-content-sha256").map(|value| value.as_bytes().to_owned());
    match declared.as_deref() {
        Some(b"STREAMING-UNSIGNED-PAYLOAD-TRAILER") => {
            request.map(|body| Body::http_body_unsync(Chunks::new(body, false)))
        }
        Some(kind) if kind.starts_with(b"STREAMING-") => {
            request.map(|body| Body::http_body_unsync(Chunks::new(body, true)))
        }
        _ => request.map(Body::http_body_unsync),
    }
}

enum State {
    /// In a chunk's head, of which this was seen.
    Head(Vec<u8>),
    /// In its data, of which so many bytes are to come.
    Data(u64),
    /// In the line end after it; whether its first byte was seen.
    End(bool),
    /// In what follows the last chunk.
    Rest,
}

/// A body in chunks, none of them large.
struct Chunks<B> {
    inner: B,
    signed: bool,
    state: State,
    /// What was read and is to be handed on.
    out: VecDeque<Bytes>,
}

fn malformed(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

impl<B> Chunks<B> {
    fn new(inner: B, signed: bool) -> Self {
        Self { inner, signed, state: State::Head(Vec::new()), out: VecDeque::new() }
    }

    /// Takes what came; it holds no more than that and a head.
    fn take(&mut self, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            self.state = match std::mem::replace(&mut self.state, State::Rest) {
                State::Head(mut head) => {
                    let end = bytes.iter().position(|byte| *byte == b'\n');
                    head.extend_from_slice(&bytes.split_to(end.map_or(bytes.len(), |end| end + 1)));
                    if head.len() > HEAD {
                        return Err(malformed(format!("the head of a chunk has more than {HEAD} bytes")));
                    }
                    if end.is_some() { self.begin(head)? } else { State::Head(head) }
                }
                State::Data(left) => {
                    let here = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    let piece = bytes.split_to(here);
                    if self.signed {
                        self.out.push_back(piece);
                    } else {
                        self.out.push_back(format!("{here:x}\r\n").into());
                        self.out.push_back(piece);
                        self.out.push_back(Bytes::from_static(b"\r\n"));
                    }
                    match left - here as u64 {
                        0 => State::End(false),
                        left => State::Data(left),
                    }
                }
                State::End(seen) => {
                    let expected = if seen { b'\n' } else { b'\r' };
                    if bytes.split_to(1)[0] != expected {
                        return Err(malformed("a chunk is longer than its head says"));
                    }
                    if seen && self.signed {
                        self.out.push_back(Bytes::from_static(b"\r\n"));
                    }
                    if seen { State::Head(Vec::new()) } else { State::End(true) }
                }
                State::Rest => {
                    self.out.push_back(std::mem::take(&mut bytes));
                    State::Rest
                }
            };
        }
        Ok(())
    }

    /// What follows a head.
    fn begin(&mut self, head: Vec<u8>) -> io::Result<State> {
        let digits = head.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let most = if self.signed { SIGNED_DIGITS } else { DIGITS };
        let size = std::str::from_utf8(&head[..digits]).ok().filter(|digits| digits.len() <= most);
        let size = size.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let size = size.ok_or_else(|| malformed("the head of a chunk does not begin with its size"))?;
        if self.signed && size > SIGNED {
            let why = format!("a signed chunk has {size} bytes; send chunks of at most {SIGNED}");
            return Err(malformed(why));
        }
        if self.signed || size == 0 {
            self.out.push_back(head.into());
        }
        Ok(if size == 0 { State::Rest } else { State::Data(size) })
    }
}

impl<B> HttpBody for Chunks<B>
where
    B: HttpBody<Data = Bytes, Error = io::Error> + Unpin,
{
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        loop {
            if let Some(bytes) = self.out.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                Some(Ok(frame)) => {
                    // HTTP's own trailers mean nothing to S3.
                    if let Ok(bytes) = frame.into_data() {
                        self.take(bytes)?;
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out of a body that comes in pieces of that size.
    fn through(signed: bool, body: &[u8], piece: usize) -> io::Result<Vec<Bytes>> {
        let mut chunks = Chunks::new((), signed);
        let mut out = Vec::new();
        for piece in body.chunks(piece) {
            chunks.take(Bytes::copy_from_slice(piece))?;
            out.extend(chunks.out.drain(..));
        }
        Ok(out)
    }

    #[test]
    fn chunks_without_signatures_are_cut_as_they_come() {
        let body = b"a\r\n0123456789\r\n3;x=y\r\nabc\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n";
        let whole = through(false, body, body.len()).unwrap().concat();
        assert_eq!(whole, b"a\r\n0123456789\r\n3\r\nabc\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n");
        let cut = through(false, body, 4).unwrap().concat();
        assert!(cut.starts_with(b"1\r\n0\r\n4\r\n1234\r\n4\r\n5678\r\n1\r\n9\r\n"), "{cut:?}");
        assert!(cut.ends_with(b"0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n"));
        let huge = b"ffffffffff\r\n0123";
        assert_eq!(through(false, huge, 100).unwrap().concat(), b"4\r\n0123\r\n");
    }

    #[test]
    fn signed_chunks_stay_as_they_are_and_are_not_large() {
        let signature = "0".repeat(64);
        let body = format!("4;chunk-signature={signature}\r\nabcd\r\n0;chunk-signature={signature}\r\n\r\n");
        for piece in [1, 3, 1000] {
            assert_eq!(through(true, body.as_bytes(), piece).unwrap().concat(), body.as_bytes());
        }
        for bad in ["400001;chunk-signature=0\r\n", "000000004\r\nabcd", "x\r\n", "\r\n", "2\r\nabc\r\n"] {
            assert!(through(true, bad.as_bytes(), 1000).is_err(), "{bad}");
        }
        assert!(through(true, "0".repeat(HEAD + 1).as_bytes(), 100).is_err());
        assert!(through(false, "0".repeat(HEAD + 1).as_bytes(), 100).is_err());
    }
}
