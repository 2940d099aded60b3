//! Retries of failed transfers.

use std::future::Future;
use std::time::Duration;

use iip_rpc::{Code, Status};
use tokio::time::Instant;

use super::FileClient;
use super::progress::{Phase, Tracker};
use crate::service::FilesClient;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(2);

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
        status: Status,
        tracker: &Tracker<'_>,
    ) -> Result<(), Status> {
        let may_pass = match status.code() {
            // The connection was lost before the call, or within a stream.
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => true,
            // The server is still ending the previous attempt.
            Code::Aborted => !self.is_first,
            _ => false,
        };
        let now = Instant::now();
        if tracker.durable_bytes() > self.durable {
            self.durable = tracker.durable_bytes();
            (self.since, self.pause) = (now, FIRST_PAUSE);
        }
        if !may_pass || now.duration_since(self.since) >= self.limit {
            return Err(status);
        }
        self.is_first = false;
        tracker.phase(Phase::Reconnecting);
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        Ok(())
    }
}

impl FileClient {
    /// Makes a call, and retries it if its connection is lost.
    pub(super) async fn again<A: Clone, T, F: Future<Output = Result<T, Status>>>(
        &self,
        tracker: &Tracker<'_>,
        args: A,
        call: impl Fn(FilesClient, A) -> F,
    ) -> Result<T, Status> {
        let mut attempts = self.attempts();
        loop {
            match call(self.patient(0), args.clone()).await {
                Ok(reply) => return Ok(reply),
                Err(status) => attempts.next(status, tracker).await?,
            }
        }
    }
}
