//! Frames, the units on the wire: their layout, the nine statuses, and the constants. Pure.
//!
//! ```text
//! offset  size  field
//! 0       1     status, 0..8
//! 1       n     path, any bytes but 0
//! 1+n     1     0
//! 2+n     4     channel id, big-endian
//! 6+n     4     body length L, big-endian, 1..=16 MiB
//! 10+n    L     body
//! ```

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

/// Number of bytes of a frame in addition to its path and its body: status, NUL, channel id,
/// length.
pub const FRAME_OVERHEAD: usize = 10;

/// Maximum size of the body of one frame in the protocol: 16 MiB. Source: recording `echo_16mib`.
pub const MAX_FRAME_BYTES: usize = 16 * 1024 * 1024;

/// Maximum length of a path that a sender may use, query included. Source: recordings `path_2048`
/// and `path_2049`.
pub const MAX_PATH_BYTES: usize = 2048;

/// The complete frame with status 8: "close the connection".
pub(crate) const CLOSE_FRAME: [u8; FRAME_OVERHEAD] = [8, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The id of a channel of a connection. Within a channel, replies come in the order of the
/// requests.
///
/// Channel 0 exists from the start; the others are granted by the server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ChannelId(pub u32);

impl ChannelId {
    /// The channel that exists from the start; clients open the others through it.
    pub const ZERO: Self = Self(0);
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The side of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The side that connected: it sends requests.
    Client,
    /// The side that accepted: it sends replies.
    Server,
}

/// The first byte of a frame: its sender, and its position in its message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the protocol has nine statuses and no way to add one"
)]
pub enum FrameStatus {
    /// The first frame of a request; more follow.
    RequestFirst = 0,
    /// The only frame of a request.
    RequestOnly = 1,
    /// A further frame of a request; more follow.
    RequestMore = 2,
    /// The last frame of a request that began with [`RequestFirst`](Self::RequestFirst).
    RequestLast = 3,
    /// The first frame of a reply; more follow.
    ReplyFirst = 4,
    /// The only frame of a reply.
    ReplyOnly = 5,
    /// A further frame of a reply; more follow.
    ReplyMore = 6,
    /// The last frame of a reply that began with [`ReplyFirst`](Self::ReplyFirst).
    ReplyLast = 7,
    /// Close the connection. Takes effect as soon as the byte is read.
    Close = 8,
}

impl FrameStatus {
    /// Returns the status with this number, or `None` for 9..=255, which no peer may send.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::RequestFirst,
            1 => Self::RequestOnly,
            2 => Self::RequestMore,
            3 => Self::RequestLast,
            4 => Self::ReplyFirst,
            5 => Self::ReplyOnly,
            6 => Self::ReplyMore,
            7 => Self::ReplyLast,
            8 => Self::Close,
            _ => return None,
        })
    }

    /// Returns the status of a frame that `sender` sends, depending on whether it begins and
    /// whether it ends its message.
    #[must_use]
    pub const fn of(sender: Side, begins: bool, ends: bool) -> Self {
        match (sender, begins, ends) {
            (Side::Client, true, false) => Self::RequestFirst,
            (Side::Client, true, true) => Self::RequestOnly,
            (Side::Client, false, false) => Self::RequestMore,
            (Side::Client, false, true) => Self::RequestLast,
            (Side::Server, true, false) => Self::ReplyFirst,
            (Side::Server, true, true) => Self::ReplyOnly,
            (Side::Server, false, false) => Self::ReplyMore,
            (Side::Server, false, true) => Self::ReplyLast,
        }
    }

    /// Returns `true` if this frame begins a message.
    #[must_use]
    pub const fn begins(self) -> bool {
        matches!(
            self,
            Self::RequestFirst | Self::RequestOnly | Self::ReplyFirst | Self::ReplyOnly
        )
    }

    /// Returns `true` if this frame ends its message.
    #[must_use]
    pub const fn ends(self) -> bool {
        matches!(
            self,
            Self::RequestOnly | Self::RequestLast | Self::ReplyOnly | Self::ReplyLast
        )
    }

    /// Returns the side that may send it; `None` for [`Close`](Self::Close), which both may send.
    #[must_use]
    pub const fn sender(self) -> Option<Side> {
        match self {
            Self::RequestFirst | Self::RequestOnly | Self::RequestMore | Self::RequestLast => {
                Some(Side::Client)
            }
            Self::ReplyFirst | Self::ReplyOnly | Self::ReplyMore | Self::ReplyLast => {
                Some(Side::Server)
            }
            Self::Close => None,
        }
    }
}

/// One frame: cheap to clone, its path and body share the buffer they were read into.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "these are the fields of the protocol"
)]
pub struct Frame {
    /// The sender of the frame, and its position in its message.
    pub status: FrameStatus,
    /// The path as on the wire: with its query, not decoded.
    pub path: Bytes,
    /// The channel of the frame.
    pub channel: ChannelId,
    /// The data; never empty except with [`FrameStatus::Close`].
    pub body: Bytes,
}

/// A frame whose path is borrowed from the decoder.
#[derive(Debug)]
pub(crate) struct FrameRef<'a> {
    pub(crate) status: FrameStatus,
    pub(crate) path: &'a Bytes,
    pub(crate) channel: ChannelId,
    pub(crate) body: Bytes,
}

/// A reply whose path is borrowed from the decoder.
#[derive(Debug)]
pub(crate) struct ReplyRef<'a> {
    pub(crate) status: FrameStatus,
    pub(crate) path: &'a [u8],
    pub(crate) channel: ChannelId,
    pub(crate) body: Bytes,
}

impl<'a> From<FrameRef<'a>> for ReplyRef<'a> {
    fn from(frame: FrameRef<'a>) -> Self {
        Self {
            status: frame.status,
            path: frame.path,
            channel: frame.channel,
            body: frame.body,
        }
    }
}

impl FrameRef<'_> {
    pub(crate) fn into_owned(self) -> Frame {
        let Self {
            status,
            path,
            channel,
            body,
        } = self;
        Frame {
            status,
            path: path.clone(),
            channel,
            body,
        }
    }
}

impl Frame {
    #[cfg(any(test, fuzzing))]
    pub(crate) fn borrowed(&self) -> FrameRef<'_> {
        FrameRef {
            status: self.status,
            path: &self.path,
            channel: self.channel,
            body: self.body.clone(),
        }
    }

    /// Appends the bytes of this frame. The caller must respect the limits of path and body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.reserve(FRAME_OVERHEAD + self.path.len() + self.body.len());
        encode_head(out, self.status, &self.path, self.channel, self.body.len());
        out.put_slice(&self.body);
    }
}

/// Appends all fields of a frame except its body.
#[inline]
pub(crate) fn encode_head(
    out: &mut BytesMut,
    status: FrameStatus,
    path: &[u8],
    channel: ChannelId,
    body_len: usize,
) {
    debug_assert!(!path.contains(&0), "a NUL in a path would forge frames");
    debug_assert!(body_len <= MAX_FRAME_BYTES);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "bodies are cut at 16 MiB before they get here"
    )]
    let (id, len) = (channel.0.to_be_bytes(), (body_len as u32).to_be_bytes());
    out.put_u8(status as u8);
    out.extend_from_slice(path);
    // Appended at once, because each append checks the capacity.
    out.extend_from_slice(&[
        0, id[0], id[1], id[2], id[3], len[0], len[1], len[2], len[3],
    ]);
}
