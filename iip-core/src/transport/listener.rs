//! Listening on an address.

use std::io;
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, TcpSocket};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};

#[cfg(unix)]
use super::endpoint::abstract_path;
#[cfg(not(unix))]
use super::no_unix_sockets;
use super::{BACKLOG, Connected, Endpoint, MemoryListener, explain, look_up, tune};

/// Listener that waits for connections at one address.
///
/// Dropping it frees the address; the file of a Unix socket that was created by
/// [`bind`](Self::bind) is removed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Listener {
    /// A TCP port.
    Tcp(TcpListener),
    /// A Unix socket.
    #[cfg(unix)]
    Unix(UnixSocketListener),
    /// Connections made by a [`MemoryConnector`](super::MemoryConnector).
    Memory(MemoryListener),
}

impl Listener {
    /// Listens on `endpoint`; connections arrive from here on, even before the first
    /// [`accept`](Self::accept).
    ///
    /// TCP: an address that is still in the kernel's closing state may be reused (`SO_REUSEADDR`);
    /// up to 1024 connections wait to be accepted. Unix: the file of a server that has ended is
    /// replaced, that of a running one and any other file is not.
    ///
    /// # Errors
    ///
    /// Fails with the errors of the operating system, with the address in their text.
    pub async fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        Self::bind_with(endpoint, false).await
    }

    /// Like [`bind`](Self::bind); with `reuse_port`, other sockets may listen on the same TCP port.
    pub(crate) async fn bind_with(endpoint: &Endpoint, reuse_port: bool) -> io::Result<Self> {
        if reuse_port && !matches!(endpoint, Endpoint::Tcp { .. }) {
            let reason = format!("reuse_port: {endpoint} is not a TCP port");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let bound = match endpoint {
            Endpoint::Tcp { host, port } => {
                let mut failure = None;
                for addr in look_up(host, *port).await? {
                    match listen_tcp(addr, reuse_port) {
                        Ok(listener) => return Ok(Self::Tcp(listener)),
                        Err(error) => failure = Some(error),
                    }
                }
                Err(failure.unwrap_or_else(|| io::Error::other("the name has no address")))
            }
            #[cfg(unix)]
            Endpoint::Unix(path) => UnixSocketListener::bind(path).await.map(Self::Unix),
            #[cfg(unix)]
            Endpoint::Abstract(name) => {
                listen_unix(&abstract_path(name)).map(|listener| Self::Unix(listener.into()))
            }
            #[cfg(not(unix))]
            Endpoint::Unix(_) | Endpoint::Abstract(_) => return Err(no_unix_sockets(endpoint)),
        };
        bound.map_err(|error| explain(&error, format_args!("cannot listen on {endpoint}")))
    }

    /// Returns the address it listens on, only for TCP: with the port that the system chose if it
    /// was 0.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            _ => None,
        }
    }

    /// Returns the address it listens on, in a form that a client can connect to.
    pub fn describe(&self) -> String {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(addr) => addr.to_string(),
                Err(_) => "tcp".to_owned(),
            },
            #[cfg(unix)]
            Self::Unix(listener) => listener.describe(),
            Self::Memory(_) => "memory".to_owned(),
        }
    }

    /// Waits for the next connection. A connection that failed before it was accepted is skipped.
    ///
    /// A memory listener without remaining connectors waits forever.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no connection.
    ///
    /// # Errors
    ///
    /// Fails only with errors of the listener or the whole process, such as too many open files.
    /// Wait a moment before trying again, since the connection stays in the queue and the next call
    /// would fail at once.
    pub async fn accept(&mut self) -> io::Result<Connected> {
        loop {
            let accepted = match self {
                Self::Tcp(listener) => listener.accept().await.map(|(stream, addr)| {
                    // This fails only if the peer is already gone, which the first read will
                    // report.
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

#[cfg(unix)]
impl From<UnixListener> for Listener {
    /// Keeps the file of the socket when the listener is dropped: the code that created it removes
    /// it.
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener.into())
    }
}

/// A listener on a Unix socket; if it created the file, it removes it when it is dropped.
#[cfg(unix)]
#[derive(Debug)]
pub struct UnixSocketListener {
    listener: UnixListener,
    file: Option<SocketFile>,
}

/// The file of a Unix socket.
#[cfg(unix)]
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode, so that a file that another process put in its place is not removed.
    identity: (u64, u64),
    /// The socket was passed on to another process, which still needs the file.
    #[cfg(feature = "inherit")]
    keep: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

#[cfg(unix)]
impl UnixSocketListener {
    async fn bind(path: &Path) -> io::Result<Self> {
        let listener = match listen_unix(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale_socket(path).await?;
                listen_unix(path)?
            }
            result => result?,
        };
        let file = file_identity(path).map(|identity| SocketFile {
            path: path.to_owned(),
            identity,
            #[cfg(feature = "inherit")]
            keep: std::sync::Arc::default(),
        });
        Ok(Self { listener, file })
    }

    /// Returns the address in the form that a client connects to; `unix` for a socket without a
    /// name.
    fn describe(&self) -> String {
        let addr = self.listener.local_addr().ok();
        let path = addr.as_ref().and_then(|addr| addr.as_pathname());
        if let Some(path) = path {
            return format!("unix:{}", path.display());
        }
        let name = addr.as_ref().and_then(|addr| addr.as_abstract_name());
        match name {
            Some(name) => format!("unix:@{}", String::from_utf8_lossy(name)),
            None => "unix".to_owned(),
        }
    }
}

#[cfg(unix)]
impl From<UnixListener> for UnixSocketListener {
    fn from(listener: UnixListener) -> Self {
        Self {
            listener,
            file: None,
        }
    }
}

#[cfg(unix)]
impl Drop for UnixSocketListener {
    fn drop(&mut self) {
        if let Some(file) = &self.file
            && !file.is_kept()
            && file_identity(&file.path) == Some(file.identity)
        {
            // If the file cannot be removed, the next server finds it stale.
            let _ = std::fs::remove_file(&file.path);
        }
    }
}

#[cfg(unix)]
impl SocketFile {
    #[cfg(feature = "inherit")]
    fn is_kept(&self) -> bool {
        self.keep.load(std::sync::atomic::Ordering::Relaxed)
    }

    #[cfg(not(feature = "inherit"))]
    #[expect(clippy::unused_self, reason = "the other variant uses it")]
    fn is_kept(&self) -> bool {
        false
    }
}

/// A duplicate of a listening socket, for another process.
#[cfg(all(unix, feature = "inherit"))]
#[derive(Debug)]
pub(crate) struct Passable {
    socket: std::os::fd::OwnedFd,
    keep_file: Option<std::sync::Arc<std::sync::atomic::AtomicBool>>,
}

#[cfg(all(unix, feature = "inherit"))]
impl Passable {
    /// Duplicates the socket of a listener; `None` in memory.
    pub(crate) fn of(listener: &Listener) -> io::Result<Option<Self>> {
        use std::os::fd::AsFd;

        let (socket, keep_file) = match listener {
            Listener::Tcp(listener) => (listener.as_fd(), None),
            Listener::Unix(listener) => {
                let keep = listener.file.as_ref().map(|file| file.keep.clone());
                (listener.listener.as_fd(), keep)
            }
            Listener::Memory(_) => return Ok(None),
        };
        Ok(Some(Self {
            socket: socket.try_clone_to_owned()?,
            keep_file,
        }))
    }

    /// Duplicates it once more.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            socket: self.socket.try_clone()?,
            keep_file: self.keep_file.clone(),
        })
    }

    /// Keeps the file of a Unix socket when this process stops listening.
    pub(crate) fn keep_file(&self) {
        if let Some(keep) = &self.keep_file {
            keep.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// Returns the socket.
    pub(crate) fn socket(&self) -> &std::os::fd::OwnedFd {
        &self.socket
    }
}

fn listen_tcp(addr: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // On Windows this option would allow another process to take over a port in use.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    if reuse_port {
        set_reuse_port(&socket)?;
    }
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Lets other sockets of this user listen on the same port.
fn set_reuse_port(socket: &TcpSocket) -> io::Result<()> {
    // The condition is that of tokio's function.
    #[cfg(all(
        unix,
        not(target_os = "solaris"),
        not(target_os = "illumos"),
        not(target_os = "cygwin")
    ))]
    return socket.set_reuseport(true);
    #[cfg(not(all(
        unix,
        not(target_os = "solaris"),
        not(target_os = "illumos"),
        not(target_os = "cygwin")
    )))]
    {
        let _ = socket;
        let reason = "reuse_port: this platform does not support SO_REUSEPORT";
        Err(io::Error::new(io::ErrorKind::Unsupported, reason))
    }
}

#[cfg(unix)]
fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    let socket = tokio::net::UnixSocket::new_stream()?;
    socket.bind(path)?;
    socket.listen(BACKLOG)
}

/// Removes the socket file of a server that has ended; fails if `path` is anything else.
#[cfg(unix)]
async fn remove_stale_socket(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;

    let in_use = |reason| Err(io::Error::new(io::ErrorKind::AddrInUse, reason));
    let Some(found) = file_identity(path) else {
        return Ok(());
    };
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return in_use("a file with this name exists and is not a socket");
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        _ => return in_use("another server listens on this path"),
    }
    if file_identity(path) != Some(found) {
        return in_use("another server started on this path at the same time");
    }
    std::fs::remove_file(path)
}

#[cfg(unix)]
fn file_identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;

    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Returns `true` for an error of `accept` that concerns one connection; see accept(2), "Error
/// handling".
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
            // A firewall rule rejects this connection (Linux).
            | PermissionDenied
            | TimedOut
    )
}
