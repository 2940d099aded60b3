//! The servers in SRV records, by a resolver that reports TTLs and names that do not exist.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::task::JoinSet;

use super::look_ups::{Answer, Refresh, watch_look_ups};
use super::{Discover, DiscoverError, SnapshotStream};
use crate::balance::{BackendInfo, Target};
use crate::transport::Endpoint;

/// The pause after an answer without a TTL.
const NO_TTL: u32 = 30;

/// The least and the greatest TTL that counts, in seconds.
const TTL: std::ops::RangeInclusive<u32> = 1..=300;

/// Time after which a request to a name server is repeated. A look-up has 5 s in all.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum number of times that a request is repeated.
const REPEATS: usize = 1;

/// Maximum number of requests for the addresses of targets at the same time.
const PARALLEL: usize = 16;

/// Maximum number of backends, as a limit on memory.
const MAX_BACKENDS: usize = 10_000;

/// The servers in the SRV records of a name, such as
/// `_iip._tcp.orders.shop.svc.cluster.local.`.
///
/// Each address of each target is a backend with the port, the priority and the weight of its
/// record; a weight of 0 counts as 1. Its id is `target:port`, so a server that moves to another
/// address keeps its keys; that of a target with several addresses is `target:port/address`.
///
/// The records are looked up again when their TTL, from 1 to 300 s, has passed, with ±10 %; and
/// within a second after [`refresh`](Discover::refresh), but at most once per second. A name that
/// does not exist, or that has no SRV records, is an empty snapshot, if it has its final dot: for
/// other names the search domains are tried, and one of them may fail. Everything else is an error
/// of the stream, with the same pauses as those of [`Dns`](super::Dns).
///
/// ```no_run
/// use iip_core::discover::DnsSrv;
///
/// let source = DnsSrv::new("_iip._tcp.orders.shop.svc.cluster.local.");
/// // The DNS interface of Consul.
/// let consul = DnsSrv::new("orders.service.consul.").name_servers([([127, 0, 0, 1], 8600).into()]);
/// ```
#[derive(Clone, Debug)]
pub struct DnsSrv {
    name: Arc<str>,
    servers: Option<Arc<[SocketAddr]>>,
    refresh: Refresh,
}

impl DnsSrv {
    /// Creates a source of the servers in the SRV records of `name`.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            servers: None,
            refresh: Refresh::default(),
        }
    }

    /// Sets the name servers to ask. Default: those of the operating system, such as in
    /// `/etc/resolv.conf`, which is read before each look-up.
    #[must_use]
    pub fn name_servers(mut self, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.servers = Some(servers.into_iter().collect());
        self
    }
}

impl Discover for DnsSrv {
    fn watch(&self) -> SnapshotStream {
        let (name, servers) = (Arc::clone(&self.name), self.servers.clone());
        watch_look_ups(&self.refresh, move || {
            look_up(Arc::clone(&name), servers.clone())
        })
    }

    fn refresh(&self) {
        self.refresh.ask();
    }

    fn describe(&self) -> String {
        let target = Target::DnsSrv {
            name: self.name.to_string(),
        };
        target.to_string()
    }
}

/// Creates a resolver without a cache: its answers would be older than their TTLs, and a refresh
/// would return them again.
fn resolver(servers: Option<&[SocketAddr]>) -> Result<TokioResolver, NetError> {
    let mut builder = match servers {
        None => TokioResolver::builder_tokio()?,
        Some(servers) => {
            let servers = servers.iter().map(|server| {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
                let connections = connections.map(|mut connection| {
                    connection.port = server.port();
                    connection
                });
                NameServerConfig::new(server.ip(), true, connections.into())
            });
            let config = ResolverConfig::from_name_servers(servers.collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    let options = builder.options_mut();
    options.cache_size = 0;
    options.timeout = options.timeout.min(REQUEST_TIMEOUT);
    options.attempts = options.attempts.min(REPEATS);
    builder.build()
}

async fn look_up(
    name: Arc<str>,
    servers: Option<Arc<[SocketAddr]>>,
) -> Result<Answer, DiscoverError> {
    let failed = |what: &str, error: &NetError| {
        DiscoverError::new(format!(
            "cannot look up the SRV records of `{what}`: {error}"
        ))
    };
    // The files of the operating system are read.
    let resolver = tokio::task::spawn_blocking(move || resolver(servers.as_deref()));
    let resolver = resolver
        .await
        .map_err(DiscoverError::new)?
        .map_err(|error| failed(&name, &error))?;
    let found = match resolver.lookup(&*name, RecordType::SRV).await {
        Ok(found) => found,
        Err(error) => match no_records(&error) {
            Some(none) if name.ends_with('.') => {
                return Ok(Answer {
                    backends: Vec::new(),
                    pause: pause(none.negative_ttl.unwrap_or(NO_TTL)),
                });
            }
            _ => return Err(failed(&name, &error)),
        },
    };

    let mut ttl = u32::MAX;
    let mut records = Vec::new();
    for record in found.answers() {
        if let RData::SRV(srv) = &record.data {
            ttl = ttl.min(record.ttl);
            // A target of `.` says that there is no such service. Source: RFC 2782.
            if !srv.target.is_root() {
                records.push(Record {
                    target: srv.target.to_lowercase(),
                    port: srv.port,
                    priority: srv.priority,
                    weight: srv.weight,
                });
            }
        }
    }
    let targets: HashSet<&Name> = records.iter().map(|record| &record.target).collect();
    let mut addresses: HashMap<Name, Vec<IpAddr>> = HashMap::new();
    for record in found.additionals() {
        let target = record.name.to_lowercase();
        if let Some(ip) = record.data.ip_addr()
            && targets.contains(&target)
        {
            ttl = ttl.min(record.ttl);
            addresses.entry(target).or_default().push(ip);
        }
    }
    let mut missing: Vec<Name> = targets.into_iter().cloned().collect();
    missing.retain(|target| !addresses.contains_key(target));
    ttl = ttl.min(look_up_targets(&resolver, missing, &mut addresses).await?);
    if addresses.is_empty() && !records.is_empty() {
        let text = format!("no target of the SRV records of `{name}` has an address");
        return Err(DiscoverError::new(text));
    }
    let ttl = if ttl == u32::MAX { NO_TTL } else { ttl };
    Ok(Answer {
        backends: backends(host_of(&name), records, &addresses)?,
        pause: pause(ttl),
    })
}

/// Looks up the addresses of targets, and returns the lowest TTL. A target without an address is
/// left out, as a server that is gone.
async fn look_up_targets(
    resolver: &TokioResolver,
    mut targets: Vec<Name>,
    addresses: &mut HashMap<Name, Vec<IpAddr>>,
) -> Result<u32, DiscoverError> {
    let mut ttl = u32::MAX;
    let mut running = JoinSet::new();
    loop {
        while running.len() < PARALLEL
            && let Some(target) = targets.pop()
        {
            let resolver = resolver.clone();
            running.spawn(async move {
                let found = resolver.lookup_ip(target.clone()).await;
                (target, found)
            });
        }
        let Some(ended) = running.join_next().await else {
            return Ok(ttl);
        };
        let (target, found) = ended.map_err(DiscoverError::new)?;
        match found {
            Ok(found) => {
                let records = found.as_lookup().answers().iter();
                ttl = records.map(|record| record.ttl).fold(ttl, u32::min);
                addresses.insert(target, found.iter().collect());
            }
            Err(error) if no_records(&error).is_some() => {
                tracing::debug!(%target, "target of an SRV record without an address");
            }
            Err(error) => {
                let text = format!("cannot look up the addresses of target `{target}`: {error}");
                return Err(DiscoverError::new(text));
            }
        }
    }
}

/// Returns the answer that there is no record, if the error is one.
fn no_records(error: &NetError) -> Option<&NoRecords> {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => matches!(
            none.response_code,
            ResponseCode::NXDomain | ResponseCode::NoError
        )
        .then_some(none),
        _ => None,
    }
}

fn pause(ttl: u32) -> Duration {
    Duration::from_secs(ttl.clamp(*TTL.start(), *TTL.end()).into())
}

/// Returns the name that the certificates of the servers must contain: the name that was asked for
/// without its service and protocol. The targets do not count, because whoever can forge an answer
/// of DNS could name a server of their own. Source: RFC 6125, 6.5.
fn host_of(name: &str) -> Arc<str> {
    let labels = name.trim_end_matches('.').split('.');
    let labels: Vec<_> = labels.skip_while(|label| label.starts_with('_')).collect();
    labels.join(".").into()
}

/// An SRV record.
struct Record {
    target: Name,
    port: u16,
    priority: u16,
    weight: u16,
}

/// Returns a backend for each address of each target, sorted. An address that is there twice has
/// the lower priority number.
fn backends(
    host: Arc<str>,
    records: Vec<Record>,
    addresses: &HashMap<Name, Vec<IpAddr>>,
) -> Result<Vec<BackendInfo>, DiscoverError> {
    let mut backends = Vec::new();
    for record in records {
        let found = addresses.get(&record.target).map_or(&[][..], Vec::as_slice);
        let mut found: Vec<IpAddr> = found.iter().map(IpAddr::to_canonical).collect();
        found.sort_unstable();
        found.dedup();
        let target = record.target.to_string();
        let server = format!("{}:{}", target.trim_end_matches('.'), record.port);
        for ip in &found {
            let id = match found.len() {
                1 => server.clone(),
                _ => format!("{server}/{ip}"),
            };
            let info = BackendInfo::new(SocketAddr::new(*ip, record.port).into())
                .id(id)
                .host(Arc::clone(&host))
                .priority(record.priority.into())
                .weight(u32::from(record.weight).max(1));
            if backends.len() == MAX_BACKENDS {
                let text = format!("the SRV records have more than {MAX_BACKENDS} servers");
                return Err(DiscoverError::new(text));
            }
            backends.push(info);
        }
    }
    backends.sort_by(|a, b| (a.priority, &a.id).cmp(&(b.priority, &b.id)));
    let mut seen: HashSet<Endpoint> = HashSet::new();
    backends.retain(|info| seen.insert(info.endpoint.clone()));
    Ok(backends)
}

#[cfg(test)]
mod tests;
