//! Decoding of bytes into frames, within the limits. Pure.
//!
//! The decoder owns the receive buffer. The driver reads directly into it. Large bodies are
//! returned as slices of the buffer; small ones are copied.

use bytes::{Buf, Bytes, BytesMut};

use crate::error::ProtocolError;
use crate::foreign;
use crate::frame::{ChannelId, FRAME_OVERHEAD, Frame, FrameRef, FrameStatus, ReplyRef, Side};
use crate::limits::Limits;

/// Initial room for one read: enough for a few small calls.
const FIRST_READ_BYTES: usize = 4 * 1024;

/// Room for one read once a read has filled its room.
const READ_BYTES: usize = 64 * 1024;

/// Room for one read once larger bodies have arrived: with bodies of 13.6 KB, room of 64 KiB cost a
/// third of the calls per second.
pub(crate) const BULK_READ_BYTES: usize = 256 * 1024;

/// Minimum size of a body that stays in the memory it was read into; smaller ones are copied, so
/// that they do not keep the buffer.
pub(crate) const SHARE_MIN_BYTES: usize = 1024;

/// Maximum size of a body that is copied into a piece of memory with others, so that one that is
/// kept for long keeps no more than such a piece.
const SMALL_BYTES: usize = 256;
const SMALL_PIECE_BYTES: usize = 1024;

/// The fields of a frame that are known before its body is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameHead {
    pub(crate) status: FrameStatus,
    pub(crate) channel: ChannelId,
}

/// The progress of an unfinished frame, which decides the timeout that applies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Partial {
    /// Between two frames.
    Nothing,
    /// Within status, path, channel id or length.
    Head,
    /// The head is complete, the body is not.
    Body,
}

/// A decoder that converts the bytes of one direction into frames.
///
/// ```
/// use iip_core::decoder::Decoder;
/// use iip_core::frame::Side;
/// use iip_core::limits::Limits;
///
/// let mut decoder = Decoder::new(Side::Server, &Limits::default());
/// decoder.feed(b"\x01/echo\0\0\0\0\x01\0\0\0\x02hi");
/// let frame = decoder.next_frame()?.expect("the frame is complete");
/// assert_eq!(&frame.body[..], b"hi");
/// # Ok::<(), iip_core::ProtocolError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    side: Side,
    max_path: usize,
    max_body: usize,
    buf: BytesMut,
    /// Memory that small bodies are copied into.
    small: BytesMut,
    /// The position up to which the NUL was searched, so that no byte is searched twice.
    searched: usize,
    /// The path of the previous frame.
    last_path: Bytes,
    /// The path of the previous reply.
    reply_path: Vec<u8>,
    /// Bodies that were returned may still be in the buffer's memory, which had this size.
    shares_buffer: bool,
    size: usize,
    /// A read has filled its room.
    busy: bool,
    /// Larger bodies have arrived.
    bulk: bool,
    /// The head of the frame at the front of the buffer, once it is complete, the length of its
    /// path, and the length of the frame.
    head: Option<(FrameHead, usize, usize)>,
    /// The head at the front of the buffer while only its length is missing.
    early: Option<FrameHead>,
    /// A frame was completed since the last call of `take_advanced`.
    advanced: bool,
    /// Status 8 was read and not returned yet.
    closed: bool,
    /// A frame was completed: the peer speaks IIP.
    begun: bool,
}

impl Decoder {
    /// Creates a decoder for the bytes that `side` receives.
    #[must_use]
    pub fn new(side: Side, limits: &Limits) -> Self {
        Self {
            side,
            max_path: limits.get_max_path_bytes(),
            max_body: limits.get_max_frame_bytes(),
            buf: BytesMut::new(),
            small: BytesMut::new(),
            searched: 1,
            last_path: Bytes::new(),
            reply_path: Vec::new(),
            shares_buffer: false,
            size: 0,
            busy: false,
            bulk: false,
            head: None,
            early: None,
            advanced: false,
            closed: false,
            begun: false,
        }
    }

    /// Appends bytes that were read elsewhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// Returns `true` if the buffer has no space left for a read after the bodies that share it.
    pub(crate) fn is_used_up(&self) -> bool {
        self.shares_buffer && self.buf.capacity() - self.buf.len() < self.wanted()
    }

    /// Returns the buffer to read into, with room for one read.
    ///
    /// The buffer of a body grows with the bytes that have arrived, at most doubling: the length
    /// field alone reserves nothing.
    pub(crate) fn read_buf(&mut self) -> &mut BytesMut {
        if self.shares_buffer && self.buf.is_empty() {
            // After the bodies are dropped, the same memory is reused and is still in the cache.
            self.shares_buffer = !self.buf.try_reclaim(self.size);
        }
        let wanted = self.wanted();
        if self.buf.capacity() - self.buf.len() < wanted {
            self.buf.reserve(wanted.max(self.room()));
            self.size = self.buf.capacity();
            self.shares_buffer = false;
        }
        &mut self.buf
    }

    fn room(&self) -> usize {
        match (self.bulk, self.busy) {
            (true, _) => BULK_READ_BYTES,
            (false, true) => READ_BYTES,
            (false, false) => FIRST_READ_BYTES,
        }
    }

    /// Returns the room below which the buffer is enlarged.
    fn wanted(&self) -> usize {
        let missing = self
            .head
            .map_or(0, |(_, _, total)| total.saturating_sub(self.buf.len()));
        // At most as much as has arrived of the frame, so that a peer that announces a large body
        // makes this side allocate no more than twice what it has sent, or the usual room.
        missing.min(self.buf.len()).max(self.room() / 2)
    }

    /// Records that bytes were read into the buffer.
    pub(crate) fn on_read(&mut self) {
        self.busy |= self.buf.len() == self.buf.capacity();
    }

    /// Returns the number of bytes that were read and not returned.
    pub(crate) fn len(&self) -> usize {
        self.buf.len()
    }

    /// Releases the memory of the buffer while the connection is idle.
    pub(crate) fn release_when_empty(&mut self) {
        if self.buf.is_empty() {
            self.buf = BytesMut::new();
            self.small = BytesMut::new();
            self.reply_path = Vec::new();
            self.size = 0;
            self.busy = false;
            self.bulk = false;
        }
    }

    /// Returns the next complete frame, or `None` when more bytes are needed.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are not IIP, exceed a limit, or come from the wrong side: the connection
    /// must be closed. Checks are made in the order of the protocol, and before the body has
    /// arrived.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, ProtocolError> {
        Ok(self.next()?.map(FrameRef::into_owned))
    }

    /// Like [`next_frame`](Self::next_frame), but the path is borrowed.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<FrameRef<'_>>, ProtocolError> {
        // Status 8 has no further fields, and is returned after the frames before it.
        let Some((head, path_len, total)) = self.complete()? else {
            return Ok(std::mem::take(&mut self.closed).then(close_frame));
        };
        // A path that repeats is the same buffer, by which the state machine recognizes it.
        let path = &self.buf[1..=path_len];
        if self.last_path != path {
            self.last_path = Bytes::copy_from_slice(path);
        }
        let body = self.take_body(path_len, total);
        Ok(Some(FrameRef {
            status: head.status,
            path: &self.last_path,
            channel: head.channel,
            body,
        }))
    }

    /// Like [`next`](Self::next), but for a client, which compares the paths of replies and does
    /// not keep them.
    #[inline]
    pub(crate) fn next_reply(&mut self) -> Result<Option<ReplyRef<'_>>, ProtocolError> {
        let Some((head, path_len, total)) = self.complete()? else {
            return Ok(std::mem::take(&mut self.closed).then(|| close_frame().into()));
        };
        self.reply_path.clear();
        self.reply_path.extend_from_slice(&self.buf[1..=path_len]);
        let body = self.take_body(path_len, total);
        Ok(Some(ReplyRef {
            status: head.status,
            path: &self.reply_path,
            channel: head.channel,
            body,
        }))
    }

    /// Returns the head, the length of the path, and the length of the frame at the front of the
    /// buffer, if it is complete.
    #[inline]
    fn complete(&mut self) -> Result<Option<(FrameHead, usize, usize)>, ProtocolError> {
        if self.head.is_none() && !self.parse_head()? {
            return Ok(None);
        }
        let Some((head, path_len, total)) = self.head else {
            return Ok(None);
        };
        if self.buf.len() < total {
            return Ok(None);
        }
        self.head = None;
        self.searched = 1;
        self.advanced = true;
        self.begun = true;
        Ok(Some((head, path_len, total)))
    }

    /// Takes a complete frame off the front of the buffer and returns its body.
    #[inline]
    fn take_body(&mut self, path_len: usize, total: usize) -> Bytes {
        let start = path_len + FRAME_OVERHEAD;
        if total - start < SHARE_MIN_BYTES {
            let body = copy(&mut self.small, &self.buf[start..total]);
            self.buf.advance(total);
            body
        } else {
            self.shares_buffer = true;
            self.bulk = true;
            self.buf.advance(start);
            self.buf.split_to(total - start).freeze()
        }
    }

    /// Parses the head at the front of the buffer, if it is complete.
    fn parse_head(&mut self) -> Result<bool, ProtocolError> {
        let Some(&first) = self.buf.first() else {
            return Ok(false);
        };
        // Go waits for the NUL before it rejects a status above 8; an immediate error is better for
        // a peer that speaks text or TLS.
        let status = FrameStatus::from_byte(first).ok_or(ProtocolError::UnknownStatus(first))?;
        if status == FrameStatus::Close {
            // Bytes after it are ignored.
            self.buf.clear();
            self.closed = true;
            return Ok(false);
        }
        if status.sender() == Some(self.side) {
            return Err(ProtocolError::WrongDirection(status));
        }
        let Some(nul) = self.find_nul()? else {
            return Ok(false);
        };
        let Some(fixed) = self.buf.get(nul + 1..nul + 9) else {
            // The next search begins at the NUL and finds it at once.
            self.searched = nul;
            // Go checks the channel before the length has arrived: recording
            // bad_c2s_unknown_channel_header_only.
            self.early = self.buf.get(nul + 1..nul + 5).map(|id| FrameHead {
                status,
                channel: channel_id(id),
            });
            return Ok(false);
        };
        let channel = channel_id(fixed);
        let body_len = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]) as usize;
        if body_len == 0 {
            return Err(ProtocolError::EmptyBody);
        }
        if body_len > self.max_body {
            return Err(ProtocolError::FrameTooLarge {
                size: body_len,
                limit: self.max_body,
            });
        }
        self.early = None;
        self.head = Some((FrameHead { status, channel }, nul - 1, nul + 9 + body_len));
        Ok(true)
    }

    /// Returns the position of the NUL that ends the path at the front of the buffer.
    #[inline]
    fn find_nul(&mut self) -> Result<Option<usize>, ProtocolError> {
        // Frames of a connection mostly repeat the previous path. It has no NUL in it, so the one
        // after it is the first. A client leaves this path empty.
        let repeated = self.last_path.len() + 1;
        if self.buf.get(repeated) == Some(&0) && self.buf[1..repeated] == self.last_path {
            return Ok(Some(repeated));
        }
        // The longest path, with the status before it and the NUL after it.
        let window = &self.buf[..self.buf.len().min(self.max_path + 2)];
        let unseen = self.searched.min(window.len());
        match memchr::memchr(0, &window[unseen..]) {
            Some(at) => Ok(Some(unseen + at)),
            None if window.len() == self.max_path + 2 => Err(ProtocolError::PathTooLong {
                limit: self.max_path,
            }),
            None => {
                self.searched = window.len();
                Ok(None)
            }
        }
    }

    /// Returns the head of the unfinished frame, so that it can be checked before its body arrives.
    pub(crate) fn unfinished_head(&self) -> Option<FrameHead> {
        self.head.map(|(head, _, _)| head).or(self.early)
    }

    /// Returns the protocol that the peer seems to speak, if it has not sent one frame and the
    /// protocol is not IIP.
    pub(crate) fn other_protocol(&self) -> Option<ProtocolError> {
        if self.begun {
            return None;
        }
        foreign::recognize(self.side, &self.buf)
    }

    /// Returns `true` if a frame was completed since the last call of this function.
    pub(crate) fn take_advanced(&mut self) -> bool {
        std::mem::take(&mut self.advanced)
    }

    /// Returns the part of an unfinished frame that has arrived.
    pub(crate) fn partial(&self) -> Partial {
        match (&self.head, self.buf.is_empty()) {
            (Some(_), _) => Partial::Body,
            (None, false) => Partial::Head,
            (None, true) => Partial::Nothing,
        }
    }
}

/// Copies small data, very small data together with others.
#[inline]
fn copy(small: &mut BytesMut, data: &[u8]) -> Bytes {
    if data.len() > SMALL_BYTES {
        return Bytes::copy_from_slice(data);
    }
    if small.capacity() < data.len() {
        small.reserve(SMALL_PIECE_BYTES);
    }
    small.extend_from_slice(data);
    small.split().freeze()
}

/// Returns the frame for status 8, which has no other field.
fn close_frame() -> FrameRef<'static> {
    static NO_PATH: Bytes = Bytes::new();
    FrameRef {
        status: FrameStatus::Close,
        path: &NO_PATH,
        channel: ChannelId::ZERO,
        body: Bytes::new(),
    }
}

/// Returns the big-endian channel id at the front of `bytes`, which has at least four bytes.
fn channel_id(bytes: &[u8]) -> ChannelId {
    ChannelId(
        bytes
            .iter()
            .take(4)
            .fold(0, |id, &byte| id << 8 | u32::from(byte)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_8_is_handed_out_once_and_nothing_behind_it_counts() {
        let mut decoder = Decoder::new(Side::Client, &Limits::default());
        decoder.feed(&[8, 5, b'/', 0]);
        let frame = decoder.next_frame().unwrap().unwrap();
        assert_eq!(frame.status, FrameStatus::Close);
        assert_eq!(decoder.next_frame(), Ok(None));
    }
}
