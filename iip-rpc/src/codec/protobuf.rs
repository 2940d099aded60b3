//! Protobuf, by prost: plain messages, without serde.

use std::fmt;
use std::ops::{Deref, DerefMut};

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use serde::de::{DeserializeSeed, Error as _, SeqAccess, Visitor};
use serde::ser::{Error as _, Impossible, SerializeTuple};
use serde::{Deserialize, Deserializer, Serialize, Serializer, forward_to_deserialize_any};

use super::gathering::{Gathering, write_by};
use super::stack::{MAX_STACK_BYTES, stack_position};
use super::{
    Codec, CodecId, DecodeError, DecodeErrorKind, DecodeLimits, EncodeError, EncodeErrorKind,
};
use crate::payload::{self, Payload};

/// Maximum depth of nested messages in prost. It cannot be changed.
const MAX_DEPTH: u16 = 100;

/// Name under which serde sees a [`Proto`].
const NAME: &str = "$iip_rpc::Proto";

/// Error text for every other type.
const ONLY_MESSAGES: &str = "protobuf carries one protobuf message; put it into `Proto` or choose \
    another codec for the service";

/// Protobuf: the bytes of exactly one [`Proto`] message, which needs no serde. For services with
/// `#[service(codec = "protobuf")]`, whose methods take and return types with `prost::Message`.
///
/// Fields that the receiver does not know are skipped, and missing fields have their default.
/// Messages may be nested 100 levels deep, regardless of [`DecodeLimits::max_depth`].
#[derive(Debug, Clone, Copy)]
pub enum Protobuf {}

impl Codec for Protobuf {
    const ID: CodecId = CodecId::PROTOBUF;
    const BYTES_ARE_SEQUENCES: bool = false;

    write_by!(write);

    fn decode_seed<'de, S: DeserializeSeed<'de>>(
        seed: S,
        input: &'de [u8],
        limits: &DecodeLimits,
    ) -> Result<S::Value, DecodeError> {
        limits.check_size(input)?;
        seed.deserialize(OneMessage(input))
    }
}

fn write<'a, T: Serialize + ?Sized>(
    value: &T,
    mut output: Gathering<'a>,
) -> Result<Gathering<'a>, EncodeError> {
    value.serialize(Encoder {
        output: &mut output,
        inside: false,
    })?;
    Ok(output)
}

/// A protobuf message as an argument, as a result, or anywhere inside one: any type with
/// `prost::Message`, which does not need serde.
///
/// In a service with `#[service(codec = "protobuf")]` the macro wraps and unwraps messages; a
/// message is then the whole body of a request or a reply. In every other codec a `Proto` is
/// encoded as the bytes of its message, like a [`Payload`].
///
/// # Examples
///
/// ```
/// use iip_rpc::Proto;
///
/// let text: Proto<String> = Proto("abc".to_owned()); // google.protobuf.StringValue
/// assert_eq!(text.len(), 3);
/// assert_eq!(serde_json::to_string(&text)?, "[10,3,97,98,99]");
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// Needs the feature `codec-prost`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Proto<M>(pub M);

impl<M> Proto<M> {
    /// Returns the message.
    #[must_use]
    pub fn into_inner(self) -> M {
        self.0
    }
}

impl<M> From<M> for Proto<M> {
    fn from(message: M) -> Self {
        Self(message)
    }
}

impl<M> Deref for Proto<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.0
    }
}

impl<M> DerefMut for Proto<M> {
    fn deref_mut(&mut self) -> &mut M {
        &mut self.0
    }
}

impl<M: Message + Default> Serialize for Proto<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ProtoRef(&self.0).serialize(serializer)
    }
}

/// A borrowed [`Proto`].
///
/// Needs the feature `codec-prost`.
#[derive(Debug)]
pub struct ProtoRef<'a, M>(pub &'a M);

impl<M: Message + Default> Serialize for ProtoRef<'_, M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.encode_to_vec();
        if is_too_deep::<M>(&bytes) {
            let limit = MAX_DEPTH;
            return Err(S::Error::custom(EncodeErrorKind::TooDeep { limit }));
        }
        serializer.serialize_newtype_struct(NAME, &Payload::from(bytes))
    }
}

/// Returns `true` if messages in `bytes` are nested deeper than prost reads. prost writes any
/// depth.
#[inline]
fn is_too_deep<M: Message + Default>(bytes: &[u8]) -> bool {
    // Each level takes at least two bytes.
    if bytes.len() <= 2 * usize::from(MAX_DEPTH) {
        return false;
    }
    // Fields that look like messages may be texts or bytes, which only the type can distinguish.
    possible_depth(bytes, MAX_DEPTH)
        && decode::<M>(bytes)
            .is_err_and(|error| matches!(error.kind(), DecodeErrorKind::TooDeep { .. }))
}

/// Returns `true` if `bytes` may contain messages nested through `levels` levels: looks into every
/// field that could be a message.
fn possible_depth(bytes: &[u8], levels: u16) -> bool {
    deepest(bytes, levels).is_some_and(|depth| depth >= levels)
}

/// Returns the maximum depth of the message `bytes`, up to `levels`; `None` if it is not a message.
fn deepest(mut bytes: &[u8], levels: u16) -> Option<u16> {
    let (mut deepest, mut groups) = (0u16, 0u16);
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        if key >> 3 == 0 || key > u64::from(u32::MAX) {
            return None;
        }
        let skipped = match key & 7 {
            0 => {
                varint(&mut bytes)?;
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)?).ok()?,
            3 => {
                groups = groups.saturating_add(1);
                deepest = deepest.max(groups);
                0
            }
            4 => {
                groups = groups.checked_sub(1)?;
                0
            }
            5 => 4,
            _ => return None,
        };
        let (field, rest) = bytes.split_at_checked(skipped)?;
        bytes = rest;
        if key & 7 == 2
            && let Some(levels) = levels.checked_sub(groups + 1)
            && let Some(inside) = self::deepest(field, levels)
        {
            deepest = deepest.max(inside.saturating_add(groups + 1));
        }
    }
    (groups == 0).then_some(deepest)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

impl<'de, M: Message + Default> Deserialize<'de> for Proto<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Reads the bytes in place, so that they are copied only into the message itself.
        struct InNewtype<M>(std::marker::PhantomData<M>);

        impl<'de, M: Message + Default> Visitor<'de> for InNewtype<M> {
            type Value = Proto<M>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a protobuf message")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                inner: D,
            ) -> Result<Proto<M>, D::Error> {
                inner.deserialize_bytes(self)
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Proto<M>, E> {
                decode(bytes).map(Proto).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Proto<M>, A::Error> {
                let seq = serde::de::value::SeqAccessDeserializer::new(seq);
                self.visit_bytes(&Payload::deserialize(seq)?)
            }
        }

        deserializer.deserialize_newtype_struct(NAME, InNewtype(std::marker::PhantomData))
    }
}

fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, DecodeError> {
    let mut input = Input {
        rest: bytes,
        stack_at_start: stack_position(),
        too_much_stack: false,
    };
    let message = M::decode(&mut input);
    if input.too_much_stack {
        return Err(DecodeError::new(DecodeErrorKind::TooMuchStack {
            limit: MAX_STACK_BYTES,
        }));
    }
    message.map_err(|error| {
        let text = error.to_string();
        // prost has no error kinds.
        DecodeError::new(if text.ends_with("recursion limit reached") {
            DecodeErrorKind::TooDeep { limit: MAX_DEPTH }
        } else {
            DecodeErrorKind::Value(text)
        })
    })
}

/// The bytes of a message as prost reads them. prost limits the levels, but not the stack that a
/// level takes: if it takes too much, the input ends, and the result of prost is ignored.
struct Input<'a> {
    rest: &'a [u8],
    stack_at_start: usize,
    too_much_stack: bool,
}

impl Buf for Input<'_> {
    fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn chunk(&self) -> &[u8] {
        self.rest
    }

    /// Skips bytes that have been read, such as the key at the beginning of every field, on every
    /// level. The input ends early only here: bytes that prost has seen remain until they are
    /// taken.
    fn advance(&mut self, count: usize) {
        self.rest.advance(count);
        if self.stack_at_start.abs_diff(stack_position()) > MAX_STACK_BYTES {
            self.too_much_stack = true;
            self.rest = &[];
        }
    }

    /// Returns the bytes of a field of the type `Bytes`, as a part of the message.
    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        let part = payload::share(&self.rest[..len]);
        self.rest.advance(len);
        part
    }
}

/// Writes one [`Proto`], alone or as the only argument.
struct Encoder<'o, 'a> {
    output: &'o mut Gathering<'a>,
    /// Set within the `Proto`: its bytes are next.
    inside: bool,
}

type Never = Impossible<(), EncodeError>;

macro_rules! reject {
    ($($name:ident ($($argument:ty),*) -> $result:ty;)*) => { $(
        fn $name(self $(, _: $argument)*) -> Result<$result, EncodeError> {
            Err(EncodeError::custom(ONLY_MESSAGES))
        }
    )* };
}

impl<'o, 'a> Serializer for Encoder<'o, 'a> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = Never;
    type SerializeTuple = OneArgument<'o, 'a>;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Never;
    type SerializeStructVariant = Never;

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        if name != NAME {
            return Err(EncodeError::custom(ONLY_MESSAGES));
        }
        value.serialize(Self {
            inside: true,
            ..self
        })
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), EncodeError> {
        if !self.inside {
            return Err(EncodeError::custom(ONLY_MESSAGES));
        }
        self.output.push(bytes);
        Ok(())
    }

    fn serialize_tuple(self, len: usize) -> Result<OneArgument<'o, 'a>, EncodeError> {
        if len != 1 || self.inside {
            return Err(EncodeError::custom(ONLY_MESSAGES));
        }
        Ok(OneArgument(self.output))
    }

    reject! {
        serialize_bool(bool) -> ();
        serialize_i8(i8) -> ();
        serialize_i16(i16) -> ();
        serialize_i32(i32) -> ();
        serialize_i64(i64) -> ();
        serialize_u8(u8) -> ();
        serialize_u16(u16) -> ();
        serialize_u32(u32) -> ();
        serialize_u64(u64) -> ();
        serialize_f32(f32) -> ();
        serialize_f64(f64) -> ();
        serialize_char(char) -> ();
        serialize_str(&str) -> ();
        serialize_none() -> ();
        serialize_unit() -> ();
        serialize_unit_struct(&'static str) -> ();
        serialize_unit_variant(&'static str, u32, &'static str) -> ();
        serialize_seq(Option<usize>) -> Never;
        serialize_tuple_struct(&'static str, usize) -> Never;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Never;
        serialize_map(Option<usize>) -> Never;
        serialize_struct(&'static str, usize) -> Never;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Never;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<(), EncodeError> {
        Err(EncodeError::custom(ONLY_MESSAGES))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), EncodeError> {
        Err(EncodeError::custom(ONLY_MESSAGES))
    }
}

/// The tuple of the arguments, which has one element.
struct OneArgument<'o, 'a>(&'o mut Gathering<'a>);

impl SerializeTuple for OneArgument<'_, '_> {
    type Ok = ();
    type Error = EncodeError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        value.serialize(Encoder {
            output: self.0,
            inside: false,
        })
    }

    fn end(self) -> Result<(), EncodeError> {
        Ok(())
    }
}

/// A whole message, which is read as one [`Proto`], alone or as the only argument.
struct OneMessage<'de>(&'de [u8]);

impl<'de> Deserializer<'de> for OneMessage<'de> {
    type Error = DecodeError;

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        if name != NAME {
            return self.deserialize_any(visitor);
        }
        visitor.visit_borrowed_bytes(self.0)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        if len != 1 {
            return self.deserialize_any(visitor);
        }
        visitor.visit_seq(OneElement(Some(self)))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, DecodeError> {
        Err(DecodeError::custom(ONLY_MESSAGES))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct seq tuple_struct map struct enum identifier ignored_any
    }
}

struct OneElement<'de>(Option<OneMessage<'de>>);

impl<'de> SeqAccess<'de> for OneElement<'de> {
    type Error = DecodeError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DecodeError> {
        let message = self.0.take();
        message.map(|message| seed.deserialize(message)).transpose()
    }
}

/// Includes the code that `iip-build` has generated for a protobuf package in `OUT_DIR`: its
/// messages, and a trait for each of its services.
///
/// It belongs in a separate module. Packages that use each other's messages need modules that are
/// named and nested like the packages: `kv.v1` in `mod kv { pub mod v1 { .. } }`.
///
/// # Examples
///
/// ```ignore
/// pub mod kv {
///     iip_rpc::include_proto!("kv.v1");
/// }
/// ```
#[macro_export]
macro_rules! include_proto {
    ($package:tt) => {
        include!(concat!(env!("OUT_DIR"), concat!("/", $package, ".rs")));
    };
}
