//! Characters and numbers of a type.

use super::node::Node;
use crate::types::Type;

/// The only character of a text.
pub(super) fn one_char(text: &str) -> Option<char> {
    let mut chars = text.chars();
    chars.next().filter(|_| chars.next().is_none())
}

/// An integer that is written as a text.
pub(super) fn parse_integer<'a>(ty: &Type, text: &str) -> Option<Node<'a>> {
    match text.parse() {
        Ok(number) => positive(ty, number),
        Err(_) => negative(ty, text.parse().ok()?),
    }
}

pub(super) fn positive<'a>(ty: &Type, number: u128) -> Option<Node<'a>> {
    Some(match ty {
        Type::U8 => Node::U8(number.try_into().ok()?),
        Type::U16 => Node::U16(number.try_into().ok()?),
        Type::U32 => Node::U32(number.try_into().ok()?),
        Type::U64 => Node::U64(number.try_into().ok()?),
        Type::U128 => Node::U128(Box::new(number)),
        _ => return negative(ty, number.try_into().ok()?),
    })
}

pub(super) fn negative<'a>(ty: &Type, number: i128) -> Option<Node<'a>> {
    Some(match ty {
        Type::I8 => Node::I8(number.try_into().ok()?),
        Type::I16 => Node::I16(number.try_into().ok()?),
        Type::I32 => Node::I32(number.try_into().ok()?),
        Type::I64 => Node::I64(number.try_into().ok()?),
        Type::I128 => Node::I128(Box::new(number)),
        _ => return None,
    })
}

/// A number of the type `f32` or `f64`.
pub(super) fn sized<'a>(ty: &Type, number: f64) -> Option<Node<'a>> {
    if *ty == Type::F64 {
        return Some(Node::F64(number));
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounding to the type is meant"
    )]
    let single = number as f32;
    (single.is_finite() || !number.is_finite()).then_some(Node::F32(single))
}

/// A number that JSON does not have.
pub(super) fn special(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}
