//! Runs the peers in turns and prints the results as Markdown.
//!
//! Every run is a fresh server process and a fresh client process. All peers run once in each round
//! and each cell, in an order that rotates from round to round; ratios are taken within a round,
//! and the table shows their median.

mod idle;
mod options;
mod process;
mod table;

use std::process::ExitCode;

use iip_benches::BoxError;
use iip_benches::args::Mode;
use serde::Serialize;

use crate::options::{Cell, Layout, Options};
use crate::process::{MAX_OTHERS, Outcome};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// One run of one peer.
#[derive(Debug, Clone, Serialize)]
struct Sample {
    round: usize,
    layout: Layout,
    cell: Cell,
    peer: String,
    #[serde(flatten)]
    outcome: Outcome,
}

fn run() -> Result<(), BoxError> {
    let options = options::parse(std::env::args().skip(1))?;
    let tables = match options.mode {
        Mode::Idle => idle::run(&options)?,
        _ => calls(&options)?,
    };
    print!("{tables}");
    Ok(())
}

fn calls(options: &Options) -> Result<String, BoxError> {
    let mut samples = Vec::new();
    for round in 0..options.rounds {
        for layout in &options.layouts {
            for cell in &options.cells {
                for peer in turns(options, cell.inflight, round) {
                    samples.push(sample(options, round, *layout, *cell, peer)?);
                }
            }
        }
        save(options, &samples)?;
    }
    Ok(table::markdown(options, &samples))
}

/// Writes the results after each round, so that little is lost if a long series is stopped.
fn save(options: &Options, samples: &[impl Serialize]) -> Result<(), BoxError> {
    if let Some(path) = &options.out {
        let file = std::fs::File::create(path).map_err(|e| format!("{}: {e}", path.display()))?;
        serde_json::to_writer_pretty(file, samples)?;
    }
    Ok(())
}

/// The peers in the order of this round: each is first as often as the others.
fn turns(options: &Options, at_once: usize, round: usize) -> Vec<&str> {
    // `pingpong` cannot run several calls at once.
    let able = |peer: &&str| *peer != "pingpong" || at_once == 1;
    let mut peers: Vec<&str> = options
        .peers
        .iter()
        .map(String::as_str)
        .filter(able)
        .collect();
    if !peers.is_empty() {
        let first = round % peers.len();
        peers.rotate_left(first);
    }
    peers
}

/// Runs a peer, repeats the run if other processes kept the machine busy, and returns the quietest
/// run.
fn sample(
    options: &Options,
    round: usize,
    layout: Layout,
    cell: Cell,
    peer: &str,
) -> Result<Sample, BoxError> {
    let mut outcome = process::run(options, layout, cell, peer)?;
    for _ in 0..options.retries {
        if outcome.others <= MAX_OTHERS {
            break;
        }
        let again = process::run(options, layout, cell, peer)?;
        if again.others < outcome.others {
            outcome = again;
        }
    }
    let report = &outcome.report;
    eprintln!(
        "round {} {layout} {cell} {peer}: {:.0} calls/s, p50 {:.1} us, p99 {:.1} us, {} errors, others used {:.0} %",
        round + 1,
        report.calls_s,
        report.p50,
        report.p99,
        report.errors,
        outcome.others * 100.0
    );
    Ok(Sample {
        round,
        layout,
        cell,
        peer: peer.to_owned(),
        outcome,
    })
}
