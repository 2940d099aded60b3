//! Hedged calls: a call without a reply gets a second attempt, the first reply counts, and the
//! other attempt is cancelled.

mod latency;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::{Duration, Instant};

use bytes::Bytes;
use iip_core::__rpc::{CallTimes, CallTracker, PickArgs, after, now, with_context};
use iip_core::{Call, CallError};

use self::latency::Latencies;
use super::Client;
use super::call::{CallSpec, Single};
use super::failure::{call_status, track_failure};
use crate::envelope::{self, Outcome, PlainError, ReplyHead};
use crate::method::{Hedge, MethodDescriptor};
use crate::pushback::Pushback;
use crate::retry::Attempts;
use crate::status::{Execution, Status};

/// Time for which a client does not hedge after a server has forbidden retries without giving a
/// time.
const HOLD: Duration = Duration::from_secs(1);

/// State of a client for its hedged calls.
#[derive(Debug, Default)]
pub(super) struct Hedging(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By path, for methods that are hedged by a percentile.
    latencies: HashMap<&'static str, Latencies>,
    /// Time until which no second attempts are made, because a server is overloaded.
    held_until: Option<Instant>,
}

impl Hedging {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the delay of the second attempt of a call that begins now, if it is hedged.
    fn delay(&self, method: &MethodDescriptor, hedge: Hedge) -> Option<Duration> {
        match hedge {
            Hedge::After(delay) => Some(delay),
            Hedge::Percentile(percentile) => {
                let mut state = self.lock();
                let latencies = state.latencies.get_mut(method.path())?;
                latencies.percentile(percentile)
            }
        }
    }

    /// Records that a call received its reply after `took`.
    fn record(&self, method: &MethodDescriptor, took: Duration) {
        let mut state = self.lock();
        state.latencies.entry(method.path()).or_default().add(took);
    }

    /// A server has sent a pushback: stops second attempts for a while.
    #[cold]
    pub(super) fn hold(&self, pushback: Pushback, now: Instant) {
        let until = match pushback {
            Pushback::After(pause) => after(now, pause),
            Pushback::Never => now + HOLD,
        };
        let mut state = self.lock();
        // A shorter time does not end a longer one, and `None` is less than any time.
        state.held_until = state.held_until.max(Some(until));
    }

    fn is_held(&self, now: Instant) -> bool {
        self.lock().held_until.is_some_and(|until| now < until)
    }
}

impl Client {
    /// Returns `true` if calls of this method are hedged.
    #[inline]
    pub(super) fn hedges(&self, method: &MethodDescriptor) -> bool {
        self.settings.policies.hedge(method).is_some()
    }

    /// Returns the reply to a running call, or to a second attempt that is made if the reply does
    /// not arrive in time.
    pub(super) async fn hedged(
        &self,
        spec: &mut CallSpec<'_>,
        kind: Single<'_>,
        first: Call,
        tracker: &mut Option<CallTracker>,
        times: &CallTimes,
        attempts: &mut Attempts,
    ) -> Result<Bytes, CallError> {
        let method = spec.method;
        let Some(hedge) = self.settings.policies.hedge(method) else {
            return first.await;
        };
        let delay = self.settings.hedging.delay(method, hedge);
        let reply = match delay {
            Some(delay) => {
                let first = (first, tracker);
                self.first_reply(spec, kind, first, delay, times, attempts)
                    .await
            }
            None => first.await,
        };
        let learns = matches!(hedge, Hedge::Percentile(_)) && reply.is_ok();
        if learns && failure(method, &reply).is_none() {
            // If the second attempt won, the first took at least as long as this, so the percentile
            // stays correct.
            let took = now().saturating_duration_since(times.connected);
            self.settings.hedging.record(method, took);
        }
        reply
    }

    async fn first_reply(
        &self,
        spec: &mut CallSpec<'_>,
        kind: Single<'_>,
        (mut first, tracker): (Call, &mut Option<CallTracker>),
        delay: Duration,
        times: &CallTimes,
        attempts: &mut Attempts,
    ) -> Result<Bytes, CallError> {
        if let Ok(reply) = tokio::time::timeout(delay, &mut first).await {
            return reply;
        }
        // Without a second attempt the first one goes on, as if it were not hedged.
        let second = self.second(spec, kind, tracker.as_ref(), times, attempts);
        let Some((mut second, mut second_tracker)) = second.await else {
            return first.await;
        };
        // If both have a reply, the first attempt counts.
        let (reply, other) = tokio::select! {
            biased;
            reply = &mut first => (reply, second),
            reply = &mut second => {
                // The account of the attempt that has replied is in the caller's place.
                std::mem::swap(tracker, &mut second_tracker);
                self.options.called.set(tracker.as_ref());
                (reply, first)
            }
        };
        let method = spec.method;
        // The other attempt is dropped, which cancels it.
        let Some(status) = failure(method, &reply) else {
            return reply;
        };
        self.note_pushback(&status);
        if !self.may_turn_out_well(method, &status) {
            // The other attempt may have run.
            attempts.may_have_run();
            return reply;
        }
        if status.execution() == Execution::MayHaveExecuted {
            attempts.may_have_run();
        }
        let error = reply.as_ref().err();
        track_failure(
            tracker.as_mut(),
            other.connected(),
            &status,
            error,
            attempts,
        );
        *tracker = second_tracker;
        self.options.called.set(tracker.as_ref());
        other.await
    }

    /// Starts the second attempt, if there is a connection for it and both the server and the
    /// budget allow it.
    async fn second(
        &self,
        spec: &mut CallSpec<'_>,
        kind: Single<'_>,
        first: Option<&CallTracker>,
        times: &CallTimes,
        attempts: &Attempts,
    ) -> Option<(Call, Option<CallTracker>)> {
        let now = now();
        let settings = &self.settings;
        if settings.hedging.is_held(now) {
            return None;
        }
        let tried = attempts.tried.and(first);
        let args = || PickArgs {
            tried: &tried,
            ..self.pick_args(spec.method, attempts)
        };
        let picked = self.core.pick(now, args).ok()?;
        if self.must_check(spec.method, picked.connection.peer()) {
            return None;
        }
        // Last, so that only attempts that are made take a token.
        if !settings.budget.withdraw() {
            return None;
        }
        let times = CallTimes {
            connected: now,
            ..*times
        };
        let deadline = times.deadline;
        let remaining = deadline.saturating_duration_since(now);
        let mut call = Call::new(picked.connection, &times);
        let start = |cx: &Context<'_>| self.start(cx, spec, kind, (deadline, remaining), &mut call);
        // Arguments that were encoded once can be encoded again.
        with_context(start).await.ok()?;
        Some((call, picked.tracker))
    }

    /// Returns `true` if the other attempt is worth waiting for after this failure.
    fn may_turn_out_well(&self, method: &MethodDescriptor, status: &Status) -> bool {
        let policy = self.retry_policy(method);
        policy.covers(status.code()) || status.pushback().is_some()
    }

    pub(super) fn note_pushback(&self, status: &Status) {
        if let Some(pushback) = status.pushback() {
            self.settings.hedging.hold(pushback, now());
        }
    }
}

/// Returns the status in a reply, if it is one.
fn failure(method: &MethodDescriptor, reply: &Result<Bytes, CallError>) -> Option<Status> {
    let reply = match reply {
        Ok(reply) => reply,
        Err(error) => return Some(call_status(error, Some(method))),
    };
    if !method.is_raw() && envelope::is_envelope(reply) {
        let (head, body) = ReplyHead::read(reply.clone()).ok()?;
        return match head.outcome {
            Outcome::Status => envelope::read_status(body, head.metadata).ok(),
            Outcome::Value | Outcome::Error => None,
        };
    }
    let error = PlainError::read(reply)?;
    let is_status = error.error.is_none() && (!method.is_raw() || error.is_in_band());
    is_status.then(|| error.into_status())
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHOD: &MethodDescriptor =
        &MethodDescriptor::new("Greeter", "hello", "/greeter/hello", &[]);
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_delay_is_the_one_that_was_set_or_measured() {
        let hedging = Hedging::default();
        assert_eq!(hedging.delay(METHOD, Hedge::After(MS)), Some(MS));
        assert_eq!(hedging.delay(METHOD, Hedge::Percentile(50)), None);
        for took in 1..=100 {
            hedging.record(METHOD, took * MS);
        }
        let delay = hedging.delay(METHOD, Hedge::Percentile(50)).unwrap();
        assert!((45 * MS..=55 * MS).contains(&delay), "{delay:?}");
    }

    #[test]
    fn a_server_that_pushes_back_stops_hedging_for_the_time_that_it_sends() {
        let (hedging, now) = (Hedging::default(), Instant::now());
        assert!(!hedging.is_held(now));
        hedging.hold(Pushback::After(5 * MS), now);
        hedging.hold(Pushback::After(MS), now);
        assert!(hedging.is_held(now + 4 * MS), "the longer one holds");
        assert!(!hedging.is_held(now + 5 * MS));
        hedging.hold(Pushback::Never, now);
        assert!(hedging.is_held(now + 5 * MS));
        assert!(!hedging.is_held(now + HOLD));
    }

    #[test]
    fn a_failure_is_found_in_every_form_of_a_reply() {
        let mut reply = bytes::BytesMut::new();
        let status = Status::unavailable("busy").with_no_retry();
        envelope::write_status_reply(crate::codec::CodecId::JSON, &status, None, &mut reply);
        let found = |method, reply: &Bytes| failure(method, &Ok(reply.clone()));
        let reply = reply.freeze();
        assert_eq!(found(METHOD, &reply), Some(status));
        let plain = Bytes::from_static(br#"{"code":14,"message":"busy"}"#);
        assert!(found(METHOD, &plain).is_some());
        let raw = METHOD.raw();
        assert!(found(&raw, &reply).is_none(), "bytes as they are");
        assert!(found(&raw, &plain).is_none(), "no error of IIP");
        let in_band = Bytes::from_static(br#"{"code":-1,"message":"handler fail:x"}"#);
        assert!(found(&raw, &in_band).is_some());
        let own = Bytes::from_static(br#"{"code":2,"message":"x","error":"EmptyName"}"#);
        assert!(found(METHOD, &own).is_none(), "the method's own error");
    }
}
