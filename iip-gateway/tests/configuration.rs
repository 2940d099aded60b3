//! The configuration file: mistakes are reported with their places.

use std::fs;
use std::path::Path;
use std::time::Duration;

use iip_gateway::config::{ConfigError, ConfigFile};

/// Does everything that the program does at its start, except for listening.
fn loaded(text: &str) -> Result<(), ConfigError> {
    let config = ConfigFile::parse("dir/gateway.toml", text)?;
    config.listeners()?;
    config.builder()?;
    config.live()?;
    Ok(())
}

const LISTEN: &str = "[[listen]]\naddress = \"127.0.0.1:0\"\n";

#[test]
fn a_mistake_has_its_line_and_column() {
    for (text, (line, column), reason) in [
        ("a = 1", (1, 1), "unknown field `a`"),
        ("[[listen]]\naddres = 1", (2, 1), "unknown field `addres`"),
        ("x = = 1", (1, 5), ""),
        ("", (1, 1), "there is no listener"),
        (
            "[[listen]]\naddress = \"here\"",
            (2, 11),
            "`here` is not an IP address with a port",
        ),
        (
            "[[listen]]\naddress = \"127.0.0.1:0\"\nalso_plain = true",
            (2, 11),
            "`also_plain` needs `tls`",
        ),
        (
            "[[listen]]\naddress = \"127.0.0.1:0\"\n\
             tls = { certificate = \"c\", key = \"k\", max_handshakes = 0 }",
            (3, 56),
            "nonzero",
        ),
        ("[limits]\nhead_timeout = 5", (2, 16), "a time such as"),
        ("[limits]\nhead_timeout = \"5\"", (2, 16), "a time such as"),
        (
            "[limits]\nmax_body_bytes = \"1MB\"",
            (2, 18),
            "a size such as",
        ),
        (
            "[limits]\nmax_body_bytes = -1",
            (2, 18),
            "a number of bytes",
        ),
        (
            "drain = \"1s\"\n[limits]\nmax_head_bytes = 1",
            (2, 1),
            "max_head_bytes: 1 is too small",
        ),
        (
            "trust = [\"10.0.0.0/8\", \"10.0.0.0/99\"]",
            (1, 24),
            "`10.0.0.0/99` is not a network",
        ),
        ("statuses = \"gO\"", (1, 12), "unknown variant `gO`"),
        ("[groups.a]\ntarget = \"::::\"", (2, 10), "option target"),
        (
            "[groups.a]\ntarget = \"a:1\"\ntyped = { prefx = \"\" }",
            (3, 11),
            "unknown field `prefx`",
        ),
        (
            "[groups.a]\ntarget = \"a:1\"\ntyped = { prefix = \"a b\" }",
            (3, 9),
            "typed: prefix: `a b` is not a path",
        ),
        (
            "[groups.a]\ntarget = \"a:1\"\n[groups.a.typed]\nmetadata = [\"a b\"]",
            (1, 1),
            "`a b` is not the name of a header",
        ),
        (
            "[groups.a]\npolicy = \"p2c\"",
            (1, 1),
            "missing field `target`",
        ),
        (
            "[groups.a]\ntarget = \"a:1\"\npolicy = \"best\"",
            (3, 10),
            "unknown variant `best`",
        ),
        (
            "[groups.a]\ntarget = \"a:1\"\npolicy = \"ring-hash\"",
            (1, 1),
            "`ring-hash` needs `hash`",
        ),
        (
            "[groups.a]\ntarget = \"a:1\"\nhash = \"x y\"",
            (1, 1),
            "neither \"client\" nor",
        ),
        ("[[routes]]\ngroup = \"a\"", (2, 9), "there is no group `a`"),
        ("[[routes]]\nhost = \"a\"", (1, 1), "a route has either"),
        (
            "[groups.a]\ntarget = \"a:1\"\n[[routes]]\ngroup = \"a\"\npattern = \"(\"",
            (5, 11),
            "unclosed group",
        ),
        (
            "[live]\naddress = \"here\"",
            (2, 11),
            "`here` is not an IP address with a port",
        ),
        (
            "[live]\naddress = \"0.0.0.0:9000\"",
            (2, 11),
            "say who may see the live page (option allow)",
        ),
        (
            "[live]\naddress = \"127.0.0.1:0\"\nallow = [\"all\"]",
            (3, 10),
            "`all` is not a network",
        ),
        (
            "[[routes]]\nrules_file = \"none.json\"",
            (2, 14),
            "none.json: No such file",
        ),
    ] {
        let text = if text.contains("listen") || text.is_empty() || text.contains("= =") {
            text.to_owned()
        } else {
            format!("{text}\n{LISTEN}")
        };
        let error = loaded(&text).unwrap_err();
        assert_eq!(error.place(), Some((line, column)), "{text}\n{error}");
        let shown = error.to_string();
        let place = format!("file dir/gateway.toml, line {line}, column {column}: ");
        assert!(
            shown.starts_with(&place) && shown.contains(reason),
            "{text}\n{shown}"
        );
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = ConfigFile::load("/nowhere/gateway.toml").unwrap_err();
    let shown = error.to_string();
    assert!(
        shown.starts_with("file /nowhere/gateway.toml: No such file"),
        "{shown}"
    );
    assert_eq!(error.place(), None);
}

#[test]
fn the_examples_of_the_documentation_work() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/gateway.md");
    let page = fs::read_to_string(page).unwrap();
    let examples: Vec<&str> = page
        .split("```toml\n")
        .skip(1)
        .map(|part| part.split("```").next().unwrap())
        .collect();
    assert!(!examples.is_empty());
    for example in examples {
        let config = ConfigFile::parse("gateway.toml", example).unwrap();
        assert!(config.drain() >= Duration::from_secs(1));
    }
}

#[tokio::test]
async fn the_documented_keys_of_typed_services_exist() {
    let document = include_str!("../../docs/gateway.md");
    let (_, section) = document.split_once("## Typed services").unwrap();
    let (_, block) = section.split_once("```toml\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    loaded(&format!("{LISTEN}{block}")).unwrap();
}
