//! The command line of a peer.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::BoxError;

/// The role of a peer.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// `server ADDR`
    Server {
        /// The address to listen on; port 0 takes any free port.
        addr: SocketAddr,
    },
    /// `client ADDR ..`
    Client {
        /// The address of the server.
        addr: SocketAddr,
        /// The load for the server.
        options: ClientOptions,
    },
}

/// The load of a client, and its duration.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientOptions {
    /// `--mode`: the kind of load.
    pub mode: Mode,
    /// `--payload`: bytes in each body.
    pub payload: usize,
    /// `--inflight`: tasks that each keep one call in flight.
    pub inflight: usize,
    /// `--secs`: duration of the measurement.
    pub secs: Duration,
    /// `--warm`: duration of the load before the measurement.
    pub warm: Duration,
    /// `--server-pid`: the process whose processor time and memory count as the server's.
    pub server_pid: Option<u32>,
    /// `--connections`: number of connections over which the calls of [`Mode::Unary`] are spread, or
    /// that are idle in [`Mode::Idle`].
    pub connections: usize,
    /// `--channels`: calls that were made at the same time on each of them.
    pub channels: usize,
}

/// The kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A request with a whole body, and a reply with it.
    Unary,
    /// Streams of messages from the server, as fast as they come.
    Download,
    /// Streams of messages to the server, as fast as it takes them.
    Upload,
    /// Streams in which each message comes back before the next is sent.
    PingPong,
    /// Calls like those of [`Mode::Unary`], on a connection with streams at full speed.
    Beside,
    /// The same on a connection with calls with bodies of 15 MiB.
    BesideLarge,
    /// Streams from the server, one of which is not read in every second interval.
    Stalled,
    /// Connections that have made their calls and are idle.
    Idle,
}

impl FromStr for Mode {
    type Err = BoxError;

    fn from_str(s: &str) -> Result<Self, BoxError> {
        match s {
            "unary" => Ok(Self::Unary),
            "download" => Ok(Self::Download),
            "upload" => Ok(Self::Upload),
            "ping-pong" => Ok(Self::PingPong),
            "beside" => Ok(Self::Beside),
            "beside-large" => Ok(Self::BesideLarge),
            "stalled" => Ok(Self::Stalled),
            "idle" => Ok(Self::Idle),
            _ => Err("the modes are: unary, download, upload, ping-pong, beside, beside-large, stalled, idle".into()),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unary => "unary",
            Self::Download => "download",
            Self::Upload => "upload",
            Self::PingPong => "ping-pong",
            Self::Beside => "beside",
            Self::BesideLarge => "beside-large",
            Self::Stalled => "stalled",
            Self::Idle => "idle",
        })
    }
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            mode: Mode::Unary,
            payload: 16,
            inflight: 64,
            secs: Duration::from_secs(2),
            warm: Duration::from_millis(500),
            server_pid: None,
            connections: 1,
            channels: 1,
        }
    }
}

const USAGE: &str = "usage: server ADDR | client ADDR [--mode unary|download|upload|ping-pong|beside|beside-large|stalled] [--payload BYTES] [--inflight CALLS] [--secs S] \
                     [--connections N] [--warm S] [--server-pid PID] | client ADDR --mode idle --server-pid PID [--connections N] \
                     [--channels M] [--payload BYTES]";

/// Reads a command line without the program's name.
///
/// # Errors
/// Names the argument that is wrong.
pub fn parse(mut args: impl Iterator<Item = String>) -> Result<Command, BoxError> {
    let role = args.next().ok_or(USAGE)?;
    let addr = args.next().ok_or(USAGE)?;
    let addr: SocketAddr = addr.parse().map_err(|e| format!("address {addr:?}: {e}"))?;
    match role.as_str() {
        "server" => match args.next() {
            None => Ok(Command::Server { addr }),
            Some(extra) => Err(format!("unexpected argument {extra:?}; {USAGE}").into()),
        },
        "client" => Ok(Command::Client {
            addr,
            options: client_options(args)?,
        }),
        other => Err(format!("unknown role {other:?}; {USAGE}").into()),
    }
}

fn client_options(mut args: impl Iterator<Item = String>) -> Result<ClientOptions, BoxError> {
    let mut options = ClientOptions::default();
    while let Some(name) = args.next() {
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        let wrong = |e: &dyn fmt::Display| format!("{name} {value:?}: {e}");
        match name.as_str() {
            "--mode" => options.mode = value.parse().map_err(|e| wrong(&e))?,
            "--payload" => options.payload = value.parse().map_err(|e| wrong(&e))?,
            "--inflight" => options.inflight = value.parse().map_err(|e| wrong(&e))?,
            "--secs" => options.secs = seconds(&value).map_err(|e| wrong(&e))?,
            "--warm" => options.warm = seconds(&value).map_err(|e| wrong(&e))?,
            "--server-pid" => options.server_pid = Some(value.parse().map_err(|e| wrong(&e))?),
            "--connections" => options.connections = value.parse().map_err(|e| wrong(&e))?,
            "--channels" => options.channels = value.parse().map_err(|e| wrong(&e))?,
            _ => return Err(format!("unknown option {name}; {USAGE}").into()),
        }
    }
    Ok(options)
}

/// A number of seconds, fractions allowed.
///
/// # Errors
/// An error if it is not a number, or not a duration.
pub fn seconds(value: &str) -> Result<Duration, BoxError> {
    Ok(Duration::try_from_secs_f64(value.parse()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Command, BoxError> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn every_client_option_is_read() {
        let parsed = parse_line(
            "client 127.0.0.1:9 --mode idle --payload 7 --inflight 3 --secs 1.5 --warm 0 --server-pid 12 \
             --connections 5 --channels 4",
        )
        .expect("the line is right");
        let options = ClientOptions {
            mode: Mode::Idle,
            payload: 7,
            inflight: 3,
            secs: Duration::from_millis(1500),
            warm: Duration::ZERO,
            server_pid: Some(12),
            connections: 5,
            channels: 4,
        };
        let addr = SocketAddr::from(([127, 0, 0, 1], 9));
        assert_eq!(parsed, Command::Client { addr, options });
    }

    #[test]
    fn a_mistake_is_named() {
        for (line, named) in [
            ("", "usage"),
            ("client 127.0.0.1:9 --secs -1", "--secs"),
            ("client 127.0.0.1:9 --payload x", "--payload"),
            ("client 127.0.0.1:9 --payload", "--payload"),
            ("client 127.0.0.1:9 --mode nonsense", "nonsense"),
            ("client localhost", "localhost"),
            ("server 127.0.0.1:0 --warm 1", "--warm"),
            ("both 127.0.0.1:0", "both"),
        ] {
            let error = parse_line(line).expect_err(line).to_string();
            assert!(error.contains(named), "{line}: {error}");
        }
    }
}
