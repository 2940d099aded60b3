//! `iq top`: a live view of a process.

mod ask;
mod go;
mod own;
mod screen;
mod source;
mod table;
mod terminal;
mod text;
mod watch;

use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;

use self::source::Source;
use crate::complete;
use crate::connection::ConnectArgs;
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::time;

/// Minimum time between two readings, and between two redraws: at most four per second.
const MIN_INTERVAL: Duration = Duration::from_millis(250);

/// Maximum time between the first two readings of a source whose rates need two.
const MAX_FIRST: Duration = Duration::from_secs(1);

/// Watch a process: its calls, errors, latencies, backends and connections.
///
/// A live page, http://HOST:PORT, shows all of that for a server, a gateway or a client. An IIP
/// server reports its own calls and connections; a Go server reports the rates and mean times of
/// its paths, and its connections. Without a terminal, prints a snapshot as text.
#[derive(Args, Debug)]
pub(crate) struct TopArgs {
    /// A live page, such as http://localhost:9000, or a target with a single server.
    #[arg(add = ArgValueCompleter::new(complete::targets))]
    target: String,
    /// The time between two readings, 250ms or more.
    #[arg(long, short, value_name = "TIME", value_parser = interval, default_value = "1s")]
    interval: Duration,
    /// Print one snapshot, and exit.
    #[arg(long)]
    once: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    match time::parse(text)? {
        interval if interval < MIN_INTERVAL => {
            Err(format!("the time must be at least {MIN_INTERVAL:?}"))
        }
        interval => Ok(interval),
    }
}

/// Shows a process until the user quits.
pub(crate) async fn run(args: &TopArgs, connect: &ConnectArgs, output: &Output) -> Outcome {
    let first_interval = args.interval.min(MAX_FIRST);
    let opening = Source::open(&args.target, first_interval, connect, output);
    let mut source = opening.await?;
    let first = source.read().await?;
    if output.is_json() {
        output.object("top", &first)?;
        if args.once {
            return Ok(());
        }
        return print(source, args.interval, output).await;
    }
    if args.once || !terminal::is_there() {
        return output.bytes(text::text(&first).as_bytes());
    }
    watch::run(&args.target, source, first, args.interval).await
}

/// Prints an object for each interval.
async fn print(mut source: Source, interval: Duration, output: &Output) -> Outcome {
    let mut is_lost = false;
    loop {
        tokio::time::sleep(interval).await;
        match source.read().await {
            Ok(snapshot) => {
                output.object("top", &snapshot)?;
                if std::mem::take(&mut is_lost) {
                    output.note("connected again");
                }
            }
            Err(Failure::BrokenPipe) => return Err(Failure::BrokenPipe),
            // Printed once, not for each attempt.
            Err(failure) if !is_lost => {
                output.note(format_args!("trying again: {failure}"));
                is_lost = true;
            }
            Err(_) => {}
        }
    }
}
