//! What is known about a method before any call of it: its names, its path and its policies.

use std::fmt;
use std::time::Duration;

use iip_core::path::StaticPath;

use crate::codec::CodecId;
use crate::status::{Execution, Status};

/// What happens to a running handler when its caller goes away: the caller dropped the call, its
/// time ran out, or the connection was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OnCancel {
    /// The handler's future is dropped at its next await. The default, and right for everything
    /// that may stop anywhere.
    #[default]
    Abort,
    /// The handler goes on and can see in its call context that nobody waits any more; it decides
    /// itself when to stop.
    Token,
    /// The handler runs to its end as if nothing had happened, and its answer is thrown away. For
    /// work that must not be left half done.
    RunToEnd,
}

/// When a call of an idempotent method that has no answer yet is made a second time; the first
/// answer counts, and the other attempt is cancelled.
///
/// It trades a few more calls for a shorter wait behind the occasional slow one. Second attempts
/// are paid from the client's [`RetryBudget`](crate::RetryBudget), so they stay few whatever the
/// servers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Hedge {
    /// After this time; zero makes both attempts at once, as far as the budget allows.
    After(Duration),
    /// Once it has taken longer than so many of 100 calls of this method that the client made
    /// before: 95 hedges about every twentieth call. From 1 to 99; others are taken for the
    /// nearest. The client looks at its last 256 calls, and does not hedge before it has seen 32.
    Percentile(u8),
}

/// Which calls a server gives up first when it has too much to do.
///
/// It decides nothing as long as there is room, and it is no order of execution: calls that were
/// let in run side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum Priority {
    /// Gives way first: is refused once three quarters of a limit that it shares with other methods
    /// are in use, that of its service or of the server.
    Low,
    /// Is let in up to the limit. The default.
    #[default]
    Normal,
    /// Is let in also beyond a limit that the server found by itself ([`Concurrency::Auto`]). A
    /// limit that somebody has set holds for it too. For the few calls that must get through; a
    /// server full of them is not protected.
    High,
}

/// How many calls may run at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Concurrency {
    /// At most so many; 0 counts as 1.
    AtMost(u32),
    /// As many as can run without getting in each other's way: the server finds out by how long
    /// calls take. For methods that compute, or that wait for something which gets slower with more
    /// calls; not for those that wait for an event.
    Auto,
}

/// How the arguments and the result of a method lie in the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Format {
    /// Inside the envelope, in the codec of the service or of the client. Such a method also
    /// answers plain JSON with plain JSON, unless it takes protobuf messages.
    #[default]
    Envelope,
    /// Plain JSON in both directions, without an envelope: for peers that know only IIP.
    Json,
    /// The one argument and the result are the bytes of the messages as they are, without an
    /// envelope.
    Raw,
}

/// One method of a service, as `#[service]` describes it: where it is called, how its arguments are
/// named and what its attributes ask for.
///
/// Built in a constant:
///
/// ```
/// use std::time::Duration;
/// use iip_rpc::method::MethodDescriptor;
///
/// const HELLO: &MethodDescriptor = &MethodDescriptor::new("Greeter", "hello", "/greeter/hello", &["name"])
///     .timeout(Duration::from_millis(500))
///     .idempotent();
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
}

impl MethodDescriptor {
    /// Describes a method with the default policies: enveloped, no timeout of its own, not
    /// idempotent and not hedged, aborted on cancellation, of normal priority, without a limit and
    /// a requirement of its own.
    ///
    /// `args` are the names of the arguments in their order; JSON uses them as keys.
    ///
    /// # Panics
    ///
    /// `path` cannot be called, see [`StaticPath::new`].
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
        }
    }

    /// Callers send a stream of messages behind the arguments.
    #[must_use]
    pub const fn streams_requests(mut self) -> Self {
        self.requests = true;
        self
    }

    /// The method answers with a stream of messages.
    #[must_use]
    pub const fn streams_replies(mut self) -> Self {
        self.replies = true;
        self
    }

    /// Callers do not wait for the method, which answers with nothing. It runs to its end, also
    /// when its caller goes away.
    #[must_use]
    pub const fn one_way(mut self) -> Self {
        self.one_way = true;
        self.on_cancel = OnCancel::RunToEnd;
        self
    }

    /// The one argument and the result are the bytes of the messages as they are: to call, or to
    /// replace, a service that knows nothing of this crate.
    #[must_use]
    pub const fn raw(mut self) -> Self {
        self.format = Format::Raw;
        self
    }

    /// Arguments and results are plain JSON without an envelope: to call, or to replace, a JSON
    /// service on plain IIP.
    #[must_use]
    pub const fn json(mut self) -> Self {
        self.format = Format::Json;
        self
    }

    /// The codec of calls of this method, where their server knows it; it comes before that of the
    /// client. Unset by default.
    ///
    /// [`CodecId::PROTOBUF`] is the only codec then: the argument and the result are `Proto`
    /// messages, which have no form in another.
    #[must_use]
    pub const fn codec(mut self, codec: CodecId) -> Self {
        self.codec = Some(codec);
        self
    }

    /// The time a call of this method may take from the call to the answer, where the caller gives
    /// none. Unset by default: then the client's [`timeout`](crate::ClientBuilder::timeout) holds.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Running the method twice does no more than running it once: clients make a call again that
    /// may already have run, see [`RetryPolicy`](crate::RetryPolicy).
    #[must_use]
    pub const fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// What happens to a running handler when its caller goes away. [`OnCancel::Abort`] by default.
    #[must_use]
    pub const fn on_cancel(mut self, on_cancel: OnCancel) -> Self {
        self.on_cancel = on_cancel;
        self
    }

    /// When a call is made a second time. Only idempotent methods are hedged; for others it is not
    /// used. Unset by default.
    #[must_use]
    pub const fn hedge(mut self, hedge: Hedge) -> Self {
        self.hedge = Some(hedge);
        self
    }

    /// Which calls the server gives up first. [`Priority::Normal`] by default.
    #[must_use]
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// How many calls of this method a server runs at a time; further ones are refused before they
    /// run. Unset by default: then only the limits of the service, the server and the connection
    /// hold.
    #[must_use]
    pub const fn max_concurrency(mut self, calls: Concurrency) -> Self {
        self.max_concurrency = Some(calls);
        self
    }

    /// What a caller must be or have, in words that the program's own checks understand. Nothing
    /// here enforces it: whoever checks reads it from
    /// [`CallContext::method`](crate::CallContext::method). Unset by default.
    #[must_use]
    pub const fn auth(mut self, requirement: &'static str) -> Self {
        self.auth = Some(requirement);
        self
    }

    /// The full name of the service: that of the trait, unless `#[service(name = "..")]` gives it
    /// another. Health, limits, metrics and traces know the service by it.
    #[must_use]
    pub const fn service(&self) -> &'static str {
        self.service
    }

    /// The name of the method on the wire: that in the trait, unless `name` or `rename_all` gives
    /// it another.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The IIP path that calls go to, such as `/greeter/hello`.
    #[must_use]
    pub const fn path(&self) -> &'static str {
        self.path.as_str()
    }

    pub(crate) const fn static_path(&self) -> StaticPath {
        self.path
    }

    /// The names of the arguments, in their order.
    #[must_use]
    pub const fn args(&self) -> &'static [&'static str] {
        self.args
    }

    /// How arguments and results lie in the messages.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Returns `true` if the messages are the bytes of the argument and the result as they are.
    #[must_use]
    pub const fn is_raw(&self) -> bool {
        matches!(self.format, Format::Raw)
    }

    /// Returns `true` if the messages are plain JSON without an envelope.
    #[must_use]
    pub const fn is_json(&self) -> bool {
        matches!(self.format, Format::Json)
    }

    /// Returns `true` if callers send a stream of messages behind the arguments.
    #[must_use]
    pub const fn has_requests(&self) -> bool {
        self.requests
    }

    /// Returns `true` if the method answers with a stream of messages.
    #[must_use]
    pub const fn has_replies(&self) -> bool {
        self.replies
    }

    /// Returns `true` if callers do not wait for the method.
    #[must_use]
    pub const fn is_one_way(&self) -> bool {
        self.one_way
    }

    /// The codec that the attribute of the service gives to its calls, if it does.
    #[must_use]
    pub const fn service_codec(&self) -> Option<CodecId> {
        self.codec
    }

    /// The reason why this method cannot be called in `codec`, if it cannot: the messages of a
    /// protobuf service have no other form.
    pub(crate) fn refusal(&self, codec: CodecId) -> Option<Status> {
        if self.codec != Some(CodecId::PROTOBUF) || codec == CodecId::PROTOBUF {
            return None;
        }
        let text = format!(
            "{self} takes protobuf messages in the envelope, which have no form in {codec}; both \
             sides need the feature `codec-prost` of iip-rpc"
        );
        Some(Status::unimplemented(text).with_execution(Execution::NotExecuted))
    }

    /// The time the attribute of the method gives to a call, if it does.
    #[must_use]
    pub const fn default_timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Returns `true` if a call that may already have run can be repeated.
    #[must_use]
    pub const fn is_idempotent(&self) -> bool {
        self.idempotent
    }

    /// What happens to a running handler when its caller goes away.
    #[must_use]
    pub const fn cancel_policy(&self) -> OnCancel {
        self.on_cancel
    }

    /// When a call is made a second time, if the attributes of the method say so.
    #[must_use]
    pub const fn hedge_policy(&self) -> Option<Hedge> {
        self.hedge
    }

    /// Which calls the server gives up first.
    #[must_use]
    pub const fn call_priority(&self) -> Priority {
        self.priority
    }

    /// How many calls of this method a server runs at a time, if the attributes of the method say
    /// so.
    #[must_use]
    pub const fn concurrency(&self) -> Option<Concurrency> {
        self.max_concurrency
    }

    /// What a caller must be or have, if the attributes of the method say so.
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
