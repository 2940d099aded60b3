//! The rules for the arguments of a method.

use syn::{FnArg, Pat, PatType, Type, TypeReference};

use crate::{
    errors::Errors,
    model::{Kind, MethodDef, is_plain_name},
    types::{
        NestedTypes, display_type, first_argument, is_context, is_context_reference, is_named,
        is_streaming, owned, peel, reference, shown_argument, streamed,
    },
};

/// Maximum number of arguments: the size of the largest tuple that the runtime can encode.
const MAX_ARGUMENTS: usize = 12;

/// Checks all arguments of a method.
pub(super) fn arguments(method: &MethodDef<'_>, errors: &mut Errors) {
    let sig = &method.syntax.sig;
    let mut typed = Vec::new();
    for (index, arg) in sig.inputs.iter().enumerate() {
        if let FnArg::Typed(arg) = arg {
            let first = index == usize::from(sig.receiver().is_some());
            argument(arg, first, errors);
            if !is_context_reference(&arg.ty) {
                typed.push(arg);
            }
            if is_streaming(&arg.ty) && index + 1 < sig.inputs.len() {
                errors.at(
                    arg,
                    "move the stream to the end: its messages follow the other arguments",
                );
            }
        }
    }
    if let Some(variadic) = &sig.variadic {
        errors.at(variadic, "take a `Vec<T>` for any number of values");
    }
    if method.kind == Kind::Raw {
        raw_argument(method, &typed, errors);
    } else if method.is_protobuf {
        message_argument(method, &typed, errors);
    } else if let Some(extra) = typed.get(MAX_ARGUMENTS) {
        errors.at(
            extra,
            format!("a method takes at most {MAX_ARGUMENTS} arguments: put them into a struct"),
        );
    }
}

/// Checks that a raw method has one argument, the body.
fn raw_argument(method: &MethodDef<'_>, typed: &[&PatType], errors: &mut Errors) {
    if let Some(text) = typed.first().filter(|arg| is_text(&arg.ty)) {
        errors.at(
            &text.ty,
            "write `&[u8]`, `Vec<u8>` or `Bytes`: the body of a raw method need not be UTF-8",
        );
    }
    if let Some(second) = typed.get(1) {
        errors.at(
            second,
            "remove this argument: a raw method takes one, the body",
        );
    } else if typed.is_empty() {
        errors.at(
            method.ident(),
            "add the argument of a raw method, the body: write `body: Bytes`",
        );
    }
}

/// Checks that a method of a protobuf service has one argument, a message.
fn message_argument(method: &MethodDef<'_>, typed: &[&PatType], errors: &mut Errors) {
    // The last argument is the stream, if there is one.
    let typed = &typed[..typed.len() - usize::from(method.requests.is_some())];
    let Some(first) = typed.first() else {
        if method.requests.is_none() {
            errors.at(
                method.ident(),
                "add the argument of a protobuf method, a message: write `request: &()` for an \
                 empty one",
            );
        }
        return;
    };
    if let Some(second) = typed.get(1) {
        errors.at(
            second,
            "remove this argument: a protobuf method takes one message, which may have several \
             fields",
        );
    }
    if let Some(borrow) = reference(&first.ty)
        && (is_named(&borrow.elem, "str") || matches!(peel(&borrow.elem), Type::Slice(_)))
    {
        errors.at(
            &first.ty,
            format!(
                "write `&{}`: a protobuf method takes a message",
                owned(&borrow.elem)
            ),
        );
    }
}

fn is_text(ty: &Type) -> bool {
    reference(ty).is_some_and(|reference| is_text(&reference.elem))
        || is_named(ty, "str")
        || is_named(ty, "String")
}

fn argument(arg: &PatType, first: bool, errors: &mut Errors) {
    for attr in &arg.attrs {
        errors.at(
            attr,
            "remove this attribute: only a whole method can have one",
        );
    }
    match arg.pat.as_ref() {
        pattern if is_plain_name(pattern) => {}
        Pat::Ident(pattern) => errors.at(
            pattern,
            format!("write `{}` alone: an argument is a name", pattern.ident),
        ),
        pattern => errors.at(
            pattern,
            format!(
                "write a name, as in `name: {}`: arguments have names in plain JSON",
                display_type(&arg.ty)
            ),
        ),
    }
    if is_context_reference(&arg.ty) {
        if !first {
            errors.at(
                arg,
                "move the context to the front: `&self, ctx: &CallContext`",
            );
        }
        return;
    }
    argument_type(&arg.ty, errors);
}

fn argument_type(ty: &Type, errors: &mut Errors) {
    let ty = peel(ty);
    let borrow = reference(ty);
    let value = borrow.map_or(ty, |reference| &reference.elem);
    if is_context(value) {
        errors.at(
            ty,
            "write `&CallContext`: the context of a call is borrowed and read-only",
        );
        return;
    }
    if let Some(borrow) = borrow {
        argument_reference(borrow, errors);
    }
    let message = first_argument(value).filter(|_| is_streaming(value));
    inside_argument(message.as_ref().unwrap_or(value), errors);
}

/// Checks a reference that is a whole argument.
fn argument_reference(borrow: &TypeReference, errors: &mut Errors) {
    let value = borrow.elem.as_ref();
    if borrow.mutability.is_some() {
        errors.at(
            borrow,
            format!(
                "write `&{}` or `{}`: the server gets a copy",
                display_type(value),
                owned(value)
            ),
        );
    } else if borrow.lifetime.is_some() {
        errors.at(
            borrow,
            format!(
                "write `&{}`: an argument is borrowed for the duration of the call",
                display_type(value)
            ),
        );
    }
    if is_streaming(value) {
        errors.at(
            borrow,
            format!("write `{}`: a stream has one reader", display_type(value)),
        );
    }
}

/// Checks the type of an argument, or of a message of a stream, for everything that it must not
/// contain.
fn inside_argument(ty: &Type, errors: &mut Errors) {
    let inside = NestedTypes::of(ty);
    for stream in &inside.streams {
        stream_inside(stream, errors);
    }
    for object in inside.objects {
        errors.at(
            &object,
            match streamed(&object.bounds) {
                Some(item) => format!(
                    "write `Streaming<{}>`, as the last argument",
                    shown_argument(&item)
                ),
                None => "name the type: the server has to know what to decode".to_owned(),
            },
        );
    }
    for lifetime in inside.lifetimes {
        errors.at(
            lifetime,
            "write a type that owns what is in it, without a lifetime: only whole arguments and \
             `Cow<'_, T>` can borrow",
        );
    }
    for reference in inside.references {
        errors.at(
            reference,
            "write the owned type, such as `String` for `&str`: only a whole argument can be a \
             reference",
        );
    }
    for opaque in inside.opaque {
        errors.at(
            opaque,
            "name the type: the server has to know what to decode",
        );
    }
    for own in inside.own {
        errors.at(
            own,
            "name the type: `Self` is a different type on each side of a call",
        );
    }
}

/// Rejects a `Streaming<T>` or `Subscription<T>` that is not a whole argument.
fn stream_inside(stream: &Type, errors: &mut Errors) {
    let message = if is_streaming(stream) {
        format!(
            "make it the last argument, `items: {}`: a stream cannot be part of a value",
            display_type(stream)
        )
    } else {
        format!(
            "write `Streaming<{}>`, as the last argument: only a reply can be a \
             subscription",
            shown_argument(stream)
        )
    };
    errors.at(stream, message);
}
