//! Budget for retries of a client: a bucket of tokens, filled by its calls.

use std::sync::atomic::{AtomicU64, Ordering};

/// One token in the unit of the bucket: ratios are kept in thousandths.
const TOKEN: u64 = 1000;

/// Limit on the retries of a client, so that retries do not make an overload worse.
///
/// Every typed call puts [`token_ratio`](Self::token_ratio) tokens into a bucket; every retry and
/// every second attempt of a hedged call takes one out, and is not made if there is none. So
/// retries are at most that fraction of the calls, plus the [`max_tokens`](Self::max_tokens) that
/// the bucket holds at the beginning. All clones of a client share the bucket.
///
/// Calls that were not sent, or that a server rejected because it is going away, are retried
/// without a token: they add no load.
///
/// ```
/// use iip_rpc::{Client, RetryBudget};
///
/// // At most one retry for every five calls, and never more than 20 of them at once.
/// let client = Client::builder().retry_budget(RetryBudget::new().token_ratio(0.2).max_tokens(20));
/// # let _ = client;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct RetryBudget {
    max: u64,
    per_call: u64,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            max: 100 * TOKEN,
            per_call: TOKEN / 10,
        }
    }
}

impl RetryBudget {
    /// Creates the default budget: 0.1 tokens for a call, at most 100.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the maximum number of tokens, which is also the initial number: at most this many
    /// retries may be made at once. Default: 100. 0: no retries.
    pub fn max_tokens(mut self, tokens: u32) -> Self {
        self.max = u64::from(tokens) * TOKEN;
        self
    }

    /// Sets the number of tokens per call, from 0 to 1 in thousandths: the fraction of the calls
    /// that may be retried in the long run. Default: 0.1.
    pub fn token_ratio(mut self, ratio: f64) -> Self {
        // The cast saturates to the nearest integer in range; NaN becomes 0.
        self.per_call = (ratio.clamp(0.0, 1.0) * TOKEN as f64).round() as u64;
        self
    }
}

/// The bucket of one client.
#[derive(Debug)]
pub(crate) struct Bucket {
    budget: RetryBudget,
    tokens: AtomicU64,
}

impl Bucket {
    pub(crate) fn new(budget: RetryBudget) -> Self {
        Self {
            tokens: AtomicU64::new(budget.max),
            budget,
        }
    }

    /// Adds the tokens of one call.
    #[inline]
    pub(crate) fn deposit(&self) {
        // The bucket is usually full, and then nothing is written.
        if self.tokens.load(Ordering::Relaxed) < self.budget.max {
            self.fill();
        }
    }

    #[cold]
    fn fill(&self) {
        let RetryBudget { max, per_call } = self.budget;
        let filled = |tokens: u64| (tokens < max).then(|| (tokens + per_call).min(max));
        // An error means that the bucket has become full meanwhile, which is fine.
        let _ = self
            .tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, filled);
    }

    /// Returns `true` if a call may be retried, and then takes the token for the retry.
    pub(crate) fn withdraw(&self) -> bool {
        let taken = |tokens: u64| tokens.checked_sub(TOKEN);
        // A part of a token is not enough, and stays.
        self.tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn withdrawals(bucket: &Bucket) -> u32 {
        let mut count = 0;
        while bucket.withdraw() {
            count += 1;
        }
        count
    }

    #[test]
    fn a_bucket_is_full_at_first_and_empty_after_max_tokens_retries() {
        let bucket = Bucket::new(RetryBudget::new());
        assert_eq!(withdrawals(&bucket), 100);
        let none = Bucket::new(RetryBudget::new().max_tokens(0));
        none.deposit();
        assert_eq!(withdrawals(&none), 0);
    }

    #[test]
    fn in_the_long_run_retries_are_a_part_of_the_calls() {
        for (ratio, expected) in [(0.1, 100), (0.2, 200), (0.0, 0), (1.0, 1000), (7.0, 1000)] {
            let bucket = Bucket::new(RetryBudget::new().token_ratio(ratio).max_tokens(3));
            assert_eq!(withdrawals(&bucket), 3);
            let mut retries = 0;
            // Every call fails and would be retried.
            for _ in 0..1000 {
                bucket.deposit();
                retries += u32::from(bucket.withdraw());
            }
            assert_eq!(retries, expected, "ratio {ratio}");
        }
    }

    #[test]
    fn a_bucket_holds_no_more_than_its_size() {
        let bucket = Bucket::new(RetryBudget::new().max_tokens(5).token_ratio(1.0));
        withdrawals(&bucket);
        (0..1000).for_each(|_| bucket.deposit());
        assert_eq!(withdrawals(&bucket), 5);
    }

    #[test]
    fn a_ratio_that_is_not_a_number_counts_as_zero() {
        let bucket = Bucket::new(RetryBudget::new().token_ratio(f64::NAN).max_tokens(1));
        withdrawals(&bucket);
        bucket.deposit();
        assert!(!bucket.withdraw());
    }
}
