//! Both sides against each other in memory, and each against peers that misbehave.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::client::parse_name;
use super::reload::WATCH_INTERVAL;
use super::*;
use crate::transport::IoStream;

static AUTHORITIES: AtomicUsize = AtomicUsize::new(0);

/// A certificate authority.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate that an authority has issued, with its key, as PEM.
struct Issued {
    chain: String,
    key: String,
    der: Vec<u8>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Its own name, or another authority's certificate is taken for one of ours with a broken
        // signature.
        let name = format!("authority {}", AUTHORITIES.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        Self {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(),
        }
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }

    fn issue(&self, name: &str) -> Issued {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .signed_by(&key, &self.issuer)
            .unwrap();
        Issued {
            chain: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().to_vec(),
        }
    }

    fn server(&self, name: &str) -> ServerTls {
        let issued = self.issue(name);
        ServerTls::from_pem(&issued.chain, &issued.key).unwrap()
    }

    /// For localhost, and only for clients that this authority knows.
    fn closed_server(&self) -> ServerTls {
        let server = self.server("localhost");
        server.client_roots_pem(self.pem()).unwrap()
    }

    fn client(&self) -> ClientTls {
        ClientTls::new().roots_pem(self.pem()).unwrap()
    }

    /// Trusts this authority, and shows what was issued by this one or another.
    fn client_with(&self, issued: &Issued) -> ClientTls {
        let client = self.client();
        client.identity_pem(&issued.chain, &issued.key).unwrap()
    }
}

type Outcome = io::Result<(IoStream, Vec<Vec<u8>>)>;

/// The outcomes at the client, which asks for this name, and at the server.
async fn shake_hands_for(name: &str, client: &ClientTls, server: &ServerTls) -> (Outcome, Outcome) {
    let (near, far) = duplex(64 * 1024);
    tokio::join!(client.connect(near, Some(name)), server.accept(far))
}

async fn shake_hands(client: &ClientTls, server: &ServerTls) -> (Outcome, Outcome) {
    shake_hands_for("localhost", client, server).await
}

/// The streams of two sides that accept each other.
async fn connected(client: &ClientTls, server: &ServerTls) -> (IoStream, IoStream) {
    let (near, far) = shake_hands(client, server).await;
    (near.unwrap().0, far.unwrap().0)
}

/// Returns `true` if both sides accept each other: under TLS 1.3 a client learns only afterwards
/// that it was refused.
async fn both_accept(client: &ClientTls, server: &ServerTls) -> bool {
    match shake_hands(client, server).await {
        (Ok((near, _)), Ok((far, _))) => {
            converse(near, far).await;
            true
        }
        _ => false,
    }
}

async fn converse(mut near: IoStream, mut far: IoStream) {
    near.write_all(b"ping").await.unwrap();
    near.flush().await.unwrap();
    let mut received = [0; 4];
    far.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"ping");
    far.write_all(b"pong").await.unwrap();
    far.shutdown().await.unwrap();
    let mut reply = String::new();
    near.read_to_string(&mut reply).await.unwrap();
    assert_eq!(reply, "pong");
}

fn reason(outcome: Outcome) -> TlsError {
    let error = outcome.expect_err("the handshake should fail");
    let text = error.to_string();
    match error.into_inner().map(|inner| inner.downcast::<TlsError>()) {
        Some(Ok(error)) => *error,
        _ => panic!("not a TlsError: {text}"),
    }
}

#[tokio::test]
async fn a_verified_stream_carries_bytes_and_tells_the_certificate() {
    let authority = Authority::new();
    let issued = authority.issue("localhost");
    let server = ServerTls::from_pem(&issued.chain, &issued.key).unwrap();
    let (near, far) = shake_hands(&authority.client(), &server).await;
    let ((near, near_certificates), (far, far_certificates)) = (near.unwrap(), far.unwrap());
    assert_eq!(near_certificates, [issued.der]);
    assert!(far_certificates.is_empty());
    converse(near, far).await;
}

#[tokio::test]
async fn an_ip_address_is_verified_like_a_name() {
    let authority = Authority::new();
    let server = authority.server("127.0.0.1");
    shake_hands_for("127.0.0.1", &authority.client(), &server)
        .await
        .0
        .unwrap();
    let (near, _) = shake_hands_for("127.0.0.2", &authority.client(), &server).await;
    assert!(matches!(reason(near), TlsError::Untrusted { .. }));
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let authority = Authority::new();
    let (near, far) = shake_hands(&authority.client(), &authority.server("example.org")).await;
    let near = reason(near);
    assert!(matches!(&near, TlsError::Untrusted { .. }), "{near}");
    assert!(near.to_string().contains("not valid for name"), "{near}");
    assert!(matches!(reason(far), TlsError::Refused { .. }));
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    let (near, far) = shake_hands(
        &Authority::new().client(),
        &Authority::new().server("localhost"),
    )
    .await;
    assert_eq!(
        reason(near).to_string(),
        "certificate of the peer refused: invalid peer certificate: UnknownIssuer"
    );
    assert_eq!(
        reason(far).to_string(),
        "the peer refused the tls handshake: UnknownCA"
    );
}

#[tokio::test]
async fn platform_roots_are_the_default_and_do_not_know_our_authority() {
    let tls = ClientTls::new();
    if let Err(error) = tls.check() {
        // A machine without a certificate store.
        assert!(matches!(error, TlsError::NoPlatformRoots { .. }), "{error}");
        return;
    }
    let (near, _) = shake_hands(&tls, &Authority::new().server("localhost")).await;
    assert!(matches!(reason(near), TlsError::Untrusted { .. }));
}

#[tokio::test]
async fn a_name_that_is_set_wins_over_the_host() {
    let authority = Authority::new();
    let client = authority.client().server_name("db.internal").unwrap();
    let (near, far) = shake_hands_for("10.0.0.1", &client, &authority.server("db.internal")).await;
    converse(near.unwrap().0, far.unwrap().0).await;
}

#[tokio::test]
async fn without_any_name_no_byte_is_sent() {
    let (near, mut far) = duplex(64);
    let outcome = Authority::new().client().connect(near, None).await;
    assert!(matches!(reason(outcome), TlsError::NoServerName));
    assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0);
    assert!(matches!(
        ClientTls::new().server_name("no name"),
        Err(TlsError::BadServerName { .. })
    ));
    parse_name("fe80::1%eth0").unwrap();
}

#[tokio::test]
async fn roots_given_in_two_calls_both_count() {
    let (one, two) = (Authority::new(), Authority::new());
    let client = one.client().roots_pem(two.pem()).unwrap();
    assert!(both_accept(&client, &one.server("localhost")).await);
    assert!(both_accept(&client, &two.server("localhost")).await);
}

#[tokio::test]
async fn a_required_client_certificate_is_verified_and_delivered() {
    let authority = Authority::new();
    let server = authority.closed_server();

    let issued = authority.issue("client");
    let known = authority.client_with(&issued);
    let (near, far) = shake_hands(&known, &server).await;
    let (far, certificates) = far.unwrap();
    assert_eq!(certificates, [issued.der]);
    converse(near.unwrap().0, far).await;

    let (near, far) = shake_hands(&authority.client(), &server).await;
    assert!(
        matches!(reason(far), TlsError::Untrusted { .. }),
        "no certificate"
    );
    // TLS 1.3: the client learns it with its first read.
    near.unwrap().0.read(&mut [0; 1]).await.unwrap_err();

    let issued = Authority::new().issue("client");
    let stranger = authority.client_with(&issued);
    assert!(matches!(
        reason(shake_hands(&stranger, &server).await.1),
        TlsError::Untrusted { .. }
    ));
}

#[tokio::test]
async fn an_optional_client_certificate_may_be_absent_but_not_wrong() {
    let authority = Authority::new();
    let server = authority
        .closed_server()
        .client_certificate(ClientCertificate::Optional);

    let (near, far) = shake_hands(&authority.client(), &server).await;
    let (far, certificates) = far.unwrap();
    assert!(certificates.is_empty());
    converse(near.unwrap().0, far).await;

    let issued = Authority::new().issue("client");
    let stranger = authority.client_with(&issued);
    assert!(!both_accept(&stranger, &server).await);
}

fn version_and_kind(io: &IoStream) -> (ProtocolVersion, HandshakeKind) {
    let session = io.tls_session().unwrap();
    (
        session.protocol_version().unwrap(),
        session.handshake_kind().unwrap(),
    )
}

#[tokio::test]
async fn tls_1_3_is_used_and_sessions_are_resumed() {
    let authority = Authority::new();
    let (client, server) = (authority.client(), authority.server("localhost"));
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let (near, far) = connected(&client, &server).await;
        assert_eq!(version_and_kind(&near), (ProtocolVersion::TLSv1_3, kind));
        converse(near, far).await;
    }
}

#[tokio::test]
async fn a_client_certificate_is_verified_on_every_connection() {
    let authority = Authority::new();
    let server = authority.closed_server();
    let issued = authority.issue("client");
    let client = authority.client_with(&issued);
    for _ in 0..2 {
        let (near, far) = connected(&client, &server).await;
        assert_eq!(version_and_kind(&near).1, HandshakeKind::Full);
        converse(near, far).await;
    }
}

#[tokio::test]
async fn peers_that_only_know_tls_1_2_are_served() {
    static OLD: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
    let authority = Authority::new();
    let mut roots = RootCertStore::empty();
    roots.add(authority.issuer.der().clone()).unwrap();
    let old_client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(OLD)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (near, far) = duplex(64 * 1024);
    let connect = TlsConnector::from(Arc::new(old_client))
        .connect(parse_name("localhost").unwrap(), near.into());
    let server = authority.server("localhost");
    let (near, far) = tokio::join!(connect, server.accept(far));
    let far = far.unwrap().0;
    assert_eq!(version_and_kind(&far).0, ProtocolVersion::TLSv1_2);
    converse(IoStream::over_tls(near.unwrap().into()), far).await;

    let issued = authority.issue("localhost");
    let chain = CertificateDer::pem_slice_iter(issued.chain.as_bytes())
        .collect::<Result<_, _>>()
        .unwrap();
    let old_server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(OLD)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            chain,
            PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap(),
        )
        .unwrap();
    let (near, far) = duplex(64 * 1024);
    let accept = TlsAcceptor::from(Arc::new(old_server)).accept(far.into());
    let client = authority.client();
    let (near, far) = tokio::join!(client.connect(near, Some("localhost")), accept);
    let near = near.unwrap().0;
    assert_eq!(version_and_kind(&near).0, ProtocolVersion::TLSv1_2);
    converse(near, IoStream::over_tls(far.unwrap().into())).await;
}

#[test]
fn early_data_is_off_and_alpn_until_it_is_set() {
    let authority = Authority::new();
    let tls = authority.server("localhost");
    let server = tls.config().unwrap();
    assert_eq!(server.max_early_data_size, 0);
    assert!(server.alpn_protocols.is_empty());
    let server = tls.alpn(["h2", "http/1.1"]).config().unwrap();
    assert_eq!(server.alpn_protocols, [&b"h2"[..], b"http/1.1"]);
    let client = authority.client().config().unwrap();
    assert!(!client.enable_early_data);
    assert!(client.alpn_protocols.is_empty());
}

#[tokio::test]
async fn a_stream_cut_without_close_notify_is_an_error_and_a_closed_one_an_end() {
    let authority = Authority::new();
    let (client, server) = (authority.client(), authority.server("localhost"));
    let (near, mut far) = connected(&client, &server).await;
    drop(near);
    let error = far.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);

    let (mut near, mut far) = connected(&client, &server).await;
    near.shutdown().await.unwrap();
    assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn vectored_writes_go_through_tls() {
    let authority = Authority::new();
    let (mut near, mut far) = connected(&authority.client(), &authority.server("localhost")).await;
    assert!(near.is_write_vectored());
    let slices = [io::IoSlice::new(b"he"), io::IoSlice::new(b"llo")];
    assert_eq!(near.write_vectored(&slices).await.unwrap(), 5);
    near.flush().await.unwrap();
    let mut received = [0; 5];
    far.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"hello");
}

#[tokio::test]
async fn a_reloaded_server_certificate_is_shown_to_every_new_connection() {
    let (old, new) = (Authority::new(), Authority::new());
    let server = old.server("localhost");
    let (trusts_old, trusts_new) = (old.client(), new.client());
    let before = connected(&trusts_old, &server).await;
    assert!(both_accept(&trusts_old, &server).await);
    assert!(!both_accept(&trusts_new, &server).await);

    let issued = new.issue("localhost");
    server
        .reloader()
        .reload_pem(&issued.chain, &issued.key)
        .unwrap();

    assert!(both_accept(&trusts_new, &server).await);
    // It holds a session ticket, which must not get it around the new certificate.
    assert!(!both_accept(&trusts_old, &server).await);
    converse(before.0, before.1).await;
}

#[tokio::test]
async fn a_reloaded_client_identity_is_shown_on_every_new_connection() {
    let authority = Authority::new();
    let server = authority.closed_server();
    let (old, new) = (authority.issue("old"), authority.issue("new"));
    let client = authority.client_with(&old);
    let clone = client.clone();
    assert_eq!(shake_hands(&client, &server).await.1.unwrap().1, [old.der]);
    client.reloader().reload_pem(&new.chain, &new.key).unwrap();
    for client in [client, clone] {
        let (_, far) = shake_hands(&client, &server).await;
        assert_eq!(far.unwrap().1, std::slice::from_ref(&new.der));
    }
}

#[tokio::test]
async fn an_identity_can_be_given_to_a_client_that_had_none() {
    let authority = Authority::new();
    let server = authority.closed_server();
    let client = authority.client();
    assert!(!both_accept(&client, &server).await);
    let issued = authority.issue("late");
    client
        .reloader()
        .reload_pem(&issued.chain, &issued.key)
        .unwrap();
    assert!(both_accept(&client, &server).await);
}

#[tokio::test]
async fn a_bad_reload_says_why_and_keeps_the_old_certificate() {
    let authority = Authority::new();
    let server = authority.server("localhost");
    let reloader = server.reloader();
    let (one, two) = (authority.issue("localhost"), authority.issue("localhost"));
    assert_eq!(
        reloader
            .reload_pem(&one.chain, &two.key)
            .unwrap_err()
            .to_string(),
        "CertificateReloader::reload_pem: the private key in the given input does not belong to \
         the first certificate"
    );
    assert_eq!(
        reloader
            .reload_pem("nothing", &one.key)
            .unwrap_err()
            .to_string(),
        "CertificateReloader::reload_pem: the given input has no `BEGIN CERTIFICATE` section"
    );
    assert!(matches!(
        reloader.reload_files("/absent.pem", "/absent.key"),
        Err(TlsError::Read { .. })
    ));
    assert!(both_accept(&authority.client(), &server).await);
    drop(server);
    let gone = reloader.reload_pem(&one.chain, &one.key).unwrap_err();
    assert_eq!(
        gone.to_string(),
        "ServerTls::reloader: its configuration is no longer in use"
    );
}

/// A folder of its own with a certificate and a key in it, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(issued: &Issued) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "iip-tls-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let folder = Self(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&folder.0).unwrap();
        std::fs::write(folder.chain(), &issued.chain).unwrap();
        std::fs::write(folder.key(), &issued.key).unwrap();
        folder
    }

    fn chain(&self) -> PathBuf {
        self.0.join("chain.pem")
    }

    fn key(&self) -> PathBuf {
        self.0.join("key.pem")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn certificate(cell: &IdentityCell) -> Vec<u8> {
    cell.current.load().as_ref().unwrap().cert[0].to_vec()
}

/// The clock is paused: the watch runs as soon as nothing else can, and nobody waits.
async fn after_looks(count: u32) {
    tokio::time::sleep(WATCH_INTERVAL * count + WATCH_INTERVAL / 2).await;
}

#[tokio::test(start_paused = true)]
async fn watched_files_are_used_when_they_change_and_only_as_a_pair() {
    let authority = Authority::new();
    let (old, new) = (authority.issue("localhost"), authority.issue("localhost"));
    let folder = Folder::new(&old);
    let server = ServerTls::from_files(folder.chain(), folder.key())
        .unwrap()
        .watch_files()
        .unwrap();
    after_looks(3).await;
    assert_eq!(certificate(&server.identity), old.der);

    // Half of the pair: refused, the old one stays.
    std::fs::write(folder.chain(), &new.chain).unwrap();
    after_looks(2).await;
    assert_eq!(certificate(&server.identity), old.der);
    std::fs::write(folder.key(), &new.key).unwrap();
    after_looks(1).await;
    assert_eq!(certificate(&server.identity), new.der);

    std::fs::remove_file(folder.key()).unwrap();
    after_looks(2).await;
    assert_eq!(certificate(&server.identity), new.der);
    std::fs::write(folder.chain(), &old.chain).unwrap();
    std::fs::write(folder.key(), &old.key).unwrap();
    after_looks(1).await;
    assert_eq!(certificate(&server.identity), old.der);
    assert!(both_accept(&authority.client(), &server).await);
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_with_its_configuration_and_with_the_next_watch() {
    let authority = Authority::new();
    let folder = Folder::new(&authority.issue("client"));
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let client = authority
        .client()
        .identity_files(folder.chain(), folder.key())
        .unwrap()
        .watch_files()
        .unwrap();
    let reloader = client.reloader();
    reloader
        .watch_files(folder.chain(), folder.key(), Duration::from_secs(1))
        .unwrap();
    after_looks(1).await;
    assert_eq!(tasks(), 1);
    drop(client);
    // At once, not when it looks next.
    tokio::task::yield_now().await;
    assert_eq!(tasks(), 0);
}

#[test]
fn watching_needs_files_and_a_runtime() {
    let authority = Authority::new();
    let issued = authority.issue("localhost");
    let error = authority.server("localhost").watch_files().unwrap_err();
    assert_eq!(
        error.to_string(),
        "ServerTls::watch_files: the certificate is not from files, use \
         CertificateReloader::watch_files"
    );
    let folder = Folder::new(&issued);
    let error = ServerTls::from_files(folder.chain(), folder.key())
        .unwrap()
        .watch_files()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "ServerTls::watch_files: must be called in a tokio runtime"
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up_in_time() {
    let authority = Authority::new();
    let start = tokio::time::Instant::now();
    let (_near, far) = duplex(64);
    let error = authority.server("localhost").accept(far).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(
        error.to_string(),
        "tls handshake not finished within 10s (option ServerTls::handshake_timeout)"
    );
    assert_eq!(start.elapsed(), HANDSHAKE_TIMEOUT);

    let (near, _far) = duplex(64 * 1024);
    let client = authority.client().handshake_timeout(Duration::from_secs(3));
    let error = client.connect(near, Some("localhost")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "tls handshake not finished within 3s (option ClientTls::handshake_timeout)"
    );
    assert_eq!(start.elapsed(), HANDSHAKE_TIMEOUT + Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_one_byte_a_second_is_given_up_in_time() {
    let (mut near, far) = duplex(64);
    let server = Authority::new().server("localhost");
    let drip = async {
        // The start of a handshake record of 512 bytes.
        for byte in [0x16, 3, 1, 2, 0].into_iter().chain(std::iter::repeat(1)) {
            if near.write_u8(byte).await.is_err() {
                return;
            }
            // Slowness is the attack, on a clock that is paused.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let start = tokio::time::Instant::now();
    let (outcome, ()) = tokio::join!(server.accept(far), drip);
    assert!(matches!(reason(outcome), TlsError::Timeout { .. }));
    assert_eq!(start.elapsed(), HANDSHAKE_TIMEOUT);
}

async fn accept_from(peer: impl AsyncFnOnce(&mut DuplexStream)) -> TlsError {
    let (mut near, far) = duplex(64 * 1024);
    peer(&mut near).await;
    drop(near);
    reason(Authority::new().server("localhost").accept(far).await)
}

#[tokio::test]
async fn a_plain_peer_is_told_from_a_tls_peer() {
    let plain = accept_from(async |near| {
        near.write_all(b"\x01/sys/new_channel\0\0\0\0\0\0\0\0\x02{}")
            .await
            .unwrap()
    });
    assert_eq!(plain.await.to_string(), "the peer does not speak tls");
    let http = accept_from(async |near| near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap());
    assert_eq!(http.await.to_string(), "the peer does not speak tls");
    let silent = accept_from(async |_| {}).await;
    assert_eq!(
        silent.to_string(),
        "the peer closed the connection during the tls handshake; it may not speak tls"
    );
}

/// Counts warnings.
struct Warnings(Arc<AtomicUsize>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN && metadata.target().contains("::tls")
    }
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn the_dangerous_client_accepts_anything_hands_out_no_certificate_and_warns() {
    let client = DangerousClientTls::accept_any_certificate();
    let warnings = Arc::new(AtomicUsize::new(0));
    tracing::subscriber::with_default(Warnings(Arc::clone(&warnings)), || client.check().unwrap());
    assert_eq!(warnings.load(Ordering::Relaxed), 1);

    let server = Authority::new().server("example.org");
    let (near, far) = shake_hands(&client, &server).await;
    let (near, certificates) = near.unwrap();
    assert!(certificates.is_empty());
    converse(near, far.unwrap().0).await;

    let verifying = client.roots_pem(Authority::new().pem()).unwrap();
    assert!(
        !both_accept(&verifying, &server).await,
        "roots turn verification on again"
    );
}

#[test]
fn mistakes_name_the_call_and_the_file() {
    let authority = Authority::new();
    let issued = authority.issue("localhost");
    let folder = Folder::new(&issued);
    let (chain, key) = (folder.chain(), folder.key());
    let shown = chain.display();
    let absent = folder.0.join("absent.pem");

    let error = ClientTls::new().roots_file(&absent).unwrap_err();
    let begin = format!("ClientTls::roots_file: cannot read {}: ", absent.display());
    let reason = std::fs::read(&absent).unwrap_err().to_string();
    assert_eq!(error.to_string(), begin + &reason);
    assert!(error.source().is_none(), "the text contains the cause");
    assert_eq!(
        ServerTls::from_files(&chain, &chain)
            .unwrap_err()
            .to_string(),
        format!(
            "ServerTls::from_files: {shown} has no private key that is not encrypted (pkcs#8, \
             pkcs#1 or sec1)"
        )
    );
    assert_eq!(
        ServerTls::from_files(&key, &key).unwrap_err().to_string(),
        format!(
            "ServerTls::from_files: {} has no `BEGIN CERTIFICATE` section",
            key.display()
        )
    );
    std::fs::write(
        &chain,
        "-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let error = ClientTls::new().identity_files(&chain, &key).unwrap_err();
    assert!(
        error.to_string().starts_with(&format!(
            "ClientTls::identity_files: {shown} is not valid pem: "
        )),
        "{error}"
    );
    std::fs::write(
        &chain,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    for error in [
        ServerTls::from_files(&chain, &key).unwrap_err(),
        authority
            .server("localhost")
            .client_roots_file(&chain)
            .unwrap_err(),
    ] {
        assert!(matches!(&error, TlsError::BadCertificate { .. }), "{error}");
    }
    let bad_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let error = ServerTls::from_pem(&issued.chain, bad_key).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("ServerTls::from_pem: the private key in the given input is unusable: "),
        "{error}"
    );
    let io = io::Error::from(TlsError::NoServerName);
    assert_eq!(io.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn debug_output_holds_no_key() {
    let authority = Authority::new();
    let issued = authority.issue("client");
    let client = authority.client_with(&issued);
    assert_eq!(
        format!("{client:?}"),
        "ClientTls { trust: \"1 given roots\", identity: true, server_name: None, \
         handshake_timeout: 10s }"
    );
    let server = authority.server("localhost").max_handshakes(0);
    assert_eq!(
        format!("{server:?}"),
        "ServerTls { identity: Pem, client_roots: 0, client_certificate: Required, handshake_timeout: 10s, \
         max_handshakes: 1 }"
    );
}
