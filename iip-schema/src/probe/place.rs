//! The deserializer that is observed. Everything generic is here, and as little as possible: it is
//! compiled again for every type.

#![expect(
    clippy::question_mark,
    reason = "`?` is a call of two generic functions, which are compiled again for every type"
)]

use std::any::type_name;
use std::fmt;
use std::mem::discriminant;

use serde::Deserializer;
use serde::de::{DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::fault::Fault;
use super::node::Content;
use super::tracer::{Ask, Id, Tracer};
use crate::types::Type;

/// A place where a value is read.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) tracer: &'a mut Tracer,
}

// These are macros, and without `?`: each further generic function, and each drop of an error,
// would be compiled again for every type.

macro_rules! leaf {
    ($self:ident, $visitor:ty, $value:expr) => {{
        let result = $value;
        if let Err(fault) = &result {
            $self.tracer.leaf_failed(id::<$visitor>, *fault);
        }
        result
    }};
}

macro_rules! value {
    ($self:ident, $value:expr) => {{
        let result = $value;
        let fault = match &result {
            Ok(_) => None,
            Err(fault) => Some(*fault),
        };
        $self.tracer.close(fault);
        result
    }};
}

macro_rules! place {
    ($self:ident) => {
        Place {
            tracer: &mut *$self.tracer,
        }
    };
}

macro_rules! access {
    ($self:ident) => {
        Access {
            tracer: &mut *$self.tracer,
        }
    };
}

fn id<'de, V: Visitor<'de>>() -> Id {
    Id {
        visitor: type_name::<V>(),
        value: type_name::<V::Value>(),
        size: size_of::<V::Value>(),
    }
}

macro_rules! numbers {
    ($($deserialize:ident $visit:ident $kind:ident $number:ty),+ $(,)?) => {$(
        fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            match self.tracer.number(id::<V>, Type::$kind) {
                Ok(number) => leaf!(self, V, visitor.$visit(number as $number)),
                Err(fault) => Err(fault),
            }
        }
    )+};
}

impl<'de> Deserializer<'de> for Place<'_> {
    type Error = Fault;

    fn is_human_readable(&self) -> bool {
        self.tracer.is_readable()
    }

    numbers! {
        deserialize_u8 visit_u8 U8 u8,
        deserialize_u16 visit_u16 U16 u16,
        deserialize_u32 visit_u32 U32 u32,
        deserialize_u64 visit_u64 U64 u64,
        deserialize_u128 visit_u128 U128 u128,
        deserialize_i8 visit_i8 I8 i8,
        deserialize_i16 visit_i16 I16 i16,
        deserialize_i32 visit_i32 I32 i32,
        deserialize_i64 visit_i64 I64 i64,
        deserialize_i128 visit_i128 I128 i128,
        deserialize_f32 visit_f32 F32 f32,
        deserialize_f64 visit_f64 F64 f64,
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.tracer.number(id::<V>, Type::Bool) {
            Ok(number) => leaf!(self, V, visitor.visit_bool(number == 1)),
            Err(fault) => Err(fault),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.tracer.number(id::<V>, Type::Char) {
            Ok(number) => leaf!(self, V, visitor.visit_char(char::from(b'0' + number))),
            Err(fault) => Err(fault),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.tracer.text(id::<V>) {
            Ok(text) => leaf!(self, V, visitor.visit_borrowed_str(text)),
            Err(fault) => Err(fault),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.tracer.bytes(id::<V>) {
            Ok(bytes) => leaf!(self, V, visitor.visit_borrowed_bytes(bytes)),
            Err(fault) => Err(fault),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.tracer.identifier(id::<V>) {
            Ok(name) => leaf!(self, V, visitor.visit_borrowed_str(name)),
            Err(fault) => Err(fault),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.tracer.unit(id::<V>) {
            Ok(()) => leaf!(self, V, visitor.visit_unit()),
            Err(fault) => Err(fault),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.tracer.ignored(id::<V>) {
            Ok(()) => leaf!(self, V, visitor.visit_unit()),
            Err(fault) => Err(fault),
        }
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let ask = match self.tracer.any(id::<V>) {
            Ok(ask) => ask,
            Err(fault) => return Err(fault),
        };
        let visited = match ask {
            Ask::Unit => visitor.visit_unit(),
            Ask::Bool => visitor.visit_bool(true),
            Ask::U64(number) => visitor.visit_u64(number),
            Ask::I64(number) => visitor.visit_i64(number),
            Ask::F64(number) => visitor.visit_f64(number),
            Ask::Text(text) => visitor.visit_borrowed_str(text),
            Ask::Seq => visitor.visit_seq(access!(self)),
            Ask::Map => visitor.visit_map(access!(self)),
        };
        value!(self, visited)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.tracer.option(id::<V>) {
            Ok(true) => value!(self, visitor.visit_some(place!(self))),
            Ok(false) => value!(self, visitor.visit_none()),
            Err(fault) => Err(fault),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.tracer.seq(id::<V>) {
            Ok(()) => value!(self, visitor.visit_seq(access!(self))),
            Err(fault) => Err(fault),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Fault> {
        match self.tracer.tuple(id::<V>, len) {
            Ok(()) => value!(self, visitor.visit_seq(access!(self))),
            Err(fault) => Err(fault),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.tracer.map(id::<V>) {
            Ok(()) => value!(self, visitor.visit_map(access!(self))),
            Err(fault) => Err(fault),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.tracer.unit_struct(id::<V>, name) {
            Ok(()) => value!(self, visitor.visit_unit()),
            Err(fault) => Err(fault),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.tracer.newtype_struct(id::<V>, name) {
            Ok(()) => value!(self, visitor.visit_newtype_struct(place!(self))),
            Err(fault) => Err(fault),
        }
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.tracer.tuple_struct(id::<V>, name, len) {
            Ok(()) => value!(self, visitor.visit_seq(access!(self))),
            Err(fault) => Err(fault),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.tracer.structure(id::<V>, name, fields) {
            Ok(()) => value!(self, visitor.visit_map(access!(self))),
            Err(fault) => Err(fault),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.tracer.enumeration(id::<V>, name, variants) {
            Ok(()) => value!(self, visitor.visit_enum(access!(self))),
            Err(fault) => Err(fault),
        }
    }
}

/// The contents of the innermost open frame of the tracer.
#[derive(Debug)]
pub(super) struct Access<'a> {
    tracer: &'a mut Tracer,
}

/// Reads a name, and reports the discriminant of the result to the tracer.
macro_rules! name {
    ($self:ident, $seed:ident) => {{
        let result = $seed.deserialize(place!($self));
        match &result {
            Ok(value) => $self.tracer.name_read(&discriminant(value)),
            Err(fault) => $self.tracer.name_failed(*fault),
        }
        result
    }};
}

macro_rules! some {
    ($value:expr) => {
        match $value {
            Ok(value) => Ok(Some(value)),
            Err(fault) => Err(fault),
        }
    };
}

impl<'de> SeqAccess<'de> for Access<'_> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        match self.tracer.next_element(type_name::<S::Value>) {
            Ok(true) => some!(seed.deserialize(place!(self))),
            Ok(false) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        self.tracer.size_hint()
    }
}

impl<'de> MapAccess<'de> for Access<'_> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        match self.tracer.next_key(type_name::<S::Value>) {
            Ok(true) => some!(name!(self, seed)),
            Ok(false) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        match self.tracer.next_value(type_name::<S::Value>) {
            Ok(()) => seed.deserialize(place!(self)),
            Err(fault) => Err(fault),
        }
    }
}

impl<'de> EnumAccess<'de> for Access<'_> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Fault> {
        if let Err(fault) = self.tracer.variant_name(type_name::<S::Value>) {
            return Err(fault);
        }
        match name!(self, seed) {
            Ok(value) => Ok((value, self)),
            Err(fault) => Err(fault),
        }
    }
}

impl<'de> VariantAccess<'de> for Access<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        self.tracer.variant(Content::Unit, &[])?;
        self.tracer.close(None);
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Fault> {
        match self.tracer.variant(Content::Newtype, &[]) {
            Ok(()) => value!(self, seed.deserialize(place!(self))),
            Err(fault) => Err(fault),
        }
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Fault> {
        match self.tracer.variant(Content::Tuple(len), &[]) {
            Ok(()) => value!(self, visitor.visit_seq(access!(self))),
            Err(fault) => Err(fault),
        }
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.tracer.variant(Content::Struct, fields) {
            Ok(()) => value!(self, visitor.visit_map(access!(self))),
            Err(fault) => Err(fault),
        }
    }
}

/// The mark that all names of a field or variant share: the discriminant of the value that they are
/// read into.
pub(super) type Mark<'a> = &'a dyn fmt::Debug;
