//! Processor time, user and system together, of a whole process.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use nix::unistd::{SysconfVar, sysconf};

use crate::BoxError;

/// Returns the processor time that this process has used so far.
///
/// # Errors
/// An error of the system call.
pub fn own() -> Result<Duration, BoxError> {
    usage(UsageWho::RUSAGE_SELF)
}

/// Returns the processor time that the calling thread has used so far.
///
/// # Errors
/// An error of the system call.
pub fn own_thread() -> Result<Duration, BoxError> {
    usage(UsageWho::RUSAGE_THREAD)
}

/// Returns the processor time of all ended children of this process.
///
/// # Errors
/// An error of the system call.
pub fn ended_children() -> Result<Duration, BoxError> {
    usage(UsageWho::RUSAGE_CHILDREN)
}

fn usage(who: UsageWho) -> Result<Duration, BoxError> {
    let usage = getrusage(who)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}

/// Returns the processor time that process `pid` has used so far, in steps of one clock tick
/// (usually 10 ms).
///
/// # Errors
/// An error if there is no such process.
pub fn of(pid: u32) -> Result<Duration, BoxError> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    duration(ticks(&stat).ok_or_else(|| format!("{path}: not understood"))?)
}

/// Returns the processor time of all processes of this machine on all cores so far, with the time
/// that the host of a virtual machine took.
///
/// # Errors
/// An error of the system call.
pub fn machine() -> Result<Duration, BoxError> {
    let stat = std::fs::read_to_string("/proc/stat").map_err(|e| format!("/proc/stat: {e}"))?;
    duration(busy_ticks(&stat).ok_or("/proc/stat: not understood")?)
}

fn duration(ticks: u64) -> Result<Duration, BoxError> {
    let per_second = sysconf(SysconfVar::CLK_TCK)?.ok_or("the system has no clock tick")?;
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// The first line of `/proc/stat` without the ticks spent idle or waiting for a disk.
fn busy_ticks(stat: &str) -> Option<u64> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = fields
        .split_ascii_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = fields[..] else {
        return None;
    };
    Some(user + nice + system + irq + softirq + steal)
}

/// The sum of fields 14 and 15 (user and system ticks) of a line of `/proc/PID/stat`.
fn ticks(stat: &str) -> Option<u64> {
    // Field 2 is the program's name in brackets and may contain blanks and brackets.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let line = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 30 12 13 14 15";
        assert_eq!(ticks(line), Some(42));
        assert_eq!(ticks("7 (a) S 1"), None);
    }

    #[test]
    fn idle_ticks_do_not_count_as_busy() {
        assert_eq!(
            busy_ticks("cpu  1 2 4 1000 1000 8 16 32 64 0\ncpu0 1"),
            Some(63)
        );
        assert_eq!(busy_ticks("cpu 1 2"), None);
    }

    #[test]
    fn both_ways_to_measure_agree_about_this_process() {
        let own = own().expect("getrusage works");
        let of = of(std::process::id()).expect("proc is mounted");
        assert!(
            own.abs_diff(of) < Duration::from_secs(1),
            "{own:?} and {of:?}"
        );
    }
}
