//! Structs with named fields, and what is merged into them.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::schema::{At, Schemas, TOO_LARGE, any};
use super::{describe, object as members, paragraphs};
use crate::types::{Field, Shape, Tagging, Type};

/// The schema of an object while fields are merged into it.
#[derive(Debug, Default)]
pub(super) struct Object {
    properties: Map<String, Value>,
    required: BTreeSet<String>,
    /// Schemas of the whole object: enums that are merged into it.
    parts: Vec<Value>,
    /// Schemas of the values of all other keys, one for each map that is merged.
    rest: Vec<Value>,
    /// `true` if other keys may have any value.
    open: bool,
}

impl Object {
    /// Adds a key, unless it is there.
    pub(super) fn property(&mut self, name: &str, schema: Value, required: bool) {
        self.properties.entry(name).or_insert(schema);
        if required {
            self.required.insert(name.to_owned());
        }
    }

    /// Lets other keys have any value.
    pub(super) fn open(&mut self) {
        self.open = true;
    }

    /// The schema. `closed` forbids other keys, unless a map takes them.
    pub(super) fn build(mut self, closed: bool) -> Value {
        let mut schema = json!({"type": "object"});
        // Keys of the parts are known to `unevaluatedProperties` only.
        let others = if self.parts.is_empty() {
            "additionalProperties"
        } else {
            "unevaluatedProperties"
        };
        if !self.properties.is_empty() {
            schema["properties"] = self.properties.into();
        }
        if !self.required.is_empty() {
            schema["required"] = self.required.into_iter().collect();
        }
        if !self.parts.is_empty() {
            schema["allOf"] = self.parts.into();
        }
        match self.rest.pop() {
            _ if self.open => {}
            None if closed => schema[others] = false.into(),
            None => {}
            Some(only) if self.rest.is_empty() => schema[others] = only,
            Some(last) => {
                self.rest.push(last);
                schema[others] = members([("anyOf", self.rest.into())]);
            }
        }
        schema
    }
}

impl<'a> Schemas<'a> {
    pub(super) fn object(&self, fields: &'a [Field], closed: bool, at: At<'a>) -> Value {
        let mut object = Object::default();
        self.add_fields(&mut object, fields, false, at);
        object.build(closed)
    }

    /// Adds fields. If all of them may be missing together, none is required.
    pub(super) fn add_fields(
        &self,
        object: &mut Object,
        fields: &'a [Field],
        optional: bool,
        at: At<'a>,
    ) {
        for field in fields {
            if self.tally.is_full() {
                object.open();
                return;
            }
            if field.flatten {
                let optional = optional || field.read_only || field.write_only;
                self.merge(object, &field.ty, optional, at);
            } else {
                let required = !optional && is_required(field);
                object.property(&field.name, self.field(field, at), required);
            }
        }
    }

    fn field(&self, field: &'a Field, at: At<'a>) -> Value {
        let aliases: usize = field.aliases.iter().map(String::len).sum();
        if !self
            .tally
            .take(field.name.len() + field.doc.len() + aliases)
        {
            return any(TOO_LARGE);
        }
        let mut schema = self.ty(&field.ty, at.below());
        describe(
            &mut schema,
            &paragraphs([field.doc.clone(), also_read_as(&field.aliases)]),
        );
        // The words of OpenAPI are those of the client: what the server only reads is written by
        // the client.
        if field.read_only {
            schema["writeOnly"] = true.into();
        }
        if field.write_only {
            schema["readOnly"] = true.into();
        }
        if field.secret {
            schema["x-iip-secret"] = true.into();
            if *inner(&field.ty) == Type::Text {
                schema["format"] = "password".into();
            }
        }
        schema
    }

    /// Adds the keys of the values of a type: those of a flattened field, or of an internally
    /// tagged variant. If they may be missing together, none is required.
    pub(super) fn merge(&self, object: &mut Object, ty: &'a Type, optional: bool, at: At<'a>) {
        if at.is_too_deep() || !self.tally.take(0) {
            object.open();
            return;
        }
        match ty {
            Type::Unit => {}
            Type::Option(of) => self.merge(object, of, true, at.same_place()),
            Type::ByFormat { readable, .. } => {
                self.merge(object, readable, optional, at.same_place());
            }
            Type::Map(_, value) => match self.ty(value, at.below()) {
                Value::Object(schema) if schema.is_empty() => object.open(),
                schema => object.rest.push(schema),
            },
            Type::Named(name) => self.merge_named(object, name, optional, at),
            // Any keys. Other types cannot be merged, and serde fails to write them.
            _ => object.open(),
        }
    }

    fn merge_named(&self, object: &mut Object, name: &'a str, optional: bool, at: At<'a>) {
        let Some(definition) = self.types.get(name) else {
            object.parts.push(self.reference(name, None));
            object.open();
            return;
        };
        if self.is_circular(at.owner(), name) {
            object.open();
            return;
        }
        let inside = at.in_place_of(name).merged();
        match &definition.shape {
            Shape::Unit => {}
            Shape::Newtype(of) => self.merge(object, of, optional, inside),
            // serde ignores `deny_unknown_fields` of a type that is merged.
            Shape::Struct { fields, .. } => self.add_fields(object, fields, optional, inside),
            Shape::Tuple(_) => object.open(),
            Shape::Enum(shape) => {
                let part = if shape.tagging == Tagging::External {
                    // Its variants are keys among others here.
                    self.merged_variants(name, shape, inside)
                } else {
                    self.reference(name, None)
                };
                object.parts.push(if optional {
                    members([("anyOf", vec![part, any("Without it.")].into())])
                } else {
                    part
                });
            }
        }
    }
}

/// Returns `true` if the field is present in every value, written or read.
fn is_required(field: &Field) -> bool {
    !field.is_optional() && !field.may_be_skipped && !field.read_only && !field.write_only
}

fn inner(ty: &Type) -> &Type {
    match ty {
        Type::Option(of) => of,
        ty => ty,
    }
}

/// The text about further names: empty if there are none.
pub(super) fn also_read_as(aliases: &[String]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let names: Vec<String> = aliases.iter().map(|name| format!("`{name}`")).collect();
    format!("Also read as {}.", names.join(", "))
}
