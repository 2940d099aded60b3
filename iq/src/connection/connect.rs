//! Connecting to a target.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use iip_core::balance::Target;
use iip_core::transport::{ConnectFuture, Connector, Endpoint};
use iip_rpc::{Client, ClientBuilder, Code, Status};

use crate::exit::{Failure, Outcome};
use crate::output::Output;

/// Connects, and reports how long each step took, with `--verbose`.
pub(super) async fn connect(
    builder: ClientBuilder,
    target: &Target,
    timeout: Duration,
    output: &Output,
) -> Outcome<Client> {
    let (started, spent) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let connecting = client(builder, target, &spent);
    let connected = tokio::time::timeout(timeout, connecting).await;
    let spent = Duration::from_nanos(spent.load(Ordering::Relaxed));
    let client = connected.unwrap_or_else(|_| {
        let missing = match spent {
            Duration::ZERO => "not connected",
            _ => "the connection was accepted, but the server was not ready",
        };
        let text = format!("{target}: {missing} within {timeout:?} (option --timeout)");
        Err(Failure::NotConnected(text))
    })?;
    let total = started.elapsed();
    match spent {
        // Not measured: the client connects to several backends at a time.
        Duration::ZERO => output.detail(format_args!("connected in {total:.1?}")),
        transport => output.detail(format_args!(
            "connected in {total:.1?}: resolve and connect {transport:.1?}, TLS and hello {:.1?}",
            total.saturating_sub(transport)
        )),
    }
    output.detail(client.explain());
    Ok(client)
}

/// Creates a client that is connected.
async fn client(
    builder: ClientBuilder,
    target: &Target,
    spent: &Arc<AtomicU64>,
) -> Outcome<Client> {
    let connected = match target {
        Target::Single(endpoint) => {
            let connector = TimedEndpoint {
                endpoint: endpoint.clone(),
                spent: Arc::clone(spent),
            };
            builder.connect_with(connector).await
        }
        #[cfg(feature = "etcd")]
        Target::Etcd { .. } => {
            let etcd = iip_discovery_etcd::Etcd::from_target(target);
            let etcd = etcd.map_err(|error| Failure::Usage(error.to_string()))?;
            builder.discover(etcd).await
        }
        #[cfg(not(feature = "etcd"))]
        Target::Etcd { .. } => {
            let text = "this iq was built without etcd: build it with the feature `etcd`";
            return Err(Failure::Usage(text.to_owned()));
        }
        target => builder.connect(target).await,
    };
    connected.map_err(|status| not_connected(target, &status))
}

fn not_connected(target: &Target, status: &Status) -> Failure {
    match status.code() {
        // An option is invalid.
        Code::InvalidArgument => Failure::Usage(status.message().to_owned()),
        _ => {
            let (target, message) = (target.to_string(), status.message());
            Failure::NotConnected(match message.contains(&target) {
                true => message.to_owned(),
                false => format!("{target}: {message}"),
            })
        }
    }
}

/// An endpoint that measures the time to connect.
#[derive(Debug)]
struct TimedEndpoint {
    endpoint: Endpoint,
    /// The time for resolving the name and connecting, in nanoseconds.
    spent: Arc<AtomicU64>,
}

impl Connector for TimedEndpoint {
    fn connect(&self) -> ConnectFuture<'_> {
        Box::pin(async {
            let started = Instant::now();
            let connected = self.endpoint.connect().await;
            let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.spent.store(nanos, Ordering::Relaxed);
            connected
        })
    }

    fn describe(&self) -> String {
        self.endpoint.describe()
    }

    fn host(&self) -> Option<&str> {
        Connector::host(&self.endpoint)
    }
}
