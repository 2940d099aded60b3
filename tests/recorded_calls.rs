//! A recording of typed calls of each kind in `target/tmp/recorded_calls.json`, in the format of
//! `tests/transcripts`. `.ci/wireshark` checks that Wireshark reads it.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use iip_rpc::codec::CodecId;
use iip_rpc::{
    CallOptions, Client, Code, Compression, Execution, Server, Status, Stream, Streaming, service,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::common::calls::{ShopError, expect, sum, times};
use crate::common::frame::RawFrame;
use crate::common::peer::{accepted, listener};
use crate::common::{spawn, started, within};

#[service]
trait Kinds {
    async fn hello(&self, name: String) -> Result<String, Status>;
    async fn buy(&self, id: u32) -> Result<(), ShopError>;
    async fn refuse(&self, why: String) -> Result<(), Status>;
    async fn wait(&self) -> Result<(), Status>;
    #[rpc(oneway)]
    async fn note(&self, text: String) -> Result<(), Status>;
    #[rpc(raw)]
    async fn raw(&self, body: Bytes) -> Result<Bytes, Status>;
    async fn sum(&self, start: u64, numbers: Streaming<u64>) -> Result<u64, Status>;
    async fn count(&self, last: u64) -> Result<impl Stream<Item = Result<u64, Status>>, Status>;
    async fn double(
        &self,
        by: u64,
        numbers: Streaming<u64>,
    ) -> Result<impl Stream<Item = Result<u64, Status>>, Status>;
}

#[derive(Default)]
struct Here {
    noted: Arc<Notify>,
    waits: Arc<Notify>,
}

impl Kinds for Here {
    async fn hello(&self, name: String) -> Result<String, Status> {
        Ok(format!("hello, {name}"))
    }

    async fn buy(&self, _id: u32) -> Result<(), ShopError> {
        Err(ShopError::SoldOut)
    }

    async fn refuse(&self, why: String) -> Result<(), Status> {
        Err(Status::failed_precondition(why).with_details(vec![1, 2, 3]))
    }

    async fn wait(&self) -> Result<(), Status> {
        self.waits.notify_one();
        std::future::pending().await
    }

    async fn note(&self, _text: String) -> Result<(), Status> {
        self.noted.notify_one();
        Ok(())
    }

    async fn raw(&self, body: Bytes) -> Result<Bytes, Status> {
        Ok(body)
    }

    async fn sum(&self, start: u64, numbers: Streaming<u64>) -> Result<u64, Status> {
        sum(start, numbers).await
    }

    async fn count(&self, last: u64) -> Result<impl Stream<Item = Result<u64, Status>>, Status> {
        Ok(Streaming::iter(0..last))
    }

    async fn double(
        &self,
        by: u64,
        numbers: Streaming<u64>,
    ) -> Result<impl Stream<Item = Result<u64, Status>>, Status> {
        Ok(times(numbers, by))
    }
}

/// A piece of a connection: the number of the connection, whether the client sent it, and the bytes.
type Piece = (usize, bool, Vec<u8>);

/// Copies bytes, and records them before they are passed on.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    connection: (usize, bool),
    recording: Arc<Mutex<Vec<Piece>>>,
) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        let bytes = piece[..length].to_vec();
        let (number, from_client) = connection;
        recording.lock().unwrap().push((number, from_client, bytes));
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// Returns the target of a proxy to this server, and what it has recorded once this number of
/// connections have ended.
async fn recorded(target: String, connections: usize) -> (String, JoinHandle<Vec<Piece>>) {
    let (listener, addr) = listener().await;
    let recording = spawn(async move {
        let recording = Arc::<Mutex<Vec<Piece>>>::default();
        let mut carried = Vec::new();
        for number in 0..connections {
            let (from_client, to_client) = accepted(&listener).await.into_split();
            let server = TcpStream::connect(&target).await.unwrap();
            let (from_server, to_server) = server.into_split();
            let (here, there) = ((number, true), (number, false));
            carried.push(spawn(carry(
                from_client,
                to_server,
                here,
                recording.clone(),
            )));
            carried.push(spawn(carry(
                from_server,
                to_client,
                there,
                recording.clone(),
            )));
        }
        for side in carried {
            side.await.unwrap();
        }
        std::mem::take(&mut *recording.lock().unwrap())
    });
    (addr.to_string(), recording)
}

/// Makes a call of each kind.
async fn call_all(client: Client, noted: &Notify, waits: &Notify) {
    let options = CallOptions::new().timeout(Duration::from_secs(60));
    let options = options.metadata("x-user", "ann").unwrap();
    let kinds = KindsClient::new(client).with_options(options);
    assert_eq!(kinds.hello("world".into()).await.unwrap(), "hello, world");
    let long = "x".repeat(10_000);
    assert_eq!(
        kinds.hello(long.clone()).await.unwrap(),
        format!("hello, {long}")
    );
    assert_eq!(kinds.buy(1).await.unwrap_err(), ShopError::SoldOut);
    let refused = kinds.refuse("no".into()).await.unwrap_err();
    expect(
        &refused,
        Code::FailedPrecondition,
        Execution::MayHaveExecuted,
    );
    let call = started(kinds.wait()).await;
    within("a handler", waits.notified()).await;
    drop(call);
    kinds.note("later".into()).await.unwrap();
    within("a note", noted.notified()).await;
    let body = Bytes::from_static(b"\0raw");
    assert_eq!(kinds.raw(body.clone()).await.unwrap(), body);
    assert_eq!(
        kinds.sum(5, Streaming::iter([1, 2, 300])).await.unwrap(),
        308
    );
    let counted = kinds.count(1000).await.unwrap();
    assert_eq!(sum(0, counted).await.unwrap(), 499_500);
    let doubled = kinds.double(2, Streaming::iter(0..1000)).await.unwrap();
    assert_eq!(sum(0, doubled).await.unwrap(), 999_000);
}

/// Returns the recording as a transcript, after the check that it consists of frames.
fn transcript(pieces: &[Piece], connections: usize) -> Value {
    for number in 0..connections {
        for from_client in [true, false] {
            let of_side = |piece: &&Piece| (piece.0, piece.1) == (number, from_client);
            let bytes = pieces.iter().filter(of_side).flat_map(|piece| &piece.2);
            let bytes: Vec<u8> = bytes.copied().collect();
            let (frames, rest) = RawFrame::decode_all(&bytes);
            assert_eq!(rest, 0, "a frame is incomplete");
            assert!(frames.len() > 10, "{frames:?}");
        }
    }
    let steps = pieces.iter().map(|(number, from_client, bytes)| {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        json!({ "conn": number, "dir": if *from_client { "c2s" } else { "s2c" }, "hex": hex })
    });
    json!({ "name": "recorded_calls", "steps": steps.collect::<Vec<_>>() })
}

#[tokio::test]
async fn typed_calls_of_each_kind_are_recorded() {
    let here = Here::default();
    let (noted, waits) = (here.noted.clone(), here.waits.clone());
    let server = Server::builder().service(KindsServer::new(here));
    let server = server.compression(Compression::lz4());
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let codecs = [
        CodecId::BINCODE,
        CodecId::JSON,
        CodecId::POSTCARD,
        CodecId::MSGPACK,
    ];
    let (target, recording) = recorded(server.target().to_owned(), codecs.len()).await;
    for codec in codecs {
        let client = Client::builder()
            .codec(codec)
            .compression(Compression::lz4());
        let client = client.connect(&target).await.unwrap();
        call_all(client, &noted, &waits).await;
    }
    let pieces = within("the end of the connections", recording);
    let pieces = pieces.await.unwrap();
    let transcript = transcript(&pieces, codecs.len());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(folder.join("recorded_calls.json"), transcript.to_string()).unwrap();
}
