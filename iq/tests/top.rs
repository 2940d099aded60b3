//! `iq top` without a terminal.

use std::net::SocketAddr;
use std::process::Stdio;

use iip_core::{HandlerError, Request, Response, handler_fn};
use iip_gateway::live::LivePage;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::common::{Fixture, GUARD, Home, iq};

async fn page_of(shop: &Fixture) -> SocketAddr {
    let page = LivePage::new("shop").version("1.2");
    let page = page.server("orders", shop.server.raw());
    page.listen("127.0.0.1:0").await.unwrap()
}

async fn find(shop: &Fixture, count: usize) {
    for _ in 0..count {
        let id = ["call", &*shop.target, "shop.Orders.find", "id=7"];
        iq(&id).await.data();
    }
}

#[tokio::test]
async fn a_live_page_is_printed_as_text() {
    let shop = Fixture::new().await;
    let page = page_of(&shop).await;
    find(&shop, 1).await;
    // The page reads its sources every second.
    let url = format!("http://{page}");
    let text = tokio::time::timeout(GUARD, async {
        loop {
            let text = iq(&["top", &url]).await.data();
            if text.contains("\nmethods (") {
                return text;
            }
        }
    });
    let text = text.await.expect("the call in time");
    assert!(text.starts_with("shop (version 1.2, process "), "{text}");
    assert!(text.contains("\nok: Nothing is wrong: "), "{text}");
    assert!(text.contains("\n  shop.Orders/find"), "{text}");
    assert!(
        text.contains("\n  127.0.0.1:") || !text.contains("connections ("),
        "{text}"
    );
}

#[tokio::test]
async fn an_object_is_printed_for_each_interval() {
    let shop = Fixture::new().await;
    let page = page_of(&shop).await;
    let url = format!("http://{page}/live");
    let home = Home::new();
    let mut command = home.command();
    command.args(["top", &url, "--json", "--interval", "250ms"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let line = tokio::time::timeout(GUARD, lines.next_line()).await;
        let line = line.expect("a line in time").unwrap().unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&line["type"], &line["name"]),
            (&"top".into(), &"shop".into())
        );
        assert_eq!(line["verdict"]["level"], "ok", "{line}");
    }
    let error = iq(&["top", &url, "--interval", "10ms"]).await.failed(2);
    assert!(error.contains("at least 250ms"), "{error}");
}

#[tokio::test]
async fn a_server_without_a_live_page_tells_of_itself() {
    let shop = Fixture::with(|server| server.statistics(|_| true)).await;
    find(&shop, 3).await;
    let missing = ["call", &*shop.target, "shop.Orders.find", "id=0"];
    iq(&missing).await.failed(64 + 5);
    let once = ["top", &*shop.target, "--once", "--interval", "250ms"];
    let text = iq(&once).await.data();
    assert!(text.contains("\nok: Nothing is wrong: "), "{text}");
    assert!(text.contains("\nslow and failed calls (1)\n"), "{text}");
    assert!(text.contains("no order 0"), "{text}");
    assert!(text.contains("\nconnections (1)\n"), "{text}");
    let json = iq(&[&once[..], &["--json"]].concat()).await.json();
    assert_eq!(json.len(), 1);
    let methods = json[0]["methods"].as_array().unwrap();
    let find = methods.iter().find(|row| row["name"] == "shop.Orders/find");
    let find = find.expect("it was called");
    assert_eq!((&find["calls"], &find["errors"]), (&4.into(), &0.0.into()));

    let text = iq(&["top", &shop.target, "--interval", "1h"]).await.data();
    assert!(text.contains("\nok: Nothing is wrong: "), "{text}");

    shop.health.shut_down();
    let text = iq(&once).await.data();
    assert!(text.contains("\nWARNING: Not ready"), "{text}");
}

#[tokio::test]
async fn calls_between_two_readings_have_rates_and_quantiles() {
    let shop = Fixture::with(|server| server.statistics(|_| true)).await;
    let home = Home::new();
    let mut command = home.command();
    command.args(["top", &shop.target, "--json", "--interval", "250ms"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next_line().await.unwrap();
    find(&shop, 1).await;
    let found = tokio::time::timeout(GUARD, async {
        loop {
            let line = lines.next_line().await.unwrap().unwrap();
            let line: Value = serde_json::from_str(&line).unwrap();
            let methods = line["methods"].as_array().unwrap();
            let find = methods.iter().find(|row| row["name"] == "shop.Orders/find");
            if let Some(find) = find {
                return find.clone();
            }
        }
    });
    let find = found.await.expect("the call in time");
    assert!(find["rate"].as_f64() > Some(0.0), "{find}");
    assert!(find["p99"].as_f64() > Some(0.0), "{find}");
}

/// Starts a server with the statistics of a Go server.
async fn like_go() -> iip_core::Server {
    let report = "total count: {}\ntotal measure: \n\n\
                  5 minute requests     : 2, average duration: 1500\n\
                  all requests          : 4, average duration: 2000\n---\n\
                  /echo count: {}\n/echo measure: \n\n\
                  5 minute requests     : 2, average duration: 1500\n\
                  all requests          : 4, average duration: 2000\n";
    let connections = r#"{"127.0.0.1:5": {"WriteQueue": 7, "Count": {"BytesSent": 2048}}}"#;
    let reply = |text: &'static str| {
        handler_fn(move |_: Request| async move { Ok::<_, HandlerError>(Response::from(text)) })
    };
    let server = iip_core::Server::builder()
        .route("/sys/statis", reply(report))
        .route("/sys/connection_statis", reply(connections));
    server.bind("127.0.0.1:0").await.unwrap()
}

#[tokio::test]
async fn a_server_of_go_tells_rates_and_mean_times() {
    let server = like_go().await;
    let once = ["top", server.target(), "--interval", "1h"];
    let text = iq(&once).await.data();
    assert!(text.contains("\nok: The server replies; "), "{text}");
    let row = text
        .lines()
        .find(|line| line.trim_start().starts_with("echo"));
    let row: Vec<&str> = row.expect(&text).split_whitespace().skip(3).collect();
    assert_eq!(row, ["0.0", "1.5µs", "4"], "{text}");
    let row = text.lines().find(|line| line.contains("127.0.0.1:5 "));
    assert!(
        row.is_some_and(|row| row.contains("2.0 KiB ") && row.ends_with(" 7 B")),
        "{text}"
    );
}

#[tokio::test]
async fn what_cannot_be_watched_is_said_at_once() {
    let shop = Fixture::new().await;
    let error = iq(&["top", &shop.target]).await.failed(64 + 12);
    assert!(error.contains("ServerBuilder::statistics"), "{error}");
    assert!(error.contains("iq top http://"), "{error}");
    let several = format!("static:{0},{0}", shop.target);
    assert!(iq(&["top", &several]).await.failed(2).contains("name one"));
    let error = iq(&["top", "http://127.0.0.1:1"]).await.failed(3);
    assert!(error.contains("127.0.0.1:1: "), "{error}");
    let page = page_of(&shop).await;
    let error = iq(&["top", &format!("http://{page}/other")]).await;
    let expected =
        format!("http://{page}/other is not a live page: HTTP status 404: there is only");
    let error = error.failed(64 + 12);
    assert!(error.contains(&expected), "{error}");
    let html = replying("404 Not Found", "<!DOCTYPE HTML>\n<p>Nothing").await;
    let not_http = [
        shop.target.clone(),
        replying_with("garbage\r\n\r\n").await.to_string(),
    ];
    for command in ["top", "drain"] {
        let error = iq(&[command, &format!("http://{html}")]).await;
        let error = error.failed(64 + 12);
        let expected = format!("http://{html}/live is not a live page: HTTP status 404\n");
        assert!(error.ends_with(&expected), "{error}");
        for address in &not_http {
            let error = iq(&[command, &format!("http://{address}")]).await.failed(3);
            let expected = format!("{address} does not reply in HTTP, as a live page does: ");
            assert!(error.contains(&expected), "{error}");
        }
    }
    let error = iq(&["list", &format!("http://{page}")]).await.failed(2);
    assert!(error.contains("only top and drain"), "{error}");
    let error = iq(&["top", &format!("http://{page}"), "--tls"]).await;
    assert!(error.failed(2).contains("https://"));
}

#[tokio::test]
async fn a_page_that_wants_a_password_gets_it_as_a_header() {
    let page = LivePage::new("secret");
    let page = page.allow(|client| client.header("authorization") == Some("Bearer x"));
    let page = page.listen("127.0.0.1:0").await.unwrap();
    let url = format!("http://{page}");
    let error = iq(&["top", &url]).await.failed(64 + 7);
    assert!(error.contains("you may not see"), "{error}");
    let text = iq(&["top", &url, "-m", "authorization=Bearer x"]).await;
    assert!(text.data().starts_with("secret ("));
    let home = Home::new();
    let config = format!(
        "[targets.shop]\naddress = \"{url}\"\n[targets.shop.metadata]\nauthorization = \"Bearer x\"\n"
    );
    home.write("config/iq/config.toml", config);
    assert!(
        home.iq(&["top", "shop"])
            .await
            .data()
            .starts_with("secret (")
    );
}

/// Replies to each connection with this text, as an HTTP page.
async fn replying(status: &str, body: &str) -> SocketAddr {
    let length = body.len();
    replying_with(format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}"
    ))
    .await
}

/// Replies to each connection with these bytes.
async fn replying_with(reply: impl Into<String>) -> SocketAddr {
    let reply = reply.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(reply.as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn what_a_hostile_page_says_moves_no_cursor() {
    let hostile = r#"{"format":1,"name":"a\u001b]0;b\u0007","now":1,
        "verdict":{"level":"ok","text":"\u009b31m\r\n"},"drain":{"available":false,"draining":false},
        "sources":[],"totals":[],"calls":[],"backends":[],"connections":{"total":0,"listed":[]},
        "methods":[{"source":7,"name":"\u202ex","rate":1e300,"errors":-1e300,"p50":1e300,"p99":-5,
        "p999":0,"in_flight":18446744073709551615,"codes":{"\u001b[2J":1},"calls":1}]}"#;
    let page = replying("200 OK", hostile).await;
    let text = iq(&["top", &format!("http://{page}")]).await.data();
    let is_harmless =
        |c: char| c == '\n' || iip_core::Printable(c).to_string().chars().count() == 1;
    assert!(text.chars().all(is_harmless), "{text:?}");
    assert!(text.contains(r"a\u{1b}]0;b\u{7}"), "{text}");
    for (body, expected) in [
        ("hello", "not that of a live page"),
        (r#"{"format":2}"#, "format 2"),
        (r#"{"format":1,"name":"x"}"#, "not that of a live page"),
    ] {
        let page = replying("200 OK", body).await;
        let error = iq(&["top", &format!("http://{page}")]).await.failed(1);
        assert!(error.contains(expected), "{error}");
    }
}
