//! A file server in a separate process, and transfers with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::common::{GUARD, Home};

/// Returns bytes that do not repeat.
pub(super) fn bytes(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

pub(super) fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Returns the next line of a program.
async fn line(lines: &mut Lines<BufReader<ChildStdout>>) -> Option<String> {
    let line = tokio::time::timeout(GUARD, lines.next_line()).await;
    line.expect("a line in time").unwrap()
}

/// A running `iq serve`.
pub(crate) struct Serve {
    child: Child,
    pub(super) folder: PathBuf,
    pub(crate) address: String,
    /// The line that the server has printed.
    pub(super) said: String,
}

impl Serve {
    pub(crate) async fn start(home: &Home, args: &[&str]) -> Self {
        let folder = home.0.join("served");
        fs::create_dir_all(&folder).unwrap();
        Self::of(home.command(), folder, args).await
    }

    /// Starts the program of this command.
    pub(super) async fn of(mut command: Command, folder: PathBuf, args: &[&str]) -> Self {
        command
            .arg("serve")
            .arg(&folder)
            .args(["--listen", "127.0.0.1:0"])
            .args(args);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = line(&mut lines).await.expect("where it listens");
        let address = said.split('\t').next().unwrap().to_owned();
        Self {
            child,
            folder,
            address,
            said,
        }
    }

    pub(super) fn uri(&self, path: &str) -> String {
        format!("{}/{path}", self.address)
    }

    /// Returns the names in a folder of the server, including hidden ones.
    pub(super) fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.folder.join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// Ends the server with SIGTERM.
    pub(super) async fn end(mut self) {
        let kill = std::process::Command::new("kill")
            .arg(self.child.id().unwrap().to_string())
            .status();
        assert!(kill.unwrap().success());
        let ended = tokio::time::timeout(GUARD, self.child.wait()).await;
        assert_eq!(ended.expect("an end in time").unwrap().code(), Some(0));
    }

    /// Kills the server.
    pub(super) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// A running `iq put` or `iq get` with JSON lines.
pub(super) struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// The offset at which it was first resumed.
    pub(super) resumed_at: Option<u64>,
    pub(super) durable: u64,
    /// Number of lost connections.
    pub(super) losses: u64,
}

impl Running {
    pub(super) fn start(home: &Home, args: &[&str]) -> Self {
        let mut command = home.command();
        command.args(args).arg("--json").stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            child,
            lines,
            resumed_at: None,
            durable: 0,
            losses: 0,
        }
    }

    async fn next(&mut self) -> Option<Value> {
        let value: Value = serde_json::from_str(&line(&mut self.lines).await?).unwrap();
        if value["type"] == "resumed" {
            self.resumed_at = self.resumed_at.or_else(|| value["bytes"].as_u64());
        }
        self.losses += u64::from(value["type"] == "lost");
        self.durable = value["durable"].as_u64().unwrap_or(self.durable);
        Some(value)
    }

    /// Waits until more than this number of bytes is on the disk of the receiver.
    pub(super) async fn is_durable(&mut self, more_than: u64) {
        while self.durable <= more_than {
            let value = self.next().await.expect("it has not ended");
            assert_ne!(value["type"], "error", "{value}");
        }
    }

    /// Waits until bytes are transferred.
    pub(super) async fn transfers(&mut self) {
        while self.next().await.expect("it has not ended")["bytes"] == 0 {}
    }

    pub(super) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits for the end of the program, and returns the last line.
    pub(super) async fn result(&mut self) -> Value {
        let mut last = Value::Null;
        while let Some(value) = self.next().await {
            last = value;
        }
        let ended = tokio::time::timeout(GUARD, self.child.wait()).await;
        assert_eq!(
            ended.expect("an end in time").unwrap().code(),
            Some(0),
            "{last}"
        );
        last
    }
}

/// Fails unless both files have these bytes.
pub(super) fn same(path: &Path, data: &[u8]) {
    assert!(fs::read(path).unwrap() == data, "{}", path.display());
}
