//! The trait of a service.

use std::fmt::Write;

use iip_core::Printable;
use iip_rpc::schema::{Description, Format, Method, MethodKind, Type};

use super::literal;
use super::types::{definition, docs, name, type_text};

/// Returns a service as Rust code: its trait, and the types that it uses.
pub(super) fn as_rust(service: &Description) -> String {
    let mut out = String::new();
    docs(&mut out, "", &service.doc);
    deprecated(&mut out, "", service.deprecated.as_deref());
    let own = service.service.rsplit('.').next().unwrap_or_default();
    let mut settings = Vec::new();
    if own != service.service {
        settings.push(format!("name = {}", literal(&service.service)));
    }
    if let Some(codec) = common_codec(service) {
        settings.push(format!("codec = {}", literal(codec)));
    }
    let settings = match settings.is_empty() {
        true => String::new(),
        false => format!("({})", settings.join(", ")),
    };
    // Writing to a `String` cannot fail.
    let _ = writeln!(out, "#[service{settings}]\npub trait {} {{", name(own));
    for (at, method) in service.methods.iter().enumerate() {
        if at > 0 {
            out.push('\n');
        }
        trait_method(&mut out, service, own, method);
    }
    out.push_str("}\n");
    for (of, described) in service.types.iter() {
        out.push('\n');
        definition(&mut out, of, described);
    }
    out.truncate(out.trim_end().len());
    out
}

/// Returns the codec of a service if all of its methods have the same one.
fn common_codec(service: &Description) -> Option<&str> {
    let mut codecs = service.methods.iter().map(|method| method.codec.as_deref());
    let first = codecs.next()??;
    codecs.all(|codec| codec == Some(first)).then_some(first)
}

fn deprecated(out: &mut String, indent: &str, note: Option<&str>) {
    let _ = match note {
        None => return,
        Some("") => writeln!(out, "{indent}#[deprecated]"),
        Some(note) => writeln!(out, "{indent}#[deprecated(note = {})]", literal(note)),
    };
}

fn trait_method(out: &mut String, service: &Description, own: &str, method: &Method) {
    docs(out, "    ", &method.doc);
    deprecated(out, "    ", method.deprecated.as_deref());
    let settings = settings(service, own, method);
    if !settings.is_empty() {
        let _ = writeln!(out, "    #[rpc({})]", settings.join(", "));
    }
    let mut args = vec!["&self".to_owned()];
    let given = method.args.iter();
    args.extend(given.map(|arg| format!("{}: {}", name(&arg.name), type_text(&arg.ty))));
    if let Some(ty) = &method.requests {
        args.push(format!("messages: Streaming<{}>", type_text(ty)));
    }
    let error_text = |error: Option<&Type>| error.map_or_else(|| "Status".to_owned(), type_text);
    let error = error_text(method.error.as_ref());
    let item = type_text(&method.result);
    let result = match method.kind {
        MethodKind::ServerStream | MethodKind::Bidirectional => {
            let of_stream = error_text(method.stream_error.as_ref());
            format!("impl Stream<Item = Result<{item}, {of_stream}>>")
        }
        MethodKind::Subscription => format!("Subscription<{item}>"),
        _ => item,
    };
    let (method, result) = (name(&method.name), format!("Result<{result}, {error}>"));
    let line = format!("    async fn {method}({}) -> {result};", args.join(", "));
    if line.chars().count() <= 100 {
        let _ = writeln!(out, "{line}");
        return;
    }
    let _ = writeln!(out, "    async fn {method}(");
    for arg in args {
        let _ = writeln!(out, "        {arg},");
    }
    let _ = writeln!(out, "    ) -> {result};");
}

fn settings(service: &Description, own: &str, method: &Method) -> Vec<String> {
    let mut settings = Vec::new();
    let usual = |of: &str| format!("/{of}/{}", method.name) == method.path;
    if !usual(&service.service) && !usual(&snake(own)) {
        settings.push(format!("path = {}", literal(&method.path)));
    }
    match method.format {
        Format::Raw => settings.push("raw".to_owned()),
        Format::Json => settings.push("json".to_owned()),
        _ => {}
    }
    if method.kind == MethodKind::OneWay {
        settings.push("oneway".to_owned());
    }
    if method.idempotent {
        settings.push("idempotent".to_owned());
    }
    if let Some(timeout) = method.timeout_ms {
        let text = match timeout % 1000 {
            0 => format!("{}s", timeout / 1000),
            _ => format!("{timeout}ms"),
        };
        settings.push(format!("timeout = {}", literal(&text)));
    }
    if let Some(priority) = &method.priority {
        settings.push(format!("priority = {}", literal(priority)));
    }
    if let Some(auth) = &method.auth {
        settings.push(format!("auth = {}", literal(auth)));
    }
    settings
}

/// Converts `OrderBook` to `order_book`, by the rule of `#[service]` for default paths.
fn snake(name: &str) -> String {
    let chars: Vec<char> = Printable(name).to_string().chars().collect();
    let mut snake = String::new();
    for (at, c) in chars.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| chars.get(before));
        let follows_word =
            before.is_some_and(|before| before.is_lowercase() || before.is_numeric());
        let ends_acronym = before.is_some_and(|before| before.is_uppercase())
            && chars.get(at + 1).is_some_and(|after| after.is_lowercase());
        if c.is_uppercase() && (follows_word || ends_acronym) {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_snake_case_are_those_of_default_paths() {
        assert_eq!(snake("Orders"), "orders");
        assert_eq!(snake("OrderBook"), "order_book");
        assert_eq!(snake("HTTPGateway"), "http_gateway");
        assert_eq!(snake("Store2Cache"), "store2_cache");
        assert_eq!(snake("Order_Book"), "order_book");
    }

    #[test]
    fn names_of_a_server_cannot_move_the_cursor() {
        let mut service = Description::new("Bad\u{1b}[2J\nname");
        service.doc = "a\u{202e}\u{1b}[1m".to_owned();
        service.methods.push(Method::new("x\r", "/a\u{7}"));
        let text = as_rust(&service);
        assert!(
            text.chars().all(|c| c == '\n' || !c.is_control()),
            "{text:?}"
        );
        assert!(!text.contains('\u{202e}'), "{text:?}");
    }
}
