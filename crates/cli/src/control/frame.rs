//! Frames: how messages and content are cut on the control socket. Everything is little-endian.
//!
//! A message is a `u32` length and so many bytes of postcard, at most [`MAX_FRAME`]. Content is a row
//! of data frames, each a `u32` header: 1 to [`MAX_FRAME`] bytes follow; [`END`]; [`STILL_HERE`] (the
//! sender waits for its source); [`FAILED`], and a message with the failure follows. Content that stops
//! without [`END`] is not whole: a reader gets an error, never an end.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf, Take},
    time::{Instant, Sleep, sleep},
};

/// Longest frame. Fewer system calls than that saves nothing more, and it bounds what a broken peer can
/// make us allocate.
pub(super) const MAX_FRAME: usize = 1 << 20;
/// Header of the end of content.
pub(super) const END: u32 = 0;
/// Header without data: the sender is alive, its source is slow.
pub(super) const STILL_HERE: u32 = u32::MAX;
/// Header of a failure in mid-content.
pub(super) const FAILED: u32 = u32::MAX - 1;

fn malformed(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed frame: {why}"))
}

/// Writes a message.
pub(super) async fn write_message<W, M>(writer: &mut W, message: &M) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
    M: Serialize,
{
    let mut bytes = postcard::to_extend(message, vec![0; 4]).map_err(malformed)?;
    let length = bytes.len() - 4;
    if length > MAX_FRAME {
        return Err(malformed(format!("{length} bytes to send")));
    }
    bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
    writer.write_all(&bytes).await
}

/// Reads a message; `None` if the peer closed before one began.
pub(super) async fn read_message<R, M>(reader: &mut R) -> io::Result<Option<M>>
where
    R: AsyncRead + Unpin,
    M: DeserializeOwned,
{
    let mut header = [0; 4];
    if reader.read(&mut header[..1]).await? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut header[1..]).await?;
    let length = u32::from_le_bytes(header) as usize;
    if length > MAX_FRAME {
        return Err(malformed(format!("{length} bytes announced")));
    }
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes).await?;
    postcard::from_bytes(&bytes).map(Some).map_err(malformed)
}

/// Pieces of content that are written as one data frame without being copied together.
#[derive(Default)]
pub(super) struct DataFrame {
    /// The header is the first piece, once the frame is closed.
    pieces: std::collections::VecDeque<Bytes>,
    length: usize,
}

impl DataFrame {
    /// Bytes of content in it.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Adds a piece.
    pub(super) fn push(&mut self, piece: Bytes) {
        self.length += piece.len();
        if !piece.is_empty() {
            self.pieces.push_back(piece);
        }
    }

    /// Writes the frame, if there is anything in it, and starts the next one.
    pub(super) async fn write<W: AsyncWrite + Unpin>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.length == 0 {
            return Ok(());
        }
        assert!(self.length <= MAX_FRAME, "a frame of {} bytes", self.length);
        let header = (self.length as u32).to_le_bytes();
        self.pieces.push_front(Bytes::copy_from_slice(&header));
        self.length = 0;
        writer.write_all_buf(self).await
    }
}

impl Buf for DataFrame {
    fn remaining(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(&self.pieces);
        filled.map(|(slice, piece)| *slice = IoSlice::new(piece)).count()
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let front = self.pieces.front_mut().expect("advanced within what remains");
            let step = count.min(front.len());
            front.advance(step);
            count -= step;
            if front.is_empty() {
                self.pieces.pop_front();
            }
        }
    }
}

/// The content of a put, as a reader: it ends where the sender said so. Everything else (the sender
/// gone, a malformed header, silence) is an error, so that half a file is never taken for a whole one.
pub(super) struct Body<R> {
    /// Its limit is what is left of the current data frame, or of the header.
    reader: Take<R>,
    header: [u8; 4],
    header_read: usize,
    in_data: bool,
    ended: bool,
    silence: Duration,
    alarm: Pin<Box<Sleep>>,
    waiting: bool,
}

impl<R: AsyncRead + Unpin> Body<R> {
    /// A body; nothing for as long as `silence` is an error.
    pub(super) fn new(reader: R, silence: Duration) -> Self {
        Self {
            reader: reader.take(0),
            header: [0; 4],
            header_read: 0,
            in_data: false,
            ended: false,
            silence,
            alarm: Box::pin(sleep(silence)),
            waiting: false,
        }
    }

    /// Whether the sender ended it and all was read.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Reads at least one byte, within the limit.
    fn poll_some(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        let before = buf.filled().len();
        if let Poll::Ready(done) = Pin::new(&mut self.reader).poll_read(cx, buf) {
            done?;
            self.waiting = false;
            return Poll::Ready(match buf.filled().len() - before {
                0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the client went away in mid-upload")),
                count => Ok(count),
            });
        }
        if !self.waiting {
            self.waiting = true;
            self.alarm.as_mut().reset(Instant::now() + self.silence);
        }
        ready!(self.alarm.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client fell silent in mid-upload")))
    }

    fn poll_header(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<u32>> {
        while self.header_read < 4 {
            self.reader.set_limit(4 - self.header_read as u64);
            let mut header = self.header;
            let read = self.poll_some(cx, &mut ReadBuf::new(&mut header[self.header_read..]));
            self.header = header;
            self.header_read += ready!(read)?;
        }
        self.header_read = 0;
        Poll::Ready(Ok(u32::from_le_bytes(self.header)))
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Body<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let body = &mut *self;
        while !body.in_data {
            if body.ended || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            match ready!(body.poll_header(cx))? {
                END => body.ended = true,
                STILL_HERE => {}
                length if length as usize <= MAX_FRAME => {
                    body.reader.set_limit(length.into());
                    body.in_data = true;
                }
                other => return Poll::Ready(Err(malformed(format!("data header {other:#x}")))),
            }
        }
        if buf.remaining() > 0 {
            // Straight into the caller's buffer.
            ready!(body.poll_some(cx, buf))?;
            body.in_data = body.reader.limit() > 0;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_secs(30);

    fn data(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u32).to_le_bytes(), bytes].concat()
    }

    /// Reads a body of which the bytes arrive in pieces of this size.
    async fn read(sent: Vec<u8>, piece: usize) -> (Vec<u8>, io::Result<()>) {
        let (mut client, server) = tokio::io::duplex(piece);
        let sender = tokio::spawn(async move { client.write_all(&sent).await });
        let mut body = Body::new(server, SILENCE);
        let mut got = Vec::new();
        let outcome = body.read_to_end(&mut got).await.map(drop);
        assert_eq!(outcome.is_ok(), body.ended());
        drop(body);
        let _ = sender.await;
        (got, outcome)
    }

    #[tokio::test]
    async fn a_body_is_whole_only_with_its_end() {
        let whole =
            [data(b"hello"), STILL_HERE.to_le_bytes().to_vec(), data(&[7; 5000]), END.to_le_bytes().to_vec()]
                .concat();
        for piece in [1, 3, 4, 64, 9999] {
            let (got, outcome) = read(whole.clone(), piece).await;
            outcome.unwrap();
            assert_eq!(got, [b"hello".as_slice(), &[7; 5000]].concat());
        }
        for cut in 0..whole.len() {
            let (_, outcome) = read(whole[..cut].to_vec(), 4096).await;
            assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "cut at {cut}");
        }
        for header in [MAX_FRAME as u32 + 1, FAILED] {
            let (got, outcome) = read(header.to_le_bytes().to_vec(), 64).await;
            assert!(got.is_empty() && outcome.unwrap_err().kind() == io::ErrorKind::InvalidData);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_an_error_and_a_sign_of_life_is_not() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut body = Body::new(server, SILENCE);
        let sender = tokio::spawn(async move {
            for _ in 0..5 {
                sleep(SILENCE / 2).await;
                client.write_all(&STILL_HERE.to_le_bytes()).await.unwrap();
            }
            sleep(SILENCE * 10).await;
            drop(client);
        });
        let begun = Instant::now();
        let error = body.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), (SILENCE / 2 * 7).as_secs());
        sender.abort();
    }

    #[tokio::test]
    async fn messages_and_frames_round_trip_and_are_bounded() {
        let (mut client, mut server) = tokio::io::duplex(1 << 16);
        write_message(&mut client, &("a", 7u32)).await.unwrap();
        assert_eq!(read_message::<_, (String, u32)>(&mut server).await.unwrap(), Some(("a".to_owned(), 7)));
        let huge = vec![0u8; MAX_FRAME + 1];
        assert!(write_message(&mut client, &huge).await.is_err());
        client.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
        let error = read_message::<_, u32>(&mut server).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);

        let mut frame = DataFrame::default();
        for piece in [b"ab".as_slice(), b"", b"cde"] {
            frame.push(Bytes::copy_from_slice(piece));
        }
        frame.write(&mut client).await.unwrap();
        frame.write(&mut client).await.unwrap();
        drop(client);
        let mut sent = Vec::new();
        server.read_to_end(&mut sent).await.unwrap();
        assert_eq!(sent, data(b"abcde"));
        assert!(read_message::<_, u32>(&mut server).await.unwrap().is_none());
    }
}
