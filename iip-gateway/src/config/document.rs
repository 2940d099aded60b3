//! The keys of the configuration file.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use iip_core::balance::Policy;
use serde::Deserialize;
use toml::Spanned;

use super::live::LiveEntry;
use super::typed::TypedEntry;
use super::values::{Size, Time};
use crate::access_log::{AccessLog, LogFormat};
use crate::failure::Statuses;
use crate::group::{Dialect, Group};
use crate::limits::Limits;
use crate::listen::ListenOptions;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    #[serde(default)]
    pub(super) listen: Vec<ListenEntry>,
    pub(super) workers: Option<NonZeroUsize>,
    #[serde(default = "default_drain")]
    pub(super) drain: Time,
    #[serde(default)]
    pub(super) statuses: StatusesKey,
    #[serde(default)]
    pub(super) trust: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) add_forwarded: bool,
    #[serde(default = "default_limits")]
    pub(super) limits: Spanned<LimitsEntry>,
    pub(super) access_log: Option<Spanned<AccessLogEntry>>,
    pub(super) live: Option<LiveEntry>,
    #[serde(default)]
    pub(super) groups: BTreeMap<String, Spanned<GroupEntry>>,
    #[serde(default)]
    pub(super) routes: Vec<Spanned<RouteEntry>>,
}

fn default_drain() -> Time {
    Time(Duration::from_secs(20))
}

fn default_limits() -> Spanned<LimitsEntry> {
    Spanned::new(0..0, LimitsEntry::default())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenEntry {
    pub(super) address: Spanned<String>,
    pub(super) tls: Option<Spanned<ListenTls>>,
    pub(super) also_plain: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(
    not(feature = "tls"),
    expect(dead_code, reason = "TLS is not built in")
)]
pub(super) struct ListenTls {
    certificate: PathBuf,
    key: PathBuf,
    client_roots: Option<PathBuf>,
    max_handshakes: Option<NonZeroUsize>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum StatusesKey {
    #[default]
    Http,
    Go,
}

impl From<StatusesKey> for Statuses {
    fn from(key: StatusesKey) -> Self {
        match key {
            StatusesKey::Http => Self::Http,
            StatusesKey::Go => Self::Go,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccessLogEntry {
    file: Option<PathBuf>,
    #[serde(default)]
    format: FormatKey,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FormatKey {
    #[default]
    Json,
    Text,
}

impl AccessLogEntry {
    pub(super) fn open(&self, beside: impl Fn(&Path) -> PathBuf) -> Result<AccessLog, String> {
        let format = match self.format {
            FormatKey::Json => LogFormat::Json,
            FormatKey::Text => LogFormat::Text,
        };
        let log = match &self.file {
            Some(file) => AccessLog::file(beside(file), format),
            None => AccessLog::stdout(format),
        };
        log.map_err(|error| format!("the access log cannot be opened: {error}"))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteEntry {
    pub(super) host: Option<String>,
    pub(super) pattern: Option<Spanned<String>>,
    pub(super) rules_file: Option<Spanned<PathBuf>>,
    pub(super) group: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupEntry {
    pub(super) target: Spanned<String>,
    policy: Option<PolicyKey>,
    hash: Option<String>,
    dialect: Option<DialectKey>,
    connections: Option<NonZeroUsize>,
    timeout: Option<Time>,
    connect_timeout: Option<Time>,
    reserved_paths: Option<bool>,
    tls: Option<GroupTls>,
    pub(super) typed: Option<Spanned<TypedEntry>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(
    not(feature = "tls"),
    expect(dead_code, reason = "TLS is not built in")
)]
struct GroupTls {
    roots: Option<PathBuf>,
    server_name: Option<String>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DialectKey {
    Auto,
    Go,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PolicyKey {
    LeastPending,
    P2c,
    RoundRobin,
    Random,
    Weighted,
    RingHash,
    GoHashIp,
    GoHashParam,
}

impl GroupEntry {
    pub(super) fn group(&self, beside: impl Fn(&Path) -> PathBuf) -> Result<Group, String> {
        let mut group = Group::new(self.target.get_ref().as_str());
        let hash = self.hash.as_deref();
        if let Some(key) = self.policy {
            group = group.policy(policy(key, hash)?);
        }
        group = match (hash, self.policy) {
            (Some("client"), _) | (None, Some(PolicyKey::GoHashIp)) => group.hash_client(),
            (Some(_), Some(PolicyKey::GoHashParam)) | (None, _) => group,
            (Some(hash), _) => match hash.strip_prefix("header:") {
                Some(name) if name.parse::<hyper::header::HeaderName>().is_ok() => {
                    group.hash_header(name)
                }
                _ => {
                    return Err(format!(
                        "hash: `{hash}` is neither \"client\" nor \"header:NAME\""
                    ));
                }
            },
        };
        if let Some(dialect) = self.dialect {
            group = group.dialect(match dialect {
                DialectKey::Auto => Dialect::Auto,
                DialectKey::Go => Dialect::Go,
            });
        }
        if let Some(connections) = self.connections {
            group = group.connections(connections.get());
        }
        if let Some(timeout) = self.timeout {
            group = group.timeout(timeout.0);
        }
        if let Some(timeout) = self.connect_timeout {
            group = group.connect_timeout(timeout.0);
        }
        if let Some(passes) = self.reserved_paths {
            group = group.reserved_paths(passes);
        }
        if let Some(typed) = &self.typed {
            group = group.typed(typed.get_ref().options()?);
        }
        match &self.tls {
            Some(tls) => group_tls(group, tls, beside),
            None => Ok(group),
        }
    }
}

/// Returns the policy for the value of a key.
fn policy(key: PolicyKey, hash: Option<&str>) -> Result<Policy, String> {
    Ok(match (key, hash) {
        (PolicyKey::LeastPending, _) => Policy::LeastPending,
        (PolicyKey::P2c, _) => Policy::P2c,
        (PolicyKey::RoundRobin, _) => Policy::RoundRobin,
        (PolicyKey::Random, _) => Policy::Random,
        (PolicyKey::Weighted, _) => Policy::Weighted,
        (PolicyKey::RingHash, Some(_)) => Policy::RingHash,
        (PolicyKey::RingHash, None) => {
            return Err("`ring-hash` needs `hash`: \"client\" or \"header:NAME\"".to_owned());
        }
        (PolicyKey::GoHashIp, _) => Policy::GoHashIp,
        (PolicyKey::GoHashParam, Some(hash)) => match hash.strip_prefix("param:") {
            Some(name) => Policy::GoHashParam {
                name: Arc::from(name),
            },
            None => return Err("`go-hash-param` needs `hash = \"param:NAME\"`".to_owned()),
        },
        (PolicyKey::GoHashParam, None) => {
            return Err("`go-hash-param` needs `hash = \"param:NAME\"`".to_owned());
        }
    })
}

#[cfg(feature = "tls")]
pub(super) fn listen_tls(
    options: ListenOptions,
    tls: &ListenTls,
    also_plain: bool,
    beside: impl Fn(&Path) -> PathBuf,
) -> Result<ListenOptions, String> {
    use iip_core::tls::ServerTls;

    let made = ServerTls::from_files(beside(&tls.certificate), beside(&tls.key));
    let made = made.map_err(|error| error.to_string())?;
    let made = match &tls.client_roots {
        Some(roots) => {
            let made = made.client_roots_file(beside(roots));
            made.map_err(|error| error.to_string())?
        }
        None => made,
    };
    let made = match tls.max_handshakes {
        Some(count) => made.max_handshakes(count.get()),
        None => made,
    };
    made.check().map_err(|error| error.to_string())?;
    Ok(options.tls(made).also_plain(also_plain))
}

#[cfg(not(feature = "tls"))]
pub(super) fn listen_tls(
    _: ListenOptions,
    _: &ListenTls,
    _: bool,
    _: impl Fn(&Path) -> PathBuf,
) -> Result<ListenOptions, String> {
    Err("TLS is not built in: enable the feature `tls`".to_owned())
}

#[cfg(feature = "tls")]
fn group_tls(
    group: Group,
    tls: &GroupTls,
    beside: impl Fn(&Path) -> PathBuf,
) -> Result<Group, String> {
    use iip_core::tls::{ClientTls, TlsError};

    let made = || -> Result<ClientTls, TlsError> {
        let mut made = ClientTls::new();
        if let Some(roots) = &tls.roots {
            made = made.roots_file(beside(roots))?;
        }
        if let Some(name) = &tls.server_name {
            made = made.server_name(name)?;
        }
        if let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) {
            made = made.identity_files(beside(certificate), beside(key))?;
        }
        made.check()?;
        Ok(made)
    };
    if tls.certificate.is_some() != tls.key.is_some() {
        return Err("tls: `certificate` and `key` belong together".to_owned());
    }
    made()
        .map(|tls| group.tls(tls))
        .map_err(|error| error.to_string())
}

#[cfg(not(feature = "tls"))]
fn group_tls(_: Group, _: &GroupTls, _: impl Fn(&Path) -> PathBuf) -> Result<Group, String> {
    Err("TLS is not built in: enable the feature `tls`".to_owned())
}

/// Declares the keys of `[limits]` and their setters in [`Limits`], which have the same names.
macro_rules! limits {
    ($($name:ident: $type:ty => $value:expr),* $(,)?) => {
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct LimitsEntry {
            $($name: Option<$type>,)*
        }

        impl LimitsEntry {
            pub(super) fn limits(&self) -> Limits {
                let mut limits = Limits::new();
                $(if let Some(value) = self.$name {
                    limits = limits.$name($value(value));
                })*
                limits
            }
        }
    };
}

limits! {
    max_connections: usize => usize::from,
    max_connections_per_address: usize => usize::from,
    max_head_bytes: Size => Size::bytes,
    max_headers: usize => usize::from,
    max_body_bytes: Size => Size::bytes,
    max_buffered_bytes: Size => Size::bytes,
    max_streams: u32 => u32::from,
    max_resets: u64 => u64::from,
    first_byte_timeout: Time => Time::duration,
    head_timeout: Time => Time::duration,
    body_timeout: Time => Time::duration,
    min_body_rate: Size => Size::bytes,
    idle_timeout: Time => Time::duration,
    write_timeout: Time => Time::duration,
    park_after: Time => Time::duration,
}

impl Size {
    fn bytes(self) -> usize {
        self.0
    }
}

impl Time {
    fn duration(self) -> Duration {
        self.0
    }
}
