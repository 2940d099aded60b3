//! Rates on the command line.

/// Parses a rate in bytes per second, such as `500K`, `10M` or `1G`: the units are powers of 1024.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.strip_suffix(['K', 'k', 'M', 'm', 'G', 'g']) {
        Some(number) => (number, text.as_bytes()[number.len()].to_ascii_uppercase()),
        None => (text, b'B'),
    };
    let shift = match unit {
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        _ => 0,
    };
    let number: Option<u64> = number.parse().ok();
    match number.and_then(|number| number.checked_mul(1 << shift)) {
        None => Err("expected bytes per second, such as 500K, 10M or 1G".to_owned()),
        Some(0) => Err("the rate must be more than zero".to_owned()),
        Some(rate) => Ok(rate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_units() {
        assert_eq!(parse("700"), Ok(700));
        assert_eq!(parse("500K"), Ok(500 << 10));
        assert_eq!(parse("10m"), Ok(10 << 20));
        assert_eq!(parse("1G"), Ok(1 << 30));
        for text in [
            "",
            "M",
            "0",
            "0K",
            "-1",
            "1.5M",
            "1T",
            "10MB",
            "99999999999G",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
