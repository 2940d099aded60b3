//! Numbers of things in texts.

use std::fmt::Display;

/// Returns a number with the name of the things, such as `1 service` or `2 services`.
pub(crate) fn counted(count: impl Into<u64>, thing: impl Display) -> String {
    match count.into() {
        1 => format!("1 {thing}"),
        count => format!("{count} {thing}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        let all = [0_u32, 1, 2].map(|count| counted(count, "call"));
        assert_eq!(all, ["0 calls", "1 call", "2 calls"]);
    }
}
