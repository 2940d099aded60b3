//! Byte streams: addresses, connecting to them, and listening on them.
//!
//! The layers above use an [`IoStream`], regardless of the kind of stream: TCP, a Unix socket,
//! memory, TLS over any of them, or a custom stream of a [`Connector`].

mod endpoint;
mod first;
#[cfg(all(unix, feature = "inherit"))]
mod inherited;
mod listener;
mod memory;
mod proxy_protocol;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

pub use self::endpoint::{Endpoint, EndpointError, ToEndpoint};
use self::first::Rewound;
pub use self::first::read_first;
pub use self::listener::Listener;
#[cfg(all(unix, feature = "inherit"))]
pub(crate) use self::listener::Passable;
#[cfg(unix)]
pub use self::listener::UnixSocketListener;
pub(crate) use self::memory::pipe;
pub use self::memory::{MemoryConnector, MemoryListener, memory};
pub use self::proxy_protocol::ProxyProtocol;
pub(crate) use self::proxy_protocol::read_header;

/// Maximum number of connections that the kernel, or a memory listener, queues for a server that
/// has not accepted them yet.
const BACKLOG: u32 = 1024;

/// Idle time after which the kernel checks whether the peer's machine is still reachable.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);

/// A byte stream that can carry a connection. Implemented for every suitable type.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// The byte stream of one connection.
///
/// TCP, Unix sockets and in-memory streams are stored unboxed, so that reading and writing needs no
/// dynamic call and no second allocation; [`IoStream::new`] accepts any other stream.
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
    /// Creates a stream from a custom one, which is boxed once.
    pub fn new(io: impl Io) -> Self {
        Self {
            inner: Inner::Other(Box::new(io)),
        }
    }

    /// Returns the address of the peer, if this is TCP or TLS over TCP.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        match &self.inner {
            Inner::Tcp(stream) => stream.peer_addr().ok(),
            #[cfg(feature = "tls")]
            Inner::Tls(stream) => stream.get_ref().0.peer_addr(),
            _ => None,
        }
    }

    /// Puts bytes back that were read from the stream: they are read again first. The result has no
    /// [`peer_addr`](Self::peer_addr).
    #[must_use]
    pub fn rewound(self, first: Bytes) -> Self {
        Self::new(Rewound::new(first, self))
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
    /// Keeps the socket options of the stream; Nagle's algorithm should be off
    /// (`set_nodelay(true)`).
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

/// A byte stream that is ready for its first frame, and information about the peer.
#[derive(Debug)]
pub struct Connected {
    /// The stream.
    pub io: IoStream,
    /// The peer's address, if it has one.
    pub addr: Option<SocketAddr>,
    /// The verified certificate of the peer, then the chain that it sent with it, in DER; empty
    /// without TLS.
    pub certificates: Vec<Vec<u8>>,
}

impl Connected {
    /// Creates a connection with the peer address of the stream, and without certificates.
    pub fn new(io: impl Into<IoStream>) -> Self {
        let io = io.into();
        Self {
            addr: io.peer_addr(),
            io,
            certificates: Vec::new(),
        }
    }
}

/// The future that [`Connector::connect`] returns.
pub type ConnectFuture<'a> = Pin<Box<dyn Future<Output = io::Result<Connected>> + Send + 'a>>;

/// Connects to a server with a new byte stream each time: at first, and again whenever the old one
/// is lost.
///
/// [`Endpoint`] is the usual implementation. Write a custom one to use a proxy, a tunnel, or
/// memory:
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
    /// Connects once. Dropping the future cancels the attempt; the caller applies the time limit.
    fn connect(&self) -> ConnectFuture<'_>;

    /// Returns the destination, for errors and logs.
    fn describe(&self) -> String;

    /// Returns the host that a TLS certificate must contain unless the configuration names another;
    /// `None` if there is none.
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

/// Number of bytes that the kernel buffers before they are sent: by default it would be megabytes,
/// and every call would have to wait for them.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT_BYTES: u32 = 256 * 1024;

/// Sets the socket options: small frames are sent at once, and a peer whose machine has vanished is
/// noticed. Buffer sizes are left to the kernel: it adapts them to the connection, and a fixed size
/// turns that off.
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
    let socket = SockRef::from(stream);
    // If the kernel does not support this, calls wait longer, but nothing else changes.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES);
    socket.set_tcp_keepalive(&keepalive)
}

/// Looks up a host by the resolver of the operating system, which takes a thread meanwhile.
pub(crate) async fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    match tokio::net::lookup_host((host, port)).await {
        Ok(found) => Ok(found.collect()),
        Err(error) => Err(explain(&error, format_args!("cannot look up `{host}`"))),
    }
}

#[cfg(not(unix))]
fn no_unix_sockets(endpoint: &Endpoint) -> io::Error {
    let reason = format!("{endpoint}: this platform has no unix sockets, use `host:port`");
    io::Error::new(io::ErrorKind::Unsupported, reason)
}

/// Returns an error of the same kind whose text begins with what was tried.
fn explain(error: &io::Error, what: fmt::Arguments<'_>) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
