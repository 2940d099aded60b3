//! Types as the user wrote them: recognized by their names, taken apart, and written in messages.

use quote::ToTokens;
use syn::{
    GenericArgument, Ident, Lifetime, Path, PathArguments, PathSegment, Token, Type, TypeImplTrait,
    TypeParamBound, TypeReference, TypeTraitObject, parse_quote,
    punctuated::Punctuated,
    visit_mut::{self, VisitMut},
};

/// Removes the parentheses, visible or not, around a type: macros by example wrap types in
/// invisible ones.
pub(crate) fn peel(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => peel(&group.elem),
        Type::Paren(paren) => peel(&paren.elem),
        ty => ty,
    }
}

/// Returns `true` if this is `&CallContext`.
pub(crate) fn is_context_reference(ty: &Type) -> bool {
    reference(ty)
        .is_some_and(|reference| reference.mutability.is_none() && is_context(&reference.elem))
}

/// Returns `true` if this is the `CallContext` of the runtime, see [`is_named`].
pub(crate) fn is_context(ty: &Type) -> bool {
    is_named(ty, "CallContext") && first_argument(ty).is_none()
}

/// Returns `true` if this is the `Streaming<T>` of the runtime, see [`is_named`].
pub(crate) fn is_streaming(ty: &Type) -> bool {
    is_named(ty, "Streaming") && first_argument(ty).is_some()
}

/// Returns `true` if this is the `Subscription<T>` of the runtime, see [`is_named`].
pub(crate) fn is_subscription(ty: &Type) -> bool {
    is_named(ty, "Subscription") && first_argument(ty).is_some()
}

/// Returns `true` if the last segment of a path type is `name`, and the path does not show that the
/// type is the user's own, by `crate`, `self` or `super` at its beginning.
///
/// The meaning of a name is unknown here. Generated code checks that it is the expected type, and
/// the runtime's types cannot be used if they were not recognized; both error messages explain how
/// to write it (`checked.rs` in iip-rpc).
pub(crate) fn is_named(ty: &Type, name: &str) -> bool {
    let Type::Path(path) = peel(ty) else {
        return false;
    };
    let segments = &path.path.segments;
    let own = segments.len() > 1
        && segments.first().is_some_and(|first| {
            ["crate", "self", "super"]
                .iter()
                .any(|own| first.ident == own)
        });
    !own && segments.last().is_some_and(|last| last.ident == name)
}

/// Returns the last name of a path type: `Result` of `std::io::Result<()>`.
pub(crate) fn last_segment(ty: &Type) -> Option<&Ident> {
    match peel(ty) {
        Type::Path(path) => path.path.segments.last().map(|segment| &segment.ident),
        _ => None,
    }
}

/// Returns `true` if the last name of a path type ends in `Result`, as that of an alias does too.
pub(crate) fn is_called_result(ty: &Type) -> bool {
    last_segment(ty).is_some_and(|last| last.to_string().ends_with("Result"))
}

/// Returns the type arguments of the last name of a path: `T` and `E` of `Result<T, E>`.
pub(crate) fn type_arguments(ty: &Type) -> Vec<Type> {
    let Type::Path(path) = peel(ty) else {
        return Vec::new();
    };
    let last = path.path.segments.last();
    let Some(PathArguments::AngleBracketed(arguments)) = last.map(|last| &last.arguments) else {
        return Vec::new();
    };
    let types = arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty.clone()),
        _ => None,
    });
    types.collect()
}

/// Returns the first of them.
pub(crate) fn first_argument(ty: &Type) -> Option<Type> {
    type_arguments(ty).into_iter().next()
}

/// Returns the first of them, for replacement.
pub(crate) fn first_argument_mut(ty: &mut Type) -> Option<&mut Type> {
    let path = match ty {
        Type::Group(group) => return first_argument_mut(&mut group.elem),
        Type::Paren(paren) => return first_argument_mut(&mut paren.elem),
        Type::Path(path) => path,
        _ => return None,
    };
    let PathArguments::AngleBracketed(arguments) = &mut path.path.segments.last_mut()?.arguments
    else {
        return None;
    };
    arguments
        .args
        .iter_mut()
        .find_map(|argument| match argument {
            GenericArgument::Type(ty) => Some(ty),
            _ => None,
        })
}

/// Returns the `Item` of the `impl Stream` in `Result<impl Stream<Item = ..>, E>`.
pub(crate) fn streamed_item(output: &Type) -> Option<Type> {
    let mut output = output.clone();
    let Type::ImplTrait(opaque) = peel(first_argument_mut(&mut output)?) else {
        return None;
    };
    opaque.bounds.iter().find_map(|bound| {
        let TypeParamBound::Trait(bound) = bound else {
            return None;
        };
        let last = bound.path.segments.last()?;
        let PathArguments::AngleBracketed(arguments) = &last.arguments else {
            return None;
        };
        arguments
            .args
            .iter()
            .filter(|_| last.ident == "Stream")
            .find_map(|argument| match argument {
                GenericArgument::AssocType(item) if item.ident == "Item" => Some(item.ty.clone()),
                _ => None,
            })
    })
}

/// Returns `true` if this is an `impl Stream`.
pub(crate) fn is_stream(opaque: &TypeImplTrait) -> bool {
    opaque.bounds.iter().any(|bound| {
        let TypeParamBound::Trait(bound) = bound else {
            return false;
        };
        let last = bound.path.segments.last();
        last.is_some_and(|last| last.ident == "Stream")
    })
}

/// Returns the reference that a type is, if it is one.
pub(crate) fn reference(ty: &Type) -> Option<&TypeReference> {
    match peel(ty) {
        Type::Reference(reference) => Some(reference),
        _ => None,
    }
}

/// Returns the item of the stream in a type, if the type is a stream by its name or a box of one.
pub(crate) fn boxed_stream(ty: &Type) -> Option<Type> {
    if is_streaming(ty) {
        let mut arguments = type_arguments(ty).into_iter();
        let message = arguments.next();
        let error = arguments.next().unwrap_or_else(|| parse_quote!(Status));
        return Some(parse_quote!(Result<#message, #error>));
    }
    if is_named(ty, "BoxStream") {
        return first_argument(ty);
    }
    let objects = NestedTypes::of(ty).objects;
    objects.iter().find_map(|object| streamed(&object.bounds))
}

/// Returns the `Item` of a bound `Stream<Item = ..>`.
pub(crate) fn streamed(bounds: &Punctuated<TypeParamBound, Token![+]>) -> Option<Type> {
    let opaque: Type = parse_quote!(Result<impl #bounds>);
    streamed_item(&opaque)
}

/// Returns the type that owns the value of a reference to `ty`.
pub(crate) fn owned(ty: &Type) -> String {
    match peel(ty) {
        Type::Path(path) if path.path.is_ident("str") => "String".to_owned(),
        Type::Slice(slice) => format!("Vec<{}>", display_type(&slice.elem)),
        ty => display_type(ty),
    }
}

/// Formats the first type argument of a type as in source code.
pub(crate) fn shown_argument(ty: &Type) -> String {
    first_argument(ty)
        .as_ref()
        .map_or_else(String::new, display_type)
}

/// Formats a type as in source code.
pub(crate) fn display_type(ty: &Type) -> String {
    let tight = [
        (" < ", "<"),
        (" >", ">"),
        (" :: ", "::"),
        (":: ", "::"),
        (" ,", ","),
        ("& ", "&"),
        (" ;", ";"),
    ];
    tight
        .into_iter()
        .fold(ty.to_token_stream().to_string(), |text, (from, to)| {
            text.replace(from, to)
        })
}

/// Parts of a type that a type on the wire must not contain.
#[derive(Default)]
pub(crate) struct NestedTypes {
    pub(crate) references: Vec<TypeReference>,
    pub(crate) opaque: Vec<TypeImplTrait>,
    /// Paths that begin with `Self`.
    pub(crate) own: Vec<Path>,
    /// `Streaming<T>` and `Subscription<T>`.
    pub(crate) streams: Vec<Type>,
    pub(crate) objects: Vec<TypeTraitObject>,
    pub(crate) lifetimes: Vec<Lifetime>,
    /// The lifetimes of `Cow`s, which are decoded as owned.
    pub(crate) in_cows: Vec<Lifetime>,
}

impl NestedTypes {
    pub(crate) fn of(ty: &Type) -> Self {
        let mut inside = Self::default();
        inside.visit_type_mut(&mut ty.clone());
        inside
    }
}

impl VisitMut for NestedTypes {
    fn visit_type_reference_mut(&mut self, reference: &mut TypeReference) {
        self.references.push(reference.clone());
    }

    fn visit_type_impl_trait_mut(&mut self, opaque: &mut TypeImplTrait) {
        self.opaque.push(opaque.clone());
    }

    fn visit_type_trait_object_mut(&mut self, object: &mut TypeTraitObject) {
        self.objects.push(object.clone());
    }

    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        self.lifetimes.push(lifetime.clone());
    }

    fn visit_type_mut(&mut self, ty: &mut Type) {
        if is_streaming(ty) || is_subscription(ty) {
            self.streams.push(ty.clone());
        }
        visit_mut::visit_type_mut(self, ty);
    }

    fn visit_path_segment_mut(&mut self, segment: &mut PathSegment) {
        let before = self.lifetimes.len();
        visit_mut::visit_path_segment_mut(self, segment);
        if segment.ident == "Cow" && self.lifetimes.len() > before {
            self.in_cows.push(self.lifetimes.remove(before));
        }
    }

    fn visit_path_mut(&mut self, path: &mut Path) {
        if path
            .segments
            .first()
            .is_some_and(|first| first.ident == "Self")
        {
            self.own.push(path.clone());
        } else {
            visit_mut::visit_path_mut(self, path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_of_the_user_and_one_of_the_runtime_differ_in_path_or_shape() {
        let ours: [Type; 6] = [
            parse_quote!(Streaming<u8>),
            parse_quote!(iip_rpc::Streaming<u8>),
            parse_quote!(::iip_rpc::Streaming<u8, E>),
            parse_quote!(rpc::Streaming<u8>),
            parse_quote!((Streaming<u8>)),
            parse_quote!(iip_rpc::Streaming<self::Item>),
        ];
        let theirs: [Type; 6] = [
            parse_quote!(Streaming),
            parse_quote!(self::Streaming<u8>),
            parse_quote!(crate::media::Streaming<u8>),
            parse_quote!(super::super::Streaming<u8>),
            parse_quote!(media::Streaming),
            parse_quote!(Option<Streaming<u8>>),
        ];
        assert!(ours.iter().all(is_streaming));
        assert!(!theirs.iter().any(is_streaming));
        assert!(is_subscription(&parse_quote!(Subscription<u8>)));
        assert!(!is_subscription(&parse_quote!(Subscription)));
        assert!(is_context_reference(&parse_quote!(&iip_rpc::CallContext)));
        assert!(!is_context_reference(&parse_quote!(&self::CallContext)));
        assert!(!is_context_reference(&parse_quote!(&CallContext<u8>)));
    }
}
