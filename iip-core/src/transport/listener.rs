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

/// Waits for connections at one address.
///
/// Dropping it frees the address; the file of a Unix socket that was made by [`bind`](Self::bind)
/// is removed.
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
    /// TCP: an address that is still in the kernel's closing state may be taken again
    /// (`SO_REUSEADDR`); up to 1024 connections wait to be accepted. Unix: the file of a server
    /// that is gone is replaced, that of a living one and any other file is not.
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
            #[cfg(unix)]
            Endpoint::Abstract(name) => {
                listen_unix(&abstract_path(name)).map(|listener| Self::Unix(listener.into()))
            }
            #[cfg(not(unix))]
            Endpoint::Unix(_) | Endpoint::Abstract(_) => return Err(no_unix_sockets(endpoint)),
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
            Self::Unix(listener) => listener.describe(),
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
    /// Only what concerns the listener or the whole process, such as too many open files: wait a
    /// moment before trying again, since the connection stays in the queue and the next call would
    /// fail at once.
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

#[cfg(unix)]
impl From<UnixListener> for Listener {
    /// The file of the socket stays when the listener is dropped: whoever made it removes it.
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener.into())
    }
}

/// A Unix socket; one that has made its file removes it when it is dropped.
#[cfg(unix)]
#[derive(Debug)]
pub struct UnixSocketListener {
    listener: UnixListener,
    file: Option<SocketFile>,
}

/// The file of a socket.
#[cfg(unix)]
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode, to leave alone what another process put in its place.
    identity: (u64, u64),
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
        });
        Ok(Self { listener, file })
    }

    /// The address in the form that a client connects to; `unix` for a socket without a name.
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
        if let Some(SocketFile { path, identity }) = &self.file
            && file_identity(path) == Some(*identity)
        {
            // A file that cannot be removed is found stale by the next server.
            let _ = std::fs::remove_file(path);
        }
    }
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
fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    let socket = tokio::net::UnixSocket::new_stream()?;
    socket.bind(path)?;
    socket.listen(BACKLOG)
}

/// Removes the socket file of a server that is gone; an error when `path` is anything else.
#[cfg(unix)]
async fn remove_stale_socket(path: &Path) -> io::Result<()> {
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
fn file_identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;

    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
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
