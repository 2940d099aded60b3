//! Lines in a stream of bytes.

use bytes::{Bytes, BytesMut};

/// Splits chunks of bytes into lines of a limited length.
#[derive(Debug)]
pub(crate) struct Lines {
    buffer: BytesMut,
    /// The number of bytes at the begin of the buffer that contain no end of a line.
    scanned: usize,
    limit: usize,
}

/// A line is longer than the limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TooLong;

impl Lines {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            scanned: 0,
            limit,
        }
    }

    /// Appends a chunk. Call [`next`](Self::next) before the next one: that bounds the buffer.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// Returns the next line that is complete and not blank, without its end.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, TooLong> {
        loop {
            let unseen = self.buffer.get(self.scanned..).unwrap_or_default();
            let Some(offset) = unseen.iter().position(|byte| *byte == b'\n') else {
                self.scanned = self.buffer.len();
                return match self.scanned > self.limit {
                    true => Err(TooLong),
                    false => Ok(None),
                };
            };
            let mut line = self.buffer.split_to(self.scanned + offset + 1);
            self.scanned = 0;
            line.truncate(line.len() - 1);
            if line.len() > self.limit {
                return Err(TooLong);
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some(line.freeze()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(lines: &mut Lines) -> Result<Vec<Bytes>, TooLong> {
        let mut found = Vec::new();
        while let Some(line) = lines.next()? {
            found.push(line);
        }
        Ok(found)
    }

    #[test]
    fn a_line_that_never_ends_is_an_error() {
        let mut lines = Lines::new(10);
        lines.push(b"0123456789");
        assert_eq!(lines.next(), Ok(None));
        lines.push(b"0");
        assert_eq!(lines.next(), Err(TooLong));
        let mut lines = Lines::new(10);
        lines.push(b"0123456789\n01234567890\n");
        assert_eq!(lines.next(), Ok(Some(Bytes::from_static(b"0123456789"))));
        assert_eq!(lines.next(), Err(TooLong));
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_the_chunks(
            text in "[ab \n]{0,60}",
            cuts in proptest::collection::vec(0_usize..60, 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut lines = Lines::new(100);
            let mut found = Vec::new();
            for pair in cuts.windows(2) {
                lines.push(&text.as_bytes()[pair[0]..pair[1]]);
                found.extend(all(&mut lines).unwrap());
            }
            let complete = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
            let expected: Vec<&str> =
                complete.lines().filter(|line| !line.trim().is_empty()).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
