//! Completions of the command line, with the services of the server.
//!
//! A shell runs the program with the variable `COMPLETE` and the words of the line. Completion
//! prints no errors: if it fails, it offers nothing.

mod adapter;
mod bash;
mod cache;
mod fish;
mod json;
mod live;
mod words;
mod zsh;

use std::ffi::OsStr;
use std::process::ExitCode;

use clap_complete::engine::{CompletionCandidate, ValueCompleter};
use clap_complete::env::{Elvish, Powershell, Shells};
use clap_complete::{CompleteEnv, PathCompleter};
use iip_rpc::schema::Description;

use self::bash::Bash;
use self::fish::Fish;
use self::zsh::Zsh;
use crate::connection::ConnectArgs;
use crate::place::Place;

/// Returns `true` if a shell asks for completions.
pub(crate) fn requested() -> bool {
    std::env::var_os("COMPLETE").is_some_and(|shell| !shell.is_empty() && shell != "0")
}

/// Prints the completions of `command`, or the script that makes a shell ask for them.
pub(crate) fn run(command: fn() -> clap::Command) -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    let folder = std::env::current_dir().ok();
    words::remember(&args, command);
    let completer = CompleteEnv::with_factory(command).shells(Shells(&[
        &Bash,
        &Elvish,
        &Fish,
        &Powershell,
        &Zsh,
    ]));
    match completer.try_complete(args, folder.as_deref()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            // A failure cannot be reported anywhere.
            let _ = error.print();
            ExitCode::from(2)
        }
    }
}

/// Completes a target: the names of the configuration, and files.
pub(crate) fn targets(current: &OsStr) -> Vec<CompletionCandidate> {
    let line = words::given();
    let names = line.connect.unwrap_or_default().names();
    let mut all = candidates(current, names);
    if line.may_be_file {
        all.extend(PathCompleter::any().complete(current));
    }
    all
}

/// Completes a service.
pub(crate) fn services(current: &OsStr) -> Vec<CompletionCandidate> {
    let names = described().into_iter().map(|service| service.service);
    candidates(current, names)
}

/// Completes a method: its name with that of its service, or its path.
pub(crate) fn methods(current: &OsStr) -> Vec<CompletionCandidate> {
    let services = described();
    if current.to_string_lossy().starts_with('/') {
        let methods = services.into_iter().flat_map(|service| service.methods);
        return candidates(current, methods.map(|method| method.path));
    }
    candidates(current, method_names(&services))
}

/// Completes a service or a method.
pub(crate) fn services_and_methods(current: &OsStr) -> Vec<CompletionCandidate> {
    let services = described();
    let mut names: Vec<String> = services
        .iter()
        .map(|service| service.service.clone())
        .collect();
    names.extend(method_names(&services));
    candidates(current, names)
}

fn method_names(services: &[Description]) -> Vec<String> {
    let names = services.iter().flat_map(|service| {
        let methods = service.methods.iter();
        methods.map(move |method| format!("{}.{}", service.service, method.name))
    });
    names.collect()
}

/// Completes the arguments of a call: `name=`, the names in JSON, or `@FILE`.
pub(crate) fn arguments(current: &OsStr) -> Vec<CompletionCandidate> {
    let given = words::given();
    let (Some(current), Some(name)) = (current.to_str(), given.method) else {
        return Vec::new();
    };
    // zsh and fish pass a word together with an unclosed quote.
    let current = current.strip_prefix(['\'', '"']).unwrap_or(current);
    if let Some(file) = current.strip_prefix('@') {
        let files = PathCompleter::file().complete(OsStr::new(file));
        return files.into_iter().map(|file| file.add_prefix("@")).collect();
    }
    let services = described();
    let Ok((service, method)) = crate::services::method(&services, &name) else {
        return Vec::new();
    };
    if current.trim_start().starts_with('{') {
        return json::complete(current, method, &service.types)
            .into_iter()
            .map(CompletionCandidate::new)
            .collect();
    }
    let place = Place::Arguments(method);
    // The names of lists may be repeated.
    let is_free = |name: &str| {
        place.named(name, &service.types).is_list(&service.types)
            || !given.args.iter().any(|pair| first_name(pair) == name)
    };
    let names = place.names(&service.types).into_iter();
    let pairs = names
        .filter(|name| is_free(name))
        .map(|name| format!("{name}="));
    candidates(OsStr::new(current), pairs)
}

/// Returns the name at the beginning of a pair, such as `order` in `order.id=7`.
fn first_name(pair: &str) -> &str {
    pair.split(['=', ':', '.']).next().unwrap_or_default()
}

/// Returns the services of the target on the line; empty if they are not known in time.
fn described() -> Vec<Description> {
    let given = words::given();
    let Some(target) = given.target else {
        return Vec::new();
    };
    let connect: ConnectArgs = given.connect.unwrap_or_default();
    live::services(&target, connect)
}

/// Returns the names that begin with what was typed. Names that a shell could interpret, such as
/// those of a hostile server, are left out.
fn candidates(
    current: &OsStr,
    names: impl IntoIterator<Item = String>,
) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    let names = names.into_iter().filter(|name| {
        name.starts_with(&*current) && is_harmless(name.strip_suffix('=').unwrap_or(name))
    });
    names.map(CompletionCandidate::new).collect()
}

/// Returns `true` for names that no shell treats in a special way.
fn is_harmless(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('-')
        && name
            .chars()
            .all(|c| c.is_alphanumeric() || "_.-/".contains(c))
}
