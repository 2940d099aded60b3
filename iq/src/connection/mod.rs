//! Connections of commands: their options, and named targets.

mod connect;
mod direct;
mod server;
mod settings;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Args, ValueHint};
use iip_core::balance::{Target, TargetError};
use iip_rpc::{CallOptions, Client, Metadata};

use self::connect::connect;
pub(crate) use self::direct::Direct;
use self::settings::Settings;
use crate::address::split;
use crate::closest;
use crate::config::{Config, is_name};
use crate::exit::{Failure, Outcome};
use crate::live::{Page, Url, is_url, without_user};
use crate::output::Output;
use crate::time;

/// The forms of a target that this build accepts, for error messages.
const FORMS: &[&str] = &[
    "`host:port`",
    "`unix:/path`",
    "`unix:@name`",
    "`static:host:port#weight,host:port`",
    "`dns://host.:port`",
    #[cfg(feature = "dns-srv")]
    "`dns+srv://name.`",
    "`file:///path`",
    #[cfg(feature = "etcd")]
    "`etcd://host:port,host:port/prefix`",
];

/// Options of connections.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectArgs {
    /// The timeout for connecting and the reply, such as 500ms, 10s or 2m [default: 10s].
    #[arg(long, short, global = true, value_name = "TIME", value_parser = time::parse)]
    timeout: Option<Duration>,
    /// The timeout for a connection attempt [default: 3s].
    #[arg(long, global = true, value_name = "TIME", value_parser = time::parse)]
    connect_timeout: Option<Duration>,
    /// Connect with TLS, and verify the certificate of the server.
    #[arg(
        long,
        global = true,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = clap::builder::BoolishValueParser::new(),
    )]
    tls: Option<bool>,
    /// Trust the certificates in this PEM file instead of those of the system; implies --tls.
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    ca: Option<PathBuf>,
    /// The certificate of this client, or of `iq serve`, in PEM; implies --tls.
    #[arg(
        long,
        alias = "tlscert",
        global = true,
        value_name = "FILE",
        value_hint = ValueHint::FilePath,
    )]
    cert: Option<PathBuf>,
    /// The private key for --cert, in PEM.
    #[arg(
        long,
        alias = "tlskey",
        global = true,
        value_name = "FILE",
        value_hint = ValueHint::FilePath,
    )]
    key: Option<PathBuf>,
    /// The name that the certificate of the server must have, instead of the host connected to.
    #[arg(long, global = true, value_name = "NAME")]
    server_name: Option<String>,
    /// Accept any certificate: anyone on the network path can read and change everything.
    #[arg(long, global = true, conflicts_with = "ca")]
    insecure: bool,
    /// Metadata to send with calls.
    #[arg(long, short, global = true, value_name = "KEY=VALUE", value_parser = KeyAndValue)]
    metadata: Vec<(String, String)>,
    /// Metadata whose value is in a file, such as a token.
    #[arg(long, global = true, value_name = "KEY=FILE", value_parser = KeyAndValue)]
    metadata_file: Vec<(String, String)>,
    /// Metadata whose value is in an environment variable.
    #[arg(long, global = true, value_name = "KEY=VARIABLE", value_parser = KeyAndValue)]
    metadata_env: Vec<(String, String)>,
    /// The configuration file [env: IQ_CONFIG] [default: ~/.config/iq/config.toml].
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
}

/// Parses `KEY=VALUE`. The errors do not show the text, which may have a secret.
#[derive(Clone)]
struct KeyAndValue;

impl TypedValueParser for KeyAndValue {
    type Value = (String, String);

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Self::Value, clap::Error> {
        let mistake = |reason| {
            let arg = arg.map(clap::Arg::to_string).unwrap_or_default();
            let text = format!("invalid value for '{arg}': {reason}\n");
            clap::Error::raw(ErrorKind::ValueValidation, text).with_cmd(command)
        };
        let text = value.to_str().ok_or_else(|| mistake("it is not UTF-8"))?;
        match text.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(mistake("there is no `=`")),
        }
    }
}

/// A connection for one command.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    /// The metadata of the command line and the configuration, which is sent with calls.
    pub(crate) metadata: Metadata,
    /// The timeout for one exchange: a call or, for most commands, the whole command.
    pub(crate) timeout: Duration,
    deadline: Instant,
}

impl Connection {
    /// Returns the time that is left for the command.
    pub(crate) fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Returns a client whose calls end with the timeout of the command.
    pub(crate) fn within_time(&self) -> Client {
        let options = CallOptions::new().timeout(self.remaining());
        self.client.with_options(options)
    }
}

impl ConnectArgs {
    /// Returns `true` if metadata was given on the command line.
    pub(crate) fn has_metadata(&self) -> bool {
        let all = [&self.metadata, &self.metadata_file, &self.metadata_env];
        all.iter().any(|some| !some.is_empty())
    }

    /// Returns `true` if an option of the command line needs TLS, and enables it.
    #[cfg(feature = "tls")]
    fn implies_tls(&self) -> bool {
        self.insecure || self.ca.is_some() || self.cert.is_some() || self.key.is_some()
    }

    /// Fails if an option of the command line needs TLS, which is not enabled.
    fn check_without_tls(&self) -> Outcome {
        let needs_tls = [
            ("--ca", self.ca.is_some()),
            ("--cert", self.cert.is_some()),
            ("--key", self.key.is_some()),
            ("--insecure", self.insecure),
            ("--server-name", self.server_name.is_some()),
        ];
        match (needs_tls.iter().find(|(_, given)| *given), self.tls) {
            (None, _) => Ok(()),
            (Some((name, _)), Some(false)) => {
                let text = format!("{name} cannot be used with --tls=false");
                Err(Failure::Usage(text))
            }
            (Some((name, _)), _) => {
                let text = format!("{name} has no effect without TLS: add --tls");
                Err(Failure::Usage(text))
            }
        }
    }

    /// Returns `true` if the configuration has a target with this name.
    pub(crate) fn is_named(&self, target: &str) -> bool {
        self.names().iter().any(|name| name == target)
    }

    /// Returns the names of the targets in the configuration.
    pub(crate) fn names(&self) -> Vec<String> {
        let config = Config::load(self.config.as_deref()).unwrap_or_default();
        config.names().map(str::to_owned).collect()
    }

    /// Replaces the timeout, for completions.
    pub(crate) fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Connects to a target: an address, or a name of the configuration.
    pub(crate) async fn connect(&self, target: &str, output: &Output) -> Outcome<Connection> {
        let kind = |_: &Target| Ok(());
        self.connect_if(target, kind, Duration::ZERO, output).await
    }

    /// Connects to a target that must be a single server, for a command that watches it. `time` is
    /// added to the timeout of the command.
    pub(crate) async fn connect_to_one(
        &self,
        target: &str,
        time: Duration,
        output: &Output,
    ) -> Outcome<Connection> {
        let is_one = |parsed: &Target| match parsed {
            Target::Single(_) => Ok(()),
            _ => {
                let text = format!("`{target}` may be several servers: name one, `host:port`");
                Err(Failure::Usage(text))
            }
        };
        self.connect_if(target, is_one, time, output).await
    }

    /// Returns the live page at a target; `None` if the target is not an HTTP URL.
    pub(crate) fn page(&self, target: &str) -> Outcome<Option<Page>> {
        let config = Config::load(self.config.as_deref())?;
        let (address, settings) = self.settings(target, &config);
        if !is_url(address) {
            return Ok(None);
        }
        let url = Url::parse(address).map_err(Failure::Usage)?;
        settings.page(url).map(|settings| Some(Page::new(settings)))
    }

    async fn connect_if(
        &self,
        target: &str,
        check: impl Fn(&Target) -> Outcome,
        more: Duration,
        output: &Output,
    ) -> Outcome<Connection> {
        let started = Instant::now();
        let config = Config::load(self.config.as_deref())?;
        let (parsed, settings) = self.target(target, &config)?;
        check(&parsed)?;
        let timeout = settings.timeout()?;
        let metadata = settings.metadata()?;
        let options = CallOptions::new().append_metadata(&metadata);
        let options = options.map_err(|error| Failure::Usage(error.to_string()))?;
        let builder = settings.builder(timeout + more)?;
        let client = connect(builder, &parsed, timeout, output).await?;
        Ok(Connection {
            client: client.with_options(options),
            metadata,
            timeout,
            deadline: started + timeout + more,
        })
    }

    /// Returns a target for forwarding bytes, which must be one address.
    pub(crate) fn direct(&self, target: &str) -> Outcome<Direct> {
        let config = Config::load(self.config.as_deref())?;
        let (parsed, settings) = self.target(target, &config)?;
        let endpoint = Direct::endpoint(parsed).ok_or_else(|| {
            Failure::Usage(format!(
                "{target}: this command takes one address, as host:port"
            ))
        })?;
        Ok(Direct {
            endpoint,
            tls: settings.tls(false)?,
            timeout: settings.connect_timeout(settings.timeout()?)?,
        })
    }

    /// Returns the target, and the settings for it.
    fn target<'a>(
        &'a self,
        target: &'a str,
        config: &'a Config,
    ) -> Outcome<(Target, Settings<'a>)> {
        let (address, settings) = self.settings(target, config);
        let parsed: Target = address.parse().map_err(|error: TargetError| {
            Failure::Usage(match (is_name(target), is_url(address)) {
                (_, true) => format!(
                    "`{}` is a live page: only top and drain take it",
                    without_user(address)
                ),
                (true, false) => unknown_name(target, config),
                (false, false) => match split(address) {
                    Some((address, path)) if is_address(address) => format!(
                        "`{target}` is an address with a path: write a space between them, as in \
                         `{address} {}`",
                        path.trim_start_matches('/')
                    ),
                    _ => not_a_target(address, &error),
                },
            })
        })?;
        Ok((parsed, settings))
    }

    /// Returns the address of a target, and the settings for it.
    fn settings<'a>(&'a self, target: &'a str, config: &'a Config) -> (&'a str, Settings<'a>) {
        let named = config.target(target);
        let settings = Settings {
            args: self,
            config,
            target,
            named,
        };
        (named.map_or(target, |named| &named.address), settings)
    }
}

#[cfg(not(feature = "tls"))]
fn without_tls() -> Failure {
    let text = "this iq was built without TLS: build it with the feature `tls`";
    Failure::Usage(text.to_owned())
}

fn is_address(text: &str) -> bool {
    is_name(text) || text.parse::<Target>().is_ok()
}

fn not_a_target(address: &str, error: &TargetError) -> String {
    let (position, reason) = (error.position(), error.reason());
    let forms = FORMS.join(", ");
    format!("target `{address}` is not valid at byte {position}: {reason}; accepted are {forms}")
}

fn unknown_name(name: &str, config: &Config) -> String {
    let names: Vec<&str> = config.names().collect();
    let mut text = format!(
        "`{name}` is neither an address, such as localhost:7000, nor a target of the configuration"
    );
    if let Some(close) = closest::of(name, names) {
        text.push_str(&format!("; the closest is `{close}`"));
    }
    text
}
