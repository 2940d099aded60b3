//! Tests of arguments in every codec: values that are read, values that are rejected, and error
//! texts.

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
    A::decode(method, CodecId::JSON, &body, &DecodeLimits::new()).map_err(|error| error.to_string())
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
fn binary_arguments_follow_one_another() {
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
fn an_empty_object_is_no_argument_where_there_need_not_be_one() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Filter {
        #[serde(default)]
        limit: u8,
    }
    type Map = std::collections::BTreeMap<String, u8>;

    for text in ["{}", " {\n} "] {
        assert_eq!(json::<(Option<Filter>,)>(ONE, text), Ok((None,)));
        assert_eq!(json::<(Option<Map>,)>(ONE, text), Ok((None,)));
        assert_eq!(json(ONE, text), Ok((Filter { limit: 0 },)));
        assert_eq!(json(ONE, text), Ok((Map::new(),)));
    }
    let some = Ok((Some(Filter { limit: 0 }),));
    assert_eq!(json(ONE, r#"{"name":{}}"#), some);
    let some = Ok((Some(Filter { limit: 1 }),));
    assert_eq!(json(ONE, r#"{"limit":1}"#), some);
    assert!(json::<(Option<Filter>,)>(ONE, "{} {}").is_err());
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
    // The only key is the name of the argument, so its value is taken for the argument.
    let error = json::<(Person,)>(ONE, r#"{"name":"ann"}"#).unwrap_err();
    assert!(
        error.starts_with("argument `name`: invalid type: string"),
        "{error}"
    );
}

#[test]
fn wrong_arguments_are_rejected_by_name() {
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
fn a_wrong_name_for_the_only_argument_is_rejected_by_name() {
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
fn an_object_that_was_taken_for_the_only_argument_is_rejected_with_the_reason() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Person {
        age: u8,
    }
    let table = [
        (r#"{"nmae":{"age":3}}"#, "nmae"),
        (r#"{"name":{"age":3},"agr":4}"#, "agr"),
        (r#"{"agr":4}"#, "agr"),
    ];
    for (text, key) in table {
        let error = json::<(Person,)>(ONE, text).unwrap_err();
        assert!(
            error.starts_with("argument `name`: missing field `age`"),
            "{text}: {error}"
        );
        assert!(
            error.ends_with(&format!(
                "(the object was read as `name` itself, because its key {key:?} is not the name of \
                 the argument)"
            )),
            "{text}: {error}"
        );
    }
    // The error contains no guess.
    for text in ["{}", "[]", r#"{"agr":"#] {
        let error = json::<(Person,)>(ONE, text).unwrap_err();
        assert!(!error.contains("was read as"), "{text}: {error}");
    }
}

#[test]
fn a_wrong_binary_argument_is_rejected_by_name() {
    let body = encode(TWO, CodecId::DEFAULT, &("a", "bb"));
    let error =
        <(String, bool)>::decode(TWO, CodecId::DEFAULT, &body, &DecodeLimits::new()).unwrap_err();
    assert_eq!(error.argument(), Some("ttl"));
    assert!(error.to_string().starts_with("argument `ttl`: "), "{error}");
    if CodecId::DEFAULT == CodecId::BINCODE {
        let error =
            <(String,)>::decode(ONE, CodecId::DEFAULT, &body, &DecodeLimits::new()).unwrap_err();
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
fn codecs_that_take_no_arguments_are_rejected() {
    let error = (1,)
        .encode(ONE, CodecId::RAW, &mut BytesMut::new())
        .unwrap_err();
    assert!(
        error.to_string().starts_with("raw is not supported"),
        "{error}"
    );
    let error =
        <(u8,)>::decode(ONE, CodecId::new(77), &Bytes::new(), &DecodeLimits::new()).unwrap_err();
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
