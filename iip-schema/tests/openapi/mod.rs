//! OpenAPI documents. `BLESS=1 cargo test -p iip-schema --test main openapi` writes the documents
//! and values that `.ci/openapi` checks anew; read what it wrote.

mod everything;
mod hostile;
mod operations;
mod query;

use std::fs;
use std::path::Path;

use serde_json::Value;

/// Compares a text with that of a file, or writes the file.
fn golden(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openapi");
    let path = path.join(file);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, text).expect("a file that can be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    for (number, (now, before)) in text.lines().zip(written.lines()).enumerate() {
        assert_eq!(
            now,
            before,
            "{file}, line {}: BLESS=1 writes it",
            number + 1
        );
    }
    assert_eq!(text.len(), written.len(), "{file}: BLESS=1 writes it");
}

fn golden_document(file: &str, document: &Value) {
    assert_refers_to_what_is_there(document);
    assert_eq!(read_back(document), *document);
    golden(file, &format!("{document:#}\n"));
}

/// The document from its text: readers of serde_json stop at a depth of 127.
fn read_back(document: &Value) -> Value {
    serde_json::from_str(&document.to_string()).expect("readable")
}

/// Every `$ref`, in extensions too, has its target.
fn assert_refers_to_what_is_there(document: &Value) {
    let mut pending = vec![document];
    while let Some(value) = pending.pop() {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(to)) = members.get("$ref") {
                    let target = to.strip_prefix('#').and_then(|to| document.pointer(to));
                    assert!(target.is_some(), "{to}");
                }
                pending.extend(members.values());
            }
            Value::Array(items) => pending.extend(items),
            _ => {}
        }
    }
}

/// The schema with this key.
fn schema<'a>(document: &'a Value, key: &str) -> &'a Value {
    &document["components"]["schemas"][key]
}
