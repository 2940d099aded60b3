//! Reads values as JSON.

mod buffered;
mod collection;
mod record;
mod scalar;
mod variant;

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, Visitor};
use serde_json::Value;

use self::buffered::Content;
use self::collection::{Map, Parts, Seq};
use self::record::Fields;
use self::scalar::Scalar;
use super::context::{Context, Form, Record};
use super::error::{DynamicError, Path};
use super::forms;
use super::write::opaque;
use crate::types::{Field, Type};

/// Reads a value of a type at a place.
#[derive(Clone, Copy)]
pub(super) struct Seed<'s, 't> {
    context: &'s Context<'t>,
    ty: &'t Type,
    path: &'s Path<'s>,
    /// The value is the key of a map, which may be a text in the place of a number.
    is_key: bool,
}

impl<'s, 't> Seed<'s, 't> {
    pub(super) fn new(context: &'s Context<'t>, ty: &'t Type, path: &'s Path<'s>) -> Self {
        Self {
            context,
            ty,
            path,
            is_key: false,
        }
    }

    /// Reads another type at another place.
    fn of<'n>(&self, ty: &'t Type, path: &'n Path<'n>) -> Seed<'n, 't>
    where
        's: 'n,
    {
        Seed {
            ty,
            path,
            context: self.context,
            is_key: false,
        }
    }

    /// Reads what a newtype or an option consists of.
    fn within<'n>(&self, ty: &'t Type, path: &'n Path<'n>) -> Seed<'n, 't>
    where
        's: 'n,
    {
        Seed {
            is_key: self.is_key,
            ..self.of(ty, path)
        }
    }

    fn read<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.context.spend(1, self.path).map_err(lift)?;
        match self.context.form(self.ty, self.path).map_err(lift)? {
            Form::Plain(ty) => Self { ty, ..self }.plain(deserializer),
            Form::Unit => deserializer.deserialize_unit_struct(
                "",
                Scalar(Seed {
                    ty: &Type::Unit,
                    ..self
                }),
            ),
            Form::Newtype(ty) => {
                deserializer.deserialize_newtype_struct("", Inside(Self { ty, ..self }))
            }
            Form::Tuple(types) => {
                deserializer.deserialize_tuple(types.len(), Seq::new(self, Parts::Each(types)))
            }
            Form::Struct(record) => Fields::new(self, record).map_err(lift)?.read(deserializer),
            Form::Enum(name, shape) => variant::read(self, name, shape, deserializer),
            Form::Pair { readable, compact } => {
                let path = self.path.wrapped().map_err(lift)?;
                let value = self.within(compact, &path).read(deserializer)?;
                let known = forms::known(self.context, readable, compact);
                let text = known.and_then(|known| forms::show(known, &value));
                Ok(text.map_or(value, Value::String))
            }
        }
    }

    fn plain<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.ty {
            Type::Bool => deserializer.deserialize_bool(Scalar(self)),
            Type::U8 => deserializer.deserialize_u8(Scalar(self)),
            Type::U16 => deserializer.deserialize_u16(Scalar(self)),
            Type::U32 => deserializer.deserialize_u32(Scalar(self)),
            Type::U64 => deserializer.deserialize_u64(Scalar(self)),
            Type::U128 => deserializer.deserialize_u128(Scalar(self)),
            Type::I8 => deserializer.deserialize_i8(Scalar(self)),
            Type::I16 => deserializer.deserialize_i16(Scalar(self)),
            Type::I32 => deserializer.deserialize_i32(Scalar(self)),
            Type::I64 => deserializer.deserialize_i64(Scalar(self)),
            Type::I128 => deserializer.deserialize_i128(Scalar(self)),
            Type::F32 => deserializer.deserialize_f32(Scalar(self)),
            Type::F64 => deserializer.deserialize_f64(Scalar(self)),
            Type::Char => deserializer.deserialize_char(Scalar(self)),
            Type::Text => deserializer.deserialize_str(Scalar(self)),
            Type::Bytes => deserializer.deserialize_bytes(Scalar(self)),
            Type::Unit => deserializer.deserialize_unit(Scalar(self)),
            Type::Option(ty) => deserializer.deserialize_option(Inside(Self { ty, ..self })),
            Type::Seq(of) => deserializer.deserialize_seq(Seq::new(self, Parts::Any(of))),
            Type::Array(of, len) => match usize::try_from(*len) {
                Ok(len) => {
                    let parts = Seq::new(self, Parts::Same(of, len));
                    deserializer.deserialize_tuple(len, parts)
                }
                Err(_) => Err(lift(
                    self.path.error("the array is too long for this machine"),
                )),
            },
            Type::Tuple(types) => {
                deserializer.deserialize_tuple(types.len(), Seq::new(self, Parts::Each(types)))
            }
            Type::Map(key, of) => deserializer.deserialize_map(Map {
                seed: self,
                key,
                of,
            }),
            Type::Any | Type::Opaque { .. } => {
                opaque(self.context, self.ty, self.path).map_err(lift)?;
                let content = buffered::read(self.context, self.path, deserializer)?;
                Ok(content.into_json())
            }
            Type::Named(_) | Type::ByFormat { .. } => Err(lift(
                self.path.error("the type of this value is not resolved"),
            )),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.read(deserializer)
    }
}

/// Reads named fields, such as arguments.
pub(super) fn fields<'de, 't, D: Deserializer<'de>>(
    context: &Context<'t>,
    record: Record<'t>,
    deserializer: D,
) -> Result<Value, D::Error> {
    let seed = Seed::new(context, &Type::Unit, &Path::ROOT);
    Fields::new(seed, record).map_err(lift)?.read(deserializer)
}

/// Reads a value of unknown type.
pub(super) fn buffer<'de, D: Deserializer<'de>>(
    context: &Context<'_>,
    deserializer: D,
) -> Result<Content, D::Error> {
    buffered::read(context, &Path::ROOT, deserializer)
}

/// Reads the value of one field as an object with it.
pub(super) fn one<'t, E: Error>(
    context: &Context<'t>,
    field: &'t Field,
    content: &Content,
) -> Result<Value, E> {
    let path = Path::ROOT.key(&field.name).map_err(lift)?;
    let seed = Seed::new(context, &field.ty, &path);
    let value = seed.deserialize(content.reader(context.readable))?;
    Ok(Value::Object(serde_json::Map::from_iter([(
        field.name.clone(),
        value,
    )])))
}

/// Converts an error of this module to one of the format.
#[cold]
fn lift<E: Error>(error: DynamicError) -> E {
    E::custom(error)
}

/// Reads an option or a newtype, whose content the seed has.
struct Inside<'s, 't>(Seed<'s, 't>);

impl<'de> Visitor<'de> for Inside<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, or none")
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let path = self.0.path.wrapped().map_err(lift)?;
        self.0.within(self.0.ty, &path).read(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
        self.visit_some(inner)
    }
}
