//! The keys of types among the components of a document.

use std::collections::{BTreeMap, BTreeSet};

use super::problem;
use crate::description::Description;
use crate::types::{Definition, Type};

/// The length in bytes at which a key is cut, before the number that makes it unique.
const MAX_KEY: usize = 200;

/// After so many rounds of comparison, no types are shared. Each round follows references by one
/// more step.
const MAX_ROUNDS: usize = 64;

/// Hands out keys that match `^[a-zA-Z0-9._-]+$` and are unique.
#[derive(Debug, Default)]
pub(super) struct Unique {
    taken: BTreeSet<String>,
    /// The number that was last tried for a key.
    numbers: BTreeMap<String, u64>,
}

impl Unique {
    /// A key like the name. Names that differ get keys that differ, and so do equal names.
    pub(super) fn claim(&mut self, name: &str) -> String {
        let base = valid(name);
        if self.taken.insert(base.clone()) {
            return base;
        }
        let number = self.numbers.entry(base.clone()).or_insert(1);
        loop {
            *number += 1;
            let key = format!("{base}_{number}");
            if self.taken.insert(key.clone()) {
                return key;
            }
        }
    }
}

/// The name with `.` in place of `::`, and `_` in place of other runs of characters that a key
/// cannot have: `Page_Order` for `Page<Order>`.
fn valid(name: &str) -> String {
    let mut key = String::new();
    for character in name.replace("::", ".").chars() {
        if key.len() >= MAX_KEY {
            break;
        }
        if character.is_ascii_alphanumeric() || "._-".contains(character) {
            key.push(character);
        } else if !key.ends_with('_') {
            key.push('_');
        }
    }
    let key = key.trim_matches('_');
    if key.is_empty() { "Type" } else { key }.to_owned()
}

/// The keys of all types of some services.
#[derive(Debug)]
pub(super) struct Keys<'a> {
    /// For each service, the keys of its types.
    keys: Vec<BTreeMap<&'a str, String>>,
    /// For each service, its types that are not those of an earlier one.
    owned: Vec<BTreeSet<&'a str>>,
}

impl<'a> Keys<'a> {
    /// The keys in a document of these services, which are not that of the schema of problems.
    pub(super) fn of_document(services: &[&'a Description]) -> Self {
        let mut unique = Unique::default();
        unique.claim(problem::SCHEMA);
        Self::new(services, unique)
    }

    /// A type that two services describe alike, with all that it refers to, gets one key. Of types
    /// of one name that differ, the first gets its name as its key, and others that of the service
    /// before it.
    pub(super) fn new(services: &[&'a Description], mut unique: Unique) -> Self {
        let mut first: BTreeMap<&str, usize> = BTreeMap::new();
        for (place, service) in services.iter().enumerate() {
            for (name, _) in service.types.iter() {
                first.entry(name).or_insert(place);
            }
        }
        let shared = shared(services, &first);
        let mut keys: Vec<BTreeMap<&'a str, String>> = vec![BTreeMap::new(); services.len()];
        let mut owned = vec![BTreeSet::new(); services.len()];
        // Those that are first claim the short names.
        for (name, place) in &first {
            keys[*place].insert(name, unique.claim(name));
            owned[*place].insert(*name);
        }
        for (place, service) in services.iter().enumerate() {
            for (name, _) in service.types.iter() {
                let owner = first[name];
                if owner == place {
                    continue;
                }
                let key = if shared[place].contains(name) {
                    keys[owner][name].clone()
                } else {
                    owned[place].insert(name);
                    unique.claim(&format!("{}.{name}", service.service))
                };
                keys[place].insert(name, key);
            }
        }
        Self { keys, owned }
    }

    /// The keys of the types of all services, in the order of the services.
    pub(super) fn into_all(self) -> Vec<BTreeMap<&'a str, String>> {
        self.keys
    }

    /// The keys of the types of the service at this place.
    pub(super) fn of(&self, place: usize) -> &BTreeMap<&'a str, String> {
        &self.keys[place]
    }

    /// The key of a type, unless it is that of an earlier service.
    pub(super) fn owned(&self, place: usize, name: &str) -> Option<&str> {
        let owned = self.owned[place].contains(name);
        owned.then(|| &*self.keys[place][name])
    }
}

/// For each service, its types that are the same as those of the first service with the name.
fn shared<'a>(
    services: &[&'a Description],
    first: &BTreeMap<&'a str, usize>,
) -> Vec<BTreeSet<&'a str>> {
    let definition = |place: usize, name: &str| services[place].types.get(name);
    let mut shared: Vec<BTreeSet<&str>> = Vec::with_capacity(services.len());
    for (place, service) in services.iter().enumerate() {
        let same = service.types.iter().filter_map(|(name, own)| {
            let owner = first[name];
            (owner == place || definition(owner, name) == Some(own)).then_some(name)
        });
        shared.push(same.collect());
    }
    // What refers to types that are not shared is not the same either.
    for _ in 0..MAX_ROUNDS {
        let mut differing = Vec::new();
        for (place, names) in shared.iter().enumerate() {
            for name in names {
                let owner = first[name];
                let Some(own) = definition(place, name) else {
                    continue;
                };
                let same = |to: &str| {
                    let is_shared = |place: usize| match definition(place, to) {
                        Some(_) => shared[place].contains(to),
                        None => !first.contains_key(to),
                    };
                    is_shared(place) && is_shared(owner)
                };
                if owner != place && !references(own).into_iter().all(same) {
                    differing.push((place, *name));
                }
            }
        }
        if differing.is_empty() {
            return shared;
        }
        for (place, name) in differing {
            shared[place].remove(name);
        }
    }
    vec![BTreeSet::new(); services.len()]
}

/// The names of the types that a definition directly refers to.
fn references(definition: &Definition) -> Vec<&str> {
    let mut pending = definition.parts();
    let mut names = Vec::new();
    while let Some(ty) = pending.pop() {
        if let Type::Named(name) = ty {
            names.push(&**name);
        }
        pending.extend(ty.parts());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Field, Shape};

    fn with_types(service: &str, types: &[(&str, Type)]) -> Description {
        let mut description = Description::new(service);
        for (name, ty) in types {
            let definition = Definition::new(Shape::Struct {
                fields: vec![Field::new("of", ty.clone())],
                deny_unknown_fields: false,
            });
            description.types.insert(*name, definition);
        }
        description
    }

    fn named(name: &str) -> Type {
        Type::Named(name.to_owned())
    }

    #[test]
    fn keys_are_valid_and_differ_where_names_differ() {
        let mut unique = Unique::default();
        assert_eq!(unique.claim("Page<Order>"), "Page_Order");
        assert_eq!(unique.claim("Page[Order]"), "Page_Order_2");
        assert_eq!(unique.claim("Page_Order_2"), "Page_Order_2_2");
        assert_eq!(unique.claim("shop::v1::Order"), "shop.v1.Order");
        assert_eq!(unique.claim(""), "Type");
        assert_eq!(unique.claim("<\"/~#>"), "Type_2");
        assert_eq!(unique.claim(&"é".repeat(1000)), "Type_3");
        assert_eq!(unique.claim(&"a".repeat(1000)).len(), MAX_KEY);
    }

    #[test]
    fn types_are_shared_if_all_that_they_refer_to_is() {
        let a = with_types(
            "A",
            &[
                ("Leaf", Type::U8),
                ("Tree", named("Leaf")),
                ("Same", named("Same")),
            ],
        );
        let b = with_types(
            "B",
            &[
                ("Leaf", Type::U16),
                ("Tree", named("Leaf")),
                ("Same", named("Same")),
            ],
        );
        let keys = Keys::new(&[&a, &b], Unique::default());
        assert_eq!(keys.of(0)["Tree"], "Tree");
        assert_eq!(keys.of(1)["Tree"], "B.Tree");
        assert_eq!(keys.of(1)["Leaf"], "B.Leaf");
        assert_eq!(keys.of(1)["Same"], "Same");
        assert_eq!(keys.owned(1, "Same"), None);
        assert_eq!(keys.owned(1, "Tree"), Some("B.Tree"));
    }

    #[test]
    fn a_type_whose_owner_refers_to_nothing_is_not_shared() {
        let a = with_types("A", &[("Tree", named("Leaf"))]);
        let b = with_types("B", &[("Tree", named("Leaf")), ("Leaf", Type::U8)]);
        let keys = Keys::new(&[&a, &b], Unique::default());
        assert_eq!(keys.of(1)["Tree"], "B.Tree");
    }
}
