//! Metrics and spans of both sides of real calls.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use iip_rpc::observe::{
    MetricsFacade, MetricsInterceptor, Recorder, Side, TraceContext, TracingInterceptor,
};
use iip_rpc::{
    CallOptions, Client, ClientBuilder, Code, MethodDescriptor, Server, Status, Stream, Streaming,
    service,
};
use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Unit};
use tokio::sync::Notify;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};

use crate::common::alone::alone;
use crate::common::calls::{current, serve_with};
use crate::common::{spawn, within};

#[service]
trait Shop {
    async fn buy(&self, article: &str) -> Result<(), Status>;
    async fn stuck(&self) -> Result<(), Status>;
    async fn list(&self) -> Result<impl Stream<Item = Result<u32, Status>>, Status>;
    /// Calls `buy` of another shop.
    async fn order(&self) -> Result<Option<String>, Status>;
}

#[derive(Default)]
struct Corner {
    stuck: Arc<Notify>,
    supplier: Option<ShopClient>,
}

impl Shop for Corner {
    async fn buy(&self, article: &str) -> Result<(), Status> {
        tracing::info!(target: "shop", "sells");
        match article {
            "bread" => Err(Status::not_found("sold out")),
            _ => Ok(()),
        }
    }

    async fn stuck(&self) -> Result<(), Status> {
        self.stuck.notify_one();
        std::future::pending().await
    }

    async fn list(&self) -> Result<impl Stream<Item = Result<u32, Status>>, Status> {
        let (sender, stream) = Streaming::channel(1);
        sender.fail(Status::data_loss("gone")).await;
        Ok(stream)
    }

    async fn order(&self) -> Result<Option<String>, Status> {
        if let Some(supplier) = &self.supplier {
            supplier.buy("flour").await?;
        }
        let context = current()?.extension::<TraceContext>();
        Ok(context.map(|context| format!("{:032x}", context.trace_id())))
    }
}

#[derive(Clone, Default)]
struct Figures(Arc<Mutex<Vec<String>>>, Arc<Notify>);

impl Recorder for Figures {
    fn call_started(&self, side: Side, method: &'static MethodDescriptor) {
        self.0
            .lock()
            .unwrap()
            .push(format!("{side} {method} begins"));
    }

    fn call_ended(
        &self,
        side: Side,
        method: &'static MethodDescriptor,
        code: Code,
        took: Duration,
    ) {
        assert!(took < crate::common::GUARD);
        self.0
            .lock()
            .unwrap()
            .push(format!("{side} {method} {}", code.name()));
        self.1.notify_one();
    }
}

#[tokio::test]
async fn a_recorder_is_notified_of_every_call_including_dropped_ones() {
    let (at_server, at_client) = (Figures::default(), Figures::default());
    let corner = Corner::default();
    let runs = Arc::clone(&corner.stuck);
    let (_server, client) = serve_with(
        ShopServer::new(corner),
        Server::builder().interceptor(MetricsInterceptor::new(at_server.clone())),
        Client::builder().interceptor(MetricsInterceptor::new(at_client.clone())),
    )
    .await;
    let shop = ShopClient::new(client);
    shop.buy("cake").await.unwrap();
    shop.buy("bread").await.unwrap_err();
    let mut list = shop.list().await.unwrap();
    assert_eq!(
        list.next().await.unwrap().unwrap_err().code(),
        Code::DataLoss
    );
    let expected = |side: &str, end: &str| {
        let calls = [
            ("buy", "OK"),
            ("buy", "NOT_FOUND"),
            ("list", "DATA_LOSS"),
            ("stuck", end),
        ];
        let lines = calls.map(|(method, code)| {
            let call = format!("{side} Shop.{method}");
            [format!("{call} begins"), format!("{call} {code}")]
        });
        lines.concat()
    };
    let stuck = spawn({
        let shop = shop.clone();
        async move { shop.stuck().await }
    });
    within("the call", runs.notified()).await;
    stuck.abort();
    let ended = || at_server.0.lock().unwrap().len() == 8;
    within("the end of the call", async {
        while !ended() {
            at_server.1.notified().await;
        }
    })
    .await;
    assert_eq!(
        *at_client.0.lock().unwrap(),
        expected("client", "CANCELLED")
    );
    assert_eq!(
        *at_server.0.lock().unwrap(),
        expected("server", "CANCELLED")
    );
}

/// The values that the facade got: name and labels, with the value or the number of calls.
#[derive(Clone, Default)]
pub(crate) struct Sink(pub(crate) Arc<Mutex<BTreeMap<String, f64>>>);

struct Place(Sink, String);

impl Sink {
    fn place(&self, key: &Key) -> Arc<Place> {
        let labels: Vec<_> = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        Arc::new(Place(
            self.clone(),
            format!("{} {}", key.name(), labels.join(" ")),
        ))
    }
}

impl Place {
    fn add(&self, value: f64) {
        *self.0.0.lock().unwrap().entry(self.1.clone()).or_default() += value;
    }
}

impl CounterFn for Place {
    fn increment(&self, value: u64) {
        self.add(value as f64);
    }
    fn absolute(&self, _: u64) {
        unreachable!("not used");
    }
}

impl GaugeFn for Place {
    fn increment(&self, value: f64) {
        self.add(value);
    }
    fn decrement(&self, value: f64) {
        self.add(-value);
    }
    fn set(&self, _: f64) {
        unreachable!("not used");
    }
}

impl HistogramFn for Place {
    fn record(&self, seconds: f64) {
        assert!((0.0..20.0).contains(&seconds));
        self.add(1.0);
    }
}

impl metrics::Recorder for Sink {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: metrics::SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: metrics::SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: metrics::SharedString) {}
    fn register_counter(&self, key: &Key, _: &metrics::Metadata<'_>) -> Counter {
        Counter::from_arc(self.place(key))
    }
    fn register_gauge(&self, key: &Key, _: &metrics::Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.place(key))
    }
    fn register_histogram(&self, key: &Key, _: &metrics::Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.place(key))
    }
}

fn facade() -> MetricsInterceptor<MetricsFacade> {
    MetricsInterceptor::new(MetricsFacade::new())
}

/// A shop whose server reports to the facade.
async fn measured(client: ClientBuilder) -> (Server, ShopClient) {
    let server = Server::builder().interceptor(facade());
    let (server, client) = serve_with(ShopServer::new(Corner::default()), server, client).await;
    (server, ShopClient::new(client))
}

#[tokio::test]
async fn the_facade_gets_the_names_of_opentelemetry() {
    let sink = Sink::default();
    // It is local to this thread, which runs both sides.
    let _guard = metrics::set_default_local_recorder(&sink);
    let (server, shop) = measured(Client::builder().interceptor(facade())).await;
    shop.buy("cake").await.unwrap();
    shop.buy("cake").await.unwrap();
    shop.buy("bread").await.unwrap_err();
    let labels = "rpc.system.name=iip rpc.method=Shop/buy";
    let expected: BTreeMap<_, _> = ["client", "server"]
        .into_iter()
        .flat_map(|side| {
            let coded = |name: &str, code: &str, count| {
                let key = format!("rpc.{side}.{name} {labels} rpc.response.status_code={code}");
                (key, count)
            };
            [
                coded("calls", "OK", 2.0),
                coded("calls", "NOT_FOUND", 1.0),
                coded("call.duration", "OK", 2.0),
                coded("call.duration", "NOT_FOUND", 1.0),
                (format!("rpc.{side}.active_calls {labels}"), 0.0),
            ]
        })
        .collect();
    assert_eq!(*sink.0.lock().unwrap(), expected);
    // What the server counts by itself has the same name, and not that of the path.
    let text = server.stats().to_prometheus();
    let calls = r#"rpc_server_calls_total{rpc_system_name="iip",rpc_method="Shop/buy","#;
    assert!(text.contains(calls), "{text}");
    assert!(!text.contains("shop/buy"), "{text}");
}

/// Every span with its fields, and every event of the target "shop" with the span it is in.
#[derive(Clone, Default)]
pub(crate) struct Trace(pub(crate) Arc<Mutex<Kept>>);

#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) spans: Vec<BTreeMap<String, String>>,
    entered: Vec<usize>,
    events: Vec<Option<usize>>,
}

struct Into<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Into<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

fn index(id: &Id) -> usize {
    usize::try_from(id.into_u64()).unwrap() - 1
}

impl Subscriber for Trace {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("iip::") || metadata.target() == "shop"
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = BTreeMap::new();
        span.record(&mut Into(&mut fields));
        fields.insert("target".into(), span.metadata().target().into());
        let mut kept = self.0.lock().unwrap();
        kept.spans.push(fields);
        Id::from_u64(kept.spans.len() as u64)
    }
    fn record(&self, id: &Id, values: &Record<'_>) {
        values.record(&mut Into(&mut self.0.lock().unwrap().spans[index(id)]));
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        if event.metadata().target() == "shop" {
            let mut kept = self.0.lock().unwrap();
            let span = kept.entered.last().copied();
            kept.events.push(span);
        }
    }
    fn enter(&self, id: &Id) {
        self.0.lock().unwrap().entered.push(index(id));
    }
    fn exit(&self, id: &Id) {
        let mut kept = self.0.lock().unwrap();
        let place = kept.entered.iter().rposition(|&span| span == index(id));
        kept.entered.remove(place.unwrap());
    }
}

/// Runs in a separate process: `tracing` could cache "no subscriber" for a callsite that another
/// thread uses while the subscriber is set.
#[test]
fn the_spans_of_a_call_and_of_those_inside_its_handler_are_one_trace() {
    let name = "the_spans_of_a_call_and_of_those_inside_its_handler_are_one_trace";
    let on_one_thread = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(one_trace());
    };
    alone(name, || async move {
        tokio::task::spawn_blocking(on_one_thread).await.unwrap();
    });
}

/// A shop and its supplier, with spans on all sides.
async fn traced() -> ([Server; 2], ShopClient) {
    let traced = |corner| {
        serve_with(
            ShopServer::new(corner),
            Server::builder().interceptor(TracingInterceptor::new()),
            Client::builder().interceptor(TracingInterceptor::new()),
        )
    };
    let (supplier, client) = traced(Corner::default()).await;
    let corner = Corner {
        supplier: Some(ShopClient::new(client)),
        ..Corner::default()
    };
    let (server, client) = traced(corner).await;
    ([supplier, server], ShopClient::new(client))
}

async fn one_trace() {
    let trace = Trace::default();
    // It is local to this thread, which runs all sides.
    let _guard = tracing::subscriber::set_default(trace.clone());
    let (_servers, shop) = traced().await;

    let id = shop.order().await.unwrap().unwrap();
    shop.buy("bread").await.unwrap_err();
    let outer = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let options = CallOptions::new().metadata("traceparent", outer).unwrap();
    let given = shop.with_options(options).order().await.unwrap().unwrap();
    assert_eq!(given, "4bf92f3577b34da6a3ce929d0e0e4736");

    let kept = trace.0.lock().unwrap();
    let what: Vec<_> = kept.spans[..6]
        .iter()
        .map(|span| {
            let field = |name: &str| span.get(name).map_or("", String::as_str);
            assert_eq!(field("rpc.system.name"), "iip");
            assert_eq!(field("otel.name"), field("rpc.method"));
            assert_eq!(field("target"), format!("iip::{}", field("otel.kind")));
            [
                field("otel.kind"),
                field("rpc.method"),
                field("rpc.response.status_code"),
                field("otel.status_code"),
            ]
        })
        .collect();
    assert_eq!(
        what,
        [
            ["client", "Shop/order", "OK", ""],
            ["server", "Shop/order", "OK", ""],
            ["client", "Shop/buy", "OK", ""],
            ["server", "Shop/buy", "OK", ""],
            ["client", "Shop/buy", "NOT_FOUND", "ERROR"],
            // A request that cannot be served is not an error of the server.
            ["server", "Shop/buy", "NOT_FOUND", ""],
        ]
    );
    assert!(kept.spans[..4].iter().all(|span| span["trace_id"] == id));
    assert!(kept.spans[4..6].iter().all(|span| span["trace_id"] != id));
    assert!(kept.spans[6..].iter().all(|span| span["trace_id"] == given));
    let ids: std::collections::BTreeSet<_> =
        kept.spans.iter().map(|span| &span["span_id"]).collect();
    assert_eq!(ids.len(), kept.spans.len(), "every span has its own id");
    // The events of handlers are in the span of their call.
    assert_eq!(kept.events, [Some(3), Some(5), Some(9)]);
}

#[tokio::test]
async fn a_recorder_that_is_installed_later_is_notified_of_the_calls_that_begin_then() {
    let (_server, shop) = measured(Client::builder().interceptor(facade())).await;
    let counted = |sink: &Sink| {
        let sink = sink.0.lock().unwrap();
        let calls = sink.iter().filter(|(key, _)| key.contains(".calls "));
        calls.map(|(_, count)| *count).collect::<Vec<_>>()
    };
    for round in 1..4 {
        // Without a recorder: the first call, which finds that out, and those after it.
        for _ in 0..3 {
            shop.buy("cake").await.unwrap();
        }
        let sink = Sink::default();
        let _guard = metrics::set_default_local_recorder(&sink);
        for _ in 0..round {
            shop.buy("cake").await.unwrap();
        }
        let round = f64::from(round);
        assert_eq!(counted(&sink), [round, round], "of both sides");
    }
}

thread_local! {
    static SEEN: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// A recorder without a field, like those that print.
struct Plain;

struct Ticks;

impl HistogramFn for Ticks {
    fn record(&self, _: f64) {
        SEEN.set(SEEN.get() + 1);
    }
}

impl metrics::Recorder for Plain {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: metrics::SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: metrics::SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: metrics::SharedString) {}
    fn register_counter(&self, _: &Key, _: &metrics::Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, _: &Key, _: &metrics::Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &metrics::Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Ticks))
    }
}

#[tokio::test]
async fn a_recorder_without_a_size_is_notified_too() {
    // The address of a leaked one.
    let recorder: &Plain = Box::leak(Box::new(Plain));
    let _guard = metrics::set_default_local_recorder(recorder);
    let (_server, shop) = measured(Client::builder()).await;
    for _ in 0..3 {
        shop.buy("cake").await.unwrap();
    }
    assert_eq!(SEEN.get(), 3);
}

/// Runs in a separate process: the check for a subscriber covers all threads.
#[test]
fn without_a_subscriber_a_trace_is_continued_and_none_begins() {
    alone(
        "without_a_subscriber_a_trace_is_continued_and_none_begins",
        carry_a_trace,
    );
}

async fn carry_a_trace() {
    let (_servers, shop) = traced().await;
    assert_eq!(shop.order().await.unwrap(), None);
    let outer = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let options = CallOptions::new().metadata("traceparent", outer).unwrap();
    let given = shop.with_options(options).order().await.unwrap().unwrap();
    assert_eq!(given, "4bf92f3577b34da6a3ce929d0e0e4736");
}
