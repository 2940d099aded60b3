//! The state of backends as a pick sees it, for people.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::balancer::Balancer;
use super::health::{Standing, State};
use super::load::Load;
use super::outcomes::Trigger;
use super::picker::PickHint;
use super::policy::Policy;
use super::tier::Member;
use crate::printable::Printable;
use crate::transport::Endpoint;

/// The state of a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BackendState {
    /// It gets its full share of calls.
    Ready,
    /// It gets a share that rises.
    SlowStart,
    /// It has failed too often, and gets calls only if no other backend can take them.
    Ejected,
    /// Its ejection is over, and a ping and a call test it.
    HalfOpen,
    /// It refuses connections.
    Down,
    /// It is not connected yet, or has sent a drain notice.
    GoingAway,
    /// Its weight is 0: it gets no calls.
    Drained,
}

impl fmt::Display for BackendState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ready => "ready",
            Self::SlowStart => "slow start",
            Self::Ejected => "ejected",
            Self::HalfOpen => "half open",
            Self::Down => "down",
            Self::GoingAway => "not connected",
            Self::Drained => "drained",
        })
    }
}

/// The state of one backend, as a pick sees it.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct BackendExplanation {
    /// The stable id.
    pub id: Arc<str>,
    /// The address.
    pub endpoint: Endpoint,
    /// The state.
    pub state: BackendState,
    /// The weight, less what slow start takes of it.
    pub weight: f64,
    /// The calls in flight.
    pub in_flight: u32,
    /// The expected cost of another call in nanoseconds: latency x (calls in flight + 1) / weight.
    /// [`Policy::P2c`] prefers the lower one. `None` if the backend is drained.
    pub score: Option<f64>,
    /// The reasons why the backend is preferred or avoided, in sentences.
    pub reasons: Vec<String>,
}

/// Displays `orders-1 (10.0.0.1:7000): ready, weight 1, 3 in flight, score 1.2 ms: reasons`.
impl fmt::Display for BackendExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.endpoint.to_string();
        match *self.id == *address {
            true => f.write_str(&address)?,
            false => write!(f, "{} ({address})", Printable(&self.id))?,
        }
        let (state, weight, in_flight) = (self.state, self.weight, self.in_flight);
        write!(f, ": {state}, weight {weight:.3}, {in_flight} in flight")?;
        if let Some(score) = self.score {
            write!(f, ", score {:.3} ms", score / 1e6)?;
        }
        let mut before = ": ";
        for reason in &self.reasons {
            write!(f, "{before}{reason}")?;
            before = "; ";
        }
        Ok(())
    }
}

impl<T> Balancer<T> {
    /// Returns what a pick at `now` would see of each backend, in the order of the set.
    #[must_use]
    pub fn explain(&self, hint: &PickHint<'_>, now: Instant) -> Vec<BackendExplanation> {
        let now = self.shared.epoch.nanos(now);
        let median = self.picker.median;
        let fastest = self.fastest();
        let all = self.set.iter().zip(&self.health).enumerate();
        all.map(|(index, ((backend, info), health))| {
            let warmth = health.warmth(now, &self.settings);
            let member = Member::new(backend, index, info.weight, warmth);
            let drained = info.weight == 0;
            let mut reasons = reasons(health.state(), now, warmth);
            if drained {
                reasons.push("weight 0: it gets no new calls".to_owned());
            }
            if hint.excluded.contains(&backend.id()) {
                reasons.push("this call has been sent to it already".to_owned());
            }
            let zone = hint.zone.or(self.options.zone.as_deref());
            if zone.is_some() && info.zone.as_deref() != zone {
                reasons.push("it is in another zone".to_owned());
            }
            let (good, bad) = backend.outcomes().window(now, &self.shared.outcomes);
            if bad > 0 {
                let window = self.options.window;
                reasons.push(format!(
                    "{bad} of {} calls failed within {window:?}",
                    good + bad
                ));
            }
            if let Some(fastest) = fastest
                && backend.load().is_slower(fastest, now, &self.shared.load)
            {
                let mean = |load: &Load| Duration::from_secs_f64(load.mean() / 1e9);
                reasons.push(format!(
                    "slow: a call takes {:.1?} on average, and {:.1?} at the fastest backend",
                    mean(backend.load()),
                    mean(fastest)
                ));
            }
            BackendExplanation {
                id: Arc::clone(&info.id),
                endpoint: info.endpoint.clone(),
                state: if drained {
                    BackendState::Drained
                } else {
                    public(health.state())
                },
                weight: member.weight,
                in_flight: backend.load().in_flight(),
                score: (!drained).then(|| member.score(now, median, &self.shared.load)),
                reasons,
            }
        })
        .collect()
    }

    /// Returns the usable backend with the least mean latency, if the policy compares them.
    fn fastest(&self) -> Option<&Load> {
        if !matches!(self.options.tier_policy(), Policy::P2c) {
            return None;
        }
        let all = self.set.iter().zip(&self.health);
        let usable = all.filter(|(_, health)| health.standing() == Standing::Usable);
        let loads = usable.map(|((backend, _), _)| backend.load());
        let sampled = loads.filter(|load| load.mean() > 0.0);
        sampled.min_by(|left, right| left.mean().total_cmp(&right.mean()))
    }
}

fn public(state: State) -> BackendState {
    match state {
        State::Ready => BackendState::Ready,
        State::SlowStart { .. } => BackendState::SlowStart,
        State::Ejected { .. } => BackendState::Ejected,
        State::HalfOpen { .. } => BackendState::HalfOpen,
        State::Down => BackendState::Down,
        State::GoingAway => BackendState::GoingAway,
    }
}

fn reasons(state: State, now: u64, warmth: f64) -> Vec<String> {
    let reason = match state {
        State::Ready => return Vec::new(),
        State::SlowStart { .. } => format!("slow start: {:.0} % of its weight", warmth * 100.0),
        State::Ejected { until, why } => {
            let left = Duration::from_nanos(until.saturating_sub(now));
            let why = match why {
                Trigger::InARow(failures) => format!("{failures} failures in a row"),
                Trigger::Share { good, calls } => format!("{good} of {calls} calls succeeded"),
                Trigger::Trial => "the test after the last ejection failed".to_owned(),
            };
            format!("ejected for another {left:.1?}: {why}")
        }
        State::HalfOpen { pinged: false, .. } => "the ejection is over: needs a ping".to_owned(),
        State::HalfOpen { pinged: true, .. } => {
            "the ejection is over: the next idempotent call tests it".to_owned()
        }
        State::Down => "it refuses connections".to_owned(),
        State::GoingAway => "it is not connected".to_owned(),
    };
    vec![reason]
}
