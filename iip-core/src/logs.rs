//! Logging of failures that the peers of a server can cause or repeat: a limited number of lines
//! per minute of each kind, for the whole server. A limit per connection would have no effect on a
//! peer that reconnects.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::Level;

use crate::clock;

const MINUTE: Duration = Duration::from_secs(60);

/// Maximum number of bytes of a path that are logged.
const PATH_BYTES: usize = 128;

/// Maximum number of bytes of the text of a panic or of a one-way call's failure that are logged.
const TEXT_BYTES: usize = 128;

/// Maximum number of bytes of a failure and its causes that are logged.
const CAUSES_BYTES: usize = 1024;

/// Logs at a level that is only known at run time.
macro_rules! at_level {
    ($level:expr, $($fields:tt)*) => {
        match $level {
            Level::ERROR => tracing::error!($($fields)*),
            Level::WARN => tracing::warn!($($fields)*),
            Level::INFO => tracing::info!($($fields)*),
            Level::DEBUG => tracing::debug!($($fields)*),
            Level::TRACE => tracing::trace!($($fields)*),
        }
    };
}

/// The logging options of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogConfig {
    /// The level of failures that are the server's fault; `None`: no failure is logged.
    pub(crate) level: Option<Level>,
    pub(crate) per_minute: u32,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: Some(Level::WARN),
            per_minute: 100,
        }
    }
}

/// The log of one server.
#[derive(Debug)]
pub(crate) struct Logs {
    config: LogConfig,
    failures: Window,
    panics: Window,
    one_way: Window,
    strangers: Window,
}

/// The lines of one kind that were logged in the current minute.
#[derive(Debug)]
struct Window {
    /// The name of the kind, for the note that further lines are not logged.
    what: &'static str,
    state: Mutex<Count>,
}

#[derive(Debug, Default)]
struct Count {
    began: Option<Instant>,
    lines: u32,
    left_out: u64,
}

/// A line that may be logged.
struct Line {
    /// Number of lines that were left out since the previous one.
    left_out: Option<u64>,
}

impl Window {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            state: Mutex::default(),
        }
    }

    /// Admits one more line, if the limit allows it.
    fn admit(&self, per_minute: u32) -> Option<Line> {
        let now = clock::now();
        let mut count = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let began = *count.began.get_or_insert(now);
        if now.saturating_duration_since(began) >= MINUTE {
            count.began = Some(now);
            count.lines = 0;
        }
        if count.lines >= per_minute {
            count.left_out = count.left_out.saturating_add(1);
            return None;
        }
        count.lines += 1;
        let left_out = std::mem::take(&mut count.left_out);
        let is_last = count.lines == per_minute;
        drop(count);
        if is_last {
            let what = self.what;
            tracing::warn!(
                "further {what} of this server are not logged in this minute (option max_log_lines)"
            );
        }
        Some(Line {
            left_out: (left_out > 0).then_some(left_out),
        })
    }
}

impl Logs {
    pub(crate) fn new(config: LogConfig) -> Self {
        Self {
            config,
            failures: Window::new("failures of handlers"),
            panics: Window::new("panics of handlers"),
            one_way: Window::new("failures of one-way calls"),
            strangers: Window::new("connections of other protocols"),
        }
    }

    /// Logs that a handler has failed, which its caller is notified of.
    #[cold]
    pub(crate) fn failure(
        &self,
        peer: Option<SocketAddr>,
        path: &str,
        failure: &dyn Error,
        is_fault: bool,
    ) {
        let Some(level) = self.config.level else {
            return;
        };
        let level = if is_fault { level } else { Level::DEBUG };
        if !is_enabled(level) {
            return;
        }
        let Some(Line { left_out }) = self.failures.admit(self.config.per_minute) else {
            return;
        };
        let path = shown(path.as_bytes(), PATH_BYTES);
        let error = shown(Causes(failure).to_string().as_bytes(), CAUSES_BYTES);
        at_level!(level, %path, %error, ?peer, left_out, "a handler failed");
    }

    /// Logs that a one-way call was not run, or has failed: its caller gets no reply.
    #[cold]
    pub(crate) fn one_way(&self, peer: Option<SocketAddr>, path: &[u8], why: &dyn fmt::Display) {
        let Some(Line { left_out }) = self.one_way.admit(self.config.per_minute) else {
            return;
        };
        let path = shown(path, PATH_BYTES);
        let why = shown(why.to_string().as_bytes(), TEXT_BYTES);
        tracing::warn!(%path, %why, ?peer, left_out, "a one-way call failed");
    }

    #[cold]
    pub(crate) fn panic(&self, peer: Option<SocketAddr>, path: &[u8], panic: &(dyn Any + Send)) {
        let Some(Line { left_out }) = self.panics.admit(self.config.per_minute) else {
            return;
        };
        let text = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or_default();
        let path = shown(path, PATH_BYTES);
        let panic = shown(text.as_bytes(), TEXT_BYTES);
        tracing::error!(%path, %panic, ?peer, left_out, "handler panicked");
    }

    /// Logs that a peer speaks another protocol.
    #[cold]
    pub(crate) fn stranger(&self, peer: Option<SocketAddr>, error: &dyn fmt::Display) {
        if let Some(Line { left_out }) = self.strangers.admit(self.config.per_minute) {
            tracing::warn!(?peer, %error, left_out, "a connection of another protocol was closed");
        }
    }
}

fn is_enabled(level: Level) -> bool {
    match level {
        Level::ERROR => tracing::enabled!(Level::ERROR),
        Level::WARN => tracing::enabled!(Level::WARN),
        Level::INFO => tracing::enabled!(Level::INFO),
        Level::DEBUG => tracing::enabled!(Level::DEBUG),
        Level::TRACE => tracing::enabled!(Level::TRACE),
    }
}

/// An error with its causes, for display.
pub(crate) struct Causes<'a>(pub(crate) &'a dyn Error);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Returns the beginning of a text, escaped for the log.
fn shown(text: &[u8], limit: usize) -> String {
    text[..text.len().min(limit)].escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_minute_has_so_many_lines_and_the_next_one_says_how_many_were_left_out() {
        let window = Window::new("lines");
        let lines = || (0..10).filter_map(|_| window.admit(3)).count();
        assert_eq!(lines(), 3);
        tokio::time::advance(MINUTE - Duration::from_secs(1)).await;
        assert!(window.admit(3).is_none());
        tokio::time::advance(Duration::from_secs(1)).await;
        let line = window.admit(3).expect("a line");
        assert_eq!(line.left_out, Some(8));
        let line = window.admit(3).expect("a line");
        assert_eq!(line.left_out, None);
        assert!(Window::new("lines").admit(0).is_none());
    }

    #[test]
    fn a_text_is_logged_escaped_and_cut() {
        assert_eq!(shown(b"a\nb\x1b[31m", 100), r"a\nb\x1b[31m");
        assert_eq!(shown(&[b'x'; 200], 10).len(), 10);
    }
}
