//! The commands of the README print the output shown there.

use tokio::process::Command;

use crate::bank::{Recorder, file};
use crate::common::{Home, Ran};
use crate::files::Serve;

#[allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "it is a program of its own"
)]
#[path = "../examples/shop.rs"]
mod shop;

/// Returns the commands of the README, each with its output.
fn transcript() -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    let mut within = false;
    for line in include_str!("../README.md").lines() {
        match (within, line) {
            (_, "```console") => within = true,
            (_, "```") => within = false,
            (true, line) => match (line.strip_prefix("$ "), commands.last_mut()) {
                (Some(command), _) => commands.push((command.to_owned(), String::new())),
                (None, Some((_, printed))) => {
                    printed.push_str(line);
                    printed.push('\n');
                }
                (None, None) => panic!("{line} follows no command"),
            },
            (false, _) => {}
        }
    }
    commands
}

#[tokio::test]
async fn commands_print_what_the_readme_says() {
    if Command::new("bash")
        .arg("--version")
        .output()
        .await
        .is_err()
    {
        return;
    }
    let server = shop::server().bind("127.0.0.1:0").await.unwrap();
    let (home, target) = (Home::new(), server.target().to_string());
    // In the README, the call is recorded in two terminals.
    let recorder = Recorder::start(&home, &target, &["--payloads"]).await;
    let call = ["call", &recorder.address, "shop.Orders.find", "id=7"];
    home.iq(&call).await.data();
    assert_eq!(recorder.stop().await.code, Some(0));
    std::fs::rename(file(&home), home.0.join("orders.iqr")).unwrap();
    let files = Serve::start(&home, &["--write"]).await;
    let commands = transcript();
    assert!(commands.len() > 15, "{commands:?}");
    for (command, printed) in commands {
        let line = command.replace("localhost:7000", &target);
        let line = line.replace("localhost:7001", &files.address);
        let script = "iq() { \"$IQ\" \"$@\"; }\n";
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", &format!("{script}{line}")]);
        bash.env("IQ", env!("CARGO_BIN_EXE_iq"))
            .current_dir(&home.0);
        home.isolate(&mut bash);
        let ran = Ran::of(bash).await;
        // A raw reply is printed without an additional line end.
        let said = format!("{}{}", ran.out, ran.err);
        assert_eq!(said.trim_end(), printed.trim_end(), "{command}");
    }
}
