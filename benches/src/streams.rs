//! The load of streams: messages from the server, to the server, or to and fro, one stream per
//! task.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::args::{ClientOptions, Mode};
use crate::load::{Bodies, CpuTimes, Meter, Window};
use crate::report::Report;
use crate::{BoxError, EchoClient};

/// A stream of bodies.
pub type Messages<E = BoxError> = Pin<Box<dyn Stream<Item = Result<Bytes, E>> + Send>>;

/// Returns an endless stream of bodies of `len` bytes for a server to send.
pub fn endless(len: usize) -> impl Stream<Item = Bytes> + Send + Unpin {
    let bodies = Bodies::new(len);
    let mut turn = 0;
    futures_util::stream::repeat_with(move || {
        turn += 1;
        bodies.body(0, turn)
    })
}

/// Runs the load that `options` describes over one client.
///
/// # Errors
/// An error if a stream fails, if its peer has none, or if processor time cannot be read.
pub async fn run<C: EchoClient>(client: C, options: &ClientOptions) -> Result<Report, BoxError> {
    let window = Window::of(options);
    let measured = Meter::new()?;
    let mut tasks = JoinSet::new();
    for task in 0..options.inflight {
        let (client, measured, payload) = (client.clone(), measured.clone(), options.payload);
        match options.mode {
            Mode::Download => tasks.spawn(download(client, payload, window, measured)),
            Mode::Upload => tasks.spawn(upload(client, payload, window, measured)),
            _ => tasks.spawn(to_and_fro(client, payload, task, window, measured)),
        };
    }
    let cpu = window.cpu(options).await?;
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(measured.report(options, &cpu))
}

/// Runs the unary load while one stream receives messages of a mebibyte at full speed, and another
/// sends them.
///
/// # Errors
/// Those of [`run`].
pub async fn beside<C: EchoClient>(client: C, options: &ClientOptions) -> Result<Report, BoxError> {
    const MIB: usize = 1 << 20;
    let window = Window::of(options);
    let moved = Meter::new()?;
    let down = tokio::spawn(download(client.clone(), MIB, window, moved.clone()));
    let up = tokio::spawn(upload(client.clone(), MIB, window, moved.clone()));
    let report = crate::load::callers(&[client], options).await?;
    down.await??;
    up.await??;
    let mib = moved.report(options, &CpuTimes::default()).calls_s;
    eprintln!("beside it, {mib:.0} MiB/s of streams");
    Ok(report)
}

async fn download<C: EchoClient>(
    client: C,
    payload: usize,
    window: Window,
    measured: Meter,
) -> Result<(), BoxError> {
    let mut messages = client.download(payload).await?;
    let (mut count, mut turn) = (0_u64, 0_u64);
    while let Some(message) = messages.next().await {
        if message?.len() != payload {
            return Err("a message of another length".into());
        }
        turn += 1;
        // Reading the clock costs as much as a small message.
        if turn.is_multiple_of(every(payload)) {
            let now = Instant::now();
            if window.contains(now) {
                count += every(payload);
            } else if now >= window.end {
                break;
            }
        }
    }
    measured.count(count);
    Ok(())
}

async fn upload<C: EchoClient>(
    client: C,
    payload: usize,
    window: Window,
    measured: Meter,
) -> Result<(), BoxError> {
    let taken = Arc::new(AtomicU64::new(0));
    let source = Source {
        messages: Box::pin(endless(payload)),
        turn: 0,
        every: every(payload),
        counted: Arc::clone(&taken),
        window,
    };
    let received = client.upload(Box::pin(source)).await?;
    let counted = taken.load(Ordering::Relaxed);
    if received < counted {
        return Err(format!("{counted} messages were sent, {received} came").into());
    }
    measured.count(counted);
    Ok(())
}

/// Number of messages between two readings of the clock.
fn every(payload: usize) -> u64 {
    if payload < 64 * 1024 { 32 } else { 1 }
}

/// Returns bodies until the end of the window, counted when they are sent.
struct Source {
    messages: Pin<Box<dyn Stream<Item = Bytes> + Send>>,
    turn: u64,
    every: u64,
    counted: Arc<AtomicU64>,
    window: Window,
}

impl Stream for Source {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.turn += 1;
        if self.turn.is_multiple_of(self.every) {
            let now = Instant::now();
            if self.window.contains(now) {
                self.counted.fetch_add(self.every, Ordering::Relaxed);
            } else if now >= self.window.end {
                return Poll::Ready(None);
            }
        }
        self.messages.as_mut().poll_next(cx)
    }
}

async fn to_and_fro<C: EchoClient>(
    client: C,
    payload: usize,
    task: usize,
    window: Window,
    measured: Meter,
) -> Result<(), BoxError> {
    let bodies = Bodies::new(payload);
    let (sender, receiver) = mpsc::channel(1);
    let mut replies = client.to_and_fro(receiver).await?;
    let mut recorder = measured.recorder();
    for turn in 0.. {
        let body = bodies.body(task, turn);
        let start = Instant::now();
        sender.send(body.clone()).await?;
        let reply = replies.next().await.ok_or("the stream ended")??;
        let now = Instant::now();
        if reply != body {
            return Err("another message came back".into());
        }
        if window.contains(now) {
            recorder.record(now - start);
        }
        if now >= window.end {
            break;
        }
    }
    Ok(())
}

/// Turns the receiving end of a channel into a stream.
pub fn of(mut receiver: mpsc::Receiver<Bytes>) -> impl Stream<Item = Bytes> + Send {
    futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx))
}
