//! The results as Markdown.

use std::fmt::Write as _;

use crate::Sample;
use crate::options::{Cell, Layout, Options};

pub(crate) fn markdown(options: &Options, samples: &[Sample]) -> String {
    let mut text = String::new();
    for layout in &options.layouts {
        for cell in &options.cells {
            section(&mut text, options, samples, *layout, *cell);
        }
    }
    text
}

const HEAD: &str = "| peer | calls/s, messages/s | / limit | / tonic | p50 µs | p99 µs | p99.9 µs | CPU µs per call, client + server | errors |
|---|---:|---:|---:|---:|---:|---:|---:|---:|
";

fn section(text: &mut String, options: &Options, samples: &[Sample], layout: Layout, cell: Cell) {
    let here: Vec<&Sample> = samples
        .iter()
        .filter(|s| s.layout == layout && s.cell == cell)
        .collect();
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "**{}, {cell}, {layout}**, median of {} rounds\n",
        options.mode, options.rounds
    );
    text.push_str(HEAD);
    for peer in &options.peers {
        let own: Vec<&Sample> = here.iter().copied().filter(|s| s.peer == *peer).collect();
        if !own.is_empty() {
            text.push_str(&row(peer, &own, &here));
        }
    }
    let taken = options.peers.iter().filter_map(|peer| {
        let own = here.iter().filter(|s| s.peer == *peer);
        let taken: Vec<f64> = own
            .filter_map(|s| s.outcome.report.srv_connection_kib)
            .collect();
        (!taken.is_empty()).then(|| format!("{peer} {:.1} KiB", median(taken)))
    });
    let taken: Vec<String> = taken.collect();
    if !taken.is_empty() {
        let taken = taken.join(", ");
        let _ = writeln!(text, "\nMemory of the server per connection: {taken}.");
    }
    for peer in &options.peers {
        let own = here.iter().filter(|s| s.peer == *peer);
        let kept: Vec<f64> = own.filter_map(|s| s.outcome.report.kept).collect();
        if !kept.is_empty() {
            let kept = median(kept);
            let _ = writeln!(
                text,
                "\nWhile one stream of {peer} stalls, the others keep {kept:.2} of their rate."
            );
        }
    }
    text.push('\n');
}

fn row(peer: &str, own: &[&Sample], here: &[&Sample]) -> String {
    let of = |value: fn(&Sample) -> f64| median(own.iter().map(|s| value(s)).collect());
    let ratio = |base| ratio(own, here, base).map_or_else(|| "".to_owned(), |r| format!("{r:.2}"));
    format!(
        "| {peer} | {:.0} | {} | {} | {:.1} | {:.1} | {:.1} | {:.2} + {:.2} | {} |\n",
        of(|s| s.outcome.report.calls_s),
        ratio("limit"),
        ratio("tonic"),
        of(|s| s.outcome.report.p50),
        of(|s| s.outcome.report.p99),
        of(|s| s.outcome.report.p999),
        of(|s| s.outcome.report.cli_cpu),
        of(|s| s.outcome.report.srv_cpu.unwrap_or(f64::NAN)),
        own.iter().map(|s| s.outcome.report.errors).sum::<u64>(),
    )
}

/// The median over the rounds of calls/s divided by what `base` reached in the same round.
fn ratio(own: &[&Sample], here: &[&Sample], base: &str) -> Option<f64> {
    let ratios: Vec<f64> = own
        .iter()
        .filter_map(|sample| {
            let base = here
                .iter()
                .find(|s| s.round == sample.round && s.peer == base)?;
            Some(sample.outcome.report.calls_s / base.outcome.report.calls_s)
        })
        .collect();
    (!ratios.is_empty()).then(|| median(ratios))
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }
}
