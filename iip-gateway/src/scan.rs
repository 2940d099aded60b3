//! A check of the bytes of an HTTP/1 connection before hyper parses them. It finds forms that hyper
//! accepts although other parsers may read them differently: both lengths, repeated lengths, line
//! ends without a carriage return. Pure.
//!
//! It follows the boundaries of messages, so it also knows whether a connection is between two of
//! them. Forms that hyper rejects need no check here: hyper closes the connection.

use memchr::memchr;

/// The fault in the head of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    BareLineFeed,
    Folded,
    Nul,
    BothLengths,
    RepeatedLength,
    BadLength,
    BadTransferEncoding,
}

impl Fault {
    pub(crate) fn detail(self) -> &'static str {
        match self {
            Self::BareLineFeed => "a line of the head ends without a carriage return",
            Self::Folded => "a header is continued in another line",
            Self::Nul => "the head contains a NUL",
            Self::BothLengths => "the request has both Content-Length and Transfer-Encoding",
            Self::RepeatedLength => "Content-Length occurs more than once",
            Self::BadLength => "Content-Length is not a number",
            Self::BadTransferEncoding => "Transfer-Encoding is not `chunked`",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Before a request line.
    Between,
    /// In a head.
    Head,
    /// In a body of known length, or the data of a chunk with the line end after it.
    Data { left: u64, chunked: bool },
    /// In the line before the data of a chunk.
    ChunkSize,
    /// In the trailers after the last chunk.
    Trailers,
    /// The connection ends after the current request.
    Ended,
}

/// The lengths of the body that the head has declared so far.
#[derive(Default, Debug)]
struct Lengths {
    content_lengths: usize,
    length: u64,
    transfer_encodings: usize,
}

/// Follows the bytes of one connection.
#[derive(Debug)]
pub(crate) struct Scanner {
    state: State,
    /// The beginning of a line that has not ended yet.
    line: Vec<u8>,
    /// A longer line is left to hyper, which rejects the head.
    max_line: usize,
    /// Number of heads that have begun.
    heads: u64,
    lengths: Lengths,
    fault: Option<(u64, Fault)>,
}

impl Scanner {
    pub(crate) fn new(max_line: usize) -> Self {
        Self {
            state: State::Between,
            line: Vec::new(),
            max_line,
            heads: 0,
            lengths: Lengths::default(),
            fault: None,
        }
    }

    /// Returns `true` if the last request has arrived completely, and nothing of the next one.
    pub(crate) fn is_between(&self) -> bool {
        self.state == State::Between && self.line.is_empty()
    }

    /// Returns `true` if a part of a head has arrived.
    pub(crate) fn is_in_head(&self) -> bool {
        self.state == State::Head || (self.state == State::Between && !self.line.is_empty())
    }

    /// Returns the first faulty head, by its number, counted from 1.
    pub(crate) fn fault(&self) -> Option<(u64, Fault)> {
        self.fault
    }

    /// Reads the next bytes of the connection.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Ended => return,
                State::Data { left, chunked } => {
                    let available = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                    let taken = available.min(*left);
                    *left -= taken;
                    if *left == 0 {
                        self.state = if *chunked {
                            State::ChunkSize
                        } else {
                            State::Between
                        };
                    }
                    let taken = usize::try_from(taken).unwrap_or(bytes.len());
                    bytes = bytes.get(taken..).unwrap_or_default();
                }
                _ => {
                    let Some(end) = memchr(b'\n', bytes) else {
                        return self.keep(bytes);
                    };
                    let (line, rest) = bytes.split_at(end);
                    bytes = rest.get(1..).unwrap_or_default();
                    if self.line.is_empty() {
                        self.take_line(line);
                    } else {
                        self.keep(line);
                        let mut line = std::mem::take(&mut self.line);
                        self.take_line(&line);
                        line.clear();
                        self.line = line;
                    }
                }
            }
        }
    }

    fn keep(&mut self, part: &[u8]) {
        if self.line.len() + part.len() > self.max_line {
            self.line = Vec::new();
            self.state = State::Ended;
            return;
        }
        self.line.extend_from_slice(part);
    }

    /// Reads a line without its line feed.
    fn take_line(&mut self, line: &[u8]) {
        let (line, fault) = match line.strip_suffix(b"\r") {
            Some(line) => (line, None),
            None => (line, Some(Fault::BareLineFeed)),
        };
        match self.state {
            State::Between => {
                // Empty lines before a request are skipped, as hyper does.
                if !line.is_empty() || fault.is_some() {
                    self.heads += 1;
                    self.lengths = Lengths::default();
                    self.state = State::Head;
                    self.note(fault.or_else(|| nul_in(line)));
                }
            }
            State::Head if line.is_empty() => {
                self.note(fault);
                self.end_of_head();
            }
            State::Head => {
                let found = self.header(line);
                self.note(fault.or(found));
            }
            State::ChunkSize => self.chunk_size(line),
            State::Trailers if line.is_empty() => self.state = State::Between,
            State::Trailers | State::Data { .. } | State::Ended => {}
        }
    }

    fn note(&mut self, fault: Option<Fault>) {
        if let (None, Some(fault)) = (self.fault, fault) {
            self.fault = Some((self.heads, fault));
            // A rejected request is the last one.
            self.state = State::Ended;
        }
    }

    fn header(&mut self, line: &[u8]) -> Option<Fault> {
        match line.first() {
            Some(b' ' | b'\t') => return Some(Fault::Folded),
            Some(b'c' | b'C' | b't' | b'T') => {}
            _ => return nul_in(line),
        }
        let colon = memchr(b':', line)?;
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            self.lengths.content_lengths += 1;
            if self.lengths.content_lengths > 1 {
                return Some(Fault::RepeatedLength);
            }
            match digits(value, 10) {
                Some(length) => self.lengths.length = length,
                None => return Some(Fault::BadLength),
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.lengths.transfer_encodings += 1;
            if self.lengths.transfer_encodings > 1 || !value.eq_ignore_ascii_case(b"chunked") {
                return Some(Fault::BadTransferEncoding);
            }
        }
        nul_in(line)
    }

    fn end_of_head(&mut self) {
        let lengths = std::mem::take(&mut self.lengths);
        self.state = match (lengths.content_lengths, lengths.transfer_encodings) {
            _ if self.fault.is_some() => State::Ended,
            (1.., 1..) => {
                self.note(Some(Fault::BothLengths));
                State::Ended
            }
            (_, 1..) => State::ChunkSize,
            _ if lengths.length == 0 => State::Between,
            _ => State::Data {
                left: lengths.length,
                chunked: false,
            },
        };
    }

    fn chunk_size(&mut self, line: &[u8]) {
        let end = memchr(b';', line).unwrap_or(line.len());
        let size = line.get(..end).unwrap_or_default().trim_ascii_end();
        self.state = match digits(size, 16) {
            Some(0) => State::Trailers,
            // The line end after the data counts as data.
            Some(size) => State::Data {
                left: size.saturating_add(2),
                chunked: true,
            },
            // hyper ends the connection.
            None => State::Ended,
        };
    }
}

fn nul_in(line: &[u8]) -> Option<Fault> {
    memchr(0, line).map(|_| Fault::Nul)
}

/// Parses a number without a sign.
fn digits(text: &[u8], radix: u32) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let is_digit = |c: char| c.is_digit(radix);
    if text.is_empty() || !text.chars().all(is_digit) {
        return None;
    }
    u64::from_str_radix(text, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the bytes in pieces of each length and returns the outcome, which must not depend on
    /// it.
    fn scanned(bytes: &[u8]) -> (bool, u64, Option<(u64, Fault)>) {
        let outcome = |size: usize| {
            let mut scanner = Scanner::new(1024);
            bytes.chunks(size).for_each(|piece| scanner.feed(piece));
            (scanner.is_between(), scanner.heads, scanner.fault())
        };
        let whole = outcome(bytes.len());
        for size in 1..bytes.len() {
            assert_eq!(outcome(size), whole, "{size}: {}", bytes.escape_ascii());
        }
        whole
    }

    #[test]
    fn boundaries_of_messages_are_followed() {
        for (bytes, between, heads) in [
            (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], true, 1),
            (
                b"\r\n\r\nGET / HTTP/1.1\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n",
                true,
                2,
            ),
            (b"POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nab", false, 1),
            (
                b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET",
                false,
                1,
            ),
            (
                b"POST / HTTP/1.1\r\nContent-Length:3\r\n\r\na\n\nGET / HTTP/1.1\r\n\r\n",
                true,
                2,
            ),
            (
                b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n\
                  A;x=1\r\n\n\n\n\n\n\n\n\n\n\n\r\n0\r\nA: b\r\n\r\nGET / HTTP/1.1\r\n\r\n",
                true,
                2,
            ),
        ] {
            assert_eq!(
                scanned(bytes),
                (between, heads, None),
                "{}",
                bytes.escape_ascii()
            );
        }
    }

    #[test]
    fn ambiguous_heads_are_found() {
        let both = b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
        let reverse = b"POST / HTTP/1.1\r\nTRANSFER-ENCODING: chunked\r\ncontent-length:3\r\n\r\n";
        for (bytes, head, fault) in [
            (&both[..], 1, Fault::BothLengths),
            (reverse, 1, Fault::BothLengths),
            (
                b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nA: b\n\r\n",
                2,
                Fault::BareLineFeed,
            ),
            (b"GET / HTTP/1.1\n\n", 1, Fault::BareLineFeed),
            (b"\nGET / HTTP/1.1\r\n", 1, Fault::BareLineFeed),
            (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 1, Fault::Folded),
            (b"GET / HTTP/1.1\r\nA: b\0\r\n\r\n", 1, Fault::Nul),
            (b"GET /\0 HTTP/1.1\r\n", 1, Fault::Nul),
            (
                b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n",
                1,
                Fault::RepeatedLength,
            ),
            (
                b"GET / HTTP/1.1\r\nContent-Length: +1\r\n",
                1,
                Fault::BadLength,
            ),
            (
                b"GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n",
                1,
                Fault::BadLength,
            ),
            (
                b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n",
                1,
                Fault::BadTransferEncoding,
            ),
            (
                b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
                1,
                Fault::BadTransferEncoding,
            ),
        ] {
            assert_eq!(
                scanned(bytes).2,
                Some((head, fault)),
                "{}",
                bytes.escape_ascii()
            );
        }
    }

    #[test]
    fn a_long_line_is_not_kept() {
        let mut scanner = Scanner::new(16);
        for _ in 0..10 {
            scanner.feed(b"GET /long");
        }
        assert!(scanner.line.capacity() < 64);
        assert_eq!(scanner.fault(), None);
    }
}
