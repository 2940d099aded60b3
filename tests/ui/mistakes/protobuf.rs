use iip_rpc::{Status, Stream, Streaming, service};

#[service(codec = "protobuf")]
trait Shapes {
    async fn none(&self) -> Result<(), Status>;
    async fn two(&self, first: u32, second: u32) -> Result<(), Status>;
    async fn text(&self, text: &str) -> Result<(), Status>;
    async fn bytes(&self, bytes: &[u8]) -> Result<(), Status>;
    #[rpc(json)]
    async fn json(&self, request: u32) -> Result<(), Status>;
    async fn list(&self) -> Result<impl Stream<Item = Result<u32, Status>>, Status>;
    async fn upload(&self, first: u32, second: u32, requests: Streaming<u32>) -> Result<(), Status>;
    async fn stream(&self, requests: Streaming<u32>) -> Result<(), Status>;
    #[rpc(raw)]
    async fn raw(&self, body: &[u8]) -> Result<Vec<u8>, Status>;
}

fn main() {}
