//! The types of a service.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use iip_rpc::schema::openapi::circular;
use iip_rpc::schema::{
    Definition, Enum, Field, Shape, Tagging, Type, Types, Variant, VariantShape,
};

use super::layout::{Item, Layout, list, members, text};
use super::objects::Object;
use super::text::{comment, key, literal};

/// Maximum depth to which types within types are followed.
const MAX_DEPTH: usize = 32;

/// Maximum length of an array that becomes a tuple, and of the text of its elements.
const MAX_TUPLE: u64 = 8;
const MAX_TUPLE_TEXT: usize = 80;

/// Maximum number of parts of all types of a service. A part that is merged into several types
/// counts each time, so that a description of moderate size cannot become a file of any size.
const MAX_PARTS: usize = 200_000;

/// The bytes of text that count as one more part.
const PART_TEXT: usize = 256;

/// The place of a type.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct At<'a> {
    /// The named type whose values are at the same place as those of this type.
    pub(super) owner: Option<&'a str>,
    depth: usize,
}

impl<'a> At<'a> {
    /// Returns the place within the named type, at the same place of a value.
    pub(super) fn in_place_of(self, owner: &'a str) -> Self {
        let owner = Some(owner);
        Self {
            owner,
            ..self.same()
        }
    }

    /// Returns the place one level deeper, at the same place of a value.
    pub(super) fn same(self) -> Self {
        let depth = self.depth + 1;
        Self { depth, ..self }
    }

    /// Returns the place below a key or an index.
    pub(super) fn below(self) -> Self {
        Self {
            owner: None,
            ..self.same()
        }
    }

    pub(super) fn is_too_deep(self) -> bool {
        self.depth > MAX_DEPTH
    }
}

/// The types of one service with their names in TypeScript.
#[derive(Debug)]
pub(super) struct Named<'a> {
    pub(super) types: &'a Types,
    names: BTreeMap<&'a str, String>,
    circular: BTreeSet<(&'a str, &'a str)>,
    parts_left: Cell<usize>,
}

impl<'a> Named<'a> {
    pub(super) fn new(types: &'a Types, names: BTreeMap<&'a str, String>) -> Self {
        let circular = circular(types);
        Self {
            types,
            names,
            circular,
            parts_left: Cell::new(MAX_PARTS),
        }
    }

    /// Counts a part with texts of this length; returns `false` if it must be left out.
    pub(super) fn take(&self, texts: usize) -> bool {
        let left = self.parts_left.get().saturating_sub(1 + texts / PART_TEXT);
        self.parts_left.set(left);
        left > 0
    }

    /// Returns `true` if a part was left out.
    pub(super) fn is_full(&self) -> bool {
        self.parts_left.get() == 0
    }

    /// Returns the name of a type, unless it is not described, or contains itself at this place.
    pub(super) fn name(&self, name: &str, at: At<'_>) -> Option<&str> {
        let is_circular = at
            .owner
            .is_some_and(|owner| self.circular.contains(&(owner, name)));
        self.names
            .get(name)
            .filter(|_| !is_circular)
            .map(|name| &**name)
    }

    /// Returns the definition of a type.
    pub(super) fn definition(&self, name: &'a str, definition: &'a Definition) -> String {
        let Some(own) = self.name(name, At::default()) else {
            return String::new();
        };
        let at = At::default().in_place_of(name);
        let mut out = String::new();
        if !definition.doc.is_empty() {
            out.push_str(&comment(&definition.doc, 0));
            out.push('\n');
        }
        let layout = match &definition.shape {
            Shape::Struct { fields, .. } => {
                let object = Object::of_fields(self, fields, at);
                if object.is_plain() {
                    out.push_str(&format!("export interface {own} "));
                    object.build().write_open(&mut out);
                    out.push('\n');
                    return out;
                }
                object.build()
            }
            Shape::Unit => text("null"),
            Shape::Newtype(ty) => self.ty(ty, at),
            Shape::Tuple(types) => self.tuple(types, at),
            Shape::Enum(shape) => self.enumeration(name, shape, at),
            _ => text("unknown"),
        };
        out.push_str(&format!("export type {own} = "));
        layout.write(&mut out, 0, 1);
        out.push_str(";\n");
        out
    }

    /// Returns a type within an argument or a result.
    pub(super) fn value(&self, ty: &'a Type) -> Layout {
        self.ty(ty, At::default())
    }

    pub(super) fn ty(&self, ty: &'a Type, at: At<'a>) -> Layout {
        if at.is_too_deep() || !self.take(0) {
            return text("unknown");
        }
        text(match ty {
            Type::Bool => "boolean",
            Type::U64 | Type::U128 | Type::I64 | Type::I128 => "bigint",
            ty if ty.integer().is_some() => "number",
            Type::F32 | Type::F64 => "number",
            Type::Char | Type::Text => "string",
            Type::Bytes => "Uint8Array",
            Type::Unit => "null",
            Type::Option(of) => return nullable(self.ty(of, at.same())),
            Type::Seq(of) => return array(self.ty(of, at.below())),
            Type::Array(of, len) => {
                let of = self.ty(of, at.below());
                let width = of.flat().map_or(usize::MAX, |flat| flat.len());
                return match usize::try_from(*len) {
                    Ok(count)
                        if *len <= MAX_TUPLE && width.saturating_mul(count) <= MAX_TUPLE_TEXT =>
                    {
                        list("[", vec![of; count], "]")
                    }
                    _ => array(of),
                };
            }
            Type::Tuple(types) => return self.tuple(types, at),
            Type::Map(key, value) => return self.map(key, value, at),
            Type::Named(name) => self.name(name, at).unwrap_or("unknown"),
            Type::ByFormat { readable, .. } => return self.ty(readable, at.same()),
            _ => "unknown",
        })
    }

    fn tuple(&self, types: &'a [Type], at: At<'a>) -> Layout {
        let types = types.iter().map(|ty| self.ty(ty, at.below()));
        list("[", types.collect(), "]")
    }

    /// Returns the type of a map, whose keys are strings in JSON.
    fn map(&self, key: &'a Type, value: &'a Type, at: At<'a>) -> Layout {
        let value = self.ty(value, at.below());
        let keys = match key {
            Type::Bool => "[key in \"false\" | \"true\"]?: ".to_owned(),
            Type::Named(name) if self.is_of_texts(name) => {
                let name = self.name(name, At::default()).unwrap_or("string");
                format!("[key in {name}]?: ")
            }
            _ => "[key: string]: ".to_owned(),
        };
        members(vec![Layout::Concat(vec![text(keys), value]).into()])
    }

    /// Returns `true` for enums whose values are strings.
    fn is_of_texts(&self, name: &str) -> bool {
        let Some(Shape::Enum(shape)) = self.types.get(name).map(|found| &found.shape) else {
            return false;
        };
        let is_text = |one: &Variant| one.shape == VariantShape::Unit && !one.untagged;
        shape.tagging == Tagging::External
            && !shape.variants.is_empty()
            && shape.variants.iter().all(is_text)
    }

    fn enumeration(&self, name: &'a str, shape: &'a Enum, at: At<'a>) -> Layout {
        let variants = shape.variants.iter();
        union(variants.map(|one| Item {
            doc: one.doc.clone(),
            layout: self.variant(name, &shape.tagging, one, at),
        }))
    }

    fn variant(&self, name: &'a str, tagging: &Tagging, one: &'a Variant, at: At<'a>) -> Layout {
        if !self.take(one.name.len() + one.doc.len()) {
            return text("unknown");
        }
        let mut object = Object::default();
        let tag = text(literal(&one.name));
        match tagging {
            _ if one.untagged => return self.content(name, &one.shape, at),
            Tagging::External if one.shape == VariantShape::Unit => return tag,
            Tagging::External => {
                let content = self.content(name, &one.shape, at.below());
                object.member(&one.name, content, false, "");
            }
            Tagging::Internal { tag: key } => {
                object.member(key, tag, false, "");
                match &one.shape {
                    VariantShape::Unit => {}
                    VariantShape::Newtype(ty) => object.merge(self, ty, false, at.same()),
                    VariantShape::Struct(fields) => object.add_fields(self, fields, false, at),
                    // serde does not compile other forms.
                    _ => object.open(),
                }
            }
            Tagging::Adjacent { tag: key, content } => {
                object.member(key, tag, false, "");
                if one.shape != VariantShape::Unit {
                    let optional = matches!(one.shape, VariantShape::Newtype(Type::Option(_)));
                    let layout = self.content(name, &one.shape, at.below());
                    object.member(content, layout, optional, "");
                }
            }
            Tagging::Untagged => return self.content(name, &one.shape, at),
            _ => return text("unknown"),
        }
        object.build()
    }

    /// Returns the variants of an externally tagged enum as members of an object that may have
    /// others.
    pub(super) fn merged_variants(&self, name: &'a str, shape: &'a Enum, at: At<'a>) -> Layout {
        union(shape.variants.iter().map(|one| {
            if !self.take(one.name.len()) {
                return text("unknown").into();
            }
            if one.untagged {
                return self.content(name, &one.shape, at).into();
            }
            let mut object = Object::default();
            let content = self.content(name, &one.shape, at.below());
            object.member(&one.name, content, false, "");
            object.build().into()
        }))
    }

    /// Returns the content of a variant of the enum with this name.
    fn content(&self, name: &'a str, shape: &'a VariantShape, at: At<'a>) -> Layout {
        match shape {
            VariantShape::Unit => text("null"),
            VariantShape::Newtype(ty) => self.ty(ty, at.same()),
            VariantShape::Tuple(types) => self.tuple(types, at),
            VariantShape::Struct(fields) => {
                Object::of_fields(self, fields, at.in_place_of(name)).build()
            }
            _ => text("unknown"),
        }
    }
}

/// Returns the documentation of a field.
pub(super) fn field_doc(field: &Field) -> String {
    let mut doc = field.doc.clone();
    let notes = [
        (field.secret, "A secret: it must not be shown or recorded."),
        (field.read_only, "It is in requests only."),
        (field.write_only, "It is in replies only."),
    ];
    for (_, note) in notes.iter().filter(|(applies, _)| *applies) {
        if !doc.is_empty() {
            doc.push_str("\n\n");
        }
        doc.push_str(note);
    }
    doc
}

/// Returns a member of an object type.
pub(super) fn member(name: &str, ty: Layout, optional: bool) -> Layout {
    let mark = if optional { "?" } else { "" };
    Layout::Concat(vec![text(format!("{}{mark}: ", key(name))), ty])
}

fn array(of: Layout) -> Layout {
    let after = text("[]");
    match of {
        Layout::Union(_) | Layout::Intersection(_) => {
            Layout::Concat(vec![text("("), of, text(")"), after])
        }
        of => Layout::Concat(vec![of, after]),
    }
}

fn nullable(of: Layout) -> Layout {
    union([of.into(), text("null").into()])
}

/// Returns the union of these types. Types with the same text occur once.
pub(super) fn union(items: impl IntoIterator<Item = Item>) -> Layout {
    let mut all: Vec<Item> = Vec::new();
    let mut met = BTreeSet::new();
    for item in items {
        let parts = match item.layout {
            Layout::Union(parts) => parts,
            layout => vec![Item { layout, ..item }],
        };
        for part in parts {
            let flat = part.layout.flat();
            if flat.as_deref() == Some("unknown") {
                return part.layout;
            }
            if flat.is_none_or(|flat| met.insert(flat)) {
                all.push(part);
            }
        }
    }
    match all.len() {
        0 => text("never"),
        1 if all.iter().all(|only| only.doc.is_empty()) => all.swap_remove(0).layout,
        _ => {
            all.iter_mut().for_each(|item| item.layout.parenthesize());
            Layout::Union(all)
        }
    }
}
