//! The arguments of a call: a tuple in Rust, positions in bincode and postcard, names in JSON and MessagePack.

pub(crate) mod kept;

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

/// The arguments of a call on the caller's side: a tuple of up to twelve values that can be serialized, owned or
/// borrowed.
///
/// In bincode and postcard they lie one behind the other; in JSON and MessagePack they are an object with the names that the
/// method's descriptor gives them. In protobuf the only one is the message.
pub trait Arguments: sealed::Sealed {
    /// Appends the arguments to `out`, except for a large [`Payload`](payload::Payload) at their very end, which may be
    /// returned instead: it belongs behind `out` and was not copied.
    ///
    /// # Errors
    ///
    /// When one of them cannot be encoded, or this build does not have the codec.
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
    /// As [`encode_split`](Self::encode_split).
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

/// The arguments of a call on the server's side: a tuple of up to twelve values that can be deserialized and own all they
/// have.
///
/// From JSON and MessagePack they are read as an object with the names that the method's descriptor gives them, or, in JSON
/// where there is exactly one, from the bare value. An object whose only key is the name of that one argument counts as the former. An argument
/// that may be missing is an `Option`.
pub trait FromArguments: sealed::Sealed + Sized + Send + 'static {
    /// Reads the arguments from `body`. Large payloads among them become parts of it.
    ///
    /// # Errors
    ///
    /// When `body` is not what the method takes; the error names the argument where it can.
    fn decode(
        method: &MethodDescriptor,
        codec: CodecId,
        body: &Bytes,
        limits: &DecodeLimits,
    ) -> Result<Self, DecodeError>;
}

mod sealed {
    /// Only tuples are arguments.
    #[expect(unnameable_types, reason = "nobody else shall implement it")]
    pub trait Sealed {}
}

/// Arguments with their names, as JSON and MessagePack have them.
struct Named<'a, T> {
    values: &'a T,
    names: &'static [&'static str],
}

/// Reads arguments one behind the other, in the codec `C`.
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

/// Which argument is just being read: when reading it fails, the error shall say so.
#[derive(Default)]
struct Reading(Cell<Option<usize>>);

impl Reading {
    #[inline]
    fn argument<R, E>(&self, index: usize, read: impl FnOnce() -> Result<R, E>) -> Result<R, E> {
        self.0.set(Some(index));
        let value = read()?;
        self.0.set(None);
        Ok(value)
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
                        encode_value_split(codec, &Named { values: self, names: method.args() }, out)
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
                payload::while_reading(body, || match codec {
                    #[cfg(feature = "codec-bincode")]
                    CodecId::BINCODE => positional::<Self, Bincode>(method, body, limits, &Reading::default()),
                    #[cfg(feature = "codec-postcard")]
                    CodecId::POSTCARD => positional::<Self, Postcard>(method, body, limits, &Reading::default()),
                    CodecId::JSON => json::<Self>($count, method, body, limits, &Reading::default()),
                    #[cfg(feature = "codec-msgpack")]
                    CodecId::MSGPACK => by_name::<Self, Msgpack>($count, method, body, limits, &Reading::default()),
                    #[cfg(feature = "codec-prost")]
                    CodecId::PROTOBUF => positional::<Self, Protobuf>(method, body, limits, &Reading::default()),
                    other => Err(DecodeError::new(DecodeErrorKind::Unsupported(other))),
                })
            }
        }

        impl<'de, $($type: Deserialize<'de> + 'static,)* C: Codec> Visitor<'de> for Positional<'_, ($($type,)*), C> {
            type Value = ($($type,)*);

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!($count, " arguments"))
            }

            #[inline]
            #[allow(unused_mut, unused_variables, reason = "there may be no argument")]
            fn visit_seq<Seq: SeqAccess<'de>>(self, mut seq: Seq) -> Result<Self::Value, Seq::Error> {
                $(
                    let read = || seq.next_element_seed(Owned::<$type, C>::new());
                    let Some($value) = self.reading.argument($index, read)? else {
                        return Err(Seq::Error::invalid_length($index, &self));
                    };
                )*
                Ok(($($value,)*))
            }
        }

        impl<'de, $($type: Deserialize<'de> + 'static,)* C: Codec> DeserializeSeed<'de>
            for Positional<'_, ($($type,)*), C>
        {
            type Value = ($($type,)*);

            #[inline]
            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
                deserializer.deserialize_tuple($count, self)
            }
        }

        impl<'de, $($type: Deserialize<'de> + 'static,)* C: Codec> Visitor<'de> for ByName<'_, ($($type,)*), C> {
            type Value = ($($type,)*);

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an object with {}", Names(self.names))
            }

            #[allow(unused_variables, reason = "there may be no argument")]
            fn visit_map<Map: MapAccess<'de>>(self, mut map: Map) -> Result<Self::Value, Map::Error> {
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
                            let read = || map.next_value_seed(Owned::<$type, C>::new());
                            $value = Some(self.reading.argument($index, read)?);
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

            /// `null` is as good as an object without keys.
            fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
                self.visit_map(serde::de::value::MapDeserializer::<_, E>::new(std::iter::empty::<(&str, &str)>()))
            }
        }

        impl<'de, $($type: Deserialize<'de> + 'static,)* C: Codec> DeserializeSeed<'de>
            for ByName<'_, ($($type,)*), C>
        {
            type Value = ($($type,)*);

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
                deserializer.deserialize_any(self)
            }
        }
    )* };
}

/// Reads arguments that lie one behind the other.
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

/// Reads arguments that have names.
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

/// Reads arguments that have names, or the bare value of the only one.
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
    if count != 1
        || names.len() != 1
        || names
            .first()
            .is_some_and(|name| is_object_of_only(name, body))
    {
        return by_name();
    }
    let bare = Bare(Positional {
        reading,
        marker: PhantomData,
    });
    match Json::decode_seed(bare, body, limits) {
        // An object for a type that is none: the caller meant names, and got one wrong.
        Err(error) if error.to_string().starts_with("invalid type: map") => {
            reading.0.set(None);
            by_name()
        }
        result => result.map_err(|error| reading.name(names, error)),
    }
}

/// Whether `body` is an object whose only key, once or several times, is `name`.
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

/// Reads one value as if it were a sequence of one.
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

/// The name of an argument. The descriptor has one for each: [`mismatch`] was asked before.
fn name(names: &'static [&'static str], index: usize) -> &'static str {
    names.get(index).copied().unwrap_or_default()
}

/// What to say when a descriptor does not name as many arguments as there are: a mistake in it and none of the call.
fn mismatch(method: &MethodDescriptor, count: usize) -> Option<String> {
    let names = method.args().len();
    (names != count)
        .then(|| format!("the descriptor of {method} names {names} arguments where it has {count}"))
}

/// Reads a key and finds its place among the names.
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

/// Names in a sentence.
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

/// Stands for an argument that is not there: an option is `None`, anything else is missed by its name.
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
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
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
    12 (T0 v0 0 T1 v1 1 T2 v2 2 T3 v3 3 T4 v4 4 T5 v5 5 T6 v6 6 T7 v7 7 T8 v8 8 T9 v9 9 T10 v10 10 T11 v11 11)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::payload::{ByValue, Payload, SPLIT_FROM_BYTES};

    const NONE: &MethodDescriptor = &MethodDescriptor::new("S", "none", "/s/none", &[]);
    const ONE: &MethodDescriptor = &MethodDescriptor::new("S", "one", "/s/one", &["name"]);
    const TWO: &MethodDescriptor = &MethodDescriptor::new("S", "two", "/s/two", &["key", "ttl"]);
    const FOUR: &MethodDescriptor =
        &MethodDescriptor::new("S", "four", "/s/four", &["a", "b", "c", "d"]);

    fn encode<A: Arguments>(method: &MethodDescriptor, codec: CodecId, arguments: &A) -> Bytes {
        let mut out = BytesMut::new();
        arguments.encode(method, codec, &mut out).unwrap();
        out.freeze()
    }

    fn json<A: FromArguments>(method: &MethodDescriptor, text: &str) -> Result<A, String> {
        let body = Bytes::copy_from_slice(text.as_bytes());
        A::decode(method, CodecId::JSON, &body, &DecodeLimits::new())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_come_back_in_every_codec() {
        for codec in CodecId::supported().filter(|&codec| codec != CodecId::PROTOBUF) {
            let given = ("k", &[1u8, 2][..], Some(&5i32), Payload::from(vec![9]));
            let body = encode(FOUR, codec, &given);
            let taken: (String, Vec<u8>, Option<i32>, Bytes) =
                FromArguments::decode(FOUR, codec, &body, &DecodeLimits::new()).unwrap();
            assert_eq!(
                taken,
                (
                    "k".to_owned(),
                    vec![1, 2],
                    Some(5),
                    Bytes::from_static(&[9])
                )
            );
            let body = encode(NONE, codec, &());
            <()>::decode(NONE, codec, &body, &DecodeLimits::new()).unwrap();
        }
    }

    #[test]
    fn binary_arguments_lie_one_behind_the_other() {
        if CodecId::DEFAULT == CodecId::BINCODE {
            assert_eq!(
                encode(TWO, CodecId::BINCODE, &("a", 300u32)),
                &[1, b'a', 251, 0x2c, 1][..]
            );
            assert_eq!(encode(NONE, CodecId::BINCODE, &()), &[][..]);
        }
    }

    #[test]
    fn json_arguments_are_an_object_with_their_names() {
        assert_eq!(
            encode(TWO, CodecId::JSON, &("a", None::<u8>)),
            r#"{"key":"a","ttl":null}"#
        );
        assert_eq!(encode(NONE, CodecId::JSON, &()), "{}");
        let taken: (String, u8) = json(TWO, r#" {"ttl": 3, "key": "a"} "#).unwrap();
        assert_eq!(taken, ("a".to_owned(), 3));
    }

    #[test]
    fn an_option_may_be_left_out() {
        let taken: (String, Option<u8>) = json(TWO, r#"{"key":"a"}"#).unwrap();
        assert_eq!(taken, ("a".to_owned(), None));
        assert_eq!(json::<(Option<u8>,)>(ONE, "{}"), Ok((None,)));
    }

    #[test]
    fn one_argument_may_come_bare() {
        assert_eq!(json::<(String,)>(ONE, "\"ann\""), Ok(("ann".to_owned(),)));
        assert_eq!(
            json::<(String,)>(ONE, r#"{"name":"ann"}"#),
            Ok(("ann".to_owned(),))
        );
        assert_eq!(json::<(Vec<u8>,)>(ONE, "[1,2]"), Ok((vec![1, 2],)));
        assert_eq!(json::<(Option<u8>,)>(ONE, "null"), Ok((None,)));
        assert_eq!(
            json::<(Bytes,)>(ONE, "\"abc\""),
            Ok((Bytes::from_static(b"abc"),))
        );
    }

    #[test]
    fn one_argument_that_is_an_object_may_come_bare_too() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Person {
            name: String,
            #[serde(default)]
            age: u8,
        }
        let ann = |age| {
            (Person {
                name: "ann".to_owned(),
                age,
            },)
        };
        assert_eq!(json(ONE, r#"{"name":"ann","age":3}"#), Ok(ann(3)));
        assert_eq!(json(ONE, r#"{"name":{"name":"ann"}}"#), Ok(ann(0)));
        // The only key is the name of the argument, so it is taken for it.
        let error = json::<(Person,)>(ONE, r#"{"name":"ann"}"#).unwrap_err();
        assert!(
            error.starts_with("argument `name`: invalid type: string"),
            "{error}"
        );
    }

    #[test]
    fn wrong_arguments_are_refused_by_name() {
        let table = [
            (
                r#"{"key":"a","ttl":300}"#,
                "argument `ttl`: invalid value: integer `300`, expected u8",
            ),
            (
                r#"{"key":1,"ttl":3}"#,
                "argument `key`: invalid type: integer `1`, expected a string",
            ),
            (r#"{"key":"a"}"#, "the argument `ttl` is missing"),
            ("null", "the argument `key` is missing"),
            (
                r#"{"key":"a","ttl":1,"ttl":2}"#,
                "the argument `ttl` is given twice",
            ),
            (
                r#"{"kye":"a"}"#,
                r#"unknown argument "kye", the method takes `key` and `ttl`"#,
            ),
            (
                "[1,2]",
                "invalid type: sequence, expected an object with `key` and `ttl`",
            ),
            ("", "EOF while parsing a value"),
            (r#"{"key":"a","ttl":1} x"#, "trailing characters"),
        ];
        for (text, expected) in table {
            let error = json::<(String, u8)>(TWO, text).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        let error = json::<()>(NONE, r#"{"x":1}"#).unwrap_err();
        assert!(
            error.starts_with(r#"unknown argument "x", the method takes no arguments"#),
            "{error}"
        );
        assert_eq!(json::<()>(NONE, "null"), Ok(()));
    }

    #[test]
    fn a_wrong_name_for_the_only_argument_is_refused_by_name() {
        let table = [
            (
                r#"{"nmae":"ann"}"#,
                r#"unknown argument "nmae", the method takes `name`"#,
            ),
            (
                r#"{"name":"ann","age":3}"#,
                r#"unknown argument "age", the method takes `name`"#,
            ),
            (
                r#"{"name":"a","name":"b"}"#,
                "the argument `name` is given twice",
            ),
            ("{}", "the argument `name` is missing"),
            (
                "5",
                "argument `name`: invalid type: integer `5`, expected a string",
            ),
            (
                r#"{"name":5}"#,
                "argument `name`: invalid type: integer `5`, expected a string",
            ),
        ];
        for (text, expected) in table {
            let error = json::<(String,)>(ONE, text).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_wrong_binary_argument_is_refused_by_name() {
        let body = encode(TWO, CodecId::DEFAULT, &("a", "bb"));
        let error = <(String, bool)>::decode(TWO, CodecId::DEFAULT, &body, &DecodeLimits::new())
            .unwrap_err();
        assert_eq!(error.argument(), Some("ttl"));
        assert!(error.to_string().starts_with("argument `ttl`: "), "{error}");
        if CodecId::DEFAULT == CodecId::BINCODE {
            let error = <(String,)>::decode(ONE, CodecId::DEFAULT, &body, &DecodeLimits::new())
                .unwrap_err();
            assert_eq!(error.kind(), &DecodeErrorKind::TrailingBytes { left: 3 });
            assert_eq!(error.argument(), None);
        }
    }

    #[test]
    fn a_descriptor_with_too_few_names_is_reported() {
        let error = ("a", 1)
            .encode(ONE, CodecId::JSON, &mut BytesMut::new())
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "the descriptor of S.one names 1 arguments where it has 2"
        );
        let error = json::<(u8, u8)>(ONE, "{}").unwrap_err();
        assert_eq!(
            error,
            "the descriptor of S.one names 1 arguments where it has 2"
        );
    }

    #[test]
    fn codecs_that_take_no_arguments_are_refused() {
        let error = (1,)
            .encode(ONE, CodecId::RAW, &mut BytesMut::new())
            .unwrap_err();
        assert!(
            error.to_string().starts_with("raw is not supported"),
            "{error}"
        );
        let error = <(u8,)>::decode(ONE, CodecId::new(77), &Bytes::new(), &DecodeLimits::new())
            .unwrap_err();
        assert!(
            error.to_string().starts_with("codec 77 is not supported"),
            "{error}"
        );
    }

    #[cfg(feature = "codec-msgpack")]
    #[test]
    fn msgpack_has_names_in_any_order_and_options_may_be_missing() {
        let decode = |body: &'static [u8]| {
            let limits = DecodeLimits::new();
            let body = Bytes::from_static(body);
            <(String, Option<u32>)>::decode(TWO, CodecId::MSGPACK, &body, &limits)
                .map_err(|error| error.to_string())
        };
        assert_eq!(
            encode(TWO, CodecId::MSGPACK, &("a", 7u32)),
            &b"\x82\xa3key\xa1a\xa3ttl\x07"[..]
        );
        let given = Ok(("a".to_owned(), Some(7)));
        assert_eq!(decode(b"\x82\xa3ttl\x07\xa3key\xa1a"), given);
        assert_eq!(decode(b"\x81\xa3key\xa1a"), Ok(("a".to_owned(), None)));
        let error = |body| decode(body).unwrap_err();
        assert_eq!(error(b"\x81\xa3ttl\x07"), "the argument `key` is missing");
        assert_eq!(
            error(b"\x81\xa3kex\x07"),
            "unknown argument \"kex\", the method takes `key` and `ttl`"
        );
        assert!(error(b"\x81\xa3key\x07").starts_with("argument `key`: invalid type: integer `7`"));
        assert!(error(b"\x92\xa1a\x07").contains("expected an object with `key` and `ttl`"));
        assert_eq!(encode(NONE, CodecId::MSGPACK, &()), &b"\x80"[..]);
    }

    #[test]
    fn a_large_last_argument_is_not_copied_on_its_way() {
        if CodecId::DEFAULT != CodecId::BINCODE {
            return;
        }
        let large = Bytes::from(vec![1; SPLIT_FROM_BYTES]);
        let arguments = (ByValue(7u32), ByValue(large.clone()));
        let mut out = BytesMut::new();
        let tail = arguments
            .encode_split(TWO, CodecId::BINCODE, &mut out)
            .unwrap()
            .unwrap();
        assert_eq!(tail.as_ptr(), large.as_ptr());
        out.extend_from_slice(&tail);
        let body = out.freeze();
        let (_, taken) =
            <(u32, Bytes)>::decode(TWO, CodecId::BINCODE, &body, &DecodeLimits::new()).unwrap();
        assert!(body.as_ptr_range().contains(&taken.as_ptr()));
        assert_eq!(taken, large);
    }

    #[test]
    fn twelve_arguments_are_taken() {
        const ALL: &MethodDescriptor = &MethodDescriptor::new(
            "S",
            "all",
            "/s/all",
            &["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"],
        );
        let given = (
            1u8,
            2u8,
            3u8,
            4u8,
            5u8,
            6u8,
            7u8,
            8u8,
            9u8,
            10u8,
            11u8,
            "twelve".to_owned(),
        );
        for codec in [CodecId::DEFAULT, CodecId::JSON] {
            let body = encode(ALL, codec, &given);
            assert_eq!(
                FromArguments::decode(ALL, codec, &body, &DecodeLimits::new()),
                Ok(given.clone())
            );
        }
    }
}
