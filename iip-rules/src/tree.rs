//! The compiled form of a group.

use std::sync::Arc;

use crate::environment::Source;
use crate::function::Function;
use crate::number;
use crate::value::Value;

#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) assignments: Vec<Assignment>,
    /// The action is one assignment, and not a list of them. Only places depend on it.
    pub(crate) single: bool,
}

#[derive(Debug)]
pub(crate) struct Condition {
    pub(crate) left: Expression,
    /// None is an operator that does not exist: the condition fails.
    pub(crate) comparison: Option<Comparison>,
    pub(crate) right: Operand,
}

#[derive(Debug)]
pub(crate) struct Assignment {
    /// The expression that the operator reads as the old value.
    pub(crate) old: Expression,
    pub(crate) target: Target,
    pub(crate) operator: AssignmentOperator,
    pub(crate) right: Operand,
}

/// The place where an assignment stores its result.
#[derive(Debug)]
pub(crate) enum Target {
    Slot(usize),
    Property {
        object: usize,
        property: Arc<str>,
    },
    /// A name that is not registered. Rules cannot read it.
    Other(Arc<str>),
}

/// A variable or property with its pipeline.
#[derive(Debug)]
pub(crate) enum Expression {
    /// The variable or a function does not exist.
    Absent,
    Read {
        source: Source,
        pipeline: Vec<Function>,
    },
}

#[derive(Debug)]
pub(crate) enum Operand {
    Literal(Literal),
    Expression(Expression),
    Template(Vec<Piece>),
}

/// A part of a text with macros.
#[derive(Debug)]
pub(crate) enum Piece {
    Text(Box<str>),
    /// The source of a macro, and the macro as it was written, which stays if there is no text
    /// form.
    Macro(Source, Box<str>),
}

/// An operand that is the same in every evaluation, with its conversions.
#[derive(Debug)]
pub(crate) struct Literal {
    pub(crate) value: Value,
    pub(crate) text: Option<Arc<str>>,
    pub(crate) integer: Option<i64>,
    pub(crate) float: Option<f64>,
    pub(crate) bounds: Option<Bounds>,
}

impl Literal {
    pub(crate) fn new(value: Value) -> Self {
        let text = value.shared_text();
        Self {
            integer: value.as_integer(),
            float: value.as_float(),
            bounds: text.as_deref().and_then(Bounds::of),
            text,
            value,
        }
    }
}

/// The two bounds of `between`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// The position of the comma that separates them.
    pub(crate) comma: usize,
    pub(crate) integers: Option<(i64, i64)>,
    pub(crate) floats: Option<(f64, f64)>,
}

impl Bounds {
    /// Reads the bounds of a text that has exactly one comma.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let comma = text.find(',')?;
        let (low, high) = (&text[..comma], &text[comma + 1..]);
        if high.contains(',') {
            return None;
        }
        Some(Self {
            comma,
            integers: number::integer(low).zip(number::integer(high)),
            floats: number::float(low).zip(number::float(high)),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Test {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Between,
    In,
    Has,
    Any,
    Contains,
    StartsWith,
    EndsWith,
    ContainsAny,
}

/// A comparison operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub(crate) test: Test,
    pub(crate) negated: bool,
}

/// The names of all comparison operators.
pub(crate) const COMPARISONS: &str = "=, !=, <>, <, <=, >, >=, between, ^between, in, not in, has, \
     any, none, ~, ^~, ~*, ^~*, *~, ^*~, cv, ^cv";

impl Comparison {
    pub(crate) fn named(name: &str) -> Option<Self> {
        let (test, negated) = match name {
            "=" => (Test::Equal, false),
            "!=" | "<>" => (Test::Equal, true),
            "<" => (Test::Less, false),
            "<=" => (Test::LessOrEqual, false),
            ">" => (Test::Greater, false),
            ">=" => (Test::GreaterOrEqual, false),
            "between" => (Test::Between, false),
            "^between" => (Test::Between, true),
            "in" => (Test::In, false),
            "not in" => (Test::In, true),
            "has" => (Test::Has, false),
            "any" => (Test::Any, false),
            "none" => (Test::Any, true),
            "~" => (Test::Contains, false),
            "^~" => (Test::Contains, true),
            "~*" => (Test::StartsWith, false),
            "^~*" => (Test::StartsWith, true),
            "*~" => (Test::EndsWith, false),
            "^*~" => (Test::EndsWith, true),
            "cv" => (Test::ContainsAny, false),
            "^cv" => (Test::ContainsAny, true),
            _ => return None,
        };
        Some(Self { test, negated })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AssignmentOperator {
    Set,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    /// An operator that does not exist: an error when it is reached.
    Unknown(Box<str>),
}

/// The names of all assignment operators.
pub(crate) const ASSIGNMENTS: &str = "=, +=, -=, *=, /=, %=";

impl AssignmentOperator {
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "=" => Self::Set,
            "+=" => Self::Add,
            "-=" => Self::Subtract,
            "*=" => Self::Multiply,
            "/=" => Self::Divide,
            "%=" => Self::Remainder,
            _ => Self::Unknown(name.into()),
        }
    }
}
