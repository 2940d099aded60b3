//! The page as text, for terminals.

use std::fmt::{self, Write};
use std::time::Duration;

use super::wire::{Level, Snapshot, SourceRow};

/// Maximum number of rows of a table.
const MAX_ROWS: usize = 40;

/// Maximum number of characters of a cell.
const MAX_CELL: usize = 60;

/// A table whose first column is aligned to the left, and the others to the right unless listed in
/// `left`.
struct Table {
    title: &'static str,
    heads: &'static [&'static str],
    /// The columns that are aligned to the left.
    left: &'static [usize],
    rows: Vec<Vec<String>>,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows.is_empty() {
            return Ok(());
        }
        let shown: Vec<Vec<String>> = self
            .rows
            .iter()
            .take(MAX_ROWS)
            .map(|row| row.iter().map(|cell| cut(cell)).collect())
            .collect();
        let width = |column: usize| {
            let cells = shown.iter().filter_map(|row| row.get(column));
            let head = self.heads.get(column).map_or(0, |head| head.len());
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
                .max(head)
        };
        let widths: Vec<usize> = (0..self.heads.len()).map(width).collect();
        writeln!(f, "\n{} ({})", self.title, self.rows.len())?;
        let heads: Vec<String> = self.heads.iter().map(|&head| head.to_owned()).collect();
        for row in std::iter::once(&heads).chain(&shown) {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let gap = if column == 0 { "  " } else { "   " };
                match self.left.contains(&column) {
                    true => write!(line, "{gap}{cell:<width$}")?,
                    false => write!(line, "{gap}{cell:>width$}")?,
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        if let more @ 1.. = self.rows.len().saturating_sub(MAX_ROWS) {
            writeln!(f, "  and {more} more")?;
        }
        Ok(())
    }
}

fn cut(cell: &str) -> String {
    match cell.char_indices().nth(MAX_CELL) {
        None => cell.to_owned(),
        Some((at, _)) => format!("{}…", cell.get(..at).unwrap_or_default()),
    }
}

/// Returns the page as text.
pub(super) fn text(snapshot: &Snapshot<'_>) -> String {
    let mark = match snapshot.verdict.level {
        Level::Ok => "ok",
        Level::Warning => "WARNING",
        Level::Problem => "PROBLEM",
    };
    let up = Duration::from_millis(snapshot.now.saturating_sub(snapshot.started));
    let version = match snapshot.version.is_empty() {
        true => String::new(),
        false => format!("version {}, ", snapshot.version),
    };
    let mut text = format!(
        "{} ({version}process {}, up {})\n{mark}: {}\n",
        snapshot.name,
        snapshot.pid,
        age(up),
        snapshot.verdict.text
    );
    for table in [
        methods(snapshot),
        calls(snapshot),
        backends(snapshot),
        connections(snapshot),
        peers(snapshot),
    ] {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{table}");
    }
    text
}

fn methods(snapshot: &Snapshot<'_>) -> Table {
    let mut rows: Vec<_> = snapshot.methods.iter().map(|method| method.row).collect();
    rows.sort_by(|a, b| b.figures.rate.total_cmp(&a.figures.rate));
    let row = |method: &&super::wire::MethodRow| {
        let figures = &method.figures;
        let codes = method
            .codes
            .iter()
            .map(|(code, rate)| format!("{code} {rate:.1}"));
        vec![
            method.name.clone(),
            source(snapshot.sources, method.source),
            format!("{:.1}", figures.rate),
            format!("{:.1}", figures.errors),
            micros(figures.p50.map(u64::from)),
            micros(figures.p99.map(u64::from)),
            micros(figures.p999.map(u64::from)),
            match method.limit {
                None => figures.in_flight.to_string(),
                Some(limit) => format!("{}/{limit}", figures.in_flight),
            },
            codes.collect::<Vec<_>>().join(", "),
        ]
    };
    Table {
        title: "methods",
        heads: &[
            "method",
            "in",
            "calls/s",
            "errors/s",
            "p50",
            "p99",
            "p99.9",
            "in flight",
            "codes/s",
        ],
        left: &[0, 1, 8],
        rows: rows.iter().map(row).collect(),
    }
}

fn calls(snapshot: &Snapshot<'_>) -> Table {
    let row = |call: &super::wire::CallRow| {
        let ago = Duration::from_millis(snapshot.now.saturating_sub(call.at));
        let phases = call
            .phases
            .iter()
            .map(|phase| format!("{} {}", phase.name, micros(Some(phase.us))));
        vec![
            call.method.clone(),
            format!("{} ago", age(ago)),
            call.code.to_owned(),
            micros(Some(call.took)),
            call.peer.clone().unwrap_or_default(),
            phases.collect::<Vec<_>>().join(", "),
            call.trace.clone().unwrap_or_default(),
            call.text.clone().unwrap_or_default(),
        ]
    };
    Table {
        title: "slow and failed calls",
        heads: &[
            "method", "when", "code", "took", "peer", "phases", "trace", "message",
        ],
        left: &[0, 2, 4, 5, 6, 7],
        rows: snapshot.calls.iter().map(row).collect(),
    }
}

fn backends(snapshot: &Snapshot<'_>) -> Table {
    let row = |backend: &super::wire::BackendRow| {
        vec![
            backend.id.clone(),
            source(snapshot.sources, backend.source),
            backend.address.clone(),
            backend.state.clone(),
            backend.in_flight.to_string(),
            backend.score.map_or_else(
                || "-".to_owned(),
                |score| format!("{:.3} ms", score / 1000.0),
            ),
            format!("{:.2}", backend.weight),
            backend
                .connections
                .map_or_else(|| "-".to_owned(), |count| count.to_string()),
            backend.reasons.join("; "),
        ]
    };
    Table {
        title: "backends",
        heads: &[
            "backend",
            "of",
            "address",
            "state",
            "in flight",
            "score",
            "weight",
            "connections",
            "why",
        ],
        left: &[0, 1, 2, 3, 8],
        rows: snapshot.backends.iter().map(row).collect(),
    }
}

fn connections(snapshot: &Snapshot<'_>) -> Table {
    let row = |connection: &super::wire::ConnectionRow| {
        let age = age(Duration::from_millis(
            snapshot.now.saturating_sub(connection.since),
        ));
        vec![
            connection.peer.clone(),
            source(snapshot.sources, connection.source),
            age,
            connection.calls.to_string(),
            connection.received.to_string(),
            connection.sent.to_string(),
            connection.unsent.to_string(),
            micros(connection.rtt),
            connection.credit_stalls.to_string(),
            connection.build.clone().unwrap_or_default(),
        ]
    };
    Table {
        title: "connections",
        heads: &[
            "peer",
            "in",
            "age",
            "in flight",
            "received",
            "sent",
            "unsent",
            "rtt",
            "stalls",
            "build",
        ],
        left: &[0, 1, 9],
        rows: snapshot.connections.listed.iter().map(row).collect(),
    }
}

fn peers(snapshot: &Snapshot<'_>) -> Table {
    let row = |peer: &super::wire::PeerRow| {
        vec![
            peer.build.clone(),
            source(snapshot.sources, peer.source),
            peer.connections.to_string(),
        ]
    };
    Table {
        title: "builds of peers",
        heads: &["build", "seen by", "connections"],
        left: &[0, 1],
        rows: snapshot.peers.iter().map(row).collect(),
    }
}

fn source(sources: &[SourceRow], id: usize) -> String {
    let source = sources.get(id);
    source.map_or_else(String::new, |source| {
        format!("{} {}", source.kind.name(), source.name)
    })
}

fn micros(us: Option<u64>) -> String {
    us.map_or_else(
        || "-".to_owned(),
        |us| format!("{:.3} ms", Duration::from_micros(us).as_secs_f64() * 1e3),
    )
}

fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3600 => format!("{}:{:02} min", seconds / 60, seconds % 60),
        3600..86400 => format!("{}:{:02} h", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86400, seconds / 3600 % 24),
    }
}
