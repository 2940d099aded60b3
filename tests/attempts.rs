//! The execution that a failed call reports when it was attempted twice, or when its first record
//! does not accept it.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use bytes::{BufMut, BytesMut};
use iip_rpc::codec::CodecId;
use iip_rpc::envelope::{Outcome, ReplyHead, write_status_reply};
use iip_rpc::metadata::Metadata;
use iip_rpc::schema::check_derived;
use iip_rpc::{Client, Code, Execution, MethodError, Schema, Status, Stream, Streaming, service};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::common::calls::{expect, lazy, serve_until_request};
use crate::common::frame::RawFrame;
use crate::common::peer::{Peer, accepted};
use crate::common::{spawn, within};

/// The hello of a server with streams and protobuf, and the error that the Go server sends instead.
const OURS: &str = r#"{"iip":1,"stream_window":65536,"rpc":{"envelope":0,"codecs":[1,3,5]}}"#;
const GO: &str = r#"{"code":102,"message":"handle error"}"#;

#[service(codec = "protobuf")]
trait Messages {
    #[rpc(idempotent)]
    async fn ask(&self, request: &u32) -> Result<u32, Status>;
}

#[derive(Debug, PartialEq, Serialize, Deserialize, thiserror::Error, MethodError, Schema)]
enum Rejection {
    #[error("there are no numbers")]
    Empty,
    #[error(transparent)]
    #[status]
    Status(Status),
}

#[service]
trait Numbers {
    #[rpc(idempotent)]
    async fn count(&self) -> Result<impl Stream<Item = Result<u64, Status>>, Rejection>;
    async fn sum(&self, numbers: Streaming<u64>) -> Result<u64, Rejection>;
    async fn double(
        &self,
        numbers: Streaming<u64>,
    ) -> Result<impl Stream<Item = Result<u64, Status>>, Rejection>;
}

/// Takes the first attempt and closes; the second attempt finds a server that supports no such
/// call.
async fn in_doubt_then_not_sent(listener: TcpListener, path: &str) {
    let mut first = Peer::over(accepted(&listener).await);
    serve_until_request(&mut first, Some(OURS), path).await;
    first.reset().await;
    let mut second = Peer::over(accepted(&listener).await);
    serve_until_request(&mut second, Some(GO), "nothing").await;
}

#[tokio::test]
async fn a_call_whose_first_attempt_may_have_run_is_in_doubt_though_the_second_was_not_sent() {
    let (listener, client) = lazy(Client::builder()).await;
    let server = spawn(in_doubt_then_not_sent(listener, "/messages/ask"));
    let messages = MessagesClient::new(client);
    let status = within("the call", messages.ask(&7)).await.unwrap_err();
    expect(&status, Code::Unimplemented, Execution::MayHaveExecuted);
    server.abort();
}

#[tokio::test]
async fn a_stream_whose_first_attempt_may_have_run_is_in_doubt_though_the_second_was_not_sent() {
    let (listener, client) = lazy(Client::builder()).await;
    let server = spawn(in_doubt_then_not_sent(listener, "/numbers/count"));
    let numbers = NumbersClient::new(client);
    let failure = within("the call", numbers.count()).await.err().unwrap();
    let Rejection::Status(status) = failure else {
        panic!("it has not run: {failure:?}");
    };
    expect(&status, Code::Unimplemented, Execution::MayHaveExecuted);
    server.abort();
}

/// The first record of a stream, which should accept the call.
fn record(message: &[u8]) -> Vec<u8> {
    let mut record = BytesMut::new();
    record.put_u8(0xF8);
    record.put_u32(u32::try_from(message.len()).unwrap());
    record.put_slice(message);
    record.to_vec()
}

fn failed(status: &Status) -> Vec<u8> {
    let mut message = BytesMut::new();
    write_status_reply(CodecId::BINCODE, status, None, &mut message);
    message.to_vec()
}

fn own_error() -> Vec<u8> {
    let mut message = BytesMut::new();
    let metadata = Metadata::new();
    ReplyHead::write(CodecId::JSON, Outcome::Error, None, &metadata, &mut message);
    message.put_slice(&serde_json::to_vec(&Rejection::Empty).unwrap());
    message.to_vec()
}

/// Calls a method with streams whose first record is `message`.
async fn accepted_with<T>(
    path: &str,
    message: &[u8],
    call: impl AsyncFnOnce(NumbersClient) -> Result<T, Rejection>,
) -> Rejection {
    let (listener, client) = lazy(Client::builder()).await;
    let serve = async {
        let mut peer = Peer::over(accepted(&listener).await);
        let request = serve_until_request(&mut peer, Some(OURS), path).await;
        peer.send_frame(&RawFrame::new(4, path, request.channel, record(message)))
            .await;
        peer
    };
    let both = async { tokio::join!(call(NumbersClient::new(client)), serve) };
    let (outcome, _peer) = within("the call", both).await;
    match outcome {
        Ok(_) => panic!("{path}: accepted"),
        Err(failure) => failure,
    }
}

/// The failures of all methods with streams whose first record is `message`.
async fn failures(message: &[u8]) -> [Rejection; 3] {
    let endless = || Streaming::new(silence());
    [
        accepted_with("/numbers/count", message, async |numbers| {
            numbers.count().await
        })
        .await,
        accepted_with("/numbers/sum", message, async |numbers| {
            numbers.sum(endless()).await
        })
        .await,
        accepted_with("/numbers/double", message, async |numbers| {
            numbers.double(endless()).await
        })
        .await,
    ]
}

/// A stream that never yields an item.
fn silence() -> impl Stream<Item = Result<u64, Status>> + Send + 'static {
    struct Pending;

    impl Stream for Pending {
        type Item = Result<u64, Status>;

        fn poll_next(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Self::Item>> {
            std::task::Poll::Pending
        }
    }

    Pending
}

#[tokio::test]
async fn a_first_record_with_a_failure_does_not_accept_the_call() {
    let status = Status::not_found("no numbers here");
    for failure in failures(&failed(&status)).await {
        let Rejection::Status(status) = failure else {
            panic!("{failure:?}");
        };
        expect(&status, Code::NotFound, Execution::MayHaveExecuted);
        assert!(status.message().contains("no numbers here"), "{status}");
    }
    for failure in failures(&own_error()).await {
        assert_eq!(failure, Rejection::Empty);
    }
    for failure in failures(b"\xBF nonsense").await {
        let Rejection::Status(status) = failure else {
            panic!("{failure:?}");
        };
        expect(&status, Code::Internal, Execution::MayHaveExecuted);
    }
}

#[test]
fn types_are_described_as_they_are_observed() {
    check_derived::<Rejection>().unwrap();
}
