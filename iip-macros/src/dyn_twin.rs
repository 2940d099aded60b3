//! The twin of a service that can be a trait object, for `#[service(dyn)]`.

use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote};
use syn::{Path, parse_quote};

use crate::{
    forward::{call, forward, in_lifetime, service_method},
    model::{MethodDef, ServiceDef},
    service_trait::supertraits,
};

/// Generates the twin trait, made `dyn`-compatible by async-trait.
///
/// Its methods have other names than those of the service, so that a call is unambiguous if both
/// traits are in scope; users call a trait object through the service, which `dyn DynGreeter`
/// implements.
pub(crate) fn item(def: &ServiceDef<'_>) -> TokenStream {
    let (twin, vis, private, item) = (&def.twin, &def.item.vis, def.private(), def.item);
    let (attrs, allows, supertraits) = (def.item_attrs(), def.allows(), supertraits());
    let (params, conditions) = (&item.generics.params, &item.generics.where_clause);
    let methods = def.methods.iter().map(|method| {
        let head = head(method, &private);
        quote!(#[doc(hidden)] #head;)
    });
    let name = &item.ident;
    let doc = format!(
        " [`{name}`] as a trait object, for example in an `Arc<dyn {twin}>`: every `{name}` is \
         one, and such an object, or an `Arc` or `Box` of it or a reference to it, is a \
         [`{name}`] again."
    );
    quote! {
        #(#attrs)*
        #(#allows)*
        #[doc = #doc]
        #[#private::async_trait]
        #vis trait #twin<#params>: #(#supertraits)+* #conditions {
            #(#methods)*
        }
    }
}

/// Generates the twin for every implementation of the service, in code where `__rpc` names the
/// runtime.
pub(crate) fn blanket_impl(def: &ServiceDef<'_>) -> TokenStream {
    let (twin, implementation) = (&def.twin, &def.implementation);
    let allows = def.allows();
    let generics = def.implementation_generics(&[]);
    let (impl_generics, _, conditions) = generics.split_for_impl();
    let (_, arguments, _) = def.item.generics.split_for_impl();
    let methods = def.methods.iter().map(|method| {
        let head = head(method, &parse_quote!(__rpc));
        let call = call(method, service_method(def, method));
        match &method.replies {
            None => quote!(#head { #call.await }),
            Some(_) => quote!(#head { __rpc::boxed(#call.await) }),
        }
    });
    quote! {
        #(#allows)*
        #[__rpc::async_trait]
        impl #impl_generics #twin #arguments for #implementation #conditions {
            #(#methods)*
        }
    }
}

/// Generates the service for a trait object, with these methods.
pub(crate) fn object_impl(def: &ServiceDef<'_>, methods: &TokenStream) -> TokenStream {
    let (twin, service) = (&def.twin, &def.item.ident);
    let allows = def.allows();
    let generics = def.generics();
    let (_, arguments, conditions) = generics.split_for_impl();
    // The object may have any lifetime: the compiler does not know it when it decides if a future
    // is `Send`.
    let object_generics = in_lifetime(&generics);
    let (object_generics, ..) = object_generics.split_for_impl();
    quote! {
        #(#allows)*
        impl #object_generics #service #arguments for dyn #twin #arguments + '__lent #conditions {
            #methods
        }
    }
}

/// Generates the methods of the service for a trait object, which call those of the twin.
pub(crate) fn object_methods(def: &ServiceDef<'_>) -> TokenStream {
    let twin = &def.twin;
    let method = |method: &MethodDef<'_>| {
        let called = twin_ident(method);
        let call = call(method, quote!(#twin::#called));
        let reply = match &method.replies {
            None => quote!(#call.await),
            Some(_) => {
                quote!(__rpc::held(async move |stream| stream.pass(#call.await).await).await)
            }
        };
        forward(method, reply)
    };
    def.methods.iter().map(method).collect()
}

fn twin_ident(method: &MethodDef<'_>) -> Ident {
    format_ident!("dyn_{}", method.ident())
}

/// ```text
/// Output: async fn dyn_hello(&self, name: &str) -> Result<String, Status>
/// ```
fn head(method: &MethodDef<'_>, private: &Path) -> TokenStream {
    let cfgs = method.cfgs();
    let ident = twin_ident(method);
    // `'async_trait` is the lifetime that async-trait gives to the future: that of everything the
    // call borrows.
    let output = method.output_with(|item| parse_quote!(#private::BoxStream<'async_trait, #item>));
    let parameters = method.parameters();
    quote! {
        #(#cfgs)*
        async fn #ident(&self, #(#parameters),*) -> #output
    }
}
