//! Values by description: JSON to any format of serde and back, without the Rust type.
//!
//! [`DynamicValue`] writes a [`serde_json::Value`] as the Rust type that a [`Type`] describes would
//! be written; [`DynamicSeed`] reads a value of such a type as the JSON that `serde_json` gives for
//! the Rust type. [`MethodArguments`] and [`ArgumentsSeed`] do the same for the arguments of a
//! method.
//!
//! ```
//! use iip_schema::dynamic::{DynamicValue, Layout, Options};
//! use iip_schema::{Definition, Field, Shape, Type, Types};
//! use serde_json::json;
//!
//! let mut types = Types::new();
//! let fields = vec![Field::new("x", Type::I32), Field::new("y", Type::option(Type::I32))];
//! types.insert("Point", Definition::new(Shape::Struct { fields, deny_unknown_fields: false }));
//! let ty = Type::Named("Point".to_owned());
//!
//! let (value, options) = (json!({"x": 1}), Options::new(Layout::Named));
//! let point = DynamicValue::new(&ty, &types, &value, options);
//! assert_eq!(serde_json::to_string(&point)?, r#"{"x":1,"y":null}"#);
//!
//! let value = json!({"x": 1, "z": 2});
//! let error = DynamicValue::new(&ty, &types, &value, options).check(true).unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "`Point` has no field `z`; its fields are `x`, `y`"
//! );
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! # The JSON form
//!
//! | type | in JSON |
//! |---|---|
//! | integers of up to 64 bits | a number. A text is accepted for 64 bits |
//! | `u128`, `i128` | a number if it has at most 64 bits, else a text. Both are accepted |
//! | `f32`, `f64` | a number, or the texts `NaN`, `Infinity`, `-Infinity` |
//! | bytes | a list of numbers. A text is accepted, and stands for its UTF-8 |
//! | `Option<Option<T>>`, `Option<()>` | `null` is the outer `None`, as in serde_json. `Some(None)` and `Some(())` are shown as `null` |
//! | maps | an object if the keys are texts, numbers, bools, chars or enums of unit variants; else a list of `[key, value]` pairs. Both are accepted |
//! | two forms, [`Type::ByFormat`] | formats that are not human-readable have the compact form. It is shown as the text if it is a UUID, an IP address or a socket address (bytes with a text are taken for a UUID if they are 16; 4 and 16 numbers in an array for an IPv4 and an IPv6 address). Any other compact form is shown and accepted as its own structure |
//! | [`Type::Any`], [`Type::Opaque`] | the JSON as it is, in formats with names only |
//!
//! # Fields
//!
//! Names that a type does not have are errors, unless [`Options::allow_unknown`] is set. A field
//! that is missing is `None` if it is an `Option`. If it has a default, it is left out in formats
//! with names, and an error in the others, because only the Rust type knows the default. An option
//! that may be skipped is left out of what is read if it is `None`.
//!
//! A value is written for the described type as its reader: with the fields that are only read
//! (`skip_serializing`), without those that are only written. It is read as from its writer.
//! `flatten`, `untagged` and variants in a field are errors in formats without names.
//!
//! # Limits
//!
//! Descriptions and values may come from a peer. Values are nested at most 128 levels deep, with at
//! most 256 nested options and newtypes (a variant that is tried counts as two, a flattened field as
//! eight), and have at most [`Options::max_values`] parts.
//! In formats with names, the content of a variant is one level of the 128.

mod arguments;
mod blank;
mod context;
mod error;
mod forms;
mod keys;
mod node;
mod read;
mod scalars;
mod write;

use serde::de::{DeserializeSeed, Deserializer};
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::Value;

pub use self::arguments::{ArgumentsSeed, MethodArguments};
use self::context::Context;
pub use self::error::DynamicError;
use self::error::Path;
use crate::types::{Shape, Tagging, Type, Types, Variant};

/// Number of levels of a value.
const MAX_LEVELS: u16 = 128;

/// Number of nested options and newtypes.
const MAX_WRAPPERS: u16 = 256;

/// Default of [`Options::max_values`].
const MAX_VALUES: usize = 4 * 1024 * 1024;

/// The means by which a format identifies the fields of structs and the variants of enums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// By names: JSON, and MessagePack with structs as maps.
    Named,
    /// By their positions: bincode and postcard.
    Positional,
}

/// Options of conversions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    layout: Layout,
    allow_unknown: bool,
    wide_as_text: bool,
    blank_secrets: bool,
    max_values: usize,
}

impl Options {
    /// The default options for a format with this layout.
    #[must_use]
    pub const fn new(layout: Layout) -> Self {
        Self {
            layout,
            allow_unknown: false,
            wide_as_text: false,
            blank_secrets: false,
            max_values: MAX_VALUES,
        }
    }

    /// Ignores names in JSON that a type does not have, as serde does; `false` by default, because
    /// such a name is most likely a typing error. Types with `deny_unknown_fields` reject them in
    /// any case.
    ///
    /// With `true`, an enum with an `other` variant also takes unknown names for that variant.
    #[must_use]
    pub const fn allow_unknown(mut self, allow: bool) -> Self {
        self.allow_unknown = allow;
        self
    }

    /// Shows integers of 64 and 128 bits as texts, for readers whose numbers are 64-bit floats, as
    /// those of JavaScript; `false` by default.
    #[must_use]
    pub const fn wide_as_text(mut self, as_text: bool) -> Self {
        self.wide_as_text = as_text;
        self
    }

    /// Replaces fields that are marked as secret (`#[schema(secret)]`) when a value is read, for
    /// values that are shown or stored: texts become `***`, numbers 0, options `null`, lists and
    /// maps empty, and enums their first variant; `false` by default. The result is a value of the
    /// same type, and can be written again.
    #[must_use]
    pub const fn blank_secrets(mut self, blank: bool) -> Self {
        self.blank_secrets = blank;
        self
    }

    /// Sets the maximum number of parts of a value: elements, fields, keys and the values in them;
    /// 4,194,304 by default. Each variant that is tried in vain counts as
    /// eight and with its parts, and large numbers of names
    /// that have to be compared count as well.
    #[must_use]
    pub const fn max_values(mut self, values: usize) -> Self {
        self.max_values = values;
        self
    }
}

/// Returns the name of the variant of an enum that `value` is, in JSON. `None` if the type is not an
/// enum whose variants have names in JSON, or the value is none of them.
#[must_use]
pub fn variant_name<'a>(ty: &Type, types: &'a Types, value: &Value) -> Option<&'a str> {
    variant(ty, types, value).map(|variant| &*variant.name)
}

/// Like [`variant_name`], but returns the variant.
#[must_use]
pub fn variant<'a>(ty: &Type, types: &'a Types, value: &Value) -> Option<&'a Variant> {
    let Type::Named(name) = ty else {
        return None;
    };
    let Shape::Enum(shape) = &types.get(name)?.shape else {
        return None;
    };
    let named = match (&shape.tagging, value) {
        (Tagging::External, Value::String(name)) => name,
        (Tagging::External, Value::Object(object)) if object.len() == 1 => object.keys().next()?,
        (Tagging::Internal { tag } | Tagging::Adjacent { tag, .. }, Value::Object(object)) => {
            object.get(tag)?.as_str()?
        }
        _ => return None,
    };
    shape.variants.iter().find(|variant| variant.name == *named)
}

/// A JSON value that is serialized like the Rust type that `ty` describes.
///
/// It calls the methods of the serializer that the Rust type would call; names of structs, fields
/// and variants, which would have to be `'static`, are written as the keys of maps.
///
/// # Errors
///
/// Serializing fails with the text of a [`DynamicError`] before anything is written if the value is
/// not of the type, and with the serializer's own errors.
#[derive(Debug, Clone, Copy)]
pub struct DynamicValue<'a> {
    ty: &'a Type,
    types: &'a Types,
    value: &'a Value,
    options: Options,
}

impl<'a> DynamicValue<'a> {
    /// `value` as a value of the type `ty`, whose named types are in `types`.
    #[must_use]
    pub const fn new(ty: &'a Type, types: &'a Types, value: &'a Value, options: Options) -> Self {
        Self {
            ty,
            types,
            value,
            options,
        }
    }

    /// Checks the value against its type, for a format that is human-readable or is not.
    ///
    /// # Errors
    ///
    /// The value is not of the type, or exceeds a limit.
    pub fn check(&self, human_readable: bool) -> Result<(), DynamicError> {
        let context = Context::new(self.types, self.options, human_readable);
        write::value(&context, self.ty, self.value, &Path::ROOT).map(drop)
    }
}

impl Serialize for DynamicValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let context = Context::new(self.types, self.options, serializer.is_human_readable());
        let node = write::value(&context, self.ty, self.value, &Path::ROOT);
        node.map_err(S::Error::custom)?.serialize(serializer)
    }
}

/// Reads a value of the Rust type that `ty` describes, as JSON.
///
/// # Errors
///
/// Reading fails with the text of a [`DynamicError`] if the value is not of the type, or cannot be
/// shown in JSON, and with the deserializer's own errors.
#[derive(Debug, Clone, Copy)]
pub struct DynamicSeed<'a> {
    ty: &'a Type,
    types: &'a Types,
    options: Options,
}

impl<'a> DynamicSeed<'a> {
    /// Reads a value of the type `ty`, whose named types are in `types`.
    #[must_use]
    pub const fn new(ty: &'a Type, types: &'a Types, options: Options) -> Self {
        Self { ty, types, options }
    }
}

impl<'de> DeserializeSeed<'de> for DynamicSeed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let context = Context::new(self.types, self.options, deserializer.is_human_readable());
        read::Seed::new(&context, self.ty, &Path::ROOT).deserialize(deserializer)
    }
}
