//! The cost of balancing, and the distribution of calls: scenarios with several servers in one
//! process over TCP. Each prints a Markdown table.

mod cluster;
mod new_server;
mod options;
mod outage;
mod pick;
mod rest;
mod shares;
mod tower_p2c;

use std::process::ExitCode;

use iip_benches::{BoxError, memory};
use tokio::runtime::Builder;

use crate::options::{Options, Scenario};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), BoxError> {
    let (scenario, options) = options::parse(std::env::args().skip(1))?;
    memory::raise_file_limit()?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    match scenario {
        Scenario::Pick => pick::run(),
        Scenario::FailsAtOnce => runtime.block_on(shares::fails_at_once(&options)),
        Scenario::Slow => runtime.block_on(shares::slow(&options)),
        Scenario::NewServer => runtime.block_on(new_server::run(&options)),
        Scenario::Outage => runtime.block_on(outage::run(&options)),
        Scenario::Rest => runtime.block_on(rest::run(&options)),
        Scenario::RestClient { addr, backends } => {
            runtime.block_on(rest::client(&addr, backends, &options))
        }
    }
}

/// Returns the middle of some numbers; NaN of none.
fn median(mut numbers: Vec<f64>) -> f64 {
    let middle = numbers.len() / 2;
    if numbers.is_empty() {
        return f64::NAN;
    }
    *numbers.select_nth_unstable_by(middle, f64::total_cmp).1
}

impl Options {
    /// Returns the median of each figure over the rounds of a scenario.
    fn medians<const N: usize>(&self, rounds: &[[f64; N]]) -> [f64; N] {
        std::array::from_fn(|figure| median(rounds.iter().map(|round| round[figure]).collect()))
    }
}
