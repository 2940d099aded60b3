//! `iq health`.

use iip_rpc::{HealthClient, HealthState};
use serde_json::json;

use crate::args::HealthArgs;
use crate::connection::ConnectArgs;
use crate::exit::{Failure, Outcome};
use crate::output::Output;

/// Asks for the health of a server or a service.
pub(crate) async fn run(args: &HealthArgs, connect: &ConnectArgs, output: &Output) -> Outcome {
    let connection = connect.connect(&args.target, output).await?;
    let service = args.service.as_deref().unwrap_or_default();
    if !args.watch {
        let health = HealthClient::new(connection.within_time());
        let state = health.check(service).await?;
        print(service, state, output)?;
        return verdict(service, state);
    }
    let health = HealthClient::new(connection.client.clone());
    let mut states = health.watch(service).await?;
    let mut last = HealthState::Unknown;
    while let Some(state) = states.next().await {
        last = state?;
        print(service, last, output)?;
    }
    verdict(service, last)
}

fn print(service: &str, state: HealthState, output: &Output) -> Outcome {
    let name = match state {
        HealthState::Serving => "SERVING",
        HealthState::NotServing => "NOT_SERVING",
        _ => "UNKNOWN",
    };
    output.either("health", json!({"service": service, "state": name}), name)
}

fn verdict(service: &str, state: HealthState) -> Outcome {
    match (state, service) {
        (HealthState::Serving, _) => Ok(()),
        (_, "") => Err(Failure::Check("the server is not serving".to_owned())),
        _ => Err(Failure::Check(format!("{service} is not serving"))),
    }
}
