//! The code that all peers of the benchmark share, so that a peer is one small file: implement
//! [`EchoClient`] and [`Peer`], and let `main` be [`main`]`::<MyPeer>()`.
//!
//! - [`args`]: the command line of a peer
//! - [`load`]: K tasks that make one call after the other, and their times
//! - [`streams`]: the same for streams of messages
//! - [`stalled`]: the rate of many streams while one of them is not read
//! - [`idle`]: idle connections, and the memory they take
//! - [`cpu`]: processor time of this process and of another
//! - [`memory`]: what a process holds in memory and in open files
//! - [`report`]: the one line of JSON that a client prints

pub mod args;
pub mod cpu;
pub mod idle;
pub mod load;
pub mod memory;
pub mod report;
pub mod stalled;
pub mod streams;

use std::error::Error;
use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::ExitCode;

use bytes::Bytes;
use futures_util::stream::Stream;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::mpsc;

use crate::args::{Command, Mode};
use crate::streams::Messages;

/// Any failure of a peer; the text is for the person at the terminal.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// One connection to an echo server that many tasks share by cloning this handle.
pub trait EchoClient: Clone + Send + Sync + 'static {
    /// The error of a failed call.
    type Error: Error + Send + Sync + 'static;

    /// Sends `body` and returns the reply.
    fn echo(&self, body: Bytes) -> impl Future<Output = Result<Bytes, Self::Error>> + Send;

    /// Returns an endless stream of bodies of `len` bytes from the server.
    fn download(&self, len: usize) -> impl Future<Output = Result<Messages, BoxError>> + Send {
        let _ = len;
        async { Err(NO_STREAMS.into()) }
    }

    /// Sends all `messages`; the server replies with their number.
    fn upload(
        &self,
        messages: Pin<Box<dyn Stream<Item = Bytes> + Send>>,
    ) -> impl Future<Output = Result<u64, BoxError>> + Send {
        let _ = messages;
        async { Err(NO_STREAMS.into()) }
    }

    /// Sends the messages of the channel; the server sends each of them back.
    fn to_and_fro(
        &self,
        messages: mpsc::Receiver<Bytes>,
    ) -> impl Future<Output = Result<Messages, BoxError>> + Send {
        let _ = messages;
        async { Err(NO_STREAMS.into()) }
    }
}

const NO_STREAMS: &str = "this peer has no streams";

/// A library under test: its server of the echo and its client.
pub trait Peer {
    /// The client side.
    type Client: EchoClient;

    /// Serves the echo on `addr` until the process is killed, after printing its address with
    /// [`announce`].
    fn serve(addr: SocketAddr) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Opens one connection to the server on `addr`.
    fn connect(addr: SocketAddr) -> impl Future<Output = Result<Self::Client, BoxError>> + Send;
}

/// Prints the address a server listens on, as the first line of its output.
///
/// # Errors
/// An error if standard output is closed.
pub fn announce(addr: SocketAddr) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{addr}")?;
    out.flush()
}

/// Announces `addr`, and passes each connection to it to `serve`, which starts a task for it.
///
/// # Errors
/// An error if no connection can be accepted.
pub async fn listen(addr: SocketAddr, serve: impl Fn(TcpStream)) -> Result<(), BoxError> {
    let listener = TcpListener::bind(addr).await?;
    announce(listener.local_addr()?)?;
    loop {
        let (io, _) = listener.accept().await?;
        io.set_nodelay(true)?;
        serve(io);
    }
}

/// The `main` of a peer: `server ADDR`, or `client ADDR` and its options.
pub fn main<P: Peer>() -> ExitCode {
    match run::<P>() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run<P: Peer>() -> Result<(), BoxError> {
    let command = args::parse(std::env::args().skip(1))?;
    memory::raise_file_limit()?;
    // Both sides of every peer get the same runtime.
    let mut runtime = Builder::new_multi_thread();
    runtime.worker_threads(2);
    match command {
        Command::Server { addr } => start(runtime, P::serve(addr)),
        Command::Client { addr, options } => {
            let report = match options.mode {
                Mode::Unary => start(runtime, async {
                    let report = load::unary::<P>(addr, &options).await?;
                    Ok(serde_json::to_string(&report)?)
                }),
                Mode::Download | Mode::Upload | Mode::PingPong => start(runtime, async {
                    let client = P::connect(addr).await?;
                    let report = streams::run(client, &options).await?;
                    Ok(serde_json::to_string(&report)?)
                }),
                Mode::Beside => start(runtime, async {
                    let client = P::connect(addr).await?;
                    let report = streams::beside(client, &options).await?;
                    Ok(serde_json::to_string(&report)?)
                }),
                Mode::BesideLarge => start(runtime, async {
                    let client = P::connect(addr).await?;
                    let report = load::beside_large(client, &options).await?;
                    Ok(serde_json::to_string(&report)?)
                }),
                Mode::Stalled => start(runtime, async {
                    let client = P::connect(addr).await?;
                    let report = stalled::run(client, &options).await?;
                    Ok(serde_json::to_string(&report)?)
                }),
                Mode::Idle => start(Builder::new_current_thread(), async {
                    let report = idle::measure::<P>(addr, &options).await?;
                    Ok(serde_json::to_string(&report)?)
                }),
            }?;
            println!("{report}");
            Ok(())
        }
    }
}

fn start<T>(
    mut runtime: Builder,
    work: impl Future<Output = Result<T, BoxError>>,
) -> Result<T, BoxError> {
    runtime.enable_all().build()?.block_on(work)
}
