//! Log lines of the library, on stderr.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use iip_core::Printable;

use crate::output::{self, Output};
use crate::wording::in_options;

/// Set while a command draws on the whole terminal, which log lines would garble.
static DISCARDS: AtomicBool = AtomicBool::new(false);

/// Starts or stops discarding log lines.
pub(crate) fn discard(discard: bool) {
    DISCARDS.store(discard, Ordering::Relaxed);
}

/// Prints the warnings of the library from now on; with `--quiet`, only its errors.
pub(crate) fn start(output: &Output) {
    let level = match output.is_quiet() {
        true => LevelFilter::ERROR,
        false => LevelFilter::WARN,
    };
    let lines = Lines {
        json: output.is_json(),
    };
    tracing_subscriber::fmt()
        .with_writer(writer)
        .with_max_level(level)
        .with_ansi(false)
        .event_format(lines)
        .init();
}

fn writer() -> Box<dyn Write> {
    match DISCARDS.load(Ordering::Relaxed) {
        true => Box::new(io::sink()),
        false => Box::new(io::stderr()),
    }
}

/// The form of log lines.
struct Lines {
    json: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        context.format_fields(Writer::new(&mut text), event)?;
        let (level, text) = (event.metadata().level(), in_options(&text));
        if !self.json {
            return writeln!(writer, "{level:>5} {}", Printable(text));
        }
        let value = json!({"level": level.as_str(), "message": text});
        let line = output::object("log", value).map_err(|_| fmt::Error)?;
        writeln!(writer, "{line}")
    }
}
