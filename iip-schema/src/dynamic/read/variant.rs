//! Enums.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, VariantAccess, Visitor};
use serde_json::{Map, Value};

use super::buffered::{self, Content, Entries};
use super::collection::{Parts, Seq};
use super::record::{Fields, object_of};
use super::{Seed, lift};
use crate::dynamic::context::{TRIED, variant, variant_names};
use crate::dynamic::error::{DynamicError, Path, shorten, unknown};
use crate::dynamic::write::record_of;
use crate::types::{Enum, Tagging, Type, Variant, VariantShape};

type ContentError = serde::de::value::Error;

/// Reads a variant of the enum.
pub(super) fn read<'de, 't, D: Deserializer<'de>>(
    seed: Seed<'_, 't>,
    name: &'t str,
    shape: &'t Enum,
    deserializer: D,
) -> Result<Value, D::Error> {
    let one = One { seed, name, shape };
    let (context, path) = (seed.context, seed.path);
    context.check_enum(name, shape, path).map_err(lift)?;
    let some_untagged = shape.variants.iter().any(|variant| variant.untagged);
    if shape.tagging == Tagging::External && (context.positional() || !some_untagged) {
        return deserializer.deserialize_enum("", &[], one);
    }
    let content = buffered::read(context, path, deserializer)?;
    let tagged = match &shape.tagging {
        Tagging::External => content
            .reader::<ContentError>(context.readable)
            .deserialize_enum("", &[], one),
        Tagging::Internal { tag } => one.internal(tag, &content),
        Tagging::Adjacent {
            tag,
            content: place,
        } => one.adjacent(tag, place, &content),
        Tagging::Untagged => one.untagged(&content),
    };
    match tagged {
        Err(_) if some_untagged && shape.tagging != Tagging::Untagged => one.untagged(&content),
        other => other,
    }
    .map_err(D::Error::custom)
}

/// The enum that is read.
#[derive(Clone, Copy)]
struct One<'s, 't> {
    seed: Seed<'s, 't>,
    name: &'t str,
    shape: &'t Enum,
}

impl<'t> One<'_, 't> {
    fn find(&self, name: &str) -> Result<&'t Variant, DynamicError> {
        let path = self.seed.path;
        self.seed.context.search(self.shape.variants.len(), path)?;
        let other = || self.shape.variants.iter().find(|variant| variant.other);
        variant(self.shape, name).or_else(other).ok_or_else(|| {
            path.error(unknown(
                self.name,
                "variant",
                name,
                &variant_names(self.shape),
            ))
        })
    }

    /// The name of the variant among the entries of an object, and the other entries.
    fn split(&self, tag: &str, content: &Content) -> Result<(&'t Variant, Entries), DynamicError> {
        let (path, owner) = (self.seed.path, shorten(self.name));
        let Content::Map(entries) = content else {
            return Err(path.error(format_args!("expected an object for `{owner}`")));
        };
        self.seed.context.spend(entries.len(), path)?;
        let (mut name, mut rest) = (None, Vec::new());
        for (key, value) in entries {
            if key.text() == Some(tag) {
                name = value.text();
            } else {
                rest.push((key.clone(), value.clone()));
            }
        }
        let Some(name) = name else {
            let tag = shorten(tag);
            return Err(path.error(format_args!(
                "expected the name of a variant of `{owner}` in `{tag}`"
            )));
        };
        Ok((self.find(name)?, rest))
    }

    fn internal(&self, tag: &str, content: &Content) -> Result<Value, ContentError> {
        let (variant, rest) = self.split(tag, content).map_err(lift)?;
        let path = self.seed.path;
        let mut object = Map::from_iter([(tag.to_owned(), Value::String(variant.name.clone()))]);
        let rest = Content::Map(rest);
        let reader = rest.reader::<ContentError>(self.seed.context.readable);
        match &variant.shape {
            VariantShape::Unit => {}
            VariantShape::Newtype(of) => {
                let path = path.flattened().map_err(lift)?;
                let value = match of {
                    Type::Unit => Value::Null,
                    of => self.seed.of(of, &path).deserialize(reader)?,
                };
                object.extend(object_of(&path, value).map_err(lift)?);
            }
            VariantShape::Struct(_) => {
                let fields = Fields::new(self.seed, record_of(self.name, variant));
                let value = fields.map_err(lift)?.read(reader)?;
                object.extend(object_of(path, value).map_err(lift)?);
            }
            VariantShape::Tuple(_) => {
                return Err(lift(
                    path.error("a tuple has no place beside the name of its variant"),
                ));
            }
        }
        Ok(Value::Object(object))
    }

    fn adjacent(&self, tag: &str, place: &str, content: &Content) -> Result<Value, ContentError> {
        let (variant, rest) = self.split(tag, content).map_err(lift)?;
        let mut object = Map::from_iter([(tag.to_owned(), Value::String(variant.name.clone()))]);
        let content = rest.iter().find(|(key, _)| key.text() == Some(place));
        if variant.shape != VariantShape::Unit {
            let path = self.seed.path.key(place).map_err(lift)?;
            let content = content.map_or(&Content::Null, |(_, content)| content);
            object.insert(place.to_owned(), self.content(variant, content, &path)?);
        }
        Ok(Value::Object(object))
    }

    fn untagged(&self, content: &Content) -> Result<Value, ContentError> {
        let variants = self.shape.variants.iter();
        let all = self.shape.tagging == Tagging::Untagged;
        for variant in variants.filter(|variant| all || variant.untagged) {
            let path = self.seed.path.tried().map_err(lift)?;
            self.seed.context.spend(1, &path).map_err(lift)?;
            if let Ok(value) = self.content(variant, content, &path) {
                return Ok(value);
            }
            self.seed.context.spend(TRIED, &path).map_err(lift)?;
        }
        // The limit may be the reason why none fits.
        self.seed.context.spend(1, self.seed.path).map_err(lift)?;
        let name = shorten(self.name);
        Err(lift(self.seed.path.error(format_args!(
            "no variant of `{name}` fits the value"
        ))))
    }

    /// The content of a variant alone.
    fn content(
        &self,
        variant: &'t Variant,
        content: &Content,
        path: &Path<'_>,
    ) -> Result<Value, ContentError> {
        let reader = content.reader::<ContentError>(self.seed.context.readable);
        match &variant.shape {
            VariantShape::Unit => self.seed.of(&Type::Unit, path).deserialize(reader),
            VariantShape::Newtype(of) => self.seed.of(of, path).deserialize(reader),
            VariantShape::Tuple(types) => {
                let parts = Seq::new(self.seed.of(&Type::Unit, path), Parts::Each(types));
                reader.deserialize_tuple(types.len(), parts)
            }
            VariantShape::Struct(_) => {
                let seed = self.seed.of(&Type::Unit, path);
                let fields = Fields::new(seed, record_of(self.name, variant));
                fields.map_err(lift)?.read(reader)
            }
        }
    }
}

impl<'de> Visitor<'de> for One<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a variant of `{}`", shorten(self.name))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        let (variant, access) = access.variant_seed(Which(self))?;
        let path = self.seed.path.key(&variant.name).map_err(lift)?;
        let content = match &variant.shape {
            VariantShape::Unit => {
                access.unit_variant()?;
                return Ok(Value::String(variant.name.clone()));
            }
            VariantShape::Newtype(of) => access.newtype_variant_seed(self.seed.of(of, &path))?,
            VariantShape::Tuple(types) => {
                let parts = Seq::new(self.seed.of(&Type::Unit, &path), Parts::Each(types));
                access.tuple_variant(types.len(), parts)?
            }
            VariantShape::Struct(_) => {
                let seed = self.seed.of(&Type::Unit, &path);
                let fields = Fields::new(seed, record_of(self.name, variant)).map_err(lift)?;
                if self.seed.context.positional() {
                    access.tuple_variant(fields.len(), fields)?
                } else {
                    access.struct_variant(&[], fields)?
                }
            }
        };
        Ok(Value::Object(Map::from_iter([(
            variant.name.clone(),
            content,
        )])))
    }
}

/// Reads which variant it is.
struct Which<'s, 't>(One<'s, 't>);

impl<'de, 't> DeserializeSeed<'de> for Which<'_, 't> {
    type Value = &'t Variant;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<&'t Variant, D::Error> {
        from.deserialize_identifier(self)
    }
}

impl<'t> Visitor<'_> for Which<'_, 't> {
    type Value = &'t Variant;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the name of a variant of `{}`", shorten(self.0.name))
    }

    fn visit_u64<E: Error>(self, index: u64) -> Result<&'t Variant, E> {
        let One { seed, name, shape } = self.0;
        seed.context
            .search(shape.variants.len(), seed.path)
            .map_err(lift)?;
        let mut variants = shape.variants.iter();
        let found = variants.find(|variant| u64::from(variant.index) == index);
        found.ok_or_else(|| {
            let (name, count) = (shorten(name), shape.variants.len());
            lift(seed.path.error(format_args!(
                "`{name}` has no variant with the index {index}; it has {count} variants"
            )))
        })
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<&'t Variant, E> {
        self.0.find(name).map_err(lift)
    }

    fn visit_bytes<E: Error>(self, name: &[u8]) -> Result<&'t Variant, E> {
        match std::str::from_utf8(name) {
            Ok(name) => self.visit_str(name),
            Err(_) => Err(lift(
                self.0.seed.path.error("the name of a variant is not UTF-8"),
            )),
        }
    }
}
