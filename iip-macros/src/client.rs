//! The client: a struct that implements the trait, each method by one call of the runtime.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote, quote_spanned};

use crate::{
    attr::{MethodSettings, OnCancel},
    description, duration,
    model::{Arg, Decoded, Kind, MethodDef, ServiceDef, reported_at},
};

/// Generates the struct. It is placed in the user's module, next to the trait.
pub(crate) fn item(def: &ServiceDef<'_>) -> TokenStream {
    let (client, vis, private) = (&def.client, &def.item.vis, def.private());
    let attrs = def.item_attrs();
    let params = def.struct_params();
    let types = def
        .phantom()
        .map(|types| quote!(types: #private::PhantomData<#types>,));
    let doc = format!(
        " Client of [`{name}`]: implements the trait, every method being a call over the network. \
         Cheap to clone.",
        name = def.item.ident
    );
    quote! {
        #(#attrs)*
        #[doc = #doc]
        #vis struct #client<#(#params),*> {
            client: #private::Client,
            #types
        }
    }
}

/// Generates the client's own `impl`s, without that of the trait, for code where `__rpc` names the
/// runtime.
pub(crate) fn own_impls(def: &ServiceDef<'_>) -> TokenStream {
    let (client, vis, service) = (&def.client, &def.item.vis, &def.item.ident);
    let allows = def.allows();
    let generics = def.generics();
    let (impl_generics, arguments, conditions) = generics.split_for_impl();
    let types = def.phantom().map(|_| quote!(types: __rpc::PhantomData,));
    let codec = codec_is_there(def);
    let descriptors = def.methods.iter().map(|method| descriptor(def, method));
    let new_doc = format!(" A client that calls the methods of [`{service}`] through `client`.");
    let connect_doc = " Connects to `target`, such as `127.0.0.1:7070`, for this client alone. \
        Services of one server can share a connection: see `new`.";
    let options_doc = " The same client with more options, such as a timeout or metadata, for the \
        calls made through it.";
    let (description, codec_fits) = (description::function(def), description::codec_fits(def));
    let clone_and_debug = clone_and_debug(def);
    quote! {
        #codec
        #codec_fits

        #(#allows)*
        impl #impl_generics #client #arguments #conditions {
            #(#descriptors)*

            #[doc = #new_doc]
            #vis fn new(client: __rpc::Client) -> Self {
                Self { client, #types }
            }

            #[doc = #connect_doc]
            #vis async fn connect(
                target: impl __rpc::ToTarget
            ) -> ::core::result::Result<Self, __rpc::Status> {
                __rpc::Client::connect(target).await.map(Self::new)
            }

            #[doc = #options_doc]
            #[must_use]
            #vis fn with_options(&self, options: __rpc::CallOptions) -> Self {
                Self::new(self.client.with_options(options))
            }

            #description
        }

        #clone_and_debug
    }
}

/// Generates `Clone` and `Debug`. Derived ones would require `K: Clone` although the client does
/// not contain a `K`.
fn clone_and_debug(def: &ServiceDef<'_>) -> TokenStream {
    let (client, allows, generics) = (&def.client, def.allows(), def.generics());
    let (impl_generics, arguments, conditions) = generics.split_for_impl();
    let title = client.to_string();
    quote! {
        #(#allows)*
        impl #impl_generics __rpc::Clone for #client #arguments #conditions {
            fn clone(&self) -> Self {
                Self::new(__rpc::Clone::clone(&self.client))
            }
        }

        #(#allows)*
        impl #impl_generics __rpc::fmt::Debug for #client #arguments #conditions {
            fn fmt(&self, f: &mut __rpc::fmt::Formatter<'_>) -> __rpc::fmt::Result {
                f.debug_struct(#title).field("client", &self.client).finish()
            }
        }
    }
}

/// Generates the `impl` of the trait for the client, with these `methods`.
pub(crate) fn service_impl(def: &ServiceDef<'_>, methods: &TokenStream) -> TokenStream {
    let (client, service) = (&def.client, &def.item.ident);
    let allows = def.allows();
    let generics = def.generics();
    let (impl_generics, arguments, conditions) = generics.split_for_impl();
    quote! {
        #(#allows)*
        impl #impl_generics #service #arguments for #client #arguments #conditions {
            #methods
        }
    }
}

/// Generates the methods of that `impl`.
pub(crate) fn methods(def: &ServiceDef<'_>) -> TokenStream {
    def.methods.iter().map(method).collect()
}

/// ```text
/// Output: const _: () = assert!(
///             CodecId::POSTCARD.is_supported(),
///             "the codec of this service needs the feature ..",
///         );
/// ```
///
/// The features of the runtime are only known when the generated code is compiled.
fn codec_is_there(def: &ServiceDef<'_>) -> Option<TokenStream> {
    let codec = def.settings.codec?;
    let (constant, feature) = (codec.name.tokens(), codec.name.feature()?);
    let text = format!("the codec of this service needs the feature `{feature}` of iip-rpc");
    Some(quote_spanned! {reported_at(codec.span)=>
        const _: () = ::core::assert!(#constant.is_supported(), #text);
    })
}

/// ```text
/// Output: const HELLO: &'static MethodDescriptor =
///             &MethodDescriptor::new("Greeter", "hello", "/greeter/hello", &["name"]);
/// ```
fn descriptor(def: &ServiceDef<'_>, method: &MethodDef<'_>) -> TokenStream {
    let cfgs = method.cfgs();
    let (constant, service, name, path) = (&method.constant, &def.name, &method.name, &method.path);
    let args = method.args.iter().map(|arg| &arg.name);
    let raw = (method.kind == Kind::Raw).then(|| quote!(.raw()));
    let json = method.settings.json.as_ref().map(|_| quote!(.json()));
    // Methods that are bound to raw bytes or to JSON do not use the codec of the service.
    let codec = def
        .settings
        .codec
        .filter(|_| raw.is_none() && json.is_none());
    let codec = codec.map(|codec| {
        let codec = codec.name.tokens();
        quote!(.codec(#codec))
    });
    let idempotent = method.settings.idempotent.then(|| quote!(.idempotent()));
    let timeout = method.settings.timeout.map(|timeout| {
        let timeout = duration::tokens(timeout);
        quote!(.timeout(#timeout))
    });
    let one_way = method.settings.oneway.as_ref().map(|_| quote!(.one_way()));
    let on_cancel = method.settings.on_cancel.as_ref().map(|(on_cancel, _)| {
        let on_cancel = match on_cancel {
            OnCancel::Abort => quote!(Abort),
            OnCancel::Token => quote!(Token),
            OnCancel::RunToEnd => quote!(RunToEnd),
        };
        quote!(.on_cancel(__rpc::OnCancel::#on_cancel))
    });
    let requests = method.requests.as_ref();
    let requests = requests.map(|_| quote!(.streams_requests()));
    let has_replies = method.replies.is_some() || method.kind == Kind::Subscription;
    let replies = has_replies.then(|| quote!(.streams_replies()));
    let policies = policies(&method.settings);
    quote! {
        #(#cfgs)*
        const #constant: &'static __rpc::MethodDescriptor =
            &__rpc::MethodDescriptor::new(#service, #name, #path, &[#(#args),*])
                #raw #json #codec #timeout #idempotent #on_cancel #one_way
                #policies #requests #replies
                .described_by(Self::description);
    }
}

/// Generates the settings for the treatment of calls, as calls on the descriptor.
fn policies(settings: &MethodSettings) -> TokenStream {
    let hedge = settings.hedge.as_ref().map(|(hedge, _)| {
        let hedge = hedge.tokens();
        quote!(.hedge(#hedge))
    });
    let priority = settings.priority.map(|priority| {
        let priority = priority.tokens();
        quote!(.priority(#priority))
    });
    let max_concurrency = settings.max_concurrency.map(|calls| {
        let calls = calls.tokens();
        quote!(.max_concurrency(#calls))
    });
    let auth = settings.auth.as_ref().map(|text| quote!(.auth(#text)));
    quote!(#hedge #priority #max_concurrency #auth)
}

/// ```text
/// Output: async fn hello(&self, name: String) -> Result<String, Status> {
///             self.client.unary(Self::HELLO, None, (name,)).await
///         }
/// ```
///
/// The method is an `async fn` and does not return the runtime's future directly: arguments by
/// reference have their own lifetimes, and only the compiler can name the lifetime of a future that
/// contains several of them.
fn method(method: &MethodDef<'_>) -> TokenStream {
    let cfgs = method.cfgs();
    let (ident, output) = (method.ident(), method.client_output());
    let parameters = method.parameters();
    let call = runtime_call(method);
    // Missing traits of the result are reported at the result in the user's code.
    let at = method.output_span();
    let receiver = method.syntax.sig.receiver();
    let this = receiver.map(|receiver| Ident::new("self", receiver.self_token.span.located_at(at)));
    let body = if method.kind == Kind::Subscription {
        quote_spanned!(at=> { __rpc::known(#this.client #call) })
    } else if method.returns_alias() {
        quote_spanned!(at=> { __rpc::MethodOutput::from_result(#this.client #call) })
    } else {
        quote_spanned!(at=> { #this.client #call })
    };
    // The client's stream borrows nothing, so the method returns a type that users may rely on.
    let refines = method
        .replies
        .as_ref()
        .map(|_| quote!(#[allow(refining_impl_trait)]));
    quote! {
        #(#cfgs)*
        #refines
        async fn #ident(#receiver, #(#parameters),*) -> #output #body
    }
}

/// ```text
/// Output: .unary(Self::HELLO, None, (name,)).await
/// ```
fn runtime_call(method: &MethodDef<'_>) -> TokenStream {
    let at = method.output_span();
    let (constant, context, sent) = (&method.constant, context(method), sent_arguments(method));
    let constant = quote!(Self::#constant);
    let passed = match method.kind {
        Kind::Raw => quote_spanned!(at=> #constant, #context, #(#sent),*),
        _ => quote_spanned!(at=> #constant, #context, (#(#sent,)*)),
    };
    let taken_out = method.is_protobuf.then(|| match method.replies {
        None => quote!(.map(__rpc::Proto::into_inner)),
        Some(_) => quote!(.map(__rpc::proto_messages)),
    });
    match method.kind {
        Kind::Unary if method.settings.oneway.is_some() => {
            quote_spanned!(at=> .one_way(#passed).await)
        }
        Kind::Unary => quote_spanned!(at=> .unary(#passed).await #taken_out),
        Kind::Raw => quote_spanned!(at=> .unary_raw(#passed).await),
        Kind::Subscription => quote_spanned!(at=> .subscribe(#passed).await),
        Kind::Stream => {
            let called = match (&method.requests, &method.replies) {
                (None, _) => quote!(server_stream),
                (Some(_), None) => quote!(client_stream),
                (Some(_), Some(_)) => quote!(bidi_stream),
            };
            let requests = method.requests.as_ref();
            let requests = requests.map(|requests| sent_requests(method, requests));
            quote_spanned!(at=> .#called(#passed #requests).await #taken_out)
        }
    }
}

/// Generates the context that is passed to the runtime.
fn context(method: &MethodDef<'_>) -> TokenStream {
    match &method.context {
        Some(context) => {
            let context = context.sent();
            quote!(__rpc::Some(__rpc::known(#context)))
        }
        None => quote!(__rpc::None),
    }
}

/// Generates the arguments that are encoded, without the stream. Missing traits of an argument are
/// reported at its type.
fn sent_arguments(method: &MethodDef<'_>) -> Vec<TokenStream> {
    let sent = method.args.iter().map(|arg| {
        let ident = arg.sent();
        match &arg.decoded {
            Decoded::Value(_) if method.is_protobuf => {
                quote_spanned!(ident.span()=> __rpc::ProtoRef(&#ident))
            }
            _ if method.is_protobuf => quote_spanned!(ident.span()=> __rpc::ProtoRef(#ident)),
            // Serde does not reveal the type that it serializes. Marked here, the data can be sent
            // without a copy.
            Decoded::Value(ty) if method.kind != Kind::Raw && is_bytes(ty) => {
                quote_spanned!(ident.span()=> __rpc::ByValue(#ident))
            }
            _ => ident.into_token_stream(),
        }
    });
    // With a stream there may be no argument: then the message before the stream is empty.
    let is_empty = method.is_protobuf && method.args.is_empty();
    let empty = is_empty.then(|| quote!(__rpc::ProtoRef(&())));
    sent.chain(empty).collect()
}

/// Generates the stream of requests, after the other arguments.
fn sent_requests(method: &MethodDef<'_>, requests: &Arg<'_>) -> TokenStream {
    let requests = requests.sent();
    match method.is_protobuf {
        false => quote!(, __rpc::known(#requests)),
        true => quote_spanned!(requests.span()=> , __rpc::protos(__rpc::known(#requests))),
    }
}

/// Returns `true` if the type is named `Bytes`. Another type of that name is sent unchanged.
fn is_bytes(ty: &syn::Type) -> bool {
    let syn::Type::Path(path) = ty else {
        return false;
    };
    let last = path.path.segments.last();
    last.is_some_and(|last| last.ident == "Bytes" && last.arguments.is_empty())
}
