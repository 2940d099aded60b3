//! The service with methods of every kind.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use iip_rpc::{
    CallContext, MethodError, Schema, Status, Stream, Streaming, Subscription, Topic, service,
};
use serde::{Deserialize, Serialize};

/// An error with variants of every form.
#[derive(Debug, thiserror::Error, Serialize, Deserialize, Schema, MethodError)]
pub enum Trouble {
    #[error("empty")]
    Empty,
    #[error("sold out until {until}")]
    SoldOut { until: u64 },
    #[error("{0}")]
    Text(String),
    #[error(transparent)]
    #[status]
    Rpc(Status),
}

/// Calls of every kind.
#[service(name = "types.v1.Calls")]
pub trait Calls {
    /// Fails in the way that is named.
    async fn fail(&self, how: String) -> Result<(), Trouble>;
    /// Never replies.
    async fn hang(&self) -> Result<(), Status>;
    /// Returns the number of calls that hang.
    async fn hanging(&self) -> Result<u64, Status>;
    /// Returns the remaining time in milliseconds, and the value of the metadata `x-user`.
    async fn caller(&self, ctx: &CallContext) -> Result<(u64, Option<String>), Status>;
    #[rpc(oneway)]
    async fn tell(&self, number: u64) -> Result<(), Status>;
    /// Returns the number that was told last.
    async fn told(&self) -> Result<u64, Status>;
    /// Counts down from the largest number, and then ends or fails.
    async fn count(
        &self,
        count: u32,
        then: Option<String>,
    ) -> Result<impl Stream<Item = Result<u64, Trouble>>, Trouble>;
    /// Returns the numbers of `publish`.
    async fn watch(&self) -> Result<Subscription<u64>, Status>;
    async fn publish(&self, number: u64) -> Result<(), Status>;
    async fn sum(&self, factor: u64, numbers: Streaming<u64>) -> Result<u64, Trouble>;
    /// Returns each number as soon as it has come.
    async fn doubled(
        &self,
        numbers: Streaming<u64>,
    ) -> Result<impl Stream<Item = Result<u64, Status>>, Status>;
    #[deprecated = "use `Echo`"]
    #[rpc(raw)]
    async fn raw(&self, body: Bytes) -> Result<Bytes, Status>;
}

/// The service, and what its calls share.
#[derive(Debug)]
pub struct Kinds {
    told: AtomicU64,
    hanging: Arc<AtomicU64>,
    numbers: Topic<u64>,
}

impl Default for Kinds {
    fn default() -> Self {
        Self {
            told: AtomicU64::new(0),
            hanging: Arc::default(),
            numbers: Topic::<u64>::builder().history(100).build(),
        }
    }
}

/// A call that hangs until it is cancelled.
struct Hanging(Arc<AtomicU64>);

impl Future for Hanging {
    type Output = Result<(), Status>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Pending
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn trouble(how: &str) -> Trouble {
    match how {
        "empty" => Trouble::Empty,
        "sold out" => Trouble::SoldOut { until: u64::MAX },
        "busy" => {
            let status = Status::unavailable("too busy");
            Trouble::Rpc(status.with_retry_after(Duration::from_secs(2)))
        }
        "missing" => Trouble::Rpc(Status::not_found("it is missing")),
        text => Trouble::Text(text.to_owned()),
    }
}

impl Calls for Kinds {
    async fn fail(&self, how: String) -> Result<(), Trouble> {
        Err(trouble(&how))
    }

    async fn hang(&self) -> Result<(), Status> {
        self.hanging.fetch_add(1, Ordering::SeqCst);
        Hanging(self.hanging.clone()).await
    }

    async fn hanging(&self) -> Result<u64, Status> {
        Ok(self.hanging.load(Ordering::SeqCst))
    }

    async fn caller(&self, ctx: &CallContext) -> Result<(u64, Option<String>), Status> {
        let left = ctx.remaining().unwrap_or_default();
        let user = ctx.metadata().get("x-user");
        let user = user.map(|user| String::from_utf8_lossy(user).into_owned());
        Ok((u64::try_from(left.as_millis()).unwrap_or(u64::MAX), user))
    }

    async fn tell(&self, number: u64) -> Result<(), Status> {
        self.told.store(number, Ordering::SeqCst);
        Ok(())
    }

    async fn told(&self) -> Result<u64, Status> {
        Ok(self.told.load(Ordering::SeqCst))
    }

    async fn count(
        &self,
        count: u32,
        then: Option<String>,
    ) -> Result<impl Stream<Item = Result<u64, Trouble>>, Trouble> {
        if count == 0 {
            return Err(Trouble::Empty);
        }
        let (sender, numbers) = Streaming::channel(16);
        tokio::spawn(async move {
            for at in 0..count {
                if sender.send(u64::MAX - u64::from(at)).await.is_err() {
                    return;
                }
            }
            match then {
                Some(how) => sender.fail(trouble(&how)).await,
                None => sender.finish(),
            }
        });
        Ok(numbers)
    }

    async fn watch(&self) -> Result<Subscription<u64>, Status> {
        Ok(self.numbers.subscribe())
    }

    async fn publish(&self, number: u64) -> Result<(), Status> {
        self.numbers.publish(number).await;
        Ok(())
    }

    async fn sum(&self, factor: u64, mut numbers: Streaming<u64>) -> Result<u64, Trouble> {
        let mut sum = 0;
        while let Some(number) = numbers.next().await {
            let number = number?;
            if number == 13 {
                return Err(Trouble::SoldOut { until: 13 });
            }
            sum += number;
        }
        Ok(factor * sum)
    }

    async fn doubled(
        &self,
        mut numbers: Streaming<u64>,
    ) -> Result<impl Stream<Item = Result<u64, Status>>, Status> {
        let (sender, doubled) = Streaming::channel(1);
        tokio::spawn(async move {
            while let Some(number) = numbers.next().await {
                match number {
                    Ok(number) if sender.send(number * 2).await.is_ok() => {}
                    Ok(_) => return,
                    Err(status) => return sender.fail(status).await,
                }
            }
            sender.finish();
        });
        Ok(doubled)
    }

    async fn raw(&self, body: Bytes) -> Result<Bytes, Status> {
        Ok(body)
    }
}
