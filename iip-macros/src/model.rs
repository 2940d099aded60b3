//! The model of a service, read from its trait. Reading never fails: anything invalid is left out
//! here and reported by [`check`](crate::check), which looks at the same syntax.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{
    Attribute, FnArg, GenericParam, Generics, Ident, ItemTrait, Pat, PatIdent, Path, ReturnType,
    TraitItem, TraitItemFn, Type, TypeParamBound, WherePredicate, ext::IdentExt, parse_quote,
    spanned::Spanned, visit_mut::VisitMut,
};

use crate::{
    attr::{self, CodecName, MethodSettings, ServiceSettings},
    case::snake_case,
    errors::Errors,
    types::{
        first_argument, first_argument_mut, is_context_reference, is_named, is_streaming,
        is_subscription, peel, streamed_item,
    },
};

/// A service: the trait with `#[service]`, and everything that is derived from it once.
pub(crate) struct ServiceDef<'a> {
    /// The trait as the user wrote it.
    pub(crate) item: &'a ItemTrait,
    pub(crate) settings: ServiceSettings,
    /// The name in descriptors: the trait's, without `r#`, unless the settings have another.
    pub(crate) name: String,
    pub(crate) methods: Vec<MethodDef<'a>>,
    pub(crate) client: Ident,
    pub(crate) server: Ident,
    /// The name of the `dyn`-compatible twin.
    pub(crate) twin: Ident,
    /// The type parameter for the implementation: a name that is not used in the trait.
    pub(crate) implementation: Ident,
}

/// A method of a service.
pub(crate) struct MethodDef<'a> {
    /// The method as the user wrote it.
    pub(crate) syntax: &'a TraitItemFn,
    pub(crate) settings: MethodSettings,
    /// The name on the wire.
    pub(crate) name: String,
    /// The whole path on the wire.
    pub(crate) path: String,
    /// The constant that holds the descriptor.
    pub(crate) constant: Ident,
    pub(crate) kind: Kind,
    /// `true` if arguments, results and the messages of streams are protobuf messages, which need
    /// no serde.
    pub(crate) is_protobuf: bool,
    /// The parameter `ctx: &CallContext`, which is not sent.
    pub(crate) context: Option<Arg<'a>>,
    pub(crate) args: Vec<Arg<'a>>,
    /// The last argument, if it is a stream.
    pub(crate) requests: Option<Arg<'a>>,
    /// `true` if it returns a `Subscription`.
    pub(crate) subscribes: bool,
    /// The items of the stream that it returns.
    pub(crate) replies: Option<Type>,
}

/// The kind of call of a method.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// One message in each direction.
    Unary,
    /// Like `Unary`, but with the bytes of the bodies unchanged.
    Raw,
    /// A stream of messages in one or both directions: an argument `Streaming<T>`, a returned
    /// `impl Stream`.
    Stream,
    /// A stream of numbered values that continues after its connection was lost: a returned
    /// `Subscription<T>`.
    Subscription,
}

/// A parameter of a method.
pub(crate) struct Arg<'a> {
    pub(crate) ident: &'a Ident,
    /// The name on the wire.
    pub(crate) name: String,
    /// The type as written.
    pub(crate) ty: &'a Type,
    pub(crate) decoded: Decoded,
}

/// The type that the server decodes for an argument, and how it passes it to the method.
pub(crate) enum Decoded {
    /// The type itself, by value.
    Value(Box<Type>),
    /// `&str`: a `String`, passed by reference.
    Str,
    /// `&[T]`: a `Vec<T>`, passed by reference.
    Slice(Box<Type>),
    /// `&Path` and other unsized types for which the standard library has an owned type: that type,
    /// passed by reference.
    Owned(Box<Type>),
    /// `&T`: a `T`, passed by reference.
    Reference(Box<Type>),
}

impl<'a> ServiceDef<'a> {
    pub(crate) fn new(item: &'a ItemTrait, settings: ServiceSettings, errors: &mut Errors) -> Self {
        let ident = item.ident.unraw().to_string();
        let (path, name) = match (&settings.path, &settings.name) {
            (None, None) => (format!("/{}", snake_case(&ident)), ident),
            (None, Some(name)) => (format!("/{}", name.value()), name.value()),
            (Some(path), None) => (path.value(), ident),
            (Some(path), Some(name)) => (path.value(), name.value()),
        };
        let functions = item.items.iter().filter_map(|item| match item {
            TraitItem::Fn(method) => Some(method),
            _ => None,
        });
        Self {
            methods: functions
                .map(|method| MethodDef::new(method, &path, &settings, errors))
                .collect(),
            client: format_ident!("{}Client", item.ident),
            server: format_ident!("{}Server", item.ident),
            twin: format_ident!("Dyn{}", item.ident),
            implementation: unused_name(item),
            item,
            settings,
            name,
        }
    }

    /// Returns the path of the module for generated code.
    pub(crate) fn private(&self) -> Path {
        let krate = self
            .settings
            .krate
            .clone()
            .unwrap_or_else(|| parse_quote!(::iip_rpc));
        parse_quote!(#krate::__private)
    }

    /// Places `impls` in a block where `__rpc` names the runtime and no name of the user's is
    /// shadowed.
    pub(crate) fn hygienic_block(&self, impls: TokenStream) -> TokenStream {
        let (private, cfgs) = (self.private(), self.cfgs());
        quote! {
            #(#cfgs)*
            const _: () = {
                use #private as __rpc;
                #impls
            };
        }
    }

    /// Returns the trait's attributes that are copied to every generated item.
    pub(crate) fn item_attrs(&self) -> impl Iterator<Item = &'a Attribute> + Clone {
        self.item
            .attrs
            .iter()
            .filter(|attr| attr::is_cfg(attr) || attr.path().is_ident("deprecated"))
    }

    /// Returns the trait's attributes that decide if it exists.
    pub(crate) fn cfgs(&self) -> impl Iterator<Item = &'a Attribute> + Clone {
        cfgs(&self.item.attrs)
    }

    /// Returns `allow` attributes for generated code: for the lints that the user allows anywhere
    /// in the trait, because generated code contains the user's names and types, and for deprecated
    /// names if the user deprecated any.
    pub(crate) fn allows(&self) -> Vec<Attribute> {
        let methods = self.methods.iter().flat_map(|method| &method.syntax.attrs);
        let attrs: Vec<_> = self.item.attrs.iter().chain(methods).collect();
        let mut allows: Vec<_> = attrs
            .iter()
            .filter_map(|attr| attr::allowed(attr))
            .collect();
        if attrs.into_iter().any(attr::is_deprecated) {
            allows.push(parse_quote!(#[allow(deprecated)]));
        }
        allows
    }

    /// Returns the supertraits that the user wrote, including conditions on `Self`.
    pub(crate) fn supertraits(&self) -> impl Iterator<Item = &'a TypeParamBound> {
        let conditions = self
            .item
            .generics
            .where_clause
            .iter()
            .flat_map(|clause| &clause.predicates);
        let conditions = conditions.filter_map(|condition| match condition {
            WherePredicate::Type(condition) if is_named(&condition.bounded_ty, "Self") => {
                Some(&condition.bounds)
            }
            _ => None,
        });
        self.item.supertraits.iter().chain(conditions.flatten())
    }

    /// Returns the trait's generics for `impl`s: without conditions on `Self`, which follow from
    /// the trait itself.
    pub(crate) fn generics(&self) -> Generics {
        let mut generics = self.item.generics.clone();
        if let Some(clause) = &mut generics.where_clause {
            let kept = clause
                .predicates
                .iter()
                .filter(|predicate| !is_about_self(predicate))
                .cloned()
                .collect();
            clause.predicates = kept;
        }
        generics
    }

    /// Returns the trait's generics and, before them, the implementation's type parameter, which
    /// has these bounds in addition to the trait.
    pub(crate) fn implementation_generics(&self, bounds: &[TypeParamBound]) -> Generics {
        let (implementation, ident) = (&self.implementation, &self.item.ident);
        let (_, arguments, _) = self.item.generics.split_for_impl();
        let mut generics = self.generics();
        // Lifetimes come first among parameters, so the new type follows them.
        let lifetimes = generics.lifetimes().count();
        generics.params.insert(
            lifetimes,
            parse_quote!(#implementation: #ident #arguments #(+ #bounds)*),
        );
        generics
    }

    /// Returns the parameters of a generated struct: without bounds, so that every `impl` needs
    /// only those that it uses.
    pub(crate) fn struct_params(&self) -> Vec<GenericParam> {
        let bare = |param: &GenericParam| {
            let mut param = param.clone();
            if let GenericParam::Type(param) = &mut param {
                param.colon_token = None;
                param.bounds.clear();
            }
            param
        };
        self.item.generics.params.iter().map(bare).collect()
    }

    /// Returns a type for a `PhantomData` that owns none of the type parameters; `None` if there
    /// are none. Lifetimes are rejected, but a client that fails to compile for one would hide
    /// that.
    pub(crate) fn phantom(&self) -> Option<Type> {
        let generics = &self.item.generics;
        let lifetimes: Vec<_> = generics.lifetimes().map(|param| &param.lifetime).collect();
        let types: Vec<_> = generics.type_params().map(|param| &param.ident).collect();
        let any = !lifetimes.is_empty() || !types.is_empty();
        any.then(|| parse_quote!(fn() -> (#(&#lifetimes (),)* #(#types,)*)))
    }
}

impl<'a> MethodDef<'a> {
    fn new(
        syntax: &'a TraitItemFn,
        service_path: &str,
        service: &ServiceSettings,
        errors: &mut Errors,
    ) -> Self {
        let settings = MethodSettings::parse(&syntax.attrs, errors);
        let ident = syntax.sig.ident.unraw().to_string();
        let name = wire_name(&ident, &settings, service);
        let path = settings
            .path
            .as_ref()
            .map_or_else(|| format!("{service_path}/{name}"), syn::LitStr::value);
        let mut args: Vec<_> = syntax.sig.inputs.iter().filter_map(Arg::new).collect();
        let context = args
            .first()
            .is_some_and(|arg| is_context_reference(arg.ty))
            .then(|| args.remove(0));
        let requests = args
            .last()
            .is_some_and(|arg| is_streaming(arg.ty))
            .then(|| args.pop())
            .flatten();
        let (replies, reply) = match &syntax.sig.output {
            ReturnType::Type(_, ty) => (streamed_item(ty), first_argument(ty)),
            ReturnType::Default => (None, None),
        };
        let subscribes = reply.is_some_and(|ty| is_subscription(&ty));
        let has_streams = requests.is_some() || replies.is_some();
        let codec = service.codec.filter(|_| settings.raw.is_none());
        Self {
            kind: match settings.raw {
                Some(_) => Kind::Raw,
                None if subscribes => Kind::Subscription,
                None if has_streams => Kind::Stream,
                None => Kind::Unary,
            },
            is_protobuf: codec.is_some_and(|codec| codec.name == CodecName::Protobuf),
            requests,
            subscribes,
            replies,
            constant: Ident::new(&ident.to_uppercase(), Span::call_site()),
            syntax,
            settings,
            name,
            path,
            context,
            args,
        }
    }

    pub(crate) fn ident(&self) -> &'a Ident {
        &self.syntax.sig.ident
    }

    pub(crate) fn cfgs(&self) -> impl Iterator<Item = &'a Attribute> + Clone {
        cfgs(&self.syntax.attrs)
    }

    /// Returns the return type; `()` if there is none.
    pub(crate) fn output(&self) -> Type {
        match &self.syntax.sig.output {
            ReturnType::Type(_, ty) => ty.as_ref().clone(),
            ReturnType::Default => parse_quote!(()),
        }
    }

    /// Returns the return type in a client, in code where `__rpc` names the runtime: with the
    /// client's stream type instead of `impl Stream`.
    pub(crate) fn client_output(&self) -> Type {
        self.output_with(|item| parse_quote!(__rpc::StreamOf<#item>))
    }

    /// Returns the return type with another type instead of `impl Stream`.
    pub(crate) fn output_with(&self, stream: impl Fn(&Type) -> Type) -> Type {
        let mut output = self.output();
        if let Some(item) = &self.replies
            && let Some(promised) = first_argument_mut(&mut output)
        {
            *promised = stream(item);
        }
        output
    }

    /// Returns the type of the value in `Result<value, error>`.
    pub(crate) fn reply(&self) -> Option<Type> {
        first_argument(&self.output())
    }

    /// Returns `true` if the return type is not called `Result`: only the compiler knows if it is
    /// an alias of it.
    pub(crate) fn returns_alias(&self) -> bool {
        !is_named(&self.output(), "Result")
    }

    /// Returns the span for errors about the return type.
    pub(crate) fn output_span(&self) -> Span {
        match &self.syntax.sig.output {
            ReturnType::Type(_, ty) => ty.span(),
            ReturnType::Default => self.ident().span(),
        }
    }

    /// Returns the parameters after `&self` as written: `ctx: &CallContext, name: String`.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = TokenStream> {
        self.all_args().map(|arg| {
            let (ident, ty) = (arg.ident, arg.ty);
            quote!(#ident: #ty)
        })
    }

    /// Returns the names of these parameters.
    pub(crate) fn parameter_names(&self) -> impl Iterator<Item = &'a Ident> {
        self.all_args().map(|arg| arg.ident)
    }

    /// Returns all parameters after `&self`.
    pub(crate) fn all_args(&self) -> impl Iterator<Item = &Arg<'a>> {
        self.context.iter().chain(&self.args).chain(&self.requests)
    }
}

impl<'a> Arg<'a> {
    /// Returns `None` for `self` and for a pattern that is not a name.
    fn new(arg: &'a FnArg) -> Option<Self> {
        let FnArg::Typed(arg) = arg else { return None };
        let Pat::Ident(pattern) = arg.pat.as_ref() else {
            return None;
        };
        Some(Self {
            ident: &pattern.ident,
            name: pattern.ident.unraw().to_string(),
            ty: &arg.ty,
            decoded: Decoded::new(&arg.ty),
        })
    }

    /// Returns the argument as the client sends it, with the span of its type: a missing
    /// `Serialize` is reported there.
    pub(crate) fn sent(&self) -> Ident {
        let mut ident = self.ident.clone();
        ident.set_span(ident.span().located_at(self.ty.span()));
        ident
    }

    /// Returns the body of a raw call as the server passes it on: the type that the method takes,
    /// converted from `Bytes`.
    pub(crate) fn made_from_body(&self) -> TokenStream {
        let at = reported_at(self.ty.span());
        let ident = self.ident;
        match &self.decoded {
            Decoded::Value(_) => {
                quote_spanned!(at=> __rpc::From::from(#ident))
            }
            Decoded::Reference(ty) | Decoded::Owned(ty) => {
                quote_spanned!(at=> &<#ty as __rpc::From<__rpc::Bytes>>::from(#ident))
            }
            Decoded::Str | Decoded::Slice(_) => quote!(&#ident),
        }
    }

    /// Returns the argument as the server passes it on.
    pub(crate) fn call_argument(&self) -> TokenStream {
        let ident = self.ident;
        match self.decoded {
            Decoded::Value(_) => quote!(#ident),
            _ => quote!(&#ident),
        }
    }
}

impl Decoded {
    fn new(ty: &Type) -> Self {
        let Type::Reference(reference) = peel(ty) else {
            return Self::Value(Box::new(ty.clone()));
        };
        match peel(&reference.elem) {
            Type::Path(path) if path.path.is_ident("str") => Self::Str,
            Type::Slice(slice) => Self::Slice(slice.elem.clone()),
            elem if ["Path", "OsStr", "CStr"]
                .iter()
                .any(|name| is_named(elem, name)) =>
            {
                Self::Owned(Box::new(elem.clone()))
            }
            elem => Self::Reference(Box::new(elem.clone())),
        }
    }

    /// Returns the type to decode, in code where `__rpc` names the runtime.
    pub(crate) fn tokens(&self) -> TokenStream {
        match self {
            Self::Value(ty) | Self::Reference(ty) => ty.to_token_stream(),
            Self::Str => quote!(__rpc::String),
            Self::Slice(elem) => quote!(__rpc::Vec<#elem>),
            // This also works for a type of the user's with such a name, if it can be cloned.
            Self::Owned(ty) => quote!(<#ty as __rpc::ToOwned>::Owned),
        }
    }
}

/// Returns `true` if every service has this supertrait anyway.
pub(crate) fn is_implied(bound: &TypeParamBound) -> bool {
    match bound {
        TypeParamBound::Trait(bound) => {
            let last = bound.path.segments.last();
            last.is_some_and(|last| last.ident == "Send" || last.ident == "Sync")
        }
        _ => false,
    }
}

/// Returns `true` if a pattern is a name and nothing else.
pub(crate) fn is_plain_name(pattern: &Pat) -> bool {
    matches!(
        pattern,
        Pat::Ident(PatIdent {
            by_ref: None,
            mutability: None,
            subpat: None,
            ..
        })
    )
}

/// Returns a span for generated code that is reported at `span`, but still marked as generated, so
/// that lints ignore it.
pub(crate) fn reported_at(span: Span) -> Span {
    Span::call_site().located_at(span)
}

/// Returns the name of a method on the wire.
fn wire_name(ident: &str, settings: &MethodSettings, service: &ServiceSettings) -> String {
    match (&settings.name, service.rename_all) {
        (Some(name), _) => name.value(),
        (None, Some(case)) => case.apply(ident),
        (None, None) => ident.to_owned(),
    }
}

fn cfgs(attrs: &[Attribute]) -> impl Iterator<Item = &Attribute> + Clone {
    attrs.iter().filter(|attr| attr::is_cfg(attr))
}

fn is_about_self(predicate: &WherePredicate) -> bool {
    let mut idents = Idents::default();
    idents.visit_where_predicate_mut(&mut predicate.clone());
    idents.found.iter().any(|ident| ident == "Self")
}

/// Returns a name for a type parameter that shadows none of the names in the trait.
fn unused_name(item: &ItemTrait) -> Ident {
    let mut idents = Idents::default();
    idents.visit_item_trait_mut(&mut item.clone());
    let free = |name: &&str| idents.found.iter().all(|ident| ident != name);
    let name = ["T", "S", "Service", "Implementation"]
        .into_iter()
        .find(free)
        .unwrap_or("__T");
    Ident::new(name, Span::call_site())
}

/// Visitor that collects every identifier.
#[derive(Default)]
struct Idents {
    found: Vec<Ident>,
}

impl VisitMut for Idents {
    fn visit_ident_mut(&mut self, ident: &mut Ident) {
        self.found.push(ident.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_implementation_parameter_hides_no_type_of_the_user() {
        let name = |item: ItemTrait| unused_name(&item).to_string();
        assert_eq!(
            name(parse_quote!(
                trait A {
                    fn f(&self, s: String);
                }
            )),
            "T"
        );
        assert_eq!(
            name(parse_quote!(
                trait A<T> {
                    fn f(&self, t: T);
                }
            )),
            "S"
        );
        assert_eq!(
            name(parse_quote!(
                trait A {
                    fn f(&self, s: T, t: Vec<S>);
                }
            )),
            "Service"
        );
    }

    #[test]
    fn a_reference_is_decoded_into_what_owns_it() {
        let decoded = |ty: Type| Decoded::new(&ty).tokens().to_string();
        assert_eq!(decoded(parse_quote!(String)), "String");
        assert_eq!(decoded(parse_quote!(&str)), "__rpc :: String");
        assert_eq!(decoded(parse_quote!(&[u8])), "__rpc :: Vec < u8 >");
        assert_eq!(decoded(parse_quote!(&Point)), "Point");
        assert_eq!(decoded(parse_quote!((&(str)))), "__rpc :: String");
        assert_eq!(
            decoded(parse_quote!(&std::path::Path)),
            "< std :: path :: Path as __rpc :: ToOwned > :: Owned"
        );
        assert_eq!(decoded(parse_quote!(&self::Path)), "self :: Path");
    }
}
