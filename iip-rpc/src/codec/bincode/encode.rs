//! The encoder: a serializer that checks what readers check.

use std::any::type_name;

use ::bincode::config::{Configuration, standard};
use ::bincode::enc::write::Writer;
use ::bincode::enc::{Encode, Encoder as _, EncoderImpl};
use ::bincode::error::EncodeError as Failure;
use bytes::{Bytes, BytesMut};
use serde::ser::{
    Error as _, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant,
};
use serde::{Serialize, Serializer};

use crate::codec::output::Output;
use crate::codec::{EncodeError, EncodeErrorKind, MAX_DEPTH, MAX_WRAPPERS, exact_len};

impl Writer for Output<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.push(bytes);
        Ok(())
    }
}

pub(super) struct Encoder<'a> {
    inner: EncoderImpl<Output<'a>, Configuration>,
    /// Number of further containers that may be nested.
    levels_left: u16,
    /// Number of further options and newtypes that may be nested; a recursive type can consist of
    /// them as well.
    wrappers_left: u16,
}

impl<'a> Encoder<'a> {
    #[inline]
    pub(super) fn run<T: Serialize + ?Sized>(
        value: &T,
        head: &'a mut BytesMut,
        split: bool,
    ) -> Result<Option<Bytes>, EncodeError> {
        let mut encoder = Self::new(head, split);
        value.serialize(&mut encoder)?;
        Ok(encoder.into_tail())
    }

    fn new(head: &'a mut BytesMut, split: bool) -> Self {
        Self {
            inner: EncoderImpl::new(Output::new(head, split), standard()),
            levels_left: MAX_DEPTH,
            wrappers_left: MAX_WRAPPERS,
        }
    }

    fn into_tail(self) -> Option<Bytes> {
        self.inner.into_writer().finish()
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
        if let Some(payload) = self.output().payload(bytes) {
            self.put_unsigned(bytes.len() as u64)?;
            self.output().keep(payload);
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
    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Self, EncodeError> {
        self.serialize_tuple(len)
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
    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Self, EncodeError> {
        self.serialize_tuple(len)
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self, EncodeError> {
        self.serialize_tuple_variant(name, index, variant, len)
    }

    #[inline]
    fn collect_seq<I>(self, values: I) -> Result<(), EncodeError>
    where
        I: IntoIterator,
        I::Item: Serialize,
    {
        let values = values.into_iter();
        let len = exact_len(&values);
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
        // This joins a payload that was kept separate, because bytes follow it.
        let head = self.output().whole();
        let start = head.len();
        head.resize(start + len, 0);
        let room = head.get_mut(start..).unwrap_or_default();
        // A flag instead of a return in the loop, which the compiler could not turn into a copy
        // then.
        let mut has_no_byte = false;
        for (byte, value) in room.iter_mut().zip(values) {
            match value.serialize(OneByte) {
                Ok(value) => *byte = value,
                Err(NoByte) => has_no_byte = true,
            }
        }
        if has_no_byte {
            return Err(EncodeError::custom(
                "a sequence of bytes has an element that is not a byte",
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
            fn $name<T: Serialize + ?Sized>(
                &mut self,
                $(_: $key,)?
                value: &T,
            ) -> Result<(), EncodeError> {
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
pub(super) struct Counted<'e, 'a> {
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

macro_rules! reject {
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

    reject! {
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
