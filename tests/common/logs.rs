//! Log records of the code under test, each field as it was recorded: a formatter that escapes
//! would hide unescaped bytes.

use std::fmt::{self, Debug};
use std::sync::Arc;

use tokio::sync::watch;
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

use super::within;

/// One line of the log.
pub(crate) struct Line {
    pub(crate) level: Level,
    pub(crate) fields: Vec<(&'static str, String)>,
}

impl Line {
    /// The text of a field, if the line has it.
    pub(crate) fn get(&self, field: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(name, _)| *name == field)
            .map(|(_, text)| &text[..])
    }
}

/// Escaped, so that printing a failed test is harmless.
impl Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.level)?;
        for (name, text) in &self.fields {
            write!(f, " {name}={text:?}")?;
        }
        Ok(())
    }
}

/// All log records of this process.
#[derive(Clone, Default)]
pub(crate) struct Logs(Arc<watch::Sender<Vec<Line>>>);

impl Logs {
    /// Captures from now on, at every level and in every thread. May be called once in a process.
    pub(crate) fn captured() -> Self {
        let logs = Self::default();
        tracing::subscriber::set_global_default(logs.clone()).expect("the first of this process");
        logs
    }

    /// The records since the last call.
    pub(crate) fn take(&self) -> Vec<Line> {
        self.0.send_replace(Vec::new())
    }

    /// Waits until the records since the last call are enough.
    pub(crate) async fn until(&self, what: &str, enough: impl Fn(&[Line]) -> bool) {
        let mut lines = self.0.subscribe();
        let enough = lines.wait_for(|lines| enough(lines));
        within(what, enough).await.expect("the logs live");
    }

    fn add(&self, level: Level, record: impl FnOnce(&mut Fields)) {
        let mut fields = Fields::default();
        record(&mut fields);
        let fields = fields.0;
        self.0
            .send_modify(|lines| lines.push(Line { level, fields }));
    }
}

impl Subscriber for Logs {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &Event<'_>) {
        self.add(*event.metadata().level(), |fields| event.record(fields));
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        self.add(*span.metadata().level(), |fields| span.record(fields));
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        self.add(Level::TRACE, |fields| values.record(fields));
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Fields(Vec<(&'static str, String)>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push((field.name(), format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), value.to_owned()));
    }
}
