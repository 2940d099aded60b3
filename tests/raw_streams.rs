//! Calls with a stream of bytes each way, on the raw layer: flow control, ends, cancellation.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use iip_core::{
    CallErrorKind, Client, ClientBuilder, Execution, HandlerError, Limits, OnCancel, RecvStream,
    Request, RequestMode, Response, SendStream, Server, ServerBuilder, StreamError, handler_fn,
};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::common::generate::lin;
use crate::common::{MIB, Started, all_run, bound, eventually, spawn, started, stream_fn, within};

/// Sends back what it reads, and replies with the number of bytes.
async fn echo(mut request: Request) -> Result<Response, HandlerError> {
    let Some((mut send, mut recv)) = request.stream() else {
        return Ok("whole".into());
    };
    let mut count = 0;
    while let Some(part) = recv.next().await {
        let part = part.map_err(|error| HandlerError::new(error.to_string()))?;
        count += part.len();
        if send.send(part).await.is_err() {
            break;
        }
    }
    Ok(count.to_string().into())
}

/// Reads the whole stream and sends nothing.
async fn count(mut request: Request) -> Result<Response, HandlerError> {
    let (_send, mut recv) = request.stream().unwrap();
    let mut count = 0;
    while let Some(part) = recv.next().await {
        count += part
            .map_err(|error| HandlerError::new(error.to_string()))?
            .len();
    }
    Ok(count.to_string().into())
}

/// Sends `?n=` bytes.
async fn generate(mut request: Request) -> Result<Response, HandlerError> {
    let n: usize = request.query_param("n").unwrap().parse().unwrap();
    let (mut send, _recv) = request.stream().unwrap();
    let mut data = Bytes::from(lin(7, n));
    while !data.is_empty() {
        let part = data.split_to(data.len().min(10_000));
        if send.send(part).await.is_err() {
            break;
        }
    }
    Ok("that was all".into())
}

/// Returns a client that sends a hello: without it the sides do not know that both support streams.
fn talkative() -> ClientBuilder {
    Client::builder().hello(serde_json::json!({}))
}

struct Fixture {
    _server: Server,
    client: Client,
}

async fn fixture(limits: Limits) -> Fixture {
    let config = Server::builder()
        .limits(limits.clone())
        .route("/echo", stream_fn(echo))
        .route("/count", stream_fn(count))
        .route("/generate", stream_fn(generate))
        .route(
            "/whole",
            handler_fn(|request: Request| async move {
                Ok::<_, HandlerError>(Response::from(request.into_body()))
            }),
        );
    served(config, limits).await
}

/// A server, and a client with these limits.
async fn served(server: ServerBuilder, limits: Limits) -> Fixture {
    let (server, addr) = bound(server).await;
    let client = talkative().limits(limits).connect(addr.to_string());
    Fixture {
        _server: server,
        client: client.await.unwrap(),
    }
}

/// A handler that takes a stream and never replies.
async fn hang(mut request: Request) -> Result<Response, HandlerError> {
    let _streams = request.stream().unwrap();
    std::future::pending().await
}

async fn read_all(recv: &mut RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(part) = within("the next bytes", recv.next()).await {
        all.extend_from_slice(&part.unwrap());
    }
    all
}

fn reply(recv: &mut RecvStream) -> String {
    let reply = recv.reply().expect("the stream has ended");
    String::from_utf8(reply.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn bytes_come_back_in_order_and_the_reply_after_them() {
    let Fixture { client, _server } = fixture(Limits::default()).await;
    let (mut send, mut recv) = client.open_stream("/echo", "first, ").await.unwrap();
    send.send("second, ").await.unwrap();
    send.send("third").await.unwrap();
    send.finish();
    assert_eq!(read_all(&mut recv).await, b"first, second, third");
    assert_eq!(reply(&mut recv), "20");
    assert!(recv.reply().is_none(), "only once");
    assert!(recv.next().await.is_none());
}

#[tokio::test]
async fn each_side_may_send_before_the_other_has_ended() {
    let Fixture { client, _server } = fixture(Limits::default()).await;
    let (mut send, mut recv) = client.open_stream("/echo", "0").await.unwrap();
    assert_eq!(recv.next().await.unwrap().unwrap(), "0");
    for turn in 1..100_u32 {
        let text = turn.to_string();
        send.send(text.clone()).await.unwrap();
        let echo = within("the echo", recv.next()).await;
        assert_eq!(echo.unwrap().unwrap(), text);
    }
    send.finish();
    assert!(recv.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_any_window_passes_in_both_directions_at_once() {
    const SIZE: usize = 20 * MIB;
    let Fixture { client, _server } = fixture(Limits::default()).await;
    let (mut send, mut recv) = client.open_stream("/echo", lin(0, 3)).await.unwrap();
    let all = lin(1, SIZE);
    let sending = {
        let all = Bytes::from(all.clone());
        spawn(async move {
            // One large message: it is split and blocked by flow control.
            send.send(all).await.unwrap();
            send.finish();
        })
    };
    let back = read_all(&mut recv).await;
    assert!(back[..3] == lin(0, 3) && back[3..] == all[..]);
    assert_eq!(reply(&mut recv), (SIZE + 3).to_string());
    sending.await.unwrap();
}

#[tokio::test]
async fn a_beginning_larger_than_a_frame_and_a_window_arrives_whole() {
    for limits in [
        Limits::default(),
        // Frames of a kibibyte, and windows that are a little larger.
        Limits::default()
            .chunk_bytes(1024)
            .stream_window(1024)
            .max_stream_window(1024),
    ] {
        let Fixture { client, _server } = fixture(limits).await;
        let all = lin(5, 300_000);
        let (mut send, mut recv) = client.open_stream("/echo", all.clone()).await.unwrap();
        let sending = async {
            send.send("!").await.unwrap();
            send.finish();
        };
        let ((), back) = tokio::join!(sending, read_all(&mut recv));
        assert!(back[..all.len()] == all && &back[all.len()..] == b"!");
        assert_eq!(reply(&mut recv), "300001");
    }
}

#[tokio::test]
async fn a_stalled_reader_blocks_its_writer_and_no_other_call() {
    let limits = Limits::default().stream_window(64 * 1024);
    let Fixture { client, _server } = fixture(limits).await;
    let (_send, mut recv) = client
        .open_stream("/generate?n=10000000", "go")
        .await
        .unwrap();
    let first = within("the first bytes", recv.next())
        .await
        .unwrap()
        .unwrap();
    // Other calls on the same connection continue.
    for _ in 0..100 {
        assert_eq!(client.request("/whole", "x").await.unwrap(), "x");
    }
    let rest = read_all(&mut recv).await;
    assert_eq!(first.len() + rest.len(), 10_000_000);
    assert_eq!(reply(&mut recv), "that was all");
}

#[tokio::test]
async fn a_stalled_reader_holds_its_window_and_one_frame() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&sent);
    let handler = move |mut request: Request| {
        let sent = Arc::clone(&counts);
        async move {
            let (mut send, _recv) = request.stream().unwrap();
            while send.send(vec![0; 1000]).await.is_ok() {
                sent.fetch_add(1000, Ordering::SeqCst);
            }
            Ok::<_, HandlerError>(Response::from("over"))
        }
    };
    let server = Server::builder().route("/", stream_fn(handler));
    let limits = Limits::default().stream_window(100_000);
    let Fixture { client, _server } = served(server, limits).await;
    let (_send, mut recv) = client.open_stream("/", "go").await.unwrap();
    // The handler does not read. The credit is used up, and no more is sent.
    eventually("the window is full", || {
        sent.load(Ordering::SeqCst) >= 100_000
    })
    .await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let maximum = sent.load(Ordering::SeqCst);
    assert!(
        maximum <= 101_000,
        "{maximum} bytes for a window of 100,000"
    );
    let mut taken = 0;
    while taken < 50_000 {
        let part = within("the next bytes", recv.next()).await;
        taken += part.unwrap().unwrap().len();
    }
    eventually("it goes on", || sent.load(Ordering::SeqCst) > maximum).await;
}

#[tokio::test]
async fn dropping_the_reader_cancels_the_call_and_its_channel_is_used_again() {
    let gone = Arc::new(Notify::new());
    let cut = Arc::new(AtomicBool::new(false));
    let (tell, was_cut) = (Arc::clone(&gone), Arc::clone(&cut));
    let handler = move |mut request: Request| {
        let (tell, was_cut) = (Arc::clone(&tell), Arc::clone(&was_cut));
        async move {
            let cancelled = request.cancelled();
            let (mut send, mut recv) = request.stream().unwrap();
            cancelled.cancelled().await;
            was_cut.store(send.send("x").await.is_ok(), Ordering::SeqCst);
            drop((send, recv.next()));
            tell.notify_one();
            Ok::<_, HandlerError>(Response::from("too late"))
        }
    };
    let server = Server::builder()
        .route("/wait", stream_fn(handler).on_cancel(OnCancel::Token))
        .route("/echo", stream_fn(echo));
    let Fixture { client, _server } = served(server, Limits::default().max_channels(1)).await;
    let (_send, recv) = client.open_stream("/wait", "go").await.unwrap();
    drop(recv);
    within("the handler is notified", gone.notified()).await;
    for _ in 0..3 {
        let (mut send, mut recv) = client.open_stream("/echo", "again").await.unwrap();
        send.finish();
        assert_eq!(read_all(&mut recv).await, b"again");
        assert_eq!(reply(&mut recv), "5");
    }
}

#[tokio::test]
async fn a_handler_that_is_aborted_frees_its_channel() {
    struct Leaves(watch::Sender<bool>);
    impl Drop for Leaves {
        fn drop(&mut self) {
            self.0.send_replace(true);
        }
    }
    let (left, mut leaves) = watch::channel(false);
    let handler = move |request: Request| {
        let guard = Leaves(left.clone());
        async move {
            let _guard = guard;
            hang(request).await
        }
    };
    let server = Server::builder().route("/hang", stream_fn(handler));
    let Fixture { client, _server } = served(server, Limits::default()).await;
    let (_send, recv) = client.open_stream("/hang", "go").await.unwrap();
    drop(recv);
    within("the handler was dropped", leaves.wait_for(|left| *left))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_stream_ends_at_its_timeout() {
    let Fixture { client, _server } = fixture(Limits::default()).await;
    let (mut send, mut recv) = client.open_stream("/echo", "x").await.unwrap();
    assert_eq!(recv.next().await.unwrap().unwrap(), "x");
    let soon = std::time::Instant::now() + Duration::from_millis(50);
    recv.set_deadline(soon);
    assert!(within("the end", recv.next()).await.is_none());
    let error = recv.reply().unwrap().unwrap_err();
    assert!(matches!(error.kind(), CallErrorKind::Timeout), "{error}");
    assert_eq!(error.execution(), Execution::MayHaveExecuted);
    assert_eq!(send.send("y").await, Err(StreamError::Over));
    assert_eq!(client.request("/whole", "x").await.unwrap(), "x");
}

#[tokio::test]
async fn a_reply_before_the_end_of_the_request_ends_the_call() {
    let handler = |mut request: Request| async move {
        let (_send, mut recv) = request.stream().unwrap();
        let first = recv.next().await.unwrap().unwrap();
        Ok::<_, HandlerError>(Response::from(first))
    };
    let server = Server::builder().route("/first", stream_fn(handler));
    let Fixture { client, _server } = served(server, Limits::default()).await;
    for _ in 0..10 {
        let (mut send, mut recv) = client.open_stream("/first", "enough").await.unwrap();
        let sending = async { while send.send(vec![1; 10_000]).await.is_ok() {} };
        let ((), rest) = tokio::join!(sending, read_all(&mut recv));
        assert_eq!(rest, b"");
        assert_eq!(reply(&mut recv), "enough");
    }
}

#[tokio::test]
async fn a_method_without_streams_rejects_one() {
    let Fixture { client, _server } = fixture(Limits::default()).await;
    let (_send, mut recv) = client.open_stream("/whole", "x").await.unwrap();
    assert!(within("the end", recv.next()).await.is_none());
    assert_eq!(
        reply(&mut recv),
        r#"{"code":-1,"message":"handler fail:this method takes no stream"}"#
    );
    let (_send, mut recv) = client.open_stream("/nothing", "x").await.unwrap();
    assert!(within("the end", recv.next()).await.is_none());
    assert_eq!(reply(&mut recv), r#"{"code":102,"message":"handle error"}"#);
    assert_eq!(client.request("/echo", "x").await.unwrap(), "whole");
}

#[tokio::test]
async fn a_handler_whose_caller_vanishes_sees_a_cut_stream() {
    let (end, mut ended) = watch::channel(None);
    let handler = move |mut request: Request| {
        let end = end.clone();
        async move {
            let (_send, mut recv) = request.stream().unwrap();
            let mut last = recv.next().await;
            while let Some(Ok(_)) = last {
                last = recv.next().await;
            }
            end.send_replace(Some(last.map(Result::unwrap_err)));
            Ok::<_, HandlerError>(Response::from("over"))
        }
    };
    let handler = stream_fn(handler).on_cancel(OnCancel::RunToEnd);
    let server = Server::builder().route("/", handler);
    let Fixture { client, _server } = served(server, Limits::default()).await;
    let (send, recv): (SendStream, RecvStream) = client.open_stream("/", "go").await.unwrap();
    client.close(Duration::ZERO).await;
    let seen = within("its end", ended.wait_for(Option::is_some))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(seen, Some(StreamError::Cut), "not as if it had ended");
    drop((send, recv));
}

#[tokio::test]
async fn a_writer_learns_that_its_reader_was_dropped() {
    let server = Server::builder().route("/hang", stream_fn(hang));
    let Fixture { client, _server } = served(server, Limits::default().max_channels(1)).await;
    let (send, recv) = client.open_stream("/hang", "go").await.unwrap();
    let first = waiting_writer(send).await;
    // The same for a call that still waits for its channel.
    let (send, queued) = client.open_stream("/hang", "go").await.unwrap();
    let second = waiting_writer(send).await;
    for (reader, writer) in [(queued, second), (recv, first)] {
        drop(reader);
        let notified = within("the writer is notified", writer).await;
        assert_eq!(notified.unwrap(), Err(StreamError::Over));
    }
}

/// Starts a task that sends more than the window, and waits until it is blocked.
async fn waiting_writer(mut send: SendStream) -> JoinHandle<Result<(), StreamError>> {
    let (tell, mut notified) = watch::channel(false);
    let writer = spawn(async move {
        let sending = started(send.send(vec![0; 10 * MIB])).await;
        assert!(
            matches!(sending, Started::Running(_)),
            "the peer does not read"
        );
        tell.send_replace(true);
        sending.finish().await
    });
    within("it waits", notified.wait_for(|notified| *notified))
        .await
        .unwrap();
    writer
}

/// Waits until a new piece may be begun, and sends a small one. `tell` is notified once it waits.
async fn second_sender(mut send: SendStream, tell: Arc<Notify>) -> Result<(), StreamError> {
    let ready = started(std::future::poll_fn(|cx| send.poll_ready(cx))).await;
    let waits = matches!(ready, Started::Running(_));
    assert!(waits, "the piece of the other stream takes everything");
    tell.notify_one();
    ready.finish().await?;
    send.send("x").await
}

/// Limits that one piece of [`MIB`] exceeds. No ping makes a side write.
fn one_piece() -> Limits {
    Limits::default()
        .max_buffered_bytes(MIB / 2)
        .keepalive_interval(Duration::MAX)
}

#[tokio::test]
async fn a_handler_that_gives_up_a_large_piece_leaves_its_room_to_other_streams() {
    let [waits, gives_up] = [Arc::new(Notify::new()), Arc::new(Notify::new())];
    let (tell, leave) = (Arc::clone(&waits), Arc::clone(&gives_up));
    let large = move |mut request: Request| {
        let (tell, leave) = (Arc::clone(&tell), Arc::clone(&leave));
        async move {
            let (mut send, _recv) = request.stream().unwrap();
            // The caller does not read, so only the window is sent.
            let sending = started(send.send(vec![0; MIB])).await;
            assert!(matches!(sending, Started::Running(_)));
            tell.notify_one();
            leave.notified().await;
            drop(sending);
            drop(send);
            std::future::pending::<Result<Response, HandlerError>>().await
        }
    };
    let tell = Arc::clone(&waits);
    let second = move |mut request: Request| {
        let tell = Arc::clone(&tell);
        async move {
            let (send, _recv) = request.stream().unwrap();
            second_sender(send, tell).await.unwrap();
            Ok::<_, HandlerError>("sent".into())
        }
    };
    let config = Server::builder()
        .limits(one_piece())
        .route(
            "/large",
            handler_fn(large).request_mode(RequestMode::Stream),
        )
        .route(
            "/second",
            handler_fn(second).request_mode(RequestMode::Stream),
        );
    let (_server, addr) = bound(config).await;
    let client = talkative().limits(one_piece());
    let client = client.connect(addr.to_string()).await.unwrap();
    let _large = client.open_stream("/large", "go").await.unwrap();
    within("its piece waits", waits.notified()).await;
    let (_send, mut recv) = client.open_stream("/second", "go").await.unwrap();
    within("the second one waits", waits.notified()).await;
    gives_up.notify_one();
    assert_eq!(read_all(&mut recv).await, b"x");
    assert_eq!(reply(&mut recv), "sent");
}

#[tokio::test]
async fn a_call_that_ends_leaves_the_room_of_its_piece_to_other_streams_of_the_client() {
    let ignore = handler_fn(|mut request: Request| async move {
        let _stream = request.stream();
        std::future::pending::<Result<Response, HandlerError>>().await
    });
    let config = Server::builder().route("/ignore", ignore.request_mode(RequestMode::Stream));
    let (_server, addr) = bound(config).await;
    let client = talkative().limits(one_piece());
    let client = client.connect(addr.to_string()).await.unwrap();
    let (mut large, mut recv) = client.open_stream("/ignore", "go").await.unwrap();
    let sending = started(large.send(vec![0; MIB])).await;
    assert!(matches!(sending, Started::Running(_)));
    drop(sending);
    let (send, _recv) = client.open_stream("/ignore", "go").await.unwrap();
    let waits = Arc::new(Notify::new());
    let second = spawn(second_sender(send, Arc::clone(&waits)));
    within("the second one waits", waits.notified()).await;
    drop(large);
    // The server is notified; the piece is counted until the caller has its outcome.
    all_run().await;
    assert!(within("the end", recv.next()).await.is_none());
    let sent = within("the second one is sent", second).await;
    assert_eq!(sent.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_handler_that_runs_on_learns_that_its_caller_has_gone_and_keeps_what_has_arrived() {
    for policy in [OnCancel::Token, OnCancel::RunToEnd] {
        let notified = watch::Sender::new(Vec::new());
        let (log, mut tells) = (notified.clone(), notified.subscribe());
        let go = Arc::new(Notify::new());
        let held = Arc::clone(&go);
        let handler = move |mut request: Request| {
            let (notified, held) = (notified.clone(), Arc::clone(&held));
            async move {
                let (mut send, mut recv) = request.stream().unwrap();
                let first = recv.next().await.unwrap().unwrap();
                assert_eq!(first, "go");
                notified.send_modify(|notified| notified.push("begun".to_owned()));
                // It is blocked at first, then notified.
                let sent = send.send(vec![0; 10 * MIB]).await;
                notified.send_modify(|notified| notified.push(format!("{sent:?}")));
                held.notified().await;
                while let Some(part) = recv.next().await {
                    notified.send_modify(|notified| notified.push(format!("{part:?}")));
                }
                notified.send_modify(|notified| notified.push("end".to_owned()));
                Ok::<_, HandlerError>(Response::from("for nobody"))
            }
        };
        let server = Server::builder().route("/", stream_fn(handler).on_cancel(policy));
        let Fixture { client, _server } = served(server, Limits::default().max_channels(1)).await;
        for finishes in [false, true] {
            log.send_modify(Vec::clear);
            let (mut send, recv) = client.open_stream("/", "go").await.unwrap();
            within("it runs", tells.wait_for(|notified| !notified.is_empty()))
                .await
                .unwrap();
            send.send("rest").await.unwrap();
            if finishes {
                send.finish();
            }
            drop(recv);
            within(
                "the writer is notified",
                tells.wait_for(|notified| notified.len() == 2),
            )
            .await
            .unwrap();
            go.notify_one();
            let ended =
                tells.wait_for(|notified| notified.last().is_some_and(|last| last == "end"));
            let seen = within("the reader is notified", ended).await.unwrap()[1..].to_vec();
            let last = if finishes {
                vec!["end"]
            } else {
                vec!["Err(Cut)", "end"]
            };
            assert_eq!(seen[..2], ["Err(Over)", "Ok(b\"rest\")"], "{policy:?}");
            assert_eq!(seen[2..], last, "{policy:?}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_dropped_before_its_end_is_cut_for_its_reader_and_ends_the_call() {
    let (notified, mut heard) = watch::channel(None);
    let listen = stream_fn(move |mut request: Request| {
        let notified = notified.clone();
        async move {
            let (_send, mut recv) = request.stream().unwrap();
            while let Some(part) = recv.next().await {
                notified.send_replace(Some(part));
            }
            Ok::<_, HandlerError>("an end".into())
        }
    });
    let listen = listen.on_cancel(OnCancel::RunToEnd);
    let (server, addr) = bound(Server::builder().route("/listen", listen)).await;
    let client = talkative().max_channels(1);
    let client = client.connect(addr.to_string()).await.unwrap();

    let (send, mut recv) = client.open_stream("/listen", "half of").await.unwrap();
    let begun = heard.wait_for(|part| part.is_some());
    within("the beginning", begun).await.unwrap();
    // One call uses the channel, another waits for it.
    let (waiting, mut unsent) = client.open_stream("/listen", "x").await.unwrap();
    drop(waiting);
    drop(send);
    for (recv, execution) in [
        (&mut recv, Execution::MayHaveExecuted),
        (&mut unsent, Execution::NotSent),
    ] {
        assert!(within("the end", recv.next()).await.is_none());
        let error = recv.reply().unwrap().unwrap_err();
        assert!(matches!(error.kind(), CallErrorKind::Unfinished), "{error}");
        assert_eq!(error.execution(), execution, "{error}");
    }
    let cut = heard.wait_for(|part| *part == Some(Err(StreamError::Cut)));
    within("the cut", cut).await.unwrap();

    // The channel can be used again.
    let (mut send, mut recv) = client.open_stream("/listen", "all").await.unwrap();
    send.finish();
    drop(send);
    assert!(within("the end", recv.next()).await.is_none());
    assert_eq!(reply(&mut recv), "an end");
    server.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn nothing_can_be_sent_after_the_end() {
    let Fixture { client, _server } = fixture(Limits::default()).await;
    let (mut send, mut recv) = client.open_stream("/count", "four").await.unwrap();
    send.finish();
    send.finish();
    assert_eq!(send.send("more").await, Err(StreamError::Finished));
    assert_eq!(read_all(&mut recv).await, b"");
    assert_eq!(reply(&mut recv), "4");
    assert_eq!(client.request("/whole", "x").await.unwrap(), "x");
}

#[tokio::test]
async fn an_end_that_is_announced_early_follows_all_messages() {
    let limits = Limits::default().max_channels(1);
    let Fixture { client, _server } = fixture(limits).await;
    let open = || client.open_stream("/count", vec![1; MIB]);
    let (mut send, mut recv) = open().await.unwrap();
    // This one waits for its channel and for credit.
    let (mut next, mut second) = open().await.unwrap();
    next.finish();
    let ready = std::future::poll_fn(|cx| send.poll_ready(cx));
    within("the beginning is taken", ready).await.unwrap();
    // No task waits until the last message is sent.
    drop(started(send.send(vec![2; 3 * MIB])).await);
    send.finish();
    for (recv, total) in [(&mut recv, 4 * MIB), (&mut second, MIB)] {
        assert_eq!(read_all(recv).await, b"");
        assert_eq!(reply(recv), total.to_string());
    }
    // It has no effect on a call that is over.
    let (mut send, recv) = open().await.unwrap();
    drop(recv);
    send.finish();
    assert_eq!(client.request("/whole", "x").await.unwrap(), "x");
}

#[tokio::test]
async fn a_long_request_may_begin_with_any_byte() {
    let Fixture { client, _server } = fixture(Limits::default()).await;
    for first in 0xF7..=0xFF {
        let mut data = vec![first; 3 * MIB];
        data[MIB..].fill(7);
        let echo = within("the echo", client.request("/whole", data.clone())).await;
        assert!(echo.unwrap() == data, "{first:#x}");
    }
}

#[tokio::test]
async fn the_size_limit_of_messages_does_not_apply_to_the_bytes_of_a_stream() {
    let limits = Limits::default().max_message_bytes(1000);
    let Fixture { client, _server } = fixture(limits).await;
    let (mut send, mut recv) = client.open_stream("/count", vec![0; 5000]).await.unwrap();
    send.send(vec![0; 200_000]).await.unwrap();
    send.finish();
    assert_eq!(read_all(&mut recv).await, b"");
    assert_eq!(reply(&mut recv), "205000");
}

#[tokio::test]
async fn a_stream_continues_while_a_long_message_is_transferred() {
    let Fixture { client, _server } = fixture(Limits::default()).await;
    let (mut send, mut recv) = client.open_stream("/echo", "0").await.unwrap();
    assert_eq!(recv.next().await.unwrap().unwrap(), "0");
    let long = started(client.request("/whole", vec![7; 64 * MIB])).await;
    let mut turns = 0;
    let pings = async {
        loop {
            send.send("ping").await.unwrap();
            assert_eq!(recv.next().await.unwrap().unwrap(), "ping");
            turns += 1;
        }
    };
    tokio::select! {
        () = pings => {}
        reply = within("the long reply", long.finish()) => assert_eq!(reply.unwrap().len(), 64 * MIB),
    }
    // Each waits only for the part of the long message that is in the kernel.
    assert!(turns > 4, "{turns} turns");
}

#[tokio::test]
async fn a_handler_that_has_replied_in_chunks_and_keeps_running_frees_its_channel() {
    let worked = Arc::new(Notify::new());
    let works = Arc::clone(&worked);
    let early = move |mut request: Request| {
        let works = Arc::clone(&works);
        async move {
            request.reply().unwrap().finish("answered").unwrap();
            tokio::task::yield_now().await;
            works.notify_one();
            Ok::<_, HandlerError>(Response::streamed())
        }
    };
    let late = |request: Request| async move {
        tokio::task::yield_now().await;
        Ok::<_, HandlerError>(Response::from(request.into_body()))
    };
    let config = Server::builder()
        .route("/early", handler_fn(early).request_mode(RequestMode::Parts))
        .route("/late", handler_fn(late));
    let (_server, addr) = bound(config).await;
    let config = talkative().limits(Limits::default().max_channels(1));
    let client = config.connect(addr.to_string()).await.unwrap();
    for _ in 0..3 {
        let first = within("a reply", client.request("/early", "x")).await;
        assert_eq!(first.unwrap(), "answered");
        within("the rest of its work", worked.notified()).await;
        let second = within("a reply", client.request("/late", "y")).await;
        assert_eq!(second.unwrap(), "y");
    }
}
