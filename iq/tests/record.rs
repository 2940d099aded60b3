//! `iq record`.

use serde_json::{Value, json};

use crate::bank::{Change, PASSWORD, Recorder, TOKEN, bank, call_everything, file};
use crate::common::{Home, LONG};

fn contains(file: &[u8], text: &str) -> bool {
    file.windows(text.len())
        .any(|window| window == text.as_bytes())
}

/// Returns the records of the recording.
async fn shown(home: &Home) -> Vec<Value> {
    home.iq(&["replay", &file(home), "--show", "--json"])
        .await
        .json()
}

fn of_type<'a>(records: &'a [Value], kind: &str) -> Vec<&'a Value> {
    records
        .iter()
        .filter(|record| record["type"] == kind)
        .collect()
}

#[tokio::test]
async fn calls_of_every_kind_are_recorded_without_their_secrets() {
    let (home, server) = (Home::new(), bank(Change::Nothing).await);
    let more = ["--payloads", "--secret", "tenant"];
    let to = server.target().to_string();
    let recorder = Recorder::start(&home, &to, &more).await;
    let client = recorder.client().await;
    let calls = call_everything(&client).await;
    drop(client);
    let stopped = recorder.stop().await;
    assert_eq!(
        (stopped.code, &*stopped.err),
        (Some(0), ""),
        "{}",
        stopped.out
    );
    assert!(
        stopped
            .out
            .starts_with(&format!("calls: {calls} recorded to ")),
        "{}",
        stopped.out
    );
    let bytes = std::fs::read(file(&home)).unwrap();
    assert!(contains(&bytes, "alice") && contains(&bytes, "green"));
    for secret in [PASSWORD, TOKEN] {
        assert!(!contains(&bytes, secret), "{secret} is in the file");
    }
    let records = shown(&home).await;
    let requests = of_type(&records, "request");
    assert_eq!(requests.len() as u64, calls);
    let login = requests
        .iter()
        .find(|request| request["method"] == "bank.Accounts.login");
    let expected = json!({"login": {"user": "alice", "password": "***"}});
    assert_eq!(login.unwrap()["value"], expected);
    let metadata = json!({"authorization": "***", "colour": "green", "tenant": "***"});
    assert_eq!(login.unwrap()["metadata"], metadata);
    // The third price may be on its way when the subscription is dropped.
    let messages = of_type(&records, "server_message").len();
    assert!((3 + 2 + 2..=3 + 2 + 3).contains(&messages), "{messages}");
    assert_eq!(of_type(&records, "client_message").len(), 3 + 2);
    assert_eq!(of_type(&records, "cancelled").len(), 1);
    assert_eq!(records.last().unwrap()["reason"], "interrupted");
}

#[tokio::test]
async fn without_payloads_there_are_none() {
    let (home, server) = (Home::new(), bank(Change::Nothing).await);
    let to = server.target().to_string();
    let recorder = Recorder::start(&home, &to, &["--secret", "tenant"]).await;
    let client = recorder.client().await;
    call_everything(&client).await;
    drop(client);
    assert_eq!(recorder.stop().await.code, Some(0));
    let bytes = std::fs::read(file(&home)).unwrap();
    for text in ["alice", "Alice", "no account 0", PASSWORD, TOKEN] {
        assert!(!contains(&bytes, text), "{text} is in the file");
    }
    let records = shown(&home).await;
    let codes: Vec<_> = of_type(&records, "reply")
        .iter()
        .filter(|reply| reply["outcome"] == "status")
        .map(|reply| reply["code"].clone())
        .collect();
    assert!(codes.contains(&json!("NOT_FOUND")), "{codes:?}");
    let replay = home
        .iq(&["replay", &file(&home), "--to", "localhost:1"])
        .await;
    assert!(replay.failed(2).contains("record with --payloads"));
}

#[tokio::test]
async fn lines_for_people_tell_what_was_called() {
    let (home, server) = (Home::new(), bank(Change::Nothing).await);
    let to = server.target().to_string();
    let recorder = Recorder::start(&home, &to, &["--payloads"]).await;
    let call = [
        "call",
        &recorder.address,
        "bank.Accounts.find",
        "5",
        "-t",
        LONG,
    ];
    home.iq(&call).await.data();
    recorder.stop().await;
    let lines = home.iq(&["replay", &file(&home), "--show"]).await.data();
    let request = lines.lines().find(|line| line.contains("request")).unwrap();
    assert!(
        request.ends_with(r#"c1 #1 request bank.Accounts.find {"id":5}"#),
        "{lines}"
    );
    let reply = lines.lines().find(|line| line.contains(" reply ")).unwrap();
    assert!(
        reply.contains(r#"#1 reply bank.Accounts.find value {"balance":0."#),
        "{lines}"
    );
}

#[tokio::test]
async fn passing_on_goes_on_when_a_bound_is_reached() {
    for bound in [["--max-size", "8KiB"], ["--max-time", "1ms"]] {
        let (home, server) = (Home::new(), bank(Change::Nothing).await);
        let to = server.target().to_string();
        let recorder = Recorder::start(&home, &to, &[&["--payloads"], &bound[..]].concat()).await;
        let client = recorder.client().await;
        for _ in 0..20 {
            call_everything(&client).await;
        }
        drop(client);
        let stopped = recorder.stop().await;
        assert_eq!(stopped.code, Some(0), "{}", stopped.err);
        let noted = format!("the recording ended: {}", bound[0]);
        assert!(stopped.err.contains(&noted), "{}", stopped.err);
        let size = std::fs::metadata(file(&home)).unwrap().len();
        assert!(size <= 8 * 1024, "{size}");
        let records = shown(&home).await;
        let reason = records.last().unwrap()["reason"].as_str().unwrap();
        assert!(reason.starts_with(bound[0]), "{reason}");
    }
}
