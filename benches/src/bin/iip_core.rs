//! IIP without types: iip-core with its default settings.

use std::net::SocketAddr;
use std::process::ExitCode;

use bytes::Bytes;
use iip_benches::{BoxError, EchoClient, Peer};
use iip_core::{CallError, HandlerError, Request, Response, Server, handler_fn};

fn main() -> ExitCode {
    iip_benches::main::<IipCore>()
}

struct IipCore;

impl Peer for IipCore {
    type Client = Client;

    async fn serve(addr: SocketAddr) -> Result<(), BoxError> {
        let echo = handler_fn(|request: Request| async move {
            Ok::<_, HandlerError>(Response::from(request.into_body()))
        });
        let server = Server::builder()
            .route("/echo", echo)
            .bind(addr.to_string())
            .await?;
        iip_benches::announce(server.local_addr().ok_or("not a TCP address")?)?;
        server.stopped().await;
        Ok(())
    }

    async fn connect(addr: SocketAddr) -> Result<Client, BoxError> {
        Ok(Client(iip_core::Client::connect(addr.to_string()).await?))
    }
}

#[derive(Clone)]
struct Client(iip_core::Client);

impl EchoClient for Client {
    type Error = CallError;

    async fn echo(&self, body: Bytes) -> Result<Bytes, CallError> {
        self.0.request("/echo", body).await
    }
}
