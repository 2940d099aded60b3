//! The byte stream of an HTTP connection, and the time limits that hyper does not have.
//!
//! The stream records its activity. The [`Watch`] is polled with the connection, because hyper does
//! not read again after each reply.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use iip_core::transport::IoStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::activity::{Activity, State};
use crate::limits::Limits;
use crate::scan::Scanner;

/// The time and the number of bytes for which a connection stays open after a request that was not
/// read to its end, so that the client can read the reply before the connection is closed.
const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

/// The time limit that applies to a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wait {
    Head,
    Idle,
    Park,
    Write,
}

/// The action that a connection must take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Release the buffers, because the connection was idle for long enough.
    Park,
    /// End the connection, for this reason.
    End(&'static str),
}

/// The time limits of a connection.
#[derive(Debug)]
pub(crate) struct Watch {
    activity: Arc<Activity>,
    is_http1: bool,
    head: Duration,
    idle: Duration,
    write: Duration,
    /// `None` if the connection is never parked.
    park: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    pub(crate) fn new(limits: &Limits, is_http1: bool, activity: Arc<Activity>) -> Self {
        // A connection that would end soon anyway is not parked.
        let parks = is_http1 && limits.park_after < limits.idle_timeout;
        Self {
            activity,
            is_http1,
            head: limits.head_timeout,
            idle: limits.idle_timeout,
            write: limits.write_timeout,
            park: parks.then_some(limits.park_after),
            timer: None,
        }
    }

    /// Returns the time limit that expires next, with its time.
    fn wait(&self, state: &State) -> Option<(Wait, Instant)> {
        let write = state
            .write_since
            .map(|since| (Wait::Write, since + self.write));
        let head = state
            .head_since
            .map(|since| (Wait::Head, since + self.head));
        let idle = Some((Wait::Idle, state.last + self.idle));
        let read = if state.running > 0 {
            // An HTTP/2 window that the client does not open blocks no write.
            let oldest = state.sending.iter().flatten().min();
            let oldest = oldest.filter(|_| !self.is_http1);
            oldest.map(|oldest| (Wait::Write, *oldest + self.write))
        } else if self.is_http1 {
            match self.park {
                _ if head.is_some() => head,
                Some(park) if state.is_between && write.is_none() => {
                    Some((Wait::Park, state.last + park))
                }
                _ => idle,
            }
        } else if state.begun == 0 {
            head
        } else {
            idle
        };
        match (read, write) {
            (Some(read), Some(write)) => Some(if read.1 < write.1 { read } else { write }),
            (read, write) => read.or(write),
        }
    }

    /// Returns a verdict if a time limit has passed. Otherwise, wakes the task when one may have.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Option<Verdict> {
        loop {
            let (wait, at) = {
                let state = self.activity.lock();
                if let Some(reason) = state.ended {
                    return Some(Verdict::End(reason));
                }
                self.wait(&state)?
            };
            // A timer that expires earlier is kept: it costs only one more check.
            let timer = match &mut self.timer {
                Some(timer) if timer.deadline() <= at => timer,
                Some(timer) => {
                    timer.as_mut().reset(at);
                    timer
                }
                timer => timer.insert(Box::pin(sleep_until(at))),
            };
            if timer.as_mut().poll(cx).is_pending() {
                return None;
            }
            if timer.deadline() < at {
                timer.as_mut().reset(at);
                continue;
            }
            return Some(match wait {
                Wait::Park => Verdict::Park,
                Wait::Head => Verdict::End(
                    "the head of a request did not arrive in time (option head_timeout)",
                ),
                Wait::Idle => Verdict::End("the connection was idle (option idle_timeout)"),
                Wait::Write => {
                    Verdict::End("the client does not read its replies (option write_timeout)")
                }
            });
        }
    }
}

/// A byte stream that records its activity.
#[derive(Debug)]
pub(crate) struct WatchedIo {
    io: IoStream,
    /// Bytes that were read to detect the protocol.
    first: Bytes,
    /// Follows the messages of HTTP/1.
    scanner: Option<Scanner>,
    activity: Arc<Activity>,
    is_write_blocked: bool,
    linger: Option<Linger>,
}

/// The delayed end of a connection whose client may still send.
#[derive(Debug)]
struct Linger {
    timer: Pin<Box<Sleep>>,
    left: usize,
}

impl WatchedIo {
    /// Creates a stream; `first` are bytes that were already read from `io`.
    pub(crate) fn new(
        io: IoStream,
        first: Bytes,
        scanner: Option<Scanner>,
        activity: Arc<Activity>,
    ) -> Self {
        Self {
            io,
            first,
            scanner,
            activity,
            is_write_blocked: false,
            linger: None,
        }
    }

    pub(crate) fn into_inner(self) -> IoStream {
        self.io
    }

    /// Records bytes that have arrived.
    fn arrived(&mut self, bytes: &[u8]) {
        let Some(scanner) = &mut self.scanner else {
            return;
        };
        scanner.feed(bytes);
        let mut state = self.activity.lock();
        state.is_between = scanner.is_between();
        if !scanner.is_in_head() {
            state.head_since = None;
        } else if state.head_since.is_none() {
            state.head_since = Some(Instant::now());
        }
        state.fault = scanner.fault();
    }

    fn written<T>(&mut self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_pending() {
            self.is_write_blocked = true;
            let mut state = self.activity.lock();
            state.write_since.get_or_insert_with(Instant::now);
        } else if self.is_write_blocked {
            self.is_write_blocked = false;
            let mut state = self.activity.lock();
            (state.write_since, state.last) = (None, Instant::now());
        }
        result
    }
}

impl AsyncRead for WatchedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.first.has_remaining() {
            let count = this.first.len().min(buf.remaining());
            let part = this.first.split_to(count);
            buf.put_slice(&part);
            this.arrived(&part);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut this.io).poll_read(cx, buf);
        if result.is_ready() {
            this.arrived(buf.filled().get(before..).unwrap_or_default());
        }
        result
    }
}

impl AsyncWrite for WatchedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.written(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.written(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(cx);
        self.written(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let scanner = this.scanner.as_ref();
        if scanner.is_none_or(Scanner::is_between) {
            return Pin::new(&mut this.io).poll_shutdown(cx);
        }
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
        }
        let linger = this.linger.get_or_insert_with(|| Linger {
            timer: Box::pin(sleep_until(Instant::now() + LINGER_TIME)),
            left: LINGER_BYTES,
        });
        while linger.left > 0 && linger.timer.as_mut().poll(cx).is_pending() {
            let mut buffer = [0; 4096];
            let mut buffer = ReadBuf::new(&mut buffer);
            match ready!(Pin::new(&mut this.io).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    linger.left = linger.left.saturating_sub(buffer.filled().len());
                }
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
