//! Streams: which frames may come in one, what else may share its channel, and what is counted.

use std::sync::OnceLock;

use super::*;
use crate::body::Body;
use crate::proto::Mode;
use crate::proto::fuzz::streams::{self, Step};
use crate::proto::stream_state::StreamState;

/// The least there is, so that a test reaches it.
const WINDOW: usize = 1024;
/// The most in one frame.
const PART: usize = 64 * 1024;

const DATA: u8 = 0xF8;
const WINDOW_UPDATE: u8 = 0xF9;
const BLOCKED: u8 = 0xFA;
const LAST: u8 = 0xFB;
const CANCEL: u8 = 0xFC;
const OVER: u8 = 0xFD;
const REPLY: u8 = 0xFE;

fn small_window() -> Limits {
    Limits::default()
        .stream_window(WINDOW)
        .max_stream_window(4 * WINDOW)
        .max_channels(8)
}

fn marked(mark: u8, data: impl AsRef<[u8]>) -> Vec<u8> {
    [&[mark], data.as_ref()].concat()
}

fn hello() -> Vec<u8> {
    format!("{{\"iip\":1,\"code\":0,\"stream_window\":{WINDOW}}}").into_bytes()
}

/// A server whose client knows streams and has three channels.
fn server() -> End {
    server_with(small_window())
}

fn server_with(limits: Limits) -> End {
    let mut server = server_with_channels(3, limits);
    server.read(&frame(1, "/sys/hello", 0, &hello()));
    assert_eq!(server.written().len(), 1);
    assert_eq!(server.events(), ["hello true"]);
    server
}

/// The same with a stream on channel 1, of which `first` has come.
fn server_with_stream(first: impl AsRef<[u8]>) -> End {
    let mut server = server();
    server.read(&frame(0, "/s", 1, &marked(DATA, &first)));
    let events = server.events();
    assert_eq!(events[0], "1 /s stream");
    assert_eq!(events.len(), 2, "{events:?}");
    server
}

/// A client whose server knows streams, with three channels.
fn client() -> End {
    let mut client = client_with_channels(3, small_window());
    client.machine.say_hello();
    client.read(&frame(5, "/sys/hello", 0, &hello()));
    assert_eq!(client.events(), ["hello true"]);
    client.written();
    client
}

fn open_stream(client: &mut End, channel: u32, token: usize) {
    let mut first = Body::from(marked(DATA, "x"));
    client.machine.start_call(
        ChannelId(channel),
        b"/s",
        &mut first,
        CallId::of(token),
        Mode::Stream,
    );
}

/// The same with a stream on channel 1, begun as call 7.
fn client_with_stream() -> End {
    let mut client = client();
    open_stream(&mut client, 1, 7);
    assert_eq!(client.written().len(), 1);
    client
}

/// Frames in the order in which a side sends them, as statuses and data.
type Said<'a> = &'a [(u8, &'a [u8])];

fn says(end: &mut End, frames: Said<'_>) -> Result<(), ConnectionError> {
    frames.iter().try_for_each(|(status, body)| {
        // The beginning of a reply names its request.
        let path = if matches!(status, 4 | 5) { "/s" } else { "" };
        end.feed(Instant::now(), &frame(*status, path, 1, body))
    })
}

#[track_caller]
fn refuses_the_last(mut end: End, said: Said<'_>) {
    let (last, before) = said.split_last().unwrap();
    assert!(says(&mut end, before).is_ok(), "{said:?}");
    let result = says(&mut end, &[*last]);
    assert!(is_bad_stream(&result), "{said:?}: {result:?}");
}

fn is_bad_stream(result: &Result<(), ConnectionError>) -> bool {
    matches!(
        result,
        Err(ConnectionError::Protocol(ProtocolError::BadStream(
            ChannelId(1)
        )))
    )
}

// ---- the server's side

#[test]
fn a_server_refuses_what_has_no_meaning_in_a_stream() {
    let long = marked(DATA, vec![0; PART + 1]);
    let long_last = marked(LAST, vec![0; PART + 1]);
    let full = marked(DATA, vec![0; WINDOW]);
    let refused: [Said<'_>; 32] = [
        // No mark, or none that there is.
        &[(2, b"x")],
        &[(2, b"{}")],
        &[(2, &[0x80, 1])],
        &[(2, &[0xF7])],
        &[(2, &[0xFF])],
        // The server's own mark, and those of a last frame.
        &[(2, &[REPLY, 1])],
        &[(2, &[CANCEL])],
        &[(2, &[OVER])],
        // What is no end, in a last frame.
        &[(3, b"x")],
        &[(3, &[DATA, 1])],
        &[(3, &[DATA])],
        &[(3, &[LAST])],
        &[(3, &[WINDOW_UPDATE, 0, 0, 0, 1])],
        &[(3, &[BLOCKED])],
        &[(3, &[REPLY])],
        &[(3, &[0xFF])],
        // Room of a strange length, and hunger with something behind it.
        &[(2, &[WINDOW_UPDATE])],
        &[(2, &[WINDOW_UPDATE, 1])],
        &[(2, &[WINDOW_UPDATE, 0, 0, 1])],
        &[(2, &[WINDOW_UPDATE, 0, 0, 0, 0, 1])],
        &[(2, &[WINDOW_UPDATE, 0, 0, 0, 0, 0, 0, 0, 1])],
        &[(2, &[BLOCKED, 0])],
        // Behind the end.
        &[(2, &[LAST]), (2, &[DATA, 1])],
        &[(2, &[LAST]), (2, &[DATA])],
        &[(2, &[LAST]), (2, &[LAST])],
        &[(2, &[LAST, 1]), (2, &[LAST, 1])],
        // More than was granted; one byte of it is there already.
        &[(2, &full), (2, &[DATA, 1])],
        &[(2, &full), (2, &[LAST, 1])],
        &[(2, &full), (2, &full)],
        // More than goes in one frame.
        &[(2, &long)],
        &[(2, &long_last)],
        &[
            (2, &[BLOCKED]),
            (2, &[WINDOW_UPDATE, 255, 255, 255, 255]),
            (2, &long),
        ],
    ];
    for said in refused {
        refuses_the_last(server_with_stream("x"), said);
    }
}

#[test]
fn a_server_takes_what_belongs_to_a_stream() {
    let mut server = server_with_stream("x");
    let part = vec![0; PART];
    let said: [(u8, Vec<u8>); 8] = [
        (2, marked(DATA, "more")),
        (2, marked(WINDOW_UPDATE, 7_u32.to_be_bytes())),
        (2, marked(WINDOW_UPDATE, [255; 4])),
        (2, vec![BLOCKED]),
        (2, vec![DATA]),
        // The last byte that is allowed begins a part.
        (2, marked(DATA, vec![0; WINDOW - 6])),
        (2, marked(LAST, &part)),
        // Nothing of it needs room.
        (2, vec![BLOCKED]),
    ];
    for (status, body) in &said {
        server.read(&frame(*status, "", 1, body));
    }
    let long = format!("1 data {} bytes", WINDOW - 6);
    assert_eq!(
        server.events(),
        [
            "1 data more",
            "1 grant 7",
            "1 grant 4294967295",
            "1 starved",
            &long,
            "1 data 65536 bytes",
            "1 end",
            "1 starved",
        ]
    );
    server.answer(1, "ok");
    server.read(&frame(3, "", 1, &[OVER]));
    assert_eq!(server.written(), ["5 /s 1 \u{FFFD}ok"]);
    assert_eq!(server.events(), [""; 0]);
    assert!(server.machine.is_at_rest());
    assert_eq!(server.channels_in_use(), 0);
}

#[test]
fn both_ends_of_a_request_before_its_answer_say_that_the_caller_has_gone_once() {
    for end in [CANCEL, OVER] {
        let mut server = server_with_stream("x");
        server.read(&frame(3, "", 1, &[end]));
        assert_eq!(server.events(), ["1 cancelled"]);
        for (status, body) in [(3, &[CANCEL][..]), (2, &[DATA, 1])] {
            let mut other = server_with_stream("x");
            other.read(&frame(3, "", 1, &[end]));
            assert!(
                matches!(
                    other.refusal(&frame(status, "", 1, body)),
                    ProtocolError::StatusOrder { .. }
                ),
                "{status} after {end:#x}"
            );
        }
        // The order of the channel stays: what comes behind it waits for its answer.
        server.read(&frame(1, "/next", 1, b"x"));
        assert_eq!(server.events(), [""; 0]);
        server.answer(1, "too late");
        assert_eq!(server.events(), ["1 /next x"]);
        server.answer(1, "ok");
        server.check_accounting((0..4).map(ChannelId));
        assert!(server.machine.server.open_calls == 0 && server.machine.server.streamed == 0);
        assert_eq!(server.channels_in_use(), 0);
    }
}

#[test]
fn a_stream_shares_its_channel_with_no_other_call() {
    // Behind a call that runs, and behind others that wait.
    for requests in 1..3 {
        let mut server = server();
        for _ in 0..requests {
            server.read(&frame(1, "/p", 1, b"x"));
        }
        assert_eq!(
            server.refusal(&frame(0, "/s", 1, &[DATA, 1])),
            ProtocolError::BadStream(ChannelId(1))
        );
    }
    // Behind a stream that was given up and not answered.
    let mut server = server_with_stream("x");
    server.read(&frame(3, "", 1, &[CANCEL]));
    assert_eq!(
        server.refusal(&frame(0, "/s", 1, &[DATA, 1])),
        ProtocolError::BadStream(ChannelId(1))
    );
    // While it is open nothing else may begin at all.
    for status in [0, 1] {
        let mut server = server_with_stream("x");
        assert!(matches!(
            server.refusal(&frame(status, "/p", 1, b"x")),
            ProtocolError::StatusOrder { .. }
        ));
    }
}

#[test]
fn a_stream_to_the_protocols_own_paths_ends_the_connection() {
    for path in [
        "/sys/new_channel",
        "/sys/delete_channel",
        "/sys/hello",
        "/sys/hello?x=1",
        "/a%00b",
    ] {
        assert_eq!(
            server().refusal(&frame(0, path, 1, &[DATA, 1])),
            ProtocolError::BadStream(ChannelId(1)),
            "{path}"
        );
    }
}

#[test]
fn channel_0_carries_a_stream_as_any_other() {
    let mut server = server();
    server.read(&frame(0, "/s", 0, &[DATA, b'x']));
    assert_eq!(server.events(), ["0 /s stream", "0 data x"]);
    server.answer(0, "ok");
    server.read(&frame(3, "", 0, &[OVER]));
    server.read(&frame(1, "/sys/new_channel", 0, b"{}"));
    assert_eq!(server.written().len(), 2);
    assert_eq!(server.channels_in_use(), 0);
}

#[test]
fn what_follows_an_early_answer_is_skipped_whatever_it_says() {
    let mut server = server_with_stream("x");
    server.answer(1, "enough");
    let full = marked(DATA, vec![0; WINDOW]);
    // What was sent before the client knew; it need not even make sense any more.
    for body in [
        &full[..],
        &full,
        &[WINDOW_UPDATE, 0, 0, 0, 1],
        &[LAST],
        b"?",
    ] {
        server.read(&frame(2, "", 1, body));
    }
    server.read(&frame(3, "", 1, &[OVER]));
    assert_eq!(server.events(), [""; 0]);
    assert_eq!(server.channels_in_use(), 0);
    server.read(&frame(0, "/s", 1, &[DATA, b'y']));
    assert_eq!(server.events(), ["1 /s stream", "1 data y"]);
    server.check_accounting((0..4).map(ChannelId));
}

#[test]
fn of_a_peer_that_announced_no_streams_any_data_is_just_data() {
    for first in [
        DATA,
        WINDOW_UPDATE,
        BLOCKED,
        LAST,
        CANCEL,
        OVER,
        REPLY,
        0xFF,
    ] {
        let mut server = server_with_channels(1, Limits::default());
        server.read(&frame(0, "/p", 1, &[first, b'x']));
        server.read(&frame(3, "/p", 1, b"y"));
        let Some(ServerEvent::RequestBegun { .. }) = server.machine.poll_server_event() else {
            panic!("{first:#x} begins no request");
        };
        let Some(ServerEvent::Request { body, .. }) = server.machine.poll_server_event() else {
            panic!("{first:#x} makes no request");
        };
        assert_eq!(body, [first, b'x', b'y'][..]);
    }
    // And where they are known, only the one mark with something behind it begins one.
    for first in [
        &[DATA][..],
        &[WINDOW_UPDATE, 0, 0, 0, 1],
        &[BLOCKED],
        &[LAST, 1],
        &[CANCEL],
        &[REPLY, 1],
        &[0xFF, 1],
    ] {
        let mut server = server();
        server.read(&frame(0, "/p", 1, first));
        assert_eq!(server.events(), ["1 /p begun"], "{first:x?}");
    }
}

#[test]
fn a_long_request_that_begins_like_a_stream_is_none() {
    for first in 0xF7..=0xFF {
        let limits = Limits::default().chunk_bytes(1024);
        let mut pair = Pair::acquainted(&limits, first.into(), 1);
        let mut data = vec![first; 5000];
        data[4999] = 1;
        call(&mut pair.client, 2, "/up", data.clone(), 7);
        pair.run();
        let request =
            std::iter::from_fn(|| pair.server.machine.poll_server_event()).find_map(|event| {
                match event {
                    ServerEvent::Request { body, .. } => Some(body),
                    _ => None,
                }
            });
        assert!(request.expect("a request") == data, "{first:#x}");
        pair.server.answer(2, "ok");
        pair.run();
        assert_eq!(pair.client.events(), ["call 7 ok"]);
        pair.assert_rests();
    }
}

#[test]
fn a_stream_beyond_the_calls_that_may_run_is_shown_as_such() {
    let mut server = server_with(small_window().max_calls(1));
    server.read(&frame(0, "/s", 1, &[DATA, b'x']));
    server.read(&frame(0, "/s", 2, &[DATA, b'x']));
    let busy: Vec<bool> = std::iter::from_fn(|| server.machine.poll_server_event())
        .filter_map(|event| match event {
            ServerEvent::StreamBegun { is_busy, .. } => Some(is_busy),
            _ => None,
        })
        .collect();
    assert_eq!(busy, [false, true]);
    // It keeps nobody from reading on, nor an ordinary call from running.
    assert!(server.machine.wants_read());
    server.read(&frame(1, "/p", 3, b"x"));
    assert_eq!(server.events(), ["3 /p x"]);
    for channel in [2, 1, 3] {
        server.answer(channel, "ok");
    }
    for channel in [1, 2] {
        server.read(&frame(3, "", channel, &[OVER]));
    }
    server.check_accounting((0..4).map(ChannelId));
    assert_eq!(server.channels_in_use(), 0);
}

#[test]
fn the_control_stream_may_begin_when_streams_have_all_channels() {
    let mut server = server_with(small_window().max_channels(3));
    for channel in 1..=3 {
        server.read(&frame(0, "/s", channel, &[DATA, b'x']));
    }
    server.events();
    server.read(&frame(0, "/sys/control", 0, &[0, 0]));
    server.read(&frame(2, "/sys/control", 0, &[1, 4, 0, 0, 0, 2]));
    assert_eq!(server.events(), ["2 cancelled"]);
    // One of them is enough.
    server.answer(2, "ok");
    server.read(&frame(3, "", 2, &[OVER]));
    server.read(&frame(0, "/sys/control", 2, &[0, 0]));
    assert_eq!(server.events(), ["2 /sys/control begun"]);
}

#[test]
fn cancellations_of_calls_that_are_open_are_free_and_all_others_count() {
    let mut server = server_with(small_window().max_control_requests(10));
    server.read(&frame(0, "/sys/control", 3, &[0, 0]));
    let cancel = |channel| frame(2, "", 3, &[1, 4, 0, 0, 0, channel]);
    for _ in 0..100 {
        server.read(&frame(0, "/s", 1, &[DATA, b'x']));
        server.read(&frame(3, "", 1, &[CANCEL]));
        server.answer(1, "cancelled");
        server.read(&frame(1, "/whole", 2, b"x"));
        server.read(&cancel(2));
        server.answer(2, "cancelled");
        // Of a request of which a part has come.
        server.read(&frame(0, "/parts", 2, b"x"));
        server.read(&cancel(2));
        server.read(&frame(3, "", 2, b"x"));
    }
    assert!(server.machine.wants_read());
    // Three channels and the hello were asked for. A cancellation that is repeated counts, and so
    // do those of no call.
    server.read(&frame(1, "/whole", 2, b"x"));
    server.read(&cancel(2));
    for turn in 0..6 {
        assert!(server.machine.wants_read(), "{turn}");
        server.read(&cancel([2, 1][turn % 2]));
    }
    assert!(!server.machine.wants_read());
}

// ---- the client's side

#[test]
fn a_client_refuses_what_has_no_meaning_in_a_stream() {
    let full = marked(DATA, vec![0; WINDOW]);
    let long = marked(DATA, vec![0; PART + 1]);
    let refused: [Said<'_>; 26] = [
        // The marks of a client, and none that there is.
        &[(4, &[CANCEL])],
        &[(4, &[OVER])],
        &[(4, &[0xFF])],
        &[(4, &[DATA, 1]), (6, &[CANCEL])],
        &[(4, &[DATA, 1]), (6, &[OVER])],
        &[(4, &[DATA, 1]), (6, &[0xFF, 1])],
        // Any mark but that of the answer in a last frame.
        &[(5, &[DATA, 1])],
        &[(5, &[WINDOW_UPDATE, 0, 0, 0, 1])],
        &[(5, &[BLOCKED])],
        &[(5, &[LAST])],
        &[(5, &[CANCEL])],
        &[(5, &[OVER])],
        &[(4, &[DATA, 1]), (7, &[DATA, 1])],
        &[(4, &[DATA, 1]), (7, &[LAST])],
        &[(4, &[DATA, 1]), (7, &[WINDOW_UPDATE, 0, 0, 0, 1])],
        &[(4, &[DATA, 1]), (7, &[BLOCKED])],
        &[(4, &[DATA, 1]), (7, &[OVER])],
        // Room of a strange length.
        &[(4, &[WINDOW_UPDATE])],
        &[(4, &[WINDOW_UPDATE, 0, 0, 1])],
        &[(4, &[WINDOW_UPDATE, 0, 0, 0, 0, 1])],
        &[(4, &[BLOCKED, 1])],
        // Behind the end, and beyond the window.
        &[(4, &[LAST]), (6, &[DATA, 1])],
        &[(4, &[LAST, 1]), (6, &[LAST])],
        &[(4, &full), (6, &[DATA, 1])],
        &[(4, &full), (6, &[LAST, 1])],
        &[(4, &long)],
    ];
    for said in refused {
        refuses_the_last(client_with_stream(), said);
    }
}

#[test]
fn the_answer_stands_behind_the_stream_in_one_frame_or_in_several() {
    let answers: [Said<'_>; 6] = [
        &[(7, &[REPLY, b'o', b'k'])],
        &[(6, &[REPLY, b'o']), (7, b"k")],
        &[(6, &[REPLY]), (6, b"o"), (7, b"k")],
        // Whoever refuses need not know that it was a stream.
        &[(7, b"ok")],
        &[(6, b"o"), (7, b"k")],
        // After its end, too.
        &[
            (6, &[LAST]),
            (6, &[WINDOW_UPDATE, 0, 0, 0, 1]),
            (7, &[REPLY, b'o', b'k']),
        ],
    ];
    for said in answers {
        let mut client = client_with_stream();
        says(&mut client, &[(4, &[DATA, b'd'])]).unwrap();
        says(&mut client, said).unwrap();
        let events = client.events();
        assert_eq!(events[0], "call 7 data d");
        assert_eq!(events.last().unwrap(), "call 7 ok", "{said:?}");
        assert_eq!(client.written(), ["3  1 \u{FFFD}"], "{said:?}");
        assert!(!client.machine.awaits_reply(ChannelId(1)));
        // Nothing more is due.
        assert_eq!(
            client.refusal(&frame(5, "/s", 1, &[REPLY, 1])),
            ProtocolError::Unsolicited(ChannelId(1))
        );
    }
    for (status, body) in [(5, &[REPLY, b'o', b'k'][..]), (5, b"ok")] {
        let mut client = client_with_stream();
        says(&mut client, &[(status, body)]).unwrap();
        assert_eq!(client.events(), ["call 7 ok"]);
        assert_eq!(client.written().len(), 1);
    }
}

#[test]
fn marks_within_an_answer_are_data_and_so_are_those_of_other_calls() {
    let mut client = client_with_stream();
    says(
        &mut client,
        &[(4, &[REPLY, DATA]), (6, &[CANCEL]), (7, &[0xFF])],
    )
    .unwrap();
    let Some(ClientEvent::Reply { result, .. }) = client.machine.poll_client_event() else {
        panic!("no answer");
    };
    assert_eq!(result.unwrap(), [DATA, CANCEL, 0xFF][..]);
    for said in [
        &[(4, &[DATA, 1][..]), (7, &[OVER][..])][..],
        &[(5, &[LAST])],
        &[(4, &[0xFF]), (6, &[WINDOW_UPDATE]), (7, b"x")],
    ] {
        client.written();
        call(&mut client, 1, "/s", "x", 8);
        says(&mut client, said).unwrap();
        let all: Vec<u8> = said.iter().flat_map(|(_, body)| body.to_vec()).collect();
        let Some(ClientEvent::Reply { result, .. }) = client.machine.poll_client_event() else {
            panic!("no answer");
        };
        assert_eq!(result.unwrap(), all);
    }
}

#[test]
fn an_answer_that_is_too_large_fails_the_call_and_leaves_the_channel_free() {
    let limits = small_window().max_message_bytes(10);
    for in_frames in [false, true] {
        let mut client = client_with_channels(1, limits.clone());
        client.machine.say_hello();
        client.read(&frame(5, "/sys/hello", 0, &hello()));
        open_stream(&mut client, 1, 7);
        client.written();
        client.events();
        let body = marked(REPLY, "eleven bytes");
        if in_frames {
            // Neither what came of the stream nor the mark counts.
            says(
                &mut client,
                &[(4, &marked(DATA, "0123456789012")), (6, &body)],
            )
            .unwrap();
            let too_large = ["call 7 data 0123456789012", "call 7 too large"];
            assert_eq!(client.events(), too_large);
            says(&mut client, &[(6, &[0xFF]), (7, b"x")]).unwrap();
            assert_eq!(client.events(), ["1 swallowed"]);
        } else {
            says(&mut client, &[(5, &body)]).unwrap();
            assert_eq!(client.events(), ["call 7 too large"]);
        }
        assert_eq!(client.written(), ["3  1 \u{FFFD}"], "ended once");
        assert!(!client.machine.awaits_reply(ChannelId(1)));
        assert_eq!(client.machine.buffered, 0);
        // The limit itself fits, mark and all.
        open_stream(&mut client, 1, 8);
        says(&mut client, &[(5, &marked(REPLY, "ten bytes."))]).unwrap();
        assert_eq!(client.events(), ["call 8 ten bytes."]);
    }
}

#[test]
fn whatever_crosses_a_cancellation_is_swallowed() {
    let full = marked(DATA, vec![0; WINDOW]);
    let crossing: [Said<'_>; 6] = [
        &[(5, &[REPLY, 1])],
        &[(5, b"refused")],
        &[
            (4, &[DATA, 1]),
            (6, &[WINDOW_UPDATE, 0, 0, 0, 1]),
            (7, &[REPLY, 1]),
        ],
        &[(4, &full), (6, &full), (7, &[REPLY, 1])],
        &[(4, &[REPLY, 1]), (7, &[0xFF])],
        &[(4, &[0xFF]), (7, &[DATA])],
    ];
    for said in crossing {
        // The caller goes at any point of it.
        for at in 0..said.len() {
            let mut client = client_with_stream();
            if at > 0 && (said == crossing[3] || said == crossing[5]) {
                // Before the cancellation these would be offences.
                continue;
            }
            says(&mut client, &said[..at]).unwrap();
            client.events();
            assert!(
                !client.machine.abandon(ChannelId(1), CallId::of(7)),
                "it was sent"
            );
            assert_eq!(client.written(), ["3  1 \u{FFFD}"]);
            says(&mut client, &said[at..]).unwrap();
            assert_eq!(client.events(), ["1 swallowed"], "{said:?} at {at}");
            assert_eq!(client.written(), [""; 0], "ended once");
            assert!(!client.machine.awaits_reply(ChannelId(1)));
            assert_eq!(client.machine.buffered, 0);
            open_stream(&mut client, 1, 8);
            says(&mut client, &[(4, &[DATA, b'y'])]).unwrap();
            assert_eq!(client.events(), ["call 8 data y"]);
        }
    }
}

#[test]
fn a_stream_given_up_before_it_was_written_is_begun_and_cancelled_at_its_server() {
    let mut client = client();
    open_stream(&mut client, 1, 7);
    assert!(!client.machine.was_sent(ChannelId(1), CallId::of(7)));
    assert!(!client.machine.abandon(ChannelId(1), CallId::of(7)));
    let mut server = server();
    server.read(&client.write(Instant::now()));
    assert_eq!(server.events(), ["1 /s stream", "1 data x", "1 cancelled"]);
    server.answer(1, "cancelled");
    client.read(&server.write(Instant::now()));
    assert_eq!(client.events(), ["1 swallowed"]);
    assert_eq!(server.channels_in_use(), 0);
}

#[test]
fn a_stream_knows_whether_it_has_left() {
    let mut client = client();
    open_stream(&mut client, 1, 7);
    assert!(!client.machine.was_sent(ChannelId(1), CallId::of(7)));
    client.written();
    assert!(client.machine.was_sent(ChannelId(1), CallId::of(7)));
}

// ---- flow

#[test]
fn a_side_that_waits_for_room_says_so_once_however_often_it_is_granted_nothing() {
    let mut client = client_with_stream();
    let id = ChannelId(1);
    let mut flow = StreamState::new(WINDOW, 1, Instant::now());
    let mut wakers = Vec::new();
    flow.on_sent(1);
    for _ in 0..1000 {
        flow.on_stream_frame(StreamFrame::WindowUpdate(0), &mut wakers);
        assert!(!flow.has_credit(&mut client.machine, id));
    }
    assert_eq!(client.written().len(), 1);
    // A part that goes far beyond what was granted is not said to be missing byte by byte.
    flow.on_stream_frame(StreamFrame::WindowUpdate(1), &mut wakers);
    assert!(flow.has_credit(&mut client.machine, id));
    flow.on_sent(1000);
    for _ in 0..999 {
        flow.on_stream_frame(StreamFrame::WindowUpdate(1), &mut wakers);
        assert!(!flow.has_credit(&mut client.machine, id));
    }
    assert_eq!(client.written().len(), 1);
}

#[test]
fn what_is_taken_after_the_end_grants_nothing_to_the_next_on_the_channel() {
    let mut client = client_with_stream();
    let mut flow = StreamState::new(WINDOW, WINDOW, Instant::now());
    let mut wakers = Vec::new();
    for _ in 0..2 {
        flow.on_stream_frame(StreamFrame::Data(vec![0; WINDOW].into()), &mut wakers);
    }
    says(&mut client, &[(4, &[DATA, 1]), (6, &[DATA, 1])]).unwrap();
    assert!(
        flow.take_part(&mut client.machine, Some(ChannelId(1)), Instant::now)
            .is_some()
    );
    assert_eq!(client.written().len(), 1, "granted");
    assert!(
        flow.take_part(&mut client.machine, None, Instant::now)
            .is_some()
    );
    assert_eq!(client.written(), [""; 0]);
    assert!(
        flow.take_part(&mut client.machine, None, Instant::now)
            .is_none()
    );
}

#[test]
fn a_window_grows_only_where_its_writer_waited_while_the_connection_brought_nothing() {
    for (is_starved, is_dry) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut server = server_with_stream(b"x");
        let begun = Instant::now();
        let mut flow = StreamState::new(WINDOW, WINDOW, begun);
        let mut wakers = Vec::new();
        if is_starved {
            flow.on_stream_frame(StreamFrame::Blocked, &mut wakers);
        }
        if is_dry {
            let timers = server.machine.timers();
            timers.on_read_idle(begun);
            timers.on_read(begun + 1000 * SECOND, false, true);
        }
        flow.on_stream_frame(StreamFrame::Data(vec![0; WINDOW].into()), &mut wakers);
        let taken = flow.take_part(&mut server.machine, Some(ChannelId(1)), Instant::now);
        assert!(taken.is_some());
        let expected = if is_starved && is_dry {
            2 * WINDOW
        } else {
            WINDOW
        };
        assert_eq!(
            flow.window(),
            expected,
            "starved {is_starved}, dry {is_dry}"
        );
        // The peer is told of the room.
        assert_eq!(server.written().len(), 1);
    }
}

#[test]
fn windows_grow_within_their_own_limit_and_that_of_the_connection_and_give_back_what_they_took() {
    let limits = small_window().max_buffered_bytes(5 * WINDOW);
    let mut server = server_with(limits);
    let mut flows: Vec<StreamState> = Vec::new();
    for channel in 1..=3 {
        server.read(&frame(0, "/s", channel, &[DATA, b'x']));
        flows.push(StreamState::new(WINDOW, WINDOW, Instant::now()));
    }
    let mut now = Instant::now();
    let mut round = |server: &mut End, flows: &mut [StreamState], is_dry: bool| {
        for (channel, flow) in (1..).zip(flows.iter_mut()) {
            let mut wakers = Vec::new();
            flow.on_stream_frame(StreamFrame::Blocked, &mut wakers);
            if is_dry {
                // The writer waited, and nothing came for longer than the test has run.
                server.machine.timers().on_read_idle(now);
                now += 1000 * SECOND;
                server.machine.timers().on_read(now, false, true);
            }
            let part = StreamFrame::Data(vec![0; 8 * WINDOW].into());
            flow.on_stream_frame(part, &mut wakers);
            let id = Some(ChannelId(channel));
            let taken = flow.take_part(&mut server.machine, id, Instant::now);
            assert_eq!(taken.unwrap().len(), 8 * WINDOW);
            assert!((WINDOW..=4 * WINDOW).contains(&flow.window()));
        }
        let window_growth: usize = flows.iter().map(|flow| flow.window() - WINDOW).sum();
        assert_eq!(server.machine.window_growth, window_growth);
        window_growth
    };
    for _ in 0..5 {
        assert!(round(&mut server, &mut flows, true) <= 5 * WINDOW);
    }
    assert_eq!(
        server.machine.window_growth,
        5 * WINDOW,
        "all of it is used"
    );
    // Where the connection always has something, they shrink again, to what they were at most.
    while round(&mut server, &mut flows, false) > 0 {}
    round(&mut server, &mut flows, true);
    for flow in &flows {
        flow.release(&mut server.machine, None);
    }
    assert_eq!(server.machine.window_growth, 0);
}

#[test]
fn a_window_that_is_emptied_at_once_does_not_grow_beyond_what_any_way_needs() {
    const ENOUGH: usize = 512 * 1024;
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    fn at_once() -> Instant {
        *BEGUN.get_or_init(Instant::now)
    }
    fn later() -> Instant {
        at_once() + SECOND
    }
    let limits = Limits::default().stream_window(ENOUGH);
    let mut server = server_with(limits);
    server.read(&frame(0, "/s", 1, &[DATA, b'x']));
    let mut flow = StreamState::new(ENOUGH, ENOUGH, at_once());
    let mut round = |clock: fn() -> Instant| {
        let wakers = &mut Vec::new();
        flow.on_stream_frame(StreamFrame::Blocked, wakers);
        // The writer waited for longer than all of it took.
        server.machine.timers().on_read_idle(later());
        server
            .machine
            .timers()
            .on_read(later() + SECOND, false, true);
        flow.on_stream_frame(StreamFrame::Data(vec![0; 2 * ENOUGH].into()), wakers);
        let part = flow.take_part(&mut server.machine, Some(ChannelId(1)), clock);
        assert!(part.is_some());
        flow.window()
    };
    assert_eq!(round(at_once), ENOUGH, "no way is so long");
    assert_eq!(round(later), 2 * ENOUGH);
    // Told at the same time as before: half of it was taken at once.
    let less = round(later);
    assert!((ENOUGH..2 * ENOUGH).contains(&less), "{less}");
}

#[test]
fn one_long_answer_does_not_keep_others_from_being_asked_for() {
    let limits = small_window().chunk_bytes(64 * 1024);
    let most = limits.get_max_unsent_bytes();
    let mut server = server_with(limits);
    for channel in 1..=3 {
        server.read(&frame(1, "/a", channel, b"x"));
    }
    assert_eq!(server.events().len(), 3);
    let answer = |server: &mut End, channel| {
        let mut body = Body::from(vec![7; most + 1]);
        assert!(server.machine.reply(ChannelId(channel), &mut body, true));
    };
    answer(&mut server, 1);
    assert!(
        server.machine.wants_read(),
        "one may be as long as it likes"
    );
    answer(&mut server, 2);
    assert!(!server.machine.wants_read(), "what piles up is bounded");
}

#[test]
fn grants_beyond_all_bounds_do_not_overflow() {
    let mut client = client_with_stream();
    let mut flow = StreamState::new(WINDOW, usize::MAX, Instant::now());
    for _ in 0..10 {
        flow.on_stream_frame(StreamFrame::WindowUpdate(u32::MAX), &mut Vec::new());
        flow.on_sent(PART);
    }
    assert!(flow.has_credit(&mut client.machine, ChannelId(1)));
    assert_eq!(client.written(), [""; 0]);
}

#[test]
fn streams_and_long_messages_take_turns_however_much_there_is_of_either() {
    let limits = small_window().chunk_bytes(64 * 1024);
    let mut client = client_with_channels(3, limits);
    client.machine.say_hello();
    client.read(&frame(5, "/sys/hello", 0, &hello()));
    open_stream(&mut client, 1, 7);
    client.written();
    call(&mut client, 2, "/long", vec![0; 8 << 20], 8);
    for round in 0..20 {
        let mut parts = 0;
        while client.machine.has_stream_room(ChannelId(1)) {
            let mut part = Body::from(vec![0; client.machine.stream_part_bytes()]);
            client.machine.send_stream(ChannelId(1), &mut part, false);
            parts += 1;
        }
        assert!((4..=5).contains(&parts), "{parts} parts in round {round}");
        let written = client.written();
        let of = |start: &str| {
            written
                .iter()
                .filter(|line| line.starts_with(start))
                .count()
        };
        assert_eq!(of("2  1"), parts);
        let long = of("0 /long 2") + of("2 /long 2");
        assert!((4..=5).contains(&long), "{long} chunks in round {round}");
    }
}

#[test]
fn a_stream_behind_a_long_message_of_its_own_channel_waits_for_the_end_of_that() {
    let mut client = client_with_channels(1, small_window());
    client.machine.say_hello();
    client.read(&frame(5, "/sys/hello", 0, &hello()));
    call(&mut client, 1, "/long", vec![0; 8 << 20], 6);
    let now = Instant::now();
    client.write(now);
    // It was answered early: the channel is free, and what is left of the request goes first.
    client.read(&frame(5, "/long", 1, b"enough"));
    open_stream(&mut client, 1, 7);
    let mut rounds = 0;
    while !client.machine.has_stream_room(ChannelId(1)) {
        client.write(now);
        rounds += 1;
    }
    assert!(rounds > 2, "{rounds} rounds");
    client
        .machine
        .send_stream(ChannelId(1), &mut "x".into(), false);
    assert_eq!(client.written().last().unwrap(), "2  1 \u{FFFD}x");
}

// ---- chance

fn step() -> impl Strategy<Value = Step> {
    let side = || prop_oneof![Just(Side::Client), Just(Side::Server)];
    prop_oneof![
        3 => (any::<u8>(), any::<u8>()).prop_map(|(channel, size)| Step::Open { channel, size }),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(channel, size)| Step::Call { channel, size }),
        6 => (side(), any::<u8>(), any::<u8>())
            .prop_map(|(side, stream, size)| Step::Send { side, stream, size }),
        6 => (side(), any::<u8>(), 1..5_u8)
            .prop_map(|(side, stream, parts)| Step::Take { side, stream, parts }),
        1 => any::<u8>().prop_map(|stream| Step::Finish { stream }),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(stream, size)| Step::Answer { stream, size }),
        1 => (any::<u8>(), any::<bool>())
            .prop_map(|(stream, aborts)| Step::Cancel { stream, aborts }),
        5 => side().prop_map(|side| Step::Write { side }),
        8 => (side(), prop_oneof![1..40_u16, 1000..20_000_u16])
            .prop_map(|(side, bytes)| Step::Read { side, bytes }),
    ]
}

proptest! {
    #[test]
    fn whatever_two_peers_do_every_stream_arrives_in_order_within_what_was_granted(
        steps in vec(step(), 0..150),
    ) {
        streams::Model::run(&steps);
    }
}
