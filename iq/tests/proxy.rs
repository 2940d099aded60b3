//! `iq record` as a proxy: forwarding, and the end of a recording.

use std::process::Stdio;

use iip_rpc::{Client, Compression};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::bank::{Change, PASSWORD, Recorder, bank, bank_with, call_everything, file, replay_at};
use crate::common::{GUARD, Home, LONG};

/// Returns the records of a kind.
async fn shown(home: &Home, kind: &str) -> Vec<Value> {
    let ran = home.iq(&["replay", &file(home), "--show", "--json"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let records = crate::common::json_lines(&ran.out);
    records
        .into_iter()
        .filter(|record| record["type"] == kind)
        .collect()
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, future)
        .await
        .expect("an end in time")
}

/// Checks that bytes arrive as they were sent.
async fn exchange(from: &mut TcpStream, to: &mut TcpStream, sent: &[u8]) {
    let mut got = vec![0; sent.len()];
    let both = async { tokio::join!(from.write_all(sent), to.read_exact(&mut got)) };
    let (written, read) = in_time(both).await;
    written.unwrap();
    read.unwrap();
    assert!(got == sent);
}

#[tokio::test]
async fn bytes_of_any_kind_are_passed_on_unchanged() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (home, to) = (Home::new(), server.local_addr().unwrap().to_string());
    let schema = home.write("bank.json", "");
    let saved = bank(Change::Nothing).await.target().to_string();
    let saved = ["schema", "save", &saved, "-o", &schema, "-q"];
    home.iq(&saved).await.data();
    let recorder = Recorder::start(&home, &to, &["--schema", &schema]).await;
    let mut client = TcpStream::connect(&*recorder.address).await.unwrap();
    let (mut accepted, _) = in_time(server.accept()).await.unwrap();
    // 100,000 bytes in each direction that are not frames.
    let sent: Vec<u8> = (0..100_000_u32)
        .map(|number| (number * 7 % 251) as u8)
        .collect();
    for _ in 0..2 {
        exchange(&mut client, &mut accepted, &sent).await;
        exchange(&mut accepted, &mut client, &sent).await;
    }
    // The end of one direction is forwarded, and the other direction continues.
    client.shutdown().await.unwrap();
    assert_eq!(in_time(accepted.read(&mut [0; 8])).await.unwrap(), 0);
    accepted.write_all(b"still here").await.unwrap();
    drop(accepted);
    let mut rest = Vec::new();
    in_time(client.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"still here");
    assert_eq!(recorder.stop().await.code, Some(0));
    let closed = shown(&home, "closed").await;
    assert_eq!(closed.len(), 1);
    assert!(closed[0]["unreadable"].is_string(), "{closed:?}");
}

#[tokio::test]
async fn every_codec_and_compression_is_recorded_without_secrets() {
    use iip_rpc::codec::CodecId;

    for codec in [
        CodecId::BINCODE,
        CodecId::POSTCARD,
        CodecId::JSON,
        CodecId::MSGPACK,
    ] {
        for compression in [Compression::zstd(), Compression::lz4()] {
            let compression = compression.above(0);
            let home = Home::new();
            let server = bank_with(Change::Nothing, |server| server.compression(compression)).await;
            let to = server.target().to_string();
            let recorder = Recorder::start(&home, &to, &["--payloads"]).await;
            let client = Client::builder().codec(codec).compression(compression);
            let client = client.connect(&*recorder.address).await.unwrap();
            let calls = call_everything(&client).await;
            drop(client);
            let stopped = recorder.stop().await;
            assert_eq!((stopped.code, &*stopped.err), (Some(0), ""), "{codec}");
            let bytes = std::fs::read(file(&home)).unwrap();
            let found = bytes
                .windows(PASSWORD.len())
                .any(|found| found == PASSWORD.as_bytes());
            assert!(!found, "{codec}");
            let expected = format!("calls: {calls} made, {calls} the same, 0 different\n");
            let text = replay_at(&home, &to, &["--force"]).await.data();
            assert_eq!(text, expected, "{codec}");
        }
    }
}

#[tokio::test]
async fn peers_without_envelopes_are_recorded_and_replayed() {
    let (home, server) = (Home::new(), bank(Change::Nothing).await);
    let to = server.target().to_string();
    let recorder = Recorder::start(&home, &to, &["--payloads"]).await;
    let client = recorder.client().await;
    let raw = client.raw();
    let login = format!(r#"{{"user":"alice","password":"{PASSWORD}"}}"#);
    raw.request("/bank.Accounts/login", login).await.unwrap();
    let locked = raw
        .request("/bank.Accounts/find", r#"{"id":1}"#)
        .await
        .unwrap();
    assert!(locked.starts_with(b"{\"code\":2"), "{locked:?}");
    raw.request("/echo?token=abc&x=1", "raw bytes")
        .await
        .unwrap();
    raw.request("/nowhere", "{}").await.unwrap();
    drop(client);
    recorder.stop().await;
    let bytes = std::fs::read(file(&home)).unwrap();
    for secret in [PASSWORD, "abc"] {
        let found = bytes
            .windows(secret.len())
            .any(|found| found == secret.as_bytes());
        assert!(!found, "{secret}");
    }
    let requests = shown(&home, "request").await;
    let login = json!({"login": {"user": "alice", "password": "***"}});
    assert_eq!(requests[0]["value"], login);
    assert_eq!(requests[2]["path"], "/echo?token=***&x=1");
    let replies = shown(&home, "reply").await;
    let locked = json!({"Locked": {"day": 7, "hint": "***"}});
    assert_eq!(
        (&replies[1]["outcome"], &replies[1]["value"]),
        (&json!("error"), &locked)
    );
    assert_eq!(replies[3]["code"], "UNIMPLEMENTED");
    let forced = replay_at(&home, &to, &["--force"]).await;
    assert_eq!(forced.data(), "calls: 4 made, 4 the same, 0 different\n");
    let text = replay_at(&home, &to, &[]).await.data();
    assert!(text.contains("left out: 1 without a description"), "{text}");
}

#[tokio::test]
async fn a_server_that_does_not_describe_itself_is_recorded_with_a_remark() {
    let home = Home::new();
    let server = bank_with(Change::Nothing, |server| server.describe(false)).await;
    let to = server.target().to_string();
    let recorder = Recorder::start(&home, &to, &["--payloads"]).await;
    let client = recorder.client().await;
    call_everything(&client).await;
    drop(client);
    let stopped = recorder.stop().await;
    assert!(
        stopped.err.contains("secrets in payloads are not known"),
        "{}",
        stopped.err
    );
    let text = replay_at(&home, &to, &["--force"]).await.data();
    // Without a description, the form of stream messages is not known.
    let expected = "calls: 6 made, 6 the same, 0 different\n\
                    left out: 4 whose messages cannot be written in JSON\n";
    assert_eq!(text, expected);
}

#[tokio::test]
async fn a_recorder_that_is_killed_leaves_a_readable_file() {
    let (home, server) = (Home::new(), bank(Change::Nothing).await);
    let to = server.target().to_string();
    let mut recorder = Recorder::start(&home, &to, &["--payloads"]).await;
    let client = recorder.client().await;
    call_everything(&client).await;
    // The writer flushes once its queue is empty.
    let replayed = async {
        loop {
            let requests = home.iq(&["replay", &file(&home), "--show"]).await;
            if requests
                .out
                .lines()
                .filter(|line| line.contains(" reply "))
                .count()
                >= 8
            {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    in_time(replayed).await;
    recorder.child.kill().await.unwrap();
    let ran = replay_at(&home, &to, &[]).await;
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert!(
        ran.err
            .contains("iq record was killed, or is still running"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn a_disk_that_is_too_slow_drops_records_and_does_not_slow_down_calls() {
    let (home, server) = (Home::new(), bank(Change::Nothing).await);
    let to = server.target().to_string();
    // An unread pipe holds 64 KiB.
    let made = std::process::Command::new("mkfifo")
        .arg(file(&home))
        .status();
    assert!(made.unwrap().success());
    let opened = file(&home);
    let reader = tokio::task::spawn_blocking(move || std::fs::File::open(opened).unwrap());
    let recorder = Recorder::start(&home, &to, &["--payloads"]).await;
    let mut reader = in_time(reader).await.unwrap();
    let client = recorder.client().await;
    let body = vec![b'x'; 8 * 1024 * 1024];
    // More than fits into the queue.
    for _ in 0..10 {
        let reply = in_time(client.raw().request("/echo", body.clone()))
            .await
            .unwrap();
        assert_eq!(reply.len(), body.len());
    }
    drop(client);
    let kept = home.0.join("kept.iqr");
    let target = kept.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let mut kept = std::fs::File::create(target).unwrap();
        std::io::copy(&mut reader, &mut kept).unwrap();
    });
    let stopped = recorder.stop().await;
    in_time(reading).await.unwrap();
    assert_eq!(stopped.code, Some(0), "{}", stopped.err);
    assert!(
        stopped.err.contains("dropped: the file could not"),
        "{}",
        stopped.err
    );
    let replay = [
        "replay",
        kept.to_str().unwrap(),
        "--to",
        &to,
        "--pace",
        "max",
        "-t",
        LONG,
        "--force",
    ];
    let ran = home.iq(&replay).await;
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert!(ran.err.contains(" dropped by the recorder"), "{}", ran.err);
}

#[tokio::test]
async fn the_payloads_of_another_build_are_left_out() {
    let (home, first) = (Home::new(), bank(Change::Nothing).await);
    let to = first.target().to_string();
    let recorder = Recorder::start(&home, &to, &["--payloads"]).await;
    first.shutdown(GUARD).await;
    let shop = crate::common::Fixture::with(|server| server).await;
    // Another server replaces it.
    let listener = TcpListener::bind(&*to).await.unwrap();
    let target = shop.target.clone();
    tokio::spawn(async move {
        loop {
            let (mut from, _) = listener.accept().await.unwrap();
            let mut to = TcpStream::connect(&*target).await.unwrap();
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    let client = recorder.client().await;
    client
        .raw()
        .request("/bank.Accounts/find", r#"{"id":1}"#)
        .await
        .unwrap();
    drop(client);
    let stopped = recorder.stop().await;
    assert!(
        stopped.err.contains("the server has another build now"),
        "{}",
        stopped.err
    );
    let requests = shown(&home, "request").await;
    assert!(requests[0]["left_out"].is_string(), "{requests:?}");
}

#[tokio::test]
async fn mistakes_are_found_before_anything_is_recorded() {
    let home = Home::new();
    let out = file(&home);
    let record = |more: &[&str]| {
        let mut command = home.command();
        command
            .args(["record", "-o", &out])
            .args(more)
            .stdout(Stdio::piped());
        crate::common::Ran::of(command)
    };
    let listen = ["--listen", "127.0.0.1:0"];
    let no_server = record(&[&listen[..], &["--to", "127.0.0.1:1"]].concat()).await;
    no_server.failed(3);
    let list = record(&[&listen[..], &["--to", "static:a:1,b:1"]].concat()).await;
    assert!(list.failed(2).contains("takes one address"));
    let size = record(&[&listen[..], &["--to", "a:1", "--max-size", "1GB"]].concat()).await;
    assert!(size.failed(2).contains("64KiB, 500MiB or 1GiB"));
    let server = bank(Change::Nothing).await;
    let to = server.target().to_string();
    let small = record(&[&listen[..], &["--to", &to, "--max-size", "1KiB"]].concat()).await;
    assert!(small.failed(2).contains("--max-size"));
    let used = record(&["--listen", &to, "--to", &to]).await;
    assert!(used.failed(1).contains("cannot listen"));
}
