//! Handlers that fail or panic: callers get the public part of the error, the log gets the rest,
//! and neither can fill the log.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use iip_core::{HandlerError, Request, Response, handler_fn};
use iip_rpc::schema::check_derived;
use iip_rpc::{
    Client, Code, Level, MethodError, ResultExt, Schema, Server, ServerBuilder, Status, Stream,
    Streaming, service,
};
use serde::{Deserialize, Serialize};

use crate::common::alone::alone;
use crate::common::logs::{Line, Logs};
use crate::common::{spawn, within};

#[derive(Debug, thiserror::Error, Serialize, Deserialize, MethodError, Schema)]
enum Own {
    #[error("an answer of its own")]
    Reply,
    #[error(transparent)]
    #[status]
    Rpc(Status),
}

#[service]
trait Work {
    async fn hello(&self) -> Result<String, Status>;
    async fn read(&self, name: String) -> Result<String, Status>;
    async fn find(&self) -> Result<(), Status>;
    async fn own(&self) -> Result<(), Own>;
    async fn burn(&self, later: bool) -> Result<(), Status>;
    async fn smoulder(&self) -> Result<(), Status>;
    async fn smoulder_on(&self) -> Result<(), Status>;
    async fn burning(&self) -> Result<impl Stream<Item = Result<u32, Status>>, Status>;
    async fn failing(&self) -> Result<impl Stream<Item = Result<u32, Status>>, Status>;
    async fn wait(&self) -> Result<(), Status>;
    #[rpc(raw)]
    async fn raw(&self, body: Vec<u8>) -> Result<Vec<u8>, Status>;
    #[rpc(oneway)]
    async fn notify(&self) -> Result<(), Status>;
}

/// A payload that panics when it is dropped, with another one of its kind, for a number of rounds.
struct Burning(u32);

impl Drop for Burning {
    fn drop(&mut self) {
        if self.0 > 0 {
            std::panic::panic_any(Self(self.0 - 1));
        }
    }
}

struct Shop;

fn disk_full() -> Result<String, std::io::Error> {
    Err(std::io::Error::other("disk full"))
}

impl Work for Shop {
    async fn hello(&self) -> Result<String, Status> {
        Ok("hello".to_owned())
    }

    async fn read(&self, name: String) -> Result<String, Status> {
        match name.as_str() {
            "boxed" => Err::<String, Box<dyn std::error::Error + Send + Sync>>("disk full".into())
                .or_internal(),
            "public" => disk_full().or_status(Code::Unavailable, "the store is away"),
            _ => Ok(disk_full().or_internal()?),
        }
    }

    async fn find(&self) -> Result<(), Status> {
        Err(Status::not_found("nobody"))
    }

    async fn own(&self) -> Result<(), Own> {
        Err(Own::Reply)
    }

    async fn burn(&self, later: bool) -> Result<(), Status> {
        if later {
            tokio::task::yield_now().await;
        }
        std::panic::panic_any(Burning(2))
    }

    async fn smoulder(&self) -> Result<(), Status> {
        // A value that lives as long as the future of the handler.
        let _burning = Burning(2);
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn smoulder_on(&self) -> Result<(), Status> {
        let _burning = Burning(4);
        std::future::pending().await
    }

    async fn burning(&self) -> Result<impl Stream<Item = Result<u32, Status>>, Status> {
        tokio::task::yield_now().await;
        std::panic::panic_any(Burning(2));
        #[allow(unreachable_code, reason = "says what it would be")]
        Ok(Streaming::iter([1]))
    }

    async fn failing(&self) -> Result<impl Stream<Item = Result<u32, Status>>, Status> {
        let (sender, stream) = Streaming::channel(1);
        spawn(async move { sender.fail(Status::internal_from("tape torn")).await });
        Ok(stream)
    }

    async fn wait(&self) -> Result<(), Status> {
        std::future::pending().await
    }

    async fn raw(&self, _body: Vec<u8>) -> Result<Vec<u8>, Status> {
        disk_full().or_internal().map(String::into_bytes)
    }

    async fn notify(&self) -> Result<(), Status> {
        disk_full().or_internal().map(drop)
    }
}

async fn served(builder: ServerBuilder) -> (Server, WorkClient) {
    let server = builder.service(WorkServer::new(Shop)).bind("127.0.0.1:0");
    let server = server.await.unwrap();
    let work = WorkClient::connect(server.target()).await.unwrap();
    (server, work)
}

/// The log lines about failed handlers.
fn failures(lines: &[Line]) -> Vec<(Level, String, String)> {
    let lines = lines
        .iter()
        .filter(|line| line.get("message") == Some("a handler failed"));
    lines
        .map(|line| {
            let text = |field| line.get(field).unwrap_or_default().to_owned();
            (line.level, text("path"), text("error"))
        })
        .collect()
}

#[test]
fn a_failure_is_logged_with_its_cause_which_is_not_sent_to_the_caller() {
    alone(
        "a_failure_is_logged_with_its_cause_which_is_not_sent_to_the_caller",
        || async {
            let logs = Logs::captured();
            let (_server, work) = served(Server::builder()).await;
            logs.take();
            let message_of = async |status: Result<String, Status>| {
                let status = status.unwrap_err();
                assert!(!format!("{status:#?}").contains("disk"), "{status:#?}");
                status.message().to_owned()
            };
            assert_eq!(
                message_of(work.read("x".into()).await).await,
                "internal error"
            );
            assert_eq!(
                message_of(work.read("boxed".into()).await).await,
                "internal error"
            );
            assert_eq!(
                message_of(work.read("public".into()).await).await,
                "the store is away"
            );
            let raw = work.raw(vec![1]).await.unwrap_err();
            assert!(!raw.to_string().contains("disk"), "{raw}");
            let mut failing = work.failing().await.unwrap();
            assert!(failing.next().await.unwrap().is_err());
            let cause = |text: &str| format!("{text}: disk full");
            let read = |text: &str| (Level::WARN, "/work/read".to_owned(), cause(text));
            assert_eq!(
                failures(&logs.take()),
                [
                    read("internal: internal error"),
                    read("internal: internal error"),
                    read("unavailable: the store is away"),
                    (
                        Level::WARN,
                        "/work/raw".to_owned(),
                        cause("internal: internal error")
                    ),
                    (
                        Level::WARN,
                        "/work/failing".to_owned(),
                        "internal: internal error: tape torn".to_owned()
                    ),
                ]
            );

            // Errors that a method returns by its type are not logged.
            work.find().await.unwrap_err();
            work.own().await.unwrap_err();
            let levels: Vec<_> = failures(&logs.take())
                .into_iter()
                .map(|line| line.0)
                .collect();
            assert_eq!(levels, [Level::DEBUG, Level::DEBUG]);

            work.hello().await.unwrap();
            assert_eq!(failures(&logs.take()), []);
            work.notify().await.unwrap();
            // A one-way call may be sent as an ordinary call whose reply is skipped.
            logs.until("the one-way call", |lines| {
                let mut fields = lines.iter().flat_map(|line| &line.fields);
                fields.any(|(_, text)| text.ends_with("disk full"))
            })
            .await;
        },
    );
}

#[test]
fn a_peer_that_reconnects_causes_no_more_lines_than_one_that_stays() {
    alone(
        "a_peer_that_reconnects_causes_no_more_lines_than_one_that_stays",
        || async {
            const LINES: usize = 10;
            let logs = Logs::captured();
            let builder = Server::builder().max_log_lines(10);
            let (server, _work) = served(builder).await;
            for _ in 0..4 {
                let client = Client::connect(server.target()).await.unwrap();
                let work = WorkClient::new(client.clone());
                for _ in 0..LINES {
                    work.read("x".into()).await.unwrap_err();
                    work.burn(false).await.unwrap_err();
                }
                client.close(Duration::from_secs(60)).await;
            }
            let lines = logs.take();
            assert_eq!(failures(&lines).len(), LINES);
            let said = |text: &str| {
                let messages = lines.iter().filter_map(|line| line.get("message"));
                messages.filter(|message| message.contains(text)).count()
            };
            assert_eq!(said("handler panicked"), LINES);
            assert_eq!(said("max_log_lines"), 2, "once for each kind");
        },
    );
}

#[test]
fn the_level_of_logged_failures_is_an_option_of_the_server() {
    alone(
        "the_level_of_logged_failures_is_an_option_of_the_server",
        || async {
            let logs = Logs::captured();
            for level in [None, Some(Level::ERROR), Some(Level::TRACE)] {
                let (_server, work) = served(Server::builder().log_failures(level)).await;
                work.read("x".into()).await.unwrap_err();
                let levels: Vec<_> = failures(&logs.take())
                    .into_iter()
                    .map(|line| line.0)
                    .collect();
                assert_eq!(levels, Vec::from_iter(level));
            }
        },
    );
}

#[tokio::test]
async fn a_panic_whose_payload_panics_fails_its_own_call_and_no_other() {
    let (_server, work) = served(Server::builder()).await;
    let waiting = spawn({
        let work = work.clone();
        async move { work.wait().await }
    });
    for later in [false, true] {
        let status = within("the reply", work.burn(later)).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{status}");
        assert_eq!(status.message(), "the handler panicked");
    }
    let burning = within("the reply", work.burning()).await;
    assert_eq!(burning.map(drop).unwrap_err().code(), Code::Internal);
    // A value dropped with the future after it has ended.
    let status = within("the reply", work.smoulder()).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status}");
    // A value of a call that is dropped while it runs: the next call finds it running, the one
    // after it aborted.
    let smoulders = spawn({
        let work = work.clone();
        async move { work.smoulder_on().await }
    });
    tokio::task::yield_now().await;
    assert_eq!(work.hello().await.unwrap(), "hello");
    smoulders.abort();
    assert!(smoulders.await.unwrap_err().is_cancelled());
    assert_eq!(work.hello().await.unwrap(), "hello");
    assert!(!waiting.is_finished(), "the connection lives");
    waiting.abort();
}

/// A handler that panics in its first poll, or in the second one, and again when it is dropped.
struct PanicsTwice {
    waits: bool,
}

impl Future for PanicsTwice {
    type Output = Result<Response, HandlerError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(std::mem::take(&mut self.waits), "polled");
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for PanicsTwice {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

#[tokio::test]
async fn a_handler_that_panics_again_while_it_is_dropped_fails_its_own_call_and_no_other() {
    let twice = handler_fn(|request: Request| PanicsTwice {
        waits: request.body() == "later",
    });
    let server = iip_core::Server::builder().route("/twice", twice).route(
        "/echo",
        handler_fn(async |request: Request| Ok(request.body().clone().into())),
    );
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let client = iip_core::Client::connect(server.target()).await.unwrap();
    for body in ["now", "later"] {
        let reply = within("the reply", client.request("/twice", body)).await;
        let reply = String::from_utf8(reply.unwrap().to_vec()).unwrap();
        assert!(reply.contains(r#""code":101"#), "{reply}");
    }
    let echo = within("the reply", client.request("/echo", "x")).await;
    assert_eq!(echo.unwrap(), "x");
}

#[test]
fn types_are_described_as_they_are_observed() {
    check_derived::<Own>().unwrap();
}
