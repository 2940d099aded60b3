//! A list of backends that are equally good to pick from, and the policies that pick from it.

use std::hint::select_unpredictable;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::backend::{Backend, BackendId, MAX_WEIGHT};
use super::hash::below;
use super::load::LoadSettings;
use super::policy::Policy;
use super::time::Epoch;

/// Latencies below this count as this, in nanoseconds: a backend that replies at once is not
/// infinitely better than others.
const MIN_LATENCY: f64 = 1000.0;
/// The number of draws of a policy before the search goes on from the last one.
const DRAWS: usize = 8;
/// The number of members that [`Policy::LeastPending`] compares together.
const GROUP: usize = 4;
/// The cost of the first call at the members of the least weight.
const MAX_COST: u64 = 1 << 24;
/// The part of the picks of a slow backend that are made nevertheless: they show whether it is slow
/// still.
const PROBES: f64 = 1.0 / 256.0;
/// The scaled weight of the heaviest member of a [`Stride`].
const MAX_STRIDE: u64 = 65_535;

/// One pick: its source of random numbers, and whom it must not choose.
pub(super) struct Draw<'a> {
    pub(super) rng: fastrand::Rng,
    pub(super) at: Instant,
    pub(super) epoch: Epoch,
    pub(super) median: f64,
    pub(super) load: &'a LoadSettings,
    /// Latencies with a sample since then need no decay. Most picks thus do without the time as a
    /// number, which takes a quarter of a pick.
    pub(super) fresh_since: u64,
    pub(super) excluded: &'a [BackendId],
    /// A number that all picks of a client share.
    pub(super) turn: &'a AtomicU64,
    /// The number that this pick has taken of it.
    pub(super) taken: Option<u64>,
}

impl Draw<'_> {
    #[inline]
    pub(super) fn accepts<T>(&self, backend: &Backend<T>) -> bool {
        self.excluded.is_empty() || !self.excluded.contains(&backend.id())
    }

    fn now(&self) -> u64 {
        self.epoch.nanos(self.at)
    }

    #[inline]
    fn next_turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }
}

/// A backend to pick.
#[derive(Debug)]
pub(super) struct Member<T> {
    pub(super) backend: Arc<Backend<T>>,
    /// The position within the set.
    pub(super) index: usize,
    /// The weight, less what slow start takes of it.
    pub(super) weight: f64,
    /// One divided by the weight: a product is cheaper.
    inverse: f64,
    /// The least weight of its tier divided by the weight, times [`MAX_COST`].
    unit: u64,
    /// The share of its weight that slow start leaves.
    pub(super) warmth: f64,
}

impl<T> Clone for Member<T> {
    fn clone(&self) -> Self {
        Self {
            backend: Arc::clone(&self.backend),
            ..*self
        }
    }
}

impl<T> Member<T> {
    /// Creates a member of a weight of which slow start leaves the share `warmth`.
    pub(super) fn new(backend: &Arc<Backend<T>>, index: usize, weight: u32, warmth: f64) -> Self {
        let weight = f64::from(weight.min(MAX_WEIGHT)) * warmth;
        Self {
            backend: Arc::clone(backend),
            index,
            weight,
            inverse: weight.recip(),
            unit: MAX_COST,
            warmth,
        }
    }

    /// Returns the expected cost of another call.
    #[inline]
    pub(super) fn score(&self, now: u64, median: f64, settings: &LoadSettings) -> f64 {
        let latency = self.backend.load().latency(now, median, settings);
        latency.max(MIN_LATENCY) * self.pending()
    }

    /// Returns the [score](Self::score) if its decay need not be computed.
    #[inline]
    fn fresh(&self, draw: &Draw<'_>) -> Option<f64> {
        let latency = self.backend.load().fresh_latency(draw.fresh_since)?;
        Some(latency.max(MIN_LATENCY) * self.pending())
    }

    /// Returns what the costs of the member are multiplied by for this pick. In slow start, it is
    /// compared by its whole weight in a part of the picks, so that it gets calls even if the others
    /// are idle.
    #[inline]
    fn discount(&self, draw: &mut Draw<'_>) -> f64 {
        match self.warmth < 1.0 && draw.rng.f64() < self.warmth {
            true => self.warmth,
            false => 1.0,
        }
    }

    /// Returns the calls in flight with another one, by weight.
    #[inline]
    fn pending(&self) -> f64 {
        (f64::from(self.backend.load().in_flight()) + 1.0) * self.inverse
    }

    /// Returns the same as an integer, which takes half as long.
    #[inline]
    fn cost(&self) -> u64 {
        // Less than 2^33 times 2^24.
        (u64::from(self.backend.load().in_flight()) + 1).wrapping_mul(self.unit)
    }
}

/// Backends that are equally good to pick from.
#[derive(Debug)]
pub(super) struct Tier<T> {
    pub(super) members: Vec<Member<T>>,
    /// All weights are equal.
    equal: bool,
    /// A member is in slow start.
    has_cold: bool,
    order: Order,
}

/// The data that a policy computes in advance.
#[derive(Debug)]
enum Order {
    Pairs,
    LeastPending,
    RoundRobin,
    Cumulative(Vec<f64>),
    Stride(Stride),
}

impl<T> Tier<T> {
    pub(super) fn new(mut members: Vec<Member<T>>, policy: &Policy) -> Self {
        let least = members.iter().map(|member| member.weight);
        let least = least.fold(f64::INFINITY, f64::min);
        for member in &mut members {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "it is between 0 and MAX_COST"
            )]
            let unit = (least * member.inverse * MAX_COST as f64).round() as u64;
            member.unit = unit.clamp(1, MAX_COST);
        }
        let weights = || members.iter().map(|member| member.weight);
        let first = weights().next().unwrap_or(1.0);
        let equal = weights().all(|weight| weight.total_cmp(&first).is_eq());
        let has_cold = members.iter().any(|member| member.warmth < 1.0);
        let order = match policy {
            Policy::P2c => Order::Pairs,
            Policy::LeastPending => Order::LeastPending,
            Policy::RoundRobin => Order::RoundRobin,
            Policy::Random => {
                let sums = weights().scan(0.0, |sum, weight| {
                    *sum += weight;
                    Some(*sum)
                });
                Order::Cumulative(sums.collect())
            }
            Policy::Weighted => Order::Stride(Stride::new(weights())),
            // The picker hashes by itself, and the tiers of chosen backends have the base policy.
            Policy::RingHash
            | Policy::GoHashIp
            | Policy::GoHashParam { .. }
            | Policy::Choose(_) => Order::Pairs,
        };
        Self {
            members,
            equal,
            has_cold,
            order,
        }
    }

    /// Picks a member; `None` if none is acceptable.
    #[inline]
    pub(super) fn pick(&self, draw: &mut Draw<'_>) -> Option<&Member<T>> {
        match (&self.order, self.members.len()) {
            (Order::Pairs, 2..) => self.better_of_two(draw),
            _ => self.pick_in_order(draw),
        }
    }

    fn pick_in_order(&self, draw: &mut Draw<'_>) -> Option<&Member<T>> {
        if let [only] = &self.members[..] {
            return Some(only).filter(|only| draw.accepts(&only.backend));
        }
        let count = self.members.len();
        if count == 0 {
            return None;
        }
        match &self.order {
            Order::Pairs => self.better_of_two(draw),
            Order::LeastPending => self.least_pending(draw),
            Order::RoundRobin => self.drawn(draw, |draw| remainder(draw.next_turn(), count)),
            Order::Cumulative(sums) => self.drawn(draw, |draw| {
                let sum = sums.last().copied().unwrap_or_default();
                let point = draw.rng.f64() * sum;
                sums.partition_point(|sum| *sum <= point)
            }),
            Order::Stride(stride) => self.drawn(draw, |draw| stride.next(draw.turn)),
        }
    }

    /// Picks the one with the lower score of two random members, unless it is slow.
    #[inline]
    fn better_of_two(&self, draw: &mut Draw<'_>) -> Option<&Member<T>> {
        let count = self.members.len();
        let random = draw.rng.u64(..);
        // The two draws use different halves of the number.
        let first = below(random, count);
        let second = below(random << 32, count - 1);
        let second = second + usize::from(second >= first);
        let (left, right) = (self.members.get(first)?, self.members.get(second)?);
        if !draw.excluded.is_empty() {
            match (draw.accepts(&left.backend), draw.accepts(&right.backend)) {
                (true, true) => {}
                (true, false) => return Some(left),
                (false, true) => return Some(right),
                (false, false) => {
                    let start = below(draw.rng.u64(..), count);
                    return self.search(draw, start);
                }
            }
        }
        let (mut left_score, mut right_score) = match (left.fresh(draw), right.fresh(draw)) {
            (Some(left), Some(right)) => (left, right),
            _ => exact_scores(left, right, draw),
        };
        if self.has_cold {
            left_score *= left.discount(draw);
            right_score *= right.discount(draw);
        }
        let (load, other) = (left.backend.load(), right.backend.load());
        // If the scores are equal, the draw of the first was the coin.
        let is_left = left_score <= right_score;
        if load.seems_slower(other) | other.seems_slower(load) {
            let (best, other) = if is_left {
                (left, right)
            } else {
                (right, left)
            };
            return Some(faster(best, other, draw));
        }
        Some(select_unpredictable(is_left, left, right))
    }

    /// Picks the member with the fewest calls in flight by weight; of equal ones, in turns.
    #[inline]
    fn least_pending(&self, draw: &mut Draw<'_>) -> Option<&Member<T>> {
        // One turn for each pick, or picks that search twice would skip every second backend.
        let turn = draw.taken.unwrap_or_else(|| draw.next_turn());
        draw.taken = Some(turn);
        let start = remainder(turn, self.members.len());
        if self.members.len() >= 4 * GROUP && !self.has_cold && draw.excluded.is_empty() {
            return self.fewest_of_many(start);
        }
        let (before, after) = self.members.split_at_checked(start)?;
        let mut best = None;
        let mut least = f64::INFINITY;
        for member in after.iter().chain(before) {
            let mut pending = member.pending();
            if self.has_cold {
                pending *= member.discount(draw);
            }
            if pending >= least || !draw.accepts(&member.backend) {
                continue;
            }
            (best, least) = (Some(member), pending);
            // None can have fewer than none.
            if self.equal && member.backend.load().in_flight() == 0 {
                return best;
            }
        }
        best
    }

    /// Picks the member with the fewest calls in flight by weight; of equal ones, the first at
    /// `start` or behind it.
    fn fewest_of_many(&self, start: usize) -> Option<&Member<T>> {
        let (before, after) = self.members.split_at_checked(start)?;
        let (mut best, mut least) = (None, u64::MAX);
        for part in [after, before] {
            let (groups, rest) = part.as_chunks::<GROUP>();
            for group in groups {
                let [a, b, c, d] = group.each_ref().map(Member::cost);
                // Most groups have no better member, which takes one branch to see.
                if a.min(b).min(c.min(d)) < least {
                    (best, least) = fewer(group, best, least);
                    // None can have fewer than none.
                    if self.equal && least == MAX_COST {
                        return best;
                    }
                }
            }
            (best, least) = fewer(rest, best, least);
        }
        best
    }

    /// Picks the first acceptable member of several draws; after them, the next one in the list. A
    /// policy that ignores weights gives a member in slow start its share of the draws.
    #[inline]
    fn drawn(
        &self,
        draw: &mut Draw<'_>,
        mut next: impl FnMut(&mut Draw<'_>) -> usize,
    ) -> Option<&Member<T>> {
        let thinned = matches!(self.order, Order::RoundRobin);
        let mut index = 0;
        for _ in 0..DRAWS {
            index = next(draw);
            let member = self.members.get(index)?;
            let cold = thinned && member.warmth < 1.0 && draw.rng.f64() >= member.warmth;
            if !cold && draw.accepts(&member.backend) {
                return Some(member);
            }
        }
        self.search(draw, index)
    }

    /// Returns the first acceptable member at `start` or behind it, or from the beginning.
    fn search(&self, draw: &Draw<'_>, start: usize) -> Option<&Member<T>> {
        let (before, after) = self.members.split_at_checked(start)?;
        let mut all = after.iter().chain(before);
        all.find(|member| draw.accepts(&member.backend))
    }
}

#[inline(never)]
fn exact_scores<T>(left: &Member<T>, right: &Member<T>, draw: &Draw<'_>) -> (f64, f64) {
    let now = draw.now();
    let score = |member: &Member<T>| member.score(now, draw.median, draw.load);
    (score(left), score(right))
}

/// Returns `other` if `best` is slow, except for a few picks.
#[cold]
fn faster<'m, T>(best: &'m Member<T>, other: &'m Member<T>, draw: &mut Draw<'_>) -> &'m Member<T> {
    let (load, fast) = (best.backend.load(), other.backend.load());
    match load.is_slower(fast, draw.now(), draw.load) && draw.rng.f64() >= PROBES {
        true => other,
        false => best,
    }
}

/// Returns the first member whose cost is the least and less than `least`, with that cost; else
/// `best`.
fn fewer<'m, T>(
    members: &'m [Member<T>],
    mut best: Option<&'m Member<T>>,
    mut least: u64,
) -> (Option<&'m Member<T>>, u64) {
    for member in members {
        let cost = member.cost();
        if cost < least {
            (best, least) = (Some(member), cost);
        }
    }
    (best, least)
}

/// Returns a number below `count` that follows `turn`.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower bits of a turn are enough, and there are fewer backends"
)]
fn remainder(turn: u64, count: usize) -> usize {
    // Half as long as a division of 64 bits.
    (turn as u32).checked_rem(count as u32).unwrap_or_default() as usize
}

/// The static stride scheduler of grpc-go: member i of round r is taken if
/// `(weight * r + i * offset) mod max >= max - weight`. It spreads each member evenly over the
/// rounds, and all that picks share is one number.
#[derive(Debug)]
struct Stride {
    /// The weights, scaled so that the heaviest has [`MAX_STRIDE`].
    weights: Vec<u16>,
}

impl Stride {
    fn new(weights: impl Iterator<Item = f64> + Clone) -> Self {
        let max = weights.clone().fold(0.0, f64::max);
        #[expect(clippy::cast_precision_loss, reason = "it is a small number")]
        let scale = MAX_STRIDE as f64 / max;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is between 1 and 65,535"
        )]
        let weights = weights.map(|weight| (weight * scale).round().max(1.0) as u16);
        Self {
            weights: weights.collect(),
        }
    }

    /// Returns the position of the next member. Ends within one round, because the heaviest member
    /// is taken in each.
    #[inline]
    fn next(&self, turn: &AtomicU64) -> usize {
        let count = self.weights.len();
        loop {
            let turn = turn.fetch_add(1, Ordering::Relaxed);
            let (round, index) = (turn / count as u64, turn % count as u64);
            #[expect(clippy::cast_possible_truncation, reason = "it is below `count`")]
            let index = index as usize;
            let Some(weight) = self.weights.get(index) else {
                return 0;
            };
            let weight = u64::from(*weight);
            let offset = index as u64 * (MAX_STRIDE / 2);
            let place = (weight.wrapping_mul(round).wrapping_add(offset)) % MAX_STRIDE;
            if place >= MAX_STRIDE - weight {
                return index;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stride_is_exact_and_spread() {
        let stride = Stride::new([5.0, 1.0, 4.0].into_iter());
        let turn = AtomicU64::new(7_777);
        let mut counts = [0_u32; 3];
        for _ in 0..1000 {
            let mut ten = [0_u32; 3];
            for _ in 0..10 {
                ten[stride.next(&turn)] += 1;
            }
            assert!(ten[0].abs_diff(5) <= 1, "{ten:?}");
            for (sum, more) in counts.iter_mut().zip(ten) {
                *sum += more;
            }
        }
        for (count, weight) in counts.iter().zip([5000_u32, 1000, 4000]) {
            assert!(count.abs_diff(weight) <= 10, "{counts:?}");
        }
    }

    #[test]
    fn a_remainder_follows_its_turn() {
        assert_eq!((remainder(7, 3), remainder(u64::MAX, 1)), (1, 0));
        assert_eq!(remainder(7, 0), 0);
    }
}
