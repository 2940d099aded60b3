//! Exit codes of the program, and the output on stdout and stderr.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::common::{Event, Fixture, GUARD, Home, Ran, iq, json_lines};
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
        assert!(ran.err.contains("error: "), "{args:?}: {ran:?}");
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
async fn mistakes_on_the_command_line_are_objects_with_the_message_alone() {
    for (args, message) in [
        (
            &["--json", "list"][..],
            "the following required arguments were not provided: <TARGET>",
        ),
        (
            &["--json", "schema"],
            "a command is missing: try `iq --help`",
        ),
        (
            &["--json", "list", "--nope", "a:1"],
            "unexpected argument '--nope' found; tip: to pass '--nope' as a value, use '-- --nope'",
        ),
    ] {
        let error: Value = serde_json::from_str(&iq(args).await.failed(2)).unwrap();
        assert_eq!(
            (&error["type"], &error["kind"]),
            (&"error".into(), &"usage".into())
        );
        assert_eq!(error["message"], message);
    }
    let error: Value = serde_json::from_str(&iq(&["--json", "lst"]).await.failed(2)).unwrap();
    assert_eq!(error["kind"], "usage");
}

#[tokio::test]
async fn with_json_every_line_on_stderr_is_an_object_with_a_type() {
    let (shop, home) = (Fixture::new().await, Home::new());
    let find = ["call", &*shop.target, "shop.Orders.find", "id=0"];
    let failed = home.iq(&[&find[..], &["-v", "--json"]].concat()).await;
    let lines = json_lines(&failed.err);
    let (errors, others): (Vec<_>, Vec<_>) = lines.iter().partition(|it| it["type"] == "error");
    assert_eq!((errors.len(), &errors[0]["code"]), (1, &"NOT_FOUND".into()));
    assert!(others.len() > 2, "{failed:?}");
    assert!(
        others
            .iter()
            .all(|it| it["type"] == "detail" && it["message"].is_string())
    );
    let folder = home.0.join("man");
    home.iq(&["man", path(&folder), "--json"]).await.json();
    let saved = home
        .iq(&["schema", "save", &shop.target, "--json"])
        .await
        .json();
    assert_eq!((saved.len(), &saved[0]["type"]), (1, &"schema".into()));
    assert_eq!(saved[0]["document"]["iip_schema"], 1);
}

#[tokio::test]
async fn a_dumb_terminal_gets_no_colours() {
    let there = Command::new("script").arg("--version").output().await;
    if there.is_err() {
        return;
    }
    let home = Home::new();
    for (term, is_coloured) in [("xterm", true), ("dumb", false)] {
        let mut command = Command::new("script");
        home.isolate(&mut command);
        let line = format!("{} list nowhere", env!("CARGO_BIN_EXE_iq"));
        let args = ["--quiet", "--return", "--command", &line, "/dev/null"];
        command.args(args).env("TERM", term);
        let ran = Ran::of(command).await;
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.out.contains("nowhere"), "{ran:?}");
        assert_eq!(ran.out.contains('\u{1b}'), is_coloured, "{term}: {ran:?}");
    }
}
