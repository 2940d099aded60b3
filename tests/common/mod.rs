//! Helpers of the integration tests: recorded transcripts, frames read and written independently of
//! the code under test, raw peers on real sockets, servers and clients under test, captured logs,
//! and tests that need a separate process.

#![allow(
    dead_code,
    reason = "every test binary compiles this module and uses the part it needs"
)]

pub(crate) mod alone;
pub(crate) mod authority;
pub(crate) mod calls;
pub(crate) mod compressed;
pub(crate) mod frame;
pub(crate) mod generate;
pub(crate) mod logs;
pub(crate) mod peer;
pub(crate) mod recorder;
pub(crate) mod source;
pub(crate) mod transcript;
pub(crate) mod victim;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use iip_core::{
    HandlerError, HandlerFn, Request, RequestMode, Response, Server, ServerBuilder, handler_fn,
};
use tokio::task::JoinHandle;

/// Time after which a test gives up waiting. No test that passes waits for it: it only turns a hang
/// into a failure, so it is long enough for a busy machine.
pub(crate) const GUARD: Duration = Duration::from_secs(60);

pub(crate) const MIB: usize = 1 << 20;

/// Time within which a fresh connection must be served while, or right after, another one
/// misbehaves: shorter than any default timeout, and longer than a busy machine takes.
pub(crate) const SERVED: Duration = Duration::from_secs(5);

/// Runs `future` to its end and fails the test, naming `what`, when that takes longer than
/// [`GUARD`].
#[track_caller]
pub(crate) fn within<F: Future>(what: &str, future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    let what = what.to_owned();
    async move {
        match tokio::time::timeout(GUARD, future).await {
            Ok(output) => output,
            Err(_) => panic!("{caller}: {what} did not happen within {GUARD:?}"),
        }
    }
}

/// Spawns a task. The future is boxed, so that the code of a task is compiled once for all tests
/// and not once for each of them: the tests take less time to build.
#[track_caller]
pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let future: Pin<Box<dyn Future<Output = F::Output> + Send>> = Box::pin(future);
    tokio::spawn(future)
}

/// Advances the runtime's clock, which all timeouts use, by `time` at once. The test first waits
/// for everything that has to happen before: then a busy machine cannot be late, and no test waits
/// for a timeout. Requires a runtime of one thread.
pub(crate) async fn passes(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// Like [`passes`], but in small steps between which everything else runs: each is a quarter of
/// `limit`, which therefore expires only for a side that is inactive for several steps.
pub(crate) async fn passes_for_all(time: Duration, limit: Duration) {
    let step = limit / 4;
    let mut left = time;
    while !left.is_zero() {
        passes(step).await;
        left = left.saturating_sub(step);
        all_run().await;
    }
}

/// Lets every task of this thread run until it has to wait, and its bytes arrive over loopback.
pub(crate) async fn all_run() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

/// Polls `future` once, so that its first step (here: putting a call into the queue of its
/// connection) has happened before the next line, and returns it to be awaited later.
pub(crate) async fn started<F: Future>(future: F) -> Started<F> {
    let mut future = Box::pin(future);
    let first = std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx))).await;
    match first {
        std::task::Poll::Ready(output) => Started::Done(output),
        std::task::Poll::Pending => Started::Running(future),
    }
}

/// A future that has been polled once, see [`started`].
pub(crate) enum Started<F: Future> {
    Done(F::Output),
    Running(Pin<Box<F>>),
}

impl<F: Future> Started<F> {
    /// Waits for the output.
    pub(crate) async fn finish(self) -> F::Output {
        match self {
            Self::Done(output) => output,
            Self::Running(future) => future.await,
        }
    }
}

/// A raw server on a port that the system chose, and its address.
pub(crate) async fn bound(config: ServerBuilder) -> (Server, SocketAddr) {
    let server = config
        .bind("127.0.0.1:0")
        .await
        .expect("loopback has a free port");
    let addr = server.local_addr().expect("a TCP server has an address");
    (server, addr)
}

/// A raw handler of calls with streams.
pub(crate) fn stream_fn<F, R>(handler: F) -> HandlerFn<F>
where
    F: Fn(Request) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Response, HandlerError>> + Send + 'static,
{
    handler_fn(handler).request_mode(RequestMode::Stream)
}

/// Number of bytes of memory this process holds.
pub(crate) fn resident_bytes() -> usize {
    status_bytes("VmRSS:")
}

/// Number of bytes by which the peak memory of this process exceeds `before`.
pub(crate) fn grown_since(before: usize) -> usize {
    status_bytes("VmHWM:").saturating_sub(before)
}

/// Checks that the peak memory of this process has not exceeded `before` by `limit` bytes.
#[track_caller]
pub(crate) fn assert_grown_less(before: usize, limit: usize) {
    let grown = grown_since(before);
    assert!(grown < limit, "grown by {} KiB", grown / 1024);
}

fn status_bytes(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status")
        .expect("/proc/self/status is readable on linux");
    let kib: usize = status
        .lines()
        .find_map(|line| {
            line.strip_prefix(field)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .expect("linux reports memory in KiB");
    kib * 1024
}

/// Lets everything else run until `condition` holds. Only for conditions without an event: memory
/// that is given back, or connections that a server has noticed.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    within(what, async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// CPU time this process has used so far, user and system.
pub(crate) fn cpu_time() -> Duration {
    let stat =
        std::fs::read_to_string("/proc/self/stat").expect("/proc/self/stat is readable on linux");
    // The second field is the name in parentheses and may contain blanks; the numbers start after
    // it.
    let numbers = stat.rsplit(')').next().expect("the name is in parentheses");
    let ticks: u64 = numbers
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("utime and stime are numbers"))
        .sum();
    Duration::from_millis(ticks * 10)
}

/// Waits until this process is idle: only then does its memory show the cost of a flood.
pub(crate) async fn work_is_done() {
    within("the end of all work", async {
        loop {
            let before = cpu_time();
            // The elapsed time itself is the measure: the part of it that is CPU time.
            tokio::time::sleep(Duration::from_millis(50)).await;
            if cpu_time() == before {
                break;
            }
        }
    })
    .await;
}

/// Numbers that look random and are the same in every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}
