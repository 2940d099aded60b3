//! The handling of a request: checks, the choice of the target, its handler, the reply, and the
//! record in the access log.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};

use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Request, Response};

use crate::access_log::AccessLog;
use crate::activity::RunningRequest;
use crate::body::ReplyBody;
use crate::exchange::{Exchange, Peer};
use crate::failure::{Failure, Statuses};
use crate::group::Backends;
use crate::http::served::Served;
use crate::live::respond::LiveHandler;
use crate::proxy;
use crate::record::Record;
use crate::request;
use crate::route::{RouteRequest, Target};
use crate::scan::Fault;
use crate::trace::Trace;
use crate::typed::{Api, ApiRequest};
use crate::worker::{Live, Worker};

/// The handler of the requests of a connection.
#[derive(Clone, Debug)]
pub(crate) enum App {
    /// A gateway, by its routes.
    Gateway(Arc<Worker>),
    /// The IIP server on whose port the connection has arrived.
    Server(Arc<Served>),
    /// The live page, on a separate port.
    Page(LiveHandler),
}

/// The service of a connection: the handler of the requests of one client.
#[derive(Debug)]
pub(crate) struct Service {
    peer: Peer,
    app: App,
    /// The typed services of the server, created with the first call, and dropped when the
    /// connection is parked.
    api: OnceLock<Option<Api>>,
}

impl Service {
    pub(crate) fn new(peer: Peer, app: App) -> Self {
        Self {
            peer,
            app,
            api: OnceLock::new(),
        }
    }

    /// Handles a request.
    pub(crate) async fn handle(
        self: Arc<Self>,
        mut running: RunningRequest,
        fault: Option<Fault>,
        request: Request<Incoming>,
    ) -> Response<ReplyBody> {
        let (parts, body) = request.into_parts();
        let version = parts.version;
        let target = match &self.app {
            App::Gateway(worker) => Config::Gateway(worker, worker.live()),
            App::Server(served) => Config::Server(served),
            App::Page(page) => Config::Page(page),
        };
        let (log, statuses) = target.settings();
        let trace = Trace::of(&parts.headers);
        let mut record = log.map(|log| Record::new(log, self.peer.addr, &parts, &trace));
        let outcome = self
            .dispatch(&target, fault, parts, body, &trace, &mut record)
            .await;
        let mut response = outcome.unwrap_or_else(|mut failure| {
            failure.more().trace_id = Some(trace.id());
            if let Some(record) = &mut record {
                let cause = failure.cause.clone();
                record.cause = cause.or_else(|| Some(failure.detail.clone().into_owned()));
            }
            failure.into_response(statuses, version)
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
        &self,
        config: &Config<'_>,
        fault: Option<Fault>,
        parts: Parts,
        body: Incoming,
        trace: &Trace,
        record: &mut Option<Record>,
    ) -> Result<Response<ReplyBody>, Failure> {
        if let Some(fault) = fault {
            return Err(Failure::bad_request(fault.detail()));
        }
        let exchange = Exchange {
            peer: &self.peer,
            checked: request::check(&parts)?,
            parts,
            body,
            trace,
        };
        match config {
            Config::Gateway(worker, live) => route(exchange, worker, live, record).await,
            Config::Server(served) => served.handle(exchange, &self.api, received(record)).await,
            Config::Page(page) => Ok(page.handle(&exchange, &[], None)),
        }
    }
}

/// The handler of a request, with the configuration at the start of the request.
enum Config<'a> {
    Gateway(&'a Worker, Arc<Live>),
    Server(&'a Served),
    Page(&'a LiveHandler),
}

impl Config<'_> {
    fn settings(&self) -> (Option<AccessLog>, Statuses) {
        match self {
            Self::Gateway(_, live) => (live.config.access_log.clone(), live.config.statuses),
            Self::Server(served) => (served.access_log(), Statuses::Http),
            Self::Page(_) => (None, Statuses::Http),
        }
    }
}

/// Returns the counter of the bytes of a body.
fn received(record: &Option<Record>) -> Arc<AtomicUsize> {
    let received = record.as_ref().map(|record| Arc::clone(&record.received));
    received.unwrap_or_default()
}

/// Handles a request by the routes of a gateway.
async fn route(
    mut exchange: Exchange<'_>,
    worker: &Worker,
    live: &Live,
    record: &mut Option<Record>,
) -> Result<Response<ReplyBody>, Failure> {
    let request = RouteRequest {
        method: &exchange.parts.method,
        host: &exchange.checked.host,
        target: &exchange.checked.target,
        headers: &exchange.parts.headers,
    };
    let target = live.config.router.route(&request);
    let Target::Proxy(group) = target.ok_or_else(Failure::no_route)?;
    // Rules and functions may name groups that do not exist.
    let backends = live.backends(&group).ok_or_else(Failure::no_route)?;
    if let Some(record) = record {
        record.group = Some(group);
    }
    exchange.clean_headers(live.config.adds_forwarded);
    match &**backends {
        Backends::Raw(backends) => {
            proxy::call(exchange, worker, &live.config, backends, record).await
        }
        Backends::Typed(api) => {
            let headers = &exchange.parts.headers;
            let hash_key = api.group.hash_key_of(exchange.peer.addr, headers);
            let request = ApiRequest {
                checked: exchange.checked,
                parts: exchange.parts,
                body: exchange.body,
                hash_key,
                limits: &live.config.limits,
                buffered: &worker.buffered,
                shutting_down: &|| worker.drain.clone().into_begun(),
                received: received(record),
                trace: exchange.trace,
            };
            api.api.handle(request).await
        }
    }
}
