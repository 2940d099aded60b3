//! Forwarding of bytes.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use iip_core::frame::Side;
use iip_core::transport::{Connected, IoStream, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Semaphore;

use super::Recorder;
use super::tap::Tap;
use crate::connection::Direct;
use crate::output::Output;

/// Maximum number of concurrent connections. Further ones wait until another has ended.
const MAX_CONNECTIONS: usize = 1024;

/// Maximum number of bytes that are read at once.
const READ_BYTES: usize = 64 * 1024;

/// The time that a client has to end its connection once the server has ended its own.
const LINGER: Duration = Duration::from_secs(5);

/// The pause after a failure to accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The settings for forwarding connections.
pub(super) struct Proxy {
    pub(super) recorder: Arc<Recorder>,
    pub(super) server: Direct,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<iip_rpc::tls::ServerTls>,
    pub(super) output: Output,
}

impl Proxy {
    /// Accepts connections, without end.
    pub(super) async fn serve(self: Arc<Self>, mut listener: Listener) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok(client) => {
                    let this = Arc::clone(&self);
                    tokio::spawn(async move {
                        this.connection(client).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    self.output.detail(format_args!("cannot accept: {error}"));
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Forwards a connection.
    async fn connection(&self, client: Connected) {
        let peer = client.addr.map(|addr| addr.to_string());
        let name = peer.as_deref().unwrap_or("a client").to_owned();
        let ended = |what: &str, error: &io::Error| {
            self.output.detail(format_args!("{name}: {what}: {error}"));
        };
        let client = match self.accepted(client.io).await {
            Ok(client) => client,
            Err(error) => return ended("TLS", &error),
        };
        let server = match self.server.connect().await {
            Ok(server) => server,
            Err(error) => return ended("the server cannot be connected to", &error),
        };
        let tap = Observer::new(&self.recorder, peer);
        if let Err(error) = pass(client, server, &tap).await {
            ended("the connection broke", &error);
        }
        tap.close(None);
    }

    /// Returns the stream of a client, after the TLS handshake.
    #[cfg(feature = "tls")]
    async fn accepted(&self, io: IoStream) -> io::Result<IoStream> {
        match &self.tls {
            Some(tls) => tls.accept(io).await.map(|(io, _)| io),
            None => Ok(io),
        }
    }

    #[cfg(not(feature = "tls"))]
    async fn accepted(&self, io: IoStream) -> io::Result<IoStream> {
        Ok(io)
    }
}

/// A tap that both directions use, until it is closed.
struct Observer<'a> {
    recorder: &'a Arc<Recorder>,
    tap: Mutex<Option<Tap>>,
}

impl<'a> Observer<'a> {
    fn new(recorder: &'a Arc<Recorder>, peer: Option<String>) -> Self {
        let ended = recorder.queue.shared.has_ended();
        let tap = (!ended).then(|| Tap::new(Arc::clone(recorder), peer));
        Self {
            recorder,
            tap: Mutex::new(tap),
        }
    }

    fn take(&self, from: Side, bytes: &[u8]) {
        let mut tap = self.tap.lock().unwrap_or_else(PoisonError::into_inner);
        if self.recorder.queue.shared.has_ended() {
            *tap = None;
        }
        let taken = tap.as_mut().map(|tap| tap.take(from, bytes));
        drop(tap);
        if let Some(Err(reason)) = taken {
            self.close(Some(reason));
        }
    }

    fn close(&self, unreadable: Option<String>) {
        let tap = self
            .tap
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(tap) = tap {
            tap.close(unreadable);
        }
    }
}

/// Forwards bytes in both directions, until both have ended or one has failed.
async fn pass(client: IoStream, server: IoStream, tap: &Observer<'_>) -> io::Result<()> {
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    let requests = pump(from_client, to_server, Side::Client, tap);
    let replies = pump(from_server, to_client, Side::Server, tap);
    tokio::pin!(requests, replies);
    tokio::select! {
        biased;
        ended = &mut requests => {
            ended?;
            // Replies that are pending still arrive.
            replies.await
        }
        ended = &mut replies => {
            ended?;
            match tokio::time::timeout(LINGER, requests).await {
                Ok(ended) => ended,
                Err(_) => Ok(()),
            }
        }
    }
}

async fn pump(
    mut from: ReadHalf<IoStream>,
    mut to: WriteHalf<IoStream>,
    side: Side,
    tap: &Observer<'_>,
) -> io::Result<()> {
    let mut buf = vec![0; READ_BYTES];
    loop {
        let count = from.read(&mut buf).await?;
        let Some(bytes) = buf.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return to.shutdown().await;
        };
        // Observed before they are sent, so that requests are seen before their replies.
        tap.take(side, bytes);
        to.write_all(bytes).await?;
        to.flush().await?;
    }
}
