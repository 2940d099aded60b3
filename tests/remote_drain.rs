//! Shutdown of a server at the request of a peer.

use std::sync::Arc;
use std::time::Duration;

use iip_core::{Client, HandlerError, ReplyParts, Request, Response, Server, handler_fn};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use crate::common::peer::Peer;
use crate::common::{spawn, within};

/// A limit that is never reached.
const LONG: Duration = Duration::from_secs(600);

const DRAIN: &str = "/sys/drain";

/// A server with a handler that waits, and whatever it needs.
struct Fixture {
    server: Server,
    client: Client,
    gate: Arc<Notify>,
    entered: mpsc::UnboundedReceiver<()>,
}

impl Fixture {
    async fn new(limit: Duration, allow: bool) -> Self {
        let gate = Arc::new(Notify::new());
        let (sender, entered) = mpsc::unbounded_channel();
        let opened = Arc::clone(&gate);
        let wait = handler_fn(move |_: Request| {
            let (opened, sender) = (Arc::clone(&opened), sender.clone());
            async move {
                let _ = sender.send(());
                opened.notified().await;
                Ok::<_, HandlerError>(Response::from("done"))
            }
        });
        let builder = Server::builder()
            .route("/wait", wait)
            .drain_on_request(limit, move |peer| allow && peer.addr().is_some());
        let server = builder.bind("127.0.0.1:0").await.expect("a server");
        let client = Client::connect(server.target()).await.expect("a client");
        Self {
            server,
            client,
            gate,
            entered,
        }
    }

    async fn drain(&self) -> ReplyParts {
        let other = Client::connect(self.server.target()).await;
        let other = other.expect("a second client");
        other.stream(DRAIN, "{}").await.expect("a reply")
    }
}

/// The number of calls in the next line of a reply; `None` at its end.
async fn calls(reply: &mut ReplyParts) -> Option<Value> {
    let line = within("a line", reply.next()).await?.expect("no failure");
    let line: Value = serde_json::from_slice(&line).expect("JSON");
    Some(line["calls"].clone())
}

#[tokio::test]
async fn an_allowed_peer_ends_the_server_and_learns_how_many_calls_run() {
    let mut fixture = Fixture::new(LONG, true).await;
    let client = fixture.client.clone();
    let running = spawn(async move { client.request("/wait", "{}").await });
    within("a handler", fixture.entered.recv()).await;

    let mut reply = fixture.drain().await;
    let first = within("the first line", reply.next()).await;
    let first: Value =
        serde_json::from_slice(&first.expect("a line").expect("no failure")).expect("JSON");
    assert_eq!(first, json!({"calls": 1, "limit_ms": 600_000}));
    assert!(!fixture.server.is_ready());

    fixture.gate.notify_one();
    let done = within("the reply", running).await.expect("no panic");
    assert_eq!(&done.expect("a reply")[..], b"done");
    assert_eq!(calls(&mut reply).await, Some(json!(0)));
    assert_eq!(calls(&mut reply).await, None);
    within("the end", fixture.server.stopped()).await;
}

#[tokio::test]
async fn a_peer_that_does_not_wait_for_the_end_has_begun_it_nevertheless() {
    let mut fixture = Fixture::new(LONG, true).await;
    let client = fixture.client.clone();
    let running = spawn(async move { client.request("/wait", "{}").await });
    within("a handler", fixture.entered.recv()).await;
    let mut reply = fixture.drain().await;
    assert_eq!(calls(&mut reply).await, Some(json!(1)));
    drop(reply);
    fixture.gate.notify_one();
    within("the end", fixture.server.stopped()).await;
    running.await.expect("no panic").expect("a reply");
}

#[tokio::test]
async fn the_limit_ends_calls_that_run_for_too_long() {
    let mut fixture = Fixture::new(Duration::from_millis(300), true).await;
    let client = fixture.client.clone();
    let running = spawn(async move { client.request("/wait", "{}").await });
    within("a handler", fixture.entered.recv()).await;
    let mut reply = fixture.drain().await;
    assert_eq!(calls(&mut reply).await, Some(json!(1)));
    let end = within("the end of the reply", reply.next()).await;
    assert!(matches!(end, Some(Err(_))), "{end:?}");
    within("the end", fixture.server.stopped()).await;
    assert!(running.await.expect("no panic").is_err());
}

#[tokio::test]
async fn nobody_else_may_drain_a_server() {
    let unknown = r#"{"code":102,"message":"handle error"}"#;
    let server = Server::builder().bind("127.0.0.1:0").await;
    let server = server.expect("a server");
    let client = Client::connect(server.target()).await.expect("a client");
    let reply = client.request(DRAIN, "{}").await.expect("a reply");
    assert_eq!(&reply[..], unknown.as_bytes(), "it is not enabled");

    let fixture = Fixture::new(LONG, false).await;
    let addr = fixture.server.local_addr().expect("an address");
    let mut peer = Peer::connect(addr).await;
    let channel = peer.open_channel().await;
    let reply = peer.call(DRAIN, channel, "{}").await;
    let expected = json!({
        "code": 7,
        "message": "this peer may not drain the server (option drain_on_request)",
    });
    let reply: Value = serde_json::from_str(&reply.body_text()).expect("JSON");
    assert_eq!(reply, expected);
    assert!(fixture.server.is_ready());
    let denied = fixture.server.stats();
    assert_eq!(denied.method(DRAIN).expect("it was called").codes.get(7), 1);
}
