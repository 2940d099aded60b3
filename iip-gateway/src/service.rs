//! A request on its way: checks, the choice of the target, the handler of the target, the reply and
//! the record of it.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Request, Response};
use tokio::time::Instant;

use crate::access_log::{AccessLog, Entry};
use crate::body::ReplyBody;
use crate::connection::Origin;
use crate::failure::Failure;
use crate::gateway::{Live, Worker};
use crate::io::RunningRequest;
use crate::proxy;
use crate::request::{self, Checked};
use crate::route::{RouteRequest, Target};
use crate::scan::Fault;

/// The status in the log for a request whose client has gone.
const CLIENT_GONE: u16 = 499;

/// The client of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) addr: Option<SocketAddr>,
    pub(crate) is_trusted: bool,
    pub(crate) is_tls: bool,
    pub(crate) worker: Arc<Worker>,
}

impl Peer {
    pub(crate) fn new(origin: &Origin, worker: &Arc<Worker>) -> Arc<Self> {
        Arc::new(Self {
            addr: origin.peer,
            is_trusted: origin.is_trusted,
            is_tls: origin.is_tls,
            worker: Arc::clone(worker),
        })
    }
}

/// A request that has passed the checks.
#[derive(Debug)]
pub(crate) struct Exchange<'a> {
    pub(crate) peer: &'a Peer,
    pub(crate) live: &'a Live,
    pub(crate) checked: Checked,
    pub(crate) parts: Parts,
    pub(crate) body: Incoming,
}

/// Handles a request.
pub(crate) async fn handle(
    peer: Arc<Peer>,
    mut running: RunningRequest,
    fault: Option<Fault>,
    request: Request<Incoming>,
) -> Response<ReplyBody> {
    let live = peer.worker.live();
    let (parts, body) = request.into_parts();
    let version = parts.version;
    let log = live.config.access_log.clone();
    let mut record = log.map(|log| Record::new(log, peer.addr, &parts));
    let outcome = dispatch(&peer, &live, fault, parts, body, &mut record).await;
    let mut response = outcome.unwrap_or_else(|failure| {
        if let Some(record) = &mut record {
            let cause = failure.cause.clone();
            record.cause = cause.or_else(|| Some(failure.detail.clone().into_owned()));
        }
        failure.into_response(live.config.statuses, version)
    });
    if let Some(mut record) = record {
        record.status = response.status().as_u16();
        record.sent = response.body().len();
    }
    running.progress();
    response.body_mut().keep(running);
    response
}

async fn dispatch(
    peer: &Peer,
    live: &Live,
    fault: Option<Fault>,
    parts: Parts,
    body: Incoming,
    record: &mut Option<Record>,
) -> Result<Response<ReplyBody>, Failure> {
    if let Some(fault) = fault {
        return Err(Failure::bad_request(fault.detail()));
    }
    let checked = request::check(&parts)?;
    let request = RouteRequest {
        method: &parts.method,
        host: &checked.host,
        target: &checked.target,
        headers: &parts.headers,
    };
    let target = live.config.router.route(&request);
    let target = target.ok_or_else(Failure::no_route)?;
    let exchange = Exchange {
        peer,
        live,
        checked,
        parts,
        body,
    };
    match target {
        Target::Proxy(group) => {
            if let Some(record) = record {
                record.group = Some(Arc::clone(&group));
            }
            // Rules and functions may name groups that do not exist.
            let backends = live.backends(&group).ok_or_else(Failure::no_route)?;
            proxy::call(exchange, backends, record).await
        }
    }
}

/// What the access log needs of a request. It is written when the reply is ready, or when the
/// client has gone.
#[derive(Debug)]
pub(crate) struct Record {
    log: AccessLog,
    peer: Option<SocketAddr>,
    method: hyper::Method,
    host: String,
    target: String,
    version: hyper::Version,
    group: Option<Arc<str>>,
    status: u16,
    pub(crate) received: usize,
    sent: usize,
    since: Instant,
    cause: Option<String>,
}

impl Record {
    fn new(log: AccessLog, peer: Option<SocketAddr>, parts: &Parts) -> Self {
        let host = parts.headers.get(hyper::header::HOST);
        let host = host.map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
        let authority = parts.uri.authority().map(ToString::to_string);
        let target = parts.uri.path_and_query();
        Self {
            log,
            peer,
            method: parts.method.clone(),
            host: authority.or(host).unwrap_or_default(),
            target: target.map_or_else(String::new, ToString::to_string),
            version: parts.version,
            group: None,
            status: CLIENT_GONE,
            received: 0,
            sent: 0,
            since: Instant::now(),
            cause: None,
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.log.add(&Entry {
            peer: self.peer,
            method: &self.method,
            host: &self.host,
            target: &self.target,
            version: self.version,
            group: self.group.as_deref(),
            status: self.status,
            received: self.received,
            sent: self.sent,
            time: self.since.elapsed(),
            cause: self.cause.as_deref(),
        });
    }
}
