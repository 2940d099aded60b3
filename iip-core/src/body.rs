//! The data of a message to send. Pure.

use bytes::{Bytes, BytesMut};

use crate::scratch;

/// Space for the data of many small messages, see [`Body::encode`].
const ENCODE_BYTES: usize = 16 * 1024;

/// The data of a message to send, in one piece or two.
///
/// Two pieces are sent as one message, so that a small head can precede large data without copying
/// either.
///
/// ```
/// use bytes::Bytes;
/// use iip_core::Body;
///
/// let body = Body::split("head", Bytes::from(vec![0; 1024 * 1024]));
/// assert_eq!(body.len(), 4 + 1024 * 1024);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    head: Bytes,
    // Boxed, because few bodies have one, and a body is moved several times on its way. Never
    // empty.
    tail: Option<Box<Bytes>>,
}

impl Body {
    /// Creates a body of `head` followed by `tail`.
    #[must_use]
    pub fn split(head: impl Into<Bytes>, tail: impl Into<Bytes>) -> Self {
        let tail = tail.into();
        Self {
            head: head.into(),
            tail: (!tail.is_empty()).then(|| Box::new(tail)),
        }
    }

    fn tail(&self) -> &[u8] {
        self.tail.as_ref().map_or(&[], |tail| tail)
    }

    fn take_tail(&mut self) -> Bytes {
        self.tail.take().map(|tail| *tail).unwrap_or_default()
    }

    /// Creates a body of the data that `encode` writes into a buffer, followed by the piece that it
    /// returns.
    ///
    /// The buffer belongs to the thread and is reused; small data is split off, not copied.
    ///
    /// # Errors
    ///
    /// Returns the error of `encode`.
    #[inline]
    pub fn encode<E>(encode: impl FnOnce(&mut BytesMut) -> Result<Bytes, E>) -> Result<Self, E> {
        scratch::with(|buffer| {
            if buffer.capacity() < ENCODE_BYTES / 64 {
                buffer.reserve(ENCODE_BYTES);
            }
            let tail = encode(buffer)?;
            // The remainder of a large buffer would keep all of its memory.
            let head = if buffer.capacity() > scratch::KEPT_BYTES {
                std::mem::take(buffer)
            } else {
                buffer.split()
            };
            Ok(Self::split(head, tail))
        })
    }

    /// Returns the number of bytes of both pieces.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len() + self.tail().len()
    }

    /// Returns `true` if the body has no data.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn first(&self) -> Option<u8> {
        self.head.first().or_else(|| self.tail().first()).copied()
    }

    /// Returns the body with one byte put before it. Data that had to be copied stays in `self`.
    pub(crate) fn marked(&mut self, byte: u8) -> Self {
        let (head, tail) = (&self.head, self.tail.take());
        if tail.is_none() && head.len() > Self::COPIED_BYTES {
            return Self::split(
                Bytes::copy_from_slice(&[byte]),
                std::mem::take(&mut self.head),
            );
        }
        let mut marked = BytesMut::with_capacity(1 + head.len());
        marked.extend_from_slice(&[byte]);
        marked.extend_from_slice(head);
        Self {
            head: marked.freeze(),
            tail,
        }
    }

    /// Restores the data of [`marked`](Self::marked) that was not taken.
    pub(crate) fn unmark(&mut self, marked: Self) {
        self.tail = marked.tail;
    }

    /// Cuts off the first `at` bytes, at most all there are.
    pub(crate) fn split_to(&mut self, at: usize) -> Self {
        if at <= self.head.len() {
            return self.head.split_to(at).into();
        }
        let head = std::mem::take(&mut self.head);
        let mut rest = self.take_tail();
        let tail = rest.split_to((at - head.len()).min(rest.len()));
        *self = Self::split(Bytes::new(), rest);
        Self::split(head, tail)
    }

    #[cfg(test)]
    pub(crate) fn into_pieces(mut self) -> [Bytes; 2] {
        let tail = self.take_tail();
        [self.head, tail]
    }
}

/// The data of a message to send: small data is copied into the write buffer, larger data is moved.
pub(crate) trait Data {
    /// Maximum size of a piece that is copied after its head into the write buffer; larger pieces
    /// are sent without a copy.
    const COPIED_BYTES: usize;

    /// Returns both pieces.
    fn pieces(&self) -> [&[u8]; 2];

    /// Takes all of the data and leaves none.
    fn take(&mut self) -> Body;

    /// Takes one of the pieces, which is larger than [`COPIED_BYTES`](Self::COPIED_BYTES).
    fn take_piece(&mut self, index: usize) -> Bytes;

    #[inline]
    fn len(&self) -> usize {
        let [head, tail] = self.pieces();
        head.len() + tail.len()
    }
}

impl Data for Body {
    const COPIED_BYTES: usize = 1536;

    #[inline]
    fn pieces(&self) -> [&[u8]; 2] {
        [&self.head, self.tail()]
    }

    #[inline]
    fn take(&mut self) -> Body {
        std::mem::take(self)
    }

    fn take_piece(&mut self, index: usize) -> Bytes {
        if index == 0 {
            std::mem::take(&mut self.head)
        } else {
            self.take_tail()
        }
    }
}

/// Data in a buffer that is reused for the next message, and the piece that follows it.
#[derive(Debug)]
pub(crate) struct Encoded<'a> {
    pub(crate) head: &'a mut BytesMut,
    pub(crate) tail: Bytes,
}

impl Encoded<'_> {
    /// Runs `work` with the data that `encode` writes into the buffer of the thread.
    #[inline]
    pub(crate) fn with<T, E>(
        encode: impl FnOnce(&mut BytesMut) -> Result<Bytes, E>,
        work: impl FnOnce(&mut Encoded<'_>) -> T,
    ) -> Result<T, E> {
        scratch::with(|head| {
            let tail = encode(head)?;
            Ok(work(&mut Encoded { head, tail }))
        })
    }
}

impl Data for Encoded<'_> {
    // A larger limit than usual, because a piece that is not copied takes the buffer with it.
    const COPIED_BYTES: usize = 4096;

    #[inline]
    fn pieces(&self) -> [&[u8]; 2] {
        [self.head, &self.tail]
    }

    fn take(&mut self) -> Body {
        let head = if self.head.len() <= Self::COPIED_BYTES {
            let head = Bytes::copy_from_slice(self.head);
            self.head.clear();
            head
        } else {
            std::mem::take(self.head).freeze()
        };
        Body::split(head, std::mem::take(&mut self.tail))
    }

    fn take_piece(&mut self, index: usize) -> Bytes {
        if index == 0 {
            std::mem::take(self.head).freeze()
        } else {
            std::mem::take(&mut self.tail)
        }
    }
}

impl From<Bytes> for Body {
    #[inline]
    fn from(head: Bytes) -> Self {
        Self { head, tail: None }
    }
}

impl From<Vec<u8>> for Body {
    fn from(data: Vec<u8>) -> Self {
        Bytes::from(data).into()
    }
}

impl From<String> for Body {
    fn from(data: String) -> Self {
        Bytes::from(data).into()
    }
}

impl From<&'static str> for Body {
    fn from(data: &'static str) -> Self {
        Bytes::from(data).into()
    }
}

impl From<&'static [u8]> for Body {
    fn from(data: &'static [u8]) -> Self {
        Bytes::from(data).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cutting_anywhere_gives_the_same_bytes() {
        for at in 0..=8 {
            let mut rest = Body::split("abc", "defg");
            let first = rest.split_to(at);
            let joined: Vec<u8> = first
                .into_pieces()
                .iter()
                .chain(&rest.into_pieces())
                .flatten()
                .copied()
                .collect();
            assert_eq!(joined, b"abcdefg", "cut at {at}");
        }
    }

    #[test]
    fn the_buffer_of_a_thread_does_not_keep_the_memory_of_a_large_message() {
        const SIZE: usize = 4 << 20;
        let body = Body::encode::<()>(|out| {
            out.reserve(SIZE + 100);
            out.resize(SIZE, 7);
            Ok(Bytes::new())
        });
        let [head, _] = body.expect("nothing fails").into_pieces();
        assert_eq!(head.len(), SIZE);
        assert!(head.is_unique(), "nobody else has a part of it");
        let small = Body::encode::<()>(|out| {
            out.resize(100, 7);
            Ok(Bytes::new())
        });
        assert_eq!(small.map(|body| body.len()), Ok(100));
        scratch::with(|buffer| assert!(buffer.capacity() <= scratch::KEPT_BYTES));
    }

    #[test]
    fn an_encoded_head_is_taken_whole_and_leaves_an_empty_buffer() {
        for size in [0, 1, Encoded::COPIED_BYTES, Encoded::COPIED_BYTES + 1] {
            let mut buffer = BytesMut::from(&vec![7; size][..]);
            let mut data = Encoded {
                head: &mut buffer,
                tail: Bytes::from_static(b"tail"),
            };
            assert_eq!(data.len(), size + 4);
            assert_eq!(data.take(), Body::split(vec![7; size], "tail"));
            assert_eq!(data.len(), 0);
        }
    }
}
