//! Addresses in every form, listeners of every kind, and clients that connect now, later or as soon
//! as a server is ready.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::error::Error;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use iip_rpc::transport::{ConnectFuture, Connector, MemoryConnector, memory};
use iip_rpc::{
    Client, Code, SendError, Server, ServerBuilder, SlowConsumer, Status, Streaming, Topic,
    TopicBuilder, service,
};

use crate::common::within;

#[service]
trait Greeter {
    async fn hello(&self, name: String) -> Result<String, Status>;
    /// A method with the name of a function of its client.
    async fn connect(&self, to: u32) -> Result<u32, Status>;
}

struct Polite;

impl Greeter for Polite {
    async fn hello(&self, name: String) -> Result<String, Status> {
        Ok(format!("hello, {name}"))
    }

    async fn connect(&self, to: u32) -> Result<u32, Status> {
        Ok(to + 1)
    }
}

fn polite() -> ServerBuilder {
    Server::builder().service(GreeterServer::new(Polite))
}

/// The server at `client`'s address greets.
async fn greets(client: Client) {
    let hello = within("a greeting", GreeterClient::new(client).hello("ann".into())).await;
    assert_eq!(hello.unwrap(), "hello, ann");
}

#[tokio::test]
async fn an_address_is_a_text_a_socket_address_or_an_endpoint() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = polite().bind(any).await.unwrap();
    let addr = server.local_addr().unwrap();
    greets(Client::connect(addr).await.unwrap()).await;
    greets(Client::connect(&addr).await.unwrap()).await;
    greets(Client::connect(addr.to_string()).await.unwrap()).await;
    greets(Client::connect(&addr.to_string()).await.unwrap()).await;
    greets(Client::connect(("localhost", addr.port())).await.unwrap()).await;
    greets(Client::builder().connect_lazy(addr).unwrap()).await;
    let raw = iip_core::Client::connect(addr).await;
    assert!(raw.is_ok());
    let again = iip_core::Server::builder().bind(addr).await;
    assert!(again.unwrap_err().to_string().contains(&addr.to_string()));
}

#[tokio::test]
async fn a_typed_client_connects_by_itself_even_if_its_service_has_a_method_of_that_name() {
    let server = polite().bind("127.0.0.1:0").await.unwrap();
    let greeter = GreeterClient::connect(server.target()).await.unwrap();
    assert_eq!(greeter.hello("you".into()).await.unwrap(), "hello, you");
    assert_eq!(greeter.connect(1).await.unwrap(), 2);
    assert!(GreeterClient::connect("nowhere").await.is_err());
}

#[cfg(unix)]
#[tokio::test]
async fn a_server_takes_unix_listeners_and_leaves_their_files_to_their_owners() {
    let dir = std::env::temp_dir().join(format!("iip-addresses-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("socket");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let server = polite().listen_on(listener).unwrap();
    assert_eq!(server.target(), format!("unix:{}", path.display()));
    greets(Client::connect(server.target()).await.unwrap()).await;
    within("the end", server.shutdown(Duration::ZERO)).await;
    assert!(path.exists());
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn a_server_takes_tcp_and_memory_listeners() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = polite().listen_on(listener).unwrap();
    greets(Client::connect(server.target()).await.unwrap()).await;
    let (connector, listener) = memory();
    let _server = polite().listen_on(listener).unwrap();
    let lazy = Client::builder().connect_lazy_with(connector).unwrap();
    greets(lazy).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_abstract_unix_socket_has_no_file() {
    let name = format!("@iip-addresses-{}", std::process::id());
    let server = polite().bind(format!("unix:{name}")).await.unwrap();
    assert_eq!(server.target(), format!("unix:{name}"));
    assert!(!std::path::Path::new(&name).exists());
    greets(Client::connect(server.target()).await.unwrap()).await;
    let taken = polite().bind(format!("unix:{name}")).await.unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    within("the end", server.shutdown(Duration::ZERO)).await;
    let again = polite().bind(format!("unix:{name}")).await;
    assert!(again.is_ok(), "{again:?}");
    assert!(polite().bind("unix:@").await.is_err());
}

/// A server that is unavailable for a number of attempts.
#[derive(Debug)]
struct Late(AtomicUsize, MemoryConnector);

impl Connector for Late {
    fn connect(&self) -> ConnectFuture<'_> {
        let one_less = |left: usize| left.checked_sub(1);
        let refused = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
        match refused {
            Ok(_) => Box::pin(async { Err(std::io::ErrorKind::ConnectionRefused.into()) }),
            Err(_) => self.1.connect(),
        }
    }

    fn describe(&self) -> String {
        "late".to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_for_the_server_also_waits_when_it_connects() {
    let (_server, connector) = polite().in_memory().unwrap();
    let late = |attempts| Late(AtomicUsize::new(attempts), connector.clone());
    let at_once = Client::builder().connect_with(late(1)).await.unwrap_err();
    assert_eq!(at_once.code(), Code::Unavailable);
    let waiting = Client::builder().wait_for_ready(true);
    greets(waiting.connect_with(late(3)).await.unwrap()).await;
    // Connecting takes at most the timeout of a call.
    let limited = Client::builder()
        .wait_for_ready(true)
        .timeout(Duration::from_secs(5));
    let begun = tokio::time::Instant::now();
    let status = limited.connect_with(late(usize::MAX)).await.unwrap_err();
    assert_eq!(status.execution(), iip_rpc::Execution::NotSent);
    let took = begun.elapsed();
    assert!(
        took > Duration::from_secs(1) && took <= Duration::from_secs(5),
        "{took:?}"
    );
}

#[tokio::test]
async fn an_unsent_message_comes_back_in_an_error_that_a_handler_can_pass_on() {
    let (sender, stream) = Streaming::<u32, Status>::channel(1);
    drop(stream);
    let send = async || -> Result<(), Status> {
        sender.send(7).await?;
        Ok(())
    };
    assert_eq!(send().await.unwrap_err().code(), Code::Cancelled);
    let error = sender.send(7).await.unwrap_err();
    assert!(error == SendError(7));
    let error: Box<dyn Error + Send + Sync> = error.into();
    assert_eq!(error.to_string(), "the stream is no longer read");

    let topic: Topic<u32> = TopicBuilder::default()
        .buffer(1)
        .slow_consumer(SlowConsumer::Wait(Duration::from_secs(600)))
        .build();
    let _subscriber = topic.subscribe();
    let publish = || -> Result<u64, Box<dyn Error>> { Ok(topic.try_publish(1)?) };
    assert_eq!(publish().unwrap(), 1);
    assert!(publish().unwrap_err().to_string().contains("option buffer"));
}

/// The lines that a program prints for an error and its causes, for example with `anyhow`.
fn chain(error: &dyn Error) -> Vec<String> {
    std::iter::successors(Some(error), |&error| error.source())
        .map(ToString::to_string)
        .collect()
}

#[tokio::test]
async fn an_error_that_is_printed_with_its_causes_repeats_no_text() {
    let server = polite().bind("127.0.0.1:0").await.unwrap();
    let addr = server.local_addr().unwrap();
    within("the end", server.shutdown(Duration::ZERO)).await;
    let refused = Client::connect(addr).await.unwrap_err();
    let bad = Client::builder().connect_lazy("nowhere").unwrap_err();
    let raw = iip_core::Client::connect(addr).await.unwrap_err();
    let own =
        Status::internal("the order was lost").with_source(std::io::Error::other("disk full"));
    for (error, causes) in [
        (&refused as &(dyn Error + 'static), 0),
        (&bad, 0),
        (&raw, 1),
        (&own, 1),
    ] {
        let chain = chain(error);
        assert_eq!(chain.len(), 1 + causes, "{chain:?}");
        for (number, text) in chain.iter().enumerate() {
            let before = &chain[..number];
            assert!(
                !before.iter().any(|earlier| earlier.contains(text)),
                "{chain:?}"
            );
        }
    }
    // Programs find the cause through `cause()` although it is not a source.
    let cause = refused.cause().unwrap();
    assert!(cause.is::<iip_core::CallError>());
    assert!(refused.to_string().contains("refused"), "{refused}");
}
