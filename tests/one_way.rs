//! One-way calls: they cost one frame, run to their end, and are never lost silently.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use iip_core::{HandlerError, Request, Response, handler_fn};
use iip_rpc::interceptor::{
    ClientCall, ClientInterceptor, Completion, Next, ServerCall, ServerInterceptor,
};
use iip_rpc::{CallOptions, Client, Code, Execution, Limits, Server, Status, service};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::common::alone::alone;
use crate::common::calls::{expect, lazy, serve, serve_json, serve_with};
use crate::common::frame::RawFrame;
use crate::common::logs::Logs;
use crate::common::peer::{Peer, accepted};
use crate::common::{MIB, assert_grown_less, resident_bytes, spawn, within};

#[service]
trait Events {
    #[rpc(oneway)]
    async fn note(&self, number: u32, text: &str) -> Result<(), Status>;
    /// Waits until the test releases it.
    #[rpc(oneway)]
    async fn wait(&self, number: u32) -> Result<(), Status>;
    #[rpc(oneway)]
    async fn keep(&self, bytes: Bytes) -> Result<(), Status>;
    #[rpc(oneway)]
    async fn refuse(&self, why: String) -> Result<(), Status>;
    async fn seen(&self) -> Result<u32, Status>;
}

struct Book {
    notes: mpsc::UnboundedSender<u32>,
    entered: mpsc::UnboundedSender<u32>,
    gate: Arc<Semaphore>,
    seen: AtomicUsize,
}

impl Events for Book {
    async fn note(&self, number: u32, _: &str) -> Result<(), Status> {
        self.seen.fetch_add(1, Ordering::Relaxed);
        let _ = self.notes.send(number);
        Ok(())
    }

    async fn wait(&self, number: u32) -> Result<(), Status> {
        let _ = self.entered.send(number);
        let permit = self.gate.acquire().await;
        permit.unwrap().forget();
        let _ = self.notes.send(number);
        Ok(())
    }

    async fn keep(&self, bytes: Bytes) -> Result<(), Status> {
        let _ = self.notes.send(bytes.len().try_into().unwrap());
        Ok(())
    }

    async fn refuse(&self, why: String) -> Result<(), Status> {
        Err(Status::failed_precondition(why))
    }

    async fn seen(&self) -> Result<u32, Status> {
        Ok(self.seen.load(Ordering::Relaxed).try_into().unwrap())
    }
}

struct Desk {
    notes: mpsc::UnboundedReceiver<u32>,
    entered: mpsc::UnboundedReceiver<u32>,
    gate: Arc<Semaphore>,
}

fn book() -> (EventsServer<Book>, Desk) {
    let ((notes, read), (entered, begun)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let gate = Arc::new(Semaphore::new(0));
    let book = Book {
        notes,
        entered,
        gate: Arc::clone(&gate),
        seen: AtomicUsize::new(0),
    };
    let desk = Desk {
        notes: read,
        entered: begun,
        gate,
    };
    (EventsServer::new(book), desk)
}

async fn next(numbers: &mut mpsc::UnboundedReceiver<u32>) -> u32 {
    within("a call", numbers.recv()).await.unwrap()
}

/// Returns the numbers of all calls, sorted.
async fn all(numbers: &mut mpsc::UnboundedReceiver<u32>, count: u32) -> Vec<u32> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(next(numbers).await);
    }
    all.sort_unstable();
    all
}

/// The first one-way call requests the channel; calls use it once it is granted.
async fn warm(client: &EventsClient, desk: &mut Desk) {
    for number in 0..3 {
        client.note(number, "warm").await.unwrap();
        next(&mut desk.notes).await;
        client.seen().await.unwrap();
    }
}

#[tokio::test]
async fn a_one_way_call_reaches_its_handler() {
    let (service, mut desk) = book();
    let (_server, client) = serve(service).await;
    let events = EventsClient::new(client);
    for number in 0..1000 {
        events.note(number, "hello").await.unwrap();
    }
    assert_eq!(all(&mut desk.notes, 1000).await, Vec::from_iter(0..1000));
    assert_eq!(events.seen().await.unwrap(), 1000);
}

#[tokio::test]
async fn it_costs_one_frame_and_no_reply() {
    let (listener, client) = lazy(Client::builder()).await;
    let events = EventsClient::new(client);
    let calling = spawn(async move {
        loop {
            events.note(0, "").await.unwrap();
            if events.seen().await.unwrap() == 7 {
                return events;
            }
        }
    });
    let mut peer = Peer::over(accepted(&listener).await);
    let hello = r#"{"iip":1,"control":1,"one_way":1,"rpc":{"envelope":0,"codecs":[1,3]}}"#;
    let (mut granted, mut one_way) = (0, None);
    // Until the channel is granted, they are ordinary calls.
    loop {
        let frame = peer.frame().await;
        let reply = match frame.path_text().as_str() {
            "/sys/hello" => RawFrame::reply("/sys/hello", 0, hello),
            "/sys/new_channel" => {
                granted += 1;
                RawFrame::grant(granted)
            }
            "/sys/control" if frame.status == 0 => {
                assert_eq!(frame.body, [0, 0]);
                continue;
            }
            "/events/note" if Some(frame.channel) == one_way => continue,
            "/events/note" => RawFrame::reply("/events/note", frame.channel, [0x80, 1]),
            "/events/seen" => {
                let seen = if one_way.is_some() { 7 } else { 0 };
                RawFrame::reply("/events/seen", frame.channel, [0x80, 1, seen])
            }
            _ if frame.status == 2 => {
                // The bytes are those of docs/wire.md.
                assert_eq!(frame.body, [3, 4, 0, 0, 0, u8::try_from(granted).unwrap()]);
                one_way = Some(granted);
                continue;
            }
            other => panic!("a request for {other}"),
        };
        peer.send_frame(&reply).await;
        if reply.body == [0x80, 1, 7] {
            break;
        }
    }
    let events = within("the first calls", calling).await.unwrap();
    for number in 1..4 {
        within("a one-way call", events.note(number, "x"))
            .await
            .unwrap();
    }
    for number in 1..4 {
        let body = [0x80, 1, number, 1, b'x'];
        let expected = RawFrame::request("/events/note", one_way.unwrap(), body);
        assert_eq!(peer.frame().await, expected);
    }
}

/// Reads the frames of the server up to the reply to a request, and asserts that no other reply
/// comes.
async fn only_reply(peer: &mut Peer, path: &str, channel: u32, body: &str) -> String {
    let reply = peer.call(path, channel, body).await;
    assert_eq!(
        (reply.path_text(), reply.channel),
        (path.to_owned(), channel)
    );
    reply.body_text()
}

/// Connects to a server whose channel 3 is for one-way calls.
async fn announced(server: &Server) -> Peer {
    let mut peer = Peer::connect(server.local_addr().unwrap()).await;
    let hello = peer
        .call("/sys/hello", 0, r#"{"iip":1,"stream_window":65536}"#)
        .await;
    assert!(hello.body_text().contains(r#""one_way":1"#));
    peer.open_channels(3).await;
    let control = RawFrame::new(0, "/sys/control", 2, [0, 0, 3, 4, 0, 0, 0, 3]);
    peer.send_frame(&control).await;
    peer
}

#[tokio::test]
async fn on_its_channel_the_server_sends_no_reply_whatever_is_sent() {
    let (service, mut desk) = book();
    let (server, _client) = serve(service).await;
    let mut peer = announced(&server).await;
    let long = format!(r#"{{"number":2,"text":"{}"}}"#, "x".repeat(3000));
    let (first, rest) = long.split_at(1000);
    let requests = [
        RawFrame::request("/events/note", 3, r#"{"number":1,"text":""}"#),
        RawFrame::new(0, "/events/note", 3, first),
        RawFrame::new(2, "", 3, &rest[..1000]),
        RawFrame::new(3, "", 3, &rest[1000..]),
        RawFrame::request("/events/note", 3, "no json"),
        RawFrame::request("/events/nothing", 3, "{}"),
        RawFrame::request("/sys/new_channel", 3, "{}"),
        RawFrame::request("/sys/ping", 3, "{}"),
        RawFrame::request("/events/seen", 3, "null"),
        RawFrame::request("\u{1}", 3, "null"),
        RawFrame::request("/events/refuse", 3, r#"{"why":"no"}"#),
        RawFrame::request("/events/note", 3, [0x80, 1, 3, 0]),
    ];
    for request in &requests {
        peer.send_frame(request).await;
    }
    assert_eq!(all(&mut desk.notes, 3).await, [1, 2, 3]);
    assert_eq!(only_reply(&mut peer, "/events/seen", 1, "null").await, "3");
}

#[tokio::test]
async fn a_slow_one_delays_no_other() {
    let (service, mut desk) = book();
    let (_server, client) = serve(service).await;
    let events = EventsClient::new(client);
    warm(&events, &mut desk).await;
    for number in 0..100 {
        events.wait(number).await.unwrap();
    }
    assert_eq!(all(&mut desk.entered, 100).await, Vec::from_iter(0..100));
    events.note(100, "").await.unwrap();
    assert_eq!(next(&mut desk.notes).await, 100);
    desk.gate.add_permits(100);
    assert_eq!(all(&mut desk.notes, 100).await, Vec::from_iter(0..100));
}

#[tokio::test]
async fn calls_over_the_capacity_are_all_run() {
    let (service, mut desk) = book();
    let limits = Limits::default().max_calls(3);
    let (_server, client) =
        serve_with(service, Server::builder().limits(limits), Client::builder()).await;
    let events = EventsClient::new(client);
    desk.gate.add_permits(usize::MAX >> 4);
    warm(&events, &mut desk).await;
    for number in 0..500 {
        events.wait(number).await.unwrap();
    }
    assert_eq!(all(&mut desk.notes, 500).await, Vec::from_iter(0..500));
}

#[tokio::test]
async fn it_runs_to_its_end_also_when_its_client_has_gone() {
    let (service, mut desk) = book();
    let (_server, client) = serve(service).await;
    let events = EventsClient::new(client.clone());
    // One is an ordinary call, the other uses the one-way channel.
    events.wait(10).await.unwrap();
    assert_eq!(next(&mut desk.entered).await, 10);
    warm(&events, &mut desk).await;
    events.wait(11).await.unwrap();
    within("the end of the client", client.close(Duration::ZERO)).await;
    assert_eq!(next(&mut desk.entered).await, 11);
    desk.gate.add_permits(2);
    assert_eq!(all(&mut desk.notes, 2).await, [10, 11]);
}

/// Otherwise a client could leave any number of handlers running that should end with their
/// callers.
#[tokio::test]
async fn a_method_that_ends_with_its_caller_does_so_also_on_the_one_way_channel() {
    let (entered, mut begun) = mpsc::unbounded_channel();
    let polled = handler_fn(move |_: Request| {
        let entered = entered.clone();
        async move {
            // Dropped with the handler.
            let (here, alive) = oneshot::channel::<()>();
            let _ = entered.send(alive);
            std::future::pending::<()>().await;
            drop(here);
            Ok::<_, HandlerError>(Response::from("never"))
        }
    });
    let server = Server::builder().route("/poll", polled);
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let mut peer = announced(&server).await;
    peer.send_frame(&RawFrame::request("/poll", 3, "x")).await;
    let alive = within("the handler", begun.recv()).await.unwrap();
    drop(peer);
    assert!(within("its end", alive).await.is_err());
}

#[tokio::test]
async fn what_was_sent_before_the_client_is_closed_arrives() {
    let (service, mut desk) = book();
    let (_server, client) = serve(service).await;
    let events = EventsClient::new(client.clone());
    warm(&events, &mut desk).await;
    let bytes = Bytes::from(vec![7; 3 * MIB]);
    events.keep(bytes).await.unwrap();
    for number in 0..100 {
        events.note(number, "").await.unwrap();
    }
    within(
        "the end of the client",
        client.close(Duration::from_secs(10)),
    )
    .await;
    let mut expected = Vec::from_iter(0..100);
    expected.push(u32::try_from(3 * MIB).unwrap());
    assert_eq!(all(&mut desk.notes, 101).await, expected);
}

#[tokio::test]
async fn a_server_that_shuts_down_runs_what_has_arrived() {
    let (service, mut desk) = book();
    let (server, _client) = serve(service).await;
    let mut peer = announced(&server).await;
    // Keeps the connection open while the server drains.
    peer.send_frame(&RawFrame::request("/events/wait", 1, r#"{"number":0}"#))
        .await;
    assert_eq!(next(&mut desk.entered).await, 0);
    let server = Arc::new(server);
    let draining = Arc::clone(&server);
    let draining = spawn(async move { draining.shutdown(Duration::from_secs(20)).await });
    // An ordinary call shows when the server rejects calls.
    let channel = peer.open_channel().await;
    while only_reply(&mut peer, "/events/seen", channel, "null").await == "0" {}
    let request = RawFrame::request("/events/note", 3, r#"{"number":5,"text":""}"#);
    peer.send_frame(&request).await;
    assert_eq!(next(&mut desk.notes).await, 5);
    desk.gate.add_permits(1);
    assert_eq!(next(&mut desk.notes).await, 0);
    within("the end of the server", draining).await.unwrap();
}

#[tokio::test]
async fn to_a_server_without_one_way_calls_it_is_a_call_whose_reply_is_skipped() {
    let (listener, client) = lazy(Client::builder()).await;
    let events = EventsClient::new(client);
    let calling = spawn(async move {
        events.note(1, "a").await.unwrap();
        events.note(2, "b").await.unwrap();
        events.seen().await.unwrap()
    });
    let mut peer = Peer::over(accepted(&listener).await);
    let not_understood = r#"{"code":102,"message":"handle error"}"#;
    let mut granted = 0;
    let mut notes = Vec::new();
    let seen = loop {
        let frame = peer.frame().await;
        match frame.path_text().as_str() {
            "/sys/hello" => {
                peer.send_frame(&RawFrame::reply("/sys/hello", 0, not_understood))
                    .await
            }
            "/sys/new_channel" => {
                granted += 1;
                peer.send_frame(&RawFrame::grant(granted)).await;
            }
            "/events/note" => notes.push(frame),
            "/events/seen" => break frame,
            other => panic!("a request for {other}"),
        }
    };
    // The callers continued without a reply, on separate channels.
    let texts: Vec<String> = notes.iter().map(RawFrame::body_text).collect();
    assert_eq!(
        texts,
        [r#"{"number":1,"text":"a"}"#, r#"{"number":2,"text":"b"}"#]
    );
    for note in &notes {
        peer.send_frame(&RawFrame::reply(&note.path, note.channel, "null"))
            .await;
    }
    peer.send_frame(&RawFrame::reply(&seen.path, seen.channel, "9"))
        .await;
    assert_eq!(within("the call", calling).await.unwrap(), 9);
}

#[tokio::test]
async fn a_server_without_one_way_calls_that_does_not_read_makes_its_senders_wait_too() {
    const CHANNELS: u32 = 64;
    let (listener, client) = lazy(Client::builder()).await;
    let events = EventsClient::new(client);
    for _ in 0..CHANNELS {
        let events = events.clone();
        spawn(async move { events.keep(Bytes::from_static(b"a")).await });
    }
    let mut peer = Peer::over(accepted(&listener).await);
    let (mut granted, mut kept) = (0, Vec::new());
    while kept.len() < CHANNELS as usize {
        let frame = peer.frame().await;
        match frame.path_text().as_str() {
            "/sys/hello" => {
                let hello = r#"{"code":102,"message":"handle error"}"#;
                peer.send_frame(&RawFrame::reply("/sys/hello", 0, hello))
                    .await;
            }
            "/sys/new_channel" => {
                granted += 1;
                peer.send_frame(&RawFrame::grant(granted)).await;
            }
            _ => kept.push(frame),
        }
    }
    // From now on all channels are free, and the peer reads nothing.
    peer.stop_reading();
    for call in &kept {
        peer.send_frame(&RawFrame::reply(&call.path, call.channel, "null"))
            .await;
    }
    let impatient = events.with_options(CallOptions::new().timeout(Duration::from_millis(300)));
    let (mut sent, bytes) = (0, Bytes::from(vec![0; MIB]));
    let error = loop {
        match impatient.keep(bytes.clone()).await {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    expect(&error, Code::DeadlineExceeded, Execution::NotSent);
    // What the sockets buffer, and one message more.
    assert!(sent < CHANNELS / 2, "{sent} calls of 1 MiB were sent");
}

#[tokio::test]
async fn a_plain_caller_may_wait_for_it() {
    let (service, mut desk) = book();
    let (server, _client) = serve(service).await;
    let mut peer = Peer::connect(server.local_addr().unwrap()).await;
    let channel = peer.open_channel().await;
    let reply = only_reply(
        &mut peer,
        "/events/note",
        channel,
        r#"{"number":4,"text":""}"#,
    )
    .await;
    assert_eq!(reply, "null");
    assert_eq!(next(&mut desk.notes).await, 4);
}

#[tokio::test]
async fn it_works_in_json_too() {
    let (service, mut desk) = book();
    let (_server, client) = serve_json(service).await;
    let events = EventsClient::new(client);
    for number in 0..10 {
        events.note(number, "").await.unwrap();
    }
    assert_eq!(all(&mut desk.notes, 10).await, Vec::from_iter(0..10));
}

#[tokio::test]
async fn without_a_server_it_fails_and_was_not_sent() {
    let (listener, client) = lazy(Client::builder()).await;
    drop(listener);
    let error = EventsClient::new(client).note(1, "").await.unwrap_err();
    expect(&error, Code::Unavailable, Execution::NotSent);
    assert!(error.to_string().contains("Events.note"), "{error}");
}

#[tokio::test]
async fn one_that_is_too_large_is_rejected_by_the_client() {
    let (service, _desk) = book();
    let (_server, client) = serve_with(
        service,
        Server::builder(),
        Client::builder().max_message_bytes(MIB),
    )
    .await;
    let events = EventsClient::new(client);
    let error = events.keep(vec![0; MIB + 100].into()).await.unwrap_err();
    expect(&error, Code::ResourceExhausted, Execution::NotSent);
    assert!(error.to_string().contains("max_message_bytes"), "{error}");
}

struct Watch(mpsc::UnboundedSender<Code>);

impl Watch {
    fn note(&self, reply: &Completion) {
        let _ = self.0.send(reply.outcome().code());
    }
}

impl ClientInterceptor for Watch {
    async fn intercept(
        &self,
        call: ClientCall,
        next: Next<ClientCall>,
    ) -> Result<Completion, Status> {
        let reply = next.run(call).await;
        self.note(&reply);
        Ok(reply)
    }
}

impl ServerInterceptor for Watch {
    async fn intercept(
        &self,
        call: ServerCall,
        next: Next<ServerCall>,
    ) -> Result<Completion, Status> {
        let reply = next.run(call).await;
        self.note(&reply);
        Ok(reply)
    }
}

#[tokio::test]
async fn interceptors_of_the_server_see_how_it_ends_and_those_of_the_client_that_it_was_sent() {
    let (service, mut desk) = book();
    let (at_server, mut ended) = mpsc::unbounded_channel();
    let (at_client, mut sent) = mpsc::unbounded_channel();
    let server = Server::builder().interceptor(Watch(at_server));
    let client = Client::builder().interceptor(Watch(at_client));
    let (_server, client) = serve_with(service, server, client).await;
    let events = EventsClient::new(client);
    for _ in 0..3 {
        events.refuse("no".to_owned()).await.unwrap();
        assert_eq!(within("the caller", sent.recv()).await.unwrap(), Code::Ok);
        let ended = within("the handler", ended.recv()).await.unwrap();
        assert_eq!(ended, Code::FailedPrecondition);
    }
    events.note(1, "").await.unwrap();
    assert_eq!(next(&mut desk.notes).await, 1);
    assert_eq!(within("the handler", ended.recv()).await.unwrap(), Code::Ok);
}

#[test]
fn one_that_fails_is_logged_and_a_flood_of_them_is_not() {
    alone(
        "one_that_fails_is_logged_and_a_flood_of_them_is_not",
        || async {
            let logs = Logs::captured();
            let (service, mut desk) = book();
            let (_server, client) = serve(service).await;
            let events = EventsClient::new(client);
            warm(&events, &mut desk).await;
            logs.take();
            for _ in 0..1000 {
                events.refuse("\u{1b}[31mred".to_owned()).await.unwrap();
            }
            events.note(1, "").await.unwrap();
            next(&mut desk.notes).await;
            let lines = logs.take();
            let lines: Vec<_> = lines
                .iter()
                .filter(|line| line.level == tracing::Level::WARN)
                .collect();
            assert_eq!(
                lines.len(),
                101,
                "a hundred of them, and that there were more"
            );
            let why = lines[0].get("why").unwrap();
            assert!(why.contains("red") && !why.contains('\u{1b}'), "{why:?}");
            assert!(lines[0].get("path").unwrap().contains("/events/refuse"));
        },
    );
}

struct Woken;

impl Wake for Woken {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_server_that_does_not_read_makes_its_senders_wait() {
    alone(
        "a_server_that_does_not_read_makes_its_senders_wait",
        || async {
            let (service, mut desk) = book();
            // While these two run, further calls wait, and the server stops reading at its limit.
            let limits = Limits::default().max_calls(2).max_buffered_bytes(MIB);
            let (_server, client) =
                serve_with(service, Server::builder().limits(limits), Client::builder()).await;
            let events = EventsClient::new(client);
            warm(&events, &mut desk).await;
            for number in 0..2 {
                events.wait(number).await.unwrap();
            }
            all(&mut desk.entered, 2).await;
            let before = resident_bytes();
            let flood = events.clone();
            let flood = spawn(async move {
                let bytes = Bytes::from(vec![0; 10_000]);
                for _ in 0..10_000 {
                    flood.keep(bytes.clone()).await?;
                }
                Ok::<_, Status>(())
            });
            // One with a short timeout fails without having been sent.
            let impatient =
                events.with_options(CallOptions::new().timeout(Duration::from_millis(200)));
            let error = loop {
                match impatient.keep(Bytes::from(vec![0; 10_000])).await {
                    Ok(()) => tokio::task::yield_now().await,
                    Err(error) => break error,
                }
            };
            expect(&error, Code::DeadlineExceeded, Execution::NotSent);
            // A caller that stops waiting for capacity leaves no call in the queue.
            let woken = Arc::new(Woken);
            let mut call = Box::pin(impatient.keep(Bytes::from(vec![0; 10_000])));
            let waker = Waker::from(Arc::clone(&woken));
            let first = call.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(first.is_pending());
            drop((call, waker));
            assert_eq!(Arc::strong_count(&woken), 1);
            // Calls in the socket buffers of both sides count as well.
            assert_grown_less(before, 16 * MIB);
            desk.gate.add_permits(2);
            within("the flood", flood).await.unwrap().unwrap();
        },
    );
}

#[tokio::test]
async fn a_client_cannot_use_the_channels_that_the_server_reserves() {
    let (service, mut desk) = book();
    let (server, _client) = serve(service).await;
    for channel in [4, 0x8000_0000, 0x8000_0001, u32::MAX] {
        let mut peer = announced(&server).await;
        peer.send_frame(&RawFrame::request("/events/wait", 3, r#"{"number":1}"#))
            .await;
        next(&mut desk.entered).await;
        peer.send_frame(&RawFrame::request("/events/seen", channel, "null"))
            .await;
        peer.closed_in_silence().await;
    }
    // A stream has a reply.
    let mut peer = announced(&server).await;
    peer.send_frame(&RawFrame::new(0, "/events/seen", 3, [0xF8, 0]))
        .await;
    peer.closed_in_silence().await;
}

#[tokio::test]
async fn channels_that_do_not_exist_or_are_in_use_cannot_become_one_way() {
    let (service, mut desk) = book();
    let (server, _client) = serve(service).await;
    let mut peer = announced(&server).await;
    peer.send_frame(&RawFrame::request("/events/wait", 1, r#"{"number":1}"#))
        .await;
    next(&mut desk.entered).await;
    for channel in [0, 1, 2, 4, 0x8000_0001, u32::MAX] {
        let mut message = vec![3, 4];
        message.extend(channel.to_be_bytes());
        peer.send_frame(&RawFrame::new(2, "/sys/control", 2, &message))
            .await;
    }
    desk.gate.add_permits(1);
    let reply = peer.frame().await;
    assert_eq!((reply.channel, reply.body_text()), (1, "null".to_owned()));
    assert_eq!(
        peer.call("/sys/ping", 0, "{}").await.body_text(),
        r#"{"code":0}"#
    );
    // The channel that was announced is still in use.
    peer.send_frame(&RawFrame::request(
        "/events/note",
        3,
        r#"{"number":9,"text":""}"#,
    ))
    .await;
    assert_eq!(next(&mut desk.notes).await, 1);
    assert_eq!(next(&mut desk.notes).await, 9);
}

#[tokio::test]
async fn a_raw_request_may_be_sent_without_waiting_too() {
    let (sender, mut seen) = mpsc::unbounded_channel();
    let handler = handler_fn(move |request: Request| {
        let _ = sender.send((request.is_one_way(), request.into_body()));
        async { Ok::<_, HandlerError>(Response::from("an answer")) }
    });
    let server = iip_core::Server::builder().route("/take", handler);
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let client = iip_core::Client::builder().hello(serde_json::json!({}));
    let client = client.connect(server.target()).await.unwrap();
    // The first request finds no one-way channel yet.
    for round in 0.. {
        client.send("/take", format!("{round}")).await.unwrap();
        let (is_one_way, body) = within("the request", seen.recv()).await.unwrap();
        assert_eq!(body, format!("{round}"));
        if is_one_way {
            break;
        }
        assert_eq!(client.request("/take", "x").await.unwrap(), "an answer");
        assert_eq!(seen.recv().await.unwrap(), (false, Bytes::from("x")));
    }
}

#[tokio::test]
async fn a_call_waits_for_capacity_of_its_own_connection() {
    let (service, mut desk) = book();
    let limits = Limits::default().max_calls(2);
    let server = Server::builder().limits(limits);
    let (_server, client) = serve_with(service, server, Client::builder().connections(2)).await;
    let events = EventsClient::new(client);
    // Calls alternate between the connections: the one-way calls all use the first, the others the
    // second.
    warm(&events, &mut desk).await;
    for number in 0..3 {
        events.wait(number).await.unwrap();
        events.seen().await.unwrap();
    }
    // The server no longer reads the first, but it reads the second.
    let impatient = events.with_options(CallOptions::new().timeout(Duration::from_millis(200)));
    let mut sent = 0;
    let error = loop {
        assert!(sent < 64 * MIB, "more waits than may");
        sent += 100_000;
        if let Err(error) = impatient.keep(Bytes::from(vec![0; 100_000])).await {
            break error;
        }
        events.seen().await.unwrap();
    };
    expect(&error, Code::DeadlineExceeded, Execution::NotSent);
    events.seen().await.unwrap();
    desk.gate.add_permits(3);
}
