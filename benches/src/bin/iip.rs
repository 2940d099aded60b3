//! IIP with types: a service of iip-rpc with its default settings.

use std::net::SocketAddr;
use std::process::ExitCode;

use bytes::Bytes;
use iip_benches::{BoxError, EchoClient, Peer};
use iip_rpc::{Server, Status, service};

fn main() -> ExitCode {
    iip_benches::main::<Iip>()
}

/// The service under test.
#[service]
trait IipEcho {
    /// Returns its argument.
    async fn echo(&self, body: Bytes) -> Result<Bytes, Status>;
}

struct Mirror;

impl IipEcho for Mirror {
    async fn echo(&self, body: Bytes) -> Result<Bytes, Status> {
        Ok(body)
    }
}

struct Iip;

impl Peer for Iip {
    type Client = Client;

    async fn serve(addr: SocketAddr) -> Result<(), BoxError> {
        let server = Server::builder()
            .service(IipEchoServer::new(Mirror))
            .bind(addr.to_string())
            .await?;
        iip_benches::announce(server.local_addr().ok_or("not a TCP address")?)?;
        server.stopped().await;
        Ok(())
    }

    async fn connect(addr: SocketAddr) -> Result<Client, BoxError> {
        Ok(Client(IipEchoClient::new(
            iip_rpc::Client::connect(addr.to_string()).await?,
        )))
    }
}

#[derive(Clone)]
struct Client(IipEchoClient);

impl EchoClient for Client {
    type Error = Status;

    async fn echo(&self, body: Bytes) -> Result<Bytes, Status> {
        self.0.echo(body).await
    }
}
