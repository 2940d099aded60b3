//! Check that `docs/protocol.md` defines the rules and defects that comments cite, and names
//! recordings that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::root;

/// Returns the first cells of the tables: the numbers that are defined.
fn defined(document: &str) -> BTreeSet<&str> {
    let rows = document.lines().filter_map(|line| line.strip_prefix("| "));
    let numbers = rows.filter_map(|row| row.split(' ').next());
    numbers.filter(|cell| is_number(cell)).collect()
}

/// Returns `true` for a letter, the kind, with one or two digits.
fn is_number(word: &str) -> bool {
    let digits = word.strip_prefix(['S', 'C', 'D']).unwrap_or_default();
    (1..=2).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the numbers in the comments of a source and, with `strings`, in its strings.
fn cited(source: &str, strings: bool) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for line in source.lines() {
        let comment = line.split_once("//").map(|(_, comment)| comment);
        let strings = strings.then(|| line.split('"').skip(1).step_by(2));
        for text in comment.into_iter().chain(strings.into_iter().flatten()) {
            let words = text.split(|c: char| !c.is_ascii_alphanumeric());
            found.extend(words.filter(|word| is_number(word)));
        }
    }
    found
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of this repository") {
        let path = entry.expect("an entry of it").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_rule_and_defect_that_is_cited_is_defined() {
    let document = fs::read_to_string(root().join("docs/protocol.md")).expect("the rules");
    let defined = defined(&document);
    let mut files = Vec::new();
    for folder in ["iip-core/src", "iip-rpc/src", "iip-macros/src", "tests"] {
        sources(&root().join(folder), &mut files);
    }
    let mut citations = 0;
    for file in files {
        let source = fs::read_to_string(&file).expect("a file of this repository");
        for number in cited(&source, file.ends_with("conformance/table.rs")) {
            citations += 1;
            let file = file.display();
            assert!(defined.contains(number), "{file} cites {number}");
        }
    }
    assert!(citations > 10, "only {citations} were found");
}

#[test]
fn every_recording_that_the_rules_name_exists() {
    let document = fs::read_to_string(root().join("docs/protocol.md")).expect("the rules");
    let recordings = root().join("tests/transcripts");
    let mut named = 0;
    for row in document.lines().filter(|line| line.starts_with("| ")) {
        let last = row.trim_matches('|').rsplit('|').next();
        let last = last.unwrap_or_default();
        for name in last.split('`').skip(1).step_by(2) {
            named += 1;
            let file = recordings.join(name).with_extension("json");
            assert!(file.exists(), "{name} in {row}");
        }
    }
    assert!(named > 20, "only {named} were found");
}
