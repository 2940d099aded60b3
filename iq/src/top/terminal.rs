//! The terminal: screen and keys.

use std::io::{self, IsTerminal};
use std::thread;

use ratatui::DefaultTerminal;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::execute;
use tokio::sync::mpsc;

use crate::exit::{Failure, Outcome};
use crate::log;

/// Maximum number of queued events.
const MAX_EVENTS: usize = 64;

/// Returns `true` if there is a terminal that can show a screen.
pub(super) fn is_there() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    !is_dumb && io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// The screen of the terminal. Its previous content is restored when this is dropped, also during a
/// panic.
pub(super) struct Terminal(DefaultTerminal);

impl Terminal {
    pub(super) fn open() -> Outcome<Self> {
        log::discard(true);
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self(terminal)),
            Err(error) => {
                restore();
                Err(failed(&error))
            }
        }
    }

    pub(super) fn draw(&mut self, render: impl FnOnce(&mut ratatui::Frame<'_>)) -> Outcome {
        let drawn = self.0.draw(render);
        drawn.map(drop).map_err(|error| failed(&error))
    }

    /// Clears the screen, so that the next redraw is complete.
    pub(super) fn clear(&mut self) -> Outcome {
        self.0.clear().map_err(|error| failed(&error))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    // The terminal may be closed already.
    let _ = ratatui::try_restore();
    let _ = execute!(io::stdout(), Show);
    log::discard(false);
}

fn failed(error: &io::Error) -> Failure {
    Failure::Own(format!("the terminal cannot be used: {error}"))
}

/// Reads the keys in a separate thread. The events end if the terminal is closed.
pub(super) fn events() -> mpsc::Receiver<Event> {
    let (sender, events) = mpsc::channel(MAX_EVENTS);
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    events
}
