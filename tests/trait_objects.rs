//! Services as trait objects: every way to hold one, also where a future must be `Send`.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::borrow::Cow;
use std::future::poll_fn;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use iip_rpc::{CallContext, Client, Code, Server, Status, Stream, Streaming, service};

use crate::common::calls::{serve, sum};
use crate::common::spawn;

#[service(dyn)]
trait Desk {
    async fn hello(&self, name: String) -> Result<String, Status>;
    async fn lent(
        &self,
        ctx: &CallContext,
        text: &str,
        cow: Cow<'_, str>,
        path: &Path,
    ) -> Result<String, Status>;
    async fn sum(&self, start: u32, numbers: Streaming<u32>) -> Result<u32, Status>;
    async fn words(&self) -> Result<impl Stream<Item = Result<String, Status>>, Status>;
    async fn letters(
        &self,
        ctx: &CallContext,
        text: &str,
        end: Cow<'_, str>,
    ) -> Result<impl Stream<Item = Result<char, Status>>, Status>;
}

struct Clerk(Vec<String>);

/// Yields items that borrow from the service, or from an argument.
struct Lending<I>(I);

impl<I: Iterator + Unpin> Stream for Lending<I> {
    type Item = I::Item;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<I::Item>> {
        Poll::Ready(self.0.next())
    }
}

impl Desk for Clerk {
    async fn hello(&self, name: String) -> Result<String, Status> {
        tokio::task::yield_now().await;
        Ok(format!("hello, {name}"))
    }
    async fn lent(
        &self,
        _ctx: &CallContext,
        text: &str,
        cow: Cow<'_, str>,
        path: &Path,
    ) -> Result<String, Status> {
        Ok(format!("{text}{cow}{}", path.display()))
    }
    async fn sum(&self, start: u32, numbers: Streaming<u32>) -> Result<u32, Status> {
        sum(start, numbers).await
    }
    async fn words(&self) -> Result<impl Stream<Item = Result<String, Status>>, Status> {
        Ok(Lending(self.0.iter().cloned().map(Ok)))
    }
    async fn letters(
        &self,
        _ctx: &CallContext,
        text: &str,
        end: Cow<'_, str>,
    ) -> Result<impl Stream<Item = Result<char, Status>>, Status> {
        if text.is_empty() {
            return Err(Status::invalid_argument("no text"));
        }
        let end = Err(Status::aborted(end.into_owned()));
        Ok(Lending(text.chars().map(Ok).chain([end])))
    }
}

fn clerk() -> Clerk {
    Clerk(vec!["a".into(), "b".into()])
}

/// The methods of a decorator that it passes on to the service in its first field.
macro_rules! forwards_to_the_inner_service {
    () => {
        async fn lent(
            &self,
            ctx: &CallContext,
            text: &str,
            cow: Cow<'_, str>,
            path: &Path,
        ) -> Result<String, Status> {
            self.0.lent(ctx, text, cow, path).await
        }
        async fn sum(&self, start: u32, numbers: Streaming<u32>) -> Result<u32, Status> {
            self.0.sum(start, numbers).await
        }
        async fn words(&self) -> Result<impl Stream<Item = Result<String, Status>>, Status> {
            self.0.words().await
        }
        async fn letters(
            &self,
            ctx: &CallContext,
            text: &str,
            end: Cow<'_, str>,
        ) -> Result<impl Stream<Item = Result<char, Status>>, Status> {
            self.0.letters(ctx, text, end).await
        }
    };
}

/// A decorator of any service, and of an object.
struct Loud<T: ?Sized>(Arc<T>);

impl<T: Desk + ?Sized> Desk for Loud<T> {
    async fn hello(&self, name: String) -> Result<String, Status> {
        self.0.hello(name.to_uppercase()).await
    }
    forwards_to_the_inner_service!();
}

/// A decorator of an object in a box.
struct Boxed(Box<dyn DynDesk>);

impl Desk for Boxed {
    async fn hello(&self, name: String) -> Result<String, Status> {
        self.0.hello(name).await
    }
    forwards_to_the_inner_service!();
}

async fn all<T>(stream: impl Stream<Item = Result<T, Status>>) -> (Vec<T>, Option<Status>) {
    let mut stream = pin!(stream);
    let mut items = Vec::new();
    while let Some(item) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
        match item {
            Ok(item) => items.push(item),
            Err(error) => return (items, Some(error)),
        }
    }
    (items, None)
}

/// Calls every method of any service.
async fn check(desk: impl Desk) {
    assert_eq!(
        desk.hello("ann".into()).await.unwrap().to_lowercase(),
        "hello, ann"
    );
    let ctx = CallContext::new();
    let path = Path::new("c");
    let lent = desk.lent(&ctx, "a", Cow::Borrowed("b"), path).await;
    assert_eq!(lent.unwrap(), "abc");
    assert_eq!(desk.sum(1, Streaming::iter([2, 3])).await.unwrap(), 6);
    let (words, end) = all(desk.words().await.unwrap()).await;
    assert_eq!((words.join(""), end), ("ab".into(), None));
    let text = String::from("xyz");
    let letters = desk.letters(&ctx, &text, Cow::Borrowed("over")).await;
    let (letters, end) = all(letters.unwrap()).await;
    assert_eq!(letters, ['x', 'y', 'z']);
    let end = end.unwrap();
    assert_eq!((end.code(), end.message()), (Code::Aborted, "over"));
    let rejected = desk.letters(&ctx, "", "".into()).await.err().unwrap();
    assert_eq!(rejected.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_object_is_a_service_however_it_is_held() {
    let shared: Arc<dyn DynDesk> = Arc::new(clerk());
    check(Arc::clone(&shared)).await;
    check(Box::new(clerk()) as Box<dyn DynDesk>).await;
    check(&*shared).await;
    check(&shared).await;
    check(Loud(Arc::clone(&shared))).await;
    check(Loud(Arc::new(clerk()))).await;
    check(Boxed(Box::new(Arc::clone(&shared)))).await;
    let once_more: Arc<dyn DynDesk> = Arc::new(Arc::clone(&shared));
    check(once_more).await;
    let of_references: Arc<dyn DynDesk + '_> = Arc::new(&shared);
    check(&*of_references).await;
}

#[tokio::test]
async fn an_object_is_called_in_a_task_however_it_is_held() {
    let shared: Arc<dyn DynDesk> = Arc::new(clerk());
    let boxed: Box<dyn DynDesk> = Box::new(clerk());
    let leaked: &'static dyn DynDesk = Box::leak(Box::new(clerk()));
    let in_arc = Arc::clone(&shared);
    let tasks = [
        spawn(async move { in_arc.hello("arc".into()).await }),
        spawn(async move { boxed.hello("box".into()).await }),
        spawn(async move { leaked.hello("static".into()).await }),
        spawn({
            let shared = Arc::clone(&shared);
            async move {
                let lent: &dyn DynDesk = &*shared;
                lent.hello("lent".into()).await
            }
        }),
        spawn({
            let shared = Arc::clone(&shared);
            async move {
                let name = String::from("args");
                let ctx = CallContext::new();
                let path = Path::new("");
                shared
                    .lent(&ctx, "hello, ", name.as_str().into(), path)
                    .await
            }
        }),
        spawn({
            let shared = Arc::clone(&shared);
            async move {
                let ctx = CallContext::new();
                let letters = shared.letters(&ctx, "hi", "".into()).await?;
                let (letters, _) = all(letters).await;
                Ok(format!("hello, {}", letters.len()))
            }
        }),
    ];
    let mut greeted = Vec::new();
    for task in tasks {
        greeted.push(task.await.unwrap().unwrap().split_off("hello, ".len()));
    }
    assert_eq!(greeted, ["arc", "box", "static", "lent", "args", "2"]);
    spawn(check(shared)).await.unwrap();
    spawn(check(leaked)).await.unwrap();
    spawn(check(Boxed(Box::new(clerk())))).await.unwrap();
}

#[service]
trait Front {
    async fn ask(&self, name: String) -> Result<String, Status>;
    async fn spell(&self) -> Result<impl Stream<Item = Result<char, Status>>, Status>;
}

/// A handler that holds objects.
struct Office {
    first: Arc<dyn DynDesk>,
    others: Vec<Box<dyn DynDesk>>,
}

impl Front for Office {
    async fn ask(&self, name: String) -> Result<String, Status> {
        let mut reply = self.first.hello(name).await?;
        for desk in &self.others {
            reply = desk.hello(reply).await?;
        }
        Ok(reply)
    }
    async fn spell(&self) -> Result<impl Stream<Item = Result<char, Status>>, Status> {
        drop(self.first.words().await?);
        let (sender, letters) = Streaming::channel(1);
        let desk = Arc::clone(&self.first);
        spawn(async move {
            let ctx = CallContext::new();
            let letters = desk.letters(&ctx, "ok", "".into()).await;
            for letter in all(letters.unwrap()).await.0 {
                sender.send(letter).await.unwrap();
            }
            sender.finish();
        });
        Ok(letters)
    }
}

#[tokio::test]
async fn a_handler_holds_objects_that_are_remote_or_not() {
    let (_server, client) = serve(DeskServer::new(Arc::new(clerk()) as Arc<dyn DynDesk>)).await;
    let remote = DeskClient::new(client);
    check(remote.clone()).await;
    let office = Office {
        first: Arc::new(remote.clone()),
        others: vec![Box::new(clerk()), Box::new(Loud(Arc::new(remote)))],
    };
    let (_server, client) = serve(FrontServer::new(Arc::new(office))).await;
    let front = FrontClient::new(client);
    let reply = front.ask("ann".into()).await.unwrap();
    assert_eq!(reply, "hello, HELLO, HELLO, ANN");
    let (letters, end) = all(front.spell().await.unwrap()).await;
    assert_eq!((letters, end), (vec!['o', 'k'], None));
}

#[service(dyn)]
trait Clock {
    async fn ticks(
        &self,
        ctx: &CallContext,
    ) -> Result<impl Stream<Item = Result<u8, Status>>, Status>;
    async fn now(&self, zone: &str) -> Result<String, Status>;
}

struct Stopped;

/// The object-safe trait is a trait of async-trait, and can be implemented as one.
#[async_trait::async_trait]
impl DynClock for Stopped {
    async fn dyn_ticks(
        &self,
        _ctx: &CallContext,
    ) -> Result<Pin<Box<dyn Stream<Item = Result<u8, Status>> + Send + 'async_trait>>, Status> {
        Ok(Box::pin(Streaming::iter([1])))
    }
    async fn dyn_now(&self, zone: &str) -> Result<String, Status> {
        Ok(format!("noon in {zone}"))
    }
}

#[tokio::test]
async fn an_implementation_of_the_twin_by_async_trait_is_served() {
    let clock: Arc<dyn DynClock> = Arc::new(Stopped);
    assert_eq!(clock.now("Rome").await.unwrap(), "noon in Rome");
    let server = Server::builder().service(ClockServer::new(clock));
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let clock = ClockClient::new(Client::connect(server.target()).await.unwrap());
    assert_eq!(clock.now("Rome").await.unwrap(), "noon in Rome");
    let ticks = clock.ticks(&CallContext::new()).await.unwrap();
    assert_eq!(all(ticks).await, (vec![1], None));
}

/// A stream that ends only when it is dropped.
struct Endless(Arc<()>);

impl Clock for Endless {
    async fn ticks(
        &self,
        _ctx: &CallContext,
    ) -> Result<impl Stream<Item = Result<u8, Status>>, Status> {
        let held = Arc::clone(&self.0);
        Ok(Lending(std::iter::repeat_with(move || {
            let _ = &held;
            Ok(7)
        })))
    }
    async fn now(&self, _zone: &str) -> Result<String, Status> {
        Err(Status::unavailable("never"))
    }
}

#[tokio::test]
async fn the_stream_of_an_object_yields_only_what_is_polled_and_is_dropped_with_its_reader() {
    let held = Arc::new(());
    let clock: Box<dyn DynClock> = Box::new(Endless(Arc::clone(&held)));
    let ctx = CallContext::new();
    {
        let mut ticks = pin!(clock.ticks(&ctx).await.unwrap());
        for _ in 0..3 {
            let tick = poll_fn(|cx| ticks.as_mut().poll_next(cx)).await;
            assert_eq!(tick.unwrap().unwrap(), 7);
        }
        assert_eq!(Arc::strong_count(&held), 3);
    }
    assert_eq!(Arc::strong_count(&held), 2);
}
