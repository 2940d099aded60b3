//! The last hour: curves of the busiest methods, and of all methods together.
//!
//! It is fed with readings of counters that only grow, and keeps what differs between two of them.
//! It has no clock: whoever feeds it says how many seconds have passed.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use iip_core::stats::{Codes, Histogram};

use super::ring::{Point, Ring};

/// The points of a curve with one per second, and of one with a point for each 10 s.
const SECONDS: usize = 300;
const TENS: usize = 360;

/// The seconds of a point of the longer curve.
pub(super) const TEN: u64 = 10;

/// The quantiles of [`Recent`].
const QUANTILES: [f64; 3] = [0.5, 0.99, 0.999];

/// The share of the activity of a method that remains after a second.
const KEPT_ACTIVITY: f64 = 0.97;

/// Returns a duration in microseconds, at least 1, because 0 means that there were no calls.
fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros())
        .unwrap_or(u32::MAX)
        .max(1)
}

/// The calls of a method that were counted since its beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counters<'a> {
    pub(super) codes: &'a Codes,
    pub(super) latency: &'a Histogram,
}

/// The points of the last 5 minutes and of the last hour.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    pub(super) seconds: Ring,
    pub(super) tens: Ring,
}

impl Curve {
    fn new() -> Self {
        Self {
            seconds: Ring::new(SECONDS),
            tens: Ring::new(TENS),
        }
    }

    /// Adds a point for each of `seconds`, and one of 10 s.
    fn extend(&mut self, second: Point, seconds: u64, ten: Option<Point>) {
        for _ in 0..seconds {
            self.seconds.push(second);
        }
        if let Some(ten) = ten {
            self.tens.push(ten);
        }
    }
}

/// The calls of the last 10 to 20 s: since the last but one full 10 s.
#[derive(Clone, Default, PartialEq, Debug)]
pub(super) struct Recent {
    pub(super) seconds: u64,
    pub(super) codes: Codes,
    pub(super) errors: u64,
    /// In microseconds.
    pub(super) quantiles: Option<[u32; 3]>,
}

/// The counts of some seconds.
#[derive(Clone, Default, Debug)]
struct Sum {
    seconds: u64,
    codes: Codes,
    latency: Histogram,
}

impl Sum {
    fn add(&mut self, other: &Self) {
        self.seconds = self.seconds.saturating_add(other.seconds);
        self.codes.merge(&other.codes);
        self.latency.merge(&other.latency);
    }

    /// Returns the point of a curve; `share` is the number of points that share the counts.
    fn point(&self, share: u64) -> Point {
        let narrow = |count: u64| u32::try_from(count / share.max(1)).unwrap_or(u32::MAX);
        let quantile = |q| self.latency.quantile(q).map_or(0, micros);
        Point {
            calls: narrow(self.codes.total()),
            errors: narrow(self.codes.errors()),
            p50: quantile(0.5),
            p99: quantile(0.99),
        }
    }
}

/// The last seconds of a method, or of several.
#[derive(Debug, Default)]
pub(super) struct Last {
    /// Since the last full 10 s, and the full 10 s before.
    ten: Sum,
    full: Sum,
    pub(super) second: Point,
    /// The point of 10 s, if the last update has completed one.
    pub(super) completed: Option<Point>,
    pub(super) recent: Recent,
}

impl Last {
    /// Takes what was counted since the last update. `is_full` says that this ends 10 s.
    fn add(&mut self, sum: &Sum, is_full: bool) {
        self.second = sum.point(sum.seconds);
        self.ten.add(sum);
        self.completed = is_full.then(|| {
            // An update that was late by many seconds fills several spans of 10 s.
            let point = self.ten.point(self.ten.seconds.div_ceil(TEN));
            self.full = std::mem::take(&mut self.ten);
            point
        });
        let mut both = self.full.clone();
        both.add(&self.ten);
        let quantiles = QUANTILES.map(|q| both.latency.quantile(q).map(micros));
        self.recent = Recent {
            seconds: both.seconds,
            errors: both.codes.errors(),
            codes: both.codes,
            quantiles: match quantiles {
                [Some(p50), Some(p99), Some(p999)] => Some([p50, p99, p999]),
                _ => None,
            },
        };
    }
}

/// The history of one method.
#[derive(Debug, Default)]
pub(super) struct MethodHistory {
    before: (Codes, Histogram),
    pub(super) last: Last,
    /// The calls per second, averaged over about half a minute.
    activity: f64,
    pub(super) curve: Option<Box<Curve>>,
    /// The last update that had it.
    seen: u64,
}

impl MethodHistory {
    /// Returns what was counted since the last reading.
    fn read(&mut self, counters: &Counters<'_>, seconds: u64) -> Sum {
        let (codes, latency) = &self.before;
        // Counters that have become smaller are those of a successor.
        let is_other = counters.codes.total() < codes.total();
        let sum = match is_other {
            true => Sum::default(),
            false => Sum {
                seconds,
                codes: counters.codes.since(codes),
                latency: counters.latency.since(latency),
            },
        };
        self.before = (*counters.codes, counters.latency.clone());
        sum
    }

    fn add(&mut self, sum: &Sum, is_full: bool) {
        self.last.add(sum, is_full);
        let calls = f64::from(self.last.second.calls);
        for _ in 0..sum.seconds {
            self.activity = self.activity * KEPT_ACTIVITY + calls * (1.0 - KEPT_ACTIVITY);
        }
        if let Some(curve) = &mut self.curve {
            curve.extend(self.last.second, sum.seconds, self.last.completed);
        }
    }
}

/// The history of all methods of a group together.
#[derive(Debug)]
pub(super) struct GroupHistory {
    /// The counts since the last update.
    now: Sum,
    pub(super) last: Last,
    pub(super) curve: Curve,
}

impl GroupHistory {
    fn new(seconds: u64) -> Self {
        Self {
            now: Sum {
                seconds,
                ..Sum::default()
            },
            last: Last::default(),
            curve: Curve::new(),
        }
    }
}

/// The curves of methods, which have keys of type `K`, and of groups of them, of type `G`.
#[derive(Debug)]
pub(super) struct History<K, G> {
    pub(super) methods: HashMap<K, MethodHistory>,
    pub(super) groups: Vec<(G, GroupHistory)>,
    /// The most methods with curves, and their number.
    max_curves: usize,
    curves: usize,
    /// The seconds of all updates, and the number of updates.
    now: u64,
    updates: u64,
}

impl<K: Clone + Eq + Hash + Ord, G: PartialEq> History<K, G> {
    pub(super) fn new(max_curves: usize) -> Self {
        Self {
            methods: HashMap::new(),
            groups: Vec::new(),
            max_curves,
            curves: 0,
            now: 0,
            updates: 0,
        }
    }

    /// Takes the readings of all methods, `seconds` after the last ones. Methods that are not among
    /// them are forgotten. The first update is the beginning of the curves, without points.
    pub(super) fn update<'a>(
        &mut self,
        seconds: u64,
        readings: impl IntoIterator<Item = (K, G, Counters<'a>)>,
    ) {
        let is_first = self.updates == 0;
        // What was counted in more time than the curves show says nothing about any point.
        let seconds = seconds.clamp(1, SECONDS as u64);
        self.updates += 1;
        let tens = self.now / TEN;
        self.now += seconds;
        let is_full = self.now / TEN > tens;
        for (_, group) in &mut self.groups {
            group.now = Sum {
                seconds,
                ..Sum::default()
            };
        }
        for (key, group, counters) in readings {
            let method = self.methods.entry(key).or_default();
            method.seen = self.updates;
            let sum = method.read(&counters, seconds);
            let place = self.groups.iter().position(|(known, _)| *known == group);
            let place = place.unwrap_or_else(|| {
                self.groups.push((group, GroupHistory::new(seconds)));
                self.groups.len() - 1
            });
            if is_first {
                continue;
            }
            method.add(&sum, is_full);
            if let Some((_, group)) = self.groups.get_mut(place) {
                group.now.add(&Sum { seconds: 0, ..sum });
            }
        }
        let seen = self.updates;
        self.methods.retain(|_, method| {
            let is_known = method.seen == seen;
            self.curves -= usize::from(!is_known && method.curve.is_some());
            is_known
        });
        if is_first {
            return;
        }
        for (_, group) in &mut self.groups {
            group.last.add(&group.now, is_full);
            group
                .curve
                .extend(group.last.second, seconds, group.last.completed);
        }
        self.give_curves();
    }

    /// Gives curves to the busiest methods without one: while there is room, and then in place of
    /// the one that is least busy, if that has less than half of the calls.
    fn give_curves(&mut self) {
        let mut without: Vec<(f64, K)> = self.candidates(|method| method.curve.is_none());
        without.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let mut without = without.into_iter();
        while self.curves < self.max_curves {
            let Some((_, key)) = without.next() else {
                return;
            };
            self.give_curve(&key);
        }
        let Some((busy, key)) = without.next() else {
            return;
        };
        let with = self.candidates(|method| method.curve.is_some());
        let least = with.into_iter().min_by(|(a, _), (b, _)| a.total_cmp(b));
        // One per update, so that the search costs little.
        if let Some((least, other)) = least
            && least < busy / 2.0
        {
            if let Some(method) = self.methods.get_mut(&other) {
                method.curve = None;
            }
            self.curves -= 1;
            self.give_curve(&key);
        }
    }

    /// Returns the methods that are active and as wanted, in the order of their keys.
    fn candidates(&self, is_wanted: impl Fn(&MethodHistory) -> bool) -> Vec<(f64, K)> {
        let all = self.methods.iter();
        let wanted = all.filter(|(_, method)| {
            is_wanted(method) && (method.activity > 0.0 || method.curve.is_some())
        });
        let mut wanted: Vec<_> = wanted
            .map(|(key, method)| (method.activity, key.clone()))
            .collect();
        wanted.sort_by(|(_, a), (_, b)| a.cmp(b));
        wanted
    }

    fn give_curve(&mut self, key: &K) {
        if let Some(method) = self.methods.get_mut(key) {
            let mut curve = Curve::new();
            curve.seconds.push(method.last.second);
            method.curve = Some(Box::new(curve));
            self.curves += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The counters of one method.
    #[derive(Clone, Default, Debug)]
    struct Source {
        codes: Codes,
        latency: Histogram,
    }

    impl Source {
        fn call(&mut self, calls: u64, code: u8, millis: u64) {
            self.codes.add(code, calls);
            for _ in 0..calls {
                self.latency.record(Duration::from_millis(millis));
            }
        }

        fn counters(&self) -> Counters<'_> {
            Counters {
                codes: &self.codes,
                latency: &self.latency,
            }
        }
    }

    const UNAVAILABLE: u8 = 14;
    const NOT_FOUND: u8 = 5;

    type Keyed = History<u32, &'static str>;

    fn update(history: &mut Keyed, seconds: u64, sources: &[Source]) {
        let readings = sources.iter().zip(0_u32..);
        let readings = readings.map(|(source, key)| (key, "all", source.counters()));
        history.update(seconds, readings);
    }

    proptest! {
        #[test]
        fn curves_show_what_the_counters_have_gained(
            calls in prop::collection::vec((0_u64..5, 0_u64..3, 0_u64..3), 1..400),
        ) {
            let mut history = Keyed::new(5);
            let mut source = Source::default();
            // What was counted before the page began is in no curve.
            source.call(1000, UNAVAILABLE, 1);
            update(&mut history, 1, std::slice::from_ref(&source));
            let mut points = Vec::new();
            for &(good, bad, wrong) in &calls {
                source.call(good, 0, 5);
                source.call(bad, UNAVAILABLE, 5);
                source.call(wrong, NOT_FOUND, 5);
                update(&mut history, 1, std::slice::from_ref(&source));
                points.push(((good + bad + wrong) as u32, bad as u32));
            }
            let group = &history.groups[0].1;
            let pair = |point: &Point| (point.calls, point.errors);
            let kept: Vec<(u32, u32)> = group.curve.seconds.iter().map(pair).collect();
            let expected = &points[points.len().saturating_sub(SECONDS)..];
            prop_assert_eq!(&kept[..], expected);
            let times = group.curve.seconds.iter().map(|point| (point.calls > 0, point.p50));
            for (is_called, p50) in times {
                let range = if is_called { 4_800..5_200 } else { 0..1 };
                prop_assert!(range.contains(&p50), "{p50}");
            }
            // The first update, which has no point, is a second of the first ten.
            let tens: Vec<u32> = group.curve.tens.iter().map(|ten| ten.calls).collect();
            let mut seconds = points.iter().map(|point| point.0);
            let mut expected = vec![seconds.by_ref().take(9).sum()];
            let rest: Vec<u32> = seconds.collect();
            expected.extend(rest.chunks_exact(10).map(|ten| ten.iter().sum::<u32>()));
            if points.len() < 9 {
                expected.clear();
            }
            prop_assert_eq!(tens, expected);
        }

        #[test]
        fn any_counters_are_taken_and_curves_are_bounded(
            updates in prop::collection::vec(
                (1_u64..1000, prop::collection::vec((0_u8..20, 0_u64..1 << 55, 0_u64..100), 0..12)),
                1..30,
            ),
        ) {
            let mut history = Keyed::new(3);
            for (seconds, counts) in updates {
                let sources: Vec<Source> = counts
                    .into_iter()
                    .map(|(code, calls, millis)| {
                        let mut source = Source::default();
                        source.codes.add(code, calls);
                        source.latency.record(Duration::from_millis(millis));
                        source
                    })
                    .collect();
                update(&mut history, seconds, &sources);
                prop_assert_eq!(history.methods.len(), sources.len());
                let curves = history.methods.values().filter(|method| method.curve.is_some());
                prop_assert_eq!(curves.count(), history.curves);
                prop_assert!(history.curves <= 3);
            }
        }

        #[test]
        fn a_late_update_fills_the_seconds_that_it_missed(late in 2_u64..200, calls in 0_u64..500) {
            let mut history = Keyed::new(1);
            let mut source = Source::default();
            update(&mut history, 1, std::slice::from_ref(&source));
            source.call(calls, 0, 1);
            update(&mut history, late, std::slice::from_ref(&source));
            let curve = &history.groups[0].1.curve;
            let points: Vec<u64> = curve.seconds.iter().map(|point| point.calls.into()).collect();
            prop_assert_eq!(points, vec![calls / late; late as usize]);
        }
    }

    #[test]
    fn the_busiest_methods_have_the_curves() {
        let mut history = Keyed::new(2);
        let mut sources = vec![Source::default(); 4];
        update(&mut history, 1, &sources);
        let with = |history: &Keyed| {
            let mut keys: Vec<u32> = history
                .methods
                .iter()
                .filter(|(_, method)| method.curve.is_some())
                .map(|(key, _)| *key)
                .collect();
            keys.sort_unstable();
            keys
        };
        assert_eq!(with(&history), [0_u32; 0], "none was called");
        sources[0].call(1, 0, 1);
        sources[1].call(10, 0, 1);
        update(&mut history, 1, &sources);
        assert_eq!(with(&history), [0, 1]);
        sources[3].call(1000, 0, 1);
        update(&mut history, 1, &sources);
        assert_eq!(with(&history), [1, 3], "the least busy one gave way");
        sources[2].call(11, 0, 1);
        update(&mut history, 1, &sources);
        assert_eq!(with(&history), [1, 3], "it is not much busier");
    }

    #[test]
    fn recent_quantiles_span_the_last_ten_to_twenty_seconds() {
        let mut history = Keyed::new(1);
        let mut source = Source::default();
        update(&mut history, 1, std::slice::from_ref(&source));
        source.call(100, 0, 900);
        update(&mut history, 1, std::slice::from_ref(&source));
        let recent = |history: &Keyed| history.methods[&0].last.recent.clone();
        let millis = |history: &Keyed| recent(history).quantiles.unwrap()[2] / 1000;
        assert!((870..930).contains(&millis(&history)));
        for second in 0..20 {
            source.call(1, 0, 3);
            update(&mut history, 1, std::slice::from_ref(&source));
            assert!(recent(&history).seconds <= 20, "after {second}");
        }
        assert!((2..4).contains(&millis(&history)));
        assert_eq!(recent(&history).codes.total(), 12);
    }

    #[test]
    fn methods_that_have_gone_are_forgotten() {
        let mut history = Keyed::new(2);
        let mut sources = vec![Source::default(); 2];
        update(&mut history, 1, &sources);
        sources[1].call(1, 0, 1);
        update(&mut history, 1, &sources);
        assert_eq!(history.curves, 1);
        update(&mut history, 1, &sources[..1]);
        assert_eq!((history.methods.len(), history.curves), (1, 0));
    }
}
