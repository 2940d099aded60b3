//! Types of the examples and of the tests describe themselves as they are observed.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};

use iip_rpc::schema::check_derived;

use crate::common::calls::ShopError;

/// The examples with types of their own, which nobody runs here.
macro_rules! examples {
    ($($name:ident $path:literal)*) => { $(
        #[allow(dead_code, missing_docs, unreachable_pub, reason = "it is compiled for its types")]
        #[path = $path]
        mod $name;
    )* };
}

examples! {
    compression "../examples/features/compression.rs"
    go_style "../examples/go_style.rs"
    http "../examples/http/src/main.rs"
    protobuf "../examples/features/protobuf.rs"
    shop_server "../examples/shop_server.rs"
    two_builds "../examples/two_builds.rs"
    typed_errors "../examples/typed_errors.rs"
}

#[test]
fn types_are_described_as_they_are_observed() {
    check_derived::<compression::Order>().unwrap();
    check_derived::<go_style::User>().unwrap();
    check_derived::<http::Order>().unwrap();
    check_derived::<protobuf::RouteError>().unwrap();
    check_derived::<shop_server::NewOrder>().unwrap();
    check_derived::<shop_server::Order>().unwrap();
    check_derived::<shop_server::OrderError>().unwrap();
    check_derived::<shop_server::Payment>().unwrap();
    check_derived::<two_builds::old::Colour>().unwrap();
    check_derived::<two_builds::old::Order>().unwrap();
    check_derived::<two_builds::new::Colour>().unwrap();
    check_derived::<two_builds::new::Order>().unwrap();
    check_derived::<typed_errors::BankError>().unwrap();
    check_derived::<ShopError>().unwrap();
}

/// The files whose types are part of services, in which types without `Schema` are meant to be so.
const WITHOUT: [&str; 1] = ["tests/builds.rs"];

/// The names of the types that can be read, with whether they derive `Schema`. Those that macros
/// name are left out.
fn types(text: &str) -> Vec<(&str, bool)> {
    let mut found = Vec::new();
    for derive in text.split("#[derive(").skip(1) {
        let (derives, item) = derive.split_once(")]").expect("an end of the attribute");
        let has = |name: &str| words(derives).any(|word| word == name);
        let mut words = words(item).skip_while(|word| !matches!(*word, "struct" | "enum"));
        let name = words.nth(1).unwrap_or_default();
        if has("Deserialize") && !name.starts_with('$') {
            found.push((name, has("Schema")));
        }
    }
    found
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|char: char| !char.is_alphanumeric() && char != '$');
    words.filter(|word| !word.is_empty())
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of this repository") {
        let path = entry.expect("an entry of it").path();
        if path.is_dir() && !path.ends_with("target") && !path.ends_with("ui") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The name of the module here that has the example in a file.
fn module_of(file: &Path) -> String {
    let mut parts = file.iter().filter_map(|part| part.to_str()).rev();
    let name = parts.find(|part| !matches!(*part, "main.rs" | "src"));
    name.unwrap_or_default().trim_end_matches(".rs").to_owned()
}

#[test]
fn every_type_of_a_service_is_compared() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for folder in ["examples", "tests", "iip-rpc/tests"] {
        sources(&root.join(folder), &mut files);
    }
    let here = fs::read_to_string(root.join("tests/described.rs")).expect("this file");
    let mut compared = 0;
    for path in files {
        let file = path.strip_prefix(&root).expect("a file of this repository");
        let text = fs::read_to_string(&path).expect("a file of this repository");
        let is_service = text.contains("#[service") || file.starts_with("tests/common");
        if !is_service || file == Path::new("tests/described.rs") {
            continue;
        }
        for (name, derives) in types(&text) {
            if !derives && WITHOUT.iter().any(|without| file == Path::new(without)) {
                continue;
            }
            assert!(derives, "{}: derive `Schema` for {name}", file.display());
            let is_compared = |text: &str, module: Option<&str>| {
                let mut calls = text.split("check_derived::<").skip(1);
                calls.any(|call| {
                    let ty = call.split(['>', '<']).next().unwrap_or_default();
                    let mut parts = ty.split("::");
                    ty.rsplit("::").next() == Some(name)
                        && module.is_none_or(|module| parts.next() == Some(module))
                })
            };
            let module = file.starts_with("examples").then(|| module_of(file));
            assert!(
                is_compared(&text, None) || is_compared(&here, module.as_deref()),
                "{}: compare {name}: `check_derived::<{name}>().unwrap()` in a test",
                file.display()
            );
            compared += 1;
        }
    }
    assert!(compared > 30, "{compared}");
}
