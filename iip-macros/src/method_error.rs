//! The derive macro `#[derive(MethodError)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{
    Attribute, Data, DataEnum, DataStruct, DeriveInput, Field, Fields, Ident, Member, Meta, Path,
    Variant, parse_quote, spanned::Spanned,
};

use crate::{attr::each_setting, errors::Errors, http_status, model::reported_at, types::is_named};

/// An example of the variant that holds the status, for messages.
const MARK: &str = "#[status] Rpc(Status)";

/// ```text
/// Input:  enum GreetError { EmptyName, #[status] Rpc(Status) }
/// Output: impl MethodError for GreetError { fn as_status(&self) -> Option<&Status> { .. } }
///         impl From<Status> for GreetError {
///             fn from(status: Status) -> Self { Self::Rpc(status) }
///         }
/// ```
pub(crate) fn expand(input: &DeriveInput) -> TokenStream {
    let mut errors = Errors::default();
    let krate = krate(&input.attrs, &mut errors);
    let holder = match &input.data {
        Data::Enum(data) => in_enum(input, data, &mut errors),
        Data::Struct(data) => in_struct(input, data, &mut errors),
        Data::Union(data) => {
            errors.at(data.union_token, "write an `enum`: a union cannot be sent");
            None
        }
    };
    let is_status = |variant: &Variant| {
        let holder = holder.as_ref().and_then(|holder| holder.variant);
        holder == Some(&variant.ident)
    };
    let statuses = http_status::list(input, is_status, &mut errors);
    // With mistakes, the impls are still generated if possible, for the methods that return this
    // error.
    let impls = holder
        .as_ref()
        .map(|holder| impls(input, &krate, holder, &statuses));
    let errors = errors.into_tokens();
    quote!(#errors #impls)
}

/// The variant, or struct, that contains the framework's status.
struct StatusVariant<'a> {
    /// `None` in a struct.
    variant: Option<&'a Ident>,
    /// `true` if there are no other variants.
    alone: bool,
    field: &'a Field,
    member: Member,
}

fn in_enum<'a>(
    input: &'a DeriveInput,
    data: &'a DataEnum,
    errors: &mut Errors,
) -> Option<StatusVariant<'a>> {
    let mut holders = data.variants.iter().filter(|variant| {
        let fields = variant.fields.iter().flat_map(|field| &field.attrs);
        let mut found = variant
            .attrs
            .iter()
            .chain(fields)
            .filter(|attr| is_status(attr))
            .peekable();
        let any = found.peek().is_some();
        found.for_each(|attr| without_settings(attr, errors));
        any
    });
    let Some(variant) = holders.next() else {
        drop(holders);
        errors.at(
            &input.ident,
            format!("add a variant for failures that are not the method's own: `{MARK}`"),
        );
        return None;
    };
    let others: Vec<_> = holders.collect();
    for other in others {
        errors.at(
            other,
            "remove `#[status]` from this variant: one variant holds the status",
        );
    }
    let Some((member, field)) = only_field(&variant.fields) else {
        errors.at(
            variant,
            format!("give this variant one field, the status: `{MARK}`"),
        );
        return None;
    };
    Some(StatusVariant {
        variant: Some(&variant.ident),
        alone: data.variants.len() == 1,
        field,
        member,
    })
}

fn in_struct<'a>(
    input: &'a DeriveInput,
    data: &'a DataStruct,
    errors: &mut Errors,
) -> Option<StatusVariant<'a>> {
    let holder = only_field(&data.fields).map(|(member, field)| StatusVariant {
        variant: None,
        alone: true,
        field,
        member,
    });
    if holder.is_none() {
        errors.at(
            &input.ident,
            format!(
                "write an `enum` with a variant for failures that are not the method's own: \
                `{MARK}`"
            ),
        );
    }
    holder
}

fn only_field(fields: &Fields) -> Option<(Member, &Field)> {
    let mut all = fields.members().zip(fields);
    all.next().filter(|_| all.next().is_none())
}

fn impls(
    input: &DeriveInput,
    krate: &Path,
    holder: &StatusVariant<'_>,
    http_statuses: &[TokenStream],
) -> TokenStream {
    let ident = &input.ident;
    let (generics, arguments, conditions) = input.generics.split_for_impl();
    let private = quote!(#krate::__private);
    let (member, ty) = (&holder.member, &holder.field.ty);
    let place = match holder.variant {
        Some(variant) => quote!(Self::#variant),
        None => quote!(Self),
    };
    let others = (!holder.alone).then(|| quote!(_ => #private::None,));
    // If the field is not a `Status`, the error is reported at its type.
    let found = quote_spanned!(reported_at(ty.span())=> #private::Some(status));
    let is_boxed = ["Box", "Arc"].iter().any(|name| is_named(ty, name));
    let made = match is_boxed {
        true => quote!(#private::From::from(status)),
        false => quote_spanned!(reported_at(ty.span())=> status),
    };
    let has_from = holder
        .field
        .attrs
        .iter()
        .any(|attr| attr.path().is_ident("from"));
    // thiserror's `#[from]` generates this impl as well, unless it is one for the box.
    let from = (is_boxed || !has_from).then(|| {
        quote! {
            impl #generics #private::From<#private::Status> for #ident #arguments #conditions {
                fn from(status: #private::Status) -> Self {
                    #place { #member: #made }
                }
            }
        }
    });
    let statuses = (!http_statuses.is_empty()).then(|| {
        quote! {
            const HTTP_STATUSES: &'static [(::core::primitive::u32, ::core::primitive::u16)] =
                &[#(#http_statuses),*];
        }
    });
    quote! {
        impl #generics #private::MethodError for #ident #arguments #conditions {
            #statuses

            fn as_status(&self) -> #private::Option<&#private::Status> {
                match self {
                    #place { #member: status } => #found,
                    #others
                }
            }
        }

        #from
    }
}

/// Returns `true` if this is `#[status]`, with or without settings.
fn is_status(attr: &Attribute) -> bool {
    attr.path().is_ident("status")
}

fn without_settings(attr: &Attribute, errors: &mut Errors) {
    if !matches!(attr.meta, Meta::Path(_)) {
        errors.at(attr, "write `#[status]` alone");
    }
}

/// Parses `#[status(crate = ::renamed)]` on the whole type.
fn krate(attrs: &[Attribute], errors: &mut Errors) -> Path {
    const EXAMPLE: &str = "#[status(crate = ::iip_rpc)]";
    let attrs = attrs.iter().filter(|attr| is_status(attr));
    let bare = format!("move `#[status]` to the variant that holds the status: `{MARK}`");
    let mut krate = None;
    each_setting(attrs, EXAMPLE, &bare, errors, |setting, errors| {
        let key = &setting.key;
        if key == "crate" {
            krate = setting.path(errors);
        } else {
            errors.at(
                key,
                format!("unknown setting `{key}`: the whole type takes `{EXAMPLE}`"),
            );
        }
    });
    krate.unwrap_or_else(|| parse_quote!(::iip_rpc))
}
