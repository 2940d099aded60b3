//! Parsing of `#[service(..)]` and `#[rpc(..)]`.

use std::time::Duration;

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::quote;
use syn::{
    Attribute, Ident, Lit, LitStr, Meta, Path, Token,
    ext::IdentExt,
    parse::{Parse, Parser},
    parse_quote,
    punctuated::Punctuated,
};

use crate::case::Case;
use crate::duration;
use crate::errors::Errors;
use crate::policy::{Concurrency, Hedge, Priority};

/// The settings in `#[service(..)]`.
#[derive(Default)]
pub(crate) struct ServiceSettings {
    /// `path = "/greeter"`: the prefix of the paths of all methods.
    pub(crate) path: Option<LitStr>,
    /// `name = "shop.v1.Greeter"`: the full name of the service.
    pub(crate) name: Option<LitStr>,
    /// `rename_all = "camelCase"`: the case of methods' names on the wire.
    pub(crate) rename_all: Option<Case>,
    /// `crate = ::renamed`: the path of iip-rpc.
    pub(crate) krate: Option<Path>,
    /// `dyn`: also generates the twin that can be a trait object.
    pub(crate) dyn_twin: Option<Ident>,
    /// `codec = "postcard"`: the encoding of arguments and results.
    pub(crate) codec: Option<Codec>,
}

/// The value of `codec`, with its span.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Codec {
    pub(crate) name: CodecName,
    pub(crate) span: Span,
}

/// The codecs that a service can choose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum CodecName {
    Bincode,
    Json,
    Postcard,
    Msgpack,
    Protobuf,
}

impl CodecName {
    /// Generates the runtime's constant.
    pub(crate) fn tokens(self) -> TokenStream {
        let constant = Ident::new(self.constant_and_feature().0, Span::call_site());
        quote!(__rpc::CodecId::#constant)
    }

    /// Returns the feature that the codec needs, if any.
    pub(crate) fn feature(self) -> Option<&'static str> {
        self.constant_and_feature().1
    }

    fn constant_and_feature(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Bincode => ("BINCODE", Some("codec-bincode")),
            Self::Json => ("JSON", None),
            Self::Postcard => ("POSTCARD", Some("codec-postcard")),
            Self::Msgpack => ("MSGPACK", Some("codec-msgpack")),
            Self::Protobuf => ("PROTOBUF", Some("codec-prost")),
        }
    }
}

/// The settings in the `#[rpc(..)]` of a method.
#[derive(Default)]
pub(crate) struct MethodSettings {
    /// `path = "/echo"`: the whole path, regardless of the path of the service.
    pub(crate) path: Option<LitStr>,
    /// `name = "hello"`: the name on the wire, if it differs from the name in Rust.
    pub(crate) name: Option<LitStr>,
    /// `raw`: the body is the argument's bytes, without envelope and codec.
    pub(crate) raw: Option<Ident>,
    /// `json`: the body is plain JSON, without envelope.
    pub(crate) json: Option<Ident>,
    /// `oneway`: the call has no reply.
    pub(crate) oneway: Option<Ident>,
    /// `timeout = "500ms"`.
    pub(crate) timeout: Option<Duration>,
    /// `idempotent`: the method may run twice, so the call may be retried.
    pub(crate) idempotent: bool,
    /// `on_cancel = "token"`: the treatment of the handler when the caller goes away.
    pub(crate) on_cancel: Option<(OnCancel, LitStr)>,
    /// `hedge = "p95"`: the time at which a call is sent a second time; with the text, for its
    /// span.
    pub(crate) hedge: Option<(Hedge, LitStr)>,
    /// `priority = "low"`: the order in which an overloaded server rejects calls.
    pub(crate) priority: Option<Priority>,
    /// `max_concurrency = 100`: maximum number of concurrent calls of a server.
    pub(crate) max_concurrency: Option<Concurrency>,
    /// `auth = "admin"`: the requirement on a caller, for the program's own checks.
    pub(crate) auth: Option<LitStr>,
}

/// The values of `on_cancel`; the variants of the runtime's enum of the same name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum OnCancel {
    Abort,
    Token,
    RunToEnd,
}

impl ServiceSettings {
    pub(crate) fn parse(args: TokenStream, errors: &mut Errors) -> Self {
        let mut all = Self::default();
        let mut seen = Vec::new();
        for setting in settings(args, "#[service(path = \"/greeter\")]", errors) {
            if setting.is_repeated(&mut seen, errors) {
                continue;
            }
            match setting.key.to_string().as_str() {
                "path" => {
                    let path = setting.string("\"/greeter\"", errors);
                    all.path = path.filter(|path| is_service_path(path, errors));
                }
                "name" => {
                    let name = setting.string("\"shop.v1.Greeter\"", errors);
                    all.name = name.filter(|name| is_name(name, errors));
                }
                "rename_all" => {
                    let case = setting.string("\"camelCase\"", errors);
                    all.rename_all = case.and_then(|case| Case::parse(&case, errors));
                }
                "crate" => all.krate = setting.path(errors),
                "dyn" => all.dyn_twin = setting.flag(errors),
                "codec" => {
                    let text = setting.string("\"postcard\"", errors);
                    all.codec = text.and_then(|text| codec(&text, errors));
                }
                other => errors.at(
                    &setting.key,
                    format!(
                        "unknown setting `{other}`: `#[service(..)]` takes `path`, `name`, \
                        `rename_all`, `codec`, `crate` and `dyn`"
                    ),
                ),
            }
        }
        all
    }
}

impl MethodSettings {
    /// Parses every `#[rpc(..)]` among `attrs`; several count as one.
    pub(crate) fn parse(attrs: &[Attribute], errors: &mut Errors) -> Self {
        const EXAMPLE: &str = "#[rpc(timeout = \"500ms\")]";
        let attrs = attrs.iter().filter(|attr| is_rpc(attr));
        let bare =
            format!("write settings in parentheses, as in `{EXAMPLE}`, or remove the attribute");
        let mut all = Self::default();
        each_setting(attrs, EXAMPLE, &bare, errors, |setting, errors| {
            all.set(setting, errors);
        });
        all
    }

    fn set(&mut self, setting: &Setting, errors: &mut Errors) {
        match setting.key.to_string().as_str() {
            "path" => {
                let path = setting.string("\"/echo\"", errors);
                self.path = path.filter(|path| is_path(path, errors));
            }
            "name" => {
                let name = setting.string("\"hello\"", errors);
                self.name = name.filter(|name| is_name(name, errors));
            }
            "raw" => self.raw = setting.flag(errors),
            "json" => self.json = setting.flag(errors),
            "oneway" => self.oneway = setting.flag(errors),
            "timeout" => {
                let text = setting.string("\"500ms\"", errors);
                self.timeout = text.and_then(|text| duration::parse(&text, errors));
            }
            "idempotent" => self.idempotent = setting.flag(errors).is_some(),
            "on_cancel" => {
                let text = setting.string("\"abort\"", errors);
                self.on_cancel = text.and_then(|text| Some((on_cancel(&text, errors)?, text)));
            }
            "hedge" => {
                let text = setting.string("\"20ms\"", errors);
                self.hedge = text.and_then(|text| Some((Hedge::parse(&text, errors)?, text)));
            }
            "priority" => {
                let text = setting.string("\"low\"", errors);
                self.priority = text.and_then(|text| Priority::parse(&text, errors));
            }
            "max_concurrency" => {
                let value = setting.literal("100", errors);
                self.max_concurrency = value.and_then(|value| Concurrency::parse(&value, errors));
            }
            "auth" => {
                let text = setting.string("\"admin\"", errors);
                self.auth = text.filter(|text| is_requirement(text, errors));
            }
            other => errors.at(
                &setting.key,
                format!(
                    "unknown setting `{other}`: `#[rpc(..)]` takes `path`, `name`, `raw`, `json`, \
                     `oneway`, `timeout`, \
                     `idempotent`, `on_cancel`, `hedge`, `priority`, `max_concurrency` and `auth`"
                ),
            ),
        }
    }
}

/// Returns `true` if this attribute is the macro's own and must not reach the compiler.
pub(crate) fn is_rpc(attr: &Attribute) -> bool {
    attr.path().is_ident("rpc")
}

/// Returns `true` if this attribute decides if an item exists: everything generated from that item
/// then needs it.
///
/// These attributes are `#[cfg(..)]` and `#[cfg_attr(.., cfg(..))]`.
pub(crate) fn is_cfg(attr: &Attribute) -> bool {
    attr.path().is_ident("cfg")
        || conditional(attr)
            .iter()
            .any(|meta| meta.path().is_ident("cfg"))
}

/// Returns `true` if this attribute makes a use of the item a warning.
pub(crate) fn is_deprecated(attr: &Attribute) -> bool {
    let is = |path: &Path| path.is_ident("deprecated");
    is(attr.path()) || conditional(attr).iter().any(|meta| is(meta.path()))
}

/// Returns `#[allow(..)]` for `#[allow(..)]` and for `#[expect(..)]`, which applies to one place
/// only.
pub(crate) fn allowed(attr: &Attribute) -> Option<Attribute> {
    let is_level = attr.path().is_ident("allow") || attr.path().is_ident("expect");
    let lints = &attr.meta.require_list().ok().filter(|_| is_level)?.tokens;
    Some(parse_quote!(#[allow(#lints)]))
}

/// Returns the attributes inside a `#[cfg_attr(condition, ..)]`; none for any other attribute.
pub(crate) fn conditional(attr: &Attribute) -> Vec<Meta> {
    if !attr.path().is_ident("cfg_attr") {
        return Vec::new();
    }
    let inside = attr.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
    inside
        .map(|metas| metas.into_iter().skip(1).collect())
        .unwrap_or_default()
}

/// Passes each setting in these attributes to `set`, except for one that is repeated. An attribute
/// without parentheses is reported with the message `bare`.
pub(crate) fn each_setting<'a>(
    attrs: impl Iterator<Item = &'a Attribute>,
    example: &str,
    bare: &str,
    errors: &mut Errors,
    mut set: impl FnMut(&Setting, &mut Errors),
) {
    let mut seen = Vec::new();
    for attr in attrs {
        let Meta::List(list) = &attr.meta else {
            errors.at(attr, bare);
            continue;
        };
        for setting in settings(list.tokens.clone(), example, errors) {
            if !setting.is_repeated(&mut seen, errors) {
                set(&setting, errors);
            }
        }
    }
}

/// Parses settings `key` and `key = value` between commas; anything else is reported and skipped.
fn settings(tokens: TokenStream, example: &str, errors: &mut Errors) -> Vec<Setting> {
    let mut found = Vec::new();
    for entry in split_at_commas(tokens) {
        match Setting::parse.parse2(entry.clone()) {
            Ok(setting) => found.push(setting),
            Err(_) => errors.at(
                entry,
                format!("write `key` or `key = value`, as in `{example}`"),
            ),
        }
    }
    found
}

fn split_at_commas(tokens: TokenStream) -> Vec<TokenStream> {
    let mut entries = vec![TokenStream::new()];
    for token in tokens {
        match (&token, entries.last_mut()) {
            (TokenTree::Punct(punct), _) if punct.as_char() == ',' => {
                entries.push(TokenStream::new())
            }
            (_, Some(last)) => last.extend([token]),
            (_, None) => {}
        }
    }
    entries.retain(|entry| !entry.is_empty());
    entries
}

/// One `key` or `key = value`.
pub(crate) struct Setting {
    pub(crate) key: Ident,
    value: Option<TokenStream>,
}

impl Parse for Setting {
    fn parse(input: syn::parse::ParseStream<'_>) -> syn::Result<Self> {
        let key = input.call(Ident::parse_any)?;
        if input.is_empty() {
            return Ok(Self { key, value: None });
        }
        // `key(..)` is not valid, but the error is about the key, not about the parentheses.
        if !input.peek(syn::token::Paren) {
            input.parse::<Token![=]>()?;
        }
        Ok(Self {
            key,
            value: Some(input.parse()?),
        })
    }
}

impl Setting {
    /// Reports a setting that was seen before, and returns `true` if it was.
    fn is_repeated(&self, seen: &mut Vec<Ident>, errors: &mut Errors) -> bool {
        let repeated = seen.contains(&self.key);
        if repeated {
            errors.at(
                &self.key,
                format!("`{}` is set twice: remove one", self.key),
            );
        } else {
            seen.push(self.key.clone());
        }
        repeated
    }

    /// Returns the key of a setting without a value.
    fn flag(&self, errors: &mut Errors) -> Option<Ident> {
        let key = &self.key;
        if self.value.is_some() {
            errors.at(
                self.place(),
                format!("`{key}` takes no value: write `{key}`"),
            );
            return None;
        }
        Some(key.clone())
    }

    fn string(&self, example: &str, errors: &mut Errors) -> Option<LitStr> {
        let string = syn::parse2(self.value()).ok();
        if string.is_none() {
            let key = &self.key;
            errors.at(
                self.place(),
                format!("`{key}` takes a string: write `{key} = {example}`"),
            );
        }
        string
    }

    pub(crate) fn literal(&self, example: &str, errors: &mut Errors) -> Option<Lit> {
        let literal = syn::parse2(self.value()).ok();
        if literal.is_none() {
            let key = &self.key;
            errors.at(
                self.place(),
                format!("`{key}` takes a value: write `{key} = {example}`"),
            );
        }
        literal
    }

    /// Parses a path, either plain or in quotes as serde writes it.
    pub(crate) fn path(&self, errors: &mut Errors) -> Option<Path> {
        let quoted = syn::parse2::<LitStr>(self.value())
            .and_then(|text| text.parse_with(Path::parse_mod_style));
        let path = quoted
            .or_else(|_| Path::parse_mod_style.parse2(self.value()))
            .ok();
        if path.is_none() {
            let key = &self.key;
            errors.at(
                self.place(),
                format!("`{key}` takes a path: write `{key} = ::iip_rpc`"),
            );
        }
        path
    }

    /// Returns the value; no tokens if there is none.
    fn value(&self) -> TokenStream {
        self.value.clone().unwrap_or_default()
    }

    /// Returns the tokens for an error: the value, or the key if there is no value.
    fn place(&self) -> TokenStream {
        match &self.value {
            Some(value) if !value.is_empty() => value.clone(),
            _ => TokenTree::from(self.key.clone()).into(),
        }
    }
}

fn is_service_path(path: &LitStr, errors: &mut Errors) -> bool {
    if path.value().ends_with('/') {
        errors.at(
            path,
            "remove the `/` at the end: the method's name is added with one",
        );
        return false;
    }
    is_path(path, errors)
}

/// Returns `true` if a server can look up `path` unchanged: servers decode escapes and remove the
/// query before that.
fn is_path(path: &LitStr, errors: &mut Errors) -> bool {
    let text = path.value();
    let problem = if !text.starts_with('/') {
        format!("a path starts with `/`: write \"/{text}\"")
    } else if text.starts_with("//") {
        "a path starts with one `/`: after two, a host name is expected".to_owned()
    } else if let Some(bad) = text
        .chars()
        .find(|c| c.is_control() || c.is_whitespace() || "?#%".contains(*c))
    {
        format!("remove {bad:?}: a path has no query, fragment, escape or white space")
    } else if text.len() > 2048 {
        "a path has at most 2048 bytes".to_owned()
    } else {
        return true;
    };
    errors.at(path, problem);
    false
}

fn is_name(name: &LitStr, errors: &mut Errors) -> bool {
    let text = name.value();
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let good = !text.is_empty() && text.chars().all(plain);
    if !good {
        errors.at(
            name,
            "a name has letters, digits, `_`, `-` and `.` only; a whole path is set by \
            `path = \"/..\"`",
        );
    }
    good
}

fn is_requirement(text: &LitStr, errors: &mut Errors) -> bool {
    let given = !text.value().trim().is_empty();
    if !given {
        errors.at(
            text,
            "write the requirement on the caller, such as \"admin\", or remove `auth`",
        );
    }
    given
}

fn codec(text: &LitStr, errors: &mut Errors) -> Option<Codec> {
    let name = match text.value().as_str() {
        "bincode" => CodecName::Bincode,
        "json" => CodecName::Json,
        "postcard" => CodecName::Postcard,
        "msgpack" => CodecName::Msgpack,
        "protobuf" => CodecName::Protobuf,
        _ => {
            errors.at(
                text,
                "write \"bincode\", \"json\", \"postcard\", \"msgpack\" or \"protobuf\"",
            );
            return None;
        }
    };
    let span = text.span();
    Some(Codec { name, span })
}

fn on_cancel(text: &LitStr, errors: &mut Errors) -> Option<OnCancel> {
    match text.value().as_str() {
        "abort" => Some(OnCancel::Abort),
        "token" => Some(OnCancel::Token),
        "run" => Some(OnCancel::RunToEnd),
        _ => {
            errors.at(
                text,
                "write \"abort\" (drop the handler), \"token\" (notify it) or \"run\" (let it run \
                 to its end)",
            );
            None
        }
    }
}
