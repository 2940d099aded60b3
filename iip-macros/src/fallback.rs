//! The expansion of a service with mistakes: everything that other code names, so that only the
//! mistakes are reported.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{FnArg, Ident, ItemTrait, ReturnType, Token, TraitItem, TraitItemFn, parse_quote};

use crate::{
    attr, client, dyn_twin, forward,
    model::{ServiceDef, is_implied, is_plain_name},
    server, service_trait,
    types::{NestedTypes, first_argument_mut, streamed_item},
};

/// Generates the trait, a client whose methods compile but never return, and a server without
/// methods.
pub(crate) fn expand(mut def: ServiceDef<'_>) -> TokenStream {
    let trait_ = service_trait::expand(&acceptable(def.item), def.settings.dyn_twin.is_some());
    let stubs = stubs(def.item);
    // The rest is expanded like a service without methods.
    def.methods.clear();
    let item = client::item(&def);
    let own_impls = client::own_impls(&def);
    let service_impl = stubs
        .as_ref()
        .map(|stubs| client::service_impl(&def, stubs));
    let server = server::item(&def);
    let server_impls = server::impls(&def);
    let pointer_impls = stubs
        .as_ref()
        .and_then(|stubs| forward::pointer_impls(&def, stubs));
    let twin = def.settings.dyn_twin.as_ref().map(|_| {
        let item = dyn_twin::item(&def);
        let blanket = dyn_twin::blanket_impl(&def);
        let alone = def.supertraits().all(is_implied);
        let stubs = stubs.as_ref().filter(|_| alone);
        let object = stubs.map(|stubs| dyn_twin::object_impl(&def, stubs));
        let block = def.hygienic_block(quote!(#blanket #object));
        quote!(#item #block)
    });
    let block = quote!(#own_impls #service_impl #server_impls #pointer_impls);
    let block = def.hygienic_block(block);
    quote!(#trait_ #item #server #block #twin)
}

/// Returns the trait without anything that the compiler would also reject and report a second time.
fn acceptable(item: &ItemTrait) -> ItemTrait {
    let mut item = item.clone();
    let mut seen: Vec<Ident> = Vec::new();
    item.items.retain(|item| match item {
        TraitItem::Fn(method) if !method.attrs.iter().any(attr::is_cfg) => {
            let first = !seen.contains(&method.sig.ident);
            seen.push(method.sig.ident.clone());
            first
        }
        _ => true,
    });
    for item in &mut item.items {
        let TraitItem::Fn(method) = item else {
            continue;
        };
        if method.default.take().is_some() {
            method.semi_token = Some(Token![;](method.sig.ident.span()));
        }
        method.sig.constness = None;
        if let ReturnType::Type(_, ty) = &method.sig.output
            && !NestedTypes::of(ty).own.is_empty()
        {
            method
                .sig
                .generics
                .make_where_clause()
                .predicates
                .push(parse_quote!(Self: ::core::marker::Sized));
        }
        for arg in &mut method.sig.inputs {
            match arg {
                FnArg::Receiver(receiver) => receiver.mutability = None,
                FnArg::Typed(arg) => {
                    arg.attrs.clear();
                    if !is_plain_name(&arg.pat) {
                        *arg.pat = parse_quote!(_);
                    }
                }
            }
        }
    }
    item
}

/// Generates the trait's methods with bodies that never return; `None` if the trait requires more
/// than methods, or a type that cannot be generated.
fn stubs(item: &ItemTrait) -> Option<TokenStream> {
    let methods = acceptable(item).items.into_iter().map(|item| match item {
        TraitItem::Fn(method) => stub(method),
        _ => None,
    });
    let methods = methods.collect::<Option<Vec<_>>>()?;
    item.unsafety.is_none().then(|| quote!(#(#methods)*))
}

fn stub(mut method: TraitItemFn) -> Option<TokenStream> {
    let mut refines = None;
    if let ReturnType::Type(_, ty) = &mut method.sig.output
        && let Some(item) = streamed_item(ty)
        && let Some(stream) = first_argument_mut(ty)
    {
        *stream = parse_quote!(__rpc::StreamOf<#item>);
        refines = Some(quote!(#[allow(refining_impl_trait)]));
    }
    if let ReturnType::Type(_, ty) = &method.sig.output
        && !NestedTypes::of(ty).opaque.is_empty()
    {
        return None;
    }
    // A future that never ends is `Send` regardless of the types of the method.
    let body = match method.sig.asyncness {
        Some(_) => quote!(::core::future::pending()),
        None => quote!(::core::unreachable!()),
    };
    service_trait::expand_method(&mut method);
    // The body uses no argument, and names that begin with an underscore cause no warning.
    for (index, arg) in method.sig.inputs.iter_mut().enumerate() {
        if let FnArg::Typed(arg) = arg {
            let name = quote::format_ident!("_{index}");
            *arg.pat = parse_quote!(#name);
        }
    }
    let cfgs = method.attrs.iter().filter(|attr| attr::is_cfg(attr));
    let sig = &method.sig;
    Some(quote!(#(#cfgs)* #refines #sig { #body }))
}
