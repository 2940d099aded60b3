//! The address of a backend, as OpenTelemetry's conventions write it. Pure.

use std::borrow::Cow;

use iip_core::transport::Endpoint;

/// Key of the host, or of the path of a Unix socket.
pub(super) const SERVER_ADDRESS: &str = "server.address";

/// Key of the port.
pub(super) const SERVER_PORT: &str = "server.port";

/// Returns the values of [`SERVER_ADDRESS`] and [`SERVER_PORT`]; a Unix socket has no port.
pub(super) fn address_and_port(endpoint: &Endpoint) -> (Cow<'_, str>, Option<u16>) {
    match endpoint {
        Endpoint::Tcp { host, port } => (host.into(), Some(*port)),
        Endpoint::Unix(path) => (path.to_string_lossy(), None),
        Endpoint::Abstract(name) => (format!("@{name}").into(), None),
        other => (other.to_string().into(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_with_a_port_or_the_path_of_a_socket() {
        let cases = [
            ("backend.example:7000", "backend.example", Some(7000)),
            ("[::1]:7000", "::1", Some(7000)),
            ("unix:/run/backend", "/run/backend", None),
        ];
        for (text, address, port) in cases {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(address_and_port(&endpoint), (address.into(), port));
        }
        let endpoint = Endpoint::Abstract("backend".to_owned());
        assert_eq!(address_and_port(&endpoint), ("@backend".into(), None));
    }
}
