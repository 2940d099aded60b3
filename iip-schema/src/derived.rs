//! The output of `#[derive(Schema)]`: tables of names and functions, which are read here.
//!
//! A table takes the compiler less time than the code that builds a definition.

use std::any::{TypeId, type_name};
use std::fmt::Debug;

use crate::describe::Describer;
use crate::registry::Registry;
use crate::types::{Definition, Enum, Field, Shape, Tagging, Type, Variant, VariantShape};

/// A struct or an enum, without the types of its fields.
#[derive(Debug)]
pub struct TypeTable {
    /// The name for readers, without arguments.
    pub name: &'static str,
    /// The documentation.
    pub doc: &'static str,
    /// The form.
    pub form: Form,
}

/// The form of a type.
#[derive(Debug)]
pub enum Form {
    /// A struct.
    Struct(Content),
    /// A struct with `deny_unknown_fields`.
    Strict(Content),
    /// An enum with its `tag`, `content`, and variants.
    Enum(
        Option<&'static str>,
        Option<&'static str>,
        &'static [VariantTable],
    ),
    /// An enum with `untagged`.
    Untagged(&'static [VariantTable]),
}

/// The fields of a struct or of a variant.
#[derive(Debug)]
pub enum Content {
    /// None.
    Unit,
    /// One without a name.
    Newtype,
    /// This number without names.
    Tuple(usize),
    /// Fields with names.
    Named(&'static [FieldTable]),
}

/// A named field.
#[derive(Debug)]
pub struct FieldTable {
    /// The name that is written.
    pub name: &'static str,
    /// Further names that are read.
    pub aliases: &'static [&'static str],
    /// The documentation.
    pub doc: &'static str,
    /// Further properties: a combination of the constants of this type.
    pub marks: u8,
}

impl FieldTable {
    /// [`Field::default`].
    pub const DEFAULT: u8 = 1;
    /// [`Field::may_be_skipped`].
    pub const MAY_BE_SKIPPED: u8 = 2;
    /// [`Field::flatten`].
    pub const FLATTEN: u8 = 4;
    /// [`Field::read_only`].
    pub const READ_ONLY: u8 = 8;
    /// [`Field::write_only`].
    pub const WRITE_ONLY: u8 = 16;
    /// [`Field::secret`].
    pub const SECRET: u8 = 32;

    fn field(&self, ty: Type) -> Field {
        let has = |mark| self.marks & mark != 0;
        let mut field = Field::new(self.name, ty);
        field.aliases = owned(self.aliases);
        field.doc = self.doc.to_owned();
        field.default = has(Self::DEFAULT);
        field.may_be_skipped = has(Self::MAY_BE_SKIPPED);
        field.flatten = has(Self::FLATTEN);
        field.read_only = has(Self::READ_ONLY);
        field.write_only = has(Self::WRITE_ONLY);
        field.secret = has(Self::SECRET);
        field
    }
}

/// A variant.
#[derive(Debug)]
pub struct VariantTable {
    /// The name that is written.
    pub name: &'static str,
    /// The number that is written.
    pub index: u32,
    /// Further names that are read.
    pub aliases: &'static [&'static str],
    /// The documentation.
    pub doc: &'static str,
    /// [`Variant::other`].
    pub other: bool,
    /// [`Variant::untagged`].
    pub untagged: bool,
    /// The fields.
    pub content: Content,
}

/// An argument of a generic type, for its name.
#[derive(Debug, Clone, Copy)]
pub enum Argument<'a> {
    /// A type.
    Type(Describer),
    /// A constant.
    Value(&'a dyn Debug),
}

/// Describes `T` by a table, and the functions that describe its fields in order.
pub fn describe_table<T: ?Sized + 'static>(
    registry: &mut Registry,
    table: &TypeTable,
    arguments: &[Argument<'_>],
    fields: &[Describer],
) -> Type {
    define(registry, id::<T>(), table, arguments, fields)
}

/// Describes `T`, which is written like another type.
pub fn describe_as<T: ?Sized + 'static>(
    registry: &mut Registry,
    name: &'static str,
    describe: Describer,
) -> Type {
    registry.unnamed_by_id(id::<T>(), name, describe)
}

/// The type of a field that a function writes, about which nothing is known.
pub fn opaque<T: ?Sized>(_: &mut Registry) -> Type {
    let reason = "a function of the program writes it: `#[serde(with = \"..\")]`; \
                  `#[schema(as = \"..\")]` names a type of the same form";
    Type::opaque(type_name::<T>(), reason)
}

/// A text that the derive writes, such as the tag of a struct.
pub fn text(_: &mut Registry) -> Type {
    Type::Text
}

fn id<T: ?Sized + 'static>() -> (TypeId, &'static str) {
    (TypeId::of::<T>(), type_name::<T>())
}

fn define(
    registry: &mut Registry,
    id: (TypeId, &str),
    table: &TypeTable,
    arguments: &[Argument<'_>],
    fields: &[Describer],
) -> Type {
    let name = |registry: &mut Registry| full_name(registry, table.name, arguments);
    registry.define_by_id(id, name, |registry| {
        let mut types = fields.iter().map(|describe| describe(registry));
        let mut definition = Definition::new(shape(&table.form, &mut types));
        definition.doc = table.doc.to_owned();
        definition
    })
}

fn shape(form: &Form, types: &mut dyn Iterator<Item = Type>) -> Shape {
    match form {
        Form::Struct(content) => struct_shape(content, false, types),
        Form::Strict(content) => struct_shape(content, true, types),
        Form::Enum(tag, content, table) => {
            let tagging = match (tag, content) {
                (None, _) => Tagging::External,
                (Some(tag), None) => Tagging::Internal {
                    tag: (*tag).to_owned(),
                },
                (Some(tag), Some(content)) => Tagging::Adjacent {
                    tag: (*tag).to_owned(),
                    content: (*content).to_owned(),
                },
            };
            Shape::Enum(Enum::new(tagging, variants(table, types)))
        }
        Form::Untagged(table) => Shape::Enum(Enum::new(Tagging::Untagged, variants(table, types))),
    }
}

fn struct_shape(
    content: &Content,
    deny_unknown_fields: bool,
    types: &mut dyn Iterator<Item = Type>,
) -> Shape {
    match variant_shape(content, types) {
        VariantShape::Unit => Shape::Unit,
        VariantShape::Newtype(ty) => Shape::Newtype(ty),
        VariantShape::Tuple(types) => Shape::Tuple(types),
        VariantShape::Struct(fields) => Shape::Struct {
            fields,
            deny_unknown_fields,
        },
    }
}

fn variants(table: &[VariantTable], types: &mut dyn Iterator<Item = Type>) -> Vec<Variant> {
    let variants = table.iter().map(|entry| {
        let content = variant_shape(&entry.content, types);
        let mut variant = Variant::new(entry.name, entry.index, content);
        variant.aliases = owned(entry.aliases);
        variant.doc = entry.doc.to_owned();
        variant.other = entry.other;
        variant.untagged = entry.untagged;
        variant
    });
    variants.collect()
}

fn variant_shape(content: &Content, types: &mut dyn Iterator<Item = Type>) -> VariantShape {
    match content {
        Content::Unit => VariantShape::Unit,
        // The derive passes as many functions as there are fields.
        Content::Newtype => VariantShape::Newtype(types.next().unwrap_or_default()),
        Content::Tuple(count) => VariantShape::Tuple(types.take(*count).collect()),
        Content::Named(fields) => {
            let fields = fields.iter().zip(types);
            VariantShape::Struct(fields.map(|(field, ty)| field.field(ty)).collect())
        }
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Describes a struct of the standard library.
pub(crate) fn own_struct<T: ?Sized + 'static>(
    registry: &mut Registry,
    name: &str,
    arguments: &[Argument<'_>],
    fields: impl FnOnce(&mut Registry) -> Vec<Field>,
) -> Type {
    let name = |registry: &mut Registry| full_name(registry, name, arguments);
    registry.define_by_id(id::<T>(), name, |registry| {
        Definition::new(Shape::Struct {
            fields: fields(registry),
            // As serde reads them.
            deny_unknown_fields: true,
        })
    })
}

/// Describes an enum of the standard library.
pub(crate) fn own_enum<T: ?Sized + 'static>(
    registry: &mut Registry,
    name: &str,
    arguments: &[Argument<'_>],
    variants: impl FnOnce(&mut Registry) -> Vec<Variant>,
) -> Type {
    let name = |registry: &mut Registry| full_name(registry, name, arguments);
    registry.define_by_id(id::<T>(), name, |registry| {
        let variants = variants(registry);
        Definition::new(Shape::Enum(Enum::new(Tagging::External, variants)))
    })
}

/// The name with the short names of the arguments: `Page<Order>`.
fn full_name(registry: &mut Registry, name: &str, arguments: &[Argument<'_>]) -> String {
    if arguments.is_empty() {
        return name.to_owned();
    }
    let names = arguments.iter().map(|argument| match argument {
        Argument::Type(describe) => {
            let ty = describe(registry);
            short_name(registry, &ty)
        }
        Argument::Value(value) => format!("{value:?}"),
    });
    let names: Vec<String> = names.collect();
    format!("{name}<{}>", names.join(", "))
}

fn short_name(registry: &Registry, ty: &Type) -> String {
    let parts = || -> String {
        let names: Vec<String> = ty.parts().map(|part| short_name(registry, part)).collect();
        names.join(", ")
    };
    let name = match ty {
        Type::Any => "Any",
        Type::Option(_) => return format!("Option<{}>", parts()),
        Type::Seq(_) => return format!("Vec<{}>", parts()),
        Type::Array(_, len) => return format!("[{}; {len}]", parts()),
        Type::Tuple(_) => return format!("({})", parts()),
        Type::Map(..) => return format!("Map<{}>", parts()),
        Type::ByFormat { readable, .. } => return short_name(registry, readable),
        Type::Named(name) => registry.short_name(ty).unwrap_or(name),
        Type::Opaque { name, .. } => last_segment(name),
        plain => plain.plain_name().unwrap_or_default(),
    };
    name.to_owned()
}

/// `Order` of `shop::Order`; a path with arguments is kept.
fn last_segment(path: &str) -> &str {
    match path.contains('<') {
        true => path,
        false => path.rsplit("::").next().unwrap_or(path),
    }
}

/// The first reason of several.
#[must_use]
pub const fn first(reasons: &[Option<&'static str>]) -> Option<&'static str> {
    let mut rest = reasons;
    while let [reason, after @ ..] = rest {
        if reason.is_some() {
            return *reason;
        }
        rest = after;
    }
    None
}

/// Stops the compilation if there is a reason why a type cannot travel in a format without field
/// names: `const _: () = assert_positional(Describe::<T>::IN_CONTAINERS);` with
/// [`NotDescribed`](crate::describe::NotDescribed) in scope.
///
/// # Panics
/// With a message for the author of the type, if there is a reason.
pub const fn assert_positional(reason: Option<&'static str>) {
    /// The longest message; a longer one is cut off.
    const LONGEST: usize = 1024;
    let Some(reason) = reason else { return };
    let parts = [
        reason,
        " needs a codec with field names, but bincode and postcard write none: remove the \
         attribute, or choose a codec with names by `#[service(codec = \"msgpack\")]`, or state \
         that this is intended by `#[schema(named_only)]` on the type",
    ];
    let mut text = [b' '; LONGEST];
    let mut len = 0;
    let mut part = 0;
    while part < parts.len() {
        let bytes = parts[part].as_bytes();
        let mut at = 0;
        while at < bytes.len() && len < LONGEST {
            text[len] = bytes[at];
            len += 1;
            at += 1;
        }
        part += 1;
    }
    match std::str::from_utf8(text.split_at(len).0) {
        Ok(text) => panic!("{}", text),
        // It was cut within a character.
        Err(_) => panic!("a type of this service needs a codec with field names"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_stops_with_the_attribute_and_the_ways_out() {
        let stopped = std::panic::catch_unwind(|| {
            assert_positional(Some("`flatten` of the field `rest` of `Order`"));
        });
        let message = stopped.expect_err("it has a reason");
        let message = message.downcast_ref::<String>().expect("a text");
        for part in [
            "`flatten`",
            "`rest`",
            "`Order`",
            "named_only",
            "msgpack",
            "remove",
        ] {
            assert!(message.contains(part), "{message}");
        }
        assert_positional(None);
    }

    #[test]
    fn a_long_reason_is_cut_off() {
        let reason: &'static str = Box::leak("ä".repeat(1000).into_boxed_str());
        for reason in [reason, &reason[2..]] {
            assert!(std::panic::catch_unwind(|| assert_positional(Some(reason))).is_err());
        }
    }
}
