//! The bytes of calls with streams: our client and our server send those of `docs/wire.md`.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use iip_rpc::{Client, Server, Status, Stream, Streaming, service};

use crate::common::calls::{lazy, sum};
use crate::common::frame::RawFrame;
use crate::common::peer::{Peer, accepted};
use crate::common::within;

#[service]
trait Numbers {
    async fn sum(&self, start: u64, numbers: Streaming<u64>) -> Result<u64, Status>;
    async fn count(&self, last: u64) -> Result<impl Stream<Item = Result<u64, Status>>, Status>;
}

#[service(codec = "protobuf")]
trait Totals {
    async fn total(&self, numbers: Streaming<u64>) -> Result<u64, Status>;
    async fn upto(&self, last: u64) -> Result<impl Stream<Item = Result<u64, Status>>, Status>;
}

struct Here;

impl Totals for Here {
    async fn total(&self, numbers: Streaming<u64>) -> Result<u64, Status> {
        self.sum(0, numbers).await
    }

    async fn upto(&self, last: u64) -> Result<impl Stream<Item = Result<u64, Status>>, Status> {
        self.count(last).await
    }
}

impl Numbers for Here {
    async fn sum(&self, start: u64, numbers: Streaming<u64>) -> Result<u64, Status> {
        sum(start, numbers).await
    }

    async fn count(&self, last: u64) -> Result<impl Stream<Item = Result<u64, Status>>, Status> {
        Ok(Streaming::iter(0..last))
    }
}

/// Returns the frames of one call in the document: a name ends with the status.
fn frames(call: &str) -> Vec<(bool, u8, Vec<u8>)> {
    let document = include_str!("../docs/wire.md");
    let block = document.split("```frames\n").nth(1).unwrap();
    let block = block.split("```").next().unwrap();
    let lines = block.lines().filter_map(|line| {
        let (name, bytes) = line.split_once('=').unwrap();
        let name = name.trim().strip_prefix(call)?.strip_prefix('-')?;
        let (side, status) = name.split_once('-').unwrap();
        let bytes = bytes.split_whitespace();
        let bytes = bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap());
        Some((side == "request", status.parse().unwrap(), bytes.collect()))
    });
    lines.collect()
}

const HELLO: &str =
    r#"{"iip":1,"control":1,"stream_window":65536,"rpc":{"envelope":0,"codecs":[1,3,5]}}"#;

/// Plays the client of the document against our server.
async fn against_our_server(call: &str, path: &str) {
    let server = Server::builder()
        .service(NumbersServer::new(Here))
        .service(TotalsServer::new(Here))
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let mut client = Peer::connect(server.local_addr().unwrap()).await;
    client
        .send_frame(&RawFrame::request("/sys/hello", 0, HELLO))
        .await;
    assert_eq!(client.frame().await.path_text(), "/sys/hello");
    let channel = client.open_channel().await;
    for (from_client, status, bytes) in frames(call) {
        if from_client {
            let path = if status == 0 { path } else { "" };
            client
                .send_frame(&RawFrame::new(status, path, channel, &bytes))
                .await;
            continue;
        }
        let mut frame = client.frame().await;
        if status == 7 {
            // The time of the handler differs in every run.
            strip_timing(&mut frame.body);
        }
        assert_eq!((frame.status, &frame.body), (status, &bytes), "{call}");
        assert_eq!(frame.channel, channel);
    }
    // The channel can be used again.
    client
        .send_frame(&RawFrame::request("/sys/ping", channel, "{}"))
        .await;
    assert_eq!(client.frame().await.body_text(), r#"{"code":0}"#);
}

/// Removes the times from the reply at the end of a stream: two numbers of seven bits a byte.
fn strip_timing(body: &mut Vec<u8>) {
    assert_eq!(
        body[1] & 1,
        1,
        "the reply at the end of a stream has its times"
    );
    body[1] &= !1;
    for _ in 0..2 {
        while body.remove(3) & 0x80 != 0 {}
    }
}

#[tokio::test]
async fn our_server_replies_to_a_stream_of_requests_as_documented() {
    against_our_server("sum", "/numbers/sum").await;
}

#[tokio::test]
async fn our_server_replies_with_a_stream_as_documented() {
    against_our_server("count", "/numbers/count").await;
}

#[tokio::test]
async fn our_server_reads_and_sends_streams_of_protobuf_messages_as_documented() {
    against_our_server("total", "/totals/total").await;
    against_our_server("upto", "/totals/upto").await;
}

/// Plays the server of the document against our client.
async fn against_our_client<T>(call: &str, path: &str, run: impl AsyncFnOnce(Client) -> T) -> T {
    let (listener, client) = lazy(Client::builder()).await;
    let script = async {
        let mut server = Peer::over(accepted(&listener).await);
        let mut granted = 0;
        for frame in frames(call) {
            let (from_client, status, bytes) = frame;
            if !from_client {
                server
                    .send_frame(&RawFrame::new(status, path, 1, &bytes))
                    .await;
                continue;
            }
            let frame = loop {
                let frame = server.frame().await;
                match frame.path_text().as_str() {
                    "/sys/hello" => {
                        server
                            .send_frame(&RawFrame::reply("/sys/hello", 0, HELLO))
                            .await;
                    }
                    "/sys/new_channel" => {
                        // The first channel is for calls, the second for the control stream.
                        granted += 1;
                        server.send_frame(&RawFrame::grant(granted)).await;
                    }
                    "/sys/control" => {}
                    _ => break frame,
                }
            };
            assert_eq!((frame.status, &frame.body), (status, &bytes), "{call}");
            assert_eq!(frame.channel, 1);
        }
    };
    let running = run(client);
    let (result, ()) = within("the call", async { tokio::join!(running, script) }).await;
    result
}

#[tokio::test]
async fn our_client_sends_a_stream_of_requests_as_documented() {
    let sum = against_our_client("sum", "/numbers/sum", async |client| {
        let numbers = NumbersClient::new(client);
        numbers.sum(5, Streaming::iter([1, 2, 300])).await
    });
    assert_eq!(sum.await, Ok(308));
}

#[tokio::test]
async fn our_client_reads_a_stream_of_replies_as_documented() {
    let counted = against_our_client("count", "/numbers/count", async |client| {
        let numbers = NumbersClient::new(client);
        let mut stream = numbers.count(2).await.unwrap();
        let mut counted = Vec::new();
        while let Some(number) = stream.next().await {
            counted.push(number.unwrap());
        }
        counted
    });
    assert_eq!(counted.await, [0, 1]);
}

#[tokio::test]
async fn our_client_sends_and_reads_streams_of_protobuf_messages_as_documented() {
    let total = against_our_client("total", "/totals/total", async |client| {
        let totals = TotalsClient::new(client);
        totals.total(Streaming::iter([1, 0, 300])).await
    });
    assert_eq!(total.await, Ok(301));
    let counted = against_our_client("upto", "/totals/upto", async |client| {
        let mut stream = TotalsClient::new(client).upto(2).await.unwrap();
        let mut counted = Vec::new();
        while let Some(number) = stream.next().await {
            counted.push(number.unwrap());
        }
        counted
    });
    assert_eq!(counted.await, [0, 1]);
}
