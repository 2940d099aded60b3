//! Values that have no fields: numbers, texts, options and collections.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::{Just, any};
use proptest::prop_oneof;
use proptest::strategy::Strategy;

use super::*;

/// Tries an integer type as another one.
macro_rules! integers {
    ($($from:ident $from_type:ident -> $to:ident $to_type:ident: [$($verdict:ident),*];)*) => { $({
        let values = prop_oneof![
            (0u8..=127).prop_map(|small| small as $from),
            Just($from::MAX),
            Just($from::MIN),
            Just($from::MAX / 2 + 1),
            any::<$from>(),
        ];
        cell(
            values,
            |value| $to::try_from(*value).ok(),
            &plain(Type::$from_type),
            &plain(Type::$to_type),
            [$($verdict),*],
        );
    })* };
}

#[test]
fn an_integer_is_widened_where_both_have_a_variable_length() {
    integers! {
        u16 U16 -> u32 U32: [Compatible, Compatible, Compatible, Compatible];
        u16 U16 -> u64 U64: [Compatible, Compatible, Compatible, Compatible];
        u32 U32 -> u64 U64: [Compatible, Compatible, Compatible, Compatible];
        u64 U64 -> u128 U128: [Compatible, Compatible, Compatible, Compatible];
        i16 I16 -> i32 I32: [Compatible, Compatible, Compatible, Compatible];
        i32 I32 -> i64 I64: [Compatible, Compatible, Compatible, Compatible];
        i64 I64 -> i128 I128: [Compatible, Compatible, Compatible, Compatible];
        u8 U8 -> u16 U16: [Incompatible, Incompatible, Compatible, Compatible];
        u8 U8 -> u64 U64: [Incompatible, Incompatible, Compatible, Compatible];
        i8 I8 -> i32 I32: [Incompatible, Incompatible, Compatible, Compatible];
        u32 U32 -> i64 I64: [Incompatible, Incompatible, Compatible, Compatible];
        u8 U8 -> i16 I16: [Incompatible, Incompatible, Compatible, Compatible];
        u64 U64 -> i128 I128: [Incompatible, Incompatible, Compatible, Compatible];
    }
}

#[test]
fn an_integer_is_narrowed_with_a_warning() {
    integers! {
        u32 U32 -> u16 U16: [Warn, Warn, Warn, Warn];
        u64 U64 -> u32 U32: [Warn, Warn, Warn, Warn];
        i64 I64 -> i32 I32: [Warn, Warn, Warn, Warn];
        u16 U16 -> u8 U8: [Incompatible, Incompatible, Warn, Warn];
        i32 I32 -> i8 I8: [Incompatible, Incompatible, Warn, Warn];
        i32 I32 -> u32 U32: [Incompatible, Incompatible, Warn, Warn];
        u64 U64 -> i64 I64: [Incompatible, Incompatible, Warn, Warn];
        u8 U8 -> i8 I8: [Incompatible, Incompatible, Warn, Warn];
        u128 U128 -> u64 U64: [Warn, Warn, Incompatible, Warn];
        i128 I128 -> i64 I64: [Warn, Warn, Incompatible, Warn];
        u128 U128 -> i128 I128: [Incompatible, Incompatible, Incompatible, Warn];
        i128 I128 -> u128 U128: [Incompatible, Incompatible, Incompatible, Warn];
        i64 I64 -> u128 U128: [Incompatible, Incompatible, Incompatible, Warn];
    }
}

#[test]
fn a_float_takes_what_it_holds_exactly() {
    let finite = || any::<f32>().prop_filter("JSON has no other", |value| value.is_finite());
    cell(
        finite()
            .prop_map(|value| (value * 8.0).trunc() / 8.0)
            .prop_filter("finite", |v| v.is_finite()),
        // The shortest decimal form of JSON is that of the narrower type.
        |value| Some(AsF32(*value)),
        &plain(Type::F32),
        &plain(Type::F64),
        [Incompatible, Incompatible, Compatible, Compatible],
    );
    cell(
        any::<f64>().prop_filter("JSON has no other", |value| value.is_finite()),
        |value| (f64::from(*value as f32) == *value).then_some(*value as f32),
        &plain(Type::F64),
        &plain(Type::F32),
        [Incompatible; 4],
    );
    cell(
        any::<u32>(),
        |value| Some(f64::from(*value)),
        &plain(Type::U32),
        &plain(Type::F64),
        [Incompatible, Incompatible, Compatible, Compatible],
    );
    cell(
        any::<u64>(),
        |value| (*value as f64 as u64 == *value).then_some(*value as f64),
        &plain(Type::U64),
        &plain(Type::F64),
        [Incompatible; 4],
    );
    cell(
        finite(),
        |value| Some(*value as i32),
        &plain(Type::F32),
        &plain(Type::I32),
        [Incompatible; 4],
    );
}

/// A `f64` that is compared as a `f32`.
#[derive(Debug, serde::Deserialize)]
#[serde(from = "f64")]
struct AsF32(f32);

impl From<f64> for AsF32 {
    fn from(value: f64) -> Self {
        Self(value as f32)
    }
}

impl PartialEq for AsF32 {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

#[test]
fn texts_and_bytes_are_the_same_only_where_there_are_no_names() {
    let bytes = || vec(any::<u8>(), 0..4).prop_map(Bytes::from);
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    cell(
        bytes(),
        |value| text(value),
        &plain(Type::Bytes),
        &plain(Type::Text),
        [Warn, Warn, Warn, Incompatible],
    );
    cell(
        bytes(),
        |value| Some(value.to_vec()),
        &plain(Type::Bytes),
        &plain(Type::seq(Type::U8)),
        [Compatible; 4],
    );
    cell(
        vec(any::<u8>(), 0..4),
        |value| text(value),
        &plain(Type::seq(Type::U8)),
        &plain(Type::Text),
        [Warn, Warn, Incompatible, Incompatible],
    );
    cell(
        ".{0,4}",
        |value| Some(value.clone().into_bytes()),
        &plain(Type::Text),
        &plain(Type::seq(Type::U8)),
        [Compatible, Compatible, Incompatible, Incompatible],
    );
}

/// Bytes whose `Deserialize` takes a text and a sequence, or neither of them.
#[derive(Debug, PartialEq)]
struct Strict<const IS_STRICT: bool>(Vec<u8>);

impl<'de, const IS_STRICT: bool> serde::Deserialize<'de> for Strict<IS_STRICT> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        match IS_STRICT {
            true => deserializer.deserialize_bytes(Visitor).map(Self),
            false => Bytes::deserialize(deserializer).map(|bytes| Self(bytes.to_vec())),
        }
    }
}

#[test]
fn what_a_type_of_bytes_takes_besides_bytes_depends_on_it() {
    let (text, seq) = (plain(Type::Text), plain(Type::seq(Type::U8)));
    let bytes = plain(Type::Bytes);
    for (encoding, codec) in ENCODINGS {
        let verdict = |from: &Described| {
            compare_types((&from.0, &from.1), (&bytes.0, &bytes.1), encoding).verdict()
        };
        let outcomes = [&mut Outcomes::default(), &mut Outcomes::default()];
        let expected = Vec::from(*b"text");
        let (loose, strict) = (
            Strict::<false>(expected.clone()),
            Strict::<true>(expected.clone()),
        );
        send(codec, &"text", Some(&loose), outcomes[0]);
        send(codec, &"text", Some(&strict), outcomes[0]);
        assert!(
            outcomes[0].support(verdict(&text)),
            "{encoding}: {outcomes:?}"
        );
        send(codec, &expected, Some(&loose), outcomes[1]);
        if encoding != Encoding::Json {
            // JSON has no bytes, so a type that has to be read from it takes a sequence.
            send(codec, &expected, Some(&strict), outcomes[1]);
        }
        assert!(
            outcomes[1].support(verdict(&seq)),
            "{encoding}: {outcomes:?}"
        );
        let is_warning = encoding == Encoding::MessagePack;
        let expected = if is_warning { Warn } else { Compatible };
        assert_eq!([verdict(&text), verdict(&seq)], [expected; 2]);
    }
}

#[test]
fn a_character_is_a_text_except_in_bincode() {
    cell(
        any::<char>(),
        |value| Some(value.to_string()),
        &plain(Type::Char),
        &plain(Type::Text),
        [Incompatible, Compatible, Compatible, Compatible],
    );
    cell(
        ".{0,2}",
        |value: &String| {
            let mut all = value.chars();
            all.next().filter(|_| all.next().is_none())
        },
        &plain(Type::Text),
        &plain(Type::Char),
        [Incompatible, Incompatible, Warn, Warn],
    );
}

#[test]
fn a_value_becomes_optional_where_fields_have_names() {
    cell(
        any::<u32>(),
        |value| Some(Some(*value)),
        &plain(Type::U32),
        &plain(Type::option(Type::U32)),
        [Incompatible, Incompatible, Compatible, Compatible],
    );
    cell(
        option::of(any::<u32>()),
        |value| *value,
        &plain(Type::option(Type::U32)),
        &plain(Type::U32),
        [Incompatible, Incompatible, Warn, Warn],
    );
    cell(
        option::of(any::<u16>()),
        |value| Some(value.map(u32::from)),
        &plain(Type::option(Type::U16)),
        &plain(Type::option(Type::U32)),
        [Compatible; 4],
    );
    // A method that returned nothing returns something.
    cell(
        Just(()),
        |()| Some(None::<u32>),
        &plain(Type::Unit),
        &plain(Type::option(Type::U32)),
        [Incompatible, Incompatible, Compatible, Compatible],
    );
}

#[test]
fn a_sequence_is_not_a_number_of_values_without_names() {
    cell(
        vec(any::<u8>(), 0..4),
        |value| <[u8; 2]>::try_from(&value[..]).ok(),
        &plain(Type::seq(Type::U8)),
        &plain(Type::array(Type::U8, 2)),
        [Incompatible, Incompatible, Warn, Warn],
    );
    cell(
        vec(any::<u16>(), 0..4),
        |value| <[u16; 2]>::try_from(&value[..]).ok().map(|[a, b]| (a, b)),
        &plain(Type::seq(Type::U16)),
        &plain(Type::Tuple(vec![Type::U16, Type::U16])),
        [Incompatible, Incompatible, Warn, Warn],
    );
    cell(
        any::<[u16; 2]>(),
        |value| Some(value.to_vec()),
        &plain(Type::array(Type::U16, 2)),
        &plain(Type::seq(Type::U16)),
        [Incompatible, Incompatible, Compatible, Compatible],
    );
    cell(
        any::<(u16, u32)>(),
        |value| Some(vec![u32::from(value.0), value.1]),
        &plain(Type::Tuple(vec![Type::U16, Type::U32])),
        &plain(Type::seq(Type::U32)),
        [Incompatible, Incompatible, Compatible, Compatible],
    );
    cell(
        any::<(u16, u16)>(),
        |value| Some([value.0, value.1]),
        &plain(Type::Tuple(vec![Type::U16, Type::U16])),
        &plain(Type::array(Type::U16, 2)),
        [Equal; 4],
    );
    for (from, to) in [(2, 3), (3, 2)] {
        let (from, to) = (Type::array(Type::U8, from), Type::array(Type::U8, to));
        let verdicts = [Incompatible; 4];
        if from == Type::array(Type::U8, 2) {
            cell(
                any::<[u8; 2]>(),
                |_| None::<[u8; 3]>,
                &plain(from),
                &plain(to),
                verdicts,
            );
        } else {
            cell(
                any::<[u8; 3]>(),
                |_| None::<[u8; 2]>,
                &plain(from),
                &plain(to),
                verdicts,
            );
        }
    }
}

#[test]
fn a_map_and_a_struct_are_alike_where_fields_have_names() {
    #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Size {
        a: u32,
        b: u32,
    }
    let size = fields("Size", vec![field("a", Type::U32), field("b", Type::U32)]);
    let map = plain(Type::map(Type::Text, Type::U32));
    cell(
        any::<(u32, u32)>().prop_map(|(a, b)| Size { a, b }),
        |value| {
            Some(BTreeMap::from([
                ("a".to_owned(), value.a),
                ("b".to_owned(), value.b),
            ]))
        },
        &size,
        &map,
        [Incompatible, Incompatible, Compatible, Compatible],
    );
    cell(
        btree_map("[ab]", any::<u32>(), 0..3),
        |value| {
            Some(Size {
                a: *value.get("a")?,
                b: *value.get("b")?,
            })
        },
        &map,
        &size,
        [Incompatible, Incompatible, Warn, Warn],
    );
}

#[test]
fn keys_are_texts_in_json_only() {
    type By<K, V> = BTreeMap<K, V>;
    let in_text = |(key, is): (&u32, &bool)| (key.to_string(), *is);
    cell(
        btree_map(any::<u32>(), any::<bool>(), 1..3),
        |value| Some(value.iter().map(in_text).collect::<By<String, bool>>()),
        &plain(Type::map(Type::U32, Type::Bool)),
        &plain(Type::map(Type::Text, Type::Bool)),
        [Incompatible, Incompatible, Incompatible, Compatible],
    );
    let in_number = |(key, is): (&String, &bool)| Some((key.parse().ok()?, *is));
    cell(
        btree_map("[1-9a]", any::<bool>(), 1..2),
        |value| {
            value
                .iter()
                .map(in_number)
                .collect::<Option<By<u32, bool>>>()
        },
        &plain(Type::map(Type::Text, Type::Bool)),
        &plain(Type::map(Type::U32, Type::Bool)),
        [Incompatible, Incompatible, Incompatible, Warn],
    );
    let wider = |(key, value): (&u16, &u16)| (u32::from(*key), u64::from(*value));
    cell(
        btree_map(any::<u16>(), any::<u16>(), 0..3),
        |value| Some(value.iter().map(wider).collect::<By<u32, u64>>()),
        &plain(Type::map(Type::U16, Type::U16)),
        &plain(Type::map(Type::U32, Type::U64)),
        [Compatible; 4],
    );
}

#[test]
fn a_newtype_is_not_seen() {
    #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Id(u64);
    let id = named("Id", Shape::Newtype(Type::U64));
    cell(
        any::<u64>().prop_map(Id),
        |id| Some(id.0),
        &id,
        &plain(Type::U64),
        [Equal; 4],
    );
    cell(
        any::<u64>(),
        |id| Some(Id(*id)),
        &plain(Type::U64),
        &id,
        [Equal; 4],
    );
}

#[test]
fn any_value_needs_names_and_says_nothing_about_the_other_side() {
    use serde_json::Value;
    let values = prop_oneof![
        any::<u32>().prop_map(Value::from),
        ".{0,3}".prop_map(Value::from)
    ];
    cell(
        values.clone(),
        |value| Some(value.clone()),
        &plain(Type::Any),
        &plain(Type::Any),
        [Incompatible, Incompatible, Equal, Equal],
    );
    cell(
        values,
        |value| u32::try_from(value.as_u64()?).ok(),
        &plain(Type::Any),
        &plain(Type::U32),
        [Incompatible, Incompatible, Warn, Warn],
    );
}

#[test]
fn types_of_different_forms_are_not_alike() {
    let verdicts = [Incompatible; 4];
    let texts = || ".{1,3}";
    cell(
        texts(),
        |_| None::<u32>,
        &plain(Type::Text),
        &plain(Type::U32),
        verdicts,
    );
    cell(
        any::<u32>(),
        |_| None::<String>,
        &plain(Type::U32),
        &plain(Type::Text),
        verdicts,
    );
    cell(
        any::<bool>(),
        |_| None::<u8>,
        &plain(Type::Bool),
        &plain(Type::U8),
        verdicts,
    );
    cell(
        any::<u8>(),
        |_| None::<bool>,
        &plain(Type::U8),
        &plain(Type::Bool),
        verdicts,
    );
    cell(
        any::<u32>(),
        |_| None::<()>,
        &plain(Type::U32),
        &plain(Type::Unit),
        verdicts,
    );
    cell(
        any::<u32>(),
        |_| None::<Vec<u32>>,
        &plain(Type::U32),
        &plain(Type::seq(Type::U32)),
        verdicts,
    );
}
