//! The attributes of serde and `#[schema(..)]`, on types, variants and fields.

use proc_macro2::Span;
use syn::{
    Attribute, Expr, ExprLit, Lit, LitStr, Meta, Path, Token, Type, ext::IdentExt,
    meta::ParseNestedMeta,
};

use crate::case::Case;
use crate::errors::Errors;

/// A name in the two directions.
#[derive(Default)]
pub(super) struct Names {
    serialize: Option<String>,
    /// From `rename(deserialize = "..")`, of which there may be several, and from `alias`.
    deserialize: Vec<String>,
    /// `true` if the name that is read is among `deserialize`.
    renamed: bool,
}

/// The name that is written, and the others that are read.
pub(super) struct Named {
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
}

impl Names {
    /// `written` and `read` are the name in Rust in the case of that direction.
    pub(super) fn resolve(&self, written: String, read: String) -> Named {
        let name = self.serialize.clone().unwrap_or(written);
        let mut aliases = Vec::new();
        let read = (!self.renamed).then_some(read);
        for alias in read.into_iter().chain(self.deserialize.iter().cloned()) {
            if alias != name && !aliases.contains(&alias) {
                aliases.push(alias);
            }
        }
        Named { name, aliases }
    }
}

/// `rename_all` in the two directions.
#[derive(Default, Clone, Copy)]
pub(super) struct Cases {
    pub(super) serialize: Option<Case>,
    pub(super) deserialize: Option<Case>,
}

impl Cases {
    /// These cases, or else the others, for each direction.
    pub(super) fn or(self, others: Self) -> Self {
        Self {
            serialize: self.serialize.or(others.serialize),
            deserialize: self.deserialize.or(others.deserialize),
        }
    }

    pub(super) fn of_field(self, name: &str) -> [String; 2] {
        self.both(name, Case::apply)
    }

    pub(super) fn of_variant(self, name: &str) -> [String; 2] {
        self.both(name, Case::apply_to_variant)
    }

    fn both(self, name: &str, apply: impl Fn(Case, &str) -> String) -> [String; 2] {
        [self.serialize, self.deserialize]
            .map(|case| case.map_or_else(|| name.to_owned(), |case| apply(case, name)))
    }
}

/// The contents of serde's attributes. Those of types, variants and fields have no key in common
/// that means different things, so this is one struct for all.
#[derive(Default)]
pub(super) struct Serde {
    pub(super) names: Names,
    pub(super) rename_all: Cases,
    pub(super) rename_all_fields: Cases,
    pub(super) default: bool,
    pub(super) skip_serializing: bool,
    pub(super) skip_deserializing: bool,
    pub(super) skip_serializing_if: bool,
    pub(super) flatten: bool,
    pub(super) tag: Option<String>,
    pub(super) content: Option<String>,
    pub(super) untagged: bool,
    pub(super) transparent: bool,
    pub(super) other: bool,
    pub(super) deny_unknown_fields: bool,
    /// `with`, `serialize_with` or `deserialize_with`.
    pub(super) with: bool,
    pub(super) into: Option<Type>,
    pub(super) remote: Option<Span>,
}

impl Serde {
    /// Mistakes in serde's attributes are reported by its own derives.
    pub(super) fn parse(attrs: &[Attribute]) -> Self {
        let mut all = Self::default();
        for attr in attrs.iter().filter(|attr| attr.path().is_ident("serde")) {
            let _ = attr.parse_nested_meta(|meta| all.set(&meta));
        }
        all
    }

    /// Returns `true` if a field is neither written nor read.
    pub(super) fn is_skipped(&self) -> bool {
        self.skip_serializing && self.skip_deserializing
    }

    fn set(&mut self, meta: &ParseNestedMeta<'_>) -> syn::Result<()> {
        let key = meta.path.get_ident().map(ToString::to_string);
        match key.as_deref().unwrap_or_default() {
            "rename" => each_direction(meta, |direction, text| {
                if direction != Direction::Deserialize {
                    self.names.serialize = Some(text.clone());
                }
                if direction != Direction::Serialize {
                    self.names.renamed = true;
                    self.names.deserialize.push(text);
                }
            }),
            "alias" => {
                self.names.deserialize.push(string(meta)?);
                Ok(())
            }
            "rename_all" => cases(meta, &mut self.rename_all),
            "rename_all_fields" => cases(meta, &mut self.rename_all_fields),
            "skip" => {
                self.skip_serializing = true;
                self.skip_deserializing = true;
                Ok(())
            }
            "tag" => {
                self.tag = Some(string(meta)?);
                Ok(())
            }
            "content" => {
                self.content = Some(string(meta)?);
                Ok(())
            }
            "into" => {
                self.into = Some(meta.value()?.parse::<LitStr>()?.parse()?);
                Ok(())
            }
            key => {
                let flag = match key {
                    "default" => Some(&mut self.default),
                    "skip_serializing" => Some(&mut self.skip_serializing),
                    "skip_deserializing" => Some(&mut self.skip_deserializing),
                    "skip_serializing_if" => Some(&mut self.skip_serializing_if),
                    "flatten" => Some(&mut self.flatten),
                    "untagged" => Some(&mut self.untagged),
                    "transparent" => Some(&mut self.transparent),
                    "other" => Some(&mut self.other),
                    "deny_unknown_fields" => Some(&mut self.deny_unknown_fields),
                    "with" | "serialize_with" | "deserialize_with" => Some(&mut self.with),
                    _ => None,
                };
                if let Some(flag) = flag {
                    *flag = true;
                }
                if key == "remote" {
                    self.remote = Some(meta.path.segments[0].ident.span());
                }
                skip_value(meta)
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Both,
    Serialize,
    Deserialize,
}

/// Parses `key = "text"` and `key(serialize = "text", deserialize = "text")`.
fn each_direction(
    meta: &ParseNestedMeta<'_>,
    mut found: impl FnMut(Direction, String),
) -> syn::Result<()> {
    if meta.input.peek(Token![=]) {
        found(Direction::Both, string(meta)?);
        return Ok(());
    }
    meta.parse_nested_meta(|meta| {
        let direction = match meta.path.is_ident("serialize") {
            true => Direction::Serialize,
            false => Direction::Deserialize,
        };
        found(direction, string(&meta)?);
        Ok(())
    })
}

fn cases(meta: &ParseNestedMeta<'_>, cases: &mut Cases) -> syn::Result<()> {
    each_direction(meta, |direction, text| {
        if direction != Direction::Deserialize {
            cases.serialize = Case::find(&text);
        }
        if direction != Direction::Serialize {
            cases.deserialize = Case::find(&text);
        }
    })
}

fn string(meta: &ParseNestedMeta<'_>) -> syn::Result<String> {
    Ok(meta.value()?.parse::<LitStr>()?.value())
}

/// Skips what follows a key, up to the next comma.
fn skip_value(meta: &ParseNestedMeta<'_>) -> syn::Result<()> {
    if meta.input.peek(Token![=]) {
        meta.value()?.parse::<Expr>()?;
    } else if meta.input.peek(syn::token::Paren) {
        meta.parse_nested_meta(|meta| skip_value(&meta))?;
    }
    Ok(())
}

/// The kind of item that a `#[schema(..)]` belongs to.
#[derive(Clone, Copy)]
pub(super) enum Place {
    Type,
    Variant,
    Field,
}

impl Place {
    fn accepted(self) -> &'static str {
        match self {
            Self::Type => {
                "a type takes `#[schema(named_only)]`, `#[schema(as = \"Type\")]` and \
                 `#[schema(crate = \"iip_schema\")]`"
            }
            Self::Variant => "a variant takes `#[schema(as = \"Type\")]`",
            Self::Field => "a field takes `#[schema(secret)]` and `#[schema(as = \"Type\")]`",
        }
    }
}

/// The settings in `#[schema(..)]`.
#[derive(Default)]
pub(super) struct Settings {
    /// `as = "Type"`: the type that is written.
    pub(super) written_as: Option<Type>,
    /// `secret`, on a field.
    pub(super) secret: Option<Span>,
    /// `named_only`, on a type.
    pub(super) named_only: bool,
    /// `crate = "iip_schema"`, on a type.
    pub(super) krate: Option<Path>,
}

impl Settings {
    pub(super) fn parse(attrs: &[Attribute], place: Place, errors: &mut Errors) -> Self {
        let mut all = Self::default();
        for attr in attrs.iter().filter(|attr| attr.path().is_ident("schema")) {
            if !matches!(attr.meta, Meta::List(_)) {
                let accepted = place.accepted();
                errors.at(attr, format!("write a setting in parentheses: {accepted}"));
                continue;
            }
            let parsed = attr.parse_nested_meta(|meta| all.set(&meta, place));
            if let Err(error) = parsed {
                errors.push(error);
            }
        }
        all
    }

    fn set(&mut self, meta: &ParseNestedMeta<'_>, place: Place) -> syn::Result<()> {
        let key = meta.path.get_ident().map(|key| key.unraw().to_string());
        let span = meta.path.segments.first().map(|key| key.ident.span());
        match (key.as_deref().unwrap_or_default(), place) {
            ("as", _) => self.written_as = Some(value(meta, "as = \"Type\"")?),
            ("secret", Place::Field) => {
                flag(meta, "secret")?;
                self.secret = span;
            }
            ("named_only", Place::Type) => {
                flag(meta, "named_only")?;
                self.named_only = true;
            }
            ("crate", Place::Type) => self.krate = Some(value(meta, "crate = \"iip_schema\"")?),
            (key, _) => {
                let accepted = place.accepted();
                return Err(meta.error(format!("unknown setting `{key}`: {accepted}")));
            }
        }
        Ok(())
    }
}

fn flag(meta: &ParseNestedMeta<'_>, key: &str) -> syn::Result<()> {
    if meta.input.is_empty() || meta.input.peek(Token![,]) {
        return Ok(());
    }
    Err(meta.error(format!("`{key}` takes no value: write `{key}`")))
}

/// A type or a path, in quotes as serde writes it, or without.
fn value<T: syn::parse::Parse>(meta: &ParseNestedMeta<'_>, example: &str) -> syn::Result<T> {
    let wrong = |_| meta.error(format!("write `{example}`"));
    let input = meta.value().map_err(wrong)?;
    if input.peek(LitStr) {
        let text: LitStr = input.parse()?;
        let wrong = |_| syn::Error::new(text.span(), format!("write `{example}`"));
        return text.parse().map_err(wrong);
    }
    input.parse().map_err(wrong)
}

/// The documentation: the lines of all comments, without the space that each begins with.
pub(super) fn doc(attrs: &[Attribute]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("doc")) {
        let Meta::NameValue(doc) = &attr.meta else {
            continue;
        };
        let Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) = &doc.value
        else {
            continue;
        };
        let text = text.value();
        let lines_of = text.lines();
        lines.extend(lines_of.map(|line| line.strip_prefix(' ').unwrap_or(line).to_owned()));
        if text.is_empty() {
            lines.push(String::new());
        }
    }
    lines.join("\n").trim_end().to_owned()
}
