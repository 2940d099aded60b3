//! The handshake of TLS with a client whose first bytes have been read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use iip_core::transport::IoStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::gateway::Worker;
use crate::listen::ListenOptions;

/// Performs the handshake of TLS.
pub(crate) async fn encrypted(
    io: IoStream,
    first: Bytes,
    options: &ListenOptions,
    worker: &Worker,
) -> Option<IoStream> {
    let tls = options.tls.as_ref()?;
    let mut drain = worker.drain.clone();
    let handshake = async {
        let io = IoStream::new(Rewound { first, io });
        match tls.accept(io).await {
            Ok((stream, _)) => Some(stream),
            Err(error) => {
                tracing::debug!(%error, "a handshake of TLS failed");
                None
            }
        }
    };
    tokio::select! {
        stream = handshake => stream,
        () = drain.begun() => None,
    }
}

/// A stream of which some bytes have been read before.
#[derive(Debug)]
struct Rewound {
    first: Bytes,
    io: IoStream,
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
