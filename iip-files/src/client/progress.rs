//! How far a transfer is, and what it has done.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::options::TransferOptions;
use crate::hash::Hash;
use crate::sync::locked;

/// How far a transfer is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// The file: its path below the directory that is transferred, or the path of the single file.
    pub path: String,
    /// Size of the file, in bytes.
    pub size: u64,
    /// Bytes of the file that were sent or received, with those of earlier transfers.
    pub sent: u64,
    /// Bytes of the file that are on the disk of the receiver for certain. From there a transfer is
    /// resumed.
    pub durable: u64,
    /// Number of files that are complete, with those that were there already.
    pub files: u64,
    /// Number of all files; 0 while they are counted.
    pub files_total: u64,
    /// Number of bytes of the files that are complete.
    pub bytes: u64,
    /// Number of bytes of all files.
    pub bytes_total: u64,
}

/// What is being done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// The files of a directory are counted and compared.
    #[default]
    Listing,
    /// A file begins: at its beginning, or at the bytes that an earlier transfer has left.
    Beginning,
    /// A file begins again: its source has changed since an earlier transfer, whose bytes were
    /// discarded.
    BeginningAgain,
    /// Bytes are transferred.
    Transferring,
    /// The connection was lost, and the transfer waits to go on.
    Reconnecting,
    /// Both sides read the file again.
    Verifying,
    /// The file gets its name.
    Committing,
    /// A file is complete.
    Done,
}

/// What a transfer has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Number of files that were transferred.
    pub files: u64,
    /// Number of files that were not, because they existed with the same size and time. Only in
    /// directories.
    pub unchanged: u64,
    /// Size of the files that were transferred, in bytes.
    pub bytes: u64,
    /// Bytes of them that were sent, without those of earlier transfers.
    pub transferred: u64,
    /// Number of files that began again, because their source had changed since an earlier transfer.
    pub restarted: u64,
    /// The hash of the file, if a single one was transferred.
    pub hash: Option<Hash>,
    /// What was not transferred, and why.
    pub skipped: Vec<Skipped>,
}

/// A file that was not transferred.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// Its path below the directory.
    pub path: String,
    /// The reason, as a text.
    pub reason: String,
}

/// Gathers the report of a transfer and tells its progress.
#[derive(Debug)]
pub(crate) struct Tracker<'a> {
    options: &'a TransferOptions,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    progress: Progress,
    report: Report,
    /// Set if a single file is transferred.
    is_single: bool,
    /// Where the bytes of this attempt begin.
    begun_at: u64,
    /// Bytes of the file that earlier attempts have sent.
    sent_before: u64,
}

impl<'a> Tracker<'a> {
    pub(crate) fn new(options: &'a TransferOptions) -> Self {
        Self {
            options,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    fn tell(&self, change: impl FnOnce(&mut State)) {
        let progress = {
            let mut state = self.state();
            change(&mut state);
            self.options
                .progress
                .as_ref()
                .map(|_| state.progress.clone())
        };
        if let (Some(progress), Some(callback)) = (progress, &self.options.progress) {
            callback(&progress);
        }
    }

    pub(super) fn phase(&self, phase: Phase) {
        self.tell(|state| state.progress.phase = phase);
    }

    /// The files to transfer are known.
    pub(super) fn totals(&self, files: u64, bytes: u64) {
        self.tell(|state| {
            state.progress.files_total = files;
            state.progress.bytes_total = bytes;
        });
    }

    /// A single file is transferred.
    pub(crate) fn single(&self, path: &str) {
        self.file(path);
        let mut state = self.state();
        state.is_single = true;
        state.progress.files_total = 1;
    }

    /// The transfer turns to a file.
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

    /// An attempt to transfer the file begins.
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

    pub(super) fn received(&self, received: u64, durable: u64) {
        self.tell(|state| {
            state.progress.phase = Phase::Transferring;
            (state.progress.sent, state.progress.durable) = (received, durable);
        });
    }

    pub(super) fn durable(&self, durable: u64) {
        self.tell(|state| state.progress.durable = durable);
    }

    /// The bytes of the current file that are durable.
    pub(super) fn durable_bytes(&self) -> u64 {
        self.state().progress.durable
    }

    /// The size of the file has become known.
    pub(crate) fn size(&self, size: u64) {
        self.state().progress.size = size;
    }

    /// The file is complete.
    pub(crate) fn done(&self, hash: impl Into<Option<Hash>>) {
        self.tell(|state| {
            let (size, sent) = (state.progress.size, state.progress.sent);
            state.report.transferred += state.sent_before + (sent - state.begun_at);
            state.report.hash = hash.into();
            state.complete(size);
        });
    }

    /// Small files are complete.
    pub(super) fn done_small(&self, sizes: impl Iterator<Item = u64>) {
        self.tell(|state| {
            for size in sizes {
                state.report.transferred += size;
                state.complete(size);
            }
        });
    }

    /// Files exist already.
    pub(super) fn unchanged(&self, sizes: impl Iterator<Item = u64>) {
        self.tell(|state| {
            for size in sizes {
                state.report.unchanged += 1;
                state.progress.files += 1;
                state.progress.bytes += size;
            }
        });
    }

    pub(super) fn skipped(&self, path: &str, reason: impl Into<String>) {
        let skipped = Skipped {
            path: path.to_owned(),
            reason: reason.into(),
        };
        self.state().report.skipped.push(skipped);
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
