//! The description of a service: what its methods take and return, for peers and tools.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;

use crate::{
    docs,
    model::{Arg, Kind, MethodDef, ServiceDef, reported_at},
    types::first_argument,
};

/// Generates the function `description` of the client, for code where `__rpc` names the runtime.
pub(crate) fn function(def: &ServiceDef<'_>) -> TokenStream {
    let (vis, name) = (&def.item.vis, &def.name);
    let (doc, deprecated) = (
        docs::doc(&def.item.attrs),
        option(docs::deprecated(&def.item.attrs)),
    );
    let methods = def.methods.iter().map(method);
    let own_doc = format!(
        " Describes [`{}`]: its methods, and the types of their arguments and results.",
        def.item.ident
    );
    quote! {
        #[doc = #own_doc]
        #vis fn description() -> __rpc::schema::Description {
            let describing = __rpc::Describing::new(#name, #doc, #deprecated);
            #(#methods)*
            describing.finish()
        }
    }
}

/// ```text
/// Output: let describing = describing.method(
///             described!(Self::HELLO, Unary, "To one.", None, [type_fn!(String)], None,
///                 type_fn!(String), error_type!(Status), None),
///         );
/// ```
fn method(method: &MethodDef<'_>) -> TokenStream {
    let (cfgs, constant) = (method.cfgs(), &method.constant);
    let attrs = &method.syntax.attrs;
    let (doc, deprecated) = (docs::doc(attrs), option(docs::deprecated(attrs)));
    let kind = kind(method);
    let args = method.args.iter().map(|arg| argument(method, arg));
    let requests = option(requests(method).map(|item| {
        let at = item.span();
        described(method, item.to_token_stream(), at)
    }));
    let result = described(method, result(method), method.output_span());
    let at = reported_at(method.output_span());
    let own = |error: TokenStream| quote_spanned!(at=> __rpc::error_type!(#error));
    let (error, stream_error) = (own(error(method)), stream_error(method).map(own));
    let stream_error = stream_error.unwrap_or_else(|| quote!(__rpc::None));
    quote! {
        #(#cfgs)*
        let describing = describing.method(__rpc::described!(
            Self::#constant, #kind, #doc, #deprecated, [#(#args),*], #requests, #result, #error,
            #stream_error
        ));
    }
}

/// ```text
/// Output: assert_codec_fits!(None, String, String, Status);
/// ```
///
/// The types of a service with type parameters are not known where it is defined. A result that is
/// not called `Result` may be none, which is reported elsewhere.
pub(crate) fn codec_fits(def: &ServiceDef<'_>) -> TokenStream {
    if !def.item.generics.params.is_empty() {
        return TokenStream::new();
    }
    let codec = option(def.settings.codec.map(|codec| codec.name.tokens()));
    let methods = def.methods.iter().filter(|method| {
        let has_codec = method.kind != Kind::Raw && method.settings.json.is_none();
        has_codec && !method.is_protobuf && !method.returns_alias()
    });
    let checks = methods.map(|method| {
        let cfgs = method.cfgs();
        let args = method.args.iter().map(|arg| arg.decoded.tokens());
        let requests = requests(method).map(ToTokens::into_token_stream);
        let results = [result(method), error(method)].into_iter();
        let types = args
            .chain(requests)
            .chain(results)
            .chain(stream_error(method));
        // Reported at the method.
        let at = reported_at(method.output_span());
        quote_spanned! {at=>
            #(#cfgs)*
            __rpc::assert_codec_fits!(#codec, #(#types),*);
        }
    });
    checks.collect()
}

fn kind(method: &MethodDef<'_>) -> TokenStream {
    match (method.kind, &method.requests, &method.replies) {
        (Kind::Subscription, ..) => quote!(Subscription),
        (Kind::Stream, Some(_), Some(_)) => quote!(Bidirectional),
        (Kind::Stream, Some(_), None) => quote!(ClientStream),
        (Kind::Stream, ..) => quote!(ServerStream),
        _ if method.settings.oneway.is_some() => quote!(OneWay),
        _ => quote!(Unary),
    }
}

fn argument(method: &MethodDef<'_>, arg: &Arg<'_>) -> TokenStream {
    described(method, arg.decoded.tokens(), arg.ty.span())
}

/// The type of the messages from the client.
fn requests(method: &MethodDef<'_>) -> Option<syn::Type> {
    let ty = method.requests.as_ref()?.ty;
    Some(first_argument(ty).unwrap_or_else(|| ty.clone()))
}

/// The type of the method's errors.
fn error(method: &MethodDef<'_>) -> TokenStream {
    let output = method.client_output();
    quote_spanned!(reported_at(method.output_span())=> <#output as __rpc::MethodOutput>::Error)
}

/// The type of the errors of a stream of replies.
fn stream_error(method: &MethodDef<'_>) -> Option<TokenStream> {
    let item = method.replies.as_ref()?;
    Some(quote!(<#item as __rpc::StreamItem>::Error))
}

/// The type of the result, or of the messages of a stream.
fn result(method: &MethodDef<'_>) -> TokenStream {
    if let Some(item) = &method.replies {
        return quote!(<#item as __rpc::StreamItem>::Message);
    }
    if method.kind == Kind::Subscription
        && let Some(item) = method.reply().as_ref().and_then(first_argument)
    {
        return item.to_token_stream();
    }
    let output = method.output();
    quote_spanned!(reported_at(method.output_span())=> <#output as __rpc::MethodOutput>::Value)
}

/// Generates a function that describes a type in a message of the method. Mistakes in the type are
/// reported at `at`.
fn described(method: &MethodDef<'_>, ty: TokenStream, at: Span) -> TokenStream {
    let at = reported_at(at);
    if method.kind == Kind::Raw {
        quote!(__rpc::raw_type)
    } else if method.is_protobuf {
        quote_spanned!(at=> __rpc::protobuf_type::<#ty>)
    } else {
        quote_spanned!(at=> __rpc::type_fn!(#ty))
    }
}

fn option(value: Option<impl ToTokens>) -> TokenStream {
    match value {
        Some(value) => quote!(__rpc::Some(#value)),
        None => quote!(__rpc::None),
    }
}
