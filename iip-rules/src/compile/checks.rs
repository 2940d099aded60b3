//! Warnings about operands with which an operator never works.

use super::Compiler;
use crate::error::ProblemKind;
use crate::evaluate::{cut_float, is_nearly_zero};
use crate::tree::{AssignmentOperator, Comparison, Literal, Operand, Test};
use crate::value::Value;

impl Compiler<'_> {
    pub(super) fn check_comparison(
        &mut self,
        comparison: Comparison,
        operator: &str,
        right: &Operand,
        place: String,
    ) {
        let Operand::Literal(Literal { value, bounds, .. }) = right else {
            return;
        };
        let wrong = match value {
            Value::Boolean(_) | Value::Object(_) => "texts, numbers, null and lists",
            // A member of a list may be a text with two bounds.
            Value::List(_) => return,
            _ if comparison.test == Test::Between && bounds.is_none() => {
                "texts with two bounds and one comma between them"
            }
            _ => return,
        };
        let found = value.kind();
        let message = format!(
            "{operator} does not accept {found} like this: the condition never holds; accepted are \
             {wrong}"
        );
        self.warn(ProblemKind::Operand, place, message);
    }

    pub(super) fn check_assignment(
        &mut self,
        operator: &AssignmentOperator,
        written: &str,
        right: &Operand,
        place: String,
    ) {
        let literal = match right {
            Operand::Literal(literal) => literal,
            Operand::Template(_) if *operator == AssignmentOperator::Subtract => {
                let message = "-= does not accept a text: the evaluation fails here; accepted are \
                               numbers and variables";
                return self.warn(ProblemKind::Operand, place, message.to_owned());
            }
            _ => return,
        };
        let (effect, accepted) = match (operator, &literal.value) {
            (AssignmentOperator::Set | AssignmentOperator::Unknown(_), _) => return,
            (AssignmentOperator::Subtract, Value::Float(_)) => return,
            (AssignmentOperator::Subtract, _) => ("the evaluation fails here", "numbers"),
            (AssignmentOperator::Divide | AssignmentOperator::Remainder, Value::List(_)) => return,
            (AssignmentOperator::Divide, _)
                if is_nearly_zero(literal.float.unwrap_or_default()) =>
            {
                ("the evaluation fails here", "numbers other than zero")
            }
            (AssignmentOperator::Remainder, _) if cut_float(literal.float) == 0 => (
                "the evaluation fails here",
                "numbers whose integer part is not zero",
            ),
            (_, Value::Boolean(_) | Value::Object(_)) => {
                ("it counts as no value", "texts, numbers and lists")
            }
            _ => return,
        };
        let found = literal.value.kind();
        let message = format!(
            "{written} does not accept {found} like this: {effect}; accepted are {accepted}"
        );
        self.warn(ProblemKind::Operand, place, message);
    }
}
