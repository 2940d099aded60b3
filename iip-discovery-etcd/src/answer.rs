//! The JSON of etcd's gateway. 64-bit numbers are strings in it, bytes are base64, and fields with
//! their default value are absent.

use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::{self, DeserializeOwned, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::failure::{Failure, printable};

/// The maximum number of keys or events in one answer. It bounds the memory that an answer takes,
/// which may be many times its length. etcd sends at most 1,000 revisions at once.
const MAX_ITEMS: usize = 150_000;

/// The code of gRPC for an error without a code.
const UNKNOWN: u32 = 2;

/// An answer, or one message of a stream. Each kind of request uses some of the fields.
#[derive(Deserialize, Default, Debug)]
#[serde(default)]
pub(crate) struct Answer {
    pub(crate) header: Option<Header>,
    #[serde(deserialize_with = "items")]
    pub(crate) kvs: Vec<KeyValue>,
    pub(crate) count: Number,
    pub(crate) more: bool,
    pub(crate) created: bool,
    pub(crate) canceled: bool,
    pub(crate) cancel_reason: String,
    pub(crate) compact_revision: Number,
    #[serde(deserialize_with = "items")]
    pub(crate) events: Vec<Event>,
    #[serde(rename = "ID")]
    pub(crate) id: Number,
    #[serde(rename = "TTL")]
    pub(crate) ttl: Number,
    pub(crate) token: String,
}

/// The outer part of an answer: a message of a stream is in `result`, and an error has one of three
/// forms, depending on the version of etcd.
#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    result: Option<Answer>,
    #[serde(default)]
    error: Option<ErrorText>,
    #[serde(default)]
    code: Option<u32>,
    #[serde(default)]
    message: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ErrorText {
    Text(String),
    Object {
        #[serde(alias = "grpc_code")]
        code: Option<u32>,
        #[serde(default)]
        message: String,
    },
    Other(IgnoredAny),
}

#[derive(Deserialize, Default, Debug)]
#[serde(default)]
pub(crate) struct Header {
    pub(crate) revision: Number,
}

#[derive(Deserialize, Default, Debug)]
#[serde(default)]
pub(crate) struct KeyValue {
    pub(crate) key: Blob,
    pub(crate) value: Blob,
    pub(crate) mod_revision: Number,
}

#[derive(Deserialize, Default, Debug)]
#[serde(default)]
pub(crate) struct Event {
    #[serde(rename = "type")]
    pub(crate) kind: EventKind,
    pub(crate) kv: KeyValue,
}

/// The kind of an event, by its name or by its number.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Default, Debug)]
#[serde(try_from = "serde_json::Value")]
pub(crate) enum EventKind {
    #[default]
    Put,
    Delete,
}

impl TryFrom<serde_json::Value> for EventKind {
    type Error = &'static str;

    fn try_from(value: serde_json::Value) -> Result<Self, Self::Error> {
        match (value.as_str(), value.as_i64()) {
            (Some("PUT"), _) | (_, Some(0)) => Ok(Self::Put),
            (Some("DELETE"), _) | (_, Some(1)) => Ok(Self::Delete),
            _ => Err("the type of an event is neither PUT nor DELETE"),
        }
    }
}

/// A 64-bit number.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Number(pub(crate) i64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberVisitor;

        impl Visitor<'_> for NumberVisitor {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a 64-bit number, or a text with one")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Number, E> {
                Ok(Number(number))
            }

            // Ids are unsigned in some answers; the bits are what matters.
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Number, E> {
                Ok(Number(number.cast_signed()))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
                match (text.parse(), text.parse::<u64>()) {
                    (Ok(number), _) => Ok(Number(number)),
                    (_, Ok(number)) => self.visit_u64(number),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }

        deserializer.deserialize_any(NumberVisitor)
    }
}

/// Bytes in base64.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Blob(pub(crate) Vec<u8>);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BlobVisitor;

        impl Visitor<'_> for BlobVisitor {
            type Value = Blob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes in base64")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Blob, E> {
                BASE64_STANDARD.decode(text).map(Blob).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(BlobVisitor)
    }
}

/// Returns `bytes` in base64.
pub(crate) fn blob(bytes: impl AsRef<[u8]>) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// Reads a list of at most [`MAX_ITEMS`] elements.
fn items<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    struct Items<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX_ITEMS} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = list.next_element()? {
                if items.len() == MAX_ITEMS {
                    return Err(de::Error::invalid_length(MAX_ITEMS + 1, &self));
                }
                items.push(item);
            }
            Ok(items)
        }
    }

    deserializer.deserialize_seq(Items(PhantomData))
}

impl Envelope {
    fn failure(self) -> Option<Failure> {
        let (code, text) = match (self.error, self.message) {
            (Some(ErrorText::Object { code, message }), _) => (code.or(self.code), message),
            (Some(ErrorText::Text(text)), _) | (None, Some(text)) => (self.code, text),
            (Some(ErrorText::Other(_)), text) => (self.code, text.unwrap_or_default()),
            (None, None) => return None,
        };
        let text = match text.is_empty() {
            true => "etcd answered with an error without a text".to_owned(),
            false => printable(text.as_bytes()),
        };
        Some(Failure::Rejected {
            code: code.unwrap_or(UNKNOWN),
            message: text,
        })
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| {
        let reason = printable(error.to_string().as_bytes());
        Failure::Bad(format!("the answer is not one of etcd: {reason}"))
    })
}

/// Reads the error in the body of an answer whose status is not 200; `None` if there is none.
pub(crate) fn read_error(body: &[u8]) -> Option<Failure> {
    read::<Envelope>(body).ok()?.failure()
}

/// Reads the body of an answer, which has a header.
pub(crate) fn read_answer(body: &[u8]) -> Result<Answer, Failure> {
    let answer: Answer = read(body)?;
    match answer.header {
        Some(_) => Ok(answer),
        None => match read_error(body) {
            Some(failure) => Err(failure),
            // Some versions answer so if the user has lost the permission.
            None => Err(Failure::Bad("etcd sent an empty answer".to_owned())),
        },
    }
}

/// Reads one message of a stream: `{"result":..}` or `{"error":..}`.
pub(crate) fn read_message(line: &[u8]) -> Result<Answer, Failure> {
    let mut envelope: Envelope = read(line)?;
    match (envelope.result.take(), envelope.failure()) {
        (_, Some(failure)) => Err(failure),
        (Some(answer), None) => Ok(answer),
        (None, None) => Err(Failure::Bad("etcd sent an empty message".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_answer_to_a_range_is_read() {
        let body = br#"{"header":{"cluster_id":"324952591200643719","revision":"2"},
            "kvs":[{"key":"L2EveA==","mod_revision":"2","version":"1","value":"aGVsbG8="}],
            "count":"1","more":true,"unknown":[{}]}"#;
        let answer = read_answer(body).unwrap();
        assert_eq!(answer.header.unwrap().revision, Number(2));
        assert_eq!(answer.kvs[0].key.0, b"/a/x");
        assert_eq!(answer.kvs[0].value.0, b"hello");
        assert_eq!((answer.count, answer.more), (Number(1), true));
    }

    #[test]
    fn messages_of_a_watch_are_read() {
        let put = br#"{"result":{"header":{},"events":[{"kv":{"key":"YQ==","mod_revision":"7"}},
            {"type":"DELETE","kv":{"key":"Yg=="}},{"type":1},{"type":"PUT"}]}}"#;
        let kinds: Vec<EventKind> = read_message(put)
            .unwrap()
            .events
            .iter()
            .map(|event| event.kind)
            .collect();
        use EventKind::{Delete, Put};
        assert_eq!(kinds, [Put, Delete, Delete, Put]);
        let compacted = br#"{"result":{"canceled":true,"compact_revision":"3"}}"#;
        let answer = read_message(compacted).unwrap();
        assert_eq!(
            (answer.canceled, answer.compact_revision),
            (true, Number(3))
        );
    }

    #[test]
    fn errors_of_all_versions_are_read() {
        for text in [
            r#"{"error":"etcdserver: x","message":"etcdserver: x","code":5}"#,
            r#"{"code":5,"message":"etcdserver: x","details":[]}"#,
            r#"{"error":{"grpc_code":5,"http_code":404,"message":"etcdserver: x"}}"#,
            r#"{"error":{"code":5,"message":"etcdserver: x"}}"#,
        ] {
            for read in [read_answer, read_message] {
                let failure = read(text.as_bytes()).unwrap_err();
                assert!(failure.is_not_found(), "{text}: {failure:?}");
                assert_eq!(failure.to_string(), "etcdserver: x");
            }
        }
        assert!(read_message(br#"{"error":7}"#).is_err());
        assert!(read_message(br#"{"error":null,"result":{}}"#).is_ok());
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for text in [
            "",
            "{}",
            "[]",
            "null",
            "{\"result\":",
            "<html>",
            "{\"header\":null}",
        ] {
            assert!(read_answer(text.as_bytes()).is_err(), "{text}");
            assert!(read_message(text.as_bytes()).is_err(), "{text}");
        }
        let wrong = br#"{"header":{"revision":"2"},"kvs":[{"key":"%"}]}"#;
        assert!(read_answer(wrong).is_err());
        let wrong = br#"{"header":{"revision":"99999999999999999999"}}"#;
        assert!(read_answer(wrong).is_err());
        let deep = format!("{{\"result\":{}", "{\"header\":".repeat(100_000));
        assert!(read_message(deep.as_bytes()).is_err());
    }

    #[test]
    fn an_answer_with_too_many_elements_is_an_error() {
        let body = |count: usize| {
            let list = vec!["{}"; count].join(",");
            format!("{{\"header\":{{}},\"kvs\":[{list}]}}")
        };
        assert!(read_answer(body(MAX_ITEMS).as_bytes()).is_ok());
        let failure = read_answer(body(MAX_ITEMS + 1).as_bytes()).unwrap_err();
        assert!(failure.to_string().contains("at most 150000"), "{failure}");
    }

    proptest! {
        #[test]
        fn bytes_are_read_as_they_are_written(bytes: Vec<u8>) {
            let text = format!("\"{}\"", blob(&bytes));
            prop_assert_eq!(serde_json::from_str::<Blob>(&text).unwrap().0, bytes);
        }

        #[test]
        fn any_bytes_are_an_answer_or_an_error(
            text in "(\\{\"(result|error|header|kvs|events|code|message)\":|\\[|\\}|\\]|\"x\"|1){0,12}",
        ) {
            let _ = read_answer(text.as_bytes());
            let _ = read_message(text.as_bytes());
        }
    }
}
