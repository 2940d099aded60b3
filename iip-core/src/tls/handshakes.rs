//! The limit of concurrent handshakes of a server.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::TlsError;
use crate::clock;
use crate::pending::{Network, Pending};

/// Interval at which a waiting connection checks whether another one makes room.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The permits for handshakes. A connection gets one once its ClientHello has arrived; a client
/// that does not continue its handshake makes room for others.
#[derive(Debug)]
pub(super) struct Handshakes {
    limit: usize,
    state: Mutex<State>,
    /// Notified when a permit becomes free.
    left: Notify,
}

#[derive(Debug)]
struct State {
    running: usize,
    /// The handshakes that wait for their clients, each with a sender that notifies it to make
    /// room.
    pending: Pending<oneshot::Sender<()>>,
}

impl Handshakes {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            state: Mutex::new(State {
                running: 0,
                pending: Pending::new(),
            }),
            left: Notify::new(),
        })
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a permit.
    pub(super) async fn enter(self: &Arc<Self>, network: Network) -> Permit {
        loop {
            // Registered before the attempt, so that a permit that becomes free in between is not
            // missed.
            let mut left = pin!(self.left.notified());
            left.as_mut().enable();
            if let Some(permit) = self.try_enter(network) {
                return permit;
            }
            // Even if no permit becomes free, a handshake that waits for its client may have
            // exceeded its time by now.
            let _ = tokio::time::timeout(LOOK_AGAIN, left).await;
        }
    }

    fn try_enter(self: &Arc<Self>, network: Network) -> Option<Permit> {
        let mut state = self.lock();
        if state.running < self.limit {
            state.running += 1;
        } else {
            // The permit of the evicted handshake passes to this one.
            let evicted = state.pending.make_room(network, clock::now())?;
            drop(state);
            // A handshake that has just ended no longer receives this, and does not return its
            // permit.
            let _ = evicted.send(());
        }
        Some(Permit {
            handshakes: Arc::clone(self),
            network,
            waits: None,
        })
    }
}

/// The permit for one handshake.
pub(super) struct Permit {
    handshakes: Arc<Handshakes>,
    network: Network,
    /// Set while the handshake waits for its client: its number, and the receiver of the notice to
    /// make room.
    waits: Option<(u64, oneshot::Receiver<()>)>,
}

impl Permit {
    /// Runs a handshake until it ends or has to make room for another.
    pub(super) async fn run<T>(
        mut self,
        handshake: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let mut handshake = pin!(handshake);
        poll_fn(|cx| {
            let outcome = handshake.as_mut().poll(cx);
            // A handshake that can end does so even if it was told to make room.
            if outcome.is_ready() {
                return outcome;
            }
            // This side now waits for the client.
            let (_, told) = self.waits.get_or_insert_with(|| {
                let (tell, told) = oneshot::channel();
                let mut state = self.handshakes.lock();
                let number = state.pending.insert(self.network, clock::now(), tell);
                (number, told)
            });
            match Pin::new(told).poll(cx) {
                Poll::Ready(_) => Poll::Ready(Err(TlsError::MadeRoom {
                    option: "ServerTls::max_handshakes",
                }
                .into())),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.handshakes.lock();
        let waits = self.waits.take();
        let number = waits.as_ref().map(|(number, _)| *number);
        // Under the lock, so that a handshake either is evicted or returns its permit.
        let told = number.map(|number| state.pending.remove(number));
        if let Some(None) = told {
            // Another handshake has the permit.
            return;
        }
        state.running -= 1;
        drop(state);
        self.handshakes.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::net::IpAddr;

    use super::*;
    use crate::pending::GRACE;

    fn network(last: u8) -> Network {
        Network::of(Some(IpAddr::from([10, 0, 0, last])))
    }

    /// Starts a handshake whose client sends nothing.
    fn silent(
        handshakes: &Arc<Handshakes>,
        network: Network,
    ) -> tokio::task::JoinHandle<io::Error> {
        let handshakes = Arc::clone(handshakes);
        tokio::spawn(async move {
            let permit = handshakes.enter(network).await;
            let outcome = permit.run(pending::<io::Result<()>>()).await;
            outcome.expect_err("it never ends by itself")
        })
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_handshake_whose_client_is_silent_makes_room() {
        let handshakes = Handshakes::new(2);
        let start = clock::now();
        let first = silent(&handshakes, network(1));
        tokio::task::yield_now().await;
        let second = silent(&handshakes, network(2));
        tokio::task::yield_now().await;
        let permit = handshakes.enter(network(3)).await;
        let waited = clock::now() - start;
        assert!(waited >= GRACE && waited <= GRACE * 2, "{waited:?}");
        let error = first.await.expect("no panic");
        assert!(error.to_string().contains("max_handshakes"), "{error}");
        assert!(!second.is_finished());
        // The handshake that made room returned no permit, so two are in use.
        assert_eq!(handshakes.lock().running, 2);
        drop(permit);
        assert_eq!(handshakes.lock().running, 1);
        second.abort();
        assert!(second.await.is_err());
        assert_eq!(handshakes.lock().running, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_fills_the_places_makes_room_for_others_at_once() {
        let handshakes = Handshakes::new(3);
        let start = clock::now();
        let _silent: Vec<_> = (0..9).map(|_| silent(&handshakes, network(1))).collect();
        tokio::task::yield_now().await;
        let permit = handshakes.enter(network(2)).await;
        assert_eq!(clock::now(), start);
        drop(permit);
    }

    #[tokio::test(start_paused = true)]
    async fn handshakes_that_compute_are_waited_for() {
        let handshakes = Handshakes::new(1);
        let start = clock::now();
        let permit = handshakes.enter(network(1)).await;
        let waiting = tokio::spawn({
            let handshakes = Arc::clone(&handshakes);
            async move { drop(handshakes.enter(network(2)).await) }
        });
        tokio::time::sleep(10 * GRACE).await;
        assert!(!waiting.is_finished(), "the client owes nothing yet");
        drop(permit);
        waiting.await.expect("no panic");
        assert_eq!(clock::now(), start + 10 * GRACE);
    }
}
