//! Display of the progress of a transfer: a bar on terminals, or lines of JSON.

use std::io::{self, IsTerminal};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use iip_files::{Phase, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::output::Output;

/// Time without progress after which a transfer is given up.
pub(super) const RESUME_FOR: Duration = Duration::from_secs(30);

/// Minimum time between lines of JSON.
const INTERVAL: Duration = Duration::from_millis(200);

/// Shows the progress of one transfer.
pub(super) struct Display {
    output: Output,
    bar: ProgressBar,
    /// The time at which the last line of JSON was written.
    told: Mutex<Option<Instant>>,
    /// Set after a lost connection, until bytes are transferred again.
    is_lost: AtomicBool,
}

impl Display {
    pub(super) fn new(output: Output, name: &str) -> Self {
        let is_shown = !output.is_json() && !output.is_quiet() && io::stderr().is_terminal();
        let target = match is_shown {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        let style = ProgressStyle::with_template(template);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(None, target).with_style(style);
        bar.set_message(iip_core::Printable(name).to_string());
        Self {
            output,
            bar,
            told: Mutex::new(None),
            is_lost: AtomicBool::new(false),
        }
    }

    pub(super) fn show(&self, progress: &Progress) {
        match progress.phase {
            Phase::Beginning if progress.sent > 0 => self.event("resumed", progress, || {
                let of = match progress.size {
                    // Go servers do not report the size.
                    0 => String::new(),
                    size => format!(" of {size}"),
                };
                format!("{}: resumed at {}{of} bytes", progress.path, progress.sent)
            }),
            Phase::BeginningAgain => self.event("restarted", progress, || {
                format!(
                    "{}: started again, because the source has changed",
                    progress.path
                )
            }),
            Phase::Reconnecting if !self.is_lost.swap(true, Ordering::Relaxed) => {
                self.event("lost", progress, || {
                    let limit = RESUME_FOR.as_secs();
                    format!("connection lost, trying again for {limit}s")
                });
            }
            Phase::Transferring | Phase::Done => self.is_lost.store(false, Ordering::Relaxed),
            _ => {}
        }
        let of_file = match progress.phase {
            // The file is counted in the bytes of complete files.
            Phase::Done => 0,
            _ => progress.sent,
        };
        self.bar.set_length(progress.bytes_total.max(progress.size));
        self.bar.set_position(progress.bytes + of_file);
        if self.output.is_json() && self.is_due(progress) {
            self.line("progress", progress);
        }
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn event(&self, r#type: &str, progress: &Progress, text: impl Fn() -> String) {
        match self.output.is_json() {
            true => self.line(r#type, progress),
            false => self.bar.suspend(|| self.output.note(text())),
        }
    }

    fn is_due(&self, progress: &Progress) -> bool {
        let mut told = self
            .told
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let now = Instant::now();
        let is_due = told.is_none_or(|last| now.duration_since(last) >= INTERVAL)
            || progress.phase == Phase::Done;
        if is_due {
            *told = Some(now);
        }
        is_due
    }

    fn line(&self, r#type: &str, progress: &Progress) {
        let value = json!({
            "path": progress.path,
            "bytes": progress.sent,
            "durable": progress.durable,
            "size": progress.size,
            "files": progress.files,
            "files_total": progress.files_total,
        });
        // If the output cannot be written, the transfer continues without it.
        let _ = self.output.object(r#type, value);
    }
}
