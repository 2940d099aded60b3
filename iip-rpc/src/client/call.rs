//! The path of every call with one request and at most one reply: connect, encode, attempt, read,
//! retry.
//!
//! Nothing here depends on the types of a method, so that it is compiled once; they are behind
//! [`CallBody`].

use std::task::Context;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use iip_core::__rpc::{CallTimes, NotPicked, PickArgs, Picked, after, now, with_context};
use iip_core::balance::Outcome as BackendOutcome;
use iip_core::{Body, Call, Peer};
use tokio::task::coop::consume_budget;

use super::Client;
use super::body::{CallBody, Failure, ReplyPart};
use super::failure::{
    bad_reply, call_status, not_sent, phases, plain_failure, request_too_large, track_failure,
};
use crate::codec::CodecId;
use crate::compression::{CompressionId, Compressor, Encoding, decompress_in_place};
use crate::context::CallContext;
use crate::envelope::{self, Outcome, PlainError, ReplyHead, RequestHead, ServerTiming};
use crate::hello::RpcPeer;
use crate::interceptor::{ClientCall, Layers};
use crate::metadata::Metadata;
use crate::method::{Format, MethodDescriptor};
use crate::policy::RetryPolicy;
use crate::recent;
use crate::retry::{self, Attempts, Rules, TransparentRetries};
use crate::status::{Code, Status};
use crate::streaming::writer::DynMessages;

/// A call to make: its method, its arguments, and the place of its result.
pub(super) struct CallSpec<'a> {
    pub(super) method: &'static MethodDescriptor,
    pub(super) ctx: Option<&'a CallContext>,
    pub(super) body: &'a mut dyn CallBody,
    /// `true` while the arguments are kept for another attempt.
    pub(super) is_kept: bool,
}

impl<'a> CallSpec<'a> {
    pub(super) fn new(
        method: &'static MethodDescriptor,
        ctx: Option<&'a CallContext>,
        body: &'a mut dyn CallBody,
    ) -> Self {
        Self {
            method,
            ctx,
            body,
            is_kept: true,
        }
    }

    /// The same call in another context.
    pub(super) fn in_context<'b>(&'b mut self, ctx: &'b CallContext) -> CallSpec<'b> {
        CallSpec::new(self.method, Some(ctx), self.body)
    }

    /// Drops the arguments if they are not kept for another attempt.
    pub(super) fn release(&mut self) {
        if !self.is_kept {
            self.body.release();
        }
    }
}

/// The kind of a call.
pub(super) enum Kind<'a> {
    Single(Single<'a>),
    /// With a stream of messages to the server.
    Upload(&'a mut DynMessages<'a>),
}

/// The kind of a call with a single request.
#[derive(Clone, Copy)]
pub(super) enum Single<'a> {
    Unary,
    OneWay,
    /// With this data, which is passed through unchanged.
    Raw(&'a Body),
}

impl Single<'_> {
    /// Returns the outcome for the backend if such a call succeeds.
    fn success(self) -> BackendOutcome {
        match self {
            Self::OneWay => BackendOutcome::Untimed,
            Self::Unary | Self::Raw(_) => BackendOutcome::Success,
        }
    }
}

impl Client {
    /// The interceptors, if at least one of them does not ignore the call.
    #[inline]
    pub(super) fn awake_interceptors(&self) -> Option<&Layers<ClientCall>> {
        self.interceptors.active(&self.options.metadata)
    }

    /// Makes a call: through the interceptors that are not idle, and with retries if necessary.
    pub(super) async fn run(&self, spec: &mut CallSpec<'_>, kind: Kind<'_>) -> Result<(), Failure> {
        if let Some(interceptors) = self.awake_interceptors() {
            // Boxed, because most calls have no interceptors, and their futures stay small. The
            // client that comes back here has none.
            return Box::pin(self.intercepted(interceptors, spec, kind)).await;
        }
        let kind = match kind {
            Kind::Single(kind) => kind,
            // Boxed, because the futures of other calls stay small.
            Kind::Upload(messages) => {
                return Box::pin(self.upload(spec, messages)).await;
            }
        };
        let method = spec.method;
        // Once per call and not per attempt, or retries would pay for further retries.
        self.settings.budget.deposit();
        let mut attempts = Attempts::default();
        let (mut times, mut remaining) = self.times(method, spec.ctx);
        // The only exit for a call that fails: the outcome accounts for what earlier attempts may
        // have done, whatever the last failure was.
        let failed = loop {
            let args = || self.pick_args(method, &attempts);
            let picked = match self.core.pick(times.connected, args) {
                Ok(picked) => picked,
                Err(not_picked) => {
                    let connecting = self.wait_for_connection(
                        Some(method),
                        not_picked,
                        &mut times,
                        &mut attempts,
                    );
                    // Boxed, because few calls have to wait, and the future of a call stays small.
                    let picked = match Box::pin(connecting).await {
                        Ok(picked) => picked,
                        Err(status) => break status,
                    };
                    remaining = times.deadline.saturating_duration_since(times.connected);
                    picked
                }
            };
            let Picked {
                connection,
                mut tracker,
            } = picked;
            self.options.called.set(tracker.as_ref());
            if method.is_one_way() && !connection.has_room_for_one_way() {
                let room = Box::pin(connection.room_for_one_way(times.deadline)).await;
                if let Err(error) = room {
                    break call_status(&error, Some(method));
                }
                times.connected = now();
            }
            if self.must_check(method, connection.peer()) {
                // Boxed, because it is done once for each build of a server.
                Box::pin(self.check_method(method, &connection, times.deadline)).await;
                times.connected = now();
                remaining = times.deadline.saturating_duration_since(times.connected);
            }
            // An earlier attempt may have left its metadata.
            if let Some(place) = &self.options.reply_metadata {
                place.set(Metadata::new());
            }
            let mut call = Call::new(connection, &times);
            // The attempt starts in the poll that awaits it next, whose waker it stores: this saves
            // taking the lock of the connection once more.
            let start = |cx: &Context<'_>| {
                self.start(cx, spec, kind, (times.deadline, remaining), &mut call)
            };
            if let Err(status) = with_context(start).await {
                break status;
            }
            let status = {
                let reply = if spec.is_kept && self.hedges(method) {
                    // Boxed for the same reason.
                    Box::pin(self.hedged(spec, kind, call, &mut tracker, &times, &mut attempts))
                        .await
                } else {
                    call.await
                };
                match reply {
                    Ok(reply) => match self.read(spec, kind, reply, times.started) {
                        Err(Failure::Status(status)) => {
                            let tracker = tracker.as_mut();
                            track_failure(tracker, times.connected, &status, None, &mut attempts);
                            status
                        }
                        done => {
                            if let Some(tracker) = &mut tracker {
                                tracker.end(times.connected, kind.success());
                            }
                            return done;
                        }
                    },
                    Err(error) => {
                        let status = call_status(&error, Some(method));
                        let (tracker, connected) = (tracker.as_mut(), times.connected);
                        track_failure(tracker, connected, &status, Some(&error), &mut attempts);
                        status
                    }
                }
            };
            // Without its arguments the call cannot be made again.
            let pause = self.retry_pause(spec, &mut attempts, &status, times.deadline);
            let Some(pause) = pause else {
                break status;
            };
            if !pause.is_zero() {
                Box::pin(tokio::time::sleep(pause)).await;
            }
            times.connected = now();
            remaining = times.deadline.saturating_duration_since(times.connected);
        };
        let failed = attempts.outcome(failed);
        let metadata = &self.options.metadata;
        recent::failed_at_client(&self.core, method, metadata, &failed, times.started);
        // A task whose calls all fail at once must still give other tasks their turn.
        consume_budget().await;
        Err(failed.into())
    }

    /// Returns the arguments for the choice of a backend for a call.
    #[inline]
    pub(super) fn pick_args<'a>(
        &'a self,
        method: &'static MethodDescriptor,
        attempts: &'a Attempts,
    ) -> PickArgs<'a> {
        PickArgs {
            path: method.path(),
            key: self.options.hash_key.as_deref(),
            metadata: Some(&self.options.metadata),
            tried: &attempts.tried,
            idempotent: self.settings.policies.is_idempotent(method),
        }
    }

    /// Starts an attempt of a call, which ends at the deadline and has this time left.
    pub(super) fn start(
        &self,
        cx: &Context<'_>,
        spec: &mut CallSpec<'_>,
        kind: Single<'_>,
        (deadline, remaining): (Instant, Duration),
        call: &mut Call,
    ) -> Result<(), Status> {
        let path = spec.method.static_path();
        let remaining = match kind {
            Single::Raw(data) => {
                self.check_request_size(spec.method, data.len())?;
                call.start_body(cx, path, deadline, Body::clone(data));
                return Ok(());
            }
            // Nobody waits for the outcome, so there is no time by which it has to be there.
            Single::OneWay => None,
            Single::Unary => Some(remaining),
        };
        let encoding = self.encoding(spec.method, call.peer())?;
        let mut encode = |out: &mut BytesMut| self.encode(spec, encoding, remaining, out);
        if matches!(kind, Single::OneWay) {
            let encode: &mut dyn FnMut(&mut BytesMut) -> _ = &mut encode;
            call.start_one_way(path, deadline, encode)?;
        } else {
            call.start_encoded(cx, path, deadline, encode)?;
        }
        spec.release();
        Ok(())
    }

    /// Reads the reply to a call.
    #[inline]
    fn read(
        &self,
        spec: &mut CallSpec<'_>,
        kind: Single<'_>,
        reply: Bytes,
        started: Instant,
    ) -> Result<(), Failure> {
        let CallSpec { method, body, .. } = spec;
        match kind {
            Single::Unary => self.decode(method, reply, started, *body),
            Single::OneWay => Ok(()),
            Single::Raw(_) => {
                let read = match PlainError::read(&reply).filter(PlainError::is_in_band) {
                    Some(error) => Err(plain_failure(method, error, started)),
                    None => body
                        .read(
                            ReplyPart::Value,
                            CodecId::RAW,
                            &reply,
                            &self.settings.limits,
                        )
                        .map_err(|error| bad_reply(method, started, None, error.reply_status())),
                };
                read.map_err(|status| self.counted(method, status.into()))
            }
        }
    }

    /// Like [`pause`](Self::pause), for a call that was sent: it is retried only if its arguments
    /// are kept.
    #[cold]
    pub(super) fn retry_pause(
        &self,
        spec: &CallSpec<'_>,
        attempts: &mut Attempts,
        status: &Status,
        deadline: Instant,
    ) -> Option<Duration> {
        if !spec.is_kept {
            return None;
        }
        self.pause(spec.method, attempts, status, deadline)
    }

    /// Returns the pause before a failed call is retried; `None` if it is not.
    #[cold]
    fn pause(
        &self,
        method: &MethodDescriptor,
        attempts: &mut Attempts,
        status: &Status,
        deadline: Instant,
    ) -> Option<Duration> {
        self.note_pushback(status);
        let rules = Rules {
            max_transparent_retries: self.max_transparent_retries(),
            idempotent: self.settings.policies.is_idempotent(method),
            policy: self.retry_policy(method),
            budget: &self.settings.budget,
        };
        attempts.next(&rules, status, now(), deadline)
    }

    pub(super) fn retry_policy(&self, method: &MethodDescriptor) -> RetryPolicy {
        let own = self.options.retry;
        own.or_else(|| self.settings.policies.retry(method))
            .unwrap_or(self.settings.retry)
    }

    /// The maximum number of transparent retries of a call.
    fn max_transparent_retries(&self) -> u32 {
        match self.options.max_transparent_retries {
            Some(repeats) => repeats,
            None if self.waits_for_ready() => u32::MAX,
            None => self.settings.max_transparent_retries,
        }
    }

    /// Returns `true` if a call waits for an unavailable server instead of failing.
    pub(super) fn waits_for_ready(&self) -> bool {
        self.options
            .wait_for_ready
            .unwrap_or(self.settings.wait_for_ready)
    }

    /// Makes the first connection of a client that is not lazy.
    pub(super) async fn first_connection(&self) -> Result<(), Status> {
        let started = now();
        // A single attempt has its own timeout.
        let limit = if self.waits_for_ready() {
            self.settings.timeout
        } else {
            Duration::MAX
        };
        let mut times = CallTimes::new(started, after(started, limit));
        let mut attempts = Attempts::default();
        let not_picked = NotPicked::default();
        let connecting = self.wait_for_connection(None, not_picked, &mut times, &mut attempts);
        match connecting.await {
            Ok(_) => Ok(()),
            Err(status) => Err(attempts.outcome(status)),
        }
    }

    /// Makes a connection, after a pick without success; retries until the deadline if the call
    /// waits for the server.
    pub(super) async fn wait_for_connection(
        &self,
        method: Option<&'static MethodDescriptor>,
        mut not_picked: NotPicked,
        times: &mut CallTimes,
        attempts: &mut Attempts,
    ) -> Result<Picked, Status> {
        let mut repeats = TransparentRetries::default();
        loop {
            let args = match method {
                Some(method) => self.pick_args(method, attempts),
                None => PickArgs::of_no_call(),
            };
            let not_picked = std::mem::take(&mut not_picked);
            let connecting =
                self.core
                    .wait_for_pick(args, not_picked, times.connected, times.deadline);
            let status = match connecting.await {
                Ok((picked, now)) => {
                    times.connected = now;
                    return Ok(picked);
                }
                Err(error) => {
                    attempts.tried.extend(error.tried());
                    call_status(&error, method)
                }
            };
            let pause = if self.waits_for_ready() {
                repeats.next(u32::MAX, &status, now(), times.deadline)
            } else if let Some(method) = method.filter(|_| attempts.has_retried()) {
                self.pause(method, attempts, &status, times.deadline)
            } else {
                // If the server cannot be reached, an immediate retry would not help.
                None
            };
            let Some(pause) = pause else {
                return Err(status);
            };
            tokio::time::sleep(pause).await;
            times.connected = now();
        }
    }

    /// The encoding of the values of a method for a server; `None` without envelope.
    pub(super) fn encoding(
        &self,
        method: &MethodDescriptor,
        peer: &Peer,
    ) -> Result<Option<Encoding>, Status> {
        if let Some(error) = &self.options.invalid {
            return Err(not_sent(error.clone().into()));
        }
        let peer = peer.extension(RpcPeer::read);
        let Format::Envelope = method.format() else {
            return self.agreed_codec(method, peer, None).map(|_| None);
        };
        let wanted = method.service_codec().unwrap_or(self.settings.codec);
        // A server that has announced no codec, such as a Go server, gets plain JSON.
        let codec = peer.and_then(|peer| peer.codec(wanted));
        let codec = self.agreed_codec(method, peer, codec)?;
        match method.unsupported_codec(codec.unwrap_or(CodecId::JSON)) {
            Some(status) => Err(not_sent(status)),
            None => Ok(codec.map(|codec| Encoding {
                codec,
                packer: self.packer(method, peer),
            })),
        }
    }

    /// The compressor for the messages of a method to a server, if they are compressed.
    #[inline]
    fn packer(&self, method: &MethodDescriptor, peer: Option<&RpcPeer>) -> Option<Compressor> {
        if !CompressionId::ANY {
            return None;
        }
        let settings = &self.settings;
        let own = self.options.compression;
        let wanted = own
            .or_else(|| settings.policies.compression(method))
            .unwrap_or(settings.compression)?;
        peer?.packer(wanted, settings.limits.body_bytes())
    }

    /// The times of a call that has its connection, and its budget. One budget covers everything
    /// from now to the reply: the call's own, bounded by the deadline of the call being handled.
    #[inline]
    pub(super) fn times(
        &self,
        method: &MethodDescriptor,
        ctx: Option<&CallContext>,
    ) -> (CallTimes, Duration) {
        let started = now();
        let own = self
            .options
            .timeout
            .or_else(|| self.settings.policies.timeout(method))
            .unwrap_or(self.settings.timeout);
        // A timeout beyond the range of the clock gives a deadline a year from now.
        let deadline = after(started, own);
        let given = ctx.and_then(CallContext::deadline);
        let inherited = CallContext::current_deadline().into_iter().chain(given);
        // The budget of a call that inherits no deadline is its timeout as it was set.
        let (deadline, budget) = match inherited.min().filter(|&inherited| inherited < deadline) {
            Some(deadline) => (deadline, deadline.saturating_duration_since(started)),
            None => (deadline, own),
        };
        let times = CallTimes::new(started, deadline);
        (times, budget)
    }

    /// Writes a request to `out`; the returned bytes follow after it. Decides whether the arguments
    /// are kept for another attempt.
    #[inline]
    pub(super) fn encode(
        &self,
        spec: &mut CallSpec<'_>,
        encoding: Option<Encoding>,
        remaining: Option<Duration>,
        out: &mut BytesMut,
    ) -> Result<Bytes, Status> {
        let method = spec.method;
        let start = out.len();
        if let Some(Encoding { codec, .. }) = encoding {
            RequestHead::write(codec, remaining, &self.options.metadata, out);
        }
        let begin = out.len();
        let codec = encoding.map_or(CodecId::JSON, |encoding| encoding.codec);
        match spec.body.encode(method, codec, out) {
            Ok(tail) => {
                let tail = tail.unwrap_or_default();
                let size = out.len() - begin + tail.len();
                self.check_request_size(method, size)?;
                // The size counts before compression, because the arguments are kept as values.
                spec.is_kept = out.len() - start + tail.len() <= retry::KEPT_BYTES;
                let packer = encoding
                    .as_ref()
                    .and_then(|encoding| encoding.packer.as_ref());
                Ok(envelope::pack_body(packer, out, start, begin, tail))
            }
            Err(error) => Err(not_sent(Status::invalid_argument(format!(
                "{method}: cannot encode the arguments in {codec}: {error}"
            )))),
        }
    }

    #[inline]
    fn check_request_size(&self, method: &MethodDescriptor, size: usize) -> Result<(), Status> {
        let limits = &self.settings.limits;
        if size <= limits.body_bytes() {
            return Ok(());
        }
        Err(request_too_large(method, size, limits.message_bytes()))
    }

    /// Counts a call that has its reply as failed.
    #[cold]
    fn counted(&self, method: &MethodDescriptor, failure: Failure) -> Failure {
        let code = match &failure {
            Failure::Status(status) => status.code(),
            // As plain peers see it.
            Failure::Own => Code::Unknown,
        };
        self.core.count_failure(method.path(), code.as_u8());
        failure
    }

    /// Decodes a reply in an envelope or in plain JSON.
    pub(super) fn decode(
        &self,
        method: &MethodDescriptor,
        reply: Bytes,
        started: Instant,
        body: &mut dyn CallBody,
    ) -> Result<(), Failure> {
        let decoded = self.decode_reply(method, reply, started, body);
        decoded.map_err(|failure| self.counted(method, failure))
    }

    #[inline]
    fn decode_reply(
        &self,
        method: &MethodDescriptor,
        reply: Bytes,
        started: Instant,
        body: &mut dyn CallBody,
    ) -> Result<(), Failure> {
        let limits = &self.settings.limits;
        let bad = |status, timing| Failure::from(bad_reply(method, started, timing, status));
        if !envelope::is_envelope(&reply) {
            let (part, what) = match PlainError::read(&reply) {
                None => (ReplyPart::Value, "result"),
                Some(PlainError { error: Some(_), .. }) => (ReplyPart::PlainError, "error"),
                Some(error) => return Err(plain_failure(method, error, started).into()),
            };
            let json = CodecId::JSON;
            body.read(part, json, &reply, limits)
                .map_err(|error| bad(error.status_of_reply(what, json), None))?;
            return part.outcome();
        }
        let (head, mut data) =
            ReplyHead::read(reply).map_err(|error| bad(error.reply_status(), None))?;
        if let Some(place) = &self.options.reply_metadata {
            // The metadata is there for a failed call as well.
            place.set(head.metadata.clone());
        }
        if let Some(timing) = head.timing.filter(ServerTiming::may_be_slow) {
            recent::slow_at_client(&self.core, method, &self.options.metadata, &timing, started);
        }
        decompress_in_place(head.compression, &mut data, limits)
            .map_err(|error| bad(error.reply_status(), head.timing))?;
        let (part, what) = match head.outcome {
            Outcome::Value => (ReplyPart::Value, "result"),
            Outcome::Error => (ReplyPart::Error, "error"),
            Outcome::Status => {
                let status = envelope::read_status(data, head.metadata)
                    .map_err(|error| bad(error.reply_status(), head.timing))?;
                return Err(status.with_phases(phases(started, head.timing)).into());
            }
        };
        body.read(part, head.codec, &data, limits)
            .map_err(|error| bad(error.status_of_reply(what, head.codec), head.timing))?;
        part.outcome()
    }
}
