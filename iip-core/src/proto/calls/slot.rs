//! The slot of a call, from its start until its caller has taken the outcome or gone away.

use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;

use crate::error::CallError;
use crate::frame::ChannelId;
use crate::proto;
use crate::proto::parts::Parts;
use crate::proto::stream_state::StreamState;
use crate::stats::MethodId;

#[derive(Debug, Default)]
pub(super) enum SlotState {
    /// The slot is not in use.
    #[default]
    Free,
    /// The call waits for a channel, at this position of the queue.
    Queued { position: u64 },
    /// The request was sent.
    Sent,
    /// The caller has leased a channel.
    Leased,
    /// The call has ended, and its caller has not taken the outcome.
    Done(Result<Bytes, CallError>),
    /// The caller has taken the outcome.
    Taken,
}

#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(super) state: SlotState,
    pub(super) waker: Option<Waker>,
    pub(super) channel: ChannelId,
    pub(super) deadline: Option<Instant>,
    pub(super) started: Option<Instant>,
    pub(super) sent_at: Option<Instant>,
    /// The method that the call counts for; `None` for a lease, which does not count.
    pub(super) method: Option<MethodId>,
    /// The parts of a reply that is taken in parts.
    pub(super) parts: Option<Box<Parts>>,
    /// The stream state of a call with streams.
    pub(super) flow: Option<Box<StreamState>>,
}

impl Slot {
    /// Takes the outcome, if it has arrived.
    #[inline]
    pub(crate) fn take_outcome(&mut self) -> Option<Result<Bytes, CallError>> {
        if !matches!(self.state, SlotState::Done(_)) {
            return None;
        }
        match std::mem::replace(&mut self.state, SlotState::Taken) {
            SlotState::Done(result) => Some(result),
            _ => None,
        }
    }

    /// Takes the next bytes of the call's stream.
    pub(crate) fn take_stream(
        &mut self,
        proto: &mut proto::Connection,
        clock: fn() -> Instant,
    ) -> Option<Bytes> {
        // Once the call has ended, no window update may be sent: the channel may have another call.
        let alive = matches!(self.state, SlotState::Sent).then_some(self.channel);
        self.flow.as_mut()?.take_part(proto, alive, clock)
    }

    /// Takes the next part of a reply that is taken in parts.
    pub(crate) fn take_part(&mut self, proto: &mut proto::Connection) -> Option<Bytes> {
        let part = self.parts.as_mut()?.pop()?;
        proto.release(part.len());
        Some(part)
    }

    /// Returns the channel that was leased, if it is available.
    pub(crate) fn leased(&self) -> Option<ChannelId> {
        matches!(self.state, SlotState::Leased).then_some(self.channel)
    }
}
