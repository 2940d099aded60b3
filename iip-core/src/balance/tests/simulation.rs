use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::super::{Backend, Notice};
use super::*;

/// The reaction of a backend to a call at a time of the simulation.
type Behaviour<'a> = &'a dyn Fn(usize, Duration, &mut fastrand::Rng) -> (Duration, Outcome);

/// A call that has ended.
struct Ended {
    /// The time at which it began.
    at: Duration,
    number: usize,
    elapsed: Duration,
}

/// Calls at random times to backends with given behaviours, in virtual time.
struct Simulation {
    balancer: Balancer<usize>,
    start: Instant,
    now: Duration,
    rng: fastrand::Rng,
    /// The end of each running call, its backend and its number in `ended`.
    running: BinaryHeap<Reverse<(Duration, usize)>>,
    calls: Vec<(Arc<Backend<usize>>, Outcome, bool)>,
    ended: Vec<Ended>,
    next_refresh: Option<Duration>,
}

impl Simulation {
    fn new(options: BalanceOptions, set: &[BackendInfo]) -> Self {
        let (balancer, start) = balancer(options, set);
        Self {
            balancer,
            start,
            now: Duration::ZERO,
            rng: fastrand::Rng::with_seed(11),
            running: BinaryHeap::new(),
            calls: Vec::new(),
            ended: Vec::new(),
            next_refresh: None,
        }
    }

    fn refresh(&mut self) {
        let pings: Vec<_> = self
            .balancer
            .due_pings()
            .map(|backend| backend.id())
            .collect();
        let now = self.start + self.now;
        for id in pings {
            self.balancer.pinged(id, now, true);
        }
        let next = self.balancer.refresh(now);
        self.next_refresh = next.map(|next| next - self.start);
    }

    fn end_calls(&mut self) {
        while let Some(Reverse((end, index))) = self.running.peek().copied() {
            if end > self.now {
                return;
            }
            self.running.pop();
            let (backend, outcome, trial) = self.calls[index].clone();
            let (now, elapsed) = (self.start + end, self.ended[index].elapsed);
            let changed = match backend.finished(now, elapsed, outcome, trial) {
                Notice::None => false,
                Notice::Failing => self.balancer.failing(backend.id(), now),
                Notice::Trial(success) => self.balancer.trial_ended(backend.id(), now, success),
            };
            if changed {
                self.refresh();
            }
        }
    }

    /// Makes `rate` calls a second on average, for `time`.
    fn run(&mut self, time: Duration, rate: f64, behaviour: Behaviour<'_>) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_secs_f64(-self.rng.f64().max(1e-9).ln() / rate);
            self.end_calls();
            self.call(behaviour);
        }
    }

    /// Keeps `callers` calls running, for `time`.
    fn run_callers(&mut self, time: Duration, callers: usize, behaviour: Behaviour<'_>) {
        let end = self.now + time;
        while self.now < end {
            while self.running.len() < callers {
                self.call(behaviour);
            }
            if let Some(Reverse((next, _))) = self.running.peek() {
                self.now = *next;
            }
            self.end_calls();
        }
    }

    fn call(&mut self, behaviour: Behaviour<'_>) {
        if self.next_refresh.is_some_and(|next| next <= self.now) {
            self.refresh();
        }
        let random = self.rng.u64(..);
        let hint = PickHint::new().idempotent(true).hash(Some(random));
        let picker = self.balancer.picker().clone();
        let picked = picker.pick(&hint, self.start + self.now, random).unwrap();
        if picked.stale {
            self.refresh();
        }
        let number = *picked.backend.data();
        let (elapsed, outcome) = behaviour(number, self.now, &mut self.rng);
        picked.backend.started();
        let call = (Arc::clone(picked.backend), outcome, picked.trial);
        self.running
            .push(Reverse((self.now + elapsed, self.calls.len())));
        self.calls.push(call);
        let at = self.now;
        self.ended.push(Ended {
            at,
            number,
            elapsed,
        });
    }

    /// The share of the calls between two times, in seconds, that a backend got.
    fn share(&self, number: usize, from: u64, to: u64) -> f64 {
        let time = Duration::from_secs(from)..Duration::from_secs(to);
        let within = self.ended.iter().filter(|call| time.contains(&call.at));
        let picks: Vec<_> = within.map(|call| call.number).collect();
        share(&picks, number)
    }

    /// The latency within which 99 % of the calls end.
    fn p99(&self) -> Duration {
        let mut all: Vec<_> = self.ended.iter().map(|call| call.elapsed).collect();
        all.sort_unstable();
        all[all.len() * 99 / 100]
    }
}

/// About a millisecond: an exponential part above a fixed one.
fn millisecond(rng: &mut fastrand::Rng) -> Duration {
    Duration::from_secs_f64(0.0008 - 0.0002 * rng.f64().max(1e-9).ln())
}

fn healthy(_: usize, _: Duration, rng: &mut fastrand::Rng) -> (Duration, Outcome) {
    (millisecond(rng), Outcome::Success)
}

#[test]
fn a_backend_that_fails_at_once_gets_few_calls() {
    // Without ejection, the penalties alone must keep the calls away.
    for max_ejected in [0.5, 0.0] {
        let options = BalanceOptions::new().max_ejected(max_ejected);
        let mut simulation = Simulation::new(options, &infos(3));
        simulation.run(
            Duration::from_secs(8),
            3000.0,
            &|number, _, rng| match number {
                0 => {
                    let failure = Outcome::Failure { pushback: None };
                    (Duration::from_micros(50), failure)
                }
                _ => (millisecond(rng), Outcome::Success),
            },
        );
        let share = simulation.share(0, 1, 8);
        assert!(share <= 0.02, "{share}");
    }
}

#[test]
fn a_slow_backend_does_not_determine_the_p99() {
    let p99 = |policy: Policy| {
        let options = BalanceOptions::new().policy(policy);
        let mut simulation = Simulation::new(options, &infos(3));
        simulation.run(Duration::from_secs(6), 3000.0, &|number, _, rng| {
            let factor = if number == 0 { 10 } else { 1 };
            (millisecond(rng) * factor, Outcome::Success)
        });
        simulation.p99()
    };
    let (p2c, turns) = (p99(Policy::P2c), p99(Policy::RoundRobin));
    assert!(p2c * 2 <= turns, "{p2c:?} {turns:?}");
}

/// The first of three backends takes ten times as long.
fn first_is_slow(number: usize, _: Duration, rng: &mut fastrand::Rng) -> (Duration, Outcome) {
    let factor = if number == 0 { 10 } else { 1 };
    (millisecond(rng) * factor, Outcome::Success)
}

#[test]
fn a_slow_backend_does_not_determine_the_p99_of_many_callers() {
    let run = |policy: Policy, callers: usize| {
        let options = BalanceOptions::new().policy(policy);
        let mut simulation = Simulation::new(options, &infos(3));
        simulation.run_callers(Duration::from_secs(3), callers, &first_is_slow);
        (simulation.p99(), simulation.share(0, 1, 3))
    };
    for callers in [10, 50, 300] {
        let (p2c, share) = run(Policy::P2c, callers);
        let (turns, _) = run(Policy::RoundRobin, callers);
        assert!(p2c * 2 <= turns, "{callers}: {p2c:?} {turns:?}");
        assert!(share < 0.01, "{callers}: {share}");
    }
}

#[test]
fn a_backend_that_was_slow_gets_its_share_again() {
    // With few calls in flight, latencies alone decide between two backends, so that shares vary.
    for (rate, least) in [(300.0, 0.05), (5000.0, 0.15)] {
        let mut simulation = Simulation::new(BalanceOptions::new(), &infos(3));
        let recovers = |number: usize, now: Duration, rng: &mut fastrand::Rng| match now
            < Duration::from_secs(5)
        {
            true => first_is_slow(number, now, rng),
            false => healthy(number, now, rng),
        };
        simulation.run(Duration::from_secs(40), rate, &recovers);
        let (slow, back) = (simulation.share(0, 2, 5), simulation.share(0, 30, 40));
        assert!(slow < 0.01 && back > least, "{rate}: {slow} {back}");
    }
}

#[test]
fn a_slow_backend_takes_calls_when_the_fast_ones_are_saturated() {
    // Each backend runs four calls at a time.
    let ends: Vec<_> = (0..3)
        .map(|_| std::cell::Cell::new([Duration::ZERO; 4]))
        .collect();
    let mut simulation = Simulation::new(BalanceOptions::new(), &infos(3));
    simulation.run_callers(Duration::from_secs(4), 100, &|number, now, rng| {
        let (mut places, factor) = (ends[number].get(), if number == 0 { 10 } else { 1 });
        places.sort_unstable();
        places[0] = places[0].max(now) + millisecond(rng) * factor;
        ends[number].set(places);
        (places[0] - now, Outcome::Success)
    });
    // Its part of the capacity is 1 of 21.
    let share = simulation.share(0, 2, 4);
    assert!((0.01..0.1).contains(&share), "{share}");
}

#[test]
fn a_fast_backend_that_stops_replying_does_not_attract_calls() {
    let mut simulation = Simulation::new(BalanceOptions::new(), &infos(2));
    let stops = |number: usize, now: Duration, rng: &mut fastrand::Rng| {
        if number == 1 && now > Duration::from_secs(1) {
            return (Duration::from_secs(60), Outcome::Success);
        }
        first_is_slow(number, now, rng)
    };
    simulation.run(Duration::from_secs(3), 2000.0, &stops);
    assert!(simulation.share(1, 2, 3) < 0.1);
}

#[test]
fn a_new_backend_reaches_its_share_without_exceeding_it() {
    let policies = policies().into_iter().take(5);
    for policy in policies {
        let window = Duration::from_secs(3);
        let options = BalanceOptions::new()
            .policy(policy.clone())
            .slow_start(window, 0.1);
        let mut simulation = Simulation::new(options, &infos(3));
        simulation.run(Duration::from_secs(1), 4000.0, &healthy);
        let now = simulation.start + simulation.now;
        let _ = apply(&mut simulation.balancer, &infos(4), now);
        simulation.refresh();
        simulation.run(Duration::from_secs(8), 4000.0, &healthy);
        let shares: Vec<_> = (1..9)
            .map(|at| simulation.share(3, at, at + 1) / 0.25)
            .collect();
        assert!(
            shares.iter().all(|share| *share <= 1.2),
            "{policy:?} {shares:?}"
        );
        assert!(shares[0] < 0.6, "{policy:?} {shares:?}");
        assert!(
            shares[6..].iter().all(|share| *share >= 0.8),
            "{policy:?} {shares:?}"
        );
    }
}

#[test]
fn a_new_backend_gets_calls_even_if_the_others_are_idle() {
    for policy in [Policy::P2c, Policy::LeastPending] {
        let options = BalanceOptions::new().policy(policy.clone());
        let mut simulation = Simulation::new(options, &infos(3));
        simulation.run(Duration::from_secs(1), 600.0, &healthy);
        let now = simulation.start + simulation.now;
        let _ = apply(&mut simulation.balancer, &infos(4), now);
        simulation.refresh();
        simulation.run(Duration::from_secs(20), 600.0, &healthy);
        let share = |from: u64, to: u64| simulation.share(3, from, to) / 0.25;
        let shares = [share(1, 4), share(8, 11), share(13, 21)];
        assert!((0.05..0.9).contains(&shares[0]), "{policy:?} {shares:?}");
        // Without a queue, latencies alone decide between two backends of `P2c`, so that shares vary.
        let most = if policy == Policy::P2c { 1.5 } else { 1.2 };
        assert!(shares[1] <= most, "{policy:?} {shares:?}");
        assert!((0.8..=most).contains(&shares[2]), "{policy:?} {shares:?}");
    }
}

#[test]
fn a_new_backend_is_not_preferred_because_of_an_old_peak_of_the_others() {
    let options = BalanceOptions::new().slow_start(Duration::ZERO, 1.0);
    let mut simulation = Simulation::new(options, &infos(3));
    let slow = |_: usize, now: Duration, rng: &mut fastrand::Rng| {
        let peak = now < Duration::from_secs(1);
        let (time, outcome) = healthy(0, now, rng);
        (if peak { time * 20 } else { time }, outcome)
    };
    simulation.run(Duration::from_secs(1), 1000.0, &slow);
    let now = simulation.start + simulation.now;
    let _ = apply(&mut simulation.balancer, &infos(4), now);
    simulation.refresh();
    simulation.run(Duration::from_secs(4), 4000.0, &slow);
    for at in 1..5 {
        let share = simulation.share(3, at, at + 1) / 0.25;
        assert!((0.8..=1.2).contains(&share), "{share}");
    }
}

#[test]
fn one_failure_keeps_calls_away_for_seconds() {
    let mut simulation = Simulation::new(BalanceOptions::new(), &infos(3));
    let backend = Arc::clone(simulation.balancer.set().get(0).unwrap());
    backend.started();
    let failure = Outcome::Failure { pushback: None };
    let _ = backend.finished(simulation.start, Duration::from_millis(1), failure, false);
    simulation.run(Duration::from_secs(12), 3000.0, &healthy);
    assert!(simulation.share(0, 0, 3) < 0.01);
    assert!(simulation.share(0, 8, 12) > 0.2);
}

#[test]
fn a_backend_that_recovers_returns_to_its_share() {
    let options = BalanceOptions::new().policy(Policy::RoundRobin);
    let mut simulation = Simulation::new(options, &infos(3));
    let flaky = |number: usize, now: Duration, rng: &mut fastrand::Rng| {
        let failed = number == 0 && now < Duration::from_secs(3);
        let failure = Outcome::Failure { pushback: None };
        (
            millisecond(rng),
            if failed { failure } else { Outcome::Success },
        )
    };
    simulation.run(Duration::from_secs(40), 500.0, &flaky);
    let (out, back) = (simulation.share(0, 1, 8), simulation.share(0, 30, 40));
    assert!(out < 0.01 && back > 0.28, "{out} {back}");
}

#[test]
fn an_outlier_by_share_is_ejected_although_it_succeeds_in_between() {
    let mut simulation =
        Simulation::new(BalanceOptions::new().policy(Policy::RoundRobin), &infos(3));
    simulation.run(Duration::from_secs(5), 300.0, &|number, now, rng| {
        let failed = number == 1 && now.subsec_micros() % 3 != 0;
        let failure = Outcome::Failure { pushback: None };
        (
            millisecond(rng),
            if failed { failure } else { Outcome::Success },
        )
    });
    assert!(simulation.share(1, 2, 5) < 0.01);
}
