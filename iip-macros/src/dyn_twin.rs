//! `#[service(dyn)]`: the twin of a service that can be a trait object.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote};
use syn::{
    Lifetime, Path, TypeFnPtr, TypeParamBound, TypeReference, parse_quote,
    visit_mut::{self, VisitMut},
};

use crate::model::{MethodDef, ServiceDef};

/// The twin trait. Its methods are named apart from those of the service, so that a call stays unambiguous where both traits
/// are in scope; users call a trait object through the service, which `dyn DynGreeter` implements.
pub(crate) fn item(def: &ServiceDef<'_>, supertraits: &[TypeParamBound]) -> TokenStream {
    let (twin, vis, private, item) = (&def.twin, &def.item.vis, def.private(), def.item);
    let (attrs, allows) = (def.item_attrs(), def.allows());
    let (params, conditions) = (&item.generics.params, &item.generics.where_clause);
    let methods = def.methods.iter().map(|method| {
        let head = boxed_head(method, &private);
        quote!(#[doc(hidden)] #head;)
    });
    let name = &item.ident;
    let doc = format!(
        " [`{name}`] as a trait object, for example in an `Arc<dyn {twin}>`: every `{name}` is one, and such an object, or an \
         `Arc` or `Box` of it, is a [`{name}`] again."
    );
    quote! {
        #(#attrs)*
        #(#allows)*
        #[doc = #doc]
        #vis trait #twin<#params>: #(#supertraits)+* #conditions {
            #(#methods)*
        }
    }
}

/// The twin for every implementation of the service, in code where `__rpc` names the runtime.
pub(crate) fn blanket_impl(def: &ServiceDef<'_>) -> TokenStream {
    let (twin, implementation) = (&def.twin, &def.implementation);
    let allows = def.allows();
    let generics = def.implementation_generics();
    let (impl_generics, _, conditions) = generics.split_for_impl();
    let (_, arguments, _) = def.item.generics.split_for_impl();
    let methods = def.methods.iter().map(|method| {
        let head = boxed_head(method, &parse_quote!(__rpc));
        let call = call(method, service_method(def, method));
        match &method.replies {
            None => quote!(#head { __rpc::Box::pin(#call) }),
            Some(_) => quote!(#head { __rpc::Box::pin(async move { __rpc::boxed(#call.await) }) }),
        }
    });
    quote! {
        #(#allows)*
        impl #impl_generics #twin #arguments for #implementation #conditions {
            #(#methods)*
        }
    }
}

/// The service for the trait object, with the methods `in_object`, and for pointers to any service, with `in_pointer`.
pub(crate) fn service_impls(
    def: &ServiceDef<'_>,
    in_object: &TokenStream,
    in_pointer: &TokenStream,
) -> TokenStream {
    let (twin, service, implementation) = (&def.twin, &def.item.ident, &def.implementation);
    let allows = def.allows();
    let generics = def.generics();
    let (impl_generics, arguments, conditions) = generics.split_for_impl();
    let mut pointee = def.implementation_generics();
    for param in pointee
        .type_params_mut()
        .filter(|param| param.ident == *implementation)
    {
        param.bounds.push(parse_quote!(?::core::marker::Sized));
    }
    let (pointee_generics, ..) = pointee.split_for_impl();
    quote! {
        #(#allows)*
        impl #impl_generics #service #arguments for dyn #twin #arguments #conditions {
            #in_object
        }

        #(#allows)*
        impl #pointee_generics #service #arguments for __rpc::Arc<#implementation> #conditions {
            #in_pointer
        }

        #(#allows)*
        impl #pointee_generics #service #arguments for __rpc::Box<#implementation> #conditions {
            #in_pointer
        }
    }
}

/// The methods of the service for the trait object: by the twin.
pub(crate) fn in_object(def: &ServiceDef<'_>) -> TokenStream {
    let twin = &def.twin;
    let forward = |method| {
        let called = twin_ident(method);
        forward(method, quote!(#twin::#called))
    };
    def.methods.iter().map(forward).collect()
}

/// The methods of the service for a pointer: by the value behind it.
pub(crate) fn in_pointer(def: &ServiceDef<'_>) -> TokenStream {
    def.methods
        .iter()
        .map(|method| forward(method, service_method(def, method)))
        .collect()
}

/// ```text
/// Output: async fn hello(&self, name: &str) -> Result<String, Status> { <T as Greeter>::hello(self, name).await }
/// ```
fn forward(method: &MethodDef<'_>, callee: TokenStream) -> TokenStream {
    let cfgs = method.cfgs();
    let (ident, output) = (method.ident(), method.output());
    let parameters = method.parameters();
    let call = call(method, callee);
    quote! {
        #(#cfgs)*
        async fn #ident(&self, #(#parameters),*) -> #output {
            #call.await
        }
    }
}

fn call(method: &MethodDef<'_>, callee: TokenStream) -> TokenStream {
    let names = method.parameter_names();
    quote!(#callee(self #(, #names)*))
}

fn service_method(def: &ServiceDef<'_>, method: &MethodDef<'_>) -> TokenStream {
    let (service, implementation, called) = (&def.item.ident, &def.implementation, method.ident());
    let (_, arguments, _) = def.item.generics.split_for_impl();
    quote!(<#implementation as #service #arguments>::#called)
}

fn twin_ident(method: &MethodDef<'_>) -> Ident {
    format_ident!("dyn_{}", method.ident())
}

/// ```text
/// Output: fn dyn_hello<'__call>(&'__call self, name: &'__call str) -> BoxFuture<'__call, Result<String, Status>>
/// ```
///
/// The box must have one lifetime, so that of everything the call borrows is the same. (async-trait writes a bound for each
/// lifetime instead, and names from the prelude, which not every module has.)
fn boxed_head(method: &MethodDef<'_>, private: &Path) -> TokenStream {
    let cfgs = method.cfgs();
    let ident = twin_ident(method);
    let output = method.output_with(|item| parse_quote!(#private::BoxStream<'__call, #item>));
    let parameters = method.all_args().map(|arg| {
        let (ident, mut ty) = (arg.ident, arg.ty.clone());
        NameLifetimes.visit_type_mut(&mut ty);
        quote!(#ident: #ty)
    });
    quote! {
        #(#cfgs)*
        fn #ident<'__call>(&'__call self, #(#parameters),*) -> #private::BoxFuture<'__call, #output>
    }
}

/// Writes `'__call` for every lifetime that is left out.
struct NameLifetimes;

impl VisitMut for NameLifetimes {
    fn visit_type_reference_mut(&mut self, reference: &mut TypeReference) {
        reference
            .lifetime
            .get_or_insert_with(|| Lifetime::new("'_", reference.and_token.span));
        visit_mut::visit_type_reference_mut(self, reference);
    }

    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        if lifetime.ident == "_" {
            *lifetime = Lifetime::new("'__call", Span::call_site());
        }
    }

    // The lifetimes left out in these are their own.
    fn visit_type_fn_ptr_mut(&mut self, _: &mut TypeFnPtr) {}
}
