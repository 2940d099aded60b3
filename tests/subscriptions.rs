//! Subscriptions: numbered values that continue after a lost connection, gaps that are reported,
//! and slow subscribers.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use iip_rpc::codec::CodecId;
use iip_rpc::{
    CallContext, CallOptions, Client, Code, Execution, Metadata, Position, Server, SlowConsumer,
    Status, Subscription, Topic, TopicBuilder, TryPublishError, Update, service,
};
use tokio::sync::Notify;

use tokio::task::JoinHandle;

use crate::common::calls::{expect, lazy, record, serve, serve_until_request, serve_with};
use crate::common::frame::RawFrame;
use crate::common::peer::{Peer, accepted};
use crate::common::{MIB, SERVED, eventually, spawn, within};

#[service]
trait News {
    async fn numbers(&self) -> Result<Subscription<u64>, Status>;
    async fn last(&self, count: usize) -> Result<Subscription<u64>, Status>;
    async fn texts(&self, prefix: &str) -> Result<Subscription<String>, Status>;
}

#[derive(Clone, Default)]
struct Desk {
    numbers: Topic<u64>,
    texts: Topic<String>,
}

impl News for Desk {
    async fn numbers(&self) -> Result<Subscription<u64>, Status> {
        Ok(self.numbers.subscribe())
    }

    async fn last(&self, count: usize) -> Result<Subscription<u64>, Status> {
        Ok(self.numbers.subscribe().replay(count))
    }

    async fn texts(&self, prefix: &str) -> Result<Subscription<String>, Status> {
        if prefix.is_empty() {
            return Err(Status::not_found("no such topic"));
        }
        Ok(self.texts.subscribe())
    }
}

/// Returns the desk of a server, the server, and its client.
async fn news() -> (Desk, Server, NewsClient) {
    let desk = Desk::default();
    let (server, client) = serve(NewsServer::new(desk.clone())).await;
    (desk, server, NewsClient::new(client))
}

/// Starts the same on the port of a server that has ended.
async fn again(desk: &Desk, target: &str) -> Server {
    loop {
        let server = Server::builder().service(NewsServer::new(desk.clone()));
        // The port may be in use for a moment.
        match server.bind(target).await {
            Ok(server) => return server,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

async fn next<T>(subscription: &mut Subscription<T>) -> Update<T> {
    let update = within("an update", subscription.next()).await;
    update.expect("an update").expect("no failure")
}

async fn failure<T: std::fmt::Debug>(subscription: &mut Subscription<T>) -> Status {
    let update = within("the end", subscription.next()).await;
    let status = update.expect("a failure").unwrap_err();
    assert!(within("the end", subscription.next()).await.is_none());
    status
}

fn value(sequence: u64) -> Update<u64> {
    let value = sequence * 10;
    Update::Value { sequence, value }
}

/// Returns the number of values missing in a gap.
#[track_caller]
fn missed<T: std::fmt::Debug>(update: &Update<T>) -> Option<u64> {
    match update {
        Update::Gap(gap) => gap.missed,
        value @ Update::Value { .. } => panic!("no gap: {value:?}"),
    }
}

async fn publish(topic: &Topic<u64>, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        let sequence = within("room", topic.publish(number * 10)).await;
        assert_eq!(sequence, number);
    }
}

#[tokio::test]
async fn every_subscriber_gets_every_value_in_order_with_its_number() {
    let (desk, _server, news) = news().await;
    publish(&desk.numbers, 1..=3).await;
    let mut first = news.numbers().await.unwrap();
    publish(&desk.numbers, [4]).await;
    let mut second = news.numbers().await.unwrap();
    publish(&desk.numbers, 5..=1000).await;
    for number in 4..=1000 {
        assert_eq!(next(&mut first).await, value(number));
    }
    for number in 5..=1000 {
        assert_eq!(next(&mut second).await, value(number));
    }
    assert_eq!(desk.numbers.subscribers(), 2);
}

#[tokio::test]
async fn one_may_begin_with_what_was_published_before() {
    let (desk, _server, news) = news().await;
    publish(&desk.numbers, 1..=5).await;
    let mut last = news.last(2).await.unwrap();
    publish(&desk.numbers, [6]).await;
    for number in 4..=6 {
        assert_eq!(next(&mut last).await, value(number));
    }
    let mut all = news.last(100).await.unwrap();
    assert_eq!(next(&mut all).await, value(1));
}

#[tokio::test]
async fn it_ends_with_its_topic_and_the_topic_forgets_subscribers_that_left() {
    let (desk, server, news) = news().await;
    let gone = news.numbers().await.unwrap();
    drop(gone);
    let topic = desk.numbers.clone();
    eventually("the subscriber is forgotten", || topic.subscribers() == 0).await;
    let lonely = Topic::new();
    let mut here = lonely.subscribe();
    publish(&lonely, [1]).await;
    drop(lonely);
    assert_eq!(next(&mut here).await, value(1));
    assert!(here.next().await.is_none());
    within("the end", server.shutdown(Duration::ZERO)).await;
}

#[tokio::test]
async fn a_rejected_subscription_has_the_status_of_the_method() {
    let (_desk, _server, news) = news().await;
    let status = news.texts("").await.unwrap_err();
    expect(&status, Code::NotFound, Execution::MayHaveExecuted);
}

#[tokio::test]
async fn after_a_restart_it_continues_after_the_last_value() {
    let (desk, mut server, news) = news().await;
    let target = server.target().to_owned();
    let mut numbers = news.numbers().await.unwrap();
    for first in [1, 11, 21] {
        publish(&desk.numbers, first..first + 5).await;
        for number in first..first + 5 {
            assert_eq!(next(&mut numbers).await, value(number));
        }
        within("the end", server.shutdown(Duration::ZERO)).await;
        publish(&desk.numbers, first + 5..first + 10).await;
        server = again(&desk, &target).await;
        for number in first + 5..first + 10 {
            assert_eq!(next(&mut numbers).await, value(number));
        }
    }
}

#[tokio::test]
async fn values_that_came_before_the_first_was_read_are_not_lost_with_the_connection() {
    let (desk, server, news) = news().await;
    let target = server.target().to_owned();
    publish(&desk.numbers, 1..=4).await;
    let mut numbers = news.numbers().await.unwrap();
    within("the end", server.shutdown(Duration::ZERO)).await;
    publish(&desk.numbers, 5..=6).await;
    let _server = again(&desk, &target).await;
    assert_eq!(next(&mut numbers).await, value(5));
    assert_eq!(next(&mut numbers).await, value(6));
}

#[tokio::test]
async fn values_missing_from_the_history_are_a_gap() {
    let desk = Desk {
        numbers: Topic::<u64>::builder().history(3).build(),
        ..Desk::default()
    };
    let (server, client) = serve(NewsServer::new(desk.clone())).await;
    let target = server.target().to_owned();
    let mut numbers = NewsClient::new(client).numbers().await.unwrap();
    publish(&desk.numbers, [1]).await;
    assert_eq!(next(&mut numbers).await, value(1));
    within("the end", server.shutdown(Duration::ZERO)).await;
    publish(&desk.numbers, 2..=10).await;
    let _server = again(&desk, &target).await;
    assert_eq!(missed(&next(&mut numbers).await), Some(6));
    for number in 8..=10 {
        assert_eq!(next(&mut numbers).await, value(number));
    }
}

#[tokio::test]
async fn a_topic_that_begins_anew_is_a_gap_of_unknown_length() {
    let (desk, server, news) = news().await;
    let target = server.target().to_owned();
    let mut numbers = news.numbers().await.unwrap();
    publish(&desk.numbers, 1..=7).await;
    for number in 1..=7 {
        assert_eq!(next(&mut numbers).await, value(number));
    }
    within("the end", server.shutdown(Duration::ZERO)).await;
    let other = Desk::default();
    publish(&other.numbers, 1..=2).await;
    let _server = again(&other, &target).await;
    assert_eq!(missed(&next(&mut numbers).await), None);
    // All values of the new topic are new to a subscriber of another one.
    assert_eq!(next(&mut numbers).await, value(1));
    assert_eq!(next(&mut numbers).await, value(2));
}

#[tokio::test]
async fn a_server_that_shuts_down_ends_subscriptions_at_once_after_all_published_values() {
    let (desk, server, news) = news().await;
    let target = server.target().to_owned();
    let mut numbers = news.numbers().await.unwrap();
    publish(&desk.numbers, 1..=500).await;
    let began = Instant::now();
    let (ended, read) = tokio::join!(server.shutdown(Duration::from_secs(15)), async {
        for number in 1..=500 {
            assert_eq!(next(&mut numbers).await, value(number));
        }
        // No values follow until there is another server.
        numbers
    });
    let () = ended;
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    let mut numbers = read;
    let _server = again(&desk, &target).await;
    publish(&desk.numbers, [501]).await;
    assert_eq!(next(&mut numbers).await, value(501));
}

/// A service whose method returns its subscription once the server shuts down.
#[service]
trait Late {
    async fn numbers(&self, ctx: &CallContext) -> Result<Subscription<u64>, Status>;
}

struct AtShutdown {
    begun: Notify,
    subscription: Mutex<Option<Subscription<u64>>>,
}

impl Late for AtShutdown {
    async fn numbers(&self, ctx: &CallContext) -> Result<Subscription<u64>, Status> {
        self.begun.notify_one();
        ctx.shutting_down().await;
        Ok(self.subscription.lock().unwrap().take().unwrap())
    }
}

/// Returns the values that a client gets of a subscription whose server shuts down, and how they
/// end.
async fn at_shutdown(subscription: Subscription<u64>) -> (Vec<Update<u64>>, Option<Code>) {
    let late = Arc::new(AtShutdown {
        begun: Notify::new(),
        subscription: Mutex::new(Some(subscription)),
    });
    let (server, client) = serve(LateServer::new(Arc::clone(&late))).await;
    let late_client = LateClient::new(client);
    let shutdown = async {
        late.begun.notified().await;
        server.shutdown(Duration::from_secs(15)).await;
    };
    let ctx = CallContext::new();
    let both = async { tokio::join!(late_client.numbers(&ctx), shutdown) };
    let (numbers, ()) = within("the shutdown", both).await;
    let mut numbers = numbers.unwrap().resume_within(Duration::ZERO);
    let mut updates = Vec::new();
    loop {
        match within("the end", numbers.next()).await {
            Some(Ok(update)) => updates.push(update),
            Some(Err(status)) => return (updates, Some(status.code())),
            None => return (updates, None),
        }
    }
}

#[tokio::test]
async fn a_subscription_that_has_ended_before_a_shutdown_keeps_its_end() {
    let topic = Topic::new();
    let running = topic.subscribe();
    let mut read = topic.subscribe();
    let waiting = topic.subscribe();
    let slow = topic.subscribe().buffer(1);
    let slow = slow.slow_consumer(SlowConsumer::End);
    publish(&topic, 1..=2).await;
    let two = vec![value(1), value(2)];
    let cut = Some(Code::Unavailable);
    assert_eq!(at_shutdown(running).await, (two.clone(), cut));
    let exhausted = Some(Code::ResourceExhausted);
    assert_eq!(at_shutdown(slow).await, (Vec::new(), exhausted));
    drop(topic);
    assert_eq!(at_shutdown(waiting).await, (two, None));
    while read.next().await.is_some() {}
    assert_eq!(at_shutdown(read).await, (Vec::new(), None));
}

#[tokio::test]
async fn a_server_that_does_not_come_back_is_reported_in_time() {
    let (_desk, server, news) = news().await;
    let subscribed = news.numbers().await.unwrap();
    let mut numbers = subscribed.resume_within(Duration::from_millis(300));
    within("the end", server.shutdown(Duration::ZERO)).await;
    let began = Instant::now();
    let status = failure(&mut numbers).await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("resume_within"), "{status}");
    assert!(began.elapsed() < SERVED, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_method_that_rejects_a_resumption_ends_it() {
    let (desk, server, news) = news().await;
    let target = server.target().to_owned();
    let mut texts = news.texts("x").await.unwrap();
    desk.texts.publish("one".to_owned()).await;
    assert_eq!(next(&mut texts).await.value().unwrap(), "one");
    within("the end", server.shutdown(Duration::ZERO)).await;
    struct Closed;
    impl News for Closed {
        async fn numbers(&self) -> Result<Subscription<u64>, Status> {
            Err(Status::unimplemented("closed"))
        }
        async fn last(&self, _: usize) -> Result<Subscription<u64>, Status> {
            Err(Status::unimplemented("closed"))
        }
        async fn texts(&self, prefix: &str) -> Result<Subscription<String>, Status> {
            // The new call has the arguments of the first.
            Err(Status::permission_denied(format!("no {prefix} for you")))
        }
    }
    let _server = loop {
        let server = Server::builder().service(NewsServer::new(Closed));
        match server.bind(&target).await {
            Ok(server) => break server,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let status = failure(&mut texts).await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("no x for you"), "{status}");
}

#[tokio::test]
async fn another_process_can_continue_after_a_position() {
    let (desk, server, news) = news().await;
    let mut numbers = news.numbers().await.unwrap();
    publish(&desk.numbers, 1..=9).await;
    for number in 1..=4 {
        assert_eq!(next(&mut numbers).await, value(number));
    }
    let kept = numbers.position().unwrap().to_string();
    drop((numbers, news));
    let position: Position = kept.parse().unwrap();
    let client = Client::connect(server.target()).await.unwrap();
    let options = CallOptions::new().resume(position);
    let mut numbers = NewsClient::new(client)
        .with_options(options)
        .numbers()
        .await
        .unwrap();
    for number in 5..=9 {
        assert_eq!(next(&mut numbers).await, value(number));
    }
    assert_eq!(
        numbers.position().unwrap().to_string(),
        kept.replace(".4", ".9")
    );
}

/// Returns a topic of this process with a buffer of three values, and its subscriber.
fn slow(policy: SlowConsumer) -> (Topic<u64>, Subscription<u64>) {
    let topic = Topic::<u64>::builder()
        .buffer(3)
        .slow_consumer(policy)
        .build();
    let subscription = topic.subscribe();
    (topic, subscription)
}

#[tokio::test]
async fn the_oldest_values_of_a_slow_subscriber_are_dropped() {
    let (topic, mut numbers) = slow(SlowConsumer::DropOldest);
    publish(&topic, 1..=10).await;
    assert_eq!(missed(&next(&mut numbers).await), Some(7));
    for number in 8..=10 {
        assert_eq!(next(&mut numbers).await, value(number));
    }
}

#[tokio::test]
async fn the_newest_values_of_a_slow_subscriber_are_dropped_if_its_topic_is_set_so() {
    let (topic, mut numbers) = slow(SlowConsumer::DropNewest);
    publish(&topic, 1..=10).await;
    for number in 1..=2 {
        assert_eq!(next(&mut numbers).await, value(number));
    }
    assert_eq!(missed(&next(&mut numbers).await), Some(7));
    assert_eq!(next(&mut numbers).await, value(10));
}

#[tokio::test]
async fn a_slow_subscription_ends_if_its_topic_is_set_so() {
    let (topic, mut numbers) = slow(SlowConsumer::End);
    publish(&topic, 1..=4).await;
    let status = failure(&mut numbers).await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("slow_consumer"), "{status}");
}

#[tokio::test]
async fn a_publisher_waits_for_a_slow_subscriber_if_the_topic_is_set_so() {
    let (topic, mut numbers) = slow(SlowConsumer::Wait(Duration::from_secs(600)));
    publish(&topic, 1..=3).await;
    assert_eq!(topic.try_publish(40), Err(TryPublishError(40)));
    let waiting = topic.clone();
    let publisher = spawn(async move { publish(&waiting, 4..=1000).await });
    for number in 1..=1000 {
        assert_eq!(next(&mut numbers).await, value(number));
    }
    within("the publisher", publisher).await.unwrap();
    assert_eq!(topic.try_publish(10_010), Ok(1001));
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_is_waited_for_no_longer_than_the_limit() {
    let (topic, mut numbers) = slow(SlowConsumer::Wait(Duration::from_secs(5)));
    let mut other = topic.subscribe().slow_consumer(SlowConsumer::DropOldest);
    publish(&topic, 1..=3).await;
    let began = tokio::time::Instant::now();
    assert_eq!(topic.publish(40).await, 4);
    assert_eq!(began.elapsed().as_secs(), 5);
    // From then on no publisher waits for it.
    assert_eq!(topic.publish(50).await, 5);
    assert_eq!(began.elapsed().as_secs(), 5);
    assert_eq!(failure(&mut numbers).await.code(), Code::ResourceExhausted);
    assert_eq!(missed(&next(&mut other).await), Some(2));
    assert_eq!(next(&mut other).await, value(3));
}

/// A publisher that waits for a slow subscriber.
async fn waited_for() -> (JoinHandle<()>, Subscription<u64>) {
    let (topic, numbers) = slow(SlowConsumer::Wait(Duration::from_secs(600)));
    publish(&topic, 1..=3).await;
    let publisher = spawn(async move { publish(&topic, [4]).await });
    tokio::task::yield_now().await;
    (publisher, numbers)
}

#[tokio::test]
async fn a_subscriber_who_leaves_is_not_waited_for() {
    let (publisher, numbers) = waited_for().await;
    drop(numbers);
    within("the publisher", publisher).await.unwrap();
}

/// A waker that uses the topic.
struct Looks(Topic<u64>);

impl std::task::Wake for Looks {
    fn wake(self: Arc<Self>) {
        let _ = self.0.subscribers();
    }
}

#[test]
fn a_waker_may_use_the_topic() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for policy in [SlowConsumer::DropOldest, SlowConsumer::End] {
            let (topic, mut numbers) = slow(policy);
            let waker = Waker::from(Arc::new(Looks(topic.clone())));
            let mut next = std::pin::pin!(numbers.next());
            let first = next.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(first.is_pending());
            topic.try_publish(1).unwrap();
        }
        done.send(()).unwrap();
    });
    assert_eq!(is_done.recv_timeout(SERVED), Ok(()), "a deadlock");
}

#[tokio::test]
async fn a_subscriber_is_notified_of_values_dropped_before_the_topic_closes() {
    for policy in [SlowConsumer::DropOldest, SlowConsumer::DropNewest] {
        let (topic, mut numbers) = slow(policy);
        publish(&topic, 1..=10).await;
        drop(topic);
        let (mut values, mut missing) = (0, 0);
        while let Some(update) = within("an update", numbers.next()).await {
            match update.unwrap() {
                Update::Value { .. } => values += 1,
                gap @ Update::Gap(_) => missing += missed(&gap).unwrap(),
            }
        }
        assert_eq!((values, missing), (3, 7), "{policy:?}");
    }
}

#[tokio::test]
async fn values_of_the_history_do_not_make_a_subscriber_slow() {
    for policy in [
        SlowConsumer::DropOldest,
        SlowConsumer::DropNewest,
        SlowConsumer::Wait(Duration::from_secs(600)),
        SlowConsumer::End,
    ] {
        let (topic, _) = slow(policy);
        publish(&topic, 1..=100).await;
        let mut numbers = topic.subscribe().replay(50);
        publish(&topic, 101..=103).await;
        for number in 51..=103 {
            assert_eq!(next(&mut numbers).await, value(number), "{policy:?}");
        }
    }
}

#[tokio::test]
async fn a_publisher_continues_when_its_subscriber_has_capacity_again() {
    let (publisher, numbers) = waited_for().await;
    let _numbers = numbers.buffer(4);
    within("the publisher", publisher).await.unwrap();
}

/// The values are large, so that few are in transit while the reader is stalled.
#[tokio::test]
async fn a_client_that_does_not_read_gets_a_gap_and_uses_bounded_memory() {
    let desk = Desk {
        texts: Topic::<String>::builder().buffer(4).history(4).build(),
        ..Desk::default()
    };
    let (_server, client) = serve(NewsServer::new(desk.clone())).await;
    let news = NewsClient::new(client);
    let mut slow = news.texts("x").await.unwrap();
    let mut quick = news.texts("x").await.unwrap();
    const COUNT: u64 = 100;
    for number in 1..=COUNT {
        desk.texts.publish(number.to_string().repeat(MIB / 4)).await;
        let Update::Value { sequence, .. } = next(&mut quick).await else {
            panic!("the quick one misses something");
        };
        assert_eq!(sequence, number);
    }
    let (mut values, mut missing, mut last) = (0, 0, 0);
    while last < COUNT {
        match next(&mut slow).await {
            Update::Value { sequence, .. } => (values, last) = (values + 1, sequence),
            gap @ Update::Gap(_) => missing += missed(&gap).unwrap(),
        }
    }
    assert_eq!(values + missing, COUNT);
    assert!(missing > COUNT / 2, "{missing} of {COUNT} are missing");
}

/// A service that forwards the values of another server.
struct Relay(NewsClient);

impl News for Relay {
    async fn numbers(&self) -> Result<Subscription<u64>, Status> {
        self.0.numbers().await
    }
    async fn last(&self, count: usize) -> Result<Subscription<u64>, Status> {
        self.0.last(count).await
    }
    async fn texts(&self, prefix: &str) -> Result<Subscription<String>, Status> {
        self.0.texts(prefix).await
    }
}

#[tokio::test]
async fn a_server_can_forward_the_subscription_of_another() {
    let (desk, server, source) = news().await;
    let target = server.target().to_owned();
    let (_relay, client) = serve(NewsServer::new(Relay(source))).await;
    let mut numbers = NewsClient::new(client).numbers().await.unwrap();
    publish(&desk.numbers, 1..=3).await;
    for number in 1..=3 {
        assert_eq!(next(&mut numbers).await, value(number));
    }
    within("the end", server.shutdown(Duration::ZERO)).await;
    let other = Desk::default();
    publish(&other.numbers, [1]).await;
    let _server = again(&other, &target).await;
    assert_eq!(missed(&next(&mut numbers).await), None);
}

#[tokio::test]
async fn it_works_in_json() {
    let desk = Desk::default();
    let client = Client::builder().codec(CodecId::JSON);
    let (_server, client) =
        serve_with(NewsServer::new(desk.clone()), Server::builder(), client).await;
    let mut texts = NewsClient::new(client).texts("x").await.unwrap();
    desk.texts.publish("a".to_owned()).await;
    assert_eq!(next(&mut texts).await.value().unwrap(), "a");
}

#[tokio::test]
async fn an_invalid_position_is_rejected() {
    let (_desk, server, _news) = news().await;
    for bad in [&b"x"[..], b"1.2.3", b"\xff", b""] {
        let mut metadata = Metadata::new();
        metadata.insert("iip-resume", bad.to_vec()).unwrap();
        let client = Client::connect(server.target()).await.unwrap();
        let options = CallOptions::new()
            .metadata("iip-resume", bad.to_vec())
            .unwrap();
        let news = NewsClient::new(client).with_options(options);
        let status = news.numbers().await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{bad:?}");
        assert!(status.message().contains("iip-resume"), "{status}");
    }
}

/// Plays a server that sends these records after the one that accepts the call.
async fn from_a_server_that_sends(records: &[&[u8]]) -> Result<Vec<Update<u64>>, Status> {
    let (listener, client) = lazy(Client::builder()).await;
    let reading = spawn(async move {
        let mut numbers = NewsClient::new(client)
            .numbers()
            .await?
            .resume_within(Duration::ZERO);
        let mut updates = Vec::new();
        while let Some(update) = numbers.next().await {
            updates.push(update?);
        }
        Ok(updates)
    });
    let mut peer = Peer::over(accepted(&listener).await);
    let hello = r#"{"iip":1,"stream_window":65536,"rpc":{"envelope":0,"codecs":[1,3]}}"#;
    let request = serve_until_request(&mut peer, Some(hello), "/news/numbers").await;
    let mut data = vec![0xF8];
    for message in records {
        data.extend(record(message));
    }
    peer.send_frame(&RawFrame::new(4, "/news/numbers", request.channel, &data))
        .await;
    let reply = [0xFE, 0x80, 1];
    peer.send_frame(&RawFrame::new(7, "", request.channel, reply))
        .await;
    within("the client", reading).await.unwrap()
}

/// Returns the record that accepts a call with `iip-begins: KEY`, in bincode.
fn begins(position: &str) -> Vec<u8> {
    let mut record = vec![0x82, 1, 1, 10];
    record.extend(b"iip-begins");
    record.push(position.len().try_into().unwrap());
    record.extend(position.as_bytes());
    record
}

#[tokio::test]
async fn the_bytes_are_those_of_the_document() {
    let updates = from_a_server_that_sends(&[&begins("a.4"), &[5, 50], &[8, 80]])
        .await
        .unwrap();
    assert_eq!(updates[0], value(5));
    assert_eq!(missed(&updates[1]), Some(2));
    assert_eq!(updates[2], value(8));
    assert_eq!(updates.len(), 3);
}

#[tokio::test]
async fn a_server_that_counts_backwards_or_does_not_send_its_begin_ends_the_subscription() {
    let accepted = begins("a.4");
    for records in [
        vec![&accepted[..], &[5, 50], &[5, 50]],
        vec![&accepted, &[4, 40]],
        vec![&accepted, &[0, 0]],
        vec![&[0x80, 1], &[5, 50]],
    ] {
        let status = from_a_server_that_sends(&records).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{status}");
    }
    let nonsense = begins("zzz");
    assert!(from_a_server_that_sends(&[&nonsense]).await.is_err());
}

#[test]
fn a_topic_shows_its_last_number_for_debugging() {
    let topic: Topic<u8> = TopicBuilder::default().build();
    assert!(format!("{topic:?}").contains("last: 0"));
}
