//! Completions in bash itself, if it is installed.

use tokio::process::Command;

use crate::common::{Fixture, Home, LONG, Ran};

/// Returns the words that bash would offer for a line, as bash itself parses it.
async fn offered(home: &Home, line: &str) -> Vec<String> {
    // Programmable completion runs only for a real line, which `compgen` does not create. So the
    // function is called with the variables that bash sets.
    let script = format!(
        r#"
eval "$(COMPLETE=bash '{iq}')"
line="$1"
COMP_LINE="$line"; COMP_POINT=${{#line}}; COMP_TYPE=9
last="$2"
shift 2
COMP_WORDS=("$@")
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_iq_complete iq "$last" ""
printf '%s\n' "${{COMPREPLY[@]}}"
"#,
        iq = env!("CARGO_BIN_EXE_iq")
    );
    let (words, last) = split(line);
    let mut command = Command::new("bash");
    command
        .args(["--norc", "-c", &script, "bash", line, &last])
        .args(words);
    home.isolate(&mut command);
    command.env("IQ_COMPLETE_TIMEOUT", LONG);
    let ran = Ran::of(command).await;
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    ran.out
        .lines()
        .map(str::to_owned)
        .filter(|line| !line.is_empty())
        .collect()
}

/// Returns the words as bash splits them, and the one that is completed.
fn split(line: &str) -> (Vec<String>, String) {
    let mut words: Vec<String> = Vec::new();
    for word in line.split(' ') {
        let mut part = String::new();
        for c in word.chars() {
            if matches!(c, ':' | '=') {
                if !part.is_empty() {
                    words.push(std::mem::take(&mut part));
                }
                words.push(c.to_string());
            } else {
                part.push(c);
            }
        }
        if !part.is_empty() || word.is_empty() {
            words.push(part);
        }
    }
    let last = words.last().cloned().unwrap_or_default();
    let last = if matches!(&*last, ":" | "=") {
        String::new()
    } else {
        last
    };
    (words, last)
}

#[tokio::test]
async fn words_with_colons_are_completed() {
    if Command::new("bash")
        .arg("--version")
        .output()
        .await
        .is_err()
    {
        return;
    }
    let (shop, home) = (Fixture::new().await, Home::new());
    let target = &shop.target;
    for (line, wanted) in [
        (
            format!("iq call {target} shop.Orders.fi"),
            &["shop.Orders.find"][..],
        ),
        (
            format!("iq call {target} shop.Orders.find "),
            &["id=", "detailed="],
        ),
        (
            format!("iq call {target} shop.Orders.find id=7 de"),
            &["detailed="],
        ),
        (format!("iq list {target} "), &["shop.Orders"]),
        (
            format!("iq call {target} /shop.Orders/fi"),
            &["/shop.Orders/find"],
        ),
        ("iq he".to_owned(), &["health"]),
        ("iq --verb".to_owned(), &["--verbose"]),
    ] {
        let offered = offered(&home, &line).await;
        assert_eq!(offered, wanted, "{line}");
    }
}
