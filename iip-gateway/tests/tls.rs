//! TLS from clients.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use iip_core::tls::{ClientTls, ServerTls};
use iip_core::transport::{Endpoint, Listener};
use iip_gateway::config::ConfigFile;
use iip_gateway::{Gateway, ListenOptions};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{Backend, Http, all_run, before, get, passes, post, until, within};
use crate::dir::Dir;

/// Creates a self-signed certificate for `localhost`.
pub(crate) fn identity() -> (ServerTls, ClientTls) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let server = ServerTls::from_pem(cert.pem(), signing_key.serialize_pem()).unwrap();
    let client = ClientTls::new().roots_pem(cert.pem()).unwrap();
    (server, client)
}

async fn bound(backend: &Backend, options: ListenOptions) -> (Gateway, std::net::SocketAddr) {
    let gateway = before(backend).build().unwrap();
    let endpoint: Endpoint = "127.0.0.1:0".parse().unwrap();
    let listener = Listener::bind(&endpoint).await.unwrap();
    let address = listener.local_addr().unwrap();
    gateway.serve(listener, options).unwrap();
    (gateway, address)
}

#[tokio::test]
async fn requests_inside_tls_are_served_and_plain_ones_only_if_allowed() {
    let backend = Backend::new().await;
    let (server, client) = identity();
    for also_plain in [false, true] {
        let options = ListenOptions::new()
            .tls(server.clone())
            .also_plain(also_plain);
        let (_gateway, address) = bound(&backend, options).await;
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut stream, _) = within("a handshake", client.connect(stream, Some("localhost")))
            .await
            .unwrap();
        stream
            .write_all(post("/echo", "secret").as_bytes())
            .await
            .unwrap();
        stream.flush().await.unwrap();
        let mut reply = Vec::new();
        within("a reply", async {
            while !reply.ends_with(b"secret") {
                assert!(stream.read_buf(&mut reply).await.unwrap() > 0);
            }
        })
        .await;
        assert!(reply.starts_with(b"HTTP/1.1 200 OK\r\n"));

        let mut plain = Http::connect(address).await;
        plain.send(get("/echo")).await;
        let status = plain.try_reply().await.map(|reply| reply.status);
        assert_eq!(status, also_plain.then_some(200));
    }
}

#[tokio::test]
async fn http2_inside_tls_is_served() {
    let backend = Backend::new().await;
    let (server, client) = identity();
    let (_gateway, address) = bound(&backend, ListenOptions::new().tls(server)).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let connecting = client.connect(stream, Some("localhost"));
    let (stream, _) = within("a handshake", connecting).await.unwrap();
    let made = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = made.unwrap();
    tokio::spawn(connection);
    let request = Request::post("https://localhost/echo");
    let request = request
        .body(Full::new(Bytes::from_static(b"secret")))
        .unwrap();
    let response = within("a reply", sender.send_request(request))
        .await
        .unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "secret");
}

#[tokio::test]
async fn a_handshake_that_stalls_ends() {
    let backend = Backend::new().await;
    let (server, _) = identity();
    let (gateway, address) = bound(&backend, ListenOptions::new().tls(server)).await;
    let mut stalled = Http::connect(address).await;
    stalled.send(b"\x16\x03\x01").await;
    until("the connection", || gateway.connections() == 1).await;
    all_run().await;
    passes(Duration::from_secs(11)).await;
    stalled.closed().await;
    until("its end", || gateway.connections() == 0).await;
}

#[tokio::test]
async fn handshakes_beyond_the_limit_wait_and_stalled_ones_make_room() {
    let backend = Backend::new().await;
    let (server, client) = identity();
    let options = ListenOptions::new().tls(server.max_handshakes(1));
    let (gateway, address) = bound(&backend, options).await;
    // The bytes that a client sends before the server waits for its reply.
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let hello = client.clone();
    tokio::spawn(async move { hello.connect(near, Some("localhost")).await.map(drop) });
    let mut first = [0; 4096];
    let length = within("a ClientHello", far.read(&mut first)).await.unwrap();
    let mut stalled = Http::connect(address).await;
    stalled.send(&first[..length]).await;
    // The reply of the server: from now on it waits for this client.
    let mut begin = [0; 1];
    within("a ServerHello", stalled.stream.read_exact(&mut begin))
        .await
        .unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let connecting = tokio::spawn(async move {
        let (mut stream, _) = client.connect(stream, Some("localhost")).await.unwrap();
        stream.write_all(get("/echo").as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        status
    });
    until("the connections", || gateway.connections() == 2).await;
    all_run().await;
    assert!(!connecting.is_finished());
    passes(Duration::from_secs(2)).await;
    let status = within("a reply", connecting).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    stalled.closed().await;
}

#[test]
fn the_limit_of_handshakes_has_a_key() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let dir = Dir::new();
    dir.write("cert.pem", &cert.pem());
    dir.write("key.pem", &signing_key.serialize_pem());
    for (key, limit) in [("", 256), (", max_handshakes = 3", 3)] {
        let tls = format!("{{ certificate = \"cert.pem\", key = \"key.pem\"{key} }}");
        let text = format!("[[listen]]\naddress = \"127.0.0.1:0\"\ntls = {tls}");
        let file = ConfigFile::parse(dir.0.join("gateway.toml"), &text).unwrap();
        let options = format!("{:?}", file.listeners().unwrap()[0].options);
        let expected = format!("max_handshakes: {limit} ");
        assert!(options.contains(&expected), "{options}");
    }
}
