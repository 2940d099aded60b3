//! Documents and their groups.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::compile::{self, Compiler};
use crate::context::Context;
use crate::environment::{Environment, Names};
use crate::error::{EvaluationError, Problem, ProblemKind, RulesError};
use crate::evaluate;
use crate::tree::Rule;

/// The groups of a document, loaded and resolved.
#[derive(Debug, Clone)]
pub struct Rules {
    /// All entries of the document. Those that are not groups say why.
    entries: BTreeMap<String, Result<Group, RulesError>>,
    warnings: Vec<Problem>,
}

impl Rules {
    /// Loads a document in an environment without variables and objects of an application:
    /// [`Environment::parse`] loads one with them.
    ///
    /// # Errors
    ///
    /// Fails if the text is not one JSON object.
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        Environment::new().parse(text)
    }

    fn load(text: &str, names: &Arc<Names>, strict: bool) -> Result<Self, RulesError> {
        let document = |message| RulesError::new(ProblemKind::Document, "", message);
        let json: Json = serde_json::from_str(text)
            .map_err(|error| document(format!("the rules are not JSON: {error}")))?;
        let entries = match json {
            Json::Object(entries) => entries,
            Json::Null => serde_json::Map::new(),
            other => {
                let kind = compile::kind(&other);
                return Err(document(format!(
                    "rules are an object of groups, not {kind}"
                )));
            }
        };
        let mut rules = Self {
            entries: BTreeMap::new(),
            warnings: Vec::new(),
        };
        for (name, json) in entries {
            let place = format!("/{}", compile::escaped(&name));
            let mut compiler = Compiler::new(names);
            let group = compiler.group(&json, &place);
            rules.warnings.append(&mut compiler.problems);
            if let Err(error) = &group
                && compile::is_meant_as_group(&json)
            {
                rules.warnings.extend_from_slice(error.problems());
            }
            let group = group.map(|rules| {
                let names = names.clone();
                Group(Arc::new(Compiled {
                    place,
                    names,
                    rules,
                }))
            });
            rules.entries.insert(name, group);
        }
        if strict && let Some(error) = RulesError::of(std::mem::take(&mut rules.warnings)) {
            return Err(error);
        }
        Ok(rules)
    }

    /// Returns the group with this name. A name is compared exactly.
    ///
    /// # Errors
    ///
    /// Fails if there is no such entry, or if it is not a well-formed group; the error names the
    /// first member with a wrong shape. Applications should therefore ask for the group when they
    /// load the rules.
    pub fn group(&self, name: &str) -> Result<&Group, RulesError> {
        match self.entries.get(name) {
            Some(Ok(group)) => Ok(group),
            Some(Err(error)) => Err(error.clone()),
            None => {
                let place = format!("/{}", compile::escaped(name));
                let message = "there is no group with this name".to_owned();
                Err(RulesError::new(ProblemKind::Missing, place, message))
            }
        }
    }

    /// Returns the names of the well-formed groups, in the order of their bytes.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        let entries = self.entries.iter();
        entries
            .filter(|(_, group)| group.is_ok())
            .map(|(name, _)| name.as_str())
    }

    /// Returns what was accepted although it has no effect, never holds or ends the evaluation, in
    /// the order of the groups' names.
    ///
    /// Malformed groups are among them. An entry counts as one if it is a list with a list in it;
    /// other entries are values of the application, which are ignored.
    #[must_use]
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }
}

impl Environment {
    /// Loads a document of rules: parses it and resolves the names, operators, pipelines and macros
    /// of its groups.
    ///
    /// # Errors
    ///
    /// Fails if the text is not one JSON object, and in the [strict mode](Self::strict) if there
    /// are [warnings](Rules::warnings). A missing or malformed group is an error of
    /// [`Rules::group`] in both modes.
    pub fn parse(&self, text: &str) -> Result<Rules, RulesError> {
        Rules::load(text, &self.names, self.strict)
    }
}

/// A group: a list of rules that are evaluated together.
///
/// Clones share the rules.
#[derive(Clone)]
pub struct Group(Arc<Compiled>);

struct Compiled {
    place: String,
    names: Arc<Names>,
    rules: Vec<Rule>,
}

impl Group {
    /// Evaluates the rules in order: each rule whose conditions hold performs its assignments.
    ///
    /// Use a new context for each evaluation: a value of `$break` in it ends the evaluation after
    /// the first rule, and a value of `$rand` is kept.
    ///
    /// # Errors
    ///
    /// Fails if an assignment fails, if a text would be longer than
    /// [`MAX_RESULT_BYTES`](crate::MAX_RESULT_BYTES), if operators would read and write more than
    /// [`MAX_WORK_BYTES`](crate::MAX_WORK_BYTES), or if the context belongs to an environment with
    /// other names. What was assigned before stays assigned. A condition that fails is never an
    /// error: its rule is skipped.
    pub fn evaluate(&self, context: &mut Context<'_>) -> Result<(), EvaluationError> {
        let Compiled {
            place,
            names,
            rules,
        } = &*self.0;
        let result = evaluate::run(rules, names, context);
        result.map_err(|(path, kind)| EvaluationError {
            place: format!("{place}{path}"),
            kind,
        })
    }

    /// Returns the number of rules.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.rules.len()
    }

    /// Returns `true` if there are no rules.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.rules.is_empty()
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Compiled { place, rules, .. } = &*self.0;
        f.debug_struct("Group")
            .field("place", place)
            .field("rules", rules)
            .finish()
    }
}
