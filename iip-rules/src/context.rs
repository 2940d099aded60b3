//! Contexts: the values of one evaluation.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::environment::{BREAK_SLOT, CLOCK_SLOTS, Environment, Names, RAND_SLOT, Source};
use crate::error::{EvaluationErrorKind, NotRegistered};
use crate::time::LocalTime;
use crate::tree::{Expression, Operand, Piece, Target};
use crate::value::Value;
use crate::{MAX_RESULT_BYTES, MAX_WORK_BYTES};

/// An object whose properties rules read as `$object.property`.
pub trait Object {
    /// Returns the value of a property; [`Value::Null`] if there is none.
    fn get(&self, property: &str) -> Value;

    /// Sets a property to a text, on behalf of an assignment with `=`. It is not called for values
    /// without a text form. By default the text is ignored, as for objects that are only read.
    fn set(&mut self, property: &str, text: Arc<str>) {
        let _ = (property, text);
    }
}

/// The values of one evaluation: variables, objects, the time and the random choices.
///
/// ```
/// use iip_rules::{Context, Environment, LocalTime, Value};
///
/// let environment = Environment::new().variable("$host").variable("$backend");
/// let rules = environment.parse(r#"{"route": [
///     [["$host", "*~", ".example.org"], ["$hour", "between", "08,17"], ["$backend", "=", "day"]]
/// ]}"#)?;
/// let now = LocalTime { year: 2026, month: 2, day: 28, hour: 12, minute: 0, second: 0 };
/// let mut context = Context::new(&environment, now, 42);
/// context.set("$host", "api.example.org")?;
/// rules.group("route")?.evaluate(&mut context)?;
/// assert_eq!(context.get("$backend"), Some(&Value::from("day")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Context<'a> {
    pub(crate) scope: Scope<'a>,
    pub(crate) machine: Machine,
}

impl<'a> Context<'a> {
    /// Creates a context for one evaluation at the time `now`.
    ///
    /// `seed` determines `$rand` and the choices among the members of lists: equal seeds make equal
    /// choices.
    #[must_use]
    pub fn new(environment: &Environment, now: LocalTime, seed: u64) -> Self {
        let names = environment.names.clone();
        let scope = Scope {
            values: vec![None; names.variables.len()],
            objects: names.objects.iter().map(|_| None).collect(),
            others: BTreeMap::new(),
            names,
            now,
        };
        let machine = Machine {
            random: fastrand::Rng::with_seed(seed),
            work: MAX_WORK_BYTES,
        };
        Self { scope, machine }
    }

    /// Sets a registered or predefined variable.
    ///
    /// # Errors
    ///
    /// Fails if the name is not registered in the environment.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) -> Result<(), NotRegistered> {
        let slot = self.scope.names.slot(name);
        let slot = slot.ok_or_else(|| NotRegistered(name.to_owned()))?;
        self.scope.values[slot] = Some(value.into());
        Ok(())
    }

    /// Sets the object behind a registered name. Without one, its properties have no value, and
    /// assignments to them are ignored.
    ///
    /// # Errors
    ///
    /// Fails if the name is not registered in the environment.
    pub fn set_object(
        &mut self,
        name: &str,
        object: &'a mut dyn Object,
    ) -> Result<(), NotRegistered> {
        let number = self.scope.names.object(name);
        let number = number.ok_or_else(|| NotRegistered(name.to_owned()))?;
        self.scope.objects[number] = Some(object);
        Ok(())
    }

    /// Returns the value that the caller or a rule has stored under a name, registered or not. It
    /// is `None` if nothing was stored, also for predefined variables, which are computed.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        match self.scope.names.slot(name) {
            Some(slot) => self.scope.values[slot].as_ref(),
            None => self.scope.others.get(name),
        }
    }

    /// Returns the text form of a stored value; of a list, that of a random member. It is `None` if
    /// nothing was stored, and for booleans and objects, which have no text form. That of
    /// [`Value::Null`] is empty.
    #[must_use]
    pub fn text(&mut self, name: &str) -> Option<Arc<str>> {
        let value = self.get(name)?.clone();
        self.machine.pick(&value).shared_text()
    }

    /// Returns the stored values with their names: registered variables first, then names that are
    /// not registered and that rules have assigned to.
    pub fn values(&self) -> impl Iterator<Item = (&str, &Value)> {
        let Scope {
            names,
            values,
            others,
            ..
        } = &self.scope;
        let named = names.variables.iter().zip(values);
        let named = named.filter_map(|(name, value)| Some((&**name, value.as_ref()?)));
        named.chain(others.iter().map(|(name, value)| (&**name, value)))
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.values()).finish()
    }
}

/// The variables and objects that rules read.
pub(crate) struct Scope<'a> {
    pub(crate) names: Arc<Names>,
    values: Vec<Option<Value>>,
    objects: Vec<Option<&'a mut dyn Object>>,
    /// Values under names that are not registered.
    others: BTreeMap<Arc<str>, Value>,
    now: LocalTime,
}

static NULL: Value = Value::Null;

impl Scope<'_> {
    fn read(&self, source: &Source) -> Cow<'_, Value> {
        match source {
            Source::Slot(slot) => match &self.values[*slot] {
                Some(value) => Cow::Borrowed(value),
                None if *slot < CLOCK_SLOTS => Cow::Owned(clock(*slot, self.now)),
                None => Cow::Borrowed(&NULL),
            },
            Source::Property { object, property } => match &self.objects[*object] {
                Some(object) => Cow::Owned(object.get(property)),
                None => Cow::Borrowed(&NULL),
            },
        }
    }

    pub(crate) fn evaluate(
        &self,
        expression: &Expression,
        machine: &mut Machine,
    ) -> Result<Cow<'_, Value>, EvaluationErrorKind> {
        let Expression::Read { source, pipeline } = expression else {
            return Ok(Cow::Borrowed(&NULL));
        };
        let mut value = self.read(source);
        for function in pipeline {
            let Some(text) = machine.text(&value)? else {
                return Ok(Cow::Borrowed(&NULL));
            };
            let result = function.apply(&text);
            if let Value::Text(text) = &result {
                fits(text.len())?;
            }
            value = Cow::Owned(result);
        }
        Ok(value)
    }

    /// Replaces the macros of a text.
    pub(crate) fn expand(
        &self,
        pieces: &[Piece],
        machine: &mut Machine,
    ) -> Result<Value, EvaluationErrorKind> {
        let mut out = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => push(&mut out, text)?,
                Piece::Macro(source, written) => {
                    let value = self.read(source);
                    let text = machine.text(&value)?;
                    push(&mut out, text.as_deref().unwrap_or(written))?;
                }
            }
        }
        machine.charge(out.len())?;
        Ok(Value::from(out))
    }

    /// Returns the value of an operand that is stored as it is.
    pub(crate) fn operand<'s>(
        &'s self,
        operand: &'s Operand,
        machine: &mut Machine,
    ) -> Result<Cow<'s, Value>, EvaluationErrorKind> {
        match operand {
            Operand::Literal(literal) => Ok(Cow::Borrowed(&literal.value)),
            Operand::Expression(expression) => self.evaluate(expression, machine),
            Operand::Template(pieces) => self.expand(pieces, machine).map(Cow::Owned),
        }
    }

    pub(crate) fn store(
        &mut self,
        target: &Target,
        value: Value,
        machine: &mut Machine,
    ) -> Result<(), EvaluationErrorKind> {
        match target {
            Target::Slot(slot) => self.values[*slot] = Some(value),
            Target::Other(name) => {
                self.others.insert(name.clone(), value);
            }
            Target::Property { object, property } => {
                if let Some(object) = &mut self.objects[*object]
                    && let Some(text) = machine.text(&value)?
                {
                    object.set(property, Arc::from(text));
                }
            }
        }
        Ok(())
    }

    /// Draws `$rand` if it has no value.
    pub(crate) fn draw(&mut self, machine: &mut Machine) {
        let random = &mut machine.random;
        self.values[RAND_SLOT].get_or_insert_with(|| Value::Integer(random.i64(1..=100)));
    }

    /// Returns `true` if `$break` is 1.
    pub(crate) fn is_broken(&self, machine: &mut Machine) -> bool {
        match &self.values[BREAK_SLOT] {
            None => false,
            Some(value) => machine.pick(value).as_integer() == Some(1),
        }
    }
}

/// The random choices of an evaluation, and the work that it may still do.
pub(crate) struct Machine {
    random: fastrand::Rng,
    work: usize,
}

impl Machine {
    /// Counts bytes that an operator reads or writes.
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<(), EvaluationErrorKind> {
        self.work = self
            .work
            .checked_sub(bytes)
            .ok_or(EvaluationErrorKind::WorkTooLarge)?;
        Ok(())
    }

    /// Chooses among the members of a list, and of a list that was chosen. An empty list has no
    /// value.
    pub(crate) fn pick<'v>(&mut self, value: &'v Value) -> &'v Value {
        let mut value = value;
        while let Value::List(members) = value {
            value = self.random.choice(members.iter()).unwrap_or(&NULL);
        }
        value
    }

    /// Converts a value to text.
    pub(crate) fn text<'v>(
        &mut self,
        value: &'v Value,
    ) -> Result<Option<Cow<'v, str>>, EvaluationErrorKind> {
        let text = self.pick(value).as_text();
        self.charge(text.as_ref().map_or(0, |text| text.len()))?;
        Ok(text)
    }

    /// Converts a value to an integer.
    pub(crate) fn integer(&mut self, value: &Value) -> Result<Option<i64>, EvaluationErrorKind> {
        Ok(self.pick_number(value)?.as_integer())
    }

    /// Converts a value to a float.
    pub(crate) fn float(&mut self, value: &Value) -> Result<Option<f64>, EvaluationErrorKind> {
        Ok(self.pick_number(value)?.as_float())
    }

    /// Chooses as [`Self::pick`] does, and counts the bytes of a text that is read as a number.
    pub(crate) fn pick_number<'v>(
        &mut self,
        value: &'v Value,
    ) -> Result<&'v Value, EvaluationErrorKind> {
        let value = self.pick(value);
        if let Value::Text(text) = value {
            self.charge(text.len())?;
        }
        Ok(value)
    }
}

/// Checks the length of a text that an operator makes.
pub(crate) fn fits(length: usize) -> Result<(), EvaluationErrorKind> {
    if length > MAX_RESULT_BYTES {
        return Err(EvaluationErrorKind::ResultTooLarge);
    }
    Ok(())
}

fn push(out: &mut String, text: &str) -> Result<(), EvaluationErrorKind> {
    fits(out.len() + text.len())?;
    out.push_str(text);
    Ok(())
}

/// The value of a predefined variable of time.
fn clock(slot: usize, now: LocalTime) -> Value {
    let LocalTime {
        year,
        month,
        day,
        hour,
        minute,
        second,
    } = now;
    let two = |part: u8| Value::from(format!("{part:02}"));
    match slot {
        0 => Value::from(format!(
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"
        )),
        1 => Value::from(format!("{year:04}-{month:02}-{day:02}")),
        2 => Value::from(format!("{hour:02}:{minute:02}:{second:02}")),
        3 => Value::from(format!("{hour:02}:{minute:02}")),
        4 => Value::from(format!("{year:04}")),
        5 => two(month),
        6 => two(day),
        7 => two(hour),
        8 => two(minute),
        9 => two(second),
        10 => Value::Integer(i64::from(year)),
        11 => Value::Integer(i64::from(month)),
        12 => Value::Integer(i64::from(day)),
        13 => Value::Integer(i64::from(hour)),
        14 => Value::Integer(i64::from(minute)),
        15 => Value::Integer(i64::from(second)),
        _ => Value::Null,
    }
}
