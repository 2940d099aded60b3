//! TLS with certificates on both sides, the identity of the caller, and a server certificate that
//! is renewed while the server runs.
//!
//! Run: `cargo run -p iip-examples --example tls`
//! Prints: the name of a client with a certificate, that one without is rejected, and that new
//! connections see the renewed certificate while the old one continues.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use iip_rpc::tls::{ClientTls, ServerTls};
use iip_rpc::{CallContext, Client, Server, Status, service};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// A service that knows its callers.
#[service]
pub trait Door {
    /// Returns the name of the caller.
    async fn who(&self, ctx: &CallContext) -> Result<String, Status>;
}

struct Porter {
    /// The certificates of known callers (DER), and their names.
    guests: HashMap<Vec<u8>, String>,
}

impl Door for Porter {
    async fn who(&self, ctx: &CallContext) -> Result<String, Status> {
        // The caller's own certificate comes first. TLS has verified it: it is from our authority
        // and valid now.
        let certificate = ctx.peer().and_then(|peer| peer.certificates().first());
        let guest = certificate.and_then(|certificate| self.guests.get(certificate));
        guest
            .cloned()
            .ok_or_else(|| Status::permission_denied("not on the list"))
    }
}

/// Issues a certificate with its key; in production these are files.
struct Issued {
    chain: String,
    key: String,
    der: Vec<u8>,
}

fn authority() -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut params = CertificateParams::new([])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate()?)
}

fn issue(authority: &CertifiedIssuer<'_, KeyPair>, name: &str) -> Result<Issued, rcgen::Error> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new([name.to_owned()])?.signed_by(&key, authority)?;
    Ok(Issued {
        chain: certificate.pem(),
        key: key.serialize_pem(),
        der: certificate.der().to_vec(),
    })
}

/// Returns the certificate of the server on the client's connection.
async fn shown_to(client: &Client) -> Result<Option<Vec<u8>>, Box<dyn std::error::Error>> {
    let connection = client
        .raw()
        .connection(Instant::now() + Duration::from_secs(3))
        .await?;
    Ok(connection.peer().certificates().first().cloned())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let authority = authority()?;
    let (first, renewed, ann) = (
        issue(&authority, "127.0.0.1")?,
        issue(&authority, "127.0.0.1")?,
        issue(&authority, "ann")?,
    );

    // `client_roots_pem` makes it mutual TLS: clients need a certificate of this authority. With
    // certificates in files: `ServerTls::from_files(..)?.client_roots_file(..)?.watch_files()?`.
    let server_tls =
        ServerTls::from_pem(&first.chain, &first.key)?.client_roots_pem(authority.pem())?;
    let reloader = server_tls.reloader();
    let porter = Porter {
        guests: HashMap::from([(ann.der, "ann".to_owned())]),
    };
    let server = Server::builder()
        .service(DoorServer::new(porter))
        .tls(server_tls)
        .bind("127.0.0.1:0")
        .await?;

    // The authorities that the client trusts; by default those of the platform.
    let anonymous = ClientTls::new().roots_pem(authority.pem())?;
    let known = anonymous.clone().identity_pem(&ann.chain, &ann.key)?;

    let client = Client::builder()
        .tls(known.clone())
        .connect(server.target())
        .await?;
    let door = DoorClient::new(client.clone());
    println!(
        "with a certificate: {}",
        door.who(&CallContext::new()).await?
    );
    match Client::builder()
        .tls(anonymous)
        .connect(server.target())
        .await
    {
        Ok(_) => println!("without: let in"),
        Err(status) => println!("without: {}, {}", status.code(), status.execution()),
    }

    reloader.reload_pem(&renewed.chain, &renewed.key)?;
    let newcomer = Client::builder()
        .tls(known)
        .connect(server.target())
        .await?;
    println!(
        "a new connection sees the renewed certificate: {}",
        shown_to(&newcomer).await? == Some(renewed.der)
    );
    println!(
        "the old connection has the first: {}",
        shown_to(&client).await? == Some(first.der)
    );
    println!("and goes on: {}", door.who(&CallContext::new()).await?);

    server.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
