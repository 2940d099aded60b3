//! Checks of values, in JSON and in bytes, against descriptions.

use iip_schema::{Enum, Field, Shape, Tagging, Type, Types, VariantShape};
use serde_json::{Map, Value};

type Verdict = Result<(), String>;

pub(super) fn json(value: &Value, ty: &Type, types: &Types) -> Verdict {
    let fits = match ty {
        Type::Any | Type::Opaque { .. } => true,
        Type::Bool => value.is_boolean(),
        Type::F32 | Type::F64 => value.is_number(),
        Type::Char => value.as_str().is_some_and(|text| text.chars().count() == 1),
        Type::Text => value.is_string(),
        Type::Bytes => value
            .as_array()
            .is_some_and(|bytes| bytes.iter().all(|byte| byte.as_u64() < Some(256))),
        Type::Unit => value.is_null(),
        Type::Option(_) if value.is_null() => true,
        Type::Option(of) => return json(value, of, types),
        Type::ByFormat { readable, .. } => return json(value, readable, types),
        Type::Seq(of) => return elements(value, None, |_| of, types),
        Type::Array(of, len) => return elements(value, Some(*len as usize), |_| of, types),
        Type::Tuple(of) => return elements(value, Some(of.len()), |place| &of[place], types),
        Type::Map(key, of) => {
            let map = value.as_object().ok_or("no object")?;
            for (name, value) in map {
                let text = Value::String(name.clone());
                let number = serde_json::from_str(name).unwrap_or(Value::Null);
                json(&text, key, types).or_else(|_| json(&number, key, types))?;
                json(value, of, types)?;
            }
            true
        }
        Type::Named(name) => return named(value, name, types),
        integer => match integer.integer() {
            Some((bits, true)) => value.as_i64().is_some_and(|number| {
                bits >= 64 || (number >> (bits - 1) == 0 || number >> (bits - 1) == -1)
            }),
            Some((bits, false)) => value
                .as_u64()
                .is_some_and(|number| bits >= 64 || number >> bits == 0),
            None => false,
        },
    };
    if fits {
        return Ok(());
    }
    Err(format!("{value} is not {ty:?}"))
}

fn elements<'a>(
    value: &Value,
    len: Option<usize>,
    ty: impl Fn(usize) -> &'a Type,
    types: &Types,
) -> Verdict {
    let elements = value
        .as_array()
        .ok_or_else(|| format!("{value} is no array"))?;
    if len.is_some_and(|len| len != elements.len()) {
        return Err(format!("{value} has not {len:?} elements"));
    }
    for (place, value) in elements.iter().enumerate() {
        json(value, ty(place), types)?;
    }
    Ok(())
}

fn named(value: &Value, name: &str, types: &Types) -> Verdict {
    match &types.get(name).ok_or("no definition")?.shape {
        Shape::Unit => json(value, &Type::Unit, types),
        Shape::Newtype(of) => json(value, of, types),
        Shape::Tuple(of) => elements(value, Some(of.len()), |place| &of[place], types),
        Shape::Struct { fields: of, .. } => fields(value, of, types),
        Shape::Enum(of) => variant(value, of, types),
        other => Err(format!("{other:?}")),
    }
}

fn fields(value: &Value, fields: &[Field], types: &Types) -> Verdict {
    let mut map = value.as_object().ok_or("no object")?.clone();
    for field in fields {
        match map.remove(&field.name) {
            Some(value) => json(&value, &field.ty, types)?,
            None if field.is_optional() => {}
            None => return Err(format!("no field {}", field.name)),
        }
    }
    match map.keys().next() {
        Some(name) => Err(format!("a field {name}")),
        None => Ok(()),
    }
}

fn variant(value: &Value, of: &Enum, types: &Types) -> Verdict {
    let object = value.as_object();
    let (name, value) = match (&of.tagging, value) {
        (Tagging::External, Value::String(name)) => (name.clone(), Value::Null),
        (Tagging::External, _) => {
            let entry = object.and_then(|map: &Map<_, _>| map.iter().next());
            let (name, value) = entry.ok_or("no variant")?;
            (name.clone(), value.clone())
        }
        (Tagging::Adjacent { tag, content }, _) => {
            let name = value[tag].as_str().ok_or("no tag")?;
            (name.to_owned(), value[content].clone())
        }
        (tagging, _) => return Err(format!("{tagging:?}")),
    };
    let mut variants = of.variants.iter();
    let variant = variants
        .find(|variant| variant.name == name || variant.aliases.contains(&name))
        .ok_or_else(|| format!("no variant {name}"))?;
    match &variant.shape {
        VariantShape::Unit => json(&value, &Type::Unit, types),
        VariantShape::Newtype(of) => json(&value, of, types),
        VariantShape::Tuple(of) => elements(&value, Some(of.len()), |place| &of[place], types),
        VariantShape::Struct(of) => fields(&value, of, types),
        other => Err(format!("{other:?}")),
    }
}

pub(super) fn bincode(bytes: &[u8], ty: &Type, types: &Types) -> Verdict {
    positional(bytes, ty, types, Format::Bincode)
}

pub(super) fn postcard(bytes: &[u8], ty: &Type, types: &Types) -> Verdict {
    positional(bytes, ty, types, Format::Postcard)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Format {
    Bincode,
    Postcard,
}

/// The reason why a reader stops.
enum Stop {
    /// A part has no known form. What comes after it is not checked.
    Unknown,
    Problem(String),
}

fn positional(bytes: &[u8], ty: &Type, types: &Types, format: Format) -> Verdict {
    let mut reader = Reader {
        bytes,
        types,
        format,
    };
    match reader.ty(ty) {
        Err(Stop::Unknown) => Ok(()),
        Err(Stop::Problem(problem)) => Err(problem),
        Ok(()) if reader.bytes.is_empty() => Ok(()),
        Ok(()) => Err(format!("{} bytes are left", reader.bytes.len())),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    types: &'a Types,
    format: Format,
}

fn problem<T>(text: &str) -> Result<T, Stop> {
    Err(Stop::Problem(text.to_owned()))
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Stop> {
        let Some((taken, rest)) = self.bytes.split_at_checked(len) else {
            return problem("the bytes end too early");
        };
        self.bytes = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Stop> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u128, Stop> {
        if self.format == Format::Postcard {
            let mut number = 0;
            for place in 0..19 {
                let byte = self.byte()?;
                number |= u128::from(byte & 127) << (7 * place);
                if byte < 128 {
                    return Ok(number);
                }
            }
            return problem("no end of a number");
        }
        let len = match self.byte()? {
            byte @ ..=250 => return Ok(byte.into()),
            251 => 2,
            252 => 4,
            253 => 8,
            _ => 16,
        };
        let mut bytes = [0; 16];
        bytes[..len].copy_from_slice(self.take(len)?);
        Ok(u128::from_le_bytes(bytes))
    }

    fn text(&mut self) -> Result<&'a str, Stop> {
        let len = self.number()? as usize;
        match std::str::from_utf8(self.take(len)?) {
            Ok(text) => Ok(text),
            Err(_) => problem("no text"),
        }
    }

    fn ty(&mut self, ty: &Type) -> Result<(), Stop> {
        match ty {
            Type::Any | Type::Opaque { .. } => Err(Stop::Unknown),
            Type::Unit => Ok(()),
            Type::Bool if self.byte()? < 2 => Ok(()),
            Type::Bool => problem("no bool"),
            Type::U8 | Type::I8 => self.byte().map(drop),
            Type::F32 => self.take(4).map(drop),
            Type::F64 => self.take(8).map(drop),
            Type::Char if self.format == Format::Postcard => self.text().map(drop),
            Type::Char => self.byte().map(drop),
            Type::Text => self.text().map(drop),
            Type::Bytes => {
                let len = self.number()? as usize;
                self.take(len).map(drop)
            }
            Type::Option(of) => match self.byte()? {
                0 => Ok(()),
                1 => self.ty(of),
                _ => problem("no option"),
            },
            Type::Seq(of) => (0..self.number()?).try_for_each(|_| self.ty(of)),
            Type::Array(of, len) => (0..*len).try_for_each(|_| self.ty(of)),
            Type::Tuple(of) => of.iter().try_for_each(|ty| self.ty(ty)),
            Type::Map(key, of) => (0..self.number()?).try_for_each(|_| {
                self.ty(key)?;
                self.ty(of)
            }),
            Type::ByFormat { compact, .. } => self.ty(compact),
            Type::Named(name) => self.named(name),
            integer => {
                let bits = integer.integer().map_or(0, |(bits, _)| bits);
                let number = self.number()?;
                if bits < 128 && number >> bits != 0 {
                    return problem("a number that is too large");
                }
                Ok(())
            }
        }
    }

    fn named(&mut self, name: &str) -> Result<(), Stop> {
        let Some(definition) = self.types.get(name) else {
            return problem("no definition");
        };
        let Shape::Enum(of) = &definition.shape else {
            let mut parts = definition.parts().into_iter();
            return parts.try_for_each(|ty| self.ty(ty));
        };
        if of.tagging != Tagging::External {
            return Err(Stop::Unknown);
        }
        let index = self.number()?;
        let Some(variant) = of.variants.iter().find(|known| index == known.index.into()) else {
            return problem("a variant that is not known");
        };
        let mut parts = variant.shape.parts().into_iter();
        parts.try_for_each(|ty| self.ty(ty))
    }
}
