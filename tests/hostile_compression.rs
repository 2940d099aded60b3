//! Hostile peers that compress, over real sockets: a client against our server, and a server
//! against our client. Whatever the bytes claim or contain, only that call fails, the error names
//! the option, memory stays bounded, and the connection stays usable.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use iip_rpc::{Client, Code, Execution, Server, Status, Stream, Streaming, service};

use crate::common::alone::alone;
use crate::common::calls::{expect, lazy, serve_until_request, status_in};
use crate::common::compressed::{claimed, lz4, request, zstd};
use crate::common::frame::RawFrame;
use crate::common::peer::{Peer, accepted};
use crate::common::{MIB, assert_grown_less, resident_bytes, spawn, within};

const ZSTD: u8 = 1;
const LZ4: u8 = 2;

#[service]
trait Texts {
    async fn len(&self, text: String) -> Result<u64, Status>;
    /// Returns the length of all texts, or how the stream failed.
    async fn upload(&self, texts: Streaming<String>) -> Result<u64, Status>;
    async fn text(&self) -> Result<String, Status>;
    async fn texts(&self) -> Result<impl Stream<Item = Result<String, Status>>, Status>;
}

#[derive(Clone, Default)]
struct Here {
    /// Number of handlers that ran.
    ran: Arc<AtomicUsize>,
}

impl Texts for Here {
    async fn len(&self, text: String) -> Result<u64, Status> {
        self.ran.fetch_add(1, Ordering::SeqCst);
        Ok(text.len() as u64)
    }

    async fn upload(&self, mut texts: Streaming<String>) -> Result<u64, Status> {
        let mut len = 0;
        while let Some(text) = texts.next().await {
            len += text?.len() as u64;
        }
        Ok(len)
    }

    async fn text(&self) -> Result<String, Status> {
        Ok(String::new())
    }

    async fn texts(&self) -> Result<impl Stream<Item = Result<String, Status>>, Status> {
        Ok(Streaming::iter([]))
    }
}

/// A zstd frame of this many blocks of 128 KiB, each in four bytes.
fn zstd_bomb(blocks: usize) -> Vec<u8> {
    // No content size, a window of 1 MiB.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 10 << 3];
    for block in 1..=blocks {
        let head = (128 * 1024) << 3 | 1 << 1 | u32::from(block == blocks);
        frame.extend_from_slice(&head.to_le_bytes()[..3]);
        frame.push(b'x');
    }
    frame
}

/// An lz4 block with one repetition of 255 bytes for each byte.
fn lz4_bomb(bytes: usize) -> Vec<u8> {
    let mut block = vec![0x1f, b'x', 1, 0];
    block.resize(bytes, 0xff);
    block.extend([0, 0x10, b'x']);
    block
}

/// Allowance for one message on each of the two threads, whose allocators may keep it; a bomb would
/// be a thousand messages.
const ALLOWANCE: usize = 2 * 16 * MIB + 12 * MIB;

/// The size that fits into the window of a stream at once.
const STREAMED: usize = 60_000;

/// Each attack: the compression, the bytes, and the code and a part of the text of the failure.
fn attacks() -> Vec<(u8, Vec<u8>, Code, &'static str)> {
    use Code::{InvalidArgument as Invalid, ResourceExhausted as Exhausted, Unimplemented};
    // A text in bincode: 251 and 2 bytes of length, then 10000 bytes.
    let text = [&[0xfb, 0x10, 0x27], &b"abcdefghij".repeat(1000)[..]].concat();
    let size = text.len() as u64;
    let gib = 1 << 30;
    let mut attacks = Vec::new();
    for (id, whole, bomb) in [
        (ZSTD, zstd(&text), zstd_bomb(8192)),
        (LZ4, lz4(&text), lz4_bomb(STREAMED)),
    ] {
        let cut = |len: usize| claimed(size, &whole[..len]);
        attacks.extend([
            (id, claimed(gib, &bomb), Exhausted, "max_message_bytes"),
            (id, claimed(u64::MAX, &bomb), Exhausted, "max_message_bytes"),
            (id, claimed(16 << 20, &bomb), Invalid, "cannot be read"),
            (id, claimed(size, &bomb), Invalid, "cannot be read"),
            (
                id,
                claimed(16 << 20, &whole),
                Exhausted,
                "max_compression_ratio",
            ),
            (id, claimed(size + 1, &whole), Invalid, "come out"),
            (id, claimed(size - 1, &whole), Invalid, "cannot be read"),
            (id, claimed(0, &whole), Invalid, "cannot be read"),
            (id, cut(whole.len() - 1), Invalid, "cannot be read"),
            (id, cut(whole.len() / 2), Invalid, "cannot be read"),
            (id, cut(1), Exhausted, "max_compression_ratio"),
            (id, cut(0), Exhausted, "max_compression_ratio"),
            (id, claimed(0, &[]), Invalid, "cannot be read"),
            (id, claimed(size, &text[..60]), Invalid, "cannot be read"),
            (id, claimed(size, &[0xff; 100]), Invalid, "cannot be read"),
            (id, claimed(size, &[0; 100]), Invalid, "cannot be read"),
            (id, vec![], Invalid, "the length of a compressed body"),
            (id, vec![0x80, 0], Invalid, "shortest form"),
            (id, vec![0xff; 11], Invalid, "64 bits"),
            (3, claimed(size, &whole), Unimplemented, "compression 3"),
        ]);
    }
    let frame = zstd(&text);
    // Two frames, one with bytes after its end, and a skippable one.
    let twice = [zstd(&text[..5000]), zstd(&text[5000..])].concat();
    let skipped = [
        &[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4],
        &frame[..],
    ]
    .concat();
    for bytes in [twice, [&frame[..], b"x"].concat(), skipped] {
        attacks.push((ZSTD, claimed(size, &bytes), Invalid, "cannot be read"));
    }
    attacks
}

/// The hello of a side that reads both algorithms.
const HELLO: &str = r#"{"code":0,"iip":1,"control":0,"max_frame":16777216,"stream_window":1048576,"rpc":{"envelope":0,"codecs":[1,3],"compression":{"algorithms":[1,2],"max_ratio":1000}}}"#;

struct Target {
    here: Here,
    peer: Peer,
    channel: u32,
    _server: Server,
}

impl Target {
    async fn start() -> Self {
        let here = Here::default();
        let server = Server::builder().service(TextsServer::new(here.clone()));
        let server = server.bind("127.0.0.1:0").await.unwrap();
        let mut peer = Peer::connect(server.local_addr().unwrap()).await;
        peer.call("/sys/hello", 0, HELLO).await;
        let channel = peer.open_channel().await;
        Self {
            here,
            peer,
            channel,
            _server: server,
        }
    }

    async fn call(&mut self, body: &[u8]) -> Bytes {
        let request = RawFrame::request("/texts/len", self.channel, body);
        self.peer.send_frame(&request).await;
        self.peer.frame().await.body.into()
    }

    /// Sends `records` after the first one.
    async fn upload(&mut self, records: &[u8]) -> Bytes {
        let first = [&[0xF8, 0, 0, 0, 2, 0x80, 1], records].concat();
        let (first, rest) = first.split_at(first.len().min(50_000));
        let begin = RawFrame::new(0, "/texts/upload", self.channel, first);
        self.peer.send_frame(&begin).await;
        for part in rest.chunks(50_000) {
            let part = RawFrame::new(2, "", self.channel, [&[0xF8], part].concat());
            self.peer.send_frame(&part).await;
        }
        let last = RawFrame::new(2, "", self.channel, [0xFB]);
        self.peer.send_frame(&last).await;
        let mut reply = Vec::new();
        loop {
            let frame = self.peer.frame().await;
            let mark = *frame.body.first().unwrap();
            if mark == 0xFE || !reply.is_empty() {
                let marked = usize::from(reply.is_empty());
                reply.extend_from_slice(&frame.body[marked..]);
            }
            if frame.status == 7 {
                let over = RawFrame::new(3, "", self.channel, [0xFD]);
                self.peer.send_frame(&over).await;
                return reply.into();
            }
        }
    }

    /// Checks that an ordinary call gets its reply.
    async fn serves(&mut self) {
        let reply = self.call(&[0x80, 1, 3, b'a', b'b', b'c']).await;
        assert_eq!(reply, [0x80, 1, 3][..]);
    }
}

fn record(id: u8, body: &[u8]) -> Vec<u8> {
    let head = u32::try_from(body.len()).unwrap() | u32::from(id) << 30;
    [&head.to_be_bytes(), body].concat()
}

#[track_caller]
fn fails(status: &Status, code: Code, execution: Execution, text: &str) {
    expect(status, code, execution);
    assert!(status.message().contains(text), "{text}: {status}");
}

#[tokio::test]
async fn a_falsely_compressed_request_is_not_run_and_the_connection_lives_on() {
    let mut target = Target::start().await;
    for (id, body, code, text) in attacks() {
        let status = status_in(target.call(&request(id, &body)).await);
        fails(&status, code, Execution::NotExecuted, text);
    }
    assert_eq!(target.here.ran.load(Ordering::SeqCst), 0);
    target.serves().await;
}

#[tokio::test]
async fn a_falsely_compressed_message_of_a_stream_fails_its_call_alone() {
    let mut target = Target::start().await;
    for (id, body, code, text) in attacks() {
        let records = [record(0, b"\x03abc"), record(id, &body), record(0, b"\x00")].concat();
        let status = status_in(target.upload(&records).await);
        fails(&status, code, Execution::MayHaveExecuted, text);
        target.serves().await;
    }
}

#[tokio::test]
async fn a_status_is_never_compressed() {
    let (listener, client) = lazy(Client::builder()).await;
    let call = spawn(async move { TextsClient::new(client).text().await });
    let mut peer = Peer::over(accepted(&listener).await);
    let frame = serve_until_request(&mut peer, Some(HELLO), "/texts/text").await;
    let reply = [
        &[0x88, 1 | ZSTD << 6],
        &claimed(4, &zstd(&[5, 0, 0, 0]))[..],
    ]
    .concat();
    let reply = RawFrame::reply(&frame.path, frame.channel, reply);
    peer.send_frame(&reply).await;
    let status = within("the end of the call", call)
        .await
        .unwrap()
        .unwrap_err();
    let text = "a status cannot be compressed";
    fails(&status, Code::Internal, Execution::MayHaveExecuted, text);
}

/// The code of a client's error for a reply that it cannot decode.
fn at_client(code: Code) -> Code {
    match code {
        Code::ResourceExhausted => code,
        _ => Code::Internal,
    }
}

/// A client that makes calls again and again, and its server.
async fn victim() -> (Peer, TextsClient, RawFrame) {
    let (listener, client) = lazy(Client::builder()).await;
    let texts = TextsClient::new(client);
    let first = spawn({
        let texts = texts.clone();
        async move { texts.text().await }
    });
    let mut peer = Peer::over(accepted(&listener).await);
    let frame = serve_until_request(&mut peer, Some(HELLO), "/texts/text").await;
    let reply = RawFrame::reply(&frame.path, frame.channel, [0x80, 1, 0]);
    peer.send_frame(&reply).await;
    assert_eq!(first.await.unwrap(), Ok(String::new()));
    (peer, texts, frame)
}

#[tokio::test]
async fn a_falsely_compressed_reply_fails_its_call_alone() {
    let (mut peer, texts, first) = victim().await;
    for (id, body, code, text) in attacks() {
        let body = [&[0x80, 1 | id << 6], &body[..]].concat();
        let script = async {
            let frame = peer.frame().await;
            assert_eq!(frame.channel, first.channel);
            let reply = RawFrame::reply(&frame.path, frame.channel, body);
            peer.send_frame(&reply).await;
        };
        let (reply, ()) = tokio::join!(within("an end", texts.text()), script);
        fails(
            &reply.unwrap_err(),
            at_client(code),
            Execution::MayHaveExecuted,
            text,
        );
    }
}

#[tokio::test]
async fn a_falsely_compressed_message_of_a_reply_ends_its_stream() {
    let (mut peer, texts, _) = victim().await;
    for (id, body, code, text) in attacks() {
        let records = [
            record(0, &[0x80, 1]),
            record(0, b"\x03abc"),
            record(id, &body),
        ]
        .concat();
        let script = async {
            while peer.frame().await.path_text() != "/texts/texts" {}
            for (at, part) in records.chunks(50_000).enumerate() {
                let status = if at == 0 { 4 } else { 6 };
                let part = RawFrame::new(status, "/texts/texts", 1, [&[0xF8], part].concat());
                peer.send_frame(&part).await;
            }
        };
        let stream = async {
            let mut stream = texts.texts().await.unwrap();
            assert_eq!(stream.next().await, Some(Ok("abc".to_owned())));
            stream.next().await.unwrap().unwrap_err()
        };
        let (status, ()) = tokio::join!(within("an end", stream), script);
        fails(&status, at_client(code), Execution::MayHaveExecuted, text);
        // The call was cancelled; its channel is free once its reply has come.
        while peer.frame().await.status != 3 {}
        let reply = RawFrame::new(7, "/texts/texts", 1, [0xFE, 0x80, 1]);
        peer.send_frame(&reply).await;
    }
}

// ---- memory

#[test]
fn bombs_take_no_more_memory_than_one_message() {
    alone("bombs_take_no_more_memory_than_one_message", || async {
        let mut target = Target::start().await;
        target.serves().await;
        let (zstd, lz4) = (zstd_bomb(8192), lz4_bomb(MIB / 2));
        let before = resident_bytes();
        for round in 0..40 {
            for (id, bomb) in [(ZSTD, &zstd), (LZ4, &lz4)] {
                // A length that is rejected, one that is too small, and the largest possible.
                for size in [1 << 30, 1 << 10, 16 << 20] {
                    let body = claimed(size, bomb);
                    status_in(target.call(&request(id, &body)).await);
                    if round == 0 && id == ZSTD {
                        status_in(target.upload(&record(id, &body)).await);
                    }
                }
            }
        }
        // A message of 16 MiB, and the bombs themselves on both sides.
        assert_grown_less(before, ALLOWANCE);
        target.serves().await;
    });
}

#[test]
fn a_false_length_takes_no_memory() {
    alone("a_false_length_takes_no_memory", || async {
        let mut target = Target::start().await;
        target.serves().await;
        let before = resident_bytes();
        for id in [ZSTD, LZ4] {
            for _ in 0..200 {
                let body = claimed(16 << 20, &[0xff; 20_000]);
                status_in(target.call(&request(id, &body)).await);
            }
        }
        // The largest size that this many bytes of lz4 can become.
        assert_grown_less(before, 8 * MIB);
    });
}

#[test]
fn bombs_of_a_server_take_no_more_memory_than_one_message() {
    alone(
        "bombs_of_a_server_take_no_more_memory_than_one_message",
        || async {
            let (mut peer, texts, _) = victim().await;
            let bombs = [(ZSTD, zstd_bomb(8192)), (LZ4, lz4_bomb(MIB / 2))];
            let before = resident_bytes();
            for (id, bomb) in bombs.iter().cycle().take(60) {
                let body = [&[0x80, 1 | id << 6], &claimed(16 << 20, bomb)[..]].concat();
                let script = async {
                    let frame = peer.frame().await;
                    let reply = RawFrame::reply(&frame.path, frame.channel, body);
                    peer.send_frame(&reply).await;
                };
                let (reply, ()) = tokio::join!(within("an end", texts.text()), script);
                reply.unwrap_err();
            }
            assert_grown_less(before, ALLOWANCE);
        },
    );
}
