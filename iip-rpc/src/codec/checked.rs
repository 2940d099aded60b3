//! The promises of [`Codec::encode`](super::Codec::encode) for a format whose own serializer does not make all of them.
//!
//! The counterpart of `guarded.rs`: it stands between a value and the format's serializer and refuses what a reader would
//! refuse or misread. All state hangs on one [`Check`] for a message.

use std::cell::{Cell, RefCell};
use std::fmt::Display;

use serde::ser::{
    Error, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant,
};
use serde::{Serialize, Serializer};

use super::{EncodeError, EncodeErrorKind, MAX_DEPTH, MAX_WRAPPERS};

/// State of the checks while one message is written.
pub(super) struct Check {
    format: Format,
    /// How many more containers may lie inside each other.
    levels_left: Cell<u16>,
    /// How many more options and newtypes may, which a recursive type can be made of as well.
    wrappers_left: Cell<u16>,
    /// Grows with every part that takes bytes.
    given: Cell<usize>,
    /// Our error, for the way up through the format's own errors.
    failed: RefCell<Option<EncodeError>>,
}

/// Properties of a format that decide what its readers refuse.
#[derive(Clone, Copy)]
pub(super) struct Format {
    /// Fields are told apart by their position, and a value may take no bytes.
    pub(super) positional: bool,
    /// The number of parts is written before them.
    pub(super) counted: bool,
    /// NaN and infinities have no form.
    pub(super) finite: bool,
    /// Levels that readers accept.
    pub(super) max_levels: u16,
    /// Levels that a variant without parts takes.
    pub(super) unit_levels: u16,
    /// Levels that a variant with several parts takes.
    pub(super) variant_levels: u16,
}

impl Format {
    /// A binary format, with the default depth.
    pub(super) const BINARY: Self = Self {
        positional: false,
        counted: true,
        finite: false,
        max_levels: MAX_DEPTH,
        unit_levels: 1,
        variant_levels: 1,
    };
}

impl Check {
    pub(super) fn new(format: Format) -> Self {
        Self {
            format,
            levels_left: Cell::new(format.max_levels),
            wrappers_left: Cell::new(MAX_WRAPPERS),
            given: Cell::new(0),
            failed: RefCell::new(None),
        }
    }

    /// Writes a value by way of the format's serializer.
    pub(super) fn write<T, S>(&self, value: &T, serializer: S) -> Result<S::Ok, EncodeError>
    where
        T: Serialize + ?Sized,
        S: Serializer,
    {
        value.serialize(Checked {
            inner: serializer,
            check: self,
        })
    }

    /// Our error of an error of the format: the one that was kept on its way, or its words.
    #[cold]
    fn kept<E: Error>(&self, error: E) -> EncodeError {
        let kept = self.failed.take();
        kept.unwrap_or_else(|| EncodeError::custom(error))
    }

    /// Keeps our error while one of the format goes up in its place.
    fn keep<T, E: Error>(&self, result: Result<T, EncodeError>) -> Result<T, E> {
        result.map_err(|error| {
            self.failed.replace(Some(error));
            E::custom("")
        })
    }

    #[inline]
    fn give(&self) {
        self.given.set(self.given.get().wrapping_add(1));
    }

    #[inline]
    fn enter(&self, levels: u16) -> Result<(), EncodeError> {
        let Some(left) = self.levels_left.get().checked_sub(levels) else {
            return Err(self.too_deep());
        };
        self.levels_left.set(left);
        Ok(())
    }

    /// Errors end the whole encoding, so only success comes back up.
    #[inline]
    fn leave(&self, levels: u16) {
        self.levels_left.set(self.levels_left.get() + levels);
    }

    /// Writes an option or a newtype, which do not count as levels unless there are very many.
    #[inline]
    fn wrapped<T>(&self, write: impl FnOnce() -> Result<T, EncodeError>) -> Result<T, EncodeError> {
        let Some(left) = self.wrappers_left.get().checked_sub(1) else {
            return Err(self.too_deep());
        };
        self.wrappers_left.set(left);
        let written = write()?;
        self.wrappers_left.set(left + 1);
        Ok(written)
    }

    #[cold]
    fn too_deep(&self) -> EncodeError {
        let limit = self.format.max_levels;
        EncodeError::new(EncodeErrorKind::TooDeep { limit })
    }

    #[inline]
    fn check_float(&self, is_finite: bool) -> Result<(), EncodeError> {
        if self.format.finite && !is_finite {
            return Err(EncodeError::new(EncodeErrorKind::NotFinite));
        }
        Ok(())
    }
}

/// A value that is written with the checks.
struct Value<'c, T: ?Sized> {
    value: &'c T,
    check: &'c Check,
}

impl<T: Serialize + ?Sized> Serialize for Value<'_, T> {
    #[inline]
    fn serialize<S: Serializer>(&self, inner: S) -> Result<S::Ok, S::Error> {
        self.check.keep(self.check.write(self.value, inner))
    }
}

/// The format's serializer, with the checks.
struct Checked<'c, S> {
    inner: S,
    check: &'c Check,
}

impl<'c, S: Serializer> Checked<'c, S> {
    /// Begins a container of `len` parts, if their number is known.
    #[inline]
    fn parts<P>(
        self,
        levels: u16,
        len: Option<usize>,
        begin: impl FnOnce(S) -> Result<P, S::Error>,
    ) -> Result<Parts<'c, P>, EncodeError> {
        let check = self.check;
        check.enter(levels)?;
        let inner = begin(self.inner).map_err(|error| check.kept(error))?;
        Ok(Parts {
            inner,
            check,
            levels,
            announced: len,
            written: 0,
            given_at_key: 0,
        })
    }
}

macro_rules! scalars {
    ($($name:ident ($($argument:ident: $type:ty),*))*) => { $(
        #[inline]
        fn $name(self, $($argument: $type),*) -> Result<S::Ok, EncodeError> {
            self.check.give();
            self.inner.$name($($argument),*).map_err(|error| self.check.kept(error))
        }
    )* };
}

/// What takes no bytes in a positional format.
macro_rules! nothings {
    ($($name:ident ($($argument:ident: $type:ty),*))*) => { $(
        #[inline]
        fn $name(self, $($argument: $type),*) -> Result<S::Ok, EncodeError> {
            self.inner.$name($($argument),*).map_err(|error| self.check.kept(error))
        }
    )* };
}

impl<'c, S: Serializer> Serializer for Checked<'c, S> {
    type Ok = S::Ok;
    type Error = EncodeError;
    type SerializeSeq = Parts<'c, S::SerializeSeq>;
    type SerializeTuple = Parts<'c, S::SerializeTuple>;
    type SerializeTupleStruct = Parts<'c, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Parts<'c, S::SerializeTupleVariant>;
    type SerializeMap = Parts<'c, S::SerializeMap>;
    type SerializeStruct = Parts<'c, S::SerializeStruct>;
    type SerializeStructVariant = Parts<'c, S::SerializeStructVariant>;

    scalars! {
        serialize_bool(value: bool)
        serialize_i8(value: i8)
        serialize_i16(value: i16)
        serialize_i32(value: i32)
        serialize_i64(value: i64)
        serialize_i128(value: i128)
        serialize_u8(value: u8)
        serialize_u16(value: u16)
        serialize_u32(value: u32)
        serialize_u64(value: u64)
        serialize_u128(value: u128)
        serialize_char(value: char)
        serialize_str(value: &str)
        serialize_bytes(value: &[u8])
        serialize_none()
    }

    nothings! {
        serialize_unit()
        serialize_unit_struct(name: &'static str)
    }

    #[inline]
    fn serialize_f32(self, value: f32) -> Result<S::Ok, EncodeError> {
        self.check.check_float(value.is_finite())?;
        self.check.give();
        let written = self.inner.serialize_f32(value);
        written.map_err(|error| self.check.kept(error))
    }

    #[inline]
    fn serialize_f64(self, value: f64) -> Result<S::Ok, EncodeError> {
        self.check.check_float(value.is_finite())?;
        self.check.give();
        let written = self.inner.serialize_f64(value);
        written.map_err(|error| self.check.kept(error))
    }

    #[inline]
    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<S::Ok, EncodeError> {
        self.check.give();
        let written = self.inner.collect_str(value);
        written.map_err(|error| self.check.kept(error))
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, EncodeError> {
        let Self { inner, check } = self;
        check.give();
        check.wrapped(|| {
            let written = inner.serialize_some(&Value { value, check });
            written.map_err(|error| check.kept(error))
        })
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, EncodeError> {
        let Self { inner, check } = self;
        check.wrapped(|| {
            let written = inner.serialize_newtype_struct(name, &Value { value, check });
            written.map_err(|error| check.kept(error))
        })
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, EncodeError> {
        let Self { inner, check } = self;
        check.give();
        check.enter(check.format.unit_levels)?;
        check.leave(check.format.unit_levels);
        let written = inner.serialize_unit_variant(name, index, variant);
        written.map_err(|error| check.kept(error))
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, EncodeError> {
        let Self { inner, check } = self;
        check.give();
        check.enter(1)?;
        let value = Value { value, check };
        let written = inner.serialize_newtype_variant(name, index, variant, &value);
        let written = written.map_err(|error| check.kept(error))?;
        check.leave(1);
        Ok(written)
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, EncodeError> {
        self.check.check_length(len)?;
        self.check.give();
        self.parts(1, len, |inner| inner.serialize_seq(len))
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, EncodeError> {
        self.check.check_length(len)?;
        self.check.give();
        self.parts(1, len, |inner| inner.serialize_map(len))
    }

    #[inline]
    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, EncodeError> {
        self.parts(1, Some(len), |inner| inner.serialize_tuple(len))
    }

    #[inline]
    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, EncodeError> {
        self.parts(1, Some(len), |inner| {
            inner.serialize_tuple_struct(name, len)
        })
    }

    #[inline]
    fn serialize_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStruct, EncodeError> {
        self.parts(1, Some(len), |inner| inner.serialize_struct(name, len))
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, EncodeError> {
        self.check.give();
        let levels = self.check.format.variant_levels;
        self.parts(levels, Some(len), |inner| {
            inner.serialize_tuple_variant(name, index, variant, len)
        })
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, EncodeError> {
        self.check.give();
        let levels = self.check.format.variant_levels;
        self.parts(levels, Some(len), |inner| {
            inner.serialize_struct_variant(name, index, variant, len)
        })
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

impl Check {
    #[inline]
    fn check_length(&self, len: Option<usize>) -> Result<(), EncodeError> {
        if self.format.positional && len.is_none() {
            return Err(EncodeError::new(EncodeErrorKind::UnknownLength));
        }
        Ok(())
    }
}

/// The parts of a container, with the checks.
struct Parts<'c, P> {
    inner: P,
    check: &'c Check,
    levels: u16,
    /// The number of parts that was given beforehand.
    announced: Option<usize>,
    written: usize,
    /// What was given before the last key of a map.
    given_at_key: usize,
}

impl<P> Parts<'_, P> {
    /// Refuses an element that takes no bytes, as its reader would.
    #[inline]
    fn not_empty(&self, given_before: usize) -> Result<(), EncodeError> {
        if self.check.format.positional && self.check.given.get() == given_before {
            let elements = self.announced.unwrap_or(self.written);
            return Err(EncodeError::new(EncodeErrorKind::EmptyElements {
                elements,
            }));
        }
        Ok(())
    }

    #[inline]
    fn finish<R, E: Error>(self, end: impl FnOnce(P) -> Result<R, E>) -> Result<R, EncodeError> {
        let Self {
            inner,
            check,
            levels,
            announced,
            written,
            ..
        } = self;
        if check.format.counted
            && let Some(announced) = announced
            && announced != written
        {
            return Err(EncodeError::new(EncodeErrorKind::WrongLength {
                announced,
                written,
            }));
        }
        check.leave(levels);
        end(inner).map_err(|error| check.kept(error))
    }
}

macro_rules! tuples {
    ($($trait:ident $name:ident)*) => { $(
        impl<P: $trait> $trait for Parts<'_, P> {
            type Ok = P::Ok;
            type Error = EncodeError;

            #[inline]
            fn $name<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
                let check = self.check;
                self.written += 1;
                let written = self.inner.$name(&Value { value, check });
                written.map_err(|error| check.kept(error))
            }

            #[inline]
            fn end(self) -> Result<P::Ok, EncodeError> {
                self.finish(P::end)
            }
        }
    )* };
}

tuples! {
    SerializeTuple serialize_element
    SerializeTupleStruct serialize_field
    SerializeTupleVariant serialize_field
}

macro_rules! structs {
    ($($trait:ident)*) => { $(
        impl<P: $trait> $trait for Parts<'_, P> {
            type Ok = P::Ok;
            type Error = EncodeError;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                field: &'static str,
                value: &T,
            ) -> Result<(), EncodeError> {
                let check = self.check;
                self.written += 1;
                let written = self.inner.serialize_field(field, &Value { value, check });
                written.map_err(|error| check.kept(error))
            }

            #[inline]
            fn skip_field(&mut self, field: &'static str) -> Result<(), EncodeError> {
                let check = self.check;
                if check.format.positional {
                    return Err(EncodeError::new(EncodeErrorKind::SkippedField { field }));
                }
                self.inner.skip_field(field).map_err(|error| check.kept(error))
            }

            #[inline]
            fn end(self) -> Result<P::Ok, EncodeError> {
                self.finish(P::end)
            }
        }
    )* };
}

structs! {
    SerializeStruct
    SerializeStructVariant
}

impl<P: SerializeSeq> SerializeSeq for Parts<'_, P> {
    type Ok = P::Ok;
    type Error = EncodeError;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        let (check, given) = (self.check, self.check.given.get());
        self.written += 1;
        let written = self.inner.serialize_element(&Value { value, check });
        written.map_err(|error| check.kept(error))?;
        self.not_empty(given)
    }

    #[inline]
    fn end(self) -> Result<P::Ok, EncodeError> {
        self.finish(P::end)
    }
}

impl<P: SerializeMap> SerializeMap for Parts<'_, P> {
    type Ok = P::Ok;
    type Error = EncodeError;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        let check = self.check;
        self.given_at_key = check.given.get();
        let written = self.inner.serialize_key(&Value { value: key, check });
        written.map_err(|error| check.kept(error))
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        let check = self.check;
        self.written += 1;
        let written = self.inner.serialize_value(&Value { value, check });
        written.map_err(|error| check.kept(error))?;
        self.not_empty(self.given_at_key)
    }

    #[inline]
    fn serialize_entry<K, V>(&mut self, key: &K, value: &V) -> Result<(), EncodeError>
    where
        K: Serialize + ?Sized,
        V: Serialize + ?Sized,
    {
        let (check, given) = (self.check, self.check.given.get());
        self.written += 1;
        let key = Value { value: key, check };
        let written = self.inner.serialize_entry(&key, &Value { value, check });
        written.map_err(|error| check.kept(error))?;
        self.not_empty(given)
    }

    #[inline]
    fn end(self) -> Result<P::Ok, EncodeError> {
        self.finish(P::end)
    }
}
