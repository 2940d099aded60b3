//! The state of one channel: the message being received, and the calls in their order. Pure.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use slab::Slab;

use super::control::Exchange;
use super::request_path::RequestPath;
use crate::frame::ChannelId;
use crate::stats::Recorder;

/// The handling of a message that arrives in several frames.
///
/// ```text
///   Collect ──▶ Parts        a server's handler takes the chunks as they arrive
///      │          │
///      ├──▶ Control          the message is the control stream
///      │          │
///      └─────▶ Skip ◀──── Stream
///
///   Stream ──▶ Collect       a client's stream has ended, and the reply begins
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Incoming {
    /// The data is collected until it is complete.
    Collect,
    /// Every chunk is handed on as it arrives.
    Parts,
    /// The message is a stream: its frames have marks.
    Stream(IncomingStream),
    /// The rest is skipped.
    Skip(Skip),
    /// The message is the control stream: messages of the protocol itself.
    Control,
}

/// The stream of a message that is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IncomingStream {
    /// Number of bytes that the peer may still send; its last frame may begin with the last of them
    /// and exceed it.
    pub(crate) allowed: i64,
    /// The peer sends no further bytes.
    pub(crate) ended: bool,
}

impl IncomingStream {
    pub(crate) fn new(window: usize) -> Self {
        Self {
            allowed: i64::try_from(window).unwrap_or(i64::MAX),
            ended: false,
        }
    }
}

/// The reason why the rest of a message is skipped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Skip {
    /// Its receiver has gone, or has failed.
    Unwanted,
    /// It is larger than the limit.
    TooLarge,
    /// Its caller has gone before it was complete. A server still replies to it.
    Cancelled,
    /// Its reply was sent before it was complete.
    Replied,
}

/// A message of which not all frames have arrived.
#[derive(Debug)]
pub(crate) struct Assembly {
    pub(crate) incoming: Incoming,
    /// The path of the first frame: it alone selects the handler and is the label of the reply.
    pub(crate) path: Bytes,
    pub(crate) data: BytesMut,
    pub(crate) size: usize,
    /// Time at which its last frame arrived.
    pub(crate) grown_at: Option<Instant>,
}

impl Assembly {
    pub(crate) fn new(incoming: Incoming, path: Bytes) -> Self {
        Self {
            incoming,
            path,
            data: BytesMut::new(),
            size: 0,
            grown_at: None,
        }
    }

    /// Returns `true` if further frames are needed to complete the message. A stream is not
    /// incomplete between two of its frames.
    pub(crate) fn is_unfinished(&self) -> bool {
        matches!(self.incoming, Incoming::Collect | Incoming::Parts)
    }

    pub(crate) fn is_too_large(&self) -> bool {
        self.incoming == Incoming::Skip(Skip::TooLarge)
    }
}

/// A complete request that waits for the reply to the one before it on its channel.
#[derive(Debug)]
pub(crate) struct WaitingRequest {
    pub(crate) path: Bytes,
    pub(crate) body: Bytes,
    pub(crate) received_at: Instant,
}

/// The form of a call's request and reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One message in each direction.
    Whole,
    /// One message in each direction; the chunks of the reply are handed on as they arrive.
    Parts,
    /// A stream in each direction, followed by a reply. The request stays open until the reply has
    /// arrived.
    Stream,
    /// One message, without a caller that waits for the reply.
    OneWay,
}

/// A request that this side sent and that has no complete reply yet. It keeps its place even if the
/// caller has gone.
#[derive(Debug)]
pub(crate) struct SentCall {
    pub(crate) exchange: Exchange,
    /// The position in the output at which the request has been written; 0 if unknown.
    pub(crate) end: u64,
    pub(crate) mode: Mode,
    /// The request is a stream that was not ended.
    pub(crate) is_open: bool,
    /// Length of its path in bytes; [`SentCalls`] keeps the path.
    path_bytes: u16,
}

impl SentCall {
    #[inline]
    pub(crate) fn new(exchange: Exchange, end: u64, mode: Mode) -> Self {
        Self {
            exchange,
            end,
            mode,
            is_open: mode == Mode::Stream,
            path_bytes: 0,
        }
    }
}

/// Maximum capacity of the path buffer that a channel at rest keeps.
const KEPT_PATH_BYTES: usize = 128;

/// Paths in order, one after the other, in a buffer that is reused.
#[derive(Debug, Default)]
struct Paths {
    bytes: Vec<u8>,
    /// The offset of the oldest path; the bytes before it are no longer used.
    start: usize,
}

impl Paths {
    /// Adds a path. Returns its length, by which it is found again.
    #[inline]
    fn push(&mut self, path: &[u8]) -> u16 {
        let len = u16::try_from(path.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&path[..usize::from(len)]);
        len
    }

    #[inline]
    fn front(&self, len: u16) -> &[u8] {
        let end = self.start + usize::from(len);
        self.bytes.get(self.start..end).unwrap_or_default()
    }

    #[inline]
    fn pop(&mut self, len: u16) {
        self.start += usize::from(len);
        // The common case: the only call of the channel has its reply, and the next one reuses the
        // buffer.
        if self.start == self.bytes.len() && self.bytes.capacity() <= KEPT_PATH_BYTES {
            self.start = 0;
            self.bytes.clear();
        } else {
            self.tidy();
        }
    }

    /// Releases memory once more than half of it is unused.
    #[cold]
    fn tidy(&mut self) {
        if self.start == self.bytes.len() {
            *self = Self::default();
        } else if self.start > self.bytes.len() / 2 {
            // Fewer bytes are moved than were used up, so the cost of a path is constant on
            // average.
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}

/// Calls in order. The oldest is stored inline, because there is mostly only one at a time.
#[derive(Debug, Default)]
pub(crate) struct SentCalls {
    oldest: Option<SentCall>,
    /// The calls after it. There are such calls on channel 0, and on a leased channel, whose owner
    /// decides how many.
    #[expect(
        clippy::box_collection,
        reason = "a word for the channels that never need it"
    )]
    others: Option<Box<VecDeque<SentCall>>>,
    /// The paths of the calls; only a client keeps them.
    paths: Option<Box<Paths>>,
}

impl SentCalls {
    /// Adds a call of `path`, which has at most [`MAX_PATH_BYTES`](crate::frame::MAX_PATH_BYTES).
    /// It is empty for a request of the protocol itself.
    #[inline]
    pub(crate) fn push(&mut self, mut call: SentCall, path: &[u8]) {
        // The paths of the protocol itself are constants, see `Exchange::path`.
        if !path.is_empty() {
            call.path_bytes = self.paths.get_or_insert_default().push(path);
        }
        if self.oldest.is_none() {
            self.oldest = Some(call);
        } else {
            self.others.get_or_insert_default().push_back(call);
        }
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<SentCall> {
        // `others` is empty while there is no oldest call, so nothing is lost by the return below.
        let next = self.others.as_mut().and_then(|others| others.pop_front());
        let call = std::mem::replace(&mut self.oldest, next)?;
        if let Some(paths) = &mut self.paths {
            paths.pop(call.path_bytes);
        }
        Some(call)
    }

    /// Returns the path that the oldest call was sent with.
    #[inline]
    pub(crate) fn oldest_path(&self) -> &[u8] {
        let bytes = self.oldest.as_ref().map_or(0, |call| call.path_bytes);
        let paths = self.paths.as_ref();
        paths.map_or(&[], |paths| paths.front(bytes))
    }

    #[inline]
    pub(crate) fn oldest(&self) -> Option<&SentCall> {
        self.oldest.as_ref()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut SentCall> {
        self.oldest
            .iter_mut()
            .chain(self.others.iter_mut().flat_map(|others| others.iter_mut()))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &SentCall> {
        self.oldest
            .iter()
            .chain(self.others.iter().flat_map(|others| others.iter()))
    }

    /// Releases the memory of calls that have their reply.
    fn shrink(&mut self) {
        if self.others.as_ref().is_some_and(|others| others.is_empty()) {
            self.others = None;
        }
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.oldest.is_some()) + self.others.as_ref().map_or(0, |others| others.len())
    }
}

/// The request of a channel that its handler has, at a server.
///
/// ```text
///            shown complete ──▶ Complete ───────────────┐
///                                  ▲                    │
///   handler takes the chunks ──▶ Parts ─────────────────┤
///                                                       ├──▶ replied to: no open request
///             begins as one ──▶ Stream ─────────────────┤
///                                  ▼                    │
///                             StreamEnded ──────────────┘
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    /// The whole request has arrived.
    Complete,
    /// Its chunks go to the handler as they arrive.
    Parts,
    /// It is a stream, which is open.
    Stream,
    /// It is a stream that the client has ended.
    StreamEnded,
}

/// A request that was shown to its handler and has no complete reply, at a server.
#[derive(Debug)]
pub(crate) struct OpenRequest {
    pub(crate) path: Arc<RequestPath>,
    pub(crate) arrival: Arrival,
    /// A first part of the reply was sent.
    pub(crate) replying: bool,
    /// The caller has gone, and the layer above was notified.
    pub(crate) cancelled: bool,
    /// The time at which it had arrived, or begun to.
    pub(crate) begun: Instant,
    /// Number of bytes of its one frame, until they are counted; 0 if it had several. The call
    /// counts as in flight once they are.
    pub(crate) uncounted: u32,
}

impl OpenRequest {
    pub(crate) fn new(
        path: Arc<RequestPath>,
        arrival: Arrival,
        begun: Instant,
        uncounted: u32,
    ) -> Self {
        Self {
            path,
            arrival,
            begun,
            uncounted,
            replying: false,
            cancelled: false,
        }
    }

    /// Returns `true` if the request is still arriving: it is the message that its channel
    /// receives.
    #[inline]
    pub(crate) fn is_arriving(&self) -> bool {
        matches!(self.arrival, Arrival::Parts | Arrival::Stream)
    }

    #[inline]
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self.arrival, Arrival::Stream | Arrival::StreamEnded)
    }

    /// Counts the request, and the call as in flight, before its end: its handler has to wait.
    pub(crate) fn count_begin(&mut self, stats: &mut Recorder) {
        let received = std::mem::take(&mut self.uncounted);
        if received > 0 {
            stats.received(&self.path.label, received as usize, true);
            stats.begun(&self.path.label);
        }
    }

    /// Counts a part of the reply if it is `sent` in one frame of that many bytes, and the end of
    /// the call if the part is the last one.
    #[cold]
    pub(crate) fn count_reply(&mut self, stats: &mut Recorder, sent: Option<usize>, ends: bool) {
        self.count_begin(stats);
        match (ends, sent) {
            (true, sent) => self.count_end(stats, sent),
            (false, Some(bytes)) => stats.sent(&self.path.label, bytes, false),
            (false, None) => {}
        }
    }

    /// Counts the end of the call, and its reply if it is `sent` in one frame of that many bytes.
    #[cold]
    pub(crate) fn count_end(&mut self, stats: &mut Recorder, sent: Option<usize>) {
        self.count_begin(stats);
        if let Some(bytes) = sent {
            stats.sent(&self.path.label, bytes, true);
        }
        stats.ended(&self.path.label, self.begun);
    }

    /// Records that the last frame of the request has arrived. Returns `true` if it was arriving
    /// before.
    pub(crate) fn on_arrived(&mut self) -> bool {
        let was_arriving = self.is_arriving();
        self.arrival = match self.arrival {
            Arrival::Complete | Arrival::Parts => Arrival::Complete,
            Arrival::Stream | Arrival::StreamEnded => Arrival::StreamEnded,
        };
        was_arriving
    }
}

/// The state of one channel. A channel at rest has none, and a server does not keep it in its
/// table.
#[derive(Debug, Default)]
pub(crate) struct Channel {
    /// The message being received: a request at a server, a reply at a client.
    pub(crate) assembly: Option<Box<Assembly>>,
    /// Client: requests without a reply, in the order in which they were sent.
    pub(crate) sent: SentCalls,
    /// Server: the request that its handler has.
    pub(crate) open: Option<OpenRequest>,
    /// Server: complete requests after the open one.
    pub(crate) waiting: VecDeque<WaitingRequest>,
    /// Server: the channel is in the queue for a handler.
    pub(crate) queued: bool,
}

impl Channel {
    /// Returns `true` if more requests wait after the open one.
    #[inline]
    pub(crate) fn has_next(&self) -> bool {
        !self.waiting.is_empty() || self.assembly.is_some()
    }

    /// Returns the number of bytes counted for the unfinished message and the waiting requests.
    pub(crate) fn buffered(&self) -> usize {
        let unfinished = self
            .assembly
            .as_ref()
            .map_or(0, |assembly| assembly.data.len());
        let waiting = self.waiting.iter().map(WaitingRequest::cost);
        unfinished + waiting.sum::<usize>()
    }

    /// Returns `true` if a request that arrives now is the next one to be shown.
    #[inline]
    pub(crate) fn is_next(&self) -> bool {
        self.open.is_none() && self.waiting.is_empty()
    }

    /// Server: returns `true` if the open request is still arriving.
    pub(crate) fn is_arriving(&self) -> bool {
        self.open.as_ref().is_some_and(OpenRequest::is_arriving)
    }

    /// Server: records that the last frame of a message has arrived. Returns `true` if the message
    /// was the open request.
    pub(crate) fn on_arrived(&mut self) -> bool {
        self.open.as_mut().is_some_and(OpenRequest::on_arrived)
    }

    pub(crate) fn is_at_rest(&self) -> bool {
        self.assembly.is_none()
            && self.open.is_none()
            && !self.queued
            && self.waiting.is_empty()
            && self.sent.oldest().is_none()
    }
}

/// The highest channel that is granted. Those above are used by the server for one-way calls.
pub(super) const MAX_GRANTED: u32 = u32::MAX / 2;

/// Returns `true` if calls on this channel are one-way.
#[inline]
pub(crate) fn is_one_way(channel: ChannelId) -> bool {
    channel.0 > MAX_GRANTED
}

/// Ids below this are found by index.
const DENSE: usize = 4096;
const NONE: u32 = u32::MAX;

/// The channels with state, by id. The peer chooses the ids within the grants, so no allocation
/// depends on their size.
#[derive(Debug, Default)]
pub(crate) struct ChannelTable {
    channels: Slab<Channel>,
    dense: Vec<u32>,
    sparse: HashMap<u32, u32>,
    /// Number of channels of one-way calls.
    one_way: usize,
}

impl ChannelTable {
    #[inline]
    fn key(&self, id: ChannelId) -> Option<usize> {
        let index = id.0 as usize;
        if index < DENSE {
            self.dense
                .get(index)
                .copied()
                .filter(|&key| key != NONE)
                .map(|key| key as usize)
        } else {
            self.sparse.get(&id.0).map(|&key| key as usize)
        }
    }

    #[inline]
    pub(crate) fn get(&self, id: ChannelId) -> Option<&Channel> {
        self.key(id).and_then(|key| self.channels.get(key))
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: ChannelId) -> Option<&mut Channel> {
        self.key(id).and_then(|key| self.channels.get_mut(key))
    }

    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "there are fewer channels than u32 ids"
    )]
    pub(crate) fn get_or_insert(&mut self, id: ChannelId) -> &mut Channel {
        let key = match self.key(id) {
            Some(key) => key,
            None => {
                let key = self.channels.insert(Channel::default());
                // The index has at most `DENSE` entries, and other ids cost one entry each, so a
                // peer gains nothing by using high ids.
                let index = id.0 as usize;
                if index < DENSE {
                    if self.dense.len() <= index {
                        self.dense.resize(index + 1, NONE);
                    }
                    self.dense[index] = key as u32;
                } else {
                    self.sparse.insert(id.0, key as u32);
                    self.one_way += usize::from(is_one_way(id));
                }
                key
            }
        };
        &mut self.channels[key]
    }

    /// Returns the requests that handlers have.
    pub(crate) fn open_mut(&mut self) -> impl Iterator<Item = &mut OpenRequest> {
        let channels = self.channels.iter_mut();
        channels.filter_map(|(_, channel)| channel.open.as_mut())
    }

    /// Forgets a channel. Only channels with sparse ids are removed.
    pub(crate) fn remove(&mut self, id: ChannelId) {
        // A dense id has no entry here; it is forgotten with the other channels at rest.
        if let Some(key) = self.sparse.remove(&id.0) {
            self.channels.try_remove(key as usize);
            self.one_way -= usize::from(is_one_way(id));
        }
    }

    /// Forgets all channels for which `keep` returns `false`.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Channel) -> bool) {
        let channels = &mut self.channels;
        // `NONE` is no key of the slab, so ids without a channel are passed over.
        for key in &mut self.dense {
            if channels
                .get(*key as usize)
                .is_some_and(|channel| !keep(channel))
            {
                channels.remove(*key as usize);
                *key = NONE;
            }
        }
        let one_way = &mut self.one_way;
        self.sparse.retain(|&id, key| {
            let kept = channels.get(*key as usize).is_some_and(&keep);
            if !kept {
                channels.try_remove(*key as usize);
                *one_way -= usize::from(is_one_way(ChannelId(id)));
            }
            kept
        });
        // An idle connection should not keep the memory of its busiest time.
        if channels.is_empty() {
            *self = Self::default();
        }
    }

    /// Releases the memory left by channels at rest and by calls that have their reply.
    pub(crate) fn shrink(&mut self) {
        for (_, channel) in &mut self.channels {
            channel.sent.shrink();
            channel.waiting.shrink_to_fit();
        }
        self.channels.shrink_to_fit();
        let used = self.dense.iter().rposition(|&key| key != NONE);
        self.dense.truncate(used.map_or(0, |last| last + 1));
        self.dense.shrink_to_fit();
        self.sparse.shrink_to_fit();
    }

    /// Returns the channels on which a message is being received for which `is` returns `true`.
    pub(crate) fn receiving(&self, is: impl Fn(&Assembly) -> bool) -> Vec<ChannelId> {
        let dense = self.dense.iter().zip(0..);
        let sparse = self.sparse.iter().map(|(&id, key)| (key, id));
        dense
            .chain(sparse)
            .filter(|&(&key, _)| {
                let channel = self.channels.get(key as usize);
                let assembly = channel.and_then(|channel| channel.assembly.as_deref());
                assembly.is_some_and(&is)
            })
            .map(|(_, id)| ChannelId(id))
            .collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Channel> {
        self.channels.iter().map(|(_, channel)| channel)
    }

    pub(crate) fn any(&self, is: impl Fn(&Channel) -> bool) -> bool {
        self.channels.iter().any(|(_, channel)| is(channel))
    }

    pub(crate) fn len(&self) -> usize {
        self.channels.len()
    }

    /// Returns the number of channels of one-way calls.
    pub(crate) fn one_way(&self) -> usize {
        self.one_way
    }
}
