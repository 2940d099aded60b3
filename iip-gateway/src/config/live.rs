//! The keys of the live page.

use serde::Deserialize;
use toml::Spanned;

use super::values::Time;
use crate::gateway::Gateway;
use crate::live::LivePage;
use crate::networks::{InvalidNetwork, IpNetwork};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LiveEntry {
    address: Spanned<String>,
    #[serde(default)]
    allow: Vec<Spanned<String>>,
    #[serde(default)]
    hosts: Vec<String>,
    slow_call: Option<Time>,
    #[serde(default)]
    drain: bool,
}

/// The live page of a configuration file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LiveConfig {
    /// The address, such as `127.0.0.1:9000`.
    pub address: String,
    /// Set if the page may end the program.
    pub drain: bool,
    allow: Vec<IpNetwork>,
    hosts: Vec<String>,
    slow_call: Option<std::time::Duration>,
}

impl LiveEntry {
    /// Returns the settings of the entry, or a mistake with its place.
    pub(super) fn read(&self) -> Result<LiveConfig, (std::ops::Range<usize>, String)> {
        let (span, address) = (self.address.span(), self.address.get_ref());
        if address.parse::<std::net::SocketAddr>().is_err() {
            let reason =
                format!("`{address}` is not an IP address with a port, such as `127.0.0.1:9000`");
            return Err((span, reason));
        }
        let allow = self.allow.iter().map(|network| {
            let parsed = network.get_ref().parse();
            parsed.map_err(|error: InvalidNetwork| (network.span(), error.to_string()))
        });
        let config = LiveConfig {
            address: address.clone(),
            drain: self.drain,
            allow: allow.collect::<Result<_, _>>()?,
            hosts: self.hosts.clone(),
            slow_call: self.slow_call.map(|time| time.0),
        };
        match config.page().check(address) {
            Ok(()) => Ok(config),
            Err(error) => Err((span, error.to_string())),
        }
    }
}

impl LiveConfig {
    /// Returns the page of a gateway.
    #[must_use]
    pub fn of(&self, gateway: &Gateway) -> LivePage {
        self.page().gateway(gateway)
    }

    fn page(&self) -> LivePage {
        let mut page = LivePage::new("iip-gateway").version(env!("CARGO_PKG_VERSION"));
        for host in &self.hosts {
            page = page.host(host);
        }
        if let Some(slow) = self.slow_call {
            page = page.slow_call(slow);
        }
        if self.allow.is_empty() {
            return page;
        }
        let allow = self.allow.clone();
        page.allow(move |client| {
            let address = client.addr.map(|addr| addr.ip());
            address.is_some_and(|address| allow.iter().any(|network| network.contains(address)))
        })
    }
}
