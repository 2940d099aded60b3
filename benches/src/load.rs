//! The unary load: K tasks that each call, wait for the reply, check it and call again.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::args::ClientOptions;
use crate::report::Report;
use crate::{BoxError, EchoClient, Peer, cpu, memory};

/// Opens connections, and spreads the callers of the unary load over them.
///
/// # Errors
/// An error if a connection fails, or if processor time or memory cannot be read. A failed call is
/// counted instead.
pub async fn unary<P: Peer>(addr: SocketAddr, options: &ClientOptions) -> Result<Report, BoxError> {
    let connections = options.connections;
    memory::check_file_limit(connections)?;
    let resident = || options.server_pid.map(memory::resident_kib).transpose();
    let before = resident()?;
    let mut clients = Vec::with_capacity(connections);
    for _ in 0..connections {
        clients.push(P::connect(addr).await?);
    }
    let mut report = callers(&clients, options).await?;
    let grown = report.srv_kib.zip(before);
    report.srv_connection_kib = grown
        .filter(|_| connections > 1)
        .map(|(after, before)| after.saturating_sub(before) as f64 / connections as f64);
    Ok(report)
}

/// Runs the unary load that `options` describes over these clients.
pub(crate) async fn callers<C: EchoClient>(
    clients: &[C],
    options: &ClientOptions,
) -> Result<Report, BoxError> {
    let bodies = Bodies::new(options.payload);
    let window = Window::of(options);
    let measured = Meter::new()?;
    let mut tasks = JoinSet::new();
    for (task, client) in (0..options.inflight).zip(clients.iter().cycle()) {
        tasks.spawn(caller(
            client.clone(),
            bodies.clone(),
            task,
            window,
            measured.recorder(),
        ));
    }
    let cpu = window.cpu(options).await?;
    let all_back = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(PATIENCE, all_back).await.is_err() {
        measured.tally().errors += tasks.len() as u64;
    }
    Ok(measured.report(options, &cpu))
}

/// Calls like [`unary`] over one client, while one other call at a time sends 15 MiB and gets them back.
///
/// # Errors
/// Those of [`unary`], and an error if one of the large calls fails.
pub async fn beside_large<C: EchoClient>(
    client: C,
    options: &ClientOptions,
) -> Result<Report, BoxError> {
    const LARGE: usize = 15 << 20;
    let (large, bodies, window) = (client.clone(), Bodies::new(LARGE), Window::of(options));
    let large = tokio::spawn(async move {
        let mut calls = 0;
        while Instant::now() < window.end {
            let reply = large.echo(bodies.body(0, calls)).await?;
            assert_eq!(reply.len(), LARGE);
            calls += 1;
        }
        Ok::<_, C::Error>(calls)
    });
    let report = callers(&[client], options).await?;
    let mib = (large.await?? * (LARGE >> 20)) as f64 / (options.warm + options.secs).as_secs_f64();
    eprintln!("beside it, {mib:.0} MiB/s of large calls each way");
    Ok(report)
}

/// Time after the end after which a call without a reply counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// Number of failures after which a task ends: the connection is lost, and further calls would only
/// take time.
const FAILURES_PER_TASK: u32 = 100;

async fn caller<C: EchoClient>(
    client: C,
    bodies: Bodies,
    task: usize,
    window: Window,
    mut recorder: Recorder,
) {
    let mut failures = 0;
    let mut start = Instant::now();
    for turn in 0.. {
        let body = bodies.body(task, turn);
        let reply = client.echo(body.clone()).await;
        // The end of one call is the start of the next: one look at the clock for each, and the
        // checking counts too.
        let now = Instant::now();
        if reply.is_ok_and(|reply| reply == body) {
            if window.contains(now) {
                recorder.record(now - start);
            }
        } else {
            recorder.errors += 1;
            failures += 1;
        }
        if now >= window.end || failures == FAILURES_PER_TASK {
            break;
        }
        start = now;
    }
}

/// The interval in which the load is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    begin: Instant,
    pub(crate) end: Instant,
}

impl Window {
    pub(crate) fn of(options: &ClientOptions) -> Self {
        let begin = Instant::now() + options.warm;
        let end = begin + options.secs;
        Self { begin, end }
    }

    /// Waits until it is over, and returns the processor time that it took.
    pub(crate) async fn cpu(self, options: &ClientOptions) -> Result<CpuTimes, BoxError> {
        tokio::time::sleep_until(self.begin.into()).await;
        let before = CpuTimes::now(options.server_pid)?;
        tokio::time::sleep_until(self.end.into()).await;
        Ok(CpuTimes::now(options.server_pid)?.since(&before))
    }

    pub(crate) fn contains(self, now: Instant) -> bool {
        self.begin <= now && now < self.end
    }
}

/// Bodies whose contents differ from call to call, without a copy: slices of one block of noise. A
/// reply that belongs to another call is therefore detected.
#[derive(Debug, Clone)]
pub(crate) struct Bodies {
    noise: Bytes,
    len: usize,
}

impl Bodies {
    /// Number of different bodies; odd, so that tasks use different bodies.
    const OFFSETS: usize = 4093;

    pub(crate) fn new(len: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        });
        let noise = noise.take(len + Self::OFFSETS).collect();
        Self { noise, len }
    }

    pub(crate) fn body(&self, task: usize, turn: usize) -> Bytes {
        let offset = (task * 61 + turn) % Self::OFFSETS;
        self.noise.slice(offset..offset + self.len)
    }
}

/// The results of all tasks. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Meter(Arc<Mutex<Tally>>);

impl Meter {
    pub(crate) fn new() -> Result<Self, BoxError> {
        Ok(Self(Arc::new(Mutex::new(Tally::new()?))))
    }

    pub(crate) fn recorder(&self) -> Recorder {
        Recorder::new(Arc::clone(&self.0))
    }

    /// Adds `count` messages whose single times were not measured.
    pub(crate) fn count(&self, messages: u64) {
        self.tally().untimed += messages;
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn report(&self, options: &ClientOptions, used: &CpuTimes) -> Report {
        let tally = self.tally();
        let micros = |quantile| tally.latencies.value_at_quantile(quantile) as f64 / 1_000.0;
        let calls = (tally.latencies.len() + tally.untimed) as f64;
        Report {
            calls_s: calls / options.secs.as_secs_f64(),
            p50: micros(0.5),
            p99: micros(0.99),
            p999: micros(0.999),
            cli_cpu: per_call(used.client, calls),
            srv_cpu: used.server.map(|server| per_call(server, calls)),
            errors: tally.errors,
            srv_kib: used.server_kib,
            srv_connection_kib: None,
            kept: None,
        }
    }
}

#[derive(Debug)]
struct Tally {
    /// In nanoseconds.
    latencies: Histogram<u64>,
    untimed: u64,
    errors: u64,
}

impl Tally {
    fn new() -> Result<Self, BoxError> {
        Ok(Self {
            latencies: Histogram::new_with_bounds(1, 60_000_000_000, 3)?,
            untimed: 0,
            errors: 0,
        })
    }
}

/// One task's part of the results; it collects some before it takes the lock, so that measuring
/// costs little.
#[derive(Debug)]
pub(crate) struct Recorder {
    tally: Arc<Mutex<Tally>>,
    latencies: Vec<Duration>,
    errors: u64,
}

impl Recorder {
    const BATCH: usize = 16;

    fn new(tally: Arc<Mutex<Tally>>) -> Self {
        Self {
            tally,
            latencies: Vec::with_capacity(Self::BATCH),
            errors: 0,
        }
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        self.latencies.push(latency);
        if self.latencies.len() == Self::BATCH {
            self.hand_in();
        }
    }

    fn hand_in(&mut self) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        for latency in self.latencies.drain(..) {
            let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
            tally.latencies.saturating_record(nanos);
        }
        tally.errors += std::mem::take(&mut self.errors);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.hand_in();
    }
}

/// Processor time of both sides, and resident memory of the server.
#[derive(Default)]
pub(crate) struct CpuTimes {
    client: Duration,
    server: Option<Duration>,
    server_kib: Option<u64>,
}

impl CpuTimes {
    fn now(server_pid: Option<u32>) -> Result<Self, BoxError> {
        Ok(Self {
            client: cpu::own()?,
            server: server_pid.map(cpu::of).transpose()?,
            server_kib: server_pid.map(memory::resident_kib).transpose()?,
        })
    }

    fn since(&self, earlier: &Self) -> Self {
        let server = self.server.zip(earlier.server);
        Self {
            client: self.client.saturating_sub(earlier.client),
            server: server.map(|(now, then)| now.saturating_sub(then)),
            server_kib: self.server_kib,
        }
    }
}

fn per_call(time: Duration, calls: f64) -> f64 {
    time.as_secs_f64() * 1e6 / calls.max(1.0)
}
