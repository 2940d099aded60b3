//! The configuration file of the program `iip-gateway`, in TOML.
//!
//! `docs/gateway.md` in the repository has the reference. Unknown keys are errors, and every error
//! names the file, the line and the column.
//!
//! ```
//! use iip_gateway::config::ConfigFile;
//!
//! let text = r#"
//!     [[listen]]
//!     address = "127.0.0.1:8080"
//!
//!     [groups.users]
//!     target = "dns://users.:7000"
//!
//!     [[routes]]
//!     pattern = "^/users/"
//!     group = "users"
//! "#;
//! let config = ConfigFile::parse("gateway.toml", text)?;
//! let gateway = config.builder()?.build()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod document;
mod live;
mod typed;
mod values;

use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;

use self::document::{Document, ListenEntry};
pub use self::live::LiveConfig;
use crate::access_log::AccessLog;
use crate::builder::GatewayBuilder;
use crate::gateway::Gateway;
use crate::group::Group;
use crate::listen::ListenOptions;
use crate::networks::IpNetwork;
use crate::route::Route;

/// The maximum size of a configuration file, and of a file of rules that it names.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// The error of a configuration file: the place, and the mistake there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    path: PathBuf,
    place: Option<(usize, usize)>,
    reason: String,
}

impl ConfigError {
    /// Returns the line and the column, counted from 1; `None` if the file could not be read.
    #[must_use]
    pub fn place(&self) -> Option<(usize, usize)> {
        self.place
    }
}

/// Displays `file gateway.toml, line 3, column 9: ..`.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {}", self.path.display())?;
        if let Some((line, column)) = self.place {
            write!(f, ", line {line}, column {column}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for ConfigError {}

/// A configuration file that has been read. Its files of rules, certificates and the access log are
/// opened when the [builder](Self::builder) is made.
#[derive(Debug)]
pub struct ConfigFile {
    path: PathBuf,
    text: String,
    document: Document,
}

/// A listener of a configuration file.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// The address, such as `0.0.0.0:8080`.
    pub address: String,
    /// TLS of the listener.
    pub options: ListenOptions,
}

impl ConfigFile {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or is larger than 16 MiB, and with the errors of
    /// [`parse`](Self::parse).
    pub fn load(path: impl Into<PathBuf>) -> Result<Self, ConfigError> {
        let path = path.into();
        match read(&path) {
            Ok(text) => Self::parse(path, &text),
            Err(reason) => Err(ConfigError {
                path,
                place: None,
                reason,
            }),
        }
    }

    /// Parses the text of a file. Other files that it names are relative to the folder of `path`.
    ///
    /// # Errors
    ///
    /// Fails if the text is not TOML, or has an unknown key or an invalid value.
    pub fn parse(path: impl Into<PathBuf>, text: &str) -> Result<Self, ConfigError> {
        let path = path.into();
        match toml::from_str(text) {
            Ok(document) => Ok(Self {
                path,
                text: text.to_owned(),
                document,
            }),
            Err(error) => Err(ConfigError {
                place: Some(place_in(text, error.span().map_or(0, |span| span.start))),
                reason: error.message().to_owned(),
                path,
            }),
        }
    }

    /// Returns the number of workers, each with a runtime on a separate thread; `None` means one
    /// per core.
    #[must_use]
    pub fn workers(&self) -> Option<usize> {
        self.document.workers.map(|workers| workers.get())
    }

    /// Returns the time that running requests have after the program is asked to end.
    #[must_use]
    pub fn drain(&self) -> std::time::Duration {
        self.document.drain.0
    }

    /// Returns the listeners, with their certificates.
    ///
    /// # Errors
    ///
    /// Fails if there is none, an address is malformed, or a certificate cannot be used.
    pub fn listeners(&self) -> Result<Vec<ListenConfig>, ConfigError> {
        if self.document.listen.is_empty() {
            let reason = "there is no listener: add `[[listen]]` with an `address`";
            return Err(self.error(0..0, reason));
        }
        let listeners = self.document.listen.iter();
        listeners.map(|entry| self.listener(entry)).collect()
    }

    fn listener(&self, entry: &ListenEntry) -> Result<ListenConfig, ConfigError> {
        let address = entry.address.get_ref();
        if address.parse::<std::net::SocketAddr>().is_err() {
            let reason =
                format!("`{address}` is not an IP address with a port, such as `0.0.0.0:8080`");
            return Err(self.error(entry.address.span(), reason));
        }
        let options = ListenOptions::new();
        let options = match &entry.tls {
            None if entry.also_plain.is_some() => {
                let reason = "`also_plain` needs `tls`: without it, the listener is plain anyway";
                return Err(self.error(entry.address.span(), reason));
            }
            None => options,
            Some(tls) => {
                let also_plain = entry.also_plain.unwrap_or(false);
                let made = document::listen_tls(options, tls.get_ref(), also_plain, |file| {
                    self.beside(file)
                });
                made.map_err(|reason| self.error(tls.span(), reason))?
            }
        };
        Ok(ListenConfig {
            address: address.clone(),
            options,
        })
    }

    /// Returns the live page; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Fails if the address or a network is malformed, or if other machines may reach the address
    /// and `allow` is not set.
    pub fn live(&self) -> Result<Option<LiveConfig>, ConfigError> {
        let entry = self.document.live.as_ref();
        let read = entry.map(|entry| entry.read().map_err(|(at, reason)| self.error(at, reason)));
        read.transpose()
    }

    /// Returns the builder of the gateway. Files that it needs are opened now.
    ///
    /// # Errors
    ///
    /// Fails with the first invalid setting.
    pub fn builder(&self) -> Result<GatewayBuilder, ConfigError> {
        let document = &self.document;
        let limits = document.limits.get_ref().limits();
        if let Err((option, reason)) = limits.check() {
            return Err(self.error(document.limits.span(), format!("{option}: {reason}")));
        }
        let mut builder = Gateway::builder()
            .limits(limits)
            .statuses(document.statuses.into())
            .add_forwarded(document.add_forwarded);
        for network in &document.trust {
            let parsed: Result<IpNetwork, _> = network.get_ref().parse();
            let parsed = parsed.map_err(|error| self.error(network.span(), error.to_string()))?;
            builder = builder.trust(parsed);
        }
        for (name, entry) in &document.groups {
            let group: Result<Group, String> = entry.get_ref().group(|file| self.beside(file));
            let group = group.map_err(|reason| self.error(entry.span(), reason))?;
            if let Err(reason) = group.check() {
                let (target, typed) = (&entry.get_ref().target, &entry.get_ref().typed);
                let span = match typed {
                    Some(typed) if reason.starts_with("typed: ") => typed.span(),
                    _ => target.span(),
                };
                return Err(self.error(span, reason));
            }
            builder = builder.group(name.as_str(), group);
        }
        for entry in &document.routes {
            builder = builder.route(self.route(entry)?);
        }
        if let Some(entry) = &document.access_log {
            let log = entry.get_ref().open(|file| self.beside(file));
            let log: AccessLog = log.map_err(|reason| self.error(entry.span(), reason))?;
            builder = builder.access_log(log);
        }
        Ok(builder)
    }

    fn route(&self, spanned: &Spanned<document::RouteEntry>) -> Result<Route, ConfigError> {
        let entry = spanned.get_ref();
        let route = match (&entry.pattern, &entry.rules_file, &entry.group) {
            (pattern, None, Some(group)) => {
                let name = group.get_ref().as_str();
                if !self.document.groups.contains_key(name) {
                    let reason = format!("there is no group `{name}`: add `[groups.{name}]`");
                    return Err(self.error(group.span(), reason));
                }
                match pattern {
                    None => Route::all(name),
                    Some(pattern) => {
                        let route = Route::pattern(pattern.get_ref(), name);
                        route.map_err(|error| self.error(pattern.span(), error.to_string()))?
                    }
                }
            }
            (None, Some(file), None) => {
                let text = read(&self.beside(file.get_ref()));
                let route =
                    text.and_then(|text| Route::rules(&text).map_err(|error| error.to_string()));
                route.map_err(|reason| {
                    self.error(
                        file.span(),
                        format!("{}: {reason}", file.get_ref().display()),
                    )
                })?
            }
            _ => {
                let reason = "a route has either a `group`, and optionally a `pattern`, or a \
                              `rules_file`";
                return Err(self.error(spanned.span(), reason));
            }
        };
        Ok(match &entry.host {
            Some(host) => route.host(host),
            None => route,
        })
    }

    /// Returns the path of a file that the configuration names.
    fn beside(&self, file: &Path) -> PathBuf {
        self.path
            .parent()
            .unwrap_or_else(|| Path::new(""))
            .join(file)
    }

    fn error(&self, span: Range<usize>, reason: impl Into<String>) -> ConfigError {
        ConfigError {
            path: self.path.clone(),
            place: Some(place_in(&self.text, span.start)),
            reason: reason.into(),
        }
    }
}

/// Reads a text file of limited size.
fn read(path: &Path) -> Result<String, String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(format!("it is larger than {MAX_FILE_BYTES} bytes"));
    }
    fs::read_to_string(path).map_err(|error| error.to_string())
}

/// Returns the line and the column of a byte of a text, counted from 1.
fn place_in(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let column = before.get(start..).unwrap_or_default().chars().count() + 1;
    (line, column)
}
