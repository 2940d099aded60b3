//! Values of variables and operands, and the conversions between their types.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::number;

/// The value of a variable, a property or an operand.
///
/// Clones are cheap: texts, lists and objects are shared. Values are converted by the rules of the
/// language, for which there is a [table](crate#values).
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// No value. A variable that was never assigned reads as this too.
    #[default]
    Null,
    /// A text.
    Text(Arc<str>),
    /// A signed integer.
    Integer(i64),
    /// An unsigned integer, the result of `fnv64`. It is compared and added as the signed integer
    /// with the same bits; its text form is unsigned, and so is its remainder.
    Unsigned(u64),
    /// A float, and every number that is written in the rules.
    Float(f64),
    /// A boolean. It can be assigned, and neither compared nor converted.
    Boolean(bool),
    /// A list, which is converted by a random choice of one of its members.
    List(Arc<[Self]>),
    /// A JSON object. It can be assigned, and neither compared nor converted.
    Object(Arc<BTreeMap<String, Self>>),
}

impl Value {
    /// The value of a JSON text in a document.
    pub(crate) fn from_json(json: &serde_json::Value) -> Option<Self> {
        Some(match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Boolean(*value),
            serde_json::Value::Number(number) => {
                Self::Float(number.as_f64().filter(|number| number.is_finite())?)
            }
            serde_json::Value::String(text) => Self::from(text.as_str()),
            serde_json::Value::Array(members) => {
                let members: Option<Vec<Self>> = members.iter().map(Self::from_json).collect();
                Self::List(members?.into())
            }
            serde_json::Value::Object(members) => {
                let convert = |(name, value): (&String, _)| {
                    Self::from_json(value).map(|value| (name.clone(), value))
                };
                let members: Option<BTreeMap<_, _>> = members.iter().map(convert).collect();
                Self::Object(Arc::new(members?))
            }
        })
    }

    /// The text form. Booleans, lists and objects have none here: a member of a list is chosen
    /// before.
    pub(crate) fn as_text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Null => Some(Cow::Borrowed("")),
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Integer(value) => Some(Cow::Owned(value.to_string())),
            Self::Unsigned(value) => Some(Cow::Owned(value.to_string())),
            Self::Float(value) => Some(Cow::Owned(number::float_text(*value))),
            Self::Boolean(_) | Self::List(_) | Self::Object(_) => None,
        }
    }

    /// The text form, which a text shares.
    pub(crate) fn shared_text(&self) -> Option<Arc<str>> {
        match self {
            Self::Text(text) => Some(text.clone()),
            value => value.as_text().map(Arc::from),
        }
    }

    /// The integer form: see [`Self::as_text`] for lists.
    pub(crate) fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Null => Some(0),
            Self::Text(text) => {
                number::integer(text).or_else(|| number::float(text).map(number::cut))
            }
            Self::Integer(value) => Some(*value),
            Self::Unsigned(value) => Some(value.cast_signed()),
            Self::Float(value) => Some(number::cut(*value)),
            Self::Boolean(_) | Self::List(_) | Self::Object(_) => None,
        }
    }

    /// The float form: see [`Self::as_text`] for lists.
    #[allow(clippy::cast_precision_loss, reason = "the nearest float is wanted")]
    pub(crate) fn as_float(&self) -> Option<f64> {
        match self {
            Self::Null => Some(0.0),
            Self::Text(text) => number::float(text),
            Self::Integer(value) => Some(*value as f64),
            Self::Unsigned(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            Self::Boolean(_) | Self::List(_) | Self::Object(_) => None,
        }
    }

    /// The name of the type in messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Text(_) => "a text",
            Self::Integer(_) | Self::Unsigned(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Boolean(_) => "a boolean",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<Arc<str>> for Value {
    fn from(text: Arc<str>) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self::Integer(value.into())
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Integer(value.into())
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Unsigned(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<Vec<Self>> for Value {
    fn from(members: Vec<Self>) -> Self {
        Self::List(members.into())
    }
}
