//! Calls of typed services with one reply.

use std::time::Duration;

use iip_gateway::{Gateway, Group, JsonInt64, Limits, LogFormat, Route, TypedOptions};
use serde_json::{Value, json};

use crate::common::{Http, LogLines, ask, bound, get, post, within};
use crate::shop::{Shop, call, gateway, problem};

fn body(reply: &crate::common::Reply) -> Value {
    assert_eq!(reply.status, 200, "{}", reply.body);
    serde_json::from_str(&reply.body).unwrap()
}

#[tokio::test]
async fn a_method_is_called_with_json() {
    let shop = Shop::new().await;
    let reply = ask(shop.address, call("find", "", r#"{"id":7,"note":"ü"}"#)).await;
    assert_eq!(body(&reply), json!({"id": 7, "note": "ü"}));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    // An object with its name, or the only argument itself.
    for args in [r#"{"order":{"id":5,"note":null}}"#, r#"{"id":5}"#] {
        assert_eq!(body(&ask(shop.address, call("place", "", args)).await), 5);
    }
    assert_eq!(
        body(&ask(shop.address, call("ping", "", "")).await),
        Value::Null
    );
    let bare = "POST /shop.v1.Orders/ping HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(body(&ask(shop.address, bare).await), Value::Null);
}

#[tokio::test]
async fn an_idempotent_method_is_called_by_its_query() {
    let shop = Shop::new().await;
    let path = |query: &str| get(&format!("/shop.v1.Orders/find{query}"));
    for (query, expected) in [
        ("?id=7", json!({"id": 7, "note": null})),
        ("?id=7&note=a+b%26", json!({"id": 7, "note": "a b&"})),
        ("?q=%7B%22id%22:8%7D", json!({"id": 8, "note": null})),
    ] {
        assert_eq!(
            body(&ask(shop.address, path(query)).await),
            expected,
            "{query}"
        );
    }
    for (query, detail) in [
        ("", "`id` is missing"),
        ("?id=x", "`id` is not an integer"),
        ("?id=1&id=2", "`id` occurs twice"),
        ("?id=1&other=2", "find has no argument `other`"),
        ("?id=%zz", "malformed escape"),
        ("?q=%7B", "not JSON"),
    ] {
        let reply = ask(shop.address, path(query)).await;
        assert_eq!(reply.status, 400, "{query}");
        let problem = problem(&reply);
        assert!(
            problem["detail"].as_str().unwrap().contains(detail),
            "{query}: {problem}"
        );
    }
    let place = ask(shop.address, get("/shop.v1.Orders/place?id=1")).await;
    assert_eq!((place.status, place.header("allow")), (405, Some("POST")));
    assert_eq!(
        problem(&place)["detail"],
        "this method accepts POST; GET is for idempotent methods that take no stream, see /docs/"
    );
}

#[tokio::test]
async fn failures_are_problems_with_their_status() {
    let shop = Shop::new().await;
    let own = ask(shop.address, call("find", "", r#"{"id":0}"#)).await;
    assert_eq!(own.status, 500);
    let mut own = problem(&own);
    assert_eq!(own["trace_id"].take().as_str().unwrap().len(), 32);
    assert_eq!(
        own,
        json!({
            "type": "about:blank", "title": "Internal Server Error", "status": 500,
            "detail": "the method failed with its error SoldOut", "code": "UNKNOWN",
            "retryable": false, "executed": "yes",
            "error": {"SoldOut": {"until": 9}}, "variant": "SoldOut", "trace_id": null,
        })
    );
    let closed = ask(shop.address, call("find", "", r#"{"id":422}"#)).await;
    assert_eq!(closed.status, 422);
    let closed = problem(&closed);
    assert_eq!(closed["title"], "Unprocessable Entity");
    assert_eq!(
        (&closed["variant"], &closed["code"]),
        (&json!("Closed"), &json!("UNKNOWN"))
    );
    let trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
    let missing = problem(&ask(shop.address, call("find", trace, r#"{"id":1}"#)).await);
    assert_eq!(
        (&missing["status"], &missing["code"]),
        (&json!(404), &json!("NOT_FOUND"))
    );
    assert_eq!(missing["detail"], "no order 1");
    assert_eq!(missing["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");

    let busy = ask(shop.address, call("overloaded", "", "{}")).await;
    assert_eq!((busy.status, busy.header("retry-after")), (429, Some("2")));
    for (args, status) in [("{", 400), (r#"{"id":"x"}"#, 400), (r#"{"no":1}"#, 400)] {
        let reply = ask(shop.address, call("find", "", args)).await;
        assert_eq!(reply.status, status, "{args}: {}", reply.body);
        assert_eq!(problem(&reply)["executed"], "no", "{args}");
    }
    for target in ["/shop.v1.Orders/none", "/none", "/"] {
        let reply = ask(shop.address, post(target, "")).await;
        assert_eq!(reply.status, 404, "{target}");
        let detail = &problem(&reply)["detail"];
        assert_eq!(detail, "no method has this path, see /docs/", "{target}");
    }
}

#[tokio::test]
async fn a_body_needs_its_type() {
    let shop = Shop::new().await;
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/x-ndjson",
    ] {
        let request = call("find", "", r#"{"id":7}"#).replace("application/json", kind);
        assert_eq!(ask(shop.address, request).await.status, 415, "{kind}");
    }
    assert_eq!(
        ask(shop.address, post("/shop.v1.Orders/find", "{}"))
            .await
            .status,
        415
    );
}

#[tokio::test]
async fn a_one_way_method_is_accepted_and_raw_bytes_are_passed_on() {
    let mut shop = Shop::new().await;
    let told = ask(shop.address, call("tell", "", r#"{"text":"hello"}"#)).await;
    assert_eq!((told.status, &*told.body), (202, ""));
    let text = within("the text", shop.told.recv()).await;
    assert_eq!(text.as_deref(), Some("hello"));

    // By its own path, and by the regular one.
    for path in ["/echo", "/shop.v1.Orders/echo"] {
        let request = post(path, "raw \u{1}");
        let request = request.replace(
            "Host: a\r\n",
            "Host: a\r\nContent-Type: application/octet-stream\r\n",
        );
        let echoed = ask(shop.address, &request).await;
        assert_eq!((echoed.status, &*echoed.body), (200, "raw \u{1}"), "{path}");
        let failed = ask(
            shop.address,
            request.replace("raw \u{1}", "fail").replace(": 5", ": 4"),
        )
        .await;
        assert_eq!(failed.status, 500, "{path}");
    }
}

#[tokio::test]
async fn a_call_has_the_timeout_that_its_client_asks_for() {
    let options = TypedOptions::new().max_timeout(Duration::from_secs(100));
    let shop = Shop::with(options).await;
    let late = ask(
        shop.address,
        call("hang", "Request-Timeout: 0.05\r\n", "{}"),
    )
    .await;
    assert_eq!(late.status, 504);
    assert_eq!(problem(&late)["code"], "DEADLINE_EXCEEDED");
    for (header, seconds) in [
        ("", 3600),
        ("Request-Timeout: 50\r\n", 50),
        ("Request-Timeout: 5000\r\n", 100),
    ] {
        let left = body(&ask(shop.address, call("remaining", header, "{}")).await);
        assert_eq!(left, seconds, "{header}");
    }
    let wrong = ask(
        shop.address,
        call("hang", "Request-Timeout: soon\r\n", "{}"),
    )
    .await;
    assert_eq!(wrong.status, 400);
}

#[tokio::test]
async fn listed_headers_are_metadata() {
    let shop = Shop::with(TypedOptions::new().metadata("X-User")).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = format!(
        "X-User: ann\r\nX-Other: no\r\nIdempotency-Key: k1\r\nCookie: c=1\r\n\
         traceparent: {trace}\r\ntracestate: a=b\r\n"
    );
    let seen = body(&ask(shop.address, call("caller", &headers, "{}")).await);
    let mut seen: Vec<Value> = seen.as_array().unwrap().clone();
    seen.sort_by_key(Value::to_string);
    assert_eq!(
        json!(seen),
        json!([
            ["idempotency-key", "k1"],
            ["traceparent", trace],
            ["tracestate", "a=b"],
            ["x-user", "ann"]
        ])
    );
    // Metadata has at most 16 KiB.
    let group = Group::new(shop.server.target()).typed(TypedOptions::new().metadata("x-user"));
    let builder = Gateway::builder()
        .group("shop", group)
        .route(Route::all("shop"));
    let (_gateway, address) = bound(builder.limits(Limits::new().max_head_bytes(64 << 10))).await;
    let large = format!("X-User: {}\r\n", "u".repeat(17_000));
    let refused = ask(address, call("caller", &large, "{}")).await;
    assert_eq!(refused.status, 431);
}

#[tokio::test]
async fn a_trace_begins_in_the_gateway_if_the_client_names_none() {
    let shop = Shop::new().await;
    let lines = LogLines::default();
    let group = Group::new(shop.server.target()).typed(TypedOptions::new());
    let builder = Gateway::builder()
        .group("shop", group)
        .route(Route::all("shop").host("a"))
        .access_log(lines.log(LogFormat::Json));
    let (_gateway, address) = bound(builder).await;
    // It is metadata of the call.
    let seen = body(&ask(address, call("caller", "", "{}")).await);
    let entry = seen.as_array().unwrap().first().unwrap();
    assert_eq!(entry[0], "traceparent");
    let logged = lines.json(1).await[0]["trace_id"].clone();
    let trace = logged.as_str().unwrap();
    assert!(
        entry[1]
            .as_str()
            .unwrap()
            .starts_with(&format!("00-{trace}-"))
    );
    // It is in problems of all kinds, also in those within a stream.
    let listing = call("list", "", r#"{"count":2000,"then":"fail"}"#);
    let listed = ask(address, listing).await;
    let last: Value = serde_json::from_str(listed.body.lines().last().unwrap()).unwrap();
    let unrouted = get("/").replace("Host: a", "Host: b");
    let mut found = vec![last["error"]["trace_id"].clone()];
    for request in [call("find", "", "{"), get("/none"), unrouted] {
        found.push(problem(&ask(address, request).await)["trace_id"].clone());
    }
    let logged = lines.json(5).await;
    let logged: Vec<_> = logged
        .iter()
        .skip(1)
        .map(|line| &line["trace_id"])
        .collect();
    assert_eq!(found.iter().collect::<Vec<_>>(), logged);
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_call() {
    let shop = Shop::new().await;
    let mut http = Http::connect(shop.address).await;
    http.send(call("hang", "", "{}")).await;
    shop.until_running(1).await;
    drop(http);
    shop.until_running(0).await;
}

#[tokio::test]
async fn pages_of_other_origins_may_call_if_they_are_listed() {
    let shop = Shop::new().await;
    let from = |origin: &str| call("ping", &format!("Origin: {origin}\r\n"), "{}");
    assert_eq!(ask(shop.address, from("http://a")).await.status, 200);
    assert_eq!(
        ask(shop.address, from("https://app.example")).await.status,
        403
    );
    let image = get("/shop.v1.Orders/find?id=7")
        .replace("Host: a", "Host: a\r\nSec-Fetch-Site: cross-site");
    assert_eq!(ask(shop.address, image).await.status, 403);
    let preflight = "OPTIONS /shop.v1.Orders/find HTTP/1.1\r\nHost: a\r\n\
                     Origin: https://app.example\r\nAccess-Control-Request-Method: POST\r\n\r\n";
    assert_eq!(ask(shop.address, preflight).await.status, 405);

    let options = TypedOptions::new()
        .origin("https://app.example")
        .metadata("x-user");
    let shop = Shop::with(options).await;
    let asked = ask(shop.address, preflight).await;
    assert_eq!(asked.status, 204);
    assert_eq!(
        asked.header("access-control-allow-origin"),
        Some("https://app.example")
    );
    assert!(
        asked
            .header("access-control-allow-headers")
            .unwrap()
            .contains("x-user")
    );
    for args in [r#"{"id":7}"#, r#"{"id":1}"#] {
        let reply = ask(
            shop.address,
            call("find", "Origin: https://app.example\r\n", args),
        )
        .await;
        assert_eq!(
            reply.header("access-control-allow-origin"),
            Some("https://app.example")
        );
        assert_eq!(reply.header("vary"), Some("origin"));
    }
    assert_eq!(
        ask(shop.address, from("https://other.example"))
            .await
            .status,
        403
    );
}

#[tokio::test]
async fn integers_of_64_bits_are_texts_if_asked_for() {
    let shop = Shop::with(TypedOptions::new().json_int64(JsonInt64::String)).await;
    let large = "9007199254740993";
    for args in [
        format!(r#"{{"id":{large}}}"#),
        format!(r#"{{"id":"{large}"}}"#),
    ] {
        let reply = ask(shop.address, call("find", "", &args)).await;
        assert_eq!(body(&reply), json!({"id": large, "note": null}));
    }
    let own = problem(&ask(shop.address, call("find", "", r#"{"id":"0"}"#)).await);
    assert_eq!(own["error"], json!({"SoldOut": {"until": "9"}}));
    let listed = ask(
        shop.address,
        call("list", "", r#"{"count":"1","then":"end"}"#),
    )
    .await;
    assert_eq!(listed.body, "{\"id\":\"0\",\"note\":null}\n");
    let found = body(&ask(shop.address, get("/shop.v1.Orders/find?id=7")).await);
    assert_eq!(found["id"], "7");
    let document = body(&ask(shop.address, get("/openapi.json")).await);
    let id = &document["components"]["schemas"]["Order"]["properties"]["id"];
    assert_eq!(id["type"], "string");
}

#[tokio::test]
async fn documents_describe_the_services_under_the_prefix() {
    let shop = Shop::with(TypedOptions::new().prefix("/api/").title("Shop")).await;
    let document = body(&ask(shop.address, get("/api/openapi.json")).await);
    assert_eq!(
        (&document["openapi"], &document["info"]["title"]),
        (&json!("3.1.0"), &json!("Shop"))
    );
    assert_eq!(document["servers"][0]["url"], "/api");
    let find = &document["paths"]["/shop.v1.Orders/find"]["get"];
    let closed = find["responses"]["422"]["description"].as_str().unwrap();
    assert_eq!(
        closed,
        "The error `Closed` of the method itself, in `error`."
    );
    let described = body(&ask(shop.address, get("/api/description.json")).await);
    assert_eq!(described["services"][0]["service"], "shop.v1.Orders");
    let page = ask(shop.address, get("/api/docs/")).await;
    let policy = page.header("content-security-policy").unwrap_or_default();
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    let folder = ask(shop.address, get("/api/docs")).await;
    assert_eq!(
        (folder.status, folder.header("location")),
        (308, Some("docs/"))
    );
    let find = call("find", "", r#"{"id":7}"#);
    assert_eq!(
        ask(shop.address, find.replace("/shop.", "/api/shop."))
            .await
            .status,
        200
    );
    for request in [find, get("/openapi.json"), get("/apishop.v1.Orders/ping")] {
        assert_eq!(ask(shop.address, request).await.status, 404);
    }
    assert_eq!(
        ask(shop.address, post("/api/openapi.json", ""))
            .await
            .status,
        405
    );
}

#[tokio::test]
async fn backends_that_do_not_describe_themselves_are_unavailable() {
    let silent = iip_rpc::Server::builder()
        .describe(false)
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    for target in [silent.target().to_owned(), "127.0.0.1:1".to_owned()] {
        let (_gateway, address) = gateway(target, TypedOptions::new()).await;
        let reply = ask(address, call("find", "", "{}")).await;
        assert_eq!(reply.status, 503, "{}", reply.body);
        assert!(!reply.body.contains("127.0.0.1"), "{}", reply.body);
    }
}

#[tokio::test]
async fn a_backend_that_has_gone_is_not_named() {
    let shop = Shop::new().await;
    let find = call("find", "", r#"{"id":7}"#);
    assert_eq!(ask(shop.address, &find).await.status, 200);
    shop.server.shutdown(Duration::ZERO).await;
    let reply = ask(shop.address, &find).await;
    assert_eq!(reply.status, 503, "{}", reply.body);
    assert!(!reply.body.contains("127.0.0.1"), "{}", reply.body);
}

#[tokio::test]
async fn requests_that_are_ambiguous_are_refused_before_any_call() {
    let shop = Shop::new().await;
    for request in [
        "POST /shop.v1.Orders/ping HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\
         Transfer-Encoding: chunked\r\n\r\n{}",
        "POST /shop.v1.Orders/ping HTTP/1.1\r\n\r\n",
        "POST /shop.v1.Orders/pi%00ng HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(ask(shop.address, request).await.status, 400, "{request}");
    }
    // Escapes of characters that need none change nothing.
    let escaped = call("find", "", r#"{"id":7}"#).replace("/find", "/%66ind");
    assert_eq!(ask(shop.address, escaped).await.status, 200);
}

#[tokio::test]
async fn options_that_cannot_work_are_refused() {
    for (options, text) in [
        (TypedOptions::new().prefix("api"), "prefix"),
        (TypedOptions::new().prefix("/a?b"), "prefix"),
        (
            TypedOptions::new().max_timeout(Duration::ZERO),
            "max_timeout",
        ),
        (TypedOptions::new().max_line_bytes(0), "max_line_bytes"),
        (TypedOptions::new().origin("app.example"), "origins"),
    ] {
        let group = Group::new("127.0.0.1:7000").typed(options);
        let built = Gateway::builder()
            .group("shop", group)
            .route(Route::all("shop"))
            .build();
        let error = built.unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    let group = Group::new("127.0.0.1:7000").typed(TypedOptions::new());
    bound(Gateway::builder().group("shop", group)).await;
}
