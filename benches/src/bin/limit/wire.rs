//! The wire of the limit: `id` (u32), `len` (u32), `len` bytes; both numbers in network order.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::AsyncWrite as _;
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

const HEAD: usize = 8;

/// Size from which a body is never copied: it is sent from its own buffer and stays where it was
/// received. With 4 KiB instead, bodies of 2 KiB cost a fifth more processor time.
const LARGE: usize = 1024;

/// Buffer size for one read. With 64 KiB, bodies of 4 KiB to 14 KiB reach a quarter less; a much
/// larger buffer does not fit the cache.
const READ: usize = 256 * 1024;

/// Maximum body size; a peer that announces more is broken.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// Frames that wait to be written.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Heads and small bodies.
    copied: Vec<u8>,
    /// Large bodies, each with the position in `copied` before which it belongs.
    large: Vec<(usize, Bytes)>,
    /// The written part of `copied`, and the number of whole bodies of `large` that were written.
    copied_done: usize,
    large_done: usize,
}

impl Outbox {
    pub(crate) fn push(&mut self, id: u32, body: Bytes) {
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&id.to_be_bytes());
        head[4..].copy_from_slice(&(body.len() as u32).to_be_bytes());
        self.copied.extend_from_slice(&head);
        if body.len() < LARGE {
            self.copied.extend_from_slice(&body);
        } else {
            self.large.push((self.copied.len(), body));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.copied.is_empty()
    }

    /// Writes until everything is written or the kernel takes no more.
    pub(crate) fn poll_flush(
        &mut self,
        io: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = if self.large.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, &self.copied[self.copied_done..]))?
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let used = self.slices(&mut slices);
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices[..used]))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES]) -> usize {
        let mut used = 0;
        let mut at = self.copied_done;
        for (position, body) in &self.large[self.large_done..] {
            if used + 2 > SLICES {
                return used;
            }
            if at < *position {
                slices[used] = IoSlice::new(&self.copied[at..*position]);
                used += 1;
                at = *position;
            }
            slices[used] = IoSlice::new(body);
            used += 1;
        }
        if at < self.copied.len() && used < SLICES {
            slices[used] = IoSlice::new(&self.copied[at..]);
            used += 1;
        }
        used
    }

    fn advance(&mut self, mut written: usize) {
        while let Some((position, body)) = self.large.get_mut(self.large_done) {
            let copied = written.min(*position - self.copied_done);
            self.copied_done += copied;
            written -= copied;
            if written < body.len() {
                body.advance(written);
                return;
            }
            written -= body.len();
            // Frees the memory now, not with the last body of the batch.
            *body = Bytes::new();
            self.large_done += 1;
        }
        self.copied_done += written;
        if self.copied_done == self.copied.len() {
            self.copied.clear();
            self.large.clear();
            self.copied_done = 0;
            self.large_done = 0;
        }
    }
}

/// Maximum number of buffers in one write; the kernel takes up to 1,024.
const SLICES: usize = 64;

/// Bytes from the kernel, split into frames.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    buffer: BytesMut,
    /// The whole memory of which `buffer` is the rest.
    size: usize,
    /// `true` if returned bodies are in that memory.
    lends: bool,
}

impl Inbox {
    /// Reads once; 0 is the end of the connection.
    pub(crate) fn poll_fill(
        &mut self,
        io: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.buffer.is_empty() && self.lends {
            // Once the bodies are dropped, the same memory is used again from its start, and is
            // still in the cache.
            self.lends = !self.buffer.try_reclaim(self.size);
        }
        // A body that has begun gets space to its end, so that its rest is received where it will
        // stay.
        let wanted = match self.head() {
            Some((_, len)) => (HEAD + len).saturating_sub(self.buffer.len()).max(READ / 4),
            None => READ / 4,
        };
        if self.buffer.capacity() - self.buffer.len() < wanted {
            self.buffer.reserve(wanted.max(READ));
            self.size = self.buffer.capacity();
            self.lends = false;
        }
        poll_read_buf(Pin::new(io), cx, &mut self.buffer)
    }

    /// Returns the next whole frame.
    pub(crate) fn next(&mut self) -> io::Result<Option<(u32, Bytes)>> {
        let Some((id, len)) = self.head() else {
            return Ok(None);
        };
        if len > MAX_BODY {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a frame is longer than any body",
            ));
        }
        if self.buffer.len() < HEAD + len {
            return Ok(None);
        }
        self.buffer.advance(HEAD);
        if len < LARGE {
            let body = Bytes::copy_from_slice(&self.buffer[..len]);
            self.buffer.advance(len);
            Ok(Some((id, body)))
        } else {
            self.lends = true;
            Ok(Some((id, self.buffer.split_to(len).freeze())))
        }
    }

    /// Returns `true` if returned bodies are in memory that the next read could use again once they
    /// are dropped.
    pub(crate) fn lends(&self) -> bool {
        self.lends
    }

    fn head(&self) -> Option<(u32, usize)> {
        let (id, rest) = self.buffer.split_first_chunk()?;
        let (len, _) = rest.split_first_chunk()?;
        Some((u32::from_be_bytes(*id), u32::from_be_bytes(*len) as usize))
    }
}
