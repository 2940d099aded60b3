//! The program: its options and signals.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use crate::common::{Backend, ask, get};
use crate::dir::Dir;

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_iip-gateway"))
}

/// The program while it serves. It ends when this is dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    log: BufReader<ChildStderr>,
}

impl Running {
    pub(crate) fn start(config: &PathBuf) -> Self {
        let mut child = program()
            .arg(config)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log }
    }

    /// Reads the log up to a line with this text.
    fn line(&mut self, text: &str) -> String {
        let mut line = String::new();
        while self.log.read_line(&mut line).unwrap() > 0 {
            if line.contains(text) {
                return line;
            }
            line.clear();
        }
        panic!("the program has ended without `{text}`");
    }

    pub(crate) fn address(&mut self) -> SocketAddr {
        let line = self.line("the gateway listens");
        let (_, address) = line.trim_end().rsplit_once("address=").unwrap();
        address.parse().unwrap()
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill")
            .args([&format!("-{name}"), &id])
            .status()
            .unwrap();
        assert!(status.success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn config(target: &str, more: &str) -> String {
    format!(
        "workers = 2\n{more}\n[[listen]]\naddress = \"127.0.0.1:0\"\n[groups.go]\n\
         target = \"{target}\"\ndialect = \"go\"\n[[routes]]\ngroup = \"go\"\n"
    )
}

#[test]
fn check_reports_mistakes_and_does_not_serve() {
    let dir = Dir::new();
    let check = |name: &str, text: &str| -> Output {
        let path = dir.write(name, text);
        program().arg("--check").arg(path).output().unwrap()
    };
    let good = check("good.toml", &config("127.0.0.1:1", ""));
    assert!(good.status.success(), "{good:?}");
    let bad = check("bad.toml", &config("127.0.0.1:1", "wrong = 1"));
    assert_eq!(bad.status.code(), Some(1));
    let said = String::from_utf8(bad.stderr).unwrap();
    assert!(
        said.contains("bad.toml, line 2, column 1: unknown field `wrong`"),
        "{said}"
    );
    assert_eq!(
        program().arg("--nonsense").output().unwrap().status.code(),
        Some(2)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_serves_reloads_and_drains() {
    let (old, new) = (Backend::new().await, Backend::new().await);
    let dir = Dir::new();
    let path = dir.write("gateway.toml", &config(old.server.target(), ""));
    let mut running = Running::start(&path);
    let address = running.address();
    assert_eq!(ask(address, get("/echo")).await.status, 200);
    assert_eq!(old.seen().len(), 1);

    dir.write("gateway.toml", "wrong = 1");
    running.signal("HUP");
    let line = running.line("was not reloaded");
    assert!(line.contains("line 1, column 1"), "{line}");
    assert_eq!(ask(address, get("/echo")).await.status, 200);
    assert_eq!(old.seen().len(), 2);

    dir.write("gateway.toml", &config(new.server.target(), ""));
    running.signal("HUP");
    running.line("the configuration was reloaded");
    assert_eq!(ask(address, get("/echo")).await.status, 200);
    assert_eq!((old.seen().len(), new.seen().len()), (2, 1));

    let live = config(new.server.target(), "live = { address = \"127.0.0.1:0\" }");
    dir.write("gateway.toml", &live);
    running.signal("HUP");
    let line = running.line("was not reloaded");
    assert!(
        line.contains("`live` cannot be changed by a reload"),
        "{line}"
    );

    running.signal("TERM");
    running.line("the gateway ends");
    let status = tokio::task::block_in_place(|| running.child.wait()).unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_shows_the_live_page_and_ends_when_it_is_drained_there() {
    let backend = Backend::new().await;
    let dir = Dir::new();
    let live = "live = { address = \"127.0.0.1:0\", drain = true }";
    let path = dir.write("gateway.toml", &config(backend.server.target(), live));
    let mut running = Running::start(&path);
    running.address();
    let line = running.line("the live page is at /live");
    let (_, address) = line.trim_end().rsplit_once("address=").unwrap();
    let address: SocketAddr = address.parse().unwrap();

    let accept = "Host: localhost\r\nAccept: application/json\r\n";
    let reply = ask(address, format!("GET /live HTTP/1.1\r\n{accept}\r\n")).await;
    let numbers: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(numbers["sources"][0]["name"], "go");
    let token = numbers["drain"]["token"].as_str().unwrap();
    let headers = format!("Host: localhost\r\nX-Live-Token: {token}\r\nContent-Length: 0\r\n");
    let reply = ask(
        address,
        format!("POST /live/drain HTTP/1.1\r\n{headers}\r\n"),
    )
    .await;
    assert_eq!(reply.status, 202);
    let line = running.line("the gateway ends");
    assert!(line.contains("live page"), "{line}");
    let status = tokio::task::block_in_place(|| running.child.wait()).unwrap();
    assert!(status.success());
}
