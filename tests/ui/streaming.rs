use iip_rpc::{Status, service};


trait Stream {
    type Item;
}

struct Streaming<T>(T);

#[service]
trait Topics {
    fn watch(&self, topic: String) -> impl Stream<Item = Result<String, Status>>;
    async fn follow(&self, topic: String) -> Result<impl Stream<Item = String>, Status>;
    async fn upload(&self, parts: Streaming<Vec<u8>>) -> Result<u64, Status>;
}

fn main() {}
