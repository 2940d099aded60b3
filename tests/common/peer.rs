//! A peer that speaks frames, or nonsense, over a real TCP socket.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::frame::RawFrame;
use super::spawn;
use super::within;

/// An event of a peer's reading end.
#[derive(Debug)]
pub(crate) enum Seen {
    Frame(RawFrame),
    /// The other side closed after `left` bytes of an unfinished frame.
    Closed {
        reset: bool,
        left: usize,
    },
}

/// One end of a connection whose other end is under test. It reads all the time, as a well-behaved
/// peer does; an attack that must not read uses a bare [`TcpStream`].
#[derive(Debug)]
pub(crate) struct Peer {
    writer: Option<OwnedWriteHalf>,
    seen: mpsc::UnboundedReceiver<Seen>,
    reading: JoinHandle<()>,
}

impl Peer {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self::over(stream_to(addr).await)
    }

    /// Reads nothing more.
    pub(crate) fn stop_reading(&self) {
        self.reading.abort();
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        let _ = stream.set_nodelay(true);
        let (mut reader, writer) = stream.into_split();
        // The queue is bounded by what the test's own script makes the other side send.
        let (sender, seen) = mpsc::unbounded_channel();
        let reading = spawn(async move {
            let mut buffer = Vec::new();
            loop {
                // The receiver is gone when the test has ended.
                let mut taken = 0;
                while let Some((frame, len)) = RawFrame::decode(&buffer[taken..]) {
                    taken += len;
                    let _ = sender.send(Seen::Frame(frame));
                }
                buffer.drain(..taken);
                let reset = match reader.read_buf(&mut buffer).await {
                    Ok(0) => false,
                    Ok(_) => continue,
                    Err(_) => true,
                };
                let _ = sender.send(Seen::Closed {
                    reset,
                    left: buffer.len(),
                });
                return;
            }
        });
        Self {
            writer: Some(writer),
            seen,
            reading,
        }
    }

    /// Sends bytes unchanged. An error is ignored: the other side may close in the middle of them,
    /// and the test checks what comes back.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        if let Some(writer) = &mut self.writer {
            let _ = within("sending bytes", writer.write_all(bytes)).await;
        }
    }

    pub(crate) async fn send_frame(&mut self, frame: &RawFrame) {
        self.send(&frame.encode()).await;
    }

    /// The next event: a frame or the end.
    pub(crate) async fn next(&mut self) -> Seen {
        within("a frame or the end of the connection", self.seen.recv())
            .await
            .unwrap_or(Seen::Closed {
                reset: false,
                left: 0,
            })
    }

    /// The next frame.
    #[track_caller]
    pub(crate) fn frame(&mut self) -> impl Future<Output = RawFrame> {
        let caller = std::panic::Location::caller();
        async move {
            match self.next().await {
                Seen::Frame(frame) => frame,
                closed @ Seen::Closed { .. } => {
                    panic!("{caller}: expected a frame, but: {closed:?}")
                }
            }
        }
    }

    /// A frame that has already arrived or arrives within `limit`.
    pub(crate) async fn frame_within(&mut self, limit: Duration) -> Option<Seen> {
        tokio::time::timeout(limit, self.seen.recv())
            .await
            .ok()
            .flatten()
    }

    /// Waits for the other side to close and returns the earlier frames.
    pub(crate) async fn closed(&mut self) -> Vec<RawFrame> {
        let mut frames = Vec::new();
        loop {
            match self.next().await {
                Seen::Frame(frame) => frames.push(frame),
                Seen::Closed { left, .. } => {
                    assert_eq!(
                        left, 0,
                        "the other side closed in the middle of a frame, after {frames:?}"
                    );
                    return frames;
                }
            }
        }
    }

    /// Waits for the other side to close without any frame.
    #[track_caller]
    pub(crate) fn closed_in_silence(&mut self) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let frames = self.closed().await;
            assert!(
                frames.is_empty(),
                "{caller}: frames before the close: {frames:?}"
            );
        }
    }

    /// Asks for a channel on channel 0 and returns the granted id.
    pub(crate) async fn open_channel(&mut self) -> u32 {
        self.send_frame(&RawFrame::new_channel()).await;
        granted(&self.frame().await)
    }

    /// Asks for `count` channels on a fresh connection that has none yet.
    pub(crate) async fn open_channels(&mut self, count: u32) {
        for expected in 1..=count {
            assert_eq!(self.open_channel().await, expected);
        }
    }

    /// Waits until the other side asks for a channel, and grants it `id`.
    pub(crate) async fn grants(&mut self, id: u32) {
        self.replies_to_new_channel(&RawFrame::grant(id)).await;
    }

    /// Waits until the other side asks for a channel, and sends `reply`.
    #[track_caller]
    pub(crate) fn replies_to_new_channel(&mut self, reply: &RawFrame) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let asked = self.frame().await;
            assert_eq!(asked, RawFrame::new_channel(), "{caller}");
            self.send_frame(reply).await;
        }
    }

    /// Sends a request and returns the next frame.
    pub(crate) async fn call(&mut self, path: &str, channel: u32, body: &str) -> RawFrame {
        self.send_frame(&RawFrame::request(path, channel, body))
            .await;
        self.frame().await
    }

    /// Asserts that `/echo` replies.
    #[track_caller]
    pub(crate) fn echoes(&mut self, channel: u32, body: &str) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let reply = self.call("/echo", channel, body).await;
            assert_eq!(reply, RawFrame::reply("/echo", channel, body), "{caller}");
        }
    }

    /// Closes with RST.
    pub(crate) async fn reset(&mut self) {
        self.reading.abort();
        // The socket closes when both halves are gone.
        let _ = (&mut self.reading).await;
        if let Some(writer) = self.writer.take() {
            writer
                .as_ref()
                .set_zero_linger()
                .expect("linger is settable on an open socket");
            writer.forget();
        }
    }

    /// Ends the sending direction (FIN) and goes on reading.
    pub(crate) fn finish_sending(&mut self) {
        // Dropping the half shuts the direction down.
        self.writer = None;
    }
}

/// The channel id in a grant.
#[track_caller]
pub(crate) fn granted(frame: &RawFrame) -> u32 {
    let json: serde_json::Value = serde_json::from_slice(&frame.body)
        .unwrap_or_else(|error| panic!("{frame:?} is no grant: {error}"));
    assert_eq!(json["code"], 0, "{frame:?} is no grant");
    json["channel_id"]
        .as_u64()
        .and_then(|id| u32::try_from(id).ok())
        .unwrap_or_else(|| panic!("{frame:?} is a grant without an id"))
}

/// A connection to `addr`.
pub(crate) async fn stream_to(addr: SocketAddr) -> TcpStream {
    let stream = within("connecting", TcpStream::connect(addr)).await;
    stream.expect("the server listens")
}

/// A connection whose kernel buffers about `bytes` of unread data, so that the sender notices soon
/// when the test stops reading.
pub(crate) async fn narrow_stream_to(addr: SocketAddr, bytes: u32) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .set_recv_buffer_size(bytes)
        .expect("a receive buffer size");
    let stream = within("connecting", socket.connect(addr)).await;
    stream.expect("the server listens")
}

/// Sends `bytes` and checks that all of them are accepted.
#[track_caller]
pub(crate) fn sent<'a>(
    stream: &'a mut (impl AsyncWrite + Unpin),
    bytes: &'a [u8],
) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    let sending = within("sending bytes", stream.write_all(bytes));
    async move {
        if let Err(error) = sending.await {
            panic!("{caller}: the other side does not take it: {error}");
        }
    }
}

/// Gets channel 1 on a fresh connection without a reader task.
pub(crate) async fn first_channel(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let grant = RawFrame::grant(1).encode();
    let mut reply = vec![0; grant.len()];
    within("a grant", async {
        stream.write_all(&RawFrame::new_channel().encode()).await?;
        stream.flush().await?;
        stream.read_exact(&mut reply).await
    })
    .await
    .expect("the server grants a channel");
    assert_eq!(reply, grant);
}

/// Closes with RST instead of FIN.
pub(crate) fn reset(stream: TcpStream) {
    stream
        .set_zero_linger()
        .expect("linger is settable on an open socket");
    drop(stream);
}

/// Reads to the end, discards everything, and returns the number of bytes.
pub(crate) async fn drained(stream: &mut TcpStream) -> usize {
    let mut total = 0;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match within("the end of the connection", stream.read(&mut buffer)).await {
            Ok(0) | Err(_) => return total,
            Ok(n) => total += n,
        }
    }
}

/// Writes `bytes` again and again until the other side has read them `times` times, stops reading
/// for `patience`, or closes.
pub(crate) async fn flood(
    stream: &mut TcpStream,
    bytes: &[u8],
    times: usize,
    patience: Duration,
) -> Flooded {
    for sent in 0..times {
        match tokio::time::timeout(patience, stream.write_all(bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Flooded::Closed { sent, error },
            Err(_) => return Flooded::HeldBack { sent },
        }
    }
    Flooded::Taken
}

/// The outcome of a flood.
#[derive(Debug)]
pub(crate) enum Flooded {
    /// Everything was sent.
    Taken,
    /// The other side stopped reading after that number of repetitions.
    HeldBack { sent: usize },
    /// The other side closed after that number of repetitions.
    Closed { sent: usize, error: io::Error },
}

/// A listener on a port the system chose.
pub(crate) async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback has a free port");
    let addr = listener
        .local_addr()
        .expect("a bound listener has an address");
    (listener, addr)
}

/// The same, for connections whose kernel buffers about `bytes` of unread data.
pub(crate) fn narrow_listener(bytes: u32) -> (TcpListener, SocketAddr) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .set_recv_buffer_size(bytes)
        .expect("a receive buffer size");
    socket
        .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .expect("loopback has a free port");
    let listener = socket.listen(16).expect("a bound socket listens");
    let addr = listener
        .local_addr()
        .expect("a bound listener has an address");
    (listener, addr)
}

/// The next connection to `listener`.
pub(crate) async fn accepted(listener: &TcpListener) -> TcpStream {
    within("an incoming connection", listener.accept())
        .await
        .expect("accepting works")
        .0
}
