//! Types that contain themselves at the same place of a JSON value.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::{Definition, Shape, Tagging, Type, Types, VariantShape};

/// Pairs of types of which the first contains the second.
pub(super) type Edges<'a> = BTreeSet<(&'a str, &'a str)>;

/// The references without which no type contains itself at the same place of a value, or within
/// what is merged into it: pairs of the names of the type that refers and of the other one.
///
/// A schema that followed them would be infinite, or would make validators recurse without end, and
/// languages with aliases of types refuse them.
#[must_use]
pub fn circular(types: &Types) -> BTreeSet<(&str, &str)> {
    #[derive(PartialEq)]
    enum State {
        Open,
        Done,
    }
    let mut states: BTreeMap<&str, State> = BTreeMap::new();
    let mut circular = Edges::new();
    // A search in depth with a stack of its own: a chain of types may be of any length.
    for (root, _) in types.iter() {
        if states.contains_key(root) {
            continue;
        }
        states.insert(root, State::Open);
        let mut stack = vec![(root, within(types, root))];
        while let Some((name, pending)) = stack.last_mut() {
            let name = *name;
            let Some(next) = pending.pop() else {
                states.insert(name, State::Done);
                stack.pop();
                continue;
            };
            match states.get(next) {
                Some(State::Open) => {
                    circular.insert((name, next));
                }
                Some(State::Done) => {}
                None => {
                    states.insert(next, State::Open);
                    stack.push((next, within(types, next)));
                }
            }
        }
    }
    circular
}

/// The types whose schema would be part of that of the type with this name, other than below one
/// of its properties or items.
fn within<'a>(types: &'a Types, name: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    if let Some(definition) = types.get(name) {
        for ty in parts(definition) {
            found.extend(target(ty).filter(|name| types.get(name).is_some()));
        }
    }
    found
}

fn parts(definition: &Definition) -> Vec<&Type> {
    match &definition.shape {
        Shape::Newtype(ty) => vec![ty],
        Shape::Struct { fields, .. } => {
            let flattened = fields.iter().filter(|field| field.flatten);
            flattened.map(|field| &field.ty).collect()
        }
        Shape::Enum(shape) => {
            let mut parts = Vec::new();
            for variant in &shape.variants {
                match &variant.shape {
                    VariantShape::Newtype(ty) => {
                        let tagged =
                            matches!(shape.tagging, Tagging::External | Tagging::Adjacent { .. });
                        if variant.untagged || !tagged {
                            parts.push(ty);
                        }
                    }
                    VariantShape::Struct(fields) => {
                        let flattened = fields.iter().filter(|field| field.flatten);
                        parts.extend(flattened.map(|field| &field.ty));
                    }
                    VariantShape::Unit | VariantShape::Tuple(_) => {}
                }
            }
            parts
        }
        Shape::Unit | Shape::Tuple(_) => Vec::new(),
    }
}

fn target(mut ty: &Type) -> Option<&str> {
    loop {
        ty = match ty {
            Type::Named(name) => return Some(name),
            Type::Option(of) => of,
            Type::ByFormat { readable, .. } => readable,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newtypes(names: &[(&str, &str)]) -> Types {
        let mut types = Types::new();
        for (name, of) in names {
            let of = Type::option(Type::Named((*of).to_owned()));
            types.insert(*name, Definition::new(Shape::Newtype(of)));
        }
        types
    }

    #[test]
    fn a_circle_is_cut_once() {
        let types = newtypes(&[("A", "B"), ("B", "C"), ("C", "A"), ("D", "A"), ("E", "E")]);
        assert_eq!(circular(&types), Edges::from([("C", "A"), ("E", "E")]));
    }

    #[test]
    fn a_long_chain_needs_no_stack() {
        let names: Vec<String> = (0..100_000).map(|n| format!("{n:06}")).collect();
        let pairs: Vec<(&str, &str)> = names.windows(2).map(|w| (&*w[0], &*w[1])).collect();
        assert!(circular(&newtypes(&pairs)).is_empty());
    }
}
