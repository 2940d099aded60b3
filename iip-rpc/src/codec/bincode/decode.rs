//! The decoder: a deserializer with limits.

use std::any::type_name;
use std::marker::PhantomData;

use ::bincode::config::{Configuration, standard};
use ::bincode::de::read::{BorrowReader, Reader};
use ::bincode::de::{BorrowDecoder, Decode, DecoderImpl};
use ::bincode::error::DecodeError as ReadError;
use serde::Deserializer;
use serde::de::value::{U8Deserializer, U32Deserializer};
use serde::de::{
    DeserializeSeed, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

use crate::codec::stack::{MAX_STACK_BYTES, stack_position};
use crate::codec::{DecodeError, DecodeErrorKind, DecodeLimits};

/// The rest of a message.
struct Input<'de>(&'de [u8]);

impl<'de> Reader for Input<'de> {
    #[inline]
    fn read(&mut self, bytes: &mut [u8]) -> Result<(), ReadError> {
        bytes.copy_from_slice(self.take_bytes(bytes.len())?);
        Ok(())
    }

    #[inline]
    fn peek_read(&mut self, count: usize) -> Option<&[u8]> {
        self.0.get(..count)
    }

    #[inline]
    fn consume(&mut self, count: usize) {
        self.0 = self.0.get(count..).unwrap_or_default();
    }
}

impl<'de> BorrowReader<'de> for Input<'de> {
    #[inline]
    fn take_bytes(&mut self, count: usize) -> Result<&'de [u8], ReadError> {
        let Some((taken, rest)) = self.0.split_at_checked(count) else {
            return Err(ReadError::UnexpectedEnd {
                additional: count - self.0.len(),
            });
        };
        self.0 = rest;
        Ok(taken)
    }
}

pub(super) struct Decoder<'de> {
    inner: DecoderImpl<Input<'de>, Configuration, ()>,
    /// Number of further containers that may be nested.
    levels_left: u16,
    /// Number of further options and newtypes that may be nested; a recursive type can consist of
    /// them as well.
    wrappers_left: u16,
    max_depth: u16,
    stack_at_start: usize,
}

impl<'de> Decoder<'de> {
    #[inline]
    pub(super) fn new(input: &'de [u8], limits: &DecodeLimits) -> Result<Self, DecodeError> {
        limits.check_size(input)?;
        Ok(Self {
            inner: DecoderImpl::new(Input(input), standard(), ()),
            levels_left: limits.max_depth,
            wrappers_left: limits.max_depth.saturating_mul(4),
            max_depth: limits.max_depth,
            stack_at_start: stack_position(),
        })
    }

    /// Checks that nothing is left of the input.
    #[inline]
    pub(super) fn finish(&mut self) -> Result<(), DecodeError> {
        match self.left() {
            0 => Ok(()),
            left => Err(DecodeError::new(DecodeErrorKind::TrailingBytes { left })),
        }
    }

    #[inline]
    fn input(&mut self) -> &mut Input<'de> {
        self.inner.borrow_reader()
    }

    #[inline]
    fn left(&mut self) -> usize {
        self.input().0.len()
    }

    #[inline]
    fn take<T: Decode<()>>(&mut self) -> Result<T, DecodeError> {
        T::decode(&mut self.inner).map_err(read_error)
    }

    /// Reads an unsigned integer. Integers of one byte are the most frequent ones, and come first.
    #[inline]
    fn take_unsigned<T: Decode<()> + From<u8>>(&mut self) -> Result<T, DecodeError> {
        let input = self.input();
        if let Some((&byte @ ..=250, rest)) = input.0.split_first() {
            input.0 = rest;
            return Ok(byte.into());
        }
        self.take()
    }

    /// Reads a length, which cannot exceed the number of bytes left: each element takes at least
    /// one byte.
    #[inline]
    fn take_len(&mut self) -> Result<usize, DecodeError> {
        let claimed: u64 = self.take_unsigned()?;
        let left = self.left();
        match usize::try_from(claimed) {
            Ok(len) if len <= left => Ok(len),
            _ => Err(DecodeError::new(DecodeErrorKind::TooLong { claimed, left })),
        }
    }

    #[inline]
    fn take_slice(&mut self) -> Result<&'de [u8], DecodeError> {
        let len = self.take_len()?;
        self.input().take_bytes(len).map_err(read_error)
    }

    #[inline]
    fn take_str(&mut self) -> Result<&'de str, DecodeError> {
        std::str::from_utf8(self.take_slice()?)
            .map_err(|inner| read_error(ReadError::Utf8 { inner }))
    }

    /// Runs `read` one level deeper. An error ends the whole decoding, so the level is left only
    /// after a success.
    #[inline]
    fn nested<R>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<R, DecodeError>,
    ) -> Result<R, DecodeError> {
        self.enter()?;
        let value = read(self);
        if value.is_ok() {
            self.levels_left += 1;
        }
        value
    }

    #[inline]
    fn enter(&mut self) -> Result<(), DecodeError> {
        let Some(levels_left) = self.levels_left.checked_sub(1) else {
            return Err(self.too_deep());
        };
        if self.stack_at_start.abs_diff(stack_position()) > MAX_STACK_BYTES {
            return Err(DecodeError::new(DecodeErrorKind::TooMuchStack {
                limit: MAX_STACK_BYTES,
            }));
        }
        self.levels_left = levels_left;
        Ok(())
    }

    /// Runs `read` for an option or a newtype, which do not count as levels but have a separate
    /// limit.
    #[inline]
    fn wrapped<R>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<R, DecodeError>,
    ) -> Result<R, DecodeError> {
        let Some(wrappers_left) = self.wrappers_left.checked_sub(1) else {
            return Err(self.too_deep());
        };
        self.wrappers_left = wrappers_left;
        let value = read(self)?;
        self.wrappers_left += 1;
        Ok(value)
    }

    #[cold]
    fn too_deep(&self) -> DecodeError {
        DecodeError::new(DecodeErrorKind::TooDeep {
            limit: self.max_depth,
        })
    }

    #[inline]
    fn fields<V: Visitor<'de>>(
        &mut self,
        count: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_seq(Fields {
            decoder: self,
            left: count,
        })
    }
}

macro_rules! read_as_it_is {
    ($($name:ident $visit:ident $take:ident)*) => { $(
        #[inline]
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            visitor.$visit(self.$take()?)
        }
    )* };
}

impl<'de> Deserializer<'de> for &mut Decoder<'de> {
    type Error = DecodeError;

    read_as_it_is! {
        deserialize_bool visit_bool take
        deserialize_i8 visit_i8 take
        deserialize_i16 visit_i16 take
        deserialize_i32 visit_i32 take
        deserialize_i64 visit_i64 take
        deserialize_i128 visit_i128 take
        deserialize_u8 visit_u8 take
        deserialize_u16 visit_u16 take_unsigned
        deserialize_u32 visit_u32 take_unsigned
        deserialize_u64 visit_u64 take_unsigned
        deserialize_u128 visit_u128 take_unsigned
        deserialize_f32 visit_f32 take
        deserialize_f64 visit_f64 take
        deserialize_char visit_char take
        deserialize_str visit_borrowed_str take_str
        deserialize_string visit_borrowed_str take_str
        deserialize_bytes visit_borrowed_bytes take_slice
        deserialize_byte_buf visit_borrowed_bytes take_slice
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.take::<u8>()? {
            0 => visitor.visit_none(),
            1 => self.wrapped(|inner| visitor.visit_some(inner)),
            other => Err(DecodeError::custom(format_args!(
                "{other} is neither 0 nor 1, the first byte of an option"
            ))),
        }
    }

    #[inline]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.wrapped(|inner| visitor.visit_newtype_struct(inner))
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let left = self.take_len()?;
        self.nested(|decoder| visitor.visit_seq(Elements::new(decoder, left)))
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let left = self.take_len()?;
        self.nested(|decoder| {
            visitor.visit_map(Entries {
                decoder,
                left,
                bytes_at_key: usize::MAX,
            })
        })
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.nested(|decoder| decoder.fields(len, visitor))
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_tuple(len, visitor)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.nested(|decoder| visitor.visit_enum(decoder))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, DecodeError> {
        Err(not_self_describing())
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, DecodeError> {
        Err(not_self_describing())
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, DecodeError> {
        Err(not_self_describing())
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The parts of a struct or a tuple, whose number is that of the type.
struct Fields<'d, 'de> {
    decoder: &'d mut Decoder<'de>,
    left: usize,
}

impl<'de> SeqAccess<'de> for Fields<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DecodeError> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        seed.deserialize(&mut *self.decoder).map(Some)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// The elements of a sequence, whose number the message claims.
struct Elements<'d, 'de> {
    decoder: &'d mut Decoder<'de>,
    left: usize,
    /// The rest of the message. It is kept here while the elements are bytes, so that it can stay
    /// in registers, and returned to the decoder for anything else.
    rest: &'de [u8],
}

impl<'d, 'de> Elements<'d, 'de> {
    #[inline]
    fn new(decoder: &'d mut Decoder<'de>, left: usize) -> Self {
        let rest = decoder.input().0;
        Self {
            decoder,
            left,
            rest,
        }
    }
}

impl Drop for Elements<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        self.decoder.input().0 = self.rest;
    }
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DecodeError> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        // Exactly one type has this name, so this only selects a faster path to the same result.
        if type_name::<S>() == type_name::<PhantomData<u8>>()
            && let Some((&byte, rest)) = self.rest.split_first()
        {
            self.rest = rest;
            let byte: U8Deserializer<DecodeError> = byte.into_deserializer();
            return seed.deserialize(byte).map(Some);
        }
        // Bytes that were read here have not been taken from the decoder yet.
        self.decoder.input().0 = self.rest;
        let value = seed.deserialize(&mut *self.decoder)?;
        let rest = self.decoder.input().0;
        // The number of elements is only claimed: a billion elements without bytes would take time
        // or memory for nothing that was sent.
        if rest.len() == self.rest.len() {
            return Err(DecodeError::new(DecodeErrorKind::EmptyElement));
        }
        self.rest = rest;
        Ok(Some(value))
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// The entries of a map, whose number the message claims.
struct Entries<'d, 'de> {
    decoder: &'d mut Decoder<'de>,
    left: usize,
    /// Number of bytes of the message that were left before the last key.
    bytes_at_key: usize,
}

impl<'de> MapAccess<'de> for Entries<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DecodeError> {
        let bytes_left = self.decoder.left();
        // The entry before took no bytes, see `Elements`.
        if bytes_left == self.bytes_at_key {
            return Err(DecodeError::new(DecodeErrorKind::EmptyElement));
        }
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        self.bytes_at_key = bytes_left;
        seed.deserialize(&mut *self.decoder).map(Some)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, DecodeError> {
        seed.deserialize(&mut *self.decoder)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> EnumAccess<'de> for &mut Decoder<'de> {
    type Error = DecodeError;
    type Variant = Self;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self), DecodeError> {
        let index: u32 = self.take_unsigned()?;
        let index: U32Deserializer<DecodeError> = index.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> VariantAccess<'de> for &mut Decoder<'de> {
    type Error = DecodeError;

    #[inline]
    fn unit_variant(self) -> Result<(), DecodeError> {
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<S::Value, DecodeError> {
        seed.deserialize(self)
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.fields(len, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.fields(fields.len(), visitor)
    }
}

#[cold]
fn not_self_describing() -> DecodeError {
    DecodeError::new(DecodeErrorKind::NotSelfDescribing(
        "bincode does not describe its values; avoid `serde(flatten)`, `serde(untagged)` and \
         `serde(tag)` or choose json",
    ))
}

#[cold]
fn read_error(error: ReadError) -> DecodeError {
    match error {
        ReadError::UnexpectedEnd { additional } => {
            DecodeError::new(DecodeErrorKind::UnexpectedEnd {
                missing: additional,
            })
        }
        ReadError::Utf8 { inner } => {
            DecodeError::custom(format_args!("a string is not utf-8: {inner}"))
        }
        ReadError::InvalidBooleanValue(byte) => DecodeError::custom(format_args!(
            "{byte} is neither 0 nor 1, the bytes of a bool"
        )),
        ReadError::InvalidCharEncoding(_) => DecodeError::custom("a character is not utf-8"),
        ReadError::InvalidIntegerType { expected, found } => DecodeError::custom(format_args!(
            "an integer of the type {found:?} was sent instead of {expected:?}"
        )),
        other => DecodeError::custom(other),
    }
}
