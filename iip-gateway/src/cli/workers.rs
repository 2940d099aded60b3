//! The threads of the program: one runtime each, with its own listening sockets.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::num::NonZeroUsize;
use std::sync::mpsc;
use std::thread::JoinHandle;

use iip_gateway::config::ListenConfig;
use iip_gateway::{Gateway, ListenOptions, worker_runtime};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Maximum number of connections that the kernel queues for a listener.
const BACKLOG: i32 = 4096;

/// The threads of the program.
pub(super) struct Workers {
    threads: Vec<JoinHandle<()>>,
    /// Dropping the senders ends the threads.
    ends: Vec<oneshot::Sender<()>>,
    addresses: Vec<SocketAddr>,
    /// The listeners and the number of workers of the configuration.
    configured: (Vec<String>, Option<usize>),
}

impl Workers {
    /// Listens, and starts the threads.
    pub(super) fn start(
        gateway: &Gateway,
        listeners: &[ListenConfig],
        workers: Option<usize>,
    ) -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let count = workers.unwrap_or(cores);
        let mut sockets: Vec<Vec<(StdListener, ListenOptions)>> = Vec::new();
        sockets.resize_with(count, Vec::new);
        let mut addresses = Vec::new();
        for listener in listeners {
            let mut address: SocketAddr = listener.address.parse().map_err(io::Error::other)?;
            for sockets in &mut sockets {
                let socket = listen(address)?;
                // All workers listen on the port that the system chose for the first.
                address = socket.local_addr()?;
                sockets.push((socket, listener.options.clone()));
            }
            addresses.push(address);
        }
        let mut this = Self {
            threads: Vec::new(),
            ends: Vec::new(),
            addresses,
            configured: (texts(listeners), workers),
        };
        for (index, sockets) in sockets.into_iter().enumerate() {
            let (end, ended) = oneshot::channel();
            let (started, outcome) = mpsc::channel();
            let gateway = gateway.clone();
            let thread = std::thread::Builder::new().name(format!("worker {index}"));
            let thread = thread.spawn(move || run(&gateway, sockets, ended, &started))?;
            this.threads.push(thread);
            this.ends.push(end);
            outcome.recv().map_err(io::Error::other)??;
        }
        Ok(this)
    }

    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Rejects a configuration that cannot be applied by a reload.
    pub(super) fn check(
        &self,
        listeners: &[ListenConfig],
        workers: Option<usize>,
    ) -> Result<(), String> {
        if self.configured == (texts(listeners), workers) {
            return Ok(());
        }
        Err(
            "`listen` and `workers` cannot be changed by a reload: start the program again"
                .to_owned(),
        )
    }

    /// Ends the threads.
    pub(super) fn join(self) {
        drop(self.ends);
        for thread in self.threads {
            // A panic was logged already.
            let _ = thread.join();
        }
    }
}

fn texts(listeners: &[ListenConfig]) -> Vec<String> {
    listeners
        .iter()
        .map(|listener| listener.address.clone())
        .collect()
}

/// Listens on an address on which other sockets of this process may listen too.
fn listen(address: SocketAddr) -> io::Result<StdListener> {
    let listen = || {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    listen().map_err(|error: io::Error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })
}

/// Runs one thread until it is ended.
fn run(
    gateway: &Gateway,
    sockets: Vec<(StdListener, ListenOptions)>,
    ended: oneshot::Receiver<()>,
    started: &mpsc::Sender<io::Result<()>>,
) {
    let serve = || {
        let runtime = worker_runtime()?;
        let _inside = runtime.enter();
        gateway.serve_all(
            sockets
                .into_iter()
                .map(|(socket, options)| Ok((TcpListener::from_std(socket)?.into(), options)))
                .collect::<io::Result<Vec<_>>>()?,
        )?;
        drop(_inside);
        Ok(runtime)
    };
    match serve() {
        Ok(runtime) => {
            let _ = started.send(Ok(()));
            let _ = runtime.block_on(ended);
        }
        Err(error) => {
            let _ = started.send(Err(error));
        }
    }
}
