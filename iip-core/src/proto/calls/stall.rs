//! Connections on which most channels wait for replies to calls that were given up.

use std::collections::HashSet;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::CallTable;
use super::slot::SlotState;
use crate::clock;
use crate::error::{CallErrorKind, ConnectionError, Execution};
use crate::frame::ChannelId;
use crate::proto;

/// Number of calls given up from which a server that is not notified of it probably runs hardly
/// anything else: half of what it runs by default.
pub(super) const MANY_ABANDONED: usize = 512;

/// Time without a free channel after which a connection may have stalled.
pub(super) const STALLED_AFTER: Duration = Duration::from_millis(500);

/// The conditions under which a connection may be retired. It then takes no further calls, and ends
/// with the calls it has.
#[derive(Clone, Debug)]
pub(crate) struct Retirement {
    /// Minimum age of the connection.
    pub(crate) age: Duration,
    /// Permits of which retired connections hold one each until they have ended.
    pub(crate) places: Arc<Semaphore>,
}

/// The detector of connections on which most channels wait for replies to calls that were given up.
#[derive(Debug, Default)]
pub(super) struct Stall {
    /// Time of the next check. A call waits for a channel, and none has become free since
    /// [`STALLED_AFTER`] before it.
    pub(super) check_at: Option<Instant>,
    /// Time from which the connection may be retired, and the counter of retired connections;
    /// `None` for a server.
    pub(super) may_retire: Option<(Instant, Arc<Semaphore>)>,
    /// The reason why the connection was retired, if it was. Boxed, because few are.
    pub(super) retired: Option<Box<(ConnectionError, OwnedSemaphorePermit)>>,
}

impl CallTable {
    /// Allows the connection, which exists since `now`, to be retired when its channels wait for
    /// replies that no caller needs and that do not arrive.
    pub(crate) fn may_retire(&mut self, retirement: Retirement, now: Instant) {
        let at = clock::after(now, retirement.age);
        self.stall.may_retire = Some((at, retirement.places));
    }

    /// Schedules a check, while calls wait for a channel, whether one has become free or was
    /// opened.
    pub(super) fn watch_channels(&mut self, now: Instant) {
        if self.waiting == 0 || self.stall.check_at.is_some() {
            return;
        }
        let check_at = now + STALLED_AFTER;
        self.stall.check_at = Some(check_at);
        if self.next_deadline.is_none_or(|next| next > check_at) {
            self.next_deadline = Some(check_at);
        }
    }

    /// Retires the connection if no channel has become free for a while and most of them wait for
    /// replies that no caller needs. Calls that wait for a channel are not sent.
    #[cold]
    pub(super) fn check_stall(
        &mut self,
        proto: &mut proto::Connection,
        now: Instant,
        wakers: &mut Vec<Waker>,
    ) -> bool {
        if self.stall.check_at.is_some_and(|at| at <= now) {
            self.stall.check_at = None;
            if let Some(error) = self.retire_stalled(now) {
                while let Some((call, _)) = self.next_waiting() {
                    let kind = CallErrorKind::ConnectionLost(error.clone());
                    self.fail(proto, call, kind, Execution::NotSent, now, wakers);
                }
                return true;
            }
            // The connection has not stalled, or may not be retired yet: it is checked again.
            self.watch_channels(now);
        }
        // `expire_now` has set the time to that of the next deadline, without the check.
        if let Some(at) = self.stall.check_at {
            self.next_deadline = Some(self.next_deadline.map_or(at, |next| next.min(at)));
        }
        false
    }

    /// Retires the connection if most channels wait for replies that no caller needs. Returns the
    /// reason.
    pub(super) fn retire_stalled(&mut self, now: Instant) -> Option<ConnectionError> {
        let (abandoned, channels) = (self.abandoned_channels(), self.opened);
        let (at, places) = self.stall.may_retire.as_ref()?;
        if *at > now || 2 * abandoned <= channels {
            return None;
        }
        // A retired connection lives until its calls have ended. Without a place for one more, this
        // connection continues.
        let place = Arc::clone(places).try_acquire_owned().ok()?;
        let error = ConnectionError::Stalled {
            abandoned,
            channels,
        };
        self.stall.retired = Some(Box::new((error.clone(), place)));
        self.stall.may_retire = None;
        Some(error)
    }

    /// Returns `true` if the connection was retired because its channels did not become free.
    pub(crate) fn is_retired(&self) -> bool {
        self.stall.retired.is_some()
    }

    /// Returns the number of channels that wait for a reply without a caller.
    fn abandoned_channels(&self) -> usize {
        // A channel is wanted if it is leased, or a caller waits for a reply on it.
        let leased = self.leased.iter().filter(|lease| !lease.returning);
        let mut wanted: HashSet<ChannelId> = leased.map(|lease| lease.channel).collect();
        let slots = self.slots.iter().map(|(_, slot)| slot);
        let sent = slots.filter(|slot| matches!(slot.state, SlotState::Sent));
        wanted.extend(sent.map(|slot| slot.channel));
        self.opened.saturating_sub(wanted.len() + self.free.len())
    }
}
