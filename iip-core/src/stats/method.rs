//! The counters of one method, which the connections of a server or client share.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::bucket::BUCKETS;
use super::code::{CODE_NAMES, Codes};
use super::go_paths::PATHS;
use super::recent::{MICRO, MILLI, Recent};
use super::snapshot::{MethodStats, Traffic};

/// The maximum number of shards. Connections that run at the same time mostly write to different
/// ones.
pub(super) const MAX_SHARDS: usize = 16;

/// The counters of one method.
#[derive(Debug)]
pub(super) struct Method {
    path: Arc<str>,
    /// The name in metrics, if it is not that of the path.
    rpc_method: Option<Arc<str>>,
    /// The calls that failed, by their codes. They are few, and not sharded.
    failed: [AtomicU64; CODE_NAMES.len()],
    /// Made when a connection of the shard uses the method.
    shards: [OnceLock<Box<Shard>>; MAX_SHARDS],
    /// The recent calls, if they are kept.
    recent: OnceLock<Mutex<Recent>>,
}

/// The counts of the connections of one shard.
#[derive(Debug)]
pub(super) struct Shard {
    in_flight: AtomicI64,
    received: SharedTraffic,
    sent: SharedTraffic,
    credit_stalls: AtomicU64,
    nanos: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

#[derive(Debug, Default)]
struct SharedTraffic {
    frames: AtomicU64,
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl SharedTraffic {
    fn add(&self, traffic: Traffic) {
        add(&self.frames, traffic.frames);
        add(&self.messages, traffic.messages);
        add(&self.bytes, traffic.bytes);
    }

    fn get(&self) -> Traffic {
        Traffic {
            frames: self.frames.load(Ordering::Relaxed),
            messages: self.messages.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// Counters wrap after centuries.
#[inline]
fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// The counts that a connection adds to those of a method.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Counts {
    /// Calls that have begun, less those that have ended.
    pub(super) in_flight: i64,
    pub(super) received: Traffic,
    pub(super) sent: Traffic,
    /// Streams that began to wait for credit.
    pub(super) credit_stalls: u64,
    /// The sum of the durations of the calls that have ended.
    pub(super) nanos: u64,
}

impl Method {
    pub(super) fn new(path: &str, rpc_method: Option<String>) -> Self {
        Self {
            path: path.into(),
            rpc_method: rpc_method.map(Into::into),
            failed: Default::default(),
            shards: Default::default(),
            recent: OnceLock::new(),
        }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Returns what was received and sent.
    pub(super) fn traffic(&self) -> (Traffic, Traffic) {
        let (mut received, mut sent) = (Traffic::default(), Traffic::default());
        for shard in self.shards.iter().filter_map(OnceLock::get) {
            received.merge(shard.received.get());
            sent.merge(shard.sent.get());
        }
        (received, sent)
    }

    pub(super) fn recent(&self) -> MutexGuard<'_, Recent> {
        let recent = self.recent.get_or_init(|| {
            let is_own = PATHS.contains(&&*self.path);
            Mutex::new(Recent::new(if is_own { MICRO } else { MILLI }))
        });
        recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard(&self, shard: usize) -> &Shard {
        let shard = &self.shards[shard % MAX_SHARDS];
        shard.get_or_init(|| {
            Box::new(Shard {
                in_flight: AtomicI64::new(0),
                received: SharedTraffic::default(),
                sent: SharedTraffic::default(),
                credit_stalls: AtomicU64::new(0),
                nanos: AtomicU64::new(0),
                buckets: [const { AtomicU64::new(0) }; BUCKETS],
            })
        })
    }

    /// Adds calls that took equally long. `bucket` is below [`BUCKETS`].
    pub(super) fn ended(&self, shard: usize, bucket: usize, calls: u64) {
        if let Some(counter) = self.shard(shard).buckets.get(bucket) {
            add(counter, calls);
        }
    }

    pub(super) fn add(&self, shard: usize, counts: &Counts) {
        let shard = self.shard(shard);
        shard
            .in_flight
            .fetch_add(counts.in_flight, Ordering::Relaxed);
        shard.received.add(counts.received);
        shard.sent.add(counts.sent);
        add(&shard.credit_stalls, counts.credit_stalls);
        add(&shard.nanos, counts.nanos);
    }

    /// Counts a call that failed; it also counts among those that have ended.
    #[cold]
    pub(super) fn failed(&self, code: u8) {
        if let Some(counter) = self.failed.get(usize::from(code)) {
            add(counter, 1);
        }
    }

    pub(super) fn stats(&self) -> MethodStats {
        let mut stats = MethodStats::new(Arc::clone(&self.path));
        stats.rpc_method.clone_from(&self.rpc_method);
        let mut codes = [(); CODE_NAMES.len()].map(|()| 0);
        for (count, failed) in codes.iter_mut().zip(&self.failed) {
            *count = failed.load(Ordering::Relaxed);
        }
        let mut in_flight = 0;
        for shard in self.shards.iter().filter_map(OnceLock::get) {
            in_flight += shard.in_flight.load(Ordering::Relaxed);
            stats.received.merge(shard.received.get());
            stats.sent.merge(shard.sent.get());
            stats.credit_stalls += shard.credit_stalls.load(Ordering::Relaxed);
            for (bucket, count) in shard.buckets.iter().enumerate() {
                stats.latency.add(bucket, count.load(Ordering::Relaxed));
            }
            stats.latency.add_sum(shard.nanos.load(Ordering::Relaxed));
        }
        stats.in_flight = u64::try_from(in_flight).unwrap_or(0);
        let failed: u64 = codes.iter().sum();
        codes[0] = stats.latency.count().saturating_sub(failed);
        stats.codes = Codes::new(codes);
        stats
    }
}
