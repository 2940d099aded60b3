//! The statistics paths of a Go server, compared with what a Go server has replied.

use std::collections::BTreeMap;

use iip_core::{HandlerError, Request, Response, Server, ServerBuilder, handler_fn};
use serde_json::Value;

use crate::common::bound;
use crate::common::frame::RawFrame;
use crate::common::peer::Peer;
use crate::common::transcript::{Direction, Transcript, What};

/// The example server that was recorded.
fn example() -> ServerBuilder {
    let echo = || {
        handler_fn(|request: Request| async move {
            Ok::<_, HandlerError>(Response::from(request.into_body()))
        })
    };
    Server::builder()
        .route("/echo", echo())
        .route("/echo_benchmark", echo())
}

/// Plays the clients of a recording. Returns the recorded replies, each with ours, except for those
/// that are alike.
async fn replies(name: &str) -> Vec<(RawFrame, RawFrame)> {
    let (_server, addr) = bound(example().statistics(|_| true)).await;
    let transcript = Transcript::load(name);
    let mut peers = BTreeMap::new();
    let mut replies = Vec::new();
    for step in &transcript.steps {
        match &step.what {
            What::Connected => {
                peers.insert(step.connection, Peer::connect(addr).await);
            }
            What::Frame(Direction::ClientToServer, recorded) => {
                let peer = peers.get_mut(&step.connection).expect("it is connected");
                peer.send(&recorded.bytes).await;
            }
            What::Frame(Direction::ServerToClient, recorded) => {
                let peer = peers.get_mut(&step.connection).expect("it is connected");
                let ours = peer.frame().await;
                let theirs = recorded.frame.clone();
                assert_eq!((ours.status, ours.channel), (theirs.status, theirs.channel));
                assert_eq!(ours.path, theirs.path);
                if ours.path_text().starts_with("/sys/") && ours != theirs {
                    replies.push((theirs, ours));
                }
            }
            _ => {}
        }
    }
    replies
}

/// A text with `#` for every number.
fn shape(text: &str) -> String {
    let mut shape = String::new();
    for c in text.chars() {
        match c.is_ascii_digit() {
            true if shape.ends_with('#') => {}
            true => shape.push('#'),
            false => shape.push(c),
        }
    }
    shape
}

/// Compares a count of a Go server with ours: Go does not count the frames and bytes that it
/// receives (defect D30), which are `received`.
#[track_caller]
fn compare(theirs: &Value, ours: &Value, received: (u64, u64)) {
    for field in [
        "PacketsSent",
        "WholePacketSent",
        "WholePacketReceived",
        "BytesSent",
    ] {
        assert_eq!(ours[field], theirs[field], "{field}: {ours}");
    }
    let counted = (&ours["PacketReceived"], &ours["BytesReceived"]);
    assert_eq!(counted, (&received.0.into(), &received.1.into()), "{ours}");
}

fn json(frame: &RawFrame) -> Value {
    serde_json::from_slice(&frame.body).expect("it is JSON")
}

#[tokio::test]
async fn the_count_of_all_paths_is_that_of_go_with_what_was_received() {
    let replies = replies("sys_server_count").await;
    let [(theirs, ours), ..] = &replies[..] else {
        panic!("{replies:?}");
    };
    assert_eq!(shape(&ours.body_text()), shape(&theirs.body_text()));
    let requests: Vec<_> = Transcript::load("sys_server_count")
        .frames_of(0, Direction::ClientToServer)
        .into_iter()
        .map(|recorded| recorded.frame.clone())
        .take_while(|frame| !frame.path_text().starts_with("/sys/server"))
        .filter(|frame| !frame.path_text().starts_with("/sys/"))
        .collect();
    let bytes: usize = requests.iter().map(|frame| frame.encode().len()).sum();
    compare(
        &json(theirs),
        &json(ours),
        (requests.len() as u64, bytes as u64),
    );
}

#[tokio::test]
async fn the_count_of_a_path_is_that_of_go_with_what_was_received() {
    let replies = replies("sys_path_count").await;
    let [(echo, our_echo), (own, our_own)] = &replies[..] else {
        panic!("the replies about unknown paths are alike: {replies:?}");
    };
    compare(&json(echo), &json(our_echo), (1, 16));
    // Two requests about other paths came before.
    let (mut own, our_own) = (json(own), json(our_own));
    // Our first reply is longer, because it has the numbers of what was received.
    let longer = our_echo.body.len() - echo.body.len();
    own["BytesSent"] = (own["BytesSent"].as_u64().expect("a number") + longer as u64).into();
    compare(&own, &our_own, (2, 60));
}

#[tokio::test]
async fn measures_have_the_fields_of_go_and_count_the_calls() {
    for name in ["sys_server_measure", "sys_path_measure"] {
        let replies = replies(name).await;
        assert!(!replies.is_empty(), "the times differ");
        for (theirs, ours) in replies {
            assert_eq!(
                shape(&ours.body_text()),
                shape(&theirs.body_text()),
                "{name}"
            );
            let (theirs, ours) = (json(&theirs), json(&ours));
            assert_eq!(ours["all_requests"], theirs["all_requests"], "{name}");
            let sum = |value: &Value| {
                let slots = value["five_minute_requests"].as_array().expect("an array");
                slots.iter().filter_map(Value::as_u64).sum::<u64>()
            };
            assert_eq!(sum(&ours), sum(&theirs), "{name}");
        }
    }
}

/// The parts of a report, each about one path, in their order.
fn parts(report: &str) -> Vec<String> {
    let (total, paths) = report.split_once(&"-".repeat(35)).expect("there is a rule");
    let mut parts: Vec<_> = paths.split("\n\n\n").map(shape).collect();
    // Go writes them in any order.
    parts
        .iter_mut()
        .for_each(|part| *part = part.trim_start().to_owned());
    parts.sort();
    parts.insert(0, shape(total));
    parts
}

#[tokio::test]
async fn the_report_is_that_of_go() {
    let replies = replies("sys_statis").await;
    assert_eq!(replies.len(), 3);
    let mut averages = Vec::new();
    for (theirs, ours) in replies {
        let (theirs, ours) = (theirs.body_text(), ours.body_text());
        assert_eq!(parts(&ours), parts(&theirs));
        let average = ours
            .split("average duration: ")
            .nth(1)
            .expect("there is one");
        let average: u64 = average
            .split('\n')
            .next()
            .expect("a line")
            .parse()
            .expect("a number");
        averages.push(average);
        let first = ours.lines().next().expect("a line");
        assert!(first.contains("\"PacketReceived\":"), "{first}");
    }
    let [micros, nanos, _] = averages[..] else {
        panic!("three replies");
    };
    assert!(nanos > micros, "{averages:?}");
}

#[tokio::test]
async fn connections_are_listed_as_by_go_with_what_was_received() {
    let replies = replies("sys_connection_statis").await;
    let [(theirs, ours)] = &replies[..] else {
        panic!("{replies:?}");
    };
    let (theirs, ours) = (json(theirs), json(ours));
    let by_age = |value: &Value, first: &str| {
        let connections = value.as_object().expect("an object");
        let mut list: Vec<_> = connections.iter().collect();
        list.sort_by_key(|(_, connection)| connection["Channels"].get(first).is_none());
        list.into_iter()
            .map(|(_, connection)| connection.clone())
            .collect::<Vec<_>>()
    };
    // The first connection has a channel more.
    let pairs = by_age(&theirs, "2").into_iter().zip(by_age(&ours, "2"));
    let mut all = Vec::new();
    for (theirs, ours) in pairs {
        assert_eq!(ours["WriteQueue"], theirs["WriteQueue"]);
        let mut received = (0, 0);
        let channels = theirs["Channels"].as_object().expect("an object");
        for (id, theirs) in channels {
            let ours = &ours["Channels"][id];
            assert_eq!(ours["ReceiveQueue"], theirs["ReceiveQueue"]);
            // Of single channels, Go counts what it receives.
            let number = |field: &str| theirs["Count"][field].as_u64().expect("a number");
            let count = (number("PacketReceived"), number("BytesReceived"));
            compare(&theirs["Count"], &ours["Count"], count);
            received = (received.0 + count.0, received.1 + count.1);
        }
        let ours_channels = ours["Channels"].as_object().expect("an object");
        assert_eq!(ours_channels.len(), channels.len());
        compare(&theirs["Count"], &ours["Count"], received);
        all.push(received);
    }
    assert_eq!(all.len(), 2);
}

#[tokio::test]
async fn peers_that_may_not_read_statistics_get_the_reply_to_an_unknown_path() {
    let unknown = r#"{"code":102,"message":"handle error"}"#;
    for config in [example(), example().statistics(|_| false)] {
        let (server, addr) = bound(config).await;
        let mut peer = Peer::connect(addr).await;
        let channel = peer.open_channel().await;
        for path in ["/sys/server_count", "/sys/statis", "/sys/snapshot"] {
            let reply = peer.call(path, channel, "{}").await;
            assert_eq!(reply.body_text(), unknown, "{path}");
        }
        assert_eq!(server.stats().total().codes.ok(), 0);
    }
}

#[tokio::test]
async fn the_hook_sees_the_peer() {
    let (_server, addr) =
        bound(example().statistics(|peer| peer.addr().is_some_and(|addr| addr.ip().is_loopback())))
            .await;
    let mut peer = Peer::connect(addr).await;
    let channel = peer.open_channel().await;
    let reply = peer.call("/sys/server_count", channel, "{}").await;
    assert_eq!(json(&reply)["PacketsSent"], 0);
}

#[tokio::test]
async fn a_snapshot_has_what_was_counted() {
    let (server, addr) = bound(example().statistics(|_| true)).await;
    let mut peer = Peer::connect(addr).await;
    let channel = peer.open_channel().await;
    peer.call("/echo", channel, "hello").await;
    let reply = json(&peer.call("/sys/snapshot", channel, "{}").await);
    assert_eq!(reply["ready"], true);
    let methods = reply["methods"].as_array().expect("an array");
    let echo = methods.iter().find(|method| method["path"] == "/echo");
    let echo = echo.expect("it was called");
    assert_eq!(echo["codes"], serde_json::json!({"OK": 1}));
    let [from, to, calls] = [0, 1, 2].map(|at| echo["latency"][0][at].as_u64());
    assert!(from < to && calls == Some(1), "{echo}");
    assert_eq!(reply["connections"]["open"], 1);
    assert!(reply["connections"]["listed"][0]["received"].is_u64());
    drop(server);
}
