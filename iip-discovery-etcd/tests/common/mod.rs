//! The helpers that the tests share.

pub(crate) mod etcd;
pub(crate) mod fake;

use std::future::poll_fn;
use std::time::Duration;

use iip_core::balance::BackendInfo;
use iip_core::discover::{Discover, DiscoverError, Snapshot, SnapshotStream};
use iip_discovery_etcd::{Etcd, EtcdBuilder};

/// A time limit that only turns a hang into a failure.
pub(crate) const GUARD: Duration = Duration::from_secs(60);

/// Runs `future` for at most [`GUARD`].
pub(crate) async fn guard<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(GUARD, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing within {GUARD:?}"),
    }
}

/// Polls `condition` until it is true.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    guard(what, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// The prefix of the keys in the tests.
pub(crate) const PREFIX: &str = "/services/orders";

/// The settings of a test at these ports.
pub(crate) fn builder(ports: &[u16]) -> EtcdBuilder {
    Etcd::builder()
        .members(ports.iter().map(|port| format!("127.0.0.1:{port}")))
        .prefix(PREFIX)
}

pub(crate) fn info(id: &str) -> BackendInfo {
    BackendInfo::new("10.0.0.1:7000".parse().unwrap()).id(id)
}

/// A stream of snapshots under test.
pub(crate) struct Watching {
    stream: SnapshotStream,
    /// The errors that were received.
    pub(crate) errors: Vec<String>,
}

impl Watching {
    pub(crate) fn new(etcd: &Etcd) -> Self {
        Self {
            stream: etcd.watch(),
            errors: Vec::new(),
        }
    }

    pub(crate) async fn next(&mut self) -> Result<Snapshot, DiscoverError> {
        let next = poll_fn(|cx| self.stream.as_mut().poll_next(cx));
        guard("the next item", next)
            .await
            .expect("the stream never ends")
    }

    /// Returns an item if there is one already.
    pub(crate) async fn buffered(&mut self) -> Option<Result<Snapshot, DiscoverError>> {
        let next = poll_fn(|cx| self.stream.as_mut().poll_next(cx));
        tokio::time::timeout(Duration::ZERO, next)
            .await
            .ok()
            .flatten()
    }

    /// Returns the next snapshot; keeps the errors before it.
    pub(crate) async fn snapshot(&mut self) -> Snapshot {
        loop {
            match self.next().await {
                Ok(snapshot) => return snapshot,
                Err(error) => self.errors.push(error.to_string()),
            }
        }
    }

    /// Returns the next error; skips snapshots.
    pub(crate) async fn error(&mut self) -> String {
        loop {
            if let Err(error) = self.next().await {
                return error.to_string();
            }
        }
    }

    /// Waits for a snapshot with exactly these ids.
    pub(crate) async fn until(&mut self, ids: &[&str]) -> Snapshot {
        let mut latest = Vec::new();
        let wait = async {
            loop {
                let snapshot = self.snapshot().await;
                latest = ids_of(&snapshot);
                if latest == ids {
                    return snapshot;
                }
            }
        };
        let result = tokio::time::timeout(GUARD, wait).await;
        result.unwrap_or_else(|_| panic!("{ids:?} expected, {latest:?} is the latest"))
    }
}

pub(crate) fn ids_of(snapshot: &Snapshot) -> Vec<String> {
    snapshot
        .backends
        .iter()
        .map(|info| info.id.to_string())
        .collect()
}
