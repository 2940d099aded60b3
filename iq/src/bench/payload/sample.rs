//! Values made from the description of a type.

use fastrand::Rng;
use iip_rpc::schema::{Enum, Field, Method, Shape, Tagging, Type, Types, Variant, VariantShape};
use serde_json::{Map, Value, json};

use super::template::{push_text, uuid};

/// The depth from which values are as small as their types allow.
const DEEP: u32 = 6;

/// The depth from which values are `null`, whatever their types.
const TOO_DEEP: u32 = 40;

/// The maximum length of an array.
const MAX_ARRAY: u64 = 4096;

/// The largest integer.
const MAX_INT: u64 = 1000;

/// Makes arguments for a method, in JSON.
pub(super) fn arguments(method: &Method, types: &Types, random: &mut Rng) -> Value {
    let mut maker = Maker { types, random };
    let args = method.args.iter();
    Value::Object(
        args.map(|arg| (arg.name.clone(), maker.value(&arg.ty, 0)))
            .collect(),
    )
}

/// Makes a value of a type, in JSON.
pub(super) fn value(ty: &Type, types: &Types, random: &mut Rng) -> Value {
    Maker { types, random }.value(ty, 0)
}

struct Maker<'a> {
    types: &'a Types,
    random: &'a mut Rng,
}

impl Maker<'_> {
    fn value(&mut self, ty: &Type, depth: u32) -> Value {
        if depth > TOO_DEEP {
            return Value::Null;
        }
        let deeper = depth + 1;
        match ty {
            Type::Bool => self.random.bool().into(),
            ty if ty.integer().is_some() => {
                let (bits, is_signed) = ty.integer().unwrap_or((8, false));
                let highest = (1_u64 << (bits.min(63) - u32::from(is_signed))) - 1;
                self.random.u64(1..=MAX_INT.min(highest)).into()
            }
            // Both kinds of floats hold it exactly.
            Type::F32 | Type::F64 => (f64::from(self.random.u16(..)) / 64.0).into(),
            Type::Char => self.random.alphabetic().to_string().into(),
            Type::Text => self.text().into(),
            Type::Bytes => self.bytes(16),
            Type::Option(of) => match depth < DEEP && self.random.u8(0..4) > 0 {
                true => self.value(of, deeper),
                false => Value::Null,
            },
            Type::Seq(of) => {
                let length = self.length(depth);
                (0..length).map(|_| self.value(of, deeper)).collect()
            }
            Type::Array(of, length) => {
                let length = (*length).min(MAX_ARRAY);
                (0..length).map(|_| self.value(of, deeper)).collect()
            }
            Type::Tuple(of) => of.iter().map(|of| self.value(of, deeper)).collect(),
            Type::Map(key, value) => {
                let length = self.length(depth);
                // Maps with keys of any type may be sent as pairs.
                let pairs = (0..length).map(|_| {
                    let key = self.value(key, deeper);
                    Value::Array(vec![key, self.value(value, deeper)])
                });
                match length {
                    0 => json!({}),
                    _ => pairs.collect(),
                }
            }
            Type::Named(name) => match self.types.get(name).map(|found| &found.shape) {
                Some(shape) => self.shape(shape, deeper),
                None => Value::Null,
            },
            Type::ByFormat { readable, compact } => match **readable {
                Type::Text => self.text_of(compact),
                _ => self.value(readable, deeper),
            },
            Type::Any => self.text().into(),
            _ => Value::Null,
        }
    }

    fn shape(&mut self, shape: &Shape, depth: u32) -> Value {
        match shape {
            Shape::Unit => Value::Null,
            Shape::Newtype(of) => self.value(of, depth),
            Shape::Tuple(of) => of.iter().map(|of| self.value(of, depth)).collect(),
            Shape::Struct { fields, .. } => self.fields(fields, depth).into(),
            Shape::Enum(of) => self.variant(of, depth),
            // A shape of a later version. If `null` does not fit, it is rejected later.
            _ => Value::Null,
        }
    }

    fn fields(&mut self, fields: &[Field], depth: u32) -> Map<String, Value> {
        let mut object = Map::new();
        for field in fields.iter().filter(|field| !field.write_only) {
            match (field.flatten, self.value(&field.ty, depth)) {
                (true, Value::Object(inner)) => object.extend(inner),
                (true, _) => {}
                (false, value) => drop(object.insert(field.name.clone(), value)),
            }
        }
        object
    }

    fn variant(&mut self, of: &Enum, depth: u32) -> Value {
        let known = of.variants.iter().filter(|variant| !variant.other);
        let mut variants: Vec<&Variant> = known.collect();
        let is_small = |variant: &&Variant| variant.shape == VariantShape::Unit;
        if depth > DEEP && variants.iter().any(is_small) {
            variants.retain(is_small);
        }
        let Some(variant) = self.random.choice(variants) else {
            return Value::Null;
        };
        let content = match &variant.shape {
            VariantShape::Newtype(of) => self.value(of, depth),
            VariantShape::Tuple(of) => of.iter().map(|of| self.value(of, depth)).collect(),
            VariantShape::Struct(fields) => self.fields(fields, depth).into(),
            _ => Value::Null,
        };
        let (name, is_unit) = (&variant.name, variant.shape == VariantShape::Unit);
        match &of.tagging {
            _ if variant.untagged => content,
            Tagging::External if is_unit => name.clone().into(),
            Tagging::External => json!({ name: content }),
            Tagging::Internal { tag } => {
                let mut object = Map::new();
                object.insert(tag.clone(), name.clone().into());
                if let Value::Object(content) = content {
                    object.extend(content);
                }
                object.into()
            }
            Tagging::Adjacent { tag, .. } if is_unit => json!({ tag: name }),
            Tagging::Adjacent { tag, content: key } => json!({ tag: name, key: content }),
            _ => content,
        }
    }

    /// Makes a text whose compact form is known, such as a UUID or an address, or else any text.
    fn text_of(&mut self, compact: &Type) -> Value {
        let is_byte = |of: &Type| *of == Type::U8;
        match compact {
            Type::Bytes => uuid(self.random).into(),
            Type::Array(of, 16) if is_byte(of) => uuid(self.random).into(),
            Type::Array(of, 4) if is_byte(of) => {
                let [a, b, c] = [0; 3].map(|_: u8| self.random.u8(..));
                format!("10.{a}.{b}.{c}").into()
            }
            _ => self.text().into(),
        }
    }

    fn text(&mut self) -> String {
        let (mut text, length) = (String::new(), self.random.usize(4..=12));
        push_text(length, self.random, &mut text);
        text
    }

    fn bytes(&mut self, length: usize) -> Value {
        (0..length)
            .map(|_| Value::from(self.random.u8(..)))
            .collect()
    }

    /// Returns a number of elements for a list.
    fn length(&mut self, depth: u32) -> usize {
        match depth < DEEP {
            true => self.random.usize(1..=3),
            false => 0,
        }
    }
}
