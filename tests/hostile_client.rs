//! A hostile server against our client, over real sockets: whatever it sends or omits, callers get
//! an error soon, no reply reaches the wrong caller, memory stays bounded, and the next connection
//! serves the same client.

use std::time::{Duration, Instant};

use bytes::Bytes;
use iip_core::{CallError, CallErrorKind, CallOptions, Client, Execution, Limits};
use tokio::io::AsyncReadExt;

use crate::common::alone::alone;
use crate::common::frame::RawFrame;
use crate::common::generate::lin;
use crate::common::peer::{Flooded, Peer, accepted, flood, listener, narrow_listener, sent};
use crate::common::victim::{Pending, Victim, honest, soon};
use crate::common::{
    GUARD, MIB, SERVED, assert_grown_less, passes, resident_bytes, spawn, started, within,
};

/// A timeout that expires soon, so that no test waits long for it.
const SHORT: Duration = Duration::from_millis(200);

/// A timeout that does not expire on a busy machine.
const TIME: Duration = Duration::from_secs(5);

/// Checks that the call fails soon because its connection was lost.
async fn lost<T>(what: &str, pending: Pending<T>) -> CallError {
    match soon(what, pending).await {
        Err(error) if matches!(error.kind(), CallErrorKind::ConnectionLost(_)) => error,
        Err(error) => panic!("{what}: the connection was lost, but the caller got: {error}"),
        Ok(_) => panic!("{what}: a reply, although the connection was lost"),
    }
}

// ---- bytes that end the connection

/// Sends `bytes` while one call is under way on channel 1: the client must close, and every call
/// must fail.
async fn ends_the_connection(what: &str, bytes: &[u8]) {
    let (victim, mut peer, channel) = Victim::with_channel(Client::builder()).await;
    let call = spawn(channel.request("/echo", "x"));
    assert_eq!(
        peer.frame().await,
        RawFrame::request("/echo", 1, "x"),
        "{what}"
    );
    peer.send(bytes).await;
    let last = peer.closed().await;
    assert!(
        last.is_empty(),
        "{what}: the client sent {last:?} before it closed"
    );
    let error = lost(what, call).await;
    assert_eq!(error.execution(), Execution::MayHaveExecuted, "{what}");
    lost(what, spawn(channel.request("/echo", "later"))).await;
    victim.is_served_by_a_new_connection().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_that_no_frame_may_have_ends_the_connection_before_any_body_comes() {
    for len in [0, (16 << 20) + 1, 1 << 31, u32::MAX - 1, u32::MAX] {
        ends_the_connection(
            &format!("length {len}"),
            &RawFrame::head(5, "/echo", 1, len),
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_does_not_end_is_rejected_at_byte_2050() {
    ends_the_connection(
        "2049 bytes of path",
        &[&[5], "p".repeat(2049).as_bytes()].concat(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_speaks_another_protocol_is_rejected_at_its_first_byte() {
    // TLS alert, HTTP, SSH, and other bytes that are not a status.
    for first in [0x15, b'H', b'S', 9, 0x80, 0xff] {
        ends_the_connection(&format!("first byte {first}"), &[first]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_on_a_channel_that_was_never_granted_ends_the_connection_before_its_length_comes() {
    for channel in [2, 77, 1 << 31, u32::MAX] {
        let head = RawFrame::head(5, "/echo", channel, 1);
        ends_the_connection(&format!("channel {channel}"), &head[..head.len() - 4]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extra_reply_goes_to_no_caller() {
    for sends_twice in [
        RawFrame::reply("/mine", 1, "a secret").encode(),
        RawFrame::new(4, "/mine", 1, "a secret").encode(),
    ] {
        let (victim, mut peer, channel) = Victim::with_channel(Client::builder()).await;
        let mine = spawn(channel.request("/mine", "x"));
        assert_eq!(peer.frame().await, RawFrame::request("/mine", 1, "x"));
        peer.send_frame(&RawFrame::reply("/mine", 1, "a secret"))
            .await;
        assert_eq!(soon("my call", mine).await.expect("a reply"), "a secret");
        // The next call is under way before the extra reply comes.
        let yours = spawn(channel.request("/yours?x=1", "y"));
        assert_eq!(peer.frame().await, RawFrame::request("/yours?x=1", 1, "y"));
        peer.send(&sends_twice).await;
        let error = lost("your call", yours).await;
        assert_eq!(error.execution(), Execution::MayHaveExecuted);
        let text = format!("{error:?}");
        assert!(text.contains("/mine"), "{text}");
        assert!(text.contains("/yours?x=1"), "{text}");
        assert!(peer.closed().await.is_empty());
        victim.is_served_by_a_new_connection().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unsolicited_reply_ends_the_connection() {
    let reply = RawFrame::reply("/echo", 1, "x").encode();
    let (victim, mut peer, channel) = Victim::with_channel(Client::builder()).await;
    peer.send(&reply).await;
    assert!(peer.closed().await.is_empty());
    lost("after the reply", spawn(channel.request("/echo", "x"))).await;
    victim.is_served_by_a_new_connection().await;
    // The same on channel 0, where only grants are expected.
    ends_the_connection(
        "a reply on channel 0",
        &RawFrame::reply("/x", 0, "unsolicited").encode(),
    )
    .await;
    ends_the_connection("an unsolicited grant", &RawFrame::grant(2).encode()).await;
}

/// The frames that bring the channel's replies into each state, and the statuses that are legal
/// there, with enough calls under way.
const STATES: [(&str, &[u8], &[u8]); 5] = [
    ("nothing received", &[], &[4, 5]),
    ("4", &[4], &[6, 7]),
    ("5", &[5], &[4, 5]),
    ("6", &[4, 6], &[6, 7]),
    ("7", &[4, 7], &[4, 5]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_illegal_transition_ends_the_connection_and_every_legal_one_does_not() {
    for (state, before, legal) in STATES {
        for status in (0..=7).chain([9, 10, 127, 255]) {
            let what = format!("status {status} after {state}");
            let (victim, mut peer, channel) = Victim::with_channel(Client::builder()).await;
            let calls: Vec<_> = (0..3)
                .map(|_| spawn(channel.request("/echo", "x")))
                .collect();
            for _ in 0..3 {
                assert_eq!(
                    peer.frame().await,
                    RawFrame::request("/echo", 1, "x"),
                    "{what}"
                );
            }
            for &status in before.iter().chain([&status]) {
                peer.send_frame(&RawFrame::new(status, "/echo", 1, "x"))
                    .await;
            }
            if legal.contains(&status) {
                // The connection is alive: channel 0 still grants.
                victim.granted_channel(&mut peer, 2).await;
                continue;
            }
            assert!(peer.closed().await.is_empty(), "{what}");
            let due = before
                .iter()
                .filter(|&&status| status == 5 || status == 7)
                .count();
            for (number, call) in calls.into_iter().enumerate() {
                if number < due {
                    soon(&what, call)
                        .await
                        .unwrap_or_else(|error| panic!("{what}: {error}"));
                } else {
                    lost(&what, call).await;
                }
            }
            victim.is_served_by_a_new_connection().await;
        }
    }
}

// ---- grants

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_grant_fails_the_waiting_calls_at_once() {
    let deep = "[".repeat(200_000);
    let long = format!(
        "{{\"code\":0,\"channel_id\":1,\"x\":\"{}\"",
        "x".repeat(MIB)
    );
    let grants = [
        "{}",
        "[]",
        "null",
        "not json",
        "\u{0}",
        r#"{"code":0}"#,
        r#"{"code":0,"channel_id":0}"#,
        r#"{"code":0,"channel_id":-1}"#,
        r#"{"code":0,"channel_id":4294967296}"#,
        r#"{"code":0,"channel_id":1e3}"#,
        r#"{"code":0,"channel_id":"1"}"#,
        r#"{"code":"0","channel_id":1}"#,
        r#"{"channel_id":1}"#,
        &deep,
        &long,
    ];
    for grant in grants {
        let what = &grant[..grant.len().min(60)];
        let reply = RawFrame::reply("/sys/new_channel", 0, grant);
        let (victim, mut peer) = Victim::with_peer(Client::builder()).await;
        let asked = victim.asks_for_channel();
        let called = started(victim.client.request("/echo", "x")).await;
        peer.replies_to_new_channel(&reply).await;
        let error = soon(what, asked).await.expect_err(what);
        assert_eq!(error.execution(), Execution::NotSent, "{what}: {error}");
        drop(called);
        peer.closed().await;
        victim.is_served_by_a_new_connection().await;

        // The same for a later channel: every call on the connection fails.
        let (victim, mut peer, channel) = Victim::with_channel(Client::builder()).await;
        let call = spawn(channel.request("/echo", "x"));
        assert_eq!(peer.frame().await, RawFrame::request("/echo", 1, "x"));
        let asked = victim.asks_for_channel();
        peer.replies_to_new_channel(&reply).await;
        lost(what, asked).await;
        lost(what, call).await;
        peer.closed().await;
        victim.is_served_by_a_new_connection().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_grant_of_a_channel_in_use_ends_the_connection() {
    let (victim, mut peer, channel) = Victim::with_channel(Client::builder()).await;
    let call = spawn(channel.request("/echo", "mine"));
    assert_eq!(peer.frame().await.body, b"mine");
    let asked = victim.asks_for_channel();
    peer.grants(1).await;
    assert!(peer.closed().await.is_empty());
    lost("the one who asked", asked).await;
    lost("the one who has it", call).await;
    victim.is_served_by_a_new_connection().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn granted_ids_may_be_anything_else() {
    let (victim, mut peer) = Victim::with_peer(Client::builder()).await;
    for id in [u32::MAX, 1, 1 << 31, 4096, 4095, 70_000] {
        let channel = victim.granted_channel(&mut peer, id).await;
        let call = spawn(channel.request("/echo", "x"));
        assert_eq!(peer.frame().await, RawFrame::request("/echo", id, "x"));
        peer.send_frame(&RawFrame::reply("/echo", id, "x")).await;
        assert_eq!(soon("a call", call).await.expect("a reply"), "x");
        // The channel is kept, or the pool would hand it out again.
        std::mem::forget(channel);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejected_channels_leave_the_existing_ones_in_use() {
    let (victim, mut peer) = Victim::with_peer(Client::builder()).await;
    let calls: Vec<_> = (0..20)
        .map(|n: u32| victim.calls("/echo", n.to_string()))
        .collect();
    peer.grants(1).await;
    let mut replied = 0;
    while replied < 20 {
        let frame = peer.frame().await;
        if frame.path == b"/sys/new_channel" {
            let rejection = r#"{"code":106,"message":"channel create limited"}"#;
            peer.send_frame(&RawFrame::reply("/sys/new_channel", 0, rejection))
                .await;
        } else {
            peer.send_frame(&RawFrame::reply(&frame.path, frame.channel, &frame.body))
                .await;
            replied += 1;
        }
    }
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(
            soon("a call", call).await.expect("one after the other"),
            n.to_string()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_grant_never_comes_fails_at_its_own_deadline_unsent() {
    let config = Client::builder().timeout(SHORT);
    let (victim, mut peer, _channel) = Victim::with_channel(config).await;
    let calls: Vec<_> = (0..50).map(|_| victim.calls("/echo", "x")).collect();
    for call in calls {
        let error = soon("a call", call).await.expect_err("there is no channel");
        assert!(error.is_timeout(), "{error}");
        assert_eq!(error.execution(), Execution::NotSent, "{error}");
    }
    // The connection is unchanged: the late grant is used for the call that still waits and for no
    // other.
    let options = CallOptions::new().timeout(GUARD);
    let late = victim.client.request_with("/echo", "late", options);
    let call = started(late).await;
    peer.send_frame(&RawFrame::grant(2)).await;
    loop {
        let frame = peer.frame().await;
        if frame.path != b"/sys/new_channel" {
            assert_eq!(
                frame,
                RawFrame::request("/echo", 2, "late"),
                "what was given up must not be sent"
            );
            break;
        }
    }
    peer.send_frame(&RawFrame::reply("/echo", 2, "late")).await;
    let reply = within("the call", call.finish()).await;
    assert_eq!(reply.expect("a reply"), "late");
}

#[tokio::test]
async fn a_first_grant_that_never_comes_fails_the_connecting_in_time() {
    let config = Client::builder().connect_timeout(TIME);
    let (victim, mut peer) = Victim::with_peer(config).await;
    let calls: Vec<_> = (0..50).map(|_| victim.calls("/echo", "x")).collect();
    assert_eq!(peer.frame().await, RawFrame::new_channel());
    passes(TIME).await;
    for call in calls {
        let error = soon("a call", call).await.expect_err("no channel");
        assert!(
            matches!(error.kind(), CallErrorKind::Connect { .. }),
            "{error}"
        );
        assert_eq!(error.execution(), Execution::NotSent, "{error}");
    }
    peer.closed().await;
    victim.is_served_by_a_new_connection().await;
}

// ---- replies that come late, never, or in pieces

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_to_dropped_calls_are_discarded_and_the_next_caller_gets_its_own() {
    let (_victim, mut peer, channel) = Victim::with_channel(Client::builder()).await;
    for n in 0..500 {
        let dropped = channel.request("/echo", format!("gone {n}"));
        let stays = spawn(channel.request("/echo", format!("stays {n}")));
        let first = peer.frame().await;
        drop(dropped);
        let second = peer.frame().await;
        // Every form of reply: whole, in parts, and one part before the call was dropped.
        if n % 2 == 0 {
            peer.send_frame(&RawFrame::reply("/echo", 1, &first.body))
                .await;
        } else {
            peer.send_frame(&RawFrame::new(4, "/echo", 1, &first.body))
                .await;
            peer.send_frame(&RawFrame::new(6, "/echo", 1, "more")).await;
            peer.send_frame(&RawFrame::new(7, "/echo", 1, "end")).await;
        }
        peer.send_frame(&RawFrame::reply("/echo", 1, &second.body))
            .await;
        assert_eq!(
            soon("a call", stays).await.expect("its own reply"),
            format!("stays {n}")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_dropped_in_the_middle_of_its_reply_leaves_the_order_intact() {
    let (_victim, mut peer, channel) = Victim::with_channel(Client::builder()).await;
    let dropped = channel.request("/a", "x");
    let stays = spawn(channel.request("/b", "x"));
    peer.frame().await;
    peer.frame().await;
    peer.send_frame(&RawFrame::new(4, "/a", 1, "first part of a"))
        .await;
    // The reply on another channel proves that the part was read.
    drop(dropped);
    peer.send_frame(&RawFrame::new(6, "/a", 1, "second part of a"))
        .await;
    peer.send_frame(&RawFrame::new(7, "/a", 1, "last part of a"))
        .await;
    peer.send_frame(&RawFrame::reply("/b", 1, "b")).await;
    assert_eq!(
        soon("the other call", stays).await.expect("its own reply"),
        "b"
    );
}

#[tokio::test]
async fn a_call_without_a_reply_times_out_alone() {
    let (victim, mut peer) = Victim::with_peer(Client::builder()).await;
    let never = victim.calls_within("/never", TIME);
    peer.grants(1).await;
    assert_eq!(peer.frame().await.path, b"/never");
    let other = victim.calls("/echo", "other");
    peer.grants(2).await;
    let request = peer.frame().await;
    assert_eq!(
        request,
        RawFrame::request("/echo", 2, "other"),
        "the channel of the unanswered call is not used"
    );
    passes(TIME).await;
    let error = soon("the call", never).await.expect_err("no reply");
    assert!(error.is_timeout(), "{error}");
    assert_eq!(error.execution(), Execution::MayHaveExecuted, "{error}");
    peer.send_frame(&RawFrame::reply("/echo", 2, "other")).await;
    assert_eq!(
        soon("the other call", other).await.expect("a reply"),
        "other"
    );
    // The late reply is discarded, and then the channel is usable again.
    peer.send_frame(&RawFrame::reply("/never", 1, "late")).await;
    let [one, two] = [victim.calls("/echo", "one"), victim.calls("/echo", "two")];
    honest(&mut peer, 2, 2).await;
    assert_eq!(soon("one", one).await.expect("a reply"), "one");
    assert_eq!(soon("two", two).await.expect("a reply"), "two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_comes_byte_by_byte_is_accepted() {
    let (_victim, mut peer, channel) = Victim::with_channel(Client::builder()).await;
    let call = spawn(channel.request("/drip", "x"));
    peer.frame().await;
    let mut reply = RawFrame::new(4, "/drip", 1, "byte ").encode();
    reply.extend(RawFrame::new(6, "", 1, "by ").encode());
    reply.extend(RawFrame::new(7, "/other", 1, "byte").encode());
    for byte in reply {
        peer.send(&[byte]).await;
    }
    assert_eq!(
        soon("the call", call).await.expect("a reply"),
        "byte by byte"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_reply_and_then_silence_fails_every_call_after_the_timeout() {
    let limits = Limits::default()
        .progress_timeout(SHORT)
        .frame_head_timeout(SHORT);
    let body = [RawFrame::head(5, "/echo", 1, 10), b"half".to_vec()].concat();
    let head = RawFrame::head(5, "/echo", 1, 10)[..6].to_vec();
    let part = RawFrame::new(4, "/echo", 1, "the first of two").encode();
    for (what, bytes) in [
        ("half a body", body),
        ("half a head", head),
        ("half a message", part),
    ] {
        let config = Client::builder().limits(limits.clone());
        let (victim, mut peer, channel) = Victim::with_channel(config).await;
        let calls: Vec<_> = (0..10)
            .map(|_| spawn(channel.request("/echo", "x")))
            .collect();
        for _ in 0..10 {
            peer.frame().await;
        }
        peer.send(&bytes).await;
        assert!(peer.closed().await.is_empty(), "{what}");
        for call in calls {
            lost(what, call).await;
        }
        victim.is_served_by_a_new_connection().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_closes_fails_a_hundred_calls_at_once() {
    let half = [RawFrame::head(5, "/echo", 1, 10), b"half".to_vec()].concat();
    let cases: [(&str, &[u8], bool); 6] = [
        ("FIN", &[], false),
        ("RST", &[], true),
        ("half a reply and FIN", &half, false),
        ("half a reply and RST", &half, true),
        ("status 8 in one byte", &[8], false),
        (
            "status 8 in a frame",
            &[8, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            false,
        ),
    ];
    for (what, bytes, reset) in cases {
        let (victim, mut peer, channel) = Victim::with_channel(Client::builder()).await;
        let calls: Vec<_> = (0..100)
            .map(|_| spawn(channel.request("/echo", "x")))
            .collect();
        for _ in 0..100 {
            peer.frame().await;
        }
        peer.send(bytes).await;
        let dropped = Instant::now();
        match reset {
            true => peer.reset().await,
            false => peer.finish_sending(),
        }
        for call in calls {
            lost(what, call).await;
        }
        assert!(
            dropped.elapsed() < SERVED,
            "{what}: the last failed after {:?}",
            dropped.elapsed()
        );
        victim.is_served_by_a_new_connection().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_call_makes_few_connections_to_a_server_that_closes_at_once() {
    let (listener, addr) = listener().await;
    let accepts = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = accepts.clone();
    let hanging_up = spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            drop(stream);
        }
    });
    let config = Client::builder().timeout(Duration::from_millis(500));
    let client = config.connect_lazy(addr.to_string()).expect("an address");
    let error = within("a call", client.request("/echo", "x"))
        .await
        .expect_err("no server replies");
    assert_ne!(
        error.execution(),
        Execution::MayHaveExecuted,
        "nothing was sent: {error}"
    );
    let accepts = accepts.load(std::sync::atomic::Ordering::SeqCst);
    assert!(accepts <= 50, "{accepts} connections in half a second");
    hanging_up.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_floods_does_not_delay_the_timeouts_of_others() {
    const ALLOWED: Duration = Duration::from_secs(2);
    let (victim, stream) = Victim::connect(Client::builder()).await;
    let mut peer = Peer::over(stream);
    let stream_channel = victim.granted_channel(&mut peer, 1).await;
    let never_channel = victim.granted_channel(&mut peer, 2).await;
    drop(stream_channel);
    let client = victim.client.clone();
    let mut parts = within("the stream", client.stream("/endless", "x"))
        .await
        .expect("connected");
    assert_eq!(peer.frame().await, RawFrame::request("/endless", 1, "x"));
    let never = spawn(never_channel.request("/never", "x"));
    assert_eq!(peer.frame().await, RawFrame::request("/never", 2, "x"));
    // A third call with its own timeout.
    drop(never);
    let timed = victim.calls_within("/timed", ALLOWED);
    peer.grants(3).await;
    assert_eq!(peer.frame().await.path, b"/timed");
    let taking = spawn(async move {
        let mut taken = 0;
        while let Some(Ok(part)) = parts.next().await {
            taken += part.len();
        }
        taken
    });
    let flooding = spawn(async move {
        peer.send_frame(&RawFrame::new(4, "/endless", 1, "x")).await;
        // Enough frames per write that the client is the slower side.
        let more = RawFrame::new(6, "/", 1, "x").encode().repeat(50_000);
        for _ in 0..1000 {
            peer.send(&more).await;
        }
    });
    let error = within("the call with a timeout", timed)
        .await
        .expect("no panic")
        .expect_err("no reply");
    assert!(error.is_timeout(), "{error}");
    // The test does not depend on when the flood pauses.
    assert!(
        error.phases().total() < ALLOWED + SERVED,
        "failed late: {error}"
    );
    flooding.abort();
    taking.abort();
}

// ---- memory

#[test]
fn a_declared_length_reserves_no_memory() {
    alone("a_declared_length_reserves_no_memory", || async {
        let mut held = Vec::new();
        let before = resident_bytes();
        for _ in 0..50 {
            let (victim, mut peer, channel) = Victim::with_channel(Client::builder()).await;
            let calls =
                [channel.request("/echo", "x"), channel.request("/big", "x")].map(tokio::spawn);
            peer.frame().await;
            peer.frame().await;
            // When the first reply arrives, the head of the second one has been read with it.
            let mut bytes = RawFrame::reply("/echo", 1, "x").encode();
            bytes.extend(RawFrame::head(5, "/big", 1, 16 << 20));
            bytes.push(b'y');
            peer.send(&bytes).await;
            let [first, second] = calls;
            soon("the first reply", first).await.expect("a reply");
            held.push((victim, peer, channel, second));
        }
        assert_grown_less(before, 16 * MIB);
    });
}

#[test]
fn an_endless_reply_fails_only_its_own_call_at_the_message_limit() {
    alone(
        "an_endless_reply_fails_only_its_own_call_at_the_message_limit",
        || async {
            let config = Client::builder().limits(Limits::default().max_message_bytes(MIB));
            let (victim, mut peer, channel) = Victim::with_channel(config).await;
            let call = spawn(channel.request("/endless", "x"));
            peer.frame().await;
            let before = resident_bytes();
            let body = vec![b'b'; 64 * 1024];
            peer.send_frame(&RawFrame::new(4, "/endless", 1, &body))
                .await;
            let more = RawFrame::new(6, "/endless", 1, &body).encode();
            for _ in 0..30 {
                peer.send(&more).await;
            }
            let error = soon("the call", call).await.expect_err("too large");
            assert!(
                matches!(
                    error.kind(),
                    CallErrorKind::MessageTooLarge { limit: MIB, .. }
                ),
                "{error}"
            );
            for _ in 0..1600 {
                peer.send(&more).await;
            }
            assert_grown_less(before, 8 * MIB);
            peer.send_frame(&RawFrame::new(7, "/endless", 1, "end"))
                .await;
            // The same connection and the same channel serve the next call.
            let call = spawn(channel.request("/echo", "after"));
            assert_eq!(peer.frame().await, RawFrame::request("/echo", 1, "after"));
            peer.send_frame(&RawFrame::reply("/echo", 1, "after")).await;
            assert_eq!(soon("the next call", call).await.expect("a reply"), "after");
            drop(victim);
        },
    );
}

#[test]
fn an_unread_streamed_reply_is_bounded_or_ended() {
    alone("an_unread_streamed_reply_is_bounded_or_ended", || async {
        let config = Client::builder().limits(Limits::default().max_message_bytes(4 * MIB));
        let (victim, mut peer) = Victim::with_peer(config).await;
        peer.grants(1).await;
        let mut parts = within("the stream", victim.client.stream("/endless", "x"))
            .await
            .expect("connected");
        assert_eq!(peer.frame().await, RawFrame::request("/endless", 1, "x"));
        let before = resident_bytes();
        let body = vec![b'b'; 64 * 1024];
        peer.send_frame(&RawFrame::new(4, "/endless", 1, &body))
            .await;
        let more = RawFrame::new(6, "/endless", 1, &body).encode();
        // 100 MiB, and the caller reads nothing.
        for _ in 0..1600 {
            peer.send(&more).await;
        }
        // Another call is served meanwhile: the slow caller does not delay it.
        let call = victim.calls("/echo", "other");
        honest(&mut peer, 1, 1).await;
        assert_eq!(
            soon("the other call", call).await.expect("a reply"),
            "other"
        );
        assert_grown_less(before, 16 * MIB);
        // The parts received by then may be read, and then comes an error, not the end of the
        // reply.
        let mut taken = 0;
        let error = loop {
            match within("a part", parts.next()).await {
                Some(Ok(part)) => taken += part.len(),
                Some(Err(error)) => break error,
                None => panic!("a reply without end ended after {taken} bytes"),
            }
        };
        assert!(
            matches!(error.kind(), CallErrorKind::MessageTooLarge { .. }),
            "{error}"
        );
    });
}

#[test]
fn a_reply_of_single_byte_frames_is_counted_with_its_overhead() {
    alone(
        "a_reply_of_single_byte_frames_is_counted_with_its_overhead",
        || async {
            const FRAMES: usize = 200_000;
            let (_victim, mut peer, channel) = Victim::with_channel(Client::builder()).await;
            let call = spawn(channel.request("/bytes", "x"));
            peer.frame().await;
            let before = resident_bytes();
            peer.send_frame(&RawFrame::new(4, "/bytes", 1, "x")).await;
            let thousand = RawFrame::new(6, "/", 1, "x").encode().repeat(1000);
            for _ in 0..FRAMES / 1000 {
                peer.send(&thousand).await;
            }
            peer.send_frame(&RawFrame::new(7, "/", 1, "x")).await;
            let reply = within("the reply", call)
                .await
                .expect("no panic")
                .expect("a legal reply");
            assert_eq!(reply.len(), FRAMES + 2);
            assert_grown_less(before, 8 * MIB);
        },
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_read_fails_its_callers_after_the_timeout() {
    let config = Client::builder().limits(Limits::default().progress_timeout(SHORT));
    let (victim, mut stream) = Victim::connect_to(narrow_listener(4096), config).await;
    let mut asked = RawFrame::new_channel().encode();
    within("the request for a channel", stream.read_exact(&mut asked))
        .await
        .expect("it comes");
    sent(&mut stream, &RawFrame::grant(1).encode()).await;
    // More than the buffers of the kernel hold in both directions together.
    let body = Bytes::from(lin(1, 16 * MIB));
    let calls: Vec<_> = (0..4)
        .map(|_| victim.calls("/echo", body.clone()))
        .collect();
    for call in calls {
        let error = soon("a call", call)
            .await
            .expect_err("the server reads nothing");
        assert!(
            matches!(error.kind(), CallErrorKind::ConnectionLost(_)),
            "{error}"
        );
    }
    victim.is_served_by_a_new_connection().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_beyond_the_queue_limit_are_rejected_at_once_and_not_sent() {
    let config = Client::builder().max_channels(1).max_queued_calls(10);
    let (victim, mut peer, channel) = Victim::with_channel(config).await;
    // The only channel is in use.
    let mut waiting = Vec::new();
    for _ in 0..10 {
        waiting.push(started(victim.client.request("/echo", "waits")).await);
    }
    let rejected = within("the call beyond", victim.client.request("/echo", "x")).await;
    let error = rejected.expect_err("the queue is full");
    assert!(
        matches!(error.kind(), CallErrorKind::QueueFull { limit: 10 }),
        "{error}"
    );
    assert_eq!(error.execution(), Execution::NotSent);
    // A dropped call frees its entry in the queue.
    waiting.pop();
    let call = started(victim.client.request("/echo", "instead")).await;
    waiting.push(call);
    drop(channel);
    let replying = spawn(async move {
        honest(&mut peer, 1, 10).await;
        peer
    });
    for (n, waiting) in waiting.into_iter().enumerate() {
        let expected = if n == 9 { "instead" } else { "waits" };
        let reply = within("a call", waiting.finish()).await;
        assert_eq!(reply.expect("a reply"), expected);
    }
    within("the server", replying).await.expect("no panic");
}

// ---- hello

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_reply_to_hello_means_a_plain_peer() {
    let deep = "[".repeat(200_000);
    let long = format!("{{\"iip\":1,\"x\":\"{}\"}}", "x".repeat(MIB));
    let replies = [
        r#"{"code":102,"message":"handle error"}"#,
        "not json",
        "{}",
        r#"{"iip":-1}"#,
        r#"{"iip":"1"}"#,
        r#"{"iip":1e99,"max_frame":-5}"#,
        &deep,
        &long,
    ];
    for reply in replies {
        let what = &reply[..reply.len().min(40)];
        let (listener, addr) = listener().await;
        let config = Client::builder().hello(serde_json::json!({}));
        let call = spawn(async move {
            let client = config.connect(addr.to_string()).await?;
            client.request("/echo", "x").await
        });
        let mut peer = Peer::over(accepted(&listener).await);
        assert_eq!(peer.frame().await.path, b"/sys/hello", "{what}");
        peer.send_frame(&RawFrame::reply("/sys/hello", 0, reply))
            .await;
        honest(&mut peer, 0, 1).await;
        assert_eq!(
            soon(what, call).await.expect("a plain peer is a peer"),
            "x",
            "{what}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_without_a_reply_fails_the_connecting_in_time() {
    let (listener, addr) = listener().await;
    let config = Client::builder()
        .hello(serde_json::json!({}))
        .connect_timeout(SHORT);
    let connecting = spawn(config.connect(addr.to_string()));
    let mut peer = Peer::over(accepted(&listener).await);
    assert_eq!(peer.frame().await.path, b"/sys/hello");
    let error = soon("connecting", connecting)
        .await
        .expect_err("no reply to hello");
    assert_eq!(error.execution(), Execution::NotSent);
    assert!(
        matches!(error.kind(), CallErrorKind::Connect { .. }),
        "{error}"
    );
    // The attempt that was given up leaves no connection open.
    peer.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_closes_although_the_server_sends_no_replies() {
    let (victim, mut peer, channel) = Victim::with_channel(Client::builder()).await;
    let call = spawn(channel.request("/never", "x"));
    peer.frame().await;
    within("closing", victim.client.close(SHORT)).await;
    lost("the call", call).await;
    peer.closed().await;
    let error = within("a later call", victim.client.request("/echo", "x"))
        .await
        .expect_err("the client is closed");
    assert!(matches!(error.kind(), CallErrorKind::Closed), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_abandoned_calls_closes_without_waiting_for_their_replies() {
    let (victim, mut peer, channel) = Victim::with_channel(Client::builder()).await;
    let call = channel.request("/never", "x");
    peer.frame().await;
    drop(call);
    drop(channel);
    tokio::time::timeout(SERVED, victim.client.close(GUARD))
        .await
        .expect("no call waits");
    peer.closed().await;
}

#[test]
fn a_flood_at_a_client_that_asked_for_nothing_is_not_read() {
    alone(
        "a_flood_at_a_client_that_asked_for_nothing_is_not_read",
        || async {
            let (victim, mut stream) = Victim::connect(Client::builder()).await;
            let before = resident_bytes();
            let frame = RawFrame::reply("/x", 1, vec![b'x'; 60 * 1024]).encode();
            match flood(&mut stream, &frame, 2000, SERVED).await {
                Flooded::Closed { sent, .. } => {
                    assert!(sent < 500, "{sent} frames of 60 KiB were taken")
                }
                other => panic!("not closed: {other:?}"),
            }
            assert_grown_less(before, 12 * MIB);
            victim.is_served_by_a_new_connection().await;
        },
    );
}
