//! The rules for what a method returns.

use proc_macro2::Span;
use syn::{Lifetime, ReturnType, Signature, Type};

use crate::{
    errors::Errors,
    model::MethodDef,
    types::{
        NestedTypes, boxed_stream, display_type, first_argument, is_called_result, is_stream,
        is_subscription, owned, peel, reference, shown_argument, type_arguments,
    },
};

/// Checks the return type of a method.
pub(super) fn result(method: &MethodDef<'_>, errors: &mut Errors) {
    let sig = &method.syntax.sig;
    if let Some(stream) = returned_stream(sig) {
        errors.at(
            stream,
            format!(
                "write `async fn {}(..) -> Result<impl Stream<Item = Result<T, Status>>, Status>`: \
                 a call can fail before its stream begins",
                sig.ident
            ),
        );
        return;
    }
    let ReturnType::Type(_, ty) = &sig.output else {
        errors.at_span(
            after_parentheses(sig),
            "write a return type, at least `-> Result<(), Status>`: a call can fail",
        );
        return;
    };
    if !returns_result(ty, errors) {
        return;
    }
    if let Some(reply) = method.reply()
        && let Some(item) = boxed_stream(&reply)
    {
        errors.at(
            &reply,
            format!(
                "write `impl Stream<Item = {}>`: an implementation may return any stream, \
                 including this one",
                display_type(&item)
            ),
        );
        return;
    }
    inside_result(method, ty, errors);
}

/// Reports a return type that is not a `Result` by its name, and returns `true` if it is one.
fn returns_result(ty: &Type, errors: &mut Errors) -> bool {
    if let Some(reference) = reference(ty) {
        errors.at(
            reference,
            format!(
                "write `Result<{}, Status>`: the reply is decoded from the network",
                owned(&reference.elem)
            ),
        );
        return false;
    }
    if !is_called_result(ty) {
        let value = match boxed_stream(ty) {
            Some(item) => format!("impl Stream<Item = {}>", display_type(&item)),
            None => display_type(ty),
        };
        errors.at(
            ty,
            format!("write `Result<{value}, Status>`: a call can fail"),
        );
        return false;
    }
    true
}

/// Checks the types in the `Result` that a method returns.
fn inside_result(method: &MethodDef<'_>, ty: &Type, errors: &mut Errors) {
    let mut arguments = type_arguments(ty);
    if let Some(reply) = arguments.first_mut()
        && is_subscription(reply)
        && let Some(value) = first_argument(reply)
    {
        *reply = value;
    }
    let inside = arguments.iter().map(|argument| decoded(argument, errors));
    let opaque: Vec<_> = inside.flat_map(|inside| inside.opaque).collect();
    // The stream that the method returns is the only one allowed.
    for opaque in opaque
        .into_iter()
        .skip(usize::from(method.replies.is_some()))
    {
        let streams = is_stream(&opaque);
        errors.at(
            opaque,
            if streams {
                "write `Result<impl Stream<Item = Result<T, Status>>, Status>`: the only stream \
                 that a method can return"
            } else {
                "name the type: the client has to know what to decode"
            },
        );
    }
    for own in NestedTypes::of(ty).own {
        errors.at(
            own,
            "name the type: `Self` is a different type on each side of a call",
        );
    }
}

/// Checks a type that a client decodes for everything that it must not contain, except for opaque
/// types and `Self`.
pub(super) fn decoded(ty: &Type, errors: &mut Errors) -> NestedTypes {
    let inside = NestedTypes::of(ty);
    for stream in &inside.streams {
        errors.at(
            stream,
            format!(
                "write `Result<impl Stream<Item = Result<{}, Status>>, Status>`: a stream cannot \
                 be part of a value",
                shown_argument(stream)
            ),
        );
    }
    for object in &inside.objects {
        errors.at(
            object,
            "name the type: the client has to know what to decode",
        );
    }
    for lifetime in &inside.lifetimes {
        errors.at(
            lifetime,
            "write a type that owns what is in it, without a lifetime: the reply is decoded from \
             the network",
        );
    }
    let short_lived = |lifetime: &&Lifetime| lifetime.ident != "static";
    for lifetime in inside.in_cows.iter().filter(short_lived) {
        errors.at(
            lifetime,
            "write `'static`: the reply is decoded from the network",
        );
    }
    for reference in &inside.references {
        errors.at(
            reference,
            format!(
                "write `{}`: the reply is decoded from the network",
                owned(&reference.elem)
            ),
        );
    }
    inside
}

/// Returns the `impl Stream` that a method returns.
pub(super) fn returned_stream(sig: &Signature) -> Option<&Type> {
    let ReturnType::Type(_, ty) = &sig.output else {
        return None;
    };
    matches!(peel(ty), Type::ImplTrait(opaque) if is_stream(opaque)).then_some(ty.as_ref())
}

/// Returns the position of the return type.
fn after_parentheses(sig: &Signature) -> Span {
    sig.paren_token.span.close()
}
