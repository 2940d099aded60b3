//! The typed server: from a message to the arguments, and from the result to a reply.
//!
//! To follow one call, begin at [`Unary::answer`].

mod builder;
mod closest;
mod failures;
mod intercept;
#[cfg(feature = "tower")]
mod mount;
mod names;
mod streaming;

use std::fmt;
use std::future::Future;
#[cfg(feature = "signal")]
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use iip_core::{
    Body, Handler, HandlerError, HandlerFuture, Peer, Places, RejectReason, Request, RequestMode,
    Response, RunningCall,
};
use serde::Serialize;

pub use self::builder::ServerBuilder;
#[cfg(feature = "tower")]
pub use self::mount::ServiceHandler;
use self::streaming::StreamMethod;
pub use self::streaming::{StreamCall, StreamReply};
use crate::arguments::FromArguments;
use crate::codec::{CodecId, DecodeError, DecodeLimits, EncodeError, encode_value_split};
use crate::compression::{
    Compression, CompressionId, Encoding, decompress_in_place, decompressed_size,
};
use crate::context::{CallContext, now};
use crate::envelope::{self, Outcome, ReplyHead, RequestHead, ServerTiming};
use crate::hello::RpcPeer;
use crate::interceptor::{Layer, Layers, Outcome as CallOutcome, ServerCall};
use crate::limits::ENVELOPE_BYTES;
use crate::metadata::Metadata;
use crate::method::{MethodDescriptor, OnCancel};
use crate::overload::{self, Admission, Full, Gate};
use crate::payload::ByValue;
use crate::policy::{Deadline, Deadlines, ServerPolicy};
use crate::raw::RawBody;
use crate::status::{Execution, MethodError, Status};

/// A service that a [`Server`] can serve. `#[service]` implements it for the server type it
/// generates, such as `GreeterServer`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no service",
    note = "wrap the implementation in the server type that `#[service]` made, as in \
        `GreeterServer::new(..)`"
)]
pub trait Service {
    /// Registers every method.
    fn register(self, methods: &mut Methods);
}

/// The methods that are being registered with a server.
pub struct Methods {
    handlers: Vec<(&'static MethodDescriptor, Arc<dyn Handler>)>,
    limits: DecodeLimits,
    /// The compression for methods whose policies set none.
    compression: Option<Compression>,
    policy: ServerPolicy,
    admission: Admission,
    /// The interceptors of the methods that are registered next.
    interceptors: Layers<ServerCall>,
    /// The names of the service that is being registered: those of its methods, without consecutive
    /// duplicates.
    services: Vec<&'static str>,
    /// The counter of running calls of the methods that are registered next, if they are counted
    /// separately from others.
    places: Option<Arc<Places>>,
}

impl Methods {
    /// Registers a method: `call` runs for each of its calls.
    pub fn unary<S, A, T, E, F, Fut>(
        &mut self,
        method: &'static MethodDescriptor,
        service: &Arc<S>,
        call: F,
    ) where
        S: Send + Sync + 'static,
        A: FromArguments,
        T: Serialize + Send + 'static,
        E: MethodError,
        F: Fn(Arc<S>, CallContext, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        let unary = Unary {
            method,
            service: Arc::clone(service),
            call,
            limits: self.limits,
            compression: self.compression(method),
            deadlines: self.deadlines(method),
            interceptors: self.interceptors.clone(),
            types: PhantomData,
        };
        self.add(method, unary);
    }

    /// Registers a method with a stream of messages in one direction or both: `call` runs for each
    /// of its calls, reads and sends through the [`StreamCall`], and returns the reply that it gets
    /// from it at the end.
    pub fn stream<S, A, F, Fut>(
        &mut self,
        method: &'static MethodDescriptor,
        service: &Arc<S>,
        call: F,
    ) where
        S: Send + Sync + 'static,
        A: FromArguments,
        F: Fn(Arc<S>, CallContext, A, StreamCall) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = StreamReply> + Send + 'static,
    {
        let method_with_streams = StreamMethod {
            method,
            service: Arc::clone(service),
            call,
            limits: self.limits,
            compression: self.compression(method),
            deadlines: self.deadlines(method),
            interceptors: self.interceptors.clone(),
            args: PhantomData,
        };
        self.add(method, method_with_streams);
    }

    /// Registers a method bound to raw bytes.
    pub fn unary_raw<S, T, E, F, Fut>(
        &mut self,
        method: &'static MethodDescriptor,
        service: &Arc<S>,
        call: F,
    ) where
        S: Send + Sync + 'static,
        T: RawBody + Send + 'static,
        E: MethodError,
        F: Fn(Arc<S>, CallContext, Bytes) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        let raw = Raw {
            method,
            service: Arc::clone(service),
            call,
            limits: self.limits,
            deadlines: self.deadlines(method),
            interceptors: self.interceptors.clone(),
        };
        self.add(method, raw);
    }

    /// Registers methods with one more interceptor.
    pub(crate) fn within(
        &mut self,
        interceptor: Arc<dyn Layer<ServerCall>>,
        register: impl FnOnce(&mut Self),
    ) {
        let outer = self.interceptors.clone();
        self.interceptors.push(interceptor);
        register(self);
        self.interceptors = outer;
    }

    /// Registers methods whose running calls are counted separately from others.
    pub(crate) fn counted_apart(&mut self, places: Places, register: impl FnOnce(&mut Self)) {
        self.places = Some(Arc::new(places));
        register(self);
        self.places = None;
    }

    /// The rules for the deadlines of a method's calls.
    fn deadlines(&self, method: &MethodDescriptor) -> Deadlines {
        Deadlines::new(self.policy, self.admission.timeout(method))
    }

    /// The compression of a method's replies.
    fn compression(&self, method: &MethodDescriptor) -> Option<Compression> {
        self.admission
            .compression(method)
            .unwrap_or(self.compression)
    }

    fn add(&mut self, method: &'static MethodDescriptor, unary: impl Run) {
        let gate = self.admission.gate(method);
        if self.services.last() != Some(&method.service()) {
            self.services.push(method.service());
        }
        let handler = Method {
            unary: Arc::new(unary),
            method,
            gate,
            places: self.places.clone(),
        };
        self.handlers.push((method, Arc::new(handler)));
    }
}

impl fmt::Debug for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.handlers.iter().map(|(method, _)| method.path()))
            .finish()
    }
}

/// Implementation of one call of a method.
trait Run: Send + Sync + 'static {
    /// The form in which it takes requests.
    const INTAKE: RequestMode = RequestMode::Whole;

    fn run(self: Arc<Self>, request: Request) -> HandlerFuture;
}

/// One registered method, as a handler of the core server.
struct Method<U> {
    unary: Arc<U>,
    method: &'static MethodDescriptor,
    /// The gate that calls have to pass; most methods have no limit.
    gate: Option<Arc<Gate>>,
    places: Option<Arc<Places>>,
}

impl<U: Run> Method<U> {
    /// Runs a call unless the server is at capacity.
    #[cold]
    fn admit(&self, gate: &Arc<Gate>, request: Request) -> HandlerFuture {
        let permit = match gate.enter() {
            Ok(permit) => permit,
            Err(full) => {
                let answer = self.too_many(full, request.body());
                return Box::pin(std::future::ready(Ok(answer.into())));
            }
        };
        let call = Arc::clone(&self.unary).run(request);
        Box::pin(async move {
            let answer = call.await;
            permit.end();
            answer
        })
    }

    /// The rejection of a call; its arguments are not read.
    fn too_many(&self, full: Full, body: &Bytes) -> Body {
        refused(&full.status(), is_plain(body), self.method.is_raw())
    }
}

impl<U: Run> Handler for Method<U> {
    fn call(&self, request: Request) -> HandlerFuture {
        match &self.gate {
            None => Arc::clone(&self.unary).run(request),
            Some(gate) => self.admit(gate, request),
        }
    }

    fn on_cancel(&self) -> iip_core::OnCancel {
        match self.method.cancel_policy() {
            OnCancel::Abort => iip_core::OnCancel::Abort,
            OnCancel::Token => iip_core::OnCancel::Token,
            OnCancel::RunToEnd => iip_core::OnCancel::RunToEnd,
        }
    }

    fn request_mode(&self) -> RequestMode {
        U::INTAKE
    }

    /// A method with streams runs once its arguments have arrived.
    fn starts_late(&self) -> bool {
        U::INTAKE == RequestMode::Stream
    }

    fn places(&self) -> Option<&Arc<Places>> {
        self.places.as_ref()
    }

    fn reject(&self, reason: &RejectReason, plain: bool) -> Body {
        reject(reason, plain, self.method.is_raw())
    }

    /// Returns `true` if the caller sent plain JSON.
    fn tag(&self, body: &Bytes) -> bool {
        is_plain(body)
    }

    fn on_panic(&self, plain: bool) -> Body {
        if self.method.is_raw() {
            return r#"{"code":101,"message":"handle no response"}"#.into();
        }
        answer_status(&Status::internal("the handler panicked"), plain)
    }
}

fn reject(reason: &RejectReason, plain: bool, raw: bool) -> Body {
    refused(&reject_status(reason), plain, raw)
}

/// The status for the caller of a rejected call.
fn reject_status(reason: &RejectReason) -> Status {
    let text = match *reason {
        // The limit as it was set, which does not count the envelope.
        RejectReason::TooLarge { size, limit } => RejectReason::TooLarge {
            size,
            limit: limit.saturating_sub(ENVELOPE_BYTES),
        }
        .to_string(),
        _ => reason.to_string(),
    };
    let status = match reason {
        RejectReason::ShuttingDown => Status::unavailable(text),
        RejectReason::NoStream => Status::unimplemented(text),
        RejectReason::Overloaded { .. } | RejectReason::ShareTaken { .. } => {
            overload::overloaded(text)
        }
        RejectReason::Unread { .. } => return Status::resource_exhausted(text),
        _ => Status::resource_exhausted(text),
    };
    status.with_execution(Execution::NotExecuted)
}

/// The reply to a request that is not run.
fn refused(status: &Status, plain: bool, raw: bool) -> Body {
    if raw {
        return envelope::handler_failed(status.message());
    }
    answer_status(status, plain)
}

/// Returns `true` if the caller sent plain JSON. A caller whose request was skipped counts as
/// typed.
fn is_plain(body: &Bytes) -> bool {
    !body.is_empty() && !envelope::is_envelope(body)
}

/// The reply that carries a status, in the format that the caller understands.
fn answer_status(status: &Status, plain: bool) -> Body {
    let encoded = Body::encode(|out| {
        if plain {
            envelope::write_plain_status(status, out);
        } else {
            envelope::write_status_reply(CodecId::DEFAULT, status, None, out);
        }
        Ok::<_, EncodeError>(Bytes::new())
    });
    encoded.unwrap_or_default()
}

/// A typed method.
struct Unary<S, A, T, E, F> {
    method: &'static MethodDescriptor,
    service: Arc<S>,
    call: F,
    limits: DecodeLimits,
    compression: Option<Compression>,
    deadlines: Deadlines,
    interceptors: Layers<ServerCall>,
    types: PhantomData<fn(A) -> Result<T, E>>,
}

impl<S, A, T, E, F, Fut> Run for Unary<S, A, T, E, F>
where
    S: Send + Sync + 'static,
    A: FromArguments,
    T: Serialize + Send + 'static,
    E: MethodError,
    F: Fn(Arc<S>, CallContext, A) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
{
    fn run(self: Arc<Self>, request: Request) -> HandlerFuture {
        Box::pin(async move {
            let plain = is_plain(request.body());
            let one_way = request.is_one_way();
            Ok(Response::from(match self.answer(request, plain).await {
                Ok(body) => body,
                // The status is logged, because no caller receives it.
                Err(status) if one_way => {
                    return Err(HandlerError::new(failures::with_causes(&status)));
                }
                Err(status) => answer_status(&status, plain),
            }))
        })
    }
}

impl<S, A, T, E, F, Fut> Unary<S, A, T, E, F>
where
    A: FromArguments,
    T: Serialize + 'static,
    E: MethodError,
    F: Fn(Arc<S>, CallContext, A) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    /// Decodes the arguments, runs the method within its deadline, and encodes the result. Returns
    /// a status for a call that never reached the method, or that was ended by the deadline.
    async fn answer(&self, mut request: Request, plain: bool) -> Result<Body, Status> {
        let (received, waited) = (request.received_at(), request.waited());
        let cancel = (self.method.cancel_policy() == OnCancel::Token).then(|| request.cancelled());
        let peer = Arc::clone(request.peer());
        let one_way = request.is_one_way();
        let body = request.take_body();
        let (form, remaining, metadata, body) = if plain {
            (Form::plain(one_way), None, Metadata::new(), body)
        } else {
            let (head, body) = RequestHead::read(body)
                .map_err(|error| error.request_status().in_method(self.method))?;
            let form = Form {
                codec: head.codec,
                plain,
                request: head.compression,
                one_way,
            };
            (form, head.remaining, head.metadata, body)
        };
        let deadline = self.deadlines.of_call(remaining, waited, received)?;
        if let Some(status) = self.method.refusal(form.codec) {
            return Err(status);
        }
        let ctx = CallContext::of_call(self.method, metadata, deadline.at, peer, cancel);
        if let Some(interceptors) = self.interceptors.active(ctx.metadata()) {
            let call = self.intercepted(interceptors, ctx, request, body, form, deadline);
            return Box::pin(call).await;
        }
        let (args, _held) = self.arguments(&request, form, body)?;
        let call = (self.call)(Arc::clone(&self.service), ctx.clone(), args);
        let mut call = pin!(ctx.scoped(call));
        let (result, paused) = within(call.as_mut(), deadline, self.method.cancel_policy()).await?;
        let ctx = call.take_value();
        let timing = paused.then(|| timing(received, waited));
        self.encode(form, result, timing, ctx.as_ref())
    }

    fn arguments(
        &self,
        request: &Request,
        form: Form,
        mut body: Bytes,
    ) -> Result<(A, Option<RunningCall>), Status> {
        let (method, codec) = (self.method, form.codec);
        let held = decompress(
            request,
            method,
            codec,
            form.request,
            &mut body,
            &self.limits,
        )?;
        A::decode(method, codec, &body, &self.limits)
            .map(|args| (args, held))
            .map_err(|error| bad_arguments(method, codec, &error))
    }

    fn encode(
        &self,
        form: Form,
        result: Result<T, E>,
        timing: Option<ServerTiming>,
        ctx: Option<&CallContext>,
    ) -> Result<Body, Status> {
        if form.one_way {
            let failed = |error: E| match error.as_status() {
                Some(status) => status.clone(),
                None => Status::unknown(error.to_string()),
            };
            return result.map(|_| Body::default()).map_err(failed);
        }
        if let Err(error) = &result {
            failures::log(ctx, error.as_status(), error);
        }
        let metadata = ctx.map_or_else(Metadata::new, CallContext::take_reply_metadata);
        let peer = ctx.filter(|_| !form.plain).and_then(CallContext::peer);
        let encoding = encoding(form.codec, self.compression, peer, &self.limits);
        let plain = form.plain;
        encode_result(encoding, result, timing, &metadata, plain, &self.limits)
            .map_err(|status| status.in_method(self.method))
            .inspect_err(|status| failures::log(ctx, Some(status), status))
    }

    /// Continues a call with interceptors, once its context exists.
    async fn intercepted(
        &self,
        interceptors: &Layers<ServerCall>,
        ctx: CallContext,
        request: Request,
        body: Bytes,
        form: Form,
        deadline: Deadline,
    ) -> Result<Body, Status> {
        let (received, waited) = (request.received_at(), request.waited());
        let run = async |ctx: CallContext| {
            let (args, _held) = self.arguments(&request, form, body)?;
            let call = (self.call)(Arc::clone(&self.service), ctx.clone(), args);
            let call = ctx.clone().scope(call);
            let result = until(deadline, self.method.cancel_policy(), call).await?;
            let outcome = CallOutcome::of(&result);
            let timing = Some(timing(received, waited));
            let body = self.encode(form, result, timing, Some(&ctx))?;
            Ok((outcome, body))
        };
        intercept::call(interceptors, self.method, ctx, deadline, run).await
    }
}

/// Decompresses arguments. Their memory counts as held by the call until the returned value is
/// dropped.
#[inline]
fn decompress(
    request: &Request,
    method: &MethodDescriptor,
    codec: CodecId,
    compression: CompressionId,
    body: &mut Bytes,
    limits: &DecodeLimits,
) -> Result<Option<RunningCall>, Status> {
    if compression.is_some() {
        return decompress_some(request, method, codec, compression, body, limits);
    }
    Ok(None)
}

#[cold]
fn decompress_some(
    request: &Request,
    method: &MethodDescriptor,
    codec: CodecId,
    compression: CompressionId,
    body: &mut Bytes,
    limits: &DecodeLimits,
) -> Result<Option<RunningCall>, Status> {
    let bad = |error: DecodeError| bad_arguments(method, codec, &error);
    let size = decompressed_size(codec, compression, body, limits).map_err(bad)?;
    let held = request.hold(size).map_err(|full| reject_status(&full))?;
    decompress_in_place(compression, body, limits).map_err(bad)?;
    Ok(Some(held))
}

/// The encoding of the messages of a call.
#[derive(Clone, Copy)]
struct Form {
    codec: CodecId,
    plain: bool,
    /// `true` if the reply is not read.
    one_way: bool,
    /// The compression of the arguments.
    request: CompressionId,
}

impl Form {
    fn plain(one_way: bool) -> Self {
        Self {
            codec: CodecId::JSON,
            plain: true,
            request: CompressionId::NONE,
            one_way,
        }
    }
}

/// The encoding of a reply: in the codec of its request, and compressed as `wanted`, if the caller
/// can decompress it.
#[inline]
fn encoding(
    codec: CodecId,
    wanted: Option<Compression>,
    peer: Option<&Peer>,
    limits: &DecodeLimits,
) -> Encoding {
    let packer = wanted.and_then(|wanted| {
        let peer = peer?.extension(RpcPeer::read)?;
        peer.packer(wanted, limits.body_bytes())
    });
    Encoding { codec, packer }
}

/// Runs `call` until its deadline, if the policy lets the deadline end it.
async fn until<Fut: Future>(
    deadline: Deadline,
    policy: OnCancel,
    call: Fut,
) -> Result<Fut::Output, Status> {
    match deadline.at.filter(|_| policy == OnCancel::Abort) {
        None => Ok(call.await),
        Some(at) => tokio::time::timeout_at(at.into(), call)
            .await
            .map_err(|_| deadline.over()),
    }
}

/// Runs a call until its deadline, if the policy lets the deadline end it. The flag is `true` if
/// the call had to wait.
async fn within<Fut: Future>(
    mut call: Pin<&mut Fut>,
    deadline: Deadline,
    policy: OnCancel,
) -> Result<(Fut::Output, bool), Status> {
    // Most calls are ready at once, and need no timer.
    let first = std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
    if let Poll::Ready(result) = first {
        return Ok((result, false));
    }
    // The next poll happens in a separate task, not in that of the connection.
    let mut moved = false;
    std::future::poll_fn(|_| {
        if std::mem::replace(&mut moved, true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    let result = until(deadline, policy, call).await?;
    Ok((result, true))
}

fn timing(received: Instant, waited: Duration) -> ServerTiming {
    ServerTiming {
        queue: waited,
        handler: now().saturating_duration_since(received + waited),
    }
}

fn encode_result<T: Serialize + 'static, E: MethodError>(
    encoding: Encoding,
    result: Result<T, E>,
    timing: Option<ServerTiming>,
    metadata: &Metadata,
    plain: bool,
    limits: &DecodeLimits,
) -> Result<Body, Status> {
    let Encoding { codec, packer } = encoding;
    Body::encode(|out| match result {
        Ok(value) => {
            if !plain {
                ReplyHead::write(codec, Outcome::Value, timing, metadata, out);
            }
            let body = out.len();
            let tail = encode_value_split(codec, &ByValue(value), out);
            let tail = fitting(tail, "result", codec, out.len() - body, limits)?;
            if plain {
                envelope::set_apart_from_errors(out, body);
            }
            Ok(envelope::pack_body(packer.as_ref(), out, 0, body, tail))
        }
        Err(error) if plain => {
            envelope::write_plain_error(&error, out);
            fitting(Ok(None), "error", codec, out.len(), limits)
        }
        Err(error) => match error.as_status() {
            Some(status) => {
                let mut status = status.clone();
                // The status of a call made by the handler: this handler itself has run. A status
                // that the handler created keeps its own mark.
                if status.is_of_a_call() {
                    status = status.with_execution(Execution::MayHaveExecuted);
                }
                // Metadata that does not fit with that of the status is dropped, because the status
                // matters more.
                let _ = status.metadata_mut().append_all(metadata);
                envelope::write_status_reply(codec, &status, timing, out);
                fitting(Ok(None), "error", codec, out.len(), limits)
            }
            None => {
                let codec = codec.of_errors();
                ReplyHead::write(codec, Outcome::Error, timing, metadata, out);
                let body = out.len();
                let tail = encode_value_split(codec, &error, out);
                let tail = fitting(tail, "error", codec, out.len() - body, limits)?;
                Ok(envelope::pack_body(packer.as_ref(), out, 0, body, tail))
            }
        },
    })
}

/// The bytes that follow an encoded `what` of `size` bytes, if it could be encoded and is not too
/// large.
#[inline]
fn fitting(
    encoded: Result<Option<Bytes>, EncodeError>,
    what: &str,
    codec: CodecId,
    size: usize,
    limits: &DecodeLimits,
) -> Result<Bytes, Status> {
    match encoded {
        Ok(tail) => {
            let tail = tail.unwrap_or_default();
            let size = size + tail.len();
            if size > limits.body_bytes() {
                return Err(answer_too_large(size, limits));
            }
            Ok(tail)
        }
        Err(error) => Err(cannot_encode(what, codec, &error)),
    }
}

#[cold]
fn answer_too_large(size: usize, limits: &DecodeLimits) -> Status {
    let limit = limits.message_bytes();
    Status::resource_exhausted(format!(
        "an answer of {size} bytes exceeds the server's limit of {limit} bytes (option \
         max_message_bytes)"
    ))
}

#[cold]
fn cannot_encode(what: &str, codec: CodecId, error: &EncodeError) -> Status {
    Status::internal(format!("cannot encode the {what} in {codec}: {error}"))
}

/// The status for arguments that could not be read.
#[cold]
fn bad_arguments(method: &MethodDescriptor, codec: CodecId, error: &DecodeError) -> Status {
    error.status_of_request(method, "arguments", codec)
}

/// A method bound to raw bytes.
struct Raw<S, F> {
    method: &'static MethodDescriptor,
    service: Arc<S>,
    call: F,
    limits: DecodeLimits,
    deadlines: Deadlines,
    interceptors: Layers<ServerCall>,
}

impl<S, T, E, F, Fut> Run for Raw<S, F>
where
    S: Send + Sync + 'static,
    T: RawBody + Send + 'static,
    E: MethodError,
    F: Fn(Arc<S>, CallContext, Bytes) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
{
    fn run(self: Arc<Self>, request: Request) -> HandlerFuture {
        Box::pin(async move {
            let cancel =
                (self.method.cancel_policy() == OnCancel::Token).then(|| request.cancelled());
            let peer = Arc::clone(request.peer());
            let failed = |status: Status| HandlerError::new(status.message());
            let deadline = self
                .deadlines
                .of_call(None, request.waited(), request.received_at());
            let deadline = deadline.map_err(failed)?;
            let ctx = CallContext::of_call(self.method, Metadata::new(), deadline.at, peer, cancel);
            let body = request.into_body();
            self.limits
                .check_size(&body)
                .map_err(|error| failed(error.request_status()))?;
            let result = match self.interceptors.active(ctx.metadata()) {
                None => {
                    let call = (self.call)(Arc::clone(&self.service), ctx.clone(), body);
                    let mut call = pin!(ctx.scoped(call));
                    let run = within(call.as_mut(), deadline, self.method.cancel_policy()).await;
                    let result = run.map_err(failed)?.0;
                    if let Err(error) = &result {
                        failures::log(call.take_value().as_ref(), error.as_status(), error);
                    }
                    result
                }
                Some(interceptors) => {
                    let run = async |ctx: CallContext| {
                        let call = (self.call)(Arc::clone(&self.service), ctx.clone(), body);
                        let policy = self.method.cancel_policy();
                        let result = until(deadline, policy, ctx.clone().scope(call)).await?;
                        if let Err(error) = &result {
                            failures::log(Some(&ctx), error.as_status(), error);
                        }
                        Ok((CallOutcome::of(&result), result))
                    };
                    let call = intercept::call(interceptors, self.method, ctx, deadline, run);
                    Box::pin(call).await.map_err(failed)?
                }
            };
            match result {
                Ok(data) => {
                    let data = data.into_body();
                    if data.len() > self.limits.body_bytes() {
                        return Err(failed(answer_too_large(data.len(), &self.limits)));
                    }
                    Ok(Response::from(data))
                }
                Err(error) => {
                    let text = match error.as_status() {
                        Some(status) => status.message().to_owned(),
                        None => error.to_string(),
                    };
                    Err(HandlerError::new(text).already_logged())
                }
            }
        })
    }
}

/// Handler for calls of unknown methods.
struct NoMethod {
    /// The paths of the methods that are served.
    paths: Vec<&'static str>,
}

impl NoMethod {
    fn beside(handlers: &[(&'static MethodDescriptor, Arc<dyn Handler>)]) -> Self {
        Self {
            paths: handlers.iter().map(|(method, _)| method.path()).collect(),
        }
    }

    #[cold]
    fn status(&self, path: &str) -> Status {
        let mut text = format!("no method is registered under {path:?}");
        if let Some(closest) = closest::path(path, &self.paths) {
            text.push_str(&format!("; the closest is {closest:?}"));
        }
        Status::unimplemented(text).with_execution(Execution::NotExecuted)
    }
}

impl Handler for NoMethod {
    fn reject(&self, reason: &RejectReason, plain: bool) -> Body {
        reject(reason, plain, false)
    }

    fn tag(&self, body: &Bytes) -> bool {
        is_plain(body)
    }

    fn call(&self, request: Request) -> HandlerFuture {
        let answer = if envelope::is_envelope(request.body()) {
            answer_status(&self.status(request.path()), false)
        } else {
            // Source: recording unknown_path.
            r#"{"code":102,"message":"handle error"}"#.into()
        };
        Box::pin(async move { Ok(answer.into()) })
    }
}

/// A running server. Dropping it leaves it running; [`shutdown`](Self::shutdown) ends it.
///
/// It runs on the runtime that it was created in, and ends with it: when `main` returns, its server
/// ends too. A program that is only a server ends with `shutdown_on_signal` (feature `signal`),
/// [`serve_until`](Self::serve_until) or [`stopped`](Self::stopped).
#[derive(Debug)]
#[must_use = "a server ends with its runtime: wait with `shutdown_on_signal`, `serve_until` or \
    `stopped`"]
pub struct Server {
    core: iip_core::Server,
}

impl Server {
    /// Creates a builder for a server.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::new()
    }

    /// The address it listens on, with the port that the system chose; `None` on Unix sockets and
    /// in memory.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.core.local_addr()
    }

    /// The address in the form that a client connects to.
    #[must_use]
    pub fn target(&self) -> &str {
        self.core.target()
    }

    /// Shuts down the server: sets its [`Health`](crate::Health) to not serving, ends its
    /// subscriptions so that their clients go elsewhere, notifies handlers that wait for it
    /// ([`CallContext::shutting_down`]), takes no new connections and calls, and gives the running
    /// calls `limit` to end before it aborts them. Always returns, at the latest about a second
    /// after `limit`; handlers with [`OnCancel::RunToEnd`] and [`OnCancel::Token`] may continue
    /// after that.
    ///
    /// Calls that arrive meanwhile are rejected as UNAVAILABLE, not executed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the server has stopped accepting and continues to drain; nothing
    /// is aborted.
    pub async fn shutdown(&self, limit: Duration) {
        self.core.shutdown(limit).await;
    }

    /// Waits until the server has been shut down and its last connection has ended; never completes
    /// if it is not shut down.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped and called again.
    pub async fn stopped(&self) {
        self.core.stopped().await;
    }

    /// Serves until `signal` completes, then [shuts down](Self::shutdown) within `limit`. Returns
    /// when the server has ended, also if it was shut down by other code before `signal` completed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before `signal` has completed, the server continues; afterwards
    /// like [`shutdown`](Self::shutdown).
    pub async fn serve_until(&self, signal: impl Future<Output = ()>, limit: Duration) {
        self.core.serve_until(signal, limit).await;
    }

    /// Serves until the process receives ctrl-c or SIGTERM, then [shuts down](Self::shutdown)
    /// within `limit`. A second signal aborts at once what still runs. Returns `Ok(())` when the
    /// server has ended, also if it was shut down by other code.
    ///
    /// ```no_run
    /// # #[tokio::main]
    /// # async fn main() -> std::io::Result<()> {
    /// let server = iip_rpc::Server::builder().bind("0.0.0.0:7070").await?;
    /// server.shutdown_on_signal(std::time::Duration::from_secs(20)).await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The operating system does not deliver signals to this process; the server continues.
    ///
    /// # Cancel safety
    ///
    /// Like [`serve_until`](Self::serve_until). Once this was called, the signals no longer end the
    /// process by themselves.
    ///
    /// Needs the feature `signal`, which is on by default.
    #[cfg(feature = "signal")]
    pub async fn shutdown_on_signal(&self, limit: Duration) -> io::Result<()> {
        self.core.shutdown_on_signal(limit).await
    }
}
