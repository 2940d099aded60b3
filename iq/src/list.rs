//! `iq list`.

use serde_json::json;

use crate::args::ListArgs;
use crate::connection::ConnectArgs;
use crate::exit::Outcome;
use crate::output::Output;
use crate::services;

/// Lists services, or the methods of one.
pub(crate) async fn run(args: &ListArgs, connect: &ConnectArgs, output: &Output) -> Outcome {
    let all = services::at(&args.target, connect, output).await?;
    let Some(name) = &args.service else {
        for service in &all {
            let doc = first_line(&service.doc);
            let value = json!({
                "service": service.service,
                "doc": doc,
                "methods": service.methods.len(),
            });
            output.either("service", value, with_doc(&service.service, doc))?;
        }
        return Ok(());
    };
    let service = services::service(&all, name)?;
    for method in &service.methods {
        let (doc, name) = (first_line(&method.doc), format!("{name}.{}", method.name));
        let value = json!({
            "method": name,
            "path": method.path,
            "kind": method.kind,
            "doc": doc,
        });
        output.either("method", value, with_doc(&name, doc))?;
    }
    Ok(())
}

fn first_line(doc: &str) -> &str {
    doc.lines().next().unwrap_or_default().trim()
}

/// Returns a name and, after a tab, its documentation, so that programs can cut it off.
fn with_doc(name: &str, doc: &str) -> String {
    use iip_core::Printable;

    match doc {
        "" => Printable(name).to_string(),
        doc => format!("{}\t{}", Printable(name), Printable(doc)),
    }
}
