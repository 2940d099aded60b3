//! The load: threads that make calls over their own connections, and the watch of their counts.

mod closed;
mod open;
mod pace;
mod schedule;
mod thread;
mod watch;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use self::thread::{Ended, Signals, Thread};
use self::watch::Watch;
use super::caller::Caller;
use super::cpu;
use super::interrupt::Interrupt;
use super::measured::{Generator, Measured};
use super::tally::{self, Shared};
use super::work::Work;
use crate::connection::ConnectArgs;
use crate::exit::{Failure, Outcome};
use crate::output::Output;

/// The way in which calls are made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mode {
    /// A closed loop: callers that wait for replies.
    Closed { callers: u32 },
    /// An open loop: calls at fixed times.
    Open {
        /// Calls per second at the beginning and at the end.
        rates: (f64, f64),
        max_in_flight: u32,
    },
}

/// A load.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) mode: Mode,
    /// The duration of the load before the measured part.
    pub(super) warmup: Duration,
    pub(super) duration: Option<Duration>,
    pub(super) requests: Option<u64>,
    /// The number of connections to each target.
    pub(super) connections: u32,
    pub(super) threads: u32,
    pub(super) is_precise: bool,
    pub(super) seed: u64,
}

/// The context of a load: its work, the options of connections, the output and the interrupt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup<'a> {
    pub(super) work: &'a Work,
    pub(super) connect: &'a ConnectArgs,
    pub(super) output: &'a Output,
    pub(super) interrupt: &'a Interrupt,
}

/// The times of a load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    start: Instant,
    /// The beginning of the measured part.
    begin: Instant,
    end: Option<Instant>,
}

/// The state that the tasks of a thread share.
#[derive(Clone, Debug)]
struct Task {
    caller: Arc<Caller>,
    shared: Arc<Shared>,
    window: Window,
}

/// A load that was made.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) measured: Measured,
    pub(super) is_interrupted: bool,
}

impl Load {
    /// Returns the share that a thread has of a total.
    fn share<N>(&self, all: N, index: u32) -> N
    where
        N: TryFrom<u64> + Into<u64> + Copy,
    {
        let (all_of_them, threads) = (all.into(), u64::from(self.threads));
        let one_more = u64::from(u64::from(index) < all_of_them % threads);
        N::try_from(all_of_them / threads + one_more).unwrap_or(all)
    }

    /// Makes the load; an interrupt ends it early.
    pub(super) async fn make(&self, setup: Setup<'_>) -> Outcome<Made> {
        let mut interrupt = setup.interrupt.clone();
        let (mut shared, mut ready, mut go, mut done) = (vec![], vec![], vec![], vec![]);
        for index in 0..self.threads {
            let (ready_sender, is_ready) = oneshot::channel();
            let (go_sender, may_go) = oneshot::channel();
            let (done_sender, is_done) = oneshot::channel();
            let of_thread = Arc::new(match self.mode {
                Mode::Closed { .. } => Shared::default(),
                Mode::Open { .. } => Shared::of_open_loop(),
            });
            let thread = Thread {
                index,
                load: self.clone(),
                work: setup.work.clone(),
                connect: setup.connect.clone(),
                output: *setup.output,
                shared: Arc::clone(&of_thread),
                interrupt: interrupt.clone(),
            };
            let signals = Signals {
                ready: ready_sender,
                go: may_go,
                done: done_sender,
            };
            let named = std::thread::Builder::new().name(format!("load-{index}"));
            let spawned = named.spawn(move || thread.run(signals));
            spawned.map_err(|error| Failure::Own(format!("no thread for the load: {error}")))?;
            shared.push(of_thread);
            ready.push(is_ready);
            go.push(go_sender);
            done.push(is_done);
        }
        for is_ready in ready {
            tokio::select! {
                () = interrupt.wait() => return Err(Failure::Interrupted),
                is_ready = is_ready => is_ready.map_err(|_| lost())??,
            }
        }
        let window = self.window(Instant::now());
        let mut watch = Watch::new(window, shared, setup.output);
        for may_go in go {
            may_go.send(window).map_err(|_| lost())?;
        }
        let ended = async {
            let mut ended = Vec::new();
            for is_done in done {
                ended.push(is_done.await.map_err(|_| lost())?);
            }
            Outcome::Ok(ended)
        };
        let mut ended = std::pin::pin!(ended);
        let mut stopped_at = None;
        let ended = loop {
            tokio::select! {
                ended = &mut ended => break ended?,
                () = watch.next() => {}
                () = interrupt.wait(), if stopped_at.is_none() => {
                    stopped_at = Some(Instant::now());
                    watch.stop();
                }
            }
        };
        let ended: io::Result<Vec<Ended>> = ended.into_iter().collect();
        let ended = ended.map_err(|error| Failure::Own(format!("no timer: {error}")))?;
        Ok(Made {
            measured: self.measured(watch, &ended, stopped_at),
            is_interrupted: stopped_at.is_some(),
        })
    }

    fn window(&self, start: Instant) -> Window {
        let begin = start + self.warmup;
        let end = self.duration.map(|duration| begin + duration);
        Window { start, begin, end }
    }

    fn measured(&self, watch: Watch, ended: &[Ended], stopped: Option<Instant>) -> Measured {
        let window = watch.window();
        let shared = watch.shared();
        let last = shared.iter().filter_map(|it| it.tally().last).max();
        // Calls that are due within the planned time may end after it.
        let planned = match self.mode {
            Mode::Open { .. } => window.end.filter(|_| self.requests.is_none()),
            Mode::Closed { .. } => None,
        };
        let end = last.max(planned.filter(|_| stopped.is_none())).max(stopped);
        let end = end.unwrap_or_else(Instant::now);
        let failures = tally::failures(shared.iter().map(|shared| &**shared));
        let unfinished = ended.iter().map(|ended| ended.unfinished as u64).sum();
        let busiest = ended.iter().filter_map(|ended| ended.busy).reduce(f64::max);
        let generator = Generator {
            cpu_seconds: watch.cpu_seconds(),
            busiest_thread: busiest,
            cores: cpu::cores() as u64,
        };
        let (counts, intervals) = watch.finish(end);
        Measured {
            seconds: end.saturating_duration_since(window.begin).as_secs_f64(),
            ok: counts.ok,
            messages: counts.messages,
            errors: counts.errors,
            skipped: counts.skipped,
            unfinished,
            latency: counts.latency,
            service: counts.service,
            failures,
            generator,
            intervals,
            ..Measured::default()
        }
    }
}

fn lost() -> Failure {
    Failure::Own("a thread of the load has ended too early".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_everything() {
        let load = Load {
            mode: Mode::Closed { callers: 1 },
            warmup: Duration::ZERO,
            duration: None,
            requests: None,
            connections: 1,
            threads: 3,
            is_precise: false,
            seed: 0,
        };
        let shares: Vec<u32> = (0..3).map(|index| load.share(11_u32, index)).collect();
        assert_eq!(shares, [4, 4, 3]);
        assert_eq!(
            (0..3).map(|index| load.share(u64::MAX, index)).max(),
            Some(u64::MAX / 3)
        );
    }
}
