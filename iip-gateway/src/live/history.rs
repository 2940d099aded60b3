//! The last hour: curves of the busiest methods, and of all servers and all clients together.
//!
//! It receives readings of counters that only grow, and keeps the differences between them. It has
//! no clock: the caller passes the number of elapsed seconds.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use iip_core::stats::{Codes, Histogram};

use super::curve::{Curve, SECONDS, TEN};
use super::window::{Counts, Window};
use super::wire::Kind;

/// The factor by which the activity of a method decays per second.
const KEPT_ACTIVITY: f64 = 0.97;

/// A method: its source and its path.
pub(super) type Key = (usize, Arc<str>);

/// The calls of a method since the start of its source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counters<'a> {
    pub(super) codes: &'a Codes,
    pub(super) latency: &'a Histogram,
}

/// The history of one method.
#[derive(Debug, Default)]
pub(super) struct MethodHistory {
    /// The counters of the last reading.
    codes: Codes,
    latency: Histogram,
    pub(super) window: Window,
    /// The calls per second, averaged over about half a minute.
    activity: f64,
    pub(super) curve: Option<Box<Curve>>,
    /// The last update that included the method.
    seen: u64,
}

impl MethodHistory {
    /// Returns the counts since the last reading.
    fn read(&mut self, counters: &Counters<'_>, seconds: u64) -> Counts {
        let mut counts = Counts::none(seconds);
        if *counters.codes == self.codes {
            return counts;
        }
        // Counters that have become smaller belong to a successor.
        if counters.codes.total() >= self.codes.total() {
            counts.codes = counters.codes.since(&self.codes);
            counts.latency = counters.latency.since(&self.latency);
        }
        self.codes = *counters.codes;
        self.latency.clone_from(counters.latency);
        counts
    }

    fn add(&mut self, counts: &Counts, is_ten: bool) {
        self.window.add(counts, is_ten);
        let calls = f64::from(self.window.second.calls);
        for _ in 0..counts.seconds {
            self.activity = self.activity * KEPT_ACTIVITY + calls * (1.0 - KEPT_ACTIVITY);
        }
        if let Some(curve) = &mut self.curve {
            curve.extend(self.window.second, counts.seconds, self.window.ten);
        }
    }
}

/// The history of all methods of servers, or of clients, together.
#[derive(Debug, Default)]
pub(super) struct TotalHistory {
    pub(super) window: Window,
    pub(super) curve: Curve,
}

impl TotalHistory {
    fn add(&mut self, counts: &Counts, is_ten: bool) {
        self.window.add(counts, is_ten);
        self.curve
            .extend(self.window.second, counts.seconds, self.window.ten);
    }
}

/// The history of all methods, of which the busiest have curves.
#[derive(Debug)]
pub(super) struct History {
    pub(super) methods: HashMap<Key, MethodHistory>,
    pub(super) totals: BTreeMap<Kind, TotalHistory>,
    max_curves: usize,
    /// The total seconds of all updates, and the number of updates.
    now: u64,
    updates: u64,
}

impl History {
    pub(super) fn new(max_curves: usize) -> Self {
        Self {
            methods: HashMap::new(),
            totals: BTreeMap::new(),
            max_curves,
            now: 0,
            updates: 0,
        }
    }

    /// Takes the readings of all methods, `seconds` after the last ones. Methods without a reading
    /// are dropped. The first update starts the curves, without adding points.
    pub(super) fn update<'a>(
        &mut self,
        seconds: u64,
        readings: impl IntoIterator<Item = (Key, Kind, Counters<'a>)>,
    ) {
        // Counts over a longer time than the curves cover cannot be assigned to points.
        let seconds = seconds.clamp(1, SECONDS as u64);
        let is_first = self.updates == 0;
        let tens = self.now / TEN;
        self.updates += 1;
        self.now += seconds;
        let is_ten = self.now / TEN > tens;
        let kinds = self.totals.keys();
        let mut totals: BTreeMap<Kind, Counts> =
            kinds.map(|&kind| (kind, Counts::none(seconds))).collect();
        for (key, kind, counters) in readings {
            let method = self.methods.entry(key).or_default();
            method.seen = self.updates;
            let counts = method.read(&counters, seconds);
            let total = totals.entry(kind).or_insert_with(|| Counts::none(seconds));
            if !is_first {
                method.add(&counts, is_ten);
                total.add_calls(&counts);
            }
        }
        let seen = self.updates;
        self.methods.retain(|_, method| method.seen == seen);
        for (kind, counts) in totals {
            let total = self.totals.entry(kind).or_default();
            if !is_first {
                total.add(&counts, is_ten);
            }
        }
        self.give_curves();
    }

    /// Gives curves to the busiest methods without one: while there is room, and then in place of
    /// the least busy method with a curve, if that has less than half of the calls.
    fn give_curves(&mut self) {
        let with = self.busiest(|method| method.curve.is_some());
        let without = self.busiest(|method| method.curve.is_none() && method.activity > 0.0);
        let room = self.max_curves.saturating_sub(with.len());
        for (_, key) in without.iter().take(room) {
            self.give_curve(key);
        }
        // One per update, so that the search costs little.
        if let (Some((busy, key)), Some((least, other))) = (without.get(room), with.last())
            && *least < busy / 2.0
        {
            if let Some(method) = self.methods.get_mut(other) {
                method.curve = None;
            }
            self.give_curve(key);
        }
    }

    /// Returns the wanted methods, the busiest first.
    fn busiest(&self, is_wanted: impl Fn(&MethodHistory) -> bool) -> Vec<(f64, Key)> {
        let wanted = self.methods.iter().filter(|(_, method)| is_wanted(method));
        let mut wanted: Vec<(f64, Key)> = wanted
            .map(|(key, method)| (method.activity, key.clone()))
            .collect();
        wanted.sort_by(|(a, left), (b, right)| b.total_cmp(a).then_with(|| left.cmp(right)));
        wanted
    }

    fn give_curve(&mut self, key: &Key) {
        if let Some(method) = self.methods.get_mut(key) {
            let mut curve = Curve::default();
            curve.seconds.push(method.window.second);
            method.curve = Some(Box::new(curve));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::curve::Point;
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

    fn key(number: usize) -> Key {
        (number, Arc::from("/method"))
    }

    fn update(history: &mut History, seconds: u64, sources: &[Source]) {
        let readings = sources.iter().enumerate();
        let readings =
            readings.map(|(number, source)| (key(number), Kind::Server, source.counters()));
        history.update(seconds, readings);
    }

    /// Returns the numbers of the methods with curves.
    fn with_curves(history: &History) -> Vec<usize> {
        let methods = history.methods.iter();
        let with = methods.filter(|(_, method)| method.curve.is_some());
        let mut numbers: Vec<usize> = with.map(|(key, _)| key.0).collect();
        numbers.sort_unstable();
        numbers
    }

    proptest! {
        #[test]
        fn curves_show_what_the_counters_have_gained(
            calls in prop::collection::vec((0_u64..5, 0_u64..3, 0_u64..3), 1..400),
        ) {
            let mut history = History::new(5);
            let mut source = Source::default();
            // Counts from before the start of the page are in no curve.
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
            let curve = &history.totals[&Kind::Server].curve;
            let pair = |point: &Point| (point.calls, point.errors);
            let kept: Vec<(u32, u32)> = curve.seconds.iter().map(pair).collect();
            let expected = &points[points.len().saturating_sub(SECONDS)..];
            prop_assert_eq!(&kept[..], expected);
            let times = curve.seconds.iter().map(|point| (point.calls > 0, point.p50));
            for (is_called, p50) in times {
                let range = if is_called { 4_800..5_200 } else { 0..1 };
                prop_assert!(range.contains(&p50), "{p50}");
            }
            // The first update, which has no point, is a second of the first ten.
            let tens: Vec<u32> = curve.tens.iter().map(|ten| ten.calls).collect();
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
            let mut history = History::new(3);
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
                prop_assert!(with_curves(&history).len() <= 3);
            }
        }

        #[test]
        fn a_late_update_fills_the_seconds_that_it_missed(late in 2_u64..200, calls in 0_u64..500) {
            let mut history = History::new(1);
            let mut source = Source::default();
            update(&mut history, 1, std::slice::from_ref(&source));
            source.call(calls, 0, 1);
            update(&mut history, late, std::slice::from_ref(&source));
            let curve = &history.totals[&Kind::Server].curve;
            let points: Vec<u64> = curve.seconds.iter().map(|point| point.calls.into()).collect();
            prop_assert_eq!(points, vec![calls / late; late as usize]);
        }
    }

    #[test]
    fn the_busiest_methods_have_the_curves() {
        let mut history = History::new(2);
        let mut sources = vec![Source::default(); 4];
        update(&mut history, 1, &sources);
        assert_eq!(with_curves(&history), [0; 0], "none was called");
        sources[0].call(1, 0, 1);
        sources[1].call(10, 0, 1);
        update(&mut history, 1, &sources);
        assert_eq!(with_curves(&history), [0, 1]);
        sources[3].call(1000, 0, 1);
        update(&mut history, 1, &sources);
        assert_eq!(with_curves(&history), [1, 3], "the least busy one gave way");
        sources[2].call(11, 0, 1);
        update(&mut history, 1, &sources);
        assert_eq!(with_curves(&history), [1, 3], "it is not much busier");
    }

    #[test]
    fn recent_quantiles_span_the_last_ten_to_twenty_seconds() {
        let mut history = History::new(1);
        let mut source = Source::default();
        update(&mut history, 1, std::slice::from_ref(&source));
        source.call(100, 0, 900);
        update(&mut history, 1, std::slice::from_ref(&source));
        let recent = |history: &History| history.methods[&key(0)].window.recent();
        let millis = |history: &History| recent(history).quantiles.unwrap()[2] / 1000;
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
        let mut history = History::new(2);
        let mut sources = vec![Source::default(); 2];
        update(&mut history, 1, &sources);
        sources[1].call(1, 0, 1);
        update(&mut history, 1, &sources);
        assert_eq!(with_curves(&history), [1]);
        update(&mut history, 1, &sources[..1]);
        assert_eq!(history.methods.len(), 1);
        assert_eq!(with_curves(&history), [0; 0]);
    }
}
