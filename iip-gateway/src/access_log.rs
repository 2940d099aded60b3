//! The access log: one line for each request, written by a separate thread so that a slow disk or
//! pipe does not block requests.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::{Method, Version};
use iip_core::Printable;
use serde_json::json;

/// Maximum number of lines that are queued to be written.
const QUEUE: usize = 8 * 1024;

/// The form of the lines of an access log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum LogFormat {
    /// One JSON object.
    #[default]
    Json,
    /// Fields that are separated by spaces, for people.
    Text,
}

/// An access log: one line for each request. Cloning is cheap.
///
/// | field | |
/// |---|---|
/// | `time` | the time of the reply, in seconds since 1970 |
/// | `peer` | the address of the client's connection |
/// | `method`, `host`, `target`, `version` | the request |
/// | `group` | the group that it was routed to |
/// | `status` | of the reply; 499 if the client has disconnected before |
/// | `received`, `sent` | sizes of the bodies, in bytes |
/// | `ms` | the time until the reply was ready |
/// | `trace_id` | the trace of the client's `traceparent`, or one that begins with the request |
/// | `cause` | why there is no reply of a backend, or why it was cut off |
///
/// Lines that arrive faster than they can be written are dropped; the number of dropped lines is
/// logged as soon as there is room.
#[derive(Clone, Debug)]
pub struct AccessLog {
    format: LogFormat,
    lines: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

/// A message to the thread.
#[derive(Debug)]
enum Item {
    Line(String),
    /// A request to reply once all earlier lines are written.
    Flush(SyncSender<()>),
}

impl AccessLog {
    /// Appends lines to a file, which is created if it does not exist.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be opened, or the thread not started.
    pub fn file(path: impl AsRef<Path>, format: LogFormat) -> io::Result<Self> {
        let file: File = OpenOptions::new().create(true).append(true).open(path)?;
        Self::writer(file, format)
    }

    /// Writes lines to the standard output.
    ///
    /// # Errors
    ///
    /// Fails if the thread cannot be started.
    pub fn stdout(format: LogFormat) -> io::Result<Self> {
        Self::writer(io::stdout(), format)
    }

    /// Writes lines to a writer.
    ///
    /// # Errors
    ///
    /// Fails if the thread cannot be started.
    pub fn writer(writer: impl Write + Send + 'static, format: LogFormat) -> io::Result<Self> {
        let (lines, receiver) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        let thread = std::thread::Builder::new().name("access log".to_owned());
        thread.spawn(move || write_lines(writer, &receiver, &counter))?;
        Ok(Self {
            format,
            lines,
            dropped,
        })
    }

    /// Waits, for at most `limit`, until the lines so far are written. Blocks the thread.
    pub(crate) fn flush(&self, limit: Duration) {
        let (done, written) = sync_channel(1);
        if self.lines.try_send(Item::Flush(done)).is_ok() {
            let _ = written.recv_timeout(limit);
        }
    }

    pub(crate) fn add(&self, entry: &Entry<'_>) {
        match self.lines.try_send(Item::Line(entry.line(self.format))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn write_lines(writer: impl Write, lines: &Receiver<Item>, dropped: &AtomicU64) {
    let mut writer = BufWriter::new(writer);
    let mut failed = false;
    while let Ok(first) = lines.recv() {
        let mut waiting = Vec::new();
        let write = || {
            for item in std::iter::once(first).chain(lines.try_iter()) {
                match item {
                    Item::Line(line) => writer.write_all(line.as_bytes())?,
                    Item::Flush(done) => waiting.push(done),
                }
            }
            let dropped = dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                writeln!(writer, "{{\"dropped\":{dropped}}}")?;
            }
            writer.flush()
        };
        match write() {
            Ok(()) => failed = false,
            Err(error) if !failed => {
                failed = true;
                tracing::warn!(%error, "the access log cannot be written");
            }
            Err(_) => {}
        }
        for done in waiting {
            let _ = done.try_send(());
        }
    }
}

/// The record of one request.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) method: &'a Method,
    pub(crate) host: &'a str,
    pub(crate) target: &'a str,
    pub(crate) version: Version,
    pub(crate) group: Option<&'a str>,
    pub(crate) status: u16,
    pub(crate) received: usize,
    pub(crate) sent: usize,
    pub(crate) time: Duration,
    pub(crate) trace_id: &'a str,
    pub(crate) cause: Option<&'a str>,
}

impl Entry<'_> {
    fn line(&self, format: LogFormat) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default();
        let now = format!("{}.{:03}", now.as_secs(), now.subsec_millis());
        let ms = self.time.as_secs_f64() * 1e3;
        let peer = self.peer.map(|peer| peer.to_string());
        match format {
            LogFormat::Json => {
                let line = json!({
                    "time": now.parse::<f64>().unwrap_or_default(),
                    "peer": peer,
                    "method": self.method.as_str(),
                    "host": self.host,
                    "target": self.target,
                    "version": format!("{:?}", self.version),
                    "group": self.group,
                    "status": self.status,
                    "received": self.received,
                    "sent": self.sent,
                    "ms": (ms * 1e3).round() / 1e3,
                    "trace_id": self.trace_id,
                    "cause": self.cause,
                });
                format!("{line}\n")
            }
            LogFormat::Text => format!(
                "{now} {} {} {} {} {:?} {} {} {} {} {ms:.3}ms {} {}\n",
                peer.as_deref().unwrap_or("-"),
                self.method,
                or_dash(self.host),
                or_dash(self.target),
                self.version,
                or_dash(self.group.unwrap_or_default()),
                self.status,
                self.received,
                self.sent,
                self.trace_id,
                or_dash(self.cause.unwrap_or_default()),
            ),
        }
    }
}

fn or_dash(text: &str) -> Printable<&str> {
    Printable(if text.is_empty() { "-" } else { text })
}
