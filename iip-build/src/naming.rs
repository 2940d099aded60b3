//! Names in Rust, as prost generates them.

use std::collections::HashMap;

use heck::{ToSnakeCase, ToUpperCamelCase};
use prost_types::FileDescriptorProto;

use crate::settings::{Kind, Settings};

/// Methods that every client has, and that `#[service]` rejects in a trait.
const TAKEN: [&str; 7] = [
    "new",
    "with_options",
    "clone",
    "clone_into",
    "to_owned",
    "into",
    "try_into",
];

/// Returns the full name of a service or method, without a leading dot.
pub(crate) fn full_name(parent: &str, name: &str) -> String {
    match parent {
        "" => name.to_owned(),
        parent => format!("{parent}.{name}"),
    }
}

/// Returns the name of a trait: that of the build script, or else that of prost.
pub(crate) fn trait_name(settings: &Settings, full_name: &str, by_prost: &str) -> String {
    let own = settings.of(Kind::TraitName, full_name).next_back();
    own.unwrap_or(by_prost).to_owned()
}

/// Returns the name of a method whose name in Rust would be `name`, and its name on the wire if
/// that is different.
pub(crate) fn method_name(name: &str) -> (String, Option<&str>) {
    match TAKEN.contains(&name) {
        true => (format!("{name}_"), Some(name)),
        false => (name.to_owned(), None),
    }
}

/// Returns the name of a type or trait in Rust, except for keywords.
pub(crate) fn type_name(proto_name: &str) -> String {
    proto_name.to_upper_camel_case()
}

/// Returns the name of a method in Rust, except for keywords.
pub(crate) fn function_name(proto_name: &str) -> String {
    proto_name.to_snake_case()
}

/// Returns the types at the top of the Rust module of each package, by their name in Rust, each
/// with its kind and name in the `.proto` file.
pub(crate) fn types_of_packages(files: &[FileDescriptorProto]) -> HashMap<(&str, String), String> {
    let mut all = HashMap::new();
    for file in files {
        for message in &file.message_type {
            let name = message.name();
            all.insert((file.package(), type_name(name)), format!("message {name}"));
        }
        for enumeration in &file.enum_type {
            let name = enumeration.name();
            all.insert((file.package(), type_name(name)), format!("enum {name}"));
        }
    }
    all
}
