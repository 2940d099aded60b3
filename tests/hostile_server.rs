//! A hostile peer against our server, over real sockets: every defence is attacked, and after each
//! attack a fresh connection must be served in time. Attacks on memory or CPU time are measured in
//! a separate process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use iip_core::{
    HandlerError, Limits, OnCancel, Request, Response, Server, ServerBuilder, handler_fn,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use crate::common::alone::{alone, alone_under};
use crate::common::frame::RawFrame;
use crate::common::generate::lin;
use crate::common::peer::{
    Flooded, Peer, drained, first_channel, flood, narrow_stream_to, reset, sent, stream_to,
};
use crate::common::{
    MIB, SERVED, assert_grown_less, bound, cpu_time, eventually, grown_since, passes_for_all,
    resident_bytes, spawn, within, work_is_done,
};

/// A timeout that expires soon, so that no test waits long for it.
const SHORT: Duration = Duration::from_millis(200);

/// A timeout that does not expire on a busy machine.
const TIME: Duration = Duration::from_secs(5);
const UNKNOWN_PATH: &str = r#"{"code":102,"message":"handle error"}"#;

/// The server under attack.
struct Target {
    addr: SocketAddr,
    server: Server,
    /// Lets calls of `/hold` and `/stubborn` end, one per permit.
    go: Arc<Semaphore>,
    running: Arc<Running>,
}

/// Number of handlers that have started and not ended, including those whose callers have gone.
struct Running(watch::Sender<Count>);

#[derive(Default)]
struct Count {
    now: usize,
    max: usize,
    started: usize,
}

impl Running {
    fn enter(self: &Arc<Self>) -> Leave {
        self.0.send_modify(|count| {
            count.started += 1;
            count.now += 1;
            count.max = count.max.max(count.now);
        });
        Leave(self.clone())
    }

    fn max(&self) -> usize {
        self.0.borrow().max
    }

    fn started(&self) -> usize {
        self.0.borrow().started
    }

    #[track_caller]
    fn assert_at_most(&self, limit: usize) {
        let max = self.max();
        assert!(
            max <= limit,
            "{max} handlers ran at a time, allowed are {limit}"
        );
    }
}

struct Leave(Arc<Running>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| count.now -= 1);
    }
}

impl Target {
    async fn start(limits: Limits) -> Self {
        Self::configured(|config| config.limits(limits)).await
    }

    async fn configured(configure: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        let go = Arc::new(Semaphore::new(0));
        let running = Arc::new(Running(watch::Sender::default()));
        let (hold_go, hold_running) = (go.clone(), running.clone());
        let hold = move |request: Request| {
            let (go, leave) = (hold_go.clone(), hold_running.enter());
            async move {
                let _leave = leave;
                let permit = go
                    .acquire()
                    .await
                    .map_err(|_| HandlerError::new("the test is over"))?;
                permit.forget();
                Ok(Response::from(request.into_body()))
            }
        };
        let config = Server::builder()
            .route("/echo", handler_fn(echo))
            .route("/len", handler_fn(len))
            .route("/big", handler_fn(big))
            .route("/panic", handler_fn(panics))
            .route("/count", handler_fn(count))
            .route("/hold", handler_fn(hold.clone()))
            .route("/stubborn", handler_fn(hold).on_cancel(OnCancel::RunToEnd));
        let (server, addr) = bound(configure(config)).await;
        Self {
            addr,
            server,
            go,
            running,
        }
    }

    /// A target that has served others, and the memory of the process after that.
    async fn measured(limits: Limits) -> (Self, usize) {
        let target = Self::start(limits).await;
        target.serves_others().await;
        (target, resident_bytes())
    }

    /// The check after every attack: a new connection gets a channel and a reply, soon.
    async fn serves_others(&self) {
        tokio::time::timeout(SERVED, self.serves_another())
            .await
            .expect("a fresh connection is served in time");
    }

    async fn serves_another(&self) {
        let mut peer = Peer::connect(self.addr).await;
        let channel = peer.open_channel().await;
        peer.echoes(channel, "are you there").await;
    }

    /// A connection with channel 1 granted.
    async fn peer(&self) -> Peer {
        let mut peer = Peer::connect(self.addr).await;
        assert_eq!(peer.open_channel().await, 1);
        peer
    }

    /// The same with no reader on our side, and with small kernel buffers for unread bytes.
    async fn mute_stream(&self) -> TcpStream {
        let mut stream = narrow_stream_to(self.addr, 4096).await;
        first_channel(&mut stream).await;
        stream
    }

    /// The same with the kernel's default buffers.
    async fn stream(&self) -> TcpStream {
        let mut stream = stream_to(self.addr).await;
        first_channel(&mut stream).await;
        stream
    }

    /// Starts a handler that waits for a permit, the only one that runs, on channel 1 of `peer`.
    async fn hold(&self, peer: &mut Peer) {
        peer.send_frame(&RawFrame::request("/hold", 1, "h")).await;
        self.running_is("the handler runs", |now| now == 1).await;
    }

    /// Waits until the number of running handlers satisfies `enough`.
    async fn running_is(&self, what: &str, enough: impl Fn(usize) -> bool) {
        let mut count = self.running.0.subscribe();
        let enough = count.wait_for(|count| enough(count.now));
        within(what, enough).await.expect("the target lives");
    }
}

async fn echo(request: Request) -> Result<Response, HandlerError> {
    Ok(Response::from(request.into_body()))
}

async fn len(request: Request) -> Result<Response, HandlerError> {
    Ok(Response::from(request.body().len().to_string()))
}

async fn big(request: Request) -> Result<Response, HandlerError> {
    let n = request
        .query()
        .get("n")
        .and_then(|n| n.parse().ok())
        .ok_or_else(|| HandlerError::new("no n"))?;
    Ok(Response::from(Bytes::from(lin(0, n))))
}

async fn panics(_: Request) -> Result<Response, HandlerError> {
    panic!("this handler always panics")
}

/// Replies with the number of parameters of the request.
async fn count(request: Request) -> Result<Response, HandlerError> {
    Ok(Response::from(request.query().iter().count().to_string()))
}

// ---- lengths

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_that_no_frame_may_have_ends_the_connection_before_any_body_comes() {
    let target = Target::start(Limits::default()).await;
    for len in [0, (16 << 20) + 1, 1 << 31, u32::MAX - 1, u32::MAX] {
        let mut peer = target.peer().await;
        peer.send(&RawFrame::head(1, "/echo", 1, len)).await;
        peer.closed_in_silence().await;
    }
    target.serves_others().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_over_the_configured_limit_ends_the_connection_and_one_within_it_does_not() {
    let target = Target::start(Limits::default().max_frame_bytes(1000)).await;
    let mut peer = target.peer().await;
    assert_eq!(peer.call("/len", 1, &"x".repeat(1000)).await.body, b"1000");
    peer.send(&RawFrame::head(1, "/echo", 1, 1001)).await;
    peer.closed_in_silence().await;
    target.serves_others().await;
}

#[test]
fn a_declared_length_reserves_no_memory() {
    alone("a_declared_length_reserves_no_memory", || async {
        let (target, before) = Target::measured(Limits::default()).await;
        let mut peers = Vec::new();
        for _ in 0..50 {
            let mut peer = target.peer().await;
            // The reply to the first request shows that the second one's head has been read with
            // it.
            let mut bytes = RawFrame::request("/echo", 1, "x").encode();
            bytes.extend(RawFrame::head(1, "/echo", 1, 16 << 20));
            bytes.push(b'y');
            peer.send(&bytes).await;
            assert_eq!(peer.frame().await.body, b"x");
            peers.push(peer);
        }
        target.serves_others().await;
        // 50 connections with one read buffer of 64 KiB each; the declared bodies together are 800
        // MiB.
        assert_grown_less(before, 12 * MIB);
    });
}

#[test]
fn aborted_uploads_leave_no_memory_behind() {
    alone("aborted_uploads_leave_no_memory_behind", || async {
        let target = Target::start(Limits::default()).await;
        let mut upload = RawFrame::head(1, "/echo", 1, 16 << 20);
        upload.resize(upload.len() + MIB, b'u');
        for _ in 0..3 {
            let mut stream = target.stream().await;
            sent(&mut stream, &upload).await;
        }
        let before = resident_bytes();
        for round in 0..50 {
            let mut stream = target.stream().await;
            sent(&mut stream, &upload).await;
            if round % 2 == 0 {
                reset(stream);
            }
        }
        target.serves_others().await;
        eventually("the memory of 50 aborted uploads is given back", || {
            resident_bytes() < before + 16 * MIB
        })
        .await;
    });
}

// ---- paths

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_does_not_end_is_rejected_at_byte_2050() {
    let target = Target::start(Limits::default()).await;
    // 2048 bytes of path: the NUL may still come.
    let mut peer = target.peer().await;
    let path = format!("/echo?{}", "p".repeat(2042));
    peer.send(&[&[1], path.as_bytes()].concat()).await;
    peer.send(&RawFrame::request("", 1, "in time").encode()[1..])
        .await;
    assert_eq!(peer.frame().await, RawFrame::reply("/echo", 1, "in time"));
    // One more byte without it is an error.
    peer.send(&[&[1], path.as_bytes(), b"p"].concat()).await;
    peer.closed_in_silence().await;
    target.serves_others().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_without_end_is_not_read() {
    let target = Target::start(Limits::default()).await;
    let mut stream = target.stream().await;
    stream.write_all(&[1]).await.expect("a first byte");
    match flood(&mut stream, &vec![b'p'; 64 * 1024], 1000, SERVED).await {
        // The number of sent bytes is what fits into the buffers of the kernel.
        Flooded::Closed { sent, .. } => assert!(sent < 300, "{sent} pieces of 64 KiB were taken"),
        other => panic!("not closed: {other:?}"),
    }
    target.serves_others().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_hidden_in_an_escaped_path_is_not_injected_into_the_replies() {
    let target = Target::start(Limits::default()).await;
    let forged = RawFrame::reply("/y", 1, "FORGED").encode();
    let escaped: String = forged.iter().map(|byte| format!("%{byte:02x}")).collect();
    for path in [
        format!("/x%00{escaped}"),
        format!("/%00{escaped}"),
        "/%00".to_owned(),
        format!("/x?%00{escaped}"),
    ] {
        let mut peer = target.peer().await;
        let reply = peer.call(&path, 1, "evil").await;
        assert_eq!(
            (reply.status, reply.channel, reply.body_text()),
            (5, 1, UNKNOWN_PATH.to_owned()),
            "{path}"
        );
        assert_eq!(
            peer.call("/echo", 1, "victim").await,
            RawFrame::reply("/echo", 1, "victim"),
            "{path}"
        );
    }
    target.serves_others().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_with_a_thousand_parameters_is_an_ordinary_request() {
    let target = Target::start(Limits::default()).await;
    let mut peer = target.peer().await;
    let path = format!("/count?{}", "a&".repeat(1020));
    for _ in 0..200 {
        assert_eq!(
            peer.call(&path, 1, "x").await,
            RawFrame::reply("/count", 1, "1020")
        );
    }
    target.serves_others().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_byte_by_byte_gets_a_reply() {
    let target = Target::start(Limits::default()).await;
    let mut stream = target.stream().await;
    stream.set_nodelay(true).expect("a TCP option");
    let mut request = RawFrame::new(0, "/echo?first", 1, "by").encode();
    request.extend(RawFrame::new(2, "/echo", 1, "te by ").encode());
    request.extend(RawFrame::new(3, "/echo", 1, "byte").encode());
    for byte in request {
        sent(&mut stream, &[byte]).await;
    }
    let mut peer = Peer::over(stream);
    assert_eq!(
        peer.frame().await,
        RawFrame::reply("/echo", 1, "byte by byte")
    );
    target.serves_others().await;
}

// ---- other protocols

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_speaks_another_protocol_is_rejected_at_its_first_byte() {
    let target = Target::start(Limits::default()).await;
    // TLS, HTTP, SSH, and other bytes that are not a status.
    for first in [0x16, b'G', b'P', b'S', 9, 10, 0x7f, 0x80, 0xff] {
        let mut peer = Peer::connect(target.addr).await;
        peer.send(&[first]).await;
        peer.closed_in_silence().await;
    }
    target.serves_others().await;
}

// ---- illegal transitions

/// The frames that bring a fresh channel into each state, and the statuses that are legal there.
const STATES: [(&str, &[u8], &[u8]); 5] = [
    ("nothing received", &[], &[0, 1]),
    ("0", &[0], &[2, 3]),
    ("1", &[1], &[0, 1]),
    ("2", &[0, 2], &[2, 3]),
    ("3", &[0, 3], &[0, 1]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_illegal_transition_ends_the_connection_and_every_legal_one_does_not() {
    let target = Target::start(Limits::default()).await;
    for (state, before, legal) in STATES {
        for status in (0..=7).chain([9, 10, 127, 128, 255]) {
            let case = format!("status {status} after {state}");
            let mut peer = target.peer().await;
            for &status in before.iter().chain([&status]) {
                peer.send_frame(&RawFrame::new(status, "/echo", 1, "abc"))
                    .await;
            }
            let due = before
                .iter()
                .filter(|&&status| status == 1 || status == 3)
                .count();
            if legal.contains(&status) {
                let due = due + usize::from(status == 1 || status == 3);
                for _ in 0..due {
                    assert_eq!(peer.frame().await.status, 5, "{case}");
                }
                // The connection is alive: channel 0 replies.
                assert_eq!(
                    peer.call("/echo", 0, "alive").await,
                    RawFrame::reply("/echo", 0, "alive"),
                    "{case}"
                );
            } else {
                let replies = peer.closed().await;
                assert_eq!(replies.len(), due, "{case}: {replies:?}");
                assert!(
                    replies.iter().all(|reply| reply.path == b"/echo"),
                    "{case}: {replies:?}"
                );
            }
        }
    }
    target.serves_others().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_violation_ends_the_work_of_its_connection_too() {
    let target = Target::start(Limits::default()).await;
    let mut peer = target.peer().await;
    peer.send_frame(&RawFrame::request("/hold", 1, "abc")).await;
    target.running_is("the handler runs", |now| now == 1).await;
    peer.send_frame(&RawFrame::new(2, "/hold", 1, "abc")).await;
    peer.closed_in_silence().await;
    target
        .running_is("the handler is stopped", |now| now == 0)
        .await;
    target.serves_others().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_kept_of_a_rejected_frame() {
    let target = Target::start(Limits::default()).await;
    // A first frame that is too large must not leave its channel in the middle of a request.
    for _ in 0..100 {
        let mut peer = target.peer().await;
        peer.send(&RawFrame::head(0, "/echo", 1, (16 << 20) + 1))
            .await;
        peer.closed_in_silence().await;
    }
    target.serves_others().await;
}

// ---- channels

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_was_never_granted_ends_the_connection_before_the_length_comes() {
    let target = Target::start(Limits::default()).await;
    for channel in [2, 3, 255, 1 << 31, u32::MAX] {
        let mut peer = target.peer().await;
        let head = RawFrame::head(1, "/echo", channel, 3);
        peer.send(&head[..head.len() - 4]).await;
        peer.closed_in_silence().await;
    }
    target.serves_others().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_channel_is_rejected_in_band_while_too_many_are_in_use() {
    let target = Target::start(Limits::default().max_channels(4)).await;
    let mut peer = Peer::connect(target.addr).await;
    peer.open_channels(5).await;
    for channel in 1..=5 {
        peer.send_frame(&RawFrame::request("/hold", channel, "h"))
            .await;
    }
    target.running_is("five handlers run", |now| now == 5).await;
    let rejected = peer.call("/sys/new_channel", 0, "{}").await;
    assert_eq!(
        rejected.body_text(),
        r#"{"code":106,"message":"channel create limited"}"#
    );
    target.serves_others().await;
    target.go.add_permits(5);
    for _ in 0..5 {
        assert_eq!(peer.frame().await.body, b"h");
    }
    assert_eq!(
        peer.open_channel().await,
        6,
        "a rejection uses up no number"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_requests_on_more_channels_than_allowed_end_the_connection() {
    let target = Target::start(Limits::default().max_channels(4)).await;
    let mut peer = Peer::connect(target.addr).await;
    peer.open_channels(20).await;
    for channel in 1..=20 {
        peer.send_frame(&RawFrame::new(0, "/echo", channel, "unfinished"))
            .await;
    }
    peer.closed_in_silence().await;
    target.serves_others().await;
}

#[test]
fn fifty_thousand_channels_at_rest_cost_no_memory_and_no_work() {
    alone(
        "fifty_thousand_channels_at_rest_cost_no_memory_and_no_work",
        || async {
            const CHANNELS: u32 = 50_000;
            let (target, before) = Target::measured(Limits::default()).await;
            let stream = stream_to(target.addr).await;
            let (mut reader, mut writer) = stream.into_split();
            let asking = spawn(async move {
                let request = RawFrame::new_channel().encode().repeat(1000);
                for _ in 0..CHANNELS / 1000 {
                    sent(&mut writer, &request).await;
                }
                writer
            });
            frames_come(&mut reader, CHANNELS as usize).await;
            let mut writer = within("asking for channels", asking)
                .await
                .expect("no panic");
            let using = spawn(async move {
                for channel in 1..=CHANNELS {
                    let request = RawFrame::request("/echo", channel, "used").encode();
                    sent(&mut writer, &request).await;
                }
                writer
            });
            frames_come(&mut reader, CHANNELS as usize).await;
            let _writer = within("using the channels", using).await.expect("no panic");
            target.serves_others().await;
            assert_grown_less(before, 16 * MIB);
            uses_no_cpu().await;
        },
    );
}

/// Reads that number of frames and keeps none of them.
async fn frames_come(reader: &mut (impl tokio::io::AsyncRead + Unpin), mut count: usize) {
    let mut held = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while count > 0 {
        let n = within("frames", reader.read(&mut buffer))
            .await
            .expect("the connection lives");
        assert!(n > 0, "the server closed, {count} frames before the last");
        held.extend_from_slice(&buffer[..n]);
        let (frames, left) = RawFrame::decode_all(&held);
        count = count
            .checked_sub(frames.len())
            .expect("no unsolicited frame");
        held.drain(..held.len() - left);
    }
}

/// This process is idle now: in half a second it must use almost no CPU time.
async fn uses_no_cpu() {
    let before = cpu_time();
    // The elapsed time itself is the measure.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let used = cpu_time() - before;
    assert!(
        used <= Duration::from_millis(20),
        "an idle process used {used:?} of CPU in 500 ms"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_and_opening_channels_does_not_escape_the_limit_on_running_calls() {
    const LIMIT: usize = 8;
    let target = Target::start(Limits::default().max_calls(LIMIT)).await;
    let mut stream = target.stream().await;
    // The rapid reset of HTTP/2 in this protocol: open, ask, delete, again.
    for round in 0..200_u32 {
        let mut bytes = RawFrame::request("/hold", round + 1, "h").encode();
        bytes.extend(RawFrame::request("/sys/delete_channel", round + 1, "{}").encode());
        bytes.extend(RawFrame::new_channel().encode());
        if !matches!(flood(&mut stream, &bytes, 1, SHORT).await, Flooded::Taken) {
            break;
        }
    }
    target.running_is("the handlers run", |now| now > 0).await;
    target.serves_others().await;
    target.running.assert_at_most(LIMIT);
    target.go.add_permits(1000);
    drop(stream);
    target.running_is("the handlers end", |now| now == 0).await;
    target.running.assert_at_most(LIMIT);
    target.serves_others().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_reset_while_it_is_held_back_ends_its_handlers() {
    const LIMIT: usize = 8;
    let target = Target::start(Limits::default().max_calls(LIMIT)).await;
    let mut peer = Peer::connect(target.addr).await;
    peer.open_channels(100).await;
    // At the limit the server stops reading requests of this connection; it must still notice its
    // end.
    for channel in 1..=100 {
        peer.send_frame(&RawFrame::request("/hold", channel, "h"))
            .await;
    }
    target
        .running_is("the handlers run", |now| now >= LIMIT)
        .await;
    peer.reset().await;
    target
        .running_is("the handlers are stopped", |now| now == 0)
        .await;
    target.serves_others().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_requests_starts_no_more_handlers_than_allowed() {
    const LIMIT: usize = 8;
    let target = Target::start(Limits::default().max_calls(LIMIT)).await;
    let mut peer = Peer::connect(target.addr).await;
    peer.send(&RawFrame::new_channel().encode().repeat(1000))
        .await;
    for _ in 0..1000 {
        peer.frame().await;
    }
    // All in one write, and small enough for the server to read them at once.
    let batch: Vec<u8> = (1..=1000)
        .flat_map(|channel| RawFrame::request("/hold", channel, "h").encode())
        .collect();
    peer.send(&batch).await;
    target
        .running_is("the handlers run", |now| now >= LIMIT)
        .await;
    target.serves_others().await;
    target.go.add_permits(1000);
    for _ in 0..1000 {
        assert_eq!(
            peer.frame().await.body,
            b"h",
            "every request gets a reply in the end"
        );
    }
    target.running.assert_at_most(LIMIT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_reset_ends_its_handlers() {
    let target = Target::start(Limits::default()).await;
    for _ in 0..300 {
        let mut stream = target.stream().await;
        sent(&mut stream, &RawFrame::request("/hold", 1, "h").encode()).await;
        reset(stream);
    }
    target.serves_others().await;
    target
        .running_is("the handlers of dead connections are stopped", |now| {
            now == 0
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_that_outlive_their_connections_are_counted_until_they_end() {
    const LIMIT: usize = 16;
    let target = Target::configured(|config| config.max_running_calls(LIMIT)).await;
    for _ in 0..200 {
        let mut stream = target.stream().await;
        sent(
            &mut stream,
            &RawFrame::request("/stubborn", 1, "h").encode(),
        )
        .await;
        reset(stream);
    }
    target.serves_others_at_its_limit().await;
    assert!(
        target.running.started() <= LIMIT,
        "{} handlers were started",
        target.running.started()
    );
    target.go.add_permits(200);
    target.running_is("the handlers end", |now| now == 0).await;
    target.serves_others().await;
}

impl Target {
    /// At the limit a request is rejected, at once and in band; that counts as served, too.
    async fn serves_others_at_its_limit(&self) {
        let serve = async {
            let mut peer = self.peer().await;
            let reply = peer.call("/echo", 1, "are you there").await;
            assert_eq!((reply.status, &reply.path[..]), (5, &b"/echo"[..]));
        };
        tokio::time::timeout(SERVED, serve)
            .await
            .expect("a fresh connection gets a reply in time");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_channel_delays_only_itself() {
    let target = Target::start(Limits::default()).await;
    let mut peer = target.peer().await;
    assert_eq!(peer.open_channel().await, 2);
    // The Go server stops reading the whole connection after the 102nd.
    for n in 0..500 {
        peer.send_frame(&RawFrame::request("/hold", 1, n.to_string()))
            .await;
    }
    peer.echoes(2, "past them").await;
    target.go.add_permits(500);
    for n in 0..500 {
        assert_eq!(
            peer.frame().await,
            RawFrame::reply("/hold", 1, n.to_string()),
            "in the order of the requests"
        );
    }
    assert_eq!(target.running.max(), 1, "one handler at a time per channel");
    target.serves_others().await;
}

// ---- the control stream

/// Sends the hello and opens the control stream on channel 1.
async fn controlling(peer: &mut Peer, first: &[u8]) {
    let hello = peer.call("/sys/hello", 0, r#"{"iip":1,"control":1}"#).await;
    assert_eq!((hello.status, &hello.path[..]), (5, &b"/sys/hello"[..]));
    peer.send_frame(&RawFrame::new(0, "/sys/control", 1, first))
        .await;
}

/// The notice "the caller of the call on this channel has gone".
fn cancel(channel: u32) -> Vec<u8> {
    [&[1, 4], &channel.to_be_bytes()[..]].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_control_messages_do_no_harm() {
    let target = Target::start(Limits::default()).await;
    let mut random = crate::common::Random::new(7);
    let mut parts: Vec<Vec<u8>> = vec![
        vec![0],
        vec![1],
        vec![1, 4],
        vec![1, 4, 0, 0],
        vec![1, 3, 0, 0, 2],
        vec![1, 255, 0],
        vec![255, 255],
        cancel(0),
        cancel(1),
        cancel(2),
        cancel(99),
        cancel(u32::MAX),
        cancel(2).repeat(1000),
    ];
    parts.extend((0..50).map(|_| {
        (0..1 + random.below(300))
            .map(|_| random.below(256) as u8)
            .collect()
    }));
    let mut peer = target.peer().await;
    assert_eq!(peer.open_channel().await, 2);
    controlling(&mut peer, &[0, 0]).await;
    for part in parts {
        peer.send_frame(&RawFrame::new(2, "/sys/control", 1, &part))
            .await;
        assert_eq!(
            peer.call("/echo", 2, "alive").await,
            RawFrame::reply("/echo", 2, "alive"),
            "after {part:?}"
        );
    }
    target.serves_others().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_calls_does_not_escape_the_limits_on_running_calls() {
    const LIMIT: usize = 8;
    let target = Target::configured(|config| {
        config
            .limits(Limits::default().max_calls(LIMIT))
            .max_running_calls(LIMIT)
    })
    .await;
    let mut peer = Peer::connect(target.addr).await;
    peer.open_channels(200).await;
    controlling(&mut peer, &[0, 0]).await;
    // The rapid reset of HTTP/2 with this protocol's cancellations; half of the handlers do not
    // stop when they are notified.
    for channel in 2..=200 {
        let path = if channel % 2 == 0 {
            "/hold"
        } else {
            "/stubborn"
        };
        peer.send_frame(&RawFrame::request(path, channel, "h"))
            .await;
        peer.send_frame(&RawFrame::new(2, "/sys/control", 1, cancel(channel)))
            .await;
    }
    target.serves_others_at_its_limit().await;
    target.running.assert_at_most(LIMIT);
    target.go.add_permits(1000);
    // Every request gets its reply in the end, or the order of its channel would be lost.
    for _ in 2..=200 {
        let reply = peer.frame().await;
        assert_eq!(reply.status, 5, "{reply:?}");
    }
    target.running_is("the handlers end", |now| now == 0).await;
    target.serves_others().await;
}

// ---- endless and unfinished requests

#[test]
fn an_endless_request_takes_no_more_than_the_message_limit_and_is_rejected_once() {
    alone(
        "an_endless_request_takes_no_more_than_the_message_limit_and_is_rejected_once",
        || async {
            let (target, before) = Target::measured(Limits::default().max_message_bytes(MIB)).await;
            let mut stream = target.stream().await;
            let body = vec![b'b'; 64 * 1024];
            let first = RawFrame::new(0, "/len", 1, &body).encode();
            let more = RawFrame::new(2, "/len", 1, &body).encode();
            sent(&mut stream, &first).await;
            let flooded = flood(&mut stream, &more, 1600, SERVED).await;
            assert!(
                matches!(flooded, Flooded::Taken),
                "100 MiB are skipped, not rejected: {flooded:?}"
            );
            assert_grown_less(before, 8 * MIB);
            let mut peer = Peer::over(stream);
            peer.send_frame(&RawFrame::new(3, "/len", 1, "end")).await;
            let reply = peer.frame().await;
            assert!(
                reply.body_text().contains("max_message_bytes"),
                "the reply names the option: {reply:?}"
            );
            assert_eq!(
                peer.call("/len", 1, "abc").await.body,
                b"3",
                "the connection and the channel live on"
            );
            target.serves_others().await;
        },
    );
}

#[test]
fn a_request_of_single_byte_frames_is_counted_with_its_overhead() {
    alone(
        "a_request_of_single_byte_frames_is_counted_with_its_overhead",
        || async {
            const FRAMES: usize = 200_000;
            let (target, before) = Target::measured(Limits::default()).await;
            let mut stream = target.stream().await;
            let first = RawFrame::new(0, "/", 1, "x").encode();
            sent(&mut stream, &first).await;
            let thousand = RawFrame::new(2, "/", 1, "x").encode().repeat(1000);
            let flooded = flood(&mut stream, &thousand, FRAMES / 1000, SERVED).await;
            assert!(
                matches!(flooded, Flooded::Taken),
                "a legal request: {flooded:?}"
            );
            target.serves_others().await;
            assert_grown_less(before, 8 * MIB);
            let mut peer = Peer::over(stream);
            peer.send_frame(&RawFrame::new(3, "/", 1, "x")).await;
            assert_eq!(peer.frame().await.body_text(), UNKNOWN_PATH);
        },
    );
}

#[test]
fn unfinished_requests_share_one_budget_and_its_breach_ends_the_connection() {
    alone(
        "unfinished_requests_share_one_budget_and_its_breach_ends_the_connection",
        || async {
            let limits = Limits::default()
                .max_buffered_bytes(4 * MIB)
                .progress_timeout(SHORT);
            let target = Target::start(limits).await;
            target.serves_others().await;
            let mut peer = Peer::connect(target.addr).await;
            for _ in 0..100 {
                peer.open_channel().await;
            }
            let before = resident_bytes();
            let body = vec![b'b'; 256 * 1024];
            for channel in 1..=100 {
                peer.send_frame(&RawFrame::new(0, "/echo", channel, &body))
                    .await;
            }
            assert_grown_less(before, 20 * MIB);
            target.serves_others().await;
            peer.closed_in_silence().await;
            target.serves_others().await;
        },
    );
}

#[test]
fn waiting_requests_are_counted_with_their_overhead() {
    alone(
        "waiting_requests_are_counted_with_their_overhead",
        || async {
            let target = Target::start(Limits::default().max_buffered_bytes(MIB)).await;
            target.serves_others().await;
            let mut stream = target.stream().await;
            let held = RawFrame::request("/hold", 1, "h").encode();
            sent(&mut stream, &held).await;
            target.running_is("the handler runs", |now| now == 1).await;
            let before = resident_bytes();
            // Two bytes each that count as data, and an overhead of many times that for each.
            let thousand = RawFrame::request("/", 1, "x").encode().repeat(1000);
            let flooded = flood(&mut stream, &thousand, 600, SERVED).await;
            assert!(
                !matches!(flooded, Flooded::Closed { .. }),
                "held back, not closed: {flooded:?}"
            );
            work_is_done().await;
            assert!(
                grown_since(before) < 12 * MIB,
                "grown by {} KiB, {flooded:?}",
                grown_since(before) / 1024
            );
            target.serves_others().await;
        },
    );
}

#[test]
fn small_requests_that_wait_do_not_pin_the_buffers_they_came_in() {
    alone(
        "small_requests_that_wait_do_not_pin_the_buffers_they_came_in",
        || async {
            const ROUNDS: usize = 1000;
            let target = Target::start(Limits::default()).await;
            let mut peer = target.peer().await;
            assert_eq!(peer.open_channel().await, 2);
            target.hold(&mut peer).await;
            let before = resident_bytes();
            // Each is sent with 60 KiB that are handled at once.
            let mut round = RawFrame::request("/echo", 1, "wait").encode();
            round.extend(RawFrame::request("/len", 2, vec![b'b'; 60 * 1024]).encode());
            for _ in 0..ROUNDS {
                peer.send(&round).await;
                assert_eq!(peer.frame().await, RawFrame::reply("/len", 2, "61440"));
            }
            assert_grown_less(before, 12 * MIB);
            target.go.add_permits(1);
            assert_eq!(peer.frame().await, RawFrame::reply("/hold", 1, "h"));
            for _ in 0..ROUNDS {
                assert_eq!(peer.frame().await, RawFrame::reply("/echo", 1, "wait"));
            }
            target.serves_others().await;
        },
    );
}

// ---- unread replies

#[test]
fn unread_replies_to_bad_paths_are_held_back_and_then_the_connection_is_closed() {
    alone(
        "unread_replies_to_bad_paths_are_held_back_and_then_the_connection_is_closed",
        || unread_replies(RawFrame::request("/no/such/path", 1, "x")),
    );
}

#[test]
fn unread_grants_are_held_back_and_then_the_connection_is_closed() {
    alone(
        "unread_grants_are_held_back_and_then_the_connection_is_closed",
        || unread_replies(RawFrame::new_channel()),
    );
}

#[test]
fn unread_large_replies_are_held_back_and_then_the_connection_is_closed() {
    alone(
        "unread_large_replies_are_held_back_and_then_the_connection_is_closed",
        || unread_replies(RawFrame::request("/big?n=100000", 1, "x")),
    );
}

/// Sends `request` for ever and reads nothing.
async fn unread_replies(request: RawFrame) {
    // The limit on requests per second must not be what bounds the replies here.
    let limits = Limits::default().max_control_requests(u32::MAX);
    let target = Target::start(limits.progress_timeout(SHORT)).await;
    target.serves_others().await;
    let mut stream = target.mute_stream().await;
    let before = resident_bytes();
    // More than the buffers of the kernel hold in both directions together.
    let flooded = flood(&mut stream, &request.encode().repeat(100), 10_000, SERVED).await;
    // The default limit is 1 MiB of unsent replies, and one reply more; the rest are the bytes of
    // the flood.
    assert!(
        grown_since(before) < 12 * MIB,
        "grown by {} KiB, {flooded:?}",
        grown_since(before) / 1024
    );
    assert!(
        !matches!(flooded, Flooded::Taken),
        "all was taken although nothing was read"
    );
    target.serves_others().await;
    // The server has given up: what remains is what the kernel held, and an end.
    let left = drained(&mut stream).await;
    assert!(left < 16 * MIB, "{left} bytes came after the end");
    target.serves_others().await;
}

#[tokio::test]
async fn a_reader_that_is_slow_but_moves_gets_everything() {
    const SIZE: usize = 16 * MIB;
    let target = Target::start(Limits::default().progress_timeout(TIME)).await;
    let mut stream = narrow_stream_to(target.addr, 128 * 1024).await;
    first_channel(&mut stream).await;
    let request = RawFrame::request(format!("/big?n={SIZE}"), 1, "x").encode();
    sent(&mut stream, &request).await;
    let head = RawFrame::head(5, "/big", 1, u32::try_from(SIZE).expect("16 MiB"));
    let mut left = head.len() + SIZE;
    let mut buffer = vec![0; 256 * 1024];
    // The slowness is the attack: in total several times the progress timeout.
    while left > 0 {
        passes_for_all(TIME / 4, TIME).await;
        let n = within("more of the reply", stream.read(&mut buffer))
            .await
            .expect("the connection lives");
        assert!(n > 0, "the server closed {left} bytes before the end");
        left -= n;
    }
    target.serves_others().await;
}

#[tokio::test]
async fn a_sender_that_keeps_the_buffer_full_is_served_as_long_as_it_moves() {
    const CALLS: usize = 40;
    let target = Target::configured(|config| {
        let limits = Limits::default()
            .max_buffered_bytes(64 * 1024)
            .progress_timeout(TIME);
        config.limits(limits)
    })
    .await;
    let (mut reader, mut writer) = target.stream().await.into_split();
    let request = RawFrame::request("/hold", 1, vec![b'x'; 16 * 1024]).encode();
    let sending = spawn(async move {
        for _ in 0..CALLS {
            writer.write_all(&request).await.expect("it is read");
        }
        writer
    });
    // The slowness fills the buffer: in total several times the progress timeout.
    for _ in 0..CALLS {
        passes_for_all(TIME / 4, TIME).await;
        target.go.add_permits(1);
        frames_come(&mut reader, 1).await;
    }
    let writer = within("the sender's end", sending).await;
    drop(writer.expect("every request was taken"));
    target.serves_others().await;
}

// ---- slow and silent peers

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_head_is_waited_for_no_longer_than_the_limit() {
    let target = Target::start(Limits::default().frame_head_timeout(SHORT)).await;
    let head = RawFrame::head(1, "/echo", 1, 3);
    for len in 1..head.len() {
        let mut peer = target.peer().await;
        peer.send(&head[..len]).await;
        // All at once, to keep the test short.
        spawn(async move { peer.closed_in_silence().await });
    }
    let mut peer = target.peer().await;
    peer.send(&head[..4]).await;
    peer.closed_in_silence().await;
    target.serves_others().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_comes_byte_by_byte_is_waited_for_no_longer_than_the_limit() {
    let target = Target::start(Limits::default().frame_head_timeout(SHORT)).await;
    let mut peer = target.peer().await;
    peer.send(&[1]).await;
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    for sent in 0.. {
        tick.tick().await;
        peer.send(b"p").await;
        if let Some(seen) = peer.frame_within(Duration::from_millis(1)).await {
            assert!(
                matches!(seen, crate::common::peer::Seen::Closed { .. }),
                "{seen:?}"
            );
            break;
        }
        assert!(
            sent < 1000,
            "a slow sender was waited for during ten seconds"
        );
    }
    target.serves_others().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_body_is_waited_for_no_longer_than_the_limit() {
    let target = Target::start(Limits::default().progress_timeout(SHORT)).await;
    let mut peer = target.peer().await;
    peer.send(&RawFrame::head(1, "/echo", 1, 3)).await;
    peer.send(b"ab").await;
    peer.closed_in_silence().await;
    target.serves_others().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_frame_of_a_request_is_waited_for_no_longer_than_the_limit() {
    let target = Target::start(Limits::default().progress_timeout(SHORT)).await;
    let mut peer = target.peer().await;
    peer.send_frame(&RawFrame::new(0, "/echo", 1, "the first of two"))
        .await;
    let reply = peer.frame().await;
    let text = String::from_utf8_lossy(&reply.body);
    assert!(text.contains("progress_timeout"), "{text}");
    // Only that call has failed.
    peer.send_frame(&RawFrame::new(3, "", 1, "the second"))
        .await;
    peer.echoes(1, "again").await;
    target.serves_others().await;
}

#[tokio::test]
async fn a_body_that_moves_is_waited_for_longer_than_the_limit() {
    let target = Target::start(Limits::default().progress_timeout(TIME)).await;
    let mut peer = target.peer().await;
    peer.send(&RawFrame::head(1, "/len", 1, 30)).await;
    for _ in 0..30 {
        passes_for_all(TIME / 4, TIME).await;
        peer.send(b"b").await;
    }
    assert_eq!(peer.frame().await, RawFrame::reply("/len", 1, "30"));
    target.serves_others().await;
}

#[tokio::test]
async fn a_silent_connection_is_closed_and_one_with_a_call_under_way_is_not() {
    let target = Target::start(Limits::default().idle_timeout(TIME)).await;
    let mut busy = target.peer().await;
    target.hold(&mut busy).await;
    let mut silent = target.peer().await;
    passes_for_all(2 * TIME, TIME).await;
    // A status 8 may come before the end.
    let last = silent.closed().await;
    assert!(last.iter().all(|frame| frame.status == 8), "{last:?}");
    // The connection with the call has been silent for longer.
    target.go.add_permits(1);
    assert_eq!(busy.frame().await, RawFrame::reply("/hold", 1, "h"));
    target.serves_others().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_in_the_middle_of_a_frame_runs_nothing_of_it() {
    let target = Target::start(Limits::default()).await;
    let frame = RawFrame::request("/hold", 1, "abc").encode();
    for len in 1..frame.len() {
        let mut peer = target.peer().await;
        peer.send(&frame[..len]).await;
        peer.finish_sending();
        peer.closed_in_silence().await;
    }
    assert_eq!(target.running.started(), 0);
    target.serves_others().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_in_the_middle_of_a_request_is_closed_at_once() {
    let target = Target::start(Limits::default()).await;
    let mut peer = target.peer().await;
    peer.send_frame(&RawFrame::new(0, "/hold", 1, "the first of two"))
        .await;
    peer.finish_sending();
    // The end does not wait for progress_timeout: the rest can never come.
    tokio::time::timeout(SERVED, peer.closed_in_silence())
        .await
        .expect("closed at once");
    assert_eq!(target.running.started(), 0);
    target.serves_others().await;
}

// ---- floods

impl Target {
    /// Makes the allowed number of connections, and shows that `more` are rejected.
    async fn allows_no_more_than(&self, limit: usize, more: usize) -> Vec<Peer> {
        let mut allowed = Vec::new();
        for _ in 0..limit {
            allowed.push(self.peer().await);
        }
        for _ in 0..more {
            Peer::connect(self.addr).await.closed_in_silence().await;
        }
        allowed
    }
}

async fn are_still_served(peers: &mut [Peer]) {
    for peer in peers {
        assert_eq!(
            peer.call("/echo", 1, "still here").await.body,
            b"still here"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_connections_than_allowed_are_rejected_and_later_ones_served() {
    const LIMIT: usize = 8;
    let target = Target::configured(|config| config.max_connections(LIMIT)).await;
    let mut allowed = target.allows_no_more_than(LIMIT, 50).await;
    are_still_served(&mut allowed).await;
    for mut peer in allowed {
        peer.reset().await;
    }
    // The server notices the closed connections one by one.
    within("a connection is served again", async {
        loop {
            let mut peer = Peer::connect(target.addr).await;
            peer.send_frame(&RawFrame::new_channel()).await;
            if let crate::common::peer::Seen::Frame(frame) = peer.next().await {
                assert_eq!(frame, RawFrame::grant(1));
                break;
            }
        }
    })
    .await;
    target.serves_others().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_cannot_take_the_connections_of_others() {
    const LIMIT: usize = 4;
    let target = Target::configured(|config| config.max_connections_per_peer(LIMIT)).await;
    let mut allowed = target.allows_no_more_than(LIMIT, 20).await;
    // All addresses of 127.0.0.0/8 belong to this machine.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket
        .bind(SocketAddr::from(([127, 0, 0, 2], 0)))
        .expect("loopback has many addresses");
    let stream = within("connecting", socket.connect(target.addr)).await;
    let mut other = Peer::over(stream.expect("the server listens"));
    assert_eq!(other.open_channel().await, 1);
    assert_eq!(other.call("/echo", 1, "other").await.body, b"other");
    are_still_served(&mut allowed).await;
}

/// Connects again and again from an address of this machine, and sends nothing. Rejected and closed
/// connections are replaced.
fn keeps_connecting(
    addr: SocketAddr,
    from: [u8; 4],
    every: Duration,
) -> tokio::task::JoinHandle<()> {
    spawn(async move {
        let mut tick = tokio::time::interval(every);
        let mut held = std::collections::VecDeque::new();
        loop {
            tick.tick().await;
            let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
            socket
                .bind(SocketAddr::from((from, 0)))
                .expect("an address of this machine");
            if let Ok(stream) = socket.connect(addr).await {
                held.push_back(stream);
            }
            if held.len() > 300 {
                held.pop_front();
            }
        }
    })
}

impl Target {
    /// Checks that a call of a new connection gets a reply, and sooner than silent connections time
    /// out.
    async fn serves_others_under_attack(&self) {
        let begun = Instant::now();
        loop {
            let serve = async {
                let mut peer = Peer::connect(self.addr).await;
                peer.send_frame(&RawFrame::new_channel()).await;
                matches!(peer.next().await, crate::common::peer::Seen::Frame(frame) if frame == RawFrame::grant(1))
            };
            if serve.await {
                return;
            }
            // It came while the earlier ones had not yet had time to send anything.
            assert!(
                begun.elapsed() < Duration::from_secs(5),
                "no connection is served"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_are_closed_for_new_ones() {
    const LIMIT: usize = 50;
    for from in [[127, 0, 0, 1], [127, 0, 0, 2]] {
        let target = Target::configured(|config| config.max_connections(LIMIT)).await;
        let mut before = target.peer().await;
        let attack = keeps_connecting(target.addr, from, Duration::from_millis(25));
        eventually("the limit is reached", || {
            target.server.connections() >= LIMIT - LIMIT / 16
        })
        .await;
        for _ in 0..10 {
            target.serves_others_under_attack().await;
        }
        // A connection that has sent something is kept.
        are_still_served(std::slice::from_mut(&mut before)).await;
        attack.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_of_an_address_are_closed_for_new_ones_of_it() {
    const LIMIT: usize = 20;
    let target = Target::configured(|config| config.max_connections_per_peer(LIMIT)).await;
    let attack = keeps_connecting(target.addr, [127, 0, 0, 1], Duration::from_millis(100));
    eventually("the limit is reached", || {
        target.server.connections() >= LIMIT
    })
    .await;
    for _ in 0..3 {
        target.serves_others_under_attack().await;
    }
    attack.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_leaves_connections_to_others_by_default() {
    const LIMIT: usize = 32;
    let target = Target::configured(|config| config.max_connections(LIMIT)).await;
    let mut allowed = target.allows_no_more_than(LIMIT - 2, 4).await;
    are_still_served(&mut allowed).await;
}

#[test]
fn running_out_of_file_descriptors_does_not_end_the_accepting() {
    alone_under(
        "running_out_of_file_descriptors_does_not_end_the_accepting",
        Some(64),
        || async {
            let target = Target::start(Limits::default()).await;
            target.serves_others().await;
            let mut held = Vec::new();
            // Both ends are in this process: its descriptors run out after some 25 connections,
            // first here and then in the server.
            let rejected = loop {
                match TcpStream::connect(target.addr).await {
                    Ok(stream) => held.push(stream),
                    Err(error) => break error,
                }
                assert!(held.len() < 100, "the limit on descriptors does not hold");
            };
            assert_eq!(rejected.raw_os_error(), Some(24), "EMFILE, but: {rejected}");
            // One descriptor for a connection that the server cannot accept, so that accepting
            // meets the error, too.
            held.pop();
            let waiting = TcpStream::connect(target.addr).await;
            tokio::task::yield_now().await;
            drop(held);
            target.serves_others().await;
            drop(waiting);
        },
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_reset_at_once_do_not_end_the_accepting() {
    let target = Target::start(Limits::default()).await;
    for _ in 0..500 {
        reset(stream_to(target.addr).await);
    }
    target.serves_others().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_that_panic_send_a_reply_and_affect_no_other_call() {
    let target = Target::start(Limits::default()).await;
    let mut peer = target.peer().await;
    for _ in 0..20 {
        let reply = peer.call("/panic", 1, "x").await;
        assert_eq!(
            reply,
            RawFrame::reply(
                "/panic",
                1,
                r#"{"code":101,"message":"handle no response"}"#
            )
        );
    }
    assert_eq!(peer.call("/echo", 1, "after").await.body, b"after");
    target.serves_others().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_flood_of_small_frames_leaves_time_for_other_connections() {
    const FRAMES: usize = 100_000;
    const OTHERS: usize = 5;
    let target = Target::start(Limits::default()).await;
    let (mut reader, mut writer) = target.stream().await.into_split();
    let served = AtomicUsize::new(0);
    let (tell, mut seen) = watch::channel(None);
    // The flood goes on until enough other calls were served: how long that takes depends on the
    // load of the machine.
    let flooding = async {
        let thousand = RawFrame::request("/echo", 1, "x").encode().repeat(1000);
        let mut frames = 0;
        while frames < FRAMES || served.load(Ordering::Relaxed) < OTHERS {
            sent(&mut writer, &thousand).await;
            frames += 1000;
        }
        tell.send_replace(Some(
            frames * RawFrame::reply("/echo", 1, "x").encode().len(),
        ));
    };
    let replies = async {
        let (mut come, mut buffer) = (0, vec![0; 64 * 1024]);
        while *seen.borrow() != Some(come) {
            tokio::select! {
                read = reader.read(&mut buffer) => match read.expect("the connection lives") {
                    0 => panic!("the server closed"),
                    length => come += length,
                },
                Ok(()) = seen.changed() => {}
            }
        }
    };
    let others = async {
        while served.load(Ordering::Relaxed) < OTHERS {
            within("another's reply", target.serves_another()).await;
            served.fetch_add(1, Ordering::Relaxed);
        }
    };
    within("the replies", async {
        tokio::join!(flooding, replies, others)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_control_requests_is_served_at_the_limited_rate() {
    const PER_SECOND: usize = 200;
    const SECONDS: usize = 3;
    let target = Target::start(Limits::default().max_control_requests(PER_SECOND as u32)).await;
    let mut peer = target.peer().await;
    let hello = RawFrame::request("/sys/hello", 0, "{\"iip\":1}").encode();
    let open = RawFrame::request("/sys/new_channel", 0, "{}").encode();
    let begun = Instant::now();
    peer.send(&[hello, open].concat().repeat(PER_SECOND * SECONDS / 2))
        .await;
    for seen in 1..=PER_SECOND * SECONDS {
        peer.frame().await;
        // The server's second may have begun up to a second earlier.
        let limit = PER_SECOND * (begun.elapsed().as_secs() as usize + 2);
        assert!(seen <= limit, "{seen} replies after {:?}", begun.elapsed());
        if seen.is_multiple_of(PER_SECOND) {
            target.serves_others().await;
        }
    }
    let least = Duration::from_secs(SECONDS as u64 - 2);
    assert!(begun.elapsed() >= least, "{SECONDS} seconds' worth at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_stops_although_hostile_connections_are_open() {
    let target = Target::start(Limits::default()).await;
    let mut half = target.peer().await;
    half.send(&RawFrame::head(1, "/echo", 1, 100)).await;
    let mut held = target.peer().await;
    target.hold(&mut held).await;
    let mute = target.mute_stream().await;
    within("stopping", target.server.shutdown(SHORT)).await;
    target
        .running_is("the handler is stopped", |now| now == 0)
        .await;
    half.closed().await;
    held.closed().await;
    drop(mute);
}
