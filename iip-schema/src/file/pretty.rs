//! JSON for reviews: what fits on a line is on one, and the order of keys is fixed.

use serde::Serialize;
use serde_json::Value;

/// The longest line, in characters.
const COLUMNS: usize = 100;

/// Up to this indent every value has a line: services, methods and types.
const OPEN: usize = 6;

/// Keys that come first, in this order. The rest is sorted.
const FIRST: &[&str] = &[
    "iip_schema",
    "service",
    "name",
    "path",
    "index",
    "kind",
    "format",
    "codec",
    "tagging",
    "type",
];

pub(super) fn print(value: &impl Serialize) -> String {
    // Descriptions have only text keys, so this does not fail.
    let value = serde_json::to_value(value).unwrap_or_default();
    let mut text = String::new();
    write(&mut text, &value, 0, 0);
    text.push('\n');
    text
}

/// Writes a value that begins in the column `column` of a line with `indent` spaces before it.
fn write(text: &mut String, value: &Value, indent: usize, column: usize) {
    let mut line = String::new();
    let fits = on_one_line(&mut line, value, COLUMNS.saturating_sub(column + 1));
    let is_empty = match value {
        Value::Array(elements) => elements.is_empty(),
        Value::Object(object) => object.is_empty(),
        _ => true,
    };
    if is_empty || (fits && indent > OPEN) {
        text.push_str(&line);
        return;
    }
    let inner = indent + 2;
    let begin = |text: &mut String, at: usize| {
        text.push_str(if at == 0 { "\n" } else { ",\n" });
        text.extend(std::iter::repeat_n(' ', inner));
    };
    match value {
        Value::Array(elements) => {
            text.push('[');
            for (at, element) in elements.iter().enumerate() {
                begin(text, at);
                write(text, element, inner, inner);
            }
            end(text, indent, ']');
        }
        Value::Object(object) => {
            text.push('{');
            for (at, (key, value)) in sorted(object).into_iter().enumerate() {
                begin(text, at);
                let key = quoted(key);
                text.push_str(&key);
                text.push_str(": ");
                write(text, value, inner, inner + key.chars().count() + 2);
            }
            end(text, indent, '}');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

fn end(text: &mut String, indent: usize, bracket: char) {
    text.push('\n');
    text.extend(std::iter::repeat_n(' ', indent));
    text.push(bracket);
}

/// Writes a value on one line. Returns `false` if it takes more than `columns`, perhaps before all
/// of it is written.
fn on_one_line(line: &mut String, value: &Value, columns: usize) -> bool {
    match value {
        Value::Array(elements) if elements.is_empty() => line.push_str("[]"),
        Value::Object(object) if object.is_empty() => line.push_str("{}"),
        // Arguments, fields and variants have a line each, so that a change shows one.
        Value::Array(elements) if elements.iter().any(has_name) => return false,
        Value::Array(elements) => {
            line.push('[');
            for (at, element) in elements.iter().enumerate() {
                line.push_str(if at == 0 { "" } else { ", " });
                if !on_one_line(line, element, columns) {
                    return false;
                }
            }
            line.push(']');
        }
        Value::Object(object) => {
            line.push_str("{ ");
            for (at, (key, value)) in sorted(object).into_iter().enumerate() {
                line.push_str(if at == 0 { "" } else { ", " });
                line.push_str(&quoted(key));
                line.push_str(": ");
                if !on_one_line(line, value, columns) {
                    return false;
                }
            }
            line.push_str(" }");
        }
        scalar => line.push_str(&scalar.to_string()),
    }
    // Bytes first, because characters have to be counted.
    line.len() <= columns || line.chars().count() <= columns
}

fn has_name(value: &Value) -> bool {
    value
        .as_object()
        .is_some_and(|object| object.contains_key("name"))
}

fn sorted(object: &serde_json::Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<(&String, &Value)> = object.iter().collect();
    let rank = |key: &str| {
        FIRST
            .iter()
            .position(|first| *first == key)
            .unwrap_or(FIRST.len())
    };
    entries.sort_by(|(a, _), (b, _)| rank(a).cmp(&rank(b)).then_with(|| a.cmp(b)));
    entries
}

fn quoted(key: &str) -> String {
    Value::from(key).to_string()
}
