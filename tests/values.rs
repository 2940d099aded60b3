//! Values that a codec cannot carry, types that differ between the two sides, plain replies that
//! look like errors, and values of the maximum size.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use iip_core::{HandlerError, Request, Response, handler_fn};
use iip_rpc::codec::CodecId;
use iip_rpc::schema::check_derived;
use iip_rpc::{
    Client, ClientBuilder, Code, Execution, MethodError, Payload, Schema, Server, Status, Stream,
    Streaming, service,
};
use serde::{Deserialize, Serialize};

use crate::common::alone::alone;
use crate::common::calls::{expect, serve, serve_with};
use crate::common::{assert_grown_less, resident_bytes, within};

const MIB: usize = 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
#[schema(named_only)]
struct Order {
    #[serde(default, skip_serializing_if = "is_zero")]
    discount: u8,
    count: u8,
    notes: Vec<u8>,
}

fn is_zero(number: &u8) -> bool {
    *number == 0
}

fn without_discount() -> Order {
    Order {
        discount: 0,
        count: 1,
        notes: vec![0],
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
struct List {
    next: Option<Box<Self>>,
}

fn list(levels: usize) -> List {
    (1..levels).fold(List { next: None }, |inner, _| List {
        next: Some(Box::new(inner)),
    })
}

/// Methods in the codec of the client.
#[service]
trait Shop {
    async fn take(&self, order: Order) -> Result<u8, Status>;
    async fn give(&self) -> Result<Order, Status>;
    async fn ratio(&self, of: f64, to: f64) -> Result<f64, Status>;
    async fn count(&self, list: List) -> Result<u64, Status>;
    async fn make(&self, levels: u64) -> Result<List, Status>;
    async fn ticks(&self, count: u64) -> Result<Vec<()>, Status>;
    async fn orders(&self) -> Result<impl Stream<Item = Result<Order, Status>>, Status>;
    async fn echo(&self, data: Vec<u8>) -> Result<Vec<u8>, Status>;
    async fn payload(&self, data: Payload) -> Result<Payload, Status>;
    #[rpc(path = "/shop/raw", raw)]
    async fn raw(&self, data: Bytes) -> Result<Bytes, Status>;
    async fn upload(&self, chunks: Streaming<Payload>) -> Result<u64, Status>;
    async fn download(
        &self,
        size: u64,
    ) -> Result<impl Stream<Item = Result<Payload, Status>>, Status>;
}

/// Counts the handlers that run.
#[derive(Clone, Default)]
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn run(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn runs(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn length(mut list: &List) -> u64 {
    let mut length = 1;
    while let Some(next) = &list.next {
        (list, length) = (next, length + 1);
    }
    length
}

impl Shop for Counted {
    async fn take(&self, order: Order) -> Result<u8, Status> {
        self.run();
        Ok(order.count)
    }

    async fn give(&self) -> Result<Order, Status> {
        self.run();
        Ok(without_discount())
    }

    async fn ratio(&self, of: f64, to: f64) -> Result<f64, Status> {
        self.run();
        Ok(of / to)
    }

    async fn count(&self, list: List) -> Result<u64, Status> {
        self.run();
        Ok(length(&list))
    }

    async fn make(&self, levels: u64) -> Result<List, Status> {
        self.run();
        Ok(list(levels as usize))
    }

    async fn ticks(&self, count: u64) -> Result<Vec<()>, Status> {
        self.run();
        Ok(vec![(); count as usize])
    }

    async fn orders(&self) -> Result<impl Stream<Item = Result<Order, Status>>, Status> {
        let fine = Order {
            discount: 1,
            ..without_discount()
        };
        Ok(Streaming::<_, Status>::iter([fine, without_discount()]))
    }

    async fn echo(&self, data: Vec<u8>) -> Result<Vec<u8>, Status> {
        Ok(data)
    }

    async fn payload(&self, data: Payload) -> Result<Payload, Status> {
        Ok(data)
    }

    async fn raw(&self, data: Bytes) -> Result<Bytes, Status> {
        Ok(data)
    }

    async fn upload(&self, mut chunks: Streaming<Payload>) -> Result<u64, Status> {
        let mut bytes = 0;
        while let Some(chunk) = chunks.next().await {
            bytes += chunk?.len() as u64;
        }
        Ok(bytes)
    }

    async fn download(
        &self,
        size: u64,
    ) -> Result<impl Stream<Item = Result<Payload, Status>>, Status> {
        let chunk = Payload::from(vec![7; size as usize]);
        Ok(Streaming::<_, Status>::iter([chunk]))
    }
}

async fn shop(codec: CodecId) -> (Server, Counted, ShopClient) {
    let counted = Counted::default();
    let client = Client::builder().codec(codec);
    let (server, client) =
        serve_with(ShopServer::new(counted.clone()), Server::builder(), client).await;
    (server, counted, ShopClient::new(client))
}

#[track_caller]
fn says(status: &Status, parts: &[&str]) {
    for part in parts {
        assert!(status.message().contains(part), "{part:?} in {status}");
    }
}

#[tokio::test]
async fn an_argument_with_a_field_left_out_is_not_sent() {
    for (codec, name) in [
        (CodecId::BINCODE, "bincode"),
        (CodecId::POSTCARD, "postcard"),
    ] {
        let (_server, counted, shop) = shop(codec).await;
        let status = shop.take(without_discount()).await.unwrap_err();
        expect(&status, Code::InvalidArgument, Execution::NotSent);
        says(
            &status,
            &["Shop.take", name, "`discount`", "json or msgpack"],
        );
        assert_eq!(counted.runs(), 0);
        // The connection and the scratch memory still work.
        let order = Order {
            discount: 5,
            ..without_discount()
        };
        assert_eq!(shop.take(order).await, Ok(1));

        let status = shop.give().await.unwrap_err();
        expect(&status, Code::Internal, Execution::MayHaveExecuted);
        says(&status, &["Shop.give", "result", name, "`discount`"]);
        assert!(status.phases().is_some(), "{status}");

        let mut orders = shop.orders().await.unwrap();
        assert_eq!(orders.next().await.unwrap().unwrap().discount, 1);
        let status = orders.next().await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        says(&status, &["stream", name, "`discount`"]);
    }
    for codec in [CodecId::JSON, CodecId::MSGPACK] {
        let (_server, _, shop) = shop(codec).await;
        assert_eq!(shop.take(without_discount()).await, Ok(1));
        assert_eq!(shop.give().await, Ok(without_discount()));
    }
}

#[tokio::test]
async fn numbers_that_json_cannot_express_are_rejected_by_the_writer() {
    let (_server, counted, shop) = shop(CodecId::JSON).await;
    let status = shop.ratio(f64::NAN, 1.0).await.unwrap_err();
    expect(&status, Code::InvalidArgument, Execution::NotSent);
    says(&status, &["Shop.ratio", "json", "NaN"]);
    assert_eq!(counted.runs(), 0);
    let status = shop.ratio(1.0, 0.0).await.unwrap_err();
    expect(&status, Code::Internal, Execution::MayHaveExecuted);
    says(&status, &["Shop.ratio", "result", "json", "infinities"]);
    assert_eq!(shop.ratio(1.0, 4.0).await, Ok(0.25));
    let (_server, _, shop) = self::shop(CodecId::BINCODE).await;
    assert_eq!(shop.ratio(1.0, 0.0).await, Ok(f64::INFINITY));
}

#[tokio::test]
async fn values_nested_too_deep_are_rejected_by_the_writer() {
    for codec in [
        CodecId::BINCODE,
        CodecId::POSTCARD,
        CodecId::MSGPACK,
        CodecId::JSON,
    ] {
        let (_server, counted, shop) = shop(codec).await;
        // The object of the arguments is a level in codecs that have one.
        assert_eq!(shop.count(list(126)).await, Ok(126), "{codec}");
        assert_eq!(shop.make(127).await.unwrap(), list(127), "{codec}");
        let runs = counted.runs();
        for levels in [129, 5_000] {
            let status = shop.count(list(levels)).await.unwrap_err();
            expect(&status, Code::InvalidArgument, Execution::NotSent);
            says(&status, &["Shop.count", &codec.to_string(), "levels"]);
            assert_eq!(counted.runs(), runs);
        }
        let status = shop.make(129).await.unwrap_err();
        expect(&status, Code::Internal, Execution::MayHaveExecuted);
        says(
            &status,
            &["Shop.make", "result", &codec.to_string(), "levels"],
        );
    }
}

#[tokio::test]
async fn elements_without_bytes_are_rejected_by_the_writer() {
    for codec in [CodecId::BINCODE, CodecId::POSTCARD] {
        let (_server, _, shop) = shop(codec).await;
        let status = shop.ticks(2).await.unwrap_err();
        expect(&status, Code::Internal, Execution::MayHaveExecuted);
        says(
            &status,
            &[
                "Shop.ticks",
                "cannot encode the result",
                "send their number",
            ],
        );
        assert_eq!(shop.ticks(0).await, Ok(vec![]));
    }
    for codec in [CodecId::JSON, CodecId::MSGPACK] {
        let (_server, _, shop) = shop(codec).await;
        assert_eq!(shop.ticks(2).await, Ok(vec![(); 2]));
    }
}

/// The same paths with other types, as in a client and a server of different versions.
mod older {
    use super::*;

    #[service(path = "/shop")]
    pub(super) trait OldShop {
        async fn take(&self, count: u8) -> Result<u8, Status>;
        async fn give(&self) -> Result<(String, String), Status>;
        async fn orders(&self) -> Result<impl Stream<Item = Result<String, Status>>, Status>;
        async fn upload(&self, chunks: Streaming<u8>) -> Result<u64, Status>;
    }
}

const MAY_DIFFER: &str = "the types of client and server may differ";

#[tokio::test]
async fn types_that_differ_are_reported_with_method_codec_and_a_hint() {
    use older::{OldShop as _, OldShopClient};
    for (codec, name) in [
        (CodecId::BINCODE, "bincode"),
        (CodecId::POSTCARD, "postcard"),
        (CodecId::JSON, "json"),
        (CodecId::MSGPACK, "msgpack"),
    ] {
        let client = Client::builder().codec(codec);
        let service = ShopServer::new(Full);
        let (_server, client) = serve_with(service, Server::builder(), client).await;
        let old = OldShopClient::new(client);

        let status = old.take(7).await.unwrap_err();
        expect(&status, Code::InvalidArgument, Execution::NotExecuted);
        says(
            &status,
            &["Shop.take: cannot read the arguments in", name, MAY_DIFFER],
        );

        let status = old.give().await.unwrap_err();
        expect(&status, Code::Internal, Execution::MayHaveExecuted);
        says(
            &status,
            &["OldShop.give: cannot read the result in", name, MAY_DIFFER],
        );
        assert!(status.phases().is_some(), "{status}");

        let mut orders = old.orders().await.unwrap();
        let status = orders.next().await.unwrap().unwrap_err();
        says(
            &status,
            &[
                "OldShop.orders: cannot read the message of the stream in",
                name,
                MAY_DIFFER,
            ],
        );
        assert!(status.phases().is_some(), "{status}");

        let status = old.upload(Streaming::iter([200])).await.unwrap_err();
        expect(&status, Code::InvalidArgument, Execution::MayHaveExecuted);
        says(
            &status,
            &[
                "Shop.upload: cannot read the message of the stream in",
                name,
                MAY_DIFFER,
            ],
        );
    }
}

/// Like [`Counted`], but with orders without a missing field.
struct Full;

impl Shop for Full {
    async fn take(&self, order: Order) -> Result<u8, Status> {
        Ok(order.count)
    }

    async fn give(&self) -> Result<Order, Status> {
        Ok(Order {
            discount: 9,
            ..without_discount()
        })
    }

    async fn ratio(&self, of: f64, to: f64) -> Result<f64, Status> {
        Counted::default().ratio(of, to).await
    }

    async fn count(&self, list: List) -> Result<u64, Status> {
        Counted::default().count(list).await
    }

    async fn make(&self, levels: u64) -> Result<List, Status> {
        Counted::default().make(levels).await
    }

    async fn ticks(&self, count: u64) -> Result<Vec<()>, Status> {
        Counted::default().ticks(count).await
    }

    async fn orders(&self) -> Result<impl Stream<Item = Result<Order, Status>>, Status> {
        Ok(Streaming::<_, Status>::iter([Order {
            discount: 9,
            ..without_discount()
        }]))
    }

    async fn echo(&self, data: Vec<u8>) -> Result<Vec<u8>, Status> {
        Counted::default().echo(data).await
    }

    async fn payload(&self, data: Payload) -> Result<Payload, Status> {
        Counted::default().payload(data).await
    }

    async fn raw(&self, data: Bytes) -> Result<Bytes, Status> {
        Counted::default().raw(data).await
    }

    async fn upload(&self, chunks: Streaming<Payload>) -> Result<u64, Status> {
        Counted::default().upload(chunks).await
    }

    async fn download(
        &self,
        _size: u64,
    ) -> Result<impl Stream<Item = Result<Payload, Status>>, Status> {
        Ok(Streaming::<_, Status>::iter([Payload::new()]))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
struct Country {
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
struct Notice {
    code: i32,
    message: String,
}

/// The fields of an error in another order, and with the third field of errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
struct Report {
    message: String,
    error: Option<u8>,
    code: i32,
}

#[derive(
    Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error, MethodError, Schema,
)]
enum PlainFailure {
    #[error("nothing")]
    Nothing(()),
    #[error(transparent)]
    #[status]
    Rpc(Status),
}

#[service]
trait Plain {
    #[rpc(json)]
    async fn country(&self, code: u16) -> Result<Country, Status>;
    #[rpc(json)]
    async fn notice(&self, code: i32, message: String) -> Result<Notice, Status>;
    #[rpc(json)]
    async fn report(&self, code: i32, message: String, error: Option<u8>)
    -> Result<Report, Status>;
    #[rpc(json)]
    async fn fail(&self, code: u8, message: String) -> Result<Notice, Status>;
    #[rpc(json)]
    async fn own(&self) -> Result<(), PlainFailure>;
    #[rpc(json)]
    async fn not_finite(&self) -> Result<f64, Status>;
}

struct AsAsked;

impl Plain for AsAsked {
    async fn country(&self, code: u16) -> Result<Country, Status> {
        Ok(Country { code })
    }

    async fn notice(&self, code: i32, message: String) -> Result<Notice, Status> {
        Ok(Notice { code, message })
    }

    async fn report(
        &self,
        code: i32,
        message: String,
        error: Option<u8>,
    ) -> Result<Report, Status> {
        Ok(Report {
            message,
            error,
            code,
        })
    }

    async fn fail(&self, code: u8, message: String) -> Result<Notice, Status> {
        Err(Status::new(Code::from_u8(code).unwrap(), message))
    }

    async fn own(&self) -> Result<(), PlainFailure> {
        Err(PlainFailure::Nothing(()))
    }

    async fn not_finite(&self) -> Result<f64, Status> {
        Ok(f64::NAN)
    }
}

#[tokio::test]
async fn a_plain_value_that_looks_like_an_error_arrives_as_a_value() {
    let (_server, client) = serve(PlainServer::new(AsAsked)).await;
    let plain = PlainClient::new(client.clone());
    for code in [0, 5, 16, 102, 404] {
        assert_eq!(plain.country(code).await, Ok(Country { code }));
    }
    for code in [-1, 0, 5, 16, 101, 102, 404] {
        for text in ["", "handle error", "not an error"] {
            let notice = Notice {
                code,
                message: text.into(),
            };
            assert_eq!(plain.notice(code, text.into()).await, Ok(notice));
            for error in [None, Some(1)] {
                let report = Report {
                    message: text.into(),
                    error,
                    code,
                };
                assert_eq!(plain.report(code, text.into(), error).await, Ok(report));
            }
        }
    }
    // A caller in another language gets the same JSON, after a space only where it would be an
    // error.
    let by_hand = async |path: &'static str, body: &'static str| {
        let reply = client.raw().request(path, body).await.unwrap();
        String::from_utf8(reply.to_vec()).unwrap()
    };
    assert_eq!(
        by_hand("/plain/country", r#"{"code":5}"#).await,
        r#"{"code":5}"#
    );
    let notice = by_hand("/plain/notice", r#"{"code":5,"message":"x"}"#).await;
    assert_eq!(notice, r#" {"code":5,"message":"x"}"#);
    let notice = by_hand("/plain/notice", r#"{"code":0,"message":"x"}"#).await;
    assert_eq!(notice, r#"{"code":0,"message":"x"}"#);
}

#[tokio::test]
async fn a_plain_failure_arrives_as_a_failure_with_or_without_a_text() {
    let (_server, client) = serve(PlainServer::new(AsAsked)).await;
    let plain = PlainClient::new(client.clone());
    for code in 1..=16 {
        for text in ["", "why"] {
            let status = plain.fail(code, text.into()).await.unwrap_err();
            assert_eq!(status, Status::new(Code::from_u8(code).unwrap(), text));
        }
    }
    let reply = client
        .raw()
        .request("/plain/fail", r#"{"code":5,"message":""}"#)
        .await;
    assert_eq!(reply.unwrap(), r#"{"code":5,"message":""}"#);
    assert_eq!(plain.own().await, Err(PlainFailure::Nothing(())));
    let status = plain.not_finite().await.unwrap_err();
    expect(&status, Code::Internal, Execution::MayHaveExecuted);
    says(&status, &["Plain.not_finite", "NaN"]);
}

#[tokio::test]
async fn a_missing_method_is_reported_with_its_path_and_the_closest_one() {
    #[service(path = "/shop")]
    trait Typos {
        async fn coumt(&self) -> Result<u64, Status>;
        async fn something_else(&self) -> Result<u64, Status>;
        #[rpc(json, path = "/plain/contry")]
        async fn contry(&self) -> Result<u64, Status>;
    }
    let builder = Server::builder().service(PlainServer::new(AsAsked));
    let service = ShopServer::new(Counted::default());
    let (_server, client) = serve_with(service, builder, Client::builder()).await;
    let typos = TyposClient::new(client.clone());
    let status = typos.coumt().await.unwrap_err();
    expect(&status, Code::Unimplemented, Execution::NotExecuted);
    assert_eq!(
        status.message(),
        r#"no method is registered under "/shop/coumt"; the closest is "/shop/count""#
    );
    let status = typos.something_else().await.unwrap_err();
    expect(&status, Code::Unimplemented, Execution::NotExecuted);
    assert_eq!(
        status.message(),
        r#"no method is registered under "/shop/something_else""#
    );
    // In plain JSON the server sends the error of a Go server, and the client explains it.
    let status = typos.contry().await.unwrap_err();
    expect(&status, Code::Unimplemented, Execution::NotExecuted);
    assert_eq!(
        status.message(),
        r#"Typos.contry: no method is registered under "/plain/contry" (code 102: handle error)"#
    );
    let reply = client.raw().request("/plain/contry", "{}").await.unwrap();
    assert_eq!(reply, r#"{"code":102,"message":"handle error"}"#);
}

fn limited(codec: CodecId, bytes: Option<usize>) -> ClientBuilder {
    let client = Client::builder().codec(codec);
    match bytes {
        Some(bytes) => client.max_message_bytes(bytes),
        None => client,
    }
}

#[tokio::test]
async fn bytes_of_just_the_largest_size_can_be_sent_and_more_cannot() {
    // The default limit, and one that was set.
    for (set, limit) in [(None, 16 * MIB), (Some(MIB + 1), MIB + 1)] {
        let server = match set {
            Some(bytes) => Server::builder().max_message_bytes(bytes),
            None => Server::builder(),
        };
        let (server, client) = serve_with(
            ShopServer::new(Counted::default()),
            server,
            limited(CodecId::BINCODE, set),
        )
        .await;
        let shop = ShopClient::new(client);
        let echo = within("an echo", shop.echo(vec![0; limit])).await;
        assert_eq!(echo.unwrap().len(), limit);
        let raw = within("raw bytes", shop.raw(vec![0; limit].into())).await;
        assert_eq!(raw.unwrap().len(), limit);
        let sent = shop.upload(Streaming::iter([vec![0; limit].into()])).await;
        assert_eq!(sent, Ok(limit as u64));
        let mut chunks = shop.download(limit as u64).await.unwrap();
        assert_eq!(chunks.next().await.unwrap().unwrap().len(), limit);
        for codec in [CodecId::POSTCARD, CodecId::MSGPACK] {
            let client = limited(codec, set).connect(server.target()).await.unwrap();
            let shop = ShopClient::new(client);
            let payload = within("a payload", shop.payload(vec![0; limit].into())).await;
            assert_eq!(payload.unwrap().len(), limit);
        }

        let more = limit + 100;
        let too_large = |status: Status, execution| {
            expect(&status, Code::ResourceExhausted, execution);
            says(&status, &[&limit.to_string(), "max_message_bytes"]);
        };
        let echo = within("an echo", shop.echo(vec![0; more])).await;
        too_large(echo.unwrap_err(), Execution::NotSent);
        let raw = within("raw bytes", shop.raw(vec![0; more].into())).await;
        too_large(raw.unwrap_err(), Execution::NotSent);
        let mut chunks = shop.download(more as u64).await.unwrap();
        let status = chunks.next().await.unwrap().unwrap_err();
        too_large(status, Execution::MayHaveExecuted);
        // The server's own limit.
        let client = limited(CodecId::BINCODE, Some(4 * limit));
        let generous = ShopClient::new(client.connect(server.target()).await.unwrap());
        let echo = within("an echo", generous.echo(vec![0; more])).await;
        too_large(echo.unwrap_err(), Execution::NotExecuted);
    }
}

#[tokio::test]
async fn metadata_does_not_count_as_a_part_of_the_largest_message() {
    let server = Server::builder().max_message_bytes(1000);
    let client = Client::builder().max_message_bytes(1000);
    let (_server, client) = serve_with(ShopServer::new(Counted::default()), server, client).await;
    let options = iip_rpc::CallOptions::new()
        .metadata("note", "x".repeat(16_000))
        .unwrap();
    let shop = ShopClient::new(client).with_options(options);
    let echo = within("an echo", shop.echo(vec![0; 1000])).await;
    assert_eq!(echo.unwrap().len(), 1000);
    let sent = shop.upload(Streaming::iter([vec![0; 1000].into()])).await;
    assert_eq!(sent, Ok(1000));
}

#[service]
trait Evil {
    #[rpc(json)]
    async fn json(&self, which: u8) -> Result<u8, PlainFailure>;
    #[rpc(raw)]
    async fn raw(&self, which: Bytes) -> Result<Bytes, Status>;
    async fn typed(&self, which: u8) -> Result<u8, Status>;
}

/// Calls for each of `count` replies, in every form.
async fn each_in_every_form(evil: &EvilClient, count: u8) {
    for which in 0..count {
        let _ = within("a reply", evil.json(which)).await.unwrap_err();
        let _ = within("a reply", evil.typed(which)).await.unwrap_err();
        let _ = within("a reply", evil.raw(which.to_string().into())).await;
    }
}

/// The bytes of a peer are not decoded into a tree, which would take at least 32 bytes for each of
/// a million elements.
#[test]
fn a_large_plain_reply_costs_no_more_than_a_few_times_its_size() {
    alone(
        "a_large_plain_reply_costs_no_more_than_a_few_times_its_size",
        || async {
            fn replies() -> Vec<Bytes> {
                let values = "0,".repeat(MIB);
                let fields: String = (0..150_000).map(|at| format!("\"{at}\":[],")).collect();
                [
                    format!(r#"{{"code":5,"message":"x","error":[{values}0]}}"#),
                    format!(r#"{{"code":5,"error":[{values}0],"message":"x","more":1}}"#),
                    format!(r#"{{"code":102,"message":"x","error":{{{fields}"x":0}}}}"#),
                    format!(
                        r#"{{"code":-1,"message":"x","error":{}{}}}"#,
                        "[".repeat(MIB),
                        "]".repeat(MIB)
                    ),
                    format!(r#"{{{fields}"x":0}}"#),
                    format!("[{values}0]"),
                ]
                .map(Bytes::from)
                .into()
            }
            let replies = Arc::new(replies());
            let evil = Arc::clone(&replies);
            let handler = move || {
                let evil = Arc::clone(&evil);
                handler_fn(move |request: Request| {
                    // The only digit of the request is the argument.
                    let digit = request.body().iter().find(|byte| byte.is_ascii_digit());
                    let which = digit.map_or(0, |digit| usize::from(digit - b'0'));
                    let reply = evil[which].clone();
                    async move { Ok::<_, HandlerError>(Response::from(reply)) }
                })
            };
            let server = iip_core::Server::builder()
                .route("/evil/json", handler())
                .route("/evil/raw", handler())
                .route("/evil/typed", handler());
            let (server, _addr) = crate::common::bound(server).await;
            let evil = EvilClient::new(Client::connect(server.target()).await.unwrap());
            let count = replies.len() as u8;
            let before = resident_bytes();
            each_in_every_form(&evil, count).await;
            assert_grown_less(before, 24 * MIB);
        },
    );
}

#[test]
fn types_are_described_as_they_are_observed() {
    check_derived::<Order>().unwrap();
    check_derived::<List>().unwrap();
    check_derived::<Country>().unwrap();
    check_derived::<Notice>().unwrap();
    check_derived::<Report>().unwrap();
    check_derived::<PlainFailure>().unwrap();
}
