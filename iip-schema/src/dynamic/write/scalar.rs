//! Numbers, texts and bytes.

use std::ops::Range;

use serde_json::{Number, Value};

use super::{Result, expected};
use crate::dynamic::context::{Context, found};
use crate::dynamic::error::Path;
use crate::dynamic::node::Node;
use crate::dynamic::scalars::{negative, one_char, parse_integer, positive, sized, special};
use crate::types::Type;

pub(super) fn value<'a>(
    context: &Context<'a>,
    ty: &Type,
    value: &'a Value,
    path: &Path<'_>,
) -> Result<Node<'a>> {
    if let Some((bits, signed)) = ty.integer() {
        return integer(context, ty, bits, signed, value, path);
    }
    match (ty, value) {
        (Type::Bool, Value::Bool(value)) => Ok(Node::Bool(*value)),
        (Type::Bool, other) => Err(expected("true or false", other, path)),
        (Type::F32 | Type::F64, value) => float(context, ty, value, path),
        (Type::Char, Value::String(text)) => match one_char(text) {
            Some(char) => Ok(Node::Char(char)),
            None => Err(expected("one character", value, path)),
        },
        (Type::Char, other) => Err(expected("one character", other, path)),
        (Type::Text, Value::String(text)) => Ok(Node::Text(text)),
        (Type::Text, other) => Err(expected("a text", other, path)),
        (Type::Bytes, Value::String(text)) if !context.strict.get() => {
            Ok(Node::Bytes(text.as_bytes().to_vec()))
        }
        (Type::Bytes, Value::Array(numbers)) => {
            context.spend(numbers.len(), path)?;
            let bytes = numbers.iter().enumerate().map(|(at, number)| {
                let byte = number.as_u64().and_then(|number| u8::try_from(number).ok());
                let path = path.index(at)?;
                byte.ok_or_else(|| expected("a number from 0 to 255", number, &path))
            });
            bytes.collect::<Result<_>>().map(Node::Bytes)
        }
        (Type::Bytes, other) => Err(expected("a list of numbers from 0 to 255", other, path)),
        _ => Err(path.error("this build does not know the type of the value")),
    }
}

fn integer<'a>(
    context: &Context<'a>,
    ty: &Type,
    bits: u32,
    signed: bool,
    value: &Value,
    path: &Path<'_>,
) -> Result<Node<'a>> {
    let node = match value {
        Value::Number(number) => match whole(number) {
            Some(Whole::Positive(number)) => positive(ty, number),
            Some(Whole::Negative(number)) => negative(ty, number),
            None => None,
        },
        Value::String(text) if bits >= 64 && !context.strict.get() => parse_integer(ty, text),
        _ => return Err(expected("an integer", value, path)),
    };
    node.ok_or_else(|| {
        let sign = if signed { 'i' } else { 'u' };
        let found = match value.as_f64() {
            // JSON has been parsed as a float, which is rounded.
            Some(number) if value.is_f64() && !FLOATS_OF_64_BITS.contains(&number) => match bits {
                128 => "a number of more than 64 bits, which has to be a text".to_owned(),
                _ => "a number of more than 64 bits".to_owned(),
            },
            _ => found(value),
        };
        path.error(format_args!(
            "expected an integer of the type {sign}{bits}, found {found}"
        ))
    })
}

/// The numbers that 64 bits can have.
const FLOATS_OF_64_BITS: Range<f64> = -9_223_372_036_854_775_807.0..18_446_744_073_709_551_616.0;

enum Whole {
    Positive(u128),
    Negative(i128),
}

fn whole(number: &Number) -> Option<Whole> {
    if let Some(number) = number.as_u128() {
        return Some(Whole::Positive(number));
    }
    number.as_i128().map(Whole::Negative)
}

fn float<'a>(context: &Context<'a>, ty: &Type, value: &Value, path: &Path<'_>) -> Result<Node<'a>> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) if !context.strict.get() => special(text),
        _ => None,
    };
    let Some(number) = number else {
        return Err(expected(
            "a number, or `NaN`, `Infinity` or `-Infinity`",
            value,
            path,
        ));
    };
    sized(ty, number).ok_or_else(|| path.error(format_args!("{number} is out of range of f32")))
}
