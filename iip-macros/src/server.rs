//! The server side: a struct that holds an implementation, and registers each method with one call
//! of the runtime.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{GenericParam, parse_quote, spanned::Spanned};

use crate::model::{Kind, MethodDef, ServiceDef, reported_at};

/// Generates the struct. It is placed in the user's module, next to the trait.
pub(crate) fn item(def: &ServiceDef<'_>) -> TokenStream {
    let (server, vis, private, implementation) = (
        &def.server,
        &def.item.vis,
        def.private(),
        &def.implementation,
    );
    let attrs = def.item_attrs();
    let (lifetimes, params): (Vec<_>, Vec<_>) = def
        .struct_params()
        .into_iter()
        .partition(|param| matches!(param, GenericParam::Lifetime(_)));
    let types = def
        .phantom()
        .map(|types| quote!(types: #private::PhantomData<#types>,));
    let doc = format!(
        " Server side of [`{name}`]: hand it to a server, and calls run the methods of the \
         implementation in it.",
        name = def.item.ident
    );
    quote! {
        #(#attrs)*
        #[doc = #doc]
        #vis struct #server<#(#lifetimes,)* #implementation #(, #params)*> {
            service: #private::Arc<#implementation>,
            #types
        }
    }
}

/// Generates the `impl`s, for code where `__rpc` names the runtime.
pub(crate) fn impls(def: &ServiceDef<'_>) -> TokenStream {
    let (server, vis, service, implementation) = (
        &def.server,
        &def.item.vis,
        &def.item.ident,
        &def.implementation,
    );
    let allows = def.allows();
    let generics = def.implementation_generics(&[parse_quote!('static)]);
    let (impl_generics, arguments, conditions) = generics.split_for_impl();
    let types = def.phantom().map(|_| quote!(types: __rpc::PhantomData,));
    let registrations = def.methods.iter().map(|method| registration(def, method));
    // If every method may be excluded by `#[cfg(..)]`, nothing else uses the parameter.
    let may_be_empty = def
        .methods
        .iter()
        .all(|method| method.cfgs().next().is_some());
    let used = may_be_empty.then(|| quote!(let _ = &into;));
    let title = server.to_string();
    let new_doc = format!(" Serves `service`, an implementation of [`{service}`].");
    quote! {
        #(#allows)*
        impl #impl_generics #server #arguments #conditions {
            #[doc = #new_doc]
            #vis fn new(service: #implementation) -> Self {
                Self::from_arc(__rpc::Arc::new(service))
            }

            #[doc = " Serves an implementation that other parts of the program use as well."]
            #vis fn from_arc(service: __rpc::Arc<#implementation>) -> Self {
                Self { service, #types }
            }
        }

        #(#allows)*
        impl #impl_generics __rpc::Service for #server #arguments #conditions {
            fn register(self, into: &mut __rpc::Methods) {
                #used
                #(#registrations)*
            }
        }

        #(#allows)*
        impl #impl_generics __rpc::fmt::Debug for #server #arguments #conditions {
            fn fmt(&self, f: &mut __rpc::fmt::Formatter<'_>) -> __rpc::fmt::Result {
                f.debug_struct(#title).finish_non_exhaustive()
            }
        }
    }
}

/// ```text
/// Output: into.unary(GreeterClient::HELLO, &self.service, |service, _: &CallContext, (name,): (String,)| {
///             async move { <T as Greeter>::hello(&service, name).await }
///         });
/// ```
fn registration(def: &ServiceDef<'_>, method: &MethodDef<'_>) -> TokenStream {
    let cfgs = method.cfgs();
    let (client, trait_, implementation) = (&def.client, &def.item.ident, &def.implementation);
    let generics = def.generics();
    let (_, arguments, _) = generics.split_for_impl();
    let turbofish = arguments.as_turbofish();
    let (ident, constant) = (method.ident(), &method.constant);
    // These names cannot be shadowed by an argument.
    let service = Ident::new("service", Span::mixed_site());
    let context = Ident::new("ctx", Span::mixed_site());
    let (bound_context, kept_context, context) = match &method.context {
        Some(arg) => {
            let at = reported_at(arg.ty.span());
            let known = quote_spanned!(at=> __rpc::known(&#context));
            let kept = quote!(let #context = __rpc::Clone::clone(#context););
            (quote!(#context), Some(kept), Some(quote!(#known,)))
        }
        None => (quote!(_), None, None),
    };
    let call_argument = method.args.iter().map(|arg| arg.call_argument());
    let descriptor = quote!(#client #turbofish::#constant);
    let span = reported_at(method.output_span());
    // The expression for the returned value, converted to a `Result` if its type is not called
    // that.
    let run = |call_argument: TokenStream| {
        if method.returns_alias() {
            quote_spanned! {span=>
                __rpc::MethodOutput::into_result(<#implementation as #trait_ #arguments>::#ident(&#service, #context #call_argument).await)
            }
        } else {
            quote!(<#implementation as #trait_ #arguments>::#ident(&#service, #context #call_argument).await)
        }
    };
    let names = method.args.iter().map(|arg| arg.ident);
    let types = method.args.iter().map(|arg| arg.decoded.tokens());
    let (bound, put_in) = if !method.is_protobuf {
        (quote!((#(#names,)*): (#(#types,)*)), None)
    } else if method.args.is_empty() {
        // The argument is the empty message before a stream.
        (
            quote!(_: (__rpc::Proto<()>,)),
            Some(quote!(.map(__rpc::Proto))),
        )
    } else {
        let bound = quote!((#(__rpc::Proto(#names),)*): (#(__rpc::Proto<#types>,)*));
        (bound, Some(quote!(.map(__rpc::Proto))))
    };
    match method.kind {
        Kind::Unary => {
            let reply = run(quote!(#(#call_argument),*));
            let call = quote! {
                |#service, #bound_context: &__rpc::CallContext, #bound| {
                    #kept_context
                    async move { #reply #put_in }
                }
            };
            quote_spanned! {span=>
                #(#cfgs)*
                into.unary(#descriptor, &self.service, #call);
            }
        }
        Kind::Stream | Kind::Subscription => {
            let call = Ident::new("call", Span::mixed_site());
            let (bound_call, input) = match &method.requests {
                Some(requests) => {
                    // If the type is not that of the runtime, the error is reported at the type.
                    let at = requests.ty.span();
                    let mut call = call.clone();
                    call.set_span(call.span().located_at(at));
                    let input = match method.is_protobuf {
                        true => {
                            quote_spanned!(reported_at(at)=> __rpc::proto_messages(#call.input()))
                        }
                        false => quote_spanned!(reported_at(at)=> #call.input()),
                    };
                    let known = quote_spanned!(reported_at(at)=> __rpc::known(#input));
                    (quote!(mut #call), Some(known))
                }
                None => (quote!(#call), None),
            };
            let call_argument = call_argument.chain(input);
            let reply = match &method.replies {
                None if method.kind == Kind::Subscription => {
                    quote_spanned!(span=> send_subscription(__rpc::known(result)).await)
                }
                Some(_) if method.is_protobuf => {
                    quote!(send_all(result.map(__rpc::proto_stream)).await)
                }
                Some(_) => quote!(send_all(result).await),
                None => quote!(reply(result #put_in)),
            };
            let result = run(quote!(#(#call_argument),*));
            let call = quote! {
                |#service, #bound_context: &__rpc::CallContext, #bound, #bound_call| {
                    #kept_context
                    async move {
                        let result = #result;
                        #call.#reply
                    }
                }
            };
            quote_spanned! {span=>
                #(#cfgs)*
                into.stream(#descriptor, &self.service, #call);
            }
        }
        Kind::Raw => {
            let names = method.args.iter().map(|arg| arg.ident);
            let bodies = method.args.iter().map(|arg| arg.made_from_body());
            let reply = run(quote!(#(#bodies),*));
            let call = quote! {
                |#service, #bound_context: &__rpc::CallContext, #(#names: __rpc::Bytes),*| {
                    #kept_context
                    async move { #reply }
                }
            };
            quote_spanned! {span=>
                #(#cfgs)*
                into.unary_raw(#descriptor, &self.service, #call);
            }
        }
    }
}
