//! The types of a service.

use std::fmt::Write;

use iip_core::Printable;
use iip_rpc::schema::{Definition, Enum, Field, Shape, Tagging, Type, Variant, VariantShape};

use super::literal;

/// Maximum depth to which types within types are printed.
const MAX_DEPTH: usize = 64;

/// Returns a name from a description as printable text: it may come from a hostile server.
pub(super) fn name(text: &str) -> String {
    Printable(text).to_string()
}

/// Writes documentation as doc comments.
pub(super) fn docs(out: &mut String, indent: &str, doc: &str) {
    for line in doc.lines() {
        let line = format!("{indent}/// {}", Printable(line.trim_end()));
        // Writing to a `String` cannot fail.
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

/// Returns a type in Rust syntax.
pub(super) fn type_text(ty: &Type) -> String {
    text(ty, MAX_DEPTH)
}

fn text(ty: &Type, depth: usize) -> String {
    let Some(depth) = depth.checked_sub(1) else {
        return "_".to_owned();
    };
    let part = |ty| text(ty, depth);
    let plain = match ty {
        Type::Bool => "bool",
        Type::U8 => "u8",
        Type::U16 => "u16",
        Type::U32 => "u32",
        Type::U64 => "u64",
        Type::U128 => "u128",
        Type::I8 => "i8",
        Type::I16 => "i16",
        Type::I32 => "i32",
        Type::I64 => "i64",
        Type::I128 => "i128",
        Type::F32 => "f32",
        Type::F64 => "f64",
        Type::Char => "char",
        Type::Text => "String",
        Type::Bytes => "Bytes",
        Type::Unit => "()",
        Type::Any => "serde_json::Value",
        Type::Option(of) => return format!("Option<{}>", part(of)),
        Type::Seq(of) => return format!("Vec<{}>", part(of)),
        Type::Array(of, len) => return format!("[{}; {len}]", part(of)),
        Type::Map(key, value) => return format!("HashMap<{}, {}>", part(key), part(value)),
        Type::Named(of) => return name(of),
        Type::Opaque { name: of, .. } => return name(of.rsplit("::").next().unwrap_or_default()),
        Type::Tuple(of) => return format!("({})", tuple(of, depth)),
        // The JSON form, which is the one that users write.
        Type::ByFormat { readable, .. } => return part(readable),
        _ => "_",
    };
    plain.to_owned()
}

/// Returns the types of a tuple, with the comma that a single type needs.
fn tuple(of: &[Type], depth: usize) -> String {
    let comma = if of.len() == 1 { "," } else { "" };
    format!("{}{comma}", list(of, depth))
}

fn list(of: &[Type], depth: usize) -> String {
    let all: Vec<String> = of.iter().map(|ty| text(ty, depth)).collect();
    all.join(", ")
}

/// Writes a struct or an enum.
pub(super) fn definition(out: &mut String, of: &str, described: &Definition) {
    docs(out, "", &described.doc);
    out.push_str("#[derive(Serialize, Deserialize, Schema)]\n");
    let of = name(of);
    let _ = match &described.shape {
        Shape::Unit => writeln!(out, "pub struct {of};"),
        Shape::Newtype(ty) => writeln!(out, "pub struct {of}(pub {});", type_text(ty)),
        Shape::Tuple(types) => writeln!(out, "pub struct {of}({});", list(types, MAX_DEPTH)),
        Shape::Struct {
            fields,
            deny_unknown_fields,
        } => {
            if *deny_unknown_fields {
                out.push_str("#[serde(deny_unknown_fields)]\n");
            }
            let _ = writeln!(out, "pub struct {of} {{");
            fields
                .iter()
                .for_each(|one| field(out, "    ", "pub ", one));
            writeln!(out, "}}")
        }
        Shape::Enum(shape) => {
            variants(out, &of, shape);
            Ok(())
        }
        _ => writeln!(out, "pub struct {of}; // of a newer form"),
    };
}

fn field(out: &mut String, indent: &str, visibility: &str, field: &Field) {
    docs(out, indent, &field.doc);
    if field.secret {
        let _ = writeln!(out, "{indent}#[schema(secret)]");
    }
    let mut settings: Vec<String> = field.aliases.iter().map(|alias| aliased(alias)).collect();
    let flags = [
        (field.default, "default"),
        (field.flatten, "flatten"),
        (field.read_only, "skip_serializing"),
        (field.write_only, "skip_deserializing"),
        (field.may_be_skipped, "skip_serializing_if = \"..\""),
    ];
    let set = flags.iter().filter(|(is_set, _)| *is_set);
    settings.extend(set.map(|(_, text)| (*text).to_owned()));
    attribute(out, indent, &settings);
    let (of, ty) = (name(&field.name), type_text(&field.ty));
    let _ = writeln!(out, "{indent}{visibility}{of}: {ty},");
}

fn aliased(alias: &str) -> String {
    format!("alias = {}", literal(alias))
}

fn attribute(out: &mut String, indent: &str, settings: &[String]) {
    if !settings.is_empty() {
        let _ = writeln!(out, "{indent}#[serde({})]", settings.join(", "));
    }
}

fn variants(out: &mut String, of: &str, shape: &Enum) {
    let tagging = match &shape.tagging {
        Tagging::Internal { tag } => vec![format!("tag = {}", literal(tag))],
        Tagging::Adjacent { tag, content } => vec![
            format!("tag = {}", literal(tag)),
            format!("content = {}", literal(content)),
        ],
        Tagging::Untagged => vec!["untagged".to_owned()],
        _ => Vec::new(),
    };
    attribute(out, "", &tagging);
    let _ = writeln!(out, "pub enum {of} {{");
    shape.variants.iter().for_each(|one| variant(out, one));
    out.push_str("}\n");
}

fn variant(out: &mut String, variant: &Variant) {
    docs(out, "    ", &variant.doc);
    let mut settings: Vec<String> = variant.aliases.iter().map(|alias| aliased(alias)).collect();
    let flags = [(variant.other, "other"), (variant.untagged, "untagged")];
    let set = flags.iter().filter(|(is_set, _)| *is_set);
    settings.extend(set.map(|(_, text)| (*text).to_owned()));
    attribute(out, "    ", &settings);
    if let Some(status) = variant.http_status() {
        let _ = writeln!(out, "    #[rpc(http = {status})]");
    }
    let of = name(&variant.name);
    let _ = match &variant.shape {
        VariantShape::Unit => writeln!(out, "    {of},"),
        VariantShape::Newtype(ty) => writeln!(out, "    {of}({}),", type_text(ty)),
        VariantShape::Tuple(types) => writeln!(out, "    {of}({}),", list(types, MAX_DEPTH)),
        VariantShape::Struct(fields) => {
            let _ = writeln!(out, "    {of} {{");
            fields
                .iter()
                .for_each(|one| field(out, "        ", "", one));
            writeln!(out, "    }},")
        }
        _ => writeln!(out, "    {of}, // of a newer form"),
    };
}
