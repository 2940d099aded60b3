//! The forms of a file that lists backends. Pure.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::Printable;
use crate::balance::{BackendInfo, Fault, parse_line};
use crate::transport::Endpoint;

/// Maximum number of characters of a reason, which may quote the file.
const REASON_CHARS: usize = 500;

/// The reason why a text is not a list of backends, with its position.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ListError {
    /// The number of the line, from 1.
    pub(super) line: usize,
    /// The number of the character within the line, from 1.
    pub(super) column: usize,
    pub(super) reason: String,
}

impl ListError {
    fn at(text: &str, position: usize, reason: impl fmt::Display) -> Self {
        let mut end = position.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let before = text.get(..end).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.get(start..).unwrap_or_default().chars().count() + 1;
        Self::new(line, column, reason)
    }

    fn new(line: usize, column: usize, reason: impl fmt::Display) -> Self {
        let mut reason = Printable(reason).to_string();
        if let Some((end, _)) = reason.char_indices().nth(REASON_CHARS) {
            reason.truncate(end);
            reason.push('…');
        }
        Self {
            line,
            column,
            reason,
        }
    }
}

/// The form of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Toml,
    Json,
    Text,
}

impl Form {
    /// Returns the form that the extension of a path names, or else the form of the first line.
    fn of(path: &Path, text: &str) -> Self {
        let extension = path.extension().and_then(OsStr::to_str);
        match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("toml") => return Self::Toml,
            Some("json") => return Self::Json,
            _ => {}
        }
        let mut lines = text.lines().map(str::trim);
        let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
        let first = first.unwrap_or_default();
        let is_key = |key: &str| {
            let mut chars = key.trim_end().chars();
            chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        };
        // A line may begin with `[` in each of the forms: `[[backend]]`, `[{` and `[::1]:7000`.
        let within = first.strip_prefix('[').map(str::trim_start);
        let is_json = |rest: &str| rest.is_empty() || rest.starts_with(['{', ']']);
        if first.starts_with('{') || within.is_some_and(is_json) {
            Self::Json
        } else if within.is_some_and(|rest| rest.starts_with('['))
            || first.split_once('=').is_some_and(|(key, _)| is_key(key))
        {
            Self::Toml
        } else {
            Self::Text
        }
    }
}

/// Parses the contents of the file at `path`.
pub(super) fn parse_list(path: &Path, contents: &[u8]) -> Result<Vec<BackendInfo>, ListError> {
    let contents = contents.strip_prefix(b"\xef\xbb\xbf").unwrap_or(contents);
    let text = match std::str::from_utf8(contents) {
        Ok(text) => text,
        Err(error) => {
            let valid = contents.get(..error.valid_up_to()).unwrap_or_default();
            let valid = String::from_utf8_lossy(valid);
            return Err(ListError::at(&valid, valid.len(), "the text is not UTF-8"));
        }
    };
    match Form::of(path, text) {
        Form::Toml => parse_toml(text),
        Form::Json => parse_json(text),
        Form::Text => parse_text(text),
    }
}

/// The ids and addresses of the entries before.
#[derive(Default)]
struct Seen {
    ids: HashSet<Arc<str>>,
    endpoints: HashSet<Endpoint>,
}

impl Seen {
    /// Adds an entry; returns the reason if it is not the first of its kind.
    fn add(&mut self, info: &BackendInfo) -> Result<(), String> {
        if !self.endpoints.insert(info.endpoint.clone()) {
            return Err(format!("address `{}` is listed twice", info.endpoint));
        }
        if !self.ids.insert(Arc::clone(&info.id)) {
            return Err(format!("id `{}` is listed twice", info.id));
        }
        Ok(())
    }
}

fn parse_toml(text: &str) -> Result<Vec<BackendInfo>, ListError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Document {
        backend: Vec<toml::Spanned<BackendInfo>>,
    }

    let document: Document = toml::from_str(text).map_err(|error| {
        let position = error.span().map_or(0, |span| span.start);
        ListError::at(text, position, error.message())
    })?;
    let mut seen = Seen::default();
    let entries = document.backend.into_iter().map(|entry| {
        let position = entry.span().start;
        let info = entry.into_inner();
        seen.add(&info)
            .map_err(|reason| ListError::at(text, position, reason))?;
        Ok(info)
    });
    entries.collect()
}

fn parse_json(text: &str) -> Result<Vec<BackendInfo>, ListError> {
    #[derive(Deserialize)]
    #[serde(
        deny_unknown_fields,
        expecting = "expected `[..]` or `{\"backends\": [..]}`"
    )]
    struct Document<'a> {
        #[serde(borrow)]
        backends: Vec<&'a RawValue>,
    }

    let entries = match text.trim_start().starts_with('[') {
        true => serde_json::from_str(text),
        false => serde_json::from_str(text).map(|document: Document<'_>| document.backends),
    };
    let entries: Vec<&RawValue> = entries.map_err(|error| json_error(text, 0, &error))?;
    let mut seen = Seen::default();
    let entries = entries.into_iter().map(|entry| {
        // The text of an entry is a part of the whole.
        let position = entry.get().as_ptr().addr() - text.as_ptr().addr();
        let info = serde_json::from_str(entry.get())
            .map_err(|error| json_error(text, position, &error))?;
        seen.add(&info)
            .map_err(|reason| ListError::at(text, position, reason))?;
        Ok(info)
    });
    entries.collect()
}

/// Returns the error of a part of a text that begins at `start`.
fn json_error(text: &str, start: usize, error: &serde_json::Error) -> ListError {
    let part = text.get(start..).unwrap_or_default();
    let lines = part
        .split_inclusive('\n')
        .take(error.line().saturating_sub(1));
    // The column counts bytes, and is that of the last character read.
    let before: usize = lines.map(str::len).sum();
    let position = start + before + error.column().saturating_sub(1);
    let whole = error.to_string();
    let reason = whole.rsplit_once(" at line ");
    let reason = reason.map_or(&*whole, |(reason, _)| reason);
    ListError::at(text, position, reason)
}

/// Parses entries between commas, on one line or several. A line that begins with `#` is a comment.
fn parse_text(text: &str) -> Result<Vec<BackendInfo>, ListError> {
    let mut seen = Seen::default();
    let mut backends = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with('#') {
            continue;
        }
        let fault = |fault: Fault| {
            let place = ListError::at(line, fault.position, fault.reason);
            ListError {
                line: index + 1,
                ..place
            }
        };
        for entry in parse_line(line) {
            let (position, info) = entry.map_err(fault)?;
            seen.add(&info)
                .map_err(|reason| fault(Fault { position, reason }))?;
            backends.push(info);
        }
    }
    if backends.is_empty() {
        // A file that is being written is empty for a moment.
        let reason = "the file has no address; write `[]` for a list without backends";
        return Err(ListError::new(1, 1, reason));
    }
    Ok(backends)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(path: &str, text: &str) -> Vec<String> {
        let backends = parse_list(Path::new(path), text.as_bytes()).expect(text);
        backends.iter().map(|info| info.id.to_string()).collect()
    }

    /// Returns line, column and reason.
    fn fault(path: &str, text: &str) -> (usize, usize, String) {
        let error = parse_list(Path::new(path), text.as_bytes()).expect_err(text);
        (error.line, error.column, error.reason)
    }

    #[test]
    fn a_list_in_toml_has_all_fields() {
        let text = "[[backend]]\naddress = \"10.0.0.1:7000\"\nid = \"a\"\nweight = 3\n\
            zone = \"z\"\npriority = 1\nmetadata = { rack = \"7\" }\n\n\
            [[backend]]\naddress = \"10.0.0.2:7000\"\n";
        let backends = parse_list(Path::new("a.TOML"), text.as_bytes()).unwrap();
        let mut first = BackendInfo::new("10.0.0.1:7000".parse().unwrap())
            .id("a")
            .weight(3)
            .zone("z")
            .priority(1);
        first.metadata = [("rack".to_owned(), "7".to_owned())].into();
        let second = BackendInfo::new("10.0.0.2:7000".parse().unwrap());
        assert_eq!(backends, [first, second]);
        assert_eq!(ids("a.toml", "backend = []"), [""; 0]);
        assert_eq!(ids("a.toml", "backend = [{ address = \"a:1\" }]"), ["a:1"]);
    }

    #[test]
    fn a_list_in_json_is_an_array_or_an_object() {
        let array = r#"[{"address": "a:1"}, {"address": "unix:/b", "id": "c"}]"#;
        assert_eq!(ids("a.json", array), ["a:1", "c"]);
        let object = format!("{{\"backends\": {array}}}");
        assert_eq!(ids("a.json", &object), ["a:1", "c"]);
        assert_eq!(ids("a.json", "[]"), [""; 0]);
        assert_eq!(ids("a.json", "{\"backends\":[]}"), [""; 0]);
    }

    #[test]
    fn a_list_in_text_has_commas_or_lines() {
        assert_eq!(
            ids("a", "10.0.0.1:1#3,10.0.0.2:1#1\n"),
            ["10.0.0.1:1", "10.0.0.2:1"]
        );
        let lines = "# ours\r\n10.0.0.1:1#0\r\n\r\n  [::1]:1 , unix:/a#2\r\n";
        assert_eq!(ids("a.list", lines), ["10.0.0.1:1", "[::1]:1", "unix:/a"]);
        let weights = parse_list(Path::new("a"), lines.as_bytes()).unwrap();
        let weights: Vec<u32> = weights.iter().map(|info| info.weight).collect();
        assert_eq!(weights, [0, 1, 2]);
    }

    #[test]
    fn a_file_without_a_known_extension_has_the_form_of_its_contents() {
        let form = |text: &str| Form::of(Path::new("/etc/backends"), text);
        for text in [
            "[[backend]]",
            "\n# a\n [[ backend ]]",
            "backend = []",
            "backend=[",
            "[ [a] ]",
        ] {
            assert_eq!(form(text), Form::Toml, "{text}");
        }
        for text in ["{", "[{", "[]", " [ ]", "[\n{}]", "\n{\"backends\""] {
            assert_eq!(form(text), Form::Json, "{text}");
        }
        for text in [
            "",
            "# a",
            "a:1",
            "[::1]:1",
            "[fe80::1%eth0]:1",
            "unix:/a=b",
            "1.2.3.4:1#2",
        ] {
            assert_eq!(form(text), Form::Text, "{text}");
        }
        assert_eq!(Form::of(Path::new("a.json"), "a:1"), Form::Json);
        assert_eq!(Form::of(Path::new("a.Toml"), "a:1"), Form::Toml);
        assert_eq!(ids("a", "\u{feff}[{\"address\":\"a:1\"}]"), ["a:1"]);
    }

    #[test]
    fn a_fault_has_its_line_and_column() {
        let cases = [
            (
                "a.toml",
                "[[backend]]\naddress = 7\n",
                (2, 11),
                "expected a string",
            ),
            ("a.toml", "[[backend]]\naddress = \n", (2, 11), ""),
            (
                "a.toml",
                "[[backend]]\nadress = \"a:1\"\n",
                (2, 1),
                "unknown field `adress`",
            ),
            (
                "a.toml",
                "[[backends]]\n",
                (1, 3),
                "unknown field `backends`",
            ),
            ("a.toml", "", (1, 1), "missing field `backend`"),
            (
                "a.toml",
                "\n[[backend]]\naddress = \"a\"\n",
                (2, 1),
                "address `a` has no port",
            ),
            ("a.json", "[{\"address\":\n7}]", (2, 1), "expected a string"),
            (
                "a.json",
                "[\n{\"address\":\"a\"}]",
                (2, 1),
                "address `a` has no port",
            ),
            (
                "a.json",
                "{\"backend\":[]}",
                (1, 10),
                "unknown field `backend`",
            ),
            (
                "a.json",
                "{\"backends\":{}}",
                (1, 12),
                "expected a sequence",
            ),
            ("a.json", "{}", (1, 2), "missing field `backends`"),
            (
                "a.json",
                "{\"backends\":[],\"backends\":[]}",
                (1, 25),
                "duplicate field",
            ),
            ("a.json", "[]\n[]", (2, 1), "trailing characters"),
            ("a.json", "7", (1, 1), "expected `[..]`"),
            ("a.json", "", (1, 1), "EOF"),
            ("a", "a:1\n b:2, é:x#1", (2, 9), "port `x`"),
            ("a", "a:1\nb:2#-1", (2, 5), "weight `-1`"),
            ("a", "\n \n", (1, 1), "write `[]`"),
        ];
        for (path, text, (line, column), reason) in cases {
            let fault = fault(path, text);
            assert_eq!((fault.0, fault.1), (line, column), "{text:?}: {fault:?}");
            assert!(fault.2.contains(reason), "{text:?}: {fault:?}");
        }
        let error = parse_list(Path::new("a"), b"a:1\nb\xff").unwrap_err();
        assert_eq!((error.line, error.column), (2, 2));
    }

    #[test]
    fn a_repeated_address_or_id_is_a_fault_of_the_second() {
        let cases = [
            (
                "a.toml",
                "[[backend]]\naddress = \"a:1\"\n\n[[backend]]\naddress = \"a:1\"\n",
                4,
            ),
            (
                "a.json",
                "[{\"address\":\"a:1\"},\n{\"address\":\"a:1\"},\n{\"address\":\"b:1\"}]",
                2,
            ),
            ("a", "a:1\nb:1\na:1#3\nc:1", 3),
        ];
        for (path, text, line) in cases {
            let fault = fault(path, text);
            assert_eq!(fault.0, line, "{fault:?}");
            assert_eq!(fault.2, "address `a:1` is listed twice");
        }
        let text = "[{\"address\":\"a:1\",\"id\":\"x\"},\n\n{\"address\":\"b:1\",\"id\":\"x\"}]";
        let fault = fault("a.json", text);
        assert_eq!((fault.0, &*fault.2), (3, "id `x` is listed twice"));
    }

    #[test]
    fn a_reason_is_short_and_printable() {
        let text = format!("[{{\"{}\u{1b}\":1}}]", "é".repeat(10_000));
        let text = text.replace('\u{1b}', "\\u001b");
        let (_, _, reason) = fault("a.json", &text);
        assert_eq!(reason.chars().count(), REASON_CHARS + 1);
        let (_, _, reason) = fault("a.json", "[{\"\\u001b\":1}]");
        assert!(!reason.contains('\u{1b}'), "{reason}");
    }

    #[test]
    fn deep_nesting_is_a_fault() {
        for (path, text) in [
            ("a.json", format!("[{{\"metadata\":{}", "[".repeat(100_000))),
            ("a.toml", format!("backend = {}", "[".repeat(100_000))),
            ("a.toml", format!("backend = {}", "{a=".repeat(100_000))),
            ("a.toml", format!("[[{}a]]", "a.".repeat(100_000))),
        ] {
            parse_list(Path::new(path), text.as_bytes()).expect_err(path);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn any_contents_are_a_list_or_a_fault_within_them(
            path in "a(\\.toml|\\.json|)",
            text in "(\\[\\[backend\\]\\]|\\[\\{|)[a-c:#,=\"\\[\\]{}\n é0-9]{0,32}",
        ) {
            if let Err(error) = parse_list(Path::new(&path), text.as_bytes()) {
                prop_assert!(error.line <= text.lines().count() + 1, "{:?}", error);
            }
        }
    }
}
