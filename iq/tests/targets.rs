//! Targets: addresses of all forms, and named targets.

use crate::common::{Fixture, Home, LONG, iq};

#[tokio::test]
async fn a_server_that_is_not_there_is_reported_with_what_was_tried() {
    for target in ["127.0.0.1:1", "static:127.0.0.1:1,127.0.0.1:2"] {
        let error = iq(&["list", target, "-t", LONG]).await.failed(3);
        assert!(error.starts_with("error: "), "{error}");
        assert!(error.contains("127.0.0.1:1"), "{error}");
    }
    let error = iq(&["list", "unix:/nowhere/iip.sock"]).await.failed(3);
    assert!(error.contains("unix:/nowhere/iip.sock"), "{error}");
    let raw = iq(&["127.0.0.1:1/echo"]).await.failed(3);
    assert!(raw.contains("127.0.0.1:1"), "{raw}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_told_from_one_that_is_not_there() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let text = "the connection was accepted, but the server ";
    for (options, limit) in [
        (["--timeout", "300ms"], "within 300ms (option --"),
        (
            ["--connect-timeout", "200ms"],
            "within 200ms (option --connect-timeout)",
        ),
    ] {
        let list = [&["list", &*target], &options[..]].concat();
        let error = iq(&list).await.failed(3);
        assert!(error.contains(text) && error.contains(limit), "{error}");
    }
}

#[tokio::test]
async fn texts_of_the_library_have_the_names_of_the_command_line() {
    let (shop, home) = (Fixture::new().await, Home::new());
    let empty = home.write("empty", "");
    let error = home.iq(&["list", &empty]).await.failed(2);
    assert!(error.contains("save it by `iq schema save`"), "{error}");
    let error = home.iq(&["list", "grpc://a:1"]).await.failed(2);
    let text = "`grpc://` is not known; accepted are `host:port`";
    assert!(error.contains(text), "{error}");
    assert_eq!(error.contains("etcd://"), cfg!(feature = "etcd"), "{error}");
    let late = ["call", &shop.target, "shop.Orders.forever", "-t", "5s"];
    let error = home.iq(&late).await.failed(64 + 4);
    let text = "no reply in time (option --timeout) [may have executed, ";
    assert!(error.contains(text), "{error}");
}

#[tokio::test]
async fn lists_names_and_sockets_are_connected_to() {
    let (shop, home) = (Fixture::new().await, Home::new());
    let port = shop.target.rsplit(':').next().unwrap();
    let socket = format!("unix:{}", home.0.join("iip.sock").display());
    let _local = iip_rpc::Server::builder().bind(&*socket).await.unwrap();
    for target in [
        format!("static:{}", shop.target),
        format!("{}#3,{}#1", shop.target, shop.target),
        format!("dns://localhost:{port}"),
    ] {
        let ran = home.iq(&["list", &target, "-t", LONG]).await;
        assert_eq!(ran.data(), "shop.Orders\tTakes orders.\n", "{target}");
    }
    let ran = home.iq(&[&socket, "/nowhere"]).await;
    assert_eq!(ran.code, Some(64 + 12), "{ran:?}");
}

#[tokio::test]
async fn targets_of_the_configuration_have_their_settings() {
    let (shop, home) = (Fixture::new().await, Home::new());
    home.write("config/iq/token", "secret-of-a-file\n");
    let text = format!(
        "[targets.prod]\naddress = \"{}\"\ntimeout = \"{LONG}\"\n\
         [targets.prod.metadata-file]\ntoken = \"token\"\n",
        shop.target
    );
    home.write("config/iq/config.toml", &text);
    let caller = home
        .iq(&["call", "prod", "shop.Orders.caller"])
        .await
        .data();
    assert_eq!(caller, "\"secret-of-a-file\"\n");
    let verbose = home
        .iq(&["call", "prod", "shop.Orders.tell", "text=x", "-v"])
        .await;
    assert!(!verbose.err.contains("secret-of-a-file"), "{}", verbose.err);
    assert_eq!(home.iq(&["prod/echo", "-d", "hello"]).await.data(), "hello");
    let given = ["call", "prod", "shop.Orders.caller", "-m", "token=given"];
    assert_eq!(home.iq(&given).await.data(), "\"given\"\n");
    let error = home.iq(&["list", "prd"]).await.failed(2);
    assert!(error.contains("the closest is `prod`"), "{error}");
}

#[tokio::test]
async fn mistakes_of_the_configuration_have_a_line_and_a_column() {
    let home = Home::new();
    let file = home.write(
        "other.toml",
        "[targets.prod]\naddress = \"a:1\"\nport = 7\n",
    );
    let error = home
        .iq(&["list", "prod", "--config", &file])
        .await
        .failed(2);
    assert!(
        error.contains("other.toml, line 3, column 1: unknown field `port`"),
        "{error}"
    );
    let error = home
        .iq(&["list", "prod", "--config", "/nowhere.toml"])
        .await
        .failed(2);
    assert!(error.contains("/nowhere.toml"), "{error}");
}

#[tokio::test]
async fn mistakes_of_a_named_target_have_its_place_and_its_name() {
    let (shop, home) = (Fixture::new().await, Home::new());
    let target = format!("[targets.prod]\naddress = \"{}\"\n", shop.target);
    let caller = ["call", "prod", "shop.Orders.caller"];
    for (settings, option, reasons) in [
        (
            "timeout = \"5\"\n".to_owned(),
            ["-t", LONG],
            ["`timeout` of `prod`: ", "expected a time such as 500ms"],
        ),
        (
            "[targets.prod.metadata-file]\ntoken = \"none\"\n".to_owned(),
            ["-m", "token="],
            ["`metadata-file.token` of `prod`: ", "/none: "],
        ),
        (
            "[targets.prod.metadata-env]\nToken = \"IQ_NONE\"\n".to_owned(),
            ["-m", "Token="],
            ["`metadata-env.Token` of `prod`: ", "`IQ_NONE` is not set"],
        ),
        (
            format!(
                "[targets.prod.metadata]\ntoken = \"{}\"\n",
                "x".repeat(20_000)
            ),
            ["-m", "token="],
            ["`metadata.token` of `prod`: ", "bytes"],
        ),
    ] {
        let file = home.write("config/iq/config.toml", format!("{target}{settings}"));
        let error = home.iq(&caller).await.failed(2);
        assert!(
            error.contains(&format!("{file}, line 1, column 1: ")),
            "{error}"
        );
        assert!(
            reasons.iter().all(|reason| error.contains(reason)),
            "{error}"
        );
        // An option of the command line replaces the setting, which is then not used.
        let ran = home.iq(&[&caller[..], &option].concat()).await;
        assert_eq!(ran.data(), "\"\"\n", "{settings}");
    }
}

#[tokio::test]
async fn an_empty_variable_with_the_configuration_is_unset() {
    let (shop, home) = (Fixture::new().await, Home::new());
    let text = format!("[targets.prod]\naddress = \"{}\"\n", shop.target);
    let file = home.write("config/iq/config.toml", &text);
    for (variable, wanted) in [("", Some(0)), (&*file, Some(0)), ("/nowhere.toml", Some(2))] {
        let mut command = home.command();
        command.env("IQ_CONFIG", variable).args(["list", "prod"]);
        let ran = crate::common::Ran::of(command).await;
        assert_eq!(ran.code, wanted, "{variable}: {}", ran.err);
    }
}

#[cfg(not(feature = "etcd"))]
#[tokio::test]
async fn targets_of_features_that_are_left_out_name_the_feature() {
    let error = iq(&["list", "etcd://127.0.0.1:1/x"]).await.failed(2);
    assert!(error.contains("feature `etcd`"), "{error}");
}

#[cfg(feature = "etcd")]
#[tokio::test]
async fn an_etcd_that_is_not_there_is_reported() {
    let error = iq(&["list", "etcd://127.0.0.1:1/x", "-t", LONG])
        .await
        .failed(3);
    assert!(error.contains("127.0.0.1:1"), "{error}");
}

#[tokio::test]
async fn the_last_of_repeated_options_counts() {
    let (shop, home) = (Fixture::new().await, Home::new());
    let forever = ["call", &shop.target, "shop.Orders.forever"];
    let late = [&forever[..], &["-t", "24h", "-t", "5s"]].concat();
    let error = home.iq(&late).await.failed(64 + 4);
    assert!(error.contains("--timeout"), "{error}");
    let options = [
        "-q", "--json", "-q", "--json", "-m", "token=a", "-m", "tenant=b",
    ];
    let caller = ["call", &shop.target, "shop.Orders.caller", "-t", LONG];
    let told = home.iq(&[&caller[..], &options].concat()).await.json();
    assert_eq!(told[0]["value"], "a");
}
