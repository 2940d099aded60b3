use iip_rpc::{Status, Stream, Streaming, service};

#[service]
trait Events {
    #[rpc(oneway)]
    async fn fine(&self, text: &str) -> Result<(), Status>;
    #[rpc(oneway)]
    async fn answers(&self) -> Result<u32, Status>;
    #[rpc(oneway, on_cancel = "abort")]
    async fn cancelled(&self) -> Result<(), Status>;
    #[rpc(oneway, idempotent, hedge = "20ms")]
    async fn hedged(&self) -> Result<(), Status>;
    #[rpc(oneway, raw)]
    async fn raw(&self, body: Vec<u8>) -> Result<(), Status>;
    #[rpc(oneway)]
    async fn upload(&self, parts: Streaming<u32>) -> Result<(), Status>;
    #[rpc(oneway)]
    async fn list(&self) -> Result<impl Stream<Item = Result<u32, Status>>, Status>;
    #[rpc(oneway = true)]
    async fn valued(&self) -> Result<(), Status>;
}

fn main() {}
