//! Admission of calls at a server: limits on the number of concurrent calls of a method, of a
//! service and of the whole server. Calls above a limit are rejected at once, before their
//! arguments are examined.
//!
//! Calls are not queued here. A call that waits cannot be observed, and it gets older; a caller
//! that is rejected is notified at once, with the time to retry.

mod gradient;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use iip_core::__rpc::now;

use self::gradient::Gradient;
use crate::compression::Compression;
use crate::method::{Concurrency, MethodDescriptor, Priority};
use crate::policy::{MethodPolicy, Policies};
use crate::status::{Execution, Status};

/// Delay after which a caller that was rejected at capacity may retry. Long enough for running
/// calls to end, and short for a waiting caller; clients add a random time to it.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Returns the status for a call rejected at capacity, with the time to retry.
pub(crate) fn overloaded(message: String) -> Status {
    Status::resource_exhausted(message)
        .with_execution(Execution::NotExecuted)
        .with_retry_after(RETRY_AFTER)
}

/// The calls that share a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Method(&'static MethodDescriptor),
    Service(&'static str),
    Server,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method(method) => write!(f, "{method}"),
            Self::Service(service) => write!(f, "service {service}"),
            Self::Server => f.write_str("the server"),
        }
    }
}

impl Scope {
    fn option(self) -> &'static str {
        match self {
            Self::Method(_) => "max_concurrency of the method",
            Self::Service(_) => "service_max_concurrency",
            Self::Server => "max_concurrency of the server",
        }
    }
}

/// Counts the running calls of one scope.
#[derive(Debug)]
struct Limiter {
    scope: Scope,
    running: AtomicU32,
    limit: AtomicU32,
    /// Adapts the limit, unless it is fixed.
    gradient: Option<Mutex<Gradient>>,
}

impl Limiter {
    fn new(scope: Scope, calls: Concurrency) -> Arc<Self> {
        let (limit, gradient) = match calls {
            Concurrency::AtMost(calls) => (calls.max(1), None),
            Concurrency::Auto => (gradient::FIRST, Some(Mutex::new(Gradient::new(now())))),
        };
        Arc::new(Self {
            scope,
            running: AtomicU32::new(0),
            limit: AtomicU32::new(limit),
            gradient,
        })
    }

    /// Returns the limit that applies to a call of this priority.
    fn limit_for(&self, priority: Priority) -> u32 {
        let limit = self.limit.load(Ordering::Relaxed);
        match priority {
            // Low priority leaves a quarter of a shared limit to other calls. The calls of one
            // method all have the same priority.
            Priority::Low if !matches!(self.scope, Scope::Method(_)) => (limit - limit / 4).max(1),
            // An adaptive limit is an estimate, which does not reject calls of high priority.
            Priority::High if self.gradient.is_some() => u32::MAX,
            _ => limit,
        }
    }

    /// Counts one more call, and returns the number of running calls. Fails at capacity.
    fn enter(&self, priority: Priority) -> Result<u32, Full> {
        let limit = self.limit_for(priority);
        let more = |running| (running < limit).then_some(running + 1);
        // Comparing and counting are one step, so calls that enter at the same time do not exceed
        // the limit.
        self.running
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .map(|running| running + 1)
            .map_err(|running| Full {
                scope: self.scope,
                running,
            })
    }

    fn leave(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// Updates the limit from a call that was admitted at `began` as the `beside`-th.
    fn learn(&self, began: Instant, now: Instant, beside: u32, ended: bool) {
        let Some(gradient) = &self.gradient else {
            return;
        };
        let mut gradient = gradient.lock().unwrap_or_else(PoisonError::into_inner);
        let took = now.saturating_duration_since(began);
        if ended {
            gradient.on_end(now, took, beside);
        } else {
            gradient.on_abandoned(now, took, beside);
        }
        self.limit.store(gradient.limit(), Ordering::Relaxed);
    }
}

/// The reason why a call is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    scope: Scope,
    running: u32,
}

impl Full {
    pub(crate) fn status(self) -> Status {
        let Self { scope, running } = self;
        let option = scope.option();
        overloaded(format!(
            "{scope} runs {running} calls already (option {option})"
        ))
    }
}

/// Maximum number of limits that apply to a method: its own, that of its service, that of the
/// server.
const LIMITS: usize = 3;

/// The limits that calls of one method have to pass. A method without any limit has no gate.
#[derive(Debug)]
pub(crate) struct Gate {
    /// At most [`LIMITS`].
    limiters: Vec<Arc<Limiter>>,
    priority: Priority,
    /// Set if one of the limits is adaptive.
    timed: bool,
}

impl Gate {
    /// Returns the current limit of the method alone, if one applies to its calls.
    pub(crate) fn method_limit(&self) -> Option<u32> {
        let mut limiters = self.limiters.iter();
        let own = limiters.find(|limiter| matches!(limiter.scope, Scope::Method(_)))?;
        Some(own.limit_for(self.priority)).filter(|&limit| limit < u32::MAX)
    }

    /// Admits a call, or returns the reason why it is rejected.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Permit, Full> {
        let mut beside = [0; LIMITS];
        for (index, (limiter, beside)) in self.limiters.iter().zip(&mut beside).enumerate() {
            match limiter.enter(self.priority) {
                Ok(running) => *beside = running,
                Err(full) => {
                    // The call does not run, so the limits that it has passed do not count it.
                    self.limiters[..index]
                        .iter()
                        .for_each(|passed| passed.leave());
                    return Err(full);
                }
            }
        }
        Ok(Permit {
            gate: Arc::clone(self),
            beside,
            began: self.timed.then(now),
            ended: false,
        })
    }
}

/// An admitted call; it counts until this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    gate: Arc<Gate>,
    beside: [u32; LIMITS],
    began: Option<Instant>,
    ended: bool,
}

impl Permit {
    /// Records that the call has its reply. A permit dropped without it counts as a cancelled call.
    pub(crate) fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let ended_at = self.began.map(|began| (began, now()));
        for (limiter, &beside) in self.gate.limiters.iter().zip(&self.beside) {
            limiter.leave();
            if let Some((began, now)) = ended_at {
                limiter.learn(began, now, beside, self.ended);
            }
        }
    }
}

/// The limits in a server's options, while its methods are registered.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    policies: Policies,
    server: Option<Concurrency>,
    services: HashMap<Box<str>, Concurrency>,
    server_limiter: Option<Arc<Limiter>>,
    service_limiters: HashMap<&'static str, Arc<Limiter>>,
    paths: Vec<&'static str>,
}

impl Admission {
    pub(crate) fn set_method(&mut self, path: &str, policy: MethodPolicy) {
        self.policies.set(path, policy);
    }

    pub(crate) fn set_service(&mut self, service: &str, calls: Concurrency) {
        self.services.insert(service.into(), calls);
    }

    pub(crate) fn set_server(&mut self, calls: Concurrency) {
        self.server = Some(calls);
    }

    /// Returns the timeout of a call without a deadline, if the method or its policy sets one.
    pub(crate) fn timeout(&self, method: &MethodDescriptor) -> Option<Duration> {
        self.policies.timeout(method)
    }

    /// Returns the compression of a method's messages, if its policy sets it.
    pub(crate) fn compression(&self, method: &MethodDescriptor) -> Option<Option<Compression>> {
        self.policies.compression(method)
    }

    /// Returns the limits that calls of a method have to pass; `None` if no limit applies to them.
    pub(crate) fn gate(&mut self, method: &'static MethodDescriptor) -> Option<Arc<Gate>> {
        self.paths.push(method.path());
        // Health checks must be replied to by a server at capacity.
        if method.path().starts_with("/sys/") {
            return None;
        }
        let policy = self.policies.get(method).copied().unwrap_or_default();
        let own = policy.concurrency_of(method);
        let own = own.map(|calls| Limiter::new(Scope::Method(method), calls));
        let name = method.service();
        let of_service = self.services.get(name).map(|&calls| {
            let new = || Limiter::new(Scope::Service(name), calls);
            Arc::clone(self.service_limiters.entry(name).or_insert_with(new))
        });
        let of_server = self.server.map(|calls| {
            let new = || Limiter::new(Scope::Server, calls);
            Arc::clone(self.server_limiter.get_or_insert_with(new))
        });
        let limiters: Vec<_> = [own, of_service, of_server].into_iter().flatten().collect();
        let gate = Gate {
            timed: limiters.iter().any(|limiter| limiter.gradient.is_some()),
            limiters,
            priority: policy.priority_of(method),
        };
        (!gate.limiters.is_empty()).then(|| Arc::new(gate))
    }

    /// Returns an option that cannot work, or that names a method or service that does not exist,
    /// once all methods are registered.
    pub(crate) fn problem(&self) -> Option<String> {
        if let Some(problem) = self.policies.problem() {
            return Some(problem);
        }
        let known = |path: &str| self.paths.contains(&path);
        if let Some(path) = self.policies.unknown(known) {
            return Some(format!(
                "option method_policy: no method has the path {path:?}"
            ));
        }
        let mut services = self.services.keys();
        let service = services.find(|&service| !self.service_limiters.contains_key(&**service))?;
        Some(format!(
            "option service_max_concurrency: no service is called {service:?}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pushback::Pushback;
    use crate::status::Code;

    const HELLO: &MethodDescriptor =
        &MethodDescriptor::new("Greeter", "hello", "/greeter/hello", &[]);
    const BYE: &MethodDescriptor = &MethodDescriptor::new("Greeter", "bye", "/greeter/bye", &[])
        .max_concurrency(Concurrency::AtMost(2));
    const LOW: &MethodDescriptor =
        &MethodDescriptor::new("Greeter", "low", "/greeter/low", &[]).priority(Priority::Low);
    const HIGH: &MethodDescriptor =
        &MethodDescriptor::new("Greeter", "high", "/greeter/high", &[]).priority(Priority::High);

    /// Admits calls up to the limit.
    fn fill(gate: &Arc<Gate>) -> Vec<Permit> {
        std::iter::from_fn(|| gate.enter().ok())
            .take(1000)
            .collect()
    }

    #[test]
    fn a_method_without_a_limit_has_no_gate() {
        assert!(Admission::default().gate(HELLO).is_none());
    }

    #[test]
    fn calls_run_up_to_the_limit_and_one_that_ends_admits_another() {
        let gate = Admission::default().gate(BYE).unwrap();
        let mut permits = fill(&gate);
        assert_eq!(permits.len(), 2);
        let status = gate.enter().unwrap_err().status();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.execution(), Execution::NotExecuted);
        assert_eq!(status.pushback(), Some(Pushback::After(RETRY_AFTER)));
        assert_eq!(
            status.message(),
            "Greeter.bye runs 2 calls already (option max_concurrency of the method)"
        );
        permits.pop().unwrap().end();
        drop(permits.pop());
        assert_eq!(fill(&gate).len(), 2);
    }

    #[test]
    fn methods_of_a_service_share_its_limit_and_a_rejected_call_holds_nothing() {
        let mut admission = Admission::default();
        admission.set_service("Greeter", Concurrency::AtMost(3));
        admission.set_server(Concurrency::AtMost(1000));
        let (hello, bye) = (admission.gate(HELLO).unwrap(), admission.gate(BYE).unwrap());
        let byes = fill(&bye);
        assert_eq!(byes.len(), 2, "its own limit");
        let hellos = fill(&hello);
        assert_eq!(hellos.len(), 1, "the rest of the service's");
        let full = hello.enter().unwrap_err();
        assert!(
            full.status()
                .message()
                .contains("option service_max_concurrency")
        );
        // Calls that were rejected by the service's limit have left that of their method.
        drop((byes, hellos));
        assert_eq!(fill(&bye).len(), 2);
    }

    #[test]
    fn calls_of_low_priority_are_rejected_first_but_not_by_their_own_limit() {
        let mut admission = Admission::default();
        admission.set_service("Greeter", Concurrency::AtMost(8));
        let (low, hello) = (admission.gate(LOW).unwrap(), admission.gate(HELLO).unwrap());
        let lows = fill(&low);
        assert_eq!(lows.len(), 6, "three quarters");
        assert_eq!(fill(&hello).len(), 2);
        let policy = MethodPolicy::new().max_concurrency(Concurrency::AtMost(8));
        let mut admission = Admission::default();
        admission.set_method("/greeter/low", policy);
        assert_eq!(
            fill(&admission.gate(LOW).unwrap()).len(),
            8,
            "its own limit is no shared one"
        );
    }

    #[test]
    fn only_a_limit_that_was_found_gives_way_to_high_priority() {
        let mut admission = Admission::default();
        admission.set_server(Concurrency::Auto);
        let (high, hello) = (
            admission.gate(HIGH).unwrap(),
            admission.gate(HELLO).unwrap(),
        );
        let hellos = fill(&hello);
        assert_eq!(hellos.len(), gradient::FIRST as usize);
        assert!(high.enter().is_ok());
        let mut admission = Admission::default();
        admission.set_server(Concurrency::AtMost(5));
        assert_eq!(fill(&admission.gate(HIGH).unwrap()).len(), 5);
    }

    #[test]
    fn a_policy_at_run_time_prevails_over_the_attributes() {
        let mut admission = Admission::default();
        admission.set_method("/greeter/bye", MethodPolicy::new().max_concurrency(None));
        assert!(admission.gate(BYE).is_none());
        let mut admission = Admission::default();
        let policy = MethodPolicy::new().max_concurrency(Concurrency::AtMost(5));
        admission.set_method("/greeter/bye", policy);
        assert_eq!(fill(&admission.gate(BYE).unwrap()).len(), 5);
        assert_eq!(admission.problem(), None);
    }

    #[test]
    fn options_for_unknown_names_are_a_problem() {
        let mut admission = Admission::default();
        admission.set_method("/greeter/helo", MethodPolicy::new());
        admission.gate(HELLO);
        assert!(admission.problem().unwrap().contains("\"/greeter/helo\""));
        let mut admission = Admission::default();
        admission.set_service("greeter", Concurrency::Auto);
        admission.gate(HELLO);
        assert!(admission.problem().unwrap().contains("\"greeter\""));
    }
}
