//! Readers of types, which convert JSON values to TypeScript values.

use std::collections::{BTreeMap, BTreeSet};

use iip_rpc::schema::{
    Definition, Enum, Field, Shape, Tagging, Type, Types, Variant, VariantShape,
};

use super::layout::{Layout, list, object, text};
use super::text::{literal, value_key};
use super::types::{At, Named};

/// The readers of the types of a service. Most types need none, because their values are the same
/// as in JSON.
#[derive(Debug)]
pub(super) struct Readers<'a> {
    named: &'a Named<'a>,
    /// The types that need a reader.
    needed: BTreeSet<&'a str>,
    /// The types within untagged variants, whose readers check all of their parts.
    recognized: BTreeSet<&'a str>,
}

/// The readers of the members of an object, and those of the whole object.
#[derive(Default)]
struct Parts {
    required: Vec<Layout>,
    optional: Vec<Layout>,
    whole: Vec<Layout>,
    /// The names of all members, which flattened maps do not contain.
    names: BTreeSet<String>,
}

impl<'a> Readers<'a> {
    pub(super) fn new(named: &'a Named<'a>) -> Self {
        let needed = needed(named.types);
        let recognized = recognized(named.types, &needed);
        Self {
            named,
            needed,
            recognized,
        }
    }

    /// Returns the reader of a type within a result.
    pub(super) fn value(&self, ty: &'a Type) -> Layout {
        let reader = self.ty(ty, false, At::default());
        reader.unwrap_or_else(|| text("read.any"))
    }

    /// Returns the entry of a type in the table of readers, if it has one.
    pub(super) fn definition(&self, name: &'a str, definition: &'a Definition) -> Option<Layout> {
        let all = self.recognized.contains(name);
        if !all && !self.needed.contains(name) {
            return None;
        }
        let own = self.named.name(name, At::default())?;
        let at = At::default().in_place_of(name);
        let reader = match &definition.shape {
            Shape::Unit => text("read.unit"),
            Shape::Newtype(ty) => or_any(self.ty(ty, all, at)),
            Shape::Tuple(types) => or_any(self.tuple(types, all, at)),
            Shape::Struct { fields, .. } => or_any(self.fields(fields, all, at)),
            Shape::Enum(shape) => self.enumeration(name, shape, all, at),
            _ => text("read.any"),
        };
        Some(entry(own, reader))
    }

    /// Returns the reader of a type; `None` if it needs none. With `all`, every type has one.
    fn ty(&self, ty: &'a Type, all: bool, at: At<'a>) -> Option<Layout> {
        if at.is_too_deep() || !self.named.take(0) {
            return all.then(|| text("read.any"));
        }
        let within = |name: &str, of: Option<Layout>| Some(call(name, vec![of?]));
        let plain = match ty {
            Type::U64 | Type::U128 | Type::I64 | Type::I128 => return Some(text("read.bigint")),
            Type::F32 | Type::F64 => return Some(text("read.float")),
            Type::Bytes => return Some(text("read.bytes")),
            Type::Option(of) => return within("option", self.ty(of, all, at.same())),
            Type::Seq(of) | Type::Array(of, _) => {
                return within("list", self.ty(of, all, at.below()));
            }
            Type::Map(_, of) => return within("map", self.ty(of, all, at.below())),
            Type::Tuple(types) => return self.tuple(types, all, at),
            Type::ByFormat { readable, .. } => return self.ty(readable, all, at.same()),
            Type::Named(name) => {
                let has_one =
                    self.needed.contains(&**name) || (all && self.recognized.contains(&**name));
                match self.named.name(name, at).filter(|_| has_one) {
                    Some(name) => return Some(call("named", vec![text(literal(name))])),
                    None => "read.any",
                }
            }
            Type::Bool => "read.bool",
            Type::Char | Type::Text => "read.text",
            Type::Unit => "read.unit",
            ty if ty.integer().is_some() => "read.number",
            _ => "read.any",
        };
        all.then(|| text(plain))
    }

    fn tuple(&self, types: &'a [Type], all: bool, at: At<'a>) -> Option<Layout> {
        let readers: Vec<_> = types
            .iter()
            .map(|ty| self.ty(ty, all, at.below()))
            .collect();
        let is_needed = all || readers.iter().any(Option::is_some);
        is_needed.then(|| call("tuple", readers.into_iter().map(or_any).collect()))
    }

    fn fields(&self, fields: &'a [Field], all: bool, at: At<'a>) -> Option<Layout> {
        let mut parts = Parts::default();
        self.add_fields(&mut parts, fields, all, at);
        let is_needed = all || !parts.is_empty();
        is_needed.then(|| parts.build())
    }

    fn add_fields(&self, parts: &mut Parts, fields: &'a [Field], all: bool, at: At<'a>) {
        for field in fields.iter().filter(|field| !field.flatten) {
            if !self.named.take(field.name.len()) || !parts.names.insert(field.name.clone()) {
                continue;
            }
            let Some(reader) = self.ty(&field.ty, all, at.below()) else {
                continue;
            };
            let optional =
                field.is_optional() || field.may_be_skipped || field.read_only || field.write_only;
            match optional {
                true => parts.optional.push(entry(&field.name, reader)),
                false => parts.required.push(entry(&field.name, reader)),
            }
        }
        // Maps are last: they have the members that no other field has.
        let flattened = || fields.iter().filter(|field| field.flatten);
        let is_map = |field: &&Field| matches!(field.ty, Type::Map(..));
        for field in flattened().filter(|field| !is_map(field)) {
            self.merge(parts, &field.ty, all, at.same());
        }
        for field in flattened().filter(is_map) {
            self.merge(parts, &field.ty, all, at.same());
        }
    }

    /// Adds the members of the values of a type.
    fn merge(&self, parts: &mut Parts, ty: &'a Type, all: bool, at: At<'a>) {
        match ty {
            _ if at.is_too_deep() => {}
            Type::Option(of) => {
                let mut inner = Parts::default();
                self.merge(&mut inner, of, all, at.same());
                parts.names.append(&mut inner.names);
                if !inner.is_empty() {
                    let whole = vec![inner.build(), text("read.any")];
                    parts.whole.push(call("untagged", whole));
                }
            }
            Type::ByFormat { readable, .. } => self.merge(parts, readable, all, at.same()),
            Type::Map(_, value) => {
                if let Some(reader) = self.ty(value, all, at.below()) {
                    let except = parts.names.iter().map(|name| text(literal(name)));
                    let args = [reader].into_iter().chain(except).collect();
                    parts.whole.push(call("map", args));
                }
            }
            Type::Named(name) => self.merge_named(parts, name, all, at),
            _ => {}
        }
    }

    fn merge_named(&self, parts: &mut Parts, name: &'a str, all: bool, at: At<'a>) {
        let known = self.named.name(name, at).is_some();
        let Some(definition) = self.named.types.get(name).filter(|_| known) else {
            return;
        };
        let inside = at.in_place_of(name);
        match &definition.shape {
            Shape::Newtype(of) => self.merge(parts, of, all, inside),
            Shape::Struct { fields, .. } => self.add_fields(parts, fields, all, inside),
            Shape::Enum(shape) if shape.tagging == Tagging::External => {
                for one in shape.variants.iter().filter(|one| !one.untagged) {
                    parts.names.insert(one.name.clone());
                    if let Some(reader) = self.content(name, one, all, inside.below()) {
                        parts.optional.push(entry(&one.name, reader));
                    }
                }
            }
            Shape::Enum(_) => {
                let ty = self
                    .named
                    .name(name, at)
                    .filter(|_| self.needed.contains(name));
                parts
                    .whole
                    .extend(ty.map(|own| call("named", vec![text(literal(own))])));
            }
            _ => {}
        }
    }

    fn enumeration(&self, name: &'a str, shape: &'a Enum, all: bool, at: At<'a>) -> Layout {
        if shape.tagging == Tagging::Untagged {
            return self.untagged(name, shape.variants.iter(), at);
        }
        let (untagged, tagged): (Vec<&Variant>, Vec<&Variant>) =
            shape.variants.iter().partition(|one| one.untagged);
        let other = tagged.iter().find(|one| one.other);
        let all = all || !untagged.is_empty();
        // All variants are listed if names that are not listed have another meaning.
        let lists_all = all || other.is_some();
        let mut names = BTreeSet::new();
        let variants = tagged.iter().filter_map(|one| {
            let reader = match &shape.tagging {
                Tagging::Internal { .. } => self.whole(one, all, at),
                _ => self.content(name, one, all, at.below()),
            };
            let reader = match reader {
                None if lists_all => text("read.any"),
                reader => reader?,
            };
            names.insert(&one.name).then(|| entry(&one.name, reader))
        });
        let variants = object(variants.collect());
        let (kind, mut args) = match &shape.tagging {
            Tagging::Internal { tag } => ("internal", vec![text(literal(tag))]),
            Tagging::Adjacent { tag, content } => {
                ("adjacent", vec![text(literal(tag)), text(literal(content))])
            }
            _ => ("external", Vec::new()),
        };
        args.push(variants);
        match other {
            Some(other) => args.push(text(literal(&other.name))),
            None if untagged.is_empty() => {}
            None => args.push(text("undefined")),
        }
        if !untagged.is_empty() {
            args.push(self.untagged(name, untagged.into_iter(), at));
        }
        call(kind, args)
    }

    fn untagged(
        &self,
        name: &'a str,
        variants: impl Iterator<Item = &'a Variant>,
        at: At<'a>,
    ) -> Layout {
        let readers = variants.map(|one| or_any(self.content(name, one, true, at)));
        call("untagged", readers.collect())
    }

    /// Returns the reader of the content of a variant.
    fn content(
        &self,
        name: &'a str,
        variant: &'a Variant,
        all: bool,
        at: At<'a>,
    ) -> Option<Layout> {
        match &variant.shape {
            VariantShape::Newtype(ty) => self.ty(ty, all, at.same()),
            VariantShape::Tuple(types) => self.tuple(types, all, at),
            VariantShape::Struct(fields) => self.fields(fields, all, at.in_place_of(name)),
            _ => all.then(|| text("read.unit")),
        }
    }

    /// Returns the reader of an object with the members of a variant.
    fn whole(&self, variant: &'a Variant, all: bool, at: At<'a>) -> Option<Layout> {
        let mut parts = Parts::default();
        match &variant.shape {
            VariantShape::Newtype(ty) => self.merge(&mut parts, ty, all, at.same()),
            VariantShape::Struct(fields) => self.add_fields(&mut parts, fields, all, at),
            _ => {}
        }
        (all || !parts.is_empty()).then(|| parts.build())
    }
}

impl Parts {
    fn is_empty(&self) -> bool {
        self.required.is_empty() && self.optional.is_empty() && self.whole.is_empty()
    }

    fn build(self) -> Layout {
        let mut args = vec![object(self.required)];
        if !self.optional.is_empty() || !self.whole.is_empty() {
            args.push(object(self.optional));
        }
        args.extend(self.whole);
        call("struct", args)
    }
}

fn call(name: &str, args: Vec<Layout>) -> Layout {
    list(format!("read.{name}("), args, ")")
}

fn entry(name: &str, reader: Layout) -> Layout {
    Layout::Concat(vec![text(format!("{}: ", value_key(name))), reader])
}

fn or_any(reader: Option<Layout>) -> Layout {
    reader.unwrap_or_else(|| text("read.any"))
}

/// Returns these types and the types within them in JSON, without the keys of maps. Named types are
/// not followed.
fn in_json(mut pending: Vec<&Type>) -> Vec<&Type> {
    let mut all = Vec::new();
    while let Some(ty) = pending.pop() {
        all.push(ty);
        match ty {
            Type::ByFormat { readable, .. } => pending.push(readable),
            Type::Map(_, value) => pending.push(value),
            ty => pending.extend(ty.parts()),
        }
    }
    all
}

/// Returns the types that contain, at any depth, values with another form in JSON.
fn needed(types: &Types) -> BTreeSet<&str> {
    let mut users: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut pending = Vec::new();
    for (name, definition) in types.iter() {
        let other = match &definition.shape {
            Shape::Enum(shape) => shape.variants.iter().any(|one| one.other),
            _ => false,
        };
        let mut is_needed = other;
        for ty in in_json(definition.parts()) {
            is_needed |= match ty {
                Type::Named(used) => {
                    users.entry(used).or_default().push(name);
                    false
                }
                Type::F32 | Type::F64 | Type::Bytes => true,
                ty => ty.integer().is_some_and(|(bits, _)| bits >= 64),
            };
        }
        pending.extend(is_needed.then_some(name));
    }
    let mut needed = BTreeSet::new();
    while let Some(name) = pending.pop() {
        if needed.insert(name) {
            pending.extend(users.get(name).into_iter().flatten());
        }
    }
    needed
}

/// Returns the types within untagged variants of the enums that need a reader.
fn recognized<'a>(types: &'a Types, needed: &BTreeSet<&str>) -> BTreeSet<&'a str> {
    let mut within = Vec::new();
    for (_, definition) in types.iter().filter(|(name, _)| needed.contains(name)) {
        if let Shape::Enum(shape) = &definition.shape {
            let is_untagged = |one: &Variant| one.untagged || shape.tagging == Tagging::Untagged;
            if shape.variants.iter().any(is_untagged) {
                within.extend(definition.parts());
            }
        }
    }
    reached(types, within)
}

/// Returns the names of the types that values of these types contain in JSON.
pub(super) fn reached<'a>(types: &'a Types, from: Vec<&'a Type>) -> BTreeSet<&'a str> {
    let mut pending = in_json(from);
    let mut reached = BTreeSet::new();
    while let Some(ty) = pending.pop() {
        if let Type::Named(name) = ty
            && let Some(definition) = types.get(name)
            && reached.insert(&**name)
        {
            pending.extend(in_json(definition.parts()));
        }
    }
    reached
}
