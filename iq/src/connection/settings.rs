//! The settings of a connection: the options of the command line, which take precedence over those
//! of the configuration.

use std::fs;
use std::path::{Path, PathBuf};
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
    pub(super) named: Option<&'a NamedTarget>,
}

impl Settings<'_> {
    pub(super) fn timeout(&self) -> Outcome<Duration> {
        let named = self.named.and_then(|named| named.timeout.as_deref());
        time_or(self.args.timeout, named, "timeout", TIMEOUT)
    }

    /// Returns the timeout of a connection attempt, at most `timeout`.
    pub(super) fn connect_timeout(&self, timeout: Duration) -> Outcome<Duration> {
        let named = self
            .named
            .and_then(|named| named.connect_timeout.as_deref());
        let connect = time_or(
            self.args.connect_timeout,
            named,
            "connect-timeout",
            CONNECT_TIMEOUT,
        )?;
        Ok(connect.min(timeout))
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
        let insecure = args.insecure || named.is_some_and(|named| named.insecure);
        let implied = implied || insecure || ca.is_some() || cert.is_some() || key.is_some();
        let chosen = args.tls.or_else(|| named.and_then(|named| named.tls));
        if !chosen.unwrap_or(implied) {
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

    /// Returns all metadata. Values of the command line replace those of the configuration.
    pub(super) fn metadata(&self) -> Outcome<Metadata> {
        let mut metadata = Metadata::new();
        if let Some(named) = self.named {
            for (key, value) in &named.metadata {
                insert(&mut metadata, key, value.clone())?;
            }
            for (key, file) in &named.metadata_file {
                insert(
                    &mut metadata,
                    key,
                    secret_in_file(&self.config.beside(file))?,
                )?;
            }
            for (key, variable) in &named.metadata_env {
                insert(&mut metadata, key, secret_in_variable(variable)?)?;
            }
        }
        for (key, value) in &self.args.metadata {
            insert(&mut metadata, key, value.clone())?;
        }
        for (key, file) in &self.args.metadata_file {
            insert(&mut metadata, key, secret_in_file(Path::new(file))?)?;
        }
        for (key, variable) in &self.args.metadata_env {
            insert(&mut metadata, key, secret_in_variable(variable)?)?;
        }
        Ok(metadata)
    }
}

fn time_or(
    given: Option<Duration>,
    named: Option<&str>,
    key: &str,
    default: Duration,
) -> Outcome<Duration> {
    let configured = named.map(time::parse).transpose();
    let configured = configured.map_err(|reason| {
        Failure::Usage(format!(
            "`{key}` of the target in the configuration: {reason}"
        ))
    })?;
    Ok(given.or(configured).unwrap_or(default))
}

fn insert(metadata: &mut Metadata, key: &str, value: String) -> Outcome {
    let inserted = metadata.insert(key, value);
    inserted
        .map(drop)
        .map_err(|error| Failure::Usage(format!("metadata `{key}`: {error}")))
}

fn secret_in_file(path: &Path) -> Outcome<String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => Err(Failure::Usage(format!("{}: {error}", path.display()))),
    }
}

fn secret_in_variable(variable: &str) -> Outcome<String> {
    std::env::var(variable)
        .map_err(|error| Failure::Usage(format!("environment variable `{variable}`: {error}")))
}
