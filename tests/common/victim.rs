//! Our raw client, connected to a server that the test plays, frame by frame.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use iip_core::{CallError, CallErrorKind, CallOptions, Channel, Client, ClientBuilder};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::frame::RawFrame;
use super::peer::{Peer, accepted, listener};
use super::spawn;
use super::{GUARD, SERVED};

/// Our client, connected to a server that may misbehave.
pub(crate) struct Victim {
    pub(crate) listener: TcpListener,
    pub(crate) client: Client,
}

impl Victim {
    /// A client and the raw stream of its first connection, on which it has asked for its first
    /// channel.
    pub(crate) async fn connect(config: ClientBuilder) -> (Self, TcpStream) {
        Self::connect_to(listener().await, config).await
    }

    pub(crate) async fn connect_to(
        (listener, addr): (TcpListener, SocketAddr),
        config: ClientBuilder,
    ) -> (Self, TcpStream) {
        let client = config.connect_lazy(addr.to_string()).expect("an address");
        // Connecting succeeds or fails when the test grants or rejects the first channel.
        let first = client.clone();
        spawn(async move { first.connection(Instant::now() + GUARD).await });
        let stream = accepted(&listener).await;
        (Self { listener, client }, stream)
    }

    /// The same, with a peer that reads frames.
    pub(crate) async fn with_peer(config: ClientBuilder) -> (Self, Peer) {
        let (victim, stream) = Self::connect(config).await;
        (victim, Peer::over(stream))
    }

    /// The same, with one channel held by the caller.
    pub(crate) async fn with_channel(config: ClientBuilder) -> (Self, Peer, Channel) {
        let (victim, mut peer) = Self::with_peer(config).await;
        let channel = victim.granted_channel(&mut peer, 1).await;
        (victim, peer, channel)
    }

    /// Asks for a channel and gets `id`.
    pub(crate) async fn granted_channel(&self, peer: &mut Peer, id: u32) -> Channel {
        let asked = self.asks_for_channel();
        peer.grants(id).await;
        let channel = soon("a channel", asked).await.expect("it was granted");
        assert_eq!(channel.id().0, id);
        channel
    }

    /// The request is on the wire only when no free channel is left.
    pub(crate) fn asks_for_channel(&self) -> Pending<Channel> {
        let client = self.client.clone();
        spawn(async move { client.open_channel().await })
    }

    /// A call through the pool.
    pub(crate) fn calls(&self, path: &'static str, body: impl Into<Bytes>) -> Pending<Bytes> {
        let (client, body) = (self.client.clone(), body.into());
        spawn(async move { client.request(path, body).await })
    }

    /// The same with a timeout.
    pub(crate) fn calls_within(&self, path: &'static str, timeout: Duration) -> Pending<Bytes> {
        let (client, options) = (self.client.clone(), CallOptions::new().timeout(timeout));
        spawn(async move { client.request_with(path, "x", options).await })
    }

    /// The check after every attack: the next call uses a new connection and gets its reply, soon.
    pub(crate) async fn is_served_by_a_new_connection(&self) {
        self.echoes_over_a_new_connection("are you there").await;
    }

    /// The same with a body that the test chooses.
    pub(crate) async fn echoes_over_a_new_connection(&self, body: &'static str) {
        let call = spawn(patiently(self.client.clone(), body));
        let serve = async {
            let mut peer = Peer::over(accepted(&self.listener).await);
            honest(&mut peer, 0, 1).await;
            assert_eq!(call.await.expect("no panic"), body);
        };
        tokio::time::timeout(SERVED, serve)
            .await
            .expect("a new connection serves in time");
    }
}

/// Makes calls until one succeeds: right after a failed attempt to connect, calls fail at once,
/// unsent, until a short pause is over. No event reports its end: only a call makes the client
/// connect again.
async fn patiently(client: Client, body: &'static str) -> Bytes {
    loop {
        match client.request("/echo", body).await {
            Ok(reply) => return reply,
            Err(error) => assert!(
                matches!(error.kind(), CallErrorKind::Connect { .. }),
                "{error}"
            ),
        }
        tokio::task::yield_now().await;
    }
}

/// Grants channels after `granted`, and echoes, until `calls` calls have their replies.
pub(crate) async fn honest(peer: &mut Peer, mut granted: u32, mut calls: usize) {
    while calls > 0 {
        let frame = peer.frame().await;
        if frame.path == b"/sys/new_channel" {
            granted += 1;
            peer.send_frame(&RawFrame::grant(granted)).await;
        } else {
            peer.send_frame(&RawFrame::reply(&frame.path, frame.channel, &frame.body))
                .await;
            calls -= 1;
        }
    }
}

/// The outcome of a call that has been made, or of asking for a channel.
pub(crate) type Pending<T> = JoinHandle<Result<T, CallError>>;

/// The outcome of a call, which must be known long before a call's default timeout of ten seconds.
pub(crate) async fn soon<T>(what: &str, pending: Pending<T>) -> Result<T, CallError> {
    match tokio::time::timeout(SERVED, pending).await {
        Ok(outcome) => outcome.expect("no panic"),
        Err(_) => panic!("{what}: no outcome within {SERVED:?}"),
    }
}
