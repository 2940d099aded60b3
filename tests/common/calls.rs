//! Set-up of the tests of typed calls: a server with its client, a handler's view of its call, and
//! the outcome.

use std::ops::{AddAssign, Mul};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use iip_rpc::codec::CodecId;
use iip_rpc::envelope::{Outcome, ReplyHead, RequestHead, read_status};
use iip_rpc::{
    CallContext, Client, ClientBuilder, Code, Execution, Metadata, MethodError, Schema, Server,
    ServerBuilder, Service, Status, Streaming,
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::frame::RawFrame;
use super::peer::{Peer, listener};
use super::spawn;

/// The error of a method that may fail for a reason of the application.
#[derive(
    Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error, MethodError, Schema,
)]
pub(crate) enum ShopError {
    #[error("sold out")]
    SoldOut,
    #[error(transparent)]
    #[status]
    Rpc(Status),
}

/// A server with this service on a port that the system chose, and a client of it.
pub(crate) async fn serve(service: impl Service + Send + 'static) -> (Server, Client) {
    serve_with(service, Server::builder(), Client::builder()).await
}

/// The same with a client that speaks JSON.
pub(crate) async fn serve_json(service: impl Service + Send + 'static) -> (Server, Client) {
    let client = Client::builder().codec(CodecId::JSON);
    serve_with(service, Server::builder(), client).await
}

/// The same with options.
pub(crate) async fn serve_with(
    service: impl Service + Send + 'static,
    server: ServerBuilder,
    client: ClientBuilder,
) -> (Server, Client) {
    let server = server
        .service(service)
        .bind("127.0.0.1:0")
        .await
        .expect("the server binds");
    let client = client
        .connect(server.target())
        .await
        .expect("the client connects");
    (server, client)
}

/// A client whose server is played by the test. It connects with its first call.
pub(crate) async fn lazy(client: ClientBuilder) -> (TcpListener, Client) {
    let (listener, addr) = listener().await;
    let client = client
        .connect_lazy(addr.to_string())
        .expect("an address that can be used");
    (listener, client)
}

/// Replies to the hello and to channel requests until a request for `path` comes.
pub(crate) async fn serve_until_request(
    peer: &mut Peer,
    hello: Option<&str>,
    path: &str,
) -> RawFrame {
    let mut granted = 0;
    loop {
        let frame = peer.frame().await;
        let reply = match frame.path_text().as_str() {
            "/sys/hello" => match hello {
                Some(hello) => RawFrame::reply(&frame.path, frame.channel, hello),
                None => continue,
            },
            "/sys/new_channel" => {
                granted += 1;
                RawFrame::grant(granted)
            }
            other if other == path => return frame,
            other => panic!("a request for {other}"),
        };
        peer.send_frame(&reply).await;
    }
}

/// The context of the call that the current task handles.
pub(crate) fn current() -> Result<CallContext, Status> {
    CallContext::current().ok_or_else(|| Status::internal("no context"))
}

/// The port of the caller's connection, which identifies it.
pub(crate) fn port(ctx: &CallContext) -> Result<u16, Status> {
    let addr = ctx.peer().and_then(|peer| peer.addr());
    addr.map(|addr| addr.port())
        .ok_or_else(|| Status::internal("no address"))
}

#[track_caller]
pub(crate) fn expect(status: &Status, code: Code, execution: Execution) {
    assert_eq!(
        (status.code(), status.execution()),
        (code, execution),
        "{status:?}"
    );
}

/// A request in the envelope, encoded by the test.
pub(crate) fn request(
    codec: CodecId,
    remaining: Option<Duration>,
    arguments: impl AsRef<[u8]>,
) -> Bytes {
    let mut message = BytesMut::new();
    RequestHead::write(codec, remaining, &Metadata::new(), &mut message);
    message.extend_from_slice(arguments.as_ref());
    message.freeze()
}

/// A message of a stream: its length, then its bytes.
pub(crate) fn record(message: &[u8]) -> Vec<u8> {
    let len = u32::try_from(message.len()).expect("a message of a test is not long");
    [&len.to_be_bytes(), message].concat()
}

/// The status in a reply in the envelope.
#[track_caller]
pub(crate) fn status_in(reply: Bytes) -> Status {
    let (head, body) = ReplyHead::read(reply).expect("a reply in the envelope");
    assert_eq!(head.outcome, Outcome::Status);
    read_status(body, head.metadata).expect("a status")
}

/// Waits until the test adds a permit to `gate`, and uses it up.
pub(crate) async fn use_permit(gate: &Semaphore) -> Result<(), Status> {
    let permit = gate.acquire().await;
    permit
        .map_err(|error| Status::internal(error.to_string()))?
        .forget();
    Ok(())
}

/// Adds the numbers of a stream to `sum`.
pub(crate) async fn sum<N: AddAssign>(mut sum: N, mut numbers: Streaming<N>) -> Result<N, Status> {
    while let Some(number) = numbers.next().await {
        sum += number?;
    }
    Ok(sum)
}

/// The numbers of a stream, multiplied while they come.
pub(crate) fn times<N>(mut numbers: Streaming<N>, by: N) -> Streaming<N>
where
    N: Mul<Output = N> + Copy + Send + 'static,
{
    let (sender, products) = Streaming::channel(1);
    spawn(async move {
        while let Some(number) = numbers.next().await {
            let Ok(number) = number else { return };
            if sender.send(number * by).await.is_err() {
                return;
            }
        }
        sender.finish();
    });
    products
}
