//! A client that connects to another protocol's server, and another protocol's client that connects
//! to our server: the error, or the log line, names the protocol that it seems to be and what to
//! change.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::future::Future;
use std::pin::Pin;

use iip_core::sniff::Protocol;
use iip_core::{ProtocolConnection, ProtocolHandler};
use iip_rpc::{Client, Code, Execution, Server, ServerBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tracing::Level;

use crate::common::alone::alone;
use crate::common::calls::expect;
use crate::common::logs::Logs;
use crate::common::{spawn, within};

/// Bytes that servers of other protocols send first, or as a reply to a request they do not
/// understand.
const SERVERS: [(&str, &[u8]); 6] = [
    (
        "HTTP/1",
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    ),
    (
        "HTTP/2, such as gRPC",
        b"\0\0\x18\x04\0\0\0\0\0\0\x02\0\0\0\0\0\x05\0\0@\0\0\x04\0\x10\0\0\0\x06\0\0@\0",
    ),
    ("TLS", b"\x15\x03\x01\0\x02\x02\x46"),
    ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n"),
    ("Redis", b"-ERR unknown command\r\n"),
    ("MySQL", b"J\0\0\0\n8.0.36\0\x08\0\0\0abcdefgh\0"),
];

/// First bytes of clients of other protocols.
const CLIENTS: [(&str, &[u8]); 6] = [
    ("HTTP/1", b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"),
    (
        "HTTP/2, such as gRPC",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ),
    ("TLS", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"),
    ("Redis", b"*1\r\n$4\r\nPING\r\n"),
    ("PostgreSQL", b"\0\0\0\x08\x04\xd2\x16\x2f"),
    (
        "the PROXY protocol",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
    ),
];

#[tokio::test]
async fn a_client_at_the_port_of_another_protocol_reports_which_and_what_to_change() {
    for (protocol, first) in SERVERS {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // Some servers send first, others after a request that they do not understand.
            let mut asked = [0; 1];
            stream.read_exact(&mut asked).await.unwrap();
            stream.write_all(first).await.unwrap();
            // Until the client has closed.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        let status = within("the failure", Client::connect(addr))
            .await
            .unwrap_err();
        let text = status.to_string();
        assert!(
            text.contains(&format!("seems to speak {protocol}, not IIP")),
            "{text}"
        );
        let hint = if protocol == "TLS" {
            "option tls"
        } else {
            "check the address"
        };
        assert!(text.contains(hint), "{text}");
        expect(&status, Code::Unavailable, Execution::NotSent);
        within("the end", server).await.unwrap();
    }
}

/// Serves whatever it gets, by closing it.
#[derive(Debug)]
struct Anything;

impl ProtocolHandler for Anything {
    fn accepts(&self, _: Protocol) -> bool {
        true
    }

    fn serve(&self, _: ProtocolConnection) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async {})
    }
}

#[test]
fn a_server_logs_which_protocol_seems_to_connect() {
    alone("a_server_logs_which_protocol_seems_to_connect", || async {
        let logs = Logs::captured();
        logs_protocols(&logs, Server::builder(), &CLIENTS).await;
        // A handler of other protocols gets HTTP, and what is not known.
        let config = Server::builder().fallback_protocol(Anything);
        logs_protocols(&logs, config, &CLIENTS[2..]).await;
        let server = Server::builder().bind("127.0.0.1:0").await.unwrap();
        // A broken peer is not reported as another protocol.
        let mut stream = TcpStream::connect(server.local_addr().unwrap())
            .await
            .unwrap();
        stream
            .write_all(b"\x63nothing that is known")
            .await
            .unwrap();
        let _ = within("the end", stream.read_to_end(&mut Vec::new())).await;
        logs.until("the end", |lines| {
            let mut errors = lines.iter().filter_map(|line| line.get("error"));
            errors.any(|error| error.contains("does not speak plain IIP"))
        })
        .await;
        assert!(logs.take().iter().all(|line| line.level != Level::WARN));
    });
}

async fn logs_protocols(logs: &Logs, config: ServerBuilder, clients: &[(&str, &[u8])]) {
    let server = config.bind("127.0.0.1:0").await.unwrap();
    for (protocol, first) in clients {
        let mut stream = TcpStream::connect(server.local_addr().unwrap())
            .await
            .unwrap();
        stream.write_all(first).await.unwrap();
        // A client that waits for a greeting gets none.
        stream.shutdown().await.unwrap();
        let _ = within("the end", stream.read_to_end(&mut Vec::new())).await;
        logs.until("the line", |lines| {
            lines.iter().any(|line| {
                let error = line.get("error").unwrap_or_default();
                line.level == Level::WARN
                    && error.contains(&format!("seems to speak {protocol}, not IIP"))
            })
        })
        .await;
        logs.take();
    }
}
