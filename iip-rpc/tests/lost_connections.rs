//! What both sides learn of a connection that is lost.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::sync::Mutex;
use std::time::Duration;

use iip_rpc::{CallContext, Client, Code, Execution, Server, Status, Stream, Streaming, service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

const GUARD: Duration = Duration::from_secs(60);

const MIB: usize = 1 << 20;

#[service]
trait Blobs {
    async fn blobs(&self) -> Result<impl Stream<Item = Result<Vec<u8>, Status>>, Status>;
    async fn begin(&self, ctx: &CallContext) -> Result<(), Status>;
}

#[derive(Default)]
struct Here {
    ended: Mutex<Option<oneshot::Sender<()>>>,
}

impl Blobs for Here {
    async fn blobs(&self) -> Result<impl Stream<Item = Result<Vec<u8>, Status>>, Status> {
        Ok(Streaming::iter([vec![7; MIB], vec![8; MIB]]))
    }

    async fn begin(&self, ctx: &CallContext) -> Result<(), Status> {
        let (ctx, ended) = (ctx.clone(), self.ended.lock().unwrap().take());
        tokio::spawn(async move {
            ctx.peer().unwrap().closed().await;
            ended.unwrap().send(())
        });
        Ok(())
    }
}

/// Returns the address of a connection to `server` that ends after so many bytes from there.
async fn cut_after(server: String, bytes: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(server).await.unwrap();
        let (mut from_client, mut to_client) = client.split();
        let (from_server, mut to_server) = server.split();
        let mut from_server = from_server.take(bytes as u64);
        tokio::select! {
            _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
            _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
        }
        let _ = to_client.shutdown().await;
        let _ = tokio::io::copy(&mut from_client, &mut tokio::io::sink()).await;
    });
    address
}

#[tokio::test]
async fn a_connection_lost_within_a_message_of_a_stream_is_the_reason_for_its_end() {
    let server = Server::builder().service(BlobsServer::new(Here::default()));
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let target = cut_after(server.target().to_string(), MIB + MIB / 2).await;
    let blobs = BlobsClient::new(Client::connect(&target).await.unwrap());
    let mut stream = blobs.blobs().await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().len(), MIB);
    let next = tokio::time::timeout(GUARD, stream.next()).await;
    let status = next.unwrap().unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(status.execution(), Execution::MayHaveExecuted);
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_server_learns_of_the_end_of_a_connection_between_calls() {
    let (sender, mut ended) = oneshot::channel();
    let here = Here {
        ended: Mutex::new(Some(sender)),
    };
    let server = Server::builder().service(BlobsServer::new(here));
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let client = Client::connect(server.target()).await.unwrap();
    let blobs = BlobsClient::new(client.clone());
    blobs.begin(&CallContext::new()).await.unwrap();
    assert!(ended.try_recv().is_err());
    client.close(GUARD).await;
    tokio::time::timeout(GUARD, ended).await.unwrap().unwrap();
}
