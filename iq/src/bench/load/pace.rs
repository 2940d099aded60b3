//! Sleeping until a call is due.

use std::io;
use std::time::{Duration, Instant};

/// The time before a call is due during which a precise pace does not sleep. Any other pace sleeps
/// for at least this time, because each wakeup takes some microseconds of processor time.
const SHORT: Duration = Duration::from_micros(50);

/// A pace that sleeps until calls are due. The timers of tokio have a resolution of a millisecond,
/// which would send many calls at once; a timer of Linux is as precise as its clock.
#[derive(Debug)]
pub(super) struct Pace {
    timer: Timer,
    is_precise: bool,
}

impl Pace {
    /// Creates a pace. Must be called in a runtime.
    pub(super) fn new(is_precise: bool) -> io::Result<Self> {
        Ok(Self {
            timer: Timer::new()?,
            is_precise,
        })
    }

    /// Waits until this time, and returns the current time.
    pub(super) async fn until(&self, due: Instant) -> Instant {
        loop {
            let now = Instant::now();
            let left = due.saturating_duration_since(now);
            if left.is_zero() {
                return now;
            }
            if !self.is_precise {
                self.timer.sleep(left.max(SHORT)).await;
            } else if left > SHORT {
                self.timer.sleep(left - SHORT).await;
            } else {
                // Meanwhile, replies are read.
                tokio::task::yield_now().await;
            }
        }
    }
}

#[cfg(target_os = "linux")]
use self::linux::Timer;

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::time::Duration;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::net::unix::pipe::Receiver;

    /// A timer that is read like a pipe: the types of tokio for other descriptors are not safe.
    #[derive(Debug)]
    pub(super) struct Timer(Receiver);

    impl Timer {
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            Ok(Self(Receiver::from_owned_fd_unchecked(timer)?))
        }

        pub(super) async fn sleep(&self, time: Duration) {
            // Without this timer, sleeping is only less precise.
            if self.try_sleep(time).await.is_err() {
                tokio::time::sleep(time).await;
            }
        }

        async fn try_sleep(&self, time: Duration) -> io::Result<()> {
            let zero = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let time = Itimerspec {
                it_interval: zero,
                it_value: Timespec {
                    tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: time.subsec_nanos().into(),
                },
            };
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &time)?;
            loop {
                self.0.readable().await?;
                match self.0.try_read(&mut [0; 8]) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return read.map(drop),
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
struct Timer;

#[cfg(not(target_os = "linux"))]
impl Timer {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pace_is_never_early_and_what_is_past_does_not_wait() {
        for is_precise in [false, true] {
            let (pace, start) = (Pace::new(is_precise).unwrap(), Instant::now());
            for micros in [300, 900, 2500] {
                let due = start + Duration::from_micros(micros);
                let now = pace.until(due).await;
                assert!(now >= due && now <= Instant::now());
            }
            assert!(pace.until(start).await > start);
        }
    }
}
