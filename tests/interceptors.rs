//! Interceptors of both sides: the calls they see, the changes they make, and calls that they end
//! themselves.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use iip_rpc::interceptor::{
    ClientCall, ClientInterceptor, Completion, Intercepted, Next, Outcome, ServerCall,
    ServerInterceptor,
};
use iip_rpc::{
    CallContext, CallOptions, Client, Code, Execution, Server, Status, Stream, Streaming, service,
};
use tokio::sync::{Notify, mpsc};

use crate::common::calls::{ShopError, current, expect, serve, serve_with, sum, times};
use crate::common::{passes, spawn, started, within};

/// A timeout that a busy machine does not reach by itself.
const TIME: Duration = Duration::from_secs(5);

#[service]
trait Shop {
    #[rpc(auth = "customer")]
    async fn buy(&self, article: &str) -> Result<String, ShopError>;
    async fn fail(&self) -> Result<(), Status>;
    async fn who(&self) -> Result<Option<String>, Status>;
    async fn stuck(&self) -> Result<(), Status>;
    async fn list(&self, count: u32) -> Result<impl Stream<Item = Result<u32, ShopError>>, Status>;
    async fn sum(&self, numbers: Streaming<u32>) -> Result<u32, Status>;
    async fn double(
        &self,
        numbers: Streaming<u32>,
    ) -> Result<impl Stream<Item = Result<u32, Status>>, Status>;
    #[rpc(path = "/raw/echo", raw)]
    async fn echo(&self, body: Bytes) -> Result<Bytes, Status>;
}

#[derive(Default)]
struct Corner {
    /// Number of handlers that ran.
    runs: Arc<AtomicUsize>,
    stuck: Arc<Notify>,
}

/// The caller, as identified by an interceptor.
struct Name(String);

impl Shop for Corner {
    async fn buy(&self, article: &str) -> Result<String, ShopError> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        match article {
            "bread" => Err(ShopError::SoldOut),
            article => Ok(format!("one {article}")),
        }
    }

    async fn fail(&self) -> Result<(), Status> {
        Err(Status::data_loss("gone"))
    }

    async fn who(&self) -> Result<Option<String>, Status> {
        Ok(current()?.extension::<Name>().map(|name| name.0.clone()))
    }

    async fn stuck(&self) -> Result<(), Status> {
        self.stuck.notify_one();
        std::future::pending().await
    }

    async fn list(&self, count: u32) -> Result<impl Stream<Item = Result<u32, ShopError>>, Status> {
        if count > 100 {
            return Err(Status::out_of_range("too many"));
        }
        let (sender, stream) = Streaming::channel(1);
        spawn(async move {
            for number in 0..count {
                if sender.send(number).await.is_err() {
                    return;
                }
            }
            match count {
                13 => sender.fail(ShopError::SoldOut).await,
                _ => sender.finish(),
            }
        });
        Ok(stream)
    }

    async fn sum(&self, numbers: Streaming<u32>) -> Result<u32, Status> {
        sum(0, numbers).await
    }

    async fn double(
        &self,
        numbers: Streaming<u32>,
    ) -> Result<impl Stream<Item = Result<u32, Status>>, Status> {
        Ok(times(numbers, 2))
    }

    async fn echo(&self, body: Bytes) -> Result<Bytes, Status> {
        Ok(body)
    }
}

/// Reports the calls of both sides: "name: Method" when a call comes, "name: Method = outcome" when
/// it has ended, and "name: Method dropped" when it is dropped.
#[derive(Clone)]
struct Watch(&'static str, mpsc::UnboundedSender<String>);

struct Seen {
    watch: Watch,
    method: String,
    ended: bool,
}

impl Watch {
    fn new(name: &'static str) -> (Self, mpsc::UnboundedReceiver<String>) {
        let (sender, seen) = mpsc::unbounded_channel();
        (Self(name, sender), seen)
    }

    fn named(&self, name: &'static str) -> Self {
        Self(name, self.1.clone())
    }

    fn begin(&self, method: impl ToString) -> Seen {
        let method = method.to_string();
        let _ = self.1.send(format!("{}: {method}", self.0));
        Seen {
            watch: self.clone(),
            method,
            ended: false,
        }
    }
}

impl Seen {
    fn end(mut self, outcome: &Outcome) {
        self.ended = true;
        let (Watch(name, sender), method) = (&self.watch, &self.method);
        let _ = sender.send(format!("{name}: {method} = {:?} {outcome}", outcome.code()));
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        if !self.ended {
            let (Watch(name, sender), method) = (&self.watch, &self.method);
            let _ = sender.send(format!("{name}: {method} dropped"));
        }
    }
}

impl ServerInterceptor for Watch {
    async fn intercept(
        &self,
        call: ServerCall,
        next: Next<ServerCall>,
    ) -> Result<Completion, Status> {
        let seen = self.begin(call.method());
        let reply = next.run(call).await;
        seen.end(reply.outcome());
        Ok(reply)
    }
}

impl ClientInterceptor for Watch {
    async fn intercept(
        &self,
        call: ClientCall,
        next: Next<ClientCall>,
    ) -> Result<Completion, Status> {
        let seen = self.begin(call.method());
        let reply = next.run(call).await;
        seen.end(reply.outcome());
        Ok(reply)
    }
}

async fn next(seen: &mut mpsc::UnboundedReceiver<String>) -> String {
    within("an event of an interceptor", seen.recv())
        .await
        .unwrap()
}

fn all(seen: &mut mpsc::UnboundedReceiver<String>) -> Vec<String> {
    std::iter::from_fn(|| seen.try_recv().ok()).collect()
}

/// A server and a client, each with a `Watch`.
async fn watched() -> (
    Server,
    ShopClient,
    mpsc::UnboundedReceiver<String>,
    mpsc::UnboundedReceiver<String>,
) {
    let (at_server, server_saw) = Watch::new("server");
    let (at_client, client_saw) = Watch::new("client");
    let (server, client) = serve_with(
        ShopServer::new(Corner::default()),
        Server::builder().interceptor(at_server),
        Client::builder().interceptor(at_client),
    )
    .await;
    (server, ShopClient::new(client), server_saw, client_saw)
}

#[tokio::test]
async fn both_sides_see_how_calls_end() {
    let (_server, shop, mut server_saw, mut client_saw) = watched().await;
    assert_eq!(shop.buy("cake").await.unwrap(), "one cake");
    assert_eq!(shop.buy("bread").await.unwrap_err(), ShopError::SoldOut);
    expect(
        &shop.fail().await.unwrap_err(),
        Code::DataLoss,
        Execution::MayHaveExecuted,
    );
    assert_eq!(shop.echo(Bytes::from("raw")).await.unwrap(), "raw");
    let expected = |side: &str| {
        [
            "Shop.buy",
            "Shop.buy = Ok ok",
            "Shop.buy",
            "Shop.buy = Unknown sold out",
            "Shop.fail",
        ]
        .map(|line| format!("{side}: {line}"))
        .to_vec()
    };
    let (server, client) = (all(&mut server_saw), all(&mut client_saw));
    assert_eq!(server[..5], expected("server"));
    assert_eq!(client[..5], expected("client"));
    assert!(
        server[5].starts_with("server: Shop.fail = DataLoss"),
        "{server:?}"
    );
    assert!(
        client[5].starts_with("client: Shop.fail = DataLoss"),
        "{client:?}"
    );
    assert_eq!(
        server[6..],
        ["server: Shop.echo", "server: Shop.echo = Ok ok"]
    );
    assert_eq!(
        client[6..],
        ["client: Shop.echo", "client: Shop.echo = Ok ok"]
    );
}

#[tokio::test]
async fn the_outcome_of_a_stream_is_the_outcome_of_its_end() {
    let (_server, shop, mut server_saw, mut client_saw) = watched().await;
    let mut list = shop.list(50).await.unwrap();
    assert_eq!(list.next().await.unwrap().unwrap(), 0);
    assert_eq!(all(&mut client_saw), ["client: Shop.list"]);
    assert_eq!(next(&mut server_saw).await, "server: Shop.list");
    for number in 1..50 {
        assert_eq!(list.next().await.unwrap().unwrap(), number);
    }
    assert!(list.next().await.is_none());
    assert_eq!(all(&mut client_saw), ["client: Shop.list = Ok ok"]);
    assert_eq!(next(&mut server_saw).await, "server: Shop.list = Ok ok");
    assert!(list.next().await.is_none());

    let mut broken = shop.list(13).await.unwrap();
    for number in 0..13 {
        assert_eq!(broken.next().await.unwrap().unwrap(), number);
    }
    assert_eq!(
        broken.next().await.unwrap().unwrap_err(),
        ShopError::SoldOut
    );
    assert!(broken.next().await.is_none());
    let sold_out = "Shop.list = Unknown sold out";
    assert_eq!(all(&mut client_saw)[1], format!("client: {sold_out}"));
    assert_eq!(all(&mut server_saw)[1], format!("server: {sold_out}"));

    let rejected = shop.list(101).await.err().unwrap();
    assert_eq!(rejected.code(), Code::OutOfRange);
    assert!(all(&mut client_saw)[1].contains("OutOfRange"));
    assert!(all(&mut server_saw)[1].contains("OutOfRange"));
}

#[tokio::test]
async fn streams_to_the_server_and_both_ways_are_seen_as_well() {
    let (_server, shop, mut server_saw, mut client_saw) = watched().await;
    assert_eq!(shop.sum(Streaming::iter(1..=4)).await.unwrap(), 10);
    let mut doubled = shop.double(Streaming::iter([1, 2])).await.unwrap();
    assert_eq!(doubled.next().await.unwrap().unwrap(), 2);
    assert_eq!(doubled.next().await.unwrap().unwrap(), 4);
    assert!(doubled.next().await.is_none());
    let seen = [
        "Shop.sum",
        "Shop.sum = Ok ok",
        "Shop.double",
        "Shop.double = Ok ok",
    ];
    for line in seen {
        assert_eq!(next(&mut server_saw).await, format!("server: {line}"));
        assert_eq!(next(&mut client_saw).await, format!("client: {line}"));
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_drops_the_futures_of_its_interceptors() {
    let (_server, shop, mut server_saw, mut client_saw) = watched().await;
    let stuck = spawn({
        let shop = shop.clone();
        async move { shop.stuck().await }
    });
    assert_eq!(next(&mut server_saw).await, "server: Shop.stuck");
    stuck.abort();
    assert_eq!(next(&mut server_saw).await, "server: Shop.stuck dropped");
    assert_eq!(next(&mut client_saw).await, "client: Shop.stuck");
    assert_eq!(next(&mut client_saw).await, "client: Shop.stuck dropped");

    let mut list = shop.list(90).await.unwrap();
    list.next().await.unwrap().unwrap();
    drop(list);
    assert_eq!(next(&mut client_saw).await, "client: Shop.list");
    assert_eq!(next(&mut client_saw).await, "client: Shop.list dropped");
    assert_eq!(next(&mut server_saw).await, "server: Shop.list");
    let end = next(&mut server_saw).await;
    assert!(
        end == "server: Shop.list dropped" || end.contains("Cancelled"),
        "{end}"
    );
}

#[tokio::test]
async fn interceptors_see_that_the_deadline_of_a_call_has_passed() {
    let (_server, shop, mut server_saw, mut client_saw) = watched().await;
    let shop = shop.with_options(CallOptions::new().timeout(TIME));
    let call = started(shop.stuck()).await;
    assert_eq!(next(&mut server_saw).await, "server: Shop.stuck");
    passes(TIME).await;
    let status = within("the timeout", call.finish()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(all(&mut client_saw)[1].contains("DeadlineExceeded"));
    // The cancellation by the caller may arrive before the server's own clock ends the call.
    let end = next(&mut server_saw).await;
    assert!(
        end.contains("DeadlineExceeded") || end.ends_with("dropped"),
        "{end}"
    );
}

#[tokio::test]
async fn the_first_interceptor_is_outermost_and_those_of_a_service_run_inside_the_servers() {
    let (watch, mut saw) = Watch::new("server 1");
    let service = Intercepted::new(
        Intercepted::new(ShopServer::new(Corner::default()), watch.named("service 2")),
        watch.named("service 1"),
    );
    let server = Server::builder()
        .interceptor(watch.named("server 1"))
        .interceptor(watch.named("server 2"));
    let client = Client::builder().interceptor(watch.named("client 1"));
    let (_server, client) = serve_with(service, server, client).await;
    let client = client.with_interceptor(watch.named("client 2"));
    ShopClient::new(client).who().await.unwrap();
    let order = [
        "client 1",
        "client 2",
        "server 1",
        "server 2",
        "service 1",
        "service 2",
    ];
    for name in order {
        assert_eq!(next(&mut saw).await, format!("{name}: Shop.who"));
    }
    for name in order.iter().rev() {
        assert_eq!(next(&mut saw).await, format!("{name}: Shop.who = Ok ok"));
    }
    assert_eq!(all(&mut saw), [""; 0]);
}

#[tokio::test]
async fn an_interceptor_of_a_service_or_of_a_clone_sees_no_other_calls() {
    #[service]
    trait Other {
        async fn ping(&self) -> Result<(), Status>;
    }
    struct Here;
    impl Other for Here {
        async fn ping(&self) -> Result<(), Status> {
            Ok(())
        }
    }
    let (watch, mut saw) = Watch::new("service");
    let shop = Intercepted::new(ShopServer::new(Corner::default()), watch.clone());
    let server = Server::builder().service(shop);
    let (_server, client) = serve_with(OtherServer::new(Here), server, Client::builder()).await;
    OtherClient::new(client.clone()).ping().await.unwrap();
    assert_eq!(all(&mut saw), [""; 0]);
    let clone = client.with_interceptor(watch.named("clone"));
    ShopClient::new(clone).who().await.unwrap();
    assert_eq!(all(&mut saw).len(), 4);
    ShopClient::new(client).who().await.unwrap();
    assert_eq!(all(&mut saw).len(), 2);
}

/// Admits callers that send a name, and passes it to the handler.
struct Doorman;

impl ServerInterceptor for Doorman {
    async fn intercept(
        &self,
        call: ServerCall,
        next: Next<ServerCall>,
    ) -> Result<Completion, Status> {
        assert!(call.peer().and_then(|peer| peer.addr()).is_some());
        assert!(call.deadline().is_some());
        // Calls that it makes have the deadline of the call.
        assert_eq!(
            CallContext::current().and_then(|ctx| ctx.deadline()),
            call.deadline()
        );
        match call.metadata().text("name") {
            Some(name) => {
                call.insert_extension(Name(name.to_owned()));
            }
            None if call.method().auth_requirement().is_some() => {
                return Err(Status::unauthenticated("no name"));
            }
            None => {}
        }
        Ok(next.run(call).await)
    }
}

/// Sends a name.
struct Say(&'static str);

impl ClientInterceptor for Say {
    async fn intercept(
        &self,
        mut call: ClientCall,
        next: Next<ClientCall>,
    ) -> Result<Completion, Status> {
        tokio::task::yield_now().await;
        assert!(call.remaining().is_some_and(|left| !left.is_zero()));
        call.metadata_mut().insert_text("name", self.0)?;
        Ok(next.run(call).await)
    }
}

#[tokio::test]
async fn a_rejected_call_is_not_executed_and_an_identity_reaches_the_handler() {
    let corner = Corner::default();
    let runs = Arc::clone(&corner.runs);
    let server = Server::builder().interceptor(Doorman);
    let (_server, client) = serve_with(ShopServer::new(corner), server, Client::builder()).await;
    let unknown = ShopClient::new(client.clone());
    let Err(ShopError::Rpc(status)) = unknown.buy("cake").await else {
        panic!("not rejected");
    };
    expect(&status, Code::Unauthenticated, Execution::NotExecuted);
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    assert_eq!(unknown.who().await.unwrap(), None);

    let known = ShopClient::new(client.with_interceptor(Say("ann")));
    assert_eq!(known.buy("cake").await.unwrap(), "one cake");
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(known.who().await.unwrap().as_deref(), Some("ann"));
}

#[tokio::test]
async fn an_interceptor_adds_to_the_metadata_of_the_callers_options_and_context() {
    struct Check;
    impl ClientInterceptor for Check {
        async fn intercept(
            &self,
            call: ClientCall,
            next: Next<ClientCall>,
        ) -> Result<Completion, Status> {
            assert_eq!(call.metadata().text("name"), Some("bob"));
            assert_eq!(call.extension::<u32>().as_deref(), Some(&7));
            Ok(next.run(call).await)
        }
    }
    struct Put;
    impl ClientInterceptor for Put {
        async fn intercept(
            &self,
            call: ClientCall,
            next: Next<ClientCall>,
        ) -> Result<Completion, Status> {
            call.insert_extension(7_u32);
            Ok(next.run(call).await)
        }
    }
    let server = Server::builder().interceptor(Doorman);
    let (_server, client) = serve_with(
        ShopServer::new(Corner::default()),
        server,
        Client::builder(),
    )
    .await;
    let options = CallOptions::new().metadata("name", "bob").unwrap();
    let client = client
        .with_options(options)
        .with_interceptor(Put)
        .with_interceptor(Check);
    let who = ShopClient::new(client).who().await.unwrap();
    assert_eq!(who.as_deref(), Some("bob"));
}

/// Ends calls itself, before or after the handler.
struct Answer {
    after: bool,
}

impl ClientInterceptor for Answer {
    async fn intercept(
        &self,
        call: ClientCall,
        next: Next<ClientCall>,
    ) -> Result<Completion, Status> {
        if self.after {
            drop(next.run(call).await);
        }
        Err(Status::aborted("no"))
    }
}

impl ServerInterceptor for Answer {
    async fn intercept(
        &self,
        call: ServerCall,
        next: Next<ServerCall>,
    ) -> Result<Completion, Status> {
        if self.after {
            drop(next.run(call).await);
        }
        Err(Status::aborted("no").with_execution(Execution::NotExecuted))
    }
}

#[tokio::test]
async fn an_interceptor_cannot_change_whether_a_rejected_call_has_run() {
    let (_server, client) = serve(ShopServer::new(Corner::default())).await;
    let before = ShopClient::new(client.with_interceptor(Answer { after: false }));
    expect(
        &before.who().await.unwrap_err(),
        Code::Aborted,
        Execution::NotSent,
    );
    expect(
        &before.list(3).await.err().unwrap(),
        Code::Aborted,
        Execution::NotSent,
    );
    let after = ShopClient::new(client.with_interceptor(Answer { after: true }));
    expect(
        &after.who().await.unwrap_err(),
        Code::Aborted,
        Execution::MayHaveExecuted,
    );
    let mut list = after.list(1).await.unwrap();
    assert_eq!(list.next().await.unwrap().unwrap(), 0);
    let Some(Err(ShopError::Rpc(status))) = list.next().await else {
        panic!("the stream ended well");
    };
    expect(&status, Code::Aborted, Execution::MayHaveExecuted);
    assert!(list.next().await.is_none());

    let server = Server::builder().interceptor(Answer { after: true });
    let (_server, client) = serve_with(
        ShopServer::new(Corner::default()),
        server,
        Client::builder(),
    )
    .await;
    let shop = ShopClient::new(client);
    expect(
        &shop.who().await.unwrap_err(),
        Code::Aborted,
        Execution::MayHaveExecuted,
    );
}

/// Never passes a call on, and reports that it was called.
struct Asleep(Arc<Notify>);

impl ServerInterceptor for Asleep {
    async fn intercept(&self, _: ServerCall, _: Next<ServerCall>) -> Result<Completion, Status> {
        self.0.notify_one();
        std::future::pending().await
    }
}

impl ClientInterceptor for Asleep {
    async fn intercept(&self, _: ClientCall, _: Next<ClientCall>) -> Result<Completion, Status> {
        self.0.notify_one();
        std::future::pending().await
    }
}

#[tokio::test]
async fn an_interceptor_that_hangs_is_stopped_at_the_deadline() {
    let asked = Arc::new(Notify::new());
    let short = || Client::builder().timeout(TIME);
    let server = Server::builder().interceptor(Asleep(Arc::clone(&asked)));
    let (_server, client) = serve_with(ShopServer::new(Corner::default()), server, short()).await;
    let shop = ShopClient::new(client);
    let call = started(shop.who()).await;
    within("the interceptor", asked.notified()).await;
    passes(TIME).await;
    let status = within("the end of the call", call.finish()).await;
    assert_eq!(status.unwrap_err().code(), Code::DeadlineExceeded);

    let client = short().interceptor(Asleep(Arc::clone(&asked)));
    let (_server, client) = serve_with(
        ShopServer::new(Corner::default()),
        Server::builder(),
        client,
    )
    .await;
    let shop = ShopClient::new(client);
    let call = started(shop.who()).await;
    within("the interceptor", asked.notified()).await;
    passes(TIME).await;
    let status = within("the end of the call", call.finish()).await;
    expect(
        &status.unwrap_err(),
        Code::DeadlineExceeded,
        Execution::NotSent,
    );
    let call = started(shop.list(1)).await;
    within("the interceptor", asked.notified()).await;
    passes(TIME).await;
    let status = within("the end of the call", call.finish()).await;
    let status = status.err().unwrap();
    expect(&status, Code::DeadlineExceeded, Execution::NotSent);
}

/// Drops the rest of the chain as soon as it is notified by `now`.
struct Impatient(Arc<Notify>);

impl ServerInterceptor for Impatient {
    async fn intercept(
        &self,
        call: ServerCall,
        next: Next<ServerCall>,
    ) -> Result<Completion, Status> {
        tokio::select! {
            reply = next.run(call) => Ok(reply),
            () = self.0.notified() => Err(Status::aborted("enough")),
        }
    }
}

#[tokio::test]
async fn an_interceptor_can_end_a_handler_that_runs() {
    let corner = Corner::default();
    let server = Server::builder().interceptor(Impatient(Arc::clone(&corner.stuck)));
    let (_server, client) = serve_with(ShopServer::new(corner), server, Client::builder()).await;
    let shop = ShopClient::new(client);
    let status = within("the end of the call", shop.stuck())
        .await
        .unwrap_err();
    expect(&status, Code::Aborted, Execution::MayHaveExecuted);
    assert_eq!(shop.buy("cake").await.unwrap(), "one cake");
}

/// Runs the rest of the chain in another task.
struct Elsewhere(Arc<Mutex<Vec<Outcome>>>);

impl ServerInterceptor for Elsewhere {
    async fn intercept(
        &self,
        call: ServerCall,
        next: Next<ServerCall>,
    ) -> Result<Completion, Status> {
        let reply = spawn(next.run(call)).await.unwrap();
        self.0.lock().unwrap().push(reply.outcome().clone());
        Ok(reply)
    }
}

#[tokio::test]
async fn an_interceptor_may_wait_in_another_task() {
    let outcomes = Arc::default();
    let server = Server::builder().interceptor(Elsewhere(Arc::clone(&outcomes)));
    let (_server, client) = serve_with(
        ShopServer::new(Corner::default()),
        server,
        Client::builder(),
    )
    .await;
    let shop = ShopClient::new(client);
    assert_eq!(
        within("the reply", shop.buy("cake")).await.unwrap(),
        "one cake"
    );
    assert_eq!(*outcomes.lock().unwrap(), [Outcome::Ok]);
}
