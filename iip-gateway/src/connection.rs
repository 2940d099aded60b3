//! One connection of a client: the detection of its protocol, TLS, and hyper, which serves requests
//! until the connection is idle.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use iip_core::transport::IoStream;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::accept::Place;
use crate::body::ReplyBody;
use crate::drain::Drain;
use crate::gateway::{Config, Worker};
#[cfg(feature = "tls")]
use crate::handshake;
use crate::io::{Activity, Verdict, Watch, WatchedIo};
use crate::listen::ListenOptions;
use crate::scan::Scanner;
use crate::service::{self, Peer};
use crate::sniff::{self, Protocol};

/// The buffer of a connection of HTTP/1, if the limit of heads is not larger.
const BUFFER_BYTES: usize = 64 << 10;

/// The windows of HTTP/2 for the bodies of requests: of a stream, and of a connection.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 512 << 10;

/// The time without a frame after which a client of HTTP/2 with open streams is asked for a sign
/// of life.
const PING_AFTER: Duration = Duration::from_secs(30);

/// Where a connection comes from, and the limits that were in force when it was accepted.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) is_trusted: bool,
    pub(crate) is_tls: bool,
    pub(crate) config: Arc<Config>,
    /// Held until the connection ends.
    #[expect(dead_code, reason = "dropping it gives the place back")]
    pub(crate) place: Place,
}

/// How a connection of HTTP/1 has ended.
enum End {
    Closed,
    /// It is idle: the stream, and bytes that have arrived in the meantime.
    Parked(IoStream, Bytes),
}

/// Serves a connection until it ends.
///
/// A connection that waits for its first byte has only this future. What hyper needs is allocated
/// once there is a request, and released when there was none for a while.
#[cfg_attr(
    not(feature = "tls"),
    expect(unused_mut, reason = "only a handshake of TLS changes the origin")
)]
pub(crate) async fn run(
    mut io: IoStream,
    mut origin: Origin,
    options: Arc<ListenOptions>,
    worker: Arc<Worker>,
) {
    let limits = &origin.config.limits;
    let mut drain = worker.drain.clone();
    let (mut limit, idle) = (
        limits.first_byte_timeout,
        limits.idle_timeout - limits.park_after.min(limits.idle_timeout),
    );
    let mut arrived = Bytes::new();
    loop {
        let detected = first_bytes(&mut io, arrived, &mut drain, limit).await;
        let Some((protocol, first)) = detected else {
            return;
        };
        let accepts_http = origin.is_tls || options.accepts_plain();
        match protocol {
            Protocol::Http1 if accepts_http => {
                match Box::pin(serve_http1(io, first, &origin, &worker)).await {
                    End::Closed => return,
                    End::Parked(parked, rest) => (io, arrived) = (parked, rest),
                }
                limit = idle;
            }
            Protocol::Http2 if accepts_http => {
                return Box::pin(serve_http2(io, first, &origin, &worker)).await;
            }
            #[cfg(feature = "tls")]
            Protocol::Tls if !origin.is_tls && options.tls.is_some() => {
                match Box::pin(handshake::encrypted(io, first, &options, &worker)).await {
                    Some(stream) => io = stream,
                    None => return,
                }
                (origin.is_tls, arrived) = (true, Bytes::new());
            }
            other => {
                let peer = origin.peer;
                tracing::debug!(protocol = ?other, ?peer, "a client does not speak HTTP");
                return;
            }
        }
    }
}

/// Waits for the bytes that tell the protocol. `None` if none arrived in time, or the gateway
/// shuts down.
async fn first_bytes(
    io: &mut IoStream,
    arrived: Bytes,
    drain: &mut Drain,
    limit: Duration,
) -> Option<(Protocol, Bytes)> {
    if let Some(protocol) = sniff::detect(&arrived) {
        return Some((protocol, arrived));
    }
    let mut buffer = [0; sniff::MAX_BYTES];
    let mut length = arrived.len().min(buffer.len());
    buffer
        .get_mut(..length)?
        .copy_from_slice(arrived.get(..length)?);
    let reading = async {
        loop {
            let count = io.read(buffer.get_mut(length..)?).await.ok()?;
            length += count;
            match sniff::detect(buffer.get(..length)?) {
                _ if count == 0 => return None,
                Some(protocol) => return Some(protocol),
                None => {}
            }
        }
    };
    let protocol = tokio::select! {
        protocol = timeout(limit, reading) => protocol.ok()??,
        () = drain.begun() => return None,
    };
    Some((protocol, Bytes::copy_from_slice(buffer.get(..length)?)))
}

async fn serve_http1(io: IoStream, first: Bytes, origin: &Origin, worker: &Arc<Worker>) -> End {
    let limits = &origin.config.limits;
    let activity = Arc::new(Activity::new());
    let mut watch = Watch::new(limits, true, Arc::clone(&activity));
    let scanner = Scanner::new(limits.max_head_bytes);
    let io = WatchedIo::new(io, first, Some(scanner), Arc::clone(&activity));
    let service = requests(Peer::new(origin, worker), activity, limits.max_resets);
    let connection = http1::Builder::new()
        .half_close(false)
        .header_read_timeout(None)
        .max_headers(limits.max_headers)
        .max_header_size(limits.max_head_bytes)
        .max_buf_size(limits.max_head_bytes.max(BUFFER_BYTES))
        .serve_connection(TokioIo::new(io), service);
    let mut connection = Some(connection);
    let mut signal = Signal::new(&worker.drain);
    let parks = poll_fn(|cx| {
        let Some(running) = &mut connection else {
            return Poll::Ready(false);
        };
        match signal.poll(cx) {
            Some(Order::Drain) => Pin::new(&mut *running).graceful_shutdown(),
            Some(Order::Close) => return Poll::Ready(false),
            None => {}
        }
        match Pin::new(running).poll(cx) {
            Poll::Pending => {
                let verdict = watch
                    .poll(cx)
                    .inspect(|verdict| log_verdict(*verdict, origin));
                verdict.map_or(Poll::Pending, |verdict| {
                    Poll::Ready(verdict == Verdict::Park)
                })
            }
            Poll::Ready(result) => {
                result.unwrap_or_else(|error| log_end(&error, origin));
                Poll::Ready(false)
            }
        }
    });
    match (parks.await, connection) {
        (true, Some(connection)) => {
            let parts = connection.into_parts();
            End::Parked(parts.io.into_inner().into_inner(), parts.read_buf)
        }
        _ => End::Closed,
    }
}

async fn serve_http2(io: IoStream, first: Bytes, origin: &Origin, worker: &Arc<Worker>) {
    let limits = &origin.config.limits;
    let activity = Arc::new(Activity::new());
    let mut watch = Watch::new(limits, false, Arc::clone(&activity));
    let io = WatchedIo::new(io, first, None, Arc::clone(&activity));
    let service = requests(Peer::new(origin, worker), activity, limits.max_resets);
    let max_head = u32::try_from(limits.max_head_bytes).unwrap_or(u32::MAX);
    let mut connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_streams)
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(limits.write_timeout)
        .max_header_list_size(max_head)
        .max_local_error_reset_streams(64)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(io), service);
    let mut signal = Signal::new(&worker.drain);
    let ended = poll_fn(|cx| {
        match signal.poll(cx) {
            Some(Order::Drain) => Pin::new(&mut connection).graceful_shutdown(),
            Some(Order::Close) => return Poll::Ready(()),
            None => {}
        }
        match Pin::new(&mut connection).poll(cx) {
            Poll::Pending => match watch.poll(cx) {
                Some(verdict) => {
                    log_verdict(verdict, origin);
                    Poll::Ready(())
                }
                None => Poll::Pending,
            },
            Poll::Ready(Ok(())) => Poll::Ready(()),
            Poll::Ready(Err(error)) => {
                log_end(&error, origin);
                Poll::Ready(())
            }
        }
    });
    ended.await;
}

fn log_verdict(verdict: Verdict, origin: &Origin) {
    if let Verdict::End(reason) = verdict {
        tracing::debug!(reason, peer = ?origin.peer, "a connection of a client was closed");
    }
}

fn log_end(error: &hyper::Error, origin: &Origin) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::debug!(%error, cause, peer = ?origin.peer, "a connection of a client failed");
}

/// The service of a connection for hyper.
fn requests(
    peer: Arc<Peer>,
    activity: Arc<Activity>,
    max_resets: u64,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<ReplyBody>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<ReplyBody>, Infallible>> + Send,
> {
    service_fn(move |request| {
        let (running, fault) = activity.begin(max_resets);
        let peer = Arc::clone(&peer);
        async move { Ok(service::handle(peer, running, fault, request).await) }
    })
}

/// What a connection must do because the gateway shuts down.
enum Order {
    Drain,
    Close,
}

/// The orders for one connection. It is polled with the connection, but costs almost nothing until
/// the gateway shuts down.
struct Signal {
    drain: Drain,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    is_draining: bool,
}

impl Signal {
    fn new(drain: &Drain) -> Self {
        Self {
            drain: drain.clone(),
            waiting: None,
            is_draining: false,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Option<Order> {
        // The task has one waker, so a future that was polled need not be polled at each wake-up.
        if self.waiting.is_some() && !self.is_draining && !self.drain.has_begun() {
            return None;
        }
        let waiting = self
            .waiting
            .get_or_insert_with(|| self.drain.clone().into_begun());
        if waiting.as_mut().poll(cx).is_pending() {
            return None;
        }
        if self.is_draining {
            return Some(Order::Close);
        }
        self.is_draining = true;
        let mut drain = self.drain.clone();
        let mut closing: Pin<Box<dyn Future<Output = ()> + Send>> =
            Box::pin(async move { drain.closing().await });
        let is_over = closing.as_mut().poll(cx).is_ready();
        self.waiting = Some(closing);
        Some(if is_over { Order::Close } else { Order::Drain })
    }
}
