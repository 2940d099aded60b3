//! The class of a service.

use std::collections::BTreeSet;

use iip_rpc::schema::openapi::http_path;
use iip_rpc::schema::{Description, Format, Method, MethodKind, Type};

use super::layout::{Item, Layout, list, members, object, text};
use super::readers::Readers;
use super::text::{Unique, comment, key, literal, method_name};
use super::types::{At, Named, member};

/// The codec whose messages are not JSON.
const PROTOBUF: &str = "protobuf";

/// The types of a service and their readers.
pub(super) struct Writer<'a> {
    pub(super) named: &'a Named<'a>,
    pub(super) readers: &'a Readers<'a>,
}

impl<'a> Writer<'a> {
    /// Returns the class with this name. Methods that cannot be called over HTTP are added to
    /// `left_out`.
    pub(super) fn class(
        &self,
        name: &str,
        service: &'a Description,
        left_out: &mut Vec<String>,
    ) -> String {
        let mut out = String::from("\n");
        write_doc(
            &mut out,
            0,
            &service.doc,
            &[],
            service.deprecated.as_deref(),
        );
        out.push_str(&format!(
            "export class {name} {{\n  readonly #client: Client;\n\n  \
             constructor(options: ClientOptions) {{\n    \
             this.#client = new Client(options);\n  }}\n"
        ));
        let (mut names, mut paths) = (Unique::default(), BTreeSet::new());
        for method in &service.methods {
            match path(service, method).and_then(|path| match paths.insert(path.clone()) {
                true => Ok(path),
                false => Err("another method has the same path"),
            }) {
                Ok(path) => {
                    out.push('\n');
                    let name = names.claim(method_name(&method.name));
                    self.method(&mut out, &name, &path, method);
                }
                Err(reason) => {
                    left_out.push(format!("{}.{}: {reason}", service.service, method.name));
                }
            }
        }
        out.push_str("}\n");
        out
    }

    fn method(&self, out: &mut String, name: &str, path: &str, method: &'a Method) {
        let binary = binary(method);
        let (result, sent) = (self.result(method, binary), self.sent(method, binary));
        write_doc(
            out,
            2,
            &method.doc,
            &self.notes(method),
            method.deprecated.as_deref(),
        );
        out.push_str("  ");
        let is_void = binary.is_some() && method.kind == MethodKind::OneWay;
        let (asynchronous, begin) = match is_void {
            true => ("async ", "await "),
            false => ("", "return "),
        };
        let options = match method.kind {
            MethodKind::Subscription => "options?: SubscribeOptions",
            _ => "options?: CallOptions",
        };
        let mut parameters: Vec<Layout> = sent.iter().map(|(_, of)| of.clone()).collect();
        parameters.push(text(options));
        let open = format!("{asynchronous}{}(", key(name));
        let result = Layout::Concat(vec![text(": "), result]);
        list(open, parameters, ")").write_head(&result, out, 2);
        out.push_str(" {\n    ");
        let mut args = vec![self.target(path, method, binary)];
        let has_no_args = sent.first().is_none_or(|(name, _)| *name != "args");
        if has_no_args && binary.is_none() {
            // A stream of requests begins with arguments only if there are any.
            args.push(text(match method.requests {
                Some(_) => "undefined",
                None => "{}",
            }));
        }
        args.extend(sent.iter().map(|(name, _)| text(*name)));
        args.push(text("options"));
        let call = list(
            format!("{begin}this.#client.{}(", function(method, binary)),
            args,
            ")",
        );
        call.write(out, 4, 1);
        out.push_str(";\n  }\n");
    }

    /// Returns the type of the result of the method.
    fn result(&self, method: &'a Method, binary: Option<&str>) -> Layout {
        let within =
            |open: &str, of: Layout, close: &str| Layout::Concat(vec![text(open), of, text(close)]);
        let result = || self.named.value(&method.result);
        match method.kind {
            MethodKind::OneWay => text("Promise<void>"),
            _ if binary.is_some() => text("Promise<Uint8Array>"),
            MethodKind::ServerStream | MethodKind::Bidirectional => {
                within("AsyncIterable<", result(), ">")
            }
            MethodKind::Subscription => within("AsyncIterable<Update<", result(), ">>"),
            _ if method.result == Type::Unit => text("Promise<void>"),
            _ => within("Promise<", result(), ">"),
        }
    }

    /// Returns the parameters of the method, except for the options.
    fn sent(&self, method: &'a Method, binary: Option<&str>) -> Vec<(&'static str, Layout)> {
        if binary.is_some() {
            return vec![("body", text("body: Uint8Array | string"))];
        }
        let mut sent = Vec::new();
        if !method.args.is_empty() {
            let (mut names, mut all_optional) = (BTreeSet::new(), true);
            let args = method.args.iter().filter(|arg| names.insert(&*arg.name));
            let args: Vec<Item> = args
                .map(|arg| {
                    let optional = matches!(arg.ty, Type::Option(_));
                    all_optional &= optional;
                    let ty = self.named.ty(&arg.ty, At::default().below());
                    member(&arg.name, ty, optional).into()
                })
                .collect();
            let default = match all_optional && method.requests.is_none() {
                true => " = {}",
                false => "",
            };
            let args = vec![text("args: "), members(args), text(default)];
            sent.push(("args", Layout::Concat(args)));
        }
        if let Some(ty) = &method.requests {
            let parts = vec![text("messages: Messages<"), self.named.value(ty), text(">")];
            sent.push(("messages", Layout::Concat(parts)));
        }
        sent
    }

    /// Returns the description of the method for the runtime.
    fn target(&self, path: &str, method: &'a Method, binary: Option<&str>) -> Layout {
        let result = match binary {
            Some(_) => text("read.any"),
            None => self.readers.value(&method.result),
        };
        let entry =
            |name: &str, value: Layout| Layout::Concat(vec![text(format!("{name}: ")), value]);
        let mut entries = vec![entry("path", text(literal(path))), entry("result", result)];
        let errors = [
            ("error", &method.error),
            ("streamError", &method.stream_error),
        ];
        for (name, error) in errors {
            if let Some(error) = self.error_name(error.as_ref()) {
                entries.push(entry(name, text(literal(error))));
            }
        }
        if let Some(binary) = binary {
            entries.push(entry("binary", text(literal(binary))));
        }
        object(entries)
    }

    /// Returns the name of an error type.
    pub(super) fn error_name(&self, error: Option<&'a Type>) -> Option<&str> {
        match error? {
            Type::Named(name) => self.named.name(name, At::default()),
            _ => None,
        }
    }

    /// Returns the notes that are added to the documentation of a method.
    fn notes(&self, method: &'a Method) -> Vec<String> {
        let mut notes = Vec::new();
        let mut errors = vec![self.error_name(method.error.as_ref())];
        errors.push(self.error_name(method.stream_error.as_ref()));
        errors.dedup();
        for error in errors.into_iter().flatten() {
            notes.push(format!(
                "Its own errors are of type `{error}`: see `as{error}`."
            ));
        }
        if let Some(auth) = &method.auth {
            notes.push(format!("Callers need: {auth}"));
        }
        if let Some(timeout) = method.timeout_ms {
            notes.push(format!(
                "The timeout is {timeout} ms unless an option sets another."
            ));
        }
        notes
    }
}

/// Returns the HTTP path of a method, or the reason why it has none.
fn path(service: &Description, method: &Method) -> Result<String, &'static str> {
    let has_stream = !matches!(method.kind, MethodKind::Unary | MethodKind::OneWay);
    if method.codec.as_deref() == Some(PROTOBUF) && has_stream {
        return Err("a stream of protobuf messages has no form in HTTP");
    }
    http_path(service, method).ok_or("an HTTP path cannot contain its name")
}

/// Returns the content type of bodies that are not JSON.
fn binary(method: &Method) -> Option<&'static str> {
    if method.format == Format::Raw {
        return Some("application/octet-stream");
    }
    let is_protobuf = method.codec.as_deref() == Some(PROTOBUF);
    is_protobuf.then_some("application/x-protobuf")
}

/// Returns the function of the runtime that makes the call.
fn function(method: &Method, binary: Option<&str>) -> &'static str {
    match method.kind {
        _ if binary.is_some() => "binary",
        MethodKind::OneWay => "oneWay",
        MethodKind::ServerStream => "serverStream",
        MethodKind::ClientStream => "clientStream",
        MethodKind::Bidirectional => "bidirectional",
        MethodKind::Subscription => "subscribe",
        _ => "unary",
    }
}

fn write_doc(
    out: &mut String,
    indent: usize,
    doc: &str,
    notes: &[String],
    deprecated: Option<&str>,
) {
    let mut parts = Vec::new();
    if !doc.is_empty() {
        parts.push(doc.to_owned());
    }
    if !notes.is_empty() {
        parts.push(notes.join("\n"));
    }
    if let Some(note) = deprecated {
        parts.push(format!("@deprecated {note}"));
    }
    if !parts.is_empty() {
        out.push_str(&comment(&parts.join("\n\n"), indent));
        out.push('\n');
    }
}
