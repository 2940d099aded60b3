//! Layers and services of tower on both sides: real layers around calls, interceptors as layers,
//! clients as services, services as handlers.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fmt::Display;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use iip_core::{HandlerError, Request as RawCall, Response, handler_fn};
use iip_rpc::interceptor::{
    ClientCall, ClientInterceptor, Completion, Intercepted, Next, ServerCall, ServerInterceptor,
};
use iip_rpc::tower::{
    BoxError, CallFailed, ClientService, InterceptorLayer, LayerInterceptor, RawRequest, Request,
    ServiceHandler,
};
use iip_rpc::{
    CallOptions, Client, ClientBuilder, Code, Execution, RetryPolicy, Server, ServerBuilder,
    Status, Stream, Streaming, service,
};
use tokio::sync::{Notify, Semaphore};
use tower::load_shed::error::Overloaded;
use tower::timeout::error::Elapsed;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tracing::Instrument;

use crate::common::calls::{ShopError, expect, serve, serve_with, sum};
use crate::common::logs::Logs;
use crate::common::{GUARD, eventually, passes, spawn, started, within};

#[service]
trait Shop {
    async fn buy(&self, article: &str) -> Result<String, ShopError>;
    /// Runs until the test releases it.
    async fn hold(&self) -> Result<(), Status>;
    async fn list(&self, count: u32) -> Result<impl Stream<Item = Result<u32, Status>>, Status>;
    async fn sum(&self, numbers: Streaming<u32>) -> Result<u32, Status>;
    #[rpc(path = "/raw/echo", raw)]
    async fn echo(&self, body: Bytes) -> Result<Bytes, Status>;
}

#[service]
trait Door {
    async fn knock(&self) -> Result<(), Status>;
}

struct Open;

impl Door for Open {
    async fn knock(&self) -> Result<(), Status> {
        Ok(())
    }
}

#[derive(Clone)]
struct Corner {
    /// Number of handlers of `hold` that have begun.
    begun: Arc<AtomicUsize>,
    /// Number of handlers of `hold` that run.
    running: Arc<AtomicUsize>,
    go: Arc<Semaphore>,
}

impl Default for Corner {
    fn default() -> Self {
        Self {
            begun: Arc::default(),
            running: Arc::default(),
            go: Arc::new(Semaphore::new(0)),
        }
    }
}

/// A guard that decrements the number when it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Corner {
    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    async fn until_begun(&self, count: usize) {
        eventually("handlers that run", || self.begun() == count).await;
    }
}

impl Shop for Corner {
    async fn buy(&self, article: &str) -> Result<String, ShopError> {
        match article {
            "bread" => Err(ShopError::SoldOut),
            "milk" => Err(Status::data_loss("spilt").into()),
            article => Ok(format!("one {article}")),
        }
    }

    async fn hold(&self) -> Result<(), Status> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.running.fetch_add(1, Ordering::SeqCst);
        let _counted = Counted(Arc::clone(&self.running));
        let permit = self.go.acquire().await;
        permit.map_err(|_| Status::internal("closed"))?.forget();
        Ok(())
    }

    async fn list(&self, count: u32) -> Result<impl Stream<Item = Result<u32, Status>>, Status> {
        let (sender, stream) = Streaming::channel(1);
        spawn(async move {
            for number in 0..count {
                if sender.send(number).await.is_err() {
                    return;
                }
            }
            sender.finish();
        });
        Ok(stream)
    }

    async fn sum(&self, numbers: Streaming<u32>) -> Result<u32, Status> {
        sum(0, numbers).await
    }

    async fn echo(&self, body: Bytes) -> Result<Bytes, Status> {
        Ok(body)
    }
}

/// Timeout of calls that never end; other calls take less, also on a busy machine.
const SOON: Duration = Duration::from_secs(5);

/// Returns the outcome of a call of `hold` whose timeout, [`SOON`], passes after its handler has
/// begun.
async fn out_of_time<T>(corner: &Corner, call: impl Future<Output = T>) -> T {
    let begun = corner.begun();
    let (outcome, ()) = tokio::join!(within("the end of the call", call), async {
        corner.until_begun(begun + 1).await;
        passes(SOON).await;
    });
    outcome
}

/// Returns a client without retries.
fn once() -> ClientBuilder {
    Client::builder().retry(RetryPolicy::none())
}

async fn shop(corner: &Corner, server: ServerBuilder, client: ClientBuilder) -> (Server, Client) {
    serve_with(ShopServer::new(corner.clone()), server, client).await
}

fn rpc(error: ShopError) -> Status {
    match error {
        ShopError::Rpc(status) => status,
        ShopError::SoldOut => panic!("sold out"),
    }
}

/// A span for each call and a line for its end, as tracing layers write them: for any request that
/// has a name.
#[derive(Clone)]
struct TraceLayer;

#[derive(Clone)]
struct Trace<S>(S);

impl<S> Layer<S> for TraceLayer {
    type Service = Trace<S>;

    fn layer(&self, service: S) -> Trace<S> {
        Trace(service)
    }
}

trait Named {
    fn name(&self) -> String;
}

impl Named for Request<ServerCall> {
    fn name(&self) -> String {
        format!("server {}", self.call().method())
    }
}

impl Named for Request<ClientCall> {
    fn name(&self) -> String {
        format!("client {}", self.call().method())
    }
}

impl<S, R> Service<R> for Trace<S>
where
    S: Service<R, Error: Display, Future: Send + 'static>,
    R: Named,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let span = tracing::info_span!(target: "shop", "call", call = request.name());
        let call = self.0.call(request);
        let traced = async move {
            let result = call.await;
            match &result {
                Ok(_) => tracing::info!(target: "shop", ended = "well"),
                Err(error) => tracing::info!(target: "shop", ended = %error),
            }
            result
        };
        Box::pin(traced.instrument(span))
    }
}

/// Returns the lines of the trace layers.
fn traced(logs: &Logs) -> Vec<String> {
    let lines = logs.take();
    let texts = lines.iter().filter_map(|line| {
        let text = line.get("call").or_else(|| line.get("ended"))?;
        Some(text.to_owned())
    });
    texts.collect()
}

#[tokio::test]
async fn a_stack_of_timeout_concurrency_limit_and_trace_sees_calls_of_every_kind_on_both_sides() {
    let logs = Logs::default();
    // It is local to this thread, which runs both sides.
    let _guard = tracing::subscriber::set_default(logs.clone());
    let stack = || {
        ServiceBuilder::new()
            .layer(TraceLayer)
            .load_shed()
            .concurrency_limit(1)
            .timeout(GUARD)
    };
    let server = Server::builder().interceptor(LayerInterceptor::new(stack()));
    let client = Client::builder().interceptor(LayerInterceptor::new(stack()));
    let (_server, client) = shop(&Corner::default(), server, client).await;
    let shop = ShopClient::new(client);
    traced(&logs);

    let both = |method: &str, ended: &str| {
        let (client, server) = (format!("client {method}"), format!("server {method}"));
        vec![client, server, ended.to_owned(), ended.to_owned()]
    };
    assert_eq!(shop.buy("cake").await.unwrap(), "one cake");
    assert_eq!(traced(&logs), both("Shop.buy", "well"));
    assert_eq!(shop.buy("bread").await.unwrap_err(), ShopError::SoldOut);
    assert_eq!(traced(&logs), both("Shop.buy", "sold out"));
    let status = rpc(shop.buy("milk").await.unwrap_err());
    expect(&status, Code::DataLoss, Execution::MayHaveExecuted);
    let seen = traced(&logs);
    assert_eq!(seen[..3], both("Shop.buy", "data loss: spilt")[..3]);
    assert!(seen[3].starts_with("data loss: spilt"), "{seen:?}");

    let mut list = shop.list(3).await.unwrap();
    for number in 0..3 {
        assert_eq!(list.next().await.unwrap().unwrap(), number);
    }
    assert!(list.next().await.is_none());
    assert_eq!(traced(&logs), both("Shop.list", "well"));
    let (sender, numbers) = Streaming::channel(2);
    let (sum, ()) = tokio::join!(shop.sum(numbers), async {
        sender.send(3).await.unwrap();
        sender.send(4).await.unwrap();
        sender.finish();
    });
    assert_eq!(sum.unwrap(), 7);
    assert_eq!(traced(&logs), both("Shop.sum", "well"));
    assert_eq!(shop.echo(Bytes::from("raw")).await.unwrap(), "raw");
    assert_eq!(traced(&logs), both("Shop.echo", "well"));
}

#[tokio::test]
async fn a_timeout_layer_ends_a_call_that_takes_too_long_on_either_side() {
    let timeout = || LayerInterceptor::new(tower::timeout::TimeoutLayer::new(SOON));
    let corner = Corner::default();
    let server = Server::builder().interceptor(timeout());
    let (_server, client) = shop(&corner, server, once()).await;
    let call = ShopClient::new(client);
    let status = out_of_time(&corner, call.hold()).await.unwrap_err();
    expect(&status, Code::DeadlineExceeded, Execution::MayHaveExecuted);
    assert!(status.message().contains("tower"), "{status}");
    assert_eq!(corner.running.load(Ordering::SeqCst), 0);
    // For a stream, the timeout covers the whole stream.
    let mut list = call.list(u32::MAX).await.unwrap();
    passes(SOON).await;
    let end = loop {
        if let Err(status) = within("a message", list.next()).await.unwrap() {
            break status;
        }
        tokio::task::yield_now().await;
    };
    expect(&end, Code::DeadlineExceeded, Execution::MayHaveExecuted);

    let corner = Corner::default();
    let (_server, client) = shop(&corner, Server::builder(), once().interceptor(timeout())).await;
    let call = ShopClient::new(client);
    let status = out_of_time(&corner, call.hold()).await.unwrap_err();
    expect(&status, Code::DeadlineExceeded, Execution::MayHaveExecuted);
    assert!(std::error::Error::source(&status).unwrap().is::<Elapsed>());
    let running = || corner.running.load(Ordering::SeqCst) == 0;
    eventually("the handler is dropped", running).await;
}

#[tokio::test]
async fn a_concurrency_limit_layer_applies_to_all_calls_and_clients_together() {
    let corner = Corner::default();
    let limit = LayerInterceptor::new(tower::limit::ConcurrencyLimitLayer::new(2));
    let limited = Intercepted::new(ShopServer::new(corner.clone()), limit);
    let server = Server::builder().service(limited);
    let (server, client) = serve_with(DoorServer::new(Open), server, once()).await;
    let (shop, door) = (ShopClient::new(client.clone()), DoorClient::new(client));
    let other = ShopClient::new(Client::connect(server.target()).await.unwrap());
    // The first call of a service asks the server for its fingerprint, if it has several services.
    for shop in [&shop, &other] {
        shop.buy("cake").await.unwrap();
    }

    let mut calls = Vec::new();
    for shop in [&shop, &shop, &other, &shop] {
        calls.push(started(shop.hold()).await);
    }
    corner.until_begun(2).await;
    // Its reply follows those of the calls before it.
    door.knock().await.unwrap();
    assert_eq!(corner.begun(), 2);
    for ended in 1..=4 {
        corner.go.add_permits(1);
        corner.until_begun((2 + ended).min(4)).await;
        assert!(corner.running.load(Ordering::SeqCst) <= 2);
    }
    for call in calls {
        within("the reply", call.finish()).await.unwrap();
    }
}

#[tokio::test]
async fn a_layer_that_sheds_load_rejects_calls_that_then_have_not_run() {
    let shed = || {
        let stack = ServiceBuilder::new().load_shed().concurrency_limit(1);
        LayerInterceptor::new(stack)
    };
    let corner = Corner::default();
    let (_server, client) = shop(&corner, Server::builder().interceptor(shed()), once()).await;
    let shop_client = ShopClient::new(client);
    let first = started(shop_client.hold()).await;
    corner.until_begun(1).await;
    let status = rpc(shop_client.buy("cake").await.unwrap_err());
    expect(&status, Code::ResourceExhausted, Execution::NotExecuted);
    assert!(status.pushback().is_some(), "{status}");
    corner.go.add_permits(1);
    first.finish().await.unwrap();
    assert_eq!(shop_client.buy("cake").await.unwrap(), "one cake");

    // A stream counts as a running call until it has ended.
    let mut list = shop_client.list(100).await.unwrap();
    let status = rpc(shop_client.buy("cake").await.unwrap_err());
    expect(&status, Code::ResourceExhausted, Execution::NotExecuted);
    while let Some(number) = list.next().await {
        number.unwrap();
    }
    assert_eq!(shop_client.buy("cake").await.unwrap(), "one cake");
    let list = shop_client.list(u32::MAX).await.unwrap();
    drop(list);
    within("capacity for a call", async {
        while let Err(error) = shop_client.buy("cake").await {
            assert_eq!(rpc(error).code(), Code::ResourceExhausted);
        }
    })
    .await;

    let (_server, client) = shop(&corner, Server::builder(), once().interceptor(shed())).await;
    let shop_client = ShopClient::new(client);
    let first = started(shop_client.hold()).await;
    let status = rpc(shop_client.buy("cake").await.unwrap_err());
    expect(&status, Code::ResourceExhausted, Execution::NotSent);
    let source = std::error::Error::source(&status).unwrap();
    assert!(source.is::<Overloaded>());
    corner.go.add_permits(1);
    first.finish().await.unwrap();
}

#[tokio::test]
async fn a_call_that_waits_for_a_layer_fails_at_its_deadline_and_was_not_sent() {
    let hour = Duration::from_secs(3600);
    let limited = LayerInterceptor::new(ServiceBuilder::new().buffer(8).rate_limit(1, hour));
    let (_server, client) = serve(DoorServer::new(Open)).await;
    let options = CallOptions::new().timeout(SOON);
    let door = DoorClient::new(client.with_interceptor(limited));
    door.knock().await.unwrap();
    let door = door.with_options(options);
    let (status, ()) = tokio::join!(door.knock(), passes(SOON));
    let status = status.unwrap_err();
    expect(&status, Code::DeadlineExceeded, Execution::NotSent);
}

/// A layer that admits callers that send a name.
fn who(call: Request<ServerCall>) -> Result<Request<ServerCall>, BoxError> {
    match call.call().metadata().text("name") {
        Some("eve") => Err(Status::permission_denied("not eve").into()),
        Some(_) => Ok(call),
        None => Err("the secret list says no".into()),
    }
}

/// A layer that adds a name to the request.
fn say(
    name: &'static str,
) -> impl Fn(Request<ClientCall>) -> Request<ClientCall> + Clone + Send + Sync {
    move |mut request| {
        let metadata = request.call_mut().metadata_mut();
        metadata.insert_text("name", name).unwrap();
        request
    }
}

#[tokio::test]
async fn errors_of_layers_become_statuses_and_only_a_status_reaches_the_caller() {
    let server =
        Server::builder().interceptor(LayerInterceptor::new(tower::filter::FilterLayer::new(who)));
    let (_server, client) = shop(&Corner::default(), server, once()).await;
    let named = |name| {
        let layer = ServiceBuilder::new().map_request(say(name));
        ShopClient::new(client.with_interceptor(LayerInterceptor::new(layer)))
    };
    assert_eq!(named("ann").buy("cake").await.unwrap(), "one cake");
    let status = rpc(named("eve").buy("cake").await.unwrap_err());
    expect(&status, Code::PermissionDenied, Execution::NotExecuted);
    assert_eq!(status.message(), "not eve");
    let status = rpc(ShopClient::new(client).buy("cake").await.unwrap_err());
    expect(&status, Code::Internal, Execution::NotExecuted);
    assert!(!status.to_string().contains("secret"), "{status}");

    let mapped = LayerInterceptor::new(tower::filter::FilterLayer::new(who))
        .map_error(|error| Status::unauthenticated(error.to_string()));
    let server = Server::builder().interceptor(mapped);
    let (_server, client) = shop(&Corner::default(), server, once()).await;
    let status = rpc(ShopClient::new(client).buy("cake").await.unwrap_err());
    expect(&status, Code::Unauthenticated, Execution::NotExecuted);
    assert_eq!(status.message(), "the secret list says no");
}

#[derive(Debug, thiserror::Error)]
#[error("wrapped")]
struct Wrapped(#[source] BoxError);

#[tokio::test]
async fn the_error_of_a_method_passes_through_layers_that_wrap_it() {
    let wrap = || ServiceBuilder::new().map_err(|error: CallFailed| Wrapped(error.into()));
    let server = Server::builder().interceptor(LayerInterceptor::new(wrap()));
    let client = once().interceptor(LayerInterceptor::new(wrap()));
    let (_server, client) = shop(&Corner::default(), server, client).await;
    let shop = ShopClient::new(client);
    assert_eq!(shop.buy("bread").await.unwrap_err(), ShopError::SoldOut);
    let status = rpc(shop.buy("milk").await.unwrap_err());
    expect(&status, Code::DataLoss, Execution::MayHaveExecuted);
}

/// Records the calls that it sees.
#[derive(Clone, Default)]
struct Watch(Arc<std::sync::Mutex<Vec<String>>>);

impl Watch {
    fn see(&self, what: impl Display) {
        self.0.lock().unwrap().push(what.to_string());
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl ServerInterceptor for Watch {
    async fn intercept(
        &self,
        call: ServerCall,
        next: Next<ServerCall>,
    ) -> Result<Completion, Status> {
        if call.metadata().text("name").is_none() {
            return Err(Status::unauthenticated("no name"));
        }
        self.see("in");
        let reply = next.run(call).await;
        self.see(reply.outcome().code().name());
        Ok(reply)
    }
}

impl ClientInterceptor for Watch {
    async fn intercept(
        &self,
        mut call: ClientCall,
        next: Next<ClientCall>,
    ) -> Result<Completion, Status> {
        call.metadata_mut().insert_text("name", "ann")?;
        let reply = next.run(call).await;
        self.see(reply.outcome().code().name());
        Ok(reply)
    }
}

#[tokio::test]
async fn an_interceptor_works_between_layers() {
    let (watch, corner) = (Watch::default(), Corner::default());
    let stack = ServiceBuilder::new()
        .concurrency_limit(1)
        .layer(InterceptorLayer::server(watch.clone()))
        .timeout(SOON);
    let server = Server::builder().interceptor(LayerInterceptor::new(stack));
    let (_server, client) = shop(&corner, server, once()).await;

    let anonymous = ShopClient::new(client.clone());
    let status = rpc(anonymous.buy("cake").await.unwrap_err());
    expect(&status, Code::Unauthenticated, Execution::NotExecuted);
    assert_eq!(watch.seen(), [""; 0]);

    let of_client = Watch::default();
    let stack = ServiceBuilder::new()
        .load_shed()
        .layer(InterceptorLayer::client(of_client.clone()))
        .concurrency_limit(1);
    let shop = ShopClient::new(client.with_interceptor(LayerInterceptor::new(stack)));
    assert_eq!(shop.buy("cake").await.unwrap(), "one cake");
    assert_eq!(shop.buy("bread").await.unwrap_err(), ShopError::SoldOut);
    assert_eq!(watch.seen(), ["in", "OK", "in", "UNKNOWN"]);
    assert_eq!(of_client.seen(), ["OK", "UNKNOWN"]);

    // It sees the effect of the layer inside it; the same error passes the layers outside it.
    let status = out_of_time(&corner, shop.hold()).await.unwrap_err();
    expect(&status, Code::DeadlineExceeded, Execution::MayHaveExecuted);
    assert_eq!(watch.seen(), ["in", "DEADLINE_EXCEEDED"]);
    assert_eq!(of_client.seen(), ["DEADLINE_EXCEEDED"]);
    let mut list = shop.list(2).await.unwrap();
    while let Some(number) = list.next().await {
        number.unwrap();
    }
    assert_eq!(watch.seen(), ["in", "OK"]);
    assert_eq!(of_client.seen(), ["OK"]);
}

/// Retries a failed call, twice at most.
#[derive(Clone)]
struct Again(usize);

impl tower::retry::Policy<RawRequest, Bytes, BoxError> for Again {
    type Future = std::future::Ready<()>;

    fn retry(
        &mut self,
        _: &mut RawRequest,
        result: &mut Result<Bytes, BoxError>,
    ) -> Option<Self::Future> {
        let again = result.is_err() && self.0 > 0;
        again.then(|| {
            self.0 -= 1;
            ready(())
        })
    }

    fn clone_request(&mut self, request: &RawRequest) -> Option<RawRequest> {
        Some(request.clone())
    }
}

#[tokio::test]
async fn a_client_is_a_service_for_stacks_that_time_out_and_retry_its_calls() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let unsure = handler_fn(move |request: RawCall| {
        let call = count.fetch_add(1, Ordering::SeqCst);
        let reply = match call {
            0 | 1 => Err(HandlerError::new("not yet")),
            _ => Ok(Response::from(request.into_body())),
        };
        ready(reply)
    });
    let entered = Arc::new(Notify::new());
    let tell = Arc::clone(&entered);
    let stuck = handler_fn(move |_: RawCall| {
        tell.notify_one();
        std::future::pending::<Result<Response, HandlerError>>()
    });
    let server = Server::builder()
        .route("/unsure", unsure)
        .route("/stuck", stuck);
    let (_server, client) = serve_with(DoorServer::new(Open), server, once()).await;
    let mut service = ServiceBuilder::new()
        .retry(Again(2))
        .concurrency_limit(1)
        .timeout(GUARD)
        .service(ClientService::new(client.clone()));
    let request = RawRequest::new("/unsure", "hello");
    let reply = service.ready().await.unwrap().call(request.clone()).await;
    assert_eq!(reply.unwrap(), "hello");
    assert_eq!(calls.load(Ordering::SeqCst), 3);

    let plain = ClientService::new(client.clone());
    let status = plain.oneshot(RawRequest::new("/none", "hello")).await;
    let status = status.unwrap_err();
    expect(&status, Code::Unimplemented, Execution::NotExecuted);
    let short = client.with_options(CallOptions::new().timeout(SOON));
    let status = ClientService::new(short).oneshot(RawRequest::new("/stuck", "hello"));
    let (status, ()) = tokio::join!(within("the end of the call", status), async {
        within("the handler", entered.notified()).await;
        passes(SOON).await;
    });
    let status = status.unwrap_err();
    expect(&status, Code::DeadlineExceeded, Execution::MayHaveExecuted);
}

#[tokio::test]
async fn a_service_serves_a_path_and_its_failures_have_the_form_of_the_caller() {
    let asked = Arc::new(Notify::new());
    let tell = Arc::clone(&asked);
    let service = tower::service_fn(move |request: RawCall| {
        let tell = Arc::clone(&tell);
        async move {
            match &request.body()[..] {
                b"wait" => {
                    tell.notify_one();
                    std::future::pending().await
                }
                b"fail" => Err(BoxError::from(HandlerError::new("as you wish"))),
                b"no" => Err(Status::out_of_range("too far").into()),
                b"secret" => Err("a secret".into()),
                _ => Ok(request.into_body()),
            }
        }
    });
    let stack = ServiceBuilder::new()
        .load_shed()
        .concurrency_limit(1)
        .service(service);
    let server = Server::builder().route("/echo", ServiceHandler::new(stack));
    let (_server, client) = serve_with(DoorServer::new(Open), server, once()).await;
    let call = |body: &'static str| {
        ClientService::new(client.clone()).oneshot(RawRequest::new("/echo", body))
    };
    assert_eq!(call("hello").await.unwrap(), "hello");
    let failed = |status: Status| {
        expect(&status, Code::Unknown, Execution::MayHaveExecuted);
        status
            .message()
            .trim_start_matches("handler fail:")
            .to_owned()
    };
    assert_eq!(failed(call("fail").await.unwrap_err()), "as you wish");
    assert_eq!(failed(call("no").await.unwrap_err()), "too far");
    assert_eq!(
        failed(call("secret").await.unwrap_err()),
        "a tower service failed"
    );
    let waits = started(call("wait")).await;
    within("the service", asked.notified()).await;
    let text = failed(call("hello").await.unwrap_err());
    assert!(text.contains("at capacity"), "{text}");
    // The dropped call no longer counts.
    drop(waits);
    let capacity = async { while call("hello").await.is_err() {} };
    within("capacity for a call", capacity).await;
}

#[tokio::test]
async fn a_stack_in_front_of_a_server_forwards_typed_calls_and_their_failures() {
    let corner = Corner::default();
    let (behind, client) = shop(&corner, Server::builder(), once()).await;
    let before = ServiceBuilder::new()
        .timeout(SOON)
        .map_request(|request: RawCall| {
            RawRequest::new(request.path().to_owned(), request.into_body())
        })
        .service(ClientService::new(client));
    let handler = ServiceHandler::new(before).map_error(|error| match error.is::<Elapsed>() {
        true => Status::deadline_exceeded("the shop is slow"),
        false => Status::internal("unknown"),
    });
    let server = Server::builder()
        .route("/shop/buy", handler.clone())
        .route("/shop/hold", handler);
    let (_server, client) = serve_with(DoorServer::new(Open), server, once()).await;
    let shop = ShopClient::new(client);
    assert_eq!(shop.buy("cake").await.unwrap(), "one cake");
    assert_eq!(shop.buy("bread").await.unwrap_err(), ShopError::SoldOut);
    let status = out_of_time(&corner, shop.hold()).await.unwrap_err();
    expect(&status, Code::DeadlineExceeded, Execution::MayHaveExecuted);
    assert_eq!(status.message(), "the shop is slow");
    // The failure of the forwarded call says nothing about the execution of the first one.
    behind.shutdown(Duration::ZERO).await;
    let status = rpc(shop.buy("cake").await.unwrap_err());
    expect(&status, Code::Unavailable, Execution::MayHaveExecuted);
}
