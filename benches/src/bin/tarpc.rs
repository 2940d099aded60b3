//! tarpc over TCP with bincode. The body is a `Bytes`, which serde carries as one run of bytes, as
//! `serde_bytes` would.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use iip_benches::{BoxError, EchoClient, Peer};
use tarpc::client::RpcError;
use tarpc::context::Context;
use tarpc::server::{BaseChannel, Channel as _};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::tokio_util::codec::LengthDelimitedCodec;
use tarpc::tokio_util::codec::length_delimited::Builder;
use tokio::net::TcpStream;

const MAX_FRAME: usize = 64 * 1024 * 1024;

fn main() -> ExitCode {
    iip_benches::main::<Tarpc>()
}

#[tarpc::service]
trait TarpcEcho {
    async fn echo(body: Bytes) -> Bytes;
}

#[derive(Clone)]
struct Server;

impl TarpcEcho for Server {
    async fn echo(self, _: Context, body: Bytes) -> Bytes {
        body
    }
}

struct Tarpc;

impl Peer for Tarpc {
    type Client = Client;

    async fn serve(addr: SocketAddr) -> Result<(), BoxError> {
        iip_benches::listen(addr, |io| {
            let transport =
                tarpc::serde_transport::new(framing().new_framed(io), Bincode::default());
            let calls = BaseChannel::with_defaults(transport).execute(Server.serve());
            tokio::spawn(calls.for_each(async |call| {
                tokio::spawn(call);
            }));
        })
        .await
    }

    async fn connect(addr: SocketAddr) -> Result<Client, BoxError> {
        let io = TcpStream::connect(addr).await?;
        io.set_nodelay(true)?;
        let transport = tarpc::serde_transport::new(framing().new_framed(io), Bincode::default());
        let mut config = tarpc::client::Config::default();
        config.max_in_flight_requests = usize::MAX;
        let client = TarpcEchoClient::new(config, transport).spawn();
        Ok(Client { client })
    }
}

fn framing() -> Builder {
    let mut framing = LengthDelimitedCodec::builder();
    framing.max_frame_length(MAX_FRAME);
    framing
}

#[derive(Clone)]
struct Client {
    client: TarpcEchoClient,
}

impl EchoClient for Client {
    type Error = RpcError;

    async fn echo(&self, body: Bytes) -> Result<Bytes, RpcError> {
        let mut context = tarpc::context::current();
        context.deadline = Instant::now() + Duration::from_secs(60);
        self.client.echo(context, body).await
    }
}
