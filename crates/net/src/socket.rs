//! The TCP socket under TLS. Adds one thing: large reads. rustls asks for 4 KiB at a time; in bulk that would
//! be four system calls for every TLS record.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::sys::TcpStream;

/// A TCP stream that reads ahead when told to.
pub(crate) struct Socket {
    tcp: TcpStream,
    /// Bytes to read at once; 0 reads straight into the caller's buffer.
    ahead: usize,
    /// Read and not yet taken: `buffer[at..end]`.
    buffer: Vec<u8>,
    at: usize,
    end: usize,
}

impl Socket {
    pub(crate) fn new(tcp: TcpStream) -> io::Result<Self> {
        // Without it, a small frame waits for the other side's delayed acknowledgement: 40 ms.
        tcp.set_nodelay(true)?;
        Ok(Self { tcp, ahead: 0, buffer: Vec::new(), at: 0, end: 0 })
    }

    /// How much to read at once from now on. 0 also frees the buffer, as soon as it is empty.
    pub(crate) fn read_ahead(&mut self, bytes: usize) {
        self.ahead = bytes;
        if bytes == 0 && self.at == self.end {
            self.buffer = Vec::new();
            (self.at, self.end) = (0, 0);
        }
    }

    fn take(&mut self, out: &mut ReadBuf<'_>) {
        let amount = out.remaining().min(self.end - self.at);
        out.put_slice(&self.buffer[self.at..self.at + amount]);
        self.at += amount;
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.at == this.end {
            if this.ahead <= out.remaining() {
                return Pin::new(&mut this.tcp).poll_read(cx, out);
            }
            if this.buffer.len() != this.ahead {
                this.buffer.resize(this.ahead, 0);
            }
            let mut ahead = ReadBuf::new(&mut this.buffer);
            ready!(Pin::new(&mut this.tcp).poll_read(cx, &mut ahead))?;
            (this.at, this.end) = (0, ahead.filled().len());
        }
        this.take(out);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}
