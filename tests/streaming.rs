//! Calls with streams of messages: all three kinds, through the public API, over real sockets.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use iip_rpc::codec::CodecId;
use iip_rpc::schema::check_derived;
use iip_rpc::{
    CallContext, CallOptions, Client, ClientBuilder, Code, Execution, Limits, MethodError,
    MethodPolicy, ReplyMetadata, Schema, Server, ServerBuilder, Status, Stream, Streaming, service,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::common::calls::{serve, serve_with, times};
use crate::common::{passes, spawn, within};

#[derive(
    Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error, MethodError, Schema,
)]
enum FeedError {
    #[error("no topic {0}")]
    NoTopic(String),
    #[error("the topic was closed after {0}")]
    Closed(u32),
    #[error(transparent)]
    #[status]
    Rpc(Status),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
struct Event {
    number: u32,
    text: String,
}

#[service]
trait Feed {
    /// Replies with a stream.
    async fn watch(
        &self,
        topic: String,
        count: u32,
    ) -> Result<impl Stream<Item = Result<Event, FeedError>>, FeedError>;
    /// Returns a stream that borrows from the service.
    async fn words(&self) -> Result<impl Stream<Item = Result<String, Status>>, Status>;
    async fn forever(&self) -> Result<impl Stream<Item = Result<u64, Status>>, Status>;
    async fn blobs(
        &self,
        sizes: Vec<u64>,
    ) -> Result<impl Stream<Item = Result<Bytes, Status>>, Status>;
    /// Takes a stream.
    async fn sum(&self, start: u64, numbers: Streaming<u64>) -> Result<u64, FeedError>;
    async fn first(&self, numbers: Streaming<u64>) -> Result<Option<u64>, Status>;
    /// Both.
    async fn double(
        &self,
        by: u64,
        numbers: Streaming<u64>,
    ) -> Result<impl Stream<Item = Result<u64, Status>>, Status>;
    async fn context(
        &self,
        ctx: &CallContext,
    ) -> Result<impl Stream<Item = Result<Option<u64>, Status>>, Status>;
    async fn panics(&self, after: u32) -> Result<impl Stream<Item = Result<u32, Status>>, Status>;
    async fn unary(&self, text: &str) -> Result<String, Status>;
}

#[derive(Default)]
struct Station {
    words: Vec<String>,
    /// Number of running `forever` streams.
    running: Arc<AtomicUsize>,
    ended: Arc<Notify>,
    cut: Arc<AtomicBool>,
}

struct Forever(u64, Arc<AtomicUsize>, Arc<Notify>);

impl Stream for Forever {
    type Item = Result<u64, Status>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0 += 1;
        std::task::Poll::Ready(Some(Ok(self.0)))
    }
}

impl Drop for Forever {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
        self.2.notify_one();
    }
}

/// A stream that borrows its items.
struct Words<'a>(std::slice::Iter<'a, String>);

impl Stream for Words<'_> {
    type Item = Result<String, Status>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.0.next().cloned().map(Ok))
    }
}

impl Feed for Station {
    async fn watch(
        &self,
        topic: String,
        count: u32,
    ) -> Result<impl Stream<Item = Result<Event, FeedError>>, FeedError> {
        if topic.is_empty() {
            return Err(FeedError::NoTopic(topic));
        }
        let events = (0..count).map(move |number| {
            Ok(Event {
                number,
                text: topic.clone(),
            })
        });
        let closed = (count == 3).then(|| Err(FeedError::Closed(3)));
        Ok(Streaming::new(Iter(events.chain(closed))))
    }

    async fn words(&self) -> Result<impl Stream<Item = Result<String, Status>>, Status> {
        Ok(Words(self.words.iter()))
    }

    async fn forever(&self) -> Result<impl Stream<Item = Result<u64, Status>>, Status> {
        self.running.fetch_add(1, Ordering::SeqCst);
        Ok(Forever(
            0,
            Arc::clone(&self.running),
            Arc::clone(&self.ended),
        ))
    }

    async fn blobs(
        &self,
        sizes: Vec<u64>,
    ) -> Result<impl Stream<Item = Result<Bytes, Status>>, Status> {
        Ok(Streaming::iter(sizes.into_iter().map(|size| {
            Bytes::from(crate::common::generate::lin(size as u8, size as usize))
        })))
    }

    async fn sum(&self, start: u64, mut numbers: Streaming<u64>) -> Result<u64, FeedError> {
        let mut sum = start;
        while let Some(number) = numbers.next().await {
            match number {
                Ok(99) => return Err(FeedError::Closed(99)),
                Ok(number) => sum += number,
                Err(status) => {
                    self.cut
                        .store(status.code() == Code::Cancelled, Ordering::SeqCst);
                    self.ended.notify_one();
                    return Err(status.into());
                }
            }
        }
        Ok(sum)
    }

    async fn first(&self, mut numbers: Streaming<u64>) -> Result<Option<u64>, Status> {
        numbers.next().await.transpose()
    }

    async fn double(
        &self,
        by: u64,
        numbers: Streaming<u64>,
    ) -> Result<impl Stream<Item = Result<u64, Status>>, Status> {
        Ok(times(numbers, by))
    }

    async fn context(
        &self,
        ctx: &CallContext,
    ) -> Result<impl Stream<Item = Result<Option<u64>, Status>>, Status> {
        ctx.set_reply_metadata("x-early", "1").unwrap();
        let millis = ctx.remaining().map(|left| left.as_millis() as u64);
        let ctx = ctx.clone();
        let token = ctx.metadata().text("x-token").map(|text| text.len() as u64);
        let items = [millis, token]
            .into_iter()
            .chain(std::iter::once_with(move || {
                ctx.set_reply_metadata("x-late", "2").unwrap();
                None
            }));
        Ok(Streaming::iter(items))
    }

    async fn panics(&self, after: u32) -> Result<impl Stream<Item = Result<u32, Status>>, Status> {
        assert!(after > 0, "a secret");
        Ok(Paced {
            next: 0,
            last: after,
            waits: false,
        })
    }

    async fn unary(&self, text: &str) -> Result<String, Status> {
        Ok(text.to_owned())
    }
}

/// A stream that waits before every number, and panics after the last.
struct Paced {
    next: u32,
    last: u32,
    waits: bool,
}

impl Stream for Paced {
    type Item = Result<u32, Status>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.waits = !self.waits;
        if self.waits {
            cx.waker().wake_by_ref();
            return std::task::Poll::Pending;
        }
        assert!(self.next < self.last, "a secret");
        self.next += 1;
        std::task::Poll::Ready(Some(Ok(self.next)))
    }
}

/// Turns an iterator of results into a stream.
struct Iter<I>(I);

impl<I: Iterator + Unpin> Stream for Iter<I> {
    type Item = I::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.0.next())
    }
}

struct Fixture {
    _server: Server,
    feed: FeedClient,
    running: Arc<AtomicUsize>,
    ended: Arc<Notify>,
}

async fn fixture() -> Fixture {
    fixture_with(Server::builder(), Client::builder()).await
}

async fn fixture_with(server: ServerBuilder, client: ClientBuilder) -> Fixture {
    let station = Station {
        words: vec!["one".to_owned(), "two".to_owned()],
        ..Station::default()
    };
    let (running, ended) = (Arc::clone(&station.running), Arc::clone(&station.ended));
    let (server, client) = serve_with(FeedServer::new(station), server, client).await;
    Fixture {
        _server: server,
        feed: FeedClient::new(client),
        running,
        ended,
    }
}

async fn all<T, E: std::fmt::Debug>(mut stream: Streaming<T, E>) -> Vec<T> {
    let mut items = Vec::new();
    while let Some(item) = within("the next message", stream.next()).await {
        items.push(item.unwrap());
    }
    items
}

/// The error that ends a stream, and the number of messages before it.
async fn failure<T>(mut stream: Streaming<T>) -> (Status, u32) {
    let mut messages = 0;
    loop {
        match within("the next", stream.next()).await.unwrap() {
            Ok(_) => messages += 1,
            Err(status) => return (status, messages),
        }
    }
}

#[tokio::test]
async fn a_stream_from_the_server_comes_in_order_and_ends() {
    let Fixture { feed, .. } = fixture().await;
    for count in [0, 1, 2, 10_000] {
        let stream = feed.watch("rust".into(), count).await.unwrap();
        let events = all(stream).await;
        assert_eq!(events.len(), count as usize);
        assert!(
            events
                .iter()
                .zip(0..)
                .all(|(event, number)| event.number == number)
        );
    }
    // The connection and its channels serve other calls as before.
    assert_eq!(feed.unary("still here").await.unwrap(), "still here");
}

#[tokio::test]
async fn a_stream_may_borrow_from_its_service() {
    let Fixture { feed, .. } = fixture().await;
    assert_eq!(all(feed.words().await.unwrap()).await, ["one", "two"]);
}

#[tokio::test]
async fn a_client_s_stream_borrows_nothing() {
    let Fixture { feed, _server, .. } = fixture().await;
    let stream = {
        let feed = feed.clone();
        drop(_server);
        feed.watch("rust".into(), 5).await.unwrap()
    };
    let events = spawn(all(stream)).await.unwrap();
    assert_eq!(events.len(), 5);
}

#[tokio::test]
async fn a_call_can_fail_before_its_stream_begins_and_after() {
    let Fixture { feed, .. } = fixture().await;
    let error = feed.watch(String::new(), 1).await.unwrap_err();
    assert_eq!(error, FeedError::NoTopic(String::new()));
    let mut stream = feed.watch("rust".into(), 3).await.unwrap();
    for _ in 0..3 {
        stream.next().await.unwrap().unwrap();
    }
    assert_eq!(stream.next().await, Some(Err(FeedError::Closed(3))));
    assert_eq!(stream.next().await, None, "nothing follows an error");
}

#[tokio::test]
async fn a_message_that_cannot_be_decoded_is_reported_with_its_method_and_phases() {
    /// The same path with another type of messages: a client of another version.
    #[service(path = "/feed")]
    trait OtherFeed {
        async fn words(&self) -> Result<impl Stream<Item = Result<bool, Status>>, Status>;
    }
    let station = Station {
        words: vec!["one".to_owned()],
        ..Station::default()
    };
    let (_server, client) = serve(FeedServer::new(station)).await;
    let mut words = OtherFeedClient::new(client).words().await.unwrap();
    let status = within("the failure", words.next()).await;
    let status = status.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    let text = status.message();
    assert!(text.starts_with("OtherFeed.words: "), "{text}");
    assert!(status.phases().is_some(), "{status:?}");
    assert_eq!(words.next().await, None, "nothing follows an error");
}

#[tokio::test]
async fn messages_of_every_size_arrive_whole() {
    let Fixture { feed, .. } = fixture().await;
    let sizes = vec![
        0,
        1,
        100,
        1_500,
        16_000,
        65_536,
        70_000,
        1 << 20,
        3,
        5 << 20,
        0,
    ];
    let blobs = all(feed.blobs(sizes.clone()).await.unwrap()).await;
    assert_eq!(blobs.len(), sizes.len());
    for (blob, size) in blobs.iter().zip(sizes) {
        assert!(
            *blob == crate::common::generate::lin(size as u8, size as usize),
            "{size} bytes"
        );
    }
}

#[tokio::test]
async fn arguments_larger_than_a_frame_arrive_before_the_stream() {
    let Fixture { feed, .. } = fixture().await;
    let sizes = vec![0; 100_000];
    let blobs = all(feed.blobs(sizes.clone()).await.unwrap()).await;
    assert_eq!(blobs.len(), sizes.len());
    assert!(blobs.iter().all(Bytes::is_empty));
}

#[tokio::test]
async fn a_message_over_the_limit_ends_its_stream_and_names_the_option() {
    let server = Server::builder().max_message_bytes(100_000);
    let Fixture { feed, .. } = fixture_with(server, Client::builder()).await;
    let mut stream = feed.blobs(vec![10, 200_000, 10]).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().len(), 10);
    let status = stream.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("max_message_bytes"), "{status}");
    assert!(stream.next().await.is_none());
    let client = Client::builder().max_message_bytes(100_000);
    let Fixture { feed, .. } = fixture_with(Server::builder(), client).await;
    let mut stream = feed.blobs(vec![10, 200_000, 10]).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().len(), 10);
    let status = stream.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(stream.next().await.is_none());
    assert_eq!(feed.unary("x").await.unwrap(), "x");
}

#[tokio::test]
async fn a_stream_to_the_server_is_read_to_its_end() {
    let Fixture { feed, .. } = fixture().await;
    assert_eq!(feed.sum(5, Streaming::iter(1..=3)).await.unwrap(), 11);
    assert_eq!(feed.sum(5, Streaming::iter([])).await.unwrap(), 5);
    let many = Streaming::iter(std::iter::repeat_n(2, 100_000));
    assert_eq!(feed.sum(0, many).await.unwrap(), 200_000);
    let error = feed.sum(0, Streaming::iter([1, 99, 1])).await.unwrap_err();
    assert_eq!(error, FeedError::Closed(99));
}

#[tokio::test]
async fn a_method_may_reply_before_it_has_read_all() {
    let Fixture { feed, .. } = fixture().await;
    assert_eq!(feed.first(Streaming::iter(7..)).await.unwrap(), Some(7));
    assert_eq!(feed.first(Streaming::iter(8..)).await.unwrap(), Some(8));
}

#[tokio::test]
async fn an_upload_that_fails_does_not_look_complete() {
    let fixture = fixture().await;
    let (sender, numbers) = Streaming::channel(4);
    sender.send(1).await.unwrap();
    sender.fail(Status::data_loss("the disk is gone")).await;
    let error = fixture.feed.sum(0, numbers).await.unwrap_err();
    assert!(matches!(error, FeedError::Rpc(status) if status.code() == Code::DataLoss));
}

#[tokio::test]
async fn a_sender_that_is_dropped_before_it_has_finished_cuts_its_stream() {
    #[service]
    trait Half {
        async fn one(&self) -> Result<impl Stream<Item = Result<u64, Status>>, Status>;
    }
    struct Here;
    impl Half for Here {
        async fn one(&self) -> Result<impl Stream<Item = Result<u64, Status>>, Status> {
            let (sender, numbers) = Streaming::channel(1);
            spawn(async move {
                let other = sender.clone();
                let _ = sender.send(1).await;
                // One of two messages is not enough.
                sender.finish();
                panic!("dropped {other:?}");
            });
            Ok(numbers)
        }
    }
    let (_server, client) = serve(HalfServer::new(Here)).await;
    let mut one = HalfClient::new(client).one().await.unwrap();
    assert_eq!(within("a number", one.next()).await, Some(Ok(1)));
    let status = within("the failure", one.next()).await;
    let status = status.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Cancelled);
    assert!(
        status.message().contains("StreamSender::finish"),
        "{status}"
    );
    assert_eq!(one.next().await, None);

    let fixture = fixture().await;
    let (sender, numbers) = Streaming::channel(4);
    sender.send(1).await.unwrap();
    drop(sender);
    let error = within("the failure", fixture.feed.sum(0, numbers)).await;
    let Err(FeedError::Rpc(status)) = error else {
        panic!("{error:?}")
    };
    assert_eq!(status.code(), Code::Cancelled);
}

#[tokio::test]
async fn both_directions_go_on_at_the_same_time() {
    let Fixture { feed, .. } = fixture().await;
    let (sender, numbers) = Streaming::channel(1);
    let mut doubled = feed.double(2, numbers).await.unwrap();
    for number in 0..100 {
        sender.send(number).await.unwrap();
        let double = within("the reply", doubled.next()).await;
        assert_eq!(double.unwrap().unwrap(), 2 * number);
    }
    sender.finish();
    assert!(within("the end", doubled.next()).await.is_none());
    let all = all(feed.double(3, Streaming::iter(0..10_000)).await.unwrap()).await;
    assert!(
        all.iter()
            .zip(0..)
            .all(|(triple, number)| *triple == 3 * number)
    );
    assert_eq!(all.len(), 10_000);
}

#[tokio::test]
async fn dropping_a_stream_ends_its_handler() {
    let fixture = fixture().await;
    let mut stream = fixture.feed.forever().await.unwrap();
    for number in 1..=10 {
        assert_eq!(stream.next().await.unwrap().unwrap(), number);
    }
    assert_eq!(fixture.running.load(Ordering::SeqCst), 1);
    drop(stream);
    within("the handler's end", fixture.ended.notified()).await;
    assert_eq!(fixture.running.load(Ordering::SeqCst), 0);
    assert_eq!(fixture.feed.unary("x").await.unwrap(), "x");
}

#[tokio::test]
async fn a_handler_sees_a_cut_upload_as_cancelled() {
    #[service]
    trait Sink {
        #[rpc(on_cancel = "run")]
        async fn sum(&self, start: u64, numbers: Streaming<u64>) -> Result<u64, FeedError>;
    }
    struct Here(Arc<Station>);
    impl Sink for Here {
        async fn sum(&self, start: u64, numbers: Streaming<u64>) -> Result<u64, FeedError> {
            Feed::sum(&*self.0, start, numbers).await
        }
    }
    let station = Arc::new(Station::default());
    let (_server, client) = serve(SinkServer::new(Here(Arc::clone(&station)))).await;
    let sink = SinkClient::new(client);
    let (sender, numbers) = Streaming::channel(1);
    let call = spawn(async move { sink.sum(1, numbers).await });
    for number in 0..100 {
        sender.send(number).await.unwrap();
    }
    call.abort();
    within("the handler's end", station.ended.notified()).await;
    assert!(station.cut.load(Ordering::SeqCst));
}

#[tokio::test]
async fn every_codec_streams() {
    for codec in [CodecId::BINCODE, CodecId::JSON] {
        let client = Client::builder().codec(codec);
        let Fixture { feed, .. } = fixture_with(Server::builder(), client).await;
        let events = all(feed.watch("json".into(), 100).await.unwrap()).await;
        assert_eq!(events[99].text, "json");
        let all = all(feed.double(3, Streaming::iter(0..100)).await.unwrap()).await;
        assert_eq!(all.len(), 100);
        let error = feed.watch(String::new(), 1).await.unwrap_err();
        assert_eq!(error, FeedError::NoTopic(String::new()));
    }
}

#[tokio::test]
async fn metadata_is_sent_before_the_messages_and_after_them() {
    let Fixture { feed, .. } = fixture().await;
    let place = ReplyMetadata::new();
    let options = CallOptions::new()
        .metadata("x-token", "abcde")
        .unwrap()
        .reply_metadata(&place);
    let mut stream = feed
        .with_options(options)
        .context(&CallContext::new())
        .await
        .unwrap();
    assert_eq!(place.get().text("x-early"), Some("1"));
    assert_eq!(
        stream.next().await.unwrap().unwrap(),
        None,
        "a stream has no deadline by itself"
    );
    assert_eq!(stream.next().await.unwrap().unwrap(), Some(5));
    assert_eq!(stream.next().await.unwrap().unwrap(), None);
    assert!(stream.next().await.is_none());
    assert_eq!(place.get().text("x-late"), Some("2"));
}

/// A timeout that a busy machine does not reach by itself.
const TIME: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_timeout_that_is_set_holds_for_the_whole_stream() {
    let fixture = fixture().await;
    let options = CallOptions::new().timeout(TIME);
    let feed = fixture.feed.with_options(options);
    let stream = feed.forever().await.unwrap();
    passes(TIME).await;
    let (status, _) = failure(stream).await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(status.execution(), Execution::MayHaveExecuted);
    within("the handler's end", fixture.ended.notified()).await;
}

#[tokio::test]
async fn a_timeout_of_the_client_s_policy_holds_for_the_whole_stream_too() {
    let policy = MethodPolicy::new().timeout(TIME);
    let client = Client::builder().method_policy("/feed/forever", policy);
    let fixture = fixture_with(Server::builder(), client).await;
    let stream = fixture.feed.forever().await.unwrap();
    passes(TIME).await;
    let (status, _) = failure(stream).await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    within("the handler's end", fixture.ended.notified()).await;
}

#[tokio::test]
async fn a_panic_ends_its_stream_only() {
    let Fixture { feed, .. } = fixture().await;
    let status = feed.panics(0).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    let (status, seen) = failure(feed.panics(3).await.unwrap()).await;
    assert_eq!(status.code(), Code::Internal);
    assert!(
        seen <= 3 && !status.message().contains("secret"),
        "{status}"
    );
    assert_eq!(feed.unary("x").await.unwrap(), "x");
}

#[tokio::test]
async fn a_stalled_reader_blocks_no_other_call() {
    let fixture = fixture().await;
    let mut stalled = Vec::new();
    for _ in 0..50 {
        let mut stream = fixture.feed.forever().await.unwrap();
        stream.next().await.unwrap().unwrap();
        stalled.push(stream);
    }
    for _ in 0..100 {
        assert_eq!(
            within("a call", fixture.feed.unary("x")).await.unwrap(),
            "x"
        );
    }
    let events = all(fixture.feed.watch("on".into(), 10_000).await.unwrap()).await;
    assert_eq!(events.len(), 10_000);
    // The other streams lost no messages.
    for mut stream in stalled {
        for number in 2..100 {
            assert_eq!(stream.next().await.unwrap().unwrap(), number);
        }
    }
}

#[tokio::test]
async fn streams_wait_for_a_channel_as_other_calls_do() {
    let client = Client::builder().limits(Limits::default().max_channels(1));
    let Fixture { feed, .. } = fixture_with(Server::builder(), client).await;
    let first = feed.watch("a".into(), 10).await.unwrap();
    let second = feed.clone();
    let second = spawn(async move { all(second.watch("b".into(), 10).await.unwrap()).await });
    let third = feed.clone();
    let third = spawn(async move { third.sum(0, Streaming::iter([1, 2])).await });
    assert_eq!(all(first).await.len(), 10);
    assert_eq!(within("its turn", second).await.unwrap().len(), 10);
    assert_eq!(within("its turn", third).await.unwrap().unwrap(), 3);
}

#[tokio::test]
async fn one_message_to_a_method_with_streams_is_rejected_with_a_reason() {
    let Fixture {
        feed: _, _server, ..
    } = fixture().await;
    let client = Client::connect(_server.target()).await.unwrap();
    let reply = client
        .raw()
        .request("/feed/watch", r#"{"topic":"x","count":1}"#)
        .await
        .unwrap();
    let text = String::from_utf8(reply.to_vec()).unwrap();
    assert!(
        text.contains("\"code\":12") && text.contains("streams"),
        "{text}"
    );
}

#[tokio::test]
async fn the_same_trait_streams_without_a_network() {
    async fn total(feed: &impl Feed) -> u64 {
        let stream = feed.double(2, Streaming::iter(0..10)).await.unwrap();
        let mut stream = std::pin::pin!(stream);
        let mut total = 0;
        while let Some(number) = std::future::poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
            total += number.unwrap();
        }
        total
    }
    let fixture = fixture().await;
    assert_eq!(total(&Station::default()).await, 90);
    assert_eq!(total(&fixture.feed).await, 90);
}

#[tokio::test]
async fn a_server_that_goes_away_ends_its_streams() {
    let fixture = fixture().await;
    let mut stream = fixture.feed.forever().await.unwrap();
    stream.next().await.unwrap().unwrap();
    fixture._server.shutdown(Duration::ZERO).await;
    let (status, _) = failure(stream).await;
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.execution(), Execution::MayHaveExecuted);
}

#[test]
fn types_are_described_as_they_are_observed() {
    check_derived::<FeedError>().unwrap();
    check_derived::<Event>().unwrap();
}
