//! A server with types of every form, to test clients that are generated for it.
//!
//! Run: `cargo run -p iq --example types [ADDRESS]`. Prints: where it listens. Ends on ctrl-c.

#![allow(
    missing_docs,
    clippy::missing_errors_doc,
    reason = "the types have nothing but a form"
)]

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use iip_rpc::{
    CallContext, MethodError, Schema, Server, Status, Stream, Streaming, Subscription, Topic,
    service,
};
use serde::{Deserialize, Serialize};

/// Every number.
#[derive(Debug, Serialize, Deserialize, Schema)]
pub struct Numbers {
    a: u8,
    b: u16,
    c: u32,
    /// An integer that a float does not hold.
    d: u64,
    e: u128,
    f: i8,
    g: i16,
    h: i32,
    i: i64,
    j: i128,
    k: f32,
    l: f64,
}

/// Whatever a value may be made of.
#[derive(Debug, Serialize, Deserialize, Schema)]
pub struct Plain {
    flag: bool,
    letter: char,
    text: String,
    bytes: Bytes,
    nothing: (),
    maybe: Option<u64>,
    twice: Option<Option<String>>,
    list: Vec<u64>,
    short: [u8; 3],
    long: [i64; 12],
    tuple: (u8, String, Option<u128>),
    single: (u64,),
}

/// Maps by keys of every type.
#[derive(Debug, Serialize, Deserialize, Schema)]
pub struct Maps {
    by_text: HashMap<String, u64>,
    by_number: BTreeMap<u64, Vec<u64>>,
    by_letter: BTreeMap<char, u8>,
    by_flag: BTreeMap<bool, u8>,
    by_level: BTreeMap<Level, u64>,
    by_id: BTreeMap<Id, Level>,
}

/// A level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Schema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Below.
    Low,
    VeryHigh,
}

/// A number with a meaning.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Schema)]
pub struct Id(u64);

#[derive(Debug, Serialize, Deserialize, Schema)]
pub struct Unit;

#[derive(Debug, Serialize, Deserialize, Schema)]
pub struct Point(i32, u64);

/// Structs of every form, and types of the standard library.
#[derive(Debug, Serialize, Deserialize, Schema)]
pub struct Structs {
    id: Id,
    unit: Unit,
    point: Point,
    page: Page<Point>,
    wait: Duration,
    address: IpAddr,
    outcome: Result<u64, String>,
}

/// A part of a list.
#[derive(Debug, Serialize, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
pub struct Page<T> {
    items: Vec<T>,
    next: Option<u64>,
}

/// Settings of serde.
#[derive(Debug, Serialize, Deserialize, Schema)]
pub struct Settings {
    #[serde(rename = "article-no", alias = "article")]
    article: String,
    #[serde(default)]
    count: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<Level>,
    #[schema(secret)]
    password: String,
    #[serde(skip_deserializing)]
    total: u64,
}

/// A type that contains itself.
#[derive(Debug, Serialize, Deserialize, Schema)]
pub struct Tree {
    size: u64,
    children: Vec<Self>,
    parent: Option<Box<Self>>,
}

macro_rules! shapes {
    ($(#[$doc:meta])* $name:ident, $($attribute:meta),*) => {
        $(#[$doc])*
        #[derive(Debug, Serialize, Deserialize, Schema)]
        $(#[$attribute])*
        pub enum $name {
            /// Nothing.
            Nil,
            One(Content),
            Named { a: u64, b: Option<Level> },
        }
    };
}

#[derive(Debug, Serialize, Deserialize, Schema)]
pub struct Content {
    x: u64,
    y: f64,
}

shapes!(
    /// Variants are keys.
    External, serde()
);
shapes!(
    /// The variant is among the fields.
    Internal, serde(tag = "kind")
);
shapes!(
    /// The variant is beside the content.
    Adjacent, serde(tag = "t", content = "c")
);
shapes!(
    /// The variant is not written.
    Untagged, serde(untagged)
);

/// Some variants have no name.
#[derive(Debug, Serialize, Deserialize, Schema)]
pub enum Mixed {
    Unit,
    Pair(u64, bool),
    #[serde(untagged)]
    Other(u64),
    #[serde(untagged)]
    Text(String),
}

/// A later build may have more variants.
#[derive(Debug, Serialize, Deserialize, Schema)]
pub enum Colour {
    Red,
    #[serde(other)]
    Unknown,
}

/// Types that are merged into others.
#[derive(Debug, Serialize, Deserialize, Schema)]
pub struct Flat {
    own: u64,
    #[serde(flatten)]
    content: Content,
    #[serde(flatten)]
    maybe: Option<Second>,
    #[serde(flatten)]
    kind: Internal,
}

#[derive(Debug, Serialize, Deserialize, Schema)]
pub struct Second {
    second: u64,
}

/// A map is merged.
#[derive(Debug, Serialize, Deserialize, Schema)]
pub struct Rest {
    name: String,
    #[serde(flatten)]
    rest: BTreeMap<String, u64>,
}

/// An error with variants of every form.
#[derive(Debug, thiserror::Error, Serialize, Deserialize, Schema, MethodError)]
pub enum Trouble {
    #[error("empty")]
    Empty,
    #[error("sold out until {until}")]
    SoldOut { until: u64 },
    #[error("{0}")]
    Text(String),
    #[error(transparent)]
    #[status]
    Rpc(Status),
}

/// Defines the service that returns what it gets.
macro_rules! echo {
    ($($(#[$doc:meta])* $name:ident($ty:ty);)*) => {
        /// Returns what it gets.
        #[service(name = "types.v1.Echo", codec = "json")]
        pub trait Echo {
            $($(#[$doc])* async fn $name(&self, value: $ty) -> Result<$ty, Status>;)*
        }

        impl Echo for Types {
            $(async fn $name(&self, value: $ty) -> Result<$ty, Status> {
                Ok(value)
            })*
        }
    };
}

echo! {
    /// Returns numbers.
    numbers(Numbers);
    plain(Plain);
    maps(Maps);
    structs(Structs);
    settings(Settings);
    tree(Tree);
    external(Vec<External>);
    internal(Vec<Internal>);
    adjacent(Vec<Adjacent>);
    untagged(Vec<Untagged>);
    mixed(Vec<Mixed>);
    colour(Vec<Colour>);
    flat(Flat);
    rest(Rest);
    largest(u64);
    optional(Option<u64>);
    nothing(());
    /// Its name is a reserved word, and `*/` ends no comment.
    delete(Vec<Page<Option<Tree>>>);
    then(u8);
}

/// Calls of every kind.
#[service(name = "types.v1.Calls")]
pub trait Calls {
    /// Fails in the way that is named.
    async fn fail(&self, how: String) -> Result<(), Trouble>;
    /// Never replies.
    async fn hang(&self) -> Result<(), Status>;
    /// Returns the number of calls that hang.
    async fn hanging(&self) -> Result<u64, Status>;
    /// Returns the remaining time in milliseconds, and the value of the metadata `x-user`.
    async fn caller(&self, ctx: &CallContext) -> Result<(u64, Option<String>), Status>;
    #[rpc(oneway)]
    async fn tell(&self, number: u64) -> Result<(), Status>;
    /// Returns the number that was told last.
    async fn told(&self) -> Result<u64, Status>;
    /// Counts down from the largest number, and then ends or fails.
    async fn count(
        &self,
        count: u32,
        then: Option<String>,
    ) -> Result<impl Stream<Item = Result<u64, Trouble>>, Trouble>;
    /// Returns the numbers of `publish`.
    async fn watch(&self) -> Result<Subscription<u64>, Status>;
    async fn publish(&self, number: u64) -> Result<(), Status>;
    async fn sum(&self, factor: u64, numbers: Streaming<u64>) -> Result<u64, Trouble>;
    /// Returns each number as soon as it has come.
    async fn doubled(
        &self,
        numbers: Streaming<u64>,
    ) -> Result<impl Stream<Item = Result<u64, Status>>, Status>;
    #[deprecated = "use `Echo`"]
    #[rpc(raw)]
    async fn raw(&self, body: Bytes) -> Result<Bytes, Status>;
}

#[derive(Clone)]
struct Types {
    told: Arc<AtomicU64>,
    hanging: Arc<AtomicU64>,
    numbers: Topic<u64>,
}

/// A call that hangs until it is cancelled.
struct Hanging(Arc<AtomicU64>);

impl Future for Hanging {
    type Output = Result<(), Status>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Pending
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn trouble(how: &str) -> Trouble {
    match how {
        "empty" => Trouble::Empty,
        "sold out" => Trouble::SoldOut { until: u64::MAX },
        "busy" => {
            let status = Status::unavailable("too busy");
            Trouble::Rpc(status.with_retry_after(Duration::from_secs(2)))
        }
        "missing" => Trouble::Rpc(Status::not_found("it is missing")),
        text => Trouble::Text(text.to_owned()),
    }
}

impl Calls for Types {
    async fn fail(&self, how: String) -> Result<(), Trouble> {
        Err(trouble(&how))
    }

    async fn hang(&self) -> Result<(), Status> {
        self.hanging.fetch_add(1, Ordering::SeqCst);
        Hanging(self.hanging.clone()).await
    }

    async fn hanging(&self) -> Result<u64, Status> {
        Ok(self.hanging.load(Ordering::SeqCst))
    }

    async fn caller(&self, ctx: &CallContext) -> Result<(u64, Option<String>), Status> {
        let left = ctx.remaining().unwrap_or_default();
        let user = ctx.metadata().get("x-user");
        let user = user.map(|user| String::from_utf8_lossy(user).into_owned());
        Ok((u64::try_from(left.as_millis()).unwrap_or(u64::MAX), user))
    }

    async fn tell(&self, number: u64) -> Result<(), Status> {
        self.told.store(number, Ordering::SeqCst);
        Ok(())
    }

    async fn told(&self) -> Result<u64, Status> {
        Ok(self.told.load(Ordering::SeqCst))
    }

    async fn count(
        &self,
        count: u32,
        then: Option<String>,
    ) -> Result<impl Stream<Item = Result<u64, Trouble>>, Trouble> {
        if count == 0 {
            return Err(Trouble::Empty);
        }
        let (sender, numbers) = Streaming::channel(16);
        tokio::spawn(async move {
            for at in 0..count {
                if sender.send(u64::MAX - u64::from(at)).await.is_err() {
                    return;
                }
            }
            match then {
                Some(how) => sender.fail(trouble(&how)).await,
                None => sender.finish(),
            }
        });
        Ok(numbers)
    }

    async fn watch(&self) -> Result<Subscription<u64>, Status> {
        Ok(self.numbers.subscribe())
    }

    async fn publish(&self, number: u64) -> Result<(), Status> {
        self.numbers.publish(number).await;
        Ok(())
    }

    async fn sum(&self, factor: u64, mut numbers: Streaming<u64>) -> Result<u64, Trouble> {
        let mut sum = 0;
        while let Some(number) = numbers.next().await {
            let number = number?;
            if number == 13 {
                return Err(Trouble::SoldOut { until: 13 });
            }
            sum += number;
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

    async fn raw(&self, body: Bytes) -> Result<Bytes, Status> {
        Ok(body)
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let types = Types {
        told: Arc::default(),
        hanging: Arc::default(),
        numbers: Topic::<u64>::builder().history(100).build(),
    };
    let address = std::env::args().nth(1);
    let server = Server::builder()
        .service(EchoServer::new(types.clone()))
        .service(CallsServer::new(types))
        .bind(address.as_deref().unwrap_or("127.0.0.1:7000"))
        .await?;
    println!("listens on {}", server.target());
    server.shutdown_on_signal(Duration::from_secs(1)).await
}
