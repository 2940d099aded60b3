//! Drawing of the screen.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Row, Table as Grid};

use super::super::table::{Mark, Table, View, shown_age};
use super::super::text::{Heading, heading};
use super::fit::{self, GAP};
use super::keys::HELP;
use super::{Mode, Screen};

/// The width of the names in a box.
const NAME: usize = 14;

/// Maximum number of lines of the verdict.
const MAX_VERDICT: usize = 3;

/// Draws the screen at the time `now`.
pub(in crate::top) fn draw(frame: &mut Frame<'_>, screen: &mut Screen, now: Instant) {
    let area = frame.area();
    let width = usize::from(area.width);
    let Heading {
        name,
        verdict,
        totals,
    } = heading(&screen.shown);
    let (verdict, mark) = match &screen.lost {
        Some((since, reason)) => {
            let seconds = now.saturating_duration_since(*since).as_secs();
            let text = format!(
                "NOT CONNECTED for {}, trying again: {reason}",
                shown_age(seconds)
            );
            (text, Mark::Problem)
        }
        None => (verdict, level(screen)),
    };
    let verdict = fit::wrap(&verdict, width, MAX_VERDICT);
    let lines = |count: usize| Constraint::Length(u16::try_from(count).unwrap_or(1));
    let parts = Layout::vertical([
        Constraint::Length(1),
        lines(verdict.len()),
        lines(totals.len()),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ]);
    let [title, line, total, tabs, body, keys] = parts.areas(area);
    frame.render_widget(title_line(screen, &name, width), title);
    let style = screen.style(mark).add_modifier(Modifier::BOLD);
    let verdict: Vec<Line<'_>> = verdict.into_iter().map(Line::raw).collect();
    frame.render_widget(Paragraph::new(verdict).style(style), line);
    let totals = totals.iter().map(|line| Line::raw(fit::cut(line, width)));
    frame.render_widget(Paragraph::new(totals.collect::<Vec<_>>()), total);
    frame.render_widget(tab_line(screen), tabs);
    let table = screen.table();
    rows(frame, screen, &table, body);
    frame.render_widget(key_line(screen), keys);
    match screen.mode {
        Mode::Help => popup(frame, screen, "keys", &HELP, body),
        Mode::Row => {
            let row = table.rows.get(screen.list().selected);
            let cells = table.columns.iter().zip(row.into_iter().flatten());
            let fields = cells.map(|(column, cell)| (column.head, &*cell.text));
            popup(frame, screen, "row", &fields.collect::<Vec<_>>(), body);
        }
        Mode::Browse | Mode::Filter => {}
    }
}

fn level(screen: &Screen) -> Mark {
    match &*screen.shown.verdict.level {
        "ok" => Mark::Plain,
        "problem" => Mark::Problem,
        _ => Mark::Warning,
    }
}

/// Returns the line with the process, and the target on the right.
fn title_line(screen: &Screen, name: &str, width: usize) -> Line<'static> {
    let right = match (&screen.lost, screen.is_paused) {
        (_, true) => "PAUSED".to_owned(),
        (_, false) => screen.target.clone(),
    };
    let right = fit::cut(&right, width / 2);
    let left = fit::cut(name, width.saturating_sub(fit::width(&right) + GAP));
    let gap = width.saturating_sub(fit::width(&left) + fit::width(&right));
    let bold = Style::new().add_modifier(Modifier::BOLD);
    Line::from(vec![
        Span::styled(left, bold),
        Span::raw(" ".repeat(gap)),
        Span::raw(right),
    ])
}

/// Returns the line with the tables and their numbers of rows.
fn tab_line(screen: &Screen) -> Line<'static> {
    let shown = &screen.shown;
    let out = shown.backends.iter();
    let out = out.filter(|backend| matches!(&*backend.state, "ejected" | "down"));
    let out = match out.count() {
        0 => String::new(),
        out => format!(", {out} out"),
    };
    let tabs = [
        format!("1 methods {}", shown.methods.len()),
        format!("2 calls {}", shown.calls.len()),
        format!("3 backends {}{out}", shown.backends.len()),
        format!("4 connections {}", shown.connections.total),
    ];
    let mut spans = Vec::new();
    for (tab, view) in tabs.into_iter().zip(View::ALL) {
        let style = match view == screen.view {
            true => Style::new().add_modifier(Modifier::REVERSED),
            false => Style::new(),
        };
        spans.push(Span::styled(format!(" {tab} "), style));
        spans.push(Span::raw(" "));
    }
    Line::from(spans)
}

fn key_line(screen: &Screen) -> Line<'static> {
    match screen.mode {
        Mode::Filter => Line::raw(format!("/{}_", screen.filter)),
        Mode::Row | Mode::Help => Line::raw("Up Down scroll  any other key closes"),
        _ if !screen.filter.is_empty() => Line::raw(format!(
            "only rows with `{}`: Esc shows all  / changes it",
            screen.filter
        )),
        _ => {
            Line::raw("q quit  1-4 tables  s sort  r reverse  / filter  Enter row  p pause  ? help")
        }
    }
}

/// Draws the rows that fit into the area.
fn rows(frame: &mut Frame<'_>, screen: &mut Screen, table: &Table, area: Rect) {
    let list = screen.list_mut();
    list.fit(table, usize::from(area.height.saturating_sub(1)));
    let list = *list;
    if table.rows.is_empty() {
        let text = match screen.filter.is_empty() {
            true => format!("no {}", screen.view.name()),
            false => format!("no {} with this text", screen.view.name()),
        };
        frame.render_widget(Line::raw(text), area);
        return;
    }
    let end = (list.offset + list.page).min(table.rows.len());
    let visible = &table.rows[list.offset..end];
    // Computed from all rows, so that columns do not move during scrolling.
    let fitting = fit::columns(&table.columns, &table.rows, list.sort, area.width.into());
    let head = fitting.iter().map(|&(index, width)| {
        let column = &table.columns[index];
        let text = format!("{}{}", column.head, list.arrow(index));
        aligned(&text, width, column.is_text)
    });
    let head = Row::new(head).style(Style::new().add_modifier(Modifier::UNDERLINED));
    let lines = visible.iter().enumerate().map(|(place, row)| {
        let cells = fitting.iter().map(|&(index, width)| {
            let cell = &row[index];
            let line = aligned(&cell.text, width, table.columns[index].is_text);
            line.style(screen.style(cell.mark))
        });
        let is_selected = list.offset + place == list.selected;
        Row::new(cells).style(match is_selected {
            true => Style::new().add_modifier(Modifier::REVERSED),
            false => Style::new(),
        })
    });
    let widths = fitting
        .iter()
        .map(|&(_, width)| Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX)));
    #[expect(clippy::cast_possible_truncation, reason = "it is 2")]
    let grid = Grid::new(lines, widths)
        .header(head)
        .column_spacing(GAP as u16);
    frame.render_widget(grid, area);
}

fn aligned(text: &str, width: usize, is_text: bool) -> Line<'static> {
    let line = Line::raw(fit::cut(text, width));
    match is_text {
        true => line,
        false => line.right_aligned(),
    }
}

/// Draws texts with their names in a box over the table, or over everything if they do not fit
/// there.
fn popup(
    frame: &mut Frame<'_>,
    screen: &mut Screen,
    title: &'static str,
    fields: &[(&str, &str)],
    body: Rect,
) {
    // Without the border and its padding.
    let room = usize::from(body.width).saturating_sub(NAME + 4).max(1);
    let mut lines = Vec::new();
    for (name, text) in fields {
        for (place, line) in fit::wrap(text, room, usize::MAX).iter().enumerate() {
            let name = if place == 0 { name } else { "" };
            lines.push(format!("{name:<NAME$}{line}"));
        }
    }
    let needed = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX);
    let room = match needed <= body.height {
        true => body,
        // All lines but the last, which names the keys.
        false => Rect {
            height: frame.area().height.saturating_sub(1),
            ..frame.area()
        },
    };
    let widest = lines.iter().map(|line| fit::width(line)).max().unwrap_or(0);
    let width = u16::try_from(widest + 4)
        .unwrap_or(u16::MAX)
        .min(room.width);
    let height = needed.min(room.height);
    let [area] = Layout::horizontal([Constraint::Length(width)])
        .flex(ratatui::layout::Flex::Center)
        .areas(room);
    let [area] = Layout::vertical([Constraint::Length(height)])
        .flex(ratatui::layout::Flex::Center)
        .areas(area);
    let scroll = &mut screen.scroll;
    scroll.fit(lines.len(), usize::from(height.saturating_sub(2)));
    let end = scroll.offset + scroll.page;
    let title = match scroll.page < lines.len() {
        true => format!(
            "{title}, lines {} to {end} of {}",
            scroll.offset + 1,
            lines.len()
        ),
        false => title.to_owned(),
    };
    let block = Block::bordered()
        .title(title)
        .padding(ratatui::widgets::Padding::horizontal(1));
    let lines = lines.into_iter().skip(scroll.offset).map(Line::raw);
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()).block(block), area);
}

impl Screen {
    fn style(&self, mark: Mark) -> Style {
        match mark {
            Mark::Plain => Style::new(),
            Mark::Warning if self.has_colours => Style::new().fg(Color::Yellow),
            Mark::Problem if self.has_colours => Style::new().fg(Color::Red),
            Mark::Warning | Mark::Problem => Style::new().add_modifier(Modifier::BOLD),
        }
    }
}
