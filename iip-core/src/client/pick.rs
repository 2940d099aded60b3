//! The choice of a connection for a call, and the account of the call with its backend.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::subchannel::Subchannel;
use crate::balance::{
    Backend, BackendId, BackendInfo, CallKey, CallMetadata, CallView, Choice, Choose, Notice,
    Outcome, PickError, PickHint, Policy,
};
use crate::clock;
use crate::connection::Connection;
use crate::error::{BackendAttempt, CallError, CallErrorKind, ConnectionError, Execution, Phases};
use crate::random;

/// The number of calls in flight from which on a backend is busy: its calls are not timed one by
/// one, which costs as much as the rest of the account.
const BUSY: u32 = 8;
/// The maximum number of attempts of one call that its error lists. Later ones replace the oldest.
const MAX_LISTED: usize = 16;

/// The properties of a call that the choice of its backend depends on.
#[derive(Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "it is used by iip-rpc only")]
pub struct PickArgs<'a> {
    /// The path of the call, with its query; empty if the connection is not for a certain call.
    pub path: &'a str,
    /// The key of the call for policies that hash.
    pub key: Option<&'a [u8]>,
    /// The metadata of the call, for policies that choose. It is read only if they ask for it.
    pub metadata: Option<&'a dyn CallMetadata>,
    /// The backends that the call has been sent to already.
    pub tried: &'a Tried,
    /// The call may be sent twice.
    pub idempotent: bool,
}

impl<'a> PickArgs<'a> {
    /// Returns the arguments for a connection that is not for a certain call.
    #[must_use]
    pub fn of_no_call() -> Self {
        static NOTHING_TRIED: Tried = Tried::new();
        Self {
            path: "",
            key: None,
            metadata: None,
            tried: &NOTHING_TRIED,
            idempotent: false,
        }
    }

    /// Asks the application for the backends of the call, if the policy says so.
    #[inline]
    pub(super) fn choice<'p>(&'p self, policy: &'p Policy) -> Option<Choice<'p>> {
        policy.chooser().and_then(|chooser| self.choose(chooser))
    }

    #[inline(never)]
    fn choose<'p>(&'p self, chooser: &'p dyn Choose) -> Option<Choice<'p>> {
        let view = CallView::new(self.path)
            .with_key(self.key)
            .with_metadata(self.metadata)
            .with_random(random::random_id());
        (!self.path.is_empty()).then(|| chooser.choose(&view))
    }

    #[inline]
    pub(super) fn hint(&self, policy: &Policy) -> PickHint<'a> {
        let mut key = CallKey::new(self.path);
        key.key = self.key;
        PickHint::new()
            .hash(policy.hash(key))
            .excluded(self.tried.ids())
            .idempotent(self.idempotent)
    }
}

impl fmt::Debug for PickArgs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PickArgs")
            .field("path", &self.path)
            .field("tried", &self.tried)
            .finish_non_exhaustive()
    }
}

/// A connection for a call, and the account of the call with its backend.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "it is used by iip-rpc only")]
pub struct Picked {
    /// The connection.
    pub connection: Connection,
    /// `None` if the client has a single address.
    pub tracker: Option<CallTracker>,
}

/// The reason why a call has no connection yet.
#[derive(Default, Debug)]
pub struct NotPicked(Option<CallError>);

impl NotPicked {
    /// Returns the reason of a pick that has failed for the call with this choice.
    #[cold]
    pub(super) fn new(error: PickError, choice: Option<&Choice<'_>>) -> Self {
        let reason = || choice.map_or_else(|| error.to_string(), ToString::to_string);
        let kind = match error {
            PickError::NoBackend => return Self::default(),
            PickError::Recovering { pushback } => CallErrorKind::Recovering {
                retry_after: pushback,
            },
            PickError::NotFound => CallErrorKind::NoChosenBackend { reason: reason() },
            PickError::Rejected => CallErrorKind::RejectedByPolicy { reason: reason() },
        };
        Self(Some(CallError::not_sent(kind)))
    }

    /// Returns the error of the call; `None` if it waits for a connection.
    pub(super) fn into_error(self) -> Option<CallError> {
        self.0
    }
}

/// Accounts for one call with its backend: it is in flight until it has ended, or is dropped, which
/// says nothing about the backend.
pub struct CallTracker {
    backend: Arc<Backend<Arc<Subchannel>>>,
    trial: bool,
    /// A success is counted with others.
    grouped: bool,
    ended: bool,
}

impl CallTracker {
    #[inline]
    pub(super) fn new(picked: &crate::balance::Picked<'_, Arc<Subchannel>>) -> Self {
        let in_flight = picked.backend.started();
        Self {
            backend: Arc::clone(picked.backend),
            trial: picked.trial,
            grouped: in_flight >= BUSY && !picked.trial,
            ended: false,
        }
    }

    /// Returns the backend.
    #[must_use]
    pub fn backend(&self) -> &Arc<BackendInfo> {
        self.backend.shared_info()
    }

    fn id(&self) -> BackendId {
        self.backend.id()
    }

    /// Returns `true` if the backend has a connection that takes calls. A backend that rejects
    /// calls because it is shutting down has none.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.backend.data().ready_connection().is_some()
    }

    /// Records that the call, which had its connection at `connected`, has ended. Only the first
    /// outcome of a call counts.
    #[inline]
    pub fn end(&mut self, connected: Instant, outcome: Outcome) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if !self.grouped || outcome != Outcome::Success {
            return self.end_timed(connected, outcome);
        }
        let count = self.backend.finished_in_group();
        if count > 0 {
            let now = clock::now();
            let elapsed = now.saturating_duration_since(connected);
            self.backend.observed(now, elapsed, count);
        }
    }

    fn end_timed(&self, connected: Instant, outcome: Outcome) {
        let now = clock::now();
        let elapsed = now.saturating_duration_since(connected);
        let notice = self.backend.finished(now, elapsed, outcome, self.trial);
        if notice != Notice::None {
            self.notify(notice);
        }
    }

    #[cold]
    fn notify(&self, notice: Notice) {
        if let Some(owner) = &self.backend.data().owner {
            owner.notice(self.id(), notice);
        }
    }
}

impl Drop for CallTracker {
    fn drop(&mut self) {
        if !self.ended {
            let now = clock::now();
            // A trial that was cancelled leaves its right to the next call.
            let _none = self
                .backend
                .finished(now, Duration::ZERO, Outcome::Cancelled, self.trial);
        }
    }
}

impl fmt::Debug for CallTracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallTracker")
            .field("backend", self.backend.info())
            .finish_non_exhaustive()
    }
}

/// Returns what the failure of a call says about its backend.
#[cold]
pub fn outcome_of(error: &CallError) -> Outcome {
    match error.kind() {
        // The backend has announced that it is going away, or this side has closed.
        CallErrorKind::ConnectionLost(
            ConnectionError::WentAway | ConnectionError::ClosedLocally,
        ) => Outcome::Cancelled,
        CallErrorKind::ConnectionLost(_)
        | CallErrorKind::Timeout
        | CallErrorKind::QueueFull { .. }
        | CallErrorKind::ChannelRejected { .. } => Outcome::Failure { pushback: None },
        // The others are faults of the call itself.
        _ => Outcome::Cancelled,
    }
}

/// The backends that a call was sent to without success, in order.
#[derive(Default)]
pub struct Tried(Option<Box<TriedList>>);

#[derive(Default)]
struct TriedList {
    ids: Vec<BackendId>,
    attempts: Vec<BackendAttempt>,
}

impl Tried {
    /// Creates an empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }

    pub(super) fn ids(&self) -> &[BackendId] {
        self.0.as_deref().map_or(&[], |list| &list.ids)
    }

    /// Adds an attempt that has failed.
    #[cold]
    pub fn add(
        &mut self,
        tracker: &CallTracker,
        error: impl Into<String>,
        execution: Execution,
        phases: Phases,
    ) {
        let backend = &tracker.backend;
        self.add_backend(backend, error.into(), execution, phases);
    }

    /// Adds the failure of an attempt of a raw call.
    #[cold]
    pub(crate) fn add_error(&mut self, tracker: &CallTracker, error: &CallError) {
        self.add(
            tracker,
            with_causes(error.kind()),
            error.execution(),
            error.phases(),
        );
    }

    pub(super) fn add_backend(
        &mut self,
        backend: &Backend<Arc<Subchannel>>,
        error: String,
        execution: Execution,
        phases: Phases,
    ) {
        let list = self.0.get_or_insert_default();
        if list.ids.len() == MAX_LISTED {
            list.ids.remove(0);
        }
        if list.attempts.len() == MAX_LISTED {
            list.attempts.remove(0);
        }
        list.ids.push(backend.id());
        let info = backend.info();
        list.attempts.push(BackendAttempt {
            id: Arc::clone(&info.id),
            endpoint: info.endpoint.clone(),
            error,
            execution,
            phases,
        });
    }

    /// Returns the list with one more backend to avoid, which has not failed.
    #[must_use]
    pub fn and(&self, other: Option<&CallTracker>) -> Self {
        let ids = self.ids().iter().copied();
        let ids: Vec<_> = ids.chain(other.map(CallTracker::id)).collect();
        Self((!ids.is_empty()).then(|| {
            Box::new(TriedList {
                ids,
                attempts: Vec::new(),
            })
        }))
    }

    /// Adds attempts to connect that have failed.
    #[cold]
    pub fn extend(&mut self, attempts: &[BackendAttempt]) {
        if !attempts.is_empty() {
            let list = self.0.get_or_insert_default();
            list.attempts.extend_from_slice(attempts);
            let more = list.attempts.len().saturating_sub(MAX_LISTED);
            list.attempts.drain(..more);
        }
    }

    /// Takes the attempts.
    #[must_use]
    pub fn take(&mut self) -> Vec<BackendAttempt> {
        self.0.take().map_or_else(Vec::new, |list| list.attempts)
    }
}

impl fmt::Debug for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempts = self.0.as_deref().map_or(&[][..], |list| &list.attempts);
        f.debug_list().entries(attempts).finish()
    }
}

/// Returns the text of an error and its causes.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<_> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}
