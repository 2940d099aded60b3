//! Enums in the four forms of serde.

use serde_json::{Value, json};

use super::objects::{Object, also_read_as};
use super::schema::{At, Schemas, TOO_LARGE, any};
use super::{describe, paragraphs};
use crate::types::{Enum, Tagging, Type, Variant, VariantShape};

impl<'a> Schemas<'a> {
    pub(super) fn enumeration(&self, name: &'a str, shape: &'a Enum) -> Value {
        let in_place = At::default().in_place_of(name);
        let (tagged, untagged): (Vec<_>, Vec<_>) =
            shape.variants.iter().partition(|variant| !variant.untagged);
        let known = tagged.iter().filter(|variant| !variant.other);
        let known: Vec<&str> = known.map(|variant| &*variant.name).collect();
        let mut forms = match &shape.tagging {
            Tagging::External => self.external(name, &tagged, &known),
            Tagging::Internal { tag } => {
                let variants = tagged.iter();
                variants
                    .map(|v| self.internal(tag, &known, v, in_place))
                    .collect()
            }
            Tagging::Adjacent { tag, content } => {
                let variants = tagged.iter();
                variants
                    .map(|v| self.adjacent(name, (tag, content), &known, v))
                    .collect()
            }
            Tagging::Untagged => {
                let variants = tagged.iter();
                variants.map(|v| self.bare(name, v, in_place)).collect()
            }
        };
        forms.extend(
            untagged
                .iter()
                .map(|variant| self.bare(name, variant, in_place)),
        );
        let overlap = shape.tagging == Tagging::Untagged
            || !untagged.is_empty()
            || tagged.iter().any(|variant| variant.other);
        one(forms, if overlap { "anyOf" } else { "oneOf" })
    }

    /// The variants of an externally tagged enum as keys of an object that may have others.
    pub(super) fn merged_variants(&self, name: &'a str, shape: &'a Enum, at: At<'a>) -> Value {
        let forms = shape.variants.iter().map(|variant| {
            if variant.untagged {
                return self.bare(name, variant, at.in_place_of(name));
            }
            if !self.takes(variant, 0) {
                return any(TOO_LARGE);
            }
            self.keyed(name, variant, at).build(false)
        });
        one(forms.collect(), "anyOf")
    }

    fn external(&self, name: &'a str, variants: &[&'a Variant], known: &[&str]) -> Vec<Value> {
        let (units, others): (Vec<&Variant>, Vec<_>) =
            variants.iter().partition(|variant| is_unit(variant));
        let mut forms = Vec::new();
        if !units.is_empty() {
            let names: Vec<&str> = units.iter().map(|unit| &*unit.name).collect();
            let mut form = json!({"type": "string", "enum": names});
            describe(&mut form, &list(&units));
            forms.push(form);
        }
        for unit in units.iter().filter(|unit| unit.other) {
            let text = format!("Every other name is read as `{}`.", unit.name);
            let mut form = self.unknown(known);
            describe(&mut form, &text);
            forms.push(form);
        }
        forms.extend(others.iter().map(|variant| {
            let mut form = self.keyed(name, variant, At::default()).build(true);
            describe(&mut form, &text(variant));
            form
        }));
        forms
    }

    /// An object whose key is the variant.
    fn keyed(&self, name: &'a str, variant: &'a Variant, at: At<'a>) -> Object {
        let mut object = Object::default();
        let content = self.content(name, &variant.shape, at.below());
        object.property(&variant.name, content, true);
        object
    }

    fn internal(&self, tag: &str, known: &[&str], variant: &'a Variant, at: At<'a>) -> Value {
        if !self.takes(variant, tag.len()) {
            return any(TOO_LARGE);
        }
        let mut object = Object::default();
        object.property(tag, self.tag(variant, known), true);
        match &variant.shape {
            VariantShape::Unit => {}
            VariantShape::Newtype(ty) => self.merge(&mut object, ty, false, at),
            VariantShape::Struct(fields) => self.add_fields(&mut object, fields, false, at),
            // serde refuses to compile them.
            VariantShape::Tuple(_) => object.open(),
        }
        let mut form = object.build(false);
        describe(&mut form, &text(variant));
        form
    }

    fn adjacent(
        &self,
        name: &'a str,
        (tag, content): (&str, &str),
        known: &[&str],
        variant: &'a Variant,
    ) -> Value {
        if !self.takes(variant, tag.len() + content.len()) {
            return any(TOO_LARGE);
        }
        let mut object = Object::default();
        object.property(tag, self.tag(variant, known), true);
        if !is_unit(variant) {
            let optional = matches!(variant.shape, VariantShape::Newtype(Type::Option(_)));
            let schema = self.content(name, &variant.shape, At::default().below());
            object.property(content, schema, !optional);
        }
        let mut form = object.build(false);
        describe(&mut form, &text(variant));
        form
    }

    /// Counts a variant; returns `false` if it must be left out. `more` is the length of its texts
    /// that are not its own.
    fn takes(&self, variant: &Variant, more: usize) -> bool {
        let aliases: usize = variant.aliases.iter().map(String::len).sum();
        let texts = variant.name.len() + variant.doc.len() + aliases;
        self.tally.take(texts + more)
    }

    /// The schema of the name of a variant at its tag.
    fn tag(&self, variant: &Variant, known: &[&str]) -> Value {
        if variant.other {
            let mut tag = self.unknown(known);
            describe(
                &mut tag,
                &format!("`{}`, or every other name.", variant.name),
            );
            return tag;
        }
        json!({"type": "string", "const": variant.name})
    }

    /// Every text but the names of known variants.
    fn unknown(&self, known: &[&str]) -> Value {
        let mut schema = json!({"type": "string"});
        if self
            .tally
            .take(known.iter().map(|name| name.len() + 16).sum())
        {
            schema["not"] = json!({"enum": known});
        }
        schema
    }

    /// The content of a variant alone.
    fn bare(&self, name: &'a str, variant: &'a Variant, at: At<'a>) -> Value {
        if !self.takes(variant, 0) {
            return any(TOO_LARGE);
        }
        let mut form = self.content(name, &variant.shape, at);
        describe(&mut form, &text(variant));
        form
    }

    /// The content of a variant of the enum with this name.
    fn content(&self, name: &'a str, shape: &'a VariantShape, at: At<'a>) -> Value {
        match shape {
            VariantShape::Unit => json!({"type": "null"}),
            VariantShape::Newtype(ty) => self.ty(ty, at),
            VariantShape::Tuple(types) => self.tuple(types, at),
            VariantShape::Struct(fields) => self.object(fields, false, at.in_place_of(name)),
        }
    }
}

fn is_unit(variant: &Variant) -> bool {
    variant.shape == VariantShape::Unit
}

fn text(variant: &Variant) -> String {
    paragraphs([variant.doc.clone(), also_read_as(&variant.aliases)])
}

/// A list of the notes on the variants.
fn list(units: &[&Variant]) -> String {
    let lines = units.iter().filter_map(|unit| {
        let text = text(unit);
        (!text.is_empty()).then(|| format!("* `{}`: {}", unit.name, text.replace('\n', " ")))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A schema of which one form holds.
fn one(mut forms: Vec<Value>, keyword: &str) -> Value {
    match forms.len() {
        0 => {
            let mut never = any("An enum without variants has no values.");
            never["not"] = json!({});
            never
        }
        1 => forms.swap_remove(0),
        _ => {
            let mut schema = json!({});
            schema[keyword] = forms.into();
            schema
        }
    }
}
