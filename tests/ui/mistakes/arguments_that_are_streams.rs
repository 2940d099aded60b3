use iip_rpc::{Status, Stream, Streaming, Subscription, service};

#[service]
trait Uploads {
    async fn inside(&self, lines: Option<Streaming<u32>>) -> Result<(), Status>;
    async fn twice(&self, lines: Streaming<Streaming<u32>>) -> Result<(), Status>;
    async fn subscription(&self, lines: Subscription<u32>) -> Result<(), Status>;
    async fn boxed(&self, lines: Box<dyn Stream<Item = Result<u32, Status>>>) -> Result<(), Status>;
    async fn object(&self, value: Box<dyn Send>) -> Result<(), Status>;
}

fn main() {}
