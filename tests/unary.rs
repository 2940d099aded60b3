//! Typed calls that succeed, over real sockets: all forms of methods, and all kinds of targets.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use iip_rpc::codec::CodecId;
use iip_rpc::schema::check_derived;
use iip_rpc::{CallContext, CallOptions, Client, Payload, Schema, Server, Status, service};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::common::calls::{current, port, serve, serve_json, serve_with};
use crate::common::{spawn, within};

#[service]
trait Greeter {
    async fn hello(&self, name: String) -> Result<String, Status>;
}

struct Polite;

impl Greeter for Polite {
    async fn hello(&self, name: String) -> Result<String, Status> {
        Ok(format!("hello, {name}"))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
struct Point {
    x: i64,
    y: i64,
    #[serde(default)]
    label: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Schema)]
enum Shape {
    Nothing,
    Circle(Point, f64),
    Polygon { corners: Vec<Point> },
}

#[service]
trait Everything {
    async fn nothing(&self) -> Result<(), Status>;
    async fn shape(&self, shape: Shape) -> Result<Shape, Status>;
    async fn lent(
        &self,
        text: &str,
        bytes: &[u8],
        numbers: &[u32],
        point: &Point,
    ) -> Result<(String, Vec<u8>, Vec<u32>, Point), Status>;
    #[expect(
        clippy::too_many_arguments,
        reason = "twelve are allowed and must arrive in their order"
    )]
    async fn twelve(
        &self,
        a: u8,
        b: u16,
        c: u32,
        d: u64,
        e: i8,
        f: i16,
        g: i32,
        h: i64,
        i: bool,
        j: char,
        k: String,
        l: Option<u8>,
    ) -> Result<String, Status>;
    async fn bytes(&self, data: Bytes) -> Result<Bytes, Status>;
    async fn vector(&self, data: Vec<u8>) -> Result<Vec<u8>, Status>;
    async fn payload(&self, prefix: u32, data: Payload) -> Result<Payload, Status>;
    async fn swapped(&self, map: HashMap<String, u32>) -> Result<HashMap<u32, String>, Status>;
}

struct Mirror;

impl Everything for Mirror {
    async fn nothing(&self) -> Result<(), Status> {
        Ok(())
    }

    async fn shape(&self, shape: Shape) -> Result<Shape, Status> {
        Ok(shape)
    }

    async fn lent(
        &self,
        text: &str,
        bytes: &[u8],
        numbers: &[u32],
        point: &Point,
    ) -> Result<(String, Vec<u8>, Vec<u32>, Point), Status> {
        Ok((
            text.to_owned(),
            bytes.to_vec(),
            numbers.to_vec(),
            point.clone(),
        ))
    }

    async fn twelve(
        &self,
        a: u8,
        b: u16,
        c: u32,
        d: u64,
        e: i8,
        f: i16,
        g: i32,
        h: i64,
        i: bool,
        j: char,
        k: String,
        l: Option<u8>,
    ) -> Result<String, Status> {
        Ok(format!("{a} {b} {c} {d} {e} {f} {g} {h} {i} {j} {k} {l:?}"))
    }

    async fn bytes(&self, data: Bytes) -> Result<Bytes, Status> {
        Ok(data)
    }

    async fn vector(&self, data: Vec<u8>) -> Result<Vec<u8>, Status> {
        Ok(data)
    }

    async fn payload(&self, prefix: u32, data: Payload) -> Result<Payload, Status> {
        let mut all = prefix.to_be_bytes().to_vec();
        all.extend_from_slice(&data);
        Ok(all.into())
    }

    async fn swapped(&self, map: HashMap<String, u32>) -> Result<HashMap<u32, String>, Status> {
        Ok(map.into_iter().map(|(key, value)| (value, key)).collect())
    }
}

#[service]
trait Store<K, V>
where
    K: Serialize + DeserializeOwned + Eq + Hash + Debug + Send + Sync + 'static,
    V: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
{
    async fn put(&self, key: K, value: V) -> Result<Option<V>, Status>;
    async fn get(&self, key: &K) -> Result<V, Status>;
}

struct Memory<K, V>(Mutex<HashMap<K, V>>);

impl<K, V> Store<K, V> for Memory<K, V>
where
    K: Serialize + DeserializeOwned + Eq + Hash + Debug + Send + Sync + 'static,
    V: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
{
    async fn put(&self, key: K, value: V) -> Result<Option<V>, Status> {
        Ok(self.0.lock().unwrap().insert(key, value))
    }

    async fn get(&self, key: &K) -> Result<V, Status> {
        let found = self.0.lock().unwrap().get(key).cloned();
        found.ok_or_else(|| Status::not_found(format!("no {key:?}")))
    }
}

#[service(dyn)]
trait Counter {
    async fn add(&self, ctx: &CallContext, numbers: &[u64]) -> Result<u64, Status>;
}

struct Sum(u64);

impl Counter for Sum {
    async fn add(&self, _: &CallContext, numbers: &[u64]) -> Result<u64, Status> {
        Ok(self.0 + numbers.iter().sum::<u64>())
    }
}

/// Returns what a handler can know about the call.
#[service]
trait Circumstances {
    async fn by_parameter(&self, ctx: &CallContext, key: String) -> Result<Seen, Status>;
    async fn by_task(&self, key: String) -> Result<Seen, Status>;
    async fn by_task_later(&self, key: String) -> Result<Seen, Status>;
    async fn in_spawned_task(&self, scoped: bool) -> Result<bool, Status>;
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Schema)]
struct Seen {
    method: String,
    value: Option<String>,
    peer: Option<String>,
    has_deadline: bool,
}

impl Seen {
    fn of(ctx: &CallContext, key: &str) -> Self {
        Self {
            method: ctx.method().map(ToString::to_string).unwrap_or_default(),
            value: ctx.metadata().text(key).map(str::to_owned),
            peer: ctx
                .peer()
                .and_then(|peer| peer.addr())
                .map(|addr| addr.ip().to_string()),
            has_deadline: ctx.deadline().is_some(),
        }
    }
}

struct Witness;

impl Circumstances for Witness {
    async fn by_parameter(&self, ctx: &CallContext, key: String) -> Result<Seen, Status> {
        Ok(Seen::of(ctx, &key))
    }

    async fn by_task(&self, key: String) -> Result<Seen, Status> {
        let ctx = current()?;
        Ok(Seen::of(&ctx, &key))
    }

    async fn by_task_later(&self, key: String) -> Result<Seen, Status> {
        tokio::task::yield_now().await;
        self.by_task(key).await
    }

    async fn in_spawned_task(&self, scoped: bool) -> Result<bool, Status> {
        let ctx = current()?;
        let look = async { CallContext::current().is_some() };
        let seen = if scoped {
            spawn(ctx.scope(look)).await
        } else {
            spawn(look).await
        };
        seen.map_err(|error| Status::internal(error.to_string()))
    }
}

#[service]
trait Meeting {
    async fn meet(&self, number: u32) -> Result<u32, Status>;
}

/// Replies only when all calls have come.
struct Crowd(Barrier);

impl Meeting for Crowd {
    async fn meet(&self, number: u32) -> Result<u32, Status> {
        self.0.wait().await;
        Ok(number)
    }
}

fn all_bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8)) as u8).collect()
}

/// Calls every method of [`Mirror`] through `client`.
async fn everything_works(client: Client) {
    let mirror = EverythingClient::new(client);
    mirror.nothing().await.unwrap();
    let point = Point {
        x: i64::MIN,
        y: i64::MAX,
        label: Some("ü\u{0}\"".into()),
    };
    for shape in [
        Shape::Nothing,
        Shape::Circle(point.clone(), -0.5),
        Shape::Polygon {
            corners: vec![point.clone(); 3],
        },
    ] {
        assert_eq!(mirror.shape(shape.clone()).await.unwrap(), shape);
    }
    let lent = mirror.lent("text", &[0, 255], &[1, u32::MAX], &point).await;
    assert_eq!(
        lent.unwrap(),
        ("text".into(), vec![0, 255], vec![1, u32::MAX], point)
    );
    let twelve = mirror
        .twelve(1, 2, 3, 4, -5, -6, -7, -8, true, 'j', "k".into(), None)
        .await;
    assert_eq!(twelve.unwrap(), "1 2 3 4 -5 -6 -7 -8 true j k None");
    for len in [0, 1, 2047, 2048, 4096, 70_000] {
        let data = all_bytes(len);
        assert_eq!(mirror.bytes(data.clone().into()).await.unwrap(), data);
        assert_eq!(mirror.vector(data.clone()).await.unwrap(), data);
        let payload = mirror.payload(7, data.clone().into()).await.unwrap();
        assert_eq!(payload[..4], [0, 0, 0, 7]);
        assert_eq!(payload[4..], data);
    }
    let swapped = mirror.swapped([("a".to_owned(), 1)].into()).await.unwrap();
    assert_eq!(swapped, HashMap::from([(1, "a".to_owned())]));
}

#[tokio::test]
async fn a_typed_call_works_over_tcp() {
    let (server, client) = serve(GreeterServer::new(Polite)).await;
    assert_eq!(
        server.local_addr().unwrap().to_string(),
        server.target(),
        "port 0 became a real one"
    );
    let greeter = GreeterClient::new(client);
    assert_eq!(greeter.hello("world".into()).await.unwrap(), "hello, world");
}

#[tokio::test]
async fn arguments_and_results_of_every_kind_arrive_as_they_were_sent() {
    let (_server, client) = serve(EverythingServer::new(Mirror)).await;
    within("all calls", everything_works(client)).await;
}

#[tokio::test]
async fn the_same_calls_work_with_the_json_codec() {
    let (_server, client) = serve_json(EverythingServer::new(Mirror)).await;
    within("all calls", everything_works(client)).await;
}

#[tokio::test]
async fn the_same_calls_work_over_a_unix_socket() {
    let path = std::env::temp_dir().join(format!("iip-unary-{}.sock", std::process::id()));
    let target = format!("unix:{}", path.display());
    let server = Server::builder()
        .service(EverythingServer::new(Mirror))
        .bind(&target)
        .await
        .unwrap();
    assert_eq!(server.local_addr(), None);
    assert_eq!(server.target(), target);
    let client = Client::connect(server.target()).await.unwrap();
    within("all calls", everything_works(client)).await;
    within(
        "the shutdown",
        server.shutdown(std::time::Duration::from_secs(60)),
    )
    .await;
    within("the end of the server", server.stopped()).await;
    assert!(!path.exists(), "the socket's file is gone with the server");
}

#[tokio::test]
async fn the_same_calls_work_in_memory() {
    let (_server, connector) = Server::builder()
        .service(EverythingServer::new(Mirror))
        .in_memory()
        .unwrap();
    let client = Client::builder().connect_with(connector).await.unwrap();
    within("all calls", everything_works(client)).await;
}

#[tokio::test]
async fn an_unknown_codec_is_rejected_before_anything_is_sent() {
    let (server, _client) = serve(GreeterServer::new(Polite)).await;
    let error = Client::builder()
        .codec(CodecId::new(77))
        .connect(server.target())
        .await
        .unwrap_err();
    assert_eq!(error.code(), iip_rpc::Code::InvalidArgument);
    assert_eq!(error.execution(), iip_rpc::Execution::NotSent);
    assert!(error.message().contains("option codec"), "{error}");
}

#[tokio::test]
async fn several_services_share_one_port_and_one_connection() {
    let server = Server::builder()
        .service(GreeterServer::new(Polite))
        .service(EverythingServer::new(Mirror));
    let counter = CounterServer::from_arc(Arc::new(Sum(1)));
    let (_server, client) = serve_with(counter, server, Client::builder()).await;
    let greeter = GreeterClient::new(client.clone());
    let mirror = EverythingClient::new(client.clone());
    let counter = CounterClient::new(client);
    assert_eq!(greeter.hello("a".into()).await.unwrap(), "hello, a");
    assert_eq!(mirror.vector(vec![1]).await.unwrap(), [1]);
    let sum = counter.add(&CallContext::new(), &[2, 3]).await;
    assert_eq!(sum.unwrap(), 6);
}

#[tokio::test]
async fn one_service_twice_is_rejected_at_bind() {
    let twice = Server::builder()
        .service(GreeterServer::new(Polite))
        .service(GreeterServer::new(Polite))
        .bind("127.0.0.1:0")
        .await;
    let error = twice.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("GreeterServer<"), "{error}");
    assert!(error.to_string().contains("twice"), "{error}");
}

#[tokio::test]
async fn a_raw_route_on_the_path_of_a_method_is_rejected_at_bind() {
    let handler = iip_core::handler_fn(|request: iip_core::Request| async move {
        Ok::<_, iip_core::HandlerError>(request.into_body().into())
    });
    let error = Server::builder()
        .route("/greeter/hello", handler)
        .service(GreeterServer::new(Polite))
        .bind("127.0.0.1:0")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("/greeter/hello"), "{error}");
}

#[tokio::test]
async fn a_generic_service_serves_the_types_it_was_made_with() {
    let memory = Memory::<String, Vec<u16>>(Mutex::default());
    let (_server, client) = serve(StoreServer::new(memory)).await;
    let store = StoreClient::<String, Vec<u16>>::new(client);
    assert_eq!(store.put("a".into(), vec![1, 2]).await.unwrap(), None);
    assert_eq!(store.put("a".into(), vec![3]).await, Ok(Some(vec![1, 2])));
    assert_eq!(store.get(&"a".to_owned()).await.unwrap(), [3]);
    let missing = store.get(&"b".to_owned()).await.unwrap_err();
    assert_eq!(missing, Status::not_found("no \"b\""));
}

#[tokio::test]
async fn clients_and_implementations_are_one_trait_object() {
    let (_server, client) = serve(CounterServer::new(Sum(100))).await;
    let counters: Vec<Arc<dyn DynCounter>> =
        vec![Arc::new(Sum(10)), Arc::new(CounterClient::new(client))];
    let mut sums = Vec::new();
    for counter in &counters {
        sums.push(counter.add(&CallContext::new(), &[1, 2]).await.unwrap());
    }
    assert_eq!(sums, [13, 103]);
}

#[tokio::test]
async fn a_trait_object_can_be_served() {
    let counter: Arc<dyn DynCounter> = Arc::new(Sum(5));
    let (_server, client) = serve(CounterServer::new(counter)).await;
    let counter = CounterClient::new(client);
    assert_eq!(counter.add(&CallContext::new(), &[]).await.unwrap(), 5);
}

#[tokio::test]
async fn code_that_takes_the_trait_works_with_and_without_a_server() {
    async fn greet(greeter: &impl Greeter) -> String {
        greeter.hello("you".into()).await.unwrap()
    }
    let (_server, client) = serve(GreeterServer::new(Polite)).await;
    assert_eq!(greet(&Polite).await, "hello, you");
    assert_eq!(greet(&GreeterClient::new(client)).await, "hello, you");
}

#[tokio::test]
async fn a_handler_finds_the_context_of_its_call() {
    let (_server, client) = serve(CircumstancesServer::new(Witness)).await;
    let options = CallOptions::new().metadata("x-user", "ann").unwrap();
    let witness = CircumstancesClient::new(client).with_options(options);
    let seen = |method: &str| Seen {
        method: method.into(),
        value: Some("ann".into()),
        peer: Some("127.0.0.1".into()),
        has_deadline: true,
    };
    let ctx = CallContext::new();
    let key = || "x-user".to_owned();
    assert_eq!(
        witness.by_parameter(&ctx, key()).await.unwrap(),
        seen("Circumstances.by_parameter")
    );
    assert_eq!(
        witness.by_task(key()).await.unwrap(),
        seen("Circumstances.by_task")
    );
    assert_eq!(
        witness.by_task_later(key()).await.unwrap(),
        seen("Circumstances.by_task_later")
    );
}

#[tokio::test]
async fn the_context_reaches_a_task_only_when_it_is_passed_on() {
    let (_server, client) = serve(CircumstancesServer::new(Witness)).await;
    let witness = CircumstancesClient::new(client);
    assert!(!witness.in_spawned_task(false).await.unwrap());
    assert!(witness.in_spawned_task(true).await.unwrap());
    assert!(
        CallContext::current().is_none(),
        "outside a handler there is none"
    );
}

#[tokio::test]
async fn metadata_of_a_context_is_that_of_the_call_being_handled_and_is_not_sent() {
    let (_server, client) = serve(CircumstancesServer::new(Witness)).await;
    let mut metadata = iip_rpc::Metadata::new();
    metadata.insert_text("x-user", "bob").unwrap();
    let ctx = CallContext::new().with_metadata(metadata);
    let handled = Witness.by_parameter(&ctx, "x-user".into()).await.unwrap();
    assert_eq!(handled.value.as_deref(), Some("bob"));
    let witness = CircumstancesClient::new(client);
    let seen = witness.by_parameter(&ctx, "x-user".into()).await.unwrap();
    assert_eq!(seen.value, None);
    let options = CallOptions::new().metadata("x-user", "ann").unwrap();
    let witness = witness.with_options(options);
    let seen = witness.by_parameter(&ctx, "x-user".into()).await.unwrap();
    assert_eq!(seen.value.as_deref(), Some("ann"));
}

#[test]
fn clients_are_shared_freely_and_their_futures_are_send() {
    fn shared<T: Clone + Send + Sync + Debug + 'static>() {}
    fn send<F: Future + Send>(_: &F) {}
    shared::<Client>();
    shared::<GreeterClient>();
    shared::<StoreClient<String, u8>>();
    shared::<CallContext>();
    let client = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            Client::builder()
                .connect_lazy("127.0.0.1:1")
                .expect("nothing is connected yet")
        });
    let greeter = GreeterClient::new(client.clone());
    send(&greeter.hello(String::new()));
    let counter = CounterClient::new(client.clone());
    let ctx = CallContext::new();
    send(&counter.add(&ctx, &[1]));
    send(&client.close(std::time::Duration::ZERO));
    send(&Client::connect("127.0.0.1:1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_wait_for_each_other_on_one_connection() {
    const CALLS: u32 = 1_000;
    let crowd = Crowd(Barrier::new(CALLS as usize));
    let (_server, client) = serve(MeetingServer::new(crowd)).await;
    let meeting = MeetingClient::new(client);
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let meeting = meeting.clone();
        calls.spawn(async move { (number, meeting.meet(number).await) });
    }
    let replies = within("all replies", calls.join_all()).await;
    assert_eq!(replies.len(), CALLS as usize);
    for (number, reply) in replies {
        assert_eq!(reply.unwrap(), number);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_just_below_the_limit_pass_in_both_directions() {
    let (_server, client) = serve(EverythingServer::new(Mirror)).await;
    let mirror = EverythingClient::new(client);
    let data = Bytes::from(all_bytes(16 * 1024 * 1024 - 64));
    let whole = within("a large echo", mirror.bytes(data.clone())).await;
    assert!(whole.unwrap() == data);
    let copied = within("a large echo", mirror.vector(data.to_vec())).await;
    assert!(copied.unwrap() == data);
    let payload = within("a large echo", mirror.payload(1, data.clone().into())).await;
    assert!(payload.unwrap()[4..] == data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_calls_finish_while_large_ones_are_transferred() {
    let (_server, client) = serve(EverythingServer::new(Mirror)).await;
    let mirror = EverythingClient::new(client);
    let data = Bytes::from(all_bytes(8 * 1024 * 1024));
    let mut calls = JoinSet::new();
    for number in 0..64_usize {
        let (mirror, data) = (mirror.clone(), data.clone());
        calls.spawn(async move {
            if number % 16 == 0 {
                assert!(mirror.bytes(data.clone()).await.unwrap() == data);
            } else {
                let small = vec![number as u8; number];
                assert_eq!(mirror.vector(small.clone()).await.unwrap(), small);
            }
        });
    }
    within("all replies", calls.join_all()).await;
}

#[tokio::test]
async fn calls_spread_over_several_connections() {
    let client = Client::builder().connections(3);
    let ports = PortsServer::new(Doorman);
    let (_server, client) = serve_with(ports, Server::builder(), client).await;
    let ports = PortsClient::new(client);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..9 {
        seen.insert(ports.mine().await.unwrap());
    }
    assert_eq!(seen.len(), 3);
}

/// Blocks its thread after it has yielded once.
#[service]
trait Hog {
    async fn compute(&self) -> Result<(), Status>;
    async fn quick(&self) -> Result<(), Status>;
}

struct Pig {
    entered: Arc<tokio::sync::Notify>,
    free: Arc<AtomicBool>,
}

impl Hog for Pig {
    async fn compute(&self) -> Result<(), Status> {
        self.entered.notify_one();
        tokio::task::yield_now().await;
        while !self.free.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        Ok(())
    }

    async fn quick(&self) -> Result<(), Status> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_handler_that_had_to_wait_does_not_block_its_connection() {
    let (entered, free) = (Arc::default(), Arc::new(AtomicBool::new(false)));
    let pig = Pig {
        entered: Arc::clone(&entered),
        free: Arc::clone(&free),
    };
    let (_server, client) = serve(HogServer::new(pig)).await;
    let hog = HogClient::new(client);
    let computing = hog.clone();
    let computing = spawn(async move { computing.compute().await });
    within("the handler", entered.notified()).await;
    let quick = tokio::time::timeout(crate::common::SERVED, hog.quick()).await;
    free.store(true, Ordering::Relaxed);
    within("the end of the computation", computing)
        .await
        .unwrap()
        .unwrap();
    quick
        .expect("answered while the other handler holds its thread")
        .unwrap();
}

#[service]
trait Ports {
    async fn mine(&self) -> Result<u16, Status>;
}

struct Doorman;

impl Ports for Doorman {
    async fn mine(&self) -> Result<u16, Status> {
        port(&current()?)
    }
}

#[test]
fn types_are_described_as_they_are_observed() {
    check_derived::<Point>().unwrap();
    check_derived::<Shape>().unwrap();
    check_derived::<Seen>().unwrap();
}
