//! Serving until a signal, and handlers that are notified of the shutdown.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use iip_rpc::{CallContext, Client, Code, Server, Status, Stream, Streaming, service};
use tokio::sync::Notify;

use crate::common::alone::alone;
use crate::common::{spawn, within};

/// A limit that is never reached.
const LONG: Duration = Duration::from_secs(600);

#[service]
trait Work {
    async fn quick(&self) -> Result<(), Status>;
    async fn stuck(&self) -> Result<(), Status>;
    /// Returns whether the server was shutting down before and after the wait for it.
    async fn told(&self, ctx: &CallContext) -> Result<(bool, bool), Status>;
    async fn ticks(
        &self,
        ctx: &CallContext,
    ) -> Result<impl Stream<Item = Result<u32, Status>>, Status>;
    /// Never sends a message.
    async fn news(&self) -> Result<impl Stream<Item = Result<u32, Status>>, Status>;
    /// Reads the name of the caller before it replies.
    async fn chat(
        &self,
        lines: Streaming<String>,
    ) -> Result<impl Stream<Item = Result<String, Status>>, Status>;
    async fn never(
        &self,
        lines: Streaming<String>,
    ) -> Result<impl Stream<Item = Result<String, Status>>, Status>;
}

/// A stream without messages and without an end.
struct Silent;

impl Stream for Silent {
    type Item = Result<u32, Status>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Pending
    }
}

#[derive(Default)]
struct Shop {
    entered: Arc<Notify>,
}

impl Work for Shop {
    async fn quick(&self) -> Result<(), Status> {
        Ok(())
    }

    async fn stuck(&self) -> Result<(), Status> {
        self.entered.notify_one();
        std::future::pending().await
    }

    async fn told(&self, ctx: &CallContext) -> Result<(bool, bool), Status> {
        let before = ctx.is_shutting_down();
        self.entered.notify_one();
        ctx.shutting_down().await;
        Ok((before, ctx.is_shutting_down()))
    }

    async fn ticks(
        &self,
        ctx: &CallContext,
    ) -> Result<impl Stream<Item = Result<u32, Status>>, Status> {
        let (sender, ticks) = Streaming::channel(1);
        let shutting_down = ctx.shutting_down();
        spawn(async move {
            let _ = sender.send(1).await;
            shutting_down.await;
            let _ = sender.send(2).await;
            sender.finish();
        });
        Ok(ticks)
    }

    async fn news(&self) -> Result<impl Stream<Item = Result<u32, Status>>, Status> {
        Ok(Silent)
    }

    async fn chat(
        &self,
        mut lines: Streaming<String>,
    ) -> Result<impl Stream<Item = Result<String, Status>>, Status> {
        let name = lines.next().await.transpose()?.unwrap_or_default();
        Ok(Streaming::iter([format!("hello, {name}")]))
    }

    async fn never(
        &self,
        _lines: Streaming<String>,
    ) -> Result<impl Stream<Item = Result<String, Status>>, Status> {
        std::future::pending::<()>().await;
        Ok(Streaming::iter([String::new()]))
    }
}

/// Returns a server, a notification for each handler that waits, and a client.
async fn served() -> (Arc<Server>, Arc<Notify>, WorkClient) {
    let shop = Shop::default();
    let entered = Arc::clone(&shop.entered);
    let server = Server::builder().service(WorkServer::new(shop));
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let client = Client::connect(server.target()).await.unwrap();
    (Arc::new(server), entered, WorkClient::new(client))
}

/// Sends this process the signal of a terminal or a service manager.
#[cfg(unix)]
fn signal(name: &str) {
    let pid = std::process::id().to_string();
    let sent = Command::new("kill").args(["-s", name, &pid]).status();
    assert!(sent.unwrap().success());
}

#[tokio::test]
async fn a_server_serves_until_its_signal_and_then_shuts_down() {
    let (server, entered, work) = served().await;
    let (signal, signalled) = tokio::sync::oneshot::channel::<()>();
    let serving = spawn({
        let server = Arc::clone(&server);
        async move {
            let signalled = async { drop(signalled.await) };
            server.serve_until(signalled, LONG).await;
        }
    });
    within("a call before the signal", work.quick())
        .await
        .unwrap();
    let told = spawn({
        let work = work.clone();
        async move { work.told(&CallContext::new()).await }
    });
    within("the handler", entered.notified()).await;
    assert!(!serving.is_finished());
    signal.send(()).unwrap();
    within("the end", serving).await.unwrap();
    assert_eq!(told.await.unwrap(), Ok((false, true)), "running calls end");
    assert_eq!(work.quick().await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn serving_until_a_signal_returns_when_the_server_is_shut_down_elsewhere() {
    let (server, _, _work) = served().await;
    let serving = spawn({
        let server = Arc::clone(&server);
        async move { server.serve_until(std::future::pending(), LONG).await }
    });
    server.shutdown(Duration::ZERO).await;
    within("the end", serving).await.unwrap();
}

#[cfg(unix)]
#[test]
fn sigterm_shuts_a_server_down_in_order() {
    alone("sigterm_shuts_a_server_down_in_order", || async {
        let (server, entered, work) = served().await;
        let told = spawn(async move { work.told(&CallContext::new()).await });
        within("the handler", entered.notified()).await;
        let serving = server.shutdown_on_signal(LONG);
        tokio::pin!(serving);
        // Once polled, it listens.
        assert!(futures_now(&mut serving).await.is_none());
        signal("TERM");
        within("the end", serving).await.unwrap();
        assert_eq!(told.await.unwrap(), Ok((false, true)));
    });
}

#[cfg(unix)]
#[test]
fn a_second_signal_ends_what_still_runs() {
    alone("a_second_signal_ends_what_still_runs", || async {
        let (server, entered, work) = served().await;
        let stuck = spawn({
            let work = work.clone();
            async move { work.stuck().await }
        });
        within("the handler", entered.notified()).await;
        let told = spawn(async move { work.told(&CallContext::new()).await });
        within("the other handler", entered.notified()).await;
        let serving = server.shutdown_on_signal(LONG);
        tokio::pin!(serving);
        assert!(futures_now(&mut serving).await.is_none());
        signal("INT");
        // It has received the first signal when the handlers have.
        tokio::select! {
            ended = &mut serving => panic!("a call runs, and yet it has ended: {ended:?}"),
            told = told => assert_eq!(told.unwrap(), Ok((false, true))),
        }
        signal("INT");
        within("the end", serving).await.unwrap();
        let status = stuck.await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
    });
}

/// Polls a future once.
#[cfg(unix)]
async fn futures_now<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}

#[tokio::test]
async fn a_stream_that_is_notified_of_the_shutdown_ends_in_order_before_its_limit() {
    let (server, _, work) = served().await;
    let mut ticks = work.ticks(&CallContext::new()).await.unwrap();
    assert_eq!(within("a tick", ticks.next()).await, Some(Ok(1)));
    within("the shutdown", server.shutdown(LONG)).await;
    assert_eq!(within("the last", ticks.next()).await, Some(Ok(2)));
    assert_eq!(within("the end", ticks.next()).await, None);
}

#[tokio::test]
async fn a_stream_that_a_shutdown_ends_by_force_fails_every_time() {
    for round in 0..50 {
        let (server, _, work) = served().await;
        let mut news = work.news().await.unwrap();
        within("the shutdown", server.shutdown(Duration::ZERO)).await;
        let Some(Err(status)) = within("the end", news.next()).await else {
            panic!("a cut stream ends with an error");
        };
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        let text = status.message();
        assert!(
            text.contains("the server was going away"),
            "round {round}: {text}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadlock_of_both_directions_is_named_in_the_error() {
    let (_server, connector) = Server::builder()
        .service(WorkServer::new(Shop::default()))
        .in_memory()
        .unwrap();
    let work = WorkClient::new(Client::builder().connect_with(connector).await.unwrap());
    let (sender, sent) = Streaming::channel(1);
    let status = work.chat(sent).await.map(drop).unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let text = status.message();
    assert!(
        text.contains("waiting for messages that this caller has not sent yet"),
        "{text}"
    );
    drop(sender);

    // Messages that were sent before the call are available to the handler.
    let (sender, sent) = Streaming::channel(1);
    sender.send("ann".to_owned()).await.unwrap();
    let mut said = work.chat(sent).await.unwrap();
    assert_eq!(said.next().await, Some(Ok("hello, ann".to_owned())));

    // A handler that does not wait for messages of the caller gets the plain error.
    let sent = Streaming::iter(Vec::<String>::new());
    let status = work.never(sent).await.map(drop).unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(!status.message().contains("not sent yet"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_context_outside_a_handler_never_sees_a_shutdown() {
    let ctx = CallContext::new();
    assert!(!ctx.is_shutting_down());
    let told = tokio::time::timeout(LONG, ctx.shutting_down()).await;
    assert!(told.is_err());
}
