//! Texts of a description as TypeScript. They may come from a hostile server.

use std::collections::{BTreeMap, BTreeSet};

use iip_core::Printable;
use serde_json::Value;

/// Maximum width of a comment on one line, in bytes.
const WIDTH: usize = 80;

/// The length in bytes at which a name is cut, before the number that makes it unique.
const MAX_NAME: usize = 100;

/// Returns a comment with documentation, without a final line end. `indent` is the indentation of
/// its lines.
pub(super) fn comment(doc: &str, indent: usize) -> String {
    let lines: Vec<String> = doc.lines().map(line).collect();
    let before = " ".repeat(indent);
    if let [only] = &*lines
        && before.len() + only.len() + "/**  */".len() <= WIDTH
    {
        return format!("{before}/** {only} */");
    }
    let mut comment = format!("{before}/**");
    for line in lines {
        comment.push_str(format!("\n{before} * {line}").trim_end());
    }
    comment.push_str(&format!("\n{before} */"));
    comment
}

/// Returns a line of a comment, which neither ends the comment nor changes the direction of text.
pub(super) fn line(line: &str) -> String {
    let line = Printable(line.trim_end()).to_string();
    line.replace("*/", "*\\/")
}

/// Returns a string literal with this text.
pub(super) fn literal(text: &str) -> String {
    let mut literal = String::new();
    for c in Value::from(text).to_string().chars() {
        if Printable(c).to_string().chars().count() > 1 {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                literal.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            literal.push(c);
        }
    }
    literal
}

/// Returns the name of a member of an object type.
pub(super) fn key(name: &str) -> String {
    match is_identifier(name) {
        true => name.to_owned(),
        false => literal(name),
    }
}

/// Returns the name of a member of an object.
pub(super) fn value_key(name: &str) -> String {
    match name {
        // Without brackets, this would set the prototype.
        "__proto__" => "[\"__proto__\"]".to_owned(),
        name => key(name),
    }
}

fn is_identifier(name: &str) -> bool {
    let is_start = |c: char| c.is_ascii_alphabetic() || c == '_' || c == '$';
    name.starts_with(is_start) && name.chars().all(|c| is_start(c) || c.is_ascii_digit())
}

/// Converts a name to that of a type or class: `Page<Order>` to `PageOrder`.
pub(super) fn type_name(name: &str) -> String {
    let mut made = String::new();
    for word in name.split(|c: char| !c.is_ascii_alphanumeric()) {
        push_word(&mut made, word);
    }
    match made.chars().next() {
        None => "Type".to_owned(),
        Some(first) if first.is_ascii_digit() => format!("T{made}"),
        Some(_) => made,
    }
}

/// Converts a name to that of a method: `place_order` to `placeOrder`. A name that is not an
/// identifier is not changed.
pub(super) fn method_name(name: &str) -> String {
    if !is_identifier(name) {
        return name.to_owned();
    }
    let mut words = name.split('_').filter(|word| !word.is_empty());
    let mut made = words.next().unwrap_or(name).to_owned();
    words.for_each(|word| push_word(&mut made, word));
    match &*made {
        // `constructor` is the constructor of a class, and `await` would call `then`.
        "constructor" | "then" => made + "_",
        _ => made,
    }
}

fn push_word(name: &mut String, word: &str) {
    let mut chars = word.chars();
    if let Some(first) = chars.next()
        && name.len() < MAX_NAME
    {
        name.push(first.to_ascii_uppercase());
        name.extend(chars.take(MAX_NAME));
    }
}

/// A set of unique names.
#[derive(Debug, Default)]
pub(super) struct Unique {
    taken: BTreeSet<String>,
    /// The number that was last tried for a name.
    numbers: BTreeMap<String, u64>,
}

impl Unique {
    /// Creates a set in which these names are taken.
    pub(super) fn without(taken: impl IntoIterator<Item = String>) -> Self {
        Self {
            taken: taken.into_iter().collect(),
            numbers: BTreeMap::new(),
        }
    }

    /// Returns the name, with a number if it is taken.
    pub(super) fn claim(&mut self, name: String) -> String {
        if self.taken.insert(name.clone()) {
            return name;
        }
        let number = self.numbers.entry(name.clone()).or_insert(1);
        loop {
            *number += 1;
            let claimed = format!("{name}{number}");
            if self.taken.insert(claimed.clone()) {
                return claimed;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_cannot_be_ended() {
        assert_eq!(comment("Finds an order.", 2), "  /** Finds an order. */");
        assert_eq!(comment("a */ b", 0), "/** a *\\/ b */");
        assert_eq!(
            comment("a\n\n*/ b\u{202e}", 0),
            "/**\n * a\n *\n * *\\/ b\\u{202e}\n */"
        );
    }

    #[test]
    fn literals_have_the_same_text_without_control_characters() {
        let text = "\"'`${x}\n\u{2028}\u{202e}\\é";
        let literal = literal(text);
        assert_eq!(literal, r#""\"'`${x}\n\u2028\u202e\\é""#);
        assert_eq!(serde_json::from_str::<String>(&literal).unwrap(), text);
    }

    #[test]
    fn names_are_identifiers() {
        assert_eq!(type_name("Page<shop::Order>"), "PageShopOrder");
        assert_eq!(type_name("3D"), "T3D");
        assert_eq!(type_name("*/ é"), "Type");
        assert_eq!(method_name("place_order"), "placeOrder");
        assert_eq!(method_name("__then"), "then_");
        assert_eq!(method_name("a b"), "a b");
        assert_eq!(
            (key("a-b"), key("class")),
            ("\"a-b\"".into(), "class".into())
        );
        let mut unique = Unique::default();
        let claimed = ["A", "A", "A2"].map(|name| unique.claim(name.to_owned()));
        assert_eq!(claimed, ["A", "A2", "A22"]);
    }
}
