use iip_rpc::{Status, service};


#[service]
trait Echo {
    #[rpc(raw)]
    async fn none(&self) -> Result<Vec<u8>, Status>;
    #[rpc(raw)]
    async fn two(&self, a: Vec<u8>, b: Vec<u8>) -> Result<Vec<u8>, Status>;
    #[rpc(raw)]
    async fn text(&self, body: &str) -> Result<Vec<u8>, Status>;
    #[rpc(raw, json)]
    async fn both(&self, body: Vec<u8>) -> Result<Vec<u8>, Status>;
}

fn main() {}
