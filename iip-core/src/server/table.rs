//! The connections of a server, within their limits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use slab::Slab;
use tokio::task::AbortHandle;

use crate::connection::Shared;
use crate::pending::{Network, Pending};

/// Maximum number of evicted connections whose tasks have not ended yet.
const MAX_EVICTED: usize = 256;

/// The connections, including those whose TLS handshake is not complete.
#[derive(Debug)]
pub(super) struct Table {
    /// The accept loop is running.
    pub(super) accepting: bool,
    pub(super) connections: Slab<Entry>,
    /// Number of connections of each peer, without the evicted ones.
    pub(super) peers: HashMap<Network, usize>,
    /// Connections that have not sent a byte of a frame, by their keys.
    pub(super) silent: Pending<usize>,
    /// Number of evicted connections.
    pub(super) evicted: usize,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) shared: Option<Arc<Shared>>,
    pub(super) task: Option<AbortHandle>,
    pub(super) network: Network,
    /// The number of the connection among the silent ones.
    pub(super) silent: Option<u64>,
    /// The connection was evicted to make room for another.
    pub(super) evicted: bool,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            accepting: true,
            connections: Slab::new(),
            peers: HashMap::new(),
            silent: Pending::new(),
            evicted: 0,
        }
    }

    /// Stops counting a connection of this peer.
    pub(super) fn uncount(&mut self, network: Network) {
        if let Some(count) = self.peers.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.peers.remove(&network);
            }
        }
    }

    /// Evicts a connection: it no longer counts, and its task must be aborted.
    pub(super) fn evict(&mut self, key: usize) -> Option<AbortHandle> {
        let entry = self.connections.get_mut(key)?;
        // The entry stays in the table until its task has ended.
        (entry.silent, entry.evicted) = (None, true);
        let (network, task) = (entry.network, entry.task.clone());
        self.evicted += 1;
        self.uncount(network);
        task
    }

    /// Reserves a place for one more connection. Returns its key and the task of the connection
    /// that was evicted for it, or the name of the limit that is reached.
    pub(super) fn admit(
        &mut self,
        network: Network,
        max: usize,
        max_per_peer: usize,
        now: Instant,
    ) -> Result<(usize, Option<AbortHandle>), &'static str> {
        let count = self.peers.get(&network).copied().unwrap_or(0);
        // Connections over Unix sockets and in memory have no address, and no limit per peer.
        let is_crowded = network.is_known() && count >= max_per_peer;
        let is_full = self.connections.len() - self.evicted >= max;
        let evicted = if is_crowded || is_full {
            // Evicted connections keep their memory until their tasks have ended, which is soon
            // unless the runtime is overloaded.
            let may_evict = self.evicted < MAX_EVICTED;
            let silent = &mut self.silent;
            let (silent, option) = if is_crowded {
                let oldest = may_evict.then(|| silent.make_room_within(network, now));
                (oldest.flatten(), "max_connections_per_peer")
            } else {
                let oldest = may_evict.then(|| silent.make_room(network, now));
                (oldest.flatten(), "max_connections")
            };
            self.evict(silent.ok_or(option)?)
        } else {
            None
        };
        *self.peers.entry(network).or_default() += 1;
        let places = self.connections.vacant_entry();
        let key = places.key();
        places.insert(Entry {
            shared: None,
            task: None,
            network,
            silent: Some(self.silent.insert(network, now, key)),
            evicted: false,
        });
        Ok((key, evicted))
    }

    /// Removes a connection that has ended.
    pub(super) fn remove(&mut self, key: usize) {
        let Some(entry) = self.connections.try_remove(key) else {
            return;
        };
        if let Some(number) = entry.silent {
            self.silent.remove(number);
        }
        if entry.evicted {
            self.evicted -= 1;
        } else {
            self.uncount(entry.network);
        }
    }
}
