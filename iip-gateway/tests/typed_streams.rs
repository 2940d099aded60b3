//! Streams of typed services: events, lines, and request bodies of lines.

use std::sync::atomic::Ordering;
use std::time::Duration;

use iip_gateway::{Gateway, Group, LogFormat, Route, TypedOptions};

use crate::common::{GUARD, Http, LogLines, all_run, ask, bound, passes, within};
use crate::shop::{Order, Shop, call, problem};

const EVENTS: &str = "Accept: text/event-stream\r\n";

fn order(id: u64) -> Order {
    Order { id, note: None }
}

/// Returns the text of a GET request for a stream of events.
fn events(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n{EVENTS}{headers}\r\n")
}

#[tokio::test]
async fn a_stream_is_lines_of_json() {
    let shop = Shop::new().await;
    let reply = ask(
        shop.address,
        call("list", "", r#"{"count":2,"then":"end"}"#),
    )
    .await;
    assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(
        reply.body,
        "{\"id\":0,\"note\":null}\n{\"id\":1,\"note\":null}\n"
    );
    let empty = ask(
        shop.address,
        call("list", "", r#"{"count":0,"then":"end"}"#),
    )
    .await;
    assert_eq!((empty.status, &*empty.body), (200, ""));
    let html = call(
        "list",
        "Accept: text/html\r\n",
        r#"{"count":2,"then":"end"}"#,
    );
    assert_eq!(ask(shop.address, html).await.status, 406);
}

#[tokio::test]
async fn a_stream_is_events_if_they_are_asked_for() {
    let shop = Shop::new().await;
    let target = "/shop.v1.Orders/list?count=2&then=end";
    let reply = ask(shop.address, events(target, "")).await;
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache"),
        ("x-accel-buffering", "no"),
    ] {
        assert_eq!(reply.header(name), Some(value));
    }
    assert_eq!(
        reply.body,
        "data: {\"id\":0,\"note\":null}\n\ndata: {\"id\":1,\"note\":null}\n\n\
         event: end\ndata: null\n\n"
    );
}

#[tokio::test]
async fn an_error_before_the_first_item_is_a_status_and_a_later_one_ends_the_stream() {
    let shop = Shop::new().await;
    for args in [
        r#"{"count":0,"then":"refuse"}"#,
        r#"{"count":0,"then":"fail"}"#,
    ] {
        for accept in ["", EVENTS] {
            let reply = ask(shop.address, call("list", accept, args)).await;
            assert_eq!(reply.status, 500, "{args}");
            assert_eq!(problem(&reply)["variant"], "SoldOut");
        }
    }
    let args = r#"{"count":1,"then":"fail"}"#;
    let lines = ask(shop.address, call("list", "", args)).await;
    assert_eq!(lines.status, 200);
    let last = lines.body.lines().last().unwrap();
    let last: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["error"]["error"]["SoldOut"]["until"], 2);
    assert_eq!(
        (&last["error"]["status"], &last["error"]["executed"]),
        (&500.into(), &"yes".into())
    );
    let reply = ask(shop.address, call("list", EVENTS, args)).await;
    assert!(
        reply
            .body
            .contains("\n\nevent: error\ndata: {\"code\":\"UNKNOWN\""),
        "{}",
        reply.body
    );
    assert!(!reply.body.contains("event: end"));
}

#[tokio::test]
async fn the_head_does_not_wait_long_for_the_first_item() {
    let shop = Shop::new().await;
    let mut http = Http::connect(shop.address).await;
    http.send(events("/shop.v1.Orders/watch", "")).await;
    let head = http.try_head().await.unwrap();
    assert_eq!(head.status, 200);
    // The position, for a client that is cut off before the first value.
    assert!(http.chunk().await.unwrap().starts_with("id: "));
    passes(Duration::from_secs(15)).await;
    assert_eq!(http.chunk().await.unwrap(), ":\n\n");
    passes(Duration::from_secs(100)).await;
    assert_eq!(http.chunk().await.unwrap(), ":\n\n");
    shop.seen.topic.publish(order(1)).await;
    assert!(http.chunk().await.unwrap().contains("data: {\"id\":1"));
}

/// Returns the `id` of the last event in a text.
fn last_id(text: &str) -> &str {
    let mut ids = text.lines().filter_map(|line| line.strip_prefix("id: "));
    ids.next_back().expect("an id")
}

#[tokio::test]
async fn a_subscription_goes_on_after_the_last_event_when_its_connection_was_cut() {
    let shop = Shop::new().await;
    let topic = &shop.seen.topic;
    let mut http = Http::connect(shop.address).await;
    http.send(events("/shop.v1.Orders/watch", "")).await;
    let begin = http.try_head().await.unwrap();
    assert_eq!(begin.status, 200);
    let begin = http.chunk().await.unwrap();
    for id in 1..=3 {
        topic.publish(order(id)).await;
    }
    let seen = http.chunks_until("\"id\":2").await;
    let seen = &seen[..seen.find("\"id\":2").unwrap()];
    let position = last_id(seen).to_owned();
    drop(http);
    topic.publish(order(4)).await;

    // Cut off before the first value, or after some.
    for (id, first) in [(last_id(&begin), 1), (&*position, 3)] {
        let mut http = Http::connect(shop.address).await;
        let header = format!("Last-Event-ID: {id}\r\n");
        http.send(events("/shop.v1.Orders/watch", &header)).await;
        http.try_head().await.unwrap();
        let text = http.chunks_until("\"id\":4").await;
        let expected: Vec<String> = (first..=4)
            .map(|id| format!("data: {{\"id\":{id},"))
            .collect();
        let data: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("data: "))
            .collect();
        assert_eq!(data.len(), expected.len(), "{text}");
        for (data, expected) in data.iter().zip(&expected) {
            assert!(data.starts_with(expected), "{text}");
        }
    }
}

#[tokio::test]
async fn values_that_are_missing_are_an_event_of_their_own() {
    let shop = Shop::new().await;
    let header = "Last-Event-ID: 1.1\r\n";
    let mut http = Http::connect(shop.address).await;
    http.send(events("/shop.v1.Orders/watch", header)).await;
    http.try_head().await.unwrap();
    let text = http.chunks_until("event: gap").await;
    assert!(
        text.contains("event: gap\ndata: {\"missed\":null}\n\n"),
        "{text}"
    );
    let mut http = Http::connect(shop.address).await;
    http.send(events("/shop.v1.Orders/watch", header).replace(EVENTS, ""))
        .await;
    http.try_head().await.unwrap();
    assert_eq!(http.chunk().await.unwrap(), "{\"gap\":{\"missed\":null}}\n");
    let wrong = events("/shop.v1.Orders/watch", "Last-Event-ID: 17\r\n");
    assert_eq!(ask(shop.address, wrong).await.status, 400);
}

#[tokio::test]
async fn a_reader_that_stops_holds_up_the_backend() {
    const MANY: usize = 1_000_000;
    let shop = Shop::new().await;
    let mut http = Http::connect(shop.address).await;
    http.send(call("list", "", r#"{"count":100000000,"then":"end"}"#))
        .await;
    http.try_head().await.unwrap();
    // The stream stops once every buffer in between is full.
    let (mut listed, mut same) = (0, 0);
    within("the backend to stop", async {
        while same < 50 && listed < MANY {
            all_run().await;
            let now = shop.seen.listed.load(Ordering::SeqCst);
            same = if now == listed && now > 0 {
                same + 1
            } else {
                0
            };
            listed = now;
        }
    })
    .await;
    // 20 bytes each: the buffers of two sockets, of hyper, and the window of the stream.
    assert!(listed < MANY, "{listed}");
    drop(http);
    shop.until_running(0).await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_stream() {
    let shop = Shop::new().await;
    let mut http = Http::connect(shop.address).await;
    http.send(call("list", EVENTS, r#"{"count":1,"then":"wait"}"#))
        .await;
    http.try_head().await.unwrap();
    http.chunks_until("data: ").await;
    shop.until_running(1).await;
    drop(http);
    shop.until_running(0).await;
}

fn chunked(method: &str, body: &[&str]) -> String {
    let mut request = format!(
        "POST /shop.v1.Orders/{method} HTTP/1.1\r\nHost: a\r\n\
         Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    for chunk in body {
        request += &format!("{:x}\r\n{chunk}\r\n", chunk.len());
    }
    request + "0\r\n\r\n"
}

#[tokio::test]
async fn lines_of_a_body_are_messages() {
    let shop = Shop::new().await;
    let request = chunked("sum", &["{\"factor\"", ":10}\n1\n2", "0\r\n\n", " 3 \n4"]);
    let reply = ask(shop.address, request).await;
    assert_eq!((reply.status, &*reply.body), (200, "280"));
    for (body, status, detail) in [
        (&[][..], 400, "the arguments, is missing"),
        (&["{\"factor\":1}\n1\n{\n"], 400, "line 3: "),
        (&["{\"factor\":1}\n\"x\"\n"], 400, "invalid type"),
        (&["{\"factor\":\"x\"}\n1\n"], 400, "factor"),
    ] {
        let reply = ask(shop.address, chunked("sum", body)).await;
        assert_eq!(reply.status, status, "{body:?}: {}", reply.body);
        let problem = problem(&reply);
        assert!(
            problem["detail"].as_str().unwrap().contains(detail),
            "{problem}"
        );
    }
    let json = chunked("sum", &["{}"]).replace("x-ndjson", "json");
    assert_eq!(ask(shop.address, json).await.status, 415);
}

#[tokio::test]
async fn lines_and_streams_of_clients_have_limits() {
    let options = TypedOptions::new()
        .max_line_bytes(100)
        .max_stream_bytes(1_000);
    let shop = Shop::with(options).await;
    let arguments = "{\"factor\":1}\n";
    let line = "1".repeat(200);
    let long = format!("1\n{line}\n1\n");
    for body in [
        &[arguments, &long][..],
        &[arguments, &line],
        &[arguments, &line[..90], &line[..90]],
    ] {
        let reply = ask(shop.address, chunked("sum", body)).await;
        assert_eq!(reply.status, 413);
        assert!(reply.body.contains("max_line_bytes"), "{}", reply.body);
    }
    let many = "1\n".repeat(20);
    let body: Vec<&str> = std::iter::once(arguments).chain([&*many; 30]).collect();
    let reply = ask(shop.address, chunked("sum", &body)).await;
    assert_eq!(reply.status, 413);
    assert!(reply.body.contains("max_stream_bytes"), "{}", reply.body);
}

#[tokio::test]
async fn both_directions_are_refused_in_http1() {
    let shop = Shop::new().await;
    let reply = ask(shop.address, chunked("doubled", &["1\n"])).await;
    assert_eq!(reply.status, 505);
    assert!(reply.body.contains("HTTP/2"), "{}", reply.body);
}

#[tokio::test]
async fn a_shutdown_interrupts_subscriptions_and_waits_for_other_streams() {
    let shop = Shop::new().await;
    let mut watching = Http::connect(shop.address).await;
    watching.send(events("/shop.v1.Orders/watch", "")).await;
    watching.try_head().await.unwrap();
    let mut lines = Http::connect(shop.address).await;
    lines.send(call("watch", "", "{}")).await;
    lines.try_head().await.unwrap();
    let mut listing = Http::connect(shop.address).await;
    listing
        .send(call("list", EVENTS, r#"{"count":1,"then":"wait"}"#))
        .await;
    listing.try_head().await.unwrap();

    let gateway = shop.gateway.clone();
    let ended = tokio::spawn(async move { gateway.shutdown(GUARD).await });
    let text = String::from_utf8(watching.closed().await).unwrap();
    assert!(!text.contains("event:"), "{text}");
    let text = String::from_utf8(lines.closed().await).unwrap();
    assert!(
        text.contains("{\"error\":{\"code\":\"UNAVAILABLE\""),
        "{text}"
    );
    shop.until_running(1).await;
    assert!(!ended.is_finished());
    drop(listing);
    assert!(within("the end", ended).await.unwrap());
}

#[tokio::test]
async fn the_log_has_the_sizes_of_streams() {
    let shop = Shop::new().await;
    let lines = LogLines::default();
    let log = lines.log(LogFormat::Json);
    let group = Group::new(shop.server.target()).typed(TypedOptions::new());
    let builder = Gateway::builder()
        .group("shop", group)
        .route(Route::all("shop"));
    let (gateway, address) = bound(builder.access_log(log)).await;
    let listed = ask(address, call("list", "", r#"{"count":1000,"then":"end"}"#)).await;
    let summed = chunked("sum", &["{\"factor\":1}\n", "1\n2\n"]);
    assert_eq!(ask(address, summed).await.body, "3");
    gateway.shutdown(Duration::from_secs(10)).await;
    let lines = lines.json(2).await;
    let sizes: Vec<_> = lines
        .iter()
        .map(|line| (&line["received"], &line["sent"]))
        .collect();
    assert_eq!(
        sizes,
        [
            (&27.into(), &listed.body.len().into()),
            (&17.into(), &1.into())
        ]
    );
}
