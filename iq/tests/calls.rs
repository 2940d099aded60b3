//! `iq call` with one reply.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use serde_json::json;

use crate::common::{Event, Fixture, Home, LONG, iq};

#[tokio::test]
async fn arguments_are_json_of_every_origin() {
    let (shop, home) = (Fixture::new().await, Home::new());
    let target = &*shop.target;
    let args = r#"{"order":{"id":7,"colour":"Red"}}"#;
    let file = format!("@{}", home.write("args.json", args));
    for args in [args, r#"{"id":7,"colour":"Red"}"#, &file] {
        let ran = home.iq(&["call", target, "shop.Orders.place", args]).await;
        assert_eq!(ran.data(), "7\n");
    }
    let ran = home
        .iq_with(&["call", target, "shop.Orders.place", "-"], args)
        .await;
    assert_eq!(ran.data(), "7\n");
    let by_path = home.iq(&["call", target, "/shop.Orders/find", "7"]).await;
    assert!(by_path.code == Some(2), "{by_path:?}");
    for name in ["/shop.Orders/find", "shop.Orders/find"] {
        let ran = home.iq(&["call", target, name, r#"{"id":7}"#]).await;
        assert_eq!(
            ran.data(),
            "{\"id\":7,\"colour\":\"Green\",\"tags\":[],\"note\":null}\n"
        );
    }
}

#[tokio::test]
async fn pairs_are_typed_by_the_description() {
    let shop = Fixture::new().await;
    let find = [
        "call",
        &shop.target,
        "shop.Orders.find",
        "id=18446744073709551615",
    ];
    let found = iq(&find).await.data();
    assert!(
        found.starts_with("{\"id\":18446744073709551615,"),
        "{found}"
    );
    let place = [
        "call",
        &shop.target,
        "shop.Orders.place",
        "id=8",
        "colour=Red",
        "tags=a",
        "tags=b",
    ];
    assert_eq!(iq(&place).await.data(), "8\n");
    let place = [
        "call",
        &shop.target,
        "shop.Orders.place",
        "order.id=9",
        "order.colour=Red",
        "order.tags:=[]",
    ];
    assert_eq!(iq(&place).await.data(), "9\n");
}

#[tokio::test]
async fn arguments_are_sent_as_the_method_reads_them() {
    let shop = Fixture::new().await;
    for args in [
        &[r#"{"id":"7"}"#][..],
        &[r#"id:="7""#],
        &["id=7", "detailed=null"],
    ] {
        let command = [&["call", &shop.target, "shop.Orders.find"], args].concat();
        let found = iq(&command).await.data();
        assert!(found.starts_with("{\"id\":7,"), "{found}");
    }
}

#[tokio::test]
async fn mistakes_name_the_field_and_the_closest_name() {
    let shop = Fixture::new().await;
    for (args, reasons) in [
        (
            &["shop.Orders.place", "id=8", "color=Red"][..],
            &["there is no `color`", "the closest is `colour`"][..],
        ),
        (
            &["shop.Orders.place", "id=x"],
            &["`id`: expected an integer, found `x`"],
        ),
        (
            &["shop.Orders.place", "id=8", "colour=Gren"],
            &["`/order/colour`", "no variant `Gren`", "`Green`"],
        ),
        (&["shop.Orders.find", "{}"], &["shop.Orders.find", "`id`"]),
        (&["shop.Orders.find", "{"], &["the arguments are not JSON"]),
        (&["shop.Orders.find", "@/nowhere"], &["/nowhere: "]),
        (
            &["shop.Orders.find", "@"],
            &["`@` needs the name of a file"],
        ),
        (
            &["shop.Orders.find", "{\"id\":7,\"id\":8}"],
            &["`id` is given twice"],
        ),
        (
            &["shop.Orders.find", "{\"id\":18446744073709551616}"],
            &["`/id`: expected an integer of the type u64, found a number of more than 64 bits"],
        ),
        (
            &["shop.Orders.find", "id=18446744073709551616"],
            &["error: `id`: 18446744073709551616 is out of range of u64\n"],
        ),
        (
            &["shop.Orders", "id=7"],
            &["`shop.Orders` is a service: add the method, as in `shop.Orders.place`"],
        ),
        (
            &["shop.Ordrs", "id=7"],
            &["no service `shop.Ordrs`; the closest is `shop.Orders`"],
        ),
        (
            &["shop.Orders.find", "id=7", "-n", "1"],
            &["--limit: shop.Orders.find does not return a stream"],
        ),
        (
            &["shop.Orders.list", "count=7", "--resume", "1.1"],
            &["--resume: shop.Orders.list is not a subscription"],
        ),
        (&["shop.Orders.tell", "text=x", "--pretty"], &["--pretty: "]),
        (
            &["shop.Orders.find", "id=7", "--pretty", "--json"],
            &["--pretty", "--json"],
        ),
        (
            &["shop.Orders.fnd"],
            &["no method of shop.Orders called `fnd`", "`find`"],
        ),
        (
            &["shop.Order.find"],
            &["no service `shop.Order`", "`shop.Orders`"],
        ),
        (&["find"], &["as in `shop.Orders.find`"]),
        (&["/shop.Orders/fnd"], &["`/shop.Orders/find`"]),
        (&["shop.Orders.echo"], &["raw bytes", "/echo -d DATA"]),
    ] {
        let command = [&["call", &shop.target], args].concat();
        let error = iq(&command).await.failed(2);
        for reason in reasons {
            assert!(error.contains(reason), "{args:?}: {error}");
        }
    }
}

#[tokio::test]
async fn failures_have_the_code_of_their_status() {
    let shop = Fixture::new().await;
    let call = async |args: &[&str]| iq(&[&["call", &*shop.target], args].concat()).await;
    let error = call(&["shop.Orders.find", "id=0"]).await.failed(64 + 5);
    assert_eq!(error, "error: not found: no order 0\n");
    let error = call(&["shop.Orders.find", "id=0", "--verbose"]).await;
    let doubt = error.err.lines().last().unwrap();
    assert!(
        doubt.starts_with("iq: may have executed, after "),
        "{error:?}"
    );
    let own = call(&["shop.Orders.place", "id=0", "colour=Red"])
        .await
        .failed(64 + 2);
    assert_eq!(
        own,
        "error: the method's own error: {\"SoldOut\":{\"day\":9}}\n"
    );
    let denied = call(&["shop.Orders.place", "id=1", "colour=Red"])
        .await
        .failed(64 + 7);
    assert!(
        denied.starts_with("error: permission denied: no\\u{1b}[2J"),
        "{denied}"
    );
    let late = call(&["shop.Orders.forever", "--timeout", "5s"])
        .await
        .failed(64 + 4);
    assert!(late.starts_with("error: deadline exceeded: "), "{late}");
}

#[tokio::test]
async fn with_json_results_and_errors_are_objects_with_a_type() {
    let shop = Fixture::new().await;
    let found = iq(&["call", &shop.target, "shop.Orders.find", "id=7", "--json"])
        .await
        .json();
    let order = json!({"id": 7, "colour": "Green", "tags": [], "note": null});
    assert_eq!(found, [json!({"type": "result", "value": order})]);
    let failed = iq(&["--json", "call", &shop.target, "shop.Orders.find", "id=0"])
        .await
        .failed(69);
    let error: serde_json::Value = serde_json::from_str(&failed).unwrap();
    assert_eq!(
        (
            &error["type"],
            &error["kind"],
            &error["code"],
            &error["message"],
            &error["exit"]
        ),
        (
            &json!("error"),
            &json!("status"),
            &json!("NOT_FOUND"),
            &json!("no order 0"),
            &json!(69)
        ),
    );
    let own = [
        "--json",
        "call",
        &shop.target,
        "shop.Orders.place",
        "id=0",
        "colour=Red",
    ];
    let error: serde_json::Value = serde_json::from_str(&iq(&own).await.failed(66)).unwrap();
    assert_eq!(error["error"], json!({"SoldOut": {"day": 9}}));
}

#[tokio::test]
async fn pretty_results_have_lines() {
    let shop = Fixture::new().await;
    let found = iq(&["call", &shop.target, "shop.Orders.find", "id=7", "--pretty"])
        .await
        .data();
    assert_eq!(
        found,
        "{\n  \"id\": 7,\n  \"colour\": \"Green\",\n  \"tags\": [],\n  \"note\": null\n}\n"
    );
}

#[tokio::test]
async fn one_way_calls_print_nothing() {
    let mut shop = Fixture::new().await;
    let told = iq(&["call", &shop.target, "shop.Orders.tell", "text=hello"]).await;
    assert_eq!(told.data(), "");
    assert_eq!(shop.event().await, Event::Told("hello".to_owned()));
}

#[tokio::test]
async fn metadata_comes_from_arguments_files_and_variables() {
    let (shop, home) = (Fixture::new().await, Home::new());
    let file = format!("token={}", home.write("token", "from a file\n"));
    for (option, value, wanted) in [
        ("--metadata", "token=given", "given"),
        ("--metadata-file", &*file, "from a file"),
        ("--metadata-env", "token=IQ_TEST_TOKEN", "from a variable"),
    ] {
        let mut command = home.command();
        command.env("IQ_TEST_TOKEN", "from a variable");
        command.args(["call", &shop.target, "shop.Orders.caller", option, value]);
        let caller = crate::common::Ran::of(command).await.data();
        assert_eq!(caller, format!("\"{wanted}\"\n"));
    }
    let missing = [
        "call",
        &shop.target,
        "shop.Orders.caller",
        "--metadata-env",
        "token=IQ_NONE",
    ];
    assert!(home.iq(&missing).await.failed(2).contains("`IQ_NONE`"));
}

#[tokio::test]
async fn errors_about_metadata_do_not_show_its_value() {
    let (shop, home) = (Fixture::new().await, Home::new());
    let text = format!(
        "[targets.shop]\naddress = \"{}\"\n[targets.shop.metadata-env]\ntoken = \"IQ_TOKEN\"\n",
        shop.target
    );
    home.write("config/iq/config.toml", text);
    std::fs::write(home.0.join("latin1"), b"SECRET\xff").unwrap();
    let file = format!("token={}", home.0.join("latin1").display());
    let target = &*shop.target;
    for (target, options, reason) in [
        (
            target,
            &["--metadata-env", "token=IQ_TOKEN"][..],
            "`IQ_TOKEN` is not UTF-8",
        ),
        (
            "shop",
            &[],
            "`metadata-env.token` of `shop`: the environment variable `IQ_TOKEN` is not",
        ),
        (target, &["--metadata-file", &file], "latin1: "),
        (
            target,
            &["-m", "authorization:SECRET"],
            "'--metadata <KEY=VALUE>': there is no `=`",
        ),
        ("http://me:SECRET@h", &[], "`http://***@h`"),
    ] {
        let mut command = home.command();
        command.env("IQ_TOKEN", OsStr::from_bytes(b"SECRET\xff"));
        command
            .args(["call", target, "shop.Orders.caller"])
            .args(options);
        let error = crate::common::Ran::of(command).await.failed(2);
        assert!(error.contains(reason), "{error}");
        assert!(!error.contains("SECRET"), "{error}");
    }
}

#[tokio::test]
async fn keys_of_metadata_may_be_in_upper_case() {
    let shop = Fixture::new().await;
    let caller = [
        "call",
        &shop.target,
        "shop.Orders.caller",
        "-m",
        "Token=given",
    ];
    assert_eq!(iq(&caller).await.data(), "\"given\"\n");
}

#[tokio::test]
async fn a_server_without_descriptions_is_called_by_path_or_by_a_saved_schema() {
    let (shop, hidden) = (
        Fixture::new().await,
        Fixture::with(|server| server.describe(false)).await,
    );
    let home = Home::new();
    let target = &*hidden.target;
    let error = home
        .iq(&["call", target, "shop.Orders.find", "id=7"])
        .await
        .failed(64 + 12);
    assert!(error.contains("--schema FILE"), "{error}");
    let by_path = ["call", target, "/shop.Orders/find", r#"{"id":7}"#];
    assert!(home.iq(&by_path).await.data().starts_with("{\"id\":7,"));
    let pairs = ["call", target, "/shop.Orders/find", "id=7"];
    assert!(home.iq(&pairs).await.failed(2).contains("--schema FILE"));

    let saved = home.iq(&["schema", "save", &shop.target]).await.data();
    let file = home.write("shop.schema.json", saved);
    let with_schema = [
        "call",
        target,
        "shop.Orders.find",
        "id=7",
        "--schema",
        &file,
    ];
    assert!(home.iq(&with_schema).await.data().starts_with("{\"id\":7,"));
}

#[tokio::test]
async fn verbose_tells_where_the_time_goes_and_quiet_nothing() {
    let shop = Fixture::new().await;
    let find = ["call", &shop.target, "shop.Orders.find", "id=7", "-t", LONG];
    let ran = iq(&[&find[..], &["--verbose"]].concat()).await;
    assert_eq!(ran.code, Some(0));
    for text in [
        "resolve and connect",
        "TLS and hello",
        &shop.target,
        "the call took",
    ] {
        assert!(ran.err.contains(text), "{text}: {}", ran.err);
    }
    let quiet = iq(&[&find[..], &["--quiet"]].concat()).await;
    assert!(quiet.data().starts_with('{'));
    assert!(
        iq(&[&find[..], &["--quiet", "--verbose"]].concat())
            .await
            .code
            == Some(2)
    );
}
