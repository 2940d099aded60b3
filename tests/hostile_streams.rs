//! Hostile peers in calls with streams, over real sockets: a client against our server, and a
//! server against our client. After each attack other calls are served. Attacks on memory are
//! measured in a separate process.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use iip_core::{
    CallErrorKind, Client, Execution, HandlerError, Limits, OnCancel, RecvStream, Request,
    Response, SendStream, Server, StreamError, handler_fn,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::common::alone::alone;
use crate::common::frame::RawFrame;
use crate::common::peer::{
    Flooded, Peer, accepted, flood, narrow_listener, narrow_stream_to, sent,
};
use crate::common::victim::{Victim, soon};
use crate::common::{
    MIB, SERVED, Started, assert_grown_less, bound, eventually, resident_bytes, spawn, started,
    stream_fn, within, work_is_done,
};

const DATA: u8 = 0xF8;
const GRANT: u8 = 0xF9;
const BLOCKED: u8 = 0xFA;
const LAST: u8 = 0xFB;
const CANCEL: u8 = 0xFC;
const OVER: u8 = 0xFD;
const REPLY: u8 = 0xFE;

/// Maximum number of bytes in one frame.
const PART: usize = 64 * 1024;

/// A timeout that expires soon, so that no test waits long for it.
const SHORT: Duration = Duration::from_millis(200);

fn marked(mark: u8, data: impl AsRef<[u8]>) -> Vec<u8> {
    [&[mark], data.as_ref()].concat()
}

/// The first bytes of a client's stream with `window` bytes.
fn hello(window: usize) -> RawFrame {
    let body = format!("{{\"iip\":1,\"stream_window\":{window}}}");
    RawFrame::request("/sys/hello", 0, body)
}

fn first(path: &str, channel: u32, data: impl AsRef<[u8]>) -> RawFrame {
    RawFrame::new(0, path, channel, marked(DATA, data))
}

fn more(channel: u32, body: impl AsRef<[u8]>) -> RawFrame {
    RawFrame::new(2, "", channel, body)
}

fn last(channel: u32, mark: u8) -> RawFrame {
    RawFrame::new(3, "", channel, [mark])
}

fn grant(bytes: u32) -> Vec<u8> {
    marked(GRANT, bytes.to_be_bytes())
}

/// The server under attack.
struct Target {
    addr: SocketAddr,
    _server: Server,
    /// Number of handlers of `/stall` that run, and the highest number so far.
    stalled: Arc<AtomicUsize>,
    max_stalled: Arc<AtomicUsize>,
    /// The outcomes of the streams of `/count`.
    ends: watch::Receiver<Vec<Result<usize, StreamError>>>,
}

struct Leave(Arc<AtomicUsize>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Target {
    async fn start(limits: Limits) -> Self {
        let (stalled, max_stalled) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (end, ends) = watch::channel(Vec::new());
        let (counter, highest) = (Arc::clone(&stalled), Arc::clone(&max_stalled));
        let stall = move |mut request: Request| {
            let now = counter.fetch_add(1, Ordering::SeqCst) + 1;
            highest.fetch_max(now, Ordering::SeqCst);
            let leave = Leave(Arc::clone(&counter));
            async move {
                let _leave = leave;
                let _streams = request.stream().unwrap();
                std::future::pending::<Result<Response, HandlerError>>().await
            }
        };
        let count = move |mut request: Request| {
            let end = end.clone();
            async move {
                let (_send, mut recv) = request.stream().unwrap();
                let mut count = 0;
                let result = loop {
                    match recv.next().await {
                        Some(Ok(part)) => count += part.len(),
                        Some(Err(error)) => break Err(error),
                        None => break Ok(count),
                    }
                };
                end.send_modify(|ends| ends.push(result));
                Ok(Response::from(count.to_string()))
            }
        };
        let config = Server::builder()
            .limits(limits)
            .route("/echo", handler_fn(echo))
            .route("/stall", stream_fn(stall))
            .route("/count", stream_fn(count).on_cancel(OnCancel::RunToEnd))
            .route("/generate", stream_fn(generate))
            .route("/both", stream_fn(both));
        let (server, addr) = bound(config).await;
        Self {
            addr,
            _server: server,
            stalled,
            max_stalled,
            ends,
        }
    }

    /// A target that has served others, and the memory of the process after that.
    async fn measured(limits: Limits) -> (Self, usize) {
        let target = Self::start(limits).await;
        target.serves_others().await;
        (target, resident_bytes())
    }

    /// A peer that supports streams, with this number of channels.
    async fn peer(&self, channels: u32) -> Peer {
        let mut peer = Peer::connect(self.addr).await;
        peer.send_frame(&hello(PART)).await;
        assert_eq!(peer.frame().await.path, b"/sys/hello");
        let asked = RawFrame::new_channel().encode().repeat(channels as usize);
        peer.send(&asked).await;
        for _ in 0..channels {
            peer.frame().await;
        }
        peer
    }

    /// The same with no reader on our side, and with small kernel buffers for unread bytes.
    async fn mute_stream(&self, channels: u32) -> TcpStream {
        let mut stream = narrow_stream_to(self.addr, 4096).await;
        sent(&mut stream, &hello(PART).encode()).await;
        let asked = RawFrame::new_channel().encode().repeat(channels as usize);
        sent(&mut stream, &asked).await;
        stream
    }

    /// The check after every attack: a new connection is served soon, with calls and with streams.
    async fn serves_others(&self) {
        let serve = async {
            let mut peer = self.peer(1).await;
            peer.echoes(1, "are you there").await;
            peer.send_frame(&first("/count", 1, "four")).await;
            peer.send_frame(&more(1, [LAST])).await;
            let reply = peer.frame().await;
            assert_eq!(reply.body, marked(REPLY, "4"));
        };
        tokio::time::timeout(SERVED, serve)
            .await
            .expect("a fresh connection is served in time");
    }

    async fn runs(&self, streams: usize) {
        let what = format!("{streams} streams run");
        let stalled = &self.stalled;
        eventually(&what, || stalled.load(Ordering::SeqCst) == streams).await;
    }
}

async fn echo(request: Request) -> Result<Response, HandlerError> {
    Ok(Response::from(request.into_body()))
}

/// Handlers that send, of all servers of this process, and the number that have ever begun.
static SENDING: AtomicUsize = AtomicUsize::new(0);
static BEGUN: AtomicUsize = AtomicUsize::new(0);

struct Sending;

impl Sending {
    fn begin() -> Self {
        SENDING.fetch_add(1, Ordering::SeqCst);
        BEGUN.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        SENDING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Sends until the peer stops reading.
async fn generate(mut request: Request) -> Result<Response, HandlerError> {
    let _sending = Sending::begin();
    let (mut send, _recv) = request.stream().unwrap();
    while send.send(vec![7; 50_000]).await.is_ok() {}
    Ok(Response::from("over"))
}

/// Reads and sends at the same time, in one task.
async fn both(mut request: Request) -> Result<Response, HandlerError> {
    let _sending = Sending::begin();
    let (mut send, mut recv) = request.stream().unwrap();
    let sending = async { while send.send(vec![7; 50_000]).await.is_ok() {} };
    let reading = async { while let Some(Ok(_)) = recv.next().await {} };
    tokio::join!(sending, reading);
    Ok(Response::from("over"))
}

// ---- a client against our server

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_exceeds_its_credit_loses_only_its_own_connection() {
    let target = Target::start(Limits::default().stream_window(PART)).await;
    let mut other = target.peer(1).await;
    for parts in [
        // The window is full; then comes one byte more.
        &[PART - 1, 1, 1][..],
        // The last part exceeds the window, which is allowed; then comes one byte more.
        &[PART - 1, PART, 1],
        // More than fits into one frame, whatever the window.
        &[1, PART + 1],
        &[PART + 1],
    ] {
        let mut peer = target.peer(1).await;
        let (last, before) = parts.split_last().unwrap();
        for (turn, &part) in before.iter().enumerate() {
            let part = vec![0; part];
            let frame = match turn {
                0 => first("/stall", 1, part),
                _ => more(1, marked(DATA, part)),
            };
            peer.send_frame(&frame).await;
        }
        if before.is_empty() {
            peer.send_frame(&first("/stall", 1, vec![0; *last])).await;
        } else {
            target.runs(1).await;
            let end = marked(DATA, vec![0; *last]);
            peer.send_frame(&more(1, end)).await;
        }
        peer.closed_in_silence().await;
        target.runs(0).await;
    }
    let reply = other.call("/echo", 1, "still here").await;
    assert_eq!(reply.body, b"still here");
    target.serves_others().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_frames_in_a_stream_end_the_connection_and_the_handler_sees_a_cut() {
    let target = Target::start(Limits::default()).await;
    let mut ends = target.ends.clone();
    let frames = [
        more(1, "no mark"),
        more(1, [0xFF]),
        more(1, [REPLY]),
        more(1, [CANCEL]),
        more(1, [GRANT, 1]),
        last(1, DATA),
        last(1, LAST),
        last(1, REPLY),
    ];
    for (turn, frame) in frames.iter().enumerate() {
        let mut peer = target.peer(1).await;
        peer.send_frame(&first("/count", 1, "x")).await;
        peer.send_frame(frame).await;
        peer.closed_in_silence().await;
        let ended = within("its end", ends.wait_for(|ends| ends.len() > turn)).await;
        assert_eq!(ended.unwrap()[turn], Err(StreamError::Cut), "{frame:?}");
    }
    target.serves_others().await;
}

#[test]
fn endless_window_updates_neither_overflow_nor_fill_memory() {
    alone(
        "endless_window_updates_neither_overflow_nor_fill_memory",
        || async {
            let (target, before) = Target::measured(Limits::default()).await;
            for path in ["/generate", "/both"] {
                let mut stream = target.mute_stream(1).await;
                sent(&mut stream, &first(path, 1, "x").encode()).await;
                // All window updates are read, and nothing that they allow is read.
                let grants = more(1, grant(u32::MAX)).encode().repeat(1000);
                let flooded = flood(&mut stream, &grants, 100, SERVED).await;
                assert!(matches!(flooded, Flooded::Taken), "{flooded:?}");
                target.serves_others().await;
            }
            work_is_done().await;
            // A quarter of a mebibyte waits per connection, and what the kernel takes.
            assert_grown_less(before, 12 * MIB);
        },
    );
}

#[test]
fn a_client_that_repeats_window_updates_of_zero_does_not_get_a_frame_for_each() {
    let name = "a_client_that_repeats_window_updates_of_zero_does_not_get_a_frame_for_each";
    alone(name, || async {
        let (target, before) = Target::measured(Limits::default()).await;
        let mut stream = target.mute_stream(1).await;
        sent(&mut stream, &first("/both", 1, "x").encode()).await;
        for bytes in [0, 1] {
            let grants = more(1, grant(bytes)).encode().repeat(1000);
            let flooded = flood(&mut stream, &grants, 50, SERVED).await;
            // Reporting each time that the credit is too small would exceed the send buffer.
            assert!(matches!(flooded, Flooded::Taken), "{flooded:?}");
        }
        target.serves_others().await;
        work_is_done().await;
        assert_grown_less(before, 8 * MIB);
    });
}

#[test]
fn single_bytes_cost_a_stalled_reader_little_more_than_they_hold() {
    let name = "single_bytes_cost_a_stalled_reader_little_more_than_they_hold";
    alone(name, || async {
        let (target, before) = Target::measured(Limits::default()).await;
        let mut peer = target.peer(10).await;
        for channel in 1..=10 {
            let mut bytes = first("/stall", channel, "x").encode();
            let byte = more(channel, [DATA, 7]).encode();
            bytes.extend(byte.repeat(PART - 1));
            peer.send(&bytes).await;
        }
        target.runs(10).await;
        // The same frames are accepted from a connection that reads.
        target.serves_others().await;
        work_is_done().await;
        // Ten windows of 64 KiB.
        assert_grown_less(before, 4 * MIB);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_single_bytes_and_of_nothing_is_read_to_its_end() {
    let target = Target::start(Limits::default()).await;
    let mut peer = target.peer(1).await;
    let mut bytes = first("/count", 1, "x").encode();
    bytes.extend(more(1, [DATA, 7]).encode().repeat(60_000));
    bytes.extend(more(1, [DATA]).encode().repeat(10_000));
    bytes.extend(more(1, [BLOCKED]).encode().repeat(10_000));
    bytes.extend(more(1, [LAST]).encode());
    peer.send(&bytes).await;
    let reply = loop {
        let frame = peer.frame().await;
        if frame.body[0] != GRANT {
            break frame;
        }
    };
    assert_eq!(reply.body, marked(REPLY, "60001"));
    target.serves_others().await;
}

#[test]
fn a_thousand_stalled_readers_hold_their_windows_and_delay_no_other_call() {
    let name = "a_thousand_stalled_readers_hold_their_windows_and_delay_no_other_call";
    alone(name, || async {
        const STREAMS: u32 = 1000;
        let window = 16 * 1024;
        let (target, before) = Target::measured(Limits::default().stream_window(window)).await;
        let mut peer = target.peer(STREAMS + 1).await;
        for channel in 1..=STREAMS {
            let mut bytes = first("/stall", channel, vec![7; window - 1]).encode();
            bytes.extend(more(channel, marked(DATA, vec![7; PART])).encode());
            peer.send(&bytes).await;
        }
        target.runs(STREAMS as usize).await;
        // Others on the same connection are served as well.
        let reply = peer.call("/echo", STREAMS + 1, "and I").await;
        assert_eq!(reply.body, b"and I");
        target.serves_others().await;
        // The documented amount: the window and one frame, for each of them.
        let formula = STREAMS as usize * (window + PART);
        assert_grown_less(before, formula + 24 * MIB);
        drop(peer);
        target.runs(0).await;
        target.serves_others().await;
    });
}

#[test]
fn what_a_stalled_reader_holds_does_not_pin_what_others_have_read() {
    let name = "what_a_stalled_reader_holds_does_not_pin_what_others_have_read";
    alone(name, || async {
        const STALLED: u32 = 16;
        let target = Target::start(Limits::default()).await;
        target.serves_others().await;
        let mut peer = target.peer(STALLED + 1).await;
        for channel in 1..=STALLED {
            peer.send_frame(&first("/stall", channel, "x")).await;
        }
        target.runs(STALLED as usize).await;
        let before = resident_bytes();
        // Each kibibyte comes in one read with many bytes that are handled at once.
        let filler = RawFrame::request("/echo", STALLED + 1, vec![1; 300_000]);
        for _ in 0..60 {
            for channel in 1..=STALLED {
                let part = marked(DATA, vec![7; 1024]);
                let mut bytes = more(channel, part).encode();
                bytes.extend(filler.encode());
                peer.send(&bytes).await;
                assert_eq!(peer.frame().await.body.len(), 300_000);
            }
        }
        target.serves_others().await;
        // A mebibyte waits. If it pinned its buffers, they would be a quarter of a gibibyte.
        assert_grown_less(before, 48 * MIB);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_beyond_the_call_limit_are_rejected_and_the_others_go_on() {
    let target = Target::start(Limits::default().max_calls(10)).await;
    let mut peer = target.peer(51).await;
    for channel in 1..=50 {
        peer.send_frame(&first("/stall", channel, "x")).await;
    }
    for _ in 0..40 {
        let reply = peer.frame().await;
        assert_eq!(reply.status, 5);
        let text = reply.body_text();
        assert!(text.contains("max_calls"), "{text}");
        // The client ends its part.
        peer.send_frame(&last(reply.channel, OVER)).await;
    }
    assert_eq!(target.max_stalled.load(Ordering::SeqCst), 10);
    let reply = peer.call("/echo", 51, "a call").await;
    assert_eq!(reply.body, b"a call");
    // Capacity that becomes free is used again.
    peer.send_frame(&last(1, CANCEL)).await;
    assert_eq!(peer.frame().await.channel, 1, "a reply, for the order");
    target.runs(9).await;
    peer.send_frame(&first("/stall", 50, "x")).await;
    target.runs(10).await;
    target.serves_others().await;
}

#[test]
fn streams_that_are_begun_and_given_up_at_once_leave_nothing_behind() {
    let name = "streams_that_are_begun_and_given_up_at_once_leave_nothing_behind";
    alone(name, || async {
        const CHANNELS: u32 = 100;
        let limits = Limits::default()
            .max_calls(20)
            .max_control_requests(u32::MAX);
        let (target, before) = Target::measured(limits).await;
        let mut peer = target.peer(CHANNELS).await;
        for _ in 0..200 {
            let mut bytes = Vec::new();
            for channel in 1..=CHANNELS {
                bytes.extend(first("/stall", channel, vec![7; 100]).encode());
                bytes.extend(last(channel, CANCEL).encode());
            }
            peer.send(&bytes).await;
            for _ in 0..CHANNELS {
                assert_eq!(peer.frame().await.status, 5);
            }
        }
        target.runs(0).await;
        // Aborted streams may still be ending while the next ones begin.
        assert!(target.max_stalled.load(Ordering::SeqCst) <= 200);
        target.serves_others().await;
        work_is_done().await;
        assert_grown_less(before, 12 * MIB);
    });
}

#[test]
fn a_client_that_never_reads_holds_a_bounded_amount_and_is_given_up() {
    let name = "a_client_that_never_reads_holds_a_bounded_amount_and_is_given_up";
    alone(name, || async {
        const CHANNELS: u32 = 200;
        let (target, before) = Target::measured(Limits::default().progress_timeout(SHORT)).await;
        let mut stream = target.mute_stream(CHANNELS).await;
        for channel in 1..=CHANNELS {
            let path = if channel % 2 == 0 {
                "/generate"
            } else {
                "/both"
            };
            let mut bytes = first(path, channel, "x").encode();
            bytes.extend(more(channel, grant(u32::MAX)).encode());
            sent(&mut stream, &bytes).await;
        }
        eventually("they send", || BEGUN.load(Ordering::SeqCst) > 0).await;
        // A stream that also reads keeps one handler busy.
        let byte = more(1, [DATA, 7]).encode().repeat(1000);
        flood(&mut stream, &byte, 50, SERVED).await;
        // A peer that does not read does not see the end itself.
        let nobody_sends = || SENDING.load(Ordering::SeqCst) == 0;
        eventually("the connection is given up", nobody_sends).await;
        target.serves_others().await;
        // A piece of 50 KB for each handler, and a quarter of a mebibyte that waits.
        assert_grown_less(before, 30 * MIB);
    });
}

// ---- a server against our client

/// A client that sends its hello to a server that the test plays, which supports streams.
async fn victim(limits: Limits) -> (Victim, Peer) {
    let config = Client::builder()
        .hello(serde_json::json!({}))
        .limits(limits);
    let (victim, mut peer) = Victim::with_peer(config).await;
    greets(&mut peer, 1).await;
    (victim, peer)
}

/// Replies to the hello, and grants channel `id`.
async fn greets(peer: &mut Peer, id: u32) {
    assert_eq!(peer.frame().await.path, b"/sys/hello");
    let body = format!("{{\"iip\":1,\"code\":0,\"stream_window\":{PART}}}");
    peer.send_frame(&RawFrame::reply("/sys/hello", 0, body))
        .await;
    peer.grants(id).await;
}

/// A stream of that client on channel 1.
async fn streaming(limits: Limits) -> (Victim, Peer, SendStream, RecvStream) {
    let (victim, mut peer) = victim(limits).await;
    let (send, recv) = begun(&victim, &mut peer).await;
    (victim, peer, send, recv)
}

async fn begun(victim: &Victim, peer: &mut Peer) -> (SendStream, RecvStream) {
    let opened = victim.client.open_stream("/s", "x");
    let both = within("a stream", opened).await.unwrap();
    assert_eq!(peer.frame().await, first("/s", 1, "x"));
    both
}

fn reply(status: u8, body: impl AsRef<[u8]>) -> RawFrame {
    RawFrame::new(status, "/s", 1, body)
}

/// The check after every attack: the next call and the next stream use a new connection and get
/// their replies.
async fn is_served_by_a_new_connection(victim: &Victim) {
    let client = victim.client.clone();
    let call = spawn(async move {
        // This call may be the one that notices the lost connection.
        loop {
            match client.open_stream("/s", "x").await {
                Ok((_send, mut recv)) => {
                    while let Some(Ok(_)) = recv.next().await {}
                    if let Some(Ok(reply)) = recv.reply() {
                        return reply;
                    }
                }
                Err(error) => assert!(
                    matches!(error.kind(), CallErrorKind::Connect { .. }),
                    "{error}"
                ),
            }
            tokio::task::yield_now().await;
        }
    });
    let serve = async {
        let mut peer = Peer::over(accepted(&victim.listener).await);
        greets(&mut peer, 1).await;
        assert_eq!(peer.frame().await, first("/s", 1, "x"));
        peer.send_frame(&reply(5, marked(REPLY, "here"))).await;
        assert_eq!(call.await.unwrap(), "here");
    };
    tokio::time::timeout(SERVED, serve)
        .await
        .expect("a new connection serves in time");
}

async fn read_all(recv: &mut RecvStream) -> usize {
    let mut count = 0;
    while let Some(part) = within("the next bytes", recv.next()).await {
        count += part.unwrap().len();
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_breaks_the_rules_of_a_stream_loses_its_connection() {
    let full = marked(DATA, vec![0; PART]);
    let offences: [&[(u8, &[u8])]; 12] = [
        &[(4, &full), (6, &[DATA, 1])],
        &[(4, &full), (6, &full)],
        &[(4, &[DATA, 1]), (7, &[DATA, 1])],
        &[(4, &[DATA, 1]), (7, &[LAST])],
        &[(5, &[DATA, 1])],
        &[(5, &[GRANT, 0, 0, 0, 1])],
        &[(5, &[CANCEL])],
        &[(4, &[OVER])],
        &[(4, &[0xFF])],
        &[(4, &[GRANT])],
        &[(4, &[LAST]), (6, &[LAST])],
        &[(4, &[LAST]), (6, &[DATA, 1])],
    ];
    for frames in offences {
        let limits = Limits::default().stream_window(PART);
        let (victim, mut peer, mut send, mut recv) = streaming(limits).await;
        for (status, body) in frames {
            peer.send_frame(&reply(*status, body)).await;
        }
        assert!(peer.closed().await.is_empty(), "{frames:?}");
        // The messages before the violation have arrived.
        read_all(&mut recv).await;
        let error = recv.reply().unwrap().unwrap_err();
        let lost = matches!(error.kind(), CallErrorKind::ConnectionLost(_));
        assert!(lost, "{frames:?}: {error}");
        assert_eq!(error.execution(), Execution::MayHaveExecuted);
        let sent = within("its end", send.send("y")).await;
        assert_eq!(sent, Err(StreamError::Over));
        is_served_by_a_new_connection(&victim).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_never_replies_delays_its_call_until_its_deadline() {
    let limits = Limits::default();
    let (victim, mut peer, mut send, mut recv) = streaming(limits).await;
    let waits = started(send.send(vec![0; MIB])).await;
    assert!(matches!(waits, Started::Running(_)), "there is no credit");
    recv.set_deadline(Instant::now() + SHORT);
    assert_eq!(read_all(&mut recv).await, 0);
    let error = recv.reply().unwrap().unwrap_err();
    assert!(matches!(error.kind(), CallErrorKind::Timeout), "{error}");
    assert_eq!(error.execution(), Execution::MayHaveExecuted);
    assert_eq!(
        within("its end", waits.finish()).await,
        Err(StreamError::Over)
    );
    // Its channel waits for the late reply; the next call takes another.
    let call = victim.calls("/echo", "on another");
    let mut frame = peer.frame().await;
    while frame.channel == 1 {
        frame = peer.frame().await;
    }
    assert_eq!(frame, RawFrame::new_channel());
    peer.send_frame(&RawFrame::grant(2)).await;
    let asked = peer.frame().await;
    assert_eq!(asked, RawFrame::request("/echo", 2, "on another"));
    peer.send_frame(&RawFrame::reply("/echo", 2, "answered"))
        .await;
    assert_eq!(soon("a call", call).await.unwrap(), "answered");
}

#[test]
fn an_endless_reply_fails_its_call_at_the_limit_and_fills_no_memory() {
    let name = "an_endless_reply_fails_its_call_at_the_limit_and_fills_no_memory";
    alone(name, || async {
        let limits = Limits::default().max_message_bytes(MIB);
        let (_victim, mut peer, mut send, mut recv) = streaming(limits).await;
        let before = resident_bytes();
        peer.send_frame(&reply(4, marked(REPLY, "endless"))).await;
        let part = reply(6, vec![b'x'; 512 * 1024]).encode();
        for _ in 0..200 {
            peer.send(&part).await;
        }
        assert_eq!(read_all(&mut recv).await, 0);
        let error = recv.reply().unwrap().unwrap_err();
        let too_large = matches!(error.kind(), CallErrorKind::MessageTooLarge { .. });
        assert!(too_large, "{error}");
        assert_eq!(
            within("its end", send.send("y")).await,
            Err(StreamError::Over)
        );
        assert_grown_less(before, 16 * MIB);
        // The reply ends after all, and the channel is usable again.
        peer.send_frame(&reply(7, "at last")).await;
        assert_eq!(peer.frame().await.body, [OVER]);
        drop((send, recv));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn window_updates_for_a_finished_direction_are_ignored_and_for_an_ended_stream_are_a_violation()
 {
    let (victim, mut peer, mut send, mut recv) = streaming(Limits::default()).await;
    send.finish();
    assert_eq!(peer.frame().await, more(1, [LAST]));
    peer.send_frame(&reply(4, grant(u32::MAX))).await;
    for _ in 0..1000 {
        peer.send_frame(&reply(6, grant(u32::MAX))).await;
        peer.send_frame(&reply(6, grant(0))).await;
    }
    peer.send_frame(&reply(7, marked(REPLY, "done"))).await;
    assert_eq!(read_all(&mut recv).await, 0);
    assert_eq!(recv.reply().unwrap().unwrap(), "done");
    assert_eq!(peer.frame().await, last(1, OVER));
    peer.send_frame(&reply(4, grant(1))).await;
    assert!(peer.closed().await.is_empty());
    is_served_by_a_new_connection(&victim).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_after_the_reply_gives_no_credit_to_the_next_stream_on_the_channel() {
    let limits = Limits::default().stream_window(PART);
    let (victim, mut peer, _send, mut recv) = streaming(limits).await;
    peer.send_frame(&reply(4, marked(DATA, vec![7; PART - 1])))
        .await;
    peer.send_frame(&reply(6, marked(DATA, vec![7; PART])))
        .await;
    peer.send_frame(&reply(7, marked(REPLY, "done"))).await;
    assert_eq!(peer.frame().await, last(1, OVER));
    // The next call has begun there, and its reply has begun.
    let (mut send, mut next) = begun(&victim, &mut peer).await;
    peer.send_frame(&reply(4, [DATA, b'n'])).await;
    assert_eq!(
        within("its bytes", next.next()).await.unwrap().unwrap(),
        "n"
    );
    assert_eq!(read_all(&mut recv).await, 2 * PART - 1);
    assert_eq!(recv.reply().unwrap().unwrap(), "done");
    send.finish();
    assert_eq!(peer.frame().await, more(1, [LAST]), "no grant");
    // It has the credit of one window and not of three.
    peer.send_frame(&reply(6, marked(DATA, vec![7; PART])))
        .await;
    peer.send_frame(&reply(6, marked(DATA, [7; 1]))).await;
    assert!(peer.closed().await.is_empty());
    is_served_by_a_new_connection(&victim).await;
}

/// Our client with a stream, and the raw end of its server, whose kernel buffers little unread
/// data.
async fn mute_streaming() -> (Victim, TcpStream, SendStream, RecvStream) {
    let config = Client::builder().hello(serde_json::json!({}));
    let (victim, mut stream) = Victim::connect_to(narrow_listener(4096), config).await;
    let hello = format!("{{\"iip\":1,\"code\":0,\"stream_window\":{PART}}}");
    sent(
        &mut stream,
        &RawFrame::reply("/sys/hello", 0, hello).encode(),
    )
    .await;
    sent(&mut stream, &RawFrame::grant(1).encode()).await;
    let opened = victim.client.open_stream("/s", "x");
    let (send, recv) = within("a stream", opened).await.unwrap();
    (victim, stream, send, recv)
}

#[test]
fn a_server_that_gives_no_credit_or_all_credit_and_never_reads_fills_no_memory() {
    let name = "a_server_that_gives_no_credit_or_all_credit_and_never_reads_fills_no_memory";
    alone(name, || async {
        for bytes in [0, 1, u32::MAX] {
            let (victim, mut stream, mut send, recv) = mute_streaming().await;
            let before = resident_bytes();
            let sending = spawn(async move {
                let part = Bytes::from(vec![7; MIB]);
                while send.send(part.clone()).await.is_ok() {}
            });
            sent(&mut stream, &reply(4, grant(bytes)).encode()).await;
            let grants = reply(6, grant(bytes)).encode().repeat(1000);
            let flooded = flood(&mut stream, &grants, 300, SERVED).await;
            assert!(matches!(flooded, Flooded::Taken), "{flooded:?}");
            work_is_done().await;
            assert_grown_less(before, 8 * MIB);
            assert!(!sending.is_finished());
            drop(recv);
            within("the writer fails", sending).await.unwrap();
            let _ = stream.shutdown().await;
            drop(stream);
            is_served_by_a_new_connection(&victim).await;
        }
    });
}

#[test]
fn a_writer_that_waits_for_credit_fails_when_the_runtime_of_its_connection_ends() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().unwrap()
    };
    let (connections, writers) = (runtime(), runtime());
    let (victim, mut stream, mut send, recv) = connections.block_on(mute_streaming());
    connections.block_on(async {
        sent(&mut stream, &reply(4, grant(u32::MAX)).encode()).await;
    });
    let (tell, seen) = watch::channel(false);
    let writing = writers.spawn(async move {
        let part = Bytes::from(vec![7; 16 * MIB]);
        loop {
            let sending = started(send.send(part.clone())).await;
            tell.send_replace(true);
            if let Err(error) = sending.finish().await {
                return error;
            }
        }
    });
    let mut seen = seen;
    writers.block_on(async {
        within("it sends", seen.wait_for(|seen| *seen))
            .await
            .unwrap();
    });
    connections.shutdown_timeout(SERVED);
    let error = writers.block_on(within("its end", writing)).unwrap();
    assert_eq!(error, StreamError::Over);
    drop((victim, stream, recv));
}
