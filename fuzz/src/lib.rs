//! The functions of the fuzz targets, and the types that the codecs are tested with.

mod rules;
mod schema;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock};
use std::thread;

use bytes::{Bytes, BytesMut};
use iip_core::decoder::Decoder;
use iip_core::{FrameStatus, Limits, Side};
use iip_rpc::codec::{CodecId, DecodeLimits, decode_value, encode_value};
use iip_rpc::compression::{CompressionId, decompress};
use iip_rpc::envelope::{
    Outcome, PlainError, ReplyHead, RequestHead, is_envelope, read_status, write_status,
};
use iip_rpc::{Payload, Proto};
use prost::Message;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use crate::rules::{rules, rules_seeds};
pub use crate::schema::{schema, schema_seeds};

/// The stack size of the threads of tokio, on which a server decodes.
const STACK_BYTES: usize = 2 * 1024 * 1024;

/// Checks that the same bytes, split anywhere, give the same frames, and that these encode to the
/// bytes.
pub fn decoder(data: &[u8]) {
    let &[how, ref data @ ..] = data else { return };
    let side = if how & 1 == 0 {
        Side::Server
    } else {
        Side::Client
    };
    let limits = if how & 2 == 0 {
        Limits::default()
    } else {
        Limits::default().max_path_bytes(20).max_frame_bytes(300)
    };
    let (frames, error) = decode(side, &limits, data, data.len().max(1));
    let (in_pieces, error_in_pieces) = decode(side, &limits, data, usize::from(how >> 2) + 1);
    // Bytes after status 8 do not count, and depend on the splits.
    let end = |frames: &[iip_core::Frame]| {
        let closes = |frame: &iip_core::Frame| frame.status == FrameStatus::Close;
        frames
            .iter()
            .position(closes)
            .map_or(frames.len(), |at| at + 1)
    };
    let (end, end_in_pieces) = (end(&frames), end(&in_pieces));
    assert_eq!(frames[..end], in_pieces[..end_in_pieces]);
    let closed = frames
        .get(end.wrapping_sub(1))
        .is_some_and(|frame| frame.status == FrameStatus::Close);
    if closed {
        return;
    }
    assert_eq!(error, error_in_pieces);
    let mut again = BytesMut::new();
    for frame in &frames {
        assert!(!frame.body.is_empty() && frame.body.len() <= limits.get_max_frame_bytes());
        assert!(frame.path.len() <= limits.get_max_path_bytes() && !frame.path.contains(&0));
        assert_ne!(frame.status.sender(), Some(side));
        frame.encode(&mut again);
    }
    assert!(data.starts_with(&again));
}

fn decode(
    side: Side,
    limits: &Limits,
    data: &[u8],
    piece: usize,
) -> (Vec<iip_core::Frame>, Option<iip_core::ProtocolError>) {
    let mut decoder = Decoder::new(side, limits);
    let mut frames = Vec::new();
    for piece in data.chunks(piece) {
        decoder.feed(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

/// Checks that an envelope that was read is written as the same bytes.
pub fn envelope(data: &[u8]) {
    let message = Bytes::copy_from_slice(data);
    let mut written = BytesMut::new();
    if let Ok((head, arguments)) = RequestHead::read(message.clone()) {
        assert!(is_envelope(data));
        RequestHead::write(head.codec, head.remaining, &head.metadata, &mut written);
        written[1] |= head.compression.as_u8() << 6;
        written.extend_from_slice(&arguments);
        assert_eq!(written, data);
        decompressed(head.compression, arguments);
    }
    if let Ok((head, body)) = ReplyHead::read(message.clone()) {
        written.clear();
        ReplyHead::write(
            head.codec,
            head.outcome,
            head.timing,
            &head.metadata,
            &mut written,
        );
        written[1] |= head.compression.as_u8() << 6;
        written.extend_from_slice(&body);
        assert_eq!(written, data);
        decompressed(head.compression, body.clone());
        if head.outcome == Outcome::Status {
            status(body, &head);
        }
    }
    if let Some(error) = <PlainError>::read(data) {
        assert!(!is_envelope(data));
        let _ = error.into_status();
    }
}

/// Checks that a decompressed body is not larger than announced and than the limits allow.
fn decompressed(compression: CompressionId, body: Bytes) {
    let (most, ratio) = (1 << 20, 1000);
    let limits = DecodeLimits::new()
        .max_message_bytes(most)
        .max_compression_ratio(ratio);
    let compressed = body.len();
    if let Ok(plain) = decompress(compression, body, &limits) {
        assert!(plain.len() <= most && plain.len() <= compressed.saturating_mul(1000));
    }
}

fn status(body: Bytes, head: &ReplyHead) {
    let Ok(status) = read_status(body, head.metadata.clone()) else {
        return;
    };
    let mut written = BytesMut::new();
    write_status(&status, &mut written);
    let again = read_status(written.freeze(), head.metadata.clone()).expect("it was written here");
    // A code of a later version has become `Unknown`; the rest is the same.
    assert_eq!(again.code(), status.code());
    assert_eq!(again.execution(), status.execution());
    assert_eq!(again.message(), status.message());
    assert_eq!(again.details(), status.details());
}

/// Reads the bytes as a type that the first byte selects, writes the value, and reads it again.
pub fn codec(codec: CodecId, data: &[u8]) {
    static WORKER: OnceLock<Worker> = OnceLock::new();
    let (jobs, replies) = WORKER.get_or_init(|| {
        let (jobs, inbox) = sync_channel::<(CodecId, Vec<u8>)>(1);
        let (outbox, replies) = sync_channel(1);
        thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(move || {
                while let Ok((codec, data)) = inbox.recv() {
                    try_codec(codec, &data);
                    if outbox.send(()).is_err() {
                        return;
                    }
                }
            })
            .expect("a thread can be started");
        (jobs, Mutex::new(replies))
    });
    jobs.send((codec, data.to_vec())).expect("it is there");
    let replies = replies.lock().expect("nobody panicked with it");
    replies.recv().expect("it answers");
}

/// The sender of jobs, and the receiver of their completions.
type Worker = (SyncSender<(CodecId, Vec<u8>)>, Mutex<Receiver<()>>);

fn try_codec(codec: CodecId, data: &[u8]) {
    let &[kind, ref data @ ..] = data else { return };
    let body = Bytes::copy_from_slice(data);
    if codec == CodecId::PROTOBUF {
        return match kind % 3 {
            0 => round_trip::<Proto<Messages>>(codec, &body),
            1 => round_trip::<Proto<String>>(codec, &body),
            _ => round_trip::<Proto<()>>(codec, &body),
        };
    }
    match kind % KINDS {
        0 => round_trip::<Everything>(codec, &body),
        1 => round_trip::<Tree>(codec, &body),
        2 => round_trip::<Option<List>>(codec, &body),
        3 => round_trip::<Vec<Option<Vec<String>>>>(codec, &body),
        4 => round_trip::<BTreeMap<String, Tree>>(codec, &body),
        5 => round_trip::<(u8, i16, u32, i64, u128, i128, bool, char)>(codec, &body),
        6 => round_trip::<Vec<()>>(codec, &body),
        7 => round_trip::<(Payload, Bytes, Vec<u8>)>(codec, &body),
        8 => round_trip::<Shape>(codec, &body),
        9 => round_trip::<Vec<[u64; 4]>>(codec, &body),
        10 => round_trip::<Result<Box<Tree>, String>>(codec, &body),
        _ => round_trip::<String>(codec, &body),
    }
}

/// Number of types.
pub const KINDS: u8 = 12;

fn round_trip<T: Serialize + DeserializeOwned + 'static>(codec: CodecId, body: &Bytes) {
    let limits = DecodeLimits::new();
    let Ok(value) = decode_value::<T>(codec, body, &limits) else {
        return;
    };
    let mut once = BytesMut::new();
    match encode_value(codec, &value, &mut once) {
        Ok(()) => {}
        // A value that can be read and not written, such as a `NaN` or elements without bytes, is
        // skipped.
        Err(_) => return,
    }
    let once = once.freeze();
    // Numbers may be longer than they were, and the text of a whole message has a limit.
    let Ok(again) = decode_value::<T>(codec, &once, &limits) else {
        assert_eq!(codec, CodecId::JSON, "what was written cannot be read");
        return;
    };
    let mut twice = BytesMut::new();
    encode_value(codec, &again, &mut twice).expect("it was encoded before");
    assert_eq!(once, twice, "the value changed on its way");
}

/// Every kind of field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Everything {
    pub flag: bool,
    pub small: i8,
    pub large: u64,
    pub real: f64,
    pub single: f32,
    pub letter: char,
    pub text: String,
    #[serde(default)]
    pub maybe: Option<Box<Self>>,
    pub unit: (),
    pub pair: (u16, String),
    pub set: BTreeSet<i32>,
    pub map: BTreeMap<u8, Vec<Shape>>,
    pub data: Payload,
}

/// Every kind of variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Shape {
    Point,
    Circle(f32),
    Line(i32, i32),
    Named { name: String, inner: Vec<Self> },
}

/// Wide and deep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Tree {
    Leaf(u64),
    Text(String),
    Node(Vec<Self>),
    Named(BTreeMap<String, Self>),
    Boxed(Box<Self>),
    Maybe(Option<Box<Self>>),
    Pair { left: Box<Self>, right: Box<Self> },
}

/// Only deep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct List {
    pub value: u8,
    pub next: Option<Box<Self>>,
}

/// Every kind of field of a message.
#[derive(Clone, PartialEq, Message)]
pub struct Messages {
    #[prost(string, tag = "1")]
    pub text: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub data: Bytes,
    #[prost(sint64, repeated, tag = "3")]
    pub numbers: Vec<i64>,
    #[prost(double, optional, tag = "4")]
    pub real: Option<f64>,
    #[prost(message, optional, boxed, tag = "5")]
    pub inner: Option<Box<Self>>,
    #[prost(message, repeated, tag = "6")]
    pub several: Vec<Self>,
    #[prost(btree_map = "string, message", tag = "7")]
    pub named: BTreeMap<String, Self>,
    #[prost(group, optional, boxed, tag = "8")]
    pub group: Option<Box<Self>>,
    #[prost(fixed32, repeated, packed = "false", tag = "9")]
    pub fixed: Vec<u32>,
}

/// Returns encoded messages as seeds.
fn message_seeds() -> Vec<Vec<u8>> {
    let leaf = Messages {
        text: "text \u{1F600}".into(),
        data: Bytes::from_static(b"data"),
        numbers: vec![0, -1, i64::MAX],
        real: Some(0.1),
        fixed: vec![1, 2],
        ..Messages::default()
    };
    let tree = Messages {
        inner: Some(Box::new(leaf.clone())),
        several: vec![leaf.clone(); 2],
        named: BTreeMap::from([("k".into(), leaf.clone())]),
        group: Some(Box::new(leaf.clone())),
        ..leaf.clone()
    };
    let deep = (0..110).fold(leaf.clone(), |inner, _| Messages {
        inner: Some(Box::new(inner)),
        ..Messages::default()
    });
    let mut seeds: Vec<_> = [leaf, tree, deep]
        .iter()
        .map(|message| [&[0][..], &message.encode_to_vec()].concat())
        .collect();
    seeds.push(b"\x01\x0a\x03abc".to_vec());
    seeds.push(b"\x02\x0a\x03abc".to_vec());
    seeds
}

/// Returns an encoded value of each kind as seeds.
#[must_use]
pub fn codec_seeds(codec: CodecId) -> Vec<Vec<u8>> {
    if codec == CodecId::PROTOBUF {
        return message_seeds();
    }
    let shape = Shape::Named {
        name: "n".into(),
        inner: vec![Shape::Point, Shape::Circle(1.5), Shape::Line(-1, 2)],
    };
    let everything = Everything {
        flag: true,
        small: -1,
        large: u64::MAX,
        real: 0.1,
        single: -2.5,
        letter: 'ü',
        text: "text".into(),
        maybe: None,
        unit: (),
        pair: (300, "p".into()),
        set: BTreeSet::from([-70_000, 1]),
        map: BTreeMap::from([(1, vec![shape.clone()])]),
        data: Payload::from(Bytes::from_static(b"data")),
    };
    let leaf = Tree::Pair {
        left: Box::new(Tree::Leaf(1)),
        right: Box::new(Tree::Text("x".into())),
    };
    let tree = Tree::Node(vec![
        leaf.clone(),
        Tree::Boxed(Box::new(Tree::Maybe(None))),
        Tree::Named(BTreeMap::from([("k".into(), leaf)])),
    ]);
    let list = (0..100).fold(None, |next, value| {
        Some(List {
            value,
            next: next.map(Box::new),
        })
    });
    let mut seeds = Vec::new();
    let mut add = |kind: u8, encode: &dyn Fn(&mut BytesMut)| {
        let mut out = BytesMut::from(&[kind][..]);
        encode(&mut out);
        seeds.push(out.to_vec());
    };
    fn put<T: Serialize + Debug>(codec: CodecId, value: &T, out: &mut BytesMut) {
        encode_value(codec, value, out).expect("it has a form in every codec");
    }
    add(0, &|out| put(codec, &everything, out));
    add(1, &|out| put(codec, &tree, out));
    add(2, &|out| put(codec, &list, out));
    add(3, &|out| put(codec, &vec![None, Some(vec!["a"; 3])], out));
    add(4, &|out| {
        put(codec, &BTreeMap::from([("a", tree.clone())]), out)
    });
    add(5, &|out| {
        let numbers = (1u8, -2i16, 3u32, -4i64, u128::MAX, i128::MIN, true, 'x');
        put(codec, &numbers, out);
    });
    add(7, &|out| {
        let payload = Payload::from(Bytes::from_static(b"abc"));
        put(codec, &(payload, Bytes::from_static(b"de"), vec![1u8]), out);
    });
    add(8, &|out| put(codec, &shape, out));
    add(9, &|out| put(codec, &vec![[1u64, 2, 3, u64::MAX]; 2], out));
    add(10, &|out| put(codec, &Ok::<_, String>(tree.clone()), out));
    add(11, &|out| put(codec, &"text \u{1F600}", out));
    // Deeper than any limit.
    let levels = 2000;
    let deep = match codec {
        CodecId::JSON => [
            (1, br#"{"Boxed":"#.repeat(levels / 5)),
            (3, b"[".repeat(levels)),
        ],
        CodecId::MSGPACK => [
            (1, b"\x81\xa5Boxed".repeat(levels / 5)),
            (3, b"\x91".repeat(levels)),
        ],
        _ => [
            (1, b"\x04".repeat(2 * levels)),
            (2, b"\x01".repeat(2 * levels)),
        ],
    };
    for (kind, deep) in deep {
        seeds.push([&[kind][..], &deep].concat());
    }
    seeds
}
