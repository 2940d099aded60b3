//! Listening sockets that another process has opened and passed on, by systemd's convention: the
//! environment variables `LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES`. Source: sd_listen_fds(3).

use std::env;
use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, IntoRawFd};
use std::sync::{Mutex, OnceLock, PoisonError};

use listenfd::ListenFd;
use socket2::SockRef;

use super::Listener;

/// Maximum number of sockets; a service manager passes a few.
const MAX_SOCKETS: usize = 1024;

/// The sockets that were passed to this process and have not been taken yet. The variables can be
/// read only once: `listenfd` removes them, so that child processes do not use them too.
static INHERITED: OnceLock<Result<Mutex<Inherited>, Problem>> = OnceLock::new();

struct Inherited {
    sockets: ListenFd,
    /// The names of the sockets, in their order; `None` once a socket was taken.
    names: Vec<Option<String>>,
}

/// The reason why no socket can be taken.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Problem {
    /// None were passed.
    None,
    /// The variables cannot be used.
    Invalid(String),
}

impl From<&Problem> for io::Error {
    fn from(problem: &Problem) -> Self {
        match problem {
            Problem::None => Self::new(
                io::ErrorKind::NotFound,
                "no listening socket was passed to this process: the environment variable \
                 LISTEN_FDS is not set; start it by a service manager with a socket unit, or by a \
                 predecessor",
            ),
            Problem::Invalid(reason) => Self::new(io::ErrorKind::InvalidInput, &reason[..]),
        }
    }
}

impl Listener {
    /// Takes the only listening socket that another process has opened and passed on, such as
    /// systemd or a `Handover`. The convention is that of systemd's sockets: the variables
    /// `LISTEN_FDS` and `LISTEN_PID`.
    ///
    /// Each socket can be taken once in a process. The first call removes the variables from the
    /// environment, so that processes that this one starts do not use them; make it at the
    /// beginning of `main`, before other code can read the environment. Needs the feature
    /// `inherit`, on Unix.
    ///
    /// # Errors
    ///
    /// [`NotFound`](io::ErrorKind::NotFound) if no socket was passed to this process, or all were
    /// taken. Otherwise fails if the variables are those of another process, there are several
    /// sockets, or the socket does not listen for connections of TCP or a Unix socket.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime, like tokio's own conversions of sockets.
    pub fn inherited() -> io::Result<Self> {
        take(|names| {
            let mut left = names.iter().enumerate().filter(|(_, name)| name.is_some());
            match (left.next(), left.next()) {
                (Some((index, _)), None) => Ok(index),
                (None, _) => Err(not_found("all listening sockets were taken already")),
                (Some(_), Some(_)) => Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!(
                        "several listening sockets were passed to this process, name one of: {}",
                        listed(names)
                    ),
                )),
            }
        })
    }

    /// Like [`inherited`](Self::inherited), but takes the socket with this name, which systemd calls
    /// `FileDescriptorName`; by default that is the name of the socket unit, such as
    /// `orders.socket`. If several have the name, takes the first that is left.
    ///
    /// # Errors
    ///
    /// Like [`inherited`](Self::inherited); and [`NotFound`](io::ErrorKind::NotFound) if no socket
    /// of this name is left.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub fn inherited_named(name: &str) -> io::Result<Self> {
        take(|names| {
            let index = names.iter().position(|own| own.as_deref() == Some(name));
            index.ok_or_else(|| {
                not_found(format_args!(
                    "no listening socket with the name {name:?} was passed to this process; left \
                     are: {}",
                    listed(names)
                ))
            })
        })
    }

    /// Returns `true` if another process has passed listening sockets to this one, whether or not
    /// they were taken.
    ///
    /// # Errors
    ///
    /// Fails if the variables cannot be used, such as those of another process.
    pub(crate) fn has_inherited() -> io::Result<bool> {
        match inherited() {
            Ok(_) => Ok(true),
            Err(Problem::None) => Ok(false),
            Err(problem) => Err(problem.into()),
        }
    }
}

fn inherited() -> &'static Result<Mutex<Inherited>, Problem> {
    INHERITED.get_or_init(|| {
        let variable = |name| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let names = parse(
            variable("LISTEN_FDS").as_deref(),
            variable("LISTEN_PID").as_deref(),
            variable("LISTEN_FDNAMES").as_deref(),
            std::process::id(),
        )?;
        let sockets = ListenFd::from_env();
        Ok(Mutex::new(Inherited {
            sockets,
            names: names.into_iter().map(Some).collect(),
        }))
    })
}

/// Takes the socket that `choose` selects by the names of those that are left.
fn take(choose: impl FnOnce(&[Option<String>]) -> io::Result<usize>) -> io::Result<Listener> {
    let inherited = inherited().as_ref()?;
    let mut inherited = inherited.lock().unwrap_or_else(PoisonError::into_inner);
    let Inherited { sockets, names } = &mut *inherited;
    let index = choose(names)?;
    let name = names[index].clone().unwrap_or_default();
    let invalid = |reason: &dyn Display| {
        let reason = format!(
            "the listening socket {name:?}, number {index} of those that were passed to this \
             process, cannot be used: {reason}"
        );
        io::Error::new(io::ErrorKind::InvalidInput, reason)
    };
    // Which of the two it is can only be learned by trying: a socket of another kind is left where
    // it is.
    if let Ok(Some(listener)) = sockets.take_tcp_listener(index) {
        names[index] = None;
        let listener = checked(listener).map_err(|error| invalid(&error))?;
        return Ok(tokio::net::TcpListener::from_std(listener)?.into());
    }
    if let Ok(Some(listener)) = sockets.take_unix_listener(index) {
        names[index] = None;
        let listener = checked(listener).map_err(|error| invalid(&error))?;
        return Ok(tokio::net::UnixListener::from_std(listener)?.into());
    }
    Err(invalid(
        &"it is not a stream socket of TCP or of a Unix address (ListenStream= of the socket unit)",
    ))
}

/// Checks that the socket accepts connections, and prepares it for tokio.
fn checked<L: AsFd + IntoRawFd>(listener: L) -> io::Result<L> {
    // Systems that cannot tell report an error when a connection is accepted.
    if let Ok(false) = SockRef::from(&listener).is_listener() {
        // The number may be that of a file that other code has opened: it is not closed.
        let _ = listener.into_raw_fd();
        let reason = "it does not listen: set Accept=no in the socket unit";
        return Err(io::Error::other(reason));
    }
    SockRef::from(&listener).set_nonblocking(true)?;
    Ok(listener)
}

fn not_found(reason: impl Display) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, reason.to_string())
}

/// Returns the names that are left, for an error.
fn listed(names: &[Option<String>]) -> String {
    let names: Vec<String> = names
        .iter()
        .flatten()
        .map(|name| format!("{name:?}"))
        .collect();
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    }
}

/// Checks the variables, and returns the names of the sockets.
fn parse(
    count: Option<&str>,
    pid: Option<&str>,
    names: Option<&str>,
    own_pid: u32,
) -> Result<Vec<String>, Problem> {
    let Some(count) = count else {
        return Err(Problem::None);
    };
    let sockets = count.parse().ok().filter(|count| *count <= MAX_SOCKETS);
    let Some(sockets) = sockets else {
        return Err(Problem::Invalid(format!(
            "the environment variable LISTEN_FDS is {count:?}: it must be a number of listening \
             sockets, at most {MAX_SOCKETS}"
        )));
    };
    // A predecessor cannot know the number of the process, and does not set it.
    if let Some(pid) = pid.filter(|pid| !pid.is_empty())
        && pid.parse() != Ok(own_pid)
    {
        return Err(Problem::Invalid(format!(
            "the environment variable LISTEN_PID is {pid:?}, but this process is {own_pid}: the \
             listening sockets are for another process; a script that starts this program must \
             end with `exec`"
        )));
    }
    if sockets == 0 {
        return Err(Problem::None);
    }
    let mut names: Vec<String> = match names {
        Some(names) if !names.is_empty() => names.split(':').map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    if names.is_empty() {
        // The name that systemd uses too.
        names.resize(sockets, "unknown".to_owned());
    }
    if names.len() != sockets {
        return Err(Problem::Invalid(format!(
            "the environment variable LISTEN_FDNAMES has {} names, but LISTEN_FDS is {sockets}",
            names.len()
        )));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_name_the_sockets() {
        let parse = |count, pid, names| parse(Some(count), pid, names, 7);
        let names = |names: &[&str]| Ok(names.iter().map(|&name| name.to_owned()).collect());
        assert_eq!(parse("1", Some("7"), Some("iip")), names(&["iip"]));
        assert_eq!(parse("2", Some("7"), Some("a:b")), names(&["a", "b"]));
        assert_eq!(parse("1", None, Some("a")), names(&["a"]));
        assert_eq!(parse("2", Some("7"), None), names(&["unknown", "unknown"]));
        assert_eq!(parse("0", Some("7"), None), Err(Problem::None));
    }

    #[test]
    fn variables_that_cannot_be_used_are_named() {
        let table = [
            (Some("x"), None, None, "LISTEN_FDS is \"x\""),
            (Some("-1"), None, None, "LISTEN_FDS is \"-1\""),
            (Some("2000000000"), None, None, "at most 1024"),
            (
                Some("1"),
                Some("8"),
                None,
                "LISTEN_PID is \"8\", but this process is 7",
            ),
            (Some("1"), Some("x"), None, "LISTEN_PID is \"x\""),
            (
                Some("1"),
                None,
                Some("a:b"),
                "has 2 names, but LISTEN_FDS is 1",
            ),
        ];
        for (count, pid, names, expected) in table {
            match parse(count, pid, names, 7) {
                Err(Problem::Invalid(reason)) => assert!(reason.contains(expected), "{reason}"),
                other => panic!("{expected}: {other:?}"),
            }
        }
        let error = io::Error::from(&parse(None, None, None, 7).expect_err("none"));
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(
            error.to_string().contains("LISTEN_FDS is not set"),
            "{error}"
        );
    }
}
