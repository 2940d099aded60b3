//! The data of a message on its way out. Pure.

use bytes::Bytes;

/// The data of a message to send, in one piece or two.
///
/// Two pieces leave as one message: a small head can stand before large data without copying either.
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
    tail: Bytes,
}

impl Body {
    /// `tail` behind `head`.
    #[must_use]
    pub fn split(head: impl Into<Bytes>, tail: impl Into<Bytes>) -> Self {
        Self {
            head: head.into(),
            tail: tail.into(),
        }
    }

    /// Bytes of both pieces.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// Has it no data?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Cuts off the first `at` bytes, at most all there are.
    pub(crate) fn split_to(&mut self, at: usize) -> Self {
        if at <= self.head.len() {
            return self.head.split_to(at).into();
        }
        let head = std::mem::take(&mut self.head);
        let tail = self.tail.split_to((at - head.len()).min(self.tail.len()));
        Self { head, tail }
    }

    #[inline]
    pub(crate) fn into_pieces(self) -> [Bytes; 2] {
        [self.head, self.tail]
    }
}

impl From<Bytes> for Body {
    #[inline]
    fn from(head: Bytes) -> Self {
        Self {
            head,
            tail: Bytes::new(),
        }
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
}
