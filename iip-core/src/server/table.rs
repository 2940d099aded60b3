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
    /// Number of local connections.
    local: usize,
    /// The serial of the next connection.
    next: u64,
}

/// The place of a connection. Keys are used again, serials are not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) key: usize,
    serial: u64,
}

/// The progress of a connection.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// Its protocol is not known yet, or its handshake is under way: it has no calls.
    SettingUp,
    /// It speaks IIP.
    Iip(Arc<Shared>),
    /// A [`ProtocolHandler`](super::ProtocolHandler) serves it.
    Other,
}

#[derive(Debug)]
pub(super) struct Entry {
    serial: u64,
    pub(super) stage: Stage,
    pub(super) task: Option<AbortHandle>,
    pub(super) network: Network,
    /// The time at which the connection was accepted.
    pub(super) since: Instant,
    /// The number of the connection among the silent ones.
    pub(super) silent: Option<u64>,
    /// The connection was evicted to make room for another.
    pub(super) evicted: bool,
    /// The connection was made by this process, for a connection that is counted.
    is_local: bool,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            accepting: true,
            connections: Slab::new(),
            peers: HashMap::new(),
            silent: Pending::new(),
            evicted: 0,
            local: 0,
            next: 0,
        }
    }

    /// Returns the number of connections of peers.
    pub(super) fn len(&self) -> usize {
        self.connections.len() - self.local
    }

    /// Records the task of a connection, unless it has ended already.
    pub(super) fn set_task(&mut self, place: Place, task: AbortHandle) {
        let entry = self.connections.get_mut(place.key);
        if let Some(entry) = entry.filter(|entry| entry.serial == place.serial) {
            entry.task = Some(task);
        }
    }

    fn insert(&mut self, network: Network, since: Instant, is_local: bool) -> Place {
        let serial = self.next;
        self.next += 1;
        let places = self.connections.vacant_entry();
        let key = places.key();
        places.insert(Entry {
            serial,
            stage: Stage::SettingUp,
            task: None,
            network,
            since,
            silent: (!is_local).then(|| self.silent.insert(network, since, key)),
            evicted: false,
            is_local,
        });
        Place { key, serial }
    }

    /// Adds a connection that this process makes to its own server.
    pub(super) fn admit_local(&mut self, now: Instant) -> Place {
        self.local += 1;
        self.insert(Network::default(), now, true)
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

    /// Reserves a place for one more connection. Returns it and the task of the connection
    /// that was evicted for it, or the name of the limit that is reached.
    pub(super) fn admit(
        &mut self,
        network: Network,
        max: usize,
        max_per_peer: usize,
        now: Instant,
    ) -> Result<(Place, Option<AbortHandle>), &'static str> {
        let count = self.peers.get(&network).copied().unwrap_or(0);
        // Connections over Unix sockets and in memory have no address, and no limit per peer.
        let is_crowded = network.is_known() && count >= max_per_peer;
        let is_full = self.len() - self.evicted >= max;
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
        Ok((self.insert(network, now, false), evicted))
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
        if entry.is_local {
            self.local -= 1;
        } else if entry.evicted {
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
        let keys = [(); 4].map(|()| admit(&mut table).key);
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
        let (Place { key: first, .. }, _) = table.admit(proxy, 10, usize::MAX, now).expect("room");
        table.move_to(first, client, 1, now).expect("room");
        let (Place { key: second, .. }, _) = table.admit(proxy, 10, usize::MAX, now).expect("room");
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
    #[test]
    fn a_local_connection_takes_no_place_of_a_peer() {
        let now = Instant::now();
        let mut table = Table::new();
        let local = table.admit_local(now);
        let (peer, _) = table.admit(network(1), 1, 1, now).expect("room");
        assert_eq!((table.len(), table.connections.len()), (1, 2));
        let later = now + GRACE;
        let evicted = table.admit(network(2), 1, 1, later).expect("it was silent");
        assert!(table.connections[peer.key].evicted && !table.connections[local.key].evicted);
        for place in [local, peer, evicted.0] {
            table.remove(place.key);
        }
        assert_eq!((table.local, table.evicted, table.peers.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn a_task_is_recorded_only_for_the_connection_that_it_serves() {
        let now = Instant::now();
        let mut table = Table::new();
        let first = table.admit_local(now);
        table.remove(first.key);
        let second = table.admit_local(now);
        assert_eq!(first.key, second.key, "keys are used again");
        let task = tokio::spawn(async {}).abort_handle();
        table.set_task(first, task.clone());
        assert!(table.connections[second.key].task.is_none());
        table.set_task(second, task);
        assert!(table.connections[second.key].task.is_some());
    }
}
