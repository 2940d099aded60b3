//! The buckets of a histogram of durations: 16 of equal width for each doubling, from 1 µs to 67 s.

/// Number of buckets for each doubling of the duration.
const STEPS: u64 = 16;
/// Number of doublings.
const DOUBLINGS: u64 = 26;
/// The durations of the first doubling begin here, in nanoseconds; shorter ones share a bucket.
const FIRST: u64 = 1000;
/// The first duration, in nanoseconds, that is beyond all doublings: 67.1 s.
const END: u64 = FIRST << DOUBLINGS;

/// Number of buckets: one for durations below 1 µs comes first, and one for those above 67 s last.
pub(crate) const BUCKETS: usize = (STEPS * DOUBLINGS) as usize + 2;

/// 1.024 with 27 binary places, rounded up. It makes 1 µs a power of two.
const SCALE: u64 = 137_438_954;

/// Returns the bucket of a duration in nanoseconds.
#[inline]
pub(crate) fn bucket_of(nanos: u64) -> usize {
    if nanos >= END {
        return BUCKETS - 1;
    }
    // The product fits, because both factors are limited.
    let scaled = (nanos * SCALE) >> 27;
    let Some(doubling) = (scaled >> 10).checked_ilog2() else {
        return 0;
    };
    let step = (scaled >> (doubling + 6)) & (STEPS - 1);
    (u64::from(doubling) * STEPS + step + 1) as usize
}

/// Returns the shortest duration of a bucket, in nanoseconds.
pub(crate) fn lower_bound(bucket: usize) -> u64 {
    let Some(index) = (bucket as u64).checked_sub(1) else {
        return 0;
    };
    let (doubling, step) = (index / STEPS, index % STEPS);
    ((FIRST << doubling) * (STEPS + step)).div_ceil(STEPS)
}

/// Returns the duration that stands for those of a bucket, in nanoseconds: its middle.
pub(crate) fn middle(bucket: usize) -> u64 {
    match bucket {
        last if last + 1 >= BUCKETS => END,
        _ => u64::midpoint(lower_bound(bucket), lower_bound(bucket + 1)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_bucket_begins_at_its_lower_bound() {
        for bucket in 0..BUCKETS {
            let first = lower_bound(bucket);
            assert_eq!(bucket_of(first), bucket);
            // The scale is rounded, which moves a bound by less than a millionth.
            if let Some(before) = first.checked_sub(1 + first / 1_000_000) {
                assert_eq!(bucket_of(before), bucket - 1);
            }
        }
        assert_eq!(lower_bound(1), 1000);
        assert_eq!(lower_bound(BUCKETS - 1), END);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn ten_microseconds_and_their_doubles_are_bounds() {
        for doubling in 0..22 {
            let nanos = 10_000 << doubling;
            assert_eq!(lower_bound(bucket_of(nanos)), nanos);
        }
    }

    proptest! {
        #[test]
        fn the_middle_of_a_bucket_is_within_three_and_a_half_percent(nanos in FIRST..END) {
            let middle = middle(bucket_of(nanos));
            prop_assert!(middle.abs_diff(nanos) as f64 <= 0.035 * nanos as f64);
        }
    }
}
