//! The state of a comparison: what is compared, where, and what was found.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::Encoding;
use super::forms::{MAX_DEPTH, resolve};
use super::report::{Difference, Report, Rule, Verdict};
use crate::text::{Name, Shown};
use crate::types::{Type, Types};

/// The most steps of one comparison of types or of a method.
pub(super) const MAX_STEPS: usize = 100_000;

/// The most levels that a place names.
const MAX_PLACE: usize = 16;

/// The names of the two sides in texts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sides {
    client: &'static str,
    server: &'static str,
    /// The one that is in use and cannot be changed.
    old: Option<&'static str>,
}

impl Sides {
    pub(crate) const fn new(client: &'static str, server: &'static str) -> Self {
        Self {
            client,
            server,
            old: None,
        }
    }

    /// The sides between a program in use, `old`, and a new one.
    pub(crate) const fn of_builds(
        client: &'static str,
        server: &'static str,
        old: &'static str,
    ) -> Self {
        Self {
            client,
            server,
            old: Some(old),
        }
    }
}

/// The starting point of a comparison.
#[derive(Debug, Clone, Copy)]
pub(super) enum Root<'a> {
    Value,
    Method(MethodName<'a>),
    Argument(MethodName<'a>, &'a str),
    Requests(MethodName<'a>),
    Result(MethodName<'a>),
    Error(MethodName<'a>),
    StreamError(MethodName<'a>),
}

/// The names of a service, which may be empty, and of a method.
#[derive(Debug, Clone, Copy)]
pub(super) struct MethodName<'a>(pub(super) &'a str, pub(super) &'a str);

impl std::fmt::Display for MethodName<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            "" => Name(self.1).fmt(f),
            service => write!(f, "{}.{}", Name(service), Name(self.1)),
        }
    }
}

/// A step from a type to one of its parts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'a> {
    Field(&'a str),
    Place(usize),
    Variant(&'a str),
    Element,
    Key,
    Value,
}

/// One of the two types of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Node<'a> {
    Named(&'a str),
    At(*const Type),
}

impl<'a> Node<'a> {
    fn of(ty: &'a Type) -> Self {
        match ty {
            Type::Named(name) => Self::Named(name),
            _ => Self::At(ty),
        }
    }
}

/// A comparison of what two sides write to each other.
pub(super) struct Judge<'a, 's> {
    pub(super) encoding: Encoding,
    sides: Sides,
    client: &'a Types,
    server: &'a Types,
    client_writes: bool,
    root: Root<'a>,
    path: Vec<Step<'a>>,
    depth: usize,
    steps: &'s mut usize,
    /// The pairs that are being compared, or were. A pair within itself is assumed to be equal.
    assumed: HashSet<(bool, Node<'a>, Node<'a>)>,
    report: Report,
}

impl<'a, 's> Judge<'a, 's> {
    pub(super) fn new(
        sides: Sides,
        client: &'a Types,
        server: &'a Types,
        encoding: Encoding,
        steps: &'s mut usize,
    ) -> Self {
        Self {
            encoding,
            sides,
            client,
            server,
            client_writes: true,
            root: Root::Value,
            path: Vec::new(),
            depth: 0,
            steps,
            assumed: HashSet::new(),
            report: Report::default(),
        }
    }

    /// Sets what is compared next.
    pub(super) fn begin(&mut self, root: Root<'a>, client_writes: bool) {
        self.root = root;
        self.client_writes = client_writes;
    }

    pub(super) fn finish(self) -> Report {
        self.report
    }

    /// Returns the name of the side that writes.
    pub(super) fn writer(&self) -> &'static str {
        match self.client_writes {
            true => self.sides.client,
            false => self.sides.server,
        }
    }

    /// Returns the name of the side that reads.
    pub(super) fn reader(&self) -> &'static str {
        match self.client_writes {
            true => self.sides.server,
            false => self.sides.client,
        }
    }

    /// The remedy of a difference at the reader; nothing if it is in use already.
    pub(super) fn remedy(&self, remedy: &str) -> String {
        match self.sides.old == Some(self.reader()) {
            true => String::new(),
            false => format!("; {remedy}"),
        }
    }

    pub(super) fn writer_types(&self) -> &'a Types {
        match self.client_writes {
            true => self.client,
            false => self.server,
        }
    }

    pub(super) fn reader_types(&self) -> &'a Types {
        match self.client_writes {
            true => self.server,
            false => self.client,
        }
    }

    /// Counts a step. Returns `false`, and reports it once, if there were too many.
    pub(super) fn step(&mut self) -> bool {
        match *self.steps {
            0 => false,
            1 => {
                *self.steps = 0;
                self.too_large();
                false
            }
            _ => {
                *self.steps -= 1;
                true
            }
        }
    }

    /// Returns `true` if there were too many steps.
    pub(super) fn is_over(&self) -> bool {
        *self.steps == 0
    }

    /// Counts steps for parts that are looked at without being compared.
    pub(super) fn charge(&mut self, parts: usize) -> bool {
        *self.steps = match *self.steps {
            0 => 0,
            steps => steps.saturating_sub(parts).max(1),
        };
        self.step()
    }

    pub(super) fn too_large(&mut self) {
        let text = "the descriptions are too large to compare".to_owned();
        self.differ(Rule::TooLarge, Verdict::Unknown, "", "", &text);
    }

    /// Adds a difference at the current place. `text` goes on after the place.
    pub(super) fn differ(
        &mut self,
        rule: Rule,
        verdict: Verdict,
        writer: &str,
        reader: &str,
        text: &str,
    ) {
        let (client, server) = match self.client_writes {
            true => (writer, reader),
            false => (reader, writer),
        };
        let mut place = String::new();
        let mut words = String::new();
        // Writing to a string does not fail.
        let _ = match self.root {
            Root::Value => Ok(()),
            Root::Method(method) => {
                write!(place, "{method}").and_then(|()| write!(words, "`{method}`"))
            }
            Root::Argument(method, name) => write!(place, "{method}({})", Name(name))
                .and_then(|()| write!(words, "`{method}`, argument `{}`", Name(name))),
            Root::Requests(method) => write!(place, "{method}(stream)")
                .and_then(|()| write!(words, "`{method}`, stream of requests")),
            Root::Result(method) => write!(place, "{method} -> result")
                .and_then(|()| write!(words, "`{method}`, result")),
            Root::Error(method) => {
                write!(place, "{method} -> error").and_then(|()| write!(words, "`{method}`, error"))
            }
            Root::StreamError(method) => write!(place, "{method} -> stream error")
                .and_then(|()| write!(words, "`{method}`, error of the stream")),
        };
        let steps = self.steps_in_words();
        if !steps.is_empty() {
            let dot = if steps.starts_with(['[', '{', ':']) || place.is_empty() {
                ""
            } else {
                "."
            };
            place = format!("{place}{dot}{steps}");
            let at = if words.is_empty() { "at" } else { " at" };
            words = format!("{words}{at} `{steps}`");
        }
        let colon = if words.is_empty() { "" } else { ": " };
        self.report.push(Difference {
            place,
            rule,
            verdict,
            client: client.to_owned(),
            server: server.to_owned(),
            text: format!("{words}{colon}{text}"),
        });
    }

    fn steps_in_words(&self) -> String {
        let mut text = String::new();
        for (at, step) in self.path.iter().enumerate() {
            if at == MAX_PLACE {
                text.push_str("..");
                break;
            }
            let dot = if text.is_empty() { "" } else { "." };
            let _ = match step {
                Step::Field(name) => write!(text, "{dot}{}", Name(name)),
                Step::Place(place) => write!(text, "{dot}{place}"),
                Step::Variant(name) => write!(text, "::{}", Name(name)),
                Step::Element => write!(text, "[]"),
                Step::Key => write!(text, "{{key}}"),
                Step::Value => write!(text, "{{}}"),
            };
        }
        text
    }

    /// Compares parts of the current types.
    pub(super) fn within(&mut self, step: Step<'a>, writer: &'a Type, reader: &'a Type) {
        self.path.push(step);
        self.types(writer, reader);
        self.path.pop();
    }

    /// Runs a function at a part of the current types.
    pub(super) fn at<T>(&mut self, step: Step<'a>, run: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        let result = run(self);
        self.path.pop();
        result
    }

    /// Compares two types at the current place.
    pub(super) fn types(&mut self, writer: &'a Type, reader: &'a Type) {
        if !self.step() {
            return;
        }
        // Only these lead back to a type around them.
        let leads_back = |ty: &Type| matches!(ty, Type::Named(_) | Type::ByFormat { .. });
        if leads_back(writer) || leads_back(reader) {
            let pair = (self.client_writes, Node::of(writer), Node::of(reader));
            if !self.assumed.insert(pair) {
                return;
            }
        }
        if self.depth == MAX_DEPTH {
            self.too_large();
            return;
        }
        self.depth += 1;
        let forms = (
            resolve(self.writer_types(), writer, self.encoding),
            resolve(self.reader_types(), reader, self.encoding),
        );
        self.forms(forms, writer, reader);
        self.depth -= 1;
    }

    pub(super) fn needs_names(&mut self, what: &str) {
        let text = format!("{what} cannot be read from {}", self.encoding);
        self.differ(Rule::NeedsNames, Verdict::Incompatible, "", "", &text);
    }

    pub(super) fn opposite(&self, writer: &Type, reader: &Type, why: &str) -> String {
        let semicolon = if why.is_empty() { "" } else { "; " };
        format!(
            "the {} writes `{}`, and the {} reads `{}`{semicolon}{why}",
            self.writer(),
            Shown::new(writer),
            self.reader(),
            Shown::new(reader),
        )
    }

    pub(super) fn pair(
        &mut self,
        rule: Rule,
        verdict: Verdict,
        writer: &Type,
        reader: &Type,
        text: &str,
    ) {
        let (writer, reader) = (
            Shown::new(writer).to_string(),
            Shown::new(reader).to_string(),
        );
        self.differ(rule, verdict, &writer, &reader, text);
    }
}
