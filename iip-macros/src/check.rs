//! The rules for a service. Each mistake is reported on the tokens to change, with the correct
//! code, and none hides another.

use proc_macro2::Span;
use quote::ToTokens;
use syn::{
    FnArg, GenericParam, Generics, ItemTrait, Pat, PatIdent, PatType, Receiver, ReceiverKind,
    ReturnType, Safety, Signature, TraitItem, TraitItemFn, Type, TypeParam, TypeParamBound,
    WherePredicate, ext::IdentExt,
};

use crate::{
    attr,
    errors::Errors,
    model::{Kind, MethodDef, ServiceDef, is_implied},
    types::{
        NestedTypes, boxed_stream, display_type, first_argument, is_context, is_context_reference,
        is_named, is_stream, is_streaming, is_subscription, last_segment, owned, peel, reference,
        shown_argument, streamed, type_arguments,
    },
};

/// Maximum number of arguments: the size of the largest tuple that the runtime can encode.
const MAX_ARGUMENTS: usize = 12;

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
        arguments(method, errors);
        attributes(method, errors);
        result(method, errors);
        streams(method, errors);
        one_way(method, errors);
    }
    uniqueness(&def.methods, errors);
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
                 the service alone"
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
            "remove the lifetime: a service owns what it answers with, so write \
            `String` for `&'a str`",
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
                "`#[rpc(..)]` stands on a method: write the settings of the trait in \
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
    // A bare stream is rejected by `result`.
    if sig.asyncness.is_none() && returned_stream(sig).is_none() {
        errors.at(
            sig.fn_token,
            format!(
                "write `async fn {}`: the answer comes over the network",
                sig.ident
            ),
        );
    }
    if let Some(constness) = &sig.constness {
        errors.at(
            constness,
            "remove `const`: the answer comes over the network",
        );
    }
    if !matches!(sig.safety, Safety::Default) {
        errors.at(
            &sig.safety,
            "remove this: a method of a service is an ordinary `async fn`",
        );
    }
    if let Some(abi) = &sig.abi {
        errors.at(
            abi,
            "remove this: a method of a service is an ordinary `async fn`",
        );
    }
    for param in &sig.generics.params {
        match param {
            GenericParam::Lifetime(param) => {
                errors.at(
                    param,
                    "remove the lifetime: write `&str`, an argument is lent for as \
                    long as the call takes",
                );
            }
            GenericParam::Type(param) => errors.at(
                param,
                format!(
                    "name the type, or make `{}` a parameter of the trait: a method has one \
                    type on the wire",
                    param.ident
                ),
            ),
            GenericParam::Const(param) => errors.at(
                param,
                format!(
                    "name the value, or make `{}` a parameter of the trait: a method has one \
                    type on the wire",
                    param.ident
                ),
            ),
        }
    }
    if let Some(clause) = &sig.generics.where_clause {
        errors.at(
            clause,
            "move this condition to the `where` clause of the trait",
        );
    }
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
            "write `;` instead of a body: the client implements every method by a call",
        );
    }
}

fn self_by_reference(receiver: &Receiver, errors: &mut Errors) {
    let message = match &receiver.kind {
        ReceiverKind::Reference(_, None, None) => return,
        ReceiverKind::Reference(_, _, Some(_)) => {
            "write `&self`: calls run at the same time, so keep what changes behind a lock or in \
             an atomic"
        }
        ReceiverKind::Reference(_, Some(_), None) => "write `&self`, without a lifetime",
        _ => "write `&self`: one value answers every call",
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
                "choose another name: the client has a `{name}` of its own; `#[rpc(name = \
                 \"{name}\")]` keeps this one on the wire"
            ),
        );
    }
}

fn arguments(method: &MethodDef<'_>, errors: &mut Errors) {
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
                    "move the stream to the end: its messages follow behind the other arguments",
                );
            }
        }
    }
    if let Some(variadic) = &sig.variadic {
        errors.at(variadic, "take a `Vec<T>` for any number of values");
    }
    if method.kind == Kind::Raw {
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
                &sig.ident,
                "add the argument of a raw method, the body: write `body: Bytes`",
            );
        }
    } else if method.is_protobuf {
        message_argument(method, &typed, errors);
    } else if let Some(extra) = typed.get(MAX_ARGUMENTS) {
        errors.at(
            extra,
            format!("a method takes at most {MAX_ARGUMENTS} arguments: put them into a struct"),
        );
    }
}

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
    if let Some(lent) = reference(&first.ty)
        && (is_named(&lent.elem, "str") || matches!(peel(&lent.elem), Type::Slice(_)))
    {
        errors.at(
            &first.ty,
            format!(
                "write `&{}`: a protobuf method takes a message",
                owned(&lent.elem)
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
        Pat::Ident(PatIdent {
            by_ref: None,
            mutability: None,
            subpat: None,
            ..
        }) => {}
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
    let lent = match ty {
        Type::Reference(reference) => {
            if is_context(&reference.elem) {
                errors.at(
                    ty,
                    "write `&CallContext`: the context of a call is lent to read",
                );
                return;
            }
            if reference.mutability.is_some() {
                errors.at(
                    ty,
                    format!(
                        "write `&{}` or `{}`: the other side works on a copy of its own",
                        display_type(&reference.elem),
                        owned(&reference.elem)
                    ),
                );
            } else if reference.lifetime.is_some() {
                errors.at(
                    ty,
                    format!(
                        "write `&{}`: an argument is lent for as long as the call takes",
                        display_type(&reference.elem)
                    ),
                );
            }
            reference.elem.as_ref()
        }
        ty => ty,
    };
    if is_context(lent) {
        errors.at(
            ty,
            "write `&CallContext`: the context of a call is lent to read",
        );
        return;
    }
    if is_streaming(lent) && reference(ty).is_some() {
        errors.at(
            ty,
            format!(
                "write `{}`: a stream is read by one, to its end",
                display_type(lent)
            ),
        );
    }
    let message = first_argument(lent).filter(|_| is_streaming(lent));
    let inside = NestedTypes::of(message.as_ref().unwrap_or(lent));
    for stream in inside.streams {
        errors.at(
            &stream,
            if is_streaming(&stream) {
                format!(
                    "make it the last argument, `items: {}`: a stream cannot stand inside a value",
                    display_type(&stream)
                )
            } else {
                format!(
                    "write `Streaming<{}>`, as the last argument: only an answer is a subscription",
                    shown_argument(&stream)
                )
            },
        );
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
    for this in inside.this {
        errors.at(
            this,
            "name the type: `Self` is another one on each side of a call",
        );
    }
}

fn attributes(method: &MethodDef<'_>, errors: &mut Errors) {
    for attr in &method.syntax.attrs {
        if attr::conditional(attr)
            .iter()
            .any(|meta| meta.path().is_ident("rpc"))
        {
            errors.at(
                attr,
                "write `#[rpc(..)]` without a condition, or two methods with one `#[cfg(..)]` each: a method is the same in \
                 every build",
            );
        }
    }
    if let (Some(_), Some(json)) = (&method.settings.raw, &method.settings.json) {
        errors.at(json, "remove `json` or `raw`: a body is one or the other");
    } else if let (true, Some(json)) = (method.is_protobuf, &method.settings.json) {
        errors.at(
            json,
            "remove `json`, or move the method to a service with another codec: protobuf messages \
             have no JSON form",
        );
    }
    if let (Some((_, hedge)), false) = (&method.settings.hedge, method.settings.idempotent) {
        errors.at(
            hedge,
            "add `idempotent`, or remove `hedge`: a hedged call may run twice",
        );
    }
}

fn result(method: &MethodDef<'_>, errors: &mut Errors) {
    let sig = &method.syntax.sig;
    if let Some(stream) = returned_stream(sig) {
        errors.at(
            stream,
            format!(
                "write `async fn {}(..) -> Result<impl Stream<Item = Result<T, Status>>, Status>`: a call can fail before its stream \
                 begins",
                sig.ident
            ),
        );
        return;
    }
    let ReturnType::Type(_, ty) = &sig.output else {
        errors.at_span(
            after_parentheses(sig),
            "write a return type: a call can fail, so the least is `-> Result<(), Status>`",
        );
        return;
    };
    if let Some(reference) = reference(ty) {
        errors.at(
            reference,
            format!(
                "write `Result<{}, Status>`: the answer is decoded from the network",
                owned(&reference.elem)
            ),
        );
        return;
    }
    if !last_segment(ty).is_some_and(|last| last.to_string().ends_with("Result")) {
        let value = match boxed_stream(ty) {
            Some(item) => format!("impl Stream<Item = {}>", display_type(&item)),
            None => display_type(ty),
        };
        errors.at(
            ty,
            format!("write `Result<{value}, Status>`: a call can fail"),
        );
        return;
    }
    if let Some(answer) = method.answered()
        && let Some(item) = boxed_stream(&answer)
    {
        errors.at(
            &answer,
            format!(
                "write `impl Stream<Item = {}>`: an implementation may answer with any stream, \
                 also with this one",
                display_type(&item)
            ),
        );
        return;
    }
    let mut arguments = type_arguments(ty);
    if let Some(answer) = arguments.first_mut()
        && is_subscription(answer)
        && let Some(value) = first_argument(answer)
    {
        *answer = value;
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
                "write `Result<impl Stream<Item = Result<T, Status>>, Status>`: the one stream a \
                 method can answer with"
            } else {
                "name the type: the client has to know what to decode"
            },
        );
    }
    for this in NestedTypes::of(ty).this {
        errors.at(
            this,
            "name the type: `Self` is another one on each side of a call",
        );
    }
}

/// Checks a type that a client decodes for everything it must not contain, except for opaque types
/// and `Self`.
fn decoded(ty: &Type, errors: &mut Errors) -> NestedTypes {
    let inside = NestedTypes::of(ty);
    for stream in &inside.streams {
        errors.at(
            stream,
            format!(
                "write `Result<impl Stream<Item = Result<{}, Status>>, Status>`: a stream cannot \
                 stand inside a value",
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
            "write a type that owns what is in it, without a lifetime: the answer is decoded from \
             the network",
        );
    }
    for lifetime in inside.lent.iter().filter(|lent| lent.ident != "static") {
        errors.at(
            lifetime,
            "write `'static`: the answer is decoded from the network",
        );
    }
    for reference in &inside.references {
        errors.at(
            reference,
            format!(
                "write `{}`: the answer is decoded from the network",
                owned(&reference.elem)
            ),
        );
    }
    inside
}

/// Rejects settings and types that cannot be combined with streams.
fn streams(method: &MethodDef<'_>, errors: &mut Errors) {
    let (requests, replies) = (&method.requests, &method.replies);
    let subscribes = method.subscribes;
    if requests.is_none() && replies.is_none() && !subscribes {
        return;
    }
    if let (Some(requests), true) = (requests, subscribes) {
        errors.at(
            requests.ty,
            "remove the stream, or answer with `impl Stream`: whoever subscribes again cannot send \
             its messages again",
        );
    }
    if let Some(item) = replies {
        decoded(item, errors);
    }
    if let Some(item) = replies
        && !last_segment(item).is_some_and(|last| last.to_string().ends_with("Result"))
    {
        errors.at(
            item,
            format!(
                "write `Result<{}, Status>`: the connection can be lost between two messages",
                display_type(item)
            ),
        );
    }
    if subscribes && method.is_protobuf {
        errors.at(
            method.ident(),
            "answer with `impl Stream`, or move the method to a service with another codec: the numbered values of a subscription are \
             no protobuf messages",
        );
    }
    let settings = &method.settings;
    for setting in settings.raw.iter().chain(&settings.json) {
        errors.at(
            setting,
            "remove this or the stream: only an enveloped call can have streams",
        );
    }
}

/// Rejects settings and types that cannot be combined with a one-way call.
fn one_way(method: &MethodDef<'_>, errors: &mut Errors) {
    let Some(oneway) = &method.settings.oneway else {
        return;
    };
    if matches!(method.kind, Kind::Raw | Kind::Stream | Kind::Subscription) {
        errors.at(
            oneway,
            "remove this, or `raw` and the streams: a one-way call is one enveloped message",
        );
        return;
    }
    if let Some(answer) = method.answered().filter(|ty| !is_nothing(ty)) {
        errors.at(
            answer,
            "write `()`, or remove `oneway`: nobody waits for what a one-way method answers",
        );
    }
    if let Some((_, on_cancel)) = &method.settings.on_cancel {
        errors.at(
            on_cancel,
            "remove `on_cancel`: nobody waits for a one-way call, so it always runs to its end",
        );
    }
    if let Some((_, hedge)) = &method.settings.hedge {
        errors.at(
            hedge,
            "remove `hedge`: nobody waits for the answer to a one-way call",
        );
    }
}

fn is_nothing(ty: &Type) -> bool {
    matches!(peel(ty), Type::Tuple(tuple) if tuple.elems.is_empty())
}

/// Checks that no two methods have the same path, or the same constant for their descriptors.
fn uniqueness(methods: &[MethodDef<'_>], errors: &mut Errors) {
    for (index, method) in methods.iter().enumerate() {
        for earlier in methods.iter().take(index) {
            // Two methods with `#[cfg(..)]` may be for different builds; the server rejects any
            // remaining conflict.
            if method.cfgs().chain(earlier.cfgs()).next().is_some() {
                continue;
            }
            let settings = &method.settings;
            let place = settings
                .path
                .as_ref()
                .or(settings.name.as_ref())
                .map(ToTokens::to_token_stream);
            let place = place.unwrap_or_else(|| method.ident().to_token_stream());
            if method.ident() == earlier.ident() {
                errors.at(
                    method.ident(),
                    format!(
                        "choose another name: `{}` stands above already",
                        method.ident()
                    ),
                );
            } else if method.path == earlier.path {
                let (path, other) = (&method.path, earlier.ident());
                errors.at(
                    place,
                    format!(
                        "choose another path by `#[rpc(path = \"/..\")]`: `{path}` is that of \
                        `{other}`"
                    ),
                );
            } else if method.constant == earlier.constant {
                let other = earlier.ident();
                errors.at(
                    method.ident(),
                    format!("choose another name: `{other}` differs only in upper and lower case"),
                );
            } else {
                continue;
            }
            break;
        }
    }
}

/// Returns the `impl Stream` that a method returns.
fn returned_stream(sig: &Signature) -> Option<&Type> {
    let ReturnType::Type(_, ty) = &sig.output else {
        return None;
    };
    matches!(peel(ty), Type::ImplTrait(opaque) if is_stream(opaque)).then_some(ty.as_ref())
}

/// Returns the position of the return type.
fn after_parentheses(sig: &Signature) -> Span {
    sig.paren_token.span.close()
}
