//! Enums.

use serde_json::Value;

use super::record::{self, Entries, Object};
use super::{Result, elements, expected, null, object};
use crate::dynamic::context::{Context, Record, TRIED, found, variant, variant_names};
use crate::dynamic::error::{DynamicError, Path, shorten, unknown};
use crate::dynamic::node::{Content, Node};
use crate::dynamic::write;
use crate::types::{Enum, Tagging, Variant, VariantShape};

/// Number of bytes of the reasons why no variant fits.
const SHOWN_REASONS: usize = 400;

/// The value as a variant of the enum.
pub(super) fn value<'a>(
    context: &Context<'a>,
    name: &'a str,
    shape: &'a Enum,
    value: &'a Value,
    path: &Path<'_>,
) -> Result<Node<'a>> {
    context.check_enum(name, shape, path)?;
    if shape.tagging == Tagging::Untagged {
        return untagged(context, name, &shape.variants, value, path);
    }
    let tagged = tagged(context, name, shape, value, path);
    if tagged.is_ok() || !shape.variants.iter().any(|variant| variant.untagged) {
        return tagged;
    }
    context.named_only(name, "has an untagged variant", path)?;
    untagged(context, name, &shape.variants, value, path).or(tagged)
}

fn tagged<'a>(
    context: &Context<'a>,
    name: &'a str,
    shape: &'a Enum,
    value: &'a Value,
    path: &Path<'_>,
) -> Result<Node<'a>> {
    match &shape.tagging {
        Tagging::External => external(context, name, shape, value, path),
        Tagging::Internal { .. } | Tagging::Adjacent { .. } => {
            let (mut object, mut entries) = (object(context, name, value, path)?, Vec::new());
            let record = beside_tag(context, name, shape, &mut object, &mut entries, path)?;
            record::closed(context, record, &object, path)?;
            Ok(Node::Map(entries))
        }
        Tagging::Untagged => untagged(context, name, &shape.variants, value, path),
    }
}

/// `"Variant"`, or `{"Variant": content}`.
fn external<'a>(
    context: &Context<'a>,
    name: &'a str,
    shape: &'a Enum,
    value: &'a Value,
    path: &Path<'_>,
) -> Result<Node<'a>> {
    let (key, content) = match value {
        Value::String(key) => (key, None),
        Value::Object(object) if object.len() == 1 => match object.iter().next() {
            Some((key, content)) => (key, Some(content)),
            None => return Err(expected("the name of a variant", value, path)),
        },
        _ => {
            let kind = format!(
                "the name of a variant of `{}`, or an object with it as the only key",
                shorten(name)
            );
            return Err(expected(&kind, value, path));
        }
    };
    let variant = find(context, name, shape, key, path)?;
    let Some(content) = content else {
        return match &variant.shape {
            VariantShape::Unit if context.positional() => {
                Ok(Node::Variant(variant.index, "", Box::new(Content::Unit)))
            }
            VariantShape::Unit => Ok(Node::Text(&variant.name)),
            _ => Err(needs_content(name, variant, path)),
        };
    };
    let content = self::content(context, name, variant, content, &path.key(key)?)?;
    if context.positional() {
        return Ok(Node::Variant(variant.index, "", Box::new(content)));
    }
    Ok(match content {
        Content::Unit => Node::Text(&variant.name),
        content => Node::Map(vec![(Node::Text(&variant.name), content.into())]),
    })
}

#[cold]
fn needs_content(name: &str, variant: &Variant, path: &Path<'_>) -> DynamicError {
    let (name, variant) = (shorten(name), shorten(&variant.name));
    path.error(format_args!(
        "the variant `{variant}` of `{name}` has a content: {{\"{variant}\": ..}}"
    ))
}

/// The variant with this name.
fn find<'a>(
    context: &Context<'a>,
    name: &str,
    shape: &'a Enum,
    given: &str,
    path: &Path<'_>,
) -> Result<&'a Variant> {
    context.search(shape.variants.len(), path)?;
    if let Some(variant) = variant(shape, given) {
        return Ok(variant);
    }
    let other = shape.variants.iter().find(|variant| variant.other);
    if let (Some(other), true) = (other, context.options.allow_unknown) {
        return Ok(other);
    }
    Err(path.error(unknown(name, "variant", given, &variant_names(shape))))
}

/// The content of a variant that has a place of its own. In formats with names, fields are one
/// node.
fn content<'a>(
    context: &Context<'a>,
    name: &'a str,
    variant: &'a Variant,
    value: &'a Value,
    path: &Path<'_>,
) -> Result<Content<'a>> {
    match &variant.shape {
        VariantShape::Unit => null(value, path).map(|()| Content::Unit),
        VariantShape::Newtype(of) => write::value(context, of, value, path).map(Content::One),
        VariantShape::Tuple(types) => elements(context, types, value, path).map(Content::Tuple),
        VariantShape::Struct(_) => {
            let record = record_of(name, variant);
            let mut object = object(context, &variant.name, value, path)?;
            let content = if context.positional() {
                record::positions(context, record, &mut object, path).map(Content::Tuple)?
            } else {
                record::whole(context, record, &mut object, path).map(Content::One)?
            };
            record::closed(context, record, &object, path)?;
            Ok(content)
        }
    }
}

/// The fields of a variant; none if it has another content.
pub(in crate::dynamic) fn record_of<'a>(name: &'a str, variant: &'a Variant) -> Record<'a> {
    let fields = match &variant.shape {
        VariantShape::Struct(fields) => fields.as_slice(),
        _ => &[],
    };
    Record {
        name: if variant.name.is_empty() {
            name
        } else {
            &variant.name
        },
        what: "field",
        fields,
        deny_unknown: false,
    }
}

/// The first variant that fits.
fn untagged<'a>(
    context: &Context<'a>,
    name: &'a str,
    variants: &'a [Variant],
    value: &'a Value,
    path: &Path<'_>,
) -> Result<Node<'a>> {
    let all = variants.iter().all(|variant| !variant.untagged);
    let strict = context.strict.replace(true);
    let mut reasons = String::new();
    let mut fitting = None;
    for variant in variants.iter().filter(|variant| all || variant.untagged) {
        context.spend(1, path)?;
        match content(context, name, variant, value, &path.tried()?) {
            Ok(content) => {
                fitting = Some(content);
                break;
            }
            Err(error) if reasons.len() < SHOWN_REASONS => {
                let more: String = error.to_string().chars().take(SHOWN_REASONS / 2).collect();
                reasons.push_str(&format!("; not `{}`: {more}", shorten(&variant.name)));
            }
            Err(_) => {}
        }
        context.spend(TRIED, path)?;
    }
    context.strict.set(strict);
    fitting.map(Node::from).ok_or_else(|| {
        let (name, found) = (shorten(name), found(value));
        path.error(format_args!("no variant of `{name}` fits {found}{reasons}"))
    })
}

/// Adds the entries of an enum whose variant is named by one of them; returns the fields that it
/// may have.
fn beside_tag<'a>(
    context: &Context<'a>,
    name: &'a str,
    shape: &'a Enum,
    object: &mut Object<'a>,
    entries: &mut Entries<'a>,
    path: &Path<'_>,
) -> Result<Record<'a>> {
    let (Tagging::Internal { tag } | Tagging::Adjacent { tag, .. }) = &shape.tagging else {
        return Err(path.error("the enum has no tag"));
    };
    let key = object.remove(&**tag);
    let Some(Value::String(key)) = key else {
        let (tag, name) = (shorten(tag), shorten(name));
        let found = key.map_or_else(|| "nothing".to_owned(), found);
        return Err(path.error(format_args!(
            "expected the name of a variant of `{name}` in `{tag}`, found {found}"
        )));
    };
    let variant = find(context, name, shape, key, &path.key(tag)?)?;
    entries.push((Node::Text(tag), Node::Text(&variant.name)));
    let record = record_of(name, variant);
    if let Tagging::Adjacent { content: place, .. } = &shape.tagging {
        let value = object.remove(&**place);
        if variant.shape != VariantShape::Unit || value.is_some_and(|value| !value.is_null()) {
            let value = value.unwrap_or(&Value::Null);
            let content = content(context, name, variant, value, &path.key(place)?)?;
            entries.push((Node::Text(place), content.into()));
        }
        return Ok(Record {
            fields: &[],
            ..record
        });
    }
    match &variant.shape {
        VariantShape::Unit => {}
        VariantShape::Newtype(of) => record::flat(context, of, object, entries, path)?,
        VariantShape::Struct(_) => record::fields(context, record, object, entries, path)?,
        VariantShape::Tuple(_) => {
            return Err(path.error("a tuple has no place beside the name of its variant"));
        }
    }
    Ok(record)
}

/// Adds the entries of an enum that is flattened into them.
pub(super) fn flat<'a>(
    context: &Context<'a>,
    name: &'a str,
    shape: &'a Enum,
    object: &mut Object<'a>,
    entries: &mut Entries<'a>,
    path: &Path<'_>,
) -> Result<()> {
    match &shape.tagging {
        Tagging::External => {
            context.search(object.len() * shape.variants.len().max(1), path)?;
            let key = object
                .keys()
                .copied()
                .find(|key| variant(shape, key).is_some());
            let found = key.and_then(|key| Some((variant(shape, key)?, object.remove(key)?)));
            let Some((variant, value)) = found else {
                let names = variant_names(shape);
                let given = object.keys().next().copied().unwrap_or_default();
                return Err(path.error(unknown(name, "variant", given, &names)));
            };
            let content = content(context, name, variant, value, &path.key(&variant.name)?)?;
            entries.push((Node::Text(&variant.name), content.into()));
            Ok(())
        }
        Tagging::Internal { .. } | Tagging::Adjacent { .. } => {
            beside_tag(context, name, shape, object, entries, path).map(drop)
        }
        Tagging::Untagged => {
            for variant in &shape.variants {
                context.spend(1 + object.len(), path)?;
                let (mut left, len) = (object.clone(), entries.len());
                let fits = match &variant.shape {
                    VariantShape::Unit => Ok(()),
                    VariantShape::Newtype(of) => {
                        record::flat(context, of, &mut left, entries, path)
                    }
                    VariantShape::Struct(_) => {
                        let record = record_of(name, variant);
                        record::fields(context, record, &mut left, entries, path)
                    }
                    VariantShape::Tuple(_) => Err(path.error("a tuple has no fields")),
                };
                if fits.is_ok() {
                    *object = left;
                    return Ok(());
                }
                context.spend(TRIED, path)?;
                entries.truncate(len);
            }
            let name = shorten(name);
            Err(path.error(format_args!("no variant of `{name}` fits the fields")))
        }
    }
}
