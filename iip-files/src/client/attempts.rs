//! Retries of failed transfers.

use std::future::Future;
use std::time::Duration;

use iip_rpc::{Code, Status};
use tokio::time::{Instant, sleep};

use super::FileClient;
use super::progress::{Phase, Tracker};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Minimum time without progress after which an attempt fails: less could be a slow disk.
const MIN_SILENCE: Duration = Duration::from_secs(30);

/// The reason why a file was not transferred.
#[derive(Debug)]
pub(super) enum Failure {
    /// The file cannot be read at its source. A directory is transferred without it.
    Source(Status),
    /// Anything else, such as a lost connection or a full disk.
    Other(Status),
}

impl Failure {
    /// Tells the failure of a server to read a file from other failures of a call.
    pub(super) fn of_source(status: Status) -> Self {
        match status.code() {
            Code::NotFound | Code::PermissionDenied | Code::FailedPrecondition => {
                Self::Source(status)
            }
            _ => Self::Other(status),
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Other(status)
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Source(status) | Failure::Other(status) => status,
        }
    }
}

/// The attempts to transfer a file.
#[derive(Debug)]
pub(super) struct Attempts {
    limit: Duration,
    /// The time of the last progress.
    since: Instant,
    durable: u64,
    pause: Duration,
    is_first: bool,
}

impl Attempts {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            since: Instant::now(),
            durable: 0,
            pause: FIRST_PAUSE,
            is_first: true,
        }
    }

    /// Waits before the next attempt, or returns the error if the transfer is not retried.
    pub(super) async fn next(
        &mut self,
        failure: impl Into<Failure>,
        tracker: &Tracker<'_>,
    ) -> Result<(), Failure> {
        let status = match failure.into() {
            Failure::Other(status) => status,
            source => return Err(source),
        };
        let may_pass = match status.code() {
            // The connection was lost before the call, or within a stream.
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => true,
            // The server is still ending the previous attempt.
            Code::Aborted => !self.is_first,
            _ => false,
        };
        let now = Instant::now();
        // There may be fewer bytes than before: the file has begun again.
        if tracker.durable_bytes() > self.durable {
            (self.since, self.pause) = (now, FIRST_PAUSE);
        }
        self.durable = tracker.durable_bytes();
        if !may_pass {
            return Err(status.into());
        }
        let tried = now.duration_since(self.since);
        if tried >= self.limit {
            return Err(given_up(status, tried).into());
        }
        self.is_first = false;
        tracker.phase(Phase::Reconnecting);
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        Ok(())
    }
}

/// Adds to an error for how long the transfer was retried.
fn given_up(status: Status, tried: Duration) -> Status {
    if tried < Duration::from_secs(1) {
        return status;
    }
    let text = format!(
        "{} (no progress for {} s; the same transfer resumes)",
        status.message(),
        tried.as_secs()
    );
    Status::new(status.code(), text)
}

impl FileClient {
    /// Makes a call, and retries it if its connection is lost.
    pub(super) async fn again<T, F: Future<Output = Result<T, Status>>>(
        &self,
        tracker: &Tracker<'_>,
        call: impl Fn() -> F,
    ) -> Result<T, Status> {
        let mut attempts = self.attempts();
        loop {
            match call().await {
                Ok(reply) => return Ok(reply),
                Err(status) => attempts.next(status, tracker).await?,
            }
        }
    }

    /// Runs a part of an attempt, and ends it if the transfer makes no progress: the server may be
    /// hung. One timer watches all of it, because one for each piece would cost more.
    pub(super) async fn watched<T, E: From<Status>>(
        &self,
        tracker: &Tracker<'_>,
        attempt: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let limit = self.options.resume_for.max(MIN_SILENCE);
        let silence = async {
            let (mut seen, mut since) = (tracker.steps(), Instant::now());
            loop {
                sleep(limit / 8).await;
                // Nothing is expected while the own rate limit delays the next bytes, or the disk
                // of this side is slow.
                let (now, steps) = (Instant::now(), tracker.steps());
                let delayed_until = self.options.rate.as_ref().map(|rate| rate.take(0));
                let is_delayed = delayed_until.is_some_and(|until| until > now);
                if steps != seen || is_delayed || tracker.is_busy() {
                    (seen, since) = (steps, now);
                } else if now.duration_since(since) >= limit {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            outcome = attempt => outcome,
            () = silence => Err(Status::unavailable("the server is silent").into()),
        }
    }
}
