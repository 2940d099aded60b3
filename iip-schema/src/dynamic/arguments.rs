//! The arguments of a method, which have names in some formats and only positions in others.

use serde::de::{DeserializeSeed, Deserializer, Error as _};
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::Value;

use super::context::{Context, Form, Record, found};
use super::error::{DynamicError, Path};
use super::node::Node;
use super::{MAX_WRAPPERS, Options, read, write};
use crate::description::Method;
use crate::types::{Field, Type, Types};

/// The arguments of a method as JSON: an object with their names, or the bare value of the only
/// one, unless that is an object whose only key is the name of the argument, or the empty object for
/// an `Option`, which is then `None`. Without arguments it is `null` or `{}`.
///
/// They are serialized as a tuple where fields have only positions, and else as an object.
///
/// # Errors
///
/// Those of [`DynamicValue`](super::DynamicValue). An argument may be missing if it is an `Option`.
#[derive(Debug, Clone, Copy)]
pub struct MethodArguments<'a> {
    method: &'a Method,
    types: &'a Types,
    value: &'a Value,
    options: Options,
}

impl<'a> MethodArguments<'a> {
    /// The arguments of `method` in `value`.
    #[must_use]
    pub const fn new(
        method: &'a Method,
        types: &'a Types,
        value: &'a Value,
        options: Options,
    ) -> Self {
        Self {
            method,
            types,
            value,
            options,
        }
    }

    /// Checks the arguments against their types, for a format that is human-readable or is not.
    ///
    /// # Errors
    ///
    /// They do not fit, or exceed a limit.
    pub fn check(&self, human_readable: bool) -> Result<(), DynamicError> {
        let fields = fields(self.method);
        self.node(human_readable, &fields).map(drop)
    }

    fn node<'n>(
        &'n self,
        human_readable: bool,
        fields: &'n [Field],
    ) -> Result<Node<'n>, DynamicError> {
        let context = &Context::new(self.types, self.options, human_readable);
        let (path, record) = (&Path::ROOT, record(self.method, fields));
        let mut object = match (fields, self.value) {
            ([only], value) if is_bare(context, only, value) => [(&*only.name, value)].into(),
            (_, Value::Object(_)) => write::object(context, record.name, self.value, path)?,
            ([], Value::Null) => write::Object::new(),
            (_, other) => {
                return Err(path.error(format_args!(
                    "expected an object with the names of the arguments, found {}",
                    found(other)
                )));
            }
        };
        let node = write::whole(context, record, &mut object, path)?;
        write::closed(context, record, &object, path)?;
        Ok(node)
    }
}

impl Serialize for MethodArguments<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = fields(self.method);
        let node = self.node(serializer.is_human_readable(), &fields);
        node.map_err(S::Error::custom)?.serialize(serializer)
    }
}

/// Reads the arguments of a method as an object with their names. The bare value of the only one
/// is read from human-readable formats as well.
///
/// # Errors
///
/// Those of [`DynamicSeed`](super::DynamicSeed).
#[derive(Debug, Clone, Copy)]
pub struct ArgumentsSeed<'a> {
    method: &'a Method,
    types: &'a Types,
    options: Options,
}

impl<'a> ArgumentsSeed<'a> {
    /// Reads the arguments of `method`.
    #[must_use]
    pub const fn new(method: &'a Method, types: &'a Types, options: Options) -> Self {
        Self {
            method,
            types,
            options,
        }
    }
}

impl<'de> DeserializeSeed<'de> for ArgumentsSeed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let readable = deserializer.is_human_readable();
        let fields = fields(self.method);
        let context = &Context::new(self.types, self.options, readable);
        let record = record(self.method, &fields);
        if !readable || context.positional() {
            return read::fields(context, record, deserializer);
        }
        // A bare value is told from an object with names by what is in it.
        let content = read::buffer(context, deserializer)?;
        let kind = content.outline();
        let read = match &*fields {
            [only] if is_bare(context, only, &kind) => read::one(context, only, &content),
            _ => read::fields(context, record, content.or_empty().reader(readable)),
        };
        read.map_err(|error: serde::de::value::Error| D::Error::custom(error))
    }
}

fn fields(method: &Method) -> Vec<Field> {
    let fields = method.args.iter();
    fields
        .map(|argument| Field::new(&*argument.name, argument.ty.clone()))
        .collect()
}

fn record<'n>(method: &'n Method, fields: &'n [Field]) -> Record<'n> {
    Record {
        name: &method.name,
        what: "argument",
        fields,
        deny_unknown: false,
    }
}

/// Returns `true` if `value` is the only argument itself, not an object with its name.
fn is_bare<'t>(context: &Context<'t>, only: &'t Field, value: &Value) -> bool {
    let Value::Object(object) = value else {
        return true;
    };
    if object.len() == 1 && object.contains_key(&only.name) {
        return false;
    }
    if object.is_empty() && only.is_optional() {
        return false;
    }
    let mut ty = &only.ty;
    // As deep as types may be nested.
    for _ in 0..MAX_WRAPPERS {
        match context.form(ty, &Path::ROOT) {
            Ok(Form::Newtype(of)) => ty = of,
            Ok(Form::Plain(Type::Option(of))) => ty = of,
            Ok(Form::Pair { compact, .. }) => ty = compact,
            Ok(Form::Struct(_) | Form::Enum(..)) => return true,
            Ok(Form::Plain(Type::Map(..) | Type::Any | Type::Opaque { .. })) => return true,
            _ => return false,
        }
    }
    false
}
