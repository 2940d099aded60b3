//! One deadline for a call and all calls made on its behalf, and handlers whose caller goes away.
//!
//! Run: `cargo run --example deadline`
//! Prints: how much time reached the second server, that the call ended by it, then for each
//! `on_cancel` policy what became of the handler after its caller had dropped the call.

use std::time::Duration;

use iip_rpc::{CallContext, CallOptions, Client, Server, Status, service};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// The service of the user.
#[service]
pub trait Front {
    /// Calls the back.
    async fn ask(&self) -> Result<(), Status>;
}

/// The service of the front.
#[service]
pub trait Back {
    /// Takes longer than its caller waits. Without its caller it is dropped at its current await
    /// point: the default, `"abort"`.
    async fn search(&self) -> Result<(), Status>;

    /// The same, but it is notified, and decides itself when to stop.
    #[rpc(on_cancel = "token")]
    async fn search_tidily(&self, ctx: &CallContext) -> Result<(), Status>;

    /// Must not be left half done.
    #[rpc(on_cancel = "run")]
    async fn save(&self) -> Result<(), Status>;
}

struct FrontDesk {
    back: BackClient,
}

impl Front for FrontDesk {
    async fn ask(&self) -> Result<(), Status> {
        // No timeout here: the call inherits the deadline of the caller.
        self.back.search().await
    }
}

struct BackOffice {
    events: UnboundedSender<String>,
}

impl BackOffice {
    fn tell(&self, event: impl Into<String>) {
        // The caller may have gone.
        let _ = self.events.send(event.into());
    }
}

impl Back for BackOffice {
    async fn search(&self) -> Result<(), Status> {
        let _on_drop = OnDrop(|| self.tell("abort: the handler was dropped"));
        let left = CallContext::current().and_then(|ctx| ctx.remaining());
        let short = left.is_some_and(|left| left <= Duration::from_millis(200));
        self.tell(format!("search: started, 200 ms or less to go: {short}"));
        std::future::pending().await
    }

    async fn search_tidily(&self, ctx: &CallContext) -> Result<(), Status> {
        self.tell("token: started");
        ctx.cancelled().await;
        self.tell("token: was notified, and cleaned up");
        Err(Status::cancelled("the caller has gone"))
    }

    async fn save(&self) -> Result<(), Status> {
        self.tell("run: started");
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.tell("run: saved all the same");
        Ok(())
    }
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (events, mut event) = unbounded_channel();
    let mut next = async || event.recv().await.unwrap_or_default();

    let office = Server::builder()
        .service(BackServer::new(BackOffice { events }))
        .bind("127.0.0.1:0")
        .await?;
    let back = BackClient::new(Client::connect(office.target()).await?);

    let desk = FrontServer::new(FrontDesk { back: back.clone() });
    let desk = Server::builder().service(desk).bind("127.0.0.1:0").await?;
    let front = FrontClient::new(Client::connect(desk.target()).await?);

    // 200 ms from here to the reply, for both calls together.
    let hasty = front.with_options(CallOptions::new().timeout(Duration::from_millis(200)));
    let Err(status) = hasty.ask().await else {
        return Err("the search ended".into());
    };
    println!("{}", next().await);
    println!("ask: {}, {}", status.code(), status.execution());
    println!("{}", next().await);

    // Dropping the future cancels a call; `select!` drops the branch that lost.
    tokio::select! {
        _ = back.search() => {}
        started = next() => println!("{started}"),
    }
    println!("{}", next().await);

    let ctx = CallContext::new();
    tokio::select! {
        _ = back.search_tidily(&ctx) => {}
        started = next() => println!("{started}"),
    }
    println!("{}", next().await);

    tokio::select! {
        _ = back.save() => {}
        started = next() => println!("{started}"),
    }
    println!("{}", next().await);

    desk.shutdown(Duration::from_secs(1)).await;
    office.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
