//! Requests to a live page, over HTTP/1.1. Redirects are not followed.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use iip_core::transport::{Connector, IoStream};
#[cfg(feature = "tls")]
use iip_rpc::tls::ClientTls;
use iip_rpc::{Code, Status};
use tokio::task::JoinHandle;

use super::{Snapshot, Url};
use crate::exit::{Failure, Outcome};

/// Maximum size of a reply, in bytes.
const MAX_BYTES: usize = 64 << 20;

/// Maximum number of bytes of an error reply that are shown.
const MAX_ERROR: usize = 300;

/// The header that carries the token of an action.
const TOKEN: &str = "x-live-token";

/// The settings for requests to a live page.
#[derive(Debug)]
pub(crate) struct PageSettings {
    pub(crate) url: Url,
    /// The headers that are sent with each request, such as a password.
    pub(crate) headers: HeaderMap,
    /// The timeout of a request.
    pub(crate) timeout: Duration,
    /// The timeout of a connection attempt.
    pub(crate) connect_timeout: Duration,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<ClientTls>,
}

/// A live page. The connection is made when it is needed.
#[derive(Debug)]
pub(crate) struct Page {
    settings: PageSettings,
    open: Option<Open>,
}

/// A connection. It is closed when it is dropped.
#[derive(Debug)]
struct Open {
    sender: SendRequest<Empty<Bytes>>,
    task: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Page {
    pub(crate) fn new(settings: PageSettings) -> Self {
        Self {
            settings,
            open: None,
        }
    }

    /// Reads the state of the process, without curves.
    pub(crate) async fn read(&mut self) -> Outcome<Snapshot> {
        let mut request = self.request(Method::GET, "?curves=false")?;
        let accept = HeaderValue::from_static("application/json");
        request.headers_mut().insert(ACCEPT, accept);
        // A connection that was idle for a while may have been closed.
        let again = self.open.as_ref().map(|_| request.clone());
        let reply = match (self.send(request).await, again) {
            (Err(Failure::NotConnected(_)), Some(again)) => self.send(again).await?,
            (reply, _) => reply.map_err(|failure| match failure {
                Failure::Status(status) if status.code() == Code::Unimplemented => {
                    let (url, reason) = (&self.settings.url, status.message());
                    Status::unimplemented(format!("{url} is not a live page: {reason}")).into()
                }
                failure => failure,
            })?,
        };
        Snapshot::of_page(&reply)
    }

    /// Presses the button that drains the process.
    pub(crate) async fn drain(&mut self, token: &str) -> Outcome {
        let mut request = self.request(Method::POST, "/drain")?;
        let token = HeaderValue::from_str(token)
            .map_err(|_| Failure::Own("the token of the live page is not a header".to_owned()))?;
        request.headers_mut().insert(TOKEN, token);
        self.send(request).await.map(drop)
    }

    fn request(&self, method: Method, suffix: &str) -> Outcome<Request<Empty<Bytes>>> {
        let url = &self.settings.url;
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{suffix}", url.path))
            .header(HOST, url.authority())
            .body(Empty::new());
        let mut request = request.map_err(|error| Failure::Usage(error.to_string()))?;
        request.headers_mut().extend(self.settings.headers.clone());
        Ok(request)
    }

    async fn send(&mut self, request: Request<Empty<Bytes>>) -> Outcome<Bytes> {
        let timeout = self.settings.timeout;
        let exchange = tokio::time::timeout(timeout, self.exchange(request)).await;
        let result = exchange.unwrap_or_else(|_| {
            let text = format!("no reply within {timeout:?} (option --timeout)");
            Err(Status::deadline_exceeded(text).into())
        });
        if result.is_err() {
            self.open = None;
        }
        result
    }

    async fn exchange(&mut self, request: Request<Empty<Bytes>>) -> Outcome<Bytes> {
        let (open, is_new) = match self.open.take() {
            Some(open) if !open.sender.is_closed() => (open, false),
            _ => (self.connect().await?, true),
        };
        let open = self.open.insert(open);
        let url = &self.settings.url;
        let lost = |error: &dyn std::error::Error| {
            let causes = causes(error);
            Failure::NotConnected(match is_new {
                true => format!(
                    "{} does not reply in HTTP, as a live page does: {causes}",
                    url.authority()
                ),
                false => format!("the connection was lost: {causes}"),
            })
        };
        open.sender.ready().await.map_err(|error| lost(&error))?;
        let reply = open.sender.send_request(request).await;
        let (head, body) = reply.map_err(|error| lost(&error))?.into_parts();
        let body = Limited::new(body, MAX_BYTES).collect().await;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => Failure::Own(format!("the reply has more than {MAX_BYTES} bytes")),
            false => lost(&*error),
        });
        let body = body?.to_bytes();
        match head.status {
            status if status.is_success() => Ok(body),
            status => Err(refused(status, &body).into()),
        }
    }

    async fn connect(&self) -> Outcome<Open> {
        let limit = self.settings.connect_timeout;
        let io = tokio::time::timeout(limit, self.connect_io()).await;
        let authority = self.settings.url.authority();
        let failed = |reason: String| Failure::NotConnected(format!("{authority}: {reason}"));
        let io = io
            .map_err(|_| failed(format!("not connected within {limit:?}")))?
            .map_err(|error| failed(error.to_string()))?;
        let shaken = handshake(TokioIo::new(io)).await;
        let (sender, connection) = shaken.map_err(|error| failed(causes(&error)))?;
        let task = tokio::spawn(async move {
            // The pending request gets the error.
            let _ = connection.await;
        });
        Ok(Open { sender, task })
    }

    async fn connect_io(&self) -> io::Result<IoStream> {
        let io = self.settings.url.endpoint().connect().await?.io;
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.settings.tls {
            return Ok(tls.connect(io, Some(&self.settings.url.host)).await?.0);
        }
        Ok(io)
    }
}

/// Returns the status of a rejected request, with the first line of a reply that is not HTML.
fn refused(status: StatusCode, body: &[u8]) -> Status {
    let text = String::from_utf8_lossy(body.get(..MAX_ERROR).unwrap_or(body));
    let first = text.lines().next().filter(|line| !line.starts_with('<'));
    let first = first.map_or_else(String::new, |line| format!(": {line}"));
    let code = match status.as_u16() {
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 | 405 => Code::Unimplemented,
        503 => Code::Unavailable,
        _ => Code::Unknown,
    };
    Status::new(code, format!("HTTP status {}{first}", status.as_u16()))
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
