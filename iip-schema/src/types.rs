//! Types as serde writes and reads them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// A type of a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Type {
    /// `bool`.
    Bool,
    /// `u8`.
    U8,
    /// `u16`.
    U16,
    /// `u32`.
    U32,
    /// `u64`, and `usize`, which serde writes as one.
    U64,
    /// `u128`.
    U128,
    /// `i8`.
    I8,
    /// `i16`.
    I16,
    /// `i32`.
    I32,
    /// `i64`, and `isize`, which serde writes as one.
    I64,
    /// `i128`.
    I128,
    /// `f32`.
    F32,
    /// `f64`.
    F64,
    /// `char`.
    Char,
    /// UTF-8 text, such as `String`.
    Text,
    /// Bytes written by `serialize_bytes`, such as `bytes::Bytes`. A `Vec<u8>` is a sequence.
    Bytes,
    /// `()`, or a struct without fields of that form.
    #[default]
    Unit,
    /// `Option<T>`.
    Option(Box<Self>),
    /// Any number of values of one type, such as `Vec<T>`.
    Seq(Box<Self>),
    /// Values of one type in a number that the type determines, such as `[T; 32]`. serde writes it
    /// as a tuple.
    Array(Box<Self>, u64),
    /// Values of several types.
    Tuple(Vec<Self>),
    /// Keys and values, such as `HashMap<K, V>`.
    Map(Box<Self>, Box<Self>),
    /// The type with this name in [`Types`].
    Named(String),
    /// Two forms of one type, chosen by `is_human_readable` of the format: `Uuid` for example is a
    /// text in JSON, and bytes in bincode.
    ByFormat {
        /// The form in JSON.
        readable: Box<Self>,
        /// The form in bincode, postcard and MessagePack.
        compact: Box<Self>,
    },
    /// Any value of a self-describing format, such as `serde_json::Value`.
    Any,
    /// A type about which only its Rust name is known.
    Opaque {
        /// The Rust name.
        name: String,
        /// The reason why no more is known.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
}

impl Type {
    /// `Option<T>`.
    #[must_use]
    pub fn option(of: Self) -> Self {
        Self::Option(Box::new(of))
    }

    /// `Vec<T>`.
    #[must_use]
    pub fn seq(of: Self) -> Self {
        Self::Seq(Box::new(of))
    }

    /// `[T; len]`.
    #[must_use]
    pub fn array(of: Self, len: u64) -> Self {
        Self::Array(Box::new(of), len)
    }

    /// A map.
    #[must_use]
    pub fn map(key: Self, value: Self) -> Self {
        Self::Map(Box::new(key), Box::new(value))
    }

    /// A type about which nothing is known but its Rust name.
    #[must_use]
    pub fn opaque(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Opaque {
            name: name.into(),
            reason: reason.into(),
        }
    }

    /// Returns `true` for `()`.
    #[must_use]
    pub fn is_unit(&self) -> bool {
        matches!(self, Self::Unit)
    }

    /// The name in Rust of a type without parts.
    pub(crate) fn plain_name(&self) -> Option<&'static str> {
        Some(match self {
            Self::Bool => "bool",
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::U128 => "u128",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::I128 => "i128",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Char => "char",
            Self::Text => "String",
            Self::Bytes => "Bytes",
            Self::Unit => "()",
            Self::Option(_)
            | Self::Seq(_)
            | Self::Array(..)
            | Self::Tuple(_)
            | Self::Map(..)
            | Self::Named(_)
            | Self::ByFormat { .. }
            | Self::Any
            | Self::Opaque { .. } => return None,
        })
    }

    /// The number of bits of an integer, and whether it has a sign.
    #[must_use]
    pub fn integer(&self) -> Option<(u32, bool)> {
        Some(match self {
            Self::U8 => (8, false),
            Self::U16 => (16, false),
            Self::U32 => (32, false),
            Self::U64 => (64, false),
            Self::U128 => (128, false),
            Self::I8 => (8, true),
            Self::I16 => (16, true),
            Self::I32 => (32, true),
            Self::I64 => (64, true),
            Self::I128 => (128, true),
            _ => return None,
        })
    }

    /// The types that this type directly consists of. Named types are not followed.
    pub fn parts(&self) -> impl Iterator<Item = &Self> {
        let (first, second, rest): (Option<&Self>, Option<&Self>, &[Self]) = match self {
            Self::Option(of) | Self::Seq(of) | Self::Array(of, _) => (Some(of), None, &[]),
            Self::Map(key, value) => (Some(key), Some(value), &[]),
            Self::ByFormat { readable, compact } => (Some(readable), Some(compact), &[]),
            Self::Tuple(of) => (None, None, of),
            _ => (None, None, &[]),
        };
        first.into_iter().chain(second).chain(rest)
    }

    /// Like [`parts`](Self::parts), to change them.
    pub fn parts_mut(&mut self) -> impl Iterator<Item = &mut Self> {
        let (first, second, rest): (Option<&mut Self>, Option<&mut Self>, &mut [Self]) = match self
        {
            Self::Option(of) | Self::Seq(of) | Self::Array(of, _) => (Some(of), None, &mut []),
            Self::Map(key, value) => (Some(key), Some(value), &mut []),
            Self::ByFormat { readable, compact } => (Some(readable), Some(compact), &mut []),
            Self::Tuple(of) => (None, None, of),
            _ => (None, None, &mut []),
        };
        first.into_iter().chain(second).chain(rest)
    }
}

/// The types with names that a description uses: structs and enums, by the names that
/// [`Type::Named`] has. A type may refer to itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Types(BTreeMap<String, Definition>);

impl Types {
    /// No types.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The type with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Definition> {
        self.0.get(name)
    }

    /// Adds a type; returns the one that had the name before.
    pub fn insert(
        &mut self,
        name: impl Into<String>,
        definition: Definition,
    ) -> Option<Definition> {
        self.0.insert(name.into(), definition)
    }

    /// The number of types.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns `true` if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns `true` if values of the type `ty` may contain fields that are marked as secret.
    #[must_use]
    pub fn has_secrets(&self, ty: &Type) -> bool {
        let (mut seen, mut left) = (BTreeSet::new(), vec![ty]);
        while let Some(ty) = left.pop() {
            left.extend(ty.parts());
            let Type::Named(name) = ty else { continue };
            let Some(definition) = self.get(name).filter(|_| seen.insert(&**name)) else {
                continue;
            };
            if definition.fields().any(|field| field.secret) {
                return true;
            }
            left.extend(definition.parts());
        }
        false
    }

    /// All types with their names, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Definition)> {
        self.0
            .iter()
            .map(|(name, definition)| (&**name, definition))
    }
}

/// A struct or an enum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Definition {
    /// Its form.
    pub shape: Shape,
    /// The source of the definition.
    #[serde(default, skip_serializing_if = "Source::is_derived")]
    pub source: Source,
    /// Its documentation; empty if it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub doc: String,
}

impl Definition {
    /// A type of this form that is known from `#[derive(Schema)]`.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        Self {
            shape,
            source: Source::Derived,
            doc: String::new(),
        }
    }

    /// The types that this one directly consists of. Named types are not followed.
    pub fn parts(&self) -> Vec<&Type> {
        match &self.shape {
            Shape::Unit => Vec::new(),
            Shape::Newtype(ty) => vec![ty],
            Shape::Tuple(types) => types.iter().collect(),
            Shape::Struct { fields, .. } => fields.iter().map(|field| &field.ty).collect(),
            Shape::Enum(shape) => {
                let variants = shape.variants.iter();
                variants.flat_map(|variant| variant.shape.parts()).collect()
            }
        }
    }

    /// The named fields of the struct, or of all variants.
    fn fields(&self) -> impl Iterator<Item = &Field> {
        let (fields, variants): (&[Field], &[Variant]) = match &self.shape {
            Shape::Struct { fields, .. } => (fields, &[]),
            Shape::Enum(shape) => (&[], &shape.variants),
            Shape::Unit | Shape::Newtype(_) | Shape::Tuple(_) => (&[], &[]),
        };
        let of_variants = variants.iter().flat_map(|variant| match &variant.shape {
            VariantShape::Struct(fields) => &**fields,
            _ => &[],
        });
        fields.iter().chain(of_variants)
    }

    /// Like [`parts`](Self::parts), to change them.
    pub fn parts_mut(&mut self) -> Vec<&mut Type> {
        match &mut self.shape {
            Shape::Unit => Vec::new(),
            Shape::Newtype(ty) => vec![ty],
            Shape::Tuple(types) => types.iter_mut().collect(),
            Shape::Struct { fields, .. } => fields.iter_mut().map(|field| &mut field.ty).collect(),
            Shape::Enum(shape) => {
                let variants = shape.variants.iter_mut();
                variants
                    .flat_map(|variant| variant.shape.parts_mut())
                    .collect()
            }
        }
    }
}

/// The source of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Source {
    /// From `#[derive(Schema)]`, or an implementation of [`Schema`](crate::Schema) by hand.
    #[default]
    Derived,
    /// By observing the `Deserialize` of the type. Documentation, aliases and conditions for
    /// leaving out a field are then unknown.
    Probed,
}

impl Source {
    fn is_derived(&self) -> bool {
        *self == Self::Derived
    }
}

/// The form of a struct or an enum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Shape {
    /// A struct without fields: `struct Ping;`.
    Unit,
    /// A struct around one value, which is written like the value: `struct Meters(f64);`. A struct
    /// with `#[serde(transparent)]` is not named at all, but has the type of its field.
    Newtype(Type),
    /// A struct with fields without names: `struct Point(i32, i32);`.
    Tuple(Vec<Type>),
    /// A struct with named fields.
    Struct {
        /// The fields in order. Those with `#[serde(skip)]` are not among them.
        fields: Vec<Field>,
        /// `true` if names that are not among the fields are an error.
        #[serde(default, skip_serializing_if = "is_false")]
        deny_unknown_fields: bool,
    },
    /// An enum.
    Enum(Enum),
}

/// An enum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Enum {
    /// The representation of the variant in formats with names.
    #[serde(default, skip_serializing_if = "Tagging::is_external")]
    pub tagging: Tagging,
    /// The variants in order.
    pub variants: Vec<Variant>,
}

impl Enum {
    /// An enum.
    #[must_use]
    pub fn new(tagging: Tagging, variants: Vec<Variant>) -> Self {
        Self { tagging, variants }
    }
}

/// The representation of an enum's variant in formats with names. Only [`External`](Self::External)
/// enums can be read from bincode and postcard.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Tagging {
    /// `{"Variant": content}`, or `"Variant"` without content: serde's default.
    #[default]
    External,
    /// `{"tag": "Variant", ..fields}`: `#[serde(tag = "..")]`.
    Internal {
        /// The key of the variant's name.
        tag: String,
    },
    /// `{"tag": "Variant", "content": content}`: `#[serde(tag = "..", content = "..")]`.
    Adjacent {
        /// The key of the variant's name.
        tag: String,
        /// The key of its content.
        content: String,
    },
    /// The content alone: `#[serde(untagged)]`. The first variant that fits is read.
    Untagged,
}

impl Tagging {
    fn is_external(&self) -> bool {
        *self == Self::External
    }
}

/// A field of a struct, or of a variant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Field {
    /// The name that is written.
    pub name: String,
    /// Further names that are read: those of `#[serde(alias)]`, and `rename(deserialize = "..")`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// The type.
    #[serde(rename = "type")]
    pub ty: Type,
    /// `true` if the field may be missing where names are written: it has `#[serde(default)]`. A
    /// missing `Option` is `None` even without.
    #[serde(default, skip_serializing_if = "is_false")]
    pub default: bool,
    /// `true` if it is left out under a condition: `skip_serializing_if`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub may_be_skipped: bool,
    /// `true` if its own fields are written in its place: `flatten`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub flatten: bool,
    /// `true` if it is read but never written: `skip_serializing`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// `true` if it is written but never read: `skip_deserializing`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub write_only: bool,
    /// `true` if tools must not show or record it: `#[schema(secret)]`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub secret: bool,
    /// Its documentation; empty if it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub doc: String,
}

impl Field {
    /// A field that is always written.
    #[must_use]
    pub fn new(name: impl Into<String>, ty: Type) -> Self {
        Self {
            name: name.into(),
            aliases: Vec::new(),
            ty,
            default: false,
            may_be_skipped: false,
            flatten: false,
            read_only: false,
            write_only: false,
            secret: false,
            doc: String::new(),
        }
    }

    /// Returns `true` if a value without this field can be read in a format with names.
    #[must_use]
    pub fn is_optional(&self) -> bool {
        self.default || matches!(self.ty, Type::Option(_))
    }
}

/// A variant of an enum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Variant {
    /// The name that is written.
    pub name: String,
    /// The number that is written in formats without names: its position among all variants,
    /// including those that are not described because they are skipped.
    pub index: u32,
    /// Further names that are read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Its content.
    #[serde(default, skip_serializing_if = "VariantShape::is_unit")]
    pub shape: VariantShape,
    /// `true` if it stands for every name that is not known: `#[serde(other)]`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub other: bool,
    /// `true` if this variant alone is written without its name: `#[serde(untagged)]` on it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub untagged: bool,
    /// The status of HTTP for a method that fails with this variant: `#[rpc(http = 422)]` on a
    /// variant of an error. See [`http_status`](Self::http_status).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<u16>,
    /// Its documentation; empty if it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub doc: String,
}

impl Variant {
    /// A variant with this content.
    #[must_use]
    pub fn new(name: impl Into<String>, index: u32, shape: VariantShape) -> Self {
        Self {
            name: name.into(),
            index,
            aliases: Vec::new(),
            shape,
            other: false,
            untagged: false,
            http: None,
            doc: String::new(),
        }
    }

    /// Returns [`http`](Self::http) if it is the status of an error, from 400 to 599. That of a
    /// description from a peer may be any number.
    #[must_use]
    pub fn http_status(&self) -> Option<u16> {
        self.http.filter(|status| (400..=599).contains(status))
    }
}

/// The content of a variant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum VariantShape {
    /// None.
    #[default]
    Unit,
    /// One value.
    Newtype(Type),
    /// Values without names.
    Tuple(Vec<Type>),
    /// Named fields.
    Struct(Vec<Field>),
}

impl VariantShape {
    fn is_unit(&self) -> bool {
        *self == Self::Unit
    }

    /// The types that this content directly consists of.
    pub fn parts(&self) -> Vec<&Type> {
        match self {
            Self::Unit => Vec::new(),
            Self::Newtype(ty) => vec![ty],
            Self::Tuple(types) => types.iter().collect(),
            Self::Struct(fields) => fields.iter().map(|field| &field.ty).collect(),
        }
    }

    /// Like [`parts`](Self::parts), to change them.
    pub fn parts_mut(&mut self) -> Vec<&mut Type> {
        match self {
            Self::Unit => Vec::new(),
            Self::Newtype(ty) => vec![ty],
            Self::Tuple(types) => types.iter_mut().collect(),
            Self::Struct(fields) => fields.iter_mut().map(|field| &mut field.ty).collect(),
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the form that serde requires"
)]
fn is_false(value: &bool) -> bool {
    !*value
}
