//! Static description of a method: its names, its path and its policies.

use std::fmt;
use std::time::Duration;

pub use iip_core::OnCancel;
use iip_core::path::StaticPath;
use iip_schema::Description;

use crate::codec::CodecId;
use crate::status::{Execution, Status};

/// Time after which a second attempt is made of a call of an idempotent method that has no reply
/// yet; the first reply counts, and the other attempt is cancelled.
///
/// Hedging makes a few more calls to shorten the wait for occasional slow ones. Second attempts are
/// paid from the client's [`RetryBudget`](crate::RetryBudget), so they stay few whatever the
/// servers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Hedge {
    /// After this time; with zero both attempts start at once, if the budget allows it.
    After(Duration),
    /// Once the call has taken longer than this percentage of the client's previous calls of this
    /// method: 95 hedges about every twentieth call. From 1 to 99; other values count as the
    /// nearest. The client looks at its last 256 calls, and does not hedge before it has seen 32.
    Percentile(u8),
}

/// Order in which a server rejects calls when it is overloaded.
///
/// It has no effect while there is capacity, and it is not an order of execution: admitted calls
/// run concurrently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum Priority {
    /// Rejected first: once three quarters of a limit shared with other methods are in use, that of
    /// its service or of the server.
    Low,
    /// Admitted up to the limit. The default.
    #[default]
    Normal,
    /// Admitted even beyond a limit that the server determined itself ([`Concurrency::Auto`]). A
    /// configured limit applies to it too. For the few calls that must get through; a server full
    /// of them is not protected.
    High,
}

/// Limit on the number of calls that run at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Concurrency {
    /// At most this many; 0 counts as 1.
    AtMost(u32),
    /// A limit that the server determines from how long calls take, so that they do not slow each
    /// other down. For methods that compute, or that wait for something that gets slower with more
    /// calls; not for those that wait for an event.
    Auto,
}

/// Encoding of the arguments and the result of a method in its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Format {
    /// Inside the envelope, in the codec of the service or of the client. Such a method also
    /// replies to plain JSON with plain JSON, unless it takes protobuf messages.
    #[default]
    Envelope,
    /// Plain JSON in both directions, without an envelope: for peers that know only IIP.
    Json,
    /// The only argument and the result are the raw bytes of the messages, without an envelope.
    Raw,
}

/// One method of a service, as described by `#[service]`: its path, the names of its arguments and
/// the settings of its attributes.
///
/// Built in a constant:
///
/// ```
/// use std::time::Duration;
/// use iip_rpc::method::MethodDescriptor;
///
/// const HELLO: &MethodDescriptor =
///     &MethodDescriptor::new("Greeter", "hello", "/greeter/hello", &["name"])
///         .timeout(Duration::from_millis(500))
///         .idempotent();
///
/// assert_eq!(HELLO.to_string(), "Greeter.hello");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodDescriptor {
    service: &'static str,
    name: &'static str,
    path: StaticPath,
    args: &'static [&'static str],
    format: Format,
    codec: Option<CodecId>,
    timeout: Option<Duration>,
    idempotent: bool,
    on_cancel: OnCancel,
    one_way: bool,
    requests: bool,
    replies: bool,
    hedge: Option<Hedge>,
    priority: Priority,
    max_concurrency: Option<Concurrency>,
    auth: Option<&'static str>,
    described: Described,
}

/// The description of the service. Two descriptors are equal whatever describes them.
#[derive(Clone, Copy)]
struct Described(Option<fn() -> Description>);

impl PartialEq for Described {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Described {}

impl fmt::Debug for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "yes" } else { "no" })
    }
}

impl MethodDescriptor {
    /// Describes a method with the default policies: enveloped, without a timeout, not idempotent
    /// and not hedged, aborted on cancellation, with normal priority, without a limit or a
    /// requirement.
    ///
    /// `args` are the names of the arguments in their order; JSON uses them as keys.
    ///
    /// # Panics
    ///
    /// `path` cannot be called, see [`check_path`](iip_core::path::check_path).
    #[must_use]
    pub const fn new(
        service: &'static str,
        name: &'static str,
        path: &'static str,
        args: &'static [&'static str],
    ) -> Self {
        Self {
            service,
            name,
            path: StaticPath::new(path),
            args,
            format: Format::Envelope,
            codec: None,
            timeout: None,
            idempotent: false,
            on_cancel: OnCancel::Abort,
            one_way: false,
            requests: false,
            replies: false,
            hedge: None,
            priority: Priority::Normal,
            max_concurrency: None,
            auth: None,
            described: Described(None),
        }
    }

    /// Declares that callers send a stream of messages after the arguments.
    #[must_use]
    pub const fn streams_requests(mut self) -> Self {
        self.requests = true;
        self
    }

    /// Declares that the method replies with a stream of messages.
    #[must_use]
    pub const fn streams_replies(mut self) -> Self {
        self.replies = true;
        self
    }

    /// Makes the method one-way: callers do not wait for it, and it sends no reply. It runs to
    /// completion, even if its caller goes away.
    #[must_use]
    pub const fn one_way(mut self) -> Self {
        self.one_way = true;
        self.on_cancel = OnCancel::RunToEnd;
        self
    }

    /// Makes the only argument and the result the raw bytes of the messages: to call, or to
    /// replace, a service that does not use this crate.
    #[must_use]
    pub const fn raw(mut self) -> Self {
        self.format = Format::Raw;
        self
    }

    /// Makes arguments and results plain JSON without an envelope: to call, or to replace, a JSON
    /// service on plain IIP.
    #[must_use]
    pub const fn json(mut self) -> Self {
        self.format = Format::Json;
        self
    }

    /// Sets the codec of calls of this method, if their server supports it; it takes precedence
    /// over the client's codec. Unset by default.
    ///
    /// [`CodecId::PROTOBUF`] is then the only codec: the argument and the result are `Proto`
    /// messages, which cannot be encoded in another.
    #[must_use]
    pub const fn codec(mut self, codec: CodecId) -> Self {
        self.codec = Some(codec);
        self
    }

    /// Sets the timeout of a call of this method, from the call to the reply, if the caller sets
    /// none. Unset by default: then the client's [`timeout`](crate::ClientBuilder::timeout)
    /// applies.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Declares that running the method twice does no more than running it once: clients retry a
    /// call that may already have run, see [`RetryPolicy`](crate::RetryPolicy).
    #[must_use]
    pub const fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Sets the behavior of a running handler when its caller goes away. [`OnCancel::Abort`] by
    /// default.
    #[must_use]
    pub const fn on_cancel(mut self, on_cancel: OnCancel) -> Self {
        self.on_cancel = on_cancel;
        self
    }

    /// Sets when a second attempt of a call is made. Only idempotent methods are hedged; for others
    /// it is ignored. Unset by default.
    #[must_use]
    pub const fn hedge(mut self, hedge: Hedge) -> Self {
        self.hedge = Some(hedge);
        self
    }

    /// Sets which calls the server rejects first under load. [`Priority::Normal`] by default.
    #[must_use]
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Sets the maximum number of calls of this method that a server runs at a time; further ones
    /// are rejected before they run. Unset by default: then only the limits of the service, the
    /// server and the connection apply.
    #[must_use]
    pub const fn max_concurrency(mut self, calls: Concurrency) -> Self {
        self.max_concurrency = Some(calls);
        self
    }

    /// Sets a requirement for callers, in a form that the program's own checks understand. This
    /// crate does not enforce it: a check reads it from
    /// [`CallContext::method`](crate::CallContext::method). Unset by default.
    #[must_use]
    pub const fn auth(mut self, requirement: &'static str) -> Self {
        self.auth = Some(requirement);
        self
    }

    /// Sets the function that describes the service of this method. Peers compare what it returns
    /// with what the other side has, see [`schema`](crate::schema). Unset by default: then nothing
    /// is compared.
    #[must_use]
    pub const fn described_by(mut self, description: fn() -> Description) -> Self {
        self.described = Described(Some(description));
        self
    }

    /// The function that describes the service of this method, if there is one.
    #[inline]
    pub(crate) const fn description_fn(&self) -> Option<fn() -> Description> {
        self.described.0
    }

    /// The full name of the service: that of the trait, unless `#[service(name = "..")]` sets
    /// another. Health, limits, metrics and traces use it.
    #[must_use]
    pub const fn service(&self) -> &'static str {
        self.service
    }

    /// The name of the method on the wire: that in the trait, unless `name` or `rename_all` sets
    /// another.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Service and method, such as `shop.v1.Orders/find`: the name of the method in metrics and
    /// spans, as OpenTelemetry defines it.
    #[must_use]
    pub fn rpc_method(&self) -> String {
        format!("{}/{}", self.service, self.name)
    }

    /// The IIP path of calls, such as `/greeter/hello`.
    #[must_use]
    pub const fn path(&self) -> &'static str {
        self.path.as_str()
    }

    pub(crate) const fn static_path(&self) -> StaticPath {
        self.path
    }

    /// The names of the arguments, in order.
    #[must_use]
    pub const fn args(&self) -> &'static [&'static str] {
        self.args
    }

    /// The encoding of arguments and results in the messages.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Returns `true` if the messages are the raw bytes of the argument and the result.
    #[must_use]
    pub const fn is_raw(&self) -> bool {
        matches!(self.format, Format::Raw)
    }

    /// Returns `true` if the messages are plain JSON without an envelope.
    #[must_use]
    pub const fn is_json(&self) -> bool {
        matches!(self.format, Format::Json)
    }

    /// Returns `true` if callers send a stream of messages after the arguments.
    #[must_use]
    pub const fn has_requests(&self) -> bool {
        self.requests
    }

    /// Returns `true` if the method replies with a stream of messages.
    #[must_use]
    pub const fn has_replies(&self) -> bool {
        self.replies
    }

    /// Returns `true` if callers do not wait for the method.
    #[must_use]
    pub const fn is_one_way(&self) -> bool {
        self.one_way
    }

    /// The codec that the attribute of the service sets for its calls, if any.
    #[must_use]
    pub const fn service_codec(&self) -> Option<CodecId> {
        self.codec
    }

    /// The reason why this method cannot be called in `codec`, if it cannot: the messages of a
    /// protobuf service cannot be encoded in another codec.
    pub(crate) fn unsupported_codec(&self, codec: CodecId) -> Option<Status> {
        if self.codec != Some(CodecId::PROTOBUF) || codec == CodecId::PROTOBUF {
            return None;
        }
        let text = format!(
            "{self} takes protobuf messages in the envelope, which have no form in {codec}; both \
             sides need the feature `codec-prost` of iip-rpc"
        );
        Some(Status::unimplemented(text).with_execution(Execution::NotExecuted))
    }

    /// The timeout that the attribute of the method sets, if any.
    #[must_use]
    pub const fn default_timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Returns `true` if a call that may already have run can be retried.
    #[must_use]
    pub const fn is_idempotent(&self) -> bool {
        self.idempotent
    }

    /// Behavior of a running handler when its caller goes away.
    #[must_use]
    pub const fn cancel_policy(&self) -> OnCancel {
        self.on_cancel
    }

    /// Time of the second attempt of a call, if the attributes of the method set it.
    #[must_use]
    pub const fn hedge_policy(&self) -> Option<Hedge> {
        self.hedge
    }

    /// Priority of the method's calls when a server is overloaded.
    #[must_use]
    pub const fn call_priority(&self) -> Priority {
        self.priority
    }

    /// Maximum number of calls of this method that a server runs at a time, if the attributes of
    /// the method set it.
    #[must_use]
    pub const fn concurrency(&self) -> Option<Concurrency> {
        self.max_concurrency
    }

    /// Requirement for callers, if the attributes of the method set one.
    #[must_use]
    pub const fn auth_requirement(&self) -> Option<&'static str> {
        self.auth
    }
}

/// `Service.method`, as it appears in errors and logs.
impl fmt::Display for MethodDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.service, self.name)
    }
}

impl Status {
    /// Prefixes the message with the name of `method`.
    #[must_use]
    pub(crate) fn in_method(self, method: &MethodDescriptor) -> Self {
        let text = format!("{method}: {}", self.message());
        self.reworded(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &MethodDescriptor =
        &MethodDescriptor::new("Store", "get", "/store/get", &["key", "version"]);
    const FULL: &MethodDescriptor = &MethodDescriptor::new("Echo", "echo", "/echo", &["body"])
        .raw()
        .codec(CodecId::MSGPACK)
        .timeout(Duration::from_millis(500))
        .idempotent()
        .on_cancel(OnCancel::RunToEnd)
        .hedge(Hedge::Percentile(95))
        .priority(Priority::High)
        .max_concurrency(Concurrency::AtMost(8))
        .auth("admin");

    #[test]
    fn a_new_descriptor_has_the_default_policies() {
        assert_eq!(PLAIN.to_string(), "Store.get");
        assert_eq!(PLAIN.path(), "/store/get");
        assert_eq!(PLAIN.args(), ["key", "version"]);
        assert_eq!(PLAIN.format(), Format::Envelope);
        assert_eq!(
            (PLAIN.service_codec(), PLAIN.default_timeout()),
            (None, None)
        );
        assert!(!PLAIN.is_idempotent() && !PLAIN.is_raw() && !PLAIN.is_json());
        assert_eq!(PLAIN.cancel_policy(), OnCancel::Abort);
        assert_eq!(PLAIN.hedge_policy(), None);
        assert_eq!(PLAIN.call_priority(), Priority::Normal);
        assert_eq!(PLAIN.concurrency(), None);
        assert_eq!(PLAIN.auth_requirement(), None);
    }

    #[test]
    fn every_setter_is_seen_by_its_getter() {
        assert_eq!((FULL.service(), FULL.name()), ("Echo", "echo"));
        assert!(FULL.is_raw() && FULL.is_idempotent());
        assert_eq!(FULL.service_codec(), Some(CodecId::MSGPACK));
        assert_eq!(FULL.default_timeout(), Some(Duration::from_millis(500)));
        assert_eq!(FULL.cancel_policy(), OnCancel::RunToEnd);
        assert_eq!(FULL.hedge_policy(), Some(Hedge::Percentile(95)));
        assert_eq!(FULL.call_priority(), Priority::High);
        assert_eq!(FULL.concurrency(), Some(Concurrency::AtMost(8)));
        assert_eq!(FULL.auth_requirement(), Some("admin"));
        assert!(FULL.json().is_json());
    }
}
