//! The state that all parts of one value share while it is written or read.

use std::cell::Cell;

use serde_json::Value;

use super::error::{DynamicError, Path, shorten};
use super::{Layout, Options};
use crate::types::{Definition, Enum, Field, Shape, Tagging, Type, Types, Variant};

/// Number of names that are compared at the cost of one value.
const NAMES_PER_VALUE: usize = 64;

/// The cost of a variant that was tried in vain, in values: most of it is the text of its error.
pub(super) const TRIED: usize = 8;

/// The state of one conversion.
pub(super) struct Context<'t> {
    pub(super) types: &'t Types,
    pub(super) options: Options,
    /// The format has the readable form of [`Type::ByFormat`].
    pub(super) readable: bool,
    /// Number of further values.
    values_left: Cell<usize>,
    /// Set while variants without names are tried: only the usual form of a value fits then.
    pub(super) strict: Cell<bool>,
}

/// The form of a type, after names have been looked up.
#[derive(Clone, Copy)]
pub(super) enum Form<'t> {
    /// A type that is neither of the following.
    Plain(&'t Type),
    /// A struct without fields.
    Unit,
    Newtype(&'t Type),
    Tuple(&'t [Type]),
    Struct(Record<'t>),
    Enum(&'t str, &'t Enum),
    /// The two forms of one type, of which the compact one is on the wire.
    Pair {
        readable: &'t Type,
        compact: &'t Type,
    },
}

/// Named fields, of a struct or a variant.
#[derive(Clone, Copy)]
pub(super) struct Record<'t> {
    pub(super) name: &'t str,
    /// The word for a field in errors: `field` or `argument`.
    pub(super) what: &'static str,
    pub(super) fields: &'t [Field],
    pub(super) deny_unknown: bool,
}

impl<'t> Context<'t> {
    pub(super) fn new(types: &'t Types, options: Options, readable: bool) -> Self {
        Self {
            types,
            options,
            readable,
            values_left: Cell::new(options.max_values),
            strict: Cell::new(false),
        }
    }

    pub(super) fn positional(&self) -> bool {
        self.options.layout == Layout::Positional
    }

    /// Counts `values` against the limit.
    pub(super) fn spend(&self, values: usize, path: &Path<'_>) -> Result<(), DynamicError> {
        let Some(left) = self.values_left.get().checked_sub(values) else {
            let limit = self.options.max_values;
            return Err(path.error(format_args!(
                "the value has more than {limit} parts (max_values)"
            )));
        };
        self.values_left.set(left);
        Ok(())
    }

    /// Counts a search among `names` names.
    pub(super) fn search(&self, names: usize, path: &Path<'_>) -> Result<(), DynamicError> {
        self.spend(names / NAMES_PER_VALUE, path)
    }

    /// Looks up the name of a type.
    pub(super) fn form(&self, ty: &'t Type, path: &Path<'_>) -> Result<Form<'t>, DynamicError> {
        let mut ty = ty;
        let name = loop {
            match ty {
                Type::Named(name) => break name,
                Type::ByFormat { readable, .. } if self.readable => ty = readable,
                Type::ByFormat { readable, compact } => {
                    return Ok(Form::Pair { readable, compact });
                }
                other => return Ok(Form::Plain(other)),
            }
        };
        let Some(definition) = self.types.get(name) else {
            return Err(path.error(format_args!(
                "the description has no type `{}`",
                shorten(name)
            )));
        };
        Ok(form_of(name, definition))
    }

    /// Rejects a type that cannot be read from a format without names.
    pub(super) fn named_only(
        &self,
        name: &str,
        why: &str,
        path: &Path<'_>,
    ) -> Result<(), DynamicError> {
        if !self.positional() {
            return Ok(());
        }
        Err(path.error(format_args!(
            "`{}` {why}, so it cannot travel in a codec without field names; choose json or \
             msgpack",
            shorten(name)
        )))
    }

    /// Rejects an enum that cannot be read from a format without names.
    pub(super) fn check_enum(
        &self,
        name: &str,
        shape: &Enum,
        path: &Path<'_>,
    ) -> Result<(), DynamicError> {
        match &shape.tagging {
            Tagging::External => Ok(()),
            Tagging::Untagged => self.named_only(name, "is untagged", path),
            _ => self.named_only(name, "has its variant in a field", path),
        }
    }
}

fn form_of<'t>(name: &'t str, definition: &'t Definition) -> Form<'t> {
    match &definition.shape {
        Shape::Unit => Form::Unit,
        Shape::Newtype(of) => Form::Newtype(of),
        Shape::Tuple(of) => Form::Tuple(of),
        Shape::Struct {
            fields,
            deny_unknown_fields,
        } => Form::Struct(Record {
            name,
            what: "field",
            fields,
            deny_unknown: *deny_unknown_fields,
        }),
        Shape::Enum(shape) => Form::Enum(name, shape),
    }
}

/// The variant that is written or read as `name`.
pub(super) fn variant<'t>(shape: &'t Enum, name: &str) -> Option<&'t Variant> {
    let named = shape.variants.iter().filter(|variant| !variant.untagged);
    let mut named = named
        .clone()
        .filter(|variant| variant.name == name)
        .chain(named.filter(|variant| variant.aliases.iter().any(|alias| alias == name)));
    named.next()
}

/// The names of the variants, for an error.
pub(super) fn variant_names(shape: &Enum) -> Vec<&str> {
    let named = shape.variants.iter().filter(|variant| !variant.untagged);
    named.map(|variant| &*variant.name).collect()
}

/// Describes a JSON value in an error.
pub(super) fn found(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => format!("`{value}`"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text \"{}\"", shorten(text)),
        Value::Array(elements) => format!("a list of {}", elements.len()),
        Value::Object(_) => "an object".to_owned(),
    }
}
