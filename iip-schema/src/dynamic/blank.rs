//! Blank values, which are in the place of secret ones.

use serde_json::{Map, Value};

use super::context::{Context, Form};
use super::error::{DynamicError, Path};
use super::forms;
use crate::types::{Enum, Field, Tagging, Type, Variant, VariantShape};

/// The text in the place of a secret one.
const TEXT: &str = "***";

/// Returns a value of the type `ty` that tells nothing.
pub(super) fn value<'t>(
    context: &Context<'t>,
    ty: &'t Type,
    path: &Path<'_>,
) -> Result<Value, DynamicError> {
    context.spend(1, path)?;
    if let Type::ByFormat { readable, compact } = ty
        && let Some(known) = forms::known(context, readable, compact)
    {
        return Ok(Value::from(known.blank()));
    }
    match context.form(ty, path)? {
        Form::Plain(ty) => plain(context, ty, path),
        Form::Unit => Ok(Value::Null),
        Form::Newtype(of) | Form::Pair { compact: of, .. } => value(context, of, &path.wrapped()?),
        Form::Tuple(types) => tuple(context, types, path),
        Form::Struct(record) => fields(context, record.fields, path).map(Value::Object),
        Form::Enum(name, shape) => enumeration(context, name, shape, path),
    }
}

fn plain<'t>(context: &Context<'t>, ty: &'t Type, path: &Path<'_>) -> Result<Value, DynamicError> {
    Ok(match ty {
        Type::Bool => Value::from(false),
        Type::F32 | Type::F64 => Value::from(0.0),
        Type::Char => Value::from("*"),
        Type::Text => Value::from(TEXT),
        Type::Bytes | Type::Seq(_) => Value::Array(Vec::new()),
        Type::Map(..) => Value::Object(Map::new()),
        Type::Array(of, len) => {
            let count = usize::try_from(*len).unwrap_or(usize::MAX);
            // The limit on values is checked before any of them exist.
            context.spend(count, path)?;
            let one = value(context, of, &path.index(0)?)?;
            Value::Array(vec![one; count])
        }
        Type::Tuple(types) => tuple(context, types, path)?,
        other if other.integer().is_some() => Value::from(0),
        _ => Value::Null,
    })
}

fn tuple<'t>(
    context: &Context<'t>,
    types: &'t [Type],
    path: &Path<'_>,
) -> Result<Value, DynamicError> {
    let path = path.index(0)?;
    let parts = types.iter().map(|ty| value(context, ty, &path));
    parts.collect::<Result<_, _>>().map(Value::Array)
}

fn fields<'t>(
    context: &Context<'t>,
    fields: &'t [Field],
    path: &Path<'_>,
) -> Result<Map<String, Value>, DynamicError> {
    let mut object = Map::new();
    for field in fields {
        if field.read_only || field.write_only {
            continue;
        }
        let inner = value(context, &field.ty, &path.key(&field.name)?)?;
        match inner {
            Value::Object(inner) if field.flatten => object.extend(inner),
            _ if field.flatten => {}
            inner => {
                object.insert(field.name.clone(), inner);
            }
        }
    }
    Ok(object)
}

/// The first variant that has a blank value; those without content come first.
fn enumeration<'t>(
    context: &Context<'t>,
    name: &str,
    shape: &'t Enum,
    path: &Path<'_>,
) -> Result<Value, DynamicError> {
    let is_unit = |variant: &&Variant| variant.shape == VariantShape::Unit;
    let units = shape.variants.iter().filter(is_unit);
    let others = shape.variants.iter().filter(|variant| !is_unit(variant));
    let path = path.key(name)?;
    let mut found = units
        .chain(others)
        .filter_map(|variant| tagged(context, shape, variant, &path));
    found
        .next()
        .ok_or_else(|| path.error("the enum has no blank value"))
}

fn tagged<'t>(
    context: &Context<'t>,
    shape: &'t Enum,
    variant: &'t Variant,
    path: &Path<'_>,
) -> Option<Value> {
    let content = match &variant.shape {
        VariantShape::Unit => None,
        VariantShape::Newtype(of) => Some(value(context, of, path).ok()?),
        VariantShape::Tuple(types) => Some(tuple(context, types, path).ok()?),
        VariantShape::Struct(of) => Some(Value::Object(fields(context, of, path).ok()?)),
    };
    let name = || Value::from(variant.name.clone());
    if variant.untagged {
        return Some(content.unwrap_or_default());
    }
    Some(match (&shape.tagging, content) {
        (Tagging::Untagged, content) => content.unwrap_or_default(),
        (Tagging::External, None) => name(),
        (Tagging::External, Some(content)) => {
            Value::Object(Map::from_iter([(variant.name.clone(), content)]))
        }
        (Tagging::Internal { tag }, None) => Value::Object(Map::from_iter([(tag.clone(), name())])),
        (Tagging::Internal { tag }, Some(Value::Object(mut object))) => {
            object.insert(tag.clone(), name());
            Value::Object(object)
        }
        (Tagging::Internal { .. }, Some(_)) => return None,
        (Tagging::Adjacent { tag, content: key }, content) => {
            let mut object = Map::from_iter([(tag.clone(), name())]);
            object.extend(content.map(|content| (key.clone(), content)));
            Value::Object(object)
        }
    })
}
