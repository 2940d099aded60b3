//! Messages to the service manager, by systemd's protocol: a datagram to the socket that the
//! environment variable `NOTIFY_SOCKET` names. Source: sd_notify(3).

use std::io;

/// The server is ready.
pub(super) const READY: &str = "READY=1";

/// The server begins to shut down.
pub(super) const STOPPING: &str = "STOPPING=1";

/// Sends a message. Returns `false` if no service manager waits for one.
#[cfg(unix)]
pub(super) fn notify(message: &str) -> io::Result<bool> {
    let Some(target) = std::env::var_os("NOTIFY_SOCKET").filter(|target| !target.is_empty()) else {
        return Ok(false);
    };
    match send(&target, message) {
        Ok(()) => Ok(true),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!(
                "cannot send {message} to the service manager at {target:?} (environment variable \
                 NOTIFY_SOCKET): {error}"
            ),
        )),
    }
}

#[cfg(unix)]
fn send(target: &std::ffi::OsStr, message: &str) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    let addr = match target.as_bytes() {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        [b'@', name @ ..] => {
            #[cfg(target_os = "android")]
            use std::os::android::net::SocketAddrExt;
            #[cfg(target_os = "linux")]
            use std::os::linux::net::SocketAddrExt;

            SocketAddr::from_abstract_name(name)?
        }
        [b'/', ..] => SocketAddr::from_pathname(target)?,
        _ => {
            let reason = "the address must begin with `/`, or on Linux with `@`";
            return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
        }
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not block a thread of the runtime.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(message.as_bytes(), &addr)?;
    Ok(())
}

#[cfg(not(unix))]
pub(super) fn notify(_: &str) -> io::Result<bool> {
    Ok(false)
}
