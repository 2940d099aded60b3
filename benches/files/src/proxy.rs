//! Programs, and a connection between them that counts bytes.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout, Command};

use crate::{Bench, Outcome};

/// `iq` with the lines that it prints.
pub(crate) struct Program {
    pub(crate) child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    pub(crate) fn start(bench: &Bench, args: &[&str]) -> Outcome<Self> {
        let mut child = Command::new(&bench.iq)
            .args(args)
            .arg("--json")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no output")?;
        Ok(Self {
            child,
            lines: BufReader::new(stdout).lines(),
        })
    }

    pub(crate) async fn next(&mut self) -> Outcome<Option<Value>> {
        let line = self.lines.next_line().await?;
        Ok(line.map(|line| serde_json::from_str(&line)).transpose()?)
    }

    /// Waits until so many bytes are on the disk of the receiver.
    pub(crate) async fn is_durable(&mut self, bytes: u64) -> Outcome {
        while let Some(value) = self.next().await? {
            if value["durable"].as_u64() >= Some(bytes) {
                return Ok(());
            }
        }
        Err("it has ended too early".into())
    }

    /// Returns the last line.
    pub(crate) async fn result(mut self) -> Outcome<Value> {
        let mut last = Value::Null;
        while let Some(value) = self.next().await? {
            last = value;
        }
        match self.child.wait().await?.success() {
            true => Ok(last),
            false => Err("it has failed".into()),
        }
    }

    pub(crate) async fn kill(mut self) -> Outcome {
        Ok(self.child.kill().await?)
    }
}

/// `iq serve`, and where it listens.
pub(crate) async fn serve(bench: &Bench) -> Outcome<(Program, String)> {
    let served = bench.served();
    let args = [
        "serve",
        text(&served)?,
        "--write",
        "--listen",
        "127.0.0.1:0",
    ];
    let mut program = Program::start(bench, &args)?;
    let said = program.next().await?.ok_or("it has ended")?;
    let address = said["address"].as_str().ok_or("no address")?.to_owned();
    Ok((program, address))
}

pub(crate) fn text(path: &Path) -> Outcome<&str> {
    path.to_str().ok_or_else(|| "the path is not UTF-8".into())
}

/// A way to a server that may be replaced.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    pub(crate) server: Arc<Mutex<String>>,
    pub(crate) up: Arc<AtomicU64>,
    pub(crate) down: Arc<AtomicU64>,
}

impl Proxy {
    pub(crate) async fn new(server: &str) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let this = Self {
            addr: listener.local_addr()?,
            server: Arc::new(Mutex::new(server.to_owned())),
            up: Arc::default(),
            down: Arc::default(),
        };
        let (server, up, down) = (this.server.clone(), this.up.clone(), this.down.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let address = server
                    .lock()
                    .map(|server| server.clone())
                    .unwrap_or_default();
                let (up, down) = (up.clone(), down.clone());
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(address).await else {
                        return;
                    };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::join!(
                        carry(from_client, to_server, &up),
                        carry(from_server, to_client, &down)
                    );
                });
            }
        });
        Ok(this)
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, carried: &AtomicU64) {
    let mut piece = vec![0; 256 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        carried.fetch_add(length as u64, Ordering::Relaxed);
        if to.write_all(&piece[..length]).await.is_err() {
            break;
        }
    }
}
