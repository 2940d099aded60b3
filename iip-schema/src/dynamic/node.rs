//! A value that has been checked against its type, ready to be written.

use serde::Serializer;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, SerializeTuple, SerializeTupleVariant};
use serde_json::Value;

/// A value with the types that serde's data model distinguishes.
#[derive(Debug)]
pub(super) enum Node<'a> {
    Bool(bool),
    U8(u8),
    U16(u16),
    U32(u32),
    U64(u64),
    U128(Box<u128>),
    I8(i8),
    I16(i16),
    I32(i32),
    I64(i64),
    I128(Box<i128>),
    F32(f32),
    F64(f64),
    Char(char),
    Text(&'a str),
    Bytes(Vec<u8>),
    Unit,
    UnitStruct,
    None,
    Some(Box<Self>),
    Newtype(Box<Self>),
    Seq(Vec<Self>),
    Tuple(Vec<Self>),
    /// A map, or a struct of a format with names.
    Map(Vec<(Self, Self)>),
    /// The variant of an enum. Its name is empty in a format without names.
    Variant(u32, &'static str, Box<Content<'a>>),
    Json(&'a Value),
}

/// The content of a variant.
#[derive(Debug)]
pub(super) enum Content<'a> {
    Unit,
    One(Node<'a>),
    Tuple(Vec<Node<'a>>),
}

impl<'a> From<Content<'a>> for Node<'a> {
    /// The content of a variant whose name has a place of its own, or none.
    fn from(content: Content<'a>) -> Self {
        match content {
            Content::Unit => Self::Unit,
            Content::One(node) => node,
            Content::Tuple(nodes) => Self::Tuple(nodes),
        }
    }
}

impl Serialize for Node<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::U8(value) => serializer.serialize_u8(*value),
            Self::U16(value) => serializer.serialize_u16(*value),
            Self::U32(value) => serializer.serialize_u32(*value),
            Self::U64(value) => serializer.serialize_u64(*value),
            Self::U128(value) => serializer.serialize_u128(**value),
            Self::I8(value) => serializer.serialize_i8(*value),
            Self::I16(value) => serializer.serialize_i16(*value),
            Self::I32(value) => serializer.serialize_i32(*value),
            Self::I64(value) => serializer.serialize_i64(*value),
            Self::I128(value) => serializer.serialize_i128(**value),
            Self::F32(value) => serializer.serialize_f32(*value),
            Self::F64(value) => serializer.serialize_f64(*value),
            Self::Char(value) => serializer.serialize_char(*value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::Unit => serializer.serialize_unit(),
            Self::UnitStruct => serializer.serialize_unit_struct(""),
            Self::None => serializer.serialize_none(),
            Self::Some(value) => serializer.serialize_some(value),
            Self::Newtype(value) => serializer.serialize_newtype_struct("", value),
            Self::Seq(elements) => {
                let mut seq = serializer.serialize_seq(Some(elements.len()))?;
                for element in elements {
                    seq.serialize_element(element)?;
                }
                seq.end()
            }
            Self::Tuple(elements) => {
                let mut tuple = serializer.serialize_tuple(elements.len())?;
                for element in elements {
                    tuple.serialize_element(element)?;
                }
                tuple.end()
            }
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
            Self::Variant(index, name, content) => match &**content {
                Content::Unit => serializer.serialize_unit_variant("", *index, name),
                Content::One(value) => {
                    serializer.serialize_newtype_variant("", *index, name, value)
                }
                Content::Tuple(values) => {
                    let len = values.len();
                    let mut tuple = serializer.serialize_tuple_variant("", *index, name, len)?;
                    for value in values {
                        tuple.serialize_field(value)?;
                    }
                    tuple.end()
                }
            },
            Self::Json(value) => value.serialize(serializer),
        }
    }
}
