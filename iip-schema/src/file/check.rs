//! A build against what programs in use were built with.

use super::{FileError, from_text};
use crate::compat::{Encoding, Report, Rule, Sides, Verdict, compare_as};
use crate::description::Description;
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
            });
        };
        let mut all = Vec::new();
        for removed in &old.methods {
            if new.method_at(&removed.path).is_none() {
                all.push(format!(
                    "`{}.{}` with the path `{}` is no longer there; old clients call it",
                    Name(&old.service),
                    Name(&removed.name),
                    Name(&removed.path),
                ));
            }
        }
        for encoding in &self.encodings {
            let old_calls = Sides::new("old client", "new server");
            let new_calls = Sides::new("new client", "old server");
            self.collect(
                &mut all,
                *encoding,
                compare_as(old, new, *encoding, old_calls),
            );
            self.collect(
                &mut all,
                *encoding,
                compare_as(new, old, *encoding, new_calls),
            );
        }
        if all.is_empty() {
            return Ok(());
        }
        Err(Incompatible::Differs {
            service: Name(&new.service).to_string(),
            differences: all,
        })
    }

    fn collect(&self, all: &mut Vec<String>, encoding: Encoding, report: Report) {
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
            all.push(format!("{encoding}: {}", difference.text));
        }
        if omitted > 0 && verdict >= limit {
            all.push(format!("{encoding}: and {omitted} further differences"));
        }
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
         field instead; if no program with the saved schema is in use, replace the saved text by \
         `iip_schema::file::to_text([&description])`",
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
        "`{service}` is not in the saved schema; add it by `iip_schema::file::to_text` with the \
         descriptions of all services"
    )]
    NoService {
        /// The name of the service.
        service: String,
    },
    /// The text cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
}
