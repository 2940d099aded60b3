//! The task of a handler that has to wait, and its reply.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::catch_panic::{CatchPanic, dispose};
use super::incoming::Received;
use super::outcome::{code_of, on_failed, on_panic, record, reply_of};
use crate::body::Body;
use crate::cancel::OnCancel;
use crate::connection::running::Running;
use crate::connection::{RunningCall, Shared};
use crate::frame::ChannelId;
use crate::handler::Handler;
use crate::proto::{RequestPath, control, is_one_way};
use crate::stats::{INTERNAL, OK};
use crate::totals::Counted;

/// A handler that was polled once and has to wait.
pub(super) struct SuspendedHandler {
    pub(super) handler: Arc<dyn Handler>,
    pub(super) path: Arc<RequestPath>,
    pub(super) received: Received,
    pub(super) tag: bool,
    pub(super) future: CatchPanic,
    pub(super) counted: Counted,
    /// Number of bytes of the request that the handler holds.
    pub(super) bytes: usize,
}

/// Moves a handler that has to wait to its own task.
pub(super) fn spawn(
    shared: &Arc<Shared>,
    channel: ChannelId,
    running: Running,
    waiting: SuspendedHandler,
    streams: bool,
) {
    let SuspendedHandler {
        handler,
        path,
        received,
        tag,
        future,
        counted,
        bytes,
    } = waiting;
    let connection = Arc::clone(shared);
    let (serial, policy) = (running.serial, running.policy);
    // The entry must exist before the task can end. A handler that streams has its own entry
    // already, and may have replied.
    let mut state = shared.lock();
    let is_over = streams && !state.is_running(channel, serial);
    if !streams {
        state.proto.count_begin(channel);
        state.running.insert(channel, running);
    }
    // The guard below releases these bytes.
    state.proto.hold(bytes);
    drop(state);
    let run = HandlerTask {
        future,
        _running: RunningCall::new(Arc::clone(shared), counted, bytes),
    };
    // This must not run under the lock: a runtime that is shutting down drops the handler here.
    let task = tokio::spawn(async move {
        let result = run.await;
        if let Ok(result) = &result {
            on_failed(&connection, &path, result, is_one_way(channel));
            if code_of(result) != OK || received.may_be_slow() {
                record(&connection, &*handler, &path, received, result);
            }
        }
        let (code, body) = match result {
            Ok(result) => (code_of(&result), reply_of(result)),
            Err(panic) => {
                let body = on_panic(&connection, &*handler, &path, received, panic, tag);
                (INTERNAL, Some(body))
            }
        };
        if let Some(body) = body {
            send_reply(&connection, channel, serial, (code, body), &*handler, tag);
        }
    });
    let task = task.abort_handle();
    let mut state = shared.lock();
    let running = state.running.get_mut(&channel);
    match running.filter(|running| running.serial == serial) {
        // From now on a cancellation can abort the task.
        Some(running) => running.task = Some(task),
        // The call was cancelled, or has ended, in the meantime.
        None if policy == OnCancel::Abort && !is_over => task.abort(),
        None => {}
    }
}

/// Sends the reply of a handler that had to wait, or the reason why it was dropped: the replies of
/// all running calls could take many times the memory allowed for a caller that does not read.
fn send_reply(
    shared: &Shared,
    channel: ChannelId,
    serial: u64,
    (code, mut body): (u8, Body),
    handler: &dyn Handler,
    tag: bool,
) {
    let reason = shared.command(|state| {
        let reason = state.reason_to_drop(body.len());
        if reason.is_none() {
            state.end_with(channel, serial, code, &mut body);
        }
        reason
    });
    if let Some(reason) = reason {
        let refused = AssertUnwindSafe(|| handler.reject(&reason, tag));
        // The reply itself is dropped here, without the lock.
        body = catch_unwind(refused).unwrap_or_else(|panic| {
            dispose(panic);
            control::NO_RESPONSE.into()
        });
        let code = reason.status_code();
        shared.command(|state| state.end_with(channel, serial, code, &mut body));
    }
}

/// A handler in its own task. The order matters: fields are dropped in the order of their
/// declaration, so that the handler is gone when it no longer counts.
struct HandlerTask {
    future: CatchPanic,
    _running: RunningCall,
}

impl Future for HandlerTask {
    type Output = <CatchPanic as Future>::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.future).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::clock;
    use crate::handler::{Request, Response, handler_fn};
    use crate::handler_error::HandlerError;
    use crate::totals::{Share, Totals};

    /// Records, when it is dropped, the number of handlers that its connection counts.
    struct CountedAtDrop(Arc<Shared>, Arc<AtomicUsize>);

    impl Drop for CountedAtDrop {
        fn drop(&mut self) {
            let counted = self.0.share.as_ref().map_or(0, Share::running);
            self.1.store(counted, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_handler_whose_task_is_aborted_before_it_runs_is_counted_until_it_is_dropped() {
        const NEVER: usize = usize::MAX;
        let share = Share::new(&Totals::new(1, 0), None);
        let shared = Shared::of_server(Some(share));
        let seen = Arc::new(AtomicUsize::new(NEVER));
        let held = CountedAtDrop(Arc::clone(&shared), Arc::clone(&seen));
        let waiting = SuspendedHandler {
            handler: Arc::new(handler_fn(|_: Request| async {
                Err::<Response, _>(HandlerError::new("not called"))
            })),
            path: Arc::default(),
            received: Received {
                at: clock::now(),
                waited: Duration::ZERO,
            },
            tag: false,
            future: CatchPanic(Some(Box::pin(async move {
                let _held = held;
                std::future::pending().await
            }))),
            counted: Counted::Now,
            bytes: 0,
        };
        let running = Running::new(1, OnCancel::Abort, None);
        spawn(&shared, ChannelId(1), running, waiting, false);
        // On this runtime the task runs only when this one waits, so it is aborted before its first
        // poll.
        shared.lock().on_cancelled(ChannelId(1));
        while seen.load(Ordering::Relaxed) == NEVER {
            tokio::task::yield_now().await;
        }
        assert_eq!(seen.load(Ordering::Relaxed), 1, "while it was dropped");
        while shared.share.as_ref().map_or(0, Share::running) != 0 {
            tokio::task::yield_now().await;
        }
    }
}
