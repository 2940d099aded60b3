//! The thread that writes the file.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use serde_json::json;

use super::Recorder;
use super::queue::{Draft, Drafts, Over};
use crate::capture::{self, Begin, End, Lost, Record};
use crate::exit::{Failure, Outcome};
use crate::output::Output;

/// Number of bytes that are reserved for the last records.
const RESERVE_BYTES: u64 = 1024;

/// Number of bytes that are collected before a write.
const GATHERED_BYTES: usize = 256 * 1024;

/// Stack size of the thread, in bytes.
const STACK_BYTES: usize = 8 * 1024 * 1024;

/// Interval of the checks for an end of the recording elsewhere.
const CHECK: Duration = Duration::from_millis(100);

/// The limits of a recording.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) bytes: u64,
    pub(super) time: Option<Duration>,
}

/// The counts of a recording.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recorded {
    pub(super) calls: u64,
    pub(super) bytes: u64,
    pub(super) lost: u64,
    pub(super) left_out: u64,
}

/// A writer of records to a file.
pub(super) struct FileWriter {
    recorder: Arc<Recorder>,
    bounds: Bounds,
    file: File,
    /// Encoded records that are not written yet.
    gathered: BytesMut,
    recorded: Recorded,
    output: Output,
}

impl FileWriter {
    /// Creates the file, with its first records.
    pub(super) fn create(
        path: &Path,
        server: &str,
        recorder: Arc<Recorder>,
        bounds: Bounds,
        output: Output,
    ) -> Outcome<Self> {
        let file = create(path);
        let failed =
            |error: &dyn std::fmt::Display| Failure::Own(format!("{}: {error}", path.display()));
        let mut writer = Self {
            recorder: Arc::clone(&recorder),
            bounds,
            file: file.map_err(|error| failed(&error))?,
            gathered: BytesMut::new(),
            recorded: Recorded::default(),
            output,
        };
        capture::begin(&mut writer.gathered);
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let begin = Begin {
            unix_us: u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX),
            program: concat!("iq ", env!("CARGO_PKG_VERSION")).to_owned(),
            server: server.to_owned(),
            payloads: recorder.filter.payloads(),
        };
        let services = recorder.services.iter().cloned().map(Box::new);
        let records = services.map(Record::Service);
        for record in [Record::Begin(begin)].into_iter().chain(records) {
            capture::encode(&record, &mut writer.gathered).map_err(|error| failed(&error))?;
        }
        if writer.gathered.len() as u64 + RESERVE_BYTES > bounds.bytes {
            let text = "the descriptions of the services do not fit into the file (--max-size)";
            return Err(Failure::Usage(text.to_owned()));
        }
        writer.flush().map_err(|error| failed(&error))?;
        Ok(writer)
    }

    /// Starts a thread that writes records until the recording ends.
    pub(super) fn spawn(self, drafts: Drafts) -> Outcome<JoinHandle<Outcome<Recorded>>> {
        // Decoding of values is recursive.
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        let spawned = thread.spawn(move || self.run(&drafts));
        spawned.map_err(|error| Failure::Own(format!("a thread cannot be started: {error}")))
    }

    fn run(mut self, drafts: &Drafts) -> Outcome<Recorded> {
        let written = self.write_all(drafts);
        // From now on, nothing is queued.
        drafts.shared.end();
        match written {
            Ok(()) => Ok(self.recorded),
            Err(error) => {
                let text = format!("the recording ended: the file cannot be written: {error}");
                self.output.note(&text);
                Err(Failure::Own(text))
            }
        }
    }

    fn write_all(&mut self, drafts: &Drafts) -> io::Result<()> {
        let deadline = self.bounds.time.map(|time| Instant::now() + time);
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return self.end("--max-time is over");
            }
            let next = match drafts.try_next() {
                Ok(None) => {
                    // If the program is killed, the file has everything up to now.
                    self.flush()?;
                    drafts.next(left.map_or(CHECK, |left| left.min(CHECK)))
                }
                next => next,
            };
            match next {
                Ok(Some(draft)) => {
                    if !self.write(draft)? {
                        return self.end("--max-size is reached");
                    }
                }
                Ok(None) if !drafts.shared.has_ended() => {}
                Ok(None) | Err(Over) => return self.end(INTERRUPTED),
            }
        }
    }

    /// Writes a record. Returns `false` if the file has no room for it.
    fn write(&mut self, draft: Draft) -> io::Result<bool> {
        let Draft {
            mut record,
            payload,
        } = draft;
        if let (Some(body), Some((path, payload))) = (record.body_mut(), payload) {
            let Recorder {
                filter, services, ..
            } = &*self.recorder;
            *body = filter.body(payload, &path, services);
            self.recorded.left_out += u64::from(body.left_out.is_some());
        }
        let lost = self.recorder.queue.shared.take_lost();
        if lost > 0 {
            self.recorded.lost += lost;
            self.encode(&Record::Lost(Lost { records: lost }))?;
        }
        let before = self.gathered.len();
        self.encode(&record)?;
        let all = self.recorded.bytes + self.gathered.len() as u64;
        if all + RESERVE_BYTES > self.bounds.bytes {
            self.gathered.truncate(before);
            return Ok(false);
        }
        self.recorded.calls += u64::from(matches!(record, Record::Request(_)));
        if self.gathered.len() >= GATHERED_BYTES {
            self.flush()?;
        }
        Ok(true)
    }

    fn encode(&mut self, record: &Record) -> io::Result<()> {
        capture::encode(record, &mut self.gathered).map_err(io::Error::other)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.gathered)?;
        self.recorded.bytes += self.gathered.len() as u64;
        self.gathered.clear();
        Ok(())
    }

    /// Writes the last record.
    fn end(&mut self, reason: &str) -> io::Result<()> {
        let shared = &self.recorder.queue.shared;
        shared.end();
        self.recorded.lost += shared.take_lost();
        let end = End {
            at: shared.now(),
            reason: reason.to_owned(),
            lost: self.recorded.lost,
        };
        self.encode(&Record::End(end))?;
        self.flush()?;
        match self.file.sync_data() {
            // A pipe cannot be synced, but is allowed.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            synced => synced?,
        }
        if reason != INTERRUPTED {
            let text = format!("the recording ended: {reason}; connections are passed on");
            match self.output.is_json() {
                true => drop(self.output.object("ended", json!({ "reason": reason }))),
                false => self.output.note(text),
            }
        }
        Ok(())
    }
}

/// The reason for the end if the user has interrupted the recording.
const INTERRUPTED: &str = "interrupted";

/// Creates a file that only its owner can read.
fn create(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
