//! Types of std and of well-known crates.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, LinkedList, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::num::{NonZeroI16, NonZeroU8, NonZeroU64, Wrapping};
use std::ops::{Bound, Range, RangeInclusive};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{check, shown};

#[test]
fn numbers_and_texts_are_themselves() {
    check("bool", [true, false]);
    check("u8", [0_u8, 255]);
    check("u16", [0_u16, 60_000]);
    check("u32", [0_u32, 70_000]);
    check("u64", [0_u64, u64::MAX]);
    check("u64", [usize::MAX]);
    check("i8", [-1_i8]);
    check("i16", [-1_i16]);
    check("i32", [-70_000_i32]);
    check("i64", [i64::MIN]);
    check("i64", [isize::MIN]);
    check("f32", [1.5_f32]);
    check("f64", [1.5_f64]);
    check("char", ['x']);
    check("text", [String::from("x")]);
    check("unit", [()]);
    assert_eq!(shown::<u128>(), "u128");
    assert_eq!(shown::<i128>(), "i128");
}

#[test]
fn collections_of_std_are_sequences_and_maps() {
    check("[u32]", [vec![1_u32, 2], vec![]]);
    check("[u8]", [VecDeque::from([1_u8])]);
    check("[text]", [LinkedList::from(["x".to_owned()])]);
    check("[u16]", [BTreeSet::from([7_u16])]);
    check("[text]", [HashSet::from(["x".to_owned()])]);
    check("{text: i64}", [HashMap::from([("x".to_owned(), -3_i64)])]);
    check("{u32: bool}", [BTreeMap::from([(4_u32, true)])]);
    check(
        "{text: [u8?]}",
        [BTreeMap::from([("x".to_owned(), vec![Some(1_u8), None])])],
    );
    check("text?", [Some("x".to_owned()), None]);
    check("u8??", [Some(Some(1_u8)), None]);
}

#[test]
fn tuples_and_arrays_have_their_lengths() {
    check("[u8; 32]", [[7_u8; 32]]);
    check("[text; 2]", [["x".to_owned(), "y".to_owned()]]);
    check("(u8, text, i64)", [(1_u8, "x".to_owned(), -5_i64)]);
    check("(u8, u8)", [(1_u8, 2_u8)]);
    check("[[u16; 2]; 3]", [[[1_u16, 500]; 3]]);
}

#[test]
fn smart_pointers_and_wrappers_are_not_seen() {
    check("u32", [Box::new(1_u32)]);
    check("u32", [std::rc::Rc::new(1_u32)]);
    check("[text]", [Arc::new(vec!["x".to_owned()])]);
    check("text", [Cow::<'static, str>::Borrowed("x")]);
    check("u8", [Wrapping(1_u8)]);
    check("u8", [std::cmp::Reverse(1_u8)]);
    check("u8", [std::cell::RefCell::new(1_u8)]);
    check("u8", [std::cell::Cell::new(1_u8)]);
    check("u32", [std::sync::Mutex::new(1_u32)]);
    check("u32", [std::sync::RwLock::new(1_u32)]);
    check("u32", [std::sync::atomic::AtomicU32::new(1)]);
    check("text", [Box::<str>::from("x")]);
    check("text", [Arc::<str>::from("x")]);
    check("[u8]", [Box::<[u8]>::from([1_u8])]);
    check("unit", [std::marker::PhantomData::<String>]);
}

#[test]
fn types_of_std_with_conditions_are_described() {
    check("u8", [NonZeroU8::MIN]);
    check("u64", [NonZeroU64::MAX]);
    check("i16", [NonZeroI16::MIN]);
    check("text", [PathBuf::from("/x")]);
    check("bytes", [std::ffi::CString::new("x").unwrap()]);
    check(
        "OsString<Unix([u8]), Windows(opaque std::ffi::os_str::OsString: a part of it that is not \
         asked for: cannot deserialize Windows OS string on Unix)>",
        [std::ffi::OsString::from("x")],
    );
    check(
        "Duration{secs: u64, nanos: u32}",
        [Duration::from_millis(1_500)],
    );
    check(
        "SystemTime{secs_since_epoch: u64, nanos_since_epoch: u32}",
        [SystemTime::UNIX_EPOCH + Duration::from_millis(1_500)],
    );
    check(
        "Range{start: u8, end: u8}",
        [Range {
            start: 1_u8,
            end: 2,
        }],
    );
    check(
        "RangeInclusive{start: i64, end: i64}",
        [RangeInclusive::new(1_i64, 2)],
    );
    check(
        "Bound<u8><Unbounded, Included(u8), Excluded(u8)>",
        [Bound::Unbounded, Bound::Included(1_u8)],
    );
    check(
        "Result<u8, String><Ok(u8), Err(text)>",
        [Ok(1_u8), Err("x".to_owned())],
    );
}

#[test]
fn addresses_have_another_form_in_binary_formats() {
    check("text | [u8; 4]", [Ipv4Addr::LOCALHOST]);
    check("text | [u8; 16]", [Ipv6Addr::LOCALHOST]);
    check(
        "text | IpAddr<V4([u8; 4]), V6([u8; 16])>",
        [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            IpAddr::from(Ipv6Addr::LOCALHOST),
        ],
    );
    check(
        "text | ([u8; 4], u16)",
        [SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80)],
    );
    check(
        "text | SocketAddr<V4(([u8; 4], u16)), V6(([u8; 16], u16))>",
        [SocketAddr::from(([127, 0, 0, 1], 80))],
    );
    check(
        "text | IpNet<V4([u8; 5]), V6([u8; 17])>",
        ["10.0.0.0/8".parse::<ipnet::IpNet>().unwrap()],
    );
}

#[test]
fn identifiers_and_texts_with_a_format_are_texts() {
    check("text | bytes", [uuid::Uuid::from_u128(7)]);
    check("text", [ulid::Ulid::from_parts(1, 2)]);
    check(
        "text",
        ["http://example.com/x".parse::<url::Url>().unwrap()],
    );
    check("text", ["1.2.3-rc".parse::<semver::Version>().unwrap()]);
    check("text", ["^1.2".parse::<semver::VersionReq>().unwrap()]);
    check("text", [camino::Utf8PathBuf::from("/x")]);
    check("text", [compact_str::CompactString::from("x")]);
    check("text", [smol_str::SmolStr::from("x")]);
    check("text", [arrayvec::ArrayString::<8>::from("x").unwrap()]);
}

#[test]
fn times_of_chrono_and_jiff_are_texts() {
    use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, Utc};

    let date = NaiveDate::from_ymd_opt(2024, 1, 2).unwrap();
    check("text", [DateTime::<Utc>::UNIX_EPOCH]);
    check("text", [DateTime::<Utc>::UNIX_EPOCH.fixed_offset()]);
    check("text", [date]);
    check("text", [NaiveTime::MIN]);
    check("text", [NaiveDateTime::new(date, NaiveTime::MIN)]);
    check("text", [chrono::Weekday::Mon]);
    check("text", [chrono::Month::January]);
    assert_eq!(shown::<DateTime<FixedOffset>>(), "text");
    check("text", [jiff::Timestamp::UNIX_EPOCH]);
    check("text", [jiff::civil::date(2024, 1, 2)]);
    check("text", [jiff::SignedDuration::from_secs(1)]);
    check("text", [jiff::Span::new()]);
}

/// They write text in JSON, but read sequences there too, so what they write is not known.
#[test]
fn times_of_time_are_opaque_in_json() {
    let date = time::macros::date!(2024 - 01 - 02);
    check(
        "opaque time::date::Date: it reads values of several kinds: text, sequences | (i32, u16)",
        [date],
    );
    check(
        "opaque time::offset_date_time::OffsetDateTime: it reads values of several kinds: text, \
         sequences | (i32, u16, u8, u8, u8, u32, i8, i8, i8)",
        [time::OffsetDateTime::UNIX_EPOCH],
    );
}

#[test]
fn collections_of_other_crates_are_sequences_and_maps() {
    check(
        "{u8: text}",
        [indexmap::IndexMap::from([(1_u8, "x".to_owned())])],
    );
    check("[text]", [indexmap::IndexSet::from(["x".to_owned()])]);
    check("[u8]", [smallvec::SmallVec::<[u8; 4]>::from_slice(&[1, 2])]);
    check("[u16]", [arrayvec::ArrayVec::<u16, 4>::from_iter([1, 2])]);
    check(
        "Either<u8, String><Left(u8), Right(text)>",
        [
            either::Either::Left(1_u8),
            either::Either::Right("x".to_owned()),
        ],
    );
}

#[test]
fn bytes_are_bytes() {
    check("bytes", [bytes::Bytes::from_static(b"x")]);
    check("bytes", [bytes::BytesMut::from(&b"x"[..])]);
    check("bytes", [serde_bytes::ByteBuf::from(b"x")]);
}

#[test]
fn large_and_ordered_numbers_are_described() {
    check("(i8, [u32])", [num_bigint::BigInt::from(-7)]);
    check("[u32]", [num_bigint::BigUint::from(7_u8)]);
    check("f64", [ordered_float::OrderedFloat(1.5_f64)]);
    check("f32", [ordered_float::NotNan::new(1.5_f32).unwrap()]);
    check(
        "opaque rust_decimal::decimal::Decimal: it reads values of several kinds: text, unsigned \
         integers, signed integers, floating-point numbers",
        [rust_decimal::Decimal::new(15, 1)],
    );
}

#[test]
fn values_of_json_are_any_value() {
    check("any", [serde_json::json!({"x": [1, null]})]);
    check(
        "{text: any}",
        [serde_json::Map::from_iter([(
            "x".to_owned(),
            serde_json::json!(1),
        )])],
    );
    check(
        "opaque serde_json::number::Number: it reads values of several kinds: unsigned integers, \
         signed integers, floating-point numbers",
        [serde_json::Number::from(1)],
    );
    assert_eq!(shown::<serde::de::IgnoredAny>(), "any");
}
