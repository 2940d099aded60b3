//! The server side: a struct that holds an implementation, and registers each method with one call
//! of the runtime.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{GenericParam, parse_quote, spanned::Spanned};

use crate::model::{Arg, Kind, MethodDef, ServiceDef, reported_at};

/// Generates the struct. It is placed in the user's module, next to the trait.
pub(crate) fn item(def: &ServiceDef<'_>) -> TokenStream {
    let (server, vis, private, implementation) = (
        &def.server,
        &def.item.vis,
        def.private(),
        &def.implementation,
    );
    let attrs = def.item_attrs();
    // Lifetimes come first among the parameters of a type.
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
/// Output: into.unary(GreeterClient::HELLO, &self.service,
///             |service, _: &CallContext, (name,): (String,)| {
///                 async move { <T as Greeter>::hello(&service, name).await }
///             });
/// ```
fn registration(def: &ServiceDef<'_>, method: &MethodDef<'_>) -> TokenStream {
    let cfgs = method.cfgs();
    let (client, constant) = (&def.client, &method.constant);
    let generics = def.generics();
    let (_, arguments, _) = generics.split_for_impl();
    let turbofish = arguments.as_turbofish();
    let (register, handler) = match method.kind {
        Kind::Unary => ("unary", unary_handler(def, method)),
        Kind::Stream | Kind::Subscription => ("stream", stream_handler(def, method)),
        Kind::Raw => ("unary_raw", raw_handler(def, method)),
    };
    let span = reported_at(method.output_span());
    let register = Ident::new(register, span);
    let descriptor = quote!(#client #turbofish::#constant);
    quote_spanned! {span=>
        #(#cfgs)*
        into.#register(#descriptor, &self.service, #handler);
    }
}

fn unary_handler(def: &ServiceDef<'_>, method: &MethodDef<'_>) -> TokenStream {
    let arguments = method.args.iter().map(Arg::call_argument);
    let reply = invocation(def, method, quote!(#(#arguments),*));
    let encoded = encoded_reply(method);
    handler(method, decoded_arguments(method), quote!(#reply #encoded))
}

fn raw_handler(def: &ServiceDef<'_>, method: &MethodDef<'_>) -> TokenStream {
    let names = method.args.iter().map(|arg| arg.ident);
    let bodies = method.args.iter().map(Arg::made_from_body);
    let reply = invocation(def, method, quote!(#(#bodies),*));
    handler(method, quote!(#(#names: __rpc::Bytes),*), reply)
}

fn stream_handler(def: &ServiceDef<'_>, method: &MethodDef<'_>) -> TokenStream {
    let call = hidden("call");
    let (bound_call, input) = match &method.requests {
        Some(requests) => {
            let (call, input) = request_stream(method, requests, call.clone());
            (quote!(mut #call), Some(input))
        }
        None => (quote!(#call), None),
    };
    let arguments = method.args.iter().map(Arg::call_argument).chain(input);
    let result = invocation(def, method, quote!(#(#arguments),*));
    let encoded = encoded_reply(method);
    let reply = match &method.replies {
        None if method.kind == Kind::Subscription => {
            let span = reported_at(method.output_span());
            quote_spanned!(span=> send_subscription(__rpc::known(result)).await)
        }
        Some(_) if method.is_protobuf => {
            quote!(send_all(result.map(__rpc::proto_stream)).await)
        }
        Some(_) => quote!(send_all(result).await),
        None => quote!(reply(result #encoded)),
    };
    let arguments = decoded_arguments(method);
    handler(
        method,
        quote!(#arguments, #bound_call),
        quote! {
            let result = #result;
            #call.#reply
        },
    )
}

/// Returns the name of the call and the stream of its requests, both reported at the type of the
/// argument if that is not the type of the runtime.
fn request_stream(
    method: &MethodDef<'_>,
    requests: &Arg<'_>,
    mut call: Ident,
) -> (Ident, TokenStream) {
    let at = requests.ty.span();
    call.set_span(call.span().located_at(at));
    let at = reported_at(at);
    let input = match method.is_protobuf {
        true => quote_spanned!(at=> __rpc::proto_messages(#call.input())),
        false => quote_spanned!(at=> #call.input()),
    };
    let known = quote_spanned!(at=> __rpc::known(#input));
    (call, known)
}

/// Generates the closure that runs a call, with the `parameters` after its context.
fn handler(method: &MethodDef<'_>, parameters: TokenStream, body: TokenStream) -> TokenStream {
    let (service, context) = (hidden("service"), hidden("ctx"));
    let (bound, kept) = match &method.context {
        Some(_) => {
            // The future outlives the borrow of the context, so it gets a clone.
            let kept = quote!(let #context = __rpc::Clone::clone(#context););
            (quote!(#context), Some(kept))
        }
        None => (quote!(_), None),
    };
    quote! {
        |#service, #bound: &__rpc::CallContext, #parameters| {
            #kept
            async move { #body }
        }
    }
}

/// Generates the call of the implementation, converted to a `Result` if the return type is not
/// called that.
fn invocation(def: &ServiceDef<'_>, method: &MethodDef<'_>, passed: TokenStream) -> TokenStream {
    let (trait_, implementation) = (&def.item.ident, &def.implementation);
    let generics = def.generics();
    let (_, arguments, _) = generics.split_for_impl();
    let (ident, service) = (method.ident(), hidden("service"));
    let context = method.context.as_ref().map(|arg| {
        let context = hidden("ctx");
        let known = quote_spanned!(reported_at(arg.ty.span())=> __rpc::known(&#context));
        quote!(#known,)
    });
    let returns_alias = method.returns_alias();
    let span = match returns_alias {
        true => reported_at(method.output_span()),
        false => Span::call_site(),
    };
    let result = quote_spanned! {span=>
        <#implementation as #trait_ #arguments>::#ident(&#service, #context #passed).await
    };
    match returns_alias {
        true => quote_spanned!(span=> __rpc::MethodOutput::into_result(#result)),
        false => result,
    }
}

/// Generates the pattern and the type of the arguments that the runtime decodes.
fn decoded_arguments(method: &MethodDef<'_>) -> TokenStream {
    let names = method.args.iter().map(|arg| arg.ident);
    let types = method.args.iter().map(|arg| arg.decoded.tokens());
    if !method.is_protobuf {
        quote!((#(#names,)*): (#(#types,)*))
    } else if method.args.is_empty() {
        // The argument is the empty message before a stream.
        quote!(_: (__rpc::Proto<()>,))
    } else {
        quote!((#(__rpc::Proto(#names),)*): (#(__rpc::Proto<#types>,)*))
    }
}

/// Generates the conversion of a result to what the runtime encodes.
fn encoded_reply(method: &MethodDef<'_>) -> Option<TokenStream> {
    method.is_protobuf.then(|| quote!(.map(__rpc::Proto)))
}

/// Returns a name that an argument of the same name does not shadow.
fn hidden(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}
