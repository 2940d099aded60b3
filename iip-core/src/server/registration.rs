//! The entries of a server in registries: made in the background once it listens, and removed when
//! it shuts down.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::balance::BackendInfo;
use crate::discover::{DiscoverError, Register};
use crate::error::ConfigError;
use crate::random;
use crate::transport::Endpoint;

/// Pauses between attempts to register: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Time that a registry has to list the server, after which the attempt counts as failed.
const ATTEMPT_TIME: Duration = Duration::from_secs(30);

/// A registry, and what it is to list; `None`: the address that the server listens on.
pub(super) struct Entry {
    pub(super) registry: Arc<dyn Register>,
    pub(super) info: Option<BackendInfo>,
}

/// The registrations of a running server.
#[derive(Debug)]
pub(super) struct Registrations {
    /// Set once the server is to be removed from all registries.
    ended: watch::Sender<bool>,
    /// Number of registries that do not list the server yet.
    missing: watch::Sender<usize>,
    tasks: Mutex<JoinSet<()>>,
    count: usize,
}

impl Registrations {
    /// Begins to register, in the background.
    pub(super) fn start(entries: Vec<(Arc<dyn Register>, BackendInfo)>) -> Self {
        let count = entries.len();
        let (ended, missing) = (watch::Sender::new(false), watch::Sender::new(count));
        let mut tasks = JoinSet::new();
        for (registry, info) in entries {
            tasks.spawn(keep_registered(
                registry,
                info,
                missing.clone(),
                ended.subscribe(),
            ));
        }
        Self {
            ended,
            missing,
            tasks: Mutex::new(tasks),
            count,
        }
    }

    /// Returns `true` if the server has no registry.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Waits until all registries list the server, or no longer shall.
    pub(super) async fn all_listed(&self) {
        let (mut missing, mut ended) = (self.missing.subscribe(), self.ended.subscribe());
        // The senders are in `self`, so waiting cannot fail.
        tokio::select! {
            biased;
            _ = missing.wait_for(|&missing| missing == 0) => {}
            _ = ended.wait_for(|&ended| ended) => {}
        }
    }

    /// Removes the server from all registries, at most for `limit`. Entries that are left then are
    /// dropped, which ends them without waiting.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, so are the entries that are left.
    pub(super) async fn end(&self, limit: Duration) {
        self.ended.send_replace(true);
        let mut tasks = {
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tasks)
        };
        let all = async {
            while let Some(ended) = tasks.join_next().await {
                if let Err(error) = ended {
                    tracing::warn!(%error, "a registration ended with a panic");
                }
            }
        };
        if tokio::time::timeout(limit, all).await.is_err() {
            let left = tasks.len();
            tracing::warn!(
                left,
                ?limit,
                "registries did not confirm in time that the server was removed; its entries expire"
            );
        }
    }
}

/// Keeps one entry, from the first attempt to its removal.
async fn keep_registered(
    registry: Arc<dyn Register>,
    info: BackendInfo,
    missing: watch::Sender<usize>,
    mut ended: watch::Receiver<bool>,
) {
    let name = registry.describe();
    let mut pause = FIRST_PAUSE;
    let mut last = None;
    let registration = loop {
        // An attempt is not interrupted: the registry may already have listed the server.
        let attempt = tokio::time::timeout(ATTEMPT_TIME, registry.register(info.clone())).await;
        let error = match attempt {
            Ok(Ok(registration)) => break registration,
            Ok(Err(error)) => error,
            Err(_) => DiscoverError::new(format!("no reply within {ATTEMPT_TIME:?}")),
        };
        let text = error.to_string();
        if last.as_ref() != Some(&text) {
            tracing::warn!(
                registry = name, id = &*info.id, error = %text,
                "cannot register the server; it serves those who know its address, and tries again"
            );
            last = Some(text);
        }
        // Servers that were started together should not try together.
        let jitter = 0.8 + 0.4 * random::random_fraction();
        tokio::select! {
            biased;
            // Fails only if the server has gone.
            _ = ended.wait_for(|&ended| ended) => return,
            () = tokio::time::sleep(pause.mul_f64(jitter)) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    };
    tracing::info!(
        registry = name, id = &*info.id, endpoint = %info.endpoint,
        "the server is registered"
    );
    missing.send_modify(|missing| *missing = missing.saturating_sub(1));
    if ended.wait_for(|&ended| ended).await.is_err() {
        return;
    }
    match registration.deregister().await {
        Ok(()) => tracing::info!(
            registry = name,
            id = &*info.id,
            "the server is deregistered"
        ),
        Err(error) => tracing::warn!(
            registry = name, id = &*info.id, %error,
            "cannot deregister the server; its entry expires"
        ),
    }
}

/// Completes the description of the server by the address that it listens on, in which clients can
/// connect to it. `listening` is that address as a text.
pub(super) fn advertised(
    info: Option<BackendInfo>,
    local: Option<SocketAddr>,
    listening: &str,
) -> Result<BackendInfo, ConfigError> {
    let wrong = |reason: String| Err(ConfigError::new("register", reason));
    let Some(mut info) = info else {
        let endpoint = match local {
            Some(addr) if addr.ip().is_unspecified() => {
                return wrong(format!(
                    "the server listens on {listening}, which is not an address that clients can \
                     connect to: write the address to register, such as \
                     `BackendInfo::new(\"10.0.0.7:0\".parse()?)`, where port 0 means that of the \
                     server"
                ));
            }
            Some(addr) => tcp(addr.ip().to_string(), addr.port()),
            None => match listening.parse() {
                Ok(endpoint) => endpoint,
                Err(_) => return wrong(format!("{listening} is not an address to register")),
            },
        };
        return Ok(BackendInfo::new(endpoint));
    };
    if let Endpoint::Tcp { host, port } = &info.endpoint {
        if host.parse().is_ok_and(|addr: IpAddr| addr.is_unspecified()) {
            return wrong(format!(
                "clients cannot connect to {}: write the address of this machine to register",
                info.endpoint
            ));
        }
        if *port == 0 {
            let Some(local) = local else {
                return wrong(format!(
                    "{} has no port, and the server listens on {listening}, which has none either",
                    info.endpoint
                ));
            };
            let endpoint = tcp(host.clone(), local.port());
            // Unless it was set, the id is the address.
            if *info.id == *info.endpoint.to_string() {
                info.id = endpoint.to_string().into();
            }
            info.endpoint = endpoint;
        }
    }
    Ok(info)
}

fn tcp(host: String, port: u16) -> Endpoint {
    Endpoint::Tcp { host, port }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(endpoint: &str) -> BackendInfo {
        BackendInfo::new(endpoint.parse().expect("an address"))
    }

    #[test]
    fn the_address_to_register_is_completed_by_that_of_the_listener() {
        let local: SocketAddr = "10.0.0.7:7000".parse().expect("an address");
        let everywhere = Some("0.0.0.0:7000".parse().expect("an address"));
        let table = [
            (None, Some(local), "10.0.0.7:7000", "10.0.0.7:7000"),
            (None, None, "unix:/run/orders", "unix:/run/orders"),
            (Some(info("h:0")), everywhere, "0.0.0.0:7000", "h:7000"),
            (Some(info("h:1")), everywhere, "0.0.0.0:7000", "h:1"),
            (Some(info("unix:/a")), None, "unix:/run/b", "unix:/a"),
        ];
        for (info, local, listening, expected) in table {
            let info = advertised(info, local, listening).expect("an address");
            assert_eq!(info.endpoint.to_string(), expected);
            assert_eq!(&*info.id, expected);
        }
        let named = info("h:0").id("orders-1").weight(7);
        let named = advertised(Some(named), everywhere, "").expect("an address");
        assert_eq!((&*named.id, named.weight), ("orders-1", 7));
        let v6 = Some("[2001:db8::1]:7000".parse().expect("an address"));
        let v6 = advertised(None, v6, "").expect("an address");
        assert_eq!(v6.endpoint.to_string(), "[2001:db8::1]:7000");
    }

    #[test]
    fn an_address_that_clients_cannot_connect_to_is_rejected() {
        let everywhere: SocketAddr = "0.0.0.0:7000".parse().expect("an address");
        let v6: SocketAddr = "[::]:7000".parse().expect("an address");
        let table = [
            (None, Some(everywhere), "write the address to register"),
            (None, Some(v6), "write the address to register"),
            (
                Some(info("0.0.0.0:7")),
                Some(everywhere),
                "cannot connect to 0.0.0.0:7",
            ),
            (Some(info("[::]:0")), Some(v6), "cannot connect to [::]:0"),
            (Some(info("h:0")), None, "h:0 has no port"),
            (None, None, "memory is not an address"),
        ];
        for (info, local, expected) in table {
            let error = advertised(info, local, "memory").expect_err(expected);
            let error = error.to_string();
            assert!(error.contains("register"), "{error}");
            assert!(error.contains(expected), "{error}");
        }
    }
}
