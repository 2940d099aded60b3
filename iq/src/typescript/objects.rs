//! Object types, and merging of other types into them.

use std::collections::BTreeSet;

use iip_rpc::schema::{Field, Shape, Tagging, Type};

use super::layout::{Item, Layout, members, text};
use super::types::{At, Named, field_doc, member, union};

/// A builder for an object type.
#[derive(Debug, Default)]
pub(super) struct Object {
    members: Vec<Item>,
    /// The types of the members.
    types: Vec<Layout>,
    /// Set if a member may be missing.
    has_optional: bool,
    names: BTreeSet<String>,
    /// Further types of the whole object, as parts of an intersection.
    parts: Vec<Layout>,
    /// The types of the values of all other members, one for each merged map.
    rest: Vec<Layout>,
    /// Set if other members may have any value.
    is_open: bool,
}

impl Object {
    /// Creates the object type of a struct with these fields.
    pub(super) fn of_fields<'a>(types: &Named<'a>, fields: &'a [Field], at: At<'a>) -> Self {
        let mut object = Self::default();
        object.add_fields(types, fields, false, at);
        object
    }

    /// Returns `true` if there are only members.
    pub(super) fn is_plain(&self) -> bool {
        self.parts.is_empty() && self.rest.is_empty() && !self.is_open
    }

    /// Adds a member, unless one with this name exists.
    pub(super) fn member(&mut self, name: &str, ty: Layout, optional: bool, doc: &str) {
        if self.names.insert(name.to_owned()) {
            self.has_optional |= optional;
            self.types.push(ty.clone());
            self.members.push(Item {
                doc: doc.to_owned(),
                layout: member(name, ty, optional),
            });
        }
    }

    /// Lets other members have any value.
    pub(super) fn open(&mut self) {
        self.is_open = true;
    }

    /// Adds fields. With `optional`, none of them is required.
    pub(super) fn add_fields<'a>(
        &mut self,
        types: &Named<'a>,
        fields: &'a [Field],
        optional: bool,
        at: At<'a>,
    ) {
        for field in fields {
            if !types.take(field.name.len() + field.doc.len()) {
                self.open();
                return;
            }
            let optional = optional || field.read_only || field.write_only;
            if field.flatten {
                self.merge(types, &field.ty, optional, at.same());
            } else {
                let optional = optional || field.is_optional() || field.may_be_skipped;
                let ty = types.ty(&field.ty, at.below());
                self.member(&field.name, ty, optional, &field_doc(field));
            }
        }
    }

    /// Adds the members of the values of a type: those of a flattened field, or of an internally
    /// tagged variant.
    pub(super) fn merge<'a>(
        &mut self,
        types: &Named<'a>,
        ty: &'a Type,
        optional: bool,
        at: At<'a>,
    ) {
        match ty {
            _ if at.is_too_deep() => self.open(),
            Type::Unit => {}
            Type::Option(of) => self.merge(types, of, true, at.same()),
            Type::ByFormat { readable, .. } => self.merge(types, readable, optional, at.same()),
            Type::Map(_, value) => self.rest.push(types.ty(value, at.below())),
            Type::Named(name) => self.merge_named(types, name, optional, at),
            // Any members are possible. serde fails to serialize other types.
            _ => self.open(),
        }
    }

    fn merge_named<'a>(&mut self, types: &Named<'a>, name: &'a str, optional: bool, at: At<'a>) {
        let (Some(own), Some(definition)) = (types.name(name, at), types.types.get(name)) else {
            self.open();
            return;
        };
        let inside = at.in_place_of(name);
        let part = match &definition.shape {
            Shape::Unit => return,
            Shape::Newtype(of) => return self.merge(types, of, optional, inside),
            Shape::Struct { fields, .. } if fields.iter().any(|field| field.flatten) => {
                return self.add_fields(types, fields, optional, inside);
            }
            // Each variant is a member among others.
            Shape::Enum(shape) if shape.tagging == Tagging::External => {
                types.merged_variants(name, shape, inside)
            }
            Shape::Struct { .. } | Shape::Enum(_) => text(own),
            _ => return self.open(),
        };
        self.parts.push(match (optional, part) {
            (true, part) => Layout::Concat(vec![text("Partial<"), part, text(">")]),
            (false, union @ Layout::Union(_)) => Layout::Concat(vec![text("("), union, text(")")]),
            (false, part) => part,
        });
    }

    /// Returns the type.
    pub(super) fn build(mut self) -> Layout {
        let others = if self.is_open || !(self.rest.is_empty() || self.parts.is_empty()) {
            Some(text("unknown"))
        } else if self.rest.is_empty() {
            None
        } else {
            // The type of an index signature must include those of the named members.
            let mut all = self.rest;
            all.append(&mut self.types);
            all.extend(self.has_optional.then(|| text("undefined")));
            Some(union(all.into_iter().map(Item::from)))
        };
        if let Some(others) = others {
            let others = Layout::Concat(vec![text("[key: string]: "), others]);
            self.members.push(others.into());
        }
        if self.parts.is_empty() {
            return members(self.members);
        }
        if !self.members.is_empty() {
            self.parts.insert(0, members(self.members));
        }
        match self.parts.len() {
            1 => self.parts.swap_remove(0),
            _ => Layout::Intersection(self.parts),
        }
    }
}
