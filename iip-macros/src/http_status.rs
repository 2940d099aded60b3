//! The statuses of HTTP of an error's variants: `#[rpc(http = 422)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Data, DeriveInput, Lit, Variant};

use crate::attr::{each_setting, is_rpc};
use crate::errors::Errors;

const EXAMPLE: &str = "#[rpc(http = 422)]";

/// Generates pairs of the positions of variants and their statuses. `is_status` tells the variant
/// that holds the framework's status.
pub(crate) fn list(
    input: &DeriveInput,
    is_status: impl Fn(&Variant) -> bool,
    errors: &mut Errors,
) -> Vec<TokenStream> {
    misplaced(&input.attrs, errors);
    let Data::Enum(data) = &input.data else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (index, variant) in (0_u32..).zip(&data.variants) {
        for field in &variant.fields {
            misplaced(&field.attrs, errors);
        }
        let Some(status) = status(&variant.attrs, errors) else {
            continue;
        };
        if is_status(variant) {
            errors.at(
                variant,
                "remove `#[rpc(http = ..)]` from this variant: the code of its `Status` decides",
            );
        }
        found.push(quote!((#index, #status)));
    }
    found
}

fn status(attrs: &[Attribute], errors: &mut Errors) -> Option<u16> {
    let attrs = attrs.iter().filter(|attr| is_rpc(attr));
    let bare = format!("write the setting in parentheses: `{EXAMPLE}`");
    let mut status = None;
    each_setting(attrs, EXAMPLE, &bare, errors, |setting, errors| {
        let key = &setting.key;
        if key != "http" {
            errors.at(
                key,
                format!("unknown setting `{key}`: a variant takes `{EXAMPLE}`"),
            );
            return;
        }
        let Some(value) = setting.literal("422", errors) else {
            return;
        };
        let number = match &value {
            Lit::Int(number) => number.base10_parse().ok(),
            _ => None,
        };
        status = number.filter(|status| (400..=599).contains(status));
        if status.is_none() {
            errors.at(
                value,
                "write a status of an error, from 400 to 599, such as `422`",
            );
        }
    });
    status
}

fn misplaced(attrs: &[Attribute], errors: &mut Errors) {
    for attr in attrs.iter().filter(|attr| is_rpc(attr)) {
        errors.at(
            attr,
            format!("move this to a variant of an `enum`: `{EXAMPLE}`"),
        );
    }
}
