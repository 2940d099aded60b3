//! The description of one backend, and its state in a client.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::load::{Load, LoadSettings, Penalty};
use super::outcomes::{OutcomeSettings, Outcomes};
use super::time::Epoch;
use crate::transport::Endpoint;

/// The maximum weight of a backend.
pub const MAX_WEIGHT: u32 = 65_535;

/// The description of a backend by a source of addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BackendInfo {
    /// The stable id. Consistent hashing and subsets depend on it and not on the address, so a
    /// backend that moves keeps its keys. Default: the address.
    pub id: Arc<str>,
    /// The address. A change of it under the same id makes a new backend, with new statistics.
    pub endpoint: Endpoint,
    /// The share of calls relative to other backends: from 0 to [`MAX_WEIGHT`], default 1; more
    /// counts as the maximum. A backend with a weight of 0 gets no new calls, and finishes those
    /// that run.
    pub weight: u32,
    /// The zone, if known.
    pub zone: Option<Arc<str>>,
    /// The name that the TLS certificate of the backend must contain. Default: the host of the
    /// address.
    pub host: Option<Arc<str>>,
    /// The group. Calls go to the lowest priority that has a usable backend. Default: 0.
    pub priority: u32,
    /// Further names and values of the source. Only [`Choice::Group`](super::Choice::Group) uses
    /// one: `group` is the name of a group; a backend with several is in all of these.
    pub metadata: Arc<[(String, String)]>,
}

impl BackendInfo {
    /// Creates a description of the backend at `endpoint`, with the defaults of the fields.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            id: endpoint.to_string().into(),
            endpoint,
            weight: 1,
            zone: None,
            host: None,
            priority: 0,
            metadata: Arc::default(),
        }
    }

    /// Sets the stable id.
    #[must_use]
    pub fn id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.id = id.into();
        self
    }

    /// Sets the weight.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight.min(MAX_WEIGHT);
        self
    }

    /// Sets the zone.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<Arc<str>>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Sets the name that the TLS certificate must contain.
    #[must_use]
    pub fn host(mut self, host: impl Into<Arc<str>>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Sets the priority.
    #[must_use]
    pub fn priority(mut self, priority: u32) -> Self {
        self.priority = priority;
        self
    }

    /// Adds a name with its value to the metadata.
    #[must_use]
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let entries = self.metadata.iter().cloned();
        self.metadata = entries.chain([(name.into(), value.into())]).collect();
        self
    }

    /// Returns the names of the groups that the backend is in.
    pub(super) fn groups(&self) -> impl Iterator<Item = &str> {
        let groups = self.metadata.iter().filter(|(name, _)| name == "group");
        groups.map(|(_, group)| group.as_str())
    }
}

/// The identity of a backend within one client. It is not used again after the backend is removed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BackendId(pub(super) u64);

/// The outcome of a call, as far as it says something about its backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The backend replied. A typed error of the method, or a status that blames the caller, is a
    /// success too.
    Success,
    /// The backend replied to a call whose duration says nothing about it, such as a stream or a
    /// subscription.
    Untimed,
    /// The backend failed: it is unavailable or overloaded, has an internal error or missed the
    /// deadline, or the connection was lost.
    Failure {
        /// The time for which the backend has asked not to be called, if it has.
        pushback: Option<Duration>,
    },
    /// The backend is at its capacity: it has rejected the call without running it, and has asked
    /// not to be called for this time.
    ///
    /// [`Policy::P2c`](super::Policy::P2c) avoids the backend, but does not eject it, because the
    /// others would have to take all of its calls. For other policies it is a failure.
    Rejected {
        /// The time for which the backend has asked not to be called.
        pushback: Duration,
    },
    /// The caller or a hedge cancelled the call, or the backend sent a drain notice. It says
    /// nothing about the backend.
    Cancelled,
}

/// The change that the owner of a [`Balancer`](super::Balancer) must report to it after a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Notice {
    /// Nothing.
    None,
    /// [`Balancer::failing`](super::Balancer::failing): the backend may have to be ejected.
    Failing,
    /// [`Balancer::trial_ended`](super::Balancer::trial_ended), with `true` if the call succeeded.
    Trial(bool),
}

/// The settings that all backends of a client share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) epoch: Epoch,
    pub(super) load: LoadSettings,
    pub(super) outcomes: OutcomeSettings,
    /// A backend that rejects calls at its capacity is avoided by its load, and not ejected.
    pub(super) spares_full: bool,
    /// The calls in flight of all backends, if the policy needs them.
    pub(super) total: Option<Arc<AtomicU64>>,
}

/// The state of one backend in a client. Every method is lock-free and can be called by any task.
///
/// `T` is what the owner of the [`Balancer`](super::Balancer) keeps with each backend, such as its
/// connections.
#[derive(Debug)]
pub struct Backend<T = ()> {
    id: BackendId,
    info: Arc<BackendInfo>,
    data: T,
    load: Load,
    outcomes: Outcomes,
    /// The call that tests a backend that was ejected is under way.
    trial: AtomicBool,
    shared: Arc<Shared>,
}

impl<T> Backend<T> {
    pub(super) fn new(id: BackendId, info: Arc<BackendInfo>, data: T, shared: Arc<Shared>) -> Self {
        Self {
            id,
            info,
            data,
            load: Load::new(shared.total.clone()),
            outcomes: Outcomes::default(),
            trial: AtomicBool::new(false),
            shared,
        }
    }

    /// Returns the identity of the backend.
    #[inline]
    #[must_use]
    pub fn id(&self) -> BackendId {
        self.id
    }

    /// Returns the description with which the backend was added. That of a later snapshot is in
    /// [`BackendSet::info`](super::BackendSet::info).
    #[must_use]
    pub fn info(&self) -> &BackendInfo {
        &self.info
    }

    /// Returns the description for those that outlive the backend.
    pub(crate) fn shared_info(&self) -> &Arc<BackendInfo> {
        &self.info
    }

    /// Returns what the owner keeps with the backend.
    #[inline]
    #[must_use]
    pub fn data(&self) -> &T {
        &self.data
    }

    /// Returns the address.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.info.endpoint
    }

    /// Returns the load.
    #[inline]
    #[must_use]
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// Accounts for a call that starts. Each needs one call of [`finished`](Self::finished).
    /// Returns the number of calls in flight before it.
    #[inline]
    pub fn started(&self) -> u32 {
        self.load.started()
    }

    /// Accounts for a call that ends with success and need not be timed. Returns the number of
    /// successes that are to be [observed](Self::observed) with this call; 0 for most calls.
    #[inline]
    pub fn finished_in_group(&self) -> u32 {
        self.load.finished();
        self.outcomes.group()
    }

    /// Accounts for a call that ends after `elapsed`; `trial` is that of its
    /// [`Picked`](super::Picked).
    #[inline]
    pub fn finished(
        &self,
        now: Instant,
        elapsed: Duration,
        outcome: Outcome,
        trial: bool,
    ) -> Notice {
        self.load.finished();
        let now = self.shared.epoch.nanos(now);
        match outcome {
            Outcome::Success => self.succeeded(now, Some(elapsed), 1),
            Outcome::Untimed => self.succeeded(now, None, 1),
            Outcome::Rejected { pushback } if self.shared.spares_full => {
                self.load.avoid(now, pushback, &self.shared.load);
            }
            Outcome::Failure { .. } | Outcome::Rejected { .. } => {
                let pushback = match outcome {
                    Outcome::Failure { pushback } => pushback,
                    Outcome::Rejected { pushback } => Some(pushback),
                    _ => None,
                };
                let penalty = Penalty { elapsed, pushback };
                if self.failed(now, penalty) && !trial {
                    return Notice::Failing;
                }
            }
            Outcome::Cancelled => {}
        }
        match trial {
            false => Notice::None,
            true => self.trial_ended(outcome),
        }
    }

    /// Accounts for `count` replies that were read together, of which `worst` took the longest. The
    /// calls have not ended by this: [`Load::finished`] counts them.
    #[inline]
    pub fn observed(&self, now: Instant, worst: Duration, count: u32) {
        let now = self.shared.epoch.nanos(now);
        self.succeeded(now, Some(worst), count);
    }

    #[inline]
    fn succeeded(&self, now: u64, elapsed: Option<Duration>, count: u32) {
        if let Some(elapsed) = elapsed {
            self.load.observe(now, elapsed, &self.shared.load);
        }
        self.outcomes.succeeded(now, count, &self.shared.outcomes);
    }

    /// Accounts for a failure; returns `true` if the backend may have to be ejected.
    #[cold]
    fn failed(&self, now: u64, penalty: Penalty) -> bool {
        self.load.penalize(now, penalty, &self.shared.load);
        self.outcomes.failed(now, &self.shared.outcomes)
    }

    #[cold]
    fn trial_ended(&self, outcome: Outcome) -> Notice {
        self.trial.store(false, Ordering::Release);
        match outcome {
            Outcome::Success | Outcome::Untimed => Notice::Trial(true),
            Outcome::Failure { .. } => Notice::Trial(false),
            // The next call is the trial.
            Outcome::Cancelled | Outcome::Rejected { .. } => Notice::None,
        }
    }

    /// Takes the right to send the call that tests this backend, if no other has it.
    pub(super) fn take_trial(&self) -> bool {
        !self.trial.swap(true, Ordering::Acquire)
    }

    pub(super) fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    /// Forgets latency and outcomes: the backend begins anew.
    pub(super) fn forget(&self) {
        self.load.forget();
        self.outcomes.forget();
    }
}
