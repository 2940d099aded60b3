//! The counts of one connection, and their way to the counters that all connections share.
//!
//! A connection counts in plain integers under its lock. It adds them to the shared counters when
//! somebody reads these, when it has no more room, and at its end; only the durations of calls are
//! added on the way. Calls that were read and replied to together are counted together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::bucket::bucket_of;
use super::code::OK;
use super::method::{Counts, Method};
use super::registry::{MethodId, Registry};
use super::snapshot::{OTHER, Traffic};
use crate::clock;
use crate::frame::FRAME_OVERHEAD;

/// The number of methods that a connection counts apart. Beyond it, one is added to the shared
/// counters.
const MAX_LOCAL: usize = 8;

/// The counts of one connection.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// `None` in tests of parts that do not count.
    registry: Option<Arc<Registry>>,
    shard: usize,
    /// Recent calls are kept.
    keeps_recent: bool,
    /// The time at which calls end now.
    now: Instant,
    group: Group,
    requests: Requests,
    locals: Vec<Local>,
    /// The place of the method that was counted last.
    current: usize,
}

/// Calls of a server that were read together and end together: a request and a reply of one frame
/// each.
#[derive(Debug, Default)]
struct Group {
    /// Address and length of their path, which a method keeps alive; and the place of the method.
    path: (usize, usize),
    place: usize,
    begun: Option<Instant>,
    calls: u64,
    received: u64,
    sent: u64,
}

/// Calls of a client that have begun: with a request of one frame each.
#[derive(Debug, Default)]
struct Requests {
    path: Bytes,
    id: MethodId,
    place: usize,
    calls: u64,
    /// Bytes of their data.
    bytes: u64,
}

/// Replies to calls of one method of a client that were read together. One of them is timed: to
/// time each would cost as much as the rest of the statistics.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Replies {
    pub(super) method: Option<MethodId>,
    /// The begin of the call that is timed: of the one in the middle.
    pub(super) begun: Option<Instant>,
    pub(super) calls: u32,
    /// The replies that had one frame, and their bytes.
    pub(super) frames: u32,
    pub(super) bytes: u64,
}

/// The calls of one method on one connection.
#[derive(Debug)]
struct Local {
    /// The path by which it was looked up.
    path: Bytes,
    id: MethodId,
    method: Arc<Method>,
    counts: Counts,
    /// The calls that ended last: their bucket, and their number.
    bucket: usize,
    calls: u64,
}

impl Local {
    /// Counts calls that have ended, except that they are no longer in flight.
    fn ended(&mut self, shard: usize, nanos: u64, calls: u64) {
        self.counts.nanos = self.counts.nanos.wrapping_add(nanos.wrapping_mul(calls));
        let bucket = bucket_of(nanos);
        if bucket != self.bucket {
            self.add_calls(shard);
            self.bucket = bucket;
        }
        self.calls = self.calls.wrapping_add(calls);
    }

    /// Adds the calls that ended last to the shared counters.
    fn add_calls(&mut self, shard: usize) {
        if self.calls > 0 {
            let calls = std::mem::take(&mut self.calls);
            self.method.ended(shard, self.bucket, calls);
        }
    }

    /// Adds everything to the shared counters.
    fn flush(&mut self, shard: usize) {
        self.add_calls(shard);
        let counts = std::mem::take(&mut self.counts);
        if counts != Counts::default() {
            self.method.add(shard, &counts);
        }
    }
}

impl Recorder {
    pub(crate) fn new(registry: &Arc<Registry>) -> Self {
        let mut recorder = Self::unseen(clock::now());
        recorder.shard = registry.assign();
        recorder.keeps_recent = registry.recent().is_some();
        recorder.registry = Some(Arc::clone(registry));
        recorder
    }

    /// A recorder whose counts nobody sees.
    pub(crate) fn unseen(now: Instant) -> Self {
        Self {
            registry: None,
            shard: 0,
            keeps_recent: false,
            now,
            group: Group::default(),
            requests: Requests::default(),
            locals: Vec::new(),
            current: 0,
        }
    }

    /// Sets the time at which the calls that follow end.
    pub(crate) fn set_now(&mut self, now: Instant) {
        self.end_group();
        self.now = now;
    }

    /// Adds everything to the shared counters.
    pub(crate) fn flush(&mut self) {
        self.end_groups();
        for local in &mut self.locals {
            local.flush(self.shard);
        }
    }

    /// Releases the memory that is needed only while there are calls.
    pub(crate) fn release_memory(&mut self) {
        self.flush();
        self.locals = Vec::new();
    }

    /// Counts what is counted together, so that the places of methods may change.
    fn end_groups(&mut self) {
        self.end_group();
        self.end_requests();
        (self.group, self.requests) = (Group::default(), Requests::default());
    }

    // ---- of both sides

    /// Counts a frame that was received for the call with this path.
    pub(crate) fn received(&mut self, path: &[u8], bytes: usize, ends: bool) {
        count(&mut self.on_path(path).counts.received, bytes, ends);
    }

    /// Counts a frame that was sent for the call with this path.
    pub(crate) fn sent(&mut self, path: &[u8], bytes: usize, ends: bool) {
        count(&mut self.on_path(path).counts.sent, bytes, ends);
    }

    /// Counts a stream of the call with this path that begins to wait for credit.
    #[cold]
    pub(crate) fn credit_stalled(&mut self, path: &[u8]) {
        self.on_path(path).counts.credit_stalls += 1;
    }

    #[inline]
    fn on_path(&mut self, path: &[u8]) -> &mut Local {
        let known = |local: &Local| local.path == path;
        if !self.locals.get(self.current).is_some_and(known) {
            self.current = self.find(path);
        }
        &mut self.locals[self.current]
    }

    #[cold]
    fn find(&mut self, path: &[u8]) -> usize {
        let found = self.locals.iter().position(|local| local.path == path);
        found.unwrap_or_else(|| {
            let registry = self.registry.as_ref();
            let id = registry.map_or_else(MethodId::default, |registry| registry.find(path));
            self.add(id, Bytes::copy_from_slice(path))
        })
    }

    /// Adds a method, in place of an older one if there are too many. Returns its place.
    fn add(&mut self, id: MethodId, path: Bytes) -> usize {
        self.end_groups();
        let local = Local {
            path,
            id,
            method: match &self.registry {
                Some(registry) => registry.method(id),
                None => Arc::new(Method::new(OTHER, None)),
            },
            counts: Counts::default(),
            bucket: 0,
            calls: 0,
        };
        if self.locals.len() < MAX_LOCAL {
            self.locals.push(local);
            return self.locals.len() - 1;
        }
        let place = (self.current + 1) % MAX_LOCAL;
        self.locals[place].flush(self.shard);
        self.locals[place] = local;
        place
    }

    // ---- of a server

    /// Counts a call whose request and reply have one frame each. Its path is kept alive as long as
    /// the connection.
    #[inline]
    pub(crate) fn replied(&mut self, path: &Bytes, begun: Instant, received: u32, sent: usize) {
        let key = (path.as_ptr().addr(), path.len());
        if self.group.path != key {
            self.begin_group(path);
        }
        if self.group.begun != Some(begun) {
            self.end_group();
            self.group.begun = Some(begun);
        }
        let group = &mut self.group;
        group.calls = group.calls.wrapping_add(1);
        group.received = group.received.wrapping_add(received.into());
        group.sent = group.sent.wrapping_add(sent as u64);
    }

    #[cold]
    fn begin_group(&mut self, path: &Bytes) {
        self.end_group();
        self.on_path(path);
        let place = self.current;
        // From here on this buffer is kept alive, so its address stands for the path.
        self.locals[place].path = path.clone();
        self.group.path = (path.as_ptr().addr(), path.len());
        self.group.place = place;
    }

    /// Counts the calls of the group.
    fn end_group(&mut self) {
        let calls = std::mem::take(&mut self.group.calls);
        if calls == 0 {
            return;
        }
        let received = std::mem::take(&mut self.group.received);
        let sent = std::mem::take(&mut self.group.sent);
        let nanos = self.since(self.group.begun.unwrap_or(self.now));
        let local = &mut self.locals[self.group.place];
        local.ended(self.shard, nanos, calls);
        count_whole(&mut local.counts.received, calls, received);
        count_whole(&mut local.counts.sent, calls, sent);
        if self.keeps_recent {
            self.add_recent(self.group.place, nanos, calls);
        }
    }

    #[cold]
    fn add_recent(&self, place: usize, nanos: u64, calls: u64) {
        if let Some(registry) = &self.registry {
            registry.add_recent(&self.locals[place].method, self.now, nanos, calls);
        }
    }

    fn since(&self, begun: Instant) -> u64 {
        clock::nanos(self.now.saturating_duration_since(begun))
    }

    /// Counts a call that begins and does not end in the same batch, or has several frames.
    pub(crate) fn begun(&mut self, path: &[u8]) {
        self.on_path(path).counts.in_flight += 1;
    }

    /// Counts the end of such a call.
    pub(crate) fn ended(&mut self, path: &[u8], begun: Instant) {
        let (shard, nanos) = (self.shard, self.since(begun));
        let local = self.on_path(path);
        local.counts.in_flight -= 1;
        local.ended(shard, nanos, 1);
        if self.keeps_recent {
            self.add_recent(self.current, nanos, 1);
        }
    }

    /// Counts a call as failed, in addition to its end.
    #[cold]
    pub(crate) fn failed(&mut self, path: &[u8], code: u8) {
        self.on_path(path).method.failed(code);
    }

    // ---- of a client

    /// Counts a call that begins, and its request of `size` bytes in one frame. Returns its method.
    #[inline]
    pub(crate) fn called(&mut self, path: &[u8], size: usize) -> MethodId {
        if self.requests.path != path {
            self.begin_requests(path);
        }
        let requests = &mut self.requests;
        requests.calls = requests.calls.wrapping_add(1);
        requests.bytes = requests.bytes.wrapping_add(size as u64);
        requests.id
    }

    #[cold]
    fn begin_requests(&mut self, path: &[u8]) {
        self.end_requests();
        let local = self.on_path(path);
        let (path, id) = (local.path.clone(), local.id);
        let place = self.current;
        self.requests = Requests {
            path,
            id,
            place,
            ..Requests::default()
        };
    }

    /// Counts the requests of the last method.
    fn end_requests(&mut self) {
        let calls = std::mem::take(&mut self.requests.calls);
        let bytes = std::mem::take(&mut self.requests.bytes);
        if calls == 0 {
            return;
        }
        let heads = calls.wrapping_mul((FRAME_OVERHEAD + self.requests.path.len()) as u64);
        let counts = &mut self.locals[self.requests.place].counts;
        counts.in_flight += calls.cast_signed();
        count_whole(&mut counts.sent, calls, bytes.wrapping_add(heads));
    }

    /// Takes back the request of the call that began last: it is not sent in one frame.
    #[cold]
    pub(crate) fn not_sent(&mut self, size: usize) {
        self.end_requests();
        let bytes = (FRAME_OVERHEAD + self.requests.path.len() + size) as u64;
        let sent = &mut self.locals[self.requests.place].counts.sent;
        sent.frames = sent.frames.wrapping_sub(1);
        sent.messages = sent.messages.wrapping_sub(1);
        sent.bytes = sent.bytes.wrapping_sub(bytes);
    }

    /// Counts calls that have ended with replies, `frames` of which had one frame.
    pub(super) fn replied_by(&mut self, ended: &Replies, now: Instant) {
        let Replies {
            method: Some(method),
            begun: Some(begun),
            calls,
            frames,
            bytes,
        } = *ended
        else {
            return;
        };
        let shard = self.shard;
        let nanos = clock::nanos(now.saturating_duration_since(begun));
        let local = self.of_id(method);
        local.counts.in_flight -= i64::from(calls);
        local.ended(shard, nanos, calls.into());
        count_whole(&mut local.counts.received, frames.into(), bytes);
    }

    /// Counts a call that has ended without a reply. Leases have no method.
    #[cold]
    pub(crate) fn ended_by(&mut self, call: Option<MethodId>, took: Duration, code: u8) {
        let Some(method) = call else { return };
        let shard = self.shard;
        let local = self.of_id(method);
        local.counts.in_flight -= 1;
        local.ended(shard, clock::nanos(took), 1);
        if code != OK {
            local.method.failed(code);
        }
    }

    fn of_id(&mut self, id: MethodId) -> &mut Local {
        let known = |local: &Local| local.id == id;
        if !self.locals.get(self.current).is_some_and(known) {
            let found = self.locals.iter().position(known);
            self.current = found.unwrap_or_else(|| self.add(id, Bytes::new()));
        }
        &mut self.locals[self.current]
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.flush();
    }
}

fn count(traffic: &mut Traffic, bytes: usize, ends: bool) {
    traffic.frames += 1;
    traffic.messages += u64::from(ends);
    traffic.bytes += bytes as u64;
}

fn count_whole(traffic: &mut Traffic, frames: u64, bytes: u64) {
    traffic.frames = traffic.frames.wrapping_add(frames);
    traffic.messages = traffic.messages.wrapping_add(frames);
    traffic.bytes = traffic.bytes.wrapping_add(bytes);
}
