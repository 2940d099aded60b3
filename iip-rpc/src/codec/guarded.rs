//! The guarantees of [`Codec::decode`](super::Codec::decode) for a format whose own deserializer
//! does not give all of them.
//!
//! It wraps the format's deserializer and sees every step: it counts the depth of nested values,
//! checks the stack, rejects elements that take no bytes, and preserves errors that the format
//! would shorten. One [`Guard`] holds all state of a message.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::stack::{MAX_STACK_BYTES, stack_position};
use super::{DecodeError, DecodeErrorKind, DecodeLimits};

/// State of the checks while one message is read.
pub(super) struct Guard {
    format: Format,
    message_bytes: usize,
    max_depth: u16,
    /// Number of further containers that may be nested.
    levels_left: Cell<u16>,
    /// Number of further options and newtypes that may be nested; a recursive type can consist of
    /// them as well.
    wrappers_left: Cell<u16>,
    stack_at_start: usize,
    /// Incremented for every part that takes bytes.
    taken: Cell<usize>,
    /// The original error, while an error of the format is returned in its place.
    failed: RefCell<Option<DecodeError>>,
}

/// Properties of a format that the guard needs.
pub(super) struct Format {
    /// `true` if every value describes itself, and so takes at least one byte.
    pub(super) describes_itself: bool,
    /// Converts the text of an error of the format.
    pub(super) error_kind: fn(String) -> DecodeErrorKind,
}

impl Guard {
    pub(super) fn new(format: Format, input: &[u8], limits: &DecodeLimits) -> Self {
        Self {
            format,
            message_bytes: input.len(),
            max_depth: limits.max_depth,
            levels_left: Cell::new(limits.max_depth),
            wrappers_left: Cell::new(limits.max_depth.saturating_mul(4)),
            stack_at_start: stack_position(),
            taken: Cell::new(0),
            failed: RefCell::new(None),
        }
    }

    /// Reads a value with the format's deserializer.
    pub(super) fn read<'de, S, D>(&self, seed: S, deserializer: D) -> Result<S::Value, DecodeError>
    where
        S: DeserializeSeed<'de>,
        D: Deserializer<'de>,
    {
        seed.deserialize(Guarded {
            inner: deserializer,
            guard: self,
        })
    }

    /// Returns the original error for an error of the format: the one that was kept, or its text.
    #[cold]
    fn kept<E: Error>(&self, error: E) -> DecodeError {
        let kept = self.failed.take();
        kept.unwrap_or_else(|| DecodeError::new((self.format.error_kind)(error.to_string())))
    }

    /// Keeps the original error, and returns one of the format in its place.
    #[inline]
    fn keep<T, E: Error>(&self, result: Result<T, DecodeError>) -> Result<T, E> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => Err(self.keep_error(error)),
        }
    }

    #[cold]
    fn keep_error<E: Error>(&self, error: DecodeError) -> E {
        // The text is never seen, because `kept` returns the original error.
        self.failed.replace(Some(error));
        E::custom("")
    }

    fn take(&self) {
        // Only equality of two values of the counter matters.
        self.taken.set(self.taken.get().wrapping_add(1));
    }

    /// Runs `read` one level deeper. An error ends the whole decoding, so the level is left only
    /// after a success.
    #[inline]
    fn deeper<T>(
        &self,
        left: &Cell<u16>,
        read: impl FnOnce() -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        self.enter(left)?;
        let value = read();
        if value.is_ok() {
            left.set(left.get() + 1);
        }
        value
    }

    fn enter(&self, left: &Cell<u16>) -> Result<(), DecodeError> {
        let Some(fewer) = left.get().checked_sub(1) else {
            let limit = self.max_depth;
            return Err(DecodeError::new(DecodeErrorKind::TooDeep { limit }));
        };
        if self.stack_at_start.abs_diff(stack_position()) > MAX_STACK_BYTES {
            let limit = MAX_STACK_BYTES;
            return Err(DecodeError::new(DecodeErrorKind::TooMuchStack { limit }));
        }
        left.set(fewer);
        Ok(())
    }

    /// Limits the claimed size of a collection to the number of bytes of the message.
    fn hint(&self, claimed: Option<usize>) -> Option<usize> {
        // Types may allocate by this number before they have read anything.
        claimed.map(|elements| elements.min(self.message_bytes))
    }
}

/// The format's deserializer, with the checks.
struct Guarded<'g, D> {
    inner: D,
    guard: &'g Guard,
}

macro_rules! values {
    ($($name:ident => $inner:ident)*) => { $(
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            self.guard.take();
            let watch = Watch::new(visitor, self.guard);
            match self.inner.$inner(watch) {
                Ok(value) => Ok(value),
                Err(error) => Err(self.guard.kept(error)),
            }
        }
    )* };
}

/// Deserializes values that take no bytes themselves, as far as the guard can know.
macro_rules! frames {
    ($($name:ident ($($argument:ident: $type:ty),*))*) => { $(
        fn $name<V: Visitor<'de>>(
            self,
            $($argument: $type,)*
            visitor: V,
        ) -> Result<V::Value, DecodeError> {
            let watch = Watch { of_type: true, ..Watch::new(visitor, self.guard) };
            match self.inner.$name($($argument,)* watch) {
                Ok(value) => Ok(value),
                Err(error) => Err(self.guard.kept(error)),
            }
        }
    )* };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Guarded<'_, D> {
    type Error = DecodeError;

    values! {
        deserialize_bool => deserialize_bool
        deserialize_i8 => deserialize_i8
        deserialize_i16 => deserialize_i16
        deserialize_i32 => deserialize_i32
        deserialize_i64 => deserialize_i64
        deserialize_i128 => deserialize_i128
        deserialize_u8 => deserialize_u8
        deserialize_u16 => deserialize_u16
        deserialize_u32 => deserialize_u32
        deserialize_u64 => deserialize_u64
        deserialize_u128 => deserialize_u128
        deserialize_f32 => deserialize_f32
        deserialize_f64 => deserialize_f64
        deserialize_char => deserialize_char
        deserialize_option => deserialize_option
        deserialize_seq => deserialize_seq
        deserialize_map => deserialize_map
        deserialize_any => deserialize_any
        deserialize_identifier => deserialize_identifier
        deserialize_ignored_any => deserialize_ignored_any
        // The borrowed forms are used even if the type takes a copy, so that a payload can become a
        // part of the message.
        deserialize_str => deserialize_str
        deserialize_string => deserialize_str
        deserialize_bytes => deserialize_bytes
        deserialize_byte_buf => deserialize_bytes
    }

    frames! {
        deserialize_unit()
        deserialize_unit_struct(name: &'static str)
        deserialize_newtype_struct(name: &'static str)
        deserialize_tuple(len: usize)
        deserialize_tuple_struct(name: &'static str, len: usize)
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.guard.take();
        let watch = Watch::new(visitor, self.guard);
        let value = self.inner.deserialize_enum(name, variants, watch);
        value.map_err(|error| self.guard.kept(error))
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// The type's visitor, with the checks.
struct Watch<'g, V> {
    visitor: V,
    guard: &'g Guard,
    /// The number of elements is that of the type, not one that the message claims.
    of_type: bool,
    /// Inside an enum, whose level is already counted.
    of_variant: bool,
}

impl<'g, V> Watch<'g, V> {
    fn new(visitor: V, guard: &'g Guard) -> Self {
        Self {
            visitor,
            guard,
            of_type: false,
            of_variant: false,
        }
    }

    fn in_variant(visitor: V, guard: &'g Guard) -> Self {
        Self {
            visitor,
            guard,
            of_type: true,
            of_variant: true,
        }
    }

    /// Runs `visit` one level deeper.
    fn nested<T>(self, visit: impl FnOnce(V) -> Result<T, DecodeError>) -> Result<T, DecodeError> {
        let Self { visitor, guard, .. } = self;
        if self.of_variant {
            return visit(visitor);
        }
        guard.deeper(&guard.levels_left, || visit(visitor))
    }

    /// Returns `true` if an element that takes no bytes is rejected: the number of elements is only
    /// claimed, and nothing else limits it.
    fn none_empty(&self) -> bool {
        !self.of_type && !self.guard.format.describes_itself
    }
}

macro_rules! visit {
    ($($name:ident $type:ty)*) => { $(
        fn $name<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.guard.keep(self.visitor.$name(value))
        }
    )* };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Watch<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    visit! {
        visit_bool bool
        visit_i8 i8
        visit_i16 i16
        visit_i32 i32
        visit_i64 i64
        visit_i128 i128
        visit_u8 u8
        visit_u16 u16
        visit_u32 u32
        visit_u64 u64
        visit_u128 u128
        visit_f32 f32
        visit_f64 f64
        visit_char char
        visit_str &str
        visit_borrowed_str &'de str
        visit_string String
        visit_bytes &[u8]
        visit_borrowed_bytes &'de [u8]
        visit_byte_buf Vec<u8>
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.guard.keep(self.visitor.visit_none())
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.guard.keep(self.visitor.visit_unit())
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let Self { visitor, guard, .. } = self;
        let read = || visitor.visit_some(Guarded { inner, guard });
        guard.keep(guard.deeper(&guard.wrappers_left, read))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let Self { visitor, guard, .. } = self;
        let read = || visitor.visit_newtype_struct(Guarded { inner, guard });
        guard.keep(guard.deeper(&guard.wrappers_left, read))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let guard = self.guard;
        let elements = Elements {
            inner,
            guard,
            none_empty: self.none_empty(),
        };
        guard.keep(self.nested(|visitor| visitor.visit_seq(elements)))
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let guard = self.guard;
        let entries = Entries {
            inner,
            guard,
            none_empty: self.none_empty(),
            taken_at_key: None,
        };
        guard.keep(self.nested(|visitor| visitor.visit_map(entries)))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let guard = self.guard;
        guard.keep(self.nested(|visitor| visitor.visit_enum(Variants { inner, guard })))
    }
}

/// The elements of a sequence, with the checks.
struct Elements<'g, A> {
    inner: A,
    guard: &'g Guard,
    none_empty: bool,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Elements<'_, A> {
    type Error = DecodeError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DecodeError> {
        let (guard, taken) = (self.guard, self.guard.taken.get());
        let element = self.inner.next_element_seed(Seed { seed, guard });
        let element = element.map_err(|error| guard.kept(error))?;
        if self.none_empty && element.is_some() && guard.taken.get() == taken {
            return Err(DecodeError::new(DecodeErrorKind::EmptyElement));
        }
        Ok(element)
    }

    fn size_hint(&self) -> Option<usize> {
        self.guard.hint(self.inner.size_hint())
    }
}

/// The entries of a map, with the checks.
struct Entries<'g, A> {
    inner: A,
    guard: &'g Guard,
    none_empty: bool,
    /// Value of the counter `taken` before the last key.
    taken_at_key: Option<usize>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Entries<'_, A> {
    type Error = DecodeError;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DecodeError> {
        let (guard, taken) = (self.guard, Some(self.guard.taken.get()));
        // The entry before this key took no bytes. Its value was read after its key, so it is
        // checked here and not there.
        if self.none_empty && self.taken_at_key == taken {
            return Err(DecodeError::new(DecodeErrorKind::EmptyElement));
        }
        self.taken_at_key = taken;
        let key = self.inner.next_key_seed(Seed { seed, guard });
        key.map_err(|error| guard.kept(error))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, DecodeError> {
        let guard = self.guard;
        let value = self.inner.next_value_seed(Seed { seed, guard });
        value.map_err(|error| guard.kept(error))
    }

    fn size_hint(&self) -> Option<usize> {
        self.guard.hint(self.inner.size_hint())
    }
}

/// The variant of an enum, and then its contents, with the checks.
struct Variants<'g, A> {
    inner: A,
    guard: &'g Guard,
}

impl<'g, 'de, A: EnumAccess<'de>> EnumAccess<'de> for Variants<'g, A> {
    type Error = DecodeError;
    type Variant = Variants<'g, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), DecodeError> {
        let guard = self.guard;
        let variant = self.inner.variant_seed(Seed { seed, guard });
        let (name, inner) = variant.map_err(|error| guard.kept(error))?;
        Ok((name, Variants { inner, guard }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Variants<'_, A> {
    type Error = DecodeError;

    fn unit_variant(self) -> Result<(), DecodeError> {
        let unit = self.inner.unit_variant();
        unit.map_err(|error| self.guard.kept(error))
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<S::Value, DecodeError> {
        let guard = self.guard;
        let value = self.inner.newtype_variant_seed(Seed { seed, guard });
        value.map_err(|error| guard.kept(error))
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let watch = Watch::in_variant(visitor, self.guard);
        let value = self.inner.tuple_variant(len, watch);
        value.map_err(|error| self.guard.kept(error))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let watch = Watch::in_variant(visitor, self.guard);
        let value = self.inner.struct_variant(fields, watch);
        value.map_err(|error| self.guard.kept(error))
    }
}

/// The seed that reads the next part, with the checks.
struct Seed<'g, S> {
    seed: S,
    guard: &'g Guard,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Seed<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.guard.keep(self.guard.read(self.seed, inner))
    }
}
