//! Raw requests, as Go's iq sends them.

use crate::common::{Fixture, Home, iq};

#[tokio::test]
async fn options_are_those_of_go_too() {
    let (shop, home) = (Fixture::new().await, Home::new());
    let uri = format!("{}/echo?lang=en", shop.target);
    let file = home.write("body", "from a file");
    let of_file = format!("-data-file={file}");
    for (args, wanted) in [
        (&[&*uri, "-d", "hello"][..], "hello"),
        (&["-data=x=y", &uri], "x=y"),
        (&["-data", "two words", "-timeout=50s", &uri], "two words"),
        (&["--data", "-1", "-t", "50s", &uri], "-1"),
        (&[&of_file, "-tls=0", &uri], "from a file"),
        (&[&uri], "{}"),
        (&[&*shop.target, "/echo", "-d", "apart"], "apart"),
    ] {
        assert_eq!(home.iq(args).await.data(), wanted, "{args:?}");
    }
    let stdin = home
        .iq_with(&[&uri, "--data-file", "-"], "from stdin")
        .await;
    assert_eq!(stdin.data(), "from stdin");
}

#[tokio::test]
async fn with_json_a_reply_is_an_object() {
    let shop = Fixture::new().await;
    let uri = format!("{}/echo", shop.target);
    let reply = iq(&["--json", &uri, "-d", "a\nb"]).await.json();
    assert_eq!(reply, [serde_json::json!({"type": "part", "data": "a\nb"})]);
    let home = Home::new();
    let file = home.write("bytes", [1, 255]);
    let reply = home
        .iq(&["--json", &uri, "--data-file", &file])
        .await
        .json();
    assert_eq!(
        reply,
        [serde_json::json!({"type": "part", "bytes": [1, 255]})]
    );
}

#[tokio::test]
async fn typed_methods_take_plain_json() {
    let shop = Fixture::new().await;
    let uri = format!("{}/shop.Orders/find", shop.target);
    assert!(
        iq(&[&uri, "-d", "{\"id\":7}"])
            .await
            .data()
            .starts_with("{\"id\":7,")
    );
}

#[tokio::test]
async fn errors_of_the_protocol_are_printed_and_have_their_exit_code() {
    let shop = Fixture::new().await;
    let ran = iq(&[&format!("{}/nowhere", shop.target)]).await;
    assert_eq!(ran.code, Some(64 + 12), "{ran:?}");
    assert_eq!(ran.out, r#"{"code":102,"message":"handle error"}"#);
    let ran = iq(&[
        &format!("{}/shop.Orders/find", shop.target),
        "-d",
        "{\"id\":0}",
    ])
    .await;
    assert_eq!(
        (ran.code, &*ran.out),
        (Some(69), r#"{"code":5,"message":"no order 0"}"#)
    );
}

#[tokio::test]
async fn mistakes_are_usage() {
    for (args, reason) in [
        (&[][..], "iq --help"),
        (&["lst"], "the closest command is `list`"),
        (&["127.0.0.1:1"], "localhost:7000/echo"),
        (&["127.0.0.1:1/echo", "-m", "a=b"], "no metadata"),
        (&["127.0.0.1:1/echo", "-t", "0s"], "more than zero"),
        (&["127.0.0.1:1/echo", "-timeout=5"], "500ms"),
        (
            &["127.0.0.1:1/echo", "-d", "a", "--data-file", "b"],
            "cannot be used with",
        ),
        (&["127.0.0.1:1/echo", "list", "x"], "before the command"),
    ] {
        let error = iq(args).await.failed(2);
        assert!(error.contains(reason), "{args:?}: {error}");
    }
}

#[tokio::test]
async fn calls_of_methods_are_pointed_to_iq_call() {
    let shop = Fixture::new().await;
    let target = &*shop.target;
    let apart = iq(&[target, "shop.Orders/find", "-d", "{}"])
        .await
        .failed(2);
    let hint = format!("write `iq call {target} shop.Orders/find`");
    assert!(apart.contains(&hint), "{apart}");
    let joined = iq(&[&format!("{target}/shop.Orders.find")]).await;
    let hint = format!("write `iq call {target} shop.Orders.find`");
    assert!(
        joined.code == Some(76) && joined.err.contains(&hint),
        "{joined:?}"
    );

    let joined = format!("{target}/shop.Orders/find");
    let error = iq(&["call", &joined, "id=7"]).await.failed(2);
    let hint = format!("write a space between them, as in `{target} shop.Orders/find`");
    assert!(error.contains(&hint), "{error}");

    for args in [
        &["cal", target][..],
        &["cal", target, "shop.Orders.find", "id=7"],
    ] {
        let error = iq(args).await.failed(2);
        assert_eq!(
            error,
            "error: `cal` is not a command; the closest command is `call`\n"
        );
    }
    for args in [&[target][..], &["bench", target, "-n", "3"]] {
        let error = iq(args).await.failed(2);
        assert!(
            error.contains("the METHOD of `iq call` or `iq bench` is missing"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn options_that_would_be_ignored_are_rejected() {
    let shop = Fixture::new().await;
    let target = &*shop.target;
    for (args, reason) in [
        (
            &["-d", "x", "call", target, "shop.Orders.find", "id=7"][..],
            "--data",
        ),
        (&["--data-file", "x", "list", target], "--data-file"),
        #[cfg(feature = "tls")]
        (
            &["list", target, "--server-name", "x"],
            "--server-name has no effect without TLS",
        ),
        #[cfg(feature = "tls")]
        (
            &["list", target, "--tls=false", "--ca", "x"],
            "--ca cannot be used with --tls=false",
        ),
        #[cfg(feature = "tls")]
        (
            &["list", target, "--insecure", "--ca", "x"],
            "cannot be used with '--ca <FILE>'",
        ),
        #[cfg(feature = "tls")]
        (
            &["serve", ".", "--tls=false", "--cert", "x"],
            "--cert cannot be used with --tls=false",
        ),
    ] {
        let error = iq(args).await.failed(2);
        assert!(error.contains(reason), "{args:?}: {error}");
    }
}
