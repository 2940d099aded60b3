//! One connection of a client: the detection of its protocol, TLS, and hyper, which serves requests
//! until the connection is idle.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
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
use iip_core::sniff::Protocol;
use iip_core::transport::{IoStream, read_first};
use tokio::time::timeout;

use crate::activity::Activity;
use crate::body::ReplyBody;
use crate::drain::Drain;
use crate::exchange::Peer;
use crate::io::{Verdict, Watch, WatchedIo};
use crate::limits::Limits;
use crate::listen::ListenOptions;
use crate::places::Place;
use crate::runtime::begin_request;
use crate::scan::Scanner;
use crate::service::{App, Service};

/// Size of the buffer of an HTTP/1 connection, unless the limit for heads is larger.
const BUFFER_BYTES: usize = 64 << 10;

/// The HTTP/2 windows for the bodies of requests, of a stream and of a connection.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 512 << 10;

/// The time without a frame after which an HTTP/2 client with open streams is pinged.
const PING_AFTER: Duration = Duration::from_secs(30);

/// A connection: its origin, the handler of its requests, and the limits that were in force when it
/// was accepted.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) peer: Peer,
    pub(crate) limits: Arc<Limits>,
    pub(crate) drain: Drain,
    pub(crate) app: App,
    /// Held until the connection ends. `None` if the connection is counted elsewhere.
    #[expect(dead_code, reason = "dropping it gives the place back")]
    pub(crate) place: Option<Place>,
}

/// The outcome of serving an HTTP/1 connection.
enum End {
    Closed,
    /// The connection is idle: contains its stream, and bytes that have arrived in the meantime.
    Parked(IoStream, Bytes),
}

/// Serves an accepted connection until it ends.
#[cfg_attr(
    not(feature = "tls"),
    expect(unused_mut, reason = "only a handshake of TLS changes the origin")
)]
pub(crate) async fn run(mut io: IoStream, mut origin: Origin, options: Arc<ListenOptions>) {
    let limit = origin.limits.first_byte_timeout;
    let Some((mut protocol, mut first)) = first_bytes(&mut io, Bytes::new(), &origin, limit).await
    else {
        return;
    };
    #[cfg(feature = "tls")]
    if let (Protocol::Tls, Some(tls)) = (protocol, &options.tls) {
        let handshake = Box::pin(encrypted(io.rewound(first), tls, &origin));
        let Some(stream) = handshake.await else {
            return;
        };
        (io, origin.peer.is_tls) = (stream, true);
        match first_bytes(&mut io, Bytes::new(), &origin, limit).await {
            Some(found) => (protocol, first) = found,
            None => return,
        }
    }
    if origin.peer.is_tls || options.accepts_plain() {
        serve(io, protocol, first, &origin).await;
    } else {
        log_stranger(protocol, &origin);
    }
}

/// Performs the TLS handshake.
#[cfg(feature = "tls")]
async fn encrypted(
    io: IoStream,
    tls: &iip_core::tls::ServerTls,
    origin: &Origin,
) -> Option<IoStream> {
    let mut drain = origin.drain.clone();
    tokio::select! {
        accepted = tls.accept_from(io, origin.peer.addr) => match accepted {
            Ok((stream, _)) => Some(stream),
            Err(error) => {
                tracing::debug!(%error, "a handshake of TLS failed");
                None
            }
        },
        () = drain.begun() => None,
    }
}

/// Serves requests until the connection ends. `first` was read from it before.
///
/// An idle connection consists only of this future. The memory of hyper is allocated once there is
/// a request, and released when there was none for a while.
pub(crate) async fn serve(
    mut io: IoStream,
    mut protocol: Protocol,
    mut first: Bytes,
    origin: &Origin,
) {
    let limits = &origin.limits;
    let idle = limits.idle_timeout - limits.park_after.min(limits.idle_timeout);
    loop {
        match protocol {
            Protocol::Http1 => match Box::pin(serve_http1(io, first, origin)).await {
                End::Closed => return,
                End::Parked(parked, rest) => {
                    io = parked;
                    match first_bytes(&mut io, rest, origin, idle).await {
                        Some(found) => (protocol, first) = found,
                        None => return,
                    }
                }
            },
            Protocol::Http2 => return Box::pin(serve_http2(io, first, origin)).await,
            other => return log_stranger(other, origin),
        }
    }
}

fn log_stranger(protocol: Protocol, origin: &Origin) {
    let peer = origin.peer.addr;
    tracing::debug!(?protocol, ?peer, "a client does not speak HTTP");
}

/// Waits until the bytes after `arrived` identify the protocol. `None` if they do not arrive in
/// time, or the connection must end.
async fn first_bytes(
    io: &mut IoStream,
    arrived: Bytes,
    origin: &Origin,
    limit: Duration,
) -> Option<(Protocol, Bytes)> {
    let mut drain = origin.drain.clone();
    tokio::select! {
        found = timeout(limit, read_first(io, arrived)) => found.ok()?.ok()?,
        () = drain.begun() => None,
    }
}

async fn serve_http1(io: IoStream, first: Bytes, origin: &Origin) -> End {
    let limits = &origin.limits;
    let activity = Arc::new(Activity::new());
    let mut watch = Watch::new(limits, true, Arc::clone(&activity));
    let scanner = Scanner::new(limits.max_head_bytes);
    let io = WatchedIo::new(io, first, Some(scanner), Arc::clone(&activity));
    let service = requests(origin, activity);
    let connection = http1::Builder::new()
        .half_close(false)
        .header_read_timeout(None)
        .max_headers(limits.max_headers)
        .max_header_size(limits.max_head_bytes)
        .max_buf_size(limits.max_head_bytes.max(BUFFER_BYTES))
        .serve_connection(TokioIo::new(io), service);
    let mut connection = Some(connection);
    let mut signal = Signal::new(&origin.drain);
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

async fn serve_http2(io: IoStream, first: Bytes, origin: &Origin) {
    let limits = &origin.limits;
    let activity = Arc::new(Activity::new());
    let mut watch = Watch::new(limits, false, Arc::clone(&activity));
    let io = WatchedIo::new(io, first, None, Arc::clone(&activity));
    let service = requests(origin, activity);
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
    let mut signal = Signal::new(&origin.drain);
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
        tracing::debug!(reason, peer = ?origin.peer.addr, "a connection of a client was closed");
    }
}

fn log_end(error: &hyper::Error, origin: &Origin) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::debug!(%error, cause, peer = ?origin.peer.addr, "a connection of a client failed");
}

/// Returns the service of a connection for hyper.
fn requests(
    origin: &Origin,
    activity: Arc<Activity>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<ReplyBody>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<ReplyBody>, Infallible>> + Send + use<>,
> + use<> {
    let max_resets = origin.limits.max_resets;
    let service = Arc::new(Service::new(origin.peer, origin.app.clone()));
    service_fn(move |request| {
        begin_request();
        let (running, fault) = activity.begin(max_resets);
        let service = Arc::clone(&service);
        async move { Ok(service.handle(running, fault, request).await) }
    })
}

/// A request to a connection to end.
enum Order {
    Drain,
    Close,
}

/// The requests to end for one connection. It is polled with the connection, but costs almost
/// nothing until the connection must end.
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
