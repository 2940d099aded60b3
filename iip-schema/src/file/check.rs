//! A build against what programs in use were built with.

use super::{FileError, from_text};
use crate::compat::{Encoding, Report, Rule, Sides, Verdict, compare_as};
use crate::description::{Description, Method};
use crate::text::Name;

/// Options of the comparison of a description with a saved one.
///
/// Programs of the saved build must be able to call those of the new one, and the reverse, because
/// both run side by side while a change is rolled out. Methods may be added, and none may be
/// removed.
///
/// Without [`strict`](Self::strict), this is checked for MessagePack and JSON: clients use one of
/// them by themselves for a method whose types differ.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Check {
    encodings: Vec<Encoding>,
    warnings: bool,
    servers_first: bool,
}

impl Default for Check {
    fn default() -> Self {
        Self::new()
    }
}

impl Check {
    /// A check for MessagePack and JSON.
    pub fn new() -> Self {
        Self {
            encodings: vec![Encoding::MessagePack, Encoding::Json],
            warnings: false,
            servers_first: false,
        }
    }

    /// A check for every encoding: for services whose clients must not change to another codec.
    pub fn strict() -> Self {
        Self::new().encodings(Encoding::ALL)
    }

    /// Checks these encodings only. Without any, nothing but the set of methods is checked.
    pub fn encodings(mut self, encodings: impl IntoIterator<Item = Encoding>) -> Self {
        self.encodings = encodings.into_iter().collect();
        self
    }

    /// Takes warnings for errors: a narrowed number, or a variant that the other side does not know.
    pub fn deny_warnings(mut self) -> Self {
        self.warnings = true;
        self
    }

    /// Checks only that old clients can call new servers: for changes with which all servers are
    /// updated before the first client, such as an argument that was appended.
    pub fn servers_first(mut self) -> Self {
        self.servers_first = true;
        self
    }

    /// Compares a description with the one of the same service in a saved text.
    ///
    /// # Errors
    ///
    /// The two do not understand each other, the text cannot be read, or does not have the service.
    pub fn run(&self, new: &Description, saved: &str) -> Result<(), Incompatible> {
        let services = from_text(saved)?;
        let Some(old) = services.iter().find(|old| old.service == new.service) else {
            return Err(Incompatible::NoService {
                service: Name(&new.service).to_string(),
                saved: services
                    .iter()
                    .map(|old| Name(&old.service).to_string())
                    .collect(),
            });
        };
        let mut all = Differences::default();
        for removed in &old.methods {
            if new.method_at(&removed.path).is_none() {
                all.add(None, removed_in_words(old, removed, new));
            }
        }
        let old_calls = Sides::of_builds("old client", "new server", "old client");
        let new_calls = Sides::of_builds("new client", "old server", "old server");
        for &encoding in &self.encodings {
            self.collect(
                &mut all,
                encoding,
                compare_as(old, new, encoding, old_calls),
            );
        }
        for &encoding in self.encodings.iter().filter(|_| !self.servers_first) {
            self.collect(
                &mut all,
                encoding,
                compare_as(new, old, encoding, new_calls),
            );
        }
        if all.0.is_empty() {
            return Ok(());
        }
        Err(Incompatible::Differs {
            service: Name(&new.service).to_string(),
            differences: all.in_words(),
        })
    }

    fn collect(&self, all: &mut Differences, encoding: Encoding, report: Report) {
        let limit = match self.warnings {
            true => Verdict::Warn,
            false => Verdict::Incompatible,
        };
        let (verdict, omitted) = (report.verdict(), report.omitted);
        for difference in report.differences {
            // Methods of one side only were looked at before.
            let of_methods = matches!(difference.rule, Rule::MethodRemoved | Rule::PathChanged);
            // What is unknown is so in every build.
            let is_unknown = difference.rule == Rule::OpaqueType;
            if difference.verdict < limit || of_methods || is_unknown {
                continue;
            }
            all.add(Some(encoding), difference.text);
        }
        if omitted > 0 && verdict >= limit {
            all.add(Some(encoding), format!("and {omitted} further differences"));
        }
    }
}

/// A method of the saved description that has no method at its path any more.
fn removed_in_words(old: &Description, removed: &Method, new: &Description) -> String {
    let (service, name, path) = (Name(&old.service), Name(&removed.name), Name(&removed.path));
    match new.method(&removed.name) {
        Some(moved) => format!(
            "`{service}.{name}` has the path `{}` now; old clients call `{path}`",
            Name(&moved.path)
        ),
        None => format!(
            "`{service}.{name}` with the path `{path}` is no longer there; old clients call it"
        ),
    }
}

/// Differences in words, each with the encodings in which it is one.
#[derive(Default)]
struct Differences(Vec<(Vec<Encoding>, String)>);

impl Differences {
    /// Adds a difference, unless it is the same as in another encoding.
    fn add(&mut self, encoding: Option<Encoding>, text: String) {
        let Some(encoding) = encoding else {
            self.0.push((Vec::new(), text));
            return;
        };
        // Some texts say what their encoding does.
        let same = |(encodings, other): &&mut (Vec<Encoding>, String)| {
            let first = encodings.first().filter(|_| !encodings.contains(&encoding));
            first.is_some_and(|first| {
                *other == text.replace(&encoding.to_string(), &first.to_string())
            })
        };
        match self.0.iter_mut().find(same) {
            Some((encodings, _)) => encodings.push(encoding),
            None => self.0.push((vec![encoding], text)),
        }
    }

    fn in_words(self) -> Vec<String> {
        let all = self.0.into_iter().map(|(encodings, text)| {
            let encodings: Vec<String> = encodings.iter().map(ToString::to_string).collect();
            match &*encodings {
                [] => text,
                [one] => format!("{one}: {text}"),
                [first, ..] => {
                    let text = text.replace(&format!("{first} writes"), "they write");
                    format!("{}: {text}", encodings.join(", "))
                }
            }
        });
        all.collect()
    }
}

/// Compares a description with the one of the same service in a saved text, by [`Check::new`].
///
/// # Errors
///
/// Those of [`Check::run`].
pub fn check_compatible(new: &Description, saved: &str) -> Result<(), Incompatible> {
    Check::new().run(new, saved)
}

/// Panics if [`check_compatible`] fails, with all differences. For tests.
///
/// # Panics
///
/// The two do not understand each other, the text cannot be read, or does not have the service.
#[track_caller]
pub fn assert_compatible(new: &Description, saved: &str) {
    if let Err(error) = check_compatible(new, saved) {
        panic!("{error}");
    }
}

/// The reason why a description does not go with a saved one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Incompatible {
    /// Programs of the two builds do not understand each other.
    #[error(
        "`{service}` does not go with its saved schema:\n- {}\nundo the change, or add a method or \
         field instead; if all servers are updated before the first client, use \
         `Check::servers_first`; if no program with the saved schema is in use, save the schema \
         again by `schema::file::to_text`",
        .differences.join("\n- ")
    )]
    Differs {
        /// The name of the service.
        service: String,
        /// The differences in words.
        differences: Vec<String>,
    },
    /// The text has no service with this name.
    #[error(
        "`{service}` is not in the saved schema, which has {}; if the service is new, save the \
         descriptions of all services by `schema::file::to_text`; if it was renamed, clients in use \
         call it by its old name",
        names(.saved)
    )]
    NoService {
        /// The name of the service.
        service: String,
        /// The names of the services in the saved text.
        saved: Vec<String>,
    },
    /// The text cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
}

fn names(services: &[String]) -> String {
    match services {
        [] => "no services".to_owned(),
        services => format!("`{}`", services.join("`, `")),
    }
}
