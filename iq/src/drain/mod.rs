//! `iq drain`: asks a process to drain, and waits until it has ended.

mod page;
mod server;

use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use serde_json::json;

use crate::complete;
use crate::connection::ConnectArgs;
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::plural::counted;
use crate::time;

/// Ask a server or a gateway to drain: to finish its calls and exit.
///
/// An IIP server drains for the peers that `ServerBuilder::drain_on_request` allows, and the
/// process of a live page, http://HOST:PORT, if the page has the drain button. Exits with 1 if the
/// process has not ended in time, or if calls were cut off.
#[derive(Args, Debug)]
pub(crate) struct DrainArgs {
    /// A target with a single server, or a live page, such as http://localhost:9000.
    #[arg(add = ArgValueCompleter::new(complete::targets))]
    target: String,
    /// The time to wait until the process has ended.
    #[arg(long, value_name = "TIME", value_parser = time::parse, default_value = "30s")]
    wait: Duration,
    /// Do not wait until the process has ended.
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
}

/// Drains a process.
pub(crate) async fn run(args: &DrainArgs, connect: &ConnectArgs, output: &Output) -> Outcome {
    let wait = (!args.no_wait).then_some(args.wait);
    match connect.page(&args.target)? {
        Some(page) => page::drain(page, wait, output).await,
        None => server::drain(&args.target, wait, connect, output).await,
    }
}

/// Prints that the process drains, the number of running calls, and the time limit.
fn begun(calls: u64, limit: Option<Duration>, output: &Output) -> Outcome {
    let within = limit.map_or_else(String::new, |limit| format!(", for at most {limit:?}"));
    let limit = limit.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
    let value = json!({"state": "draining", "calls": calls, "limit_ms": limit});
    let line = format!("draining: {}{within}", running(calls));
    output.either("drain", value, line)
}

fn ended(output: &Output) -> Outcome {
    output.either("drain", json!({"state": "ended"}), "ended")
}

fn not_in_time(calls: u64, wait: Duration) -> Failure {
    let running = running(calls);
    Failure::Check(format!(
        "not ended within {wait:?} (option --wait): {running}"
    ))
}

fn running(calls: u64) -> String {
    match calls {
        0 => "no running calls".to_owned(),
        calls => counted(calls, "running call"),
    }
}
