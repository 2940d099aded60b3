//! Work that is deferred until a connection's lock is released. Waking and dropping values of
//! callers and handlers may run their code, which may use the connection again.

use std::task::Waker;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::body::Body;
use crate::cancel::CancelToken;

/// A list of deferred work, in order. The owner of the lock adds to it, and the guard of the lock
/// takes it when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Deferred(Vec<Work>);

#[derive(Debug)]
enum Work {
    Wake(Waker),
    DropWaker(Waker),
    DropBody(Body),
    Abort(AbortHandle),
    Cancel(CancelToken),
    NotifyReady,
}

impl Deferred {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn wake(&mut self, wakers: impl IntoIterator<Item = Waker>) {
        self.0.extend(wakers.into_iter().map(Work::Wake));
    }

    pub(crate) fn drop_waker(&mut self, waker: Option<Waker>) {
        self.0.extend(waker.map(Work::DropWaker));
    }

    /// Stores the waker in `place`.
    pub(crate) fn keep_waker(&mut self, place: &mut Option<Waker>, waker: &Waker) {
        // A task that is polled again mostly has the same waker, and the clone is saved.
        if !place.as_ref().is_some_and(|known| known.will_wake(waker)) {
            let before = place.replace(waker.clone());
            self.drop_waker(before);
        }
    }

    pub(crate) fn drop_body(&mut self, body: Body) {
        if !body.is_empty() {
            self.0.push(Work::DropBody(body));
        }
    }

    /// Aborts the task. If the runtime is shutting down, that drops the task's future at once.
    pub(crate) fn abort(&mut self, task: AbortHandle) {
        self.0.push(Work::Abort(task));
    }

    pub(crate) fn cancel(&mut self, token: CancelToken) {
        self.0.push(Work::Cancel(token));
    }

    pub(crate) fn notify_ready(&mut self) {
        self.0.push(Work::NotifyReady);
    }

    /// Runs the work, without the lock.
    pub(crate) fn run(self, ready: &Notify) {
        for work in self.0 {
            match work {
                Work::Wake(waker) => waker.wake(),
                Work::DropWaker(waker) => drop(waker),
                Work::DropBody(body) => drop(body),
                Work::Abort(task) => task.abort(),
                Work::Cancel(token) => token.cancel(),
                Work::NotifyReady => ready.notify_waiters(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex, mpsc};
    use std::task::{Context, Poll, Wake};
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::{
        Call, Client, ClientBuilder, Connection, HandlerError, Limits, ReplyStream, Request,
        RequestMode, Response, Server, ServerBuilder, handler_fn,
    };

    /// Runs `work` on its own thread, and fails if it does not end: a lock that is awaited by its
    /// owner blocks the whole thread.
    fn ends<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send + 'static) {
        let (done, end) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(work());
            drop(runtime);
            let _ = done.send(());
        });
        match end.recv_timeout(Duration::from_secs(60)) {
            Ok(()) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                if let Err(panic) = thread.join() {
                    std::panic::resume_unwind(panic);
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("somebody waits for its own lock"),
        }
    }

    /// Uses a connection again when it is woken and when it is dropped.
    struct Looks {
        connection: Connection,
        /// Dropped with this value.
        _call: Option<Mutex<Call>>,
        seen: Arc<AtomicUsize>,
    }

    impl Wake for Looks {
        fn wake(self: Arc<Self>) {
            let _ = self.connection.ended();
        }
    }

    impl Drop for Looks {
        fn drop(&mut self) {
            let _ = self.connection.ended();
            self.seen.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Wakers {
        connection: Connection,
        made: usize,
        dropped: Arc<AtomicUsize>,
    }

    impl Wakers {
        fn new(connection: &Connection) -> Self {
            Self {
                connection: connection.clone(),
                made: 0,
                dropped: Arc::default(),
            }
        }

        fn next(&mut self, call: Option<Call>) -> Waker {
            self.made += 1;
            Waker::from(Arc::new(Looks {
                connection: self.connection.clone(),
                _call: call.map(Mutex::new),
                seen: Arc::clone(&self.dropped),
            }))
        }

        /// Polls with one waker, and then with another one that replaces it.
        fn poll_twice<F: Future + ?Sized>(&mut self, mut future: Pin<&mut F>) {
            for _ in 0..2 {
                let waker = self.next(None);
                let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
                assert!(polled.is_pending());
            }
        }

        async fn are_dropped(&self) {
            while self.dropped.load(Ordering::Relaxed) < self.made {
                tokio::task::yield_now().await;
            }
        }
    }

    fn never() -> impl crate::Handler {
        handler_fn(|_: Request| std::future::pending::<Result<Response, HandlerError>>())
    }

    async fn connected(
        server: ServerBuilder,
        client: ClientBuilder,
    ) -> (Server, Client, Connection) {
        let echo = handler_fn(|request: Request| async move {
            Ok::<_, HandlerError>(Response::from(request.into_body()))
        });
        let stream = handler_fn(|mut request: Request| async move {
            let _both = request.stream();
            std::future::pending::<Result<Response, HandlerError>>().await
        });
        let server = server
            .route("/echo", echo)
            .route("/never", never())
            .route("/stream", stream.request_mode(RequestMode::Stream));
        let (server, connector) = server.in_memory().expect("a server");
        let client = client.hello(serde_json::json!({})).connect_with(connector);
        let client = client.await.expect("a client");
        let connection = client.ready_connection().expect("a connection");
        (server, client, connection)
    }

    fn soon() -> std::time::Instant {
        crate::clock::after(crate::clock::now(), Duration::from_secs(30))
    }

    #[test]
    fn wakers_of_calls_may_come_back_to_the_connection() {
        ends(|| async {
            let (_server, client, connection) =
                connected(Server::builder(), Client::builder().max_channels(1)).await;
            let mut wakers = Wakers::new(&connection);
            // One call is given up while it runs, the other while it waits for the only channel.
            let mut running = connection.call("/never", "x", soon());
            wakers.poll_twice(Pin::new(&mut running));
            let mut waiting = connection.call("/echo", "x", soon());
            wakers.poll_twice(Pin::new(&mut waiting));
            // This waker owns another call.
            let owned = connection.call("/echo", "x", soon());
            let waker = wakers.next(Some(owned));
            let polled = Pin::new(&mut waiting).poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
            drop(waker);
            drop(waiting);
            drop(running);
            // A channel that is returned goes to a caller that waits for it.
            let channel = client.open_channel().await.expect("a channel");
            let mut lease = Box::pin(client.open_channel());
            wakers.poll_twice(lease.as_mut());
            drop(channel);
            drop(lease.await.expect("a channel"));
            wakers.are_dropped().await;
            // One call is replied, and one ends with the connection.
            let mut call = connection.call("/echo", "x", soon());
            wakers.poll_twice(Pin::new(&mut call));
            assert_eq!(call.await.expect("a reply"), "x");
            let mut lost = connection.call("/never", "x", soon());
            wakers.poll_twice(Pin::new(&mut lost));
            client.close(Duration::ZERO).await;
            assert!(lost.await.is_err());
            wakers.are_dropped().await;
        });
    }

    #[test]
    fn wakers_of_streams_may_come_back_to_the_connection() {
        ends(|| async {
            let (_server, client, connection) =
                connected(Server::builder(), Client::builder()).await;
            let mut wakers = Wakers::new(&connection);
            for cuts in [true, false] {
                let opened = client.open_stream("/stream", "x").await;
                let (mut send, mut recv) = opened.expect("a stream");
                wakers.poll_twice(pin!(std::future::poll_fn(|cx| recv.poll_next(cx))));
                // This is more than the credit allows.
                let mut cx = Context::from_waker(Waker::noop());
                while send.poll_ready(&mut cx).is_ready() {
                    let sent = send.start_send(&cx, vec![0; 64 * 1024]);
                    sent.expect("the call is under way");
                    tokio::task::yield_now().await;
                }
                wakers.poll_twice(pin!(std::future::poll_fn(|cx| send.poll_ready(cx))));
                if cuts {
                    drop(send);
                    drop(recv);
                } else {
                    drop(recv);
                    drop(send);
                }
            }
            wakers.are_dropped().await;
        });
    }

    /// Uses the connection of a server again when it is woken or dropped.
    struct Holds {
        _reply: Mutex<Option<ReplyStream>>,
    }

    impl Wake for Holds {
        fn wake(self: Arc<Self>) {}
    }

    impl AsRef<[u8]> for Holds {
        fn as_ref(&self) -> &[u8] {
            b"a body whose owner holds a part of the call"
        }
    }

    #[test]
    fn wakers_and_bodies_of_handlers_may_come_back_to_the_connection() {
        ends(|| async {
            let parts = handler_fn(|mut request: Request| async move {
                let mut parts = request.parts().expect("it takes parts");
                let _reply = Mutex::new(request.reply());
                let waker = Waker::from(Arc::new(Holds { _reply }));
                // The first parts have arrived. The task that waits for the next one is woken when
                // it arrives, or the call is over.
                while pin!(parts.next())
                    .poll(&mut Context::from_waker(&waker))
                    .is_ready()
                {}
                // The connection has the last waker.
                drop(waker);
                std::future::pending::<Result<Response, HandlerError>>().await
            });
            let body = handler_fn(|mut request: Request| async move {
                let reply = Mutex::new(request.reply());
                let owner = Holds { _reply: reply };
                Ok::<_, HandlerError>(Response::from(Bytes::from_owner(owner)))
            });
            let later = handler_fn(|mut request: Request| async move {
                tokio::task::yield_now().await;
                let reply = Mutex::new(request.reply());
                let owner = Holds { _reply: reply };
                Ok::<_, HandlerError>(Response::from(Bytes::from_owner(owner)))
            });
            let server = Server::builder()
                .route("/parts", parts.request_mode(RequestMode::Parts))
                .route("/body", body.request_mode(RequestMode::Parts))
                .route("/later", later.request_mode(RequestMode::Parts));
            let limits = Limits::default().chunk_bytes(1024);
            let (_server, client, connection) =
                connected(server, Client::builder().limits(limits)).await;
            for path in ["/body", "/later"] {
                let reply = client.request(path, "x").await.expect("a reply");
                assert!(reply.starts_with(b"a body"), "{reply:?}");
            }
            // Parts arrive while the handler waits, and then its caller goes.
            let long = connection.call("/parts", vec![0; 2 << 20], soon());
            for _ in 0..100 {
                client.request("/echo", "x").await.expect("a reply");
            }
            drop(long);
            client.request("/echo", "x").await.expect("a reply");
        });
    }

    /// Makes a call when it is dropped.
    struct Calls(Connection, usize);

    impl AsRef<[u8]> for Calls {
        fn as_ref(&self) -> &[u8] {
            &[7; 4000][..self.1]
        }
    }

    impl Drop for Calls {
        fn drop(&mut self) {
            drop(self.0.call("/echo", "dropped", soon()));
        }
    }

    #[test]
    fn owners_of_bodies_may_make_calls_when_they_are_dropped() {
        ends(|| async {
            let (_server, client, connection) =
                connected(Server::builder(), Client::builder().max_channels(2)).await;
            // The three sizes are copied, copied from a queue, and moved.
            let body = |size| Bytes::from_owner(Calls(connection.clone(), size));
            for size in [10, 1200, 4000] {
                let calls: Vec<_> = (0..20)
                    .map(|_| connection.call("/echo", body(size), soon()))
                    .collect();
                for call in calls {
                    assert_eq!(call.await.expect("a reply").len(), size);
                }
                // These calls are given up while they wait.
                let calls: Vec<_> = (0..20)
                    .map(|_| connection.call("/never", body(size), soon()))
                    .collect();
                drop(calls);
                let split = Body::split(body(10), body(4000));
                let call = connection.call("/echo", split, soon());
                assert_eq!(call.await.expect("a reply").len(), 4010);
                let (mut send, recv) = client
                    .open_stream("/stream", body(size))
                    .await
                    .expect("a stream");
                for _ in 0..3 {
                    send.send(body(size)).await.expect("it is taken");
                }
                let mut cx = Context::from_waker(Waker::noop());
                while let Poll::Ready(Ok(())) = send.poll_ready(&mut cx) {
                    let sent = send.start_send(&cx, body(4000));
                    sent.expect("the call is under way");
                    tokio::task::yield_now().await;
                }
                // The rest of the data waits with the call, and is dropped with it.
                send.finish();
                drop(send);
                drop(recv);
            }
        });
    }
}
