//! Hashes of keys. Their results are part of the behaviour that other clients rely on, and do not
//! change.

use twox_hash::XxHash64;

use crate::path::{Query, label_and_query};

/// Returns the hash of a key for [`Policy::RingHash`](super::Policy::RingHash): XXH64.
#[must_use]
pub fn hash_key(key: &[u8]) -> u64 {
    XxHash64::oneshot(0, key)
}

/// Returns the hash of a key in the Go client: FNV-1 with 32 bits, not FNV-1a.
#[must_use]
pub fn go_hash(key: &[u8]) -> u32 {
    key.iter().fold(0x811C_9DC5, |hash: u32, byte| {
        hash.wrapping_mul(0x0100_0193) ^ u32::from(*byte)
    })
}

/// Returns the hash of a query parameter of `path` in the Go client. As there, an absent parameter
/// is an empty text, and of several the first counts.
#[must_use]
pub fn go_hash_param(path: &str, name: &str) -> u32 {
    let query = Query::new(label_and_query(path.as_bytes()).query);
    go_hash(query.get(name).unwrap_or_default().as_bytes())
}

/// Returns the hash of a stable id. `seed` is 0, or that of a subset.
pub(super) fn hash_id(id: &str, seed: u64) -> u64 {
    XxHash64::oneshot(seed, id.as_bytes())
}

/// Returns a number that depends on every bit of `value`: the last step of the generator
/// SplitMix64.
#[inline]
pub(super) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// Returns a number below `count` from a random one, by its upper half.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the result is below `count`"
)]
pub(super) fn below(random: u64, count: usize) -> usize {
    ((u128::from(random) * count as u128) >> 64) as usize
}

/// Returns the indexes of the `count` ids with the highest hashes, in the order of the ids. This is
/// rendezvous hashing: another id in the list changes at most one of the chosen.
pub(super) fn subset<'a>(
    ids: impl Iterator<Item = &'a str>,
    count: usize,
    seed: u64,
) -> Vec<usize> {
    let mut hashes: Vec<_> = ids
        .enumerate()
        .map(|(index, id)| (hash_id(id, seed), index))
        .collect();
    if count < hashes.len() {
        hashes.select_nth_unstable_by(count, |left, right| right.cmp(left));
        hashes.truncate(count);
    }
    let mut chosen: Vec<_> = hashes.into_iter().map(|(_, index)| index).collect();
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn go_hashes_are_those_of_its_hash_fnv_new32() {
        assert_eq!(go_hash(b""), 2_166_136_261);
        assert_eq!(go_hash(b"a"), 84_696_446);
        assert_eq!(go_hash(b"user-17") % 10, 9);
    }

    #[test]
    fn a_parameter_is_decoded_before_it_is_hashed() {
        assert_eq!(go_hash_param("/x?y=1&k=a+%62", "k"), go_hash(b"a b"));
        assert_eq!(go_hash_param("/x?k=1&k=2", "k"), go_hash(b"1"));
        assert_eq!(go_hash_param("/x?y=1", "k"), go_hash(b""));
        assert_eq!(go_hash_param("/x", "k"), go_hash(b""));
    }

    #[test]
    fn the_hash_of_a_key_is_that_of_the_reference() {
        assert_eq!(hash_key(b""), 0xEF46_DB37_51D8_E999);
        assert_eq!(hash_key(b"a"), 0xD24E_C4F1_A98C_6E5B);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn another_backend_changes_at_most_one_of_a_subset(
            count in 1..40_usize, size in 1..10_usize, seed in any::<u64>(),
        ) {
            let ids: Vec<_> = (0..=count).map(|id| id.to_string()).collect();
            let chosen = |count: usize| {
                let ids = ids.iter().take(count).map(String::as_str);
                subset(ids, size, seed)
            };
            let (before, after) = (chosen(count), chosen(count + 1));
            prop_assert_eq!(before.len(), size.min(count));
            let lost = before.iter().filter(|index| !after.contains(index)).count();
            prop_assert!(lost <= 1);
        }
    }
}
