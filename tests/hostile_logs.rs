//! Attacks on the readers of logs: bytes of a peer that move the cursor, forge lines or fill the
//! disk. All log records, at every level and on both sides, are checked before a formatter could
//! escape them.

use iip_core::{CallErrorKind, Client, HandlerError, Request, Response, Server, handler_fn};
use iip_rpc::{Status, service};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tracing::Level;

use crate::common::alone::alone;
use crate::common::authority::Authority;
use crate::common::calls::lazy;
use crate::common::frame::{RawFrame, brief};
use crate::common::logs::{Line, Logs};
use crate::common::peer::{Peer, accepted, drained, stream_to};
use crate::common::victim::{Victim, soon};
use crate::common::{bound, spawn, within};

/// Maximum number of bytes of a path that are logged.
const SHOWN: usize = 128;
/// Maximum length of a field: that number of bytes, each escaped as `\x1b`, in quotes.
const LONGEST: usize = SHOWN * 4 + 3;
/// Maximum number of log lines per connection, whatever the peer does.
const HANDFUL: usize = 4;

/// Colours, the title of the window, another line, a line that overwrites its beginning, a bell,
/// and the same as percent escapes and as a control character beyond ASCII.
const HOSTILE: [&str; 9] = [
    "\x1b[31mred",
    "\x1b]0;title\x07",
    "x\nERROR forged",
    "x\r\nERROR forged",
    "\x08\x08\x08\x7f",
    "%1b%5b31mred",
    "x%0aERROR forged",
    "\u{9b}31mred",
    "%c2%9b31mred",
];

/// Paths that contain this in every position, and one that is not text.
fn evil_paths() -> Vec<Vec<u8>> {
    let mut paths = vec![b"/\x9b31mred".to_vec()];
    for hostile in HOSTILE {
        paths.push(format!("/{hostile}").into());
        paths.push(format!("/x?{hostile}=1").into());
        paths.push(format!("//{hostile}/x").into());
    }
    paths
}

/// Paths of 2,000 bytes.
fn long_paths() -> [Vec<u8>; 3] {
    [&b"p"[..], b"\x1b[31m", b"\n"].map(|piece| {
        let rest = piece.iter().cycle().take(1_999);
        [b'/'].iter().chain(rest).copied().collect()
    })
}

/// Bytes that break the protocol, with hostile bytes where they may be logged: no frame at all, an
/// endless path, and for each path a frame without a body, with a body that is too large, on no
/// channel, from the wrong side, out of order, and cut. The statuses: of a whole message, of one of
/// the other side, and of the last frame of several.
fn violations([whole, wrong, last]: [u8; 3]) -> Vec<Vec<u8>> {
    let mut violations = vec![
        b"\x1b[31mred".to_vec(),
        b"\nERROR forged".to_vec(),
        b"\x9b31mred".to_vec(),
        [&[whole], &b"\x1b[31m".repeat(1_000)[..]].concat(),
    ];
    for path in evil_paths().iter().chain(&long_paths()) {
        violations.push(RawFrame::head(whole, path, 1, 0));
        violations.push(RawFrame::head(whole, path, 1, u32::MAX));
        violations.push(RawFrame::new(whole, path, 77, "x").encode());
        violations.push(RawFrame::new(wrong, path, 1, "x").encode());
        violations.push(RawFrame::new(last, path, 1, "x").encode());
        violations.push(RawFrame::head(whole, path, 1, 10)[..path.len()].to_vec());
    }
    violations
}

/// Checks that nothing in these lines acts on a terminal, starts another line or is long.
#[track_caller]
fn harmless(lines: &[Line]) {
    for line in lines {
        for (field, text) in &line.fields {
            assert!(!text.contains(char::is_control), "{field} in {line:?}");
            let bytes = text.len();
            assert!(bytes <= LONGEST, "{bytes} bytes of {field} in {line:?}");
            let whole = text.contains(&"p".repeat(SHOWN));
            assert!(!whole, "too much of the path: {field} in {line:?}");
        }
    }
}

/// The same, and that this number of connections has caused at most its share of lines.
#[track_caller]
fn harmless_and_few(lines: &[Line], connections: usize) {
    harmless(lines);
    assert!(!lines.is_empty(), "the ends of connections are logged");
    assert!(
        lines.len() <= HANDFUL * connections,
        "{connections} connections have cost {} lines",
        lines.len()
    );
}

#[test]
fn what_is_logged_raw_is_seen_raw() {
    let logs = Logs::default();
    tracing::subscriber::with_default(logs.clone(), || {
        tracing::trace!(shown = %HOSTILE[0], text = HOSTILE[1], debugged = ?HOSTILE[2], "{}", HOSTILE[3]);
    });
    let lines = logs.take();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].level, Level::TRACE);
    assert_eq!(lines[0].get("shown"), Some(HOSTILE[0]));
    assert_eq!(lines[0].get("text"), Some(HOSTILE[1]));
    assert_eq!(lines[0].get("debugged"), Some(r#""x\nERROR forged""#));
    assert_eq!(lines[0].get("message"), Some(HOSTILE[3]));
}

// ---- a hostile client

/// Panics in the way that the body names.
async fn panics(request: Request) -> Result<Response, HandlerError> {
    match &request.body()[..] {
        b"later" => tokio::task::yield_now().await,
        b"in its words" => panic!("no such path: {}", request.path()),
        _ => {}
    }
    panic!("no such path")
}

#[test]
fn a_handler_that_panics_has_its_path_logged_escaped_and_cut() {
    alone(
        "a_handler_that_panics_has_its_path_logged_escaped_and_cut",
        || async {
            let logs = Logs::captured();
            let (_server, addr) = bound(Server::builder().fallback(handler_fn(panics))).await;
            let mut attacks = Vec::new();
            for path in evil_paths().into_iter().chain(long_paths()) {
                attacks.push((path.clone(), "at once"));
                attacks.push((path.clone(), "later"));
                attacks.push((path, "in its words"));
            }
            for (path, body) in attacks {
                let mut peer = Peer::connect(addr).await;
                peer.open_channels(1).await;
                peer.send_frame(&RawFrame::request(&path, 1, body)).await;
                let reply = peer.frame().await.body_text();
                peer.finish_sending();
                peer.closed_in_silence().await;
                let lines = logs.take();
                harmless_and_few(&lines, 1);
                // Only text paths have a handler.
                let panicked = reply.contains("101");
                assert_eq!(panicked, std::str::from_utf8(&path).is_ok(), "{reply}");
                let logged: Vec<_> = lines.iter().filter_map(|line| line.get("path")).collect();
                assert_eq!(logged.len(), usize::from(panicked), "{}", brief(&path));
                if path.starts_with(b"/\x1b[31m") {
                    assert!(logged[0].contains(r"/\x1b[31m"), "{}", logged[0]);
                }
            }
        },
    );
}

#[test]
fn a_thousand_unknown_paths_cause_a_handful_of_lines() {
    alone(
        "a_thousand_unknown_paths_cause_a_handful_of_lines",
        || async {
            const REQUESTS: usize = 1_000;
            let logs = Logs::captured();
            let (_server, addr) = bound(Server::builder()).await;
            let mut peer = Peer::connect(addr).await;
            peer.open_channels(1).await;
            let paths: Vec<_> = evil_paths().into_iter().chain(long_paths()).collect();
            for path in paths.iter().cycle().take(REQUESTS) {
                peer.send_frame(&RawFrame::request(path, 1, "x")).await;
                assert_eq!(peer.frame().await.status, 5, "{}", brief(path));
            }
            peer.finish_sending();
            peer.closed_in_silence().await;
            harmless_and_few(&logs.take(), 1);
        },
    );
}

#[test]
fn frames_that_break_the_protocol_are_not_quoted() {
    alone("frames_that_break_the_protocol_are_not_quoted", || async {
        let logs = Logs::captured();
        let (_server, addr) = bound(Server::builder()).await;
        let attacks = violations([1, 5, 3]);
        for attack in &attacks {
            let mut peer = Peer::connect(addr).await;
            peer.open_channels(1).await;
            peer.send(attack).await;
            peer.finish_sending();
            peer.closed_in_silence().await;
        }
        harmless_and_few(&logs.take(), attacks.len());
    });
}

#[test]
fn handshakes_that_fail_are_not_quoted() {
    alone("handshakes_that_fail_are_not_quoted", || async {
        let logs = Logs::captured();
        let authority = Authority::new("a");
        let (_server, addr) = bound(Server::builder().tls(authority.closed_server())).await;
        let mut attacks: Vec<Vec<u8>> = HOSTILE.map(Into::into).into();
        for hostile in HOSTILE {
            attacks.push(RawFrame::request(hostile, 0, hostile).encode());
            // A handshake record, and an alert.
            let len = hostile.len() as u8;
            attacks.push([&[0x16, 3, 3, 0, len], hostile.as_bytes()].concat());
            attacks.push([&[0x15, 3, 3, 0, len], hostile.as_bytes()].concat());
        }
        for attack in &attacks {
            let mut stream = stream_to(addr).await;
            let _ = stream.write_all(attack).await;
            let _ = stream.shutdown().await;
            drained(&mut stream).await;
        }
        // A certificate that the server does not trust.
        let issued = Authority::new("b").issue("\x1b[31mred");
        let untrusted = authority.client().identity_pem(issued.chain, issued.key);
        let config = Client::builder().tls(untrusted.expect("a usable identity"));
        let connecting = config.connect(format!("localhost:{}", addr.port()));
        within("the rejection", connecting)
            .await
            .expect_err("an untrusted client is rejected");
        let connections = attacks.len() + 1;
        logs.until("a line for each connection", |lines| {
            let failed = |line: &&Line| line.get("message") == Some("tls handshake failed");
            lines.iter().filter(failed).count() >= connections
        })
        .await;
        harmless_and_few(&logs.take(), connections);
    });
}

#[test]
fn a_thousand_panics_of_one_connection_cause_a_hundred_lines() {
    alone(
        "a_thousand_panics_of_one_connection_cause_a_hundred_lines",
        || async {
            let logs = Logs::captured();
            let (_server, addr) = bound(Server::builder().fallback(handler_fn(panics))).await;
            let mut peer = Peer::connect(addr).await;
            peer.open_channels(1).await;
            for _ in 0..1000 {
                peer.send_frame(&RawFrame::request("/x", 1, "at once"))
                    .await;
                peer.frame().await;
            }
            let lines = logs.take();
            harmless(&lines);
            let panics = lines
                .iter()
                .filter(|line| format!("{line:?}").contains("panicked"));
            assert_eq!(panics.count(), 100);
            assert!(lines.len() <= 100 + HANDFUL, "{} lines", lines.len());
        },
    );
}

// ---- a hostile server

/// The same and a long one, as texts of a server.
fn hostile_words() -> impl Iterator<Item = String> {
    let words = HOSTILE.map(str::to_owned).into_iter();
    words.chain(["p".repeat(2_000)])
}

#[test]
fn the_text_of_a_rejection_reaches_the_caller_and_is_not_logged() {
    alone(
        "the_text_of_a_rejection_reaches_the_caller_and_is_not_logged",
        || async {
            let logs = Logs::captured();
            for hostile in hostile_words() {
                let rejection = json!({"code": 106, "message": hostile}).to_string();
                let rejection = RawFrame::reply("/sys/new_channel", 0, &rejection);
                let (victim, mut peer) = Victim::with_peer(Client::builder()).await;
                let call = victim.calls("/echo", "x");
                // A call after a rejection may ask for a channel again.
                let rejecting = async {
                    loop {
                        peer.replies_to_new_channel(&rejection).await
                    }
                };
                let error = tokio::select! {
                    outcome = soon("the rejection", call) => outcome.expect_err("there is no channel"),
                    () = rejecting => unreachable!("it does not end"),
                };
                let CallErrorKind::ChannelRejected { message, .. } = error.kind() else {
                    panic!("another error: {error:?}")
                };
                assert!(
                    !message.is_empty() && hostile.starts_with(message),
                    "{error:?}"
                );
                drop(victim);
                peer.closed().await;
                harmless_and_few(&logs.take(), 1);
            }
        },
    );
}

#[test]
fn invalid_grants_are_not_quoted() {
    alone("invalid_grants_are_not_quoted", || async {
        let logs = Logs::captured();
        for hostile in hostile_words() {
            for grant in [hostile.clone(), json!({"code": hostile}).to_string()] {
                let reply = RawFrame::reply("/sys/new_channel", 0, grant);
                // A first channel, and a later one.
                let (victim, mut peer) = Victim::with_peer(Client::builder()).await;
                let call = victim.calls("/echo", "x");
                peer.replies_to_new_channel(&reply).await;
                soon("the call", call).await.expect_err("no channel");
                peer.closed().await;
                let (victim, mut peer, _one) = Victim::with_channel(Client::builder()).await;
                let call = victim.calls("/echo", "x");
                peer.replies_to_new_channel(&reply).await;
                soon("the call", call).await.expect_err("no channel");
                peer.closed().await;
                harmless_and_few(&logs.take(), 2);
            }
        }
    });
}

#[test]
fn replies_with_hostile_paths_cause_a_handful_of_lines() {
    alone(
        "replies_with_hostile_paths_cause_a_handful_of_lines",
        || async {
            let logs = Logs::captured();
            for path in evil_paths().into_iter().chain(long_paths()) {
                let (victim, mut peer, channel) = Victim::with_channel(Client::builder()).await;
                let call = spawn(channel.request("/echo", "x"));
                peer.frame().await;
                // The reply names a path that was never requested.
                peer.send_frame(&RawFrame::reply(&path, 1, "x")).await;
                let error = soon("the end", call).await.expect_err("it is lost");
                let text = format!("{error:?}");
                assert!(!text.contains(char::is_control), "{text:?}");
                assert!(text.len() < 1_000, "{text:?}");
                peer.closed_in_silence().await;
                harmless_and_few(&logs.take(), 1);
                victim.is_served_by_a_new_connection().await;
                logs.take();
            }
        },
    );
}

#[test]
fn what_a_server_sends_against_the_protocol_is_not_quoted() {
    alone(
        "what_a_server_sends_against_the_protocol_is_not_quoted",
        || async {
            let logs = Logs::captured();
            let attacks = violations([5, 1, 7]);
            for attack in &attacks {
                let (_victim, mut peer, channel) = Victim::with_channel(Client::builder()).await;
                let call = spawn(channel.request("/echo", "x"));
                peer.frame().await;
                peer.send(attack).await;
                peer.finish_sending();
                soon("the call", call).await.expect_err("no reply");
                peer.closed_in_silence().await;
                harmless_and_few(&logs.take(), 1);
            }
        },
    );
}

#[service]
trait Echo {
    #[rpc(path = "/echo", raw)]
    async fn echo(&self, body: &[u8]) -> Result<Vec<u8>, Status>;
}

#[test]
fn a_hostile_reply_to_hello_and_hostile_failures_are_not_logged_raw() {
    alone(
        "a_hostile_reply_to_hello_and_hostile_failures_are_not_logged_raw",
        || async {
            let logs = Logs::captured();
            for hostile in hostile_words() {
                let failure = json!({"code": 102, "message": hostile}).to_string();
                for hello in [
                    &hostile,
                    &failure,
                    &json!({"iip": 1, &hostile: hostile}).to_string(),
                ] {
                    let (listener, client) = lazy(iip_rpc::Client::builder()).await;
                    let echo = EchoClient::new(client);
                    let call = spawn(async move { echo.echo(b"x").await });
                    let mut peer = Peer::over(accepted(&listener).await);
                    loop {
                        let frame = peer.frame().await;
                        let body = match &frame.path[..] {
                            b"/sys/hello" => hello.clone(),
                            b"/sys/new_channel" => json!({"code": 0, "channel_id": 1}).to_string(),
                            _ => failure.clone(),
                        };
                        let reply = RawFrame::reply(&frame.path, frame.channel, body);
                        peer.send_frame(&reply).await;
                        if frame.path == b"/echo" {
                            break;
                        }
                    }
                    let outcome = within("the failure", call).await.expect("no panic");
                    outcome.expect_err("it failed");
                    peer.closed().await;
                    harmless_and_few(&logs.take(), 1);
                }
            }
        },
    );
}

#[test]
fn a_certificate_with_a_hostile_name_is_rejected_without_quoting_it() {
    alone(
        "a_certificate_with_a_hostile_name_is_rejected_without_quoting_it",
        || async {
            let logs = Logs::captured();
            let authority = Authority::new("a");
            let clients = [authority.client(), Authority::new("b").client()];
            for hostile in HOSTILE.into_iter().filter(|hostile| hostile.is_ascii()) {
                let tls = authority.server_called(hostile);
                let (_server, addr) = bound(Server::builder().tls(tls)).await;
                for client in clients.clone() {
                    let target = format!("localhost:{}", addr.port());
                    let connecting = Client::builder().tls(client).connect(target);
                    let error = within("the rejection", connecting)
                        .await
                        .expect_err("this is not localhost");
                    assert!(matches!(error.kind(), CallErrorKind::Connect { .. }));
                }
                // The client's line, and the line of the server, whose certificate was rejected.
                logs.until("two lines for each connection", |lines| lines.len() >= 4)
                    .await;
                harmless_and_few(&logs.take(), 2);
            }
        },
    );
}
