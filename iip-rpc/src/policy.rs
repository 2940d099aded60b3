//! Settings that a program makes at run time for calls of its methods, overriding their attributes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::compression::Compression;
use crate::method::{Concurrency, Hedge, MethodDescriptor, Priority};
use crate::status::{Code, Execution, Status};

/// Settings for calls of one method that override its attributes: for
/// [`ClientBuilder::method_policy`](crate::ClientBuilder::method_policy) and
/// [`ServerBuilder::method_policy`](crate::ServerBuilder::method_policy).
///
/// Unset options keep their value. Each side uses the options that apply to it, so one policy can
/// serve both.
///
/// | setting | client | server |
/// |---|---|---|
/// | [`timeout`](Self::timeout) | calls without a timeout | calls without a deadline |
/// | [`idempotent`](Self::idempotent), [`retry`](Self::retry), [`hedge`](Self::hedge) | yes | not used |
/// | [`priority`](Self::priority), [`max_concurrency`](Self::max_concurrency) | not used | yes |
/// | [`compression`](Self::compression) | of arguments and messages sent | of replies and messages sent |
///
/// ```
/// use std::time::Duration;
/// use iip_rpc::{Client, Hedge, MethodPolicy, RetryPolicy};
///
/// let policy = MethodPolicy::new()
///     .timeout(Duration::from_millis(200))
///     .idempotent(true)
///     .retry(RetryPolicy::new().max_attempts(2))
///     .hedge(Hedge::Percentile(95));
/// let client = Client::builder().method_policy("/greeter/hello", policy);
/// # let _ = client;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use]
pub struct MethodPolicy {
    timeout: Option<Duration>,
    idempotent: Option<bool>,
    retry: Option<RetryPolicy>,
    hedge: Option<Option<Hedge>>,
    priority: Option<Priority>,
    max_concurrency: Option<Option<Concurrency>>,
    compression: Option<Option<Compression>>,
}

impl MethodPolicy {
    /// Creates a policy that changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the timeout of calls that set none themselves. [`Duration::MAX`]: no limit. Zero is
    /// rejected when a client or a server is made with it.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets whether calls that may have run can be retried.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = Some(idempotent);
        self
    }

    /// Sets how failed calls are retried, instead of the client's
    /// [`retry`](crate::ClientBuilder::retry).
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = Some(retry);
        self
    }

    /// Sets when a second attempt is made of a call of an idempotent method that has not failed
    /// yet; `None`: never.
    pub fn hedge(mut self, hedge: impl Into<Option<Hedge>>) -> Self {
        self.hedge = Some(hedge.into());
        self
    }

    /// Sets which calls the server rejects first under load.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Sets the maximum number of calls of the method that the server runs at a time; `None`: no
    /// limit.
    pub fn max_concurrency(mut self, calls: impl Into<Option<Concurrency>>) -> Self {
        self.max_concurrency = Some(calls.into());
        self
    }

    /// Sets how this side compresses what it sends in calls of the method, instead of its builder's
    /// setting; `None`: no compression.
    pub fn compression(mut self, compression: impl Into<Option<Compression>>) -> Self {
        self.compression = Some(compression.into());
        self
    }

    /// Returns the error for an option that cannot work, by name of the option.
    fn problem(&self) -> Option<String> {
        no_time("timeout of method_policy", self.timeout)
    }

    pub(crate) fn own_timeout(&self) -> Option<Duration> {
        self.timeout
    }

    pub(crate) fn priority_of(&self, method: &MethodDescriptor) -> Priority {
        self.priority.unwrap_or_else(|| method.call_priority())
    }

    pub(crate) fn concurrency_of(&self, method: &MethodDescriptor) -> Option<Concurrency> {
        self.max_concurrency.unwrap_or_else(|| method.concurrency())
    }
}

/// Policies by path. If none is set, a lookup is a single comparison.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policies(HashMap<Box<str>, MethodPolicy>);

impl Policies {
    pub(crate) fn set(&mut self, path: &str, policy: MethodPolicy) {
        self.0.insert(path.into(), policy);
    }

    #[inline]
    pub(crate) fn get(&self, method: &MethodDescriptor) -> Option<&MethodPolicy> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(method.path())
    }

    /// Returns the error for an option of one of them that cannot work, by name of the option.
    pub(crate) fn problem(&self) -> Option<String> {
        self.0.values().find_map(MethodPolicy::problem)
    }

    /// Returns the first path for which `known` returns `false`.
    pub(crate) fn unknown(&self, known: impl Fn(&str) -> bool) -> Option<&str> {
        self.0.keys().map(|path| &**path).find(|path| !known(path))
    }

    #[inline]
    pub(crate) fn timeout(&self, method: &MethodDescriptor) -> Option<Duration> {
        let set = self.get(method).and_then(MethodPolicy::own_timeout);
        set.or_else(|| method.default_timeout())
    }

    /// The compression of messages, if it is set for the method.
    #[inline]
    pub(crate) fn compression(&self, method: &MethodDescriptor) -> Option<Option<Compression>> {
        self.get(method).and_then(|policy| policy.compression)
    }

    pub(crate) fn is_idempotent(&self, method: &MethodDescriptor) -> bool {
        let set = self.get(method).and_then(|policy| policy.idempotent);
        set.unwrap_or_else(|| method.is_idempotent())
    }

    /// The time of the second attempt of a call; `None` for a method that is not idempotent.
    #[inline]
    pub(crate) fn hedge(&self, method: &MethodDescriptor) -> Option<Hedge> {
        let set = self.get(method).and_then(|policy| policy.hedge);
        let hedge = set.unwrap_or_else(|| method.hedge_policy())?;
        self.is_idempotent(method).then_some(hedge)
    }

    pub(crate) fn retry(&self, method: &MethodDescriptor) -> Option<RetryPolicy> {
        self.get(method).and_then(|policy| policy.retry)
    }
}

/// Policy for retries of failed calls that may have run, or that an overloaded server has rejected.
/// For [`ClientBuilder::retry`](crate::ClientBuilder::retry), and for one method
/// [`MethodPolicy::retry`].
///
/// A failed call is retried if all of these conditions hold:
///
/// * its method is idempotent, or the call has not run;
/// * the code of the failure is one of [`retryable_codes`](Self::retryable_codes), or the server
///   gave a time for the retry ([`Status::with_retry_after`]);
/// * the server did not forbid a retry ([`Status::with_no_retry`]);
/// * it has had fewer than [`max_attempts`](Self::max_attempts) attempts, not counting transparent
///   retries, and the [`RetryBudget`](crate::RetryBudget) is not exhausted;
/// * the backoff ends before the call's deadline;
/// * its arguments take at most 64 KiB: larger ones are not kept.
///
/// The backoff is a random part of a duration that begins with
/// [`initial_backoff`](Self::initial_backoff) and doubles with each retry, up to
/// [`max_backoff`](Self::max_backoff); a pause that the server asked for is added to it.
///
/// Calls that have not run because there was no connection or because the server is going away are
/// retried independently of this policy, see
/// [`ClientBuilder::max_transparent_retries`](crate::ClientBuilder::max_transparent_retries).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct RetryPolicy {
    attempts: u32,
    initial: Duration,
    max: Duration,
    /// One bit for each code.
    codes: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 3,
            initial: Duration::from_millis(20),
            max: Duration::from_secs(1),
            codes: bit(Code::Unavailable),
        }
    }
}

impl RetryPolicy {
    /// Creates the default policy: three attempts, after pauses of up to 20 ms and 40 ms, for
    /// UNAVAILABLE.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a policy without retries.
    pub fn none() -> Self {
        Self::new().max_attempts(1)
    }

    /// Sets the maximum number of attempts of a call, including the first. Default: 3. 0 counts as
    /// 1, and more than 1000 as 1000.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.clamp(1, 1000);
        self
    }

    /// Sets the longest pause before the first retry. Default: 20 ms. Zero: no pauses, except for
    /// those that a server asks for.
    pub fn initial_backoff(mut self, pause: Duration) -> Self {
        self.initial = pause;
        self
    }

    /// Sets the longest pause before any retry. Default: 1 s. A retry whose pause would end after
    /// the call's deadline is not made.
    pub fn max_backoff(mut self, pause: Duration) -> Self {
        self.max = pause;
        self
    }

    /// Sets the codes that are retried. Default: only UNAVAILABLE.
    pub fn retryable_codes(mut self, codes: impl IntoIterator<Item = Code>) -> Self {
        self.codes = codes.into_iter().fold(0, |all, code| all | bit(code));
        self
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    pub(crate) fn covers(&self, code: Code) -> bool {
        self.codes & bit(code) != 0
    }

    /// The longest pause after `retries` retries.
    pub(crate) fn backoff(&self, retries: u32) -> Duration {
        self.initial
            .saturating_mul(1 << retries.min(16))
            .min(self.max)
    }
}

/// Returns an error if calls would have no time at all.
pub(crate) fn no_time(option: &str, timeout: Option<Duration>) -> Option<String> {
    let none = timeout.is_some_and(|timeout| timeout.is_zero());
    none.then(|| {
        format!("option {option}: calls would time out at once; `Duration::MAX` means no limit")
    })
}

fn bit(code: Code) -> u32 {
    1 << code.as_u8()
}

/// Limits on the time that a server gives to calls, whatever their callers set. For
/// [`ServerBuilder::policy`](crate::ServerBuilder::policy).
///
/// ```
/// use std::time::Duration;
/// use iip_rpc::{Server, ServerPolicy};
///
/// let policy = ServerPolicy::new()
///     .min_timeout(Duration::from_millis(2))
///     .max_timeout(Duration::from_secs(60))
///     .default_timeout(Duration::from_secs(10));
/// let server = Server::builder().policy(policy);
/// # let _ = server;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use]
pub struct ServerPolicy {
    min: Duration,
    max: Option<Duration>,
    default: Option<Duration>,
}

impl ServerPolicy {
    /// Creates a policy without limits: a call has the time that its caller gives it; a call
    /// without a deadline has its method's timeout, or no limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the minimum time that a call whose caller sent a deadline must have left to be run. A
    /// call with less is rejected before it runs, as DEADLINE_EXCEEDED, because its reply would be
    /// too late. Time that it has waited on the server counts. Default: 0, which rejects calls with
    /// no time left. A value larger than [`max_timeout`](Self::max_timeout) is rejected when a
    /// server is made with it.
    pub fn min_timeout(mut self, timeout: Duration) -> Self {
        self.min = timeout;
        self
    }

    /// Sets the maximum time of a call. A call with more time gets this as its deadline, for its
    /// handler and for the calls made inside it; so does a call without a deadline and without a
    /// timeout of its method. Default: no limit, like
    /// [`Duration::MAX`]. Zero is rejected when a server is made with it.
    pub fn max_timeout(mut self, timeout: Duration) -> Self {
        self.max = Some(timeout);
        self
    }

    /// Sets the timeout of calls without a deadline, such as plain JSON calls, if their method does
    /// not set one (`#[rpc(timeout = "..")]`). Default: no limit, like [`Duration::MAX`]. Zero is
    /// rejected when a server is made with it.
    pub fn default_timeout(mut self, timeout: Duration) -> Self {
        self.default = Some(timeout);
        self
    }
}

/// Rules for the deadlines of the calls of one method.
#[derive(Debug)]
pub(crate) struct Deadlines {
    /// `None`: only the callers set deadlines, the common case.
    policy: Option<Box<ServerPolicy>>,
}

/// Deadline of a call, if it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline {
    pub(crate) at: Option<Instant>,
    /// `true` if the caller set it.
    by_caller: bool,
}

impl Deadlines {
    /// Creates the rules of a server for a method that may have its own timeout for calls without a
    /// deadline.
    pub(crate) fn new(mut policy: ServerPolicy, timeout: Option<Duration>) -> Self {
        policy.default = timeout.or(policy.default);
        Self {
            policy: (policy != ServerPolicy::new()).then(|| Box::new(policy)),
        }
    }

    /// Returns the deadline of a call that was received at `received` with the time `sent` left,
    /// and has waited for `waited` since; a rejection if too little time is left.
    #[inline]
    pub(crate) fn of_call(
        &self,
        sent: Option<Duration>,
        waited: Duration,
        received: Instant,
    ) -> Result<Deadline, Status> {
        let total = match (&self.policy, sent) {
            (None, Some(sent)) if sent > waited => sent,
            (None, None) => {
                return Ok(Deadline {
                    at: None,
                    by_caller: true,
                });
            }
            _ => return self.bounded(sent, waited, received),
        };
        Ok(Deadline {
            at: received.checked_add(total),
            by_caller: true,
        })
    }

    #[cold]
    fn bounded(
        &self,
        sent: Option<Duration>,
        waited: Duration,
        received: Instant,
    ) -> Result<Deadline, Status> {
        let policy = self.policy.as_deref().copied().unwrap_or_default();
        let own = sent.or(policy.default);
        let total = match (own, policy.max) {
            (Some(own), Some(max)) => Some(own.min(max)),
            (own, max) => own.or(max),
        };
        let left = total.map(|total| total.saturating_sub(waited));
        let too_little = |left: Duration| left.is_zero() || (left < policy.min && sent.is_some());
        if let Some(left) = left.filter(|&left| too_little(left)) {
            return Err(policy.too_late(left, waited));
        }
        Ok(Deadline {
            at: total.and_then(|total| received.checked_add(total)),
            by_caller: sent == total,
        })
    }
}

impl ServerPolicy {
    /// Returns the error for an option that cannot work, by name of the option.
    pub(crate) fn problem(&self) -> Option<String> {
        let max = self.max.filter(|&max| max < self.min);
        no_time("max_timeout of policy", self.max)
            .or_else(|| no_time("default_timeout of policy", self.default))
            .or_else(|| {
                let (max, min) = (max?, self.min);
                Some(format!(
                    "option min_timeout of policy: {min:?} is more than max_timeout, {max:?}: no \
                     call could run"
                ))
            })
    }

    fn too_late(&self, left: Duration, waited: Duration) -> Status {
        let text = match (left.is_zero(), waited.is_zero()) {
            (true, true) => "no time was left when the call arrived".to_owned(),
            (true, false) => {
                format!("its deadline passed after it waited {waited:?} on the server")
            }
            (false, _) => format!(
                "{left:?} were left when the call was to start, less than the {:?} that the \
                 server requires (option min_timeout of its policy)",
                self.min
            ),
        };
        Status::deadline_exceeded(text).with_execution(Execution::NotExecuted)
    }
}

impl Deadline {
    /// The status of a call whose handler was stopped.
    #[cold]
    pub(crate) fn over(self) -> Status {
        Status::deadline_exceeded(if self.by_caller {
            "the handler was stopped at the caller's deadline"
        } else {
            "the handler was stopped at the server's time limit (options max_timeout and \
             default_timeout of its policy, or timeout of the method)"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHOD: &MethodDescriptor =
        &MethodDescriptor::new("Greeter", "hello", "/greeter/hello", &[])
            .timeout(MS)
            .hedge(Hedge::After(MS));
    const MS: Duration = Duration::from_millis(1);

    fn policies(policy: MethodPolicy) -> Policies {
        let mut policies = Policies::default();
        policies.set("/greeter/hello", policy);
        policies
    }

    #[test]
    fn settings_that_are_absent_are_those_of_the_attributes() {
        for policies in [Policies::default(), policies(MethodPolicy::new())] {
            assert_eq!(policies.timeout(METHOD), Some(MS));
            assert!(!policies.is_idempotent(METHOD));
            assert_eq!(policies.retry(METHOD), None);
        }
        let all = policies(
            MethodPolicy::new()
                .timeout(2 * MS)
                .retry(RetryPolicy::none()),
        );
        assert_eq!(all.timeout(METHOD), Some(2 * MS));
        assert_eq!(all.retry(METHOD), Some(RetryPolicy::none()));
    }

    #[test]
    fn only_an_idempotent_method_is_hedged_and_a_policy_can_forbid_it() {
        assert_eq!(Policies::default().hedge(METHOD), None);
        let idempotent = MethodPolicy::new().idempotent(true);
        assert_eq!(policies(idempotent).hedge(METHOD), Some(Hedge::After(MS)));
        let other = Hedge::Percentile(90);
        assert_eq!(policies(idempotent.hedge(other)).hedge(METHOD), Some(other));
        assert_eq!(policies(idempotent.hedge(None)).hedge(METHOD), None);
    }

    #[test]
    fn a_policy_of_the_server_prevails_over_the_attributes() {
        let none = MethodPolicy::new();
        assert_eq!(none.priority_of(METHOD), Priority::Normal);
        assert_eq!(none.concurrency_of(METHOD), None);
        let limited = METHOD.max_concurrency(Concurrency::Auto);
        let set = none.priority(Priority::Low).max_concurrency(None);
        assert_eq!(set.priority_of(&limited), Priority::Low);
        assert_eq!(none.concurrency_of(&limited), Some(Concurrency::Auto));
        assert_eq!(set.concurrency_of(&limited), None);
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let policy = RetryPolicy::new()
            .initial_backoff(20 * MS)
            .max_backoff(100 * MS);
        let pauses: Vec<_> = (0..5).map(|retries| policy.backoff(retries)).collect();
        assert_eq!(pauses, [20 * MS, 40 * MS, 80 * MS, 100 * MS, 100 * MS]);
        assert_eq!(policy.backoff(u32::MAX), 100 * MS);
    }

    #[test]
    fn a_policy_covers_the_codes_it_was_given() {
        let policy = RetryPolicy::new().retryable_codes([Code::Aborted, Code::Unauthenticated]);
        let covered: Vec<_> = Code::ALL
            .into_iter()
            .filter(|&code| policy.covers(code))
            .collect();
        assert_eq!(covered, [Code::Aborted, Code::Unauthenticated]);
        assert!(RetryPolicy::new().covers(Code::Unavailable));
    }

    #[test]
    fn a_call_has_the_time_of_its_caller_within_the_bounds_of_the_server() {
        let received = Instant::now();
        let of_call = |policy, timeout, sent| {
            let deadlines = Deadlines::new(policy, timeout);
            let deadline = deadlines.of_call(sent, Duration::ZERO, received).unwrap();
            (deadline.at.map(|at| at - received), deadline.by_caller)
        };
        let open = ServerPolicy::new();
        assert_eq!(of_call(open, None, Some(5 * MS)), (Some(5 * MS), true));
        assert_eq!(of_call(open, None, None), (None, true));
        assert_eq!(of_call(open, Some(MS), None), (Some(MS), false));
        assert_eq!(of_call(open, Some(MS), Some(5 * MS)), (Some(5 * MS), true));
        let bounded = open
            .min_timeout(2 * MS)
            .max_timeout(10 * MS)
            .default_timeout(4 * MS);
        assert_eq!(of_call(bounded, None, Some(5 * MS)), (Some(5 * MS), true));
        assert_eq!(
            of_call(bounded, None, Some(50 * MS)),
            (Some(10 * MS), false)
        );
        assert_eq!(of_call(bounded, None, None), (Some(4 * MS), false));
        assert_eq!(of_call(bounded, Some(MS), None), (Some(MS), false));
        assert_eq!(of_call(open.max_timeout(MS), None, None), (Some(MS), false));
    }

    #[test]
    fn a_call_with_too_little_time_left_is_rejected_and_its_wait_counts() {
        let rejection = |policy, sent, waited| {
            let deadlines = Deadlines::new(policy, None);
            let status = deadlines
                .of_call(Some(sent), waited, Instant::now())
                .unwrap_err();
            assert_eq!(status.code(), Code::DeadlineExceeded);
            assert_eq!(status.execution(), Execution::NotExecuted);
            status.message().to_owned()
        };
        let bounded = ServerPolicy::new().min_timeout(2 * MS);
        for policy in [ServerPolicy::new(), bounded] {
            assert!(rejection(policy, Duration::ZERO, Duration::ZERO).contains("no time was left"));
            assert!(rejection(policy, 5 * MS, 5 * MS).contains("waited 5ms"));
        }
        assert!(rejection(bounded, 5 * MS, 4 * MS).contains("option min_timeout"));
        let deadlines = Deadlines::new(bounded, None);
        assert!(
            deadlines
                .of_call(Some(5 * MS), 3 * MS, Instant::now())
                .is_ok()
        );
    }
}
