//! Connections with TLS.

use iip_gateway::Http;
use iip_gateway::live::LivePage;
use iip_rpc::tls::ServerTls;
use rcgen::{CertifiedKey, generate_simple_self_signed};

use crate::common::{Fixture, Home, LONG, json_lines};

/// Starts a server with its own certificate for this host.
async fn secured(home: &Home) -> (Fixture, String) {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
    let tls = ServerTls::from_pem(cert.pem(), signing_key.serialize_pem()).unwrap();
    let shop = Fixture::with(|server| server.tls(tls)).await;
    (shop, home.write("ca.pem", cert.pem()))
}

#[tokio::test]
async fn certificates_are_verified_unless_told_otherwise() {
    let home = Home::new();
    let (shop, ca) = secured(&home).await;
    let uri = format!("{}/echo", shop.target);
    let unverified = home.iq(&["-tls=1", &uri, "-t", LONG]).await.failed(3);
    assert!(
        unverified.to_lowercase().contains("certificate"),
        "{unverified}"
    );
    let verified = home
        .iq(&["--ca", &ca, &uri, "-d", "safe", "-t", LONG])
        .await;
    assert_eq!(verified.data(), "safe");
    let insecure = home
        .iq(&["--insecure", &uri, "-d", "any", "-t", LONG])
        .await;
    assert_eq!((insecure.code, &*insecure.out), (Some(0), "any"));
    assert!(
        insecure.err.contains("accept any server certificate"),
        "{}",
        insecure.err
    );
    let json = home.iq(&["--insecure", &uri, "--json", "-t", LONG]).await;
    let lines = json_lines(&json.err);
    assert_eq!((lines.len(), &lines[0]["type"]), (1, &"log".into()));
    assert_eq!(lines[0]["level"], "WARN");
    let text = lines[0]["message"].to_string();
    assert!(
        text.contains("set the root certificate with --ca instead"),
        "{text}"
    );
    let name = [
        "--ca",
        &ca,
        "--server-name",
        "example.org",
        &uri,
        "-t",
        LONG,
    ];
    assert!(home.iq(&name).await.failed(3).contains("example.org"));
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_named_with_its_option_and_the_reason() {
    let home = Home::new();
    let nowhere = home.0.join("nowhere.pem").to_str().unwrap().to_owned();
    let reason = std::fs::read(&nowhere).unwrap_err();
    let folder = home.0.to_str().unwrap();
    let pair = ["--cert", &nowhere, "--key", &nowhere];
    let record = [
        "record",
        "--listen",
        "127.0.0.1:0",
        "--to",
        "a:1",
        "-o",
        "f",
    ];
    let listen = ["--listen-cert", &*nowhere, "--listen-key", &nowhere];
    for (args, option) in [
        (vec!["list", "a:1", "--ca", &nowhere], "--ca"),
        ([&["list", "a:1"], &pair[..]].concat(), "--cert and --key"),
        ([&["serve", folder], &pair[..]].concat(), "--cert and --key"),
        (
            [&record[..], &listen].concat(),
            "--listen-cert and --listen-key",
        ),
    ] {
        let error = home.iq(&args).await.failed(2);
        let wanted = format!("error: {option}: cannot read {nowhere}: {reason}\n");
        assert_eq!(error, wanted, "{args:?}");
    }
}

#[tokio::test]
async fn a_target_of_the_configuration_has_its_certificates() {
    let home = Home::new();
    let (shop, ca) = secured(&home).await;
    std::fs::create_dir_all(home.0.join("config/iq")).unwrap();
    std::fs::rename(ca, home.0.join("config/iq/ca.pem")).unwrap();
    let text = format!(
        "[targets.prod]\naddress = \"{}\"\nca = \"ca.pem\"\n",
        shop.target
    );
    home.write("config/iq/config.toml", text);
    assert_eq!(
        home.iq(&["prod/echo", "-d", "safe", "-t", LONG])
            .await
            .data(),
        "safe"
    );
    let key = ["prod/echo", "--cert", "/nowhere.pem"];
    assert!(home.iq(&key).await.failed(2).contains("--key"));
}

#[tokio::test]
async fn a_recorder_sees_the_calls_of_connections_with_tls_on_both_sides() {
    use crate::bank::{Recorder, replay_at};

    let home = Home::new();
    let (shop, ca) = secured(&home).await;
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
    let own = home.write("recorder.pem", cert.pem());
    let key = home.write("recorder.key", signing_key.serialize_pem());
    let tls = ["--ca", &ca, "--listen-cert", &own, "--listen-key", &key];
    let recorder =
        Recorder::start(&home, &shop.target, &[&tls[..], &["--payloads"]].concat()).await;
    let call = [
        "call",
        &recorder.address,
        "shop.Orders.find",
        "id=7",
        "--ca",
        &own,
        "-t",
        LONG,
    ];
    let order = home.iq(&call).await.data();
    assert!(order.contains("\"id\":7"), "{order}");
    let stopped = recorder.stop().await;
    assert_eq!((stopped.code, &*stopped.err), (Some(0), ""));
    let text = replay_at(&home, &shop.target, &["--ca", &ca]).await.data();
    assert_eq!(text, "calls: 1 made, 1 the same, 0 different\n");
}

#[tokio::test]
async fn live_pages_have_tls_by_their_address() {
    let home = Home::new();
    let names = vec!["127.0.0.1".to_owned()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
    let tls = ServerTls::from_pem(cert.pem(), signing_key.serialize_pem()).unwrap();
    let ca = home.write("ca.pem", cert.pem());
    let page = LivePage::new("secured").allow(|_| true).start();
    let http = Http::new().live(&page);
    let shop = Fixture::with(|server| server.tls(tls).fallback_protocol(http)).await;
    let url = format!("https://{}", shop.target);
    let verified = home.iq(&["top", &url, "--ca", &ca, "-t", LONG]).await;
    assert!(verified.data().starts_with("secured (process "));
    let unverified = home.iq(&["top", &url, "-t", LONG]).await.failed(3);
    assert!(
        unverified.to_lowercase().contains("certificate"),
        "{unverified}"
    );
}
