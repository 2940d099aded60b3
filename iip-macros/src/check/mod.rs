//! The rules for a service. Each mistake is reported on the tokens to change, with the correct
//! code, and none hides another.

mod arguments;
mod replies;
mod settings;

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::{
    FnArg, GenericParam, Generics, ItemTrait, Receiver, ReceiverKind, Safety, Signature, TraitItem,
    TraitItemFn, TypeParam, TypeParamBound, WherePredicate, ext::IdentExt,
};

use crate::{
    attr,
    errors::Errors,
    model::{MethodDef, ServiceDef, is_implied},
    types::last_segment,
};

/// Methods of the generated client, and methods that every value with `Clone` has: a call would use
/// those.
const RESERVED_NAMES: [&str; 7] = [
    "new",
    "with_options",
    "clone",
    "clone_into",
    "to_owned",
    "into",
    "try_into",
];

/// An example of a method, for errors without any code to point at.
const METHOD: &str = "async fn hello(&self, name: String) -> Result<String, Status>;";

/// Checks everything that `#[service]` expands.
pub(crate) fn service(def: &ServiceDef<'_>, errors: &mut Errors) {
    definition(def.item, errors);
    for item in &def.item.items {
        only_methods(item, errors);
    }
    for method in &def.methods {
        signature(method.syntax, errors);
        names(method, errors);
        arguments::arguments(method, errors);
        settings::attributes(method, errors);
        replies::result(method, errors);
        settings::streams(method, errors);
        settings::one_way(method, errors);
    }
    uniqueness(&def.methods, errors);
    trait_object(def, errors);
}

/// Rejects `dyn` for a trait that has supertraits of its own.
fn trait_object(def: &ServiceDef<'_>, errors: &mut Errors) {
    if let Some(dyn_twin) = &def.settings.dyn_twin
        && let Some(bound) = def.supertraits().find(|bound| !is_implied(bound))
    {
        errors.at(
            dyn_twin,
            if let TypeParamBound::Lifetime(_) = bound {
                "remove `dyn` or the lifetime: write `'static` where an implementation has to be, \
                 as in `impl Greeter + 'static`"
            } else {
                "remove `dyn` or the supertrait: a trait object and the boxes around it implement \
                 only the service"
            },
        );
    }
}

fn definition(item: &ItemTrait, errors: &mut Errors) {
    if let Some(unsafety) = &item.unsafety {
        errors.at(unsafety, "remove `unsafe`: a service is an ordinary trait");
    }
    for param in item.generics.lifetimes() {
        errors.at(
            param,
            "remove the lifetime: a service owns its replies, so write `String` for `&'a str`",
        );
    }
    for param in item.generics.type_params() {
        if !is_bounded(param, &item.generics) {
            let name = &param.ident;
            errors.at(
                param,
                format!(
                    "write `{name}: Serialize + DeserializeOwned + Send + Sync + 'static`, as far \
                     as methods need it"
                ),
            );
        }
    }
    for attr in &item.attrs {
        if attr
            .path()
            .segments
            .last()
            .is_some_and(|last| last.ident == "async_trait")
        {
            errors.at(
                attr,
                "remove this attribute: `async fn` works in a service as it is",
            );
        }
        if attr::is_rpc(attr) {
            errors.at(
                attr,
                "`#[rpc(..)]` belongs on a method: write the settings of the trait in \
                `#[service(..)]`",
            );
        }
    }
}

/// Returns `true` if a type parameter has any bound. Without one it cannot be sent, which the
/// compiler would report once for every use.
fn is_bounded(param: &TypeParam, generics: &Generics) -> bool {
    let conditions = generics
        .where_clause
        .iter()
        .flat_map(|clause| &clause.predicates);
    let mut subjects = conditions.filter_map(|condition| match condition {
        WherePredicate::Type(condition) => last_segment(&condition.bounded_ty),
        _ => None,
    });
    !param.bounds.is_empty() || subjects.any(|subject| *subject == param.ident)
}

fn only_methods(item: &TraitItem, errors: &mut Errors) {
    match item {
        TraitItem::Fn(_) => {}
        TraitItem::Const(item) => {
            errors.at(
                item,
                "move this constant out of the trait: a service has methods only",
            );
        }
        TraitItem::Type(item) => errors.at(
            item,
            "name the type in the methods, or make it a type parameter of the trait: a service has \
             methods only",
        ),
        item => errors.at(item, format!("write the methods out, as in `{METHOD}`")),
    }
}

/// Checks everything about a method except for its arguments and its result.
fn signature(method: &TraitItemFn, errors: &mut Errors) {
    let sig = &method.sig;
    // `replies::result` rejects a method that returns nothing but a stream.
    if sig.asyncness.is_none() && replies::returned_stream(sig).is_none() {
        errors.at(
            sig.fn_token,
            format!(
                "write `async fn {}`: the reply comes over the network",
                sig.ident
            ),
        );
    }
    qualifiers(sig, errors);
    method_generics(&sig.generics, errors);
    match sig.inputs.first() {
        Some(FnArg::Receiver(receiver)) => self_by_reference(receiver, errors),
        Some(first) => errors.at(first, "write `&self` before the arguments"),
        None => errors.at_span(
            sig.paren_token.span.join(),
            "write `(&self)`: a method is called on a client",
        ),
    }
    if let Some(body) = &method.default {
        errors.at(
            body,
            "write `;` instead of a body: the client implements every method as a call",
        );
    }
}

/// Rejects all qualifiers of a method but `async`.
fn qualifiers(sig: &Signature, errors: &mut Errors) {
    if let Some(constness) = &sig.constness {
        errors.at(
            constness,
            "remove `const`: the reply comes over the network",
        );
    }
    let safety = Some(&sig.safety).filter(|safety| !matches!(safety, Safety::Default));
    let others = [
        safety.map(ToTokens::to_token_stream),
        sig.abi.as_ref().map(ToTokens::to_token_stream),
    ];
    for qualifier in others.into_iter().flatten() {
        errors.at(
            qualifier,
            "remove this: a method of a service is an ordinary `async fn`",
        );
    }
}

/// Rejects the generics of a method, which would give it more than one type on the wire.
fn method_generics(generics: &Generics, errors: &mut Errors) {
    for param in &generics.params {
        let (what, name) = match param {
            GenericParam::Lifetime(param) => {
                errors.at(
                    param,
                    "remove the lifetime: write `&str`, an argument is borrowed for the duration \
                     of the call",
                );
                continue;
            }
            GenericParam::Type(param) => ("type", &param.ident),
            GenericParam::Const(param) => ("value", &param.ident),
        };
        errors.at(
            param,
            format!(
                "name the {what}, or make `{name}` a parameter of the trait: a method has one \
                type on the wire"
            ),
        );
    }
    if let Some(clause) = &generics.where_clause {
        errors.at(
            clause,
            "move this condition to the `where` clause of the trait",
        );
    }
}

fn self_by_reference(receiver: &Receiver, errors: &mut Errors) {
    let message = match &receiver.kind {
        ReceiverKind::Reference(_, None, None) => return,
        ReceiverKind::Reference(_, _, Some(_)) => {
            "write `&self`: calls run at the same time, so keep mutable state behind a lock or in \
             an atomic"
        }
        ReceiverKind::Reference(_, Some(_), None) => "write `&self`, without a lifetime",
        _ => "write `&self`: one value serves every call",
    };
    errors.at(receiver, message);
}

fn names(method: &MethodDef<'_>, errors: &mut Errors) {
    let ident = method.ident();
    let name = ident.unraw().to_string();
    if name.starts_with("__") {
        errors.at(
            ident,
            "choose another name: those that start with `__` are for generated code",
        );
    } else if RESERVED_NAMES.contains(&name.as_str()) {
        errors.at(
            ident,
            format!(
                "choose another name: the client already has a method `{name}`; `#[rpc(name = \
                 \"{name}\")]` keeps this one on the wire"
            ),
        );
    }
}

/// Checks that no two methods have the same name or path, or the same constant for their
/// descriptors.
fn uniqueness(methods: &[MethodDef<'_>], errors: &mut Errors) {
    for (index, method) in methods.iter().enumerate() {
        for earlier in methods.iter().take(index) {
            // Two methods with `#[cfg(..)]` may be for different builds; the server rejects any
            // remaining conflict.
            let conditional = method.cfgs().chain(earlier.cfgs()).next().is_some();
            if !conditional && conflict(method, earlier, errors) {
                break;
            }
        }
    }
}

/// Returns `true` if `method` cannot be in a service with `earlier`, which is reported.
fn conflict(method: &MethodDef<'_>, earlier: &MethodDef<'_>, errors: &mut Errors) -> bool {
    let (ident, other) = (method.ident(), earlier.ident());
    if ident == other {
        errors.at(
            ident,
            format!("choose another name: `{ident}` is already used above"),
        );
    } else if method.path == earlier.path {
        let path = &method.path;
        errors.at(
            place_of_path(method),
            format!(
                "choose another path by `#[rpc(path = \"/..\")]`: `{path}` is the path of \
                 `{other}`"
            ),
        );
    } else if method.constant == earlier.constant {
        errors.at(
            ident,
            format!("choose another name: `{other}` differs only in upper and lower case"),
        );
    } else {
        return false;
    }
    true
}

/// Returns the tokens that the path of a method comes from.
fn place_of_path(method: &MethodDef<'_>) -> TokenStream {
    let settings = &method.settings;
    let setting = settings.path.as_ref().or(settings.name.as_ref());
    setting.map_or_else(
        || method.ident().to_token_stream(),
        ToTokens::to_token_stream,
    )
}
