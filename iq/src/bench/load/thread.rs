//! A thread that makes a part of the load, with a runtime and connections of its own.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::closed::{self, Left};
use super::open::{self, Share};
use super::schedule::Schedule;
use super::{Load, Mode, Task, Window};
use crate::bench::caller::Caller;
use crate::bench::cpu;
use crate::bench::interrupt::Interrupt;
use crate::bench::tally::Shared;
use crate::bench::work::Work;
use crate::connection::ConnectArgs;
use crate::exit::{Failure, Outcome};
use crate::output::Output;

/// The time that calls in flight have to end after an interrupt.
const PATIENCE: Duration = Duration::from_millis(300);

/// The interval of the checks for calls in flight.
const LOOK: Duration = Duration::from_millis(1);

/// A thread that makes a part of the load.
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) index: u32,
    pub(super) load: Load,
    pub(super) work: Work,
    pub(super) connect: ConnectArgs,
    pub(super) output: Output,
    pub(super) shared: Arc<Shared>,
    pub(super) interrupt: Interrupt,
}

/// The signals between a thread and the one that started it.
#[derive(Debug)]
pub(super) struct Signals {
    /// The outcome of connecting.
    pub(super) ready: oneshot::Sender<Outcome>,
    /// The window of the load, sent when it may begin.
    pub(super) go: oneshot::Receiver<Window>,
    pub(super) done: oneshot::Sender<io::Result<Ended>>,
}

/// The end of the load of a thread.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ended {
    /// The fraction of a core that the thread used in the measured part.
    pub(super) busy: Option<f64>,
    /// The number of calls that were still in flight.
    pub(super) unfinished: usize,
}

impl Thread {
    /// Runs until the load is over, on the current thread.
    pub(super) fn run(self, signals: Signals) {
        let Signals { ready, go, done } = signals;
        // The other ends of these may have been dropped.
        let runtime = match tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = ready.send(Err(Failure::Own(format!("no runtime: {error}"))));
                return;
            }
        };
        runtime.block_on(async {
            let connections = self.load.share(self.load.connections, self.index);
            let work = self.work.clone();
            let connecting = Caller::connect(work, connections, &self.connect, &self.output);
            let caller = match connecting.await {
                Ok(caller) => Arc::new(caller),
                Err(failure) => {
                    let _ = ready.send(Err(failure));
                    return;
                }
            };
            let _ = ready.send(Ok(()));
            if let Ok(window) = go.await {
                let shared = Arc::clone(&self.shared);
                let task = Task {
                    caller,
                    shared,
                    window,
                };
                let _ = done.send(self.make(task).await);
            }
        });
        runtime.shutdown_background();
    }

    /// Makes the load.
    async fn make(mut self, task: Task) -> io::Result<Ended> {
        let (begin, caller) = (task.window.begin, Arc::clone(&task.caller));
        let at_once = cpu::thread();
        let after_warmup = (Instant::now() < begin).then(|| {
            tokio::spawn(async move {
                tokio::time::sleep_until(begin.into()).await;
                cpu::thread()
            })
        });
        match self.load.mode {
            Mode::Closed { callers } => self.closed(task, callers).await,
            Mode::Open {
                rates,
                max_in_flight,
            } => self.open(task, rates, max_in_flight).await?,
        }
        let (now, cpu) = (Instant::now(), cpu::thread());
        let before = match after_warmup {
            None => at_once,
            Some(task) if task.is_finished() => task.await.ok().flatten(),
            Some(_) => None,
        };
        let busy = before.and_then(|before| {
            let used = cpu?.checked_sub(before)?;
            Some(used.as_secs_f64() / (now - begin).as_secs_f64().max(1e-9))
        });
        self.wait_for_calls(&caller).await;
        Ok(Ended {
            busy,
            unfinished: self.shared.in_flight(),
        })
    }

    /// Makes a closed loop, until the callers have ended.
    async fn closed(&mut self, task: Task, callers: u32) {
        let calls = self
            .load
            .requests
            .map(|calls| self.load.share(calls, self.index));
        let left = calls.map(|calls| Arc::new(Left::new(calls)));
        let mut tasks = JoinSet::new();
        for caller in 0..self.load.share(callers, self.index) {
            let seed = self.seed(1 + u64::from(caller));
            tasks.spawn(closed::call(task.clone(), left.clone(), seed));
        }
        tokio::select! {
            () = async { while tasks.join_next().await.is_some() {} } => {}
            () = self.interrupt.wait() => {}
        }
        // Stopped callers end after their current call.
        tasks.detach_all();
    }

    /// Makes an open loop, until the last call was sent.
    async fn open(&mut self, task: Task, rates: (f64, f64), max_in_flight: u32) -> io::Result<()> {
        let load = &self.load;
        let share = Share {
            schedule: Schedule::new(rates, load.warmup, load.duration, load.requests),
            first: self.index.into(),
            step: load.threads.into(),
            max_in_flight: load.share(max_in_flight, self.index).max(1) as usize,
            is_precise: load.is_precise,
        };
        let seed = self.seed(0);
        tokio::select! {
            sent = open::send(&task, share, seed) => sent,
            () = self.interrupt.wait() => Ok(()),
        }
    }

    /// Returns a seed for a task of this thread.
    fn seed(&self, task: u64) -> u64 {
        self.load.seed ^ u64::from(self.index) << 32 ^ task << 40
    }

    /// Waits for the calls in flight, each of which ends at its deadline.
    async fn wait_for_calls(&mut self, caller: &Caller) {
        let in_flight = async {
            while self.shared.in_flight() > 0 {
                tokio::time::sleep(LOOK).await;
            }
            if !caller.finish().await {
                self.output.note(
                    "the last one-way calls were not written in time (option --timeout), so some \
                     of those that are counted were not sent",
                );
            }
        };
        let impatient = async {
            self.interrupt.wait().await;
            tokio::time::sleep(PATIENCE).await;
        };
        tokio::select! {
            () = in_flight => {}
            () = impatient => {}
        }
    }
}
