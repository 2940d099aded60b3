//! The settings of a connection: the options of the command line, which take precedence over those
//! of the configuration.

use std::env::VarError;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use iip_rpc::{Client, ClientBuilder, Metadata};

use super::ConnectArgs;
use crate::config::{Config, NamedTarget};
use crate::exit::{Failure, Outcome};
use crate::live::{PageSettings, Url};
use crate::time;

#[cfg(feature = "tls")]
pub(crate) type Tls = iip_rpc::tls::ClientTls;

/// This build has no TLS.
#[cfg(not(feature = "tls"))]
pub(crate) type Tls = std::convert::Infallible;

/// Default timeout of a command.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Default timeout of a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum number of queued calls. It is high, because a load has its own limit.
const MAX_QUEUED_CALLS: usize = 1 << 20;

/// The options of the command line, which take precedence over those of a named target.
pub(super) struct Settings<'a> {
    pub(super) args: &'a ConnectArgs,
    pub(super) config: &'a Config,
    /// The target as it was given; its name if `named` is set.
    pub(super) target: &'a str,
    pub(super) named: Option<&'a NamedTarget>,
}

impl Settings<'_> {
    pub(super) fn timeout(&self) -> Outcome<Duration> {
        let named = self.named.and_then(|named| named.timeout.as_deref());
        self.time_or(self.args.timeout, named, "timeout", TIMEOUT)
    }

    /// Returns the timeout of a connection attempt, at most `timeout`.
    pub(super) fn connect_timeout(&self, timeout: Duration) -> Outcome<Duration> {
        let named = self
            .named
            .and_then(|named| named.connect_timeout.as_deref());
        let given = self.args.connect_timeout;
        let connect = self.time_or(given, named, "connect-timeout", CONNECT_TIMEOUT)?;
        Ok(connect.min(timeout))
    }

    fn time_or(
        &self,
        given: Option<Duration>,
        named: Option<&str>,
        key: &str,
        default: Duration,
    ) -> Outcome<Duration> {
        match (given, named) {
            (Some(given), _) => Ok(given),
            (None, Some(text)) => time::parse(text).map_err(|reason| self.mistake(key, &reason)),
            (None, None) => Ok(default),
        }
    }

    /// Returns the error about a setting of the named target.
    fn mistake(&self, key: &str, reason: &str) -> Failure {
        self.config.mistake(self.target, key, reason)
    }

    pub(super) fn builder(&self, timeout: Duration) -> Outcome<ClientBuilder> {
        let builder = Client::builder()
            .timeout(timeout)
            .max_queued_calls(MAX_QUEUED_CALLS)
            .connect_timeout(self.connect_timeout(timeout)?);
        Ok(match self.tls(false)? {
            #[cfg(feature = "tls")]
            Some(tls) => builder.tls(tls),
            #[cfg(not(feature = "tls"))]
            Some(never) => match never {},
            None => builder,
        })
    }

    /// Returns the settings for a live page. Metadata is sent as headers.
    pub(super) fn page(&self, url: Url) -> Outcome<PageSettings> {
        let timeout = self.timeout()?;
        let mut headers = HeaderMap::new();
        for (key, value) in self.metadata()?.iter() {
            let name = HeaderName::try_from(key);
            let (Ok(name), Ok(mut value)) = (name, HeaderValue::from_bytes(value)) else {
                let text = format!("metadata `{key}` cannot be a header of HTTP");
                return Err(Failure::Usage(text));
            };
            value.set_sensitive(true);
            headers.append(name, value);
        }
        let tls = self.tls(url.is_https)?;
        if tls.is_some() != url.is_https {
            let text = "a live page has TLS if its address begins with `https://`, and only then";
            return Err(Failure::Usage(text.to_owned()));
        }
        Ok(PageSettings {
            url,
            headers,
            timeout,
            connect_timeout: self.connect_timeout(timeout)?,
            #[cfg(feature = "tls")]
            tls,
        })
    }

    /// Returns a file of the command line, or else of the configuration.
    fn file(
        &self,
        given: Option<&PathBuf>,
        named: impl Fn(&NamedTarget) -> Option<&PathBuf>,
    ) -> Option<PathBuf> {
        let configured = || {
            self.named
                .and_then(named)
                .map(|file| self.config.beside(file))
        };
        given.cloned().or_else(configured)
    }

    /// Returns the TLS settings; `None` if TLS is not enabled. `implied` enables it unless an
    /// option disables it.
    #[cfg(feature = "tls")]
    pub(super) fn tls(&self, implied: bool) -> Outcome<Option<Tls>> {
        use iip_rpc::tls::{ClientTls, DangerousClientTls};

        let (args, named) = (self.args, self.named);
        let ca = self.file(args.ca.as_ref(), |named| named.ca.as_ref());
        let cert = self.file(args.cert.as_ref(), |named| named.cert.as_ref());
        let key = self.file(args.key.as_ref(), |named| named.key.as_ref());
        let insecure = match (args.insecure, &args.ca) {
            (false, Some(_)) => false,
            (given, _) => given || named.is_some_and(|named| named.insecure),
        };
        let implied = implied || insecure || ca.is_some() || cert.is_some() || key.is_some();
        let configured = named.and_then(|named| named.tls);
        let configured = configured.filter(|_| !args.implies_tls());
        let chosen = args.tls.or(configured);
        if !chosen.unwrap_or(implied) {
            args.check_without_tls()?;
            return Ok(None);
        }
        let mistake = |error: iip_rpc::tls::TlsError| Failure::Usage(error.to_string());
        let mut tls = match (insecure, &ca) {
            (true, _) => DangerousClientTls::accept_any_certificate(),
            (false, Some(ca)) => ClientTls::new().roots_file(ca).map_err(mistake)?,
            (false, None) => ClientTls::new(),
        };
        tls = match (&cert, &key) {
            (Some(cert), Some(key)) => tls.identity_files(cert, key).map_err(mistake)?,
            (None, None) => tls,
            _ => {
                let text = "a certificate of the client needs both --cert and --key";
                return Err(Failure::Usage(text.to_owned()));
            }
        };
        let configured = named.and_then(|named| named.server_name.as_ref());
        if let Some(name) = args.server_name.as_ref().or(configured) {
            tls = tls.server_name(name).map_err(mistake)?;
        }
        Ok(Some(tls))
    }

    #[cfg(not(feature = "tls"))]
    pub(super) fn tls(&self, implied: bool) -> Outcome<Option<Tls>> {
        let (args, named) = (self.args, self.named);
        let ca = self.file(args.ca.as_ref(), |named| named.ca.as_ref());
        let cert = self.file(args.cert.as_ref(), |named| named.cert.as_ref());
        let key = self.file(args.key.as_ref(), |named| named.key.as_ref());
        let name =
            args.server_name.is_some() || named.is_some_and(|named| named.server_name.is_some());
        let insecure = args.insecure || named.is_some_and(|named| named.insecure);
        let chosen = args.tls.or_else(|| named.and_then(|named| named.tls));
        let asked = implied || chosen == Some(true) || insecure;
        if asked || name || ca.or(cert).or(key).is_some() {
            return Err(super::without_tls());
        }
        Ok(None)
    }

    /// Returns all metadata. Keys of the command line replace those of the configuration.
    pub(super) fn metadata(&self) -> Outcome<Metadata> {
        let args = self.args;
        let values = args.metadata.iter();
        let values = values.map(|(key, value)| (key, Source::Value(value)));
        let files = args.metadata_file.iter();
        let files = files.map(|(key, file)| (key, Source::File(file.into())));
        let variables = args.metadata_env.iter();
        let variables = variables.map(|(key, name)| (key, Source::Variable(name)));
        let mut metadata = Metadata::new();
        for (key, source) in values.chain(files).chain(variables) {
            let added = add(&mut metadata, key, &source);
            added.map_err(|reason| Failure::Usage(format!("metadata `{key}`: {reason}")))?;
        }
        let given = metadata.clone();
        for (table, key, source) in self.configured() {
            // A key that is replaced may have a source that does not exist here.
            if given.get(&key.to_ascii_lowercase()).is_none() {
                let added = add(&mut metadata, key, &source);
                added.map_err(|reason| self.mistake(&format!("{table}.{key}"), &reason))?;
            }
        }
        Ok(metadata)
    }

    /// Returns the metadata of the named target: the table, the key and the source of each value.
    fn configured(&self) -> impl Iterator<Item = (&'static str, &String, Source<'_>)> {
        self.named.into_iter().flat_map(|named| {
            let values = named.metadata.iter();
            let values = values.map(|(key, value)| ("metadata", key, Source::Value(value)));
            let files = named.metadata_file.iter().map(|(key, file)| {
                let file = self.config.beside(file);
                ("metadata-file", key, Source::File(file))
            });
            let variables = named.metadata_env.iter();
            let variables =
                variables.map(|(key, name)| ("metadata-env", key, Source::Variable(name)));
            values.chain(files).chain(variables)
        })
    }
}

/// The source of a value of metadata.
enum Source<'a> {
    Value(&'a str),
    File(PathBuf),
    Variable(&'a str),
}

impl Source<'_> {
    /// Reads the value. The error does not show any part of it, because it may be a secret.
    fn read(&self) -> Result<String, String> {
        match self {
            Self::Value(value) => Ok((*value).to_owned()),
            Self::File(path) => match fs::read_to_string(path) {
                Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
                Err(error) => Err(format!("{}: {error}", path.display())),
            },
            Self::Variable(name) => std::env::var(name).map_err(|error| {
                let reason = match error {
                    VarError::NotPresent => "is not set",
                    // The text of this error has the value.
                    VarError::NotUnicode(_) => "is not UTF-8",
                };
                format!("the environment variable `{name}` {reason}")
            }),
        }
    }
}

/// Adds a value. Keys are in lower case, as in HTTP/2.
fn add(metadata: &mut Metadata, key: &str, source: &Source<'_>) -> Result<(), String> {
    let inserted = metadata.insert(&key.to_ascii_lowercase(), source.read()?);
    inserted.map_err(|error| error.to_string())
}
