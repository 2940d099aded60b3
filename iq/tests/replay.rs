//! `iq replay`.

use iip_rpc::interceptor::{Completion, Next, ServerCall, ServerInterceptor};
use iip_rpc::{Server, Status};
use serde_json::{Value, json};

use crate::bank::{
    Accounts as _, AccountsClient, Change, PASSWORD, Recorder, TOKEN, bank, bank_with,
    call_everything, file, replay_at,
};
use crate::common::{Home, LONG, Ran, json_lines};

/// Makes a recording with a call of every kind.
async fn recorded() -> Home {
    recorded_at(bank(Change::Nothing).await).await
}

async fn recorded_at(server: Server) -> Home {
    let (home, to) = (Home::new(), server.target().to_string());
    let recorder = Recorder::start(&home, &to, &["--payloads"]).await;
    let client = recorder.client().await;
    call_everything(&client).await;
    drop(client);
    let stopped = recorder.stop().await;
    assert_eq!((stopped.code, &*stopped.err), (Some(0), ""));
    home
}

/// Repeats the calls of the recording against a bank.
async fn replay(home: &Home, change: Change, more: &[&str]) -> Ran {
    let server = bank(change).await;
    let to = server.target().to_string();
    replay_at(home, &to, more).await
}

/// Returns the fields that differ, with the names of the methods.
fn fields(lines: &[Value]) -> Vec<(String, String)> {
    let differences = lines.iter().filter(|line| line["type"] == "difference");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    differences
        .map(|line| (text(&line["method"]), text(&line["field"])))
        .collect()
}

fn summary(lines: &[Value]) -> &Value {
    lines
        .last()
        .filter(|line| line["type"] == "summary")
        .unwrap()
}

#[tokio::test]
async fn an_equal_server_gives_equal_replies_to_calls_of_every_kind() {
    let home = recorded().await;
    let ran = replay(&home, Change::Nothing, &["--force", "--json"]).await;
    let lines = ran.json();
    let expected = json!({
        "type": "summary",
        "calls": 10,
        "same": 10,
        "different": 0,
        "left_out": 0,
        "reasons": {},
    });
    assert_eq!(lines, [expected]);
}

#[tokio::test]
async fn only_calls_of_idempotent_methods_are_made_unless_forced() {
    let home = recorded().await;
    let ran = replay(&home, Change::Nothing, &[]).await;
    let text = ran.data();
    let expected = "calls: 6 made, 6 the same, 0 different\n\
                    left out: 4 not marked as idempotent (--force makes them)\n";
    assert_eq!(text, expected);
}

#[tokio::test]
async fn another_reply_is_shown_field_by_field() {
    let home = recorded().await;
    let ran = replay(&home, Change::Fields, &["--json"]).await;
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("2 replies differ"), "{}", ran.err);
    let lines = json_lines(&ran.out);
    let of = |method: &str, field: &str| (format!("bank.Accounts.{method}"), field.to_owned());
    let mut expected = vec![of("find", "name"), of("find", "tags")];
    for message in 0..3 {
        expected.push(of("list", &format!("messages[{message}].name")));
        expected.push(of("list", &format!("messages[{message}].tags")));
    }
    let mut found = fields(&lines);
    found.sort();
    assert_eq!(found, expected);
    let name = lines.iter().find(|line| line["field"] == "name").unwrap();
    assert_eq!(
        (&name["recorded"], &name["replayed"]),
        (&json!("Alice"), &json!("Bob"))
    );
    assert!(!ran.out.contains(TOKEN), "{}", ran.out);
    let ignored = ["--ignore", "name", "--ignore", "*.name", "--ignore", "tags"];
    let ran = replay(&home, Change::Fields, &[&ignored[..], &["--json"]].concat()).await;
    let fields = fields(&json_lines(&ran.out));
    assert!(
        fields.iter().all(|(_, field)| field.ends_with("].tags")),
        "{fields:?}"
    );
    assert_eq!((ran.code, fields.len()), (Some(1), 3));
    let ignored = [&ignored[..], &["--ignore", "messages.tags"]].concat();
    let ran = replay(&home, Change::Fields, &ignored).await;
    assert!(ran.data().starts_with("calls: 6 made, 6 the same"));
}

#[tokio::test]
async fn a_stream_with_fewer_messages_differs_whatever_is_ignored() {
    let home = recorded().await;
    let ignored = ["--ignore", "messages", "--ignore", "*", "--json"];
    let ran = replay(&home, Change::ShortStreams, &ignored).await;
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let lines = json_lines(&ran.out);
    let counts: Vec<_> = lines
        .iter()
        .filter(|line| line["field"] == "messages")
        .map(|line| (line["recorded"].clone(), line["replayed"].clone()))
        .collect();
    let of = |recorded: &str, replayed: &str| (json!(recorded), json!(replayed));
    assert_eq!(counts.len(), 2, "{}", ran.out);
    assert!(
        counts.contains(&of("3 messages", "2 messages")),
        "{counts:?}"
    );
    assert!(
        counts.contains(&of("2 messages", "1 message")),
        "{counts:?}"
    );
    assert_eq!(summary(&lines)["different"], 2);
}

#[tokio::test]
async fn codes_and_errors_are_compared() {
    let home = recorded().await;
    let ran = replay(&home, Change::Errors, &["--json"]).await;
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let lines = json_lines(&ran.out);
    let mut found: Vec<_> = fields(&lines).into_iter().map(|(_, field)| field).collect();
    found.sort();
    assert_eq!(found, ["Locked.day", "status.code", "status.message"]);
    assert!(!ran.out.contains(PASSWORD), "{}", ran.out);
    let code = lines
        .iter()
        .find(|line| line["field"] == "status.code")
        .unwrap();
    assert_eq!(
        (&code["recorded"], &code["replayed"]),
        (&json!("NOT_FOUND"), &json!("UNAVAILABLE"))
    );
}

/// Adds metadata to each reply.
struct Adds(&'static [(&'static str, &'static str)]);

impl ServerInterceptor for Adds {
    async fn intercept(
        &self,
        call: ServerCall,
        next: Next<ServerCall>,
    ) -> Result<Completion, Status> {
        for (key, value) in self.0 {
            call.context().set_reply_metadata(key, *value)?;
        }
        Ok(next.run(call).await)
    }
}

#[tokio::test]
async fn metadata_of_replies_are_compared_by_key() {
    const RECORDED: [(&str, &str); 4] = [
        ("a.b", "1"),
        ("gone", "x"),
        ("region", "eu"),
        ("token", TOKEN),
    ];
    let adding = async |metadata| {
        bank_with(Change::Nothing, |server| server.interceptor(Adds(metadata))).await
    };
    let home = recorded_at(adding(&RECORDED).await).await;
    let server = adding(&RECORDED).await;
    let ran = replay_at(&home, server.target(), &["--force"]).await;
    assert!(ran.data().contains("10 the same, 0 different"));
    let server = adding(&[
        ("a.b", "2"),
        ("new", PASSWORD),
        ("region", "us"),
        ("token", PASSWORD),
    ])
    .await;
    let to = server.target().to_string();
    let ran = replay_at(&home, &to, &["--json"]).await;
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let expected = [
        ("metadata.a.b", "1", "2"),
        ("metadata.gone", "x", "(missing)"),
        ("metadata.new", "(missing)", "(not shown)"),
        ("metadata.region", "eu", "us"),
    ];
    let mut lines = json_lines(&ran.out);
    assert_eq!(lines.pop().unwrap()["different"], 6, "{}", ran.out);
    // A value, an error, a status, and calls with streams of every kind.
    assert_eq!(lines.len(), 6 * expected.len(), "{}", ran.out);
    for of_call in lines.chunks(expected.len()) {
        for (found, (field, old, new)) in of_call.iter().zip(expected) {
            assert_eq!(
                (&found["field"], &found["recorded"], &found["replayed"]),
                (&json!(field), &json!(old), &json!(new)),
                "{}",
                ran.out
            );
        }
    }
    assert!(!ran.out.contains(PASSWORD), "{}", ran.out);
    let ignored = expected.map(|(field, ..)| ["--ignore", field]);
    for ignored in [ignored.as_flattened(), &["--ignore", "metadata"]] {
        let ran = replay_at(&home, &to, ignored).await;
        assert!(ran.data().contains("6 the same, 0 different"));
    }
}

#[tokio::test]
async fn a_cut_recording_is_used_up_to_its_last_whole_record() {
    let home = recorded().await;
    let whole = std::fs::read(file(&home)).unwrap();
    std::fs::write(file(&home), &whole[..whole.len() * 3 / 4]).unwrap();
    let ran = replay(&home, Change::Nothing, &["--force"]).await;
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert!(
        ran.err.contains("f.iqr was cut within the record at byte"),
        "{}",
        ran.err
    );
    assert!(ran.out.contains(", 0 different"), "{}", ran.out);
}

#[tokio::test]
async fn a_file_that_is_no_recording_or_damaged_is_a_clear_error() {
    let home = recorded().await;
    let text = home.write("text.iqr", "this is no recording at all");
    let show = home.iq(&["replay", &text, "--show"]).await;
    assert!(show.failed(2).contains("text.iqr is not a recording of iq"));
    let mut bytes = std::fs::read(file(&home)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file(&home), &bytes).unwrap();
    let ran = replay(&home, Change::Nothing, &["--force"]).await;
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    assert!(ran.err.contains("f.iqr is damaged at byte"), "{}", ran.err);
}

#[tokio::test]
async fn wrong_options_are_explained() {
    let home = recorded().await;
    let without = home.iq(&["replay", &file(&home)]).await.failed(2);
    assert!(without.contains("--to"), "{without}");
    let speed = ["--speed", "2"];
    let speed = replay(&home, Change::Nothing, &speed).await.failed(2);
    assert!(speed.contains("--speed"), "{speed}");
    let pace = home
        .iq(&["replay", &file(&home), "--to", "x:1", "--pace", "7"])
        .await;
    assert!(pace.failed(2).contains("50/s"));
}

#[tokio::test]
async fn a_call_waits_for_those_that_had_ended_before_it() {
    let (home, server) = (Home::new(), bank(Change::Nothing).await);
    let to = server.target().to_string();
    let recorder = Recorder::start(&home, &to, &["--payloads"]).await;
    let client = AccountsClient::connect(&*recorder.address).await.unwrap();
    for _ in 0..20 {
        assert_eq!(client.together().await.unwrap(), 1);
    }
    drop(client);
    recorder.stop().await;
    let ran = replay(&home, Change::Nothing, &[]).await;
    assert_eq!(ran.data(), "calls: 20 made, 20 the same, 0 different\n");
    // Twice as fast as recorded.
    let speed = [
        "replay",
        &file(&home),
        "--to",
        &to,
        "--speed",
        "2",
        "-t",
        LONG,
    ];
    let text = home.iq(&speed).await.data();
    assert_eq!(text, "calls: 20 made, 20 the same, 0 different\n");
}
