//! The service for pointers to an implementation: each method calls that of the target.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Generics, parse_quote};

use crate::model::{MethodDef, ServiceDef, is_implied};

/// Generates the service for an `Arc` of an implementation, and with `dyn` for a `Box` and a
/// reference too, with these methods.
///
/// Generates nothing if the trait requires more than its methods, which the pointer would not have.
pub(crate) fn pointer_impls(def: &ServiceDef<'_>, methods: &TokenStream) -> Option<TokenStream> {
    if !def.supertraits().all(is_implied) {
        return None;
    }
    let (service, implementation) = (&def.item.ident, &def.implementation);
    let allows = def.allows();
    let generics = def.implementation_generics(&[parse_quote!(?::core::marker::Sized)]);
    let (_, arguments, _) = def.item.generics.split_for_impl();
    let pointer_impl = |generics: &Generics, pointer: TokenStream| {
        let (generics, _, conditions) = generics.split_for_impl();
        quote! {
            #(#allows)*
            impl #generics #service #arguments for #pointer #conditions {
                #methods
            }
        }
    };
    let shared = pointer_impl(&generics, quote!(__rpc::Arc<#implementation>));
    let others = def.settings.dyn_twin.as_ref().map(|_| {
        let boxed = pointer_impl(&generics, quote!(__rpc::Box<#implementation>));
        let reference = pointer_impl(&in_lifetime(&generics), quote!(&'__lent #implementation));
        quote!(#boxed #reference)
    });
    Some(quote!(#shared #others))
}

/// Generates these methods.
pub(crate) fn pointer_methods(def: &ServiceDef<'_>) -> TokenStream {
    let method = |method: &MethodDef<'_>| {
        let call = call(method, service_method(def, method));
        forward(method, quote!(#call.await))
    };
    def.methods.iter().map(method).collect()
}

/// Returns `generics` with an additional lifetime for the reference.
pub(crate) fn in_lifetime(generics: &Generics) -> Generics {
    let mut generics = generics.clone();
    generics.params.insert(0, parse_quote!('__lent));
    generics
}

/// ```text
/// Output: async fn hello(&self, name: &str) -> Result<String, Status> {
///             <T as Greeter>::hello(self, name).await
///         }
/// ```
pub(crate) fn forward(method: &MethodDef<'_>, reply: TokenStream) -> TokenStream {
    let cfgs = method.cfgs();
    let (ident, output) = (method.ident(), method.output());
    let parameters = method.parameters();
    quote! {
        #(#cfgs)*
        async fn #ident(&self, #(#parameters),*) -> #output {
            #reply
        }
    }
}

/// Generates a call of `callee` with the arguments of the method.
pub(crate) fn call(method: &MethodDef<'_>, callee: TokenStream) -> TokenStream {
    let names = method.parameter_names();
    quote!(#callee(self #(, #names)*))
}

/// Generates the path of the method of the implementation.
pub(crate) fn service_method(def: &ServiceDef<'_>, method: &MethodDef<'_>) -> TokenStream {
    let (service, implementation, called) = (&def.item.ident, &def.implementation, method.ident());
    let (_, arguments, _) = def.item.generics.split_for_impl();
    quote!(<#implementation as #service #arguments>::#called)
}
