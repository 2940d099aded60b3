//! The output that waits to be written: small frames gathered in one buffer, large bodies uncopied,
//! long messages in turns. Pure.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::stream;
use crate::body::{Body, Data};
use crate::deferred::Deferred;
use crate::frame::{CLOSE_FRAME, ChannelId, FRAME_OVERHEAD, FrameStatus, Side, encode_head};
use crate::stats::FrameCounts;

/// Initial size of the gathering buffer, and its size once that was too small for a batch.
const FIRST_TAIL_BYTES: usize = 1024;
const TAIL_BYTES: usize = 16 * 1024;

/// Number of bytes of waiting chunks of long messages below which more chunks are added.
const REFILL_BYTES: usize = 256 * 1024;

/// One message, or the part of one that the application passed at once.
#[derive(Debug)]
struct Message {
    body: Body,
    begins: bool,
    ends: bool,
}

/// The messages of one channel that are sent in chunks, or that wait after such a message.
#[derive(Debug)]
struct LongSend {
    channel: ChannelId,
    messages: VecDeque<(Bytes, Message)>,
}

/// The output of a connection that was not handed to the driver yet. It takes whatever is pushed,
/// and its users bound it: a server runs no handlers without [room](Self::has_room), streams and
/// one-way calls wait for it, and a client sends one request per channel, except for leased ones.
#[derive(Debug)]
pub(crate) struct Outbox {
    side: Side,
    /// Small frames, one after the other. It follows the segments.
    tail: BytesMut,
    /// There have been batches of more than a few small messages.
    busy: bool,
    /// Complete pieces of the output: full parts of the gathering buffer, and bodies.
    segments: VecDeque<Bytes>,
    /// Long messages by channel; the front one sends the next chunk.
    long: VecDeque<LongSend>,
    long_bytes: usize,
    /// Chunks of long messages that were queued and not written: end position and length of each.
    chunks: VecDeque<(u64, u64)>,
    chunk_bytes: u64,
    /// The counts by channel, if they are kept.
    pub(crate) frames: Option<Box<FrameCounts>>,
    /// The chunks that were queued since they were last counted: path, bytes, and whether the
    /// message ends.
    pub(super) cut: Vec<(Bytes, usize, bool)>,
    /// Number of bytes ever queued and ever written, which are positions in the output.
    queued: u64,
    written: u64,
    /// Longer messages are sent in frames of `chunk` bytes; those of up to `whole` bytes, which is
    /// only slightly more, are sent in one.
    chunk: usize,
    whole: usize,
    closing: bool,
}

impl Outbox {
    pub(crate) fn new(side: Side, chunk: usize) -> Self {
        Self {
            side,
            tail: BytesMut::new(),
            busy: false,
            segments: VecDeque::new(),
            long: VecDeque::new(),
            long_bytes: 0,
            chunks: VecDeque::new(),
            chunk_bytes: 0,
            frames: None,
            cut: Vec::new(),
            queued: 0,
            written: 0,
            chunk,
            whole: chunk,
            closing: false,
        }
    }

    /// Returns the size up to which messages are never sent in chunks.
    pub(crate) fn chunk(&self) -> usize {
        self.chunk
    }

    /// Allows frames of up to `max_frame` bytes and messages in chunks, which the peer joins from
    /// now on.
    pub(crate) fn set_chunk(&mut self, chunk: usize, max_frame: usize) {
        self.chunk = chunk.min(max_frame);
        self.whole = chunk.saturating_add(chunk / 16).min(max_frame);
    }

    /// Queues a message, or a part of one. Returns the position of its end in the output, unless it
    /// is sent in chunks, in turns with others.
    #[inline]
    pub(crate) fn push(
        &mut self,
        channel: ChannelId,
        path: &[u8],
        data: &mut impl Data,
        begins: bool,
        ends: bool,
    ) -> Option<u64> {
        // A short message waits behind a long one of its channel, or frames of the two would mix.
        if data.len() > self.whole || (!self.long.is_empty() && self.is_behind(channel)) {
            let body = data.take();
            let message = Message { body, begins, ends };
            self.push_long(channel, path, message);
            return None;
        }
        let status = FrameStatus::of(self.side, begins, ends);
        self.push_frame(status, path, channel, data);
        Some(self.queued)
    }

    fn push_long(&mut self, channel: ChannelId, path: &[u8], message: Message) {
        self.long_bytes += message.body.len();
        let message = (Bytes::copy_from_slice(path), message);
        match self.long.iter_mut().find(|send| send.channel == channel) {
            Some(send) => send.messages.push_back(message),
            None => self.long.push_back(LongSend {
                channel,
                messages: VecDeque::from([message]),
            }),
        }
    }

    #[inline]
    fn push_frame<D: Data>(
        &mut self,
        status: FrameStatus,
        path: &[u8],
        channel: ChannelId,
        data: &mut D,
    ) {
        let [head, tail] = data.pieces();
        let len = head.len() + tail.len();
        if let Some(frames) = &mut self.frames {
            frames.add(channel, FRAME_OVERHEAD + path.len() + len, status.ends());
        }
        self.queued += (FRAME_OVERHEAD + path.len() + len) as u64;
        if head.len() <= D::COPIED_BYTES && tail.len() <= D::COPIED_BYTES {
            self.make_room(FRAME_OVERHEAD + path.len() + len);
            encode_head(&mut self.tail, status, path, channel, len);
            self.tail.extend_from_slice(head);
            self.tail.extend_from_slice(tail);
            return;
        }
        // One of the pieces is larger, so at most one of them is copied.
        self.make_room(FRAME_OVERHEAD + path.len() + D::COPIED_BYTES);
        encode_head(&mut self.tail, status, path, channel, len);
        for index in 0..2 {
            // Copied pieces stay with the caller, which drops them without the connection's lock.
            let piece = data.pieces()[index];
            if piece.len() <= D::COPIED_BYTES {
                self.tail.extend_from_slice(piece);
            } else {
                // What was gathered comes before the piece.
                if !self.tail.is_empty() {
                    self.segments.push_back(self.tail.split().freeze());
                }
                self.segments.push_back(data.take_piece(index));
            }
        }
    }

    /// Makes room in the gathering buffer.
    #[inline]
    fn make_room(&mut self, bytes: usize) {
        if self.tail.capacity() - self.tail.len() < bytes {
            // The buffer has frames and is full: there are more of them than one or two.
            self.busy |= !self.tail.is_empty();
            let room = if self.busy {
                TAIL_BYTES
            } else {
                FIRST_TAIL_BYTES
            };
            self.tail.reserve(bytes.max(room));
        }
    }

    /// Removes the one message of a channel if nothing of it was sent. Returns `true` if it did.
    pub(crate) fn withdraw(&mut self, channel: ChannelId, deferred: &mut Deferred) -> bool {
        // `begins` is cleared with the first chunk. The rest of an earlier message, or its last
        // frame, has it cleared as well, so nothing is withdrawn from behind it.
        let unsent = |send: &LongSend| send.messages.iter().all(|(_, message)| message.begins);
        let index = self
            .long
            .iter()
            .position(|send| send.channel == channel && unsent(send));
        let Some(send) = index.and_then(|index| self.long.remove(index)) else {
            return false;
        };
        self.long_bytes -= send
            .messages
            .iter()
            .map(|(_, message)| message.body.len())
            .sum::<usize>();
        for (_, message) in send.messages {
            deferred.drop_body(message.body);
        }
        true
    }

    /// Queues the frame that ends the connection, after everything else.
    pub(crate) fn push_close(&mut self) {
        self.closing = true;
    }

    /// Adds chunks of the long messages in turns while few of their bytes wait. The frames in
    /// between have their own limit.
    fn refill(&mut self, deferred: &mut Deferred) {
        while self.chunk_bytes < REFILL_BYTES as u64 {
            let Some(mut send) = self.long.pop_front() else {
                break;
            };
            let Some((path, message)) = send.messages.front_mut() else {
                continue;
            };
            // Only the first chunk of a whole message can be taken for the beginning of a stream.
            let is_cut = message.begins && message.ends && message.body.len() > self.chunk;
            let most = if is_cut && stream::looks_like_stream(&message.body) {
                1
            } else {
                self.chunk
            };
            let mut chunk = message.body.split_to(message.body.len().min(most));
            let rest = !message.body.is_empty();
            let status = FrameStatus::of(self.side, message.begins, message.ends && !rest);
            message.begins = false;
            let path = path.clone();
            if !rest {
                send.messages.pop_front();
            }
            self.long_bytes -= chunk.len();
            let before = self.queued;
            self.push_frame(status, &path, send.channel, &mut chunk);
            deferred.drop_body(chunk);
            let bytes = self.queued - before;
            let ends = status.ends();
            self.cut
                .push((path, usize::try_from(bytes).unwrap_or(usize::MAX), ends));
            self.chunks.push_back((self.queued, bytes));
            self.chunk_bytes += bytes;
            // The channel goes to the end of the queue, so that long messages take turns.
            if !send.messages.is_empty() {
                self.long.push_back(send);
            }
        }
        // Nothing may follow status 8, so it waits for the last chunk.
        if self.closing && self.long.is_empty() {
            self.closing = false;
            self.tail.extend_from_slice(&CLOSE_FRAME);
            self.queued += CLOSE_FRAME.len() as u64;
        }
    }

    /// Moves what is ready into `batch`; the driver writes it without holding the connection.
    pub(crate) fn take_into(&mut self, batch: &mut VecDeque<Bytes>, deferred: &mut Deferred) {
        if !self.long.is_empty() || self.closing {
            self.refill(deferred);
        }
        if !self.segments.is_empty() {
            batch.append(&mut self.segments);
        }
        if !self.tail.is_empty() {
            batch.push_back(self.tail.split().freeze());
        }
    }

    /// Returns the number of bytes of all frames that were queued.
    pub(crate) fn queued(&self) -> u64 {
        self.queued
    }

    /// Returns `true` if nothing waits to be taken or written.
    pub(crate) fn is_empty(&self) -> bool {
        self.unwritten() == 0 && self.long.is_empty() && !self.closing
    }

    /// Returns the number of bytes that were not written yet, including those of long messages.
    pub(crate) fn unsent(&self) -> usize {
        usize::try_from(self.unwritten())
            .unwrap_or(usize::MAX)
            .saturating_add(self.long_bytes)
    }

    /// Returns `true` if at most `most` bytes wait, not counting the rest of the longest message.
    /// That one is sent in turns with the others and should not prevent the peer from requesting
    /// them.
    pub(crate) fn has_room(&self, most: usize) -> bool {
        let unsent = self.unsent();
        unsent <= most || unsent - self.longest() <= most
    }

    #[cold]
    fn longest(&self) -> usize {
        let messages = self.long.iter().filter_map(|send| send.messages.front());
        messages
            .map(|(_, message)| message.body.len())
            .max()
            .unwrap_or(0)
    }

    fn unwritten(&self) -> u64 {
        self.queued - self.written
    }

    /// Returns the number of bytes waiting to be written that are not chunks of long messages.
    pub(crate) fn in_between(&self) -> usize {
        // A part of the first chunk may already be written. It is still counted in `chunk_bytes`,
        // so it is added here, and the difference cannot be negative.
        let first = self.chunks.front();
        let begun = first.map_or(0, |(end, len)| self.written.saturating_sub(end - len));
        let between = self.unwritten() + begun - self.chunk_bytes;
        usize::try_from(between).unwrap_or(usize::MAX)
    }

    /// Returns `true` if data sent on this channel now would wait for the end of a long message.
    pub(crate) fn is_behind(&self, channel: ChannelId) -> bool {
        self.long.iter().any(|send| send.channel == channel)
    }

    pub(crate) fn on_written(&mut self, bytes: usize) {
        self.written += bytes as u64;
        while let Some(&(end, bytes)) = self.chunks.front()
            && end <= self.written
        {
            self.chunks.pop_front();
            self.chunk_bytes -= bytes;
        }
    }

    /// Returns `true` if the byte before this position of the output has been written.
    pub(crate) fn has_written(&self, position: u64) -> bool {
        self.written >= position
    }

    /// Releases the memory of the gathering buffer if the outbox is empty.
    pub(crate) fn release_when_empty(&mut self) {
        if self.is_empty() {
            self.tail = BytesMut::new();
            self.busy = false;
            self.segments = VecDeque::new();
            self.chunks = VecDeque::new();
            self.cut = Vec::new();
        }
    }
}
