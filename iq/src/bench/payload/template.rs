//! Texts with parts that differ from call to call, such as `{"id": {{int 1..1000}}}`.

use std::fmt::Write as _;

use fastrand::Rng;
use serde::de::IgnoredAny;

/// The maximum length of a random text.
const MAX_STRING: usize = 1 << 20;

/// A text with parts that are filled in for each call.
#[derive(Clone, Debug)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Value { value: Value, is_quoted: bool },
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    /// An integer from the first to the second, both included.
    Int(i128, i128),
    /// This number of letters and digits.
    String(usize),
    Uuid,
    Bool,
    /// One of these texts.
    Item(Vec<String>),
}

/// The kind of text around a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Around {
    /// JSON, in which a text outside quotes gets quotes.
    Json,
    /// Any other text.
    Text,
}

impl Template {
    pub(super) fn parse(text: &str, around: Around) -> Result<Self, String> {
        let (mut parts, mut rest, mut in_string) = (Vec::new(), text, false);
        while let Some(begin) = rest.find("{{") {
            let (before, after) = rest.split_at(begin);
            in_string = ends_in_string(before, in_string);
            parts.push(Part::Text(before.to_owned()));
            let inner = &after[2..];
            let end = inner.find("}}").ok_or("a template `{{` has no end `}}`")?;
            let value = Value::parse(inner[..end].trim())?;
            parts.push(Part::Value {
                value,
                is_quoted: around == Around::Json && !in_string,
            });
            rest = &inner[end + 2..];
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    /// Makes a template that is this text, without parts to fill in.
    pub(super) fn verbatim(text: &str) -> Self {
        Self(vec![Part::Text(text.to_owned())])
    }

    /// Returns the text, if it is always the same.
    pub(super) fn fixed(&self) -> Option<&str> {
        match &*self.0 {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Returns the text of one call.
    pub(super) fn fill(&self, random: &mut Rng) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Value { value, is_quoted } => value.write(*is_quoted, random, &mut out),
            }
        }
        out
    }
}

/// Returns `true` if the position after `json` is inside a string.
fn ends_in_string(json: &str, mut in_string: bool) -> bool {
    let mut is_escaped = false;
    for c in json.chars() {
        match c {
            '"' if !is_escaped => in_string = !in_string,
            '\\' if in_string && !is_escaped => {
                is_escaped = true;
                continue;
            }
            _ => {}
        }
        is_escaped = false;
    }
    in_string
}

impl Value {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
        let rest = rest.trim();
        let value = match (name, rest) {
            ("int", range) if range.contains("..") => Self::int(range),
            ("string", length) if !length.is_empty() => Self::string(length),
            ("uuid", "") => Ok(Self::Uuid),
            ("bool", "") => Ok(Self::Bool),
            ("item", items) if !items.is_empty() => {
                let items = items.split(',').map(|item| item.trim().to_owned());
                Ok(Self::Item(items.collect()))
            }
            _ => {
                return Err(format!(
                    "`{{{{{text}}}}}` is not a template; there are {{{{int 1..1000}}}}, \
                     {{{{string 16}}}}, {{{{uuid}}}}, {{{{bool}}}} and {{{{item a,b,c}}}}"
                ));
            }
        };
        value.map_err(|reason| format!("`{{{{{text}}}}}`: {reason}"))
    }

    fn int(range: &str) -> Result<Self, String> {
        let (low, high) = range.split_once("..").unwrap_or((range, ""));
        let bound = |text: &str| {
            let text = text.trim();
            let bound = text.parse::<i128>();
            bound.map_err(|_| format!("`{text}` is not an integer of at most 128 bits"))
        };
        match (bound(low)?, bound(high)?) {
            (low, high) if low > high => Err(format!("{low} is greater than {high}")),
            (low, high) => Ok(Self::Int(low, high)),
        }
    }

    fn string(length: &str) -> Result<Self, String> {
        match length.parse() {
            Ok(length) if length <= MAX_STRING => Ok(Self::String(length)),
            _ => Err(format!("the length is not a number from 0 to {MAX_STRING}")),
        }
    }

    fn write(&self, is_quoted: bool, random: &mut Rng, out: &mut String) {
        match self {
            // Writing to a string does not fail.
            Self::Int(low, high) => drop(write!(out, "{}", random.i128(*low..=*high))),
            Self::Bool => out.push_str(if random.bool() { "true" } else { "false" }),
            Self::Item(items) => {
                let item = random.choice(items).map_or("", String::as_str);
                match is_quoted && serde_json::from_str::<IgnoredAny>(item).is_err() {
                    true => drop(write!(out, "{}", serde_json::Value::from(item))),
                    false => out.push_str(item),
                }
            }
            Self::String(_) | Self::Uuid => {
                let quote = if is_quoted { "\"" } else { "" };
                out.push_str(quote);
                match self {
                    Self::String(length) => push_text(*length, random, out),
                    _ => out.push_str(&uuid(random)),
                }
                out.push_str(quote);
            }
        }
    }
}

/// Appends letters and digits.
pub(super) fn push_text(length: usize, random: &mut Rng, out: &mut String) {
    out.extend((0..length).map(|_| random.alphanumeric()));
}

/// Makes a random UUID, of version 4.
pub(super) fn uuid(random: &mut Rng) -> String {
    let bits = random.u128(..) & !(0xf << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str, around: Around) -> Vec<String> {
        let template = Template::parse(text, around).unwrap();
        let mut random = Rng::with_seed(7);
        (0..200).map(|_| template.fill(&mut random)).collect()
    }

    #[test]
    fn values_are_within_their_bounds_and_json_stays_json() {
        let text = r#"{"id": {{int -2..2}}, "a": {{string 4}}, "b": "x\"{{string 3}}",
            "u": {{uuid}}, "on": {{bool}}, "c": {{item red, 7,null}}, "d": "{{item red,7}}"}"#;
        for text in filled(text, Around::Json) {
            let value: serde_json::Value = serde_json::from_str(&text).expect(&text);
            assert!((-2..=2).contains(&value["id"].as_i64().unwrap()));
            assert_eq!(value["a"].as_str().map(str::len), Some(4));
            assert_eq!(value["b"].as_str().map(str::len), Some(5));
            let uuid: Vec<_> = value["u"].as_str().unwrap().split('-').collect();
            let lengths: Vec<_> = uuid.iter().map(|part| part.len()).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12]);
            assert!(uuid[2].starts_with('4') && uuid[3].starts_with(['8', '9', 'a', 'b']));
            assert!(value["on"].is_boolean());
            let c = &value["c"];
            assert!(c == "red" || c == 7 || c.is_null(), "{c}");
            assert!(value["d"] == "red" || value["d"] == "7");
        }
    }

    #[test]
    fn integers_may_have_all_values_of_64_bits() {
        let range = format!("{{{{int {}..{}}}}}", i64::MIN, u64::MAX);
        let all = filled(&range, Around::Json).into_iter();
        let all: Vec<i128> = all.map(|text| text.parse().unwrap()).collect();
        let bounds = i128::from(i64::MIN)..=i128::from(u64::MAX);
        assert!(all.iter().all(|value| bounds.contains(value)), "{all:?}");
        assert!(all.iter().any(|value| *value > i128::from(i64::MAX)));
    }

    #[test]
    fn texts_that_are_not_json_get_no_quotes() {
        assert!(
            filled("a={{string 2}}", Around::Text)
                .iter()
                .all(|text| text.len() == 4)
        );
    }

    #[test]
    fn a_seed_gives_the_same_values_and_different_ones_in_turn() {
        let (first, second) = (
            filled("{{uuid}}", Around::Text),
            filled("{{uuid}}", Around::Text),
        );
        assert_eq!(first, second);
        assert_ne!(first[0], first[1]);
    }

    #[test]
    fn what_is_no_template_is_named() {
        for text in [
            "{{",
            "{{}}",
            "{{int}}",
            "{{int 5..1}}",
            "{{int a..b}}",
            "{{string -1}}",
            "{{string 9999999}}",
            "{{item}}",
            "{{uuid 4}}",
            "{{name}}",
        ] {
            assert!(Template::parse(text, Around::Text).is_err(), "{text}");
        }
        for (text, expected) in [
            ("{{nmae}}", "`{{nmae}}` is not a template; there are {{int"),
            (
                "{{int 1}}",
                "`{{int 1}}` is not a template; there are {{int",
            ),
            ("{{int 10..1}}", "`{{int 10..1}}`: 10 is greater than 1"),
            ("{{int 1..x}}", "`{{int 1..x}}`: `x` is not an integer"),
            ("{{int ..9}}", "`{{int ..9}}`: `` is not an integer"),
            (
                "{{string -1}}",
                "`{{string -1}}`: the length is not a number from 0 to 1048576",
            ),
        ] {
            let error = Template::parse(text, Around::Json).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        assert_eq!(
            Template::parse("{}", Around::Json).unwrap().fixed(),
            Some("{}")
        );
    }
}
