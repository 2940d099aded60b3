//! The loop of the screen: readings, keys and redraws.

use std::time::{Duration, Instant};

use ratatui::crossterm::event::{Event, KeyEventKind};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::MIN_INTERVAL;
use super::screen::{Next, Screen, draw};
use super::source::Source;
use super::terminal::{self, Terminal};
use crate::exit::{Failure, Outcome};
use crate::live::Snapshot;
use crate::output;

/// Shows the process until the user quits, or a signal ends the program.
pub(super) async fn run(
    target: &str,
    source: Source,
    first: Snapshot,
    interval: Duration,
) -> Outcome {
    let mut ended = Box::pin(terminated());
    let mut terminal = Terminal::open()?;
    let mut events = terminal::events();
    let (_reader, mut readings) = read(source, interval);
    let mut screen = Screen::new(target, output::allows_colours(), first);
    loop {
        terminal.draw(|frame| draw(frame, &mut screen, Instant::now()))?;
        let drawn = tokio::time::Instant::now();
        // Handles everything that happens until the next redraw.
        let mut is_due = false;
        while !is_due || drawn.elapsed() < MIN_INTERVAL {
            let next = tokio::select! {
                biased;
                () = &mut ended => Next::Interrupt,
                event = events.recv() => match event {
                    Some(Event::Key(key)) if key.kind != KeyEventKind::Release => screen.on_key(key),
                    Some(_) => Next::Draw,
                    // The terminal is closed.
                    None => Next::Quit,
                },
                reading = readings.recv() => {
                    match reading {
                        Some(Ok(snapshot)) => screen.update(*snapshot),
                        Some(Err(failure)) => screen.fail(failure.to_string(), Instant::now()),
                        None => {}
                    }
                    Next::Draw
                }
                () = tokio::time::sleep_until(drawn + MIN_INTERVAL), if is_due => break,
                // Updates the displayed time since the connection was lost.
                () = tokio::time::sleep(Duration::from_secs(1)), if screen.is_lost() => Next::Draw,
            };
            match next {
                Next::Draw => {}
                Next::Redraw => terminal.clear()?,
                Next::Quit => return Ok(()),
                Next::Interrupt => return Err(Failure::Interrupted),
            }
            is_due = true;
        }
    }
}

type Reading = Result<Box<Snapshot>, Failure>;

/// A task that is aborted when this is dropped.
struct Reader(JoinHandle<()>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads snapshots in a separate task, so that a slow server does not delay the keys.
fn read(mut source: Source, interval: Duration) -> (Reader, mpsc::Receiver<Reading>) {
    let (sender, readings) = mpsc::channel(1);
    let task = tokio::spawn(async move {
        loop {
            tokio::time::sleep(interval).await;
            let reading = source.read().await.map(Box::new);
            if sender.send(reading).await.is_err() {
                return;
            }
        }
    });
    (Reader(task), readings)
}

/// Waits for SIGTERM or SIGHUP. The signals are caught as soon as this is called.
#[cfg(unix)]
fn terminated() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};

    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::hangup()),
    );
    async move {
        if let (Ok(mut terminate), Ok(mut hangup)) = signals {
            tokio::select! {
                biased;
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        } else {
            std::future::pending().await
        }
    }
}

#[cfg(not(unix))]
fn terminated() -> impl Future<Output = ()> {
    std::future::pending()
}
