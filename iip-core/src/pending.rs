//! Peers that occupy a scarce place and have not done their part yet, and the choice of the one
//! that is evicted for a new peer. Pure: time is an argument.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Time that a peer has to do its part before its place may be given to another peer. A peer on a
/// slow path needs less.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// A group of peers whose connections are counted together: those of an IPv4 address, or of an IPv6
/// network of 64 bits, which is the smallest network assigned to a site.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct Network(Option<IpAddr>);

impl Network {
    /// Returns the network of an address; connections without an address share a network.
    pub(crate) fn of(addr: Option<IpAddr>) -> Self {
        const HOST_BITS: u32 = 64;
        Self(addr.map(|addr| match addr.to_canonical() {
            IpAddr::V6(addr) => IpAddr::V6(Ipv6Addr::from_bits(
                addr.to_bits() >> HOST_BITS << HOST_BITS,
            )),
            addr @ IpAddr::V4(_) => addr,
        }))
    }

    /// Returns `true` if the peer has an address.
    pub(crate) fn is_known(self) -> bool {
        self.0.is_some()
    }
}

/// The peers that have not done their part, in the order of their arrival.
#[derive(Debug)]
pub(crate) struct Pending<T> {
    peers: BTreeMap<u64, Peer<T>>,
    /// Number of these peers in each network.
    counts: BTreeMap<Network, usize>,
    next: u64,
}

#[derive(Debug)]
struct Peer<T> {
    network: Network,
    since: Instant,
    value: T,
}

impl<T> Pending<T> {
    pub(crate) fn new() -> Self {
        Self {
            peers: BTreeMap::new(),
            counts: BTreeMap::new(),
            next: 0,
        }
    }

    /// Adds a peer that has to do its part from now on. Returns its number.
    pub(crate) fn insert(&mut self, network: Network, now: Instant, value: T) -> u64 {
        let number = self.next;
        self.next += 1;
        *self.counts.entry(network).or_default() += 1;
        let peer = Peer {
            network,
            since: now,
            value,
        };
        self.peers.insert(number, peer);
        number
    }

    /// Removes a peer that has done its part, or has gone. Returns `None` if it was evicted before.
    pub(crate) fn remove(&mut self, number: u64) -> Option<T> {
        let peer = self.peers.remove(&number)?;
        if let Some(count) = self.counts.get_mut(&peer.network) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&peer.network);
            }
        }
        Some(peer.value)
    }

    /// Removes the peer that is evicted for a new peer from `network`.
    ///
    /// This is the oldest peer of the network with the most of them, at once if they are more than
    /// the network of the new peer would have. Otherwise it is the oldest of all, if it has had
    /// [`GRACE`].
    pub(crate) fn make_room(&mut self, network: Network, now: Instant) -> Option<T> {
        let own = self.counts.get(&network).copied().unwrap_or(0);
        // Takes time proportional to the number of networks, which is at most the number of places.
        let largest = self.counts.iter().max_by_key(|&(_, count)| *count);
        let number = match largest {
            // With the new peer, its network has one more than now. Only a larger one gives way at
            // once.
            Some((&network, &count)) if count > own + 1 => self.oldest_of(network)?.0,
            _ => {
                self.peers
                    .iter()
                    .next()
                    .filter(|peer| is_late(*peer, now))?
                    .0
            }
        };
        let number = *number;
        self.remove(number)
    }

    /// Removes the oldest peer of `network` for another one of the same network, if it has had
    /// [`GRACE`].
    pub(crate) fn make_room_within(&mut self, network: Network, now: Instant) -> Option<T> {
        let oldest = self.oldest_of(network);
        let number = *oldest.filter(|peer| is_late(*peer, now))?.0;
        self.remove(number)
    }

    fn oldest_of(&self, network: Network) -> Option<(&u64, &Peer<T>)> {
        // The numbers count up, so the first one is the oldest.
        let mut peers = self.peers.iter();
        peers.find(|(_, peer)| peer.network == network)
    }
}

fn is_late<T>((_, peer): (&u64, &Peer<T>), now: Instant) -> bool {
    now.saturating_duration_since(peer.since) >= GRACE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(last: u8) -> Network {
        Network::of(Some(IpAddr::from([10, 0, 0, last])))
    }

    #[test]
    fn the_oldest_makes_room_once_it_has_had_its_time() {
        let start = Instant::now();
        let mut pending = Pending::new();
        for (value, peer) in [(0, 1), (1, 2), (2, 3)] {
            pending.insert(network(peer), start + GRACE * value, value);
        }
        let newcomer = network(9);
        let early = start + GRACE - Duration::from_nanos(1);
        assert_eq!(pending.make_room(newcomer, early), None);
        assert_eq!(pending.make_room(newcomer, start + GRACE), Some(0));
        assert_eq!(pending.make_room(newcomer, start + GRACE), None);
        assert_eq!(pending.make_room(newcomer, start + GRACE * 2), Some(1));
    }

    #[test]
    fn the_network_that_has_most_makes_room_for_others_at_once() {
        let start = Instant::now();
        let mut pending = Pending::new();
        pending.insert(network(1), start, 0);
        for value in 1..4 {
            pending.insert(network(2), start, value);
        }
        assert_eq!(pending.make_room(network(9), start), Some(1));
        assert_eq!(
            pending.make_room(network(1), start),
            None,
            "2 would have less"
        );
        assert_eq!(pending.make_room(network(9), start), Some(2));
        assert_eq!(pending.make_room(network(9), start), None, "each has one");
        assert_eq!(pending.make_room(network(2), start), None);
    }

    #[test]
    fn whoever_has_done_its_part_makes_no_room() {
        let start = Instant::now();
        let mut pending = Pending::new();
        let first = pending.insert(network(1), start, 0);
        let second = pending.insert(network(1), start, 1);
        assert_eq!(pending.remove(first), Some(0));
        assert_eq!(pending.make_room_within(network(1), start), None);
        assert_eq!(pending.make_room_within(network(1), start + GRACE), Some(1));
        assert_eq!(pending.remove(second), None);
        assert!(pending.counts.is_empty() && pending.peers.is_empty());
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_peer_and_so_are_both_forms_of_ipv4() {
        let of = |addr: &str| Network::of(Some(addr.parse().expect("an address")));
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
