//! Output of the binary codecs.

use bytes::{Bytes, BytesMut};

use crate::payload;

/// The output of a codec: encoded bytes are appended to `head`, except for a large payload that
/// nothing follows yet.
pub(super) struct Output<'a> {
    head: &'a mut BytesMut,
    tail: Option<Bytes>,
    split: bool,
}

impl<'a> Output<'a> {
    /// Creates an output that appends everything to `head`, or keeps a large payload at the very
    /// end separate if `split` is set.
    #[inline]
    pub(super) fn new(head: &'a mut BytesMut, split: bool) -> Self {
        Self {
            head,
            tail: None,
            split,
        }
    }

    /// Finishes the output and returns the payload that was kept separate.
    #[inline]
    pub(super) fn finish(self) -> Option<Bytes> {
        self.tail
    }

    /// The number of bytes that were written, and those of `head` before them.
    #[cfg(feature = "codec-bincode")]
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.head.len() + self.tail.as_ref().map_or(0, Bytes::len)
    }

    #[inline]
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.whole().extend_from_slice(bytes);
    }

    /// Returns the payload whose bytes these are, if it can be [kept](Self::keep) separate.
    #[inline]
    pub(super) fn payload(&self, bytes: &[u8]) -> Option<Bytes> {
        if self.split {
            payload::take_offered(bytes)
        } else {
            None
        }
    }

    /// Appends a payload, which is copied only if something follows it.
    #[inline]
    pub(super) fn keep(&mut self, payload: Bytes) {
        self.whole();
        self.tail = Some(payload);
    }

    /// Returns the buffer with everything that was written.
    #[inline]
    pub(super) fn whole(&mut self) -> &mut BytesMut {
        if self.tail.is_some() {
            self.join();
        }
        self.head
    }

    /// Appends the payload, which has to be copied after all because something follows it.
    #[cold]
    fn join(&mut self) {
        if let Some(tail) = self.tail.take() {
            self.head.extend_from_slice(&tail);
        }
    }
}
