//! Tables of a snapshot, for the screen and for text.

mod cell;

use std::cmp::Ordering;

use iip_core::stats::verdict::is_error_name;

pub(crate) use self::cell::{Cell, Mark, shown_age, shown_latency, shown_rate};
use self::cell::{micros, shown_us};
use crate::live::{Backend, Call, Connection, Figures, Method, Snapshot, Text};

/// The tables, in the order of their keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum View {
    Methods,
    Calls,
    Backends,
    Connections,
}

impl View {
    pub(crate) const ALL: [Self; 4] = [
        Self::Methods,
        Self::Calls,
        Self::Backends,
        Self::Connections,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Methods => "methods",
            Self::Calls => "slow and failed calls",
            Self::Backends => "backends",
            Self::Connections => "connections",
        }
    }
}

/// A table before it is cut to the width of the screen.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Vec<Cell>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) head: &'static str,
    /// Set for texts, which are aligned to the left and can be cut. Numbers are aligned to the
    /// right and not cut.
    pub(crate) is_text: bool,
    /// If there is not enough room, the columns with the highest rank are left out first.
    pub(crate) rank: u8,
}

const fn text(head: &'static str, rank: u8) -> Column {
    Column {
        head,
        is_text: true,
        rank,
    }
}

const fn number(head: &'static str, rank: u8) -> Column {
    Column {
        head,
        is_text: false,
        rank,
    }
}

impl Table {
    pub(crate) fn of(view: View, snapshot: &Snapshot) -> Self {
        match view {
            View::Methods
                if snapshot
                    .methods
                    .iter()
                    .all(|row| row.figures.errors.is_none()) =>
            {
                paths(snapshot)
            }
            View::Methods => methods(snapshot),
            View::Calls => calls(snapshot),
            View::Backends => backends(snapshot),
            View::Connections => connections(snapshot),
        }
    }

    /// Keeps the rows in which `filter` occurs.
    pub(crate) fn filter(&mut self, filter: &str) {
        let filter = filter.to_lowercase();
        self.rows.retain(|row| {
            let mut cells = row.iter();
            cells.any(|cell| cell.text.to_lowercase().contains(&filter))
        });
    }

    pub(crate) fn sort(&mut self, column: usize, is_descending: bool) {
        self.rows.sort_by(|one, other| {
            let order = match (one.get(column), other.get(column)) {
                (Some(one), Some(other)) => one.compare(other),
                _ => Ordering::Equal,
            };
            if is_descending {
                order.reverse()
            } else {
                order
            }
        });
    }

    /// Returns the column by which rows are sorted initially, in descending order.
    pub(crate) fn first_sort(view: View) -> Option<usize> {
        match view {
            View::Methods => Some(2),
            // The order of the process is kept: it lists the latest calls first.
            View::Calls | View::Backends | View::Connections => None,
        }
    }
}

/// Returns the methods of a server that reports only what Go servers report.
fn paths(snapshot: &Snapshot) -> Table {
    let row = |method: &Method| {
        vec![
            Cell::text(&*method.name),
            Cell::text(snapshot.source(method.source)),
            Cell::rate(method.figures.rate),
            Cell::latency(method.figures.mean),
            Cell::count(Some(method.calls)),
        ]
    };
    Table {
        columns: vec![
            text("method", 0),
            text("in", 4),
            number("calls/s", 1),
            number("mean (5 min)", 2),
            number("calls", 3),
        ],
        rows: snapshot.methods.iter().map(row).collect(),
    }
}

fn methods(snapshot: &Snapshot) -> Table {
    let row = |method: &Method| {
        let Figures {
            rate,
            errors,
            p50,
            p99,
            p999,
            in_flight,
            ..
        } = method.figures;
        let codes = method.codes.iter();
        let codes = codes.map(|(code, rate)| format!("{code} {}", shown_rate(*rate)));
        vec![
            Cell::text(&*method.name),
            Cell::text(snapshot.source(method.source)),
            Cell::rate(rate),
            Cell::errors(errors),
            Cell::latency(p50),
            Cell::latency(p99),
            Cell::latency(p999),
            Cell::count(in_flight),
            Cell::text(codes.collect::<Vec<_>>().join(", ")),
        ]
    };
    Table {
        columns: vec![
            text("method", 0),
            text("in", 7),
            number("calls/s", 1),
            number("errors/s", 2),
            number("p50", 5),
            number("p99", 3),
            number("p99.9", 6),
            number("in flight", 4),
            text("codes/s", 8),
        ],
        rows: snapshot.methods.iter().map(row).collect(),
    }
}

fn calls(snapshot: &Snapshot) -> Table {
    let row = |call: &Call| {
        let phases = call.phases.iter();
        let phases = phases.map(|phase| format!("{} {}", phase.name, shown_us(phase.us)));
        let mark = match &*call.code {
            // A successful call is listed because it was slow.
            "OK" => Mark::Warning,
            code if is_error_name(code) => Mark::Problem,
            _ => Mark::Plain,
        };
        let optional = |text: &Option<Text>| Cell::text(text.as_deref().unwrap_or_default());
        vec![
            Cell::since(snapshot.now, Some(call.at)),
            Cell::text(&*call.code).marked(mark),
            Cell::number(Some(micros(call.took)), shown_latency),
            Cell::text(&*call.method),
            Cell::text(snapshot.source(call.source)),
            optional(&call.text),
            optional(&call.peer),
            Cell::text(phases.collect::<Vec<_>>().join(", ")),
            optional(&call.trace),
        ]
    };
    Table {
        columns: vec![
            number("ago", 2),
            text("code", 1),
            number("took", 3),
            text("method", 0),
            text("in", 5),
            text("message", 4),
            text("peer", 6),
            text("phases", 7),
            text("trace", 8),
        ],
        rows: snapshot.calls.iter().map(row).collect(),
    }
}

fn backends(snapshot: &Snapshot) -> Table {
    let row = |backend: &Backend| {
        let mark = match &*backend.state {
            "ready" | "drained" => Mark::Plain,
            "ejected" | "down" => Mark::Problem,
            _ => Mark::Warning,
        };
        let reasons: Vec<&str> = backend.reasons.iter().map(|reason| &**reason).collect();
        vec![
            Cell::text(&*backend.id),
            Cell::text(&*backend.address),
            Cell::text(snapshot.source(backend.source)),
            Cell::text(&*backend.state).marked(mark),
            Cell::count(Some(backend.in_flight)),
            Cell::latency(backend.score),
            Cell::number(Some(backend.weight), |weight| format!("{weight:.2}")),
            Cell::count(backend.connections),
            Cell::text(reasons.join("; ")),
        ]
    };
    Table {
        columns: vec![
            text("backend", 0),
            text("address", 8),
            text("of", 4),
            text("state", 1),
            number("in flight", 3),
            number("score", 5),
            number("weight", 6),
            number("connections", 7),
            text("why", 2),
        ],
        rows: snapshot.backends.iter().map(row).collect(),
    }
}

fn connections(snapshot: &Snapshot) -> Table {
    let row = |connection: &Connection| {
        let unsent = Cell::bytes(connection.unsent);
        vec![
            Cell::text(&*connection.peer),
            Cell::text(snapshot.source(connection.source)),
            Cell::since(snapshot.now, connection.since),
            Cell::count(connection.calls),
            Cell::bytes(connection.received),
            Cell::bytes(connection.sent),
            unsent.marked(if connection.unsent > 0 {
                Mark::Warning
            } else {
                Mark::Plain
            }),
            Cell::text(connection.build.as_deref().unwrap_or_default()),
        ]
    };
    Table {
        columns: vec![
            text("peer", 0),
            text("in", 6),
            number("age", 4),
            number("in flight", 1),
            number("received", 2),
            number("sent", 3),
            number("unsent", 5),
            text("build", 7),
        ],
        rows: snapshot.connections.listed.iter().map(row).collect(),
    }
}
