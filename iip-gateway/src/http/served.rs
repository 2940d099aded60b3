//! The handler of the requests on the port of an IIP server.

use std::fmt;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};

use hyper::{Response, StatusCode};
use iip_core::ServerHandle;
use iip_rpc::Client;
use iip_rpc::schema::ServerDescription;

use super::endpoints;
use super::peer::HttpPeer;
use crate::access_log::AccessLog;
use crate::body::ReplyBody;
use crate::drain::Drain;
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::limits::Limits;
use crate::live::respond::LiveHandler;
use crate::networks::IpNetwork;
use crate::request_body::Buffered;
use crate::typed::{Api, ApiRequest, Catalog, TypedOptions};

pub(super) type Check = dyn Fn(&HttpPeer<'_>) -> bool + Send + Sync;

/// The configuration of [`Http`](super::Http).
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) limits: Arc<Limits>,
    pub(super) liveness_path: String,
    pub(super) readiness_path: String,
    pub(super) metrics_path: String,
    pub(super) metrics_if: Option<Arc<Check>>,
    pub(super) typed: Arc<TypedOptions>,
    pub(super) trusted: Vec<IpNetwork>,
    pub(super) access_log: Option<AccessLog>,
    pub(super) live: Option<LiveHandler>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("limits", &self.limits)
            .field("liveness_path", &self.liveness_path)
            .field("readiness_path", &self.readiness_path)
            .field("metrics_path", &self.metrics_path)
            .finish_non_exhaustive()
    }
}

/// The state that the connections of one server share.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The services of the server, if it has typed services.
    pub(super) catalog: OnceLock<Option<Arc<Catalog>>>,
    pub(super) buffered: Arc<Buffered>,
}

/// The IIP server that an HTTP connection belongs to.
#[derive(Debug)]
pub(crate) struct Served {
    pub(super) settings: Arc<Settings>,
    pub(super) state: Arc<State>,
    pub(super) peer: Arc<iip_core::Peer>,
    pub(super) server: ServerHandle,
    pub(super) drain: Drain,
}

impl Served {
    pub(crate) fn access_log(&self) -> Option<AccessLog> {
        self.settings.access_log.clone()
    }

    /// Handles a request that has passed the checks. `api` is that of the connection,
    /// and `received` counts the bytes of the body.
    pub(crate) async fn handle(
        &self,
        mut exchange: Exchange<'_>,
        api: &OnceLock<Option<Api>>,
        received: Arc<AtomicUsize>,
    ) -> Result<Response<ReplyBody>, Failure> {
        let path = exchange.checked.target.as_str();
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let settings = &self.settings;
        if path == settings.liveness_path {
            return endpoints::liveness(&exchange);
        }
        if path == settings.readiness_path {
            return endpoints::readiness(&exchange, self.server.is_ready());
        }
        if path == settings.metrics_path {
            let peer = HttpPeer::new(&self.peer, exchange.peer.is_tls, &exchange.parts.headers);
            return match settings
                .metrics_if
                .as_ref()
                .is_none_or(|check| check(&peer))
            {
                true => endpoints::metrics(&exchange, &self.server),
                false => Err(Failure::refused(
                    StatusCode::FORBIDDEN,
                    "PERMISSION_DENIED",
                    "the metrics are not for this client",
                )),
            };
        }
        if let Some(live) = settings.live.as_ref().filter(|_| LiveHandler::is_for(path)) {
            return Ok(live.handle(&exchange, self.peer.certificates(), Some(&self.drain)));
        }
        let Some(api) = api.get_or_init(|| self.api()) else {
            return Err(Failure::not_found("the server has nothing at this path"));
        };
        exchange.clean_headers(false);
        api.handle(ApiRequest {
            checked: exchange.checked,
            parts: exchange.parts,
            body: exchange.body,
            hash_key: None,
            limits: &settings.limits,
            buffered: &self.state.buffered,
            shutting_down: &|| self.drain.clone().into_begun(),
            received,
            trace: exchange.trace,
        })
        .await
    }

    /// Returns the typed services of the server, called on behalf of the peer; `None` if it has
    /// none.
    fn api(&self) -> Option<Api> {
        let catalog = self.state.catalog.get_or_init(|| {
            let described = ServerDescription::of_server(&self.server)?;
            Some(Arc::new(Catalog::local(described)))
        });
        let catalog = Arc::clone(catalog.as_ref()?);
        let connector = self.server.connector(&self.peer);
        let client = Client::builder().connect_lazy_with(connector);
        let client = client
            .inspect_err(|error| tracing::error!(%error, "typed services cannot be called"))
            .ok()?;
        Some(Api::local(
            client,
            Arc::clone(&self.settings.typed),
            catalog,
        ))
    }
}
