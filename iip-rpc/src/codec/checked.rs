//! The guarantees of [`Codec::encode`](super::Codec::encode) for a format whose own serializer does
//! not give all of them.
//!
//! The counterpart of `guarded.rs`: it wraps the format's serializer, and rejects values that a
//! reader would reject or misread. One [`Check`] holds all state of a message.

use std::any::type_name;
use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::marker::PhantomData;

use serde::ser::{
    Error, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant,
};
use serde::{Serialize, Serializer};

use super::{EncodeError, EncodeErrorKind, MAX_DEPTH, MAX_WRAPPERS, exact_len};

/// Properties of a format that determine what its readers reject.
pub(super) trait Format {
    /// Fields are identified by their position, and a value may take no bytes.
    const POSITIONAL: bool = false;
    /// The number of parts is written before them.
    const COUNTED: bool = true;
    /// NaN and infinities cannot be represented.
    const FINITE: bool = false;
    /// Number of levels that readers accept.
    const MAX_LEVELS: u16 = MAX_DEPTH;
    /// Number of levels that bytes take.
    const BYTES_LEVELS: u16 = 0;
    /// Number of levels that a variant without parts takes.
    const UNIT_LEVELS: u16 = 1;
    /// Number of levels that a variant with several parts takes.
    const VARIANT_LEVELS: u16 = 1;
}

/// State of the checks while one message is written.
pub(super) struct Check<F> {
    /// Number of further containers that may be nested.
    levels_left: Cell<u16>,
    /// Number of further options and newtypes that may be nested; a recursive type can consist of
    /// them as well.
    wrappers_left: Cell<u16>,
    /// Incremented for every part that takes bytes, if the format is positional.
    given: Cell<usize>,
    /// The original error, while an error of the format is returned in its place.
    failed: RefCell<Option<EncodeError>>,
    format: PhantomData<F>,
}

impl<F: Format> Check<F> {
    /// Creates the checks for a message in the format `F`.
    pub(super) fn of(_: F) -> Self {
        Self {
            levels_left: Cell::new(F::MAX_LEVELS),
            wrappers_left: Cell::new(MAX_WRAPPERS),
            given: Cell::new(0),
            failed: RefCell::new(None),
            format: PhantomData,
        }
    }

    /// Writes a value with the format's serializer.
    #[inline]
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

    /// Returns the original error for an error of the format: the one that was kept, or its text.
    #[cold]
    fn kept<E: Error>(&self, error: E) -> EncodeError {
        let kept = self.failed.take();
        kept.unwrap_or_else(|| EncodeError::custom(error))
    }

    /// Keeps the original error, and returns one of the format in its place.
    #[cold]
    fn keep<E: Error>(&self, error: EncodeError) -> E {
        self.failed.replace(Some(error));
        E::custom("")
    }

    #[inline]
    fn give(&self) {
        if F::POSITIONAL {
            self.given.set(self.given.get().wrapping_add(1));
        }
    }

    #[inline]
    fn enter(&self, levels: u16) -> Result<(), EncodeError> {
        let Some(left) = self.levels_left.get().checked_sub(levels) else {
            return Err(self.too_deep());
        };
        self.levels_left.set(left);
        Ok(())
    }

    /// Leaves levels. An error ends the whole encoding, so this is called only after a success.
    #[inline]
    fn leave(&self, levels: u16) {
        self.levels_left.set(self.levels_left.get() + levels);
    }

    /// Writes an option or a newtype, which do not count as levels but have a separate limit.
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
        let limit = F::MAX_LEVELS;
        EncodeError::new(EncodeErrorKind::TooDeep { limit })
    }

    #[inline]
    fn check_float(&self, is_finite: bool) -> Result<(), EncodeError> {
        if F::FINITE && !is_finite {
            return Err(EncodeError::new(EncodeErrorKind::NotFinite));
        }
        Ok(())
    }
}

/// A value that is written with the checks.
struct Value<'c, T: ?Sized, F> {
    value: &'c T,
    check: &'c Check<F>,
}

impl<T: Serialize + ?Sized, F: Format> Serialize for Value<'_, T, F> {
    #[inline]
    fn serialize<S: Serializer>(&self, inner: S) -> Result<S::Ok, S::Error> {
        let written = self.check.write(self.value, inner);
        written.map_err(|error| self.check.keep(error))
    }
}

/// The format's serializer, with the checks.
struct Checked<'c, S, F> {
    inner: S,
    check: &'c Check<F>,
}

impl<'c, S: Serializer, F: Format> Checked<'c, S, F> {
    /// Begins a container of `len` parts, if their number is known.
    #[inline]
    fn parts<P>(
        self,
        levels: u16,
        len: Option<usize>,
        begin: impl FnOnce(S) -> Result<P, S::Error>,
    ) -> Result<Parts<'c, P, F>, EncodeError> {
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

/// Serializes values that take no bytes in a positional format.
macro_rules! nothings {
    ($($name:ident ($($argument:ident: $type:ty),*))*) => { $(
        #[inline]
        fn $name(self, $($argument: $type),*) -> Result<S::Ok, EncodeError> {
            self.inner.$name($($argument),*).map_err(|error| self.check.kept(error))
        }
    )* };
}

impl<'c, S: Serializer, F: Format> Serializer for Checked<'c, S, F> {
    type Ok = S::Ok;
    type Error = EncodeError;
    type SerializeSeq = Parts<'c, S::SerializeSeq, F>;
    type SerializeTuple = Parts<'c, S::SerializeTuple, F>;
    type SerializeTupleStruct = Parts<'c, S::SerializeTupleStruct, F>;
    type SerializeTupleVariant = Parts<'c, S::SerializeTupleVariant, F>;
    type SerializeMap = Parts<'c, S::SerializeMap, F>;
    type SerializeStruct = Parts<'c, S::SerializeStruct, F>;
    type SerializeStructVariant = Parts<'c, S::SerializeStructVariant, F>;

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
        serialize_none()
    }

    nothings! {
        serialize_unit()
        serialize_unit_struct(name: &'static str)
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result<S::Ok, EncodeError> {
        self.check.enter(F::BYTES_LEVELS)?;
        self.check.leave(F::BYTES_LEVELS);
        self.check.give();
        let written = self.inner.serialize_bytes(value);
        written.map_err(|error| self.check.kept(error))
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
    fn collect_seq<I>(self, values: I) -> Result<S::Ok, EncodeError>
    where
        I: IntoIterator,
        I::Item: Serialize,
    {
        let values = values.into_iter();
        let len = exact_len(&values);
        // Scalars take bytes and have no levels, so one check for the sequence is enough, and the
        // format writes it in its own loop.
        if len.is_some() && is_scalar::<I::Item, F>() {
            let Self { inner, check } = self;
            check.enter(1)?;
            check.leave(1);
            check.give();
            return inner.collect_seq(values).map_err(|error| check.kept(error));
        }
        let mut seq = self.serialize_seq(len)?;
        for value in values {
            seq.serialize_element(&value)?;
        }
        SerializeSeq::end(seq)
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
        check.enter(F::UNIT_LEVELS)?;
        check.leave(F::UNIT_LEVELS);
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
        let levels = F::VARIANT_LEVELS;
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
        let levels = F::VARIANT_LEVELS;
        self.parts(levels, Some(len), |inner| {
            inner.serialize_struct_variant(name, index, variant, len)
        })
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

impl<F: Format> Check<F> {
    #[inline]
    fn check_length(&self, len: Option<usize>) -> Result<(), EncodeError> {
        if F::POSITIONAL && len.is_none() {
            return Err(EncodeError::new(EncodeErrorKind::UnknownLength));
        }
        Ok(())
    }
}

/// Returns `true` if values of the type `T` need no checks, so that the format may write a sequence
/// of them by itself. Each name identifies exactly one type.
#[inline]
fn is_scalar<T, F: Format>() -> bool {
    let name = type_name::<T>();
    // The compiler evaluates a chain of comparisons at compile time.
    name == type_name::<&u8>()
        || name == type_name::<&u16>()
        || name == type_name::<&u32>()
        || name == type_name::<&u64>()
        || name == type_name::<&i32>()
        || name == type_name::<&i64>()
        || name == type_name::<&String>()
        || (!F::FINITE && (name == type_name::<&f32>() || name == type_name::<&f64>()))
}

/// The parts of a container, with the checks.
struct Parts<'c, P, F> {
    inner: P,
    check: &'c Check<F>,
    levels: u16,
    /// The number of parts that was announced.
    announced: Option<usize>,
    written: usize,
    /// Value of the counter `given` before the last key of a map.
    given_at_key: usize,
}

impl<P, F: Format> Parts<'_, P, F> {
    /// Rejects an element that takes no bytes, as its reader would.
    #[inline]
    fn not_empty(&self, given_before: usize) -> Result<(), EncodeError> {
        if F::POSITIONAL && self.check.given.get() == given_before {
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
        // The number was written before the parts, and a reader relies on it.
        if F::COUNTED
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
        impl<P: $trait, F: Format> $trait for Parts<'_, P, F> {
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
        impl<P: $trait, F: Format> $trait for Parts<'_, P, F> {
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
                if F::POSITIONAL {
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

impl<P: SerializeSeq, F: Format> SerializeSeq for Parts<'_, P, F> {
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

impl<P: SerializeMap, F: Format> SerializeMap for Parts<'_, P, F> {
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
