//! The helpers that the tests share: a backend, a gateway in front of it, and a client that sends
//! bytes.

use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use iip_core::{HandlerError, Request, Response, Server, handler_fn};
use iip_gateway::{AccessLog, Dialect, Gateway, GatewayBuilder, Group, LogFormat, Route};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;

/// Time after which a test gives up waiting.
pub(crate) const GUARD: Duration = Duration::from_secs(60);

/// Fails the test if `future` takes longer than [`GUARD`].
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(GUARD, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} did not happen within {GUARD:?}"),
    }
}

/// Advances the clock of the runtime, which has one thread.
pub(crate) async fn passes(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// Lets every task of this thread run until it has to wait, and its bytes arrive over loopback.
pub(crate) async fn all_run() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

/// The lines of an access log, in memory.
#[derive(Clone, Default)]
pub(crate) struct LogLines(Arc<Mutex<Vec<u8>>>);

impl Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LogLines {
    /// Returns the log that writes them.
    pub(crate) fn log(&self, format: LogFormat) -> AccessLog {
        AccessLog::writer(self.clone(), format).unwrap()
    }

    /// Waits for this number of lines.
    pub(crate) async fn take(&self, count: usize) -> Vec<String> {
        let lines = || {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        until("the lines of the log", || lines().len() >= count).await;
        lines()
    }

    /// Waits for this number of lines of JSON.
    pub(crate) async fn json(&self, count: usize) -> Vec<Value> {
        let lines = self.take(count).await;
        let lines = lines.iter();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    within(what, async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// An IIP server that records the paths of its requests.
pub(crate) struct Backend {
    pub(crate) server: Server,
    pub(crate) paths: Arc<Mutex<Vec<String>>>,
    /// Calls of `/wait` take one permit each.
    pub(crate) permits: Arc<Semaphore>,
}

impl Backend {
    pub(crate) async fn new() -> Self {
        let paths = Arc::new(Mutex::new(Vec::new()));
        let permits = Arc::new(Semaphore::new(0));
        let (record, wait) = (Arc::clone(&paths), Arc::clone(&permits));
        let handler = handler_fn(move |request: Request| {
            let query = String::from_utf8_lossy(request.query().as_bytes()).into_owned();
            record
                .lock()
                .unwrap()
                .push(format!("{}?{query}", request.path()));
            let wait = Arc::clone(&wait);
            async move {
                match request.path() {
                    "/fail" => return Err(HandlerError::new("boom")),
                    "/wait" => wait.acquire().await.unwrap().forget(),
                    "/large" => return Ok(Response::from(vec![b'x'; 8 << 20])),
                    "/code" => return Ok(Response::from(r#"{"code":5,"message":"no user"}"#)),
                    _ => {}
                }
                Ok(Response::from(request.into_body()))
            }
        });
        let server = Server::builder();
        let routes = [
            "/hdr", "/echo", "/params", "/fail", "/wait", "/slow", "/large", "/code", "/x",
        ];
        let handler = Arc::new(handler);
        let server = routes.iter().fold(server, |server, path| {
            server.route_shared(path, Arc::clone(&handler) as _)
        });
        Self {
            server: server.bind("127.0.0.1:0").await.unwrap(),
            paths,
            permits,
        }
    }

    pub(crate) fn group(&self) -> Group {
        Group::new(self.server.target())
    }

    /// Returns the paths of the requests so far.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.paths.lock().unwrap().clone()
    }
}

/// Returns a builder whose one group is the backend, with the Go dialect.
pub(crate) fn before(backend: &Backend) -> GatewayBuilder {
    Gateway::builder()
        .group("go", backend.group().dialect(Dialect::Go))
        .route(Route::all("go"))
}

/// Starts a gateway on a free port.
pub(crate) async fn bound(builder: GatewayBuilder) -> (Gateway, SocketAddr) {
    builder.bind("127.0.0.1:0").await.unwrap()
}

/// A reply of HTTP/1.1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// A connection of a client of HTTP/1.1.
pub(crate) struct Http {
    pub(crate) stream: TcpStream,
    unread: Vec<u8>,
}

impl Http {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    /// Connects from an address of this machine.
    pub(crate) async fn connect_from(from: &str, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(from.parse().unwrap()).unwrap();
        Self::over(socket.connect(address).await.unwrap())
    }

    fn over(stream: TcpStream) -> Self {
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // A gateway that has rejected the request may have closed the connection.
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Reads the head of a reply; `None` if the connection was closed instead.
    pub(crate) async fn try_head(&mut self) -> Option<Reply> {
        within("the head of a reply", async {
            let head_end = loop {
                if let Some(at) = self.unread.windows(4).position(|part| part == b"\r\n\r\n") {
                    break at;
                }
                if !matches!(self.stream.read_buf(&mut self.unread).await, Ok(1..)) {
                    return None;
                }
            };
            let head = String::from_utf8(self.unread[..head_end].to_vec()).unwrap();
            self.unread.drain(..head_end + 4);
            Some(Reply {
                status: head[9..12].parse().unwrap(),
                head,
                body: String::new(),
            })
        })
        .await
    }

    /// Reads the next chunk of a body; `None` after the last one, or if the connection was closed.
    pub(crate) async fn chunk(&mut self) -> Option<String> {
        within("a chunk", async {
            let (start, length) = loop {
                if let Some(at) = self.unread.windows(2).position(|part| part == b"\r\n") {
                    let length = std::str::from_utf8(&self.unread[..at]).unwrap();
                    break (at + 2, usize::from_str_radix(length, 16).unwrap());
                }
                if !matches!(self.stream.read_buf(&mut self.unread).await, Ok(1..)) {
                    return None;
                }
            };
            while self.unread.len() < start + length + 2 {
                if !matches!(self.stream.read_buf(&mut self.unread).await, Ok(1..)) {
                    return None;
                }
            }
            let chunk: Vec<u8> = self.unread.drain(..start + length + 2).collect();
            let chunk = String::from_utf8(chunk[start..start + length].to_vec()).unwrap();
            (length > 0).then_some(chunk)
        })
        .await
    }

    /// Reads chunks until their text contains `part`, and returns the text so far.
    pub(crate) async fn chunks_until(&mut self, part: &str) -> String {
        let mut text = String::new();
        while !text.contains(part) {
            let chunk = self.chunk().await;
            text += &chunk.unwrap_or_else(|| panic!("the stream ended after {text:?}"));
        }
        text
    }

    /// Reads a reply; `None` if the connection was closed instead.
    pub(crate) async fn try_reply(&mut self) -> Option<Reply> {
        let mut reply = self.try_head().await?;
        within("a reply", async {
            if reply.header("transfer-encoding") == Some("chunked") {
                while let Some(chunk) = self.chunk().await {
                    reply.body += &chunk;
                }
                return Some(reply);
            }
            let length = reply
                .header("content-length")
                .unwrap_or("0")
                .parse()
                .unwrap();
            while self.unread.len() < length {
                if !matches!(self.stream.read_buf(&mut self.unread).await, Ok(1..)) {
                    return None;
                }
            }
            let body = self.unread.drain(..length).collect();
            reply.body = String::from_utf8(body).unwrap();
            Some(reply)
        })
        .await
    }

    pub(crate) async fn reply(&mut self) -> Reply {
        self.try_reply()
            .await
            .expect("a reply, not the end of the connection")
    }

    /// Waits until the gateway closes the connection, and returns what it sent before.
    pub(crate) async fn closed(&mut self) -> Vec<u8> {
        within("the end of the connection", async {
            while matches!(self.stream.read_buf(&mut self.unread).await, Ok(1..)) {}
        })
        .await;
        std::mem::take(&mut self.unread)
    }
}

/// Sends one request on a new connection.
pub(crate) async fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Reply {
    let mut http = Http::connect(address).await;
    http.send(request).await;
    http.reply().await
}

/// Returns the text of a GET request.
pub(crate) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// Returns the text of a POST request.
pub(crate) fn post(target: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Checks that the gateway serves a new connection.
pub(crate) async fn serves(address: SocketAddr) {
    let reply = ask(address, post("/echo", "still here")).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "still here"));
}
