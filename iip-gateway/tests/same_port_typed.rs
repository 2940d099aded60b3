//! Typed services over HTTP on the port of their server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use iip_gateway::TypedOptions;
use iip_rpc::interceptor::{Completion, Next, ServerCall, ServerInterceptor};
use iip_rpc::{
    CallContext, Client, Concurrency, MethodPolicy, Server, ServerBuilder, Status, Streaming,
    Subscription, Topic, service,
};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;

use crate::common::{GUARD, Http, Reply, ask, get, passes, post, until, within};

#[service(name = "test.v1.Desk")]
trait Desk {
    /// Returns the address of the caller, and the seconds that are left.
    #[rpc(idempotent)]
    async fn who(&self, ctx: &CallContext) -> Result<(String, u64), Status>;
    /// Returns the text once it may.
    async fn wait(&self, text: String) -> Result<String, Status>;
    /// Returns what is published.
    #[rpc(idempotent)]
    async fn watch(&self) -> Result<Subscription<u32>, Status>;
    /// Counts from zero on.
    async fn count(
        &self,
        to: u32,
    ) -> Result<impl iip_rpc::Stream<Item = Result<u32, Status>>, Status>;
}

#[derive(Clone)]
struct Clerk {
    permits: Arc<Semaphore>,
    /// Has a permit for each call of `wait` that runs.
    running: Arc<Semaphore>,
    topic: Topic<u32>,
}

/// Counts a call while it runs.
struct Running(Arc<Semaphore>);

impl Running {
    fn new(running: &Arc<Semaphore>) -> Self {
        running.add_permits(1);
        Self(Arc::clone(running))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.forget_permits(1);
    }
}

impl Desk for Clerk {
    async fn who(&self, ctx: &CallContext) -> Result<(String, u64), Status> {
        let addr = ctx.peer().and_then(|peer| peer.addr());
        let addr = addr.map(|addr| addr.to_string());
        let left = ctx.remaining().unwrap_or_default();
        Ok((addr.unwrap_or_default(), left.as_secs()))
    }

    async fn wait(&self, text: String) -> Result<String, Status> {
        let _running = Running::new(&self.running);
        self.permits.acquire().await.unwrap().forget();
        Ok(text)
    }

    async fn watch(&self) -> Result<Subscription<u32>, Status> {
        Ok(self.topic.subscribe())
    }

    async fn count(
        &self,
        to: u32,
    ) -> Result<impl iip_rpc::Stream<Item = Result<u32, Status>>, Status> {
        Ok(Streaming::iter(0..to))
    }
}

impl Clerk {
    fn new() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(0)),
            running: Arc::new(Semaphore::new(0)),
            topic: Topic::new(),
        }
    }

    fn config(&self) -> ServerBuilder {
        Server::builder().service(DeskServer::new(self.clone()))
    }
}

async fn start(config: ServerBuilder) -> (Server, SocketAddr) {
    start_with(config, iip_gateway::Http::new()).await
}

async fn start_with(config: ServerBuilder, http: iip_gateway::Http) -> (Server, SocketAddr) {
    let config = config.fallback_protocol(http);
    let server = config.bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    (server, address)
}

fn call(method: &str, arguments: &Value) -> String {
    let body = arguments.to_string();
    let length = body.len();
    format!(
        "POST /test.v1.Desk/{method} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

fn parsed(reply: &Reply) -> Value {
    serde_json::from_str(&reply.body).unwrap()
}

#[tokio::test]
async fn a_method_is_called_over_iip_and_over_http_by_the_same_rules() {
    let (_server, address) = start(Clerk::new().config()).await;
    let desk = DeskClient::connect(address).await.unwrap();
    let (addr, left) = desk.who(&CallContext::new()).await.unwrap();
    assert!(addr.starts_with("127.0.0.1:") && left == 9, "{addr} {left}");

    let mut http = Http::connect(address).await;
    let own = http.stream.local_addr().unwrap().to_string();
    http.send(call("who", &json!({}))).await;
    let reply = http.reply().await;
    assert_eq!((reply.status, parsed(&reply)), (200, json!([own, 9])));
    http.send(get("/test.v1.Desk/who")).await;
    assert_eq!(parsed(&http.reply().await), json!([own, 9]));
    let timeout = "GET /test.v1.Desk/who HTTP/1.1\r\nHost: a\r\nRequest-Timeout: 3.5\r\n\r\n";
    http.send(timeout).await;
    assert_eq!(parsed(&http.reply().await), json!([own, 3]));

    http.send(call("count", &json!({"to": 2}))).await;
    let reply = within("a stream", async {
        let mut read = Vec::new();
        while !read.ends_with(b"0\r\n\r\n") {
            assert!(http.stream.read_buf(&mut read).await.unwrap() > 0);
        }
        String::from_utf8(read).unwrap()
    });
    let reply = reply.await;
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    assert!(reply.contains("\r\n0\n1\n"), "{reply}");

    for (request, status) in [
        (get("/healthz"), 200),
        (get("/openapi.json"), 200),
        (get("/docs/"), 200),
        (get("/test.v1.Desk/nobody"), 404),
        (get("/test.v1.Desk/wait"), 405),
        (post("/sys/schema/list", "{}"), 404),
    ] {
        assert_eq!(ask(address, &request).await.status, status, "{request}");
    }
}

#[tokio::test]
async fn interceptors_and_limits_apply_to_calls_over_http() {
    /// Accepts only callers that have a token.
    struct Tokens;

    impl ServerInterceptor for Tokens {
        async fn intercept(
            &self,
            call: ServerCall,
            next: Next<ServerCall>,
        ) -> Result<Completion, Status> {
            let has_address = call.peer().is_some_and(|peer| peer.addr().is_some());
            match call.metadata().get("x-token") {
                Some(token) if &token[..] == b"secret" && has_address => Ok(next.run(call).await),
                _ => Err(Status::unauthenticated("no token")),
            }
        }
    }

    let clerk = Clerk::new();
    let config = clerk.config().interceptor(Tokens);
    let policy = MethodPolicy::new().max_concurrency(Concurrency::AtMost(1));
    let config = config.method_policy("/test.v1.Desk/wait", policy);
    let options = TypedOptions::new().prefix("/api").metadata("x-token");
    let http = iip_gateway::Http::new().typed(options);
    let (_server, address) = start_with(config, http).await;
    let request = |token: &str| {
        format!(
            "POST /api/test.v1.Desk/wait HTTP/1.1\r\nHost: a\r\nX-Token: {token}\r\n\
             Content-Type: application/json\r\nContent-Length: 12\r\n\r\n{{\"text\":\"x\"}}"
        )
    };
    assert_eq!(ask(address, request("wrong")).await.status, 401);
    let mut first = Http::connect(address).await;
    first.send(request("secret")).await;
    until("the call", || clerk.running.available_permits() == 1).await;
    // Rejected at the limit, and not below it.
    let reply = ask(address, request("secret")).await;
    assert_eq!(
        (reply.status, &parsed(&reply)["executed"]),
        (429, &json!("no"))
    );
    clerk.permits.add_permits(1);
    assert_eq!(parsed(&first.reply().await), "x");
}

#[tokio::test]
async fn calls_end_when_their_time_is_over_or_their_client_has_gone() {
    let clerk = Clerk::new();
    let (server, address) = start(clerk.config()).await;
    let mut late = Http::connect(address).await;
    late.send(call("wait", &json!({"text": "x"}))).await;
    until("the call", || clerk.running.available_permits() == 1).await;
    passes(Duration::from_secs(11)).await;
    let reply = late.reply().await;
    assert_eq!(reply.status, 504, "{reply:?}");
    until("its end", || clerk.running.available_permits() == 0).await;

    let mut gone = Http::connect(address).await;
    gone.send(call("wait", &json!({"text": "x"}))).await;
    until("the call", || clerk.running.available_permits() == 1).await;
    drop(gone);
    until("its end", || clerk.running.available_permits() == 0).await;
    drop(late);
    until("no connection", || server.raw().connections() == 0).await;
}

#[tokio::test]
async fn a_shutdown_waits_for_calls_over_http_and_closes_their_connections() {
    let clerk = Clerk::new();
    let (server, address) = start(clerk.config()).await;
    let mut running = Http::connect(address).await;
    running.send(call("wait", &json!({"text": "late"}))).await;
    let mut idle = Http::connect(address).await;
    idle.send(call("who", &json!({}))).await;
    assert_eq!(idle.reply().await.status, 200);
    until("the call", || clerk.running.available_permits() == 1).await;
    let shutdown = tokio::spawn(async move { server.shutdown(10 * GUARD).await });
    assert!(idle.closed().await.is_empty());
    assert!(!shutdown.is_finished());
    clerk.permits.add_permits(1);
    let reply = running.reply().await;
    assert_eq!((reply.status, parsed(&reply)), (200, json!("late")));
    assert!(running.closed().await.is_empty());
    within("the shutdown", shutdown).await.unwrap();
}

#[tokio::test]
async fn subscriptions_over_http_end_with_the_server() {
    let clerk = Clerk::new();
    let (server, address) = start(clerk.config()).await;
    let mut http = Http::connect(address).await;
    let events = "GET /test.v1.Desk/watch HTTP/1.1\r\nHost: a\r\n\
                  Accept: text/event-stream\r\n\r\n";
    http.send(events).await;
    let mut read = Vec::new();
    within("an event", async {
        while !String::from_utf8_lossy(&read).contains("data: 7\n") {
            clerk.topic.publish(7).await;
            let reading = http.stream.read_buf(&mut read);
            let _ = tokio::time::timeout(Duration::from_millis(10), reading).await;
        }
    })
    .await;
    within("the shutdown", server.shutdown(10 * GUARD)).await;
    let rest = http.closed().await;
    assert!(rest.ends_with(b"0\r\n\r\n"), "{}", rest.escape_ascii());
}

#[tokio::test]
async fn documents_are_for_those_who_may_read_descriptions_and_calls_for_all() {
    let config = Clerk::new().config().describe(false);
    let (_hidden, address) = start(config).await;
    assert_eq!(ask(address, get("/openapi.json")).await.status, 501);
    assert_eq!(ask(address, call("who", &json!({}))).await.status, 200);
    let client = Client::connect(address).await.unwrap();
    assert!(client.describe().await.is_err());

    let config = Clerk::new().config().describe_if(|ctx| {
        let addr = ctx.peer().and_then(|peer| peer.addr());
        match addr.is_some_and(|addr| addr.ip().to_string() == "127.0.0.2") {
            true => Ok(()),
            false => Err(Status::permission_denied("another address")),
        }
    });
    let (_server, address) = start(config).await;
    for (from, status) in [
        ("127.0.0.1:0", 403),
        ("127.0.0.2:0", 200),
        ("127.0.0.1:0", 403),
    ] {
        let mut http = Http::connect_from(from, address).await;
        http.send(call("who", &json!({}))).await;
        assert_eq!(http.reply().await.status, 200);
        http.send(get("/openapi.json")).await;
        assert_eq!(http.reply().await.status, status, "{from}");
    }
}

#[tokio::test]
async fn servers_of_one_configuration_of_http_have_their_own_services() {
    #[service(name = "test.v1.Other")]
    trait Other {
        #[rpc(idempotent)]
        async fn name(&self) -> Result<String, Status>;
    }

    struct Nameless;

    impl Other for Nameless {
        async fn name(&self) -> Result<String, Status> {
            Ok("other".to_owned())
        }
    }

    let http = iip_gateway::Http::new();
    let (_desk, desk) = start_with(Clerk::new().config(), http.clone()).await;
    let config = Server::builder().service(OtherServer::new(Nameless));
    let (_other, other) = start_with(config, http).await;
    for (address, status) in [(desk, 404), (other, 200)] {
        assert_eq!(
            ask(address, get("/test.v1.Other/name")).await.status,
            status
        );
    }
}

#[tokio::test]
async fn health_that_is_not_serving_makes_the_server_not_ready() {
    use iip_rpc::{Health, HealthState};

    let health = Health::new();
    let (server, address) = start(Clerk::new().config().health(&health)).await;
    assert_eq!(ask(address, get("/readyz")).await.status, 200);
    health.set("test.v1.Desk", HealthState::NotServing);
    assert_eq!(ask(address, get("/readyz")).await.status, 200);
    health.set("", HealthState::NotServing);
    assert_eq!(ask(address, get("/readyz")).await.status, 503);
    assert_eq!(ask(address, get("/healthz")).await.status, 200);
    assert!(!server.is_ready());
    health.set("", HealthState::Serving);
    assert_eq!(ask(address, get("/readyz")).await.status, 200);
}
