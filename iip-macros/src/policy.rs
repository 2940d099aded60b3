//! The settings of a method for the treatment of its calls: parsed here, and written into its
//! descriptor.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Lit, LitStr};

use crate::{duration, errors::Errors};

/// The value of `hedge = ".."`; the runtime has an enum of the same name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Hedge {
    After(Duration),
    Percentile(u8),
}

/// The value of `priority = ".."`; the runtime has an enum of the same name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Priority {
    Low,
    Normal,
    High,
}

/// The value of `max_concurrency = ..`; the runtime has an enum of the same name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Concurrency {
    AtMost(u32),
    Auto,
}

impl Hedge {
    /// Parses `"20ms"` or `"p95"`.
    pub(crate) fn parse(text: &LitStr, errors: &mut Errors) -> Option<Self> {
        let value = text.value();
        let Some(percentile) = value.strip_prefix('p') else {
            return duration::parse(text, errors).map(Self::After);
        };
        match percentile.parse() {
            Ok(percentile @ 1..=99) => Some(Self::Percentile(percentile)),
            _ => {
                errors.at(
                    text,
                    "write a delay such as \"20ms\", or a percentile from \"p1\" to \"p99\"",
                );
                None
            }
        }
    }

    pub(crate) fn tokens(self) -> TokenStream {
        match self {
            Self::After(delay) => {
                let delay = duration::tokens(delay);
                quote!(__rpc::Hedge::After(#delay))
            }
            Self::Percentile(percentile) => quote!(__rpc::Hedge::Percentile(#percentile)),
        }
    }
}

impl Priority {
    pub(crate) fn parse(text: &LitStr, errors: &mut Errors) -> Option<Self> {
        match text.value().as_str() {
            "low" => Some(Self::Low),
            "normal" => Some(Self::Normal),
            "high" => Some(Self::High),
            _ => {
                errors.at(
                    text,
                    "write \"low\" (rejected first when the server is at capacity), \"normal\" or \
                     \"high\" (rejected last)",
                );
                None
            }
        }
    }

    pub(crate) fn tokens(self) -> TokenStream {
        match self {
            Self::Low => quote!(__rpc::Priority::Low),
            Self::Normal => quote!(__rpc::Priority::Normal),
            Self::High => quote!(__rpc::Priority::High),
        }
    }
}

impl Concurrency {
    /// Parses `100` or `"auto"`.
    pub(crate) fn parse(value: &Lit, errors: &mut Errors) -> Option<Self> {
        let calls = match value {
            Lit::Str(text) if text.value() == "auto" => return Some(Self::Auto),
            Lit::Int(number) => number.base10_parse().ok().filter(|&calls| calls > 0),
            _ => None,
        };
        if calls.is_none() {
            errors.at(
                value,
                "write the number of calls that may run at a time, such as `100`, or \"auto\" to \
                 let the server find it",
            );
        }
        calls.map(Self::AtMost)
    }

    pub(crate) fn tokens(self) -> TokenStream {
        match self {
            Self::AtMost(calls) => quote!(__rpc::Concurrency::AtMost(#calls)),
            Self::Auto => quote!(__rpc::Concurrency::Auto),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_quote;

    #[test]
    fn a_hedge_is_a_delay_or_a_percentile() {
        let table: [(LitStr, _); 6] = [
            (
                parse_quote!("20ms"),
                Some(Hedge::After(Duration::from_millis(20))),
            ),
            (parse_quote!("p95"), Some(Hedge::Percentile(95))),
            (parse_quote!("p0"), None),
            (parse_quote!("p100"), None),
            (parse_quote!("p99.9"), None),
            (parse_quote!("soon"), None),
        ];
        for (text, expected) in table {
            let mut errors = Errors::default();
            assert_eq!(Hedge::parse(&text, &mut errors), expected);
            assert_eq!(errors.is_empty(), expected.is_some(), "{}", text.value());
        }
    }

    #[test]
    fn a_concurrency_is_a_number_or_auto() {
        let table: [(Lit, _); 6] = [
            (parse_quote!(100), Some(Concurrency::AtMost(100))),
            (parse_quote!("auto"), Some(Concurrency::Auto)),
            (parse_quote!(0), None),
            (parse_quote!(5000000000), None),
            (parse_quote!("100"), None),
            (parse_quote!(1.5), None),
        ];
        for (value, expected) in table {
            let mut errors = Errors::default();
            assert_eq!(Concurrency::parse(&value, &mut errors), expected);
            assert_eq!(errors.is_empty(), expected.is_some());
        }
    }
}
