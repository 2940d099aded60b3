//! Values that a reader rejects are first rejected by the writer, in every codec of serde types.

#![cfg(all(
    feature = "codec-bincode",
    feature = "codec-postcard",
    feature = "codec-msgpack"
))]
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use iip_rpc::Payload;
use iip_rpc::codec::{
    Bincode, Codec, DecodeErrorKind, DecodeLimits, EncodeError, EncodeErrorKind, Json, Msgpack,
    Postcard,
};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};

fn encode<C: Codec>(value: &(impl Serialize + ?Sized)) -> Result<BytesMut, EncodeError> {
    let mut out = BytesMut::new();
    C::encode(value, &mut out).map(|()| out)
}

#[track_caller]
fn rejection<C: Codec>(value: &(impl Serialize + ?Sized)) -> EncodeErrorKind {
    encode::<C>(value).unwrap_err().kind().clone()
}

/// The stack size of a thread of the tokio runtime.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    let builder = std::thread::Builder::new().stack_size(2 << 20);
    builder.spawn(test).unwrap().join().unwrap();
}

/// A type that can contain itself.
trait Nest: Serialize + DeserializeOwned {
    fn leaf() -> Self;
    fn around(self) -> Self;
}

macro_rules! nests {
    ($($name:ident: $leaf:expr, $inner:ident => $outer:expr;)*) => { $(
        impl Nest for $name {
            fn leaf() -> Self {
                $leaf
            }

            fn around(self) -> Self {
                let $inner = self;
                $outer
            }
        }
    )* };
}

#[derive(Serialize, Deserialize)]
struct Sequence(Vec<Self>);

#[derive(Serialize, Deserialize)]
struct Map(BTreeMap<String, Self>);

#[derive(Serialize, Deserialize)]
struct Struct {
    next: Option<Box<Self>>,
}

#[derive(Serialize, Deserialize)]
struct Tuple(Option<Box<Self>>, u8);

#[derive(Serialize, Deserialize)]
enum Newtype {
    Leaf,
    Inner(Box<Self>),
}

#[derive(Serialize, Deserialize)]
enum TupleVariant {
    Leaf,
    Inner(u8, Box<Self>),
}

#[derive(Serialize, Deserialize)]
enum StructVariant {
    Leaf { a: u8 },
    Inner { next: Box<Self> },
}

#[derive(Serialize, Deserialize)]
enum Bytes {
    Leaf(Payload),
    Inner(Vec<Self>),
}

/// A type of options and newtypes only.
#[derive(Serialize, Deserialize)]
struct Wrapper(Option<Box<Self>>);

nests! {
    Sequence: Self(Vec::new()), inner => Self(vec![inner]);
    Map: Self(BTreeMap::new()), inner => Self([("a".to_owned(), inner)].into());
    Struct: Self { next: None }, inner => Self { next: Some(Box::new(inner)) };
    Tuple: Self(None, 0), inner => Self(Some(Box::new(inner)), 0);
    Newtype: Self::Leaf, inner => Self::Inner(Box::new(inner));
    TupleVariant: Self::Leaf, inner => Self::Inner(0, Box::new(inner));
    StructVariant: Self::Leaf { a: 0 }, inner => Self::Inner { next: Box::new(inner) };
    Bytes: Self::Leaf(vec![1].into()), inner => Self::Inner(vec![inner]);
    Wrapper: Self(None), inner => Self(Some(Box::new(inner)));
}

fn nested<T: Nest>(levels: usize) -> T {
    (0..levels).fold(T::leaf(), |inner, _| inner.around())
}

/// Asserts that both sides reject from the same depth on. `unchecked` writes at any depth.
fn both_sides_refuse_from_the_same_depth<C: Codec, T: Nest>(unchecked: fn(&T) -> Vec<u8>) {
    let limits = DecodeLimits::new();
    let reads = |value: &T| match C::decode::<T>(&unchecked(value), &limits) {
        Ok(_) => true,
        Err(error) => {
            assert!(
                matches!(error.kind(), DecodeErrorKind::TooDeep { .. }),
                "{error}"
            );
            false
        }
    };
    let writes = |value: &T| match encode::<C>(value) {
        Ok(out) => {
            assert_eq!(out, unchecked(value));
            true
        }
        Err(error) => {
            assert!(
                matches!(error.kind(), EncodeErrorKind::TooDeep { .. }),
                "{error}"
            );
            false
        }
    };
    let name = std::any::type_name::<T>();
    let depths: Vec<usize> = (0..600).collect();
    let deepest = depths.partition_point(|&levels| reads(&nested(levels))) - 1;
    assert!(deepest >= 60, "{name}");
    for levels in [deepest - 1, deepest, deepest + 1, deepest + 2] {
        assert_eq!(
            writes(&nested(levels)),
            levels <= deepest,
            "{name}: {levels} of {deepest}"
        );
    }
}

fn positional_codecs_refuse_from_the_same_depth<T: Nest>() {
    both_sides_refuse_from_the_same_depth::<Bincode, T>(|value| {
        bincode::serde::encode_to_vec(value, bincode::config::standard()).unwrap()
    });
    both_sides_refuse_from_the_same_depth::<Postcard, T>(|value| {
        postcard::to_extend(value, Vec::new()).unwrap()
    });
}

fn all_codecs_refuse_from_the_same_depth<T: Nest>() {
    positional_codecs_refuse_from_the_same_depth::<T>();
    both_sides_refuse_from_the_same_depth::<Json, T>(|value| serde_json::to_vec(value).unwrap());
    both_sides_refuse_from_the_same_depth::<Msgpack, T>(|value| {
        rmp_serde::to_vec_named(value).unwrap()
    });
}

#[test]
fn writers_and_readers_reject_the_same_depths() {
    // The crates of the codecs have no limit when they write.
    let builder = std::thread::Builder::new().stack_size(64 << 20);
    let test = || {
        all_codecs_refuse_from_the_same_depth::<Sequence>();
        all_codecs_refuse_from_the_same_depth::<Map>();
        all_codecs_refuse_from_the_same_depth::<Struct>();
        all_codecs_refuse_from_the_same_depth::<Tuple>();
        all_codecs_refuse_from_the_same_depth::<Newtype>();
        all_codecs_refuse_from_the_same_depth::<TupleVariant>();
        all_codecs_refuse_from_the_same_depth::<StructVariant>();
        all_codecs_refuse_from_the_same_depth::<Bytes>();
        // In the others it is `null` at any depth.
        positional_codecs_refuse_from_the_same_depth::<Wrapper>();
    };
    builder.spawn(test).unwrap().join().unwrap();
}

#[test]
fn a_value_of_any_depth_is_rejected_within_a_small_stack() {
    fn rejects<T: Nest>() {
        let deep = nested::<T>(100_000);
        assert!(matches!(
            rejection::<Bincode>(&deep),
            EncodeErrorKind::TooDeep { limit: 128 }
        ));
        assert!(matches!(
            rejection::<Postcard>(&deep),
            EncodeErrorKind::TooDeep { limit: 128 }
        ));
        assert!(matches!(
            rejection::<Json>(&deep),
            EncodeErrorKind::TooDeep { limit: 127 }
        ));
        assert!(matches!(
            rejection::<Msgpack>(&deep),
            EncodeErrorKind::TooDeep { limit: 128 }
        ));
        // Dropping it would need the stack that encoding it does not need.
        std::mem::forget(deep);
    }
    on_a_small_stack(|| {
        rejects::<Sequence>();
        rejects::<Map>();
        rejects::<Struct>();
        rejects::<Tuple>();
        rejects::<Newtype>();
        rejects::<TupleVariant>();
        rejects::<StructVariant>();
        rejects::<Wrapper>();
    });
}

#[test]
fn elements_that_take_no_bytes_are_rejected_by_the_writer_as_by_the_reader() {
    #[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    struct Nothing;

    fn rejects<C: Codec>() {
        let empty = |elements| EncodeErrorKind::EmptyElements { elements };
        assert_eq!(rejection::<C>(&vec![(); 3]), empty(3));
        assert_eq!(rejection::<C>(&[Nothing, Nothing][..]), empty(2));
        assert_eq!(rejection::<C>(&BTreeSet::from([()])), empty(1));
        assert_eq!(rejection::<C>(&BTreeMap::from([((), Nothing)])), empty(1));
        assert_eq!(rejection::<C>(&(1u8, vec![((), [(); 4])])), empty(1));
        // There are no elements, or each takes a byte, or the type fixes their number.
        encode::<C>(&Vec::<()>::new()).unwrap();
        encode::<C>(&vec![Some(())]).unwrap();
        encode::<C>(&BTreeMap::from([(1u8, ())])).unwrap();
        encode::<C>(&[(); 3]).unwrap();
    }
    rejects::<Bincode>();
    rejects::<Postcard>();
    let text = encode::<Postcard>(&vec![(); 3]).unwrap_err().to_string();
    assert_eq!(
        text,
        "a sequence of 3 elements that take no bytes cannot be sent in bincode and postcard; send their number"
    );
    for bytes in [
        encode::<Json>(&vec![(); 3]),
        encode::<Msgpack>(&vec![(); 3]),
    ] {
        bytes.unwrap();
    }
}

#[test]
fn numbers_that_json_cannot_express_are_rejected_before_they_become_null() {
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let not_finite = EncodeErrorKind::NotFinite;
        assert_eq!(rejection::<Json>(&number), not_finite);
        assert_eq!(rejection::<Json>(&(number as f32)), not_finite);
        assert_eq!(rejection::<Json>(&Some(number)), not_finite);
        assert_eq!(
            rejection::<Json>(&BTreeMap::from([("a", vec![1.0, number])])),
            not_finite
        );
        let bits = number.to_bits();
        for bytes in [encode::<Bincode>(&number), encode::<Postcard>(&number)] {
            assert_eq!(&bytes.unwrap()[..], bits.to_le_bytes());
        }
        let bytes = encode::<Msgpack>(&number).unwrap();
        let back: f64 = Msgpack::decode(&bytes, &DecodeLimits::new()).unwrap();
        assert_eq!(back.to_bits(), bits);
    }
    assert_eq!(&encode::<Json>(&Some(-1.5)).unwrap()[..], b"-1.5");
}

proptest! {
    #[test]
    fn every_number_arrives_bit_for_bit(
        float in any::<f64>(),
        single in any::<f32>(),
        large in any::<i128>(),
        unsigned in any::<u64>(),
    ) {
        fn back<C: Codec, T: Serialize + DeserializeOwned>(value: &T) -> T {
            C::decode(&encode::<C>(value).unwrap(), &DecodeLimits::new()).unwrap()
        }
        let value = (float, single, large, unsigned);
        for (f, s, l, u) in [
            back::<Bincode, _>(&value),
            back::<Postcard, _>(&value),
            back::<Json, _>(&value),
            back::<Msgpack, _>(&value),
        ] {
            prop_assert_eq!((f.to_bits(), s.to_bits()), (float.to_bits(), single.to_bits()));
            prop_assert_eq!((l, u), (large, unsigned));
        }
    }
}

#[test]
fn a_wrong_number_of_parts_is_rejected_where_the_number_is_written_first() {
    /// Claims to have two parts.
    struct Liar(u8);

    impl Serialize for Liar {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut seq = serializer.serialize_seq(Some(2))?;
            for part in 0..self.0 {
                seq.serialize_element(&part)?;
            }
            seq.end()
        }
    }

    /// The same as a map.
    struct LyingMap(u8);

    impl Serialize for LyingMap {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(Some(2))?;
            for part in 0..self.0 {
                map.serialize_key(&part)?;
                map.serialize_value(&(part, part, part))?;
            }
            map.end()
        }
    }

    fn rejects<C: Codec>(written: usize) {
        let kind = EncodeErrorKind::WrongLength {
            announced: 2,
            written,
        };
        assert_eq!(rejection::<C>(&LyingMap(written as u8)), kind);
        if written > 1 {
            assert_eq!(rejection::<C>(&Liar(written as u8)), kind);
        }
    }
    for written in [1, 3] {
        rejects::<Bincode>(written);
        rejects::<Postcard>(written);
        rejects::<Msgpack>(written);
    }
    assert_eq!(&encode::<Json>(&Liar(3)).unwrap()[..], b"[0,1,2]");
    assert_eq!(&encode::<Bincode>(&Liar(2)).unwrap()[..], [2, 0, 1]);
}

#[test]
fn the_error_text_of_a_type_that_cannot_be_written_arrives_whole() {
    #[derive(Serialize)]
    struct Fails(#[serde(serialize_with = "fail")] u8);
    fn fail<S: Serializer>(_: &u8, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("not today"))
    }
    for text in [
        encode::<Bincode>(&vec![Some(Fails(1))]),
        encode::<Postcard>(&vec![Some(Fails(1))]),
        encode::<Json>(&vec![Some(Fails(1))]),
        encode::<Msgpack>(&vec![Some(Fails(1))]),
    ] {
        assert_eq!(text.unwrap_err().to_string(), "not today");
    }
}
