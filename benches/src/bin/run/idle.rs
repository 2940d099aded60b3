//! Idle connections, peer by peer, and their memory as Markdown.

use std::fmt::Write as _;

use iip_benches::BoxError;
use iip_benches::report::IdleReport;
use serde::Serialize;

use crate::options::{Layout, Options};
use crate::table::median;
use crate::{process, save, turns};

/// One run of one peer.
#[derive(Debug, Clone, Serialize)]
struct Sample {
    round: usize,
    peer: String,
    #[serde(flatten)]
    report: IdleReport,
}

pub(crate) fn run(options: &Options) -> Result<String, BoxError> {
    let mut samples = Vec::new();
    for round in 0..options.rounds {
        for cell in &options.idle {
            for peer in turns(options, cell.channels, round) {
                let report = process::idle(Layout::Pinned, *cell, peer)?;
                eprintln!(
                    "round {} {cell} {peer}: {:.0} bytes per connection",
                    round + 1,
                    report.bytes_per_connection
                );
                samples.push(Sample {
                    round,
                    peer: peer.to_owned(),
                    report,
                });
            }
        }
        save(options, &samples)?;
    }
    Ok(markdown(options, &samples))
}

fn markdown(options: &Options, samples: &[Sample]) -> String {
    let mut text = String::new();
    for cell in &options.idle {
        // Writing to a String does not fail.
        let _ = writeln!(text, "**{cell}**, median of {} rounds\n", options.rounds);
        text.push_str(HEAD);
        for peer in &options.peers {
            let own: Vec<&IdleReport> = samples
                .iter()
                .filter(|s| s.peer == *peer)
                .map(|s| &s.report)
                .filter(|r| r.connections == cell.connections && r.channels == cell.channels)
                .collect();
            if !own.is_empty() {
                text.push_str(&row(peer, &own));
            }
        }
        text.push('\n');
    }
    text
}

const HEAD: &str =
    "| peer | bytes per connection | bytes per channel | resident KiB, before and after |
|---|---:|---:|---:|
";

fn row(peer: &str, own: &[&IdleReport]) -> String {
    let of = |value: fn(&IdleReport) -> f64| median(own.iter().map(|r| value(r)).collect());
    let channels: Vec<f64> = own.iter().filter_map(|r| r.bytes_per_channel).collect();
    let per_channel = match channels.is_empty() {
        true => String::new(),
        false => format!("{:.1}", median(channels)),
    };
    format!(
        "| {peer} | {:.0} | {per_channel} | {:.0}, {:.0} |\n",
        of(|r| r.bytes_per_connection),
        of(|r| r.rss_before_kib as f64),
        of(|r| r.rss_after_kib as f64),
    )
}
