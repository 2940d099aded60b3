//! The messages of mistakes in a service: one file in `ui/mistakes` for each group of messages,
//! compiled alone with the libraries that this test was built with.
//!
//! Messages of the compiler around ours change with its versions, so these are compared on one
//! toolchain only, the one that `EXPECTED` names. After a change of the messages,
//! `BLESS=1 cargo test -p iip-tests --test ui` writes them anew; read what it wrote.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

#[path = "common/cargo.rs"]
mod cargo;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use serde_json::Value;

use crate::cargo::cargo_test;

/// The toolchain whose words stand in `ui/mistakes/*.stderr`.
const EXPECTED: &str = "rustc 1.95.";

/// The crates that the files use.
const LIBRARIES: [&str; 4] = ["async_trait", "iip_rpc", "serde", "thiserror"];

/// The folder of the files.
const FOLDER: &str = "tests/ui/";

/// The folder of the workspace, in which the compiler runs as cargo runs it: then it finds the
/// sources of the libraries that its messages quote.
fn root() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests/ is in the workspace")
}

fn rustc() -> Command {
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// Returns the arguments with which the compiler finds the libraries.
///
/// Cargo knows where they are. It is asked about the whole workspace with all features, as in
/// `cargo test` in the root: then it has built them already.
fn libraries() -> Vec<OsString> {
    let mut cargo = cargo_test(root());
    cargo.args(["--no-run", "--workspace", "--test", "ui"]);
    cargo.args(["--message-format=json", "--quiet"]);
    let output = cargo.output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
    let mut found = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let message: Value = serde_json::from_str(line).unwrap();
        let Some(name) = message["target"]["name"].as_str() else {
            continue;
        };
        let files = message["filenames"].as_array().into_iter().flatten();
        let mut files = files.filter_map(Value::as_str).map(PathBuf::from);
        let library = files.find(|file| file.extension() != Some(OsStr::new("rmeta")));
        if let (true, Some(library)) = (LIBRARIES.contains(&name), library) {
            found.insert(name.to_owned(), library);
        }
    }
    assert_eq!(found.len(), LIBRARIES.len(), "{found:?}");
    let arguments = found.iter().flat_map(|(name, file)| {
        let folder = file.parent().unwrap();
        [
            OsString::from("--extern"),
            format!("{name}={}", file.display()).into(),
            "-L".into(),
            format!("dependency={}", folder.display()).into(),
        ]
    });
    arguments.collect()
}

/// Returns what the compiler says about this file.
fn messages(file: &Path, libraries: &[OsString]) -> String {
    let output = rustc()
        .args(["--edition=2024", "--crate-type=bin", "--emit=metadata"])
        .args(["--color=never", "--diagnostic-width=140", "--verbose"])
        .args(["-A", "dead_code", "--out-dir", env!("CARGO_TARGET_TMPDIR")])
        .args(libraries)
        .arg(file)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(!output.status.success(), "{} compiles", file.display());
    let text = String::from_utf8(output.stderr).unwrap();
    let messages = text.split("\n\n").map(str::trim_end);
    // Those after the summary, "error: aborting due to ..", belong to it.
    let messages = messages.take_while(|message| !message.starts_with("error: aborting"));
    let messages: Vec<String> = messages.map(independent).collect();
    messages.join("\n\n") + "\n"
}

/// Leaves out of a message what changes without it: line numbers and folders of other files than
/// the one with the mistake, and the number and order of all types that implement a trait.
fn independent(message: &str) -> String {
    /// The number of types that the compiler lists when it is not asked for all.
    const TYPES: usize = 8;
    let arrow = message.lines().find_map(|line| line.find("--> "));
    // The column of line numbers is as wide as the largest number of the message.
    let width = arrow.unwrap_or(0);
    let is_margin = |start: &str| start.chars().all(|c| c == ' ' || c.is_ascii_digit());
    let mut lines: Vec<(Option<String>, String)> = Vec::new();
    let (mut elsewhere, mut types) = (false, None);
    for line in message.lines() {
        let (margin, text) = match line.split_at_checked(width) {
            Some((margin, text)) if width > 0 && is_margin(margin) => (Some(margin.trim()), text),
            _ => (None, line),
        };
        let mut text = text.to_owned();
        if let Some(place) = text
            .strip_prefix("--> ")
            .or_else(|| text.strip_prefix("::: "))
        {
            let own = place.strip_prefix(FOLDER);
            elsewhere = own.is_none();
            let file = place.split(':').next().unwrap_or_default();
            let place = match (own, file.split_once("/library/")) {
                (Some(own), _) => own.to_owned(),
                (None, Some((_, file))) => format!("$RUST/{file}"),
                (None, None) => format!("$WORKSPACE/{file}"),
            };
            text.replace_range(4.., &place);
        }
        if text.contains(" types implement trait ") {
            types = Some(0);
        } else if let Some(count) = &mut types {
            if margin == Some("") && text.starts_with("        ") {
                *count += 1;
                if *count == TYPES + 1 {
                    text = "         and $N others".to_owned();
                } else if *count > TYPES {
                    continue;
                }
            } else {
                types = None;
            }
        }
        let margin = margin.map(|number| if elsewhere { "" } else { number }.to_owned());
        lines.push((margin, text));
    }
    let numbers = lines.iter().filter_map(|(margin, _)| margin.as_deref());
    let width = numbers.map(str::len).max().unwrap_or(0).max(1);
    let lines = lines.into_iter().map(|(margin, text)| match margin {
        Some(number) => format!("{number:>width$}{text}").trim_end().to_owned(),
        None => text,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn every_mistake_is_reported_where_it_is_with_what_to_write_instead() {
    let version = rustc().arg("--version").output().unwrap().stdout;
    let version = String::from_utf8_lossy(&version).into_owned();
    if !version.starts_with(EXPECTED) {
        println!("not compared: this is {version}");
        return;
    }
    let bless = std::env::var_os("BLESS").is_some();
    let folder = Path::new(FOLDER).join("mistakes");
    let entries = fs::read_dir(root().join(&folder)).unwrap();
    let files = entries.map(|entry| folder.join(entry.unwrap().file_name()));
    let files: Vec<PathBuf> = files
        .filter(|file| file.extension() == Some(OsStr::new("rs")))
        .collect();
    assert!(!files.is_empty(), "{FOLDER} was not understood");
    let libraries = libraries();
    let (files, different) = (Mutex::new(files), Mutex::new(Vec::new()));
    let compile = || {
        while let Some(file) = { files.lock().unwrap().pop() } {
            let messages = messages(&file, &libraries);
            let record = root().join(&file).with_extension("stderr");
            if bless {
                fs::write(&record, &messages).unwrap();
            } else if fs::read_to_string(&record).unwrap_or_default() != messages {
                println!("{} is reported as:\n{messages}", file.display());
                different.lock().unwrap().push(file);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(compile);
        }
    });
    let different = different.into_inner().unwrap();
    assert!(different.is_empty(), "other messages: {different:?}");
}
