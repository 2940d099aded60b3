//! Arguments of a call: a tuple in Rust, which is encoded by position in bincode and postcard, and
//! by name in JSON and MessagePack.

pub(crate) mod recorded;

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use bytes::{Bytes, BytesMut};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde::ser::{Error as _, Serialize, SerializeMap, Serializer};
use serde::{Deserialize, Deserializer};

#[cfg(feature = "codec-bincode")]
use crate::codec::Bincode;
#[cfg(feature = "codec-msgpack")]
use crate::codec::Msgpack;
#[cfg(feature = "codec-postcard")]
use crate::codec::Postcard;
#[cfg(feature = "codec-prost")]
use crate::codec::Protobuf;
use crate::codec::{
    Codec, CodecId, DecodeError, DecodeErrorKind, DecodeLimits, EncodeError, Json, Owned,
    encode_value_split,
};
use crate::method::MethodDescriptor;
use crate::payload;

/// Arguments of a call on the caller's side: a tuple of up to twelve values that can be serialized,
/// owned or borrowed.
///
/// In bincode and postcard they follow one another; in JSON and MessagePack they are an object with
/// the names from the method's descriptor. In protobuf the only argument is the message.
pub trait Arguments: sealed::Sealed {
    /// Appends the arguments to `out`, except for a large [`Payload`](payload::Payload) at their
    /// very end, which may be returned instead: it follows after `out` and was not copied.
    ///
    /// # Errors
    ///
    /// One of them cannot be encoded, or this build does not have the codec.
    fn encode_split(
        &self,
        method: &MethodDescriptor,
        codec: CodecId,
        out: &mut BytesMut,
    ) -> Result<Option<Bytes>, EncodeError>;

    /// Appends the arguments to `out`.
    ///
    /// # Errors
    ///
    /// Like [`encode_split`](Self::encode_split).
    fn encode(
        &self,
        method: &MethodDescriptor,
        codec: CodecId,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        if let Some(tail) = self.encode_split(method, codec, out)? {
            out.extend_from_slice(&tail);
        }
        Ok(())
    }
}

/// Arguments of a call on the server's side: a tuple of up to twelve values that can be
/// deserialized and own their data.
///
/// In JSON and MessagePack they are read as an object with the names from the method's descriptor,
/// or, in JSON with exactly one argument, from the bare value. An object whose only key is the name
/// of that argument counts as the former, and so does the empty one if the argument may be missing.
/// An argument that may be missing is an `Option`.
pub trait FromArguments: sealed::Sealed + Sized + Send + 'static {
    /// Decodes the arguments from `body`. Large payloads among them share its memory.
    ///
    /// # Errors
    ///
    /// `body` does not match the arguments of the method; the error names the argument if possible.
    fn decode(
        method: &MethodDescriptor,
        codec: CodecId,
        body: &Bytes,
        limits: &DecodeLimits,
    ) -> Result<Self, DecodeError>;
}

mod sealed {
    /// Restricts arguments to tuples.
    #[expect(unnameable_types, reason = "sealed: other crates cannot implement it")]
    pub trait Sealed {}
}

/// Arguments with their names, for JSON and MessagePack.
struct Named<'a, T> {
    values: &'a T,
    names: &'static [&'static str],
}

/// Reads arguments that follow one another, in the codec `C`.
struct Positional<'a, T, C> {
    reading: &'a Reading,
    marker: PhantomData<(T, C)>,
}

/// Reads arguments by their names, in the codec `C`.
struct ByName<'a, T, C> {
    names: &'static [&'static str],
    reading: &'a Reading,
    marker: PhantomData<(T, C)>,
}

/// Index of the argument that is being read, for the error if it cannot be read.
#[derive(Default)]
struct Reading(Cell<Option<usize>>);

impl Reading {
    #[inline]
    fn begin(&self, index: usize) {
        self.0.set(Some(index));
    }

    #[inline]
    fn end(&self) {
        self.0.set(None);
    }

    #[cold]
    fn name(&self, names: &'static [&'static str], error: DecodeError) -> DecodeError {
        match self.0.get().and_then(|index| names.get(index)) {
            Some(name) => error.in_argument(name),
            None => error,
        }
    }
}

macro_rules! tuples {
    ($($count:literal ($($type:ident $value:ident $index:tt)*))*) => { $(
        impl<$($type),*> sealed::Sealed for ($($type,)*) {}

        impl<$($type: Serialize),*> Arguments for ($($type,)*) {
            #[inline]
            fn encode_split(
                &self,
                method: &MethodDescriptor,
                codec: CodecId,
                out: &mut BytesMut,
            ) -> Result<Option<Bytes>, EncodeError> {
                match codec {
                    CodecId::JSON | CodecId::MSGPACK => {
                        if let Some(text) = mismatch(method, $count) {
                            return Err(EncodeError::custom(text));
                        }
                        let named = Named { values: self, names: method.args() };
                        encode_value_split(codec, &named, out)
                    }
                    _ => encode_value_split(codec, self, out),
                }
            }
        }

        impl<$($type: Serialize),*> Serialize for Named<'_, ($($type,)*)> {
            #[allow(clippy::let_unit_value, reason = "there may be no argument")]
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let ($($value,)*) = self.values;
                #[allow(unused_mut, reason = "there may be no argument")]
                let mut map = serializer.serialize_map(Some($count))?;
                $( map.serialize_entry(name(self.names, $index), $value)?; )*
                map.end()
            }
        }

        impl<$($type: DeserializeOwned + Send + 'static),*> FromArguments for ($($type,)*) {
            #[inline]
            fn decode(
                method: &MethodDescriptor,
                codec: CodecId,
                body: &Bytes,
                limits: &DecodeLimits,
            ) -> Result<Self, DecodeError> {
                let reading = &Reading::default();
                payload::while_reading(body, || match codec {
                    #[cfg(feature = "codec-bincode")]
                    CodecId::BINCODE => {
                        positional::<Self, Bincode>(method, body, limits, reading)
                    }
                    #[cfg(feature = "codec-postcard")]
                    CodecId::POSTCARD => {
                        positional::<Self, Postcard>(method, body, limits, reading)
                    }
                    CodecId::JSON => json::<Self>($count, method, body, limits, reading),
                    #[cfg(feature = "codec-msgpack")]
                    CodecId::MSGPACK => {
                        by_name::<Self, Msgpack>($count, method, body, limits, reading)
                    }
                    #[cfg(feature = "codec-prost")]
                    CodecId::PROTOBUF => {
                        positional::<Self, Protobuf>(method, body, limits, reading)
                    }
                    other => Err(DecodeError::new(DecodeErrorKind::Unsupported(other))),
                })
            }
        }

        impl<'de, $($type: Deserialize<'de> + 'static,)* C: Codec> Visitor<'de>
            for Positional<'_, ($($type,)*), C>
        {
            type Value = ($($type,)*);

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!($count, " arguments"))
            }

            #[inline]
            #[allow(unused_mut, unused_variables, reason = "there may be no argument")]
            fn visit_seq<Seq: SeqAccess<'de>>(
                self,
                mut seq: Seq,
            ) -> Result<Self::Value, Seq::Error> {
                $(
                    self.reading.begin($index);
                    let Some($value) = seq.next_element_seed(Owned::<$type, C>::new())? else {
                        self.reading.end();
                        return Err(Seq::Error::invalid_length($index, &self));
                    };
                    self.reading.end();
                )*
                Ok(($($value,)*))
            }
        }

        impl<'de, $($type: Deserialize<'de> + 'static,)* C: Codec> DeserializeSeed<'de>
            for Positional<'_, ($($type,)*), C>
        {
            type Value = ($($type,)*);

            #[inline]
            fn deserialize<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<Self::Value, D::Error> {
                deserializer.deserialize_tuple($count, self)
            }
        }

        impl<'de, $($type: Deserialize<'de> + 'static,)* C: Codec> Visitor<'de>
            for ByName<'_, ($($type,)*), C>
        {
            type Value = ($($type,)*);

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an object with {}", Names(self.names))
            }

            #[allow(unused_variables, reason = "there may be no argument")]
            fn visit_map<Map: MapAccess<'de>>(
                self,
                mut map: Map,
            ) -> Result<Self::Value, Map::Error> {
                $( let mut $value: Option<$type> = None; )*
                while let Some(index) = map.next_key_seed(Key { names: self.names })? {
                    match index {
                        $( $index => {
                            if $value.is_some() {
                                return Err(Map::Error::custom(format_args!(
                                    "the argument `{}` is given twice",
                                    name(self.names, $index)
                                )));
                            }
                            self.reading.begin($index);
                            $value = Some(map.next_value_seed(Owned::<$type, C>::new())?);
                            self.reading.end();
                        } )*
                        _ => return Err(Map::Error::custom("there are more names than arguments")),
                    }
                }
                Ok(($(
                    match $value {
                        Some(value) => value,
                        None => $type::deserialize(Missing(name(self.names, $index), PhantomData))?,
                    },
                )*))
            }

            /// `null` counts as an object without keys.
            fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
                let nothing = std::iter::empty::<(&str, &str)>();
                self.visit_map(serde::de::value::MapDeserializer::<_, E>::new(nothing))
            }
        }

        impl<'de, $($type: Deserialize<'de> + 'static,)* C: Codec> DeserializeSeed<'de>
            for ByName<'_, ($($type,)*), C>
        {
            type Value = ($($type,)*);

            fn deserialize<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<Self::Value, D::Error> {
                deserializer.deserialize_any(self)
            }
        }
    )* };
}

/// Reads arguments that follow one another.
#[cfg(any(
    feature = "codec-bincode",
    feature = "codec-postcard",
    feature = "codec-prost"
))]
#[inline]
fn positional<'r, 'de, T, C: Codec>(
    method: &MethodDescriptor,
    body: &'de [u8],
    limits: &DecodeLimits,
    reading: &'r Reading,
) -> Result<T, DecodeError>
where
    Positional<'r, T, C>: DeserializeSeed<'de, Value = T>,
{
    let arguments = Positional {
        reading,
        marker: PhantomData,
    };
    C::decode_seed(arguments, body, limits).map_err(|error| reading.name(method.args(), error))
}

/// Reads arguments by their names.
fn by_name<'r, 'de, T, C: Codec>(
    count: usize,
    method: &MethodDescriptor,
    body: &'de [u8],
    limits: &DecodeLimits,
    reading: &'r Reading,
) -> Result<T, DecodeError>
where
    ByName<'r, T, C>: DeserializeSeed<'de, Value = T>,
{
    // A descriptor that was written by hand may not fit the arguments.
    if let Some(text) = mismatch(method, count) {
        return Err(DecodeError::custom(text));
    }
    let names = method.args();
    let arguments = ByName {
        names,
        reading,
        marker: PhantomData,
    };
    C::decode_seed(arguments, body, limits).map_err(|error| reading.name(names, error))
}

/// Reads arguments by their names, or the bare value of the only one.
fn json<'r, 'de, T>(
    count: usize,
    method: &MethodDescriptor,
    body: &'de [u8],
    limits: &DecodeLimits,
    reading: &'r Reading,
) -> Result<T, DecodeError>
where
    Positional<'r, T, Json>: Visitor<'de, Value = T>,
    ByName<'r, T, Json>: DeserializeSeed<'de, Value = T>,
{
    let names = method.args();
    let by_name = || by_name::<T, Json>(count, method, body, limits, reading);
    // A bare value is possible only for exactly one argument. An object whose only key is its name
    // is read by name, as `docs/wire.md` specifies.
    if count != 1
        || names.len() != 1
        || names
            .first()
            .is_some_and(|name| is_object_of_only(name, body))
    {
        return by_name();
    }
    // An empty object has no argument if there need not be one.
    if is_empty_object(body)
        && let Ok(missing) = by_name()
    {
        return Ok(missing);
    }
    reading.0.set(None);
    let bare = Bare(Positional {
        reading,
        marker: PhantomData,
    });
    match Json::decode_seed(bare, body, limits) {
        // An object for a type that is not an object: the caller used names, and one of them is
        // wrong.
        Err(error) if error.to_string().starts_with("invalid type: map") => {
            // The failed attempt has left the index of the argument.
            reading.0.set(None);
            by_name()
        }
        result => result.map_err(|error| {
            let error = guessed(error, name(names, 0), body);
            reading.name(names, error)
        }),
    }
}

/// Extends the error of an object that could not be read as the bare value of the argument `name`:
/// the caller may have meant names, so the error says why it was read as a value.
#[cold]
fn guessed(error: DecodeError, name: &str, body: &[u8]) -> DecodeError {
    let DecodeErrorKind::Value(text) = error.kind() else {
        return error;
    };
    let Some(other) = other_key(name, body) else {
        return error;
    };
    let shown: String = other.chars().take(64).collect();
    DecodeError::custom(format_args!(
        "{text} (the object was read as `{name}` itself, because its key {shown:?} is not the \
         name of the argument)"
    ))
}

/// The first key of the object `body` that is not `name`.
fn other_key(name: &str, body: &[u8]) -> Option<String> {
    struct Other<'a>(&'a str);

    impl<'de> Visitor<'de> for Other<'_> {
        type Value = Option<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut other = None;
            while let Some((key, _)) = map.next_entry::<String, IgnoredAny>()? {
                if other.is_none() && key != self.0 {
                    other = Some(key);
                }
            }
            Ok(other)
        }
    }

    let mut json = serde_json::Deserializer::from_slice(body);
    json.deserialize_map(Other(name)).ok().flatten()
}

/// Returns `true` if `body` is an object whose only key, once or several times, is `name`.
fn is_object_of_only(name: &str, body: &[u8]) -> bool {
    struct Only<'a>(&'a str);

    impl<'de> Visitor<'de> for Only<'_> {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
            let mut found = false;
            while let Some(index) = map.next_key_seed(Key {
                names: std::slice::from_ref(&self.0),
            })? {
                let _: (usize, IgnoredAny) = (index, map.next_value()?);
                found = true;
            }
            Ok(found)
        }
    }

    let begins = body.iter().find(|byte| !byte.is_ascii_whitespace());
    begins == Some(&b'{')
        && serde_json::Deserializer::from_slice(body)
            .deserialize_map(Only(name))
            .unwrap_or(false)
}

fn is_empty_object(body: &[u8]) -> bool {
    let mut bytes = body.iter().filter(|byte| !byte.is_ascii_whitespace());
    bytes.next() == Some(&b'{') && bytes.next() == Some(&b'}')
}

/// Reads a value as a sequence of one.
struct Bare<V>(V);

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Bare<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_seq(OneElement(Some(deserializer)))
    }
}

struct OneElement<D>(Option<D>);

impl<'de, D: Deserializer<'de>> SeqAccess<'de> for OneElement<D> {
    type Error = D::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, D::Error> {
        self.0
            .take()
            .map(|deserializer| seed.deserialize(deserializer))
            .transpose()
    }
}

/// The name of an argument. The descriptor has one for each, because [`mismatch`] was checked
/// before.
fn name(names: &'static [&'static str], index: usize) -> &'static str {
    names.get(index).copied().unwrap_or_default()
}

/// Returns an error if the descriptor does not name all arguments: a bug in the descriptor, not in
/// the call.
fn mismatch(method: &MethodDescriptor, count: usize) -> Option<String> {
    let names = method.args().len();
    (names != count)
        .then(|| format!("the descriptor of {method} names {names} arguments where it has {count}"))
}

/// Reads a key and returns its index among the names.
struct Key<'a> {
    names: &'a [&'a str],
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of an argument")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<usize, E> {
        let place = self.names.iter().position(|name| *name == key);
        place.ok_or_else(|| {
            let shown: String = key.chars().take(64).collect();
            E::custom(format_args!(
                "unknown argument {shown:?}, the method takes {}",
                Names(self.names)
            ))
        })
    }
}

/// Formats names as part of a sentence.
struct Names<'a>(&'a [&'a str]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.0 else {
            return f.write_str("no arguments");
        };
        write!(f, "`{first}`")?;
        for (at, name) in rest.iter().enumerate() {
            let before = if at + 1 == rest.len() { " and " } else { ", " };
            write!(f, "{before}`{name}`")?;
        }
        Ok(())
    }
}

/// Deserializer for a missing argument: an option is `None`, any other type is an error with its
/// name.
struct Missing<E>(&'static str, PhantomData<E>);

impl<'de, E: serde::de::Error> Deserializer<'de> for Missing<E> {
    type Error = E;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, E> {
        Err(E::custom(format_args!(
            "the argument `{}` is missing",
            self.0
        )))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        visitor.visit_none()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

tuples! {
    0 ()
    1 (T0 v0 0)
    2 (T0 v0 0 T1 v1 1)
    3 (T0 v0 0 T1 v1 1 T2 v2 2)
    4 (T0 v0 0 T1 v1 1 T2 v2 2 T3 v3 3)
    5 (T0 v0 0 T1 v1 1 T2 v2 2 T3 v3 3 T4 v4 4)
    6 (T0 v0 0 T1 v1 1 T2 v2 2 T3 v3 3 T4 v4 4 T5 v5 5)
    7 (T0 v0 0 T1 v1 1 T2 v2 2 T3 v3 3 T4 v4 4 T5 v5 5 T6 v6 6)
    8 (T0 v0 0 T1 v1 1 T2 v2 2 T3 v3 3 T4 v4 4 T5 v5 5 T6 v6 6 T7 v7 7)
    9 (T0 v0 0 T1 v1 1 T2 v2 2 T3 v3 3 T4 v4 4 T5 v5 5 T6 v6 6 T7 v7 7 T8 v8 8)
    10 (T0 v0 0 T1 v1 1 T2 v2 2 T3 v3 3 T4 v4 4 T5 v5 5 T6 v6 6 T7 v7 7 T8 v8 8 T9 v9 9)
    11 (T0 v0 0 T1 v1 1 T2 v2 2 T3 v3 3 T4 v4 4 T5 v5 5 T6 v6 6 T7 v7 7 T8 v8 8 T9 v9 9 T10 v10 10)
    12 (T0 v0 0 T1 v1 1 T2 v2 2 T3 v3 3 T4 v4 4 T5 v5 5 T6 v6 6 T7 v7 7 T8 v8 8 T9 v9 9 T10 v10 10
        T11 v11 11)
}

#[cfg(test)]
mod tests;
