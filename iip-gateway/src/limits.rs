//! The limits of a gateway toward its clients.

use std::time::Duration;

/// Limits of a gateway toward its clients: numbers, sizes and times. The defaults are suitable for
/// a public gateway.
///
/// A value outside its range, or a time of less than 1 ms, is an error when the gateway is built,
/// or when the server of [`Http`](crate::Http) is bound.
///
/// After a reload, changed limits apply to connections that are accepted afterwards; the sizes of
/// bodies apply to every further request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub(crate) max_connections: usize,
    pub(crate) max_connections_per_address: usize,
    pub(crate) max_head_bytes: usize,
    pub(crate) max_headers: usize,
    pub(crate) max_body_bytes: usize,
    pub(crate) max_buffered_bytes: usize,
    pub(crate) max_streams: u32,
    pub(crate) max_resets: u64,
    pub(crate) first_byte_timeout: Duration,
    pub(crate) head_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) min_body_rate: usize,
    pub(crate) idle_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) park_after: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
            max_connections_per_address: 1_000,
            max_head_bytes: 16 << 10,
            max_headers: 100,
            max_body_bytes: 16 << 20,
            max_buffered_bytes: 256 << 20,
            max_streams: 100,
            max_resets: 200,
            first_byte_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            min_body_rate: 1 << 10,
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            park_after: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// Returns the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the maximum number of connections of all listeners together. Further ones are closed at
    /// once. Default: 20,000; at least 1.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// Sets the maximum number of connections from one IPv4 address or one IPv6 network of 64 bits.
    /// Further ones are closed at once. Default: 1,000. 0 means no limit, for gateways behind
    /// another proxy. Networks that are [trusted](crate::GatewayBuilder::trust) have no limit.
    #[must_use]
    pub fn max_connections_per_address(mut self, connections: usize) -> Self {
        self.max_connections_per_address = connections;
        self
    }

    /// Sets the maximum size of the head of a request, in bytes; for HTTP/2, that of the decoded
    /// headers. Default: 16 KiB; from 8 KiB to 1 MiB. Requests beyond it get status 431.
    #[must_use]
    pub fn max_head_bytes(mut self, bytes: usize) -> Self {
        self.max_head_bytes = bytes;
        self
    }

    /// Sets the maximum number of headers of an HTTP/1 request. Default: 100; from 1 to 10,000.
    /// Requests with more get status 431.
    #[must_use]
    pub fn max_headers(mut self, headers: usize) -> Self {
        self.max_headers = headers;
        self
    }

    /// Sets the maximum size of the body of a request, in bytes. Default: 16 MiB; at most 64 MiB.
    /// Requests with a larger body get status 413.
    #[must_use]
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.max_body_bytes = bytes;
        self
    }

    /// Sets the maximum size of all bodies that are being received together, in bytes. Default: 256
    /// MiB. Requests beyond it get status 503. The first 64 KiB of each body do not count.
    #[must_use]
    pub fn max_buffered_bytes(mut self, bytes: usize) -> Self {
        self.max_buffered_bytes = bytes;
        self
    }

    /// Sets the maximum number of concurrent streams of an HTTP/2 connection. Default: 100; at
    /// least 1.
    #[must_use]
    pub fn max_streams(mut self, streams: u32) -> Self {
        self.max_streams = streams;
        self
    }

    /// Sets the number of requests that an HTTP/2 client may cancel on one connection, in addition
    /// to the number of its completed requests. Default: 200. The connection is closed when it
    /// cancels more.
    #[must_use]
    pub fn max_resets(mut self, resets: u64) -> Self {
        self.max_resets = resets;
        self
    }

    /// Sets the time within which the first byte of a connection must arrive. Default: 10 s.
    #[must_use]
    pub fn first_byte_timeout(mut self, timeout: Duration) -> Self {
        self.first_byte_timeout = timeout;
        self
    }

    /// Sets the time within which the head of a request must arrive, starting with its first byte.
    /// Default: 10 s.
    #[must_use]
    pub fn head_timeout(mut self, timeout: Duration) -> Self {
        self.head_timeout = timeout;
        self
    }

    /// Sets the time over which the rate of a body is measured. Default: 10 s. Requests below the
    /// rate of [`min_body_rate`](Self::min_body_rate) get status 408.
    #[must_use]
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.body_timeout = timeout;
        self
    }

    /// Sets the minimum rate at which the body of a request must arrive, in bytes per second.
    /// Default: 1 KiB.
    #[must_use]
    pub fn min_body_rate(mut self, bytes_per_second: usize) -> Self {
        self.min_body_rate = bytes_per_second;
        self
    }

    /// Sets the time that a connection without a request stays open after its last one. Default:
    /// 75 s.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Sets the maximum time during which a client accepts no byte of its replies; its connection
    /// is then closed. Default: 30 s.
    #[must_use]
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// Sets the time after which an idle HTTP/1 connection releases its buffers. Default: 5 s.
    #[must_use]
    pub fn park_after(mut self, time: Duration) -> Self {
        self.park_after = time;
        self
    }

    /// Returns the first invalid option, with the reason.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        let counts = [
            ("max_connections", self.max_connections, 1, usize::MAX),
            ("max_head_bytes", self.max_head_bytes, 8 << 10, 1 << 20),
            ("max_headers", self.max_headers, 1, 10_000),
            ("max_body_bytes", self.max_body_bytes, 0, 64 << 20),
            (
                "max_streams",
                usize::try_from(self.max_streams).unwrap_or(0),
                1,
                usize::MAX,
            ),
        ];
        for (option, count, min, max) in counts {
            if count < min {
                return Err((
                    option,
                    format!("{count} is too small: write at least {min}"),
                ));
            }
            if count > max {
                return Err((option, format!("{count} is too large: write at most {max}")));
            }
        }
        let times = [
            ("first_byte_timeout", self.first_byte_timeout),
            ("head_timeout", self.head_timeout),
            ("body_timeout", self.body_timeout),
            ("idle_timeout", self.idle_timeout),
            ("write_timeout", self.write_timeout),
            ("park_after", self.park_after),
        ];
        for (option, time) in times {
            if time < Duration::from_millis(1) {
                return Err((option, format!("{time:?} is too short: write at least 1ms")));
            }
        }
        Ok(())
    }
}
