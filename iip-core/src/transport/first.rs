//! The first bytes of an accepted stream, and streams of which some bytes have been read before.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::IoStream;
use crate::sniff::{self, Protocol};

/// Reads until the first bytes tell the protocol of a client, at most [`sniff::MAX_BYTES`]. Returns
/// the protocol and all bytes that were read, after `arrived`, which were read before; `None` if
/// the stream ends earlier. The caller applies the time limit.
///
/// # Errors
///
/// Fails with the errors of the stream.
///
/// # Cancel safety
///
/// If the future is dropped, bytes that it has read are lost.
pub async fn read_first(
    io: &mut (impl AsyncRead + Unpin),
    arrived: Bytes,
) -> io::Result<Option<(Protocol, Bytes)>> {
    if let Some(protocol) = sniff::detect(&arrived) {
        return Ok(Some((protocol, arrived)));
    }
    // A part of the preface of HTTP/2 at most, which is shorter than the buffer.
    let mut buffer = [0; sniff::MAX_BYTES];
    let mut length = arrived.len();
    buffer[..length].copy_from_slice(&arrived);
    loop {
        match io.read(&mut buffer[length..]).await? {
            0 => return Ok(None),
            count => length += count,
        }
        if let Some(protocol) = sniff::detect(&buffer[..length]) {
            return Ok(Some((protocol, Bytes::copy_from_slice(&buffer[..length]))));
        }
    }
}

/// A stream of which some bytes have been read before.
#[derive(Debug)]
pub(super) struct Rewound {
    first: Bytes,
    io: IoStream,
}

impl Rewound {
    pub(super) fn new(first: Bytes, io: IoStream) -> Self {
        Self { first, io }
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.has_remaining() {
            let count = self.first.len().min(buf.remaining());
            buf.put_slice(&self.first.split_to(count));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_bytes_are_read_as_far_as_needed_and_none_is_lost() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0";
        let arrived = Bytes::from_static(&preface[..3]);
        let mut rest = &preface[3..];
        let found = read_first(&mut rest, arrived).await.expect("no error");
        let (protocol, mut first) = found.expect("a protocol");
        assert_eq!(protocol, Protocol::Http2);
        // The frame after the preface may be left in the stream.
        assert!(first.len() >= sniff::MAX_BYTES);
        first = [&first[..], rest].concat().into();
        assert_eq!(&first[..], preface);

        let mut ended = &b"PRI"[..];
        let found = read_first(&mut ended, Bytes::new()).await;
        assert_eq!(found.expect("no error"), None);
    }

    #[tokio::test]
    async fn a_rewound_stream_begins_with_the_bytes_that_were_read_before() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut stream = IoStream::from(near).rewound(Bytes::from_static(b"GE"));
        tokio::io::AsyncWriteExt::write_all(&mut far, b"T /")
            .await
            .expect("room");
        let mut read = [0; 1];
        stream.read_exact(&mut read).await.expect("a byte");
        let mut rest = [0; 4];
        stream.read_exact(&mut rest).await.expect("the rest");
        assert_eq!((&read, &rest), (b"G", b"ET /"));
    }
}
