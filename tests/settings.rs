//! Every setting that is a time, a size or a number, at zero, at one and at the maximum of its
//! type. With each of them calls work, or the setting is rejected by name.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::time::Duration;

use iip_core::CallErrorKind;
use iip_rpc::tls::{ClientTls, ServerTls};
use iip_rpc::{
    CallContext, CallOptions, Client, ClientBuilder, Compression, Concurrency, Execution, Hedge,
    Limits, MethodPolicy, RetryBudget, RetryPolicy, Server, ServerBuilder, ServerPolicy,
    SlowConsumer, Status, Stream, Streaming, Subscription, Topic, TopicBuilder, Update, service,
};
use serde_json::json;

use crate::common::authority::Authority;
use crate::common::calls::{sum, times};
use crate::common::{spawn, within};

#[service]
trait Work {
    #[rpc(idempotent)]
    async fn hello(&self, name: String) -> Result<String, Status>;
    /// A method that waits.
    async fn later(&self) -> Result<(), Status>;
    async fn double(
        &self,
        numbers: Streaming<u32>,
    ) -> Result<impl Stream<Item = Result<u32, Status>>, Status>;
}

struct Shop;

impl Work for Shop {
    async fn hello(&self, name: String) -> Result<String, Status> {
        Ok(format!("hello, {name}"))
    }

    async fn later(&self) -> Result<(), Status> {
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn double(
        &self,
        numbers: Streaming<u32>,
    ) -> Result<impl Stream<Item = Result<u32, Status>>, Status> {
        Ok(times(numbers, 2))
    }
}

/// Zero, one, and the maximum of the type.
#[derive(Clone, Copy, Debug)]
enum At {
    Zero,
    One,
    Most,
}

impl At {
    const ALL: [Self; 3] = [Self::Zero, Self::One, Self::Most];

    fn of<T>(self, [zero, one, most]: [T; 3]) -> T {
        match self {
            Self::Zero => zero,
            Self::One => one,
            Self::Most => most,
        }
    }

    fn size(self) -> usize {
        self.of([0, 1, usize::MAX])
    }

    fn number(self) -> u32 {
        self.of([0, 1, u32::MAX])
    }

    fn time(self) -> Duration {
        self.of([Duration::ZERO, Duration::from_nanos(1), Duration::MAX])
    }
}

/// The expected outcome for a value.
#[derive(Clone, Copy, Debug)]
enum Then {
    Works,
    /// Building fails; the error names the setting.
    Refused,
    /// Calls fail with this in their text.
    Fails(&'static str),
    /// Calls work, or fail with this text: nanoseconds decide.
    May(&'static str),
}

use Then::{Fails, May, Refused, Works};

type Both = (ServerBuilder, ClientBuilder);

struct Setting {
    name: &'static str,
    set: fn(Both, At) -> Both,
    then: [Then; 3],
}

/// The limits of a connection, on both sides.
macro_rules! limits {
    ($($name:ident($of:ident) $then:expr;)*) => {
        vec![$(Setting {
            name: stringify!($name),
            set: |(server, client), at| {
                let limits = Limits::default().$name(at.$of());
                (server.limits(limits.clone()), client.limits(limits))
            },
            then: $then,
        }),*]
    };
}

macro_rules! server {
    ($($name:literal $builder:ident, $at:ident => $set:expr, $then:expr;)*) => {
        vec![$(Setting {
            name: $name,
            set: |($builder, client), $at| ($set, client),
            then: $then,
        }),*]
    };
}

macro_rules! client {
    ($($name:literal $builder:ident, $at:ident => $set:expr, $then:expr;)*) => {
        vec![$(Setting {
            name: $name,
            set: |(server, $builder), $at| (server, $set),
            then: $then,
        }),*]
    };
}

/// A timeout must be long enough for an operation.
const LASTS: [Then; 3] = [Refused, Refused, Works];
/// Zero is useless.
const SOME: [Then; 3] = [Refused, Works, Works];
/// Zero counts as one, or as the minimum that works, or means none.
const ANY: [Then; 3] = [Works, Works, Works];

fn of_limits() -> Vec<Setting> {
    limits! {
        max_path_bytes(size) LASTS;
        max_frame_bytes(size) LASTS;
        max_message_bytes(size) [Fails("max_message_bytes"), Fails("max_message_bytes"), Works];
        max_buffered_bytes(size) ANY;
        max_unsent_bytes(size) ANY;
        stream_window(size) ANY;
        max_stream_window(size) ANY;
        chunk_bytes(size) ANY;
        max_channels(size) ANY;
        max_calls(size) ANY;
        max_control_requests(number) ANY;
        frame_head_timeout(time) LASTS;
        progress_timeout(time) LASTS;
        idle_timeout(time) LASTS;
        keepalive_interval(time) LASTS;
        keepalive_timeout(time) LASTS;
    }
}

fn policy(at: At, set: fn(ServerPolicy, Duration) -> ServerPolicy) -> ServerPolicy {
    set(ServerPolicy::new(), at.time())
}

fn of_server() -> Vec<Setting> {
    server! {
        "max_message_bytes" builder, at => builder.max_message_bytes(at.size()),
            [Fails("max_message_bytes"), Fails("max_message_bytes"), Works];
        "max_connections" builder, at => builder.max_connections(at.size()), SOME;
        "max_connections_per_peer" builder, at => builder.max_connections_per_peer(at.size()), SOME;
        "max_connection_age" builder, at => builder.max_connection_age(at.time()), LASTS;
        "max_connection_grace" builder, at => builder
            .max_connection_age(Duration::from_secs(600)).max_connection_grace(at.time()), ANY;
        "max_running_calls" builder, at => builder.max_running_calls(at.size()), SOME;
        "max_total_buffered_bytes" builder, at => builder.max_total_buffered_bytes(at.size()), ANY;
        "max_health_watches" builder, at => builder.max_health_watches(at.size()), ANY;
        "max_health_watches_per_connection" builder, at => builder.max_health_watches_per_connection(at.size()), ANY;
        "max_concurrency" builder, at => builder.max_concurrency(Concurrency::AtMost(at.number())), ANY;
        "service_max_concurrency" builder, at => builder
            .service_max_concurrency("Work", Concurrency::AtMost(at.number())), ANY;
        "method_policy" builder, at => builder
            .method_policy("/work/hello", MethodPolicy::new().timeout(at.time())), SOME;
        "max_concurrency of method_policy" builder, at => builder.method_policy(
            "/work/hello", MethodPolicy::new().max_concurrency(Concurrency::AtMost(at.number()))), ANY;
        "min_timeout" builder, at => builder.policy(policy(at, ServerPolicy::min_timeout)),
            [Works, Works, Fails("min_timeout")];
        "min_timeout" builder, at => builder.policy(
            policy(at, ServerPolicy::min_timeout).max_timeout(Duration::from_secs(600))), [Works, Works, Refused];
        "max_timeout" builder, at => builder.policy(policy(at, ServerPolicy::max_timeout)),
            [Refused, May("deadline exceeded"), Works];
        "default_timeout" builder, at => builder.policy(policy(at, ServerPolicy::default_timeout)), SOME;
        "max_log_lines" builder, at => builder.max_log_lines(at.number()), ANY;
        "max_compression_ratio" builder, at => builder.max_compression_ratio(at.number()), ANY;
        "above" builder, at => builder.compression(Compression::zstd().above(at.size())), ANY;
        "level" builder, at => builder
            .compression(Compression::zstd().above(0).level(at.of([0, i32::MIN, i32::MAX]))), ANY;
    }
}

/// Only calls that wait are retried.
fn retry(at: At, set: fn(RetryPolicy, Duration) -> RetryPolicy) -> RetryPolicy {
    set(RetryPolicy::new(), at.time())
}

fn of_client() -> Vec<Setting> {
    client! {
        "max_message_bytes" builder, at => builder.max_message_bytes(at.size()),
            [Fails("max_message_bytes"), Fails("max_message_bytes"), Works];
        "timeout" builder, at => builder.timeout(at.time()), [Refused, Fails("deadline exceeded"), Works];
        "connect_timeout" builder, at => builder.connect_timeout(at.time()), LASTS;
        "connections" builder, at => builder.connections(at.size()), [Refused, Works, Refused];
        "max_queued_calls" builder, at => builder.max_queued_calls(at.size()), SOME;
        "max_transparent_retries" builder, at => builder.max_transparent_retries(at.number()), ANY;
        "max_attempts" builder, at => builder.retry(RetryPolicy::new().max_attempts(at.number())), ANY;
        "initial_backoff" builder, at => builder.retry(retry(at, RetryPolicy::initial_backoff)), ANY;
        "max_backoff" builder, at => builder.retry(retry(at, RetryPolicy::max_backoff)), ANY;
        "max_tokens" builder, at => builder.retry_budget(RetryBudget::new().max_tokens(at.number())), ANY;
        "token_ratio" builder, at => builder
            .retry_budget(RetryBudget::new().token_ratio(at.of([0.0, f64::MIN, f64::INFINITY]))), ANY;
        "method_policy" builder, at => builder
            .method_policy("/work/hello", MethodPolicy::new().timeout(at.time())),
            [Refused, Fails("deadline exceeded"), Works];
        "hedge after" builder, at => builder
            .method_policy("/work/hello", MethodPolicy::new().hedge(Hedge::After(at.time()))), ANY;
        "hedge percentile" builder, at => builder
            .method_policy("/work/hello", MethodPolicy::new().hedge(Hedge::Percentile(at.of([0, 1, u8::MAX])))), ANY;
        "max_compression_ratio" builder, at => builder.max_compression_ratio(at.number()), ANY;
        "above" builder, at => builder.compression(Compression::lz4().above(at.size())), ANY;
    }
}

/// Builds both sides and calls each method more than once.
async fn try_out((server, client): Both) -> Result<(), Status> {
    let server = server.service(WorkServer::new(Shop)).bind("127.0.0.1:0");
    let server = server
        .await
        .map_err(|error| Status::failed_precondition(error.to_string()))?;
    let client = client.connect(server.target()).await?;
    let work = WorkClient::new(client.clone());
    for _ in 0..3 {
        // Longer than the allowance beyond the limit of messages.
        let name = "ann".repeat(20);
        assert_eq!(work.hello(name.clone()).await?, format!("hello, {name}"));
        work.later().await?;
        let doubled = work.double(Streaming::iter([1, 2, 3])).await?;
        assert_eq!(sum(0, doubled).await?, 12);
    }
    client.close(Duration::from_secs(60)).await;
    server.shutdown(Duration::from_secs(60)).await;
    Ok(())
}

async fn hold(settings: Vec<Setting>) {
    let mut wrong = Vec::new();
    for Setting { name, set, then } in settings {
        for at in At::ALL {
            let then = at.of(then);
            let both = set((Server::builder(), Client::builder()), at);
            // A panic is reported with the name of the setting.
            let tried = spawn(try_out(both));
            let came = within(name, tried).await;
            let right = match (&came, then) {
                (Ok(Ok(())), Works | May(_)) => true,
                (Ok(Err(status)), Refused) => {
                    let option = name.split(' ').next().unwrap();
                    status.message().contains(&format!("option {option}"))
                        || status
                            .message()
                            .contains(&format!("option timeout of {option}"))
                        || status.message().contains(&format!("{option} of policy"))
                }
                (Ok(Err(status)), Fails(text) | May(text)) => status.to_string().contains(text),
                _ => false,
            };
            if !right {
                wrong.push(format!("{name} at {at:?}: {then:?}, and yet {came:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn every_limit_of_a_connection_works_at_its_ends_or_is_rejected_by_name() {
    hold(of_limits()).await;
}

#[tokio::test]
async fn every_setting_of_a_server_works_at_its_ends_or_is_rejected_by_name() {
    hold(of_server()).await;
}

#[tokio::test]
async fn every_setting_of_a_client_works_at_its_ends_or_is_rejected_by_name() {
    hold(of_client()).await;
}

#[tokio::test]
async fn an_endless_age_is_an_age_that_is_never_reached() {
    for age in [
        Duration::MAX,
        Duration::MAX / 2,
        Duration::from_secs(u64::MAX / 4),
    ] {
        let server = Server::builder()
            .max_connection_age(age)
            .max_connection_grace(age)
            .service(WorkServer::new(Shop));
        let server = server.bind("127.0.0.1:0").await.unwrap();
        // The random part of the age can lengthen or shorten it.
        for _ in 0..40 {
            let work = WorkClient::connect(server.target()).await.unwrap();
            work.later().await.unwrap();
        }
    }
}

#[tokio::test]
async fn settings_of_tls_work_at_their_ends_or_are_rejected_by_name() {
    let authority = Authority::new("an authority");
    let tls = |at: Option<At>, ours: Option<At>| -> (ServerTls, ClientTls) {
        let server = authority.server_called("127.0.0.1");
        let server = match at {
            None => server,
            Some(at) => server.handshake_timeout(at.time()),
        };
        let client = authority.client();
        let client = match ours {
            None => client,
            Some(at) => client.handshake_timeout(at.time()),
        };
        (server, client)
    };
    for at in At::ALL {
        for (server, client) in [tls(Some(at), None), tls(None, Some(at))] {
            let both = (Server::builder().tls(server), Client::builder().tls(client));
            let came = within("a call over TLS", try_out(both)).await;
            match at {
                At::Most => came.unwrap(),
                _ => {
                    let status = came.unwrap_err();
                    assert!(
                        status.message().contains("option handshake_timeout"),
                        "{status}"
                    );
                }
            }
        }
        let (server, client) = tls(None, None);
        let server = server.max_handshakes(at.size());
        let both = (Server::builder().tls(server), Client::builder().tls(client));
        within("a call over TLS", try_out(both)).await.unwrap();
    }
}

#[tokio::test]
async fn the_timeout_of_a_call_may_be_anything_from_zero_to_endless() {
    let server = Server::builder().service(WorkServer::new(Shop));
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let work = WorkClient::connect(server.target()).await.unwrap();
    for at in At::ALL {
        let timed = work.with_options(CallOptions::new().timeout(at.time()));
        let nested = CallContext::new().with_timeout(at.time());
        let inherited = nested.scope(work.hello("ann".into()));
        for came in [timed.hello("ann".into()).await, inherited.await] {
            match at {
                At::Most => assert_eq!(came.unwrap(), "hello, ann"),
                _ => assert_eq!(came.unwrap_err().code(), iip_rpc::Code::DeadlineExceeded),
            }
        }
        let repeated = work.with_options(CallOptions::new().max_transparent_retries(at.number()));
        assert_eq!(repeated.hello("ann".into()).await.unwrap(), "hello, ann");
    }
}

#[tokio::test]
async fn raw_clients_and_servers_reject_settings_that_cannot_work() {
    let config = iip_core::Client::builder().timeout(Duration::ZERO);
    let error = config.connect_lazy("127.0.0.1:1").unwrap_err();
    assert_eq!(error.execution(), Execution::NotSent);
    assert!(error.to_string().contains("option timeout"), "{error}");
    let CallErrorKind::Config(error) = error.kind() else {
        panic!("{error}");
    };
    assert_eq!(error.option(), "timeout");
    for at in [At::Zero, At::One] {
        let server = iip_core::Server::builder().max_connection_age(at.time());
        let error = server.in_memory().unwrap_err();
        assert!(
            error.to_string().contains("option max_connection_age"),
            "{error}"
        );
    }
    // A hello is an object, and so are the fields that are added to it.
    for announce in [json!(null), json!("fields"), json!([1]), json!(1)] {
        let server = iip_core::Server::builder().announce(announce.clone());
        let error = server.in_memory().unwrap_err();
        assert!(error.to_string().contains("option announce"), "{error}");
        let client = iip_core::Client::builder().hello(announce);
        let error = client.connect_lazy("127.0.0.1:1").unwrap_err();
        assert!(error.to_string().contains("option hello"), "{error}");
    }
    let error = iip_core::Client::builder()
        .max_channels(0)
        .connect_lazy("127.0.0.1:1");
    assert!(error.is_ok(), "0 counts as 1");
    let status = Client::builder()
        .connections(0)
        .connect_lazy("127.0.0.1:1")
        .unwrap_err();
    assert_eq!(status.execution(), Execution::NotSent);
}

#[service]
trait News {
    async fn news(&self) -> Result<Subscription<u32>, Status>;
}

struct Desk(Topic<u32>);

impl News for Desk {
    async fn news(&self) -> Result<Subscription<u32>, Status> {
        Ok(self.0.subscribe())
    }
}

#[tokio::test]
async fn topics_and_channels_of_any_size_deliver_their_values() {
    for at in At::ALL {
        let waits = SlowConsumer::Wait(at.time());
        for builder in [
            TopicBuilder::default().history(at.size()),
            TopicBuilder::default().buffer(at.size()),
            TopicBuilder::default().slow_consumer(waits),
        ] {
            let topic: Topic<u32> = builder.build();
            let server = Server::builder().service(NewsServer::new(Desk(topic.clone())));
            let server = server.bind("127.0.0.1:0").await.unwrap();
            let news = NewsClient::connect(server.target()).await.unwrap();
            let mut news = within("the subscription", news.news()).await.unwrap();
            for number in 1..=3 {
                within("room", topic.publish(number)).await;
                let came = within("a value", news.next()).await.unwrap().unwrap();
                assert!(
                    matches!(came, Update::Value { value, .. } if value == number),
                    "{came:?}"
                );
            }
        }
        let (sender, mut stream) = Streaming::<u32, Status>::channel(at.size());
        let sending = spawn(async move { sender.send(1).await.map(|()| sender.finish()) });
        assert_eq!(stream.next().await, Some(Ok(1)));
        assert_eq!(stream.next().await, None);
        sending.await.unwrap().unwrap();
    }
}
