//! Evaluation of a group, and assignments.

use std::sync::Arc;

use crate::compare;
use crate::context::{Context, Machine, Scope, fits};
use crate::environment::Names;
use crate::error::EvaluationErrorKind;
use crate::number;
use crate::tree::{Assignment, AssignmentOperator, Rule};
use crate::value::Value;

/// The path of the failed member within its group, and the reason.
type Failure = (String, EvaluationErrorKind);

pub(crate) fn run(
    rules: &[Rule],
    names: &Arc<Names>,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    let Context { scope, machine } = context;
    if !Arc::ptr_eq(names, &scope.names) && **names != *scope.names {
        return Err((String::new(), EvaluationErrorKind::OtherEnvironment));
    }
    scope.draw(machine);
    for (index, rule) in rules.iter().enumerate() {
        rule_of(rule, scope, machine).map_err(|(path, kind)| (format!("/{index}{path}"), kind))?;
        if scope.is_broken(machine) {
            break;
        }
    }
    Ok(())
}

fn rule_of(rule: &Rule, scope: &mut Scope<'_>, machine: &mut Machine) -> Result<(), Failure> {
    for (index, condition) in rule.conditions.iter().enumerate() {
        let holds = compare::holds(condition, scope, machine);
        if !holds.map_err(|kind| (format!("/{index}"), kind))? {
            return Ok(());
        }
    }
    for (index, assignment) in rule.assignments.iter().enumerate() {
        assign(assignment, scope, machine).map_err(|kind| {
            let action = rule.conditions.len();
            let path = if rule.single {
                format!("/{action}")
            } else {
                format!("/{action}/{index}")
            };
            (path, kind)
        })?;
        if scope.is_broken(machine) {
            break;
        }
    }
    Ok(())
}

fn assign(
    assignment: &Assignment,
    scope: &mut Scope<'_>,
    machine: &mut Machine,
) -> Result<(), EvaluationErrorKind> {
    let value = match &assignment.operator {
        AssignmentOperator::Set => scope.operand(&assignment.right, machine)?.into_owned(),
        AssignmentOperator::Unknown(operator) => {
            return Err(EvaluationErrorKind::UnknownOperator(operator.to_string()));
        }
        operator => {
            let old = scope.evaluate(&assignment.old, machine)?;
            let right = scope.operand(&assignment.right, machine)?;
            match operator {
                AssignmentOperator::Subtract => subtract(&old, &right, machine)?,
                AssignmentOperator::Multiply => multiply(&old, &right, machine)?,
                AssignmentOperator::Divide => divide(&old, &right, machine)?,
                AssignmentOperator::Remainder => remainder(&old, &right, machine)?,
                _ => add(&old, &right, machine)?,
            }
        }
    };
    scope.store(&assignment.target, value, machine)
}

/// The type in which `+=` and `*=` compute: that of the old value, or else that of the right side.
enum Computed {
    Text,
    Integer,
    Float,
}

fn computed(
    old: &Value,
    right: &Value,
    operator: &'static str,
) -> Result<Computed, EvaluationErrorKind> {
    let typed = match old {
        Value::Null | Value::Boolean(_) | Value::Object(_) => right,
        old => old,
    };
    match typed {
        Value::Text(_) => Ok(Computed::Text),
        Value::Integer(_) | Value::Unsigned(_) => Ok(Computed::Integer),
        Value::Float(_) => Ok(Computed::Float),
        other => Err(refused(operator, other)),
    }
}

fn refused(operator: &'static str, operand: &Value) -> EvaluationErrorKind {
    EvaluationErrorKind::Operand {
        operator,
        operand: operand.kind(),
    }
}

/// Converts to an integer; a value without one counts as 0.
fn integer(value: &Value, machine: &mut Machine) -> Result<i64, EvaluationErrorKind> {
    Ok(machine.integer(value)?.unwrap_or(0))
}

/// Converts to a float; a value without one counts as 0.
fn float(value: &Value, machine: &mut Machine) -> Result<f64, EvaluationErrorKind> {
    Ok(machine.float(value)?.unwrap_or(0.0))
}

fn add(old: &Value, right: &Value, machine: &mut Machine) -> Result<Value, EvaluationErrorKind> {
    Ok(match computed(old, right, "+=")? {
        Computed::Text => {
            let old = machine.text(old)?.unwrap_or_default();
            let right = machine.text(right)?.unwrap_or_default();
            fits(old.len() + right.len())?;
            Value::from([&*old, &*right].concat())
        }
        Computed::Integer => {
            Value::Integer(integer(old, machine)?.wrapping_add(integer(right, machine)?))
        }
        Computed::Float => Value::Float(float(old, machine)? + float(right, machine)?),
    })
}

fn subtract(
    old: &Value,
    right: &Value,
    machine: &mut Machine,
) -> Result<Value, EvaluationErrorKind> {
    match right {
        Value::Float(right) => Ok(Value::Float(float(old, machine)? - right)),
        Value::Integer(_) | Value::Unsigned(_) => {
            let right = integer(right, machine)?;
            Ok(Value::Integer(integer(old, machine)?.wrapping_sub(right)))
        }
        other => Err(refused("-=", other)),
    }
}

fn multiply(
    old: &Value,
    right: &Value,
    machine: &mut Machine,
) -> Result<Value, EvaluationErrorKind> {
    Ok(match computed(old, right, "*=")? {
        Computed::Text => {
            let count = match right {
                Value::Integer(count) if *count < 0 => {
                    return Err(EvaluationErrorKind::NegativeCount(*count));
                }
                Value::Integer(count) => count.unsigned_abs(),
                Value::Unsigned(count) => *count,
                other => return Err(refused("*=", other)),
            };
            let text = machine.text(old)?.unwrap_or_default();
            if text.is_empty() {
                return Ok(Value::from(""));
            }
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            let length = text.len().saturating_mul(count);
            fits(length)?;
            machine.charge(length)?;
            Value::from(text.repeat(count))
        }
        Computed::Integer => {
            Value::Integer(integer(old, machine)?.wrapping_mul(integer(right, machine)?))
        }
        Computed::Float => Value::Float(float(old, machine)? * float(right, machine)?),
    })
}

/// Returns `true` for a divisor that `/=` refuses.
pub(crate) fn is_nearly_zero(divisor: f64) -> bool {
    divisor.abs() <= 0.000_01
}

fn divide(old: &Value, right: &Value, machine: &mut Machine) -> Result<Value, EvaluationErrorKind> {
    let divisor = float(right, machine)?;
    if is_nearly_zero(divisor) {
        return Err(EvaluationErrorKind::DivisionByZero);
    }
    Ok(Value::Float(float(old, machine)? / divisor))
}

/// Cuts a float as `%=` does; none counts as 0.
pub(crate) fn cut_float(value: Option<f64>) -> i64 {
    number::cut(value.unwrap_or(0.0))
}

/// Converts an operand of `%=`. Integers are exact; other values are converted to a float and cut.
fn whole(value: &Value, machine: &mut Machine) -> Result<i128, EvaluationErrorKind> {
    Ok(match machine.pick_number(value)? {
        Value::Integer(value) => i128::from(*value),
        Value::Unsigned(value) => i128::from(*value),
        other => i128::from(cut_float(other.as_float())),
    })
}

fn remainder(
    old: &Value,
    right: &Value,
    machine: &mut Machine,
) -> Result<Value, EvaluationErrorKind> {
    let divisor = whole(right, machine)?;
    if divisor == 0 {
        return Err(EvaluationErrorKind::DivisionByZero);
    }
    let remainder = whole(old, machine)? % divisor;
    // One that is too large for a signed integer is the remainder of an unsigned one.
    Ok(match (i64::try_from(remainder), u64::try_from(remainder)) {
        (Ok(remainder), _) => Value::Integer(remainder),
        (_, Ok(remainder)) => Value::Unsigned(remainder),
        _ => Value::Integer(0),
    })
}
