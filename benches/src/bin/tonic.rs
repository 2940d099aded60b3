//! gRPC by tonic. The code that `protoc` and tonic-build would generate for its methods is written
//! by hand, so that building the benchmark needs neither.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::ExitCode;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt};
use iip_benches::streams::{self, Messages};
use iip_benches::{BoxError, EchoClient, Peer};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{Service, http};
use tonic::server::{
    ClientStreamingService, Grpc as ServerGrpc, NamedService, ServerStreamingService,
    StreamingService, UnaryService,
};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

const PATH: &str = "/bench.Echo/Echo";
const DOWNLOAD: &str = "/bench.Echo/Download";
const UPLOAD: &str = "/bench.Echo/Upload";
const TO_AND_FRO: &str = "/bench.Echo/ToAndFro";
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

fn main() -> ExitCode {
    iip_benches::main::<Tonic>()
}

#[derive(Clone, PartialEq, prost::Message)]
struct EchoMessage {
    #[prost(bytes = "bytes", tag = "1")]
    body: Bytes,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Number {
    #[prost(uint64, tag = "1")]
    number: u64,
}

struct Tonic;

impl Peer for Tonic {
    type Client = Client;

    async fn serve(addr: SocketAddr) -> Result<(), BoxError> {
        let listener = TcpListener::bind(addr).await?;
        iip_benches::announce(listener.local_addr()?)?;
        Server::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .add_service(EchoServer)
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
            .await?;
        Ok(())
    }

    async fn connect(addr: SocketAddr) -> Result<Client, BoxError> {
        let channel = Endpoint::from_shared(format!("http://{addr}"))?
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .connect()
            .await?;
        let grpc = tonic::client::Grpc::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        Ok(Client { grpc })
    }
}

#[derive(Clone)]
struct Client {
    grpc: tonic::client::Grpc<Channel>,
}

impl EchoClient for Client {
    type Error = Status;

    async fn echo(&self, body: Bytes) -> Result<Bytes, Status> {
        let mut grpc = self.ready().await?;
        let codec = ProstCodec::<EchoMessage, EchoMessage>::default();
        let path = PathAndQuery::from_static(PATH);
        let reply = grpc
            .unary(Request::new(EchoMessage { body }), path, codec)
            .await?;
        Ok(reply.into_inner().body)
    }

    async fn download(&self, len: usize) -> Result<Messages, BoxError> {
        let mut grpc = self.ready().await?;
        let codec = ProstCodec::<Number, EchoMessage>::default();
        let path = PathAndQuery::from_static(DOWNLOAD);
        let number = len as u64;
        let reply = grpc
            .server_streaming(Request::new(Number { number }), path, codec)
            .await?;
        Ok(bodies(reply.into_inner()))
    }

    async fn upload(
        &self,
        messages: Pin<Box<dyn Stream<Item = Bytes> + Send>>,
    ) -> Result<u64, BoxError> {
        let mut grpc = self.ready().await?;
        let codec = ProstCodec::<EchoMessage, Number>::default();
        let path = PathAndQuery::from_static(UPLOAD);
        let messages = messages.map(|body| EchoMessage { body });
        let reply = grpc
            .client_streaming(Request::new(messages), path, codec)
            .await?;
        Ok(reply.into_inner().number)
    }

    async fn to_and_fro(&self, messages: mpsc::Receiver<Bytes>) -> Result<Messages, BoxError> {
        let mut grpc = self.ready().await?;
        let codec = ProstCodec::<EchoMessage, EchoMessage>::default();
        let path = PathAndQuery::from_static(TO_AND_FRO);
        let messages = streams::of(messages).map(|body| EchoMessage { body });
        let reply = grpc.streaming(Request::new(messages), path, codec).await?;
        Ok(bodies(reply.into_inner()))
    }
}

fn bodies(messages: tonic::Streaming<EchoMessage>) -> Messages {
    Box::pin(messages.map(|message| Ok(message?.body)))
}

impl Client {
    async fn ready(&self) -> Result<tonic::client::Grpc<Channel>, Status> {
        let mut grpc = self.grpc.clone();
        grpc.ready()
            .await
            .map_err(|e| Status::unknown(format!("service was not ready: {e}")))?;
        Ok(grpc)
    }
}

#[derive(Clone)]
struct EchoServer;

impl NamedService for EchoServer {
    const NAME: &'static str = "bench.Echo";
}

impl Service<http::Request<Body>> for EchoServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            Ok(match request.uri().path() {
                PATH => grpc().unary(EchoMethod, request).await,
                DOWNLOAD => grpc().server_streaming(DownloadMethod, request).await,
                UPLOAD => grpc().client_streaming(UploadMethod, request).await,
                TO_AND_FRO => grpc().streaming(ToAndFroMethod, request).await,
                _ => Status::unimplemented("").into_http(),
            })
        })
    }
}

fn grpc<Q, A>() -> ServerGrpc<ProstCodec<A, Q>>
where
    Q: prost::Message + Default + Send + 'static,
    A: prost::Message + Default + Send + 'static,
{
    ServerGrpc::new(ProstCodec::default())
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

type Answers = Pin<Box<dyn Stream<Item = Result<EchoMessage, Status>> + Send>>;

struct DownloadMethod;

impl ServerStreamingService<Number> for DownloadMethod {
    type Response = EchoMessage;
    type ResponseStream = Answers;
    type Future = BoxFuture<Result<Response<Answers>, Status>>;

    fn call(&mut self, request: Request<Number>) -> Self::Future {
        Box::pin(async move {
            let len = usize::try_from(request.into_inner().number);
            let len = len.map_err(|e| Status::invalid_argument(e.to_string()))?;
            let messages = streams::endless(len).map(|body| Ok(EchoMessage { body }));
            Ok(Response::new(Box::pin(messages) as Answers))
        })
    }
}

struct UploadMethod;

impl ClientStreamingService<EchoMessage> for UploadMethod {
    type Response = Number;
    type Future = BoxFuture<Result<Response<Number>, Status>>;

    fn call(&mut self, request: Request<tonic::Streaming<EchoMessage>>) -> Self::Future {
        Box::pin(async move {
            let mut messages = request.into_inner();
            let mut number = 0;
            while messages.message().await?.is_some() {
                number += 1;
            }
            Ok(Response::new(Number { number }))
        })
    }
}

struct ToAndFroMethod;

impl StreamingService<EchoMessage> for ToAndFroMethod {
    type Response = EchoMessage;
    type ResponseStream = Answers;
    type Future = BoxFuture<Result<Response<Answers>, Status>>;

    fn call(&mut self, request: Request<tonic::Streaming<EchoMessage>>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(Box::pin(request.into_inner()) as Answers)) })
    }
}

struct EchoMethod;

impl UnaryService<EchoMessage> for EchoMethod {
    type Response = EchoMessage;
    // Boxed, as generated code boxes it.
    type Future = BoxFuture<Result<Response<EchoMessage>, Status>>;

    fn call(&mut self, request: Request<EchoMessage>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(request.into_inner())) })
    }
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
