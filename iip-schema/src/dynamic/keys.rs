//! Keys of maps, which are texts in JSON.

use serde_json::Value;

use super::context::{Context, Form, variant, variant_names};
use super::error::{DynamicError, Path, shorten, unknown};
use super::forms;
use super::node::{Content, Node};
use super::scalars::{one_char, parse_integer, sized, special};
use crate::types::{Tagging, Type, VariantShape};

/// The key of the type `ty` that is written as `text`.
pub(super) fn parse<'a>(
    context: &Context<'a>,
    ty: &'a Type,
    text: &'a str,
    path: &Path<'_>,
) -> Result<Node<'a>, DynamicError> {
    context.spend(1, path)?;
    let wrong = |kind: &str| {
        let text = shorten(text);
        path.error(format_args!("expected {kind} as the key, found \"{text}\""))
    };
    let ty = match context.form(ty, path)? {
        Form::Plain(ty) => ty,
        Form::Newtype(of) => {
            let node = parse(context, of, text, &path.wrapped()?)?;
            return Ok(Node::Newtype(Box::new(node)));
        }
        Form::Pair { readable, compact } => {
            let Some(known) = forms::known(context, readable, compact) else {
                return parse(context, compact, text, &path.wrapped()?);
            };
            return forms::parse(known, text).ok_or_else(|| wrong(known.kind()));
        }
        Form::Enum(name, shape) if shape.tagging == Tagging::External => {
            context.search(shape.variants.len(), path)?;
            let Some(variant) = variant(shape, text) else {
                let names = variant_names(shape);
                return Err(path.error(unknown(name, "variant", text, &names)));
            };
            if variant.shape != VariantShape::Unit {
                return Err(not_text(path));
            }
            return Ok(if context.positional() {
                Node::Variant(variant.index, "", Box::new(Content::Unit))
            } else {
                Node::Text(&variant.name)
            });
        }
        _ => return Err(not_text(path)),
    };
    if ty.integer().is_some() {
        return parse_integer(ty, text).ok_or_else(|| wrong("an integer in range"));
    }
    match ty {
        Type::Bool => match text {
            "true" => Ok(Node::Bool(true)),
            "false" => Ok(Node::Bool(false)),
            _ => Err(wrong("true or false")),
        },
        Type::F32 | Type::F64 => {
            let number = special(text).or_else(|| text.parse().ok());
            let node = number.and_then(|number| sized(ty, number));
            node.ok_or_else(|| wrong("a number"))
        }
        Type::Char => one_char(text)
            .map(Node::Char)
            .ok_or_else(|| wrong("one character")),
        Type::Text => Ok(Node::Text(text)),
        Type::Option(of) => {
            let node = parse(context, of, text, &path.wrapped()?)?;
            Ok(Node::Some(Box::new(node)))
        }
        _ => Err(not_text(path)),
    }
}

#[cold]
fn not_text(path: &Path<'_>) -> DynamicError {
    path.error("the keys of this map are not texts; write the map as a list of [key, value] pairs")
}

/// Returns `true` if all keys of the type can be texts.
pub(super) fn are_texts<'t>(context: &Context<'t>, ty: &'t Type, path: &Path<'_>) -> bool {
    match context.form(ty, path) {
        Ok(Form::Plain(ty)) => {
            ty.integer().is_some()
                || matches!(
                    ty,
                    Type::Bool | Type::F32 | Type::F64 | Type::Char | Type::Text
                )
        }
        Ok(Form::Newtype(of)) => path
            .wrapped()
            .is_ok_and(|path| are_texts(context, of, &path)),
        Ok(Form::Pair { readable, compact }) => {
            forms::known(context, readable, compact).is_some()
                || path
                    .wrapped()
                    .is_ok_and(|path| are_texts(context, compact, &path))
        }
        Ok(Form::Enum(_, shape)) => {
            let mut variants = shape.variants.iter();
            shape.tagging == Tagging::External
                && variants.all(|variant| variant.shape == VariantShape::Unit && !variant.untagged)
        }
        _ => false,
    }
}

/// The text of a key as it was read; `None` if it is not a text.
pub(super) fn text(key: &Value) -> Option<String> {
    match key {
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}
