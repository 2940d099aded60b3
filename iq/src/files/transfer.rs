//! Execution of a transfer, and its output.

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use iip_core::Printable;
use iip_files::go::GoFileClient;
use iip_files::{FileClient, Report, Skipped, TransferOptions};
use iip_rpc::{Client, Code, Status};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::progress::{Display, RESUME_FOR};
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::plural::counted;
use crate::size;

/// Options of transfers.
#[derive(Args, Debug)]
pub(super) struct TransferArgs {
    /// The maximum bytes per second, such as 500K or 10M.
    #[arg(long, value_name = "RATE", value_parser = size::parse_rate)]
    limit_rate: Option<u64>,
    /// Read the whole file again on both sides before it gets its name.
    #[arg(long, conflicts_with = "go")]
    verify: bool,
    /// Use the paths of Go's file servers, which support neither folders nor hashes.
    #[arg(long)]
    go: bool,
}

/// Executes transfers.
pub(super) struct Transfer<'a> {
    args: &'a TransferArgs,
    client: Client,
    output: Output,
    /// Number of files and folders that could not be read at their source.
    unreadable: u64,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(args: &'a TransferArgs, client: Client, output: Output) -> Self {
        Self {
            args,
            client,
            output,
            unreadable: 0,
        }
    }

    /// Uploads `source`, which is called `name` in the output.
    pub(super) async fn put(&mut self, source: &Path, name: &str, path: &str) -> Outcome {
        let (options, display) = self.options(name);
        let (source, path) = (source.to_owned(), path.to_owned());
        let report = match self.args.go {
            true => {
                let client = self.go(options);
                beside(async move { client.put(source, &path).await }).await
            }
            false => {
                let client = self.files(options);
                beside(async move { client.put(source, relative(&path)).await }).await
            }
        };
        self.told("put", name, report, &display)
    }

    /// Downloads the file or folder at `path`.
    pub(super) async fn get(&mut self, path: &str, destination: &Path) -> Outcome {
        let name = match relative(path) {
            "" => ".",
            name => name,
        };
        let (options, display) = self.options(name);
        let (path, destination) = (path.to_owned(), destination.to_owned());
        let report = match self.args.go {
            true => {
                let client = self.go(options);
                beside(async move { client.get(&path, destination).await }).await
            }
            false => {
                let client = self.files(options);
                beside(async move { client.get(relative(&path), destination).await }).await
            }
        };
        self.told("got", name, report, &display)
    }

    fn options(&self, name: &str) -> (TransferOptions, Arc<Display>) {
        let display = Arc::new(Display::new(self.output, name));
        let shown = Arc::clone(&display);
        let options = TransferOptions::new()
            .verify(self.args.verify)
            .resume_for(RESUME_FOR)
            .progress(move |progress| shown.show(progress));
        let options = match self.args.limit_rate {
            Some(rate) => options.bytes_per_second(rate),
            None => options,
        };
        (options, display)
    }

    fn files(&self, options: TransferOptions) -> FileClient {
        FileClient::new(self.client.clone()).with_options(options)
    }

    fn go(&self, options: TransferOptions) -> GoFileClient {
        GoFileClient::new(self.client.clone()).with_options(options)
    }

    /// Prints the result of a transfer.
    fn told(
        &mut self,
        r#type: &str,
        name: &str,
        report: Result<Report, Status>,
        display: &Display,
    ) -> Outcome {
        display.finish();
        let report = report.map_err(|status| self.explained(r#type, status))?;
        // In JSON, the result has them.
        if !self.output.is_json() {
            for Skipped { path, reason, .. } in &report.skipped {
                self.output.note(format_args!("skipped {path}: {reason}"));
            }
            let more = report.skipped_count - report.skipped.len() as u64;
            if more > 0 {
                self.output.note(format_args!("skipped {more} more"));
            }
            for Skipped { path, reason, .. } in &report.unreadable {
                self.output
                    .error(format_args!("{path} cannot be read: {reason}"));
            }
            let more = report.unreadable_count - report.unreadable.len() as u64;
            if more > 0 {
                self.output
                    .error(format_args!("{more} more cannot be read"));
            }
        }
        self.unreadable += report.unreadable_count;
        let hash = report.hash.as_ref().map(ToString::to_string);
        let value = json!({
            "path": name,
            "files": report.files,
            "bytes": report.bytes,
            "transferred": report.transferred,
            "unchanged": report.unchanged,
            "restarted": report.restarted,
            "skipped": report.skipped.iter().map(named).collect::<Vec<_>>(),
            "skipped_count": report.skipped_count,
            "unreadable": report.unreadable.iter().map(named).collect::<Vec<_>>(),
            "unreadable_count": report.unreadable_count,
            "blake3": hash,
        });
        let name = Printable(name);
        let line = match &hash {
            Some(hash) => format!("{name}\t{} bytes\tblake3 {hash}", report.bytes),
            None => {
                let files = counted(report.files, "file");
                let unchanged = match report.unchanged {
                    0 => String::new(),
                    unchanged => format!(", {unchanged} unchanged"),
                };
                format!("{name}\t{} bytes\t{files}{unchanged}", report.bytes)
            }
        };
        self.output.either(r#type, value, line)
    }

    /// Fails if files or folders could not be read at their source.
    pub(super) fn end(&self) -> Outcome {
        match self.unreadable {
            0 => Ok(()),
            1 => Err(Failure::Own(
                "1 file or folder could not be read and was left out".to_owned(),
            )),
            count => Err(Failure::Own(format!(
                "{count} files or folders could not be read and were left out"
            ))),
        }
    }

    /// Adds advice to the text of a failure.
    fn explained(&self, r#type: &str, status: Status) -> Failure {
        let is_read_only = status.message().contains("the folder is read-only");
        let hint = match (status.code(), self.args.go) {
            (Code::Unimplemented, false) => {
                "the server has no service iip.Files: `iq serve` has it, and servers of Go need --go"
            }
            (Code::Unimplemented, true) => {
                "the server does not have the paths of Go's file servers: try without --go"
            }
            (Code::PermissionDenied, _) if r#type == "put" && is_read_only => {
                "`iq serve` lets clients write with --write"
            }
            _ => return status.into(),
        };
        let text = format!("{}: {hint}", status.message());
        Status::new(status.code(), text).into()
    }
}

/// Runs a transfer on the thread of its connection: otherwise, each piece would have to wake
/// another thread. The transfer ends if the future is dropped.
async fn beside(
    transfer: impl Future<Output = Result<Report, Status>> + Send + 'static,
) -> Result<Report, Status> {
    let mut tasks = JoinSet::new();
    tasks.spawn(transfer);
    match tasks.join_next().await {
        Some(joined) => joined.map_err(Status::internal_from)?,
        None => Err(Status::internal("a task that was spawned ends")),
    }
}

/// Returns an entry that was left out, with its reason.
fn named(skipped: &Skipped) -> Value {
    json!({"path": skipped.path, "reason": skipped.reason})
}

/// Returns the path relative to the folder of a server.
fn relative(path: &str) -> &str {
    path.trim_matches('/')
}
