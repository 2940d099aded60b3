//! The start of a handler: its request, its first poll, and the three ways in which that can end.

use std::any::Any;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::catch_panic::CatchPanic;
use super::incoming::{IncomingCall, Kind, Received};
use super::outcome::{code_of, on_failed, on_panic, record, reply_of};
use super::routes::Route;
use super::task::{SuspendedHandler, spawn};
use crate::body::Body;
use crate::cancel::{CancelToken, OnCancel};
use crate::connection::Shared;
use crate::connection::running::Running;
use crate::decoder::SHARE_MIN_BYTES;
use crate::frame::ChannelId;
use crate::handler::{Request, RequestMode, Response};
use crate::handler_error::HandlerError;
use crate::proto::{detach, is_one_way, kept_bytes};
use crate::stats::{INTERNAL, OK};
use crate::totals::{Counted, Share};

/// Number of waiting handlers of a connection from which requests of up to 16 KiB are copied.
/// Otherwise each further waiting request would keep the whole buffer that it was read into.
const FEW_WAITING: usize = 16;

/// Polls the handler of a call once, and moves it to its own task if it has to wait. Returns the
/// reply if it is ready at once.
#[inline]
pub(super) fn start(
    cx: &mut Context<'_>,
    shared: &Arc<Shared>,
    route: &Route,
    incoming: IncomingCall,
    tag: bool,
) -> Option<Body> {
    let IncomingCall {
        serial,
        channel,
        path,
        body,
        kind,
        received,
    } = incoming;
    let cancel = (route.policy == OnCancel::Token).then(CancelToken::new);
    let size = body.len();
    let (counted, counts_at_start) = route.counted(kind);
    let mut request = Request {
        path,
        body: kept_body(shared, body),
        shared: Arc::clone(shared),
        received_at: received.at,
        waited: received.waited,
        one_way: is_one_way(channel),
        cancel: cancel.clone(),
        streams: None,
    };
    let running = Running::new(serial, route.policy, cancel.clone());
    let streams = match (kind, route.request_mode) {
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
        let future = future.insert(route.handler.call(request));
        future.as_mut().poll(cx)
    });
    let started = StartedCall {
        shared,
        route,
        serial,
        channel,
        received,
        tag,
        streams,
    };
    match first {
        Poll::Ready(Ok(result)) => started.ended(result),
        Poll::Ready(Err(panic)) => Some(started.panicked(panic)),
        Poll::Pending => {
            started.suspended(future, cancel, counted, size);
            None
        }
    }
}

/// Returns the body of a request as its handler keeps it.
#[inline]
fn kept_body(shared: &Shared, body: Bytes) -> Bytes {
    let waiting = || shared.share.as_ref().map_or(0, Share::running);
    if body.len() >= SHARE_MIN_BYTES && waiting() >= FEW_WAITING {
        detach(body)
    } else {
        body
    }
}

/// A call whose handler was polled once.
struct StartedCall<'a> {
    shared: &'a Arc<Shared>,
    route: &'a Route,
    serial: u64,
    channel: ChannelId,
    received: Received,
    tag: bool,
    /// The handler takes parts or streams, and has its entry among the running ones already.
    streams: bool,
}

impl StartedCall<'_> {
    /// The handler has ended. Returns its reply.
    #[inline]
    fn ended(self, result: Result<Response, HandlerError>) -> Option<Body> {
        let Self {
            shared,
            route,
            serial,
            channel,
            ..
        } = self;
        on_failed(shared, &route.path, &result, is_one_way(channel));
        let code = code_of(&result);
        if code != OK {
            record(shared, &*route.handler, &route.path, self.received, &result);
        }
        // For a handler with streams, the entry in the table prevents a second reply.
        let reply =
            reply_of(result).filter(|_| !self.streams || shared.lock().leave(channel, serial));
        if code != OK && reply.is_some() {
            shared.count_failure(channel, code);
        }
        reply
    }

    /// The handler has to wait. `size` is that of the request.
    fn suspended(
        self,
        future: CatchPanic,
        cancel: Option<CancelToken>,
        counted: Counted,
        size: usize,
    ) {
        // A handler with parts or a stream has its entry already, and this one is not used.
        let running = Running::new(self.serial, self.route.policy, cancel);
        let waiting = SuspendedHandler {
            handler: Arc::clone(&self.route.handler),
            path: Arc::clone(&self.route.path),
            received: self.received,
            tag: self.tag,
            future,
            counted,
            // Small requests are not counted: their number is limited by that of the handlers.
            bytes: if size < SHARE_MIN_BYTES {
                0
            } else {
                kept_bytes(size)
            },
        };
        spawn(self.shared, self.channel, running, waiting, self.streams);
    }

    /// The handler has panicked. Returns the reply.
    #[cold]
    fn panicked(self, panic: Box<dyn Any + Send>) -> Body {
        let Self { shared, route, .. } = self;
        if self.streams {
            shared.lock().forget(self.channel);
        }
        shared.count_failure(self.channel, INTERNAL);
        let handler = &*route.handler;
        on_panic(shared, handler, &route.path, self.received, panic, self.tag)
    }
}
