//! The entry of a server.

use std::sync::Arc;
use std::time::Duration;

use iip_core::balance::BackendInfo;
use iip_core::discover::{BoxFuture, DiscoverError, Registration};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::answer::blob;
use crate::backoff::Backoff;
use crate::client::Client;
use crate::failure::Failure;
use crate::http::within;
use crate::keys::Prefix;
use crate::value::{read_backend, write_backend};

/// A request to remove the entry, and where to answer it. If it is dropped, nobody waits.
type Stop = oneshot::Sender<oneshot::Sender<Result<(), Failure>>>;

/// Lists a server. A task renews the entry, and removes it when the registration ends.
pub(crate) async fn register(
    client: Arc<Client>,
    prefix: Arc<Prefix>,
    info: BackendInfo,
) -> Result<Box<dyn Registration>, DiscoverError> {
    if info.id.is_empty() {
        return Err(DiscoverError::new(
            "the id of the server is empty: set `BackendInfo::id`",
        ));
    }
    let value = write_backend(&info).map_err(DiscoverError::new)?;
    // Otherwise every client would skip the entry.
    if let Err(reason) = read_backend(info.id.as_bytes(), value.as_bytes()) {
        return Err(DiscoverError::new(format!(
            "the description of the server `{}` is not valid: {reason}",
            info.id
        )));
    }
    let entry = Entry {
        key: prefix.key(&info.id),
        value,
        lease: 0,
        ttl: client.settings.lease_ttl,
        client,
    };
    let (stop, stopped) = oneshot::channel();
    let (ready, listed) = oneshot::channel();
    tokio::spawn(entry.run(ready, stopped));
    match listed.await {
        Ok(Ok(())) => Ok(Box::new(EtcdRegistration { stop })),
        Ok(Err(failure)) => Err(failure.into()),
        Err(_) => Err(DiscoverError::new("the runtime is shutting down")),
    }
}

struct EtcdRegistration {
    stop: Stop,
}

impl Registration for EtcdRegistration {
    fn deregister(self: Box<Self>) -> BoxFuture<'static, Result<(), DiscoverError>> {
        Box::pin(async move {
            let (answer, removed) = oneshot::channel();
            // If the task has ended, so has the runtime, and the entry expires.
            let _ = self.stop.send(answer);
            match removed.await {
                Ok(result) => result.map_err(DiscoverError::from),
                Err(_) => Err(DiscoverError::new("the runtime is shutting down")),
            }
        })
    }
}

struct Entry {
    client: Arc<Client>,
    key: String,
    value: String,
    /// The lease to which the key is bound, or will be; 0 if there is none.
    lease: i64,
    ttl: Duration,
}

impl Entry {
    async fn run(
        mut self,
        ready: oneshot::Sender<Result<(), Failure>>,
        mut stopped: oneshot::Receiver<oneshot::Sender<Result<(), Failure>>>,
    ) {
        let stop = tokio::select! {
            stop = &mut stopped => stop.ok(),
            () = self.keep(ready) => None,
        };
        // The request that was interrupted may still arrive. If it binds the key to the lease
        // after that is revoked, etcd rejects it.
        let result = self.revoke().await;
        if let Err(failure) = &result {
            tracing::warn!(
                key = %self.key, %failure,
                "a server cannot be removed from etcd: its entry expires after {:?}", self.ttl
            );
        }
        if let Some(answer) = stop {
            let _ = answer.send(result);
        }
    }

    /// Lists the server, and renews the entry. Ends only if the first attempt fails.
    async fn keep(&mut self, ready: oneshot::Sender<Result<(), Failure>>) {
        if let Err(failure) = self.list().await {
            let _ = ready.send(Err(failure));
            return;
        }
        tracing::debug!(key = %self.key, "the server is listed in etcd");
        if ready.send(Ok(())).is_err() {
            // The caller is gone, so the stop is about to arrive.
            return std::future::pending().await;
        }
        let mut backoff = Backoff::default();
        let mut listed = true;
        loop {
            sleep(self.pause()).await;
            while let Err(failure) = self.renew(&mut listed).await {
                if backoff.failures() == 0 {
                    tracing::warn!(
                        key = %self.key, %failure,
                        "the entry of the server in etcd cannot be renewed, trying again"
                    );
                }
                sleep(backoff.next(failure.is_denial(), fastrand::f64())).await;
            }
            if backoff.failures() > 0 {
                tracing::info!(key = %self.key, "the entry of the server in etcd is renewed again");
                backoff.reset();
            }
        }
    }

    /// Renews the lease. If etcd has lost it, lists the server again.
    async fn renew(&mut self, listed: &mut bool) -> Result<(), Failure> {
        if *listed {
            let body = json!({"ID": self.lease.to_string()});
            let answer = self.call("/v3/lease/keepalive", &body).await;
            *listed = match answer {
                Ok(answer) => answer.ttl.0 > 0,
                Err(failure) if failure.is_not_found() => false,
                Err(failure) => return Err(failure),
            };
            if *listed {
                return Ok(());
            }
            tracing::warn!(key = %self.key, "etcd has lost the server, which is listed again");
        }
        self.list().await?;
        *listed = true;
        Ok(())
    }

    /// Gets a lease, and binds the key to it.
    async fn list(&mut self) -> Result<(), Failure> {
        // etcd counts whole seconds.
        let seconds = self.client.settings.lease_ttl.as_millis().div_ceil(1000);
        let granted = self
            .call("/v3/lease/grant", &json!({"TTL": seconds.to_string()}))
            .await?;
        let ttl = match u64::try_from(granted.ttl.0) {
            Ok(ttl @ 1..) if granted.id.0 != 0 => ttl,
            _ => {
                return Err(Failure::Bad(
                    "etcd sent a lease without an id or a TTL".to_owned(),
                ));
            }
        };
        self.lease = granted.id.0;
        self.ttl = Duration::from_secs(ttl);
        let body = json!({
            "key": blob(&self.key),
            "value": blob(&self.value),
            "lease": self.lease.to_string(),
        });
        self.call("/v3/kv/put", &body).await.map(drop)
    }

    async fn revoke(&self) -> Result<(), Failure> {
        if self.lease == 0 {
            return Ok(());
        }
        let body = json!({"ID": self.lease.to_string()});
        // After the TTL, the entry has expired anyway.
        match within(self.ttl, self.call("/v3/lease/revoke", &body)).await {
            Err(failure) if !failure.is_not_found() => Err(failure),
            _ => Ok(()),
        }
    }

    /// Sends a request, with less time for each member than the lease lasts.
    async fn call(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<crate::answer::Answer, Failure> {
        let timeout = self.client.settings.request_timeout.min(self.pause());
        self.client.call(path, body, timeout).await
    }

    /// Returns the time between two renewals.
    fn pause(&self) -> Duration {
        // A hostile TTL must not stop the renewals.
        (self.ttl / 3).clamp(Duration::from_millis(300), Duration::from_secs(3600))
    }
}
