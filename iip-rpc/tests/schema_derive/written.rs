//! Checks whether a value that serde has written in JSON has the form that a description states.

use std::collections::BTreeSet;

use iip_schema::{
    Definition, Enum, Field, Registry, Schema, Shape, Tagging, Type, Types, Variant, VariantShape,
    check_derived,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The description of a type, with the types that it uses.
pub(crate) fn described<T: Schema>() -> (Type, Types) {
    let mut registry = Registry::new();
    let mut ty = T::describe(&mut registry);
    let (types, names) = registry.finish();
    names.apply(&mut ty);
    (ty, types)
}

/// The definition of a type with a name.
pub(crate) fn definition<T: Schema>() -> Definition {
    let (ty, types) = described::<T>();
    let Type::Named(name) = &ty else {
        panic!("{ty:?} has no name");
    };
    types.get(name).expect("a definition").clone()
}

/// Checks that the values are written as `T` is described, and that observing the type leads to the
/// same description.
pub(crate) fn is_written_as_described<T>(values: &[T])
where
    T: Schema + Serialize + DeserializeOwned,
{
    all_fit(values);
    check_derived::<T>().unwrap();
}

/// Checks that the values are written as `T` is described.
pub(crate) fn all_fit<T: Schema + Serialize>(values: &[T]) {
    let (ty, types) = described::<T>();
    for value in values {
        let value = serde_json::to_value(value).unwrap();
        if let Err(problem) = fits(&types, &ty, &value) {
            panic!("{problem}: {value} is not {ty:?} with {types:#?}");
        }
    }
}

type Fit = Result<(), String>;

fn require(holds: bool, expected: impl FnOnce() -> String) -> Fit {
    if holds { Ok(()) } else { Err(expected()) }
}

/// Checks that this value has this type.
pub(crate) fn fits(types: &Types, ty: &Type, value: &Value) -> Fit {
    let holds = match ty {
        Type::Bool => value.is_boolean(),
        Type::F32 | Type::F64 => value.is_number(),
        Type::Text | Type::Char => value.is_string(),
        Type::Unit => value.is_null(),
        Type::Bytes => value.is_array(),
        Type::Option(_) if value.is_null() => true,
        Type::Option(of) => return fits(types, of, value),
        Type::Seq(of) => return all(types, value, |_| Some(of)),
        Type::Array(of, len) => {
            let count = value.as_array().map(|values| values.len() as u64);
            require(count == Some(*len), || format!("{len} elements"))?;
            return all(types, value, |_| Some(of));
        }
        Type::Tuple(of) => return tuple(types, of, value),
        Type::Map(_, of) => {
            let object = object(value)?;
            return object.values().try_for_each(|value| fits(types, of, value));
        }
        Type::Named(name) => {
            let definition = types.get(name).ok_or_else(|| format!("no type {name}"))?;
            return defined(types, &definition.shape, value);
        }
        Type::ByFormat { readable, .. } => return fits(types, readable, value),
        Type::Any | Type::Opaque { .. } => true,
        integer => integer.integer().is_some() && (value.is_i64() || value.is_u64()),
    };
    require(holds, || format!("expected {ty:?}, not {value}"))
}

fn all<'a>(types: &Types, value: &Value, of: impl Fn(usize) -> Option<&'a Type>) -> Fit {
    let values = value.as_array().ok_or("an array")?;
    let mut values = values.iter().enumerate();
    values.try_for_each(|(index, value)| fits(types, of(index).ok_or("fewer elements")?, value))
}

fn tuple(types: &Types, of: &[Type], value: &Value) -> Fit {
    let count = value.as_array().map(Vec::len);
    require(count == Some(of.len()), || format!("{} elements", of.len()))?;
    all(types, value, |index| of.get(index))
}

fn object(value: &Value) -> Result<&Map<String, Value>, String> {
    value
        .as_object()
        .ok_or_else(|| format!("an object, not {value}"))
}

fn defined(types: &Types, shape: &Shape, value: &Value) -> Fit {
    match shape {
        Shape::Unit => require(value.is_null(), || "null".to_owned()),
        Shape::Newtype(of) => fits(types, of, value),
        Shape::Tuple(of) => tuple(types, of, value),
        Shape::Struct { fields, .. } => whole(types, fields, object(value)?, &[]),
        Shape::Enum(shape) => variant(types, shape, value),
        other => panic!("{other:?} is new"),
    }
}

/// Checks an object with exactly these fields and keys.
fn whole(types: &Types, fields: &[Field], object: &Map<String, Value>, others: &[&str]) -> Fit {
    let mut keys: BTreeSet<&str> = others.iter().copied().collect();
    let is_rest = written(types, fields, object, &mut keys)?;
    let unknown = object.keys().find(|key| !keys.contains(&***key));
    require(is_rest || unknown.is_none(), || {
        format!("{unknown:?} is not described")
    })
}

/// Checks the fields that are written, and notes their keys. Returns `true` if a map takes all
/// other keys.
fn written<'a>(
    types: &'a Types,
    fields: &'a [Field],
    object: &Map<String, Value>,
    keys: &mut BTreeSet<&'a str>,
) -> Result<bool, String> {
    let mut is_rest = false;
    for field in fields.iter().filter(|field| !field.read_only) {
        if field.flatten {
            let mut ty = &field.ty;
            if let Type::Option(of) = ty {
                ty = of;
            }
            match ty {
                Type::Named(name) => match types.get(name).map(|definition| &definition.shape) {
                    Some(Shape::Struct { fields, .. }) => {
                        is_rest |= written(types, fields, object, keys)?;
                    }
                    other => return Err(format!("flattened: {other:?}")),
                },
                _ => is_rest = true,
            }
            continue;
        }
        keys.insert(&field.name);
        match object.get(&field.name) {
            Some(value) => fits(types, &field.ty, value)?,
            None => require(field.may_be_skipped, || {
                format!("{} is missing", field.name)
            })?,
        }
    }
    Ok(is_rest)
}

fn variant(types: &Types, shape: &Enum, value: &Value) -> Fit {
    let named = |name: &str| -> Result<&Variant, String> {
        let found = shape.variants.iter().find(|variant| variant.name == name);
        found.ok_or_else(|| format!("no variant {name}"))
    };
    let untagged = |untagged: &Variant| content(types, &untagged.shape, Some(value)).is_ok();
    let mut alone = shape.variants.iter().filter(|variant| variant.untagged);
    match &shape.tagging {
        _ if alone.any(untagged) => Ok(()),
        Tagging::External => {
            if let Some(name) = value.as_str() {
                return content(types, &named(name)?.shape, None);
            }
            let (name, value) = object(value)?.iter().next().ok_or("a variant")?;
            content(types, &named(name)?.shape, Some(value))
        }
        Tagging::Internal { tag } => {
            let object = object(value)?;
            let name = object.get(tag).and_then(Value::as_str).ok_or("a tag")?;
            match &named(name)?.shape {
                VariantShape::Unit => whole(types, &[], object, &[tag]),
                VariantShape::Struct(fields) => whole(types, fields, object, &[tag]),
                VariantShape::Newtype(Type::Named(name)) => {
                    match types.get(name).map(|definition| &definition.shape) {
                        Some(Shape::Struct { fields, .. }) => whole(types, fields, object, &[tag]),
                        other => Err(format!("{other:?} within a tag")),
                    }
                }
                other => Err(format!("{other:?} within a tag")),
            }
        }
        Tagging::Adjacent { tag, content: key } => {
            let object = object(value)?;
            let name = object.get(tag).and_then(Value::as_str).ok_or("a tag")?;
            content(types, &named(name)?.shape, object.get(key))
        }
        Tagging::Untagged => {
            let fitting = shape.variants.iter().any(untagged);
            require(fitting, || "no variant fits".to_owned())
        }
        other => panic!("{other:?} is new"),
    }
}

fn content(types: &Types, shape: &VariantShape, value: Option<&Value>) -> Fit {
    match (shape, value) {
        (VariantShape::Unit, None) => Ok(()),
        (VariantShape::Unit, Some(value)) => require(value.is_null(), || "null".to_owned()),
        (_, None) => Err("the content is missing".to_owned()),
        (VariantShape::Newtype(of), Some(value)) => fits(types, of, value),
        (VariantShape::Tuple(of), Some(value)) => tuple(types, of, value),
        (VariantShape::Struct(fields), Some(value)) => whole(types, fields, object(value)?, &[]),
        (other, _) => panic!("{other:?} is new"),
    }
}
