//! The calls of a server: from a request to its handler, and from the handler to the reply.
//!
//! A call passes the files in this order: [`Dispatcher::run_call`] finds its handler (`routes.rs`)
//! or rejects it, `start.rs` polls the handler, `task.rs` keeps one that has to wait, and
//! `outcome.rs` makes the reply. Only `start.rs` decides where a handler runs. The state of a call
//! that is under way is in `connection/running.rs`.

mod catch_panic;
mod incoming;
mod outcome;
mod routes;
mod start;
mod task;

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::incoming::{IncomingCall, Kind, Received};
use self::outcome::on_lost;
use self::routes::Route;
pub(crate) use self::routes::Routes;
use self::start::start;
use crate::body::Body;
use crate::connection::Shared;
use crate::frame::ChannelId;
use crate::handler::RequestMode;
use crate::handler_error::RejectReason;
use crate::proto::{RequestPath, ServerEvent, control, is_one_way};
use crate::stats::UNIMPLEMENTED;

/// The dispatcher that runs the handlers of one connection.
pub(crate) struct Dispatcher {
    routes: Arc<Routes>,
    serial: u64,
    last: Option<Route>,
    /// The waiting time of the last request, with the two times it was computed from: requests of
    /// one batch have waited equally long.
    waited: Option<(Instant, Instant, Duration)>,
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
        let incoming = match event {
            ServerEvent::Request {
                channel,
                path,
                body,
                received_at,
            } => IncomingCall {
                serial: self.next_serial(),
                channel,
                path,
                body,
                kind: Kind::Whole,
                received: self.received(received_at, now),
            },
            ServerEvent::RequestBegun { channel, path } => {
                let route = self.route(&path);
                let in_parts = route.is_some_and(|route| route.request_mode == RequestMode::Parts);
                // Otherwise the request is an event of its own when it is complete.
                if !in_parts || !shared.lock().proto.stream_request(channel) {
                    return None;
                }
                IncomingCall {
                    serial: self.next_serial(),
                    channel,
                    path,
                    body: Bytes::new(),
                    kind: Kind::Parts,
                    received: Received::now(now),
                }
            }
            ServerEvent::StreamBegun {
                channel,
                path,
                is_busy,
            } => IncomingCall {
                serial: self.next_serial(),
                channel,
                path,
                body: Bytes::new(),
                kind: Kind::Stream { is_busy },
                received: Received::now(now),
            },
            ServerEvent::RequestTooLarge {
                channel,
                path,
                size,
            } => return Some((channel, self.reject_too_large(shared, channel, &path, size))),
            ServerEvent::RequestPart {
                channel,
                body,
                ends,
            } => {
                on_part(shared, channel, body, ends);
                return None;
            }
            ServerEvent::Stream { channel, frame } => {
                shared.lock().on_stream_frame(channel, frame, wakers);
                return None;
            }
            ServerEvent::Cancelled { channel } => {
                shared.lock().on_cancelled(channel);
                return None;
            }
            ServerEvent::PeerHello(hello) => {
                shared.peer.set_hello(Some(hello));
                return None;
            }
        };
        let channel = incoming.channel;
        self.run_call(cx, shared, incoming)
            .map(|reply| (channel, reply))
    }

    /// Runs the handler of a call, or rejects it. Returns the reply if it is ready at once.
    fn run_call(
        &mut self,
        cx: &mut Context<'_>,
        shared: &Arc<Shared>,
        incoming: IncomingCall,
    ) -> Option<Body> {
        let (channel, one_way) = (incoming.channel, incoming.is_one_way());
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
        let tag = route.handler.tag(&incoming.body);
        if let Some(reason) = route.reject_reason(shared, incoming.kind, reason) {
            if one_way {
                on_lost(shared, &incoming.path, &reason);
            }
            shared.count_failure(channel, reason.status_code());
            return Some(route.handler.reject(&reason, tag));
        }
        start(cx, shared, route, incoming, tag)
    }

    /// Returns the reply to a request that exceeds the size limit.
    fn reject_too_large(
        &mut self,
        shared: &Shared,
        channel: ChannelId,
        path: &Arc<RequestPath>,
        size: usize,
    ) -> Body {
        let limit = shared.lock().proto.limits().get_max_message_bytes();
        let reason = RejectReason::TooLarge { size, limit };
        shared.count_failure(channel, reason.status_code());
        if is_one_way(channel) {
            on_lost(shared, path, &reason);
        }
        match self.route(path) {
            Some(route) => {
                // The data was not kept, so the tag is that of a request without data.
                let tag = route.handler.tag(&Bytes::new());
                route.handler.reject(&reason, tag)
            }
            None => control::handler_failure(&reason.to_string()).into(),
        }
    }

    #[inline]
    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
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

    /// Returns the time at which a request had arrived, with the time that it has waited for its
    /// turn until `now`. Most requests are part of the current batch and have not waited.
    #[inline]
    fn received(&mut self, at: Instant, now: Instant) -> Received {
        if at == now {
            return Received::now(now);
        }
        let waited = match self.waited {
            Some((from, to, waited)) if from == at && to == now => waited,
            _ => {
                let waited = now.saturating_duration_since(at);
                self.waited = Some((at, now, waited));
                waited
            }
        };
        Received { at, waited }
    }
}

/// Passes a part of a request to its handler.
fn on_part(shared: &Shared, channel: ChannelId, body: Bytes, ends: bool) {
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
}
