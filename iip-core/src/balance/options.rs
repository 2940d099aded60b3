//! The settings of balancing.

use std::sync::Arc;
use std::time::Duration;

use super::choose::Fallback;
use super::health::HealthSettings;
use super::load::LoadSettings;
use super::outcomes::{BUCKETS, OutcomeSettings};
use super::policy::Policy;
use super::time::nanos;
use crate::error::ConfigError;

/// The sizes that the table of consistent hashing may have.
const RING_SIZES: std::ops::RangeInclusive<usize> = 1024..=65_536;

/// The settings of balancing. The defaults suit most programs.
#[derive(Clone, Debug)]
pub struct BalanceOptions {
    pub(super) policy: Policy,
    pub(super) base_policy: Policy,
    pub(super) fallback: Fallback,
    pub(super) zone: Option<Arc<str>>,
    pub(super) zone_min_backends: usize,
    pub(super) zone_overflow: f64,
    pub(super) subset: Option<usize>,
    pub(super) client_id: u64,
    pub(super) decay: Duration,
    pub(super) penalty_decay: Duration,
    pub(super) min_penalty: Duration,
    pub(super) max_penalty: Duration,
    pub(super) failures_in_a_row: u32,
    pub(super) min_success: f64,
    pub(super) min_calls: u32,
    pub(super) window: Duration,
    pub(super) ejection_time: Duration,
    pub(super) max_ejection_time: Duration,
    pub(super) max_ejected: f64,
    pub(super) slow_start: Duration,
    pub(super) slow_start_min: f64,
    pub(super) recovery_time: Duration,
    pub(super) recovery_share: f64,
    pub(super) connect_spread: Duration,
    pub(super) ring_size: usize,
    pub(super) ring_bound: f64,
    pub(super) empty_grace: Duration,
}

impl Default for BalanceOptions {
    fn default() -> Self {
        Self {
            policy: Policy::P2c,
            base_policy: Policy::P2c,
            fallback: Fallback::Fail,
            zone: None,
            zone_min_backends: 2,
            zone_overflow: 1.2,
            subset: None,
            client_id: 0,
            decay: Duration::from_secs(10),
            penalty_decay: Duration::from_secs(1),
            min_penalty: Duration::from_secs(1),
            max_penalty: Duration::from_secs(30),
            failures_in_a_row: 5,
            min_success: 0.5,
            min_calls: 20,
            window: Duration::from_secs(10),
            ejection_time: Duration::from_secs(10),
            max_ejection_time: Duration::from_secs(300),
            max_ejected: 0.5,
            slow_start: Duration::from_secs(10),
            slow_start_min: 0.1,
            recovery_time: Duration::from_secs(10),
            recovery_share: 0.5,
            connect_spread: Duration::from_millis(500),
            ring_size: 4096,
            ring_bound: 1.25,
            empty_grace: Duration::from_secs(60),
        }
    }
}

impl BalanceOptions {
    /// Returns the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how a backend is picked. Default: [`Policy::P2c`].
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets how a backend is picked from those that [`Policy::Choose`] has chosen. Default:
    /// [`Policy::P2c`]. A policy that hashes or chooses is rejected.
    #[must_use]
    pub fn base_policy(mut self, policy: Policy) -> Self {
        self.base_policy = policy;
        self
    }

    /// Sets what happens to a call if the backends that [`Policy::Choose`] has chosen are not known
    /// or not usable. Default: [`Fallback::Fail`], as in the Go client.
    #[must_use]
    pub fn fallback(mut self, fallback: Fallback) -> Self {
        self.fallback = fallback;
        self
    }

    /// Sets the zone of this client, whose backends are preferred. Default: none.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<Arc<str>>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Sets the number of usable backends that a zone must have to be preferred. Default: 2;
    /// 0 is rejected.
    #[must_use]
    pub fn zone_min_backends(mut self, backends: usize) -> Self {
        self.zone_min_backends = backends;
        self
    }

    /// Sets how much longer than that of all backends the queue of a zone may be: the ratio of
    /// their mean calls in flight per weight, above eight calls. Beyond it, part of the calls of
    /// the zone go to all zones. Default: 1.2; less than 1 is rejected.
    #[must_use]
    pub fn zone_overflow(mut self, ratio: f64) -> Self {
        self.zone_overflow = ratio;
        self
    }

    /// Sets the number of backends that this client uses, chosen by rendezvous hashing of their
    /// stable ids with [`client_id`](Self::client_id). Default: all; 0 is rejected.
    ///
    /// It limits the connections of many clients to many servers. Each change of the backends
    /// changes at most one of a subset.
    #[must_use]
    pub fn subset(mut self, backends: usize) -> Self {
        self.subset = Some(backends);
        self
    }

    /// Sets the number that distinguishes this client from others with the same backends.
    /// Default: 0, for a random one. A fixed number keeps the [`subset`](Self::subset) of a client
    /// that is started again.
    #[must_use]
    pub fn client_id(mut self, id: u64) -> Self {
        self.client_id = id;
        self
    }

    /// Sets the time constant with which latencies fall. Default: 10 s; less than a millisecond is
    /// rejected.
    #[must_use]
    pub fn decay(mut self, time: Duration) -> Self {
        self.decay = time;
        self
    }

    /// Sets the time constant with which the penalty of a failure falls. Default: 1 s: a backend
    /// with one failure among many successes is avoided for seconds. Less than a millisecond is
    /// rejected.
    #[must_use]
    pub fn penalty_decay(mut self, time: Duration) -> Self {
        self.penalty_decay = time;
        self
    }

    /// Sets the minimum and the maximum of the penalty of a failure, which counts like a latency.
    /// Default: 1 s and 30 s. A minimum above the maximum is rejected.
    #[must_use]
    pub fn penalty(mut self, min: Duration, max: Duration) -> Self {
        (self.min_penalty, self.max_penalty) = (min, max);
        self
    }

    /// Sets the number of failures in a row after which a backend is ejected. Default: 5; 0: any
    /// number.
    #[must_use]
    pub fn failures_in_a_row(mut self, failures: u32) -> Self {
        self.failures_in_a_row = failures;
        self
    }

    /// Sets the share of successes below which a backend is ejected, if there were at least
    /// `calls` within the [`window`](Self::window). Default: 0.5 of 20 calls; a share of 0: never.
    /// A share that is not between 0 and 1, and 0 calls, are rejected.
    #[must_use]
    pub fn min_success(mut self, share: f64, calls: u32) -> Self {
        (self.min_success, self.min_calls) = (share, calls);
        self
    }

    /// Sets the window for successes and failures. Default: 10 s; it has ten parts, and less than
    /// 10 ms is rejected.
    #[must_use]
    pub fn window(mut self, time: Duration) -> Self {
        self.window = time;
        self
    }

    /// Sets the time of the first ejection and the maximum. The time doubles with each ejection,
    /// halves with each window without one, and varies by 20 %. Default: 10 s and 300 s; less than
    /// a millisecond, and a first time above the maximum, are rejected.
    #[must_use]
    pub fn ejection_time(mut self, first: Duration, max: Duration) -> Self {
        (self.ejection_time, self.max_ejection_time) = (first, max);
        self
    }

    /// Sets the maximum share of backends that are ejected at the same time. Those that refuse
    /// connections do not count. Default: 0.5; 0: no ejection. A share that is not between 0 and 1
    /// is rejected. The last usable backend is never ejected.
    #[must_use]
    pub fn max_ejected(mut self, share: f64) -> Self {
        self.max_ejected = share;
        self
    }

    /// Sets the time in which the weight of a backend that joins or returns rises to its full
    /// value, and the share of it at the beginning. It applies only while others are warm.
    /// Default: 10 s and 0.1; zero time: none. A share that is not between 0.01 and 1 is rejected.
    #[must_use]
    pub fn slow_start(mut self, time: Duration, min_share: f64) -> Self {
        (self.slow_start, self.slow_start_min) = (time, min_share);
        self
    }

    /// Sets the throttle after a total outage: while the usable backends are fewer than `share` of
    /// all, calls pass with the probability of usable to wanted backends, until `time` passes
    /// without a change. Default: 10 s and 0.5; zero time: no throttle. A share that is not between
    /// 0 and 1 is rejected.
    #[must_use]
    pub fn recovery(mut self, time: Duration, share: f64) -> Self {
        (self.recovery_time, self.recovery_share) = (time, share);
        self
    }

    /// Sets the time over which connections to new backends are spread while others are usable.
    /// Default: 500 ms.
    #[must_use]
    pub fn connect_spread(mut self, time: Duration) -> Self {
        self.connect_spread = time;
        self
    }

    /// Sets the number of entries of the table of [`Policy::RingHash`]. Default: 4096, about ten
    /// bytes of memory for each; a power of two from 1024 to 65,536. Shares are even with 16
    /// entries for each backend or more.
    #[must_use]
    pub fn ring_size(mut self, entries: usize) -> Self {
        self.ring_size = entries;
        self
    }

    /// Sets how much more calls in flight than the mean a backend of [`Policy::RingHash`] may
    /// have. Default: 1.25; at most 1.1 is rejected, infinity: no bound.
    #[must_use]
    pub fn ring_bound(mut self, factor: f64) -> Self {
        self.ring_bound = factor;
        self
    }

    /// Sets the time for which a source must return no backends before the client believes it.
    /// Until then, the client keeps the last ones. Default: 60 s.
    #[must_use]
    pub fn empty_grace(mut self, time: Duration) -> Self {
        self.empty_grace = time;
        self
    }

    pub(crate) fn get_empty_grace(&self) -> Duration {
        self.empty_grace
    }

    pub(crate) fn get_connect_spread(&self) -> Duration {
        self.connect_spread
    }

    pub(crate) fn get_policy(&self) -> &Policy {
        &self.policy
    }

    /// Returns the policy by which tiers are picked from.
    pub(super) fn tier_policy(&self) -> &Policy {
        match &self.policy {
            Policy::Choose(_) => &self.base_policy,
            policy => policy,
        }
    }

    /// Replaces a client id of 0 by a random one.
    pub(crate) fn set_random_client_id(&mut self) {
        if self.client_id == 0 {
            self.client_id = crate::random::random_id();
        }
    }

    /// Returns the time by which the connection to a new backend is delayed. `random` is a fraction
    /// between 0 and 1. There is no delay unless other backends are usable.
    #[must_use]
    pub fn connect_delay(&self, others_usable: bool, random: f64) -> Duration {
        match others_usable {
            true => self.connect_spread.mul_f64(random.clamp(0.0, 1.0)),
            false => Duration::ZERO,
        }
    }

    /// Rejects settings that cannot work.
    ///
    /// # Errors
    ///
    /// Returns the first such setting.
    pub fn check(&self) -> Result<(), ConfigError> {
        ConfigError::check_time("decay", self.decay)?;
        ConfigError::check_time("penalty_decay", self.penalty_decay)?;
        ConfigError::check_time("ejection_time", self.ejection_time)?;
        ConfigError::check_count("zone_min_backends", self.zone_min_backends, 1..=usize::MAX)?;
        ConfigError::check_count("subset", self.subset.unwrap_or(1), 1..=usize::MAX)?;
        ConfigError::check_count("min_success", self.min_calls as usize, 1..=0x7FFF)?;
        ConfigError::check_count("ring_size", self.ring_size, RING_SIZES)?;
        if !self.ring_size.is_power_of_two() {
            let reason = format!("{} is not a power of two", self.ring_size);
            return Err(ConfigError::new("ring_size", reason));
        }
        if !self.base_policy.is_base() {
            let reason = format!(
                "{:?} cannot pick from chosen backends: use P2c, LeastPending, RoundRobin, Random \
                 or Weighted",
                self.base_policy
            );
            return Err(ConfigError::new("base_policy", reason));
        }
        if self.window < Duration::from_millis(10) {
            let reason = format!("{:?} is too short: write at least 10ms", self.window);
            return Err(ConfigError::new("window", reason));
        }
        check_order("penalty", self.min_penalty, self.max_penalty)?;
        check_order("ejection_time", self.ejection_time, self.max_ejection_time)?;
        check_number("min_success", self.min_success, 0.0, 1.0)?;
        check_number("max_ejected", self.max_ejected, 0.0, 1.0)?;
        check_number("slow_start", self.slow_start_min, 0.01, 1.0)?;
        check_number("recovery", self.recovery_share, 0.0, 1.0)?;
        check_number("zone_overflow", self.zone_overflow, 1.0, f64::INFINITY)?;
        // Little above the mean, most keys would move at every call.
        check_number(
            "ring_bound",
            self.ring_bound,
            1.1 + f64::EPSILON,
            f64::INFINITY,
        )
    }

    pub(super) fn load_settings(&self) -> LoadSettings {
        let float = |time: Duration| time.as_secs_f64() * 1e9;
        LoadSettings {
            decay: float(self.decay).recip(),
            penalty_decay: float(self.penalty_decay).recip(),
            min_penalty: float(self.min_penalty),
            max_penalty: float(self.max_penalty),
        }
    }

    pub(super) fn outcome_settings(&self) -> OutcomeSettings {
        OutcomeSettings {
            bucket: (nanos(self.window) / BUCKETS).max(1),
            in_a_row: self.failures_in_a_row,
            min_success: self.min_success,
            min_calls: self.min_calls,
        }
    }

    pub(super) fn health_settings(&self) -> HealthSettings {
        HealthSettings {
            ejection: self.ejection_time,
            max_ejection: self.max_ejection_time,
            window: nanos(self.window),
            slow_start: nanos(self.slow_start),
            min_warmth: self.slow_start_min,
        }
    }
}

fn check_order(option: &'static str, first: Duration, max: Duration) -> Result<(), ConfigError> {
    match first <= max {
        true => Ok(()),
        false => Err(ConfigError::new(
            option,
            format!("{first:?} is more than {max:?}"),
        )),
    }
}

fn check_number(option: &'static str, number: f64, min: f64, max: f64) -> Result<(), ConfigError> {
    match (min..=max).contains(&number) {
        true => Ok(()),
        false => {
            let reason = format!("{number} is not between {min} and {max}");
            Err(ConfigError::new(option, reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_work_and_what_cannot_work_is_named() {
        assert!(BalanceOptions::new().check().is_ok());
        let long = Duration::from_secs(400);
        let wrong = [
            (BalanceOptions::new().subset(0), "subset"),
            (BalanceOptions::new().ring_size(3000), "ring_size"),
            (
                BalanceOptions::new().base_policy(Policy::RingHash),
                "base_policy",
            ),
            (BalanceOptions::new().ring_bound(1.1), "ring_bound"),
            (BalanceOptions::new().ring_bound(f64::NAN), "ring_bound"),
            (
                BalanceOptions::new().ejection_time(long, Duration::from_secs(1)),
                "ejection_time",
            ),
            (BalanceOptions::new().min_success(1.5, 20), "min_success"),
            (BalanceOptions::new().slow_start(long, 0.0), "slow_start"),
            (BalanceOptions::new().decay(Duration::ZERO), "decay"),
            (
                BalanceOptions::new().window(Duration::from_millis(9)),
                "window",
            ),
        ];
        for (options, option) in wrong {
            assert_eq!(options.check().unwrap_err().option(), option);
        }
    }

    #[test]
    fn connections_are_spread_only_while_others_are_usable() {
        let options = BalanceOptions::new();
        assert_eq!(options.connect_delay(true, 0.5), Duration::from_millis(250));
        assert_eq!(options.connect_delay(false, 0.5), Duration::ZERO);
    }
}
