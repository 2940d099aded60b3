//! Byte streams: what an address means, connecting to it, listening on it.
//!
//! Everything above this file sees an [`IoStream`] and does not care what is below it: TCP, a Unix socket, memory, TLS
//! over any of them, or a stream of your own behind a [`Connector`].

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Connections the kernel, or a memory listener, keeps ready for a server that has not accepted them yet.
const BACKLOG: u32 = 1024;

/// Bytes an in-memory connection holds in each direction before its writer waits. Allocated as they are needed.
const MEMORY_BUFFER_BYTES: usize = 64 * 1024;

/// How long one address of a name may stay silent before the next one is tried beside it. Source: RFC 8305, 5.
const HEAD_START: Duration = Duration::from_millis(250);

/// Silence after which the kernel asks whether the peer's machine is still there.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);

/// Any byte stream that can carry a connection. Implemented by every type that can.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// The byte stream of one connection.
///
/// TCP, Unix sockets and memory are kept as they are, so that reading and writing needs no dynamic call and no second
/// allocation; [`IoStream::new`] takes anything else.
///
/// ```
/// use iip_core::transport::IoStream;
///
/// let (near, far) = tokio::io::duplex(1024);
/// let ours = IoStream::from(near);
/// let theirs = IoStream::new(tokio::io::join(tokio::io::empty(), far));
/// ```
pub struct IoStream {
    inner: Inner,
}

enum Inner {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    Memory(DuplexStream),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::TlsStream<IoStream>>),
    Other(Box<dyn Io>),
}

impl IoStream {
    /// Carries a connection over a stream of your own, which is boxed once.
    pub fn new(io: impl Io) -> Self {
        Self {
            inner: Inner::Other(Box::new(io)),
        }
    }

    /// The address of the peer, when this is TCP or TLS over TCP.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        match &self.inner {
            Inner::Tcp(stream) => stream.peer_addr().ok(),
            #[cfg(feature = "tls")]
            Inner::Tls(stream) => stream.get_ref().0.peer_addr(),
            _ => None,
        }
    }

    #[cfg(feature = "tls")]
    pub(crate) fn over_tls(stream: tokio_rustls::TlsStream<Self>) -> Self {
        Self {
            inner: Inner::Tls(Box::new(stream)),
        }
    }

    #[cfg(all(test, feature = "tls"))]
    pub(crate) fn tls_session(&self) -> Option<&rustls::CommonState> {
        match &self.inner {
            Inner::Tls(stream) => Some(stream.get_ref().1),
            _ => None,
        }
    }
}

impl From<TcpStream> for IoStream {
    /// Takes the stream with the options it has; Nagle's algorithm should be off (`set_nodelay(true)`).
    fn from(stream: TcpStream) -> Self {
        Self {
            inner: Inner::Tcp(stream),
        }
    }
}

#[cfg(unix)]
impl From<UnixStream> for IoStream {
    fn from(stream: UnixStream) -> Self {
        Self {
            inner: Inner::Unix(stream),
        }
    }
}

impl From<DuplexStream> for IoStream {
    fn from(stream: DuplexStream) -> Self {
        Self {
            inner: Inner::Memory(stream),
        }
    }
}

impl fmt::Debug for IoStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.inner {
            Inner::Tcp(_) => "tcp",
            #[cfg(unix)]
            Inner::Unix(_) => "unix",
            Inner::Memory(_) => "memory",
            #[cfg(feature = "tls")]
            Inner::Tls(stream) => {
                return f
                    .debug_tuple("IoStream")
                    .field(&"tls")
                    .field(stream.get_ref().0)
                    .finish();
            }
            Inner::Other(_) => "other",
        };
        f.debug_tuple("IoStream").field(&kind).finish()
    }
}

macro_rules! forward {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.get_mut().inner {
            Inner::Tcp(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            #[cfg(unix)]
            Inner::Unix(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Inner::Memory(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            #[cfg(feature = "tls")]
            Inner::Tls(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
            Inner::Other(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for IoStream {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        forward!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for IoStream {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        forward!(self, stream => stream.poll_write(cx, bytes))
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self, stream => stream.poll_write_vectored(cx, slices))
    }

    #[inline]
    fn is_write_vectored(&self) -> bool {
        match &self.inner {
            Inner::Tcp(stream) => stream.is_write_vectored(),
            #[cfg(unix)]
            Inner::Unix(stream) => stream.is_write_vectored(),
            Inner::Memory(stream) => stream.is_write_vectored(),
            #[cfg(feature = "tls")]
            Inner::Tls(stream) => stream.is_write_vectored(),
            Inner::Other(stream) => stream.is_write_vectored(),
        }
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => stream.poll_flush(cx))
    }

    #[inline]
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => stream.poll_shutdown(cx))
    }
}

/// A byte stream that is ready for its first frame, and what is known of the peer behind it.
#[derive(Debug)]
pub struct Connected {
    /// The stream.
    pub io: IoStream,
    /// The peer's address, when it has one.
    pub addr: Option<SocketAddr>,
    /// The verified certificate of the peer, then the chain it sent with it, in DER; empty without TLS.
    pub certificates: Vec<Vec<u8>>,
}

impl Connected {
    /// A stream with the address it knows itself, and no certificates.
    pub fn new(io: impl Into<IoStream>) -> Self {
        let io = io.into();
        Self {
            addr: io.peer_addr(),
            io,
            certificates: Vec::new(),
        }
    }
}

/// What [`Connector::connect`] returns.
pub type ConnectFuture<'a> = Pin<Box<dyn Future<Output = io::Result<Connected>> + Send + 'a>>;

/// Makes a new byte stream to the server each time it is asked: at first, and again whenever the old one is lost.
///
/// [`Endpoint`] is the usual one. Write your own to go through a proxy, a tunnel, or memory:
///
/// ```
/// use iip_core::transport::{ConnectFuture, Connected, Connector, IoStream};
///
/// #[derive(Debug)]
/// struct Loopback;
///
/// impl Connector for Loopback {
///     fn connect(&self) -> ConnectFuture<'_> {
///         Box::pin(async {
///             let (near, far) = tokio::io::duplex(1024);
///             // .. give `far` to a server ..
///             # drop(far);
///             Ok(Connected::new(near))
///         })
///     }
///
///     fn describe(&self) -> String {
///         "loopback".to_owned()
///     }
/// }
/// ```
pub trait Connector: Send + Sync + fmt::Debug + 'static {
    /// Connects once. Dropping the future gives up; the caller puts the time limit around it.
    fn connect(&self) -> ConnectFuture<'_>;

    /// Where to, for errors and logs.
    fn describe(&self) -> String;

    /// The host that a TLS certificate must name unless the configuration names another; `None` when there is none.
    fn host(&self) -> Option<&str> {
        None
    }
}

impl<C: Connector + ?Sized> Connector for Arc<C> {
    fn connect(&self) -> ConnectFuture<'_> {
        (**self).connect()
    }

    fn describe(&self) -> String {
        (**self).describe()
    }

    fn host(&self) -> Option<&str> {
        (**self).host()
    }
}

/// An address to connect to or to listen on: `host:port`, `[::1]:port`, `tcp://host:port` or `unix:/path`.
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
}

/// Why a text is no [`Endpoint`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The text is empty.
    #[error("address is empty, write `host:port` or `unix:/path`")]
    Empty,
    /// Something else stands before `://`.
    #[error("address `{address}` starts with `{scheme}://`, only `tcp://` and `unix:` are known")]
    UnknownScheme {
        /// The whole text.
        address: String,
        /// What stands there.
        scheme: String,
    },
    /// No port at the end.
    #[error("address `{address}` has no port, write `{address}:9000`")]
    NoPort {
        /// The whole text.
        address: String,
    },
    /// The port is no number up to 65535.
    #[error("port `{port}` of address `{address}` is not a number from 0 to 65535")]
    BadPort {
        /// The whole text.
        address: String,
        /// What stands there.
        port: String,
    },
    /// Nothing before the port.
    #[error(
        "address `{address}` has no host, write `0.0.0.0:port` or `[::]:port` to listen on every interface"
    )]
    NoHost {
        /// The whole text.
        address: String,
    },
    /// Colons outside brackets, or something else than an IPv6 address inside them.
    #[error("host of address `{address}` is not valid, write an IPv6 address as `[::1]:port`")]
    BadHost {
        /// The whole text.
        address: String,
    },
    /// Nothing behind `unix:`.
    #[error("address `{address}` has no path, write `unix:/path`")]
    NoPath {
        /// The whole text.
        address: String,
    },
}

impl Endpoint {
    /// The host to connect to, `None` for a Unix socket.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Tcp { host, .. } => Some(host),
            Self::Unix(_) => None,
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
            return if path.is_empty() {
                Err(EndpointError::NoPath { address: address() })
            } else {
                Ok(Self::Unix(PathBuf::from(path)))
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
                // `fe80::1%eth0`: the zone is the system's business.
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
        // `u16::from_str` would also take `+80`.
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
        }
    }
}

impl Connector for Endpoint {
    fn connect(&self) -> ConnectFuture<'_> {
        Box::pin(async move {
            match self {
                Self::Tcp { host, port } => {
                    let stream =
                        first_to_connect(look_up(host, *port).await?, TcpStream::connect).await?;
                    tune(&stream)?;
                    Ok(Connected::new(stream))
                }
                #[cfg(unix)]
                Self::Unix(path) => match UnixStream::connect(path).await {
                    Ok(stream) => Ok(Connected::new(stream)),
                    Err(error) => Err(explain(&error, format_args!("cannot connect to {self}"))),
                },
                #[cfg(not(unix))]
                Self::Unix(_) => Err(no_unix_sockets(self)),
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

/// Waits for connections at one address.
///
/// Dropping it frees the address; the file of a Unix socket is removed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Listener {
    /// A TCP port.
    Tcp(TcpListener),
    /// A Unix socket.
    #[cfg(unix)]
    Unix(UnixSocketListener),
    /// Connections made by a [`MemoryConnector`].
    Memory(MemoryListener),
}

impl Listener {
    /// Listens on `endpoint`; connections arrive from here on, even before the first [`accept`](Self::accept).
    ///
    /// TCP: an address that is still in the kernel's closing state may be taken again (`SO_REUSEADDR`); up to 1024
    /// connections wait to be accepted. Unix: the file of a server that is gone is replaced, that of a living one and
    /// any other file is not.
    ///
    /// # Errors
    ///
    /// Those of the operating system, with the address in their text.
    pub async fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        let bound = match endpoint {
            Endpoint::Tcp { host, port } => {
                let mut failure = None;
                for addr in look_up(host, *port).await? {
                    match listen_tcp(addr) {
                        Ok(listener) => return Ok(Self::Tcp(listener)),
                        Err(error) => failure = Some(error),
                    }
                }
                Err(failure.unwrap_or_else(|| io::Error::other("the name has no address")))
            }
            #[cfg(unix)]
            Endpoint::Unix(path) => UnixSocketListener::bind(path).await.map(Self::Unix),
            #[cfg(not(unix))]
            Endpoint::Unix(_) => return Err(no_unix_sockets(endpoint)),
        };
        bound.map_err(|error| explain(&error, format_args!("cannot listen on {endpoint}")))
    }

    /// The address it listens on, for TCP: with the port the system chose when 0 was asked for.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            _ => None,
        }
    }

    /// Where it listens, in a form a client can connect to.
    pub fn describe(&self) -> String {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(addr) => addr.to_string(),
                Err(_) => "tcp".to_owned(),
            },
            #[cfg(unix)]
            Self::Unix(listener) => format!("unix:{}", listener.path.display()),
            Self::Memory(_) => "memory".to_owned(),
        }
    }

    /// The next connection. A connection that failed before it was accepted is skipped.
    ///
    /// On a memory listener whose connectors are all gone this waits for ever.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no connection.
    ///
    /// # Errors
    ///
    /// Only what concerns the listener or the whole process, such as too many open files: wait a moment before trying
    /// again, since the connection stays in the queue and the next call would fail at once.
    pub async fn accept(&mut self) -> io::Result<Connected> {
        loop {
            let accepted = match self {
                Self::Tcp(listener) => listener.accept().await.map(|(stream, addr)| {
                    // Fails only when the peer is already gone, which the first read will tell.
                    let _ = tune(&stream);
                    Connected {
                        io: stream.into(),
                        addr: Some(addr),
                        certificates: Vec::new(),
                    }
                }),
                #[cfg(unix)]
                Self::Unix(listener) => listener
                    .listener
                    .accept()
                    .await
                    .map(|(stream, _)| Connected::new(stream)),
                Self::Memory(listener) => match listener.connections.recv().await {
                    Some(stream) => Ok(Connected::new(stream)),
                    None => std::future::pending().await,
                },
            };
            match accepted {
                Err(error) if concerns_one_connection(&error) => {}
                result => return result,
            }
        }
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<MemoryListener> for Listener {
    fn from(listener: MemoryListener) -> Self {
        Self::Memory(listener)
    }
}

/// A Unix socket that removes its file when it is dropped.
#[cfg(unix)]
#[derive(Debug)]
pub struct UnixSocketListener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file, to leave alone what another process put in its place.
    file: Option<(u64, u64)>,
}

#[cfg(unix)]
impl UnixSocketListener {
    async fn bind(path: &std::path::Path) -> io::Result<Self> {
        let listener = match listen_unix(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale_socket(path).await?;
                listen_unix(path)?
            }
            result => result?,
        };
        Ok(Self {
            listener,
            path: path.to_owned(),
            file: file_identity(path),
        })
    }
}

#[cfg(unix)]
impl Drop for UnixSocketListener {
    fn drop(&mut self) {
        if self.file.is_some() && file_identity(&self.path) == self.file {
            // A file that cannot be removed is found stale by the next server.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A listener and a connector that meet in memory: a server and its clients in one process, for tests.
///
/// Up to 1024 connections wait to be accepted; further ones wait for room.
///
/// ```
/// use iip_core::transport::{Connector, Listener, memory};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// let (connector, listener) = memory();
/// let mut listener = Listener::from(listener);
/// let near = connector.connect().await?;
/// let far = listener.accept().await?;
/// # drop((near, far)); Ok(()) }
/// ```
pub fn memory() -> (MemoryConnector, MemoryListener) {
    let (sender, receiver) = mpsc::channel(BACKLOG as usize);
    (
        MemoryConnector { listener: sender },
        MemoryListener {
            connections: receiver,
        },
    )
}

/// Connects to the [`MemoryListener`] it was made with. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct MemoryConnector {
    listener: mpsc::Sender<DuplexStream>,
}

impl Connector for MemoryConnector {
    fn connect(&self) -> ConnectFuture<'_> {
        Box::pin(async {
            let (near, far) = tokio::io::duplex(MEMORY_BUFFER_BYTES);
            match self.listener.send(far).await {
                Ok(()) => Ok(Connected::new(near)),
                Err(_) => Err(io::Error::new(
                    io::ErrorKind::ConnectionRefused,
                    "the in-memory server is gone",
                )),
            }
        })
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}

/// Gets the connections of its [`MemoryConnector`]s; becomes a [`Listener`].
#[derive(Debug)]
pub struct MemoryListener {
    connections: mpsc::Receiver<DuplexStream>,
}

async fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    match tokio::net::lookup_host((host, port)).await {
        Ok(found) => Ok(found.collect()),
        Err(error) => Err(explain(&error, format_args!("cannot look up `{host}`"))),
    }
}

/// Tries the addresses of one host in order. One that fails is followed at once by the next, one that is silent keeps
/// trying beside it, so that a dead address costs 250 ms and not the whole time limit.
async fn first_to_connect<T, F, C>(addresses: Vec<SocketAddr>, connect: F) -> io::Result<T>
where
    T: Send + 'static,
    F: Fn(SocketAddr) -> C,
    C: Future<Output = io::Result<T>> + Send + 'static,
{
    let told = |addr: SocketAddr, error: &io::Error| {
        explain(error, format_args!("cannot connect to {addr}"))
    };
    if let [addr] = addresses[..] {
        return connect(addr).await.map_err(|error| told(addr, &error));
    }
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    // Dropping the set, by returning or from outside, ends the attempts that are left.
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
            Some(ended) = attempts.join_next() => match ended {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failure = error,
                Err(error) => failure = io::Error::other(error),
            },
            () = tokio::time::sleep(HEAD_START), if addresses.len() > 0 => {}
        }
    }
}

/// Small frames leave at once, and a peer whose machine has vanished is noticed. Buffer sizes are the kernel's business:
/// it adapts them to the connection, and a fixed size switches that off.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_TIME);
    #[cfg(any(
        target_os = "linux",
        target_os = "android",
        target_os = "macos",
        target_os = "ios",
        windows
    ))]
    let keepalive = keepalive.with_interval(KEEPALIVE_TIME / 4);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

fn listen_tcp(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // On Windows this option would let another process take over a port in use.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

#[cfg(unix)]
fn listen_unix(path: &std::path::Path) -> io::Result<UnixListener> {
    let socket = tokio::net::UnixSocket::new_stream()?;
    socket.bind(path)?;
    socket.listen(BACKLOG)
}

/// Removes the socket file of a server that is gone; an error when `path` is anything else.
#[cfg(unix)]
async fn remove_stale_socket(path: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;

    let in_use = |reason| Err(io::Error::new(io::ErrorKind::AddrInUse, reason));
    let Some(found) = file_identity(path) else {
        return Ok(());
    };
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return in_use("a file that is no socket has this name");
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        _ => return in_use("another server listens there"),
    }
    if file_identity(path) != Some(found) {
        return in_use("another server started there at the same time");
    }
    std::fs::remove_file(path)
}

#[cfg(unix)]
fn file_identity(path: &std::path::Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;

    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn no_unix_sockets(endpoint: &Endpoint) -> io::Error {
    let reason = format!("{endpoint}: this platform has no unix sockets, use `host:port`");
    io::Error::new(io::ErrorKind::Unsupported, reason)
}

/// Errors of `accept` that came with one connection; see accept(2), "Error handling".
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted,
        NetworkDown, NetworkUnreachable, PermissionDenied, TimedOut,
    };

    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            // A firewall rule forbids this one (Linux).
            | PermissionDenied
            | TimedOut
    )
}

/// The same kind of error, with what was tried in front of it.
fn explain(error: &io::Error, what: fmt::Arguments<'_>) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;

    async fn listen(text: &str) -> (Listener, Endpoint) {
        let listener = Listener::bind(&text.parse().unwrap()).await.unwrap();
        let endpoint = listener.describe().parse().unwrap();
        (listener, endpoint)
    }

    async fn exchange(near: &mut IoStream, far: &mut IoStream) {
        let slices = [io::IoSlice::new(b"he"), io::IoSlice::new(b"llo")];
        assert!(near.is_write_vectored());
        assert_eq!(near.write_vectored(&slices).await.unwrap(), 5);
        near.flush().await.unwrap();
        near.shutdown().await.unwrap();
        let mut received = String::new();
        far.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "hello");
        far.write_all(b"back").await.unwrap();
        let mut answer = [0; 4];
        near.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"back");
    }

    #[test]
    fn endpoints_are_read_and_written() {
        let table = [
            ("127.0.0.1:9000", "127.0.0.1:9000", Some("127.0.0.1")),
            ("localhost:0", "localhost:0", Some("localhost")),
            ("tcp://h:65535", "h:65535", Some("h")),
            ("[::1]:1", "[::1]:1", Some("::1")),
            ("tcp://[::1]:1", "[::1]:1", Some("::1")),
            ("[fe80::1%eth0]:1", "[fe80::1%eth0]:1", Some("fe80::1%eth0")),
            ("unix:/run/iip", "unix:/run/iip", None),
            ("unix:///run/iip", "unix:/run/iip", None),
            ("unix:relative", "unix:relative", None),
        ];
        for (text, shown, host) in table {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(endpoint.host(), host);
            assert_eq!(shown.parse::<Endpoint>().unwrap(), endpoint);
        }
        for addr in ["127.0.0.1:9000", "[::1]:9000", "[fe80::1%3]:9000"] {
            let endpoint = Endpoint::from(addr.parse::<SocketAddr>().unwrap());
            assert_eq!(endpoint.to_string(), addr);
        }
    }

    #[test]
    fn a_bad_endpoint_is_refused_with_what_to_write_instead() {
        let table = [
            ("", "address is empty, write `host:port` or `unix:/path`"),
            (
                "localhost",
                "address `localhost` has no port, write `localhost:9000`",
            ),
            ("[::1]", "address `[::1]` has no port, write `[::1]:9000`"),
            (
                "h:",
                "port `` of address `h:` is not a number from 0 to 65535",
            ),
            (
                "h:http",
                "port `http` of address `h:http` is not a number from 0 to 65535",
            ),
            (
                "h:65536",
                "port `65536` of address `h:65536` is not a number from 0 to 65535",
            ),
            (
                "h:+80",
                "port `+80` of address `h:+80` is not a number from 0 to 65535",
            ),
            (
                "h:80/",
                "port `80/` of address `h:80/` is not a number from 0 to 65535",
            ),
            (
                ":80",
                "address `:80` has no host, write `0.0.0.0:port` or `[::]:port` to listen on every interface",
            ),
            (
                "::1:80",
                "host of address `::1:80` is not valid, write an IPv6 address as `[::1]:port`",
            ),
            (
                "[h]:80",
                "host of address `[h]:80` is not valid, write an IPv6 address as `[::1]:port`",
            ),
            (
                "[::1:80",
                "host of address `[::1:80` is not valid, write an IPv6 address as `[::1]:port`",
            ),
            (
                "http://h:80",
                "address `http://h:80` starts with `http://`, only `tcp://` and `unix:` are known",
            ),
            ("unix:", "address `unix:` has no path, write `unix:/path`"),
        ];
        for (text, expected) in table {
            assert_eq!(
                text.parse::<Endpoint>().unwrap_err().to_string(),
                expected,
                "{text}"
            );
        }
    }

    #[tokio::test]
    async fn tcp_carries_bytes_both_ways_without_delay() {
        let (mut listener, endpoint) = listen("127.0.0.1:0").await;
        assert_ne!(listener.local_addr().unwrap().port(), 0);
        let (near, far) = tokio::join!(endpoint.connect(), listener.accept());
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        assert_eq!(near.addr, listener.local_addr());
        assert_eq!(far.addr.unwrap().ip(), listener.local_addr().unwrap().ip());
        for connected in [&near, &far] {
            let Inner::Tcp(stream) = &connected.io.inner else {
                panic!("not tcp")
            };
            assert!(stream.nodelay().unwrap());
            assert!(SockRef::from(stream).keepalive().unwrap());
        }
        exchange(&mut near.io, &mut far.io).await;
    }

    #[tokio::test]
    async fn a_port_nobody_listens_on_is_refused_with_the_address_in_the_text() {
        let (listener, endpoint) = listen("127.0.0.1:0").await;
        drop(listener);
        let error = endpoint.connect().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(
            error
                .to_string()
                .starts_with(&format!("cannot connect to {endpoint}: ")),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_port_in_use_is_an_error_that_names_the_address() {
        let (_listener, endpoint) = listen("127.0.0.1:0").await;
        let error = Listener::bind(&endpoint).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(
            error
                .to_string()
                .starts_with(&format!("cannot listen on {endpoint}: ")),
            "{error}"
        );
    }

    #[tokio::test]
    async fn memory_carries_bytes_both_ways_and_ends_with_its_listener() {
        let (connector, listener) = memory();
        let mut listener = Listener::from(listener);
        let mut near = connector.connect().await.unwrap();
        let mut far = listener.accept().await.unwrap();
        exchange(&mut near.io, &mut far.io).await;
        drop(listener);
        let error = connector.connect().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_connections_beyond_the_backlog_wait_for_room() {
        let (connector, listener) = memory();
        let mut listener = Listener::from(listener);
        let mut held = Vec::new();
        for _ in 0..BACKLOG {
            held.push(connector.connect().await.unwrap());
        }
        tokio::time::timeout(Duration::from_secs(1), connector.connect())
            .await
            .unwrap_err();
        listener.accept().await.unwrap();
        connector.connect().await.unwrap();
    }

    #[tokio::test]
    async fn a_stream_of_ones_own_carries_bytes() {
        let (near, far) = tokio::io::duplex(64);
        exchange(&mut IoStream::new(near), &mut IoStream::new(far)).await;
    }

    fn addresses(count: u16) -> Vec<SocketAddr> {
        (1..=count)
            .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_is_overtaken_by_the_next() {
        let start = Instant::now();
        let connected = first_to_connect(addresses(3), |addr| async move {
            match addr.port() {
                1 => std::future::pending().await,
                2 => Err(io::ErrorKind::ConnectionRefused.into()),
                port => Ok(port),
            }
        });
        assert_eq!(connected.await.unwrap(), 3);
        assert_eq!(start.elapsed(), HEAD_START);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_first_address_still_wins_over_dead_ones() {
        let connected = first_to_connect(addresses(3), |addr| async move {
            match addr.port() {
                1 => {
                    tokio::time::sleep(HEAD_START * 8).await;
                    Ok(1)
                }
                _ => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        });
        assert_eq!(connected.await.unwrap(), 1);
    }

    #[tokio::test]
    async fn when_every_address_fails_the_last_failure_is_told() {
        let connected = first_to_connect(addresses(2), |_| async {
            io::Result::<()>::Err(io::ErrorKind::ConnectionRefused.into())
        });
        let error = connected.await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot connect to 127.0.0.1:2: connection refused"
        );
        let none = first_to_connect(Vec::new(), TcpStream::connect)
            .await
            .unwrap_err();
        assert_eq!(none.to_string(), "the name has no address");
    }

    #[cfg(unix)]
    mod unix {
        use super::*;

        /// A directory of its own that is removed at the end.
        struct Folder(PathBuf);

        impl Folder {
            fn new(name: &str) -> Self {
                let path = std::env::temp_dir().join(format!("iip-{}-{name}", std::process::id()));
                std::fs::create_dir_all(&path).unwrap();
                Self(path)
            }

            fn endpoint(&self) -> Endpoint {
                Endpoint::Unix(self.0.join("socket"))
            }
        }

        impl Drop for Folder {
            fn drop(&mut self) {
                let _ = std::fs::remove_dir_all(&self.0);
            }
        }

        #[tokio::test]
        async fn a_unix_socket_carries_bytes_and_its_file_goes_with_the_listener() {
            let folder = Folder::new("carries");
            let endpoint = folder.endpoint();
            let mut listener = Listener::bind(&endpoint).await.unwrap();
            assert_eq!(listener.describe(), endpoint.to_string());
            assert_eq!(listener.local_addr(), None);
            let (near, far) = tokio::join!(endpoint.connect(), listener.accept());
            let (mut near, mut far) = (near.unwrap(), far.unwrap());
            assert_eq!((near.addr, far.addr), (None, None));
            exchange(&mut near.io, &mut far.io).await;
            drop(listener);
            assert!(!folder.0.join("socket").exists());
            let error = endpoint.connect().await.unwrap_err();
            assert!(
                error.to_string().starts_with("cannot connect to unix:/"),
                "{error}"
            );
        }

        #[tokio::test]
        async fn the_file_of_a_dead_server_is_replaced() {
            let folder = Folder::new("stale");
            let endpoint = folder.endpoint();
            // Dropped without removing its file, like a killed process.
            drop(std::os::unix::net::UnixListener::bind(folder.0.join("socket")).unwrap());
            let mut listener = Listener::bind(&endpoint).await.unwrap();
            let (near, far) = tokio::join!(endpoint.connect(), listener.accept());
            exchange(&mut near.unwrap().io, &mut far.unwrap().io).await;
        }

        #[tokio::test]
        async fn the_file_of_a_living_server_and_a_file_that_is_no_socket_stay() {
            let folder = Folder::new("living");
            let endpoint = folder.endpoint();
            let listener = Listener::bind(&endpoint).await.unwrap();
            let error = Listener::bind(&endpoint).await.unwrap_err();
            assert!(
                error.to_string().ends_with("another server listens there"),
                "{error}"
            );
            drop(listener);
            std::fs::write(folder.0.join("socket"), "precious").unwrap();
            let error = Listener::bind(&endpoint).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            assert!(
                error
                    .to_string()
                    .ends_with("a file that is no socket has this name"),
                "{error}"
            );
            assert_eq!(
                std::fs::read_to_string(folder.0.join("socket")).unwrap(),
                "precious"
            );
        }

        #[tokio::test]
        async fn a_listener_does_not_remove_the_file_of_its_successor() {
            let folder = Folder::new("successor");
            let endpoint = folder.endpoint();
            let first = Listener::bind(&endpoint).await.unwrap();
            // The second is bound elsewhere first: a removed file's inode could be given out again.
            let elsewhere = folder.0.join("elsewhere");
            let _second = std::os::unix::net::UnixListener::bind(&elsewhere).unwrap();
            std::fs::rename(&elsewhere, folder.0.join("socket")).unwrap();
            drop(first);
            assert!(folder.0.join("socket").exists());
        }
    }
}
