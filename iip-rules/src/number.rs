//! Numbers in texts: integer literals and floats as the language writes them, and their text form.

/// Reads a signed integer literal: an optional sign, then digits with an optional prefix.
///
/// A leading `0` selects base 8. Single underscores may stand between digits and after a prefix.
pub(crate) fn integer(text: &str) -> Option<i64> {
    let (negative, unsigned) = sign(text);
    let (base, digits) = match unsigned.as_bytes() {
        [] => return None,
        [b'0', prefix, _, ..] if base_of(*prefix).is_some() => {
            (base_of(*prefix)?, &unsigned.as_bytes()[2..])
        }
        [b'0', digits @ ..] => (8, digits),
        digits => (10, digits),
    };
    if !underscores_are_placed(unsigned) {
        return None;
    }
    let mut value: u64 = 0;
    for &digit in digits.iter().filter(|&&digit| digit != b'_') {
        let digit = char::from(digit).to_digit(base)?;
        value = value
            .checked_mul(u64::from(base))?
            .checked_add(u64::from(digit))?;
    }
    if negative {
        0_i64.checked_sub_unsigned(value)
    } else {
        i64::try_from(value).ok()
    }
}

/// Reads a float: decimal with an optional exponent, hexadecimal with an exponent `p`, or a special
/// value. A number out of range is none.
pub(crate) fn float(text: &str) -> Option<f64> {
    let (negative, unsigned) = sign(text);
    let value = if is_one_of(unsigned, &["inf", "infinity"]) {
        f64::INFINITY
    } else if is_one_of(text, &["nan"]) {
        f64::NAN
    } else if !underscores_are_placed(unsigned) {
        return None;
    } else if let [b'0', b'x' | b'X', digits @ ..] = unsigned.as_bytes() {
        hexadecimal(digits)?
    } else {
        decimal(unsigned)?
    };
    Some(if negative { -value } else { value })
}

/// The text form of a float: six decimals.
pub(crate) fn float_text(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        format!("{value:.6}")
    }
}

/// Cuts a float toward zero. Values out of range saturate, and NaN is 0.
#[allow(clippy::cast_possible_truncation, reason = "the cast saturates")]
pub(crate) fn cut(value: f64) -> i64 {
    value as i64
}

fn sign(text: &str) -> (bool, &str) {
    match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    }
}

fn base_of(prefix: u8) -> Option<u32> {
    match prefix {
        b'x' | b'X' => Some(16),
        b'o' | b'O' => Some(8),
        b'b' | b'B' => Some(2),
        _ => None,
    }
}

fn is_one_of(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Returns `true` if each underscore follows a digit or a prefix and precedes a digit.
fn underscores_are_placed(unsigned: &str) -> bool {
    let bytes = unsigned.as_bytes();
    if !bytes.contains(&b'_') {
        return true;
    }
    let (start, hexadecimal) = match bytes {
        [b'0', prefix, ..] if base_of(*prefix).is_some() => (2, base_of(*prefix) == Some(16)),
        _ => (0, false),
    };
    // What precedes the byte: a digit, for which a prefix counts too, or an underscore.
    let (mut after_digit, mut after_underscore) = (start > 0, false);
    for &byte in &bytes[start..] {
        let digit = byte.is_ascii_digit() || (hexadecimal && byte.is_ascii_hexdigit());
        if (byte == b'_' && !after_digit) || (after_underscore && !digit) {
            return false;
        }
        (after_digit, after_underscore) = (digit, byte == b'_');
    }
    !after_underscore
}

fn decimal(unsigned: &str) -> Option<f64> {
    // The names of special values are not accepted here, nor a second sign.
    let is_number = |byte: &u8| byte.is_ascii_digit() || b"._eE+-".contains(byte);
    let starts = unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.');
    if !starts || !unsigned.as_bytes().iter().all(is_number) {
        return None;
    }
    let value: f64 = if unsigned.contains('_') {
        unsigned.replace('_', "").parse().ok()?
    } else {
        unsigned.parse().ok()?
    };
    value.is_finite().then_some(value)
}

/// Reads the digits and the exponent that follow `0x`.
fn hexadecimal(bytes: &[u8]) -> Option<f64> {
    let at = bytes.iter().position(|byte| byte | 0x20 == b'p')?;
    let (digits, exponent) = (&bytes[..at], &bytes[at + 1..]);
    let (mut mantissa, mut scale) = (0_u64, 0_i64);
    let (mut any, mut point) = (false, false);
    for &byte in digits {
        match byte {
            b'_' => continue,
            b'.' if !point => {
                point = true;
                continue;
            }
            _ => {}
        }
        let digit = u64::from(char::from(byte).to_digit(16)?);
        any = true;
        if mantissa >> 60 == 0 {
            mantissa = mantissa << 4 | digit;
            scale -= if point { 4 } else { 0 };
        } else {
            // Digits that no longer fit only decide how the last bit is rounded.
            mantissa |= u64::from(digit != 0);
            scale += if point { 0 } else { 4 };
        }
    }
    let exponent = exponent_value(exponent)?;
    if any {
        scaled(mantissa, scale + exponent)
    } else {
        None
    }
}

/// Reads a decimal exponent. Beyond the range of a float, its size no longer counts.
fn exponent_value(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if !digits.first()?.is_ascii_digit() {
        return None;
    }
    let mut value = 0_i64;
    for &digit in digits.iter().filter(|&&digit| digit != b'_') {
        let digit = i64::from(char::from(digit).to_digit(10)?);
        value = (value * 10 + digit).min(1 << 40);
    }
    Some(if negative { -value } else { value })
}

/// Rounds `mantissa` times two to the power of `exponent` to the nearest float, ties to even.
fn scaled(mantissa: u64, exponent: i64) -> Option<f64> {
    if mantissa == 0 {
        return Some(0.0);
    }
    let shift = mantissa.leading_zeros();
    let mantissa = u128::from(mantissa << shift);
    // The value is between 1 and 2, times two to the power of this.
    let power = exponent + 63 - i64::from(shift);
    if power > 1023 {
        return None;
    }
    // A float keeps 53 bits, and fewer below its smallest normal number.
    let dropped = 11 + (-1022 - power).max(0);
    if dropped > 64 {
        return Some(0.0);
    }
    let kept = mantissa >> dropped;
    let rest = mantissa & ((1 << dropped) - 1);
    let half = 1_u128 << (dropped - 1);
    let kept = kept + u128::from(rest > half || (rest == half && kept & 1 == 1));
    // A carry moves into the exponent by itself.
    let exponent_bits = u64::try_from(power.max(-1022) + 1022).ok()? << 52;
    let value = f64::from_bits(exponent_bits + u64::try_from(kept).ok()?);
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integer_literals_have_prefixes_and_underscores() {
        let read = [
            ("0", 0),
            ("-0", 0),
            ("010", 8),
            ("0x_ff", 255),
            ("0_10", 8),
            ("+5", 5),
            ("-9223372036854775808", i64::MIN),
            ("9223372036854775807", i64::MAX),
            ("0b101", 5),
            ("0O17", 15),
        ];
        for (text, value) in read {
            assert_eq!(integer(text), Some(value), "{text}");
        }
        let refused = [
            "",
            "+",
            "-",
            "08",
            "0x",
            "0b",
            "1__0",
            "_1",
            "1_",
            "0_",
            "0x_",
            " 1",
            "1,0",
            "+-5",
            "0b2",
            "9223372036854775808",
            "1.5",
            "１",
        ];
        for text in refused {
            assert_eq!(integer(text), None, "{text}");
        }
    }

    #[test]
    fn floats_are_decimal_hexadecimal_or_special() {
        let read = [
            ("5.", 5.0),
            (".5", 0.5),
            ("010", 10.0),
            ("1_000.5", 1000.5),
            ("-1.5E3", -1500.0),
            ("0x1p-2", 0.25),
            ("0x_1.8P1", 3.0),
            ("0x.8p0", 0.5),
            ("0x1p-1074", 5e-324),
            ("0x1.fffffffffffffp1023", f64::MAX),
            ("0x1.00000000000008p0", 1.0),
            ("0x1.000000000000080000000000001p0", 1.000_000_000_000_000_2),
            ("0x1p-1022", f64::MIN_POSITIVE),
            ("0x1p-1075", 0.0),
            ("0x1.8p-1075", 5e-324),
            ("1e-999", 0.0),
            ("iNf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
        ];
        for (text, value) in read {
            assert_eq!(float(text), Some(value), "{text}");
        }
        assert!(float("NaN").is_some_and(f64::is_nan));
        let refused = [
            "",
            ".",
            "+",
            "0x10",
            "0x1.8",
            "0xp1",
            "0x1p",
            "0x1p+",
            "0x1p_1",
            "1e",
            "1e+",
            "e5",
            "1_.5",
            "1__0",
            "1 ",
            "+nan",
            "infin",
            "1e999",
            "0x1p1024",
            "--1",
            "1.2.3",
            "0x1.2.3p1",
            "1e5_",
            "0x1.fffffffffffff8p1023",
        ];
        for text in refused {
            assert_eq!(float(text), None, "{text}");
        }
    }

    #[test]
    fn the_text_of_a_float_has_six_decimals() {
        assert_eq!(float_text(5.0), "5.000000");
        assert_eq!(float_text(-0.0), "-0.000000");
        assert_eq!(float_text(0.007_812_5), "0.007812");
        assert_eq!(float_text(0.023_437_5), "0.023438");
        assert_eq!(float_text(f64::INFINITY), "+Inf");
        assert_eq!(float_text(f64::NEG_INFINITY), "-Inf");
        assert_eq!(float_text(f64::NAN), "NaN");
    }

    #[test]
    fn floats_out_of_range_saturate() {
        assert_eq!(cut(1e300), i64::MAX);
        assert_eq!(cut(-1e300), i64::MIN);
        assert_eq!(cut(f64::NAN), 0);
        assert_eq!(cut(-1.9), -1);
    }
}
