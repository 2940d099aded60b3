//! The throttle after a time without any usable backend. The calls that have waited would
//! overwhelm the first backends that return.

use super::options::BalanceOptions;
use super::time::nanos;

/// The state of the throttle.
#[derive(Debug)]
pub(super) struct Recovery {
    phase: Phase,
    /// The time without a change after which the throttle ends, in nanoseconds.
    time: u64,
    /// The share of backends that is wanted.
    share: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// No backend was connected yet, so that there was no outage.
    Starting,
    /// Calls pass.
    Normal,
    /// No backend is usable. Calls pass, and meet the reason.
    Outage,
    /// Fewer backends than wanted are usable, and this number since that time.
    Recovering { usable: usize, since: u64 },
}

impl Recovery {
    pub(super) fn new(options: &BalanceOptions) -> Self {
        Self {
            phase: Phase::Starting,
            time: nanos(options.recovery_time),
            share: options.recovery_share,
        }
    }

    /// Records that a backend was connected: from now on, a time without any is an outage.
    pub(super) fn begin(&mut self) {
        if self.phase == Phase::Starting {
            self.phase = Phase::Normal;
        }
    }

    /// Applies the number of usable backends of all `known` ones; `is_out` is `true` if those that
    /// are not usable have refused connections or failed. Returns the probability with which a call
    /// passes.
    pub(super) fn update(&mut self, now: u64, usable: usize, known: usize, is_out: bool) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "it is a number of backends")]
        let part = usable as f64 / (known as f64 * self.share).max(1.0);
        self.phase = match self.phase {
            Phase::Starting => Phase::Starting,
            _ if known == 0 || self.time == 0 => Phase::Normal,
            _ if usable == 0 && is_out => Phase::Outage,
            _ if usable == 0 => self.phase,
            Phase::Normal => Phase::Normal,
            _ if part >= 1.0 => Phase::Normal,
            Phase::Recovering {
                usable: same,
                since,
            } if same == usable => match now.saturating_sub(since) >= self.time {
                true => Phase::Normal,
                false => self.phase,
            },
            _ => Phase::Recovering { usable, since: now },
        };
        match self.phase {
            Phase::Recovering { .. } => part,
            _ => 1.0,
        }
    }

    /// Returns the time at which the throttle ends if nothing changes.
    pub(super) fn next_change(&self) -> Option<u64> {
        match self.phase {
            Phase::Recovering { since, .. } => Some(since.saturating_add(self.time)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn calls_are_throttled_after_a_total_outage_only() {
        let mut recovery = Recovery::new(&BalanceOptions::new());
        recovery.update(0, 0, 8, true);
        let start = recovery.update(0, 1, 8, true);
        assert!(
            start >= 1.0,
            "there is no outage before the first connection"
        );
        recovery.begin();
        let mut admit =
            |second: u64, usable: usize| recovery.update(second * SECOND, usable, 8, true);
        assert!(admit(0, 1) >= 1.0, "there was no outage");
        assert!(admit(1, 0) >= 1.0, "calls meet the reason");
        assert!((admit(2, 1) - 0.25).abs() < 1e-9);
        assert!((admit(3, 2) - 0.5).abs() < 1e-9);
        assert!((admit(12, 2) - 0.5).abs() < 1e-9);
        assert!(admit(13, 2) >= 1.0, "nothing has changed for ten seconds");
        admit(14, 0);
        assert!(admit(15, 4) >= 1.0, "half of the backends are usable");
    }

    #[test]
    fn backends_that_are_not_connected_are_no_outage() {
        let mut recovery = Recovery::new(&BalanceOptions::new());
        recovery.begin();
        recovery.update(0, 0, 8, false);
        assert!(recovery.update(0, 1, 8, false) >= 1.0);
    }

    #[test]
    fn an_empty_set_is_no_outage() {
        let mut recovery = Recovery::new(&BalanceOptions::new());
        recovery.begin();
        recovery.update(0, 0, 0, true);
        assert!(recovery.update(0, 1, 4, true) >= 1.0);
        assert_eq!(recovery.next_change(), None);
    }
}
