//! Every random choice of these crates: the jitter of pauses and ages, and the identifiers of
//! traces and topics.
//!
//! The generator belongs to the thread. A thread that [seeds](seed_random) it makes the same
//! choices in every run. Nothing here is suited for secrets.

#![expect(clippy::disallowed_methods, reason = "the rule points here")]

/// Returns a fraction of at least 0 and less than 1.
#[must_use]
pub fn random_fraction() -> f64 {
    fastrand::f64()
}

/// Returns a number that is not 0.
#[must_use]
pub fn random_id() -> u64 {
    fastrand::u64(1..)
}

/// Returns a number that is not 0.
#[must_use]
pub fn random_wide_id() -> u128 {
    fastrand::u128(1..)
}

/// Seeds the generator of this thread.
pub fn seed_random(seed: u64) {
    fastrand::seed(seed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seeded_thread_makes_the_same_choices_again() {
        let choices = || {
            seed_random(7);
            (random_fraction(), random_id(), random_wide_id())
        };
        let first = choices();
        assert_eq!(choices(), first);
        seed_random(8);
        assert_ne!((random_fraction(), random_id(), random_wide_id()), first);
        assert!((0.0..1.0).contains(&random_fraction()));
    }
}
