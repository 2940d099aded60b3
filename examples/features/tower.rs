//! Layers of tower around calls: a limit, a timeout and a log for the calls of a server, the same
//! kind of stack at a client, and a client as a tower service.
//!
//! Run: `cargo run -p iip-examples --example tower`
//! Prints: what the log layer sees, a call that is rejected at capacity, one that takes too long,
//! and a raw reply.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use iip_rpc::interceptor::{Completion, ServerCall};
use iip_rpc::tower::{
    BoxError, ClientService, LayerInterceptor, RawRequest, Request, ServiceHandler,
};
use iip_rpc::{Client, RetryPolicy, Server, Status, service};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

/// Reports that take long.
#[service]
pub trait Reports {
    /// A short one.
    async fn monthly(&self, month: u32) -> Result<String, Status>;
    /// A report that is never finished.
    async fn yearly(&self, year: u32) -> Result<String, Status>;
}

struct Archive;

impl Reports for Archive {
    async fn monthly(&self, month: u32) -> Result<String, Status> {
        if month > 12 {
            return Err(Status::invalid_argument("a year has twelve months"));
        }
        Ok(format!("report of month {month}"))
    }

    async fn yearly(&self, _year: u32) -> Result<String, Status> {
        std::future::pending().await
    }
}

/// Prints how calls end. Any layer for the requests of this crate looks like this.
struct LogLayer;

impl<S> Layer<S> for LogLayer {
    type Service = Log<S>;

    fn layer(&self, inner: S) -> Log<S> {
        Log { inner }
    }
}

#[derive(Clone)]
struct Log<S> {
    inner: S,
}

impl<S> Service<Request<ServerCall>> for Log<S>
where
    S: Service<Request<ServerCall>, Response = Completion, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Completion;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Completion, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ServerCall>) -> Self::Future {
        let (method, begun) = (request.call().method(), Instant::now());
        let call = self.inner.call(request);
        Box::pin(async move {
            let result = call.await;
            let took = begun.elapsed().as_millis();
            match &result {
                Ok(_) => println!("log: {method} ended well after {took} ms"),
                Err(error) => println!("log: {method} failed after {took} ms: {error}"),
            }
            result
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // The first one sees a call first.
    let stack = ServiceBuilder::new()
        .layer(LogLayer)
        .load_shed()
        .concurrency_limit(1)
        .timeout(Duration::from_millis(100));
    let hello = service_fn(|request: iip_core::Request| async move {
        Ok::<_, Status>(format!("{} bytes", request.body().len()))
    });
    let server = Server::builder()
        .interceptor(LayerInterceptor::new(stack))
        .service(ReportsServer::new(Archive))
        .route("/count", ServiceHandler::new(hello))
        .bind("127.0.0.1:0")
        .await?;

    let client = Client::builder().retry(RetryPolicy::none());
    let client = client.connect(server.target()).await?;
    let reports = ReportsClient::new(client.clone());
    println!("{}", reports.monthly(5).await?);
    if let Err(status) = reports.monthly(13).await {
        println!("{status}");
    }

    // The first call uses the whole capacity until it times out.
    let (slow, refused) = tokio::join!(reports.yearly(2024), reports.monthly(6));
    for failed in [slow, refused] {
        println!("{}", failed.expect_err("one is too slow, one too many"));
    }

    // The client as a service.
    let count = ServiceBuilder::new()
        .timeout(Duration::from_secs(1))
        .service(ClientService::new(client));
    let reply = count.oneshot(RawRequest::new("/count", "hello")).await?;
    println!("{}", String::from_utf8_lossy(&reply));

    server.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
