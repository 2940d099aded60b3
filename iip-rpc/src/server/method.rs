//! One call of a method, whatever the types of the method are.
//!
//! [`Call`] runs the handler within its deadline. It is compiled once: what depends on the types of
//! a method is behind [`NewCall`] and [`TypedCall`], and written in a [`MethodBody`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use iip_core::{HandlerError, Places, Request, Response, RunningCall, SendStream};
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::failures;
use super::reply::{Reply, ReplyForm, encoding, is_plain, reject_status, status_response, timing};
use crate::arguments::FromArguments;
use crate::codec::{CodecId, DecodeError, DecodeLimits};
use crate::compression::{Compression, CompressionId, decompress_in_place, decompressed_size};
use crate::context::CallContext;
use crate::envelope::{RequestHead, ServerTiming};
use crate::interceptor::{Layers, Outcome, ServerCall};
use crate::method::{MethodDescriptor, OnCancel};
use crate::overload::{Gate, Permit};
use crate::policy::{Deadline, Deadlines};
use crate::recent;
use crate::status::{MethodError, Status};
use crate::streaming::messages::MessageReader;

/// The kind of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Unary,
    /// With a stream in one direction or both.
    Stream,
    /// Bound to raw bytes.
    Raw,
}

/// The part of a method that depends on its types.
pub(super) trait MethodBody: Clone + Send + Sync + 'static {
    const KIND: Kind;

    /// The future of the user's method.
    type Future: Future + Send + 'static;

    /// Decodes the arguments and calls the user's method.
    fn start(self, call: &mut Call, cx: &Context<'_>) -> Result<Self::Future, Status>;

    /// Encodes the output of the method.
    fn reply(output: <Self::Future as Future>::Output, call: &Call) -> Reply;
}

/// A registered method, without its types.
pub(super) struct Method {
    pub(super) descriptor: &'static MethodDescriptor,
    pub(super) interceptors: Layers<ServerCall>,
    pub(super) limits: DecodeLimits,
    pub(super) compression: Option<Compression>,
    pub(super) deadlines: Deadlines,
    /// The gate that calls have to pass; most methods have no limit.
    pub(super) gate: Option<Arc<Gate>>,
    pub(super) places: Option<Arc<Places>>,
    pub(super) kind: Kind,
    pub(super) body: Box<dyn NewCall>,
}

impl Method {
    /// Reads the head of a request. Returns a status for a call that must not run.
    #[inline]
    pub(super) fn head(&self, request: &Request, message: Bytes) -> Result<CallHead, Status> {
        let descriptor = self.descriptor;
        // Methods with streams have no plain form, and raw methods take every form as it is.
        let plain = self.kind == Kind::Unary && is_plain(&message);
        let (head, arguments) = if self.kind == Kind::Raw {
            (RequestHead::without(CodecId::RAW), message)
        } else if plain {
            (RequestHead::without(CodecId::JSON), message)
        } else {
            RequestHead::read(message)
                .map_err(|error| error.request_status().in_method(descriptor))?
        };
        // A call without time left ends here, before its arguments are looked at.
        let deadline =
            self.deadlines
                .of_call(head.remaining, request.waited(), request.received_at())?;
        if self.kind != Kind::Raw
            && let Some(status) = descriptor.unsupported_codec(head.codec)
        {
            return Err(status);
        }
        let cancel = (descriptor.cancel_policy() == OnCancel::Token).then(|| request.cancelled());
        let peer = Arc::clone(request.peer());
        Ok(CallHead {
            ctx: CallContext::of_call(descriptor, head.metadata, deadline.at, peer, cancel),
            arguments,
            codec: head.codec,
            compression: head.compression,
            plain,
            deadline,
        })
    }

    /// The response to a call that was not run, or was not run to its end.
    pub(super) fn failed(
        &self,
        status: Status,
        form: RequestForm,
    ) -> Result<Response, HandlerError> {
        match self.kind {
            Kind::Raw => {
                let error = HandlerError::new(status.message());
                Err(error.with_status_code(status.code().as_u8()))
            }
            // The status is logged, because no caller receives it.
            _ if form.one_way => {
                let error = HandlerError::new(failures::with_causes(&status));
                Err(error.with_status_code(status.code().as_u8()))
            }
            _ => Ok(status_response(&status, form.plain)),
        }
    }

    #[inline]
    pub(super) fn respond(
        &self,
        reply: Reply,
        form: RequestForm,
    ) -> Result<Response, HandlerError> {
        match reply.body {
            Ok(body) if reply.outcome.is_ok() => Ok(body.into()),
            Ok(body) => {
                let code = reply.outcome.code().as_u8();
                Ok(Response::from(body).with_status_code(code))
            }
            Err(status) if reply.is_logged => self
                .failed(status, form)
                .map_err(HandlerError::already_logged),
            Err(status) => self.failed(status, form),
        }
    }
}

/// The properties of a request that its response depends on, even if the request cannot be read.
#[derive(Clone, Copy)]
pub(super) struct RequestForm {
    /// `true` if the caller speaks plain JSON.
    plain: bool,
    /// `true` if the reply is not read.
    one_way: bool,
}

impl RequestForm {
    pub(super) fn of(request: &Request) -> Self {
        Self {
            plain: is_plain(request.body()),
            one_way: request.is_one_way(),
        }
    }
}

/// The head of a call, and its arguments.
pub(super) struct CallHead {
    pub(super) ctx: CallContext,
    /// The encoded arguments, until they are decoded.
    arguments: Bytes,
    codec: CodecId,
    /// The compression of the arguments.
    compression: CompressionId,
    /// `true` if the caller speaks plain JSON.
    plain: bool,
    pub(super) deadline: Deadline,
}

/// A call whose head was read, with everything that does not depend on the types of its method.
pub(super) struct Call {
    method: Arc<Method>,
    request: Request,
    head: CallHead,
    extras: CallExtras,
}

/// The parts of a call that most calls do not have.
#[derive(Default)]
pub(super) struct CallExtras {
    /// `true` if the call is polled by a task of its own. The first poll of most calls is in the
    /// task of their connection.
    pub(super) has_task: bool,
    pub(super) permit: Option<Box<Permit>>,
    pub(super) streams: Option<Box<CallStreams>>,
    /// Counts the memory of decompressed arguments.
    pub(super) held: Option<Box<RunningCall>>,
    /// Ends the call at its deadline. Most calls end at once and need none.
    pub(super) timer: Option<Pin<Box<Sleep>>>,
}

/// The two directions of a call's stream, until the handler starts.
pub(super) struct CallStreams {
    pub(super) input: MessageReader,
    pub(super) send: SendStream,
}

impl Call {
    pub(super) fn context(&self) -> &CallContext {
        &self.head.ctx
    }

    pub(super) fn limits(&self) -> &DecodeLimits {
        &self.method.limits
    }

    pub(super) fn received(&self) -> (Instant, Duration) {
        (self.request.received_at(), self.request.waited())
    }

    /// Takes the streams of the call, once.
    pub(super) fn take_streams(&mut self) -> Option<CallStreams> {
        self.extras.streams.take().map(|streams| *streams)
    }

    /// Returns `true` if the caller does not read the reply.
    pub(super) fn is_one_way(&self) -> bool {
        self.request.is_one_way()
    }

    /// Decodes the arguments.
    pub(super) fn decode<A: FromArguments>(&mut self) -> Result<A, Status> {
        let body = self.decompress()?;
        A::decode(
            self.method.descriptor,
            self.head.codec,
            &body,
            self.limits(),
        )
        .map_err(|error| self.bad_arguments(&error))
    }

    /// Returns the encoded arguments. If they were compressed, the memory of their content counts
    /// as held by the call.
    fn decompress(&mut self) -> Result<Bytes, Status> {
        // Taken, so that the call does not keep the encoded arguments while the method runs.
        let mut body = std::mem::take(&mut self.head.arguments);
        if CompressionId::ANY && self.head.compression != CompressionId::NONE {
            let limits = &self.method.limits;
            let bad = |error| self.bad_arguments(&error);
            let size = decompressed_size(self.head.codec, self.head.compression, &body, limits);
            // The memory is counted before it is allocated.
            let held = self.request.hold(size.map_err(bad)?);
            let held = held.map_err(|full| reject_status(&full))?;
            decompress_in_place(self.head.compression, &mut body, limits).map_err(bad)?;
            self.extras.held = Some(Box::new(held));
        }
        Ok(body)
    }

    /// The status for arguments that could not be read.
    #[cold]
    fn bad_arguments(&self, error: &DecodeError) -> Status {
        let status = error.status_of_request("arguments", self.head.codec);
        status.in_method(self.method.descriptor)
    }

    /// Returns the data of a method bound to raw bytes.
    pub(super) fn raw_body(&mut self) -> Result<Bytes, Status> {
        let body = std::mem::take(&mut self.head.arguments);
        let checked = self.limits().check_size(&body);
        checked.map_err(|error| error.request_status())?;
        Ok(body)
    }

    pub(super) fn encoding(&self) -> crate::compression::Encoding {
        // Plain JSON has no place for the mark of a compression.
        let peer = self.head.ctx.peer().filter(|_| !self.head.plain);
        encoding(
            self.head.codec,
            self.method.compression,
            peer,
            self.limits(),
        )
    }

    /// Returns the times of a call that had to wait, or whose interceptors may have.
    pub(super) fn timing(&self) -> Option<ServerTiming> {
        let (received, waited) = self.received();
        self.extras.has_task.then(|| timing(received, waited))
    }

    pub(super) fn reply_form(&self) -> ReplyForm<'_> {
        ReplyForm {
            ctx: &self.head.ctx,
            encoding: self.encoding(),
            plain: self.head.plain,
            timing: self.timing(),
            limits: self.limits(),
        }
    }

    pub(super) fn reply_with_error<E: MethodError>(&self, error: &E) -> Reply {
        if self.is_one_way() {
            return Reply::failed(match error.as_status() {
                Some(status) => status.clone(),
                None => Status::unknown(error.to_string()),
            });
        }
        self.reply_form().error(error)
    }

    fn drop_handler(&self, typed: &mut dyn TypedHandler) {
        self.head.ctx.clone().enter(|| typed.drop_future());
    }

    fn respond(&mut self, reply: Reply) -> Result<Response, HandlerError> {
        // The place is free before the reply is written.
        if let Some(permit) = self.extras.permit.take() {
            permit.end();
        }
        let form = RequestForm {
            plain: self.head.plain,
            one_way: self.is_one_way(),
        };
        self.method.respond(reply, form)
    }

    fn poll_response(
        &mut self,
        typed: &mut dyn TypedHandler,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response, HandlerError>> {
        let reply = ready!(self.poll(typed, cx));
        Poll::Ready(self.respond(reply))
    }

    /// Runs the handler within the deadline, if the policy lets the deadline end it.
    fn poll(&mut self, typed: &mut dyn TypedHandler, cx: &mut Context<'_>) -> Poll<Reply> {
        // Cloned, because the handler gets the call and its context at the same time.
        let ctx = self.head.ctx.clone();
        if let Poll::Ready(reply) = ctx.enter(|| typed.poll(self, cx)) {
            let is_slow = reply.timing.is_some_and(|timing| timing.may_be_slow());
            if is_slow || !reply.outcome.is_ok() {
                self.record(&reply.outcome);
            }
            return Poll::Ready(reply);
        }
        let Some(at) = self.head.deadline.at else {
            self.extras.has_task = true;
            return Poll::Pending;
        };
        if self.method.descriptor.cancel_policy() != OnCancel::Abort {
            self.extras.has_task = true;
            return Poll::Pending;
        }
        // The next poll is in a task of its own, so the timer begins then.
        if !std::mem::replace(&mut self.extras.has_task, true) {
            return Poll::Pending;
        }
        let timer = self
            .extras
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at.into())));
        // A handler that uses up the budget of its task must not outlive its deadline.
        let mut timer = std::pin::pin!(tokio::task::unconstrained(timer.as_mut()));
        ready!(timer.as_mut().poll(cx));
        let reply = Reply::failed(self.head.deadline.over());
        self.record(&reply.outcome);
        Poll::Ready(reply)
    }

    /// Records a call that has failed or was slow.
    #[cold]
    fn record(&self, outcome: &Outcome) {
        let (received, waited) = self.received();
        recent::at_server(&self.head.ctx, outcome, received, waited);
    }
}

/// Creates the calls of a method.
pub(super) trait NewCall: Send + Sync {
    fn new_call(
        &self,
        method: &Arc<Method>,
        request: Request,
        head: CallHead,
        extras: CallExtras,
    ) -> Pin<Box<dyn TypedCall>>;
}

impl<B: MethodBody> NewCall for B {
    fn new_call(
        &self,
        method: &Arc<Method>,
        request: Request,
        head: CallHead,
        extras: CallExtras,
    ) -> Pin<Box<dyn TypedCall>> {
        // Allocated first, so that the call is built in its place and not moved there.
        let call = Box::write(
            Box::new_uninit(),
            BodyCall {
                call: Call {
                    method: Arc::clone(method),
                    request,
                    head,
                    extras,
                },
                body: Some(self.clone()),
                future: Running::No,
            },
        );
        Box::into_pin(call)
    }
}

/// A call with the types of its method.
pub(super) trait TypedCall: Future<Output = Result<Response, HandlerError>> + Send {
    fn poll_reply(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply>;
}

/// The handler of a call.
trait TypedHandler {
    /// Polls the user's method, and encodes its output. The first poll decodes the arguments and
    /// calls the method.
    fn poll(&mut self, call: &mut Call, cx: &mut Context<'_>) -> Poll<Reply>;

    /// Drops the future of the user's method.
    fn drop_future(&mut self);
}

pin_project! {
    // The future of the user's method, while it runs.
    //
    // Not an `Option`: after an edit of the method the compiler repeats its work on every function
    // whose type names this future, together with the other functions of the same module that the
    // user's crate instantiates. Those of `Option` and `Result` are many, so this file and the
    // bodies of methods call none of them, nor `?`, with a type that contains the future.
    #[project = RunningProjection]
    enum Running<F> {
        No,
        Yes {
            #[pin]
            future: F,
        },
    }
}

pin_project! {
    struct BodyCall<B: MethodBody> {
        call: Call,
        // Until the handler starts.
        body: Option<B>,
        #[pin]
        future: Running<B::Future>,
    }

    impl<B: MethodBody> PinnedDrop for BodyCall<B> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            // A handler that is dropped sees its context, as when it runs.
            if let RunningProjection::Yes { .. } = this.future.as_mut().project() {
                let (body, future) = (this.body, this.future);
                this.call.drop_handler(&mut BodyHandler::<B> { body, future });
            }
        }
    }
}

impl<B: MethodBody> TypedCall for BodyCall<B> {
    fn poll_reply(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply> {
        let this = self.project();
        let (body, future) = (this.body, this.future);
        this.call.poll(&mut BodyHandler::<B> { body, future }, cx)
    }
}

impl<B: MethodBody> Future for BodyCall<B> {
    type Output = Result<Response, HandlerError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (body, future) = (this.body, this.future);
        let mut handler = BodyHandler::<B> { body, future };
        this.call.poll_response(&mut handler, cx)
    }
}

/// The part of a [`BodyCall`] that depends on types.
struct BodyHandler<'a, B: MethodBody> {
    body: &'a mut Option<B>,
    future: Pin<&'a mut Running<B::Future>>,
}

impl<B: MethodBody> TypedHandler for BodyHandler<'_, B> {
    fn poll(&mut self, call: &mut Call, cx: &mut Context<'_>) -> Poll<Reply> {
        if let Some(body) = self.body.take() {
            match body.start(call, cx) {
                Ok(future) => self.future.set(Running::Yes { future }),
                Err(status) => return Poll::Ready(Reply::failed(status)),
            }
        }
        // The handler has ended, and is not polled again.
        let RunningProjection::Yes { future } = self.future.as_mut().project() else {
            return Poll::Pending;
        };
        let output = ready!(future.poll(cx));
        // Dropped before its output is encoded, and in the context of the call.
        self.future.set(Running::No);
        Poll::Ready(B::reply(output, call))
    }

    fn drop_future(&mut self) {
        self.future.set(Running::No);
    }
}
