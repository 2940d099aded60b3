//! The state of a handler that had to wait.

use std::collections::HashMap;
use std::task::Waker;

use tokio::task::AbortHandle;

use crate::cancel::{CancelToken, OnCancel};
use crate::deferred::Deferred;
use crate::frame::ChannelId;
use crate::proto::parts::Parts;
use crate::proto::stream_state::StreamState;

/// The state of a handler that had to wait.
#[derive(Debug)]
pub(crate) struct Running {
    /// Distinguishes the handler from earlier and later ones of its channel.
    pub(crate) serial: u64,
    pub(crate) policy: OnCancel,
    /// The task of the handler; `None` until it has one.
    pub(crate) task: Option<AbortHandle>,
    pub(crate) cancel: Option<CancelToken>,
    /// The parts of the request, for a handler that takes parts.
    pub(crate) parts: Option<PartQueue>,
    /// The stream state of a call with streams.
    pub(crate) flow: Option<Box<StreamState>>,
}

impl Running {
    pub(crate) fn new(serial: u64, policy: OnCancel, cancel: Option<CancelToken>) -> Self {
        Self {
            serial,
            policy,
            task: None,
            cancel,
            parts: None,
            flow: None,
        }
    }

    /// Applies the handler's policy for a caller that has gone.
    pub(super) fn cancel(self, deferred: &mut Deferred) {
        self.tell(deferred);
        // A handler that runs to its end is neither notified nor aborted. One without a task is
        // aborted by `spawn`, which finds that its entry is gone.
        if let Some(task) = self.task
            && self.policy == OnCancel::Abort
        {
            deferred.abort(task);
        }
    }

    pub(super) fn tell(&self, deferred: &mut Deferred) {
        if let Some(cancel) = &self.cancel
            && self.policy == OnCancel::Token
        {
            deferred.cancel(cancel.clone());
        }
    }

    /// Wakes the tasks that wait for the rest of the request, or for room, because the call is
    /// over.
    pub(super) fn end(&mut self, deferred: &mut Deferred) {
        if let Some(queue) = &mut self.parts {
            deferred.wake(queue.waker.take());
        }
        if let Some(flow) = &mut self.flow {
            flow.end(deferred);
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct PartQueue {
    pub(crate) parts: Parts,
    pub(crate) ended: bool,
    pub(crate) waker: Option<Waker>,
}

/// Returns a handler that waits, or that still reads although its caller has gone.
pub(crate) fn running_mut<'a>(
    running: &'a mut HashMap<ChannelId, Running>,
    orphans: &'a mut HashMap<u64, Running>,
    channel: ChannelId,
    serial: u64,
) -> Option<&'a mut Running> {
    match running.get_mut(&channel) {
        Some(running) if running.serial == serial => Some(running),
        // The common case costs no second search.
        _ if orphans.is_empty() => None,
        _ => orphans.get_mut(&serial),
    }
}
