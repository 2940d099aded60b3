//! Exit codes of the program, and the output on stdout and stderr.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};

use crate::common::{Event, Fixture, GUARD, Home, iq};
use crate::streams::interrupt;

#[tokio::test]
async fn a_reader_that_goes_ends_the_program_quietly() {
    let (shop, home) = (Fixture::new().await, Home::new());
    let mut command = home.command();
    command.args(["call", &shop.target, "shop.Orders.list", "count=1000000000"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next_line().await.unwrap().is_some());
    drop(lines);
    let ended = tokio::time::timeout(GUARD, child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), "");
}

#[tokio::test]
async fn an_interrupted_call_is_cancelled_at_the_server() {
    let (mut shop, home) = (Fixture::new().await, Home::new());
    let mut command = home.command();
    command.args(["call", &shop.target, "shop.Orders.forever", "-t", "24h"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    assert_eq!(shop.event().await, Event::Begun);
    interrupt(child.id().unwrap());
    assert_eq!(shop.event().await, Event::Cancelled);
    let status = tokio::time::timeout(GUARD, child.wait())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(status.code(), Some(130));
}

#[tokio::test]
async fn a_command_whose_output_is_not_read_can_be_interrupted() {
    let (shop, home) = (Fixture::new().await, Home::new());
    let mut command = home.command();
    command.args(["call", &shop.target, "shop.Orders.list", "count=1000000000"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next_line().await.unwrap().is_some());
    interrupt(child.id().unwrap());
    let ended = tokio::time::timeout(GUARD, child.wait()).await.unwrap();
    assert_eq!(ended.unwrap().code(), Some(130));
}

#[tokio::test]
async fn nothing_is_coloured_where_no_terminal_is() {
    let error = iq(&["call", "127.0.0.1:1", "x.y"]).await.failed(3);
    assert!(!error.contains('\u{1b}'), "{error:?}");
}

#[tokio::test]
async fn help_is_data_and_mistakes_are_not() {
    let help = iq(&["--help"]).await.data();
    for command in [
        "call", "list", "describe", "diff", "schema", "gen", "health", "stats", "man",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
    }
    assert!(help.contains("Exit codes"), "{help}");
    assert!(iq(&["--version"]).await.data().starts_with("iq "));
    assert!(iq(&["list"]).await.failed(2).contains("<TARGET>"));
}

#[tokio::test]
async fn mistakes_on_the_command_line_are_objects_with_json() {
    for args in [&["--json", "list"][..], &["--json", "lst"]] {
        let error: serde_json::Value = serde_json::from_str(&iq(args).await.failed(2)).unwrap();
        assert_eq!(
            (&error["type"], &error["kind"]),
            (&"error".into(), &"usage".into())
        );
    }
}
