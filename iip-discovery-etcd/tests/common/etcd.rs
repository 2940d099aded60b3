//! A server of etcd.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{PREFIX, eventually};

/// A server of etcd with its data in a temporary folder. It is killed when this is dropped.
pub(crate) struct EtcdServer {
    pub(crate) port: u16,
    /// The port while the first one is not used.
    spare_port: u16,
    setup: Setup,
    child: Child,
}

/// The properties that a server keeps when it starts again.
struct Setup {
    scheme: &'static str,
    peer_port: u16,
    name: String,
    cluster: String,
    folder: PathBuf,
    arguments: Vec<String>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

impl EtcdServer {
    /// Starts a server and waits until it answers.
    pub(crate) async fn start() -> Self {
        let server = Self::spawn("http", &[]);
        server.ready().await;
        server
    }

    /// Starts a cluster and waits until each of its members answers.
    pub(crate) async fn start_cluster(count: usize) -> Vec<Self> {
        let servers = Self::spawn_cluster(count, "http", &[]);
        for server in &servers {
            server.ready().await;
        }
        servers
    }

    /// Starts a server whose clients connect by `scheme`.
    pub(crate) fn spawn(scheme: &'static str, arguments: &[String]) -> Self {
        Self::spawn_cluster(1, scheme, arguments).remove(0)
    }

    fn spawn_cluster(count: usize, scheme: &'static str, arguments: &[String]) -> Vec<Self> {
        // Another process may take a port before etcd does; then etcd ends, and others are tried.
        for _ in 0..5 {
            let peers: Vec<u16> = (0..count).map(|_| free_port()).collect();
            let cluster: Vec<String> = peers
                .iter()
                .map(|port| format!("m{port}=http://127.0.0.1:{port}"))
                .collect();
            let mut servers: Vec<Self> = peers
                .iter()
                .map(|peer_port| {
                    let setup = Setup {
                        scheme,
                        peer_port: *peer_port,
                        name: format!("m{peer_port}"),
                        cluster: cluster.join(","),
                        folder: new_folder(),
                        arguments: arguments.to_vec(),
                    };
                    let port = free_port();
                    Self {
                        child: setup.run(port),
                        port,
                        spare_port: free_port(),
                        setup,
                    }
                })
                .collect();
            if servers.iter_mut().all(Self::listens) {
                return servers;
            }
        }
        panic!("etcd does not start");
    }

    /// Waits until the port is open; returns `false` if the process has ended.
    fn listens(&mut self) -> bool {
        let deadline = std::time::Instant::now() + super::GUARD;
        while std::time::Instant::now() < deadline {
            if self.child.try_wait().unwrap().is_some() {
                let log = fs::read_to_string(self.setup.folder.join("log"));
                eprintln!("etcd has ended:\n{}", log.unwrap_or_default());
                return false;
            }
            if std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return true;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        false
    }

    /// Waits until a request succeeds.
    pub(crate) async fn ready(&self) {
        eventually("etcd is ready", || async {
            let answer = self.post("/v3/kv/range", &json!({"key": "AA=="})).await;
            answer.is_some_and(|answer| answer["header"]["revision"].is_string())
        })
        .await;
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts the server again on the same port, with its data.
    pub(crate) async fn restart(&mut self) {
        self.child = self.setup.run(self.port);
        assert!(self.listens(), "etcd does not start again");
        self.ready().await;
    }

    /// Uses another port from the next start on, or again the first one.
    pub(crate) fn use_another_port(&mut self) {
        std::mem::swap(&mut self.port, &mut self.spare_port);
    }

    pub(crate) fn lose_data(&self) {
        fs::remove_dir_all(self.setup.folder.join("data")).unwrap();
    }

    /// Sends a signal such as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status();
        assert!(status.unwrap().success());
    }

    /// Sends a request; `None` if there is no answer.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Option<Value> {
        self.post_with(path, body, None).await
    }

    pub(crate) async fn post_with(
        &self,
        path: &str,
        body: &Value,
        token: Option<&str>,
    ) -> Option<Value> {
        let body = body.to_string();
        let length = body.len();
        let token = token.map_or(String::new(), |token| format!("authorization: {token}\r\n"));
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: etcd\r\nconnection: close\r\n{token}content-length: \
             {length}\r\n\r\n{body}"
        );
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        // Short answers are one chunk.
        let start = answer.iter().position(|byte| *byte == b'{')?;
        let end = answer.iter().rposition(|byte| *byte == b'}')?;
        serde_json::from_slice(&answer[start..=end]).ok()
    }

    /// Sends a request that must succeed.
    pub(crate) async fn request(&self, path: &str, body: &Value) -> Value {
        let answer = self.post(path, body).await.expect("an answer of etcd");
        assert!(
            answer["header"].is_object() || answer["result"].is_object(),
            "{answer}"
        );
        answer
    }

    /// Sets a key below the prefix.
    pub(crate) async fn put(&self, id: &str, value: impl AsRef<[u8]>) {
        let body = json!({"key": key(id), "value": blob(value)});
        self.request("/v3/kv/put", &body).await;
    }

    /// Adds a server.
    pub(crate) async fn add(&self, id: &str) {
        self.put(id, "10.0.0.1:7000#1").await;
    }

    /// Adds a server, as soon as the members that remain have a leader.
    pub(crate) async fn add_if_possible(&self, id: &str) {
        let body = json!({"key": key(id), "value": blob("10.0.0.1:7000#1")});
        eventually("the server is added", || async {
            let answer = self.post("/v3/kv/put", &body).await;
            answer.is_some_and(|answer| answer["header"].is_object())
        })
        .await;
    }

    pub(crate) async fn delete(&self, id: &str) {
        self.request("/v3/kv/deleterange", &json!({"key": key(id)}))
            .await;
    }

    /// Returns the key below the prefix with its value and lease.
    pub(crate) async fn get(&self, id: &str) -> Option<Value> {
        let answer = self.request("/v3/kv/range", &json!({"key": key(id)})).await;
        answer["kvs"].get(0).cloned()
    }

    /// Forgets all old revisions.
    pub(crate) async fn compact(&self) {
        let answer = self.request("/v3/kv/range", &json!({"key": "AA=="})).await;
        let revision = &answer["header"]["revision"];
        self.request(
            "/v3/kv/compaction",
            &json!({"revision": revision, "physical": true}),
        )
        .await;
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.setup.folder);
    }
}

/// Returns the key of an id.
pub(crate) fn key(id: &str) -> String {
    blob(format!("{PREFIX}/{id}"))
}

pub(crate) fn blob(bytes: impl AsRef<[u8]>) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// Creates a folder in that of temporary files.
pub(crate) fn new_folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("iip-discovery-etcd-{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

impl Setup {
    fn run(&self, port: u16) -> Child {
        let log = fs::File::create(self.folder.join("log")).unwrap();
        let client = format!("{}://127.0.0.1:{port}", self.scheme);
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let started = Command::new("etcd")
            .args(["--name", &self.name, "--initial-cluster", &self.cluster])
            .arg("--data-dir")
            .arg(self.folder.join("data"))
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--log-level", "error"])
            .args(["--heartbeat-interval", "20", "--election-timeout", "200"])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        started.unwrap_or_else(|error| {
            panic!(
                "these tests need the program `etcd`, version 3.4 or later, in PATH ({error}): \
                 apt-get install etcd-server"
            )
        })
    }
}
