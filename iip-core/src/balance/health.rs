//! The health of one backend, as a state machine. It is driven on the cold path only: calls of a
//! healthy backend do not touch it.
//!
//! ```text
//!                    connection refused               connected
//!      Ready, SlowStart ─────────────────▶ Down ───────────────────────┐
//!      Ready, SlowStart ─ drain notice ──▶ GoingAway ── connected ─────┤
//!                                                                      ▼
//!          ┌──────────────── the window is over ────────────────── SlowStart ◀─┐
//!          ▼                                                           │       │
//!        Ready ──────── too many failures ──▶ Ejected ◀────────────────┤       │
//!                                              │   ▲                   │       │
//!                            the time is over  ▼   │ failure   too many failures
//!                                              HalfOpen                        │
//!                                       ping, then one call ── success ────────┘
//! ```
//!
//! Slow start is skipped if no other backend is warm: if all others are new, or have just returned.

use std::time::Duration;

use super::outcomes::Trigger;
use super::time::nanos;

/// The settings of [`Health`], times in nanoseconds.
#[derive(Debug)]
pub(super) struct HealthSettings {
    pub(super) ejection: Duration,
    pub(super) max_ejection: Duration,
    pub(super) window: u64,
    pub(super) slow_start: u64,
    pub(super) min_warmth: f64,
}

/// The state of a backend. Times are nanoseconds since the epoch of the client.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum State {
    Ready,
    SlowStart { until: u64 },
    Ejected { until: u64, why: Trigger },
    HalfOpen { since: u64, pinged: bool },
    Down,
    GoingAway,
}

/// The eligibility of a backend for calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// It gets calls.
    Usable,
    /// It gets calls only if no other can take them.
    LastResort,
    /// It gets calls only if all backends are like it.
    Unreachable,
}

/// The health of one backend.
#[derive(Debug)]
pub(super) struct Health {
    state: State,
    /// The exponent of the next ejection.
    ejections: u32,
    /// The time from which on the current healthy window counts.
    healthy_since: u64,
    /// The part of the slow start that was over when the state changed, and the time of that: a
    /// backend that returns soon does not begin anew.
    warmed: (u64, u64),
    /// The time from which on a ready backend is warm: one that has returned when no other was warm
    /// has all its weight at once, but is not warm for that.
    warm_from: u64,
}

impl Health {
    pub(super) fn new(now: u64, state: State) -> Self {
        Self {
            state,
            ejections: 0,
            healthy_since: now,
            warmed: (0, now),
            warm_from: now,
        }
    }

    /// Returns `true` if the backend has all its calls, and has had them for a slow start.
    pub(super) fn is_warm(&self, now: u64) -> bool {
        self.state == State::Ready && now >= self.warm_from
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn standing(&self) -> Standing {
        match self.state {
            State::Ready | State::SlowStart { .. } => Standing::Usable,
            State::Ejected { .. } | State::HalfOpen { .. } => Standing::LastResort,
            State::Down | State::GoingAway => Standing::Unreachable,
        }
    }

    /// Returns the share of its weight that the backend gets at `now`.
    pub(super) fn warmth(&self, now: u64, settings: &HealthSettings) -> f64 {
        match self.state {
            State::SlowStart { until } => {
                let left = Duration::from_nanos(until.saturating_sub(now));
                let window = Duration::from_nanos(settings.slow_start.max(1));
                let part = 1.0 - left.as_secs_f64() / window.as_secs_f64();
                part.clamp(settings.min_warmth, 1.0)
            }
            _ => 1.0,
        }
    }

    /// Ejects the backend. `random` is a fraction that spreads the time by 20 %.
    pub(super) fn eject(&mut self, now: u64, why: Trigger, random: f64, settings: &HealthSettings) {
        let factor = 2_u32.saturating_pow(self.ejections);
        let time = settings.ejection.saturating_mul(factor);
        let spread = time.min(settings.max_ejection).mul_f64(0.8 + 0.4 * random);
        // The shift below stays within its type; the maximum is reached long before.
        self.ejections = (self.ejections + 1).min(30);
        let until = now.saturating_add(nanos(spread));
        self.enter(now, State::Ejected { until, why }, settings);
    }

    /// Applies what time alone changes. Returns `true` if the state has changed.
    pub(super) fn advance(&mut self, now: u64, warm: bool, settings: &HealthSettings) -> bool {
        match self.state {
            State::Ejected { until, .. } if now >= until => {
                let state = State::HalfOpen {
                    since: now,
                    pinged: false,
                };
                self.enter(now, state, settings);
            }
            // No call has come that could be the trial: slow start has to do without it.
            State::HalfOpen { since, pinged }
                if pinged && now.saturating_sub(since) >= nanos(settings.ejection) =>
            {
                self.warm_up(now, warm, settings);
            }
            State::SlowStart { until } if now >= until => self.state = State::Ready,
            State::Ready | State::SlowStart { .. } => {
                let windows = now.saturating_sub(self.healthy_since) / settings.window.max(1);
                if windows > 0 {
                    let windows = windows.try_into().unwrap_or(u32::MAX);
                    self.ejections = self.ejections.saturating_sub(windows);
                    self.healthy_since = now;
                }
                return false;
            }
            _ => return false,
        }
        true
    }

    /// Returns the time at which [`advance`](Self::advance) has something to do, or the weight of a
    /// slow start has changed noticeably.
    pub(super) fn next_change(&self, now: u64, settings: &HealthSettings) -> Option<u64> {
        match self.state {
            State::Ejected { until, .. } => Some(until),
            State::HalfOpen {
                since,
                pinged: true,
            } => Some(since + nanos(settings.ejection)),
            State::SlowStart { until } => {
                Some(until.min(now.saturating_add(settings.slow_start / 10)))
            }
            _ => None,
        }
    }

    /// Accounts for the reply to a ping, or its absence. Returns `true` if the state has changed.
    pub(super) fn pinged(
        &mut self,
        now: u64,
        success: bool,
        random: f64,
        settings: &HealthSettings,
    ) -> bool {
        let State::HalfOpen { pinged: false, .. } = self.state else {
            return false;
        };
        match success {
            true => {
                self.state = State::HalfOpen {
                    since: now,
                    pinged: true,
                };
            }
            false => self.eject(now, Trigger::Trial, random, settings),
        }
        true
    }

    /// Accounts for the call that tested the backend. Returns `true` if the state has changed.
    pub(super) fn tried(
        &mut self,
        now: u64,
        success: bool,
        random: f64,
        warm: bool,
        settings: &HealthSettings,
    ) -> bool {
        let State::HalfOpen { .. } = self.state else {
            return false;
        };
        match success {
            true => self.warm_up(now, warm, settings),
            false => self.eject(now, Trigger::Trial, random, settings),
        }
        true
    }

    /// Marks the backend as unreachable. Returns `true` if the state has changed. An ejection goes
    /// on: a lost connection does not shorten it.
    pub(super) fn leave(&mut self, now: u64, state: State, settings: &HealthSettings) -> bool {
        let leaves = match self.standing() {
            Standing::Usable => true,
            Standing::LastResort => false,
            // One that refuses connections is not connected either.
            Standing::Unreachable => state == State::Down && self.state != State::Down,
        };
        if leaves {
            self.enter(now, state, settings);
        }
        leaves
    }

    /// Accounts for a new connection. Returns `true` if the state has changed.
    pub(super) fn connected(&mut self, now: u64, warm: bool, settings: &HealthSettings) -> bool {
        if self.standing() != Standing::Unreachable {
            return false;
        }
        self.warm_up(now, warm, settings);
        true
    }

    /// Begins slow start if others are warm. What was over before a short absence stays over,
    /// less the time of the absence.
    fn warm_up(&mut self, now: u64, warm: bool, settings: &HealthSettings) {
        let (part, at) = self.warmed;
        let part = part.saturating_sub(now.saturating_sub(at));
        let until = now.saturating_add(settings.slow_start.saturating_sub(part));
        self.healthy_since = now;
        (self.state, self.warm_from) = match warm && until > now {
            true => (State::SlowStart { until }, now),
            false => (State::Ready, until),
        };
    }

    fn enter(&mut self, now: u64, state: State, settings: &HealthSettings) {
        match self.state {
            State::Ready => {
                let left = self.warm_from.saturating_sub(now);
                self.warmed = (settings.slow_start.saturating_sub(left), now);
            }
            State::SlowStart { until } => {
                let left = until.saturating_sub(now);
                self.warmed = (settings.slow_start.saturating_sub(left), now);
            }
            _ => {}
        }
        // What was ejected for failures begins anew however short the ejection was.
        if let State::Ejected { .. } = state {
            self.warmed = (0, now);
        }
        self.state = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn settings() -> HealthSettings {
        HealthSettings {
            ejection: Duration::from_secs(10),
            max_ejection: Duration::from_secs(300),
            window: 10 * SECOND,
            slow_start: 10 * SECOND,
            min_warmth: 0.1,
        }
    }

    fn ejected_for(health: &mut Health, now: u64, random: f64) -> u64 {
        health.eject(now, Trigger::InARow(5), random, &settings());
        match health.state() {
            State::Ejected { until, .. } => until - now,
            state => panic!("{state:?}"),
        }
    }

    #[test]
    fn the_time_of_an_ejection_doubles_up_to_its_maximum() {
        let mut health = Health::new(0, State::Ready);
        let times: Vec<_> = (0..7)
            .map(|_| ejected_for(&mut health, 0, 0.5) / SECOND)
            .collect();
        assert_eq!(times, [10, 20, 40, 80, 160, 300, 300]);
        let mut health = Health::new(0, State::Ready);
        assert_eq!(ejected_for(&mut health, 0, 0.0), 8 * SECOND);
        let mut health = Health::new(0, State::Ready);
        assert!(ejected_for(&mut health, 0, 0.999) < 12 * SECOND);
    }

    #[test]
    fn the_exponent_falls_with_each_healthy_window() {
        let mut health = Health::new(0, State::Ready);
        for _ in 0..3 {
            ejected_for(&mut health, 0, 0.5);
        }
        health.warm_up(0, false, &settings());
        health.advance(9 * SECOND, true, &settings());
        assert_eq!(health.ejections, 3);
        health.advance(10 * SECOND, true, &settings());
        assert_eq!(health.ejections, 2);
        health.advance(40 * SECOND, true, &settings());
        assert_eq!(health.ejections, 0);
    }

    #[test]
    fn a_backend_returns_through_a_ping_one_call_and_slow_start() {
        let mut health = Health::new(0, State::Ready);
        health.eject(0, Trigger::InARow(5), 0.5, &settings());
        assert!(!health.advance(9 * SECOND, true, &settings()));
        assert!(health.advance(10 * SECOND, true, &settings()));
        assert_eq!(health.standing(), Standing::LastResort);
        assert!(health.pinged(11 * SECOND, true, 0.5, &settings()));
        assert!(health.tried(12 * SECOND, true, 0.5, true, &settings()));
        let warmth = |now: u64| health.warmth(now * SECOND, &settings());
        assert!((warmth(12) - 0.1).abs() < 1e-9);
        assert!((warmth(17) - 0.5).abs() < 1e-9);
        assert!(health.advance(22 * SECOND, true, &settings()));
        assert_eq!(health.state(), State::Ready);
    }

    #[test]
    fn a_failed_trial_ejects_for_twice_the_time() {
        let mut health = Health::new(0, State::Ready);
        health.eject(0, Trigger::InARow(5), 0.5, &settings());
        health.advance(10 * SECOND, true, &settings());
        assert!(health.pinged(10 * SECOND, false, 0.5, &settings()));
        let until = 30 * SECOND;
        let why = Trigger::Trial;
        assert_eq!(health.state(), State::Ejected { until, why });
    }

    #[test]
    fn a_lost_connection_does_not_end_an_ejection() {
        let mut health = Health::new(0, State::Ready);
        health.eject(0, Trigger::InARow(5), 0.5, &settings());
        for state in [State::GoingAway, State::Down] {
            assert!(!health.leave(SECOND, state, &settings()));
        }
        assert!(!health.connected(2 * SECOND, true, &settings()));
        assert_eq!(health.standing(), Standing::LastResort);
    }

    #[test]
    fn a_backend_that_refuses_connections_stays_down_when_a_call_finds_no_connection() {
        let mut health = Health::new(0, State::Ready);
        assert!(health.leave(0, State::GoingAway, &settings()));
        assert!(health.leave(0, State::Down, &settings()));
        assert!(!health.leave(0, State::GoingAway, &settings()));
        assert_eq!(health.state(), State::Down);
    }

    #[test]
    fn without_a_call_that_may_be_the_trial_slow_start_begins_anyway() {
        let mut health = Health::new(0, State::Ready);
        health.eject(0, Trigger::InARow(5), 0.5, &settings());
        health.advance(10 * SECOND, true, &settings());
        health.pinged(10 * SECOND, true, 0.5, &settings());
        assert_eq!(health.next_change(0, &settings()), Some(20 * SECOND));
        assert!(health.advance(20 * SECOND, true, &settings()));
        assert_eq!(health.standing(), Standing::Usable);
    }

    #[test]
    fn a_backend_that_flaps_does_not_begin_its_slow_start_anew() {
        let mut health = Health::new(0, State::SlowStart { until: 10 * SECOND });
        health.leave(8 * SECOND, State::Down, &settings());
        health.connected(9 * SECOND, true, &settings());
        assert!((health.warmth(9 * SECOND, &settings()) - 0.7).abs() < 1e-9);
        health.leave(10 * SECOND, State::GoingAway, &settings());
        health.connected(60 * SECOND, true, &settings());
        assert!((health.warmth(60 * SECOND, &settings()) - 0.1).abs() < 1e-9);
    }

    #[test]
    fn there_is_no_slow_start_while_nothing_is_warm() {
        let mut health = Health::new(0, State::Ready);
        health.leave(0, State::Down, &settings());
        health.connected(60 * SECOND, false, &settings());
        assert_eq!(health.state(), State::Ready);
        assert!(!health.is_warm(69 * SECOND), "others need no slow start");
        assert!(health.is_warm(70 * SECOND));
    }

    #[test]
    fn a_short_absence_right_after_the_start_needs_no_slow_start() {
        let mut health = Health::new(0, State::Ready);
        health.leave(0, State::GoingAway, &settings());
        health.connected(SECOND / 10, true, &settings());
        assert!(health.warmth(SECOND / 10, &settings()) > 0.98);
    }
}
