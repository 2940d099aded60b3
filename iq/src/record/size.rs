//! Sizes on the command line.

/// Parses a size such as `64KiB`, `500MiB` or `1GiB`, or a number of bytes.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err("expected a size such as 64KiB, 500MiB or 1GiB".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "expected a size such as 64KiB, 500MiB or 1GiB".to_owned())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "the size is too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse("1GiB"), Ok(1 << 30));
        assert_eq!(parse("70000"), Ok(70_000));
        for text in ["", "GiB", "1GB", "-1", "1.5GiB", "99999999999TiB"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
