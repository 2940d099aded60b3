//! A server that misbehaves, and a proxy that loses connections without a notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The reply to a request.
pub(crate) enum Reply {
    /// These bytes, then the connection is closed.
    Close(Vec<u8>),
    /// These bytes, then nothing more.
    Hold(Vec<u8>),
    /// The first bytes, then the second ones without end.
    Endless(Vec<u8>, Vec<u8>),
}

/// Returns the answer with a body of known length.
pub(crate) fn whole(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}").into()
}

/// Returns the head of an answer whose body ends with the connection, and the begin of the body.
pub(crate) fn stream(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n\r\n{body}").into()
}

/// A server that answers each request as a function says.
pub(crate) struct Fake {
    pub(crate) port: u16,
    requests: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Fake {
    /// Starts a server. The function gets the path and how many requests there were before.
    pub(crate) async fn start(
        reply: impl Fn(&str, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(AtomicUsize::new(0));
        let closed = Arc::new(AtomicUsize::new(0));
        let (count, ends) = (Arc::clone(&requests), Arc::clone(&closed));
        let reply = Arc::new(reply);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (count, reply) = (Arc::clone(&count), Arc::clone(&reply));
                let ends = Arc::clone(&ends);
                tokio::spawn(async move {
                    let _ = serve(stream, &count, &*reply).await;
                    ends.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        Self {
            port,
            requests,
            closed,
            task,
        }
    }

    /// Returns the number of requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Returns the number of connections that have ended.
    pub(crate) fn closed(&self) -> usize {
        self.closed.load(Ordering::Relaxed)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    count: &AtomicUsize,
    reply: &(impl Fn(&str, usize) -> Reply + Sync),
) -> std::io::Result<()> {
    let mut request = Vec::new();
    // Bodies of requests end with a brace.
    while !(request.ends_with(b"}") && request.windows(4).any(|end| end == b"\r\n\r\n")) {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&request).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let reply = reply(&path, count.fetch_add(1, Ordering::Relaxed));
    match reply {
        Reply::Close(bytes) => stream.write_all(&bytes).await,
        Reply::Hold(bytes) => {
            stream.write_all(&bytes).await?;
            stream.read_to_end(&mut Vec::new()).await.map(drop)
        }
        Reply::Endless(bytes, more) => {
            stream.write_all(&bytes).await?;
            loop {
                stream.write_all(&more).await?;
            }
        }
    }
}

/// A proxy whose connections can be frozen: they stay open, and nothing passes any more.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    frozen: watch::Sender<usize>,
    watches: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (frozen, freeze) = watch::channel(0);
        let watches = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&watches);
        let task = tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut freeze = freeze.clone();
                freeze.mark_unchanged();
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    // A watch has a connection of its own.
                    let mut begin = [0; 14];
                    while matches!(near.peek(&mut begin).await, Ok(1..14)) {}
                    if begin == *b"POST /v3/watch" {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    let mut far = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = freeze.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self {
            port,
            frozen,
            watches,
            task,
        }
    }

    /// Returns the number of watches so far.
    pub(crate) fn watches(&self) -> usize {
        self.watches.load(Ordering::Relaxed)
    }

    /// Freezes the connections that exist.
    pub(crate) fn freeze(&self) {
        self.frozen.send_modify(|count| *count += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
