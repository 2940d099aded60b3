//! Tests of recordings that no recorder writes, and of the order of calls.

use bytes::{Bytes, BytesMut};
use iip_rpc::schema::Description;

use super::*;
use crate::capture::{self, Begin, Closed, Message, Moment, Outcome as Kind};

/// Returns the calls of a recording with these records.
fn recording(name: &str, records: impl IntoIterator<Item = Record>) -> Calls {
    let begin = Begin {
        unix_us: 0,
        program: String::new(),
        server: String::new(),
        payloads: true,
    };
    let mut out = BytesMut::new();
    capture::begin(&mut out);
    for record in [Record::Begin(begin)].into_iter().chain(records) {
        capture::encode(&record, &mut out).unwrap();
    }
    let path = std::env::temp_dir().join(format!("iq-calls-{}-{name}", std::process::id()));
    std::fs::write(&path, &out).unwrap();
    let opened = Reader::open(&path);
    std::fs::remove_file(&path).unwrap();
    Calls::new(opened.unwrap().0)
}

fn request(call: u64) -> Record {
    Record::Request(Request {
        call,
        connection: 1,
        path: "/a".to_owned(),
        ..Request::default()
    })
}

fn reply(call: u64) -> Record {
    Record::Reply(Reply {
        call,
        at: 0,
        outcome: Kind::Value,
        codec: 0,
        timing: None,
        metadata: Vec::new(),
        body: Body::default(),
        accepted: false,
        incomplete: false,
    })
}

fn message(call: u64, bytes: usize) -> Record {
    let body = Body {
        size: bytes as u64,
        bytes: Some(Bytes::from(vec![0; bytes])),
        left_out: None,
    };
    Record::Message(Message {
        call,
        at: 0,
        of_client: false,
        body,
    })
}

/// Returns the numbers of all calls in their order, with `true` for those that have a reply.
fn numbers(calls: &mut Calls) -> Vec<(u64, bool)> {
    let mut all = Vec::new();
    while let Some(call) = calls.next().unwrap() {
        all.push((call.request.call, call.reply.is_some()));
    }
    all
}

#[test]
fn calls_come_in_the_order_in_which_they_began() {
    let closed = Record::Closed(Closed {
        connection: 1,
        at: 0,
        unreadable: None,
    });
    let records = [
        request(1),
        request(2),
        reply(2),
        request(3),
        reply(3),
        reply(1),
        request(4),
        closed,
        request(5),
    ];
    let mut calls = recording("order", records);
    let expected = [(1, true), (2, true), (3, true), (4, false), (5, false)];
    assert_eq!(numbers(&mut calls), expected);
    assert!(calls.remark().unwrap().contains("has no end"));
    assert_eq!((calls.open_bytes, calls.ready_bytes), (0, 0));
    assert!(calls.connections.is_empty() && calls.beginnings.is_empty());
}

#[test]
fn a_call_that_takes_long_does_not_hold_up_too_many_others() {
    let others = (2..2 + 2 * MAX_READY as u64).flat_map(|call| [request(call), reply(call)]);
    let mut calls = recording(
        "long",
        [request(1)].into_iter().chain(others).chain([reply(1)]),
    );
    let numbers = numbers(&mut calls);
    assert_eq!(numbers.len(), 1 + 2 * MAX_READY);
    let place = numbers.iter().position(|(call, _)| *call == 1).unwrap();
    assert!(place > MAX_READY / 2, "{place}");
}

#[test]
fn records_of_calls_that_are_not_there_are_skipped() {
    let moment = Moment { call: 7, at: 0 };
    let records = [
        reply(7),
        message(7, 1),
        Record::Cancelled(moment.clone()),
        Record::StreamEnd(moment),
        request(1),
        reply(1),
        reply(1),
    ];
    assert_eq!(numbers(&mut recording("unknown", records)), [(1, true)]);
}

#[test]
fn recordings_that_would_take_too_much_memory_are_refused() {
    let mut twice = recording("twice", [request(1), request(1)]);
    assert!(matches!(twice.next(), Err(Failure::Own(text)) if text.contains("two calls")));
    let services = (0..1025).map(|_| Record::Service(Box::new(Description::new("a"))));
    let mut services = recording("services", services);
    assert!(matches!(services.next(), Err(Failure::Own(text)) if text.contains("1024")));
    // These messages exceed what is kept of one call.
    let messages = (0..9).map(|_| message(1, 8 * 1024 * 1024));
    let stream = [request(1)].into_iter().chain(messages).chain([reply(1)]);
    let call = recording("stream", stream).next().unwrap().unwrap();
    assert!(call.is_too_large && call.messages.len() < 8);
}
