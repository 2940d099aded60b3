//! Errors and warnings of loading, and errors of evaluation.

use std::fmt;

use thiserror::Error;

use crate::{MAX_RESULT_BYTES, MAX_WORK_BYTES};

/// The category of a [`Problem`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The text is not JSON, or not a JSON object. Always an error.
    Document,
    /// There is no entry with the name of the group. Always an error of [`Rules::group`].
    ///
    /// [`Rules::group`]: crate::Rules::group
    Missing,
    /// A group, a rule, a condition or an assignment has the wrong shape. The group does not
    /// exist.
    Shape,
    /// An operator is unknown.
    Operator,
    /// A variable is not registered, or cannot be read after it is assigned.
    Variable,
    /// A function of a pipeline is unknown, or stands where no pipeline is accepted.
    Function,
    /// An operand has a type with which the operator never works.
    Operand,
}

/// A mistake in the rules: the place, and what is wrong and what is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub(crate) kind: ProblemKind,
    pub(crate) place: String,
    pub(crate) message: String,
}

impl Problem {
    /// Returns the category.
    #[must_use]
    pub fn kind(&self) -> ProblemKind {
        self.kind
    }

    /// Returns the place as a JSON pointer, such as `/LB_TARGET/2/0/1`. It is empty for the whole
    /// document.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Returns what is wrong and what is accepted, without the place.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() {
            write!(f, "{}", self.message)
        } else {
            write!(f, "{}: {}", self.place, self.message)
        }
    }
}

/// The error of rules that cannot be loaded, or of a group that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesError {
    /// There is at least one.
    problems: Vec<Problem>,
}

impl RulesError {
    pub(crate) fn new(kind: ProblemKind, place: impl Into<String>, message: String) -> Self {
        let place = place.into();
        Self {
            problems: vec![Problem {
                kind,
                place,
                message,
            }],
        }
    }

    /// Returns the error that consists of these problems, or `None` if there are none.
    pub(crate) fn of(problems: Vec<Problem>) -> Option<Self> {
        (!problems.is_empty()).then_some(Self { problems })
    }

    /// Returns the problems: one, or in the [strict mode](crate::Environment::strict) all. There is
    /// at least one.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut problems = self.problems.iter();
        if let Some(first) = problems.next() {
            write!(f, "{first}")?;
        }
        match problems.len() {
            0 => Ok(()),
            more => write!(f, " (and {more} more)"),
        }
    }
}

impl std::error::Error for RulesError {}

/// The error of an evaluation that ended early. What was assigned before stays assigned.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{place}: {kind}")]
pub struct EvaluationError {
    pub(crate) place: String,
    pub(crate) kind: EvaluationErrorKind,
}

impl EvaluationError {
    /// Returns the place as a JSON pointer: that of a rule, a condition or an assignment, such as
    /// `/LB_TARGET/2/0`.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Returns the reason.
    #[must_use]
    pub fn kind(&self) -> &EvaluationErrorKind {
        &self.kind
    }
}

/// The reason of an [`EvaluationError`].
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum EvaluationErrorKind {
    /// The assignment operator does not exist. Loading has warned about it.
    #[error("unknown assignment operator {0:?}")]
    UnknownOperator(String),
    /// The operator does not accept operands of these types.
    #[error("{operator} does not accept {operand}")]
    Operand {
        /// The operator, such as `-=`.
        operator: &'static str,
        /// The type of the operand that it does not accept.
        operand: &'static str,
    },
    /// The divisor of `/=` is within 0.00001 of zero, or that of `%=` is zero.
    #[error("division by zero")]
    DivisionByZero,
    /// The number of copies of a text is negative.
    #[error("{0} copies of a text")]
    NegativeCount(i64),
    /// A text would be longer than [`MAX_RESULT_BYTES`].
    #[error("the result is longer than {MAX_RESULT_BYTES} bytes")]
    ResultTooLarge,
    /// Operators would read and write more than [`MAX_WORK_BYTES`] in one evaluation.
    #[error("operators have read and written {MAX_WORK_BYTES} bytes")]
    WorkTooLarge,
    /// The context was made for an environment with other names than that of the rules.
    #[error("the context belongs to another environment")]
    OtherEnvironment,
}

/// The error of setting a variable or an object whose name is not registered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not registered")]
pub struct NotRegistered(pub(crate) String);
