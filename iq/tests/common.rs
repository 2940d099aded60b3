//! The service that tests call, and the program that calls it.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use iip_rpc::{
    CallContext, Health, MethodError, Schema, Server, ServerBuilder, Status, Stream, Streaming,
    Subscription, Topic, service,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::mpsc;

/// Time after which a test gives up waiting.
pub(crate) const GUARD: Duration = Duration::from_secs(60);

/// The timeout of commands in tests, which even a busy machine does not exceed.
pub(crate) const LONG: &str = "50s";

/// A colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub(crate) enum Colour {
    Red,
    Green,
}

/// What is ordered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
pub(crate) struct Order {
    /// Its number.
    pub(crate) id: u64,
    pub(crate) colour: Colour,
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    pub(crate) note: Option<String>,
}

#[derive(Debug, thiserror::Error, Serialize, Deserialize, Schema, MethodError)]
pub(crate) enum OrderError {
    #[error("sold out until {day}")]
    SoldOut { day: u32 },
    #[error(transparent)]
    #[status]
    Rpc(Status),
}

/// Takes orders.
///
/// And tells about them.
#[service(name = "shop.Orders")]
pub(crate) trait Orders {
    /// Places an order.
    #[rpc(timeout = "5s")]
    async fn place(&self, order: Order) -> Result<u64, OrderError>;
    /// Finds an order.
    #[rpc(idempotent)]
    async fn find(&self, id: u64, detailed: Option<bool>) -> Result<Order, Status>;
    async fn caller(&self, ctx: &CallContext) -> Result<String, Status>;
    async fn forever(&self) -> Result<(), Status>;
    #[rpc(oneway)]
    async fn tell(&self, text: String) -> Result<(), Status>;
    async fn list(
        &self,
        count: u64,
    ) -> Result<impl Stream<Item = Result<Order, OrderError>>, OrderError>;
    async fn watch(&self) -> Result<Subscription<u32>, Status>;
    async fn sum(&self, factor: u64, numbers: Streaming<u64>) -> Result<u64, Status>;
    async fn doubled(
        &self,
        numbers: Streaming<u64>,
    ) -> Result<impl Stream<Item = Result<u64, Status>>, Status>;
    #[rpc(path = "/echo", raw)]
    async fn echo(&self, body: Bytes) -> Result<Bytes, Status>;
}

/// Events on the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Told(String),
    /// A call that never ends has begun.
    Begun,
    /// That call was cancelled.
    Cancelled,
}

pub(crate) struct Shop {
    events: mpsc::UnboundedSender<Event>,
    prices: Topic<u32>,
}

fn order(id: u64) -> Order {
    Order {
        id,
        colour: Colour::Green,
        tags: Vec::new(),
        note: None,
    }
}

/// Reports, when it is dropped, that a call is over.
struct Over(mpsc::UnboundedSender<Event>);

impl Drop for Over {
    fn drop(&mut self) {
        let _ = self.0.send(Event::Cancelled);
    }
}

impl Orders for Shop {
    async fn place(&self, order: Order) -> Result<u64, OrderError> {
        match order.id {
            0 => Err(OrderError::SoldOut { day: 9 }),
            1 => Err(OrderError::Rpc(Status::permission_denied("no\u{1b}[2J"))),
            id => Ok(id),
        }
    }

    async fn find(&self, id: u64, _: Option<bool>) -> Result<Order, Status> {
        match id {
            0 => Err(Status::not_found("no order 0")),
            id => Ok(order(id)),
        }
    }

    async fn caller(&self, ctx: &CallContext) -> Result<String, Status> {
        Ok(ctx.metadata().text("token").unwrap_or_default().to_owned())
    }

    async fn forever(&self) -> Result<(), Status> {
        let _over = Over(self.events.clone());
        let _ = self.events.send(Event::Begun);
        std::future::pending().await
    }

    async fn tell(&self, text: String) -> Result<(), Status> {
        self.events
            .send(Event::Told(text))
            .map_err(Status::internal_from)
    }

    async fn list(
        &self,
        count: u64,
    ) -> Result<impl Stream<Item = Result<Order, OrderError>>, OrderError> {
        match count {
            0 => Err(OrderError::SoldOut { day: 1 }),
            count => Ok(Streaming::iter((1..=count).map(order))),
        }
    }

    async fn watch(&self) -> Result<Subscription<u32>, Status> {
        Ok(self.prices.subscribe().replay(3))
    }

    async fn sum(&self, factor: u64, mut numbers: Streaming<u64>) -> Result<u64, Status> {
        let mut sum = 0;
        while let Some(number) = numbers.next().await {
            sum += number?;
        }
        Ok(factor * sum)
    }

    async fn doubled(
        &self,
        mut numbers: Streaming<u64>,
    ) -> Result<impl Stream<Item = Result<u64, Status>>, Status> {
        let (sender, doubled) = Streaming::channel(1);
        tokio::spawn(async move {
            while let Some(number) = numbers.next().await {
                match number {
                    Ok(number) if sender.send(number * 2).await.is_ok() => {}
                    Ok(_) => return,
                    Err(status) => return sender.fail(status).await,
                }
            }
            sender.finish();
        });
        Ok(doubled)
    }

    async fn echo(&self, body: Bytes) -> Result<Bytes, Status> {
        Ok(body)
    }
}

/// A running server.
pub(crate) struct Fixture {
    pub(crate) server: Server,
    pub(crate) target: String,
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
    pub(crate) prices: Topic<u32>,
    pub(crate) health: Health,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::with(|server| server).await
    }

    /// Starts a server, with changes to its builder.
    pub(crate) async fn with(change: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let (prices, health) = (Topic::<u32>::builder().history(8).build(), Health::new());
        let shop = Shop {
            events: sender,
            prices: prices.clone(),
        };
        let server = Server::builder()
            .service(OrdersServer::new(shop))
            .health(&health);
        let server = change(server).bind("127.0.0.1:0").await.unwrap();
        let target = server.target().to_string();
        Self {
            server,
            target,
            events,
            prices,
            health,
        }
    }

    pub(crate) async fn event(&mut self) -> Event {
        let event = tokio::time::timeout(GUARD, self.events.recv()).await;
        event.expect("an event in time").expect("a server")
    }
}

/// The folder of a test, with the configuration and the cache of the program.
pub(crate) struct Home(pub(crate) PathBuf);

impl Home {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("iq-{}-{next}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Returns the program, isolated from the user's own settings.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iq"));
        self.isolate(&mut command);
        command
    }

    pub(crate) fn isolate(&self, command: &mut Command) {
        command
            .env_remove("IQ_CONFIG")
            .env_remove("NO_COLOR")
            .env("HOME", &self.0)
            .env("XDG_CONFIG_HOME", self.0.join("config"))
            .env("XDG_CACHE_HOME", self.0.join("cache"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
    }

    /// Runs the program to its end.
    pub(crate) async fn iq(&self, args: &[&str]) -> Ran {
        let mut command = self.command();
        command.args(args);
        Ran::of(command).await
    }

    /// Runs the program to its end while nobody reads its stdout.
    pub(crate) async fn iq_unread(&self, args: &[&str]) -> Ran {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = self.command();
        command.args(args).stdout(writer).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let ended = tokio::time::timeout(GUARD, child.wait_with_output()).await;
        Ran::new(ended.expect("an end in time").unwrap())
    }

    /// Runs the program with data on its stdin.
    pub(crate) async fn iq_with(&self, args: &[&str], stdin: &str) -> Ran {
        let mut command = self.command();
        command.args(args).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        // The program may end before it has read everything.
        let _ = input.write_all(stdin.as_bytes()).await;
        drop(input);
        let ended = tokio::time::timeout(GUARD, child.wait_with_output()).await;
        Ran::new(ended.expect("an end in time").unwrap())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A run of the program.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) async fn of(mut command: Command) -> Self {
        let ended = tokio::time::timeout(GUARD, command.output()).await;
        Self::new(ended.expect("an end in time").unwrap())
    }

    pub(crate) fn new(output: std::process::Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Checks that the program succeeded without output on stderr, and returns its data.
    #[track_caller]
    pub(crate) fn data(self) -> String {
        assert_eq!((self.code, &*self.err), (Some(0), ""), "{}", self.out);
        self.out
    }

    /// Returns the lines of stdout as JSON.
    #[track_caller]
    pub(crate) fn json(self) -> Vec<Value> {
        json_lines(&self.data())
    }

    /// Checks that the program failed with this code and without data, and returns stderr.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!((self.code, &*self.out), (Some(code), ""), "{}", self.err);
        self.err
    }
}

#[track_caller]
pub(crate) fn json_lines(text: &str) -> Vec<Value> {
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

/// Runs the program to its end, with nothing in its configuration.
pub(crate) async fn iq(args: &[&str]) -> Ran {
    Home::new().iq(args).await
}
