//! Calls that have not run are made again, within their time.

use std::time::{Duration, Instant};

use crate::status::{Code, Execution, MethodError, Status};

/// Attempts after the first that a call has at most by default; one that waits until the server is ready has as many as its
/// time allows.
pub(crate) const MAX_REPEATS: u32 = 5;

/// The pause before the second repeat is at most this long, before each further one at most twice as long. The first repeat
/// follows at once: another connection may be there already.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Arguments that take up to this many bytes on the wire are kept while the call is under way, so that it can be made again.
pub(crate) const KEPT_BYTES: usize = 64 * 1024;

/// What an attempt met.
pub(crate) enum Failure<E> {
    /// The method's own error: the call has run.
    Own(E),
    /// Everything else.
    Status(Status),
}

impl<E> From<Status> for Failure<E> {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl<E: MethodError> Failure<E> {
    /// What the caller gets.
    pub(crate) fn into_error(self) -> E {
        match self {
            Self::Own(error) => error,
            Self::Status(status) => status.into(),
        }
    }
}

/// The repeats of one call.
#[derive(Debug)]
pub(crate) struct Repeats {
    most: u32,
    count: u32,
}

impl Repeats {
    pub(crate) fn new(most: u32) -> Self {
        Self { most, count: 0 }
    }

    /// How long to wait before the call is made again; `None` if it is not.
    #[cold]
    pub(crate) fn next(
        &mut self,
        status: &Status,
        now: Instant,
        deadline: Instant,
    ) -> Option<Duration> {
        // A call that may have run is its caller's to judge, and one that was refused for anything but the server's absence
        // would be refused again.
        let may_repeat = status.execution() != Execution::MayHaveExecuted
            && status.code() == Code::Unavailable
            && self.count < self.most;
        if !may_repeat {
            return None;
        }
        let most = match self.count {
            0 => Duration::ZERO,
            count => FIRST_PAUSE
                .saturating_mul(1 << (count - 1).min(16))
                .min(MAX_PAUSE),
        };
        self.count += 1;
        let pause = most.mul_f64(fastrand::f64());
        (pause < deadline.saturating_duration_since(now)).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn refused() -> Status {
        Status::unavailable("server is shutting down").with_execution(Execution::NotExecuted)
    }

    #[test]
    fn a_call_that_has_not_run_is_made_again_at_once_and_then_after_growing_pauses() {
        let now = Instant::now();
        let mut repeats = Repeats::new(MAX_REPEATS);
        let mut next = || repeats.next(&refused(), now, now + SECOND);
        assert_eq!(next(), Some(Duration::ZERO));
        for most in [10, 20, 40, 80] {
            let pause = next().expect("five repeats");
            assert!(
                pause <= Duration::from_millis(most),
                "{pause:?} of {most} ms"
            );
        }
        assert_eq!(next(), None, "no more than five");
    }

    #[test]
    fn a_call_that_may_have_run_is_not_made_again() {
        let now = Instant::now();
        let lost = Status::unavailable("the connection was lost");
        assert_eq!(lost.execution(), Execution::MayHaveExecuted);
        let next = Repeats::new(u32::MAX).next(&lost, now, now + SECOND);
        assert_eq!(next, None);
    }

    #[test]
    fn a_call_that_was_refused_for_another_reason_is_not_made_again() {
        let now = Instant::now();
        for status in [
            Status::resource_exhausted("too many calls"),
            Status::unimplemented("no such method"),
            Status::invalid_argument("bad"),
        ] {
            let status = status.with_execution(Execution::NotExecuted);
            let next = Repeats::new(u32::MAX).next(&status, now, now + SECOND);
            assert_eq!(next, None, "{status}");
        }
    }

    #[test]
    fn no_pause_outlasts_the_deadline() {
        let now = Instant::now();
        let mut repeats = Repeats {
            most: u32::MAX,
            count: 40,
        };
        for _ in 0..1000 {
            let deadline = now + Duration::from_millis(3);
            if let Some(pause) = repeats.next(&refused(), now, deadline) {
                assert!(now + pause < deadline);
            }
        }
        assert_eq!(repeats.next(&refused(), now, now), None);
    }
}
