//! Named fields.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Result, expected};
use crate::dynamic::context::{Context, Form, Record};
use crate::dynamic::error::{DynamicError, Path, shorten, unknown};
use crate::dynamic::node::Node;
use crate::dynamic::{keys, write};
use crate::types::{Field, Type};

/// The entries of an object that have not been used yet.
pub(in crate::dynamic) type Object<'a> = BTreeMap<&'a str, &'a Value>;

/// Entries that are written.
pub(super) type Entries<'a> = Vec<(Node<'a>, Node<'a>)>;

/// The entries of the object `value`, for the type `name`.
pub(in crate::dynamic) fn object<'a>(
    context: &Context<'a>,
    name: &str,
    value: &'a Value,
    path: &Path<'_>,
) -> Result<Object<'a>> {
    let Value::Object(map) = value else {
        let kind = format!("an object for `{}`", shorten(name));
        return Err(expected(&kind, value, path));
    };
    context.spend(map.len(), path)?;
    Ok(map.iter().map(|(key, value)| (&**key, value)).collect())
}

/// Rejects entries that nothing has used.
pub(in crate::dynamic) fn closed(
    context: &Context<'_>,
    record: Record<'_>,
    object: &Object<'_>,
    path: &Path<'_>,
) -> Result<()> {
    let Some(name) = object.keys().next() else {
        return Ok(());
    };
    if context.options.allow_unknown && !record.deny_unknown {
        return Ok(());
    }
    let names = record
        .fields
        .iter()
        .filter(|field| !field.flatten && !field.write_only);
    let names: Vec<&str> = names.map(|field| &*field.name).collect();
    Err(path.error(unknown(record.name, record.what, name, &names)))
}

/// The fields as one value.
pub(in crate::dynamic) fn whole<'a>(
    context: &Context<'a>,
    record: Record<'a>,
    object: &mut Object<'a>,
    path: &Path<'_>,
) -> Result<Node<'a>> {
    if context.positional() {
        return positions(context, record, object, path).map(Node::Tuple);
    }
    let mut entries = Vec::new();
    fields(context, record, object, &mut entries, path)?;
    Ok(Node::Map(entries))
}

/// The fields in their order.
pub(super) fn positions<'a>(
    context: &Context<'a>,
    record: Record<'a>,
    object: &mut Object<'a>,
    path: &Path<'_>,
) -> Result<Vec<Node<'a>>> {
    let mut nodes = Vec::new();
    for field in record.fields {
        context.spend(1, path)?;
        if field.flatten {
            context.named_only(record.name, "has a flattened field", path)?;
        }
        if field.write_only {
            continue;
        }
        nodes.push(match take(context, record, field, object, path)? {
            Some(value) => value_of(context, field, value, path)?,
            None if matches!(field.ty, Type::Option(_)) => Node::None,
            None if field.default => {
                let (owner, name) = (shorten(record.name), shorten(&field.name));
                return Err(path.error(format_args!(
                    "the field `{name}` of `{owner}` is missing; it has a default, but only the \
                     peer knows it, and a codec without field names needs a value"
                )));
            }
            None => return Err(missing(record, field, path)),
        });
    }
    Ok(nodes)
}

/// The fields with their names.
pub(super) fn fields<'a>(
    context: &Context<'a>,
    record: Record<'a>,
    object: &mut Object<'a>,
    entries: &mut Entries<'a>,
    path: &Path<'_>,
) -> Result<()> {
    // Flattened fields take what the others leave, but are written in their place.
    let mut taken = Vec::new();
    for field in record
        .fields
        .iter()
        .filter(|field| !field.flatten && !field.write_only)
    {
        context.spend(1, path)?;
        taken.push(take(context, record, field, object, path)?);
    }
    let mut taken = taken.into_iter();
    for field in record.fields.iter().filter(|field| !field.write_only) {
        if field.flatten {
            let flat = flat(context, &field.ty, object, entries, path);
            flat.map_err(|error| without_secret(field, error, path))?;
            continue;
        }
        let node = match taken.next().flatten() {
            Some(value) => value_of(context, field, value, path)?,
            None if field.default || field.may_be_skipped && field.is_optional() => continue,
            None if matches!(field.ty, Type::Option(_)) => Node::None,
            None if field.read_only => continue,
            None => return Err(missing(record, field, path)),
        };
        entries.push((Node::Text(&field.name), node));
    }
    Ok(())
}

fn value_of<'a>(
    context: &Context<'a>,
    field: &'a Field,
    value: &'a Value,
    path: &Path<'_>,
) -> Result<Node<'a>> {
    let path = path.key(&field.name)?;
    let node = write::value(context, &field.ty, value, &path);
    node.map_err(|error| without_secret(field, error, &path))
}

/// The error about the value of a field, without the value if it is secret.
fn without_secret(field: &Field, error: DynamicError, path: &Path<'_>) -> DynamicError {
    match field.secret {
        true => path.error("the value is not of its type; it is secret, so it is not shown"),
        false => error,
    }
}

#[cold]
fn missing(record: Record<'_>, field: &Field, path: &Path<'_>) -> DynamicError {
    let (owner, what, name) = (shorten(record.name), record.what, shorten(&field.name));
    path.error(format_args!("the {what} `{name}` of `{owner}` is missing"))
}

/// Takes the value of a field, by its name or one of its aliases.
fn take<'a>(
    context: &Context<'a>,
    record: Record<'_>,
    field: &'a Field,
    object: &mut Object<'a>,
    path: &Path<'_>,
) -> Result<Option<&'a Value>> {
    let mut taken = object.remove(&*field.name);
    context.spend(field.aliases.len(), path)?;
    for alias in &field.aliases {
        let Some(value) = object.remove(&**alias) else {
            continue;
        };
        if taken.replace(value).is_some() {
            let (owner, name) = (shorten(record.name), shorten(&field.name));
            return Err(path.error(format_args!(
                "the field `{name}` of `{owner}` is given twice, by several of its names"
            )));
        }
    }
    Ok(taken)
}

/// Adds the entries of a value that has no object of its own: of a flattened field, or of the
/// content of a variant beside its name.
pub(super) fn flat<'a>(
    context: &Context<'a>,
    ty: &'a Type,
    object: &mut Object<'a>,
    entries: &mut Entries<'a>,
    path: &Path<'_>,
) -> Result<()> {
    context.spend(1, path)?;
    // A type that is flattened into itself has no end.
    let path = &path.flattened()?;
    match context.form(ty, path)? {
        Form::Unit | Form::Plain(Type::Unit) => Ok(()),
        Form::Struct(record) => fields(context, record, object, entries, path),
        Form::Newtype(of) => flat(context, of, object, entries, path),
        Form::Enum(name, shape) => write::flat_variant(context, name, shape, object, entries, path),
        Form::Plain(Type::Option(of)) => {
            // As in serde, it is `None` if its fields are not there.
            context.spend(object.len(), path)?;
            let (mut left, len) = (object.clone(), entries.len());
            match flat(context, of, &mut left, entries, path) {
                Ok(()) => *object = left,
                Err(_) => entries.truncate(len),
            }
            Ok(())
        }
        Form::Plain(Type::Map(key, of)) => {
            for (text, value) in std::mem::take(object) {
                let path = path.key(text)?;
                let key = keys::parse(context, key, text, &path)?;
                entries.push((key, write::value(context, of, value, &path)?));
            }
            Ok(())
        }
        Form::Plain(Type::Any | Type::Opaque { .. }) => {
            for (text, value) in std::mem::take(object) {
                let path = path.key(text)?;
                entries.push((
                    Node::Text(text),
                    write::value(context, &Type::Any, value, &path)?,
                ));
            }
            Ok(())
        }
        _ => Err(path.error("the type of this value has no fields that could be flattened")),
    }
}
