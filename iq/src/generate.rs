//! `iq gen`: documents and clients from the descriptions of services.

use iip_rpc::schema::openapi::OpenApi;
use iip_rpc::schema::{Description, file};
use serde_json::Value;

use crate::args::GenCommand;
use crate::connection::ConnectArgs;
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::{services, typescript};

/// Generates a document or a client.
pub(crate) async fn run(command: &GenCommand, connect: &ConnectArgs, output: &Output) -> Outcome {
    let (target, service) = match command {
        GenCommand::Openapi { target, service } => (target, service),
        GenCommand::Ts(args) => return typescript::run(args, connect, output).await,
    };
    let all = services::at(target, connect, output).await?;
    match service {
        None => openapi(&all, output),
        Some(name) => openapi([services::service(&all, name)?], output),
    }
}

/// Prints an OpenAPI document of services.
pub(crate) fn openapi<'a>(
    services: impl IntoIterator<Item = &'a Description>,
    output: &Output,
) -> Outcome {
    let services = file::sorted(services);
    let title = match &*services {
        [only] => only.service.clone(),
        _ => "services".to_owned(),
    };
    let document = services
        .iter()
        .fold(OpenApi::new(title, "1.0"), OpenApi::service)
        .build();
    if let Some(Value::Array(left_out)) = document.get("x-iip-left-out") {
        for reason in left_out {
            output.note(format_args!("left out: {reason}"));
        }
    }
    if output.is_json() {
        return output.object("openapi", serde_json::json!({ "document": document }));
    }
    let text = serde_json::to_string_pretty(&document);
    output.line(text.map_err(|error| Failure::Own(error.to_string()))?)
}
