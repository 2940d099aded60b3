//! The state of the screen, and its changes by keys.

mod draw;
mod fit;
mod keys;
#[cfg(test)]
mod tests;

use std::time::Instant;

pub(super) use self::draw::draw;
pub(super) use self::keys::Next;
use super::table::{Table, View};
use crate::live::Snapshot;

/// The state of the screen.
#[derive(Debug)]
pub(super) struct Screen {
    /// The target as given by the user.
    target: String,
    has_colours: bool,
    /// The snapshot that is shown.
    shown: Snapshot,
    /// The latest snapshot, while an older one is shown.
    waiting: Option<Snapshot>,
    /// The time at which readings began to fail, and the last reason.
    lost: Option<(Instant, String)>,
    view: View,
    lists: [List; View::ALL.len()],
    filter: String,
    mode: Mode,
    /// The lines of the row or the help that are shown.
    scroll: Scroll,
    is_paused: bool,
}

/// The meaning of keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Browse,
    /// Keys edit the filter.
    Filter,
    /// All columns of the selected row are shown.
    Row,
    Help,
}

/// The state of one table.
#[derive(Clone, Copy, Debug)]
struct List {
    sort: Option<usize>,
    is_descending: bool,
    selected: usize,
    /// The first row on the screen.
    offset: usize,
    /// The number of rows that were shown last.
    page: usize,
    /// The number of rows and columns of the whole table.
    rows: usize,
    columns: usize,
}

/// The part of a text that is on the screen.
#[derive(Clone, Copy, Default, Debug)]
struct Scroll {
    /// The first line on the screen.
    offset: usize,
    /// The number of lines on the screen.
    page: usize,
    /// The number of all lines.
    lines: usize,
}

impl Scroll {
    /// Shows so many lines of a text.
    fn fit(&mut self, lines: usize, page: usize) {
        (self.lines, self.page) = (lines, page);
        self.offset = self.offset.min(lines.saturating_sub(page));
    }

    fn step(&mut self, by: isize) {
        let last = self.lines.saturating_sub(self.page);
        self.offset = self.offset.saturating_add_signed(by).min(last);
    }
}

impl List {
    /// Shows so many rows of a table, and the selected one among them.
    fn fit(&mut self, table: &Table, page: usize) {
        (self.rows, self.columns) = (table.rows.len(), table.columns.len());
        self.page = page.max(1);
        self.selected = self.selected.min(self.rows.saturating_sub(1));
        let lowest = (self.selected + 1).saturating_sub(self.page);
        let highest = self.rows.saturating_sub(self.page);
        let offset = self.offset.clamp(lowest, self.selected.max(lowest));
        self.offset = offset.min(highest);
    }

    /// The mark of a column by which the rows are sorted.
    fn arrow(&self, column: usize) -> &'static str {
        match (self.sort == Some(column), self.is_descending) {
            (false, _) => "",
            (true, true) => "↓",
            (true, false) => "↑",
        }
    }
}

impl Screen {
    pub(super) fn new(target: &str, has_colours: bool, snapshot: Snapshot) -> Self {
        let list = |view| List {
            sort: Table::first_sort(view),
            is_descending: true,
            selected: 0,
            offset: 0,
            page: 1,
            rows: 0,
            columns: 0,
        };
        Self {
            target: target.to_owned(),
            has_colours,
            shown: snapshot,
            waiting: None,
            lost: None,
            view: View::Methods,
            lists: View::ALL.map(list),
            filter: String::new(),
            mode: Mode::Browse,
            scroll: Scroll::default(),
            is_paused: false,
        }
    }

    /// Takes a new snapshot.
    pub(super) fn update(&mut self, snapshot: Snapshot) {
        self.lost = None;
        self.waiting = Some(snapshot);
        self.show_waiting();
    }

    /// Shows the latest snapshot, unless the screen is paused or shows a single row.
    fn show_waiting(&mut self) {
        if !self.is_paused
            && self.mode != Mode::Row
            && let Some(waiting) = self.waiting.take()
        {
            self.shown = waiting;
        }
    }

    /// Records that a reading has failed.
    pub(super) fn fail(&mut self, reason: String, now: Instant) {
        let since = self.lost.take().map_or(now, |(since, _)| since);
        self.lost = Some((since, reason));
    }

    /// Returns `true` if the last reading has failed.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    fn list(&self) -> &List {
        &self.lists[self.view as usize]
    }

    fn list_mut(&mut self) -> &mut List {
        &mut self.lists[self.view as usize]
    }

    /// Returns the rows that are shown, in their order.
    fn table(&self) -> Table {
        let mut table = Table::of(self.view, &self.shown);
        if !self.filter.is_empty() {
            table.filter(&self.filter);
        }
        let list = self.list();
        if let Some(column) = list.sort {
            table.sort(column, list.is_descending);
        }
        table
    }
}
