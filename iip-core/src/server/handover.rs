//! A successor process that takes over listening sockets.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use tokio::net::UnixDatagram;
use tokio::process::Child;

use super::{Server, service_manager};
use crate::random;
use crate::transport::Passable;

/// The number of the first file descriptor that is passed on. Source: sd_listen_fds(3).
const FIRST_FD: i32 = 3;

/// Time that a successor has to become ready, unless another is set.
const READY_TIME: Duration = Duration::from_secs(60);

/// The longest message that is read from a successor, in bytes.
const MESSAGE_BYTES: usize = 4096;

/// Starts a successor of this process, such as a new version of the program, that takes over its
/// listening sockets. No connection is lost, because the sockets are the same: both processes
/// accept from one queue until this one stops.
///
/// The successor takes the sockets by
/// [`inherit_or_bind`](super::ServerBuilder::inherit_or_bind), and calls
/// [`Server::notify_ready`] when it serves. Then this process shuts its servers down, which moves
/// their connections to the successor. Under systemd use a socket unit instead, which needs no
/// `Handover`: systemd ends a service whose main process ends.
///
/// ```no_run
/// use std::time::Duration;
/// use iip_core::{Handover, Server};
///
/// # #[tokio::main]
/// # async fn main() -> std::io::Result<()> {
/// let server = Server::builder().inherit_or_bind("iip", "0.0.0.0:7000").await?;
/// server.notify_ready()?;
/// # async fn asked_to_restart() {}
/// loop {
///     asked_to_restart().await;
///     match Handover::current_exe()?.listener("iip", &server)?.start().await {
///         Ok(_pid) => break,
///         Err(error) => eprintln!("the old version continues: {error}"),
///     }
/// }
/// server.shutdown(Duration::from_secs(20)).await;
/// # Ok(())
/// # }
/// ```
///
/// Needs the feature `inherit`, on Unix.
#[derive(Debug)]
#[must_use = "the successor is started by `start`"]
pub struct Handover {
    command: Command,
    sockets: Vec<(String, Passable)>,
    ready_timeout: Duration,
}

impl Handover {
    /// Starts the successor by this command: a program with its arguments and environment. The
    /// variables `LISTEN_FDS`, `LISTEN_FDNAMES`, `LISTEN_PID` and `NOTIFY_SOCKET` are replaced. A
    /// script must end with `exec`.
    pub fn new(command: Command) -> Self {
        Self {
            command,
            sockets: Vec::new(),
            ready_timeout: READY_TIME,
        }
    }

    /// Starts the program of this process again, with the same arguments. If the file was replaced
    /// since this process started, that is the new version.
    ///
    /// # Errors
    ///
    /// Fails if the system does not know the path of the program.
    pub fn current_exe() -> io::Result<Self> {
        let path = std::env::current_exe()?;
        let mut command = Command::new(replaced(path));
        command.args(std::env::args_os().skip(1));
        Ok(Self::new(command))
    }

    /// Passes on the listening socket of a server, under the name by which the successor takes it.
    ///
    /// # Errors
    ///
    /// Fails if the name is empty, has more than 255 characters, is taken or has a colon or a
    /// control character; if the server does not listen on a socket, or no longer; or if the system
    /// cannot duplicate the socket.
    pub fn listener(mut self, name: &str, server: &Server) -> io::Result<Self> {
        let invalid = |reason: &str| {
            let reason = format!("cannot pass on the listening socket {name:?}: {reason}");
            Err(io::Error::new(io::ErrorKind::InvalidInput, reason))
        };
        let is_plain = |char: char| char.is_ascii() && !char.is_ascii_control() && char != ':';
        if name.is_empty() || name.len() > 255 || !name.chars().all(is_plain) {
            return invalid("a name has 1 to 255 characters of ASCII, without colons");
        }
        if self.sockets.iter().any(|(taken, _)| taken == name) {
            return invalid("the name is taken");
        }
        let socket = server.inner.lock_socket().as_ref().map(Passable::try_clone);
        match socket {
            Some(socket) => self.sockets.push((name.to_owned(), socket?)),
            None => return invalid("the server does not listen on a socket, or no longer"),
        }
        Ok(self)
    }

    /// Sets the time that the successor has to become ready. Default: 60 s.
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.ready_timeout = timeout;
        self
    }

    /// Starts the successor, and waits until it has reported that it is ready
    /// ([`Server::notify_ready`]). Returns its process id; it no longer depends on this process.
    ///
    /// The successor reports over a socket in a new directory below that for temporary files
    /// (`TMPDIR`), to which only this user has access.
    ///
    /// # Errors
    ///
    /// Fails if the process cannot be started, ends before it is ready, or is not ready in time.
    /// Then it is killed, and this process can continue to serve.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the successor is killed.
    pub async fn start(self) -> io::Result<u32> {
        let Self {
            mut command,
            sockets,
            ready_timeout,
        } = self;
        let names: Vec<&str> = sockets.iter().map(|(name, _)| &name[..]).collect();
        if names.is_empty() {
            let reason = "a successor needs a listening socket: call Handover::listener";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let ready = ReadySocket::bind()?;
        command
            .env("LISTEN_FDS", names.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            // It is not known yet. Listeners accept that it is not set.
            .env_remove("LISTEN_PID")
            .env("NOTIFY_SOCKET", &ready.path);
        let mut mappings = Vec::new();
        for (child_fd, (_, socket)) in (FIRST_FD..).zip(&sockets) {
            mappings.push(FdMapping {
                parent_fd: socket.socket().try_clone()?,
                child_fd,
            });
        }
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        command.fd_mappings(mappings).map_err(invalid)?;
        let program = command.get_program().to_owned();
        let mut starting = Starting::spawn(command, &program)?;
        let reported = tokio::time::timeout(ready_timeout, starting.wait(&ready)).await;
        let failed =
            |reason: String| io::Error::other(format!("the successor {program:?} {reason}"));
        reported.map_err(|_| {
            failed(format!(
                "did not report that it is ready within {ready_timeout:?} (option ready_timeout; \
                 it must call Server::notify_ready)"
            ))
        })??;
        let pid = starting
            .release()
            .ok_or_else(|| failed("has ended".to_owned()))?;
        sockets.iter().for_each(|(_, socket)| socket.keep_file());
        tracing::info!(pid, "a successor has taken over the listening sockets");
        Ok(pid)
    }
}

/// Returns the path of a program without the mark that Linux adds when the file was replaced.
fn replaced(path: PathBuf) -> PathBuf {
    match path
        .to_str()
        .and_then(|path| path.strip_suffix(" (deleted)"))
    {
        Some(path) if Path::new(path).exists() => path.into(),
        _ => path,
    }
}

/// A successor that is not ready yet. Dropping it kills the process.
struct Starting(Option<Child>);

impl Starting {
    fn spawn(command: Command, program: &OsStr) -> io::Result<Self> {
        let child = tokio::process::Command::from(command).spawn();
        let child = child.map_err(|error| {
            let reason = format!("cannot start the successor {program:?}: {error}");
            io::Error::new(error.kind(), reason)
        })?;
        Ok(Self(Some(child)))
    }

    /// Waits until the process has reported, or has ended, which is an error.
    async fn wait(&mut self, ready: &ReadySocket) -> io::Result<()> {
        let Some(child) = &mut self.0 else {
            return Ok(());
        };
        tokio::select! {
            biased;
            reported = ready.reported() => reported,
            status = child.wait() => Err(io::Error::other(format!(
                "the successor ended before it was ready: {}; see what it has printed or logged",
                status?
            ))),
        }
    }

    /// Lets the process continue without this one. Returns its id.
    fn release(mut self) -> Option<u32> {
        // The runtime waits for the process in the background, if it ends before this one.
        self.0.take()?.id()
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // It may have ended already.
            let _ = child.start_kill();
        }
    }
}

/// The socket on which the successor reports that it is ready.
struct ReadySocket {
    socket: UnixDatagram,
    directory: PathBuf,
    path: PathBuf,
}

impl ReadySocket {
    /// Only this user may enter the directory, so nobody else can report.
    fn bind() -> io::Result<Self> {
        let name = format!(
            "iip-handover-{}-{:016x}",
            std::process::id(),
            random::random_id()
        );
        let directory = std::env::temp_dir().join(name);
        let explain = |error: io::Error| {
            let reason = format!(
                "cannot create a socket in {} for the report of the successor (environment variable \
                 TMPDIR): {error}",
                directory.display()
            );
            io::Error::new(error.kind(), reason)
        };
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .map_err(explain)?;
        let path = directory.join("ready");
        match UnixDatagram::bind(&path) {
            Ok(socket) => Ok(Self {
                socket,
                directory,
                path,
            }),
            Err(error) => {
                let _ = std::fs::remove_dir(&directory);
                Err(explain(error))
            }
        }
    }

    /// Waits for the message that the successor is ready; others are ignored.
    async fn reported(&self) -> io::Result<()> {
        let mut message = [0; MESSAGE_BYTES];
        loop {
            let length = self.socket.recv(&mut message).await?;
            let mut lines = message[..length].split(|&byte| byte == b'\n');
            if lines.any(|line| line == service_manager::READY.as_bytes()) {
                return Ok(());
            }
        }
    }
}

impl Drop for ReadySocket {
    fn drop(&mut self) {
        // What is left is an empty directory for temporary files.
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_dir(&self.directory);
    }
}
