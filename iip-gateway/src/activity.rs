//! The activity of a connection: its requests, and the times for its limits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::scan::Fault;

/// The state that the stream shares with the requests of its connection.
#[derive(Debug)]
pub(crate) struct Activity(Mutex<State>);

#[derive(Debug)]
pub(crate) struct State {
    /// Number of requests that are being handled.
    pub(crate) running: usize,
    /// Numbers of requests that have begun, that were cancelled, and that were completed.
    pub(crate) begun: u64,
    pub(crate) cancelled: u64,
    pub(crate) completed: u64,
    /// The end of the last request, or the last byte of a reply that had to wait.
    pub(crate) last: Instant,
    pub(crate) fault: Option<(u64, Fault)>,
    /// The time at which an incomplete head began.
    pub(crate) head_since: Option<Instant>,
    /// Set if the last request has arrived completely, and nothing of the next one.
    pub(crate) is_between: bool,
    /// The time since which the peer has accepted no byte.
    pub(crate) write_since: Option<Instant>,
    /// The last progress of each reply that is being sent.
    pub(crate) sending: Vec<Option<Instant>>,
    /// The reason why the connection must end.
    pub(crate) ended: Option<&'static str>,
}

impl Activity {
    /// Creates the state of a connection whose first head has begun now.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State {
            running: 0,
            begun: 0,
            cancelled: 0,
            completed: 0,
            last: Instant::now(),
            fault: None,
            head_since: Some(Instant::now()),
            is_between: false,
            write_since: None,
            sending: Vec::new(),
            ended: None,
        }))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request. Returns the fault in its head, if there is one.
    pub(crate) fn begin(self: &Arc<Self>, max_resets: u64) -> (RunningRequest, Option<Fault>) {
        let mut state = self.lock();
        state.running += 1;
        state.begun += 1;
        let fault = state
            .fault
            .and_then(|(head, fault)| (head <= state.begun).then_some(fault));
        let running = RunningRequest {
            activity: Arc::clone(self),
            max_resets,
            has_reply: false,
            sending: None,
        };
        (running, fault)
    }
}

/// A request that is being handled.
#[derive(Debug)]
pub(crate) struct RunningRequest {
    activity: Arc<Activity>,
    max_resets: u64,
    has_reply: bool,
    /// The index of its reply among those that are being sent, if it waits for the client.
    sending: Option<usize>,
}

impl RunningRequest {
    /// Records that there is a reply, or that a part of it was sent.
    pub(crate) fn progress(&mut self) {
        let mut state = self.activity.lock();
        let place = self.sending.unwrap_or_else(|| {
            let free = state.sending.iter().position(Option::is_none);
            free.unwrap_or(state.sending.len())
        });
        self.sending = Some(place);
        self.has_reply = true;
        if place == state.sending.len() {
            state.sending.push(None);
        }
        if let Some(sending) = state.sending.get_mut(place) {
            *sending = Some(Instant::now());
        }
    }

    /// Records that the client has received all of the reply so far.
    pub(crate) fn rest(&mut self) {
        if let Some(place) = self.sending.take()
            && let Some(sending) = self.activity.lock().sending.get_mut(place)
        {
            *sending = None;
        }
    }
}

impl Drop for RunningRequest {
    fn drop(&mut self) {
        self.rest();
        let mut state = self.activity.lock();
        state.running -= 1;
        state.last = Instant::now();
        if self.has_reply {
            state.completed += 1;
            return;
        }
        state.cancelled += 1;
        if state.cancelled > state.completed.saturating_add(self.max_resets) {
            state.ended = Some("the client cancels too many requests (option max_resets)");
        }
    }
}
