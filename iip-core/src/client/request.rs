//! The future of a raw call: it is made again on another connection while it has not run.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;

use super::chunks::ReplyParts;
use super::pick::{NotPicked, PickArgs, Picked};
use super::{CallOptions, Client, Moves};
use crate::balance::Outcome;
use crate::body::{Body, Data};
use crate::connection::{Call, CallTimes};
use crate::error::{CallError, CallErrorKind};
use crate::path::callable;
use crate::proto::Mode;

/// The future that waits for a connection. Boxed, because calls rarely have to wait and their
/// future stays small.
type Connecting<'a> =
    Pin<Box<dyn Future<Output = Result<(Picked, CallTimes, Moves), CallError>> + Send + 'a>>;

/// Maximum size of a body that is kept while its call is under way, so that the call can be retried
/// on another connection.
const KEPT_BYTES: usize = 64 * 1024;

/// A raw call from its beginning; returned by [`Client::request`]. Its output is the reply, or the
/// first part of one that is taken in parts.
pub(crate) struct Request<'a> {
    client: &'a Client,
    path: &'a str,
    body: Body,
    options: CallOptions,
    mode: Mode,
    moves: Moves,
    state: RequestState<'a>,
}

enum RequestState<'a> {
    /// The call has not been polled.
    New,
    /// The call waits for a connection.
    Connecting(Connecting<'a>),
    /// The call runs on its connection, unless that is lost before the request is sent.
    Started { call: Call, deadline: Instant },
}

impl<'a> Request<'a> {
    pub(crate) fn new(client: &'a Client, path: &'a str, body: Body, options: CallOptions) -> Self {
        Self {
            client,
            path,
            body,
            options,
            mode: Mode::Whole,
            moves: Moves::default(),
            state: RequestState::New,
        }
    }

    /// Makes the call, and takes the reply in parts.
    pub(crate) async fn into_parts(mut self) -> Result<ReplyParts, CallError> {
        self.mode = Mode::Parts;
        let first = (&mut self).await?;
        match self.state {
            RequestState::Started { call, .. } => Ok(ReplyParts::begun(call, first)),
            // Only a call that was started has a reply.
            _ => Err(CallError::not_sent(CallErrorKind::Closed)),
        }
    }

    fn start(&mut self, cx: &Context<'_>, picked: Picked, times: &CallTimes) {
        let (path, deadline) = (callable(self.path), times.deadline);
        let mut call = Call::new(picked.connection, times);
        call.track(picked.tracker);
        let body = &mut Kept::new(&mut self.body);
        call.start_now(cx, path, self.mode, body, deadline);
        self.state = RequestState::Started { call, deadline };
    }

    #[cold]
    fn connect(&mut self, times: CallTimes, not_picked: NotPicked) {
        let (client, path, key) = (self.client, self.path, self.options.key.clone());
        let moves = std::mem::take(&mut self.moves);
        self.state = RequestState::Connecting(Box::pin(async move {
            let (mut times, mut moves) = (times, moves);
            let args = PickArgs {
                path,
                key: key.as_deref(),
                tried: &moves.tried,
                ..PickArgs::of_no_call()
            };
            match client.wait_for(args, not_picked, &mut times).await {
                Ok(picked) => Ok((picked, times, moves)),
                Err(error) => Err(moves.outcome(error)),
            }
        }));
    }
}

impl Future for Request<'_> {
    type Output = Result<Bytes, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                RequestState::New => {
                    let times = this.client.times(this.options.timeout);
                    let args = || PickArgs {
                        path: this.path,
                        key: this.options.key.as_deref(),
                        ..PickArgs::of_no_call()
                    };
                    match this.client.pick(times.connected, args) {
                        Ok(picked) => this.start(cx, picked, &times),
                        Err(not_picked) => this.connect(times, not_picked),
                    }
                }
                RequestState::Connecting(connecting) => {
                    let connected = ready!(connecting.as_mut().poll(cx));
                    let failed = |error| this.client.record_failure(this.path, error);
                    let (picked, times, moves) = connected.map_err(failed)?;
                    this.moves = moves;
                    this.start(cx, picked, &times);
                }
                RequestState::Started { call, deadline } => {
                    // The poll takes this error away.
                    let unbegun = call.failure().is_some();
                    let polled = match this.mode {
                        Mode::Parts => call.poll_part(cx, Outcome::Success),
                        _ => Pin::new(&mut *call).poll(cx),
                    };
                    let error = match ready!(polled) {
                        Ok(reply) => return Poll::Ready(Ok(reply)),
                        Err(error) => this.moves.failed(error, call),
                    };
                    let mut times = CallTimes {
                        started: call.started,
                        connected: call.connected,
                        deadline: *deadline,
                    };
                    // An empty body means that it was too large to be kept for a retry.
                    let kept = !this.body.is_empty();
                    if !(kept && this.moves.goes_on(&error, unbegun, &mut times)) {
                        let error = this.moves.outcome(error);
                        return Poll::Ready(Err(this.client.record_failure(this.path, error)));
                    }
                    this.connect(times, NotPicked::default());
                }
            }
        }
    }
}

/// A body that its call may need for a retry. It stays in place and shares its memory with the data
/// that is sent. A large body is not kept: it is empty afterwards.
pub(crate) struct Kept<'a> {
    body: &'a mut Body,
    is_large: bool,
}

impl<'a> Kept<'a> {
    pub(crate) fn new(body: &'a mut Body) -> Self {
        let is_large = body.len() > KEPT_BYTES;
        Self { body, is_large }
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        if self.is_large {
            *self.body = Body::default();
        }
    }
}

impl Data for Kept<'_> {
    const COPIED_BYTES: usize = Body::COPIED_BYTES;

    #[inline]
    fn pieces(&self) -> [&[u8]; 2] {
        self.body.pieces()
    }

    fn take(&mut self) -> Body {
        if self.is_large {
            self.body.take()
        } else {
            self.body.clone()
        }
    }

    fn take_piece(&mut self, index: usize) -> Bytes {
        if self.is_large {
            self.body.take_piece(index)
        } else {
            // A clone shares the memory, so nothing is copied.
            self.body.clone().take_piece(index)
        }
    }
}
