//! Completions, requested as by shells: with environment variables.

use tokio::net::TcpListener;
use tokio::process::Command;

use crate::common::{Fixture, Home, LONG, Ran};

/// Returns the completions of the last word.
async fn complete(home: &Home, shell: &str, words: &[&str]) -> Vec<String> {
    let mut command = home.command();
    command.env("COMPLETE", shell).arg("--").args(words);
    match shell {
        "zsh" => {
            let index = (words.len() - 1).to_string();
            command.env("_CLAP_COMPLETE_INDEX", index);
        }
        "bash" => {
            // bash breaks words at `:` and `=`.
            let parts: Vec<&str> = words.iter().flat_map(|word| broken(word)).collect();
            command = home.command();
            command
                .env("COMPLETE", shell)
                .env("_CLAP_COMPLETE_INDEX", (parts.len() - 1).to_string())
                .env("_IQ_COMPLETE_LINE", words.join(" "))
                .env("_IQ_COMPLETE_WORD", parts[parts.len() - 1])
                .arg("--")
                .args(parts);
        }
        _ => {}
    }
    command.env("IQ_COMPLETE_TIMEOUT", LONG);
    offered(command).await
}

/// Returns the completions that the program prints for a shell.
async fn offered(command: Command) -> Vec<String> {
    let ran = Ran::of(command).await;
    let lines = ran.data();
    // A description may follow.
    let values = lines
        .lines()
        .map(|line| line.split('\t').next().unwrap_or_default().to_owned());
    values.collect()
}

fn broken(word: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = word;
    while let Some(at) = rest.find([':', '=']) {
        if at > 0 {
            parts.push(&rest[..at]);
        }
        parts.push(&rest[at..=at]);
        rest = &rest[at + 1..];
    }
    if !rest.is_empty() || parts.is_empty() {
        parts.push(rest);
    }
    parts
}

#[tokio::test]
async fn services_methods_and_arguments_come_from_the_live_server() {
    let (shop, home) = (Fixture::new().await, Home::new());
    let target = &*shop.target;
    for shell in ["fish", "zsh", "bash"] {
        let methods = complete(&home, shell, &["iq", "call", target, "shop.Orders.f"]).await;
        assert_eq!(
            methods,
            ["shop.Orders.find", "shop.Orders.forever"],
            "{shell}"
        );
        let services = complete(&home, shell, &["iq", "list", target, "shop"]).await;
        assert_eq!(services, ["shop.Orders"], "{shell}");
        let args = complete(
            &home,
            shell,
            &["iq", "call", target, "shop.Orders.find", "d"],
        )
        .await;
        assert_eq!(args, ["detailed="], "{shell}");
        let fields = complete(
            &home,
            shell,
            &["iq", "call", target, "shop.Orders.place", "id=7", "co"],
        )
        .await;
        assert_eq!(fields, ["colour="], "{shell}");
        // There is no option among them, so that the shell adds their common prefix.
        let none = complete(
            &home,
            shell,
            &["iq", "call", target, "shop.Orders.find", ""],
        )
        .await;
        assert_eq!(none, ["id=", "detailed="], "{shell}");
        // A name that was given is not offered again, unless it is that of a list.
        for (words, wanted) in [
            (&["find", "id=7"][..], &["detailed="][..]),
            (&["find", "id:=7", "detailed=true"], &[]),
            (&["place", "id=7", "tags=a"], &["colour=", "tags=", "note="]),
        ] {
            let method = format!("shop.Orders.{}", words[0]);
            let line = [&["iq", "call", target, &method], &words[1..], &[""]].concat();
            let offered = complete(&home, shell, &line).await;
            assert_eq!(offered, wanted, "{shell}: {words:?}");
        }
        // Options are offered after a dash alone.
        for words in [&["top", target][..], &["drain", target], &["call", "a:1"]] {
            let offered = complete(&home, shell, &[&["iq"], words, &[""]].concat()).await;
            assert_eq!(offered, [""; 0], "{shell}: {words:?}");
            let options = complete(&home, shell, &[&["iq"], words, &["--js"]].concat()).await;
            assert_eq!(options, ["--json"], "{shell}: {words:?}");
        }
    }
    for shell in ["fish", "zsh"] {
        let words = ["iq", "call", target, "shop.Orders.place", "{\"id\":7,\"co"];
        assert_eq!(
            complete(&home, shell, &words).await,
            ["{\"id\":7,\"colour\":"],
            "{shell}"
        );
        let words = ["iq", "call", target, "shop.Orders.place", "'{\"id\":7,\"co"];
        assert_eq!(
            complete(&home, shell, &words).await,
            ["{\"id\":7,\"colour\":"],
            "{shell}, in quotes"
        );
        let options = ["iq", "-t", "5s", "call", "--json", target, "shop.Orders.fi"];
        assert_eq!(
            complete(&home, shell, &options).await,
            ["shop.Orders.find"],
            "{shell}"
        );
    }
}

#[tokio::test]
async fn what_a_server_has_said_is_remembered_for_a_while() {
    let (shop, home) = (Fixture::new().await, Home::new());
    let words = ["iq", "call", &shop.target, "shop.Orders.fi"];
    assert_eq!(complete(&home, "fish", &words).await, ["shop.Orders.find"]);
    shop.server.shutdown(std::time::Duration::ZERO).await;
    assert_eq!(complete(&home, "fish", &words).await, ["shop.Orders.find"]);

    // Ten minutes later, the server is asked again, and cannot be reached.
    let mut cached = std::fs::read_dir(home.0.join("cache/iq")).unwrap();
    let cached = cached.next().unwrap().unwrap().path();
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(600);
    let file = std::fs::File::options().write(true).open(cached).unwrap();
    file.set_modified(before).unwrap();
    assert_eq!(complete(&home, "fish", &words).await, [""; 0]);
}

#[tokio::test]
async fn failures_are_silent_and_short() {
    let home = Home::new();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    for target in ["127.0.0.1:1", &silent, "not a target", ""] {
        let mut command = home.command();
        // Only the time limit of completions is shorter than that of the test.
        let limits = ["-t", "24h", "--connect-timeout", "24h"];
        command
            .env("COMPLETE", "fish")
            .args(["--", "iq"])
            .args(limits);
        command.args(["call", target, "x"]);
        assert_eq!(offered(command).await, [""; 0], "{target}");
    }
    home.write("config/iq/config.toml", "wrong = 1");
    let words = ["iq", "call", "pr"];
    assert_eq!(complete(&home, "fish", &words).await, [""; 0]);
}

#[tokio::test]
async fn targets_of_the_configuration_and_commands_are_offered() {
    let home = Home::new();
    home.write(
        "config/iq/config.toml",
        "[targets.prod]\naddress = \"a:1\"\n",
    );
    assert_eq!(
        complete(&home, "fish", &["iq", "call", "pr"]).await,
        ["prod"]
    );
    assert_eq!(complete(&home, "fish", &["iq", "desc"]).await, ["describe"]);
    assert_eq!(
        complete(&home, "fish", &["iq", "schema", "ch"]).await,
        ["check"]
    );
    let codecs = complete(&home, "fish", &["iq", "schema", "check", "--codec", "n"]).await;
    assert_eq!(codecs, ["named"]);
}

#[tokio::test]
async fn a_saved_description_is_completed_from() {
    let (shop, home) = (Fixture::new().await, Home::new());
    let saved = home.iq(&["schema", "save", &shop.target]).await.data();
    let file = home.write("shop.json", saved);
    assert_eq!(
        complete(&home, "fish", &["iq", "describe", &file, "shop.Orders.w"]).await,
        ["shop.Orders.watch"]
    );
}
