//! The calls of a server: from a request to its handler, and from the handler to the reply. The
//! state of a call that is under way is in `running.rs`.
//!
//! Only [`Dispatcher::run_call`] decides where a handler runs.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::body::Body;
use crate::cancel::{CancelToken, OnCancel};
use crate::clock;
use crate::connection::running::Running;
use crate::connection::{RunningCall, Shared};
use crate::decoder::SHARE_MIN_BYTES;
use crate::frame::ChannelId;
use crate::handler::{Handler, HandlerFuture, Request, RequestMode, Response, ResponseKind};
use crate::handler_error::{HandlerError, RejectReason};
use crate::proto::{RequestPath, ServerEvent, control, detach, is_one_way, kept_bytes};
use crate::stats::{INTERNAL, OK, RecentCall, UNIMPLEMENTED, may_be_slow};
use crate::totals::{Counted, Places, Share};

/// Number of waiting handlers of a connection from which requests of up to 16 KiB are copied.
/// Otherwise each further waiting request would keep the whole buffer that it was read into.
const FEW_WAITING: usize = 16;

/// The state shared by all connections of a server.
pub(crate) struct Routes {
    pub(crate) handlers: HashMap<Box<[u8]>, Arc<dyn Handler>>,
    pub(crate) fallback: Option<Arc<dyn Handler>>,
    pub(crate) shutting_down: AtomicBool,
}

impl Routes {
    fn find(&self, path: &Arc<RequestPath>) -> Option<Route> {
        let fallback = || {
            // Handlers get the path as text; the paths of routes are text already.
            let is_text = std::str::from_utf8(&path.label).is_ok();
            self.fallback.as_ref().filter(|_| is_text)
        };
        let handler = self.handlers.get(&path.label[..]).or_else(fallback)?;
        Some(Route {
            path: Arc::clone(path),
            handler: Arc::clone(handler),
            policy: handler.on_cancel(),
            request_mode: handler.request_mode(),
            places: handler.places().cloned(),
        })
    }

    #[inline]
    fn reject_reason(&self, shared: &Shared) -> Option<RejectReason> {
        if self.shutting_down.load(Ordering::Relaxed) {
            return Some(RejectReason::ShuttingDown);
        }
        shared.share.as_ref().and_then(Share::reject_reason)
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes")
            .field("handlers", &self.handlers.len())
            .finish_non_exhaustive()
    }
}

/// The dispatcher that runs the handlers of one connection.
pub(crate) struct Dispatcher {
    routes: Arc<Routes>,
    serial: u64,
    last: Option<Route>,
    /// The waiting time of the last request, with the two times it was computed from: requests of
    /// one batch have waited equally long.
    waited: Option<(Instant, Instant, Duration)>,
}

/// A path with its handler and the handler's settings.
struct Route {
    path: Arc<RequestPath>,
    handler: Arc<dyn Handler>,
    policy: OnCancel,
    request_mode: RequestMode,
    /// The separate counter of the handler's running calls, if it has one.
    places: Option<Arc<Places>>,
}

impl Route {
    /// Returns the reason to reject a call of this kind, if there is one. `reason` is that of the
    /// server for any call.
    #[inline]
    fn reject_reason(
        &self,
        shared: &Shared,
        kind: Kind,
        reason: Option<RejectReason>,
    ) -> Option<RejectReason> {
        // A handler with places of its own is limited by them alone, but not run during a shutdown.
        let reason = match &self.places {
            None => reason,
            Some(places) => reason
                .filter(|reason| *reason == RejectReason::ShuttingDown)
                .or_else(|| places.reject_reason()),
        };
        reason.or_else(|| match kind {
            Kind::Stream { .. } if self.request_mode != RequestMode::Stream => {
                Some(RejectReason::NoStream)
            }
            Kind::Stream { is_busy: true } => {
                let limit = shared.lock().proto.limits().get_max_calls();
                Some(RejectReason::ConnectionBusy { limit })
            }
            _ => None,
        })
    }

    /// Returns the way a call counts among the running ones, and the way it counts once its handler
    /// has started, if that is later.
    #[inline]
    fn counted(&self, kind: Kind) -> (Counted, Option<Counted>) {
        let counted = match &self.places {
            Some(places) => Counted::Apart(Arc::clone(places)),
            None => Counted::Now,
        };
        if matches!(kind, Kind::Stream { .. }) && self.handler.starts_late() {
            (Counted::Late, Some(counted))
        } else {
            (counted, None)
        }
    }
}

/// A request that is being dispatched to its handler.
struct IncomingCall {
    channel: ChannelId,
    path: Arc<RequestPath>,
    body: Bytes,
    /// The time at which the request had arrived.
    received_at: Instant,
    kind: Kind,
}

/// The time at which a request had arrived, and how long it waited for its turn.
#[derive(Clone, Copy)]
struct Received {
    at: Instant,
    waited: Duration,
}

impl Received {
    /// Returns `true` if a call that ends now may be slow.
    fn may_be_slow(self) -> bool {
        may_be_slow(clock::now().saturating_duration_since(self.at))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Whole,
    /// More parts follow.
    Parts,
    /// A stream in each direction; `is_busy` if the server or connection is at capacity.
    Stream {
        is_busy: bool,
    },
}

impl Dispatcher {
    pub(crate) fn new(routes: Arc<Routes>) -> Self {
        Self {
            routes,
            serial: 0,
            last: None,
            waited: None,
        }
    }

    /// Returns the time that a request has waited for its turn. Most requests are part of the
    /// current batch and have not waited.
    #[inline]
    fn waited(&mut self, received_at: Instant, now: Instant) -> Duration {
        if received_at == now {
            return Duration::ZERO;
        }
        match self.waited {
            Some((from, to, waited)) if from == received_at && to == now => waited,
            _ => {
                let waited = now.saturating_duration_since(received_at);
                self.waited = Some((received_at, now, waited));
                waited
            }
        }
    }

    /// Returns the route of a path. Requests of a connection mostly repeat the previous path.
    #[inline]
    fn route(&mut self, path: &Arc<RequestPath>) -> Option<&Route> {
        // The last route keeps its path alive, so the same address means the same path.
        let known = |last: &Route| Arc::ptr_eq(&last.path, path);
        if !self.last.as_ref().is_some_and(known) {
            self.last = Some(self.routes.find(path)?);
        }
        self.last.as_ref()
    }

    /// Handles one event, outside the lock. Returns the reply if it is ready at once; `wakers`
    /// receives those of handlers that read a stream.
    pub(crate) fn on_event(
        &mut self,
        cx: &mut Context<'_>,
        shared: &Arc<Shared>,
        event: ServerEvent,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) -> Option<(ChannelId, Body)> {
        match event {
            ServerEvent::Request {
                channel,
                path,
                body,
                received_at,
            } => {
                let incoming = IncomingCall {
                    channel,
                    path,
                    body,
                    kind: Kind::Whole,
                    received_at,
                };
                self.run_call(cx, shared, incoming, now)
                    .map(|reply| (channel, reply))
            }
            ServerEvent::RequestBegun { channel, path } => {
                let route = self.route(&path);
                let in_parts = route.is_some_and(|route| route.request_mode == RequestMode::Parts);
                // Otherwise the request is an event of its own when it is complete.
                if !in_parts || !shared.lock().proto.stream_request(channel) {
                    return None;
                }
                let incoming = IncomingCall {
                    channel,
                    path,
                    body: Bytes::new(),
                    kind: Kind::Parts,
                    received_at: now,
                };
                self.run_call(cx, shared, incoming, now)
                    .map(|reply| (channel, reply))
            }
            ServerEvent::StreamBegun {
                channel,
                path,
                is_busy,
            } => {
                let incoming = IncomingCall {
                    channel,
                    path,
                    body: Bytes::new(),
                    kind: Kind::Stream { is_busy },
                    received_at: now,
                };
                self.run_call(cx, shared, incoming, now)
                    .map(|reply| (channel, reply))
            }
            ServerEvent::Stream { channel, frame } => {
                shared.lock().on_stream_frame(channel, frame, wakers);
                None
            }
            ServerEvent::RequestPart {
                channel,
                body,
                ends,
            } => {
                shared.command(|state| {
                    // A handler that has ended, or whose caller has gone, takes no further parts.
                    let Some(queue) = state
                        .running
                        .get_mut(&channel)
                        .and_then(|running| running.parts.as_mut())
                    else {
                        return;
                    };
                    state.proto.buffer(body.len());
                    queue.parts.push(body);
                    queue.ended = ends;
                    state.proto.deferred.wake(queue.waker.take());
                });
                None
            }
            ServerEvent::RequestTooLarge {
                channel,
                path,
                size,
            } => {
                let limit = shared.lock().proto.limits().get_max_message_bytes();
                let reason = RejectReason::TooLarge { size, limit };
                shared.count_failure(channel, reason.status_code());
                if is_one_way(channel) {
                    on_lost(shared, &path, &reason);
                }
                let reply = match self.route(&path) {
                    Some(route) => {
                        // The data was not kept, so the tag is that of a request without data.
                        let tag = route.handler.tag(&Bytes::new());
                        route.handler.reject(&reason, tag)
                    }
                    None => control::handler_failure(&reason.to_string()).into(),
                };
                Some((channel, reply))
            }
            ServerEvent::Cancelled { channel } => {
                shared.lock().on_cancelled(channel);
                None
            }
            ServerEvent::PeerHello(hello) => {
                shared.peer.set_hello(Some(hello));
                None
            }
        }
    }

    /// Starts a handler: polls it once here, and moves it to its own task if it has to wait.
    fn run_call(
        &mut self,
        cx: &mut Context<'_>,
        shared: &Arc<Shared>,
        incoming: IncomingCall,
        now: Instant,
    ) -> Option<Body> {
        self.serial += 1;
        let (serial, channel) = (self.serial, incoming.channel);
        let received = Received {
            at: incoming.received_at,
            waited: self.waited(incoming.received_at, now),
        };
        let one_way = is_one_way(channel);
        // The caller of a one-way call would not learn that it was rejected. Calls that have
        // arrived are therefore run, even while the server shuts down.
        let reason = self
            .routes
            .reject_reason(shared)
            .filter(|reason| match reason {
                RejectReason::ShuttingDown => !one_way,
                // Health checks must distinguish a busy server from a dead one.
                _ => !incoming.path.is_own_service(),
            });
        let Some(route) = self.route(&incoming.path) else {
            if one_way {
                on_lost(shared, &incoming.path, &"no handler has this path");
            }
            shared.count_failure(channel, UNIMPLEMENTED);
            return Some(control::NO_HANDLER.into());
        };
        let (handler, policy, request_mode) = (&route.handler, route.policy, route.request_mode);
        let tag = handler.tag(&incoming.body);
        let waiting = shared.share.as_ref().map_or(0, Share::running);
        let reason = route.reject_reason(shared, incoming.kind, reason);
        if let Some(reason) = reason {
            if one_way {
                on_lost(shared, &incoming.path, &reason);
            }
            shared.count_failure(channel, reason.status_code());
            return Some(handler.reject(&reason, tag));
        }
        let cancel = (policy == OnCancel::Token).then(CancelToken::new);
        let size = incoming.body.len();
        let mut body = incoming.body;
        if size >= SHARE_MIN_BYTES && waiting >= FEW_WAITING {
            body = detach(body);
        }
        let (counted, counts_at_start) = route.counted(incoming.kind);
        let mut request = Request {
            path: incoming.path,
            body,
            shared: Arc::clone(shared),
            received_at: received.at,
            waited: received.waited,
            one_way,
            cancel: cancel.clone(),
            streams: None,
        };
        let running = Running::new(serial, policy, cancel.clone());
        let streams = match (incoming.kind, request_mode) {
            (Kind::Stream { .. }, _) => {
                request.add_stream(shared, channel, running, counts_at_start);
                true
            }
            (kind, RequestMode::Parts) => {
                request.add_parts(shared, channel, running, kind == Kind::Whole);
                true
            }
            _ => false,
        };
        let mut future = CatchPanic(None);
        let first = future.poll_with(|future| {
            let future = future.insert(handler.call(request));
            future.as_mut().poll(cx)
        });
        match first {
            Poll::Ready(Ok(result)) => {
                on_failed(shared, &route.path, &result, one_way);
                let code = code_of(&result);
                if code != OK {
                    record(shared, &**handler, &route.path, received, &result);
                }
                // For a handler with streams, the entry in the table prevents a second reply.
                let reply =
                    reply_of(result).filter(|_| !streams || shared.lock().leave(channel, serial));
                if code != OK && reply.is_some() {
                    shared.count_failure(channel, code);
                }
                reply
            }
            Poll::Pending => {
                // A handler with parts or a stream has its entry already, and this one is not used.
                let running = Running::new(serial, policy, cancel);
                let waiting = SuspendedHandler {
                    handler: Arc::clone(handler),
                    path: Arc::clone(&route.path),
                    received,
                    tag,
                    future,
                    counted,
                    // Small requests are not counted: their number is limited by that of the
                    // handlers.
                    bytes: if size < SHARE_MIN_BYTES {
                        0
                    } else {
                        kept_bytes(size)
                    },
                };
                spawn(shared, channel, running, waiting, streams);
                None
            }
            Poll::Ready(Err(panic)) => {
                if streams {
                    shared.lock().forget(channel);
                }
                shared.count_failure(channel, INTERNAL);
                let path = &route.path;
                Some(on_panic(shared, &**handler, path, received, panic, tag))
            }
        }
    }
}

/// Moves a handler that has to wait to its own task.
fn spawn(
    shared: &Arc<Shared>,
    channel: ChannelId,
    running: Running,
    waiting: SuspendedHandler,
    streams: bool,
) {
    let SuspendedHandler {
        handler,
        path,
        received,
        tag,
        future,
        counted,
        bytes,
    } = waiting;
    let connection = Arc::clone(shared);
    let (serial, policy) = (running.serial, running.policy);
    // The entry must exist before the task can end. A handler that streams has its own entry
    // already, and may have replied.
    let mut state = shared.lock();
    let is_over = streams && !state.is_running(channel, serial);
    if !streams {
        state.proto.count_begin(channel);
        state.running.insert(channel, running);
    }
    // The guard below releases these bytes.
    state.proto.hold(bytes);
    drop(state);
    let run = HandlerTask {
        future,
        _running: RunningCall::new(Arc::clone(shared), counted, bytes),
    };
    // This must not run under the lock: a runtime that is shutting down drops the handler here.
    let task = tokio::spawn(async move {
        let result = run.await;
        if let Ok(result) = &result {
            on_failed(&connection, &path, result, is_one_way(channel));
            if code_of(result) != OK || received.may_be_slow() {
                record(&connection, &*handler, &path, received, result);
            }
        }
        let (code, body) = match result {
            Ok(result) => (code_of(&result), reply_of(result)),
            Err(panic) => {
                let body = on_panic(&connection, &*handler, &path, received, panic, tag);
                (INTERNAL, Some(body))
            }
        };
        if let Some(body) = body {
            send_reply(&connection, channel, serial, (code, body), &*handler, tag);
        }
    });
    let task = task.abort_handle();
    let mut state = shared.lock();
    let running = state.running.get_mut(&channel);
    match running.filter(|running| running.serial == serial) {
        // From now on a cancellation can abort the task.
        Some(running) => running.task = Some(task),
        // The call was cancelled, or has ended, in the meantime.
        None if policy == OnCancel::Abort && !is_over => task.abort(),
        None => {}
    }
}

/// Sends the reply of a handler that had to wait, or the reason why it was dropped: the replies of
/// all running calls could take many times the memory allowed for a caller that does not read.
fn send_reply(
    shared: &Shared,
    channel: ChannelId,
    serial: u64,
    (code, mut body): (u8, Body),
    handler: &dyn Handler,
    tag: bool,
) {
    let reason = shared.command(|state| {
        let reason = state.reason_to_drop(body.len());
        if reason.is_none() {
            state.end_with(channel, serial, code, &mut body);
        }
        reason
    });
    if let Some(reason) = reason {
        let refused = AssertUnwindSafe(|| handler.reject(&reason, tag));
        // The reply itself is dropped here, without the lock.
        body = catch_unwind(refused).unwrap_or_else(|panic| {
            dispose(panic);
            control::NO_RESPONSE.into()
        });
        let code = reason.status_code();
        shared.command(|state| state.end_with(channel, serial, code, &mut body));
    }
}

/// A handler that was polled once and has to wait.
struct SuspendedHandler {
    handler: Arc<dyn Handler>,
    path: Arc<RequestPath>,
    received: Received,
    tag: bool,
    future: CatchPanic,
    counted: Counted,
    /// Number of bytes of the request that the handler holds.
    bytes: usize,
}

/// A handler in its own task. The order matters: fields are dropped in the order of their
/// declaration, so that the handler is gone when it no longer counts.
struct HandlerTask {
    future: CatchPanic,
    _running: RunningCall,
}

impl Future for HandlerTask {
    type Output = <CatchPanic as Future>::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.future).poll(cx)
    }
}

/// Returns the number of the status code that a call counts with.
#[inline]
fn code_of(result: &Result<Response, HandlerError>) -> u8 {
    match result {
        Ok(response) => response.code,
        Err(error) => error.status_code(),
    }
}

/// Returns the bytes of a reply; `None` if it was or will be sent in parts.
fn reply_of(result: Result<Response, HandlerError>) -> Option<Body> {
    match result.map(|response| response.kind) {
        Ok(ResponseKind::Whole(body)) => Some(control::or_no_response(body)),
        Ok(ResponseKind::Streamed) => None,
        Err(error) => Some(control::handler_failure(&error.to_string()).into()),
    }
}

/// Logs that a one-way call was not run, or has failed: its caller gets no reply.
#[cold]
fn on_lost(shared: &Shared, path: &RequestPath, why: &dyn fmt::Display) {
    if let Some(logs) = shared.peer.logs() {
        logs.one_way(shared.peer.addr(), &path.label, why);
    }
}

#[inline]
fn on_failed(
    shared: &Shared,
    path: &RequestPath,
    result: &Result<Response, HandlerError>,
    one_way: bool,
) {
    let Err(error) = result else { return };
    if one_way {
        on_lost(shared, path, error);
    } else if !error.is_logged() {
        let path = String::from_utf8_lossy(&path.label);
        shared.peer.log_failure(&path, error, false);
    }
}

/// Records a call that has failed, or may be slow, unless its handler does.
#[cold]
fn record(
    shared: &Shared,
    handler: &dyn Handler,
    path: &RequestPath,
    received: Received,
    result: &Result<Response, HandlerError>,
) {
    if handler.records_calls() {
        return;
    }
    let text = result.as_ref().err().map(HandlerError::to_string);
    record_call(
        shared,
        path,
        received,
        code_of(result),
        text.unwrap_or_default(),
    );
}

fn record_call(shared: &Shared, path: &RequestPath, received: Received, code: u8, message: String) {
    let path = String::from_utf8_lossy(&path.label);
    let mut call = RecentCall::at_server(&path, code, received.at, received.waited);
    call.message = message;
    shared.peer.record_call(call);
}

fn on_panic(
    shared: &Shared,
    handler: &dyn Handler,
    path: &RequestPath,
    received: Received,
    panic: Box<dyn Any + Send>,
    tag: bool,
) -> Body {
    if let Some(logs) = shared.peer.logs() {
        logs.panic(shared.peer.addr(), &path.label, &*panic);
    }
    dispose(panic);
    record_call(
        shared,
        path,
        received,
        INTERNAL,
        "the handler panicked".to_owned(),
    );
    catch_unwind(AssertUnwindSafe(|| handler.on_panic(tag))).unwrap_or_else(|panic| {
        dispose(panic);
        control::NO_RESPONSE.into()
    })
}

/// Drops the payload of a panic. It is a user's value whose drop may panic, too, as may the drop of
/// the payload of that panic.
fn dispose(panic: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
}

/// A handler's future, whose panics are its output, including one while it is dropped.
///
/// It owns the future while it is polled, so a panic does not drop the future at once: a second
/// panic during that would abort the process.
struct CatchPanic(Option<HandlerFuture>);

type Caught = Result<Result<Response, HandlerError>, Box<dyn Any + Send>>;

impl Future for CatchPanic {
    type Output = Caught;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Caught> {
        self.poll_with(|future| match future {
            Some(future) => future.as_mut().poll(cx),
            // It has ended before, and is not polled again.
            None => Poll::Pending,
        })
    }
}

impl CatchPanic {
    #[inline]
    fn poll_with(
        &mut self,
        poll: impl FnOnce(&mut Option<HandlerFuture>) -> Poll<Result<Response, HandlerError>>,
    ) -> Poll<Caught> {
        // After a panic the future is only dropped, so nobody sees it half changed.
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let result = ready!(poll(&mut self.0));
            // Dropped here, so that a panic of its drop is caught as well.
            self.0 = None;
            Poll::Ready(result)
        }));
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(panic) => {
                self.discard();
                Poll::Ready(Err(panic))
            }
        }
    }

    /// Drops the remains of a handler that has panicked, or is given up.
    fn discard(&mut self) {
        let Some(future) = self.0.take() else { return };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(future))) {
            dispose(panic);
        }
    }
}

impl Drop for CatchPanic {
    fn drop(&mut self) {
        self.discard();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::handler::handler_fn;
    use crate::totals::Totals;

    /// Records, when it is dropped, the number of handlers that its connection counts.
    struct CountedAtDrop(Arc<Shared>, Arc<AtomicUsize>);

    impl Drop for CountedAtDrop {
        fn drop(&mut self) {
            let counted = self.0.share.as_ref().map_or(0, Share::running);
            self.1.store(counted, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_handler_whose_task_is_aborted_before_it_runs_is_counted_until_it_is_dropped() {
        const NEVER: usize = usize::MAX;
        let share = Share::new(&Totals::new(1, 0), None);
        let shared = Shared::of_server(Some(share));
        let seen = Arc::new(AtomicUsize::new(NEVER));
        let held = CountedAtDrop(Arc::clone(&shared), Arc::clone(&seen));
        let waiting = SuspendedHandler {
            handler: Arc::new(handler_fn(|_: Request| async {
                Err::<Response, _>(HandlerError::new("not called"))
            })),
            path: Arc::default(),
            received: Received {
                at: clock::now(),
                waited: Duration::ZERO,
            },
            tag: false,
            future: CatchPanic(Some(Box::pin(async move {
                let _held = held;
                std::future::pending().await
            }))),
            counted: Counted::Now,
            bytes: 0,
        };
        let running = Running::new(1, OnCancel::Abort, None);
        spawn(&shared, ChannelId(1), running, waiting, false);
        // On this runtime the task runs only when this one waits, so it is aborted before its first
        // poll.
        shared.lock().on_cancelled(ChannelId(1));
        while seen.load(Ordering::Relaxed) == NEVER {
            tokio::task::yield_now().await;
        }
        assert_eq!(seen.load(Ordering::Relaxed), 1, "while it was dropped");
        while shared.share.as_ref().map_or(0, Share::running) != 0 {
            tokio::task::yield_now().await;
        }
    }
}
