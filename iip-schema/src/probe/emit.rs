//! From what was seen to descriptions.

use std::collections::HashMap;

use super::key::Form;
use super::node::{Kind, Node, Seen, Slot};
use super::plan::ALL_KINDS;
use super::tracer::{Tracer, too_long};
use crate::registry::Registry;
use crate::types::{Definition, Enum, Field, Shape, Source, Tagging, Type, Variant, VariantShape};

/// Describes the root of both observations. Without `compact` the format makes no difference.
pub(super) fn emit(registry: &mut Registry, readable: &Tracer, compact: Option<&Tracer>) -> Type {
    let mut emitter = Emitter {
        registry,
        readable,
        compact,
        met: HashMap::new(),
        owner: readable.root().rust,
    };
    let root = Both {
        readable: Some(readable.root()),
        compact: compact.map(Tracer::root),
    };
    emitter.slot(root)
}

/// The same thing in both observations, or what only one of them has.
#[derive(Debug, Clone, Copy)]
struct Both<T> {
    readable: Option<T>,
    compact: Option<T>,
}

impl<T: Copy> Both<T> {
    fn any(self) -> Option<T> {
        self.readable.or(self.compact)
    }

    fn map<U>(self, map: impl Fn(T) -> U) -> Both<U> {
        Both {
            readable: self.readable.map(&map),
            compact: self.compact.map(&map),
        }
    }
}

struct Emitter<'a> {
    registry: &'a mut Registry,
    readable: &'a Tracer,
    compact: Option<&'a Tracer>,
    met: HashMap<(Option<usize>, Option<usize>), Type>,
    /// The Rust type that is described.
    owner: &'static str,
}

impl<'a> Emitter<'a> {
    fn form<T>(&self, both: Both<T>) -> Form {
        match both {
            Both {
                readable: Some(_),
                compact: None,
            } if self.compact.is_some() => Form::Readable,
            Both { readable: None, .. } => Form::Compact,
            Both { .. } => Form::Both,
        }
    }

    /// The node of these two numbers.
    fn node(&self, places: Both<usize>) -> Both<&'a Node> {
        Both {
            readable: places.readable.map(|place| &self.readable.nodes[place]),
            compact: match (places.compact, self.compact) {
                (Some(place), Some(compact)) => Some(&compact.nodes[place]),
                _ => None,
            },
        }
    }

    fn slot(&mut self, slots: Both<&'a Slot>) -> Type {
        self.ty(slots.map(|slot| &slot.seen), slots)
    }

    /// The type of a part of these slots.
    fn ty(&mut self, seen: Both<&'a Seen>, slots: Both<&'a Slot>) -> Type {
        let (Some(readable), Some(compact)) = (seen.readable, seen.compact) else {
            return match seen.any() {
                Some(one) => self.one(one, seen, slots),
                None => Type::opaque("", ""),
            };
        };
        match (readable, compact) {
            (Seen::Node(a), Seen::Node(b)) => {
                let places = Both {
                    readable: Some(*a),
                    compact: Some(*b),
                };
                if let Some(ty) = self.named(places, slots) {
                    return ty;
                }
            }
            (Seen::Option(_), Seen::Option(_))
            | (Seen::Seq(_), Seen::Seq(_))
            | (Seen::Map(_), Seen::Map(_)) => return self.one(readable, seen, slots),
            (Seen::Array(_, m), Seen::Array(_, n)) if m == n => {
                return self.one(readable, seen, slots);
            }
            (Seen::Tuple(a), Seen::Tuple(b)) if a.len() == b.len() => {
                return self.one(readable, seen, slots);
            }
            (a, b) if a == b => return self.one(readable, seen, slots),
            _ => {}
        }
        let only = Both {
            readable: Some(readable),
            compact: None,
        };
        let readable = self.one(readable, only, slots);
        let only = Both {
            readable: None,
            compact: Some(compact),
        };
        let compact = self.one(compact, only, slots);
        if readable == compact {
            return readable;
        }
        Type::ByFormat {
            readable: Box::new(readable),
            compact: Box::new(compact),
        }
    }

    /// The type of `seen`, all of whose sides have the form of `one`.
    fn one(&mut self, one: &'a Seen, seen: Both<&'a Seen>, slots: Both<&'a Slot>) -> Type {
        let mut part = |index: usize| {
            let parts = Both {
                readable: seen.readable.and_then(|seen| seen.parts().nth(index)),
                compact: seen.compact.and_then(|seen| seen.parts().nth(index)),
            };
            self.ty(parts, slots)
        };
        match one {
            Seen::Nothing => self.unknown(seen, slots),
            Seen::Is(ty) => ty.clone(),
            Seen::Option(_) => Type::option(part(0)),
            Seen::Seq(_) => Type::seq(part(0)),
            Seen::Array(_, len) => Type::array(part(0), *len as u64),
            Seen::Map(_) => {
                let key = part(0);
                Type::map(key, part(1))
            }
            Seen::Tuple(parts) => Type::Tuple((0..parts.len()).map(part).collect()),
            Seen::Opaque { name, reason } => {
                let name = if name.is_empty() {
                    self.rust(slots)
                } else {
                    name
                };
                Type::opaque(name, reason)
            }
            Seen::Node(_) => {
                let place = |seen: &Seen| match seen {
                    Seen::Node(place) => *place,
                    _ => 0,
                };
                let places = seen.map(place);
                self.named(places, slots)
                    .unwrap_or_else(|| self.unknown(seen, slots))
            }
        }
    }

    fn unknown(&self, seen: Both<&Seen>, slots: Both<&Slot>) -> Type {
        let slot = match seen.readable {
            Some(_) => slots.readable.or(slots.compact),
            None => slots.compact.or(slots.readable),
        };
        let steps = self.compact.unwrap_or(self.readable).steps;
        let reason = match slot {
            Some(slot) if !slot.why.is_empty() => slot.why.clone(),
            _ if steps == 0 => too_long(),
            _ => "no value was found that it accepts".to_owned(),
        };
        let reason = match slot {
            Some(slot) if slot.seen != Seen::Nothing || slot.rust.is_empty() => {
                format!("a part of it that is not asked for: {reason}")
            }
            _ => reason,
        };
        Type::opaque(self.rust(slots), reason)
    }

    /// The Rust type that contains a part, or is it.
    fn rust(&self, slots: Both<&Slot>) -> &'static str {
        let rust = slots.any().map_or("", |slot| slot.rust);
        if rust.is_empty() { self.owner } else { rust }
    }

    /// The type of nodes; `None` if they are not the same type.
    fn named(&mut self, places: Both<usize>, slots: Both<&Slot>) -> Option<Type> {
        let met = (places.readable, places.compact);
        if let Some(ty) = self.met.get(&met) {
            return Some(ty.clone());
        }
        let nodes = self.node(places);
        let node = nodes.any()?;
        if let (Some(a), Some(b)) = (nodes.readable, nodes.compact)
            && !is_same_form(a, b)
        {
            return None;
        }
        if let Some(mut ty) = unnamed(node) {
            if let Type::Opaque { name, .. } = &mut ty
                && name.is_empty()
            {
                self.rust(slots).clone_into(name);
            }
            return Some(ty);
        }
        let form = self.form(nodes);
        if let Some(ty) = self.registry.probed(&node.key, form) {
            return Some(ty);
        }
        let (name, path) = names(node);
        if let Some(ty) = self.registry.derived_at(&path) {
            return Some(ty);
        }
        let reserved = self.registry.reserve_named(name, path);
        self.met.insert(met, reserved.clone());
        self.registry.remember(node.key, form, reserved.clone());
        let owner = std::mem::replace(&mut self.owner, node.key.value);
        let shape = self.shape(nodes);
        self.owner = owner;
        let mut definition = Definition::new(shape);
        definition.source = Source::Probed;
        self.registry.complete(&reserved, definition);
        Some(reserved)
    }

    fn slots(&mut self, nodes: Both<&'a Node>) -> Vec<Type> {
        let len = nodes.any().map_or(0, |node| node.slots.len());
        (0..len)
            .map(|place| self.slot(nodes.map(|node| &node.slots[place])))
            .collect()
    }

    fn shape(&mut self, nodes: Both<&'a Node>) -> Shape {
        let Some(node) = nodes.any() else {
            return Shape::Unit;
        };
        match node.kind {
            Kind::Unit | Kind::Any | Kind::Flat | Kind::Tagged => Shape::Unit,
            Kind::Newtype => Shape::Newtype(self.slot(nodes.map(|node| &node.slots[0]))),
            Kind::Tuple => Shape::Tuple(self.slots(nodes)),
            Kind::Struct => Shape::Struct {
                fields: self.fields(nodes),
                deny_unknown_fields: node.denies_unknown == Some(true),
            },
            Kind::Enum => Shape::Enum(self.variants(nodes, Tagging::External)),
            Kind::Adjacent(_) => {
                let tagging = Tagging::Adjacent {
                    tag: node.slots[0].name.to_owned(),
                    content: node.slots[1].name.to_owned(),
                };
                let inner = nodes.map(|node| match node.kind {
                    Kind::Adjacent(place) => place,
                    _ => 0,
                });
                let inner = self.node(inner);
                Shape::Enum(self.variants(inner, tagging))
            }
        }
    }

    fn fields(&mut self, nodes: Both<&'a Node>) -> Vec<Field> {
        let Some(node) = nodes.any() else {
            return Vec::new();
        };
        let mut fields = Vec::new();
        for (place, slot) in node.slots.iter().enumerate() {
            if slot.alias_of.is_some() {
                continue;
            }
            let ty = self.slot(nodes.map(|node| &node.slots[place]));
            let mut field = Field::new(slot.primary.unwrap_or(slot.name), ty);
            field.default = slot.required == Some(false) && !field.is_optional();
            field.aliases = aliases(node, place, &field.name);
            fields.push(field);
        }
        fields
    }

    fn variants(&mut self, nodes: Both<&'a Node>, tagging: Tagging) -> Enum {
        let mut variants = Vec::new();
        let Some(node) = nodes.any() else {
            return Enum::new(tagging, variants);
        };
        for (place, slot) in node.slots.iter().enumerate() {
            if slot.alias_of.is_some() {
                continue;
            }
            let slots = nodes.map(|node| &node.slots[place]);
            let shape = self.content(slots, tagging != Tagging::External);
            let index = u32::try_from(variants.len()).unwrap_or(u32::MAX);
            let mut variant = Variant::new(slot.name, index, shape);
            variant.aliases = aliases(node, place, slot.name);
            variants.push(variant);
        }
        // serde allows it on the last variant only.
        if node.denies_unknown == Some(false)
            && let Some(last) = variants.last_mut()
        {
            last.other = true;
        }
        Enum::new(tagging, variants)
    }

    fn content(&mut self, slots: Both<&'a Slot>, adjacent: bool) -> VariantShape {
        let places = slots.map(|slot| match slot.seen {
            Seen::Node(place) => Some(place),
            _ => None,
        });
        let places = Both {
            readable: places.readable.flatten(),
            compact: places.compact.flatten(),
        };
        let nodes = self.node(places);
        let content = nodes.any().filter(|node| node.is_content);
        let same = match (nodes.readable, nodes.compact) {
            (Some(a), Some(b)) => is_same_form(a, b),
            _ => true,
        };
        match (
            content.map(|node| node.kind),
            slots.any().map(|slot| &slot.seen),
        ) {
            (Some(Kind::Unit), _) if same => VariantShape::Unit,
            (Some(Kind::Newtype), _) if same => {
                VariantShape::Newtype(self.slot(nodes.map(|node| &node.slots[0])))
            }
            (Some(Kind::Tuple), _) if same => VariantShape::Tuple(self.slots(nodes)),
            (Some(Kind::Struct), _) if same => VariantShape::Struct(self.fields(nodes)),
            (None, _) if nodes.any().is_some_and(is_untagged_unit) => VariantShape::Unit,
            (None, Some(Seen::Tuple(_))) if adjacent => match self.slot(slots) {
                Type::Tuple(types) => VariantShape::Tuple(types),
                other => VariantShape::Newtype(other),
            },
            (None, _) => VariantShape::Newtype(self.slot(slots)),
            _ => VariantShape::Newtype(Type::opaque("", "its form depends on the format")),
        }
    }
}

fn aliases(node: &Node, slot: usize, own: &str) -> Vec<String> {
    let slots = node.slots.iter().enumerate();
    slots
        .filter(|(place, other)| *place == slot || other.alias_of == Some(slot))
        .map(|(_, other)| other.name.to_owned())
        .filter(|name| name != own)
        .collect()
}

fn is_same_form(a: &Node, b: &Node) -> bool {
    let same = match (a.kind, b.kind) {
        (Kind::Adjacent(_), Kind::Adjacent(_)) => true,
        (a, b) => a == b,
    };
    same && a.key == b.key && a.slots.len() == b.slots.len()
}

/// The visitor of a unit variant in an adjacently tagged enum.
fn is_untagged_unit(node: &Node) -> bool {
    node.key.visitor.contains("UntaggedUnitVisitor")
}

/// The type of a node that has no definition.
fn unnamed(node: &Node) -> Option<Type> {
    let rust = node.key.value;
    let name = node.key.name;
    if name.starts_with('$') {
        return Some(match name {
            "$serde_json::private::RawValue" => Type::Any,
            _ => Type::opaque(rust, "it has an understanding with one format only"),
        });
    }
    match node.kind {
        Kind::Unit if rust.starts_with("core::marker::PhantomData<") => Some(Type::Unit),
        Kind::Any => Some(any(node)),
        Kind::Flat => Some(Type::opaque(rust, flat(node))),
        Kind::Tagged => Some(Type::opaque("", tagged(node))),
        _ => None,
    }
}

fn any(node: &Node) -> Type {
    const KINDS: [&str; 8] = [
        "text",
        "unsigned integers",
        "unit",
        "booleans",
        "signed integers",
        "floating-point numbers",
        "sequences",
        "maps",
    ];
    if node.taken == ALL_KINDS {
        return Type::Any;
    }
    match node.taken {
        1 => return Type::Text,
        4 => return Type::Unit,
        8 => return Type::Bool,
        _ => {}
    }
    let kinds = (0..8).filter(|kind| node.taken & (1 << kind) != 0);
    let kinds: Vec<&str> = kinds.map(|kind| KINDS[kind]).collect();
    let reason = match &*kinds {
        [] => "no value was found that it accepts".to_owned(),
        kinds => format!("it reads values of several kinds: {}", kinds.join(", ")),
    };
    Type::opaque(node.key.value, reason)
}

fn tagged(node: &Node) -> String {
    let mut reason = "it is an internally tagged enum".to_owned();
    if let Some((tag, variants)) = node.slots.split_first()
        && !variants.is_empty()
    {
        let names: Vec<String> = variants
            .iter()
            .map(|slot| format!("`{}`", slot.name))
            .collect();
        reason += &format!(": `{}` is one of {}", tag.name, names.join(", "));
    }
    reason
}

fn flat(node: &Node) -> String {
    let names: Vec<String> = node
        .slots
        .iter()
        .map(|slot| format!("`{}`", slot.name))
        .collect();
    let mut reason = "it does not tell its fields, as with `flatten`".to_owned();
    if !names.is_empty() {
        reason += "; it requires ";
        reason += &names.join(", ");
    }
    reason
}

/// The name and the path of a type. A visitor may make a value of another type than the one whose
/// name the `Deserialize` passes.
fn names(node: &Node) -> (String, String) {
    let (serde, path) = (node.key.name, node.key.value);
    let short = short_name(path);
    let end = short.find('<').unwrap_or(short.len());
    if serde.is_empty() || short[..end] == *serde {
        return (short, path.to_owned());
    }
    (
        format!("{serde}{}", &short[end..]),
        format!("{serde} ({path})"),
    )
}

/// `Page<Order>` of `app::Page<app::model::Order>`.
fn short_name(path: &str) -> String {
    let mut name = String::with_capacity(path.len());
    let mut start = 0;
    for (place, character) in path.char_indices() {
        if character == ':' {
            start = place + 1;
        } else if !character.is_alphanumeric() && character != '_' {
            name.push_str(&path[start..place]);
            name.push(character);
            start = place + character.len_utf8();
        }
    }
    name.push_str(path.get(start..).unwrap_or_default());
    name
}
