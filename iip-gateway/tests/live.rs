//! The live page: its replies, who may see it, and its events.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use iip_core::balance::BalanceOptions;
use iip_core::{
    Client, Handler, HandlerError, HandlerFuture, Request, Response, Server, ServerBuilder,
    handler_fn,
};
use iip_gateway::live::LivePage;
use serde_json::Value;

use crate::common::{Backend, Http, Reply, all_run, ask, before, passes, within};

const HTML: &str = "text/html,application/xhtml+xml";

fn config() -> ServerBuilder {
    let echo = handler_fn(|request: Request| async move {
        Ok::<_, HandlerError>(Response::from(request.into_body()))
    });
    let fail = handler_fn(|_| async { Err::<Response, _>(HandlerError::new("boom")) });
    Server::builder()
        .route("/Echo/echo", echo)
        .route("/Echo/fail", fail)
}

async fn server() -> Server {
    config().bind("127.0.0.1:0").await.unwrap()
}

async fn listen(page: LivePage) -> SocketAddr {
    page.listen("127.0.0.1:0").await.unwrap()
}

fn accepting(target: &str, accept: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n")
}

fn get(target: &str) -> String {
    accepting(target, "*/*")
}

async fn json(address: SocketAddr) -> Value {
    let reply = ask(address, accepting("/live", "application/json")).await;
    assert_eq!(reply.status, 200);
    serde_json::from_str(&reply.body).unwrap()
}

/// Lets a number of seconds pass; the page reads its sources in each.
async fn seconds(count: u32) {
    for _ in 0..count {
        all_run().await;
        passes(Duration::from_secs(1)).await;
    }
    all_run().await;
}

#[tokio::test]
async fn a_browser_gets_the_page_curl_a_text_and_scripts_the_numbers() {
    let server = server().await;
    let address = listen(
        LivePage::new("shop")
            .version("1.2")
            .server("orders", &server),
    )
    .await;

    let page = ask(address, accepting("/live", HTML)).await;
    assert_eq!(page.status, 200);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(page.body.starts_with("<!doctype html>"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));

    let text = ask(address, accepting("/live", "*/*")).await;
    assert_eq!(
        text.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert!(
        text.body.starts_with("shop (version 1.2, process "),
        "{}",
        text.body
    );
    assert!(
        text.body.contains("\nok: Nothing is wrong"),
        "{}",
        text.body
    );

    let numbers = json(address).await;
    assert_eq!(
        (&numbers["format"], &numbers["name"]),
        (&1.into(), &"shop".into())
    );
    assert_eq!(numbers["sources"][0]["kind"], "server");

    let root = ask(address, get("/")).await;
    assert_eq!((root.status, root.header("location")), (307, Some("/live")));
    assert_eq!(ask(address, get("/live/other")).await.status, 404);
}

#[tokio::test]
async fn calls_are_counted_and_drawn() {
    let server = server().await;
    let client = Client::connect(server.target()).await.unwrap();
    let page = LivePage::new("shop")
        .server("orders", &server)
        .client("self", &client);
    let address = listen(page).await;
    seconds(2).await;
    for _ in 0..20 {
        client.request("/Echo/echo", "hello").await.unwrap();
    }
    client.request("/Echo/fail", "hello").await.unwrap();
    seconds(2).await;

    let numbers = json(address).await;
    let methods = numbers["methods"].as_array().unwrap();
    let of = |source: usize, name: &str| {
        let method = methods
            .iter()
            .find(|row| row["source"] == source && row["name"] == name);
        method
            .unwrap_or_else(|| panic!("{name} is missing: {methods:?}"))
            .clone()
    };
    for source in [0, 1] {
        let echo = of(source, "Echo/echo");
        assert_eq!(echo["calls"], 20);
        assert!(echo["rate"].as_f64().unwrap() > 1.0, "{echo}");
        assert!(echo["p99"].as_u64().unwrap() > 0, "{echo}");
        let drawn: u64 = echo["curve"]["rate"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_u64)
            .sum();
        assert_eq!(drawn, 20, "{echo}");
    }
    let fail = of(0, "Echo/fail");
    assert_eq!(
        (&fail["failed"], &fail["codes"]["UNKNOWN"].is_number()),
        (&1.into(), &true)
    );
    assert_eq!(
        numbers["verdict"]["level"], "warning",
        "{}",
        numbers["verdict"]
    );
    let call = &numbers["calls"][0];
    assert_eq!(
        (&call["method"], &call["text"]),
        (&"Echo/fail".into(), &"boom".into())
    );
    let connection = &numbers["connections"]["listed"][0];
    assert!(connection["received"].as_u64().unwrap() > 0, "{connection}");

    let curves = ask(
        address,
        get(&format!("/live/history?method={}", fail["id"])),
    )
    .await;
    let curves: Value = serde_json::from_str(&curves.body).unwrap();
    let errors = curves["seconds"]["errors"].as_array().unwrap();
    assert_eq!(errors.iter().filter_map(Value::as_f64).sum::<f64>(), 1.0);
    let without = ask(address, accepting("/live?curves=false", "application/json")).await;
    let without: Value = serde_json::from_str(&without.body).unwrap();
    assert_eq!(without["methods"].as_array().unwrap().len(), methods.len());
    let has_curve = |row: &Value| row.get("curve").or_else(|| row.get("seconds")).is_some();
    for rows in [&without["methods"], &without["totals"]] {
        assert!(!rows.as_array().unwrap().iter().any(has_curve), "{rows}");
    }
    for (query, status) in [("method=99999", 404), ("method=x", 400), ("", 400)] {
        let reply = ask(address, get(&format!("/live/history?{query}"))).await;
        assert_eq!(reply.status, status, "{query}");
    }
}

/// A handler with a limit.
struct Limited;

impl Handler for Limited {
    fn call(&self, request: Request) -> HandlerFuture {
        Box::pin(async move { Ok(request.into_body().into()) })
    }

    fn max_concurrency(&self) -> Option<u32> {
        Some(7)
    }
}

#[tokio::test]
async fn limits_of_methods_and_round_trips_of_connections_are_shown() {
    let server = config().route("/Echo/limited", Limited);
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let client = Client::builder().hello(serde_json::json!({}));
    let client = client.connect(server.target()).await.unwrap();
    for path in ["/Echo/echo", "/Echo/limited"] {
        client.request(path, "hello").await.unwrap();
    }
    let address = listen(LivePage::new("shop").server("orders", &server)).await;
    seconds(1).await;
    let numbers = json(address).await;
    let limit = |index: usize| {
        let method = &numbers["methods"][index];
        (method["name"].as_str().unwrap(), method["limit"].as_u64())
    };
    assert_eq!(
        [limit(0), limit(1)],
        [("Echo/echo", None), ("Echo/limited", Some(7))]
    );
    let connection = &numbers["connections"]["listed"][0];
    assert!(connection["rtt"].is_u64(), "{connection}");
    assert_eq!(connection["credit_stalls"], 0);
    let text = ask(address, get("/live")).await.body;
    assert!(text.contains(" 0/7\n"), "{text}");
    let head = text
        .lines()
        .find(|line| line.starts_with("  peer "))
        .unwrap();
    assert!(head.contains(" rtt   stalls"), "{head}");
}

#[tokio::test]
async fn other_machines_must_be_let_in() {
    let server = server().await;
    let page = || LivePage::new("shop").server("orders", &server);
    let error = page().listen("0.0.0.0:0").await.unwrap_err().to_string();
    assert!(error.contains("option allow"), "{error}");
    let page = page().allow(|client| client.header("x-operator").is_some());
    let address = page.listen("0.0.0.0:0").await.unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], address.port()));
    for path in ["/live", "/live/events", "/live/history?method=1", "/"] {
        assert_eq!(ask(address, get(path)).await.status, 403, "{path}");
    }
    let request = "GET /live HTTP/1.1\r\nHost: localhost\r\nX-Operator: a\r\n\r\n";
    assert_eq!(ask(address, request).await.status, 200);
}

#[tokio::test]
async fn names_of_other_sites_are_refused() {
    let server = server().await;
    let page = LivePage::new("shop")
        .server("orders", &server)
        .host("orders.internal");
    let address = listen(page).await;
    for (host, status) in [
        ("localhost", 200),
        ("localhost:9000", 200),
        ("127.0.0.1:9000", 200),
        ("[::1]", 200),
        ("orders.internal:80", 200),
        ("attacker.example", 421),
        ("localhost.attacker.example", 421),
        ("127.0.0.1.attacker.example", 421),
    ] {
        let request = format!("GET /live HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(ask(address, request).await.status, status, "{host}");
    }
}

fn drain(headers: &str) -> String {
    format!("POST /live/drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n{headers}\r\n")
}

#[tokio::test]
async fn draining_needs_the_token_and_the_own_origin_and_happens_once() {
    let server = server().await;
    let plain = listen(LivePage::new("shop").server("orders", &server)).await;
    assert_eq!(json(plain).await["drain"]["available"], false);
    assert_eq!(ask(plain, drain("X-Live-Token: a\r\n")).await.status, 404);

    let drains = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&drains);
    let page = LivePage::new("shop")
        .server("orders", &server)
        .on_drain(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
    let address = listen(page).await;
    let numbers = json(address).await;
    let token = numbers["drain"]["token"].as_str().unwrap().to_owned();
    let good = format!("X-Live-Token: {token}\r\n");
    for (headers, status) in [
        (String::new(), 403),
        ("X-Live-Token: 0000\r\n".to_owned(), 403),
        (format!("{good}Origin: http://attacker.example\r\n"), 403),
        (format!("{good}Origin: null\r\n"), 403),
    ] {
        assert_eq!(
            ask(address, drain(&headers)).await.status,
            status,
            "{headers}"
        );
    }
    assert_eq!(ask(address, get("/live/drain")).await.status, 405);
    assert_eq!(drains.load(Ordering::Relaxed), 0);
    for _ in 0..2 {
        let headers = format!("{good}Origin: http://localhost\r\n");
        assert_eq!(ask(address, drain(&headers)).await.status, 202);
    }
    assert_eq!(drains.load(Ordering::Relaxed), 1);
    seconds(1).await;
    let numbers = json(address).await;
    assert_eq!(numbers["verdict"]["level"], "warning");
    assert_eq!(numbers["drain"]["draining"], true);
}

/// A viewer of events.
struct Viewer {
    http: Http,
    read: String,
}

impl Viewer {
    async fn new(address: SocketAddr) -> Self {
        let mut http = Http::connect(address).await;
        http.send(accepting("/live/events", "text/event-stream"))
            .await;
        let mut this = Self {
            http,
            read: String::new(),
        };
        let head = this.until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("text/event-stream"), "{head}");
        this
    }

    /// Returns the bytes that arrive up to `mark`.
    async fn until(&mut self, mark: &str) -> String {
        use tokio::io::AsyncReadExt;
        within("a part of the events", async {
            loop {
                if let Some(at) = self.read.find(mark) {
                    let rest = self.read.split_off(at + mark.len());
                    return std::mem::replace(&mut self.read, rest);
                }
                let mut part = [0; 4096];
                let count = self.http.stream.read(&mut part).await.unwrap();
                assert!(count > 0, "the stream has ended: {}", self.read);
                self.read
                    .push_str(std::str::from_utf8(&part[..count]).unwrap());
            }
        })
        .await
    }

    /// Returns the next event: its name and its value.
    async fn event(&mut self) -> (String, Value) {
        self.until("event: ").await;
        let name = self.until("\n").await.trim().to_owned();
        self.until("data: ").await;
        // The events are in chunks of HTTP, whose sizes come between them and not within them.
        let value = self.until("\n\n").await;
        (name, serde_json::from_str(&value).unwrap())
    }
}

#[tokio::test]
async fn a_viewer_gets_a_snapshot_and_then_what_changes() {
    let server = server().await;
    let client = Client::connect(server.target()).await.unwrap();
    let address = listen(LivePage::new("shop").server("orders", &server)).await;
    seconds(1).await;
    let mut viewer = Viewer::new(address).await;
    let (name, snapshot) = viewer.event().await;
    assert_eq!(
        (&*name, snapshot["methods"].as_array().unwrap().len()),
        ("snapshot", 0)
    );
    client.request("/Echo/echo", "hello").await.unwrap();
    seconds(1).await;
    let (name, tick) = viewer.event().await;
    assert_eq!(name, "tick");
    assert_eq!(tick["methods"][0]["name"], "Echo/echo");
    assert_eq!(tick["methods"][0]["second"][0], 1);
    // The average of the last seconds falls, but the counts do not change.
    seconds(1).await;
    let (_, tick) = viewer.event().await;
    assert_eq!(tick["methods"][0]["calls"], 1);
    client.close(Duration::ZERO).await;
    seconds(2).await;
    let (_, one) = viewer.event().await;
    let (_, other) = viewer.event().await;
    let gone = |tick: &Value| tick["connections"]["gone"].as_array().unwrap().len();
    assert_eq!(gone(&one) + gone(&other), 1, "{one} {other}");
}

#[tokio::test]
async fn viewers_have_places_and_give_them_back() {
    let server = server().await;
    let address = listen(
        LivePage::new("shop")
            .server("orders", &server)
            .max_viewers(2),
    )
    .await;
    let (_one, two) = (Viewer::new(address).await, Viewer::new(address).await);
    let events = || ask(address, get("/live/events"));
    let refused: Reply = events().await;
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("5"))
    );
    assert!(
        refused.body.contains("option max_viewers"),
        "{}",
        refused.body
    );
    drop(two);
    within("a free place", async {
        loop {
            seconds(1).await;
            let mut http = Http::connect(address).await;
            http.send(get("/live/events")).await;
            let mut head = [0; 12];
            tokio::io::AsyncReadExt::read_exact(&mut http.stream, &mut head)
                .await
                .unwrap();
            if head == *b"HTTP/1.1 200" {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn backends_are_shown_with_their_states() {
    let one = server().await;
    let target = format!("static:{},127.0.0.1:1", one.target());
    let client = Client::builder()
        .balance(BalanceOptions::new())
        .connect(target.as_str())
        .await
        .unwrap();
    let address = listen(LivePage::new("shop").client("orders", &client)).await;
    within("the other to be down", async {
        loop {
            client.request("/Echo/echo", "hello").await.unwrap();
            seconds(1).await;
            let numbers = json(address).await;
            let backends = numbers["backends"].as_array().unwrap();
            assert_eq!(backends.len(), 2);
            let down = backends
                .iter()
                .find(|backend| backend["address"] == "127.0.0.1:1")
                .unwrap();
            if down["state"] == "down" {
                assert_eq!(down["reasons"][0], "it refuses connections");
                assert_eq!(
                    numbers["verdict"]["text"],
                    "1 of 2 backends of client orders get no calls"
                );
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn the_groups_of_a_gateway_are_shown() {
    let backend = Backend::new().await;
    let gateway = before(&backend).build().unwrap();
    let http = gateway.bind("127.0.0.1:0").await.unwrap();
    let address = listen(LivePage::new("edge").gateway(&gateway)).await;
    seconds(1).await;
    assert_eq!(ask(http, get("/hdr")).await.status, 200);
    seconds(1).await;
    let numbers = json(address).await;
    assert_eq!(
        (
            &numbers["sources"][0]["name"],
            &numbers["methods"][0]["calls"]
        ),
        (&"go".into(), &1.into())
    );
}

#[tokio::test]
async fn a_server_shows_the_page_on_its_own_port_and_ends_in_spite_of_viewers() {
    let page = LivePage::new("shop")
        .allow(|client| client.addr.is_some())
        .start();
    let http = iip_gateway::Http::new().live(&page);
    let server = config()
        .fallback_protocol(http)
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    page.add_server("orders", &server);
    let address = server.local_addr().unwrap();
    seconds(1).await;
    assert_eq!(json(address).await["sources"][0]["name"], "orders");
    assert_eq!(ask(address, get("/other")).await.status, 404);
    let mut viewer = Viewer::new(address).await;
    viewer.event().await;
    within(
        "the end of the server",
        server.shutdown(Duration::from_secs(1000)),
    )
    .await;

    let page = LivePage::new("shop").start();
    let http = iip_gateway::Http::new().live(&page);
    let error = config()
        .fallback_protocol(http)
        .bind("127.0.0.1:0")
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("LivePage::allow"), "{error}");
}

#[tokio::test]
async fn requests_that_no_backend_replies_to_are_listed_without_their_arguments() {
    let gateway = iip_gateway::Gateway::builder()
        .group("gone", iip_gateway::Group::new("127.0.0.1:1"))
        .route(iip_gateway::Route::all("gone"));
    let (gateway, http) = gateway.bind("127.0.0.1:0").await.unwrap();
    let address = listen(LivePage::new("edge").gateway(&gateway)).await;
    assert_eq!(ask(http, get("/orders?secret=1")).await.status, 503);
    seconds(1).await;
    let numbers = json(address).await;
    let call = &numbers["calls"][0];
    let named = (&call["method"], &call["code"]);
    assert_eq!(named, (&"orders".into(), &"UNAVAILABLE".into()), "{call}");
    assert!(!call.to_string().contains("secret"), "{call}");
}
