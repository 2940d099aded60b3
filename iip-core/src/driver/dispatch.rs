//! Dispatch of the frames that were read: to callers on a client, to handlers on a server.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Driver, HANDLERS_PER_LOOK, MAX_FRAMES, MAX_WAKEUPS, RELEASE_AFTER};
use crate::clock;
use crate::connection::{Shared, State};
use crate::decoder::Partial;
use crate::error::ConnectionError;
use crate::frame::FRAME_OVERHEAD;
use crate::proto::calls::Notice;
use crate::proto::{self, ClientEvent, StreamKey};

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Updates the timers after a read, once its frames have been processed.
    fn note_read(&mut self, state: &mut State, now: Instant) {
        if std::mem::take(&mut self.has_read) {
            state.received_bytes = self.received_bytes;
            // With more frames in the decoder, it is unknown how far the last one is.
            let in_head = self.decoder.partial() == Partial::Head && !self.more;
            let timers = state.proto.timers();
            let soon = now < timers.last_read() + RELEASE_AFTER;
            self.reads = if soon {
                self.reads.saturating_add(1)
            } else {
                0
            };
            timers.on_read(now, in_head, self.decoder.take_advanced());
        }
    }

    /// Processes the frames in the decoder and dispatches their contents. Returns `true` if callers
    /// were woken and should run before the next write.
    pub(super) fn dispatch(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<bool, ConnectionError> {
        self.look_at_slice(now);
        let outcome = match self.dispatcher {
            None => self.dispatch_replies(now),
            Some(_) => self.dispatch_requests(cx, now),
        };
        let woke = self.wake_all();
        let others = outcome?;
        // The yield after these frames is also the one before the next write.
        self.yielded_to_batch = woke && others;
        Ok(self.yielded_to_batch)
    }

    /// Wakes all tasks for which something has arrived. Returns `true` if there were any.
    pub(super) fn wake_all(&mut self) -> bool {
        let woke = !self.wakers.is_empty();
        self.wakers.drain(..).for_each(Waker::wake);
        woke
    }

    /// Client: fills the slots of calls. At most half of the callers in flight are woken at a time,
    /// so that the server works on one half while this side works on the other. Returns `true` if
    /// several calls are in flight.
    fn dispatch_replies(&mut self, now: Instant) -> Result<bool, ConnectionError> {
        let shared = Arc::clone(&self.shared);
        let mut guard = shared.lock();
        let state = &mut *guard;
        state.proto.timers().on_batch(self.has_read.then_some(now));
        let in_flight = state.calls.in_flight();
        let most = (in_flight / 2).clamp(1, MAX_WAKEUPS);
        let mut replied = 0;
        // A channel that becomes free below must not be given to a call whose deadline has passed.
        shared.expire(state, now, &mut self.wakers);
        for _ in 0..MAX_FRAMES {
            if replied >= most || self.wakers.len() >= MAX_WAKEUPS || self.close_queued {
                break;
            }
            let Some(mut reply) = self.decoder.next_reply()? else {
                self.more = false;
                if let Some(head) = self.decoder.unfinished_head() {
                    state.proto.check_head(head)?;
                }
                break;
            };
            if let Some((call, body)) = state.proto.take_whole_reply(&mut reply) {
                let channel = reply.channel;
                let bytes = FRAME_OVERHEAD + reply.path.len() + body.len();
                replied += 1;
                state.calls.complete(call, body, &mut self.wakers);
                state.calls.replies.add_frame(bytes);
                state
                    .calls
                    .on_channel_idle(&mut state.proto, channel, now, &mut self.wakers);
                continue;
            }
            state.proto.handle_reply(reply)?;
            while let Some(event) = state.proto.poll_client_event() {
                replied += usize::from(matches!(event, ClientEvent::Reply { .. }));
                on_client_event(state, &shared, event, now, &mut self.wakers);
            }
        }
        state.count_replies(now);
        self.note_read(state, now);
        Ok(in_flight > 1)
    }

    /// Server: runs the handlers of all requests that were read. Requests that came before a
    /// protocol violation are still handled.
    fn dispatch_requests(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<bool, ConnectionError> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        // Without a read, these are frames that have waited since the last read.
        state.proto.timers().on_batch(self.has_read.then_some(now));
        let outcome = self.take_requests(&mut state.proto);
        self.note_read(&mut state, now);
        if self.events.is_empty() {
            state.proto.take_server_events(&mut self.events);
        }
        drop(state);
        // Requests before a protocol violation have to run now, because there is no later poll.
        let sliced = outcome.is_ok();
        self.run_handlers(cx, now, sliced);
        outcome.map(|()| false)
    }

    /// Server: passes the frames that were read to the protocol state machine.
    fn take_requests(&mut self, proto: &mut proto::Connection) -> Result<(), ConnectionError> {
        for _ in 0..MAX_FRAMES {
            // Every frame must count against the limits before the next one is processed.
            if !proto.wants_read() || self.close_queued {
                break;
            }
            match self.decoder.next()? {
                Some(frame) => {
                    proto.timers().on_room();
                    proto.handle_frame(frame)?;
                }
                None => {
                    self.more = false;
                    if let Some(head) = self.decoder.unfinished_head() {
                        proto.check_head(head)?;
                    }
                    break;
                }
            }
        }
        Ok(())
    }

    /// Server: takes the events of the state machine, unless some are left.
    pub(super) fn take_events(&mut self) {
        if self.events.is_empty() {
            self.shared
                .lock()
                .proto
                .take_server_events(&mut self.events);
        }
    }

    /// Server: passes events to handlers until there are none left, there is no room for their
    /// replies, or, with `sliced`, the time of this poll is over. A reply may make the next request
    /// of its channel available.
    pub(super) fn run_handlers(&mut self, cx: &mut Context<'_>, now: Instant, sliced: bool) {
        if self.dispatcher.is_none() {
            return;
        }
        let mut has_room = true;
        let mut handled = 0;
        let is_over = |driver: &Self| sliced && driver.slice_is_over;
        while has_room && !is_over(self) && !self.events.is_empty() {
            let mut bytes = 0;
            while bytes <= self.most_unsent
                && !is_over(self)
                && let Some(dispatcher) = &mut self.dispatcher
                && let Some(event) = self.events.pop_front()
            {
                if let Some((channel, reply)) =
                    dispatcher.on_event(cx, &self.shared, event, now, &mut self.wakers)
                {
                    bytes += reply.len();
                    self.replies.push((channel, reply));
                }
                handled += 1;
                if handled % HANDLERS_PER_LOOK == 0 {
                    self.look_at_slice(clock::now());
                }
            }
            let ended_at = clock::now();
            let mut state = self.shared.lock();
            state.proto.stats.set_now(ended_at);
            for (channel, reply) in &mut self.replies {
                state.reply(*channel, reply);
            }
            has_room = state.proto.has_room();
            if self.events.is_empty() {
                state.proto.take_server_events(&mut self.events);
            }
            drop(state);
            // These replies were copied; the originals are dropped without the lock.
            self.replies.clear();
        }
    }
}

/// Passes an event to the calls, and what it means beyond them to the connection.
fn on_client_event(
    state: &mut State,
    shared: &Shared,
    event: ClientEvent,
    now: Instant,
    wakers: &mut Vec<Waker>,
) {
    match state
        .calls
        .handle_event(&mut state.proto, event, now, wakers)
    {
        None => {}
        Some(Notice::SharesBuffer(call)) => state.sharing_streams.push(StreamKey::Call(call)),
        Some(Notice::GoingAway) => shared.retire(state),
        Some(Notice::PeerHello(hello)) => shared.peer.set_hello(hello),
    }
}
