//! Collection of the named types of a description.

use std::any::{TypeId, type_name};
use std::collections::{BTreeMap, HashMap};

use crate::probe::key::{Form, Key};
use crate::types::{Definition, Shape, Source, Type, Types};

/// Collects the named types that a description uses while it is made, and gives each a name.
///
/// A type that is met again, be it within itself, is not described twice.
#[derive(Debug, Default)]
pub struct Registry {
    /// The places in `entries` of the types that were met.
    known: HashMap<TypeId, usize>,
    /// The types without names that are being described, with their places in `entries` if they
    /// were met again within themselves.
    unnamed: HashMap<TypeId, Option<usize>>,
    entries: Vec<Entry>,
    /// The references of types that were found by probing.
    probed: HashMap<(Key, Form), Type>,
}

#[derive(Debug)]
struct Entry {
    /// The name for readers, such as `Page<Order>`.
    name: String,
    /// The Rust path, which distinguishes types of the same name.
    path: String,
    /// `None` while the type is being described.
    definition: Option<Definition>,
}

impl Registry {
    /// A registry without types.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Describes `T` by `define`, unless that was done before, and returns a reference to it. `name`
    /// is the name that readers see, without its path.
    pub fn define<T: ?Sized + 'static>(
        &mut self,
        name: impl Into<String>,
        define: impl FnOnce(&mut Self) -> Definition,
    ) -> Type {
        let id = (TypeId::of::<T>(), type_name::<T>());
        self.define_by_id(id, |_| name.into(), define)
    }

    /// Like [`define`](Self::define) for the type with this id and path. The name may depend on
    /// other types, which are then described first.
    pub(crate) fn define_by_id(
        &mut self,
        (id, path): (TypeId, &str),
        name: impl FnOnce(&mut Self) -> String,
        define: impl FnOnce(&mut Self) -> Definition,
    ) -> Type {
        if let Some(place) = self.known.get(&id) {
            return reference(*place);
        }
        let name = name(self);
        if let Some(place) = self.known.get(&id) {
            return reference(*place);
        }
        let place = self.reserve(name, path.to_owned());
        self.known.insert(id, place);
        let definition = define(self);
        self.entries[place].definition = Some(definition);
        reference(place)
    }

    /// Describes a type that has no name because it is written like another one. If it is met
    /// again within itself, it gets a name after all, as a newtype of the other one.
    pub(crate) fn unnamed_by_id(
        &mut self,
        (id, path): (TypeId, &str),
        name: &str,
        describe: impl FnOnce(&mut Self) -> Type,
    ) -> Type {
        if let Some(place) = self.known.get(&id) {
            return reference(*place);
        }
        if let Some(met_again) = self.unnamed.get(&id) {
            let place = met_again.unwrap_or(self.entries.len());
            if met_again.is_none() {
                self.reserve(name.to_owned(), path.to_owned());
                self.unnamed.insert(id, Some(place));
            }
            return reference(place);
        }
        self.unnamed.insert(id, None);
        let ty = describe(self);
        let Some(place) = self.unnamed.remove(&id).flatten() else {
            return ty;
        };
        self.known.insert(id, place);
        self.entries[place].definition = Some(Definition::new(Shape::Newtype(ty)));
        reference(place)
    }

    /// The name for readers of a type of this registry, such as `Page<Order>`.
    pub(crate) fn short_name(&self, ty: &Type) -> Option<&str> {
        Some(&self.entries.get(place(ty)?)?.name)
    }

    /// Adds a type that has no Rust type of its own, such as one found by probing.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        path: impl Into<String>,
        definition: Definition,
    ) -> Type {
        let place = self.reserve(name.into(), path.into());
        self.entries[place].definition = Some(definition);
        reference(place)
    }

    /// Makes room for a type that refers to itself, see [`complete`](Self::complete).
    pub fn reserve_named(&mut self, name: impl Into<String>, path: impl Into<String>) -> Type {
        let place = self.reserve(name.into(), path.into());
        reference(place)
    }

    /// Sets the definition of a type that [`reserve_named`](Self::reserve_named) made room for.
    pub fn complete(&mut self, reserved: &Type, definition: Definition) {
        if let Some(entry) = place(reserved).and_then(|place| self.entries.get_mut(place)) {
            entry.definition = Some(definition);
        }
    }

    /// Sets [`Variant::http`](crate::Variant::http) of variants of the enum behind a reference of
    /// this registry: pairs of the position of a variant and its status.
    pub fn set_http_statuses(&mut self, reference: &Type, statuses: &[(u32, u16)]) {
        let entry = place(reference).and_then(|place| self.entries.get_mut(place));
        let definition = entry.and_then(|entry| entry.definition.as_mut());
        let Some(Shape::Enum(shape)) = definition.map(|definition| &mut definition.shape) else {
            return;
        };
        for variant in &mut shape.variants {
            let own = statuses.iter().find(|(index, _)| *index == variant.index);
            variant.http = own.map(|(_, status)| *status);
        }
    }

    /// The definition behind a reference of this registry, if it is complete.
    #[must_use]
    pub fn get(&self, reference: &Type) -> Option<&Definition> {
        self.entries.get(place(reference)?)?.definition.as_ref()
    }

    /// The reference of a type that was met by [`define`](Self::define).
    pub(crate) fn known(&self, id: TypeId) -> Option<Type> {
        self.known.get(&id).copied().map(reference)
    }

    /// The reference of a type with this path that was met by [`define`](Self::define).
    pub(crate) fn derived_at(&self, path: &str) -> Option<Type> {
        let place = self.entries.iter().position(|entry| entry.path == path)?;
        let entry = &self.entries[place];
        match &entry.definition {
            Some(definition) if definition.source == Source::Derived => Some(reference(place)),
            None if self.known.values().any(|known| *known == place) => Some(reference(place)),
            _ => None,
        }
    }

    /// The reference of a type that was found by probing.
    pub(crate) fn probed(&self, key: &Key, form: Form) -> Option<Type> {
        self.probed.get(&(*key, form)).cloned()
    }

    /// Keeps the reference of a type that was found by probing.
    pub(crate) fn remember(&mut self, key: Key, form: Form, reference: Type) {
        self.probed.insert((key, form), reference);
    }

    fn reserve(&mut self, name: String, path: String) -> usize {
        self.entries.push(Entry {
            name,
            path,
            definition: None,
        });
        self.entries.len() - 1
    }

    /// Names all types: by their short name if it is the only one of its kind, else by their path,
    /// and with a number if that is not unique either. Returns the types, and a function's worth of
    /// renaming for the references outside of them: see [`Names`].
    #[must_use]
    pub fn finish(self) -> (Types, Names) {
        let mut same_name: BTreeMap<&str, usize> = BTreeMap::new();
        for entry in &self.entries {
            *same_name.entry(&entry.name).or_default() += 1;
        }
        let mut taken: BTreeMap<String, usize> = BTreeMap::new();
        let mut names = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let alone = same_name.get(&*entry.name) == Some(&1);
            let name = if alone { &entry.name } else { &entry.path };
            let count = taken.entry(name.clone()).or_default();
            *count += 1;
            names.push(match *count {
                1 => name.clone(),
                n => format!("{name}#{n}"),
            });
        }
        let names = Names(names);
        let mut types = Types::new();
        for (entry, name) in self.entries.into_iter().zip(&names.0) {
            let Some(mut definition) = entry.definition else {
                continue;
            };
            definition
                .parts_mut()
                .into_iter()
                .for_each(|ty| names.apply(ty));
            types.insert(name, definition);
        }
        (types, names)
    }
}

/// The final names of the types of a registry.
#[derive(Debug)]
pub struct Names(Vec<String>);

impl Names {
    /// Replaces the references of the registry in `ty` by final names.
    pub fn apply(&self, ty: &mut Type) {
        if let Some(name) = place(ty).and_then(|place| self.0.get(place)) {
            *ty = Type::Named(name.clone());
            return;
        }
        ty.parts_mut().for_each(|part| self.apply(part));
    }
}

/// A reference within a registry. The first character cannot be part of a Rust name.
fn reference(place: usize) -> Type {
    Type::Named(format!("${place}"))
}

fn place(ty: &Type) -> Option<usize> {
    match ty {
        Type::Named(name) => name.strip_prefix('$')?.parse().ok(),
        _ => None,
    }
}
