//! Requests of the page and their replies.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderMap,
    HeaderName, HeaderValue, LOCATION, ORIGIN, REFERRER_POLICY, RETRY_AFTER, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{Method, Response, StatusCode};

use super::events::{Events, Places};
use super::monitor::Monitor;
use super::page::{HTML, POLICY};
use super::source::Source;
use crate::body::ReplyBody;
use crate::drain::Drain;
use crate::exchange::Exchange;

/// The path of the page.
pub(super) const PATH: &str = "/live";

/// The header with the token of an action. Scripts of other origins cannot set it.
const TOKEN: HeaderName = HeaderName::from_static("x-live-token");

/// A client that requests the live page.
#[derive(Debug)]
#[non_exhaustive]
pub struct LiveClient<'a> {
    /// The address; `None` on Unix sockets and in memory.
    pub addr: Option<SocketAddr>,
    /// The verified certificates that it presented, in DER, its own first.
    pub certificates: &'a [Vec<u8>],
    headers: &'a HeaderMap,
}

impl LiveClient<'_> {
    /// Returns the value of a header of the request, such as `authorization`; `None` if it is
    /// missing or not a text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

pub(super) type Allow = dyn Fn(&LiveClient<'_>) -> bool + Send + Sync;
pub(super) type OnDrain = dyn Fn() + Send + Sync;

/// The handler of requests for the live page, for HTTP servers. Cheap to clone.
///
/// Created by [`LivePage::start`](super::LivePage::start).
#[derive(Clone)]
pub struct LiveHandler(Arc<Shared>);

pub(super) struct Shared {
    pub(super) monitor: Arc<Monitor>,
    pub(super) places: Arc<Places>,
    pub(super) allow: Option<Arc<Allow>>,
    pub(super) on_drain: Option<Box<OnDrain>>,
    /// The host names of the page, in addition to addresses and `localhost`.
    pub(super) hosts: Vec<String>,
}

impl fmt::Debug for LiveHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveHandler").finish_non_exhaustive()
    }
}

/// A reply other than the requested one.
struct Refusal(StatusCode, &'static str);

impl LiveHandler {
    pub(super) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    /// Shows another server, like [`LivePage::server`](super::LivePage::server): one that shows the
    /// page on its own port exists only after the page was started.
    pub fn add_server(&self, name: impl Into<String>, server: &iip_core::Server) {
        self.0
            .monitor
            .add(Source::server(name.into(), server.observer()));
    }

    /// Shows another client, like [`LivePage::client`](super::LivePage::client).
    pub fn add_client(&self, name: impl Into<String>, client: &iip_core::Client) {
        self.0
            .monitor
            .add(Source::client(name.into(), client.clone()));
    }

    /// Returns `true` if [`allow`](super::LivePage::allow) is set.
    pub(crate) fn has_allow(&self) -> bool {
        self.0.allow.is_some()
    }

    /// Returns `true` if this path belongs to the live page: `/live` and everything below it.
    pub(crate) fn is_for(path: &str) -> bool {
        let rest = path.strip_prefix(PATH);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Replies to a request, whose body is not needed. Events end with `drain`.
    pub(crate) fn handle(
        &self,
        exchange: &Exchange<'_>,
        certificates: &[Vec<u8>],
        drain: Option<&Drain>,
    ) -> Response<ReplyBody> {
        let client = LiveClient {
            addr: exchange.peer.addr,
            certificates,
            headers: &exchange.parts.headers,
        };
        let reply = self.reply(&client, &exchange.parts, drain);
        let mut response = reply.unwrap_or_else(|Refusal(status, text)| {
            let mut response = plain(format!("{text}\n"));
            *response.status_mut() = status;
            response
        });
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        response
    }

    fn reply(
        &self,
        client: &LiveClient<'_>,
        request: &Parts,
        drain: Option<&Drain>,
    ) -> Result<Response<ReplyBody>, Refusal> {
        let shared = &self.0;
        if !shared.allow.as_ref().is_none_or(|allow| allow(client)) {
            return Err(Refusal(
                StatusCode::FORBIDDEN,
                "you may not see the live page",
            ));
        }
        let host = authority(request);
        if !host
            .as_ref()
            .is_some_and(|host| shared.is_known(host.host()))
        {
            let text = "the host of the request is unknown: ask for the address or `localhost`, or \
                        name it by `LivePage::host`";
            return Err(Refusal(StatusCode::MISDIRECTED_REQUEST, text));
        }
        let path = request.uri.path();
        if path == "/" {
            return Ok(to_page());
        }
        let path = path
            .strip_prefix(PATH)
            .unwrap_or(path)
            .trim_end_matches('/');
        let is_read = request.method == Method::GET || request.method == Method::HEAD;
        match (path, is_read) {
            ("", true) => Ok(self.page(request)),
            ("/events", true) if request.method == Method::GET => self.events(drain.cloned()),
            ("/history", true) => self.curves(request),
            ("/drain", false) if request.method == Method::POST => self.drain(request, host),
            ("" | "/events" | "/history" | "/drain", _) => {
                let mut response = plain("the method is not allowed\n");
                *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
                let allowed = if path == "/drain" {
                    "POST"
                } else {
                    "GET, HEAD"
                };
                response
                    .headers_mut()
                    .insert(ALLOW, HeaderValue::from_static(allowed));
                Ok(response)
            }
            _ => Err(Refusal(StatusCode::NOT_FOUND, "there is only /live")),
        }
    }

    fn page(&self, request: &Parts) -> Response<ReplyBody> {
        let accepts = |wanted: &str| {
            let values = request.headers.get_all(ACCEPT).iter();
            values
                .filter_map(|value| value.to_str().ok())
                .any(|value| value.contains(wanted))
        };
        let monitor = &self.0.monitor;
        let mut response = if accepts("text/html") {
            with_type(
                ReplyBody::new(Bytes::from_static(HTML.as_bytes())),
                "text/html; charset=utf-8",
            )
        } else if accepts("application/json") {
            let with_curves = parameter(request, "curves") != Some("false");
            with_type(
                ReplyBody::new(monitor.json(with_curves)),
                "application/json",
            )
        } else {
            plain(monitor.text())
        };
        response
            .headers_mut()
            .insert(VARY, HeaderValue::from_static("accept"));
        response
    }

    fn events(&self, drain: Option<Drain>) -> Result<Response<ReplyBody>, Refusal> {
        let Some(place) = self.0.places.take() else {
            let mut response = plain("there are too many viewers (option max_viewers)\n");
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static("5"));
            return Ok(response);
        };
        let events = Events::new(Arc::clone(&self.0.monitor), drain, place);
        let body = ReplyBody::stream(events);
        let mut response = with_type(body, "text/event-stream");
        // Otherwise, some proxies would buffer the events.
        response.headers_mut().insert(
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        );
        Ok(response)
    }

    fn curves(&self, request: &Parts) -> Result<Response<ReplyBody>, Refusal> {
        let number = parameter(request, "method").and_then(|number| number.parse().ok());
        let number = number.ok_or(Refusal(
            StatusCode::BAD_REQUEST,
            "the parameter `method` must be the id of a method",
        ))?;
        let curves = self.0.monitor.curves(number);
        let curves = curves.ok_or(Refusal(StatusCode::NOT_FOUND, "the method has no curves"))?;
        Ok(with_type(ReplyBody::new(curves), "application/json"))
    }

    fn drain(
        &self,
        request: &Parts,
        host: Option<Authority>,
    ) -> Result<Response<ReplyBody>, Refusal> {
        let Some(on_drain) = &self.0.on_drain else {
            return Err(Refusal(StatusCode::NOT_FOUND, "there is nothing to drain"));
        };
        let header = |name: &HeaderName| request.headers.get(name).map(HeaderValue::as_bytes);
        // Browsers send the origin with every POST request.
        let origin = header(&ORIGIN).map(|origin| {
            let origin = std::str::from_utf8(origin).unwrap_or_default();
            let origin = origin.split_once("://").map_or("", |(_, origin)| origin);
            host.is_some_and(|host| host.as_str().eq_ignore_ascii_case(origin))
        });
        if origin == Some(false) {
            return Err(Refusal(
                StatusCode::FORBIDDEN,
                "the request is of another origin",
            ));
        }
        let token = header(&TOKEN).unwrap_or_default();
        if !is_same(token, self.0.monitor.token().as_bytes()) {
            let text = "the header `x-live-token` must be `drain.token` of the numbers as JSON";
            return Err(Refusal(StatusCode::FORBIDDEN, text));
        }
        if self.0.monitor.set_draining() {
            tracing::info!("the live page was asked to drain");
            on_drain();
        }
        let mut response = plain("draining\n");
        *response.status_mut() = StatusCode::ACCEPTED;
        Ok(response)
    }
}

impl Shared {
    /// Returns `true` if the host is known, or cannot be the name of another site. The name of
    /// another site may resolve to our address, and its pages could then read our replies (DNS
    /// rebinding).
    fn is_known(&self, host: &str) -> bool {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        bare.unwrap_or(host).parse::<IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || self
                .hosts
                .iter()
                .any(|known| known.eq_ignore_ascii_case(host))
    }
}

/// Returns the value of a parameter in the query.
fn parameter<'a>(request: &'a Parts, name: &str) -> Option<&'a str> {
    let mut pairs = request.uri.query()?.split('&');
    pairs.find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn authority(request: &Parts) -> Option<Authority> {
    if let Some(authority) = request.uri.authority() {
        return Some(authority.clone());
    }
    let host = request.headers.get(HOST)?;
    Authority::try_from(host.as_bytes()).ok()
}

/// Compares in constant time.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let pairs = one.iter().zip(other);
    one.len() == other.len() && pairs.fold(0, |seen, (one, other)| seen | (one ^ other)) == 0
}

fn with_type(body: ReplyBody, content_type: &'static str) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn plain(text: impl Into<Bytes>) -> Response<ReplyBody> {
    with_type(ReplyBody::new(text.into()), "text/plain; charset=utf-8")
}

/// Returns the redirect from the root of a separate listener to the page.
fn to_page() -> Response<ReplyBody> {
    let mut response = plain("see /live\n");
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response
        .headers_mut()
        .insert(LOCATION, HeaderValue::from_static(PATH));
    response
}
