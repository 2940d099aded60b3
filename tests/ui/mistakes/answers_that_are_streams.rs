use std::collections::HashMap;
use std::pin::Pin;

use iip_rpc::{Status, Stream, Streaming, Subscription, service};

type BoxStream<'a, T> = Pin<Box<dyn Stream<Item = T> + Send + 'a>>;

#[service]
trait Topics {
    async fn by_its_type(&self) -> Result<Streaming<u32>, Status>;
    async fn with_an_error(&self) -> Result<iip_rpc::Streaming<u32, String>, Status>;
    async fn boxed(&self) -> Result<Pin<Box<dyn Stream<Item = Result<u32, Status>> + Send>>, Status>;
    async fn by_another_name(&self) -> Result<BoxStream<'static, Result<u32, Status>>, Status>;
    async fn bare(&self) -> Streaming<u32>;
    async fn inside(&self) -> Result<Vec<Streaming<u32>>, Status>;
    async fn subscription_inside(&self) -> Result<(u8, Subscription<u32>), Status>;
    async fn in_a_subscription(&self) -> Result<Subscription<Streaming<u32>>, Status>;
    async fn in_a_stream(&self) -> Result<impl Stream<Item = Result<Streaming<u32>, Status>>, Status>;
    async fn object(&self) -> Result<HashMap<String, Box<dyn Send>>, Status>;
}

fn main() {}
