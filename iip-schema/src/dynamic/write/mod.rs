//! Checks a JSON value against its type, and converts it to a [`Node`].

mod record;
mod scalar;
mod variant;

use serde_json::Value;

pub(super) use self::record::{Object, closed, object, whole};
use self::variant::flat as flat_variant;
pub(super) use self::variant::record_of;
use super::context::{Context, Form, found};
use super::error::{DynamicError, Path};
use super::node::Node;
use super::{forms, keys};
use crate::types::Type;

type Result<T> = std::result::Result<T, DynamicError>;

/// The value as one of the type.
pub(super) fn value<'a>(
    context: &Context<'a>,
    ty: &'a Type,
    value: &'a Value,
    path: &Path<'_>,
) -> Result<Node<'a>> {
    context.spend(1, path)?;
    match context.form(ty, path)? {
        Form::Plain(ty) => plain(context, ty, value, path),
        Form::Unit => null(value, path).map(|()| Node::UnitStruct),
        Form::Newtype(of) => {
            let node = self::value(context, of, value, &path.wrapped()?)?;
            Ok(Node::Newtype(Box::new(node)))
        }
        Form::Tuple(types) => elements(context, types, value, path).map(Node::Tuple),
        Form::Struct(record) => {
            let mut object = object(context, record.name, value, path)?;
            let node = whole(context, record, &mut object, path)?;
            closed(context, record, &object, path)?;
            Ok(node)
        }
        Form::Enum(name, shape) => variant::value(context, name, shape, value, path),
        Form::Pair { readable, compact } => {
            if let (Some(known), Value::String(text)) =
                (forms::known(context, readable, compact), value)
            {
                return forms::parse(known, text).ok_or_else(|| {
                    let kind = known.kind();
                    path.error(format_args!("expected {kind}, found {}", found(value)))
                });
            }
            self::value(context, compact, value, &path.wrapped()?)
        }
    }
}

fn plain<'a>(
    context: &Context<'a>,
    ty: &'a Type,
    value: &'a Value,
    path: &Path<'_>,
) -> Result<Node<'a>> {
    match ty {
        Type::Unit => null(value, path).map(|()| Node::Unit),
        Type::Option(_) if value.is_null() => Ok(Node::None),
        Type::Option(of) => {
            let node = self::value(context, of, value, &path.wrapped()?)?;
            Ok(Node::Some(Box::new(node)))
        }
        Type::Seq(of) => all(context, of, list(value, path)?, path).map(Node::Seq),
        Type::Array(of, len) => {
            let elements = list(value, path)?;
            check_len(elements, *len, path)?;
            all(context, of, elements, path).map(Node::Tuple)
        }
        Type::Tuple(types) => elements(context, types, value, path).map(Node::Tuple),
        Type::Map(key, of) => map(context, key, of, value, path),
        Type::Any | Type::Opaque { .. } => {
            opaque(context, ty, path)?;
            any(context, value, path, path.levels_left())?;
            Ok(Node::Json(value))
        }
        scalar => scalar::value(context, scalar, value, path),
    }
}

/// Rejects a type that is not known in a format without names.
pub(super) fn opaque(context: &Context<'_>, ty: &Type, path: &Path<'_>) -> Result<()> {
    match ty {
        Type::Opaque { name, .. } => context.named_only(name, "is not described", path),
        _ => context.named_only("any value", "describes itself", path),
    }
}

/// Checks the depth and the size of a value that is passed on as it is.
fn any(context: &Context<'_>, value: &Value, path: &Path<'_>, levels: u16) -> Result<()> {
    context.spend(1, path)?;
    if !value.is_array() && !value.is_object() {
        return Ok(());
    }
    let Some(levels) = levels.checked_sub(1) else {
        return Err(path.error("the value is nested too deep"));
    };
    match value {
        Value::Array(parts) => parts
            .iter()
            .try_for_each(|part| any(context, part, path, levels)),
        Value::Object(parts) => parts
            .values()
            .try_for_each(|part| any(context, part, path, levels)),
        _ => Ok(()),
    }
}

fn map<'a>(
    context: &Context<'a>,
    key: &'a Type,
    of: &'a Type,
    value: &'a Value,
    path: &Path<'_>,
) -> Result<Node<'a>> {
    let mut entries = Vec::new();
    match value {
        Value::Object(object) => {
            for (text, value) in object {
                let path = path.key(text)?;
                let key = keys::parse(context, key, text, &path)?;
                entries.push((key, self::value(context, of, value, &path)?));
            }
        }
        Value::Array(pairs) => {
            for (at, pair) in pairs.iter().enumerate() {
                let path = path.index(at)?;
                let Some([first, second]) = pair.as_array().map(Vec::as_slice) else {
                    let found = found(pair);
                    return Err(path.error(format_args!(
                        "expected a list of a key and its value, found {found}"
                    )));
                };
                let key = self::value(context, key, first, &path.index(0)?)?;
                entries.push((key, self::value(context, of, second, &path.index(1)?)?));
            }
        }
        other => {
            return Err(expected(
                "an object, or a list of [key, value] pairs",
                other,
                path,
            ));
        }
    }
    Ok(Node::Map(entries))
}

/// Elements of one type.
fn all<'a>(
    context: &Context<'a>,
    of: &'a Type,
    elements: &'a [Value],
    path: &Path<'_>,
) -> Result<Vec<Node<'a>>> {
    let elements = elements.iter().enumerate();
    let nodes = elements.map(|(at, element)| value(context, of, element, &path.index(at)?));
    nodes.collect()
}

/// The elements of a tuple.
pub(super) fn elements<'a>(
    context: &Context<'a>,
    types: &'a [Type],
    value: &'a Value,
    path: &Path<'_>,
) -> Result<Vec<Node<'a>>> {
    let elements = list(value, path)?;
    check_len(elements, types.len() as u64, path)?;
    let parts = types.iter().zip(elements).enumerate();
    let nodes =
        parts.map(|(at, (ty, element))| self::value(context, ty, element, &path.index(at)?));
    nodes.collect()
}

fn list<'a>(value: &'a Value, path: &Path<'_>) -> Result<&'a [Value]> {
    match value {
        Value::Array(elements) => Ok(elements),
        other => Err(expected("a list", other, path)),
    }
}

fn check_len(elements: &[Value], len: u64, path: &Path<'_>) -> Result<()> {
    if elements.len() as u64 == len {
        return Ok(());
    }
    let found = elements.len();
    Err(path.error(format_args!(
        "expected a list of {len}, found one of {found}"
    )))
}

fn null(value: &Value, path: &Path<'_>) -> Result<()> {
    if value.is_null() {
        return Ok(());
    }
    Err(expected("null", value, path))
}

#[cold]
fn expected(kind: &str, value: &Value, path: &Path<'_>) -> DynamicError {
    let found = found(value);
    path.error(format_args!("expected {kind}, found {found}"))
}
