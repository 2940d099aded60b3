//! The sources of the page: servers, clients and gateways.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use iip_core::stats::{MethodStats, RecentCall, Snapshot};
use iip_core::{Client, Explanation, ServerObserver};

use super::wire::Kind;
use crate::worker::Workers;

/// A server or a client of this process.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) kind: Kind,
    pub(super) name: String,
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    Server(ServerObserver),
    Client(Client),
    /// The clients of a group of a gateway, one per worker.
    Group(Arc<Workers>, Arc<str>),
}

/// The counts of a source until now, and its state.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) stats: Snapshot,
    /// The backends of a client, with their states.
    pub(super) explanation: Option<Explanation>,
    pub(super) calls: Vec<RecentCall>,
}

impl Source {
    pub(super) fn server(name: String, server: ServerObserver) -> Self {
        Self {
            kind: Kind::Server,
            name,
            origin: Origin::Server(server),
        }
    }

    pub(super) fn client(name: String, client: Client) -> Self {
        Self {
            kind: Kind::Client,
            name,
            origin: Origin::Client(client),
        }
    }

    pub(super) fn group(workers: Arc<Workers>, group: Arc<str>) -> Self {
        Self {
            kind: Kind::Client,
            name: group.to_string(),
            origin: Origin::Group(workers, group),
        }
    }

    pub(super) fn set_slow_call(&self, slow: Duration) {
        match &self.origin {
            Origin::Server(server) => server.set_slow_call(slow),
            Origin::Client(client) => client.set_slow_call(slow),
            Origin::Group(workers, group) => {
                workers
                    .clients(group)
                    .iter()
                    .for_each(|client| client.set_slow_call(slow));
            }
        }
    }

    /// Reads the source. `None` if there is nothing to read: a group of a gateway that serves
    /// nowhere yet.
    pub(super) fn read(&self) -> Option<Reading> {
        match &self.origin {
            Origin::Server(server) => Some(Reading {
                stats: server.stats(),
                explanation: None,
                calls: server.recent_calls(),
            }),
            Origin::Client(client) => Some(read_client(client)),
            Origin::Group(workers, group) => {
                let clients = workers.clients(group);
                clients.iter().map(read_client).reduce(merged)
            }
        }
    }
}

fn read_client(client: &Client) -> Reading {
    Reading {
        stats: client.stats(),
        explanation: Some(client.explain()),
        calls: client.recent_calls(),
    }
}

/// Returns the reading of two clients with the same backends.
fn merged(mut one: Reading, other: Reading) -> Reading {
    let (stats, more) = (&mut one.stats, other.stats);
    let mut places: HashMap<Arc<str>, usize> = HashMap::new();
    for (place, method) in stats.methods.iter().enumerate() {
        places.insert(Arc::clone(&method.path), place);
    }
    for method in more.methods {
        let known = places.get(&method.path);
        let known: Option<&mut MethodStats> = known.and_then(|&place| stats.methods.get_mut(place));
        match known {
            Some(known) => known.merge(&method),
            None => stats.methods.push(method),
        }
    }
    stats.connections.open += more.connections.open;
    stats.connections.list.extend(more.connections.list);
    // Each client judges the backend separately. The worse verdict is shown.
    if let (Some(known), Some(more)) = (&mut one.explanation, other.explanation) {
        for backend in more.backends {
            let same = known
                .backends
                .iter_mut()
                .find(|known| known.id == backend.id);
            match same {
                Some(same) => {
                    let in_flight = same.in_flight.saturating_add(backend.in_flight);
                    if backend.reasons.len() > same.reasons.len() {
                        *same = backend;
                    }
                    same.in_flight = in_flight;
                }
                None => known.backends.push(backend),
            }
        }
    }
    one.calls.extend(other.calls);
    one.calls.sort_by_key(|call| std::cmp::Reverse(call.at));
    one
}
