//! Listening sockets that processes pass on: successors that take over under load, a service
//! manager, and the errors of sockets that were not passed. The processes are this test binary,
//! with the name of one test and a variable that says what the process is to do.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use iip_rpc::tls::ServerTls;
use iip_rpc::transport::Listener;
use iip_rpc::{Client, ClientBuilder, Handover, Server, Status, service};
use tokio::sync::{OnceCell, mpsc};

use crate::common::alone::name_in_binary;
use crate::common::authority::Authority;
use crate::common::{GUARD, spawn, within};

/// The variable with the role of a process.
const ROLE: &str = "IIP_TEST_HANDOVER";

/// The folder with the certificate and key of a successor that uses TLS.
const TLS: &str = "IIP_TEST_HANDOVER_TLS";

/// A limit that is not reached.
const LONG: Duration = Duration::from_secs(60);

#[service]
trait Work {
    /// Not idempotent: a call that may have run is not repeated, and so would fail.
    async fn pid(&self) -> Result<u32, Status>;
    /// Starts a successor, and shuts down once it is ready.
    async fn restart(&self) -> Result<u32, Status>;
    async fn stop(&self) -> Result<(), Status>;
}

struct Generation {
    server: OnceCell<Arc<Server>>,
    tls: Option<PathBuf>,
    ends: mpsc::UnboundedSender<()>,
}

impl Work for Arc<Generation> {
    async fn pid(&self) -> Result<u32, Status> {
        Ok(std::process::id())
    }

    async fn restart(&self) -> Result<u32, Status> {
        let server = self
            .server
            .get()
            .ok_or_else(|| Status::unavailable("no server"))?;
        let mut command = this_binary("successor");
        command.stdout(Stdio::null());
        if let Some(folder) = &self.tls {
            command.env(TLS, folder);
        }
        let successor = Handover::new(command)
            .listener("iip", server.raw())
            .map_err(|error| Status::internal(error.to_string()))?;
        let pid = successor.start().await;
        let pid = pid.map_err(|error| Status::internal(error.to_string()))?;
        let _ = self.ends.send(());
        Ok(pid)
    }

    async fn stop(&self) -> Result<(), Status> {
        let _ = self.ends.send(());
        Ok(())
    }
}

/// This test binary in a role.
#[track_caller]
fn this_binary(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let name = name_in_binary("a_process_of_the_other_tests");
    command
        .args([&name[..], "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env_remove("NOTIFY_SOCKET");
    command
}

async fn serve_generation(
    target: &str,
    tls: Option<PathBuf>,
) -> (Arc<Server>, mpsc::UnboundedReceiver<()>) {
    let (ends, ended) = mpsc::unbounded_channel();
    let mut server = Server::builder();
    if let Some(folder) = &tls {
        let (chain, key) = (folder.join("chain.pem"), folder.join("key.pem"));
        server = server.tls(ServerTls::from_files(chain, key).unwrap());
    }
    let generation = Arc::new(Generation {
        server: OnceCell::new(),
        tls,
        ends,
    });
    let server = server.service(WorkServer::new(Arc::clone(&generation)));
    let server = match target {
        "inherited" => server.listen_on_inherited("iip").unwrap(),
        target => server.inherit_or_bind("iip", target).await.unwrap(),
    };
    let server = Arc::new(server);
    assert!(generation.server.set(Arc::clone(&server)).is_ok());
    (server, ended)
}

/// Plays the role that the variable names, in a process that a test has started.
#[test]
fn a_process_of_the_other_tests() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let done = runtime.block_on(async { tokio::time::timeout(GUARD * 3, play(&role)).await });
    runtime.shutdown_background();
    done.expect("the end of the test");
}

async fn play(role: &str) {
    let tls = std::env::var_os(TLS).map(PathBuf::from);
    match role {
        "successor" => {
            let (server, mut ended) = serve_generation("inherited", tls).await;
            assert!(server.notify_ready().unwrap());
            ended.recv().await;
            server.shutdown(LONG).await;
        }
        "activated" => {
            let (server, mut ended) = serve_generation("inherited", tls).await;
            assert!(!server.notify_ready().unwrap());
            assert!(Listener::inherited().is_err(), "it was taken");
            ended.recv().await;
            server.shutdown(LONG).await;
        }
        "never ready" => std::future::pending().await,
        "inherit" => {
            for listener in [Listener::inherited(), Listener::inherited_named("iip")] {
                match listener {
                    Ok(listener) => println!("took {}", listener.describe()),
                    Err(error) => println!("{:?}: {error}", error.kind()),
                }
            }
        }
        "notify" => {
            let server = Server::builder().bind("127.0.0.1:0").await.unwrap();
            match server.notify_ready() {
                Ok(sent) => println!("sent: {sent}"),
                Err(error) => println!("{error}"),
            }
            server.shutdown(LONG).await;
        }
        role => panic!("unknown: {role}"),
    }
}

/// Returns the output of a process.
fn printed(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = String::from_utf8_lossy(&stdout).into_owned();
    assert!(
        status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&stderr)
    );
    text
}

/// Makes calls until `stop`: some over one client, and some over a connection of their own each.
/// Returns the processes that have replied, and the number of calls.
async fn load(
    target: String,
    config: ClientBuilder,
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
) -> BTreeSet<u32> {
    let shared = WorkClient::new(config.clone().connect(&target[..]).await.unwrap());
    let tasks = (0..6).map(|task| {
        let (shared, target, config) = (shared.clone(), target.clone(), config.clone());
        let (stop, calls) = (Arc::clone(&stop), Arc::clone(&calls));
        spawn(async move {
            let mut pids = BTreeSet::new();
            while !stop.load(Ordering::Relaxed) {
                let pid = if task < 4 {
                    shared.pid().await
                } else {
                    match config.clone().connect(&target[..]).await {
                        Ok(client) => {
                            let pid = WorkClient::new(client.clone()).pid().await;
                            client.close(Duration::from_secs(1)).await;
                            pid
                        }
                        Err(error) => Err(error),
                    }
                };
                pids.insert(pid.unwrap_or_else(|error| panic!("task {task}: {error}")));
                calls.fetch_add(1, Ordering::Relaxed);
            }
            pids
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut pids = BTreeSet::new();
    for task in tasks {
        pids.append(&mut task.await.unwrap());
    }
    pids
}

/// Waits until so many more calls have been made.
async fn more(calls: &AtomicUsize, count: usize) {
    let before = calls.load(Ordering::Relaxed);
    within("more calls", async {
        while calls.load(Ordering::Relaxed) < before + count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

async fn successors_take_over(target: &str, config: ClientBuilder, tls: Option<PathBuf>) {
    const RESTARTS: usize = 5;
    let (server, mut ended) = serve_generation(target, tls).await;
    let target = server.target().to_owned();
    let (stop, calls) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let load = spawn(load(
        target.clone(),
        config.clone(),
        Arc::clone(&stop),
        Arc::clone(&calls),
    ));
    // The first generation is this process.
    let first = spawn(async move {
        ended.recv().await;
        server.shutdown(LONG).await;
    });
    let mut pids = BTreeSet::from([std::process::id()]);
    let mut restart = async || {
        more(&calls, 100).await;
        let client = config.clone().timeout(GUARD).connect(&target[..]).await;
        let client = WorkClient::new(client.unwrap());
        let pid = within("a successor", client.restart()).await.unwrap();
        assert!(pids.insert(pid));
    };
    restart().await;
    within("the end of the first generation", first)
        .await
        .unwrap();
    for _ in 1..RESTARTS {
        // Until the old generation has gone, a call may restart it once more.
        restart().await;
    }
    more(&calls, 100).await;
    stop.store(true, Ordering::Relaxed);
    let replied = within("the load", load).await.unwrap();
    assert_eq!(replied, pids);
    let client = config.connect(&target[..]).await.unwrap();
    WorkClient::new(client).stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_successors_take_over_a_port_under_load_and_no_call_fails() {
    successors_take_over("127.0.0.1:0", Client::builder(), None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_successors_take_over_a_port_with_tls_under_load_and_no_call_fails() {
    let authority = Authority::new("root");
    let issued = authority.issue("localhost");
    let folder = Folder::new("tls");
    std::fs::write(folder.0.join("chain.pem"), issued.chain).unwrap();
    std::fs::write(folder.0.join("key.pem"), issued.key).unwrap();
    let config = Client::builder().tls(authority.client().server_name("localhost").unwrap());
    successors_take_over("127.0.0.1:0", config, Some(folder.0.clone())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_successors_take_over_a_unix_socket_under_load_and_no_call_fails() {
    let folder = Folder::new("unix");
    let path = folder.0.join("socket");
    let target = format!("unix:{}", path.display());
    successors_take_over(&target, Client::builder(), None).await;
    assert!(path.exists(), "the file was kept for the successors");
}

#[tokio::test]
async fn a_successor_that_is_not_ready_is_killed_and_the_server_continues() {
    let (server, _ended) = serve_generation("127.0.0.1:0", None).await;
    let folder = Folder::new("killed");
    let file = folder.0.join("pid");
    let mut command = Command::new("sh");
    command.args([
        "-c",
        &format!("echo $$ > {} && exec sleep 600", file.display()),
    ]);
    let handover = Handover::new(command)
        .listener("iip", server.raw())
        .unwrap()
        .ready_timeout(Duration::from_secs(2));
    let error = within("the timeout", handover.start()).await.unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("within 2s") && error.contains("\"sh\""),
        "{error}"
    );
    let pid = std::fs::read_to_string(file).unwrap();
    let process = format!("/proc/{}/stat", pid.trim());
    within("the end of the process", async {
        // A process that was killed and not waited for yet is a zombie.
        while std::fs::read_to_string(&process).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;

    let ended = Handover::new(Command::new("false"));
    let ended = ended.listener("iip", server.raw()).unwrap().start();
    let error = within("the end of the process", ended).await.unwrap_err();
    assert!(
        error.to_string().contains("ended before it was ready"),
        "{error}"
    );

    let missing = Handover::new(Command::new("/nowhere/program"));
    let missing = missing.listener("iip", server.raw()).unwrap().start();
    let error = within("an error", missing).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    assert!(error.to_string().contains("/nowhere/program"), "{error}");

    let client = WorkClient::new(Client::connect(server.target()).await.unwrap());
    assert_eq!(client.pid().await.unwrap(), std::process::id());
}

#[tokio::test]
async fn a_dropped_handover_kills_its_successor() {
    let (server, _ended) = serve_generation("127.0.0.1:0", None).await;
    let folder = Folder::new("dropped");
    let file = folder.0.join("pid");
    let mut command = Command::new("sh");
    command.args([
        "-c",
        &format!("echo $$ > {} && exec sleep 600", file.display()),
    ]);
    let handover = Handover::new(command)
        .listener("iip", server.raw())
        .unwrap();
    let starting = spawn(handover.start());
    let mut pid = String::new();
    within("the process", async {
        while !pid.ends_with('\n') {
            pid = std::fs::read_to_string(&file).unwrap_or_default();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    starting.abort();
    assert!(starting.await.unwrap_err().is_cancelled());
    let process = format!("/proc/{}/stat", pid.trim());
    within("the end of the process", async {
        while std::fs::read_to_string(&process).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_passed_on_is_rejected() {
    let (server, _ended) = serve_generation("127.0.0.1:0", None).await;
    let handover = || Handover::new(Command::new("true"));
    for name in ["", "a:b", "a\nb", "\u{e4}"] {
        let error = handover().listener(name, server.raw()).unwrap_err();
        assert!(error.to_string().contains("without colons"), "{error}");
    }
    let twice = handover().listener("iip", server.raw()).unwrap();
    let error = twice.listener("iip", server.raw()).unwrap_err();
    assert!(error.to_string().contains("is taken"), "{error}");
    let error = handover().start().await.unwrap_err();
    assert!(error.to_string().contains("Handover::listener"), "{error}");
    let (memory, _connector) = Server::builder().in_memory().unwrap();
    let error = handover().listener("iip", memory.raw()).unwrap_err();
    assert!(error.to_string().contains("does not listen"), "{error}");
    server.shutdown(LONG).await;
    let error = handover().listener("iip", server.raw()).unwrap_err();
    assert!(error.to_string().contains("does not listen"), "{error}");
}

#[test]
fn a_socket_that_was_not_passed_is_an_error_that_says_what_is_missing() {
    // Without a socket, 3 is a number of the child's own.
    let table: [(&[(&str, &str)], &str); 5] = [
        (
            &[],
            "NotFound: no listening socket was passed to this process",
        ),
        (
            &[("LISTEN_FDS", "many")],
            "InvalidInput: the environment variable LISTEN_FDS is \"many\"",
        ),
        (
            &[("LISTEN_FDS", "1"), ("LISTEN_PID", "1")],
            "InvalidInput: the environment variable LISTEN_PID is \"1\", but this process is",
        ),
        (
            &[("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "http")],
            "NotFound: no listening socket with the name \"iip\" was passed to this process; left \
             are: \"http\"",
        ),
        (
            &[("LISTEN_FDS", "200"), ("LISTEN_FDS_FIRST_FD", "600")],
            "InvalidInput: several listening sockets were passed to this process",
        ),
    ];
    for (variables, expected) in table {
        let text = printed(this_binary("inherit").envs(variables.iter().copied()));
        assert!(text.contains(expected), "{variables:?}: {text}");
    }
    // A number that is no open file.
    let variables = [("LISTEN_FDS", "1"), ("LISTEN_FDS_FIRST_FD", "600")];
    let text = printed(this_binary("inherit").envs(variables));
    assert!(text.contains("it is not a stream socket"), "{text}");
}

#[test]
fn a_service_manager_is_told_that_the_server_is_ready_and_that_it_stops() {
    let folder = Folder::new("manager");
    let path = folder.0.join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(GUARD)).unwrap();
    let text = printed(this_binary("notify").env("NOTIFY_SOCKET", &path));
    assert!(text.contains("sent: true"), "{text}");
    let mut message = [0; 100];
    for expected in ["READY=1", "STOPPING=1"] {
        let length = manager.recv(&mut message).unwrap();
        assert_eq!(&message[..length], expected.as_bytes());
    }

    let text = printed(&mut this_binary("notify"));
    assert!(text.contains("sent: false"), "{text}");
    let text = printed(this_binary("notify").env("NOTIFY_SOCKET", folder.0.join("none")));
    assert!(text.contains("NOTIFY_SOCKET"), "{text}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_service_manager_may_listen_on_an_abstract_socket() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    let name = format!("iip-test-{}", std::process::id());
    let addr = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = UnixDatagram::bind_addr(&addr).unwrap();
    manager.set_read_timeout(Some(GUARD)).unwrap();
    printed(this_binary("notify").env("NOTIFY_SOCKET", format!("@{name}")));
    let mut message = [0; 100];
    let length = manager.recv(&mut message).unwrap();
    assert_eq!(&message[..length], b"READY=1");
}

#[tokio::test]
async fn a_server_is_started_by_the_first_connection_to_a_socket_of_systemd() {
    let tool = "systemd-socket-activate";
    let has_tool = Command::new(tool)
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if !has_tool.is_ok_and(|status| status.success()) {
        eprintln!("skipped: {tool} is not installed");
        return;
    }
    let folder = Folder::new("activate");
    let path = folder.0.join("socket");
    let program = this_binary("activated");
    let mut activate = Command::new(tool);
    activate.arg("--listen").arg(&path).arg("--fdname=iip");
    activate.arg(format!("--setenv={ROLE}=activated"));
    activate.arg(program.get_program()).args(program.get_args());
    activate.env_remove("NOTIFY_SOCKET");
    let mut activate = activate.spawn().unwrap();
    let target = format!("unix:{}", path.display());
    let client = Client::builder().wait_for_ready(true).timeout(GUARD);
    let client = within("connecting", client.connect(&target[..]))
        .await
        .unwrap();
    let client = WorkClient::new(client);
    // The tool becomes the server.
    let pid = within("a reply", client.pid()).await.unwrap();
    assert_eq!(pid, activate.id());
    client.stop().await.unwrap();
    assert!(activate.wait().unwrap().success());
}

/// A new folder for the sockets and files of a test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = format!("iip-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(Path::new(&folder));
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
