//! A request on its way: checks, the choice of the target, the handler of the target, the reply and
//! the record of it.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Request, Response};

use crate::body::ReplyBody;
use crate::connection::Origin;
use crate::failure::Failure;
use crate::gateway::{Live, Worker};
use crate::group::Backends;
use crate::io::RunningRequest;
use crate::proxy;
use crate::record::Record;
use crate::request::{self, Checked};
use crate::route::{RouteRequest, Target};
use crate::scan::Fault;
use crate::typed::ApiRequest;

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

impl Exchange<'_> {
    /// Removes headers that are not for backends, and adds those that say who the client is.
    fn clean_headers(&mut self) {
        let (peer, headers) = (self.peer, &mut self.parts.headers);
        request::remove_hop_by_hop(headers, peer.is_trusted);
        if self.live.config.adds_forwarded {
            let client = peer.addr.map(|addr| addr.ip());
            request::add_forwarded(headers, client, peer.is_tls, &self.checked.host);
        }
    }
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
        response.body_mut().log(record);
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
    let Target::Proxy(group) = target;
    // Rules and functions may name groups that do not exist.
    let backends = live.backends(&group).ok_or_else(Failure::no_route)?;
    if let Some(record) = record {
        record.group = Some(group);
    }
    let mut exchange = Exchange {
        peer,
        live,
        checked,
        parts,
        body,
    };
    exchange.clean_headers();
    match &**backends {
        Backends::Raw(backends) => proxy::call(exchange, backends, record).await,
        Backends::Typed(api) => {
            let received = record.as_ref().map(|record| Arc::clone(&record.received));
            let hash_key = api.group.hash_key_of(peer.addr, &exchange.parts.headers);
            let request = ApiRequest {
                checked: exchange.checked,
                parts: exchange.parts,
                body: exchange.body,
                hash_key,
                limits: &live.config.limits,
                buffered: &peer.worker.buffered,
                shutting_down: &|| peer.worker.drain.clone().into_begun(),
                received: received.unwrap_or_default(),
            };
            api.api.handle(request).await
        }
    }
}
