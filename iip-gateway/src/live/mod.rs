//! The live page: the current state of a process, for browsers, terminals and scripts.
//!
//! It shows the servers, clients and gateways of a process: a verdict on their health, the calls
//! and errors of each method with latencies and curves of the last hour, calls that failed or were
//! slow, backends, connections, and builds of peers. It is off unless a program starts it.
//!
//! ```
//! use iip_core::Server;
//! use iip_gateway::live::LivePage;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::builder().bind("127.0.0.1:0").await?;
//! let address = LivePage::new("orders").server("orders", &server).listen("127.0.0.1:0").await?;
//! println!("open http://{address}/live");
//! # Ok(())
//! # }
//! ```
//!
//! A browser gets the page, and `curl` a text; a request with `Accept: application/json` gets JSON.
//! `docs/guide/live-page.md` in the repository describes it.
//!
//! # Who may see it
//!
//! Names of methods, addresses and texts of errors are not public. Without
//! [`allow`](LivePage::allow), the page is served only to the same machine. Everything that is kept
//! and sent is limited in size.

// The path of the figures through the modules:
//
//   source (reads) ─▶ history (windows, curves) ─▶ rows ─▶ monitor: the changes of each second
//                                                   └─▶ respond: page, text, JSON; events: viewers

mod curve;
mod events;
mod history;
mod listen;
mod monitor;
mod page;
pub(crate) mod respond;
mod rows;
mod source;
mod text;
mod verdict;
mod window;
mod wire;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use self::events::Places;
use self::monitor::Monitor;
use self::respond::{Allow, OnDrain, Shared};
pub use self::respond::{LiveClient, LiveHandler};
use self::source::Source;
use crate::gateway::Gateway;

/// Default maximum number of viewers.
const MAX_VIEWERS: usize = 20;

/// The live page of a process before it is started, see the [module](self).
pub struct LivePage {
    name: String,
    version: String,
    sources: Vec<Source>,
    allow: Option<Arc<Allow>>,
    on_drain: Option<Box<OnDrain>>,
    hosts: Vec<String>,
    max_viewers: usize,
    slow_call: Option<Duration>,
}

impl LivePage {
    /// Creates the page of a process with this name, such as `orders`.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: String::new(),
            sources: Vec::new(),
            allow: None,
            on_drain: None,
            hosts: Vec::new(),
            max_viewers: MAX_VIEWERS,
            slow_call: None,
        }
    }

    /// Sets the version of the process that is shown, such as `env!("CARGO_PKG_VERSION")`. Default:
    /// none.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Shows a server. One of `iip-rpc` is shown by its `raw`.
    #[must_use]
    pub fn server(mut self, name: impl Into<String>, server: &iip_core::Server) -> Self {
        self.sources
            .push(Source::server(name.into(), server.observer()));
        self
    }

    /// Shows a client and its backends. One of `iip-rpc` is shown by its `raw`.
    #[must_use]
    pub fn client(mut self, name: impl Into<String>, client: &iip_core::Client) -> Self {
        self.sources
            .push(Source::client(name.into(), client.clone()));
        self
    }

    /// Shows a gateway: its groups, each as a client. Groups that a later configuration adds are
    /// not shown.
    #[must_use]
    pub fn gateway(mut self, gateway: &Gateway) -> Self {
        let groups = gateway.groups().into_iter();
        self.sources
            .extend(groups.map(|group| Source::group(Arc::clone(gateway.workers()), group)));
        self
    }

    /// Sets the check that decides which clients may see the page. Default: everyone who can reach
    /// it. The page then listens only on addresses of the same machine, and a server that shares
    /// its port does not serve it.
    ///
    /// The function is called for every request, so it should be quick and must not block. Clients
    /// that it rejects get status 403.
    #[must_use]
    pub fn allow(
        mut self,
        allow: impl Fn(&LiveClient<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.allow = Some(Arc::new(allow));
        self
    }

    /// Adds a host name of the page, such as `orders.internal`, without a port. Default: none.
    /// Requests for addresses and for `localhost` are always accepted; others get status 421,
    /// because another site may have made its own name resolve to our address (DNS rebinding).
    #[must_use]
    pub fn host(mut self, name: impl Into<String>) -> Self {
        self.hosts.push(name.into());
        self
    }

    /// Shows a button that drains the process. `drain` is called the first time that a user
    /// confirms it, and must not block. Default: no button.
    ///
    /// Such a request needs a secret that the page contains, and must come from the page itself.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// use iip_gateway::live::LivePage;
    /// use tokio::sync::Notify;
    ///
    /// let drain = Arc::new(Notify::new());
    /// let asked = Arc::clone(&drain);
    /// let page = LivePage::new("orders").on_drain(move || asked.notify_one());
    /// // server.serve_until(drain.notified(), Duration::from_secs(20)).await
    /// ```
    #[must_use]
    pub fn on_drain(mut self, drain: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_drain = Some(Box::new(drain));
        self
    }

    /// Sets the maximum number of concurrent viewers that get events. Default: 20. Further ones get
    /// status 503. The limit does not apply to text and JSON.
    #[must_use]
    pub fn max_viewers(mut self, max: usize) -> Self {
        self.max_viewers = max;
        self
    }

    /// Sets the duration at which a successful call is shown as slow. Default: 1 s; at least 1 ms.
    #[must_use]
    pub fn slow_call(mut self, slow: Duration) -> Self {
        self.slow_call = Some(slow);
        self
    }

    /// Starts to read the sources every second, in the current runtime. Returns the handler for
    /// [`Http::live`](crate::Http::live). The reading ends when all its clones are dropped.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    #[must_use]
    pub fn start(self) -> LiveHandler {
        if let Some(slow) = self.slow_call {
            self.sources
                .iter()
                .for_each(|source| source.set_slow_call(slow));
        }
        let has_drain = self.on_drain.is_some();
        let monitor = Monitor::new(self.name, self.version, self.sources, has_drain, token());
        let monitor = Arc::new(monitor);
        // Read before the page can be requested, so that its first reply has the sources.
        monitor.tick();
        tokio::spawn(Monitor::run(Arc::downgrade(&monitor)));
        LiveHandler::new(Shared {
            monitor,
            places: Places::new(self.max_viewers),
            allow: self.allow,
            on_drain: self.on_drain,
            hosts: self.hosts,
        })
    }

    /// [Starts](Self::start) the page and serves it over HTTP/1.1 on a separate address, such as
    /// `127.0.0.1:9000`, at the path `/live`, until the runtime shuts down. Returns the address,
    /// with the port that the system chose if it was 0.
    ///
    /// # Errors
    ///
    /// Fails if it cannot listen on the address, or if other machines may reach it and
    /// [`allow`](Self::allow) is not set.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub async fn listen(self, address: &str) -> io::Result<SocketAddr> {
        self.check(address)?;
        let (listener, bound) = listen::bind(address).await?;
        tokio::spawn(listen::serve(listener, self.start()));
        Ok(bound)
    }
}

impl LivePage {
    /// Rejects an address that other machines may reach, unless [`allow`](Self::allow) is set.
    pub(crate) fn check(&self, address: &str) -> io::Result<()> {
        if self.allow.is_some() || is_own_machine(address)? {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{address} may be reached by other machines: say who may see the live page \
                 (option allow), or listen on 127.0.0.1"
            ),
        ))
    }
}

impl fmt::Debug for LivePage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LivePage")
            .field("name", &self.name)
            .field("sources", &self.sources)
            .finish_non_exhaustive()
    }
}

/// Returns `true` if only the same machine can reach an address. Names that the system must resolve
/// do not count as such.
fn is_own_machine(address: &str) -> io::Result<bool> {
    let is_name = |host: &str| host.eq_ignore_ascii_case("localhost");
    match address.parse::<SocketAddr>() {
        Ok(address) => Ok(address.ip().is_loopback()),
        Err(_)
            if address
                .rsplit_once(':')
                .is_some_and(|(host, _)| is_name(host)) =>
        {
            let mut all = address.to_socket_addrs()?;
            Ok(all.all(|address| address.ip().is_loopback()))
        }
        Err(_) => Ok(false),
    }
}

/// Returns a secret of this process. The hashers of the standard library have random keys from the
/// system, and their output cannot be predicted without the keys.
fn token() -> String {
    let part = || RandomState::new().hash_one("live");
    format!("{:016x}{:016x}", part(), part())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_own_machine_are_its_own() {
        for (address, expected) in [
            ("127.0.0.1:9000", true),
            ("127.1.2.3:0", true),
            ("[::1]:9000", true),
            ("localhost:9000", true),
            ("0.0.0.0:9000", false),
            ("[::]:9000", false),
            ("10.0.0.1:9000", false),
            ("orders.internal:9000", false),
        ] {
            assert_eq!(is_own_machine(address).unwrap(), expected, "{address}");
        }
    }

    #[test]
    fn tokens_are_long_and_different() {
        assert_eq!(token().len(), 32);
        assert_ne!(token(), token());
    }
}
