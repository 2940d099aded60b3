//! The derive macro `#[derive(Schema)]`.
//!
//! `attributes` reads serde's attributes and those of `schema`, `content` turns fields and variants
//! into tables, and `reasons` finds what needs a codec with names.

mod attributes;
mod content;
mod reasons;
#[cfg(test)]
mod tests;

use proc_macro2::TokenStream;
use quote::quote;
use syn::{
    Data, DeriveInput, Field, Fields, GenericParam, Generics, Path, ext::IdentExt, parse_quote,
};

use crate::errors::Errors;
use crate::schema::attributes::{Place, Serde, Settings};
use crate::schema::content::Collected;
use crate::types::is_named;

/// ```text
/// Input:  struct Order { id: u64 }
/// Output: impl Schema for Order {
///             fn describe(registry: &mut Registry) -> Type {
///                 describe_table::<Self>(registry, &TypeTable { .. }, &[], &[describe_u64])
///             }
///         }
/// ```
pub(crate) fn expand(input: &DeriveInput) -> TokenStream {
    let mut errors = Errors::default();
    let settings = Settings::parse(&input.attrs, Place::Type, &mut errors);
    let serde = Serde::parse(&input.attrs);
    if let Some(span) = serde.remote {
        errors.at_span(
            span,
            "`#[serde(remote = \"..\")]` describes another type: remove `Schema` here, and name \
             a type of the same form at the fields that use it: `#[schema(as = \"Type\")]`",
        );
    }
    let described = Described::new(input, &serde, &settings, &mut errors);
    let is_wrong = !errors.is_empty();
    let errors = errors.into_tokens();
    let body = match is_wrong {
        true => quote! {
            fn describe(_: &mut __schema::Registry) -> __schema::Type {
                __schema::Type::Unit
            }
        },
        false => described.body(input),
    };
    let krate: Path = settings.krate.unwrap_or_else(|| parse_quote!(::iip_rpc));
    let ident = &input.ident;
    let described = with_bounds(&input.generics);
    let (generics, _, conditions) = described.split_for_impl();
    let (_, arguments, _) = input.generics.split_for_impl();
    quote! {
        #errors

        #[allow(deprecated, unused_imports)]
        const _: () = {
            use #krate::__private::schema::__private as __schema;
            use __schema::{ByProbing as _, BySchema as _, NotDescribed as _, Opaquely as _};

            #[automatically_derived]
            impl #generics __schema::Schema for #ident #arguments #conditions {
                #body
            }
        };
    }
}

/// Every type argument describes itself, and nothing is borrowed.
fn with_bounds(generics: &Generics) -> Generics {
    let mut generics = generics.clone();
    for parameter in &mut generics.params {
        match parameter {
            GenericParam::Type(parameter) => parameter.bounds.push(parse_quote!(__schema::Schema)),
            GenericParam::Lifetime(parameter) => parameter.bounds.push(parse_quote!('static)),
            GenericParam::Const(_) => {}
        }
    }
    generics
}

/// The description of a type.
struct Described {
    /// The name for readers.
    name: String,
    doc: String,
    form: Form,
    collected: Collected,
    named_only: bool,
}

enum Form {
    /// Like the one type in `collected`.
    Like,
    /// By a table with this form.
    Table(TokenStream),
}

impl Described {
    fn new(input: &DeriveInput, serde: &Serde, settings: &Settings, errors: &mut Errors) -> Self {
        let ident = input.ident.unraw().to_string();
        let mut collected = Collected::new(ident.clone());
        let form = match (&settings.written_as, &serde.into, &input.data) {
            (Some(ty), ..) | (None, Some(ty), _) => {
                collected.describes(ty);
                Form::Like
            }
            (None, None, Data::Struct(data)) if serde.transparent => {
                if let Some(field) = transparent(&data.fields) {
                    collected.field_type(field, 0, errors);
                }
                Form::Like
            }
            (None, None, Data::Struct(data)) => {
                let content = collected.struct_content(&data.fields, serde, errors);
                Form::Table(match serde.deny_unknown_fields {
                    true => quote!(__schema::Form::Strict(#content)),
                    false => quote!(__schema::Form::Struct(#content)),
                })
            }
            (None, None, Data::Enum(data)) => Form::Table(collected.enum_form(data, serde, errors)),
            (None, None, Data::Union(data)) => {
                errors.at(
                    data.union_token,
                    "write a `struct` or an `enum`: a union cannot be sent",
                );
                Form::Like
            }
        };
        Self {
            name: serde.names.resolve(ident.clone(), ident).name,
            doc: attributes::doc(&input.attrs),
            form,
            collected,
            named_only: settings.named_only,
        }
    }

    fn body(&self, input: &DeriveInput) -> TokenStream {
        let reasons = match self.named_only {
            true => quote!(
                const IS_NAMED_ONLY: bool = true;
            ),
            false => TokenStream::new(),
        };
        let nested = self.collected.reasons(self.named_only);
        let types = &self.collected.types;
        let Self { name, doc, .. } = self;
        let call = match &self.form {
            Form::Like => {
                quote!(__schema::describe_as::<Self>(__registry, #name, #(#types)*))
            }
            Form::Table(form) => {
                let arguments = arguments(&input.generics);
                quote! {
                    const TABLE: &__schema::TypeTable =
                        &__schema::TypeTable { name: #name, doc: #doc, form: #form };
                    __schema::describe_table::<Self>(
                        __registry, TABLE, &[#(#arguments),*], &[#(#types),*],
                    )
                }
            }
        };
        quote! {
            #reasons
            #nested
            fn describe(__registry: &mut __schema::Registry) -> __schema::Type {
                #call
            }
        }
    }
}

/// The arguments of a generic type, for its name.
fn arguments(generics: &Generics) -> Vec<TokenStream> {
    let arguments = generics
        .params
        .iter()
        .filter_map(|parameter| match parameter {
            GenericParam::Type(parameter) => {
                let ident = &parameter.ident;
                Some(quote!(__schema::Argument::Type(<#ident as __schema::Schema>::describe)))
            }
            GenericParam::Const(parameter) => {
                let ident = &parameter.ident;
                Some(quote!(__schema::Argument::Value(&#ident)))
            }
            GenericParam::Lifetime(_) => None,
        });
    arguments.collect()
}

/// The field that a struct with `transparent` is written like.
fn transparent(fields: &Fields) -> Option<&Field> {
    let is_written = |field: &&Field| {
        !Serde::parse(&field.attrs).skip_serializing && !is_named(&field.ty, "PhantomData")
    };
    fields
        .iter()
        .find(is_written)
        .or_else(|| fields.iter().next())
}
