//! Connections within one process.

use std::io;

use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use super::{BACKLOG, ConnectFuture, Connected, Connector};

/// Number of bytes that an in-memory connection buffers in each direction before its writer waits.
/// Allocated as needed.
const BUFFER_BYTES: usize = 64 * 1024;

/// Creates the two ends of an in-memory connection.
pub(crate) fn pipe() -> (DuplexStream, DuplexStream) {
    tokio::io::duplex(BUFFER_BYTES)
}

/// Creates a connected pair of connector and listener in memory: for a server and its clients in
/// one process, in tests.
///
/// Up to 1024 connections wait to be accepted; further ones wait for room.
///
/// ```
/// use iip_core::transport::{Connector, Listener, memory};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// let (connector, listener) = memory();
/// let mut listener = Listener::from(listener);
/// let near = connector.connect().await?;
/// let far = listener.accept().await?;
/// # drop((near, far)); Ok(()) }
/// ```
pub fn memory() -> (MemoryConnector, MemoryListener) {
    let (sender, receiver) = mpsc::channel(BACKLOG as usize);
    (
        MemoryConnector { listener: sender },
        MemoryListener {
            connections: receiver,
        },
    )
}

/// Connector to the [`MemoryListener`] that it was created with. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct MemoryConnector {
    listener: mpsc::Sender<DuplexStream>,
}

impl Connector for MemoryConnector {
    fn connect(&self) -> ConnectFuture<'_> {
        Box::pin(async {
            let (near, far) = pipe();
            match self.listener.send(far).await {
                Ok(()) => Ok(Connected::new(near)),
                Err(_) => Err(io::Error::new(
                    io::ErrorKind::ConnectionRefused,
                    "the in-memory server is gone",
                )),
            }
        })
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}

/// Listener for the connections of its [`MemoryConnector`]s; converts into a
/// [`Listener`](super::Listener).
#[derive(Debug)]
pub struct MemoryListener {
    pub(super) connections: mpsc::Receiver<DuplexStream>,
}
