//! The options of typed services.

use std::time::Duration;

use hyper::header::{HeaderMap, HeaderName};

/// The form of integers of 64 and 128 bits in JSON.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum JsonInt64 {
    /// Numbers. Clients whose numbers are 64-bit floats, such as JavaScript, lose digits beyond
    /// 2^53.
    #[default]
    Number,
    /// Strings, such as `"9007199254740993"`. In arguments, both forms are accepted.
    String,
}

/// Options of typed services over HTTP.
///
/// Defaults: no prefix, timeouts of at most 60 s, no further headers as metadata, and no calls from
/// other origins.
///
/// ```
/// use std::time::Duration;
/// use iip_gateway::{Group, TypedOptions};
///
/// let options = TypedOptions::new()
///     .prefix("/api")
///     .max_timeout(Duration::from_secs(10))
///     .metadata("x-request-id")
///     .origin("https://app.example.com");
/// Group::new("dns://orders.:7000").typed(options);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypedOptions {
    pub(crate) prefix: String,
    pub(crate) title: String,
    pub(crate) max_timeout: Duration,
    pub(crate) metadata: Vec<HeaderName>,
    pub(crate) origins: Vec<String>,
    pub(crate) json_int64: JsonInt64,
    pub(crate) max_line_bytes: usize,
    pub(crate) max_stream_bytes: u64,
}

impl Default for TypedOptions {
    fn default() -> Self {
        Self {
            prefix: String::new(),
            title: "Services".to_owned(),
            max_timeout: Duration::from_secs(60),
            metadata: Vec::new(),
            origins: Vec::new(),
            json_int64: JsonInt64::Number,
            max_line_bytes: 1 << 20,
            max_stream_bytes: 1 << 30,
        }
    }
}

impl TypedOptions {
    /// Returns the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the path under which methods and documents are served, such as `/api`: a method is then
    /// called by `POST /api/shop.v1.Orders/find`, and the OpenAPI document is
    /// `/api/openapi.json`. Default: empty. A slash at the end is ignored.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        let prefix = prefix.into();
        self.prefix = prefix.trim_end_matches('/').to_owned();
        self
    }

    /// Sets the title of the OpenAPI document. Default: `Services`.
    #[must_use]
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    /// Sets the maximum timeout that a client may request with `Request-Timeout`, for a call with
    /// one reply. Longer timeouts are reduced to it. Default: 60 s.
    #[must_use]
    pub fn max_timeout(mut self, timeout: Duration) -> Self {
        self.max_timeout = timeout;
        self
    }

    /// Passes on this header as metadata of calls, under its name in lower case. Default: only
    /// `Idempotency-Key`, `traceparent` and `tracestate` are passed on. A name that is not valid
    /// for headers is ignored.
    #[must_use]
    pub fn metadata(mut self, header: &str) -> Self {
        self.metadata.extend(header.parse::<HeaderName>());
        self
    }

    /// Allows scripts of pages from this origin, such as `https://app.example.com`, to make calls
    /// (CORS). `*` allows all origins. Default: none. Browsers send no cookies with such calls.
    #[must_use]
    pub fn origin(mut self, origin: impl Into<String>) -> Self {
        self.origins.push(origin.into());
        self
    }

    /// Sets how integers of 64 and 128 bits are written in results. Default:
    /// [`JsonInt64::Number`].
    #[must_use]
    pub fn json_int64(mut self, form: JsonInt64) -> Self {
        self.json_int64 = form;
        self
    }

    /// Sets the maximum size of a line of a stream from a client, in bytes. Default: 1 MiB. A
    /// longer line fails the request with status 413.
    #[must_use]
    pub fn max_line_bytes(mut self, bytes: usize) -> Self {
        self.max_line_bytes = bytes;
        self
    }

    /// Sets the maximum size of a whole stream from a client, in bytes. Default: 1 GiB. A longer
    /// stream fails the request with status 413. The limit `max_body_bytes` of the gateway applies
    /// only to other bodies.
    #[must_use]
    pub fn max_stream_bytes(mut self, bytes: u64) -> Self {
        self.max_stream_bytes = bytes;
        self
    }

    /// Returns the first invalid option, with the reason.
    pub(crate) fn check(&self) -> Result<(), String> {
        let prefix = &self.prefix;
        let is_plain =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'.' | b'_');
        if !(prefix.is_empty() || prefix.starts_with('/')) || !prefix.bytes().all(is_plain) {
            return Err(format!(
                "prefix: `{prefix}` is not a path such as `/api`, of letters, digits, `-`, `.`, \
                 `_` and `/`"
            ));
        }
        if prefix
            .split('/')
            .any(|segment| matches!(segment, "." | ".."))
        {
            return Err(format!("prefix: `{prefix}` has a dot segment"));
        }
        if self.max_timeout < Duration::from_millis(1) {
            return Err("max_timeout: write at least 1ms".to_owned());
        }
        if self.max_line_bytes == 0 || self.max_line_bytes > 64 << 20 {
            return Err("max_line_bytes: write at least 1, and at most 64MiB".to_owned());
        }
        for origin in &self.origins {
            if origin != "*" && (!origin.contains("://") || origin.ends_with('/')) {
                return Err(format!(
                    "origins: `{origin}` is not an origin, such as `https://app.example.com`"
                ));
            }
        }
        Ok(())
    }

    /// Returns the headers that become metadata, with their values.
    pub(crate) fn metadata_of<'a>(
        &'a self,
        headers: &'a HeaderMap,
    ) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        const ALWAYS: [&str; 3] = ["idempotency-key", "traceparent", "tracestate"];
        let own = self.metadata.iter().map(HeaderName::as_str);
        let own = own.filter(|name| !ALWAYS.contains(name));
        let names = ALWAYS.into_iter().chain(own);
        names.flat_map(move |name| {
            let values = headers.get_all(name).iter();
            values.map(move |value| (name, value.as_bytes()))
        })
    }
}
