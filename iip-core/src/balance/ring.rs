//! Consistent hashing: a table from the upper bits of a key's hash to backends.
//!
//! Each entry of the table belongs to the backend that wins it by weighted rendezvous hashing of
//! entry and stable id. A ring of a limited number of points has to thin out the points of all
//! backends when one is added, which moves twice the keys that have to move, and at some sizes
//! half of them. Here an added backend takes its share of the entries, and no other entry changes.

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
    /// backend with a weight of 0 gets no entry. Takes `size` times the number of backends steps.
    pub(super) fn new(size: usize, backends: &[(&str, u32)]) -> Self {
        let candidates: Vec<_> = (0_u32..)
            .zip(backends)
            .filter(|(_, (_, weight))| *weight > 0)
            .map(|(index, (id, weight))| Candidate {
                index,
                hash: hash_id(id, 0),
                weight: *weight,
            })
            .collect();
        let shift = 64 - size.max(2).ilog2();
        if candidates.is_empty() {
            let entries = Box::default();
            return Self { entries, shift };
        }
        let entries = (0..size as u64)
            .map(|entry| winner(mix(entry.wrapping_add(1) << 32), &candidates))
            .collect();
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

struct Candidate {
    index: u32,
    hash: u64,
    weight: u32,
}

/// Returns the candidate with the highest score for `entry`: ln(u) / weight, where u is a hash
/// between 0 and 1. Of equal scores, which only equal ids have, the first wins.
fn winner(entry: u64, candidates: &[Candidate]) -> u32 {
    let equal = candidates
        .windows(2)
        .all(|pair| pair[0].weight == pair[1].weight);
    if equal {
        let best = candidates
            .iter()
            .rev()
            .max_by_key(|candidate| mix(candidate.hash ^ entry));
        return best.map_or(0, |best| best.index);
    }
    let mut best = (f64::NEG_INFINITY, 0);
    for candidate in candidates {
        let hash = mix(candidate.hash ^ entry);
        #[expect(clippy::cast_precision_loss, reason = "53 bits of the hash are enough")]
        let fraction = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        let weight = f64::from(candidate.weight);
        // ln(u) is at most u - 1, which is cheaper and rules most candidates out.
        if fraction - 1.0 <= best.0 * weight {
            continue;
        }
        let score = fraction.ln() / weight;
        if score > best.0 {
            best = (score, candidate.index);
        }
    }
    best.1
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
