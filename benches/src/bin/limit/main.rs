//! The fastest multiplexed echo on tokio that we know how to write. It has frames with an id and
//! nothing else: no paths, no deadlines, no checks beyond the bounds of a frame. What a library
//! costs on top of it is what the library adds.

mod wire;

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use iip_benches::{BoxError, EchoClient, Peer};
use tokio::net::TcpStream;

use crate::wire::{Inbox, Outbox};

fn main() -> ExitCode {
    iip_benches::main::<Limit>()
}

struct Limit;

impl Peer for Limit {
    type Client = Client;

    async fn serve(addr: SocketAddr) -> Result<(), BoxError> {
        let serve = |io| drop(tokio::spawn(serve_connection(io)));
        iip_benches::listen(addr, serve).await
    }

    async fn connect(addr: SocketAddr) -> Result<Client, BoxError> {
        let io = TcpStream::connect(addr).await?;
        io.set_nodelay(true)?;
        let shared = Arc::new(Shared::default());
        tokio::spawn(Driver::new(io, Arc::clone(&shared)).run());
        Ok(Client { shared })
    }
}

/// One task per connection: all requests of one read get their replies in one write.
async fn serve_connection(mut io: TcpStream) -> io::Result<()> {
    let mut inbox = Inbox::default();
    let mut outbox = Outbox::default();
    loop {
        if poll_fn(|cx| inbox.poll_fill(&mut io, cx)).await? == 0 {
            return Ok(());
        }
        while let Some((id, body)) = inbox.next()? {
            outbox.push(id, body);
        }
        poll_fn(|cx| outbox.poll_flush(&mut io, cx)).await?;
    }
}

#[derive(Clone)]
struct Client {
    shared: Arc<Shared>,
}

impl EchoClient for Client {
    type Error = io::Error;

    fn echo(&self, body: Bytes) -> impl Future<Output = io::Result<Bytes>> + Send {
        Call {
            shared: &self.shared,
            state: CallState::New(body),
        }
    }
}

/// The state that callers and the driver share.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    outbox: Outbox,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The waker of the driver, while it sleeps and was not notified of new requests.
    driver: Option<Waker>,
    closed: bool,
}

enum Slot {
    Free,
    Waiting(Waker),
    Answered(Bytes),
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn start(&mut self, body: Bytes, waker: &Waker) -> u32 {
        let slot = Slot::Waiting(waker.clone());
        let id = match self.free.pop() {
            Some(id) => {
                self.slots[id as usize] = slot;
                id
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        self.outbox.push(id, body);
        id
    }

    fn finish(&mut self, id: u32, body: Bytes) -> Option<Waker> {
        let slot = self.slots.get_mut(id as usize)?;
        match std::mem::replace(slot, Slot::Answered(body)) {
            Slot::Waiting(waker) => Some(waker),
            other => {
                *slot = other;
                None
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

/// Makes one call. The benchmark never drops a running call, so there is no clean-up for that.
struct Call<'a> {
    shared: &'a Shared,
    state: CallState,
}

enum CallState {
    New(Bytes),
    Sent(u32),
    Over,
}

impl Future for Call<'_> {
    type Output = io::Result<Bytes>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.shared.lock();
        if state.closed {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        match std::mem::replace(&mut self.state, CallState::Over) {
            CallState::New(body) => {
                let id = state.start(body, cx.waker());
                let driver = state.driver.take();
                drop(state);
                if let Some(driver) = driver {
                    driver.wake();
                }
                self.state = CallState::Sent(id);
                Poll::Pending
            }
            CallState::Sent(id) => {
                match std::mem::replace(&mut state.slots[id as usize], Slot::Free) {
                    Slot::Answered(body) => {
                        state.free.push(id);
                        Poll::Ready(Ok(body))
                    }
                    _ => {
                        state.slots[id as usize] = Slot::Waiting(cx.waker().clone());
                        drop(state);
                        self.state = CallState::Sent(id);
                        Poll::Pending
                    }
                }
            }
            CallState::Over => Poll::Pending,
        }
    }
}

/// The task that reads and writes.
struct Driver {
    io: TcpStream,
    shared: Arc<Shared>,
    inbox: Inbox,
    outbox: Outbox,
    woken: Vec<Waker>,
}

impl Driver {
    fn new(io: TcpStream, shared: Arc<Shared>) -> Self {
        Self {
            io,
            shared,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            woken: Vec::new(),
        }
    }

    async fn run(mut self) {
        let _ = poll_fn(|cx| self.poll(cx)).await;
        let mut state = self.shared.lock();
        state.closed = true;
        for slot in &mut state.slots {
            if let Slot::Waiting(waker) = std::mem::replace(slot, Slot::Free) {
                waker.wake();
            }
        }
    }

    /// Ends with the connection.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let writable = self.poll_write(cx)?.is_ready();
            if self.hand_out()? {
                // The driver runs after the callers that were just woken: their next requests leave
                // in one write, and the bodies they have read are dropped when memory for the next
                // ones is needed.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.inbox.poll_fill(&mut self.io, cx)? {
                Poll::Ready(0) => return Poll::Ready(Ok(())),
                Poll::Ready(_) => {}
                Poll::Pending => {
                    let mut state = self.shared.lock();
                    if state.outbox.is_empty() || !writable {
                        state.driver = writable.then(|| cx.waker().clone());
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.outbox.is_empty() {
                let mut state = self.shared.lock();
                if state.outbox.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                std::mem::swap(&mut self.outbox, &mut state.outbox);
            }
            std::task::ready!(self.outbox.poll_flush(&mut self.io, cx))?;
        }
    }

    /// Wakes callers whose replies have been read; returns `true` if they should run before the
    /// driver continues.
    fn hand_out(&mut self) -> io::Result<bool> {
        let Some((id, body)) = self.inbox.next()? else {
            return Ok(false);
        };
        let mut state = self.shared.lock();
        let limit = (state.in_flight() / 2).clamp(1, MOST_WOKEN);
        self.woken.extend(state.finish(id, body));
        while self.woken.len() < limit
            && let Some((id, body)) = self.inbox.next()?
        {
            self.woken.extend(state.finish(id, body));
        }
        let others = state.in_flight() > 1;
        drop(state);
        let any = !self.woken.is_empty();
        self.woken.drain(..).for_each(Waker::wake);
        Ok(any && (others || self.inbox.lends()))
    }
}

/// Maximum number of callers woken at a time: half of those in flight, so that the server works on
/// one half while the client works on the other and neither goes to sleep; and at most this. A
/// worker's queue of tokio holds 256 tasks: further ones go to a queue shared by all workers, from
/// which some come back milliseconds later.
const MOST_WOKEN: usize = 64;
