//! Retries of calls within their deadline: of those that have not run, and of those that may run
//! twice.

use std::time::{Duration, Instant};

use iip_core::__rpc::{Tried, random_fraction};

use crate::budget::Bucket;
use crate::policy::RetryPolicy;
use crate::pushback::Pushback;
use crate::status::{Code, Execution, Status};

/// Default of the maximum number of transparent retries of a call; a call that waits until the
/// server is ready is limited only by its deadline.
pub(crate) const MAX_TRANSPARENT_RETRIES: u32 = 5;

/// Longest pause before the second transparent retry; the maximum doubles before each further one.
/// The first retry follows at once, because another connection may be available already.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Maximum size of a request, before compression, whose arguments are kept while the call is
/// running, so that it can be retried.
pub(crate) const KEPT_BYTES: usize = 64 * 1024;

/// Rules that decide whether a failed call is retried.
pub(crate) struct Rules<'a> {
    /// Maximum number of retries of a call that has not run.
    pub(crate) max_transparent_retries: u32,
    /// `true` if a call that may have run is retried.
    pub(crate) idempotent: bool,
    pub(crate) policy: RetryPolicy,
    pub(crate) budget: &'a Bucket,
}

/// Number of retries of one call so far.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    repeats: TransparentRetries,
    retries: u16,
    /// One of the attempts may have run.
    may_have_run: bool,
    /// The backends of a balanced client that have failed.
    pub(crate) tried: Tried,
}

impl Attempts {
    /// Returns `true` if an attempt has failed and was retried.
    pub(crate) fn has_retried(&self) -> bool {
        self.retries > 0
    }

    /// Records that an attempt that was abandoned, or that has failed, may have run.
    pub(crate) fn may_have_run(&mut self) {
        self.may_have_run = true;
    }

    /// The status of the call as a whole after its last attempt: even if that one was not sent,
    /// earlier ones may have run.
    pub(crate) fn outcome(mut self, status: Status) -> Status {
        let status = status.with_tried(&self.tried.take());
        if self.may_have_run {
            status.with_execution(Execution::MayHaveExecuted)
        } else {
            status
        }
    }

    /// Returns the pause before the call is retried; `None` if it is not.
    #[cold]
    pub(crate) fn next(
        &mut self,
        rules: &Rules<'_>,
        status: &Status,
        now: Instant,
        deadline: Instant,
    ) -> Option<Duration> {
        let pushback = status.pushback();
        // Such a retry adds no load and takes no token. One that a server has asked to delay does
        // add load, so the rules below apply to it.
        if pushback.is_none() && TransparentRetries::covers(status) {
            return self
                .repeats
                .next(rules.max_transparent_retries, status, now, deadline);
        }
        let policy = &rules.policy;
        let after = match pushback {
            Some(Pushback::Never) => return None,
            Some(Pushback::After(pause)) => pause,
            None if policy.covers(status.code()) => Duration::ZERO,
            None => return None,
        };
        let may_retry = (rules.idempotent || status.execution().is_safe_to_repeat())
            && u32::from(self.retries) + 1 < policy.attempts();
        if !may_retry {
            return None;
        }
        let jitter = policy
            .backoff(self.retries.into())
            .mul_f64(random_fraction());
        let pause = after.saturating_add(jitter);
        // The budget comes last, so that only retries that are made take a token.
        if pause >= deadline.saturating_duration_since(now) || !rules.budget.withdraw() {
            return None;
        }
        self.retries = self.retries.saturating_add(1);
        // Only attempts that are followed by another one are recorded: the last one has its own
        // mark.
        self.may_have_run |= !status.execution().is_safe_to_repeat();
        Some(pause)
    }
}

/// Number of transparent retries so far, of a call that has not run because there was no connection
/// or because the server is going away.
#[derive(Debug, Default)]
pub(crate) struct TransparentRetries {
    count: u32,
}

impl TransparentRetries {
    /// Returns `true` for a call that has not run because the server is unavailable. Only the
    /// caller can judge one that may have run, and a server that rejected a call for another reason
    /// would reject it again.
    fn covers(status: &Status) -> bool {
        status.execution() != Execution::MayHaveExecuted && status.code() == Code::Unavailable
    }

    /// Returns the pause before the call is retried, at most `max` times; `None` if it is not.
    #[cold]
    pub(crate) fn next(
        &mut self,
        max: u32,
        status: &Status,
        now: Instant,
        deadline: Instant,
    ) -> Option<Duration> {
        if !Self::covers(status) || self.count >= max {
            return None;
        }
        // Full jitter: the calls of a lost connection are not all made again at the same moment.
        let limit = match self.count {
            0 => Duration::ZERO,
            count => FIRST_PAUSE
                // The bound keeps the shift within its type; the maximum is reached long before.
                .saturating_mul(1 << (count - 1).min(16))
                .min(MAX_PAUSE),
        };
        self.count += 1;
        let pause = limit.mul_f64(random_fraction());
        (pause < deadline.saturating_duration_since(now)).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::RetryBudget;

    const SECOND: Duration = Duration::from_secs(1);
    const MS: Duration = Duration::from_millis(1);

    fn rejected() -> Status {
        Status::unavailable("server is shutting down").with_execution(Execution::NotExecuted)
    }

    /// A failure of a call that may have run.
    fn lost() -> Status {
        Status::unavailable("the connection was lost")
    }

    fn bucket(tokens: u32) -> Bucket {
        Bucket::new(RetryBudget::new().max_tokens(tokens).token_ratio(0.0))
    }

    fn rules(idempotent: bool, budget: &Bucket) -> Rules<'_> {
        Rules {
            max_transparent_retries: MAX_TRANSPARENT_RETRIES,
            idempotent,
            policy: RetryPolicy::new(),
            budget,
        }
    }

    /// Returns the pauses of a call that fails with `status` again and again.
    fn pauses(rules: &Rules<'_>, status: &Status) -> Vec<Duration> {
        let now = Instant::now();
        let mut attempts = Attempts::default();
        std::iter::from_fn(|| attempts.next(rules, status, now, now + SECOND)).collect()
    }

    #[test]
    fn a_call_that_has_not_run_is_retried_at_once_and_then_after_growing_pauses() {
        let budget = bucket(0);
        let pauses = pauses(&rules(false, &budget), &rejected());
        assert_eq!(pauses.len(), 5, "no more than five, and none is paid for");
        assert_eq!(pauses[0], Duration::ZERO);
        for (pause, limit) in pauses[1..].iter().zip([10, 20, 40, 80]) {
            assert!(*pause <= limit * MS, "{pause:?} of {limit} ms");
        }
    }

    #[test]
    fn a_call_that_may_have_run_is_not_retried_unless_its_method_is_idempotent() {
        assert_eq!(lost().execution(), Execution::MayHaveExecuted);
        let budget = bucket(10);
        assert_eq!(pauses(&rules(false, &budget), &lost()), []);
        let pauses = pauses(&rules(true, &budget), &lost());
        assert_eq!(pauses.len(), 2, "three attempts");
        for (pause, limit) in pauses.iter().zip([20, 40]) {
            assert!(*pause <= limit * MS, "{pause:?} of {limit} ms");
        }
    }

    #[test]
    fn a_call_that_was_rejected_for_another_reason_is_not_retried() {
        let budget = bucket(10);
        for status in [
            Status::resource_exhausted("too many calls"),
            Status::unimplemented("no such method"),
            Status::invalid_argument("bad"),
        ] {
            let status = status.with_execution(Execution::NotExecuted);
            assert_eq!(pauses(&rules(true, &budget), &status), [], "{status}");
        }
    }

    #[test]
    fn a_code_of_the_policy_is_worth_another_attempt() {
        let budget = bucket(10);
        let mut rules = rules(true, &budget);
        rules.policy = rules.policy.retryable_codes([Code::Aborted]);
        assert_eq!(pauses(&rules, &Status::aborted("a race")).len(), 2);
        assert_eq!(pauses(&rules, &lost()), []);
    }

    #[test]
    fn a_call_is_retried_when_the_server_said_and_not_sooner() {
        let budget = bucket(10);
        let busy = Status::resource_exhausted("busy").with_retry_after(300 * MS);
        let not_run = busy.clone().with_execution(Execution::NotExecuted);
        for (idempotent, status) in [(true, &busy), (false, &not_run)] {
            let pauses = pauses(&rules(idempotent, &budget), status);
            assert_eq!(pauses.len(), 2);
            for pause in pauses {
                assert!((300 * MS..=340 * MS).contains(&pause), "{pause:?}");
            }
        }
        assert_eq!(pauses(&rules(false, &budget), &busy), [], "it may have run");
    }

    #[test]
    fn a_call_is_not_retried_if_the_server_forbids_it() {
        let budget = bucket(10);
        for status in [rejected(), lost()] {
            assert_eq!(pauses(&rules(true, &budget), &status.with_no_retry()), []);
        }
    }

    #[test]
    fn a_rejection_with_a_pause_uses_the_budget_though_the_call_has_not_run() {
        let budget = bucket(1);
        let status = rejected().with_retry_after(MS);
        assert_eq!(pauses(&rules(false, &budget), &status).len(), 1);
        assert_eq!(pauses(&rules(false, &budget), &status).len(), 0);
    }

    #[test]
    fn retries_end_with_the_budget_and_one_that_comes_too_late_uses_none() {
        let budget = bucket(1);
        let (now, rules) = (Instant::now(), rules(true, &budget));
        let late = lost().with_retry_after(SECOND);
        let next = |status: &Status| Attempts::default().next(&rules, status, now, now + SECOND);
        assert_eq!(next(&late), None);
        assert!(next(&lost()).is_some());
        assert_eq!(next(&lost()), None, "the budget is used up");
    }

    #[test]
    fn a_call_of_which_one_attempt_may_have_run_may_have_run() {
        let budget = bucket(10);
        let (now, rules) = (Instant::now(), rules(true, &budget));
        let not_sent = || rejected().with_execution(Execution::NotSent);
        let outcome = |first: Status| {
            let mut attempts = Attempts::default();
            assert!(attempts.next(&rules, &first, now, now + SECOND).is_some());
            attempts.outcome(not_sent()).execution()
        };
        assert_eq!(outcome(lost()), Execution::MayHaveExecuted);
        assert_eq!(outcome(rejected()), Execution::NotSent);
        assert_eq!(outcome(rejected().with_retry_after(MS)), Execution::NotSent);
    }

    #[test]
    fn no_pause_outlasts_the_deadline() {
        let now = Instant::now();
        let mut repeats = TransparentRetries { count: 40 };
        for _ in 0..1000 {
            let deadline = now + 3 * MS;
            if let Some(pause) = repeats.next(u32::MAX, &rejected(), now, deadline) {
                assert!(now + pause < deadline);
            }
        }
        assert_eq!(repeats.next(u32::MAX, &rejected(), now, now), None);
    }
}
