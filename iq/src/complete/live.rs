//! The services of a live server, if they arrive within the time limit of a completion.

use std::path::Path;
use std::time::Duration;

use iip_rpc::schema::Description;

use super::cache;
use crate::connection::ConnectArgs;
use crate::output::{Output, OutputArgs};
use crate::services;
use crate::time;

/// The time limit for a server, unless the variable sets another.
const LIMIT: Duration = Duration::from_millis(300);

/// The variable with another limit, such as `2s`.
const VARIABLE: &str = "IQ_COMPLETE_TIMEOUT";

/// Returns the services of a target, or of a file; empty if they are not known in time.
pub(super) fn services(target: &str, connect: ConnectArgs) -> Vec<Description> {
    if Path::new(target).is_file() {
        return services::in_file(Path::new(target)).unwrap_or_default();
    }
    let key = format!("{target}\n{connect:?}");
    if let Some(known) = cache::read(&key) {
        return known;
    }
    let limit = std::env::var(VARIABLE).ok();
    let limit = limit
        .and_then(|limit| time::parse(&limit).ok())
        .unwrap_or(LIMIT);
    let Some(services) = ask(target, connect.with_timeout(limit), limit) else {
        return Vec::new();
    };
    cache::write(&key, &services);
    services
}

fn ask(target: &str, connect: ConnectArgs, limit: Duration) -> Option<Vec<Description>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    let output = Output::new(OutputArgs::default());
    let asking = async {
        let connection = connect.connect(target, &output).await.ok()?;
        services::of_server(&connection.within_time()).await.ok()
    };
    let services = runtime.block_on(async { tokio::time::timeout(limit, asking).await });
    // A DNS lookup may take longer, on its own thread.
    runtime.shutdown_background();
    services.ok().flatten()
}
