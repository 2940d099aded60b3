//! The preference for backends of the same zone.
//!
//! The calls in flight that a client knows of are its own. All of them are in its zone if it
//! prefers the zone, so its mean is above that of all zones by nature. Therefore a queue counts as
//! long only beyond a number of calls, and the share that leaves the zone rises and falls in steps
//! instead of all at once, which would oscillate.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::options::BalanceOptions;
use super::picker::FRESH;
use super::tier::Member;

/// The mean of calls in flight per weight up to which a zone keeps its calls.
const SLACK: f64 = 8.0;
/// The part of the calls that leaves a zone with a long queue, more each second.
const STEP_OUT: f64 = 0.1;
/// The part of the calls that returns to a zone, more each second.
const STEP_BACK: f64 = 0.05;

/// The share of its calls that each zone keeps.
#[derive(Debug)]
pub(super) struct ZoneShares {
    min_backends: usize,
    overflow: f64,
    shares: BTreeMap<Arc<str>, f64>,
    changed: u64,
}

impl ZoneShares {
    pub(super) fn new(options: &BalanceOptions) -> Self {
        Self {
            min_backends: options.zone_min_backends,
            overflow: options.zone_overflow,
            shares: BTreeMap::new(),
            changed: 0,
        }
    }

    /// Returns `true` if a zone does not keep all its calls.
    pub(super) fn is_overflowing(&self) -> bool {
        self.shares.values().any(|share| *share < 1.0)
    }

    /// Takes the usable backends of the best priority, and their zones. Returns the zones with
    /// enough backends, in order, each with its share and its members.
    pub(super) fn update<'a, T>(
        &mut self,
        now: u64,
        members: &'a [Member<T>],
        zone_of: impl Fn(&Member<T>) -> Option<&'a str>,
    ) -> Vec<(Arc<str>, f64, Vec<Member<T>>)> {
        let mut zones = BTreeMap::<&str, Vec<&Member<T>>>::new();
        for member in members {
            if let Some(zone) = zone_of(member) {
                zones.entry(zone).or_default().push(member);
            }
        }
        zones.retain(|_, members| members.len() >= self.min_backends);
        let steps = now.saturating_sub(self.changed) >= FRESH;
        if steps {
            self.changed = now;
        }
        let all = queue(members.iter());
        let mut shares = BTreeMap::new();
        let mut result = Vec::new();
        for (zone, members) in zones {
            let mut share = self.shares.get(zone).copied().unwrap_or(1.0);
            if steps {
                share = match queue(members.iter().copied()) > SLACK + self.overflow * all {
                    true => (share - STEP_OUT).max(0.0),
                    false => (share + STEP_BACK).min(1.0),
                };
            }
            let zone = Arc::<str>::from(zone);
            shares.insert(Arc::clone(&zone), share);
            let members = members.into_iter().cloned().collect();
            result.push((zone, share, members));
        }
        self.shares = shares;
        result
    }
}

/// Returns the mean of calls in flight per weight.
fn queue<'a, T: 'a>(members: impl Iterator<Item = &'a Member<T>>) -> f64 {
    let (mut calls, mut weight) = (0.0, 0.0);
    for member in members {
        calls += f64::from(member.backend.load().in_flight());
        weight += member.weight;
    }
    calls / f64::max(weight, f64::MIN_POSITIVE)
}
