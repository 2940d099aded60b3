//! One run: a server process, a client process, and the load of other processes.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use iip_benches::report::{IdleReport, Report};
use iip_benches::{BoxError, cpu};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::options::{Cell, Idle, Layout, Options};

/// The results of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    #[serde(flatten)]
    pub(crate) report: Report,
    /// The share of all cores that was not idle and was not used by server or client.
    pub(crate) others: f64,
}

pub(crate) fn run(
    options: &Options,
    layout: Layout,
    cell: Cell,
    peer: &str,
) -> Result<Outcome, BoxError> {
    wait_for_quiet(options.patience)?;
    let before = Busy::now()?;
    let report = measure(options, layout, cell, peer).map_err(|e| format!("{peer} {cell}: {e}"))?;
    let others = Busy::now()?.others_since(&before);
    Ok(Outcome { report, others })
}

/// Waits until the machine is quiet, at most for `patience`.
fn wait_for_quiet(patience: Duration) -> Result<(), BoxError> {
    let end = Instant::now() + patience;
    while Instant::now() < end {
        let before = Busy::now()?;
        std::thread::sleep(Duration::from_millis(250));
        if Busy::now()?.others_since(&before) <= MAX_OTHERS {
            break;
        }
    }
    Ok(())
}

fn measure(options: &Options, layout: Layout, cell: Cell, peer: &str) -> Result<Report, BoxError> {
    let server = Server::start(peer, layout)?;
    let mut client = client(&server, layout, peer)?;
    client
        .args(["--mode", &options.mode.to_string()])
        .args(["--payload", &cell.payload.to_string()])
        .args(["--inflight", &cell.inflight.to_string()])
        .args(["--connections", &cell.connections.to_string()])
        .args(["--secs", &options.secs.as_secs_f64().to_string()])
        .args(["--warm", &options.warm.as_secs_f64().to_string()]);
    report(client)
}

/// Measures the memory of idle connections. No time is measured, so the load of other processes
/// does not matter.
pub(crate) fn idle(layout: Layout, cell: Idle, peer: &str) -> Result<IdleReport, BoxError> {
    let server = Server::start(peer, layout)?;
    let mut client = client(&server, layout, peer)?;
    client
        .args(["--mode", "idle"])
        .args(["--connections", &cell.connections.to_string()])
        .args(["--channels", &cell.channels.to_string()]);
    report(client).map_err(|e| format!("{peer} {cell}: {e}").into())
}

fn client(server: &Server, layout: Layout, peer: &str) -> Result<Command, BoxError> {
    let mut command = on_core(layout.client_core(), peer)?;
    command
        .args(["client", &server.addr])
        // taskset becomes the program it starts, so the child's id is the server's.
        .args(["--server-pid", &server.child.id().to_string()]);
    Ok(command)
}

fn report<T: DeserializeOwned>(mut client: Command) -> Result<T, BoxError> {
    let output = client.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("the client ended with {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The share of the machine that other processes may use during a run.
pub(crate) const MAX_OTHERS: f64 = 0.1;

/// A server process that is ended when this value is dropped.
struct Server {
    child: Child,
    addr: String,
}

impl Server {
    fn start(peer: &str, layout: Layout) -> Result<Self, BoxError> {
        let child = on_core(layout.server_core(), peer)?
            .args(["server", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut server = Self {
            child,
            addr: String::new(),
        };
        let stdout = server
            .child
            .stdout
            .take()
            .ok_or("the server has no output")?;
        BufReader::new(stdout).read_line(&mut server.addr)?;
        server.addr.truncate(server.addr.trim_end().len());
        if server.addr.is_empty() {
            return Err("the server did not say where it listens".into());
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Either fails only if the server has ended by itself, which the client has then reported.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn on_core(core: &str, peer: &str) -> Result<Command, BoxError> {
    let mut path: PathBuf = std::env::current_exe()?;
    path.set_file_name(peer);
    if !path.exists() {
        return Err(format!("no peer {}; build all binaries first", path.display()).into());
    }
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(path);
    Ok(command)
}

/// Processor time of the machine, and the part of it that this process and its children used.
struct Busy {
    at: Instant,
    cores: usize,
    machine: Duration,
    ours: Duration,
}

impl Busy {
    fn now() -> Result<Self, BoxError> {
        Ok(Self {
            at: Instant::now(),
            cores: std::thread::available_parallelism()?.get(),
            machine: cpu::machine()?,
            ours: cpu::own()? + cpu::ended_children()?,
        })
    }

    fn others_since(&self, earlier: &Self) -> f64 {
        let machine = self.machine.saturating_sub(earlier.machine);
        let ours = self.ours.saturating_sub(earlier.ours);
        let whole = (self.at - earlier.at).mul_f64(self.cores as f64);
        machine.saturating_sub(ours).div_duration_f64(whole)
    }
}
