//! Numbers for numbers.

use super::Encoding;
use super::report::{Rule, Verdict};
use crate::types::Type;

/// Judges two different number types; `None` if one of them is not a number.
pub(super) fn compare(
    writer: &Type,
    reader: &Type,
    encoding: Encoding,
) -> Option<(Rule, Verdict, &'static str)> {
    if let (Some(writer), Some(reader)) = (writer.integer(), reader.integer()) {
        return Some(match encoding.is_positional() {
            true => by_place(writer, reader),
            false => by_name(writer, reader, encoding),
        });
    }
    let named = !encoding.is_positional();
    let lossy = "numbers lose digits";
    Some(match (writer, reader) {
        (Type::F32, Type::F64) if named => (Rule::NumberWidened, Verdict::Compatible, ""),
        (Type::F64, Type::F32) if named => (Rule::NumberNarrowed, Verdict::Incompatible, lossy),
        (Type::F32, Type::F64) | (Type::F64, Type::F32) => (
            Rule::TypeChanged,
            Verdict::Incompatible,
            "they take different numbers of bytes",
        ),
        (integer, float @ (Type::F32 | Type::F64)) if named => {
            let (bits, _) = integer.integer()?;
            let exact = if *float == Type::F32 { 24 } else { 53 };
            match bits < exact {
                true => (Rule::NumberWidened, Verdict::Compatible, ""),
                false => (Rule::NumberNarrowed, Verdict::Incompatible, lossy),
            }
        }
        _ => return None,
    })
}

/// Integers have a variable length, except for those of 8 bits. Signed ones are zigzag-encoded.
fn by_place(writer: (u32, bool), reader: (u32, bool)) -> (Rule, Verdict, &'static str) {
    if writer.1 != reader.1 {
        let why = "integers with and without a sign are written differently";
        return (Rule::TypeChanged, Verdict::Incompatible, why);
    }
    if writer.0 == 8 || reader.0 == 8 {
        let why = "integers of 8 bits are written differently";
        return (Rule::TypeChanged, Verdict::Incompatible, why);
    }
    by_size(writer.0 < reader.0)
}

fn by_name(
    (bits, signed): (u32, bool),
    (read_bits, read_signed): (u32, bool),
    encoding: Encoding,
) -> (Rule, Verdict, &'static str) {
    // MessagePack has no integers of 128 bits: they are written as bytes.
    if encoding == Encoding::MessagePack {
        let both = bits == 128 && read_bits == 128;
        if both || (signed && !read_signed && read_bits == 128) {
            let why = "negative or large numbers are taken for others";
            return (Rule::TypeChanged, Verdict::Incompatible, why);
        }
        if bits == 128 {
            let why = "integers of 128 bits are written as bytes";
            return (Rule::TypeChanged, Verdict::Incompatible, why);
        }
    }
    by_size(match (signed, read_signed) {
        (true, false) => false,
        (false, true) => bits < read_bits,
        _ => bits <= read_bits,
    })
}

fn by_size(fits: bool) -> (Rule, Verdict, &'static str) {
    match fits {
        true => (Rule::NumberWidened, Verdict::Compatible, ""),
        false => (
            Rule::NumberNarrowed,
            Verdict::Warn,
            "numbers outside its range are rejected",
        ),
    }
}
