//! From JSON to compiled rules. Problems with the shape of a group are errors, others warnings.

mod checks;
mod templates;

use serde_json::Value as Json;

use crate::environment::{Names, Source};
use crate::error::{Problem, ProblemKind, RulesError};
use crate::function::{self, Function};
use crate::tree::{
    ASSIGNMENTS, Assignment, AssignmentOperator, COMPARISONS, Comparison, Condition, Expression,
    Literal, Operand, Rule, Target,
};
use crate::value::Value;

/// The parts of a condition or an assignment.
struct Triple<'j> {
    variable: &'j str,
    operator: &'j str,
    operand: &'j Json,
}

/// The part of an expression that does not exist.
enum Unknown<'t> {
    Variable(&'t str),
    Function(&'t str),
}

pub(crate) struct Compiler<'n> {
    names: &'n Names,
    /// The warnings so far.
    pub(crate) problems: Vec<Problem>,
}

impl<'n> Compiler<'n> {
    pub(crate) fn new(names: &'n Names) -> Self {
        Self {
            names,
            problems: Vec::new(),
        }
    }

    fn warn(&mut self, kind: ProblemKind, place: String, message: String) {
        self.problems.push(Problem {
            kind,
            place,
            message,
        });
    }

    pub(crate) fn group(&mut self, json: &Json, place: &str) -> Result<Vec<Rule>, RulesError> {
        let rules = list(json, place, "a group is a list of rules")?;
        let mut compiled = Vec::with_capacity(rules.len());
        for (index, rule) in rules.iter().enumerate() {
            let place = format!("{place}/{index}");
            let members = list(rule, &place, "a rule is a list of conditions and an action")?;
            compiled.push(self.rule(members, &place)?);
        }
        Ok(compiled)
    }

    fn rule(&mut self, members: &[Json], place: &str) -> Result<Rule, RulesError> {
        let mut rule = Rule {
            conditions: Vec::new(),
            assignments: Vec::new(),
            single: false,
        };
        let Some((action, conditions)) = members.split_last() else {
            return Ok(rule);
        };
        for (index, condition) in conditions.iter().enumerate() {
            let condition = self.condition(condition, &format!("{place}/{index}"))?;
            rule.conditions.push(condition);
        }
        let place = format!("{place}/{}", conditions.len());
        let what = "an assignment is a list of a variable, an operator and an operand";
        let members = list(action, &place, what)?;
        // Three texts are one assignment. With a list among them, several are meant, and the error
        // names the member that is none.
        rule.single =
            !members.iter().all(is_triple) && !members.first().is_some_and(Json::is_array);
        if rule.single {
            rule.assignments.push(self.assignment(action, &place)?);
            return Ok(rule);
        }
        for (index, member) in members.iter().enumerate() {
            let assignment = self.assignment(member, &format!("{place}/{index}"))?;
            rule.assignments.push(assignment);
        }
        Ok(rule)
    }

    fn condition(&mut self, json: &Json, place: &str) -> Result<Condition, RulesError> {
        let triple = triple(json, place, "a condition")?;
        let comparison = Comparison::named(triple.operator);
        if comparison.is_none() {
            let operator = quoted(triple.operator);
            let message = format!(
                "unknown comparison operator {operator}: the condition never holds; accepted are \
                 {COMPARISONS}"
            );
            self.warn(ProblemKind::Operator, format!("{place}/1"), message);
        }
        let left = self.expression(triple.variable, &format!("{place}/0"));
        let right_place = format!("{place}/2");
        let right = self.operand(triple.operand, &right_place)?;
        if let Some(comparison) = comparison {
            self.check_comparison(comparison, triple.operator, &right, right_place);
        }
        Ok(Condition {
            left,
            comparison,
            right,
        })
    }

    fn assignment(&mut self, json: &Json, place: &str) -> Result<Assignment, RulesError> {
        let triple = triple(json, place, "an assignment")?;
        let operator = AssignmentOperator::named(triple.operator);
        if let AssignmentOperator::Unknown(_) = operator {
            let quoted = quoted(triple.operator);
            let last = match Comparison::named(triple.operator) {
                Some(_) => "the last member of a rule is an assignment; ",
                None => "",
            };
            let message = format!(
                "unknown assignment operator {quoted}: the evaluation fails here; {last}accepted \
                 are {ASSIGNMENTS}"
            );
            self.warn(ProblemKind::Operator, format!("{place}/1"), message);
        }
        let target = self.target(triple.variable, &operator, format!("{place}/0"));
        // What is wrong with the name was said about the target.
        let old = self.resolve(triple.variable).unwrap_or(Expression::Absent);
        let right_place = format!("{place}/2");
        let right = self.operand(triple.operand, &right_place)?;
        self.check_assignment(&operator, triple.operator, &right, right_place);
        Ok(Assignment {
            old,
            target,
            operator,
            right,
        })
    }

    fn target(&mut self, name: &str, operator: &AssignmentOperator, place: String) -> Target {
        let property = if name.contains('|') {
            None
        } else {
            self.names.property(name)
        };
        let sets = *operator == AssignmentOperator::Set;
        if sets && let Some(Source::Property { object, property }) = property {
            return Target::Property { object, property };
        }
        if let Some(slot) = self.names.slot(name) {
            return Target::Slot(slot);
        }
        let (kind, message) = if property.is_some() {
            let message = "only = assigns to a property: rules cannot read the result";
            (ProblemKind::Operator, message.to_owned())
        } else if name.contains('|') {
            let message = "a pipeline cannot be assigned to: rules cannot read the result";
            (ProblemKind::Function, message.to_owned())
        } else {
            let (name, registered) = (quoted(name), self.names.registered());
            let message = format!(
                "{name} is not registered: rules cannot read the result; registered are \
                 {registered}"
            );
            (ProblemKind::Variable, message)
        };
        self.warn(kind, place, message);
        Target::Other(name.into())
    }

    /// Compiles a variable with its pipeline. What does not exist is a warning.
    fn expression(&mut self, text: &str, place: &str) -> Expression {
        match self.resolve(text) {
            Ok(expression) => expression,
            Err(Unknown::Variable(name)) => {
                let (name, registered) = (quoted(name), self.names.registered());
                let message = format!(
                    "unknown variable {name}: it has no value; registered are {registered}"
                );
                self.warn(ProblemKind::Variable, place.to_owned(), message);
                Expression::Absent
            }
            Err(Unknown::Function(name)) => {
                let (name, accepted) = (quoted(name), function::NAMES);
                let message = format!(
                    "unknown function {name}: the result has no value; accepted are {accepted}"
                );
                self.warn(ProblemKind::Function, place.to_owned(), message);
                Expression::Absent
            }
        }
    }

    fn resolve<'t>(&self, text: &'t str) -> Result<Expression, Unknown<'t>> {
        let mut parts = text.split('|');
        let name = parts.next().unwrap_or_default();
        let source = self.names.source(name).ok_or(Unknown::Variable(name))?;
        let pipeline = parts.map(|part| Function::named(part).ok_or(Unknown::Function(part)));
        Ok(Expression::Read {
            source,
            pipeline: pipeline.collect::<Result<_, _>>()?,
        })
    }

    fn operand(&mut self, json: &Json, place: &str) -> Result<Operand, RulesError> {
        match json {
            Json::String(text) if is_variable(text) => {
                Ok(Operand::Expression(self.expression(text, place)))
            }
            Json::String(text) => Ok(self.text(text, place)),
            json => {
                let value = Value::from_json(json).ok_or_else(|| {
                    let message = "a number is beyond the range of a 64-bit float".to_owned();
                    RulesError::new(ProblemKind::Shape, place, message)
                })?;
                Ok(Operand::Literal(Literal::new(value)))
            }
        }
    }
}

/// Returns `true` for an entry that has the beginnings of a group.
pub(crate) fn is_meant_as_group(json: &Json) -> bool {
    json.as_array()
        .is_some_and(|rules| rules.iter().any(Json::is_array))
}

fn is_triple(json: &Json) -> bool {
    json.as_array().is_some_and(|members| members.len() == 3)
}

fn is_variable(text: &str) -> bool {
    text.len() >= 2 && text.starts_with('$')
}

fn shape(place: &str, message: String) -> RulesError {
    RulesError::new(ProblemKind::Shape, place, message)
}

fn list<'j>(json: &'j Json, place: &str, what: &str) -> Result<&'j [Json], RulesError> {
    match json {
        Json::Array(members) => Ok(members),
        other => Err(shape(place, format!("{what}, not {}", kind(other)))),
    }
}

fn triple<'j>(json: &'j Json, place: &str, what: &str) -> Result<Triple<'j>, RulesError> {
    let consists = format!("{what} is a list of a variable, an operator and an operand");
    let [variable, operator, operand] = list(json, place, &consists)? else {
        let length = json.as_array().map_or(0, Vec::len);
        return Err(shape(place, format!("{consists}, not of {length} members")));
    };
    let variable = match variable {
        Json::String(name) if is_variable(name) => name,
        other => {
            let found = match other {
                Json::String(name) => quoted(name),
                other => kind(other).to_owned(),
            };
            let message = format!("{what} begins with a variable, such as \"$name\", not {found}");
            return Err(shape(&format!("{place}/0"), message));
        }
    };
    let Json::String(operator) = operator else {
        let message = format!("an operator is a text, not {}", kind(operator));
        return Err(shape(&format!("{place}/1"), message));
    };
    Ok(Triple {
        variable,
        operator,
        operand,
    })
}

/// The name of the type of a JSON value in messages.
pub(crate) fn kind(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a text",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}

/// Escapes a name for a JSON pointer.
pub(crate) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Quotes a text of the rules in a message. Long ones are cut.
fn quoted(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{:?}..", &text[..end]),
        None => format!("{text:?}"),
    }
}
