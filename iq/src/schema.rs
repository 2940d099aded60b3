//! `iq schema`: descriptions to keep in a repository, and checks of changes.

use std::path::Path;

use iip_rpc::schema::compat::{Encoding, Verdict};
use iip_rpc::schema::file;
use serde_json::{Value, json};

use crate::args::{CheckArgs, Codecs, Direction};
use crate::compare::{Sides, compare};
use crate::connection::ConnectArgs;
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::plural::counted;
use crate::services;

/// Saves the descriptions of a server.
pub(crate) async fn save(
    target: &str,
    to: Option<&Path>,
    connect: &ConnectArgs,
    output: &Output,
) -> Outcome {
    let connection = connect.connect(target, output).await?;
    let services = services::of_server(&connection.within_time()).await?;
    let text = file::to_text(&services);
    let Some(path) = to else {
        return match output.is_json() {
            true => output.object("schema", json!({ "document": document(&text)? })),
            false => output.bytes(text.as_bytes()),
        };
    };
    let written = std::fs::write(path, text);
    written.map_err(|error| Failure::Own(format!("{}: {error}", path.display())))?;
    if output.is_json() {
        return output.object("saved", json!({"file": path, "services": services.len()}));
    }
    let saved = counted(services.len() as u64, "service");
    output.note(format_args!("saved {saved} in {}", path.display()));
    Ok(())
}

/// Returns the text of a file as a value.
fn document(text: &str) -> Outcome<Value> {
    serde_json::from_str(text)
        .map_err(|error| Failure::Own(format!("the descriptions are not JSON: {error}")))
}

/// Checks that two builds understand each other.
pub(crate) async fn check(args: &CheckArgs, connect: &ConnectArgs, output: &Output) -> Outcome {
    let old = services::at(&args.old, connect, output).await?;
    let new = services::at(&args.new, connect, output).await?;
    let (codecs, any): (&[Encoding], bool) = match args.codec {
        Codecs::Positional => (&[Encoding::Bincode, Encoding::Postcard], false),
        Codecs::Named => (&[Encoding::MessagePack, Encoding::Json], false),
        Codecs::Any => (&Encoding::ALL, true),
    };
    let old_calls_new = Sides {
        client: &old,
        server: &new,
        direction: "old client, new server",
        may_miss: false,
    };
    let new_calls_old = Sides {
        client: &new,
        server: &old,
        direction: "new client, old server",
        may_miss: true,
    };
    let mut findings = Vec::new();
    if args.direction != Direction::Client {
        findings.extend(compare(old_calls_new, codecs, any));
    }
    if args.direction != Direction::Server {
        findings.extend(compare(new_calls_old, codecs, any));
    }
    // A type that is unknown is unknown in every build, so it does not fail the check.
    let shown = findings
        .iter()
        .filter(|finding| finding.verdict >= Verdict::Warn);
    let count = |verdict| {
        let found = shown.clone().filter(|finding| finding.verdict == verdict);
        found.count() as u64
    };
    for finding in shown.clone() {
        output.either("difference", finding, finding)?;
    }
    let mut failures = Vec::new();
    match count(Verdict::Incompatible) {
        0 => {}
        1 => failures.push("1 difference is not compatible".to_owned()),
        n => failures.push(format!("{n} differences are not compatible")),
    }
    if let warnings @ 1.. = count(Verdict::Warn)
        && args.deny_warnings
    {
        let warnings = counted(warnings, "warning");
        failures.push(format!("{warnings} (option --deny-warnings)"));
    }
    match failures.is_empty() {
        true => Ok(()),
        false => Err(Failure::Check(failures.join(", "))),
    }
}
