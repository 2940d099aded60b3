//! Tasks that make call after call, which all fail at once, give other tasks their turn.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::panic::Location;
use std::sync::mpsc;
use std::time::Duration;

use iip_core::CallError;
use iip_rpc::{Client, Code, Server, Status, Stream, Streaming, service};

use crate::common::GUARD;

/// Limit of the messages of clients.
const LIMIT: usize = 10_000;

#[service]
trait Echo {
    async fn say(&self, text: String) -> Result<String, Status>;
    #[rpc(oneway)]
    async fn tell(&self, text: String) -> Result<(), Status>;
    async fn repeat(
        &self,
        text: String,
    ) -> Result<impl Stream<Item = Result<String, Status>>, Status>;
    async fn join(&self, parts: Streaming<String>) -> Result<String, Status>;
}

struct Wall;

impl Echo for Wall {
    async fn say(&self, text: String) -> Result<String, Status> {
        Ok(text)
    }

    async fn tell(&self, _text: String) -> Result<(), Status> {
        Ok(())
    }

    async fn repeat(
        &self,
        text: String,
    ) -> Result<impl Stream<Item = Result<String, Status>>, Status> {
        Ok(Streaming::iter([text]))
    }

    async fn join(&self, _parts: Streaming<String>) -> Result<String, Status> {
        Ok(String::new())
    }
}

/// The state of the client of a loop.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Connected,
    Closed,
}

/// Makes calls without a pause, each of which fails with `code`, in a task with other work.
#[track_caller]
fn loops_on(
    state: State,
    code: Code,
    call: impl AsyncFn(&Client) -> Result<(), Code> + Send + 'static,
) {
    let caller = Location::caller();
    let (ended, end) = mpsc::channel();
    // A task that never yields would keep its thread for ever.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let failed = runtime.block_on(async {
            let server = Server::builder().service(EchoServer::new(Wall));
            let server = server.bind("127.0.0.1:0").await.unwrap();
            let client = Client::builder().max_message_bytes(LIMIT);
            let client = client.connect(server.target()).await.unwrap();
            if state == State::Closed {
                client.close(Duration::ZERO).await;
            }
            let calls = async {
                loop {
                    let outcome = call(&client).await;
                    if outcome != Err(code) {
                        return outcome;
                    }
                }
            };
            tokio::select! {
                biased;
                outcome = calls => Err(outcome),
                () = turns() => Ok(()),
            }
        });
        ended.send(failed).unwrap();
    });
    let failed = end.recv_timeout(GUARD);
    let failed = failed.unwrap_or_else(|_| panic!("{caller}: the loop does not yield"));
    failed.unwrap_or_else(|outcome| panic!("{caller}: a call ended with {outcome:?}"));
}

async fn turns() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

fn code<T>(outcome: Result<T, Status>) -> Result<(), Code> {
    outcome.map(drop).map_err(|status| status.code())
}

fn raw_code<T>(outcome: Result<T, CallError>) -> Result<(), Code> {
    let failed = |error: CallError| Code::from_u8(error.kind().status_code()).unwrap();
    outcome.map(drop).map_err(failed)
}

fn echo(client: &Client) -> EchoClient {
    EchoClient::new(client.clone())
}

fn large() -> String {
    "x".repeat(LIMIT + (1 << 20))
}

#[test]
fn typed_calls_on_a_closed_client_yield() {
    let (state, expected) = (State::Closed, Code::Cancelled);
    loops_on(state, expected, async |client| {
        code(echo(client).say(String::new()).await)
    });
    loops_on(state, expected, async |client| {
        code(echo(client).tell(String::new()).await)
    });
    loops_on(state, expected, async |client| {
        code(echo(client).repeat(String::new()).await)
    });
    loops_on(state, expected, async |client| {
        code(echo(client).join(Streaming::iter([String::new()])).await)
    });
}

#[test]
fn raw_calls_on_a_closed_client_yield() {
    let (state, expected) = (State::Closed, Code::Cancelled);
    loops_on(state, expected, async |client| {
        raw_code(client.raw().request("/say", "x").await)
    });
    loops_on(state, expected, async |client| {
        raw_code(client.raw().send("/say", "x").await)
    });
    loops_on(state, expected, async |client| {
        raw_code(client.raw().stream("/say", "x").await)
    });
    loops_on(state, expected, async |client| {
        raw_code(client.raw().open_stream("/say", "x").await)
    });
    loops_on(state, expected, async |client| {
        raw_code(client.raw().open_channel().await)
    });
}

#[test]
fn calls_with_too_large_messages_yield() {
    let (state, expected) = (State::Connected, Code::ResourceExhausted);
    loops_on(state, expected, async |client| {
        code(echo(client).say(large()).await)
    });
    loops_on(state, expected, async |client| {
        code(echo(client).repeat(large()).await)
    });
    loops_on(state, expected, async |client| {
        raw_code(client.raw().request("/say", large()).await)
    });
    loops_on(state, expected, async |client| {
        raw_code(client.raw().send("/say", large()).await)
    });
}

#[test]
fn raw_calls_without_data_yield() {
    loops_on(State::Connected, Code::InvalidArgument, async |client| {
        raw_code(client.raw().request("/say", "").await)
    });
    loops_on(State::Connected, Code::InvalidArgument, async |client| {
        let (_send, mut parts) = client.raw().open_stream("/say", "").await.unwrap();
        while parts.next().await.is_some() {}
        raw_code(parts.reply().unwrap())
    });
}
