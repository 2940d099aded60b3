//! The trait itself.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote_spanned};
use syn::{
    FnArg, ItemTrait, ReturnType, Signature, TraitItem, TraitItemFn, TypeImplTrait, TypeParamBound,
    parse_quote, parse_quote_spanned, spanned::Spanned, visit_mut::VisitMut,
};

use crate::{
    attr,
    model::{is_implied, reported_at},
    types::NestedTypes,
};

/// ```text
/// Input:  pub trait Greeter { async fn hello(&self, name: String) -> Result<String, Status>; }
/// Output: pub trait Greeter: Send + Sync {
///             fn hello(&self, name: String)
///                 -> impl Future<Output = Result<String, Status>> + Send;
///         }
/// ```
///
/// With the `Send` bound, code that only knows `T: Greeter` can spawn a handler; implementations
/// still write `async fn`. `core` is named directly and not through the runtime, because users see
/// these paths in their documentation.
pub(crate) fn expand(item: &ItemTrait, has_twin: bool) -> TokenStream {
    let mut item = item.clone();
    item.attrs.retain(|attr| !attr::is_rpc(attr));
    if !has_twin {
        hint_at_twin(&mut item);
    }
    // Bounds that every service has are written once, even if the user wrote them too.
    item.supertraits = item
        .supertraits
        .into_iter()
        .filter(|bound| !is_implied(bound))
        .collect();
    item.supertraits.extend(supertraits());
    item.colon_token.get_or_insert_default();
    for item in &mut item.items {
        if let TraitItem::Fn(method) = item {
            expand_method(method);
        }
    }
    item.into_token_stream()
}

/// Adds a constant whose name is a hint in the compiler's error about `dyn Greeter`: the error
/// names the constant as the reason why that is not a type, and offers no other place for a hint.
fn hint_at_twin(item: &mut ItemTrait) {
    let hint = parse_quote! {
        #[doc(hidden)]
        const WRITE_SERVICE_DYN_FOR_TRAIT_OBJECTS: () = ();
    };
    item.items.insert(0, hint);
}

/// Visitor that adds `Send` to the bounds of a stream, like those of the futures.
struct SendStreams;

impl VisitMut for SendStreams {
    fn visit_type_impl_trait_mut(&mut self, opaque: &mut TypeImplTrait) {
        opaque.bounds.push(parse_quote!(::core::marker::Send));
    }
}

/// Returns the supertraits of every service: calls of it run on any thread. `'static` is not one of
/// them, because the compiler cannot infer it for a trait object whose lifetime it has erased, as
/// it does inside a future that must be `Send`.
pub(crate) fn supertraits() -> [TypeParamBound; 2] {
    [
        parse_quote!(::core::marker::Send),
        parse_quote!(::core::marker::Sync),
    ]
}

pub(crate) fn expand_method(method: &mut TraitItemFn) {
    method.attrs.retain(|attr| !attr::is_rpc(attr));
    if method.sig.asyncness.take().is_none() {
        return;
    }
    let mut output = method.sig.output.clone();
    SendStreams.visit_return_type_mut(&mut output);
    let output = match &output {
        ReturnType::Type(_, ty) => ty.to_token_stream(),
        ReturnType::Default => quote_spanned!(method.sig.ident.span()=> ()),
    };
    let span = reported_at(method.sig.output.span());
    // Types that callers choose are already reported as a mistake, which should not be reported a
    // second time as missing `Send`.
    let send = (!is_generic(&method.sig)).then(|| quote_spanned!(span=> + ::core::marker::Send));
    method.sig.output = parse_quote_spanned! {span=>
        -> impl ::core::future::Future<Output = #output> #send
    };
}

/// Returns `true` if a method has types that its caller chooses, which `check`
/// rejects.
fn is_generic(sig: &Signature) -> bool {
    let opaque = sig.inputs.iter().any(|arg| match arg {
        FnArg::Typed(arg) => !NestedTypes::of(&arg.ty).opaque.is_empty(),
        FnArg::Receiver(_) => false,
    });
    opaque || sig.generics.type_params().next().is_some()
}
