//! The accept loop, the ages of connections, and the end of a server.

use std::future::Future;
use std::sync::OnceLock;
use std::task::{Context, Wake, Waker};

use super::*;
use crate::clock;
use crate::connection::Closing;
use crate::driver::Driver;
use crate::error::ConnectionError;
use crate::transport::{Connected, Connector, IoStream, MemoryConnector};

/// Records, when it is woken, whether the server had stopped listening.
struct Looks {
    connector: MemoryConnector,
    was_gone: OnceLock<bool>,
}

impl Wake for Looks {
    fn wake(self: Arc<Self>) {
        let mut connecting = self.connector.connect();
        let connected = connecting
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        self.was_gone
            .get_or_init(|| matches!(connected, std::task::Poll::Ready(Err(_))));
    }
}

#[tokio::test]
async fn many_connections_are_drained_at_different_moments_and_served_until_then() {
    const CONNECTIONS: usize = 200;
    let echo = crate::handler_fn(|request: crate::Request| async move {
        Ok::<_, crate::HandlerError>(crate::Response::from(request.into_body()))
    });
    let config = Server::builder().route("/echo", echo);
    let (server, connector) = config.in_memory().expect("a server");
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        // With a hello the client learns which calls were not executed.
        let client = crate::Client::builder().hello(serde_json::json!({}));
        let client = client.connect_with(connector.clone());
        clients.push(client.await.expect("a client"));
    }
    let connections: Vec<_> = clients
        .iter()
        .map(|client| client.ready_connection().expect("a connection"))
        .collect();
    let begun = clock::now();
    let ends = connections.iter().map(|connection| {
        let connection = connection.clone();
        tokio::spawn(async move {
            let error = connection.closed().await;
            assert!(matches!(error, ConnectionError::Ended), "{error}");
            begun.elapsed()
        })
    });
    let ends: Vec<_> = ends.collect();
    let shutdown = tokio::spawn(async move { server.shutdown(Duration::from_secs(100)).await });
    while connections
        .iter()
        .all(|connection| connection.ended().is_none())
    {
        tokio::task::yield_now().await;
    }
    let others = connections
        .iter()
        .filter(|connection| connection.ended().is_none());
    let mut replies = 0;
    for other in others {
        let call = other.call("/echo", "x", clock::after(begun, Duration::from_secs(60)));
        // The connection may have been notified since; such a call is not executed.
        match call.await {
            Ok(answer) => {
                assert_eq!(answer, "x");
                replies += 1;
            }
            Err(error) => assert_ne!(
                error.execution(),
                crate::Execution::MayHaveExecuted,
                "{error}"
            ),
        }
    }
    assert!(replies > 0, "those that were not told are served");
    let mut took = Vec::new();
    for end in ends {
        took.push(end.await.expect("the end"));
    }
    shutdown.await.expect("the shutdown");
    let (first, last) = (took.iter().min(), took.iter().max());
    let apart = first.zip(last).map(|(first, last)| *last - *first);
    assert!(apart >= Some(shutdown::TELL_TIME * 100), "{apart:?}");
}

#[tokio::test]
async fn the_ages_of_connections_differ_by_a_tenth_more_or_less() {
    let (age, grace) = (Duration::from_secs(1000), Duration::from_secs(7));
    let config = Server::builder().max_connection_age(age);
    let (server, _connector) = config
        .max_connection_grace(grace)
        .in_memory()
        .expect("a server");
    let mut ages = Vec::new();
    for _ in 0..100 {
        let before = clock::now();
        let (drain_at, end_at) = server.inner.ends().expect("an age is set");
        assert_eq!(end_at, drain_at + grace);
        let drawn = drain_at - before;
        assert!(
            (age * 9 / 10..age * 11 / 10 + grace).contains(&drawn),
            "{drawn:?}"
        );
        ages.push(drawn);
    }
    let (least, most) = (ages.iter().min(), ages.iter().max());
    assert!(
        most.zip(least)
            .is_some_and(|(most, least)| *most - *least > age / 20)
    );

    let (server, _connector) = Server::builder().in_memory().expect("a server");
    assert!(
        server.inner.ends().is_none(),
        "by default they live for ever"
    );
}

#[tokio::test]
async fn the_end_of_a_server_is_told_once_its_listener_is_gone() {
    let (server, connector) = Server::builder().in_memory().expect("a server");
    let looks = Arc::new(Looks {
        connector,
        was_gone: OnceLock::new(),
    });
    let waker = Waker::from(Arc::clone(&looks));
    let mut stopped = std::pin::pin!(server.stopped());
    let mut cx = Context::from_waker(&waker);
    assert!(stopped.as_mut().poll(&mut cx).is_pending());
    // The accept loop must have started to listen.
    tokio::task::yield_now().await;
    server.inner.stop_accepting();
    while looks.was_gone.get().is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(looks.was_gone.get(), Some(&true));
}

#[tokio::test]
async fn a_connection_that_is_forced_to_end_before_it_could_drain_says_goodbye_if_nothing_runs() {
    let (server, connector) = Server::builder().in_memory().expect("a server");
    let client = crate::Client::builder().connect_with(connector).await;
    let client = client.expect("a client");
    let connection = client.ready_connection().expect("a connection");
    server.inner.close_all(Closing::Force);
    assert!(matches!(connection.closed().await, ConnectionError::Ended));
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn the_task_of_a_connection_is_no_larger_than_its_driver_needs() {
    let (server, _connector) = Server::builder().in_memory().expect("a server");
    let (io, _other) = tokio::io::duplex(64);
    let connected = Connected {
        io: IoStream::new(io),
        addr: None,
        certificates: Vec::new(),
    };
    let guard = server.inner.admit(None).expect("a place");
    let task = Arc::clone(&server.inner).run(connected, guard);
    let driver = size_of::<Driver<IoStream>>();
    let task = size_of_val(&task);
    assert!(
        task < 2 * driver,
        "{task} bytes, of which the driver needs {driver}"
    );
}
