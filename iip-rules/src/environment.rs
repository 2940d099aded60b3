//! Environments: the names that rules may use.

use std::collections::HashMap;
use std::sync::Arc;

/// Number of the predefined variables that are computed from the time. They come first.
pub(crate) const CLOCK_SLOTS: usize = 16;
/// Slot of `$rand`.
pub(crate) const RAND_SLOT: usize = 16;
/// Slot of `$break`.
pub(crate) const BREAK_SLOT: usize = 17;

/// The predefined variables, in the order of their slots.
pub(crate) const PREDEFINED: [&str; 18] = [
    "$datetime",
    "$date",
    "$time",
    "$stime",
    "$year",
    "$month",
    "$day",
    "$hour",
    "$minute",
    "$second",
    "$iyear",
    "$imonth",
    "$iday",
    "$ihour",
    "$iminute",
    "$isecond",
    "$rand",
    "$break",
];

/// The registered names of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    /// The names of variables, by slot.
    pub(crate) variables: Vec<Arc<str>>,
    slots: HashMap<Arc<str>, usize>,
    /// The names of objects, by number. There are few.
    pub(crate) objects: Vec<Arc<str>>,
}

/// The place that a name is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Slot(usize),
    Property { object: usize, property: Arc<str> },
}

impl Names {
    pub(crate) fn slot(&self, name: &str) -> Option<usize> {
        self.slots.get(name).copied()
    }

    pub(crate) fn object(&self, name: &str) -> Option<usize> {
        self.objects.iter().position(|object| **object == *name)
    }

    /// Returns the object and the property that a name with exactly one dot consists of.
    pub(crate) fn property(&self, name: &str) -> Option<Source> {
        let (object, property) = name.split_once('.')?;
        if property.contains('.') {
            return None;
        }
        let object = self.object(object)?;
        Some(Source::Property {
            object,
            property: property.into(),
        })
    }

    /// Returns where a name is read from. A registered name with a dot precedes a property.
    pub(crate) fn source(&self, name: &str) -> Option<Source> {
        self.slot(name)
            .map(Source::Slot)
            .or_else(|| self.property(name))
    }

    /// Lists the names that are registered by the application, for messages.
    pub(crate) fn registered(&self) -> String {
        let variables = self.variables.iter().skip(PREDEFINED.len());
        let variables = variables.map(ToString::to_string);
        let objects = self.objects.iter();
        let objects = objects.map(|object| format!("{object}.PROPERTY"));
        let predefined = ["the predefined ones".to_owned()];
        let names: Vec<String> = variables.chain(objects).chain(predefined).collect();
        names.join(", ")
    }
}

/// The names that rules may use: variables and objects of the application, besides the predefined
/// variables.
///
/// Rules are loaded in an environment, and their names are resolved then. Values are set in a
/// [`Context`](crate::Context) of the same environment, once for every evaluation.
///
/// ```
/// use iip_rules::Environment;
///
/// let environment = Environment::new()
///     .variable("$host")
///     .variable("$backend")
///     .object("$query");
/// let rules = environment.parse(r#"{"route": [[["$backend", "=", "a"]]]}"#)?;
/// assert!(rules.warnings().is_empty());
/// # Ok::<(), iip_rules::RulesError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    pub(crate) names: Arc<Names>,
    pub(crate) strict: bool,
}

impl Environment {
    /// Creates an environment with the predefined variables alone.
    #[must_use]
    pub fn new() -> Self {
        let variables: Vec<Arc<str>> = PREDEFINED.iter().map(|&name| name.into()).collect();
        let slots = variables.iter().cloned().zip(0..).collect();
        let names = Names {
            variables,
            slots,
            objects: Vec::new(),
        };
        Self {
            names: Arc::new(names),
            strict: false,
        }
    }

    /// Registers a variable. The name begins with `$`; rules cannot use others. A second
    /// registration of a name has no effect.
    #[must_use]
    pub fn variable(mut self, name: &str) -> Self {
        if self.names.slot(name).is_none() {
            let names = Arc::make_mut(&mut self.names);
            let name: Arc<str> = name.into();
            names.slots.insert(name.clone(), names.variables.len());
            names.variables.push(name);
        }
        self
    }

    /// Registers an object, whose properties are read as `$name.property`. The name begins with
    /// `$` and has no dot; rules cannot use others. A second registration of a name has no effect.
    #[must_use]
    pub fn object(mut self, name: &str) -> Self {
        if self.names.object(name).is_none() {
            Arc::make_mut(&mut self.names).objects.push(name.into());
        }
        self
    }

    /// Sets whether the warnings of loading are errors (default: `false`).
    ///
    /// Rules of the Go reference may contain unknown operators, variables and functions, and
    /// operands of wrong types, which have no effect or end the evaluation. Malformed groups are
    /// skipped there. In the strict mode, such rules are not loaded.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }
}

impl Default for Environment {
    fn default() -> Self {
        Self::new()
    }
}
