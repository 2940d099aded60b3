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
    assert_eq!(ended.status.code(), Some(141));
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), "");
}

#[tokio::test]
async fn commands_that_check_or_write_do_so_without_a_reader() {
    let (shop, home) = (Fixture::new().await, Home::new());
    let target = &*shop.target;
    let (old, new) = crate::check::both().await;
    let (old, new) = (old.target().to_string(), new.target().to_string());
    let find = ["bench", target, "shop.Orders.find", "id=7", "-n", "20"];
    let (saved, page) = (home.0.join("s.json"), home.0.join("h.html"));
    let files = ["--save", path(&saved), "--html", path(&page)];
    let written = home.iq_unread(&[&find[..], &files].concat()).await;
    assert_eq!(written.code, Some(0), "{written:?}");
    assert!(saved.is_file() && page.is_file());

    for args in [
        &[&find[..], &["--expect", "p99<1ns"]].concat()[..],
        &["schema", "check", &old, &new],
        &["diff", &old, &new],
    ] {
        let ran = home.iq_unread(args).await;
        assert_eq!(ran.code, Some(1), "{args:?}: {ran:?}");
        assert!(ran.err.starts_with("error: "), "{args:?}: {ran:?}");
    }
    let here = format!("{target}/nowhere");
    assert_eq!(home.iq_unread(&[&here]).await.code, Some(64 + 12));

    let file = home.0.join("saved.json");
    let save = ["schema", "save", target, "-o", path(&file), "--json"];
    assert_eq!(home.iq_unread(&save).await.code, Some(0));
    assert!(file.is_file());
}

#[tokio::test]
async fn commands_that_print_alone_end_quietly_without_a_reader() {
    let (shop, home) = (Fixture::new().await, Home::new());
    for args in [
        &["list", &*shop.target][..],
        &["describe", &shop.target, "--json"],
        &["health", &shop.target, "--watch"],
        &["call", &shop.target, "shop.Orders.find", "id=7"],
    ] {
        let ran = home.iq_unread(args).await;
        assert_eq!((ran.code, &*ran.err), (Some(141), ""), "{args:?}");
    }
}

fn path(path: &std::path::Path) -> &str {
    path.to_str().unwrap()
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
