//! The dependencies that are part of a library's public API are those that `docs/dependencies.md`
//! names in its last column. The check reads the sources: the signatures of public functions, the
//! fields of public types, bounds, implemented traits, and re-exports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit_mut::{self, VisitMut};
use syn::{
    Attribute, Field, File, ImplItemFn, Item, ItemImpl, ItemMod, ItemUse, Meta, Type, UseTree,
    Visibility,
};

use crate::dependencies::{reasons, used_by};
use crate::root;

/// Collects the crates that occur in public signatures of one file.
struct Public<'a> {
    /// The dependencies of the library, as paths name them.
    dependencies: &'a BTreeSet<String>,
    /// The crate that each imported name comes from.
    imported: BTreeMap<String, String>,
    /// The types of the library that are not public.
    private: &'a BTreeSet<String>,
    found: BTreeSet<String>,
}

impl Public<'_> {
    /// Adds the names that a `use` brings into scope, if they come from a dependency.
    fn import(&mut self, tree: &UseTree, from: Option<&str>) {
        match tree {
            UseTree::Path(path) => {
                let first = path.ident.to_string();
                let from = from.unwrap_or(&first);
                if self.dependencies.contains(from) {
                    self.import(&path.tree, Some(from));
                }
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.import(tree, from)),
            UseTree::Name(name) => self.add(&name.ident.to_string(), from),
            UseTree::Rename(rename) => self.add(&rename.rename.to_string(), from),
            UseTree::Glob(_) => {}
        }
    }

    fn add(&mut self, name: &str, from: Option<&str>) {
        if let Some(from) = from {
            self.imported.insert(name.to_owned(), from.to_owned());
        }
    }

    fn re_export(&mut self, tree: &UseTree) {
        if let UseTree::Path(path) = tree {
            let first = path.ident.to_string();
            if self.dependencies.contains(&first) {
                self.found.insert(first);
            }
        }
    }

    fn items(&mut self, items: &[Item]) {
        for item in items {
            if let Item::Use(ItemUse { tree, .. }) = item {
                self.import(tree, None);
            }
        }
        for item in items {
            self.item(item);
        }
    }

    fn item(&mut self, item: &Item) {
        match item {
            Item::Use(item) if is_public(&item.vis, &item.attrs) => self.re_export(&item.tree),
            Item::Fn(item) if is_public(&item.vis, &item.attrs) => {
                self.visit_signature_mut(&mut item.sig.clone());
            }
            Item::Struct(item) if is_public(&item.vis, &item.attrs) => {
                self.visit_generics_mut(&mut item.generics.clone());
                item.fields.iter().for_each(|field| self.field(field));
            }
            Item::Enum(item) if is_public(&item.vis, &item.attrs) => {
                self.visit_generics_mut(&mut item.generics.clone());
                item.variants
                    .iter()
                    .flat_map(|variant| &variant.fields)
                    .for_each(|field| self.visit_type_mut(&mut field.ty.clone()));
            }
            Item::Trait(item) if is_public(&item.vis, &item.attrs) => {
                item.supertraits
                    .iter()
                    .for_each(|bound| self.visit_type_param_bound_mut(&mut bound.clone()));
                item.items.iter().for_each(|item| {
                    if let syn::TraitItem::Fn(method) = item {
                        self.visit_signature_mut(&mut method.sig.clone());
                    }
                });
            }
            Item::Type(item) if is_public(&item.vis, &item.attrs) => {
                self.visit_type_mut(&mut item.ty.clone())
            }
            Item::Impl(item) if !is_hidden(&item.attrs) => self.implementation(item),
            Item::Mod(ItemMod {
                content: Some((_, items)),
                attrs,
                ..
            }) if !is_hidden(attrs) => self.items(items),
            _ => {}
        }
    }

    fn field(&mut self, field: &Field) {
        if is_public(&field.vis, &field.attrs) {
            self.visit_type_mut(&mut field.ty.clone());
        }
    }

    fn implementation(&mut self, item: &ItemImpl) {
        if name_of(&item.self_ty).is_some_and(|name| self.private.contains(&name)) {
            return;
        }
        if let Some((path, _)) = &item.trait_ {
            self.visit_generics_mut(&mut item.generics.clone());
            self.visit_path_mut(&mut path.clone());
            return;
        }
        for item in &item.items {
            if let syn::ImplItem::Fn(ImplItemFn {
                vis, attrs, sig, ..
            }) = item
                && is_public(vis, attrs)
            {
                self.visit_signature_mut(&mut sig.clone());
            }
        }
    }
}

impl VisitMut for Public<'_> {
    fn visit_path_mut(&mut self, path: &mut syn::Path) {
        if let Some(first) = path.segments.first() {
            let first = first.ident.to_string();
            if let Some(from) = self.imported.get(&first) {
                self.found.insert(from.clone());
            } else if self.dependencies.contains(&first) && path.segments.len() > 1 {
                self.found.insert(first);
            }
        }
        visit_mut::visit_path_mut(self, path);
    }
}

fn is_public(vis: &Visibility, attributes: &[Attribute]) -> bool {
    matches!(vis, Visibility::Public(_)) && !is_hidden(attributes)
}

/// Returns `true` for items of tests, and for those that are not documented.
fn is_hidden(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => {
            let arguments = list.tokens.to_string();
            (list.path.is_ident("doc") && arguments == "hidden")
                || (list.path.is_ident("cfg") && arguments == "test")
        }
        _ => false,
    })
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the sources");
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|name| name.to_str());
        if name == Some("tests") || name == Some("fuzz") {
            continue;
        }
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn name_of(of: &Type) -> Option<String> {
    match of {
        Type::Reference(of) => name_of(&of.elem),
        Type::Path(of) => Some(of.path.segments.last()?.ident.to_string()),
        _ => None,
    }
}

/// The names of the types of these files, and whether they are public.
fn types(files: &[File]) -> impl Iterator<Item = (String, bool)> {
    files
        .iter()
        .flat_map(|file| &file.items)
        .filter_map(|item| match item {
            Item::Struct(item) => Some((item.ident.to_string(), is_public(&item.vis, &item.attrs))),
            Item::Enum(item) => Some((item.ident.to_string(), is_public(&item.vis, &item.attrs))),
            _ => None,
        })
}

/// The dependencies that the public API of these files shows.
fn public_in(files: &[File], dependencies: &BTreeSet<String>) -> BTreeSet<String> {
    let named = |wanted| {
        types(files)
            .filter(move |&(_, public)| public == wanted)
            .map(|(name, _)| name)
            .collect::<BTreeSet<_>>()
    };
    let private = &named(false) - &named(true);
    let mut found = BTreeSet::new();
    for file in files {
        let mut public = Public {
            dependencies,
            imported: BTreeMap::new(),
            private: &private,
            found: BTreeSet::new(),
        };
        public.items(&file.items);
        found.append(&mut public.found);
    }
    found
}

#[test]
fn signatures_show_the_crates_of_their_types() {
    let dependencies = ["one", "two", "three", "four", "five"];
    let dependencies = dependencies.map(str::to_owned).into_iter().collect();
    let text = "
        use one::{A, b::B as Own};
        use two::C;
        pub use three::D;
        pub struct S { pub a: Own, c: C }
        impl S { fn c(&self) -> C { C } pub(crate) fn d() -> C { C } }
        impl four::Default for S {}
        struct Private;
        impl two::Default for &mut Private {}
        pub(crate) enum Hidden {}
        impl From<two::A> for Hidden {}
        #[doc(hidden)] pub fn hidden() -> C { C }
        #[cfg(test)] mod tests { pub fn of_tests() -> C { C } }
        pub fn generic(of: impl Into<Vec<five::E>>) {}
    ";
    let file = syn::parse_file(text).expect("a source file");
    let found = public_in(&[file], &dependencies);
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(found, ["five", "four", "one", "three"]);
}

#[test]
fn public_dependencies_are_those_that_the_reasons_name() {
    for library in [
        "iip-core",
        "iip-rpc",
        "iip-build",
        "iip-rules",
        "iip-schema",
        "iip-discovery-etcd",
        "iip-files",
        "iip-gateway",
    ] {
        let dependencies = used_by(library);
        let in_paths = |name: &String| name.replace('-', "_");
        let paths = dependencies.iter().map(in_paths).collect();
        let files = sources(&root().join(library).join("src"))
            .into_iter()
            .map(|path| {
                let text = fs::read_to_string(path).expect("a source file");
                syn::parse_file(&text).expect("a source file")
            });
        let found = public_in(&files.collect::<Vec<_>>(), &paths);
        let named = reasons(library)
            .into_iter()
            .filter(|(_, public)| !public.is_empty())
            .map(|(name, _)| in_paths(&name))
            .collect::<BTreeSet<_>>();
        assert_eq!(found, named, "{library}");
    }
}
