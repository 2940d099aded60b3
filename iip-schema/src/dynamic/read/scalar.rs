//! Numbers, texts and bytes.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde_json::{Number, Value};

use super::{Seed, lift};
use crate::dynamic::error::shorten;
use crate::types::Type;

/// Reads a value of a type without parts.
pub(super) struct Scalar<'s, 't>(pub(super) Seed<'s, 't>);

impl Scalar<'_, '_> {
    #[cold]
    fn wrong<E: Error>(&self, found: impl fmt::Display) -> E {
        let kind = kind(self.0.ty);
        lift(
            self.0
                .path
                .error(format_args!("expected {kind}, found {found}")),
        )
    }

    fn integer<E: Error>(&self, number: i128) -> Result<Value, E> {
        if let Some((bits, signed)) = self.0.ty.integer() {
            let fits = match (bits, signed) {
                (128, true) => true,
                (128, false) => number >= 0,
                (bits, true) => number >> (bits - 1) == 0 || number >> (bits - 1) == -1,
                (bits, false) => number >> bits == 0,
            };
            let options = self.0.context.options;
            if fits && bits >= 64 && options.wide_as_text && !self.0.is_key {
                return Ok(Value::String(number.to_string()));
            }
            if fits {
                return Ok(exact(number));
            }
        } else if matches!(self.0.ty, Type::F32 | Type::F64) {
            #[expect(clippy::cast_precision_loss, reason = "as serde does")]
            return self.visit_number(number as f64);
        }
        Err(self.wrong(format_args!("the number {number}")))
    }

    fn visit_number<E: Error>(&self, number: f64) -> Result<Value, E> {
        match self.0.ty {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "rounding to the type is meant"
            )]
            Type::F32 => Ok(single(number as f32)),
            Type::F64 => Ok(double(number)),
            _ => Err(self.wrong(format_args!("the number {number}"))),
        }
    }

    /// The key of a map that the format has as a text.
    fn key<E: Error>(&self, text: &str) -> Result<Value, E> {
        let wrong = || self.wrong(format_args!("the key \"{}\"", shorten(text)));
        match self.0.ty {
            Type::Bool => text.parse().map(Value::Bool).map_err(|_| wrong()),
            Type::F32 | Type::F64 => match text.parse() {
                Ok(number) => self.visit_number(number),
                Err(_) => Err(wrong()),
            },
            Type::U128 => match text.parse() {
                Ok(number) => self.visit_u128_value(number),
                Err(_) => Err(wrong()),
            },
            _ => match text.parse() {
                Ok(number) => self.integer(number),
                Err(_) => Err(wrong()),
            },
        }
    }

    fn visit_u128_value<E: Error>(&self, number: u128) -> Result<Value, E> {
        match i128::try_from(number) {
            Ok(number) => self.integer(number),
            Err(_) if *self.0.ty == Type::U128 => Ok(Value::String(number.to_string())),
            Err(_) => Err(self.wrong(format_args!("the number {number}"))),
        }
    }
}

/// An integer as a number if JSON numbers have it exactly.
fn exact(number: i128) -> Value {
    match (u64::try_from(number), i64::try_from(number)) {
        (Ok(number), _) => Value::from(number),
        (_, Ok(number)) => Value::from(number),
        _ => Value::String(number.to_string()),
    }
}

fn double(number: f64) -> Value {
    match Number::from_f64(number) {
        Some(number) => Value::Number(number),
        None if number.is_nan() => Value::from("NaN"),
        None if number > 0.0 => Value::from("Infinity"),
        None => Value::from("-Infinity"),
    }
}

/// The shortest decimal that is the number, as in the text that serde_json writes.
fn single(number: f32) -> Value {
    let text = serde_json::to_string(&number).unwrap_or_default();
    double(text.parse().unwrap_or_else(|_| f64::from(number)))
}

fn kind(ty: &Type) -> String {
    if let Some((bits, signed)) = ty.integer() {
        return format!(
            "an integer of the type {}{bits}",
            if signed { 'i' } else { 'u' }
        );
    }
    match ty {
        Type::Bool => "true or false",
        Type::F32 | Type::F64 => "a number",
        Type::Char => "one character",
        Type::Text => "a text",
        Type::Bytes => "bytes",
        _ => "nothing",
    }
    .to_owned()
}

impl<'de> Visitor<'de> for Scalar<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&kind(self.0.ty))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        match self.0.ty {
            Type::Bool => Ok(Value::Bool(value)),
            _ => Err(self.wrong(format_args!("`{value}`"))),
        }
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        self.integer(number.into())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        self.integer(number.into())
    }

    fn visit_i128<E: Error>(self, number: i128) -> Result<Value, E> {
        self.integer(number)
    }

    fn visit_u128<E: Error>(self, number: u128) -> Result<Value, E> {
        self.visit_u128_value(number)
    }

    fn visit_f32<E: Error>(self, number: f32) -> Result<Value, E> {
        match self.0.ty {
            Type::F32 => Ok(single(number)),
            _ => self.visit_number(number.into()),
        }
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        self.visit_number(number)
    }

    fn visit_char<E: Error>(self, char: char) -> Result<Value, E> {
        self.visit_str(char.encode_utf8(&mut [0; 4]))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        match self.0.ty {
            Type::Text => Ok(Value::from(text)),
            Type::Char if text.chars().nth(1).is_none() && !text.is_empty() => {
                Ok(Value::from(text))
            }
            Type::Bytes => self.visit_bytes(text.as_bytes()),
            _ if self.0.is_key => self.key(text),
            _ => Err(self.wrong(format_args!("the text \"{}\"", shorten(text)))),
        }
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Value, E> {
        match self.0.ty {
            Type::Bytes => {
                self.0
                    .context
                    .spend(bytes.len(), self.0.path)
                    .map_err(lift)?;
                Ok(bytes.iter().copied().map(Value::from).collect())
            }
            // rmp-serde writes numbers of more than 64 bits so.
            Type::U128 if bytes.len() == 16 => {
                let bytes = bytes.try_into().unwrap_or_default();
                self.visit_u128_value(u128::from_be_bytes(bytes))
            }
            Type::I128 if bytes.len() == 16 => {
                let bytes = bytes.try_into().unwrap_or_default();
                self.integer(i128::from_be_bytes(bytes))
            }
            Type::Text => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Value::from(text)),
                Err(_) => Err(self.wrong("bytes that are not UTF-8")),
            },
            _ => Err(self.wrong(format_args!("{} bytes", bytes.len()))),
        }
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        match self.0.ty {
            Type::Unit => Ok(Value::Null),
            _ => Err(self.wrong("null")),
        }
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        if *self.0.ty != Type::Bytes {
            return Err(self.wrong("a list"));
        }
        let mut bytes = Vec::new();
        while let Some(byte) = seq.next_element::<u8>()? {
            self.0.context.spend(1, self.0.path).map_err(lift)?;
            bytes.push(Value::from(byte));
        }
        Ok(Value::Array(bytes))
    }
}
