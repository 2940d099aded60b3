//! Clients and servers of different builds of one service.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use iip_core::balance::{BalanceOptions, Policy};
use iip_rpc::schema::{Description, SchemaCheck, ServiceSummary, check_derived};
use iip_rpc::{
    Client, ClientBuilder, Code, Execution, Schema, Server, Status, Stream, Streaming, service,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::JoinHandle;

use self::new::Orders as _;
use self::old::Orders as _;
use crate::common::source::{TestSource, snapshot};
use crate::common::{spawn, within};
use crate::observe::Sink;

/// The first build.
mod old {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Schema)]
    pub(super) enum Colour {
        Red,
        Green,
        Blue,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
    pub(super) struct Order {
        pub(super) id: u64,
        pub(super) colour: Colour,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
    pub(super) struct Size {
        pub(super) width: u32,
        pub(super) height: u32,
    }

    #[service(name = "shop.Orders")]
    pub(super) trait Orders {
        async fn place(&self, order: Order) -> Result<Order, Status>;
        async fn area(&self, size: Size) -> Result<u64, Status>;
        async fn repeat(
            &self,
            order: Order,
            times: u8,
        ) -> Result<impl Stream<Item = Result<Order, Status>>, Status>;
        async fn sum(&self, orders: Streaming<Order>) -> Result<u64, Status>;
        async fn limit(&self, limit: u64) -> Result<u64, Status>;
    }
}

/// The second build, whose types do not derive `Schema`: an optional field and a method more, and the variants in another order. `Size`
/// has its fields swapped, and the argument of `limit` has another name and type.
mod new {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
    pub(super) enum Colour {
        Blue,
        Red,
        Green,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(super) struct Order {
        pub(super) id: u64,
        #[serde(default)]
        pub(super) note: Option<String>,
        pub(super) colour: Colour,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub(super) struct Size {
        pub(super) height: u32,
        pub(super) width: u32,
    }

    #[service(name = "shop.Orders")]
    pub(super) trait Orders {
        async fn place(&self, order: Order) -> Result<Order, Status>;
        async fn area(&self, size: Size) -> Result<u64, Status>;
        async fn repeat(
            &self,
            order: Order,
            times: u8,
        ) -> Result<impl Stream<Item = Result<Order, Status>>, Status>;
        async fn sum(&self, orders: Streaming<Order>) -> Result<u64, Status>;
        async fn limit(&self, maximum: String) -> Result<u64, Status>;
        async fn cancel(&self, id: u64) -> Result<bool, Status>;
    }
}

/// A shop of either build, which counts the calls that it runs.
#[derive(Clone, Default)]
struct Shop(Arc<AtomicUsize>);

impl Shop {
    fn runs(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

macro_rules! shop {
    ($build:ident, $maximum:ident: $limit:ty => $counted:expr) => {
        impl $build::Orders for Shop {
            async fn place(&self, order: $build::Order) -> Result<$build::Order, Status> {
                self.runs();
                Ok(order)
            }

            async fn area(&self, size: $build::Size) -> Result<u64, Status> {
                self.runs();
                Ok(u64::from(size.width) * 1000 + u64::from(size.height))
            }

            async fn repeat(
                &self,
                order: $build::Order,
                times: u8,
            ) -> Result<impl Stream<Item = Result<$build::Order, Status>>, Status> {
                self.runs();
                Ok(Streaming::iter((0..times).map(move |_| order.clone())))
            }

            async fn sum(&self, mut orders: Streaming<$build::Order>) -> Result<u64, Status> {
                self.runs();
                let mut sum = 0;
                while let Some(order) = orders.next().await {
                    sum += order?.id;
                }
                Ok(sum)
            }

            async fn limit(&self, $maximum: $limit) -> Result<u64, Status> {
                self.runs();
                Ok($counted)
            }

            shop!(@more $build);
        }
    };
    (@more old) => {};
    (@more new) => {
        async fn cancel(&self, id: u64) -> Result<bool, Status> {
            self.runs();
            Ok(id == 1)
        }
    };
}

shop!(old, limit: u64 => limit);
shop!(new, maximum: String => maximum.len() as u64);

async fn old_server() -> (Server, Shop) {
    let shop = Shop::default();
    let server = Server::builder().service(old::OrdersServer::new(shop.clone()));
    (server.bind("127.0.0.1:0").await.unwrap(), shop)
}

async fn new_server() -> (Server, Shop) {
    let shop = Shop::default();
    let server = Server::builder().service(new::OrdersServer::new(shop.clone()));
    (server.bind("127.0.0.1:0").await.unwrap(), shop)
}

async fn connect(server: &Server, builder: ClientBuilder) -> Client {
    let connecting = builder.connect(server.target());
    within("a connection", connecting).await.unwrap()
}

fn old_order(id: u64) -> old::Order {
    let colours = [old::Colour::Red, old::Colour::Green, old::Colour::Blue];
    old::Order {
        id,
        colour: colours[(id % 3) as usize],
    }
}

fn new_order(id: u64) -> new::Order {
    let colours = [new::Colour::Red, new::Colour::Green, new::Colour::Blue];
    new::Order {
        id,
        note: None,
        colour: colours[(id % 3) as usize],
    }
}

#[tokio::test]
async fn calls_of_equal_builds_stay_in_their_codec() {
    let (server, _) = old_server().await;
    let client = connect(&server, Client::builder()).await;
    let orders = old::OrdersClient::new(client.clone());
    for id in 0..3 {
        assert_eq!(orders.place(old_order(id)).await.unwrap(), old_order(id));
    }
    assert_eq!(client.codec_fallbacks(), 0);
}

#[tokio::test]
async fn calls_of_compatible_builds_change_their_codec_and_carry_the_right_values() {
    let sink = Sink::default();
    let _guard = metrics::set_default_local_recorder(&sink);
    let (server, _) = new_server().await;
    let client = connect(&server, Client::builder()).await;
    let orders = old::OrdersClient::new(client.clone());
    for id in 0..3 {
        assert_eq!(orders.place(old_order(id)).await.unwrap(), old_order(id));
    }
    assert_eq!(client.codec_fallbacks(), 3);
    let counted = sink.0.lock().unwrap().clone();
    let key = "iip_codec_fallback_total rpc.method=shop.Orders/place".to_owned();
    assert_eq!(counted, [(key, 3.0)].into());

    let (server, _) = old_server().await;
    let client = connect(&server, Client::builder()).await;
    let orders = new::OrdersClient::new(client.clone());
    for id in 0..3 {
        assert_eq!(orders.place(new_order(id)).await.unwrap(), new_order(id));
    }
    assert_eq!(client.codec_fallbacks(), 3);
    let error = orders.cancel(1).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented, "{error}");
}

#[tokio::test]
async fn streams_of_compatible_builds_change_their_codec_too() {
    let (server, _) = new_server().await;
    let client = connect(&server, Client::builder()).await;
    let orders = old::OrdersClient::new(client.clone());
    let mut repeated = orders.repeat(old_order(2), 3).await.unwrap();
    for _ in 0..3 {
        let order = within("a message", repeated.next()).await.unwrap();
        assert_eq!(order.unwrap(), old_order(2));
    }
    let sent = Streaming::iter((0..5).map(old_order));
    assert_eq!(orders.sum(sent).await.unwrap(), 10);
    assert_eq!(client.codec_fallbacks(), 2);
}

#[tokio::test]
async fn a_call_that_no_codec_carries_is_refused_before_it_is_sent() {
    let (server, shop) = new_server().await;
    let client = connect(&server, Client::builder()).await;
    let orders = old::OrdersClient::new(client);
    let error = orders.limit(7).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    assert_eq!(error.execution(), Execution::NotSent);
    let text = error.message();
    assert!(
        text.contains("limit") && text.contains("maximum") && text.contains("schema_check"),
        "{text}"
    );
    assert_eq!(shop.0.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn fields_of_one_type_in_another_order_are_sent_by_their_names() {
    let (server, _) = new_server().await;
    let client = connect(&server, Client::builder()).await;
    let orders = old::OrdersClient::new(client.clone());
    let size = old::Size {
        width: 3,
        height: 4,
    };
    assert_eq!(orders.area(size).await.unwrap(), 3004);
    assert_eq!(client.codec_fallbacks(), 1);
}

#[tokio::test]
async fn without_the_check_calls_of_different_builds_go_out_unchanged() {
    let (server, _) = new_server().await;
    let builder = Client::builder().schema_check(SchemaCheck::Off);
    let client = connect(&server, builder).await;
    let orders = old::OrdersClient::new(client.clone());
    let size = old::Size {
        width: 3,
        height: 4,
    };
    // The silent error that the check exists for.
    assert_eq!(orders.area(size).await.unwrap(), 4003);
    assert_eq!(client.codec_fallbacks(), 0);
}

#[tokio::test]
async fn with_warnings_only_a_call_that_no_codec_carries_is_sent() {
    let (server, shop) = new_server().await;
    let builder = Client::builder().schema_check(SchemaCheck::Warn);
    let client = connect(&server, builder).await;
    let orders = old::OrdersClient::new(client.clone());
    assert_eq!(orders.place(old_order(1)).await.unwrap(), old_order(1));
    assert_eq!(client.codec_fallbacks(), 1);
    let error = orders.limit(7).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "the server refused it");
    assert_eq!(shop.0.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_server_describes_its_services_to_anyone_in_plain_json() {
    let (server, _) = new_server().await;
    let client = connect(&server, Client::builder()).await;
    let ask = |path: &'static str, body: serde_json::Value| {
        let call = client.raw().request(path, body.to_string());
        async move { within("a reply", call).await.unwrap() }
    };
    let list = ask("/sys/schema/list", json!({})).await;
    let list: Vec<ServiceSummary> = serde_json::from_slice(&list).unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].service, "shop.Orders");
    assert!(list[0].paths.contains(&"/shop.Orders/cancel".to_owned()));
    let described = ask("/sys/schema/describe", json!({ "service": "shop.Orders" })).await;
    let described: Description = serde_json::from_slice(&described).unwrap();
    assert_eq!(described, new::OrdersClient::description());
    let unknown = ask("/sys/schema/describe", json!({ "service": "Other" })).await;
    let unknown = String::from_utf8(unknown.to_vec()).unwrap();
    assert!(unknown.contains("no service is called"), "{unknown}");
}

#[tokio::test]
async fn a_server_that_refuses_descriptions_is_called_without_a_comparison() {
    let shop = Shop::default();
    let refusing = Server::builder()
        .service(new::OrdersServer::new(shop.clone()))
        .describe_if(|_| Err(Status::permission_denied("not to you")));
    let refusing = refusing.bind("127.0.0.1:0").await.unwrap();
    let silent = Server::builder()
        .service(new::OrdersServer::new(shop))
        .describe(false);
    let silent = silent.bind("127.0.0.1:0").await.unwrap();
    for (server, says) in [(&refusing, "not to you"), (&silent, "code")] {
        let client = connect(server, Client::builder()).await;
        let orders = old::OrdersClient::new(client.clone());
        let size = old::Size {
            width: 3,
            height: 4,
        };
        assert_eq!(orders.area(size).await.unwrap(), 4003);
        let body = json!({ "service": "shop.Orders" }).to_string();
        let reply = client.raw().request("/sys/schema/describe", body).await;
        let text = match reply {
            Ok(reply) => String::from_utf8(reply.to_vec()).unwrap(),
            Err(error) => error.to_string(),
        };
        assert!(text.contains(says), "{text}");
    }
}

/// Calls that a client makes without end, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Load {
    fn begin<F>(call: impl Fn(u64) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send,
    {
        let (stop, calls) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&calls));
        let task = spawn(async move {
            let mut id = 0;
            while !stopped.load(Ordering::Relaxed) {
                call(id).await;
                id += 1;
                counted.store(id, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        Self { stop, calls, task }
    }

    /// Waits until so many more calls were made.
    async fn makes(&self, more: u64) {
        let until = self.calls.load(Ordering::Relaxed) + more;
        let made = async {
            while self.calls.load(Ordering::Relaxed) < until {
                assert!(!self.task.is_finished(), "a call has failed");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        within("further calls", made).await;
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        within("the end of the load", self.task).await.unwrap();
    }
}

fn addresses(servers: &[Server]) -> Vec<String> {
    let servers = servers.iter();
    servers.map(|server| server.target().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_are_upgraded_and_rolled_back_under_load_without_a_failed_call() {
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(old_server().await.0);
    }
    let source = TestSource::of(&addresses(&servers));
    let balance = BalanceOptions::new().policy(Policy::RoundRobin);
    let builder = Client::builder().balance(balance);
    let old_client = builder.clone().discover(source.clone()).await.unwrap();
    let new_client = builder.discover(source.clone()).await.unwrap();
    let (old, new) = (
        old::OrdersClient::new(old_client.clone()),
        new::OrdersClient::new(new_client.clone()),
    );
    let loads = [
        Load::begin(move |id| {
            let old = old.clone();
            async move { assert_eq!(old.place(old_order(id)).await.unwrap(), old_order(id)) }
        }),
        Load::begin(move |id| {
            let new = new.clone();
            async move { assert_eq!(new.place(new_order(id)).await.unwrap(), new_order(id)) }
        }),
    ];
    for build in ["new", "old"] {
        for place in 0..3 {
            let (successor, _) = match build {
                "new" => new_server().await,
                _ => old_server().await,
            };
            let leaving = std::mem::replace(&mut servers[place], successor);
            source.send(Ok(snapshot(&addresses(&servers))));
            let shutdown = spawn(async move { leaving.shutdown(Duration::from_secs(60)).await });
            for load in &loads {
                load.makes(200).await;
            }
            within("a shutdown", shutdown).await.unwrap();
        }
        // Every server has the build of one of the clients, whose counter rests.
        let (resting, counting) = match build {
            "new" => (&new_client, &old_client),
            _ => (&old_client, &new_client),
        };
        let (rested, counted) = (resting.codec_fallbacks(), counting.codec_fallbacks());
        assert!(rested > 0 || build == "old");
        for load in &loads {
            load.makes(100).await;
        }
        assert_eq!(resting.codec_fallbacks(), rested, "all servers are {build}");
        assert!(counting.codec_fallbacks() >= counted + 100);
    }
    for load in loads {
        load.end().await;
    }
}

#[tokio::test]
async fn a_method_is_called_by_its_path_with_json() {
    let (server, _) = new_server().await;
    let client = connect(&server, Client::builder()).await;
    let args = r#"{"order": {"id": 7, "colour": "Green", "note": "n"}}"#;
    let placed = client.call_json("/shop.Orders/place", args).await.unwrap();
    let placed: serde_json::Value = serde_json::from_str(&placed).unwrap();
    assert_eq!(placed, json!({ "id": 7, "colour": "Green", "note": "n" }));
    // The bare value of the only argument.
    let canceled = client.call_json("/shop.Orders/cancel", "1").await.unwrap();
    assert_eq!(canceled, "true");

    let broken = client
        .call_json("/shop.Orders/place", "{")
        .await
        .unwrap_err();
    assert_eq!(broken.code(), Code::InvalidArgument);
    assert_eq!(broken.execution(), Execution::NotSent);
    let wrong = client
        .call_json("/shop.Orders/place", "{}")
        .await
        .unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument, "{wrong}");
    let unknown = client
        .call_json("/shop.Orders/none", "{}")
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented, "{unknown}");
}

#[test]
fn types_are_described_as_they_are_observed() {
    check_derived::<old::Colour>().unwrap();
    check_derived::<old::Order>().unwrap();
    check_derived::<old::Size>().unwrap();
}
