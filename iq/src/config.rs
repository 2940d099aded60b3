//! The configuration file, which defines named targets.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::exit::{Failure, Outcome};
use crate::live::{Url, is_url};

/// Maximum size of the file, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The content of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    targets: BTreeMap<String, Spanned<NamedTarget>>,
}

/// A named target. File names are relative to the folder of the configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct NamedTarget {
    pub(crate) address: String,
    pub(crate) timeout: Option<String>,
    pub(crate) connect_timeout: Option<String>,
    pub(crate) tls: Option<bool>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) server_name: Option<String>,
    #[serde(default)]
    pub(crate) insecure: bool,
    #[serde(default)]
    pub(crate) metadata: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) metadata_file: BTreeMap<String, PathBuf>,
    #[serde(default)]
    pub(crate) metadata_env: BTreeMap<String, String>,
}

/// A parsed configuration file; empty if there is none at the default path.
#[derive(Debug, Default)]
pub(crate) struct Config {
    path: PathBuf,
    text: String,
    document: Document,
}

impl Config {
    /// Reads the chosen file, which is that of `IQ_CONFIG` unless one is given, or the one at the
    /// default path if it exists.
    pub(crate) fn load(given: Option<&Path>) -> Outcome<Self> {
        let chosen = given.map(Path::to_owned);
        let chosen = chosen.or_else(|| variable("IQ_CONFIG").map(PathBuf::from));
        let Some(path) = chosen.clone().or_else(default_path) else {
            return Ok(Self::default());
        };
        match read(&path) {
            Ok(text) => Self::parse(path, text),
            Err(error) if chosen.is_none() && error.kind() == ErrorKind::NotFound => {
                Ok(Self::default())
            }
            Err(error) => Err(usage(&path, None, &error.to_string())),
        }
    }

    fn parse(path: PathBuf, text: String) -> Outcome<Self> {
        let document: Document = toml::from_str(&text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            usage(&path, Some(place_in(&text, at)), error.message())
        })?;
        let config = Self {
            path,
            text,
            document,
        };
        for (name, target) in &config.document.targets {
            if !is_name(name) {
                let reason = format!(
                    "`{name}` is not a name for a target: it has letters, digits, `-`, `_` and `.`"
                );
                return Err(config.error(target.span(), &reason));
            }
            let address = &target.get_ref().address;
            let is_target = match is_url(address) {
                true => Url::parse(address).is_ok(),
                false => address.parse::<iip_core::balance::Target>().is_ok(),
            };
            if !is_target {
                let reason = format!(
                    "`address` of `{name}` is not a target, such as `10.0.0.1:7000` or \
                     `dns://orders.:7000`"
                );
                return Err(config.error(target.span(), &reason));
            }
        }
        Ok(config)
    }

    /// Returns the target with this name.
    pub(crate) fn target(&self, name: &str) -> Option<&NamedTarget> {
        self.document.targets.get(name).map(Spanned::get_ref)
    }

    /// Returns the names of all targets.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.document.targets.keys().map(String::as_str)
    }

    /// Resolves the path of a file that the configuration names.
    pub(crate) fn beside(&self, file: &Path) -> PathBuf {
        self.path
            .parent()
            .map_or_else(|| file.to_owned(), |folder| folder.join(file))
    }

    /// Returns the error about a setting of a named target.
    pub(crate) fn mistake(&self, name: &str, key: &str, reason: &str) -> Failure {
        let start = self
            .document
            .targets
            .get(name)
            .map_or(0, |target| target.span().start);
        self.error(start..start, &format!("`{key}` of `{name}`: {reason}"))
    }

    fn error(&self, span: Range<usize>, reason: &str) -> Failure {
        usage(&self.path, Some(place_in(&self.text, span.start)), reason)
    }
}

/// Returns `true` if a text has the form of a target name, which no address has.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// Returns `~/.config/iq/config.toml`, or the same path below `XDG_CONFIG_HOME`.
fn default_path() -> Option<PathBuf> {
    Some(home_folder("XDG_CONFIG_HOME", ".config")?.join("iq/config.toml"))
}

/// Returns the folder in an environment variable if it is an absolute path, or else a folder below
/// the home directory.
pub(crate) fn home_folder(variable: &str, below_home: &str) -> Option<PathBuf> {
    let folder = self::variable(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    folder.or_else(|| Some(PathBuf::from(self::variable("HOME")?).join(below_home)))
}

/// Returns an environment variable that is set and not empty.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn read(path: &Path) -> std::io::Result<String> {
    let size = fs::metadata(path)?.len();
    if size > MAX_BYTES {
        let text = format!("the file has {size} bytes, and the limit is {MAX_BYTES}");
        return Err(std::io::Error::other(text));
    }
    fs::read_to_string(path)
}

fn usage(path: &Path, place: Option<(usize, usize)>, reason: &str) -> Failure {
    let path = path.display();
    Failure::Usage(match place {
        Some((line, column)) => format!("{path}, line {line}, column {column}: {reason}"),
        None => format!("{path}: {reason}"),
    })
}

/// Returns the line and the column of a byte offset, counted from 1.
fn place_in(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse("iq.toml".into(), text.to_owned()).map_err(|failure| failure.to_string())
    }

    #[test]
    fn targets_have_names_and_settings() {
        let text = "[targets.prod]\naddress = \"dns://orders.:7000\"\ntimeout = \"2s\"\n\
                    [targets.prod.metadata-env]\nauthorization = \"TOKEN\"\n";
        let config = parse(text).unwrap();
        let prod = config.target("prod").unwrap();
        assert_eq!(prod.address, "dns://orders.:7000");
        assert_eq!(prod.metadata_env["authorization"], "TOKEN");
        assert_eq!(config.names().collect::<Vec<_>>(), ["prod"]);
        assert!(config.target("test").is_none());
    }

    #[test]
    fn mistakes_are_reported_with_their_place() {
        for (text, place, reason) in [
            (
                "[targets.a]\naddress = \"a:1\"\nport = 1\n",
                "line 3, column 1",
                "`port`",
            ),
            ("[target.a]\n", "line 1, column 2", "`target`"),
            ("[targets.a]\naddress = 1\n", "line 2, column 11", "string"),
            ("[targets.a]\ntls = true\n", "line 1, column 1", "`address`"),
            (
                "[targets.a]\naddress = \"a\"\n",
                "line 1, column 1",
                "`address` of `a`",
            ),
            (
                "[targets.\"a:1\"]\naddress = \"a:1\"\n",
                "line 1, column 1",
                "name",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(&format!("iq.toml, {place}: ")), "{error}");
            assert!(error.contains(reason), "{error}");
        }
    }
}
