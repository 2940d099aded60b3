//! JSON Schemas of types, as serde_json writes them.

use std::cell::Cell;
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::graph::{Edges, circular};
use super::http::unwrapped;
use super::{describe, object};
use crate::types::{Definition, Enum, Shape, Tagging, Type, Types, VariantShape};

/// Maximum depth of types within one schema. The text of a document stays within the 127 levels
/// that serde_json reads.
const MAX_DEPTH: usize = 32;

/// The text in place of schemas that are left out.
pub(super) const TOO_LARGE: &str = "Left out: the document has its maximum size.";

/// The counters that all schemas of a document share.
#[derive(Debug)]
pub(super) struct Tally {
    nodes_left: Cell<usize>,
    is_full: Cell<bool>,
    has_wide_integers: Cell<bool>,
    int64_as_text: bool,
}

impl Tally {
    /// The bytes of text that count as one more node.
    const NODE_TEXT: usize = 256;

    /// Room for this number of nodes. What is merged into several types counts each time, so that
    /// no description of moderate size becomes a document of any size.
    pub(super) fn new(max_nodes: usize, int64_as_text: bool) -> Self {
        Self {
            nodes_left: Cell::new(max_nodes),
            is_full: Cell::new(false),
            has_wide_integers: Cell::new(false),
            int64_as_text,
        }
    }

    /// Counts a node with texts of this length; returns `false` if it must be left out.
    pub(super) fn take(&self, texts: usize) -> bool {
        let nodes = 1 + texts / Self::NODE_TEXT;
        match self.nodes_left.get().checked_sub(nodes) {
            Some(left) => self.nodes_left.set(left),
            None => self.is_full.set(true),
        }
        !self.is_full.get()
    }

    /// Returns `true` if a node was left out.
    pub(super) fn is_full(&self) -> bool {
        self.is_full.get()
    }

    /// Returns `true` if there are integers of 64 or 128 bits.
    pub(super) fn has_wide_integers(&self) -> bool {
        self.has_wide_integers.get()
    }
}

/// The place of a type in the schemas.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct At<'a> {
    /// The named type whose values stand at the same place of a document as those of this type.
    owner: Option<&'a str>,
    depth: usize,
}

impl<'a> At<'a> {
    /// Within the named type, at the same place of a document.
    pub(super) fn in_place_of(self, owner: &'a str) -> Self {
        Self {
            owner: Some(owner),
            ..self
        }
    }

    /// One level deeper at the same place.
    pub(super) fn same_place(self) -> Self {
        Self {
            depth: self.depth + 1,
            ..self
        }
    }

    /// Below a key or an index.
    pub(super) fn below(self) -> Self {
        Self {
            owner: None,
            depth: self.depth + 1,
        }
    }

    /// In a type whose fields are merged into another. This costs four levels, because schemas of
    /// alternatives are nested deeper than others.
    pub(super) fn merged(self) -> Self {
        Self {
            depth: self.depth + 4,
            ..self
        }
    }

    pub(super) fn owner(self) -> Option<&'a str> {
        self.owner
    }

    pub(super) fn is_too_deep(self) -> bool {
        self.depth > MAX_DEPTH
    }
}

/// The schemas of the types of one service.
#[derive(Debug)]
pub(super) struct Schemas<'a> {
    pub(super) types: &'a Types,
    keys: &'a BTreeMap<&'a str, String>,
    circular: Edges<'a>,
    pub(super) tally: &'a Tally,
}

impl<'a> Schemas<'a> {
    pub(super) fn new(
        types: &'a Types,
        keys: &'a BTreeMap<&'a str, String>,
        tally: &'a Tally,
    ) -> Self {
        Self {
            types,
            keys,
            circular: circular(types),
            tally,
        }
    }

    /// The schema of a struct or an enum.
    pub(super) fn definition(&self, name: &'a str, definition: &'a Definition) -> Value {
        let at = At::default().in_place_of(name);
        let mut schema = match &definition.shape {
            Shape::Unit => json!({"type": "null"}),
            Shape::Newtype(ty) => self.newtype(name, ty, at),
            Shape::Tuple(types) => self.tuple(types, at),
            Shape::Struct {
                fields,
                deny_unknown_fields,
            } => self.object(fields, *deny_unknown_fields, at),
            Shape::Enum(shape) => self.enumeration(name, shape),
        };
        describe(&mut schema, &definition.doc);
        schema
    }

    /// The schema of a type in an argument or a result.
    pub(super) fn value(&self, ty: &'a Type) -> Value {
        self.ty(ty, At::default())
    }

    pub(super) fn ty(&self, ty: &'a Type, at: At<'a>) -> Value {
        let texts = match ty {
            Type::Named(name) => name.len(),
            Type::Opaque { name, reason } => name.len() + reason.len(),
            _ => 0,
        };
        if !self.tally.take(texts) {
            return any(TOO_LARGE);
        }
        if at.is_too_deep() {
            return any("Left out: the type is nested too deep.");
        }
        if let (Some((64.., signed)), true) = (ty.integer(), self.tally.int64_as_text) {
            return integer_text(signed);
        }
        if let Some(schema) = integer(ty) {
            if ty.integer().is_some_and(|(bits, _)| bits >= 64) {
                self.tally.has_wide_integers.set(true);
            }
            return schema;
        }
        match ty {
            Type::Bool => json!({"type": "boolean"}),
            Type::F32 => json!({"type": "number", "format": "float"}),
            Type::F64 => json!({"type": "number", "format": "double"}),
            Type::Char => json!({"type": "string", "minLength": 1, "maxLength": 1}),
            Type::Text => json!({"type": "string"}),
            Type::Bytes => {
                let byte = json!({"type": "integer", "minimum": 0, "maximum": 255});
                json!({"type": "array", "items": byte, "description": "Bytes."})
            }
            Type::Unit => json!({"type": "null"}),
            Type::Option(of) => nullable(self.ty(of, at.same_place())),
            Type::Seq(of) => {
                let items = self.ty(of, at.below());
                object([("type", "array".into()), ("items", items)])
            }
            Type::Array(of, len) => {
                let items = self.ty(of, at.below());
                let mut schema = json!({"type": "array", "minItems": len, "maxItems": len});
                schema["items"] = items;
                schema
            }
            Type::Tuple(types) => self.tuple(types, at),
            Type::Map(key, value) => self.map(key, value, at),
            Type::Named(name) => self.reference(name, at.owner),
            Type::ByFormat { readable, .. } => self.ty(readable, at.same_place()),
            Type::Any => json!({}),
            Type::Opaque { name, reason } => {
                let because = if reason.is_empty() {
                    String::new()
                } else {
                    format!(": {reason}")
                };
                any(format!("A value of the Rust type `{name}`{because}."))
            }
            // Integers are above.
            _ => any(""),
        }
    }

    pub(super) fn reference(&self, name: &'a str, owner: Option<&'a str>) -> Value {
        let Some(key) = self.keys.get(name) else {
            return any(format!("The description has no type `{name}`."));
        };
        if self.is_circular(owner, name) {
            return any(format!("The type `{name}` contains itself."));
        }
        json!({"$ref": format!("#/components/schemas/{key}")})
    }

    /// Returns `true` if the type must not be followed from its owner, see [`circular`].
    pub(super) fn is_circular(&self, owner: Option<&'a str>, name: &'a str) -> bool {
        owner.is_some_and(|owner| self.circular.contains(&(owner, name)))
    }

    fn newtype(&self, name: &str, ty: &'a Type, at: At<'a>) -> Value {
        let mut schema = self.ty(ty, at);
        if let Some(format) = format_of(name, ty) {
            schema["format"] = format.into();
        }
        schema
    }

    pub(super) fn tuple(&self, types: &'a [Type], at: At<'a>) -> Value {
        let len = types.len();
        let mut schema = json!({"type": "array", "minItems": len, "maxItems": len});
        if !types.is_empty() {
            let items = types.iter().map(|ty| self.ty(ty, at.below()));
            schema["prefixItems"] = items.collect();
            schema["items"] = false.into();
        }
        schema
    }

    fn map(&self, key: &'a Type, value: &'a Type, at: At<'a>) -> Value {
        let value = self.ty(value, at.below());
        let mut schema = object([("type", "object".into()), ("additionalProperties", value)]);
        match self.key(key) {
            Ok(None) => {}
            Ok(Some(names)) => schema["propertyNames"] = names,
            Err(NoKey) => describe(&mut schema, "JSON has no form for the keys of this map."),
        }
        schema
    }

    /// The schema of the keys of a map, which JSON writes as text; `None` if any text is one.
    fn key(&self, ty: &'a Type) -> Result<Option<Value>, NoKey> {
        let mut ty = unwrapped(ty, self.types);
        if let Type::Option(of) = ty {
            ty = unwrapped(of, self.types);
        }
        if let Some((_, signed)) = ty.integer() {
            return Ok(Some(json!({"pattern": integer_pattern(signed)})));
        }
        Ok(match ty {
            Type::Text | Type::Any | Type::Opaque { .. } => None,
            Type::Char => Some(json!({"minLength": 1, "maxLength": 1})),
            Type::Bool => Some(json!({"enum": ["false", "true"]})),
            Type::F32 | Type::F64 => {
                let pattern = "^-?[0-9]+([.][0-9]+)?([eE][+-]?[0-9]+)?$";
                Some(json!({"pattern": pattern}))
            }
            Type::Named(name) => match self.types.get(name).map(|found| &found.shape) {
                Some(Shape::Enum(shape)) if is_text(shape) => Some(self.reference(name, None)),
                None => None,
                Some(_) => return Err(NoKey),
            },
            _ => return Err(NoKey),
        })
    }
}

/// JSON has no form for a key.
struct NoKey;

/// Returns `true` if all values of an enum are texts.
fn is_text(shape: &Enum) -> bool {
    let mut variants = shape.variants.iter();
    shape.tagging == Tagging::External
        && variants.all(|variant| variant.shape == VariantShape::Unit && !variant.untagged)
}

/// Any value, with a text about it.
pub(super) fn any(text: impl AsRef<str>) -> Value {
    let mut schema = json!({});
    describe(&mut schema, text.as_ref());
    schema
}

/// The schema or null.
fn nullable(mut schema: Value) -> Value {
    let Some(members) = schema.as_object_mut() else {
        return schema;
    };
    // A schema that says nothing accepts null.
    if members.keys().all(|key| key == "description") {
        return schema;
    }
    let listed = members.contains_key("enum") || members.contains_key("const");
    match members.get_mut("type") {
        Some(Value::String(ty)) if ty == "null" => schema,
        Some(ty @ Value::String(_)) if !listed => {
            *ty = Value::Array(vec![ty.take(), "null".into()]);
            schema
        }
        // It is nullable already.
        Some(Value::Array(_)) => schema,
        _ => {
            let null = json!({"type": "null"});
            object([("anyOf", Value::Array(vec![schema, null]))])
        }
    }
}

fn integer(ty: &Type) -> Option<Value> {
    Some(match ty {
        Type::U8 => bounded("uint8", 0, u8::MAX),
        Type::U16 => bounded("uint16", 0, u16::MAX),
        Type::U32 => bounded("uint32", 0, u32::MAX),
        Type::U64 => bounded("uint64", 0, u64::MAX),
        Type::I8 => bounded("int8", i8::MIN, i8::MAX),
        Type::I16 => bounded("int16", i16::MIN, i16::MAX),
        Type::I32 => bounded("int32", i32::MIN, i32::MAX),
        Type::I64 => bounded("int64", i64::MIN, i64::MAX),
        // JSON Schema has no exact bounds here that every reader could represent.
        Type::U128 => {
            let text = "An unsigned integer of 128 bits.";
            json!({"type": "integer", "minimum": 0, "description": text})
        }
        Type::I128 => json!({"type": "integer", "description": "A signed integer of 128 bits."}),
        _ => return None,
    })
}

/// The schema of an integer that is written as a text.
fn integer_text(signed: bool) -> Value {
    json!({"type": "string", "pattern": integer_pattern(signed)})
}

fn integer_pattern(signed: bool) -> String {
    let sign = if signed { "-?" } else { "" };
    format!("^{sign}(0|[1-9][0-9]*)$")
}

fn bounded(format: &str, minimum: impl Into<Value>, maximum: impl Into<Value>) -> Value {
    json!({
        "type": "integer",
        "format": format,
        "minimum": minimum.into(),
        "maximum": maximum.into(),
    })
}

/// The format of texts that are well known by the name of their type. A type that has one form for
/// readers and one for machines is foreign; others are recognized by their path only.
fn format_of(name: &str, ty: &Type) -> Option<&'static str> {
    let (text, foreign) = match ty {
        Type::ByFormat { readable, .. } => (&**readable, true),
        ty => (ty, false),
    };
    if *text != Type::Text {
        return None;
    }
    let path = name.split('<').next().unwrap_or(name);
    let short = path.rsplit("::").next().unwrap_or(path);
    let of_crate = |names: &[&str]| {
        let root = path.split("::").next();
        path.contains("::") && names.iter().any(|name| root == Some(*name))
    };
    match short {
        "Uuid" if foreign || of_crate(&["uuid"]) => Some("uuid"),
        "Ipv4Addr" if foreign || of_crate(&["std", "core"]) => Some("ipv4"),
        "Ipv6Addr" if foreign || of_crate(&["std", "core"]) => Some("ipv6"),
        "DateTime" if of_crate(&["chrono"]) => Some("date-time"),
        "NaiveDate" if of_crate(&["chrono"]) => Some("date"),
        "Timestamp" if of_crate(&["jiff"]) => Some("date-time"),
        "Url" if of_crate(&["url"]) => Some("uri"),
        _ => None,
    }
}
