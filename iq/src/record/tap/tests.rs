//! Connections as bytes, split anywhere, and from peers that violate the protocol.

use std::sync::atomic::AtomicBool;

use bytes::BytesMut;
use iip_core::frame::Frame;
use iip_core::frame::FrameStatus::{
    ReplyFirst, ReplyLast, ReplyMore, ReplyOnly, RequestFirst, RequestLast, RequestMore,
    RequestOnly,
};

use super::*;
use crate::capture::{Outcome, Reply, Services};
use crate::output::{Output, OutputArgs};
use crate::record::filter::Filter;
use crate::record::queue::{Drafts, queue};

/// Returns a tap of a recording with payloads, and its records.
fn tap() -> (Tap, Drafts) {
    let (queue, drafts) = queue();
    let recorder = Recorder {
        queue,
        filter: Filter::new(&[], true),
        services: Services::default(),
        build: None,
        is_noted: AtomicBool::new(false),
        output: Output::new(OutputArgs::default()),
    };
    (Tap::new(Arc::new(recorder), None), drafts)
}

fn frame(status: FrameStatus, path: &str, channel: u32, body: &[u8]) -> Vec<u8> {
    let frame = Frame {
        status,
        path: Bytes::copy_from_slice(path.as_bytes()),
        channel: ChannelId(channel),
        body: Bytes::copy_from_slice(body),
    };
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    out.to_vec()
}

/// Returns the stream record with this message.
fn record(message: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(message.len()).unwrap().to_be_bytes().to_vec();
    out.extend_from_slice(message);
    out
}

fn marked(mark: u8, bytes: &[u8]) -> Vec<u8> {
    [&[mark], bytes].concat()
}

/// Returns the messages of a connection with calls of all kinds, with their senders.
fn conversation() -> Vec<(Side, Vec<u8>)> {
    use Side::{Client, Server};

    let hello = br#"{"iip":1,"stream_window":65536}"#;
    let accepted = record(&[0x80, 1]);
    let arguments = record(&[0x80, 1, 7]);
    vec![
        (Client, frame(RequestOnly, "/sys/hello", 0, hello)),
        (
            Server,
            frame(ReplyOnly, "/sys/hello", 0, br#"{"iip":1,"code":0}"#),
        ),
        // Two requests at once on a channel, one of them in several frames.
        (Client, frame(RequestOnly, "/a", 1, &[0x80, 1, 1])),
        (Client, frame(RequestFirst, "/b", 1, &[0x80])),
        (Client, frame(RequestMore, "", 1, &[1])),
        (Client, frame(RequestLast, "", 1, &[2])),
        (Server, frame(ReplyFirst, "/a", 1, &[0x80])),
        (Server, frame(ReplyLast, "/a", 1, &[1, 9])),
        (
            Server,
            frame(ReplyOnly, "/b", 1, &[0x88, 1, 5, 0, 2, b'n', b'o', 0]),
        ),
        // Without an envelope.
        (Client, frame(RequestOnly, "/c?x=1&token=2", 2, b"{}")),
        (
            Server,
            frame(
                ReplyOnly,
                "/c",
                2,
                br#"{"code":102,"message":"handle error"}"#,
            ),
        ),
        // A stream in both directions.
        (
            Client,
            frame(RequestFirst, "/s", 3, &marked(0xF8, &arguments)),
        ),
        (
            Client,
            frame(RequestMore, "", 3, &marked(0xF8, &record(b"x"))),
        ),
        (Server, frame(ReplyFirst, "/s", 3, &marked(0xF8, &accepted))),
        (
            Server,
            frame(ReplyMore, "/s", 3, &marked(0xF8, &record(b"y"))),
        ),
        (
            Server,
            frame(ReplyMore, "/s", 3, &marked(0xF9, &[0, 0, 0, 1])),
        ),
        (
            Client,
            frame(RequestMore, "", 3, &marked(0xFB, &record(b"z"))),
        ),
        (Server, frame(ReplyLast, "/s", 3, &marked(0xFE, &[0x80, 1]))),
        (Client, frame(RequestLast, "", 3, &marked(0xFD, &[]))),
        // A channel for calls without replies, and a cancellation.
        (
            Client,
            frame(RequestFirst, "/sys/control", 4, &[3, 4, 0, 0, 0, 5]),
        ),
        (Client, frame(RequestOnly, "/o", 5, &[0x80, 1, 1])),
        (Client, frame(RequestOnly, "/d", 6, &[0x80, 1, 1])),
        (Client, frame(RequestMore, "", 4, &[1, 4, 0, 0, 0, 6])),
        (Server, frame(ReplyOnly, "/d", 6, &[0x80, 1, 1])),
    ]
}

/// Returns the records, without their times.
fn records(drafts: &Drafts) -> Vec<String> {
    let mut all = Vec::new();
    while let Ok(Some(draft)) = drafts.try_next() {
        let payload = draft.payload.map(|(_, payload)| payload.bytes);
        let payload = payload.unwrap_or_default();
        all.push(match draft.record {
            Record::Opened(_) => "opened".to_owned(),
            Record::Closed(closed) => format!("closed {}", closed.unreadable.is_some()),
            Record::Request(Request {
                call,
                path,
                one_way,
                stream,
                plain,
                ..
            }) => format!("{call} {path} {payload:?} {one_way} {stream} {plain}"),
            Record::Message(Message {
                call, of_client, ..
            }) => format!("{call} message {payload:?} {of_client}"),
            Record::StreamEnd(moment) => format!("{} end", moment.call),
            Record::Cancelled(moment) => format!("{} cancelled", moment.call),
            Record::Reply(Reply { call, outcome, .. }) => match outcome {
                Outcome::Value => format!("{call} value {payload:?}"),
                Outcome::Error => format!("{call} error {payload:?}"),
                Outcome::Status { code, message } => format!("{call} status {code} {message}"),
            },
            other => format!("{other:?}"),
        });
    }
    all
}

#[test]
fn calls_of_all_kinds_are_found_in_whatever_pieces_they_come() {
    let expected = [
        "opened",
        "1 /a b\"\\x01\" false false false",
        "2 /b b\"\\x02\" false false false",
        "1 value b\"\\t\"",
        "2 status 5 no",
        "3 /c?x=1&token=*** b\"{}\" false false true",
        "3 status 12 handle error",
        "4 /s b\"\\x07\" false true false",
        "4 message b\"x\" true",
        "4 message b\"y\" false",
        "4 message b\"z\" true",
        "4 end",
        "4 value b\"\"",
        "5 /o b\"\\x01\" true false false",
        "6 /d b\"\\x01\" false false false",
        "6 cancelled",
        "6 value b\"\\x01\"",
        "closed false",
    ];
    for piece in [1, 2, 3, 7, 1000] {
        let (mut tap, drafts) = tap();
        for (from, bytes) in conversation() {
            for piece in bytes.chunks(piece) {
                tap.take(from, piece).unwrap();
            }
        }
        tap.close(None);
        assert_eq!(records(&drafts), expected, "{piece}");
        let shared = Arc::clone(&drafts.shared);
        drop(tap);
        assert_eq!(shared.held.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn bytes_that_break_the_rules_end_the_recording_of_a_connection_without_a_panic() {
    // Each byte of each message is changed, one at a time.
    for (number, (_, bytes)) in conversation().iter().enumerate() {
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let (mut tap, drafts) = tap();
                let mut whole = conversation();
                whole[number].1[at] ^= flip;
                let mut taken = Ok(());
                for (from, bytes) in &whole {
                    if taken.is_ok() {
                        taken = tap.take(*from, bytes);
                    }
                }
                tap.close(taken.err());
                assert!(records(&drafts).len() >= 2);
            }
        }
    }
}

#[test]
fn replies_without_requests_and_requests_within_others_are_noticed() {
    for (from, bytes) in [
        (Side::Server, frame(ReplyOnly, "/a", 1, b"x")),
        (Side::Client, frame(RequestMore, "/a", 1, b"x")),
        (Side::Client, frame(ReplyOnly, "/a", 1, b"x")),
        (Side::Client, b"GET / HTTP/1.1\r\n".to_vec()),
    ] {
        let (mut tap, _drafts) = tap();
        tap.take(from, &bytes).unwrap_err();
    }
    let (mut tap, _drafts) = tap();
    let request = frame(RequestFirst, "/a", 1, b"x");
    tap.take(Side::Client, &request).unwrap();
    tap.take(Side::Client, &request).unwrap_err();
}

#[test]
fn requests_that_wait_and_messages_that_grow_are_bounded() {
    let (mut tap, drafts) = tap();
    let request = frame(RequestOnly, "/a", 1, b"x");
    let mut taken = Ok(());
    for _ in 0..=MAX_WAITING {
        taken = tap.take(Side::Client, &request);
        // The queue is emptied at once.
        while let Ok(Some(_)) = drafts.try_next() {}
    }
    assert!(taken.unwrap_err().contains("wait for replies"));
    // Many channels, each with a message that never ends.
    let (mut tap, _drafts) = self::tap();
    let chunk = vec![b'x'; 8 * 1024 * 1024];
    let mut taken = Ok(());
    for channel in 1..100 {
        taken = tap.take(Side::Client, &frame(RequestFirst, "/a", channel, &chunk));
        if taken.is_err() {
            break;
        }
    }
    assert!(taken.unwrap_err().contains("hold more than"));
}
