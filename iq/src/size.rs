//! Sizes and rates on the command line.

const EXPECTED: &str = "expected a size such as 64KiB, 500MiB or 1GiB";

/// Parses a size such as `64KiB`, `500MiB` or `1GiB`, or a number of bytes. `K`, `M`, `G` and `T`
/// stand for the same units, which are powers of 1024.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let shift = match unit {
        "" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        _ => return Err(EXPECTED.to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| EXPECTED.to_owned())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "the size is too large".to_owned())
}

/// Parses a limit in bytes per second, such as `500K` or `10MiB`. It must be more than zero.
pub(crate) fn parse_rate(text: &str) -> Result<u64, String> {
    match parse(text)? {
        0 => Err("the rate must be more than zero".to_owned()),
        rate => Ok(rate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse("1GiB"), Ok(1 << 30));
        assert_eq!(parse("10M"), Ok(10 << 20));
        assert_eq!(parse("70000"), Ok(70_000));
        for text in [
            "",
            "GiB",
            "M",
            "1GB",
            "10m",
            "-1",
            "1.5GiB",
            "99999999999TiB",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_is_more_than_zero() {
        assert_eq!(parse_rate("500K"), Ok(500 << 10));
        assert!(parse_rate("0K").is_err());
    }
}
