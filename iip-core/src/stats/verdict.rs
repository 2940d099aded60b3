//! The verdict on a method, for programs that show one: the live page and `iq top`.

use super::code::{CODE_NAMES, is_error};

/// The share of calls from which errors are a problem.
const PROBLEM: f64 = 0.05;

/// The share of calls up to which errors are not mentioned.
const MENTION: f64 = 0.001;

/// The most findings that a verdict names.
pub const MAX_FINDINGS: usize = 3;

/// The errors of a method, if there are enough to mention.
#[derive(Clone, Copy, PartialEq, Debug)]
#[expect(clippy::exhaustive_structs, reason = "it is used by this project only")]
pub struct Failing<'a> {
    /// The share of calls that are errors.
    pub share: f64,
    /// The name of the most frequent code of them.
    pub code: &'a str,
    /// `true` if they are a problem, and not a warning.
    pub is_problem: bool,
}

impl<'a> Failing<'a> {
    /// Judges a method by its calls and errors per second, in total and by the names of their
    /// codes. Returns `None` if there is nothing to mention.
    pub fn judge(
        rate: f64,
        errors: f64,
        codes: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Option<Self> {
        // Without calls, the share is not a number.
        let share = Some(errors / rate).filter(|share| *share > MENTION)?;
        let errors = codes.into_iter().filter(|(name, _)| is_error_name(name));
        let (code, _) = errors.max_by(|(_, one), (_, other)| one.total_cmp(other))?;
        Some(Self {
            share,
            code,
            // Methods with their own error type may fail with it in normal operation.
            is_problem: share >= PROBLEM && code != "UNKNOWN",
        })
    }
}

/// Returns `true` if [`is_error`] does for the code with this name.
#[must_use]
pub fn is_error_name(name: &str) -> bool {
    let code = CODE_NAMES.iter().position(|known| *known == name);
    let code = code.and_then(|code| u8::try_from(code).ok());
    code.is_some_and(is_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_a_problem_from_a_twentieth_of_the_calls() {
        let judge = |rate, codes: &[(&'static str, f64)]| {
            let errors = codes.iter().filter(|(name, _)| is_error_name(name));
            let errors = errors.map(|(_, rate)| rate).sum();
            let failing = Failing::judge(rate, errors, codes.iter().copied());
            failing.map(|failing| (failing.code, failing.is_problem))
        };
        assert_eq!(judge(0.0, &[]), None);
        assert_eq!(judge(100.0, &[("NOT_FOUND", 90.0)]), None);
        assert_eq!(judge(1000.0, &[("UNAVAILABLE", 1.0)]), None);
        for (unavailable, is_problem) in [(0.2, false), (4.9, false), (5.0, true)] {
            let codes = [("NOT_FOUND", 50.0), ("UNAVAILABLE", unavailable)];
            assert_eq!(judge(100.0, &codes), Some(("UNAVAILABLE", is_problem)));
        }
        let codes = [("INTERNAL", 2.0), ("UNKNOWN", 90.0)];
        assert_eq!(judge(100.0, &codes), Some(("UNKNOWN", false)));
    }
}
