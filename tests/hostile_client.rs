//! A hostile server against our client, over real sockets: whatever it sends or leaves out, callers are told soon, no
//! answer reaches the wrong caller, memory stays bounded, and the same client is served by the next connection.

use std::time::{Duration, Instant};

use bytes::Bytes;
use iip_core::{CallError, CallErrorKind, CallOptions, ClientConfig, Execution, Limits};
use tokio::io::AsyncReadExt;

use crate::common::alone::alone;
use crate::common::frame::RawFrame;
use crate::common::generate::lin;
use crate::common::peer::{Flooded, Peer, accepted, flood, listener, narrow_listener, sent};
use crate::common::victim::{Pending, Victim, honest, soon};
use crate::common::{
    GUARD, MIB, SERVED, assert_grown_less, passes, resident_bytes, started, within,
};

/// A time limit that is over soon, so that no test waits long for it.
const SHORT: Duration = Duration::from_millis(200);

/// A time limit that a busy machine does not reach by itself.
const TIME: Duration = Duration::from_secs(5);

/// The call must fail soon, because its connection is gone.
async fn lost<T>(what: &str, pending: Pending<T>) -> CallError {
    match soon(what, pending).await {
        Err(error) if matches!(error.kind(), CallErrorKind::ConnectionLost(_)) => error,
        Err(error) => panic!("{what}: the connection was lost, but the caller was told: {error}"),
        Ok(_) => panic!("{what}: an answer, although the connection was lost"),
    }
}

// ---- bytes that end the connection

/// Sends `bytes` when one call is under way on channel 1: the client must close, and say so to everyone.
async fn ends_the_connection(what: &str, bytes: &[u8]) {
    let (victim, mut peer, channel) = Victim::with_channel(ClientConfig::new()).await;
    let call = tokio::spawn(channel.request("/echo", "x"));
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
    lost(what, tokio::spawn(channel.request("/echo", "later"))).await;
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
async fn a_path_that_does_not_end_is_refused_at_byte_2050() {
    ends_the_connection(
        "2049 bytes of path",
        &[&[5], "p".repeat(2049).as_bytes()].concat(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_speaks_something_else_is_refused_at_its_first_byte() {
    // TLS alert, HTTP, SSH, and whatever else is no status.
    for first in [0x15, b'H', b'S', 9, 0x80, 0xff] {
        ends_the_connection(&format!("first byte {first}"), &[first]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_on_a_channel_that_was_never_granted_ends_the_connection_before_its_length_comes()
{
    for channel in [2, 77, 1 << 31, u32::MAX] {
        let head = RawFrame::head(5, "/echo", channel, 1);
        ends_the_connection(&format!("channel {channel}"), &head[..head.len() - 4]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_too_many_is_given_to_nobody() {
    for sends_twice in [
        RawFrame::answer("/mine", 1, "a secret").encode(),
        RawFrame::new(4, "/mine", 1, "a secret").encode(),
    ] {
        let (victim, mut peer, channel) = Victim::with_channel(ClientConfig::new()).await;
        let mine = tokio::spawn(channel.request("/mine", "x"));
        assert_eq!(peer.frame().await, RawFrame::request("/mine", 1, "x"));
        peer.send_frame(&RawFrame::answer("/mine", 1, "a secret"))
            .await;
        assert_eq!(soon("my call", mine).await.expect("an answer"), "a secret");
        // The next call is under way before the answer too many comes.
        let yours = tokio::spawn(channel.request("/yours?x=1", "y"));
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
async fn an_answer_nobody_asked_for_ends_the_connection() {
    let answer = RawFrame::answer("/echo", 1, "x").encode();
    let (victim, mut peer, channel) = Victim::with_channel(ClientConfig::new()).await;
    peer.send(&answer).await;
    assert!(peer.closed().await.is_empty());
    lost(
        "after the answer",
        tokio::spawn(channel.request("/echo", "x")),
    )
    .await;
    victim.is_served_by_a_new_connection().await;
    // The same on channel 0, where only grants are due.
    ends_the_connection(
        "an answer on channel 0",
        &RawFrame::answer("/x", 0, "unsolicited").encode(),
    )
    .await;
    ends_the_connection("a grant nobody asked for", &RawFrame::grant(2).encode()).await;
}

/// What brings the channel's answers into each state, and which statuses are legal there, with enough calls under way.
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
            let (victim, mut peer, channel) = Victim::with_channel(ClientConfig::new()).await;
            let calls: Vec<_> = (0..3)
                .map(|_| tokio::spawn(channel.request("/echo", "x")))
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
                // Alive: channel 0 still grants.
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
async fn a_grant_that_makes_no_sense_fails_those_who_wait_at_once() {
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
        let answer = RawFrame::answer("/sys/new_channel", 0, grant);
        let (victim, mut peer) = Victim::with_peer(ClientConfig::new()).await;
        let asked = victim.asks_for_channel();
        let called = started(victim.client.request("/echo", "x")).await;
        peer.answers_new_channel(&answer).await;
        let error = soon(what, asked).await.expect_err(what);
        assert_eq!(error.execution(), Execution::NotSent, "{what}: {error}");
        drop(called);
        peer.closed().await;
        victim.is_served_by_a_new_connection().await;

        // The same for a later channel: everyone on the connection is told.
        let (victim, mut peer, channel) = Victim::with_channel(ClientConfig::new()).await;
        let call = tokio::spawn(channel.request("/echo", "x"));
        assert_eq!(peer.frame().await, RawFrame::request("/echo", 1, "x"));
        let asked = victim.asks_for_channel();
        peer.answers_new_channel(&answer).await;
        lost(what, asked).await;
        lost(what, call).await;
        peer.closed().await;
        victim.is_served_by_a_new_connection().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_grant_of_a_channel_in_use_ends_the_connection() {
    let (victim, mut peer, channel) = Victim::with_channel(ClientConfig::new()).await;
    let call = tokio::spawn(channel.request("/echo", "mine"));
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
    let (victim, mut peer) = Victim::with_peer(ClientConfig::new()).await;
    for id in [u32::MAX, 1, 1 << 31, 4096, 4095, 70_000] {
        let channel = victim.granted_channel(&mut peer, id).await;
        let call = tokio::spawn(channel.request("/echo", "x"));
        assert_eq!(peer.frame().await, RawFrame::request("/echo", id, "x"));
        peer.send_frame(&RawFrame::answer("/echo", id, "x")).await;
        assert_eq!(soon("a call", call).await.expect("an answer"), "x");
        // Kept, or the pool would hand it out again.
        std::mem::forget(channel);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_channels_leave_the_ones_there_are_in_use() {
    let (victim, mut peer) = Victim::with_peer(ClientConfig::new()).await;
    let calls: Vec<_> = (0..20)
        .map(|n: u32| victim.calls("/echo", n.to_string()))
        .collect();
    peer.grants(1).await;
    let mut answered = 0;
    while answered < 20 {
        let frame = peer.frame().await;
        if frame.path == b"/sys/new_channel" {
            let refusal = r#"{"code":106,"message":"channel create limited"}"#;
            peer.send_frame(&RawFrame::answer("/sys/new_channel", 0, refusal))
                .await;
        } else {
            peer.send_frame(&RawFrame::answer(&frame.path, frame.channel, &frame.body))
                .await;
            answered += 1;
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
async fn a_grant_that_never_comes_costs_a_caller_its_own_time_and_nothing_is_sent() {
    let config = ClientConfig::new().call_timeout(SHORT);
    let (victim, mut peer, _channel) = Victim::with_channel(config).await;
    let calls: Vec<_> = (0..50).map(|_| victim.calls("/echo", "x")).collect();
    for call in calls {
        let error = soon("a call", call).await.expect_err("there is no channel");
        assert!(error.is_timeout(), "{error}");
        assert_eq!(error.execution(), Execution::NotSent, "{error}");
    }
    // The connection is as it was: the late grant is used, for the call that still waits and for no other.
    let patient = CallOptions::new().timeout(GUARD);
    let late = victim.client.request_with("/echo", "late", patient);
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
    peer.send_frame(&RawFrame::answer("/echo", 2, "late")).await;
    let answer = within("the call", call.finish()).await;
    assert_eq!(answer.expect("an answer"), "late");
}

#[tokio::test]
async fn a_first_grant_that_never_comes_fails_the_connecting_in_time() {
    let config = ClientConfig::new().connect_timeout(TIME);
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

// ---- answers that come late, never, or in pieces

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_to_callers_who_have_gone_are_swallowed_and_the_next_caller_gets_its_own() {
    let (_victim, mut peer, channel) = Victim::with_channel(ClientConfig::new()).await;
    for n in 0..500 {
        let gone = channel.request("/echo", format!("gone {n}"));
        let stays = tokio::spawn(channel.request("/echo", format!("stays {n}")));
        let first = peer.frame().await;
        drop(gone);
        let second = peer.frame().await;
        // Every shape of answer: whole, in parts, and one part before the caller went.
        if n % 2 == 0 {
            peer.send_frame(&RawFrame::answer("/echo", 1, &first.body))
                .await;
        } else {
            peer.send_frame(&RawFrame::new(4, "/echo", 1, &first.body))
                .await;
            peer.send_frame(&RawFrame::new(6, "/echo", 1, "more")).await;
            peer.send_frame(&RawFrame::new(7, "/echo", 1, "end")).await;
        }
        peer.send_frame(&RawFrame::answer("/echo", 1, &second.body))
            .await;
        assert_eq!(
            soon("a call", stays).await.expect("its own answer"),
            format!("stays {n}")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_goes_in_the_middle_of_its_answer_leaves_the_order_intact() {
    let (_victim, mut peer, channel) = Victim::with_channel(ClientConfig::new()).await;
    let gone = channel.request("/a", "x");
    let stays = tokio::spawn(channel.request("/b", "x"));
    peer.frame().await;
    peer.frame().await;
    peer.send_frame(&RawFrame::new(4, "/a", 1, "first part of a"))
        .await;
    // A second connection's worth of proof that the part was taken: the reply on another channel.
    drop(gone);
    peer.send_frame(&RawFrame::new(6, "/a", 1, "second part of a"))
        .await;
    peer.send_frame(&RawFrame::new(7, "/a", 1, "last part of a"))
        .await;
    peer.send_frame(&RawFrame::answer("/b", 1, "b")).await;
    assert_eq!(
        soon("the other call", stays).await.expect("its own answer"),
        "b"
    );
}

#[tokio::test]
async fn a_call_that_is_never_answered_times_out_and_takes_nobody_with_it() {
    let (victim, mut peer) = Victim::with_peer(ClientConfig::new()).await;
    let client = victim.client.clone();
    let never = tokio::spawn(async move {
        client
            .request_with("/never", "x", CallOptions::new().timeout(TIME))
            .await
    });
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
    let error = soon("the call", never).await.expect_err("no answer");
    assert!(error.is_timeout(), "{error}");
    assert_eq!(error.execution(), Execution::MayHaveExecuted, "{error}");
    peer.send_frame(&RawFrame::answer("/echo", 2, "other"))
        .await;
    assert_eq!(
        soon("the other call", other).await.expect("an answer"),
        "other"
    );
    // The answer that comes after all is swallowed, and then the channel is good again.
    peer.send_frame(&RawFrame::answer("/never", 1, "late"))
        .await;
    let [one, two] = [victim.calls("/echo", "one"), victim.calls("/echo", "two")];
    honest(&mut peer, 2, 2).await;
    assert_eq!(soon("one", one).await.expect("an answer"), "one");
    assert_eq!(soon("two", two).await.expect("an answer"), "two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_drips_is_taken() {
    let (_victim, mut peer, channel) = Victim::with_channel(ClientConfig::new()).await;
    let call = tokio::spawn(channel.request("/drip", "x"));
    peer.frame().await;
    let mut answer = RawFrame::new(4, "/drip", 1, "byte ").encode();
    answer.extend(RawFrame::new(6, "", 1, "by ").encode());
    answer.extend(RawFrame::new(7, "/other", 1, "byte").encode());
    for byte in answer {
        peer.send(&[byte]).await;
    }
    assert_eq!(
        soon("the call", call).await.expect("an answer"),
        "byte by byte"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_an_answer_and_then_silence_fails_everyone_after_the_time_limit() {
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
        let config = ClientConfig::new().limits(limits.clone());
        let (victim, mut peer, channel) = Victim::with_channel(config).await;
        let calls: Vec<_> = (0..10)
            .map(|_| tokio::spawn(channel.request("/echo", "x")))
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
async fn a_server_that_goes_tells_a_hundred_callers_at_once() {
    let half = [RawFrame::head(5, "/echo", 1, 10), b"half".to_vec()].concat();
    let cases: [(&str, &[u8], bool); 6] = [
        ("FIN", &[], false),
        ("RST", &[], true),
        ("half an answer and FIN", &half, false),
        ("half an answer and RST", &half, true),
        ("status 8 in one byte", &[8], false),
        (
            "status 8 in a frame",
            &[8, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            false,
        ),
    ];
    for (what, bytes, reset) in cases {
        let (victim, mut peer, channel) = Victim::with_channel(ClientConfig::new()).await;
        let calls: Vec<_> = (0..100)
            .map(|_| tokio::spawn(channel.request("/echo", "x")))
            .collect();
        for _ in 0..100 {
            peer.frame().await;
        }
        peer.send(bytes).await;
        let gone = Instant::now();
        match reset {
            true => peer.reset().await,
            false => peer.finish_sending(),
        }
        for call in calls {
            lost(what, call).await;
        }
        assert!(
            gone.elapsed() < SERVED,
            "{what}: the last was told after {:?}",
            gone.elapsed()
        );
        victim.is_served_by_a_new_connection().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_call_makes_few_connections_to_a_server_that_hangs_up_at_once() {
    let (listener, addr) = listener().await;
    let accepts = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = accepts.clone();
    let hanging_up = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            drop(stream);
        }
    });
    let config = ClientConfig::new().call_timeout(Duration::from_millis(500));
    let client = config.connect_lazy(addr.to_string()).expect("an address");
    let error = within("a call", client.request("/echo", "x"))
        .await
        .expect_err("nobody answers");
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
async fn a_server_that_floods_does_not_hold_up_the_timeouts_of_others() {
    const ALLOWED: Duration = Duration::from_secs(2);
    let (victim, stream) = Victim::connect(ClientConfig::new()).await;
    let mut peer = Peer::over(stream);
    let stream_channel = victim.granted_channel(&mut peer, 1).await;
    let never_channel = victim.granted_channel(&mut peer, 2).await;
    drop(stream_channel);
    let client = victim.client.clone();
    let mut parts = within("the stream", client.stream("/endless", "x"))
        .await
        .expect("connected");
    assert_eq!(peer.frame().await, RawFrame::request("/endless", 1, "x"));
    let never = tokio::spawn(never_channel.request("/never", "x"));
    assert_eq!(peer.frame().await, RawFrame::request("/never", 2, "x"));
    // A third call with a timeout of its own.
    drop(never);
    let client = victim.client.clone();
    let timed = tokio::spawn(async move {
        client
            .request_with("/timed", "x", CallOptions::new().timeout(ALLOWED))
            .await
    });
    peer.grants(3).await;
    assert_eq!(peer.frame().await.path, b"/timed");
    let taking = tokio::spawn(async move {
        let mut taken = 0;
        while let Some(Ok(part)) = parts.next().await {
            taken += part.len();
        }
        taken
    });
    let flooding = tokio::spawn(async move {
        peer.send_frame(&RawFrame::new(4, "/endless", 1, "x")).await;
        // As many frames per write as make the client the slower side.
        let more = RawFrame::new(6, "/", 1, "x").encode().repeat(50_000);
        for _ in 0..1000 {
            peer.send(&more).await;
        }
    });
    let error = within("the call with a timeout", timed)
        .await
        .expect("no panic")
        .expect_err("no answer");
    assert!(error.is_timeout(), "{error}");
    // When the flood happens to pause is not its business.
    assert!(
        error.phases().total() < ALLOWED + SERVED,
        "told late: {error}"
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
            let (victim, mut peer, channel) = Victim::with_channel(ClientConfig::new()).await;
            let calls =
                [channel.request("/echo", "x"), channel.request("/big", "x")].map(tokio::spawn);
            peer.frame().await;
            peer.frame().await;
            // The first answer's arrival shows that the second one's head has been read with it.
            let mut bytes = RawFrame::answer("/echo", 1, "x").encode();
            bytes.extend(RawFrame::head(5, "/big", 1, 16 << 20));
            bytes.push(b'y');
            peer.send(&bytes).await;
            let [first, second] = calls;
            soon("the first answer", first).await.expect("an answer");
            held.push((victim, peer, channel, second));
        }
        assert_grown_less(before, 16 * MIB);
    });
}

#[test]
fn an_answer_without_end_fails_its_call_at_the_message_limit_and_nobody_else() {
    alone(
        "an_answer_without_end_fails_its_call_at_the_message_limit_and_nobody_else",
        || async {
            let config = ClientConfig::new().limits(Limits::default().max_message_bytes(MIB));
            let (victim, mut peer, channel) = Victim::with_channel(config).await;
            let call = tokio::spawn(channel.request("/endless", "x"));
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
            // The same connection, the same channel.
            let call = tokio::spawn(channel.request("/echo", "after"));
            assert_eq!(peer.frame().await, RawFrame::request("/echo", 1, "after"));
            peer.send_frame(&RawFrame::answer("/echo", 1, "after"))
                .await;
            assert_eq!(
                soon("the next call", call).await.expect("an answer"),
                "after"
            );
            drop(victim);
        },
    );
}

#[test]
fn a_streamed_answer_that_nobody_takes_is_bounded_or_ended() {
    alone(
        "a_streamed_answer_that_nobody_takes_is_bounded_or_ended",
        || async {
            let config = ClientConfig::new().limits(Limits::default().max_message_bytes(4 * MIB));
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
            // 100 MiB, and the caller takes nothing.
            for _ in 0..1600 {
                peer.send(&more).await;
            }
            // Another call is served meanwhile: its neighbour's slowness is not its own.
            let call = victim.calls("/echo", "neighbour");
            honest(&mut peer, 1, 1).await;
            assert_eq!(
                soon("the neighbour", call).await.expect("an answer"),
                "neighbour"
            );
            assert_grown_less(before, 16 * MIB);
            // What was taken by then may be read, and then comes an error, not the end of the answer.
            let mut taken = 0;
            let error = loop {
                match within("a part", parts.next()).await {
                    Some(Ok(part)) => taken += part.len(),
                    Some(Err(error)) => break error,
                    None => panic!("an answer without end ended after {taken} bytes"),
                }
            };
            assert!(
                matches!(error.kind(), CallErrorKind::MessageTooLarge { .. }),
                "{error}"
            );
        },
    );
}

#[test]
fn an_answer_of_single_byte_frames_costs_what_it_weighs() {
    alone(
        "an_answer_of_single_byte_frames_costs_what_it_weighs",
        || async {
            const FRAMES: usize = 200_000;
            let (_victim, mut peer, channel) = Victim::with_channel(ClientConfig::new()).await;
            let call = tokio::spawn(channel.request("/bytes", "x"));
            peer.frame().await;
            let before = resident_bytes();
            peer.send_frame(&RawFrame::new(4, "/bytes", 1, "x")).await;
            let thousand = RawFrame::new(6, "/", 1, "x").encode().repeat(1000);
            for _ in 0..FRAMES / 1000 {
                peer.send(&thousand).await;
            }
            peer.send_frame(&RawFrame::new(7, "/", 1, "x")).await;
            let answer = within("the answer", call)
                .await
                .expect("no panic")
                .expect("a legal answer");
            assert_eq!(answer.len(), FRAMES + 2);
            assert_grown_less(before, 8 * MIB);
        },
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_read_fails_its_callers_after_the_time_limit() {
    let config = ClientConfig::new().limits(Limits::default().progress_timeout(SHORT));
    let (victim, mut stream) = Victim::connect_to(narrow_listener(4096), config).await;
    let mut asked = RawFrame::new_channel().encode();
    within("the request for a channel", stream.read_exact(&mut asked))
        .await
        .expect("it comes");
    sent(&mut stream, &RawFrame::grant(1).encode()).await;
    // More than the buffers of the kernel take in both directions together.
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
async fn more_calls_than_may_wait_are_refused_at_once_and_not_sent() {
    let config = ClientConfig::new().max_channels(1).max_queued_calls(10);
    let (victim, mut peer, channel) = Victim::with_channel(config).await;
    // The only channel is taken.
    let mut waiting = Vec::new();
    for _ in 0..10 {
        waiting.push(started(victim.client.request("/echo", "waits")).await);
    }
    let refused = within("the call beyond", victim.client.request("/echo", "x")).await;
    let error = refused.expect_err("the queue is full");
    assert!(
        matches!(error.kind(), CallErrorKind::QueueFull { limit: 10 }),
        "{error}"
    );
    assert_eq!(error.execution(), Execution::NotSent);
    // A caller who goes makes room.
    waiting.pop();
    let call = started(victim.client.request("/echo", "instead")).await;
    waiting.push(call);
    drop(channel);
    let answering = tokio::spawn(async move {
        honest(&mut peer, 1, 10).await;
        peer
    });
    for (n, waiting) in waiting.into_iter().enumerate() {
        let expected = if n == 9 { "instead" } else { "waits" };
        let answer = within("a call", waiting.finish()).await;
        assert_eq!(answer.expect("an answer"), expected);
    }
    within("the server", answering).await.expect("no panic");
}

// ---- hello

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_to_hello_that_makes_no_sense_means_a_plain_peer() {
    let deep = "[".repeat(200_000);
    let long = format!("{{\"iip\":1,\"x\":\"{}\"}}", "x".repeat(MIB));
    let answers = [
        r#"{"code":102,"message":"handle error"}"#,
        "not json",
        "{}",
        r#"{"iip":-1}"#,
        r#"{"iip":"1"}"#,
        r#"{"iip":1e99,"max_frame":-5}"#,
        &deep,
        &long,
    ];
    for answer in answers {
        let what = &answer[..answer.len().min(40)];
        let (listener, addr) = listener().await;
        let config = ClientConfig::new().hello(serde_json::json!({}));
        let call = tokio::spawn(async move {
            let client = config.connect(addr.to_string()).await?;
            client.request("/echo", "x").await
        });
        let mut peer = Peer::over(accepted(&listener).await);
        assert_eq!(peer.frame().await.path, b"/sys/hello", "{what}");
        peer.send_frame(&RawFrame::answer("/sys/hello", 0, answer))
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
async fn a_hello_that_is_never_answered_fails_the_connecting_in_time() {
    let (listener, addr) = listener().await;
    let config = ClientConfig::new()
        .hello(serde_json::json!({}))
        .connect_timeout(SHORT);
    let connecting = tokio::spawn(config.connect(addr.to_string()));
    let mut peer = Peer::over(accepted(&listener).await);
    assert_eq!(peer.frame().await.path, b"/sys/hello");
    let error = soon("connecting", connecting)
        .await
        .expect_err("no answer to hello");
    assert_eq!(error.execution(), Execution::NotSent);
    assert!(
        matches!(error.kind(), CallErrorKind::Connect { .. }),
        "{error}"
    );
    // The attempt that was given up leaves no connection behind.
    peer.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_closes_although_the_server_answers_nothing() {
    let (victim, mut peer, channel) = Victim::with_channel(ClientConfig::new()).await;
    let call = tokio::spawn(channel.request("/never", "x"));
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
async fn a_client_with_abandoned_calls_closes_without_waiting_for_their_answers() {
    let (victim, mut peer, channel) = Victim::with_channel(ClientConfig::new()).await;
    let call = channel.request("/never", "x");
    peer.frame().await;
    drop(call);
    drop(channel);
    tokio::time::timeout(SERVED, victim.client.close(GUARD))
        .await
        .expect("nobody waits for anything");
    peer.closed().await;
}

#[test]
fn a_flood_at_a_client_that_asked_for_nothing_is_not_read() {
    alone(
        "a_flood_at_a_client_that_asked_for_nothing_is_not_read",
        || async {
            let (victim, mut stream) = Victim::connect(ClientConfig::new()).await;
            let before = resident_bytes();
            let frame = RawFrame::answer("/x", 1, vec![b'x'; 60 * 1024]).encode();
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
