use iip_rpc::{Status, Streaming, Subscription, service};

#[service]
trait News {
    async fn fine(&self, topic: &str) -> Result<Subscription<u32>, Status>;
    async fn uploads(&self, parts: Streaming<u32>) -> Result<Subscription<u32>, Status>;
    #[rpc(raw)]
    async fn raw(&self, body: Vec<u8>) -> Result<Subscription<u32>, Status>;
    #[rpc(json)]
    async fn json(&self) -> Result<Subscription<u32>, Status>;
    #[rpc(oneway)]
    async fn one_way(&self) -> Result<Subscription<u32>, Status>;
}

#[service(codec = "protobuf")]
trait Messages {
    async fn numbers(&self, request: ()) -> Result<Subscription<u32>, Status>;
}

fn main() {}
