//! Output of the codecs that are implemented by other crates.
//!
//! The encoder of bincode has a separate output, which implements that crate's writer.

use bytes::{Bytes, BytesMut};

use crate::payload;

/// Size, in bytes, below which writes are gathered first: formats write a byte or two at a time,
/// and a growable buffer takes several times as long for each as an array.
const GATHERED_BYTES: usize = 128;

/// The output of a codec: encoded bytes are appended to `head`, except for a large payload that
/// nothing follows yet.
pub(super) struct Output<'a> {
    head: &'a mut BytesMut,
    tail: Option<Bytes>,
    /// The bytes after those of `head` and `tail`, up to `filled`.
    gathered: [u8; GATHERED_BYTES],
    filled: usize,
    split: bool,
}

impl<'a> Output<'a> {
    /// Creates an output that appends everything to `head`.
    pub(super) fn whole(head: &'a mut BytesMut) -> Self {
        Self {
            head,
            tail: None,
            gathered: [0; GATHERED_BYTES],
            filled: 0,
            split: false,
        }
    }

    /// Creates an output that keeps a large payload at the very end separate.
    pub(super) fn split(head: &'a mut BytesMut) -> Self {
        Self {
            split: true,
            ..Self::whole(head)
        }
    }

    /// Finishes the output and returns the payload that was kept separate.
    pub(super) fn finish(mut self) -> Option<Bytes> {
        if self.filled > 0 {
            self.flush();
        }
        self.tail
    }

    #[inline]
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let end = self.filled + bytes.len();
        match self.gathered.get_mut(self.filled..end) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.filled = end;
            }
            None => self.push_large(bytes),
        }
    }

    fn push_large(&mut self, bytes: &[u8]) {
        self.flush();
        if self.split {
            self.tail = payload::take_offered(bytes);
        }
        if self.tail.is_none() {
            self.head.extend_from_slice(bytes);
        }
    }

    /// Appends the gathered bytes. A payload that they follow has to be copied after all.
    fn flush(&mut self) {
        if let Some(tail) = self.tail.take() {
            self.head.extend_from_slice(&tail);
        }
        let gathered = self.gathered.get(..self.filled).unwrap_or_default();
        self.head.extend_from_slice(gathered);
        self.filled = 0;
    }
}
