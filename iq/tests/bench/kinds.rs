//! Loads of methods that are one-way, or take streams.

use std::collections::BTreeMap;

use iip_rpc::{Limits, Server, Status, service};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::one;
use crate::bank::{Change, Recorder, bank, file};
use crate::common::{Event, Fixture, Home, LONG, json_lines};

#[tokio::test]
async fn one_way_calls_all_arrive_and_the_report_tells_what_their_latency_is() {
    let mut shop = Fixture::new().await;
    let home = Home::new();
    let target = shop.target.clone();
    let call = ["bench", &target, "shop.Orders.tell", "text=a{{int 1..3}}"];
    for load in [
        &["-n", "300", "-c", "8", "--threads", "2"][..],
        &["-n", "300", "--rate", "3000"],
    ] {
        let ran = home.iq(&[&call[..], load, &["--json"]].concat()).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let objects = json_lines(&ran.out);
        let summary = one(&objects, "summary");
        assert_eq!(
            (&summary["ok"], &summary["errors"]),
            (&300.into(), &0.into())
        );
        assert_eq!(summary["plan"]["one_way"], true);
        let mut told = BTreeMap::new();
        for _ in 0..300 {
            *told.entry(format!("{:?}", shop.event().await)).or_insert(0) += 1;
        }
        let expected = ["a1", "a2", "a3"].map(|text| format!("{:?}", Event::Told(text.to_owned())));
        assert!(told.keys().eq(&expected), "{told:?}");
        let ran = home.iq(&[&call[..], load].concat()).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let text = ran.out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("until the call is queued to be written, not until it has run"));
        for _ in 0..300 {
            shop.event().await;
        }
    }
}

#[service]
trait Log {
    #[rpc(oneway)]
    async fn note(&self, text: String) -> Result<(), Status>;
}

struct Stuck;

impl Log for Stuck {
    async fn note(&self, _: String) -> Result<(), Status> {
        std::future::pending().await
    }
}

/// An address that passes on all bytes but those of `one_way` in the hello of the server.
async fn without_one_way_calls(to: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&to).await.unwrap();
            let ((mut from_client, mut to_client), (from_server, mut to_server)) =
                (client.into_split(), server.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
            tokio::spawn(async move {
                let (mut from_server, mut hello) = (BufReader::new(from_server), Vec::new());
                from_server.read_until(b'}', &mut hello).await?;
                let with = hello.windows(7).position(|part| part == b"one_way");
                hello[with.unwrap()] = b'O';
                to_client.write_all(&hello).await?;
                tokio::io::copy(&mut from_server, &mut to_client).await
            });
        }
    });
    address
}

#[tokio::test]
async fn one_way_calls_that_would_be_ordinary_ones_are_refused() {
    let shop = Fixture::new().await;
    let target = without_one_way_calls(shop.target.clone()).await;
    let home = Home::new();
    let call = ["bench", &target, "shop.Orders.tell", "text=a", "-n", "1"];
    let error = home.iq(&call).await.failed(2);
    assert!(error.contains("does not support one-way calls"), "{error}");
    let call = ["bench", &target, "shop.Orders.find", "id=7", "-n", "1"];
    assert_eq!(home.iq(&call).await.code, Some(0));
}

#[tokio::test]
async fn callers_wait_until_calls_are_one_way() {
    let (home, server) = (Home::new(), bank(Change::Nothing).await);
    let recorder = Recorder::start(&home, server.target(), &[]).await;
    let call = ["bench", &recorder.address, "bank.Accounts.tell"];
    let load = ["-n", "200", "-c", "50", "--timeout", LONG];
    let ran = home.iq(&[&call[..], &load].concat()).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    recorder.stop().await;
    let shown = home.iq(&["replay", &file(&home), "--show", "--json"]).await;
    let records = shown.json();
    // Only the first one has a reply, which nobody reads.
    let replies = records.iter().filter(|it| it["type"] == "reply");
    assert_eq!(replies.count(), 1, "{records:?}");
}

#[tokio::test]
async fn a_search_of_a_limit_tells_what_the_latency_of_a_one_way_call_is() {
    let shop = Fixture::new().await;
    let call = [
        "bench",
        &shop.target,
        "shop.Orders.tell",
        "text=a",
        "--json",
    ];
    let load = ["--find-limit", "p50>60s", "--step", "100ms", "--rate", "2"];
    let ran = Home::new().iq(&[&call[..], &load].concat()).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("One-way calls have no reply"), "{ran:?}");
}

#[tokio::test]
async fn callers_of_a_one_way_method_wait_for_a_server_that_does_not_read() {
    let limits = Limits::default().max_calls(2).max_buffered_bytes(1 << 20);
    let server = Server::builder().limits(limits);
    let server = server.service(LogServer::new(Stuck));
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let target = server.target().to_string();
    let call = ["bench", &target, "Log.note", "text={{string 16384}}"];
    let load = ["-c", "4", "--duration", "5s", "--timeout", "2s", "--json"];
    let ran = Home::new().iq(&[&call[..], &load].concat()).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let objects = json_lines(&ran.out);
    assert_eq!(one(&objects, "failures")["code"], "DEADLINE_EXCEEDED");
    assert!(
        ran.err.contains("one-way calls were not written in time"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn streams_of_the_client_are_sent_and_their_messages_are_counted() {
    let shop = Fixture::new().await;
    let home = Home::new();
    let file = home.write("numbers.jsonl", "1\n\n{{int 2..9}}\n3\n");
    let file = format!("@{file}");
    for (args, sent, received) in [
        (&["sum", "factor=2", "--message", "5"][..], 1, 0),
        (&["sum", "--messages", "0"], 0, 0),
        (
            &[
                "sum",
                "--message",
                "5",
                "--message",
                "{{int 1..9}}",
                "--messages",
                "7",
            ],
            7,
            0,
        ),
        (&["doubled"], 1, 1),
        (&["doubled", "--message", &file], 3, 3),
        (
            &["doubled", "--message", "4", "--messages", "2000"],
            2000,
            2000,
        ),
    ] {
        let method = format!("shop.Orders.{}", args[0]);
        let call = ["bench", &shop.target, &method];
        let load = ["-n", "20", "-c", "4", "--threads", "2", "--json"];
        let ran = home.iq(&[&call[..], &args[1..], &load].concat()).await;
        assert_eq!(ran.code, Some(0), "{args:?}: {ran:?}");
        let objects = json_lines(&ran.out);
        let summary = one(&objects, "summary");
        assert_eq!(
            (&summary["ok"], &summary["errors"]),
            (&20.into(), &0.into())
        );
        let messages = &summary["messages"];
        assert_eq!(
            (&messages["sent"], &messages["received"]),
            (&(20 * sent).into(), &(20 * received).into()),
            "{args:?}"
        );
    }
    let call = [
        "bench",
        &shop.target,
        "shop.Orders.doubled",
        "--messages",
        "3",
    ];
    let ran = home.iq(&[&call[..], &["-n", "10"]].concat()).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for part in [
        "3 messages per call\n",
        "\nsent            30  ",
        "\nreceived        30  ",
    ] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
}

#[tokio::test]
async fn a_stream_without_end_in_both_directions_has_failed_in_time() {
    let shop = Fixture::new().await;
    let count = u64::MAX.to_string();
    for method in ["shop.Orders.sum", "shop.Orders.doubled"] {
        let call = [
            "bench",
            &shop.target,
            method,
            "--messages",
            &count,
            "--json",
        ];
        let load = ["-c", "2", "-n", "2", "--timeout", "2s"];
        let ran = Home::new().iq(&[&call[..], &load].concat()).await;
        assert_eq!(ran.code, Some(1), "{ran:?}");
        let objects = json_lines(&ran.out);
        let failures = one(&objects, "failures");
        assert_eq!(
            (&failures["code"], &failures["count"]),
            (&"DEADLINE_EXCEEDED".into(), &2.into())
        );
    }
}

#[tokio::test]
async fn messages_that_do_not_fit_are_named() {
    let shop = Fixture::new().await;
    let home = Home::new();
    let [wrong, empty] = [("wrong.jsonl", "1\n-2\n"), ("empty.jsonl", "\n")]
        .map(|(name, text)| format!("@{}", home.write(name, text)));
    for (args, reason) in [
        (&["shop.Orders.sum", "--message", "x"][..], "--message: "),
        (
            &["shop.Orders.sum", "--message", "-1"],
            "shop.Orders.sum: --message: ",
        ),
        (
            &["shop.Orders.sum", "--message", "{{int -9..9}}"],
            "--message: ",
        ),
        (
            &["shop.Orders.sum", "--message", "{{word}}"],
            "is not a template",
        ),
        (
            &["shop.Orders.sum", "--message", &wrong],
            "wrong.jsonl, line 2: ",
        ),
        (
            &["shop.Orders.sum", "--message", &empty],
            "there is no message",
        ),
        (
            &["shop.Orders.find", "--message", "1"],
            "which shop.Orders.find does not",
        ),
        (
            &["shop.Orders.find", "--messages", "1"],
            "which shop.Orders.find does not",
        ),
        (
            &["/echo", "--message", "1", "-d", "a"],
            "cannot be used with",
        ),
        (
            &["shop.Orders.watch"],
            "shop.Orders.watch is a subscription",
        ),
    ] {
        let ran = home.iq(&[&["bench", &shop.target], args].concat()).await;
        let error = ran.failed(2);
        assert!(error.contains(reason), "{args:?}: {error}");
    }
}
