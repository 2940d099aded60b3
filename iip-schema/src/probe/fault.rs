//! The error with which an observed `Deserialize` fails.

use std::cell::RefCell;
use std::fmt;
use std::num::NonZeroU32;

use serde::de::{self, Expected, Unexpected};

/// The reason why a read ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The tracer has seen enough.
    Stop,
    /// A limit of the tracer.
    Limit,
    /// The visitor does not take this kind of value.
    WrongKind,
    Missing(&'static str),
    Duplicate(&'static str),
    UnknownName,
    /// The visitor takes this kind of value, but not this one.
    Refused,
}

/// A mark of the last error. It has no content, so that the results of an observed `Deserialize`
/// need no code to drop it, which would be compiled again for every type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault(NonZeroU32);

#[derive(Debug)]
struct Last {
    number: NonZeroU32,
    cause: Cause,
    text: String,
    names: &'static [&'static str],
    /// `true` once the innermost place that can learn from the fault has done so.
    handled: bool,
}

thread_local! {
    static LAST: RefCell<Last> = const {
        RefCell::new(Last {
            number: NonZeroU32::MIN,
            cause: Cause::Refused,
            text: String::new(),
            names: &[],
            handled: false,
        })
    };
}

/// The bytes of a message that are kept.
const TEXT: usize = 200;

impl Fault {
    pub(super) fn new(cause: Cause, text: impl Into<String>) -> Self {
        let text = text.into();
        LAST.with_borrow_mut(|last| {
            let number = last.number.checked_add(1).unwrap_or(NonZeroU32::MIN);
            *last = Last {
                number,
                cause,
                text,
                names: &[],
                handled: false,
            };
            Self(number)
        })
    }

    pub(super) fn stop(text: impl Into<String>) -> Self {
        Self::new(Cause::Stop, text)
    }

    pub(super) fn limit(text: impl Into<String>) -> Self {
        Self::new(Cause::Limit, text)
    }

    /// The cause. Of an error that came before others, only that it is one is known.
    pub(super) fn cause(self) -> Cause {
        let cause = self.last(|last| last.cause);
        cause.unwrap_or(Cause::Refused)
    }

    /// Returns `true` if the tracer ended the read, not the type.
    pub(super) fn is_own(self) -> bool {
        matches!(self.cause(), Cause::Stop | Cause::Limit)
    }

    /// Returns the names that a type accepts, if it was given another one.
    pub(super) fn names(self) -> &'static [&'static str] {
        self.last(|last| last.names).unwrap_or_default()
    }

    pub(super) fn text(self) -> String {
        self.last(|last| last.text.clone()).unwrap_or_default()
    }

    /// Returns the cause to the first caller, and marks the fault as handled.
    pub(super) fn handle(self) -> Option<Cause> {
        let cause = self.last(|last| {
            let handled = std::mem::replace(&mut last.handled, true);
            (!handled).then_some(last.cause)
        });
        cause.unwrap_or(Some(Cause::Refused))
    }

    pub(super) fn is_handled(self) -> bool {
        self.last(|last| last.handled).unwrap_or(false)
    }

    fn last<T>(self, of: impl FnOnce(&mut Last) -> T) -> Option<T> {
        LAST.with_borrow_mut(|last| (last.number == self.0).then(|| of(last)))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(msg: T) -> Self {
        refused(format_args!("{msg}"))
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(
            Cause::WrongKind,
            short(format_args!("it expects {expected}")),
        )
    }

    fn unknown_variant(variant: &str, names: &'static [&'static str]) -> Self {
        let text = format!("it does not know the variant `{variant}`");
        let fault = Self::new(Cause::UnknownName, text);
        fault.last(|last| last.names = names);
        fault
    }

    fn unknown_field(field: &str, _: &'static [&'static str]) -> Self {
        Self::new(
            Cause::UnknownName,
            format!("it does not know the field `{field}`"),
        )
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Cause::Missing(field), format!("missing field `{field}`"))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(
            Cause::Duplicate(field),
            format!("duplicate field `{field}`"),
        )
    }
}

fn refused(message: fmt::Arguments<'_>) -> Fault {
    Fault::new(Cause::Refused, short(message))
}

fn short(message: fmt::Arguments<'_>) -> String {
    let text = message.to_string();
    match text.char_indices().nth(TEXT) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text,
    }
}
