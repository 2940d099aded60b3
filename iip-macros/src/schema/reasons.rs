//! Reasons for a codec with names that are in nested types.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{GenericArgument, PathArguments, Type};

/// Types that never need names.
const PLAIN: [&str; 21] = [
    "bool", "char", "str", "String", "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16",
    "i32", "i64", "i128", "isize", "f32", "f64", "Bytes", "Payload", "Duration",
];

/// Types that need names only if an argument does.
const CONTAINERS: [&str; 11] = [
    "Option",
    "Vec",
    "VecDeque",
    "Box",
    "Arc",
    "Cow",
    "HashMap",
    "HashSet",
    "BTreeMap",
    "BTreeSet",
    "PhantomData",
];

/// Returns `true` if this type is known by its name not to need a codec with names. Types that are
/// not recognized cost the compiler time, and a type of the program with one of these names is only
/// not looked into.
pub(super) fn is_plain(ty: &Type) -> bool {
    match ty {
        Type::Path(path) if path.qself.is_none() => {
            let Some(last) = path.path.segments.last() else {
                return false;
            };
            match &last.arguments {
                PathArguments::None => PLAIN.iter().any(|plain| last.ident == plain),
                PathArguments::AngleBracketed(arguments) => {
                    CONTAINERS.iter().any(|container| last.ident == container)
                        && arguments.args.iter().all(|argument| match argument {
                            GenericArgument::Type(ty) => is_plain(ty),
                            GenericArgument::Lifetime(_) => true,
                            _ => false,
                        })
                }
                PathArguments::Parenthesized(_) => false,
            }
        }
        Type::Tuple(tuple) => tuple.elems.iter().all(is_plain),
        Type::Array(array) => is_plain(&array.elem),
        Type::Slice(slice) => is_plain(&slice.elem),
        Type::Reference(reference) => is_plain(&reference.elem),
        Type::Group(group) => is_plain(&group.elem),
        Type::Paren(paren) => is_plain(&paren.elem),
        _ => false,
    }
}

/// The constants of `Schema` that find reasons in these types.
pub(super) fn nested(types: &[TokenStream]) -> TokenStream {
    let levels = [
        quote!(IN_PLACE),
        quote!(IN_CONTAINER),
        quote!(IN_CONTAINERS),
    ];
    let constants = levels.iter().map(|level| {
        quote! {
            const #level: ::core::option::Option<&'static str> =
                __schema::first(&[#(__schema::Describe::<#types>::#level),*]);
        }
    });
    quote!(#(#constants)*)
}
