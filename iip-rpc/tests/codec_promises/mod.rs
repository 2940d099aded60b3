//! The guarantees of every codec of serde types, tested with the same values and attacks, and those
//! of single codecs.

#![cfg(all(
    feature = "codec-bincode",
    feature = "codec-postcard",
    feature = "codec-msgpack"
))]
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use iip_rpc::Payload;
use iip_rpc::codec::{
    Bincode, Codec, DecodeError, DecodeErrorKind, DecodeLimits, Json, Msgpack, Postcard,
    decode_value, encode_value_split,
};
use iip_rpc::payload::{SHARE_FROM_BYTES, SPLIT_FROM_BYTES};
use proptest::prelude::*;
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

fn encode<C: Codec>(value: &(impl Serialize + ?Sized)) -> Vec<u8> {
    let mut out = BytesMut::new();
    C::encode(value, &mut out).unwrap();
    out.to_vec()
}

fn decode<'de, C: Codec, T: Deserialize<'de>>(input: &'de [u8]) -> Result<T, DecodeError> {
    C::decode(input, &DecodeLimits::new())
}

#[track_caller]
fn rejection<'de, C: Codec, T: Deserialize<'de> + Debug>(input: &'de [u8]) -> DecodeErrorKind {
    decode::<C, T>(input).unwrap_err().kind().clone()
}

/// The stack size of a thread of the tokio runtime.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    let builder = std::thread::Builder::new().stack_size(2 << 20);
    builder.spawn(test).unwrap().join().unwrap();
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

/// A value of every kind of serde, except an option in an option: it is lost where `None` has no
/// encoding of its own.
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
    option: Option<i32>,
    nothing: ((), UnitStruct),
    array: [i16; 3],
    shapes: Vec<Shape>,
    result: Result<u8, String>,
    time: std::time::Duration,
}

fn leaf() -> impl Strategy<Value = Shape> {
    let real = any::<f32>().prop_filter("a nan equals nothing", |x| !x.is_nan());
    prop_oneof![
        Just(Shape::Unit),
        any::<(i16, char)>().prop_map(|(a, b)| Shape::Tuple(a, b)),
        real.prop_map(|x| Shape::Struct {
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
        any::<Option<i32>>(),
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

#[derive(Debug, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Node(Box<Self>),
}

#[derive(Debug, Serialize, Deserialize)]
enum Branch {
    Leaf,
    Pair(u8, Box<Self>),
    Named { inner: Box<Self> },
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

fn tree(levels: usize) -> Tree {
    (1..levels).fold(Tree::Leaf, |inner, _| Tree::Node(Box::new(inner)))
}

fn branch(levels: usize) -> Branch {
    (1..levels).fold(Branch::Leaf, |inner, level| {
        let inner = Box::new(inner);
        match level % 2 {
            0 => Branch::Pair(1, inner),
            _ => Branch::Named { inner },
        }
    })
}

fn nested(levels: usize) -> Nested {
    (1..levels).fold(Nested(Vec::new()), |inner, _| Nested(vec![inner]))
}

fn list(levels: usize) -> List {
    (1..levels).fold(List { next: None }, |inner, _| List {
        next: Some(Box::new(inner)),
    })
}

/// Asserts that no visitor gets a size hint of more elements than the message has bytes.
#[derive(Debug)]
struct Trusting;

impl<'de> Deserialize<'de> for Trusting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = Trusting;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a sequence")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Trusting, A::Error> {
                let hint = seq.size_hint().unwrap_or(0);
                assert!(
                    hint <= 64,
                    "{hint} elements in a message of at most 64 bytes"
                );
                while seq.next_element::<String>()?.is_some() {}
                Ok(Trusting)
            }
        }
        deserializer.deserialize_seq(Elements)
    }
}

/// The guarantees of all codecs.
macro_rules! promises {
    ($($name:ident $Codec:ty;)*) => { $( mod $name {
        use super::*;

        proptest! {
            #[test]
            fn values_come_back(inner in zoo(), mut outer in zoo()) {
                outer.shapes.push(Shape::Newtype(Box::new(inner)));
                let bytes = encode::<$Codec>(&outer);
                prop_assert_eq!(&decode::<$Codec, Zoo>(&bytes).unwrap(), &outer);
            }

            #[test]
            fn any_bytes_are_a_value_or_an_error_and_never_a_panic(
                input in proptest::collection::vec(any::<u8>(), 0..300),
            ) {
                if let Ok(value) = decode::<$Codec, Zoo>(&input) {
                    prop_assert_eq!(decode::<$Codec, Zoo>(&encode::<$Codec>(&value)).unwrap(), value);
                }
                let _ = decode::<$Codec, Vec<Shape>>(&input);
                let _ = decode::<$Codec, BTreeMap<String, Vec<Option<char>>>>(&input);
                let _ = decode::<$Codec, (&str, &[u8])>(&input);
                let _ = decode::<$Codec, Chain>(&input);
            }

            #[test]
            fn a_damaged_message_is_a_value_or_an_error_and_never_a_panic(
                value in zoo(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index,
            ) {
                let mut bytes = encode::<$Codec>(&value);
                let cut = cut.index(bytes.len());
                prop_assert!(decode::<$Codec, Zoo>(&bytes[..cut]).is_err(), "cut at {}", cut);
                let at = at.index(bytes.len());
                bytes[at] = byte;
                let _ = decode::<$Codec, Zoo>(&bytes);
            }
        }

        #[test]
        fn bytes_after_the_value_are_rejected_and_counted() {
            for value in [&b""[..], b"a", &[7; 500]] {
                let value = Payload::from(value.to_vec());
                let mut bytes = encode::<$Codec>(&value);
                assert_eq!(decode::<$Codec, Payload>(&bytes).unwrap(), value);
                bytes.extend([0xc1, 0, 1]);
                let trailing = DecodeErrorKind::TrailingBytes { left: 3 };
                assert_eq!(rejection::<$Codec, Payload>(&bytes), trailing);
            }
        }

        #[test]
        fn texts_and_bytes_borrow_from_the_message() {
            let input = encode::<$Codec>(&("text", Payload::from(&b"bytes"[..])));
            let (text, bytes): (&str, &[u8]) = decode::<$Codec, _>(&input).unwrap();
            assert_eq!((text, bytes), ("text", &b"bytes"[..]));
            let message = input.as_ptr_range();
            assert!(message.contains(&text.as_ptr()) && message.contains(&bytes.as_ptr()));
        }

        #[test]
        fn the_depth_limit_is_exact() {
            fn limited<T: Serialize + DeserializeOwned + Debug>(value: impl Fn(usize) -> T) {
                for limit in [1, 3, 127] {
                    let limits = DecodeLimits::new().max_depth(limit);
                    let inside = encode::<$Codec>(&value(limit.into()));
                    <$Codec>::decode::<T>(&inside, &limits).unwrap();
                    let beyond = encode::<$Codec>(&value(usize::from(limit) + 1));
                    let error = <$Codec>::decode::<T>(&beyond, &limits).unwrap_err();
                    assert_eq!(error.kind(), &DecodeErrorKind::TooDeep { limit });
                }
            }
            on_a_small_stack(|| {
                limited(tree);
                limited(branch);
                limited(nested);
                limited(list);
            });
        }

        #[test]
        fn levels_next_to_each_other_do_not_add_up() {
            let wide: Vec<Vec<Vec<Option<u8>>>> = vec![vec![vec![Some(1); 3]; 40]; 40];
            let bytes = encode::<$Codec>(&wide);
            assert_eq!(decode::<$Codec, Vec<Vec<Vec<Option<u8>>>>>(&bytes).unwrap(), wide);
        }

        #[test]
        fn a_hundred_thousand_levels_are_rejected_on_a_small_stack() {
            fn deep<T: DeserializeOwned + Debug>(levels: usize, one: &[u8], several: &[u8]) {
                let mut input = several[..several.len() - one.len()].repeat(levels);
                input.extend(one);
                let kind = rejection::<$Codec, T>(&input);
                assert!(matches!(kind, DecodeErrorKind::TooDeep { limit: 128 }), "{kind:?}");
            }
            on_a_small_stack(|| {
                let levels = 100_000;
                deep::<Tree>(levels, &encode::<$Codec>(&tree(1)), &encode::<$Codec>(&tree(2)));
                deep::<Nested>(levels, &encode::<$Codec>(&nested(1)), &encode::<$Codec>(&nested(2)));
                deep::<List>(levels, &encode::<$Codec>(&list(1)), &encode::<$Codec>(&list(2)));
                let map = |inner| Maps(BTreeMap::from([(1, inner)]));
                let empty = || Maps(BTreeMap::new());
                deep::<Maps>(levels, &encode::<$Codec>(&empty()), &encode::<$Codec>(&map(empty())));
            });
        }

        #[test]
        fn an_option_of_itself_ends() {
            on_a_small_stack(|| {
                for input in [vec![1; 100_000], vec![0x93; 9]] {
                    assert!(decode::<$Codec, Chain>(&input).is_err());
                }
            });
        }

        #[test]
        fn levels_of_a_large_type_are_rejected_before_the_stack_is_used_up() {
            on_a_small_stack(|| {
                let level = |next| Large { numbers: [[0; 32]; 32], next };
                let one = encode::<$Codec>(&level(None));
                let two = encode::<$Codec>(&level(Some(Box::new(level(None)))));
                // The bytes before the inner level.
                let head = two.len() - one.len();
                let mut input = two[..head].repeat(1000);
                input.extend(one);
                let kind = rejection::<$Codec, Large>(&input);
                assert!(
                    matches!(kind, DecodeErrorKind::TooDeep { .. } | DecodeErrorKind::TooMuchStack { .. }),
                    "{kind:?}"
                );
            });
        }

        #[test]
        fn large_payloads_become_parts_of_the_message_and_are_sent_without_a_copy() {
            #[derive(Debug, PartialEq, Serialize, Deserialize)]
            struct File {
                name: String,
                small: Payload,
                content: Payload,
            }
            let content = Bytes::from(vec![1; SHARE_FROM_BYTES + SPLIT_FROM_BYTES]);
            let file = File {
                name: "a".to_owned(),
                small: Payload::from(vec![2; 10]),
                content: content.clone().into(),
            };
            let mut out = BytesMut::new();
            let tail = encode_value_split(<$Codec>::ID, &file, &mut out).unwrap().unwrap();
            assert_eq!(tail.as_ptr(), content.as_ptr());
            out.extend_from_slice(&tail);
            assert_eq!(out, encode::<$Codec>(&file));
            let message = out.freeze();
            let read: File = decode_value(<$Codec>::ID, &message, &DecodeLimits::new()).unwrap();
            assert_eq!(read, file);
            assert!(message.as_ptr_range().contains(&read.content.as_ptr()));
            assert!(!message.as_ptr_range().contains(&read.small.as_ptr()));

            // Another value follows, so the payload is copied into the message.
            let values = vec![Payload::from(content.clone()), Payload::from(content), Payload::new()];
            out = BytesMut::new();
            let tail = encode_value_split(<$Codec>::ID, &values, &mut out).unwrap();
            out.extend_from_slice(&tail.unwrap_or_default());
            assert_eq!(out, encode::<$Codec>(&values));
            assert_eq!(decode::<$Codec, Vec<Payload>>(&out).unwrap(), values);
        }

        #[test]
        fn the_errors_of_types_arrive_whole() {
            #[derive(Debug, Serialize, Deserialize)]
            struct Even(#[serde(deserialize_with = "even")] u8);
            fn even<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
                let number = u8::deserialize(deserializer)?;
                if number % 2 == 0 {
                    return Ok(number);
                }
                Err(serde::de::Error::custom(format_args!("{number} is odd")))
            }
            let bytes = encode::<$Codec>(&vec![Even(2), Even(4), Even(5)]);
            let error = decode::<$Codec, Vec<Even>>(&bytes).unwrap_err();
            assert!(error.to_string().starts_with("5 is odd"), "{error}");
        }
    } )* };
}

promises! {
    bincode Bincode;
    postcard Postcard;
    msgpack Msgpack;
}

mod only_bincode;

mod only_postcard {
    use super::*;

    proptest! {
        #[test]
        fn the_bytes_are_those_of_the_crate(value in zoo()) {
            let ours = encode::<Postcard>(&value);
            prop_assert_eq!(&ours, &::postcard::to_extend(&value, Vec::new()).unwrap());
            prop_assert_eq!(::postcard::from_bytes::<Zoo>(&ours).unwrap(), value);
        }
    }

    /// The number in the encoding of lengths of postcard.
    fn claims(claimed: u64) -> Vec<u8> {
        let mut input = encode::<Postcard>(&claimed);
        input.extend([1; 8]);
        input
    }

    #[test]
    fn a_length_beyond_the_end_is_rejected_at_once() {
        for claimed in [10, 300, 1 << 16, 1 << 31, 1 << 34, 1 << 40, u64::MAX] {
            let input = claims(claimed);
            decode::<Postcard, String>(&input).unwrap_err();
            decode::<Postcard, Vec<u8>>(&input).unwrap_err();
            decode::<Postcard, Vec<u64>>(&input).unwrap_err();
            decode::<Postcard, Vec<String>>(&input).unwrap_err();
            decode::<Postcard, BTreeMap<u8, u8>>(&input).unwrap_err();
            decode::<Postcard, Payload>(&input).unwrap_err();
            decode::<Postcard, Trusting>(&input).unwrap_err();
            assert_eq!(
                rejection::<Postcard, Vec<()>>(&input),
                DecodeErrorKind::EmptyElement
            );
        }
        let error = decode::<Postcard, String>(&claims(10)).unwrap_err();
        assert_eq!(error.to_string(), "the message ends too early");
    }

    #[test]
    fn elements_that_take_no_bytes_are_rejected() {
        let empty = DecodeErrorKind::EmptyElement;
        let input = [3, 0, 0, 0];
        assert_eq!(rejection::<Postcard, Vec<()>>(&input), empty);
        assert_eq!(rejection::<Postcard, Vec<UnitStruct>>(&input), empty);
        assert_eq!(rejection::<Postcard, HashSet<()>>(&input), empty);
        assert_eq!(rejection::<Postcard, BTreeMap<(), ()>>(&input), empty);
        assert_eq!(rejection::<Postcard, Vec<((), [u8; 0])>>(&[1]), empty);
        // If only the key or only the value takes no bytes, the entry takes some.
        let map = decode::<Postcard, BTreeMap<u8, ()>>(&[2, 5, 6]);
        assert_eq!(map.unwrap().len(), 2);
        assert_eq!(decode::<Postcard, Vec<()>>(&[0]).unwrap(), []);
        assert_eq!(
            decode::<Postcard, ((), [(); 3], u8)>(&[7]).unwrap(),
            ((), [(); 3], 7)
        );
    }

    #[test]
    fn types_that_need_a_self_describing_codec_are_rejected_with_advice() {
        #[derive(Debug, Deserialize)]
        #[serde(untagged)]
        enum Untagged {
            #[expect(dead_code, reason = "never read")]
            A(u8),
        }
        let kind = rejection::<Postcard, Untagged>(&[1]);
        assert!(
            matches!(kind, DecodeErrorKind::NotSelfDescribing(text) if text.contains("msgpack")),
            "{kind:?}"
        );
    }

    #[test]
    fn invalid_values_are_rejected() {
        for input in [&[2][..], &[0x80], &[]] {
            decode::<Postcard, bool>(input).unwrap_err();
            decode::<Postcard, Option<bool>>(input).unwrap_err();
            decode::<Postcard, Tree>(input).unwrap_err();
        }
        let error = decode::<Postcard, Tree>(&[9]).unwrap_err();
        assert!(error.to_string().contains("integer `9`"), "{error}");
        decode::<Postcard, u16>(&[0xff, 0xff, 0x04]).unwrap_err();
        decode::<Postcard, String>(&[1, 0xff]).unwrap_err();
    }
}

mod only_msgpack {
    use super::*;

    proptest! {
        #[test]
        fn the_bytes_are_those_of_the_crate(value in zoo()) {
            let ours = encode::<Msgpack>(&value);
            prop_assert_eq!(&ours, &rmp_serde::to_vec_named(&value).unwrap());
            prop_assert_eq!(rmp_serde::from_slice::<Zoo>(&ours).unwrap(), value);
        }
    }

    /// All the ways to claim four billion elements.
    fn bombs() -> impl Iterator<Item = Vec<u8>> {
        let kinds = [0xc6, 0xc9, 0xdb, 0xdd, 0xdf];
        kinds
            .into_iter()
            .map(|kind| [&[kind, 0xff, 0xff, 0xff, 0xff][..], &[0xc0; 8]].concat())
    }

    #[test]
    fn a_length_beyond_the_end_is_rejected_at_once() {
        for input in bombs() {
            decode::<Msgpack, String>(&input).unwrap_err();
            decode::<Msgpack, Vec<u8>>(&input).unwrap_err();
            decode::<Msgpack, Vec<[u64; 32]>>(&input).unwrap_err();
            decode::<Msgpack, Vec<()>>(&input).unwrap_err();
            decode::<Msgpack, BTreeMap<u8, u8>>(&input).unwrap_err();
            decode::<Msgpack, HashSet<()>>(&input).unwrap_err();
            decode::<Msgpack, Payload>(&input).unwrap_err();
            decode::<Msgpack, Trusting>(&input).unwrap_err();
            decode::<Msgpack, Zoo>(&input).unwrap_err();
            decode::<Msgpack, serde_json::Value>(&input).unwrap_err();
            decode::<Msgpack, serde::de::IgnoredAny>(&input).unwrap_err();
        }
        let error = decode::<Msgpack, String>(&[0xa3, b'a']).unwrap_err();
        assert_eq!(error.to_string(), "the message ends too early");
    }

    #[test]
    fn elements_without_data_take_a_byte_each() {
        let bytes = encode::<Msgpack>(&vec![(); 3]);
        assert_eq!(bytes, [0x93, 0xc0, 0xc0, 0xc0]);
        assert_eq!(decode::<Msgpack, Vec<()>>(&bytes).unwrap(), [(); 3]);
        let units = encode::<Msgpack>(&[UnitStruct, UnitStruct]);
        assert_eq!(units, [0x92, 0x90, 0x90]);
    }

    #[test]
    fn unknown_values_are_skipped_within_the_depth_limit() {
        on_a_small_stack(|| {
            let deep = |levels: usize| {
                let mut input = encode::<Msgpack>("unknown");
                input.insert(0, 0x81);
                input.extend(vec![0x91; levels]);
                input.push(0xc0);
                input
            };
            decode::<Msgpack, List>(&deep(127)).unwrap();
            let kind = rejection::<Msgpack, List>(&deep(128));
            assert_eq!(kind, DecodeErrorKind::TooDeep { limit: 128 });
            rejection::<Msgpack, List>(&deep(1_000_000));
        });
    }

    #[test]
    fn the_two_sides_may_differ_by_fields_that_have_a_default() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Old {
            name: String,
            gone: u8,
        }
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct New {
            #[serde(default)]
            added: Vec<u8>,
            option: Option<u8>,
            name: String,
        }
        let old = encode::<Msgpack>(&Old {
            name: "a".into(),
            gone: 1,
        });
        let new = New {
            added: Vec::new(),
            option: None,
            name: "a".into(),
        };
        assert_eq!(decode::<Msgpack, New>(&old).unwrap(), new);
        let error = decode::<Msgpack, Old>(&encode::<Msgpack>(&new)).unwrap_err();
        assert_eq!(error.to_string(), "missing field `gone`");
    }

    #[test]
    fn types_that_need_a_self_describing_codec_come_back() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        #[serde(untagged)]
        enum Untagged {
            Number(i64),
            Text(String),
        }
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind")]
        enum Tagged {
            A { x: u8 },
        }
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Flat {
            id: u8,
            #[serde(flatten)]
            rest: BTreeMap<String, Untagged>,
            #[serde(skip_serializing_if = "Option::is_none")]
            left_out: Option<u8>,
            tagged: Tagged,
        }
        let rest = [
            ("a".to_owned(), Untagged::Number(-5)),
            ("b".to_owned(), Untagged::Text("t".into())),
        ];
        let flat = Flat {
            id: 1,
            rest: rest.into(),
            left_out: None,
            tagged: Tagged::A { x: 2 },
        };
        assert_eq!(
            decode::<Msgpack, Flat>(&encode::<Msgpack>(&flat)).unwrap(),
            flat
        );
    }

    #[test]
    fn bytes_are_read_in_either_form() {
        let numbers = encode::<Msgpack>(&vec![1u8, 200]);
        assert_eq!(numbers, [0x92, 1, 0xcc, 200]);
        let bytes = encode::<Msgpack>(&Payload::from(vec![1, 200]));
        assert_eq!(bytes, [0xc4, 2, 1, 200]);
        for input in [numbers, bytes] {
            assert_eq!(decode::<Msgpack, Vec<u8>>(&input).unwrap(), [1, 200]);
            assert_eq!(*decode::<Msgpack, Payload>(&input).unwrap(), [1, 200]);
        }
    }

    #[test]
    fn values_of_json_are_values_of_msgpack() {
        let value = serde_json::json!({"a": [1, -2, 1.5, null, true, "x"], "b": {"c": {}}});
        let bytes = encode::<Msgpack>(&value);
        assert_eq!(decode::<Msgpack, serde_json::Value>(&bytes).unwrap(), value);
        let json = encode::<Json>(&value);
        assert_eq!(decode::<Json, serde_json::Value>(&json).unwrap(), value);
    }
}
