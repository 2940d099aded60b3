//! The guarantees of bincode alone, among them that its bytes are those of the crate of this name.

use ::bincode::config::standard;
use iip_rpc::codec::{CodecId, EncodeErrorKind};

use super::*;

fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    super::encode::<Bincode>(value)
}

fn decode<'de, T: Deserialize<'de>>(input: &'de [u8]) -> Result<T, DecodeError> {
    super::decode::<Bincode, T>(input)
}

#[track_caller]
fn error_kind<'de, T: Deserialize<'de> + Debug>(input: &'de [u8]) -> DecodeErrorKind {
    rejection::<Bincode, T>(input)
}

/// A value of every kind that serde knows.
type All = (Zoo, Option<Option<i32>>);

fn all() -> impl Strategy<Value = All> {
    (zoo(), any::<Option<Option<i32>>>())
}

proptest! {
    #[test]
    fn our_bytes_are_those_of_the_crate_and_come_back(inner in zoo(), mut outer in all()) {
        outer.0.shapes.push(Shape::Newtype(Box::new(inner)));
        let ours = encode(&outer);
        prop_assert_eq!(&ours, &::bincode::serde::encode_to_vec(&outer, standard()).unwrap());
        prop_assert_eq!(&decode::<All>(&ours).unwrap(), &outer);
        let (theirs, _) = ::bincode::serde::borrow_decode_from_slice::<All, _>(&ours, standard()).unwrap();
        prop_assert_eq!(theirs, outer);
    }

    #[test]
    fn integers_of_every_size_are_those_of_the_crate(bits in 0u32..=64, value: u64, signed: i64) {
        // Covers small and large numbers.
        let value = value.checked_shr(64 - bits).unwrap_or(0);
        let signed = signed.checked_shr(64 - bits).unwrap_or(0);
        let all = (value, value as u32, value as u16, signed, signed as i32, signed as i16, value as u8, signed as i8);
        let ours = encode(&all);
        prop_assert_eq!(&ours, &::bincode::serde::encode_to_vec(all, standard()).unwrap());
        prop_assert_eq!(decode::<(u64, u32, u16, i64, i32, i16, u8, i8)>(&ours).unwrap(), all);
    }

    #[test]
    fn any_bytes_are_a_value_or_an_error_and_never_a_panic(input in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(value) = decode::<All>(&input) {
            prop_assert_eq!(decode::<All>(&encode(&value)).unwrap(), value);
        }
        let _ = decode::<Vec<Shape>>(&input);
        let _ = decode::<BTreeMap<String, Vec<Option<char>>>>(&input);
        let _ = decode::<(&str, &[u8])>(&input);
    }

    #[test]
    fn a_damaged_message_is_a_value_or_an_error_and_never_a_panic(
        value in all(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index,
    ) {
        let mut bytes = encode(&value);
        let cut = cut.index(bytes.len());
        prop_assert!(decode::<All>(&bytes[..cut]).is_err());
        let at = at.index(bytes.len());
        bytes[at] = byte;
        // A damaged value may end earlier, so a truncated one may be complete.
        let _ = decode::<All>(&bytes);
        let _ = decode::<All>(&bytes[..cut]);
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
    assert!(text(decode::<String>(&[1, 0xff]).unwrap_err()).starts_with("a string is not utf-8: "));
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
    let files: Vec<File> = decode_value(CodecId::BINCODE, &message, &DecodeLimits::new()).unwrap();
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
