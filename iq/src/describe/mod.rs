//! `iq describe`: descriptions of services as Rust traits.

mod service;
mod types;

use std::collections::BTreeSet;

use iip_rpc::schema::{Description, Method, Type, Types};
use serde_json::json;

use crate::args::DescribeArgs;
use crate::connection::ConnectArgs;
use crate::exit::Outcome;
use crate::output::Output;
use crate::{closest, generate, services};

/// Describes services, or a method.
pub(crate) async fn run(args: &DescribeArgs, connect: &ConnectArgs, output: &Output) -> Outcome {
    let all = services::at(&args.target, connect, output).await?;
    let chosen: Vec<Description> = match &args.name {
        None => all,
        Some(name) => vec![part(&all, name)?],
    };
    if args.openapi {
        return generate::openapi(&chosen, output);
    }
    for (at, service) in chosen.iter().enumerate() {
        if output.is_json() {
            output.object("service", service)?;
            continue;
        }
        let before = if at == 0 { "" } else { "\n" };
        output.line(format_args!("{before}{}", service::as_rust(service)))?;
    }
    if chosen.is_empty() && !output.is_json() {
        output.note("there are no services");
    }
    Ok(())
}

/// Returns a service, or a copy with only one of its methods and the types that the method uses.
fn part(all: &[Description], name: &str) -> Outcome<Description> {
    if let Some(service) = all.iter().find(|service| service.service == name) {
        return Ok(service.clone());
    }
    // A path, or a name that begins with that of a service, is taken for a method.
    let names = || all.iter().map(|service| &*service.service);
    let of_service = name
        .rsplit_once(['/', '.'])
        .map_or("", |(service, _)| service);
    let is_method = name.starts_with('/')
        || names().any(|service| service == of_service)
        || closest::of(of_service, names()).is_some();
    if !is_method || closest::of(name, names()).is_some() {
        return services::service(all, name).cloned();
    }
    let (service, method) = services::method(all, name)?;
    let mut part = service.clone();
    part.methods = vec![method.clone()];
    let used = used_by(method, &service.types);
    part.types = Types::new();
    for (name, definition) in service
        .types
        .iter()
        .filter(|(name, _)| used.contains(*name))
    {
        part.types.insert(name, definition.clone());
    }
    Ok(part)
}

/// Returns the names of the types that a method uses.
fn used_by(method: &Method, types: &Types) -> BTreeSet<String> {
    let args = method.args.iter().map(|arg| &arg.ty);
    let errors = method.error.iter().chain(&method.stream_error);
    let others = method.requests.iter().chain(errors);
    let mut todo: Vec<&Type> = args.chain([&method.result]).chain(others).collect();
    let mut used = BTreeSet::new();
    while let Some(ty) = todo.pop() {
        if let Type::Named(name) = ty
            && used.insert(name.clone())
            && let Some(definition) = types.get(name)
        {
            todo.extend(definition.parts());
        }
        todo.extend(ty.parts());
    }
    used
}

/// Returns a text as a Rust string literal.
fn literal(text: &str) -> String {
    // The printable text has no characters that JSON and Rust escape differently.
    json!(iip_core::Printable(text).to_string()).to_string()
}
