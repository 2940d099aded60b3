//! Names and paths that must be unique within a server.

use std::collections::{BTreeMap, HashMap};

use super::Methods;
use crate::method::MethodDescriptor;

/// The names of the services of a server, each with its type.
#[derive(Default)]
pub(super) struct Names {
    types: BTreeMap<&'static str, &'static str>,
    taken_twice: Option<String>,
}

impl Names {
    /// Adds the names under which a service of this type has registered methods.
    pub(super) fn add(&mut self, mut names: Vec<&'static str>, type_name: &'static str) {
        names.sort_unstable();
        names.dedup();
        for name in names {
            if let Some(other) = self.types.insert(name, type_name) {
                self.taken_twice
                    .get_or_insert_with(|| taken_twice(name, type_name, other));
            }
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &'static str> {
        self.types.keys().copied()
    }

    /// The error for two services with one name: health, limits and metrics could not distinguish
    /// them.
    pub(super) fn taken_twice(&mut self) -> Option<String> {
        self.taken_twice.take()
    }
}

fn taken_twice(name: &str, type_name: &str, other: &str) -> String {
    if type_name == other {
        return format!("option service: {type_name}, named {name:?}, is registered twice");
    }
    format!(
        "option service: {other} and {type_name} are both named {name:?}; write \
         #[service(name = \"..\")] on one of the traits, with path = \"..\" if it is to \
         keep its path"
    )
}

impl Methods {
    /// The error for two methods with one path.
    pub(super) fn path_taken_twice(&self) -> Option<String> {
        let mut methods: HashMap<&str, &MethodDescriptor> = HashMap::new();
        self.handlers.iter().find_map(|&(method, _)| {
            let path = method.path();
            let other = methods.insert(path, method)?;
            Some(format!(
                "option service: {other} and {method} both have the path {path:?}; write \
                 #[service(path = \"..\")] on one of the traits or #[rpc(path = \"..\")] on one of \
                 the methods"
            ))
        })
    }
}
