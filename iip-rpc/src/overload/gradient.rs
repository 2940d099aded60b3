//! Concurrency limit that adapts to the duration of calls. Pure: time is an argument.
//!
//! The baseline is the duration of a call when hardly any other runs: the *floor*. As long as calls
//! do not take much longer than that although the limit is in use, the limit grows; when they take
//! longer, it falls in proportion. This is the gradient method, as in Envoy's adaptive concurrency
//! filter. Under constant load there is no quiet time in which to learn the floor, so every few
//! seconds a few calls are measured alone.
//!
//! It was chosen by simulation: exponential work of 5 ms, cores shared evenly, a deadline of 200
//! ms, a load of half to five times the capacity of 2 and 16 cores, and a service that becomes
//! three times slower or faster. Replies in time as a fraction of the capacity, and the 99th
//! percentile, at a load of twice the capacity:
//!
//! | | 2 cores | 16 cores |
//! |---|---|---|
//! | a limit of 1,000 | 0.08, 10 s | 0.47, 1.4 s |
//! | four calls per core | 0.99, 81 ms | 1.00, 90 ms |
//! | gradient to the floor, as here | 1.00, 145 ms | 1.00, 31 ms |
//! | gradient to a slow average, as Netflix' Gradient2 | 0.90, 423 ms | 1.00, 92 ms |
//! | shortest call of an interval, as in CoDel | 0.42, 21 ms | 0.06, 22 ms |
//!
//! The slow average follows the overload and takes it for normal; the shortest call carries no
//! information if the work of calls differs. Without an overload, at full load, the gradient
//! rejects up to a twentieth of the calls, where a good fixed limit rejects none: a fixed limit is
//! better where the right value is known.

use std::time::{Duration, Instant};

/// The initial limit, and the maximum.
pub(super) const FIRST: u32 = 20;
const MAX_LIMIT: f64 = 10_000.0;

/// Calls that begin while at most this many run (themselves included) count as running alone. Also
/// the minimum limit.
const ALONE: u32 = 4;

/// Number of calls alone that determine a floor.
const FLOOR_CALLS: u32 = 25;

/// Multiple of the floor up to which the limit is not lowered: calls differ, and a little waiting
/// keeps every core busy.
const TOLERANCE: f64 = 1.5;

/// Minimum duration of a call, in seconds; shorter ones count as this. Shorter times depend more on
/// the clock and the scheduler than on the load, and the ratio of two of them may be zero or not a
/// number.
const LEAST_SECONDS: f64 = 10e-6;

/// Minimum time and number of calls between two changes of the limit.
const WINDOW: Duration = Duration::from_millis(100);
const WINDOW_CALLS: u32 = 10;

/// Number of windows for which a floor is valid under load.
const FLOOR_WINDOWS: u32 = 60;

/// An adaptive limit.
#[derive(Debug)]
pub(super) struct Gradient {
    limit: f64,
    /// The floor, in seconds.
    floor: Option<f64>,
    floor_age: u32,
    /// The limit to restore when calls have been measured alone.
    saved: Option<f64>,
    alone: Sum,
    window: Sum,
    window_began: Instant,
    /// Maximum number of calls that ran at a time within the window.
    max_running: u32,
}

#[derive(Debug, Default)]
struct Sum {
    seconds: f64,
    calls: u32,
}

impl Sum {
    fn add(&mut self, seconds: f64) {
        self.seconds += seconds;
        self.calls += 1;
    }

    fn take_average(&mut self) -> f64 {
        let Self { seconds, calls } = std::mem::take(self);
        seconds / f64::from(calls.max(1))
    }
}

impl Gradient {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            limit: FIRST.into(),
            floor: None,
            floor_age: 0,
            saved: None,
            alone: Sum::default(),
            window: Sum::default(),
            window_began: now,
            max_running: 0,
        }
    }

    pub(super) fn limit(&self) -> u32 {
        // The value is between 4 and 10,000.
        self.limit as u32
    }

    /// Records a call that ended at `now` after `took`, and that was admitted as the `beside`-th
    /// running call.
    pub(super) fn on_end(&mut self, now: Instant, took: Duration, beside: u32) {
        let seconds = took.as_secs_f64().max(LEAST_SECONDS);
        if beside <= ALONE {
            self.alone.add(seconds);
            if self.alone.calls >= FLOOR_CALLS {
                self.floor = Some(self.alone.take_average());
                // The floor is that of this moment, and the limit that was saved applies again.
                self.floor_age = 0;
                if let Some(limit) = self.saved.take() {
                    self.limit = limit;
                    self.begin_window(now);
                }
            }
        }
        // While calls are measured alone, the durations say nothing about the limit.
        if self.saved.is_some() {
            return;
        }
        self.window.add(seconds);
        self.max_running = self.max_running.max(beside);
        let over = now.saturating_duration_since(self.window_began) >= WINDOW;
        if over && self.window.calls >= WINDOW_CALLS {
            self.on_window();
            self.begin_window(now);
        }
    }

    /// Records a call that was cancelled after `took`. That it had not ended by then is significant
    /// only if it should have.
    pub(super) fn on_abandoned(&mut self, now: Instant, took: Duration, beside: u32) {
        let due = self
            .floor
            .is_some_and(|floor| took.as_secs_f64() > floor * TOLERANCE);
        // A call alone that was cancelled does not tell how long it would have taken, and must not
        // become a part of the floor.
        if due && beside > ALONE {
            self.on_end(now, took, beside);
        }
    }

    fn begin_window(&mut self, now: Instant) {
        self.window = Sum::default();
        self.window_began = now;
        self.max_running = 0;
    }

    fn on_window(&mut self) {
        self.floor_age += 1;
        // A limit that is not reached needs no change: the change would be a guess.
        if f64::from(self.max_running) < self.limit / 2.0 {
            return;
        }
        // Without a floor that is recent, the limit is lowered until enough calls have run alone.
        let Some(floor) = self.floor.filter(|_| self.floor_age < FLOOR_WINDOWS) else {
            self.saved = Some(self.limit);
            self.limit = ALONE.into();
            self.alone = Sum::default();
            return;
        };
        let average = self.window.take_average();
        let gradient = (TOLERANCE * floor / average).clamp(0.5, 1.0);
        // The square root lets the limit grow.
        self.limit = (self.limit * gradient + self.limit.sqrt()).clamp(ALONE.into(), MAX_LIMIT);
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;

    /// Simulated cores, shared evenly by the running calls, with random arrivals.
    struct Service {
        cores: f64,
        /// Average work of a call, in seconds.
        work: f64,
        /// Arrival rate, as a fraction of the capacity.
        load: f64,
        random: fastrand::Rng,
    }

    /// Results of the calls of the second half.
    #[derive(Debug, Default)]
    struct Outcome {
        in_time: f64,
        rejected: f64,
        p99: f64,
    }

    const DEADLINE: f64 = 0.2;

    impl Service {
        fn new(cores: f64, load: f64) -> Self {
            Self {
                cores,
                work: 0.005,
                load,
                random: fastrand::Rng::with_seed(7),
            }
        }

        fn exponential(&mut self, mean: f64) -> f64 {
            -mean * (1.0 - self.random.f64()).ln()
        }

        /// Runs for `seconds`, with or without a limit.
        fn run(&mut self, mut gradient: Option<&mut Gradient>, seconds: f64) -> Outcome {
            let epoch = Instant::now();
            let (mut time, mut next) = (0.0, 0.0);
            // Every running call gets the same share, so that calls end in the order of the sum of
            // the share that was given before they began and their own work. An entry holds that
            // sum and the begin, both in nanoseconds, and the number of running calls.
            let mut running: BinaryHeap<Reverse<(u64, u64, u32)>> = BinaryHeap::new();
            let mut given = 0.0;
            let (mut outcome, mut took, mut come) = (Outcome::default(), Vec::new(), 0.0);
            while time < seconds {
                let speed = (self.cores / running.len().max(1) as f64).min(1.0);
                let end = running
                    .peek()
                    .map(|first| (first.0.0 as f64 / 1e9 - given) / speed);
                let ends = end.is_some_and(|after| time + after < next);
                let step = end.filter(|_| ends).unwrap_or(next - time).max(0.0);
                given += step * speed;
                time += step;
                let counts = time > seconds / 2.0;
                if ends && let Some(Reverse((_, begin, beside))) = running.pop() {
                    let spent = time - begin as f64 / 1e9;
                    if let Some(gradient) = &mut gradient {
                        let now = epoch + Duration::from_secs_f64(time);
                        gradient.on_end(now, Duration::from_secs_f64(spent.max(0.0)), beside);
                    }
                    if counts {
                        took.push(spent);
                    }
                    continue;
                }
                next = time + self.exponential(self.work / self.cores / self.load);
                come += f64::from(u8::from(counts));
                let limit = gradient
                    .as_ref()
                    .map_or(100_000, |gradient| gradient.limit());
                if running.len() < limit as usize {
                    let work = self.exponential(self.work);
                    let beside = running.len() as u32 + 1;
                    let nanos = |seconds: f64| (seconds * 1e9) as u64;
                    running.push(Reverse((nanos(given + work), nanos(time), beside)));
                } else if counts {
                    outcome.rejected += 1.0;
                }
            }
            took.sort_by(f64::total_cmp);
            let possible = self.cores / self.work * seconds / 2.0;
            outcome.in_time =
                took.iter().filter(|&&took| took <= DEADLINE).count() as f64 / possible;
            outcome.rejected /= come;
            outcome.p99 = took[took.len() * 99 / 100];
            outcome
        }
    }

    #[test]
    fn at_twice_the_load_replies_come_in_time_and_the_cores_stay_busy() {
        for cores in [2.0, 16.0] {
            let without = Service::new(cores, 2.0).run(None, 20.0);
            assert!(without.in_time < 0.6, "{without:?}");
            let mut gradient = Gradient::new(Instant::now());
            let with = Service::new(cores, 2.0).run(Some(&mut gradient), 20.0);
            assert!(with.in_time > 0.9, "{cores} cores: {with:?}");
            assert!(with.p99 < DEADLINE, "{cores} cores: {with:?}");
        }
    }

    #[test]
    fn without_an_overload_hardly_any_call_is_rejected() {
        for (cores, load) in [(2.0, 0.5), (16.0, 0.5), (16.0, 0.7)] {
            let mut gradient = Gradient::new(Instant::now());
            let outcome = Service::new(cores, load).run(Some(&mut gradient), 20.0);
            assert!(
                outcome.rejected < 0.02,
                "{cores} cores at {load}: {outcome:?}"
            );
        }
    }

    #[test]
    fn the_limit_follows_a_service_that_becomes_slower_or_faster() {
        for factor in [3.0, 0.33] {
            let mut gradient = Gradient::new(Instant::now());
            let mut service = Service::new(16.0, 2.0);
            service.run(Some(&mut gradient), 10.0);
            service.work *= factor;
            gradient.begin_window(Instant::now());
            let after = service.run(Some(&mut gradient), 30.0);
            assert!(after.in_time > 0.85, "{factor}: {after:?}");
        }
    }

    #[test]
    fn calls_that_take_no_time_are_admitted_and_do_not_lower_the_limit() {
        let mut now = Instant::now();
        let mut gradient = Gradient::new(now);
        for call in 0..100_000_u32 {
            now += Duration::from_millis(1);
            // Calls run up to the limit, and every other one takes the shortest time that a clock
            // can show.
            let took = Duration::from_nanos(u64::from(call % 2));
            gradient.on_end(now, took, call % gradient.limit() + 1);
            assert!(
                gradient.saved.is_some() || gradient.limit() >= FIRST,
                "{gradient:?}"
            );
        }
        let limit = gradient.saved.unwrap_or(gradient.limit);
        assert!(limit > f64::from(FIRST), "there is no reason not to grow");
    }

    proptest::proptest! {
        #[test]
        fn whatever_calls_take_the_limit_stays_within_its_bounds(
            calls in proptest::collection::vec(
                (
                    0_u64..300,
                    proptest::sample::select(vec![0, 1, 999, 5_000_000, u64::MAX]),
                    0..3_u32,
                ),
                0..2000,
            ),
        ) {
            let mut now = Instant::now();
            let mut gradient = Gradient::new(now);
            for (pause, nanos, how) in calls {
                now += Duration::from_millis(pause);
                let took = Duration::from_nanos(nanos);
                match how {
                    0 => gradient.on_end(now, took, 1),
                    1 => gradient.on_end(now, took, gradient.limit()),
                    _ => gradient.on_abandoned(now, took, gradient.limit()),
                }
                let limit = gradient.limit();
                assert!((ALONE..=MAX_LIMIT as u32).contains(&limit), "{gradient:?}");
            }
        }
    }

    #[test]
    fn a_limit_that_is_not_reached_stays_as_it_is() {
        let mut now = Instant::now();
        let mut gradient = Gradient::new(now);
        for _ in 0..1000 {
            now += Duration::from_millis(5);
            gradient.on_end(now, Duration::from_secs(1), 9);
        }
        assert_eq!(gradient.limit(), FIRST);
    }

    #[test]
    fn calls_that_are_dropped_late_lower_the_limit_and_early_ones_do_not() {
        let limit_after = |took| {
            let mut now = Instant::now();
            let mut gradient = Gradient::new(now);
            for _ in 0..FLOOR_CALLS {
                gradient.on_end(now, Duration::from_millis(10), 1);
            }
            for _ in 0..100 {
                now += Duration::from_millis(5);
                gradient.on_abandoned(now, took, 20);
            }
            gradient.limit()
        };
        assert_eq!(limit_after(Duration::from_millis(1)), FIRST);
        assert!(limit_after(Duration::from_millis(500)) < FIRST / 2);
    }
}
