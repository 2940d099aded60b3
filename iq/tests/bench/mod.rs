//! `iq bench`: loads, and what is told of them.

mod kinds;
mod stalls;

use serde_json::{Value, json};

use crate::common::{Fixture, Home, LONG, json_lines};

/// Returns the only object with this type.
#[track_caller]
pub(crate) fn one<'a>(objects: &'a [Value], r#type: &str) -> &'a Value {
    let mut found = objects.iter().filter(|object| object["type"] == r#type);
    let one = found.next().expect(r#type);
    assert!(found.next().is_none(), "{objects:?}");
    one
}

#[tokio::test]
async fn a_number_of_calls_is_made_and_counted() {
    let shop = Fixture::new().await;
    let home = Home::new();
    let (echo, target) = (format!("{}/echo", shop.target), &*shop.target);
    for (args, name) in [
        (
            &[target, "shop.Orders.find", "id=7"][..],
            "shop.Orders.find",
        ),
        (
            &[target, "/shop.Orders/find", r#"{"id":{{int 1..9}}}"#],
            "shop.Orders.find",
        ),
        (
            &[target, "shop.Orders.place", "id={{int 2..9}}", "colour=Red"],
            "shop.Orders.place",
        ),
        (&[target, "shop.Orders.list", "count=3"], "shop.Orders.list"),
        (&[target, "shop.Orders.find"], "shop.Orders.find"),
        (&[&echo, "-d", "hello {{string 4}}"], "/echo"),
        (&[&echo], "/echo"),
    ] {
        let load = [
            "-n",
            "200",
            "-c",
            "8",
            "--threads",
            "2",
            "--connections",
            "3",
            "--json",
        ];
        let ran = home.iq(&[&["bench"], args, &load].concat()).await;
        assert_eq!(ran.code, Some(0), "{args:?}: {ran:?}");
        let objects = json_lines(&ran.out);
        let summary = one(&objects, "summary");
        assert_eq!(
            (&summary["ok"], &summary["errors"]),
            (&200.into(), &0.into()),
            "{args:?}"
        );
        let received = if name.ends_with("list") { 600 } else { 0 };
        assert_eq!(summary["messages"]["received"], received);
        assert_eq!(summary["plan"]["method"], name);
        assert!(summary["generator"]["cpu_seconds"].as_f64() > Some(0.0));
        let intervals = objects.iter().filter(|object| object["type"] == "interval");
        let in_intervals: u64 = intervals.map(|it| it["ok"].as_u64().unwrap()).sum();
        assert_eq!(in_intervals, 200);
    }
}

#[tokio::test]
async fn a_short_run_has_as_many_callers_as_calls_and_its_figures_agree() {
    let shop = Fixture::new().await;
    let call = ["bench", &shop.target, "shop.Orders.find", "-n", "5"];
    let ran = Home::new().iq(&[&call[..], &["--json"]].concat()).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let objects = json_lines(&ran.out);
    let summary = one(&objects, "summary");
    let load = summary["plan"]["load"].as_str().unwrap();
    assert!(load.starts_with("closed loop, 5 callers, "), "{load}");
    let generator = &summary["generator"];
    let figure = |figure: &Value| figure.as_f64().unwrap();
    let cores = figure(&generator["cpu_seconds"]) / figure(&summary["seconds"]);
    let busiest = figure(&generator["busiest_thread"]);
    assert!(cores >= busiest * 0.999, "{summary}");
    let text = Home::new().iq(&call).await.out;
    assert!(text.contains(" 0 s ") && !text.contains("0.0 s"), "{text}");
}

#[tokio::test]
async fn a_server_that_does_not_describe_itself_is_called_by_path() {
    let shop = Fixture::with(|server| server.describe(false)).await;
    let home = Home::new();
    let file = home.write("args.json", r#"{"id": {{int 1..9}}}"#);
    for args in [r#"{"id":7}"#, r#"{"id":{{int 1..9}}}"#, &format!("@{file}")] {
        let call = [
            "bench",
            &shop.target,
            "/shop.Orders/find",
            args,
            "-n",
            "20",
            "--json",
        ];
        let ran = home.iq(&call).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(one(&json_lines(&ran.out), "summary")["ok"], 20);
    }
    let call = [
        "bench",
        &shop.target,
        "/shop.Orders/find",
        r#"{"id":{{int 1..9}}"#,
    ];
    let error = home.iq(&call).await.failed(2);
    assert!(error.contains("not JSON"), "{error}");
}

#[tokio::test]
async fn calls_go_to_all_targets_in_turn() {
    let shops = [Fixture::new().await, Fixture::new().await];
    let [first, second] = &shops;
    let call = [
        "bench",
        &first.target,
        "--also",
        &second.target,
        "shop.Orders.find",
        "id=7",
    ];
    let ran = Home::new()
        .iq(&[&call[..], &["-n", "100", "-c", "4", "--json"]].concat())
        .await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for shop in &shops {
        let stats = shop.server.stats();
        let find = stats.method("/shop.Orders/find").expect("it was called");
        assert_eq!(find.codes.ok(), 50);
    }
}

#[tokio::test]
async fn many_callers_share_a_connection() {
    let shop = Fixture::new().await;
    let call = ["bench", &shop.target, "shop.Orders.find", "id=7", "--json"];
    let load = ["-c", "25000", "-n", "25000", "--timeout", LONG];
    let ran = Home::new().iq(&[&call[..], &load].concat()).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let objects = json_lines(&ran.out);
    assert_eq!(one(&objects, "summary")["ok"], 25_000, "{objects:?}");
}

#[tokio::test]
async fn errors_are_grouped_by_their_codes() {
    let shop = Fixture::new().await;
    let target = &*shop.target;
    let home = Home::new();
    let load = ["-n", "100", "--json"];
    for (args, code, example) in [
        (
            ["shop.Orders.find", "id={{int 0..0}}"],
            "NOT_FOUND",
            "no order 0",
        ),
        (
            ["shop.Orders.place", r#"{"id":0,"colour":"Red"}"#],
            "the method's own error",
            r#"{"SoldOut":{"day":9}}"#,
        ),
    ] {
        let ran = home
            .iq(&[&["bench", target], &args[..], &load].concat())
            .await;
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.err.contains("no call succeeded"), "{ran:?}");
        let objects = json_lines(&ran.out);
        let failures = one(&objects, "failures");
        assert_eq!(
            (&failures["code"], &failures["count"]),
            (&code.into(), &100.into())
        );
        assert_eq!(failures["example"], example);
    }
}

#[tokio::test]
async fn a_search_ends_with_the_error_of_its_calls_if_none_succeeds() {
    let shop = Fixture::new().await;
    let call = ["bench", &shop.target, "shop.Orders.find", "id=0", "--json"];
    let search = ["--find-limit", "p99<1s", "--step", "100ms", "--rate", "50"];
    let ran = Home::new().iq(&[&call[..], &search].concat()).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let expected = "no call succeeded: NOT_FOUND: no order 0";
    assert!(ran.err.contains(expected), "{}", ran.err);
    let steps = json_lines(&ran.out);
    let step = one(&steps, "step");
    assert_eq!(
        (&step["holds"], &step["p50_us"]),
        (&false.into(), &Value::Null)
    );
    let expected = json!({ "condition": "p99<1s", "holds": false, "found_us": null });
    assert_eq!(step["conditions"][0], expected);
}

#[tokio::test]
async fn conditions_that_do_not_hold_are_named() {
    let shop = Fixture::new().await;
    let call = [
        "bench",
        &shop.target,
        "shop.Orders.find",
        "id=7",
        "-n",
        "50",
    ];
    let home = Home::new();
    let ran = home
        .iq(&[
            &call[..],
            &["--expect", "errors<1%,max<60s,p99<1ns,rate>1e9"],
        ]
        .concat())
        .await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.out.contains("expected errors<1%: ok, 0.000 %\n"),
        "{ran:?}"
    );
    let error = ran.err.lines().last().unwrap();
    assert!(
        error.contains("p99<1ns (found ") && error.contains("rate>1e9 (found "),
        "{error}"
    );
    assert!(
        !error.contains("errors") && !error.contains("max"),
        "{error}"
    );
    let ran = home
        .iq(&[&call[..], &["--expect", "errors<1,p50<60s"]].concat())
        .await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let conditions = "errors<1%,errors<1,p50<60s,rate>0";
    let ran = home
        .iq(&[&call[..], &["--expect", conditions, "--json", "-q"]].concat())
        .await
        .json();
    let found = ran.iter().filter(|line| line["type"] == "expectation");
    let found: Vec<&Value> = found.collect();
    assert_eq!(found[0]["found_percent"], 0.0);
    assert_eq!(found[1]["found_calls"], 0.0);
    assert_eq!(
        found[2]["found_us"],
        one(&ran, "summary")["latency_us"]["p50"]
    );
    assert_eq!(found[3]["found_per_second"], one(&ran, "summary")["rate"]);
}

#[tokio::test]
async fn figures_are_saved_compared_and_written_as_a_page() {
    let shop = Fixture::new().await;
    let home = Home::new();
    let [saved, page] = ["old.json", "page.html"].map(|name| home.write(name, ""));
    let call = [
        "bench",
        &shop.target,
        "shop.Orders.find",
        "id=7",
        "--rate",
        "100",
    ];
    let call = [&call[..], &["--duration", "2s", "--timeout", LONG]].concat();
    let ran = home
        .iq(&[&call[..], &["--save", &saved, "--html", &page]].concat())
        .await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for part in [
        "shop.Orders.find at ",
        "open loop, 100 calls/s",
        "from due   from sent",
        "p99.9",
    ] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
    let page = std::fs::read_to_string(page).unwrap();
    let (_, figures) = page.split_once("id=\"figures\">").unwrap();
    let (figures, _) = figures.split_once("</script>").unwrap();
    let figures: Value = serde_json::from_str(figures).unwrap();
    assert_eq!(page.matches("<svg ").count(), 3);
    assert_eq!(figures["ok"], 200);
    let ran = home
        .iq(&[&call[..], &["--compare", &saved, "--json"]].concat())
        .await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let objects = json_lines(&ran.out);
    let differences = objects
        .iter()
        .filter(|object| object["type"] == "difference");
    let names: Vec<&str> = differences
        .clone()
        .map(|it| it["figure"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["rate", "p50", "p90", "p99", "p99.9"]);
    assert!(
        differences
            .clone()
            .all(|it| it["beyond_noise"].is_boolean()),
        "{objects:?}"
    );
}

#[tokio::test]
async fn mistakes_are_found_before_the_load_begins() {
    let shop = Fixture::new().await;
    let home = Home::new();
    let target = &*shop.target;
    let no_figures = home.write("figures.json", "{}");
    for (args, reason) in [
        (&["shop.Orders.find", "id=x"][..], "expected an integer"),
        (&["shop.Orders.find", "id={{int 1..2"], "has no end"),
        (
            &["shop.Orders.find", r#"{"id": {{word}}}"#],
            "`{{word}}` is not a template",
        ),
        (&["shop.Orders.find", r#"{"ix": {{int 1..2}}}"#], "ix"),
        (&["shop.Orders.echo"], "/echo -d DATA"),
        (&["echo", "-d", "a"], "have a path"),
        (&["/echo", "-d", "a", "-m", "a=b"], "no metadata"),
        (&["shop.Orders.find", "--rate", "0"], "a rate is between"),
        (
            &["shop.Orders.find", "--rate", "5", "-c", "5"],
            "cannot be used with",
        ),
        (&["shop.Orders.find", "--precise"], "need --rate"),
        (
            &["shop.Orders.find", "-n", "5", "--step", "1s"],
            "--step needs --find-limit",
        ),
        (
            &["shop.Orders.find", "id={{int 10..1}}"],
            "10 is greater than 1",
        ),
        (&["shop.Orders.find", "-"], "-: it is empty"),
        (
            &["shop.Orders.find", "--threads", "2", "--connections", "1"],
            "--connections",
        ),
        (
            &["shop.Orders.find", "--threads", "2", "-c", "1"],
            "--concurrency",
        ),
        (
            &["shop.Orders.find", "--expect", "p99"],
            "is not a condition",
        ),
        (
            &["shop.Orders.find", "--compare", "nowhere.json"],
            "nowhere.json",
        ),
        (
            &["shop.Orders.find", "--compare", &no_figures],
            "not the figures of a run",
        ),
    ] {
        let error = home
            .iq(&[&["bench", target], args].concat())
            .await
            .failed(2);
        assert!(error.contains(reason), "{args:?}: {error}");
    }
    let error = home.iq(&["bench", "127.0.0.1:1/echo"]).await.failed(3);
    assert!(error.contains("127.0.0.1:1"), "{error}");
}

#[tokio::test]
async fn a_stream_that_does_not_end_in_time_has_failed() {
    let shop = Fixture::new().await;
    let count = format!("count={}", u64::MAX);
    let call = ["bench", &shop.target, "shop.Orders.list", &count, "--json"];
    let load = ["-c", "2", "-n", "2", "--timeout", "3s"];
    let ran = Home::new().iq(&[&call[..], &load].concat()).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let failures = json_lines(&ran.out);
    let failures = one(&failures, "failures");
    assert_eq!(
        (&failures["code"], &failures["count"]),
        (&"DEADLINE_EXCEEDED".into(), &2.into())
    );
}
