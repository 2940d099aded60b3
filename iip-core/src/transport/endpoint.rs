//! Addresses, and connecting to them.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::task::JoinSet;

#[cfg(not(unix))]
use super::no_unix_sockets;
use super::{ConnectFuture, Connected, Connector, explain, look_up, tune};

/// Time for which one address of a name may stay silent before the next one is tried in parallel.
/// Source: RFC 8305, 5.
pub(super) const HEAD_START: Duration = Duration::from_millis(250);

/// `true` if this platform has abstract Unix sockets.
const HAS_ABSTRACT: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Returns an abstract name as system calls expect it: a path that begins with a NUL.
#[cfg(unix)]
pub(super) fn abstract_path(name: &str) -> PathBuf {
    PathBuf::from(format!("\0{name}"))
}

/// An address to connect to or to listen on: `host:port`, `[::1]:port`, `tcp://host:port`,
/// `unix:/path`, or `unix:@name` for an abstract Unix socket of Linux, which has no file.
///
/// ```
/// use iip_core::transport::Endpoint;
///
/// let endpoint: Endpoint = "tcp://localhost:9000".parse()?;
/// assert_eq!(endpoint.to_string(), "localhost:9000");
/// assert_eq!(endpoint.host(), Some("localhost"));
/// assert!("localhost".parse::<Endpoint>().is_err());
/// # Ok::<(), iip_core::transport::EndpointError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Endpoint {
    /// A TCP port of a host.
    Tcp {
        /// A name or an IP address, without brackets.
        host: String,
        /// The port; 0 when listening lets the system choose.
        port: u16,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// The name of an abstract Unix socket, without the `@`. Only available on Linux.
    Abstract(String),
}

/// The error of a text that is not an [`Endpoint`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The text is empty.
    #[error("address is empty, write `host:port` or `unix:/path`")]
    Empty,
    /// The scheme before `://` is unknown.
    #[error(
        "address `{address}` starts with `{scheme}://`, only `tcp://` and `unix:` are supported"
    )]
    UnknownScheme {
        /// The whole text.
        address: String,
        /// The scheme.
        scheme: String,
    },
    /// There is no port at the end.
    #[error("address `{address}` has no port, write `{address}:9000`")]
    NoPort {
        /// The whole text.
        address: String,
    },
    /// The port is not a number up to 65535.
    #[error("port `{port}` of address `{address}` is not a number from 0 to 65535")]
    BadPort {
        /// The whole text.
        address: String,
        /// The text of the port.
        port: String,
    },
    /// There is no host before the port.
    #[error(
        "address `{address}` has no host, write `0.0.0.0:port` or `[::]:port` to listen on every \
         interface"
    )]
    NoHost {
        /// The whole text.
        address: String,
    },
    /// There are colons outside brackets, or the text in brackets is not an IPv6 address.
    #[error("host of address `{address}` is not valid, write an IPv6 address as `[::1]:port`")]
    BadHost {
        /// The whole text.
        address: String,
    },
    /// There is nothing after `unix:` or `unix:@`.
    #[error("address `{address}` has no path, write `unix:/path`")]
    NoPath {
        /// The whole text.
        address: String,
    },
    /// The address is that of an abstract Unix socket, which this platform does not support.
    #[error(
        "address `{address}` is that of an abstract socket, which only Linux supports; write \
         `unix:./@name` for a file of such a name"
    )]
    NoAbstract {
        /// The whole text.
        address: String,
    },
}

impl From<std::convert::Infallible> for EndpointError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// A value that names an address to connect to or to listen on: a text such as `"127.0.0.1:9000"`,
/// a [`SocketAddr`], or an [`Endpoint`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an address",
    note = "write a string such as \"127.0.0.1:9000\" or \"unix:/path\", or pass a `SocketAddr`"
)]
pub trait ToEndpoint {
    /// Returns the address.
    ///
    /// # Errors
    ///
    /// Fails if a text is not an address.
    fn to_endpoint(&self) -> Result<Endpoint, EndpointError>;
}

impl ToEndpoint for str {
    fn to_endpoint(&self) -> Result<Endpoint, EndpointError> {
        self.parse()
    }
}

impl ToEndpoint for String {
    fn to_endpoint(&self) -> Result<Endpoint, EndpointError> {
        self.parse()
    }
}

impl ToEndpoint for SocketAddr {
    fn to_endpoint(&self) -> Result<Endpoint, EndpointError> {
        Ok((*self).into())
    }
}

/// A host and a port.
impl ToEndpoint for (&str, u16) {
    fn to_endpoint(&self) -> Result<Endpoint, EndpointError> {
        let (host, port) = *self;
        let literal = host.split_once('%').map_or(host, |(literal, _)| literal);
        if literal.parse::<Ipv6Addr>().is_ok() {
            format!("[{host}]:{port}").parse()
        } else {
            format!("{host}:{port}").parse()
        }
    }
}

impl ToEndpoint for Endpoint {
    fn to_endpoint(&self) -> Result<Endpoint, EndpointError> {
        Ok(self.clone())
    }
}

impl<T: ToEndpoint + ?Sized> ToEndpoint for &T {
    fn to_endpoint(&self) -> Result<Endpoint, EndpointError> {
        (**self).to_endpoint()
    }
}

impl<T: ToEndpoint + ?Sized> ToEndpoint for Box<T> {
    fn to_endpoint(&self) -> Result<Endpoint, EndpointError> {
        (**self).to_endpoint()
    }
}

impl<T: ToEndpoint + ?Sized> ToEndpoint for Arc<T> {
    fn to_endpoint(&self) -> Result<Endpoint, EndpointError> {
        (**self).to_endpoint()
    }
}

impl<T: ToEndpoint + ToOwned + ?Sized> ToEndpoint for Cow<'_, T> {
    fn to_endpoint(&self) -> Result<Endpoint, EndpointError> {
        (**self).to_endpoint()
    }
}

impl Endpoint {
    /// Returns the host to connect to, `None` for a Unix socket.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Tcp { host, .. } => Some(host),
            Self::Unix(_) | Self::Abstract(_) => None,
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if text.is_empty() {
            return Err(EndpointError::Empty);
        }
        let address = || text.to_owned();
        if let Some(path) = text.strip_prefix("unix:") {
            // `unix:///path` is the same as `unix:/path`.
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path.strip_prefix('@') {
                _ if path.is_empty() => Err(EndpointError::NoPath { address: address() }),
                None => Ok(Self::Unix(PathBuf::from(path))),
                Some("") => Err(EndpointError::NoPath { address: address() }),
                Some(_) if !HAS_ABSTRACT => Err(EndpointError::NoAbstract { address: address() }),
                Some(name) => Ok(Self::Abstract(name.to_owned())),
            };
        }
        let rest = match text.split_once("://") {
            Some(("tcp", rest)) => rest,
            Some((scheme, _)) => {
                return Err(EndpointError::UnknownScheme {
                    address: address(),
                    scheme: scheme.to_owned(),
                });
            }
            None => text,
        };
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, behind) = rest
                    .split_once(']')
                    .ok_or_else(|| EndpointError::BadHost { address: address() })?;
                // In `fe80::1%eth0`, the zone is interpreted by the operating system.
                let literal = host.split_once('%').map_or(host, |(literal, _)| literal);
                if literal.parse::<Ipv6Addr>().is_err() {
                    return Err(EndpointError::BadHost { address: address() });
                }
                let port = behind
                    .strip_prefix(':')
                    .ok_or_else(|| EndpointError::NoPort { address: address() })?;
                (host, port)
            }
            None => rest
                .rsplit_once(':')
                .ok_or_else(|| EndpointError::NoPort { address: address() })?,
        };
        if host.is_empty() {
            return Err(EndpointError::NoHost { address: address() });
        }
        if host.contains(':') && !rest.starts_with('[') {
            return Err(EndpointError::BadHost { address: address() });
        }
        // `u16::from_str` would also accept `+80`.
        match port.parse() {
            Ok(port_number) if !port.starts_with('+') => Ok(Self::Tcp {
                host: host.to_owned(),
                port: port_number,
            }),
            _ => Err(EndpointError::BadPort {
                address: address(),
                port: port.to_owned(),
            }),
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        let host = match addr {
            SocketAddr::V6(addr) if addr.scope_id() != 0 => {
                format!("{}%{}", addr.ip(), addr.scope_id())
            }
            _ => addr.ip().to_string(),
        };
        Self::Tcp {
            host,
            port: addr.port(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Abstract(name) => write!(f, "unix:@{name}"),
        }
    }
}

impl Connector for Endpoint {
    fn connect(&self) -> ConnectFuture<'_> {
        Box::pin(async move {
            match self {
                Self::Tcp { host, port } => {
                    let addresses = look_up(host, *port).await?;
                    let stream = match addresses[..] {
                        // The caller knows the address, so the error does not need it.
                        [only] if only.to_string() == self.to_string() => {
                            TcpStream::connect(only).await?
                        }
                        _ => first_to_connect(addresses, TcpStream::connect).await?,
                    };
                    tune(&stream)?;
                    Ok(Connected::new(stream))
                }
                #[cfg(unix)]
                Self::Unix(path) => UnixStream::connect(path).await.map(Connected::new),
                #[cfg(unix)]
                Self::Abstract(name) => UnixStream::connect(abstract_path(name))
                    .await
                    .map(Connected::new),
                #[cfg(not(unix))]
                Self::Unix(_) | Self::Abstract(_) => Err(no_unix_sockets(self)),
            }
        })
    }

    fn describe(&self) -> String {
        self.to_string()
    }

    fn host(&self) -> Option<&str> {
        Self::host(self)
    }
}

/// Tries the addresses of one host in order. If one fails, the next is tried at once; if one is
/// silent, the next is tried in parallel, so that a dead address costs 250 ms and not the whole
/// time limit.
pub(super) async fn first_to_connect<T, F, C>(
    addresses: Vec<SocketAddr>,
    connect: F,
) -> io::Result<T>
where
    T: Send + 'static,
    F: Fn(SocketAddr) -> C,
    C: Future<Output = io::Result<T>> + Send + 'static,
{
    let told = |addr: SocketAddr, error: &io::Error| explain(error, format_args!("{addr}"));
    if let [addr] = addresses[..] {
        return connect(addr).await.map_err(|error| told(addr, &error));
    }
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    // Dropping the set, when this returns or is dropped, ends the remaining attempts.
    let mut attempts = JoinSet::new();
    let mut addresses = addresses.into_iter();
    loop {
        match addresses.next() {
            Some(addr) => {
                let attempt = connect(addr);
                attempts.spawn(async move { attempt.await.map_err(|error| told(addr, &error)) });
            }
            None if attempts.is_empty() => return Err(failure),
            None => {}
        }
        tokio::select! {
            biased;
            Some(ended) = attempts.join_next() => match ended {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failure = error,
                Err(error) => failure = io::Error::other(error),
            },
            () = tokio::time::sleep(HEAD_START), if addresses.len() > 0 => {}
        }
    }
}
