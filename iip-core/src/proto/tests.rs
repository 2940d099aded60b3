//! The machine alone and in pairs: no socket, no task, a clock that is turned by hand.

mod round_trip;
mod streams;

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

use super::channel::MAX_GRANTED;
use super::control::{ControlMessage, Hello};
use super::fuzz::calls::CallStep;
use super::fuzz::{self, End, Model, Operation, pattern, small_limits};
use super::{ClientEvent, Connection, ServerEvent, StreamFrame};
use crate::body::Body;
use crate::decoder::{Decoder, Partial};
use crate::error::{CallErrorKind, ConnectionError, ProtocolError};
use crate::frame::{ChannelId, Frame, FrameStatus, Side};
use crate::limits::Limits;
use crate::proto::slots::CallId;

const SECOND: Duration = Duration::from_secs(1);

// ---- what the tests are written with

/// The bytes of one frame, whatever its fields say.
fn frame(status: u8, path: &str, channel: u32, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::from(&[status][..]);
    out.extend_from_slice(path.as_bytes());
    out.extend_from_slice(&[0]);
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(body);
    out
}

/// Data as text if it is short.
fn text(bytes: &[u8]) -> String {
    if bytes.len() > 60 {
        format!("{} bytes", bytes.len())
    } else {
        String::from_utf8_lossy(bytes).into_owned()
    }
}

/// A server's event in one line.
fn server_line(event: ServerEvent) -> String {
    match event {
        ServerEvent::Request {
            channel,
            path,
            body,
            ..
        } => format!("{channel} {} {}", text(&path.label), text(&body)),
        ServerEvent::RequestBegun { channel, path, .. } => {
            format!("{channel} {} begun", text(&path.label))
        }
        ServerEvent::RequestPart {
            channel,
            body,
            ends,
        } => format!(
            "{channel} {} {}",
            if ends { "last part" } else { "part" },
            text(&body)
        ),
        ServerEvent::RequestTooLarge { channel, path, .. } => {
            format!("{channel} {} too large", text(&path.label))
        }
        ServerEvent::StreamBegun { channel, path, .. } => {
            format!("{channel} {} stream", text(&path.label))
        }
        ServerEvent::Stream { channel, frame } => stream_line(&channel.to_string(), frame),
        ServerEvent::Cancelled { channel } => format!("{channel} cancelled"),
        ServerEvent::PeerHello(_) => "hello true".to_owned(),
    }
}

/// A client's event in one line.
fn client_line(event: ClientEvent) -> String {
    match event {
        ClientEvent::Stream { call, frame } => stream_line(&format!("call {}", call.slot()), frame),
        ClientEvent::Reply { call, result } => match result {
            Ok(body) => format!("call {} {}", call.slot(), text(&body)),
            Err(CallErrorKind::MessageTooLarge { .. }) => {
                format!("call {} too large", call.slot())
            }
            Err(error) => format!("call {} {error}", call.slot()),
        },
        ClientEvent::ReplyPart { call, body } => {
            format!("call {} part {}", call.slot(), text(&body))
        }
        ClientEvent::Swallowed { channel } => format!("{channel} swallowed"),
        ClientEvent::ChannelOpened(id) => format!("{id} opened"),
        ClientEvent::ChannelRejected { code, message } => format!("refused {code} {message}"),
        ClientEvent::GoingAway => "going away".to_owned(),
        ClientEvent::PeerHello(hello) => format!("hello {}", hello.is_some()),
    }
}

fn stream_line(who: &str, frame: StreamFrame) -> String {
    match frame {
        StreamFrame::Data(data) => format!("{who} data {}", text(&data)),
        StreamFrame::WindowUpdate(bytes) => format!("{who} grant {bytes}"),
        StreamFrame::Blocked => format!("{who} starved"),
        StreamFrame::End => format!("{who} end"),
    }
}

impl End {
    fn of(side: Side) -> Self {
        Self::new(side, Limits::default(), Instant::now())
    }

    /// Reads bytes that the protocol allows.
    fn read(&mut self, bytes: &[u8]) -> &mut Self {
        let now = Instant::now();
        self.feed(now, bytes).expect("the protocol allows it");
        self
    }

    /// The reason why these bytes end the connection.
    fn refusal(&mut self, bytes: &[u8]) -> ProtocolError {
        match self.feed(Instant::now(), bytes) {
            Err(ConnectionError::Protocol(error)) => error,
            result => panic!("not refused: {result:?}"),
        }
    }

    fn events(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(event) = self.machine.poll_client_event() {
            lines.push(client_line(event));
        }
        while let Some(event) = self.machine.poll_server_event() {
            lines.push(server_line(event));
        }
        lines
    }

    /// Returns the written frames, a line for each: status, path, channel, data.
    fn written(&mut self) -> Vec<String> {
        let reader = match self.machine.side {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        };
        let mut decoder = Decoder::new(reader, &Limits::default());
        decoder.feed(&self.write(Instant::now()));
        let frames = std::iter::from_fn(|| decoder.next_frame().expect("it writes frames"));
        frames.map(|frame| frame_line(&frame)).collect()
    }

    fn answer(&mut self, channel: u32, body: &'static str) {
        assert!(self.reply(ChannelId(channel), body, true));
    }
}

fn frame_line(frame: &Frame) -> String {
    let body = if frame.body.len() > 60 {
        format!("{} bytes", frame.body.len())
    } else {
        String::from_utf8_lossy(&frame.body).into_owned()
    };
    let path = String::from_utf8_lossy(&frame.path);
    let line = format!("{} {path} {} {body}", frame.status as u8, frame.channel);
    line.trim_end().to_owned()
}

/// A server whose client has asked for so many channels.
fn server_with_channels(count: u32, limits: Limits) -> End {
    let mut server = End::new(Side::Server, limits, Instant::now());
    for _ in 0..count {
        server.read(&frame(1, "/sys/new_channel", 0, b"{}"));
    }
    assert_eq!(server.written().len(), count as usize);
    server
}

/// A client that was granted channels 1 to `count`.
fn client_with_channels(count: u32, limits: Limits) -> End {
    let mut client = End::new(Side::Client, limits, Instant::now());
    for id in 1..=count {
        client.machine.open_channel();
        let grant = format!("{{\"code\":0,\"channel_id\":{id}}}");
        client.read(&frame(5, "/sys/new_channel", 0, grant.as_bytes()));
        assert_eq!(client.events(), [format!("{id} opened")]);
    }
    client.written();
    client
}

fn call(client: &mut End, channel: u32, path: &str, body: impl Into<Bytes>, token: usize) {
    let body: Bytes = body.into();
    client.start_call(ChannelId(channel), path.as_bytes(), body, token, false);
}

/// A client and a server with a wire that cuts the bytes where chance wants it.
struct Pair {
    client: End,
    server: End,
    random: fastrand::Rng,
}

impl Pair {
    fn new(limits: &Limits, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            client: End::new(Side::Client, limits.clone(), now),
            server: End::new(Side::Server, limits.clone(), now),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// A pair that knows each other, with channels 2 to `count + 1`; channel 1 is that of the
    /// control stream.
    fn acquainted(limits: &Limits, seed: u64, count: usize) -> Self {
        let mut pair = Self::new(limits, seed);
        pair.client.machine.say_hello();
        pair.run();
        for _ in 0..count {
            pair.client.machine.open_channel();
        }
        pair.run();
        assert_eq!(pair.server.events(), ["hello true"]);
        assert_eq!(pair.client.events().len(), 1 + count);
        pair
    }

    /// Carries bytes both ways until nothing moves.
    fn run(&mut self) {
        let now = Instant::now();
        loop {
            let request = self.client.write(now);
            let reply = self.server.write(now);
            if request.is_empty() && reply.is_empty() {
                return;
            }
            for (end, mut bytes) in [
                (&mut self.server, &request[..]),
                (&mut self.client, &reply[..]),
            ] {
                while !bytes.is_empty() {
                    let most = if self.random.bool() { 12 } else { 3000 };
                    let (piece, rest) =
                        bytes.split_at(self.random.usize(1..=most).min(bytes.len()));
                    end.feed(now, piece).expect("both keep to the protocol");
                    bytes = rest;
                }
            }
        }
    }

    /// Nothing is left of all the calls on either side.
    fn assert_rests(&mut self) {
        self.run();
        for end in [&self.client, &self.server] {
            assert_eq!(end.machine.buffered, 0);
            assert!(end.machine.is_at_rest());
        }
        assert_eq!(self.server.machine.server.open_calls, 0);
        let kept = usize::from(self.client.machine.control.is_some());
        assert_eq!(self.server.channels_in_use(), kept);
    }
}

// ---- the order of statuses

/// Frames that bring a channel into the state "`last` was received", then `next`; is that allowed?
fn allows(side: Side, last: Option<u8>, next: u8) -> bool {
    let mut end = match side {
        Side::Server => server_with_channels(1, Limits::default()),
        Side::Client => {
            let mut client = client_with_channels(1, Limits::default());
            for token in 0..4 {
                call(&mut client, 1, "/p", "x", token);
            }
            client
        }
    };
    let first = match side {
        Side::Server => 0,
        Side::Client => 4,
    };
    let lead_in: &[u8] = match last.map(|last| last - first) {
        None => &[],
        Some(0) => &[0],
        Some(1) => &[1],
        Some(2) => &[0, 2],
        Some(3) => &[0, 3],
        Some(_) => panic!("no such state"),
    };
    for status in lead_in {
        end.read(&frame(first + status, "/p", 1, b"x"));
    }
    let whole = end
        .feed(Instant::now(), &frame(next, "/p", 1, b"x"))
        .is_ok();
    // The decision falls with the head, before a body has come.
    let mut head_only = match side {
        Side::Server => server_with_channels(1, Limits::default()),
        Side::Client => {
            let mut client = client_with_channels(1, Limits::default());
            (0..4).for_each(|token| call(&mut client, 1, "/p", "x", token));
            client
        }
    };
    for status in lead_in {
        head_only.read(&frame(first + status, "/p", 1, b"x"));
    }
    let head = &frame(next, "/p", 1, b"x")[..8];
    assert_eq!(
        head_only.feed(Instant::now(), head).is_ok(),
        whole,
        "head only"
    );
    whole
}

#[test]
fn the_transition_tables_of_both_sides_are_those_of_the_protocol() {
    for (side, first) in [(Side::Server, 0_u8), (Side::Client, 4)] {
        for last in [None, Some(0), Some(1), Some(2), Some(3)] {
            for next in 0..=255_u8 {
                let relative = next.wrapping_sub(first);
                let expected = match last {
                    // Between two messages.
                    None | Some(1 | 3) => matches!(relative, 0 | 1),
                    // Within one.
                    _ => matches!(relative, 2 | 3),
                };
                let last = last.map(|last| last + first);
                assert_eq!(
                    allows(side, last, next),
                    expected,
                    "{side:?}: {last:?} then {next}"
                );
            }
        }
    }
}

#[test]
fn the_tables_hold_per_channel() {
    let mut server = server_with_channels(2, Limits::default());
    server
        .read(&frame(0, "/a", 1, b"a"))
        .read(&frame(1, "/b", 2, b"b"))
        .read(&frame(0, "/c", 0, b"c"))
        .read(&frame(3, "", 1, b"A"));
    assert_eq!(
        server.events(),
        ["1 /a begun", "2 /b b", "0 /c begun", "1 /a aA"]
    );
    assert_eq!(
        server.refusal(&frame(2, "", 2, b"x")),
        ProtocolError::StatusOrder {
            channel: ChannelId(2),
            status: FrameStatus::RequestMore
        }
    );
}

#[test]
fn status_8_ends_the_connection_after_what_came_before_it() {
    let mut server = End::of(Side::Server);
    let mut bytes = frame(1, "/a", 0, b"x");
    bytes.extend_from_slice(&[8]);
    bytes.extend_from_slice(&frame(1, "/b", 0, b"y"));
    assert!(matches!(
        server.feed(Instant::now(), &bytes),
        Err(ConnectionError::Ended)
    ));
    assert_eq!(server.events(), ["0 /a x"]);
}

// ---- rules of a server with Go clients, section 4.5

#[test]
fn s1_every_id_up_to_the_number_of_grants_is_valid_for_ever() {
    let mut server = server_with_channels(3, Limits::default());
    for id in [3, 1, 0, 2, 1] {
        server.read(&frame(1, "/sys/delete_channel", id, b"{}"));
        server.read(&frame(1, "/echo", id, b"x"));
        assert_eq!(server.events(), [format!("{id} /echo x")]);
        server.answer(id, "y");
    }
    assert_eq!(
        server.refusal(&frame(1, "/echo", 4, b"x")),
        ProtocolError::UnknownChannel(ChannelId(4))
    );
}

#[test]
fn s2_a_grant_is_the_next_number_also_after_deletions_and_on_any_channel() {
    let mut server = End::of(Side::Server);
    server.read(&frame(1, "/sys/new_channel", 0, b"whatever"));
    server.read(&frame(1, "/sys/delete_channel", 1, b"{}"));
    server.read(&frame(1, "/sys/new_channel", 1, b"{}"));
    assert_eq!(
        server.written(),
        [
            r#"5 /sys/new_channel 0 {"code":0,"channel_id":1}"#,
            r#"5 /sys/delete_channel 1 {"code":0}"#,
            r#"5 /sys/new_channel 1 {"code":0,"channel_id":2}"#,
        ]
    );
}

#[test]
fn s3_channels_in_use_are_bounded_and_grants_are_not() {
    let limits = Limits::default().max_channels(4);
    let mut server = server_with_channels(100, limits);
    for id in 1..=5 {
        server.read(&frame(1, "/slow", id, b"x"));
    }
    server.read(&frame(1, "/sys/new_channel", 0, b"{}"));
    assert_eq!(
        server.written(),
        [r#"5 /sys/new_channel 0 {"code":106,"message":"channel create limited"}"#]
    );
    server.answer(2, "y");
    server.written();
    server.read(&frame(1, "/sys/new_channel", 0, b"{}"));
    assert_eq!(
        server.written(),
        [r#"5 /sys/new_channel 0 {"code":0,"channel_id":101}"#]
    );
}

#[test]
fn s3_unfinished_requests_on_too_many_channels_end_the_connection() {
    let mut server = server_with_channels(9, Limits::default().max_channels(4));
    let refused = (1..=9).find_map(|id| {
        let result = server.feed(Instant::now(), &frame(0, "/a", id, b"x"));
        Some((id, result.err()?))
    });
    let (id, error) = refused.expect("there is a limit");
    // The control stream has one more.
    assert!(id <= 6, "{id}");
    let ConnectionError::Protocol(error) = error else {
        panic!("{error}");
    };
    assert_eq!(error, ProtocolError::TooManyChannels { limit: 4 });
}

#[test]
fn s3_a_client_may_use_all_its_channels_at_a_time_beside_the_control_stream() {
    let limits = small_limits().max_channels(4).max_calls(100);
    let mut pair = Pair::acquainted(&limits, 4, 4);
    for channel in 2..=5 {
        call(
            &mut pair.client,
            channel,
            "/a",
            vec![1; 3000],
            channel as usize,
        );
        pair.run();
        assert_eq!(
            pair.server.events(),
            [
                format!("{channel} /a begun"),
                format!("{channel} /a 3000 bytes")
            ]
        );
    }
    for channel in 2..=5 {
        pair.server.answer(channel, "y");
    }
    pair.run();
    assert_eq!(pair.client.events().len(), 4);
    pair.assert_rests();
}

#[test]
fn s3_a_channel_that_was_used_leaves_nothing_even_while_others_are_busy() {
    let mut server = server_with_channels(100, Limits::default().max_channels(4));
    server.read(&frame(1, "/slow", 0, b"x"));
    for id in 1..=100 {
        server.read(&frame(1, "/a", id, b"x"));
        server.answer(id, "y");
    }
    let kept = server.machine.channels.len();
    assert!(kept <= 8, "{kept} channels are kept");
}

#[test]
fn s4_a_grant_is_given_without_asking_anyone() {
    let mut server = End::of(Side::Server);
    server.read(&frame(1, "/sys/new_channel", 0, b"{}"));
    assert_eq!(server.events(), [""; 0]);
    assert!(server.machine.has_output());
}

#[test]
fn s5_a_deletion_is_answered_behind_every_earlier_answer_of_its_channel() {
    let mut server = server_with_channels(1, Limits::default());
    server.read(&frame(1, "/slow", 1, b"x"));
    server.read(&frame(1, "/sys/delete_channel", 1, b"{}"));
    assert_eq!(server.written(), [""; 0]);
    server.answer(1, "y");
    assert_eq!(
        server.written(),
        ["5 /slow 1 y", r#"5 /sys/delete_channel 1 {"code":0}"#]
    );
    assert_eq!(server.channels_in_use(), 0, "its state is gone");
}

#[test]
fn s6_channel_0_survives_its_deletion() {
    let mut server = End::of(Side::Server);
    server.read(&frame(1, "/sys/delete_channel", 0, b"{}"));
    server.read(&frame(1, "/sys/new_channel", 0, b"{}"));
    assert_eq!(
        server.written(),
        [
            r#"5 /sys/delete_channel 0 {"code":0}"#,
            r#"5 /sys/new_channel 0 {"code":0,"channel_id":1}"#
        ]
    );
}

#[test]
fn s7_a_go_client_may_use_an_id_again_while_its_old_call_runs() {
    let mut server = server_with_channels(2, Limits::default());
    server.read(&frame(1, "/old", 1, b"x"));
    server.read(&frame(1, "/new", 1, b"x"));
    assert_eq!(server.events(), ["1 /old x"]);
    server.answer(1, "OLD");
    assert_eq!(server.events(), ["1 /new x"]);
    server.answer(1, "NEW");
    assert_eq!(server.written(), ["5 /old 1 OLD", "5 /new 1 NEW"]);
}

#[test]
fn reserved_requests_in_several_frames_are_answered_once() {
    let mut server = End::of(Side::Server);
    server
        .read(&frame(0, "/sys/new_channel", 0, b"{"))
        .read(&frame(3, "/other", 0, b"}"));
    assert_eq!(
        server.written(),
        [r#"5 /sys/new_channel 0 {"code":0,"channel_id":1}"#]
    );
}

// ---- rules of a client with a Go server, section 4.6

#[test]
fn c1_a_client_uses_the_id_of_the_answer_and_may_ask_for_several_at_once() {
    let mut client = End::of(Side::Client);
    (0..3).for_each(|_| client.machine.open_channel());
    assert_eq!(client.written(), ["1 /sys/new_channel 0 {}"; 3]);
    client
        .read(&frame(
            5,
            "/sys/new_channel",
            0,
            br#"{"channel_id":501,"code":0,"more":[]}"#,
        ))
        .read(&frame(
            5,
            "/sys/new_channel",
            0,
            br#"{"code":106,"message":"channel create limited"}"#,
        ))
        .read(&frame(
            5,
            "/sys/new_channel",
            0,
            br#"{"code":0,"message":"m","channel_id":7}"#,
        ));
    assert_eq!(
        client.events(),
        [
            "501 opened",
            "refused 106 channel create limited",
            "7 opened"
        ]
    );
    call(&mut client, 501, "/a", "x", 1);
    assert_eq!(client.written(), ["1 /a 501 x"]);
}

#[test]
fn a_grant_that_cannot_be_one_ends_the_connection() {
    for answer in [
        &br#"{"code":0}"#[..],
        br#"{"code":0,"channel_id":0}"#,
        br#"{"code":0,"channel_id":4294967296}"#,
        br#"{"code":0,"channel_id":-1}"#,
        br#"{"code":0,"channel_id":1}"#,
        br#"{"channel_id":9}"#,
        b"no json",
        b"[]",
    ] {
        let mut client = client_with_channels(1, Limits::default());
        client.machine.open_channel();
        let error = client.refusal(&frame(5, "/sys/new_channel", 0, answer));
        assert!(
            matches!(error, ProtocolError::BadControl { .. }),
            "{error:?}"
        );
    }
}

#[test]
fn c2_a_reply_on_a_channel_that_was_not_granted_ends_the_connection() {
    let mut client = client_with_channels(2, Limits::default());
    call(&mut client, 1, "/a", "x", 1);
    assert_eq!(
        client.refusal(&frame(5, "/a", 3, b"y")),
        ProtocolError::UnknownChannel(ChannelId(3))
    );
}

#[test]
fn c3_a_client_never_deletes_channels() {
    let mut pair = Pair::acquainted(&Limits::default(), 3, 2);
    for token in 0..4 {
        call(&mut pair.client, 2, "/a", "x", token);
        pair.client.machine.abandon(ChannelId(2), CallId::of(token));
        let written = pair.client.written();
        assert!(
            written.iter().all(|frame| !frame.contains("delete")),
            "{written:?}"
        );
    }
}

#[test]
fn c4_the_answer_of_an_abandoned_call_is_swallowed_before_the_channel_is_free() {
    let mut client = client_with_channels(1, Limits::default());
    call(&mut client, 1, "/a", "1", 1);
    call(&mut client, 1, "/a", "2", 2);
    client.machine.abandon(ChannelId(1), CallId::of(1));
    assert_eq!(client.events(), [""; 0], "not before the answer");
    assert!(client.machine.awaits_reply(ChannelId(1)));
    client.read(&frame(5, "/a", 1, b"first"));
    client.read(&frame(5, "/a", 1, b"second"));
    assert_eq!(client.events(), ["1 swallowed", "call 2 second"]);
    assert!(!client.machine.awaits_reply(ChannelId(1)));
}

#[test]
fn an_answer_that_has_begun_when_its_caller_goes_is_swallowed_to_its_end() {
    for streaming in [false, true] {
        let mut client = client_with_channels(1, Limits::default());
        client.start_call(ChannelId(1), b"/a", "x", 1, streaming);
        client.read(&frame(4, "/a", 1, b"a"));
        client.events();
        client.machine.abandon(ChannelId(1), CallId::of(1));
        assert_eq!(client.machine.buffered, 0, "its data is not kept");
        client.read(&frame(6, "/a", 1, b"b"));
        assert_eq!(client.events(), [""; 0]);
        client.read(&frame(7, "/a", 1, b"c"));
        assert_eq!(client.events(), ["1 swallowed"]);
        assert_eq!(client.machine.buffered, 0);
    }
}

#[test]
fn an_answer_too_many_ends_the_connection_before_the_next_call_takes_it() {
    let limits = Limits::default().max_message_bytes(4);
    for begins in [4, 5] {
        for mode in [super::Mode::Whole, super::Mode::Parts, super::Mode::Stream] {
            let mut client = client_with_channels(1, limits.clone());
            call(&mut client, 1, "/mine", "x", 1);
            client.read(&frame(5, "/mine", 1, b"y"));
            let mut body = Body::from("z");
            client
                .machine
                .start_call(ChannelId(1), b"/yours", &mut body, CallId::of(2), mode);
            // Before the request for it was read.
            assert_eq!(
                client.refusal(&frame(begins, "/mine", 1, b"again")),
                ProtocolError::WrongPath {
                    channel: ChannelId(1),
                    sent: "/yours".to_owned(),
                    replied: "/mine".to_owned(),
                }
            );
            assert_eq!(client.events(), ["call 1 y"]);
        }
    }
}

#[test]
fn an_answer_may_repeat_the_path_or_carry_its_label() {
    for (sent, answered) in [
        ("/a", "/a"),
        ("/a?x=1", "/a"),
        ("/a?x=1", "/a?x=1"),
        ("/%61?x=%20", "/a"),
        ("/%61", "/%61"),
        ("/a#part", "/a"),
        ("//host/a", "/a"),
        ("http://host/a?x=1", "/a"),
        ("/a%zz?x", "/a%zz?x"),
        ("a", "a"),
        // What has no label that can be sent.
        ("?x=1", "/"),
    ] {
        let mut client = client_with_channels(1, Limits::default());
        call(&mut client, 1, sent, "x", 1);
        client.read(&frame(5, answered, 1, b"y"));
        assert_eq!(client.events(), ["call 1 y"], "{sent} as {answered}");
    }
    for (sent, answered) in [
        ("/a", ""),
        ("/a", "/"),
        ("/a", "/A"),
        ("/a", "/a/"),
        ("/a?x=1", "/a?x=2"),
        ("/a", "/a?x=1"),
        ("?x=1", ""),
    ] {
        let mut client = client_with_channels(1, Limits::default());
        call(&mut client, 1, sent, "x", 1);
        let error = client.refusal(&frame(5, answered, 1, b"y"));
        let wrong = matches!(error, ProtocolError::WrongPath { .. });
        assert!(wrong, "{sent} as {answered}: {error}");
    }
}

#[test]
fn only_the_first_frame_of_an_answer_has_to_name_its_request() {
    let mut client = client_with_channels(1, Limits::default());
    call(&mut client, 1, "/a", "x", 1);
    client.read(&frame(4, "/a", 1, b"1"));
    client.read(&frame(6, "", 1, b"2"));
    client.read(&frame(7, "/else", 1, b"3"));
    assert_eq!(client.events(), ["call 1 123"]);
}

#[test]
fn pipelined_calls_of_any_length_keep_their_paths_in_order() {
    let mut client = client_with_channels(1, Limits::default());
    let path = |call: usize| format!("/{}", "p".repeat(call * 37 % 900));
    let mut sent = 0;
    for answered in 0..200 {
        // More wait than are answered, until the end.
        while sent < (answered * 2 + 1).min(200) {
            call(&mut client, 1, &path(sent), "x", sent);
            sent += 1;
        }
        client.read(&frame(5, &path(answered), 1, b"y"));
        assert_eq!(client.events(), [format!("call {answered} y")]);
        client.written();
    }
}

#[test]
fn an_answer_to_an_exchange_of_the_protocol_names_it() {
    let mut client = End::of(Side::Client);
    client.machine.say_hello();
    client.machine.open_channel();
    let error = client.refusal(&frame(5, "/sys/new_channel", 0, b"{}"));
    assert!(matches!(error, ProtocolError::WrongPath { .. }), "{error}");
}

#[test]
fn an_answer_nobody_asked_for_ends_the_connection() {
    let mut client = client_with_channels(1, Limits::default());
    call(&mut client, 1, "/a", "x", 1);
    client.read(&frame(5, "/a", 1, b"y"));
    assert_eq!(
        client.refusal(&frame(5, "/a", 1, b"z")),
        ProtocolError::Unsolicited(ChannelId(1))
    );
    assert_eq!(client.events(), ["call 1 y"]);
}

// ---- order

#[test]
fn requests_of_one_channel_are_shown_one_at_a_time_in_their_order() {
    let mut server = server_with_channels(2, Limits::default());
    for (id, body) in [(1, b"a"), (1, b"b"), (2, b"c"), (1, b"d")] {
        server.read(&frame(1, "/p", id, body));
    }
    assert_eq!(server.events(), ["1 /p a", "2 /p c"]);
    server.answer(1, "A");
    assert_eq!(server.events(), ["1 /p b"]);
    server.answer(2, "C");
    server.answer(1, "B");
    assert_eq!(server.events(), ["1 /p d"]);
    server.answer(1, "D");
    assert!(!server.reply(ChannelId(1), "E", true), "no request");
    assert_eq!(
        server.written(),
        ["5 /p 1 A", "5 /p 2 C", "5 /p 1 B", "5 /p 1 D"]
    );
    assert_eq!(server.channels_in_use(), 0);
}

#[test]
fn pipelined_calls_get_their_answers_in_order_whatever_the_cuts() {
    for seed in 0..20 {
        let mut pair = Pair::new(&Limits::default(), seed);
        (0..3).for_each(|_| pair.client.machine.open_channel());
        pair.run();
        for token in 0..30 {
            let channel = u32::try_from(token % 4).unwrap();
            call(&mut pair.client, channel, "/p", format!("{token}"), token);
        }
        pair.run();
        let mut answered = 0;
        while let Some(event) = pair.server.machine.poll_server_event() {
            let ServerEvent::Request { channel, body, .. } = event else {
                panic!("{event:?}");
            };
            assert!(pair.server.reply(channel, body, true));
            answered += 1;
        }
        assert_eq!(answered, 30);
        pair.run();
        let mut events = pair.client.events();
        assert_eq!(events.drain(..3).collect::<Vec<_>>().len(), 3);
        events.sort_by_key(|event| {
            event
                .split(' ')
                .next_back()
                .unwrap()
                .parse::<u32>()
                .unwrap()
        });
        let expected: Vec<String> = (0..30)
            .map(|token| format!("call {token} {token}"))
            .collect();
        assert_eq!(events, expected);
        pair.assert_rests();
    }
}

#[test]
fn messages_in_several_frames_interleave_across_channels_in_both_directions() {
    let mut server = server_with_channels(2, Limits::default());
    server
        .read(&frame(0, "/a?q=1", 1, b"a"))
        .read(&frame(0, "/b", 2, b"b"))
        .read(&frame(2, "/ignored", 1, b"a"))
        .read(&frame(3, "", 2, b"B"))
        .read(&frame(3, "/ignored", 1, b"A"));
    assert_eq!(
        server.events(),
        ["1 /a begun", "2 /b begun", "2 /b bB", "1 /a aaA"]
    );
    for (id, body, ends) in [
        (1, "x", false),
        (2, "y", true),
        (1, "z", false),
        (1, "Z", true),
    ] {
        assert!(server.reply(ChannelId(id), body, ends));
    }
    // The first frame's decoded path labels the answer.
    let written = server.written();
    assert_eq!(written, ["4 /a 1 x", "5 /b 2 y", "6 /a 1 z", "7 /a 1 Z"]);

    let mut client = client_with_channels(2, Limits::default());
    call(&mut client, 1, "/a", "1", 1);
    call(&mut client, 2, "/b", "2", 2);
    client
        .read(&frame(4, "/a", 1, b"x"))
        .read(&frame(5, "/b", 2, b"y"))
        .read(&frame(6, "/a", 1, b"z"))
        .read(&frame(7, "/a", 1, b"Z"));
    assert_eq!(client.events(), ["call 2 y", "call 1 xzZ"]);
}

#[test]
fn a_request_in_frames_waits_for_the_one_before_it_and_begins_in_its_turn() {
    let mut server = End::of(Side::Server);
    server.read(&frame(1, "/a", 0, b"x"));
    server.read(&frame(0, "/b", 0, b"y"));
    assert_eq!(server.events(), ["0 /a x"]);
    server.answer(0, "X");
    assert_eq!(server.events(), ["0 /b begun"]);
    server.machine.stream_request(ChannelId::ZERO);
    server.read(&frame(3, "", 0, b"z"));
    assert_eq!(server.events(), ["0 part y", "0 last part z"]);
    server.answer(0, "Y");
    assert_eq!(server.written(), ["5 /a 0 X", "5 /b 0 Y"]);
    assert_eq!((server.machine.buffered, server.channels_in_use()), (0, 0));
}

#[test]
fn a_streamed_answer_hands_on_every_part_and_keeps_nothing() {
    let mut client = client_with_channels(0, Limits::default().max_message_bytes(2));
    client.start_call(ChannelId::ZERO, b"/a", "x", 1, true);
    for (status, body) in [(4, b"ab"), (6, b"cd"), (7, b"ef")] {
        client.read(&frame(status, "/a", 0, body));
        assert_eq!(client.machine.buffered, 0);
    }
    let events = client.events();
    assert_eq!(events, ["call 1 part ab", "call 1 part cd", "call 1 ef"]);
}

#[test]
fn a_request_that_is_answered_before_its_end_is_skipped_to_its_end() {
    let mut server = End::of(Side::Server);
    server.read(&frame(0, "/a", 0, b"x"));
    assert!(
        !server.reply(ChannelId::ZERO, "A", true),
        "no handler has it"
    );
    assert!(server.machine.stream_request(ChannelId::ZERO));
    assert_eq!(server.events(), ["0 /a begun", "0 part x"]);
    server.answer(0, "enough");
    assert_eq!(
        (server.machine.buffered, server.machine.server.open_calls),
        (0, 0)
    );
    server.read(&frame(2, "", 0, b"y"));
    server.read(&frame(3, "", 0, b"z"));
    assert_eq!(server.events(), [""; 0]);
    server.read(&frame(1, "/b", 0, b"next"));
    assert_eq!(server.events(), ["0 /b next"]);
    server.answer(0, "B");
    assert_eq!(server.written(), ["5 /a 0 enough", "5 /b 0 B"]);
    assert_eq!((server.machine.buffered, server.channels_in_use()), (0, 0));
}

#[test]
fn a_part_of_an_answer_without_an_open_request_changes_nothing() {
    let mut server = End::of(Side::Server);
    server.read(&frame(1, "/a", 0, b"x"));
    server.read(&frame(0, "/b", 0, b"y"));
    server.answer(0, "A");
    assert!(server.machine.stream_request(ChannelId::ZERO));
    server.answer(0, "B");
    // The rest of /b is still to come: the channel has state, but no open request.
    assert!(!server.reply(ChannelId::ZERO, "late", false));
    server.read(&frame(3, "", 0, b"z"));
    server.read(&frame(1, "/c", 0, b"x"));
    server.answer(0, "C");
    assert_eq!(server.written(), ["5 /a 0 A", "5 /b 0 B", "5 /c 0 C"]);
}

#[test]
fn any_number_of_the_protocols_own_requests_may_wait_behind_a_call() {
    let mut server = End::of(Side::Server);
    server.read(&frame(1, "/slow", 0, b"x"));
    let reserved = frame(1, "/sys/delete_channel", 0, b"{}").freeze();
    for _ in 0..100_000 {
        server
            .machine
            .handle_frame(frame_of(&reserved).borrowed())
            .unwrap();
    }
    server.answer(0, "y");
    assert_eq!(server.written().len(), 100_001);
    assert_eq!(server.channels_in_use(), 0);
}

/// The frame that these bytes are.
fn frame_of(bytes: &[u8]) -> Frame {
    let mut decoder = Decoder::new(Side::Server, &Limits::default());
    decoder.feed(bytes);
    decoder.next_frame().unwrap().unwrap()
}

// ---- labels

#[test]
fn a_path_that_cannot_label_an_answer_is_answered_102_under_a_safe_label() {
    for path in ["", "?a=1", "/a%00b"] {
        let mut server = End::of(Side::Server);
        server.read(&frame(1, path, 0, b"x"));
        server.read(&frame(0, path, 0, b"x"));
        server.read(&frame(3, path, 0, b"x"));
        assert_eq!(server.events(), [""; 0]);
        let answer = r#"5 / 0 {"code":102,"message":"handle error"}"#;
        assert_eq!(server.written(), [answer; 2], "path {path:?}");
    }
}

/// A request over the limit, in two frames, alone or behind another one.
fn too_large(path: &str, behind: bool) -> End {
    let mut server = End::new(
        Side::Server,
        Limits::default().max_message_bytes(10),
        Instant::now(),
    );
    if behind {
        server.read(&frame(1, "/first", 0, b"x"));
    }
    server.read(&frame(0, path, 0, b"01234567"));
    server.read(&frame(3, path, 0, b"89abcdef"));
    if behind {
        server.events();
        server.answer(0, "first");
    }
    server
}

#[test]
fn a_request_that_is_too_large_keeps_its_decoded_label() {
    for behind in [false, true] {
        let mut server = too_large("/a%2541?x", behind);
        let events = server.events();
        assert_eq!(events.last().unwrap(), "0 /a%41 too large", "{behind}");
        server.answer(0, "no");
        assert_eq!(server.written().last().unwrap(), "5 /a%41 0 no");
    }
}

#[test]
fn a_request_that_is_too_large_cannot_forge_frames_by_its_path() {
    for behind in [false, true] {
        for path in ["/a%00b", "/a%2500b", "", "?x"] {
            let mut server = too_large(path, behind);
            if server.machine.open_calls() > 0 {
                server.answer(0, "no");
            }
            let written = server.write(Instant::now());
            let mut decoder = Decoder::new(Side::Client, &Limits::default());
            decoder.feed(&written);
            for _ in 0..=usize::from(behind) {
                let answer = decoder.next_frame().unwrap().expect("an answer");
                assert_eq!(answer.channel, ChannelId::ZERO, "{path:?}");
                assert!(!answer.path.is_empty(), "{path:?}");
            }
            assert_eq!(decoder.partial(), Partial::Nothing, "{path:?}");
        }
    }
}

// ---- limits

#[test]
fn a_request_over_the_message_limit_fails_alone_and_in_its_turn() {
    let limits = Limits::default().max_message_bytes(4);
    let mut server = server_with_channels(1, limits);
    server
        .read(&frame(1, "/a", 1, b"1"))
        .read(&frame(0, "/b", 1, b"123"))
        .read(&frame(2, "", 1, b"456"))
        .read(&frame(0, "/d", 0, b"12"))
        .read(&frame(3, "", 1, b"7"))
        .read(&frame(1, "/c", 1, b"1234"))
        .read(&frame(3, "", 0, b"34"));
    assert_eq!(server.events(), ["1 /a 1", "0 /d begun", "0 /d 1234"]);
    server.answer(1, "A");
    assert_eq!(server.events(), ["1 /b too large"]);
    server.answer(1, "no");
    assert_eq!(server.events(), ["1 /c 1234"]);
    server.answer(1, "C");
    server.answer(0, "D");
    assert_eq!(
        server.written(),
        ["5 /a 1 A", "5 /b 1 no", "5 /c 1 C", "5 /d 0 D"]
    );
    assert_eq!((server.machine.buffered, server.channels_in_use()), (0, 0));
}

#[test]
fn a_request_in_one_frame_over_the_message_limit_fails_too() {
    let mut server = server_with_channels(1, Limits::default().max_message_bytes(4));
    server.read(&frame(1, "/a", 1, b"12345"));
    server.read(&frame(1, "/b", 1, b"12345"));
    assert_eq!(server.events(), ["1 /a too large"]);
    server.answer(1, "no");
    assert_eq!(server.events(), ["1 /b too large"]);
    server.answer(1, "no");
    assert_eq!((server.machine.buffered, server.channels_in_use()), (0, 0));
}

#[test]
fn a_streamed_request_has_no_message_limit_and_one_answer() {
    for early in [1, 2, 3, 4] {
        let mut server = End::new(
            Side::Server,
            Limits::default().max_message_bytes(4),
            Instant::now(),
        );
        for (at, (status, body)) in [(0, "12"), (2, "345"), (2, "6"), (3, "7")]
            .iter()
            .enumerate()
        {
            if at == early {
                server.answer(0, "early");
            }
            server.read(&frame(*status, "/a", 0, body.as_bytes()));
            server.machine.stream_request(ChannelId::ZERO);
        }
        if early == 4 {
            server.answer(0, "early");
        }
        let expected = [
            "0 /a begun",
            "0 part 12",
            "0 part 345",
            "0 part 6",
            "0 last part 7",
        ];
        assert_eq!(
            server.events(),
            expected[..=early],
            "answered before frame {early}"
        );
        assert_eq!(server.written(), ["5 /a 0 early"]);
        assert_eq!((server.machine.buffered, server.channels_in_use()), (0, 0));
    }
}

#[test]
fn a_request_that_is_too_large_already_is_not_streamed() {
    let limits = Limits::default().max_message_bytes(4);
    let mut server = End::new(Side::Server, limits, Instant::now());
    server.read(&frame(0, "/a", 0, b"1234"));
    server.read(&frame(2, "/a", 0, b"5"));
    assert!(!server.machine.stream_request(ChannelId::ZERO));
    server.read(&frame(3, "/a", 0, b"6"));
    assert_eq!(server.events(), ["0 /a begun", "0 /a too large"]);
    server.answer(0, "no");
    assert_eq!((server.machine.buffered, server.channels_in_use()), (0, 0));
}

#[test]
fn an_answer_over_the_message_limit_fails_its_call_at_once_and_no_other() {
    let mut client = client_with_channels(0, Limits::default().max_message_bytes(4));
    for token in 1..=3 {
        call(&mut client, 0, "/a", "x", token);
    }
    client.read(&frame(4, "/a", 0, b"123"));
    client.read(&frame(6, "/a", 0, b"45"));
    assert_eq!(client.events(), ["call 1 too large"]);
    assert_eq!(client.machine.buffered, 0);
    client.read(&frame(7, "/a", 0, b"67"));
    client.read(&frame(5, "/a", 0, b"12345"));
    client.read(&frame(5, "/a", 0, b"1234"));
    assert_eq!(
        client.events(),
        ["0 swallowed", "call 2 too large", "call 3 1234"]
    );
}

#[test]
fn an_unfinished_answer_for_which_the_budget_has_no_room_fails_its_call_and_one_alone_never_does() {
    let limits = Limits::default().max_buffered_bytes(10);
    let mut client = client_with_channels(2, limits);
    call(&mut client, 1, "/a", "x", 1);
    call(&mut client, 2, "/b", "x", 2);
    client.read(&frame(4, "/a", 1, b"123456"));
    client.read(&frame(4, "/b", 2, b"1234"));
    assert!(client.events().is_empty());
    client.read(&frame(6, "/b", 2, b"5"));
    let failure = CallErrorKind::BufferFull { limit: 10 };
    assert_eq!(client.events(), [format!("call 2 {failure}")]);
    assert_eq!(client.machine.buffered, 6);
    client.read(&frame(6, "/a", 1, b"7890123456"));
    client.read(&frame(7, "/b", 2, b"6"));
    client.read(&frame(7, "/a", 1, b"7"));
    assert_eq!(client.events(), ["2 swallowed", "call 1 12345678901234567"]);
    assert_eq!(client.machine.buffered, 0);
}

#[test]
fn a_server_stops_reading_while_too_much_waits_and_goes_on_after_it() {
    let mut server = server_with_channels(1, Limits::default().max_buffered_bytes(100));
    server.read(&frame(1, "/a", 1, b"x"));
    assert!(server.machine.wants_read());
    server.read(&frame(1, "/b", 1, &[b'y'; 100]));
    assert!(!server.machine.wants_read());
    server.answer(1, "A");
    assert!(server.machine.wants_read());
    assert_eq!(server.machine.buffered, 0);
}

#[test]
fn while_as_many_handlers_run_as_may_requests_wait_and_everything_else_passes() {
    let mut server = server_with_channels(4, Limits::default().max_calls(2));
    server.read(&frame(1, "/a", 1, b"x"));
    server.read(&frame(1, "/a", 2, b"x"));
    server.read(&frame(1, "/late", 3, b"x"));
    server.read(&frame(1, "/later", 4, b"x"));
    assert!(server.machine.wants_read());
    assert_eq!(server.events(), ["1 /a x", "2 /a x"]);
    server.written();
    // The protocol itself, and the library's own services.
    server.read(&frame(1, "/sys/ping", 0, b"{}"));
    assert_eq!(server.written().len(), 1);
    server.read(&frame(1, "/sys/health/check", 0, b"x"));
    assert_eq!(server.events(), ["0 /sys/health/check x"]);
    server.answer(0, "serving");
    assert!(server.events().is_empty(), "that made no room");
    server.answer(1, "A");
    assert_eq!(server.events(), ["3 /late x"]);
    server.answer(2, "A");
    assert_eq!(server.events(), ["4 /later x"]);
}

#[test]
fn a_request_whose_caller_has_gone_before_its_turn_is_not_run() {
    let mut server = server_with_channels(4, Limits::default().max_calls(1));
    server.read(&frame(1, "/sys/hello", 0, br#"{"iip":1,"control":1}"#));
    server.read(&frame(0, "/sys/control", 4, &[0, 0]));
    server.read(&frame(1, "/a", 1, b"x"));
    for id in [2, 3] {
        server.read(&frame(1, "/late", id, b"x"));
    }
    server.events();
    server.written();
    for _ in 0..3 {
        // Each cancels channels 2 and 1; the second time they have nothing to cancel.
        server.read(&frame(2, "", 4, &[1, 4, 0, 0, 0, 2, 1, 4, 0, 0, 0, 1]));
    }
    assert_eq!(server.events(), ["1 cancelled"]);
    let answers = server.written();
    assert_eq!(answers.len(), 1, "{answers:?}");
    // The channel is used again, and its place in the queue with it.
    server.read(&frame(1, "/again", 2, b"x"));
    server.answer(1, "A");
    assert_eq!(server.events(), ["2 /again x"]);
    server.answer(2, "A");
    assert_eq!(server.events(), ["3 /late x"]);
    server.answer(3, "A");
    assert_eq!(server.machine.open_calls(), 0);
}

#[test]
fn what_a_handler_has_not_taken_outlives_the_messages_of_its_connection() {
    let mut server = server_with_channels(3, Limits::default());
    server.read(&frame(0, "/a", 1, b"unfinished"));
    server.read(&frame(1, "/a", 2, b"x"));
    server.read(&frame(1, "/a", 2, b"behind it"));
    server.machine.buffer(5);
    server.machine.discard();
    assert_eq!(server.machine.memory(), 5);
    server.machine.unbuffer(5);
    assert_eq!(server.machine.memory(), 0);
}

#[test]
fn control_frames_are_short_and_a_goodbye_is_heard_once() {
    let mut server = server_with_channels(1, Limits::default());
    server.read(&frame(1, "/sys/hello", 0, br#"{"iip":1,"control":1}"#));
    server.read(&frame(0, "/sys/control", 1, &[0; 64 * 1024]));
    let error = server.refusal(&frame(2, "", 1, &[0; 64 * 1024 + 1]));
    assert!(matches!(error, ProtocolError::BadControl { .. }), "{error}");

    let mut client = client_with_channels(1, Limits::default());
    client.machine.say_hello();
    client.read(&frame(5, "/sys/hello", 0, br#"{"iip":1,"control":1}"#));
    let grant = br#"{"code":0,"channel_id":2}"#;
    client.read(&frame(5, "/sys/new_channel", 0, grant));
    client.events();
    client.read(&frame(4, "/sys/control", 2, &[2, 0].repeat(1000)));
    client.read(&frame(6, "", 2, &[2, 0].repeat(1000)));
    assert_eq!(client.events(), ["going away"]);
    let error = client.refusal(&frame(6, "", 2, &[0; 64 * 1024 + 1]));
    assert!(matches!(error, ProtocolError::BadControl { .. }), "{error}");
}

#[test]
fn a_server_stops_reading_while_its_answers_are_not_read_and_goes_on_after_it() {
    let mut server = End::new(
        Side::Server,
        Limits::default().max_unsent_bytes(100),
        Instant::now(),
    );
    server.read(&frame(1, "/a", 0, b"x"));
    assert!(server.reply(ChannelId::ZERO, vec![b'y'; 200], true));
    assert!(!server.machine.wants_read() && !server.machine.has_room());
    server.write(Instant::now());
    assert!(server.machine.wants_read() && server.machine.has_room());
}

#[test]
fn requests_that_have_only_begun_do_not_keep_each_other_from_ending() {
    for streamed in [false, true] {
        let mut server = server_with_channels(2, Limits::default().max_calls(2));
        for id in [1, 2] {
            server.read(&frame(0, "/a", id, b"x"));
            if streamed {
                server.machine.stream_request(ChannelId(id));
            }
        }
        assert!(server.machine.wants_read(), "nothing else can end them");
    }
}

#[test]
fn what_waits_counts_what_it_costs_and_not_only_its_bytes() {
    let mut server = server_with_channels(1, Limits::default().max_buffered_bytes(64 * 1024));
    server.read(&frame(1, "/slow", 1, b"x"));
    let small = frame(1, "/", 1, b"x");
    let mut waiting = 0;
    while server.machine.wants_read() {
        server.read(&small);
        waiting += 1;
    }
    let cost = waiting * size_of::<super::channel::WaitingRequest>();
    assert!(cost <= 64 * 1024, "{waiting} requests take {cost} bytes");
}

// ---- hello, control, chunks

#[test]
fn a_peer_without_hello_gets_whole_messages_and_no_control_stream() {
    let mut client = End::new(Side::Client, small_limits(), Instant::now());
    client.machine.say_hello();
    client.written();
    let answer = br#"{"code":102,"message":"handle error"}"#;
    client.read(&frame(5, "/sys/hello", 0, answer));
    assert_eq!(client.events(), ["hello false"]);
    call(&mut client, 0, "/a", vec![0; 5000], 1);
    assert_eq!(client.written(), ["1 /a 0 5000 bytes"]);
    client.machine.abandon(ChannelId::ZERO, CallId::of(1));
    assert_eq!(client.written(), [""; 0]);
    assert!(!client.machine.peer_replies_before_end());
}

#[test]
fn a_hello_has_the_fields_of_the_protocol_whatever_the_layers_above_announce() {
    let ours = serde_json::json!({ "iip": 0, "code": 7, "channels": 1, "rpc": {} });
    for announce in [serde_json::Value::Null, ours] {
        for reply in [false, true] {
            let body = Hello::body(&announce, &Limits::default(), reply);
            let hello = Hello::parse(&body).expect("a hello");
            assert!(hello.control && hello.ping && hello.notice && hello.one_way);
            let most = Limits::default().get_max_channels();
            assert_eq!(hello.channels, Some(most));
            let fields: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            // The code distinguishes the reply from the error of a Go server.
            if reply {
                assert_eq!(fields["code"], 0, "{fields}");
            }
            assert_eq!(fields.get("rpc"), announce.get("rpc"));
        }
    }
}

#[test]
fn a_client_with_hello_opens_the_control_stream_and_cancels_by_it() {
    let mut pair = Pair::acquainted(&Limits::default(), 1, 1);
    assert!(pair.client.machine.peer_replies_before_end());
    assert_eq!(pair.client.machine.control, Some(ChannelId(1)));
    call(&mut pair.client, 2, "/slow", "x", 7);
    pair.run();
    assert_eq!(pair.server.events(), ["2 /slow x"]);
    pair.client.machine.abandon(ChannelId(2), CallId::of(7));
    pair.run();
    assert_eq!(pair.server.events(), ["2 cancelled"]);
    pair.server.answer(2, "gone");
    pair.run();
    assert_eq!(pair.client.events(), ["2 swallowed"]);
    pair.assert_rests();
}

/// A client whose server has a control stream and has not granted its channel yet.
fn client_that_waits_for_control() -> End {
    let mut client = client_with_channels(3, Limits::default());
    client.machine.say_hello();
    client.read(&frame(5, "/sys/hello", 0, br#"{"iip":1,"control":1}"#));
    assert_eq!(client.events(), ["hello true"]);
    client.written();
    client
}

#[test]
fn a_server_that_withholds_the_control_stream_makes_its_client_keep_each_channel_once() {
    let mut client = client_that_waits_for_control();
    for token in 0..100 {
        for id in [1, 2] {
            call(&mut client, id, "/a", "x", token);
            client.written();
            client.machine.abandon(ChannelId(id), CallId::of(token));
            client.read(&frame(5, "/a", id, b"y"));
            assert_eq!(client.events(), [format!("{id} swallowed")]);
        }
    }
    assert_eq!(client.machine.client.cancel_later.len(), 2);
    call(&mut client, 2, "/a", "x", 100);
    client.machine.abandon(ChannelId(2), CallId::of(100));
    client.written();
    let grant = br#"{"code":0,"channel_id":4}"#;
    client.read(&frame(5, "/sys/new_channel", 0, grant));
    // The one call that still waits for its reply is cancelled, and only once.
    let cancel = "2 /sys/control 4 \u{1}\u{4}\0\0\0\u{2}";
    assert_eq!(client.written(), ["0 /sys/control 4 \0\0", cancel]);
}

#[test]
fn a_one_way_call_on_the_channel_of_a_cancelled_call_is_not_cancelled() {
    let mut client = client_that_waits_for_control();
    call(&mut client, 1, "/a", "x", 0);
    client.machine.abandon(ChannelId(1), CallId::of(0));
    client.read(&frame(5, "/a", 1, b"y"));
    // Without a channel for one-way calls this is an ordinary call whose reply nobody waits for.
    let (id, token) = (ChannelId(1), CallId::of(1));
    let mut body = Body::from("x");
    let machine = &mut client.machine;
    machine.start_call(id, b"/b", &mut body, token, super::Mode::OneWay);
    client.written();
    let grant = br#"{"code":0,"channel_id":4}"#;
    client.read(&frame(5, "/sys/new_channel", 0, grant));
    assert_eq!(client.written(), ["0 /sys/control 4 \0\0"]);
}

#[test]
fn a_cancel_for_a_channel_without_a_call_is_nothing() {
    let mut server = server_with_channels(2, Limits::default());
    server
        .read(&frame(0, "/sys/control", 1, &[0, 0]))
        .read(&frame(2, "", 1, &[1, 4, 0, 0, 0, 2]))
        .read(&frame(2, "", 1, &[1, 4, 255, 255, 255, 255]))
        .read(&frame(2, "", 1, &[9, 3, 1, 2, 3, 1, 9]))
        .read(&frame(2, "", 1, &[1]));
    server.read(&frame(1, "/a", 2, b"x"));
    // Two at once, behind something of a later version.
    server.read(&frame(
        2,
        "",
        1,
        &[77, 1, 0, 1, 4, 0, 0, 0, 2, 1, 4, 0, 0, 0, 0],
    ));
    assert_eq!(server.events(), ["2 /a x", "2 cancelled"]);
    server.answer(2, "y");
    assert_eq!(server.machine.buffered, 0);
    server.read(&frame(3, "", 1, &[0, 0]));
    assert_eq!(server.channels_in_use(), 0, "the stream has ended");
}

#[test]
fn the_control_stream_cannot_be_cancelled() {
    let mut server = server_with_channels(2, Limits::default());
    server.read(&frame(0, "/sys/control", 1, &[1, 4, 0, 0, 0, 1]));
    server.read(&frame(1, "/a", 2, b"x"));
    server.read(&frame(2, "", 1, &[1, 4, 0, 0, 0, 2]));
    assert_eq!(server.events(), ["2 /a x", "2 cancelled"]);
}

#[test]
fn one_way_calls_that_wait_cannot_be_cancelled_and_leave_nothing_in_the_queue() {
    let mut server = server_with_channels(3, Limits::default().max_calls(1));
    server.read(&frame(1, "/sys/hello", 0, br#"{"iip":1,"control":1}"#));
    let one_way = ControlMessage::OneWay(ChannelId(2)).encode();
    server.read(&frame(0, "/sys/control", 1, &one_way));
    server.read(&frame(1, "/busy", 3, b"x"));
    for count in 1..=100 {
        server.read(&frame(1, "/a", 2, b"x"));
        let cancel = ControlMessage::Cancel(ChannelId(MAX_GRANTED + 1 + count)).encode();
        server.read(&frame(2, "", 1, &cancel));
    }
    assert_eq!(server.machine.server.call_queue.len(), 100);
    assert!(server.machine.buffered > 100, "the requests are counted");
    server.answer(3, "y");
    for count in 1..=100 {
        server.answer(MAX_GRANTED + 1 + count, "");
    }
    assert_eq!(
        server.events().len(),
        102,
        "the hello, and each of the calls"
    );
    assert_eq!(server.machine.buffered, 0);
    assert_eq!(server.channels_in_use(), 1, "the control stream");
    assert!(server.machine.server.call_queue.is_empty());
}

#[test]
fn a_channel_with_many_requests_does_not_delay_those_of_other_channels() {
    let mut server = server_with_channels(3, Limits::default().max_calls(1));
    for body in [b"1", b"2", b"3"] {
        server.read(&frame(1, "/many", 1, body));
    }
    server.read(&frame(1, "/one", 2, b"x"));
    server.read(&frame(1, "/one", 3, b"y"));
    assert_eq!(server.events(), ["1 /many 1"]);
    for (channel, next) in [
        (1, "2 /one x"),
        (2, "3 /one y"),
        (3, "1 /many 2"),
        (1, "1 /many 3"),
    ] {
        server.answer(channel, "A");
        assert_eq!(server.events(), [next]);
    }
}

#[test]
fn no_handler_can_hold_more_bytes_than_there_are() {
    let mut server = server_with_channels(1, Limits::default().max_buffered_bytes(100));
    assert!(server.machine.fits(100));
    assert!(!server.machine.fits(101));
    server.machine.hold(50);
    assert!(!server.machine.fits(usize::MAX), "the sum is not a number");
}

#[test]
fn with_several_calls_on_a_channel_none_is_cancelled() {
    let mut pair = Pair::acquainted(&Limits::default(), 2, 1);
    call(&mut pair.client, 2, "/slow", "x", 1);
    call(&mut pair.client, 2, "/slow", "y", 2);
    pair.client.machine.abandon(ChannelId(2), CallId::of(1));
    pair.run();
    assert_eq!(pair.server.events(), ["2 /slow x"]);
}

#[test]
fn long_messages_are_sent_in_turns_and_small_ones_go_in_between() {
    let limits = Limits::default().chunk_bytes(100 * 1024);
    let mut pair = Pair::acquainted(&limits, 5, 3);
    call(&mut pair.client, 2, "/long", vec![b'a'; 700 * 1024], 1);
    call(&mut pair.client, 3, "/other", vec![b'b'; 250 * 1024], 2);
    let mut frames = pair.client.written();
    call(&mut pair.client, 4, "/small", "x", 3);
    while pair.client.machine.has_output() {
        frames.extend(pair.client.written());
    }
    let short: Vec<String> = frames
        .iter()
        .map(|frame| frame.replace(" bytes", ""))
        .collect();
    assert_eq!(
        short,
        [
            "0 /long 2 102400",
            "0 /other 3 102400",
            "2 /long 2 102400",
            "1 /small 4 x",
            "2 /other 3 102400",
            "2 /long 2 102400",
            "3 /other 3 51200",
            "2 /long 2 102400",
            "2 /long 2 102400",
            "2 /long 2 102400",
            "3 /long 2 102400",
        ]
    );
}

#[test]
fn a_call_behind_a_long_one_on_its_channel_keeps_its_own_path() {
    let mut pair = Pair::acquainted(&small_limits(), 6, 1);
    call(&mut pair.client, 2, "/long", vec![b'a'; 3000], 1);
    call(&mut pair.client, 2, "/short", "x", 2);
    pair.run();
    assert_eq!(
        pair.server.events(),
        ["2 /long begun", "2 /long 3000 bytes"]
    );
    pair.server.answer(2, "1");
    assert_eq!(pair.server.events(), ["2 /short x"]);
    pair.server.answer(2, "2");
    pair.run();
    assert_eq!(pair.client.events(), ["call 1 1", "call 2 2"]);
    pair.assert_rests();
}

#[test]
fn no_frame_is_larger_than_the_protocol_or_the_peer_allows() {
    // To a peer without hello.
    let mut server = End::of(Side::Server);
    server.read(&frame(1, "/a", 0, b"x"));
    let size = 16 * 1024 * 1024;
    assert!(server.reply(ChannelId::ZERO, vec![0; size + 1], true));
    let mut frames = Vec::new();
    while server.machine.has_output() {
        frames.extend(server.written());
    }
    assert_eq!(frames, ["4 /a 0 16777216 bytes", "7 /a 0 \0"]);

    // To one that said how much it takes.
    let mut client = client_with_channels(1, Limits::default());
    client.machine.say_hello();
    client.written();
    let hello = br#"{"code":0,"iip":1,"max_frame":2048}"#;
    client.read(&frame(5, "/sys/hello", 0, hello));
    call(&mut client, 1, "/a", vec![0; 2049], 1);
    assert_eq!(client.written(), ["0 /a 1 2048 bytes", "3 /a 1 \0"]);
}

#[test]
fn the_close_frame_is_the_last_behind_long_messages_too() {
    let mut pair = Pair::acquainted(&small_limits(), 8, 1);
    call(&mut pair.client, 2, "/a", "x", 1);
    pair.run();
    assert_eq!(pair.server.events(), ["2 /a x"]);
    assert!(
        pair.server
            .reply(ChannelId(2), pattern(1, 600 * 1024), true)
    );
    pair.server.machine.close();
    let mut frames = Vec::new();
    while pair.server.machine.has_output() {
        frames.extend(pair.server.written());
    }
    assert_eq!(frames.len(), 601);
    assert_eq!(frames.last().unwrap(), "8  0");
    assert!(frames[599].starts_with("7 /a 2"), "{}", frames[599]);
    assert!(pair.server.machine.is_at_rest());
}

#[test]
fn a_call_knows_whether_it_has_left() {
    let mut client = client_with_channels(1, Limits::default());
    let one = ChannelId(1);
    call(&mut client, 1, "/a", "x", 1);
    assert!(!client.machine.was_sent(one, CallId::of(1)));
    client.write(Instant::now());
    assert!(client.machine.was_sent(one, CallId::of(1)));
    call(&mut client, 1, "/a", "x", 2);
    assert!(
        client.machine.was_sent(one, CallId::of(1)) && !client.machine.was_sent(one, CallId::of(2))
    );
}

// ---- time

/// Returns the time from `start` to the timeout of the machine, and the text of its error.
fn deadline(
    machine: &mut Connection,
    start: Instant,
    partial: Partial,
) -> Option<(Duration, String)> {
    let at = machine.poll_timeout(partial)?;
    let almost = at - Duration::from_nanos(1);
    assert!(machine.handle_timeout(almost, partial).is_ok(), "too early");
    let error = machine.handle_timeout(at, partial).unwrap_err();
    assert!(error.is_timeout());
    Some((at - start, error.to_string()))
}

fn timed_server() -> (Instant, End) {
    let start = Instant::now();
    (start, End::new(Side::Server, Limits::default(), start))
}

#[test]
fn the_protocols_own_requests_are_answered_at_a_limited_rate() {
    let start = Instant::now();
    let limits = Limits::default().max_control_requests(100);
    let mut server = End::new(Side::Server, limits, start);
    let request = frame(1, "/sys/new_channel", 0, b"{}").freeze();
    for _ in 0..100 {
        assert!(server.machine.wants_read());
        server
            .machine
            .handle_frame(frame_of(&request).borrowed())
            .unwrap();
    }
    assert!(
        !server.machine.wants_read(),
        "a hundred in a second are enough"
    );
    server.write(start);
    let renewal = server.machine.poll_timeout(Partial::Nothing).unwrap();
    assert_eq!(renewal - start, Duration::from_millis(10));
    let early = renewal - Duration::from_nanos(1);
    server
        .machine
        .handle_timeout(early, Partial::Nothing)
        .unwrap();
    assert!(!server.machine.wants_read());
    server
        .machine
        .handle_timeout(renewal, Partial::Nothing)
        .unwrap();
    assert!(server.machine.wants_read(), "one more may be answered");
}

#[test]
fn a_call_behind_many_cancellations_of_nothing_waits_for_what_was_too_much() {
    let start = Instant::now();
    let mut server = End::new(Side::Server, Limits::default(), start);
    let opened = frame(1, "/sys/new_channel", 0, b"{}").freeze();
    let begun = frame(0, "/sys/control", 1, &[0, 0]).freeze();
    let cancels = frame(2, "", 1, &[1, 4, 0, 0, 0, 9].repeat(5_500)).freeze();
    for bytes in [opened, begun, cancels.clone(), cancels] {
        server
            .machine
            .handle_frame(frame_of(&bytes).borrowed())
            .unwrap();
    }
    server.write(start);
    assert!(!server.machine.wants_read());
    let mut now = start;
    while !server.machine.wants_read() {
        now = server.machine.poll_timeout(Partial::Nothing).unwrap();
        server
            .machine
            .handle_timeout(now, Partial::Nothing)
            .unwrap();
    }
    // A thousand at ten thousand a second, and one step of refilling.
    let waited = now - start;
    assert!(waited <= Duration::from_millis(106), "{waited:?}");
}

#[test]
fn a_connection_at_rest_ends_after_the_idle_time_on_the_server_only() {
    let (start, mut server) = timed_server();
    let (after, error) = deadline(&mut server.machine, start, Partial::Nothing).unwrap();
    assert_eq!(after, 300 * SECOND);
    assert!(error.contains("idle_timeout"), "{error}");
    let mut client = End::new(Side::Client, Limits::default(), start);
    assert_eq!(deadline(&mut client.machine, start, Partial::Nothing), None);
}

#[test]
fn a_frames_head_must_come_in_time_counted_from_its_first_byte() {
    let (start, mut server) = timed_server();
    let head = frame(1, "/abc", 0, b"x");
    for (second, byte) in head[..5].iter().enumerate() {
        let now = start + SECOND * u32::try_from(second + 5).unwrap();
        server.feed(now, &[*byte]).unwrap();
    }
    let (after, error) = deadline(&mut server.machine, start, server.decoder.partial()).unwrap();
    assert_eq!(after, 15 * SECOND);
    assert!(error.contains("frame_head_timeout"), "{error}");
}

#[test]
fn a_body_must_move_while_it_arrives() {
    let (start, mut server) = timed_server();
    let whole = frame(1, "/abc", 0, &[1; 100]);
    server.feed(start + SECOND, &whole[..20]).unwrap();
    let partial = server.decoder.partial();
    let (after, error) = deadline(&mut server.machine, start, partial).unwrap();
    assert_eq!((partial, after), (Partial::Body, 31 * SECOND));
    assert!(error.contains("progress_timeout"), "{error}");
    server.feed(start + 29 * SECOND, &whole[20..21]).unwrap();
    let (after, _) = deadline(&mut server.machine, start, partial).unwrap();
    assert_eq!(after, 59 * SECOND);
}

#[test]
fn a_message_whose_next_frame_does_not_come_is_given_up_alone() {
    let (start, mut server) = timed_server();
    server.machine.timers().on_batch(Some(start + SECOND));
    server
        .feed(start + SECOND, &frame(0, "/a", 0, b"x"))
        .unwrap();
    server.events();
    let at = server.machine.poll_timeout(Partial::Nothing).unwrap();
    assert_eq!(at, start + 31 * SECOND);
    let almost = at - Duration::from_nanos(1);
    server
        .machine
        .handle_timeout(almost, Partial::Nothing)
        .unwrap();
    assert!(server.written().is_empty(), "too early");
    server.machine.handle_timeout(at, Partial::Nothing).unwrap();
    let answers = server.written();
    assert_eq!(answers, ["5 /a 0 126 bytes"]);
    // What still comes of it is skipped, and the channel is as good as new.
    server.read(&frame(2, "", 0, b"y"));
    server.read(&frame(3, "", 0, b"z"));
    assert!(server.written().is_empty() && server.events().is_empty());
    server.read(&frame(1, "/a", 0, b"x"));
    assert_eq!(server.events(), ["0 /a x"]);
}

#[test]
fn while_a_handler_works_nothing_is_idle() {
    let (start, mut server) = timed_server();
    server.feed(start, &frame(1, "/a", 0, b"x")).unwrap();
    server.events();
    assert_eq!(deadline(&mut server.machine, start, Partial::Nothing), None);
    server.answer(0, "y");
    server.write(start + 400 * SECOND);
    let (after, _) = deadline(&mut server.machine, start, Partial::Nothing).unwrap();
    assert_eq!(after, 700 * SECOND);
}

#[test]
fn a_peer_that_does_not_read_is_given_up_when_nothing_moves() {
    let (start, mut server) = timed_server();
    server.feed(start, &frame(1, "/a", 0, b"x")).unwrap();
    server.events();
    server.answer(0, "yyyy");
    server
        .machine
        .take_output(&mut std::collections::VecDeque::new());
    server
        .machine
        .timers()
        .on_waiting(start + SECOND, true, false);
    let (after, error) = deadline(&mut server.machine, start, Partial::Nothing).unwrap();
    assert_eq!(after, 31 * SECOND);
    assert!(error.contains("the peer to read"), "{error}");
    // Every byte that moves gives it the whole time again.
    server.machine.on_written(start + 20 * SECOND, 1);
    server
        .machine
        .timers()
        .on_waiting(start + 20 * SECOND, true, false);
    let (after, _) = deadline(&mut server.machine, start, Partial::Nothing).unwrap();
    assert_eq!(after, 50 * SECOND);
}

#[test]
fn a_connection_that_stays_over_its_budget_ends() {
    let start = Instant::now();
    let limits = Limits::default().max_buffered_bytes(10);
    let mut server = End::new(Side::Server, limits, start);
    server.feed(start, &frame(1, "/slow", 0, b"x")).unwrap();
    server
        .feed(start, &frame(1, "/b", 0, b"0123456789"))
        .unwrap();
    server.events();
    server
        .machine
        .timers()
        .on_waiting(start + SECOND, false, true);
    let (after, error) = deadline(&mut server.machine, start, Partial::Nothing).unwrap();
    assert_eq!(after, 31 * SECOND);
    assert!(error.contains("max_buffered_bytes"), "{error}");
}

// ---- the decoder

/// Frames whose paths and bodies have every kind of length.
fn sample() -> (Vec<u8>, Vec<String>) {
    let mut bytes = Vec::new();
    for (status, path, channel, size) in [
        (1, "/a", 0, 1),
        (0, "/longer/path?x=1", 7, 40),
        (3, "", u32::MAX, 41),
        (1, "/b", 256, 300),
    ] {
        bytes.extend_from_slice(&frame(status, path, channel, &pattern(size, size)));
    }
    let lines = decode_in_pieces(&bytes, [bytes.len()]);
    assert_eq!(lines.len(), 4);
    (bytes, lines)
}

/// Feeds pieces that end at these places.
fn decode_in_pieces(bytes: &[u8], ends: impl IntoIterator<Item = usize>) -> Vec<String> {
    let mut decoder = Decoder::new(Side::Server, &Limits::default());
    let mut start = 0;
    let mut lines = Vec::new();
    for end in ends {
        decoder.feed(&bytes[start..end]);
        start = end;
        while let Some(frame) = decoder.next_frame().expect("these are frames") {
            lines.push(frame_line(&frame));
        }
    }
    assert_eq!(decoder.partial(), Partial::Nothing);
    lines
}

#[test]
fn every_cut_gives_the_same_frames() {
    let (bytes, lines) = sample();
    for cut in 0..=bytes.len() {
        assert_eq!(
            decode_in_pieces(&bytes, [cut, bytes.len()]),
            lines,
            "cut at {cut}"
        );
    }
    assert_eq!(
        decode_in_pieces(&bytes, 1..=bytes.len()),
        lines,
        "byte by byte"
    );
}

#[test]
fn the_decoder_knows_how_much_of_a_frame_has_come() {
    let whole = frame(1, "/ab", 5, b"xyz");
    let mut decoder = Decoder::new(Side::Server, &Limits::default());
    for (at, byte) in whole.iter().enumerate() {
        let expected = match at {
            0 => Partial::Nothing,
            1..=12 => Partial::Head,
            _ => Partial::Body,
        };
        assert_eq!(decoder.partial(), expected, "before byte {at}");
        // Status and channel are enough to judge it: path and NUL end at 5, the channel at 9.
        assert_eq!(
            decoder.unfinished_head().is_some(),
            at >= 9,
            "before byte {at}"
        );
        decoder.feed(&[*byte]);
        assert_eq!(
            decoder.next_frame().unwrap().is_some(),
            at + 1 == whole.len()
        );
    }
    assert_eq!(decoder.unfinished_head(), None);
}

#[test]
fn the_limits_hold_at_their_edges_and_before_the_body_comes() {
    let limits = Limits::default().max_path_bytes(8).max_frame_bytes(16);
    let judge = |bytes: &[u8]| {
        let mut whole = Decoder::new(Side::Server, &limits);
        whole.feed(bytes);
        let whole = whole.next_frame();
        let mut slow = Decoder::new(Side::Server, &limits);
        let slow = bytes.iter().find_map(|byte| {
            slow.feed(&[*byte]);
            slow.next_frame().transpose()
        });
        assert_eq!(slow.transpose(), whole, "cuts change nothing");
        whole.map(|frame| frame.is_some())
    };
    assert_eq!(judge(&frame(1, "/2345678", 0, &[1; 16])), Ok(true));
    let path = Err(ProtocolError::PathTooLong { limit: 8 });
    assert_eq!(judge(&frame(1, "/23456789", 0, b"x")), path);
    assert_eq!(judge(b"\x01/23456789"), path);
    assert_eq!(judge(b"\x01/2345678"), Ok(false));
    let size = Err(ProtocolError::FrameTooLarge {
        size: 17,
        limit: 16,
    });
    assert_eq!(judge(&frame(1, "/", 0, &[1; 17])[..11]), size);
    assert_eq!(judge(&frame(1, "/", 0, b"")), Err(ProtocolError::EmptyBody));
    for status in 4..=7 {
        let error = judge(&[status]).unwrap_err();
        assert!(matches!(error, ProtocolError::WrongDirection(_)), "{error}");
    }
    assert_eq!(judge(&[9]), Err(ProtocolError::UnknownStatus(9)));
    assert_eq!(
        judge(b"GET / HTTP"),
        Err(ProtocolError::UnknownStatus(b'G'))
    );
}

#[test]
fn a_length_field_alone_reserves_nothing() {
    let mut decoder = Decoder::new(Side::Server, &Limits::default());
    decoder.feed(&[1, b'/', 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(decoder.next_frame(), Ok(None));
    assert!(decoder.read_buf().capacity() <= 256 * 1024);
}

// ---- chance

fn operation() -> impl Strategy<Value = Operation> {
    let side = || prop_oneof![Just(Side::Client), Just(Side::Server)];
    prop_oneof![
        2 => Just(Operation::OpenChannel),
        6 => (0..6_u8, 0..6_u8, 0..10_u8, any::<bool>()).prop_map(
            |(channel, path, size, streamed)| Operation::Call { channel, path, size, streamed }
        ),
        2 => (0..6_u8, 0..10_u8).prop_map(|(path, size)| Operation::OneWay { path, size }),
        1 => any::<u8>().prop_map(|call| Operation::Abandon { call }),
        2 => (0..6_u8).prop_map(|channel| Operation::StreamRequest { channel }),
        4 => (0..6_u8, 0..10_u8, any::<bool>()).prop_map(
            |(channel, size, ends)| Operation::Answer { channel, size, ends }
        ),
        4 => side().prop_map(|side| Operation::Write { side }),
        6 => (side(), prop_oneof![1..40_u16, 1000..9000_u16])
            .prop_map(|(side, bytes)| Operation::Read { side, bytes }),
    ]
}

/// Like [`whatever_a_pair_does_every_call_gets_its_own_answer_in_order`], of a case that random
/// operations rarely meet.
#[test]
fn a_pair_goes_on_when_an_answer_was_larger_than_what_the_client_may_hold() {
    let exchange = |from, to| {
        let write = Operation::Write { side: from };
        [
            write,
            Operation::Read {
                side: to,
                bytes: 9000,
            },
        ]
    };
    let call = |channel| Operation::Call {
        channel,
        path: 0,
        size: 2,
        streamed: false,
    };
    let part = |channel, size, ends| Operation::Answer {
        channel,
        size,
        ends,
    };
    let mut operations = vec![Operation::OpenChannel];
    operations.extend(exchange(Side::Client, Side::Server));
    operations.extend(exchange(Side::Server, Side::Client));
    operations.extend([call(0), call(1), call(1)]);
    operations.extend(exchange(Side::Client, Side::Server));
    operations.extend([part(0, 0, false), part(1, 7, false)]);
    operations.extend(exchange(Side::Server, Side::Client));
    operations.extend([part(0, 1, true), part(0, 2, true)]);
    for hello in [false, true] {
        Model::run(hello, &operations);
    }
}

proptest! {
    #[test]
    fn whatever_a_pair_does_every_call_gets_its_own_answer_in_order(
        hello in any::<bool>(),
        operations in vec(operation(), 0..80),
    ) {
        Model::run(hello, &operations);
    }

    #[test]
    fn whatever_bytes_come_a_machine_keeps_its_books(
        who in 0..2_u8,
        how in any::<u8>(),
        frames in vec((0..9_u8, 0..6_usize, 0..5_u8, 1..2000_usize), 0..40),
        garbage in vec(any::<u8>(), 0..20),
    ) {
        let mut data = vec![who, how];
        for (status, path, channel, size) in frames {
            let status = if status == 8 { status } else { status % 4 + 4 * who };
            let path = ["/a", "/sys/new_channel", "/sys/control", "/sys/hello", "/a%00b", ""][path];
            let body = if size % 3 == 0 {
                br#"{"code":0,"iip":1,"control":1,"channel_id":3}"#.to_vec()
            } else {
                pattern(size, size)
            };
            data.extend_from_slice(&frame(status, path, channel.into(), &body));
        }
        data.extend_from_slice(&garbage);
        fuzz::machine(&data);
    }

    #[test]
    fn any_cuts_give_the_same_frames(cuts in vec(0..400_usize, 0..12)) {
        let (bytes, lines) = sample();
        let mut ends: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        prop_assert_eq!(decode_in_pieces(&bytes, ends), lines);
    }
}

/// One-way calls have channels that no peer can name. They had counted as channels of the client,
/// whose next request of several frames ended the connection.
#[test]
fn one_way_calls_that_wait_do_not_count_as_channels() {
    let limits = Limits::default()
        .max_channels(3)
        .max_calls(1)
        .chunk_bytes(1024);
    let mut pair = Pair::acquainted(&limits, 1, 1);
    assert_eq!(pair.client.machine.one_way_channel(), None);
    pair.run();
    let one_way = pair.client.machine.one_way_channel().expect("granted");
    for _ in 0..10 {
        let now = Instant::now();
        let mut data = Body::from("x");
        pair.client
            .machine
            .send_one_way(one_way, b"/a", &mut data, now);
    }
    call(&mut pair.client, 2, "/large", vec![1; 5000], 1);
    pair.run();
    let events = pair.server.events();
    assert_eq!(events.len(), 2, "one handler runs at a time: {events:?}");
    assert_eq!(events[1], "2 /large begun");
}

/// Operations after which everything that was sent has arrived.
fn exchanges() -> Vec<Operation> {
    let both = [Side::Client, Side::Server].map(|side| {
        let to = if side == Side::Client {
            Side::Server
        } else {
            Side::Client
        };
        let (write, bytes) = (Operation::Write { side }, u16::MAX);
        [write, Operation::Read { side: to, bytes }]
    });
    both.concat().repeat(3)
}

#[test]
fn the_model_knows_calls_that_are_cancelled_while_they_wait_for_a_handler() {
    let calls = (1..5).map(|channel| Operation::Call {
        channel,
        path: 0,
        size: 1,
        streamed: false,
    });
    let steps = [
        exchanges(),
        vec![Operation::OpenChannel; 6],
        exchanges(),
        calls.collect(),
        exchanges(),
        vec![Operation::Abandon { call: 3 }],
        exchanges(),
    ];
    Model::run(true, &steps.concat());
}

fn call_step() -> impl Strategy<Value = CallStep> {
    let side = || prop_oneof![Just(Side::Client), Just(Side::Server)];
    let millis = || prop_oneof![0..4_u8, 50..255_u8];
    prop_oneof![
        6 => (any::<u8>(), millis(), 0..8_u8, 0..4_u8).prop_map(|(size, millis, one_way, leased)| {
            let (one_way, leased) = (one_way == 0, leased == 0);
            CallStep::Start { size, millis, one_way, leased }
        }),
        1 => millis().prop_map(|millis| CallStep::Lease { millis }),
        2 => any::<u8>().prop_map(|call| CallStep::Abandon { call }),
        1 => any::<u8>().prop_map(|lease| CallStep::ReturnLease { lease }),
        4 => (any::<u8>(), any::<u8>())
            .prop_map(|(request, size)| CallStep::Answer { request, size }),
        2 => (0..60_u8).prop_map(|millis| CallStep::Wait { millis }),
        8 => (side(), prop_oneof![1..60_u16, 1000..9000_u16])
            .prop_map(|(side, bytes)| CallStep::Move { side, bytes }),
    ]
}

proptest! {
    #[test]
    fn whatever_callers_do_every_call_ends_once_and_no_channel_is_lost(
        hello in any::<bool>(),
        steps in vec(call_step(), 1..120),
    ) {
        fuzz::calls::Model::run(hello, &steps);
    }
}
