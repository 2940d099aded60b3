//! Errors with the place at which they occurred.

use std::fmt::{self, Write as _};

use super::{MAX_LEVELS, MAX_WRAPPERS};
use crate::closest;

/// Number of names that an error lists.
const SHOWN_NAMES: usize = 12;

/// Number of characters of a name from the value that an error shows.
const SHOWN_CHARS: usize = 64;

/// The reason why a value is not of the described type, and the place in the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DynamicError {
    path: String,
    text: String,
}

impl DynamicError {
    /// Returns the place as a JSON pointer (RFC 6901), such as `/items/2/colour`. It is empty for
    /// the whole value.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the reason, without the place.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for DynamicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "`{}`: ", self.path)?;
        }
        f.write_str(&self.text)
    }
}

impl std::error::Error for DynamicError {}

/// The place of a value within the whole value. It also counts the depth.
#[derive(Clone, Copy)]
pub(super) struct Path<'p> {
    parent: Option<&'p Self>,
    step: Step<'p>,
    levels: u16,
    wrappers: u16,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Same,
    Key(&'p str),
    Index(usize),
}

impl<'p> Path<'p> {
    pub(super) const ROOT: Path<'static> = Path {
        parent: None,
        step: Step::Same,
        levels: 0,
        wrappers: 0,
    };

    /// The value of a key of this object.
    pub(super) fn key(&'p self, key: &'p str) -> Result<Self, DynamicError> {
        self.deeper(Step::Key(key))
    }

    /// An element of this list.
    pub(super) fn index(&'p self, index: usize) -> Result<Self, DynamicError> {
        self.deeper(Step::Index(index))
    }

    /// The value in an option or a newtype, which has the same place.
    pub(super) fn wrapped(&'p self) -> Result<Self, DynamicError> {
        self.within(1)
    }

    /// A variant that is tried, which has the same place, and takes more stack.
    pub(super) fn tried(&'p self) -> Result<Self, DynamicError> {
        self.within(2)
    }

    /// A value that is flattened into this object, which takes even more stack.
    pub(super) fn flattened(&'p self) -> Result<Self, DynamicError> {
        self.within(8)
    }

    fn within(&'p self, wrappers: u16) -> Result<Self, DynamicError> {
        let wrappers = self.wrappers + wrappers;
        if wrappers > MAX_WRAPPERS {
            return Err(self.error(format_args!(
                "more than {MAX_WRAPPERS} options and newtypes are nested"
            )));
        }
        Ok(Self {
            parent: Some(self),
            step: Step::Same,
            wrappers,
            ..*self
        })
    }

    fn deeper(&'p self, step: Step<'p>) -> Result<Self, DynamicError> {
        if self.levels == MAX_LEVELS {
            return Err(self.error(format_args!(
                "the value is nested deeper than {MAX_LEVELS} levels"
            )));
        }
        Ok(Self {
            parent: Some(self),
            step,
            levels: self.levels + 1,
            ..*self
        })
    }

    /// The number of further levels that a value at this place may have.
    pub(super) fn levels_left(&self) -> u16 {
        MAX_LEVELS - self.levels
    }

    #[cold]
    pub(super) fn error(&self, text: impl fmt::Display) -> DynamicError {
        DynamicError {
            path: self.pointer(),
            text: text.to_string(),
        }
    }

    fn pointer(&self) -> String {
        let mut steps = Vec::new();
        let mut place = Some(self);
        while let Some(path) = place {
            steps.push(path.step);
            place = path.parent;
        }
        let mut text = String::new();
        for step in steps.iter().rev() {
            // Writing to a `String` cannot fail.
            let _ = match step {
                Step::Same => Ok(()),
                Step::Key(key) => {
                    let key = shorten(key).replace('~', "~0").replace('/', "~1");
                    write!(text, "/{key}")
                }
                Step::Index(index) => write!(text, "/{index}"),
            };
        }
        text
    }
}

/// The text of an error about the name `given`, which is none of `names`: "`Color` has no variant
/// `gren`; ..". `what` is `variant`, `field` or `argument`.
#[cold]
pub(super) fn unknown(owner: &str, what: &str, given: &str, names: &[&str]) -> String {
    let mut text = format!("`{}` has no {what} `{}`", shorten(owner), shorten(given));
    // Every name of a letter or two is close to every other.
    if given.len() > 2
        && let Some(close) = closest::path(given, names)
    {
        let _ = write!(text, "; the closest is `{}`", shorten(close));
    }
    let _ = match names {
        [] => write!(text, "; it has no {what}s"),
        [only] => write!(text, "; its only {what} is `{}`", shorten(only)),
        _ => write!(text, "; its {what}s are {}", list(names)),
    };
    text
}

fn list(names: &[&str]) -> String {
    let shown = names.iter().take(SHOWN_NAMES);
    let shown: Vec<String> = shown.map(|name| format!("`{}`", shorten(name))).collect();
    let mut text = shown.join(", ");
    if names.len() > SHOWN_NAMES {
        let _ = write!(text, " and {} more", names.len() - SHOWN_NAMES);
    }
    text
}

/// The first characters of a text from outside, escaped.
pub(super) fn shorten(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARS).collect();
    if shown.len() < text.len() {
        shown.push_str("..");
    }
    shown.escape_debug().to_string()
}
