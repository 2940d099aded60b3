//! Calls of every kind by path, with JSON and without types.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::BytesMut;
use iip_rpc::codec::{CodecId, EncodeError, encode_value};
use iip_rpc::{
    CallContext, CallOptions, Client, Code, Execution, Gap, JsonError, JsonText, MethodError,
    Position, Schema, Server, Status, Stream, Streaming, Subscription, Topic, Update, service,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// Time after which a test gives up waiting.
const GUARD: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
struct Item {
    id: u64,
    note: Option<String>,
}

#[derive(Debug, thiserror::Error, Serialize, Deserialize, MethodError, Schema)]
enum ShopError {
    #[error("sold out until {0}")]
    SoldOut(u32),
    #[error(transparent)]
    #[status]
    Rpc(Status),
}

#[service(name = "shop.v1.Shop")]
trait Shop {
    async fn find(&self, id: u64) -> Result<Item, ShopError>;
    async fn caller(&self, ctx: &CallContext) -> Result<(String, bool), Status>;
    #[rpc(oneway)]
    async fn tell(&self, text: String) -> Result<(), Status>;
    async fn list(
        &self,
        count: u64,
        then: Option<u32>,
    ) -> Result<impl Stream<Item = Result<Item, ShopError>>, ShopError>;
    async fn watch(&self, topic: String) -> Result<Subscription<Item>, Status>;
    async fn sum(&self, factor: u64, numbers: Streaming<u64>) -> Result<u64, ShopError>;
    async fn doubled(
        &self,
        numbers: Streaming<u64>,
    ) -> Result<impl Stream<Item = Result<u64, Status>>, Status>;
}

struct Here {
    told: mpsc::UnboundedSender<String>,
    topic: Topic<Item>,
    /// Senders of the streams of `list` that never end.
    dropped: mpsc::UnboundedSender<()>,
}

/// Tells when it is dropped.
struct Told(mpsc::UnboundedSender<()>);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

fn item(id: u64) -> Item {
    Item { id, note: None }
}

impl Shop for Here {
    async fn find(&self, id: u64) -> Result<Item, ShopError> {
        match id {
            0 => Err(ShopError::SoldOut(9)),
            1 => Err(Status::not_found("no item 1").into()),
            id => Ok(item(id)),
        }
    }

    async fn caller(&self, ctx: &CallContext) -> Result<(String, bool), Status> {
        let name = ctx.metadata().text("name").unwrap_or_default().to_owned();
        Ok((name, ctx.remaining().is_some_and(|left| left < GUARD)))
    }

    async fn tell(&self, text: String) -> Result<(), Status> {
        self.told.send(text).map_err(Status::internal_from)
    }

    async fn list(
        &self,
        count: u64,
        then: Option<u32>,
    ) -> Result<impl Stream<Item = Result<Item, ShopError>>, ShopError> {
        if count > 1_000 {
            return Err(ShopError::SoldOut(1));
        }
        let (sender, items) = Streaming::channel(4);
        let told = Told(self.dropped.clone());
        tokio::spawn(async move {
            let _told = told;
            for id in 0..count {
                if sender.send(item(id)).await.is_err() {
                    return;
                }
            }
            match then {
                Some(0) => sender.finish(),
                Some(until) => sender.fail(ShopError::SoldOut(until)).await,
                None => while sender.send(item(7)).await.is_ok() {},
            }
        });
        Ok(items)
    }

    async fn watch(&self, topic: String) -> Result<Subscription<Item>, Status> {
        match &*topic {
            "items" => Ok(self.topic.subscribe()),
            _ => Err(Status::not_found("no such topic")),
        }
    }

    async fn sum(&self, factor: u64, mut numbers: Streaming<u64>) -> Result<u64, ShopError> {
        let mut sum = 0;
        while let Some(number) = numbers.next().await {
            sum += number?;
        }
        if sum == 13 {
            return Err(ShopError::SoldOut(13));
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
}

struct Fixture {
    server: Server,
    client: Client,
    topic: Topic<Item>,
    told: mpsc::UnboundedReceiver<String>,
    dropped: mpsc::UnboundedReceiver<()>,
}

async fn fixture() -> Fixture {
    let ((tell, told), (drop, dropped)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let topic = Topic::new();
    let shop = Here {
        told: tell,
        topic: topic.clone(),
        dropped: drop,
    };
    let server = Server::builder().service(ShopServer::new(shop));
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let client = Client::connect(server.target()).await.unwrap();
    Fixture {
        server,
        client,
        topic,
        told,
        dropped,
    }
}

fn json(text: &str) -> JsonText {
    text.parse().unwrap()
}

fn own(error: JsonError) -> String {
    match error {
        JsonError::Own(error) => error.into_string(),
        JsonError::Status(status) => panic!("not the method's own error: {status}"),
    }
}

fn status(error: JsonError) -> Status {
    match error {
        JsonError::Own(error) => panic!("not a status: {error}"),
        JsonError::Status(status) => status,
    }
}

#[tokio::test]
async fn a_unary_method_is_called() {
    let Fixture { client, .. } = fixture().await;
    let find = || client.json("/shop.v1.Shop/find");
    assert_eq!(
        find().unary(r#"{"id":5}"#).await.unwrap(),
        r#"{"id":5,"note":null}"#
    );
    assert_eq!(
        own(find().unary("0").await.unwrap_err()),
        r#"{"SoldOut":9}"#
    );
    let missing = status(find().idempotent().unary("1").await.unwrap_err());
    assert_eq!(
        (missing.code(), missing.message()),
        (Code::NotFound, "no item 1")
    );
    let broken = status(find().unary("{").await.unwrap_err());
    assert_eq!(
        (broken.code(), broken.execution()),
        (Code::InvalidArgument, Execution::NotSent)
    );
    // As a status, an error of the method is UNKNOWN with details.
    let own = client
        .call_json("/shop.v1.Shop/find", "0")
        .await
        .unwrap_err();
    assert_eq!(
        (own.code(), &own.details()[..]),
        (Code::Unknown, &br#"{"SoldOut":9}"#[..])
    );
}

#[tokio::test]
async fn arguments_that_the_caller_has_encoded_are_passed_on() {
    let Fixture { client, .. } = fixture().await;
    let encoded = |value: &dyn Fn(&mut BytesMut) -> Result<(), EncodeError>| {
        let mut out = BytesMut::new();
        value(&mut out).unwrap();
        out.freeze()
    };
    for codec in [CodecId::BINCODE, CodecId::POSTCARD, CodecId::MSGPACK] {
        // Arguments are named in MessagePack.
        let find = async |id: u64| {
            let args = BTreeMap::from([("id", id)]);
            let args = match codec {
                CodecId::MSGPACK => encoded(&|out| encode_value(codec, &args, out)),
                _ => encoded(&|out| encode_value(codec, &(id,), out)),
            };
            let find = client.json("/shop.v1.Shop/find").encoded_in(codec);
            find.unary(args).await
        };
        let wanted = encoded(&|out| encode_value(codec, &item(5), out));
        assert_eq!(find(5).await.unwrap(), wanted, "{codec}");
        let own = status(find(0).await.unwrap_err());
        let wanted = encoded(&|out| encode_value(codec, &ShopError::SoldOut(9), out));
        assert_eq!(
            (own.code(), own.details()),
            (Code::Unknown, &wanted),
            "{codec}"
        );
        let missing = status(find(1).await.unwrap_err());
        assert_eq!(missing.code(), Code::NotFound, "{codec}");
    }
}

#[tokio::test]
async fn options_of_the_client_apply() {
    let Fixture { client, .. } = fixture().await;
    let options = CallOptions::new().metadata("name", "ann").unwrap();
    let client = client.with_options(options.timeout(Duration::from_secs(5)));
    let reply = client
        .json("/shop.v1.Shop/caller")
        .unary("{}")
        .await
        .unwrap();
    assert_eq!(reply, r#"["ann",true]"#);
}

#[tokio::test]
async fn a_one_way_method_is_called() {
    let Fixture {
        client, mut told, ..
    } = fixture().await;
    client
        .json("/shop.v1.Shop/tell")
        .one_way(r#"{"text":"hello"}"#)
        .await
        .unwrap();
    let text = tokio::time::timeout(GUARD, told.recv()).await.unwrap();
    assert_eq!(text.as_deref(), Some("hello"));
}

#[tokio::test]
async fn a_stream_of_replies_ends_or_fails_as_the_method_says() {
    let Fixture { client, .. } = fixture().await;
    let list = || client.json("/shop.v1.Shop/list");
    let mut items = list()
        .server_stream(r#"{"count":2,"then":0}"#)
        .await
        .unwrap();
    let (first, second) = (items.next().await, items.next().await);
    assert_eq!(first.unwrap().unwrap().as_str(), r#"{"id":0,"note":null}"#);
    assert_eq!(second.unwrap().unwrap().as_str(), r#"{"id":1,"note":null}"#);
    assert!(items.next().await.is_none());

    let early = list().server_stream(r#"{"count":2000}"#).await.unwrap_err();
    assert_eq!(own(early), r#"{"SoldOut":1}"#);
    let mut items = list()
        .server_stream(r#"{"count":0,"then":4}"#)
        .await
        .unwrap();
    let late = items.next().await.unwrap().unwrap_err();
    assert_eq!(own(late), r#"{"SoldOut":4}"#);
    assert!(items.next().await.is_none());
}

#[tokio::test]
async fn a_stream_that_is_dropped_ends_at_the_server() {
    let Fixture {
        client,
        mut dropped,
        ..
    } = fixture().await;
    let list = client.json("/shop.v1.Shop/list");
    let mut items = list.server_stream(r#"{"count":0}"#).await.unwrap();
    items.next().await.unwrap().unwrap();
    drop(items);
    tokio::time::timeout(GUARD, dropped.recv()).await.unwrap();
    // The connection goes on.
    client.call_json("/shop.v1.Shop/find", "5").await.unwrap();
}

#[tokio::test]
async fn a_subscription_is_resumed_at_a_position() {
    let Fixture { client, topic, .. } = fixture().await;
    let args = r#"{"topic":"items"}"#;
    let watch = || client.json("/shop.v1.Shop/watch");
    let mut updates = watch().subscribe(args).await.unwrap();
    for id in 1..=3 {
        topic.publish(item(id)).await;
    }
    let value = |sequence, text| Update::Value {
        sequence,
        value: json(text),
    };
    let first = updates.next().await.unwrap().unwrap();
    assert_eq!(first, value(1, r#"{"id":1,"note":null}"#));
    let position: Position = updates.position().unwrap().to_string().parse().unwrap();
    drop(updates);

    let resumed = client.with_options(CallOptions::new().resume(position));
    let mut updates = resumed
        .json("/shop.v1.Shop/watch")
        .subscribe(args)
        .await
        .unwrap();
    let second = updates.next().await.unwrap().unwrap();
    assert_eq!(second, value(2, r#"{"id":2,"note":null}"#));

    // A position of another topic is a gap of unknown length.
    let other = client.with_options(CallOptions::new().resume("1.1".parse().unwrap()));
    let mut updates = other
        .json("/shop.v1.Shop/watch")
        .subscribe(args)
        .await
        .unwrap();
    assert!(matches!(
        updates.next().await,
        Some(Ok(Update::Gap(Gap { missed: None, .. })))
    ));

    let refused = watch().subscribe(r#"{"topic":"x"}"#).await.unwrap_err();
    assert_eq!(status(refused).code(), Code::NotFound);
}

#[tokio::test]
async fn messages_are_sent_to_a_method() {
    let Fixture { client, .. } = fixture().await;
    let sum = || client.json("/shop.v1.Shop/sum");
    let numbers = Streaming::iter(["1", "2", " 3 "].map(json));
    assert_eq!(
        sum()
            .client_stream(r#"{"factor":10}"#, numbers)
            .await
            .unwrap(),
        "60"
    );
    let error = sum()
        .client_stream(r#"{"factor":1}"#, Streaming::iter([json("13")]))
        .await;
    assert_eq!(own(error.unwrap_err()), r#"{"SoldOut":13}"#);
    let wrong = sum()
        .client_stream(r#"{"factor":1}"#, Streaming::iter([json("\"x\"")]))
        .await;
    assert_eq!(status(wrong.unwrap_err()).code(), Code::InvalidArgument);
    // Messages that fail end the call with their status.
    let (sender, numbers) = Streaming::channel(1);
    tokio::spawn(sender.fail(Status::out_of_range("line 2")));
    let failed = sum()
        .client_stream(r#"{"factor":1}"#, numbers)
        .await
        .unwrap_err();
    assert_eq!(status(failed), Status::out_of_range("line 2"));
}

#[tokio::test]
async fn both_directions_run_at_once() {
    let Fixture { client, .. } = fixture().await;
    let (sender, numbers) = Streaming::channel(1);
    let doubled = client
        .json("/shop.v1.Shop/doubled")
        .bidi_stream("{}", numbers);
    let mut doubled = doubled.await.unwrap();
    for number in 1..=100 {
        sender.send(json(&number.to_string())).await.unwrap();
        let reply = doubled.next().await.unwrap().unwrap();
        assert_eq!(reply.as_str(), (number * 2).to_string());
    }
    sender.finish();
    assert!(doubled.next().await.is_none());
}

#[tokio::test]
async fn a_reader_that_stops_holds_up_the_method() {
    let Fixture {
        client,
        mut dropped,
        ..
    } = fixture().await;
    let list = client.json("/shop.v1.Shop/list");
    let mut items = list.server_stream(r#"{"count":0}"#).await.unwrap();
    // The stream has no end, so it would fill the memory if it did not wait for its reader.
    client.call_json("/shop.v1.Shop/find", "5").await.unwrap();
    for _ in 0..10_000 {
        items.next().await.unwrap().unwrap();
    }
    drop(items);
    tokio::time::timeout(GUARD, dropped.recv()).await.unwrap();
}

#[tokio::test]
async fn a_server_is_described() {
    let Fixture { client, .. } = fixture().await;
    let described = client.describe().await.unwrap();
    let names: Vec<_> = described
        .services
        .iter()
        .map(|service| &*service.service)
        .collect();
    assert_eq!(names, ["shop.v1.Shop"]);
    assert_eq!(described.services[0].methods.len(), 7);
    assert!(described.build.is_some());
    assert_eq!(described.build, client.announced_build());
    let silent = Server::builder()
        .describe(false)
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let client = Client::connect(silent.target()).await.unwrap();
    assert_eq!(
        client.describe().await.unwrap_err().code(),
        Code::Unimplemented
    );
    assert_eq!(client.announced_build(), None);
}

#[tokio::test]
async fn a_client_is_connected_by_a_function() {
    let Fixture { server, .. } = fixture().await;
    let target = server.target();
    let client = Client::builder()
        .connect_by(|core| core.connect_lazy(target))
        .unwrap();
    let found = client.call_json("/shop.v1.Shop/find", "5").await.unwrap();
    assert_eq!(found, r#"{"id":5,"note":null}"#);
}

#[test]
fn types_are_described_as_they_are_observed() {
    iip_rpc::schema::check_derived::<Item>().unwrap();
    iip_rpc::schema::check_derived::<ShopError>().unwrap();
}
