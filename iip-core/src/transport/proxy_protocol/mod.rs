//! The PROXY protocol: the address of a client that connects through a proxy or load balancer.

mod header;
mod network;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

use self::header::{ADDRESS_BYTES, FIXED_BYTES, HeaderError, check_start, parse_fixed};
use self::network::IpNetwork;
use crate::error::ConfigError;

/// The proxies that precede each connection with a header of the PROXY protocol, version 2, such as
/// HAProxy (`send-proxy-v2`), Envoy (TCP proxy with `proxy_protocol`) or a network load balancer.
///
/// Set it with [`ServerBuilder::proxy_protocol`](crate::ServerBuilder::proxy_protocol).
///
/// ```
/// use iip_core::transport::ProxyProtocol;
///
/// let proxies = ProxyProtocol::from_networks(["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"])?;
/// assert_eq!(proxies.to_string(), "10.0.0.0/8, 2001:db8::/32, 192.0.2.7/32");
/// assert!(ProxyProtocol::from_networks(["10.0.0.1/8"]).is_err());
/// # Ok::<(), iip_core::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ProxyProtocol {
    networks: Arc<[IpNetwork]>,
}

impl ProxyProtocol {
    /// Expects the header from every peer whose address is in one of these networks, each written
    /// as `10.0.0.0/8`, `2001:db8::/32` or a single address. Peers of other networks are served as
    /// they are: a header from them is a protocol violation, so that nobody else can forge
    /// addresses.
    ///
    /// List only the addresses of the proxies: any peer in these networks can claim any address.
    ///
    /// # Errors
    ///
    /// Fails if the list is empty, or a text is not a network.
    pub fn from_networks<I>(networks: I) -> Result<Self, ConfigError>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        let parsed = networks.into_iter().map(|network| {
            let text = network.as_ref();
            text.parse().map_err(|reason| {
                ConfigError::new("proxy_protocol", format!("network {text:?} {reason}"))
            })
        });
        let networks: Arc<[IpNetwork]> = parsed.collect::<Result<_, _>>()?;
        if networks.is_empty() {
            let reason = "the list of networks is empty: write the addresses of the proxies";
            return Err(ConfigError::new("proxy_protocol", reason));
        }
        Ok(Self { networks })
    }

    /// Returns `true` if a peer at this address must send the header.
    pub(crate) fn expects_header(&self, addr: Option<SocketAddr>) -> bool {
        addr.is_some_and(|addr| {
            let mut networks = self.networks.iter();
            networks.any(|network| network.contains(addr.ip()))
        })
    }
}

impl fmt::Display for ProxyProtocol {
    /// Writes the networks, separated by commas.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, network) in self.networks.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{network}")?;
        }
        Ok(())
    }
}

/// Reads the header, and nothing after it, within `limit`. Returns the address of the client;
/// `None` if the connection is the proxy's own, or the header has no IP address.
pub(crate) async fn read_header(
    io: &mut (impl AsyncRead + Unpin),
    limit: Duration,
) -> Result<Option<SocketAddr>, HeaderError> {
    match tokio::time::timeout(limit, read(io)).await {
        Ok(result) => result,
        Err(_) => Err(HeaderError::Late),
    }
}

async fn read(io: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, HeaderError> {
    let mut fixed = [0; FIXED_BYTES];
    fill(io, &mut fixed, check_start).await?;
    let rest = parse_fixed(fixed)?;
    let mut addresses = [0; ADDRESS_BYTES];
    let addresses = &mut addresses[..rest.address_bytes()];
    fill(io, addresses, |_| Ok(())).await?;
    let mut left = rest.length - addresses.len();
    let mut skipped = [0; 256];
    while left > 0 {
        let piece = left.min(skipped.len());
        fill(io, &mut skipped[..piece], |_| Ok(())).await?;
        left -= piece;
    }
    Ok(rest.source(addresses))
}

/// Reads until the buffer is full, and checks what has arrived after each read.
async fn fill(
    io: &mut (impl AsyncRead + Unpin),
    buffer: &mut [u8],
    check: impl Fn(&[u8]) -> Result<(), HeaderError>,
) -> Result<(), HeaderError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match io.read(&mut buffer[filled..]).await? {
            0 => return Err(HeaderError::Closed),
            read => filled += read,
        }
        check(&buffer[..filled])?;
    }
    Ok(())
}
