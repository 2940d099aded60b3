//! Checks before anything is generated. Without them rustc would report the mistakes, in generated
//! files.

use std::collections::HashMap;

use prost_types::{FileDescriptorProto, FileDescriptorSet, ServiceDescriptorProto};
use syn::parse::Parser;

use crate::error::{Error, Place, Problem};
use crate::naming::{self, full_name};
use crate::settings::{Kind, Rule, Settings};
use crate::sources::Includes;

/// Field numbers in descriptors, which form the paths of source locations.
const SERVICE: i32 = 6;
const METHOD: i32 = 2;
const NAME: i32 = 1;

/// Checks everything at once.
pub(crate) fn all(
    fds: &FileDescriptorSet,
    settings: &Settings,
    includes: &Includes,
) -> Result<(), Error> {
    let mut problems = Vec::new();
    for rule in settings.rules() {
        rule_is_usable(rule, &fds.file, &mut problems);
    }
    let mut taken = naming::types_of_packages(&fds.file);
    for file in &fds.file {
        if !matches!(file.syntax.as_deref(), None | Some("proto2" | "proto3")) {
            let text = "editions are not supported: write `syntax = \"proto3\";`";
            problems.push(Problem::new(place(file, &[], includes), text));
        }
        for (index, service) in file.service.iter().enumerate() {
            let path = [SERVICE, int(index)];
            let name = full_name(file.package(), service.name());
            let title = naming::type_name(service.name());
            let title = naming::trait_name(settings, &name, &title);
            for item in [
                title.clone(),
                format!("{title}Client"),
                format!("{title}Server"),
            ] {
                let this = format!("service {}", service.name());
                if let Some(other) = taken.insert((file.package(), item.clone()), this) {
                    let text = format!(
                        "service {} and {other} would both have `{item}` in Rust: name its trait \
                         by `trait_name(\".{name}\", \"..\")`",
                        service.name()
                    );
                    let place = place(file, &[path[0], path[1], NAME], includes);
                    problems.push(Problem::new(place, text));
                    break;
                }
            }
            for (method, text) in methods_of_one_name(service) {
                let place = place(file, &[path[0], path[1], METHOD, method, NAME], includes);
                problems.push(Problem::new(place, text));
            }
        }
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Error::all(problems)),
    }
}

/// Reports a setting that is not Rust, or that matches nothing.
fn rule_is_usable(rule: &Rule, files: &[FileDescriptorProto], problems: &mut Vec<Problem>) {
    let parsed = match rule.kind {
        Kind::TraitAttribute | Kind::MethodAttribute => {
            syn::Attribute::parse_outer.parse_str(&rule.text).map(drop)
        }
        Kind::ServiceSetting => {
            let attribute = format!("#[service({})]", rule.text);
            syn::Attribute::parse_outer.parse_str(&attribute).map(drop)
        }
        Kind::TraitName => syn::parse_str::<syn::Ident>(&rule.text).map(drop),
    };
    if let Err(error) = parsed {
        problems.push(Problem::new(None, format!("{rule}: {error}")));
    }
    let services = files.iter().flat_map(|file| {
        let services = file.service.iter();
        services.map(|service| (full_name(file.package(), service.name()), service))
    });
    let mut names = services.flat_map(|(name, service)| match rule.kind {
        Kind::MethodAttribute => {
            let methods = service.method.iter();
            methods
                .map(|method| full_name(&name, method.name()))
                .collect()
        }
        _ => vec![name],
    });
    if !rule.is_for_everything() && !names.any(|name| rule.names(&name)) {
        let what = match rule.kind {
            Kind::MethodAttribute => "method",
            _ => "service",
        };
        problems.push(Problem::new(
            None,
            format!("{rule}: no {what} has this path"),
        ));
    }
}

/// Returns the methods that would have the name of an earlier one, each with the text of the error.
fn methods_of_one_name(service: &ServiceDescriptorProto) -> Vec<(i32, String)> {
    let mut problems = Vec::new();
    let mut seen = HashMap::new();
    for (index, method) in service.method.iter().enumerate() {
        let name = naming::function_name(method.name());
        if let Some(earlier) = seen.insert(name.clone(), method.name()) {
            let text = format!(
                "methods {} and {earlier} would both be `{name}` in Rust: rename one of them",
                method.name()
            );
            problems.push((int(index), text));
        }
    }
    problems
}

fn place(file: &FileDescriptorProto, path: &[i32], includes: &Includes) -> Option<Place> {
    let locations = file.source_code_info.iter().flat_map(|info| &info.location);
    let span = locations
        .into_iter()
        .find(|location| location.path == path)
        .map(|location| location.span.as_slice());
    let at = match span {
        Some(&[line, column, ..]) => usize::try_from(line)
            .ok()
            .zip(usize::try_from(column).ok())
            .map(|(line, column)| (line + 1, column + 1)),
        _ => None,
    };
    Some(Place {
        file: includes.path_of(file.name()),
        at,
    })
}

/// Converts an index to `i32`, which descriptors use for them.
fn int(index: usize) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}
