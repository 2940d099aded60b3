//! The tests that `docs/features.md` names exist, and every claim in it has one.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use crate::root;

/// Returns the rows of the tables: the cells of each, and its line.
fn rows(text: &str) -> Vec<(usize, Vec<&str>)> {
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| line.starts_with('|') && !line.starts_with("|---"))
        .map(|(at, line)| {
            let inner = line.trim_matches('|');
            (at + 1, inner.split('|').map(str::trim).collect())
        })
        .filter(|(_, cells): &(usize, Vec<&str>)| cells.first() != Some(&"feature"))
        .collect()
}

/// Returns the texts in backticks of the form `file.rs::function`, or `file.mjs::name`.
fn named_tests(cell: &str) -> impl Iterator<Item = (&str, &str)> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|code| code.split_once("::"))
}

/// Returns `true` if there is a function of this name with a test attribute right before it.
fn has_test(source: &str, name: &str) -> bool {
    let head = format!("fn {name}(");
    let lines: Vec<&str> = source.lines().map(str::trim_start).collect();
    lines.iter().enumerate().any(|(at, line)| {
        let is_function = line.starts_with(&head) || line.starts_with(&format!("async {head}"));
        let mut attributes = lines[..at].iter().rev();
        is_function
            && attributes
                .by_ref()
                .take_while(|line| line.starts_with("#[") || line.starts_with("//"))
                .any(|line| line.starts_with("#[test") || line.starts_with("#[tokio::test"))
    })
}

fn features() -> (&'static Path, String) {
    let root = root();
    let text = fs::read_to_string(root.join("docs/features.md")).expect("the table of features");
    (root, text)
}

#[test]
fn every_test_that_the_table_names_exists() {
    let (root, text) = features();
    let mut sources = HashMap::new();
    let mut named = 0;
    let mut missing = Vec::new();
    for (line, cells) in rows(&text) {
        for (file, test) in cells.iter().flat_map(|cell| named_tests(cell)) {
            named += 1;
            let source: &String = sources
                .entry(file.to_owned())
                .or_insert_with(|| fs::read_to_string(root.join(file)).unwrap_or_default());
            let exists = match file.ends_with(".mjs") {
                true => source.contains(&format!("\ntest('{test}', ")),
                false => has_test(source, test),
            };
            if !exists {
                missing.push(format!("line {line}: {file}::{test}"));
            }
        }
    }
    assert!(named > 50, "the table was not understood: {named} tests");
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_row_is_complete_and_claims_nothing_without_a_proof() {
    let (_, text) = features();
    let mut wrong = Vec::new();
    for (line, cells) in rows(&text) {
        let [.., here, proof] = &cells[..] else {
            panic!("line {line}: {cells:?}");
        };
        let claims = here.starts_with("yes") || here.starts_with("part");
        let denies = here.starts_with("no") || here.starts_with("planned");
        // The last cell names a test, or a page with measurements, or says that there is none.
        let proven = named_tests(proof).next().is_some() || proof.contains("](");
        let admitted = *proof == "no test yet";
        let fits = (claims && (proven || admitted)) || (denies && proof.is_empty());
        if cells.len() != 6 || !fits {
            wrong.push(format!("line {line}: {cells:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn tests_are_distinguished_from_other_functions() {
    let source = "#[test]\n#[ignore]\nfn one() {}\n\nfn two() {}\n#[tokio::test(start_paused = true)]\nasync fn three() {}";
    assert!(has_test(source, "one") && has_test(source, "three"));
    assert!(!has_test(source, "two") && !has_test(source, "on"));
}
