//! Lists and maps.

use std::fmt;

use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::{Seed, lift};
use crate::dynamic::keys;
use crate::types::Type;

/// The elements of a list.
#[derive(Clone, Copy)]
pub(super) enum Parts<'t> {
    Any(&'t Type),
    Same(&'t Type, usize),
    Each(&'t [Type]),
}

impl<'t> Parts<'t> {
    fn len(self) -> Option<usize> {
        match self {
            Self::Any(_) => None,
            Self::Same(_, len) => Some(len),
            Self::Each(types) => Some(types.len()),
        }
    }

    fn get(self, at: usize) -> Option<&'t Type> {
        match self {
            Self::Any(of) => Some(of),
            Self::Same(of, len) => (at < len).then_some(of),
            Self::Each(types) => types.get(at),
        }
    }
}

pub(super) struct Seq<'s, 't> {
    seed: Seed<'s, 't>,
    parts: Parts<'t>,
}

impl<'s, 't> Seq<'s, 't> {
    pub(super) fn new(seed: Seed<'s, 't>, parts: Parts<'t>) -> Self {
        Self { seed, parts }
    }
}

impl<'de> Visitor<'de> for Seq<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts.len() {
            None => f.write_str("a list"),
            Some(len) => write!(f, "a list of {len}"),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(of) = self.parts.get(elements.len()) {
            let path = self.seed.path.index(elements.len()).map_err(lift)?;
            match seq.next_element_seed(self.seed.of(of, &path))? {
                Some(element) => elements.push(element),
                None if self.parts.len().is_none() => return Ok(Value::Array(elements)),
                None => {
                    let len = self.parts.len().unwrap_or_default();
                    let found = elements.len();
                    return Err(lift(self.seed.path.error(format_args!(
                        "expected a list of {len}, found one of {found}"
                    ))));
                }
            }
        }
        // Formats with lengths of their own have more elements or not; serde_json rejects them
        // itself.
        if !self.seed.context.positional() && seq.next_element::<IgnoredAny>()?.is_some() {
            let len = elements.len();
            return Err(lift(
                self.seed
                    .path
                    .error(format_args!("expected a list of {len}, found more")),
            ));
        }
        Ok(Value::Array(elements))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        if self.parts.len() == Some(0) {
            return Ok(Value::Array(Vec::new()));
        }
        Err(lift(self.seed.path.error("expected a list, found null")))
    }

    /// Bytes are read as a list of numbers.
    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Value, E> {
        let elements = serde::de::value::SeqDeserializer::new(bytes.iter().copied());
        self.visit_seq(elements)
    }
}

pub(super) struct Map<'s, 't> {
    pub(super) seed: Seed<'s, 't>,
    pub(super) key: &'t Type,
    pub(super) of: &'t Type,
}

impl<'de> Visitor<'de> for Map<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let Self { seed, key, of } = self;
        let texts = keys::are_texts(seed.context, key, seed.path);
        let (mut object, mut pairs) = (serde_json::Map::new(), Vec::new());
        let key_path = seed.path.index(0).map_err(lift)?;
        let mut at = 0;
        loop {
            let key_seed = Seed {
                is_key: true,
                ..seed.of(key, &key_path)
            };
            let Some(key) = map.next_key_seed(key_seed)? else {
                break;
            };
            let text = if texts { keys::text(&key) } else { None };
            if let Some(text) = text {
                let path = seed.path.key(&text).map_err(lift)?;
                let value = map.next_value_seed(seed.of(of, &path))?;
                object.insert(text, value);
            } else {
                let path = seed.path.index(at).map_err(lift)?;
                let value = map.next_value_seed(seed.of(of, &path))?;
                pairs.push(Value::Array(vec![key, value]));
            }
            at += 1;
        }
        if texts && pairs.is_empty() {
            return Ok(Value::Object(object));
        }
        // A key that turned out not to be a text: all entries are pairs then.
        let others = object.into_iter();
        pairs.extend(others.map(|(key, value)| Value::Array(vec![Value::String(key), value])));
        Ok(Value::Array(pairs))
    }
}
