//! Detection of other protocols by the first bytes that a peer sends: a wrong address is more
//! common than a broken peer. Pure.

use crate::error::ProtocolError;
use crate::frame::Side;

/// A protocol and the pattern of its first bytes.
struct Foreign {
    protocol: &'static str,
    /// The hint for a client whose peer is a server of this protocol.
    at_client: &'static str,
    /// The hint for a server whose peer is a client of this protocol.
    at_server: &'static str,
    /// Returns `true` if these are the first bytes of a server of the protocol, as received by our
    /// client.
    is_server: fn(&[u8]) -> bool,
    /// Returns `true` if these are the first bytes of a client of the protocol, as received by our
    /// server.
    is_client: fn(&[u8]) -> bool,
}

const CHECK_ADDRESS: &str = "check the address and port";
const CHECK_CLIENT: &str =
    "this is a port of an IIP server; check the address that the peer connects to";

const HTTP_METHODS: [&str; 9] = [
    "GET ", "HEAD ", "POST ", "PUT ", "PATCH ", "DELETE ", "OPTIONS ", "CONNECT ", "TRACE ",
];

/// The known protocols; the first entry that matches counts.
const KNOWN: [Foreign; 12] = [
    Foreign {
        protocol: "TLS",
        at_client: "this client does not use TLS (option tls of the client)",
        at_server: "this server does not use TLS (option tls of the server), or the peer should \
                    not",
        is_server: is_tls,
        is_client: is_tls,
    },
    Foreign {
        protocol: "HTTP/2, such as gRPC",
        at_client: "check the address and port; a gRPC server cannot be called by an IIP client",
        at_server: "clients of HTTP/2 and gRPC cannot call an IIP server; check the address that \
            the peer connects to",
        // A SETTINGS frame on stream 0. Source: RFC 9113, 3.4 and 6.5.
        is_server: |bytes| match bytes {
            [0, _, _, 4, 0 | 1, rest @ ..] => rest.iter().take(4).all(|&byte| byte == 0),
            _ => false,
        },
        is_client: |bytes| bytes.starts_with(b"PRI * HTTP/2"),
    },
    Foreign {
        protocol: "HTTP/1",
        at_client: "check the address and port; an HTTP server cannot be called by an IIP client",
        at_server: "browsers, curl and other clients of HTTP cannot call an IIP server; check the \
            address that the peer connects to",
        is_server: |bytes| bytes.starts_with(b"HTTP/"),
        is_client: |bytes| {
            HTTP_METHODS
                .iter()
                .any(|method| bytes.starts_with(method.as_bytes()))
        },
    },
    Foreign {
        protocol: "SSH",
        at_client: CHECK_ADDRESS,
        at_server: CHECK_CLIENT,
        is_server: |bytes| bytes.starts_with(b"SSH-"),
        is_client: |bytes| bytes.starts_with(b"SSH-"),
    },
    Foreign {
        protocol: "the PROXY protocol",
        at_client: CHECK_ADDRESS,
        at_server: "a proxy or load balancer in front of this server adds a header; disable that",
        is_server: |_| false,
        is_client: |bytes| {
            bytes.starts_with(b"PROXY ") || bytes.starts_with(b"\r\n\r\n\0\r\nQUIT\n")
        },
    },
    Foreign {
        protocol: "Redis",
        at_client: CHECK_ADDRESS,
        at_server: CHECK_CLIENT,
        is_server: |bytes| {
            [&b"-ERR "[..], b"-NOAUTH", b"-DENIED"]
                .iter()
                .any(|text| bytes.starts_with(text))
        },
        is_client: |bytes| {
            matches!(bytes, [b'*', b'1'..=b'9', ..]) || bytes.starts_with(b"PING\r\n")
        },
    },
    Foreign {
        protocol: "MySQL",
        at_client: CHECK_ADDRESS,
        at_server: CHECK_CLIENT,
        // The first packet, of up to 255 bytes: a handshake of version 10, or an error.
        is_server: |bytes| matches!(bytes, [10..=255, 0, 0, 0, 0x0a | 0xff, ..]),
        // A MySQL client waits for the first packet of the server.
        is_client: |_| false,
    },
    Foreign {
        protocol: "PostgreSQL",
        at_client: CHECK_ADDRESS,
        at_server: CHECK_CLIENT,
        is_server: |bytes| matches!(bytes, [b'E', 0, 0, _, _, b'S', ..]),
        // A request for TLS or GSSAPI, or a startup message of version 3.
        is_client: |bytes| {
            matches!(
                bytes,
                [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f | 0x30, ..] | [0, 0, _, _, 0, 3, 0, ..]
            )
        },
    },
    Foreign {
        protocol: "SMTP or FTP",
        at_client: CHECK_ADDRESS,
        at_server: CHECK_CLIENT,
        is_server: |bytes| bytes.starts_with(b"220 ") || bytes.starts_with(b"220-"),
        is_client: |bytes| bytes.starts_with(b"EHLO ") || bytes.starts_with(b"HELO "),
    },
    Foreign {
        protocol: "AMQP",
        at_client: CHECK_ADDRESS,
        at_server: CHECK_CLIENT,
        is_server: |bytes| bytes.starts_with(b"AMQP"),
        is_client: |bytes| bytes.starts_with(b"AMQP"),
    },
    Foreign {
        protocol: "NATS",
        at_client: CHECK_ADDRESS,
        at_server: CHECK_CLIENT,
        is_server: |bytes| bytes.starts_with(b"INFO {"),
        is_client: |bytes| bytes.starts_with(b"CONNECT {"),
    },
    Foreign {
        protocol: "memcached",
        at_client: CHECK_ADDRESS,
        at_server: CHECK_CLIENT,
        is_server: |bytes| bytes.starts_with(b"ERROR\r\n"),
        is_client: |bytes| bytes.starts_with(b"version\r\n") || bytes.starts_with(b"stats\r\n"),
    },
];

/// Returns `true` for a record of TLS 1.0 to 1.3: an alert or a handshake.
fn is_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [21 | 22, 3, 0..=4, ..])
}

/// Returns `true` if a client of a known protocol other than HTTP begins with these bytes. Some of
/// them begin with a letter, like HTTP.
pub(crate) fn is_known_but_not_http(first: &[u8]) -> bool {
    let found = KNOWN.iter().find(|foreign| (foreign.is_client)(first));
    found.is_some_and(|foreign| !foreign.protocol.starts_with("HTTP/"))
}

/// Returns the protocol that the peer of `side` seems to speak, judging by its first bytes, unless
/// it is IIP.
pub(crate) fn recognize(side: Side, first: &[u8]) -> Option<ProtocolError> {
    let found = KNOWN.iter().find(|foreign| match side {
        Side::Client => (foreign.is_server)(first),
        Side::Server => (foreign.is_client)(first),
    })?;
    let hint = match side {
        Side::Client => found.at_client,
        Side::Server => found.at_server,
    };
    Some(ProtocolError::OtherProtocol {
        protocol: found.protocol,
        hint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocol(side: Side, first: &[u8]) -> Option<&'static str> {
        match recognize(side, first)? {
            ProtocolError::OtherProtocol { protocol, .. } => Some(protocol),
            error => panic!("{error}"),
        }
    }

    #[test]
    fn what_common_servers_say_first_is_recognized_by_a_client() {
        let table: [(&[u8], &str); 12] = [
            (b"HTTP/1.1 400 Bad Request\r\n", "HTTP/1"),
            // tonic, grpc-go.
            (b"\0\0\x18\x04\0\0\0\0\0\0\x02\0\0", "HTTP/2, such as gRPC"),
            (
                b"\0\0\x06\x04\0\0\0\0\0\0\x05\0\0@\0",
                "HTTP/2, such as gRPC",
            ),
            (b"\x15\x03\x01\0\x02\x02\x46", "TLS"),
            (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH"),
            (b"-ERR unknown command\r\n", "Redis"),
            (b"J\0\0\0\n8.0.36\0", "MySQL"),
            (b"E\0\0\0iSFATAL\0", "PostgreSQL"),
            (b"220 mail.example.org ESMTP\r\n", "SMTP or FTP"),
            (b"AMQP\0\0\x09\x01", "AMQP"),
            (b"INFO {\"server_id\":", "NATS"),
            (b"ERROR\r\n", "memcached"),
        ];
        for (first, expected) in table {
            let found = protocol(Side::Client, first);
            assert_eq!(found, Some(expected), "{}", first.escape_ascii());
        }
    }

    #[test]
    fn what_common_clients_say_first_is_recognized_by_a_server() {
        let table: [(&[u8], &str); 11] = [
            (b"GET / HTTP/1.1\r\n", "HTTP/1"),
            (b"POST /greeter HTTP/1.1\r\n", "HTTP/1"),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2, such as gRPC"),
            (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", "TLS"),
            (b"\x15\x03\x03\0\x02\x02\x28", "TLS"),
            (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH"),
            (b"*1\r\n$4\r\nPING\r\n", "Redis"),
            (b"\0\0\0\x08\x04\xd2\x16/", "PostgreSQL"),
            (b"\0\0\0)\0\x03\0\0user\0postgres\0\0", "PostgreSQL"),
            (
                b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
                "the PROXY protocol",
            ),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11", "the PROXY protocol"),
        ];
        for (first, expected) in table {
            let found = protocol(Side::Server, first);
            assert_eq!(found, Some(expected), "{}", first.escape_ascii());
        }
    }

    #[test]
    fn what_begins_with_a_letter_may_be_known_and_not_http() {
        for (first, expected) in [
            (&b"PROXY TCP4 10.0.0.1"[..], true),
            (b"SSH-2.0-x", true),
            (b"PING\r\n", true),
            (b"P", false),
            (b"POST / HTTP/1.1\r\n", false),
            (b"PROPFIND / HTTP/1.1\r\n", false),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", false),
        ] {
            assert_eq!(
                is_known_but_not_http(first),
                expected,
                "{}",
                first.escape_ascii()
            );
        }
    }

    #[test]
    fn what_peers_of_ours_say_first_is_nothing_else() {
        let channel = [0, 0, 0, 0, 0, 0, 0, 2];
        for path in ["/", "/sys/hello", "/sys/new_channel", "/echo?x=1"] {
            for status in 0..=8 {
                let frame = [&[status], path.as_bytes(), &[0], &channel[..], b"{}"].concat();
                for length in 0..frame.len() {
                    for side in [Side::Client, Side::Server] {
                        assert_eq!(recognize(side, &frame[..length]), None, "{frame:?}");
                    }
                }
            }
        }
        assert_eq!(
            recognize(Side::Client, &[8, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            None
        );
    }
}
