//! IIP with types: a service of iip-rpc with its default settings.

use std::net::SocketAddr;
use std::pin::Pin;
use std::process::ExitCode;

use bytes::Bytes;
use futures_util::StreamExt;
use iip_benches::streams::{self, Messages};
use iip_benches::{BoxError, EchoClient, Peer};
use iip_rpc::observe::{MetricsFacade, MetricsInterceptor, TracingInterceptor};
use iip_rpc::{Server, Status, Stream, Streaming, service};
use tokio::sync::mpsc;

fn main() -> ExitCode {
    iip_benches::main::<Iip>()
}

/// The service under test.
#[service]
trait IipEcho {
    /// Returns its argument.
    async fn echo(&self, body: Bytes) -> Result<Bytes, Status>;
    /// An endless stream.
    async fn download(&self, len: u64)
    -> Result<impl Stream<Item = Result<Bytes, Status>>, Status>;
    /// Counts messages.
    async fn upload(&self, messages: Streaming<Bytes>) -> Result<u64, Status>;
    /// Returns each message.
    async fn to_and_fro(
        &self,
        messages: Streaming<Bytes>,
    ) -> Result<impl Stream<Item = Result<Bytes, Status>>, Status>;
}

struct Mirror;

impl IipEcho for Mirror {
    async fn echo(&self, body: Bytes) -> Result<Bytes, Status> {
        Ok(body)
    }

    async fn download(
        &self,
        len: u64,
    ) -> Result<impl Stream<Item = Result<Bytes, Status>>, Status> {
        let len = usize::try_from(len).map_err(|e| Status::invalid_argument(e.to_string()))?;
        Ok(streams::endless(len).map(Ok))
    }

    async fn upload(&self, mut messages: Streaming<Bytes>) -> Result<u64, Status> {
        let mut count = 0;
        while let Some(message) = messages.next().await {
            message?;
            count += 1;
        }
        Ok(count)
    }

    async fn to_and_fro(
        &self,
        messages: Streaming<Bytes>,
    ) -> Result<impl Stream<Item = Result<Bytes, Status>>, Status> {
        Ok(messages)
    }
}

/// Returns `true` if both sides have a span and metrics for each call, without a consumer.
fn is_observed() -> bool {
    std::env::var_os("IIP_OBSERVED").is_some()
}

/// Returns the target of the client: a balanced client with one backend, or an address.
fn target(addr: SocketAddr) -> String {
    match std::env::var_os("IIP_BALANCED") {
        Some(_) => format!("static:{addr}"),
        None => addr.to_string(),
    }
}

struct Iip;

impl Peer for Iip {
    type Client = Client;

    async fn serve(addr: SocketAddr) -> Result<(), BoxError> {
        let mut server = Server::builder();
        if is_observed() {
            server = server
                .interceptor(TracingInterceptor::new())
                .interceptor(MetricsInterceptor::new(MetricsFacade::new()));
        }
        let server = server
            .service(IipEchoServer::new(Mirror))
            .bind(addr.to_string())
            .await?;
        iip_benches::announce(server.local_addr().ok_or("not a TCP address")?)?;
        server.stopped().await;
        Ok(())
    }

    async fn connect(addr: SocketAddr) -> Result<Client, BoxError> {
        let mut client = iip_rpc::Client::builder();
        if is_observed() {
            client = client
                .interceptor(TracingInterceptor::new())
                .interceptor(MetricsInterceptor::new(MetricsFacade::new()));
        }
        let client = client.connect(target(addr)).await?;
        Ok(Client(IipEchoClient::new(client)))
    }
}

#[derive(Clone)]
struct Client(IipEchoClient);

impl EchoClient for Client {
    type Error = Status;

    async fn echo(&self, body: Bytes) -> Result<Bytes, Status> {
        self.0.echo(body).await
    }

    async fn download(&self, len: usize) -> Result<Messages, BoxError> {
        let messages = self.0.download(len as u64).await?;
        Ok(Box::pin(messages.map(|message| Ok(message?))))
    }

    async fn upload(
        &self,
        messages: Pin<Box<dyn Stream<Item = Bytes> + Send>>,
    ) -> Result<u64, BoxError> {
        Ok(self.0.upload(Streaming::from_stream(messages)).await?)
    }

    async fn to_and_fro(&self, messages: mpsc::Receiver<Bytes>) -> Result<Messages, BoxError> {
        let messages = Streaming::from_stream(streams::of(messages));
        let messages = self.0.to_and_fro(messages).await?;
        Ok(Box::pin(messages.map(|message| Ok(message?))))
    }
}
