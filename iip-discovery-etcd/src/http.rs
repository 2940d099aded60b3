//! One connection to a member of etcd, by HTTP/1.1.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use iip_core::transport::{Connector, Endpoint, IoStream};
use tokio::task::JoinHandle;

use crate::answer::read_error;
use crate::failure::{Failure, printable};

/// The maximum length of the body of an error.
const MAX_ERROR: usize = 64 * 1024;

/// A member of the cluster.
#[derive(Debug)]
pub(crate) struct Member {
    /// `host:port`.
    pub(crate) name: String,
    pub(crate) endpoint: Endpoint,
}

/// A task that ends with its owner.
#[derive(Debug)]
pub(crate) struct AbortOnDrop(pub(crate) JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection. It is closed when it is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// The likely mistake if the member does not understand a request.
    hint: &'static str,
    _task: AbortOnDrop,
}

/// The body of an answer with the status 200.
#[derive(Debug)]
pub(crate) struct Body(Incoming);

/// Runs `future` for at most `limit`.
pub(crate) async fn within<T>(
    limit: Duration,
    future: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, future).await {
        Ok(result) => result,
        Err(_) => Err(Failure::Silent(limit)),
    }
}

/// The settings that all connections share.
#[derive(Debug)]
pub(crate) struct Dialer {
    pub(crate) connect_timeout: Duration,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<iip_core::tls::ClientTls>,
}

impl Dialer {
    /// Connects within the time limit, including TLS.
    pub(crate) async fn connect(&self, member: &Member) -> Result<Connection, Failure> {
        let limit = self.connect_timeout;
        let io = match tokio::time::timeout(limit, self.open(&member.endpoint)).await {
            Ok(result) => result.map_err(|error| Failure::Unreachable(error.to_string()))?,
            Err(_) => {
                let reason = format!("no connection within {limit:?}");
                return Err(Failure::Unreachable(reason));
            }
        };
        let (sender, connection) = handshake(TokioIo::new(io)).await.map_err(|e| lost(&e))?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::trace!(%error, "a connection to etcd has ended");
            }
        });
        Ok(Connection {
            sender,
            hint: self.hint(),
            _task: AbortOnDrop(task),
        })
    }

    fn hint(&self) -> &'static str {
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            return "";
        }
        "; if the port requires TLS, set `EtcdBuilder::tls`"
    }

    async fn open(&self, endpoint: &Endpoint) -> std::io::Result<IoStream> {
        let io = endpoint.connect().await?.io;
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return Ok(tls.connect(io, endpoint.host()).await?.0);
        }
        Ok(io)
    }
}

impl Connection {
    /// Returns `true` if the connection can take a request.
    pub(crate) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Sends a request and waits for the head of the answer. If it is an error, its body is read
    /// too.
    pub(crate) async fn post(
        &mut self,
        member: &Member,
        path: &str,
        token: Option<&str>,
        body: Bytes,
    ) -> Result<Body, Failure> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, &member.name)
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            let mut token = HeaderValue::from_str(token)
                .map_err(|_| Failure::Bad("the token of etcd is not a header".to_owned()))?;
            token.set_sensitive(true);
            request = request.header(AUTHORIZATION, token);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| Failure::Bad(error.to_string()))?;
        self.sender.ready().await.map_err(|error| lost(&error))?;
        let sent = self.sender.send_request(request).await;
        let response = match sent {
            Ok(response) => response,
            Err(error) if error.is_incomplete_message() => {
                let hint = self.hint;
                return Err(Failure::Lost(format!(
                    "it was closed without an answer{hint}"
                )));
            }
            Err(error) => return Err(lost(&error)),
        };
        match response.status() {
            StatusCode::OK => Ok(Body(response.into_body())),
            _ => Err(read_failure(response, path, self.hint).await),
        }
    }
}

impl Body {
    /// Returns the next bytes; `None` at the end.
    ///
    /// # Cancel safety
    ///
    /// No bytes are lost if the future is dropped.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            match self.0.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(lost(&error)),
                Some(Ok(frame)) => {
                    // Other frames are trailers.
                    if let Ok(chunk) = frame.into_data() {
                        return Ok(Some(chunk));
                    }
                }
            }
        }
    }

    /// Returns the whole body, which may have `limit` bytes.
    pub(crate) async fn read(mut self, limit: usize) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if chunk.len() > limit - body.len() {
                return Err(Failure::Bad(format!(
                    "the answer has more than {limit} bytes"
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

async fn read_failure(response: Response<Incoming>, path: &str, tls: &str) -> Failure {
    let status = response.status();
    let body = match Body(response.into_body()).read(MAX_ERROR).await {
        Ok(body) => body,
        Err(failure) => return failure,
    };
    if let Some(failure) = read_error(&body) {
        return failure;
    }
    let hint = match status {
        StatusCode::NOT_FOUND => "; etcd 3.4 or later is required, on its client port",
        StatusCode::BAD_REQUEST => tls,
        _ => "",
    };
    let body = printable(&body);
    Failure::Bad(format!(
        "HTTP status {} for {path}: `{body}`{hint}",
        status.as_u16()
    ))
}

/// Returns the failure of a connection, with the causes of hyper's error.
fn lost(error: &hyper::Error) -> Failure {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    Failure::Lost(printable(text.as_bytes()))
}
