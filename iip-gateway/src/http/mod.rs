//! HTTP on the port of an IIP server.

mod endpoints;
mod peer;
pub(crate) mod served;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use iip_core::sniff::Protocol;
use iip_core::{ProtocolConnection, ProtocolHandler};

pub use self::peer::HttpPeer;
use self::served::{Served, Settings, State};
use crate::access_log::AccessLog;
use crate::connection::{self, Origin};
use crate::drain::Drain;
use crate::exchange::Peer;
use crate::limits::Limits;
use crate::listen::ALPN;
use crate::live::respond::LiveHandler;
use crate::networks::IpNetwork;
use crate::service::App;
use crate::typed::TypedOptions;

/// HTTP/1.1 and HTTP/2 on the port of an IIP server, for
/// [`ServerBuilder::fallback_protocol`](iip_core::ServerBuilder::fallback_protocol).
///
/// | path | reply |
/// |---|---|
/// | `/healthz` | 200 while the process can reply, also during a shutdown: liveness |
/// | `/readyz` | 200 if the server should get calls, otherwise 503: readiness |
/// | `/metrics` | what the server has counted, for Prometheus |
/// | `/shop.v1.Orders/find` | calls of methods with JSON, see [`TypedOptions`] |
/// | `/docs/`, `/openapi.json` | a page for browsers that documents and calls the methods, and the OpenAPI document |
/// | `/live` | the [live page](crate::live), if it is [set](Self::live) |
///
/// The first byte of a connection decides between IIP and HTTP. With TLS, HTTP needs TLS too,
/// unless the server accepts both. Connections count towards the limits of the server. A shutdown
/// of the server closes those without a request, and waits for the others.
///
/// ```
/// use iip_core::Server;
/// use iip_gateway::Http;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let server = Server::builder().fallback_protocol(Http::new()).bind("127.0.0.1:0").await?;
/// println!("curl http://{}/readyz", server.target());
/// # server.shutdown(std::time::Duration::ZERO).await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct Http {
    settings: Arc<Settings>,
    state: Arc<State>,
}

impl Clone for Http {
    /// Copies the configuration. Nothing is shared: each copy may be used for a separate server.
    fn clone(&self) -> Self {
        Self {
            settings: Arc::clone(&self.settings),
            state: Arc::default(),
        }
    }
}

impl Http {
    /// Creates the default configuration.
    pub fn new() -> Self {
        Self {
            settings: Arc::new(Settings {
                limits: Arc::default(),
                liveness_path: "/healthz".to_owned(),
                readiness_path: "/readyz".to_owned(),
                metrics_path: "/metrics".to_owned(),
                metrics_if: None,
                typed: Arc::default(),
                trusted: Vec::new(),
                access_log: None,
                live: None,
            }),
            state: Arc::default(),
        }
    }

    /// Sets the limits. The numbers of connections are those of the server, and
    /// [`first_byte_timeout`](Limits::first_byte_timeout) has no effect.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.set().limits = Arc::new(limits);
        self
    }

    /// Sets the path of liveness probes, beginning with `/`. Default: `/healthz`. The reply is 200
    /// as long as the process can reply, also during a shutdown: a process that fails this probe
    /// should be killed.
    pub fn liveness_path(mut self, path: impl Into<String>) -> Self {
        self.set().liveness_path = path.into();
        self
    }

    /// Sets the path of readiness probes, beginning with `/`. Default: `/readyz`. The reply is 200
    /// while the server is [ready](iip_core::Server::is_ready), otherwise 503: a server that fails
    /// this probe should get no new connections. A shutdown makes it fail before anything else.
    pub fn readiness_path(mut self, path: impl Into<String>) -> Self {
        self.set().readiness_path = path.into();
        self
    }

    /// Sets the path of the metrics, beginning with `/`. Default: `/metrics`. The reply contains
    /// the counters of the server ([`Server::stats`](iip_core::Server::stats)), in the text format
    /// of Prometheus, or as OpenMetrics if the client accepts that.
    pub fn metrics_path(mut self, path: impl Into<String>) -> Self {
        self.set().metrics_path = path.into();
        self
    }

    /// Serves the metrics only to clients for which `check` returns `true`; others get status 403.
    /// Default: to all clients. Metrics contain the names of methods and the rates of their calls,
    /// but no addresses.
    pub fn metrics_if(
        mut self,
        check: impl Fn(&HttpPeer<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.set().metrics_if = Some(Arc::new(check));
        self
    }

    /// Sets how typed services are served, for example below another path. Default: those of
    /// [`TypedOptions`].
    pub fn typed(mut self, options: TypedOptions) -> Self {
        self.set().typed = Arc::new(options);
        self
    }

    /// Trusts `X-Forwarded-*`, `X-Real-IP` and `Forwarded` from clients in this network, so that
    /// they can become [metadata](TypedOptions::metadata) of calls. Default: from no client; these
    /// headers are then removed.
    pub fn trust(mut self, network: IpNetwork) -> Self {
        self.set().trusted.push(network);
        self
    }

    /// Writes a line for each request. Default: no log.
    pub fn access_log(mut self, log: AccessLog) -> Self {
        self.set().access_log = Some(log);
        self
    }

    /// Serves the live page at `/live`, to clients that its [`allow`](crate::live::LivePage::allow)
    /// accepts; without that setting, the server does not start. Default: no page.
    pub fn live(mut self, page: &LiveHandler) -> Self {
        self.set().live = Some(page.clone());
        self
    }

    fn set(&mut self) -> &mut Settings {
        Arc::make_mut(&mut self.settings)
    }
}

impl Default for Http {
    fn default() -> Self {
        Self::new()
    }
}

impl ProtocolHandler for Http {
    fn accepts(&self, protocol: Protocol) -> bool {
        matches!(protocol, Protocol::Http1 | Protocol::Http2)
    }

    fn serve(&self, connection: ProtocolConnection) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (settings, state) = (Arc::clone(&self.settings), Arc::clone(&self.state));
        Box::pin(async move {
            let ProtocolConnection {
                io,
                first,
                protocol,
                peer,
                is_encrypted,
                drain,
                server,
                ..
            } = connection;
            let addr = peer.addr();
            let drain = Drain::Server(drain);
            let origin = Origin {
                peer: Peer {
                    addr,
                    is_trusted: addr.is_some_and(|addr| {
                        let mut trusted = settings.trusted.iter();
                        trusted.any(|network| network.contains(addr.ip()))
                    }),
                    is_tls: is_encrypted,
                },
                limits: Arc::clone(&settings.limits),
                drain: drain.clone(),
                app: App::Server(Arc::new(Served {
                    settings,
                    state,
                    peer,
                    server,
                    drain,
                })),
                place: None,
            };
            connection::serve(io, protocol, first, &origin).await;
        })
    }

    fn alpn(&self) -> &'static [&'static str] {
        &ALPN
    }

    fn check(&self) -> io::Result<()> {
        let invalid = |reason| Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        if let Err((option, reason)) = self.settings.limits.check() {
            return invalid(format!("option {option} of HTTP: {reason}"));
        }
        if let Err(reason) = self.settings.typed.check() {
            return invalid(format!("option typed of HTTP: {reason}"));
        }
        let live = self.settings.live.as_ref();
        if live.is_some_and(|live| !live.has_allow()) {
            let reason = "option live of HTTP: say who may see the live page (LivePage::allow)";
            return invalid(reason.to_owned());
        }
        let paths = [
            ("liveness_path", &self.settings.liveness_path),
            ("readiness_path", &self.settings.readiness_path),
            ("metrics_path", &self.settings.metrics_path),
        ];
        for (at, (option, path)) in paths.into_iter().enumerate() {
            if !path.starts_with('/') {
                return invalid(format!(
                    "option {option} of HTTP: {path:?} does not begin with /"
                ));
            }
            if paths.iter().take(at).any(|(_, other)| *other == path) {
                return invalid(format!("option {option} of HTTP: {path:?} is used twice"));
            }
        }
        Ok(())
    }
}
