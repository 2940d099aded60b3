//! bincode 2 in its standard configuration, with the checks that the crate does not have.
//!
//! The crate encodes numbers and texts (`docs/wire.md` describes the format); this file implements
//! serde's data model itself, because that is where depth, lengths and empty elements can be
//! checked.

use std::any::type_name;
use std::marker::PhantomData;

use ::bincode::config::{Configuration, standard};
use ::bincode::de::read::{BorrowReader, Reader};
use ::bincode::de::{BorrowDecoder, Decode, DecoderImpl};
use ::bincode::enc::write::Writer;
use ::bincode::enc::{Encode, Encoder as _, EncoderImpl};
use ::bincode::error::{DecodeError as Refusal, EncodeError as Failure};
use bytes::{Bytes, BytesMut};
use serde::de::value::{U8Deserializer, U32Deserializer};
use serde::de::{
    DeserializeSeed, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};
use serde::ser::{
    Error as _, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant,
};
use serde::{Deserializer, Serialize, Serializer};

use super::stack::{MAX_STACK_BYTES, stack_position};
use super::{
    Codec, CodecId, DecodeError, DecodeErrorKind, DecodeLimits, EncodeError, EncodeErrorKind,
    MAX_DEPTH, MAX_WRAPPERS,
};
use crate::payload;

/// bincode 2 in its standard configuration: the default codec, small and fast.
///
/// Both sides must agree on the types exactly: fields are identified only by their position. Types
/// that have to be self-describing or that leave fields out do not work with it; use JSON or
/// MessagePack for such types:
///
/// * A field that `skip_serializing_if` leaves out, and `flatten`, are rejected when the value is
///   written.
/// * `untagged`, `tag`, and types that read any value (`serde_json::Value`) are rejected when it is
///   read.
/// * Attributes for one direction only (`skip_serializing`, `skip_deserializing`, `tag` of a
///   struct), `skip_serializing_if` in a tuple struct, and `skip` of a variant that others follow,
///   make a type read other fields than it writes. Neither side can detect that: do not use them.
#[derive(Debug, Clone, Copy)]
pub enum Bincode {}

impl Codec for Bincode {
    const ID: CodecId = CodecId::BINCODE;
    const BYTES_ARE_SEQUENCES: bool = true;

    #[inline]
    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut BytesMut) -> Result<(), EncodeError> {
        Encoder::run(value, out, false).map(drop)
    }

    #[inline]
    fn encode_split<T: Serialize + ?Sized>(
        value: &T,
        out: &mut BytesMut,
    ) -> Result<Option<Bytes>, EncodeError> {
        Encoder::run(value, out, true)
    }

    #[inline]
    fn decode_seed<'de, S: DeserializeSeed<'de>>(
        seed: S,
        input: &'de [u8],
        limits: &DecodeLimits,
    ) -> Result<S::Value, DecodeError> {
        let mut decoder = Decoder::new(input, limits)?;
        let value = seed.deserialize(&mut decoder)?;
        decoder.finish()?;
        Ok(value)
    }
}

// Encoding

/// The output of the encoder: encoded bytes are appended to `head`, except for a large payload that
/// nothing follows yet.
struct Output<'a> {
    head: &'a mut BytesMut,
    tail: Option<Bytes>,
    split: bool,
}

impl Output<'_> {
    fn len(&self) -> usize {
        self.head.len() + self.tail.as_ref().map_or(0, Bytes::len)
    }

    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        if self.tail.is_some() {
            self.join();
        }
        self.head.extend_from_slice(bytes);
    }

    /// Appends the payload, which has to be copied after all because something follows it.
    #[cold]
    fn join(&mut self) {
        if let Some(tail) = self.tail.take() {
            self.head.extend_from_slice(&tail);
        }
    }
}

impl Writer for Output<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.push(bytes);
        Ok(())
    }
}

struct Encoder<'a> {
    inner: EncoderImpl<Output<'a>, Configuration>,
    /// Number of further containers that may be nested.
    levels_left: u16,
    /// Number of further options and newtypes that may be nested; a recursive type can consist of
    /// them as well.
    wrappers_left: u16,
}

impl<'a> Encoder<'a> {
    #[inline]
    fn run<T: Serialize + ?Sized>(
        value: &T,
        head: &'a mut BytesMut,
        split: bool,
    ) -> Result<Option<Bytes>, EncodeError> {
        let mut encoder = Self::new(head, split);
        value.serialize(&mut encoder)?;
        Ok(encoder.into_tail())
    }

    fn new(head: &'a mut BytesMut, split: bool) -> Self {
        let output = Output {
            head,
            tail: None,
            split,
        };
        Self {
            inner: EncoderImpl::new(output, standard()),
            levels_left: MAX_DEPTH,
            wrappers_left: MAX_WRAPPERS,
        }
    }

    fn into_tail(self) -> Option<Bytes> {
        self.inner.into_writer().tail
    }

    #[inline]
    fn output(&mut self) -> &mut Output<'a> {
        self.inner.writer()
    }

    #[inline]
    fn put<T: Encode>(&mut self, value: T) -> Result<(), EncodeError> {
        value.encode(&mut self.inner).map_err(EncodeError::custom)
    }

    /// Writes the variable-length form of an unsigned integer in one piece: the crate writes the
    /// first byte and the rest separately, which takes three times as long.
    #[inline]
    fn put_unsigned(&mut self, value: u64) -> Result<(), EncodeError> {
        let [a, b, c, d, ..] = value.to_le_bytes();
        let output = self.output();
        match value {
            0..=250 => output.push(&[a]),
            251..=0xffff => output.push(&[251, a, b]),
            0x1_0000..=0xffff_ffff => output.push(&[252, a, b, c, d]),
            _ => {
                output.push(&[253]);
                output.push(&value.to_le_bytes());
            }
        }
        Ok(())
    }

    #[inline]
    fn put_sized(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.put_unsigned(bytes.len() as u64)?;
        self.output().push(bytes);
        Ok(())
    }

    /// Writes the variable-length form of a signed integer: small numbers of either sign become
    /// small unsigned ones.
    #[inline]
    fn put_signed(&mut self, value: i64) -> Result<(), EncodeError> {
        self.put_unsigned(((value << 1) ^ (value >> 63)) as u64)
    }

    fn counted<'e>(&'e mut self, elements: Option<usize>) -> Result<Counted<'e, 'a>, EncodeError> {
        let Some(elements) = elements else {
            return Err(EncodeError::new(EncodeErrorKind::UnknownLength));
        };
        self.enter()?;
        self.put_unsigned(elements as u64)?;
        let start = self.output().len();
        Ok(Counted {
            encoder: self,
            elements,
            start,
            written: 0,
        })
    }

    /// Enters a level.
    #[inline]
    fn enter(&mut self) -> Result<(), EncodeError> {
        let Some(levels_left) = self.levels_left.checked_sub(1) else {
            return Err(too_deep());
        };
        self.levels_left = levels_left;
        Ok(())
    }

    /// Leaves a level. An error ends the whole encoding, so this is called only after a success.
    #[inline]
    fn leave(&mut self) {
        self.levels_left += 1;
    }

    /// Writes the value in an option or a newtype, which do not count as levels but have a separate
    /// limit.
    #[inline]
    fn wrapped<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        let Some(wrappers_left) = self.wrappers_left.checked_sub(1) else {
            return Err(too_deep());
        };
        self.wrappers_left = wrappers_left;
        value.serialize(&mut *self)?;
        self.wrappers_left += 1;
        Ok(())
    }
}

#[cold]
fn too_deep() -> EncodeError {
    EncodeError::new(EncodeErrorKind::TooDeep { limit: MAX_DEPTH })
}

macro_rules! write_as_it_is {
    ($($name:ident $type:ty => $put:ident $wide:ty)*) => { $(
        #[inline]
        fn $name(self, value: $type) -> Result<(), EncodeError> {
            self.$put(<$wide>::from(value))
        }
    )* };
}

impl<'e, 'a> Serializer for &'e mut Encoder<'a> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = Counted<'e, 'a>;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Counted<'e, 'a>;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    write_as_it_is! {
        serialize_bool bool => put bool
        serialize_i8 i8 => put i8
        serialize_i16 i16 => put_signed i64
        serialize_i32 i32 => put_signed i64
        serialize_i64 i64 => put_signed i64
        serialize_i128 i128 => put i128
        serialize_u8 u8 => put u8
        serialize_u16 u16 => put_unsigned u64
        serialize_u32 u32 => put_unsigned u64
        serialize_u64 u64 => put_unsigned u64
        serialize_u128 u128 => put u128
        serialize_f32 f32 => put f32
        serialize_f64 f64 => put f64
        serialize_char char => put char
    }

    #[inline]
    fn serialize_str(self, text: &str) -> Result<(), EncodeError> {
        self.put_sized(text.as_bytes())
    }

    #[inline]
    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), EncodeError> {
        if self.output().split
            && let Some(payload) = payload::take_offered(bytes)
        {
            self.put_unsigned(bytes.len() as u64)?;
            self.output().tail = Some(payload);
            return Ok(());
        }
        self.put_sized(bytes)
    }

    #[inline]
    fn serialize_none(self) -> Result<(), EncodeError> {
        self.put(0u8)
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        self.put(1u8)?;
        self.wrapped(value)
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), EncodeError> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), EncodeError> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
    ) -> Result<(), EncodeError> {
        // Readers count it as a level.
        if self.levels_left == 0 {
            return Err(too_deep());
        }
        self.put_unsigned(index.into())
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        self.wrapped(value)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        self.enter()?;
        self.put_unsigned(index.into())?;
        value.serialize(&mut *self)?;
        self.leave();
        Ok(())
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Counted<'e, 'a>, EncodeError> {
        self.counted(len)
    }

    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<Self, EncodeError> {
        self.enter()?;
        Ok(self)
    }

    #[inline]
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, EncodeError> {
        self.enter()?;
        Ok(self)
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, EncodeError> {
        self.enter()?;
        self.put_unsigned(index.into())?;
        Ok(self)
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Counted<'e, 'a>, EncodeError> {
        self.counted(len)
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, EncodeError> {
        self.enter()?;
        Ok(self)
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, EncodeError> {
        self.enter()?;
        self.put_unsigned(index.into())?;
        Ok(self)
    }

    #[inline]
    fn collect_seq<I>(self, values: I) -> Result<(), EncodeError>
    where
        I: IntoIterator,
        I::Item: Serialize,
    {
        let values = values.into_iter();
        let len = match values.size_hint() {
            (lower, Some(upper)) if lower == upper => Some(upper),
            _ => None,
        };
        // `Vec<u8>` and `&[u8]` are written here, and would take ten times as long byte by byte.
        // The name only selects the fast path; a value that is not a byte is still reported.
        if let Some(len) = len
            && type_name::<I::Item>() == type_name::<&u8>()
        {
            return self.bytes_one_by_one(len, values);
        }
        let mut seq = self.counted(len)?;
        for value in values {
            seq.serialize_element(&value)?;
        }
        SerializeSeq::end(seq)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }
}

impl Encoder<'_> {
    /// Writes a sequence of bytes in a loop that the compiler turns into a copy.
    #[inline]
    fn bytes_one_by_one<T: Serialize>(
        &mut self,
        len: usize,
        values: impl Iterator<Item = T>,
    ) -> Result<(), EncodeError> {
        if self.levels_left == 0 {
            return Err(too_deep());
        }
        self.put_unsigned(len as u64)?;
        let output = self.output();
        output.join();
        let start = output.head.len();
        output.head.resize(start + len, 0);
        let room = output.head.get_mut(start..).unwrap_or_default();
        let mut refused = false;
        for (byte, value) in room.iter_mut().zip(values) {
            match value.serialize(OneByte) {
                Ok(value) => *byte = value,
                Err(NoByte) => refused = true,
            }
        }
        if refused {
            return Err(EncodeError::custom(
                "a sequence of bytes has an element that is no byte",
            ));
        }
        Ok(())
    }
}

macro_rules! each_part {
    ($($trait:ident $name:ident ($($key:ty)?))*) => { $(
        impl $trait for &mut Encoder<'_> {
            type Ok = ();
            type Error = EncodeError;

            #[inline]
            fn $name<T: Serialize + ?Sized>(&mut self, $(_: $key,)? value: &T) -> Result<(), EncodeError> {
                value.serialize(&mut **self)
            }

            $(
                #[inline]
                fn skip_field(&mut self, field: $key) -> Result<(), EncodeError> {
                    Err(EncodeError::new(EncodeErrorKind::SkippedField { field }))
                }
            )?

            #[inline]
            fn end(self) -> Result<(), EncodeError> {
                self.leave();
                Ok(())
            }
        }
    )* };
}

each_part! {
    SerializeTuple serialize_element ()
    SerializeTupleStruct serialize_field ()
    SerializeTupleVariant serialize_field ()
    SerializeStruct serialize_field (&'static str)
    SerializeStructVariant serialize_field (&'static str)
}

/// A sequence or a map. The receiver rejects elements that take no bytes.
struct Counted<'e, 'a> {
    encoder: &'e mut Encoder<'a>,
    elements: usize,
    start: usize,
    written: usize,
}

impl Counted<'_, '_> {
    /// Checks the first element, so that no time is spent on the rest.
    #[inline]
    fn not_empty(&mut self) -> Result<(), EncodeError> {
        self.written += 1;
        if self.written == 1 && self.encoder.output().len() == self.start {
            return Err(self.empty());
        }
        Ok(())
    }

    #[inline]
    fn finish(self) -> Result<(), EncodeError> {
        if self.encoder.output().len() - self.start < self.elements {
            return Err(self.empty());
        }
        if self.written != self.elements {
            return Err(self.wrong_length());
        }
        self.encoder.leave();
        Ok(())
    }

    #[cold]
    fn wrong_length(&self) -> EncodeError {
        EncodeError::new(EncodeErrorKind::WrongLength {
            announced: self.elements,
            written: self.written,
        })
    }

    #[cold]
    fn empty(&self) -> EncodeError {
        let elements = self.elements;
        EncodeError::new(EncodeErrorKind::EmptyElements { elements })
    }
}

impl SerializeSeq for Counted<'_, '_> {
    type Ok = ();
    type Error = EncodeError;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        value.serialize(&mut *self.encoder)?;
        self.not_empty()
    }

    #[inline]
    fn end(self) -> Result<(), EncodeError> {
        self.finish()
    }
}

impl SerializeMap for Counted<'_, '_> {
    type Ok = ();
    type Error = EncodeError;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        key.serialize(&mut *self.encoder)
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        value.serialize(&mut *self.encoder)?;
        self.not_empty()
    }

    #[inline]
    fn end(self) -> Result<(), EncodeError> {
        self.finish()
    }
}

/// Accepts a value that is a `u8`, and nothing else.
struct OneByte;

#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("no byte")]
struct NoByte;

impl serde::ser::Error for NoByte {
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        Self
    }
}

type Never = serde::ser::Impossible<u8, NoByte>;

macro_rules! refuse {
    ($($name:ident ($($argument:ty),*) -> $result:ty;)*) => { $(
        fn $name(self $(, _: $argument)*) -> Result<$result, NoByte> {
            Err(NoByte)
        }
    )* };
}

impl Serializer for OneByte {
    type Ok = u8;
    type Error = NoByte;
    type SerializeSeq = Never;
    type SerializeTuple = Never;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Never;
    type SerializeStructVariant = Never;

    #[inline]
    fn serialize_u8(self, byte: u8) -> Result<u8, NoByte> {
        Ok(byte)
    }

    refuse! {
        serialize_bool(bool) -> u8;
        serialize_i8(i8) -> u8;
        serialize_i16(i16) -> u8;
        serialize_i32(i32) -> u8;
        serialize_i64(i64) -> u8;
        serialize_u16(u16) -> u8;
        serialize_u32(u32) -> u8;
        serialize_u64(u64) -> u8;
        serialize_f32(f32) -> u8;
        serialize_f64(f64) -> u8;
        serialize_char(char) -> u8;
        serialize_str(&str) -> u8;
        serialize_bytes(&[u8]) -> u8;
        serialize_none() -> u8;
        serialize_unit() -> u8;
        serialize_unit_struct(&'static str) -> u8;
        serialize_unit_variant(&'static str, u32, &'static str) -> u8;
        serialize_seq(Option<usize>) -> Never;
        serialize_tuple(usize) -> Never;
        serialize_tuple_struct(&'static str, usize) -> Never;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Never;
        serialize_map(Option<usize>) -> Never;
        serialize_struct(&'static str, usize) -> Never;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Never;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<u8, NoByte> {
        Err(NoByte)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: &T,
    ) -> Result<u8, NoByte> {
        Err(NoByte)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<u8, NoByte> {
        Err(NoByte)
    }
}

// Decoding

/// The rest of a message.
struct Input<'de>(&'de [u8]);

impl<'de> Reader for Input<'de> {
    #[inline]
    fn read(&mut self, bytes: &mut [u8]) -> Result<(), Refusal> {
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
    fn take_bytes(&mut self, count: usize) -> Result<&'de [u8], Refusal> {
        let Some((taken, rest)) = self.0.split_at_checked(count) else {
            return Err(Refusal::UnexpectedEnd {
                additional: count - self.0.len(),
            });
        };
        self.0 = rest;
        Ok(taken)
    }
}

struct Decoder<'de> {
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
    fn new(input: &'de [u8], limits: &DecodeLimits) -> Result<Self, DecodeError> {
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
    fn finish(&mut self) -> Result<(), DecodeError> {
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
        T::decode(&mut self.inner).map_err(refused)
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
        self.input().take_bytes(len).map_err(refused)
    }

    #[inline]
    fn take_str(&mut self) -> Result<&'de str, DecodeError> {
        std::str::from_utf8(self.take_slice()?).map_err(|inner| refused(Refusal::Utf8 { inner }))
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
                "{other} is neither 0 nor 1, as an option begins"
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
        self.nested(|decoder| decoder.fields(len, visitor))
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.nested(|decoder| decoder.fields(fields.len(), visitor))
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
        self.decoder.input().0 = self.rest;
        let value = seed.deserialize(&mut *self.decoder)?;
        let rest = self.decoder.input().0;
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
fn refused(refusal: Refusal) -> DecodeError {
    match refusal {
        Refusal::UnexpectedEnd { additional } => DecodeError::new(DecodeErrorKind::UnexpectedEnd {
            missing: additional,
        }),
        Refusal::Utf8 { inner } => {
            DecodeError::custom(format_args!("a text is not utf-8: {inner}"))
        }
        Refusal::InvalidBooleanValue(byte) => {
            DecodeError::custom(format_args!("{byte} is neither 0 nor 1, as a bool is"))
        }
        Refusal::InvalidCharEncoding(_) => DecodeError::custom("a character is not utf-8"),
        Refusal::InvalidIntegerType { expected, found } => DecodeError::custom(format_args!(
            "an integer of the type {found:?} stands in place of one of {expected:?}"
        )),
        other => DecodeError::custom(other),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};
    use std::fmt::Debug;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::codec::{decode_value, encode_value_split};
    use crate::payload::{Payload, SHARE_FROM_BYTES, SPLIT_FROM_BYTES};

    fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
        let mut out = BytesMut::new();
        Bincode::encode(value, &mut out).unwrap();
        out.to_vec()
    }

    fn decode<'de, T: Deserialize<'de>>(input: &'de [u8]) -> Result<T, DecodeError> {
        Bincode::decode(input, &DecodeLimits::new())
    }

    fn refusal<'de, T: Deserialize<'de> + Debug>(input: &'de [u8]) -> DecodeErrorKind {
        decode::<T>(input).unwrap_err().kind().clone()
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Unit,
        Newtype(Box<Zoo>),
        Tuple(i16, char),
        Struct { x: f32, y: Option<Box<Self>> },
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct UnitStruct;

    #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
    struct Id(u64);

    /// A value of every kind of serde.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Zoo {
        unsigned: (u8, u16, u32, u64, u128),
        signed: (i8, i16, i32, i64, i128),
        floats: (f32, f64),
        truth: bool,
        letter: char,
        text: String,
        bytes: Vec<u8>,
        payload: Payload,
        numbers: Vec<u32>,
        pairs: BTreeMap<Id, Vec<String>>,
        option: Option<Option<i32>>,
        nothing: ((), UnitStruct),
        array: [i16; 3],
        shapes: Vec<Shape>,
        result: Result<u8, String>,
        time: std::time::Duration,
    }

    fn leaf() -> impl Strategy<Value = Shape> {
        prop_oneof![
            Just(Shape::Unit),
            any::<(i16, char)>().prop_map(|(a, b)| Shape::Tuple(a, b)),
            any::<f32>()
                .prop_filter("a nan equals nothing", |x| !x.is_nan())
                .prop_map(|x| Shape::Struct {
                    x,
                    y: Some(Box::new(Shape::Unit))
                }),
        ]
    }

    fn zoo() -> impl Strategy<Value = Zoo> {
        let numbers = (
            any::<(u8, u16, u32, u64, u128)>(),
            any::<(i8, i16, i32, i64, i128)>(),
            any::<(i32, i64)>(),
        );
        let texts = (
            any::<bool>(),
            any::<char>(),
            ".*",
            proptest::collection::vec(any::<u8>(), 0..400),
        );
        let keys = any::<u64>().prop_map(Id);
        let lists = (
            proptest::collection::vec(any::<u32>(), 0..20),
            proptest::collection::btree_map(keys, proptest::collection::vec(".*", 0..3), 0..4),
            any::<Option<Option<i32>>>(),
            any::<[i16; 3]>(),
            proptest::collection::vec(leaf(), 0..4),
            any::<Result<u8, String>>(),
            any::<std::time::Duration>(),
        );
        (numbers, texts, lists).prop_map(|(numbers, texts, lists)| Zoo {
            unsigned: numbers.0,
            signed: numbers.1,
            floats: (numbers.2.0 as f32, numbers.2.1 as f64),
            truth: texts.0,
            letter: texts.1,
            text: texts.2,
            payload: Payload::from(texts.3.clone()),
            bytes: texts.3,
            numbers: lists.0,
            pairs: lists.1,
            option: lists.2,
            nothing: ((), UnitStruct),
            array: lists.3,
            shapes: lists.4,
            result: lists.5,
            time: lists.6,
        })
    }

    proptest! {
        #[test]
        fn our_bytes_are_those_of_the_crate_and_come_back(inner in zoo(), mut outer in zoo()) {
            outer.shapes.push(Shape::Newtype(Box::new(inner)));
            let ours = encode(&outer);
            prop_assert_eq!(&ours, &::bincode::serde::encode_to_vec(&outer, standard()).unwrap());
            prop_assert_eq!(&decode::<Zoo>(&ours).unwrap(), &outer);
            let (theirs, _) = ::bincode::serde::borrow_decode_from_slice::<Zoo, _>(&ours, standard()).unwrap();
            prop_assert_eq!(theirs, outer);
        }

        #[test]
        fn integers_of_every_size_are_those_of_the_crate(bits in 0u32..=64, value: u64, signed: i64) {
            // Covers small and large numbers.
            let value = value.checked_shr(64 - bits).unwrap_or(0);
            let signed = signed.checked_shr(64 - bits).unwrap_or(0);
            let all = (value, value as u32, value as u16, signed, signed as i32, signed as i16, value as u8, signed as i8);
            let ours = encode(&all);
            prop_assert_eq!(&ours, &::bincode::serde::encode_to_vec(all, standard()).unwrap());
            prop_assert_eq!(decode::<(u64, u32, u16, i64, i32, i16, u8, i8)>(&ours).unwrap(), all);
        }

        #[test]
        fn any_bytes_are_a_value_or_an_error_and_never_a_panic(input in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(value) = decode::<Zoo>(&input) {
                prop_assert_eq!(decode::<Zoo>(&encode(&value)).unwrap(), value);
            }
            let _ = decode::<Vec<Shape>>(&input);
            let _ = decode::<BTreeMap<String, Vec<Option<char>>>>(&input);
            let _ = decode::<(&str, &[u8])>(&input);
        }

        #[test]
        fn a_damaged_message_is_a_value_or_an_error_and_never_a_panic(
            value in zoo(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index,
        ) {
            let mut bytes = encode(&value);
            let cut = cut.index(bytes.len());
            prop_assert!(decode::<Zoo>(&bytes[..cut]).is_err());
            let at = at.index(bytes.len());
            bytes[at] = byte;
            // A damaged value may end earlier, so a truncated one may be complete.
            let _ = decode::<Zoo>(&bytes);
            let _ = decode::<Zoo>(&bytes[..cut]);
        }
    }

    #[test]
    fn texts_and_bytes_borrow_from_the_message() {
        let input = encode(&("text", Payload::from(&b"bytes"[..])));
        let (text, bytes): (&str, &[u8]) = decode(&input).unwrap();
        assert_eq!((text, bytes), ("text", &b"bytes"[..]));
        assert!(
            input.as_ptr_range().contains(&text.as_ptr())
                && input.as_ptr_range().contains(&bytes.as_ptr())
        );
    }

    #[test]
    fn bytes_after_the_value_are_rejected() {
        assert_eq!(
            refusal::<u8>(&[1, 2, 3]),
            DecodeErrorKind::TrailingBytes { left: 2 }
        );
        assert_eq!(
            refusal::<()>(&[0]),
            DecodeErrorKind::TrailingBytes { left: 1 }
        );
    }

    #[test]
    fn a_message_that_ends_too_early_says_how_many_bytes_are_missing() {
        assert_eq!(
            refusal::<f64>(&[1, 2, 3]),
            DecodeErrorKind::UnexpectedEnd { missing: 5 }
        );
        assert_eq!(
            refusal::<u8>(&[]),
            DecodeErrorKind::UnexpectedEnd { missing: 1 }
        );
    }

    #[test]
    fn a_length_beyond_the_end_is_rejected_at_once() {
        let claims = |len: u64| {
            let mut input = encode(&len);
            input.extend([1; 8]);
            input
        };
        for claimed in [
            9,
            300,
            1 << 16,
            1 << 31,
            1 << 32,
            1 << 34,
            1 << 40,
            u64::MAX,
        ] {
            let (input, too_long) = (
                claims(claimed),
                DecodeErrorKind::TooLong { claimed, left: 8 },
            );
            assert_eq!(refusal::<String>(&input), too_long);
            assert_eq!(refusal::<Vec<u8>>(&input), too_long);
            assert_eq!(refusal::<Vec<u64>>(&input), too_long);
            assert_eq!(refusal::<Vec<String>>(&input), too_long);
            assert_eq!(refusal::<BTreeMap<u8, u8>>(&input), too_long);
            assert_eq!(refusal::<Payload>(&input), too_long);
            assert_eq!(refusal::<Vec<()>>(&input), too_long);
        }
    }

    #[test]
    fn elements_that_take_no_bytes_are_rejected_on_both_sides() {
        // Three elements are claimed and three bytes follow, so the length alone is possible.
        let input = [3, 0, 0, 0];
        assert_eq!(refusal::<Vec<()>>(&input), DecodeErrorKind::EmptyElement);
        assert_eq!(
            refusal::<Vec<UnitStruct>>(&input),
            DecodeErrorKind::EmptyElement
        );
        assert_eq!(
            refusal::<HashSet<()>>(&input),
            DecodeErrorKind::EmptyElement
        );
        assert_eq!(
            refusal::<BTreeMap<(), ()>>(&input),
            DecodeErrorKind::EmptyElement
        );
        assert_eq!(
            refusal::<Vec<Vec<((), [u8; 0])>>>(&[1, 1, 0]),
            DecodeErrorKind::EmptyElement
        );
        // If only the key or only the value takes no bytes, the entry takes some.
        assert_eq!(decode::<BTreeMap<u8, ()>>(&[2, 5, 6]).unwrap().len(), 2);

        let error = Bincode::encode(&vec![(); 1 << 40], &mut BytesMut::new()).unwrap_err();
        assert_eq!(
            error.kind(),
            &EncodeErrorKind::EmptyElements { elements: 1 << 40 }
        );
        assert_eq!(encode(&Vec::<()>::new()), [0]);
        assert_eq!(decode::<Vec<()>>(&[0]).unwrap(), Vec::<()>::new());
    }

    #[derive(Debug, Serialize, Deserialize)]
    enum Tree {
        Leaf,
        Node(Box<Self>),
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct List {
        next: Option<Box<Self>>,
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct Nested(Vec<Self>);

    #[derive(Debug, Serialize, Deserialize)]
    struct Maps(BTreeMap<u8, Self>);

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(transparent)]
    struct Chain(Option<Box<Self>>);

    #[derive(Debug, Serialize, Deserialize)]
    struct Large {
        numbers: [[u64; 32]; 32],
        next: Option<Box<Self>>,
    }

    /// Runs `test` on a stack as small as that of a thread of the tokio runtime.
    fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
        std::thread::Builder::new()
            .stack_size(2 << 20)
            .spawn(test)
            .unwrap()
            .join()
            .unwrap();
    }

    #[test]
    fn a_million_levels_are_rejected_on_a_small_stack() {
        on_a_small_stack(|| {
            let too_deep = DecodeErrorKind::TooDeep { limit: 128 };
            let ones = vec![1; 1_000_000];
            assert_eq!(refusal::<Tree>(&ones), too_deep);
            assert_eq!(refusal::<List>(&ones), too_deep);
            assert_eq!(refusal::<Nested>(&ones), too_deep);
            assert_eq!(refusal::<Maps>(&ones), too_deep);
            assert_eq!(refusal::<Chain>(&ones), too_deep);
            assert_eq!(refusal::<Vec<Vec<Chain>>>(&ones), too_deep);
            let text = decode::<Tree>(&ones).unwrap_err().to_string();
            assert_eq!(
                text,
                "nested deeper than the limit of 128 levels (max_depth)"
            );
        });
    }

    #[test]
    fn the_depth_limit_is_exact() {
        on_a_small_stack(|| {
            let levels = |count: usize| {
                let mut input = vec![1; count];
                *input.last_mut().unwrap() = 0;
                input
            };
            assert!(decode::<Tree>(&levels(128)).is_ok());
            assert_eq!(
                refusal::<Tree>(&levels(129)),
                DecodeErrorKind::TooDeep { limit: 128 }
            );
            assert!(decode::<List>(&levels(128)).is_ok());
            assert_eq!(
                refusal::<List>(&levels(129)),
                DecodeErrorKind::TooDeep { limit: 128 }
            );
            assert!(decode::<Nested>(&levels(128)).is_ok());
            assert_eq!(
                refusal::<Nested>(&levels(129)),
                DecodeErrorKind::TooDeep { limit: 128 }
            );
            let limits = DecodeLimits::new().max_depth(3);
            assert!(Bincode::decode::<Tree>(&levels(3), &limits).is_ok());
            let error = Bincode::decode::<Tree>(&levels(4), &limits).unwrap_err();
            assert_eq!(error.kind(), &DecodeErrorKind::TooDeep { limit: 3 });
        });
    }

    #[test]
    fn levels_next_to_each_other_do_not_add_up() {
        let wide: Vec<Vec<Vec<Option<u8>>>> = vec![vec![vec![Some(1); 3]; 40]; 40];
        assert_eq!(
            decode::<Vec<Vec<Vec<Option<u8>>>>>(&encode(&wide)).unwrap(),
            wide
        );
    }

    #[test]
    fn levels_of_a_large_type_are_rejected_before_the_stack_is_used_up() {
        on_a_small_stack(|| {
            let mut level = vec![0; 1024];
            level.push(1);
            let input = level.repeat(1000);
            let kind = refusal::<Large>(&input);
            assert!(
                matches!(
                    kind,
                    DecodeErrorKind::TooDeep { .. } | DecodeErrorKind::TooMuchStack { .. }
                ),
                "{kind:?}"
            );
        });
    }

    #[test]
    fn invalid_values_are_rejected_with_a_reason() {
        let text = |error: DecodeError| error.to_string();
        assert_eq!(
            text(decode::<bool>(&[2]).unwrap_err()),
            "2 is neither 0 nor 1, as a bool is"
        );
        assert_eq!(
            text(decode::<Option<u8>>(&[7]).unwrap_err()),
            "7 is neither 0 nor 1, as an option begins"
        );
        assert_eq!(
            text(decode::<char>(&[0xff]).unwrap_err()),
            "a character is not utf-8"
        );
        assert!(
            text(decode::<String>(&[1, 0xff]).unwrap_err()).starts_with("a text is not utf-8: ")
        );
        let wide = text(decode::<u16>(&[252, 0, 0, 1, 0]).unwrap_err());
        assert_eq!(
            wide,
            "an integer of the type U32 stands in place of one of U16"
        );
        let variant = text(decode::<Tree>(&[9]).unwrap_err());
        assert!(variant.contains("integer `9`"), "{variant}");
    }

    #[test]
    fn types_that_need_a_self_describing_codec_are_rejected_with_advice() {
        #[derive(Debug, Serialize, Deserialize)]
        #[serde(untagged)]
        enum Untagged {
            A(u8),
        }
        #[derive(Debug, Serialize, Deserialize)]
        struct Flat {
            #[serde(flatten)]
            rest: BTreeMap<String, u8>,
        }
        assert!(
            matches!(refusal::<Untagged>(&[1]), DecodeErrorKind::NotSelfDescribing(text) if text.contains("json"))
        );
        let error = Bincode::encode(
            &Flat {
                rest: BTreeMap::new(),
            },
            &mut BytesMut::new(),
        )
        .unwrap_err();
        assert_eq!(error.kind(), &EncodeErrorKind::UnknownLength);
    }

    #[test]
    fn sequences_of_bytes_take_the_fast_path_whatever_contains_them() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let expected = ::bincode::serde::encode_to_vec(&bytes, standard()).unwrap();
        assert_eq!(encode(&bytes), expected);
        assert_eq!(encode(&bytes[..]), expected);
        assert_eq!(
            encode(&std::collections::VecDeque::from(bytes.clone())),
            expected
        );
        assert_eq!(encode(&Bytes::from(bytes.clone())), expected);
        assert_eq!(decode::<Vec<u8>>(&expected).unwrap(), bytes);
        assert_eq!(
            decode::<std::collections::VecDeque<u8>>(&expected).unwrap(),
            bytes
        );
        assert_eq!(&*decode::<Payload>(&expected).unwrap(), bytes);
        let nested = (
            bytes.clone(),
            vec![bytes.clone(), bytes.clone()],
            7u32,
            bytes,
        );
        assert_eq!(
            encode(&nested),
            ::bincode::serde::encode_to_vec(&nested, standard()).unwrap()
        );
        assert_eq!(
            decode::<(Vec<u8>, Vec<Vec<u8>>, u32, Vec<u8>)>(&encode(&nested)).unwrap(),
            nested
        );
    }

    #[test]
    fn a_large_payload_at_the_end_is_not_copied() {
        let payload = Bytes::from(vec![3; SPLIT_FROM_BYTES]);
        let last = (7u8, Payload::from(payload.clone()));
        let mut out = BytesMut::new();
        let tail = Bincode::encode_split(&last, &mut out).unwrap().unwrap();
        assert_eq!(tail.as_ptr(), payload.as_ptr());
        out.extend_from_slice(&tail);
        assert_eq!(out, encode(&last));
    }

    #[test]
    fn a_payload_before_other_values_is_copied_into_the_message() {
        let large = || Payload::from(vec![3; SPLIT_FROM_BYTES]);
        for value in [(large(), 7u8, vec![large()]), (large(), 1, vec![])] {
            let mut out = BytesMut::new();
            let tail = Bincode::encode_split(&value, &mut out).unwrap();
            assert_eq!(tail.is_some(), !value.2.is_empty());
            out.extend_from_slice(&tail.unwrap_or_default());
            assert_eq!(
                out,
                ::bincode::serde::encode_to_vec(&value, standard()).unwrap()
            );
        }
        let small = Payload::from(vec![3; SPLIT_FROM_BYTES - 1]);
        assert_eq!(
            encode_value_split(CodecId::BINCODE, &small, &mut BytesMut::new()).unwrap(),
            None
        );
    }

    #[test]
    fn large_payloads_become_parts_of_the_message_wherever_they_are() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct File {
            name: String,
            content: Payload,
            small: Payload,
        }
        let file = File {
            name: "a".to_owned(),
            content: Payload::from(vec![1; SHARE_FROM_BYTES]),
            small: Payload::from(vec![2; 10]),
        };
        let message = Bytes::from(encode(&vec![file]));
        let files: Vec<File> =
            decode_value(CodecId::BINCODE, &message, &DecodeLimits::new()).unwrap();
        let range = message.as_ptr_range();
        assert!(range.contains(&files[0].content.as_ptr()));
        assert!(!range.contains(&files[0].small.as_ptr()));
        let whole: Bytes = decode_value(
            CodecId::BINCODE,
            &Bytes::from(encode(&vec![5u8; 5000])),
            &DecodeLimits::new(),
        )
        .unwrap();
        assert_eq!(whole, vec![5u8; 5000]);
    }
}
