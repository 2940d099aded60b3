//! A snapshot as text, for pipes and files.

use std::fmt::Write;

use super::table::{Table, View, shown_age, shown_latency, shown_rate};
use crate::live::{Snapshot, Total};

/// Maximum number of rows of a table.
const MAX_ROWS: usize = 40;

/// Maximum number of characters of a cell.
const MAX_CELL: usize = 60;

/// The first lines.
pub(crate) struct Heading {
    /// The process.
    pub(crate) name: String,
    /// The verdict, with its level.
    pub(crate) verdict: String,
    /// The calls of all servers, and those of all clients.
    pub(crate) totals: Vec<String>,
}

pub(crate) fn heading(snapshot: &Snapshot) -> Heading {
    let mut about = Vec::new();
    if !snapshot.version.is_empty() {
        about.push(format!("version {}", snapshot.version));
    }
    if let Some(pid) = snapshot.pid {
        about.push(format!("process {pid}"));
    }
    if let Some(started) = snapshot.started {
        let up = snapshot.now.saturating_sub(started) / 1000;
        about.push(format!("up {}", shown_age(up)));
    }
    let about = match about.is_empty() {
        true => String::new(),
        false => format!(" ({})", about.join(", ")),
    };
    let mark = match &*snapshot.verdict.level {
        "ok" => "ok",
        "problem" => "PROBLEM",
        _ => "WARNING",
    };
    // At most two: of the servers, and of the clients.
    let totals = snapshot.totals.iter().take(2);
    Heading {
        name: format!("{}{about}", snapshot.name),
        verdict: format!("{mark}: {}", snapshot.verdict.text),
        totals: totals.map(total).collect(),
    }
}

fn total(total: &Total) -> String {
    let verb = match &*total.side {
        "client" => "made",
        _ => "served",
    };
    let figures = &total.figures;
    let mut parts = vec![format!(
        "{} calls/s {verb}",
        figures.rate.map_or_else(|| "-".to_owned(), shown_rate)
    )];
    if let Some(errors) = figures.errors {
        parts.push(format!("{} errors/s", shown_rate(errors)));
    }
    for (name, us) in [
        ("mean", figures.mean),
        ("p50", figures.p50),
        ("p99", figures.p99),
    ] {
        if let Some(us) = us {
            parts.push(format!("{name} {}", shown_latency(us)));
        }
    }
    if let Some(in_flight) = figures.in_flight {
        parts.push(format!("{in_flight} in flight"));
    }
    parts.join(", ")
}

/// Returns the whole snapshot as text, with the first rows of each table.
pub(crate) fn text(snapshot: &Snapshot) -> String {
    let Heading {
        name,
        verdict,
        totals,
    } = heading(snapshot);
    let mut out = String::new();
    for line in [name, verdict].into_iter().chain(totals) {
        out.push_str(&line);
        out.push('\n');
    }
    for view in View::ALL {
        let mut table = Table::of(view, snapshot);
        if let Some(column) = Table::first_sort(view) {
            table.sort(column, true);
        }
        // Writing to a `String` cannot fail.
        let _ = write_table(&mut out, view, &table);
    }
    out
}

fn write_table(out: &mut String, view: View, table: &Table) -> std::fmt::Result {
    if table.rows.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{} ({})", view.name(), table.rows.len())?;
    let heads = table.columns.iter().map(|column| column.head.to_owned());
    let rows = table.rows.iter().take(MAX_ROWS);
    let rows = rows.map(|row| row.iter().map(|cell| cut(&cell.text)).collect());
    let lines: Vec<Vec<String>> = std::iter::once(heads.collect()).chain(rows).collect();
    let width = |index: usize| {
        let cells = lines.iter().filter_map(|line| line.get(index));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..table.columns.len()).map(width).collect();
    for line in &lines {
        let mut shown = String::new();
        for ((cell, width), column) in line.iter().zip(&widths).zip(&table.columns) {
            match column.is_text {
                true => write!(shown, "  {cell:<width$}")?,
                false => write!(shown, "  {cell:>width$}")?,
            }
        }
        writeln!(out, "{}", shown.trim_end())?;
    }
    if let more @ 1.. = table.rows.len().saturating_sub(MAX_ROWS) {
        writeln!(out, "  and {more} more")?;
    }
    Ok(())
}

fn cut(cell: &str) -> String {
    match cell.char_indices().nth(MAX_CELL) {
        None => cell.to_owned(),
        Some((at, _)) => format!("{}…", cell.get(..at).unwrap_or_default()),
    }
}
