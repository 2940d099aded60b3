//! Functions of pipelines.

use std::fmt::Write;

use md5::{Digest, Md5};

use crate::value::Value;

/// A function of a pipeline, which takes the text form of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Len,
    Upper,
    Lower,
    Md5 { capitals: bool },
    Fnv32,
    Fnv64,
}

/// The names of all functions.
pub(crate) const NAMES: &str = "len, upper, lower, md5, MD5, fnv32, fnv64";

impl Function {
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "len" => Self::Len,
            "upper" => Self::Upper,
            "lower" => Self::Lower,
            "md5" => Self::Md5 { capitals: false },
            "MD5" => Self::Md5 { capitals: true },
            "fnv32" => Self::Fnv32,
            "fnv64" => Self::Fnv64,
            _ => return None,
        })
    }

    pub(crate) fn apply(self, text: &str) -> Value {
        match self {
            Self::Len => Value::Integer(i64::try_from(text.len()).unwrap_or(i64::MAX)),
            Self::Upper => Value::from(text.chars().map(upper).collect::<String>()),
            Self::Lower => Value::from(text.chars().map(lower).collect::<String>()),
            Self::Md5 { capitals } => Value::from(md5_text(text, capitals)),
            Self::Fnv32 => Value::Integer(i64::from(fnv32(text.as_bytes()))),
            Self::Fnv64 => Value::Unsigned(fnv64(text.as_bytes())),
        }
    }
}

fn md5_text(text: &str, capitals: bool) -> String {
    let digest = Md5::digest(text.as_bytes());
    let mut out = String::with_capacity(32);
    for byte in digest {
        // Writing into a string does not fail.
        let _ = if capitals {
            write!(out, "{byte:02X}")
        } else {
            write!(out, "{byte:02x}")
        };
    }
    out
}

/// FNV-1, which multiplies first. FNV-1a, which is better known, does it last.
fn fnv32(bytes: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| hash.wrapping_mul(0x0100_0193) ^ u32::from(*byte);
    bytes.iter().fold(0x811c_9dc5, step)
}

fn fnv64(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| hash.wrapping_mul(0x0100_0000_01b3) ^ u64::from(*byte);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The simple upper case mapping: one code point to one. The standard library has the full mapping,
/// which maps some code points to several.
fn upper(from: char) -> char {
    match from {
        // The small Greek letters with iota below have a capital of one code point.
        '\u{1f80}'..='\u{1f87}' | '\u{1f90}'..='\u{1f97}' | '\u{1fa0}'..='\u{1fa7}' => {
            char::from_u32(u32::from(from) + 8).unwrap_or(from)
        }
        '\u{1fb3}' | '\u{1fc3}' | '\u{1ff3}' => char::from_u32(u32::from(from) + 9).unwrap_or(from),
        _ => single(from, from.to_uppercase()),
    }
}

fn lower(from: char) -> char {
    match from {
        'İ' => 'i',
        _ => single(from, from.to_lowercase()),
    }
}

/// Returns the only character of a mapping, or the unmapped one if there are several.
fn single(from: char, mut mapped: impl ExactSizeIterator<Item = char>) -> char {
    if mapped.len() == 1 {
        mapped.next().unwrap_or(from)
    } else {
        from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_mapping_is_one_code_point_to_one() {
        let upper: String = "straße ﬁn ὀδυσσεύς ᾳᾀᾗᾧῃῳ ǆ ŉ ıi ᾈ"
            .chars()
            .map(upper)
            .collect();
        assert_eq!(upper, "STRAßE ﬁN ὈΔΥΣΣΕΎΣ ᾼᾈᾟᾯῌῼ Ǆ ŉ II ᾈ");
        let lower: String = "ΣΑΣ İI ᾈ Ǆ ẞ".chars().map(lower).collect();
        assert_eq!(lower, "σασ ii ᾀ ǆ ß");
    }

    #[test]
    fn hashes_are_fnv_1() {
        assert_eq!(fnv32(b"hello"), 3_069_866_343);
        assert_eq!(fnv64(b"a"), 12_638_153_115_695_167_422);
    }
}
