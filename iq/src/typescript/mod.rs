//! `iq gen ts`: a TypeScript client for the HTTP interface of services.
//!
//! The file has three parts: the types of the services and a class for each service, which are
//! generated here; the runtime, which is the same in every file; and a table of readers, which
//! convert JSON values to values of the types.

mod layout;
mod objects;
mod readers;
mod service;
mod text;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::{Args, ValueHint};
use clap_complete::engine::ArgValueCompleter;
use iip_rpc::schema::openapi::component_keys;
use iip_rpc::schema::{Description, Method, file};
use serde_json::json;

use self::layout::object;
use self::readers::{Readers, reached};
use self::service::Writer;
use self::text::{Unique, line, type_name};
use self::types::{At, Named};
use crate::complete;
use crate::connection::ConnectArgs;
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::services;

/// The runtime, which is the same in every file.
const RUNTIME: &str = concat!(
    include_str!("runtime/interface.ts"),
    "\n",
    include_str!("runtime/client.ts"),
    "\n",
    include_str!("runtime/exchange.ts"),
    "\n",
    include_str!("runtime/json.ts"),
    "\n",
    include_str!("runtime/read.ts"),
);

/// Generate a TypeScript client that calls the services over HTTP.
///
/// The client is a single file without dependencies, for browsers and for Node 18 or later.
#[derive(Args, Debug)]
pub(crate) struct TsArgs {
    /// A target, or a file of `iq schema save`.
    #[arg(value_hint = ValueHint::AnyPath, add = ArgValueCompleter::new(complete::targets))]
    target: String,
    /// The service; all services if it is left out.
    #[arg(add = ArgValueCompleter::new(complete::services))]
    service: Option<String>,
    /// Write to this file instead of stdout.
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
}

/// Generates a client.
pub(crate) async fn run(args: &TsArgs, connect: &ConnectArgs, output: &Output) -> Outcome {
    let all = services::at(&args.target, connect, output).await?;
    let chosen = match &args.service {
        None => file::sorted(&all),
        Some(name) => file::sorted([services::service(&all, name)?]),
    };
    let (text, left_out) = generate(&chosen.iter().collect::<Vec<_>>());
    for reason in left_out {
        output.note(format_args!("left out: {reason}"));
    }
    if let Some(path) = &args.output {
        let written = std::fs::write(path, text);
        written.map_err(|error| Failure::Own(format!("{}: {error}", path.display())))?;
        return match output.is_json() {
            true => output.object("saved", json!({"file": path, "services": chosen.len()})),
            false => Ok(()),
        };
    }
    match output.is_json() {
        true => output.object("typescript", json!({ "text": text })),
        false => output.bytes(text.as_bytes()),
    }
}

/// Returns the text of a client, and the methods that are left out, with the reasons.
fn generate(services: &[&Description]) -> (String, Vec<String>) {
    let mut names = Unique::without(taken());
    let mut by_key = BTreeMap::new();
    let (mut types, mut classes) = (String::new(), String::new());
    let (mut errors, mut written) = (BTreeSet::new(), BTreeSet::new());
    let (mut table, mut left_out) = (Vec::new(), Vec::new());
    for (service, keys) in services.iter().zip(component_keys(services)) {
        let own = keys.into_iter().map(|(name, key)| {
            let own = by_key.entry(key);
            let own = own.or_insert_with_key(|key| names.claim(type_name(key)));
            (name, own.clone())
        });
        let named = Named::new(&service.types, own.collect());
        let readers = Readers::new(&named);
        let writer = Writer {
            named: &named,
            readers: &readers,
        };
        let sent = service.methods.iter().flat_map(Method::parts).collect();
        let used = reached(&service.types, sent);
        let used = service.types.iter().filter(|(name, _)| used.contains(name));
        for (name, definition) in used {
            let own = named.name(name, At::default()).unwrap_or_default();
            if written.insert(own.to_owned()) {
                types.push('\n');
                types.push_str(&named.definition(name, definition));
                table.extend(readers.definition(name, definition));
            }
        }
        for method in &service.methods {
            let both = [&method.error, &method.stream_error];
            let both = both.map(|error| writer.error_name(error.as_ref()));
            errors.extend(both.into_iter().flatten().map(str::to_owned));
        }
        if named.is_full() {
            left_out.push(format!("{}: some of its many types", service.service));
        }
        let class = service.service.rsplit('.').next().unwrap_or_default();
        let class = names.claim(format!("{}Client", type_name(class)));
        classes.push_str(&writer.class(&class, service, &mut left_out));
    }
    let mut out = head(services);
    out.push_str(&types);
    errors.iter().for_each(|error| out.push_str(&guard(error)));
    out.push_str(&classes);
    out.push_str(
        "\n// What follows is the same in every generated client, except for the end.\n\n",
    );
    out.push_str(RUNTIME);
    out.push_str("\nconst readers: Record<string, Reader> = ");
    object(table).write(&mut out, 0, 1);
    out.push_str(";\n");
    (out, left_out)
}

/// Returns the comment at the top.
fn head(services: &[&Description]) -> String {
    let mut head = String::from(
        "/* eslint-disable */\n// Generated by `iq gen ts`. Do not edit.\n\
         // The compiler needs the libraries ES2020 and DOM, or later ones.\n",
    );
    for service in services {
        head.push_str(&format!("// Service: {}\n", line(&service.service)));
    }
    head
}

/// Returns the function that gives an error of a method its type.
fn guard(name: &str) -> String {
    format!(
        "\n/** The error of a method that has failed with its own error of this type. */\n\
         export function as{name}(error: unknown): {name} | undefined {{\n  \
         const isOwn = error instanceof RpcError && error.errorType === \"{name}\";\n  \
         return isOwn ? (error.error as {name}) : undefined;\n}}\n"
    )
}

/// Returns the names that types must not have, because the runtime uses them.
fn taken() -> impl Iterator<Item = String> {
    let code = RUNTIME.lines().map(str::trim_start);
    let code = code.filter(|line| !line.starts_with(['/', '*']));
    let words = code.flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    let names = words.filter(|word| word.starts_with(|c: char| c.is_ascii_uppercase()));
    names.map(str::to_owned)
}
