//! Messages of prost, as the body of a call and inside other types.

#![cfg(feature = "codec-prost")]
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fmt::Debug;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use iip_rpc::arguments::{Arguments, FromArguments};
use iip_rpc::codec::{
    Codec, CodecId, DecodeError, DecodeLimits, EncodeError, Json, Proto, Protobuf, decode_value,
    encode_value_split,
};
use iip_rpc::method::MethodDescriptor;
use iip_rpc::payload::{SHARE_FROM_BYTES, SPLIT_FROM_BYTES};
use proptest::prelude::*;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, message};

const FIND: &MethodDescriptor =
    &MethodDescriptor::new("Files", "find", "/files/find", &["request"]).codec(CodecId::PROTOBUF);

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(sint64, repeated, tag = "2")]
    numbers: Vec<i64>,
    #[prost(message, optional, boxed, tag = "3")]
    inner: Option<Box<Self>>,
    #[prost(message, repeated, tag = "4")]
    children: Vec<Self>,
    #[prost(bytes = "bytes", tag = "5")]
    data: Bytes,
    #[prost(map = "string, double", tag = "6")]
    scores: std::collections::HashMap<String, f64>,
    #[prost(oneof = "Kind", tags = "7, 8")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(fixed32, tag = "7")]
    Small(u32),
    #[prost(bytes, tag = "8")]
    Raw(Vec<u8>),
}

fn encode(value: &impl serde::Serialize) -> Result<Vec<u8>, EncodeError> {
    let mut out = BytesMut::new();
    Protobuf::encode(value, &mut out)?;
    Ok(out.to_vec())
}

fn decode<M: Message + Default>(input: &[u8]) -> Result<M, DecodeError> {
    let proto: Proto<M> = Protobuf::decode(input, &DecodeLimits::new())?;
    Ok(proto.into_inner())
}

fn node() -> impl Strategy<Value = Node> {
    let kind = prop_oneof![
        any::<u32>().prop_map(Kind::Small),
        any::<Vec<u8>>().prop_map(Kind::Raw),
    ];
    let scores = proptest::collection::hash_map(".*", any::<i32>().prop_map(f64::from), 0..3);
    let parts = (
        ".*",
        any::<Vec<i64>>(),
        any::<Vec<u8>>(),
        scores,
        proptest::option::of(kind),
    );
    let leaf = parts.prop_map(|(name, numbers, data, scores, kind)| Node {
        name,
        numbers,
        inner: None,
        children: Vec::new(),
        data: data.into(),
        scores,
        kind,
    });
    leaf.prop_recursive(4, 12, 3, |inner| {
        (inner.clone(), proptest::collection::vec(inner, 0..3)).prop_map(|(mut node, children)| {
            node.inner = children.first().cloned().map(Box::new);
            node.children = children;
            node
        })
    })
}

proptest! {
    #[test]
    fn the_bytes_are_those_of_prost_and_come_back(node in node()) {
        let ours = encode(&Proto(node.clone())).unwrap();
        prop_assert_eq!(ours.len(), node.encoded_len());
        prop_assert_eq!(&Node::decode(&ours[..]).unwrap(), &node);
        prop_assert_eq!(decode::<Node>(&node.encode_to_vec()).unwrap(), node);
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error_and_never_a_panic(input in any::<Vec<u8>>()) {
        let _ = decode::<Node>(&input);
    }

    #[test]
    fn a_damaged_message_is_a_message_or_an_error_and_never_a_panic(
        node in node(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index,
    ) {
        let mut bytes = node.encode_to_vec();
        if !bytes.is_empty() {
            let (at, cut) = (at.index(bytes.len()), cut.index(bytes.len()));
            let _ = decode::<Node>(&bytes[..cut]);
            bytes[at] = byte;
            let _ = decode::<Node>(&bytes);
        }
    }

    #[test]
    fn in_other_codecs_it_is_the_bytes_of_the_message(node in node()) {
        for codec in [CodecId::BINCODE, CodecId::POSTCARD, CodecId::JSON, CodecId::MSGPACK] {
            if !codec.is_supported() {
                continue;
            }
            let value = (Proto(node.clone()), 7u8);
            let mut out = BytesMut::new();
            let tail = encode_value_split(codec, &value, &mut out).unwrap();
            out.extend_from_slice(&tail.unwrap_or_default());
            let back: (Proto<Node>, u8) =
                decode_value(codec, &out.freeze(), &DecodeLimits::new()).unwrap();
            prop_assert_eq!(back, value);
        }
    }
}

#[test]
fn the_argument_is_the_whole_body() {
    let request = Proto("abc".to_owned());
    let mut out = BytesMut::new();
    (&request,)
        .encode(FIND, CodecId::PROTOBUF, &mut out)
        .unwrap();
    assert_eq!(out, &b"\x0a\x03abc"[..]);
    let (back,): (Proto<String>,) =
        FromArguments::decode(FIND, CodecId::PROTOBUF, &out.freeze(), &DecodeLimits::new())
            .unwrap();
    assert_eq!(back, request);
    // Every field has its default.
    assert!(encode(&Proto(())).unwrap().is_empty());
    decode::<()>(b"").unwrap();
}

#[test]
fn everything_else_is_rejected_with_advice() {
    #[track_caller]
    fn rejected(value: impl serde::Serialize) {
        let error = encode(&value).unwrap_err();
        assert!(error.to_string().contains("`Proto`"), "{error}");
    }
    rejected(1u8);
    rejected("text");
    rejected(Bytes::from_static(b"bytes"));
    rejected((Proto(1u32), Proto(2u32)));
    rejected(());
    rejected(Some(Proto(1u32)));
    rejected(vec![Proto(1u32)]);
    rejected(((Proto(1u32),), 2));
    let error = Protobuf::decode::<u8>(b"\x08\x01", &DecodeLimits::new()).unwrap_err();
    assert!(error.to_string().contains("`Proto`"), "{error}");
    let error = <(Proto<u32>, Proto<u32>)>::decode(
        FIND,
        CodecId::PROTOBUF,
        &Bytes::new(),
        &DecodeLimits::new(),
    );
    assert!(error.unwrap_err().to_string().contains("`Proto`"));
}

#[test]
fn a_length_beyond_the_end_is_rejected_at_once() {
    for tag in 1u8..=8 {
        for length in [&[10][..], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[0xff; 9]] {
            let input = [&[tag << 3 | 2][..], length, &[1; 3]].concat();
            decode::<Node>(&input).unwrap_err();
        }
    }
}

#[test]
fn errors_name_the_argument_and_the_field() {
    let body = Bytes::from_static(b"\x08\x01");
    let limits = DecodeLimits::new();
    let error = <(Proto<Node>,)>::decode(FIND, CodecId::PROTOBUF, &body, &limits).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("argument `request`: ") && text.contains("Node.name"),
        "{text}"
    );
}

#[test]
fn a_message_over_the_size_limit_is_rejected_by_name() {
    let limits = DecodeLimits::new().max_message_bytes(4);
    let error = Protobuf::decode::<Proto<String>>(b"\x0a\x03abc", &limits).unwrap_err();
    assert!(error.to_string().contains("max_message_bytes"), "{error}");
}

/// The stack size of a thread of the tokio runtime.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    let builder = std::thread::Builder::new().stack_size(2 << 20);
    builder.spawn(test).unwrap().join().unwrap();
}

fn nested(levels: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..levels {
        let mut outer = vec![3 << 3 | 2];
        prost::encode_length_delimiter(bytes.len(), &mut outer).unwrap();
        outer.extend(bytes);
        bytes = outer;
    }
    bytes
}

#[test]
fn more_than_100_levels_are_rejected() {
    on_a_small_stack(|| {
        decode::<Node>(&nested(100)).unwrap();
        for levels in [101, 5000] {
            let error = decode::<Node>(&nested(levels)).unwrap_err();
            assert_eq!(
                error.to_string(),
                "nested deeper than the limit of 100 levels (max_depth)"
            );
        }
    });
}

#[test]
fn more_than_100_levels_are_rejected_by_the_writer() {
    on_a_small_stack(|| {
        let chain = |levels: usize| {
            let leaf = Node {
                // Looks like nested messages, although it is a text.
                name: "\n\u{2}\n\u{0}".repeat(100),
                ..Node::default()
            };
            (0..levels).fold(leaf, |node, _| Node {
                children: vec![node],
                ..Node::default()
            })
        };
        let mut out = BytesMut::new();
        Protobuf::encode(&Proto(chain(100)), &mut out).unwrap();
        decode::<Node>(&out).unwrap();
        for levels in [101, 1000] {
            let error = Protobuf::encode(&Proto(chain(levels)), &mut BytesMut::new()).unwrap_err();
            assert_eq!(
                error.to_string(),
                "nested deeper than the limit of 100 levels that receivers accept"
            );
        }
    });
}

/// A message whose levels each take much stack.
#[derive(Debug, Default)]
struct Wide(Option<Box<Self>>);

impl Message for Wide {
    fn encode_raw(&self, _: &mut impl BufMut) {}

    fn merge_field(
        &mut self,
        _: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        let large = std::hint::black_box([0u8; 32 * 1024]);
        let inner = self.0.get_or_insert_default();
        let merged = message::merge(wire_type, inner, buf, ctx);
        std::hint::black_box(large);
        merged
    }

    fn encoded_len(&self) -> usize {
        0
    }

    fn clear(&mut self) {}
}

#[test]
fn levels_of_a_large_type_are_rejected_before_the_stack_is_used_up() {
    on_a_small_stack(|| {
        decode::<Wide>(&nested(5)).unwrap();
        let error = decode::<Wide>(&nested(100)).unwrap_err();
        assert!(error.to_string().contains("bytes of stack"), "{error}");
    });
}

#[test]
fn a_large_message_is_not_copied_after_the_head() {
    let node = Node {
        data: vec![1; SPLIT_FROM_BYTES].into(),
        ..Node::default()
    };
    let mut out = BytesMut::from(&b"head"[..]);
    let tail = encode_value_split(CodecId::PROTOBUF, &Proto(node.clone()), &mut out).unwrap();
    assert_eq!(out, &b"head"[..]);
    assert_eq!(tail.unwrap(), node.encode_to_vec());
}

#[test]
fn large_fields_of_bytes_become_parts_of_the_message() {
    let node = Node {
        data: vec![1; SHARE_FROM_BYTES].into(),
        ..Node::default()
    };
    let outer = Node {
        children: vec![node.clone()],
        ..Node::default()
    };
    let message = Bytes::from(outer.encode_to_vec());
    let back: Proto<Node> =
        decode_value(CodecId::PROTOBUF, &message, &DecodeLimits::new()).unwrap();
    assert_eq!(back.children, [node]);
    let range = message.as_ptr_range();
    assert!(range.contains(&back.children[0].data.as_ptr()));
}

#[test]
fn a_proto_is_its_message_in_every_way_but_serde() {
    let mut proto = Proto::from("a".to_owned());
    proto.push('b');
    assert_eq!(proto.len(), 2);
    assert_eq!(proto.into_inner(), "ab");
    let json = Json::decode::<Proto<String>>(br#"[10,1,97]"#, &DecodeLimits::new());
    assert_eq!(*json.unwrap(), "a");
}
