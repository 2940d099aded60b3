//! The time limits of a connection as data. Pure: the clock is an argument.

use std::time::{Duration, Instant};

use crate::error::ConnectionError;
use crate::limits::Limits;

/// The conditions under which the time limits apply, at this moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waits {
    /// The head of a frame has begun.
    pub(super) head: bool,
    /// A body has begun, or a client has the beginning of a message.
    pub(super) body: bool,
    /// Output waits for the peer to read.
    pub(super) write: bool,
    /// The connection is not read because too much is buffered.
    pub(super) over_budget: bool,
    /// The connection is idle.
    pub(super) idle: bool,
}

/// A token bucket: at most `most` events at once, and as many again each second.
///
/// Events beyond that are debt: no more may happen until it is paid off.
#[derive(Debug)]
pub(super) struct Rate {
    most: u32,
    /// Number of events that may happen now; negative if there have been too many.
    left: i64,
    /// The time up to which `left` has been refilled.
    filled_at: Instant,
}

/// Minimum time before an empty bucket is checked again, or the time of one token if that is
/// longer.
const REFILL: Duration = Duration::from_millis(5);

const NANOS: u128 = 1_000_000_000;

impl Rate {
    pub(super) fn new(most: u32, now: Instant) -> Self {
        let most = most.max(1);
        Self {
            most,
            left: most.into(),
            filled_at: now,
        }
    }

    /// Counts an event that happened at the time `now` or soon after.
    pub(super) fn count(&mut self, now: Instant) {
        self.refill(now);
        self.left = self.left.saturating_sub(1);
    }

    /// Returns `true` if another event may happen now.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.left > 0
    }

    /// Returns the time at which more may happen, or `None` if one may happen now.
    #[inline]
    pub(super) fn next(&self) -> Option<Instant> {
        if self.has_room() {
            return None;
        }
        self.refilled_at()
    }

    #[cold]
    fn refilled_at(&self) -> Option<Instant> {
        let step = u128::from(self.most) * REFILL.as_nanos() / NANOS;
        let tokens = u128::from(self.left.unsigned_abs()) + step.max(1);
        self.filled_at.checked_add(self.time_of(tokens))
    }

    /// Adds the tokens of the time that has passed.
    pub(super) fn refill(&mut self, now: Instant) {
        // `filled_at` may be up to a nanosecond ahead, because `time_of` rounds up.
        let nanos = now.saturating_duration_since(self.filled_at).as_nanos();
        let tokens = nanos.saturating_mul(self.most.into()) / NANOS;
        let missing = i64::from(self.most).saturating_sub(self.left);
        match i64::try_from(tokens) {
            Ok(tokens) if tokens < missing => {
                self.left += tokens;
                // The remaining fraction of a token counts for the next one.
                self.filled_at += self.time_of(tokens.unsigned_abs().into());
            }
            _ => {
                self.left = self.most.into();
                // The bucket is full, and the time beyond that adds nothing.
                self.filled_at = self.filled_at.max(now);
            }
        }
    }

    /// Returns the time in which this many tokens are added.
    fn time_of(&self, tokens: u128) -> Duration {
        let nanos = (tokens * NANOS).div_ceil(self.most.into());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// The times of the last events of a connection.
#[derive(Debug)]
pub(crate) struct Timers {
    last_read: Instant,
    last_write: Instant,
    /// Time of the first write after the last read.
    unheard_since: Instant,
    /// Time since which there is nothing to read; and the total of such times before.
    dry_since: Option<Instant>,
    read_idle: Duration,
    /// Time at which the first byte of the unfinished head arrived.
    head_since: Option<Instant>,
    /// Time since which output waits without a pause.
    output_since: Option<Instant>,
    over_budget_since: Option<Instant>,
    batch: Instant,
}

impl Timers {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last_read: now,
            last_write: now,
            unheard_since: now,
            dry_since: None,
            read_idle: Duration::ZERO,
            head_since: None,
            output_since: None,
            over_budget_since: None,
            batch: now,
        }
    }

    pub(crate) fn last_read(&self) -> Instant {
        self.last_read
    }

    pub(crate) fn last_write(&self) -> Instant {
        self.last_write
    }

    /// Returns the time since which the peer has had something to reply to: the first write after
    /// the last read, or that read.
    pub(super) fn unheard_since(&self) -> Instant {
        self.unheard_since.max(self.last_read)
    }

    /// Sets the time at which the frames that are handled next were read: `now`, or else the last
    /// read.
    pub(crate) fn on_batch(&mut self, now: Option<Instant>) {
        self.batch = now.unwrap_or(self.last_read);
    }

    /// Returns the time at which the frames being handled were read.
    pub(super) fn batch(&self) -> Instant {
        self.batch
    }

    /// Returns the time at which bytes were last read or written.
    pub(crate) fn last_moved(&self) -> Instant {
        self.last_read.max(self.last_write)
    }

    /// Records that bytes were read; `in_head` is `true` if they end within a frame's head,
    /// `frames` if any frame was completed.
    pub(crate) fn on_read(&mut self, now: Instant, in_head: bool, frames: bool) {
        self.last_read = now;
        if let Some(since) = self.dry_since.take() {
            self.read_idle += now.saturating_duration_since(since);
        }
        match in_head {
            false => self.head_since = None,
            // A head that began in this read counts from now on. One that was there before keeps
            // its time, so that a peer cannot extend the limit by sending single bytes (defect
            // D15).
            true if frames || self.head_since.is_none() => self.head_since = Some(now),
            true => {}
        }
    }

    /// Records that there is nothing to read at the moment.
    pub(crate) fn on_read_idle(&mut self, now: Instant) {
        self.dry_since.get_or_insert(now);
    }

    /// Returns the total time during which there was nothing to read.
    pub(crate) fn read_idle(&self) -> Duration {
        self.read_idle
    }

    pub(super) fn on_write(&mut self, now: Instant) {
        // Later writes do not move it: a peer that never replies must be found out although more is
        // sent to it.
        if self.unheard_since <= self.last_read {
            self.unheard_since = now;
        }
        self.last_write = now;
    }

    /// Records that a frame was taken, so that there was room at that moment.
    #[inline]
    pub(crate) fn on_room(&mut self) {
        self.over_budget_since = None;
    }

    /// Records whether output or buffered bytes wait.
    pub(crate) fn on_waiting(&mut self, now: Instant, output: bool, over_budget: bool) {
        update(&mut self.output_since, now, output);
        update(&mut self.over_budget_since, now, over_budget);
    }

    /// Returns the start and the duration of each limit that applies, in the order of [`NAMES`].
    #[inline]
    fn limits(&self, limits: &Limits, waits: Waits) -> [(Option<Instant>, Duration); 5] {
        let progress = limits.get_progress_timeout();
        // Each write that the peer accepts is progress, so the limit applies to the pause since.
        let write = self.output_since.filter(|_| waits.write);
        [
            (
                self.head_since.filter(|_| waits.head),
                limits.get_frame_head_timeout(),
            ),
            (waits.body.then_some(self.last_read), progress),
            (write.map(|since| since.max(self.last_write)), progress),
            (
                self.over_budget_since.filter(|_| waits.over_budget),
                progress,
            ),
            (
                waits.idle.then(|| self.last_moved()),
                limits.get_idle_timeout(),
            ),
        ]
    }

    /// Returns the time at which the first limit will be reached.
    pub(super) fn next(&self, limits: &Limits, waits: Waits) -> Option<Instant> {
        let mut next = None;
        for (since, limit) in self.limits(limits, waits) {
            if let Some(at) = since.and_then(|since| since.checked_add(limit))
                && next.is_none_or(|next| at < next)
            {
                next = Some(at);
            }
        }
        next
    }

    pub(super) fn check(
        &self,
        now: Instant,
        limits: &Limits,
        waits: Waits,
    ) -> Result<(), ConnectionError> {
        for ((since, limit), (what, option)) in self.limits(limits, waits).into_iter().zip(NAMES) {
            if since.is_some_and(|since| now.saturating_duration_since(since) >= limit) {
                return Err(ConnectionError::Timeout {
                    what,
                    limit,
                    option,
                });
            }
        }
        Ok(())
    }
}

/// The condition of each limit as it appears in the error, and the option that sets the limit.
const NAMES: [(&str, &str); 5] = [
    ("the head of a frame", "frame_head_timeout"),
    ("the next bytes of a message", "progress_timeout"),
    ("the peer to read", "progress_timeout"),
    (
        "buffered bytes to fall below max_buffered_bytes",
        "progress_timeout",
    ),
    ("the next call", "idle_timeout"),
];

/// Returns the error for a peer that has not read for `limit`.
#[cold]
pub(crate) fn not_read(limit: Duration) -> ConnectionError {
    let (what, option) = NAMES[2];
    ConnectionError::Timeout {
        what,
        limit,
        option,
    }
}

fn update(since: &mut Option<Instant>, now: Instant, waiting: bool) {
    if !waiting {
        *since = None;
    } else if since.is_none() {
        *since = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    proptest! {
        #[test]
        fn in_any_span_no_more_happens_than_at_once_and_in_that_span(
            most in 1_u32..5_000,
            steps in proptest::collection::vec((0_u64..20_000_000, 0_u32..6_000), 1..60),
        ) {
            let begun = Instant::now();
            let mut now = begun;
            let mut rate = Rate::new(most, now);
            let mut happened: Vec<Duration> = Vec::new();
            for (pause, wanted) in steps {
                now += Duration::from_nanos(pause);
                rate.refill(now);
                for _ in 0..wanted {
                    if !rate.has_room() {
                        break;
                    }
                    rate.count(now);
                    happened.push(now - begun);
                }
            }
            for (from, first) in happened.iter().enumerate().step_by(97) {
                for (to, last) in happened.iter().enumerate().skip(from).step_by(89) {
                    let span = (*last - *first).as_nanos();
                    let allowed = u128::from(most) + span * u128::from(most) / NANOS + 1;
                    prop_assert!((to - from) as u128 <= allowed);
                }
            }
        }

        #[test]
        fn whoever_has_used_up_the_rate_waits_for_what_was_beyond_it_and_a_few_milliseconds(
            most in 1_u32..2_000_000,
            beyond in 0_u32..20_000,
            late in 0_u64..1_000_000,
        ) {
            let begun = Instant::now();
            let mut rate = Rate::new(most, begun);
            rate.left = 0;
            let now = begun + Duration::from_nanos(late);
            (0..beyond).for_each(|_| rate.count(now));
            if rate.has_room() {
                prop_assert_eq!(rate.next(), None);
                return Ok(());
            }
            let next = rate.next().expect("nothing may happen now");
            let token = SECOND / most + Duration::from_nanos(1);
            prop_assert!(
                next <= begun
                    + SECOND.mul_f64(f64::from(beyond) / f64::from(most))
                    + REFILL
                    + token * 2
            );
            prop_assert!(next > now.min(next - token));
            rate.refill(next);
            prop_assert!(rate.has_room(), "the time that was named is enough");
        }

        #[test]
        fn who_always_wants_more_gets_the_whole_rate(most in 1_u32..20_000) {
            let begun = Instant::now();
            let mut rate = Rate::new(most, begun);
            let mut happened = 0_u64;
            let mut now = begun;
            while now < begun + 2 * SECOND {
                while rate.has_room() {
                    rate.count(now);
                    happened += 1;
                }
                now = rate.next().expect("nothing may happen now");
                rate.refill(now);
            }
            // At once, and within two seconds.
            let most = u64::from(most);
            prop_assert!(happened.abs_diff(3 * most) <= most / 100 + 2, "{} of {}", happened, most);
        }
    }

    #[test]
    fn a_rate_that_rests_is_whole_again_and_no_more_than_that() {
        let begun = Instant::now();
        let mut rate = Rate::new(u32::MAX, begun);
        rate.count(begun);
        for later in [SECOND, Duration::from_secs(u32::MAX.into())] {
            rate.refill(begun + later);
            assert_eq!(rate.left, i64::from(u32::MAX));
        }
        // A clock that goes back changes nothing.
        rate.refill(begun);
        assert_eq!(rate.left, i64::from(u32::MAX));
    }
}
