//! Our server with the handlers of the Go programs that were recorded, deduced from the recordings.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use iip_core::{
    HandlerError, Limits, Request, RequestMode, Response, Server, ServerBuilder, handler_fn,
};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::common::generate::{lin, lin_slice};
use crate::common::transcript::sha256;

/// A server like the recorded ones, on a port that the system chose.
pub(crate) struct GoServer {
    pub(crate) addr: SocketAddr,
    pub(crate) slow: Gates,
    server: Server,
}

impl GoServer {
    pub(crate) async fn start() -> Self {
        Self::configured(|config| config).await
    }

    pub(crate) async fn with_limits(limits: Limits) -> Self {
        Self::configured(|config| config.limits(limits)).await
    }

    pub(crate) async fn configured(configure: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        let slow = Gates::default();
        let config = configure(routes(Server::builder(), slow.clone()));
        let server = config
            .bind("127.0.0.1:0")
            .await
            .expect("loopback has a free port");
        let addr = server.local_addr().expect("a TCP server has an address");
        Self { addr, slow, server }
    }

    pub(crate) async fn stop(self) {
        self.slow.open_all();
        self.server
            .shutdown(std::time::Duration::from_secs(5))
            .await;
    }
}

/// Holds every call of `/slow` until the recording contains its reply, whatever the milliseconds
/// were: so the order of events is the recorded one on any machine.
#[derive(Clone, Default)]
pub(crate) struct Gates {
    state: Arc<(Mutex<Open>, Notify)>,
}

#[derive(Default)]
struct Open {
    bodies: HashSet<Vec<u8>>,
    all: bool,
}

impl Gates {
    /// Releases the call with this body.
    pub(crate) fn open(&self, body: &[u8]) {
        self.state
            .0
            .lock()
            .expect("no panic while locked")
            .bodies
            .insert(body.to_vec());
        self.state.1.notify_waiters();
    }

    /// Releases every call, now and later.
    pub(crate) fn open_all(&self) {
        self.state.0.lock().expect("no panic while locked").all = true;
        self.state.1.notify_waiters();
    }

    async fn pass(&self, body: &[u8]) {
        loop {
            let changed = self.state.1.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            {
                let open = self.state.0.lock().expect("no panic while locked");
                if open.all || open.bodies.contains(body) {
                    return;
                }
            }
            changed.await;
        }
    }
}

fn routes(config: ServerBuilder, slow: Gates) -> ServerBuilder {
    config
        .route("/echo", handler_fn(echo))
        .route("/echo_benchmark", handler_fn(echo))
        .route("/upper", handler_fn(upper))
        .route(
            "/slow",
            handler_fn(move |request: Request| {
                let slow = slow.clone();
                async move {
                    slow.pass(request.body()).await;
                    Ok(Response::from(request.into_body()))
                }
            }),
        )
        .route("/fail", handler_fn(fail))
        .route("/empty", handler_fn(empty))
        .route("/empty0", handler_fn(empty))
        .route("/panic", handler_fn(panics))
        .route("/params", handler_fn(params))
        .route("/hdr", handler_fn(header))
        .route("/digest", handler_fn(digest))
        .route("/big", handler_fn(big))
        .route(
            "/chunked",
            handler_fn(chunked).request_mode(RequestMode::Parts),
        )
        .route("/progress", handler_fn(progress))
        .route("/download_file", handler_fn(download))
        .route("/upload_file", handler_fn(upload))
}

async fn echo(request: Request) -> Result<Response, HandlerError> {
    Ok(Response::from(request.into_body()))
}

async fn upper(request: Request) -> Result<Response, HandlerError> {
    Ok(Response::from(request.body().to_ascii_uppercase()))
}

async fn fail(request: Request) -> Result<Response, HandlerError> {
    let text = request
        .query()
        .get("msg")
        .map_or_else(|| "boom".to_owned(), |text| text.into_owned());
    Err(HandlerError::new(text))
}

async fn empty(_: Request) -> Result<Response, HandlerError> {
    Ok(Response::empty())
}

async fn panics(_: Request) -> Result<Response, HandlerError> {
    panic!("this handler panics, as the recorded one did")
}

/// `{"params":{..},"path":".."}` with sorted names, like Go's maps.
async fn params(request: Request) -> Result<Response, HandlerError> {
    let reply = json!({ "params": parameters(&request), "path": request.path() });
    Ok(Response::from(reply.to_string()))
}

fn parameters(request: &Request) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in request.query().iter() {
        all.entry(name.into_owned())
            .or_default()
            .push(value.into_owned());
    }
    all
}

/// The header map that the HTTP adapter put into the query.
async fn header(request: Request) -> Result<Response, HandlerError> {
    let encoded = request
        .query()
        .get("__http_hdr__")
        .ok_or_else(|| HandlerError::new("no header"))?;
    let header: Value = serde_json::from_slice(&base64url(&encoded))
        .map_err(|_| HandlerError::new("bad header"))?;
    let body = String::from_utf8_lossy(request.body()).into_owned();
    let reply = json!({ "body": body, "header": header, "params": parameters(&request) });
    Ok(Response::from(reply.to_string()))
}

/// URL-safe base64 with padding.
fn base64url(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for letter in text.bytes().take_while(|&letter| letter != b'=') {
        let value = ALPHABET
            .iter()
            .position(|&known| known == letter)
            .expect("a letter of base64url");
        bits = bits << 6 | u32::try_from(value).expect("below 64");
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    bytes
}

async fn digest(request: Request) -> Result<Response, HandlerError> {
    let body = request.body();
    Ok(Response::from(format!(
        "{{\"len\":{},\"sha256\":\"{}\"}}",
        body.len(),
        sha256(body)
    )))
}

async fn big(request: Request) -> Result<Response, HandlerError> {
    Ok(Response::from(lin(0, parameter(&request, "n")?)))
}

/// `n` parts of `size` bytes, together `lin:1`.
async fn chunked(mut request: Request) -> Result<Response, HandlerError> {
    let (n, size): (usize, usize) = (parameter(&request, "n")?, parameter(&request, "size")?);
    let mut reply = request
        .reply()
        .ok_or_else(|| HandlerError::new("not streamed"))?;
    for part in 1..n {
        reply
            .send(lin_slice(1, (part - 1) * size, part * size))
            .await?;
    }
    reply.finish(lin_slice(1, (n - 1) * size, n * size))?;
    Ok(Response::streamed())
}

/// The Go handler replied to every unfinished frame; this one is called once, with the whole
/// message.
async fn progress(request: Request) -> Result<Response, HandlerError> {
    Ok(Response::from(format!(
        "{{\"done\":true,\"len\":{}}}",
        request.body().len()
    )))
}

/// 25000 bytes of `lin:21`, 10236 at a time after the end mark.
async fn download(request: Request) -> Result<Response, HandlerError> {
    let asked: Value =
        serde_json::from_slice(request.body()).map_err(|_| HandlerError::new("bad request"))?;
    if asked["FilePath"] != "/srv/files/example/dl.bin" {
        return Err(HandlerError::new("no such file"));
    }
    let from = asked["DownloadStartPos"]
        .as_u64()
        .and_then(|from| usize::try_from(from).ok());
    let from = from.ok_or_else(|| HandlerError::new("bad request"))?;
    let to = 25_000.min(from + 10_236);
    let mut reply = u32::from(from == to).to_be_bytes().to_vec();
    reply.extend(lin_slice(21, from, to));
    Ok(Response::from(reply))
}

/// Length of the JSON, JSON, bytes of the file.
async fn upload(request: Request) -> Result<Response, HandlerError> {
    let body = request.body();
    let parsed = body.split_first_chunk::<4>().and_then(|(len, rest)| {
        let len = u32::from_be_bytes(*len) as usize;
        let description: Value = serde_json::from_slice(rest.get(..len)?).ok()?;
        Some((description, rest.len() - len))
    });
    let (description, done) = parsed.ok_or_else(|| HandlerError::new("bad request"))?;
    Ok(Response::from(format!(
        "{{\"TaskId\":{},\"DoneBytes\":{done}}}",
        description["TaskId"]
    )))
}

fn parameter<T: std::str::FromStr>(request: &Request, name: &str) -> Result<T, HandlerError> {
    let text = request
        .query()
        .get(name)
        .ok_or_else(|| HandlerError::new(format!("no {name}")))?;
    text.parse()
        .map_err(|_| HandlerError::new(format!("{name} is no number")))
}
