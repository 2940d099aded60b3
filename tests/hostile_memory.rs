//! Peers that make the other side hold memory, over real sockets. Each attack runs in a separate
//! process, whose peak memory stays within the formula of `docs/guide/limits.md`, plus a tenth.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use iip_core::{CallError, CallErrorKind, HandlerError, Response, handler_fn};
use iip_rpc::{
    Client, Health, HealthClient, HealthState, Limits, Payload, Server, ServerBuilder, Status,
    Stream, Streaming, service,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::common::alone::alone;
use crate::common::calls::record;
use crate::common::compressed::{claimed, request, zstd};
use crate::common::frame::RawFrame;
use crate::common::peer::{Peer, accepted};
use crate::common::victim::{Victim as RawVictim, honest, soon};
use crate::common::{
    MIB, assert_grown_less, eventually, grown_since, resident_bytes, spawn, within,
};

/// Maximum number of bytes that the calls of a connection may hold, in each direction.
const BUDGET: usize = 64 * MIB;

/// One message beyond the maximum, and the frame that is being read.
const MESSAGES: usize = 2 * 16 * MIB;

/// Memory of a call without its data: a task, a channel, entries in tables.
const PER_CALL: usize = 4 * 1024;

/// Maximum number of unread bytes of a stream: its window, and a frame beyond it.
const PER_STREAM: usize = 2 * 64 * 1024;

/// Memory that the process takes for its first connection, and freed copies that its allocator
/// keeps.
const BASE: usize = 12 * MIB;

/// Arguments are counted once in the form in which they were received and once decompressed, but
/// decoding copies one message on each of the two threads.
const DECODING: usize = 2 * 16 * MIB;

/// The limit in one direction.
fn formula(calls: usize, streams: usize) -> usize {
    (BUDGET + MESSAGES + DECODING + BASE + calls * PER_CALL + streams * PER_STREAM) * 11 / 10
}

#[service]
trait Victim {
    /// Replies with 1 MiB, after a delay.
    async fn large(&self) -> Result<Payload, Status>;
    /// Never returns.
    async fn hold(&self, data: Payload) -> Result<(), Status>;
    async fn take(&self, chunks: Streaming<Payload>) -> Result<(), Status>;
    /// Sends messages of 1 MiB.
    async fn give(&self) -> Result<impl Stream<Item = Result<Payload, Status>>, Status>;
    async fn ping(&self) -> Result<(), Status>;
}

/// Number of replies that were made.
static REPLIES: AtomicUsize = AtomicUsize::new(0);

struct Here;

impl Victim for Here {
    async fn large(&self) -> Result<Payload, Status> {
        // All of them reply when all have begun.
        tokio::time::sleep(Duration::from_secs(1)).await;
        REPLIES.fetch_add(1, Ordering::SeqCst);
        Ok(Payload::from(vec![7; MIB]))
    }

    async fn hold(&self, data: Payload) -> Result<(), Status> {
        std::future::pending::<()>().await;
        drop(data);
        Ok(())
    }

    async fn take(&self, mut chunks: Streaming<Payload>) -> Result<(), Status> {
        while let Some(chunk) = chunks.next().await {
            chunk?;
        }
        Ok(())
    }

    async fn give(&self) -> Result<impl Stream<Item = Result<Payload, Status>>, Status> {
        Ok(Streaming::iter((0..4).map(|_| Payload::from(vec![7; MIB]))))
    }

    async fn ping(&self) -> Result<(), Status> {
        Ok(())
    }
}

struct Target {
    server: Server,
    addr: SocketAddr,
    before: usize,
}

impl Target {
    async fn start() -> Self {
        Self::with(Server::builder()).await
    }

    async fn with(server: ServerBuilder) -> Self {
        let server = server.service(VictimServer::new(Here));
        let server = server.bind("127.0.0.1:0").await.unwrap();
        let addr = server.local_addr().unwrap();
        let target = Self {
            server,
            addr,
            before: 0,
        };
        target.serves_others().await;
        Self {
            before: resident_bytes(),
            ..target
        }
    }

    /// A connection that has sent its hello and asked for `channels`, and reads nothing after that.
    async fn attacker(&self, channels: u32) -> TcpStream {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        let hello = br#"{"iip":1,"control":1,"stream_window":65536,"rpc":{"codecs":[1]}}"#;
        let mut bytes = RawFrame::request("/sys/hello", 0, hello).encode();
        for _ in 0..channels {
            bytes.extend(RawFrame::request("/sys/new_channel", 0, b"{}").encode());
        }
        within("asking for channels", stream.write_all(&bytes))
            .await
            .unwrap();
        let granted = format!("{{\"code\":0,\"channel_id\":{channels}}}");
        let mut seen = Vec::new();
        while !seen.ends_with(granted.as_bytes()) {
            let read = within("the channels", stream.read_buf(&mut seen))
                .await
                .unwrap();
            assert_ne!(read, 0, "closed");
        }
        stream
    }

    async fn serves_others(&self) {
        let client = Client::connect(self.server.target()).await.unwrap();
        within("a call during the attack", VictimClient::new(client).ping())
            .await
            .unwrap();
    }

    /// Like [`held_at_most`](Self::held_at_most), but for attacks that are known to fill their
    /// limit.
    #[track_caller]
    fn filled_at_most(&self, limit: usize) {
        let held = grown_since(self.before);
        eprintln!("{} of {} MiB", held / MIB, limit / MIB);
        assert!(held > BUDGET * 3 / 4, "it held {} MiB only", held / MIB);
        self.held_at_most(limit);
    }

    #[track_caller]
    fn held_at_most(&self, limit: usize) {
        assert_grown_less(self.before, limit);
    }
}

/// A payload in bincode: its length, then its bytes.
fn payload(len: usize) -> Vec<u8> {
    let mut bytes = vec![252];
    bytes.extend(u32::try_from(len).unwrap().to_le_bytes());
    bytes.resize(bytes.len() + len, 7);
    bytes
}

/// Sends as much as the peer reads, until nothing moves for a second.
async fn push(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    let mut sent = 0;
    while sent < bytes.len() {
        let more = stream.write(&bytes[sent..]);
        match tokio::time::timeout(Duration::from_secs(1), more).await {
            Ok(Ok(written)) => sent += written,
            Ok(Err(_)) | Err(_) => return false,
        }
    }
    true
}

/// Waits until the memory of this process has not grown for half a second.
async fn settled(before: usize) {
    let mut last = 0;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = grown_since(before);
        if now == last {
            return;
        }
        last = now;
    }
}

#[test]
fn unread_replies_stay_within_the_formula() {
    alone("unread_replies_stay_within_the_formula", || async {
        const CALLS: u32 = 1000;
        let target = Target::start().await;
        let mut stream = target.attacker(CALLS).await;
        for channel in 1..=CALLS {
            let call = RawFrame::request("/victim/large", channel, request(0, b""));
            assert!(push(&mut stream, &call.encode()).await);
        }
        eventually("the replies", || {
            REPLIES.load(Ordering::SeqCst) == CALLS as usize
        })
        .await;
        settled(target.before).await;
        target.filled_at_most(formula(CALLS as usize, 0));
        target.serves_others().await;
    });
}

#[test]
fn arguments_that_handlers_hold_stay_within_the_formula() {
    alone(
        "arguments_that_handlers_hold_stay_within_the_formula",
        || async {
            const CALLS: u32 = 60;
            let target = Target::start().await;
            let mut stream = target.attacker(CALLS).await;
            for channel in 1..=CALLS {
                let body = request(0, &payload(15 * MIB));
                let call = RawFrame::request("/victim/hold", channel, body).encode();
                if !push(&mut stream, &call).await {
                    break;
                }
            }
            settled(target.before).await;
            target.filled_at_most(formula(CALLS as usize, 0));
            target.serves_others().await;
        },
    );
}

#[test]
fn small_arguments_that_handlers_hold_do_not_keep_what_was_read_with_them() {
    let name = "small_arguments_that_handlers_hold_do_not_keep_what_was_read_with_them";
    alone(name, || async {
        const CALLS: u32 = 900;
        let target = Target::start().await;
        let mut stream = target.attacker(CALLS + 1).await;
        let filler = RawFrame::request("/victim/none", CALLS + 1, vec![b'{'; 60 * 1024]).encode();
        for channel in 1..=CALLS {
            let body = request(0, &payload(1100));
            let call = RawFrame::request("/victim/hold", channel, body).encode();
            let _ = push(&mut stream, &[call, filler.clone()].concat()).await;
        }
        settled(target.before).await;
        target.held_at_most(BASE + 20 * MIB + CALLS as usize * PER_CALL);
        target.serves_others().await;
    });
}

#[test]
fn messages_that_are_never_complete_stay_within_the_formula_and_fail() {
    let name = "messages_that_are_never_complete_stay_within_the_formula_and_fail";
    alone(name, || async {
        const STREAMS: u32 = 60;
        let target = Target::start().await;
        let mut stream = target.attacker(STREAMS).await;
        let head = record(&request(0, b""));
        let message = u32::try_from(15 * MIB + 100).unwrap().to_be_bytes();
        for channel in 1..=STREAMS {
            let first = [&[0xF8], &head[..], &message[..]].concat();
            let first = RawFrame::new(0, "/victim/take", channel, first).encode();
            assert!(push(&mut stream, &first).await);
        }
        // The client sends as fast as flow control allows, and each message is slightly too short.
        let (mut reader, mut writer) = stream.into_split();
        let (grants, mut granted) = tokio::sync::mpsc::unbounded_channel();
        let reading = spawn(async move {
            let mut buffer = Vec::new();
            while reader
                .read_buf(&mut buffer)
                .await
                .is_ok_and(|read| read > 0)
            {
                let mut taken = 0;
                while let Some((frame, len)) = RawFrame::decode(&buffer[taken..]) {
                    taken += len;
                    if let [0xF9, bytes @ ..] = &frame.body[..] {
                        let bytes = u32::from_be_bytes(bytes.try_into().unwrap());
                        let _ = grants.send((frame.channel, bytes as usize));
                    }
                }
                buffer.drain(..taken);
            }
        });
        let mut left = vec![15 * MIB; STREAMS as usize + 1];
        let mut credit = vec![60 * 1024_usize; STREAMS as usize + 1];
        loop {
            for channel in 1..=STREAMS {
                let (left, credit) = (&mut left[channel as usize], &mut credit[channel as usize]);
                while *left > 0 && *credit > 0 {
                    let size = (*left).min(*credit).min(60 * 1024);
                    let part = [&[0xF8], &vec![7; size][..]].concat();
                    let part = RawFrame::new(2, "", channel, part).encode();
                    within("sending what was granted", writer.write_all(&part))
                        .await
                        .unwrap();
                    *left -= size;
                    *credit -= size;
                }
            }
            match tokio::time::timeout(Duration::from_secs(3), granted.recv()).await {
                Ok(Some((channel, bytes))) => credit[channel as usize] += bytes,
                Ok(None) | Err(_) => break,
            }
        }
        settled(target.before).await;
        target.filled_at_most(formula(STREAMS as usize, STREAMS as usize));
        let complete = left.iter().skip(1).filter(|&&left| left == 0).count();
        assert!(complete < 10, "{complete} were let through");
        target.serves_others().await;
        reading.abort();
    });
}

#[test]
fn what_is_decompressed_stays_within_the_formula() {
    alone("what_is_decompressed_stays_within_the_formula", || async {
        const CALLS: u32 = 200;
        let target = Target::start().await;
        let mut stream = target.attacker(CALLS).await;
        let mut plain = payload(15 * MIB);
        // The smallest size that the ratio allows.
        let mut number = 1_u64;
        for byte in &mut plain[100..17 * 1024] {
            number = number
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            *byte = (number >> 56) as u8;
        }
        let packed = zstd(&plain);
        assert!(
            (16 * 1024..20 * 1024).contains(&packed.len()),
            "{}",
            packed.len()
        );
        let body = claimed(plain.len() as u64, &packed);
        drop(plain);
        let before = resident_bytes();
        for channel in 1..=CALLS {
            let call = RawFrame::request("/victim/hold", channel, request(1, &body)).encode();
            if !push(&mut stream, &call).await {
                break;
            }
        }
        settled(before).await;
        target.filled_at_most(formula(CALLS as usize, 0));
        target.serves_others().await;
    });
}

#[test]
fn unread_messages_of_streams_stay_within_the_formula() {
    let name = "unread_messages_of_streams_stay_within_the_formula";
    alone(name, || async {
        const STREAMS: u32 = 400;
        let target = Target::start().await;
        let mut stream = target.attacker(STREAMS).await;
        let head = record(&request(0, b""));
        for channel in 1..=STREAMS {
            let first = [&[0xF8], &head[..]].concat();
            let first = RawFrame::new(0, "/victim/give", channel, first).encode();
            let _ = push(&mut stream, &first).await;
        }
        settled(target.before).await;
        target.filled_at_most(formula(STREAMS as usize, STREAMS as usize));
        target.serves_others().await;
    });
}

/// Opens streams that send the head of a record, and nothing of its message.
async fn begin_streams(stream: &mut TcpStream, path: &str, streams: u32) {
    for channel in 1..=streams {
        let first = [0xF8, 0, 0, 1, 0];
        let first = RawFrame::new(0, path, channel, first).encode();
        assert!(push(stream, &first).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_of_health_that_never_begin_use_no_capacity_of_others() {
    const STREAMS: u32 = 50;
    let server = Server::builder().health(&Health::new());
    let target = Target::with(server.max_health_watches(4)).await;
    let mut stream = target.attacker(STREAMS).await;
    begin_streams(&mut stream, "/sys/health/watch", STREAMS).await;
    // The same connection serves a later request, so the streams have been read.
    let ping = RawFrame::request("/sys/ping", 0, b"{}").encode();
    assert!(push(&mut stream, &ping).await);
    let mut reply = [0; 1];
    within("the reply", stream.read_exact(&mut reply))
        .await
        .unwrap();
    let client = Client::connect(target.server.target()).await.unwrap();
    let asked = HealthClient::new(client);
    let mut watch = within("a watch during them", asked.watch(""))
        .await
        .unwrap();
    assert_eq!(watch.next().await, Some(Ok(HealthState::Serving)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_never_begin_use_no_capacity_of_handlers_and_are_given_up() {
    const STREAMS: u32 = 50;
    let limits = Limits::default().progress_timeout(Duration::from_secs(2));
    let target = Target::with(Server::builder().max_running_calls(4).limits(limits)).await;
    let mut stream = target.attacker(STREAMS).await;
    begin_streams(&mut stream, "/victim/take", STREAMS).await;
    let client = Client::connect(target.server.target()).await.unwrap();
    let victim = VictimClient::new(client);
    // The handler has to wait, so it counts as running.
    within("a call during them", victim.large()).await.unwrap();
    let mut seen = Vec::new();
    let mut rejected = 0;
    while rejected < STREAMS {
        let read = within("their replies", stream.read_buf(&mut seen))
            .await
            .unwrap();
        assert_ne!(read, 0, "the connection lives on");
        let mut taken = 0;
        while let Some((frame, len)) = RawFrame::decode(&seen[taken..]) {
            taken += len;
            rejected += u32::from(frame.body_text().contains("progress_timeout"));
        }
        seen.drain(..taken);
    }
}

#[test]
fn a_hello_of_any_form_takes_little_more_memory_than_its_bytes() {
    alone(
        "a_hello_of_any_form_takes_little_more_memory_than_its_bytes",
        || async {
            const CONNECTIONS: usize = 200;
            let target = Target::start().await;
            let mut streams = Vec::new();
            let many = ["[[[[]]]]"; 1500].join(",");
            let body = format!("{{\"iip\":1,\"rpc\":{{\"other\":[{many}]}}}}");
            assert!(body.len() < 16 * 1024);
            for _ in 0..CONNECTIONS {
                let mut stream = TcpStream::connect(target.addr).await.unwrap();
                let hello = RawFrame::request("/sys/hello", 0, &body).encode();
                assert!(push(&mut stream, &hello).await);
                let mut reply = [0; 16];
                within("its reply", stream.read_exact(&mut reply))
                    .await
                    .unwrap();
                streams.push(stream);
            }
            target.held_at_most(BASE + CONNECTIONS * 100 * 1024);
            target.serves_others().await;
        },
    );
}

#[test]
fn endless_cancellations_take_no_memory() {
    alone("endless_cancellations_take_no_memory", || async {
        let target = Target::start().await;
        let mut stream = target.attacker(2).await;
        let hold = RawFrame::request("/victim/hold", 1, request(0, &payload(100)));
        let control = RawFrame::new(0, "/sys/control", 2, [0, 0]);
        assert!(push(&mut stream, &[hold.encode(), control.encode()].concat()).await);
        let cancels = [1, 4, 0, 0, 0, 1].repeat(10_000);
        let cancels = RawFrame::new(2, "", 2, cancels).encode();
        for _ in 0..100 {
            if !push(&mut stream, &cancels).await {
                break;
            }
        }
        // The same in one frame.
        let cancels = [1, 4, 0, 0, 0, 1].repeat(2 * MIB);
        let _ = push(&mut stream, &RawFrame::new(2, "", 2, cancels).encode()).await;
        settled(target.before).await;
        target.held_at_most(BASE + 2 * 16 * MIB);
        target.serves_others().await;
    });
}

/// A client of a hostile server, and its memory growth.
async fn client_of(attack: impl AsyncFnOnce(&mut Peer)) -> usize {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    // A successful call allocates everything that a first call needs.
    let echo = handler_fn(async |request: iip_core::Request| {
        Ok::<_, HandlerError>(Response::from(request.into_body()))
    });
    let warm = iip_core::Server::builder().route("/echo", echo);
    let warm = warm.bind("127.0.0.1:0").await.unwrap();
    let client = iip_core::Client::connect(warm.target()).await.unwrap();
    within("a first call", client.request("/echo", "x"))
        .await
        .unwrap();
    let client = spawn(async move {
        let limits = Limits::default();
        let config = iip_core::Client::builder().limits(limits);
        let config = config.hello(serde_json::json!({}));
        if let Ok(client) = config.connect(addr.to_string()).await
            && let Some(connection) = client.ready_connection()
        {
            connection.closed().await;
        }
    });
    let before = resident_bytes();
    let mut peer = Peer::over(accepted(&listener).await);
    attack(&mut peer).await;
    let held = grown_since(before);
    client.abort();
    held
}

#[test]
fn a_reply_to_a_request_for_a_channel_takes_no_more_memory_than_its_bytes() {
    let name = "a_reply_to_a_request_for_a_channel_takes_no_more_memory_than_its_bytes";
    alone(name, || async {
        let grant = format!(
            "{{\"code\":0,\"channel_id\":1,\"more\":[{}[]]}}",
            "[],".repeat(5 * MIB)
        );
        let reply = Bytes::from(RawFrame::new(5, "/sys/new_channel", 0, &grant).encode());
        drop(grant);
        let held = client_of(async |peer: &mut Peer| {
            peer.send(&reply).await;
            peer.closed().await;
        })
        .await;
        assert!(held < 16 * MIB + 2 * 16 * MIB + BASE, "{} KiB", held / 1024);
    });
}

#[test]
fn endless_going_away_notices_take_no_memory() {
    alone("endless_going_away_notices_take_no_memory", || async {
        let notices = RawFrame::new(4, "/sys/control", 1, [2, 0].repeat(8 * MIB - 100));
        let notices = Bytes::from(notices.encode());
        let held = client_of(async |peer: &mut Peer| {
            let hello = br#"{"code":0,"iip":1,"control":1}"#;
            peer.send_frame(&RawFrame::new(5, "/sys/hello", 0, hello))
                .await;
            let mut channels = 0;
            loop {
                let frame = peer.frame().await;
                if frame.path == b"/sys/new_channel" {
                    channels += 1;
                    let grant = format!("{{\"code\":0,\"channel_id\":{channels}}}");
                    let grant = RawFrame::new(5, "/sys/new_channel", 0, grant);
                    peer.send_frame(&grant).await;
                }
                if frame.path == b"/sys/control" {
                    let mut first = notices.to_vec();
                    let id = frame.channel.to_be_bytes();
                    first[14..18].copy_from_slice(&id);
                    peer.send(&first).await;
                    break;
                }
            }
            peer.closed().await;
        })
        .await;
        assert!(held < 3 * 16 * MIB + BASE, "{} KiB", held / 1024);
    });
}

/// Sends sixty replies of 8 MiB, one MiB at a time in turns. Returns the outcomes of the calls, and
/// the memory that the client held.
async fn replies_in_turns(streamed: bool) -> (Vec<Result<usize, CallError>>, usize) {
    const CALLS: u32 = 60;
    let (victim, mut peer) = RawVictim::with_peer(iip_core::Client::builder()).await;
    peer.grants(1).await;
    let before = resident_bytes();
    let (arrived, all_arrived) = tokio::sync::watch::channel(false);
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        let (client, mut all_arrived) = (victim.client.clone(), all_arrived.clone());
        calls.spawn(async move {
            if !streamed {
                return client.request("/large", "x").await.map(|body| body.len());
            }
            let mut parts = client.stream("/large", "x").await?;
            all_arrived.wait_for(|&all| all).await.unwrap();
            let mut taken = 0;
            while let Some(part) = parts.next().await {
                taken += part?.len();
            }
            Ok(taken)
        });
    }
    let (mut granted, mut asked) = (1, 0);
    while asked < CALLS {
        let frame = peer.frame().await;
        if frame.path == b"/sys/new_channel" {
            granted += 1;
            peer.send_frame(&RawFrame::grant(granted)).await;
        } else {
            asked += 1;
        }
    }
    assert_eq!(granted, CALLS);
    let piece = vec![b'b'; MIB];
    for status in [4, 6, 6, 6, 6, 6, 6, 7] {
        for channel in 1..=CALLS {
            peer.send_frame(&RawFrame::new(status, "/large", channel, &piece))
                .await;
        }
    }
    let echo = victim.calls("/echo", "behind them");
    honest(&mut peer, granted, 1).await;
    soon("a call after them", echo).await.unwrap();
    let held = grown_since(before);
    arrived.send(true).unwrap();
    (within("the calls", calls.join_all()).await, held)
}

#[test]
fn replies_that_are_incomplete_or_unread_stay_within_the_formula_and_fail_beyond_it() {
    let name = "replies_that_are_incomplete_or_unread_stay_within_the_formula_and_fail_beyond_it";
    alone(name, || async {
        for streamed in [false, true] {
            let (outcomes, held) = replies_in_turns(streamed).await;
            eprintln!("{} of {} MiB", held / MIB, formula(60, 0) / MIB);
            assert!(held < formula(60, 0), "{} MiB", held / MIB);
            let mut whole = 0;
            for outcome in outcomes {
                match outcome {
                    Ok(taken) => {
                        assert_eq!(taken, 8 * MIB);
                        whole += 1;
                    }
                    Err(error) => {
                        let kind = error.kind();
                        assert!(
                            matches!(kind, CallErrorKind::BufferFull { limit: BUDGET }),
                            "{error}"
                        );
                    }
                }
            }
            // Unread parts stay counted, so that none of those replies is complete.
            let expected = if streamed { 0..=8 } else { 4..=10 };
            assert!(expected.contains(&whole), "{whole} were whole");
        }
    });
}
