//! Values of a self-describing format that are kept until it is known what they are.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Number, Value};

use super::lift;
use crate::dynamic::context::Context;
use crate::dynamic::error::Path;

/// Keys and values.
pub(super) type Entries = Vec<(Content, Content)>;

/// A value of unknown type.
#[derive(Debug, Clone)]
pub(in crate::dynamic) enum Content {
    Null,
    Bool(bool),
    Unsigned(u128),
    Signed(i128),
    Single(f32),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Seq(Vec<Self>),
    Map(Vec<(Self, Self)>),
}

impl Content {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// A deserializer of the value.
    pub(in crate::dynamic) fn reader<E>(&self, readable: bool) -> Reader<'_, E> {
        Reader {
            content: self,
            readable,
            marker: PhantomData,
        }
    }

    /// An object without keys in the place of `null`.
    pub(in crate::dynamic) fn or_empty(self) -> Self {
        match self {
            Self::Null => Self::Map(Vec::new()),
            other => other,
        }
    }

    /// The value as JSON, with keys but without what they stand for.
    pub(in crate::dynamic) fn outline(&self) -> Value {
        let Self::Map(entries) = self else {
            return Value::Null;
        };
        let keys = entries.iter().filter_map(|(key, _)| key.text());
        Value::Object(keys.map(|key| (key.to_owned(), Value::Null)).collect())
    }

    /// The value as JSON.
    pub(super) fn into_json(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Unsigned(number) => match u64::try_from(number) {
                Ok(number) => Value::from(number),
                Err(_) => Value::String(number.to_string()),
            },
            Self::Signed(number) => match i64::try_from(number) {
                Ok(number) => Value::from(number),
                Err(_) => Value::String(number.to_string()),
            },
            Self::Single(number) => Self::Float(number.into()).into_json(),
            Self::Float(number) => match Number::from_f64(number) {
                Some(number) => Value::Number(number),
                None if number.is_nan() => Value::from("NaN"),
                None if number > 0.0 => Value::from("Infinity"),
                None => Value::from("-Infinity"),
            },
            Self::Text(text) => Value::String(text),
            Self::Bytes(bytes) => Value::from(bytes),
            Self::Seq(elements) => elements.into_iter().map(Self::into_json).collect(),
            Self::Map(entries) => {
                let texts = entries.iter().all(|(key, _)| matches!(key, Self::Text(_)));
                let entries = entries.into_iter();
                let entries = entries.map(|(key, value)| (key.into_json(), value.into_json()));
                if !texts {
                    return entries
                        .map(|(key, value)| Value::Array(vec![key, value]))
                        .collect();
                }
                let mut object = Map::new();
                for (key, value) in entries {
                    if let Value::String(key) = key {
                        object.insert(key, value);
                    }
                }
                Value::Object(object)
            }
        }
    }
}

/// Reads a value of unknown type.
pub(super) fn read<'de, D: Deserializer<'de>>(
    context: &Context<'_>,
    path: &Path<'_>,
    deserializer: D,
) -> Result<Content, D::Error> {
    Buffer(context, path).deserialize(deserializer)
}

/// Reads a value of unknown type at a place.
pub(super) struct Buffer<'s, 't>(pub(super) &'s Context<'t>, pub(super) &'s Path<'s>);

impl<'de> DeserializeSeed<'de> for Buffer<'_, '_> {
    type Value = Content;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        self.0.spend(1, self.1).map_err(lift)?;
        deserializer.deserialize_any(self)
    }
}

macro_rules! visit {
    ($($name:ident $type:ty => $variant:ident)*) => { $(
        fn $name<E: Error>(self, value: $type) -> Result<Content, E> {
            Ok(Content::$variant(value.into()))
        }
    )* };
}

impl<'de> Visitor<'de> for Buffer<'_, '_> {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    visit! {
        visit_bool bool => Bool
        visit_u64 u64 => Unsigned
        visit_u128 u128 => Unsigned
        visit_i64 i64 => Signed
        visit_i128 i128 => Signed
        visit_f32 f32 => Single
        visit_f64 f64 => Float
        visit_str &str => Text
        visit_string String => Text
        visit_bytes &[u8] => Bytes
        visit_byte_buf Vec<u8> => Bytes
    }

    fn visit_unit<E: Error>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        let path = self.1.wrapped().map_err(lift)?;
        Buffer(self.0, &path).deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Content, D::Error> {
        self.visit_some(inner)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
        let mut elements = Vec::new();
        loop {
            let path = self.1.index(elements.len()).map_err(lift)?;
            match seq.next_element_seed(Buffer(self.0, &path))? {
                Some(element) => elements.push(element),
                None => return Ok(Content::Seq(elements)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut entries = Vec::new();
        loop {
            let path = self.1.index(entries.len()).map_err(lift)?;
            match map.next_entry_seed(Buffer(self.0, &path), Buffer(self.0, &path))? {
                Some(entry) => entries.push(entry),
                None => return Ok(Content::Map(entries)),
            }
        }
    }
}

/// Deserializes a kept value.
pub(in crate::dynamic) struct Reader<'c, E> {
    content: &'c Content,
    readable: bool,
    marker: PhantomData<E>,
}

impl<E: Error> IntoDeserializer<'_, E> for Reader<'_, E> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de, E: Error> Deserializer<'de> for Reader<'_, E> {
    type Error = E;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        let readable = self.readable;
        match self.content {
            Content::Null => visitor.visit_unit(),
            Content::Bool(value) => visitor.visit_bool(*value),
            Content::Unsigned(number) => match u64::try_from(*number) {
                Ok(number) => visitor.visit_u64(number),
                Err(_) => visitor.visit_u128(*number),
            },
            Content::Signed(number) => match i64::try_from(*number) {
                Ok(number) => visitor.visit_i64(number),
                Err(_) => visitor.visit_i128(*number),
            },
            Content::Single(number) => visitor.visit_f32(*number),
            Content::Float(number) => visitor.visit_f64(*number),
            Content::Text(text) => visitor.visit_str(text),
            Content::Bytes(bytes) => visitor.visit_bytes(bytes),
            Content::Seq(elements) => {
                let elements = elements.iter().map(|element| element.reader::<E>(readable));
                visitor.visit_seq(SeqDeserializer::new(elements))
            }
            Content::Map(entries) => {
                let entries = entries
                    .iter()
                    .map(|(key, value)| (key.reader::<E>(readable), value.reader::<E>(readable)));
                visitor.visit_map(MapDeserializer::new(entries))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        match self.content {
            Content::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, E> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, E> {
        match self.content {
            // MessagePack has a struct without fields as an empty list.
            Content::Seq(elements) if elements.is_empty() => visitor.visit_unit(),
            Content::Map(entries) if entries.is_empty() => visitor.visit_unit(),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, E> {
        match self.content {
            Content::Text(variant) => {
                let variant: StrDeserializer<'_, E> = (&**variant).into_deserializer();
                variant.deserialize_enum(name, variants, visitor)
            }
            Content::Map(entries) if entries.len() == 1 => {
                let readable = self.readable;
                let entries = entries
                    .iter()
                    .map(|(key, value)| (key.reader::<E>(readable), value.reader::<E>(readable)));
                MapAccessDeserializer::new(MapDeserializer::new(entries))
                    .deserialize_enum(name, variants, visitor)
            }
            _ => Err(E::custom(
                "expected the name of a variant, or an object with one key",
            )),
        }
    }

    fn is_human_readable(&self) -> bool {
        self.readable
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        seq tuple tuple_struct map struct identifier ignored_any
    }
}
