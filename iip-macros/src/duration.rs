//! Durations in settings: parsed from text, and written into generated code.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::quote;
use syn::LitStr;

use crate::errors::Errors;

/// Parses a duration such as `"500ms"`: a whole number and a unit.
pub(crate) fn parse(text: &LitStr, errors: &mut Errors) -> Option<Duration> {
    const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
    let value = text.value();
    let digits = value.len() - value.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = value.split_at(digits);
    let micros_per_unit: Option<u64> = match unit {
        "us" => Some(1),
        "ms" => Some(1_000),
        "s" => Some(1_000_000),
        "m" => Some(60_000_000),
        "h" => Some(3_600_000_000),
        _ => None,
    };
    let number = number.parse::<u64>().ok();
    let (Some(number), Some(micros_per_unit)) = (number, micros_per_unit) else {
        errors.at(
            text,
            "write a whole number and a unit of `us`, `ms`, `s`, `m` or `h`: \"500ms\"",
        );
        return None;
    };
    let duration = number
        .checked_mul(micros_per_unit)
        .map(Duration::from_micros);
    match duration {
        Some(Duration::ZERO) => errors.at(
            text,
            "a time of zero is not allowed: write a longer one, such as \"500ms\"",
        ),
        Some(duration) if duration <= LONGEST => return Some(duration),
        _ => errors.at(text, "write a time of at most a year"),
    }
    None
}

/// Generates a duration in the largest unit that is exact, for readers of expanded code.
pub(crate) fn tokens(duration: Duration) -> TokenStream {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    if micros.is_multiple_of(1_000_000) {
        let seconds = micros / 1_000_000;
        quote!(__rpc::Duration::from_secs(#seconds))
    } else if micros.is_multiple_of(1_000) {
        let millis = micros / 1_000;
        quote!(__rpc::Duration::from_millis(#millis))
    } else {
        quote!(__rpc::Duration::from_micros(#micros))
    }
}
