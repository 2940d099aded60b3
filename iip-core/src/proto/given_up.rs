//! Requests that a server no longer waits for: their callers have gone, or their next frame does
//! not arrive. Pure.

use std::time::Instant;

use bytes::Bytes;

use super::Connection;
use super::channel::{Assembly, Incoming, Skip};
use super::control;
use super::event::ServerEvent;
use super::request_path::RequestPath;
use crate::frame::ChannelId;

impl Connection {
    /// Cancels the one call on a channel, whose caller has gone. Returns `true` if there is a call,
    /// and it was not cancelled before.
    pub(super) fn on_cancel(&mut self, id: ChannelId) -> bool {
        // The channels of one-way calls have no name at the peer: their callers do not wait. A
        // channel that such a call has left would stay in the queue, where no limit counts it.
        if id.0 > self.server.granted {
            return false;
        }
        let Some(channel) = self.channels.get_mut(id) else {
            return false;
        };
        // The message names only a channel. The call in flight is the open one, or else the one
        // that waits, or else the one that is arriving.
        if channel.open.is_some() {
            return self.cancel_open(id);
        }
        if channel.waiting.is_empty() {
            // The rest of the request is skipped; it gets its reply when it ends. The control
            // stream is not a call.
            let incoming = channel.assembly.as_ref().map(|assembly| assembly.incoming);
            return match incoming {
                None
                | Some(Incoming::Control | Incoming::Skip(Skip::Cancelled | Skip::Replied)) => {
                    false
                }
                Some(_) => {
                    Self::skip_incoming(&mut self.buffered, channel, Skip::Cancelled);
                    true
                }
            };
        }
        // With several requests, it is unknown which one is meant.
        if channel.waiting.len() == 1
            && channel.assembly.is_none()
            && let Some(request) = channel.waiting.pop_front()
        {
            self.buffered -= request.cost();
            self.reply_cancelled(id, &request.path);
            return true;
        }
        false
    }

    /// Notifies the handler of the open request, once, that the caller has gone. Returns `false` if
    /// it was notified before.
    pub(super) fn cancel_open(&mut self, id: ChannelId) -> bool {
        let channel = self.channels.get_mut(id);
        let open = channel.and_then(|channel| channel.open.as_mut());
        let is_first = open.is_some_and(|open| !std::mem::replace(&mut open.cancelled, true));
        if is_first {
            self.server
                .events
                .push_back(ServerEvent::Cancelled { channel: id });
        }
        is_first
    }

    /// Replies to a cancelled call. The reply is discarded, but the order of the channel requires
    /// it.
    pub(super) fn reply_cancelled(&mut self, id: ChannelId, path: &Bytes) {
        let path = RequestPath::read(path);
        let reply = control::handler_failure("cancelled");
        self.send(id, path.safe_label(), reply, true, true);
    }

    /// Gives up messages whose next frame does not arrive: their callers get an error, and the rest
    /// of them is skipped.
    pub(super) fn drop_stalled(&mut self, now: Instant) {
        if self.server.stalled_at.is_none_or(|at| at > now) {
            return;
        }
        let limit = self.limits.get_progress_timeout();
        if std::mem::take(&mut self.server.was_held_back) {
            // The peer may have sent more that was not read.
            self.server.stalled_at = now.checked_add(limit);
            return;
        }
        let stalls_at =
            |assembly: &Assembly| assembly.grown_at.and_then(|at| at.checked_add(limit));
        let stalled = self.channels.receiving(|assembly| {
            assembly.is_unfinished() && stalls_at(assembly).is_some_and(|at| at <= now)
        });
        for id in stalled {
            self.drop_unfinished(id);
        }
        let mut next = None;
        for id in self.channels.receiving(Assembly::is_unfinished) {
            let channel = self.channels.get(id);
            let assembly = channel.and_then(|channel| channel.assembly.as_deref());
            next = next.into_iter().chain(assembly.and_then(stalls_at)).min();
        }
        self.server.stalled_at = next;
    }

    pub(super) fn drop_unfinished(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        // The handler has the request, so the layer above replies.
        if channel.is_arriving() {
            self.cancel_open(id);
            return;
        }
        // If earlier requests of the channel have no reply yet, this one gets its reply when it
        // ends, after theirs.
        let is_next = channel.is_next();
        let why = if is_next {
            Skip::Replied
        } else {
            Skip::Cancelled
        };
        Self::skip_incoming(&mut self.buffered, channel, why);
        let Some(assembly) = channel.assembly.as_ref().filter(|_| is_next) else {
            return;
        };
        let path = RequestPath::read(&assembly.path);
        let limit = self.limits.get_progress_timeout();
        let text = format!(
            "no bytes of an unfinished request arrived for {limit:?} (option progress_timeout of \
             the server)"
        );
        self.send(
            id,
            path.safe_label(),
            control::handler_failure(&text),
            true,
            true,
        );
    }
}
