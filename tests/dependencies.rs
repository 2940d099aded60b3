//! Licences, sources and reasons of the workspace's dependencies, with all features: their licences
//! are those that `deny.toml` allows, they come from the registry, and those of the libraries have
//! their reason in `docs/dependencies.md`. `cargo deny check` checks the same for all platforms,
//! and the advisories, for which it needs a network.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::root;

/// The licences that `deny.toml` allows.
fn allowed() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("deny.toml")).expect("the rules");
    let (_, list) = text.split_once("\nallow = [").expect("a list of licences");
    let (list, _) = list.split_once(']').expect("its end");
    list.split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// Parses an SPDX expression: alternatives of conjunctions, with parentheses at most one level
/// deep.
fn may_be_used(expression: &str, allowed: &BTreeSet<String>) -> bool {
    // `(A OR B) AND C`: every operand is required, and one of them is a list of alternatives.
    if let Some((group, rest)) = expression
        .strip_prefix('(')
        .and_then(|rest| rest.split_once(") AND "))
    {
        return may_be_used(group, allowed) && may_be_used(rest, allowed);
    }
    let expression = expression.replace('/', " OR ");
    expression.split(" OR ").any(|alternative| {
        let mut demands = alternative.split(" AND ").map(str::trim);
        demands.all(|licence| allowed.contains(licence))
    })
}

fn output(program: &str, arguments: &[&str]) -> String {
    let command = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .output();
    let output = command.expect("it runs");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
    String::from_utf8(output.stdout).expect("text")
}

/// All packages that are built here, with their manifests. Those of other platforms may not have
/// been downloaded.
fn packages() -> Vec<Value> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = output(&rustc, &["-vV"]);
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .expect("the platform");
    let arguments = ["metadata", "--format-version=1", "--all-features"];
    let filter = ["--offline", "--locked", "--filter-platform", host];
    let metadata = output(env!("CARGO"), &[&arguments[..], &filter[..]].concat());
    let mut metadata: Value = serde_json::from_str(&metadata).expect("JSON");
    match metadata["packages"].take() {
        Value::Array(packages) => packages,
        other => panic!("no packages: {other}"),
    }
}

#[test]
fn licences_are_understood() {
    let allowed = BTreeSet::from(["MIT", "ISC"].map(str::to_owned));
    let used = [
        "MIT",
        "GPL-3.0 OR MIT",
        "X/MIT",
        "MIT AND ISC",
        "(X OR ISC) AND MIT",
    ];
    assert!(used.iter().all(|licence| may_be_used(licence, &allowed)));
    let rejected = [
        "GPL-3.0",
        "MIT AND X",
        "(X OR Y) AND MIT",
        "(MIT OR Y) AND X",
        "",
    ];
    assert!(
        !rejected
            .iter()
            .any(|licence| may_be_used(licence, &allowed))
    );
}

#[test]
fn every_dependency_has_a_licence_that_is_allowed() {
    let allowed = allowed();
    let packages = packages();
    assert!(packages.len() > 100, "{} packages", packages.len());
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(may_be_used(licence, &allowed), "{name}: {licence:?}");
    }
}

#[test]
fn every_dependency_comes_from_one_registry() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("the lock file");
    let sources = lock
        .lines()
        .filter_map(|line| line.strip_prefix("source = "));
    let sources: Vec<&str> = sources.collect();
    assert!(sources.len() > 100, "{} sources", sources.len());
    let different: BTreeSet<&str> = sources.into_iter().collect();
    let registries = different
        .iter()
        .filter(|source| source.starts_with("\"registry+"));
    assert_eq!(
        (different.len(), registries.count()),
        (1, 1),
        "{different:?}"
    );
}

/// The dependencies of a library that are not for its tests only.
pub(crate) fn used_by(library: &str) -> BTreeSet<String> {
    let packages = packages();
    let package = packages.iter().find(|package| package["name"] == library);
    let dependencies = package.and_then(|package| package["dependencies"].as_array());
    let used = dependencies.expect("dependencies").iter();
    let used = used.filter(|used| used["kind"].is_null());
    let names = used.filter_map(|used| used["name"].as_str());
    names
        .filter(|used| !used.starts_with("iip-"))
        .map(str::to_owned)
        .collect()
}

/// The crates that the document names for a library, each with its public part.
pub(crate) fn reasons(library: &str) -> BTreeMap<String, String> {
    let document = root().join("docs/dependencies.md");
    let document = fs::read_to_string(document).expect("the reasons");
    let heading = format!("\n## {library}\n");
    let (_, section) = document.split_once(&heading).expect("a section");
    let section = section.split("\n## ").next().unwrap_or_default();
    // The first table.
    let lines = section.lines().skip_while(|line| !line.starts_with('|'));
    let rows = lines.map_while(|line| line.strip_prefix('|')).skip(2);
    let mut reasons = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row
            .trim_end_matches('|')
            .split(" | ")
            .map(str::trim)
            .collect();
        // After a name there may be its version and its feature, in parentheses.
        let names = cells.first().and_then(|cell| cell.split(" (").next());
        let public = cells.get(2).copied().unwrap_or_default();
        for name in names.unwrap_or_default().split(", ") {
            let name = name.split(' ').next().unwrap_or_default();
            reasons.insert(name.to_owned(), public.to_owned());
        }
    }
    reasons
}

#[test]
fn every_dependency_of_a_library_has_a_reason_and_every_reason_a_dependency() {
    for library in [
        "iip-core",
        "iip-rpc",
        "iip-build",
        "iip-rules",
        "iip-schema",
        "iip-discovery-etcd",
        "iip-files",
        "iip-gateway",
        "iq",
    ] {
        let named: BTreeSet<String> = reasons(library).into_keys().collect();
        assert_eq!(named, used_by(library), "{library}");
    }
}
