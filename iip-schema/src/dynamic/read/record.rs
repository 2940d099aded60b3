//! Named fields.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::buffered::{Buffer, Content, Entries};
use super::{Seed, lift};
use crate::dynamic::blank;
use crate::dynamic::context::{Form, Record, variant};
use crate::dynamic::error::{DynamicError, Path, shorten, unknown};
use crate::types::{Field, Tagging, Type};

/// Reads named fields as an object.
pub(super) struct Fields<'s, 't> {
    seed: Seed<'s, 't>,
    record: Record<'t>,
}

impl<'s, 't> Fields<'s, 't> {
    pub(super) fn new(seed: Seed<'s, 't>, record: Record<'t>) -> Result<Self, DynamicError> {
        if record.fields.iter().any(|field| field.flatten) {
            let why = "has a flattened field";
            seed.context.named_only(record.name, why, seed.path)?;
        }
        Ok(Self { seed, record })
    }

    /// The fields that a writer writes.
    fn written(&self) -> impl Iterator<Item = &'t Field> + use<'t> {
        self.record.fields.iter().filter(|field| !field.read_only)
    }

    /// The number of values in a format without names.
    pub(super) fn len(&self) -> usize {
        self.written().count()
    }

    pub(super) fn read<'de, D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        if self.seed.context.positional() {
            return from.deserialize_tuple(self.len(), self);
        }
        from.deserialize_struct("", &[], self)
    }

    fn find(&self, name: &str) -> Result<Option<&'t Field>, DynamicError> {
        let fields = self.record.fields;
        self.seed.context.search(fields.len(), self.seed.path)?;
        let named = || fields.iter().filter(|field| !field.flatten);
        let exact = named().find(|field| field.name == name);
        Ok(exact.or_else(|| named().find(|field| field.aliases.iter().any(|alias| alias == name))))
    }

    /// The value of a field that was read, or a blank one in its place.
    fn kept(&self, field: &'t Field, value: Value, path: &Path<'_>) -> Result<Value, DynamicError> {
        match field.secret && self.seed.context.options.blank_secrets {
            true => blank::value(self.seed.context, &field.ty, path),
            false => Ok(value),
        }
    }

    /// Adds what is not there.
    fn complete(&self, object: &mut Map<String, Value>) -> Result<(), DynamicError> {
        for field in self.written().filter(|field| !field.flatten) {
            self.seed.context.spend(1, self.seed.path)?;
            if object.contains_key(&field.name) || field.default || field.may_be_skipped {
                continue;
            }
            if !matches!(field.ty, Type::Option(_)) {
                let (owner, name) = (shorten(self.record.name), shorten(&field.name));
                let what = self.record.what;
                return Err(self
                    .seed
                    .path
                    .error(format_args!("the {what} `{name}` of `{owner}` is missing")));
            }
            object.insert(field.name.clone(), Value::Null);
        }
        Ok(())
    }

    fn unknown(&self, name: &str) -> DynamicError {
        let names: Vec<&str> = self.written().map(|field| &*field.name).collect();
        self.seed
            .path
            .error(unknown(self.record.name, self.record.what, name, &names))
    }
}

/// An option that its writer most likely leaves out.
fn is_left_out(field: &Field, value: &Value) -> bool {
    field.may_be_skipped && value.is_null() && matches!(field.ty, Type::Option(_))
}

impl<'de> Visitor<'de> for Fields<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the fields of `{}`", shorten(self.record.name))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        for field in self.written() {
            let path = self.seed.path.key(&field.name).map_err(lift)?;
            let Some(value) = seq.next_element_seed(self.seed.of(&field.ty, &path))? else {
                if field.default {
                    continue;
                }
                return Err(lift(path.error("the list ends before this field")));
            };
            let value = self.kept(field, value, &path).map_err(lift)?;
            if !is_left_out(field, &value) {
                object.insert(field.name.clone(), value);
            }
        }
        if !self.seed.context.positional() && seq.next_element::<IgnoredAny>()?.is_some() {
            return Err(lift(
                self.seed
                    .path
                    .error("the list has more elements than fields"),
            ));
        }
        Ok(Value::Object(object))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let (context, path) = (self.seed.context, self.seed.path);
        let flattened = self.record.fields.iter().any(|field| field.flatten);
        let (mut object, mut rest) = (Map::new(), Vec::new());
        let key_path = path.index(0).map_err(lift)?;
        while let Some(key) = map.next_key_seed(Buffer(context, &key_path))? {
            let field = match key.text() {
                Some(name) => self.find(name).map_err(lift)?,
                None => None,
            };
            if let Some(field) = field {
                let path = path.key(&field.name).map_err(lift)?;
                let value = map.next_value_seed(self.seed.of(&field.ty, &path))?;
                if object.contains_key(&field.name) {
                    return Err(lift(path.error("the field is given twice")));
                }
                let value = self.kept(field, value, &path).map_err(lift)?;
                if !is_left_out(field, &value) {
                    object.insert(field.name.clone(), value);
                }
            } else if flattened {
                let value = map.next_value_seed(Buffer(context, &key_path))?;
                rest.push((key, value));
            } else if self.record.deny_unknown {
                return Err(lift(self.unknown(key.text().unwrap_or("(not a text)"))));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        self.complete(&mut object).map_err(lift)?;
        for field in self.written().filter(|field| field.flatten) {
            let entries =
                flat(self.seed.of(&field.ty, path), &mut rest).map_err(A::Error::custom)?;
            let value = self
                .kept(field, Value::Object(entries), path)
                .map_err(lift)?;
            // A blank option has no fields.
            if let Value::Object(entries) = value {
                object.extend(entries);
            }
        }
        if let (true, Some((key, _))) = (self.record.deny_unknown, rest.first()) {
            return Err(lift(self.unknown(key.text().unwrap_or("(not a text)"))));
        }
        Ok(Value::Object(object))
    }
}

type FlatError = serde::de::value::Error;

/// Reads a value whose fields are among `entries`, and removes those that it uses.
pub(super) fn flat(
    seed: Seed<'_, '_>,
    entries: &mut Entries,
) -> Result<Map<String, Value>, FlatError> {
    // A type that is flattened into itself has no end.
    let path = &seed.path.flattened().map_err(lift)?;
    let chosen = choose(seed, entries, path).map_err(lift)?;
    let Chosen::Some(ty, taken, optional) = chosen else {
        return Ok(Map::new());
    };
    let content = Content::Map(taken);
    let read = seed
        .of(ty, path)
        .deserialize(content.reader(seed.context.readable));
    match read {
        Ok(value) => object_of(path, value).map_err(lift),
        Err(_) if optional => Ok(Map::new()),
        Err(error) => Err(error),
    }
}

/// The entries that a value consists of.
pub(super) fn object_of(path: &Path<'_>, value: Value) -> Result<Map<String, Value>, DynamicError> {
    match value {
        Value::Object(object) => Ok(object),
        Value::Null => Ok(Map::new()),
        // A variant without content.
        Value::String(variant) => Ok(Map::from_iter([(variant, Value::Null)])),
        _ => Err(path.error("the type of this value has no fields that could be flattened")),
    }
}

enum Chosen<'t> {
    None,
    /// A type, its entries, and whether it may not be there.
    Some(&'t Type, Entries, bool),
}

/// Chooses the entries that a flattened type reads.
fn choose<'t>(
    seed: Seed<'_, 't>,
    entries: &mut Entries,
    path: &Path<'_>,
) -> Result<Chosen<'t>, DynamicError> {
    let context = seed.context;
    context.spend(1 + entries.len(), path)?;
    match context.form(seed.ty, path)? {
        Form::Unit | Form::Plain(Type::Unit) => Ok(Chosen::None),
        Form::Newtype(of) => {
            let path = path.wrapped()?;
            choose(seed.of(of, &path), entries, &path)
        }
        Form::Plain(Type::Option(of)) => {
            let path = path.wrapped()?;
            let kept = entries.clone();
            Ok(match choose(seed.of(of, &path), entries, &path)? {
                // Without any field of its own it is `None`.
                Chosen::Some(_, taken, _) if taken.is_empty() => {
                    *entries = kept;
                    Chosen::None
                }
                Chosen::Some(ty, taken, _) => Chosen::Some(ty, taken, true),
                Chosen::None => Chosen::None,
            })
        }
        Form::Struct(record) if !record.fields.iter().any(|field| field.flatten) => {
            let names: std::collections::BTreeSet<&str> = record
                .fields
                .iter()
                .flat_map(|field| {
                    std::iter::once(&field.name)
                        .chain(&field.aliases)
                        .map(|name| &**name)
                })
                .collect();
            context.spend(names.len(), path)?;
            let taken = entries
                .extract_if(.., |(key, _)| {
                    key.text().is_some_and(|key| names.contains(key))
                })
                .collect();
            Ok(Chosen::Some(seed.ty, taken, false))
        }
        Form::Enum(_, shape) if shape.tagging == Tagging::External => {
            context.search(entries.len() * shape.variants.len().max(1), path)?;
            let place = entries
                .iter()
                .position(|(key, _)| key.text().is_some_and(|key| variant(shape, key).is_some()));
            let taken = place.map(|place| vec![entries.remove(place)]);
            Ok(Chosen::Some(seed.ty, taken.unwrap_or_default(), false))
        }
        // As in serde, the entries stay for further fields.
        _ => Ok(Chosen::Some(seed.ty, entries.clone(), false)),
    }
}
