//! `#[service]` and `#[derive(MethodError)]`, the macros of iip-rpc. Use them through that crate, which re-exports them.
//!
//! How it is built: [`attr`] and [`model`] read the user's trait, [`check`] reports every mistake in it at once, and
//! [`service_trait`], [`client`], [`server`] and [`dyn_twin`] write the code, which only calls the runtime. With mistakes,
//! [`fallback`] writes enough for the rest of the program to compile.

#![forbid(unsafe_code)]

mod attr;
mod check;
mod client;
mod dyn_twin;
mod errors;
mod fallback;
mod method_error;
mod model;
mod server;
mod service_trait;
#[cfg(test)]
mod tests;

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{DeriveInput, Item, ItemTrait, spanned::Spanned};

use crate::{attr::ServiceSettings, errors::Errors, model::ServiceDef};

const NOT_A_TRAIT: &str = "`#[service]` stands on a trait: write \
                           `trait Greeter { async fn hello(&self, name: String) -> Result<String, Status>; }`";

#[proc_macro_attribute]
pub fn service(
    args: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    expand_service(args.into(), item.into()).into()
}

#[proc_macro_derive(MethodError, attributes(status))]
pub fn derive_method_error(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as DeriveInput);
    method_error::expand(&input).into()
}

fn expand_service(args: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let settings = ServiceSettings::parse(args, &mut errors);
    let Some(parsed) = parse_trait(&item, &mut errors) else {
        let errors = errors.into_tokens();
        return quote!(#errors #item);
    };
    let def = ServiceDef::new(&parsed, settings, &mut errors);
    check::service(&def, &mut errors);
    if !errors.is_empty() {
        let errors = errors.into_tokens();
        let fallback = fallback::expand(def);
        return quote!(#errors #fallback);
    }
    let trait_ = service_trait::expand(&parsed);
    let (client, server) = (client::item(&def), server::item(&def));
    let client_impls = client::own_impls(&def);
    let service_impl = client::service_impl(&def, &client::methods(&def));
    let server_impls = server::impls(&def);
    let impls = in_runtime(&def, quote!(#client_impls #service_impl #server_impls));
    let twin = def.settings.dyn_twin.as_ref().map(|_| {
        let item = dyn_twin::item(&def);
        let blanket = dyn_twin::blanket_impl(&def);
        let service_impls = dyn_twin::service_impls(
            &def,
            &dyn_twin::in_object(&def),
            &dyn_twin::in_pointer(&def),
        );
        let impls = in_runtime(&def, quote!(#blanket #service_impls));
        quote!(#item #impls)
    });
    quote!(#trait_ #client #server #impls #twin)
}

/// Puts `impls` where `__rpc` names the runtime and no name of the user's is hidden.
fn in_runtime(def: &ServiceDef<'_>, impls: TokenStream) -> TokenStream {
    let (private, cfgs) = (def.private(), def.cfgs());
    quote! {
        #(#cfgs)*
        const _: () = {
            use #private as __rpc;
            #impls
        };
    }
}

/// The word that says what kind of item this is.
fn keyword(item: &Item) -> Span {
    match item {
        Item::Enum(item) => item.enum_token.span,
        Item::Fn(item) => item.sig.fn_token.span,
        Item::Impl(item) => item.impl_token.span,
        Item::Mod(item) => item.mod_token.span,
        Item::Struct(item) => item.struct_token.span,
        item => item.span(),
    }
}

fn parse_trait(item: &TokenStream, errors: &mut Errors) -> Option<ItemTrait> {
    match syn::parse2::<Item>(item.clone()) {
        Ok(Item::Trait(item)) => return Some(item),
        Ok(other) => errors.at_span(keyword(&other), NOT_A_TRAIT),
        Err(error) => errors.push(error),
    }
    None
}
