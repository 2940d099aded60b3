//! Comparison operators.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashSet;

use crate::context::{Machine, Scope};
use crate::error::EvaluationErrorKind;
use crate::tree::{Bounds, Condition, Literal, Operand, Test};
use crate::value::Value;

/// The outcome of a test. None is a test that fails because of its operands: the condition does not
/// hold then, negated or not.
type Outcome = Result<Option<bool>, EvaluationErrorKind>;

/// The right side of a condition.
enum Right<'a> {
    /// Its conversions were made when it was loaded.
    Literal(&'a Literal),
    Value(Cow<'a, Value>),
}

impl Right<'_> {
    fn text(&self, machine: &mut Machine) -> Result<Option<Cow<'_, str>>, EvaluationErrorKind> {
        match self {
            Right::Literal(literal) => {
                let text = literal.text.as_deref().map(Cow::Borrowed);
                machine.charge(text.as_ref().map_or(0, |text| text.len()))?;
                Ok(text)
            }
            Right::Value(value) => machine.text(value),
        }
    }

    fn integer(&self, machine: &mut Machine) -> Result<Option<i64>, EvaluationErrorKind> {
        match self {
            Right::Literal(literal) => Ok(literal.integer),
            Right::Value(value) => machine.integer(value),
        }
    }

    fn float(&self, machine: &mut Machine) -> Result<Option<f64>, EvaluationErrorKind> {
        match self {
            Right::Literal(literal) => Ok(literal.float),
            Right::Value(value) => machine.float(value),
        }
    }
}

/// Returns `true` if the condition holds.
pub(crate) fn holds(
    condition: &Condition,
    scope: &Scope<'_>,
    machine: &mut Machine,
) -> Result<bool, EvaluationErrorKind> {
    let Some(comparison) = condition.comparison else {
        return Ok(false);
    };
    let left = scope.evaluate(&condition.left, machine)?;
    let right = match &condition.right {
        // A member of a list is chosen at each evaluation.
        Operand::Literal(literal) if !matches!(literal.value, Value::List(_)) => {
            Right::Literal(literal)
        }
        operand => Right::Value(scope.operand(operand, machine)?),
    };
    let outcome = match comparison.test {
        Test::Equal => ordering(&left, &right, machine, |order| {
            order == Some(Ordering::Equal)
        })?,
        Test::Less => ordering(&left, &right, machine, |order| {
            order == Some(Ordering::Less)
        })?,
        Test::LessOrEqual => ordering(&left, &right, machine, |order| {
            order.is_some_and(Ordering::is_le)
        })?,
        Test::Greater => ordering(&left, &right, machine, |order| {
            order == Some(Ordering::Greater)
        })?,
        Test::GreaterOrEqual => ordering(&left, &right, machine, |order| {
            order.is_some_and(Ordering::is_ge)
        })?,
        Test::Between => between(&left, &right, machine)?,
        test => texts(test, &left, &right, machine)?,
    };
    Ok(outcome.is_some_and(|outcome| outcome != comparison.negated))
}

/// Compares in the type of the left side. Not a number has no order.
fn ordering(
    left: &Value,
    right: &Right<'_>,
    machine: &mut Machine,
    test: impl Fn(Option<Ordering>) -> bool,
) -> Outcome {
    let order = match left {
        Value::Text(left) => {
            let Some(right) = right.text(machine)? else {
                return Ok(None);
            };
            Some((**left).cmp(&*right))
        }
        Value::Integer(_) | Value::Unsigned(_) => {
            let (Some(left), Some(right)) = (left.as_integer(), right.integer(machine)?) else {
                return Ok(None);
            };
            Some(left.cmp(&right))
        }
        Value::Float(left) => {
            let Some(right) = right.float(machine)? else {
                return Ok(None);
            };
            left.partial_cmp(&right)
        }
        Value::Null | Value::Boolean(_) | Value::Object(_) | Value::List(_) => return Ok(None),
    };
    Ok(Some(test(order)))
}

/// Tests for two bounds, which belong to the range.
fn between(left: &Value, right: &Right<'_>, machine: &mut Machine) -> Outcome {
    let Some(text) = right.text(machine)? else {
        return Ok(None);
    };
    let bounds = match right {
        Right::Literal(literal) => literal.bounds,
        Right::Value(_) => Bounds::of(&text),
    };
    let Some(bounds) = bounds else {
        return Ok(None);
    };
    Ok(match left {
        Value::Text(left) => {
            let (low, high) = (&text[..bounds.comma], &text[bounds.comma + 1..]);
            Some(low <= &**left && &**left <= high)
        }
        Value::Integer(_) | Value::Unsigned(_) => {
            let left = left.as_integer();
            left.zip(bounds.integers)
                .map(|(left, (low, high))| low <= left && left <= high)
        }
        Value::Float(left) => bounds
            .floats
            .map(|(low, high)| low <= *left && *left <= high),
        Value::Null | Value::Boolean(_) | Value::Object(_) | Value::List(_) => None,
    })
}

/// The tests that convert both sides to text.
fn texts(test: Test, left: &Value, right: &Right<'_>, machine: &mut Machine) -> Outcome {
    let Some(left) = machine.text(left)? else {
        return Ok(None);
    };
    let Some(right) = right.text(machine)? else {
        return Ok(None);
    };
    let (left, right) = (&*left, &*right);
    if test == Test::In {
        return Ok(Some(members(right).any(|member| member == left)));
    }
    if left.is_empty() || right.is_empty() {
        return Ok(Some(false));
    }
    Ok(Some(match test {
        Test::Has => {
            let left = Members::new(left, right);
            members(right).all(|member| left.contain(member))
        }
        Test::Any => {
            let left = Members::new(left, right);
            members(right).any(|member| left.contain(member))
        }
        Test::Contains => left.contains(right),
        Test::StartsWith => left.starts_with(right),
        Test::EndsWith => left.ends_with(right),
        _ => {
            for member in members(right) {
                machine.charge(left.len())?;
                if left.contains(member) {
                    return Ok(Some(true));
                }
            }
            false
        }
    }))
}

fn members(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
}

/// The members of a list in a text, among which others are looked up.
struct Members<'a> {
    text: &'a str,
    /// Only for so many lookups that it pays.
    set: Option<HashSet<&'a str>>,
}

impl<'a> Members<'a> {
    /// Prepares lookups of the members of `others` in the list `text`.
    fn new(text: &'a str, others: &str) -> Self {
        let many = members(others).nth(8).is_some() && members(text).nth(8).is_some();
        Self {
            text,
            set: many.then(|| members(text).collect()),
        }
    }

    fn contain(&self, member: &str) -> bool {
        match &self.set {
            Some(set) => set.contains(member),
            None => members(self.text).any(|other| other == member),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_members_are_found_as_few_are() {
        let few = Members::new("a,b,", "x");
        let text = "a,b,c,d,e,f,g,h,i,";
        let many = Members::new(text, text);
        assert!(few.set.is_none() && many.set.is_some());
        for members in [few, many] {
            assert!(members.contain("a") && members.contain("") && !members.contain("x"));
        }
    }
}
