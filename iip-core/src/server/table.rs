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
    /// The time at which the connection was accepted.
    pub(super) since: Instant,
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
            since: now,
            silent: Some(self.silent.insert(network, now, key)),
            evicted: false,
        });
        Ok((key, evicted))
    }

    /// Counts a silent connection as one of another peer from now on. Returns the task of the
    /// connection that was evicted for it, or the name of the limit that is reached: then the
    /// connection must be closed.
    pub(super) fn move_to(
        &mut self,
        key: usize,
        network: Network,
        max_per_peer: usize,
        now: Instant,
    ) -> Result<Option<AbortHandle>, &'static str> {
        let entry = self.connections.get_mut(key);
        // A connection that was evicted no longer counts.
        let Some(entry) = entry.filter(|entry| !entry.evicted) else {
            return Err("max_connections");
        };
        let old = std::mem::replace(&mut entry.network, network);
        if let Some(number) = entry.silent.take() {
            self.silent.remove(number);
        }
        self.uncount(old);
        let count = self.peers.entry(network).or_default();
        let is_crowded = network.is_known() && *count >= max_per_peer;
        *count += 1;
        let evicted = if is_crowded {
            let may_evict = self.evicted < MAX_EVICTED;
            let oldest = may_evict.then(|| self.silent.make_room_within(network, now));
            self.evict(oldest.flatten().ok_or("max_connections_per_peer")?)
        } else {
            None
        };
        let number = self.silent.insert(network, now, key);
        if let Some(entry) = self.connections.get_mut(key) {
            entry.silent = Some(number);
        }
        Ok(evicted)
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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::pending::GRACE;

    fn network(last: u8) -> Network {
        Network::of(Some(IpAddr::from([10, 0, 0, last])))
    }

    #[test]
    fn a_connection_through_a_proxy_counts_as_that_of_its_client() {
        let (proxy, client, other) = (network(1), network(2), network(3));
        let now = Instant::now();
        let mut table = Table::new();
        let admit = |table: &mut Table| table.admit(proxy, 10, usize::MAX, now).expect("room").0;
        let keys = [(); 4].map(|()| admit(&mut table));
        assert_eq!(table.peers[&proxy], 4);
        assert!(
            table
                .move_to(keys[0], client, 1, now)
                .expect("room")
                .is_none()
        );
        assert!(
            table
                .move_to(keys[1], other, 1, now)
                .expect("room")
                .is_none()
        );
        // The proxy's own connection.
        assert!(
            table
                .move_to(keys[2], proxy, 2, now)
                .expect("room")
                .is_none()
        );
        assert_eq!((table.peers[&proxy], table.peers[&client]), (2, 1));
        assert_eq!(
            table
                .move_to(keys[3], client, 1, now)
                .expect_err("one only"),
            "max_connections_per_peer"
        );
        for key in keys {
            table.remove(key);
        }
        assert!(table.peers.is_empty());
        assert_eq!(table.silent.make_room(proxy, now + GRACE), None);
    }

    #[test]
    fn a_connection_through_a_proxy_replaces_a_silent_one_of_the_same_client() {
        let (proxy, client) = (network(1), network(2));
        let now = Instant::now();
        let mut table = Table::new();
        let (first, _) = table.admit(proxy, 10, usize::MAX, now).expect("room");
        table.move_to(first, client, 1, now).expect("room");
        let (second, _) = table.admit(proxy, 10, usize::MAX, now).expect("room");
        table
            .move_to(second, client, 1, now + GRACE)
            .expect("the first is late");
        assert!(table.connections[first].evicted && !table.connections[second].evicted);
        assert_eq!(table.peers[&client], 1);
        // Whoever was evicted cannot come back.
        assert!(table.move_to(first, proxy, 1, now).is_err());
        table.remove(first);
        table.remove(second);
        assert!(table.peers.is_empty() && table.evicted == 0);
    }
}
