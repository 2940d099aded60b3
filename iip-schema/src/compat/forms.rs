//! Types in the form that an encoding has.

use super::Encoding;
use crate::types::{Enum, Field, Shape, Tagging, Type, Types, Variant, VariantShape};

/// The most levels of types within types.
pub(super) const MAX_DEPTH: usize = 128;

/// A type behind its names and newtypes, in the form that the encoding has.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form<'a> {
    /// A type without parts.
    Plain(&'a Type),
    Option(&'a Type),
    Seq(&'a Type),
    Array(&'a Type, u64),
    Tuple(&'a [Type]),
    Map(&'a Type, &'a Type),
    Struct(Struct<'a>),
    Enum(&'a str, &'a Enum),
    /// An opaque type, or a name that refers to nothing.
    Opaque(&'a str),
    TooDeep,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Struct<'a> {
    /// `Type`, or `Enum::Variant`.
    pub(super) name: &'a str,
    pub(super) fields: &'a [Field],
    pub(super) deny_unknown_fields: bool,
}

/// Follows names, newtypes and the forms of formats to a type that has a form of its own.
pub(super) fn resolve<'a>(types: &'a Types, ty: &'a Type, encoding: Encoding) -> Form<'a> {
    let mut ty = ty;
    for _ in 0..MAX_DEPTH {
        let name = match ty {
            Type::ByFormat { readable, compact } => {
                let json = encoding == Encoding::Json;
                ty = if json { readable } else { compact };
                continue;
            }
            Type::Named(name) => name,
            Type::Option(of) => return Form::Option(of),
            Type::Seq(of) => return Form::Seq(of),
            Type::Array(of, len) => return Form::Array(of, *len),
            Type::Tuple(of) => return Form::Tuple(of),
            Type::Map(key, value) => return Form::Map(key, value),
            Type::Opaque { name, .. } => return Form::Opaque(name),
            _ => return Form::Plain(ty),
        };
        let Some(definition) = types.get(name) else {
            return Form::Opaque(name);
        };
        match &definition.shape {
            Shape::Unit => return Form::Plain(&Type::Unit),
            Shape::Newtype(of) => ty = of,
            Shape::Tuple(of) => return Form::Tuple(of),
            Shape::Enum(of) => return Form::Enum(name, of),
            Shape::Struct {
                fields,
                deny_unknown_fields,
            } => {
                return Form::Struct(Struct {
                    name,
                    fields,
                    deny_unknown_fields: *deny_unknown_fields,
                });
            }
        }
    }
    Form::TooDeep
}

/// Returns `true` for types that take no bytes where there are no names.
pub(super) fn is_empty(form: Form<'_>) -> bool {
    match form {
        Form::Tuple(of) => of.is_empty(),
        Form::Struct(of) => of.fields.is_empty(),
        _ => false,
    }
}

/// Returns `true` for bytes, and for sequences of `u8`.
pub(super) fn is_bytes(form: Form<'_>) -> bool {
    match form {
        Form::Plain(ty) => *ty == Type::Bytes,
        Form::Seq(of) => *of == Type::U8,
        _ => false,
    }
}

/// Returns `true` for an enum whose variants are written as texts.
pub(super) fn is_plain_enum(of: &Enum) -> bool {
    let is_plain = |variant: &Variant| {
        variant.shape == VariantShape::Unit && !variant.untagged && !variant.other
    };
    of.tagging == Tagging::External && of.variants.iter().all(is_plain)
}
