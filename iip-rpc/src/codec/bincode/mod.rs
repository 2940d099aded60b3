//! bincode 2 in its standard configuration, with the checks that the crate does not have.
//!
//! The crate encodes numbers and texts (`docs/wire.md` describes the format). The encoder and the
//! decoder implement serde's data model themselves, because that is where depth, lengths and empty
//! elements can be checked.

mod decode;
mod encode;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeSeed;

use self::decode::Decoder;
use self::encode::Encoder;
use super::{Codec, CodecId, DecodeError, DecodeLimits, EncodeError};

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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};
    use std::fmt::Debug;

    use ::bincode::config::standard;
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::codec::{DecodeErrorKind, EncodeErrorKind, decode_value, encode_value_split};
    use crate::payload::{Payload, SHARE_FROM_BYTES, SPLIT_FROM_BYTES};

    fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
        let mut out = BytesMut::new();
        Bincode::encode(value, &mut out).unwrap();
        out.to_vec()
    }

    fn decode<'de, T: Deserialize<'de>>(input: &'de [u8]) -> Result<T, DecodeError> {
        Bincode::decode(input, &DecodeLimits::new())
    }

    fn error_kind<'de, T: Deserialize<'de> + Debug>(input: &'de [u8]) -> DecodeErrorKind {
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

    /// A value of every kind that serde knows.
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
            let (theirs, _) =
                ::bincode::serde::borrow_decode_from_slice::<Zoo, _>(&ours, standard()).unwrap();
            prop_assert_eq!(theirs, outer);
        }

        #[test]
        fn integers_of_every_size_are_those_of_the_crate(
            bits in 0u32..=64,
            value: u64,
            signed: i64,
        ) {
            // Covers small and large numbers.
            let value = value.checked_shr(64 - bits).unwrap_or(0);
            let signed = signed.checked_shr(64 - bits).unwrap_or(0);
            let all = (
                value,
                value as u32,
                value as u16,
                signed,
                signed as i32,
                signed as i16,
                value as u8,
                signed as i8,
            );
            let ours = encode(&all);
            prop_assert_eq!(&ours, &::bincode::serde::encode_to_vec(all, standard()).unwrap());
            prop_assert_eq!(decode::<(u64, u32, u16, i64, i32, i16, u8, i8)>(&ours).unwrap(), all);
        }

        #[test]
        fn any_bytes_are_a_value_or_an_error_and_never_a_panic(
            input in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
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
    fn what_follows_the_value_is_refused() {
        assert_eq!(
            error_kind::<u8>(&[1, 2, 3]),
            DecodeErrorKind::TrailingBytes { left: 2 }
        );
        assert_eq!(
            error_kind::<()>(&[0]),
            DecodeErrorKind::TrailingBytes { left: 1 }
        );
    }

    #[test]
    fn a_message_that_ends_too_early_says_how_many_bytes_are_missing() {
        assert_eq!(
            error_kind::<f64>(&[1, 2, 3]),
            DecodeErrorKind::UnexpectedEnd { missing: 5 }
        );
        assert_eq!(
            error_kind::<u8>(&[]),
            DecodeErrorKind::UnexpectedEnd { missing: 1 }
        );
    }

    #[test]
    fn a_length_beyond_the_end_is_refused_at_once() {
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
            assert_eq!(error_kind::<String>(&input), too_long);
            assert_eq!(error_kind::<Vec<u8>>(&input), too_long);
            assert_eq!(error_kind::<Vec<u64>>(&input), too_long);
            assert_eq!(error_kind::<Vec<String>>(&input), too_long);
            assert_eq!(error_kind::<BTreeMap<u8, u8>>(&input), too_long);
            assert_eq!(error_kind::<Payload>(&input), too_long);
            assert_eq!(error_kind::<Vec<()>>(&input), too_long);
        }
    }

    #[test]
    fn elements_that_take_no_bytes_are_refused_on_both_sides() {
        // Three elements are claimed and three bytes follow, so the length alone is possible.
        let input = [3, 0, 0, 0];
        assert_eq!(error_kind::<Vec<()>>(&input), DecodeErrorKind::EmptyElement);
        assert_eq!(
            error_kind::<Vec<UnitStruct>>(&input),
            DecodeErrorKind::EmptyElement
        );
        assert_eq!(
            error_kind::<HashSet<()>>(&input),
            DecodeErrorKind::EmptyElement
        );
        assert_eq!(
            error_kind::<BTreeMap<(), ()>>(&input),
            DecodeErrorKind::EmptyElement
        );
        assert_eq!(
            error_kind::<Vec<Vec<((), [u8; 0])>>>(&[1, 1, 0]),
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
    fn a_million_levels_are_refused_on_a_small_stack() {
        on_a_small_stack(|| {
            let too_deep = DecodeErrorKind::TooDeep { limit: 128 };
            let ones = vec![1; 1_000_000];
            assert_eq!(error_kind::<Tree>(&ones), too_deep);
            assert_eq!(error_kind::<List>(&ones), too_deep);
            assert_eq!(error_kind::<Nested>(&ones), too_deep);
            assert_eq!(error_kind::<Maps>(&ones), too_deep);
            assert_eq!(error_kind::<Chain>(&ones), too_deep);
            assert_eq!(error_kind::<Vec<Vec<Chain>>>(&ones), too_deep);
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
                error_kind::<Tree>(&levels(129)),
                DecodeErrorKind::TooDeep { limit: 128 }
            );
            assert!(decode::<List>(&levels(128)).is_ok());
            assert_eq!(
                error_kind::<List>(&levels(129)),
                DecodeErrorKind::TooDeep { limit: 128 }
            );
            assert!(decode::<Nested>(&levels(128)).is_ok());
            assert_eq!(
                error_kind::<Nested>(&levels(129)),
                DecodeErrorKind::TooDeep { limit: 128 }
            );
            let limits = DecodeLimits::new().max_depth(3);
            assert!(Bincode::decode::<Tree>(&levels(3), &limits).is_ok());
            let error = Bincode::decode::<Tree>(&levels(4), &limits).unwrap_err();
            assert_eq!(error.kind(), &DecodeErrorKind::TooDeep { limit: 3 });
        });
    }

    #[test]
    fn levels_beside_each_other_do_not_add_up() {
        let wide: Vec<Vec<Vec<Option<u8>>>> = vec![vec![vec![Some(1); 3]; 40]; 40];
        assert_eq!(
            decode::<Vec<Vec<Vec<Option<u8>>>>>(&encode(&wide)).unwrap(),
            wide
        );
    }

    #[test]
    fn levels_of_a_large_type_are_refused_before_the_stack_is_used_up() {
        on_a_small_stack(|| {
            let mut level = vec![0; 1024];
            level.push(1);
            let input = level.repeat(1000);
            let kind = error_kind::<Large>(&input);
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
    fn values_that_are_none_are_refused_in_words() {
        let text = |error: DecodeError| error.to_string();
        assert_eq!(
            text(decode::<bool>(&[2]).unwrap_err()),
            "2 is neither 0 nor 1, the bytes of a bool"
        );
        assert_eq!(
            text(decode::<Option<u8>>(&[7]).unwrap_err()),
            "7 is neither 0 nor 1, the first byte of an option"
        );
        assert_eq!(
            text(decode::<char>(&[0xff]).unwrap_err()),
            "a character is not utf-8"
        );
        assert!(
            text(decode::<String>(&[1, 0xff]).unwrap_err()).starts_with("a string is not utf-8: ")
        );
        let wide = text(decode::<u16>(&[252, 0, 0, 1, 0]).unwrap_err());
        assert_eq!(wide, "an integer of the type U32 was sent instead of U16");
        let variant = text(decode::<Tree>(&[9]).unwrap_err());
        assert!(variant.contains("integer `9`"), "{variant}");
    }

    #[test]
    fn types_that_describe_themselves_are_refused_with_advice() {
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
            matches!(error_kind::<Untagged>(&[1]), DecodeErrorKind::NotSelfDescribing(text) if text.contains("json"))
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
    fn sequences_of_bytes_take_the_fast_way_whatever_holds_them() {
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
    fn a_payload_that_something_follows_is_copied_into_its_place() {
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
    fn large_payloads_become_parts_of_the_message_wherever_they_lie() {
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
