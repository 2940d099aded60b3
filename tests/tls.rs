//! TLS end to end, over real sockets: trust, rejected peers, attacks, and certificates that are
//! renewed.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use iip_core::tls::{ClientCertificate, ClientTls, DangerousClientTls, ServerTls, TlsError};
use iip_core::transport::{
    ConnectFuture, Connected, Connector, Endpoint, IoStream, MemoryConnector,
};
use iip_core::{
    CallError, CallErrorKind, Client, ConnectionError, Execution, HandlerError, Limits, Request,
    Response, Server, handler_fn,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::common::authority::Authority;
use crate::common::frame::RawFrame;
use crate::common::generate::lin;
use crate::common::peer::{Peer, accepted, drained, first_channel, listener, sent, stream_to};
use crate::common::{GUARD, SERVED, bound, eventually, spawn, within};

/// A timeout that passes soon, so that no test waits long for it.
const SHORT: Duration = Duration::from_millis(300);

/// A timeout that a handshake on a busy machine does not reach.
const TIME: Duration = Duration::from_secs(2);

/// A server with TLS.
struct Target {
    server: Server,
    addr: SocketAddr,
    /// Number of calls that reached a handler.
    calls: Arc<AtomicUsize>,
}

impl Target {
    async fn start(tls: ServerTls) -> Self {
        Self::configured(Some(tls), Limits::default()).await
    }

    async fn configured(tls: Option<ServerTls>, limits: Limits) -> Self {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let echo = move |request: Request| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move { Ok::<_, HandlerError>(Response::from(request.into_body())) }
        };
        let certificate = |request: Request| async move {
            let Some(certificate) = request.peer().certificates().first() else {
                return Err(HandlerError::new("no certificate"));
            };
            Ok(Response::from(certificate.clone()))
        };
        let big = |_: Request| async move {
            Ok::<_, HandlerError>(Response::from(Bytes::from(lin(7, 1 << 20))))
        };
        let mut config = Server::builder()
            .limits(limits)
            .route("/echo", handler_fn(echo))
            .route("/certificate", handler_fn(certificate))
            .route("/big", handler_fn(big));
        if let Some(tls) = tls {
            config = config.tls(tls);
        }
        let (server, addr) = bound(config).await;
        Self {
            server,
            addr,
            calls,
        }
    }

    /// Returns the target by name, because the certificates contain names.
    fn name(&self) -> String {
        name_of(self.addr)
    }

    async fn connect(&self, tls: ClientTls) -> Result<Client, CallError> {
        let config = Client::builder().tls(tls).connect_timeout(GUARD);
        within("connecting", config.connect(self.name())).await
    }

    async fn client(&self, tls: ClientTls) -> Client {
        let connected = self.connect(tls).await;
        connected.expect("the server is trusted")
    }

    async fn rejected(&self, tls: ClientTls) -> CallError {
        let connected = self.connect(tls).await;
        connected.expect_err("the handshake should fail")
    }

    /// Returns `true` if a client with these settings gets a reply on a new connection.
    async fn gets_reply(&self, tls: ClientTls) -> bool {
        let Ok(client) = self.connect(tls).await else {
            return false;
        };
        within("a reply", client.request("/echo", "hello"))
            .await
            .is_ok_and(|reply| &reply[..] == b"hello")
    }

    /// Asserts that so many clients get replies, each sooner than the handshakes of silent peers
    /// time out, which is after ten seconds.
    async fn serves_in_time(&self, authority: &Authority, clients: usize) {
        for _ in 0..clients {
            let started = Instant::now();
            assert!(self.gets_reply(authority.client()).await);
            let took = started.elapsed();
            assert!(took < Duration::from_secs(5), "{took:?}");
        }
    }
}

async fn echoes(client: &Client) {
    let reply = within("a reply", client.request("/echo", "hello")).await;
    assert_eq!(reply.expect("a reply"), "hello");
}

fn name_of(addr: SocketAddr) -> String {
    format!("localhost:{}", addr.port())
}

/// A stream that buffers written bytes until it is flushed, as TLS does when the socket is full.
#[derive(Debug)]
struct Buffering(MemoryConnector);

impl Connector for Buffering {
    fn connect(&self) -> ConnectFuture<'_> {
        Box::pin(async {
            let io = self.0.connect().await?.io;
            Ok(Connected::new(IoStream::new(BufStream::with_capacity(
                1 << 20,
                1 << 20,
                io,
            ))))
        })
    }

    fn describe(&self) -> String {
        self.0.describe()
    }
}

/// A connector that counts its connections.
#[derive(Debug)]
struct Counting {
    endpoint: Endpoint,
    connections: Arc<AtomicUsize>,
}

impl Counting {
    fn new(target: &Target, connections: &Arc<AtomicUsize>) -> Self {
        let endpoint = target.name().parse().expect("an address");
        Self {
            endpoint,
            connections: connections.clone(),
        }
    }
}

impl Connector for Counting {
    fn connect(&self) -> ConnectFuture<'_> {
        self.connections.fetch_add(1, Ordering::SeqCst);
        self.endpoint.connect()
    }

    fn describe(&self) -> String {
        self.endpoint.to_string()
    }

    fn host(&self) -> Option<&str> {
        self.endpoint.host()
    }
}

/// Returns the TLS error in the chain of a call that could not connect.
fn reason(error: &CallError) -> TlsError {
    let CallErrorKind::Connect { source, .. } = error.kind() else {
        panic!("connected: {error}")
    };
    source
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<TlsError>())
        .unwrap_or_else(|| panic!("no TLS error: {source}"))
        .clone()
}

// ---- connections that work

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_a_time_with_large_and_small_bodies_arrive_intact() {
    let authority = Authority::new("a");
    let target = Target::start(authority.server()).await;
    let client = target.client(authority.client()).await;
    let calls: Vec<_> = (0..64)
        .map(|n: u8| {
            let client = client.clone();
            spawn(async move {
                let body = lin(
                    n,
                    [1, 200, 16_384, 16_385, 100_000, 1 << 20][usize::from(n) % 6],
                );
                let reply = client
                    .request("/echo", Bytes::from(body.clone()))
                    .await
                    .expect("a reply");
                assert!(reply == body, "call {n}: another body came back");
            })
        })
        .collect();
    for call in calls {
        within("a reply", call)
            .await
            .expect("the reply is the request");
    }
    target.server.shutdown(SERVED).await;
}

#[tokio::test]
async fn bytes_that_a_stream_buffers_are_flushed_to_the_end() {
    let echo = |request: Request| async move {
        Ok::<_, HandlerError>(Response::from(request.into_body()))
    };
    let (_server, connector) = Server::builder()
        .route("/echo", handler_fn(echo))
        .in_memory()
        .expect("a server");
    let connecting = Client::builder().connect_with(Buffering(connector));
    let client = within("connecting", connecting)
        .await
        .expect("a connection");
    // The stream takes the whole body at once, and the stream below it an eighth.
    let body = Bytes::from(lin(5, 500_000));
    let reply = within("a reply", client.request("/echo", body.clone())).await;
    assert!(reply.expect("a reply") == body, "another body came back");
}

#[tokio::test]
async fn with_client_certificates_both_sides_know_each_other() {
    let authority = Authority::new("a");
    let issued = authority.issue("client");
    let (server_certificate, tls) = {
        let issued = authority.issue("localhost");
        let tls = ServerTls::from_pem(&issued.chain, &issued.key).expect("a usable certificate");
        (
            issued.der,
            tls.client_roots_pem(authority.issuer.pem())
                .expect("usable roots"),
        )
    };
    let target = Target::start(tls).await;
    let identity = authority
        .client()
        .identity_pem(&issued.chain, &issued.key)
        .expect("a usable identity");
    let client = target.client(identity).await;
    let seen = within("a reply", client.request("/certificate", "who am i"))
        .await
        .expect("a reply");
    assert_eq!(seen, issued.der);
    let deadline = tokio::time::Instant::now() + SERVED;
    let connection = client
        .connection(deadline.into())
        .await
        .expect("a connection");
    assert_eq!(connection.peer().certificates(), [server_certificate]);
}

#[tokio::test]
async fn a_client_without_a_certificate_is_served_where_it_is_optional() {
    let authority = Authority::new("a");
    let target = Target::start(
        authority
            .closed_server()
            .client_certificate(ClientCertificate::Optional),
    )
    .await;
    let client = target.client(authority.client()).await;
    let reply = within("a reply", client.request("/certificate", "x"))
        .await
        .expect("a reply");
    assert_eq!(
        reply,
        r#"{"code":-1,"message":"handler fail:no certificate"}"#
    );
    // A wrong certificate is rejected nevertheless.
    let tls = authority.client_known_to(&Authority::new("b"));
    let rejected = tls.connect(stream_to(target.addr).await, Some("localhost"));
    if let Ok((mut io, _)) = within("the handshake", rejected).await {
        let read = within("the rejection", io.read_to_end(&mut Vec::new())).await;
        read.expect_err("the server ends the connection with an alert");
    }
}

#[tokio::test]
async fn tls_over_memory_and_unix_sockets_needs_a_name() {
    let authority = Authority::new("a");
    let echo = |request: Request| async move {
        Ok::<_, HandlerError>(Response::from(request.into_body()))
    };
    let (_server, connector) = Server::builder()
        .route("/echo", handler_fn(echo))
        .tls(authority.server())
        .in_memory()
        .expect("a server");
    let config = Client::builder().tls(authority.client());
    let error = config
        .connect_with(connector.clone())
        .await
        .expect_err("no name");
    assert!(matches!(reason(&error), TlsError::NoServerName));
    let named = authority.client().server_name("localhost").expect("a name");
    let client = Client::builder()
        .tls(named)
        .connect_with(connector)
        .await
        .expect("a connection");
    echoes(&client).await;
}

// ---- rejected peers

#[tokio::test]
async fn a_server_that_is_not_trusted_gets_no_request() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let target = Target::start(theirs.server()).await;
    for (tls, why) in [
        (ours.client(), "another authority"),
        (
            theirs.client().server_name("example.org").expect("a name"),
            "another name",
        ),
        (ClientTls::new(), "the platform's roots"),
    ] {
        let error = target.rejected(tls).await;
        assert!(
            matches!(
                reason(&error),
                TlsError::Untrusted { .. } | TlsError::NoPlatformRoots { .. }
            ),
            "{why}: {error}"
        );
        assert_eq!(error.execution(), Execution::NotSent, "{why}");
    }
    assert_eq!(target.calls.load(Ordering::SeqCst), 0);
    // The only setting without verification is named dangerous.
    assert!(
        target
            .gets_reply(DangerousClientTls::accept_any_certificate())
            .await
    );
}

#[tokio::test]
async fn a_client_without_the_right_certificate_reaches_no_handler() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let target = Target::start(ours.closed_server()).await;
    for tls in [ours.client(), ours.client_known_to(&theirs)] {
        let stream = stream_to(target.addr).await;
        // Under TLS 1.3 the client is notified of the rejection after its own part of the
        // handshake.
        if let Ok((mut io, _)) =
            within("the handshake", tls.connect(stream, Some("localhost"))).await
        {
            let _ = io
                .write_all(&RawFrame::request("/echo", 0, "let me in").encode())
                .await;
            let _ = io.flush().await;
            let read = within("the rejection", io.read_to_end(&mut Vec::new())).await;
            read.expect_err("the server ends the connection with an alert");
        }
    }
    assert_eq!(target.calls.load(Ordering::SeqCst), 0);
    assert!(target.gets_reply(ours.client_known_to(&ours)).await);
}

#[tokio::test]
async fn a_client_that_is_rejected_after_the_handshake_reports_the_cause_and_does_not_flood_the_server()
 {
    let authority = Authority::new("a");
    let target = Target::start(authority.closed_server()).await;
    let connections = Arc::new(AtomicUsize::new(0));
    let connector = Counting::new(&target, &connections);
    let config = Client::builder()
        .tls(authority.client())
        .timeout(Duration::from_secs(1));
    let calling = async {
        config
            .connect_with(connector)
            .await?
            .request("/echo", "let me in")
            .await
    };
    let error = within("the call to fail", calling)
        .await
        .expect_err("no certificate");
    assert_eq!(error.execution(), Execution::NotSent);
    let count = connections.load(Ordering::SeqCst);
    assert!(count <= 20, "{count} connections in a second");
    assert!(error.source().is_some(), "{error}");
}

#[tokio::test]
async fn a_tls_port_never_falls_back_to_plain() {
    let authority = Authority::new("a");
    let target = Target::start(authority.server()).await;
    let mut stream = stream_to(target.addr).await;
    sent(&mut stream, &RawFrame::new_channel().encode()).await;
    let mut reply = Vec::new();
    // The server may close with a TLS alert (record type 21), or reset.
    let _ = within("the end", stream.read_to_end(&mut reply)).await;
    assert!(reply.is_empty() || reply[0] == 21, "{reply:?}");

    let error = within("a plain client", Client::builder().connect(target.name())).await;
    let error = format!("{:?}", error.expect_err("a plain client is rejected"));
    assert!(
        error.contains("TLS") && error.contains("option tls"),
        "{error}"
    );
    assert!(target.gets_reply(authority.client()).await);
}

#[tokio::test]
async fn a_plain_port_closes_at_the_first_byte_of_tls() {
    let target = Target::configured(None, Limits::default()).await;
    let started = Instant::now();
    let error = target.rejected(Authority::new("a").client()).await;
    assert!(started.elapsed() < SERVED);
    assert_eq!(error.execution(), Execution::NotSent);
    assert!(matches!(reason(&error), TlsError::Closed), "{error:?}");
    assert!(format!("{error:?}").contains("not speak tls"), "{error:?}");
    Peer::connect(target.addr).await.open_channel().await;
}

// ---- attacks

/// Opens connections to `addr` from 127.0.0.1, at first and then one every few milliseconds, sends
/// `says` on each, and keeps them open without sending more.
async fn silent_peers(addr: SocketAddr, at_first: usize, says: Vec<u8>) -> JoinHandle<()> {
    let mut held = Vec::new();
    for _ in 0..at_first {
        let mut stream = stream_to(addr).await;
        sent(&mut stream, &says).await;
        held.push(stream);
    }
    spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        loop {
            tick.tick().await;
            let Ok(mut stream) = TcpStream::connect(addr).await else {
                continue;
            };
            let _ = stream.write_all(&says).await;
            held.push(stream);
        }
    })
}

/// Returns the first message of a client.
async fn client_hello(tls: ClientTls) -> Vec<u8> {
    let (near, mut far) = tokio::io::duplex(16 * 1024);
    let connecting = spawn(async move { tls.connect(near, Some("localhost")).await });
    let mut hello = vec![0; 5];
    within("the head of a record", far.read_exact(&mut hello))
        .await
        .expect("the hello of the client");
    let len = u16::from_be_bytes([hello[3], hello[4]]);
    hello.resize(5 + usize::from(len), 0);
    within("the record", far.read_exact(&mut hello[5..]))
        .await
        .expect("a whole record");
    connecting.abort();
    hello
}

#[tokio::test]
async fn more_silent_peers_than_the_limit_of_handshakes_delay_no_client() {
    let authority = Authority::new("a");
    let target = Target::start(authority.server().max_handshakes(2)).await;
    let attack = silent_peers(target.addr, 20, Vec::new()).await;
    target.serves_in_time(&authority, 5).await;
    attack.abort();
}

#[tokio::test]
async fn peers_that_stop_during_a_handshake_give_way_to_others() {
    let authority = Authority::new("a");
    let target = Target::start(authority.server().max_handshakes(40)).await;
    let hello = client_hello(authority.client()).await;
    let attack = silent_peers(target.addr, 60, hello).await;
    target.serves_in_time(&authority, 3).await;
    attack.abort();
}

#[tokio::test]
async fn silent_peers_are_closed_after_the_handshake_timeout() {
    let authority = Authority::new("a");
    let target = Target::start(authority.server().handshake_timeout(SHORT)).await;
    let mut silent = stream_to(target.addr).await;
    assert_eq!(drained(&mut silent).await, 0);
    eventually("its place is free", || target.server.connections() == 0).await;
}

#[tokio::test]
async fn a_slow_handshake_has_the_same_timeout_as_a_silent_one() {
    let authority = Authority::new("a");
    let target = Target::start(authority.server().handshake_timeout(TIME)).await;
    let (mut reader, mut writer) = stream_to(target.addr).await.into_split();
    let started = Instant::now();
    let dripping = spawn(async move {
        // Sends the head of a handshake record of 512 bytes, then its body.
        for byte in [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]
            .into_iter()
            .chain(std::iter::repeat(3))
        {
            if writer.write_all(&[byte]).await.is_err() {
                return;
            }
            // The pauses are the attack.
            tokio::time::sleep(TIME / 20).await;
        }
    });
    let _ = within("the end", reader.read_to_end(&mut Vec::new())).await;
    let took = started.elapsed();
    assert!(took >= TIME && took < TIME + SERVED, "{took:?}");
    dripping.abort();
    assert!(target.gets_reply(authority.client()).await);
}

#[tokio::test]
async fn a_handshake_that_the_server_does_not_continue_times_out() {
    let (listener, addr) = listener().await;
    let tls = Authority::new("a").client().handshake_timeout(SHORT);
    let connecting = spawn(async move { Client::builder().tls(tls).connect(name_of(addr)).await });
    let _silent = accepted(&listener).await;
    let error = within("giving up", connecting)
        .await
        .expect("no panic")
        .expect_err("nobody answers");
    let reason = reason(&error);
    assert!(matches!(reason, TlsError::Timeout { .. }), "{reason}");
    assert!(
        reason.to_string().contains("ClientTls::handshake_timeout"),
        "{reason}"
    );
}

#[tokio::test]
async fn garbage_instead_of_a_handshake_ends_that_connection_only() {
    let authority = Authority::new("a");
    let target = Target::start(authority.server()).await;
    let client = target.client(authority.client()).await;
    let record = |version: u8, len: u16, body: &[u8]| {
        let mut bytes = vec![0x16, 3, version];
        bytes.extend(len.to_be_bytes());
        bytes.extend(body);
        bytes
    };
    for bytes in [
        lin(0, 4096),
        vec![0; 64],
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(),
        record(1, 4, &[1, 0, 0, 0]),
        record(1, 4, &[2, 0, 0, 0]),
        record(1, 0xffff, &[1; 64]),
        // The announcement of a hello of 16 MiB.
        record(3, 4, &[1, 0xff, 0xff, 0xff]),
        record(9, 0, &[]),
    ] {
        let mut stream = stream_to(target.addr).await;
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        drained(&mut stream).await;
    }
    assert_eq!(
        within("a reply", client.request("/echo", "still here"))
            .await
            .expect("a reply"),
        "still here"
    );
    eventually("the attackers are gone", || {
        target.server.connections() == 1
    })
    .await;
}

/// Forwards bytes between a client and a server, and tampers with those of the server.
struct Middle {
    listener: TcpListener,
    addr: SocketAddr,
}

impl Middle {
    async fn new() -> Self {
        let (listener, addr) = listener().await;
        Self { listener, addr }
    }

    /// A client that is connected through it.
    async fn client(&self, authority: &Authority) -> Client {
        Client::builder()
            .tls(authority.client())
            .connect(name_of(self.addr))
            .await
            .expect("a connection")
    }

    /// Forwards one connection until `tamper`, which gets each piece from the server and its
    /// offset, returns the end.
    async fn carry(&self, server: SocketAddr, mut tamper: impl FnMut(usize, &mut Vec<u8>) -> bool) {
        let (mut from_client, mut to_client) = accepted(&self.listener).await.into_split();
        let (mut from_server, mut to_server) = stream_to(server).await.into_split();
        let forth = async {
            let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
            // Only the bytes of the server decide when it ends.
            std::future::pending::<()>().await;
        };
        let back = async {
            let mut offset = 0;
            loop {
                let mut piece = Vec::with_capacity(16 * 1024);
                match from_server.read_buf(&mut piece).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
                let len = piece.len();
                let more = tamper(offset, &mut piece);
                offset += len;
                if to_client.write_all(&piece).await.is_err() || !more {
                    return;
                }
            }
        };
        tokio::select! { () = forth => {}, () = back => {} }
    }
}

/// Requests 1 MiB through a middle that tampers with the bytes after the first 100,000.
async fn tampered(tamper: impl FnMut(usize, &mut Vec<u8>) -> bool) -> CallError {
    let authority = Authority::new("a");
    let target = Target::start(authority.server()).await;
    let middle = Middle::new().await;
    let calling = async {
        let client = middle.client(&authority).await;
        client
            .request("/big", "please")
            .await
            .expect_err("what arrived is not what was sent")
    };
    let carrying = middle.carry(target.addr, tamper);
    let both = async { tokio::join!(calling, carrying) };
    within("the call to fail", both).await.0
}

#[tokio::test]
async fn a_reply_cut_in_the_middle_is_an_error_and_not_a_short_reply() {
    // A plain FIN, which any node on the path can send.
    let error = tampered(|offset, _| offset < 100_000).await;
    let CallErrorKind::ConnectionLost(lost) = error.kind() else {
        panic!("{error}")
    };
    assert!(
        matches!(lost, ConnectionError::Io(_) | ConnectionError::Truncated),
        "{lost}"
    );
    assert_eq!(error.execution(), Execution::MayHaveExecuted);
}

#[tokio::test]
async fn a_flipped_bit_is_an_error_and_not_another_reply() {
    let error = tampered(|offset, piece| {
        if offset > 100_000 {
            piece[0] ^= 1;
        }
        true
    })
    .await;
    let CallErrorKind::ConnectionLost(ConnectionError::Io(source)) = error.kind() else {
        panic!("{error}")
    };
    assert_eq!(source.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_connection_cut_between_two_frames_is_distinguished_from_a_closed_one() {
    let authority = Authority::new("a");
    let target = Target::start(authority.server()).await;
    let middle = Middle::new().await;
    let (cut, cutting) = tokio::sync::oneshot::channel::<()>();
    let calling = async {
        let client = middle.client(&authority).await;
        let deadline = tokio::time::Instant::now() + SERVED;
        let connection = client
            .connection(deadline.into())
            .await
            .expect("a connection");
        cut.send(()).expect("the middle listens");
        connection.closed().await
    };
    let carrying = async {
        tokio::select! {
            () = middle.carry(target.addr, |_, _| true) => {}
            _ = cutting => {}
        }
    };
    let both = async { tokio::join!(calling, carrying) };
    let (lost, ()) = within("the end of the connection", both).await;
    let ConnectionError::Io(source) = &lost else {
        panic!("{lost}")
    };
    assert_eq!(
        source.kind(),
        io::ErrorKind::UnexpectedEof,
        "no close_notify came"
    );
}

// ---- ends and renewed certificates

#[tokio::test]
async fn a_custom_connector_is_wrapped_in_tls_like_any_other() {
    let authority = Authority::new("a");
    let target = Target::start(authority.server()).await;
    let connections = Arc::new(AtomicUsize::new(0));
    let connector = Counting::new(&target, &connections);
    let client = Client::builder()
        .tls(authority.client())
        .connect_with(connector)
        .await
        .expect("a connection");
    echoes(&client).await;
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_server_ends_a_connection_with_close_notify() {
    let authority = Authority::new("a");
    let target = Target::start(authority.server()).await;
    let stream = TcpStream::connect(target.addr)
        .await
        .expect("the server listens");
    let (mut io, _) = authority
        .client()
        .connect(stream, Some("localhost"))
        .await
        .expect("a trusted server");
    first_channel(&mut io).await;
    let (mut rest, shutdown) = (Vec::new(), target.server.shutdown(SERVED));
    let both = async { tokio::join!(io.read_to_end(&mut rest), shutdown) };
    // Without close_notify this would be an error.
    let (read, ()) = within("the end", both).await;
    read.expect("a clean end");
    assert!(
        rest.is_empty() || rest[0] == 8,
        "only status 8 may come before the end: {rest:?}"
    );
}

#[tokio::test]
async fn the_server_stops_although_peers_are_in_the_handshake() {
    let authority = Authority::new("a");
    let target = Target::start(authority.server().max_handshakes(1)).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(stream_to(target.addr).await);
    }
    eventually("the server has them", || target.server.connections() == 3).await;
    let started = Instant::now();
    within("the shutdown", target.server.shutdown(SHORT)).await;
    assert!(
        started.elapsed() < SHORT + SERVED,
        "{:?}",
        started.elapsed()
    );
    for stream in &mut silent {
        assert_eq!(drained(stream).await, 0);
    }
}

#[tokio::test]
async fn a_renewed_server_certificate_is_used_without_restart() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let tls = old.server();
    let reloader = tls.reloader();
    let target = Target::start(tls).await;
    let before = target.client(old.client()).await;
    within("a reply", before.request("/echo", "before"))
        .await
        .expect("a reply");
    assert!(!target.gets_reply(new.client()).await);

    let renewed = new.issue("localhost");
    let spoilt = reloader
        .reload_pem(&renewed.chain, "no key")
        .expect_err("no key");
    assert!(
        spoilt.to_string().contains("has no private key"),
        "{spoilt}"
    );
    assert!(
        target.gets_reply(old.client()).await,
        "a bad reload changes nothing"
    );

    reloader
        .reload_pem(&renewed.chain, &renewed.key)
        .expect("a usable certificate");
    assert!(target.gets_reply(new.client()).await);
    assert!(!target.gets_reply(old.client()).await);
    let reply = within("a reply", before.request("/echo", "after")).await;
    assert_eq!(reply.expect("the old connection goes on"), "after");
}

#[tokio::test]
async fn a_renewed_client_identity_is_used_by_the_next_connection() {
    let authority = Authority::new("a");
    let (old, new) = (authority.issue("old"), authority.issue("new"));
    let target = Target::start(authority.closed_server()).await;
    let tls = authority
        .client()
        .identity_pem(&old.chain, &old.key)
        .expect("an identity");
    let reloader = tls.reloader();
    let client = target.client(tls.clone()).await;
    let shown = || async {
        within("a reply", client.request("/certificate", "x"))
            .await
            .expect("a reply")
    };
    assert_eq!(shown().await, old.der);
    reloader
        .reload_pem(&new.chain, &new.key)
        .expect("a usable identity");
    assert_eq!(shown().await, old.der, "the same connection");
    let again = target.client(tls).await;
    assert_eq!(
        within("a reply", again.request("/certificate", "x"))
            .await
            .expect("a reply"),
        new.der
    );
}

#[tokio::test]
async fn every_error_has_its_cause_in_its_chain() {
    let target = Target::start(Authority::new("theirs").server()).await;
    let error = target.rejected(Authority::new("ours").client()).await;
    let mut chain = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        chain.push(error.to_string());
        cause = error.source();
    }
    let chain = chain.join(": ");
    assert!(chain.contains(&target.name()), "{chain}");
    assert!(chain.contains("certificate of the peer refused"), "{chain}");
    assert!(chain.contains("UnknownIssuer"), "{chain}");
}
