//! The progress and the report of a transfer.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::hash::Hash;
use crate::path::beginning;
use crate::receive::Received;
use crate::sync::locked;

/// The progress of a transfer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The current phase.
    pub phase: Phase,
    /// The path of the current file: below the transferred directory, or the remote path of a
    /// single file.
    pub path: String,
    /// Size of the current file, in bytes.
    pub size: u64,
    /// Bytes of the current file that were sent or received, including those of earlier transfers.
    pub sent: u64,
    /// Bytes of the current file that have been synced to the disk of the receiver. An interrupted
    /// transfer resumes there.
    pub durable: u64,
    /// Number of complete files, including those that existed already.
    pub files: u64,
    /// Total number of files; 0 while they are counted.
    pub files_total: u64,
    /// Total size of the complete files, in bytes.
    pub bytes: u64,
    /// Total size of all files, in bytes.
    pub bytes_total: u64,
}

/// A phase of a transfer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// The files of a directory are counted and compared.
    #[default]
    Listing,
    /// The transfer of a file begins, or resumes after the bytes of an earlier transfer.
    Beginning,
    /// The transfer of a file starts from the beginning: the source has changed since an earlier
    /// transfer, whose bytes were discarded.
    BeginningAgain,
    /// Bytes are transferred.
    Transferring,
    /// The connection was lost, and the transfer waits for the next attempt.
    Reconnecting,
    /// Both sides read the file again.
    Verifying,
    /// The file gets its name.
    Committing,
    /// A file is complete.
    Done,
}

/// The result of a transfer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Number of files that were transferred.
    pub files: u64,
    /// Number of files of a directory that were not transferred, because they existed with the same
    /// size and modification time.
    pub unchanged: u64,
    /// Total size of the transferred files, in bytes.
    pub bytes: u64,
    /// Bytes that were sent or received for these files, without those of earlier transfers.
    pub transferred: u64,
    /// Number of files that were transferred from the beginning because their source had changed
    /// since an earlier, interrupted transfer.
    pub restarted: u64,
    /// The hash of the file, if a single file was transferred. After a resumed upload without
    /// [`verify`](crate::TransferOptions::verify), it is that of the server; otherwise, this side
    /// has compared it with its own.
    pub hash: Option<Hash>,
    /// The entries of a directory that are not transferred, such as symbolic links and special
    /// files, with the reasons; the first 1000 of [`skipped_count`](Self::skipped_count).
    pub skipped: Vec<Skipped>,
    /// Number of entries of a directory that are not transferred.
    pub skipped_count: u64,
    /// The files and directories below a directory that could not be read at their source, with the
    /// reasons; the first 1000 of [`unreadable_count`](Self::unreadable_count).
    pub unreadable: Vec<Skipped>,
    /// Number of files and directories that could not be read at their source.
    pub unreadable_count: u64,
}

/// An entry of a directory that was not transferred.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// The path below the directory, of at most 4096 bytes.
    pub path: String,
    /// The reason, in words, of at most 400 bytes.
    pub reason: String,
}

/// Maximum number of skipped entries of each kind that are kept with their reasons.
const MAX_SKIPPED: usize = 1000;
const MAX_PATH_BYTES: usize = 4096;
const MAX_REASON_BYTES: usize = 400;

/// A callback for the progress of a transfer.
pub(super) type Callback = dyn Fn(&Progress) + Send + Sync;

/// Collects the report of a transfer, and passes its progress to the callback.
pub(crate) struct Tracker<'a> {
    callback: Option<&'a Callback>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    progress: Progress,
    report: Report,
    /// Set if a single file is transferred.
    is_single: bool,
    /// The offset at which this attempt began.
    begun_at: u64,
    /// Bytes of the file that earlier attempts have sent.
    sent_before: u64,
    /// Number of changes.
    steps: u64,
    /// Set while this side is busy, and the server is not awaited.
    is_busy: bool,
}

impl<'a> Tracker<'a> {
    pub(crate) fn new(callback: Option<&'a Callback>) -> Self {
        Self {
            callback,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    fn tell(&self, change: impl FnOnce(&mut State)) {
        let progress = {
            let mut state = self.state();
            state.steps += 1;
            state.is_busy = false;
            change(&mut state);
            self.callback.map(|_| state.progress.clone())
        };
        if let (Some(progress), Some(callback)) = (progress, self.callback) {
            callback(&progress);
        }
    }

    pub(super) fn phase(&self, phase: Phase) {
        self.tell(|state| state.progress.phase = phase);
    }

    /// Sets the number and total size of the files to transfer.
    pub(super) fn totals(&self, files: u64, bytes: u64) {
        self.tell(|state| {
            state.progress.files_total = files;
            state.progress.bytes_total = bytes;
        });
    }

    /// Starts the transfer of a single file.
    pub(crate) fn single(&self, path: &str) {
        self.file(path);
        let mut state = self.state();
        state.is_single = true;
        state.progress.files_total = 1;
    }

    /// Starts the transfer of the next file.
    pub(super) fn file(&self, path: &str) {
        let mut state = self.state();
        state.sent_before = 0;
        state.begun_at = 0;
        path.clone_into(&mut state.progress.path);
        (
            state.progress.size,
            state.progress.sent,
            state.progress.durable,
        ) = (0, 0, 0);
    }

    /// Starts an attempt to transfer the current file.
    pub(crate) fn begin(&self, size: u64, offset: u64, restarted: bool) {
        self.tell(|state| {
            state.sent_before += state.progress.sent - state.begun_at;
            state.begun_at = offset;
            let progress = &mut state.progress;
            (progress.size, progress.sent, progress.durable) = (size, offset, offset);
            progress.phase = if restarted {
                Phase::BeginningAgain
            } else {
                Phase::Beginning
            };
            if state.is_single {
                progress.bytes_total = size;
            }
            state.report.restarted += u64::from(restarted);
        });
    }

    pub(crate) fn sent(&self, sent: u64) {
        self.tell(|state| {
            state.progress.phase = Phase::Transferring;
            state.progress.sent = sent;
        });
    }

    pub(super) fn received(&self, received: Received) {
        self.tell(|state| {
            let progress = &mut state.progress;
            progress.phase = Phase::Transferring;
            progress.sent = received.bytes.min(progress.size);
            progress.durable = received.durable;
            state.is_busy = !received.awaits_sender;
        });
    }

    pub(super) fn durable(&self, durable: u64) {
        self.tell(|state| {
            state.progress.phase = Phase::Transferring;
            state.progress.durable = durable;
        });
    }

    /// Returns the number of bytes of the current file that were sent or received.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.state().progress.sent
    }

    /// Returns the number of bytes of the current file that are durable.
    pub(super) fn durable_bytes(&self) -> u64 {
        self.state().progress.durable
    }

    /// Returns the size of the current file.
    pub(super) fn size_of_file(&self) -> u64 {
        self.state().progress.size
    }

    /// Sets the size of the current file.
    pub(crate) fn size(&self, size: u64) {
        self.state().progress.size = size;
    }

    /// Completes the current file.
    pub(crate) fn done(&self, hash: impl Into<Option<Hash>>) {
        self.tell(|state| {
            let (size, sent) = (state.progress.size, state.progress.sent);
            state.report.transferred += state.sent_before + (sent - state.begun_at);
            state.report.hash = hash.into();
            state.complete(size);
        });
    }

    /// Counts small files that are complete.
    pub(super) fn done_small(&self, sizes: impl Iterator<Item = u64>) {
        self.tell(|state| {
            for size in sizes {
                state.report.transferred += size;
                state.complete(size);
            }
        });
    }

    /// Counts files that exist already.
    pub(super) fn unchanged(&self, sizes: impl Iterator<Item = u64>) {
        self.tell(|state| {
            for size in sizes {
                state.report.unchanged += 1;
                state.progress.files += 1;
                state.progress.bytes += size;
            }
        });
    }

    /// Counts an entry that is not transferred.
    pub(super) fn skipped(&self, path: &str, reason: &str) {
        let report = &mut self.state().report;
        add(&mut report.skipped, &mut report.skipped_count, path, reason);
    }

    /// Counts a file or directory that cannot be read at its source.
    pub(super) fn unreadable(&self, path: &str, reason: &str) {
        let report = &mut self.state().report;
        add(
            &mut report.unreadable,
            &mut report.unreadable_count,
            path,
            reason,
        );
    }

    /// Returns a number that changes with each progress.
    pub(super) fn steps(&self) -> u64 {
        self.state().steps
    }

    /// Returns `true` while this side is busy, and the server is not awaited.
    pub(super) fn is_busy(&self) -> bool {
        self.state().is_busy
    }

    /// Counts progress that is not reported.
    pub(super) fn step(&self) {
        self.state().steps += 1;
    }

    pub(crate) fn into_report(self) -> Report {
        let state = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let mut report = state.report;
        report.hash = report.hash.filter(|_| state.is_single);
        report
    }
}

impl State {
    fn complete(&mut self, size: u64) {
        self.progress.phase = Phase::Done;
        self.progress.files += 1;
        self.progress.bytes += size;
        self.report.files += 1;
        self.report.bytes += size;
    }
}

/// Adds an entry to a list, which has limits because paths and reasons may come from a server.
fn add(list: &mut Vec<Skipped>, count: &mut u64, path: &str, reason: &str) {
    *count += 1;
    if list.len() < MAX_SKIPPED {
        list.push(Skipped {
            path: cut(path, MAX_PATH_BYTES),
            reason: cut(reason, MAX_REASON_BYTES),
        });
    }
}

/// Returns the beginning of a text.
fn cut(text: &str, bytes: usize) -> String {
    match text.len() {
        length if length <= bytes => text.to_owned(),
        _ => format!("{}...", beginning(text, bytes - 3)),
    }
}
