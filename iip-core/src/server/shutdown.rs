//! The shutdown of a server: one function owns its order.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::AbortHandle;

use super::service_manager::{self, STOPPING};
use super::table::{Entry, Stage};
use super::{Inner, Server};
use crate::clock;
use crate::connection::Closing;
use crate::random;

/// Time that a server keeps serving after it was deregistered, unless `lame_duck` is set.
pub(super) const LAME_DUCK: Duration = Duration::from_secs(5);

/// Maximum time for registries to confirm that the server was removed.
const DEREGISTER_TIME: Duration = Duration::from_secs(5);

/// Maximum time for which connections that were accepted last are set up before they are notified,
/// and the pause between two checks of it. A client whose first connection ends before it is set up
/// fails to connect.
const SET_UP_TIME: Duration = Duration::from_secs(1);
const SET_UP_PAUSE: Duration = Duration::from_millis(5);

/// Number of connections from which a shutdown notifies them one after the other.
const FEW_CONNECTIONS: u32 = 16;

/// Average time between two notifications. At this rate, clients that connect elsewhere cause no
/// harm.
pub(super) const TELL_TIME: Duration = Duration::from_millis(1);

/// Time that the operating system gets after the timeout of a shutdown.
const FORCE_TIME: Duration = Duration::from_secs(1);

impl Server {
    /// Shuts the server down. Always returns, at the latest about a second after `limit`, which is
    /// the time for all steps together:
    ///
    /// 1. The hooks of [`on_shutdown`](super::ServerBuilder::on_shutdown) run, the first of which
    ///    is the health of a typed server: it is no longer ready.
    /// 2. The server is removed from the registries of
    ///    [`register`](super::ServerBuilder::register), for at most 5 s.
    /// 3. The lame duck period ([`lame_duck`](super::ServerBuilder::lame_duck)): the server still
    ///    accepts and serves, while clients and load balancers learn that it leaves. Together with
    ///    step 2 it takes at most half of `limit`.
    /// 4. The server accepts no more connections, and notifies each connection: clients make
    ///    further calls elsewhere, and requests that arrive nevertheless are rejected, not
    ///    executed. Connections that were accepted in the last second may first be set up, for at
    ///    most a tenth of the time that is left. Connections of other protocols
    ///    ([`fallback_protocol`](super::ServerBuilder::fallback_protocol)) end once their requests
    ///    have their replies.
    /// 5. The running calls may end, until `limit`. Each connection whose calls are replied is
    ///    ended with status 8.
    /// 6. What is left is ended by force.
    ///
    /// Without registrations and `lame_duck`, steps 2 and 3 take no time. With a `limit` of zero,
    /// only the first and the last steps are taken.
    ///
    /// If there are more than a few connections, they are notified at random times, a thousand per
    /// second, within at most a tenth of the time that is left, so that their clients do not all
    /// move at once; until a connection is notified, its calls are served.
    ///
    /// A further call of this function, while another runs, skips the first two steps; the lame
    /// duck period of both ends with the shorter one. When the server has ended, it returns at
    /// once.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped during the lame duck period, the server continues to serve, and
    /// can be shut down by another call. Afterwards the server has stopped accepting and continues
    /// to drain; nothing is ended by force.
    pub async fn shutdown(&self, limit: Duration) {
        self.inner.shutdown(limit).await;
    }
}

impl Inner {
    pub(super) async fn shutdown(&self, limit: Duration) {
        let begun = clock::now();
        self.become_unready();
        self.leave_registries(limit / 2).await;
        let passed = clock::now().saturating_duration_since(begun);
        self.serve_lame((limit / 2).saturating_sub(passed)).await;
        let passed = clock::now().saturating_duration_since(begun);
        self.drain(limit.saturating_sub(passed)).await;
    }

    /// Stops accepting, notifies the connections, and waits at most `limit` for their calls.
    async fn drain(&self, limit: Duration) {
        let begun = clock::now();
        self.stop_accepting();
        self.set_up_last(SET_UP_TIME.min(limit / 10)).await;
        let limit = limit.saturating_sub(clock::now().saturating_duration_since(begun));
        self.leaving.send_replace(true);
        // Connections whose handshake is under way have no calls yet.
        self.abort(|entry| matches!(entry.stage, Stage::SettingUp));
        let spread = self.spread(limit);
        if !spread.is_zero() {
            self.drain_within(spread);
            // Either the time is over or all connections have ended; the next phase is the same.
            let _ = tokio::time::timeout(spread, self.all_ended()).await;
        }
        let limit = limit.saturating_sub(spread);
        self.routes.shutting_down.store(true, Ordering::Relaxed);
        self.close_all(Closing::Drain);
        let ended = async {
            self.all_ended().await;
            // Handlers whose callers have gone still run.
            self.totals.idle().await;
        };
        if tokio::time::timeout(limit, ended).await.is_ok() {
            return;
        }
        // The connections end by themselves, and tell their peers why. Tasks that have not ended
        // within a second are aborted.
        self.close_all(Closing::Force);
        self.abort(|entry| matches!(entry.stage, Stage::Other));
        if tokio::time::timeout(FORCE_TIME, self.all_ended())
            .await
            .is_ok()
        {
            return;
        }
        self.abort(|_| true);
    }

    pub(super) fn stop_accepting(&self) {
        if let Some(accept) = self.accept.get() {
            accept.abort();
        }
    }

    /// The first step: whoever checks the server finds out that it leaves.
    fn become_unready(&self) {
        if self.is_unready.swap(true, Ordering::Relaxed) {
            return;
        }
        self.on_shutdown.0.iter().for_each(|hook| hook());
        if self.has_manager.load(Ordering::Relaxed)
            && let Err(error) = service_manager::notify(STOPPING)
        {
            // The predecessor that waited for the server to be ready has gone.
            tracing::debug!(%error, "the service manager was not notified");
        }
    }

    async fn leave_registries(&self, limit: Duration) {
        if !self.registrations.is_empty() {
            self.registrations.end(limit.min(DEREGISTER_TIME)).await;
        }
    }

    /// Continues to serve for the lame duck period, at most `limit`.
    async fn serve_lame(&self, limit: Duration) {
        let time = self.lame_duck.min(limit);
        if time.is_zero() {
            return;
        }
        if time < self.lame_duck {
            tracing::debug!(
                ?time,
                "the lame duck period is cut short by the time limit of the shutdown"
            );
        }
        let mut leaving = self.leaving.subscribe();
        tokio::select! {
            biased;
            // Another call of `shutdown` has gone on. The sender is in `self`.
            _ = leaving.wait_for(|&leaving| leaving) => {}
            () = tokio::time::sleep(time) => {}
        }
    }

    /// Waits until the listener has gone, and the connections that were accepted last are set up,
    /// at most for `limit`.
    async fn set_up_last(&self, limit: Duration) {
        let mut leaving = self.leaving.subscribe();
        let all = async {
            loop {
                // Registered before the table is looked at, as in `all_ended`.
                let mut changed = std::pin::pin!(self.changed.notified());
                changed.as_mut().enable();
                if !self.is_setting_up() {
                    return;
                }
                tokio::select! {
                    biased;
                    // Another call of `shutdown` has gone on.
                    _ = leaving.wait_for(|&leaving| leaving) => return,
                    () = changed => {}
                    () = tokio::time::sleep(SET_UP_PAUSE) => {}
                }
            }
        };
        // What takes longer is ended with the others.
        let _ = tokio::time::timeout(limit, all).await;
    }

    fn is_setting_up(&self) -> bool {
        let now = clock::now();
        let table = self.lock();
        if table.accepting {
            return true;
        }
        let entries = table.connections.iter().map(|(_, entry)| entry);
        let is_young = |entry: &&Entry| now.saturating_duration_since(entry.since) < SET_UP_TIME;
        let young = entries.filter(is_young).map(|entry| entry.stage.clone());
        let young: Vec<_> = young.collect();
        drop(table);
        let mut young = young.into_iter();
        young.any(|stage| match stage {
            Stage::SettingUp => true,
            Stage::Iip(shared) => !shared.lock().proto.has_granted(),
            Stage::Other => false,
        })
    }

    /// Returns the time over which the connections are notified of the shutdown, so that their
    /// clients do not all connect to another server at the same moment.
    fn spread(&self, limit: Duration) -> Duration {
        match u32::try_from(self.lock().len()) {
            Ok(..FEW_CONNECTIONS) => Duration::ZERO,
            Ok(count) => (TELL_TIME * count).min(limit / 10),
            Err(_) => limit / 10,
        }
    }

    /// Drains each connection at a random time within `spread`. Until then its calls are served.
    fn drain_within(&self, spread: Duration) {
        let now = clock::now();
        for shared in self.all_shared() {
            let at = now + spread.mul_f64(random::random_fraction());
            shared.command(|state| state.drain_at = Some(at));
        }
    }

    pub(super) fn close_all(&self, how: Closing) {
        for shared in self.all_shared() {
            shared.close(how);
        }
    }

    fn abort(&self, which: impl Fn(&Entry) -> bool) {
        let table = self.lock();
        let tasks = table.connections.iter().filter(|(_, entry)| which(entry));
        let tasks: Vec<_> = tasks.filter_map(|(_, entry)| entry.task.clone()).collect();
        // Aborting may drop a task here, whose guard takes the lock of the table.
        drop(table);
        tasks.iter().for_each(AbortHandle::abort);
    }
}
