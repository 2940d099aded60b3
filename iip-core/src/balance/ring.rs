//! Consistent hashing: a table from the upper bits of a key's hash to backends.
//!
//! Each entry of the table belongs to the backend that wins it by weighted rendezvous hashing of
//! entry and stable id. A ring of a limited number of points has to thin out the points of all
//! backends when one is added, which moves twice the keys that have to move, and at some sizes
//! half of them. Here an added backend takes its share of the entries, and no other entry changes.
//!
//! Scores of all pairs of entry and backend would take a tenth of a second for 10,000 backends.
//! Instead, as in `ProbMinHash`, each backend has a sequence of random times at its weight as the
//! rate, each at a random entry, and an entry belongs to the backend with the earliest time at it.
//! Per entry, these are the independent exponential times of weighted rendezvous hashing, but only
//! the early ones are computed: about `n + s ln s` for `n` backends and `s` entries.

use super::hash::{hash_id, mix};

/// The table. The results for a key depend on nothing but the stable ids and weights, so all
/// clients with the same backends agree, in whatever order they know them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ring {
    /// The position of a backend within the list that the table was made of.
    entries: Box<[u32]>,
    /// The number of bits by which a hash is shifted to the right.
    shift: u32,
}

impl Ring {
    /// Creates the table of `size` entries, a power of two, for backends with ids and weights. A
    /// backend with a weight of 0 gets no entry.
    pub(super) fn new(size: usize, backends: &[(&str, u32)]) -> Self {
        let shift = 64 - size.max(2).ilog2();
        let mut sequences: Vec<_> = (0_u32..)
            .zip(backends)
            .filter(|(_, (_, weight))| *weight > 0)
            .map(|(index, (id, weight))| Sequence::new(index, id, *weight))
            .collect();
        if sequences.is_empty() {
            let entries = Box::default();
            return Self { entries, shift };
        }
        let mut winners = vec![Winner::NONE; 1 << (64 - shift)];
        // A sequence ends when it is later than the winners of all entries. The latest of them is
        // looked for once in as many steps as there are entries.
        let (mut latest, mut steps) = (f64::INFINITY, 0);
        while !sequences.is_empty() {
            sequences.retain_mut(|sequence| {
                if sequence.time > latest {
                    return false;
                }
                sequence.advance(&mut winners, shift);
                true
            });
            steps += sequences.len();
            if steps >= winners.len() {
                steps = 0;
                latest = winners.iter().map(|winner| winner.time).fold(0.0, f64::max);
            }
        }
        let entries = winners.into_iter().map(|winner| winner.index).collect();
        Self { entries, shift }
    }

    /// Returns the position of the backend of a hash; `None` if there are no backends.
    #[inline]
    pub(super) fn get(&self, hash: u64) -> Option<u32> {
        #[expect(clippy::cast_possible_truncation, reason = "the shift leaves few bits")]
        let entry = (hash >> self.shift) as usize;
        self.entries.get(entry).copied()
    }
}

/// The backend with the earliest time at an entry so far.
#[derive(Clone, Copy)]
struct Winner {
    time: f64,
    /// The hash of its id, which decides between equal times.
    hash: u64,
    index: u32,
}

impl Winner {
    const NONE: Self = Self {
        time: f64::INFINITY,
        hash: u64::MAX,
        index: 0,
    };
}

/// The sequence of one backend.
struct Sequence {
    index: u32,
    hash: u64,
    /// The number of times so far.
    count: u64,
    time: f64,
    weight: f64,
}

impl Sequence {
    fn new(index: u32, id: &str, weight: u32) -> Self {
        Self {
            index,
            hash: hash_id(id, 0),
            count: 0,
            time: 0.0,
            weight: f64::from(weight),
        }
    }

    /// Computes the next time and its entry, and takes the entry if it is the earliest there.
    fn advance(&mut self, winners: &mut [Winner], shift: u32) {
        self.count += 1;
        let random = mix(self.hash ^ mix(self.count << 32));
        #[expect(clippy::cast_precision_loss, reason = "53 bits of the hash are enough")]
        let fraction = ((random >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        self.time -= fraction.ln() / self.weight;
        #[expect(clippy::cast_possible_truncation, reason = "the shift leaves few bits")]
        let entry = (mix(random) >> shift) as usize;
        let Some(winner) = winners.get_mut(entry) else {
            return;
        };
        if (self.time, self.hash) < (winner.time, winner.hash) {
            *winner = Winner {
                time: self.time,
                hash: self.hash,
                index: self.index,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("pod-{number}")).collect()
    }

    fn ring(names: &[String], weights: impl Fn(usize) -> u32) -> Ring {
        let backends: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(index, name)| (name.as_str(), weights(index)))
            .collect();
        Ring::new(4096, &backends)
    }

    fn keys() -> impl Iterator<Item = u64> {
        (0..10_000_u64).map(|key| super::super::hash::hash_key(&key.to_le_bytes()))
    }

    #[test]
    fn shares_follow_the_weights_within_two_percent() {
        let names = names(5);
        let ring = ring(&names, |index| [1, 2, 3, 4, 0][index]);
        let mut counts = [0_u32; 5];
        for key in keys() {
            counts[ring.get(key).unwrap() as usize] += 1;
        }
        for (index, expected) in [1000.0, 2000.0, 3000.0, 4000.0, 0.0].iter().enumerate() {
            let off = (f64::from(counts[index]) - expected).abs();
            assert!(off <= 200.0, "{counts:?}");
        }
    }

    #[test]
    fn the_order_of_the_backends_does_not_matter() {
        let mut names = names(9);
        let forward = ring(&names, |index| index as u32);
        names.reverse();
        let backward = ring(&names, |index| 8 - index as u32);
        for key in keys() {
            assert_eq!(forward.get(key), backward.get(key).map(|index| 8 - index));
        }
    }

    #[test]
    fn there_may_be_no_backends() {
        assert_eq!(ring(&[], |_| 1).get(7), None);
        assert_eq!(ring(&names(3), |_| 0).get(u64::MAX), None);
    }

    #[test]
    fn ten_thousand_backends_get_about_as_many_entries_as_they_can() {
        let names = names(10_000);
        let ring = ring(&names, |_| 1);
        let mut owners: Vec<_> = ring.entries.to_vec();
        owners.sort_unstable();
        owners.dedup();
        // 4096 draws out of 10,000 give 3,361 different ones on average.
        assert!((3200..3500).contains(&owners.len()), "{}", owners.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(6))]

        #[test]
        fn a_backend_more_moves_only_the_keys_that_it_gets(
            count in 2..24_usize, weighted in any::<bool>(),
        ) {
            let names = names(count + 1);
            let weight = |index: usize| if weighted { 1 + index as u32 % 3 } else { 1 };
            let before = ring(&names[..count], weight);
            let after = ring(&names, weight);
            let mut moved = 0_u32;
            for key in keys() {
                if before.get(key) != after.get(key) {
                    prop_assert_eq!(after.get(key), Some(count as u32));
                    moved += 1;
                }
            }
            let total: u32 = (0..=count).map(weight).sum();
            let share = f64::from(weight(count)) / f64::from(total);
            // Twenty percent, and three times the deviation of a share of 4096 entries.
            let limit = 1.2 * share + 3.0 * (share / 4096.0).sqrt();
            prop_assert!(f64::from(moved) / 10_000.0 <= limit, "{} of {}", moved, limit);
        }
    }
}
