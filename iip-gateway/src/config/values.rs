//! Values of the configuration file that are written as strings.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A time such as `500ms`, `10s` or `5m`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Time(pub(super) Duration);

/// A size such as `16KiB`, `1MiB`, or a number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Size(pub(super) usize);

fn time_of(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().ok()?;
    let time = match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3600)?),
        _ => return None,
    };
    // A year is practically no limit, and clocks can represent it.
    Some(time.min(Duration::from_secs(365 * 86_400)))
}

fn size_of(text: &str) -> Option<usize> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: usize = number.parse().ok()?;
    let factor = match unit.trim_start() {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time such as \"500ms\", \"10s\", \"5m\" or \"1h\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Time, E> {
                let unexpected = de::Unexpected::Str(text);
                time_of(text)
                    .map(Time)
                    .ok_or_else(|| E::invalid_value(unexpected, &self))
            }
        }

        deserializer.deserialize_any(Text)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, or a size such as \"16KiB\" or \"1MiB\"")
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                let unexpected = de::Unexpected::Signed(bytes);
                let size = usize::try_from(bytes).map(Size);
                size.map_err(|_| E::invalid_value(unexpected, &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                let unexpected = de::Unexpected::Str(text);
                size_of(text)
                    .map(Size)
                    .ok_or_else(|| E::invalid_value(unexpected, &self))
            }
        }

        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_have_units() {
        assert_eq!(time_of("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(time_of("2m"), Some(Duration::from_secs(120)));
        for text in ["", "5", "s", "-5s", "1.5s", "5 s", "99999999999999999999s"] {
            assert_eq!(time_of(text), None, "{text}");
        }
        assert_eq!(size_of("17"), Some(17));
        assert_eq!(size_of("16KiB"), Some(16_384));
        assert_eq!(size_of("16 MiB"), Some(16 << 20));
        for text in ["", "KiB", "1KB", "-1", "99999999999GiB"] {
            assert_eq!(size_of(text), None, "{text}");
        }
    }
}
