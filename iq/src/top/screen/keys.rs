//! Handling of keys.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{Mode, Screen, Scroll, View};

/// Maximum number of characters of a filter.
const MAX_FILTER: usize = 100;

/// The action after a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::top) enum Next {
    Draw,
    /// Draw the whole screen, because other programs may have written to the terminal.
    Redraw,
    Quit,
    Interrupt,
}

/// The keys, for the help.
pub(super) const HELP: [(&str, &str); 10] = [
    ("1 2 3 4, Tab", "methods, calls, backends, connections"),
    ("Up Down, j k", "select a row; PgUp PgDn, Home End too"),
    ("Enter", "all columns of the selected row"),
    ("s, S", "sort by the next or the previous column"),
    ("r", "reverse the order"),
    ("/", "show only rows with a text; Esc ends that"),
    ("p, Space", "pause and continue"),
    ("Ctrl-L", "draw everything again"),
    ("?, h", "this help"),
    ("q, Esc", "quit"),
];

/// Returns the lines by which a key moves up or down; `None` for other keys.
fn step(key: KeyCode, page: usize) -> Option<isize> {
    let page = isize::try_from(page).unwrap_or(isize::MAX);
    Some(match key {
        KeyCode::Down | KeyCode::Char('j') => 1,
        KeyCode::Up | KeyCode::Char('k') => -1,
        KeyCode::PageDown => page,
        KeyCode::PageUp => -page,
        KeyCode::Home | KeyCode::Char('g') => isize::MIN,
        KeyCode::End | KeyCode::Char('G') => isize::MAX,
        _ => return None,
    })
}

impl Screen {
    /// Handles a key that was pressed.
    pub(in crate::top) fn on_key(&mut self, key: KeyEvent) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Next::Interrupt,
                KeyCode::Char('l') => Next::Redraw,
                _ => Next::Draw,
            };
        }
        match self.mode {
            Mode::Filter => self.edit(key.code),
            Mode::Row | Mode::Help => match step(key.code, self.scroll.page) {
                Some(by) => self.scroll.step(by),
                None => {
                    self.mode = Mode::Browse;
                    self.show_waiting();
                }
            },
            Mode::Browse => return self.browse(key.code),
        }
        Next::Draw
    }

    fn edit(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.mode = Mode::Browse,
            KeyCode::Esc => {
                self.filter.clear();
                self.mode = Mode::Browse;
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if !c.is_control() && self.filter.chars().count() < MAX_FILTER => {
                self.filter.push(c);
            }
            _ => {}
        }
    }

    fn browse(&mut self, key: KeyCode) -> Next {
        if let Some(by) = step(key, self.list().page) {
            self.step(by);
            return Next::Draw;
        }
        match key {
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Esc if self.filter.is_empty() => return Next::Quit,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char(digit @ '1'..='4') => {
                let index = usize::from(digit as u8 - b'1');
                self.view = View::ALL[index];
            }
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(View::ALL.len() - 1),
            KeyCode::Char('s') => self.sort_by(1),
            KeyCode::Char('S') => self.sort_by(self.list().columns.saturating_sub(1)),
            KeyCode::Char('r') => {
                let list = self.list_mut();
                list.is_descending = !list.is_descending;
            }
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char('?' | 'h') => self.open(Mode::Help),
            KeyCode::Enter if self.list().rows > 0 => self.open(Mode::Row),
            KeyCode::Char('p' | ' ') => {
                self.is_paused = !self.is_paused;
                self.show_waiting();
            }
            _ => {}
        }
        Next::Draw
    }

    fn open(&mut self, mode: Mode) {
        (self.mode, self.scroll) = (mode, Scroll::default());
    }

    fn turn(&mut self, by: usize) {
        let index = (self.view as usize + by) % View::ALL.len();
        self.view = View::ALL[index];
    }

    fn step(&mut self, by: isize) {
        let list = self.list_mut();
        let last = list.rows.saturating_sub(1);
        list.selected = list.selected.saturating_add_signed(by).min(last);
    }

    /// Sorts by the column that is `by` columns after the current one.
    fn sort_by(&mut self, by: usize) {
        let list = self.list_mut();
        let Some(columns) = std::num::NonZeroUsize::new(list.columns) else {
            return;
        };
        list.sort = Some(match list.sort {
            Some(column) => (column + by) % columns,
            None if by == 1 => 0,
            None => columns.get() - 1,
        });
    }
}
