//! The processor time of this program.

use std::time::Duration;

/// Returns the processor time of the process so far; `None` if the system does not report it.
pub(super) fn process() -> Option<Duration> {
    #[cfg(target_os = "linux")]
    return Some(clock(rustix::time::ClockId::ProcessCPUTime));
    #[cfg(not(target_os = "linux"))]
    None
}

/// Returns the processor time of the calling thread; `None` if the system does not report it.
pub(super) fn thread() -> Option<Duration> {
    #[cfg(target_os = "linux")]
    return Some(clock(rustix::time::ClockId::ThreadCPUTime));
    #[cfg(not(target_os = "linux"))]
    None
}

#[cfg(target_os = "linux")]
fn clock(id: rustix::time::ClockId) -> Duration {
    let time = rustix::time::clock_gettime(id);
    let (seconds, nanos) = (time.tv_sec.try_into(), time.tv_nsec.try_into());
    Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
}

/// Returns the number of cores of the machine.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
