//! The text that names what a client connects to: one address, a list, or a source of addresses.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use super::backend::{BackendInfo, MAX_WEIGHT};
use crate::transport::{Endpoint, EndpointError, ToEndpoint};

/// The forms of a target, for error messages.
const ACCEPTED: &str = "`host:port`, `tcp://host:port`, `unix:/path`, `unix:@name`, \
    `static:host:port#weight,host:port`, `ip:port#weight,ip:port#weight`, `dns://host.:port`, \
    `dns+srv://name.`, `file:///path` and `etcd://host:port,host:port/prefix`";

/// The maximum weight in a list of the Go client.
const MAX_GO_WEIGHT: u32 = 100;

/// The address, or the source of addresses, that a client connects to.
///
/// | text | meaning |
/// |---|---|
/// | `host:port`, `tcp://host:port`, `[::1]:port`, `unix:/path`, `unix:@name` | one [`Endpoint`] |
/// | `static:host:port#3,unix:/path` | a list; weights from 0 (no new calls) to 65,535, default 1 |
/// | `10.0.0.1:7000#3,10.0.0.2:7000#1` | the list of the Go client; weights from 1 to 100 |
/// | `dns://host.:port` | all addresses of a name; the final dot prevents search domains |
/// | `dns+srv://_service._tcp.name.` | the SRV records of a name, with feature `dns-srv` |
/// | `file:///path` | a file with a list |
/// | `etcd://host:2379,host2:2379/prefix` | the keys of etcd below `/prefix` |
///
/// ```
/// use iip_core::balance::Target;
///
/// let target: Target = "10.0.0.1:7000#3,10.0.0.2:7000#1".parse()?;
/// assert_eq!(target.to_string(), "static:10.0.0.1:7000#3,10.0.0.2:7000#1");
/// assert!("10.0.0.1:7000#3,10.0.0.2:7000".parse::<Target>().is_err());
/// # Ok::<(), iip_core::balance::TargetError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Target {
    /// One address. Its connections are not balanced.
    Single(Endpoint),
    /// A fixed list of addresses with weights, never empty.
    Static(Vec<(Endpoint, u32)>),
    /// All addresses of a name.
    Dns {
        /// The name, with its final dot if it has one.
        host: String,
        /// The port of every address.
        port: u16,
    },
    /// The servers in the SRV records of a name.
    DnsSrv {
        /// The name, with its final dot if it has one.
        name: String,
    },
    /// A file whose contents list the addresses.
    File(PathBuf),
    /// The keys of etcd with a prefix.
    Etcd {
        /// The members of the cluster, as host and port; never empty.
        members: Vec<(String, u16)>,
        /// The prefix, with its slash at the beginning. The keys of the backends are below it.
        prefix: String,
    },
}

/// The error of a text that is not a [`Target`]. Its text lists what is accepted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("target `{text}` is not valid at byte {position}: {reason}; accepted are {ACCEPTED}")]
pub struct TargetError {
    text: String,
    position: usize,
    reason: String,
}

impl TargetError {
    /// Returns the index of the first byte that is not accepted. It is the length of the text if
    /// something is missing at its end.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// Returns what is not accepted.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// An address and its weight.
type ParsedEntry = Result<(Endpoint, u32), Fault>;

/// A fault within a text, with its position.
#[derive(Debug)]
pub(crate) struct Fault {
    /// The index of a byte.
    pub(crate) position: usize,
    pub(crate) reason: String,
}

impl Fault {
    fn new(position: usize, reason: impl Into<String>) -> Self {
        Self {
            position,
            reason: reason.into(),
        }
    }
}

impl Target {
    /// Returns the backends of a target that lists them itself; `None` if they must be looked up.
    ///
    /// The stable id of a backend is its address. A repeated address has its number appended.
    #[must_use]
    pub fn backends(&self) -> Option<Vec<BackendInfo>> {
        let list = match self {
            Self::Single(endpoint) => return Some(vec![BackendInfo::new(endpoint.clone())]),
            Self::Static(list) => list,
            _ => return None,
        };
        let mut seen = std::collections::HashMap::new();
        let backends = list.iter().map(|(endpoint, weight)| {
            let count = seen.entry(endpoint).or_insert(0_usize);
            *count += 1;
            let info = BackendInfo::new(endpoint.clone()).weight(*weight);
            match *count {
                1 => info,
                count => info.id(format!("{endpoint} ({count})")),
            }
        });
        Some(backends.collect())
    }

    fn parse(text: &str) -> Result<Self, Fault> {
        if let Some(list) = text.strip_prefix("static:") {
            // `static:7000` is the port of a host of that name.
            if list.parse::<u16>().is_err() {
                return parse_list(text, "static:".len(), parse_entry);
            }
        } else if let Some(rest) = text.strip_prefix("dns://") {
            let (host, port) = parse_host(rest, "dns://".len())?;
            return Ok(Self::Dns { host, port });
        } else if let Some(name) = text.strip_prefix("dns+srv://") {
            return parse_srv(name, "dns+srv://".len());
        } else if let Some(path) = text.strip_prefix("file://") {
            if !path.starts_with('/') {
                let reason = "the path of a file must be absolute: write `file:///path`";
                return Err(Fault::new("file://".len(), reason));
            }
            return Ok(Self::File(path.into()));
        } else if let Some(rest) = text.strip_prefix("etcd://") {
            return parse_etcd(rest, "etcd://".len());
        } else if text.contains(['#', ',']) && !text.starts_with("unix:") {
            return parse_list(text, 0, parse_go_entry);
        }
        parse_endpoint(text, 0).map(Self::Single)
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        Self::parse(text).map_err(|fault| TargetError {
            text: text.to_owned(),
            position: fault.position,
            reason: fault.reason,
        })
    }
}

/// A value that names what a client connects to: a text such as `"127.0.0.1:9000"` or
/// `"dns://orders.:7000"`, a [`SocketAddr`], an [`Endpoint`] or a [`Target`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a target",
    note = "write a string such as \"127.0.0.1:9000\" or \"unix:/path\", or pass a `SocketAddr`"
)]
pub trait ToTarget {
    /// Returns the target.
    ///
    /// # Errors
    ///
    /// Fails if a text is not a target.
    fn to_target(&self) -> Result<Target, TargetError>;
}

impl ToTarget for str {
    fn to_target(&self) -> Result<Target, TargetError> {
        self.parse()
    }
}

impl ToTarget for String {
    fn to_target(&self) -> Result<Target, TargetError> {
        self.parse()
    }
}

impl ToTarget for SocketAddr {
    fn to_target(&self) -> Result<Target, TargetError> {
        Ok(Target::Single((*self).into()))
    }
}

/// A host and a port.
impl ToTarget for (&str, u16) {
    fn to_target(&self) -> Result<Target, TargetError> {
        let endpoint = self.to_endpoint().map_err(|error| TargetError {
            text: format!("{}:{}", self.0, self.1),
            position: 0,
            reason: error.to_string(),
        })?;
        Ok(Target::Single(endpoint))
    }
}

impl ToTarget for Endpoint {
    fn to_target(&self) -> Result<Target, TargetError> {
        Ok(Target::Single(self.clone()))
    }
}

impl ToTarget for Target {
    fn to_target(&self) -> Result<Target, TargetError> {
        Ok(self.clone())
    }
}

impl<T: ToTarget + ?Sized> ToTarget for &T {
    fn to_target(&self) -> Result<Target, TargetError> {
        (**self).to_target()
    }
}

impl<T: ToTarget + ?Sized> ToTarget for Box<T> {
    fn to_target(&self) -> Result<Target, TargetError> {
        (**self).to_target()
    }
}

impl<T: ToTarget + ?Sized> ToTarget for Arc<T> {
    fn to_target(&self) -> Result<Target, TargetError> {
        (**self).to_target()
    }
}

impl<T: ToTarget + ToOwned + ?Sized> ToTarget for Cow<'_, T> {
    fn to_target(&self) -> Result<Target, TargetError> {
        (**self).to_target()
    }
}

impl From<Endpoint> for Target {
    fn from(endpoint: Endpoint) -> Self {
        Self::Single(endpoint)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single(endpoint) => endpoint.fmt(f),
            Self::Static(list) => {
                f.write_str("static:")?;
                for (index, (endpoint, weight)) in list.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma}{endpoint}#{weight}")?;
                }
                Ok(())
            }
            Self::Dns { host, port } => write!(f, "dns://{}", HostPort(host, *port)),
            Self::DnsSrv { name } => write!(f, "dns+srv://{name}"),
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::Etcd { members, prefix } => {
                f.write_str("etcd://")?;
                for (index, (host, port)) in members.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma}{}", HostPort(host, *port))?;
                }
                f.write_str(prefix)
            }
        }
    }
}

/// A host and a port, with the brackets of an IPv6 address.
struct HostPort<'a>(&'a str, u16);

impl fmt::Display for HostPort<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(host, port) = self;
        match host.contains(':') {
            true => write!(f, "[{host}]:{port}"),
            false => write!(f, "{host}:{port}"),
        }
    }
}

/// Parses the entries of a list that begins at `start`.
fn parse_list(
    text: &str,
    start: usize,
    parse: fn(&str, usize) -> ParsedEntry,
) -> Result<Target, Fault> {
    let mut list = Vec::new();
    for (position, entry) in entries(text, start) {
        list.push(parse(entry, position)?);
    }
    match list.is_empty() {
        true => Err(Fault::new(text.len(), "the list has no address")),
        false => Ok(Target::Static(list)),
    }
}

/// Parses a line of a file: entries as those of `static:`, each with its position.
pub(crate) fn parse_line(line: &str) -> impl Iterator<Item = Result<(usize, BackendInfo), Fault>> {
    entries(line, 0).map(|(position, entry)| {
        let (endpoint, weight) = parse_entry(entry, position)?;
        Ok((position, BackendInfo::new(endpoint).weight(weight)))
    })
}

/// Returns the entries between commas, without spaces around them, and their positions. Empty
/// entries are skipped, as in Go.
fn entries(text: &str, start: usize) -> impl Iterator<Item = (usize, &str)> {
    let mut position = start;
    let list = text.get(start..).unwrap_or_default().split(',');
    list.filter_map(move |entry| {
        let trimmed = entry.trim_start();
        let begin = position + (entry.len() - trimmed.len());
        position += entry.len() + 1;
        let trimmed = trimmed.trim_end();
        (!trimmed.is_empty()).then_some((begin, trimmed))
    })
}

/// Parses `address#weight` or `address`.
fn parse_entry(entry: &str, at: usize) -> ParsedEntry {
    match entry.rsplit_once('#') {
        Some((address, weight)) => {
            let endpoint = parse_endpoint(address, at)?;
            let weight = parse_weight(weight, at + address.len() + 1, 0..=MAX_WEIGHT)?;
            Ok((endpoint, weight))
        }
        None => Ok((parse_endpoint(entry, at)?, 1)),
    }
}

/// Parses `address#weight` of the Go client, where the weight is required.
fn parse_go_entry(entry: &str, at: usize) -> ParsedEntry {
    let Some((address, weight)) = entry.split_once('#') else {
        let reason = format!(
            "entry `{entry}` has no weight: write `{entry}#1`, or `static:` before the list"
        );
        return Err(Fault::new(at + entry.len(), reason));
    };
    let endpoint = parse_endpoint(address, at)?;
    let weight = parse_weight(weight, at + address.len() + 1, 1..=MAX_GO_WEIGHT)?;
    Ok((endpoint, weight))
}

fn parse_weight(
    weight: &str,
    at: usize,
    range: std::ops::RangeInclusive<u32>,
) -> Result<u32, Fault> {
    match weight.parse() {
        Ok(weight) if range.contains(&weight) => Ok(weight),
        _ => {
            let (min, max) = range.into_inner();
            let reason = format!("weight `{weight}` is not a number from {min} to {max}");
            Err(Fault::new(at, reason))
        }
    }
}

fn parse_endpoint(address: &str, at: usize) -> Result<Endpoint, Fault> {
    address.parse().map_err(|error: EndpointError| {
        let offset = match &error {
            EndpointError::NoPort { .. } | EndpointError::NoPath { .. } => address.len(),
            EndpointError::BadPort { port, .. } => address.len() - port.len(),
            _ => 0,
        };
        let reason = match error {
            EndpointError::UnknownScheme { scheme, .. } => {
                format!(
                    "the scheme `{scheme}://` is not known; pass a source of your own to \
                     `ClientBuilder::discover`"
                )
            }
            error => error.to_string(),
        };
        Fault::new(at + offset, reason)
    })
}

/// Parses `host:port` without a scheme of its own.
fn parse_host(text: &str, at: usize) -> Result<(String, u16), Fault> {
    if let Some(slash) = text.find('/') {
        return Err(Fault::new(
            at + slash,
            "only a host and a port are expected",
        ));
    }
    match parse_endpoint(text, at)? {
        Endpoint::Tcp { host, port } => Ok((host, port)),
        _ => Err(Fault::new(at, "only a host and a port are expected")),
    }
}

/// Parses the name of SRV records.
fn parse_srv(name: &str, at: usize) -> Result<Target, Fault> {
    let is_in_names = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if let Some(other) = name.find(|c| !is_in_names(c)) {
        let reason = match name.get(other..) {
            Some(rest) if rest.starts_with(':') => {
                "the port is that of the SRV records: write the name only"
            }
            _ => "only a name such as `_service._tcp.host.` is expected",
        };
        return Err(Fault::new(at + other, reason));
    }
    let mut position = at;
    for label in name.strip_suffix('.').unwrap_or(name).split('.') {
        if !(1..=63).contains(&label.len()) {
            let reason = "the parts between the dots of a name have 1 to 63 characters";
            return Err(Fault::new(position, reason));
        }
        position += label.len() + 1;
    }
    match name.len() {
        0..=254 => Ok(Target::DnsSrv {
            name: name.to_owned(),
        }),
        _ => Err(Fault::new(at, "a name has at most 253 characters")),
    }
}

/// Parses `host:port,host:port/prefix`.
fn parse_etcd(text: &str, at: usize) -> Result<Target, Fault> {
    let slash = text.find('/').unwrap_or(text.len());
    let (hosts, prefix) = text.split_at(slash);
    if prefix.len() < 2 {
        let reason = "there is no prefix of keys after the hosts: write `/prefix`";
        return Err(Fault::new(at + text.len(), reason));
    }
    let mut members = Vec::new();
    let mut position = at;
    for host in hosts.split(',') {
        members.push(parse_host(host, position)?);
        position += host.len() + 1;
    }
    Ok(Target::Etcd {
        members,
        prefix: prefix.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault(text: &str) -> (usize, String) {
        let error = text.parse::<Target>().unwrap_err();
        assert!(error.to_string().contains("etcd://"), "{error}");
        (error.position(), error.reason().to_owned())
    }

    #[test]
    fn what_is_an_address_today_stays_one() {
        for text in [
            "localhost:9000",
            "static:7000",
            "dns:7000",
            "tcp://host:1",
            "unix:/run/a,b#1.sock",
            "unix:@name",
            "[::1]:80",
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(text.parse(), Ok(Target::Single(endpoint)), "{text}");
        }
    }

    #[test]
    fn lists_have_weights() {
        let endpoint = |text: &str| text.parse::<Endpoint>().unwrap();
        let list = vec![
            (endpoint("10.0.0.1:7000"), 3),
            (endpoint("10.0.0.2:7000"), 1),
        ];
        let go = " 10.0.0.1:7000#3, 10.0.0.2:7000#+1 ,";
        assert_eq!(go.parse(), Ok(Target::Static(list.clone())));
        let own = "static:10.0.0.1:7000#3,10.0.0.2:7000";
        assert_eq!(own.parse(), Ok(Target::Static(list)));
        let drained = "static:unix:/a#0,[::1]:1#65535".parse::<Target>().unwrap();
        assert_eq!(drained.to_string(), "static:unix:/a#0,[::1]:1#65535");
    }

    #[test]
    fn a_fault_has_its_position() {
        assert_eq!(fault("a:1#3,b:2").0, 9);
        assert!(fault("a:1#3,b:2").1.contains("`b:2` has no weight"));
        assert_eq!(fault("a:1#3, b:2#101").0, 11);
        assert!(
            fault("consul://a:1")
                .1
                .starts_with("the scheme `consul://` is not known")
        );
        assert_eq!(fault("a:1#0").0, 4);
        assert_eq!(fault("a:1#3,b#1").0, 7);
        assert_eq!(fault("static:a:x").0, 9);
        assert_eq!(fault("static:a:1#70000").0, 11);
        assert_eq!(fault("static:").0, 7);
        assert_eq!(fault(",").0, 1);
        assert_eq!(fault("").0, 0);
        assert_eq!(fault("file://etc").0, 7);
        assert_eq!(fault("dns://host").0, 10);
        assert_eq!(fault("dns://host:1/path").0, 12);
        assert_eq!(fault("dns+srv://").0, 10);
        assert_eq!(fault("dns+srv://a..b").0, 12);
        assert_eq!(fault("dns+srv://.").0, 10);
        assert_eq!(fault("dns+srv://a.b:80").0, 13);
        assert!(fault("dns+srv://a.b:80").1.contains("the port is that of"));
        assert_eq!(fault("dns+srv://a/b").0, 11);
        assert_eq!(fault(&format!("dns+srv://{}", "a".repeat(64))).0, 10);
        assert_eq!(fault(&format!("dns+srv://{}", "a.".repeat(128))).0, 10);
        assert_eq!(fault("etcd://a:1").0, 10);
        assert_eq!(fault("etcd://a:1,b/prefix").0, 12);
        assert_eq!(fault("consul://a:1").0, 0);
    }

    #[test]
    fn sources_are_parsed() {
        let dns = Target::Dns {
            host: "users.".into(),
            port: 80,
        };
        assert_eq!("dns://users.:80".parse(), Ok(dns));
        let srv = Target::DnsSrv {
            name: "_iip._tcp.users.".into(),
        };
        assert_eq!("dns+srv://_iip._tcp.users.".parse(), Ok(srv));
        assert_eq!(
            "file:///etc/a#b".parse(),
            Ok(Target::File("/etc/a#b".into()))
        );
        let etcd = Target::Etcd {
            members: vec![("a".into(), 2379), ("::1".into(), 1)],
            prefix: "/iip/users/".into(),
        };
        assert_eq!("etcd://a:2379,[::1]:1/iip/users/".parse(), Ok(etcd));
    }

    #[test]
    fn a_repeated_address_has_an_id_of_its_own() {
        let target: Target = "a:1#3,a:1#1".parse().unwrap();
        let backends = target.backends().unwrap();
        assert_eq!(&*backends[0].id, "a:1");
        assert_eq!(&*backends[1].id, "a:1 (2)");
        assert_eq!("dns://a:1".parse::<Target>().unwrap().backends(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn any_text_is_a_target_or_a_fault_within_it(
            text in "(static:|dns://|dns\\+srv://|file://|etcd://|unix:|)[a-c:#,/0-9 \\[\\]+é]{0,24}",
        ) {
            match text.parse::<Target>() {
                Ok(target) => prop_assert_eq!(target.to_string().parse(), Ok(target)),
                Err(error) => {
                    prop_assert!(error.position() <= text.len());
                    prop_assert!(text.is_char_boundary(error.position()));
                }
            }
        }

        #[test]
        fn an_endpoint_without_commas_and_weights_is_a_target(text in "[a-c:/0-9@.\\[\\]]{0,16}") {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                prop_assert_eq!(text.parse(), Ok(Target::Single(endpoint)));
            }
        }
    }
}
