//! The turns of requests on their channels: a request is shown to its handler, replied to, and
//! followed by the next one. Pure.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::Connection;
use super::channel::{Arrival, OpenRequest, Skip, WaitingRequest};
use super::control;
use super::event::ServerEvent;
use super::request_path::{PathKind, RequestPath};
use super::stream;
use crate::body::Body;
use crate::frame::{ChannelId, FRAME_OVERHEAD};

impl Connection {
    /// Shows a request with the path read last to the layer above, or replies to it here if its
    /// path is the protocol's own. Returns `true` if it was shown and its channel waits for the
    /// reply.
    #[inline]
    pub(super) fn show(
        &mut self,
        id: ChannelId,
        body: Bytes,
        received_at: Instant,
        in_one: bool,
    ) -> bool {
        if self.server.last_path.kind != PathKind::Handlers {
            self.reply_here(id, &body);
            return false;
        }
        let path = self.open(id, received_at, if in_one { body.len() } else { 0 });
        self.server.events.push_back(ServerEvent::Request {
            channel: id,
            path,
            body,
            received_at,
        });
        true
    }

    /// Like [`show`](Self::show), but for a request that was skipped because of its size.
    pub(super) fn show_too_large(&mut self, id: ChannelId, size: usize) -> bool {
        if self.server.last_path.kind != PathKind::Handlers {
            let path = Arc::clone(&self.server.last_path);
            self.send(id, path.safe_label(), control::NO_HANDLER, true, true);
            return false;
        }
        let path = self.open(id, self.timers.batch(), 0);
        self.server.events.push_back(ServerEvent::RequestTooLarge {
            channel: id,
            path,
            size,
        });
        true
    }

    /// Makes the channel's request, with the path read last, the open one, which waits for its
    /// reply. `uncounted` is the size of its data if it has one frame that was not counted.
    #[inline]
    fn open(&mut self, id: ChannelId, begun: Instant, uncounted: usize) -> Arc<RequestPath> {
        let path = Arc::clone(&self.server.last_path);
        let uncounted = match uncounted {
            0 => {
                self.stats.begun(&path.label);
                0
            }
            size => frame_bytes(path.raw.len(), size),
        };
        let open = OpenRequest::new(Arc::clone(&path), Arrival::Complete, begun, uncounted);
        self.channels.get_or_insert(id).open = Some(open);
        self.server.open_calls += 1;
        path
    }

    /// Parses a path field. Requests of a connection mostly repeat the previous path, for which the
    /// decoder returns the same buffer.
    #[inline]
    pub(super) fn read_path(&mut self, raw: &Bytes) {
        // The last path keeps its buffer alive, so the same address means the same bytes.
        let last = &self.server.last_path.raw;
        if last.as_ptr() != raw.as_ptr() || last.len() != raw.len() {
            self.server.last_path = Arc::new(RequestPath::read(raw));
        }
    }

    /// Sends a reply, or a part of one. Returns `false` if the channel has no open request.
    #[inline]
    pub(crate) fn reply(&mut self, id: ChannelId, body: &mut Body, ends: bool) -> bool {
        let is_silent = self.is_silent(id);
        let Some(channel) = self.channels.get_mut(id) else {
            return false;
        };
        let Some(open) = &mut channel.open else {
            return false;
        };
        let begins = !std::mem::replace(&mut open.replying, true);
        let label = &open.path.label;
        let bytes = FRAME_OVERHEAD + label.len() + body.len();
        if ends && open.uncounted != 0 && !is_silent {
            match self.outbox.push(id, label, body, begins, ends) {
                Some(_) => self.stats.replied(label, open.begun, open.uncounted, bytes),
                None => open.count_end(&mut self.stats, None),
            }
        } else if ends && open.is_stream() {
            // The client distinguishes the reply from the data of the stream by its mark.
            let mut marked = body.marked(stream::REPLY);
            let pushed = self.outbox.push(id, label, &mut marked, begins, ends);
            open.count_end(&mut self.stats, pushed.map(|_| bytes + 1));
            // If the data was copied, the caller keeps the original and drops it without the lock.
            body.unmark(marked);
        } else {
            let pushed = match is_silent {
                true => None,
                false => self.outbox.push(id, label, body, begins, ends),
            };
            open.count_reply(&mut self.stats, pushed.map(|_| bytes), ends);
        }
        if !ends {
            return true;
        }
        let was_arriving = open.is_arriving();
        channel.open = None;
        self.server.open_calls -= 1;
        if was_arriving {
            self.server.streamed -= 1;
            // The reply was sent before the request was complete, so the rest is not needed.
            Self::skip_incoming(&mut self.buffered, channel, Skip::Replied);
        }
        // A one-way call has its channel to itself. On any other one the next request follows,
        // after those of other channels that have waited for longer.
        if is_silent {
            self.channels.remove(id);
        } else if channel.has_next() {
            if self.server.call_queue.is_empty() {
                self.show_next(id);
            } else {
                self.enqueue(id);
            }
        }
        // One reply makes room for one handler. It takes more than one turn if a channel has no
        // request any more, because it was cancelled, or one that is replied to here.
        while !self.server.call_queue.is_empty() && !self.is_busy() {
            self.show_queued();
        }
        true
    }

    /// Shows the request that has waited longest for a handler.
    fn show_queued(&mut self) {
        let Some(id) = self.server.call_queue.pop_front() else {
            return;
        };
        if let Some(channel) = self.channels.get_mut(id) {
            channel.queued = false;
        }
        self.show_next(id);
    }

    /// Shows the next request of a channel without an open one, and those after it if it is replied
    /// to at once.
    fn show_next(&mut self, id: ChannelId) {
        while let Some(channel) = self.channels.get_mut(id) {
            // A cancelled request leaves its channel in the queue, and a health check may have
            // taken its turn.
            if channel.open.is_some() {
                return;
            }
            if channel.waiting.is_empty() {
                if channel.assembly.is_some() {
                    // Control streams begin on channels at rest, so this cannot fail.
                    let begun = self.begin_request(id);
                    debug_assert!(begun.is_ok(), "{begun:?}");
                }
                return;
            }
            if self.is_busy() {
                return self.enqueue(id);
            }
            let Some(request) = self
                .channels
                .get_mut(id)
                .and_then(|channel| channel.waiting.pop_front())
            else {
                return;
            };
            self.buffered -= request.cost();
            let WaitingRequest {
                path,
                body,
                received_at,
            } = request;
            self.read_path(&path);
            let shown = if body.is_empty() {
                self.show_too_large(id, self.limits.get_max_message_bytes())
            } else {
                self.show(id, body, received_at, false)
            };
            if shown {
                return;
            }
        }
    }
}

/// Returns the number of bytes of a frame, which is below 2^32.
#[inline]
fn frame_bytes(path: usize, body: usize) -> u32 {
    u32::try_from(FRAME_OVERHEAD + path + body).unwrap_or(u32::MAX)
}
