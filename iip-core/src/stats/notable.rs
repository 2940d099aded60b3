//! The calls that failed or were slow, the last ones of a server or client.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::code::{CODE_NAMES, OK, is_error};
use crate::clock;
use crate::error::Phases;

/// The maximum number of calls that a server or client remembers: half of them
/// [errors](super::is_error), a quarter other failures, and a quarter slow calls.
pub const MAX_RECENT_CALLS: usize = 64;

/// The time from which a call is slow, unless another one is set.
const SLOW: Duration = Duration::from_secs(1);

/// Calls that take less are never slow, so that a quick call costs one comparison.
const FLOOR: Duration = Duration::from_millis(1);

/// The maximum length of a text of a call, in bytes.
const MAX_TEXT: usize = 500;

/// A call that failed, or that took long. Nothing of its arguments and its value is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RecentCall {
    /// The number of the call; each gets a higher one than those before it.
    pub number: u64,
    /// The time at which it ended.
    pub at: SystemTime,
    /// The path, such as `/Greeter/hello`.
    pub path: String,
    /// The number of the status code, such as 14 for UNAVAILABLE; 0 if the call was only slow.
    pub code: u8,
    /// Its duration.
    pub took: Duration,
    /// The caller at a server, the backend at a client, if it is known.
    pub peer: Option<String>,
    /// The trace that the call belongs to, in hexadecimal digits, if its metadata names one.
    pub trace: Option<String>,
    /// The text of the error; empty if there is none. It may come from the peer.
    pub message: String,
    /// The parts of the time that are known, in their order.
    pub phases: Vec<(&'static str, Duration)>,
}

impl RecentCall {
    /// Creates the record of a call that has ended now. The query of the path is left out, because
    /// it has arguments. A number above 16 counts as OK.
    #[doc(hidden)]
    #[must_use]
    pub fn new(path: &str, code: u8, took: Duration) -> Self {
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        Self {
            number: 0,
            at: clock::wall_clock(),
            path: cut(path.to_owned()),
            code: match usize::from(code) < CODE_NAMES.len() {
                true => code,
                false => OK,
            },
            took,
            peer: None,
            trace: None,
            message: String::new(),
            phases: Vec::new(),
        }
    }

    /// Creates the record of a call that has ended now at a server, which received it at a time and
    /// let it wait for its turn.
    #[doc(hidden)]
    #[must_use]
    pub fn at_server(path: &str, code: u8, received: Instant, waited: Duration) -> Self {
        let handler = clock::now().saturating_duration_since(received + waited);
        let mut call = Self::new(path, code, waited + handler);
        call.phases = vec![("queue", waited), ("handler", handler)];
        call
    }

    /// Sets the phases that took any time.
    #[doc(hidden)]
    pub fn set_phases(&mut self, phases: &Phases) {
        let all = [
            ("connect", phases.connect),
            ("wait for channel", phases.wait_for_channel),
            ("write", phases.write),
            ("reply", phases.reply),
        ];
        let taken = all.into_iter().filter(|(_, time)| !time.is_zero());
        let of_server = [
            ("server queue", phases.server_queue),
            ("handler", phases.server_handler),
        ];
        let known = of_server
            .into_iter()
            .filter_map(|(name, time)| Some((name, time?)));
        self.phases = taken.chain(known).collect();
    }
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let mut ends = (0..=MAX_TEXT).rev();
        text.truncate(ends.find(|&end| text.is_char_boundary(end)).unwrap_or(0));
        text.push('…');
    }
    text
}

/// The last calls of a server or client that failed or were slow.
#[derive(Debug)]
pub(crate) struct RecentCalls {
    /// The time from which a call is slow, in nanoseconds.
    slow: AtomicU64,
    calls: Mutex<Calls>,
}

/// The lists have places of their own, so that many calls of one kind do not hide the others. In
/// each, the last call is at the front.
#[derive(Debug, Default)]
struct Calls {
    errors: VecDeque<RecentCall>,
    /// Those that failed because of the call itself, such as with NOT_FOUND.
    refused: VecDeque<RecentCall>,
    slow: VecDeque<RecentCall>,
    number: u64,
}

impl Default for RecentCalls {
    fn default() -> Self {
        Self {
            slow: AtomicU64::new(clock::nanos(SLOW)),
            calls: Mutex::default(),
        }
    }
}

impl RecentCalls {
    pub(crate) fn set_slow(&self, slow: Duration) {
        self.slow.store(clock::nanos(slow), Ordering::Relaxed);
    }

    /// Remembers a call, unless it neither failed nor was slow. If many fail at the same time, some
    /// are left out and not waited for.
    pub(crate) fn add(&self, mut call: RecentCall) {
        if call.code == 0 && clock::nanos(call.took) < self.slow.load(Ordering::Relaxed) {
            return;
        }
        call.message = cut(call.message);
        call.peer = call.peer.map(cut);
        call.trace = call.trace.map(cut);
        let Ok(mut calls) = self.calls.try_lock() else {
            return;
        };
        calls.number += 1;
        call.number = calls.number;
        let (list, max) = match call.code {
            0 => (&mut calls.slow, MAX_RECENT_CALLS / 4),
            code if is_error(code) => (&mut calls.errors, MAX_RECENT_CALLS / 2),
            _ => (&mut calls.refused, MAX_RECENT_CALLS / 4),
        };
        list.truncate(max - 1);
        list.push_front(call);
    }

    /// Returns the calls, the last one first.
    pub(crate) fn list(&self) -> Vec<RecentCall> {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let lists = [&calls.errors, &calls.refused, &calls.slow];
        let mut all: Vec<_> = lists.into_iter().flatten().cloned().collect();
        all.sort_unstable_by_key(|call| std::cmp::Reverse(call.number));
        all
    }
}

/// Returns `true` if a call that took this long may be slow.
#[doc(hidden)]
#[inline]
#[must_use]
pub fn may_be_slow(took: Duration) -> bool {
    took >= FLOOR
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(path: &str) -> RecentCall {
        RecentCall::new(path, 14, Duration::from_millis(3))
    }

    #[test]
    fn the_last_calls_are_remembered_the_latest_first() {
        let calls = RecentCalls::default();
        for number in 0..100 {
            calls.add(failed(&format!("/a/{number}")));
        }
        let list = calls.list();
        assert_eq!(list.len(), 32);
        assert_eq!((&*list[0].path, list[0].number), ("/a/99", 100));
        assert_eq!(list[31].path, "/a/68");
    }

    #[test]
    fn many_calls_of_one_kind_do_not_hide_the_others() {
        let calls = RecentCalls::default();
        calls.add(failed("/error"));
        calls.add(RecentCall::new("/slow", 0, Duration::from_secs(2)));
        for _ in 0..1000 {
            calls.add(RecentCall::new("/refused", 5, Duration::ZERO));
        }
        let list = calls.list();
        assert_eq!((&*list[0].path, list.len()), ("/refused", 18));
        assert_eq!((&*list[16].path, &*list[17].path), ("/slow", "/error"));
    }

    #[test]
    fn only_slow_calls_are_remembered_of_those_that_succeed() {
        let calls = RecentCalls::default();
        calls.add(RecentCall::new("/a", 0, Duration::from_millis(999)));
        calls.add(RecentCall::new("/b", 0, Duration::from_secs(1)));
        calls.set_slow(Duration::from_millis(10));
        calls.add(RecentCall::new("/c", 0, Duration::from_millis(10)));
        let paths: Vec<String> = calls.list().into_iter().map(|call| call.path).collect();
        assert_eq!(paths, ["/c", "/b"]);
        assert!(may_be_slow(Duration::from_millis(1)));
        assert!(!may_be_slow(Duration::from_micros(999)));
    }

    #[test]
    fn long_texts_are_cut() {
        let calls = RecentCalls::default();
        let mut call = failed(&"ä".repeat(1000));
        call.message = "ä".repeat(100_000);
        calls.add(call);
        let list = calls.list();
        assert!(list[0].message.len() < 510 && list[0].path.len() < 510);
    }
}
