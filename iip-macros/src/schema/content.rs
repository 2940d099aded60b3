//! Fields and variants as tables, with the types in them.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{DataEnum, Field, Fields, FieldsNamed, Type, Variant, ext::IdentExt};

use crate::errors::Errors;
use crate::schema::attributes::{Cases, Named, Place, Serde, Settings, doc};
use crate::schema::reasons;

/// The descriptions of the fields of a type, in order.
pub(super) struct Collected {
    /// The functions that describe the fields.
    pub(super) types: Vec<TokenStream>,
    /// The types in which there may be a reason for a codec with names.
    nested: Vec<TokenStream>,
    /// The reason why the type itself needs a codec with names.
    reason: Option<String>,
    /// The type or variant that the fields belong to, for reasons.
    owner: String,
}

impl Collected {
    pub(super) fn new(owner: String) -> Self {
        Self {
            types: Vec::new(),
            nested: Vec::new(),
            reason: None,
            owner,
        }
    }

    /// Adds this type.
    pub(super) fn describes(&mut self, ty: &Type) {
        self.types
            .push(quote!((&&&__schema::Describe::<#ty>::new()).function()));
        if !reasons::is_plain(ty) {
            self.nested.push(quote!(#ty));
        }
    }

    /// Returns the constants with the reasons why the type needs a codec with names.
    pub(super) fn reasons(&self, declared: bool) -> TokenStream {
        let own = self.reason.as_ref().map(|reason| {
            quote! {
                const NAMED_ONLY: ::core::option::Option<&'static str> =
                    ::core::option::Option::Some(#reason);
            }
        });
        if own.is_some() || declared || self.nested.is_empty() {
            return own.into_token_stream();
        }
        reasons::nested(&self.nested)
    }

    fn because(&mut self, attribute: &str, place: Option<(&str, &str)>) {
        let owner = &self.owner;
        self.reason.get_or_insert_with(|| match place {
            Some((kind, name)) => format!("`{attribute}` of the {kind} `{name}` of `{owner}`"),
            None => format!("`{attribute}` of `{owner}`"),
        });
    }

    /// The content of a struct.
    pub(super) fn struct_content(
        &mut self,
        fields: &Fields,
        serde: &Serde,
        errors: &mut Errors,
    ) -> TokenStream {
        if let (Fields::Named(fields), Some(tag)) = (fields, &serde.tag) {
            self.because("tag", None);
            self.types.push(quote!(__schema::text));
            let tag = quote! {
                __schema::FieldTable {
                    name: #tag,
                    aliases: &[],
                    doc: "",
                    marks: __schema::FieldTable::WRITE_ONLY,
                },
            };
            return self.named(fields, serde.rename_all, serde.default, tag, errors);
        }
        self.content(fields, serde.rename_all, serde.default, errors)
    }

    fn content(
        &mut self,
        fields: &Fields,
        rename_all: Cases,
        default: bool,
        errors: &mut Errors,
    ) -> TokenStream {
        match fields {
            Fields::Unit => quote!(__schema::Content::Unit),
            Fields::Named(fields) => {
                self.named(fields, rename_all, default, TokenStream::new(), errors)
            }
            Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
                self.field_type(&fields.unnamed[0], 0, errors);
                quote!(__schema::Content::Newtype)
            }
            Fields::Unnamed(fields) => {
                let before = self.types.len();
                for (index, field) in fields.unnamed.iter().enumerate() {
                    if !Serde::parse(&field.attrs).is_skipped() {
                        self.field_type(field, index, errors);
                    }
                }
                let count = self.types.len() - before;
                quote!(__schema::Content::Tuple(#count))
            }
        }
    }

    fn named(
        &mut self,
        fields: &FieldsNamed,
        rename_all: Cases,
        default: bool,
        first: TokenStream,
        errors: &mut Errors,
    ) -> TokenStream {
        let mut table = first;
        for (index, field) in fields.named.iter().enumerate() {
            let serde = Serde::parse(&field.attrs);
            if serde.is_skipped() {
                // Its settings are checked anyway.
                Settings::parse(&field.attrs, Place::Field, errors);
                continue;
            }
            let secret = self.field_type(field, index, errors);
            let [written, read] = rename_all.of_field(&name(field, index));
            let Named { name, aliases } = serde.names.resolve(written, read);
            let doc = doc(&field.attrs);
            let marks = [
                (serde.default || default, quote!(DEFAULT)),
                (serde.skip_serializing_if, quote!(MAY_BE_SKIPPED)),
                (serde.flatten, quote!(FLATTEN)),
                (serde.skip_serializing, quote!(READ_ONLY)),
                (serde.skip_deserializing, quote!(WRITE_ONLY)),
                (secret, quote!(SECRET)),
            ];
            let marks = marks.iter().filter(|(is, _)| *is);
            let marks: Vec<_> = marks
                .map(|(_, mark)| quote!(__schema::FieldTable::#mark))
                .collect();
            let marks = match &*marks {
                [] => quote!(0),
                marks => quote!(#(#marks)|*),
            };
            table.extend(quote! {
                __schema::FieldTable {
                    name: #name, aliases: &[#(#aliases),*], doc: #doc, marks: #marks,
                },
            });
        }
        quote!(__schema::Content::Named(&[#table]))
    }

    /// Adds the type of a field. Returns `true` if the field is secret.
    pub(super) fn field_type(&mut self, field: &Field, index: usize, errors: &mut Errors) -> bool {
        let serde = Serde::parse(&field.attrs);
        let settings = Settings::parse(&field.attrs, Place::Field, errors);
        if let (Some(span), None) = (settings.secret, &field.ident) {
            errors.at_span(
                span,
                "`secret` needs a name that tools can hide: name the field",
            );
        }
        let needs_names = [
            (serde.skip_serializing_if, "skip_serializing_if"),
            (serde.flatten, "flatten"),
            (
                serde.skip_serializing && !serde.skip_deserializing,
                "skip_serializing",
            ),
            (
                serde.skip_deserializing && !serde.skip_serializing,
                "skip_deserializing",
            ),
        ];
        if let Some((_, attribute)) = needs_names.iter().find(|(is, _)| *is) {
            self.because(attribute, Some(("field", &name(field, index))));
        }
        let ty = &field.ty;
        match settings.written_as {
            Some(written) => self.written_as(&written),
            None if serde.with => self.types.push(quote!(__schema::opaque::<#ty>)),
            None => self.describes(ty),
        }
        settings.secret.is_some()
    }

    /// Adds a type that is written in place of that of a field. It may contain the type with this
    /// field in any way, so the constants look into it as into a container.
    fn written_as(&mut self, ty: &Type) {
        self.types
            .push(quote!((&&&__schema::Describe::<#ty>::new()).function()));
        self.nested.push(quote!(::std::boxed::Box<#ty>));
    }

    /// The form of an enum.
    pub(super) fn enum_form(
        &mut self,
        data: &DataEnum,
        serde: &Serde,
        errors: &mut Errors,
    ) -> TokenStream {
        match (serde.untagged, &serde.tag, &serde.content) {
            (true, ..) => self.because("untagged", None),
            (_, Some(_), None) => self.because("tag", None),
            (_, Some(_), Some(_)) => self.because("tag, content", None),
            _ => {}
        }
        let last = data.variants.len().saturating_sub(1);
        let mut table = TokenStream::new();
        let owner = self.owner.clone();
        for (index, variant) in data.variants.iter().enumerate() {
            let attributes = Serde::parse(&variant.attrs);
            let ident = variant.ident.unraw().to_string();
            let place = Some(("variant", &*ident));
            if attributes.untagged {
                self.because("untagged", place);
            }
            // Readers count the variants that they know.
            if attributes.skip_deserializing && index < last {
                let key = match attributes.skip_serializing {
                    true => "skip",
                    false => "skip_deserializing",
                };
                self.because(key, place);
            }
            if attributes.is_skipped() {
                Settings::parse(&variant.attrs, Place::Variant, errors);
                continue;
            }
            self.owner = format!("{owner}::{ident}");
            table.extend(self.variant(variant, index, &attributes, serde, errors));
            self.owner.clone_from(&owner);
        }
        if serde.untagged {
            return quote!(__schema::Form::Untagged(&[#table]));
        }
        let [tag, content] = [&serde.tag, &serde.content].map(|text| match text {
            Some(text) => quote!(::core::option::Option::Some(#text)),
            None => quote!(::core::option::Option::None),
        });
        quote!(__schema::Form::Enum(#tag, #content, &[#table]))
    }

    fn variant(
        &mut self,
        variant: &Variant,
        index: usize,
        serde: &Serde,
        container: &Serde,
        errors: &mut Errors,
    ) -> TokenStream {
        let settings = Settings::parse(&variant.attrs, Place::Variant, errors);
        let [written, read] = container
            .rename_all
            .of_variant(&variant.ident.unraw().to_string());
        let Named { name, aliases } = serde.names.resolve(written, read);
        let is_written = |field: &Field| !Serde::parse(&field.attrs).skip_serializing;
        let content = match (&settings.written_as, &variant.fields) {
            (Some(ty), _) => {
                self.written_as(ty);
                quote!(__schema::Content::Newtype)
            }
            (None, fields) if serde.with => {
                let types = fields.iter().map(|field| &field.ty);
                self.types.push(quote!(__schema::opaque::<(#(#types,)*)>));
                quote!(__schema::Content::Newtype)
            }
            (None, Fields::Unnamed(fields))
                if fields.unnamed.len() == 1 && !is_written(&fields.unnamed[0]) =>
            {
                quote!(__schema::Content::Unit)
            }
            (None, fields) => {
                let rename_all = serde.rename_all.or(container.rename_all_fields);
                self.content(fields, rename_all, false, errors)
            }
        };
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        let doc = doc(&variant.attrs);
        let (other, untagged) = (serde.other, serde.untagged);
        quote! {
            __schema::VariantTable {
                name: #name,
                index: #index,
                aliases: &[#(#aliases),*],
                doc: #doc,
                other: #other,
                untagged: #untagged,
                content: #content,
            },
        }
    }
}

/// The name of a field in Rust, or its position.
fn name(field: &Field, index: usize) -> String {
    match &field.ident {
        Some(ident) => ident.unraw().to_string(),
        None => index.to_string(),
    }
}
