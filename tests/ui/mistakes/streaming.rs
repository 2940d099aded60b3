use iip_rpc::{Status, Stream, Streaming, service};

#[service]
trait Topics {
    fn watch(&self, topic: String) -> impl Stream<Item = Result<String, Status>>;
    async fn follow(&self, topic: String) -> Result<impl Stream<Item = String>, Status>;
    async fn both(&self) -> Result<(impl Stream<Item = u8>, impl Stream<Item = u8>), Status>;
    async fn upload(&self, parts: Streaming<Vec<u8>>, name: String) -> Result<u64, Status>;
    async fn lend(&self, parts: &Streaming<Vec<u8>>) -> Result<u64, Status>;
    #[rpc(json)]
    async fn plain(&self, parts: Streaming<Vec<u8>>) -> Result<u64, Status>;
}

fn main() {}
