//! `iq diff`.

use iip_rpc::schema::Description;
use iip_rpc::schema::compat::{Encoding, Verdict};

use crate::args::DiffArgs;
use crate::compare::{Finding, Sides, compare};
use crate::connection::ConnectArgs;
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::services;

/// Compares the services of two servers or files.
pub(crate) async fn run(args: &DiffArgs, connect: &ConnectArgs, output: &Output) -> Outcome {
    let a = services::at(&args.a, connect, output).await?;
    let b = services::at(&args.b, connect, output).await?;
    let mut findings = only_in(&a, &b, "only in the first");
    findings.extend(only_in(&b, &a, "only in the second"));
    for (client, server, direction) in [
        (&a, &b, "first calls second"),
        (&b, &a, "second calls first"),
    ] {
        let sides = Sides {
            client,
            server,
            direction,
            may_miss: true,
        };
        findings.extend(compare(sides, &Encoding::ALL, false));
    }
    for finding in &findings {
        output.either("difference", finding, finding)?;
    }
    match findings.len() {
        0 => Ok(()),
        1 => Err(Failure::Check("there is 1 difference".to_owned())),
        n => Err(Failure::Check(format!("there are {n} differences"))),
    }
}

/// Returns the services and methods that only one side has.
fn only_in(these: &[Description], others: &[Description], place: &str) -> Vec<Finding> {
    let finding = |service: &Description, at: &str, what: &str| Finding {
        service: service.service.clone(),
        direction: "",
        codecs: Vec::new(),
        verdict: Verdict::Warn,
        place: at.to_owned(),
        text: format!("{what} is {place}"),
    };
    let mut findings = Vec::new();
    for service in these {
        let Some(other) = others.iter().find(|other| other.service == service.service) else {
            findings.push(finding(service, "", "the service"));
            continue;
        };
        let missing = service.methods.iter();
        for method in missing.filter(|method| other.method_at(&method.path).is_none()) {
            let what = format!("the method `{}` at `{}`", method.name, method.path);
            findings.push(finding(service, &method.name, &what));
        }
    }
    findings
}
