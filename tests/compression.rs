//! Compressed messages over real sockets: the peers that get them, the messages that are
//! compressed, and that they arrive unchanged.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::time::Duration;

use bytes::Bytes;
use iip_rpc::codec::{CodecId, DecodeLimits, decode_value};
use iip_rpc::compression::{CompressionId, decompress};
use iip_rpc::envelope::{Outcome, ReplyHead, RequestHead};
use iip_rpc::interceptor::{Completion, Next, ServerCall, ServerInterceptor};
use iip_rpc::schema::check_derived;
use iip_rpc::{
    CallOptions, Client, ClientBuilder, Code, Compression, Execution, MethodError, MethodPolicy,
    Payload, Schema, Server, ServerBuilder, Status, Stream, Streaming, service,
};
use serde::{Deserialize, Serialize};

use crate::common::calls::{self, expect, lazy, serve_until_request, serve_with};
use crate::common::frame::RawFrame;
use crate::common::peer::{Peer, accepted};
use crate::common::{Random, spawn, within};

#[derive(Debug, PartialEq, Serialize, Deserialize, thiserror::Error, MethodError, Schema)]
enum TextError {
    #[error("a bad text")]
    Bad(String),
    #[error(transparent)]
    #[status]
    Rpc(Status),
}

#[service]
trait Texts {
    async fn echo(&self, text: String) -> Result<String, TextError>;
    async fn bytes(&self, name: String, bytes: Payload) -> Result<Payload, Status>;
    async fn fail(&self, text: String) -> Result<(), TextError>;
    #[rpc(oneway)]
    async fn tell(&self, text: String) -> Result<(), Status>;
    async fn upload(&self, prefix: String, texts: Streaming<String>) -> Result<String, Status>;
    async fn download(
        &self,
        text: String,
        times: usize,
    ) -> Result<impl Stream<Item = Result<String, Status>>, Status>;
    async fn mirror(
        &self,
        texts: Streaming<String>,
    ) -> Result<impl Stream<Item = Result<String, Status>>, Status>;
    #[rpc(raw)]
    async fn raw(&self, body: Bytes) -> Result<Bytes, Status>;
    #[rpc(json)]
    async fn json(&self, text: String) -> Result<String, Status>;
}

struct Here;

impl Texts for Here {
    async fn echo(&self, text: String) -> Result<String, TextError> {
        Ok(text)
    }

    async fn bytes(&self, _name: String, bytes: Payload) -> Result<Payload, Status> {
        Ok(bytes)
    }

    async fn fail(&self, text: String) -> Result<(), TextError> {
        if text.is_empty() {
            return Err(Status::not_found(long()).into());
        }
        Err(TextError::Bad(text))
    }

    async fn tell(&self, _text: String) -> Result<(), Status> {
        Ok(())
    }

    async fn upload(&self, prefix: String, mut texts: Streaming<String>) -> Result<String, Status> {
        let mut all = prefix;
        while let Some(text) = texts.next().await {
            all.push_str(&text?);
        }
        Ok(all)
    }

    async fn download(
        &self,
        text: String,
        times: usize,
    ) -> Result<impl Stream<Item = Result<String, Status>>, Status> {
        Ok(Streaming::iter(std::iter::repeat_n(text, times)))
    }

    async fn mirror(
        &self,
        texts: Streaming<String>,
    ) -> Result<impl Stream<Item = Result<String, Status>>, Status> {
        Ok(texts)
    }

    async fn raw(&self, body: Bytes) -> Result<Bytes, Status> {
        Ok(body)
    }

    async fn json(&self, text: String) -> Result<String, Status> {
        Ok(text)
    }
}

const BOTH: [Compression; 2] = [Compression::zstd(), Compression::lz4()];

/// A text that compresses well.
fn long() -> String {
    (0..2000).map(|line| format!("line {line}\n")).collect()
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut random = Random::new(7);
    (0..len).map(|_| random.below(256) as u8).collect()
}

/// The hello of a side that reads these algorithms, up to that ratio.
fn hello(algorithms: &[u8], max_ratio: u64) -> String {
    let compression = serde_json::json!({ "algorithms": algorithms, "max_ratio": max_ratio });
    let rpc = serde_json::json!({ "envelope": 0, "codecs": [1, 3], "compression": compression });
    let hello = serde_json::json!({
        "code": 0, "iip": 1, "control": 0, "max_frame": 16_777_216, "stream_window": 1 << 20,
        "rpc": rpc,
    });
    hello.to_string()
}

/// The hello of a side that does not support compression.
const SILENT: &str = r#"{"code":0,"iip":1,"control":0,"max_frame":16777216,"stream_window":1048576,"rpc":{"envelope":0,"codecs":[1,3]}}"#;

/// The first request of a client to a server that sends `hello`.
async fn request_to<F>(
    hello: &str,
    client: ClientBuilder,
    path: &str,
    call: impl FnOnce(TextsClient) -> F,
) -> Bytes
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let (listener, client) = lazy(client.timeout(Duration::from_secs(60))).await;
    let call = spawn(call(TextsClient::new(client)));
    let mut peer = Peer::over(accepted(&listener).await);
    let request = serve_until_request(&mut peer, Some(hello), path).await;
    call.abort();
    request.body.into()
}

/// The compression of a request's arguments, and the decompressed arguments.
fn arguments(request: &Bytes) -> (CompressionId, Bytes) {
    let (head, body) = RequestHead::read(request.clone()).unwrap();
    let limits = DecodeLimits::new().max_compression_ratio(u32::MAX);
    let plain = decompress(head.compression, body, &limits).unwrap();
    (head.compression, plain)
}

/// The reply of a server to a client that sends `hello`, or no hello.
async fn reply_to(hello: Option<&str>, server: ServerBuilder, path: &str, request: &[u8]) -> Bytes {
    let server = server.service(TextsServer::new(Here));
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let mut peer = Peer::connect(server.local_addr().unwrap()).await;
    if let Some(hello) = hello {
        peer.call("/sys/hello", 0, hello).await;
    }
    let channel = peer.open_channel().await;
    let request = RawFrame::request(path, channel, request);
    peer.send_frame(&request).await;
    peer.frame().await.body.into()
}

/// A request in JSON with one argument, not compressed.
fn request(name: &str, value: &str) -> Bytes {
    let arguments = serde_json::json!({ name: value });
    calls::request(CodecId::JSON, None, arguments.to_string())
}

fn read_reply(reply: &Bytes) -> (ReplyHead, Bytes) {
    let (head, body) = ReplyHead::read(reply.clone()).unwrap();
    let plain = decompress(head.compression, body, &DecodeLimits::new()).unwrap();
    (head, plain)
}

#[tokio::test]
async fn compressed_messages_arrive_unchanged() {
    for compression in BOTH {
        for codec in [CodecId::BINCODE, CodecId::JSON, CodecId::MSGPACK] {
            for above in [0, 100] {
                let compression = compression.above(above);
                let server = Server::builder().compression(compression);
                let client = Client::builder().codec(codec).compression(compression);
                let (_server, client) = serve_with(TextsServer::new(Here), server, client).await;
                round_trips(TextsClient::new(client)).await;
            }
        }
    }
}

async fn round_trips(texts: TextsClient) {
    for text in ["", "short", &long()] {
        assert_eq!(texts.echo(text.into()).await.unwrap(), text);
    }
    for bytes in [noise(100_000), vec![0; 100_000]] {
        let bytes = Payload::from(bytes);
        let back = texts.bytes("name".into(), bytes.clone()).await;
        assert_eq!(back.unwrap(), bytes);
    }
    let error = texts.fail(long()).await;
    assert_eq!(error, Err(TextError::Bad(long())));
    let Err(TextError::Rpc(status)) = texts.fail(String::new()).await else {
        panic!("no status");
    };
    assert_eq!(status.message(), long());

    let messages = || Streaming::iter(["short".to_owned(), long(), String::new(), long()]);
    let whole = format!("{}short{}{}", long(), long(), long());
    assert_eq!(texts.upload(long(), messages()).await.unwrap(), whole);
    let mut download = texts.download(long(), 10).await.unwrap();
    for _ in 0..10 {
        assert_eq!(within("a text", download.next()).await, Some(Ok(long())));
    }
    assert_eq!(within("the end", download.next()).await, None);
    let mut mirrored = texts.mirror(messages()).await.unwrap();
    for text in ["short", &long(), "", &long()] {
        let next = within("a text", mirrored.next()).await;
        assert_eq!(next, Some(Ok(text.to_owned())));
    }
    assert_eq!(within("the end", mirrored.next()).await, None);
    assert_eq!(texts.raw(long().into()).await.unwrap(), long());
    assert_eq!(texts.json(long()).await.unwrap(), long());
}

#[tokio::test]
async fn the_sides_need_not_agree_on_an_algorithm() {
    let server = Server::builder().compression(Compression::lz4());
    let client = Client::builder().compression(Compression::zstd().level(19));
    let (_server, client) = serve_with(TextsServer::new(Here), server, client).await;
    round_trips(TextsClient::new(client)).await;
}

#[tokio::test]
async fn both_sides_announce_the_algorithms_they_read() {
    let client = Client::builder().max_compression_ratio(77);
    let (listener, client) = lazy(client).await;
    let call = spawn(async move { TextsClient::new(client).echo("x".into()).await });
    let mut peer = Peer::over(accepted(&listener).await);
    let of_client = peer.frame().await;
    call.abort();
    let of_server = reply_to_hello(Server::builder().max_compression_ratio(78)).await;
    for (hello, max_ratio) in [(of_client, 77), (of_server, 78)] {
        let said: serde_json::Value = serde_json::from_slice(&hello.body).unwrap();
        let expected = serde_json::json!({ "algorithms": [1, 2], "max_ratio": max_ratio });
        assert_eq!(said["rpc"]["compression"], expected);
    }
}

async fn reply_to_hello(server: ServerBuilder) -> RawFrame {
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let mut peer = Peer::connect(server.local_addr().unwrap()).await;
    peer.call("/sys/hello", 0, r#"{"iip":1}"#).await
}

#[tokio::test]
async fn arguments_are_compressed_for_a_server_that_reads_the_algorithm() {
    for compression in BOTH {
        let client = Client::builder().compression(compression);
        let echo = |texts: TextsClient| async move { texts.echo(long()).await };
        let request = request_to(&hello(&[1, 2], 1000), client, "/texts/echo", echo).await;
        assert!(request.len() < long().len() / 2, "{}", request.len());
        let (id, plain) = arguments(&request);
        assert_eq!(id, compression.id());
        let text: String = decode_value(CodecId::BINCODE, &plain, &DecodeLimits::new()).unwrap();
        assert_eq!(text, long());
    }
}

#[tokio::test]
async fn a_server_that_reads_no_algorithm_gets_plain_arguments() {
    let echo = |texts: TextsClient| async move { texts.echo(long()).await };
    let without = request_to(SILENT, Client::builder(), "/texts/echo", echo).await;
    let cut = |request: &Bytes| {
        let (head, body) = RequestHead::read(request.clone()).unwrap();
        (head.codec, head.compression, body)
    };
    for hello in [
        SILENT.to_owned(),
        hello(&[2], 1000),
        hello(&[], 1000),
        hello(&[1], 0),
    ] {
        let client = Client::builder().compression(Compression::zstd());
        let request = request_to(&hello, client, "/texts/echo", echo).await;
        assert_eq!(cut(&request), cut(&without), "{hello}");
    }
    let go = r#"{"code":102,"message":"handle error"}"#;
    let client = Client::builder().compression(Compression::zstd());
    let request = request_to(go, client, "/texts/echo", echo).await;
    let expected = serde_json::json!({ "text": long() }).to_string();
    assert_eq!(request, expected, "plain JSON");
}

#[tokio::test]
async fn raw_and_json_methods_are_never_compressed() {
    let all = hello(&[1, 2], 1000);
    let client = || Client::builder().compression(Compression::zstd());
    let raw = |texts: TextsClient| async move { texts.raw(long().into()).await };
    let request = request_to(&all, client(), "/texts/raw", raw).await;
    assert_eq!(request, long());
    let json = |texts: TextsClient| async move { texts.json(long()).await };
    let request = request_to(&all, client(), "/texts/json", json).await;
    assert_eq!(request, serde_json::json!({ "text": long() }).to_string());

    let server = || Server::builder().compression(Compression::zstd());
    let reply = reply_to(Some(&all), server(), "/texts/raw", long().as_bytes()).await;
    assert_eq!(reply, long());
    let plain = serde_json::json!({ "text": long() }).to_string();
    for path in ["/texts/json", "/texts/echo"] {
        let reply = reply_to(Some(&all), server(), path, plain.as_bytes()).await;
        assert_eq!(reply, serde_json::json!(long()).to_string());
    }
}

#[tokio::test]
async fn a_server_compresses_only_for_clients_that_read_the_algorithm() {
    let json = serde_json::json!(long()).to_string();
    let (one, two) = (hello(&[1], 1000), hello(&[2], 1000));
    let (zstd, lz4, none) = (CompressionId::ZSTD, CompressionId::LZ4, CompressionId::NONE);
    let cases = [
        (Some(Compression::zstd()), Some(&*one), zstd),
        (Some(Compression::lz4()), Some(&two), lz4),
        (Some(Compression::zstd()), Some(&two), none),
        (Some(Compression::zstd()), Some(SILENT), none),
        (Some(Compression::zstd()), None, none),
        (None, Some(&one), none),
    ];
    for (compression, hello, expected) in cases {
        let server = Server::builder().compression(compression);
        let request = request("text", &long());
        let reply = reply_to(hello, server, "/texts/echo", &request).await;
        let (head, plain) = read_reply(&reply);
        let what = format!("{compression:?} to {hello:?}");
        assert_eq!(
            (head.codec, head.compression),
            (CodecId::JSON, expected),
            "{what}"
        );
        assert_eq!(plain, json, "{what}");
        assert_eq!(reply.len() < json.len() / 2, expected != none, "{what}");
    }
}

/// An interceptor that lets every call pass.
struct Open;

impl ServerInterceptor for Open {
    async fn intercept(
        &self,
        call: ServerCall,
        next: Next<ServerCall>,
    ) -> Result<Completion, Status> {
        Ok(next.run(call).await)
    }
}

#[tokio::test]
async fn calls_with_interceptors_and_one_way_calls_are_compressed_too() {
    let server = Server::builder()
        .compression(Compression::zstd())
        .interceptor(Open);
    let request = request("text", &long());
    let reply = reply_to(Some(&hello(&[1], 1000)), server, "/texts/echo", &request).await;
    let (head, plain) = read_reply(&reply);
    assert_eq!(head.compression, CompressionId::ZSTD);
    assert_eq!(plain, serde_json::json!(long()).to_string());

    let client = Client::builder().compression(Compression::lz4());
    let tell = |texts: TextsClient| async move { texts.tell(long()).await };
    let request = request_to(&hello(&[2], 1000), client, "/texts/tell", tell).await;
    assert_eq!(arguments(&request).0, CompressionId::LZ4);
}

#[tokio::test]
async fn errors_of_methods_are_compressed_and_statuses_never() {
    let all = hello(&[1, 2], 1000);
    let server = || Server::builder().compression(Compression::lz4().above(0));
    let reply = reply_to(
        Some(&all),
        server(),
        "/texts/fail",
        &request("text", &long()),
    )
    .await;
    let (head, plain) = read_reply(&reply);
    let expected = (Outcome::Error, CompressionId::LZ4);
    assert_eq!((head.outcome, head.compression), expected);
    assert_eq!(plain, serde_json::json!({ "Bad": long() }).to_string());
    let reply = reply_to(Some(&all), server(), "/texts/fail", &request("text", "")).await;
    let (head, _) = read_reply(&reply);
    let expected = (Outcome::Status, CompressionId::NONE);
    assert_eq!((head.outcome, head.compression), expected);
    assert!(reply.len() > long().len());
}

#[tokio::test]
async fn only_messages_above_the_threshold_are_compressed() {
    // In bincode a text of 249 bytes takes 250.
    for (len, expected) in [(249, CompressionId::NONE), (250, CompressionId::LZ4)] {
        let client = Client::builder().compression(Compression::lz4().above(250));
        let echo = move |texts: TextsClient| async move { texts.echo("x".repeat(len)).await };
        let request = request_to(&hello(&[2], 1000), client, "/texts/echo", echo).await;
        assert_eq!(arguments(&request).0, expected, "{len}");
    }
    for compression in BOTH {
        for (len, expected) in [(2000, CompressionId::NONE), (2100, compression.id())] {
            let client = Client::builder().compression(compression);
            let echo = move |texts: TextsClient| async move { texts.echo("x".repeat(len)).await };
            let request = request_to(&hello(&[1, 2], 1000), client, "/texts/echo", echo).await;
            assert_eq!(arguments(&request).0, expected, "the default, {len}");
        }
    }
}

#[tokio::test]
async fn a_message_that_does_not_become_smaller_is_sent_plain() {
    for compression in BOTH {
        let send = async |payload: Vec<u8>, ratio| {
            let client = Client::builder().compression(compression.above(0));
            let call = move |texts: TextsClient| async move {
                texts.bytes("name".into(), payload.into()).await
            };
            let request = request_to(&hello(&[1, 2], ratio), client, "/texts/bytes", call).await;
            arguments(&request)
        };
        let (id, plain) = send(noise(50_000), 1000).await;
        assert_eq!(id, CompressionId::NONE);
        assert!(plain.ends_with(&noise(50_000)));
        // Nor is a message compressed that shrinks by more than the reader's largest ratio.
        assert_eq!(
            send(vec![0; 50_000], 1000).await.0 == CompressionId::NONE,
            compression == Compression::zstd()
        );
        assert_eq!(send(vec![0; 50_000], 100).await.0, CompressionId::NONE);
        assert_eq!(send(vec![0; 50_000], u64::MAX).await.0, compression.id());
    }
}

#[tokio::test]
async fn a_call_and_a_method_override_the_client() {
    let all = hello(&[1, 2], 1000);
    let (zstd, lz4) = (Compression::zstd(), Compression::lz4());
    let cases = [
        (Some(zstd), None, None, Some(zstd)),
        (Some(zstd), Some(Some(lz4)), None, Some(lz4)),
        (Some(zstd), Some(None), None, None),
        (None, Some(Some(lz4)), None, Some(lz4)),
        (None, Some(Some(lz4)), Some(Some(zstd)), Some(zstd)),
        (Some(zstd), Some(Some(lz4)), Some(None), None),
    ];
    for (of_client, of_method, of_call, expected) in cases {
        let mut client = Client::builder().compression(of_client);
        if let Some(of_method) = of_method {
            let policy = MethodPolicy::new().compression(of_method);
            client = client.method_policy("/texts/echo", policy);
        }
        let echo = move |mut texts: TextsClient| async move {
            if let Some(of_call) = of_call {
                texts = texts.with_options(CallOptions::new().compression(of_call));
            }
            texts.echo(long()).await
        };
        let request = request_to(&all, client, "/texts/echo", echo).await;
        let expected = expected.map_or(CompressionId::NONE, |expected| expected.id());
        assert_eq!(
            arguments(&request).0,
            expected,
            "{of_client:?} {of_method:?} {of_call:?}"
        );
    }
}

#[tokio::test]
async fn a_method_overrides_the_server() {
    let all = hello(&[1, 2], 1000);
    let server = Server::builder()
        .compression(Compression::zstd())
        .method_policy("/texts/fail", MethodPolicy::new().compression(None))
        .method_policy(
            "/texts/echo",
            MethodPolicy::new().compression(Compression::lz4()),
        )
        .service(TextsServer::new(Here));
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let mut peer = Peer::connect(server.local_addr().unwrap()).await;
    peer.call("/sys/hello", 0, &all).await;
    let channel = peer.open_channel().await;
    for (path, expected) in [
        ("/texts/echo", CompressionId::LZ4),
        ("/texts/fail", CompressionId::NONE),
    ] {
        let request = RawFrame::request(path, channel, request("text", &long()));
        peer.send_frame(&request).await;
        let reply = peer.frame().await.body.into();
        assert_eq!(read_reply(&reply).0.compression, expected, "{path}");
    }
}

#[tokio::test]
async fn messages_of_streams_are_compressed_one_by_one() {
    let all = hello(&[1, 2], 1000);
    let server = Server::builder().compression(Compression::zstd());
    let server = server.service(TextsServer::new(Here));
    let server = server.bind("127.0.0.1:0").await.unwrap();
    for (hello, expected) in [(&*all, 1), (SILENT, 0)] {
        let mut peer = Peer::connect(server.local_addr().unwrap()).await;
        peer.call("/sys/hello", 0, hello).await;
        let channel = peer.open_channel().await;
        let arguments = serde_json::json!({ "text": long(), "times": 3 });
        let begin = calls::request(CodecId::JSON, None, arguments.to_string());
        let begin = [&[0xF8], &calls::record(&begin)[..]].concat();
        peer.send_frame(&RawFrame::new(0, "/texts/download", channel, begin))
            .await;
        peer.send_frame(&RawFrame::new(2, "", channel, [0xFB]))
            .await;
        let mut stream = Vec::new();
        loop {
            let frame = peer.frame().await;
            if frame.status == 7 {
                break;
            }
            assert_eq!(frame.body[0], 0xF8);
            stream.extend_from_slice(&frame.body[1..]);
        }
        // The first record accepts the call.
        assert_eq!(stream[..6], [0, 0, 0, 2, 0x80, 3]);
        let mut stream = Bytes::from(stream).slice(6..);
        for _ in 0..3 {
            let head = u32::from_be_bytes(stream.split_to(4)[..].try_into().unwrap());
            assert_eq!(head >> 30, expected);
            let message = stream.split_to((head & 0x3fff_ffff) as usize);
            let id = CompressionId::new((head >> 30) as u8);
            assert_eq!(message.len() < long().len() / 2, id.is_some());
            let plain = decompress(id, message, &DecodeLimits::new()).unwrap();
            assert_eq!(plain, serde_json::json!(long()).to_string());
        }
        assert!(stream.is_empty());
    }
}

#[tokio::test]
async fn the_message_limit_counts_bytes_before_compression() {
    let server = Server::builder()
        .compression(Compression::zstd())
        .max_message_bytes(10_000);
    let client = Client::builder().compression(Compression::zstd());
    let (_server, client) = serve_with(TextsServer::new(Here), server, client).await;
    let texts = TextsClient::new(client);
    // The server rejects by the announced size.
    let Err(TextError::Rpc(status)) = texts.echo("ab".repeat(5_100)).await else {
        panic!("no status");
    };
    expect(&status, Code::ResourceExhausted, Execution::NotExecuted);
    assert!(status.message().contains("max_message_bytes"), "{status}");
    let status = texts
        .upload(String::new(), Streaming::iter(["ab".repeat(5_100)]))
        .await;
    let status = status.unwrap_err();
    expect(&status, Code::ResourceExhausted, Execution::MayHaveExecuted);
    assert!(status.message().contains("max_message_bytes"), "{status}");
    // The server's limit.
    let status = texts
        .upload("ab".repeat(4_990), Streaming::iter(["ab".repeat(4_990)]))
        .await;
    expect(
        &status.unwrap_err(),
        Code::ResourceExhausted,
        Execution::MayHaveExecuted,
    );
    // The client's limit.
    let client = Client::builder()
        .compression(Compression::zstd())
        .max_message_bytes(10_000);
    let (_server, client) = serve_with(TextsServer::new(Here), Server::builder(), client).await;
    let texts = TextsClient::new(client);
    let Err(TextError::Rpc(status)) = texts.echo("ab".repeat(5_100)).await else {
        panic!("no status");
    };
    expect(&status, Code::ResourceExhausted, Execution::NotSent);
    assert_eq!(texts.echo("ab".repeat(4_900)).await.unwrap().len(), 9_800);
}

#[test]
fn types_are_described_as_they_are_observed() {
    check_derived::<TextError>().unwrap();
}
