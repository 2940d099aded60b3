//! One whole call at a time, with one reused buffer: the bound for a connection without
//! multiplexing.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use iip_benches::{BoxError, EchoClient, Peer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

fn main() -> ExitCode {
    iip_benches::main::<PingPong>()
}

struct PingPong;

impl Peer for PingPong {
    type Client = Client;

    async fn serve(addr: SocketAddr) -> Result<(), BoxError> {
        let serve = |io| drop(tokio::spawn(serve_connection(Connection::new(io))));
        iip_benches::listen(addr, serve).await
    }

    async fn connect(addr: SocketAddr) -> Result<Client, BoxError> {
        let io = TcpStream::connect(addr).await?;
        io.set_nodelay(true)?;
        Ok(Client {
            connection: Arc::new(Mutex::new(Connection::new(io))),
        })
    }
}

async fn serve_connection(mut connection: Connection) -> io::Result<()> {
    while let Ok(body) = connection.receive().await {
        connection.send(&body).await?;
    }
    Ok(())
}

#[derive(Clone)]
struct Client {
    connection: Arc<Mutex<Connection>>,
}

impl EchoClient for Client {
    type Error = io::Error;

    async fn echo(&self, body: Bytes) -> io::Result<Bytes> {
        let mut connection = self.connection.lock().await;
        connection.send(&body).await?;
        connection.receive().await
    }
}

/// Messages of `len` (u32) and `len` bytes.
struct Connection {
    io: TcpStream,
    buffer: BytesMut,
}

impl Connection {
    fn new(io: TcpStream) -> Self {
        let buffer = BytesMut::new();
        Self { io, buffer }
    }

    async fn send(&mut self, body: &[u8]) -> io::Result<()> {
        let head = (body.len() as u32).to_be_bytes();
        let mut message = bytes::Buf::chain(&head[..], body);
        self.io.write_all_buf(&mut message).await
    }

    async fn receive(&mut self) -> io::Result<Bytes> {
        while self.buffer.len() < 4 {
            // Once the last body is dropped this finds the same memory again.
            self.buffer.reserve(4 * 1024);
            self.fill().await?;
        }
        let len = bytes::Buf::get_u32(&mut self.buffer) as usize;
        self.buffer.reserve(len.saturating_sub(self.buffer.len()));
        while self.buffer.len() < len {
            self.fill().await?;
        }
        Ok(self.buffer.split_to(len).freeze())
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.io.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}
