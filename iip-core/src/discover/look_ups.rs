//! Repeated look-ups: when they are made, and which of their answers are passed on.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::stream::{Item, unfold};
use super::{BoxFuture, DiscoverError, Snapshot, SnapshotStream};
use crate::balance::BackendInfo;
use crate::clock;
use crate::random::random_fraction;

/// Time after which a look-up counts as failed.
pub(super) const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// Minimum time between the starts of two look-ups.
pub(super) const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum pause between two look-ups.
pub(super) const MAX_INTERVAL: Duration = Duration::from_secs(86_400);

/// Shortest pause after a failure. It doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

/// The longest pause after a failure, without its jitter of up to a half.
const LAST_BACKOFF: Duration = Duration::from_secs(20);

/// The answer of a look-up.
#[derive(Debug)]
pub(super) struct Answer {
    /// The backends in an order that does not depend on that of the records.
    pub(super) backends: Vec<BackendInfo>,
    /// The pause until the next look-up, without jitter.
    pub(super) pause: Duration,
}

type Running = BoxFuture<'static, Result<Answer, DiscoverError>>;

/// Asks the streams of a source to look up soon.
#[derive(Clone, Debug)]
pub(super) struct Refresh(Arc<watch::Sender<()>>);

impl Default for Refresh {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(())))
    }
}

impl Refresh {
    pub(super) fn ask(&self) {
        self.0.send_replace(());
    }
}

/// Looks up again and again, and returns the answers that differ from the one before.
pub(super) fn watch_look_ups<F, Fut>(refresh: &Refresh, look_up: F) -> SnapshotStream
where
    F: Fn() -> Fut + Send + 'static,
    Fut: Future<Output = Result<Answer, DiscoverError>> + Send + 'static,
{
    let state = Watch {
        look_up: Box::new(move || Box::pin(look_up())),
        refresh: refresh.0.subscribe(),
        running: None,
        wait: None,
        failures: 0,
        complaint: None,
        last: None,
    };
    unfold(state, Watch::next)
}

/// The pause before a look-up.
#[derive(Clone, Copy)]
struct Wait {
    /// The time at which the look-up is due.
    until: Instant,
    /// The earliest time at which it may start if it is wanted sooner.
    earliest: Instant,
}

/// The state of one stream.
struct Watch {
    look_up: Box<dyn Fn() -> Running + Send>,
    refresh: watch::Receiver<()>,
    /// The look-up that has exceeded its time limit. It may occupy a thread, so no other one starts
    /// until it has ended.
    running: Option<Running>,
    /// `None` before the first look-up.
    wait: Option<Wait>,
    /// The failures in a row.
    failures: u32,
    /// The text of the last error, if no answer has followed it.
    complaint: Option<String>,
    last: Option<Arc<[BackendInfo]>>,
}

impl Watch {
    async fn next(mut self) -> (Item, Self) {
        loop {
            let late = match self.wait {
                Some(wait) => self.pause(wait).await,
                None => None,
            };
            let started = clock::now();
            let result = match late {
                Some(answer) => Ok(answer),
                None => self.attempt().await,
            };
            let pause = self.pause_after(result.as_ref().ok());
            let earliest = clock::after(started, MIN_INTERVAL);
            self.wait = Some(Wait {
                until: clock::after(clock::now(), pause).max(earliest),
                earliest,
            });
            if let Some(item) = self.item(result) {
                return (item, self);
            }
        }
    }

    /// Waits until the next look-up is due or wanted. Returns the answer of one that has exceeded
    /// its time limit, if it arrives in the meantime. Its failure has been counted.
    async fn pause(&mut self, wait: Wait) -> Option<Answer> {
        let sleep_until = |time: Instant| tokio::time::sleep_until(time.into());
        loop {
            let running = &mut self.running;
            let late = async {
                match running {
                    Some(running) => running.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                late = late => {
                    self.running = None;
                    if let Ok(answer) = late {
                        return Some(answer);
                    }
                }
                () = sleep_until(wait.until) => return None,
                // After a failure, the look-up follows soon anyway, and clients whose connections
                // fail again and again must not load a server that has failed.
                Ok(()) = self.refresh.changed(), if self.failures == 0 => {
                    sleep_until(wait.earliest).await;
                    return None;
                }
            }
        }
    }

    async fn attempt(&mut self) -> Result<Answer, DiscoverError> {
        // What is wanted from now on needs another look-up.
        self.refresh.mark_unchanged();
        let mut look_up = self.running.take().unwrap_or_else(|| (self.look_up)());
        match tokio::time::timeout(LOOK_UP_TIMEOUT, &mut look_up).await {
            Ok(result) => result,
            Err(_) => {
                self.running = Some(look_up);
                let text = format!("the look-up has taken longer than {LOOK_UP_TIMEOUT:?}");
                Err(DiscoverError::new(text))
            }
        }
    }

    /// Counts failures, and returns the pause with its jitter.
    fn pause_after(&mut self, answer: Option<&Answer>) -> Duration {
        match answer {
            Some(answer) => {
                self.failures = 0;
                let pause = answer.pause.clamp(MIN_INTERVAL, MAX_INTERVAL);
                pause.mul_f64(0.2f64.mul_add(random_fraction(), 0.9))
            }
            None => {
                let doubled = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(16));
                self.failures = self.failures.saturating_add(1);
                doubled
                    .min(LAST_BACKOFF)
                    .mul_f64(0.5f64.mul_add(random_fraction(), 1.0))
            }
        }
    }

    /// Returns what is new: another list, another error, or a list after an error.
    fn item(&mut self, result: Result<Answer, DiscoverError>) -> Option<Item> {
        match result {
            Ok(answer) => {
                let recovered = self.complaint.take().is_some();
                if !recovered && self.last.as_deref() == Some(&answer.backends) {
                    return None;
                }
                let backends: Arc<[BackendInfo]> = answer.backends.into();
                self.last = Some(Arc::clone(&backends));
                Some(Ok(Snapshot::new(backends)))
            }
            Err(error) => {
                let text = error.to_string();
                if self.complaint.as_ref() == Some(&text) {
                    return None;
                }
                self.complaint = Some(text);
                Some(Err(error))
            }
        }
    }
}
