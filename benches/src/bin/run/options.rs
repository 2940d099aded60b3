//! The command line of the runner.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use iip_benches::BoxError;
use iip_benches::args::{self, Mode};
use serde::Serialize;

/// The runs to make.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    pub(crate) rounds: usize,
    pub(crate) peers: Vec<String>,
    pub(crate) cells: Vec<Cell>,
    pub(crate) idle: Vec<Idle>,
    pub(crate) layouts: Vec<Layout>,
    pub(crate) secs: Duration,
    pub(crate) warm: Duration,
    /// Maximum number of repetitions of a run during which other processes were busy.
    pub(crate) retries: usize,
    /// Maximum time that a run waits for a quiet machine before it starts anyway.
    pub(crate) patience: Duration,
    pub(crate) out: Option<PathBuf>,
}

/// Bytes in each body, calls in flight, and connections over which these are spread, written `16x64`
/// for one connection or `16x64/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Cell {
    pub(crate) payload: usize,
    pub(crate) inflight: usize,
    pub(crate) connections: usize,
}

/// Idle connections and the calls each has made at the same time, written `50x1000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Idle {
    pub(crate) connections: usize,
    pub(crate) channels: usize,
}

/// The cores that the processes are bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Layout {
    /// The server on core 0, the client on core 1.
    Pinned,
    /// Both on core 0.
    Same,
}

impl Layout {
    pub(crate) fn server_core(self) -> &'static str {
        "0"
    }

    pub(crate) fn client_core(self) -> &'static str {
        match self {
            Self::Pinned => "1",
            Self::Same => "0",
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pinned => "pinned",
            Self::Same => "same core",
        })
    }
}

impl FromStr for Layout {
    type Err = BoxError;

    fn from_str(s: &str) -> Result<Self, BoxError> {
        match s {
            "pinned" => Ok(Self::Pinned),
            "same" => Ok(Self::Same),
            _ => Err("the layouts are: pinned, same".into()),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.payload {
            mib if mib > 0 && mib % (1 << 20) == 0 => write!(f, "{} MiB", mib >> 20)?,
            kib if kib > 0 && kib % (1 << 10) == 0 => write!(f, "{} KiB", kib >> 10)?,
            bytes => write!(f, "{bytes} B")?,
        }
        write!(f, " x {}", self.inflight)?;
        match self.connections {
            1 => Ok(()),
            connections => write!(f, " over {connections} connections"),
        }
    }
}

impl FromStr for Cell {
    type Err = BoxError;

    fn from_str(s: &str) -> Result<Self, BoxError> {
        let (calls, connections) = s.split_once('/').unwrap_or((s, "1"));
        let looks = "a cell looks like 16x64 or 16x64/8: bytes x calls in flight / connections";
        let (payload, inflight) = pair(calls, looks)?;
        Ok(Self {
            payload,
            inflight,
            connections: connections.parse()?,
        })
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.channels == 1 { "" } else { "s" };
        write!(
            f,
            "{} connections x {} channel{plural}",
            self.connections, self.channels
        )
    }
}

impl FromStr for Idle {
    type Err = BoxError;

    fn from_str(s: &str) -> Result<Self, BoxError> {
        let looks = "an idle cell looks like 50x1000: connections x channels";
        let (connections, channels) = pair(s, looks)?;
        Ok(Self {
            connections,
            channels,
        })
    }
}

/// The numbers around the `x` of a cell; `looks` is the error if there is none.
fn pair(cell: &str, looks: &'static str) -> Result<(usize, usize), BoxError> {
    let (one, other) = cell.split_once('x').ok_or(looks)?;
    Ok((one.parse()?, other.parse()?))
}

const USAGE: &str = "usage: run [--rounds 5] [--peers limit,tonic,..] [--cells 16x64,..] [--layout pinned|same|pinned,same] \
                     [--secs 2] [--warm 0.5] [--retries 2] [--patience 30] [--out FILE.json] | run --mode idle \
                     [--idle 5000x1,50x1000] [--rounds 5] [--peers ..] [--out FILE.json]";

pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, BoxError> {
    let mut options = Options {
        mode: Mode::Unary,
        rounds: 5,
        peers: list("limit,pingpong,iip,iip-core,tonic,tarpc")?,
        cells: list("16x64,16x512,1024x64,13600x64,1048576x1")?,
        idle: list("5000x1,50x1000")?,
        layouts: vec![Layout::Pinned],
        secs: Duration::from_secs(2),
        warm: Duration::from_millis(500),
        retries: 2,
        patience: Duration::from_secs(30),
        out: None,
    };
    while let Some(name) = args.next() {
        let value = args
            .next()
            .ok_or_else(|| format!("{name} needs a value; {USAGE}"))?;
        options
            .set(&name, &value)
            .map_err(|e| format!("{name} {value:?}: {e}"))?;
    }
    Ok(options)
}

impl Options {
    fn set(&mut self, name: &str, value: &str) -> Result<(), BoxError> {
        match name {
            "--mode" => self.mode = value.parse()?,
            "--rounds" => self.rounds = value.parse()?,
            "--peers" => self.peers = list(value)?,
            "--cells" => self.cells = list(value)?,
            "--idle" => self.idle = list(value)?,
            "--layout" => self.layouts = list(value)?,
            "--secs" => self.secs = args::seconds(value)?,
            "--warm" => self.warm = args::seconds(value)?,
            "--retries" => self.retries = value.parse()?,
            "--patience" => self.patience = args::seconds(value)?,
            "--out" => self.out = Some(value.into()),
            _ => return Err(format!("unknown option; {USAGE}").into()),
        }
        Ok(())
    }
}

fn list<T: FromStr<Err: Into<BoxError>>>(value: &str) -> Result<Vec<T>, BoxError> {
    value
        .split(',')
        .map(|item| item.parse().map_err(Into::into))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_shown_with_the_usual_unit() {
        for (text, shown) in [
            ("16x64", "16 B x 64"),
            ("1024x1", "1 KiB x 1"),
            ("13600x64", "13600 B x 64"),
            ("1048576x1", "1 MiB x 1"),
            ("0x1", "0 B x 1"),
            ("16x64/8", "16 B x 64 over 8 connections"),
        ] {
            let cell: Cell = text.parse().expect(text);
            assert_eq!(cell.to_string(), shown);
        }
    }

    #[test]
    fn a_mistake_is_named() {
        for (line, named) in [
            ("--cells 16", "16x64"),
            ("--layout here", "pinned"),
            ("--mode dozing", "idle"),
            ("--idle 50", "50x1000"),
            ("--round 5", "--round"),
            ("--secs", "--secs"),
        ] {
            let error = parse(line.split(' ').map(str::to_owned))
                .expect_err(line)
                .to_string();
            assert!(error.contains(named), "{line}: {error}");
        }
    }
}
