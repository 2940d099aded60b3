//! The bytes of `docs/wire.md`: exactly the lines of its golden vectors are written and read here.

#![cfg(all(feature = "codec-bincode", feature = "macros"))]
#![allow(clippy::unwrap_used, reason = "helpers of a test")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use iip_rpc::MethodError;
use iip_rpc::Schema;
use iip_rpc::arguments::{Arguments, FromArguments};
use iip_rpc::codec::{Bincode, Codec, CodecId, DecodeLimits, Json, decode_value, encode_value};
use iip_rpc::compression::{CompressionId, decompress};
use iip_rpc::envelope::{
    Outcome, ReplyHead, RequestHead, ServerTiming, read_status, write_plain_error,
    write_plain_status, write_status_reply,
};
use iip_rpc::metadata::Metadata;
use iip_rpc::method::MethodDescriptor;
use iip_rpc::payload::Payload;
use iip_rpc::schema::check_derived;
use iip_rpc::status::{Execution, Status};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const HELLO: &MethodDescriptor =
    &MethodDescriptor::new("Greeter", "hello", "/greeter/hello", &["name"]);
const PUT: &MethodDescriptor =
    &MethodDescriptor::new("Store", "put", "/store/put", &["key", "ttl"]);
const PING: &MethodDescriptor = &MethodDescriptor::new("Store", "ping", "/store/ping", &[]);

/// The vectors of the document that were not compared yet.
struct Golden(BTreeMap<String, Vec<u8>>);

impl Golden {
    /// Reads the lines `name = bytes` between the fences that begin with ```` ```golden ````. Bytes
    /// are pairs of hexadecimal digits and texts in double quotes.
    fn read() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/wire.md");
        let document =
            std::fs::read_to_string(path).expect("docs/wire.md is part of the repository");
        let mut vectors = BTreeMap::new();
        let mut inside = false;
        for line in document.lines() {
            if line.starts_with("```") {
                inside = line == "```golden";
            } else if inside && !line.trim().is_empty() {
                let (name, bytes) = line.split_once('=').expect("a vector is `name = bytes`");
                let before = vectors.insert(name.trim().to_owned(), parse(bytes));
                assert_eq!(before, None, "{name} is there twice");
            }
        }
        Self(vectors)
    }

    /// Asserts that `written` is the vector, and removes it from the list.
    #[track_caller]
    fn is(&mut self, name: &str, written: &[u8]) {
        let expected = self.0.remove(name).unwrap_or_else(|| {
            panic!(
                "docs/wire.md has no vector {name}; it would be {}",
                show(written)
            )
        });
        assert_eq!(show(written), show(&expected), "{name}");
    }

    /// A value in bincode, both ways.
    #[track_caller]
    fn value<T: Serialize + DeserializeOwned + PartialEq + Debug>(&mut self, name: &str, value: T) {
        let mut out = BytesMut::new();
        Bincode::encode(&value, &mut out).unwrap();
        self.is(name, &out);
        assert_eq!(
            Bincode::decode::<T>(&out, &DecodeLimits::new()).unwrap(),
            value,
            "{name}"
        );
        let theirs = bincode::serde::encode_to_vec(&value, bincode::config::standard()).unwrap();
        assert_eq!(
            show(&out),
            show(&theirs),
            "{name} is not what the crate writes"
        );
    }

    /// A value in another codec, both ways.
    #[track_caller]
    fn value_in<C: Codec, T: Serialize + DeserializeOwned + PartialEq + Debug>(
        &mut self,
        name: &str,
        value: T,
    ) {
        let mut out = BytesMut::new();
        C::encode(&value, &mut out).unwrap();
        self.is(name, &out);
        assert_eq!(
            C::decode::<T>(&out, &DecodeLimits::new()).unwrap(),
            value,
            "{name}"
        );
    }

    /// A value in JSON, both ways.
    #[track_caller]
    fn json<T: Serialize + DeserializeOwned + PartialEq + Debug>(&mut self, name: &str, value: T) {
        self.value_in::<Json, T>(name, value);
    }

    /// Requests with one argument, with two, and with none.
    fn requests_in(&mut self, codec: CodecId, name: &str) {
        let none = Metadata::new();
        let head = (codec, None, &none);
        let one = ("world".to_owned(),);
        self.request(&format!("{name}-request"), HELLO, head, one);
        let two = ("k".to_owned(), Some(300u32));
        self.request(&format!("{name}-request-two-arguments"), PUT, head, two);
        self.request(&format!("{name}-request-no-arguments"), PING, head, ());
    }

    /// A request, both ways.
    #[track_caller]
    fn request<A: Arguments + FromArguments + PartialEq + Debug>(
        &mut self,
        name: &str,
        method: &MethodDescriptor,
        head: (CodecId, Option<Duration>, &Metadata),
        arguments: A,
    ) {
        let mut out = BytesMut::new();
        RequestHead::write(head.0, head.1, head.2, &mut out);
        arguments.encode(method, head.0, &mut out).unwrap();
        self.is(name, &out);
        let (read, body) = RequestHead::read(out.freeze()).unwrap();
        assert_eq!((read.codec, read.remaining, &read.metadata), head, "{name}");
        let back = A::decode(method, read.codec, &body, &DecodeLimits::new()).unwrap();
        assert_eq!(back, arguments, "{name}");
    }

    /// A reply with a value or an error, both ways.
    #[track_caller]
    fn reply<T: Serialize + DeserializeOwned + PartialEq + Debug + 'static>(
        &mut self,
        name: &str,
        codec: CodecId,
        head: (Outcome, Option<ServerTiming>, &Metadata),
        body: T,
    ) {
        let mut out = BytesMut::new();
        ReplyHead::write(codec, head.0, head.1, head.2, &mut out);
        encode_value(codec, &body, &mut out).unwrap();
        self.is(name, &out);
        let (read, bytes) = ReplyHead::read(out.freeze()).unwrap();
        assert_eq!((read.outcome, read.timing, &read.metadata), head, "{name}");
        assert_eq!(
            decode_value::<T>(codec, &bytes, &DecodeLimits::new()).unwrap(),
            body,
            "{name}"
        );
    }

    /// A reply with a status, both ways.
    #[track_caller]
    fn status(&mut self, name: &str, status: &Status, timing: Option<ServerTiming>) {
        let mut out = BytesMut::new();
        write_status_reply(CodecId::BINCODE, status, timing, &mut out);
        self.is(name, &out);
        let (head, body) = ReplyHead::read(out.freeze()).unwrap();
        assert_eq!(
            (head.outcome, head.timing),
            (Outcome::Status, timing),
            "{name}"
        );
        let back = read_status(body, head.metadata).unwrap();
        assert_eq!(
            (&back, back.execution()),
            (status, status.execution()),
            "{name}"
        );
    }
}

fn parse(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            // A text ends at a quote before a space or the end, so that JSON needs no escapes here.
            let end = quoted.find("\" ").unwrap_or(quoted.len() - 1);
            bytes.extend(&quoted.as_bytes()[..end]);
            rest = quoted[end + 1..].trim_start();
        } else {
            let (pair, after) = rest.split_at(2);
            bytes.push(u8::from_str_radix(pair, 16).expect("two hexadecimal digits"));
            rest = after.trim_start();
        }
    }
    bytes
}

fn show(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}

fn metadata(entries: &[(&str, &'static [u8])]) -> Metadata {
    let mut metadata = Metadata::new();
    for (key, value) in entries {
        metadata.append(key, *value).unwrap();
    }
    metadata
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
struct Point {
    x: i32,
    y: Option<u16>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
struct Id(u64);

#[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
enum Shape {
    Unit,
    Newtype(u8),
    Tuple(u8, bool),
    Struct { side: u32 },
}

#[derive(Debug, PartialEq, thiserror::Error, Serialize, Deserialize, MethodError, Schema)]
enum GreetError {
    #[error("name is empty")]
    EmptyName,
    #[error("name is longer than {0} bytes")]
    TooLong(u32),
    #[error(transparent)]
    #[status]
    Rpc(#[from] Status),
}

#[test]
fn every_golden_vector_is_written_and_read() {
    let mut golden = Golden::read();
    requests(&mut golden);
    replies(&mut golden);
    plain(&mut golden);
    values(&mut golden);
    compressed(&mut golden);
    #[cfg(feature = "codec-postcard")]
    postcard(&mut golden);
    #[cfg(feature = "codec-msgpack")]
    msgpack(&mut golden);
    #[cfg(feature = "codec-prost")]
    protobuf(&mut golden);
    for (codec, is_there) in [
        ("postcard-", cfg!(feature = "codec-postcard")),
        ("msgpack-", cfg!(feature = "codec-msgpack")),
        ("protobuf-", cfg!(feature = "codec-prost")),
    ] {
        golden
            .0
            .retain(|name, _| is_there || !name.starts_with(codec));
    }
    let unused: Vec<_> = golden.0.keys().collect();
    assert!(
        unused.is_empty(),
        "docs/wire.md has vectors that no test looks at: {unused:?}"
    );
}

fn requests(golden: &mut Golden) {
    let none = Metadata::new();
    let (bincode, json) = (CodecId::BINCODE, CodecId::JSON);
    golden.request("request-no-arguments", PING, (bincode, None, &none), ());
    golden.request("request-no-arguments-json", PING, (json, None, &none), ());
    golden.request(
        "request",
        HELLO,
        (bincode, None, &none),
        ("world".to_owned(),),
    );
    golden.request(
        "request-json",
        HELLO,
        (json, None, &none),
        ("world".to_owned(),),
    );
    let two = || ("k".to_owned(), Some(300u32));
    golden.request("request-two-arguments", PUT, (bincode, None, &none), two());
    golden.request(
        "request-two-arguments-json",
        PUT,
        (json, None, &none),
        two(),
    );
    let seconds = Some(Duration::from_secs(10));
    golden.request(
        "request-remaining",
        HELLO,
        (bincode, seconds, &none),
        ("world".to_owned(),),
    );
    golden.request(
        "request-no-time-left",
        PING,
        (bincode, Some(Duration::ZERO), &none),
        (),
    );
    let longest = Some(Duration::from_micros(u64::MAX));
    golden.request("request-longest-time", PING, (bincode, longest, &none), ());
    let token = metadata(&[("x-token", b"abc")]);
    golden.request("request-metadata", PING, (bincode, None, &token), ());
    let all = metadata(&[("a", b"1"), ("b", b"\xff\x00"), ("a", b"")]);
    golden.request(
        "request-everything",
        HELLO,
        (bincode, seconds, &all),
        ("world".to_owned(),),
    );
}

fn replies(golden: &mut Golden) {
    let none = Metadata::new();
    let (bincode, json) = (CodecId::BINCODE, CodecId::JSON);
    let timing = Some(ServerTiming {
        queue: Duration::from_micros(7),
        handler: Duration::from_micros(1_500),
    });
    let value = (Outcome::Value, None, &none);
    golden.reply("reply-nothing", bincode, value, ());
    golden.reply("reply-nothing-json", json, value, ());
    golden.reply("reply", bincode, value, "hello, world".to_owned());
    golden.reply("reply-json", json, value, "hello, world".to_owned());
    golden.reply(
        "reply-timing",
        bincode,
        (Outcome::Value, timing, &none),
        42u8,
    );
    let server = metadata(&[("server", b"a1")]);
    golden.reply(
        "reply-everything",
        bincode,
        (Outcome::Value, timing, &server),
        42u8,
    );
    let error = (Outcome::Error, None, &none);
    golden.reply("reply-error", bincode, error, GreetError::EmptyName);
    golden.reply(
        "reply-error-with-a-value",
        bincode,
        error,
        GreetError::TooLong(64),
    );
    golden.reply("reply-error-json", json, error, GreetError::TooLong(64));
    golden.status("reply-status", &Status::not_found("no user"), None);
    let full = Status::unavailable("draining")
        .with_execution(Execution::NotExecuted)
        .with_details(vec![1, 2, 3])
        .with_metadata(metadata(&[("retry-after", b"3")]));
    golden.status("reply-status-everything", &full, timing);
    golden.status(
        "reply-status-without-text",
        &Status::unauthenticated(""),
        None,
    );
}

/// Compressed bodies are only read: another version of an algorithm may produce other bytes.
fn compressed(golden: &mut Golden) {
    let text = "x".repeat(300);
    for (algorithm, id) in [("zstd", CompressionId::ZSTD), ("lz4", CompressionId::LZ4)] {
        let [request, reply] = ["request", "reply"].map(|side| {
            let name = format!("{side}-{algorithm}");
            let bytes = golden.0[&name].clone();
            golden.is(&name, &bytes);
            Bytes::from(bytes)
        });
        if !id.is_supported() {
            continue;
        }
        let limits = DecodeLimits::new();
        let (head, body) = RequestHead::read(request).unwrap();
        assert_eq!((head.codec, head.compression), (CodecId::BINCODE, id));
        let body = decompress(id, body, &limits).unwrap();
        let back = FromArguments::decode(HELLO, head.codec, &body, &limits);
        assert_eq!(back, Ok((text.clone(),)));
        let (head, body) = ReplyHead::read(reply).unwrap();
        assert_eq!((head.outcome, head.compression), (Outcome::Value, id));
        let body = decompress(id, body, &limits).unwrap();
        assert_eq!(decode_value(head.codec, &body, &limits), Ok(text.clone()));
    }
}

fn plain(golden: &mut Golden) {
    let mut out = BytesMut::new();
    write_plain_status(&Status::not_found("no user"), &mut out);
    golden.is("plain-status", &out);
    out.clear();
    write_plain_status(&Status::unauthenticated(""), &mut out);
    golden.is("plain-status-without-text", &out);
    out.clear();
    write_plain_error(&GreetError::EmptyName, &mut out);
    golden.is("plain-error", &out);
    out.clear();
    write_plain_error(&GreetError::TooLong(64), &mut out);
    golden.is("plain-error-with-a-value", &out);

    // Requests in plain mode are only read.
    let limits = DecodeLimits::new();
    for (name, expected) in [
        ("plain-request", ("k".to_owned(), Some(300u32))),
        ("plain-request-option-left-out", ("k".to_owned(), None)),
    ] {
        let body = Bytes::from(golden.0[name].clone());
        golden.is(name, &body);
        assert_eq!(
            FromArguments::decode(PUT, CodecId::JSON, &body, &limits),
            Ok(expected)
        );
    }
    for name in ["plain-request-one-named", "plain-request-one-bare"] {
        let body = Bytes::from(golden.0[name].clone());
        golden.is(name, &body);
        assert_eq!(
            FromArguments::decode(HELLO, CodecId::JSON, &body, &limits),
            Ok(("world".to_owned(),))
        );
    }
}

fn values(golden: &mut Golden) {
    golden.value("bool-false", false);
    golden.value("bool-true", true);
    golden.value("u8-0", 0u8);
    golden.value("u8-250", 250u8);
    golden.value("u8-255", 255u8);
    golden.value("u16-250", 250u16);
    golden.value("u16-251", 251u16);
    golden.value("u16-65535", u16::MAX);
    golden.value("u32-65535", 65_535u32);
    golden.value("u32-65536", 65_536u32);
    golden.value("u32-4294967295", u32::MAX);
    golden.value("u64-4294967295", 4_294_967_295u64);
    golden.value("u64-4294967296", 4_294_967_296u64);
    golden.value("u64-max", u64::MAX);
    golden.value("u128-18446744073709551616", 1u128 << 64);
    golden.value("u128-max", u128::MAX);
    golden.value("i8-minus-1", -1i8);
    golden.value("i8-127", 127i8);
    golden.value("i16-0", 0i16);
    golden.value("i16-minus-1", -1i16);
    golden.value("i16-1", 1i16);
    golden.value("i16-125", 125i16);
    golden.value("i16-minus-126", -126i16);
    golden.value("i32-minus-2147483648", i32::MIN);
    golden.value("i64-max", i64::MAX);
    golden.value("i64-min", i64::MIN);
    golden.value("i128-min", i128::MIN);
    golden.value("f32-1.5", 1.5f32);
    golden.value("f64-minus-0.1", -0.1f64);
    golden.value("char-a", 'a');
    golden.value("char-euro", '€');
    golden.value("char-crab", '🦀');
    golden.value("string-empty", String::new());
    golden.value("string-gruezi", "grüezi".to_owned());
    golden.value("string-251-times-x", "x".repeat(251));
    golden.value("bytes-u8", vec![0u8, 250, 251, 255]);
    golden.value("bytes", Payload::from(vec![0u8, 250, 251, 255]));
    golden.value("unit", ());
    golden.value("none", None::<u8>);
    golden.value("some-5", Some(5u8));
    golden.value("some-none", Some(None::<u8>));
    golden.value("seq-u16", vec![1u16, 251]);
    golden.value("seq-empty", Vec::<u16>::new());
    golden.value("array", [1u16, 251]);
    golden.value("tuple", (1u8, "a".to_owned(), true));
    golden.value(
        "map",
        BTreeMap::from([("a".to_owned(), 1u8), ("b".to_owned(), 2)]),
    );
    golden.value(
        "struct",
        Point {
            x: -3,
            y: Some(300),
        },
    );
    golden.value("newtype-struct", Id(251));
    golden.value("enum-unit", Shape::Unit);
    golden.value("enum-newtype", Shape::Newtype(9));
    golden.value("enum-tuple", Shape::Tuple(9, true));
    golden.value("enum-struct", Shape::Struct { side: 65_536 });
    golden.value("result-ok", Ok::<u8, String>(1));
    golden.value("result-err", Err::<u8, String>("e".to_owned()));
    golden.value("duration-1.5s", Duration::from_millis(1_500));
    golden.value("status", Status::not_found("no").with_details(vec![7]));
    golden.json("json-struct", Point { x: -3, y: None });
    golden.json(
        "json-enum",
        vec![Shape::Unit, Shape::Newtype(9), Shape::Struct { side: 1 }],
    );
    golden.json("json-bytes", Payload::from(vec![1, 255]));
    golden.json("json-nothing", ());
    golden.json("json-status", Status::not_found("no"));
}

#[cfg(feature = "codec-postcard")]
fn postcard(golden: &mut Golden) {
    use iip_rpc::codec::Postcard;

    let none = Metadata::new();
    golden.requests_in(CodecId::POSTCARD, "postcard");
    let error = (Outcome::Error, None, &none);
    let too_long = GreetError::TooLong(300);
    golden.reply("postcard-reply-error", CodecId::POSTCARD, error, too_long);
    golden.value_in::<Postcard, _>("postcard-u8-255", 255u8);
    golden.value_in::<Postcard, _>("postcard-u16-127", 127u16);
    golden.value_in::<Postcard, _>("postcard-u16-128", 128u16);
    golden.value_in::<Postcard, _>("postcard-u64-max", u64::MAX);
    golden.value_in::<Postcard, _>("postcard-i16-minus-1", -1i16);
    golden.value_in::<Postcard, _>("postcard-i128-min", i128::MIN);
    golden.value_in::<Postcard, _>("postcard-f32-1.5", 1.5f32);
    golden.value_in::<Postcard, _>("postcard-char-euro", '€');
    golden.value_in::<Postcard, _>("postcard-string-gruezi", "grüezi".to_owned());
    golden.value_in::<Postcard, _>("postcard-bytes", Payload::from(vec![0, 255]));
    golden.value_in::<Postcard, _>("postcard-some-none", Some(None::<u8>));
    golden.value_in::<Postcard, _>("postcard-seq-u16", vec![1u16, 300]);
    golden.value_in::<Postcard, _>("postcard-map", BTreeMap::from([("a".to_owned(), 1u8)]));
    golden.value_in::<Postcard, _>(
        "postcard-struct",
        Point {
            x: -3,
            y: Some(300),
        },
    );
    golden.value_in::<Postcard, _>("postcard-enum-tuple", Shape::Tuple(9, true));
    golden.value_in::<Postcard, _>("postcard-enum-struct", Shape::Struct { side: 300 });
}

#[cfg(feature = "codec-msgpack")]
fn msgpack(golden: &mut Golden) {
    use iip_rpc::codec::Msgpack;

    let none = Metadata::new();
    golden.requests_in(CodecId::MSGPACK, "msgpack");
    let value = (Outcome::Value, None, &none);
    golden.reply("msgpack-reply-nothing", CodecId::MSGPACK, value, ());
    let error = (Outcome::Error, None, &none);
    let too_long = GreetError::TooLong(64);
    golden.reply("msgpack-reply-error", CodecId::MSGPACK, error, too_long);
    golden.value_in::<Msgpack, _>("msgpack-bool-true", true);
    golden.value_in::<Msgpack, _>("msgpack-u8-255", 255u8);
    golden.value_in::<Msgpack, _>("msgpack-u64-1", 1u64);
    golden.value_in::<Msgpack, _>("msgpack-i64-minus-33", -33i64);
    golden.value_in::<Msgpack, _>("msgpack-u128-1", 1u128);
    golden.value_in::<Msgpack, _>("msgpack-f32-1.5", 1.5f32);
    golden.value_in::<Msgpack, _>("msgpack-char-euro", '€');
    golden.value_in::<Msgpack, _>("msgpack-bytes-u8", vec![0u8, 255]);
    golden.value_in::<Msgpack, _>("msgpack-bytes", Payload::from(vec![0, 255]));
    golden.value_in::<Msgpack, _>("msgpack-none", None::<u8>);
    golden.value_in::<Msgpack, _>("msgpack-tuple", (1u8, "a".to_owned()));
    golden.value_in::<Msgpack, _>("msgpack-map", BTreeMap::from([(1u8, true)]));
    golden.value_in::<Msgpack, _>("msgpack-struct", Point { x: -3, y: None });
    golden.value_in::<Msgpack, _>("msgpack-newtype-struct", Id(5));
    golden.value_in::<Msgpack, _>("msgpack-enum-unit", Shape::Unit);
    golden.value_in::<Msgpack, _>("msgpack-enum-tuple", Shape::Tuple(9, true));
    golden.value_in::<Msgpack, _>("msgpack-enum-struct", Shape::Struct { side: 1 });
    golden.value_in::<Msgpack, _>("msgpack-status", Status::not_found("no"));
}

#[cfg(feature = "codec-prost")]
fn protobuf(golden: &mut Golden) {
    use iip_rpc::Proto;

    #[derive(Clone, PartialEq, prost::Message)]
    struct Point {
        #[prost(sint32, tag = "1")]
        x: i32,
        #[prost(uint32, optional, tag = "2")]
        y: Option<u32>,
    }

    let point = || {
        Proto(Point {
            x: -3,
            y: Some(300),
        })
    };
    let none = Metadata::new();
    let head = (CodecId::PROTOBUF, None, &none);
    golden.request("protobuf-request", HELLO, head, (point(),));
    let defaults = Proto(Point::default());
    golden.request("protobuf-request-all-defaults", HELLO, head, (defaults,));
    let value = (Outcome::Value, None, &none);
    golden.reply("protobuf-reply", CodecId::PROTOBUF, value, point());
    golden.reply(
        "protobuf-reply-nothing",
        CodecId::PROTOBUF,
        value,
        Proto(()),
    );
    // The codec of the error is a field of it.
    let error = (Outcome::Error, None, &none);
    let too_long = GreetError::TooLong(64);
    golden.reply("protobuf-reply-error", CodecId::JSON, error, too_long);
}

#[test]
fn types_are_described_as_they_are_observed() {
    check_derived::<Point>().unwrap();
    check_derived::<Id>().unwrap();
    check_derived::<Shape>().unwrap();
    check_derived::<GreetError>().unwrap();
}
