//! Names in Rust, as prost makes them.

use std::collections::HashMap;

use heck::{ToSnakeCase, ToUpperCamelCase};
use prost_types::FileDescriptorProto;

use crate::settings::{Kind, Settings};

/// Methods that every client has, and that `#[service]` refuses as those of a trait.
const TAKEN: [&str; 7] = [
    "new",
    "with_options",
    "clone",
    "clone_into",
    "to_owned",
    "into",
    "try_into",
];

/// The full name of a service or method, without a leading dot.
pub(crate) fn full_name(parent: &str, name: &str) -> String {
    match parent {
        "" => name.to_owned(),
        parent => format!("{parent}.{name}"),
    }
}

/// The name of a trait: as the build script says, or else as prost does.
pub(crate) fn trait_name(settings: &Settings, full_name: &str, by_prost: &str) -> String {
    let own = settings.of(Kind::TraitName, full_name).next_back();
    own.unwrap_or(by_prost).to_owned()
}

/// The name of a method whose name in Rust would be `name`, and that on the wire if it is another
/// one.
pub(crate) fn method_name(name: &str) -> (String, Option<&str>) {
    match TAKEN.contains(&name) {
        true => (format!("{name}_"), Some(name)),
        false => (name.to_owned(), None),
    }
}

/// The name of a type or trait in Rust, but for keywords.
pub(crate) fn type_name(proto_name: &str) -> String {
    proto_name.to_upper_camel_case()
}

/// The name of a method in Rust, but for keywords.
pub(crate) fn function_name(proto_name: &str) -> String {
    proto_name.to_snake_case()
}

/// What is at the top of the Rust module of each package, by its name in Rust, with its kind and
/// name in the `.proto` file.
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
